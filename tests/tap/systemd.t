# How it is run: units, sysusers, tmpfiles, alert rules and dashboard, as `make
# install` puts them there.
use strict;
use warnings;
use JSON::PP;
use SluiceTest;
use Test::More;

plan(skip_all => 'sanitized run') if $SANITIZED;
delete @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS B CC CFLAGS SAN)};

sub have { return run('sh', '-c', "command -v $_[0]")->{rc} == 0 }
sub installed {
    my $r = run('make', '-C', $TOP, '--no-print-directory', "B=$BUILD", @_, 'install');
    die("make install: $r->{err}") if $r->{rc};
}

my $prefix = scratch() . '/opt for 100% of us'; # names that a shell and systemd would take apart
installed("PREFIX=$prefix");
my $lib = "$prefix/lib/systemd";
for my $bad ('~/.local', 'opt/x') {
    my $r = run('make', '-C', $TOP, '--no-print-directory', "B=$BUILD", "PREFIX=$bad", '-n', 'install');
    ok($r->{rc} == 2 && $r->{err} =~ /PREFIX=\Q$bad\E: expected a path that begins with \//, "PREFIX=$bad is refused") or diag($r->{err});
}
my @system = map { "$lib/system/$_" } qw(sluiced.service sluice-worker@.service);
my @user   = map { "$lib/user/$_" } qw(sluiced.service sluice-worker@.service);

# ---- what the programs and the units say of each other
for my $unit (@system, @user) {
    my ($program) = slurp($unit) =~ m{^ExecStart=(\S+)}m;
    $program = $program =~ s/\\x20/ /gr =~ s/%%/%/gr if defined $program;
    my ($name) = $unit =~ m{systemd/(.*)};
    ok(defined $program && -x $program, "$name starts an installed program");
}
for my $unit (@system, @user) {
    like(slurp($unit), qr/\nType=notify\n.*\nWatchdogSec=\d+s\n/s, "$unit is watched");
}
# A root over NFS that is not mounted yet is no folder, and after exit 2 nothing is started again.
like(slurp($_), qr/^After=.* remote-fs\.target\b/m, "$_ comes after network mounts") for @system;
# What an administrator has written for the system's daemon (listen, key, metrics) is not a user's.
like(slurp($_), qr{^Environment=SLUICE_CONFIG=%E/sluice/sluice\.conf$}m, "$_ reads the user's file alone") for @user;
my $gpu = slurp($system[1]);
unlike($gpu, qr/^(?:PrivateDevices|MemoryDenyWriteExecute|PrivateUsers|ProcSubset)=/m, 'nothing that breaks CUDA');
like($gpu, qr/\nLimitMEMLOCK=infinity\n.*\nDeviceAllow=char-nvidia\* rw\n/s, 'what CUDA needs');
like($gpu, qr{^CacheDirectory=sluice/cuda\n.*^Environment=CUDA_CACHE_PATH=%C/sluice/cuda$}ms, 'what the driver compiles is kept');
unlike(join('', map { slurp($_) } @system, @user, "$prefix/lib/tmpfiles.d/sluice.conf"), qr{/usr/local}, 'PREFIX is everywhere');

# ---- systemd's own judgement
SKIP: {
    if (!have('systemd-analyze')) {
        fail('CI must have systemd-analyze') if $IN_CI;
        diag('systemd-analyze is not here: the units are not verified (package systemd)');
        skip 'no systemd-analyze', 1;
    }
    my @verify = qw(verify --man=no --recursive-errors=no);
    my $quiet = sub {
        my ($name, @cmd) = @_;
        my $r = run(@cmd);
        ok($r->{rc} == 0 && $r->{out} . $r->{err} eq '', $name) or diag("exit $r->{rc}\n$r->{out}$r->{err}");
    };
    my $run = scratch();
    $quiet->('systemd-analyze verify, user units', 'env', "XDG_RUNTIME_DIR=$run", 'systemd-analyze', '--user', @verify, @user);
    # Since Debian 13 it wants a folder that only root or a booted systemd makes.
    skip "not root, and systemd did not boot this: $1", 6
        if $> && run('systemd-analyze', @verify, @system)->{err} =~ m{^(Failed to create directory '/run/systemd/.*)}m;
    $quiet->('the same of the system units', 'systemd-analyze', @verify, @system);

    my $bad = scratch();
    my $text = slurp($system[0]);
    spit("$bad/sluiced.service", $text =~ s/^WatchdogSec=.*/WatchdogSec=often/mr);
    my $r = run('systemd-analyze', @verify, "$bad/sluiced.service");
    like($r->{err}, qr/Failed to parse/, 'verify sees a bad value');
    spit("$bad/sluiced.service", $text =~ s/^ExecStart=.*/ExecStart=\/nowhere\/sluiced/mr);
    $r = run('systemd-analyze', @verify, "$bad/sluiced.service");
    ok($r->{rc} != 0, 'verify sees a program that is not there');

    for my $unit (@system) {
        $r = run(qw(systemd-analyze security --offline=yes --threshold=20 --no-pager), $unit);
        my ($level) = $r->{out} =~ /Overall exposure level for \S+ ([0-9.]+)/;
        $level //= '?';
        is($r->{rc}, 0, "exposure level $level is at most 2.0") or diag($r->{out}, $r->{err});
    }
    spit("$bad/sluiced.service", $text =~ s/^(?:Protect|Private|Restrict|SystemCall|Capability).*\n//mgr);
    $r = run(qw(systemd-analyze security --offline=yes --threshold=20 --no-pager), "$bad/sluiced.service");
    ok($r->{rc} != 0, 'a bare unit is over it');
}

# ---- user, group and folders, made in a root of their own
SKIP: {
    skip 'not root', 3 if $> != 0;
    skip 'no systemd-sysusers', 3 unless have('systemd-sysusers') && have('systemd-tmpfiles');
    my $root = scratch();
    mkdir "$root/etc";
    installed("DESTDIR=$root", 'PREFIX=/usr');
    run_ok('systemd-sysusers', 'systemd-sysusers', "--root=$root");
    my ($uid, $gid) = slurp("$root/etc/passwd") =~ /^sluice:[^:]*:(\d+):(\d+):/m;
    run_ok('systemd-tmpfiles', 'systemd-tmpfiles', "--root=$root", '--create');
    my @conf = stat "$root/etc/sluice/sluice.conf";
    my @srv = stat "$root/srv/sluice";
    is_deeply([$conf[2] & 07777, $conf[4], $conf[5], $srv[2] & 07777, $srv[4], $srv[5]],
        [0644, 0, $gid, 02770, $uid, $gid], 'the example and the root are where they belong');
}

# ---- metrics' friends
my $dash = eval { JSON::PP::decode_json(slurp("$prefix/share/sluice/grafana-dashboard.json")) };
ok($dash, 'the dashboard is JSON') or diag($@);
my %id;
$id{ $_->{id} }++ for @{ $dash->{panels} };
is_deeply([grep { $id{$_} > 1 } keys %id], [], 'each panel has an id of its own');
is_deeply([map { $_->{title} } grep { !@{ $_->{targets} } || grep { !length $_->{expr} } @{ $_->{targets} } } @{ $dash->{panels} }], [],
    'each panel asks for something');

SKIP: {
    my $promtool = promtool_or_skip(1, 'rules and metrics are not checked');
    my $rules = "$prefix/share/sluice/alerts.rules.yml";
    run_ok('promtool check rules', $promtool, 'check', 'rules', $rules);
    my $bad = scratch() . '/bad.yml';
    spit($bad, slurp($rules) =~ s/ == 0/ === 0/r);
    ok(run($promtool, 'check', 'rules', $bad)->{rc} != 0, 'it sees a bad expression');

    # A queued job has no tasks yet, a held one is not to run.
    my $test = scratch() . '/rules_test.yml';
    for my $case ([queued => 1], [verifying => 1], [held => 0]) {
        my ($state, $fires) = @$case;
        my $alert = $fires ? qq([{exp_labels: {instance: a, severity: warning}, exp_annotations: {summary: )
            . '"Jobs wait on a and no worker is connected", description: "1 of them. sluice workers"}}]' : '[]';
        spit($test, <<"END");
rule_files: [$rules]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'sluice_jobs{instance="a",state="$state"}', values: '1x20'}
      - {series: 'sluice_jobs{instance="a",state="running"}', values: '0x20'}
      - {series: 'sluice_tasks{instance="a",state="ready"}', values: '@{[$state eq 'held' ? 7 : 0]}x20'}
      - {series: 'sluice_workers{instance="a"}', values: '0x20'}
    alert_rule_test:
      - {eval_time: 15m, alertname: SluiceNoWorkers, exp_alerts: $alert}
END
        run_ok("no worker, and a job is $state", $promtool, 'test', 'rules', $test);
    }
}

done_testing();
