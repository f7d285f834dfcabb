# A sweep: several recipes over one source in one submit. Their source is read once for
# all of them, as the kernel counts the worker's reads; the files are those of `sluice
# convert`. Beside it, as the measure of the measure: the same recipes as jobs of their own.
use strict;
use warnings;
use NotifySocket;
use SluiceService;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep);

service_setup(daemon => { heartbeat => '500ms' });
my $source = "$RUN/src";
my $source_bytes = 0;
$source_bytes += -s $_ for glob "$source/*.safetensors";
my @recipes = qw(q4_k_m q6_k q8_0);

# Bytes that a process has had from read calls so far.
sub bytes_read {
    my ($pid) = @_;
    return slurp("/proc/$pid/io") =~ /^rchar: (\d+)/m ? $1 : die "no count of reads";
}

start_one('daemon');
# pread: the kernel's count knows nothing of io_uring.
my $worker = start_one('worker', cmd => ["$BUILD/sluice-worker", '--io', 'pread', '--mem', '512Mi'],
    env => { NOTIFY_SOCKET => listen_notify("$RUN/notify"), WATCHDOG_USEC => 900_000 })->{pid};
ok(heard(qr/^READY=1\nMAINPID=$worker\nSTATUS=running$/, 10), 'the worker says that it is ready, not that it has work');
ok(heard(qr/^WATCHDOG=1$/, 5), 'and feeds its watchdog while it has nothing to do');
for (1 .. 100) {
    last if run($SLUICE, 'workers', '--json')->{out} =~ /"worker/;
    sleep 0.1;
}

my $written = 0;
for my $r (@recipes) {
    run_ok("convert $r", $SLUICE, 'convert', $source, '--recipe', $r, '-o', "$RUN/$r.gguf", '--quiet');
    $written += -s "$RUN/$r.gguf";
}

# Each output is read once, by stitch; the rest is headers and tokenizers.
my $before = bytes_read($worker);
run_ok('one job', $SLUICE, 'submit', $source, '-r', $recipes[0], '-o', "$OUT/one.gguf", '--wait');
my $single = bytes_read($worker) - $before - -s "$OUT/one.gguf";
is(sha256("$OUT/one.gguf"), sha256("$RUN/$recipes[0].gguf"), 'a job of its own: the file of convert');
cmp_ok($single, '>=', $source_bytes * 0.9, 'the count sees the source being read');

# What a job reads besides: headers and tokenizer, for its plan.
my $besides = $single > $source_bytes ? $single - $source_bytes : 0;
my $once = $source_bytes * 1.15 + @recipes * $besides;
my $sweep = $once;
for my $try (1 .. 3) { # a busy machine may bring together what is granted together 2 s late, and it is read apart then
    $before = bytes_read($worker);
    run_ok('a sweep', $SLUICE, 'submit', $source, '-r', join(',', @recipes), '-o', "$OUT/", '--wait', '--force');
    $sweep = bytes_read($worker) - $before - $written;
    last if $sweep < $once;
}
diag(sprintf 'source %d bytes; read for one job %d, for a sweep of %d recipes %d: %.2f times the source',
    $source_bytes, $single, scalar @recipes, $sweep, $sweep / $source_bytes);
ok(heard(qr/^WATCHDOG=1$/, 5), 'the watchdog was fed');
my %made;
for my $f (glob "$OUT/*.gguf") {
    $made{ sha256($f) } = 1;
}
ok($made{ sha256("$RUN/$_.gguf") }, "$_: the file of convert") for @recipes;
cmp_ok($sweep, '<', $once, 'the source was read once for all recipes');
cmp_ok($sweep, '<', $single * 2, 'which is less than two jobs read');

heard(qr/^nothing$/, 0.2); # makes room in the socket
is(stop_one('worker'), 0, 'the worker ends with 0');
ok(heard(qr/^STOPPING=1\n/, 1), 'and has said that it stops');
is(stop_one('daemon'), 0, 'the daemon ends with 0');
done_testing();
