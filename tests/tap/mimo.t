# Checkpoints in MiMo-V2-Flash's form, in V2.5's, whose queries, keys and values are one matrix of parts, and with V2.6's experts: metadata and tensors
# against an independent computation (which the real converter's files were held against, too) and llama-quantize, files loaded
# by a real llama.cpp; and what is refused.
use strict;
use warnings;
use JSON::PP ();
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my %source = map { $_ => "$dir/$_" } qw(flash four eight bare v26);
my %options = (flash => [], v26 => [qw(--mxfp4)], four => [qw(--parts 4)], eight => [qw(--parts 8)], bare => [qw(--bf16 --no-mtp --set attention_value_scale=null --set), 'hybrid_layer_pattern=[1,0,1,1]', qw(--set num_key_value_heads=8 --set swa_num_key_value_heads=2)]);
run_ok("made: $_", python('mimo.py', 'make', $source{$_}, @{ $options{$_} })) for sort keys %source;

sub same { return same_by('mimo.py', @_) }

# ---- metadata and tensors
converted($source{$_}, "$_-f32", '--recipe', 'f32') for qw(flash four eight);
converted($source{flash}, 'flash-bf16', '--recipe', 'bf16');
same('every bit of the tensors', 'compare', $source{flash}, "$dir/flash-f32.gguf", "$dir/flash-bf16.gguf");
same("$_: every bit of the tensors", 'compare', $source{$_}, "$dir/$_-f32.gguf") for qw(four eight);
is(same("$_: keys and their order", 'keys', $source{$_}, "$dir/$_-f32.gguf"), "equal 31 keys\n", 'how many') for qw(flash four);
is(kv_of("$dir/flash-f32.gguf", 'general.size_label'), "8x8.0M\n", 'size label');
run_ok('verify', $SLUICE, 'verify', "$dir/$_-f32.gguf", '--source', $source{$_}) for qw(flash four eight);
run_ok('diff', $SLUICE, 'diff', $source{four}, "$dir/four-f32.gguf");
like(run($SLUICE, 'plan', $source{four}, '--recipe', 'q8_0')->{err}, qr/note: the vision part \(3 tensors\) is left out/, 'what sees and hears is left out');

# Without layers for multi-token prediction, asked for or not there: the same keys, one less.
converted($source{four}, 'short', '--recipe', 'f32', '--no-mtp');
converted($source{bare}, 'bare-f32', '--recipe', 'f32');
for (['short', $source{four}], ['bare-f32', $source{bare}]) {
    same("$_->[0]: tensors", 'compare', $_->[1], "$dir/$_->[0].gguf", '--no-mtp');
}
is(same('--no-mtp: keys', 'keys', $source{four}, "$dir/short.gguf", '--no-mtp'), "equal 30 keys\n", 'how many');
is(kv_of("$dir/bare-f32.gguf", $_->[0]), $_->[1], "without them: $_->[0]") for ['mimo2.block_count', "4\n"], ['mimo2.attention.value_scale', ''];

# Experts in MXFP4 are kept, as the converter of October has it with --fp8-as-q8, or made anything else of their values.
converted($source{v26}, 'own', '--recipe', 'v4-mxfp4');
converted($source{v26}, 'v26-f32', '--recipe', 'f32');
same('MXFP4 that is kept, q8_0 of FP8', 'compare', $source{v26}, map { "$dir/$_.gguf" } qw(own v26-f32));
my %count;
$count{$_}++ for run($SLUICE, 'inspect', '-t', "$dir/own.gguf")->{out} =~ /^(\w+) .*\]  +\S+$/mg;
is_deeply(\%count, { mxfp4 => 9, q8_0 => 33, bf16 => 12, f32 => 35 }, 'types');
is(kv_of("$dir/own.gguf", 'general.file_type'), "38\n", 'file type');
is(same('its keys', 'keys', $source{v26}, "$dir/own.gguf"), "equal 31 keys\n", 'how many');
run_ok('verify', $SLUICE, 'verify', "$dir/own.gguf", '--source', $source{v26}, '--sample', '100%');

