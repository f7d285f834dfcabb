# The service with real processes: sluiced and two workers on an ipc endpoint, and
# jobs whose file must be the one that `sluice convert` makes, whatever is
# killed, stopped or told to go meanwhile.
use strict;
use warnings;
use IO::Select;
use IO::Socket::UNIX;
use JSON::PP;
use POSIX ();
use SluiceService;
use SluiceTest;
use Test::More;
use Time::HiRes qw(time sleep);

my $kills = $ENV{KILLS} // ($QUICK ? 4 : 20);
my $seed  = $ENV{SEED} // time ^ $$;
srand $seed;
diag("SEED=$seed KILLS=$kills");
my $begin = time;

service_setup();

# ---- what the file must be
my $r = run_ok('convert', $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '--task-size', '1M', '--threads', 2,
    '-o', "$RUN/ref.gguf", '--quiet');
my $want = sha256("$RUN/ref.gguf");
my $whole = $r->{secs};
diag(sprintf 'convert %.2f s', $whole);

sub is_the_file {
    my ($prefix, $name) = @_;
    ok(-e "$OUT/$prefix.gguf" && sha256("$OUT/$prefix.gguf") eq $want, $name);
    unlink glob "$OUT/$prefix.*";
}

start_one($_) for qw(daemon w1 w2);
if (!ok(wait_daemon(), 'the daemon answers')) {
    done_testing();
    exit 1;
}

# ---- a job by two workers, verified
ok(has_workers(qw(w1 w2)), 'two workers');
my $id = submit(demo_spec('a'), verify => JSON::PP::true);
my $j = wait_job($id, 60);
is_state($j, 'succeeded', 'a job by two workers');
is($j->{done}, $j->{tasks}, 'all its tasks are done');
is_deeply($j->{files}, ["$OUT/a.gguf"], 'its file is told');
is_deeply([grep { !/^a\.gguf(?:\.xxh64)?$/ } ls($OUT)], [], 'nothing else is left');
is_the_file('a', 'the same file as convert');
my @idle;
for (1 .. 20) { # one may be quick and do it alone: another job, then
    last unless @idle = grep { log_of($_) !~ /task-done/ } qw(w1 w2);
    wait_job(submit(demo_spec('a')), 60);
    is_the_file('a', 'once more');
}
is_deeply(\@idle, [], 'each did some of it');

# ---- synthetic importance weights: each worker makes them, verify again
run_ok('convert --imatrix synthetic', $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '--task-size', '1M', '--threads', 2,
    '-o', "$RUN/synthetic.gguf", '--quiet', '--imatrix', 'synthetic');
$id = submit(demo_spec('syn', synthetic_imatrix => JSON::PP::true), verify => JSON::PP::true);
is_state(wait_job($id, 60), 'succeeded', 'a job with synthetic weights');
ok(-e "$OUT/syn.gguf" && sha256("$OUT/syn.gguf") eq sha256("$RUN/synthetic.gguf"), 'the same file as convert');
ok(sha256("$RUN/synthetic.gguf") ne $want, 'which is not the one without');
unlink glob "$OUT/syn.*";

# ---- a source that is one file, an importance matrix, and each option that holds a list
spit("$RUN/tiny.dat", slurp("$TINY/imatrix.legacy-layout.dat"));
run_ok('a GGUF file', $SLUICE, 'convert', $TINY, '--layout', 'legacy', '--recipe', 'bf16', '-o', "$RUN/tiny.gguf", '--quiet');
my @listed = ("$RUN/tiny.gguf", qw(--recipe q4_k_m --imatrix), "$RUN/tiny.dat", qw(--tensor-type ffn_up_exps=q5_k --tensor-type attn_output=iq3_s
    --override-kv general.author=str:me --override-kv general.version=str:2 --exclude-weights blk.3. --exclude-weights ffn_gate));
