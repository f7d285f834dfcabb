# Weights in packed integers with zero points, of 2, 4 and 8 bits, in columns of any order, along rows and as GPTQ and AWQ have them: tensors against
# numpy and llama-quantize; on every way that reads a source; and what is refused.
use strict;
use warnings;
use JSON::PP ();
use ModelTest;
use SluiceService;
use SluiceTest;
use Test::More;

need_python();
my %source = (
    llama    => checkpoint("$dir/llama", qw(--arch llama --scales none --layers 2 --hidden 256 --inter 512 --heads 4 --kv-heads 2)),
    moe      => checkpoint("$dir/moe", qw(--arch qwen3moe --scales none --layers 2 --hidden 256 --inter 256 --moe-inter 256 --experts 4 --used 2 --heads 4
        --kv-heads 2 --head-dim 64)),
    deepseek => checkpoint("$dir/deepseek", qw(--scales none --layers 2 --dense 1 --hidden 256 --inter 512 --moe-inter 256 --experts 4 --used 2
        --groups 1 --groups-used 1 --q-lora 128 --kv-lora 128 --heads 4 --kv-heads 4)),
);
my @made = (
    [qw(llama ct-w4-asym)], [qw(llama ct-w8-asym-rows)], [qw(moe ct-w4-order)], [qw(moe ct-w8)], [qw(deepseek ct-w4-asym)], [qw(deepseek ct-w4-rows)],
    [qw(llama gptq-8-v2)], [qw(llama gptq-2)], [qw(moe gptq-2-act-v2)], [qw(deepseek gptq-2)], [qw(moe gptq-4-act)], [qw(deepseek gptq-4)],
    [qw(llama awq)], [qw(moe awq)], [qw(deepseek awq)],
);
my %wide = ('ct-w4-rows' => 4); # bytes of a scale where they are not BF16 or F16
for (@made) {
    my ($model, $form) = @$_;
    my ($ck, $file) = ("$dir/$model-$form", "$dir/$model-$form.gguf");
    run_ok("$model in $form", python('packed.py', 'make', $source{$model}, $ck, $form));
    converted($ck, "$model-$form", qw(--recipe f32 --quiet));
    my $r = run(python('packed.py', 'compare', $ck, $file));
    is($r->{out}, "equal\n", 'every bit of the tensors') or diag($r->{err});
    run_ok('verify', $SLUICE, 'verify', $file, '--source', $ck, '--sample', '100%');
    next if $wide{$form};
    my ($alone, $there) = map { plan_of($_)->{source_bytes} } "$ck/config.json", $ck;
    is($alone, $there, 'config.json alone: the bytes that are there');
}

