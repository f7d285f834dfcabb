# A checkpoint in Kimi-K3's form: layers of delta attention and of full attention, experts in a space of their own and
# in MXFP4, a vision part beside the text model. Metadata and tensors against an independent computation (which the real
# converter's file was held against, too) and llama-quantize, files loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use JSON::PP ();
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my $source = "$dir/Kimi-K3";
run_ok('made', python('k3.py', 'make', $source));

# ---- metadata and tensors; by v4-mxfp4 the converter's own file
my $r = converted($source, 'f32', '--recipe', 'f32');
like($r->{err}, qr/^sluice: note: the checkpoint has no chat template, .* with that of Kimi-K3 \(models\/templates .*chat_template\.jinja$/m, 'it has no chat template');
like($r->{err}, qr/^sluice: note: the vision part \(2 tensors\) is left out: /m, 'what is left out is said');
converted($source, 'own', '--recipe', 'v4-mxfp4', '--quiet');
$r = run(python('k3.py', 'compare', $source, map { "$dir/$_.gguf" } qw(f32 own)));
is($r->{out}, "equal\n", 'every bit of the tensors') or diag($r->{out}, $r->{err});
$r = run(python('k3.py', 'keys', $source, "$dir/own.gguf"));
is($r->{out}, "equal 39 keys\n", 'keys and their order') or diag($r->{out}, $r->{err});
is(kv_of("$dir/own.gguf", 'general.file_type'), "38\n", 'file type');
is(kv_of("$dir/own.gguf", 'general.size_label'), "16x12M\n", 'size label');
my %count;
$count{$_}++ for run($SLUICE, 'inspect', '-t', "$dir/own.gguf")->{out} =~ /^(\w+) .*\]  +\S+$/mg;
is_deeply(\%count, { mxfp4 => 12, bf16 => 63, f32 => 56 }, 'types');
run_ok('verify', $SLUICE, 'verify', "$dir/$_.gguf", '--source', $source, '--sample', '100%') for qw(f32 own);
run_ok('diff', $SLUICE, 'diff', $source, "$dir/f32.gguf");

like(run_ok('--prune-layers', $SLUICE, 'quantize', "$dir/f32.gguf", "$dir/x.gguf", 'F32', '-n', '--prune-layers', 4)->{err},
    qr/^sluice: note: kimi-k3\.attention\.head_count_kv still tells of 5 layers: llama\.cpp will not load the file$/m, 'a note');

# The comparisons can fail, and verify sees what they see: a product, an exponential.
for my $name (qw(blk.1.attn_res_score.weight blk.0.ssm_a)) {
    my ($at) = map { $_->[1] } grep { $_->[0] eq $name } where("$dir/f32.gguf");
    my $data = slurp("$dir/f32.gguf");
    substr($data, $at + 12, 1) ^= "\1";
    spit("$dir/bad.gguf", $data);
    is(run(python('k3.py', 'compare', $source, "$dir/bad.gguf"))->{out}, "$name: bytes differ (F32)\n", "$name differs");
    like(run($SLUICE, 'verify', "$dir/bad.gguf", '--source', $source, '--sample', '100%')->{out}, qr/\Q$name\E: block 3 /, 'verify sees it');
}

# Nothing packed; q in one matrix, experts in the model's own space, other names of some entries, the convolutions as
# matrices, layer 1 of full attention.
run_ok('made: odd', python('k3.py', 'make', "$dir/odd", '--bf16', '--odd'));
for my $recipe (qw(f32 bf16)) {
    converted("$dir/odd", "odd-$recipe", '--recipe', $recipe, '--quiet');
    is(run(python('k3.py', 'compare', "$dir/odd", "$dir/odd-$recipe.gguf"))->{out}, "equal\n", "$recipe: every bit");
}
is(run(python('k3.py', 'keys', "$dir/odd", "$dir/odd-f32.gguf"))->{out}, "equal 38 keys\n", 'keys and their order');
spit("$dir/odd/chat_template.jinja", "{{ messages }}\n");
unlike(run_ok('plan', $SLUICE, 'plan', "$dir/odd", '--recipe', 'f32')->{err}, qr/chat template/, 'a template');

