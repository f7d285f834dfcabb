# The output's folder goes away in the middle of a job: renamed, removed, replaced,
# or another filesystem mounted over it; or final names cannot be given. The job says so
# and what to do, that works, and nothing is written into whatever has the name now.
use strict;
use warnings;
use Errno qw(EIO);
use JSON::PP;
use KernelFaults;
use SluiceService;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep);

service_setup(daemon => { lease => '10s' }, model => [qw(--layers 2 --experts 6 --groups 2 --groups-used 1 --used 2)]);
faults_at("$RUN/faults");
my %under = (env => faults_env(), args => ['--io', 'pread']);
run_ok('convert', $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '--task-size', '1M', '-o', "$RUN/ref.gguf", '--quiet');
my $want = sha256("$RUN/ref.gguf");
my ($shard) = (sort glob "$RUN/src/*.safetensors")[1] =~ m{([^/]+)$};
start_one('daemon');
start_one('w1', %under);
ok(wait_daemon(), 'the daemon answers') or die('no daemon');

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
my @there;
sub unmounted {
    my ($name) = @_;
    for (1 .. 400) { # the worker lets go of it
        last if run(@there, 'umount', $OUT)->{rc} == 0;
        sleep 0.05;
    }
    isnt(run(@there, 'mountpoint', '-q', $OUT)->{rc}, 0, $name);
    return;
}
SKIP: {
    my @own = own_mounts($OUT) or skip 'no filesystem can be mounted here', 8;
    stop_one('w1');
    start_one('w1', before => \@own, %under);
    ok(wait_log('w1', qr/connected to.*connected to/s), 'another worker');
    my $pid = $ALIVE{w1}{pid};
    @there = ('nsenter', '-t', $pid, ($> ? ('-U', '--preserve-credentials') : ()), '-m', '-r');
    run_ok('mount', @there, 'mount', '-t', 'tmpfs', 'none', $OUT);
    says_so($id, 'retry', 'mounted over');
    is_deeply([ls("/proc/$pid/root$OUT")], [], 'nothing is made there');
    unmounted('umount');
}
my $log = length log_of('w1');
run_ok('put back: retry', $SLUICE, 'retry', $id);
ended_well($id, 'moved', 'goes on');
is_deeply([grep { substr($before->{map}, $_, 1) eq 'd' } substr(log_of('w1'), $log) =~ /task-done job=$id task=(\d+)/g], [],
    'nothing of what was kept is done again');

