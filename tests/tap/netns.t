# Workers and clients over a network: a daemon in one network namespace, a worker
# and a client in another, tcp with CURVE between them; the link goes down for
# longer than a lease, and comes back.
use strict;
use warnings;
use IO::Socket::INET;
use POSIX ();
use SluiceService;
use SluiceTest;
use Test::More;
use Time::HiRes qw(time sleep);

# All of it happens in a network namespace of our own, which takes root or user
# namespaces: where there are neither, even CI skips this.
if (!$ENV{SLUICE_NETNS}) {
    absent('no ip (package iproute2)') if run('ip', '-V')->{rc};
    my @unshare = ('unshare', $> ? '-rn' : '-n');
    plan(skip_all => 'no network namespaces here (neither root nor user namespaces): nothing was run over a network')
        if run(@unshare, 'sh', '-c', 'ip link add va type veth peer name vb && ip link set lo up')->{rc};
    $ENV{SLUICE_NETNS} = 1;
    exec @unshare, $^X, "-I$TOP/tests/lib", $0 or die "unshare: $!";
}

my $begin = time;
sub step { diag(sprintf '%.1f s: %s', time - $begin, $_[0]) }

sub must {
    my $r = run(@_);
    die "@_: $r->{err}" if $r->{rc};
}

service_setup(daemon => { heartbeat => '100ms', lease => '1s' });
my $r = run_ok('convert', $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '--task-size', '1M', '-o', "$RUN/ref.gguf", '--quiet');
my $want = sha256("$RUN/ref.gguf");

# ---- two namespaces and a cable
start_one('away', cmd => ['unshare', '-n', 'sleep', '600']);
my @there = ('nsenter', '-t', $ALIVE{away}{pid}, '-n');
for (1 .. 100) { # until it is in a namespace of its own
    last if readlink("/proc/$ALIVE{away}{pid}/ns/net") ne readlink('/proc/self/ns/net');
    sleep 0.02;
}
must(qw(ip link set lo up));
must(qw(ip link add va type veth peer name vb));
must(qw(ip link set vb netns), $ALIVE{away}{pid});
must(qw(ip addr add 10.97.0.1/24 dev va));
must(qw(ip link set va up));
must(@there, qw(ip addr add 10.97.0.2/24 dev vb));
must(@there, qw(ip link set vb up));
must(@there, qw(ip link set lo up));
my $tcp = 'tcp://10.97.0.1:7117';

my $allow = '';
for my $k (['daemon'], ['w1', 'worker'], ['me', 'submitter'], ['stranger', 'worker']) {
    my ($name, $role) = @$k;
    run_ok("keys: $name", $SLUICE, 'keys', "$RUN/$name.key", $role ? ('--role', $role) : (), '--name', $name);
    my ($public) = slurp("$RUN/$name.key.pub") =~ /^public (\S+)/m;
    $allow .= "$role key $public $name\n" if $role && $name ne 'stranger';
}
spit("$RUN/allow", $allow);
sub by { return ('--connect', $tcp, '--server-key', "$RUN/daemon.key.pub", '--key', "$RUN/$_[0].key") }

sub is_the_file {
    my ($prefix, $name) = @_;
    ok(-e "$OUT/$prefix.gguf" && sha256("$OUT/$prefix.gguf") eq $want, $name);
    unlink glob "$OUT/$prefix.gguf*";
    is_deeply([ls($OUT)], [], 'nothing else is left');
}

sub start_away { start_one('w1', before => \@there, args => [by('w1')]) }

sub cable {
    my ($state) = @_;
    must('ip', 'link', 'set', 'va', $state);
}

sub connects {
    my ($before) = @_;
    my $end = time + 40;
    while (time < $end) {
        my $n = () = log_of('w1') =~ /connected worker=w1: connected/g;
        return $n if $n > $before;
        sleep 0.05;
    }
    diag(tail('w1'));
    return 0;
}

start_one('daemon', args => ['--listen', "ipc://$RUN/sock/d", '--listen', $tcp, '--key', "$RUN/daemon.key", '--allow', "$RUN/allow"]);
ok(wait_daemon(), 'a daemon on ipc and on tcp with keys') or die('no daemon');

# ---- hosts that differ behind what a worker's name has room for
start_one("host$_", cmd => ['unshare', '-u', 'sh', '-c', 'hostname "$0" && exec "$@"', 'h' x 57 . "-node$_", "$BUILD/sluice-worker",
    '--device', 'cpu', '--threads', 1, '--mem', '128Mi']) for 1 .. 2;
