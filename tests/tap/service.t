# The service with real processes: sluiced and two workers on an ipc endpoint, and
# jobs whose file must be the one that `sluice convert` makes, whatever is
# killed, stopped or told to go meanwhile.
use strict;
use warnings;
use JSON::PP;
use POSIX qw(:sys_wait_h);
use SluiceTest;
use Test::More;
use Time::HiRes qw(time sleep);

my $kills = $ENV{KILLS} // ($QUICK ? 4 : 20);
my $seed  = $ENV{SEED} // time ^ $$;
srand $seed;
diag("SEED=$seed KILLS=$kills");
my $begin = time;

my $SLUICED = $ENV{SLUICED} // "$BUILD/sluiced";
my $WORKER  = "$BUILD/sluice-worker";
# Paths of ipc sockets are short.
my $run = File::Temp::tempdir('/tmp/sluice_service_XXXXXX', CLEANUP => 1);
my $out = "$run/out";
mkdir $_ or die "$_: $!" for $out, "$run/state", "$run/sock";
chmod 0700, "$run/sock";
my $endpoint = "ipc://$run/sock/d";
my $source = checkpoint("$run/src", qw(--preset demo --layers 4 --experts 8 --groups 2 --groups-used 1 --used 2));

$ENV{SLUICE_CONFIG} = "$run/sluice.conf";
spit($ENV{SLUICE_CONFIG}, <<"END");
[sluice]
endpoint = $endpoint
root = $run
log = plain
log_level = debug
[daemon]
listen = $endpoint
state_dir = $run/state
heartbeat = 200ms
lease = 2s
END

my %alive; # name => process
END { kill 'KILL', $_->{pid} for values %alive; }

sub start_one {
    my ($name) = @_;
    my @cmd = $name eq 'daemon' ? ($SLUICED)
        : ($WORKER, '--name', $name, '--threads', 1, '--mem', '128Mi');
    my $log = "$run/$name.log";
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        open STDIN,  '<', '/dev/null';
        open STDOUT, '>>', $log;
        open STDERR, '>>', $log;
        exec { $cmd[0] } @cmd or POSIX::_exit(127);
    }
    return $alive{$name} = { pid => $pid, name => $name };
}

# Waits for the end of a process of ours: exit status, 128 + signal, or undef.
sub ended {
    my ($name, $seconds) = @_;
    my $p = $alive{$name} or return;
    my $end = time + $seconds * ($SANITIZED ? 4 : 1);
    while (time < $end) {
        if (waitpid($p->{pid}, WNOHANG) == $p->{pid}) {
            delete $alive{$name};
            return WIFSIGNALED($?) ? 128 + WTERMSIG($?) : WEXITSTATUS($?);
        }
        sleep 0.02;
    }
    return;
}

sub signal_one {
    my ($name, $signal) = @_;
    kill $signal, $alive{$name}{pid};
}

sub kill_one {
    my ($name) = @_;
    signal_one($name, 'KILL');
    return ended($name, 10);
}

sub stop_one {
    my ($name) = @_;
    signal_one($name, 'TERM');
    my $rc = ended($name, 30);
    defined $rc or kill_one($name);
    return $rc;
}

# Sends messages; the answers that came, or nothing when there is no daemon.
sub ask {
    my ($message, @options) = @_;
    my $r = run(tool('wire_peer'), '-t', 5, @options, $endpoint,
        ref $message ? encode_json({ v => 2, %$message }) : $message);
    return json_lines($r->{out});
}

sub wait_daemon {
    for (1 .. 100) {
        my ($a) = ask({ m => 'about' }, '-t', 1);
        return 1 if $a && $a->{m} eq 'daemon';
    }
    return 0;
}

my ($jobs, %spec) = (0);
sub spec {
    my ($prefix, %options) = @_;
    return { source => $source, output => $out, prefix => $prefix, recipe => 'q4_k_m',
        recipe_text => slurp("$TOP/proto/recipes/q4_k_m.recipe"),
        options => { task_bytes => 1_000_000, %options } };
}

sub submit {
    my ($spec, %more) = @_;
    my $key = "$$." . ++$jobs;
    for (1 .. 60) { # the same key until it is answered
        my ($a) = grep { $_->{m} =~ /^(?:submitted|error)$/ } ask({ m => 'submit', key => $key, specs => [$spec], %more });
        return $a->{jobs}[0] if $a && $a->{m} eq 'submitted';
        return "error $a->{code}: $a->{text}" if $a;
    }
    return 'no answer';
}

sub job {
    my ($id) = @_;
    my ($a) = grep { $_->{m} eq 'job' } ask({ m => 'show', job => 0 + $id }, '-t', 2);
    return $a ? { %{ $a->{job} }, failures => $a->{failures} } : undef;
}

