# A checkpoint in DeepSeek-V4's form: FP8 under E8M0 scales, experts in 4-bit floats, tables that choose experts,
# a window and compressed tokens. Metadata and tensors against an independent computation (which the real converter's
# file was held against, too) and llama-quantize, files loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use JSON::PP ();
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my $source = "$dir/DeepSeek-V4-Flash";
run_ok('made', python('v4.py', 'make', $source));

sub keys_of {
    return join ' ', map { /^(\S+)/ } split /\n/, run(tool('gguf_hash'), '--keys', "$dir/$_[0].gguf")->{out};
}

# ---- metadata and tensors
my $no_template = qr/^sluice: note: the checkpoint has no chat template, and llama\.cpp's converter would write its own: .*chat_template\.jinja$/m;
like(converted($source, 'f32', '--recipe', 'f32')->{err}, $no_template, 'it has no chat template');
converted($source, $_, '--recipe', $_, '--quiet') for qw(bf16 q8_0);
my $r = run(python('v4.py', 'compare', $source, map { "$dir/$_.gguf" } qw(f32 bf16 q8_0)));
is($r->{out}, "equal\n", 'every bit of the tensors') or diag($r->{out}, $r->{err});
$r = run(python('v4.py', 'keys', $source, "$dir/f32.gguf"));
is($r->{out}, "equal 38 keys\n", 'keys and their order') or diag($r->{out}, $r->{err});
is(kv_of("$dir/f32.gguf", 'tokenizer.ggml.pre'), "joyai-llm\n", 'no token before every text: the rules are called so');
is(kv_of("$dir/f32.gguf", 'general.size_label'), "8x6.8M\n", 'size label');
run_ok('verify', $SLUICE, 'verify', "$dir/q8_0.gguf", '--source', $source);
run_ok('diff', $SLUICE, 'diff', $source, "$dir/f32.gguf");

# What the converter itself writes: experts are moved, only FP8 is quantized.
converted($source, 'own', '--recipe', 'v4-mxfp4', '--quiet');
is(run(python('v4.py', 'compare', $source, "$dir/own.gguf"))->{out}, "equal\n", 'every bit');
my %count;
$count{$_}++ for run($SLUICE, 'inspect', '-t', "$dir/own.gguf")->{out} =~ /^(\w+) .*\]  +\S+$/mg;
is_deeply(\%count, { mxfp4 => 15, q8_0 => 42, bf16 => 19, i32 => 2, f32 => 72 }, 'types');
is(kv_of("$dir/own.gguf", 'general.file_type'), "38\n", 'file type');
run_ok('verify', $SLUICE, 'verify', "$dir/own.gguf", '--source', $source);
like(run($SLUICE, 'convert', $source, '-n', '-o', "$dir/x.gguf", '--recipe', 'v4-mxfp4', '--imatrix', 'synthetic')->{err},
    qr/synthetic: 42 of 42 quantized tensors/, 'what is kept is not weighted');

like(run_ok('--prune-layers', $SLUICE, 'quantize', "$dir/f32.gguf", "$dir/x.gguf", 'F32', '-n', '--prune-layers', 4)->{err},
    qr/^sluice: note: deepseek4\.swiglu_clamp_exp still tells of 5 layers: llama\.cpp will not load the file$/m, 'a note');

# The comparisons can fail: a table's entry, a key.
{
    my ($at) = map { $_->[1] } grep { $_->[0] eq 'blk.1.ffn_gate_tid2eid.weight' } where("$dir/f32.gguf");
    my $data = slurp("$dir/f32.gguf");
    substr($data, $at + 12, 1) ^= "\1";
    spit("$dir/bad.gguf", $data);
    like(run(python('v4.py', 'compare', $source, "$dir/bad.gguf"))->{out}, qr/^blk\.1\.ffn_gate_tid2eid\.weight: bytes differ \(I32\)\n\z/, 'a table that differs');
    like(run($SLUICE, 'verify', "$dir/bad.gguf", '--source', $source, '--sample', '100%')->{out}, qr/blk\.1\.ffn_gate_tid2eid\.weight/, 'verify sees it');
    is(run($SLUICE, 'diff', $source, "$dir/bad.gguf")->{rc}, 1, 'diff, too');
    my $text = slurp("$source/config.json");
    edit_json("$source/config.json", sub { $_[0]{compress_ratios}[5] = 4 });
    is(run(python('v4.py', 'keys', $source, "$dir/f32.gguf"))->{rc}, 1, 'another key');
    spit("$source/config.json", $text);
}

