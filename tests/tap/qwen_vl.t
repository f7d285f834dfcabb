# Checkpoints in Qwen3-VL's form, whose layers have their experts in one tensor, transposed, in BF16 and in FP8, or each apart; and
# dense. Metadata and tensors against an independent computation (which the real converter's files were held against, too) and
# llama-quantize, files loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use JSON::PP ();
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my $yarn = 'rope_scaling={"rope_type":"yarn","factor":2.0,"original_max_position_embeddings":262144,"mrope_section":[24,20,20]}';
my %source = map { $_ => "$dir/$_" } qw(moe fp8 apart dense bare);
my %options = (moe => [], fp8 => ['--fp8'], apart => [qw(--fp8 --apart)], dense => [qw(--dense --set head_dim=null --set), $yarn],
    bare => [map { ('--set', $_) } qw(num_attention_heads=4 head_dim=null max_position_embeddings=null rope_theta=null num_experts_per_tok=null)]);
my %keys = (moe => 25, fp8 => 25, apart => 25, dense => 25, bare => 25);
run_ok("made: $_", python('qwen_vl.py', 'make', $source{$_}, @{ $options{$_} })) for sort keys %source;

sub same { return same_by('qwen_vl.py', @_) }

# ---- metadata and tensors
for my $form (sort keys %source) {
    my @recipes = $form eq 'moe' ? qw(f32 bf16) : 'f32';
    converted($source{$form}, "$form-$_", '--recipe', $_) for @recipes;
    same("$form: every bit of the tensors", 'compare', $source{$form}, map { "$dir/$form-$_.gguf" } @recipes);
    is(same('keys and their order', 'keys', $source{$form}, "$dir/$form-f32.gguf"), "equal $keys{$form} keys\n", 'how many');
}
run_ok('verify', $SLUICE, 'verify', "$dir/$_-f32.gguf", '--source', $source{$_}) for qw(moe fp8);
run_ok('diff', $SLUICE, 'diff', $source{fp8}, "$dir/fp8-f32.gguf");
is(kv_of("$dir/fp8-f32.gguf", 'general.size_label'), "8x3.6M\n", 'size label');
is(kv_of("$dir/moe-f32.gguf", 'qwen3vlmoe.n_deepstack_layers'), "3\n", 'layers of vision that are passed on');
like(run($SLUICE, 'plan', $source{moe}, '--recipe', 'q8_0')->{err}, qr/note: the vision part \(3 tensors\) is left out/, 'its vision');

# Columns on a GPU, and with importance weights made from the source; a matrix larger than a slab; a GGUF file gives what the checkpoint gives.
for my $case (['fp8', 'q4_k_m'], ['moe', 'q3_k_m', '--imatrix', 'synthetic']) {
    my ($form, $recipe, @weights) = @$case;
    converted($source{$form}, "cpu-$recipe", '--recipe', $recipe, @weights);
    my $r = run($BUILD . '/tools/emulated_gpu', 'convert', $source{$form}, '-o', "$dir/gpu.gguf", '--recipe', $recipe, @weights, '--device', 'cuda:0', '--quiet', '--force');
    is($r->{rc} ? $r->{err} : sha256("$dir/gpu.gguf"), sha256("$dir/cpu-$recipe.gguf"), "$recipe @weights: the same file of an emulated GPU");
    run_ok('verify', $SLUICE, 'verify', "$dir/cpu-$recipe.gguf", '--source', $source{$form}, '--sample', '20%');
}
run_ok('measured', $SLUICE, 'plan', $source{fp8}, '--recipe', 'q4_k_m', '--measure', '-q');
for my $recipe (qw(dq3_k_m q4_k_m)) {
    converted($source{fp8}, "ours-$recipe", '--recipe', $recipe);
    run_ok('in two steps', $SLUICE, 'convert', "$dir/fp8-f32.gguf", '-o', "$dir/steps.gguf", '--recipe', $recipe, '--quiet', '--force');
    is_deeply(hashes("$dir/steps.gguf"), hashes("$dir/ours-$recipe.gguf"), "$recipe: the same tensors");
}

# The comparisons can fail: two values of an expert in each other's place, as without transposing.
{
    my %at = map { $_->[0] => $_->[1] } where("$dir/moe-f32.gguf");
    my $data = slurp("$dir/moe-f32.gguf");
    my $at = $at{'blk.1.ffn_up_exps.weight'};
    (substr($data, $at + 4, 4), substr($data, $at + 4 * 256, 4)) = (substr($data, $at + 4 * 256, 4), substr($data, $at + 4, 4));
    spit("$dir/bad.gguf", $data);
    is(run(python('qwen_vl.py', 'compare', $source{moe}, "$dir/bad.gguf"))->{out}, "blk.1.ffn_up_exps.weight: bytes differ (F32)\n", 'values that differ');
    like(run($SLUICE, 'verify', "$dir/bad.gguf", '--source', $source{moe}, '--sample', '100%')->{out}, qr/blk\.1\.ffn_up_exps\.weight/, 'verify sees it');
    my $text = slurp("$source{moe}/config.json");
    edit_json("$source{moe}/config.json", sub { pop @{ $_[0]{vision_config}{deepstack_visual_indexes} } });
    is(run(python('qwen_vl.py', 'keys', $source{moe}, "$dir/moe-f32.gguf"))->{rc}, 1, 'another key');
    spit("$source{moe}/config.json", $text);
}

