# Readers that are not llama.cpp's loader: Hugging Face's (its site, and the names that
# Ollama and vLLM pull by), the names and types that vLLM and transformers go by, and what
# `ollama create` does to a split set. What was run by hand: tests/READERS.md.
use strict;
use warnings;
use SluiceTest;
use Test::More;

need_llama();
my $dir = scratch();
my @im = ('--imatrix', "$TINY/imatrix.legacy-layout.dat");
my @recipes = map { /^(\S+)/ } grep { !/^copy\b/ } split /\n/, run_ok('recipes', $SLUICE, 'recipes')->{out};
cmp_ok(scalar @recipes, '>', 30, 'all stock recipes');

sub hf {
    my $r = run('node', "$TOP/tests/tools/hf_gguf.js", @_);
    absent("Hugging Face's reader: $r->{err}") if $r->{rc} == 3 || $r->{rc} == 127;
    return json_lines($r->{out});
}

# ---- files with every type, of every architecture, and a split set
my %checkpoint = (tiny => $TINY, map { $_ => checkpoint(scratch(), '--arch', $_) } qw(qwen2 llama));
my %type = (0 => 'f32', 1 => 'f16', 2 => 'q4_0', 3 => 'q4_1', 6 => 'q5_0', 7 => 'q5_1', 8 => 'q8_0', 10 => 'q2_k', 11 => 'q3_k', 12 => 'q4_k',
    13 => 'q5_k', 14 => 'q6_k', 16 => 'iq2_xxs', 17 => 'iq2_xs', 18 => 'iq3_xxs', 19 => 'iq1_s', 20 => 'iq4_nl', 21 => 'iq3_s', 22 => 'iq2_s',
    23 => 'iq4_xs', 29 => 'iq1_m', 30 => 'bf16');
my @one_each = grep { !/^b?f(16|32)$/ } map { $type{$_} } sort { $a <=> $b } keys %type;
my @many = ('--tensor-type', '^output=f16');
for my $layer (0 .. 3) {
    push @many, map { my $type = shift @one_each; $type ? ('--tensor-type', "blk\\.$layer\\.$_=$type") : () } qw(attn_q_a\. attn_q_b attn_kv_a_mqa attn_kv_b attn_output);
}
my %file;
for my $c (['tiny', 'legacy', 'bf16', @im, @many], ['tiny', 'legacy', 'dq3_k_m'], ['tiny', 'mla', 'q4_k_m'], ['qwen2', 'mla', 'q2_k'], ['llama', 'mla', 'q8_0']) {
    my ($model, $layout, $recipe, @with) = @$c;
    my $f = $file{"$model $layout $recipe"} = "$dir/$model-$layout-$recipe.gguf";
    run_ok("$model $layout $recipe", $SLUICE, 'convert', $checkpoint{$model}, '-o', $f, '-q', '--recipe', $recipe, '--layout', $layout, @with);
}
my $set = scratch();
run_ok('a split set', $SLUICE, 'convert', $TINY, '-o', "$set/", '-q', '--recipe', 'dq3_k_m', '--layout', 'legacy', '--split-max-size', '4M');
my @parts = sort glob "$set/*.gguf";
is_deeply([map { m{([^/]+)$} } @parts], [map { "tiny-8x12M-v3-DQ3_K_M-0000$_-of-0000" . @parts . '.gguf' } 1 .. @parts], 'names as Hugging Face and Ollama want them');

# ---- Hugging Face's reader sees the same tensors at the same places, and the metadata
sub places { return [map { [$_->[0], $type{ $_->[3] }, $_->[1] + 0] } where($_[0])] }

