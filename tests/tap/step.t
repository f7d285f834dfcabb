# Checkpoints in Step-3.5-Flash's form, and in Step-3.7's: metadata and tensors against an independent computation (which the real
# converter's files were held against, too) and llama-quantize, files loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my ($step, $sees) = ("$dir/step", "$dir/sees");
run_ok('made', python('step.py', 'make', $step));
run_ok('made: a text model within another', python('step.py', 'make', $sees, qw(--text --bf16 --mtp 0)));

sub same { return same_by('step.py', @_) }

# ---- metadata and tensors
converted($step, "step-$_", '--recipe', $_) for qw(f32 bf16);
converted($sees, 'sees-f32', '--recipe', 'f32');
converted($step, 'short', '--recipe', 'f32', '--no-mtp');
same('every bit of the tensors', 'compare', $step, "$dir/step-f32.gguf", "$dir/step-bf16.gguf");
same('within another: every bit of the tensors', 'compare', $sees, "$dir/sees-f32.gguf");
same('--no-mtp: every bit of the tensors', 'compare', $step, "$dir/short.gguf", '--no-mtp');
is(same('keys and their order', 'keys', $step, "$dir/step-f32.gguf"), "equal 36 keys\n", 'how many');
is(same('within another: keys and their order', 'keys', $sees, "$dir/sees-f32.gguf"), "equal 35 keys\n", 'how many');
is(same('--no-mtp: keys and their order', 'keys', $step, "$dir/short.gguf", '--no-mtp'), "equal 35 keys\n", 'how many');
run_ok('verify', $SLUICE, 'verify', "$dir/step-f32.gguf", '--source', $step);
like(run($SLUICE, 'plan', $sees, '--recipe', 'q8_0')->{err}, qr/note: the vision part \(2 tensors\) is left out/, 'its vision');
for my $recipe (qw(dq3_k_m q4_k_m)) { # a GGUF file gives what the checkpoint gives
    converted($step, "ours-$recipe", '--recipe', $recipe);
    run_ok('in two steps', $SLUICE, 'convert', "$dir/step-f32.gguf", '-o', "$dir/steps.gguf", '--recipe', $recipe, '--quiet', '--force');
    is_deeply(hashes("$dir/steps.gguf"), hashes("$dir/ours-$recipe.gguf"), "$recipe: the same tensors");
}

# The comparisons can fail: a norm as it is stored; another key.
{
    my %at = map { $_->[0] => $_->[1] } where("$dir/step-f32.gguf");
    my $data = slurp("$dir/step-f32.gguf");
    substr($data, $at{'blk.6.nextn.enorm.weight'}, 4) = pack 'f<', unpack('f<', substr $data, $at{'blk.6.nextn.enorm.weight'}, 4) - 1;
    spit("$dir/bad.gguf", $data);
    is(run(python('step.py', 'compare', $step, "$dir/bad.gguf"))->{out}, "blk.6.nextn.enorm.weight: bytes differ (F32)\n", 'a norm less one');
    like(run($SLUICE, 'verify', "$dir/bad.gguf", '--source', $step, '--sample', '100%')->{out}, qr/blk\.6\.nextn\.enorm\.weight/, 'verify sees it');
    edit_json("$step/config.json", sub { $_[0]{swiglu_limits}[3] = 6 });
    is(run(python('step.py', 'keys', $step, "$dir/step-f32.gguf"))->{rc}, 1, 'another key');
    edit_json("$step/config.json", sub { $_[0]{swiglu_limits}[3] = 7 });
}

# ---- plans
my @plans = map { plan_of($_, '--ctx', 4096) } $step, "$step/config.json", "$dir/step-f32.gguf";
is($plans[1]{source_bytes}, $plans[0]{source_bytes}, 'config.json alone: the bytes that are there');
# What llama.cpp allocates: two layers cache all tokens, three those of a window and of a micro-batch.
is($_->{memory}[0]{cache} . ' ' . $_->{memory}[0]{cache_bytes}, 'windowed ' . 2 * 2 * 2 * 64 * (2 * 4096 + 3 * 768), 'cache') for @plans;
{ # a GGUF file may have the list of windows as numbers
    my $data = slurp("$dir/step-f32.gguf");
    $data =~ s/(step35\.attention\.sliding_window_pattern\x09\0{3})\x07/$1\0/s or die 'no list of bools';
    spit("$dir/typed.gguf", $data);
    is(plan_of("$dir/typed.gguf", '--ctx', 4096)->{memory}[0]{cache_bytes}, $plans[0]{memory}[0]{cache_bytes}, 'windows of u8');
}
my $full = 'tests/data/step-3.5-flash-fp8-config.json';
my $published = plan_of($full);
is("$published->{model}{weights} $published->{model}{tensors}", '199384301440 805', 'the published model: weights and tensors');
for (['q4_k_m', '119.6'], ['dq3_k_m', '90.2']) {
    like(run($SLUICE, 'plan', $full, '--recipe', $_->[0])->{out}, qr/^Size +\Q$_->[1]\E GB .*^Read +\d+\.\d GB/ms, "$_->[0]: $_->[1] GB");
}