# ---- other ways to the source: little memory, a GPU beside, a recipe by size, the service
my $size = 900_000;
sub lines_of { return [grep { !/^#/ } split /\n/, slurp($_[0])] }
for my $form (qw(ct-w4-order gptq-2-act-v2 gptq-4-act awq)) {
    my ($ck, $f32) = ("$dir/moe-$form", "$dir/moe-$form.gguf");
    like(run($SLUICE, 'inspect', $ck)->{out}, qr/^packed [24]-bit integers: groups of 64$/m, "$form: inspect");
    converted($ck, "little-$form", qw(--recipe q4_k_m --mem 64M --quiet));
    my $gpu = run_ok('beside a GPU, which leaves it to the processor', "$BUILD/tools/emulated_gpu", 'convert', $ck, '-o', "$dir/gpu-$form.gguf",
        qw(--recipe q4_k_m --device cuda:0 -q));
    is_deeply(hashes("$dir/gpu-$form.gguf"), hashes("$dir/little-$form.gguf"), 'the same tensors');
    run_ok('plan --target-size', $SLUICE, 'plan', $ck, '--target-size', $size, '--write-recipe', "$dir/by-size-$form.recipe");
    run_ok('the same of its values in F32', $SLUICE, 'plan', $f32, '--target-size', $size, '--write-recipe', "$dir/by-size-f32-$form.recipe");
    is_deeply(lines_of("$dir/by-size-$form.recipe"), lines_of("$dir/by-size-f32-$form.recipe"), 'measured alike');
    SKIP: {
        skip_without_llama(3);
        as_llama_quantize("$dir/little-$form.gguf", $f32, 'Q4_K_M');
        make_text("$dir/little-$form.gguf");
    }
}
service_setup(source => '-');
run('cp', '-r', "$dir/moe-gptq-4-act", "$RUN/gptq");
start_one('daemon');
wait_daemon();
start_one('worker', cmd => ["$BUILD/sluice-worker", '--mem', '64Mi']);
run_ok('a job', $SLUICE, 'submit', "$RUN/gptq", '-r', 'q4_k_m', '-o', "$OUT/gptq.gguf", '--wait');
is_deeply(hashes("$OUT/gptq.gguf"), hashes("$dir/little-gptq-4-act.gguf"), 'the same tensors');

# ---- what is refused
my $ck = "$dir/moe-ct-w4-order";
my $down = 'model.layers.1.mlp.experts.2.down_proj.weight';
for (["\4\0\0\0", 4], ["\xff\xff\xff\xff", -1]) {
    my ($bytes, $group) = @$_;
    refused($ck, "a group $group", 7, qr/tensor '\Q$down\E_g_idx' in '.*': column 9 is of group $group, expected 0 to 3: the source is damaged/,
        tensor_edit("${down}_g_idx", 4 * 9, $bytes), 'convert');
}
{
    my ($bad, $file) = (scratch() . '/m', "$dir/moe-ct-w4-order.gguf");
    copy_checkpoint($ck, $bad, grep { /safetensors/ } ls($ck));
    tensor_edit("${down}_zero_point", 5, "\x5a")->($bad);
    my $r = run($SLUICE, 'verify', $file, '--source', $bad, '--sample', '100%');
    ok($r->{rc} == 8 && $r->{out} =~ /^FAIL.*ffn_down_exps\.weight/m, 'another zero point is noticed by verify') or diag($r->{out});
    is(run(python('packed.py', 'compare', $bad, $file))->{out}, "blk.1.ffn_down_exps.weight: bytes differ (F32)\n", 'and by the comparison');
    tensor_edit("${down}_g_idx", 0, "\xff\xff\xff\x7f")->($bad);
    fails('a group that is none, by plan --target-size', 7, qr/column 0 is of group 2147483647, expected 0 to 3/, $SLUICE, 'plan', $bad, '--target-size', $size);
    fails('and by verify', 7, qr/column 0 is of group 2147483647, expected 0 to 3/, $SLUICE, 'verify', $file, '--source', $bad, '--sample', '100%');
}
refused($ck, 'zero points that are not there', 7, qr/packed tensor '.*_packed' has no '.*_zero_point'; is the download complete\?/, sub {
    header_edit(sub { s/\Q$down\E_zero_point/y.unknown/ or die })->(@_);
});
refused($ck, 'an order that is not there', 7, qr/has no '\Q$down\E_g_idx'/, header_edit(sub { s/\Q$down\E_g_idx/y.unknown/ or die }));
refused($ck, 'zero points of another shape', 7, qr/'\Q$down\E_zero_point' is I32 of shape \[64, 2\]: expected I32 of \[32, 4\]/,
    header_edit(sub { s/(\Q$down\E_zero_point": \{"dtype": "I32", "shape": )\[32, 4\]/$1\[64, 2]/ or die }));
refused($ck, '3 bits', 6, qr/the weights are packed with num_bits 3 instead of 4 or 8, and only integers of 4 or 8 bits in groups of a row, or rows are supported/,
    config_edit(sub { $_[0]{quantization_config}{config_groups}{group_0}{weights}{num_bits} = 3 }));

# ---- GPTQ's
my $gptq = "$dir/moe-gptq-4-act";
($down) = 'model.layers.1.mlp.experts.2.down_proj';
refused($gptq, 'GPTQ: a group -1', 7, qr/tensor '\Q$down\E\.g_idx' in '.*': column 9 is of group -1, expected 0 to 3: the source is damaged/,
    tensor_edit("$down.g_idx", 4 * 9, "\xff" x 4), 'convert');
for ('scales', 'qzeros', 'g_idx') {
    my $part = $_;
    refused($gptq, "GPTQ: no $part", 7, qr/packed tensor '\Q$down\E\.qweight' has no '\Q$down\E\.$part'; is the download complete\?/,
        header_edit(sub { s/\Q$down\E\.$part/y.unknown/ or die }));
}
refused($gptq, 'GPTQ: zero points of another shape', 7, qr/'\Q$down\E\.qzeros' is I32 of shape \[32, 4\]: expected I32 of \[4, 32\]/,
    header_edit(sub { s/(\Q$down\E\.qzeros": \{"dtype": "I32", "shape": )\[4, 32\]/$1\[32, 4]/ or die }));
refused($gptq, 'GPTQ: scales of another shape', 7, qr/scale '\Q$down\E\.scales' of shape \[8, 128\] does not fit '.*' of shape \[256, 256\]: expected \[n, 256\]/,
    header_edit(sub { s/(\Q$down\E\.scales": \{"dtype": "BF16", "shape": )\[4, 256\]/$1\[8, 128]/ or die }));
refused($gptq, 'GPTQ: weights of another type', 7, qr/'\Q$down\E\.qweight' is no matrix of GPTQ's 4-bit integers: expected I32 of two dimensions, of which 8 divides the second$/m,
    header_edit(sub { s/(\Q$down\E\.qweight": \{"dtype": )"I32"/$1"F32"/ or die }));
refused($gptq, 'GPTQ: layers of other bits', 6, qr/'.*\.g_idx' has 256 entries, and '.*\.qweight' 128 columns of 8 bits, as config\.json says: layers of other bits/,
    config_edit(sub { $_[0]{quantization_config}{bits} = 8 }));
for ([bits => 3, qr/bits 3 instead of 2, 4 or 8/], [checkpoint_format => 'marlin', qr/checkpoint_format 'marlin' instead of 'gptq' or 'gptq_v2'/],
    [pack_dtype => 'int64', qr/pack_dtype 'int64' instead of 'int32'/]) {
    my ($entry, $v, $why) = @$_;
    refused($gptq, "GPTQ: $entry $v", 6, qr/the weights are packed by quant_method 'gptq' with $why, which is not supported: give an FP8 or BF16 checkpoint/,
        config_edit(sub { $_[0]{quantization_config}{$entry} = $v }));
}
{
    my $bad = scratch() . '/m'; # zero points of the second format are other weights
    copy_checkpoint($gptq, $bad);
    config_edit(sub { $_[0]{quantization_config}{checkpoint_format} = 'gptq_v2' })->($bad);
    my $r = run($SLUICE, 'verify', "$dir/moe-gptq-4-act.gguf", '--source', $bad, '--sample', '100%');
    ok($r->{rc} == 8 && $r->{out} =~ /^FAIL/m, 'verify notices the other format') or diag($r->{out});
    isnt(plan_of($bad)->{fingerprint}, plan_of($gptq)->{fingerprint}, 'and a plan is another');
}

# ---- AWQ's
my $awq = "$dir/moe-awq";
for ('scales', 'qzeros') {
    my $part = $_;
    refused($awq, "AWQ: no $part", 7, qr/packed tensor '\Q$down\E\.qweight' has no '\Q$down\E\.$part'; is the download complete\?/,
        header_edit(sub { s/\Q$down\E\.$part/y.unknown/ or die }));
}
refused($awq, 'AWQ: weights of another type', 7, qr/'\Q$down\E\.qweight' is no matrix of AWQ's 4-bit integers: expected I32 of two dimensions$/m,
    header_edit(sub { s/(\Q$down\E\.qweight": \{"dtype": )"I32"/$1"F32"/ or die }));
for ([bits => 8, qr/bits 8 instead of 4/], [version => 'gemv', qr/version 'gemv' instead of 'gemm'/], [zero_point => JSON::PP::false(), qr/a zero_point that is not true/]) {
    my ($entry, $v, $why) = @$_;
    refused($awq, "AWQ: another $entry", 6, qr/the weights are packed by quant_method 'awq' with $why, which is not supported: give an FP8 or BF16 checkpoint/,
        config_edit(sub { $_[0]{quantization_config}{$entry} = $v }));
}
{
    my $bad = scratch() . '/m';
    copy_checkpoint($awq, $bad, grep { /safetensors/ } ls($awq));
    tensor_edit("$down.qzeros", 5, "\x5a")->($bad);
    my $r = run($SLUICE, 'verify', "$dir/moe-awq.gguf", '--source', $bad, '--sample', '100%');
    ok($r->{rc} == 8 && $r->{out} =~ /^FAIL.*ffn_down_exps\.weight/m, 'another zero point is noticed') or diag($r->{out});
}

done_testing();
