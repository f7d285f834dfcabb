# A sweep: several recipes over one source in one submit. Their source is read once for
# all of them, as the kernel counts the worker's reads; the files are those of `sluice
# convert`. Beside it, as the measure of the measure: the same recipes as jobs of their own.
use strict;
use warnings;
use IO::Socket::UNIX;
use POSIX qw(:sys_wait_h);
use Socket;
use SluiceTest;
use Test::More;
use Time::HiRes qw(time sleep);

my $SLUICED = "$BUILD/sluiced";
my $run = File::Temp::tempdir('/tmp/sluice_sweep_XXXXXX', CLEANUP => 1);
mkdir $_ or die "$_: $!" for "$run/out", "$run/state", "$run/sock";
chmod 0700, "$run/sock";
my $endpoint = "ipc://$run/sock/d";
my $source = checkpoint("$run/src", qw(--preset demo --layers 4 --experts 8 --groups 2 --groups-used 1 --used 2));
my $source_bytes = 0;
$source_bytes += -s $_ for glob "$source/*.safetensors";
my @recipes = qw(q4_k_m q6_k q8_0);

$ENV{SLUICE_CONFIG} = "$run/sluice.conf";
spit($ENV{SLUICE_CONFIG}, <<"END");
[sluice]
endpoint = $endpoint
root = $run
log = plain
[daemon]
listen = $endpoint
state_dir = $run/state
heartbeat = 500ms
END

my %alive;
END { kill 'KILL', $_ for values %alive; }

sub start_one {
    my ($name, @cmd) = @_;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        open STDIN,  '<', '/dev/null';
        open STDOUT, '>>', "$run/$name.log";
        open STDERR, '>>', "$run/$name.log";
        exec { $cmd[0] } @cmd or POSIX::_exit(127);
    }
    return $alive{$name} = $pid;
}

sub stop_one {
    my ($name) = @_;
    my $pid = delete $alive{$name};
    kill 'TERM', $pid;
    waitpid $pid, 0;
    return $? >> 8;
}

# Bytes that a process has had from read calls so far.
sub bytes_read {
    my ($pid) = @_;
    return slurp("/proc/$pid/io") =~ /^rchar: (\d+)/m ? $1 : die "no count of reads";
}

# pread: the kernel's count knows nothing of io_uring.
sub start_worker { return start_one('worker', "$BUILD/sluice-worker", '--io', 'pread', '--mem', '512Mi') }

# What systemd would hear of the worker.
my $notify = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => "$run/notify") or die "notify: $!";
sub heard {
    my ($want, $seconds) = @_;
    my $end = time + $seconds;
    while ((my $left = $end - time) > 0) {
        my $in = '';
        vec($in, fileno $notify, 1) = 1;
        next unless select $in, undef, undef, $left;
        recv $notify, my $text, 4096, 0;
        return 1 if $text =~ $want;
    }
    return 0;
}

start_one('daemon', $SLUICED);
my $worker = do {
    local @ENV{qw(NOTIFY_SOCKET WATCHDOG_USEC)} = ("$run/notify", 900_000);
    start_worker();
};
ok(heard(qr/^READY=1\nMAINPID=$worker\n/, 10), 'the worker says that it is ready');
ok(heard(qr/^WATCHDOG=1$/, 5), 'and feeds its watchdog while it has nothing to do');
for (1 .. 100) {
    last if run($SLUICE, 'workers', '--json')->{out} =~ /"worker/;
    sleep 0.1;
}

my $written = 0;
for my $r (@recipes) {
    run_ok("convert $r", $SLUICE, 'convert', $source, '--recipe', $r, '-o', "$run/$r.gguf", '--quiet');
    $written += -s "$run/$r.gguf";
}

# Each output is read once, by stitch; the rest is headers and tokenizers.
my $before = bytes_read($worker);
my $one = run_ok('one job', $SLUICE, 'submit', $source, '-r', $recipes[0], '-o', "$run/out/one.gguf", '--wait');
my $single = bytes_read($worker) - $before - -s "$run/out/one.gguf";
is(sha256("$run/out/one.gguf"), sha256("$run/$recipes[0].gguf"), 'a job of its own: the file of convert');
cmp_ok($single, '>=', $source_bytes * 0.9, 'the count sees the source being read');

$before = bytes_read($worker);
run_ok('a sweep', $SLUICE, 'submit', $source, '-r', join(',', @recipes), '-o', "$run/out/", '--wait');
my $sweep = bytes_read($worker) - $before - $written;
diag(sprintf 'source %d bytes; read for one job %d, for a sweep of %d recipes %d: %.2f times the source',
    $source_bytes, $single, scalar @recipes, $sweep, $sweep / $source_bytes);
ok(heard(qr/^WATCHDOG=1$/, 5), 'the watchdog was fed');
my %made;
for my $f (glob "$run/out/*.gguf") {
    $made{ sha256($f) } = 1;
}
ok($made{ sha256("$run/$_.gguf") }, "$_: the file of convert") for @recipes;
# What a job reads besides: headers and tokenizer, for its plan.
my $besides = $single > $source_bytes ? $single - $source_bytes : 0;
cmp_ok($sweep, '<', $source_bytes * 1.15 + @recipes * $besides, 'the source was read once for all recipes');
cmp_ok($sweep, '<', $single * 2, 'which is less than two jobs read');

heard(qr/^nothing$/, 0.2); # makes room in the socket
is(stop_one('worker'), 0, 'the worker ends with 0');
ok(heard(qr/^STOPPING=1\n/, 1), 'and has said that it stops');
is(stop_one('daemon'), 0, 'the daemon ends with 0');
done_testing();
