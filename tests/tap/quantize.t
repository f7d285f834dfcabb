# `sluice quantize`: from GGUF to GGUF, as llama-quantize is called; its result
# is that of the direct conversion.
use strict;
use warnings;
use SluiceTest;
use Test::More;

my $dir = scratch();
run_ok('F32', $SLUICE, 'convert', $TINY, '-o', "$dir/f32.gguf", '--recipe', 'f32');
run_ok('BF16', $SLUICE, 'convert', $TINY, '-o', "$dir/bf16.gguf", '--recipe', 'bf16');
run_ok('F32 in parts', $SLUICE, 'convert', $TINY, '-o', "$dir/parts.gguf", '--recipe', 'f32', '--split-max-size', '20M');
my @parts = glob "$dir/parts-*.gguf";
ok(@parts >= 4, 'several parts');

for my $recipe ($QUICK ? qw(Q4_K_M) : qw(Q2_K Q3_K_M Q4_K_M Q5_K_M Q6_K Q8_0 IQ4_NL)) {
    run_ok("$recipe from F32", $SLUICE, 'quantize', "$dir/f32.gguf", "$dir/out.gguf", $recipe, '--force');
    my $got = hashes("$dir/out.gguf");
    is_deeply($got, golden("$TINY/golden/mla/$recipe.xxh64"), "$recipe: llama-quantize's bytes");
    run_ok("$recipe from parts", $SLUICE, 'quantize', $parts[0], "$dir/out2.gguf", $recipe, '--force');
    is_deeply(hashes("$dir/out2.gguf"), $got, "$recipe: the same from a split file");
}

# The two-step chain over BF16 is what --round-through bf16 gives at once.
run_ok('Q4_K_M from BF16', $SLUICE, 'quantize', "$dir/bf16.gguf", "$dir/chain.gguf", 'Q4_K_M');
run_ok('Q4_K_M through BF16', $SLUICE, 'convert', $TINY, '-o', "$dir/through.gguf", '--recipe', 'q4_k_m',
    '--round-through', 'bf16');
my $chain = hashes("$dir/chain.gguf");
is_deeply(hashes("$dir/through.gguf"), $chain, '--round-through bf16 is the two-step chain');
isnt($chain->{'blk.1.ffn_up_exps.weight'}, golden("$TINY/golden/mla/Q4_K_M.xxh64")->{'blk.1.ffn_up_exps.weight'},
    'and differs from the direct one');

run_ok('what is quantized already', $SLUICE, 'quantize', "$dir/chain.gguf", "$dir/kept.gguf", 'Q4_K_M', '--round-through', 'bf16');
is_deeply(hashes("$dir/kept.gguf"), $chain, 'keeps its bytes where it keeps its type');

# Legacy layout stays legacy.
run_ok('F32, legacy layout', $SLUICE, 'convert', $TINY, '-o', "$dir/legacy.gguf", '--recipe', 'f32', '--layout', 'legacy');
run_ok('Q4_K_M from it', $SLUICE, 'quantize', "$dir/legacy.gguf", "$dir/legacy-q.gguf", 'Q4_K_M', '--rules', '2025');
is_deeply(hashes("$dir/legacy-q.gguf"), golden("$TINY/golden/legacy/Q4_K_M.xxh64"), 'legacy: llama-quantize\'s bytes');

# The command line of llama-quantize.
run_ok('without an output name', $SLUICE, 'quantize', "$dir/f32.gguf", 'Q8_0', '2');
ok(-f "$dir/ggml-model-Q8_0.gguf", 'llama-quantize\'s default name') or diag(join ' ', ls($dir));

# The input is never harmed.
my $before = sha256("$dir/f32.gguf");
fails('input = output', 2, qr/source|input|same/i, $SLUICE, 'quantize', "$dir/f32.gguf", "$dir/f32.gguf", 'Q4_K_M');
fails('input = output, --force', 2, qr/source|input|same/i, $SLUICE, 'quantize', "$dir/f32.gguf", "$dir/f32.gguf",
    'Q4_K_M', '--force');
