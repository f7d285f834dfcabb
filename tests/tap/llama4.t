# Checkpoints in Llama-4's form, as Scout in BF16 and as Maverick in FP8: metadata and tensors against an independent computation
# (which the real converter's files were held against, too) and llama-quantize, files loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my ($scout, $maverick, $alone) = map { "$dir/$_" } qw(scout maverick alone);
run_ok('made', python('llama4.py', 'make', $scout));
run_ok('made: in FP8, with experts apart', python('llama4.py', 'make', $maverick, '--fp8'));
run_ok('made: alone', python('llama4.py', 'make', $alone, '--alone', '--set', 'no_rope_layers=[1, 1, 1, 0, 1]', '--set', 'rope_scaling=null'));

sub same { return same_by('llama4.py', @_) }
# By this process and those that it waited for.
sub bytes_read { return slurp('/proc/self/io') =~ /^rchar: (\d+)/m ? $1 : die 'no rchar' }

# ---- metadata and tensors
for (['scout', $scout], ['maverick', $maverick], ['alone', $alone]) {
    my ($name, $from) = @$_;
    converted($from, "$name-$_", '--recipe', $_) for qw(f32 bf16);
    same("$name: every bit of the tensors", 'compare', $from, "$dir/$name-f32.gguf", "$dir/$name-bf16.gguf");
    same("$name: keys and their order", 'keys', $from, "$dir/$name-f32.gguf");
    run_ok('verify', $SLUICE, 'verify', "$dir/$name-f32.gguf", '--source', $from, '--sample', '100%');
}
like(run($SLUICE, 'plan', $scout, '--recipe', 'q8_0')->{err}, qr/note: the vision part \(3 tensors\) is left out/, 'its vision');
for my $recipe (qw(dq3_k_m q4_k_m)) { # a GGUF file gives what the checkpoint gives
    converted($maverick, "ours-$recipe", '--recipe', $recipe);
    run_ok('in two steps', $SLUICE, 'convert', "$dir/maverick-f32.gguf", '-o', "$dir/steps.gguf", '--recipe', $recipe, '--quiet', '--force');
    is_deeply(hashes("$dir/steps.gguf"), hashes("$dir/ours-$recipe.gguf"), "$recipe: the same tensors");
}
{ # matrices that lie transposed, cut in other places
    converted($scout, 'cut', qw(--recipe q4_k_m --task-size 100k --mem 64M));
    converted($scout, 'whole', qw(--recipe q4_k_m));
    is_deeply(hashes("$dir/cut.gguf"), hashes("$dir/whole.gguf"), 'other tasks: the same tensors');
    run_ok('on an emulated device', tool('emulated_gpu'), 'convert', $scout, '-o', "$dir/gpu.gguf", qw(--recipe q4_k_m --device cuda:0 --quiet));
    is(sha256("$dir/gpu.gguf"), sha256("$dir/whole.gguf"), 'on a device: the same file');
    my $long = "$dir/long"; # columns of more than half of what is converted at a time
    run_ok('made: long columns', python('llama4.py', 'make', $long, '--alone', map { ('--set', $_) }
        qw(intermediate_size=4352 num_local_experts=2 num_experts_per_tok=1 num_hidden_layers=1)));
    converted($long, 'long', qw(--recipe f32));
    same('long columns: every bit of the tensors', 'compare', $long, "$dir/long.gguf");
    my $before = bytes_read();
    run_ok('verify', $SLUICE, 'verify', "$dir/long.gguf", '--source', $long, '--sample', '100%');
    cmp_ok(bytes_read() - $before, '<', 8 * (-s "$dir/long.gguf"), 'verify keeps the lines of a column');
    refused($long, 'NaN in one', 7, qr/experts\.down_proj' in '[^']*': row 4360, column 11 is NaN or infinite/,
        tensor_edit('model.layers.0.feed_forward.experts.down_proj', 2 * (4360 * 256 + 11), "\xc0\x7f"), 'convert');
}
refused($scout, 'NaN', 7, qr/experts\.gate_up_proj' in '[^']*': row 259, column 300 is NaN or infinite/,
    tensor_edit('language_model.model.layers.2.feed_forward.experts.gate_up_proj', 2 * (259 * 512 + 300), "\xc0\x7f"), 'convert');
like(run($SLUICE, 'plan', $scout, qw(--target-size 4.2MB))->{out}, qr/^# 4\.\d+ MB of tensor data.*^\*\.ffn_up_exps\.weight += q/ms, 'rows of such matrices are measured');

# The comparisons can fail: a weight of the other half; another key.
{
    my %at = map { $_->[0] => $_->[1] } where("$dir/scout-f32.gguf");
    my $data = slurp("$dir/scout-f32.gguf");
    substr($data, $at{'blk.2.ffn_up_exps.weight'}, 4) = substr $data, $at{'blk.2.ffn_gate_exps.weight'}, 4;
    spit("$dir/bad.gguf", $data);
    is(run(python('llama4.py', 'compare', $scout, "$dir/bad.gguf"))->{out}, "blk.2.ffn_up_exps.weight: bytes differ (F32)\n", 'gate as up');
    like(run($SLUICE, 'verify', "$dir/bad.gguf", '--source', $scout, '--sample', '100%')->{out}, qr/blk\.2\.ffn_up_exps\.weight/, 'verify sees it');
    edit_json("$maverick/config.json", sub { $_[0]{text_config}{interleave_moe_layer_step} = 4 });
    is(run(python('llama4.py', 'keys', $maverick, "$dir/maverick-f32.gguf"))->{rc}, 1, 'another key');
    edit_json("$maverick/config.json", sub { $_[0]{text_config}{interleave_moe_layer_step} = 2 });
}

# ---- plans
for ([$scout, 'scout', 4, 1], [$maverick, 'maverick', 3, 1]) {
    my ($from, $name, $near, $far) = @$_;
    my @plans = map { plan_of($_, '--ctx', 16384) } $from, "$from/config.json", "$dir/$name-f32.gguf";
    is($plans[1]{source_bytes}, $plans[0]{source_bytes}, 'config.json alone: the bytes that are there');
    # What llama.cpp allocates: every fourth layer caches all tokens, the others those of a chunk and of a micro-batch.
    is($_->{memory}[0]{cache} . ' ' . $_->{memory}[0]{cache_bytes}, 'windowed ' . 2 * 2 * 2 * 64 * ($far * 16384 + $near * 8704), 'cache') for @plans;
}
for (['scout', '107769861184 628', '65.3', '50.8', '215.5'], ['maverick-fp8', '400711848960 531', '242.8', '183.0', '415.1']) {
    my ($name, $numbers, $q4, $dq3, $read) = @$_;
    my $file = "tests/data/llama-4-$name-config.json";
    my $p = plan_of($file);
    is("$p->{model}{weights} $p->{model}{tensors}", $numbers, "$name: weights and tensors");
    like(run($SLUICE, 'plan', $file, '--recipe', $_->[0])->{out}, qr/^Size +\Q$_->[1]\E GB .*^Read +\Q$read\E GB/ms, "$_->[0]: $_->[1] GB")
        for ['q4_k_m', $q4], ['dq3_k_m', $dq3];
}
{ # every second layer is dense, and rules for experts have the others
    my %type = map { $_->[0] => $_->[3] } where("$dir/ours-dq3_k_m.gguf");
    is(join(' ', map { $type{"blk.$_.weight"} } qw(0.ffn_gate 0.ffn_down 1.ffn_gate_exps 2.ffn_gate 2.ffn_down)), '12 14 11 12 14', 'dq3_k_m: dense layers');
}

# ---- a real llama.cpp
SKIP: {
    skip 'llama.cpp is not here', 5 if run(python('llama.py', 'version'))->{rc} && !$IN_CI;
    for my $case (['scout', $scout, 'Q3_K_M'], ['maverick', $maverick, 'IQ4_XS']) {
        my ($form, $from, $mixture) = @$case;
        converted($from, "$form-$mixture", '--recipe', $mixture);
        as_llama_quantize("$dir/$form-$mixture.gguf", "$dir/$form-f32.gguf", $mixture);
    }
    make_text(map { "$dir/$_.gguf" } qw(scout-f32 maverick-f32 alone-bf16 scout-Q3_K_M ours-dq3_k_m));
}

# ---- Llama-3.1-405B-Instruct-FP8
{
    my $llama = checkpoint("$dir/llama", qw(--arch llama --shards 1 --layers 4 --hidden 256 --heads 4 --inter 512 --scales row --scale-suffix weight_scale));
    run_ok('made: as fbgemm_fp8', python('llama4.py', 'make', $llama, '--fbgemm'));
    converted($llama, "llama-$_", '--recipe', $_) for qw(f32 bf16);
    is(run(python('reference.py', 'compare', $llama, "$dir/llama-$_.gguf"))->{out}, "equal\n", 'every bit of the tensors') for qw(f32 bf16);
    run_ok('verify', $SLUICE, 'verify', "$dir/llama-f32.gguf", '--source', $llama);
    is(plan_of("$llama/config.json")->{source_bytes}, plan_of($llama)->{source_bytes}, 'config.json alone: the bytes that are there');
    my $file = 'tests/data/llama-3.1-405b-fp8-config.json';
    is(join(' ', @{ plan_of($file)->{model} }{qw(weights tensors)}), '405853388864 1138', 'the published model: weights and tensors');
    like(run($SLUICE, 'plan', $file, '--recipe', 'q4_k_m')->{out}, qr/^Size +243\.1 GB .*^Read +487\.2 GB/ms, 'its size');
}

# ---- refused in one line
sub text_edit {
    my ($change) = @_;
    return config_edit(sub { $change->($_[0]{text_config}) });
}
my $odd = qr/than llama\.cpp's llama4, of which every fourth layer looks at all tokens without a rotary embedding$/;
refused($scout, 'a layer that turns', 6, qr/"no_rope_layers" has another entry for layer 3 $odd/, text_edit(sub { $_[0]{no_rope_layers} = [1, 1, 1, 1, 1] }));
refused($scout, 'a short list', 6, qr/"no_rope_layers" has another entry for layer 1 $odd/, text_edit(sub { $_[0]{no_rope_layers} = [1] }));
refused($scout, 'a layer of another kind', 6, qr/"layer_types" has another entry for layer 0 $odd/,
    text_edit(sub { $_[0]{layer_types} = [('full_attention') x 5] }));
refused($scout, 'another interval', 6, qr/"no_rope_layer_interval" is not 4, which llama\.cpp's llama4 has$/, text_edit(sub { $_[0]{no_rope_layer_interval} = 2 }));
refused($scout, 'other chunks', 6, qr/"attention_chunk_size" is not 8192, which llama\.cpp's llama4 has$/, text_edit(sub { $_[0]{attention_chunk_size} = 4096 }));
refused($scout, 'another scale', 6, qr/"attn_scale" is not 0\.1, which/, text_edit(sub { $_[0]{attn_scale} = 0.2 }));
refused($scout, 'no scale', 6, qr/"attn_temperature_tuning" is off, which llama\.cpp's llama4 cannot do$/, text_edit(sub { $_[0]{attn_temperature_tuning} = 0 }));
refused($scout, 'no norms', 6, qr/"use_qk_norm" is false of a model of 4 experts: llama\.cpp's llama4 has norms/, text_edit(sub { $_[0]{use_qk_norm} = JSON::PP::false() }));
refused($maverick, 'norms', 6, qr/"use_qk_norm" is true of a model of 128 experts/, text_edit(sub { $_[0]{use_qk_norm} = JSON::PP::true() }));
refused($scout, 'no experts', 7, qr/"num_local_experts" is 0: expected an integer from 1 to 16384$/, text_edit(sub { $_[0]{num_local_experts} = 0 }));
refused($maverick, 'other layers', 6, qr/"moe_layers" has other layers than "interleave_moe_layer_step" 2, by which llama\.cpp's llama4 goes$/,
    text_edit(sub { $_[0]{moe_layers} = [1] }));
refused($scout, 'no text model', 7, qr/no "text_config", where Llama4ForConditionalGeneration has its text model$/, config_edit(sub { delete $_[0]{text_config} }));
refused($scout, 'experts of another size', 7, qr/experts\.gate_up_proj': expected shape \[4, 256, 256\] by config\.json, found \[4, 256, 512\]$/,
    text_edit(sub { $_[0]{intermediate_size} = 128 }));

done_testing();
