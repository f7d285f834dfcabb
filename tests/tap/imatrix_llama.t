# llama-quantize itself, in this run, with importance matrices in GGUF: today's
# layout with attn_k_b and attn_v_b head by head, experts without data, all types.
use strict;
use warnings;
use SluiceTest;
use Test::More;

need_llama();
my $golden = run(python('llama.py', 'golden', "$TOP/tests/golden"));
plan(skip_all => "llama.cpp's package gives other bytes than tests/golden") if $golden->{out} !~ /"different": \[\]/;

my $dir = scratch();
my $source = checkpoint(scratch(), qw(--layers 2 --experts 4 --groups 2 --hidden 256 --inter 512 --moe-inter 256 --vocab 4096));
run_ok('F32', $SLUICE, 'convert', $source, '-o', "$dir/f32.gguf", '--recipe', 'f32', '--quiet');
for my $heads (qw(one each)) {
    run_ok("imatrix, $heads count for the heads", python('make_imatrix.py', "$dir/f32.gguf", "$dir/$heads.gguf", '--heads', $heads));
}

# Those that golden/imatrix does not have, and one of each kind.
my @mixtures = $QUICK ? qw(Q4_K_M IQ2_XXS) : qw(Q3_K_L Q4_0 Q4_1 Q5_0 Q5_1 Q4_K_M Q5_K_M IQ1_S IQ2_XXS IQ2_S IQ3_M);
for my $m (@mixtures) {
    my $heads = $m =~ /[KM]$/ ? 'one' : 'each';
    my $im = "$dir/$heads.gguf";
    run_ok("$m by llama-quantize", python('llama.py', 'quantize', "$dir/f32.gguf", "$dir/theirs.gguf", $m, '--imatrix', $im));
    my $r = run_ok("$m by sluice", $SLUICE, 'convert', $source, '-o', "$dir/ours.gguf", '--recipe', lc $m, '--imatrix', $im, '--force');
    my ($a, $b) = (hashes("$dir/theirs.gguf"), hashes("$dir/ours.gguf"));
    my %type = map { $_->[0] => $_->[3] } where("$dir/theirs.gguf");
    my %mine = map { $_->[0] => $_->[3] } where("$dir/ours.gguf");
    is_deeply([map { $mine{$_} // 'none' } sort keys %type], [map { $type{$_} } sort keys %type], "$m: the same types");
    # Releases of ggml differ among themselves in iq1_m where candidates tie (tests/golden).
    my @bytes = grep { $type{$_} != 29 } sort keys %$a;
    is_deeply([grep { $a->{$_} ne ($b->{$_} // '') } @bytes], [], "$m: the same bytes");
    like($r->{err}, qr/3 experts had no data when the imatrix was made and get weights of 1\.0: 1 in blk\.1\.ffn_\w+_exps\.weight, 1 in blk/,
        'experts without data are told') if $m eq 'Q4_K_M';
}

# Somebody else's file: verify needs no key of Sluice's for it.
run_ok('llama-quantize\'s file', python('llama.py', 'quantize', "$dir/f32.gguf", "$dir/theirs.gguf", 'Q4_K_M', '--imatrix', "$dir/one.gguf"));
my $v = run($SLUICE, 'verify', "$dir/theirs.gguf", '--source', $source);
is($v->{rc}, 8, 'its blocks are not those without weights') or diag($v->{out}, $v->{err});

done_testing();
