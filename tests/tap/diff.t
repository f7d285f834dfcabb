# `sluice diff` and `sluice inspect`: what they say, what they exit with, and
# that a stranger's names do no harm on a terminal.
use strict;
use warnings;
use SluiceTest;
use Test::More;

my $dir = scratch();
my ($a, $b, $f32, $bf16) = map { "$dir/$_.gguf" } qw(a b f32 bf16);
run_ok("convert to $_->[1]", $SLUICE, 'convert', $TINY, '-o', $_->[0], '--recipe', $_->[1])
    for [$a, 'q4_k_m'], [$b, 'q8_0'], [$f32, 'f32'], [$bf16, 'bf16'];

# Equal.
my $r = run_ok('a file and itself', $SLUICE, 'diff', $a, $a);
like($r->{out}, qr/^70 tensors equal, 0 different, 0 only in A, 0 only in B; 0 metadata keys different$/m, 'all of it');
run_ok('a checkpoint and its F32 file: the same values', $SLUICE, 'diff', $TINY, $f32);
run_ok('the other way round', $SLUICE, 'diff', $f32, $TINY);
my $parts = scratch();
run_ok('in parts', $SLUICE, 'convert', $TINY, '-o', "$parts/p.gguf", '--recipe', 'q4_k_m', '--split-max-size', '4M');
run_ok('one file and parts of the same', $SLUICE, 'diff', $a, glob("$parts/*-00001-of-*.gguf"), '--tensors-only');
run_ok('a folder of parts', $SLUICE, 'diff', $a, $parts, '--tensors-only');
my $legacy = scratch() . '/l.gguf';
run_ok('the other layout', $SLUICE, 'convert', $TINY, '-o', $legacy, '--recipe', 'f32', '--layout', 'legacy');
run_ok('a checkpoint is laid out as the file is', $SLUICE, 'diff', $legacy, $TINY, '--tensors-only');

