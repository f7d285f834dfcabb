# What convert finds and leaves in the output's folder: parts of a former set, a
# service's job, and nothing of a job that never began.
use strict;
use warnings;
use SluiceTest;
use Test::More;

my $dir = scratch();
my @convert = ($SLUICE, 'convert', $TINY, '--recipe', 'q4_k_m', '-o', "$dir/x.gguf");
my @four = (@convert, '--split-max-size', '4M');
my @two  = (@convert, '--split-max-size', '9M');

sub set { my ($n) = @_; return map { my $f = sprintf 'x-%05d-of-%05d.gguf', $_, $n; ($f, "$f.xxh64") } 1 .. $n }
sub sums { return { map { $_ => sha256("$dir/$_") } grep { -f "$dir/$_" } @_ } }
sub whole { my ($want) = @_; return !grep { !-f "$dir/$_" || sha256("$dir/$_") ne $want->{$_} } keys %$want }

# ---- parts of another set
run_ok('four parts', @four);
my $four = sums(set(4));
is(scalar keys %$four, 8, 'with four manifests');
for my $case (['two parts', @two], ['one file', @convert]) {
    my ($name, @cmd) = @$case;
    my $r = fails("$name beside them", 13,
        qr/x-00001-of-00004\.gguf, \S*x-00002-of-00004\.gguf, \S*x-00003-of-00004\.gguf and 1 more: parts of another set.*--force removes them/, @cmd);
    is_deeply([ls($dir)], [sort keys %$four], "$name: nothing was begun");
}

# What is no part of that set stays, whatever it is called.
my %other = ('x-00001-of-00009.gguf' => 'text', 'x-00007-of-00005.gguf' => 'GGUF', 'xy-00001-of-00004.gguf' => slurp("$dir/x-00001-of-00004.gguf"),
    'x.gguf' => 'single', 'x-00001-of-00004.gguf.bak' => 'b', 'x-00001-of-00009.gguf.xxh64' => 'c');
spit("$dir/$_", $other{$_}) for keys %other;
my $outside = scratch();
spit("$outside/part", slurp("$dir/x-00001-of-00004.gguf"));
symlink "$outside/part", "$dir/x-00003-of-00005.gguf" or die $!;
spit("$dir/x-00001-of-00005.gguf", slurp("$dir/x-00001-of-00004.gguf")); # its header says: of 4
my $r = run_ok('--force', @two, '--force');
like($r->{err}, qr/removed 4 parts of the former set/, 'says what it removed');
my $two = sums(set(2));
is_deeply([ls($dir)], [sort keys %$two, keys %other, qw(x-00003-of-00005.gguf x-00001-of-00005.gguf)], 'exactly the former set is gone');
ok(slurp("$dir/$_") eq $other{$_}, "$_ is as it was") for sort keys %other;
run_ok('and the new one is whole', $SLUICE, 'verify', "$dir/x-00001-of-00002.gguf");
unlink glob "$dir/*";

# A part that was damaged since: its header still says what it is, and it goes too.
run_ok('four parts again', @four, '--quiet');
flip_byte("$dir/x-00002-of-00004.gguf", (-s "$dir/x-00002-of-00004.gguf") - 100);
my @link = map { "x-00003-of-00004.gguf$_" } '', '.xxh64';
rename "$dir/$link[0]", "$outside/third" or die $!;
symlink "$outside/third", "$dir/$link[0]" or die $!;
$r = run_ok('--force, one file', @convert, '--force');
is_deeply([ls($dir)], [@link, 'x.gguf', 'x.gguf.xxh64'], 'the parts are gone, but for one that is elsewhere');
unlink glob "$dir/*";

# Parts that are another user's, in a folder with the sticky bit.
SKIP: {
    my @as = qw(setpriv --clear-groups --regid 4242 --reuid 4242);
    chmod 0711, $outside =~ s{/[^/]+$}{}r or die $!;
    chmod 01777, $dir or die $!;
    skip 'no other user gets to the tests\' folder', 3 if run(@as, $SLUICE, 'inspect', $TINY)->{rc} || run(@as, 'touch', "$dir/x")->{rc};
    unlink "$dir/x";
    run(@four, '--quiet');
    fails('--force says before it begins what it may not remove', 13, qr/x-0000\d-of-00004\.gguf cannot be replaced: it is another user's, in a folder with the sticky bit/,
        @as, @two, '--force');
    is_deeply([ls($dir)], [sort keys %$four], 'nothing was begun');
    unlink glob "$dir/*";
    chmod 0755, $dir or die $!;
    fails('a folder that this user may not write in', 1, qr/^sluice convert: \Q$dir\E: no file can be made in this folder: Permission denied \(user id 4242\)$/, @as, @convert);
}