# A template of the checkpoint's stands where the converter's stood; BOS before every text changes the rules' name.
my $chat = copy_checkpoint($source, "$dir/chat");
spit("$chat/chat_template.jinja", "{{ messages }}\n");
edit_json("$chat/tokenizer_config.json", sub { $_[0] = { %{ $_[0] }, add_bos_token => JSON::PP::true(), tokenizer_class => 'LlamaTokenizerFast' } });
# rope_parameters by kinds, as transformers 5 has them, do not hide rope_scaling.
edit_json("$chat/config.json", sub { $_[0]{rope_parameters} = { main => { rope_type => 'default', rope_theta => 10000 }, compress => { rope_type => 'yarn', factor => 4 } } });
unlike(converted($chat, 'chat', '--recipe', 'q8_0')->{err}, $no_template, 'a template');
like(keys_of('chat'), qr/^general\.architecture tokenizer\.chat_template general\.type /, 'its place');
is(kv_of("$dir/chat.gguf", 'tokenizer.ggml.pre'), "deepseek-v3\n", 'with a token before every text');
is(kv_of("$dir/chat.gguf", 'deepseek4.rope.scaling.factor'), "16\n", 'YaRN');

# Tables in I32, a bias where they choose, the head in FP8, a linear layer in BF16; experts in FP8, as the base model's.
my %other = (odd => ['--odd'], fp8 => ['--experts', 'fp8']);
my %types = (odd => qr/^q8_0 .* output\.weight\n.*^bf16 .* blk\.0\.attn_output_a\.weight$/ms, fp8 => qr/^q8_0 .* blk\.0\.ffn_down_exps\.weight$/m);
for my $form (sort keys %other) {
    run_ok("made: $form", python('v4.py', 'make', "$dir/$form-src", @{ $other{$form} }));
    for my $recipe ('bf16', 'v4-mxfp4') {
        converted("$dir/$form-src", $form, '--recipe', $recipe, '--quiet', '--force');
        is(run(python('v4.py', 'compare', "$dir/$form-src", "$dir/$form.gguf"))->{out}, "equal\n", "$form by $recipe: every bit");
    }
    like(run($SLUICE, 'inspect', '-t', "$dir/$form.gguf")->{out}, $types{$form}, "$form: the checkpoint's types stay, FP8 becomes q8_0");
}

# ---- plans
my @plans = map { plan_of($_, '--ctx', 32768) } $source, "$source/config.json", "$dir/f32.gguf";
is($plans[1]{source_bytes}, $plans[0]{source_bytes}, 'config.json alone: the bytes that are there');
# What llama.cpp allocates, in F16: 768 cells of the window in each layer, 8192 and 256 of compressed tokens, the indexer's.
is($_->{memory}[0]{cache} . ' ' . $_->{memory}[0]{cache_bytes}, 'windowed ' . 2 * (5 * 768 * 128 + 2 * 8192 * (128 + 64) + 256 * 128), 'cache') for @plans;
my $flash = plan_of('tests/data/deepseek-v4-flash-config.json');
is("$flash->{model}{weights} $flash->{model}{tensors}", '284334567511 1328', 'the published model: weights and tensors');
is($flash->{source_bytes}, 156_015_698_140, 'bytes to read');

