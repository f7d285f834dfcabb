# A client whose output nobody reads, while more messages come than libzmq keeps for it, and then the daemon goes: libzmq
# ended such a program when its heartbeat was due.
use strict;
use warnings;
use Fcntl;
use JSON::PP;
use POSIX qw(mkfifo);
use SluiceService;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep);

service_setup(source => '-', daemon => { heartbeat => '5s', lease => '10s' }); # so long it counts as there
start_one('daemon');
ok(wait_daemon(), 'daemon');
mkfifo("$RUN/pipe", 0600) or die "$!";
sysopen my $pipe, "$RUN/pipe", O_RDONLY | O_NONBLOCK or die "$!";
start_one('watch', cmd => [$SLUICE, 'watch', '--json'], out => "$RUN/pipe");
for (1 .. 200) { # until it watches
    ask({ m => 'submit', key => "first$_", specs => [{ source => "$RUN/out", output => $OUT, prefix => "first$_",
        recipe => 'r', recipe_text => "default q4_k\n" }], hold => JSON::PP::true });
    last if sysread $pipe, my $told, 1 << 20;
    sleep 0.05;
}
my $jobs = 0;
for my $sweep (1 .. 16) {
    my ($a) = ask({ m => 'submit', key => "k$sweep", hold => JSON::PP::true, specs => [map { { source => "$RUN/out", output => $OUT,
        prefix => "p$sweep.$_", recipe => 'r', recipe_text => "default q4_k\n" } } 1 .. 64] });
    $jobs += @{ $a->{jobs} // [] };
}
is($jobs, 1024, 'more than two thousand events');
sleep 1;
is(kill_one('daemon'), 128 + 9, 'the daemon goes');
sleep 3;
is(ended('watch', 0), undef, 'the client lives') or diag(tail('watch'));
my $lines = 0;
for (1 .. 100) {
    my $n = sysread $pipe, my $told, 1 << 20;
    $lines += $told =~ tr/\n// if $n;
    sleep 0.02;
}
cmp_ok($lines, '>', 0, 'and tells what it has');
is(stop_one('watch'), 0, 'until it is stopped');
done_testing;
