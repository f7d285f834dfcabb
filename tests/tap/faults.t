# What machines do to a service: disks that fail or are full, syncs that fail,
# clocks that jump, workers that come back late, peers that are none. Real
# programs run; where a disk or a clock cannot be broken for real, the kernel's
# answer is forced (tests/preload/kernel_faults.c). Each time the job either ends
# with the right file, or as failed with words that say what to do, everything
# else kept, and `sluice retry` does only what is missing.
use strict;
use warnings;
use Errno qw(EDQUOT EIO ENOSPC);
use IO::Socket::UNIX;
use JSON::PP;
use KernelFaults;
use POSIX qw(WNOHANG);
use SluiceService;
use SluiceTest;
use Test::More;
use Time::HiRes qw(time sleep);

my $begin = time;
service_setup(daemon => { heartbeat => '100ms', lease => '1s' });
faults_at("$RUN/faults");
my %under = (env => faults_env());
my @io = (args => ['--io', 'pread']);
my $r = run_ok('convert', $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '--task-size', '1M', '-o', "$RUN/ref.gguf", '--quiet');
my $want = sha256("$RUN/ref.gguf");

# ---- a quota that is full is no room, in every step
fault(sync => EDQUOT, path => 'quota.gguf.xxh64');
{
    local %ENV = (%ENV, %{ faults_env() });
    fails('no quota for the manifest', 9, qr{quota\.gguf\.xxh64: cannot be written: Disk quota exceeded}, $SLUICE, 'convert',
        "$RUN/src", '--recipe', 'q4_k_m', '-o', "$RUN/quota.gguf", '--quiet');
}
no_fault();
run_ok('with quota the same command goes on', $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '-o', "$RUN/quota.gguf", '--quiet');
is(sha256("$RUN/quota.gguf"), $want, 'to the same file');

for my $c (['one.key', 'keys', "$RUN/one.key"], ['one.recipe', 'plan', $TINY, '--target-bpw', '4', '--write-recipe', "$RUN/one.recipe"],
    ['one.gguf', 'imatrix', "$TINY/imatrix.legacy-layout.dat", '--convert', "$RUN/one.gguf"]) {
    my ($name, @command) = @$c;
    fault(sync => EDQUOT, path => $name);
    local %ENV = (%ENV, %{ faults_env() });
    fails("no quota for what '$command[0]' writes", 9, qr{\Q$name\E: cannot be (?:written|synced): Disk quota exceeded}, $SLUICE, @command);
    is_deeply([glob "$RUN/one*"], [], 'nothing of it is left');
    (my $full = "$RUN\$") =~ s{.*/}{};
    fault(sync => EDQUOT, path => $full);
    fails("nor for its folder's entry", 9, qr{\Q$RUN\E: cannot sync the folder: Disk quota exceeded}, $SLUICE, @command);
    unlink glob "$RUN/one*";
}
no_fault();

# ---- a filesystem that says at close what it could not store, as NFS does
{
    fault(shut => EDQUOT, path => 'listed$');
    local %ENV = (%ENV, %{ faults_env() });
    fails('no quota for standard output', 1, qr/^sluice types: standard output cannot be written: Disk quota exceeded$/, 'sh', '-c', "$SLUICE types >$RUN/listed");
    unlink "$RUN/listed";
}
no_fault();

# ---- no room for what is noted of finished tasks, while the conversion runs
for ([EDQUOT, qr/Disk quota exceeded/], [ENOSPC, qr/disk is full/]) {
    my ($errno, $words) = @$_;
    unlink glob "$RUN/full.*";
    fault(write => $errno, path => 'full.sluice-journal-wal', from => 200_000);
    local %ENV = (%ENV, %{ faults_env() });
    fails("no room for the journal ($errno)", 9, qr{full\.sluice-journal: .*$words \(free some room there\)}, $SLUICE, 'convert', "$RUN/src",
        '--recipe', 'q4_k_m', '--task-size', '1M', '-o', "$RUN/full.gguf", '--quiet');
}
no_fault();
run_ok('with room the same command goes on', $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '--task-size', '1M',
    '-o', "$RUN/full.gguf", '--quiet');
is(sha256("$RUN/full.gguf"), $want, 'to the same file');
unlink "$RUN/full.gguf";

