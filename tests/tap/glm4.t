# Checkpoints in GLM-4.5's form (4.5, 4.5-Air, 4.6, 4.7): in FP8 with a scale for each row, tied with BF16 scales, and
# not quantized without norms on the heads; and in GLM-4.7-Flash's. Metadata against an independent computation, tensors
# against numpy and llama-quantize, files loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use JSON::PP ();
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my @small = qw(--arch glm4moe --layers 3 --hidden 256 --inter 512 --moe-inter 256 --experts 16 --used 4 --heads 8 --kv-heads 2 --head-dim 64);
my %source = (
    fp8  => checkpoint("$dir/fp8", @small),
    tied => checkpoint("$dir/tied", @small, qw(--scales bf16-row --tied --dense 2)),
    air  => checkpoint("$dir/air", @small, qw(--scales none --no-head-norm --shards 1)),
);

# ---- metadata and tensors; the layer for multi-token prediction is the last of four
my %f32 = map { $_ => "$dir/$_-f32.gguf" } keys %source;
for my $form (sort keys %source) {
    for my $recipe (qw(f32 bf16)) {
        run_ok("$form: $recipe", $SLUICE, 'convert', $source{$form}, '-o', "$dir/$form-$recipe.gguf", '--recipe', $recipe, '--quiet');
        my $r = run(python('reference.py', 'compare', $source{$form}, "$dir/$form-$recipe.gguf"));
        is($r->{out}, "equal\n", 'every bit of the tensors') or diag($r->{out}, $r->{err});
    }
    my $r = run(python('model_keys.py', 'glm4', $source{$form}, $f32{$form}));
    is($r->{out}, "equal 33 keys\n", 'keys, tokens and their order') or diag($r->{out}, $r->{err});
    run_ok('verify', $SLUICE, 'verify', $f32{$form}, '--source', $source{$form}, '--sample', '5%');
    my ($alone, $there) = map { plan_of($_, '--ctx', 1000) } "$source{$form}/config.json", $source{$form};
    # Scales are planned as F32, and are BF16 in one: of attention and experts in four layers, two dense ones among these, and the second head.
    my $scales = $form eq 'tied' ? 2 * (4 * (512 + 2 * 128 + 256) + 2 * (2 * 512 + 256) + 2 * 17 * (2 * 256 + 256) + 512) : 0;
    is($alone->{source_bytes} - $there->{source_bytes}, $scales, 'config.json alone: the bytes that are there');
    is_deeply([@{ $there->{memory}[0] }{qw(cache cache_bytes)}], ['heads', 4 * 2 * (64 + 64) * 2 * 1000], 'cache');
}
run_ok('--no-mtp', $SLUICE, 'convert', $source{fp8}, '-o', "$dir/no.gguf", '--recipe', 'f32', '--no-mtp', '--quiet');
is(run(python('model_keys.py', 'glm4', $source{fp8}, "$dir/no.gguf", '--no-mtp'))->{out}, "equal 32 keys\n", 'keys');
my %main = %{ hashes($f32{fp8}) };
delete @main{grep { /^blk\.3\./ } keys %main};
is_deeply(hashes("$dir/no.gguf"), \%main, 'tensors');

# Two keys stand elsewhere where config.json says how experts are chosen, as GLM-4.7's does.
my $said = copy_checkpoint($source{air}, "$dir/said");
edit_json("$said/config.json", sub { $_[0] = { %{ $_[0] }, scoring_func => 'sigmoid', topk_method => 'noaux_tc', partial_rotary_factor => 0.25 } });
run_ok('scoring_func', $SLUICE, 'convert', $said, '-o', "$dir/said.gguf", '--recipe', 'f32', '--quiet');
is(run(python('model_keys.py', 'glm4', $said, "$dir/said.gguf"))->{out}, "equal 33 keys\n", 'keys');
my $r = run(python('model_keys.py', 'glm4', $source{air}, "$dir/said.gguf"));
ok($r->{rc} == 1 && $r->{out} =~ /^keys .*^glm4moe\.rope\.dimension_count: 16/ms, 'other keys, and another value, are noticed') or diag($r->{out});

# An id left out between added tokens: transformers numbers those behind it anew, and so do the tokens that have a role.
my $hole = copy_checkpoint($source{air}, "$dir/hole");
edit_json("$hole/tokenizer.json", sub { $_->{id}++ for grep { $_->{id} > 322 } @{ $_[0]{added_tokens} } });
run_ok('an id left out', $SLUICE, 'convert', $hole, '-o', "$dir/hole.gguf", '--recipe', 'f32', '--quiet');
is(kv_of("$dir/hole.gguf", "tokenizer.ggml.$_"), kv_of($f32{air}, "tokenizer.ggml.$_"), $_) for qw(tokens eot_token_id eom_token_id);

