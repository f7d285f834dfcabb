# Forces what the kernel answers to real programs (tests/preload/kernel_faults.c),
# and changes it while they run.
package KernelFaults;
use strict;
use warnings;
use Exporter 'import';
use SluiceTest;

our @EXPORT = qw(faults_at faults_env fault no_fault await_held);
my ($file, %now);

# Where the table lies.
sub faults_at {
    ($file) = @_;
    spit($file, "\0" x 4096);
    no_fault();
}

# Variables for a program that is to be under it.
sub faults_env {
    return { LD_PRELOAD => tool('kernel_faults.so'), KERNEL_FAULTS => $file,
        $SANITIZED ? (ASAN_OPTIONS => ($ENV{ASAN_OPTIONS} // '') . ':verify_asan_link_order=0') : () };
}

# clock => seconds, read, write, sync, shut => errno, left => calls, delay_ms, stop, from, slept, path, hold.
sub fault {
    my (%change) = @_;
    my $held = delete $change{held} // [];
    %now = (%now, %change);
    open my $f, '+<:raw', $file or die "$file: $!";
    syswrite $f, pack('q l7 x4 q2 Z256 l', @now{qw(clock read write sync shut left delay_ms stop from slept path hold)}) . pack('l*', @$held);
    close $f or die "$file: $!";
}

sub no_fault {
    %now = (clock => 0, read => 0, write => 0, sync => 0, shut => 0, left => -1, delay_ms => 0, stop => 0, from => 0, slept => 0,
            path => '/no such file/', hold => 0);
    fault(held => [0]); # of what comes: those that waited go on
}

# Until a read waits (hold), or $over says that none will. Returns whether one does.
sub await_held {
    my ($over) = @_;
    until (unpack('x316 l', slurp($file))) {
        return 0 if $over->();
        select undef, undef, undef, 0.01;
    }
    return 1;
}

1;
