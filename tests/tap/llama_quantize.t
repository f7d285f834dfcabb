# llama-quantize's command line, option by option: what `sluice quantize` makes of a
# line equals, tensor by tensor and key by key, what a real llama-quantize makes of it.
use strict;
use warnings;
use SluiceTest;
use Test::More;

need_llama();
my $golden = run(python('llama.py', 'golden', "$TOP/tests/golden"));
plan(skip_all => "llama.cpp's package gives other bytes than tests/golden") if $golden->{out} !~ /"different": \[\]/;

my $dir = scratch();
my $source = checkpoint(scratch(), '--layers', '9', '--experts', '4', '--hidden', '256', '--inter', '512', '--groups', '2');
run_ok('F32', $SLUICE, 'convert', $source, '-o', "$dir/f32.gguf", '--recipe', 'f32', '-q');
run_ok('in parts', $SLUICE, 'convert', $source, '-o', "$dir/parts.gguf", '--recipe', 'f32', '-q', '--split-max-size', '4M');
my ($parts) = glob "$dir/parts-00001-of-*.gguf";
my @no_128 = ('--tensor-type', 'attn_k_b=q4_0'); # its rows have 64
for my $t (qw(Q8_0 Q4_K_M Q5_1 Q3_K_L IQ4_XS MXFP4_MOE Q1_0 Q2_0 TQ1_0 TQ2_0)) {
    run_ok("a source in $t", $SLUICE, 'quantize', "$dir/f32.gguf", "$dir/$t.gguf", $t, '-q', $t eq 'Q1_0' ? @no_128 : ());
}
# Rows of 72 and 40 weights, which no block of 32 divides; and 1 head: its dimension of 1 is not written.
my $odd = checkpoint(scratch(), '--layers', '3', '--experts', '4', '--hidden', '72', '--inter', '40', '--heads', '1', '--kv-heads', '1');
run_ok('rows of 72', $SLUICE, 'convert', $odd, '-o', "$dir/odd.gguf", '--recipe', 'f32', '-q');
# Sources without general.file_type.
run_ok('most tensors in mxfp4', $SLUICE, 'quantize', '--pure', "$dir/f32.gguf", "$dir/pure-MXFP4.gguf", 'MXFP4_MOE', '-q');
my @untyped = qw(f32 Q4_K_M Q8_0 IQ4_XS Q1_0 TQ2_0 pure-MXFP4);
spit("$dir/untyped-$_.gguf", slurp("$dir/$_.gguf") =~ s/general\.file_type/general.file_was./r) for @untyped;
# Names that end with "weight" without a dot are weights to llama-quantize.
spit("$dir/dotless.gguf", slurp("$dir/f32.gguf") =~ s/attn_q_a\.weight/attn_q_a_weight/gr);
# A second table of embeddings, as in Gemma: --token-embedding-type is for it too, unless a pattern names it.
spit("$dir/perlayer.gguf", slurp("$dir/f32.gguf") =~ s/blk\.1\.ffn_down_shexp\.weight/per_layer_token_embd.weight/gr);
my $im = "$dir/im.gguf";
run_ok('an imatrix', python('make_imatrix.py', "$dir/f32.gguf", $im));

# Sluice's own keys are only in its file; all the others are the same on both sides.
sub other_keys {
    my ($theirs, $ours) = @_;
    my @lines = json_lines(run($SLUICE, 'diff', '--json', '-q', $theirs, $ours)->{out});
    return map { $_->{key} } grep { $_->{message_type} eq 'diff_metadata' && $_->{key} !~ /^sluice\./ } @lines;
}

