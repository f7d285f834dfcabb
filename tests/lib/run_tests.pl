#!/usr/bin/env perl
# Runs test programs, two at a time: .t files (TAP) and cmocka programs. Every
# program's full output is kept in FOLDER; that of failed ones is shown again at
# the end, and why what was skipped was. One may run for SLUICE_TEST_SECONDS (900).
# The last line counts tests: "N passed, N failed, N skipped".
# usage: run_tests.pl FOLDER PROGRAM...
use strict;
use warnings;
use File::Basename qw(dirname);
use File::Path qw(make_path remove_tree);
use TAP::Harness;

my ($folder, @programs) = @ARGV;
die "usage: run_tests.pl FOLDER PROGRAM...\n" unless @programs;
my $lib   = dirname(__FILE__);
my $limit = $ENV{SLUICE_TEST_SECONDS} || 900;
umask 022;
remove_tree($folder);
make_path($folder);
$ENV{PERL_TEST_HARNESS_DUMP_TAP} = $folder;

my $harness = TAP::Harness->new({
    jobs      => $ENV{SLUICE_TEST_JOBS} || 2,
    merge     => 1,
    verbosity => 0,
    timer     => 1,
    exec      => sub {
        my ($h, $file) = @_;
        my @how = $file !~ /\.t$/ ? ($^X, "$lib/cmocka_tap.pl") : interpreter($file);
        # What it starts does not outlive it, when Ctrl-C ends it, say.
        return [qw(setpriv --pdeathsig TERM timeout -k 10), $limit, @how, $file];
    },
});

# What a test's first line asks for; Perl where it has none.
sub interpreter {
    my ($file) = @_;
    open my $f, '<', $file or return $^X;
    my $first = <$f> // '';
    return $1 if $first =~ m{^#!\s*(/\S*sh)\b};
    return ($^X, "-I$lib");
}

my (%skipped_whole, %skips);
$harness->callback(made_parser => sub {
    my ($parser, $job) = @_;
    $parser->callback(test => sub { $skips{ $job->[0] }{ $_[0]->explanation }++ if $_[0]->has_skip });
});
$harness->callback(after_test => sub {
    my ($job, $parser) = @_;
    $skipped_whole{ $job->[0] } = $parser->skip_all if defined $parser->skip_all;
});
my $sum = $harness->runtests(@programs);

my $bad = 0;
for my $p ($sum->descriptions) {
    my ($parser) = $sum->parsers($p);
    next unless $parser->has_problems || $parser->exit || $parser->wait;
    $bad++;
    print "\n---- output of $p\n";
    if (open my $f, '<', "$folder/$p") {
        print while <$f>;
    } else {
        print "(none was kept: $!)\n";
    }
    # A program that died between tests failed one more than it could say.
    my $late = $parser->exit == 124 ? ": it ran for more than $limit s; SLUICE_TEST_SECONDS=@{[4 * $limit]} gives it longer" : '';
    print "---- $p: exit status ", $parser->exit, "$late\n";
}
print "\n" if %skipped_whole || %skips;
print "skipped: $_: $skipped_whole{$_}\n" for sort keys %skipped_whole;
for my $p (sort keys %skips) {
    print "skipped: $p: $skips{$p}{$_} of its tests: $_\n" for sort keys %{ $skips{$p} };
}

my $skipped = $sum->skipped + keys %skipped_whole;
my $failed  = $sum->failed;
$failed ||= $bad;
my $passed = $sum->passed - $sum->skipped;
print "$passed passed, $failed failed, $skipped skipped\n";
exit($failed || $bad || ($sum->total == 0 && !%skipped_whole) ? 1 : 0);
