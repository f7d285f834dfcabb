# A checkpoint in DeepSeek-V4's form: FP8 under E8M0 scales, experts in 4-bit floats, tables that choose experts,
# a window and compressed tokens. Metadata and tensors against an independent computation (which the real converter's
# file was held against, too) and llama-quantize, files loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use JSON::PP ();
use SluiceTest;
use Test::More;

need_python();
my $dir = scratch();
my $source = "$dir/DeepSeek-V4-Flash";
run_ok('made', python('v4.py', 'make', $source));

sub convert {
    my ($from, $name, @options) = @_;
    return run_ok($name, $SLUICE, 'convert', $from, '-o', "$dir/$name.gguf", @options);
}
sub kv {
    my ($file, $key) = @_;
    return run($SLUICE, 'inspect', "$dir/$file.gguf", '--kv', $key)->{out};
}
sub keys_of {
    return join ' ', map { /^(\S+)/ } split /\n/, run(tool('gguf_hash'), '--keys', "$dir/$_[0].gguf")->{out};
}

# ---- metadata and tensors
my $no_template = qr/^sluice: note: the checkpoint has no chat template, and llama\.cpp's converter would write its own: .*chat_template\.jinja$/m;
like(convert($source, 'f32', '--recipe', 'f32')->{err}, $no_template, 'it has no chat template');
convert($source, $_, '--recipe', $_, '--quiet') for qw(bf16 q8_0);
my $r = run(python('v4.py', 'compare', $source, map { "$dir/$_.gguf" } qw(f32 bf16 q8_0)));
is($r->{out}, "equal\n", 'every bit of the tensors') or diag($r->{out}, $r->{err});
$r = run(python('v4.py', 'keys', $source, "$dir/f32.gguf"));
is($r->{out}, "equal 38 keys\n", 'keys and their order') or diag($r->{out}, $r->{err});
is(kv('f32', 'tokenizer.ggml.pre'), "joyai-llm\n", 'no token before every text: the rules are called so');
is(kv('f32', 'general.size_label'), "8x6.8M\n", 'size label');
run_ok('verify', $SLUICE, 'verify', "$dir/q8_0.gguf", '--source', $source);
run_ok('diff', $SLUICE, 'diff', $source, "$dir/f32.gguf");

# What the converter itself writes: experts are moved, only FP8 is quantized.
convert($source, 'own', '--recipe', 'v4-mxfp4', '--quiet');
is(run(python('v4.py', 'compare', $source, "$dir/own.gguf"))->{out}, "equal\n", 'every bit');
my %count;
$count{$_}++ for run($SLUICE, 'inspect', '-t', "$dir/own.gguf")->{out} =~ /^(\w+) .*\]  +\S+$/mg;
is_deeply(\%count, { mxfp4 => 15, q8_0 => 42, bf16 => 19, i32 => 2, f32 => 72 }, 'types');
is(kv('own', 'general.file_type'), "38\n", 'file type');
run_ok('verify', $SLUICE, 'verify', "$dir/own.gguf", '--source', $source);

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
unlike(convert($chat, 'chat', '--recipe', 'q8_0')->{err}, $no_template, 'a template');
like(keys_of('chat'), qr/^general\.architecture tokenizer\.chat_template general\.type /, 'its place');
is(kv('chat', 'tokenizer.ggml.pre'), "deepseek-v3\n", 'with a token before every text');

# Tables in I32, a bias where they choose; experts in FP8, as the base model's.
my %other = (odd => ['--odd'], fp8 => ['--experts', 'fp8']);
for my $form (sort keys %other) {
    run_ok("made: $form", python('v4.py', 'make', "$dir/$form-src", @{ $other{$form} }));
    convert("$dir/$form-src", $form, '--recipe', 'bf16', '--quiet');
    is(run(python('v4.py', 'compare', "$dir/$form-src", "$dir/$form.gguf"))->{out}, "equal\n", "$form: every bit");
}

# ---- plans
sub plan_of {
    return (json_lines(run($SLUICE, 'plan', @_, '--recipe', 'q4_k_m', '--json')->{out}))[0];
}
my @plans = map { plan_of($_, '--ctx', 32768) } $source, "$source/config.json", "$dir/f32.gguf";
is($plans[1]{source_bytes}, $plans[0]{source_bytes}, 'config.json alone: the bytes that are there');
# What llama.cpp allocates, in F16: 768 cells of the window in each layer, 8192 and 256 of compressed tokens, the indexer's.
is($_->{memory}[0]{cache} . ' ' . $_->{memory}[0]{cache_bytes}, 'windowed ' . 2 * (5 * 768 * 128 + 2 * 8192 * (128 + 64) + 256 * 128), 'cache') for @plans;
my $flash = plan_of('tests/data/deepseek-v4-flash-config.json');
is("$flash->{model}{weights} $flash->{model}{tensors}", '284334567511 1328', 'the published model: weights and tensors');
is($flash->{source_bytes}, 156_015_698_140, 'bytes to read');