# Parts on a GPU, and with importance weights made from the source.
for my $case (['four', 'q4_k_m'], ['eight', 'q3_k_m', '--imatrix', 'synthetic']) {
    my ($form, $recipe, @weights) = @$case;
    converted($source{$form}, "cpu-$recipe", '--recipe', $recipe, @weights);
    my $r = run($BUILD . '/tools/emulated_gpu', 'convert', $source{$form}, '-o', "$dir/gpu.gguf", '--recipe', $recipe, @weights, '--device', 'cuda:0', '--quiet', '--force');
    is($r->{rc} ? $r->{err} : sha256("$dir/gpu.gguf"), sha256("$dir/cpu-$recipe.gguf"), "$recipe @weights: the same file of an emulated GPU");
    run_ok('verify', $SLUICE, 'verify', "$dir/cpu-$recipe.gguf", '--source', $source{$form}, '--sample', '20%');
}

# A GGUF file gives what the checkpoint gives.
for my $recipe (qw(dq3_k_m q4_k_m)) {
    converted($source{flash}, "ours-$recipe", '--recipe', $recipe);
    run_ok('in two steps', $SLUICE, 'convert', "$dir/flash-f32.gguf", '-o', "$dir/steps.gguf", '--recipe', $recipe, '--quiet', '--force');
    is_deeply(hashes("$dir/steps.gguf"), hashes("$dir/ours-$recipe.gguf"), "$recipe: the same tensors");
}

# The comparisons can fail: two rows of another part in each other's place.
{
    my %at = map { $_->[0] => $_->[1] } where("$dir/four-f32.gguf");
    my $data = slurp("$dir/four-f32.gguf");
    my ($at, $row) = ($at{'blk.1.attn_qkv.weight'}, 4 * 256);
    my $first = substr($data, $at, $row);
    substr($data, $at, $row) = substr($data, $at + 192 * $row, $row);
    substr($data, $at + 192 * $row, $row) = $first;
    spit("$dir/bad.gguf", $data);
    is(run(python('mimo.py', 'compare', $source{four}, "$dir/bad.gguf"))->{out}, "blk.1.attn_qkv.weight: bytes differ (F32)\n", 'parts that differ');
    like(run($SLUICE, 'verify', "$dir/bad.gguf", '--source', $source{four}, '--sample', '100%')->{out}, qr/blk\.1\.attn_qkv\.weight/, 'verify sees it');
    edit_json("$source{flash}/config.json", sub { $_[0]{swa_rope_theta} = 9000 });
    is(run(python('mimo.py', 'keys', $source{flash}, "$dir/flash-f32.gguf"))->{rc}, 1, 'another key');
    edit_json("$source{flash}/config.json", sub { $_[0]{swa_rope_theta} = 10000 });
}

# ---- plans
my @plans = map { plan_of($_, '--ctx', 4096) } $source{flash}, "$source{flash}/config.json", "$dir/flash-f32.gguf";
is($plans[1]{source_bytes}, $plans[0]{source_bytes}, 'config.json alone: the bytes that are there');
# What llama.cpp allocates: two layers cache all tokens, two those of a window and of a micro-batch, of more heads.
is($_->{memory}[0]{cache} . ' ' . $_->{memory}[0]{cache_bytes}, 'windowed ' . 2 * 2 * (96 + 64) * (2 * 4096 + 4 * 768), 'cache') for @plans;
# A GGUF file may have such lists in other types.
sub with_type {
    my ($gguf, $key, $from, $to) = @_;
    my $data = slurp($gguf);
    $data =~ s/(\Q$key\E\x09\0{3})\Q$from\E\0{3}/$1$to\0\0\0/s or die "$key: no list of that type";
    spit("$dir/typed.gguf", $data);
    return plan_of("$dir/typed.gguf", '--ctx', 4096)->{memory}[0]{cache_bytes};
}
for my $key ('sliding_window_pattern', 'head_count_kv') {
    is(with_type("$dir/flash-f32.gguf", "mimo2.attention.$key", "\x05", "\x04"), $plans[0]{memory}[0]{cache_bytes}, "$key of u32");
}
is(plan_of("$source{v26}/config.json")->{source_bytes}, plan_of($source{v26})->{source_bytes}, 'config.json alone: experts in MXFP4');
my %published = ('mimo-v2-flash' => [610, 186.3, 140.4], 'mimo-v2.5' => [508, 186.7, 140.4]);
for my $model (sort keys %published) {
    my ($tensors, @sizes) = @{ $published{$model} };
    my $plan = plan_of("tests/data/$model-config.json", '--ctx', 32768);
    is("$plan->{model}{weights} $plan->{model}{tensors}", "309766601088 $tensors", "$model: weights and tensors");
    is($plan->{memory}[0]{cache_bytes}, 2 * (192 + 128) * (9 * 4 * 32768 + 39 * 8 * 768), 'its cache');
    like(run($SLUICE, 'plan', "tests/data/$model-config.json", '--recipe', $_->[0])->{out}, qr/^Size +\Q$_->[1]\E GB .*^Read +313\.0 GB/ms, "$_->[0]: $_->[1] GB")
        for ['q4_k_m', $sizes[0]], ['dq3_k_m', $sizes[1]];
}

