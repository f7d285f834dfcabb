# Checkpoints as programs write them (compressed-tensors, ModelOpt, Quark, fbgemm; MODELS.md names what was seen): tensors against
# numpy; and what is refused.
use strict;
use warnings;
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my $dir = scratch();
my %source = (
    qwen3   => checkpoint("$dir/qwen3", qw(--arch qwen3 --scales none --layers 2 --hidden 256 --inter 512 --heads 4 --kv-heads 2 --head-dim 64)),
    llama   => checkpoint("$dir/llama", qw(--arch llama --scales none --layers 2 --hidden 256 --inter 512 --heads 4 --kv-heads 2)),
    minimax => checkpoint("$dir/minimax", qw(--arch minimax --scales none --layers 2 --hidden 256 --inter 256 --experts 4 --used 2 --heads 4
        --kv-heads 2 --head-dim 64 --rope 32)),
);
my %forms = (
    qwen3   => [qw(ct-mxfp8 ct-int8-group ct-fp8-group ct-fp8-unlike mo-mxfp8 mo-mxfp4 mo-fp8-blocks quark-mxfp4 fp8-left-out mo-fp8-left-out quark-mxfp4-left-out)],
    llama   => [qw(fbgemm quark-fp8)],
    minimax => [qw(ct-fp8 mo-mxfp4)],
);
for my $model (sort keys %forms) {
    for my $form (@{ $forms{$model} }) {
        my ($ck, $file) = ("$dir/$model-$form", "$dir/$model-$form.gguf");
        run_ok("$model in $form", python('writers.py', 'make', $source{$model}, $ck, $form));
        run_ok('convert', $SLUICE, 'convert', $ck, '-o', $file, '--recipe', 'f32', '--quiet');
        my $r = run(python('writers.py', 'compare', $ck, $file));
        is($r->{out}, "equal\n", 'every bit of the tensors') or diag($r->{err});
        run_ok('verify', $SLUICE, 'verify', $file, '--source', $ck, '--sample', '20%');
        next if $form =~ /^ct-(?:int8|fp8)|^quark-fp8/; # scales are planned as F32 or of whole tensors, and are others
        my ($alone, $there) = map { plan_of($_)->{source_bytes} } "$ck/config.json", $ck;
        is($alone, $there, 'config.json alone: the bytes that are there');
    }
}
my ($file, $at) = place("$dir/llama-fbgemm", 'model.layers.1.mlp.up_proj.weight_scale');
flip_byte($file, $at, 0x10);
like(run(python('writers.py', 'compare', "$dir/llama-fbgemm", "$dir/llama-fbgemm.gguf"))->{out}, qr/^blk\.1\.ffn_up\.weight: bytes differ/,
    'another scale is noticed');

# ---- what is refused
my $turned = { config_groups => { R4 => { type => 'hadamard', apply => [{ location => 'weight_output' }, { location => 'input' }] } } };
refused("$dir/qwen3-ct-mxfp8", 'turned activations', 6, qr/turns its activations while it runs .*location 'input'\), which llama\.cpp does not/,
    config_edit(sub { $_[0]{quantization_config}{transform_config} = $turned }));
refused("$dir/qwen3-ct-mxfp8", 'groups of another size', 7, qr/of shape \[256, 16\] does not fit .*: expected \[256, 8\]$/,
    config_edit(sub { $_[0]{quantization_config}{config_groups}{group_0}{weights}{group_size} = 64 }));
refused("$dir/qwen3-ct-fp8-unlike", 'blocks of two sizes that fit', 6, qr/scale '\S+weight_scale' of shape \[\S+ \S+\] fits '\S+\.weight' of shape \S+ \S+ with blocks of more than one size .*: give an FP8 checkpoint/,
    config_edit(sub { $_[0]{quantization_config}{config_groups}{self_attn}{weights}{block_structure} = [130, 128] }));
refused("$dir/qwen3-quark-mxfp4", 'an algorithm', 6, qr/quantization_config\.algo_config of quark is not empty, which is not supported$/,
    config_edit(sub { $_[0]{quantization_config}{algo_config} = [{ name => 'rotation' }] }));
refused("$dir/qwen3-quark-mxfp4", 'integers', 6, qr/weights of quark's dtype 'int4' are not supported; supported of it: fp8_e4m3, fp4$/,
    config_edit(sub { $_[0]{quantization_config}{global_quant_config}{weight}{dtype} = 'int4' }));
# Of a method that is not read the scales have other names: the method is named, not these.
refused("$dir/qwen3-ct-mxfp8", 'torchao', 6, qr/config\.json: quantization_config\.quant_method 'torchao' is not supported; supported: fp8, fbgemm_fp8, /, sub {
    header_edit(sub { s/\.(weight_scale|weight)"/._$1_qdata"/g or die })->(@_);
    config_edit(sub { $_[0]{quantization_config} = { quant_method => 'torchao' } })->(@_);
});
refused("$dir/qwen3-mo-fp8-blocks", 'blocks that config.json has not', 7, qr/of shape \[\d+, 1, \d+, 1\] does not fit /,
    config_edit(sub { $_[0]{quantization_config}{quant_algo} = 'FP8' }));

done_testing();