link "$dir/f32.gguf", "$dir/again.gguf";
fails('input = output by another name', 2, qr/source|input|same/i, $SLUICE, 'quantize', "$dir/again.gguf",
    "$dir/f32.gguf", 'Q4_K_M', '--force');
is(sha256("$dir/f32.gguf"), $before, 'the input is as it was');

# Quantizing again is refused, except on request; llama_quantize.t compares the bytes.
run_ok('Q8_0', $SLUICE, 'quantize', "$dir/f32.gguf", "$dir/q8.gguf", 'q8_0');
for my $from (qw(chain q8)) {
    fails("from a quantized file ($from)", 2, qr/^sluice quantize: \S+: it is q\w+ in the source already, .* --allow-requantize$/m,
        $SLUICE, 'quantize', "$dir/$from.gguf", "$dir/twice.gguf", 'Q2_K');
    ok(!-e "$dir/twice.gguf", 'and nothing is made');
    run_ok('--allow-requantize', $SLUICE, 'quantize', '--allow-requantize', "$dir/$from.gguf", "$dir/twice-$from.gguf", 'Q2_K');
    run_ok('what is made can be made again', $SLUICE, 'verify', "$dir/twice-$from.gguf", '--source', "$dir/$from.gguf", '--sample', 'all');
}
for my $case ([qr/^(?:sluice: note: without --allow-requantize this cannot be made: \d+ tensors are quantized in the source already|Note +\d+ tensors are quantized in the source already; convert will need .* --allow-requantize)$/m, ''],
              [qr/\A(?!.*allow-requantize)/s, '--allow-requantize']) {
    my ($words, @option) = ($case->[0], grep { $_ } $case->[1]);
    my $told = run_ok("--dry-run @option", $SLUICE, 'quantize', '-n', "$dir/q8.gguf", 'Q4_K_M', @option);
    like($told->{err}, $words, 'what it would need besides');
    $told = run_ok("plan @option", $SLUICE, 'plan', "$dir/q8.gguf", '-r', 'q4_k_m', @option);
    like($told->{out}, $words, 'as plan says');
}
fails('convert says the same', 2, qr/--allow-requantize/, $SLUICE, 'convert', "$dir/q8.gguf", '-o', "$dir/twice.gguf", '--recipe', 'q4_k_m');

# Names of types: aliases, numbers, any case, and what llama-quantize has and Sluice does not.
my $q4 = golden("$TINY/golden/mla/Q4_K_M.xxh64");
for my $name (qw(Q4_K q4_k 15)) {
    run_ok("quantize to $name", $SLUICE, 'quantize', "$dir/f32.gguf", "$dir/alias.gguf", $name, '-f');
    is_deeply(hashes("$dir/alias.gguf"), $q4, 'is Q4_K_M');
    run_ok("convert to $name", $SLUICE, 'convert', $TINY, '-o', "$dir/alias.gguf", '-r', $name, '-f');
    is_deeply(hashes("$dir/alias.gguf"), $q4, 'the same');
}
fails('another layout than the source has', 2, qr/--layout legacy: the source is a GGUF file in the other layout/,
    $SLUICE, 'quantize', "$dir/f32.gguf", "$dir/none.gguf", 'q8_0', '--layout', 'legacy');
run_ok('uniform-q4_k', $SLUICE, 'quantize', "$dir/f32.gguf", "$dir/uniform.gguf", 'uniform-q4_k');
is_deeply([grep { $_->[0] =~ /ffn_down/ && $_->[3] != 12 && $_->[3] != 0 } where("$dir/uniform.gguf")], [], 'every ffn_down in q4_k');
like(run($SLUICE, 'recipes')->{out}, qr/^uniform-q4_k .* q4_k alone means q4_k_m/m, 'the list says so');
fails('no such type', 2, qr/unknown recipe 'Q4_X'/, $SLUICE, 'quantize', "$dir/f32.gguf", "$dir/none.gguf", 'Q4_X');
fails('the type first', 7, qr/^sluice quantize: Q4_K_M: No such file or directory; the order is IN\.gguf /, $SLUICE, 'quantize', 'Q4_K_M',
    "$dir/f32.gguf", "$dir/none.gguf");