# ---- plans
for my $form (qw(moe fp8 dense)) {
    my @plans = map { plan_of($_, '--ctx', 256) } $source{$form}, "$source{$form}/config.json", "$dir/$form-f32.gguf";
    is($plans[1]{source_bytes}, $plans[0]{source_bytes}, "$form: config.json alone: the bytes that are there");
    is($_->{memory}[0]{cache_bytes}, 2 * 256 * 4 * 2 * 2 * ($form eq 'dense' ? 128 : 64), 'cache') for @plans;
}
# 235B-A22B and 30B-A3B, of which 31.07 billion weights are published, 0.54 of them vision's; the former in FP8, too.
my %fp8 = (quantization_config => { quant_method => 'fp8', weight_block_size => [128, 128] });
my %published = (
    '235B' => ['235093634560 1131', 470.2, 142.1, 106.0, {}, {}], '235B-FP8' => ['235093634560 1131', 236.4, 142.1, 106.0, {}, \%fp8],
    '30B' => ['30532122624 579', 61.1, 18.6, 14.1, { hidden_size => 2048, num_hidden_layers => 48, num_attention_heads => 32, moe_intermediate_size => 768 }, {}]);
for my $size (sort keys %published) {
    my ($weights, $read, $q4, $dq3, $text, $whole) = @{ $published{$size} };
    spit("$dir/config.json", slurp("$TOP/tests/data/qwen3-vl-235b-a22b-config.json"));
    edit_json("$dir/config.json", sub {
        $_[0]{text_config}{$_} = $text->{$_} for keys %$text;
        $_[0]{$_} = $whole->{$_} for keys %$whole;
    });
    my $plan = plan_of("$dir/config.json");
    is("$plan->{model}{weights} $plan->{model}{tensors}", $weights, "$size: weights and tensors");
    like(run($SLUICE, 'plan', "$dir/config.json", '--recipe', $_->[0])->{out}, qr/^Size +\Q$_->[1]\E GB .*^Read +\Q$read\E GB/ms, "$size by $_->[0]: $_->[1] GB")
        for ['q4_k_m', sprintf '%.1f', $q4], ['dq3_k_m', sprintf '%.1f', $dq3];
}

# ---- a real llama.cpp
SKIP: {
    skip_without_llama(17);
    for my $case (['fp8', 'Q4_K_M'], ['moe', 'Q2_K'], ['dense', 'IQ4_XS'], ['moe', 'MXFP4_MOE']) {
        my ($form, $mixture) = @$case;
        converted($source{$form}, "$form-$mixture", '--recipe', $mixture);
        as_llama_quantize("$dir/$form-$mixture.gguf", "$dir/$form-f32.gguf", $mixture);
    }
    iq2_xs($source{moe}, "$dir/moe-f32.gguf");
    make_text(map { "$dir/$_.gguf" } qw(moe-f32 fp8-f32 dense-f32 bare-f32 fp8-Q4_K_M moe-Q2_K ours-dq3_k_m iq2_xs));
}

# ---- refused in one line
sub text_edit {
    my ($change) = @_;
    return config_edit(sub { $change->($_[0]{text_config}) });
}
my $layer = 'model.language_model.layers.1.';
refused($source{moe}, 'no sections', 7, qr/has no "mrope_section", without which llama\.cpp does not load qwen3vlmoe$/, text_edit(sub { $_[0]{rope_scaling} = undef }));
refused($source{moe}, 'odd sections', 7, qr/"mrope_section" is no list of small integers$/, text_edit(sub { $_[0]{rope_scaling}{mrope_section} = 'default' }));
refused($source{moe}, 'no list of layers', 7, qr/"deepstack_visual_indexes" is no list$/, config_edit(sub { $_[0]{vision_config}{deepstack_visual_indexes} = 3 }));
refused($source{moe}, 'as many as layers', 6, qr/"deepstack_visual_indexes" has 4 layers for 4 of the text model, with which llama\.cpp's qwen3vlmoe does not run$/,
    config_edit(sub { push @{ $_[0]{vision_config}{deepstack_visual_indexes} }, 26 }));
refused($source{moe}, 'no text model', 7, qr/no "text_config", where Qwen3VLMoeForConditionalGeneration has its text model$/, config_edit(sub { delete $_[0]{text_config} }));
refused($source{moe}, 'layers without experts', 6, qr/"mlp_only_layers" tells of layers without experts, which llama\.cpp's qwen3vlmoe cannot have$/, text_edit(sub { $_[0]{mlp_only_layers} = [0] }));
refused($source{dense}, 'biases', 6, qr/"attention_bias" is true, and llama\.cpp's qwen3vl has no bias/, text_edit(sub { $_[0]{attention_bias} = JSON::PP::true() }));
refused($source{moe}, 'experts that are not transposed', 7, qr/'model\.layers\.1\.mlp\.experts\.gate_up_proj': expected shape \[8, 256, 256\] by config\.json, found \[8, 128, 512\]$/,
    header_edit(sub { s/(\Q${layer}mlp.experts.gate_up_proj\E".*?)\[8, 256, 256\]/$1\[8, 128, 512]/ or die }));
refused($source{fp8}, 'a NaN', 7, qr/tensor 'model\.layers\.1\.mlp\.experts\.gate_up_proj' in '.*': row 2047, column 255 is NaN or infinite/,
    tensor_edit("${layer}mlp.experts.gate_up_proj", 8 * 256 * 256 - 1, "\x7f"), 'convert');
my $ranker = copy_checkpoint($source{dense}, "$dir/Qwen3-VL-Reranker-2B");
fails('a reranker', 6, qr/the checkpoint is a reranker by the folder's name/, $SLUICE, 'plan', $ranker, '--recipe', 'q8_0');

done_testing();
