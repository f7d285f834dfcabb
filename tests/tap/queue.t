# What a disk, or an earlier release, left in a queue: one line names it, and everything else goes on. And what is told
# of a job after its end.
use strict;
use warnings;
use JSON::PP;
use KernelFaults;
use SluiceService;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep);

need_python();
service_setup();
my $queue = "$RUN/state/queue";
my $damaged = qr/\Q$queue\E: job \d+ cannot be read, it is damaged/;

# Statements on a queue that nobody has open.
sub alter {
    my ($path, @statements) = @_;
    my $r = run("$TOP/build/venv/bin/python", '-c', "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\n"
        . "for s in sys.argv[2:]: assert c.execute(s).rowcount == 1, s\nc.commit()", $path, @statements);
    is($r->{rc}, 0, 'the queue is altered') or diag($r->{err});
}
sub restart {
    my (@statements) = @_;
    stop_one('daemon');
    alter($queue, @statements);
    start_one('daemon');
    ok(wait_daemon(), 'a daemon on it');
}

start_one('daemon');
ok(wait_daemon(), 'daemon');
start_one('w1');
my $stopped = submit(demo_spec('stopped'), manual_stitch => JSON::PP::true);
is_state(until_job($stopped, 60, sub { $_[0]{state} eq 'stitching' }), 'stitching', 'a job of which all tasks are done');
run_ok('cancel', $SLUICE, 'cancel', $stopped);
my ($unread, $other) = map { submit(demo_spec($_), hold => JSON::PP::true) } qw(unread other);
run_ok('two more', $SLUICE, 'cancel', $unread, $other);

# ---- a plain cancel leaves files, but nobody at work on them
fails('convert keeps off them', 13, qr/stopped\.sluice-job: job $stopped of the service has this output and is at work on it, or ended without it; .*'sluice retry $stopped'/,
    $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '-o', "$OUT/stopped.gguf");

# ---- one row of the history, and tasks of a job
restart("UPDATE jobs SET spec = substr(spec, 3) WHERE id = $unread", "UPDATE tasks SET state = 9 WHERE job = $stopped AND task = 1");
my $r = run_ok('history', $SLUICE, 'history', '--parsable', '--format', 'id,state,reason');
my @rows = split /\n/, $r->{out};
is(scalar(grep { /^(?:$stopped|$unread|$other)\b.*cancelled/ } @rows), 3, 'all are shown') or diag($r->{out});
my ($named) = grep { /^$unread\b/ } @rows;
like($named, qr/$damaged: .*'sluice forget $unread' takes it out/, 'one is named as damaged');
is(scalar(grep { $_ =~ $damaged } @rows), 1, 'and no other');
fails('retry of damaged tasks', 1, qr/$damaged: its task 1 is in no state that there is; 'sluice forget $stopped' takes it out/,
    $SLUICE, 'retry', $stopped, '--timeout', 10);
run_ok('the others go on', $SLUICE, 'retry', $other);
my $j = wait_job($other, 60);
is_state($j, 'succeeded', 'to their end');
unlike(log_of('daemon'), qr/queue_failed/, 'the queue never failed');
run_ok('forget', $SLUICE, 'forget', $stopped, $unread);
$r = run_ok('history', $SLUICE, 'history');
unlike($r->{out}, qr/damaged/, 'they are gone');

# ---- a verification of later is no work of then
sleep 1.2;
run_ok('verify', $SLUICE, 'verify', '--job', $other);
my $after = job($other);
is_state($after, 'succeeded', 'verified');
ok($after->{started} && $after->{ended} == $j->{ended}, 'its time is that of its conversion') or diag("$j->{ended} $after->{ended}");

# ---- a path for which messages have no room, as earlier releases took it
stop_one('w1');
my $long = submit(demo_spec('long'));
my $folder = "$RUN/" . join '/', ('d' x 250) x 17;
$folder = substr $folder, 0, 4085;
restart("UPDATE jobs SET spec = replace(spec, '\"$OUT\"', '\"$folder\"') WHERE id = $long");
is_state(my $failed = wait_job($long, 2), 'failed', 'such a job fails');
is($failed->{error}, "the paths of long's files would have more than 4095 bytes; choose a folder with a shorter one", 'with the reason');
is(scalar(events($long, qr/state/)), 1, 'once');
stop_one('daemon');

# ---- the queue of convert
faults_at("$RUN/faults");
fault(hold => 1, path => '.safetensors', from => 1_000_000);
{
    local %ENV = (%ENV, %{ faults_env() });
    my $p = start($SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '--io', 'pread', '-o', "$OUT/own.gguf", '--quiet');
    ok(await_held(sub { waitpid $p->{pid}, 1 }), 'in the middle of its source');
    kill 'KILL', $p->{pid};
    no_fault();
    finish($p);
}
alter("$OUT/own.sluice-journal", 'UPDATE tasks SET state = 9 WHERE task = 1');
fails('a damaged journal', 1, qr{\Q$OUT\E/own\.sluice-journal: job 1 cannot be read, it is damaged: its task 1 is in no state that there is; restore a copy of it, or move it away and begin anew},
    $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '-o', "$OUT/own.gguf", '--quiet');
done_testing;
