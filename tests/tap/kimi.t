# Checkpoints in Kimi-K2's form (384 experts, tiktoken.model) and in that of DeepSeek-V3.1: metadata
# and tokens against an independent computation, tensors against llama-quantize and numpy, texts
# split by a real llama.cpp; and the relatives that are refused.
use strict;
use warnings;
use JSON::PP ();
use SluiceTest;
use Test::More;

need_python();
my $dir = scratch();
my $source = checkpoint("$dir/k2", qw(--layers 2 --dense 1 --hidden 256 --inter 512 --moe-inter 32 --experts 384 --used 8
    --groups 1 --groups-used 1 --heads 4 --kv-heads 4 --vocab 1200));
run_ok('made', python('kimi.py', 'make', $source));
ok(!-e "$source/tokenizer.json", 'there is no tokenizer.json');

# ---- metadata and tensors
my $f32 = "$dir/k2-f32.gguf";
my $r = run_ok('plan', $SLUICE, 'plan', $source, '--recipe', 'f32');
unlike($r->{out} . $r->{err}, qr/tokenizer/, 'nothing is missing');
run_ok('convert', $SLUICE, 'convert', $source, '-o', $f32, '--recipe', 'f32', '--quiet');
$r = run(python('kimi.py', 'compare', $source, $f32));
is($r->{out}, "equal 41 keys\n", 'keys, their order, tokens, types, merges') or diag($r->{err});
$r = run(python('reference.py', 'compare', $source, $f32));
is($r->{out}, "equal\n", 'every bit of the tensors') or diag($r->{err});
run_ok('verify', $SLUICE, 'verify', $f32, '--source', $source, '--sample', '5%');

# The comparison itself can fail.
{
    my $text = slurp("$source/tokenizer_config.json");
    (my $other = $text) =~ s/<\|im_user\|>/<|im_you|>/ or die;
    spit("$source/tokenizer_config.json", $other);
    $r = run(python('kimi.py', 'compare', $source, $f32));
    ok($r->{rc} == 1 && $r->{out} =~ /tokenizer\.ggml\.tokens/, 'another token is noticed');
    spit("$source/tokenizer_config.json", $text);
}

