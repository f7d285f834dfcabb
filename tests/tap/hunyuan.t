# Checkpoints in the form of Hunyuan-A13B, whose tokenizer is in hy.tiktoken, and of Hy3, in BF16 and in FP8 with a scale for each
# tensor. Metadata and tensors against an independent computation (which the real converter's files were held against, too) and
# llama-quantize, files loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use JSON::PP ();
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my %source = map { $_ => "$dir/$_" } qw(a13b a13b8 hy3 hy38 said);
my $yarn = 'rope_parameters={"rope_theta":5e6,"rope_type":"yarn","factor":2.0,"original_max_position_embeddings":131072}';
my %options = (a13b => [], a13b8 => [qw(--fp8 --set bos_token_id=null)], hy3 => ['--hy3'], hy38 => [qw(--hy3 --fp8)],
    said => ['--hy3', map { ('--set', $_) } 'mlp_layer_types=["dense","dense","sparse"]', 'first_k_dense_replace=2', 'num_shared_experts=2', 'route_norm=false',
        'router_scaling_factor=1.5', $yarn]);
my %keys = (a13b => 29, a13b8 => 29, hy3 => 27, hy38 => 27, said => 30);
run_ok("made: $_", python('hunyuan.py', 'make', $source{$_}, @{ $options{$_} })) for sort keys %source;

sub same { return same_by('hunyuan.py', @_) }

# ---- metadata and tensors
for my $form (sort keys %source) {
    my @recipes = $form =~ /8/ ? 'f32' : qw(f32 bf16);
    converted($source{$form}, "$form-$_", '--recipe', $_, '-q') for @recipes;
    same("$form: every bit of the tensors", 'compare', $source{$form}, map { "$dir/$form-$_.gguf" } @recipes);
    is(same('keys, tokens and their order', 'keys', $source{$form}, "$dir/$form-f32.gguf"), "equal $keys{$form} keys\n", 'how many');
}
converted($source{hy38}, 'short', '--recipe', 'f32', '--no-mtp', '-q');
same('--no-mtp: every bit of the tensors', 'compare', $source{hy38}, "$dir/short.gguf", '--no-mtp');
is(same('--no-mtp: keys', 'keys', $source{hy38}, "$dir/short.gguf", '--no-mtp'), "equal 26 keys\n", 'how many');
is(kv_of("$dir/hy38-f32.gguf", 'general.size_label'), "8x4.3M\n", 'size label');
for my $form (qw(a13b8 hy38)) {
    run_ok('verify', $SLUICE, 'verify', "$dir/$form-f32.gguf", '--source', $source{$form}, '--sample', '20%');
    for my $recipe (qw(dq3_k_m q4_k_m)) { # a GGUF file gives what the checkpoint gives
        converted($source{$form}, "$form-$recipe", '--recipe', $recipe, '-q');
        run_ok('in two steps', $SLUICE, 'convert', "$dir/$form-f32.gguf", '-o', "$dir/steps.gguf", '--recipe', $recipe, '--quiet', '--force');
        is_deeply(hashes("$dir/steps.gguf"), hashes("$dir/$form-$recipe.gguf"), "$recipe: the same tensors");
    }
}

# The comparisons can fail: a scale that is not applied; another key.
{
    my %at = map { $_->[0] => $_->[1] } where("$dir/hy38-f32.gguf");
    my $data = slurp("$dir/hy38-f32.gguf");
    substr($data, $at{'blk.3.ffn_up_shexp.weight'}, 4) = pack 'f<', 2 * unpack('f<', substr $data, $at{'blk.3.ffn_up_shexp.weight'}, 4) + 1;
    spit("$dir/bad.gguf", $data);
    is(run(python('hunyuan.py', 'compare', $source{hy38}, "$dir/bad.gguf"))->{out}, "blk.3.ffn_up_shexp.weight: bytes differ (F32)\n", 'another value');
    like(run($SLUICE, 'verify', "$dir/bad.gguf", '--source', $source{hy38}, '--sample', '100%')->{out}, qr/blk\.3\.ffn_up_shexp\.weight/, 'verify sees it');
    my $text = slurp("$source{a13b}/config.json");
    edit_json("$source{a13b}/config.json", sub { $_[0]{rope_scaling}{type} = 'default' });
    is(run(python('hunyuan.py', 'keys', $source{a13b}, "$dir/a13b-f32.gguf"))->{rc}, 1, 'another key');
    spit("$source{a13b}/config.json", $text);
    my $lines = slurp("$source{a13b}/hy.tiktoken");
    spit("$source{a13b}/hy.tiktoken", $lines =~ s/^(\S+) 7\n(\S+) 8$/$2 7\n$1 8/mr);
    is(run(python('hunyuan.py', 'keys', $source{a13b}, "$dir/a13b-f32.gguf"))->{rc}, 1, 'tokens in another order');
    spit("$source{a13b}/hy.tiktoken", $lines);
}

