# tiny-v3 under every mixture and both layouts: each tensor's bytes are those
# that llama-quantize wrote (tests/tiny-v3/golden), in every form of output.
use strict;
use warnings;
use SluiceTest;
use Test::More;

sub differences {
    my ($got, $want) = @_;
    return ["gguf_hash: $got->{error}"] if $got->{error};
    my %names = map { $_ => 1 } keys %$got, keys %$want;
    return [map { sprintf '%s: %s, expected %s', $_, $got->{$_} // 'missing', $want->{$_} // 'none' }
            grep { ($got->{$_} // '') ne ($want->{$_} // '') } sort keys %names];
}

sub same_tensors {
    my ($name, $want, @files) = @_;
    my $bad = differences(hashes(@files), $want);
    ok(%$want && !@$bad, $name) or diag(join "\n", @$bad[0 .. ($#$bad < 9 ? $#$bad : 9)]);
}

my %rules = (legacy => '2025', mla => '2026');
my @quick = qw(Q4_K_M Q2_K Q8_0);
for my $layout (sort keys %rules) {
    for my $path (glob "$TINY/golden/$layout/*.xxh64") {
        my ($recipe) = $path =~ m{([^/]+)\.xxh64$};
        next if $QUICK && !grep { $_ eq $recipe } @quick;
        my $dir = scratch();
        run_ok("$layout $recipe", $SLUICE, 'convert', $TINY, '-o', "$dir/x.gguf", '--recipe', lc $recipe,
            '--layout', $layout, '--rules', $rules{$layout});
        same_tensors("$layout $recipe: every tensor is llama-quantize's", golden($path), "$dir/x.gguf");
        is(eval { whole_hash("$dir/x.gguf.xxh64") }, whole_hash($path), "$layout $recipe: manifest, whole file");
        is_deeply([ls($dir)], ['x.gguf', 'x.gguf.xxh64'], "$layout $recipe: nothing else is left");
        unlink glob "$dir/*";
    }
}

my $want = golden("$TINY/golden/mla/Q4_K_M.xxh64");
my $one  = scratch() . '/one.gguf';
like(run_ok('one file', $SLUICE, 'convert', $TINY, '-o', $one, '--recipe', 'q4_k_m')->{err},
    qr/\Asluice: \S+ MB in 1 file from \S+ MB in \S+ s; every task checked on disk; peak memory \S+ MB\n\z/, 'one line says so');
my $sum = sha256($one);

# However the work is done, the file is the same.
for my $how (['--threads', '1'], ['--threads', '3'], ['--io', 'pread'], ['--io', 'uring'], ['--mem', '64Mi'],
             ['--task-size', '200K'], ['--direct', 'on'], ['--direct', 'off'], ['--backend', 'scalar'],
             ['--backend', 'portable'], ['--backend', 'avx2'], ['--backend', 'avx512'],
             ['--io', 'pread', '--threads', '3', '--task-size', '1M']) {
    my $file = scratch() . '/one.gguf';
    my $r = run($SLUICE, 'convert', $TINY, '-o', $file, '--recipe', 'q4_k_m', @$how);
  SKIP: {
        skip "@$how: $r->{err}", 1 if $r->{rc} == 6;
        is($r->{rc} ? "exit $r->{rc}: $r->{err}" : sha256($file), $sum, "@$how: the same file");
    }
}

# Split output: names, parts, keys, manifests.
my $dir = scratch();
run_ok('split by size', $SLUICE, 'convert', $TINY, '-o', "$dir/s.gguf", '--recipe', 'Q4_K_M',
    '--split-max-size', '4M');
my @parts = sort grep { /\.gguf$/ } ls($dir);
ok(@parts >= 3, 'several parts');
my $n = @parts;
is_deeply(\@parts, [map { sprintf 's-%05d-of-%05d.gguf', $_, $n } 1 .. $n], 'parts are named as llama.cpp wants');
is_deeply([ls($dir)], [sort map { ($_, "$_.xxh64") } @parts], 'a manifest beside each part');
same_tensors('the parts hold the same tensors', $want, map { "$dir/$_" } @parts);
ok(!(grep { -s "$dir/$_" > 4.5e6 } @parts), 'no part is larger than asked');
for my $i (0 .. $#parts) {
    my $keys = run(tool('gguf_hash'), '--keys', "$dir/$parts[$i]")->{out};
    ok($keys =~ /^split\.no 2$/m && $keys =~ /^split\.count 2$/m && $keys =~ /^split\.tensors\.count 5$/m,
        "$parts[$i]: split keys with their types");
    is($keys =~ /^general\.architecture 8$/m ? 1 : 0, $i == 0 ? 1 : 0, "$parts[$i]: metadata is in the first part alone");
}

$dir = scratch();
run_ok('split by tensors', $SLUICE, 'convert', $TINY, '-o', "$dir/s.gguf", '--recipe', 'q4_k_m',
    '--split-max-tensors', '20', '--no-tensor-first-split');
@parts = sort grep { /\.gguf$/ } ls($dir);
is(scalar(where("$dir/$parts[0]")), 0, 'the first part has no tensor');
ok(!(grep { scalar(where("$dir/$_")) > 20 } @parts), 'no part has more tensors than asked');
same_tensors('the same tensors', $want, map { "$dir/$_" } @parts);

# A folder as output: the name is made from the model.
$dir = scratch();
my $r = run_ok('folder as output', $SLUICE, 'convert', $TINY, '-o', "$dir/", '--recipe', 'q4_k_m');
my @made = grep { /\.gguf$/ } ls($dir);
ok(@made == 1 && $made[0] =~ /^[\w.-]+-Q4_K_M\.gguf$/, 'named by the GGUF convention') or diag("@made");
like($r->{out}, qr{^\Q$dir\E/\Q$made[0]\E$}m, 'the file made is what standard output says');

# llama-quantize's options.
for my $case ([[qw(--tensor-type attn_kv_a_mqa=q8_0)], 'blk.1.attn_kv_a_mqa.weight', 8],
              [[qw(--output-tensor-type q5_k)], 'output.weight', 13],
              [[qw(--token-embedding-type q6_k)], 'token_embd.weight', 14],
              [[qw(--leave-output-tensor)], 'output.weight', 30], # as it is in the checkpoint
              [[qw(--pure)], 'output.weight', 12]) {
    my ($options, $tensor, $type) = @$case;
    my $file = scratch() . '/x.gguf';
    run_ok("@$options", $SLUICE, 'convert', $TINY, '-o', $file, '--recipe', 'q4_k_m', @$options);
    my ($t) = -f $file ? grep { $_->[0] eq $tensor } where($file) : ();
    is($t ? $t->[3] : 'none', $type, "@$options: type of $tensor");
}
# The types of a file as the manual has it, by jq: the same tensors without the options that made them.
$dir = scratch();
run_ok('types by options', $SLUICE, 'convert', $TINY, '-o', "$dir/a.gguf", '-r', 'q4_k_m', '--tensor-type', 'attn=q5_k', '--leave-output-tensor');
spit("$dir/types", join '', map { "^$_->{name}\$=$_->{type}\n" } map { @{ $_->{tensors} } }
    json_lines(run($SLUICE, 'inspect', '-t', '--json', "$dir/a.gguf")->{out}));
my $again = run_ok('by its list of types', $SLUICE, 'convert', $TINY, '-o', "$dir/b.gguf", '-r', 'q4_k_m', '--tensor-type-file', "$dir/types");
unlike($again->{err}, qr/warning/, 'of which none is idle');
same_tensors('the same tensors', hashes("$dir/a.gguf"), "$dir/b.gguf");

$dir = scratch();
run_ok('--override-kv and --model-name', $SLUICE, 'convert', $TINY, '-o', "$dir/x.gguf", '--recipe', 'q8_0',
    '--override-kv', 'my.number=int:7', '--override-kv', 'my.text=str:hello', '--model-name', 'Renamed');
my $keys = run(tool('gguf_hash'), '--keys', "$dir/x.gguf")->{out};
like($keys, qr/^my\.text 8$/m, 'a key is added');
like(substr(slurp("$dir/x.gguf"), 0, 20000), qr/Renamed/, 'the model is renamed');

done_testing();
