#!/usr/bin/env perl
# Machine instructions issued for a weight, beside the slots that ptx_count takes PTX for: each
# instruction of the machine code is taken as often as the line of PTX that ptxas made it of.
# What says that this holds is the last column: of additions and multiplications of floats each line has
# exactly one, were a loop unrolled or a value made elsewhere it would have more or none. The
# out-of-line parts of divisions and roots, for numbers out of the usual range, are left out.
# Needs ptxas, and nvdisasm in PATH.
# usage: gpu_sass.pl PTX_COUNT [ARCH [OPTION of ptx_count...]]
use strict;
use warnings;
use File::Temp qw(tempdir);

my ($count, $arch, @options) = @ARGV;
die "usage: gpu_sass.pl PTX_COUNT [ARCH [OPTION of ptx_count...]]\n" unless $count;
$arch //= 'sm_90';
my %number = (f32 => 0, f16 => 1, bf16 => 30, q4_0 => 2, q4_1 => 3, q5_0 => 6, q5_1 => 7, q8_0 => 8, q2_k => 10, q3_k => 11, q4_k => 12,
    q5_k => 13, q6_k => 14, iq2_xxs => 16, iq2_xs => 17, iq3_xxs => 18, iq1_s => 19, iq4_nl => 20, iq3_s => 21, iq2_s => 22, iq4_xs => 23, iq1_m => 29);
my $folder = tempdir(CLEANUP => 1);
my %module;

# A module: its PTX by lines, where its kernels begin, and by kernel its instructions as [text, line of PTX].
sub load {
    my ($name) = @_;
    my %m;
    open my $ptx, '<', "$folder/$name" or die "gpu_sass: $name: $!\n";
    $m{ptx} = ['', <$ptx>];
    ($m{kernels}) = grep { $m{ptx}[$_] =~ /\.entry / } 1 .. $#{ $m{ptx} };
    system("ptxas -arch=$arch -O3 -lineinfo '$folder/$name' -o '$folder/cubin'") == 0 or die "gpu_sass: ptxas failed\n";
    open my $text, '-|', "nvdisasm -gp -c '$folder/cubin'" or die "gpu_sass: nvdisasm: $!\n";
    my ($code, $line, $out, $over, @since);
    while (<$text>) {
        if (/^\s*\.section\s+\.text\.(\S+?),/) { $code = $m{code}{$1} = []; $out = 0 }
        next unless $code;
        if (/^\s*(\$\S+|\.L_\S+):/) { $out = /\$__internal/ if /^\s*\$/; $over = 0; @since = () }
        $line = $1 if /^\s*\/\/## File "\.nv_debug_ptx_txt", line (\d+)/;
        next if $out || !/^\s*\/\*[0-9a-f]{4,}\*\/\s+(.*?) ;/ || $1 =~ /^NOP/;
        my $i = [$1, $over ? 0 : $line];
        push @$code, $i;
        # What stands between a branch and such a call, and then up to a label, is for the call.
        push @since, $i;
        @since = () if $i->[0] =~ /^@!?U?P\d BRA/;
        next unless $i->[0] =~ /CALL.*\$__internal/;
        $over = 1;
        $_->[1] = 0 for splice @since;
    }
    close $text or die "gpu_sass: nvdisasm failed\n";
    return \%m;
}

sub row {
    my ($type, $weighted, $slots, $weights, $name, %times) = @_;
    my $m = $module{$name} //= load($name);
    my ($w, $n) = ($weighted ? 1 : 0, $number{$type});
    my @kernels = sort grep { /quantize_(?:super|small)ILi${n}ELb${w}E|convert_valuesILi${n}E/ || ($w && $type =~ /^q[45]_[01]$/ && /row_means/) } keys %{ $m->{code} };
    my ($all, $floats, $found, %whose, %copies) = (0, 0, 0);
    for my $k (@kernels) {
        for (@{ $m->{code}{$k} }) {
            my ($text, $line) = @$_;
            # A function that two kernels call is counted with the first.
            next if !$line || ($line < $m->{kernels} && ($whose{$line} //= $k) ne $k);
            $all += $times{$line} // 0;
            $copies{$line}++ if $text =~ /\b(?:FADD|FMUL)\b/;
        }
    }
    for (grep { $m->{ptx}[$_] =~ /\b(?:add|sub|mul)\.r[nm]\.f32/ } keys %times) {
        $floats += $times{$_};
        $found += $times{$_} * ($copies{$_} // 0);
    }
    printf "| %s%s | %.0f | %.0f | %.2f | %.0f %% |\n", $type, $w ? ', weighted' : '', $slots, $all * 32 / $weights, $all * 32 / $weights / $slots,
        100 * $found / $floats;
}

system($count, '-x', $folder) == 0 or die "gpu_sass: $count failed\n";
open my $counts, '-|', $count, '-l', @options or die "gpu_sass: $count: $!\n";
my ($weights, @row, $name, %times) = (65536);
for (0 .. $#options - 1) { $weights = int(($options[$_ + 1] + 4095) / 4096) * 4096 if $options[$_] eq '-n' }
print "| type | slots | $arch | over slots | floats found |\n|---|---|---|---|---|\n";
while (<$counts>) {
    ($name, $times{$2}) = ($1, $3) if /^(\S+\.ptx) (\d+) (\d+)$/;
    next unless /^\| (\w+)(, weighted)? \| \d+ \| (\d+) \|/;
    row(@row, $weights, $name, %times) if @row;
    @row = ($1, $2, $3);
    %times = ();
}
row(@row, $weights, $name, %times) if @row;
close $counts or die "gpu_sass: $count failed\n";