# ---- plans
for my $form (qw(a13b hy3)) {
    my @plans = map { plan_of($_, '--ctx', 1024) } $source{$form}, "$source{$form}/config.json", "$dir/$form-f32.gguf";
    is($plans[1]{source_bytes}, $plans[0]{source_bytes}, "$form: config.json alone: the bytes that are there");
    # llama.cpp has no cache for Hy3's layer for multi-token prediction.
    is($_->{memory}[0]{cache_bytes}, 2 * 1024 * 3 * 2 * 128, 'cache') for @plans;
}
for (['hunyuan-a13b', '80393183232 482', 160.8, 48.8, 37.5], ['hy3-fp8', '298786155776 1298', 299.9, 181.0, 134.6]) {
    my ($model, $weights, $read, @size) = @$_;
    my $full = "$TOP/tests/data/$model-config.json";
    my $p = plan_of($full);
    is("$p->{model}{weights} $p->{model}{tensors}", $weights, "$model: weights and tensors");
    for my $recipe (qw(q4_k_m dq3_k_m)) {
        my $size = sprintf '%.1f', shift @size;
        like(run($SLUICE, 'plan', $full, '--recipe', $recipe)->{out}, qr/^Size +\Q$size\E GB .*^Read +\Q$read\E GB/ms, "$recipe: $size GB");
    }
}

# Hunyuan-A13B-Instruct-FP8, of which 80.9 GB are published, has another model_type.
spit("$dir/config.json", slurp("$TOP/tests/data/hunyuan-a13b-config.json"));
edit_json("$dir/config.json", sub { $_[0]{model_type} = 'hunyuan'; $_[0]{quantization_config} = { quant_method => 'fp8', activation_scheme => 'static' } });
is(sprintf('%.1f', plan_of("$dir/config.json")->{source_bytes} / 1e9), '80.9', 'Hunyuan-A13B in FP8');
like(run($SLUICE, 'plan', "$dir/config.json", '--recipe', 'q8_0')->{out}, qr/will need the \.safetensors files and the tokenizer \(hy\.tiktoken\) beside it$/m, 'its tokenizer');

# ---- a real llama.cpp
SKIP: {
    skip_without_llama(17);
    for my $case (['a13b', 'Q4_K_M'], ['hy38', 'Q3_K_M'], ['hy3', 'IQ4_XS'], ['said', 'MXFP4_MOE']) {
        my ($form, $mixture) = @$case;
        converted($source{$form}, "$form-$mixture", '--recipe', $mixture, '-q');
        as_llama_quantize("$dir/$form-$mixture.gguf", "$dir/$form-f32.gguf", $mixture);
    }
    iq2_xs($source{hy38}, "$dir/short.gguf", '--no-mtp');
    make_text(map { "$dir/$_.gguf" } qw(a13b-f32 a13b8-f32 hy3-f32 short said-f32 a13b-Q4_K_M hy38-dq3_k_m iq2_xs));
}

# ---- refused in one line
sub entry {
    my (%to) = @_;
    return config_edit(sub { @{ $_[0] }{ keys %to } = values %to });
}