spit("$dir/config.json", slurp("$TOP/tests/data/mimo-v2.5-config.json"));
edit_json("$dir/config.json", sub { $_[0]{quantization_config}{store_dtype} = 'mxfp4' });
like(run($SLUICE, 'plan', "$dir/config.json", '--recipe', 'v4-mxfp4')->{out}, qr/^Size +171\.3 GB .*^Read +170\.9 GB/ms, 'V2.6-Flash');

# ---- a real llama.cpp
SKIP: {
    skip_without_llama(20);
    for my $case (['flash', 'Q4_K_M'], ['four', 'Q3_K_M'], ['bare', 'Q2_K'], ['flash', 'MXFP4_MOE'], ['v26', 'Q4_K_M']) { # of bare the first layer has a window: its heads count
        my ($form, $mixture) = @$case;
        converted($source{$form}, "$form-$mixture", '--recipe', $mixture);
        as_llama_quantize("$dir/$form-$mixture.gguf", "$dir/$form-f32.gguf", $mixture);
    }
    iq2_xs($source{four}, "$dir/short.gguf", '--no-mtp');
    make_text(map { "$dir/$_.gguf" } qw(own flash-f32 four-f32 flash-Q4_K_M four-Q3_K_M bare-Q2_K ours-dq3_k_m iq2_xs));
}