# ---- the models' own sizes, as MODELS.md says: GLM-4.6 and 4.5-Air in FP8
sub full {
    my ($from, $to, $norm, $dense, %own) = @_;
    spit($to, slurp("$source{$from}/config.json"));
    edit_json($to, sub {
        my $c = $_[0] = { %{ $_[0] }, vocab_size => 151552, head_dim => 128, num_key_value_heads => 8, num_attention_heads => 96,
            first_k_dense_replace => $dense, use_qk_norm => $norm ? JSON::PP::true() : JSON::PP::false(), %own };
        my $n = $c->{num_hidden_layers};
        $c->{quantization_config}{ignore} = ['lm_head', (map { my $i = $_; map { "model.layers.$i.$_" } 'input_layernorm', 'post_attention_layernorm',
            'self_attn.q_proj.bias', 'self_attn.k_proj.bias', 'self_attn.v_proj.bias', 'mlp.gate' } 0 .. $n), "model.layers.$n.eh_proj"];
    });
    return $to;
}
mkdir "$dir/$_" for qw(GLM-4.6-FP8 GLM-4.5-Air-FP8);
my $big = full('fp8', "$dir/GLM-4.6-FP8/config.json", 1, 3, hidden_size => 5120, intermediate_size => 12288, moe_intermediate_size => 1536, num_hidden_layers => 92, n_routed_experts => 160);
my $small = full('fp8', "$dir/GLM-4.5-Air-FP8/config.json", 0, 1, hidden_size => 4096, intermediate_size => 10944, moe_intermediate_size => 1408, num_hidden_layers => 46, n_routed_experts => 128);
for ([$big, 'q4_k_m', '216.2', '361.3'], [$big, 'dq3_k_m', '161.3', '361.3'], [$small, 'q4_k_m', '72.8', '112.6'], [$small, 'dq3_k_m', '55.9', '112.6']) {
    my ($config, $recipe, $size, $read) = @$_;
    like(run($SLUICE, 'plan', $config, '--recipe', $recipe)->{out}, qr/^Size +\Q$size\E GB .*^Read +\Q$read\E GB/ms, "$recipe: $size GB");
}

# ---- a real llama.cpp
SKIP: {
    skip_without_llama(17);
    for (['fp8', 'Q4_K_M'], ['fp8', 'Q2_K'], ['tied', 'Q3_K_M'], ['air', 'IQ4_XS'], ['air', 'MXFP4_MOE'], ['air', 'Q2_0']) {
        my ($form, $mixture) = @$_;
        run_ok("$form: $mixture", $SLUICE, 'convert', $source{$form}, '-o', "$dir/$form-$mixture.gguf", '--recipe', $mixture, '--quiet');
        as_llama_quantize("$dir/$form-$mixture.gguf", $f32{$form}, $mixture);
    }
    run_ok('dq3_k_m', $SLUICE, 'convert', $source{fp8}, '-o', "$dir/fp8-dq3.gguf", '--recipe', 'dq3_k_m', '--quiet');
    make_text(map { "$dir/$_.gguf" } qw(fp8-Q4_K_M fp8-Q2_K fp8-dq3 tied-f32 air-IQ4_XS));
}

# GLM-4.6 in BF16 shares embedding and head with the layer for multi-token prediction.
{
    my $less = copy_checkpoint($source{air}, "$dir/less", 'model.safetensors');
    my $data = slurp("$less/model.safetensors");
    my $n = $data =~ s/"model\.layers\.3\.\K((?:embed_tokens|shared_head\.head)\.weight)(?=")/'x' x (length($1) - 15) . '.attention.bias'/ge;
    is($n, 2, 'two tensors of other names');
    spit("$less/model.safetensors", $data);
    run_ok('less', $SLUICE, 'convert', $less, '-o', "$dir/less.gguf", '--recipe', 'f32', '--quiet');
    my %want = %{ hashes($f32{air}) };
    delete @want{qw(blk.3.nextn.embed_tokens.weight blk.3.nextn.shared_head_head.weight)};
    is_deeply(hashes("$dir/less.gguf"), \%want, 'two tensors fewer');
}

# ---- GLM-4.7-Flash: DeepSeek-V3's form
my $flash = checkpoint("$dir/flash", qw(--layers 3 --dense 1 --mtp --hidden 256 --inter 512 --moe-inter 256 --experts 8 --heads 4
    --kv-heads 4 --q-lora 128 --kv-lora 128 --groups 1 --groups-used 1 --scales none --shards 1));