symlink 'loop.gguf', "$dir/loop.gguf" or die $!;
fails('a source that is there, but cannot be read', 7, qr/loop\.gguf: Too many levels of symbolic links; expected a checkpoint/, $SLUICE, 'quantize', "$dir/loop.gguf", "$dir/none.gguf", 'Q8_0');
for (["version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", 'is a Git LFS pointer'], ["<!DOCTYPE html>\n", "begins with '<!DO', expected"],
    [substr(slurp("$dir/f32.gguf"), 0, 3000), 'strings do not fit the file; is the download complete\?'], ['', 'at byte 0; is the download complete\?']) {
    spit("$dir/other.gguf", $_->[0]);
    fails("a source that $_->[1]", 7, qr{^sluice quantize: \Q$dir\E/other\.gguf: .*$_->[1]}, $SLUICE, 'quantize', "$dir/other.gguf", "$dir/none.gguf", 'Q8_0');
}
fails('a key that is not there', 1, qr{no metadata key general\.nam; did you mean general\.name\? 'sluice inspect \Q$dir\E/f32\.gguf' lists them$}, $SLUICE, 'inspect', "$dir/f32.gguf",
    '--kv', 'general.nam');
fails('no such number', 2, qr/99 is no number of a file type/, $SLUICE, 'quantize', "$dir/f32.gguf", "$dir/none.gguf", '99');
fails('a type that only llama.cpp knows', 2, qr/nvfp4 is a type of llama\.cpp's that Sluice does not write/,
    $SLUICE, 'quantize', "$dir/f32.gguf", "$dir/none.gguf", 'nvfp4');

# Where the arguments stand.
chdir $dir or die;
END { chdir '/' } # so that the folder can be removed
run_ok('IN TYPE', $SLUICE, 'quantize', 'f32.gguf', 'q5_0');
ok(-f 'ggml-model-Q5_0.gguf', 'makes ggml-model-TYPE.gguf, as llama-quantize in capitals');
for (['7', 'Q8_0'], ['15', 'Q4_K'], ['copy', 'COPY']) {
    run_ok("IN $_->[0]", $SLUICE, 'quantize', '-f', 'f32.gguf', $_->[0]);
    ok(-f "ggml-model-$_->[1].gguf", "makes ggml-model-$_->[1].gguf");
}
link 'f32.gguf', 'sha256-0123abcd' or die $!; # as Ollama has it
run_ok('a GGUF file of another name', $SLUICE, 'quantize', 'sha256-0123abcd', 'blob.gguf', 'q5_0');
is_deeply(hashes('blob.gguf'), hashes('ggml-model-Q5_0.gguf'), 'the same bytes');
run_ok('verify reads it', $SLUICE, 'verify', 'blob.gguf', '--source', 'sha256-0123abcd');
run_ok('IN OUT 7', $SLUICE, 'quantize', 'f32.gguf', 'seven.gguf', '7');
is_deeply(hashes('seven.gguf'), hashes('q8.gguf'), 'a number in third place is a type');
run_ok('IN OUT TYPE THREADS', $SLUICE, 'quantize', 'f32.gguf', 'seven.gguf', '7', '1', '-f');
run_ok('0 threads are all', $SLUICE, 'quantize', 'f32.gguf', 'seven.gguf', '7', '0', '-f');
for my $n (0, -1) {
    run_ok("$n threads", $SLUICE, 'quantize', 'f32.gguf', 'seven.gguf', '7', $n, '-f');
    run_ok("$n threads of a file that is named", $SLUICE, 'quantize', 'f32.gguf', '7', $n, '-f');
}
fails("$_ threads", 2, qr/^sluice quantize: threads '\Q$_\E': expected a number up to 1024; the order is/, $SLUICE, 'quantize', 'f32.gguf', 'seven.gguf', '7', $_)
    for qw(8x +4 1.5 1025);
