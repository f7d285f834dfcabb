# Nothing that stops a conversion leaves a wrong file: SIGKILL at random moments
# and at every rename and sync, SIGINT, a failing sync; the same command goes on
# and the file is the same. What would mix two jobs is refused.
use strict;
use warnings;
use SluiceTest;
use Test::More;
use Time::HiRes qw(time sleep);

my $kills = $ENV{KILLS} // 100;
my $seed  = $ENV{SEED} // time ^ $$;
srand $seed;
diag("SEED=$seed KILLS=$kills");
my $begin = time;

# About 100 MB: a conversion of some hundred milliseconds, in a hundred tasks.
my $source = checkpoint(scratch(), qw(--preset demo --layers 4 --experts 8 --groups 2 --groups-used 1 --used 2));
my @command = ($SLUICE, 'convert', $source, '--recipe', 'q4_k_m', '--task-size', '1M', '--threads', '2',
               '--split-max-size', '25M', '-o');

my $dir = scratch();
my $r = run_ok('undisturbed', @command, "$dir/x.gguf");
my $whole = $r->{secs};
my %sum = map { $_ => sha256("$dir/$_") } grep { /\.gguf/ } ls($dir);
ok(keys %sum >= 4, 'parts and manifests');
unlink glob "$dir/*";

sub wrong_files { # final names with other contents than they must have
    my ($d) = @_;
    return [grep { !/\.partial$/ && !/journal/ && sha256("$d/$_") ne ($sum{$_} // '') } ls($d)];
}

sub complete {
    my ($name, $d) = @_;
    is_deeply({ map { $_ => sha256("$d/$_") } ls($d) }, \%sum, $name);
}

# Killed after its last step there is nothing left to go on with.
sub all_there {
    my ($d) = @_;
    return join(' ', ls($d)) eq join(' ', sort keys %sum);
}

# ---- SIGKILL at random moments; a finished conversion is checked and begun anew
my $t0 = time;
my ($killed, $finished, $progressed, @wrong) = (0, 0, 0);
while ($killed < $kills && !@wrong) {
    my $p = start(@command, "$dir/x.gguf");
    sleep(rand() * $whole * 0.7);
    kill 'KILL', -$p->{pid};
    finish($p);
    if ($p->{rc} == 137) {
        $killed++;
        push @wrong, @{ wrong_files($dir) };
        $progressed++ if $p->{err} =~ /going on/;
        unlink glob "$dir/*" if !@wrong && all_there($dir);
    } else {
        $finished++;
        push @wrong, "exit $p->{rc}: $p->{err}" if $p->{rc};
        push @wrong, @{ wrong_files($dir) };
        push @wrong, 'files are missing' unless all_there($dir);
        unlink glob "$dir/*";
    }
}
diag(sprintf 'one conversion %.2f s, %d kills in %.1f s, %d of them met earlier work', $whole, $killed, time - $t0, $progressed);
is_deeply(\@wrong, [], "$killed kills, $finished conversions finished between them: no wrong file, no lost one");
run_ok('and the last one is finished by the same command', @command, "$dir/x.gguf");
complete('with the same bytes', $dir);
unlink glob "$dir/*";

# ---- what was done is not done again. The machine may be slow just then: the kill
# comes later, or sooner, until it meets a moment between the first task and the last.
my ($percent, $delay) = (0, $whole * 0.6);
for (1 .. 40) {
    my $p = start(@command, "$dir/x.gguf");
    sleep($delay);
    kill 'KILL', -$p->{pid};
    finish($p);
    if ($p->{rc} == 137 && !all_there($dir)) {
        $r = run(@command, "$dir/x.gguf");
        ($percent) = $r->{err} =~ /going on with earlier work: (\d+) %/;
        last if $percent;
        $delay *= 1.2;
    } else {
        $delay *= 0.75;
    }
    unlink glob "$dir/*";
}
is($r->{rc}, 0, 'after a late kill') or diag($r->{err});
cmp_ok($percent // 0, '>', 0, 'earlier work counts');
complete('the same bytes', $dir);
unlink glob "$dir/*";

diag(sprintf '%.1f s', time - $begin);
# ---- killed at each rename and each sync, one after the other
my @small = ($SLUICE, 'convert', $TINY, '--recipe', 'q4_k_m', '--quiet', '--split-max-size', '5M', '--task-size', '1M', '-o');
my $ref = scratch();
run_ok('tiny-v3 undisturbed', @small, "$ref/x.gguf");
%sum = map { $_ => sha256("$ref/$_") } ls($ref);
my $strace = run('strace', '-f', '-o', '/dev/null', 'true')->{rc} == 0;
SKIP: {
    skip 'strace cannot trace here', 11 unless $strace;
    my $log = scratch() . '/trace';
    for my $call (qw(rename renameat2 fdatasync fsync)) {
        my ($n, @bad) = (0);
        for my $at (1 .. 40) {
            unlink glob "$dir/*";
            $r = run('strace', '-f', '-qq', '-o', $log, '-e', "trace=$call", '-e', "inject=$call:signal=SIGKILL:when=$at",
                @small, "$dir/x.gguf");
            last if $r->{rc} == 0;
            $n++;
            push @bad, "$call $at: @{ wrong_files($dir) }" if @{ wrong_files($dir) };
            # Killed past the last step, there is nothing left to go on with.
            my $all = join(' ', ls($dir)) eq join(' ', sort keys %sum);
            $r = run(@small, "$dir/x.gguf");
            push @bad, "$call $at: exit $r->{rc} $r->{err}" if $r->{rc} != ($all ? 13 : 0);
            push @bad, "$call $at: other files" if @{ wrong_files($dir) } || join(' ', ls($dir)) ne join(' ', sort keys %sum);
        }
        is_deeply(\@bad, [], "killed at each $call: $n places");
        ok($n > 0, "$call is called at all") if $call ne 'fsync';
    }

    # ---- a sync that fails: its data does not count
    my @bad;
    for my $call (qw(fdatasync fsync)) {
        for my $at (1 .. 4) {
            unlink glob "$dir/*";
            $r = run('strace', '-f', '-qq', '-o', $log, '-e', "trace=$call", '-e', "inject=$call:error=EIO:when=$at",
                @small, "$dir/x.gguf");
            push @bad, "$call $at: @{ wrong_files($dir) }" if @{ wrong_files($dir) };
            next if $r->{rc} == 0;
            $r = run(@small, "$dir/x.gguf");
            push @bad, "$call $at: exit $r->{rc} $r->{err}" if $r->{rc} || @{ wrong_files($dir) };
        }
    }
    is_deeply(\@bad, [], 'a failing sync never leads to a wrong file, and the next run is well');

    # ---- final names that cannot be given, from the first and from one in the middle on
    @bad = ();
    for my $at (1, 2) {
        my $call = $at == 1 ? 'rename' : 'renameat2'; # a manifest, and a part
        unlink glob "$dir/*";
        $r = run('strace', '-f', '-qq', '-o', $log, '-e', "trace=$call", '-e', "inject=$call:error=EROFS:when=$at+",
            @small, "$dir/x.gguf");
        push @bad, "rename $at: exit $r->{rc} $r->{err}" if $r->{rc} != 1 || $r->{err} !~ /cannot be renamed to \S+: Read-only file system/;
        push @bad, "rename $at: @{ wrong_files($dir) }" if @{ wrong_files($dir) };
        my ($unfinished) = glob "$dir/*.gguf.partial";
        unlink $unfinished if $at > 1;
        $r = run(@small, "$dir/x.gguf");
        push @bad, "rename $at: then $r->{rc} $r->{err}" if $r->{rc} || @{ wrong_files($dir) } || join(' ', ls($dir)) ne join(' ', sort keys %sum);
    }
    is_deeply(\@bad, [], 'a folder that becomes read-only: the same command ends it, also when a part was lost since');

    # ---- a filesystem that cannot tell in a rename that the name is taken
    unlink glob "$dir/*";
    run_ok('without RENAME_NOREPLACE', 'strace', '-f', '-qq', '-o', $log, '-e', 'trace=renameat2', '-e', 'inject=renameat2:error=EINVAL', @small, "$dir/x.gguf");
    complete('the same files', $dir);
}
unlink glob "$dir/*";

diag(sprintf '%.1f s', time - $begin);
# ---- the work of another job is not taken for one's own
sub there { my @found = glob "$dir/$_[0]"; return scalar @found }

# Killed some time after the plan was recorded and the files were reserved.
sub unfinished {
    my ($seconds, @cmd) = @_;
    for (1 .. 20) {
        unlink glob "$dir/*";
        my $q = start(@cmd, "$dir/x.gguf");
        sleep(0.005) until there('*.partial') || waitpid($q->{pid}, POSIX::WNOHANG());
        sleep($seconds);
        kill 'KILL', -$q->{pid};
        finish($q);
        return 1 if there('*journal') && there('*.partial');
    }
    return 0;
}
my @big = grep { !/^--split-max-size$|^25M$/ } @command;
ok(unfinished(0.1, @big), 'unfinished work');
for my $verb ('verify', 'inspect') {
    fails("$verb by the name to come", 7, qr{x\.gguf is unfinished \(\S+x\.gguf\.partial\); the command that began it goes on}, $SLUICE, $verb, "$dir/x.gguf");
    fails("$verb of it", 7, qr/x\.gguf\.partial: an unfinished file; the command that began it goes on/, $SLUICE, $verb, "$dir/x.gguf.partial");
}
SKIP: {
    my @as = qw(setpriv --clear-groups --regid 4242 --reuid 4242);
    chmod 0711, $dir =~ s{/[^/]+$}{}r or die $!;
    skip 'no other user gets to the tests\' folder', 1 if $> || run(@as, 'test', '-r', "$dir/x.gguf.partial", '-a', '-x', $SLUICE)->{rc};
    fails('for another user', 13, qr/x\.sluice-journal: unfinished work that another user began; let its owner/, @as, @big, "$dir/x.gguf");
}
my @other = map { $_ eq 'q4_k_m' ? 'q2_k' : $_ } @big;
fails('another recipe', 13, qr/another recipe /, @other, "$dir/x.gguf");
fails('another option', 13, qr/another --round-through \(then not given, now bf16\)/, @big[0 .. $#big - 1], '--round-through', 'bf16', '-o', "$dir/x.gguf");
my ($shard) = map { m{([^/]+)$} } (glob "$source/*.safetensors")[1];
my $moved = copy_checkpoint($source, scratch() . '/copy', $shard);
utime 1, 1, "$moved/$shard";
rename $source, "$source.away";
rename $moved, $source;
fails('another source', 13, qr/another source /, @big, "$dir/x.gguf");
rename $source, $moved;
rename "$source.away", $source;
ok(scalar(glob "$dir/*journal*"), 'the earlier work is still there');
run_ok('--force drops it', @other[0 .. $#other - 1], '--force', '-o', "$dir/x.gguf");
is_deeply([ls($dir)], ['x.gguf', 'x.gguf.xxh64'], 'nothing of it is left');
unlink glob "$dir/*";

# ---- a stock recipe whose text is another than when this was begun, as after an upgrade
my $then = scratch(); # the recipe of then
(my $text = slurp("$TOP/proto/recipes/dq3_k_m.recipe")) =~ s/^# What mixes.*\n.*\n\n//m;
spit("$then/dq3_k_m.recipe", $text);
sub by_then { # what is done with it
    my ($do) = @_;
    local $ENV{SLUICE_RECIPES} = $then;
    return $do->();
}
my $said = qr/another text of dq3_k_m than this release's, and goes on with that one; --force begins it anew/;
my @dq3 = map { $_ eq 'q4_k_m' ? 'dq3_k_m' : $_ } @big;
run_ok('F32', $SLUICE, 'convert', $TINY, '-q', '--recipe', 'f32', '-o', "$then/f32.gguf");
my @quantize = ($SLUICE, 'quantize', "$then/f32.gguf", '--recipe', 'dq3_k_m', '--threads', 1, '--backend', 'scalar');
for my $cmd (\@dq3, \@quantize) {
    my ($verb, @to) = ($cmd->[1], $cmd == \@dq3 ? pop @$cmd : ());
    by_then(sub { run_ok("$verb by the recipe of then", @$cmd, '--force', @to, "$then/$verb.gguf") });
    ok(by_then(sub { unfinished($cmd == \@dq3 ? 0.1 : 0, @$cmd, @to) }), 'begun with it');
    fails('another option is refused', 13, qr/unfinished work with another recipe /, @$cmd, '--model-name', 'Other', @to, "$dir/x.gguf");
    $r = run_ok('the same command goes on', @$cmd, '--json', @to, "$dir/x.gguf");
    my ($line) = grep { $_->{message_type} eq 'warning' } json_lines($r->{out});
    ok($r->{err} =~ $said && $line->{text} =~ $said, 'and says by which text') or diag($r->{err});
    is(sha256("$dir/x.gguf"), sha256("$then/$verb.gguf"), 'the file is the one that was begun');
}
ok(by_then(sub { unfinished(0, @dq3, '-o') }), 'begun once more');
$r = run_ok('--force begins anew', @dq3, '--force', '-o', "$dir/x.gguf");
unlike($r->{err}, qr/another text/, 'without a word');
isnt(sha256("$dir/x.gguf"), sha256("$then/convert.gguf"), "with this release's text");
ok(by_then(sub { unfinished(0, @dq3, '-o') }), 'begun for --quiet');
is(run_ok('--quiet goes on', @dq3, '--quiet', '-o', "$dir/x.gguf")->{err}, '', 'and says nothing');
ok(by_then(sub { unfinished(0, @dq3, '-o') }), 'and again');
spit("$then/dq3_k_m.recipe", "$text\n# changed by its owner\n");
fails("a file's text that was changed is refused", 13, qr/another recipe \(then dq3_k_m .*, now dq3_k_m /,
    map({ $_ eq 'dq3_k_m' ? "$then/dq3_k_m.recipe" : $_ } @dq3), '-o', "$dir/x.gguf");
SKIP: {
    skip 'strace cannot trace here', 2 unless $strace;
    my @parts = map { $_ eq 'q4_k_m' ? 'dq3_k_m' : $_ } @small;
    unlink glob "$dir/*";
    by_then(sub { run('strace', '-f', '-qq', '-o', "$then/trace", '-e', 'trace=renameat2', '-e', 'inject=renameat2:signal=SIGKILL:when=2', @parts, "$dir/x.gguf") });
    my $half = there('*-of-*.gguf');
    run_ok('a set that was published in part', @parts, "$dir/x.gguf");
    ok($half == 1 && !there('*.partial') && !there('*journal'), 'is finished');
}
unlink glob "$dir/*";

# ---- what it is that differs: each option that decides bytes or tasks, by its name
my $copy = copy_checkpoint($TINY, scratch() . '/tiny', map { sprintf 'model-%05d-of-00003.safetensors', $_ } 1 .. 3);
my @base = ($SLUICE, 'convert', $copy, '--recipe', 'q4_k_m', '--layout', 'legacy', '--threads', '1', '--backend', 'scalar');
ok(unfinished(0, @base, '-o'), 'a job that was begun');
spit("$dir/types", "attn_output=q6_k\n");
my @options = (
    [qw(layout mla)], [qw(round-through bf16)], [qw(split-max-size 5M)], [qw(split-max-tensors 20)],
    ['no-tensor-first-split'], [qw(model-name Other)], [qw(tensor-type attn_output=q6_k)],
    ['tensor-type-file', "$dir/types", 'tensor-type'], [qw(output-tensor-type q8_0)], [qw(token-embedding-type q8_0)],
    ['leave-output-tensor'], ['pure'], ['override-kv', 'general.author=str:me'], [qw(rules 2026)], [qw(task-size 1M)],
    ['imatrix', "$TINY/imatrix.legacy-layout.dat"],
);
for my $o (@options) {
    my ($name, $value, $said) = @$o;
    my $word = '--' . ($said // $name);
    my @now = $name eq 'layout' ? map({ $_ eq 'legacy' ? $value : $_ } @base) : (@base, "--$name", grep { defined } $value);
    fails("--$name is named", 13, qr/unfinished work with another \Q$word\E(?: \(|;)/, @now, '-o', "$dir/x.gguf");
}
fails('the recipe is named before the layout', 13, qr/another recipe \(then q4_k_m .*, now q2_k /,
    map({ $_ eq 'q4_k_m' ? 'q2_k' : $_ eq 'legacy' ? 'mla' : $_ } @base), '-o', "$dir/x.gguf");
fails('the source is named before a layout that it does not have', 13, qr/another source \(then tiny /,
    $SLUICE, 'convert', checkpoint(scratch(), qw(--arch llama)), '--recipe', 'q4_k_m', '-o', "$dir/x.gguf");
my @imatrix = ('--imatrix', "$TINY/imatrix.legacy-layout.dat");
my @tiny_shards = glob "$copy/*.safetensors";
run('touch', '-r', $tiny_shards[1], "$copy/time"); # to the nanosecond
utime 1, 1, $tiny_shards[1];
fails('a shard with another time is another source', 13, qr/another source \(then tiny /, @base, '-o', "$dir/x.gguf");
run('touch', '-r', "$copy/time", $tiny_shards[1]);
my $config = slurp("$copy/generation_config.json");
spit("$copy/generation_config.json", '{"temperature": 0.123}');
fails('another generation_config.json', 13, qr/another config\.json, tokenizer, model card or release of sluice/, @base, '-o', "$dir/x.gguf");
spit("$copy/generation_config.json", $config);
run_ok('another limit that splits nothing is the same work', @base, '-o', "$dir/x.gguf", '--split-max-size', '90G');
unlink glob "$dir/*";
ok(unfinished(0, @base, @imatrix, '-o'), 'a job with an imatrix');
fails('--exclude-weights is named', 13, qr/another --exclude-weights \(then not given\)/, @base, @imatrix, '--exclude-weights', 'attn_q_a',
    '-o', "$dir/x.gguf");
fails('--include-weights is named', 13, qr/another --include-weights \(then not given\)/, @base, @imatrix, '--include-weights', 'ffn',
    '-o', "$dir/x.gguf");
fails('its absence is named', 13, qr/another --imatrix \(now not given\)/, @base, '-o', "$dir/x.gguf");
run_ok('the same command finishes it', @base, @imatrix, '-o', "$dir/x.gguf");
unlink glob "$dir/*";

# ---- two at once
diag(sprintf '%.1f s', time - $begin);
my $first = start(@big, "$dir/x.gguf");
sleep(0.02) until glob("$dir/*journal") || waitpid($first->{pid}, POSIX::WNOHANG());
$r = run(@big, "$dir/x.gguf");
is($r->{rc}, 13, 'a second process on the same job is refused') or diag($r->{err});
finish($first);
is($first->{rc}, 0, 'and the first is not disturbed') or diag($first->{err});
my $sum = sha256("$dir/x.gguf");
unlink glob "$dir/*";

# ---- SIGINT, SIGTERM, SIGHUP: a safe point, exit 75
for my $signal (qw(INT TERM HUP)) {
    my ($q, $after) = (undef, $whole / 4);
    for (1 .. 20) { # a machine that was slower before is through by then
        $q = start(@big, "$dir/x.gguf");
        sleep(0.02) until there('*journal') || slurp("/proc/$q->{pid}/stat") =~ /\) Z/;
        sleep($after);
        kill $signal, -$q->{pid};
        finish($q);
        last if $q->{rc};
        $after *= 0.6;
        unlink glob "$dir/*";
    }
    is($q->{rc}, 75, "SIG$signal: exit 75") or diag($q->{err});
    like($q->{err}, qr/same command/, 'and it says how to go on');
    ok(!-e "$dir/x.gguf", 'no final name yet');
    run_ok('the same command', @big, "$dir/x.gguf");
    is(sha256("$dir/x.gguf"), $sum, 'the same file');
    unlink glob "$dir/*";
}

# ---- a terminal that goes away: nohup is heeded
{
    my $q = start('nohup', @big, "$dir/x.gguf");
    sleep(0.02) until glob("$dir/*partial") || waitpid($q->{pid}, POSIX::WNOHANG());
    kill 'HUP', -$q->{pid};
    finish($q);
    is($q->{rc}, 0, 'under nohup SIGHUP stops nothing') or diag($q->{err});
    is(sha256("$dir/x.gguf"), $sum, 'the same file');
    unlink glob "$dir/*";
}

# ---- a second signal ends it at once
{
    my $q = start(@big, "$dir/x.gguf");
    sleep(0.02) until glob("$dir/*partial") || waitpid($q->{pid}, POSIX::WNOHANG());
    kill $_, -$q->{pid} for qw(STOP INT TERM CONT); # both wait for it
    finish($q);
    like($q->{rc}, qr/^1[34][03]$/, 'two signals: 128 and the number of one') or diag($q->{err});
    run_ok('the same command', @big, "$dir/x.gguf");
    is(sha256("$dir/x.gguf"), $sum, 'the same file');
    unlink glob "$dir/*";
}

diag(sprintf '%.1f s in all', time - $begin);
done_testing();