# ---- a machine that sleeps for hours while it converts: nobody in that process is lost to the others
{
    local %ENV = (%ENV, %{ faults_env() });
    fault(hold => 1, path => 'src/model', from => 1_000_000);
    my $p = start('timeout', '--foreground', '60', $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '--task-size', '1M',
        '--threads', '1', '--io', 'pread', '-o', "$RUN/slept.gguf", '--quiet');
    ok(await_held(sub { waitpid($p->{pid}, WNOHANG) }), 'in the middle of its source');
    fault(slept => 9 * 3600, hold => 0);
    finish($p);
    is($p->{rc}, 0, 'a conversion that slept for a night ends') or diag($p->{err});
    is(sha256("$RUN/slept.gguf"), $want, 'with the same file');
    unlink "$RUN/slept.gguf";
}
no_fault();

# ---- a disk that gives back another byte than was written
{
    local %ENV = (%ENV, %{ faults_env() });
    fault(hold => 1, path => 'rot.gguf.partial');
    my $p = start('timeout', '--foreground', '60', $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '--task-size', '1M',
        '--io', 'pread', '-o', "$RUN/rot.gguf", '--quiet', '--stats');
    ok(await_held(sub { waitpid($p->{pid}, WNOHANG) }), 'before its check');
    flip_byte("$RUN/rot.gguf.partial", 15_000_000);
    no_fault();
    finish($p);
    is($p->{rc}, 0, 'a conversion makes the task again') or diag($p->{err});
    like($p->{err}, qr/^sluice: 1 of \d+ tasks are not on the disk as they were written, the first of them in \S+; check the disk; making them again$/m,
        'and says so');
    like($p->{err}, qr/^stats: convert \S+ s; read 0\.10 GB.*^stats: convert \S+ s; read 0\.00 GB/ms, '--stats tells of both times');
    is(sha256("$RUN/rot.gguf"), $want, 'with the same file');
    unlink "$RUN/rot.gguf";
}

sub is_the_file {
    my ($prefix, $name) = @_;
    ok(-e "$OUT/$prefix.gguf" && sha256("$OUT/$prefix.gguf") eq $want, $name);
    is_deeply([grep { !/^\Q$prefix\E\.gguf(?:\.xxh64)?$/ } ls($OUT)], [], 'nothing else is left');
    unlink glob "$OUT/*";
}

sub step { diag(sprintf '%.1f s: %s', time - $begin, $_[0]) }

# Tasks of a plan that workers finished, each as often as it was done.
sub tasks_done {
    my ($id) = @_;
    return map { log_of($_) =~ /task-done job=$id task=(\d+)\b/g } qw(w1 w2);
}

