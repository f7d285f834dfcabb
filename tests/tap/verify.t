# `sluice verify` proves a file: whatever single byte of it is changed, it exits
# with 8 and says where.
use strict;
use warnings;
use SluiceTest;
use Test::More;

my $flips = $ENV{FLIPS} // ($QUICK ? 12 : 80);
my $seed  = $ENV{SEED} // time ^ $$;
srand $seed;
diag("SEED=$seed FLIPS=$flips");

my $dir  = scratch();
my $file = "$dir/x.gguf";
run_ok('convert', $SLUICE, 'convert', $TINY, '-o', $file, '--recipe', 'dq3_k_m');
run_ok('a whole file', $SLUICE, 'verify', $file);
run_ok('against its source', $SLUICE, 'verify', $file, '--source', $TINY);

my @tensors = sort { $a->[1] <=> $b->[1] } where($file);
my $data = $tensors[0][1];
my $size = -s $file;
my ($unnoticed, @unnamed) = (0);
for my $i (1 .. $flips) {
    # A third of them in the header, where the names and shapes are.
    my $at = $i % 3 ? $data + int rand($size - $data) : int rand $data;
    my $mask = 1 << int rand 8;
    flip_byte($file, $at, $mask);
    my $r = run($SLUICE, 'verify', $file);
    flip_byte($file, $at, $mask);
    $unnoticed++, diag("byte $at, bit $mask: exit $r->{rc}") unless $r->{rc} == 8;
    my ($t) = grep { $at >= $_->[1] && $at < $_->[1] + $_->[2] } @tensors;
    push @unnamed, "byte $at: $t->[0] is not in: $r->{err}" if $t && index($r->{err} . $r->{out}, $t->[0]) < 0;
    push @unnamed, "byte $at: says nothing" unless $r->{err} =~ /\S/;
}
is($unnoticed, 0, "$flips changed bits, each noticed (exit 8)");
is_deeply(\@unnamed, [], 'the tensor is named');
run_ok('all undone: whole again', $SLUICE, 'verify', $file);

# Length.
my $text = slurp($file);
spit("$dir/short.gguf", substr $text, 0, -32);
is(run($SLUICE, 'verify', "$dir/short.gguf")->{rc}, 8, 'cut short');
spit("$dir/long.gguf", $text . "\0" x 32);
is(run($SLUICE, 'verify', "$dir/long.gguf")->{rc}, 8, 'bytes after the end');
spit("$dir/none.gguf", '');
my $r = run($SLUICE, 'verify', "$dir/none.gguf");
ok($r->{rc} == 7 || $r->{rc} == 8, 'an empty file') or diag("exit $r->{rc}");
$r = run($SLUICE, 'verify', "$dir/nowhere.gguf");
is($r->{rc}, 7, 'no file');

# A file that is well in itself but not of this source.
my $other = checkpoint(scratch(), '--layers', '4', '--shards', '3');
my $wrong = scratch() . '/w.gguf';
run_ok('of another model', $SLUICE, 'convert', $other, '-o', $wrong, '--recipe', 'dq3_k_m');
run_ok('well in itself', $SLUICE, 'verify', $wrong);
is(run($SLUICE, 'verify', $wrong, '--source', $TINY)->{rc}, 8, 'but not of this source');

# Parts: a wrong one, a missing one, one from another set.
my $parts = scratch();
run_ok('in parts', $SLUICE, 'convert', $TINY, '-o', "$parts/p.gguf", '--recipe', 'q4_k_m', '--split-max-size', '4M');
my @parts = glob "$parts/*.gguf";
run_ok('all parts', $SLUICE, 'verify', $parts[0], '--source', $TINY);
flip_byte($parts[1], (-s $parts[1]) - 5000, 4);
fails('a byte of the second part', 8, qr/00002-of/, $SLUICE, 'verify', $parts[0]);
flip_byte($parts[1], (-s $parts[1]) - 5000, 4);
rename $parts[2], "$parts[2].away";
$r = run($SLUICE, 'verify', $parts[0]);
ok(($r->{rc} == 7 || $r->{rc} == 8) && $r->{err} =~ /00003-of/, 'a part is missing') or diag("exit $r->{rc} $r->{err}");
rename "$parts[2].away", $parts[2];

# The manifest is the one that llama-gguf-hash writes.
my %have = %{ hashes($file) };
my %said;
for (split /\n/, slurp("$file.xxh64")) {
    like($_, qr/^xxh64     [0-9a-f]{16}  x\.gguf(?::[\w.]+)?$/, 'a line') or last if keys %said < 3;
    $said{$2} = $1 if /^xxh64 +([0-9a-f]+)  x\.gguf:(.*)$/;
}
is_deeply(\%said, \%have, 'the manifest says what the file holds');

done_testing();
