# NVFP4 in a GGUF file: read and kept as llama-quantize does, what scales a tensor beside it; and what is refused.
use strict;
use warnings;
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my $dir = scratch();
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
    skip 'llama.cpp is not here', 19 if run(python('llama.py', 'version'))->{rc} && !$IN_CI;
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
done_testing();
