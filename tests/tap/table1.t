# Table 1 and the shares of table 7 of arXiv 2505.02390, from DeepSeek-R1's
# config alone, through the real `sluice plan`.
use strict;
use warnings;
use JSON::PP;
use POSIX qw(ceil);
use SluiceTest;
use Test::More;

my $config = "$TOP/tests/data/deepseek-r1-config.json";

sub plan_json { return decode_json(run_ok("plan @_", $SLUICE, 'plan', $config, '--json', @_)->{out}) }

# recipe, bits, GiB, memory of 8 devices in GiB, fits 8 x 64 GB
my @table1 = (
    ['q4_k_m', 4.82, 377, 568, 0],
    ['q3_k_m', 3.81, 298, 487, undef],
    ['dq3_k_m', 3.59, 281, 469, 1],
    ['q2_k_l', 2.91, 228, 415, 1],
    ['ud-q2_k_xl', 2.70, 212, 398, 1],
);
for my $row (@table1) {
    my ($recipe, $bits, $gib, $memory, $fits64) = @$row;
    my $p = plan_json('--recipe', $recipe, '--layout', 'legacy', '--devices', '8x80G,8x64G');
    is($p->{schema}, 1, 'schema');
    is($p->{model}{weights}, 671026419200, "$recipe: weights");
    is($p->{model}{tensors}, 1025, "$recipe: tensors");
    is(sprintf('%.2f', $p->{bits_per_weight}), sprintf('%.2f', $bits), "$recipe: bits a weight");
    is(ceil($p->{tensor_bytes} / 2**30), $gib, "$recipe: GiB, rounded up");
    my ($on80) = grep { $_->{cache} eq 'whole_heads' && $_->{device_bytes} == 80e9 } @{$p->{memory}};
    my ($on64) = grep { $_->{cache} eq 'whole_heads' && $_->{device_bytes} == 64e9 } @{$p->{memory}};
    cmp_ok(abs($on80->{total_bytes} / 2**30 / $memory - 1), '<', 0.01, "$recipe: memory at 32K");
    ok($on80->{fits}, "$recipe fits 8 x 80 GB");
    is(!!$on64->{fits}, !!$fits64, "$recipe on 8 x 64 GB") if defined $fits64;
    next unless $recipe eq 'dq3_k_m';
    my ($down) = grep { $_->{name} eq 'ffn_down_exps' } @{$p->{groups}};
    is(join(' ', map { sprintf '%s %.1f', $_->{type}, 100 * $_->{share} } @{$down->{types}}),
        'q3_k 75.9 q4_k 20.7 q6_k 3.4', 'shares of ffn_down_exps');
}

my $mla = plan_json('--recipe', 'dq3_k_m');
is($mla->{model}{tensors}, 1086, 'tensors of the MLA layout');
is($mla->{fallback_tensors}, 61, 'attn_k_b falls back in every layer');
is($mla->{files}[0]{name} =~ /-DQ3_K_M-00001-of-0000\d\.gguf$/ ? 1 : 0, 1, 'file names');

# A type of a later version has a size, an unknown recipe has none.
ok(plan_json('--recipe', 'ud-iq1_s', '--layout', 'legacy')->{needs_imatrix}, 'needs an imatrix');
fails('an unknown recipe', 2, qr/q4_k_m/, $SLUICE, 'plan', $config, '--recipe', 'q4_k_n');
fails('devices without a size', 2, qr/'8x': expected COUNTxSIZE/, $SLUICE, 'plan', $config, '--recipe', 'q4_k_m', '--devices', '8x');
fails('devices', 2, qr/8y80G/, $SLUICE, 'plan', $config, '--recipe', 'q4_k_m', '--devices', '8y80G');
my $text = run_ok('as text', $SLUICE, 'plan', $config, '--recipe', 'dq3_k_m', '--layout', 'legacy')->{out};
like($text, qr/^Size +300\.\d GB = 280\.1 GiB, 3\.586 bits/m, 'size');
like($text, qr/^Memory .*, in GB$/m, 'memory in the unit of its devices');
like($text, qr/^8 x 64\.0 GB +whole heads +300\.8 +163\.7 +39\.1 +503\.6 +62\.9 +yes$/m, 'and within them');
like($text, qr/^ffn_down_exps .*q3_k 75\.9 % \(44\), q4_k 20\.7 % \(12\), q6_k 3\.4 % \(2\)/m, 'groups');

like(run($SLUICE, 'recipes')->{out}, qr/^dq3_k_m +3\.59 bits/m, 'recipes');
is(run($SLUICE, 'recipes', 'dq3_k_m')->{out}, slurp("$TOP/proto/recipes/dq3_k_m.recipe"),
    'a recipe is printed as it is');
is(decode_json(run($SLUICE, 'recipes', '--json')->{out})->{recipes}[0]{name}, 'dq3_k_m', 'recipes --json');
like(run($SLUICE, 'types')->{out}, qr/^q4_k +4\.5000 +256 +yes/m, 'types');
my $types = decode_json(run($SLUICE, 'types', '--json')->{out})->{types};
is(scalar(grep { $_->{name} eq 'q4_k' } @$types), 1, 'types --json');
done_testing();
