# --imatrix synthetic: the same bytes as its definition, computed apart and given as a file.
use strict;
use warnings;
use SluiceTest;
use Test::More;

need_python();
my $dir = scratch();
my @cases = (['mla', $TINY, qw(iq2_xxs q4_k_m iq1_m)], ['legacy', $TINY, 'q3_k_m']);

sub kv {
    my ($file, $key) = @_;
    my $r = run($SLUICE, 'inspect', '--kv', $key, $file);
    chomp $r->{out};
    return $r->{rc} ? undef : $r->{out};
}

for my $case (@cases) {
    my ($layout, $source, @recipes) = @$case;
    my @plan = ('--layout', $layout);
    run_ok("computed apart, $layout", python('synthetic_imatrix.py', $source, "$dir/$layout.gguf", @plan));
    for my $r (@recipes) {
        my $said = run_ok("$r", $SLUICE, 'convert', $source, '-o', "$dir/$r.gguf", '--recipe', $r, @plan, '--imatrix', 'synthetic', '--threads', 2);
        like($said->{err}, qr/note: --imatrix synthetic: \d+ of \d+ quantized tensors/, 'said aloud');
        run_ok("$r from the file", $SLUICE, 'convert', $source, '-o', "$dir/file.gguf", '-f', '-q', '--recipe', $r, @plan, '--imatrix', "$dir/$layout.gguf");
        my ($ours, $file) = (hashes("$dir/$r.gguf"), hashes("$dir/file.gguf"));
        cmp_ok(scalar keys %$ours, '>', 60, 'tensors');
        is_deeply($ours, $file, "$r, $layout: the same bytes");
    }
}
run_ok('without weights', $SLUICE, 'convert', $TINY, '-o', "$dir/plain.gguf", '-q', '--recipe', 'q4_k_m');
my ($w, $p) = (hashes("$dir/q4_k_m.gguf"), hashes("$dir/plain.gguf"));
cmp_ok(scalar(grep { $w->{$_} ne $p->{$_} } keys %$w), '>', 30, 'the weights do something');

# Recorded as what it is.
is(kv("$dir/q4_k_m.gguf", 'quantize.imatrix.file'), 'synthetic', 'quantize.imatrix.file');
is(kv("$dir/q4_k_m.gguf", 'quantize.imatrix.dataset'), 'column energy of the weights', 'quantize.imatrix.dataset');
is(kv("$dir/q4_k_m.gguf", 'sluice.imatrix'), 'synthetic-1', 'sluice.imatrix');
my ($sum) = grep { $_->{message_type} eq 'summary' } json_lines(run($SLUICE, 'convert', $TINY, '-o', "$dir/j.gguf", '--recipe', 'q3_k_s', '--imatrix', 'synthetic', '--json')->{out});
is($sum->{imatrix}, 'synthetic', 'in the run\'s summary');
my %plan = map { my ($n, @o) = @$_; my ($j) = json_lines(run($SLUICE, 'plan', $TINY, '--recipe', 'iq2_xxs', '--json', @o)->{out}); ($n => $j) }
    ['none'], ['synthetic', '--imatrix', 'synthetic'], ['words', '--imatrix', 'synthetic', '--exclude-weights', 'attn_output'];
ok($plan{words}{fingerprint} && $plan{none}{fingerprint} ne $plan{synthetic}{fingerprint} && $plan{words}{fingerprint} ne $plan{synthetic}{fingerprint}, 'the fingerprint depends on it');
ok($plan{none}{needs_imatrix} && !$plan{synthetic}{needs_imatrix}, 'plan: nothing is lacking');

# From GGUF, in small tasks, and with words.
run_ok('F32', $SLUICE, 'convert', $TINY, '-o', "$dir/f32.gguf", '-q', '--recipe', 'f32');
run_ok('quantize', $SLUICE, 'quantize', "$dir/f32.gguf", "$dir/q.gguf", 'IQ2_XXS', '-q', '--imatrix', 'synthetic', '--task-size', 65536);
is_deeply(hashes("$dir/q.gguf"), hashes("$dir/iq2_xxs.gguf"), 'sluice quantize: the same bytes');
run_ok('words', $SLUICE, 'convert', $TINY, '-o', "$dir/words.gguf", '-q', '--recipe', 'q4_k_m', '--imatrix', 'synthetic', '--exclude-weights', 'ffn_', '--exclude-weights', 'attn_q');
my $some = hashes("$dir/words.gguf");
is_deeply([grep { $some->{$_} ne (/ffn_|attn_q/ ? $p : $w)->{$_} } sort keys %$some], [], 'the named ones without');
fails('types that need weights', 2, qr/leave \d+ tensors without importance weights whose types need them: blk\.\d+\.ffn_\w+\.weight \(iq2_xxs\)/,
    $SLUICE, 'convert', $TINY, '-o', "$dir/no.gguf", '--recipe', 'iq2_xxs', '--imatrix', 'synthetic', '--exclude-weights', 'ffn_gate');

# verify makes the blocks again without being told, and refuses other weights.
for my $f (qw(iq2_xxs words q)) {
    like(run_ok("verify $f", $SLUICE, 'verify', "$dir/$f.gguf", '--source', $f eq 'q' ? "$dir/f32.gguf" : $TINY, '--sample', '5%')->{out},
        qr/blocks of 70 tensors made again.*same bytes/, 'every tensor');
}
run_ok('and when told', $SLUICE, 'verify', "$dir/q4_k_m.gguf", '--source', $TINY, '--imatrix', 'synthetic');
fails('a file instead', 2, qr/made with a synthetic importance matrix/, $SLUICE, 'verify', "$dir/q4_k_m.gguf", '--source', $TINY, '--imatrix', "$dir/mla.gguf");
fails('none was used', 2, qr/made with no importance matrix/, $SLUICE, 'verify', "$dir/plain.gguf", '--source', $TINY, '--imatrix', 'synthetic');
my ($at) = grep { $_->[0] eq 'blk.2.ffn_gate_exps.weight' } where("$dir/q4_k_m.gguf");
flip_byte("$dir/q4_k_m.gguf", $at->[1] + 40, 1);
is(run($SLUICE, 'verify', "$dir/q4_k_m.gguf", '--source', $TINY)->{rc}, 8, 'one wrong bit is noticed');

done_testing();
