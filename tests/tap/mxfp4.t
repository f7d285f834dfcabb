# Experts in MXFP4, as DeepSeek-V4's and as compressed-tensors packs them, and as blocks of a GGUF file: tensors
# against numpy and llama-quantize; kept as they are by mxfp4_moe and by rules; MXFP4 made of other types; and what is refused.
use strict;
use warnings;
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my @shape = qw(--mxfp4 --layers 3 --dense 1 --hidden 256 --inter 512 --moe-inter 256 --experts 16 --used 4
    --groups 1 --groups-used 1 --heads 4 --kv-heads 4);
my @legacy = qw(--layout legacy --rules 2026); # attn_k_b and attn_v_b have three dimensions too
my $ck = checkpoint("$dir/ck", @shape);
my $packed = checkpoint("$dir/packed", @shape, '--packed');
spit("$dir/kept.recipe", "*_exps.weight = keep\ndefault f32\n");
spit("$dir/asked.recipe", "*_exps.weight = mxfp4\ndefault bf16\n");

my $r = run($SLUICE, 'inspect', $ck, '--json');
my %type = map { $_->{type} => $_ } @{ (json_lines($r->{out}))[0]{types} };
is($type{F4}{weights}, 2 * 16 * 3 * 256 * 256, 'inspect: the weights of all experts') or diag($r->{out});

my ($planned, $there) = map { plan_of($_, @legacy, '--recipe', 'mxfp4_moe') } "$packed/config.json", $packed;
is($planned->{source_bytes}, $there->{source_bytes}, 'config.json alone: the same bytes, scales included');
is_deeply([map { $_->{unwritable_type} } $planned, $there], [undef, undef], 'which mxfp4_moe can keep');

my %made;
sub made {
    my ($name, $source, @how) = @_;
    $made{$name} = "$dir/$name.gguf";
    run_ok("$name: made", $SLUICE, 'convert', $source, '-o', $made{$name}, @legacy, @how, '--quiet');
}
sub exact {
    my ($name, $source) = @_;
    my $c = run(python('reference.py', 'compare', $source, $made{$name}, qw(--layout legacy)));
    is($c->{out}, "equal\n", "$name: every bit") or diag($c->{err});
    run_ok("$name: verify", $SLUICE, 'verify', $made{$name}, '--source', $source, '--sample', '100%');
}
for (['f32', $ck], ['kept', $ck], ['packed-f32', $packed], ['asked', $packed, '--round-through', 'bf16']) {
    my ($name, $source, @more) = @$_;
    made($name, $source, '--recipe', $name =~ /f32/ ? 'f32' : "$dir/$name.recipe", @more);
    exact($name, $source);
}
made('q4_k_m', $ck, '--recipe', 'q4_k_m');
made('mxfp4_moe', $ck, '--recipe', 'MXFP4_MOE');
run_ok("$_: verify", $SLUICE, 'verify', $made{$_}, '--source', $ck, '--sample', '100%') for qw(q4_k_m mxfp4_moe);

for my $recipe ('q4_k_m', "$dir/kept.recipe") { # the second: what is kept is the processor's
    my $gpu = run_ok('on an emulated GPU', "$BUILD/tools/emulated_gpu", 'convert', $ck, '-o', "$dir/gpu.gguf", @legacy, '--recipe', $recipe,
        qw(--device cuda:0 --stats --force));
    my ($made) = $gpu->{err} =~ /GPUs made (\d+) slabs of output/;
    cmp_ok($made, '>', 0, 'which works');
    is_deeply(hashes("$dir/gpu.gguf"), hashes($made{ $recipe =~ /kept/ ? 'kept' : $recipe }), 'the same tensors');
}

run_ok('what is kept needs no importance matrix, and takes none: another model\'s', $SLUICE, 'convert', $ck, '-o', "$dir/im.gguf", @legacy,
    '--recipe', "$dir/kept.recipe", '--imatrix', "$TINY/imatrix.legacy-layout.dat", '--quiet');

