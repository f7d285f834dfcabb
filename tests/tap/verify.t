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
SKIP: {
    skip 'no script(1)', 2 if run('script', '--version')->{rc};
    local $ENV{TERM} = 'xterm';
    run('script', '-qec', "$SLUICE verify $file --source $TINY --sample all", "$dir/seen");
    my @seen = slurp("$dir/seen") =~ /\rcompare .*?(\d+) %/g;
    cmp_ok(scalar @seen, '>=', 1, 'how far it is, five times a second');
    is(join(' ', @seen), join(' ', sort { $a <=> $b } grep { $_ <= 100 } @seen), 'forward, and no further than there is');
}

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

# Every field of every tensor's record in the header, bytes of every key-value, data
# and padding of a small output, in one file and in parts: each flip is named.
my $small = checkpoint(scratch(), '--layers', '2', '--hidden', '256', '--inter', '256', '--moe-inter', '256', '--experts', '2',
    '--groups', '1', '--heads', '2', '--kv-heads', '2', '--q-lora', '256', '--kv-lora', '256');
my $dir2 = scratch();
run_ok('a small output', $SLUICE, 'convert', $small, '-o', "$dir2/one.gguf", '--recipe', 'q4_k_m', '-q');
run_ok('the same in parts', $SLUICE, 'convert', $small, '-o', "$dir2/set.gguf", '--recipe', 'q4_k_m', '-q', '--split-max-size', '600K');
my @set = glob "$dir2/set-*.gguf";
cmp_ok(scalar @set, '>=', 2, 'several parts');
for my $case ([$dir2 . '/one.gguf', "$dir2/one.gguf"], map { [$set[0], $_] } @set[0 .. ($QUICK ? 0 : $#set)]) {
    my ($whole, $part) = @$case;
    my ($name) = $part =~ m{([^/]+)$};
    my @flips = flips_of($part);
    my $share = $QUICK ? 0.1 : $whole eq $part && @flips > 400 ? 1 : 0.35; # of one file all of them
    @flips = grep { rand() < $share } @flips;
    my @wrong;
    for my $f (@flips) {
        my ($at, $what, @want) = @$f;
        my $mask = 1 << int rand 8;
        flip_byte($part, $at, $mask);
        my $r = run($SLUICE, 'verify', '-q', $whole);
        flip_byte($part, $at, $mask);
        my $said = $r->{err} . $r->{out};
        my @missing = grep { $said !~ /$_/ } @want, qr/\Q$name\E/;
        push @wrong, "$what, byte $at, mask $mask: exit $r->{rc}, lacks @missing: $said" if $r->{rc} != 8 || @missing;
    }
    is_deeply([@wrong[0 .. ($#wrong < 5 ? $#wrong : 5)]], [], "$name: " . @flips . ' flips, each named (exit 8)');
    run_ok('all undone', $SLUICE, 'verify', '-q', $whole);
}

# [byte, what it is, patterns that the message must have...] of a GGUF file.
sub flips_of {
    my ($path) = @_;
    my $text = slurp($path);
    my ($n_tensors, $n_kv) = unpack 'x8 Q<Q<', $text;
    my ($at, @flips) = (24);
    my $any = sub { $_[0] + int rand $_[1] };
    my $skip; # the bytes of a value
    $skip = sub {
        my ($type, $p) = @_;
        return 8 + unpack 'Q<', substr $text, $p, 8 if $type == 8;
        return (1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8)[$type] if $type != 9;
        my ($elem, $n) = unpack 'L<Q<', substr $text, $p, 12;
        my $bytes = 12;
        return 12 + $n * $skip->($elem, 0) if $elem != 8;
        $bytes += $skip->(8, $p + $bytes) for 1 .. $n;
        return $bytes;
    };
    for (1 .. $n_kv) {
        my $len = unpack 'Q<', substr $text, $at, 8;
        my $key = substr $text, $at + 8, $len;
        my $value = $at + 8 + $len + 4;
        my $bytes = $skip->(unpack('L<', substr $text, $value - 4, 4), $value);
        my @want = (qr/metadata key \Q$key\E[ :]/, qr/changes no tensor/);
        push @flips, [$any->($at, 8), "length of key $key", @want], [$any->($at + 8, $len), "key $key", @want],
            [$any->($value - 4, 4), "type of $key", @want], [$any->($value, $bytes), "value of $key", @want];
        $at = $value + $bytes;
    }
    my $n = 0;
    my @where = where($path);
    for my $t (sort { $a->[1] <=> $b->[1] } @where) {
        my $len = unpack 'Q<', substr $text, $at, 8;
        my ($dims) = unpack 'L<', substr $text, $at + 8 + $len, 4;
        my $p = $at + 8 + $len + 4;
        my @want = qr/tensor \Q$t->[0]\E: its record in the header \(@{[++$n]} of @{[scalar @where]}\) is damaged/;
        push @flips, [$any->($at, 8), "length of $t->[0]", @want, qr/the length of its name/],
            [$any->($at + 8, $len), "name $t->[0]", @want, qr/its name/],
            [$any->($p - 4, 4), "dimensions of $t->[0]", @want, qr/its number of dimensions/],
            (map { [$any->($p + 8 * $_, 8), "dimension $_ of $t->[0]", @want, qr/dimension @{[$_ + 1]} of $dims/] } 0 .. $dims - 1),
            [$any->($p + 8 * $dims, 4), "type of $t->[0]", @want, qr/its type/],
            [$any->($p + 8 * $dims + 4, 8), "offset of $t->[0]", @want, qr/its offset/],
            [$any->($t->[1], $t->[2]), "data of $t->[0]", qr/tensor \Q$t->[0]\E/];
        my $pad = -($t->[1] + $t->[2]) % 32;
        push @flips, [$any->($t->[1] + $t->[2], $pad), "padding of $t->[0]", qr/padding after tensor \Q$t->[0]\E/] if $pad;
        $at = $p + 8 * $dims + 12;
    }
    return @flips;
}

# One test: verify fails with a line of standard output that matches; standard error counts such lines.
sub finds {
    my ($name, $pattern, $path) = @_;
    my $r = run($SLUICE, 'verify', $path);
    ok($r->{rc} == 8 && $r->{out} =~ $pattern && $r->{out} =~ /\AFAILED  .*\n\z/ && $r->{err} eq "sluice verify: $path: 1 failure, on standard output\n",
        $name) or diag("exit $r->{rc}\n$r->{out}$r->{err}");
    my ($line, $end) = json_lines(run($SLUICE, 'verify', $path, '--json')->{out});
    ok($line->{text} =~ $pattern && $end->{message_type} eq 'verify' && $end->{failures} == 1, "$name: --json");
}

# Length.
my $text = slurp($file);
spit("$dir/short.gguf", substr $text, 0, -32);
finds('cut short', qr/: tensor \S+: the file ends before its data do$/, "$dir/short.gguf");
for my $in (['the checksums of its records', index($text, 'sluice.checksum.records') + 60], ['a tensor info', index($text, '.weight', index($text, 'sluice.checksum.records'))]) {
    spit("$dir/short.gguf", substr $text, 0, $in->[1]);
    finds("cut short in $in->[0]", qr/: header: the file ends inside it or a length in it is damaged/, "$dir/short.gguf");
}
spit("$dir/long.gguf", $text . "\0" x 32);
is(run($SLUICE, 'verify', "$dir/long.gguf")->{rc}, 8, 'bytes after the end');
spit("$dir/none.gguf", '');
my $r = run($SLUICE, 'verify', "$dir/none.gguf");
ok($r->{rc} == 7 || $r->{rc} == 8, 'an empty file') or diag("exit $r->{rc}");
$r = run($SLUICE, 'verify', "$dir/nowhere.gguf");
is($r->{rc}, 7, 'no file');
fails('its manifest', 2, qr{x\.gguf\.xxh64 is a list of hashes; give the file itself: \Q$file\E$}, $SLUICE, 'verify', "$file.xxh64");
fails('a folder of several', 2, qr{\Q$dir\E: holds several GGUF models, such as \S+\.gguf and \S+\.gguf; name one}, $SLUICE, 'verify', $dir);

# A file that is well in itself but not of this source.
my $other = checkpoint(scratch(), '--layers', '4', '--shards', '3');
my $wrong = scratch() . '/w.gguf';
run_ok('of another model', $SLUICE, 'convert', $other, '-o', $wrong, '--recipe', 'dq3_k_m');
run_ok('well in itself', $SLUICE, 'verify', $wrong);
$r = fails('but not of this source', 8, qr/: 1 failure, on standard output$/, $SLUICE, 'verify', $wrong, '--source', $TINY);
like($r->{out}, qr/\AFAILED  \Q$wrong\E: 70 of 70 tensors are not what \Q$TINY\E gives: another model, .*\? The first: tensor output\.weight: .*\n\z/,
    'which is said once');
# Of one that some tensors agree with each of the others is named.
my $mixed = copy_checkpoint($TINY, "$dir/mixed", map { s{.*/}{}r } glob "$TINY/*.safetensors");
for my $shard (glob "$mixed/*.safetensors") {
    my ($n, $header) = unpack 'Q<a*', substr slurp($shard), 0, 200000;
    my %at = substr($header, 0, $n) =~ /"(model\.layers\.[0-9]\.(?:input_layernorm|post_attention_layernorm)\.weight)".*?"data_offsets":\s*\[(\d+)/g;
    flip_byte($shard, 8 + $n + $at{$_}, 1) for keys %at;
}
$r = fails('norms of another version', 8, qr/: 8 failures, on standard output$/, $SLUICE, 'verify', $file, '--source', $mixed);
is(scalar(() = $r->{out} =~ /^FAILED  \S+: tensor blk\.\d\.(?:attn|ffn)_norm\.weight: block 0/mg), 8, 'each is named') or diag($r->{out});

{
    my ($shard) = glob "$mixed/*.safetensors";
    open my $f, '+<:raw', $shard or die;
    seek $f, 8 + unpack('Q<', slurp($shard)), 0;
    print $f "\xff" x 4;
    close $f;
    fails('NaN in the source', 7, qr/^sluice verify: tensor '\S+' in '\Q$shard\E': row 0, column 0 is NaN or infinite; the source is damaged$/,
        $SLUICE, 'verify', $file, '--source', $mixed);
}

# Parts: a wrong one, a missing one, one from another set.
my $parts = scratch();
run_ok('in parts', $SLUICE, 'convert', $TINY, '-o', "$parts/p.gguf", '--recipe', 'q4_k_m', '--split-max-size', '4M');
my @parts = glob "$parts/*.gguf";
run_ok('all parts', $SLUICE, 'verify', $parts[0], '--source', $TINY);
flip_byte($parts[1], (-s $parts[1]) - 5000, 4);
finds('a byte of the second part', qr/00002-of/, $parts[0]);
flip_byte($parts[1], (-s $parts[1]) - 5000, 4);
fails("a later part in place of the first: $_->[0]", 2, qr/: this is part 2 of \d+; name the first part/, $SLUICE, @$_)
    for ['verify', $parts[1]], ['inspect', $parts[1]], ['plan', $parts[1], '--recipe', 'copy'];
rename $parts[2], "$parts[2].away";
fails("a part is missing: $_->[0]", 7, qr/p-00003-of-\d+\.gguf: part 3 of \d+ is missing; all parts/, $SLUICE, @$_)
    for ['verify', $parts[0]], ['inspect', $parts[0]], ['plan', $parts[0], '--recipe', 'copy'];
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
