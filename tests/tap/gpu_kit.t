# What is carried to a machine with a GPU: gpu_run.sh by its parts, on emulated GPUs; and the
# folder of `make gpu-kit`, which must start with nothing but a libc, from anywhere. That the
# parts work on a real card cannot be shown here.
use strict;
use warnings;
use SluiceTest;
use Test::More;

my $bin = scratch();
for (['gpu_check', 'emulated_check'], ['gpu_bench', 'emulated_bench'], ['gpu_cases', 'emulated_cases'], ['sluice', 'emulated_gpu'], ['make_checkpoint', 'make_checkpoint']) {
    symlink "$BUILD/tools/$_->[1]", "$bin/$_->[0]" or die $!;
}
@ENV{qw(GPU_BIN WEIGHTS SMALL BENCH)} = ($bin, 30000, 20000, '-n 600000 -t q4_k');
my @run = ('sh', "$TOP/tests/gpu/gpu_run.sh", '--results', "$bin/found", '--pack', "$bin/found.tar.gz");

my $r = run_ok('the parts', @run, '--list');
is_deeply([$r->{out} =~ /^(\w+):/mg], [qw(about golden cases small kernels convert worker random profile sanitizer)], 'most telling first');
{
    local $ENV{SLUICE_EMULATED} = 'devices=0';
    $r = run(@run);
    is($r->{rc}, 77, 'no GPU: exit 77');
    like($r->{out} . $r->{err}, qr/NOTHING WAS CHECKED: no GPU here, or CUDA_VISIBLE_DEVICES names none/, 'no GPU: said so');
    unlike($r->{out}, qr/^== golden/m, 'no GPU: no part begins');
    $ENV{SLUICE_EMULATED} = 'count=35';
    like(run(@run, 'golden')->{out}, qr/no NVIDIA driver here, or one older/, 'no driver: said so');
    $ENV{SLUICE_EMULATED} = 'count=999';
    like(run(@run, 'golden')->{out}, qr{CUDA does not start here: .*/dev/nvidia-uvm}, 'no nvidia-uvm: what to look at');
}
$r = run(@run, '--seconds', 12, qw(about golden kernels random));
is($r->{rc}, 75, 'little time: exit 75');
like($r->{err}, qr/the same call goes on with: kernels random/, 'little time: what is left');
like(slurp("$bin/found/summary.txt"), qr/^golden +well.*^kernels +left.*^random +left/ms, 'little time: and in a file');
like($r->{out}, qr/^golden +well/m, 'little time: what is done');
ok(-s "$bin/found/golden.txt" && -e "$bin/found/golden.done", 'and it is written down');
$r = run(@run, qw(about golden kernels random));
is($r->{rc}, 0, 'the next call: exit 0') or diag($r->{out}, $r->{err});
like($r->{out}, qr/^golden +done before/m, 'it does not do it twice');
$r = run(@run[0, 1], '--results', "$bin/packed", '--pack', "$bin/found.tar.gz", qw(about golden kernels random));
like($r->{out}, qr/^golden +done before.*^kernels +done before.*^random +done before/ms, 'nor elsewhere, from the packed findings');
is(slurp("$bin/packed/bench.md"), slurp("$bin/found/bench.md"), 'which are all there');
like(slurp("$bin/found/bench.md"), qr/^\| q4_k \| [\d.]+ \|/m, 'the table of rates');
run_ok('packed beside the findings', @run[0, 1], '--results', "$bin/beside", '--pack', "$bin/beside/all.tar.gz", '--again', 'golden') for 1, 2;
unlike(run_ok('which is there', 'tar', '-tzf', "$bin/beside/all.tar.gz")->{out}, qr/all\.tar/, 'and not in itself');
my @lines = slurp("$bin/found/random.lines") =~ /^(\w+ (?:plain|weighted) 30000 checksum [0-9a-f]{16} equal .*)$/mg;
is(scalar @lines, 37, 'a line for each kind of weights');

# Cut in the middle of the random weights: the lines that are there stand.
spit("$bin/found/random.lines", join "\n", @lines[0 .. 29], '');
unlink "$bin/found/random.done";
$r = run(@run, 'random');
like($r->{out}, qr/^7 kinds of 30000 weights to do/m, 'after a cut: only what is missing');
is($r->{rc}, 0, 'after a cut: exit 0');
is(scalar(() = slurp("$bin/found/random.lines") =~ / equal /g), 37, 'after a cut: all lines');