# ---- a real llama.cpp
SKIP: {
    skip_without_llama(7);
    for my $case (['step', 'Q3_K_M'], ['sees', 'IQ4_XS']) {
        my ($form, $mixture) = @$case;
        converted($form eq 'step' ? $step : $sees, "$form-$mixture", '--recipe', $mixture);
        as_llama_quantize("$dir/$form-$mixture.gguf", "$dir/$form-f32.gguf", $mixture);
    }
    make_text(map { "$dir/$_.gguf" } qw(step-f32 sees-f32 short step-Q3_K_M ours-dq3_k_m));
}

# ---- refused in one line
refused($step, 'another layer', 6, qr/"layer_types" has another entry for layer 1 than full_attention and sliding_attention$/, config_edit(sub { $_[0]{layer_types}[1] = 'linear' }));
refused($step, 'a whole head', 6, qr/"partial_rotary_factors" has another entry for layer 4 than 0\.5, which llama\.cpp's step35 has for full_attention$/,
    config_edit(sub { $_[0]{partial_rotary_factors}[4] = 1 }));
refused($step, 'no window', 6, qr/"layer_types" tells of no layer of sliding_attention, without which llama\.cpp's step35 does not run$/,
    config_edit(sub { $_[0]{layer_types} = [('full_attention') x 8]; $_[0]{partial_rotary_factors} = [(0.5) x 8] }));
refused($step, 'no experts', 7, qr/config\.json has no "moe_layers_enum", which Step3p5ForCausalLM needs/, config_edit(sub { delete $_[0]{moe_layers_enum} }));
refused($step, 'a layer too many', 7, qr/"moe_layers_enum" is no list of layers below 8, as "3,4,5"$/, config_edit(sub { $_[0]{moe_layers_enum} = '3,8' }));
refused($step, 'a bound that is none', 7, qr/"swiglu_limits" has an entry for layer 2 that is no number$/, config_edit(sub { $_[0]{swiglu_limits}[2] = 'x' }));
refused($step, 'one base', 6, qr/"rope_theta" is no list of a number for each layer/, config_edit(sub { $_[0]{rope_theta} = 10000 }));
refused($step, 'a base of its own', 6, qr/"rope_theta" has another number for layer 2 than for those before it of its kind/, config_edit(sub { $_[0]{rope_theta}[2] = 7 }));
refused($step, 'two layers of a kind first', 6, qr/the first two layers are not one of full_attention and one of sliding_attention/,
    config_edit(sub { $_[0]{layer_types}[1] = 'full_attention'; $_[0]{partial_rotary_factors}[1] = 0.5; $_[0]{rope_theta}[1] = 5e6 }));
refused($step, 'other scaling', 6, qr/rope_scaling of type yarn is not supported for Step3p5ForCausalLM: llama3$/,
    config_edit(sub { $_[0]{rope_scaling} = { type => 'yarn', factor => 2, original_max_position_embeddings => 64 } }));
refused($step, 'softmax', 6, qr/"moe_router_activation" is 'softmax'; supported for Step3p5ForCausalLM: sigmoid$/, config_edit(sub { $_[0]{moe_router_activation} = 'softmax' }));
refused($step, 'softmax by another name', 6, qr/"scoring_func" is 'softmax'; supported for Step3p5ForCausalLM: sigmoid$/, config_edit(sub { $_[0]{scoring_func} = 'softmax' }));
refused($step, 'heads of two lengths', 6, qr/heads of 64 and of 32 rows, and llama\.cpp's step35 has one number, a multiple of 4$/,
    config_edit(sub { $_[0]{attention_other_setting}{head_dim} = 32 }));
refused($step, 'heads that do not divide', 7, qr/4 and 6 heads cannot be divided among 2 and 4 "num_attention_groups"$/,
    config_edit(sub { $_[0]{attention_other_setting}{num_attention_groups} = 4 }));
refused($step, 'one that is not there', 7, qr/missing from the checkpoint: .* Without layers for multi-token prediction, give --no-mtp$/,
    config_edit(sub { $_[0]{num_nextn_predict_layers} = 4 }));

done_testing();
