# Checkpoints in Ling 2.0's form (Ling-1T, Ring-1T, Ling-flash-2.0): in FP8 in blocks and with a scale for each row, and not
# quantized, with the layer for multi-token prediction and without. Metadata and tokenizer against an independent computation,
# tensors against numpy and llama-quantize, files loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use JSON::PP ();
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my @small = qw(--arch ling --layers 3 --hidden 256 --inter 512 --moe-inter 256 --experts 8 --used 2 --groups 4 --groups-used 2 --heads 4 --kv-heads 2);
my %source = (
    block => checkpoint("$dir/block", @small),
    row   => checkpoint("$dir/row", @small, qw(--scales row --scale-suffix weight_scale --dense 2)),
    bf16  => checkpoint("$dir/bf16", @small, qw(--scales none --no-mtp --shards 1)),
);
spit("$source{block}/chat_template.jinja", "{% for m in messages %}{{ m.content }}{% endfor %}\n");

# ---- metadata and tensors; the layer for multi-token prediction is the last of four
my %f32 = map { $_ => "$dir/$_-f32.gguf" } keys %source;
my %keys = (block => 35, row => 34, bf16 => 33);
for my $form (sort keys %source) {
    for my $recipe (qw(f32 bf16)) {
        run_ok("$form: $recipe", $SLUICE, 'convert', $source{$form}, '-o', "$dir/$form-$recipe.gguf", '--recipe', $recipe, '--quiet');
        my $r = run(python('reference.py', 'compare', $source{$form}, "$dir/$form-$recipe.gguf"));
        is($r->{out}, "equal\n", 'every bit of the tensors') or diag($r->{out}, $r->{err});
    }
    my $r = run(python('model_keys.py', 'ling', $source{$form}, $f32{$form}));
    is($r->{out}, "equal $keys{$form} keys\n", 'keys, tokens and their order') or diag($r->{out}, $r->{err});
    run_ok('verify', $SLUICE, 'verify', $f32{$form}, '--source', $source{$form}, '--sample', '5%');
    my ($alone, $there) = map { plan_of($_, '--ctx', 1000) } "$source{$form}/config.json", $source{$form};
    is($alone->{source_bytes}, $there->{source_bytes}, 'config.json alone: the bytes that are there');
    is_deeply([@{ $there->{memory}[0] }{qw(cache cache_bytes)}], ['heads', ($form eq 'bf16' ? 3 : 4) * 2 * (64 + 64) * 2 * 1000], 'cache');
}
run_ok('--no-mtp', $SLUICE, 'convert', $source{block}, '-o', "$dir/no.gguf", '--recipe', 'f32', '--no-mtp', '--quiet');
is(run(python('model_keys.py', 'ling', $source{block}, "$dir/no.gguf", '--no-mtp'))->{out}, "equal 34 keys\n", 'keys');
my %main = %{ hashes($f32{block}) };
delete @main{grep { /^blk\.3\./ } keys %main};
is_deeply(hashes("$dir/no.gguf"), \%main, 'tensors');

# What config.json may say besides: Ring-1T's YaRN, as its model card has it, no layer for multi-token prediction, another routing.
my $said = copy_checkpoint($source{bf16}, "$dir/said");
edit_json("$said/config.json", sub {
    $_[0] = { %{ $_[0] }, rope_scaling => { factor => 4.0, original_max_position_embeddings => 32768, type => 'yarn' }, num_nextn_predict_layers => 0,
        score_function => 'softmax', norm_topk_prob => JSON::PP::false(), partial_rotary_factor => 0.25 };
});
run_ok('other entries', $SLUICE, 'convert', $said, '-o', "$dir/said.gguf", '--recipe', 'f32', '--quiet');
is(run(python('model_keys.py', 'ling', $said, "$dir/said.gguf"))->{out}, "equal 37 keys\n", 'keys');
edit_json("$said/config.json", sub { $_[0]{num_nextn_predict_layers} = undef });
like(run(python('model_keys.py', 'ling', $said, "$dir/said.gguf"))->{out}, qr/nextn_predict_layers/, 'another key is noticed');

