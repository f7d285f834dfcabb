# plan --target-size: recipes that fit, lose least by the measure of proto/RECIPES.md, and
# are never worse than a stock recipe of that size.
use strict;
use warnings;
use SluiceTest;
use Test::More;

need_python();
my $dir = scratch();
my @few = ('--types', 'q2_k,q3_k,q4_k,q5_k,q6_k,q8_0');

sub plan {
    my ($source, @options) = @_;
    my $r = run($SLUICE, 'plan', $source, '--json', '-q', @options);
    my ($j) = $r->{rc} ? () : json_lines($r->{out});
    diag($r->{err}) if $r->{rc};
    return $j // {};
}

# ---- the size is kept by the files themselves, and used
my $last = 9;
for my $target (9_000_000, 10_485_760, 12_000_000, 15_000_000) {
    my $recipe = "$dir/t$target.recipe";
    my $size = $target == 10_485_760 ? '10MiB' : $target;
    my $j = plan($TINY, '--target-size', $size, @few, '--write-recipe', $recipe);
    my $r = run_ok("$size", $SLUICE, 'convert', $TINY, '-o', "$dir/t.gguf", '-f', '-q', '--recipe', $recipe);
    my $got = -s "$dir/t.gguf";
    cmp_ok($got, '<=', $target, "$size: the file fits");
    cmp_ok($got, '>', 0.995 * $target, 'and uses the room');
    is($got, $j->{file_bytes}, 'as planned');
    cmp_ok($j->{measure}{mean_error}, '<', $last, "error $j->{measure}{mean_error}: less at a larger size");
    $last = $j->{measure}{mean_error};
    is_deeply([map { $_->{name} } grep { $_->{mean_error} < $j->{measure}{mean_error} } @{ $j->{target}{stock} }], [],
        'no stock recipe of these types within the size is better');
    ok($j->{target}{exact} && abs($j->{target}{least_error} - $last) < 1e-12, 'the least there is');
    is(slurp($recipe), $j->{target}{recipe_text}, 'the recipe of the plan');
}
my $j = plan($TINY, '--target-bpw', '3.5', @few);
cmp_ok($j->{bits_per_weight}, '<=', 3.5, 'bits a weight');
cmp_ok($j->{bits_per_weight}, '>', 3.49, 'and not fewer than need be');

# ---- the measure, computed apart, with and without weights
run_ok('F32', $SLUICE, 'convert', $TINY, '-o', "$dir/f32.gguf", '-q', '--recipe', 'f32');
run_ok('imatrix', python('synthetic_imatrix.py', $TINY, "$dir/im.gguf"));
for my $case (['q4_k_m'], ['q3_k_s', '--imatrix', 'synthetic'], ['iq2_m', '--imatrix', "$dir/im.gguf"], ["$dir/t9000000.recipe"]) {
    my ($r, @im) = @$case;
    run_ok($r, $SLUICE, 'convert', $TINY, '-o', "$dir/q.gguf", '-f', '-q', '--recipe', $r, @im);
    my $want = run_ok('computed apart', python('measure.py', "$dir/f32.gguf", "$dir/q.gguf", '--layers', 4, @im ? ('--imatrix', "$dir/im.gguf") : ()))->{out} + 0;
    my $m = plan($TINY, '--recipe', $r, '--measure', @im)->{measure}{mean_error};
    ok($want > 1e-4 && abs($m / $want - 1) < 1e-6, "$r @im[1 .. $#im]: $m, computed apart $want");
}

