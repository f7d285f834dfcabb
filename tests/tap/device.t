# GPUs: which one --device means, the whole conversion through an emulated device,
# and what becomes of it when the device fails. No GPU is needed.
use strict;
use warnings;
use ModelTest;
use SluiceTest;
use Test::More;

my $gpu = "$BUILD/tools/emulated_gpu";
my $imatrix = "$TINY/imatrix.legacy-layout.dat";

# Bytes: every kind of type, with and without an importance matrix, both layouts; tq2_0 is the processor's, but for its q4_k.
my @all = (['q4_k_m'], ['iq3_xxs'], ['q4_1', 1], ['iq1_m', 1], ['tq2_0', 1]);
for my $case ($QUICK ? @all[0, 2] : @all) {
    my ($recipe, $weights) = @$case;
    my @how = ('--recipe', $recipe, '--layout', 'legacy', $weights ? ('--imatrix', $imatrix) : ());
    my $dir = scratch();
    my $cpu = run($SLUICE, 'convert', $TINY, '-o', "$dir/cpu.gguf", @how, '--device', 'cpu');
  SKIP: {
        skip "$recipe: $cpu->{err}", 1 if $cpu->{rc} == 6 || $cpu->{rc} == 2;
        my $r = run($gpu, 'convert', $TINY, '-o', "$dir/gpu.gguf", @how, '--device', 'cuda:0');
        is($r->{rc} ? "exit $r->{rc}: $r->{err}" : sha256("$dir/gpu.gguf"), sha256("$dir/cpu.gguf"),
            "$recipe" . ($weights ? ' with an imatrix' : '') . ': the same file');
    }
    unlink glob "$dir/*";
}

