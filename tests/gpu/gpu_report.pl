#!/usr/bin/env perl
# Registers, spills, stack and shared memory of every GPU kernel on every target, and
# instructions that fuse or approximate. Needs nvcc's ptxas; with cuobjdump in PATH (or
# in CUOBJDUMP) what is in the objects is read itself, machine code included.
# With the machine code also: instructions a weight in the loops of the searches (sm_90), as they
# are laid out, beside the count that the floors stand on; out-of-line parts of divisions, what is
# before and after the loops, and threads that wait for others are not in it.
# usage: NVCC=nvcc NVFLAGS=... CUDA_FOR=... gpu_report.pl OBJECT.cu.o...
#        gpu_report.pl --check-sass FILE...   only the scan, of cuobjdump's text (for tests)
# Exit: 0, 1 when a forbidden instruction was found or nothing could be read.
use strict;
use warnings;
use File::Temp qw(tempdir);

# Machine code. A division or a root to nearest is a sequence that ptxas makes from one
# MUFU.RCP or MUFU.RSQ, a few FFMAs, and flushing operations on numbers that cannot be
# subnormal; the 64-bit division of integers begins with MUFU.RCP too. So these stand in a
# kernel in proportion to its MUFUs (5 FFMAs each at most, as read off ptxas 13.0), and one
# fused multiply-add in a search's loop, which is unrolled 16 or 32 times, breaks that.
# Other functions of MUFU, double precision, and half precision other than as a way to
# set a register, never stand there. The disassembler of CUDA 11.8 leaves out what it has no name for (VIMNMX of
# sm_90): instructions are 16 bytes, and a place that is missing is a finding.
my @never = (qr/\bMUFU\.(?!RCP\b|RSQ\b|RCP64H\b|RSQ64H\b)\w+/, qr/\b(?:DFMA|DADD|DMUL)\b/,
    qr/\bH(?:ADD2|MUL2|FMA2)\S* R\d+, (?!-RZ, RZ,).*?;/, qr/\bFSWZADD\b/);