# Ended as failed with these words; repaired, `retry` does the missing tasks alone.
sub repaired {
    my ($id, $name, $code, $words) = @_;
    my $j = wait_job($id, 60);
    is_state($j, 'failed', "$name: the job fails");
    is($j->{code}, $code, "with code $code");
    like($j->{error}, $words, 'its reason says why and what to do');
    cmp_ok(length $j->{error}, '<', 1000, 'in a line');
    like(run($SLUICE, 'history', '--parsable', '-o', 'id,reason')->{out}, qr/^$id\|.*sluice retry/m, 'the reason column has it');
    cmp_ok($j->{quarantined}, '>', 0, "$j->{quarantined} tasks quarantined");
    is($j->{done} + $j->{quarantined}, $j->{tasks}, "$j->{done} others are done and kept");
    is(scalar(grep { $_ eq 'd' } split //, $j->{map}), $j->{done}, 'the map shows them');
    my (%before, %times);
    $before{$_}++ for tasks_done($id);
    no_fault();
    is(run($SLUICE, 'wait', $id)->{rc}, $code, 'wait says the same code');
    run_ok('retry', $SLUICE, 'retry', $id);
    my $w = run_ok('and it ends well', $SLUICE, 'wait', $id);
    $times{$_}++ for tasks_done($id);
    is(scalar keys %times, $j->{tasks}, 'every task was done');
    is_deeply([grep { substr($j->{map}, $_, 1) eq 'd' && $times{$_} > $before{$_} } sort keys %times], [], 'only the missing ones again');
    is_the_file(prefix_of($id), 'the same file as convert');
}

start_one('daemon', %under);
start_one('w1', %under, @io);
start_one('w2', %under, @io);
ok(wait_daemon(), 'the daemon answers') or die('no daemon');

# For later: a daemon on tcp, and a worker whose key it does not know.
for my $k (qw(daemon known unknown)) {
    run_ok("key: $k", $SLUICE, 'keys', "$RUN/$k.key", '--role', 'admin', '--name', $k);
}
my ($public) = slurp("$RUN/known.key.pub") =~ /^public (\S+)/m;
spit("$RUN/allow", "admin key $public known\nsubmitter uid 4242 alice\n");
spit("$RUN/tcp.conf", slurp($ENV{SLUICE_CONFIG}) =~ s{^listen = .*}{listen = tcp://127.0.0.1:0\nlisten = ipc://$RUN/users/d}mr =~ s{^state_dir = .*}{state_dir = $RUN/state-tcp}mr);
start_one('tcp', cmd => ["$BUILD/sluiced"], args => ['--config', "$RUN/tcp.conf", '--key', "$RUN/daemon.key", '--allow', "$RUN/allow"]);
ok(wait_log('tcp', qr{listening.*tcp://127\.0\.0\.1:\d+}), 'a daemon with keys');
my ($tcp) = log_of('tcp') =~ m{(tcp://127\.0\.0\.1:\d+)};
my @server = ('--connect', $tcp, '--server-key', "$RUN/daemon.key.pub");
my $doctor = run($SLUICE, 'doctor', @server, '--key', "$RUN/known.key")->{out};
like($doctor, qr/^ok +daemon +\Q$tcp\E, .*you are admin$/m, 'doctor finds it');
unlike($doctor, qr/state-tcp/, 'and looks for no folder here that is perhaps on another machine');
start_one('wx', args => [@server, '--key', "$RUN/unknown.key"]);

# ---- a disk that cannot be read
step('read EIO');
my ($shard) = (sort glob "$RUN/src/*.safetensors")[1] =~ m{([^/]+)$};
fault(read => EIO, path => $shard, from => 10_000_000);
repaired(submit(demo_spec('read'), attempts => 1), 'read EIO', 7,
    qr{cannot read tensor '\S+' in '\Q$RUN\E/src/\Q$shard\E' at byte \d+: Input/output error.*sluice retry});

# ---- a sync that fails: what was written before it does not count
step('fsync EIO');
fault(sync => EIO, left => 1, path => 'sync.gguf.partial');
my $id = submit(demo_spec('sync'));
my $j = wait_job($id, 60);
is_state($j, 'succeeded', 'one failed sync: the job goes on');
cmp_ok(scalar @{ $j->{failures} }, '>', 0, 'the tasks before it have failed');
like($j->{failures}[0]{text}, qr{sync\.gguf\.partial.*Input/output error}, 'and say why');
is_the_file('sync', 'made again: the same file');
fault(sync => EIO, left => -1, path => 'syncs.gguf.partial');
repaired(submit(demo_spec('syncs'), attempts => 1), 'fsync EIO for ever', 1,
    qr{syncs\.gguf\.partial.*Input/output error.*sluice retry});

# ---- a disk that is full
step('disk full');
fault(write => ENOSPC, path => 'full.gguf.partial', from => 20_000_000);
repaired(submit(demo_spec('full'), attempts => 1), 'disk full while writing', 9,
    qr{full\.gguf\.partial.*No space left on device.*sluice retry});
SKIP: {
    my $small = "$RUN/small";
    mkdir $small;
    my @own = own_mounts($small) or skip 'no filesystem can be mounted here', 8;
    # A worker alone sees the small filesystem in its own mount namespace.
    stop_one($_) for qw(w1 w2);
    start_one('w1', cmd => [@own, 'sh', '-c',
        'd=$1; shift; mount -t tmpfs -o size=96m none "$d" && head -c 88M /dev/zero >"$d/hog" && exec "$@"', 'sh', $small, "$BUILD/sluice-worker", '--name', 'w1', '--threads', 1, '--mem', '128Mi']);
    my $spec = demo_spec('small');
    $spec->{output} = $small;
    $id = submit($spec, attempts => 1);
    $j = wait_job($id, 30);
    is_state($j, 'failed', 'a folder without room: the job fails before any work');
    is($j->{code}, 9, 'with code 9');
    like($j->{error}, qr/\Q$small\E: \d\S* MB needed, 8\.\d MB free; free \d\S* MB or choose another folder/, 'with both figures');
    is($j->{tasks}, 0, 'prepare was not done');
    # Room for it: the same job, from its prepare on.
    my $seen = "/proc/$ALIVE{w1}{pid}/root$small";
    unlink "$seen/hog" or die "$seen/hog: $!";
    run_ok('retry', $SLUICE, 'retry', $id);
    run_ok('prepare is done again', $SLUICE, 'wait', $id);
    is_deeply([map { $_->{kind} } events($id, qr/planned/)], ['planned'], 'and all the rest');
    is(sha256("$seen/small.gguf"), $want, 'the same file');
    stop_one('w1');
    start_one($_, %under, @io) for qw(w1 w2);
}

# A worker whose files may not be that long lives on; so says the daemon.
stop_one($_) for qw(w1 w2);
start_one('w1', before => ['prlimit', '--fsize=1000000'], @io);
$j = wait_job($id = submit(demo_spec('long'), attempts => 1), 30);
is_state($j, 'failed', 'a limit on the length of files: the job fails');
like($j->{error}, qr/long\.gguf\.partial: .*File too large/, 'and says why');
is(stop_one('w1'), 0, 'its worker was not ended by that');
is(run('prlimit', '--fsize=20000', "$BUILD/sluiced", '--config', '/dev/null', '--root', $RUN, '--state', "$RUN/limit", '--listen', "ipc://$RUN/limit.sock")->{rc}, 1, 'nor is a daemon');
start_one($_, %under, @io) for qw(w1 w2);

# ---- the daemon's own disk: nothing is acknowledged that it does not hold
step('the state folder');
for my $kind ([write => ENOSPC, qr/full/], [sync => EIO, qr/I\/O error/]) {
    my ($what, $errno, $words) = @$kind;
    $id = submit(demo_spec("state$what"), hold => JSON::PP::true);
    fault($what => $errno, left => -1, path => "$RUN/state/queue");
    my $p = start($SLUICE, 'submit', "$RUN/src", '-o', "$OUT/lost.gguf", '--recipe', 'q4_k_m', '--once', "state-$what", '--parsable', '--timeout', 20);
    ok(wait_log('daemon', qr/queue_failed.*$words.*nothing is acknowledged/, 10), "$what: the daemon says that its state folder fails");
    no_fault();
    finish($p);
    is($p->{rc}, 0, 'once it works again the submit is acknowledged') or diag($p->{err});
    chomp(my $later = $p->{out});
    is((job($id) // {})->{state}, 'held', 'what was there is there');
    is(run($SLUICE, 'cancel', $id, $later)->{rc}, 0, 'and the daemon serves');
    kill_one('daemon');
    start_one('daemon', %under);
    wait_daemon();
    is_deeply([map { job($_)->{state} } $id, $later], [qw(cancelled cancelled)], 'SIGKILL: all of it is on its disk');
}
unlink glob "$OUT/*";

# ---- a clock that jumps, a machine that sleeps: leases are by a clock that does neither
step('clock, sleep');
stop_one('daemon');
start_one('daemon', %under, args => ['--lease', '60s', '--metrics', '127.0.0.1:0']); # that no slow machine loses one
wait_daemon();
my ($metrics) = log_of('daemon') =~ m{http://(127\.0\.0\.1:\d+)/metrics};
$id = submit(demo_spec('clock'));
until_job($id, 30, sub { $_[0]{done} });
fault(hold => 1, path => 'src/model'); # leases stand while the clocks change
ok(await_held(sub { has_ended(job($id)) }), 'in the middle of its source');
for my $jump (365 * 86400, -20 * 365 * 86400, 3600) {
    fault(clock => $jump);
    run($SLUICE, 'set', $id, '-l', 'jump'); # an event with that time
}
my @health = map { fault(slept => $_ * 3600); (get($metrics, '/healthz'))[0] } 1 .. 9;
is_deeply([grep { $_ != 200 } @health], [], 'no loop was to turn meanwhile');
run_ok('after a night', $SLUICE, $_) for qw(queue workers);
fault(hold => 0);
$j = wait_job($id, 60);
no_fault();
is_state($j, 'succeeded', 'the clock jumps a year on and decades back, and the machine sleeps: the job ends');
is_deeply([map { $_->{kind} } events($id, qr/lease_lost|task_failed|revoked|quarantined/)], [], 'no lease was lost, nothing failed');
my %times;
$times{$_}++ for tasks_done($id);
is_deeply([grep { $times{$_} > 1 } sort keys %times], [], 'nothing was done twice');
my @at = map { $_->{time} } events($id);
cmp_ok((sort { $a <=> $b } @at)[-1] - (sort { $a <=> $b } @at)[0], '>', 86400_000, 'the daemon saw the other times');
is_the_file('clock', 'the same file');
stop_one('daemon');
start_one('daemon', %under);
wait_daemon();

# Nor is one machine's clock held against another's.
SKIP: {
    my @ahead = ('unshare', $> ? '-rT' : '-T', '--boottime', 365 * 86400, '--monotonic', 365 * 86400);
    skip 'no time namespaces here', 3 if run(@ahead, 'true')->{rc};
    stop_one($_) for qw(w1 w2);
    start_one('w1', before => \@ahead);
    $id = submit(demo_spec('ahead'));
    is_state(wait_job($id, 60), 'succeeded', 'a worker whose machine is up for a year longer (a time namespace)');
    is_the_file('ahead', 'the same file');
    stop_one('w1');
    start_one($_, %under, @io) for qw(w1 w2);
}

# ---- a result that comes after its lease
step('stale');
stop_one($_) for qw(w1 w2);
$id = submit(demo_spec('stale'));
my ($grant, @late) = json_lines(run(tool('wire_peer'), qw(-w -t 20 -p 1300 -u nack), $ENDPOINT, map { encode_json({ v => 3, %$_ }) }
    { m => 'pull', want => 1 }, { m => 'pull', want => 0 },
    { m => 'fail', job => 0 + $id, task => 65536, epoch => 1, code => 2, text => 'late' })->{out});
is($grant && $grant->{m}, 'grant', 'a lease');
my ($nack) = grep { $_->{m} eq 'nack' } @late;
is($nack && $nack->{text}, 'the lease is not yours any more; nothing was changed', 'what comes after it is refused');
start_one($_, %under, @io) for qw(w1 w2);
is_state(wait_job($id, 60), 'succeeded', 'and harmless');
is_the_file('stale', 'the same file');

# ---- cancel, discard, forget while prepare runs; workers that come back late
step('prepare');
fault(delay_ms => 800, path => 'gone.gguf.partial');
$id = submit(demo_spec('gone'));
for (1 .. 1000) {
    last if -e "$OUT/gone.gguf.partial";
    sleep 0.02;
}
ok(-e "$OUT/gone.gguf.partial", 'prepare is under way');
is(run($SLUICE, 'cancel', $id, '--discard')->{rc}, 0, 'cancel --discard');
sub forget_it {
    my ($id) = @_;
    for (1 .. 200) {
        return 0 if run($SLUICE, 'forget', $id)->{rc} == 0;
        sleep 0.05;
    }
    return 1;
}
is(forget_it($id), 0, 'forget, as soon as it may be');
sleep 1.2;
is_deeply([ls($OUT)], [], 'nothing is left, nothing comes later');
no_fault();

fault(delay_ms => 300, path => 'late.gguf.partial');
$id = submit(demo_spec('late'));
my $holder;
for (1 .. 1000) {
    ($holder) = map { $_->{worker} } events($id, qr/started/);
    $holder //= (grep { log_of($_) =~ /task-granted job=$id task=prepare/ } qw(w1 w2))[0];
    last if $holder && -e "$OUT/late.gguf.partial";
    sleep 0.01;
}
signal_one($holder, 'STOP');
no_fault();
$j = wait_job($id, 60);
is_state($j, 'succeeded', 'SIGSTOP in the middle of prepare: another worker prepares and does it all');
my $kept = -e "$OUT/late.gguf" ? sha256("$OUT/late.gguf") : '';
signal_one($holder, 'CONT');
sleep 1;
is($kept, $want, 'the same file');
is_the_file('late', 'and still the same when the late one has gone on');

fault(delay_ms => 300, path => 'later.gguf.partial');
$id = submit(demo_spec('later'));
for (1 .. 1000) {
    $holder = (grep { log_of($_) =~ /task-granted job=$id task=prepare/ } qw(w1 w2))[0];
    last if $holder && -e "$OUT/later.gguf.partial";
    sleep 0.01;
}
signal_one($holder, 'STOP');
no_fault();
is(run($SLUICE, 'cancel', $id, '--discard')->{rc}, 0, 'cancel --discard, with prepare in a worker that stands still');
is(forget_it($id), 0, 'forget');
is_deeply([ls($OUT)], [], 'its files are gone');
signal_one($holder, 'CONT');
sleep 1;
is_deeply([ls($OUT)], [], 'and do not come back with the worker');

# ---- a prepare that goes on late, before its claim and before it makes room for its files: the
# other worker's files, by then complete, stay
sub stopped {
    my ($seconds) = @_;
    my $end = time + $seconds;
    while (time < $end) {
        for my $w (qw(w1 w2)) {
            return $w if slurp("/proc/$ALIVE{$w}{pid}/stat") =~ /\) T/;
        }
        sleep 0.01;
    }
    return;
}
for my $n (1, 2) {
    fault(stop => $n, path => $OUT);
    $id = submit(demo_spec("stop$n"), manual_stitch => JSON::PP::true);
    $holder = stopped(20);
    no_fault();
    ok($holder, "prepare stands still at the folder's opening number $n") or next;
    $j = until_job($id, 60, sub { $_[0]{state} eq 'stitching' });
    is_state($j, 'stitching', 'another worker prepares and does every task');
    my $inode = (stat "$OUT/stop$n.gguf.partial")[1];
    signal_one($holder, 'CONT');
    sleep 0.5;
    is((stat "$OUT/stop$n.gguf.partial")[1], $inode, 'the late one leaves its file');
    run_ok('stitch', $SLUICE, 'stitch', $id);
    is_state(wait_job($id, 60), 'succeeded', 'the job ends well');
    is_deeply([map { $_->{text} } events($id, qr/^(?:revoked|task_failed|quarantined)$/)], [], 'and nothing of it was done again');
    is_the_file("stop$n", 'the same file');
}

# ---- cancel without --discard takes the prepare back from its worker, which removes what it has made so far
step('a prepare that is revoked');
fault(delay_ms => 200, path => 'stopped-0');
$id = submit(demo_spec('stopped', split_max_bytes => 10_000_000));
for (1 .. 1000) {
    last if glob "$OUT/stopped-0*.partial";
    sleep 0.02;
}
run_ok('cancel', $SLUICE, 'cancel', $id);
for (1 .. 1000) {
    last unless my @left = ls($OUT);
    sleep 0.02;
}
is_deeply([ls($OUT)], [], 'nothing is left');
no_fault();

# ---- a prepare that takes longer than its lease, file by file
step('long prepare');
my @lost;
for my $try (1 .. 5) { # a busy machine may let a worker stand still for a lease
    fault(delay_ms => 400, path => 'long-0');
    unlink glob "$OUT/*";
    $id = submit(demo_spec('long', split_max_bytes => 10_000_000));
    $j = wait_job($id, 60);
    last unless @lost = map { $_->{text} } events($id, qr/^lease_lost$/);
}
is_state($j, 'succeeded', 'a prepare longer than its lease');
cmp_ok(@{ $j->{files} // [] } * 0.4, '>', 2, 'it made ' . @{ $j->{files} // [] } . ' files, each in 0.4 s');
is_deeply(\@lost, [], 'kept its lease by what it did');
is(scalar(map { log_of($_) =~ /task-granted job=$id task=prepare/g } qw(w1 w2)), 1, 'and was done once');
no_fault();
unlink glob "$OUT/*";

# Header by header, of a source that is far away.
for my $try (1 .. 5) {
    fault(delay_ms => 300, path => "$RUN/src/");
    unlink glob "$OUT/*";
    $id = submit(demo_spec('far'));
    $j = wait_job($id, 60);
    last unless @lost = grep { ($_->{task} // 0) == 65536 } events($id, qr/^lease_lost$/);
}
is_state($j, 'succeeded', 'headers that take longer than a lease');
my @headers = glob "$RUN/src/*.safetensors";
cmp_ok(0.3 * @headers, '>', 1, 'each of ' . @headers . ' in 0.3 s');
is_deeply(\@lost, [], 'they kept it');
no_fault();
unlink glob "$OUT/*";

# ---- a prepare that failed is done again
step('retry of prepare');
rename "$RUN/src/config.json", "$RUN/config.away";
$id = submit(demo_spec('again'), attempts => 1);
$j = wait_job($id, 30);
is_state($j, 'failed', 'no config.json: the job fails');
like($j->{error}, qr/config\.json/, 'and says so');
rename "$RUN/config.away", "$RUN/src/config.json";
run_ok('retry', $SLUICE, 'retry', $id);
is_state(wait_job($id, 60), 'succeeded', 'prepare is done again, and the rest');
is_the_file('again', 'the same file');

# ---- who is none of us
step('too many connections');
{
    my $few = "ipc://$RUN/few/d";
    start_one('few', cmd => ["$BUILD/sluiced"], before => ['prlimit', '--nofile=64'], args => ['--listen', $few, '--state', "$RUN/state-few"]);
    ok(wait_log('few', qr/listening/), 'a daemon that may open a few files');
    my @many = grep { $_ } map { IO::Socket::UNIX->new(Peer => "$RUN/few/d") } 1 .. 100;
    sleep 0.5;
    is(scalar @many, 100, 'more connections than that');
    @many = ();
    run_ok('it is there when they are gone', $SLUICE, 'queue', '--connect', $few, '--timeout', 20);
    is(stop_one('few'), 0, 'and ends in order');
}

step('strangers');
sub rss {
    my ($kib) = slurp("/proc/$ALIVE{daemon}{pid}/status") =~ /^VmHWM:\s+(\d+)/m;
    return $kib;
}
# ZMTP 3.0 by hand: greeting and READY. The socket, and what reads n bytes from it; or words.
sub by_hand {
    my $s = IO::Socket::UNIX->new(Peer => "$RUN/sock/d") or return "connect: $!";
    my $take = sub {
        my ($n) = @_;
        my $got = '';
        while (length $got < $n) {
            vec(my $r = '', fileno $s, 1) = 1;
            return 'timeout' unless select $r, undef, undef, 10;
            sysread($s, $got, $n - length $got, length $got) or return 'closed';
        }
        return $got;
    };
    syswrite $s, "\xff" . "\0" x 8 . "\x7f" . "\3\0" . pack('a20', 'NULL') . "\0" x 32;
    return 'greeting ' . length $take->(64) unless length $take->(64) == 64;
    my $ready = "\5READY\x0bSocket-Type" . pack('N', 6) . 'DEALER' . "\x08Identity" . pack('N', 0);
    syswrite $s, "\4" . chr(length $ready) . $ready;
    my $head = $take->(2);
    return "ready $head" unless length $head == 2;
    $take->(ord substr $head, 1, 1);
    return ($s, $take);
}
# A frame that says it has 2 GiB.
sub oversized {
    local $SIG{PIPE} = 'IGNORE';
    my ($s, $take) = by_hand();
    return $s if !$take;
    syswrite $s, "\2" . pack('Q>', 2 << 30) . 'x' x 1000;
    my $end = time + 10;
    while (time < $end) { # pings may come first
        my $byte = $take->(1);
        return $byte if length $byte > 1;
    }
    return 'open';
}
my $memory = rss();
is(oversized(), 'closed', 'a frame of 2 GiB is announced: the connection is closed');
# One block of a zstd frame that states 2 GiB of content.
spit("$RUN/bomb", "\x28\xb5\x2f\xfd\xe0" . pack('Q<', 2 << 30) . "\x53\0\0" . 'x' x 10);
my ($a) = ask("\@$RUN/bomb");
is($a && $a->{code}, 2, 'a zstd frame that states 2 GiB is refused');
like($a && $a->{text}, qr/2147483648|8388608/, 'and the answer says how much is possible');
cmp_ok(rss() - $memory, '<', 64 << 10, 'no memory was taken for either');
($a) = grep { $_->{m} eq 'nack' } ask({ m => 'result', job => 0 + $id, task => 0, epoch => 4711, bytes => 1, checksum => 'f' x 16 }, '-w');
like($a && $a->{text}, qr/the lease is not yours/, 'a forged epoch');
ok(wait_daemon(), 'the daemon stays');

# One message of frames without an end: libzmq keeps it until memory ends, and nobody can stop
# it. What is then killed and started again, as its unit does it, has lost nothing.
step('a message without an end');
# Sends small frames of one message, each with the flag MORE, until the other side is gone.
sub endless {
    local $SIG{PIPE} = 'IGNORE';
    my ($s, $take) = by_hand();
    return $s if !$take;
    my $frames = join '', ("\1\x40" . 'x' x 64) x 1000;
    my $sent = 0;
    while ($sent < 2 << 30) {
        my $n = syswrite $s, $frames;
        return 'closed' if !defined $n;
        $sent += $n;
        $frames = substr($frames, $n) . substr($frames, 0, $n) if $n < length $frames;
    }
    return 'all was taken';
}
stop_one('daemon');
start_one('daemon', before => ['prlimit', '--as=700000000', '--core=0']);
wait_daemon();
$id = submit(demo_spec('endless'));
until_job($id, 30, sub { $_[0]{done} });
my $held = submit(demo_spec('after it'), hold => JSON::PP::true);
is(endless(), 'closed', 'a message that does not end takes all the memory that the daemon may have');
my $status = ended('daemon', 10);
ok($status && $status != 2 && $status != 13, 'which ends it, in a way after which its unit starts it again')
    or diag(defined $status ? "exit status $status" : 'it lives');
kill_one('daemon') if $ALIVE{daemon};
start_one('daemon', %under);
ok(wait_daemon(), 'started again');
is_state(wait_job($id, 60), 'succeeded', 'the job that was under way ends well');
is_the_file('endless', 'with the same file');
is((job($held) // {})->{state}, 'held', 'what was acknowledged is there');
run($SLUICE, 'cancel', $held);

# ---- a second daemon: on the same path, on the same state
spit("$RUN/second.conf", slurp($ENV{SLUICE_CONFIG}) =~ s{^state_dir = .*}{state_dir = $RUN/state2}mr);
fails('the same path', 13, qr{ipc://\Q$RUN\E/sock/d: another sluiced listens there}, "$BUILD/sluiced", '--config', "$RUN/second.conf");
spit("$RUN/second.conf", slurp($ENV{SLUICE_CONFIG}) =~ s{^listen = .*}{listen = ipc://$RUN/sock/e}mr);
fails('the same state', 13, qr{\Q$RUN\E/state.*another}, "$BUILD/sluiced", '--config', "$RUN/second.conf");
ok(wait_daemon(), 'the first is not disturbed');

# ---- another user of this machine: on the allow-list, not on it, and kept out by the folder
step('users');
my $told = time;
SKIP: {
    chmod 0711, $RUN or die $!;
    spit("$RUN/none.conf", '');
    my @as = qw(setpriv --clear-groups --regid 4242 --reuid);
    my @ask = ($SLUICE, 'queue', '--config', "$RUN/none.conf", '--connect', "ipc://$RUN/users/d");
    skip 'no other user gets to the tests\' folder', 3 if run(@as, 4242, 'test', '-S', "$RUN/users/d", '-a', '-x', $SLUICE)->{rc};
    run_ok('who is listed comes in', @as, 4242, @ask);
    fails('who is not is told', 4, qr/refuses this user: its operator adds 'submitter uid NUMBER NAME'/, @as, 4243, @ask, '--timeout', 60);
    chmod 0700, "$RUN/users" or die $!;
    fails('who is kept out by the folder too', 4, qr/Permission denied; .*opens the socket's folder/, @as, 4242, @ask);
}

# ---- tcp: an unknown key
step('keys');
run_ok('a known key comes in', $SLUICE, 'queue', @server, '--key', "$RUN/known.key", '--timeout', 10);
fails('an unknown key does not', 4, qr{the daemon at \Q$tcp\E refuses this key: its operator adds the line}, $SLUICE, 'queue', @server,
    '--key', "$RUN/unknown.key", '--timeout', 60);
cmp_ok(time - $told, '<', 30, 'and both are told at once');
fails("nor who has another key for the daemon's", 4, qr/the key of --server-key the daemon's of today\?/, $SLUICE, 'queue', '--connect', $tcp,
    '--server-key', "$RUN/unknown.key.pub", '--key', "$RUN/known.key", '--timeout', 1);
ok(wait_log('wx', qr/connection-lost.*the daemon refuses this worker: it is not in its allow-list/, 15), 'a worker with an unknown key says so');
my ($unknown) = slurp("$RUN/unknown.key.pub") =~ /^public (\S+)/m;
ok(wait_log('tcp', qr/refused: key \Q$unknown\E from 127\.0\.0\.1 is not in the allow-list/, 5), 'the daemon says whom it refused');
is(stop_one('wx'), 0, 'the worker still ends in order');
is(stop_one('tcp'), 0, 'so does the daemon');
step('done');
done_testing();
