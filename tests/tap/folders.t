# The output's folder goes away in the middle of a job: renamed, removed, replaced,
# or another filesystem mounted over it. The job says so and what to do, that works,
# and nothing is written into whatever has the name now.
use strict;
use warnings;
use Errno qw(EIO);
use JSON::PP;
use KernelFaults;
use SluiceService;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep);

service_setup(daemon => { lease => '10s' }, model => [qw(--layers 2 --experts 8 --groups 2 --groups-used 1 --used 2)]);
faults_at("$RUN/faults");
my %under = (env => faults_env(), args => ['--io', 'pread']);
run_ok('convert', $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '--task-size', '1M', '-o', "$RUN/ref.gguf", '--quiet');
my $want = sha256("$RUN/ref.gguf");
my ($shard) = (sort glob "$RUN/src/*.safetensors")[1] =~ m{([^/]+)$};
start_one('daemon');
start_one('w1', %under);
ok(wait_daemon(), 'the daemon answers') or BAIL_OUT('no daemon');

# A job with a part of its tasks done: the rest of the source could not be read.
sub half_done {
    my ($prefix) = @_;
    fault(read => EIO, path => $shard, from => 10_000_000);
    my $id = submit(demo_spec($prefix), attempts => 1);
    my $j = wait_job($id, 60);
    is_state($j, 'failed', "$prefix: a job in the middle");
    cmp_ok($j->{done}, '>', 0, 'some of its tasks are done') or diag($j->{error});
    no_fault();
    return ($id, $j);
}

# Goes on, and fails for the folder.
sub says_so {
    my ($id, $verb, $name) = @_;
    run_ok("$name: $verb", $SLUICE, $verb, $id);
    my $j = wait_job($id, 60);
    is_state($j, 'failed', 'the job fails');
    like($j->{error}, qr{^\Q$OUT\E: the files of job $id are not there: .*Put it back, and 'sluice retry $id' goes on; .*'sluice cancel --discard $id' and submit it again}, 'and says what to do');
    unlike($j->{error}, qr/retry.*retry/, 'once');
    return;
}

sub ended_well {
    my ($id, $prefix, $name) = @_;
    is_state(wait_job($id, 60), 'succeeded', $name);
    is(-e "$OUT/$prefix.gguf" && sha256("$OUT/$prefix.gguf"), $want, 'the same file');
    is_deeply([grep { !/^\Q$prefix\E\.gguf(?:\.xxh64)?$/ } ls($OUT)], [], 'nothing else is left');
    unlink glob "$OUT/*";
}

# ---- renamed
my ($id, $before) = half_done('moved');
rename $OUT, "$RUN/moved" or die $!;
says_so($id, 'retry', 'renamed');
is_deeply([ls("$RUN/moved")], ['moved.gguf.partial', 'moved.sluice-job'], 'where it went nothing has its final name');
ok(!-e $OUT, 'nothing has the old name');

# ---- another folder of the name, with a stranger's files in it
mkdir $OUT;
spit("$OUT/moved.gguf.partial", 's' x -s "$RUN/moved/moved.gguf.partial");
my $strangers = sha256("$OUT/moved.gguf.partial");
says_so($id, 'retry', 'replaced');
is_deeply([ls($OUT)], ['moved.gguf.partial'], "what is a stranger's is left alone");
is(sha256("$OUT/moved.gguf.partial"), $strangers, 'its bytes too');
unlink "$OUT/moved.gguf.partial";
rmdir $OUT or die $!;
rename "$RUN/moved", $OUT or die $!;

# ---- put back, a filesystem over it, which only the worker sees
SKIP: {
    skip 'no filesystem can be mounted here', 8
        if run('unshare', '-rm', 'mount', '-t', 'tmpfs', 'none', $OUT)->{rc};
    stop_one('w1');
    start_one('w1', before => ['unshare', $> ? '-rm' : '-m'], %under);
    ok(wait_log('w1', qr/connected to.*connected to/s), 'another worker');
    my $pid = $ALIVE{w1}{pid};
    my @there = ('nsenter', '-t', $pid, ($> ? ('-U', '--preserve-credentials') : ()), '-m');
    run_ok('mount', @there, 'mount', '-t', 'tmpfs', 'none', $OUT);
    says_so($id, 'retry', 'mounted over');
    is_deeply([ls("/proc/$pid/root$OUT")], [], 'nothing is made there');
    for (1 .. 60) { # the worker lets go of it
        last if run(@there, 'umount', $OUT)->{rc} == 0;
        sleep 0.05;
    }
    isnt(run(@there, 'mountpoint', '-q', $OUT)->{rc}, 0, 'umount');
}
my $log = length log_of('w1');
run_ok('put back: retry', $SLUICE, 'retry', $id);
ended_well($id, 'moved', 'goes on');
is_deeply([grep { substr($before->{map}, $_, 1) eq 'd' } substr(log_of('w1'), $log) =~ /task-done job=$id task=(\d+)/g], [],
    'nothing of what was kept is done again');

# ---- removed, and made again empty
($id) = half_done('removed');
unlink glob "$OUT/*";
rmdir $OUT or die $!;
says_so($id, 'retry', 'removed');
mkdir $OUT;
says_so($id, 'retry', 'made again, empty');
is_deeply([ls($OUT)], [], 'nothing is made there');
rmdir $OUT;
is(run($SLUICE, 'cancel', '--discard', $id)->{rc}, 0, 'cancel --discard without a folder');
my $e;
for (1 .. 100) {
    ($e) = grep { ($_->{task} // 0) == 65540 } events($id, qr/quarantined/) and last;
    sleep 0.05;
}
like($e && $e->{text}, qr{^\Q$OUT\E: there is no such folder; if it was renamed, remove the \.partial files in it by hand$}, 'says what may be left');
mkdir $OUT;

# ---- submitted again; all is done but the last check, by a worker that never saw the folder
my $again = submit(demo_spec('removed'), manual_stitch => JSON::PP::true);
is_state(until_job($again, 60, sub { $_[0]{state} eq 'stitching' }), 'stitching', 'submitted again: every task is done');
rename $OUT, "$RUN/moved" or die $!;
stop_one('w1');
start_one('w1', %under);
run_ok('stitch', $SLUICE, 'stitch', $again);
my $j = until_job($again, 30, sub { @{ $_[0]{failures} } });
like($j->{failures}[0]{text}, qr/^\Q$OUT\E: the files of job $again are not there/, 'the stitch fails');
rename "$RUN/moved", $OUT or die $!;
ended_well($again, 'removed', 'put back in time it goes on by itself');

# ---- verify reads the source as the other tasks do: not from outside the roots
$id = submit(demo_spec('outside'));
is_state(wait_job($id, 60), 'succeeded', 'a job whose source lies where it may');
# A link as in a Hugging Face cache, which may be anywhere but for the roots.
my $outside = scratch() . '/models--x';
my $blob = "$outside/blobs/" . 'a' x 40;
mkdir $_ or die $! for $outside, "$outside/blobs";
run_ok('copy', 'cp', "$RUN/src/$shard", $blob);
unlink "$RUN/src/$shard";
symlink $blob, "$RUN/src/$shard" or die $!;
ask({ m => 'verify', job => 0 + $id });
$j = wait_job($id, 60);
is_state($j, 'failed', 'then a link leads out of the root: verify fails');
like($j->{error}, qr{\Q$shard\E: lies outside the folders allowed here}, 'and says so');
done_testing();