# ---- a real llama.cpp
SKIP: {
    skip 'llama.cpp is not here', 24 if run(python('llama.py', 'version'))->{rc} && !$IN_CI;
    for my $mixture (qw(Q4_K_M Q2_K IQ4_XS)) {
        convert($source, $mixture, '--recipe', $mixture, '--quiet');
        run_ok('llama-quantize', python('llama.py', 'quantize', "$dir/f32.gguf", "$dir/theirs.gguf", $mixture));
        is_deeply(hashes("$dir/$mixture.gguf"), hashes("$dir/theirs.gguf"), 'the same tensors');
    }
    # llama-imatrix sees attn_output_a in groups: its data do not fit the tensor, in llama-quantize neither.
    run_ok('imatrix', python('llama.py', 'imatrix', "$dir/f32.gguf", "$dir/imatrix.gguf", '--chunks', 1));
    my @im = ('--imatrix', "$dir/imatrix.gguf");
    fails('data in groups', 2, qr/'blk\.0\.attn_output_a\.weight' has 512 values there, 256 are expected; .*--exclude-weights$/,
        $SLUICE, 'plan', $source, '--recipe', 'ud-iq1_s', @im);
    convert($source, 'ud', '--recipe', 'ud-iq1_s', @im, '--exclude-weights', 'attn_output_a', '--quiet');
    convert($source, 'im', '--recipe', 'q4_k_m', @im, '--exclude-weights', 'attn_output_a', '--quiet');
    run_ok('llama-quantize', python('llama.py', 'quantize', "$dir/f32.gguf", "$dir/theirs.gguf", 'Q4_K_M', @im, '--exclude-weights', 'attn_output_a'));
    is_deeply(hashes("$dir/im.gguf"), hashes("$dir/theirs.gguf"), 'the same tensors');
    convert($source, 'dq3_k_m', '--recipe', 'dq3_k_m', '--quiet');
    $r = run(python('llama.py', 'load', map { "$dir/$_.gguf" } qw(f32 own Q4_K_M Q2_K dq3_k_m ud)));
    is(scalar grep({ @{ $_->{tokens} // [] } == 8 } json_lines($r->{out})), 6, 'six files make text') or diag($r->{out}, $r->{err});
}

# ---- refused in one line
sub refused {
    my ($name, $rc, $pattern, $change, @verb) = @_;
    my $bad = scratch() . '/m';
    copy_checkpoint($source, $bad, 'model.safetensors');
    $change->($bad);
    my $f = fails($name, $rc, $pattern, $SLUICE, @verb ? @verb : 'plan', $bad, '--recipe', 'q8_0', @verb ? ('-o', "$bad/x.gguf", '--quiet') : ());
    is($f->{err} =~ tr/\n//, 1, 'one line');
    ok(!-e "$bad/x.gguf", 'no file');
}
# The place of a tensor in the shard, and its header with something else in it, as long as before.
sub entry {
    my ($name, $place) = @_;
    return sub {
        my $data = slurp("$_[0]/model.safetensors");
        my $n = unpack('Q<', $data);
        my $header = substr($data, 8, $n);
        my $info = JSON::PP->new->utf8->decode($header)->{$name} or die $name;
        $place->(\$header, \$data, 8 + $n + $info->{data_offsets}[0]);
        spit("$_[0]/model.safetensors", substr($data, 0, 8) . $header . substr($data, 8 + $n));
    };
}
my $table = 'layers.1.ffn.gate.tid2eid';
for ([8, 8], [-1, -1], [2**40, 1 << 40]) {
    my ($value, $shown) = @$_;
    refused("expert $shown", 7, qr/tensor '\Q$table\E' in '.*': row 5, column 2 is $shown, expected 0 to 7; the source is damaged$/,
        entry($table, sub { substr(${ $_[1] }, $_[2] + 8 * 17, 8) = pack('q<', $value) }), 'convert');
}
refused('a table of floats', 6, qr/tensor '\Q$table\E' is F64, which cannot be read as a list of experts: expected I64 or I32$/,
    entry($table, sub { ${ $_[0] } =~ s/("\Q$table\E": \{"dtype": )"I64"/$1"F64"/ or die }));
refused('a table missing', 6, qr/1 tensor unknown for DeepseekV4ForCausalLM \(1 expected one missing: \Q$table\E\): layers\.1\.ffn\.gate\.tid2eix; /,
    sub {
        entry($table, sub { ${ $_[0] } =~ s/layers\.1\.ffn\.gate\.tid2eid/layers.1.ffn.gate.tid2eix/ or die })->(@_);
        unlink "$_[0]/model.safetensors.index.json";
    });
refused('a router without its bias', 7, qr/1 tensor missing from the checkpoint: layers\.1\.ffn\.gate\.bias; .*/, sub {
    config_edit(sub { $_[0]{num_hash_layers} = 1 })->(@_);
    entry($table, sub { ${ $_[0] } =~ s/"layers\.1\.ffn\.gate\.tid2eid"/"mtp.1.11.ffn.gate.tid2eid"/ or die })->(@_);
    unlink "$_[0]/model.safetensors.index.json";
});
refused('another ratio', 7, qr/tensor 'layers\.3\.attn\.compressor\.ape': expected shape \[4, 256\] by config\.json, found \[128, 128\]/, config_edit(sub { $_[0]{compress_ratios}[3] = 4 }));
refused('--layout legacy', 2, qr/--layout legacy: llama\.cpp runs DeepseekV4ForCausalLM in the layout mla alone/, sub { }, 'convert', '--layout', 'legacy');

done_testing();
