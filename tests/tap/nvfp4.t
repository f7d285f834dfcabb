# NVFP4, in a GGUF file and in checkpoints as ModelOpt and compressed-tensors write them: read and kept as the converter and
# llama-quantize do, what scales a tensor beside it; and what is refused.
use strict;
use warnings;
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my $bf16 = checkpoint("$dir/bf16", qw(--arch qwen3moe --scales none --layers 2 --hidden 256 --moe-inter 256 --experts 8 --used 2 --heads 4
    --kv-heads 2));
run_ok('F32', $SLUICE, 'convert', $bf16, '-o', "$dir/f32.gguf", '--recipe', 'f32', '--quiet');
run_ok('NVFP4', python('nvfp4.py', 'gguf', "$dir/f32.gguf", "$dir/nvfp4.gguf", '(_exps|attn_(q|output))\.weight'));
run_ok('and the output', python('nvfp4.py', 'gguf', "$dir/f32.gguf", "$dir/output.gguf", '^output\.weight|attn_v\.weight'));

like(run($SLUICE, 'inspect', "$dir/nvfp4.gguf")->{out}, qr/^nvfp4 +294\.9 kB +\[256, 256, 8\] +blk\.1\.ffn_up_exps\.weight\nf32 +32 B +\[8\] +blk\.1\.ffn_up_exps\.scale$/m,
    'inspect');
fails('quantized already', 2, qr/it is nvfp4 in the source already.*--allow-requantize/, $SLUICE, 'quantize', "$dir/nvfp4.gguf", "$dir/no.gguf", 'Q4_K_M');
fails('nor made', 6, qr/asks for type nvfp4, which this version cannot write/,
    $SLUICE, 'quantize', "$dir/f32.gguf", "$dir/no.gguf", 'Q4_K_M', '--tensor-type', 'ffn_up_exps=nvfp4');

