#!/usr/bin/env perl
# Rules of the tree that no compiler checks. Prints what breaks them; exit 1
# when something does.
# usage: lint.pl ROOT [LIBRARY]    LIBRARY: the archive whose objects may hold
#                                  no writable data at file scope
use strict;
use warnings;

my ($root, $library) = @ARGV;
die "usage: lint.pl ROOT [LIBRARY]\n" unless defined $root && -d $root;
chdir $root or die "$root: $!";

# Dependencies run one way. `client` holds the daemonless convert and may use
# every part; nothing may use the client.
my %may = (
    proto   => [qw(proto)],
    kernels => [qw(proto kernels)],
    worker  => [qw(proto kernels worker)],
    daemon  => [qw(proto daemon)],
    client  => [qw(proto kernels worker daemon client)],
);
# Libraries that one file alone talks to.
my @one_user = qw(sqlite3.h zmq.h liburing.h zstd.h pcre2.h xxhash.h openssl/ microhttpd.h ini.h);
# One for each program: the daemon's end and the peers'.
my %both_ends = ('zmq.h' => {'daemon/router.c' => 1, 'worker/dealer.c' => 1});
# Files longer than 600 lines, and functions longer than 80 (PATH:FUNCTION), with the reason.
my ($most_lines, $most_in_function) = (600, 80);
my %long = ();
# A signal handler can reach nothing but a variable at file scope; grids are
# computed once in a process, under a lock.
my %writable = map { $_ => 1 } qw(interrupt.o:asked grids.o:shared accept_spare.o:spare);

if (open my $f, '<', 'tests/tools/lint_long.txt') {
    while (<$f>) {
        $long{$1} = $2 if /^(\S+)\s+(\S.*)$/ && !/^#/;
    }
}

my (@bad, %over, %declared, %said, %included);

sub too_long {
    my ($what, $lines, $most) = @_;
    return if $lines <= $most;
    $over{$what} = 1;
    push @bad, "$what: $lines lines; over $most needs a reason in tests/tools/lint_long.txt" unless $long{$what};
}

