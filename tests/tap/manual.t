#!/usr/bin/env perl
# The manual pages against the programs: every verb, option and setting is in them.
use strict;
use warnings;
use Cwd qw(getcwd);
use SluiceService;
use SluiceTest;
use Test::More;

my @pages = glob "$TOP/client/*.[158]";
is(scalar @pages, 5, 'five pages');

# Plain text of a page, without fonts and escapes.
sub page {
    my ($name) = @_;
    my $text = slurp("$TOP/client/$name");
    $text =~ s/\\f[BIRP]//g;
    $text =~ s/\\-/-/g;
    $text =~ s/\\\(aq/'/g;
    return $text;
}

# What a page lacks of a list of options, each a line of its own as "-o, --output=PATH".
sub lacks {
    my ($text, @options) = @_;
    return grep { $text !~ /^\Q$_\E$/m } @options;
}

my $sluice = page('sluice.1');
my ($common) = $sluice =~ /^\.SH COMMON OPTIONS\n(.*?)^\.SH EXIT/ms;
my %section = map { /^sluice (\S+)/ ? ($1 => $_) : () } split /^\.SS /m, $sluice;
my %options;
for my $line (split /\n/, run($SLUICE, 'completion', 'list')->{out}) {
    my ($verb, $long, $short, $arg) = split /\t/, $line;
    push @{ $options{$verb} }, ($short ? "$short, " : '') . $long . ($arg ? "=$arg" : '');
}
cmp_ok(scalar keys %options, '>=', 30, 'the tables have the verbs');
my $help = run($SLUICE, '--help')->{out};
is_deeply([sort grep { $help !~ /^  \Q$_\E /m } keys %options], [], 'the help names every verb');
is_deeply([sort grep { !$section{$_} } keys %options], [], 'every verb has its section');
for my $verb (sort keys %options) {
    my @missing = lacks($section{$verb} // '', @{ $options{$verb} });
    @missing = lacks($common, @missing) if @missing;
    is_deeply(\@missing, [], "every option of $verb is there");
}
for my $verb (sort keys %options) {
    my %known = map { $_ => 1 } @{ $options{$verb} };
    my ($own) = $section{$verb} =~ /(.*?)(?:^\.SH |\z)/ms;
    is_deeply([grep { !$known{$_} } $own =~ /^((?:-\w, )?--[\w-]+(?:=.*)?)$/mg], [], "no option that $verb has not");
}

for (['jobs', 'queue'], ['workers', 'workers'], ['events', 'logs']) {
    my ($what, $verb) = @$_;
    my ($list) = $sluice =~ /^Fields of $what: *\n(.*?)^(?:\.PP|\.SS)/ms;
    my ($fields) = run($SLUICE, $verb, '-o', 'nosuch')->{err} =~ /there are: (.*), and all/;
    is(join(', ', $list =~ /^\.B (\w+)$/mg), $fields, "the fields of $what, in their order");
}

for my $daemon (['sluiced.8', 'sluiced'], ['sluice-worker.8', 'sluice-worker']) {
    my ($name, $program) = @$daemon;
    my @all = run("$BUILD/$program", '--help')->{out} =~ /^\s+((?:-\w, )?--[\w-]+(?:=\S+)?)(?: |$)/mg;
    cmp_ok(scalar @all, '>', 8, "$program tells its options");
    is_deeply([lacks(page($name), @all)], [], "$name has them");
}

my $conf = page('sluice.conf.5');
for my $s (json_lines(run($SLUICE, 'config', 'show', '--json')->{out})) {
    like($conf, qr/^\Q$s->{name}\E\n(?:[^.].*\n)*.*\b$s->{environment}\b/m, "sluice.conf(5): $s->{name}");
}

for my $page (@pages) {
    my ($name) = $page =~ m{([^/]+)$};
    SKIP: {
        skip 'no man', 1 if run('man', '--version')->{rc};
        is(join('', map { local $ENV{MANWIDTH} = $_; run('man', '--warnings', '-l', $page)->{err} } 60, 80), '',
            "$name is formatted without warnings, narrow too");
    }
}

# --no-mtp: who keeps layers for multi-token prediction is named, here and in the manual.
my ($keep) = run($SLUICE, 'plan', '--help')->{out} =~ /^ +--no-mtp +(.*?)\n +--/ms;
like(lc $sluice, qr/^--no-mtp\n\Q@{[lc join ' ', split ' ', $keep]}\E\.$/m, '--no-mtp in the manual');
my @named = map { s/'s$//r } split /, | and /, $keep =~ /which (.*)\skeep/s ? join(' ', split ' ', $1) : '';
my @unnamed;
for my $config (glob "$TOP/tests/data/*-config.json") {
    my ($all, $short) = map { (json_lines(run($SLUICE, 'plan', $config, '--recipe', 'q8_0', '--json', @$_)->{out}))[0]{model} } [], ['--no-mtp'];
    next if $all->{weights} == $short->{weights};
    push @unnamed, $config if !grep { index($all->{architecture}, lc) == 0 || $config =~ m{/\L$_\E-[^/]*$} } @named;
}
is_deeply(\@unnamed, [], '--no-mtp names all that keep such layers');

# The checker itself: an option that is not there is noticed.
is_deeply([lacks($sluice, '--no-such-option', '--json')], ['--no-such-option'], 'what is missing is found');
is_deeply([lacks($sluice, '-o, --output=PATHS')], ['-o, --output=PATHS'], 'and an argument that differs');

# What can be typed is written as it must be typed, also where a sentence begins with it.
for my $path (@pages) {
    is_deeply([page($path =~ s{.*/}{}r) =~ /^((?:Auto|Cpu|Cuda|Uring|Ipc):?[,:\/ ].*)$/mg], [], "$path: no value with a capital");
}

# The examples can be typed one after another.
service_setup(source => '-');
system('cp', '-r', $TINY, "$RUN/DeepSeek-R1") == 0 or die;
run_ok('an imatrix', $SLUICE, 'imatrix', "$TINY/imatrix.legacy-layout.dat", '--convert', "$RUN/R1.gguf");
start_one('daemon');
start_one('worker') if wait_daemon();
my @examples = $sluice =~ /^\.SH EXAMPLES\n\.nf\n(.*?)^\.fi\n.*?^\.nf\n(.*?)^\.fi/ms;
s/\\e/\\/g for @examples;
is($examples[0] =~ s/--target-size \K281G/10M/, 1, 'an example of a size');
my $cwd = getcwd();
chdir $RUN or die;
{
    local $ENV{PATH} = "$BUILD:$ENV{PATH}";
    run_ok('examples', 'sh', '-exc', $examples[0]);
    symlink "out/$_", 'A.gguf' for grep { /-DQ3_K_M\.gguf$/ } ls($OUT);
    SKIP: {
        skip 'no jq', 1 if run('jq', '--version')->{rc};
        run_ok('the types of another file', 'sh', '-exc', $examples[1]);
    }
}
chdir $cwd or die;
stop_one($_) for qw(worker daemon);

done_testing();
