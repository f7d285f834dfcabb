# Unsloth's recipes on a generated checkpoint in DeepSeek-V3's form: an importance matrix that
# llama.cpp collects by running the model, a full conversion with each, and llama.cpp again.
use strict;
use warnings;
use SluiceTest;
use Test::More;

need_llama();
my $dir = scratch();

# ---- the collector: on tiny-v3 it finds what llama-imatrix found on another text
run_ok('tiny-v3 in F32', $SLUICE, 'convert', $TINY, '-o', "$dir/tiny.gguf", '-q', '--recipe', 'f32', '--layout', 'legacy');
my $r = run_ok('its imatrix', python('llama.py', 'imatrix', "$dir/tiny.gguf", "$dir/tiny-im.gguf", '--chunks', 4));
run_ok('llama-imatrix\'s', $SLUICE, 'imatrix', "$TINY/imatrix.legacy-layout.dat", '--convert', "$dir/theirs.gguf");
my $compare = <<'PY';
import sys, gguf, numpy as np
def read(p):
    t = {x.name: np.array(x.data, np.float64).reshape(-1) for x in gguf.GGUFReader(p).tensors}
    return {n[:-8]: (t[n], t[n[:-8] + ".counts"]) for n in t if n.endswith(".in_sum2")}
a, b = read(sys.argv[1]), read(sys.argv[2])
def columns(sums, counts, groups):
    return np.log((sums.reshape(groups, -1) / np.maximum(np.resize(counts, groups), 1)[:, None]).mean(0) + 1e-9)
alike = [np.corrcoef(columns(*a[n], len(a[n][1])), columns(*b[n], len(a[n][1])))[0, 1] for n in b]
routed = {int(c.sum()) for n, (_, c) in a.items() if "_exps" in n}
print(sorted(set(a) ^ set(b)), np.median(alike), *routed, *{int(c.sum()) for n, (_, c) in a.items() if "_exps" not in n})
PY
$r = run("$TOP/build/venv/bin/python", '-c', $compare, "$dir/tiny-im.gguf", "$dir/theirs.gguf");
my ($names, $median, @counts) = $r->{out} =~ /^(\[.*\]) (\S+) (\d+) (\d+)$/;
is($names, '[]', 'the same entries') or diag($r->{out}, $r->{err});
cmp_ok($median // 0, '>', 0.7, "columns matter alike on both texts: median correlation $median");
is_deeply(\@counts, [2 * 1024, 1024], 'each of 1024 tokens counts once, and for each of its two experts');

# ---- the generated checkpoint: ten layers, so that every rule of the recipes speaks
my $source = checkpoint(scratch(), qw(--layers 10 --dense 3 --experts 4 --groups 2 --hidden 256 --inter 512 --moe-inter 256 --vocab 4096));
run_ok('F32', $SLUICE, 'convert', $source, '-o', "$dir/f32.gguf", '-q', '--recipe', 'f32');
$r = run_ok('an imatrix by running it', python('llama.py', 'imatrix', "$dir/f32.gguf", "$dir/im.gguf", '--chunks', 2));
my ($made) = json_lines($r->{out});
my $shown = run_ok('it is read', $SLUICE, 'imatrix', "$dir/im.gguf", '--json');
my ($im) = json_lines($shown->{out});
is_deeply([$im->{format}, $im->{chunks}, scalar @{ $im->{entries} }], ['gguf', 2, $made->{entries}], 'what is in it');

my %want = ( # types of the routed experts: gate, down of the first layers and of the last
    'ud-iq1_s'   => [qw(iq1_s iq2_xxs iq1_s)],
    'ud-iq1_m'   => [qw(iq1_s q3_k q2_k)],
    'ud-iq2_xxs' => [qw(iq2_xxs q3_k q2_k)],
    'ud-q2_k_xl' => [qw(q2_k q3_k q2_k)],
);
my @files;
for my $recipe (sort keys %want) {
    my $file = "$dir/$recipe.gguf";
    push @files, $file;
    my $run = run_ok("$recipe: converted", $SLUICE, 'convert', $source, '-o', $file, '--recipe', $recipe, '--imatrix', "$dir/im.gguf");
    unlike($run->{err}, qr/have no data in the imatrix/, 'every quantized tensor has data');
    my $dry = run($SLUICE, 'convert', $source, '-o', "$dir/x.gguf", '-n', '-q', '--recipe', $recipe, '--imatrix', "$dir/im.gguf")->{out};
    my %type = $dry =~ /^(\S+\.weight) +(\w+) +\d+$/mg;
    is_deeply([@type{qw(blk.9.ffn_gate_exps.weight blk.3.ffn_down_exps.weight blk.9.ffn_down_exps.weight)}], $want{$recipe}, 'types of the experts');
    like(run_ok('verify', $SLUICE, 'verify', $file, '--source', $source, '--imatrix', "$dir/im.gguf", '--sample', '2%')->{out}, qr/made again.*same bytes/, 'blocks made again');
}
$r = run(python('llama.py', 'load', @files));
my %text = map { $_->{file} => scalar @{ $_->{tokens} // [] } } eval { json_lines($r->{out}) };
is_deeply([map { $text{$_} } @files], [(8) x @files], 'llama.cpp loads each and makes 8 tokens') or diag("$r->{out}$r->{err}");
fails('without the imatrix', 2, qr/recipe ud-iq1_s needs an importance matrix/, $SLUICE, 'convert', $source, '-o', "$dir/no.gguf", '--recipe', 'ud-iq1_s');

done_testing();