# ---- the models' own sizes, as MODELS.md says: Ling-1T in FP8, Ling-flash-2.0 in BF16
my $one_t = "$TOP/tests/data/ling-1t-fp8-config.json";
mkdir "$dir/Ling-flash-2.0";
my $flash = "$dir/Ling-flash-2.0/config.json";
spit($flash, slurp($one_t));
edit_json($flash, sub {
    delete $_[0]{quantization_config};
    $_[0] = { %{ $_[0] }, hidden_size => 4096, intermediate_size => 9216, moe_intermediate_size => 1024, moe_shared_expert_intermediate_size => 1024,
        num_hidden_layers => 32, num_attention_heads => 32, num_key_value_heads => 4, first_k_dense_replace => 1 };
});
for ([$one_t, 'q4_k_m', 604.3, 1002.7], [$one_t, 'dq3_k_m', 443.9, 1002.7], [$flash, 'q4_k_m', 62.4, 205.8], [$flash, 'dq3_k_m', 47.5, 205.8]) {
    my ($config, $recipe, @size) = @$_;
    my $p = plan_of($config, '--recipe', $recipe);
    is_deeply([map { sprintf '%.1f', $_ / 1e9 } @$p{qw(tensor_bytes source_bytes)}], \@size, "$recipe: $size[0] GB");
}

# ---- a real llama.cpp
SKIP: {
    skip_without_llama(18);
    for (['block', 'Q4_K_M'], ['block', 'Q2_K'], ['row', 'Q3_K_M'], ['bf16', 'IQ4_XS'], ['bf16', 'MXFP4_MOE']) {
        my ($form, $mixture) = @$_;
        run_ok("$form: $mixture", $SLUICE, 'convert', $source{$form}, '-o', "$dir/$form-$mixture.gguf", '--recipe', $mixture, '--quiet');
        as_llama_quantize("$dir/$form-$mixture.gguf", $f32{$form}, $mixture);
    }
    iq2_xs($source{bf16}, $f32{bf16});
    run_ok('dq3_k_m', $SLUICE, 'convert', $source{block}, '-o', "$dir/block-dq3.gguf", '--recipe', 'dq3_k_m', '--quiet');
    make_text(map { "$dir/$_.gguf" } qw(block-f32 block-Q4_K_M block-dq3 no row-Q3_K_M bf16-IQ4_XS iq2_xs said));
}

# ---- refused in one line
refused($source{bf16}, 'no norms', 6, qr/"use_qk_norm" is false, and llama\.cpp's bailingmoe2 has norms on the heads of q and k$/, config_edit(sub { $_[0]{use_qk_norm} = JSON::PP::false() }));
refused($source{bf16}, 'biases', 6, qr/"use_qkv_bias" is true, and llama\.cpp's bailingmoe2 has no biases$/, config_edit(sub { $_[0]{use_qkv_bias} = JSON::PP::true() }));
refused($source{bf16}, 'wide heads', 6, qr/4 heads of 128 rows, and llama\.cpp's bailingmoe2 has as many as "hidden_size", 256$/, config_edit(sub { $_[0]{head_dim} = 128 }));
refused($source{bf16}, 'another router', 6, qr/"score_function" is 'tanh'; supported: softmax, sigmoid$/, config_edit(sub { $_[0]{score_function} = 'tanh' }));
refused($source{bf16}, 'two shared experts', 6, qr/"num_shared_experts" is 2 without "moe_shared_expert_intermediate_size": llama\.cpp's bailingmoe2 would take them for wider ones$/,
    config_edit(sub { delete $_[0]{moe_shared_expert_intermediate_size}; $_[0]{num_shared_experts} = 2 }));
refused($source{block}, 'a layer fewer', 6, qr/config\.json's num_nextn_predict_layers does not tell of all layers for multi-token prediction: correct it, or give --no-mtp$/,
    config_edit(sub { delete $_[0]{num_nextn_predict_layers} }));
refused($source{bf16}, 'a layer more', 7, qr/tensors missing from the checkpoint: model\.layers\.3\..* Without layers for multi-token prediction, give --no-mtp$/,
    config_edit(sub { $_[0]{num_nextn_predict_layers} = 1 }));
refused($source{bf16}, 'no bias of the router', 7, qr/1 tensor missing from the checkpoint: model\.layers\.2\.mlp\.gate\.expert_bias; /,
    header_edit(sub { s/2\.mlp\.gate\.\Kexpert_bias"/attention.bias" / or die }));
refused($source{bf16}, 'its rules in another model', 6, qr/tokenizer\.json splits texts by Ling's rules, and config\.json is of qwen3$/, sub {
    my $other = checkpoint("$dir/qwen3", qw(--arch qwen3 --layers 1));
    rename "$other/$_", "$_[0]/$_" or die for grep { !/^tokenizer/ } ls($other);
});

done_testing();
