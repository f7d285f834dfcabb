# Checkpoints in K-EXAONE's form: in FP8 with a scale for each row and in blocks, not quantized without the layer for multi-token
# prediction. Metadata and tensors against an independent computation (which the real converter's files were held against, too) and
# llama-quantize, files loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use JSON::PP ();
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my %source = map { $_ => "$dir/$_" } qw(rows blocks bare);
my %options = (rows => [], blocks => ['--blocks', '--set', 'sliding_window_pattern=4', '--set', 'layer_types=null'],
    bare => ['--bf16', '--no-mtp', map { ('--set', $_) } qw(num_attention_heads=4 head_dim=null n_group=null layer_types=null sliding_window_pattern=null
        first_k_dense_replace=null first_last_k_dense_replace=2 num_shared_experts=2 scoring_func=null rope_local_base_freq=1e6)]);
my %keys = (rows => 36, blocks => 36, bare => 33);
run_ok("made: $_", python('exaone.py', 'make', $source{$_}, @{ $options{$_} })) for sort keys %source;

sub same { return same_by('exaone.py', @_) }

# ---- metadata and tensors
for my $form (sort keys %source) {
    my @recipes = $form eq 'rows' ? qw(f32 bf16) : 'f32';
    converted($source{$form}, "$form-$_", '--recipe', $_) for @recipes;
    same("$form: every bit of the tensors", 'compare', $source{$form}, map { "$dir/$form-$_.gguf" } @recipes);
    is(same('keys and their order', 'keys', $source{$form}, "$dir/$form-f32.gguf"), "equal $keys{$form} keys\n", 'how many');
}
converted($source{rows}, 'short', '--recipe', 'f32', '--no-mtp');
same('--no-mtp: every bit of the tensors', 'compare', $source{rows}, "$dir/short.gguf", '--no-mtp');
is(same('--no-mtp: keys and their order', 'keys', $source{rows}, "$dir/short.gguf", '--no-mtp'), "equal 36 keys\n", 'how many');
run_ok('verify', $SLUICE, 'verify', "$dir/rows-f32.gguf", '--source', $source{rows});
for my $recipe (qw(dq3_k_m q4_k_m)) { # a GGUF file gives what the checkpoint gives
    converted($source{blocks}, "ours-$recipe", '--recipe', $recipe);
    run_ok('in two steps', $SLUICE, 'convert', "$dir/blocks-f32.gguf", '-o', "$dir/steps.gguf", '--recipe', $recipe, '--quiet', '--force');
    is_deeply(hashes("$dir/steps.gguf"), hashes("$dir/ours-$recipe.gguf"), "$recipe: the same tensors");
}
is({ map { @$_[0, 3] } where("$dir/ours-dq3_k_m.gguf") }->{'blk.5.ffn_down.weight'}, 14, 'the layer for multi-token prediction is a dense one: q6_k');

# The comparisons can fail: two norms in each other's place; another key.
{
    my %at = map { $_->[0] => $_->[1] } where("$dir/rows-f32.gguf");
    my $data = slurp("$dir/rows-f32.gguf");
    my ($e, $h) = @at{map { "blk.5.nextn.$_.weight" } qw(enorm hnorm)};
    (substr($data, $e, 1024), substr($data, $h, 1024)) = (substr($data, $h, 1024), substr($data, $e, 1024));
    spit("$dir/bad.gguf", $data);
    is(run(python('exaone.py', 'compare', $source{rows}, "$dir/bad.gguf"))->{out}, join('', map { "blk.5.nextn.$_.weight: bytes differ (F32)\n" } qw(enorm hnorm)), 'two norms');
    like(run($SLUICE, 'verify', "$dir/bad.gguf", '--source', $source{rows}, '--sample', '100%')->{out}, qr/blk\.5\.nextn\.enorm\.weight/, 'verify sees it');
    is(run(python('exaone.py', 'keys', $source{rows}, "$dir/short.gguf"))->{rc}, 1, 'other keys');
}

