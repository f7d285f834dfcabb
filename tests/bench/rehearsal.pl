#!/usr/bin/env perl
# The full-size rehearsal: DeepSeek-R1's checkpoint with its real names, shapes and
# sizes, whose large tensors are holes, planned, converted by `sluice convert`, and
# converted by the daemon with two workers up to the verified model. What it took
# goes to standard output as a Markdown table.
#   usage: rehearsal.pl [--layers N] [--dir DIR] [--only plan|convert|daemon|many|k2]
# 61 layers are the whole model: about an hour on two cores. DIR needs 3 GB.
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Path qw(make_path remove_tree);
use Getopt::Long;
use JSON::PP;
use POSIX qw(:sys_wait_h strftime);
use Time::HiRes qw(time sleep);

my $top   = abs_path(dirname(__FILE__) . '/../..');
my $build = abs_path($ENV{SLUICE_BUILD} || "$top/build/release") or die "build first: make\n";
my ($layers, $dir, $only) = (61, "$top/build/rehearsal", '');
GetOptions('layers=i' => \$layers, 'dir=s' => \$dir, 'only=s' => \$only) && !@ARGV && $layers >= 4
    or die "usage: rehearsal.pl [--layers N] [--dir DIR] [--only plan|convert|daemon|many|k2]   (4 layers at least)\n";
make_path("$dir/sock");
$dir = abs_path($dir);
chmod 0700, "$dir/sock";
my $source = "$dir/DeepSeek-R1";
my @recipe = qw(--recipe dq3_k_m);
my (@rows, %alive);
END { kill 'TERM', $_ for values %alive }

