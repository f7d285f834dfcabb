# Checkpoints in Qwen3's form: dense as DeepSeek-R1-0528-Qwen3-8B (BF16), with experts in each layer as
# Qwen3-235B-A22B in FP8. Metadata against an independent computation, tensors against numpy and
# llama-quantize, files loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use JSON::PP ();
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my @small = qw(--layers 3 --hidden 256 --inter 512 --heads 8 --kv-heads 2 --head-dim 64);
my %source = (
    dense => checkpoint("$dir/dense", qw(--arch qwen3), @small),
    moe   => checkpoint("$dir/moe", qw(--arch qwen3moe --moe-inter 256 --experts 16 --used 4), @small),
);

# ---- metadata and tensors
my %f32 = map { $_ => "$dir/$_-f32.gguf" } keys %source;
for my $form (sort keys %source) {
    for my $recipe (qw(f32 bf16)) {
        run_ok("$form: $recipe", $SLUICE, 'convert', $source{$form}, '-o', "$dir/$form-$recipe.gguf", '--recipe', $recipe, '--quiet');
        my $r = run(python('reference.py', 'compare', $source{$form}, "$dir/$form-$recipe.gguf"));
        is($r->{out}, "equal\n", 'every bit of the tensors') or diag($r->{err});
    }
    my $r = run(python('model_keys.py', 'qwen3', $source{$form}, $f32{$form}));
    is($r->{out}, $form eq 'moe' ? "equal 13 keys\n" : "equal 14 keys\n", 'keys and their order') or diag($r->{err});
    run_ok('verify', $SLUICE, 'verify', $f32{$form}, '--source', $source{$form}, '--sample', '5%');
    my ($alone, $there) = map { plan_of($_) } "$source{$form}/config.json", $source{$form};
    # Scales are planned as F32, and are BF16 here.
    my $scales = $form eq 'moe' ? 2 * 3 * (2 * (4 * 2 + 1 * 2) + 16 * 3 * 4) : 0;
    is($alone->{source_bytes} - $there->{source_bytes}, $scales, 'config.json alone: the bytes that are there');
    is($there->{memory}[0]{cache}, 'heads', 'nothing latent is cached');
}

# Experts of a layer in two tensors.
my @bf16 = (qw(--arch qwen3moe --moe-inter 192 --experts 3 --used 2 --scales none --shards 1), @small);
checkpoint("$dir/$_", @bf16) for qw(apart joined);
run_ok('joined', python('model_forms.py', 'join', "$dir/joined"));
for my $recipe (qw(f32 q4_k_m)) {
    run_ok("$_: $recipe", $SLUICE, 'convert', "$dir/$_", '-o', "$dir/$_.gguf", '--recipe', $recipe, '--quiet', '--force') for qw(apart joined);
    is_deeply(hashes("$dir/joined.gguf"), hashes("$dir/apart.gguf"), 'the same tensors');
}

# FP8 as ModelOpt writes it: a scale for each tensor, by its own name in config.json.
my $modelopt = checkpoint("$dir/modelopt", qw(--arch qwen3moe --moe-inter 256 --experts 4 --used 2 --scales tensor --scale-suffix weight_scale), @small);
edit_json("$modelopt/config.json", sub { $_[0]{quantization_config} = { quant_method => 'modelopt', quant_algo => 'FP8', ignore => ['lm_head'] } });
run_ok('ModelOpt', $SLUICE, 'convert', $modelopt, '-o', "$dir/modelopt.gguf", '--recipe', 'f32', '--quiet');
is(run(python('reference.py', 'compare', $modelopt, "$dir/modelopt.gguf"))->{out}, "equal\n", 'every bit of the tensors');
refused($modelopt, 'another of its algorithms', 6, qr/quant_algo 'W4A8_AWQ' of modelopt is not supported; supported of it: FP8, FP8_PB_WO, MXFP8, MXFP4, NVFP4$/,
    config_edit(sub { $_[0]{quantization_config}{quant_algo} = 'W4A8_AWQ' }));

# The comparison itself can fail.
{
    my $text = slurp("$source{moe}/config.json");
    edit_json("$source{moe}/config.json", sub { $_[0]{rope_theta} = 1000000 });
    my $r = run(python('model_keys.py', 'qwen3', $source{moe}, $f32{moe}));
    ok($r->{rc} == 1 && $r->{out} =~ /^qwen3moe\.rope\.freq_base: /, 'another key is noticed');
    spit("$source{moe}/config.json", $text);
}

# A token before every text decides the name of the rules, which are Qwen's.
is(kv_of($f32{dense}, 'tokenizer.ggml.pre'), "deepseek-r1-qwen\n", 'the rules of R1\'s distills');
my $own = copy_checkpoint($source{moe}, "$dir/own");
edit_json("$own/tokenizer_config.json", sub { $_[0] = { %{ $_[0] }, tokenizer_class => 'Qwen2Tokenizer', add_bos_token => JSON::PP::false() }; });
edit_json("$own/tokenizer.json", sub { $_[0]{post_processor} = undef });
run_ok('without it', $SLUICE, 'convert', $own, '-o', "$dir/own.gguf", '--recipe', 'q4_k_m', '--quiet');
is(kv_of("$dir/own.gguf", 'tokenizer.ggml.pre'), "qwen2\n", 'Qwen\'s own');