# ---- whoever hears that a job has ended can unmount its folders
SKIP: {
    skip 'no filesystem can be mounted here', 6 if !@there;
    for my $verb ('wait', 'cancel') {
        run_ok("$verb: mount", @there, 'mount', '-t', 'tmpfs', 'none', $OUT);
        my $at = submit(demo_spec('unmounted'), $verb eq 'cancel' ? (manual_stitch => JSON::PP::true) : ());
        until_job($at, 60, sub { $_[0]{done} });
        run_ok($verb, $SLUICE, $verb, $at);
        unmounted('and umount');
    }
}

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
for (1 .. 400) {
    ($e) = grep { ($_->{task} // 0) == 65540 } events($id, qr/quarantined/) and last;
    sleep 0.05;
}
like($e && $e->{text}, qr{^\Q$OUT\E: there is no such folder; if it was renamed, remove the \.partial files in it by hand$}, 'says what may be left');
mkdir $OUT;

# ---- one that may only be added to: no file there can be given its final name
SKIP: {
    skip 'no attributes here', 5 if run('chattr', '+a', $OUT)->{rc};
    my $f = wait_job(submit(demo_spec('added'), attempts => 1), 60);
    run_ok('it may be changed again', 'chattr', '-a', $OUT);
    is_state($f, 'failed', 'a folder that may only be added to');
    like($f->{error}, qr{^\Q$OUT\E is immutable, as 'lsattr -d' shows: 'chattr -i -a' by root ends that}, 'says what to do');
    is($f->{done}, 0, 'before any work');
    is_deeply([ls($OUT)], [], 'nothing was begun');
}

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

# ---- the file is cut short before it is checked
$again = submit(demo_spec('cut'), manual_stitch => JSON::PP::true);
is_state(until_job($again, 60, sub { $_[0]{state} eq 'stitching' }), 'stitching', 'cut: every task is done');
truncate "$OUT/cut.gguf.partial", 5_000_000 or die $!;
run_ok('stitch', $SLUICE, 'stitch', $again);
ended_well($again, 'cut', 'what is missing is made again');

# ---- a byte between two tensors, which no task writes, is damaged before it is checked
my ($bias) = grep { $_->[2] % 32 } where("$RUN/ref.gguf");
$again = submit(demo_spec('gap'), manual_stitch => JSON::PP::true);
is_state(until_job($again, 60, sub { $_[0]{state} eq 'stitching' }), 'stitching', 'gap: every task is done');
flip_byte("$OUT/gap.gguf.partial", $bias->[1] + $bias->[2]);
run_ok('stitch', $SLUICE, 'stitch', $again);
ended_well($again, 'gap', 'padding is written anew');

# ---- publication that cannot end: the set is complete, and something has the third name
my $split = sub { my ($prefix, %more) = @_; return demo_spec($prefix, split_max_bytes => 4_000_000, %more) };
run_ok('convert in parts', $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '--task-size', '1M', '--split-max-size', '4M', '-o', "$RUN/parts/", '--quiet');
my ($model) = map { /^(.*)-00003-of-/ } ls("$RUN/parts");
my %part = map { s/^\Q$model\E//r => sha256("$RUN/parts/$_") } grep { /gguf$/ } ls("$RUN/parts");
my ($third) = grep { /^-00003/ } keys %part;

# Every task is done, the folder is in the way of the third name, and publication has failed.
sub not_published {
    my ($prefix, %more) = @_;
    my $at = submit($split->($prefix, %more), manual_stitch => JSON::PP::true);
    is_state(until_job($at, 60, sub { $_[0]{state} eq 'stitching' }), 'stitching', "$prefix: every task is done");
    mkdir "$OUT/$prefix$third" or die $!;
    run_ok('stitch', $SLUICE, 'stitch', $at);
    my $f = wait_job($at, 60);
    is_state($f, 'failed', 'a folder has a final name: the job fails');
    is($f->{code}, 13, 'as something that is in the way');
    is($f->{error}, "$OUT/$prefix$third: a folder has the name of the finished file; move it away, and 'sluice retry $at' goes on", 'and says what to do');
    is_deeply([grep { /gguf$|xxh64$/ } ls($OUT)], ["$prefix$third"], 'nothing has its final name') if !%more;
    return $at;
}

# Another plan of that name, with nothing in the way: what is finished there is not its to remove.
sub other_plan {
    my ($prefix) = @_;
    my @before = ls($OUT);
    rmdir "$OUT/$prefix$third" or die $!;
    my $f = wait_job(submit(demo_spec($prefix)), 60);
    is_state($f, 'failed', 'another plan of that name fails');
    is($f->{error}, "$OUT/$prefix: unfinished work of another job is there; finish it, cancel it with --discard, or use --force", 'and says why');
    mkdir "$OUT/$prefix$third" or die $!;
    is_deeply([ls($OUT)], \@before, 'what is finished stays');
    return;
}

# As a disk leaves it that became read-only in the middle: two parts have their names.
sub half_published {
    my ($prefix) = @_;
    for my $n (1, 2) {
        rename $_, s/\.partial$//r or die $! for glob sprintf '%s/%s-%05d-of-*.partial', $OUT, $prefix, $n;
    }
    return;
}

sub discarded {
    my ($at, $name, @left) = @_;
    run_ok('discard', $SLUICE, 'cancel', '--discard', $at);
    for (1 .. 400) {
        last if !grep { /\.partial$|sluice-job/ } ls($OUT);
        sleep 0.05;
    }
    is_deeply([ls($OUT)], [sort @left], $name);
    return;
}

sub whole_set {
    my ($at, $prefix, $name) = @_;
    is_state(wait_job($at, 60), 'succeeded', $name);
    is_deeply({ map { my $f = $_; s/^\Q$prefix\E//r => sha256("$OUT/$f") } grep { /gguf$/ } ls($OUT) }, \%part, 'the same files as convert');
    is_deeply([grep { !/gguf(?:\.xxh64)?$/ } ls($OUT)], [], 'nothing else is left');
    is(scalar(grep { /xxh64$/ } ls($OUT)), scalar(keys %part), 'each with its manifest');
    unlink glob "$OUT/*";
    return;
}
$id = not_published('half');
other_plan('half');
half_published('half');
$log = length log_of('w1');
run_ok('retry, the folder still there', $SLUICE, 'retry', $id);
is_state(wait_job($id, 60), 'failed', 'fails again');
rmdir "$OUT/half$third" or die $!;
run_ok('retry', $SLUICE, 'retry', $id);
whole_set($id, 'half', 'goes on');
unlike(substr(log_of('w1'), $log), qr/task-granted job=$id task=(?!publish)/, 'with what was missing: names');

# A part that goes in between is made again, and it alone.
$id = not_published('torn');
half_published('torn');
rmdir "$OUT/torn$third" or die $!;
unlink glob "$OUT/torn-00004-of-*.partial";
$log = length log_of('w1');
run_ok('retry without a part', $SLUICE, 'retry', $id);
my $n = wait_job($id, 60)->{tasks};
whole_set($id, 'torn', 'it is made again');
my @redone = substr(log_of('w1'), $log) =~ /task-done job=$id task=(\d+)\b/g;
cmp_ok(scalar @redone, '<', $n / 2, scalar(@redone) . " of $n tasks");
cmp_ok(scalar @redone, '>', 0, 'were done again');

# Given up: no part keeps its final name. A file that is somebody else's stays.
$id = not_published('gone');
half_published('gone');
rmdir "$OUT/gone$third" or die $!;
spit("$OUT/gone$third", 'mine');
run_ok('retry, a file there', $SLUICE, 'retry', $id);
like(wait_job($id, 60)->{error}, qr{^\Q$OUT/gone$third\E: a file that is not this job's has the name}, "somebody's file is not replaced");
discarded($id, 'discarded: all but that file', "gone$third");
unlink "$OUT/gone$third";

# With --force the new parts go as well: what they replaced is lost, but no set is half of each.
my ($fourth) = grep { /^-00004/ } keys %part;
spit("$OUT/forced$_", 'former') for grep { /^-0000[14]/ } keys %part;
$id = not_published('forced', force => JSON::PP::true);
half_published('forced');
discarded($id, 'discarded with --force: all but what was not replaced', "forced$third", "forced$fourth");
rmdir "$OUT/forced$third" or die $!;
unlink "$OUT/forced$fourth";

# A set that is complete under its final names is nobody's unfinished work.
for my $force ([], [force => JSON::PP::true]) {
    $id = not_published('whole', @$force);
    rmdir "$OUT/whole$third" or die $!;
    rename $_, s/\.partial$//r or die $! for glob "$OUT/whole-*.partial";
    discarded($id, 'discarded: a complete set stays', map { ("whole$_", "whole$_.xxh64") } keys %part);
    is_deeply({ map { my $f = $_; s/^whole//r => sha256("$OUT/$f") } grep { /gguf$/ } ls($OUT) }, \%part, 'whole');
    unlink glob "$OUT/*";
}
for my $name ('late.sluice-journal', map { ("late$third$_", "late$third.xxh64$_") } '', '.partial') {
    mkdir "$OUT/$name" or die $!;
    fails("convert --force says before it begins that a folder has a name: $name", 13, qr{\Q$OUT/$name\E: a folder has the name of the (?:output(?: while it is unfinished)?|file that keeps what is done); move it away or choose},
        $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '--task-size', '1M', '--split-max-size', '4M', '--force', '-o', "$OUT/late.gguf");
    is_deeply([ls($OUT)], [$name], 'and leaves nothing');
    rmdir "$OUT/$name";
}

symlink "$RUN/elsewhere", "$OUT/late.sluice-journal" or die $!;
fails('nor follows a link', 13, qr{late\.sluice-journal: a link has the name of the file that keeps what is done}, $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m',
    '-o', "$OUT/late.gguf");
ok(!-e "$RUN/elsewhere", 'and makes nothing there');
unlink "$OUT/late.sluice-journal";

# ---- more parts than files that a login shell lets one open: the system's own limit counts
stop_one('w1');
start_one('w1', before => ['prlimit', '--nofile=40:1024'], %under);
$id = submit(demo_spec('many', split_max_bytes => 700_000), attempts => 1);
is_state($j = wait_job($id, 60), 'succeeded', 'a soft limit of 40 open files: the job succeeds') or diag($j->{error});
cmp_ok(scalar(grep { /gguf$/ } ls($OUT)), '>', 20, 'in more than 20 parts, all open at once');
unlink glob "$OUT/*";

# ---- a worker whose machine lacks the folder, for it was mounted after the worker's start or is below none of
# its roots: another one does the job
stop_one('w1');
my $host = (POSIX::uname())[1];
mkdir $_ or die $! for "$RUN/late", "$RUN/elsewhere";
for my $lacks (['another root', "$RUN/elsewhere", qr{^\Q$OUT\E: lies outside the folders allowed here .*, on \Q$host\E$}],
               ['a root that was replaced', "$RUN/late", qr{^\Q$RUN\E/late/out: not found, for the root \Q$RUN\E/late is another folder now .*restart the program$}],
               ['no folder', $RUN, qr{^\Q$RUN\E/late/out: no such folder on \Q$host\E; create it, or mount it there$}]) {
    my ($name, $root, $says) = @$lacks;
    start_one('w2', args => ['--root', $root]);
    has_workers('w2') or die('no worker');
    my $there = $root eq "$RUN/elsewhere" ? $OUT : "$RUN/late/out";
    if ($root eq "$RUN/late") {
        rename "$RUN/late", "$RUN/gone" or die $!;
        mkdir "$RUN/late" or die $!;
    }
    mkdir $there;
    my $id = submit({ %{ demo_spec('lacks') }, output => $there }, hold => JSON::PP::true);
    rmdir $there if $root eq $RUN;
    run_ok('release', $SLUICE, 'release', $id);
    my $j = until_job($id, 20, sub { @{ $_[0]{failures} } > 0 });
    like($j->{failures}[0]{text}, $says, "$name: the worker says so");
    is($j->{state}, 'running', 'and the job has not ended');
    mkdir $there;
    start_one('w1', %under);
    is_state(wait_job($id, 60), 'succeeded', 'another worker does it');
    is(sha256("$there/lacks.gguf"), $want, 'the same file');
    stop_one($_) for qw(w1 w2);
    unlink glob "$there/*";
}
start_one('w1', %under);

# Beside one that has it, such a worker costs no task an attempt, and fails once.
start_one('w2', args => ['--root', "$RUN/elsewhere"]);
has_workers(qw(w1 w2)) or die('no workers');
$id = submit(demo_spec('beside'), attempts => 1);
$j = wait_job($id, 60);
is_state($j, 'succeeded', 'a job beside a worker that lacks its folder, with one attempt for each task');
cmp_ok(scalar @{ $j->{failures} }, '<=', 1, 'which got one of them at most');
stop_one('w2');
unlink glob "$OUT/*";
start_one('w2', args => ['--root', $OUT]);
has_workers(qw(w1 w2)) or die('no workers');
$id = submit(demo_spec('beside'), attempts => 1);
is_state(wait_job($id, 60), 'succeeded', 'nor does one that lacks its source');
stop_one('w2');
unlink glob "$OUT/*";

# What failed of the discard of a job, when that is known.
sub discard_failed {
    my ($id) = @_;
    for (1 .. 400) {
        my ($failed) = grep { ($_->{task} // 0) == 65540 } events($id, qr/task_failed|quarantined/);
        return $failed if $failed;
        sleep 0.05;
    }
    return { kind => 'none', text => '' };
}
sub is_emptied {
    my ($there, $name) = @_;
    for (1 .. 400) {
        my @left = ls($there) or last;
        sleep 0.05;
    }
    is_deeply([ls($there)], [], $name);
}

# Nor are unfinished files left for it.
for my $root ("$RUN/elsewhere", "$RUN/late") {
    my $there = $root eq "$RUN/late" ? "$root/out" : $OUT;
    my $id = submit({ %{ demo_spec('lacks') }, output => $there }, manual_stitch => JSON::PP::true);
    is_state(until_job($id, 60, sub { $_[0]{state} eq 'stitching' }), 'stitching', 'all but the stitch');
    stop_one('w1');
    start_one('w2', args => ['--root', $root]);
    has_workers('w2') or die('no worker');
    rename $there, "$there.away" or die $! if $root eq "$RUN/late";
    run_ok('cancel --discard', $SLUICE, 'cancel', '--discard', $id);
    is(discard_failed($id)->{kind}, 'task_failed', 'the worker cannot remove them');
    rename "$there.away", $there or die $! if $root eq "$RUN/late";
    start_one('w1', %under);
    is_emptied($there, 'another one does');
    stop_one('w2');
}
# Nor those of a prepare that did not end.
fault(delay_ms => 200, path => 'begun-0');
$id = submit(demo_spec('begun', split_max_bytes => 10_000_000));
for (1 .. 400) {
    last if glob "$OUT/begun-0*.partial";
    sleep 0.05;
}
kill_one('w1');
no_fault();
isnt(scalar(ls($OUT)), 0, 'a prepare that was killed leaves files');
start_one('w2', args => ['--root', "$RUN/elsewhere"]);
has_workers('w2') or die('no worker');
run_ok('cancel --discard', $SLUICE, 'cancel', '--discard', $id);
like(discard_failed($id)->{text}, qr{^\Q$OUT\E: lies outside .*the \.partial files of 'begun' in \Q$OUT\E must be removed by hand$}, 'the worker says so');
start_one('w1', %under);
is_emptied($OUT, 'which the worker that lacks the folder leaves to another one');
stop_one('w2');

# Nobody has the folder: it is given up, which the job tells, and asked for again.
$id = submit(demo_spec('given-up'), manual_stitch => JSON::PP::true, attempts => 2);
is_state(until_job($id, 60, sub { $_[0]{state} eq 'stitching' }), 'stitching', 'all but the stitch');
stop_one('w1');
start_one('w2', args => ['--root', "$RUN/elsewhere"]);
has_workers('w2') or die('no worker');
run_ok('cancel --discard', $SLUICE, 'cancel', '--discard', $id);
$j = until_job($id, 20, sub { $_[0]{quarantined} });
like($j->{error}, qr{^cancelled by \S+; its unfinished files are still there: \Q$OUT\E: lies outside .* \('sluice cancel --discard $id' tries again\)$}, 'history tells that files are left');
like(run($SLUICE, 'history', '-o', 'id,reason')->{out}, qr/^ *$id +cancelled by .*; its unfinished files are still there: /m, 'as its reason');
start_one('w1', %under);
has_workers(qw(w1 w2)) or die('no workers');
run_ok('again', $SLUICE, 'cancel', '--discard', $id);
is_emptied($OUT, 'with a worker that has it');
like(job($id)->{error}, qr/^cancelled by \S+$/, 'nothing is left, and it says so');
stop_one('w2');

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
like($j->{error}, qr{\Q$shard\E: lies outside the folders allowed here \(--root of sluiced}, 'and says so');
done_testing();
