# Checkpoints in MiniMax-M2's form, and in M3's: metadata and tokenizer against an independent computation, tensors against
# numpy and llama-quantize, files loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my $source = checkpoint("$dir/src", qw(--arch minimax --layers 3 --hidden 256 --inter 256 --experts 8 --used 2 --heads 8 --kv-heads 2 --head-dim 64
    --rope 32));
spit("$source/chat_template.jinja", "{% for m in messages %}{{ m.content }}{% endfor %}\n");

my $m3 = checkpoint("$dir/m3", qw(--arch minimax3 --layers 4 --dense 2 --hidden 256 --inter 512 --moe-inter 256 --experts 8 --heads 8 --kv-heads 2
    --head-dim 64 --rope 32));

# ---- metadata and tensors
for my $recipe (qw(f32 bf16)) {
    run_ok($recipe, $SLUICE, 'convert', $source, '-o', "$dir/$recipe.gguf", '--recipe', $recipe, '--quiet');
    my $r = run(python('reference.py', 'compare', $source, "$dir/$recipe.gguf"));
    is($r->{out}, "equal\n", 'every bit of the tensors') or diag($r->{err});
}
my $f32 = "$dir/f32.gguf";
my $r = run(python('model_keys.py', 'minimax', $source, $f32));
is($r->{out}, "equal 24 keys\n", 'keys and their order') or diag($r->{err});
edit_json("$source/config.json", sub { $_[0]{rotary_dim} = 16 });
like(run(python('model_keys.py', 'minimax', $source, $f32))->{out}, qr/^minimax-m2\.rope\.dimension_count: 32, expected 16/, 'another key is noticed');
edit_json("$source/config.json", sub { $_[0]{rotary_dim} = 32 });
run_ok('verify', $SLUICE, 'verify', $f32, '--source', $source, '--sample', '5%');
my ($alone, $there) = map { plan_of($_) } "$source/config.json", $source;
is($alone->{source_bytes}, $there->{source_bytes}, 'config.json alone: the bytes that are there');
is($there->{memory}[0]{cache}, 'heads', 'nothing latent is cached');

# ---- the model's own sizes, as MODELS.md says; read are the bytes that were published
for (['q4_k_m', '138.3'], ['dq3_k_m', '103.5']) {
    my ($recipe, $size) = @$_;
    like(run($SLUICE, 'plan', "$TOP/tests/data/minimax-m2.5-config.json", '--recipe', $recipe)->{out}, qr/^Size +\Q$size\E GB .*^Read +230\.1 GB/ms, "$recipe: $size GB");
}

# ---- MiniMax-M3: its text model alone, and within a model that sees
my $sees = copy_checkpoint($m3, "$dir/sees", grep { /safetensors/ } ls($m3));
run_ok('its form', python('model_forms.py', 'wrap', $sees));
for my $recipe (qw(f32 bf16)) {
    run_ok($recipe, $SLUICE, 'convert', $m3, '-o', "$dir/m3-$recipe.gguf", '--recipe', $recipe, '--quiet');
    is(run(python('reference.py', 'compare', $m3, "$dir/m3-$recipe.gguf"))->{out}, "equal\n", 'every bit of the tensors');
}
like(run_ok('a model that sees', $SLUICE, 'convert', $sees, '-o', "$dir/sees.gguf", '--recipe', 'f32')->{err},
    qr/^sluice: note: the vision part \(3 tensors\) is left out/m, 'its vision is left out');
