# The units' sandbox holds nothing back that the programs need: each system call that they make, over
# ipc and tcp, with keys and a job, and each family of their sockets, is one that the unit lets through.
use strict;
use warnings;
use SluiceService;
use SluiceTest;
use Test::More;

plan skip_all => 'sanitized run' if $SANITIZED;
my $sets = run('systemd-analyze', 'syscall-filter');
plan skip_all => 'no systemd-analyze' if $sets->{rc};
plan skip_all => 'strace cannot trace here' if run('strace', '-f', '-o', '/dev/null', 'true')->{rc};

my (%set, $of);
for (split /\n/, $sets->{out}) {
    $of = $1, next if /^(\@\S+)/;
    push @{ $set{$of} }, $1 if $of && /^\s+(\@?\w\S*)/;
}
# A set's calls, those of the sets in it too.
sub calls_in {
    my ($name) = @_;
    return map { /^\@/ ? calls_in($_) : $_ } @{ $set{$name} // [] } if $name =~ /^\@/;
    return $name;
}

# What a unit lets through. A filter on a mode or on flags is none on openat2, which has them in
# memory: systemd forbids the call itself.
sub let_through {
    my ($unit) = @_;
    my %let = map { $_ => 1 } calls_in('@default');
    for (split /\n/, $unit) {
        /^SystemCallFilter=(~?)(.*)/ or next;
        my ($not, @calls) = ($1, map { calls_in($_) } split ' ', $2);
        if ($not) { delete @let{@calls} } else { $let{$_} = 1 for @calls }
    }
    $let{$_} = 1 for map { split ' ' } $unit =~ /^RestrictAddressFamilies=(.*)/mg;
    delete $let{openat2} if $unit =~ /^RestrictSUIDSGID=yes/m;
    return \%let;
}
sub held_back {
    my ($unit, @calls) = @_;
    my $let = let_through($unit);
    return [grep { !$let->{$_} } @calls];
}


# ---- what they do: a daemon with metrics and keys, workers over ipc and tcp, a job
service_setup(daemon => { metrics => '127.0.0.1:0' });
run_ok("a key: $_", $SLUICE, 'keys', "$RUN/$_.key", '--role', 'worker') for qw(daemon worker);
my ($public) = slurp("$RUN/worker.key.pub") =~ /^public (\S+)/m;
spit("$RUN/allow", "worker key $public w2\n");
# Traced from the side (-D), so that signals and the process number are the program's own.
sub traced { my ($name) = @_; return before => ['strace', '-D', '-f', '-q', '-s', '0', '-o', "$RUN/$name.calls"] }
start_one('daemon', traced('daemon'), args => ['--listen', $ENDPOINT, '--listen', 'tcp://127.0.0.1:0', '--key', "$RUN/daemon.key", '--allow', "$RUN/allow"]);
ok(wait_daemon(), 'the daemon answers') or die('no daemon');
my ($tcp) = log_of('daemon') =~ m{listening.*(tcp://127\.0\.0\.1:\d+)};
my ($metrics) = log_of('daemon') =~ m{(127\.0\.0\.1:\d+)/metrics};
start_one('w1', traced('w1'));
start_one('w2', traced('w2'), args => ['--connect', $tcp, '--key', "$RUN/worker.key", '--server-key', "$RUN/daemon.key.pub"]);
has_workers(qw(w1 w2));
my %traced = map { $_ => $ALIVE{$_}{pid} } qw(daemon w1 w2);
is_state(wait_job(submit(demo_spec('x')), 120), 'succeeded', 'a job');
is((get($metrics, '/metrics'))[0], 200, 'metrics');
is(stop_one($_), 0, "$_ ends in order") for qw(w1 w2 daemon);

# fchown is SQLite's, of files that root makes, and the units are not root; what strace has no name for, or cachestat
# has only now, the programs do without.
sub made {
    my ($name) = @_;
    my $file = "$RUN/$name.calls";
    for (1 .. 200) { # strace writes on after the program's end
        last if slurp($file) =~ /^$traced{$name} +\+\+\+ exited/m;
        select undef, undef, undef, 0.05;
    }
    my %made = map { /^\d+ +(?:<\.\.\. )?(\w+)/ ? ($1 => 1) : () } my @lines = split /\n/, slurp($file);
    $made{$_} = 1 for map { /^\d+ +socket(?:pair)?\((AF_\w+)/ } @lines;
    return grep { !/^(?:fchown|cachestat|syscall_\w+)$/ } sort keys %made;
}
my %made = (sluiced => [made('daemon')], 'sluice-worker@' => [made('w1'), made('w2')]);
ok(!!(grep { $_ eq 'openat2' } @{ $made{$_} }), "$_: its calls are seen") for sort keys %made;
for my $dir ("$TOP/systemd", "$TOP/systemd/user") {
    is(join(" ", @{ held_back(slurp("$dir/$_.service"), @{ $made{$_} }) }), '', "$dir/$_.service lets all of them through") for sort keys %made;
}
my $unit = slurp("$TOP/systemd/sluiced.service");
is_deeply(held_back("$unit\nRestrictSUIDSGID=yes\n", 'openat2'), ['openat2'], 'what a mode restricts has no openat2');
is_deeply(held_back("[Service]\nSystemCallFilter=\@system-service\nSystemCallFilter=~\@resources\n", qw(read sched_setscheduler mount)),
    [qw(sched_setscheduler mount)], 'a set taken out, and one that was never in');
is_deeply(held_back($unit =~ s/ AF_NETLINK$//mr, qw(AF_INET AF_NETLINK)), ['AF_NETLINK'], 'a family that is not named');

done_testing();
