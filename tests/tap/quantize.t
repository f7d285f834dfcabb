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

# Quantizing again is refused, except from Q8_0 on request.
my $r = run($SLUICE, 'quantize', "$dir/chain.gguf", "$dir/twice.gguf", 'Q2_K');
ok($r->{rc} == 2 || $r->{rc} == 6, 'from Q4_K_M: refused') or diag("exit $r->{rc} $r->{err}");
ok(!-e "$dir/twice.gguf", 'and nothing is made');

done_testing();