sub scan {
    my ($name, @lines) = @_;
    my ($kernel, $next, @found, %n) = ('?');
    for my $line (@lines) {
        ($kernel, $next) = (short($1)) if $line =~ /Function : (\S+)/;
        if ($line =~ m{^\s+/\*([0-9a-f]{4,6})\*/\s}) {
            $n{$kernel}{hole} //= $1 if defined $next && hex $1 != $next;
            $next = 16 + hex $1;
        }
        for my $rule (@never) {
            push @found, "$name: $kernel: $&" if $line =~ $rule;
        }
        $n{$kernel}{ffma}++ if $line =~ /\bFFMA\b/;
        $n{$kernel}{ftz}++  if $line =~ /\bF(?:ADD|MUL|FMA|SETP|MNMX)(?:\.\w+)*\.FTZ\b/;
        $n{$kernel}{mufu}++ if $line =~ /\bMUFU\.(?:RCP|RSQ)/;
    }
    for my $k (sort keys %n) {
        push @found, "$name: $k: instructions before $n{$k}{hole} are left out: take a newer cuobjdump" if $n{$k}{hole};
        my ($ffma, $ftz, $mufu) = map { $n{$k}{$_} // 0 } qw(ffma ftz mufu);
        push @found, "$name: $k: $ffma FFMA with $mufu divisions and roots" if $ffma > 5 * $mufu;
        push @found, "$name: $k: $ftz flushing operations with $mufu divisions and roots" if $ftz > 3 * $mufu;
    }
    return @found;
}

my %names = (0 => 'f32', 1 => 'f16', 30 => 'bf16', 2 => 'q4_0', 3 => 'q4_1', 6 => 'q5_0', 7 => 'q5_1', 8 => 'q8_0', 10 => 'q2_k',
    11 => 'q3_k', 12 => 'q4_k', 13 => 'q5_k', 14 => 'q6_k', 16 => 'iq2_xxs', 17 => 'iq2_xs', 18 => 'iq3_xxs', 19 => 'iq1_s',
    20 => 'iq4_nl', 21 => 'iq3_s', 22 => 'iq2_s', 23 => 'iq4_xs', 29 => 'iq1_m');

sub short {
    my ($f) = @_;
    return $names{$2} . (defined $4 && $4 ? ' weighted' : '') if $f =~ /(quantize_super|quantize_small|convert_values)ILi(\d+)E(Lb(\d)E)?/;
    return 'row means' if $f =~ /row_means/;
    return $f;
}

# Kernel => the loop's turns for a sub-block, values in it, instructions a weight behind the floor
# (gpu_bench.c). The loop: the innermost one with a division, and most instructions.
my %search = (
    'q2_k' => [16, 16, 385], 'q2_k weighted' => [37, 16, 870], 'q3_k' => [5, 16, 225], 'q3_k weighted' => [19, 16, 290],
    'q4_k' => [21, 32, 470], 'q4_k weighted' => [37, 32, 820], 'q5_k' => [16, 32, 370], 'q5_k weighted' => [37, 32, 820],
    'q6_k' => [19, 16, 290], 'q6_k weighted' => [19, 16, 290]);
my %hot;

# Loops of a kernel: [instructions, opcodes => number], by their backward branches.
sub loops {
    my ($kernel, $code) = @_;
    my (%at, %end, @found);
    $at{ $code->[$_][0] } = $_ for 0 .. $#$code;
    for my $i (0 .. $#$code) {
        my ($address, $text) = @{ $code->[$i] };
        next unless $text =~ /\bBRA\b.*?\b0x([0-9a-f]+)/;
        my $to = $at{ hex $1 };
        $end{$to} = $i if defined $to && $to < $i && (!defined $end{$to} || $end{$to} < $i);
    }
    for my $from (keys %end) {
        my %n;
        for my $i ($from .. $end{$from}) {
            $n{$1}++ if $code->[$i][1] =~ /^(?:\@!?U?P\d+\s+)?([A-Z0-9]+)/;
        }
        my $inner = grep { $_ > $from && $end{$_} < $end{$from} } keys %end;
        push @found, { at => $from, n => $end{$from} - $from + 1, ops => \%n, inner => $inner };
    }
    return @found;
}

sub note_loops {
    my ($kernel, $code) = @_;
    my @loops = loops($kernel, $code);
    my ($local) = (0);
    $local += /\b(?:LDL|STL)\b/ for map { $_->[1] } @$code;
    $hot{$kernel}{local} = $local;
    if ($search{$kernel}) {
        my ($best) = sort { $b->{n} <=> $a->{n} } grep { $_->{ops}{MUFU} && $_->{ops}{FADD} && $_->{ops}{FADD} > 20 && !$_->{ops}{STS} && !$_->{ops}{LDS} } @loops;
        $hot{$kernel}{loop} = $best;
        return;
    }
    # A neighbour search: a small loop that loads (11.8: by generic addresses), takes dot products and compares, and no more.
    my ($best) = sort { $b->{n} <=> $a->{n} } grep { $_->{ops}{IDP} && ($_->{ops}{LDG} || $_->{ops}{LD}) && $_->{n} < 200 && !$_->{inner} } @loops;
    $hot{$kernel}{neighbours} = $best if $best;
}

sub print_loops {
    print "\nLoops of the searches, sm_90: instructions a weight, the count behind the floor, and loads and stores of local memory in the kernel\n\n";
    print "| kernel | loop | turns x loop / values | floor's count | local |\n|---|---|---|---|---|\n";
    for my $k (sort keys %hot) {
        my $h = $hot{$k};
        if (my $l = $h->{loop}) {
            my ($turns, $values, $floor) = @{ $search{$k} };
            printf "| %s | %d | %.0f | %d | %d |\n", $k, $l->{n}, $turns * $l->{n} / $values, $floor, $h->{local};
        } elsif (my $n = $h->{neighbours}) {
            my $each = $k =~ /^iq3/ ? 4 : 8;
            printf "| %s | %d for %d neighbours | %.1f a value and neighbour | 5 | %d |\n", $k, $n->{n}, $n->{ops}{IDP} / $each,
                $n->{n} / $n->{ops}{IDP}, $h->{local};
        } elsif ($k !~ /^(?:f32|f16|bf16|row)/) {
            printf "| %s | - | - | - | %d |\n", $k, $h->{local};
        }
    }
}

if (@ARGV && $ARGV[0] eq '--check-sass') {
    my @found;
    for my $path (@ARGV[1 .. $#ARGV]) {
        open my $f, '<', $path or die "$path: $!";
        push @found, scan($path, <$f>);
    }
    print "$_\n" for @found;
    exit(@found ? 1 : 0);
}

my $nvcc = $ENV{NVCC} or do { print STDERR "gpu-report: SKIPPED: no nvcc\n"; exit 0 };
my $dump = $ENV{CUOBJDUMP} || `sh -c 'command -v cuobjdump'`;
chomp $dump;
my $tmp = tempdir(CLEANUP => 1);
my (%row, @bad);

# From the objects themselves.
sub from_objects {
    for my $object (@_) {
        my ($arch, $kernel) = ('?', '');
        for (`'$dump' --dump-resource-usage '$object' 2>&1`) {
            $arch = $1 if /arch = (sm_\d+)/;
            $kernel = short($1) if /Function (\S+?):\s*$/;
            $row{$kernel}{$arch} = "$1 / $2 / $3" if $kernel && /REG:(\d+) STACK:(\d+) SHARED:(\d+)/;
        }
        my @sass = `'$dump' --dump-sass '$object' 2>&1`;
        push @bad, scan($object, @sass);
        my ($on, $name, @code) = (0, '');
        for (@sass, 'Function : end') {
            $on = $1 eq 'sm_90' if /arch = (sm_\d+)/;
            if (/Function : (\S+)/) {
                note_loops($name, [@code]) if @code;
                ($name, @code) = (short($1));
            }
            push @code, [hex $1, $2] if $on && m{^\s+/\*([0-9a-f]{4,6})\*/\s+(.*?)\s*;};
        }
    }
}

# From ptxas, target by target.
sub from_ptxas {
    my $flags = $ENV{NVFLAGS} || '';
    for my $object (@_) {
        (my $cu = $object) =~ s{^.*/(kernels/.*)\.o$}{$1};
        my ($kernel, $arch, $stack);
        for my $sm (($ENV{CUDA_FOR} || 'sm_90') =~ /sm_\d+/g) {
            for (`$nvcc $flags -I. -arch=compute_80 -code=$sm -Xptxas -v -cubin -o '$tmp/x.cubin' '$cu' 2>&1`) {
                if (/error/) { push @bad, "$cu: $_"; }
                ($kernel, $arch) = (short($1), $2) if /Compiling entry function '(\S+)' for '(sm_\d+)'/;
                $stack = "$1, spills $2" if /(\d+) bytes stack frame, (\d+) bytes spill stores/ && !defined $stack;
                if (/Used (\d+) registers.*?(?:(\d+) bytes cumulative stack)?.*?(?:(\d+) bytes smem)?/ && $kernel) {
                    my ($reg) = /Used (\d+) registers/;
                    my ($cum) = /(\d+) bytes cumulative stack/;
                    my ($smem) = /(\d+) bytes smem/;
                    $row{$kernel}{$arch} = sprintf '%d / %d / %d', $reg, $cum // 0, $smem // 0;
                    $row{$kernel}{spills} = ($row{$kernel}{spills} // 0) + ($stack && $stack =~ /spills (\d+)/ ? $1 : 0);
                    undef $stack;
                }
            }
        }
    }
}

my @objects = grep { !/gpu_cuda/ } @ARGV;
$dump ? from_objects(@objects) : from_ptxas(@objects);
my %archs = map { $_ => 1 } map { grep /^sm_/, keys %$_ } values %row;
my @archs = sort { substr($a, 3) <=> substr($b, 3) } keys %archs;
print "Registers / stack bytes / shared bytes of each kernel", ($dump ? '' : " (ptxas; no cuobjdump: the machine code was NOT read)"), "\n\n";
print '| kernel | ', join(' | ', @archs, $dump ? () : 'spilled bytes'), " |\n|---|", '---|' x (@archs + !$dump), "\n";
for my $k (sort keys %row) {
    print "| $k | ", join(' | ', (map { $row{$k}{$_} // '-' } @archs), $dump ? () : $row{$k}{spills} // 0), " |\n";
}
print_loops() if %hot;
push @bad, 'no kernel was found' unless @archs;
print "\n", @bad ? "FOUND:\n" . join('', map { "  $_\n" } @bad[0 .. ($#bad < 30 ? $#bad : 30)])
    : $dump ? "No flushing, no approximation and no fused operation outside divisions and roots in the machine code.\n" : '';
exit(@bad ? 1 : 0);
