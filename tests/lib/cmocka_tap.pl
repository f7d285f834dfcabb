#!/usr/bin/env perl
# Runs a cmocka program and tells its results in TAP: every test by its name,
# and a failure of its own when the program ends without an account.
use strict;
use warnings;

my @cmd = @ARGV;
my ($n, $failed, $said, $last) = (0, 0, 0, '');
$| = 1;
my $pid = open(my $f, '-|') // die "fork: $!";
if (!$pid) {
    open STDERR, '>&', \*STDOUT;
    exec { $cmd[0] } @cmd or die "$cmd[0]: $!";
}
while (my $line = <$f>) {
    chomp $line;
    if ($line =~ /^\[\s+(OK|FAILED|SKIPPED)\s+\] (\S+)$/ && $2 !~ /^\d+$/) {
        # cmocka lists failures and skips a second time in its summary.
        next if $said;
        $n++;
        $failed++ if $1 eq 'FAILED';
        print $1 eq 'FAILED' ? 'not ok' : 'ok', " $n - $2", $1 eq 'SKIPPED' ? " # SKIP $last" : '', "\n";
    } elsif ($line =~ /^\[==========\] .*run\.?$/) {
        $said = 1;
        print "# $line\n";
    } else {
        $said = 0 if $line =~ /^\[==========\].*Running/;
        $last = $line =~ /^\[/ ? '' : $line; # what a test said last: why it is skipped
        print "# $line\n";
    }
}
close $f;
my $rc = $? & 127 ? 128 + ($? & 127) : $? >> 8;
if ($n == 0 || ($rc != 0 && !$failed)) {
    $n++;
    print "not ok $n - $cmd[0] ended with status $rc after ", $n - 1, " tests\n";
}
print "1..$n\n";
exit($rc ? 1 : 0);
