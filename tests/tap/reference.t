# F32, F16 and BF16 output against a second conversion in numpy that shares
# nothing with Sluice: names, shapes and every bit, over all forms of source.
use strict;
use warnings;
use JSON::PP ();
use ModelTest;
use SluiceTest;
use Test::More;

need_python();

sub compare {
    my ($name, $source, $layout, @files) = @_;
    my $r = run(python('reference.py', 'compare', $source, @files, '--layout', $layout));
    ok($r->{rc} == 0 && $r->{out} eq "equal\n", $name) or diag("$r->{out}$r->{err}");
    return $r;
}

for my $recipe (qw(f32 f16 bf16)) {
    for my $layout (qw(mla legacy)) {
        my $file = "$dir/$layout-$recipe.gguf";
        run_ok("tiny-v3 $layout $recipe", $SLUICE, 'convert', $TINY, '-o', $file, '--recipe', $recipe, '--layout', $layout);
        compare("tiny-v3 $layout $recipe: every bit", $TINY, $layout, $file);
    }
}

# The comparison itself can fail.
my ($t) = grep { $_->[0] eq 'blk.2.ffn_down_exps.weight' } where("$dir/mla-f32.gguf");
flip_byte("$dir/mla-f32.gguf", $t->[1] + 12345, 1);
my $r = run(python('reference.py', 'compare', $TINY, "$dir/mla-f32.gguf"));
ok($r->{rc} == 1 && $r->{out} =~ /blk\.2\.ffn_down_exps\.weight: bytes differ/, 'one wrong bit is noticed');

my %forms = (
    'DeepSeek with an MTP layer'      => ['--mtp'],
    'E8M0 scales'                     => ['--scales', 'e8m0'],
    'one scale for each row'          => ['--scales', 'row', '--scale-suffix', 'weight_scale'],
    'one scale for the tensor'        => ['--scales', 'tensor', '--scale-suffix', 'weight_scale'],
    'BF16 router bias, one file'      => ['--bf16-bias', '--shards', '1'],
    'tied embeddings, many shards'    => ['--tied', '--shards', '11'],
    'odd block edges'                 => ['--kv-lora', '192', '--rope', '48', '--moe-inter', '320', '--inter', '1088'],
    'Qwen2'                           => ['--arch', 'qwen2'],
    'Qwen2, tied, one file'           => ['--arch', 'qwen2', '--tied', '--shards', '1'],
    'Llama with llama3 rope'          => ['--arch', 'llama', '--shards', '3'],
    'Llama, whole heads'              => ['--arch', 'llama', '--kv-heads', '8'],
);
for my $form (sort keys %forms) {
    my $source = checkpoint(scratch(), @{ $forms{$form} });
    my $file = scratch() . '/x.gguf';
    run_ok($form, $SLUICE, 'convert', $source, '-o', $file, '--recipe', 'f32');
    compare("$form: every bit", $source, 'mla', $file);
    unlink $file, glob "$source/*";
}

# Blocks under scales of 0 and -0 are zeros, with the signs of the products.
{
    my $source = checkpoint(scratch(), '--shards', 1, '--dense', 2);
    my $made = scratch();
    tensor_edit('model.layers.1.mlp.up_proj.weight_scale_inv', 4 * $_->[0], $_->[1])->($source) for [5, "\0\0\0\0"], [6, "\0\0\0\x80"];
    for my $recipe (qw(f32 q4_k_m)) {
        run_ok("zeros: $recipe", $SLUICE, 'convert', $source, '-o', "$made/$recipe.gguf", '--recipe', $recipe, '-q');
        run_ok('verify', $SLUICE, 'verify', "$made/$recipe.gguf", '--source', $source, '--sample', '100%');
    }
    compare('every bit', $source, 'mla', "$made/f32.gguf");
    refused($source, 'a scale below 0', 7, qr/scale \[1, 1\] in .* is -[\d.e-]+, expected a finite number, 0 or above: the source is damaged/,
        tensor_edit('model.layers.1.mlp.up_proj.weight_scale_inv', 4 * 5, "\1\0\0\x80"), 'convert');
}