# Waits for the end of a job; $each is called again and again meanwhile.
sub wait_job {
    my ($id, $seconds, $each) = @_;
    my ($end, $j) = (time + $seconds * ($SANITIZED ? 4 : 1));
    while (time < $end) {
        $j = job($id) // $j;
        return $j if $j && $j->{state} =~ /^(?:succeeded|failed|cancelled)$/;
        $each->($j) if $each;
        sleep 0.05;
    }
    return $j // { state => 'not known' };
}

sub is_state {
    my ($j, $state, $name) = @_;
    is($j->{state}, $state, $name)
        or diag(encode_json($j), map { "\n--- $_\n" . tail("$run/$_.log") } qw(daemon w1 w2));
}

sub tail {
    my @lines = -e $_[0] ? split(/\n/, slurp($_[0])) : ();
    return join "\n", @lines[($#lines > 30 ? $#lines - 30 : 0) .. $#lines];
}

# ---- what the file must be
my $r = run_ok('convert', $SLUICE, 'convert', $source, '--recipe', 'q4_k_m', '--task-size', '1M', '--threads', 2,
    '-o', "$run/ref.gguf", '--quiet');
my $want = sha256("$run/ref.gguf");
my $whole = $r->{secs};
diag(sprintf 'convert %.2f s', $whole);

sub is_the_file {
    my ($prefix, $name) = @_;
    ok(-e "$out/$prefix.gguf" && sha256("$out/$prefix.gguf") eq $want, $name);
    unlink glob "$out/$prefix.*";
}

start_one($_) for qw(daemon w1 w2);
ok(wait_daemon(), 'the daemon answers') or BAIL_OUT_LOCAL_LOG();

sub BAIL_OUT_LOCAL_LOG {
    diag(tail("$run/daemon.log"));
    done_testing();
    exit 1;
}

# ---- a job by two workers, verified
my $id = submit(spec('a'), verify => JSON::PP::true);
my $j = wait_job($id, 60);
is_state($j, 'succeeded', 'a job by two workers');
is($j->{done}, $j->{tasks}, 'all its tasks are done');
is_deeply($j->{files}, ["$out/a.gguf"], 'its file is told');
is_deeply([grep { !/^a\.gguf(?:\.xxh64)?$/ } ls($out)], [], 'nothing else is left');
is_the_file('a', 'the same file as convert');
for my $w (qw(w1 w2)) {
    ok(slurp("$run/$w.log") =~ /task-done job=$id /, "$w did some of it");
}

# ---- synthetic importance weights: each worker makes them, verify again
run_ok('convert --imatrix synthetic', $SLUICE, 'convert', $source, '--recipe', 'q4_k_m', '--task-size', '1M', '--threads', 2,
    '-o', "$run/synthetic.gguf", '--quiet', '--imatrix', 'synthetic');
$id = submit(spec('syn', synthetic_imatrix => JSON::PP::true), verify => JSON::PP::true);
is_state(wait_job($id, 60), 'succeeded', 'a job with synthetic weights');
ok(-e "$out/syn.gguf" && sha256("$out/syn.gguf") eq sha256("$run/synthetic.gguf"), 'the same file as convert');
ok(sha256("$run/synthetic.gguf") ne $want, 'which is not the one without');
unlink glob "$out/syn.*";

# ---- SIGTERM: what has not begun goes back, the rest is finished
$id = submit(spec('b'));
$j = wait_job($id, 30, sub { no warnings 'exiting'; last if $_[0] && $_[0]{done} });
my $t0 = time;
is(stop_one('w1'), 0, 'SIGTERM: exit 0');
ok(time - $t0 < 10, sprintf 'within %.1f s', time - $t0);
$j = wait_job($id, 60);
is_state($j, 'succeeded', 'the other worker does the rest');
is(scalar @{ $j->{failures} // [] }, 0, 'no task failed for it');
is_the_file('b', 'the same file');
start_one('w1');

# ---- a worker that is stopped past its leases, and goes on
$id = submit(spec('c'));
wait_job($id, 30, sub { no warnings 'exiting'; last if $_[0] && $_[0]{done} });
signal_one('w1', 'STOP');
fails('convert keeps off its output', 13, qr/c\.sluice-job: job $id of the service/, $SLUICE, 'convert', $source,
    '--recipe', 'q4_k_m', '-o', "$out/c.gguf", '--force');
$j = wait_job($id, 60);
is_state($j, 'succeeded', 'SIGSTOP of a worker past its leases: the other one does its tasks');
signal_one('w1', 'CONT');
sleep 1;
is_the_file('c', 'the same file after SIGCONT');
is_deeply([ls($out)], [], 'its late writes left nothing');
$id = submit(spec('d'));
is_state(wait_job($id, 60), 'succeeded', 'and the worker is of use again');
is_the_file('d', 'the same file');

# ---- SIGKILL at random moments
my ($killed, $rounds, @wrong) = (0, 0);
$t0 = time;
while ($killed < $kills && !@wrong && time - $t0 < 300) {
    my $prefix = 'k' . ++$rounds;
    $id = submit(spec($prefix));
    my $next = time + rand($whole * 0.7);
    $j = wait_job($id, 120, sub {
        return if time < $next || $killed >= $kills;
        my $name = (qw(daemon w1 w2))[int rand 3];
        kill_one($name);
        $killed++;
        sleep rand 0.3;
        start_one($name);
        $next = time + rand($whole);
    });
    push @wrong, "round $rounds: $j->{state} " . ($j->{error} // $j->{reason} // '') if $j->{state} ne 'succeeded';
    push @wrong, "round $rounds: another file" unless -e "$out/$prefix.gguf" && sha256("$out/$prefix.gguf") eq $want;
    unlink glob "$out/$prefix.*";
}
diag(sprintf '%d kills over %d jobs in %.1f s', $killed, $rounds, time - $t0);
is_deeply(\@wrong, [], "$killed times SIGKILL of daemon or worker: every job ends with the same file")
    or diag(map { "--- $_\n" . tail("$run/$_.log") . "\n" } qw(daemon w1 w2));

# ---- seconds without a daemon: what was finished meanwhile counts
$id = submit(spec('e'));
wait_job($id, 30, sub { no warnings 'exiting'; last if $_[0] && $_[0]{done} });
kill_one('daemon');
sleep 3;
start_one('daemon');
ok(wait_daemon(), 'a new daemon after 3 s');
is_state(wait_job($id, 90), 'succeeded', 'the job goes on');
is_the_file('e', 'the same file');

# ---- what a stranger says changes nothing
$id = submit(spec('f'), hold => JSON::PP::true);
my ($a) = grep { $_->{m} ne 'grant' } ask({ m => 'result', job => 0 + $id, task => 0, epoch => 999, bytes => 1,
    checksum => '0123456789abcdef' }, '-w');
is($a && $a->{m}, 'nack', 'a forged epoch is refused');
spit("$run/big", '{"v":2,"m":"list","labels":["' . 'x' x (9 << 20) . '"]}');
ask("\@$run/big", '-t', 1);
ok(wait_daemon(), 'a message over the limit: the daemon stays');
($a) = ask('{"v":2,"m":"nonsense"}');
is($a && $a->{code}, 2, 'an unknown message is refused');
is(job($id)->{state}, 'held', 'the job is as it was');
ask({ m => 'cancel', jobs => [0 + $id], discard => JSON::PP::true });

# ---- paths outside the roots
my $outside = spec('g');
$outside->{output} = $TOP;
$id = submit($outside);
$id = wait_job($id, 30)->{error} // '' if $id =~ /^\d+$/;
like($id, qr/(?:outside|root)/, 'an output outside the roots is refused');
is_deeply([glob "$TOP/g*gguf*"], [], 'and nothing is there');

# ---- cancel and discard
$id = submit(spec('h'));
wait_job($id, 30, sub { no warnings 'exiting'; last if $_[0] && $_[0]{done} });
ask({ m => 'cancel', jobs => [0 + $id], discard => JSON::PP::true });
is_state(wait_job($id, 30), 'cancelled', 'cancel');
for (1 .. 100) {
    last unless ls($out);
    sleep 0.1;
}
is_deeply([ls($out)], [], 'its unfinished files are gone');

# ---- an output that is there
spit("$out/i.gguf", 'mine');
$id = submit(spec('i'));
$j = wait_job($id, 30);
is($j->{code}, 13, 'an output that exists: the job fails with 13') or diag(encode_json($j));
is(slurp("$out/i.gguf"), 'mine', 'and it is as it was');

# ---- a second daemon on the same path
$r = run($SLUICED);
is($r->{rc}, 13, 'a second daemon is refused with 13') or diag($r->{err});
ok(wait_daemon(), 'and the first is not disturbed');

# ---- drain
ask({ m => 'drain_worker', worker => 'w1' });
is(ended('w1', 20), 0, 'a drained worker ends with 0');
is(stop_one('w2'), 0, 'SIGTERM of an idle worker');
is(stop_one('daemon'), 0, 'SIGTERM of the daemon');
diag(sprintf '%.1f s in all', time - $begin);
done_testing();