is_deeply(hashes("$dir/sees.gguf"), hashes("$dir/m3-f32.gguf"), 'the same tensors');
is(run(python('model_keys.py', 'minimax', $_->[0], $_->[1]))->{out}, "equal 32 keys\n", 'keys and their order') for [$m3, "$dir/m3-f32.gguf"], [$sees, "$dir/sees.gguf"];
run_ok('verify', $SLUICE, 'verify', "$dir/sees.gguf", '--source', $sees, '--sample', '20%');
run_ok('by way of BF16', $SLUICE, 'convert', $m3, '-o', "$dir/through.gguf", '--recipe', 'q4_k_m', '--round-through', 'bf16', '--quiet');
run_ok('in two steps', $SLUICE, 'quantize', "$dir/m3-bf16.gguf", "$dir/steps.gguf", 'Q4_K_M');
is_deeply(hashes("$dir/through.gguf"), hashes("$dir/steps.gguf"), 'the same tensors: norms and indexers stay F32');
# As it was published in FP8: an exponent for 32 weights of a row, in the indexer too.
my $mxfp8 = checkpoint("$dir/mxfp8", qw(--arch minimax3 --scales mxfp8 --dense 1 --hidden 256 --inter 512 --moe-inter 96 --experts 4 --heads 4 --kv-heads 2
    --head-dim 32 --rope 16));
for my $recipe (qw(f32 q4_k_m)) {
    run_ok("MXFP8: $recipe", $SLUICE, 'convert', $mxfp8, '-o', "$dir/mxfp8-$recipe.gguf", '--recipe', $recipe, '--quiet');
}
is(run(python('reference.py', 'compare', $mxfp8, "$dir/mxfp8-f32.gguf"))->{out}, "equal\n", 'every bit of the tensors');
run_ok('in two steps', $SLUICE, 'quantize', "$dir/mxfp8-f32.gguf", "$dir/mxfp8-steps.gguf", 'Q4_K_M');
is_deeply(hashes("$dir/mxfp8-q4_k_m.gguf"), hashes("$dir/mxfp8-steps.gguf"), 'the same tensors');
run_ok('verify', $SLUICE, 'verify', "$dir/mxfp8-q4_k_m.gguf", '--source', $mxfp8, '--sample', '20%');
($alone, $there) = map { plan_of($_)->{source_bytes} } "$mxfp8/config.json", $mxfp8;
is($alone, $there, 'config.json alone: the bytes that are there');

my $plan = plan_of("$TOP/tests/data/minimax-m3-config.json", '--ctx', 1000);
is_deeply([@{ $plan->{model} }{qw(weights tensors)}, $plan->{source_bytes}, $plan->{memory}[0]{cache_bytes}],
    [426_174_572_928, 3 + 3 * 11 + 57 * 20, 852_438_813_696, 2 * 1000 * (60 * 2 * 4 * 128 + 57 * 2 * 128)],
    'weights and bytes that were published; the cache is llama.cpp\'s');
is(sprintf('%.1f', $plan->{tensor_bytes} / 1e9), '258.0', 'q4_k_m: as MODELS.md says');

# ---- a real llama.cpp
SKIP: {
    skip_without_llama(26);
    for my $mixture (qw(Q4_K_M Q2_K IQ4_XS)) {
        run_ok($mixture, $SLUICE, 'convert', $source, '-o', "$dir/$mixture.gguf", '--recipe', $mixture, '--quiet');
        as_llama_quantize("$dir/$mixture.gguf", $f32, $mixture);
    }
    iq2_xs($source, $f32);
    run_ok('dq3_k_m', $SLUICE, 'convert', $source, '-o', "$dir/dq3_k_m.gguf", '--recipe', 'dq3_k_m', '--quiet');
    make_text(map { "$dir/$_.gguf" } qw(f32 Q4_K_M Q2_K dq3_k_m));
    for my $mixture (qw(Q4_K_M Q2_K MXFP4_MOE TQ1_0)) {
        run_ok("M3: $mixture", $SLUICE, 'convert', $sees, '-o', "$dir/m3-$mixture.gguf", '--recipe', $mixture, '--quiet');
        as_llama_quantize("$dir/m3-$mixture.gguf", "$dir/m3-f32.gguf", $mixture);
    }
    run_ok('M3: dq3_k_m', $SLUICE, 'convert', $m3, '-o', "$dir/m3-dq3_k_m.gguf", '--recipe', 'dq3_k_m', '--quiet');
    make_text(map { "$dir/$_.gguf" } qw(m3-f32 m3-Q2_K m3-dq3_k_m));
}

