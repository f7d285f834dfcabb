#!/usr/bin/env perl
# How much faster two workers do a job than one, each with one compute thread, and
# what the daemon itself costs. Runs are made in turn, 1, 2, 1, 2 ...; the best of
# each counts, all are shown.
# Files lie in memory where that can be, so that no disk is measured.
#   make bench-service RECIPE=iq3_s BENCH_ROUNDS=5 LAYERS=8
use strict;
use warnings;
use POSIX qw(sysconf _SC_CLK_TCK);
use SluiceService;
use SluiceTest;
use Test::More;
use Time::HiRes qw(time sleep);

my $recipe = $ENV{RECIPE} || 'iq3_s';
my $rounds = $ENV{BENCH_ROUNDS} || 5;
my $layers = $ENV{LAYERS} || 8;
my $tick   = sysconf(_SC_CLK_TCK);

# Processor seconds of a process of ours.
sub cpu {
    my ($name) = @_;
    my ($after) = slurp("/proc/$ALIVE{$name}{pid}/stat") =~ /\) (.*)/;
    my @f = split / /, $after;
    return ($f[11] + $f[12]) / $tick;
}

service_setup(source => '-', dir => -w '/dev/shm' ? '/dev/shm' : '/tmp', daemon => { heartbeat => '1s', lease => '30s' }, sluice => { log_level => 'notice' });
my $source = checkpoint("$RUN/src", '--preset', 'demo', '--layers', $layers, qw(--experts 16 --groups 2 --groups-used 1 --used 2));
start_one('daemon');
wait_daemon() or die "no daemon\n";

my %best;
sub one_run {
    my ($workers) = @_;
    my @names = map { "w$_" } 1 .. $workers;
    # Each in a session of its own, as services are: a busy machine's scheduler shares
    # between sessions first.
    start_one($_, before => ['setsid']) for @names;
    my $end = time + 10;
    sleep 0.05 until run($SLUICE, 'workers', '--parsable')->{out} =~ tr/\n// >= $workers || time > $end;
    my $daemon = cpu('daemon');
    my %before = map { ($_ => cpu($_)) } @names;
    my $r = run($SLUICE, 'submit', $source, '-o', "$OUT/x.gguf", '--recipe', $recipe, '--task-size', '4M', '--wait', '--json');
    die $r->{err} if $r->{rc};
    my ($job) = grep { $_->{message_type} eq 'job_ended' } json_lines($r->{out});
    my $j = job($job->{id});
    my $secs = ($j->{ended} - $j->{submitted}) / 1000;
    my $cost = cpu('daemon') - $daemon;
    my $work = 0;
    $work += cpu($_) - $before{$_} for @names;
    printf "%d worker%s  %6.2f s  %6.0f MB/s read  workers %6.2f CPU s  daemon %5.2f CPU s = %4.1f %% of a core  (%d tasks)\n",
        $workers, $workers > 1 ? 's' : ' ', $secs, $j->{src_bytes} / 1e6 / $secs, $work, $cost, 100 * $cost / $secs, $j->{tasks};
    $best{$workers} = $secs if !$best{$workers} || $secs < $best{$workers};
    stop_one($_) for @names;
    unlink glob "$OUT/*";
}

my $cores = 0 + run('nproc')->{out};
print "recipe $recipe, $layers layers, $cores processors\n";
$| = 1;
for (1 .. $rounds) {
    one_run($_) for 1, 2;
}
printf "best: one worker %.2f s, two %.2f s: %.2f times as fast\n", $best{1}, $best{2}, $best{1} / $best{2};
print "two workers and the daemon have fewer than 3 processors here\n" if $cores < 3;
stop_one('daemon');
