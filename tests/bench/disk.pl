#!/usr/bin/env perl
# `sluice convert` against the disk: types that cost next to nothing must be as fast as
# fio moves the same bytes (reads and writes mixed in the same proportion, O_DIRECT) on
# the same disk, each round beside the other; with dq3_k_m the processor must be the
# limit. A Markdown table goes to standard output; exit status 1 when a bound is missed.
#   usage: disk.pl [--gb N] [--dir DIR] [--rounds N] [--only RECIPES]     N GB of drawn data (20)
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Path qw(make_path remove_tree);
use Getopt::Long;
use JSON::PP;
use POSIX qw(strftime);

my $top   = abs_path(dirname(__FILE__) . '/../..');
my $build = abs_path($ENV{SLUICE_BUILD} || "$top/build/release") or die "build first: make\n";
my ($gb, $dir, $rounds, $only) = (20, "$top/build/bench-disk", 3, 'bf16,q8_0,dq3_k_m');
GetOptions('gb=f' => \$gb, 'dir=s' => \$dir, 'rounds=i' => \$rounds, 'only=s' => \$only) && !@ARGV && $gb >= 1 or die "usage: disk.pl [--gb N] [--dir DIR] [--rounds N] [--only RECIPES]\n";
my ($fio) = grep { -x } map { "$_/fio" } split /:/, $ENV{PATH};
$fio or die "fio is not here: apt-get install fio\n";
make_path($dir);

sub slurp { open my $f, '<', $_[0] or return ''; local $/; return scalar <$f> }
sub sh { system(@_) == 0 or die "@_: failed\n" }
sub best { return (sort { $b <=> $a } @_)[0] }
sub median { my @s = sort { $a <=> $b } @_; return $s[$#s / 2] }

# Half of it BF16, half of it FP8 in DeepSeek's form. What is there already stays.
sub make {
    my ($name, @options) = @_;
    sh("$build/tools/make_checkpoint", @options, '--tokenizer', "$top/tests/tiny-v3", '--out', "$dir/$name") if !-e "$dir/$name/config.json";
    my $bytes = 0;
    $bytes += -s $_ for glob "$dir/$name/*.safetensors";
    return $bytes;
}
my $layers  = int($gb / 2 / 0.436 + 0.5) || 1;
my $experts = int(($gb * 0.5e9 - 3.4e9) / 88e6 / 8) * 8;
my $total = make('bf16', qw(--arch llama --hidden 4096 --inter 14336 --heads 32 --kv-heads 8 --vocab 32000 --shards 3 --layers), $layers)
    + make('fp8', qw(--preset r1 --layers 4 --vocab 16384 --shards 3 --experts), $experts > 8 ? $experts : 8);

# GB/s of fio, read and written together, in the proportion read : written.
sub fio {
    my ($read, $written) = @_;
    my $text = `$fio --name=disk --directory=$dir --size=3G --bs=4M --rw=rw --rwmixread=@{[int(100 * $read / ($read + $written) + 0.5)]} --direct=1 --ioengine=io_uring --iodepth=16 --end_fsync=1 --output-format=json`;
    my $job = decode_json($text =~ s/^[^{]*//r)->{jobs}[0];
    unlink glob "$dir/disk.*";
    my $ms = best($job->{read}{runtime}, $job->{write}{runtime}) || 1;
    return ($job->{read}{io_bytes} + $job->{write}{io_bytes}) / $ms / 1e6;
}

sub convert {
    my ($source, $recipe) = @_;
    remove_tree("$dir/out");
    make_path("$dir/out");
    sh("$build/sluice convert $dir/$source -o $dir/out/ --recipe $recipe --stats --direct on --quiet 2>$dir/stats");
    my $t = slurp("$dir/stats");
    my %s;
    @s{qw(seconds read written)} = $t =~ /convert ([\d.]+) s; read ([\d.]+) GB.*?, wrote ([\d.]+) GB/ or die "no stats:\n$t";
    ($s{busy}) = $t =~ /: ([\d.]+) % of their time with work/;
    ($s{io})   = $t =~ /all else \(([\d.]+) % of a core/;
    ($s{by})   = $t =~ /bound by (.*)/;
    ($s{check}) = $t =~ /again at ([\d.]+) GB/;
    return \%s;
}

my ($bad, @rows) = (0);
for my $case (['bf16', 'bf16'], ['bf16', 'q8_0'], ['fp8', 'dq3_k_m']) {
    my ($source, $recipe) = @$case;
    next if ",$only," !~ /,$recipe,/;
    my (@ours, @fio, @io, @busy, @check, $s);
    for (1 .. ($recipe eq 'dq3_k_m' ? 1 : $rounds)) {
        $s = convert($source, $recipe);
        push @ours, ($s->{read} + $s->{written}) / $s->{seconds};
        push @fio, fio($s->{read}, $s->{written});
        push @io, $s->{io};
        push @busy, $s->{busy};
        push @check, $s->{check};
    }
    my $ratio = 100 * median(map { $ours[$_] / $fio[$_] } 0 .. $#ours);
    push @rows, sprintf '| %s to %s | %.1f + %.1f | %.2f | %.2f | %.0f %% | %.1f %% | %.1f %% | %s | %.2f |', uc $source, $recipe,
        $s->{read}, $s->{written}, median(@ours), median(@fio), $ratio, median(@busy), median(@io), $s->{by}, median(@check);
    print STDERR "$rows[-1]\n";
    $bad += $recipe eq 'dq3_k_m' ? median(@busy) < 95 : $ratio < 90 || median(@io) > 10;
}
remove_tree("$dir/out");
my ($cpu) = slurp('/proc/cpuinfo') =~ /^model name\s*: (.*)$/m;
printf "## Against the disk: %.1f GB of drawn data\n\n%s, %d processors, load %s at the end; %s; the median of %d rounds, each with fio beside it.\n\n", $total / 1e9,
    $cpu, scalar(() = slurp('/proc/cpuinfo') =~ /^processor\s*:/mg), (split ' ', slurp('/proc/loadavg'))[0], strftime('%Y-%m-%d', gmtime), $rounds;
print "| conversion | GB read + written | GB/s | fio, GB/s | of fio | threads busy | processor for I/O, of a core | bound by | check, GB/s |\n|---|---|---|---|---|---|---|---|---|\n";
print "$_\n" for @rows;
exit($bad ? 1 : 0);