my %seen;
for my $r (hf('read', (sort values %file), @parts)) {
    my ($name) = $r->{file} =~ m{([^/]+)$};
    is_deeply([map { [@$_[0, 1, 3]] } @{ $r->{tensors} // [] }], places($r->{file}), "$name: Hugging Face's reader") or diag($r->{error});
    $seen{ $_->[1] }++ for @{ $r->{tensors} };
    my $m = $r->{metadata};
    if (my ($no, $of) = $name =~ /-0000(\d)-of-0000(\d)\.gguf$/) {
        is_deeply([@$m{qw(split.no split.count)}], [$no - 1, $of], "$name: its split keys are its name's");
        next if $no > 1;
    }
    my ($arch) = $name =~ /^(qwen2|llama)/;
    is($m->{'general.architecture'}, $arch // 'deepseek2', "$name: architecture");
    is($m->{'tokenizer.ggml.tokens'}, $arch ? 512 : 4096, "$name: vocabulary");
}
is_deeply([grep { !$seen{$_} } values %type], [], 'of all types');
my ($whole) = hf('set', $parts[0]);
is($whole->{weights}, 20400664, 'the set by its first name: all weights') or diag($whole->{error});

my $f = $file{'qwen2 mla q2_k'};
my @first = grep { $_->[0] eq 'output.weight' } where($f);
my $header = slurp($f);
flip_byte($f, index($header, 'output.weight') + 13 + 4 + 16, 4); # its type, q6_k, becomes q2_k
my ($r) = hf('read', $f);
isnt($r->{tensors}[0][1], $type{ $first[0][3] }, 'another type would be noticed');
flip_byte($f, index($header, 'output.weight') + 13 + 4 + 16, 4);

# ---- the quantization that its site reads in a name, which Ollama's hf.co/USER/REPO:LABEL takes
my %other = (dq3_k_m => 'Q3_K_M', 'uniform-q3_k' => undef, 'uniform-q4_k' => undef, q2_k_l => 'Q2_K_L', 'v4-mxfp4' => 'MXFP4_MOE', 'nvfp4-kept' => 'NVFP4');
my @names = map { run($SLUICE, 'plan', $TINY, '--json', '--recipe', $_, '--layout', 'legacy', '--split-max-size', 0, @im)->{out} =~ /"name":"([^"]+\.gguf)"/ ? $1
    : "no plan of $_" } @recipes;
my %label = map { $_->{name} => $_->{label} } hf('label', @names);
for my $i (0 .. $#recipes) {
    my $recipe = $recipes[$i];
    is($label{ $names[$i] }, exists $other{$recipe} ? $other{$recipe} : uc $recipe, "$names[$i]: its label");
}

# ---- vLLM, transformers: every name of the checkpoint leads to a tensor of its shape
sub found {
    my ($name, $source, @of) = @_;
    my ($l) = json_lines(run_ok($name, python('tensor_names.py', $source, @of))->{out});
    return $l;
}
for my $k ('tiny legacy dq3_k_m', 'qwen2 mla q2_k', 'llama mla q8_0') {
    my ($model) = split / /, $k;
    my $l = found("$k: names", $checkpoint{$model}, $file{$k});
    my $other = $model eq 'llama' ? ['rope_freqs.weight'] : [];
    is_deeply([@$l{qw(absent shape other)}], [[], [], $other], "$k: each name has its tensor");
}
is_deeply([@{ found('the set: names', $TINY, @parts) }{qw(absent shape other)}], [[], [], []], 'in the split set, too');
my $l = found('mla: names', $TINY, $file{'tiny mla q4_k_m'});
is_deeply($l->{absent}, [map { "model.layers.$_.self_attn.kv_b_proj.weight" } 0 .. 3], 'the mla layout has no kv_b_proj: vLLM needs the legacy one');
is(scalar @{ found('another model: names', $checkpoint{qwen2}, $file{'llama mla q8_0'})->{absent} }, 6, 'absent tensors are noticed');

# ---- vLLM multiplies these at once: experts' gate and up have one type for both, and no group mixes
# quantized and plain tensors. Every stock recipe, on every kind of model.
my %kernels = reverse %type;
my @groups = (['ffn_gate', 'ffn_up'], ['ffn_gate_shexp', 'ffn_up_shexp'], ['attn_q_a', 'attn_kv_a_mqa'], ['attn_q', 'attn_k', 'attn_v']);
sub unlike_types {
    my %t = @_;
    my @bad = grep { !exists $kernels{ $t{$_} } } keys %t;
    for my $l (0 .. 60) {
        my ($gate, $up) = @t{"blk.$l.ffn_gate_exps.weight", "blk.$l.ffn_up_exps.weight"};
        push @bad, "blk.$l experts: $gate $up" if ($gate // '') ne ($up // '');
        for my $g (@groups) {
            my %plain = map { ($_ =~ /^b?f\d+$/ ? 1 : 0) => 1 } grep { defined } @t{ map { "blk.$l.$_.weight" } @$g };
            push @bad, "blk.$l: @$g" if keys %plain > 1;
        }
    }
    return \@bad;
}
my @plain = qw(q4_k_m q3_k_l q2_k q2_k_l dq3_k_m ud-q2_k_xl iq4_xs iq3_m q5_k_s); # no imatrix needed
for my $c (['tiny', 'legacy', @im], ['tiny', 'mla'], ['qwen2', 'mla'], ['llama', 'mla']) {
    my ($model, $layout, @with) = @$c;
    my @wrong;
    for my $recipe (grep { !/^(?:mxfp4_moe|t?q[12]_0)$/ } @with ? @recipes : @plain) { # which are no types of theirs
        my $dry = run($SLUICE, 'convert', $checkpoint{$model}, '-o', "$dir/x.gguf", '-n', '-q', '--recipe', $recipe, '--layout', $layout, @with)->{out};
        my %t = $dry =~ /^(\S+\.(?:weight|bias)) +(\w+) +\d+$/mg;
        push @wrong, "$recipe: nothing planned" if keys %t < 20;
        push @wrong, map { "$recipe: $_" } @{ unlike_types(%t) };
    }
    is_deeply(\@wrong, [], "$model, $layout: fused tensors have types that go together");
}
is_deeply(unlike_types('blk.3.ffn_gate_exps.weight' => 'q2_k', 'blk.3.ffn_up_exps.weight' => 'q3_k', 'blk.1.ffn_gate.weight' => 'f16',
    'blk.1.ffn_up.weight' => 'q4_k', 'blk.0.attn_norm.weight' => 'tq1_0')->[0], 'blk.0.attn_norm.weight', 'another type is noticed');
is(scalar @{ unlike_types('blk.3.ffn_gate_exps.weight' => 'q2_k', 'blk.3.ffn_up_exps.weight' => 'q3_k', 'blk.1.ffn_gate.weight' => 'f16',
    'blk.1.ffn_up.weight' => 'q4_k') }, 2, 'and so are mixed groups');

# ---- one file of a set: `ollama create` has llama-quantize copy it; ours for the other readers
my $single = hashes($file{'tiny legacy dq3_k_m'});
run_ok("llama-quantize's COPY of the set", python('llama.py', 'quantize', $parts[0], "$dir/theirs.gguf", 'COPY'));
is_deeply(hashes("$dir/theirs.gguf"), $single, 'the tensors of the conversion to one file');
run_ok("Sluice's COPY of the set", $SLUICE, 'quantize', $parts[0], "$dir/ours.gguf", 'COPY', '-q');
is_deeply(hashes("$dir/ours.gguf"), $single, 'and these too');
run_ok('with checksums of its own', $SLUICE, 'verify', "$dir/ours.gguf");
is(run($SLUICE, 'diff', '-q', $parts[0], "$dir/theirs.gguf")->{rc}, 1, 'diff takes a set and a file');
like(run($SLUICE, 'diff', $parts[0], "$dir/theirs.gguf")->{out}, qr/^66 tensors equal, 0 different/m, 'and finds the tensors equal');

# verify does not call damage what another program wrote anew, and still finds damage there.
like(run($SLUICE, 'verify', "$dir/theirs.gguf")->{out}, qr/another program made it of a file of Sluice's: it has 66 tensors, its checksums are of \d+; .*sluice diff/,
    'verify of their merged file');
run_ok("llama-quantize's COPY of one file", python('llama.py', 'quantize', $file{'tiny legacy dq3_k_m'}, "$dir/copy.gguf", 'COPY'));
$r = run($SLUICE, 'verify', "$dir/copy.gguf");
like($r->{out}, qr/another program wrote this header anew: \d+ of its records are not where Sluice had them/, 'verify of their copy');
unlike($r->{out}, qr/tensor blk/, 'whose tensors are right');
run_ok('a file to be quantized by others', $SLUICE, 'convert', $checkpoint{qwen2}, '-o', "$dir/f32.gguf", '-q', '--recipe', 'f32');
for my $how (['Q4_K_M'], ['F16', '--prune-layers', '1']) {
    run_ok("llama-quantize's @$how", python('llama.py', 'quantize', "$dir/f32.gguf", "$dir/quantized.gguf", @$how));
    like(run($SLUICE, 'verify', "$dir/quantized.gguf")->{out}, qr/\AFAILED  \S+: another program made it of a file of Sluice's: \d+ of its \d+ tensors have other types or places.*\n\z/,
        'verify of that: one line, and nothing is damaged');
}
my ($t) = grep { $_->[0] eq 'blk.1.attn_q_b.weight' } where("$dir/copy.gguf");
flip_byte("$dir/copy.gguf", $t->[1] + 100, 1);
like(run($SLUICE, 'verify', "$dir/copy.gguf")->{out}, qr/tensor blk\.1\.attn_q_b\.weight: checksum/, 'and one wrong bit in them is found');

done_testing();