# ---- refused in one line
my $of = 'MiMoV2FlashForCausalLM';
my $flash = $source{flash};
refused($flash, 'heads of two lengths', 6, qr/"swa_head_dim" is not what "head_dim" is, and llama\.cpp's mimo2 has one for all layers$/, config_edit(sub { $_[0]{swa_head_dim} = 64 }));
refused($flash, 'no list of windows', 7, qr/"hybrid_layer_pattern" is no list of 4 entries, one for each layer$/, config_edit(sub { pop @{ $_[0]{hybrid_layer_pattern} } }));
refused($flash, 'an entry for a layer', 7, qr/"moe_layer_freq" has an entry for layer 2 that is not 0 or 1$/, config_edit(sub { $_[0]{moe_layer_freq}[2] = 2 }));
refused($flash, 'no window', 6, qr/"hybrid_layer_pattern" tells of no layer with a window, without which llama\.cpp's mimo2 does not run$/,
    config_edit(sub { $_[0]{hybrid_layer_pattern} = [0, 0, 0, 0] }));
refused($flash, 'another layer', 7, qr/tensor 'model\.layers\.0\.self_attn\.k_proj\.weight': expected shape \[384, 256\] by config\.json, found \[192, 256\]$/,
    config_edit(sub { $_[0]{hybrid_layer_pattern}[0] = 1 }));
refused($flash, 'a shared expert', 6, qr/"n_shared_experts" is not 0, and llama\.cpp's mimo2 has none$/, config_edit(sub { $_[0]{n_shared_experts} = 1 }));
refused($flash, 'a scale of experts', 6, qr/"routed_scaling_factor" is not 1, and llama\.cpp's mimo2 has 1$/, config_edit(sub { $_[0]{routed_scaling_factor} = 2.5 }));
refused($flash, 'experts as they come', 6, qr/"norm_topk_prob" is false, /, config_edit(sub { $_[0]{norm_topk_prob} = JSON::PP::false() }));
refused($flash, 'another choice', 6, qr/"topk_method" is 'greedy'; supported for $of: noaux_tc$/, config_edit(sub { $_[0]{topk_method} = 'greedy' }));
refused($flash, 'softmax', 6, qr/"scoring_func" is 'softmax'; supported for $of: sigmoid$/, config_edit(sub { $_[0]{scoring_func} = 'softmax' }));
refused($flash, 'biases', 6, qr/"attention_bias" is true, and llama\.cpp's mimo2 has no biases$/, config_edit(sub { $_[0]{attention_bias} = JSON::PP::true() }));
refused($flash, 'half a rotary embedding', 7, qr/has no "partial_rotary_factor", which $of needs$/, config_edit(sub { delete $_[0]{partial_rotary_factor} }));
refused($source{v26}, 'groups of another size', 6, qr/quantization_config\.mxfp4_block_size is 16; supported: 32$/, config_edit(sub { $_[0]{quantization_config}{mxfp4_block_size} = 16 }));
refused($source{v26}, 'an exponent that is none', 7, qr/tensor 'model\.layers\.1\.mlp\.experts\.3\.up_proj\.weight': scale \[0, 1\] in '.*_scale' .* is nan, /,
    tensor_edit('model.layers.1.mlp.experts.3.up_proj.weight_scale', 1, "\xff"), 'convert');
refused($flash, 'heads that do not divide', 7, qr/8 heads cannot be divided among 3 "num_key_value_heads" and 4 "swa_num_key_value_heads"$/, config_edit(sub { $_[0]{num_key_value_heads} = 3 }));
refused($flash, 'one layer for multi-token prediction', 6, qr/"num_nextn_predict_layers" is 1; supported for $of: 3, or --no-mtp$/, config_edit(sub { $_[0]{num_nextn_predict_layers} = 1 }));
refused($flash, 'none by config.json', 6, qr/\d+ tensors unknown .*; config\.json's num_nextn_predict_layers does not tell of all layers for multi-token prediction: correct it, or give --no-mtp$/,
    config_edit(sub { $_[0]{num_nextn_predict_layers} = 0 }));
refused($source{bare}, 'ones that are not there', 7, qr/\d+ tensors missing from the checkpoint: .* Without layers for multi-token prediction, give --no-mtp$/,
    config_edit(sub { $_[0]{num_nextn_predict_layers} = 3 }));
refused($flash, 'a sink less', 7, qr/missing from the checkpoint: model\.layers\.0\.self_attn\.attention_sink_bias, /, config_edit(sub { $_[0]{add_full_attention_sink_bias} = JSON::PP::true() }));
refused($source{four}, 'scales of no parts', 7, qr/scale 'model\.mtp\.layers\.0\.self_attn\.qkv_proj\.weight_scale_inv' of shape \[12, 2\] does not fit .*: expected blocks of 8 or of 4 parts of its rows$/,
    config_edit(sub { $_[0]{quantization_config}{weight_block_size} = [64, 128] }));
refused($source{eight}, 'parts of half a head', 7, qr/tensor 'model\.layers\.0\.self_attn\.qkv_proj\.weight': expected shape/, config_edit(sub { $_[0]{v_head_dim} = $_[0]{swa_v_head_dim} = 63 }));
refused($source{four}, 'a NaN in the last part', 7, qr/tensor 'model\.layers\.1\.self_attn\.qkv_proj\.weight' in '.*': row 1407, column 255 is NaN or infinite/,
    tensor_edit('model.layers.1.self_attn.qkv_proj.weight', 1408 * 256 - 1, "\x7f"), 'convert');

done_testing();
