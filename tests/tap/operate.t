# What an operator has of a running sluiced: log lines, /metrics and health over
# HTTP, what systemd is told, and clear words about a wrong configuration.
use strict;
use warnings;
use JSON::PP;
use NotifySocket;
use SluiceService qw(get);
use SluiceTest;
use Test::More;
use Time::HiRes qw(time sleep);

my $run = File::Temp::tempdir('/tmp/sluice_operate_XXXXXX', CLEANUP => 1);
my $SLUICED = "$BUILD/sluiced";
my $conf = "$run/sluice.conf";
my $pid;
END { kill 'KILL', $pid if $pid }

sub configure {
    my (%more) = @_;
    my %d = (listen => "ipc://$run/sock/d", state_dir => "$run/deep/state", heartbeat => '200ms', lease => '2s', %more);
    spit($conf, "[sluice]\nroot = $run\nlog = json\nlog_level = debug\n[daemon]\n" . join('', map { "$_ = $d{$_}\n" } sort keys %d));
}
sub log_lines { return json_lines(slurp("$run/log")) }
# Waits until a log line of this event is there.
sub logged {
    my ($event) = @_;
    for (1 .. 200) {
        my ($l) = grep { $_->{event} eq $event } eval { log_lines() };
        return $l if $l;
        sleep 0.05;
    }
    diag(slurp("$run/log"));
    return undef;
}

mkdir "$run/sock", 0700;
my $notify = listen_notify("$run/notify");

configure(metrics => '127.0.0.1:0');
$pid = fork // die;
if (!$pid) {
    open STDIN, '<', '/dev/null';
    open STDOUT, '>', "$run/log";
    open STDERR, '>&', \*STDOUT;
    @ENV{qw(NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID)} = ($notify, 600_000, $$);
    exec { $SLUICED } $SLUICED, '--config', $conf or POSIX::_exit(127);
}
my $ready = heard(qr/READY=1/, 30);
ok($ready && $ready =~ /^MAINPID=$pid$/m && $ready =~ /^STATUS=\S/m, 'systemd is told when it serves')
    or diag(all_heard());
ok(-d "$run/deep/state", 'the state folder is made');
is(scalar(grep { defined heard(qr/^WATCHDOG=1$/, 5) } 1 .. 3), 3, 'the watchdog is fed while nothing happens');
kill 'STOP', $pid;
sleep 0.02 until slurp("/proc/$pid/stat") =~ /\) T/;
1 while defined heard(qr/./, 0);
ok(!defined heard(qr/./, 0.8), 'a loop that stands still feeds no watchdog');
kill 'CONT', $pid;
ok(defined heard(qr/^WATCHDOG=1$/, 5), 'and it goes on');

