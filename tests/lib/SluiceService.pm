# What the tests with a real sluiced and real workers share: one folder, one
# configuration, processes known by name. Only processes that were started here
# are ever signalled, by their ids.
package SluiceService;
use strict;
use warnings;
use Exporter 'import';
use File::Temp ();
use IO::Socket::INET;
use JSON::PP;
use POSIX qw(:sys_wait_h);
use SluiceTest;
use Test::More;
use Time::HiRes qw(time sleep);

our @EXPORT = qw($RUN $OUT $ENDPOINT %ALIVE service_setup start_one ended signal_one kill_one stop_one
    ask wait_daemon has_workers demo_spec submit job wait_job until_job has_ended is_state tail log_of wait_log events prefix_of get);

our ($RUN, $OUT, $ENDPOINT, %ALIVE);
my $PATIENCE = 4; # what is waited for comes much sooner, but on a machine that has other things to do
my $parent = $$;
my ($source, $submits, %prefix) = ('', 0);

# Folders and configuration; paths of ipc sockets are short. %o: daemon => lines
# for [daemon], sluice => lines for [sluice]; dir => where (/tmp); source => '-': none
# is made; model => options of make_checkpoint.
sub service_setup {
    my (%o) = @_;
    $RUN = File::Temp::tempdir(($o{dir} // '/tmp') . '/sluice_XXXXXX', CLEANUP => 1);
    $OUT = "$RUN/out";
    mkdir $_ or die "$_: $!" for $OUT, "$RUN/state", "$RUN/sock";
    chmod 0700, "$RUN/sock", "$RUN/state";
    $ENDPOINT = "ipc://$RUN/sock/d";
    $ENV{SLUICE_CONFIG} = "$RUN/sluice.conf";
    my %daemon = (listen => $ENDPOINT, state_dir => "$RUN/state", heartbeat => '200ms', lease => '2s', %{ $o{daemon} // {} });
    my %sluice = (endpoint => $ENDPOINT, root => $RUN, log => 'plain', log_level => 'debug', %{ $o{sluice} // {} });
    # A list under one name is that key several times.
    my $lines = sub { my ($h) = @_; map { my $k = $_; map { "$k = $_\n" } ref $h->{$k} ? @{ $h->{$k} } : $h->{$k} } sort keys %$h };
    spit($ENV{SLUICE_CONFIG}, join '', "[sluice]\n", $lines->(\%sluice), "[daemon]\n", $lines->(\%daemon));
    $source = $o{source} // checkpoint("$RUN/src", qw(--preset demo), @{ $o{model} // [qw(--layers 4 --experts 8 --groups 2 --groups-used 1 --used 2)] });
    return;
}

END {
    if ($$ == $parent) {
        my $status = $?;
        for my $p (values %ALIVE) {
            kill 'CONT', $p->{pid};
            kill 'KILL', $p->{pid};
            waitpid $p->{pid}, 0;
        }
        $? = $status;
    }
}

# 'daemon', or a worker's name. $o{env}: variables; $o{before}: words before the
# command; $o{args}: its own; $o{cmd}: another command altogether.
sub start_one {
    my ($name, %o) = @_;
    my @cmd = (@{ $o{before} // [] }, $o{cmd} ? @{ $o{cmd} } : $name eq 'daemon' ? "$BUILD/sluiced"
        : ("$BUILD/sluice-worker", '--name', $name, '--threads', 1, '--mem', '128Mi'), @{ $o{args} // [] });
    my $log = "$RUN/$name.log";
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        $SIG{$_} = 'DEFAULT' for qw(HUP INT PIPE TERM);
        @ENV{ keys %{ $o{env} } } = values %{ $o{env} } if $o{env};
        open STDIN,  '<', '/dev/null';
        open STDOUT, '>>', $o{out} // $log;
        open STDERR, '>>', $log;
        exec { $cmd[0] } @cmd or POSIX::_exit(127);
    }
    return $ALIVE{$name} = { pid => $pid, name => $name };
}

# Waits for the end of a process of ours: exit status, 128 + signal, or undef.
sub ended {
    my ($name, $seconds) = @_;
    my $p = $ALIVE{$name} or return;
    my $end = time + $seconds * $PATIENCE;
    do {
        if (waitpid($p->{pid}, WNOHANG) == $p->{pid}) {
            delete $ALIVE{$name};
            return WIFSIGNALED($?) ? 128 + WTERMSIG($?) : WEXITSTATUS($?);
        }
        sleep 0.02 if $seconds;
    } while (time < $end);
    return;
}

sub signal_one {
    my ($name, $signal) = @_;
    kill $signal, $ALIVE{$name}{pid} if $ALIVE{$name};
}

sub kill_one {
    my ($name) = @_;
    signal_one($name, 'KILL');
    return ended($name, 10);
}

sub stop_one {
    my ($name) = @_;
    signal_one($name, 'TERM');
    my $rc = ended($name, 30);
    defined $rc or kill_one($name);
    return $rc;
}

# Sends messages; the answers that came, or nothing when there is no daemon.
sub ask {
    my ($message, @options) = @_;
    my $r = run(tool('wire_peer'), '-t', 30, @options, $ENDPOINT, ref $message ? encode_json({ v => 3, %$message }) : $message);
    return json_lines($r->{out});
}

sub wait_daemon {
    for (1 .. 100) {
        my ($a) = ask({ m => 'about' }, '-t', 1);
        return 1 if $a && $a->{m} eq 'daemon';
        last if !$ALIVE{daemon} || defined ended('daemon', 0);
    }
    diag(tail('daemon'));
    return 0;
}

# Waits until all of these are connected.
sub has_workers {
    my (@names) = @_;
    for (1 .. 400) {
        my %there = map { $_->{name} => 1 } map { @{ $_->{workers} // [] } } ask({ m => 'workers' });
        return 1 unless grep { !$there{$_} } @names;
        sleep 0.05;
    }
    diag(map { tail($_) . "\n" } 'daemon', @names);
    return 0;
}

# The job of these tests: one source in tasks of 1 MB.
sub demo_spec {
    my ($prefix, %options) = @_;
    return { source => $source, output => $OUT, prefix => $prefix, recipe => 'q4_k_m',
        recipe_text => slurp("$TOP/proto/recipes/q4_k_m.recipe"),
        options => { task_bytes => 1_000_000, %options } };
}

# Its number, or the daemon's words.
sub submit {
    my ($spec, %more) = @_;
    my $key = "$$." . ++$submits;
    for (1 .. 60) { # the same key until it is answered
        my ($a) = grep { $_->{m} =~ /^(?:submitted|error)$/ } ask({ m => 'submit', key => $key, specs => [$spec], %more });
        next unless $a;
        return "error $a->{code}: $a->{text}" if $a->{m} eq 'error';
        $prefix{ $a->{jobs}[0] } = $spec->{prefix};
        return $a->{jobs}[0];
    }
    return 'no answer';
}

sub prefix_of { return $prefix{ $_[0] } }

sub job {
    my ($id) = @_;
    my ($a) = grep { $_->{m} eq 'job' } ask({ m => 'show', job => 0 + $id });
    return $a ? { %{ $a->{job} }, failures => $a->{failures}, map => $a->{map} } : undef;
}

# Asks for a job until $until says yes of it; the job as last seen.
sub until_job {
    my ($id, $seconds, $until) = @_;
    my ($end, $j) = (time + $seconds * $PATIENCE);
    while (time < $end) {
        $j = job($id) // $j;
        last if $j && $until->($j);
        sleep 0.05;
    }
    return $j // { state => 'not known' };
}

sub has_ended { return $_[0]{state} =~ /^(?:succeeded|failed|cancelled)$/ }

sub wait_job {
    my ($id, $seconds) = @_;
    return until_job($id, $seconds, \&has_ended);
}

sub events {
    my ($id, $kind) = @_;
    my ($a) = grep { $_->{m} eq 'log' } ask({ m => 'logs', job => 0 + $id });
    return grep { !$kind || $_->{kind} =~ $kind } @{ $a ? $a->{events} : [] };
}

sub is_state {
    my ($j, $state, $name) = @_;
    return is($j->{state}, $state, $name)
        || diag(encode_json($j), map { "\n--- $_\n" . tail($_) } 'daemon', grep { /^w/ } sort keys %ALIVE);
}

sub log_of {
    my ($name) = @_;
    return -e "$RUN/$name.log" ? slurp("$RUN/$name.log") : '';
}

# What is answered over HTTP: status and body.
sub get {
    my ($address, $path) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => $address, Timeout => 10) or return (0, "$!");
    print $s "GET $path HTTP/1.1\r\nHost: $address\r\nConnection: close\r\n\r\n";
    local $/;
    my $answer = <$s>;
    my ($status, $body) = $answer =~ m{^HTTP/1\.1 (\d+) .*?\r\n\r\n(.*)}s;
    return ($status, $body);
}

# Waits until a process has logged this.
sub wait_log {
    my ($name, $pattern, $seconds) = @_;
    my $end = time + ($seconds // 10) * $PATIENCE;
    while (time < $end) {
        return 1 if log_of($name) =~ $pattern;
        sleep 0.05;
    }
    diag("expected $pattern of $name:\n" . tail($name));
    return 0;
}

sub tail {
    my ($name) = @_;
    my @lines = split /\n/, log_of($name);
    return join "\n", @lines[($#lines > 30 ? $#lines - 30 : 0) .. $#lines];
}

1;
