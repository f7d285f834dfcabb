# Checkpoints in Qwen3.5's form, with experts and dense, in BF16 and in FP8, whole and as text models alone, and in
# Qwen3-Next's. Metadata and tensors against an independent computation (which the real converter's files were held
# against, too) and llama-quantize, files loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use JSON::PP ();
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my %source = map { $_ => "$dir/$_" } qw(moe fp8 joined dense alike next);
my %options = (moe => [], fp8 => ['--fp8'], joined => [qw(--fp8 --joined)], dense => [qw(--dense --fp8 --text)],
    next => [qw(--next --fp8)], alike => ['--apart', '--mtp', 0, '--set', 'linear_num_key_heads=6', '--set', 'num_hidden_layers=2', '--set', 'full_attention_interval=2']);
my %keys = (moe => 22, fp8 => 22, joined => 22, dense => 19, alike => 21, next => 22);
run_ok("made: $_", python('qwen35.py', 'make', $source{$_}, @{ $options{$_} })) for sort keys %source;

sub same { return same_by('qwen35.py', @_) }

# ---- metadata and tensors
for my $form (sort keys %source) {
    my @recipes = $form =~ /^(?:fp8|moe)$/ ? qw(f32 bf16) : 'f32';
    converted($source{$form}, "$form-$_", '--recipe', $_) for @recipes;
    same("$form: every bit of the tensors", 'compare', $source{$form}, map { "$dir/$form-$_.gguf" } @recipes);
    is(same('keys and their order', 'keys', $source{$form}, "$dir/$form-f32.gguf"), "equal $keys{$form} keys\n", 'how many');
    run_ok('verify', $SLUICE, 'verify', "$dir/$form-f32.gguf", '--source', $source{$form});
    run_ok('diff', $SLUICE, 'diff', $source{$form}, "$dir/$form-f32.gguf");
}
is(kv_of("$dir/fp8-f32.gguf", 'tokenizer.ggml.pre'), "qwen35\n", 'the rules that split text');
is(kv_of("$dir/fp8-f32.gguf", 'general.size_label'), "4x6.9M\n", 'size label');
like(run($SLUICE, 'plan', $source{moe}, '--recipe', 'q8_0')->{err}, qr/note: the vision part \(2 tensors\) is left out/, 'its vision');

