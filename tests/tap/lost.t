# A task that ends whatever worker has it, as the kernel does when memory is out: real workers are killed while they
# read a certain place of the source (tests/preload/kernel_faults.c holds them there).
use strict;
use warnings;
use IO::Select;
use IO::Socket::UNIX;
use KernelFaults;
use POSIX ();
use SluiceService;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $LOSSES = 3;
service_setup(daemon => { heartbeat => '100ms', lease => '1s', losses => $LOSSES });
faults_at("$RUN/faults");
run_ok('convert', $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '--task-size', '1M', '-o', "$RUN/ref.gguf", '--quiet');
start_one('daemon');
ok(wait_daemon(), 'daemon');

# In the midst of the job: the last megabyte of its first file.
my ($first, @more) = glob "$RUN/src/*.safetensors";
cmp_ok(scalar @more, '>', 0, 'the source has files behind that');
(my $name = $first) =~ s{.*/}{};
fault(hold => 1, path => $name, from => (-s $first) - 1_000_000);
my $id = submit(demo_spec('lost'));
for my $n (1 .. $LOSSES) {
    start_one("w$n", env => faults_env(), args => ['--io', 'pread']);
    ok(await_held(sub { has_ended(job($id)) }), "w$n is at it") or last;
    sleep 0.5; # and has told of what
    kill_one("w$n");
    fault(held => [0]);
}
my $j = wait_job($id, 20);
is_state($j, 'failed', 'a task that ends its workers fails its job');
like($j->{error}, qr/^\S+\.weight \(task (\d+)\): $LOSSES workers in a row went away while they had it, w$LOSSES the last; .*'sluice retry $id' goes on \(1 of /,
    'with its tensor, the last worker and what to do');
my ($task) = ($j->{error} // '') =~ /\(task (\d+)\)/;
is($j->{done}, $j->{tasks} - 1, 'the others are done');
my %lost;
$lost{ $_->{task} }++ for events($id, qr/^lease_lost$/);
is($lost{ $task // '' }, $LOSSES, 'so often it was lost');
delete $lost{ $task // '' };
ok(%lost && !grep({ $_ >= $LOSSES } values %lost), 'what was held beside it was lost too, and then done') or diag(explain(\%lost));

no_fault();
start_one('again');
run_ok('retry', $SLUICE, 'retry', $id);
is_state(wait_job($id, 60), 'succeeded', 'with a worker that stays it goes on');
is(sha256("$OUT/lost.gguf"), sha256("$RUN/ref.gguf"), 'to the same file');
stop_one('again');

# ---- each of a job's tasks ends its worker: as many workers as one such task would take. Those that go together are one.
fault(hold => 1, path => "$RUN/src/", from => 200_000);
$id = submit(demo_spec('all'));
my $until_held = sub { my @w = @_; start_one($_, env => faults_env(), args => ['--io', 'pread']) for @w; return has_workers(@w) && await_held(sub { has_ended(job($id)) }) };
ok($until_held->(map { "t$_" } 1 .. 4), 'workers, of which each has some');
until_job($id, 10, sub { $_[0]{leased} >= 8 });
sleep 0.5; # and no heartbeat is out
signal_one("t$_", 'KILL') for 1 .. 4;
ended("t$_", 10) for 1 .. 4;
fault(held => [0]);
is(scalar(grep { $_->{state} eq 'running' } until_job($id, 20, sub { !$_[0]{leased} })), 1, 'four that die together do not end it');
for my $n (2 .. $LOSSES) {
    ok($until_held->("u$n"), "u$n is at it") or last;
    sleep 0.5;
    kill_one("u$n");
    fault(held => [0]);
}
$j = wait_job($id, 20);
is_state($j, 'failed', 'one after the other they do');
like($j->{error}, qr/: $LOSSES workers in a row went away while they had it or others of the job's, none of which was done, u$LOSSES the last; /,
    'and it says so');
cmp_ok($j->{done}, '<', $j->{tasks} / 2, 'without most of its tasks being tried');
no_fault();
start_one('back');
run_ok('retry', $SLUICE, 'retry', $id);
is_state(wait_job($id, 60), 'succeeded', 'with a worker that stays it goes on');
is(sha256("$OUT/all.gguf"), sha256("$RUN/ref.gguf"), 'to the same file');

# ---- one that may take too little memory for a job leaves it to others
start_one('small', cmd => ["$BUILD/sluice-worker", '--name', 'small', '--threads', 512, '--mem', '64Mi']);
ok(has_workers(qw(small back)), 'a worker with much memory, and one with little');
$id = submit(demo_spec('memory'));
is_state(wait_job($id, 60), 'succeeded', 'its job is done');
is(sha256("$OUT/memory.gguf"), sha256("$RUN/ref.gguf"), 'by the other one');
my @said = events($id, qr/^task_failed$/);
ok(@said == 1 && $said[0]{worker} eq 'small' && $said[0]{text} =~ / and 512 threads: \d+ MiB are needed$/, 'the small one tried once')
    or diag(explain(\@said));
stop_one('back');
$j = wait_job(submit(demo_spec('alone')), 20);
ok($j->{state} eq 'failed' && $j->{code} == 2 && $j->{error} =~ / and 512 threads: \d+ MiB are needed$/, 'with nobody else the job fails')
    or diag(explain($j));
stop_one($_) for qw(small daemon);

# ---- a process that is gone from the daemon's machine is waited for by nobody; one behind a relay may live elsewhere
start_one('daemon', args => ['--heartbeat', '5s', '--lease', '300s']);
ok(wait_daemon(), 'a daemon with long leases');
fault(hold => 1, path => "$RUN/src/", from => 200_000);
$id = submit(demo_spec('dead'));
ok($until_held->('same'), 'a worker at it');
kill_one('same');
no_fault();
my $t0 = time;
start_one('same');
is_state(wait_job($id, 60), 'succeeded', 'killed and started again, of the same name: its tasks are taken again at once');
cmp_ok(time - $t0, '<', 100, 'no lease was waited for');
is(sha256("$OUT/dead.gguf"), sha256("$RUN/ref.gguf"), 'to the same file');
like((events($id, qr/^lease_lost$/))[0]{text}, qr/^the worker's process is gone; the task goes back$/, 'as the log says');
stop_one('same');

sub relay { # from one socket to another, in a process of its own
    my ($at, $to) = @_;
    my $listen = IO::Socket::UNIX->new(Local => $at, Listen => 5) or die "$at: $!";
    $ALIVE{relay} = { pid => fork // die("fork: $!"), name => 'relay' };
    return if $ALIVE{relay}{pid};
    my %other;
    my $all = IO::Select->new($listen);
    while (1) {
        for my $from ($all->can_read) {
            if ($from == $listen) {
                my ($new, $far) = (scalar $listen->accept, IO::Socket::UNIX->new(Peer => $to));
                POSIX::_exit(1) if !$new || !$far;
                $all->add($new, $far);
                @other{ $new, $far } = ($far, $new);
            } elsif (sysread $from, my $bytes, 65536) {
                syswrite $other{$from}, $bytes;
            } else {
                POSIX::_exit(0);
            }
        }
    }
}
relay("$RUN/sock/relay", $ENDPOINT =~ s{^ipc://}{}r);
fault(hold => 1, path => "$RUN/src/", from => 200_000);
$id = submit(demo_spec('relayed'));
start_one('far', env => faults_env(), args => ['--io', 'pread', '--connect', "ipc://$RUN/sock/relay"]);
ok(await_held(sub { has_ended(job($id)) }), 'a worker behind a relay is at it');
my $had = job($id)->{leased};
kill_one('relay');
unlink "$RUN/sock/relay";
sleep 1;
ok($had > 0 && job($id)->{leased} == $had, 'the relay ends: the leases stay') or diag(explain(job($id)));
relay("$RUN/sock/relay", $ENDPOINT =~ s{^ipc://}{}r);
no_fault();
is_state(wait_job($id, 60), 'succeeded', 'the worker comes back with them');
is(scalar(events($id, qr/^lease_lost$/)), 0, 'and none was lost');
stop_one($_) for qw(far relay daemon);

# A daemon that is gone without a word is not waited for by a worker that holds nothing and is told to end.
start_one('daemon', args => ['--heartbeat', '5s', '--lease', '50s']);
start_one('last');
has_workers('last');
kill_one('daemon');
sleep 0.5; # until its socket has seen it
signal_one('last', 'TERM');
is(ended('last', 4), 0, 'it ends in order, in seconds');
done_testing;
