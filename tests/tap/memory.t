# Memory that is not there, at each place where it is asked for: the program ends with one clear
# line or goes on without, leaves no wrong file under a final name, and the next time says and
# writes what it always does (tests/preload/alloc_faults.c).
use strict;
use warnings;
use SluiceService;
use SluiceTest;
use Test::More;

plan skip_all => 'a sanitizer has an allocator of its own' if $SANITIZED;

my $src = checkpoint(scratch() . '/src', qw(--arch qwen2 --preset small --hidden 256 --inter 256 --vocab 512 --layers 2));
spit("$src/README.md", "---\nlicense: mit\nbase_model: someone/Some-Model-1B\n---\n");
spit("$src/generation_config.json", '{"temperature": 0.6, "top_p": 0.95}');
my $dir = scratch();
my $count = scratch() . '/count';

sub under {
    my ($n, @cmd) = @_;
    local %ENV = (%ENV, LD_PRELOAD => tool('alloc_faults.so'), ALLOC_FAULTS => $n, ALLOC_COUNT => $count);
    my $r = run(@cmd);
    $r->{out} =~ s/"free_bytes":\d+|"time":"[^"]*"//g;
    return $r;
}

sub fails_under {
    my ($what, $verb, $words, @cmd) = @_;
    my $r = under($what, @cmd);
    ok($r->{rc} == 1 && $r->{err} =~ /^sluice $verb: $words[^\n]*\n\z/m, "$verb without $what ends") or diag("$r->{rc} $r->{err}");
}

# $every: of so many places one is tried.
sub each_place {
    my ($name, $every, @cmd) = @_;
    my $r = under(0, @cmd);
    my $places = -e $count ? slurp($count) + 0 : 0;
    my ($out, %files) = ($r->{out}, map { $_ => sha256("$dir/$_") } ls($dir));
    my ($failed, $went_on, @bad) = (0, 0);
    ok($r->{rc} == 0 && $places > 30, "$name: $places places ask for memory") or diag($r->{err});
    unlink glob "$dir/*";
    for (my $n = 1; $n <= $places; $n += $every) {
        $r = under($n, @cmd);
        my @lines = $r->{err} =~ /^sluice \w+: (.*)$/mg;
        if ($r->{rc} == 0) {
            $went_on++;
            push @bad, "$n: another output" if $r->{out} ne $out;
        } else {
            $failed++;
            push @bad, "$n: exit $r->{rc}: $r->{err}" if $r->{rc} != 1 || @lines != 1 || $lines[0] !~ /memory|thread/;
        }
        push @bad, map { "$n: wrong file $_" } grep { !/partial|journal/ && sha256("$dir/$_") ne ($files{$_} // '') } ls($dir);
    }
    is_deeply(\@bad, [], "$name: each time one line, or nothing that differs") or diag(join "\n", @bad);
    cmp_ok($failed, '>', 10, "$failed times it ended, $went_on times it went on");
    $r = under(0, @cmd);
    ok($r->{rc} == 0 && $r->{out} eq $out && !(grep { sha256("$dir/$_") ne ($files{$_} // '') } ls($dir)),
        "$name: the same command is right afterwards") or diag($r->{err});
    unlink glob "$dir/*";
}

each_place('plan', 3, $SLUICE, 'plan', $src, '--recipe', 'q4_k_m', '--json');
my $packed = checkpoint(scratch() . '/packed', qw(--packed --layers 2 --experts 2 --used 1 --groups 1 --groups-used 1));
each_place("packed, $_", 5, $SLUICE, 'plan', "$packed$_", '--recipe', 'q4_k_m', '--json') for '', '/config.json';
each_place('convert', 11, $SLUICE, 'convert', $src, '-o', "$dir/o.gguf", '--recipe', 'q4_k_m', '--quiet', '--force',
    '--task-size', '500K', '--threads', 1);

# ---- what other verbs print
my $model = scratch() . '/m.gguf';
run_ok('a model', $SLUICE, 'convert', $src, '-o', $model, '--recipe', 'q4_k_m', '--quiet');
each_place('inspect', 5, $SLUICE, 'inspect', $model, '--json');
each_place('diff', 3, $SLUICE, 'diff', $model, $model, '--json');
service_setup(source => '-', sluice => {root => [$src, $dir]}, daemon => {lease => '60s'});
start_one($_) for qw(daemon w1);
run_ok('a job', $SLUICE, 'submit', $src, '-o', "$dir/", '--recipe', 'q8_0', '--timeout', 30, '--wait');
unlink glob "$dir/*";
stop_one('w1');
start_one('w1', env => {LD_PRELOAD => tool('alloc_faults.so'), ALLOC_FAULTS => 'grant'});
run_ok('another', $SLUICE, 'submit', $src, '-o', "$dir/", '--recipe', 'q8_0');
is(ended('w1', 30), 1, 'a worker without memory for what it was granted ends');
start_one('w1');
run_ok('the next one does it', $SLUICE, 'wait', 2);
is_deeply([map { $_->{kind} } events(2, qr/lease_lost/)], [], 'at once: the lease had gone back');
unlink glob "$dir/*";
each_place('wait', 1, $SLUICE, 'wait', 1, '--json', '--timeout', 30);
each_place('set', 3, $SLUICE, 'set', 1, '--priority', 7, '--json');
each_place('queue', 3, $SLUICE, 'queue', '--state', 'running,queued,succeeded', '--json');
stop_one($_) for qw(w1 daemon);

# ---- no thread can be started
for (['convert', '-o', "$dir/o.gguf", '--recipe', 'q4_k_m'], ['plan', '--target-size', '700K']) {
    my ($verb, @options) = @$_;
    fails_under('threads', $verb, qr/cannot start a thread: Resource .*; allow more processes \(ulimit -u, .* \(ulimit -v\), .*sluice-worker fewer --threads$/m, $SLUICE, $verb, $src, @options);
}

# ---- the coordinator ends for want of memory while this program's first thread connects to it: it waited for ever
fails_under('meeting', 'convert', qr/out of memory/, qw(timeout -k 1 60), $SLUICE, 'convert', $src, '-o', "$dir/o.gguf",
    '--recipe', 'q4_k_m');

# ---- a text in memory cannot be closed: glibc's fclose does not tell
fails_under('streams', $_->[0], qr/out of memory/, $SLUICE, @$_)
    for ['convert', $src, '-o', "$dir/o.gguf", '--recipe', 'q4_k_m'], ['plan', $src, '--target-size', '700K'];
is_deeply([ls($dir)], [], 'and nothing is left');
done_testing();
