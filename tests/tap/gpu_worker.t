# A worker on GPUs in the service: what it tells of them, and what becomes of its tasks and of
# itself when one fails. The GPUs compute on the processor (tests/unit/emulated_gpu.h) and NVML
# is a library of ours that answers what a file says (tests/preload/nvml.c), found the way the
# real one is: that the real ones behave so cannot be shown here.
use strict;
use warnings;
use File::Temp ();
use SluiceService;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep);

my $libs = scratch();
symlink "$BUILD/tools/nvml.so", "$libs/libnvidia-ml.so.1" or die $!;
my $says = "$libs/says";
my %nvml = (LD_LIBRARY_PATH => $libs, NVML_FAKE => $says);
spit($says, "312600 61 1500000000\n");

my $source = File::Temp::tempdir('/tmp/sluice_XXXXXX', CLEANUP => 1) . '/src';
checkpoint($source, qw(--preset demo --layers 3 --hidden 512 --inter 1024 --moe-inter 256 --experts 4 --groups 1 --groups-used 1 --used 2));
my $LOSSES = 3;
service_setup(daemon => { metrics => '127.0.0.1:0', losses => $LOSSES, lease => '1s' }, source => $source, sluice => { root => '/tmp' });
start_one('daemon');
ok(wait_daemon(), 'a daemon') or die('no daemon');

sub gpu_worker {
    my ($name, $device, %env) = @_;
    return start_one($name, cmd => ["$BUILD/tools/emulated_worker", '--name', $name, '--threads', 1, '--mem', '128Mi', '--device', $device],
        env => {%env});
}

# A field of a worker as `sluice workers` has it, until it is so.
sub shows {
    my ($fields, $want, $what) = @_;
    my $out = '';
    for (1 .. 100) {
        $out = run($SLUICE, 'workers', '--parsable', '-o', $fields)->{out};
        last if $out =~ $want;
        sleep 0.1;
    }
    return like($out, $want, $what);
}

# ---- what is told
gpu_worker('w1', 'auto', %nvml);
start_one('w2', cmd => ["$BUILD/sluice-worker", '--name', 'w2', '--threads', 1, '--mem', '128Mi']);
shows('name,device,gpu,celsius,watts,vram', qr/^w1\|cuda:0,cuda:1,cpu\|emulated GPU,emulated GPU\|61,62\|313,313\|1500000000,1500000000$/m,
    'two GPUs, without work');
shows('name,celsius,watts,gpu', qr/^w2\|\|\|$/m, 'a worker on the processor has none');
like(run($SLUICE, 'workers')->{out}, qr/^w2 .* - +- +\S+ ago *$/m, 'which is shown as -');
my ($w) = grep { $_->{name} eq 'w1' } json_lines(run($SLUICE, 'workers', '--json')->{out});
is_deeply($w->{gpus}[1], { device => 'cuda:1', name => 'emulated GPU', celsius => 62, watts => 313, memory => 1 << 30,
    memory_used => 1500000000 }, '--json has it all');
