# Checkpoints in DeepSeek-V3.2's form (an indexer in each layer, a layer for multi-token prediction) and in GLM-5.2's:
# metadata against an independent computation, tensors against numpy and llama-quantize, files
# loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use JSON::PP ();
use ModelTest;
use SluiceService;
use SluiceTest;
use Test::More;

need_python();
service_setup(model => [qw(--layers 2 --hidden 256 --inter 512 --moe-inter 256 --experts 16 --used 4 --heads 4 --kv-heads 4 --index-heads 4
    --mtp --shards 1 --f32-proj)]);
my ($dir, $source) = ($RUN, "$RUN/src");

# ---- metadata and tensors
edit_json("$source/tokenizer_config.json", sub { $_[0]{add_bos_token} = JSON::PP::false() });
for my $recipe (qw(f32 bf16)) {
    run_ok($recipe, $SLUICE, 'convert', $source, '-o', "$dir/$recipe.gguf", '--recipe', $recipe, '--quiet');
    my $r = run(python('reference.py', 'compare', $source, "$dir/$recipe.gguf"));
    is($r->{out}, "equal\n", 'every bit of the tensors') or diag($r->{err});
}
my $f32 = "$dir/f32.gguf";
my $r = run(python('model_keys.py', 'v32', $source, $f32));
is($r->{out}, "equal 36 keys\n", 'keys and their order') or diag($r->{err});
is(kv_of($f32, 'tokenizer.ggml.add_bos_token'), "true\n", 'BOS is added, whatever tokenizer_config.json says');
run_ok('verify', $SLUICE, 'verify', $f32, '--source', $source, '--sample', '5%');

# What the converter writes by itself has indexer.proj in F32; quantized by llama-quantize, it has the mixture's type.
run_ok('q8_0', $SLUICE, 'convert', $source, '-o', "$dir/q8_0.gguf", '--recipe', 'q8_0', '--quiet');
run_ok('Q8_0 of a GGUF file', $SLUICE, 'quantize', $f32, "$dir/again.gguf", 'Q8_0', '-q');
for (['bf16', 'f32, bf16'], ['q8_0', 'f32, q8_0'], ['again', 'q8_0, q8_0']) {
    my $list = run($SLUICE, 'inspect', '-t', "$dir/$_->[0].gguf")->{out};
    my ($proj) = $list =~ /^(\S+) .* blk\.2\.indexer\.proj\.weight$/m;
    my ($k) = $list =~ /^(\S+) .* blk\.2\.indexer\.attn_k\.weight$/m;
    is("$proj, $k", $_->[1], "$_->[0]: types of indexer.proj and indexer.attn_k") or diag($list);
}
run_ok('in two steps', $SLUICE, 'quantize', "$dir/bf16.gguf", "$dir/steps.gguf", 'Q4_K_M', '-q');
run_ok('at once', $SLUICE, 'convert', $source, '-o', "$dir/once.gguf", '--recipe', 'q4_k_m', '--round-through', 'bf16', '--quiet');
is_deeply(hashes("$dir/once.gguf"), hashes("$dir/steps.gguf"), 'the same tensors: indexer.proj is not rounded through bf16');
run_ok('verify', $SLUICE, 'verify', "$dir/once.gguf", '--source', $source, '--sample', '5%');