# What an attribute forbids every change to, root's too. What began earlier is to be removed, or gone on with.
SKIP: {
    spit("$dir/x.gguf.partial", '');
    skip 'no attributes here', 15 if run('chattr', '+i', "$dir/x.gguf.partial")->{rc};
    my $says = qr/ is immutable, as 'lsattr -d' shows: 'chattr -i -a' by root ends that; or choose another output$/;
    fails('an immutable unfinished file', 13, qr/^sluice convert: \Q$dir\E\/x\.gguf\.partial$says/, @convert);
    run_ok('it may be changed again', 'chattr', '-i', "$dir/x.gguf.partial");
    run_ok('then it is converted', @convert, '--quiet');
    run_ok('the file is immutable', 'chattr', '+a', "$dir/x.gguf");
    fails('--force', 13, qr/^sluice convert: \Q$dir\E\/x\.gguf$says/, @convert, '--force');
    run_ok('no more', 'chattr', '-a', "$dir/x.gguf");
    unlink glob "$dir/*";
    symlink $dir, "$outside/link" or die $!;
    for my $attribute ('i', 'a') { # what may only be added to cannot be renamed
        run_ok('an immutable folder', 'chattr', "+$attribute", $dir);
        fails('it is named', 1, qr/^sluice convert: \Q$dir\E$says/, @convert);
        fails('so is a link to it', 1, qr/^sluice convert: \Q$outside\E\/link$says/, @convert[0 .. $#convert - 1], "$outside/link/x.gguf");
        run_ok('and no more', 'chattr', "-$attribute", $dir);
    }
    is_deeply([ls($dir)], [], 'nothing was begun');
}
unlink glob "$dir/*";

# The source's own parts are no former set.
run_ok('a split source', $SLUICE, 'convert', $TINY, '--recipe', 'f16', '-o', "$dir/x.gguf", '--split-max-size', '30M', '--quiet');
my $source = sums(ls($dir));
my ($first) = sort keys %$source;
run_ok('quantize beside it', $SLUICE, 'quantize', "$dir/$first", "$dir/x.gguf", 'Q4_K_M');
run_ok('and again with --force', $SLUICE, 'quantize', "$dir/$first", "$dir/x.gguf", 'Q4_K_M', '--force');
ok(whole($source), 'the source is as it was');
unlink glob "$dir/*";

# ---- a job of the service on this name
for my $end ('', '-ending') {
    spit("$dir/x.sluice-job$end", '0' x 32 . "\njob 12\n");
    for my $force ([], ['--force']) {
        fails("a service's job @$force", 13, qr/x\.sluice-job$end: job 12 of the service .*sluice wait 12.*sluice retry 12.*sluice cancel --discard 12/,
            @convert, @$force);
    }
    is_deeply([ls($dir)], ["x.sluice-job$end"], 'nothing was begun');
    spit("$dir/x.sluice-job$end", '0' x 32 . "\n");
    fails('of an older release', 13, qr/job of the service .*sluice wait JOB/, @convert);
    unlink glob "$dir/*";
}
spit("$dir/xy.sluice-job", '0' x 32 . "\njob 12\n");
run_ok('a job on another name', @convert, '--quiet');
unlink glob "$dir/*";

# ---- a job that never began leaves nothing; a former set is whole until the new one is
SKIP: {
    skip 'strace cannot trace here', 16 if run('strace', '-f', '-o', '/dev/null', 'true')->{rc};
    my $log = "$outside/trace";
    my $trace = sub {
        my ($what, @cmd) = @_;
        return run('strace', '-f', '-qq', '-y', '-o', $log, '-e', "trace=$what->[0]", $what->[1] ? ('-e', "inject=$what->[0]:$what->[1]") : (), @cmd);
    };
    run('mkdir', "$dir/in");
    my @new = ($SLUICE, 'convert', $TINY, '--recipe', 'q4_k_m', '-o', "$dir/in/new/", '--quiet');
    $r = $trace->(['fsync'], @new);
    my @sync = grep { /fsync/ } split /\n/, slurp($log);
    my ($folder) = grep { $sync[$_] =~ m{/in/new>\)} } 0 .. $#sync;
    ok($r->{rc} == 0 && defined $folder, 'the folder is synced') or diag("@sync");
    my (@bad, $first_said);
    for my $at (1 .. 1 + ($folder // 0)) {
        run('rm', '-rf', "$dir/in/new");
        $r = $trace->(['fsync', "error=EIO:when=$at"], @new);
        $first_said = $r->{err};
        push @bad, "fsync $at: exit $r->{rc}, left: " . join(' ', ls("$dir/in"), -d "$dir/in/new" ? ls("$dir/in/new") : ())
            if $r->{rc} == 0 || ls("$dir/in");
    }
    is_deeply(\@bad, [], 'a folder that cannot be synced before the work: nothing stays, not even the folder');
    like($first_said, qr/cannot sync the folder/, 'and it is said');
    $r = $trace->(['fallocate', 'error=EIO:when=1'], @four);
    ok($r->{rc} == 1 && !grep({ /^x/ } ls($dir)), 'space that cannot be reserved: nothing stays') or diag("$r->{rc} $r->{err}", join ' ', ls($dir));
    for my $c (["$dir/in/key", 'keys', "$dir/in/key"], ["$dir/in/r", 'plan', $TINY, '--target-bpw', '4', '--write-recipe', "$dir/in/r"],
        ["$dir/in/i", 'imatrix', "$TINY/imatrix.legacy-layout.dat", '--convert', "$dir/in/i"]) {
        my ($made, @cmd) = @$c;
        $r = $trace->(['fsync'], $SLUICE, @cmd);
        ok($r->{rc} == 0 && -s $made && (grep { /fsync/ } split /\n/, slurp($log))[-1] =~ m{/in>\) += 0}, "$cmd[0]: the name is synced last");
    }
    run('rm', '-rf', "$dir/in");
    $r = $trace->(['fallocate', 'error=EINTR:when=1'], @four, '--quiet');
    ok($r->{rc} == 0 && whole($four), 'a signal while space is reserved: it goes on') or diag("$r->{rc} $r->{err}");

    my ($n, @half) = (0);
    for my $call (qw(rename unlink)) {
        for my $at (1 .. 40) {
            unlink glob "$dir/*";
            run(@four, '--quiet');
            die 'four parts differ' unless whole($four);
            $r = $trace->([$call, "signal=SIGKILL:when=$at"], @two, '--force', '--quiet');
            last if $r->{rc} == 0;
            $n++;
            push @half, "$call $at: no set is whole: " . join ' ', ls($dir) unless whole($four) || whole($two);
            $r = run(@two, '--force', '--quiet');
            push @half, "$call $at: exit $r->{rc} $r->{err}" if $r->{rc};
            push @half, "$call $at: then " . join ' ', ls($dir) if join(' ', ls($dir)) ne join(' ', sort keys %$two);
        }
    }
    is_deeply(\@half, [], "killed at each of $n renames and removals: one set is whole at any time");
    cmp_ok($n, '>=', 12, 'there are as many as files');

    # ---- killed between the publication and the end of its journal
    unlink glob "$dir/*";
    $trace->(['unlink'], @convert, '--quiet');
    my @lines = split /\n/, slurp($log);
    my ($pid) = map { /^(\d+) .*sluice-journal"/ ? $1 : () } @lines;
    @lines = grep { /^$pid .*unlink\(/ } @lines;
    my ($at) = grep { $lines[$_] =~ /sluice-journal"/ } 0 .. $#lines;
    for my $then ('another recipe', 'moved away') {
        unlink glob "$dir/*";
        $trace->(['unlink', 'signal=SIGKILL:when=' . ($at + 1)], @convert, '--quiet');
        ok(-e "$dir/x.sluice-journal" && -e "$dir/x.gguf", 'the journal is still there');
        my @other = map { $_ eq 'q4_k_m' ? 'q8_0' : $_ } @convert;
        fails('another recipe: it exists, it is not unfinished', 13, qr/x\.gguf exists already; --force/, @other) if $then eq 'another recipe';
        unlink glob "$dir/x.gguf*" if $then eq 'moved away';
        run_ok('the finished file was moved away: made again', @convert, '--quiet') if $then eq 'moved away';
        is_deeply([ls($dir)], ['x.gguf', 'x.gguf.xxh64'], 'and the journal is gone');
    }
}

done_testing();
