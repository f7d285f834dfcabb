#!/usr/bin/env perl
# Costs at 1, 4, 16 and 64 times the size: what must stay flat (memory, and the time of a
# tensor, a weight, a task) and what must grow with the size and no faster. Three
# tables go to standard output as Markdown; exit status 1 when something that must stay flat
# at 64 times is more than twice what it is at 4 times.
#   usage: growth.pl [--dir DIR]
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
my $dir = "$top/build/bench-growth";
GetOptions('dir=s' => \$dir) && !@ARGV or die "usage: growth.pl [--dir DIR]\n";
make_path($dir);
my @sizes = (1, 4, 16, 64);
my @bad;

sub slurp { open my $f, '<', $_[0] or return ''; local $/; return scalar <$f> }

# The cheapest of three runs: others may be at work on the machine.
sub measure {
    my @runs;
    for (1 .. 3) {
        system("$build/tools/resources $dir/m.json @_ >$dir/log 2>$dir/err") == 0 or die "@_:\n" . slurp("$dir/err");
        push @runs, decode_json(slurp("$dir/m.json"));
        $runs[-1]{cpu} = $runs[-1]{user} + $runs[-1]{sys};
    }
    return (sort { $a->{cpu} <=> $b->{cpu} } @runs)[0];
}

sub make {
    remove_tree("$dir/source");
    system("$build/tools/make_checkpoint @_ --tokenizer $top/tests/tiny-v3 --out $dir/source >$dir/log") == 0 or die "make_checkpoint failed\n";
    return slurp("$dir/log") =~ /(\d+) tensors, ([\d.]+) MB/;
}

# $what: at[1] (4 times) against at[3] (64 times).
sub flat {
    my ($what, @at) = @_;
    push @bad, sprintf '%s: %.4g at 4 times, %.4g at 64 times', $what, $at[1], $at[3] if $at[3] > 2 * $at[1];
}

printf "%s; load %s before the start; the cheapest of three runs each.\n\n", strftime('%Y-%m-%d', gmtime), (split ' ', slurp('/proc/loadavg'))[0];

print "### Plan: DeepSeek-R1's form, 384 experts, 1 to 64 layers beside the dense ones\n\n",
    "| size | tensors | processor, ms | a tensor, us | peak memory, MB | of it a tensor, bytes |\n|---|---|---|---|---|---|\n";
my (@per, @mem);
for my $n (@sizes) {
    my ($tensors) = make(qw(--preset r1 --no-mtp --holes --hidden 1024 --inter 2048 --moe-inter 512 --vocab 4096 --experts 384 --shards), 4 * $n, '--layers', 3 + $n);
    my $m = measure("$build/sluice", 'plan', "$dir/source", qw(--recipe dq3_k_m));
    push @per, $m->{cpu} * 1e6 / $tensors;
    push @mem, $m->{peak} / $tensors;
    printf "| %d | %d | %.0f | %.2f | %.1f | %.0f |\n", $n, $tensors, $m->{cpu} * 1e3, $per[-1], $m->{peak} / 1e6, $mem[-1];
}
flat('plan, time of a tensor', @per);
flat('plan, memory of a tensor', @mem);

print "\n### Convert to q4_k_m: real data, tasks of 1 MB\n\n",
    "| size | MB of source | wall, s | processor, s | a MB, ms | peak memory, MB |\n|---|---|---|---|---|---|\n";
(@per, @mem) = ();
for my $n (@sizes) {
    my (undef, $mb) = make(qw(--layers), 1 + $n, qw(--hidden 512 --inter 1024 --moe-inter 512 --experts 8 --vocab 4096 --shards 2));
    my $m = measure("$build/sluice", 'convert', "$dir/source", '-o', "$dir/out.gguf", qw(--recipe q4_k_m --split-max-size 0 --task-size 1M --threads 2 --force --quiet));
    push @per, $m->{cpu} * 1e3 / $mb;
    push @mem, $m->{peak};
    printf "| %d | %.0f | %.2f | %.2f | %.2f | %.0f |\n", $n, $mb, $m->{wall}, $m->{cpu}, $per[-1], $m->{peak} / 1e6;
}
flat('convert, processor time of a MB', @per);
# Buffers follow a small job's size, up to 20 of 4 MiB with two threads.
push @bad, map { sprintf 'convert, memory: %.0f MB, more than 128', $_ / 1e6 } grep { $_ > 128e6 } @mem;

# In memory: a disk's sync would hide what the database itself costs.
my $shm = -d '/dev/shm' && -w _ ? '/dev/shm' : $dir;
print "\n### Coordinator: 64 simulated workers, the queue in memory (no disk behind it)\n\n",
    "| size | tasks | processor a task, us (database, both sides' JSON) | result to grant, median, us | peak memory, MB |\n|---|---|---|---|---|\n";
my (@cpu, @grant);
for my $n (@sizes) {
    my @best;
    for (1 .. 2) {
        my $text = `$build/bench/coordinator_bench $shm @{[1000 * $n]} 2>/dev/null`;
        my @now = $text =~ /growth \d+ tasks: ([\d.]+) us of processor and [\d.]+ us in all a task, grant ([\d.]+) us, peak (\d+)/ or die "coordinator_bench:\n$text";
        @best = @now if !@best || $now[0] < $best[0];
    }
    push @cpu, $best[0];
    push @grant, $best[1];
    printf "| %d | %d | %.1f | %.1f | %.1f |\n", $n, 1000 * $n, @best[0, 1], $best[2] * 1024 / 1e6;
}
flat('coordinator, processor time of a task', @cpu);
flat('coordinator, time of a grant', @grant);
remove_tree("$dir/source");
unlink glob "$dir/out.gguf*";
print "\n", @bad ? "Not flat:\n" . join('', map { "- $_\n" } @bad) : "All that must stay flat does.\n";
exit(@bad ? 1 : 0);
