# Checkpoints in GLM-4.5V's form, a text model of GLM-4.5's within one that sees, in FP8 with a scale for each row and not quantized; and
# in Solar-Open's. Metadata against an independent computation (which the real converter's files were held against, too), tensors against
# numpy, GLM-4.5's own file and llama-quantize, files loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use JSON::PP ();
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my @small = qw(--arch glm4moe --layers 3 --hidden 256 --inter 512 --moe-inter 256 --experts 16 --used 4 --heads 8 --kv-heads 2 --head-dim 64
    --no-head-norm --no-mtp);
my %options = (fp8 => [], bf16 => [qw(--scales none --shards 1)]);
my (%source, %plain);
for my $form (sort keys %options) {
    $plain{$form} = checkpoint("$dir/plain-$form", @small, @{ $options{$form} });
    $source{$form} = checkpoint("$dir/$form", @small, @{ $options{$form} });
    run_ok('its form', python('model_forms.py', 'wrap', $source{$form}));
}
$source{solar} = checkpoint("$dir/solar", @small, qw(--dense 0), @{ $options{bf16} });
run_ok('its form', python('model_forms.py', 'solar', $source{solar}));

sub keys_of {
    my ($form, $file, $n) = @_;
    my $r = run(python('model_keys.py', 'glm4', $source{$form}, $file));
    is($r->{out}, "equal $n keys\n", "$form: keys, tokens and their order") or diag($r->{out}, $r->{err});
}

# ---- metadata and tensors
my %keys = (fp8 => 33, bf16 => 33, solar => 32);
for my $form (sort keys %source) {
    converted($source{$form}, "$form-f32", '--recipe', 'f32');
    keys_of($form, "$dir/$form-f32.gguf", $keys{$form});
    run_ok('verify', $SLUICE, 'verify', "$dir/$form-f32.gguf", '--source', $source{$form});
    my ($alone, $there) = map { plan_of($_, '--ctx', 1000) } "$source{$form}/config.json", $source{$form};
    is($alone->{source_bytes}, $there->{source_bytes}, 'config.json alone: the bytes that are there');
    is_deeply([@{ $there->{memory}[0] }{qw(cache cache_bytes)}], ['heads', 3 * 2 * (64 + 64) * 2 * 1000], 'cache');
}
for my $form (sort keys %plain) {
    converted($plain{$form}, "plain-$form-f32", '--recipe', 'f32');
    is_deeply(hashes("$dir/$form-f32.gguf"), hashes("$dir/plain-$form-f32.gguf"), "$form: GLM-4.5's tensors");
}
is(run(python('reference.py', 'compare', $source{solar}, "$dir/solar-f32.gguf"))->{out}, "equal\n", 'Solar: every bit of the tensors');
is(kv_of("$dir/fp8-f32.gguf", 'glm4moe.rope.dimension_sections'), "[4, 6, 6, 0]\n", 'sections');
like(run($SLUICE, 'plan', $source{fp8}, '--recipe', 'q8_0')->{err}, qr/note: the vision part \(2 tensors\) is left out/, 'its vision');

# What the configuration class takes for what is absent; newer entries of the rotary embedding, and none of dense layers.
my $less = copy_checkpoint($source{bf16}, "$dir/less");
my %class = (max_position_embeddings => 65536, n_group => 1, topk_group => 1, routed_scaling_factor => 1, rms_norm_eps => 1e-5, attention_bias => JSON::PP::true());
edit_json("$less/config.json", sub { delete @{ $_[0]{text_config} }{keys %class} });
converted($less, 'less', '--recipe', 'f32');
edit_json("$less/config.json", sub { $_[0]{text_config}{$_} = $class{$_} for keys %class });
my $r = run(python('model_keys.py', 'glm4', $less, "$dir/less.gguf"));
is($r->{out}, "equal 33 keys\n", "the class's: keys") or diag($r->{out}, $r->{err});
is_deeply(hashes("$dir/less.gguf"), hashes("$dir/bf16-f32.gguf"), 'tensors, biases among them');
my $newer = copy_checkpoint($source{solar}, "$dir/newer");
edit_json("$newer/config.json", sub {
    delete @{ $_[0] }{qw(intermediate_size first_k_dense_replace partial_rotary_factor rope_theta rope_scaling)};
    $_[0]{rope_parameters} = { rope_type => 'yarn', factor => 2, original_max_position_embeddings => 65536, rope_theta => 1e6, partial_rotary_factor => 1 };
});
converted($newer, 'newer', '--recipe', 'f32');
is(run($SLUICE, 'inspect', "$dir/newer.gguf", '--kv', "glm4moe.$_")->{rc} ? 'none' : 'there', 'none', "$_: not there") for qw(feed_forward_length leading_dense_block_count);
is(kv_of("$dir/newer.gguf", 'glm4moe.rope.dimension_count'), "64\n", 'whole heads are rotated');

