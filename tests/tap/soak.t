# SIGKILL of daemon, two workers and client at random moments, in any order, over
# one small job after the other, with everything started again: nothing that was
# acknowledged is lost, what is committed stays committed, every file is the same.
# One round is one moment: one process is killed then, sometimes several.
#   make soak ROUNDS=1000 SECONDS=3600 SEED=1
use strict;
use warnings;
use JSON::PP;
use List::Util qw(min shuffle);
use SluiceService;
use SluiceTest;
use Test::More;
use Time::HiRes qw(time sleep);

my $rounds  = $ENV{ROUNDS} || 1_000_000;
my $seconds = $ENV{SECONDS} || ($ENV{ROUNDS} ? 7200 : $QUICK ? 10 : 22);
my $seed    = $ENV{SEED} || (time ^ $$) & 0xffffff;
srand $seed;
my $begin = time;
my $last_line = 0;
diag("SEED=$seed " . ($ENV{ROUNDS} ? "ROUNDS=$rounds " : '') . "SECONDS=$seconds");

service_setup(daemon => { heartbeat => '100ms', lease => '1s' });
my $r = run_ok('convert', $SLUICE, 'convert', "$RUN/src", '--recipe', 'q4_k_m', '--task-size', '1M', '-o', "$RUN/ref.gguf", '--quiet');
my $want = sha256("$RUN/ref.gguf");
my @kinds = qw(daemon w1 w2 client);
my (%killed, @wrong, %acked, %labelled, %committed, $key, $prefix, $job, $on_purpose);
my ($jobs, $files, $acks, $checks, $attempts) = (0, 0, 0, 0, 0);

sub wrong {
    my ($what) = @_;
    push @wrong, $what;
    diag("WRONG: $what") unless $on_purpose;
}

# ---- the client: submit --wait with one name for the submit until the job has ended
sub start_client {
    $attempts++;
    unlink "$RUN/client.out";
    start_one('client', out => "$RUN/client.out", cmd => [$SLUICE, 'submit', "$RUN/src", '-o', "$OUT/$prefix.gguf",
        '--recipe', 'q4_k_m', '--task-size', '1M', '--once', $key, '--wait', '--json']);
}

# What it printed is acknowledged: the same key is the same job for ever.
sub take_acknowledged {
    return unless -e "$RUN/client.out";
    for my $line (grep { /^\{.*\}$/ } split /\n/, slurp("$RUN/client.out")) {
        my $m = decode_json($line);
        next unless $m->{message_type} eq 'submitted';
        wrong("key $key was job $acked{$key}, is $m->{job} now") if exists $acked{$key} && $acked{$key} != $m->{job};
        $acks++ unless exists $acked{$key};
        $job = $acked{$key} = $m->{job};
    }
}

sub next_job {
    $prefix = 'j' . ++$jobs;
    $key = "soak-$jobs";
    undef $job;
    %committed = ();
    start_client();
}

# The job has ended well, says the client.
sub check_file {
    take_acknowledged();
    wrong("$prefix: the client says 0 and no job") unless $job;
    my @left = ls($OUT);
    wrong("$prefix: left in the folder: @left") if "@left" ne "$prefix.gguf $prefix.gguf.xxh64";
    my $sum = -e "$OUT/$prefix.gguf" ? sha256("$OUT/$prefix.gguf") : 'no file';
    wrong("$prefix: sha256 $sum") if $sum ne $want;
    $files++ if $sum eq $want;
    unlink glob "$OUT/*";
}

# The client's end, if it has come by itself.
sub look_at_client {
    return unless $ALIVE{client};
    my $rc = ended('client', 0);
    return unless defined $rc;
    take_acknowledged();
    if ($rc == 0) {
        check_file();
        next_job();
    } elsif ($rc == 4) { # no daemon just then: people try again
        start_client();
    } else {
        wrong("$prefix: the client ended with $rc: " . tail('client'));
        next_job();
    }
}

# ---- what must have survived
sub record {
    my (%message) = @_;
    for (1 .. 20) {
        my ($a) = grep { $_->{m} !~ /^(?:event|status|rehello)$/ } ask(\%message, '-t', 2);
        return $a if $a;
    }
    return { m => 'nothing' };
}