# ---- the models' own sizes, as MODELS.md says
{
    my $full = "$TOP/tests/data/qwen3-235b-a22b-2507-fp8-config.json";
    spit("$dir/config.json", slurp($full));
    edit_json("$dir/config.json", sub { $_[0] = { %{ $_[0] }, hidden_size => 6144, num_hidden_layers => 62, num_attention_heads => 96,
        num_key_value_heads => 8, num_experts => 160, moe_intermediate_size => 2560, intermediate_size => 8192 } });
    for ([$full, 'q4_k_m', '142.1', '236.4'], [$full, 'dq3_k_m', '106.0', '236.4'], ["$dir/config.json", 'q4_k_m', '290.1', '482.2'],
         ["$dir/config.json", 'dq3_k_m', '217.4', '482.2']) {
        my ($config, $recipe, $size, $read) = @$_;
        like(run($SLUICE, 'plan', $config, '--recipe', $recipe)->{out}, qr/^Size +\Q$size\E GB .*^Read +\Q$read\E GB/ms, "$recipe: $size GB");
    }
}

# ---- a real llama.cpp
SKIP: {
    skip_without_llama(12);
    for my $how (map { ['moe', $_] } qw(Q4_K_M Q2_K IQ4_XS)) {
        my ($form, $mixture) = @$how;
        run_ok("$form: $mixture", $SLUICE, 'convert', $source{$form}, '-o', "$dir/$form-$mixture.gguf", '--recipe', $mixture, '--quiet');
        as_llama_quantize("$dir/$form-$mixture.gguf", $f32{$form}, $mixture);
    }
    run_ok("$_: dq3_k_m", $SLUICE, 'convert', $source{$_}, '-o', "$dir/$_-dq3.gguf", '--recipe', 'dq3_k_m', '--quiet') for sort keys %source;
    make_text(map { "$dir/$_.gguf" } qw(moe-Q4_K_M moe-dq3 dense-dq3));
}

# ---- refused in one line
fails('a reranker by its folder', 6, qr/the checkpoint is a reranker by the folder's name, .*supported: models that make text$/,
    $SLUICE, 'plan', copy_checkpoint($source{dense}, scratch() . '/Qwen3-Reranker-8B'), '--recipe', 'q8_0');
refused($source{dense}, 'a reranker by its card', 6, qr/the checkpoint is a reranker by README\.md/, sub { spit("$_[0]/README.md", "\n# Qwen3-Reranker-8B\n") });
refused($source{dense}, 'embeddings', 6, qr/the checkpoint is of a model for embeddings \(modules\.json has a stage for pooling\)/,
    sub { spit("$_[0]/modules.json", '[{"idx":0,"type":"sentence_transformers.models.Transformer"},{"idx":1,"path":"1_Pooling","type":"sentence_transformers.models.Pooling"}]') });
refused($source{dense}, 'modules.json cut short', 7, qr/modules\.json/, sub { spit("$_[0]/modules.json", '[{') });
run_ok('with other stages', $SLUICE, 'plan', do {
    my $d = copy_checkpoint($source{dense}, scratch() . '/m');
    spit("$d/modules.json", '[{"type":"sentence_transformers.models.Transformer"}]');
    spit("$d/README.md", "# Qwen3-8B\n\nSee also Qwen3-Reranker.\n");
    $d;
}, '--recipe', 'q8_0');
refused($source{dense}, 'other heads', 7, qr/tensor 'model\.layers\.0\.self_attn\.\w_norm\.weight': expected shape \[32\] by config\.json, found \[64\]/,
    config_edit(sub { $_[0]{head_dim} = 32; $_[0]{num_attention_heads} = 16; $_[0]{num_key_value_heads} = 4 }));
refused($source{dense}, 'a bias', 6, qr/1 tensor unknown for Qwen3ForCausalLM \(1 expected one missing: model\.layers\.0\.input_layernorm\.weight\): model\.layers\.0\.self_attn\.q_proj\.bias-/,
    header_edit(sub { s/"model\.layers\.0\.\Kinput_layernorm\.weight"/self_attn.q_proj.bias-"/ or die }));
refused($source{moe}, 'a layer without experts', 6, qr/"mlp_only_layers" tells of layers without experts, which llama\.cpp's qwen3moe cannot have$/, config_edit(sub { $_[0]{mlp_only_layers} = [1] }));
refused($source{moe}, 'an expert more', 7, qr/9 tensors missing from the checkpoint: model\.layers\.0\.mlp\.experts\.16\.\w+_proj\.weight|expected shape \[17, 256\] by config\.json, found \[16, 256\]/,
    config_edit(sub { $_[0]{num_experts} = 17 }));
refused($source{moe}, 'dense by its class', 6, qr/\d+ tensors unknown for Qwen3ForCausalLM \(9 expected ones missing: model\.layers\.0\.mlp\.gate_proj\.weight\): model\.layers\.0\.mlp\.experts\.0\./,
    config_edit(sub { $_[0]{architectures} = ['Qwen3ForCausalLM'] }));

done_testing();