{
    local $ENV{SLUICE_EMULATED} = 'flip=30';
    $r = run(@run, '--again', 'small');
    is($r->{rc}, 1, 'one wrong bit: exit 1');
    like($r->{out}, qr/FAILED: \w+.*block \d+ of \w+ differs/, 'one wrong bit: where');
    like($r->{out}, qr/^small +FAILED/m, 'one wrong bit: which part');
    ok(!-e "$bin/found/small.done", 'one wrong bit: not done');
    is(scalar(() = slurp("$bin/found/small.lines") =~ / equal /g), 36, 'one wrong bit: all other types are checked');
    my ($wrong) = $r->{out} =~ /FAILED: (\w+)/;
    delete $ENV{SLUICE_EMULATED};
    local $ENV{BENCH} = "-n 600000 -t $wrong";
    $r = run(@run, '--again', 'kernels');
    is($r->{rc}, 1, 'a type that is wrong: exit 1');
    like($r->{out}, qr/^Not timed, since they are not right: $wrong $/m, 'a type that is wrong is not timed');
    unlike($r->{out}, qr/^\| $wrong\b.* \d/m, 'indeed');

    # The device is lost after some types: a new process goes on with the others.
    $ENV{SLUICE_EMULATED} = 'run=50';
    $r = run(@run, '--again', 'small');
    is($r->{rc}, 1, 'a lost device: exit 1');
    like($r->{out}, qr/^FAILED: (\w+).*lost to this process.*^\1 [^\n]*, equal,[^\n]* 0 to go/ms, 'a lost device: that type is taken last');
    is(scalar(() = slurp("$bin/found/small.lines") =~ / equal /g), 37, 'a lost device: the other types are checked all the same');
    $ENV{SLUICE_EMULATED} = 'run=1';
    is(run(@run, '--again', 'small')->{rc}, 1, 'lost in the first launch of each process: exit 1');
    is(scalar(() = slurp("$bin/found/small.lines") =~ / begun$/mg), 38, 'every type is begun, and the last process ends it');

    # A launch that does not end costs its limit.
    local $ENV{PATIENCE} = 1;
    $ENV{SLUICE_EMULATED} = 'hang=80';
    $r = run(@run, '--again', 'small');
    like($r->{out}, qr/^FAILED: \w+.*: the device does not end it$/m, 'a kernel that hangs: named');
    is($r->{rc}, 1, 'a kernel that hangs: exit 1');
    is(scalar(() = slurp("$bin/found/small.lines") =~ / equal /g), 37, 'a kernel that hangs: the other types are checked all the same');
}
# The instructions that rates are held against are those of the table.
{
    my ($text, %table, %bench) = slurp("$TOP/kernels/GPU.md");
    $table{"$1 " . ($2 ? 1 : 0)} = $3 while $text =~ /^\| (\w+)(, weighted)? \| \d+ (?:\| [\d.]+ ){8}\| (\d+) \|$/mg;
    for (split /\n/, slurp("$TOP/tests/gpu/gpu_bench.c")) {
        my ($type, @n) = /^ +\{SL_TYPE_(\w+), \{\d+, \d+\}, \{(\d+), (\d+)\}\},$/ or next;
        $n[$_] and $bench{lc($type) . " $_"} = $n[$_] for 0, 1;
    }
    is(scalar keys %table, 37, 'a prediction for each kind of weights');
    is_deeply(\%bench, \%table, 'gpu_bench has the same');
}

