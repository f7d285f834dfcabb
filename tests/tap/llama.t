# llama.cpp loads every output and makes text with it; its logits and its
# perplexity on F32 and Q8_0 are the reference's, and ggml's own quantizers give
# our bytes for every type.
use strict;
use warnings;
use SluiceTest;
use Test::More;

need_llama();
my $full = ($ENV{SLUICE_PERPLEXITY} // '') eq 'full';
my $dir  = scratch();
my $ref  = "$TINY/reference";

sub llama {
    my @args = @_;
    my $r = run(python('llama.py', @args, $full ? ('--threads', $ENV{LLAMA_THREADS} // 1) : ()));
    $r->{lines} = [eval { json_lines($r->{out}) }];
    return $r;
}

my @k    = qw(q2_k q3_k_s q3_k_m q3_k_l q4_k_s q4_k_m q5_k_s q5_k_m q6_k dq3_k_m);
my @rest = qw(q8_0 f16 bf16 q4_0 q4_1 q5_0 q5_1 iq4_nl iq4_xs mxfp4_moe);
my (@files, %file);
for my $recipe ('f32', @k, @rest) {
    for my $layout (qw(mla legacy)) {
        my $file = $file{$layout}{$recipe} = "$dir/$recipe-$layout.gguf";
        push @files, $file;
        run_ok("$recipe $layout", $SLUICE, 'convert', $TINY, '-o', $file, '--recipe', $recipe, '--layout', $layout, '--quiet');
    }
}
# The small types need an importance matrix; this one is for the legacy layout.
my @small = qw(iq4_xs iq3_s iq3_xxs iq2_m iq2_xs iq2_xxs iq1_m iq1_s);
for my $recipe (@small, $full ? qw(q4_k_m q3_k_m q2_k_s) : ()) {
    my $file = $file{imatrix}{$recipe} = "$dir/$recipe-imatrix.gguf";
    push @files, $file;
    run_ok("$recipe with an imatrix", $SLUICE, 'convert', $TINY, '-o', $file, '--recipe', $recipe, '--layout', 'legacy',
        '--imatrix', "$TINY/imatrix.legacy-layout.dat", '--quiet');
}
# Types of few levels, of which q1_0 does not fit attn_k_b's rows here; llama-quantize's own files are the same.
for my $recipe (qw(q1_0 q2_0 tq1_0 tq2_0)) {
    push @files, my $file = "$dir/$recipe-few.gguf";
    run_ok("$recipe legacy", $SLUICE, 'convert', $TINY, '-o', $file, '--recipe', $recipe, '--layout', 'legacy', '--rules', '2026', '--quiet');
    run_ok("$recipe by llama-quantize", python('llama.py', 'quantize', $file{legacy}{f32}, "$dir/theirs.gguf", uc $recipe));
    is_deeply(hashes($file), hashes("$dir/theirs.gguf"), "$recipe: the same tensors");
    my ($ours, $theirs) = map { (json_lines(run($SLUICE, 'inspect', $_, '--json', '--kv', 'general.file_type')->{out}))[0]{value} } $file, "$dir/theirs.gguf";
    is($ours, $theirs, "$recipe: general.file_type");
}
run_ok('q4_k_m in parts', $SLUICE, 'convert', $TINY, '-o', "$dir/parts.gguf", '--recipe', 'q4_k_m', '--split-max-size', '4M', '--quiet');
push @files, (glob "$dir/parts-*.gguf")[0];

# ---- every file is loaded, whole (check_tensors), and makes text
my $r = llama('load', @files);
is($r->{rc}, 0, 'all are loaded') or diag("$r->{out}$r->{err}");
my %made = map { $_->{file} => $_ } @{ $r->{lines} };
for my $file (@files) {
    my ($name) = $file =~ m{([^/]+)$};
    is(scalar @{ ($made{$file} // {})->{tokens} // [] }, 8, "$name: makes 8 tokens");
}
is_deeply($made{ $files[-1] }{tokens}, $made{ $file{mla}{q4_k_m} }{tokens}, 'in parts or whole: the same text');
is_deeply($made{ $file{legacy}{f32} }{tokens}, $made{ $file{mla}{f32} }{tokens}, 'F32: the same text in both layouts');

# ---- it can tell a damaged file
my ($t) = grep { $_->[0] eq 'blk.1.ffn_norm.weight' } where($file{mla}{f32});
my $bad = "$dir/bad.gguf";
run('cp', $file{mla}{f32}, $bad);
open my $f, '+<:raw', $bad or die;
seek $f, $t->[1], 0;
print $f pack 'V', 0x7fc00000;
close $f;
is(llama('load', $bad)->{rc}, 1, 'a NaN weight is noticed');
unlink $bad;

# ---- logits and losses against the independent forward pass
# F32: the largest difference of any logit. Q8_0: root mean square over the logits' own
# spread, since one token that an expert's router sends elsewhere moves its logits by units.
for my $case (['f32', 1e-4, 'worst_logit', 1e-3], ['q8_0', 0.5, 'rms_logit', 0.1]) {
    my ($recipe, $nll, $figure, $logit) = @$case;
    $r = llama('logits', $file{mla}{$recipe}, '--reference', $ref);
    my $l = $r->{lines}[0] // {};
    diag(sprintf '%s: mean loss %.6f, reference %.6f; largest difference of a loss %.2g, of a logit %.2g; rms of logits %.2g',
        $recipe, map { $_ // 'nan' } @$l{qw(mean_nll reference_nll worst_nll worst_logit rms_logit)});
    cmp_ok($l->{$figure} // 'nan', '<', $logit, "$recipe: logits");
    cmp_ok(abs(($l->{mean_nll} // 99) - ($l->{reference_nll} // 0)), '<', $recipe eq 'f32' ? 1e-4 : 0.02, "$recipe: mean loss");
    cmp_ok($l->{worst_nll} // 'nan', '<', $nll, "$recipe: each token's loss");
}

# ---- perplexity of the licence texts
$r = llama('perplexity', $file{mla}{f32}, $full ? () : $file{mla}{q8_0}, '--reference', $ref);
SKIP: {
    my $l = $r->{lines}[0] // {};
    skip $l->{skip}, 2 if $l->{skip};
    my ($got, $want) = @$l{qw(perplexity reference)};
    diag(sprintf 'perplexity of F32: %.5f, reference %.5f', $got // 0, $want // 0);
    ok($got && abs($got / $want - 1) < 1e-3, 'F32: the reference\'s perplexity') or diag($r->{out}, $r->{err});
    my $q8 = $full ? $got : ($r->{lines}[1] // {})->{perplexity};
    ok($q8 && abs($q8 / $want - 1) < 5e-3, 'Q8_0: near it') or diag($r->{out}, $r->{err});
}
my @table = $full ? ('--base', $file{mla}{f32}, '--markdown', "$BUILD/perplexity.md")
                  : ('--base', $file{mla}{f32}, '--chunks', 6);
$r = llama('perplexity', (map { $file{mla}{$_} } $full ? (@rest, reverse @k) : @k), '--reference', $ref, @table);
SKIP: {
    my @l = @{ $r->{lines} };
    skip $l[0]{skip}, 2 if @l && $l[0]{skip};
    diag(sprintf '%-22s perplexity %8.3f  KL divergence %.6f  same top token %.2f %%', $_->{file} =~ m{([^/]+)\.gguf$},
        $_->{perplexity}, $_->{kl} // 0, $_->{same_top} // 100) for @l;
    my $base = shift @l;
    ok(@l >= 9, 'all measured') or diag($r->{out}, $r->{err});
    my @far = grep { !($_->{kl} >= -1e-9 && $_->{kl} < 0.06 && abs($_->{perplexity} / $base->{perplexity} - 1) < 0.05) } @l;
    is_deeply([map { "$_->{file} $_->{perplexity} $_->{kl}" } @far], [], 'no mixture is far from F32');
}

# The mixtures with an importance matrix, in the layout that it is for.
SKIP: {
    skip 'only for make perplexity', 1 unless $full;
    $r = llama('perplexity', (map { $file{imatrix}{$_} } qw(q4_k_m q3_k_m q2_k_s), @small), '--reference', $ref,
        '--base', $file{legacy}{f32}, '--markdown', "$BUILD/perplexity-imatrix.md");
    ok($r->{rc} == 0, 'the mixtures with an importance matrix') or diag($r->{out}, $r->{err});
}

# ---- ggml's own quantizers, whole tensors. A build that fuses multiply and add
# would give other bytes: it is held against tests/golden first.
$r = llama('golden', "$TOP/tests/golden");
my $g = $r->{lines}[0] // { different => ['nothing was compared'] };
SKIP: {
    skip "this ggml gives other bytes than tests/golden: @{ $g->{different} }", 1 if @{ $g->{different} };
    cmp_ok($g->{vectors}, '>', 200, 'this ggml gives the bytes of tests/golden');
    for my $recipe (@k, @rest) {
        $r = llama('tensors', $TINY, $file{mla}{$recipe});
        my $l = $r->{lines}[0] // {};
        ok($r->{rc} == 0, "$recipe: ggml_quantize_chunk gives the same tensors (" . join(' ', sort keys %{ $l->{types} // {} }) . ')')
            or diag("$r->{out}$r->{err}");
    }
    flip_byte($file{mla}{q6_k}, (-s $file{mla}{q6_k}) - 4000, 1);
    is(llama('tensors', $TINY, $file{mla}{q6_k})->{rc}, 1, 'one wrong bit is noticed');
}

done_testing();
