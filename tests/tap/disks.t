# Disks that fail for real, under the service and through io_uring: a filesystem
# on a loop device whose backing file loses its end (every read there is EIO), and
# one whose backing file has no room (writes succeed, fsync says EIO once and is
# well the next time). Takes root and a loop device.
use strict;
use warnings;
use SluiceService;
use SluiceTest;
use Test::More;
use Time::HiRes qw(time sleep);

plan(skip_all => 'a filesystem on a loop device takes root') if $>;
my $begin = time;
service_setup();

# A worker whose mount namespace has more than ours: $script mounts, then starts it.
sub start_mounted {
    my ($script, @args) = @_;
    start_one('w1', cmd => ['unshare', '-m', 'sh', '-c', "set -e\n$script\nexec \"\$@\"", 'sh', "$BUILD/sluice-worker",
        '--name', 'w1', '--threads', 1, '--mem', '128Mi', @args]);
    return wait_log('w1', qr/connected worker=w1/, 20);
}

mkdir "$RUN/$_" for qw(disk disk/src back);
my $probe = run('unshare', '-m', 'sh', '-c', "truncate -s 16M $RUN/probe && mkfs.ext4 -q $RUN/probe && mount -o loop $RUN/probe $RUN/disk");
plan(skip_all => "no filesystem on a loop device here: $probe->{err}") if $probe->{rc};
unlink "$RUN/probe";

my $r = run_ok('convert', $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '--task-size', '1M', '-o', "$RUN/ref.gguf", '--quiet');
my $want = sha256("$RUN/ref.gguf");
start_one('daemon');
ok(wait_daemon(), 'the daemon answers') or BAIL_OUT('no daemon');

# ---- a source that cannot be read everywhere
ok(start_mounted(<<"END"), 'a worker sees a source on a disk of its own');
truncate -s 160M $RUN/image
mkfs.ext4 -q -b 4096 -O ^has_journal $RUN/image
mount -o loop $RUN/image $RUN/disk
cp -r $RUN/src $RUN/disk
umount $RUN/disk
cp $RUN/image $RUN/image.good
mount -o loop,ro $RUN/image $RUN/disk
END
# The backing file ends a little behind the beginning of the shard that lies last.
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
is_deeply([grep { substr($j->{map}, $_, 1) eq 'd' } grep { $_ < 65536 } @all[@before .. $#all]], [], 'nothing of what was kept is done again');
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
is(-e "$seen/lost.gguf" ? sha256("$seen/lost.gguf") : '', $want, 'the same file');
is(stop_one('w1'), 0, 'the worker ends in order');
is(stop_one('daemon'), 0, 'so does the daemon');
diag(sprintf '%.1f s', time - $begin);
done_testing();