my $line = logged('metrics');
my ($address) = ($line->{text} // '') =~ m{^http://(127\.0\.0\.1:\d+)/metrics$};
ok($address, 'the log says where the metrics are') or die('no metrics');
is((get($address, '/healthz'))[0], 200, '/healthz');
is_deeply([get($address, '/readyz')], [200, "ready\n"], '/readyz');
my ($status, $page) = get($address, '/metrics');
is($status, 200, '/metrics');
like($page, qr/^sluice_build_info\{version="[0-9.]+",bytes_version="[^"]+"\} 1$/m, 'build');
my ($turns) = $page =~ /^sluice_event_loop_turns_total (\d+)$/m;
my $later = $turns;
for (1 .. 200) {
    last if $later > $turns;
    sleep 0.05;
    ($later) = (get($address, '/metrics'))[1] =~ /^sluice_event_loop_turns_total (\d+)$/m;
}
cmp_ok($later, '>', $turns, 'the event loop turns');
is((get($address, '/secret'))[0], 404, 'nothing else');

SKIP: {
    my $promtool = promtool_or_skip(2, '/metrics is not linted');
    spit("$run/page", $page);
    my $r = run('sh', '-c', "$promtool check metrics <$run/page");
    ok($r->{rc} == 0 && $r->{err} . $r->{out} eq '', 'promtool check metrics') or diag($r->{err}, $r->{out});
    spit("$run/page", $page =~ s/sluice_messages_total/sluice_messages/gr);
    ok(run('sh', '-c', "$promtool check metrics <$run/page")->{rc} != 0, 'it sees a counter without _total');
}

# What is exported and what dashboard and alert rules ask for.
my %labels; # of each metric
$labels{$_} //= {} for $page =~ /^# TYPE (\w+)/mg;
while ($page =~ /^(\w+)\{([^}]*)\}/mg) {
    my ($metric, $pairs) = ($1, $2);
    $labels{$metric}{$_} = 1 for $pairs =~ /(\w+)="/g;
}
# What is asked for and not there: metrics, and labels that sums go by.
sub not_exported {
    my (@expr) = @_;
    return map {
        my ($by) = /\bby \((\w+)\)/;
        map { !$labels{$_} ? $_ : $by && $by ne 'instance' && !$labels{$_}{$by} ? "$_ by $by" : () } /\b(sluice_\w+)/g;
    } @expr;
}
my $dash = JSON::PP::decode_json(slurp("$TOP/systemd/grafana-dashboard.json"));
my @panels = map { map { $_->{expr} } @{ $_->{targets} } } @{ $dash->{panels} };
my @rules = slurp("$TOP/systemd/alerts.rules.yml") =~ /^\s+expr: (.*)$/mg;
cmp_ok(scalar @rules, '>', 5, 'alert rules');
is_deeply([not_exported(@panels, @rules)], [], 'what dashboard and rules ask for is exported');
my %shown = map { $_ => 1 } map { /\b(sluice_\w+)/g } @panels;
is_deeply([grep { !$shown{$_} } sort keys %labels], [], 'what is exported has a panel');
is_deeply([not_exported('sluice_nothing == 0', 'sum by (colour) (rate(sluice_tasks{state="ready"}[5m]))')],
    ['sluice_nothing', 'sluice_tasks by colour'], 'the check sees what is not there');

# A second one may not have the port, the state or the socket.
spit("$run/second.conf", slurp($conf) =~ s{/sock/d}{/sock/e}r =~ s{/deep/state}{/state2}r =~ s{127\.0\.0\.1:0}{$address}r);
my $taken = fails('a port that is taken', 13, qr/metrics: cannot listen on \Q$address\E: Address already in use/, $SLUICED, '--config', "$run/second.conf");
is(scalar(() = $taken->{err} =~ /already in use/g), 1, 'said once, by the log') or diag($taken->{err});
is((get($address, '/readyz'))[0], 200, 'the first one goes on');

kill 'TERM', $pid;
ok(defined heard(qr/^STOPPING=1$/m, 10), 'systemd is told that it stops');
waitpid $pid, 0;
is($?, 0, 'SIGTERM ends it in order');
undef $pid;
my @lines = log_lines();
is_deeply([grep { $_->{time} !~ /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/ || $_->{program} ne 'sluiced'
        || $_->{level} !~ /^(?:error|warning|notice|info|debug)$/ || !length $_->{event} } @lines], [], 'every log line is whole');
is($lines[-1]{event}, 'ended', 'the last one says how it ended');

# ---- what it refuses to start with
sub refuses {
    my ($name, $pattern, @change) = @_;
    configure(@change);
    fails($name, 2, $pattern, $SLUICED, '--config', $conf);
}
refuses('metrics for everybody', qr/0\.0\.0\.0:0 is not loopback; daemon\.metrics_remote/, metrics => '0.0.0.0:0');
refuses('a bad address', qr/expected ADDRESS:PORT/, metrics => 'here');
refuses('a bad time', qr/\Q$conf\E:\d+: daemon\.lease: expected a time/, lease => '60');
refuses('an unknown key', qr/no such key: daemon\.leese/, leese => '60s');
configure();
fails('no place for the state', 2, qr/no\.such\/state: the state folder cannot be made: Not a directory; --state DIR takes another/, $SLUICED, '--config', $conf, '--state', "$conf/no.such/state");
fails('a bad option', 2, qr/--lease: daemon\.lease: expected 1s to 24h/, $SLUICED, '--config', $conf, '--lease', '1ms');
fails('of two files the last', 2, qr/--lease: daemon\.lease: expected 1s to 24h/, $SLUICED, '--config', "$run/none.conf", "--config=$conf", '--lease', '1ms');
my $theirs = $> ? '/' : "$run/theirs"; # another user's
mkdir $theirs and chown 1, 1, $theirs if !$>;
fails("a socket in another user's folder", 2, qr{\Q$theirs\E: the socket's folder is another user's; name one of your own with --listen},
    $SLUICED, '--config', $conf, '--listen', 'ipc://' . $theirs =~ s{/?$}{/x.sock}r);
fails('a socket in a folder that cannot be', 2, qr{/proc/none: cannot be created: .*; name one of your own with --listen},
    $SLUICED, '--config', $conf, '--listen', 'ipc:///proc/none/x.sock');

# ---- started without standard streams: no socket and no file is taken for one
for (['sluiced'], ['sluice-worker', '--connect', "ipc://$run/sock/d"]) {
    my ($program, @more) = @$_;
    unlink "$run/sock/d";
    my $p = start('sh', '-c', "exec $BUILD/$program --config $conf @more 0<&- 1>&- 2>&-");
    for (1 .. 500) {
        last if (readlink "/proc/$p->{pid}/exe") =~ m{/\Q$program\E$} && grep { /^anon_inode:/ } map { readlink // '' } glob "/proc/$p->{pid}/fd/*";
        sleep 0.02;
    }
    is_deeply([map { readlink "/proc/$p->{pid}/fd/$_" } 0 .. 2], [('/dev/null') x 3], "$program without standard streams");
    kill 'TERM', $p->{pid};
    is(finish($p)->{rc}, 0, 'and it ends in order');
}

$ENV{NOTIFY_SOCKET} = "$run/nobody";
fails('systemd that does not listen', 1, qr/systemd cannot be told/, $SLUICED, '--config', $conf);

done_testing();