fails('an option that is none', 2, qr/^sluice quantize: -1: unknown option/, $SLUICE, 'quantize', '-1', 'f32.gguf', 'seven.gguf', '7');
run_ok('--keep-split of one file', $SLUICE, 'quantize', '--keep-split', 'f32.gguf', 'one.gguf', '7');
is_deeply(hashes('one.gguf'), hashes('seven.gguf'), 'is one');
fails('a mistyped type and threads', 2, qr/'Q9_K' is no recipe; .* write \.\/Q9_K/, $SLUICE, 'quantize', 'f32.gguf', 'Q9_K', '8');
run_ok('IN OUT --recipe', $SLUICE, 'quantize', 'f32.gguf', 'option.gguf', '--recipe', 'q8_0');
is_deeply(hashes('option.gguf'), hashes('seven.gguf'), '--recipe decides');
fails('a recipe and --recipe', 2, qr/'q4_k' and --recipe q8_0: one recipe is expected/, $SLUICE, 'quantize', 'f32.gguf', 'o.gguf', 'q4_k', '--recipe', 'q8_0');
spit('model.safetensors', '');
for (["$TINY/model-00001-of-00003.safetensors", $TINY], ["$TINY/model.safetensors.index.json", $TINY], ["$TINY/config.json", $TINY], ['model.safetensors', '.']) {
    fails("a part of a checkpoint: $_->[0]", 2, qr/^sluice quantize: \Q$_->[0]\E is no GGUF file but a part of a checkpoint; 'sluice convert' takes its folder, \Q$_->[1]\E$/m,
        $SLUICE, 'quantize', $_->[0], 'o.gguf', 'q4_k_m');
}
fails("no recipe @$_", 2, qr/no recipe given/, $SLUICE, 'quantize', 'f32.gguf', @$_) for [], ['out.gguf'];
spit('mine.recipe', "default q8_0\n");
run_ok('IN FILE.recipe', $SLUICE, 'quantize', 'f32.gguf', './mine.recipe');
ok(-f 'ggml-model-mine.gguf', 'makes ggml-model-FILE.gguf');
fails('two numbers of threads', 2, qr/threads '2' and --threads 5: one number is expected/, $SLUICE, 'quantize', 'f32.gguf', 'o.gguf', 'q8_0', '2', '-t', '5');
fails('threads', 2, qr/threads 'many': .*; the order is IN\.gguf \[OUT\.gguf\] RECIPE \[THREADS\]$/, $SLUICE, 'quantize', 'f32.gguf', 'o.gguf', 'q8_0', 'many');

# COPY, --dry-run, --prune-layers.
run_ok('COPY', $SLUICE, 'quantize', 'chain.gguf', 'copy.gguf', 'COPY');
is_deeply(hashes('copy.gguf'), hashes('chain.gguf'), 'the same bytes');
run_ok('every one of them', $SLUICE, 'verify', 'copy.gguf', '--source', 'chain.gguf', '--sample', 'all');
spit('bom', "\xef\xbb\xbfattn_q_a=q8_0\r\noutput=q6_k");
unlike(run_ok('--tensor-type-file that an editor began with its mark', $SLUICE, 'quantize', '--dry-run', 'f32.gguf', 'Q4_K_M', '--tensor-type-file', 'bom')->{err},
    qr/warning/, 'has its first pair');