# Norms that are stored less one are made on the processor; heads whose rows are paired, on the device.
for my $case (['MiniMax-M3', qw(f32 --arch minimax3 --hidden 64 --inter 64 --moe-inter 32 --head-dim 32 --heads 2 --rope 16 --shards 1)],
              ['Llama', qw(q4_k_m --arch llama --hidden 512 --inter 256 --vocab 512 --layers 2)]) {
    my ($name, $recipe, @form) = @$case;
    my $dir = scratch();
    my $model = checkpoint("$dir/model", @form);
    run_ok($name, $_->[0], 'convert', $model, '-o', @{ $_ }[1 .. $#$_], '--recipe', $recipe, '--quiet')
        for [$SLUICE, "$dir/cpu.gguf"], [$gpu, "$dir/gpu.gguf", '--device', 'cuda:0'];
    is(sha256("$dir/gpu.gguf"), sha256("$dir/cpu.gguf"), 'the same file');
}

my $one = scratch() . '/one.gguf';
run_ok('on the processor', $SLUICE, 'convert', $TINY, '-o', $one, '--recipe', 'q4_k_m');
my $sum = sha256($one);

# However it is spread, the file is the same.
for my $how (['--device', 'cuda:1'], ['--device', 'cuda:1,cuda:0'], ['--device', 'GPU-1'],
             ['--device', 'GPU-01111111-2222-3333-4444-555555555555'], ['--device', 'cuda:0', '--vram', '4Mi', '--mem', '64Mi'],
             ['--device', 'cuda:0', '--threads', '1', '--io', 'pread'], ['--device', 'cuda:0', '--task-size', '200K'],
             ['--device', 'auto', '--threads', '3', '--direct', 'on', '--mem', '64Mi']) {
    my $file = scratch() . '/one.gguf';
    my $r = run($gpu, 'convert', $TINY, '-o', $file, '--recipe', 'q4_k_m', @$how);
    is($r->{rc} ? "exit $r->{rc}: $r->{err}" : sha256($file), $sum, "@$how: the same file");
}
{
    local $ENV{SLUICE_EMULATED} = 'pin=1';
    my $file = scratch() . '/one.gguf';
    my $r = run_ok('slabs that cannot be pinned', $gpu, 'convert', $TINY, '-o', $file, '--recipe', 'q4_k_m', '--device', 'cuda:0', '--stats');
    like($r->{err}, qr/slabs not pinned: operation not supported/, 'slabs that cannot be pinned: said, and why');
    is(sha256($file), $sum, 'slabs that cannot be pinned: the same file');
}

# It really is the device that computes.
{
    my $file = scratch() . '/one.gguf';
    my $r = run($gpu, 'convert', $TINY, '-o', $file, '--recipe', 'q4_k_m', '--device', 'auto', '--stats');
    like($r->{err}, qr/cuda:0,cuda:1/, 'the devices are named');
    like($r->{err}, qr/; ready after [\d.]+ s, with \d+ MiB of each one's memory, slabs pinned$/m, 'and what they take');
    local $ENV{SLUICE_EMULATED} = 'devices=0';
    $r = run($gpu, 'convert', $TINY, '-o', scratch() . '/one.gguf', '--recipe', 'q4_k_m', '--device', 'auto', '--stats');
    unlike($r->{err}, qr/cuda:/, 'auto without a device: the processor');
}

# A GPU that the kernels do not run on.
{
    local $ENV{SLUICE_EMULATED} = 'old=0';
    my @cmd = ($gpu, 'convert', $TINY, '-o', scratch() . '/x.gguf', '--force', '--recipe', 'q4_k_m', '--stats', '--device');
    unlike(run_ok('an old GPU beside another', @cmd, 'auto')->{err}, qr/cuda:0/, 'auto leaves an old GPU out');
    my $r = run(@cmd, 'cuda:0');
    is($r->{rc}, 6, 'an old GPU by name: exit 6');
    like($r->{err}, qr/cuda:0 \(emulated GPU\): its compute capability is 7\.0, and 8\.0 or later is needed/, 'an old GPU: what is needed');
}

# GPUs and cores share one conversion: emulated GPUs are far behind any core, so cores help. Cores
# that are asked for by name take nothing from GPUs that are not.
for my $how (['auto'], ['auto', '--threads', 1, '--mem', '64Mi', '--direct', 'on'], ['cuda:1,cpu', '--task-size', '200K'], ['cuda:0,cuda:1'], ['cuda:0']) {
    my $file = scratch() . '/one.gguf';
    my $r = run($gpu, 'convert', $TINY, '-o', $file, '--recipe', 'q4_k_m', '--stats', '--device', @$how);
    is($r->{rc} ? "exit $r->{rc}: $r->{err}" : sha256($file), $sum, "@$how, shared: the same file");
    my ($gpus, $cores) = $r->{err} =~ /GPUs made (\d+) slabs of output, cores beside them (\d+)/;
    cmp_ok($gpus, '>', 0, "@$how: GPUs work");
    $how->[0] =~ /auto|cpu/ ? cmp_ok($cores, '>', 0, "@$how: cores help") : is($cores, 0, "@$how: without cores");
}
{
    my $dir = scratch();
    my @cmd = ($gpu, 'convert', $TINY, '-o', "$dir/x.gguf", '--recipe', 'q4_k_m', '--device', 'auto', '--task-size', '400K');
    my $r = do { local $ENV{SLUICE_EMULATED} = 'run=9'; run(@cmd) };
    is($r->{rc}, 10, 'a device that is lost beside cores: exit 10');
    run_ok('and again, with the device well', @cmd);
    is(sha256("$dir/x.gguf"), $sum, 'the same file');
}

# A device that fails: the task goes back, the reason is told, the next run goes on.
for my $case (['run=9', 10, qr/cuda:0 \(emulated GPU\): (?:starting work|converting): uncorrectable ECC error.*lost to this process/],
              ['wait=9', 10, qr/cuda:0 \(emulated GPU\): converting: uncorrectable ECC error/],
              ['wait=1', 10, qr/cuda:0 \(emulated GPU\): (?:opening it|uploading the grids): uncorrectable ECC error/],
              ['bad=9', 10, qr/GPU cuda:0 \(emulated GPU\): it reported weights that are not finite, and the processor finds none/],
              ['alloc=3', 10, qr/cuda:0 \(emulated GPU\): allocating its buffers: out of memory.*--vram/]) {
    my ($fault, $code, $words) = @$case;
    my $dir = scratch();
    my @cmd = ($gpu, 'convert', $TINY, '-o', "$dir/x.gguf", '--recipe', 'q4_k_m', '--device', 'cuda:0', '--threads', '1',
        '--task-size', '400K');
    my $r = do { local $ENV{SLUICE_EMULATED} = $fault; run(@cmd) };
    is($r->{rc}, $code, "$fault: exit code") or diag($r->{err});
    like($r->{err}, $words, "$fault: what and which device");
    ok(!-e "$dir/x.gguf", "$fault: no output under its name");
    run_ok("$fault: again, with the device well", @cmd);
    is(sha256("$dir/x.gguf"), $sum, "$fault: the same file");
}

# Damage in the source: the same words as from the processor.
{
    my ($from, $shard, $head);
    for (sort grep { /safetensors$/ } ls($TINY)) {
        my $bytes = slurp("$TINY/$_");
        ($shard, $head) = ($_, unpack 'Q<', $bytes);
        ($from) = substr($bytes, 8, $head) =~ /"F8_E4M3"[^{}]*?"data_offsets":\[(\d+),/ and last;
    }
    my $dir = copy_checkpoint($TINY, scratch() . '/damaged', $shard);
    my $bytes = slurp("$dir/$shard");
    my @cmd = ('convert', $dir, '--recipe', 'q4_k_m', '-o');
    substr($bytes, 8 + $head + $from + 5003, 1) = "\x7f";
    spit("$dir/$shard", $bytes);
    my $want = run($SLUICE, @cmd, scratch() . '/x.gguf');
    my $got  = run($gpu, @cmd, scratch() . '/x.gguf', '--device', 'cuda:0');
    is($want->{rc}, 7, 'a NaN code: exit 7');
    like($want->{err}, qr/row \d+, column \d+ is NaN/, 'a NaN code: its place');
    is($got->{rc}, 7, 'a NaN code on the device: exit 7');
    is($got->{err}, $want->{err}, 'a NaN code on the device: the same words');
}

# A number of F32 that BF16 has not.
{
    my ($dir, $o) = (scratch() . '/edge', 'model.layers.1.self_attn.o_proj.weight');
    checkpoint($dir, qw(--hidden 256 --inter 512 --heads 4 --kv-heads 4 --shards 1));
    $_->($dir) for tensor_edit("${o}_scale_inv", 0, pack 'f<', 3.4e38 / 448), tensor_edit($o, 5, "\x7e");
    for my $recipe (qw(f32 q6_k)) { # q6_k's scales tell nothing of it
        fails("$recipe on $_, rounded through BF16", 6, qr/too large for bf16; leave --round-through bf16 out$/, $gpu, 'convert', $dir, '-o', "$dir/x.gguf",
            '--recipe', $recipe, qw(--round-through bf16 --force --quiet --device), $_) for 'cpu', 'cuda:0';
    }
}

# What --device takes.
for my $case (['cuda:2', 6, qr/there are 2 CUDA devices/], ['cuda:2,cpu', 6, qr/there are 2 CUDA devices/], ['cuda:', 2, qr/cuda:N/], ['cuda:0x', 2, qr/number/], ['gpu', 2, qr/auto, cpu/],
              ['GPU-7', 6, qr/no GPU here has this UUID/], ['MIG-7', 6, qr/no GPU here has this UUID/], ['GPU-', 2, qr/expected/], ['cuda:0,cuda:0', 2, qr/twice/], ['cpu,cuda:0,cpu', 2, qr/twice/], ['', 2, qr/expected/]) {
    my ($device, $code, $words) = @$case;
    my $r = run($gpu, 'convert', $TINY, '-o', scratch() . '/x.gguf', '--recipe', 'q8_0', '--device', $device);
    is($r->{rc}, $code, "--device '$device': exit $code");
    like($r->{err}, $words, "--device '$device': what is wrong");
}
my $r = run($gpu, 'convert', $TINY, '-o', scratch() . '/x.gguf', '--recipe', 'q8_0', '--device', 'cuda:0', '--vram', '4Ki');
is($r->{rc}, 2, 'too little device memory: exit 2');
like($r->{err}, qr/device memory of .* is too little .* are needed/, 'too little device memory: what is needed');

# What `make gpu-check` and `make gpu-bench` run, on the emulated device: the golden vectors,
# random weights of every type; and one wrong bit is found.
{
    my $check = "$BUILD/tools/emulated_check";
    my $r = run_ok('gpu_check', $check, '-s', '-g', "$TOP/tests/golden");
    like($r->{out}, qr/golden vectors: [34]\d\d compared/, 'gpu_check: golden vectors');
    like($r->{out}, qr/^iq3_s +weighted +36864 weights: .* equal/m, 'gpu_check: random weights');
    local $ENV{SLUICE_EMULATED} = 'flip=3';
    $r = run($check, '-G', '-g', "$TOP/tests/golden");
    is($r->{rc}, 1, 'gpu_check: one wrong bit is found');
    like($r->{err}, qr/FAILED: .*golden vector \S+\/\S+ differs/, 'gpu_check: and named');
    $ENV{SLUICE_EMULATED} = 'flip=6';
    like(run($check, '-s', '-R', '-t', 'q4_k')->{err}, qr/FAILED: q4_k with weights: block 0 of F4 differs/, 'gpu_check: in F4 too');
    $ENV{SLUICE_EMULATED} = 'hang=2';
    $r = run($check, '-s', '-R', '-w', 1);
    is("$r->{rc} $r->{err}", "3 FAILED: q2_k: the device does not end it\n", 'gpu_check: a launch that does not end');
    $ENV{SLUICE_EMULATED} = 'devices=0';
    is(run($check)->{rc}, 77, 'gpu_check: no device');
    $ENV{SLUICE_EMULATED} = '';
    local $ENV{ASAN_OPTIONS} = ($ENV{ASAN_OPTIONS} // '') . ':detect_leaks=0'; # a benchmark leaves its buffers to the end
    $r = run_ok('gpu_bench', "$BUILD/tools/emulated_bench", '-n', '600000', '-t', 'q4_k');
    like($r->{out}, qr/^\| q4_k \| [\d.]+ \| [\d.]+ \| \d+ % \| [\d.]+ \| \d+ % \|/m, 'gpu_bench: a row') or diag($r->{out});
    like($r->{out}, qr/both at once/, 'gpu_bench: copies');
}

# The real program, where there is no device (or no CUDA in the build).
{
    local $ENV{CUDA_VISIBLE_DEVICES} = '';
    $r = run($SLUICE, 'convert', $TINY, '-o', scratch() . '/x.gguf', '--recipe', 'q8_0', '--device', 'cuda:0');
    is($r->{rc}, 6, 'no device: exit 6');
    like($r->{err}, qr/no CUDA|no GPU here|no NVIDIA driver/, 'no device: said so');
    my $named = run($SLUICE, 'convert', $TINY, '-o', scratch() . '/x.gguf', '--recipe', 'q8_0', '--device', 'GPU-1');
    is("$named->{rc} $named->{err}", "$r->{rc} " . $r->{err} =~ s/cuda:0/GPU-1/r, 'by a UUID: the same words');
    my $file = scratch() . '/x.gguf';
    run_ok('auto without a device', $SLUICE, 'convert', $TINY, '-o', $file, '--recipe', 'q4_k_m', '--device', 'auto');
    is(sha256($file), $sum, 'auto without a device: the same file');
}

done_testing();