# ---- refused in one line
refused($source, 'norms of one head', 7, qr/tensor 'model\.layers\.0\.self_attn\.q_norm\.weight': expected shape \[1024\] by config\.json, found \[512\]|q_proj\.weight': expected shape \[1024, 256\]/,
    config_edit(sub { $_[0]{head_dim} = 128 }));
refused($source, 'an expert more', 7, qr/9 tensors missing from the checkpoint: model\.layers\.0\.block_sparse_moe\.experts\.8\.w\d\.weight|expected shape \[9, 256\] by config\.json, found \[8, 256\]/,
    config_edit(sub { $_[0]{num_local_experts} = 9 }));
refused($source, 'another\'s rules', 6, qr/tokenizer\.json: unknown pre_tokenizer of 1 rule, .*; supported: those of .*, MiniMax-M2, /,
    sub { edit_json("$_[0]/tokenizer.json", sub { $_[0]{pre_tokenizer}{pretokenizers}[0]{pattern}{Regex} =~ s{/\]\*}{]*} or die }) });
refused($source, 'its rules in another model', 6, qr/tokenizer\.json splits texts by MiniMax-M2's rules, and config\.json is of qwen3$/, sub {
    my $other = checkpoint("$dir/qwen3", qw(--arch qwen3 --layers 1));
    rename "$other/$_", "$_[0]/$_" or die for grep { !/^tokenizer/ } ls($other);
});

refused($m3, 'another activation', 6, qr/"swiglu_alpha" is 1\.5, and llama\.cpp's minimax-m3 has 1\.702$/, config_edit(sub { $_[0]{swiglu_alpha} = 1.5 }));
refused($m3, 'norms as they are', 6, qr/"use_gemma_norm" is false, and llama\.cpp's minimax-m3 has norms that are stored less one$/, config_edit(sub { $_[0]{use_gemma_norm} = JSON::PP::false() }));
refused($m3, 'no list of layers', 7, qr/"moe_layer_freq" is no list of 4 entries, one for each layer$/, config_edit(sub { pop @{ $_[0]{moe_layer_freq} } }));
refused($m3, 'an entry for a layer', 7, qr/"moe_layer_freq" has an entry for layer 1 that is not 0 or 1$/, config_edit(sub { $_[0]{moe_layer_freq}[1] = 2 }));
refused($m3, 'a dense layer last', 6, qr/"moe_layer_freq" tells of a dense layer, 3, behind those with experts, which llama\.cpp cannot run$/,
    config_edit(sub { $_[0]{moe_layer_freq}[3] = 0 }));
refused($m3, 'no indexer', 7, qr/config\.json has no "sparse_attention_config", which MiniMaxM3SparseForCausalLM needs$/, config_edit(sub { delete $_[0]{sparse_attention_config} }));
refused($m3, 'half an indexer', 7, qr/config\.json has no "sparse_local_block", which MiniMaxM3SparseForCausalLM needs$/,
    config_edit(sub { delete $_[0]{sparse_attention_config}{sparse_local_block} }));
refused($m3, 'another head', 6, qr/"sparse_num_index_heads" is 4, and llama\.cpp's minimax-m3 has one for each of "num_key_value_heads", 2$/,
    config_edit(sub { $_[0]{sparse_attention_config}{sparse_num_index_heads} = 4 }));
refused($m3, 'a short indexer', 7, qr/"sparse_index_dim" is 16; "rotary_dim" alone is 32$/, config_edit(sub { $_[0]{sparse_attention_config}{sparse_index_dim} = 16 }));

# A layer for multi-token prediction was not published; were it there, --no-mtp would leave it out.
{
    my $more = copy_checkpoint($source, "$dir/more");
    edit_json("$more/config.json", sub { $_[0]{num_hidden_layers} = 2 });
    fails('a layer more', 6, qr/^sluice plan: .*: 34 tensors unknown for MiniMaxM2ForCausalLM .*: model\.layers\.2\./, $SLUICE, 'plan', $more, '--recipe', 'q8_0');
    run_ok('--no-mtp', $SLUICE, 'plan', $more, '--recipe', 'q8_0', '--no-mtp');
}

done_testing();
