# System calls that fail, one at a time (strace -e inject): each time either all is as it always is, or the
# program ends with a line that names the file; nothing else than the right file has its final name, and the
# next run makes what is missing and leaves nothing over.
use strict;
use warnings;
use SluiceTest;
use Test::More;

plan skip_all => 'a sanitizer makes calls of its own' if $SANITIZED;
plan skip_all => 'strace cannot inject here' if run('strace', '-f', '--seccomp-bpf', '-o', '/dev/null', '-e', 'inject=fsync:error=EIO', 'true')->{rc};

my $src = checkpoint(scratch() . '/src', qw(--arch qwen2 --preset small --hidden 256 --inter 256 --vocab 512 --layers 1));
spit("$src/README.md", "---\nlicense: mit\nbase_model: someone/Some-Model-1B\n---\n");
spit("$src/generation_config.json", '{"temperature": 0.6, "top_p": 0.95}');
spit("$src/chat_template.jinja", '{{ messages }}');
my $dir = scratch();
my $log = scratch() . '/trace';

# The N-th such call about one of these paths fails.
sub failing {
    my ($call, $errno, $n, $paths, @cmd) = @_;
    my $r = run('strace', '-f', '--seccomp-bpf', '-qq', '-o', $log, '-e', "trace=$call", '-e', "inject=$call:error=$errno:when=$n", (map { ('-P', $_) } @$paths), @cmd);
    $r->{reached} = slurp($log) =~ /\(INJECTED\)/;
    $r->{err} =~ s{^strace: Requested path [^\n]*\n}{}mg; # the tests may run behind a link
    return $r;
}

# An open file is looked up by newfstatat, with later glibcs (Debian 13) by fstat.