# Whole conversions, and a whole worker: every line of theirs, on little.
{
    local $ENV{CHECKPOINT} = '--layers 2 --hidden 256 --inter 256 --moe-inter 256 --experts 2 --groups 1 --groups-used 1 --used 1 --heads 2 --kv-heads 2';
    local $ENV{SLUICE_EMULATED} = 'memory=4000000000';
    $r = run_ok('cases, convert and worker', @run, qw(cases convert worker));
    is(scalar(() = $r->{out} =~ /^convert .*: the GPU's file is the processor's$/mg), 7, 'convert: every recipe');
    like($r->{out}, qr/^\[  PASSED  \] 1[2-9] test\(s\)\..*^cases +well/ms, 'cases: all of them');
    is(scalar(() = $r->{out} =~ /^\| (?:auto|cuda:0|cpu), \S.* \| [\d.]+ \| \d[\d.]* \| stats: convert /mg), 8, 'worker: every row');
    $r = run(@run, 'convert', 'worker');
    like($r->{out}, qr/^convert +done before.*^worker +done before/ms, 'and done');
    $ENV{SLUICE_EMULATED} = 'memory=4000000000,flip=2';
    like(run(@run, '--again', 'worker')->{out}, qr/^FAILED: auto, q8_0: other tensors than before\n.*^worker +FAILED/ms, 'worker: one wrong bit is found');

    # What fails keeps no other recipe from being tried; after two that do not end the rest is left out.
    $ENV{SLUICE_EMULATED} = 'run=3';
    is(scalar(() = run(@run, '--again', 'convert')->{out} =~ /device is lost to this process.*\nFAILED: convert /g), 7, 'convert: a lost device loses its own');
    $ENV{SLUICE_EMULATED} = 'hang=1';
    local $ENV{CONVERSION} = 1;
    $r = run(@run, 'convert');
    is(scalar(() = $r->{out} =~ /^FAILED: a conversion did not end in 1 s\nFAILED: convert /mg), 2, 'convert: two do not end');
    is(scalar(() = $r->{out} =~ /^convert .*: left out$/mg), 5, 'convert: the rest is left out');

    # A disk that is slow is no device that hangs; rows for which there is no time are the next call's.
    $ENV{SLUICE_EMULATED} = 'memory=4000000000';
    unlink "$bin/sluice";
    spit("$bin/sluice", "#!/bin/sh\ncase \$* in --version | *--device*) ;; *) sleep 2 ;; esac\nexec '$BUILD/tools/emulated_gpu' \"\$@\"\n");
    chmod 0755, "$bin/sluice";
    my $rows = qr/^\| (?:auto|cuda:0|cpu), \S.* \| [\d.]+ \| \d[\d.]* \| stats: convert /m;
    $r = run_ok('worker: a slow disk', @run[0 .. 3], '--seconds', 60, '--inside', 'worker');
    is(scalar(() = $r->{out} =~ /$rows/g), 8, 'worker: a slow disk has its time');
    $r = run(@run[0 .. 3], '--seconds', 6, '--inside', 'worker');
    like($r->{out}, qr/^\| cpu, q4_k_m \| left out: no time \|/m, 'worker: no time for a row');
    is($r->{rc}, 75, 'worker: then there is more to do');
    unlink "$bin/sluice";
    symlink "$BUILD/tools/emulated_gpu", "$bin/sluice" or die $!;
}

# A machine with sh, awk, tar and coreutils, and nothing else; no folder to write to but TMPDIR; no room.
{
    my ($few, $kit) = (scratch(), scratch());
    for my $tool (qw(sh awk tar basename cat cksum cp cut date df dirname du head mkdir mktemp mv nproc rm sha256sum sleep sort tail timeout touch tr uname wc)) {
        my ($there) = grep { -x } map { "$_/$tool" } split /:/, $ENV{PATH};
        symlink $there, "$few/$tool" or die "$tool: $!";
    }
    symlink readlink("$bin/$_"), "$kit/$_" or die $! for qw(gpu_check gpu_bench sluice make_checkpoint);
    spit("$kit/gpu-results", "no folder\n");
    local @ENV{qw(PATH TMPDIR GPU_BIN SLUICE_EMULATED)} = ($few, scratch(), $kit, 'memory=4000000000');
    my @few = ("$few/sh", "$TOP/tests/gpu/gpu_run.sh", '--pack', "$ENV{TMPDIR}/found.tar.gz");
    {
        local $ENV{CHECKPOINT} = '--layers 2 --hidden 256 --inter 256 --moe-inter 256 --experts 2 --groups 1 --groups-used 1 --used 1 --heads 2 --kv-heads 2';
        $r = run_ok('few programs', @few, qw(about golden kernels convert worker));
        is($r->{err}, '', 'few programs: none is missed');
        like($r->{out}, qr/^ok +cuda .*^convert +well.*^worker +well.*^findings: \Q$ENV{TMPDIR}\E\/gpu-results$/ms, 'few programs: all well, in TMPDIR');
        $ENV{SLUICE_EMULATED} .= ',flip=2';
        like(run(@few, '--again', 'worker')->{out}, qr/^FAILED: auto, q8_0: other tensors than before$/m, 'few programs: one wrong bit is found');
    }
    run_ok('packed', "$few/tar", '-tf', "$ENV{TMPDIR}/found.tar.gz");
    spit("$few/full", "#!/bin/sh\necho\necho 'none 2 1 900000 50% /'\n");
    chmod 0755, "$few/full";
    rename "$few/full", "$few/df" or die $!;
    like(run_ok('no room', @few, '--again', 'convert')->{out}, qr/^SKIPPED: \S+ has 900 MB free, and 1000 are needed.*^convert +SKIPPED/ms, 'no room: said');
    unlink "$few/awk";
    $r = run(@few);
    is($r->{rc}, 1, 'no awk: exit 1');
    like($r->{err}, qr/^gpu_run: no awk in PATH/, 'no awk: said');
}