run_ok('convert with the lists', $SLUICE, 'convert', @listed, '-o', "$RUN/listed.gguf", '--quiet');
run_ok('submit with them', $SLUICE, 'submit', @listed, '-o', "$OUT/listed.gguf", '--verify', '--wait', '--timeout', 60);
ok(-e "$OUT/listed.gguf" && sha256("$OUT/listed.gguf") eq sha256("$RUN/listed.gguf"), 'the same file as convert');
unlink glob "$OUT/listed.* $RUN/listed.* $RUN/tiny.gguf";

# ---- SIGTERM: what has not begun goes back, the rest is finished
$id = submit(demo_spec('b'));
$j = until_job($id, 30, sub { $_[0]{done} });
is(stop_one('w1'), 0, 'SIGTERM: exit 0');
$j = wait_job($id, 60);
is_state($j, 'succeeded', 'the other worker does the rest');
is(scalar @{ $j->{failures} // [] }, 0, 'no task failed for it');
my ($left) = grep { $_->{kind} eq 'worker_left' } map { @{ $_->{events} } } ask({ m => 'logs', limit => 1000 });
is($left && $left->{text}, 'drained', 'with nothing in its hands');
is_the_file('b', 'the same file');
start_one('w1');

# ---- a worker that is stopped past its leases, and goes on
$id = submit(demo_spec('c'), manual_stitch => JSON::PP::true); # so that it cannot end before
until_job($id, 30, sub { $_[0]{done} });
signal_one('w1', 'STOP');
fails('convert keeps off its output', 13, qr/c\.sluice-job: job $id of the service/, $SLUICE, 'convert', "$RUN/src",
    '--recipe', 'q4_k_m', '-o', "$OUT/c.gguf", '--force');
is_state(until_job($id, 60, sub { $_[0]{state} eq 'stitching' }), 'stitching', 'SIGSTOP of a worker past its leases: the other one does its tasks');
is(run($SLUICE, 'stitch', $id)->{rc}, 0, 'stitch');
is_state(wait_job($id, 60), 'succeeded', 'and the rest');
signal_one('w1', 'CONT');
sleep 1;
is_the_file('c', 'the same file after SIGCONT');
is_deeply([ls($OUT)], [], 'its late writes left nothing');
$id = submit(demo_spec('d'));
is_state(wait_job($id, 60), 'succeeded', 'and the worker is of use again');
is_the_file('d', 'the same file');

# ---- SIGKILL at random moments
my ($killed, $rounds, @wrong) = (0, 0);
my $t0 = time;
while ($killed < $kills && !@wrong && time - $t0 < 300) {
    my $prefix = 'k' . ++$rounds;
    $id = submit(demo_spec($prefix));
    my $next = time + rand($whole * 0.7);
    $j = until_job($id, 120, sub {
        return 1 if has_ended($_[0]);
        return 0 if time < $next || $killed >= $kills;
        my $name = (qw(daemon w1 w2))[int rand 3];
        kill_one($name);
        $killed++;
        sleep rand 0.3;
        start_one($name);
        $next = time + rand($whole);
        return 0;
    });
    push @wrong, "round $rounds: $j->{state} " . ($j->{error} // $j->{reason} // '') if $j->{state} ne 'succeeded';
    push @wrong, "round $rounds: another file" unless -e "$OUT/$prefix.gguf" && sha256("$OUT/$prefix.gguf") eq $want;
    unlink glob "$OUT/$prefix.*";
}
diag(sprintf '%d kills over %d jobs in %.1f s', $killed, $rounds, time - $t0);
is_deeply(\@wrong, [], "$killed times SIGKILL of daemon or worker: every job ends with the same file")
    or diag(map { "--- $_\n" . tail($_) . "\n" } qw(daemon w1 w2));

# ---- seconds without a daemon, or with one that is stopped: what was finished meanwhile counts
for my $stop (0, 1) {
    my @lost;
    for my $try (1 .. 5) { # a busy machine may let a worker stand still for a lease
        $id = submit(demo_spec('e'));
        until_job($id, 30, sub { $_[0]{done} });
        $stop ? signal_one('daemon', 'STOP') : kill_one('daemon');
        sleep 3;
        $stop ? signal_one('daemon', 'CONT') : start_one('daemon');
        ok(wait_daemon(), $stop ? 'the daemon goes on after 3 s' : 'a new daemon after 3 s');
        is_state(wait_job($id, 90), 'succeeded', 'the job goes on');
        is_the_file('e', 'the same file');
        last unless @lost = map { $_->{text} } events($id, qr/lease_lost/);
    }
    SKIP: {
        skip 'sanitized programs are slower than this lease', 1 if $SANITIZED;
        is_deeply(\@lost, [], 'a worker is back within its lease of 2 s: nothing is done again');
    }
}
like(log_of('daemon'), qr/deaf: nobody was heard for [3-9]\d{3} ms: every lease begins anew/, 'the stopped one says so');

# ---- what a stranger says changes nothing
$id = submit(demo_spec('f'), hold => JSON::PP::true);
my ($a) = grep { $_->{m} ne 'grant' } ask({ m => 'result', job => 0 + $id, task => 0, epoch => 999, bytes => 1,
    checksum => '0123456789abcdef' }, '-w');
is($a && $a->{m}, 'nack', 'a forged epoch is refused');
spit("$RUN/big", '{"v":3,"m":"list","labels":["' . 'x' x (9 << 20) . '"]}');
ask("\@$RUN/big", '-t', 1);
ok(wait_daemon(), 'a message over the limit: the daemon stays');
ask('{"v":2,"m":"hello","role":"worker","version":"0","instance":"00000000000000000000000000000001","name":"old","host":"h"}');
ok(wait_log('daemon', qr/refused: uid:\d+: message: protocol version 2; version 3 is spoken here: use sluice, sluiced and sluice-worker of one release/, 10),
    'a worker of another release: the log says so');
($a) = ask('{"v":3,"m":"nonsense"}');
is($a && $a->{code}, 2, 'an unknown message is refused');
is(job($id)->{state}, 'held', 'the job is as it was');
ask({ m => 'cancel', jobs => [0 + $id], discard => JSON::PP::true });

# ---- paths outside the roots
my $outside = demo_spec('g');
$outside->{output} = $TOP;
$id = submit($outside);
$id = wait_job($id, 30)->{error} // '' if $id =~ /^\d+$/;
like($id, qr/(?:outside|root)/, 'an output outside the roots is refused');
is_deeply([glob "$TOP/g*gguf*"], [], 'and nothing is there');

# ---- another name of an output that is taken
$id = submit(demo_spec('g'), hold => JSON::PP::true);
symlink 'out', "$RUN/alias" or die "alias: $!";
for my $name ("$RUN/./out", "$RUN/alias") {
    like(submit({ %{ demo_spec('g') }, output => $name }), qr/^error 13: job $id writes to/, 'one output has one job, whatever it is called');
}

# ---- what somebody else does in the output's folder meanwhile
$id = submit(demo_spec('p'), manual_stitch => JSON::PP::true);
until_job($id, 30, sub { $_[0]{done} });
unlink "$OUT/p.gguf.partial";
POSIX::mkfifo("$OUT/p.gguf.xxh64.partial", 0600);
until_job($id, 30, sub { $_[0]{state} eq 'stitching' });
is(run($SLUICE, 'stitch', $id)->{rc}, 0, 'stitch');
is_state(wait_job($id, 30), 'succeeded', 'its unfinished file was removed, and a FIFO lay in wait: the job ends well');
is_the_file('p', 'with the same file');

# ---- cancel and discard
$id = submit(demo_spec('h2'), manual_stitch => JSON::PP::true); # so that it cannot end before
until_job($id, 30, sub { $_[0]{done} });
ask({ m => 'cancel', jobs => [0 + $id], discard => JSON::PP::true });
is_state(wait_job($id, 30), 'cancelled', 'cancel');
for (1 .. 400) {
    last unless my @left = ls($OUT);
    sleep 0.1;
}
is_deeply([ls($OUT)], [], 'its unfinished files are gone');

# ---- cancel alone, and discard later: by the client
$id = submit(demo_spec('l'), manual_stitch => JSON::PP::true);
until_job($id, 30, sub { $_[0]{done} });
is(run($SLUICE, 'cancel', $id)->{out}, "cancelled job $id\n", 'cancel');
ok(-e "$OUT/l.gguf.partial", 'its unfinished file stays');
is(run($SLUICE, 'cancel', $id)->{out}, "job $id was cancelled before\n", 'once more');
is(run($SLUICE, 'cancel', '--discard', $id)->{out}, "cancelled job $id; its unfinished files are being removed\n", 'cancel --discard afterwards');
for (1 .. 400) {
    last unless my @left = ls($OUT);
    sleep 0.1;
}
is_deeply([ls($OUT)], [], 'they are gone');
$r = run_ok('and again', $SLUICE, 'cancel', '--discard', $id);
is($r->{out}, "job $id was cancelled before; its unfinished files are gone or about to go\n", 'changes nothing');
is(run($SLUICE, 'cancel', '--discard', '--parsable', $id)->{out}, "$id\n", 'and a program reads the same');
$j = wait_job($id, 30);
is_state($j, 'cancelled', 'it stays cancelled');
is(run($SLUICE, 'retry', $id)->{rc}, 0, 'retry');
until_job($id, 60, sub { $_[0]{state} eq 'stitching' });
is(run($SLUICE, 'stitch', $id)->{rc}, 0, 'stitch');
is_state(wait_job($id, 60), 'succeeded', 'makes it from the beginning');
is_the_file('l', 'the same file');
my $done_before = $id;

# ---- an output that is there
spit("$OUT/i.gguf", 'mine');
$id = submit(demo_spec('i'));
$j = wait_job($id, 30);
is($j->{code}, 13, 'an output that exists: the job fails with 13') or diag(encode_json($j));
is(slurp("$OUT/i.gguf"), 'mine', 'and it is as it was');

# ---- a second daemon on the same path
$r = run("$BUILD/sluiced");
is($r->{rc}, 13, 'a second daemon is refused with 13') or diag($r->{err});
ok(wait_daemon(), 'and the first is not disturbed');

# ---- drain: a worker that was killed is listed until its leases run out
$id = submit(demo_spec('j'));
until_job($id, 30, sub { $_[0]{done} });
my $workers = sub { @{ (ask({ m => 'workers' }))[0]{workers} } };
my %former = map { $_->{instance} => 1 } my @were = $workers->();
my ($first, $other) = map { $_->{name} } @were;
kill_one($first);
$r = run($SLUICE, 'drain', '--all');
like($r->{out}, qr/^draining \Q$other\E$/m, 'drain --all: one that is gone does not keep the others');
is(ended($other, 20), 0, 'a drained worker ends with 0');
start_one($_) for qw(w1 w2);
is_state(wait_job($id, 60), 'succeeded', 'new ones do the rest');
for (1 .. 400) { # one of them may have done it alone, before the other was there
    last if grep { $_->{name} eq 'w1' && !$former{ $_->{instance} } } $workers->();
    select undef, undef, undef, 0.05;
}
ask({ m => 'drain_worker', worker => 'w1' });
is(ended('w1', 20), 0, 'drained by name');

# ---- the daemon has other roots than when it took the job; the workers have not
$id = submit(demo_spec('r'), manual_stitch => JSON::PP::true);
until_job($id, 60, sub { $_[0]{state} eq 'stitching' });
my $held = submit(demo_spec('s'), hold => JSON::PP::true);
is(stop_one('daemon'), 0, 'SIGTERM of the daemon');
start_one('daemon', args => ['--root', "$RUN/src", '--root', "$RUN/state"]);
ok(wait_daemon(), 'started with other roots');
is(job($id)->{error}, "$OUT: is below no root of the daemon ($RUN/src, $RUN/state); start sluiced with a root for it again, and 'sluice retry $id' goes on",
    'a job outside them has failed, and says what to do');
is(job($held)->{state}, 'held', 'one that is held stays so');
for my $verb (['retry', $id], ['stitch', $id], ['release', $held], ['verify', '--job', $done_before]) {
    fails("$verb->[0] is refused", 2, qr{\Q$OUT\E: is below no root of the daemon \(\Q$RUN/src, $RUN/state\E\)$}m, $SLUICE, @$verb);
}
stop_one('daemon');
start_one('daemon');
ok(wait_daemon(), 'with the former roots');
is_state(job($id), 'failed', 'it stays as it is');
run_ok('until retry', $SLUICE, 'retry', $id);
run_ok('and stitch', $SLUICE, 'stitch', $id);
is_state(wait_job($id, 60), 'succeeded', 'which does the rest');
is_the_file('r', 'the same file');
run_ok('and release', $SLUICE, 'release', $held);
is_state(wait_job($held, 60), 'succeeded', 'the held one is done');
is_the_file('s', 'the same file');
signal_one('w2', 'HUP');
is(ended('w2', 30), 0, 'SIGHUP of an idle worker, of a terminal that closes: as SIGTERM');

# ---- a connection that is cut between a submit and its answer: the client says it once more, and it is one job
my $cutter = fork // die "fork: $!";
if (!$cutter) {
    my $door = IO::Socket::UNIX->new(Local => "$RUN/sock/cut", Listen => 5) or POSIX::_exit(1);
    my $submits = 0;
    while (my $client = $door->accept) {
        my $daemon = IO::Socket::UNIX->new(Peer => "$RUN/sock/d") or POSIX::_exit(2);
        pass_on($client, $daemon, \$submits);
        close $_ for $client, $daemon;
    }
}

# Until an end closes; of the first submit the answer is kept back, and the connection cut.
sub pass_on {
    my ($client, $daemon, $submits) = @_;
    my ($both, $is_first) = (IO::Select->new($client, $daemon), 0);
    while (my @from = $both->can_read) {
        for my $from (@from) {
            sysread($from, my $bytes, 65536) or return;
            return if $is_first && $from == $daemon;
            syswrite $from == $client ? $daemon : $client, $bytes;
            $is_first = 1 if $bytes =~ /"m":"submit"/ && ++$$submits == 1;
        }
    }
}
for (1 .. 200) {
    last if -S "$RUN/sock/cut";
    sleep 0.02;
}
$r = run_ok('submit', $SLUICE, 'submit', "$RUN/src", '-o', "$OUT/cut.gguf", '--recipe', 'q4_k_m', '--hold', '--timeout', 60, '--connect', "ipc://$RUN/sock/cut");
like($r->{out}, qr/^submitted job (\d+): q4_k_m\n\z/, 'is told as what it is');
is(scalar(grep { $_->{prefix} eq 'cut' } map { @{ $_->{jobs} // [] } } ask({ m => 'list' })), 1, 'one job');
run_ok('which goes', $SLUICE, 'cancel', $r->{out} =~ /(\d+)/);
kill 'KILL', $cutter;
waitpid $cutter, 0;

# ---- a client that was answered before, and the daemon is gone
my $log = start($SLUICE, 'logs', '--follow', '--timeout', $SANITIZED ? 10 : 1);
for (1 .. 400) {
    last if -s "$log->{log}.out";
    sleep 0.02;
}
is(stop_one('daemon'), 0, 'and of the daemon');
$r = finish($log);
ok($r->{rc} == 4 && $r->{err} =~ /: no daemon at \Q$ENDPOINT\E: no answer in \d+\.0 s: No such file or directory; start it /,
    'is told what became of it') or diag("$r->{rc} $r->{err}");
diag(sprintf '%.1f s in all', time - $begin);
done_testing();