# ---- plans
my @plans = map { plan_of($_, '--ctx', 32768) } $source, "$source/config.json", "$dir/f32.gguf";
is($plans[1]{source_bytes}, $plans[0]{source_bytes}, 'config.json alone: the bytes that are there');
# Two layers have a cache, three a state: a matrix for each head, and three tokens before of q, k and v.
my $cache = 2 * 2 * (256 + 64) * 32768 + 3 * 4 * 4 * 64 * (64 + 3 * 3);
for my $plan (@plans) {
    my %bytes = map { ("$_->{cache} $_->{cache_bytes}" => 1) } @{ $plan->{memory} };
    is(join(' ', keys %bytes), "compressed $cache", 'cache, in one form');
}
my $k3 = plan_of('tests/data/kimi-k3-config.json');
is("$k3->{model}{weights} $k3->{model}{tensors}", '2779483135584 2573', 'the published model: weights and tensors');
is($k3->{source_bytes}, 1_559_945_231_488, 'bytes to read');

# ---- a real llama.cpp
SKIP: {
    skip_without_llama(15);
    for my $case (['f32', 'Q4_K_M'], ['own', 'Q2_K', '--allow-requantize'], ['own', 'MXFP4_MOE', '--allow-requantize'], ['odd-f32', 'Q3_K_M'], ['odd-f32', 'TQ2_0']) {
        my ($from, $mixture, @options) = @$case;
        my $name = $from =~ /odd/ ? "odd-$mixture" : $mixture;
        converted($from =~ /odd/ ? "$dir/odd" : $source, $name, '--recipe', $mixture, '--quiet');
        as_llama_quantize("$dir/$name.gguf", "$dir/$from.gguf", $mixture, @options);
    }
    converted($source, 'dq3_k_m', '--recipe', 'dq3_k_m', '--quiet');
    make_text(map { "$dir/$_.gguf" } qw(f32 own Q4_K_M Q2_K dq3_k_m odd-bf16));
    $r = run(python('kimi.py', 'tokenize', $source, "$dir/own.gguf"));
    is($r->{out}, "equal 12 texts\n", 'llama.cpp splits texts as BPE by ranks does') or diag($r->{err});
}

# ---- refused in one line
sub text {
    my ($edit) = @_;
    return config_edit(sub { $edit->($_[0]{text_config}) });
}
my $attn = 'language_model.model.layers.0.self_attn';
refused($source, 'no end of a text', 7, qr/"eos_token_id": expected the id of the token at a text's end$/, config_edit(sub { delete $_[0]{eos_token_id}; delete $_[0]{text_config}{eos_token_id} }));
refused($source, 'a gate too many', 6, qr/2 tensors unknown for KimiK3ForConditionalGeneration .*: model\.layers\.2\.self_attn\.g_proj\.weight, /, text(sub { $_[0]{mla_use_output_gate} = JSON::PP::false() }));
refused($source, 'another layer', 7, qr/tensor 'model\.layers\.1\.self_attn\.g_proj\.weight': expected shape \[512, 512\] by config\.json, found \[256, 512\]$/, text(sub { $_[0]{linear_attn_config}{full_attn_layers} = [2, 3, 5] }));
refused($source, 'a factor missing', 6, qr/1 tensor unknown .* \(1 expected one missing: model\.layers\.3\.mlp_res_proj\.weight\)/, header_edit(sub { s/layers\.3\.mlp_res_pro\Kj/x/ or die }));
refused($source, 'an infinite exponential', 7, qr/tensor '\Q${\ ($attn =~ s{^language_model\.}{}r)}.A_log\E' in '.*': element 0 of blk\.0\.ssm_a would be infinite; the source is damaged$/, tensor_edit("$attn.A_log", 0, pack('f<', 90)), 'convert');
refused($source, 'a factor that is no number', 7, qr/self_attention_res_proj\.weight' in '.*': row 0, column 0 is NaN or infinite \(BF16\); the source is damaged$/,
    tensor_edit('language_model.model.layers.0.self_attention_res_proj.weight', 0, pack('v', 0x7fc0)), 'convert');
refused($source, '--layout legacy', 2, qr/--layout legacy: llama\.cpp runs KimiK3ForConditionalGeneration in the layout mla alone/, sub { }, 'plan', '--layout', 'legacy');

done_testing();
