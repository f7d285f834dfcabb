#!/usr/bin/env perl
# The same checkpoint two ways: (a) an F32 GGUF of it, then llama-quantize (llama.cpp's
# library out of the npm package, tests/tools/llama.py); (b) sluice convert, straight from
# FP8. What each took, and whether every tensor's bytes are equal, goes to standard
# output as Markdown. llama.cpp's Python converter needs torch and another gigabyte, so
# the F32 GGUF is made by sluice (equal, tensor by tensor, by tests/tap/reference.t);
# its time is shown, and not counted against llama.cpp.
#   usage: peers.pl [--gb N] [--dir DIR] [--recipe NAME] [--threads N]
use strict;
use warnings;
use Cwd qw(abs_path);
use Digest::SHA;
use File::Basename qw(dirname);
use File::Path qw(make_path);
use Getopt::Long;
use JSON::PP;
use POSIX qw(strftime);

my $top   = abs_path(dirname(__FILE__) . '/../..');
my $build = abs_path($ENV{SLUICE_BUILD} || "$top/build/release") or die "build first: make\n";
my $usage = "usage: peers.pl [--gb N] [--dir DIR] [--recipe NAME] [--threads N]\n";
my ($gb, $dir, $recipe, $threads) = (3, "$top/build/bench-peers", 'q4_k_m', 2);
GetOptions('gb=f' => \$gb, 'dir=s' => \$dir, 'recipe=s' => \$recipe, 'threads=i' => \$threads) && !@ARGV && $gb >= 0.5 or die $usage;
make_path($dir);
my $python = -x "$top/build/venv/bin/python" ? "$top/build/venv/bin/python" : 'python3';

sub slurp { open my $f, '<', $_[0] or return ''; local $/; return scalar <$f> }
sub gbs { return sprintf '%.2f', $_[0] / 1e9 }

# Out of the page cache, so that each way reads the disk.
sub forget {
    for (@_) { system("dd of=$_ oflag=nocache conv=notrunc,fdatasync count=0 status=none") == 0 or die "$_: dd failed\n" }
}

sub measure {
    my ($name, @cmd) = @_;
    system("$build/tools/resources $dir/$name.json @cmd >$dir/$name.log 2>$dir/$name.err") == 0 or die "$name:\n" . slurp("$dir/$name.err");
    return decode_json(slurp("$dir/$name.json"));
}

# SHA-256 of each tensor's bytes, with its type; where they lie says a reader that
# shares nothing with Sluice.
sub tensor_hashes {
    my ($file) = @_;
    my %sum;
    open my $f, '<:raw', $file or die "$file: $!\n";
    for (split /\n/, `$build/tools/gguf_hash --where $file`) {
        my ($name, $at, $left, $type) = split ' ';
        my $sha = Digest::SHA->new(256);
        seek $f, $at, 0;
        while ($left) {
            my $n = read $f, my $piece, $left < 1 << 20 ? $left : 1 << 20 or die "$file: too short\n";
            $sha->add($piece);
            $left -= $n;
        }
        $sum{$name} = "$type " . $sha->hexdigest;
    }
    %sum or die "$file: no tensors\n";
    return \%sum;
}

my $experts = int(($gb * 1e9 - 1.9e9) / 44e6 / 8) * 8;
my @shape   = $experts >= 8 ? (qw(--layers 4 --vocab 16384 --shards 2 --experts), $experts)
    : (qw(--layers 4 --vocab 16384 --hidden 2048 --inter 6144 --moe-inter 1024 --shards 2 --experts), int($gb * 1e9 / 6.3e6 / 8) * 8);
my $source = "$dir/source";
-e "$source/config.json" or system("$build/tools/make_checkpoint --preset r1 @shape --no-mtp --tokenizer $top/tests/tiny-v3 --out $source >&2") == 0 or die;
my @shards = glob "$source/*.safetensors";
my $bytes  = 0;
$bytes += -s $_ for @shards;

forget(@shards);
my $f32 = measure('f32', "$build/sluice", 'convert', $source, '-o', "$dir/f32.gguf", qw(--recipe f32 --split-max-size 0 --quiet --force --threads), $threads);
forget("$dir/f32.gguf");
my $theirs = measure('llama', $python, "$top/tests/tools/llama.py", 'quantize', "$dir/f32.gguf", "$dir/theirs.gguf", uc $recipe, '--threads', $threads);
forget(@shards);
my $ours = measure('sluice', "$build/sluice", 'convert', $source, '-o', "$dir/ours.gguf", '--recipe', $recipe, qw(--split-max-size 0 --stats --force --threads), $threads);
my ($a, $b) = map { tensor_hashes("$dir/$_.gguf") } qw(theirs ours);
my @differ = grep { ($b->{$_} // '') ne $a->{$_} } keys %$a;
push @differ, grep { !$a->{$_} } keys %$b;
my $scratch = -s "$dir/f32.gguf";
my ($cpu) = slurp('/proc/cpuinfo') =~ /^model name\s*: (.*)$/m;
printf "DeepSeek-V3's form, %s GB of FP8 in, %s GB of %s out, %d threads each; %s, load %s at the end; %s. llama.cpp %s.\n\n", gbs($bytes),
    gbs(-s "$dir/ours.gguf"), uc $recipe, $threads, $cpu, (split ' ', slurp('/proc/loadavg'))[0], strftime('%Y-%m-%d', gmtime),
    (slurp("$top/tests/tools/llama.py") =~ /^RELEASE = "(.*?)"/m)[0] . ' (node-llama-cpp, CPU)';
print "| | F32 GGUF | then llama-quantize | Sluice, from FP8 |\n|---|---|---|---|\n";
my $row = sub { print '| ', join(' | ', @_), " |\n" };
$row->('wall time, s', map { sprintf '%.1f', $_->{wall} } $f32, $theirs, $ours);
$row->('processor time, s', map { sprintf '%.1f', $_->{user} + $_->{sys} } $f32, $theirs, $ours);
$row->('peak memory, MB', map { sprintf '%.0f', $_->{peak} / 1e6 } $f32, $theirs, $ours);
$row->('disk beside input and output, GB', gbs($scratch), gbs($scratch), '0');
$row->('read from the disk, GB', map { gbs($_->{read_bytes}) } $f32, $theirs, $ours);
$row->('written, GB', map { gbs($_->{write_bytes}) } $f32, $theirs, $ours);
$row->('tensors whose SHA-256 differs', '', '', sprintf '%d of %d', scalar @differ, scalar keys %$a);
printf "\nAgainst llama-quantize alone: %.1f times less wall time, %.1f times less processor time, %.0f times less memory.\n",
    $theirs->{wall} / $ours->{wall}, ($theirs->{user} + $theirs->{sys}) / ($ours->{user} + $ours->{sys}), $theirs->{peak} / $ours->{peak};
unlink map { "$dir/$_" } qw(f32.gguf theirs.gguf ours.gguf f32.gguf.xxh64 ours.gguf.xxh64);
die join("\n", 'these tensors differ:', sort @differ), "\n" if @differ;