my ($port) = log_of('daemon') =~ m{http://127\.0\.0\.1:(\d+)/metrics};
my ($status, $page) = get("127.0.0.1:$port", '/metrics');
like($page, qr/^sluice_worker_gpu_temperature_celsius\{worker="w1",gpu="cuda:1"\} 62$/m, '/metrics: temperature');
like($page, qr/^sluice_worker_gpu_power_watts\{worker="w1",gpu="cuda:0"\} 313$/m, '/metrics: power');
spit($says, "70000 34 2000000\n");
shows('name,celsius,watts', qr/^w1\|34,35\|70,70$/m, 'it follows');
unlink $says;
shows('name,celsius,gpu', qr/^w1\|-,-\|emulated GPU,emulated GPU$/m, 'NVML that answers no more: the names stay');
{
    local @ENV{ keys %nvml } = values %nvml;
    spit($says, "70400 34 3145728\n");
    like(run("$BUILD/tools/emulated_gpu", 'doctor')->{out}, qr/cuda:1: emulated GPU .*1024 MiB \(3 in use\), 70 W, 35 degrees/, 'doctor');
    local @ENV{qw(SLUICE_EMULATED NVML_DIVIDED)} = ('part=1', 1);
    spit($says, "70400 34 20971520\n");
    like(run("$BUILD/tools/emulated_gpu", 'doctor')->{out}, qr/cuda:1: emulated GPU MIG 1g\.1gb \(MIG-1.*1024 MiB \(5 in use\), 70 W, 35 degrees/,
        'an instance of a divided GPU: its own memory');
}
is(stop_one('w2'), 0, 'the other one goes');

# ---- a device that fails: its tasks go back with the reason, the process ends with 10, the next one goes on
sub failing {
    my ($fault, $words) = @_;
    my $id = submit(demo_spec("f$fault" =~ tr/=/-/r));
    gpu_worker('w3', 'cuda:0', SLUICE_EMULATED => $fault);
    is(ended('w3', 30), 10, "$fault: the worker ends with 10");
    like(log_of('w3'), $words, "$fault: it says why");
    my $j = job($id);
    is($j->{quarantined} + scalar(@{ $j->{failures} // [] }), 0, "$fault: no failure of the tasks");
    gpu_worker('w3', 'cuda:0');
    $j = wait_job($id, 60);
    is_state($j, 'succeeded', "$fault: the next one finishes the job");
    is(stop_one('w3'), 0, "$fault: and ends in order");
    unlink "$RUN/w3.log";
    return $j;
}
is(stop_one('w1'), 0, 'a worker on GPUs ends in order');
my @made;
for my $case (['run=5', qr/cuda:0 \(emulated GPU\): (?:starting work|converting): uncorrectable ECC error.*lost to this process/],
              ['wait=7', qr/cuda:0 \(emulated GPU\): converting: uncorrectable ECC error/],
              ['alloc=3', qr/cuda:0 \(emulated GPU\): allocating its buffers: out of memory.*less --vram/]) {
    push @made, failing(@$case);
}
my %sums = map { sha256("$OUT/" . prefix_of($_->{id}) . ".gguf") => 1 } @made;
is(scalar keys %sums, 1, 'whatever failed: the same bytes');
run_ok('on the processor', $SLUICE, 'convert', $source, '-o', "$RUN/one.gguf", '--recipe', 'q4_k_m');
is((keys %sums)[0], sha256("$RUN/one.gguf"), 'which are those of the processor');

# One that fails whenever it is started ends the job, in the end.
my $id = submit(demo_spec('always'));
my $died = 0;
while ($died < 10 * $LOSSES && !has_ended(job($id))) {
    gpu_worker('w4', 'cuda:0', SLUICE_EMULATED => 'run=1');
    is(ended('w4', 30), 10, 'one that fails each time') or last;
    $died++;
}
my $j = wait_job($id, 10);
is_state($j, 'failed', 'a GPU that fails each time ends the job');
cmp_ok($died, '>=', $LOSSES, 'not before so many have failed');
ok($j->{code} == 10 && $j->{error} =~ /: $LOSSES workers in a row went away or lost a GPU while they had it.*, w4 the last: .*uncorrectable ECC error.*'sluice retry $id' goes on/,
    'with the reason') or diag(explain($j));
gpu_worker('w4', 'cuda:0');
run_ok('retry', $SLUICE, 'retry', $id);
is_state(wait_job($id, 60), 'succeeded', 'with one that works it goes on');
is(sha256("$OUT/always.gguf"), (keys %sums)[0], 'to the same file');
is(stop_one('w4'), 0, 'which ends in order');

# The unit starts such a worker again, but not one that was called wrongly.
my $unit = slurp("$TOP/systemd/sluice-worker\@.service");
like($unit, qr/^Restart=on-failure$/m, 'the unit starts it again');
my ($never) = $unit =~ /^RestartPreventExitStatus=(.*)$/m;
unlike(" $never ", qr/ 10 /, 'after exit 10 too');
done_testing();