# What a header of the product declares (the last ')' may be followed by an attribute), and
# which files say which name.
sub note_names {
    my ($path, $product, $whole) = @_;
    my $text = $whole;
    $included{$_} = 1 for $text =~ m{^\s*#\s*include\s+"(?:[^"]*/)?([^"/]+)"}mg;
    $text =~ s{/\*.*?\*/|//[^\n]*|"(?:[^"\\\n]|\\.)*"}{}gs;
    $said{$_}{$path} = 1 for $text =~ /\b([A-Za-z_]\w+)\b/g;
    return unless $product && $path =~ /\.h$/;
    for my $paragraph (split /\n\s*\n/, $whole) {
        push @bad, "$path: $1: a function of a header says in a comment what it does"
            if $paragraph !~ m{/\*} && $paragraph =~ /^(?!static|typedef|return)[a-z][\w \*]*?\b(\w+)\([^;{]*;/m;
    }
    $declared{$_} = $path for $text =~ /^(?!static|typedef|return)[a-z][\w \*]*?\b(\w+)\([^;{]*;/mg;
}

# name => lines, from the first of the signature to the closing brace, which stands at the
# begin of a line here, as signatures do.
sub functions {
    my ($name, $from, $open, %length);
    for my $i (0 .. $#_) {
        my $line = $_[$i];
        ($name, $from, $open) = ($1, $i, 0) if !$open && $line =~ /^\w[^;={}]*?(\w+)\(/;
        next unless defined $name;
        if (!$open) {
            $open = $line =~ /\{\s*(?:\/\*.*)?$/;
            undef $name if !$open && $line =~ /[;}]\s*(?:\/\*.*)?$/;
        } elsif ($line =~ /^\}/) {
            $length{$name} = $i - $from + 1;
            ($name, $open) = (undef, 0);
        }
    }
    return \%length;
}

my (%by_name, %user);
my @files = sort grep { -f && /\.(?:c|h|cu|cuh|inc|pl|pm|py|t|sh)$/ } map { glob "$_/*" } keys %may, 'tests', 'tests/*';

for my $path (@files) {
    my ($part, $name) = $path =~ m{^(.*)/([^/]+)$};
    push @{ $by_name{$name} }, $path;
    open my $f, '<', $path or die "$path: $!";
    my @lines = <$f>;
    too_long($path, scalar @lines, $most_lines);
    if ($name =~ /\.(?:c|h|cu|cuh|inc)$/) {
        my $functions = functions(@lines);
        too_long("$path:$_", $functions->{$_}, $most_in_function) for sort keys %$functions;
    }
    my $product = exists $may{$part};
    note_names($path, $product, join '', @lines) if $name =~ /\.(?:c|h|cu|cuh|inc)$/;
    for my $i (0 .. $#lines) {
        my ($line, $at) = ($lines[$i], "$path:" . ($i + 1));
        push @bad, "$at: white space at the end of the line" if $line =~ /[ \t]\n/;
        push @bad, "$at: unfinished: $1" if $name ne 'lint.pl' && $line =~ /\b(TODO|FIXME|XXX)\b/;
        push @bad, "$at: BAIL_OUT ends the tests of other files, too: die" if $name =~ /\.(?:t|pm)$/ && $line =~ /\bBAIL_OUT\b/;
        next unless $product;
        if ($line =~ /^\s*#\s*include\s+"([^"]+)"/) {
            my ($dir) = $1 =~ m{^([^/]+)/};
            push @bad, "$at: include \"part/name.h\" from the root, not \"$1\""
                unless defined $dir || $1 =~ /\.inc$/;
            push @bad, "$at: $part must not include $dir"
                if defined $dir && exists $may{$dir} && !grep { $_ eq $dir } @{ $may{$part} };
        }
        if ($line =~ /^\s*#\s*include\s+<([^>]+)>/) {
            for my $lib (@one_user) {
                $user{$lib}{$path} = 1 if index($1, $lib) == 0 && !$both_ends{$lib}{$path};
            }
            push @bad, "$at: CUDA headers are for kernels/*.cu"
                if $1 =~ /^cuda/ && $path !~ m{^kernels/.*\.cuh?$};
        }
        next if $name =~ /_main\.c$/;
        push @bad, "$at: $1 outside a main"
            if $line =~ /(?<![\w.>])((?:exit|abort|assert)\s*\()/ && $line !~ /^\s*(?:\*|\/\*)/;
    }
}
for my $name (sort keys %by_name) {
    push @bad, "file name used twice: @{ $by_name{$name} }" if @{ $by_name{$name} } > 1;
}
for my $path (grep { /\.(?:h|cuh|inc)$/ && !m{^tests/bare/} } @files) {
    my ($name) = $path =~ m{([^/]+)$};
    push @bad, "$path: no file includes it" unless $included{$name};
}
for my $f (sort keys %declared) {
    my @others = grep { $_ ne $declared{$f} } keys %{ $said{$f} };
    push @bad, "$declared{$f}: $f: only " . ($others[0] // 'this header') . " says this name: remove it, or make it static"
        if @others < 2;
}
for my $lib (sort keys %user) {
    my @users = sort keys %{ $user{$lib} };
    push @bad, "<$lib> is included by more than one file: @users" if @users > 1;
}
for my $path (sort keys %long) {
    my $most = $path =~ /:/ ? $most_in_function : $most_lines;
    push @bad, "tests/tools/lint_long.txt: $path is not over $most lines" unless $over{$path};
}

if (defined $library) {
    open my $f, '-|', 'objdump', '-t', $library or die "objdump: $!";
    my $object = '';
    while (<$f>) {
        $object = $1 if /^(\S+\.o):/;
        next unless /^[0-9a-f]+ .{7} (\.data|\.bss)(?:\.\S*)?\t([0-9a-f]+)\s+(\S+)$/;
        my ($section, $size, $symbol) = ($1, hex $2, $3);
        next if /\.data\.rel\.ro/ || $size == 0 || $symbol =~ /^(?:\.|__|_ZL)/ || $writable{"$object:$symbol"};
        push @bad, "$object: writable data at file scope: $symbol";
    }
    close $f or push @bad, "$library: objdump cannot read it";
}

print "lint: $_\n" for @bad;
exit(@bad ? 1 : 0);