# ---- the same whatever the threads; all types, with an imatrix; an ordinary recipe on stdout
my @all = ('--target-size', '7.2M', '--imatrix', 'synthetic');
my $text = run_ok('all types', $SLUICE, 'plan', $TINY, @all, '-t', 1);
like($text->{err}, qr/errors of 47 tensors measured on .*; best stock recipe within that size: \w+, 0\.\d+/s, 'what was done is said');
is(run_ok('again', $SLUICE, 'plan', $TINY, @all, '-t', 3)->{out}, $text->{out}, 'the same recipe with other threads');
like($text->{out}, qr/^# Made by 'sluice plan tiny-v3 --target-size 7\.2M' for deepseek2:\n(?:#.*\n)+advice .*\nencoding AUTO-7_2M\n/, 'commented');
spit("$dir/all.recipe", $text->{out});
my $dry = run_ok('its plan', $SLUICE, 'convert', $TINY, '-o', "$dir/x.gguf", '-n', '-q', '--recipe', "$dir/all.recipe", '--imatrix', 'synthetic')->{out};
my %type = $dry =~ /^(\S+\.weight) +(\w+) +\d+$/mg;
my @apart = grep { my $o = s/gate/up/r; $type{$_} ne $type{$o} } grep { /ffn_gate(_exps|_shexp)?\.weight/ } sort keys %type;
push @apart, grep { my $o = s/attn_q_a/attn_kv_a_mqa/r; $type{$_} ne $type{$o} } grep { /attn_q_a\.weight/ } sort keys %type;
is_deeply([\@apart, scalar keys %{ { reverse %type } } > 4], [[], 1], 'one type for each fused group, several in all');

# ---- a fused group that stock recipes split: attn_q_a is so large that no group has room for
# q6_k, but attn_kv_a_mqa alone has, as dq3_k_m and Unsloth's recipes type it
{
    my $source = checkpoint(scratch(), qw(--layers 2 --dense 1 --hidden 512 --inter 512 --moe-inter 256 --experts 4 --used 2 --groups 2
        --q-lora 2048 --kv-lora 256 --rope 64 --heads 2 --kv-heads 2));
    my @only = ('--tensor-type', '^(?!.*attn_(q_a|kv_a_mqa)\.).*=q4_k', '--types', 'q4_k,q6_k');
    my %bytes = map { $_ => plan($source, '--recipe', $_, @only[0, 1])->{file_bytes} } qw(uniform-q4_k dq3_k_m);
    my $split = plan($source, '--target-size', $bytes{dq3_k_m} + 4000, @only);
    my %of = map { $_->{name} => [map { $_->{type} } @{ $_->{types} }] } @{ $split->{groups} };
    is_deeply([@of{qw(attn_q_a attn_kv_a_mqa)}], [['q4_k'], ['q6_k']], 'a fused group is split as a stock recipe splits it');
    ok($split->{target}{from_stock}, 'which is said');
    is($split->{measure}{mean_error}, plan($source, '--recipe', 'dq3_k_m', '--measure', @only[0, 1])->{measure}{mean_error},
        'with the error of that recipe');
    cmp_ok($split->{file_bytes}, '<=', $bytes{dq3_k_m} + 4000, 'within the size');
    my $whole = plan($source, '--target-size', $bytes{dq3_k_m} - 4000, @only);
    %of = map { $_->{name} => [map { $_->{type} } @{ $_->{types} }] } @{ $whole->{groups} };
    is_deeply([@of{qw(attn_q_a attn_kv_a_mqa)}, $whole->{target}{from_stock} ? 1 : 0], [['q4_k'], ['q4_k'], 0],
        'not where no such recipe fits');
    my ($file, $at) = place($source, 'model.layers.1.mlp.shared_experts.up_proj.weight');
    open my $f, '+<:raw', $file or die "$file: $!";
    seek $f, $at, 0;
    print $f "\x7f";
    close $f or die "$file: $!";
    fails('a damaged weight', 7, qr{^sluice plan: tensor 'model\.layers\.1\.mlp\.shared_experts\.up_proj\.weight' in '\Q$file\E': row 0, column 0 is NaN or infinite; },
        $SLUICE, 'plan', $source, '--target-bpw', 5);
}

# ---- an embedding that is the output, too
{
    my $tied = checkpoint(scratch(), qw(--arch qwen2 --hidden 256 --inter 256 --vocab 512 --layers 2 --tied));
    run_ok('a tied embedding', $SLUICE, 'plan', $tied, '--target-bpw', 5, '--write-recipe', "$dir/tied.recipe");
    like(slurp("$dir/tied.recipe"), qr/^output\.weight +=/m, 'is named as the output that it is');
    like(run_ok('a plan by that recipe', $SLUICE, 'plan', $tied, '--recipe', "$dir/tied.recipe")->{out}, qr/\b4\.\d\d+ bits|\b5\.0\d* bits/, 'has the size');
}

# ---- types that are no candidates
$j = plan($TINY, '--target-size', 12_500_000, '--types', 'q4_0,q8_0');
my %used = map { $_->{type} => 1 } map { @{ $_->{types} } } @{ $j->{groups} // [] };
is_deeply([sort keys %used], [qw(f32 q4_0 q8_0)], '--types: no other types');
$j = plan($TINY, '--target-size', '12M', @few, '--output-tensor-type', 'q8_0', '--tensor-type', 'attn_q_a=q5_0');
is_deeply([map { $_->{types}[0]{type} } sort { $a->{name} cmp $b->{name} } grep { $_->{name} =~ /^(output|attn_q_a)$/ } @{ $j->{groups} }],
    ['q5_0', 'q8_0'], 'types that options fix stay');
cmp_ok($j->{file_bytes}, '<=', 12_000_000, 'and count');

$j = plan(checkpoint(scratch(), qw(--layers 2 --hidden 72 --inter 40)), '--layout', 'legacy', '--target-bpw', 9);
cmp_ok($j->{bits_per_weight} // 99, '<=', 9, "rows that no type's blocks divide, which the rules of 2025 give no q8_0");

# ---- refused in one line, before anything is measured
my @no = ($SLUICE, 'plan', $TINY, '-q');
fails('too small', 2, qr/a target of 3\.\d+ MB \(3000000 bytes\) is too small: with all types that are tried the model takes at least .* smaller ones need an importance matrix/, @no, '--target-size', '3M');
fails('too small for these', 2, qr/with these types the model takes at least 11\.7 MB .*; allow smaller ones with --types/, @no, '--target-size', '9M', '--types', 'q4_k,q8_0');
fails('too large', 2, qr/not below the \S+ MB that the model takes in 16 bits a weight: nothing has to be quantized; use --recipe bf16/, @no, '--target-size', '2G');
fails('no size', 2, qr/--target-size/, @no, '--target-size', 'many');
fails('no bits', 2, qr/--target-bpw 'x': expected bits a weight/, @no, '--target-bpw', 'x');
fails('both', 2, qr/cannot be used together/, @no, '--target-bpw', '4', '--target-size', '9M');
fails("a recipe too, $_->[0]", 2, qr/plan: $_->[0] makes a recipe; it cannot be used with --recipe/, @no, @$_, '--recipe', 'q4_k')
    for ['--target-size', '9M'], ['--target-bpw', 4];
fails('--pure', 2, qr/--pure gives every tensor one type/, @no, '--target-size', '9M', '--pure');
fails('no such type', 2, qr/--types: 'q9_k' is no type; did you mean q2_k\? /, @no, '--target-size', '9M', '--types', 'q4_k,q9_k');
fails('only types that need an imatrix', 2, qr/none of the types can be used for it without an importance matrix/, @no, '--target-size', '9M', '--types', 'iq1_s,iq2_xxs');
fails('--measure without a recipe', 2, qr/^sluice plan: --measure measures a recipe: give --recipe NAME/, @no, '--measure');
fails('--measure of config.json alone', 2, qr/has no weights, .* folder, downloaded, or leave --measure out$/, $SLUICE, 'plan', "$TINY/config.json", '-r', 'q4_k', '--measure');
fails('config.json alone', 2, qr/has no weights, and errors are measured on weights: give the checkpoint's folder/, $SLUICE, 'plan', "$TINY/config.json", '--target-size', '9M');
{
    my @option = ('--output-tensor-type', 'q8_0');
    plan($TINY, '--target-size', '10MiB', @few, @option, '--write-recipe', "$dir/out.recipe");
    is(run_ok('plan', $SLUICE, 'plan', $TINY, '--recipe', "$dir/out.recipe", @option)->{err}, '', 'the option that the recipe holds is no mistake');
    like(run($SLUICE, 'plan', $TINY, '--recipe', "$dir/out.recipe", '--output-tensor-type', 'q6_k')->{err}, qr/'output\.weight' decides nothing/, 'another may be');
}
fails('the file is there', 13, qr/t9000000\.recipe exists already/, @no, '--target-size', '9M', '--write-recipe', "$dir/t9000000.recipe");
symlink 'gone', "$dir/dangling.recipe" or die $!;
my $r = fails('a link in its place', 13, qr/dangling\.recipe exists already; choose another name/, @no, '--target-size', '9M', '--write-recipe', "$dir/dangling.recipe");
unlike($r->{err}, qr/measured/, 'known before anything is measured');
$r = fails('its folder is not there', 2, qr{^sluice plan: /no/such/n\.recipe: cannot be made: No such file or directory$}, @no, '--target-size', '9M', '--write-recipe', '/no/such/n.recipe');
unlike($r->{err}, qr/measured/, 'known before anything is measured');
fails('--write-recipe -', 2, qr/goes to standard output without this option$/m, @no, '--target-size', '9M', '--write-recipe', '-');
fails('--write-recipe alone', 2, qr/needs --target-size/, @no, '--recipe', 'q4_k', '--write-recipe', "$dir/n.recipe");
ok(!-e "$dir/n.recipe", 'nothing was written');
{
    my $odd = "$dir/caf\xe9" . 'm' x 95 . "\xc3\xa9"; # no UTF-8; and the recipe tells of 100 bytes
    symlink $TINY, $odd;
    my $made = plan($odd, '--target-size', '13M', '--types', 'q4_k,q8_0', '--write-recipe', "$odd.recipe");
    is($made->{fingerprint} // 'none', plan($odd, '--recipe', "$odd.recipe")->{fingerprint}, "names that are no text: the recipe's plan is the one shown");
}

# ---- a large checkpoint: a small part of it is read
SKIP: {
    skip 'not with SLUICE_QUICK', 3 if $QUICK;
    my $big = scratch();
    my $r = run(tool('make_checkpoint'), '--sparse', qw(--layers 2 --dense 1 --hidden 7168 --inter 18432 --moe-inter 2048 --experts 256 --used 8
        --groups 8 --groups-used 4 --heads 128 --kv-heads 128 --q-lora 1536 --kv-lora 512 --nope 128 --v-dim 128 --vocab 129280 --shards 4),
        '--tokenizer', $TINY, '--out', $big);
    skip "no room for a sparse file of 17 GB: $r->{err}", 3 if $r->{rc};
    for my $im ([], ['--imatrix', 'synthetic']) {
        my $j = plan($big, '--target-bpw', '3.5', '--types', 'q2_k,q3_k,q4_k,q6_k', @$im);
        my $share = ($j->{measure}{read_bytes} // 1e18) / ($j->{source_bytes} // 1);
        cmp_ok($share, '<', 0.02, sprintf "%s: %.3f %% of %.1f GB read", $im->[1] // 'no imatrix', 100 * $share, ($j->{source_bytes} // 0) / 1e9);
    }
    system 'rm', '-rf', $big;
}
done_testing();