# Different.
$r = run($SLUICE, 'diff', $TINY, $a);
is($r->{rc}, 1, 'a quantized file differs from its source');
# A checkpoint's folder that also holds a GGUF file: which of the two is meant is not guessed.
my $both = copy_checkpoint($TINY, "$dir/both");
link $a, "$both/a.gguf" or die "$both: $!";
fails("$_: a folder of both", 2, qr/both: holds a checkpoint and a\.gguf; name that file, or the checkpoint's index/, $SLUICE, $_, $both, $_ eq 'diff' ? $a : ())
    for 'diff', 'inspect';
is(run($SLUICE, 'diff', "$both/model.safetensors.index.json", $a)->{rc}, 1, 'the checkpoint by its index');
run_ok('verify means the file', $SLUICE, 'verify', $both, '--source', $both);
my ($error) = $r->{out} =~ /^type +F8_E4M3 -> q4_k  blk\.0\.attn_q_a\.weight .* relative ([\d.e-]+) /m;
cmp_ok($error // 0, '>', 0.03, 'by a few percent');
cmp_ok($error // 1, '<', 0.12, 'not more');
my @lines = json_lines(run($SLUICE, 'diff', '--json', $TINY, $b)->{out});
my ($sum) = grep { $_->{message_type} eq 'diff' } @lines;
cmp_ok($sum->{types}{q8_0}{relative}, '<', 0.01, 'q8_0 is near');
cmp_ok($sum->{types}{q8_0}{cosine}, '>', 0.9999, 'and points the same way');
$r = run($SLUICE, 'diff', $legacy, $f32, '--tensors-only');
like($r->{out}, qr/^only in A  f32  blk\.0\.attn_kv_b\.weight$/m, 'a tensor of A alone');
like($r->{out}, qr/^only in B  f32  blk\.0\.attn_k_b\.weight$/m, 'a tensor of B alone');
is($r->{rc}, 1, 'exit 1');

# Two checkpoints: one value.
my $other = copy_checkpoint($TINY, "$dir/other", 'model-00001-of-00003.safetensors');
flip_byte("$other/model-00001-of-00003.safetensors", -2 + -s "$other/model-00001-of-00003.safetensors", 1);
$r = run($SLUICE, 'diff', $TINY, $other, '--tensors-only');
like($r->{out}, qr/^values +BF16  \S+  rmse/m, 'of two checkpoints the values differ, not the type');
like($r->{out}, qr/^69 tensors equal, 1 different/m, 'of one tensor');

# One byte.
my $c = "$dir/c.gguf";
spit($c, slurp($a));
my ($t) = grep { $_->[0] eq 'blk.2.ffn_up_exps.weight' } where($a);
flip_byte($c, $t->[1] + 144 * 100 + 50, 1);
$r = run($SLUICE, 'diff', $a, $c);
is($r->{rc}, 1, 'one byte');
like($r->{out}, qr/^bytes +q4_k  blk\.2\.ffn_up_exps\.weight  from block 100  rmse/m, 'its tensor and block');
like($r->{out}, qr/^69 tensors equal, 1 different/m, 'and no other');
like(run($SLUICE, 'diff', $a, $c, '--tensor', '*attn*')->{out}, qr/ 0 different/, '--tensor leaves it out');
run_ok('-t with a pattern of B alone is none of nothing', 'sh', '-c', "$SLUICE diff $legacy $f32 --tensors-only -t '*attn_k_b*'; test \$? = 1");
fails("-t $_ matches nothing", 2, qr/--tensor '\Q$_\E': no tensor of .*a\.gguf or .*c\.gguf .* inspect/, $SLUICE, 'diff', $a, $c, '-t', $_)
    for 'attn', '*.atn_output.*', '';
is(run($SLUICE, 'diff', $a, $c, '-t', 'attn', '--json')->{out}, '', 'and says nothing on standard output');
is(run($SLUICE, 'diff', $a, "$dir/none.gguf")->{rc}, 7, 'no such file');
is(run($SLUICE, 'diff', $a)->{rc}, 2, 'one argument');

# inspect
$r = run_ok('inspect', $SLUICE, 'inspect', $a);
like($r->{out}, qr/^q6_k +\d+ +\d+ +[\d.]+ MB  6\.56/m, 'bits per weight');
like($r->{out}, qr/tokenizer\.ggml\.tokens \(arr str\) = \[.*, \.\.\. of 4096\]$/m, 'a long array is shortened');
is(run($SLUICE, 'inspect', $a, '--kv', 'general.architecture')->{out}, "deepseek2\n", 'one value');
is(run($SLUICE, 'inspect', $a, '--kv', 'no.such')->{rc}, 1, 'no such key');
fails("nearly a key: $_->[0]", 1, qr/no metadata key $_->[0]; did you mean $_->[1]\?/, $SLUICE, 'inspect', $a, '-k', $_->[0])
    for ['general.nam', 'general.name'], ['block_count', 'deepseek2.block_count'];
my ($j) = json_lines(run($SLUICE, 'inspect', $a, '--json')->{out});
is(scalar @{ $j->{tensors} }, 70, 'JSON: every tensor');
is(scalar(grep { $_->{key} eq 'general.file_type' && $_->{value} == 15 } @{ $j->{files}[0]{metadata} }), 1,
    'JSON: metadata');
my @names = map { $_->{name} } @{ $j->{tensors} };
$r = run_ok('a value and the tensors', $SLUICE, 'inspect', $a, '-k', 'general.architecture', '-t');
is($r->{out}, "deepseek2\n" . run($SLUICE, 'inspect', $a, '-t')->{out}, 'the value, then the list');
is(scalar(() = $r->{out} =~ /\n/g), 71, 'and nothing else');
($j) = json_lines(run($SLUICE, 'inspect', $a, '-t', '--json')->{out});
is_deeply([(sort keys %$j), map { $_->{name} } @{ $j->{tensors} }], [qw(message_type schema tensors time), @names], 'JSON: the tensors alone');
($j) = json_lines(run($SLUICE, 'inspect', $a, '--json', '-t', '-k', 'general.architecture')->{out});
is_deeply([@$j{qw(key value)}, scalar @{ $j->{tensors} }], ['general.architecture', 'deepseek2', 70], 'JSON: a value and the tensors');
my $evil = "\e]0;x\a\e[31m\x9b\xff\n\0z";
my $gguf = 'GGUF' . pack('VQ<Q<', 3, 0, 2);
$gguf .= pack('Q</a*VQ</a*', "key\e[2J", 8, $evil) . pack('Q</a*VVQ<Q</a*', 'list', 9, 8, 1, $evil);
spit("$dir/evil.gguf", $gguf);
$r = run_ok('names from a stranger', $SLUICE, 'inspect', "$dir/evil.gguf");
unlike($r->{out}, qr/[\0-\x09\x0b-\x1f\x7f\x9b\xff]/, 'no control characters');
like($r->{out}, qr/\\x1b\]0;x\\x07/, 'they are shown');
ok(eval { json_lines(run($SLUICE, 'inspect', '--json', "$dir/evil.gguf")->{out}) }, 'valid JSON');

done_testing();