# ---- a real llama.cpp
SKIP: {
    skip 'llama.cpp is not here', 5 if run(python('llama.py', 'version'))->{rc} && !$IN_CI;
    $r = run(python('kimi.py', 'tokenize', $source, $f32));
    is($r->{out}, "equal 12 texts\n", 'llama.cpp splits texts as BPE by ranks does') or diag($r->{err});
    run_ok('q4_k_m', $SLUICE, 'convert', $source, '-o', "$dir/k2-q4.gguf", '--recipe', 'q4_k_m', '--quiet');
    run_ok('llama-quantize', python('llama.py', 'quantize', $f32, "$dir/theirs.gguf", 'Q4_K_M'));
    is_deeply(hashes("$dir/k2-q4.gguf"), hashes("$dir/theirs.gguf"), 'the same tensors');
    $r = run(python('llama.py', 'load', "$dir/k2-q4.gguf"));
    is(scalar @{ (eval { (json_lines($r->{out}))[0] } // {})->{tokens} // [] }, 8, 'it makes text') or diag($r->{out}, $r->{err});
}

# ---- DeepSeek-V3.1: F32 scales that are powers of two, and a config that says so
my $v31 = copy_checkpoint($TINY, "$dir/v31", map { s{.*/}{}r } glob "$TINY/*.safetensors");
$r = run("$TOP/build/venv/bin/python", '-c', <<'PY', $v31);
import glob, json, struct, sys
import numpy as np
n = 0
for path in glob.glob(sys.argv[1] + "/*.safetensors"):
    data = bytearray(open(path, "rb").read())
    length = struct.unpack("<Q", data[:8])[0]
    for name, t in json.loads(data[8:8 + length]).items():
        if name.endswith("_scale_inv"):
            a, b = (8 + length + x for x in t["data_offsets"])
            s = np.frombuffer(bytes(data[a:b]), np.float32)
            data[a:b] = np.exp2(np.round(np.log2(s))).astype(np.float32).tobytes()
            n += 1
    open(path, "wb").write(data)
path = sys.argv[1] + "/config.json"
c = json.load(open(path))
c["quantization_config"]["scale_fmt"] = "ue8m0"
json.dump(c, open(path, "w"))
print(n)
PY
cmp_ok($r->{out} || 0, '>', 50, 'scales are powers of two') or diag($r->{err});
for my $how (['f32'], ['bf16'], ['q4_k_m'], ['q4_k_m', '--round-through', 'bf16']) {
    my ($recipe, @more) = @$how;
    my $file = "$dir/v31-@$how.gguf";
    run_ok("DeepSeek-V3.1: @$how", $SLUICE, 'convert', $v31, '-o', $file, '--recipe', $recipe, @more, '--quiet');
    next if $recipe eq 'q4_k_m';
    $r = run(python('reference.py', 'compare', $v31, $file));
    is($r->{out}, "equal\n", 'every bit') or diag($r->{err});
}
is_deeply(hashes("$dir/v31-q4_k_m.gguf"), hashes("$dir/v31-q4_k_m --round-through bf16.gguf"), 'such weights are BF16 already');

# ---- refused in one line, and nothing is left behind
sub refused {
    my ($name, $rc, $pattern, $change) = @_;
    my $bad = scratch() . '/m';
    copy_checkpoint($source, $bad);
    spit("$bad/$_", slurp("$source/$_")) for qw(tiktoken.model tokenization_kimi.py);
    $change->($bad);
    for my $verb ($name =~ /^[A-Z]/ ? 'plan' : (), 'convert') {
        my @out = $verb eq 'convert' ? ('-o', "$bad/out/x.gguf") : ();
        mkdir "$bad/out";
        my $f = fails("$name: $verb", $rc, $pattern, $SLUICE, $verb, $bad, @out, '--recipe', 'q8_0');
        is($f->{err} =~ tr/\n//, 1, 'one line');
        is_deeply([ls("$bad/out")], [], 'nothing is left');
    }
}
sub config {
    my ($edit) = @_;
    return sub {
        my $c = JSON::PP::decode_json(slurp("$_[0]/config.json"));
        $edit->($c);
        spit("$_[0]/config.json", JSON::PP::encode_json($c));
    };
}
sub ranks {
    my ($edit) = @_;
    return sub {
        local $_ = slurp("$_[0]/tiktoken.model");
        $edit->();
        spit("$_[0]/tiktoken.model", $_);
    };
}
refused('K2-Thinking', 6, qr/quant_method 'compressed-tensors', format 'pack-quantized'.*give an FP8 or BF16 checkpoint/,
    config(sub { $_[0]{quantization_config} = { quant_method => 'compressed-tensors', format => 'pack-quantized' } }));
refused('no number of experts', 7, qr/config\.json has no "n_routed_experts": the class of DeepseekV3ForCausalLM takes 256/,
    config(sub { delete $_[0]{n_routed_experts}; $_[0]{model_type} = 'deepseek_v3' }));
refused('no tokenizer_config.json', 7, qr/tokenizer_config\.json is missing, which names the special tokens of tiktoken\.model/, sub { unlink "$_[0]/tokenizer_config.json" });
refused('other code', 6, qr/tokenization_kimi\.py splits texts by other rules/, sub { spit("$_[0]/tokenization_kimi.py", "pat_str = r'\\w+'") });
refused('bad base64', 7, qr/tiktoken\.model: line 300: the token is no base64/, ranks(sub { s/^((?:.*\n){299})./$1*/ }));
refused('cut short', 7, qr/tiktoken\.model: line \d+: |which is no token of added_tokens_decoder/, ranks(sub { $_ = substr $_, 0, 8000 }));
refused('a line missing', 7, qr/tiktoken\.model: rank 500 is missing/, ranks(sub { s/^.* 500\n//m }));
refused('a line twice', 7, qr/tiktoken\.model: line \d+: rank 500 stands twice/, ranks(sub { s/^(.* 500\n)/$1$1/m }));
refused('too many', 7, qr/rank 1200 is not below config\.json's vocab_size 1200/, ranks(sub { $_ .= "eHl6 1200\n" }));
refused('no text', 7, qr/tiktoken\.model holds NUL bytes/, ranks(sub { $_ .= "\0" }));

done_testing();
