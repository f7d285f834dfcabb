# Weights in packed integers with zero points, of 4 and 8 bits, in columns of any order: tensors against numpy and llama-quantize; on
# every way that reads a source; and what is refused.
use strict;
use warnings;
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
my ($ck, $f32) = ("$dir/moe-ct-w4-order", "$dir/moe-ct-w4-order.gguf");
like(run($SLUICE, 'inspect', $ck)->{out}, qr/^packed 4-bit integers: groups of 64$/m, 'inspect');
converted($ck, 'little', qw(--recipe q4_k_m --mem 64M --quiet));
my $gpu = run_ok('beside a GPU, which leaves it to the processor', "$BUILD/tools/emulated_gpu", 'convert', $ck, '-o', "$dir/gpu.gguf",
    qw(--recipe q4_k_m --device cuda:0 -q));
is_deeply(hashes("$dir/gpu.gguf"), hashes("$dir/little.gguf"), 'the same tensors');
my $size = 900_000;
run_ok('plan --target-size', $SLUICE, 'plan', $ck, '--target-size', $size, '--write-recipe', "$dir/by-size.recipe");
run_ok('the same of its values in F32', $SLUICE, 'plan', $f32, '--target-size', $size, '--write-recipe', "$dir/by-size-f32.recipe");
sub lines_of { return [grep { !/^#/ } split /\n/, slurp($_[0])] }
is_deeply(lines_of("$dir/by-size.recipe"), lines_of("$dir/by-size-f32.recipe"), 'measured alike');
SKIP: {
    skip_without_llama(3);
    as_llama_quantize("$dir/little.gguf", $f32, 'Q4_K_M');
    make_text("$dir/little.gguf");
}

# ---- what is refused
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

done_testing();