# Frequencies of the rotary embedding, as older libraries stored them, are left out.
my $old = copy_checkpoint($source{moe}, "$dir/old", 'model.safetensors');
header_edit(sub { s/model\.visual\.patch_embed\.proj\.bias/model.layers.0.rotary_emb.inv_freq/ or die })->($old);
converted($old, 'old', '--recipe', 'f32');
is_deeply(hashes("$dir/old.gguf"), hashes("$dir/moe-f32.gguf"), 'stored frequencies');
header_edit(sub { s/"\Kmtp\./model.mtp./g or die })->($old);
converted($old, 'old', '--recipe', 'f32', '--force');
is_deeply(hashes("$dir/old.gguf"), hashes("$dir/moe-f32.gguf"), 'multi-token prediction under the other name');

converted($source{fp8}, 'short', '--recipe', 'f32', '--no-mtp');
same('--no-mtp: tensors', 'compare', $source{fp8}, "$dir/short.gguf", '--no-mtp');
same('--no-mtp: keys', 'keys', $source{fp8}, "$dir/short.gguf", '--no-mtp');

# The rotary embedding's sections as the converter has them where config.json has none, behind the other keys.
my $plain = copy_checkpoint($source{dense}, "$dir/plain");
edit_json("$plain/config.json", sub { delete $_[0]{rope_parameters}{mrope_section} });
converted($plain, 'plain', '--recipe', 'bf16', '--no-mtp');
same('without sections', 'keys', $plain, "$dir/plain.gguf", '--no-mtp');

# Every order on a GPU, and with importance weights made from the source.
for my $case (['fp8', 'q4_k_m'], ['joined', 'q3_k_m', '--imatrix', 'synthetic'], ['next', 'q6_k']) {
    my ($form, $recipe, @weights) = @$case;
    converted($source{$form}, "cpu-$recipe", '--recipe', $recipe, @weights);
    my $r = run($BUILD . '/tools/emulated_gpu', 'convert', $source{$form}, '-o', "$dir/gpu.gguf", '--recipe', $recipe, @weights, '--device', 'cuda:0', '--quiet', '--force');
    is($r->{rc} ? $r->{err} : sha256("$dir/gpu.gguf"), sha256("$dir/cpu-$recipe.gguf"), "$recipe @weights: the same file of an emulated GPU");
    run_ok('verify', $SLUICE, 'verify', "$dir/cpu-$recipe.gguf", '--source', $source{$form}, '--sample', '20%');
}

# The comparisons can fail: two heads in the wrong order.
{
    my %at = map { $_->[0] => $_->[1] } where("$dir/fp8-f32.gguf");
    my $data = slurp("$dir/fp8-f32.gguf");
    my $heads = substr($data, $at{'blk.0.ssm_dt.bias'}, 24);
    substr($data, $at{'blk.0.ssm_dt.bias'}, 24) = substr($heads, 0, 4) . substr($heads, 8, 4) . substr($heads, 4, 4) . substr($heads, 12);
    spit("$dir/bad.gguf", $data);
    is(run(python('qwen35.py', 'compare', $source{fp8}, "$dir/bad.gguf"))->{out}, "blk.0.ssm_dt.bias: bytes differ (F32)\n", 'heads that differ');
    like(run($SLUICE, 'verify', "$dir/bad.gguf", '--source', $source{fp8}, '--sample', '100%')->{out}, qr/blk\.0\.ssm_dt\.bias/, 'verify sees it');
    my $text = slurp("$source{fp8}/config.json");
    edit_json("$source{fp8}/config.json", sub { $_[0]{text_config}{linear_conv_kernel_dim} = 3 });
    is(run(python('qwen35.py', 'keys', $source{fp8}, "$dir/fp8-f32.gguf"))->{rc}, 1, 'another key');
    spit("$source{fp8}/config.json", $text);
}

# ---- plans
my @plans = map { plan_of($_, '--ctx', 256) } $source{moe}, "$source{moe}/config.json", "$dir/moe-f32.gguf";
is($plans[1]{source_bytes}, $plans[0]{source_bytes}, 'config.json alone: the bytes that are there');
# What llama.cpp allocates: one layer of four has a cache, in F16; three have a state, in F32.
is($_->{memory}[0]{cache_bytes}, 2 * 256 * 2 * (64 + 64) + 4 * 3 * (128 * 768 + 3 * (768 + 2 * 256)), 'cache and states') for @plans;
my $full = 'tests/data/qwen3.5-397b-a17b-fp8-config.json';
my $published = plan_of($full);
is("$published->{model}{weights} $published->{model}{tensors}", '402941918464 1118', 'the published model: weights and tensors');
my %small = (
    '122B' => [126.3, 75.8, 57.3, { hidden_size => 3072, num_hidden_layers => 48, num_experts => 256, num_experts_per_tok => 8 }],
    '35B' => [36.6, 21.7, 16.6, { hidden_size => 2048, num_hidden_layers => 40, num_experts => 256, num_experts_per_tok => 8, moe_intermediate_size => 512,
              shared_expert_intermediate_size => 512, num_attention_heads => 16, linear_num_value_heads => 32 }],
    '397B' => [405.3, 244.3, 182.9, {}]);
for my $size (sort keys %small) {
    my ($read, $q4, $dq3, $change) = @{ $small{$size} };
    spit("$dir/config.json", slurp("$TOP/$full"));
    edit_json("$dir/config.json", sub {
        my $t = $_[0]{text_config};
        $t->{$_} = $change->{$_} for keys %$change;
        splice @{ $t->{layer_types} }, $t->{num_hidden_layers};
    });
    like(run($SLUICE, 'plan', "$dir/config.json", '--recipe', $_->[0])->{out}, qr/^Size +\Q$_->[1]\E GB .*^Read +\Q$read\E GB/ms, "$size by $_->[0]: $_->[1] GB")
        for ['q4_k_m', $q4], ['dq3_k_m', $dq3];
}

# ---- a real llama.cpp
SKIP: {
    skip_without_llama(18);
    for my $case (['fp8', 'Q4_K_M'], ['moe', 'Q2_K'], ['dense', 'IQ4_XS'], ['next', 'Q5_K_S'], ['next', 'MXFP4_MOE'], ['moe', 'Q1_0']) {
        my ($form, $mixture) = @$case;
        converted($source{$form}, "$form-$mixture", '--recipe', $mixture);
        as_llama_quantize("$dir/$form-$mixture.gguf", "$dir/$form-f32.gguf", $mixture);
    }
    converted($source{$_}, "$_-dq3", '--recipe', 'dq3_k_m') for qw(fp8 dense);
    make_text(map { "$dir/$_.gguf" } qw(fp8-f32 fp8-Q4_K_M moe-Q2_K fp8-dq3 dense-dq3 next-Q5_K_S));
}

# ---- refused in one line
sub text_edit {
    my ($change) = @_;
    return config_edit(sub { $change->($_[0]{text_config} // $_[0]) });
}
my $p = 'model.language_model.layers.';
refused($source{fp8}, 'heads that do not divide', 7, qr/"linear_num_value_heads" 6 cannot be divided among 4 "linear_num_key_heads"$/, text_edit(sub { $_[0]{linear_num_key_heads} = 4 }));
refused($source{fp8}, 'heads of two widths', 6, qr/"linear_key_head_dim" and "linear_value_head_dim" differ, which llama\.cpp's qwen35moe cannot have$/, text_edit(sub { $_[0]{linear_key_head_dim} = 64 }));
refused($source{dense}, 'layers in another order', 6, qr/"layer_types" has another layer 1 than "full_attention_interval" 4, by which llama\.cpp's qwen35 goes$/,
    text_edit(sub { $_[0]{layer_types}[1] = 'full_attention' }));
refused($source{dense}, 'biases', 6, qr/"attention_bias" is true, and llama\.cpp's qwen35 has no biases$/, text_edit(sub { $_[0]{attention_bias} = JSON::PP::true() }));
refused($source{dense}, 'odd sections', 7, qr/"mrope_section" is no list of small integers$/, text_edit(sub { $_[0]{rope_parameters}{mrope_section} = [1, 1.5] }));
refused($source{fp8}, 'a shared expert without a size', 7, qr/has no "shared_expert_intermediate_size", which Qwen3_5MoeForConditionalGeneration needs$/, text_edit(sub { delete $_[0]{shared_expert_intermediate_size} }));
refused($source{moe}, 'other experts', 7, qr/tensor 'model\.layers\.0\.mlp\.experts\.gate_up_proj': expected shape \[4, 384, 256\] by config\.json, found \[4, 512, 256\]$/, text_edit(sub { $_[0]{moe_intermediate_size} = 192 }));
refused($source{fp8}, 'another kernel', 7, qr/conv1d\.weight': expected shape \[1280, 1, 3\] by config\.json, found \[1280, 1, 4\]$/, text_edit(sub { $_[0]{linear_conv_kernel_dim} = 3 }));
refused($source{fp8}, 'two layers for multi-token prediction', 7, qr/"mtp_num_hidden_layers" is 2: expected an integer from 0 to 1$/, text_edit(sub { $_[0]{mtp_num_hidden_layers} = 2 }));
refused($source{dense}, 'one that is not there by config.json', 6, qr/\d+ tensors unknown .*; config\.json's mtp_num_hidden_layers does not tell of all layers for multi-token prediction: correct it, or give --no-mtp$/,
    text_edit(sub { $_[0]{mtp_num_hidden_layers} = 0 }));
refused($source{next}, 'what is joined under another name', 6, qr/1 tensor unknown for Qwen3NextForCausalLM \(1 expected one missing: model\.layers\.2\.linear_attn\.in_proj_ba\.weight\): model\.layers\.2\.linear_attn\.in_proj_bx\.weight; /,
    header_edit(sub { s/(model\.layers\.2\.linear_attn\.in_proj_b)a/$1x/ or die }));
refused($source{alike}, 'one that is not there', 7, qr/\d+ tensors missing from the checkpoint: .* Without layers for multi-token prediction, give --no-mtp$/, text_edit(sub { $_[0]{mtp_num_hidden_layers} = 1 }));
refused($source{moe}, 'a tensor of another name', 6, qr/1 tensor unknown .*\(1 expected one missing: model\.layers\.1\.linear_attn\.A_log\): model\.layers\.1\.linear_attn\.A_lox; is config\.json of the same model\?$/,
    header_edit(sub { s/(\Q${p}\E1\.linear_attn\.A_lo)g/$1x/ or die }));
refused($source{moe}, 'a decay without end', 7, qr/tensor 'model\.layers\.2\.linear_attn\.A_log' in '.*': element 1 of blk\.2\.ssm_a would be infinite; the source is damaged$/,
    tensor_edit("${p}2.linear_attn.A_log", 12, pack('f<', 89)), 'convert');

done_testing();
