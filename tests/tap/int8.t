# Weights in 8-bit integers, by rows as compressed-tensors ships them and in blocks as SGLang does: tensors against numpy and
# llama-quantize, files run by a real llama.cpp; and what is refused.
use strict;
use warnings;
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my @dense = qw(--int8 --scale-suffix weight_scale --layers 2 --hidden 256 --inter 512 --heads 4 --kv-heads 2);
my %form = (
    qwen2    => [qw(--arch qwen2 --scales bf16-row --shards 1), @dense],
    llama    => [qw(--arch llama --scales bf16-row), @dense],
    tensor   => [qw(--arch qwen3moe --scales tensor --moe-inter 256 --experts 8), @dense],
    deepseek => [qw(--int8 --hidden 256 --inter 576 --moe-inter 320 --kv-lora 192 --rope 48 --heads 4 --kv-heads 4)],
);
my (%ck, %made);
sub convert {
    my ($name, $recipe, @how) = @_;
    my $file = $made{"$name $recipe"} = "$dir/$name-$recipe.gguf";
    run_ok("$name: $recipe", $SLUICE, 'convert', $ck{$name}, '-o', $file, '--recipe', $recipe, '--quiet', @how);
    run_ok('verify', $SLUICE, 'verify', $file, '--source', $ck{$name}, '--sample', '100%');
}
for my $name (sort keys %form) {
    $ck{$name} = checkpoint("$dir/$name", @{ $form{$name} });
    if ($name eq 'llama') { # scales of all signs: 0, then less
        my $scales = 'model.layers.1.self_attn.q_proj.weight_scale';
        tensor_edit($scales, 2 * $_->[0], $_->[1])->($ck{$name}) for [9, "\0\0"], [10, "\0\x80"], [77, "\x12\xbb"];
    }
    is(plan_of("$ck{$name}/config.json")->{source_bytes} - plan_of($ck{$name})->{source_bytes}, $name eq 'tensor' ? -2 * 2 * (4 + 3 * 8) : 0,
        'config.json alone: the same bytes, but scales of tensors, taken for BF16');
    for my $recipe (qw(f32 bf16)) {
        convert($name, $recipe);
        my $r = run(python('reference.py', 'compare', $ck{$name}, $made{"$name $recipe"}));
        is($r->{out}, "equal\n", 'every bit') or diag($r->{err});
    }
}
like(run($SLUICE, 'inspect', $ck{deepseek})->{out}, qr/^INT8 scale blocks: 128 x 128\n(?:.*\n)*?INT8 /m, 'inspect');

convert('qwen2', 'q8_0');
convert('llama', 'q4_k_m');
convert('deepseek', 'q5_k_m', '--round-through', 'bf16');
my $gpu = run_ok('beside a GPU, which leaves it to the processor', "$BUILD/tools/emulated_gpu", 'convert', $ck{llama}, '-o', "$dir/gpu.gguf",
    qw(--recipe q4_k_m --device cuda:0 -q));
is_deeply(hashes("$dir/gpu.gguf"), hashes($made{'llama q4_k_m'}), 'the same tensors');
SKIP: {
    skip_without_llama(7);
    as_llama_quantize($made{"$_->[0] $_->[1]"}, $made{"$_->[0] $_->[2]"}, uc $_->[1])
        for ['qwen2', 'q8_0', 'f32'], ['llama', 'q4_k_m', 'f32'], ['deepseek', 'q5_k_m', 'bf16'];
    make_text(map { $made{$_} } 'qwen2 q8_0', 'llama q4_k_m', 'deepseek q5_k_m', 'tensor bf16');
}

# ---- what is refused
my $q = 'model.layers.1.self_attn.q_proj';
for (['nan', "\xc0\x7f"], ['-inf', "\x80\xff"]) {
    refused($ck{qwen2}, "a scale $_->[0]", 7, qr/tensor '$q\.weight': scale \[5, 0\] in '$q\.weight_scale' .* is $_->[0], expected a finite number: the source is damaged/,
        tensor_edit("$q.weight_scale", 2 * 5, $_->[1]), 'convert');
}
refused($ck{qwen2}, 'a product', 7, qr/tensor '$q\.weight' in '.*': row 5, column \d+ is NaN or infinite \(INT8\); the source is damaged/,
    tensor_edit("$q.weight_scale", 2 * 5, "\x7f\x7f"), 'convert');
my $o = 'model.layers.1.self_attn.o_proj.weight';
my @edge = (tensor_edit("${o}_scale_inv", 0, pack 'f<', 3.4e38 / 128), tensor_edit($o, 5, "\x80"));
refused($ck{deepseek}, 'a number of F32 alone', 6, qr/'$o' in '.*'\): the weights from row 0, column \d+ on are too large for $_->[1]/, sub { $_->($_[0]) for @edge }, 'convert',
    '--tensor-type', "blk.1.attn_output.weight=$_->[0]", @$_[2 .. $#$_])
    for ['bf16', 'bf16; .* --tensor-type blk\.1\.attn_output\.weight=f32$'], ['f32', 'bf16; leave --round-through bf16 out$', '--round-through', 'bf16'];
refused($ck{qwen2}, 'no scale', 6, qr/tensor '$q\.weight' is I8, which cannot be read as weights; as MXFP4 .*, as INT8 in F32, BF16 or F16$/,
    header_edit(sub { s/"\Q$q\E\.weight_\Kscale"/skale"/ or die }));
refused($ck{deepseek}, 'blocks of another size', 7, qr/expected \[\d+, \d+\]$/, config_edit(sub { $_[0]{quantization_config}{weight_block_size} = [64, 128] }));
refused($ck{qwen2}, 'another method', 6, qr/quant_method 'bitsandbytes' is not supported; supported: fp8, fbgemm_fp8, mxfp8, blockwise_int8, w8a8_int8, /,
    config_edit(sub { $_[0]{quantization_config} = { quant_method => 'bitsandbytes' } }));
my ($file, $at) = place($ck{llama}, "$q.weight");
flip_byte($file, $at, 0x10);
like(fails('a code: verify', 8, qr/: 1 failure/, $SLUICE, 'verify', $made{'llama q4_k_m'}, '--source', $ck{llama}, '--sample', '100%')->{out},
    qr/^FAILED .*blk\.1\.attn_q\.weight: block 0 .*is not what the source gives/m, 'which is named');

done_testing();