# ---- without the layer for multi-token prediction; a service hears of it too
start_one($_) for qw(daemon worker);
run_ok('convert --no-mtp', $SLUICE, 'convert', $source, '-o', "$dir/no.gguf", '--recipe', 'f32', '--no-mtp', '--quiet');
run_ok('submit --no-mtp', $SLUICE, 'submit', $source, '-o', "$OUT/no.gguf", '--recipe', 'f32', '--no-mtp', '--wait');
is(sha256("$OUT/no.gguf"), sha256("$dir/no.gguf"), 'the same file');
is(run(python('model_keys.py', 'v32', $source, "$dir/no.gguf", '--no-mtp'))->{out}, "equal 35 keys\n", 'keys');
my %main = %{ hashes($f32) };
delete @main{grep { /^blk\.2\./ } keys %main};
is_deeply(hashes("$dir/no.gguf"), \%main, 'tensors');
run_ok('verify', $SLUICE, 'verify', "$dir/no.gguf", '--source', $source, '--sample', '5%');
for (['A', $f32, "$dir/no.gguf"], ['B', "$dir/no.gguf", $source]) {
    my ($which, @two) = @$_;
    like(fails('diff', 1, qr/differ$/, $SLUICE, 'diff', @two)->{out}, qr/^layer in $which alone: 2 \(29 tensors, for multi-token prediction\)$/m, 'names the layer');
}
# Of a GGUF file other options leave it out. The number of such layers is llama-quantize's, unless it is given.
fails('a GGUF file', 2, qr/--no-mtp is for checkpoints, .* --prune-layers 2 --override-kv deepseek32\.nextn_predict_layers=int:0$/, $SLUICE, 'quantize', $f32, "$dir/x.gguf", 'Q8_0', '--no-mtp');
fails('a GGUF file without', 2, qr/--no-mtp is for checkpoints, .* which has no layer for multi-token prediction$/, $SLUICE, 'quantize', "$dir/no.gguf", "$dir/x.gguf", 'Q8_0', '--no-mtp');
my @prune = ($SLUICE, 'quantize', $f32, "$dir/x.gguf", 'F32', '-f', '--prune-layers');
my $note = qr/^sluice: note: a layer for multi-token prediction is left out, and deepseek32\.nextn_predict_layers stays 1: llama\.cpp would not run the last layer/m;
like(run_ok('--prune-layers', @prune, '1,2')->{err}, $note, 'a note');
unlike(run_ok('another layer', @prune, '1')->{err}, $note, 'no note');
unlike(run_ok('both', @prune, '2', '--override-kv', 'deepseek32.nextn_predict_layers=int:0')->{err}, qr/note:|warning:/, 'no note');
is_deeply(hashes("$dir/x.gguf"), \%main, 'the tensors of --no-mtp');
spit("$dir/odd.gguf", slurp($f32) =~ s/deepseek32/deepse\e[2J/gr);
like(run_ok('an odd architecture', $SLUICE, 'quantize', "$dir/odd.gguf", 'F32', '-n', '--prune-layers', '2')->{err},
    qr/and deepse\?\[2J\.nextn_predict_layers stays 1/, 'no control characters in the note');
unlink "$dir/odd.gguf";

# Keys that say other shapes than the tensors have are written, as by llama-quantize, and told of.
my @over = map { ('--override-kv', $_) } 'deepseek32.nextn_predict_layers=int:0', 'deepseek32.expert_count=int:16', 'deepseek32.block_count=str:x',
    'deepseek2.expert_used_count=int:2';
$r = run_ok('keys against the tensors', $SLUICE, 'convert', $source, '-o', "$dir/over.gguf", '--recipe', 'q8_0', @over[0 .. 3]);
my $against = 'sluice: warning: --override-kv deepseek32.nextn_predict_layers: the tensors written are those of 1, so llama.cpp may refuse the file';
is(join('', $r->{err} =~ /^sluice: warning:.*\n/mg), "$against; --no-mtp leaves these layers out\n", 'one warning');
is(run_ok('without the layer', $SLUICE, 'convert', $source, '-o', "$dir/none.gguf", '--recipe', 'q8_0', @over[0, 1], '--no-mtp', '-n')->{err}, '', 'none without the layer');
$r = run_ok('another source, other keys', $SLUICE, 'quantize', $f32, "$dir/none.gguf", 'COPY', '-n', @over);
is($r->{err}, "$against\n" . <<'END', 'told, too');
sluice: warning: --override-kv deepseek32.block_count: the tensors written are those of 3, so llama.cpp may refuse the file
sluice: warning: --override-kv deepseek2.expert_used_count: no program will read this of the model, whose key is deepseek32.expert_used_count
END

# ---- a real llama.cpp
SKIP: {
    skip_without_llama(21);
    isnt(run(python('llama.py', 'load', "$dir/over.gguf"))->{rc}, 0, 'it refuses what was warned of');
    for my $mixture (qw(Q4_K_M Q2_K IQ4_XS MXFP4_MOE Q2_0)) {
        run_ok($mixture, $SLUICE, 'convert', $source, '-o', "$dir/$mixture.gguf", '--recipe', $mixture, '--quiet');
        as_llama_quantize("$dir/$mixture.gguf", $f32, $mixture);
    }
    run_ok('imatrix', python('llama.py', 'imatrix', $f32, "$dir/imatrix.gguf", '--chunks', 1));
    my @iq = ($SLUICE, 'convert', $source, '-o', "$dir/iq2_xs.gguf", '--recipe', 'iq2_xs', '--imatrix', "$dir/imatrix.gguf", '--quiet');
    fails('not run by llama-imatrix', 2, qr/no data for 17 tensors .* llama-imatrix does not run layers for multi-token prediction: give them another type \(--tensor-type\), or --no-mtp$/, @iq);
    fails('a GGUF file', 2, qr/no data for 17 tensors .*: give them another type \(--tensor-type\)$/, $SLUICE, 'quantize', $f32, "$dir/x.gguf", 'IQ2_XS', '-f', '--imatrix', "$dir/imatrix.gguf");
    run_ok('iq2_xs', @iq, '--no-mtp');
    as_llama_quantize("$dir/iq2_xs.gguf", "$dir/no.gguf", 'IQ2_XS', '--imatrix', "$dir/imatrix.gguf");
    run_ok('dq3_k_m', $SLUICE, 'convert', $source, '-o', "$dir/dq3_k_m.gguf", '--recipe', 'dq3_k_m', '--quiet');
    make_text(map { "$dir/$_.gguf" } qw(Q4_K_M dq3_k_m));
}

# ---- a recipe by size: attn_q_b's rule comes after that of the indexer's, which its pattern has too
run_ok('--target-bpw', $SLUICE, 'plan', $source, '--target-bpw', '3.5', '--imatrix', 'synthetic', '--write-recipe', "$dir/my.recipe");
like(slurp("$dir/my.recipe"), qr/^# Made by 'sluice plan src --target-bpw 3\.5' for /, 'of what');
like(slurp("$dir/my.recipe"), qr/^\*\.indexer\.attn_q_b\.weight .*^\*\.attn_q_b\.weight /ms, 'in that order');
like(run_ok('without', $SLUICE, 'plan', $source, '--target-bpw', '3.5', '--no-mtp')->{out}, qr/^# Made by 'sluice plan src --target-bpw 3\.5 --no-mtp' for /, 'and without what');

# ---- memory: latent values and the indexer's key, in F16, of the layers that attend
my $plan = plan_of($source, '--recipe', 'q8_0', '--ctx', 1000);
is_deeply([map { [@$_{qw(cache own_layout cache_bytes)}] } $plan->{memory}[0]], [['compressed', JSON::PP::true(), (512 + 64 + 64) * 2 * 2 * 1000]], 'cache');
is(scalar grep({ $_->{cache} ne 'compressed' } @{ $plan->{memory} }), 0, 'and there is no other form');

# What the layer for multi-token prediction has in common with the model may be missing.
{
    my $n = 0;
    my $less = copy_checkpoint($source, "$dir/less", 'model.safetensors');
    my $data = slurp("$less/model.safetensors");
    $data =~ s/"model\.layers\.2\.\K((?:embed_tokens|shared_head\.head|shared_head\.norm)\.weight)(?=")/$n++ . 'x' x (length($1) - 16) . '.attention.bias'/ge == 3 or die;
    spit("$less/model.safetensors", $data);
    run_ok('less', $SLUICE, 'convert', $less, '-o', "$dir/less.gguf", '--recipe', 'q4_k_m', '--quiet');
    my %want = %{ hashes("$dir/once.gguf") };
    delete @want{map { "blk.2.nextn.$_.weight" } qw(embed_tokens shared_head_head shared_head_norm)};
    is_deeply([sort keys %{ hashes("$dir/less.gguf") }], [sort keys %want], 'three tensors fewer');
}

# ---- refused in one line
refused($source, '--layout legacy', 2, qr/--layout legacy: llama\.cpp runs DeepseekV32ForCausalLM in the layout mla alone/, sub { }, 'plan', '--layout', 'legacy');
fails('an imatrix of another layout', 2, qr/has no data for \d+ tensors .*; it was made in the legacy layout$/, $SLUICE, 'plan', $source,
    '--recipe', 'iq2_xs', '--imatrix', "$TINY/imatrix.legacy-layout.dat", '--include-weights', 'attn_kv_b');
refused($source, 'no index_topk', 7, qr/config\.json has no "index_topk", which DeepseekV32ForCausalLM needs/, config_edit(sub { delete $_[0]{index_topk} }));
refused($source, 'other heads', 7, qr/tensor 'model\.layers\.0\.self_attn\.indexer\.wq_b\.weight': expected shape \[512, 512\] by config\.json, found \[256, 512\]/,
    config_edit(sub { $_[0]{index_n_heads} = 8 }));
refused($source, 'a layer more', 7, qr/\d+ tensors missing from the checkpoint: .*model\.layers\.3\.mlp\.gate\.weight.*Without layers for multi-token prediction, give --no-mtp$/, config_edit(sub { $_[0]{num_nextn_predict_layers} = 2 }));
refused($source, 'a layer fewer', 6, qr/\d+ tensors unknown for DeepseekV32ForCausalLM \(0 expected ones missing\): model\.layers\.2.*; config\.json's num_nextn_predict_layers does not tell of all layers for multi-token prediction: correct it, or give --no-mtp$/, config_edit(sub { $_[0]{num_nextn_predict_layers} = 0 }));
refused($source, 'no indexer', 6, qr/10 tensors unknown for DeepseekV3ForCausalLM \(0 expected ones missing\): model\.layers\.0\.self_attn\.indexer\.(?!.*--no-mtp)/,
    config_edit(sub { $_[0]{architectures} = ['DeepseekV3ForCausalLM'] }));

# ---- GLM-5.2's form: an indexer in some layers, its own tokens, rope_parameters, no second embedding and head
my $layers = 3;
$source = checkpoint("$dir/glm", qw(--preset demo --hidden 256 --inter 512 --moe-inter 256 --experts 16 --used 4 --groups 1 --groups-used 1
    --heads 4 --kv-heads 4 --index-heads 4 --mtp --shards 1), '--layers', $layers);
run_ok('in GLM-5.2\'s form', python('model_forms.py', 'glm', $source));
for my $recipe (qw(f32 bf16)) {
    run_ok($recipe, $SLUICE, 'convert', $source, '-o', "$dir/glm-$recipe.gguf", '--recipe', $recipe, '--quiet');
    $r = run(python('reference.py', 'compare', $source, "$dir/glm-$recipe.gguf"));
    is($r->{out}, "equal\n", 'every bit of the tensors') or diag($r->{out}, $r->{err});
}
run_ok('--no-mtp', $SLUICE, 'convert', $source, '-o', "$dir/glm-no.gguf", '--recipe', 'f32', '--no-mtp', '--quiet');
for ([[], 'f32', 43], [['--no-mtp'], 'no', 42]) {
    my ($options, $name, $n) = @$_;
    $r = run(python('model_keys.py', 'glm', $source, "$dir/glm-$name.gguf", @$options));
    is($r->{out}, "equal $n keys\n", 'keys, tokens and their order') or diag($r->{out}, $r->{err});
    run_ok('verify', $SLUICE, 'verify', "$dir/glm-$name.gguf", '--source', $source, '--sample', '5%');
}
%main = %{ hashes("$dir/glm-f32.gguf") };
delete @main{grep { /^blk\.3\./ } keys %main};
is_deeply(hashes("$dir/glm-no.gguf"), \%main, 'tensors');
is(scalar grep({ /\.indexer\.attn_k/ } keys %main), 2, 'an indexer in two of three layers');
for (['3', ''], ['1,3', "sluice: note: glm-dsa.attention.indexer.types still tells of 3 layers: llama.cpp will not load the file\n"]) {
    $r = run_ok("--prune-layers $_->[0]", $SLUICE, 'quantize', "$dir/glm-f32.gguf", "$dir/x.gguf", 'F32', '-f', '--prune-layers', $_->[0], '--override-kv', 'glm-dsa.nextn_predict_layers=int:0');
    is(join('', $r->{err} =~ /^(sluice: note: .*\n)/mg), $_->[1], 'notes');
}
like(run_ok('--prune-layers 3 alone', $SLUICE, 'quantize', "$dir/glm-f32.gguf", "$dir/x.gguf", 'F32', '-f', '--prune-layers', 3)->{err},
    qr/^sluice: note: .*, and glm-dsa\.nextn_predict_layers stays 1: llama\.cpp would not load the file; give --override-kv/m, 'a note');
# These checks find what is missing.
is(run(python('model_keys.py', 'glm', $source, "$dir/glm-no.gguf"))->{rc}, 1, 'keys that are missing');
like(run(python('reference.py', 'compare', $source, "$dir/glm-no.gguf"))->{out}, qr/^blk\.3\.nextn\.eh_proj\.weight: missing$/m, 'tensors that are missing');
SKIP: {
    skip_without_llama(8);
    for my $mixture (qw(Q4_K_M Q2_K)) {
        run_ok($mixture, $SLUICE, 'convert', $source, '-o', "$dir/glm-$mixture.gguf", '--recipe', $mixture, '--quiet');
        as_llama_quantize("$dir/glm-$mixture.gguf", "$dir/glm-f32.gguf", $mixture);
    }
    run_ok('dq3_k_m', $SLUICE, 'convert', $source, '-o', "$dir/glm-dq3_k_m.gguf", '--recipe', 'dq3_k_m', '--quiet');
    make_text(map { "$dir/glm-$_.gguf" } qw(Q4_K_M dq3_k_m no));
}
$plan = plan_of($source, '--recipe', 'q8_0', '--ctx', 1000);
is($plan->{memory}[0]{cache_bytes}, ((512 + 64) * $layers + 64 * 2) * 2 * 1000, 'cache: keys of the layers with an indexer alone');
# A published checkpoint of this form (GLM-5.3) has 755,617,140,416 bytes of tensors; the indexer's norms are BF16 there, F32 in V3.2's.
$plan = plan_of('tests/data/glm-5.2-fp8-config.json');
is($plan->{source_bytes}, 755_617_140_416 + 22 * 2 * 128 * 2, 'bytes to read');

refused($source, '--layout legacy', 2, qr/--layout legacy: llama\.cpp runs GlmMoeDsaForCausalLM in the layout mla alone/, sub { }, 'plan', '--layout', 'legacy');
refused($source, 'indexer_types that miss one', 7, qr/5 tensors missing from the checkpoint: model\.layers\.1\.self_attn\.indexer\./, config_edit(sub { $_[0]{indexer_types}[1] = 'full' }));
refused($source, 'indexer_types with one too few', 6, qr/\d+ tensors unknown for GlmMoeDsaForCausalLM \(0 expected ones missing\): model\.layers\.2\.self_attn\.indexer\./,
    config_edit(sub { $_[0]{indexer_types}[2] = 'shared' }));
refused($source, 'tokens of another model', 7, qr/tokenizer\.json: "added_tokens" lacks '<\|user\|>', which GLM's models have/,
    sub { edit_json("$_[0]/tokenizer.json", sub { $_[0]{added_tokens} = [grep { $_->{content} ne '<|user|>' } @{ $_[0]{added_tokens} }] }) });

done_testing();
