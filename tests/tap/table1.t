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

# recipe, bits, GiB, memory of 8 devices in GiB and of one, fits 8 x 64 GB
my @table1 = (
    ['q4_k_m', 4.82, 377, 568, 71, 0],
    ['q3_k_m', 3.81, 298, 487, 61, undef],
    ['dq3_k_m', 3.59, 281, 469, 59, 1],
    ['q2_k_l', 2.91, 228, 415, 52, 1],
    ['ud-q2_k_xl', 2.70, 212, 398, 50, 1],
);
for my $row (@table1) {
    my ($recipe, $bits, $gib, $memory, $each, $fits64) = @$row;
    my $p = plan_json('--recipe', $recipe, '--layout', 'legacy', '--devices', '8x80G,8x64G');
    is($p->{schema}, 1, 'schema');
    is($p->{model}{weights}, 671026419200, "$recipe: weights");
    is($p->{model}{tensors}, 1025, "$recipe: tensors");
    is(sprintf('%.2f', $p->{bits_per_weight}), sprintf('%.2f', $bits), "$recipe: bits a weight");
    is(ceil($p->{tensor_bytes} / 2**30), $gib, "$recipe: GiB, rounded up");
    my ($on80) = grep { $_->{cache} eq 'whole_heads' && $_->{device_bytes} == 80e9 } @{$p->{memory}};
    my ($on64) = grep { $_->{cache} eq 'whole_heads' && $_->{device_bytes} == 64e9 } @{$p->{memory}};
    is_deeply([map { $_->{estimate} } $on80, $on64], [('paper') x 2], "$recipe: the first of whole heads is the paper's");
    cmp_ok(abs($on80->{total_bytes} / 2**30 / $memory - 1), '<', 0.01, "$recipe: memory at 32K");
    cmp_ok(abs($on80->{per_device_bytes} / 2**30 / $each - 1), '<', 0.01, "$recipe: a device");
    ok($on80->{fits}, "$recipe fits 8 x 80 GB");
    is(!!$on64->{fits}, !!$fits64, "$recipe on 8 x 64 GB") if defined $fits64;
    is_deeply([map { join ' ', @$_{qw(cache estimate)}, $_->{own_layout} ? 'own' : () } @{$p->{memory}}],
        [('whole_heads paper', 'whole_heads llama.cpp own', 'compressed llama.cpp') x 2], "$recipe: one entry of a set is the plan's own");
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
like($text, qr/^8 x 64\.0 GB +whole heads, paper +300\.8 +163\.7 +39\.1 +503\.6 +62\.9 +yes
8 x 64\.0 GB +whole heads +300\.3 +163\.7 +90\.8 +554\.8 +73\.8 +no
8 x 64\.0 GB +compressed \(MLA\) +300\.3 +2\.3 +14\.2 +316\.8 +43\.0 +yes$/m, 'within them in the paper, and in llama.cpp in the compressed form');
like($text, qr/^paper: as table 1 of arXiv 2505\.02390 counts; llama\.cpp of 2026 needs the row below\.$/m, 'which is whose');
like($text, qr/^In llama\.cpp, all layers on GPUs and token_embd in RAM\. A device: the fullest, with 1 GiB to spare\.$/m, 'what is counted');
like($text, qr/^1 x 24\.0 GB and 512\.0 GB of RAM .*^GPU .*^RAM .*^Does not fit, /ms, 'and at home: a cache of whole heads is too large');
like($text, qr/^Whole heads are cached with --layout legacy, .*this plan is legacy\.$/ms, 'how to choose the cache');
unlike(run($SLUICE, 'plan', 'tests/data/kimi-k3-config.json', '--recipe', 'q4_k_m', '--devices', '8x64G')->{out}, qr/--layout|paper/, 'where there is no choice, none is told');
like($text, qr/^ffn_down_exps .*q3_k 75\.9 % \(44\), q4_k 20\.7 % \(12\), q6_k 3\.4 % \(2\)/m, 'groups');

# ---- equal devices: what llama.cpp v0.5.0 counts for weights, cache and buffers on the fullest of so many devices that it
# spreads the layers over by itself, and its cache on all, in MB, as for the machines below; without the GiB to spare.
for (['deepseek-r1', 'q4_k_m', 8, 32768, 512, 87394, 163745, 'legacy'],
     ['deepseek-r1', 'ud-q2_k_xl', 8, 32768, 512, 62437, 163745, 'legacy'], ['ling-1t-fp8', 'q4_k_m', 8, 32768, 512, 80108, 10738],
     ['ling-1t-fp8', 'q4_k_m', 4, 131072, 4096, 174356, 42950], ['mimo-v2-flash', 'q4_k_m', 1, 32768, 4096, 189522, 1624],
     ['mimo-v2-flash', 'q4_k_m', 8, 32768, 512, 27875, 908], ['mimo-v2-flash', 'q4_k_m', 4, 131072, 512, 52078, 3173],
     ['mimo-v2.5', 'q4_k_m', 4, 32768, 512, 51243, 908], ['step-3.5-flash-fp8', 'q4_k_m', 1, 32768, 512, 121079, 1749],
     ['step-3.5-flash-fp8', 'q4_k_m', 4, 131072, 4096, 41061, 7065], ['step-3.5-flash-fp8', 'q4_k_m', 8, 4096, 512, 17185, 340],
     ['mistral-large-3', 'q4_k_m', 8, 32768, 512, 56859, 2303], ['mistral-large-3', 'q4_k_m', 4, 131072, 4096, 119663, 9211],
     ['deepseek-v3.2-exp', 'q4_k_m', 8, 32768, 4096, 63514, 2814], ['deepseek-v3.2-exp', 'q4_k_m', 1, 131072, 4096, 424152, 11258],
     ['glm-5.2-fp8', 'q4_k_m', 8, 131072, 4096, 74351, 12482], ['deepseek-v4-flash', 'q4_k_m', 1, 131072, 4096, 175347, 1106],
     ['deepseek-v4-flash', 'q4_k_m', 8, 32768, 4096, 28784, 429], ['kimi-k2-instruct', 'q4_k_m', 8, 131072, 4096, 91121, 9211],
     ['kimi-k3', 'q2_k', 8, 32768, 4096, 143398, 1371], ['qwen3-235b-a22b-2507-fp8', 'q4_k_m', 4, 131072, 4096, 49166, 25233],
     ['qwen3.5-397b-a17b-fp8', 'q4_k_m', 4, 32768, 4096, 67956, 1202],
     ['r1-distill-llama-70b', 'q4_k_m', 2, 32768, 4096, 30527, 10737], ['minimax-m3', 'q4_k_m', 1, 131072, 4096, 419384, 19931],
     ['minimax-m3', 'q4_k_m', 4, 32768, 4096, 137319, 4983], ['minimax-m3', 'q4_k_m', 8, 32768, 512, 41684, 4983]) {
    my ($name, $recipe, $devices, $ctx, $ubatch, $most, $cache, $layout) = @$_;
    my $of = $name =~ /mistral/ ? 'params' : 'config';
    my $p = decode_json(run_ok("$name, $devices devices", $SLUICE, 'plan', "$TOP/tests/data/$name-$of.json", '--recipe', $recipe, '--json', '--ctx', $ctx,
        '--ubatch', $ubatch, '--devices', "${devices}x1T", $layout ? ('--layout', $layout) : ())->{out});
    my ($set) = grep { $_->{own_layout} } @{ $p->{memory} };
    my $mb = ($set->{per_device_bytes} - 2**30) / 1e6;
    ok($mb > 0.997 * $most && $mb < 1.02 * $most, sprintf '%s, %d devices: %.0f MB, %d counted', $name, $devices, $mb, $most);
    ok(abs($set->{cache_bytes} / 1e6 / $cache - 1) < 0.03, sprintf '%s: a cache of %.0f MB, %d counted', $name, $set->{cache_bytes} / 1e6, $cache);
    ok($set->{fits}, 'it fits');
    # One sequence at a time where layers have a state, a window, or a choice of blocks.
    my $options = join ' ', "-c $ctx", $ubatch > 2048 ? "-b $ubatch" : (), $ubatch == 512 ? () : "-ub $ubatch", '-ngl 99',
        $name =~ /mimo|step|deepseek-v4|kimi-k3|qwen3\.5|minimax-m3/ ? '-np 1' : ();
    is($set->{llama_server}, $options, 'options: none for the spread');
}
is(decode_json(run($SLUICE, 'plan', "$TOP/tests/data/llama-3.1-405b-fp8-config.json", '--recipe', 'q4_k_m', '--json', '--devices', '8x1T')->{out})
    ->{memory}[0]{llama_server}, '-c 32768 -ngl 9999', 'more layers than 99');
my ($split) = grep { $_->{own_layout} } @{ plan_json('--recipe', 'dq3_k_m', '--devices', '10x36G')->{memory} };
is($split->{llama_server}, '-c 32768 -ngl 99 -ts 8,6,6,6,6,6,6,6,6,6', 'where only other layers fit, the option');
like(run($SLUICE, 'plan', $config, '--recipe', 'dq3_k_m', '--devices', '10x36G,16x48G,8x80G')->{out},
    qr/^10 x 36\.0 GB +compressed \(MLA\) .* 33\.0  by -ts\n.*^10 x 36\.0 GB, compressed \(MLA\): -ts 8(?:,6){9}; by itself .*^llama\.cpp takes 15 devices; more are left out\.$/ms,
    'and as text');

# ---- machines: what llama.cpp counts for weights, cache and buffers of files of these models with these options, in MB on
# each GPU and in RAM, on devices that answer as CUDA's do and compute nothing; without the GiB to spare. Rows of GPUs that
# differ are of August 2026, the others of v0.5.0. Of MiniMax-M3, whose buffers grow with the tokens, when the context is full.
my @fifteen = (20356, 20771, (21270) x 4, 20771, (21270) x 4, 20771, 21270, 21270, 17000);
for (['deepseek-r1', 'dq3_k_m', '1x24G+512G', 32768, '-ngl 99 --n-cpu-moe 60', 21467, 285142],
     ['deepseek-r1', 'dq3_k_m', '2x24G+512G', 32768, '-ngl 99 --n-cpu-moe 56 -ts 57,5', 19462, 21812, 265765],
     ['deepseek-r1', 'dq3_k_m', '4x96G+512G', 32768, '-ngl 99 -ts 17,15,15,15', 76693, 77607, 77607, 73337, 685],
     ['deepseek-r1', 'dq3_k_m', '+512G', 32768, '-ngl 0', 303677],
     ['deepseek-r1', 'dq3_k_m', '8x48G+512G', 32768, '-ngl 99 --n-cpu-moe 42 -ts 12,13,13,7,4,4,4,5', 44510, 46678, 46678,
         44226, 41076, 41076, 41076, 41836, 196479, '--layout', 'legacy'],
     ['qwen3-235b-a22b-2507-fp8', 'q4_k_m', '2x24G+128G', 65536, '-ngl 99 --n-cpu-moe 77 -ts 82,13', 22344, 21753, 111925],
     ['kimi-k2-instruct', 'q4_k_m', '2x32G+768G', 131072, '-ngl 99 --n-cpu-moe 58 -ts 59,3', 30656, 23776, 580834],
     ['minimax-m2.5', 'q4_k_m', '2x32G+128G', 131072, '-ngl 99 --n-cpu-moe 52 -ts 50,13', 29936, 30581, 113342],
     ['ling-1t-fp8', 'q4_k_m', '2x24G+768G', 32768, '-ngl 99 --n-cpu-moe 79 -ts 45,36', 19029, 19234, 583129],
     ['ling-1t-fp8', 'dq3_k_m', '4x96G+192G', 32768, '-b 4096 -ub 4096 -ngl 99 --n-cpu-moe 21 -ts 35,15,15,16', 94182, 91087, 91087,
         92696, 99341],
     ['qwen3.5-397b-a17b-fp8', 'q4_k_m', '1x24G+256G', 32768, '-ngl 99 -np 1 --n-cpu-moe 58', 19119, 225756],
     ['glm-5.2-fp8', 'q4_k_m', '1x24G+512G', 4096, '-ngl 99 --n-cpu-moe 77', 20644, 431056],
     ['deepseek-v4-flash', 'q4_k_m', '1x24G+192G', 32768, '-ngl 99 -np 1 --n-cpu-moe 40', 20501, 155253],
     ['r1-distill-llama-70b', 'q4_k_m', '1x24G+64G', 32768, '-ngl 34', 22790, 30996],
     ['deepseek-r1', 'dq3_k_m', '24G,16G,12G+512G', 32768, '-ngl 99 --n-cpu-moe 57 -ts 58,2,2', 19648, 10492, 6709, 270609],
     ['deepseek-r1', 'dq3_k_m', '2x24G,1x12G+384G', 65536, '-ngl 99 --n-cpu-moe 55 -ts 56,4,2', 21922, 20738, 6780, 260455],
     ['deepseek-r1', 'dq3_k_m', '16x24G+64G', 32768, '-ngl 99 -dev ' . join(',', map { "CUDA$_" } 0 .. 14) . ' -ts 6' . ',4' x 14,
         @fifteen, 0, 685],
     ['kimi-k2-instruct', 'q2_k', '2x48G,1x24G+512G', 131072, '-ngl 99 --n-cpu-moe 46 -ts 51,7,4', 44603, 44762, 20367, 276020],
     ['kimi-k2-instruct', 'q4_k_m', '32G,24G+768G', 32768, '-ub 2048 -ngl 99 --n-cpu-moe 59 -ts 60,2', 24700, 13583, 591888],
     ['qwen3-235b-a22b-2507-fp8', 'q4_k_m', '24G,24G,16G,8G+128G', 32768, '-ngl 99 --n-cpu-moe 59 -ts 69,14,8,4', 22594, 21790,
         13605, 5859, 86184],
     ['qwen3-235b-a22b-2507-fp8', 'q4_k_m', '48G,48G,24G,24G,24G', 32768, '-ngl 99 -ts 27,28,13,14,13', 43319, 43363, 20506,
         21766, 21149, 501],
     ['minimax-m2.5', 'q4_k_m', '32G,16G+192G', 32768, '-b 4096 -ub 4096 -ngl 99 --n-cpu-moe 50 -ts 58,5', 29357, 13884, 109176],
     ['qwen3.5-397b-a17b-fp8', 'q4_k_m', '32G,16G,24G+256G', 131072, '-ngl 99 -np 1 --n-cpu-moe 49 -ts 53,3,6', 26908, 13384,
         18724, 189920],
     ['glm-5.2-fp8', 'q4_k_m', '24G,12G+512G', 32768, '-ngl 99 --n-cpu-moe 76 -ts 77,3', 22465, 7564, 424848],
     ['deepseek-v4-flash', 'q4_k_m', '24G,16G+192G', 65536, '-ngl 99 -np 1 --n-cpu-moe 37 -ts 40,4', 20001, 13562, 142738],
     ['deepseek-v3.2-exp', 'q4_k_m', '48G,24G+512G', 65536, '-ub 1024 -ngl 99 --n-cpu-moe 56 -ts 59,4', 40953, 17190, 357310],
     ['kimi-k3', 'q4_k_m', '96G,48G+2000G', 32768, '-ngl 99 -np 1 --n-cpu-moe 89 -ts 91,3', 89564, 40525, 1569953],
     ['kimi-k3', 'q2_k', '6x192G,2x96G+64G', 32768, '-b 4096 -ub 4096 -ngl 99 -np 1 -ts 15,14,13,13,13,13,6,7', 159322, 161072,
         151286, 152284, 153269, 154398, 78727, 79322, 1694],
     ['deepseek-v4-flash', 'q4_k_m', '2x80G,32G,40G+64G', 16384, '-b 4096 -ub 4096 -ngl 99 -np 1 -ts 16,16,5,7', 66556, 67337,
         23680, 31080, 853],
     ['minimax-m3', 'q4_k_m', '48G,24G+256G', 32768, '-ngl 99 -np 1 --n-cpu-moe 49 -ts 56,5', 45574, 21745, 199565],
     ['minimax-m3', 'q4_k_m', '3x128G,48G+128G', 65536, '-ngl 99 -np 1 -ts 21,17,17,6', 95834, 97440, 98697, 32592, 1121],
     ['minimax-m3', 'q4_k_m', '1x320G+64G', 65536, '-ngl 99 -np 1', 269647, 920],
     ['r1-distill-llama-70b', 'q4_k_m', '24G,16G,24G', 16384, '-ub 2048 -ngl 99 -ts 32,19,30', 20076, 12522, 19770, 994],
     ['r1-distill-qwen-32b', 'q4_k_m', '16G,12G', 8192, '-ngl 99 -ts 39,26', 12966, 9305, 493],
     ['r1-distill-llama-70b', 'q4_k_m', '24G,12G+64G', 32768, '-ub 2048 -ngl 48 -ts 34,14', 22850, 10674, 22257],
     ['r1-0528-qwen3-8b', 'q4_k_m', '1G,12G', 16384, '-ngl 99 -dev CUDA1', 0, 7407, 384]) {
    my ($name, $recipe, $devices, $ctx, $options, @rest) = @$_;
    my @want = grep { /^\d/ } @rest;
    my $p = decode_json(run_ok("$name, $devices", $SLUICE, 'plan', "$TOP/tests/data/$name-config.json", '--recipe', $recipe, '--json',
        '--ctx', $ctx, '--ubatch', $options =~ /-ub (\d+)/ ? $1 : 512, '--devices', $devices, grep { !/^\d/ } @rest)->{out});
    my ($set) = @{ $p->{memory} };
    is($set->{llama_server}, "-c $ctx $options", "$name, $devices: options");
    my ($ubatch, $ngl, $moe, $ts) = map { $options =~ /(?:^| )$_ (\S+)/ ? $1 : undef } qw(-ub -ngl --n-cpu-moe -ts);
    is_deeply([@$set{qw(context ubatch gpu_layers n_cpu_moe)}], [$ctx, $ubatch // 512, $ngl == 99 ? $set->{layers} : $ngl, $moe // 0], 'and apart');
    is(join(',', grep { $_ } @{ $set->{tensor_split} }), $ts, 'and what lies on which GPU') if defined $ts;
    ok($set->{fits}, 'it fits');
    cmp_ok($set->{longest_context}, '>=', $ctx - 1023, 'the longest context is no shorter');
    is(join(' ', map { $_->{where} } @{ $set->{places} }), join(' ', ('gpu') x (@want - 1), 'ram'), 'places');
    my $sum = sub { my $n = 0; $n += $_->{$_[0]} for @{ $set->{places} }; return $n };
    my @sums = qw(weights_bytes cache_bytes buffer_bytes total_bytes);
    is_deeply([@$set{@sums}], [map { $sum->($_) } @sums], 'sums, as in every entry');
    my ($most) = sort { $b <=> $a } map { $_->{total_bytes} } grep { $_->{where} eq 'gpu' } @{ $set->{places} };
    is($set->{per_device_bytes}, $most // 0, 'and the most on a GPU');
    for (0 .. $#want) {
        my $mb = $set->{places}[$_]{total_bytes} ? ($set->{places}[$_]{total_bytes} - 2**30) / 1e6 : 0;
        ok($mb > 0.987 * $want[$_] - 64 && $mb < 1.05 * $want[$_] + ($_ == $#want ? 450 : 64), sprintf '%s, %s: %.0f MB, %.0f counted', $name, $devices, $mb, $want[$_]);
    }
}

# ---- what is no set of devices
for (['1x24G+', "'1x24G\\+': expected the size of host memory after '\\+', such as 1x24G\\+512G"],
     ['1x24G+8', "'1x24G\\+8': expected the size of host memory .*: '8' is 8 bytes without a unit"],
     ['8x64G+0', "'8x64G\\+0': expected the size of host memory"],
     ['24G+16G+64G', "expected one size of host memory after '\\+'; commas stand between GPUs, as in 2x24G,1x12G\\+192G"],
     ['1x24G+1x12G', "'1x24G\\+1x12G': expected one size of host memory"],
     ['17x24G+512G', 'at most 16 GPUs in one machine'], ['9x24G,8x12G+512G', 'at most 16 GPUs in one machine'],
     [join(',', ('24G') x 17), 'at most 16 sets, or devices of one machine'],
     ['x24G', "'x24G': expected COUNTxSIZE, such as 8x80G: how many\\?"],
     ['0x24G', "'0x24G': expected 1 to 65536 devices"], ['65537x24G', 'expected 1 to 65536 devices'],
     ['-1x24G', "'-1x24G': expected COUNTxSIZE"], ['24Gx2', "'24Gx2': expected COUNTxSIZE"],
     ['24', "'24': expected COUNTxSIZE, such as 8x80G: '24' is 24 bytes without a unit"],
     ['8x64', "'8x64': .*: '64' is 64 bytes without a unit"], ['8x', "'8x': .*: of what size\\?"],
     [',24G', 'nothing before or after a comma'], ['24G,,12G', 'nothing before or after a comma'], ['24G,', 'nothing before'],
     ['', 'nothing before'], ['24Q', "'24Q' is no size; write a number with K, M, G or T"]) {
    fails("devices '$_->[0]'", 2, qr/^sluice plan: --devices: .*$_->[1]/, $SLUICE, 'plan', $config, '--recipe', 'q4_k_m', '--devices', $_->[0]);
}
fails('a micro-batch of nothing', 2, qr/--ubatch: expected 1 to 65536 tokens/, $SLUICE, 'plan', $config, '--recipe', 'q4_k_m', '--ubatch', '0');
is(scalar @{ plan_json('--recipe', 'q4_k_m', map { ('--devices', '8x64G') } 1 .. 16)->{memory} }, 48, 'sixteen sets, each of three entries');
fails('more sets than there is room', 2, qr/at most 16 sets/, $SLUICE, 'plan', $config, '--recipe', 'q4_k_m', map { ('--devices', '8x64G') } 1 .. 17);

# ---- how sets are told apart
sub sets_of {
    my $p = plan_json('--recipe', 'dq3_k_m', map { ('--devices', $_) } @_);
    return [map { my $s = $_; join ',', $s->{places} ? (map { ($_->{bytes} // 'any') =~ s/0{9}$//r } @{ $s->{places} }) : "$s->{devices}x" . $s->{device_bytes} / 1e9 }
        grep { $_->{places} || $_->{own_layout} } @{ $p->{memory} }];
}
for ([['8x80G,8x64G'], '8x80', '8x64'], [['24G'], '1x24'], [['8x64G', '1x24G+512G'], '8x64', '24,512'],
     [['24G,16G,12G'], '24,16,12,any'], [['2x24G,12G'], '24,24,12,any'], [['2x24G,1x12G+192G'], '24,24,12,192'],
     [['24g, 16GB,12gb+192Gb,+512G,8x64G'], '24,16,12,192', '512', '8x64'], [['24G,+64G'], '24,64'], [['2X24G'], '2x24']) {
    my ($devices, @want) = @$_;
    is_deeply(sets_of(@$devices), \@want, "@$devices");
}
$text = run_ok('beside RAM', $SLUICE, 'plan', $config, '--recipe', 'dq3_k_m', '--devices', '2x24G+512G,1x16G+256G,1x24G+256G,+512G')->{out};
like($text, qr/^2 x 24\.0 GB and 512\.0 GB of RAM with llama\.cpp, a context of 32768 tokens, estimated, in GB$/m, 'heading');
like($text, qr/^GPU 0 +14\.0 +2\.2 +4\.4 +20\.5 +24\.0\nGPU 1 +21\.2 +0\.2 +1\.5 +22\.9 +24\.0\nRAM +265\.7 +0\.0 +1\.1 +266\.8 +512\.0$/m, 'each place');
like($text, qr/^Fits, with the experts of the first 56 of 61 layers in RAM:\n +llama-server -m \S+-00001-of-00007\.gguf -c 32768 -ngl 99 --n-cpu-moe 56 -ts 57,5$/m, 'a command line');
like($text, qr/^Does not fit, even with all experts in RAM: a GPU lacks 1\.\d GB, and RAM \d\d\.\d GB\.$/m, 'what is missing');
like($text, qr/^Does not fit: RAM lacks \d\d\.\d GB\.$/m, 'of RAM alone');
like($text, qr/^Fits, all in RAM:\n +llama-server .* -ngl 0\nLongest context that fits: 163840 tokens$/m, 'without a GPU');
is(() = $text =~ /^Longest/mg, 2, 'no context where RAM is too little');
my @at = map { plan_json('--recipe', 'dq3_k_m', '--devices', '1x24G+512G', '--ctx', $_)->{memory}[0] } 128_000, 129_024;
is_deeply([map { $_->{longest_context}, !!$_->{fits} } @at], [128_000, !!1, 128_000, !!0], 'the longest context fits, and no longer one');
unlike($text, qr/Fits$/m, 'no table of equal devices');
$text = run_ok('GPUs that differ', $SLUICE, 'plan', $config, '--recipe', 'dq3_k_m', '--devices', '2x24G,1x12G+384G,1G,24G,+384G,16x64G+64G',
    '--devices', '24G,16G,12G')->{out};
like($text, qr/^2 x 24\.0 GB, 1 x 12\.0 GB and 384\.0 GB of RAM with llama\.cpp, a context of 32768 tokens/m, 'heading');
like($text, qr/^GPU 1 .* 24\.0\nGPU 2 .* 12\.0\nRAM .* 384\.0\nFits, with the experts of the first \d+ of 61 layers in RAM:\n/m, 'sizes');
like($text, qr/^GPU 0 +0\.0 +0\.0 +0\.0 +0\.0 +1\.0\n.*\nRAM .*\nFits without GPU 0, .*:\n.* -dev CUDA1$/m, 'one is too small');
like($text, qr/^Fits without GPU 15, with all layers on the GPUs:\n.* -dev CUDA0,\S*,CUDA14 -ts [1-9]\d*(,[1-9]\d*){14}$/m, '16 are too many');
like($text, qr/^1 x 24\.0 GB, 1 x 16\.0 GB and 1 x 12\.0 GB with llama\.cpp/m, 'without RAM');
like($text, qr/^RAM .* -\nDoes not fit: the GPUs lack \d+\.\d GB\. Part of it may lie in RAM: add its size, as in 24G,16G\+192G\.$/m, 'and not enough');
my $first = plan_json('--recipe', 'dq3_k_m', '--devices', '24G,8G,16G+512G')->{memory}[0];
ok(!exists $first->{device_bytes}, 'no size of a device where they differ');
@at = map { plan_json('--recipe', 'dq3_k_m', '--devices', '24G,8G,16G+512G', '--ctx', $_)->{memory}[0] } $first->{longest_context},
    $first->{longest_context} + 1024;
is_deeply([map { !!$_->{fits} } @at], $first->{longest_context} < 163840 ? [!!1, !!0] : [!!1, !!1], 'the longest context of GPUs that differ');

like(run($SLUICE, 'recipes')->{out}, qr/^dq3_k_m +3\.59 bits/m, 'recipes');
is(run($SLUICE, 'recipes', 'dq3_k_m')->{out}, slurp("$TOP/proto/recipes/dq3_k_m.recipe"),
    'a recipe is printed as it is');
is(decode_json(run($SLUICE, 'recipes', '--json')->{out})->{recipes}[0]{name}, 'dq3_k_m', 'recipes --json');
like(run($SLUICE, 'types')->{out}, qr/^q4_k +4\.5000 +256 +yes/m, 'types');
my $types = decode_json(run($SLUICE, 'types', '--json')->{out})->{types};
is(scalar(grep { $_->{name} eq 'q4_k' } @$types), 1, 'types --json');
done_testing();