# The recipes with rules of their own leave what mixes the streams, and the compressors, as they are.
sub groups {
    my ($plan) = @_;
    return map { my $g = $_; $g->{name} => join ' ', sort map { $_->{type} } @{ $g->{types} } } @{ $plan->{groups} // [] };
}
for my $recipe (qw(dq3_k_m q2_k_l ud-q2_k_xl ud-iq1_s ud-iq1_m ud-iq2_xxs)) {
    my %type = groups(plan_of($source, '--recipe', $recipe));
    is_deeply({ map { $_ => $type{$_} } grep { /(?:^|_)(?:hc|compressor)_(?:.*fn|ape|kv|gate)$/ } keys %type },
        { (map { $_ => 'f32' } qw(hc_attn_fn hc_ffn_fn output_hc_fn attn_compressor_ape indexer_compressor_ape)),
          (map { $_ => 'bf16' } map { ("${_}_compressor_kv", "${_}_compressor_gate") } qw(attn indexer)) }, "$recipe: small ones stay");
}

# What is MXFP4 gains nothing in a larger type, which is said.
$r = run($SLUICE, 'plan', $source, '--recipe', 'q4_k_m');
my ($said) = $r->{out} =~ /^Note +15 tensors are MXFP4 in the source, 4\.25 bits a weight: the larger types here take (\S+ kB) more than mxfp4 /m;
my $bytes = $plans[0]{mxfp4_grown_bytes};
is($said // 'nothing', sprintf('%.1f kB', $bytes / 1000), "a note, $bytes bytes");
is($bytes, sum_of($plans[0]) - 15 * 256 * 256 * 8 * 17 / 32, 'what they take more');
is("$plans[$_]{mxfp4_grown_tensors}", [15, 15, 0]->[$_], 'tensors: checkpoint, config.json alone, F32') for 0 .. 2;
sub sum_of {
    my $n = 0;
    $n += $_->{bytes} for grep { $_->{name} =~ /_exps$/ } @{ $_[0]{groups} };
    return $n;
}
unlike(run_ok('plan', $SLUICE, 'plan', $source, '--recipe', 'v4-mxfp4')->{out}, qr/MXFP4 in the source/, 'nothing where they are kept');

# ---- recipes by size: kept experts cost no error and are not read
for my $case ([9_000_000, 0, qr/^\w+$/], [12_000_000, 0, qr/^mxfp4_moe$/], [14_000_000, 1, qr/^v4-mxfp4$/]) {
    my ($size, $from_stock, $best) = @$case;
    my $recipe = "$dir/t$size.recipe";
    my ($j) = json_lines(run_ok("a recipe for $size", $SLUICE, 'plan', $source, '--target-size', $size, '--write-recipe', $recipe, '--json', '-q')->{out});
    my %type = groups($j);
    is("@type{qw(ffn_gate_exps ffn_up_exps ffn_down_exps)}", 'mxfp4 mxfp4 mxfp4', 'experts are kept');
    like($j->{target}{best_stock}, $best, "a rival: $j->{target}{best_stock}");
    is_deeply([grep { $_->{mean_error} < $j->{measure}{mean_error} } @{ $j->{target}{stock} }], [], 'none is better');
    is($j->{target}{from_stock} ? 1 : 0, $from_stock, 'whether types are its own');
    converted($source, "t$size", '--recipe', $recipe, '--quiet');
    is(-s "$dir/t$size.gguf", $j->{file_bytes}, 'the file, as planned');
    cmp_ok($j->{file_bytes}, '<=', $size, 'fits');
    is(kv_of("$dir/t$size.gguf", 'general.file_type'), "38\n", 'file type');
}
run_ok('verify', $SLUICE, 'verify', "$dir/t9000000.gguf", '--source', $source, '--sample', '100%');
my %measure = map { $_ => plan_of($source, '--recipe', $_, '--measure', '-q')->{measure} } qw(q8_0 v4-mxfp4);
is($measure{q8_0}{tensors} - $measure{'v4-mxfp4'}{tensors}, 15, 'kept tensors are not measured');
fails('more than the whole', 2, qr/not below the 1\d\.\d MB that the model takes with MXFP4 kept and 16 bits for each other weight: .*use --recipe bf16 and --tensor-type REGEX=mxfp4/,
    $SLUICE, 'plan', $source, '--target-size', '20M', '-q');
is(plan_of($source, qw(--recipe bf16 --tensor-type _exps=mxfp4))->{mxfp4_grown_tensors}, 0, 'which does it');

run_ok('by way of BF16', $SLUICE, 'quantize', "$dir/own.gguf", "$dir/rounded.gguf", 'v4-mxfp4', qw(--round-through bf16 -q));
run_ok('which keeps tables and blocks', $SLUICE, 'verify', "$dir/rounded.gguf", '--source', "$dir/own.gguf", qw(--sample all));

# ---- a real llama.cpp
SKIP: {
    skip_without_llama(20);
    for my $mixture (qw(Q4_K_M Q2_K IQ4_XS)) {
        converted($source, $mixture, '--recipe', $mixture, '--quiet');
        as_llama_quantize("$dir/$mixture.gguf", "$dir/f32.gguf", $mixture);
    }
    # Experts that are MXFP4 are kept; attn_output_a and others of three dimensions become that.
    run_ok('MXFP4_MOE', $SLUICE, 'quantize', "$dir/own.gguf", "$dir/MXFP4_MOE.gguf", 'MXFP4_MOE', '--allow-requantize', '-q');
    as_llama_quantize("$dir/MXFP4_MOE.gguf", "$dir/own.gguf", 'MXFP4_MOE', '--allow-requantize');
    # llama-imatrix sees attn_output_a in groups: its data do not fit the tensor, in llama-quantize neither.
    run_ok('imatrix', python('llama.py', 'imatrix', "$dir/f32.gguf", "$dir/imatrix.gguf", '--chunks', 1));
    my @im = ('--imatrix', "$dir/imatrix.gguf");
    fails('data in groups', 2, qr/'blk\.0\.attn_output_a\.weight' has 512 values there, 256 are expected; .*--exclude-weights$/,
        $SLUICE, 'plan', $source, '--recipe', 'ud-iq1_s', @im);
    converted($source, 'ud', '--recipe', 'ud-iq1_s', @im, '--exclude-weights', 'attn_output_a', '--quiet');
    converted($source, 'im', '--recipe', 'q4_k_m', @im, '--exclude-weights', 'attn_output_a', '--quiet');
    as_llama_quantize("$dir/im.gguf", "$dir/f32.gguf", 'Q4_K_M', @im, '--exclude-weights', 'attn_output_a');
    converted($source, 'dq3_k_m', '--recipe', 'dq3_k_m', '--quiet');
    make_text(map { "$dir/$_.gguf" } qw(f32 own Q4_K_M Q2_K dq3_k_m ud t9000000));
}

# ---- refused in one line
my $table = 'layers.1.ffn.gate.tid2eid';
for ([8, 8], [-1, -1], [2**40, 1 << 40]) {
    my ($value, $shown) = @$_;
    refused($source, "expert $shown", 7, qr/tensor '\Q$table\E' in '.*': row 5, column 2 is $shown, expected 0 to 7; the source is damaged$/,
        tensor_edit($table, 8 * 17, pack('q<', $value)), 'convert');
}
refused($source, 'a table of floats', 6, qr/tensor '\Q$table\E' is F64, which cannot be read as a list of experts: expected I64 or I32$/,
    header_edit(sub { s/("\Q$table\E": \{"dtype": )"I64"/$1"F64"/ or die }));
refused($source, 'an expert without scales', 6, qr/tensor 'layers\.2\.ffn\.experts\.3\.w1\.weight' is I8, which cannot be read as weights; as MXFP4 it would have scales in F8_E8M0, as INT8 in F32, BF16 or F16$/,
    header_edit(sub { s/"layers\.2\.ffn(?=\.experts\.3\.w1\.scale")/"mtp.1.123456/ or die }));
refused($source, 'a table missing', 6, qr/1 tensor unknown for DeepseekV4ForCausalLM \(1 expected one missing: \Q$table\E\): layers\.1\.ffn\.gate\.tid2eix; /,
    header_edit(sub { s/layers\.1\.ffn\.gate\.tid2eid/layers.1.ffn.gate.tid2eix/ or die }));
refused($source, 'a router without its bias', 7, qr/1 tensor missing from the checkpoint: layers\.1\.ffn\.gate\.bias; .*/, sub {
    config_edit(sub { $_[0]{num_hash_layers} = 1 })->(@_);
    header_edit(sub { s/"layers\.1\.ffn\.gate\.tid2eid"/"mtp.1.11.ffn.gate.tid2eid"/ or die })->(@_);
});
refused($source, 'another ratio', 7, qr/tensor 'layers\.3\.attn\.compressor\.ape': expected shape \[4, 256\] by config\.json, found \[128, 128\]/, config_edit(sub { $_[0]{compress_ratios}[3] = 4 }));
refused($source, '--layout legacy', 2, qr/--layout legacy: llama\.cpp runs DeepseekV4ForCausalLM in the layout mla alone/, sub { }, 'convert', '--layout', 'legacy');

done_testing();