spit('nul', "attn_v=q8_0\0\0\nffn=q6_k\n");
fails('--tensor-type-file that is no text', 2, qr/--tensor-type-file nul: a NUL byte; expected text in UTF-8$/, $SLUICE, 'quantize', '--dry-run', 'f32.gguf', 'Q8_0', '--tensor-type-file', 'nul');
fails('--tensor-type-file that is a folder', 2, qr/--tensor-type-file \.: Is a directory/, $SLUICE, 'quantize', '--dry-run', 'f32.gguf', 'Q8_0', '--tensor-type-file', '.');
is(run($SLUICE, 'inspect', 'copy.gguf', '--kv', 'general.file_type')->{out}, "15\n", 'the source\'s file type');
fails('COPY and --pure', 2, qr/COPY leaves every tensor as it is: --pure/, $SLUICE, 'quantize', 'chain.gguf', 'c.gguf', 'COPY', '--pure');
fails('COPY of a checkpoint', 2, qr/recipe copy takes its file_type from a GGUF file, and this is a checkpoint: .* f32/, $SLUICE, 'convert', $TINY, '-o', 'c.gguf', '-r', 'copy');
unlike(run_ok('--dry-run, synthetic', $SLUICE, 'quantize', '--dry-run', 'f32.gguf', 'IQ2_XXS', '--imatrix', 'synthetic')->{err}, qr/cannot be made/, 'needs no other');
like(run_ok('--dry-run onto the source', $SLUICE, 'quantize', '--dry-run', 'f32.gguf', 'f32.gguf', 'Q8_0')->{err}, qr/^sluice: note: .* is the source itself; choose another output name$/m, 'suggests no --force');
{ # the rules of 2025 make iq3_xxs without one
    my @iq3 = ('IQ3_XXS', '--pure');
    unlike(run_ok('--dry-run --rules 2025', $SLUICE, 'quantize', '--dry-run', 'f32.gguf', @iq3, '--rules', '2025')->{err}, qr/cannot be made/, 'needs no imatrix');
    my $qwen = checkpoint(scratch(), qw(--arch qwen2 --hidden 256 --inter 256 --layers 1 --vocab 512));
    run_ok('a model of one layout', $SLUICE, 'convert', $qwen, '-o', 'qwen.gguf', '-r', 'f16', '-q');
    my ($j) = json_lines(run_ok('its plan', $SLUICE, 'plan', 'qwen.gguf', '--json', '-r', @iq3, '--layout', 'legacy')->{out});
    is_deeply($j && $j->{needs_imatrix}, JSON::PP::false(), 'which implies these rules, needs none');
}
my $dry = run_ok('--dry-run without the imatrix that it needs', $SLUICE, 'quantize', '--dry-run', 'f32.gguf', 'IQ2_XXS');
like($dry->{err}, qr/\d+ tensors need an importance matrix/, 'says so');
like($dry->{out}, qr/^blk\.1\.ffn_up_exps\.weight +iq2_xxs /m, 'and shows the types');
ok(!-e 'ggml-model-IQ2_XXS.gguf', 'and writes nothing');
run_ok('--prune-layers', $SLUICE, 'quantize', '--prune-layers', '1', 'f32.gguf', 'pruned.gguf', 'Q8_0');
is(run($SLUICE, 'inspect', 'pruned.gguf', '--kv', 'deepseek2.block_count')->{out}, run($SLUICE, 'inspect', 'f32.gguf', '--kv', 'deepseek2.block_count')->{out} - 1 . "\n", 'one layer fewer');
is(hashes('pruned.gguf')->{'blk.1.attn_norm.weight'}, hashes('f32.gguf')->{'blk.2.attn_norm.weight'}, 'the next one in its place');
run_ok('verify knows', $SLUICE, 'verify', 'pruned.gguf', '--source', 'f32.gguf');
fails("--prune-layers $_->[0]", 2, $_->[1], $SLUICE, 'quantize', '--prune-layers', $_->[0], 'f32.gguf', 'p.gguf', 'Q8_0')
    for ['77', qr/has layers 0 to \d+$/m], ['1,', qr/expected numbers/], ['1-2', qr/expected numbers/], ['0,1,2,3,4,5,6,7,8,9', qr/layer/];
