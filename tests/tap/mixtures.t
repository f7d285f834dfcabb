# llama-quantize itself, in this run: from Sluice's F32 file of models of other
# shapes it makes what Sluice makes of the checkpoint, type by type, byte by byte.
use strict;
use warnings;
use SluiceTest;
use Test::More;

need_llama();
my $golden = run(python('llama.py', 'golden', "$TOP/tests/golden"));
plan(skip_all => "llama.cpp's package gives other bytes than tests/golden") if $golden->{out} !~ /"different": \[\]/;

my @mixtures = qw(Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 IQ4_NL IQ4_XS MXFP4_MOE Q1_0 Q2_0
                  TQ1_0 TQ2_0);
my %models = (
    'DeepSeek, 9 layers, E8M0 scales' => ['--layers', '9', '--experts', '4', '--scales', 'e8m0', '--hidden', '256', '--inter', '512', '--groups', '2'],
    'DeepSeek, odd sizes'     => ['--layers', '3', '--moe-inter', '320', '--kv-lora', '192', '--q-lora', '224', '--vocab', '4096'],
    'Qwen2, 10 layers'        => ['--arch', 'qwen2', '--layers', '10', '--hidden', '256', '--heads', '4', '--inter', '768'],
    'Qwen2, tied'             => ['--arch', 'qwen2', '--layers', '3', '--tied'],
    'Qwen3, 4 experts'        => ['--arch', 'qwen3moe', '--layers', '8', '--experts', '4', '--hidden', '256', '--head-dim', '64'],
    'Llama, 9 layers, GQA 4'  => ['--arch', 'llama', '--layers', '9', '--hidden', '256', '--heads', '8', '--inter', '512'],
    'Llama, whole heads, 320' => ['--arch', 'llama', '--hidden', '320', '--heads', '5', '--kv-heads', '5', '--inter', '864'],
);
for my $model (sort keys %models) {
    my $source = checkpoint(scratch(), @{ $models{$model} });
    my $dir = scratch();
    run_ok("$model: F32", $SLUICE, 'convert', $source, '-o', "$dir/f32.gguf", '--recipe', 'f32', '--quiet');
    my @bad;
    for my $m (@mixtures) {
        my $theirs = run(python('llama.py', 'quantize', "$dir/f32.gguf", "$dir/theirs.gguf", $m));
        my $ours = run($SLUICE, 'convert', $source, '-o', "$dir/ours.gguf", '--recipe', lc $m, '--quiet', '--force');
        if ($theirs->{rc} || $ours->{rc}) {
            # A mixture that does not fit the model must fail on both sides.
            push @bad, "$m: llama-quantize $theirs->{rc}, sluice $ours->{rc}: $ours->{err}$theirs->{out}" if !$theirs->{rc} != !$ours->{rc};
            next;
        }
        my ($a, $b) = (hashes("$dir/theirs.gguf"), hashes("$dir/ours.gguf"));
        my %type = map { $_->[0] => $_->[3] } where("$dir/theirs.gguf");
        my %mine = map { $_->[0] => $_->[3] } where("$dir/ours.gguf");
        push @bad, map { "$m $_: type $mine{$_}, llama-quantize $type{$_}" } grep { ($mine{$_} // -1) != $type{$_} } sort keys %type;
        push @bad, map { "$m $_: bytes" } grep { $mine{$_} == $type{$_} && $a->{$_} ne $b->{$_} } sort grep { defined $mine{$_} } keys %type;
        push @bad, "$m: other tensors" if join(' ', sort keys %$a) ne join(' ', sort keys %$b);
    }
    is_deeply([@bad[0 .. ($#bad < 20 ? $#bad : 20)]], [], "$model: " . @mixtures . ' mixtures equal llama-quantize\'s');
    system 'rm', '-rf', $source, $dir;
}

done_testing();
