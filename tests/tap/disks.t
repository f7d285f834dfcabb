# Disks that fail for real, under the service and through io_uring: a filesystem
# on a loop device whose backing file loses its end (every read there is EIO),
# one whose backing file has no room (writes succeed, fsync says EIO once and is
# well the next time), and one that hangs (fsfreeze). Takes root and a loop device.
use strict;
use warnings;
use NotifySocket;
use SluiceService;
use SluiceTest;
use Test::More;
use Time::HiRes qw(time sleep);

plan(skip_all => 'a filesystem on a loop device takes root') if $>;
my ($begin, $want) = (time);
service_setup();

# A worker whose mount namespace has more than ours: $script mounts, then starts it.
sub start_mounted {
    my ($script, %o) = @_;
    unlink "$RUN/w1.log"; # what an earlier one said must not be taken for this one's
    start_one('w1', %o, cmd => ['unshare', '-m', 'sh', '-c', "set -e\n$script\nexec \"\$@\"", 'sh', "$BUILD/sluice-worker",
        '--name', 'w1', '--threads', 1, '--mem', '128Mi']);
    return wait_log('w1', qr/connected worker=w1/, 20);
}

# What systemd would be told by the worker. feeds: that it is fed, so many times from now on;
# silent: waits until it was not for this long.
my $notify = listen_notify("$RUN/notify");
sub next_feed { return defined heard(qr/^WATCHDOG=1$/, $_[0]) }

sub feeds {
    my ($times) = @_;
    1 while defined heard(qr/./, 0);
    return $times == grep { next_feed(10) } 1 .. $times;
}

sub silent {
    my ($quiet, $seconds) = @_;
    my $end = time + $seconds;
    while (time < $end) {
        return 1 unless next_feed($quiet);
    }
    return 0;
}

# A process in the worker's namespace stays there, whatever becomes of the worker, and thaws
# the disk in any case: a frozen filesystem cannot be unmounted, nor its writers be killed.
# Only a disk that is mounted there is frozen: anywhere else the folder is the machine's own.
my $on_disk = 'mountpoint -q "$0" && exec fsfreeze "$1" "$0"';
sub freeze {
    my ($how) = @_;
    return 0 unless $ALIVE{keeper};
    return run('nsenter', '-t', $ALIVE{keeper}{pid}, '-m', 'sh', '-c', $on_disk, "$RUN/disk", $how)->{rc} == 0;
}
END {
    my $status = $?;
    freeze('-u');
    $? = $status;
}

sub hung_disk {
    ok(start_mounted(<<"END", env => { NOTIFY_SOCKET => $notify, WATCHDOG_USEC => 600_000 }), 'a worker whose disk can be frozen');
mount -t tmpfs -o size=250m none $RUN/back
truncate -s 160M $RUN/back/image
mkfs.ext4 -q -b 4096 -O ^has_journal $RUN/back/image
mount -o loop $RUN/back/image $RUN/disk
END
    start_one('keeper', cmd => ['nsenter', '-t', $ALIVE{w1}{pid}, '-m', 'sh', '-c', "sleep 180; $on_disk", "$RUN/disk", '-u']);
    my $seen = "/proc/$ALIVE{keeper}{pid}/root$RUN/disk";
    for (1 .. 200) {
        last if -d "$seen/lost+found";
        sleep 0.05;
    }
    ok(feeds(2), 'it feeds its watchdog while it waits for work');
    my $spec = demo_spec('hung');
    $spec->{output} = "$RUN/disk";

    # In the middle of its tasks; one that is quick may be through before: another job, then.
    my ($id, $j);
    for my $try (1 .. 10) {
        $id = submit({ %$spec, prefix => "hung$try" });
        until_job($id, 30, sub { $_[0]{done} });
        ok(freeze('-f'), 'its disk hangs') or return;
        $j = job($id);
        last if $j->{done} < $j->{tasks};
        freeze('-u');
        wait_job($id, 60);
        unlink glob "$seen/hung*";
    }
    cmp_ok($j->{done}, '<', $j->{tasks}, 'in the middle of a job');
    ok(silent(3, 30), 'the watchdog is starved, past the end of its leases as well');
    ok(kill(0, $ALIVE{w1}{pid}) && !defined ended('w1', 0), 'by a worker that is still there');
    ok(freeze('-u'), 'the disk goes on');
    ok(next_feed(10), 'so does the worker');
    is_state(wait_job($id, 60), 'succeeded', 'the job ends well');
    my ($made) = glob "$seen/hung*.gguf";
    is($made ? sha256($made) : '', $want, 'the same file');

    # Before the first byte: in prepare.
    ok(freeze('-f'), 'the disk hangs again');
    $id = submit({ %$spec, prefix => 'first' });
    ok(wait_log('w1', qr/task-granted job=$id task=prepare/), 'before prepare');
    ok(silent(1.5, 20), 'the watchdog is starved');
    ok(freeze('-u'), 'the disk goes on');
    is_state(wait_job($id, 60), 'succeeded', 'the job ends well');
    ok(feeds(2), 'and the worker that has nothing to do feeds its watchdog');
    is(stop_one('w1'), 0, 'the worker ends in order');
    kill_one('keeper');
}