# Both readers of another house read the quantized files, too.
my $file = scratch() . '/q.gguf';
run_ok('Q4_K_M', $SLUICE, 'convert', $TINY, '-o', $file, '--recipe', 'q4_k_m');
$r = run("$TOP/build/venv/bin/python", '-c', <<'PY', $file);
import sys, gguf
r = gguf.GGUFReader(sys.argv[1])
f = r.fields
assert f["general.architecture"].contents() == "deepseek2"
assert f["deepseek2.block_count"].contents() == 4
assert f["general.file_type"].contents() == 15
assert len(f["tokenizer.ggml.tokens"].contents()) == 4096
assert f["tokenizer.ggml.pre"].contents() == "deepseek-v3"
assert f["tokenizer.ggml.bos_token_id"].contents() == 0
assert f["tokenizer.ggml.add_bos_token"].contents() is True
assert len(f["sluice.checksum.tensors"].contents()) == len(r.tensors)
print(len(r.tensors))
PY
is($r->{out}, "70\n", 'gguf-py reads the file and its metadata') or diag($r->{err});

# Special tokens and chat templates are those that gguf-py's SpecialVocab finds.
my $config = JSON::PP::decode_json(slurp("$TINY/tokenizer_config.json"));
my @chat = (
    ['one in tokenizer_config.json', { chat_template => 'own' }, {}],
    ['several there', { chat_template => [{ name => 'default', template => 'D' }, { name => 'tool use', template => 'T' }] }, {}],
    ['a file', {}, { 'chat_template.jinja' => "a\r\nb\rc\n" }],
    ['files in a folder', {}, { 'chat_template.jinja' => "main\n", 'additional_chat_templates/tool_use.jinja' => "T\r\n",
                               'additional_chat_templates/r.a-g.jinja' => 'R', 'additional_chat_templates/no.txt' => '-' }],
    ['a folder alone', {}, { 'additional_chat_templates/tool_use.jinja' => 'T', 'chat_template.json' => '{"chat_template":"J"}' }],
    ['null there', { chat_template => undef }, { 'chat_template.jinja' => 'J' }],
);
my @pairs;
for my $case (@chat) {
    my ($name, $own, $files) = @$case;
    my $source = copy_checkpoint($TINY, scratch() . '/m');
    my %merged = (%$config, %$own);
    delete $merged{chat_template} unless exists $own->{chat_template};
    spit("$source/tokenizer_config.json", JSON::PP::encode_json(\%merged));
    mkdir "$source/additional_chat_templates" if grep { m{/} } keys %$files;
    spit("$source/$_", $files->{$_}) for keys %$files;
    run_ok("chat templates: $name", $SLUICE, 'convert', $source, '-o', "$source/x.gguf", '--recipe', 'q8_0', '--quiet');
    push @pairs, $source;
}
$r = run("$TOP/build/venv/bin/python", '-c', <<'PY', @pairs);
import sys, gguf, pathlib
class Told:
    def __init__(self): self.kv = {}
    def __getattr__(self, name): return getattr(gguf.GGUFWriter, name).__get__(self)
    def add_key_value(self, key, val, vtype, sub_type=None): self.kv[key] = set(val) if isinstance(val, list) else val
for d in sys.argv[1:]:
    told = Told()
    gguf.SpecialVocab(pathlib.Path(d), n_vocab=4096).add_to_gguf(told, quiet=True)
    f = gguf.GGUFReader(d + "/x.gguf").fields
    ours = {k: f[k].contents() for k in f if "chat_template" in k or k.endswith("_token_id") or "ggml.add_" in k}
    ours = {k: set(v) if isinstance(v, list) else v for k, v in ours.items()}
    print("equal" if ours == told.kv else f"gguf-py: {told.kv}\nours: {ours}")
PY
is($r->{out}, "equal\n" x @chat, 'the same keys as gguf-py') or diag($r->{err});

done_testing();