# Programs of the CUDA toolkit that are there and do not work.
{
    local $ENV{PATH} = "$bin:$ENV{PATH}";
    my $tool = sub { spit("$bin/$_[0]", "#!/bin/sh\n$_[1]\n"); chmod 0755, "$bin/$_[0]" };
    $tool->('compute-sanitizer', 'case $2 in initcheck) echo "Device not supported"; exit 1 ;; esac');
    $tool->('ncu', 'echo "==ERROR== ERR_NVGPUCTRPERM - no permission"; exit 5');
    $r = run_ok('no counters for this user', @run, qw(profile sanitizer));
    like($r->{out}, qr/^==ERROR== ERR_NVGPUCTRPERM.*^SKIPPED: ncu counts nothing here.*^profile +SKIPPED/ms, 'said, and why');
    like($r->{out}, qr/racecheck: clean.*does not take this device.*^sanitizer +SKIPPED/ms, 'a sanitizer that does not take the device');
    $tool->('ncu', 'echo "==ERROR== Failed to initialize the profiler: LibraryNotLoaded"; echo "==ERROR== The application returned an error code (1)."; exit 1');
    like(run_ok('no profiler here', @run, 'profile')->{out}, qr/^SKIPPED: ncu counts nothing here/m, 'said, though the program ended with an error');
    $tool->('ncu', 'echo "==ERROR== The application returned an error code (1)."; exit 1');
    like(run(@run, 'profile')->{out}, qr/^profile +FAILED/m, 'a program that fails under ncu is no matter of counters');

    # Time is up under a sanitizer: types that ended are not looked at again; where it found something they are.
    unlink glob("$bin/found/*check.done");
    $tool->('compute-sanitizer', 'case $2 in racecheck) shift 4; "$@" -t q4_k; exec "$@" -T 0.0001 ;; esac');
    $r = run(@run, 'sanitizer');
    is($r->{rc}, 75, 'a sanitizer without time: exit 75');
    like($r->{out}, qr/^compute-sanitizer racecheck: clean so far, types are left$/m, 'and said');
    for (['exit 9', 1], ['', 0]) {
        my ($end, $code) = @$_;
        $tool->('compute-sanitizer', "case \$2 in racecheck) shift 4; \"\$\@\"; $end\nesac");
        is(run(@run, 'sanitizer')->{rc}, $code, "the next call: exit $code");
        like(slurp("$bin/found/racecheck.txt"), qr/^35 kinds of .* to do/m, 'for the types that are left');
    }
    unlink glob("$bin/found/sanitizer.done"), "$bin/found/initcheck.done";
    $tool->('compute-sanitizer', 'exit 0');
    $r = run(@run, 'sanitizer');
    like($r->{out}, qr/racecheck: clean, before.*initcheck: clean$/ms, 'what was clean is not done again');
    is($r->{rc}, 0, 'and all well');
}
is(run(@run, 'nonsense')->{rc}, 2, 'an unknown part: exit 2');
is(run("$bin/$_", '-t', 'mxfp4')->{rc}, 2, "$_ of a type that no GPU makes: exit 2") for qw(gpu_check gpu_bench);