sub python_edit {
    my ($from, $to) = @_;
    return sub { spit("$_[0]/tokenization_hy.py", slurp("$_[0]/tokenization_hy.py") =~ s/\Q$from\E/$to/r) };
}
my ($true, $false) = (JSON::PP::true(), JSON::PP::false());
my $a13b = $source{a13b};
refused($a13b, 'other numbers', 6, qr/rope_scaling of type dynamic with alpha 500, rope_theta 10000, heads of 128 rows and a context of 32768; supported for HunYuanMoEV1ForCausalLM: 1000, /,
    config_edit(sub { $_[0]{rope_scaling}{alpha} = 500 }));
refused($a13b, 'layers that differ', 6, qr/"moe_topk" has other numbers than 2, and llama\.cpp's hunyuan-moe has one for all layers$/, entry(moe_topk => [2, 2, 1]));
refused($a13b, 'no list', 7, qr/config\.json has no "moe_topk", a positive integer or a list of such, which HunYuanMoEV1ForCausalLM needs$/, entry(moe_topk => []));
refused($a13b, 'more than all experts', 7, qr/config\.json: "moe_topk" is 99 of \d+ experts$/, entry(moe_topk => 99));
refused($a13b, 'narrower experts', 6, qr/has experts of "intermediate_size" and one shared one in all layers; "moe_intermediate_size",/, entry(moe_intermediate_size => [128, 128, 128]));
refused($a13b, 'keys of other layers', 6, qr/"use_cla" is true, and llama\.cpp's hunyuan-moe has keys of its own in each layer$/, entry(use_cla => $true));
refused($a13b, 'no norms', 6, qr/"use_qk_norm" is false, and llama\.cpp's hunyuan-moe has norms on the heads of q and k$/, entry(use_qk_norm => $false));
refused($a13b, 'no tokenizer', 7, qr/hy\.tiktoken is missing$/, sub { unlink "$_[0]/hy.tiktoken" }, 'convert');
refused($a13b, 'another class', 6, qr/\(hy\.tiktoken\) of tokenizer_class 'QWenTokenizer' in tokenizer_config\.json; supported: 'HYTokenizer', Hunyuan-A13B's$/,
    sub { edit_json("$_[0]/tokenizer_config.json", sub { $_[0]{tokenizer_class} = 'QWenTokenizer' }) }, 'convert');
refused($a13b, 'other rules', 6, qr/tokenization_hy\.py splits texts by other rules than Hunyuan-A13B's, or has other special tokens/, python_edit('|\p{N}|', '|\p{N}{1,3}|'), 'convert');
refused($a13b, 'other special tokens', 6, qr/tokenization_hy\.py splits texts by other rules/, python_edit('range(205)', 'range(206)'), 'convert');
refused($a13b, 'a token too few', 7, qr/hy\.tiktoken has 899 tokens, which with 210 special ones are not the 1110 of config\.json's vocab_size/,
    sub { spit("$_[0]/hy.tiktoken", slurp("$_[0]/hy.tiktoken") =~ s/[^\n]+\n\z//r) }, 'convert');
refused($source{hy3}, 'dense behind experts', 6, qr/"mlp_layer_types" has another entry for layer 2 than dense in the first layers and sparse/, entry(mlp_layer_types => [qw(dense sparse dense)]));
refused($source{hy3}, 'too few', 7, qr/"mlp_layer_types" is no list of 3 entries/, entry(mlp_layer_types => ['dense']));
refused($source{hy3}, 'softmax', 6, qr/"moe_router_use_sigmoid" is false, and llama\.cpp's hy_v3 has routing by sigmoid$/, entry(moe_router_use_sigmoid => $false));
refused($source{hy3}, 'softmax by another name', 6, qr/"scoring_func" is 'softmax'; supported for HYV3ForCausalLM: sigmoid$/, entry(scoring_func => 'softmax'));
refused($source{hy3}, 'one that is not there', 7, qr/missing from the checkpoint: .* Without layers for multi-token prediction, give --no-mtp$/, entry(num_nextn_predict_layers => 2));
refused($source{hy38}, 'a NaN', 7, qr/tensor 'model\.layers\.1\.mlp\.experts\.7\.up_proj\.weight' in '.*': row 127, column 255 is NaN or infinite/,
    tensor_edit('model.layers.1.mlp.experts.7.up_proj.weight', 128 * 256 - 1, "\x7f"), 'convert');

done_testing();