# Every acknowledged job is in the queue or its history, with its labels.
sub check_acknowledged {
    my %seen;
    for my $m (qw(list history)) {
        my $before;
        do {
            my $answer = record(m => $m, $before ? (before => $before) : ());
            return wrong("$m: $answer->{m}") if $answer->{m} ne 'jobs';
            $seen{ $_->{id} } = $_ for @{ $answer->{jobs} };
            $before = $answer->{more} ? min(map { $_->{id} } @{ $answer->{jobs} }) : undef;
        } while ($before);
    }
    for my $k (sort keys %acked) {
        wrong("job $acked{$k} ($k) was acknowledged and is lost") unless $seen{ $acked{$k} };
    }
    for my $id (keys %labelled) {
        my %has = map { ($_ => 1) } @{ ($seen{$id} // {})->{labels} // [] };
        wrong("job $id: label $_ was acknowledged and is lost") for grep { !$has{$_} } @{ $labelled{$id} };
    }
    $checks++;
}

# A task that was done stays done.
sub check_committed {
    my ($a) = $job ? record(m => 'show', job => 0 + $job) : {};
    return unless $a->{map};
    my @map = split //, $a->{map};
    for my $t (keys %committed) {
        wrong("job $job: task $t was committed, now it is '$map[$t]'") if ($committed{$t} eq $job && $map[$t] ne 'd');
    }
    $committed{$_} = $job for grep { $map[$_] eq 'd' } 0 .. $#map;
    wrong("job $job: $_->{text}") for grep { $_->{kind} =~ /^(?:revoked|quarantined|task_failed)$/ } events($job);
}

# A small change while somebody is killed: done is done.
sub begin_change {
    my ($round) = @_;
    return unless $job && rand() < 0.5;
    my $p = start($SLUICE, 'set', $job, '-l', "r$round");
    return { %$p, job => $job, label => "r$round" };
}

sub end_change {
    my ($p) = @_;
    return unless $p;
    finish($p);
    if ($p->{rc} == 0) {
        $acks++;
        push @{ $labelled{ $p->{job} } }, $p->{label};
        # A job has room for 32.
        delete $labelled{ $p->{job} } if @{ $labelled{ $p->{job} } } > 25;
    } elsif ($p->{rc} != 4) {
        wrong("set: exit $p->{rc}: $p->{err}") unless $p->{err} =~ /at most 32/;
    }
}

sub say_line {
    my ($n, $last) = @_;
    return if !$last && time < $last_line + ($ENV{ROUNDS} ? 20 : 10);
    $last_line = time;
    diag(sprintf '%d rounds%s, %.0f s: killed %s; %d files alike, %d acknowledgements kept, %d looks', $n,
        $ENV{ROUNDS} ? " of $rounds" : '', time - $begin, join(', ', map { "$_ " . ($killed{$_} // 0) } @kinds), $files, $acks, $checks);
}

# ---- the rounds
start_one($_) for qw(daemon w1 w2);
ok(wait_daemon(), 'the daemon answers') or die('no daemon');
next_job();
my $n = 0;
while ($n < $rounds && @wrong < 5) {
    my ($spared) = grep { !$killed{$_} } @kinds; # nobody is, however slow the machine
    my $over = time - $begin - $seconds;
    last if $over > ($spared ? 90 : 0);
    $n++;
    my $moment = time + rand 0.5;
    while (time < $moment) {
        look_at_client();
        sleep 0.01;
    }
    check_committed() if rand() < 0.3;
    my $change = begin_change($n);
    sleep rand 0.02;
    my @victims = $spared && ($over > 0 || rand() < 0.6) ? $spared : grep { $ALIVE{$_} } rand() < 0.15 ? (shuffle @kinds)[0 .. rand @kinds] : $kinds[rand @kinds];
    for my $name (@victims) {
        # One that has ended by itself just before was not killed.
        signal_one($name, 'KILL');
        my $rc = ended($name, 10);
        $killed{$name}++ if defined $rc && $rc == 137;
        if (($rc // '') eq '0' && $name eq 'client') {
            check_file();
            $prefix = '';
        } elsif ($rc != 137 && $name ne 'client') {
            wrong("$name had ended by itself with $rc: " . tail($name));
        }
    }
    sleep rand 0.1;
    for my $name (@victims) {
        take_acknowledged(), next if $name eq 'client';
        start_one($name);
    }
    if (grep { $_ eq 'daemon' } @victims) {
        wait_daemon() or wrong('no daemon after a SIGKILL');
        check_acknowledged();
        check_committed();
    }
    end_change($change);
    if (grep { $_ eq 'client' } @victims) {
        $prefix ? start_client() : next_job();
    }
    wrong("$_ has ended by itself: " . tail($_)) for grep { !$ALIVE{$_} || defined ended($_, 0) } qw(daemon w1 w2);
    say_line($n);
}
say_line($n, 1);

# ---- left alone, the last job ends as well
my $end = time + 60;
my $last = $jobs;
while ($jobs == $last && time < $end && @wrong < 5) {
    look_at_client();
    sleep 0.05;
}
cmp_ok($jobs, '>', $last, 'left alone, the last job ends');
kill_one('client');
take_acknowledged();
check_acknowledged();
is_deeply(\@wrong, [], "$n rounds of SIGKILL: nothing acknowledged is lost, every file is the same")
    or diag(map { "--- $_\n" . tail($_) . "\n" } qw(daemon w1 w2 client));
cmp_ok($files, '>', 0, "$files files") or diag(tail('daemon'));
cmp_ok($killed{$_} // 0, '>', 0, "$_ was killed") for @kinds;

# ---- what these looks would say of a loss
($on_purpose, @wrong) = 1;
run_ok('a job is lost on purpose', $SLUICE, 'forget', $acked{'soak-1'});
check_acknowledged();
is($wrong[0], "job $acked{'soak-1'} (soak-1) was acknowledged and is lost", 'and found missing');
is(stop_one($_), 0, "SIGTERM: $_ ends with 0") for qw(w1 w2 daemon);
done_testing();