mkdir "$RUN/$_" for qw(disk disk/src back);
my $probe = run('unshare', '-m', 'sh', '-c', "truncate -s 16M $RUN/probe && mkfs.ext4 -q $RUN/probe && mount -o loop $RUN/probe $RUN/disk");
plan(skip_all => "no filesystem on a loop device here: $probe->{err}") if $probe->{rc};
unlink "$RUN/probe";

my $r = run_ok('convert', $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '--task-size', '1M', '-o', "$RUN/ref.gguf", '--quiet');
$want = sha256("$RUN/ref.gguf");
start_one('daemon');
ok(wait_daemon(), 'the daemon answers') or die('no daemon');

# ---- a source that cannot be read everywhere
ok(start_mounted(<<"END"), 'a worker sees a source on a disk of its own');
truncate -s 160M $RUN/image
mkfs.ext4 -q -b 4096 -O ^has_journal $RUN/image
mount -o loop $RUN/image $RUN/disk
mkdir $RUN/disk/src
find $RUN/src -type f ! -name '*.safetensors' -exec cp {} $RUN/disk/src ';'
sync -f $RUN/disk
cp $RUN/src/*.safetensors $RUN/disk/src
umount $RUN/disk
cp $RUN/image $RUN/image.good
mount -o loop,ro $RUN/image $RUN/disk
END
# The backing file ends a little behind the beginning of the shard that lies last; the small
# files lie before it.
my $size = -s "$RUN/image";
my @begins = sort { $a <=> $b } map { /^ *0: +\d+\.\. +\d+: +(\d+)\.\./mg }
    run('nsenter', '-t', $ALIVE{w1}{pid}, '-m', 'sh', '-c', "filefrag -v $RUN/disk/src/*.safetensors")->{out};
is(scalar @begins, 4, 'where its shards lie');
truncate "$RUN/image", $begins[-1] * 4096 + (4 << 20);
my $spec = demo_spec('read');
$spec->{source} = "$RUN/disk/src";
my $id = submit($spec, attempts => 1);
my $j = wait_job($id, 60);
is_state($j, 'failed', 'read EIO through io_uring: the job fails');
is($j->{code}, 7, 'with code 7');
like($j->{error}, qr{cannot read tensor '\S+' in '\Q$RUN\E/disk/src/\S+' at byte \d+: Input/output error.*sluice retry $id}, 'says where, and what to do');
cmp_ok($j->{done}, '>', 0, "$j->{done} tasks are kept");
cmp_ok($j->{quarantined}, '>', 0, "$j->{quarantined} are quarantined");
my @before = log_of('w1') =~ /task-done job=$id task=(\d+)/g;
# The disk's contents come back.
run_ok('repair', 'dd', "if=$RUN/image.good", "of=$RUN/image", 'bs=1M', 'conv=notrunc', 'status=none');
is(-s "$RUN/image", $size, 'all of it');
run_ok('retry', $SLUICE, 'retry', $id);
run_ok('ends well', $SLUICE, 'wait', $id);
my @all = log_of('w1') =~ /task-done job=$id task=(\d+)/g;
is_deeply([grep { substr($j->{map}, $_, 1) eq 'd' } @all[@before .. $#all]], [], 'nothing of what was kept is done again');
is(sha256("$OUT/read.gguf"), $want, 'the same file');
is(stop_one('w1'), 0, 'the worker ends in order');
unlink "$RUN/image", "$RUN/image.good", glob "$OUT/*";

# ---- an output whose disk takes writes and loses them
my $small = "mount -t tmpfs -o size=30m none $RUN/back";
ok(start_mounted(<<"END"), 'a worker writes to a disk that is smaller than it says');
$small
truncate -s 160M $RUN/back/image
mkfs.ext4 -q -b 4096 -O ^has_journal $RUN/back/image
mount -o loop,errors=continue $RUN/back/image $RUN/disk
END
$spec = demo_spec('lost');
$spec->{output} = "$RUN/disk";
$id = submit($spec, attempts => 2);
$j = wait_job($id, 120);
is_state($j, 'failed', 'fsync fails after writes that did not: the job fails');
like($j->{error}, qr{\Q$RUN\E/disk/\S+.*(?:Input/output error|No space left on device).*sluice retry $id}, 'says where, and what to do');
my $seen = "/proc/$ALIVE{w1}{pid}/root$RUN/disk";
ok(!-e "$seen/lost.gguf", 'no file has the final name');
run_ok('repair: room behind it', 'nsenter', '-t', $ALIVE{w1}{pid}, '-m', 'mount', '-o', 'remount,size=200m', "$RUN/back");
run_ok('retry', $SLUICE, 'retry', $id);
$r = run($SLUICE, 'wait', $id);
is($r->{rc}, 0, 'ends well') or diag($r->{err}, tail('w1'));
# Read from the disk, past what was cached on the way there.
run_ok('nothing of it is cached', 'dd', "of=$seen/lost.gguf", 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none');
is(-e "$seen/lost.gguf" ? sha256("$seen/lost.gguf") : '', $want, 'the same file');
is(stop_one('w1'), 0, 'the worker ends in order');

# ---- an output whose disk hangs: nothing fails, and the worker's watchdog is not fed
SKIP: {
    skip "no fsfreeze here: that a hung disk starves the worker's watchdog is not shown", 17
        if run('sh', '-c', 'command -v fsfreeze && command -v mountpoint')->{rc};
    unlink glob "$OUT/*";
    hung_disk();
}
is(stop_one('daemon'), 0, 'so does the daemon');

# ---- the daemon's own disk is full: what only asks is answered, and all goes on when there is room
start_one('daemon', env => { NOTIFY_SOCKET => $notify, WATCHDOG_USEC => 600_000 }, cmd => ['unshare', '-m', 'sh', '-c',
    "set -e\nmount -t tmpfs -o size=2m,mode=700 none $RUN/state\nexec \"\$@\"", 'sh', "$BUILD/sluiced"]);
ok(wait_daemon(), 'a daemon with a disk of its own') or die('no daemon');
unlink glob "$OUT/*";
my @workers = map { "w$_" } 1 .. 4;
start_one($_) for @workers;
ok(has_workers(@workers), 'workers');
$id = submit(demo_spec('room', task_bytes => 50_000));
until_job($id, 30, sub { $_[0]{done} });
isnt(run('sh', '-c', "cat /dev/zero >/proc/$ALIVE{daemon}{pid}/root$RUN/state/hog")->{rc}, 0, 'its disk is full');
ok(wait_log('daemon', qr/queue_failed: \S+queue: .*full \(free some room there\)/, 20), 'the daemon says so');
$r = run($SLUICE, 'hold', $id, '--timeout', 1);
ok($r->{rc} == 4 && $r->{err} =~ /no answer in 1\.0 s: the daemon's queue failed: .*free some room there\); what was asked waits for it$/,
    'a client that has no patience says what it heard') or diag($r->{err});
my @unanswered;
for (1 .. 4) {
    $r = run($SLUICE, @$_, '--timeout', 3), $r->{rc} && push @unanswered, "@$_: $r->{err}" for ['queue'], ['show', $id], ['workers'];
}
is_deeply(\@unanswered, [], 'it answers what only asks');
like(run($SLUICE, 'show', $id)->{out}, qr{^reason +the daemon's queue failed: \Q$RUN\E/state/queue: .*free some room there}m, 'and says why nothing goes on');
$r = run($SLUICE, 'hold', $id, '--timeout', 20);
is($r->{rc}, 9, 'what would change something is refused');
like($r->{err}, qr/free some room there\); nothing was changed/, 'with what to do');
ok(feeds(5), 'a restart makes no room: its watchdog is fed');
run_ok('room', 'nsenter', '-t', $ALIVE{daemon}{pid}, '-m', 'mount', '-o', 'remount,size=64m', "$RUN/state");
is_state(wait_job($id, 60), 'succeeded', 'with room the job goes on by itself');
is(sha256("$OUT/room.gguf"), $want, 'to the same file');
is(stop_one($_), 0, "$_ ends in order") for @workers, 'daemon';
diag(sprintf '%.1f s', time - $begin);
done_testing();