run_ok('its form', python('model_forms.py', 'flash', $flash));
for my $mtp (1, 0) {
    my $file = "$dir/flash-$mtp.gguf";
    my @no = $mtp ? () : '--no-mtp';
    run_ok('f32', $SLUICE, 'convert', $flash, '-o', $file, '--recipe', 'f32', '--quiet', @no);
    is(run(python('model_keys.py', 'flash', $flash, $file, @no))->{out}, 'equal ' . (38 + $mtp) . " keys\n", 'keys, tokens and their order');
}
is(run(python('reference.py', 'compare', $flash, "$dir/flash-1.gguf"))->{out}, "equal\n", 'every bit of the tensors');
is_deeply([grep { /^blk\.3\./ } keys %{ hashes("$dir/flash-0.gguf") }], [], 'no layer for multi-token prediction');
run_ok('verify', $SLUICE, 'verify', "$dir/flash-1.gguf", '--source', $flash, '--sample', '5%');
my $none = copy_checkpoint($flash, "$dir/none");
edit_json("$none/config.json", sub { $_[0]{num_nextn_predict_layers} = 0 });
run_ok('none told of', $SLUICE, 'convert', $none, '-o', "$dir/none.gguf", '--recipe', 'f32', '--quiet');
is_deeply(hashes("$dir/none.gguf"), hashes("$dir/flash-0.gguf"), 'is as none wanted');
for (['q4_k_m', '18.9'], ['dq3_k_m', '14.6']) {
    my ($recipe, $size) = @$_;
    my $p = plan_of("$TOP/tests/data/glm-4.7-flash-config.json", '--recipe', $recipe, '--ctx', 1000, '--devices', '1x24G');
    is(sprintf('%.1f', $p->{tensor_bytes} / 1e9), $size, "$recipe: $size GB");
    is($p->{source_bytes}, 62_442_983_168, 'the bytes that were published');
    is_deeply([map { @$_{qw(cache cache_bytes)} } @{ $p->{memory} }], ['compressed', 48 * 2 * (512 + 64) * 1000], 'cache');
}
SKIP: {
    skip_without_llama(8);
    for my $mixture (qw(Q4_K_M Q2_K)) {
        run_ok($mixture, $SLUICE, 'convert', $flash, '-o', "$dir/flash-$mixture.gguf", '--recipe', $mixture, '--quiet');
        as_llama_quantize("$dir/flash-$mixture.gguf", "$dir/flash-1.gguf", $mixture);
    }
    run_ok('dq3_k_m', $SLUICE, 'convert', $flash, '-o', "$dir/flash-dq3.gguf", '--recipe', 'dq3_k_m', '--quiet');
    make_text(map { "$dir/$_.gguf" } qw(flash-1 flash-dq3));
}

# ---- refused in one line
refused($source{fp8}, 'no norms', 6, qr/8 tensors unknown for Glm4MoeForCausalLM \(0 expected ones missing\): model\.layers\.0\.self_attn\.k_norm\.weight/, config_edit(sub { delete $_[0]{use_qk_norm} }));
refused($source{fp8}, 'a layer fewer', 6, qr/config\.json's num_nextn_predict_layers does not tell of all layers for multi-token prediction: correct it, or give --no-mtp$/,
    config_edit(sub { $_[0]{num_nextn_predict_layers} = 0 }));
refused($source{fp8}, 'another router', 6, qr/"scoring_func" is 'softmax'; supported for Glm4MoeForCausalLM: sigmoid$/, config_edit(sub { $_[0]{scoring_func} = 'softmax' }));
refused($source{air}, 'an odd part', 7, qr/"partial_rotary_factor" is 0\.08 of heads of 64: an even number of their rows is needed$/,
    config_edit(sub { $_[0]{rope_parameters} = { rope_type => 'default', partial_rotary_factor => 0.08 } }));
refused($source{air}, 'more experts than there are', 7, qr/"num_experts_per_tok" is 17 of 16 experts$/, config_edit(sub { $_[0]{num_experts_per_tok} = 17 }));
refused($source{air}, 'no experts', 7, qr/config\.json has no "n_routed_experts", which Glm4MoeForCausalLM needs$/, config_edit(sub { $_[0]{n_routed_experts} = undef }));
refused($flash, '--layout legacy', 2, qr/--layout legacy: llama\.cpp runs Glm4MoeLiteForCausalLM in the layout mla alone$/, sub { }, 'plan', '--layout', 'legacy');

done_testing();