my @cases = (
    ['Q4_K', [], 'f32', 'q4_k', 'the alias Q4_K'],
    ['Q3_K_M', [], 'f32', 'Q3_k', 'the alias Q3_K'],
    ['Q5_K_M', [], 'f32', 'Q5_K', 'the alias Q5_K'],
    ['Q4_K_M', [], 'f32', '15', 'a number'],
    ['F16', [], 'f32', '1', 'another number'],
    ['Q2_K', ['--pure'], 'f32'],
    ['Q4_K_M', ['--leave-output-tensor'], 'f32'],
    ['Q3_K_M', ['--output-tensor-type', 'q5_k', '--token-embedding-type', 'Q8_0'], 'f32'],
    ['Q5_K_S', ['--tensor-type', 'ATTN_q_b=q8_0', '--tensor-type', 'blk\.[1-3]\.ffn_(up|gate)=iq4_nl', '--tensor-type', 'ffn_up=q2_k'], 'f32'],
    ['Q3_K_S', ['--pure', '--tensor-type', 'attn=q6_k'], 'f32'],
    ['Q3_K_S', ['--tensor-type', '[]a]=q6_k', '--tensor-type', '[^]ffn_up=q8_0', '--tensor-type', '\\D{9}[A-z]_\\S=q5_0'], 'f32', undef, 'patterns as it reads them'],
    ['Q4_K_M', ['--prune-layers', '3,5,4'], 'f32'],
    ['Q4_K_M', ['--prune-layers', '0'], 'f32'],
    ['Q6_K', ['--override-kv', 'general.name=str:Another', '--override-kv', 'new.number=int:7', '--override-kv', 'new.yes=bool:true', '--override-kv', 'new.half=float:0.5'], 'f32'],
    ['Q4_K_M', ['--override-kv', 'deepseek2.block_count=int:40'], 'f32', undef, "rules by --override-kv's number of layers"],
    ['Q3_K_M', ['--prune-layers', '1', '--override-kv', 'general.name=str:Another'], 'f32'],
    ['Q8_0', [], 'odd'],
    ['Q4_K_M', ['--tensor-type', 'ffn_down=q5_0'], 'odd'],
    ['Q4_K_M', ['--allow-requantize'], 'Q8_0'],
    ['Q2_K', ['--allow-requantize'], 'Q4_K_M'],
    ['F16', ['--allow-requantize'], 'Q3_K_L'],
    ['Q4_0', ['--allow-requantize', '--leave-output-tensor'], 'Q5_1'],
    ['Q8_0', ['--allow-requantize'], 'IQ4_XS'],
    ['MXFP4_MOE', [], 'odd'],
    ['MXFP4_MOE', ['--pure', '--imatrix', $im], 'f32'],
    ['Q4_K_M', ['--tensor-type', 'attn_(q|k)_b=mxfp4', '--output-tensor-type', 'mxfp4', '--token-embedding-type', 'mxfp4'], 'f32'],
    ['MXFP4_MOE', ['--allow-requantize', '--tensor-type', 'attn_k_b=q8_0'], 'MXFP4_MOE'],
    ['Q4_K_M', ['--allow-requantize'], 'MXFP4_MOE'],
    ['Q2_0', ['--pure', '--tensor-type', 'ffn_down=tq1_0', '--tensor-type', 'attn_q=q1_0'], 'f32'],
    ['TQ2_0', ['--token-embedding-type', 'q2_0', '--output-tensor-type', 'tq2_0'], 'f32'],
    ['TQ1_0', ['--imatrix', $im], 'f32'],
    ['Q2_0', [], 'odd'],
    ['Q4_K_M', ['--allow-requantize'], 'Q1_0'],
    ['Q1_0', ['--allow-requantize', @no_128], 'Q2_0'],
    ['Q2_0', ['--allow-requantize'], 'TQ1_0'],
    ['TQ1_0', ['--allow-requantize'], 'TQ2_0'],
    ['COPY', [], 'Q4_K_M'],
    ['COPY', ['--override-kv', 'general.name=str:Copied'], 'f32'],
    (map { ['COPY', [], "untyped-$_"] } @untyped),
    ['COPY', ['--prune-layers', '0,1,2,3,4,5,6'], 'untyped-Q8_0'],
    ['COPY', ['--override-kv', 'general.file_type=int:7'], 'untyped-f32'],
    ['Q2_K', [], 'untyped-f32'],
    ['Q4_K_M', [], 'dotless'],
    ['Q4_K_M', ['--token-embedding-type', 'q8_0', '--tensor-type', 'per_layer=q4_0'], 'perlayer'],
    ['Q4_K_M', ['--token-embedding-type', 'q8_0', '--tensor-type', 'shexp=q4_0'], 'perlayer'],
    ['Q4_K_M', ['--imatrix', $im], 'f32'],
    ['IQ3_XXS', ['--imatrix', $im, '--prune-layers', '2,6'], 'f32'],
    ['Q2_K', ['--imatrix', $im, '--include-weights', 'ffn', '--include-weights', 'attn_output'], 'f32'],
    ['Q2_K', ['--imatrix', $im, '--exclude-weights', 'exps', '--exclude-weights', 'blk.1.'], 'f32'],
);
for my $c (@cases) {
    my ($type, $options, $from, $typed, $name) = @$c;
    my $real = $type eq 'Q4_K' ? 'Q4_K_M' : $type;
    $name //= join ' ', "$from to $type", map { s{.*/}{}r } @$options;
    my $theirs = run(python('llama.py', 'quantize', "$dir/$from.gguf", "$dir/theirs.gguf", $real, @$options));
    my $ours = run($SLUICE, 'quantize', @$options, "$dir/$from.gguf", "$dir/ours.gguf", $typed // $type, '2', '-q', '-f');
    ok(!$theirs->{rc} && !$ours->{rc}, $name) or diag($theirs->{out}, $ours->{err}), next;
    is_deeply(hashes("$dir/ours.gguf"), hashes("$dir/theirs.gguf"), "$name: the same tensors");
    # llama.py calls the library; the program itself adds the imatrix's keys.
    is_deeply([grep { !/^quantize\.imatrix\./ } other_keys("$dir/theirs.gguf", "$dir/ours.gguf")], [], "$name: the same metadata");
    my $v = run($SLUICE, 'verify', "$dir/ours.gguf", '--source', "$dir/$from.gguf", '--sample', '20', grep({ /imatrix|\Q$im\E/ } @$options));
    is($v->{rc}, 0, "$name: verified against its source") or diag($v->{out}, $v->{err});
    unlink "$dir/theirs.gguf", "$dir/ours.gguf";
}

# What one refuses the other refuses.
for my $c (['Q1_0', 'f32', qr/attn_k_b.weight: rows of 64 weights do not divide into q1_0's blocks of 128/], ['Q4_K_M', 'Q8_0', qr/output\.weight: it is q8_0 .*--allow-requantize/], ['Q2_K', 'Q4_K_M', qr/--allow-requantize/],
    ['IQ2_XXS', 'f32', qr/--imatrix/], ['Q2_K_S', 'f32', qr/--imatrix/]) {
    my ($type, $from, $why) = @$c;
    isnt(run(python('llama.py', 'quantize', "$dir/$from.gguf", "$dir/theirs.gguf", $type))->{rc}, 0, "$from to $type: llama-quantize refuses");
    fails("and so does Sluice", 2, $why, $SLUICE, 'quantize', "$dir/$from.gguf", "$dir/ours.gguf", $type);
    ok(!-e "$dir/ours.gguf", 'and makes nothing');
}

# Another alignment: llama-quantize copies the key, and then nothing reads the file. And types that are only copied.
{
    my $write = 'import gguf, sys, numpy as np; r = gguf.GGUFReader(sys.argv[1]); w = gguf.GGUFWriter(sys.argv[2], "llama"); '
        . 'w.add_custom_alignment(4096); w.add_block_count(1); '
        . '[w.add_tensor(t.name, t.data) for t in r.tensors if t.name.startswith(("token_embd", "output"))]; '
        . '[w.add_tensor("x." + t, np.arange(20000, dtype=t)) for t in ("int32", "float64")]; '
        . 'w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()';
    run_ok('an alignment of 4096', "$TOP/build/venv/bin/python", '-c', $write, "$dir/f32.gguf", "$dir/aligned.gguf");
    fails('verify of what has no checksums', 3, qr/not all was checked/, $SLUICE, 'verify', "$dir/aligned.gguf");
    run_ok('against all of a source', $SLUICE, 'verify', "$dir/aligned.gguf", '--source', "$dir/aligned.gguf", '--sample', 'all');
    run_ok('is taken', $SLUICE, 'quantize', "$dir/aligned.gguf", "$dir/ours.gguf", 'Q8_0', '-q', '-f');
    run_ok('and right', $SLUICE, 'verify', "$dir/ours.gguf", '--source', "$dir/aligned.gguf", '--sample', 'all');
    is(run($SLUICE, 'inspect', "$dir/ours.gguf", '--kv', 'general.alignment')->{rc} ? 'absent' : 'there', 'absent', 'without the key');
}

# Parts as the input's, a first one that has no tensors among them.
run_ok('a first part without tensors', $SLUICE, 'quantize', $parts, "$dir/none.gguf", 'COPY', '--split-max-tensors', 50, '--no-tensor-first-split', '-q');
for my $first ($parts, glob "$dir/none-00001-of-*.gguf") {
    my ($n) = $first =~ /of-0*(\d+)/;
    run_ok('llama-quantize --keep-split', python('llama.py', 'quantize', $first, "$dir/kt$n", 'Q4_K_M', '--keep-split'));
    run_ok('--keep-split', $SLUICE, 'quantize', '--keep-split', $first, "$dir/ko$n", 'Q4_K_M', '-q');
    my @theirs = sort glob "$dir/kt$n-*.gguf";
    my @ours = sort glob "$dir/ko$n-*.gguf";
    ok(@theirs == $n && @ours == $n, 'as many parts');
    is_deeply(hashes($ours[$_]), hashes($theirs[$_]), "part " . ($_ + 1)) for 0 .. $#theirs;
}

done_testing();