# ---- a GGUF file that holds it
sub quantize {
    my ($name, @how) = @_;
    $made{$name} = "$dir/$name.gguf";
    run_ok("$name: quantize", $SLUICE, 'quantize', @how[1 .. $#how], $made{kept}, $made{$name}, $how[0]);
    run_ok("$name: verify", $SLUICE, 'verify', $made{$name}, '--source', $made{kept}, '--sample', '100%');
}
quantize('again', 'Q4_K_M', '--allow-requantize');
quantize('moe', 'mxfp4_moe');
quantize('copied', 'COPY');
is_deeply(hashes($made{again}), hashes($made{q4_k_m}), 'its blocks stand for the same weights');
is_deeply(hashes($made{moe}), hashes($made{mxfp4_moe}), 'and are kept');
is_deeply(hashes($made{copied}), hashes($made{kept}), 'or copied');
fails('quantized already', 2, qr/it is mxfp4 in the source already.*--allow-requantize/, $SLUICE, 'quantize', $made{kept}, "$dir/no.gguf", 'Q4_K_M');
is(kv_of($made{moe}, 'general.file_type'), "38\n", 'general.file_type');
like(run($SLUICE, 'inspect', $made{moe})->{out}, qr/^mxfp4 +557\.1 kB +\[256, 256, 16\] +blk\.2\.ffn_up_exps/m, 'inspect');
like(run($SLUICE, 'diff', $made{kept}, $made{f32})->{out}, qr/\S/, 'diff');
SKIP: {
    skip_without_llama(7);
    for (['again', 'Q4_K_M', '--allow-requantize'], ['moe', 'MXFP4_MOE', '--allow-requantize'], ['q4_k_m', 'Q4_K_M']) {
        my ($name, $type, @more) = @$_;
        as_llama_quantize($made{$name}, $made{@more ? 'kept' : 'f32'}, $type, @more);
    }
    make_text($made{mxfp4_moe});
}

# ---- made of other types: by a mixture, by an option, from FP8 and BF16, the same on a GPU, which leaves it to the processor
my $fp8 = checkpoint("$dir/fp8", grep { $_ ne '--mxfp4' } @shape);
made('fp8', $fp8, '--recipe', 'mxfp4_moe');
made('weighted', $fp8, '--recipe', 'mxfp4_moe', '--imatrix', 'synthetic');
made('bf16', $fp8, '--recipe', 'bf16');
made('rounded', $fp8, '--recipe', 'mxfp4_moe', '--round-through', 'bf16');
made('both', $ck, '--recipe', 'mxfp4_moe', '--tensor-type', 'attn_q_b=mxfp4'); # experts are kept, this is made
run_ok("$_->[0]: verify", $SLUICE, 'verify', $made{ $_->[0] }, '--source', $_->[1], '--sample', '100%') for ['fp8', $fp8], ['rounded', $fp8], ['both', $ck];
is_deeply(hashes($made{weighted}), hashes($made{fp8}), 'importance weights change nothing');
is_deeply([map { hashes($made{both})->{$_} } grep { /_exps/ } sort keys %{ hashes($made{kept}) }],
    [map { hashes($made{kept})->{$_} } grep { /_exps/ } sort keys %{ hashes($made{kept}) }], 'kept and made, side by side');
run_ok('from BF16', $SLUICE, 'quantize', $made{bf16}, "$dir/of-bf16.gguf", 'MXFP4_MOE');
is_deeply(hashes("$dir/of-bf16.gguf"), hashes($made{rounded}), 'what --round-through makes');
for my $gpu (["$BUILD/tools/emulated_gpu", '--device', 'cuda:0'], map { [$SLUICE, '--backend', $_] } qw(scalar portable auto)) {
    my ($program, @how) = @$gpu;
    run_ok("@how", $program, 'convert', $fp8, '-o', "$dir/gpu.gguf", @legacy, '--recipe', 'mxfp4_moe', '-q', '--force', @how);
    is_deeply(hashes("$dir/gpu.gguf"), hashes($made{fp8}), 'the same tensors');
}
SKIP: {
    skip_without_llama(5);
    run_ok('llama-quantize: from BF16', python('llama.py', 'quantize', $made{bf16}, "$dir/theirs.gguf", 'MXFP4_MOE'));
    is_deeply(hashes("$dir/theirs.gguf"), hashes($made{rounded}), 'the same tensors');
    is_deeply([grep { /"key":/ && !/sluice\./ } split /\n/, run($SLUICE, 'diff', '--json', '-q', "$dir/theirs.gguf", "$dir/of-bf16.gguf")->{out}], [], 'and keys');
    make_text($made{fp8});
    # A block whose largest weight is 2^-126: ggml's exponent is a NaN, which neither writes.
    my ($t) = grep { $_->[0] eq 'blk.2.ffn_up_exps.weight' } where($made{f32});
    my $tiny = slurp($made{f32});
    substr($tiny, $t->[1] + 4 * 256 * 9 + 4 * 160, 128) = pack 'V*', (0) x 31, 0x80800000;
    spit("$dir/tiny.gguf", $tiny);
    fails('an exponent that is none', 6, qr/'blk\.2\.ffn_up_exps\.weight' .*row 9, column 160 on are too small for mxfp4; give it a wider type/,
        $SLUICE, 'quantize', "$dir/tiny.gguf", "$dir/no.gguf", 'MXFP4_MOE');
    isnt(run(python('llama.py', 'quantize', "$dir/tiny.gguf", "$dir/theirs.gguf", 'MXFP4_MOE'))->{rc}, 0, 'llama-quantize refuses it, too');
}

# ---- recipes by size: mxfp4 for a fused group that has it whole; with --types for any tensor
sub by_size {
    my $r = run_ok('a recipe by size', $SLUICE, 'plan', '-q', '--allow-requantize', '--target-bpw', @_);
    my %type = map { $_ => join ' ', $r->{out} =~ /^\*\.ffn_${_}_exps\.weight .*= (\w+)$/mg } qw(gate up down);
    return "@type{qw(gate up down)}";
}
my @types = ('--types', 'q5_k,q6_k,q8_0,mxfp4');
is(by_size(6, $ck, @legacy, @types), 'mxfp4 mxfp4 mxfp4', 'kept');
is(by_size(6, $made{kept}, @types), 'mxfp4 mxfp4 mxfp4', 'kept, of a GGUF file');
made('part', $fp8, '--recipe', 'f32', '--tensor-type', '(gate|down)_exps=mxfp4');
like(by_size(6, $made{part}), qr/^((?!mxfp4)\w+) \1 mxfp4$/, 'gate is MXFP4 and up is not: another type for both');
is(by_size(4.6, $made{bf16}, '--types', 'q8_0,mxfp4'), 'mxfp4 mxfp4 mxfp4', 'made, since it is listed');
unlike(by_size(4.6, $made{bf16}), qr/mxfp4/, 'and not tried otherwise');
is(by_size(6, $ck, @legacy, qw(--types mxfp4)), 'mxfp4 mxfp4 mxfp4', 'alone');
unlike(run($SLUICE, 'plan', $made{f32}, '--recipe', 'mxfp4_moe')->{out}, qr/mxfp4 is kept|cannot write/, 'plan has nothing against it');

# ---- what is refused, and found
my $expert = 'model.layers.2.mlp.experts.7.up_proj';
sub damaged {
    my ($name, $tensor, $offset, $bits, @expected) = @_;
    my ($file, $at) = place($ck, $tensor);
    flip_byte($file, $at + $offset, $bits);
    my $f = fails("$name: verify", 8, qr/: 1 failure, on standard output$/, $SLUICE, 'verify', $made{kept}, '--source', $ck, '--sample', '100%');
    like($f->{out}, qr/^FAILED .*blk\.2\.ffn_up_exps\.weight: block (\d+) .*is not what the source gives: byte $expected[0] of it/m, 'which is named');
    flip_byte($file, $at + $offset, $bits);
}
damaged('a code', "$expert.weight", 128 * 9 + 5, 0x10, 12); # its 11th weight, in the low half
damaged('a scale', "$expert.scale", 8 * 9 + 5, 0x01, 0);
my ($file, $at) = place($ck, "$expert.scale");
my $was = ord substr slurp($file), $at + 8 * 9 + 5, 1;
for my $case ([0xff, qr/tensor '\Q$expert\E\.weight': scale \[9, 5\] in '\Q$expert\E\.scale' .* is nan, expected a finite number/],
              [0xfe, qr/tensor '\Q$expert\E\.weight' in .*: row 9, column 1(?:6|7|8|9)\d is NaN or infinite \(F4\); the source is damaged/]) {
    flip_byte($file, $at + 8 * 9 + 5, $was ^ $case->[0]);
    fails("the scale $case->[0]: $_", 7, $case->[1], $SLUICE, 'convert', $ck, '-o', "$dir/no.gguf", '--recipe', $_, @legacy, qw(--quiet --force))
        for 'q4_k_m', "$dir/kept.recipe";
    flip_byte($file, $at + 8 * 9 + 5, $was ^ $case->[0]);
}
my ($where) = grep { $_->[0] eq 'blk.2.ffn_up_exps.weight' } where($made{kept});
my $bad = slurp($made{kept});
substr($bad, $where->[1] + 17 * 77, 1) = "\xff";
spit("$dir/bad.gguf", $bad);
fails('a block whose scale is a NaN', 7, qr/tensor 'blk\.2\.ffn_up_exps\.weight' in .*: row 9, column 160 is NaN or infinite \(MXFP4\); the source is damaged/,
    $SLUICE, 'quantize', "$dir/bad.gguf", "$dir/no.gguf", $_, '--allow-requantize', '--force') for 'Q4_K_M', 'COPY';

done_testing();
