# Checkpoints in Kimi-K2's form (384 experts, tiktoken.model), in Kimi-K2-Thinking's (experts in 4-bit
# integers), in Kimi-K2.5's (the same inside a model that sees) and in that of DeepSeek-V3.1: metadata and tokens against an independent computation, tensors
# against llama-quantize and numpy, texts split by a real llama.cpp; and the relatives that are refused.
use strict;
use warnings;
use JSON::PP ();
use ModelTest qw($dir as_llama_quantize make_text plan_of);
use SluiceService;
use SluiceTest;
use Test::More;

need_python();
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
    skip_without_llama(5);
    $r = run(python('kimi.py', 'tokenize', $source, $f32));
    is($r->{out}, "equal 12 texts\n", 'llama.cpp splits texts as BPE by ranks does') or diag($r->{err});
    run_ok('q4_k_m', $SLUICE, 'convert', $source, '-o', "$dir/k2-q4.gguf", '--recipe', 'q4_k_m', '--quiet');
    as_llama_quantize("$dir/k2-q4.gguf", $f32, 'Q4_K_M');
    make_text("$dir/k2-q4.gguf");
}

# ---- Kimi-K2-Thinking: the experts' weights are 4-bit integers, the others BF16
my $k2t = checkpoint("$dir/k2t", qw(--packed --layers 3 --dense 1 --hidden 256 --inter 512 --moe-inter 256 --experts 16 --used 4
    --groups 1 --groups-used 1 --heads 4 --kv-heads 4 --vocab 1200));
run_ok('K2-Thinking: made', python('kimi.py', 'make', $k2t));

$r = run($SLUICE, 'inspect', $k2t, '--json');
my %type = map { $_->{type} => $_ } @{ (json_lines($r->{out}))[0]{types} };
is($type{I4}{weights}, 2 * 16 * 3 * 256 * 256, 'inspect: the weights of all experts') or diag($r->{out});
like(run($SLUICE, 'inspect', $k2t)->{out}, qr/^packed 4-bit integers: groups of 32$/m, 'and their groups');
my ($planned, $there) = map { plan_of($_) } "$k2t/config.json", $k2t;
is($planned->{source_bytes}, $there->{source_bytes}, 'config.json alone: the same bytes, scales included');
{
    my ($full, $small) = map { JSON::PP::decode_json(slurp($_)) } "$TOP/tests/data/kimi-k2-instruct-config.json", "$k2t/config.json";
    mkdir "$dir/full" or die;
    spit("$dir/full/config.json", JSON::PP::encode_json({ %$full, quantization_config => $small->{quantization_config} }));
    for (['q4_k_m', '620.6'], ['dq3_k_m', '461.8']) {
        like(run($SLUICE, 'plan', "$dir/full/config.json", '--recipe', $_->[0])->{out}, qr/^Size +\Q$_->[1]\E GB .*^Read +594\.2 GB/ms, "$_->[0] at full size, as MODELS.md says");
    }
}

my %made;
for my $how (['f32'], ['bf16'], ['q4_k_m'], ['q3_k_m'], ['iq4_xs'], ['q5_k_m', '--round-through', 'bf16']) {
    my ($recipe, @more) = @$how;
    $made{$recipe} = "$dir/k2t-$recipe.gguf";
    run_ok("K2-Thinking: @$how", $SLUICE, 'convert', $k2t, '-o', $made{$recipe}, '--recipe', $recipe, @more, '--quiet');
    next if $recipe !~ /^(?:f32|bf16)$/;
    $r = run(python('reference.py', 'compare', $k2t, $made{$recipe}));
    is($r->{out}, "equal\n", 'every bit') or diag($r->{err});
}
$r = run(python('kimi.py', 'compare', $k2t, $made{f32}));
is($r->{out}, "equal 41 keys\n", 'keys and tokens') or diag($r->{err});
run_ok('verify', $SLUICE, 'verify', $made{q4_k_m}, '--source', $k2t, '--sample', '100%');
SKIP: {
    skip_without_llama(9);
    for my $to (['q4_k_m', 'f32'], ['q3_k_m', 'f32'], ['iq4_xs', 'f32'], ['q5_k_m', 'bf16']) {
        my ($recipe, $from) = @$to;
        as_llama_quantize($made{$recipe}, $made{$from}, uc $recipe);
    }
    make_text($made{q4_k_m});
}

# ---- Kimi-K2.5: the same with a vision part beside it, which is left out
my $k25 = "$dir/k25";
run('cp', '-r', $k2t, $k25);
run_ok('K2.5: made', python('model_forms.py', 'wrap', $k25));
for my $verb (['plan', $k25], ['convert', $k25, '-o', "$dir/k25.gguf"]) {
    $r = run_ok("K2.5: $verb->[0]", $SLUICE, @$verb, '--recipe', 'f32');
    like($r->{err}, qr/^sluice: note: the vision part \(2 tensors\) is left out: [^\n]*--mmproj$/m, 'what is left out is said');
}
is_deeply(hashes("$dir/k25.gguf"), hashes($made{f32}), 'the same tensors');
$r = run(python('kimi.py', 'compare', $k25, "$dir/k25.gguf"));
is($r->{out}, "equal 41 keys\n", 'keys and tokens') or diag($r->{err});
run_ok('verify', $SLUICE, 'verify', "$dir/k25.gguf", '--source', $k25, '--sample', '5%');
is(plan_of("$k25/config.json")->{source_bytes}, $planned->{source_bytes},
    'config.json alone');

# As a service's job; then one weight, and one scale, are others.
service_setup(source => '-');
run('cp', '-r', $k2t, "$RUN/k2t");
start_one('daemon');
wait_daemon();
start_one('worker', cmd => ["$BUILD/sluice-worker", '--mem', '64Mi']);
run_ok('a job', $SLUICE, 'submit', "$RUN/k2t", '-r', 'q4_k_m', '-o', "$OUT/k2t.gguf", '--wait');
is(sha256("$OUT/k2t.gguf"), sha256($made{q4_k_m}), 'the file of convert');
my $expert = 'model.layers.2.mlp.experts.7.up_proj.weight';
my ($file, $at, $bytes) = place("$RUN/k2t", "${expert}_packed");
flip_byte($file, $at + $bytes - 3, 0x10);
$r = fails('a weight is another', 8, qr/: 1 failure, on standard output$/, $SLUICE, 'verify', $made{q4_k_m}, '--source', "$RUN/k2t", '--sample', '100%');
like($r->{out}, qr/^FAILED .*blk\.2\.ffn_up_exps\.weight: block \d+ .*is not what the source gives/m, 'which is named');
flip_byte($file, $at + $bytes - 3, 0x10);
($file, $at, $bytes) = place("$RUN/k2t", "${expert}_scale");
open my $scales, '+<:raw', $file or die "$file: $!";
seek $scales, $at + 2 * (9 * 8 + 5), 0;
print $scales "\xc0\x7f";
close $scales or die "$file: $!";
fails('a scale is no number', 7, qr/tensor '\Q$expert\E': scale \[9, 5\] in '\Q$expert\E_scale' .* is nan, expected a finite number: the source is damaged/,
    $SLUICE, 'convert', "$RUN/k2t", '-o', "$RUN/bad.gguf", '--recipe', 'q4_k_m', '--quiet');

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
refused('Integers of 3 bits', 6, qr/the weights are packed with num_bits 3 instead of 4 or 8.*give an FP8 or BF16 checkpoint/,
    config(sub { $_[0]{quantization_config} = { quant_method => 'compressed-tensors', format => 'pack-quantized',
        config_groups => { group_0 => { weights => { num_bits => 3 } } } } }));
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