# What llama-quantize takes several times adds up, in its order.
spit('types-a', "ffn_down=q6_k\n");
spit('types-b', "attn_q_a=q5_k ffn=q4_0\n");
for (['--prune-layers', [qw(--prune-layers 1,2)], [qw(--prune-layers 2 --prune-layers 1)]],
    ['--tensor-type and --tensor-type-file', [map { ('--tensor-type', $_) } qw(ffn_down=q6_k ffn_up=q3_k attn_q_a=q5_k ffn=q4_0 attn=q2_k)],
        [qw(--tensor-type-file types-a --tensor-type ffn_up=q3_k --tensor-type-file types-b --tensor-type attn=q2_k)]]) {
    my ($name, @ways) = @$_;
    my @made = map { run_ok($name, $SLUICE, 'quantize', '-f', 'f32.gguf', 'twice.gguf', 'Q8_0', @$_); hashes('twice.gguf') } @ways;
    is_deeply($made[1], $made[0], "$name, several times");
}

spit('unsaid.gguf', slurp('f32.gguf') =~ s/deepseek2\.block_count/deepseek2.block_c0unt/r);
fails('no number of layers', 2, qr/does not say how many layers it has \(deepseek2\.block_count\)/, $SLUICE, 'quantize', '--prune-layers', '1', 'unsaid.gguf', 'p.gguf', 'Q8_0');
sub layers_of { # a model of these tensors
    my ($file, $layers, @names) = @_;
    my $head = 'GGUF' . pack('VQ<Q<Q</a*VQ</a*Q</a*VQ<', 3, scalar @names, 2, 'general.architecture', 8, 'llama', 'llama.block_count', 10, $layers)
        . join '', map { pack('Q</a*VQ<VQ<', $names[$_], 1, 8, 0, 32 * $_) } 0 .. $#names;
    spit($file, $head . "\0" x (-length($head) % 32 + 32 * @names));
    return ($SLUICE, 'quantize', '--prune-layers', '0', $file, 'p.gguf', 'COPY');
}
fails('more layers than 32 bits count', 2, qr/does not say how many layers it has \(llama\.block_count\)/, layers_of('huge.gguf', 2**32 + 5, 'blk.0.x', 'blk.1.x'));
fails('two layers with one number', 6, qr/the layer of tensor 'blk\.01\.x' .* begins with 0;/, layers_of('zero.gguf', 2, 'blk.0.x', 'blk.1.x', 'blk.01.x'));
spit('t5.gguf', slurp('f32.gguf') =~ s/blk\.1\.attn_norm/dec.blk.1.norms/r);
fails('layers of a decoder', 6, qr/the layer of tensor 'dec\.blk\.1\.norms\.weight' does not stand first/, $SLUICE, 'quantize', '--prune-layers', '1', 't5.gguf', 'p.gguf', 'Q8_0');

# Every option of llama-quantize is one of ours.
my $help = run($SLUICE, 'quantize', '--help')->{out};
is_deeply([grep { $help !~ /^ .*\Q$_\E\b/m } qw(--allow-requantize --leave-output-tensor --pure --imatrix --include-weights
    --exclude-weights --output-tensor-type --token-embedding-type --tensor-type --tensor-type-file --prune-layers
    --keep-split --override-kv --dry-run --max-buffer-size)], [], 'llama-quantize\'s options');
run_ok('--max-buffer-size', $SLUICE, 'quantize', '--max-buffer-size', '100', 'f32.gguf', 'small.gguf', 'Q8_0');
fails("--max-buffer-size @$_", 2, qr/^sluice quantize: (?:--max-buffer-size 0: expected MiB|memory of 5\.2 MB is too little|--max-buffer-size 100 and --mem 1Gi: one limit)/,
    $SLUICE, 'quantize', '--max-buffer-size', @$_, 'f32.gguf', 's.gguf', 'Q8_0') for ['0'], ['5'], ['100', '--mem', '1Gi'];

done_testing();