# ---- plans
for my $form (sort keys %source) {
    my @plans = map { plan_of($_, '--ctx', 4096) } $source{$form}, "$source{$form}/config.json", "$dir/$form-f32.gguf";
    is($plans[1]{source_bytes}, $plans[0]{source_bytes}, "$form: config.json alone: the bytes that are there");
    # What llama.cpp allocates: one layer caches all tokens, four those of a window and of a micro-batch.
    is($_->{memory}[0]{cache} . ' ' . $_->{memory}[0]{cache_bytes}, 'windowed ' . 2 * 2 * 2 * 64 * (4096 + 4 * 768), 'cache') for @plans;
}
my $full = "$TOP/tests/data/k-exaone-236b-a23b-config.json";
my $published = plan_of($full);
is("$published->{model}{weights} $published->{model}{tensors}", '237099669632 781', 'the published model: weights and tensors');
mkdir "$dir/K-EXAONE-236B-A23B-FP8";
my $fp8 = "$dir/K-EXAONE-236B-A23B-FP8/config.json";
spit($fp8, slurp($full));
edit_json($fp8, sub {
    $_[0]{quantization_config} = { quant_method => 'compressed-tensors', format => 'float-quantized', ignore => ['lm_head', 're:.*mlp\.gate$'],
        config_groups => { group_0 => { targets => ['Linear'], weights => { num_bits => 8, type => 'float', strategy => 'block', block_structure => [128, 128],
            symmetric => JSON::PP::true(), dynamic => JSON::PP::false() } } } };
});
for ([$full, 'q4_k_m', '143.5', '474.2'], [$fp8, 'q4_k_m', '143.5', '239.1'], [$full, 'dq3_k_m', '108.3', '474.2']) {
    my ($config, $recipe, $size, $read) = @$_;
    like(run($SLUICE, 'plan', $config, '--recipe', $recipe)->{out}, qr/^Size +\Q$size\E GB .*^Read +\Q$read\E GB/ms, "$recipe: $size GB of $read");
}

# ---- a real llama.cpp
SKIP: {
    skip_without_llama(14);
    for my $case (['rows', 'Q4_K_M'], ['blocks', 'Q2_K'], ['bare', 'IQ4_XS']) {
        my ($form, $mixture) = @$case;
        converted($source{$form}, "$form-$mixture", '--recipe', $mixture);
        as_llama_quantize("$dir/$form-$mixture.gguf", "$dir/$form-f32.gguf", $mixture);
    }
    iq2_xs($source{bare}, "$dir/bare-f32.gguf");
    make_text(map { "$dir/$_.gguf" } qw(rows-f32 bare-f32 short rows-Q4_K_M blocks-Q2_K ours-dq3_k_m iq2_xs));
}

# ---- refused in one line
my @windows = ('sliding_attention') x 3;
refused($source{rows}, 'another order of layers', 6, qr/"layer_types" has another entry for layer 4 than llama\.cpp's exaone-moe, of which every fourth layer looks at all tokens$/,
    config_edit(sub { $_[0]{layer_types} = [@windows, ('full_attention') x 2] }));
refused($source{rows}, 'a layer fewer', 6, qr/"layer_types" has another entry for layer 4 /, config_edit(sub { pop @{ $_[0]{layer_types} } }));
refused($source{rows}, 'a layer more', 6, qr/"layer_types" has another entry for layer 4 /, config_edit(sub { push @{ $_[0]{layer_types} }, $windows[0] }));
refused($source{blocks}, 'another interval', 6, qr/"sliding_window_pattern" has another entry for layer 2 /, config_edit(sub { $_[0]{sliding_window_pattern} = 'LLG' }));
refused($source{blocks}, 'too many layers', 7, qr/4096 layers and 1 for multi-token prediction: at most 4096 are supported$/, config_edit(sub { $_[0]{num_hidden_layers} = 4096 }));
refused($source{rows}, 'no window', 7, qr/config\.json has no "sliding_window", which ExaoneMoEForCausalLM needs$/, config_edit(sub { delete $_[0]{sliding_window} }));
refused($source{rows}, 'scaling', 6, qr/rope_scaling of type linear is not supported for ExaoneMoEForCausalLM$/,
    config_edit(sub { $_[0]{rope_parameters} = { rope_type => 'linear', factor => 2, rope_theta => 1e6 } }));
refused($source{rows}, 'a base for windows', 6, qr/a "rope_theta" of 10000 for windows and of 1e\+06 for all tokens, and llama\.cpp's exaone-moe has one$/,
    config_edit(sub { $_[0]{rope_local_base_freq} = 10000 }));
refused($source{rows}, 'no head', 6, qr/"tie_word_embeddings" is true, and llama\.cpp's exaone-moe has a head of its own$/, config_edit(sub { $_[0]{tie_word_embeddings} = JSON::PP::true() }));
refused($source{rows}, 'as first published', 6, qr/config\.json's num_nextn_predict_layers does not tell of all layers for multi-token prediction: correct it, or give --no-mtp$/,
    config_edit(sub { delete $_[0]{num_nextn_predict_layers} }));
refused($source{bare}, 'a layer that is not there', 7, qr/missing from the checkpoint: .* Without layers for multi-token prediction, give --no-mtp$/,
    config_edit(sub { $_[0]{num_nextn_predict_layers} = 1 }));

done_testing();