# The comparison can fail: sections in another order.
edit_json("$source{bf16}/config.json", sub { $_[0]{text_config}{rope_scaling}{mrope_section} = [6, 6, 4] });
like(run(python('model_keys.py', 'glm4', $source{bf16}, "$dir/bf16-f32.gguf"))->{out}, qr/^glm4moe\.rope\.dimension_sections: \[4, 6, 6, 0\]/, 'another order is noticed');
edit_json("$source{bf16}/config.json", sub { $_[0]{text_config}{rope_scaling}{mrope_section} = [4, 6, 6] });

# ---- the models' own sizes, as MODELS.md says
my %fp8 = (quant_method => 'compressed-tensors', format => 'float-quantized', ignore => ['lm_head'],
    config_groups => { group_0 => { targets => ['Linear'], weights => { num_bits => 8, type => 'float', strategy => 'channel', symmetric => JSON::PP::true(),
        dynamic => JSON::PP::false() } } });
mkdir "$dir/GLM-4.5V-FP8";
spit("$dir/GLM-4.5V-FP8/config.json", slurp("$TOP/tests/data/glm-4.5v-config.json"));
edit_json("$dir/GLM-4.5V-FP8/config.json", sub { $_[0]{quantization_config} = { %fp8 } });
my $see = "$TOP/tests/data/glm-4.5v-config.json";
my $solar = "$TOP/tests/data/solar-open-100b-config.json";
for ([$see, 106_852_251_264, 70.4, 54.0, 213.7], ["$dir/GLM-4.5V-FP8/config.json", 106_852_251_264, 70.4, 54.0, 108.3], [$solar, 102_651_799_552, 62.2, 47.4, 205.3]) {
    my ($config, $weights, $q4, $dq3, $read) = @$_;
    my @plans = map { plan_of($config, '--recipe', $_) } qw(q4_k_m dq3_k_m);
    is($plans[0]{model}{weights}, $weights, 'weights');
    is_deeply([map { sprintf '%.1f', $_ / 1e9 } (map { $_->{tensor_bytes} } @plans), $plans[0]{source_bytes}], [map { sprintf '%.1f', $_ } $q4, $dq3, $read], 'GB');
}

# ---- a real llama.cpp
SKIP: {
    skip_without_llama(14);
    for (['fp8', 'Q4_K_M'], ['solar', 'Q2_K'], ['bf16', 'IQ4_XS']) {
        my ($form, $mixture) = @$_;
        converted($source{$form}, "$form-$mixture", '--recipe', $mixture);
        as_llama_quantize("$dir/$form-$mixture.gguf", "$dir/$form-f32.gguf", $mixture);
    }
    converted($source{fp8}, 'dq3', '--recipe', 'dq3_k_m');
    iq2_xs($source{solar}, "$dir/solar-f32.gguf");
    make_text(map { "$dir/$_.gguf" } qw(fp8-f32 solar-f32 newer fp8-Q4_K_M dq3 iq2_xs));
}

# ---- refused in one line
refused($source{fp8}, 'no text model', 7, qr/no "text_config", where Glm4vMoeForConditionalGeneration has its text model$/, config_edit(sub { delete $_[0]{text_config} }));
refused($source{fp8}, 'odd sections', 7, qr/"mrope_section" is no list of small integers$/, config_edit(sub { $_[0]{text_config}{rope_scaling}{mrope_section} = 16 }));
refused($source{solar}, 'other tokens', 7, qr/tokenizer\.json: "added_tokens" lacks '<unk>', which Solar's models have; is it of the same model\?$/,
    sub { edit_json("$_[0]/tokenizer.json", sub { $_[0]{added_tokens}[0]{content} = '<none>' }) });
refused($source{solar}, 'dense layers without a width', 7, qr/config\.json has no "intermediate_size", which SolarOpenForCausalLM needs$/,
    config_edit(sub { delete $_[0]{intermediate_size}; $_[0]{first_k_dense_replace} = 1 }));

done_testing();