# ---- the source: what cannot be looked up or read is not taken for missing
my @plan = ($SLUICE, 'plan', $src, '--recipe', 'q4_k_m', '--json');
my ($usual) = map { s/"free_bytes":\d+//r } run_ok('a plan', @plan)->{out};
my (@bad, $runs);
for my $path ($src, glob "$src/*") {
    for my $call ($path eq $src ? qw(newfstatat fstat readlink) : qw(newfstatat fstat openat pread64)) {
        for (my $n = 1; $n < 20; $n++) {
            my $r = failing($call, 'EIO', $n, [$path], @plan);
            last unless $r->{reached};
            $runs++;
            my ($name) = $path =~ m{([^/]+)$};
            my $said = $r->{rc} == 7 && $r->{err} =~ /^sluice plan: [^\n]*\Q$name\E[^\n]*Input\/output error[^\n]*\n\z/;
            push @bad, "$call $n $name: exit $r->{rc} $r->{err}" unless $said || ($r->{rc} == 0 && $r->{out} =~ s/"free_bytes":\d+//r eq $usual);
        }
    }
}
is_deeply(\@bad, [], 'a source that cannot be read is no other source');
cmp_ok($runs, '>', 40, "$runs times");

# ---- the output
sub files { return { map { $_ => sha256("$dir/$_") } ls($dir) } }

sub begin {
    my ($old) = @_;
    unlink glob "$dir/*";
    spit("$dir/$_", $old->{$_}) for keys %$old;
}

# Each such call of a command that is about these paths, of so many one; $old: the files that are there before.
sub each_call {
    my ($name, $old, $calls, $paths, @cmd) = @_;
    my (@wrong, $failed, $went_on);
    begin($old);
    run_ok($name, @cmd);
    my $want = files();
    for (@$calls) {
        my ($call, $errno, $step) = split /[: ]/;
        for (my $n = 1; $n < 200; $n += $step // 1) {
            begin($old);
            my $r = failing($call, $errno, $n, $paths, @cmd);
            last unless $r->{reached};
            my $is = files();
            my @final = grep { !/partial|journal/ && $is->{$_} ne ($want->{$_} // '') && !$old->{$_} } keys %$is;
            push @wrong, "$call $n: $r->{rc} $r->{err}" if $r->{rc} > 13 || ($r->{rc} && $r->{err} !~ m{^sluice \w+: [^\n]*\Q$dir\E[^\n]*\n\z}m);
            push @wrong, "$call $n: wrong @final" if @final;
            $r->{rc} ? $failed++ : $went_on++;
            if ($r->{rc} || join('', sort keys %$is) ne join('', sort keys %$want)) {
                $r = run(@cmd);
                $is = files();
                push @wrong, "$call $n, again: $r->{rc} $r->{err}" if $r->{rc} && $r->{rc} != 13;
            }
            push @wrong, "$call $n: @{[map { $_ . (exists $want->{$_} ? ' lacks or differs' : ' left over') } grep { ($is->{$_} // '') ne ($want->{$_} // '') } keys %$is, keys %$want]}"
                if join(' ', map { "$_ $is->{$_}" } sort keys %$is) ne join(' ', map { "$_ $want->{$_}" } sort keys %$want);
        }
    }
    is_deeply(\@wrong, [], "$name: right, or a line, and right the next time") or diag(join "\n", @wrong);
    diag("$failed times it ended, $went_on times it went on");
}

my @convert = ($SLUICE, 'convert', $src, '-o', "$dir/x.gguf", qw(--recipe q4_k_m --quiet --io pread --threads 1 --direct off));
my @part = map { "$dir/x.gguf$_" } '', '.partial', '.xxh64', '.xxh64.partial';
each_call('convert', {}, ['newfstatat:EIO', 'fstat:EIO', 'openat:EIO', 'unlink:EIO', 'rename:EIO', 'renameat2:EIO', 'fallocate:EDQUOT', 'ftruncate:EIO',
    'fdatasync:EIO', 'fsync:EDQUOT', 'write:ENOSPC', 'pwrite64:ENOSPC:7', 'pread64:EIO'], \@part, @convert);
run_ok('a former set', @convert, '--split-max-tensors', 6);
my %former = map { $_ => slurp("$dir/$_") } ls($dir);
my @former = map { "$dir/$_" } keys %former;
each_call('in the place of a set', \%former, ['newfstatat:EIO:4', 'fstat:EIO:4', 'unlink:EIO'], \@former, @convert, '--force');

# ---- a filesystem that cannot do a thing for any file
sub lacking {
    my ($call, $errno, $path) = @_;
    unlink glob "$dir/*";
    my $r = run('strace', '-f', '-qq', '-o', $log, '-e', "trace=$call", '-e', "inject=$call:error=$errno", '-P', $path, @convert);
    return ($r, slurp($log) =~ /\(INJECTED\)/);
}
for my $errno (qw(ENOLCK ENOSYS EOPNOTSUPP)) {
    my ($r) = lacking('fcntl', $errno, "$dir/x.sluice-journal");
    ok($r->{rc} == 1 && $r->{err} =~ m{^sluice convert: \Q$dir\E/x\.sluice-journal: files cannot be locked on this filesystem: [^\n]*\n\z}m, "no locks: $errno")
        or diag("$r->{rc} $r->{err}");
    is_deeply([ls($dir)], [], 'nothing is left');
}
for my $errno (qw(EINVAL ENOSYS EPERM)) { # of filesystems and filters
    my ($r, $reached) = lacking('renameat2', $errno, "$dir/x.gguf.partial");
    ok($reached && $r->{rc} == 0, "no renaming without replacing: $errno") or diag("$r->{rc} $r->{err}");
}
for my $errno (qw(EINVAL ENOSYS EOPNOTSUPP)) {
    my ($r, $reached) = lacking('fsync', $errno, $dir);
    ok($reached && $r->{rc} == 0, "folders that cannot be synced: $errno") or diag("$r->{rc} $r->{err}");
}
unlink glob "$dir/*";
for my $call (qw(sched_getscheduler sched_setscheduler)) { # libzmq would abort
    fails("$call is forbidden", 1, qr/^sluice convert: threads may not set their scheduling: .*$call/m, 'strace', '-f', '-qq', '-o', $log,
        '-e', "trace=$call", '-e', "inject=$call:error=EPERM", @convert);
    is_deeply([ls($dir)], [], 'nothing is left');
}

my @keys = ($SLUICE, 'keys', "$dir/k.key", '--name', 'x');
for my $c (['write', 'EINTR'], ['close', 'EIO'], ['fsync', 'EIO']) {
    for my $name ('k.key', 'k.key.pub') {
        begin({});
        my $r = failing(@$c, 1, ["$dir/$name"], @keys);
        is_deeply([ls($dir)], $r->{rc} ? [] : ['k.key', 'k.key.pub'], "keys: both files or none ($c->[0], $name)") or diag($r->{err});
    }
}

done_testing();