# Programs that do not start with this machine's libc: the kit's is for them, and for nothing else here. A loader ends with 1
# where a program wants a newer libc, with 127 where a library is not there; sluice wants a newer one than gpu_check.
for (['gpu_check', 1], ['gpu_check', 127], ['sluice', 1], ['none', 0]) {
    my ($old, $code) = @$_;
    local $ENV{GPU_BIN} = scratch();
    mkdir "$ENV{GPU_BIN}/$_" or die $! for 'lib', 'lib/glibc';
    spit("$ENV{GPU_BIN}/lib/glibc/libc.so.6", "of another machine\n");
    my %is = (gpu_check => 'emulated_check', sluice => 'emulated_gpu');
    spit("$ENV{GPU_BIN}/$_", $_ eq $old ? "#!/bin/sh\nexit $code\n" : "#!/bin/sh\nexec '$BUILD/tools/$is{$_}' \"\$@\"\n") for keys %is;
    spit("$ENV{GPU_BIN}/lib/glibc/ld-kit", "#!/bin/sh\nshift 2; p=\$1; shift; case \$p in */gpu_check) exec '$BUILD/tools/emulated_check' \"\$@\" ;; esac\nexec '$BUILD/tools/emulated_gpu' \"\$@\"\n");
    chmod 0755, map { "$ENV{GPU_BIN}/$_" } keys %is, 'lib/glibc/ld-kit';
    my $by = $old eq 'none' ? 'its own' : "the kit's";
    $r = run_ok("$old ends with $code", @run[0, 1], qw(about golden));
    like($r->{out}, qr/golden vectors: \d+ compared.*^golden +well/ms, "$old ends with $code: and goes on");
    is($r->{out} =~ /^with the kit's own libc$/m ? "the kit's" : 'its own', $by, "$old ends with $code: by $by libc");
    next if $old ne 'gpu_check';
    # The driver's folder, too, where a profiler or a sanitizer starts them.
    local $ENV{PATH} = "$bin:$ENV{PATH}";
    for my $tool (['ncu', 'profile'], ['compute-sanitizer', 'sanitizer']) {
        spit("$bin/$tool->[0]", "#!/bin/sh\necho \"\$@\" >>'$bin/started'\n");
        chmod 0755, "$bin/$tool->[0]";
        local $ENV{LD_LIBRARY_PATH} = '/of/the/driver';
        run(@run[0, 1], $tool->[1]);
        like(slurp("$bin/started"), qr{ --library-path \Q$ENV{GPU_BIN}\E/lib:\Q$ENV{GPU_BIN}\E/lib/glibc:/of/the/driver }, "$tool->[0] finds the driver");
        unlink "$bin/started", "$bin/$tool->[0]";
    }
}

# ---- the folder itself
SKIP: {
    skip 'sanitized programs are not carried anywhere', 1 if $SANITIZED;
    delete @ENV{qw(GPU_BIN)};
    $r = run('make', '-C', $TOP, 'gpu-kit', "B=$BUILD");
    is($r->{rc}, 0, 'make gpu-kit') or diag($r->{out}, $r->{err}), last;
    my ($packed) = $r->{out} =~ /gpu-kit\.tar\.xz: (\d+) bytes/;
    cmp_ok($packed, '<', 16 << 20, 'its size');
    my $far = scratch() . '/elsewhere';
    mkdir $far or die $!;
    run_ok('unpacked', 'tar', '-C', $far, '--strip-components=1', '-xf', "$BUILD/gpu-kit.tar.xz");
    is(run('env', '-i', "$far/sluice", '--version')->{rc}, 0, 'sluice starts without any environment');
    for my $p (qw(sluice sluiced sluice-worker gpu_check gpu_bench gpu_cases make_checkpoint)) {
        my @missing = grep { !m{=> \Q$far\E/lib/|linux-vdso|/ld-linux|=> \S*/lib(?:c|m|pthread|dl|rt|resolv)\.so} } split /\n/, run('ldd', "$far/$p")->{out};
        is("@missing", '', "$p finds all but the libc beside itself");
    }
    is_deeply([grep { !-e "$far/lib/glibc/$_" } qw(libc.so.6 libm.so.6 libpthread.so.0 libdl.so.2 librt.so.1)], [], 'all of the libc that a driver wants');
    $r = run('env', '-i', 'PATH=/usr/bin:/bin', 'CUDA_VISIBLE_DEVICES=', 'sh', "$far/gpu_run.sh");
    is($r->{rc}, 77, 'gpu_run.sh there, without a GPU: exit 77');
    like($r->{out}, qr/SKIPPED, NOTHING WAS CHECKED: (?:no |this build has no CUDA)/, 'and why');

    # Nothing but a libc.
    skip 'only root can change the root folder', 1 if $>;
    my $root = scratch();
    mkdir "$root/$_" or die $! for qw(lib lib64 kit);
    run_ok('a root folder', 'sh', '-c', "cp -a '$far/.' '$root/kit' && cp '$far'/lib/glibc/lib* '$root/lib' && cp '$far'/lib/glibc/ld-* '$root/lib64'");
    # ($ORIGIN is read from /proc, which is not there.)
    my @in = ('env', 'LD_LIBRARY_PATH=/kit/lib', 'chroot', $root);
    $r = run(@in, '/kit/sluice', '--version');
    is($r->{rc}, 0, 'sluice with nothing but a libc') or diag($r->{err});
    is(run(@in, '/kit/gpu_check', '-l')->{rc}, 77, 'gpu_check too');
    # Not even that: by the kit's own loader.
    unlink glob("$root/lib/* $root/lib64/*");
    $r = run('chroot', $root, glob("$far/lib/glibc/ld-*") =~ s/^\Q$far\E/\/kit/r, '--library-path', '/kit/lib:/kit/lib/glibc', '/kit/sluice', '--version');
    is($r->{rc}, 0, 'with the libc that it brings along') or diag($r->{err});
}
done_testing();