sub row { push @rows, [@_]; print STDERR join(': ', @_), "\n" }
sub slurp { open my $f, '<', $_[0] or return ''; local $/; return scalar <$f> }
sub measured { return decode_json(slurp("$dir/$_[0].json") || '{}') }
sub gb { return sprintf '%.*f GB', $_[0] < 1e9 ? 3 : 1, $_[0] / 1e9 }
sub mb { return sprintf '%.0f MB', $_[0] / 1e6 }
sub allocated { my $n = 0; $n += 512 * ((stat $_)[12] // 0) for @_; return $n }
sub apparent { my $n = 0; $n += -s $_ // 0 for @_; return $n }
sub minutes { return sprintf '%d min %02d s', int($_[0] / 60), $_[0] % 60 }

# Starts a command under tests/tools/resources.c; its output goes to NAME.log.
sub start {
    my ($name, @cmd) = @_;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        open STDIN,  '<', '/dev/null';
        open STDOUT, '>', "$dir/$name.log";
        open STDERR, '>', "$dir/$name.err";
        exec "$build/tools/resources", "$dir/$name.json", @cmd or POSIX::_exit(127);
    }
    return $alive{$name} = $pid;
}

sub finish {
    my ($name) = @_;
    waitpid delete $alive{$name}, 0;
    my $m = measured($name);
    ($m->{rc} // 1) == 0 or die "$name failed:\n" . slurp("$dir/$name.err") . "\n";
    return $m;
}

sub make_source {
    my @cmd = ("$build/tools/make_checkpoint", qw(--preset r1 --holes --out), $source, '--tokenizer', "$top/tests/tiny-v3");
    push @cmd, $layers == 61 ? ('--config', "$top/tests/data/deepseek-r1-config.json")
        : ('--layers', $layers, '--shards', int(163 * $layers / 61) || 1);
    remove_tree($source);
    start('make', @cmd);
    my $m = finish('make');
    my ($tensors) = slurp("$dir/make.log") =~ /(\d+) tensors/;
    my @files = glob "$source/*.safetensors";
    row('checkpoint', sprintf '%d shards, %s tensors, %s apparent, %s on disk; made in %.0f s', scalar @files, $tensors,
        gb(apparent(@files)), gb(allocated(@files)), $m->{wall});
}

sub plan {
    start('plan', "$build/sluice", 'plan', $source, @recipe);
    my $m = finish('plan');
    my $log = slurp("$dir/plan.log");
    row('plan', sprintf '%.2f s (processor %.2f s), peak memory %s', $m->{wall}, $m->{user} + $m->{sys}, mb($m->{peak}));
    row('planned', join '; ', map { s/\s+/ /gr } $log =~ /^((?:Read|Tasks) .*)$/mg);
}

# Bytes as the disk sees them, and that the whole of the output can be proved.
sub output_row {
    my ($name, @files) = @_;
    row("$name: output", sprintf '%d file%s, %s apparent, %s on disk', scalar @files, @files == 1 ? '' : 's',
        gb(apparent(@files)), gb(allocated(@files)));
}

sub convert {
    my $out = "$dir/convert";
    remove_tree($out);
    make_path($out);
    start('convert', "$build/sluice", 'convert', $source, '-o', "$out/", @recipe, qw(--sparse --stats));
    my $m = finish('convert');
    my @files = glob "$out/*.gguf";
    row('convert', sprintf '%s (%.0f s); processor %.0f s user, %.0f s system; peak memory %s', minutes($m->{wall}), $m->{wall},
        $m->{user}, $m->{sys}, mb($m->{peak}));
    row('convert: stages', $_) for slurp("$dir/convert.err") =~ /^stats: (.*)$/mg;
    output_row('convert', @files);
    return @files;
}

# ---- the daemon and two workers
sub show {
    my ($job) = @_;
    my $text = `$build/sluice show $job --json 2>/dev/null`;
    my ($line) = grep { /^\{/ } split /\n/, $text;
    my $j = $line ? eval { decode_json($line) } : undef;
    return $j ? ($j->{job} && ref $j->{job} ? $j->{job} : $j) : undef;
}

sub cpu_of { # processor seconds of a process under resources
    my ($name) = @_;
    my ($child) = split ' ', slurp("/proc/$alive{$name}/task/$alive{$name}/children");
    my @f = split ' ', (slurp('/proc/' . ($child // 0) . '/stat') =~ s/^.*\)//r) or return 0;
    return ($f[11] + $f[12]) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
}

# A daemon whose state is new, and workers of one thread and 1 GiB.
sub service {
    my ($out, @workers) = @_;
    remove_tree($out, "$dir/state");
    make_path($out, "$dir/state");
    $ENV{SLUICE_CONFIG} = "$dir/sluice.conf";
    open my $f, '>', $ENV{SLUICE_CONFIG} or die "$ENV{SLUICE_CONFIG}: $!";
    print $f "[sluice]\nendpoint = ipc://$dir/sock/d\nroot = $dir\nlog = plain\n[daemon]\nlisten = ipc://$dir/sock/d\n",
        "state_dir = $dir/state\nmetrics = 127.0.0.1:0\n";
    close $f;
    start('daemon', "$build/sluiced");
    start("worker$_", "$build/sluice-worker", '--name', "w$_", qw(--threads 1 --mem 1Gi)) for @workers;
}

# Many jobs of the whole model at once: what one worker and the daemon keep of them.
sub many {
    my ($what, $jobs, @submits) = @_;
    my $out = "$dir/many";
    service($out, 1);
    sleep 1;
    for (@submits) {
        my $r = `$build/sluice submit $source -o $out/ --sparse --parsable @$_ 2>$dir/submit.err`;
        $r =~ /^\d+$/m or die 'submit: ' . slurp("$dir/submit.err");
    }
    my $end = time + 600;
    while ((() = `$build/sluice queue --json` =~ /"done":[1-9]/g) < $jobs) {
        time < $end or die "not every job began:\n" . slurp("$dir/worker1.err");
        sleep 2;
    }
    kill 'TERM', $alive{worker1};
    my $w = finish('worker1');
    kill 'TERM', $alive{daemon};
    my $d = finish('daemon');
    row("one worker, $what", sprintf 'peak memory %s; of the coordinator %s', mb($w->{peak}), mb($d->{peak}));
    remove_tree($out);
}

sub daemon {
    my $out = "$dir/daemon";
    service($out, 1, 2);
    my $job;
    for (1 .. 50) {
        sleep 0.2;
        $job = `$build/sluice submit $source -o $out/ @recipe --sparse --verify --parsable 2>$dir/submit.err`;
        last if $job =~ /^\d+$/m;
    }
    ($job) = ($job // '') =~ /^(\d+)$/m or die "submit: " . slurp("$dir/submit.err");
    my ($t0, $state, $since, %took, %cpu, $db) = (time, '', time);
    while (1) {
        my $j = show($job) or next;
        my $t = time;
        $took{$state} += $t - $since;
        ($state, $since) = ($j->{state}, $t);
        my $size = apparent(glob "$dir/state/*");
        $db = $size if !defined $db || $size > $db;
        $cpu{$_} = cpu_of($_) for qw(daemon worker1 worker2);
        printf STDERR "\r%-10s %4.0f s  %s", $state, $t - $t0, $j->{progress} // '' if -t STDERR;
        last if $state =~ /^(?:succeeded|failed|cancelled)$/;
        sleep 2;
    }
    my $wall = time - $t0;
    die "the job is $state:\n" . `$build/sluice show $job` . slurp("$dir/worker1.err") if $state ne 'succeeded';
    kill 'TERM', $alive{$_} for qw(worker1 worker2);
    my @w = map { finish("worker$_") } 1, 2;
    kill 'TERM', $alive{daemon};
    my $d = finish('daemon');
    my $src = apparent(glob "$source/*.safetensors");
    row('daemon, two workers', sprintf '%s (%.0f s)', minutes($wall), $wall);
    row('daemon: stages', join ', ', map { $took{$_} ? sprintf('%s %.0f s', $_, $took{$_}) : () } qw(queued running stitching verifying));
    my $run = $took{running} || 1;
    my @files = glob "$out/*.gguf";
    row('daemon: rates while converting', sprintf 'read %.2f GB/s, made %.2f GB/s', $src / 1e9 / $run, apparent(@files) / 1e9 / $run);
    row("daemon: worker $_", sprintf '%.0f s user, %.0f s system; peak memory %s', @{ $w[$_ - 1] }{qw(user sys)}, mb($w[$_ - 1]{peak}))
        for 1, 2;
    row('daemon: coordinator', sprintf '%.1f s user, %.1f s system (%.2f %% of a core; it answers a `show` each two seconds); peak memory %s',
        $d->{user}, $d->{sys}, 100 * ($d->{user} + $d->{sys}) / $d->{wall}, mb($d->{peak}));
    row('daemon: database', sprintf '%.2f MB at its largest (with its log)', $db / 1e6);
    output_row('daemon', @files);
    return @files;
}

# A trillion weights and 64 simulated workers: plan and scheduling alone.
sub trillion {
    my $k2 = "$dir/Kimi-K2";
    remove_tree($k2);
    start('make-k2', "$build/tools/make_checkpoint", qw(--preset k2 --holes --out), $k2, '--tokenizer', "$top/tests/tiny-v3");
    finish('make-k2');
    my ($tensors) = slurp("$dir/make-k2.log") =~ /(\d+) tensors/;
    my @files = glob "$k2/*.safetensors";
    row("Kimi-K2's shape", sprintf '%d shards, %s tensors, %s apparent, %s on disk', scalar @files, $tensors, gb(apparent(@files)),
        gb(allocated(@files)));
    start('plan-k2', "$build/sluice", 'plan', $k2, @recipe);
    my $m = finish('plan-k2');
    my ($tasks) = slurp("$dir/plan-k2.log") =~ /^Tasks\s+(\d+)/m;
    row("Kimi-K2's shape: plan", sprintf '%.2f s (processor %.2f s), peak memory %s, %d tasks', $m->{wall},
        $m->{user} + $m->{sys}, mb($m->{peak}), $tasks);
    my $text = `$build/bench/coordinator_bench $dir $tasks 2>/dev/null`;
    row("Kimi-K2's shape: 64 simulated workers, a commit on the disk for each task", $_) for grep { !/^growth/ } split /\n/, $text;
    remove_tree($k2);
}

# Both ways give the same bytes: the manifests hold each tensor's XXH64.
sub same {
    my ($a, $b) = @_;
    my $sums = sub { join '', map { slurp("$_.xxh64") } @_ };
    return $sums->(@$a) eq $sums->(@$b);
}

my $load = (split ' ', slurp('/proc/loadavg'))[0];
my ($cpu) = slurp('/proc/cpuinfo') =~ /^model name\s*: (.*)$/m;
row('machine', sprintf '%s, %d processors, %.0f GiB; load %s before the start', $cpu // 'not known',
    scalar(() = slurp('/proc/cpuinfo') =~ /^processor\s*:/mg), (slurp('/proc/meminfo') =~ /MemTotal:\s*(\d+)/)[0] / 1048576, $load);
row('date', strftime('%Y-%m-%d', gmtime));
make_source() if $only ne 'k2';
plan() if $only ne 'k2';
my @d = $only =~ /^(?:|daemon)$/ ? daemon() : ();
my @c = $only =~ /^(?:|convert)$/ ? convert() : ();
if ($only =~ /^(?:|many)$/) {
    my @r = qw(dq3_k_m q4_k_m q6_k q8_0 q2_k q3_k_m q5_k_m iq4_xs q4_k_s q5_k_s q3_k_s q3_k_l f16 bf16 q4_0 iq4_nl);
    many('16 jobs of it at once', 16, map { ['--recipe', $r[$_], '--priority', 50 + $_] } 0 .. $#r);
    many('a sweep of 16 recipes', 16, ['--recipe', join ',', @r]);
}
trillion() if $only =~ /^(?:|k2)$/;
if (@c && @d) {
    same(\@c, \@d) or die "the daemon's files are not those of convert\n";
    row('both', 'the same bytes (every XXH64 of every manifest)');
}
printf "## %s\n\n| | |\n|---|---|\n", $layers == 61 ? 'DeepSeek-R1, full size' : "DeepSeek-R1's shape, $layers layers";
printf "| %s | %s |\n", @$_ for @rows;