sub quantize {
    my ($made, $source, @how) = @_;
    run_ok("$made: quantize", $SLUICE, 'quantize', '--allow-requantize', @how[1 .. $#how], "$dir/$source.gguf", "$dir/$made.gguf", $how[0]);
    run_ok("$made: verify", $SLUICE, 'verify', "$dir/$made.gguf", '--source', "$dir/$source.gguf", '--sample', '100%');
}
my @kept = ('--tensor-type', 'up_exps=nvfp4');
quantize('q4_k_m', 'nvfp4', 'Q4_K_M');
quantize('kept', 'nvfp4', 'Q2_K', @kept);
quantize('mxfp4_moe', 'nvfp4', 'MXFP4_MOE');
quantize('f32-again', 'nvfp4', 'F32');
quantize('copied', 'nvfp4', 'COPY');
quantize('left', 'output', 'Q8_0', '--leave-output-tensor');
is_deeply(hashes("$dir/copied.gguf"), hashes("$dir/nvfp4.gguf"), 'copied');
fails('an output that loses its scale', 2, qr/^sluice quantize: output\.weight: it is nvfp4 under a scale of its own.*--leave-output-tensor/,
    $SLUICE, 'quantize', "$dir/output.gguf", "$dir/no.gguf", 'Q8_0', '--allow-requantize');

my $gpu = run_ok('beside a GPU, which leaves it to the processor', "$BUILD/tools/emulated_gpu", 'quantize', "$dir/nvfp4.gguf", "$dir/gpu.gguf", 'Q4_K_M',
    qw(--allow-requantize --device cuda:0));
is_deeply(hashes("$dir/gpu.gguf"), hashes("$dir/q4_k_m.gguf"), 'the same tensors');
run_ok('a recipe by size', $SLUICE, 'plan', '-q', '--allow-requantize', '--target-bpw', 5, "$dir/nvfp4.gguf");

SKIP: {
    skip_without_llama(19);
    as_llama_quantize("$dir/$_->[0].gguf", "$dir/$_->[1].gguf", $_->[2], '--allow-requantize', @$_[3 .. $#$_])
        for ['q4_k_m', 'nvfp4', 'Q4_K_M'], ['kept', 'nvfp4', 'Q2_K', @kept], ['mxfp4_moe', 'nvfp4', 'MXFP4_MOE'], ['f32-again', 'nvfp4', 'F32'],
            ['left', 'output', 'Q8_0', '--leave-output-tensor'];
    make_text("$dir/q4_k_m.gguf", "$dir/kept.gguf", "$dir/copied.gguf", "$dir/left.gguf");
    run_ok('llama-quantize: the output', python('llama.py', 'quantize', "$dir/output.gguf", "$dir/theirs.gguf", 'Q8_0', '--allow-requantize'));
    run_ok('most tensors in nvfp4, no file type', python('nvfp4.py', 'gguf', "$dir/f32.gguf", "$dir/most.gguf", '(embd|output|_[qkv]|_exps|inp)\.weight', 'bare'));
    spit("$dir/untyped.gguf", slurp("$dir/most.gguf") =~ s/general\.file_type/general.file_was./r);
    quantize('guessed', 'untyped', 'COPY');
    run_ok('llama-quantize: COPY', python('llama.py', 'quantize', "$dir/untyped.gguf", "$dir/theirs-copied.gguf", 'COPY'));
    is(kv_of("$dir/$_.gguf", 'general.file_type'), (1024 + 39) . "\n", "$_: guessed") for qw(guessed theirs-copied);
    like(run(python('llama.py', 'load', "$dir/theirs.gguf"))->{out}, qr/wrong number of tensors/, 'which llama.cpp does not load');
}
# ---- checkpoints
my $matrices = '(experts\.\d+\.\w+|[qkvo]_proj|mlp\.\w+_proj)\.weight$';
my %ck = map { my $name = $_; run_ok("$name: made", python('nvfp4.py', 'make', $bf16, "$dir/$name", $matrices, $name)); ($name => "$dir/$name") }
    qw(modelopt packed);
my %made;
sub convert {
    my ($source, $recipe, @how) = @_;
    my $file = $made{"$source $recipe"} = "$dir/$source-$recipe.gguf";
    run_ok("$source: $recipe", $SLUICE, 'convert', $ck{$source}, '-o', $file, '--recipe', $recipe, '--quiet', @how);
    run_ok('verify', $SLUICE, 'verify', $file, '--source', $ck{$source}, '--sample', '100%');
    return $file;
}
for my $source (sort keys %ck) {
    is(plan_of("$ck{$source}/config.json")->{source_bytes}, plan_of($ck{$source})->{source_bytes}, 'config.json alone: the same bytes');
    is(run(python('nvfp4.py', 'compare', $ck{$source}, convert($source, $_)))->{out}, "equal\n", 'every bit') for qw(f32 nvfp4-kept);
}
is(kv_of($made{'modelopt nvfp4-kept'}, 'general.file_type'), "39\n", 'general.file_type');
convert('modelopt', 'q4_k_m');
convert('modelopt', 'mxfp4_moe', '--round-through', 'bf16');
$gpu = run_ok('on an emulated GPU', "$BUILD/tools/emulated_gpu", 'convert', $ck{modelopt}, '-o', "$dir/gpu.gguf", qw(--recipe q4_k_m --device cuda:0 --stats -f));
like($gpu->{err}, qr/GPUs made [1-9]\d* slabs of output/, 'which works');
is_deeply(hashes("$dir/gpu.gguf"), hashes($made{'modelopt q4_k_m'}), 'the same tensors');
run_ok('without scales of inputs', python('nvfp4.py', 'make', $bf16, $ck{w4a16} = "$dir/w4a16", $matrices, 'w4a16'));
is(join(' ', sort grep { /scale/ && /blk\.0\.attn/ } keys %{ hashes(convert('w4a16', 'q8_0')) }), join(' ', map { "blk.0.attn_$_.scale" } qw(k output q v)), 'none');
refused($ck{modelopt}, 'a tensor is missing', 6, qr/1 tensor unknown .* \(1 expected one missing: model\.layers\.0\.mlp\.experts\.3\.up_proj\.weight\)/,
    header_edit(sub { s/layers\.0\.mlp\.experts\.\K3\.up_proj/9.up_proj/g or die }));
refused($ck{packed}, 'two formats', 6, qr/ffn_up_exps\.weight: 7 of its 8 sources alone have reciprocals as scales/,
    header_edit(sub { s/layers\.0\.mlp\.experts\.3\.up_proj\.weight_\Kglobal_scale":/scale_2":     / or die }));
# rows in another order
my $llama = checkpoint("$dir/plain-llama", qw(--arch llama --scales none --layers 2 --hidden 256 --inter 512 --heads 4 --kv-heads 2));
$ck{llama} = "$dir/llama";
run_ok('llama: made', python('nvfp4.py', 'make', $llama, $ck{llama}, $matrices));
is(run(python('nvfp4.py', 'compare', $ck{llama}, convert('llama', $_)))->{out}, "equal\n", 'every bit') for qw(f32 nvfp4-kept);
like(run($SLUICE, 'inspect', $made{'llama nvfp4-kept'})->{out}, qr/^nvfp4 .* blk\.0\.attn_q\.weight$/m, 'kept in another order');
# and columns
run_ok('Qwen3.5: made', python('qwen35.py', 'make', "$dir/plain-qwen", '--dense'));
run_ok('in NVFP4', python('nvfp4.py', 'make', "$dir/plain-qwen", $ck{qwen35} = "$dir/qwen35", '_proj(_qkv|_z|_a|_b)?\.weight$'));
convert('qwen35', $_) for qw(f32 nvfp4-kept);
is(scalar(() = run($SLUICE, 'inspect', $made{'qwen35 nvfp4-kept'})->{out} =~ /^nvfp4 .* blk\.1\.(?:ssm_(?:out|alpha|beta)|attn_(?:qkv|gate))\.weight$/mg), 5, 'linear attention');
SKIP: {
    skip_without_llama(13);
    as_llama_quantize($made{"modelopt $_->[0]"}, $made{'modelopt nvfp4-kept'}, $_->[1], '--allow-requantize') for ['q4_k_m', 'Q4_K_M'], ['f32', 'F32'], ['mxfp4_moe', 'MXFP4_MOE'];
    as_llama_quantize($made{'qwen35 f32'}, $made{'qwen35 nvfp4-kept'}, 'F32', '--allow-requantize');
    for my $f32 (map { $made{"$_ f32"} } qw(modelopt llama)) {
        run_ok('its scales folded into F32', python('nvfp4.py', 'fold', $f32, "$dir/folded.gguf"));
        my @tokens = map { run(python('llama.py', 'load', $_))->{out} =~ /("tokens": .*)/ ? $1 : $_ } $f32, "$dir/folded.gguf";
        is($tokens[0], $tokens[1], 'llama.cpp applies them');
    }
    make_text($made{'modelopt q4_k_m'}, $made{'packed nvfp4-kept'}, $made{'llama nvfp4-kept'}, $made{'qwen35 nvfp4-kept'});
}

# ---- what is refused
sub bad_value {
    my ($name, $tensor, $offset, $value, $expected) = @_;
    my ($file, $at) = place($ck{modelopt}, $tensor);
    my $was = substr slurp($file), $at + $offset, length $value;
    open my $f, '+<:raw', $file or die $!;
    seek $f, $at + $offset, 0 and print $f $value and close $f or die $!;
    fails("$name: $_", 7, $expected, $SLUICE, 'convert', $ck{modelopt}, '-o', "$dir/no.gguf", '--recipe', $_, qw(--quiet --force)) for qw(q4_k_m nvfp4-kept);
    open $f, '+<:raw', $file or die $!;
    seek $f, $at + $offset, 0 and print $f $was and close $f or die $!;
}
my $expert = 'model.layers.1.mlp.experts.5.up_proj';
for ([nan => "\x7f"], [nan => "\xff"], [-448 => "\xfe"]) {
    my ($number, $byte) = @$_;
    bad_value("a scale $number", "$expert.weight_scale", 16 * 9 + 5, $byte,
        qr/tensor '\Q$expert\E\.weight': scale \[9, 5\] in '\Q$expert\E\.weight_scale' .* is -?$number, expected a finite number(?:, 0 or above)?: the source is damaged/);
}
for (['0', pack 'f<', 0], ['below 0', pack 'f<', -1e-3]) {
    bad_value("a scale of the whole $_->[0]", "$expert.weight_scale_2", 0, $_->[1],
        qr/tensor '\Q$expert\E\.weight_scale_2' in .*: element 5 of blk\.1\.ffn_up_exps\.scale would be 0, negative or infinite; the source is damaged/);
}
bad_value('NaN', "$expert.input_scale", 0, "\0\0\xc0\x7f", qr/tensor '\Q$expert\E\.input_scale' in .*: row 0, column 0 is NaN or infinite/);
my ($code_file, $code) = place($ck{modelopt}, "$expert.weight");
flip_byte($code_file, $code + 128 * 9 + 5, 0x10);
like(fails('a code: verify', 8, qr/: 1 failure/, $SLUICE, 'verify', $made{'modelopt nvfp4-kept'}, '--source', $ck{modelopt}, '--sample', '100%')->{out},
    qr/^FAILED .*blk\.1\.ffn_up_exps\.weight: block \d+ .*is not what the source gives: byte 7 of it/m, 'which is named');
flip_byte($code_file, $code + 128 * 9 + 5, 0x10);
sub odd_checkpoint {
    my ($name, $source, $pattern, $rc, $expected, @form) = @_;
    run_ok("$name: made", python('nvfp4.py', 'make', $source, "$dir/odd", $pattern, @form));
    fails($name, $rc, $expected, $SLUICE, 'convert', "$dir/odd", '-o', "$dir/no.gguf", qw(--recipe q4_k_m --force));
}
odd_checkpoint('some experts', $bf16, 'layers\.0\.mlp\.experts\.[0-3]\.up_proj\.weight', 6, qr/blk\.0\.ffn_up_exps\.weight: of its 8 sources 4 are NVFP4/);
odd_checkpoint('some inputs', $bf16, 'layers\.0\.mlp\.experts\.\d\.up_proj\.weight', 6, qr/ffn_up_exps\.weight: 4 of its 8 sources have no scale of their input/, 'some');
odd_checkpoint('the output', $bf16, '^lm_head', 2, qr/output\.weight: it is nvfp4 under a scale of its own.*--leave-output-tensor/);
run_ok('which is kept', $SLUICE, 'convert', "$dir/odd", '-o', "$dir/odd.gguf", qw(--recipe nvfp4-kept -q));
odd_checkpoint('an embedding', $bf16, 'embed_tokens', 6, qr/token_embd\.weight is NVFP4, and llama\.cpp's qwen3moe does not apply what scales it as a whole/);
my $v3 = checkpoint("$dir/v3", qw(--scales none --layers 2 --dense 1 --hidden 256 --moe-inter 256 --experts 4 --used 2 --groups 1 --groups-used 1));
odd_checkpoint('DeepSeek-V3', $v3, 'experts\.\d', 6, qr/blk\.1\.ffn_gate_exps\.weight is NVFP4, and llama\.cpp's deepseek2 does not apply.*give an FP8 or BF16 checkpoint/);

done_testing();
