# What systemd would hear of a program that it runs: the other end of NOTIFY_SOCKET.
package NotifySocket;
use strict;
use warnings;
use Exporter 'import';
use IO::Socket::UNIX;
use Socket qw(SOCK_DGRAM);
use Time::HiRes qw(time);

our @EXPORT = qw(listen_notify heard all_heard);

my ($socket, @all);

# Makes the socket; there is one in a test.
sub listen_notify {
    my ($path) = @_;
    $socket = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $path) or die "$path: $!";
    return $path;
}

# The next message that matches, or undef when none came in time; 0 seconds: one that waits already.
sub heard {
    my ($want, $seconds) = @_;
    my $end = time + $seconds;
    for (;;) {
        my $left = $end - time;
        vec(my $in = '', fileno $socket, 1) = 1;
        if (select $in, undef, undef, $left > 0 ? $left : 0) {
            recv $socket, my $text, 4096, 0;
            push @all, $text;
            return $text if $text =~ $want;
        } elsif ($left <= 0) {
            return undef;
        }
    }
}

# All that came, for a diagnosis.
sub all_heard { return @all }

1;
