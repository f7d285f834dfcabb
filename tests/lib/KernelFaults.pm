# Forces what the kernel answers to real programs (tests/preload/kernel_faults.c),
# and changes it while they run.
package KernelFaults;
use strict;
use warnings;
use Exporter 'import';
use SluiceTest;

our @EXPORT = qw(faults_at faults_env fault no_fault);
my ($file, %now);

# Where the table lies.
sub faults_at {
    ($file) = @_;
    spit($file, "\0" x 4096);
    no_fault();
}

# Variables for a program that is to be under it.
sub faults_env {
    return { LD_PRELOAD => tool('kernel_faults.so'), KERNEL_FAULTS => $file };
}

# clock => seconds, read, write, sync => errno, left => calls, delay_ms, stop, from, slept, path.
sub fault {
    my (%change) = @_;
    %now = (%now, %change);
    open my $f, '+<:raw', $file or die "$file: $!";
    syswrite $f, pack('q l6 q2 Z256', @now{qw(clock read write sync left delay_ms stop from slept path)});
    close $f or die "$file: $!";
}

sub no_fault {
    %now = (clock => 0, read => 0, write => 0, sync => 0, left => -1, delay_ms => 0, stop => 0, from => 0, slept => 0,
            path => '/no such file/');
    fault();
}

1;