my %named;
for (1 .. 200) {
    ($named{ $_->{name} }) = $_->{host} for map { @{ $_->{workers} // [] } } ask({ m => 'workers' });
    last if keys %named == 2;
    sleep 0.05;
}
is_deeply([sort values %named], [map { 'h' x 57 . "-node$_" } 1, 2], 'two workers of two hosts have two names') or diag(explain(\%named));
is(scalar(grep { /^h{31}-[0-9a-f]{8}-cpu$/ } keys %named), 2, 'with the device in them');
stop_one("host$_") for 1 .. 2;
start_one('short', cmd => ['unshare', '-u', 'sh', '-c', 'hostname node7 && exec "$@"', 'sh', "$BUILD/sluice-worker", '--device', 'cpu', '--threads', 1]);
ok(has_workers('node7-cpu'), 'a short one is as it was');
stop_one('short');

# ---- a name server that does not answer
step('name server');
my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.9:53', Proto => 'udp') or die "$!";
spit("$RUN/resolv.conf", "nameserver 127.0.0.9\noptions timeout:3 attempts:1\n");
my @dead = ('unshare', '-m', 'sh', '-c', 'mount --bind "$0" /etc/resolv.conf && exec "$@"', "$RUN/resolv.conf");
my @name = ('--connect', 'tcp://daemon.example:7117', '--server-key', "$RUN/daemon.key.pub", '--key');
$r = run(@dead, $SLUICE, 'queue', @name, "$RUN/me.key");
is($r->{rc}, 4, 'a client whose name server is dead ends');
like($r->{err}, qr{^sluice: waiting for a name server to tell the address of daemon\.example\nsluice queue: tcp://daemon\.example:7117: no name server tells its address; [^\n]*\n$},
    'and says what it waits for, and what it waited for');
spit("$RUN/resolv.conf", "nameserver 127.0.0.9\noptions timeout:30 attempts:1\n");
start_one('asks', cmd => [@dead, $SLUICE, 'queue', @name, "$RUN/me.key"]);
ok(wait_log('asks', qr/waiting for a name server/), 'one that waits long');
signal_one('asks', 'INT');
is(ended('asks', 5), 75, '... ends by Ctrl-C');
like(log_of('asks'), qr/^sluice queue: interrupted$/m, '... and says so');
my $began = time;
fails('--timeout is of that too', 4, qr{^sluice queue: tcp://daemon\.example:7117: no name server tells its address; }, @dead, $SLUICE, 'queue', @name, "$RUN/me.key", '--timeout', 1);
cmp_ok(time - $began, '<', 8, '... and not of what comes after');
start_one('ends', before => \@dead, args => [@name, "$RUN/w1.key"]);
ok(wait_log('ends', qr/ lookup: waiting for a name server/), 'a worker that waits long');
signal_one('ends', 'TERM');
is(ended('ends', 2), 0, '... ends with SIGTERM');
spit("$RUN/resolv.conf", "nameserver 127.0.0.9\noptions timeout:3 attempts:1\n");
spit("$RUN/hosts", "fd00::7 daemon.example\n");
$r = run(@dead, 'sh', '-c', 'mount --bind "$0" /etc/hosts && exec "$@"', "$RUN/hosts", $SLUICE, 'queue', @name, "$RUN/me.key", '--timeout', 1);
is($r->{rc}, 4, 'a name that /etc/hosts has with an IPv6 address alone');
unlike($r->{err}, qr/name server/, '... is asked of no server');
# One that tells IPv4's addresses, and says nothing to who asks for IPv6's; another name it does not know.
my $half = IO::Socket::INET->new(LocalAddr => '127.0.0.10:53', Proto => 'udp') or die "$!";
my $teller = fork // die "fork: $!";
if (!$teller) {
    while (my $from = recv $half, my $q, 512, 0) {
        my ($name, $type) = unpack 'x12 Z* n', $q;
        send $half, substr($q, 0, 2) . pack('n5', 0x8183, 1, 0, 0, 0) . substr($q, 12, length($name) + 5), 0, $from if $name =~ /nobody/;
        send $half, substr($q, 0, 2) . pack('n5', 0x8180, 1, 1, 0, 0) . substr($q, 12, length($name) + 5)
            . pack('n3 N n C4', 0xc00c, 1, 1, 60, 4, 127, 0, 0, 1), 0, $from if $type == 1 && $name !~ /nobody/;
    }
    POSIX::_exit(0);
}
spit("$RUN/resolv.conf", "nameserver 127.0.0.10\noptions timeout:5 attempts:2\n");
$began = time;
$r = run(@dead, $SLUICE, 'queue', @name, "$RUN/me.key", '--timeout', 1);
like($r->{err}, qr/^sluice queue: no daemon at [^\n]*\n$/, 'a name server that tells one family alone is not waited for');
cmp_ok(time - $began, '<', 8, '... for the other');
fails('a name that nobody has', 4, qr{^sluice queue: tcp://nobody\.example:7117: no host of this name is known; is it right\?$},
    @dead, $SLUICE, 'queue', '--connect', 'tcp://nobody.example:7117', @name[2 .. 4], "$RUN/me.key");
start_one('unknown', before => \@dead, args => ['--connect', 'tcp://nobody.example:7117', @name[2 .. 4], "$RUN/w1.key"]);
ok(wait_log('unknown', qr/ connection-lost worker=\S+: no host of this name is known; .*trying again/, 20), 'a worker tells so, too');
unlike(log_of('unknown'), qr/allow-list/, '... and nothing else');
kill_one('unknown');
kill 'KILL', $teller;
waitpid $teller, 0;
spit("$RUN/resolv.conf", "nameserver 127.0.0.9\noptions timeout:3 attempts:1\n");
start_one('nameless', before => \@dead, args => [@name, "$RUN/w1.key"]);
ok(wait_log('nameless', qr/ lookup: waiting for a name server to tell the address of daemon\.example/), 'so does a worker');
ok(wait_log('nameless', qr/connection-lost/, 20), 'which goes on trying');
kill_one('nameless');

# ---- a whole job by a worker over tcp with CURVE, for a client over tcp
step('over tcp');
start_away();
cmp_ok(connects(0), '==', 1, 'the worker is let in');
$r = run_ok('submit --wait over tcp', @there, $SLUICE, 'submit', "$RUN/src", '-o', "$OUT/a.gguf", '--recipe', 'q4_k_m',
    '--task-size', '1M', '--verify', '--wait', '--json', by('me'));
my ($job) = map { $_->{message_type} eq 'job_ended' ? $_ : () } json_lines($r->{out});
is($job && $job->{user}, 'me', 'its user is the name of the key');
is_the_file('a', 'the same file');
fails('a worker is no admin', 2, qr/w1 may be a worker here, no client/, @there, $SLUICE, 'queue', by('w1'));
$r = run(@there, $SLUICE, 'queue', '--connect', $tcp, '--server-key', "$RUN/daemon.key.pub", '--key', "$RUN/stranger.key", '--timeout', 1);
is($r->{rc}, 4, 'a stranger is not let in') or diag($r->{err});
$r = run(@there, $SLUICE, 'queue', '--connect', $tcp, '--plain-tcp', '--timeout', 1);
isnt($r->{rc}, 0, 'nor is one without a key');
my $other = "$RUN/me.key.pub"; # any key but the daemon's
$r = run(@there, $SLUICE, 'queue', '--connect', $tcp, '--server-key', $other, '--key', "$RUN/me.key", '--timeout', 1);
is($r->{rc}, 4, 'a daemon with another key than expected is not spoken to');

# ---- the link goes down in the middle; another worker goes on
step('partition');
start_one('w2');
my ($id, $j);
# The job may be over before the cable is out: another one then.
for my $try (1 .. 10) {
    $id = submit(demo_spec('b'));
    $j = until_job($id, 30, sub { has_ended($_[0]) || log_of('w1') =~ /task-done job=$id /});
    cable('down');
    $j = wait_job($id, 60);
    last if events($id, qr/lease_lost/);
    cable('up');
    unlink glob "$OUT/b.gguf*";
}
ok(scalar(events($id, qr/lease_lost/)), 'the link goes down while the worker has tasks: its leases end');
is_state($j, 'succeeded', 'the other worker does the job');
cmp_ok(scalar(() = log_of('w1') =~ /task-done job=$id /g), '>', 0, 'of which it had done a part');
is_deeply($j->{failures}, [], 'nothing has failed');
ok(wait_log('w1', qr/connection-lost/, 20), 'the worker notices');
sleep 1.5;
my ($before) = scalar(() = log_of('w1') =~ /connected worker=w1: connected/g);
cable('up');
cmp_ok(connects($before), '>', $before, 'the link is up: the worker reconnects by itself');
is_the_file('b', 'one file, the same');
is(stop_one('w2'), 0, 'the other worker goes');
$id = submit(demo_spec('c'));
is_state(wait_job($id, 60), 'succeeded', 'the worker is of use again');
is_the_file('c', 'the same file');

# ---- short and long breaks with one worker alone, and a client that waits there
step('breaks');
my $p = start(@there, $SLUICE, 'submit', "$RUN/src", '-o', "$OUT/d.gguf", '--recipe', 'q4_k_m', '--task-size', '1M', '--wait', '--json', by('me'));
my $next = $id + 1;
ok(wait_log('w1', qr/task-done job=$next /), 'in the middle of it');
cable('down');
sleep 0.3; # shorter than anybody notices
cable('up');
sleep 0.2;
cable('down');
sleep 2.5; # longer than lease and silence
cable('up');
finish($p);
is($p->{rc}, 0, 'a client waits through the breaks') or diag($p->{err}, tail('w1'));
is_the_file('d', 'one file, the same');
is(stop_one('w1'), 0, 'SIGTERM of the worker');
is(stop_one('daemon'), 0, 'and of the daemon');
step('done');
done_testing();
