# What a power loss may not take: whatever a later step counts on is synced before it, its name too.
# A SIGKILL (resume.t) does not tell, since the page cache outlives it; here the calls themselves are looked at.
use strict;
use warnings;
use SluiceTest;
use Test::More;

plan skip_all => 'strace cannot trace here' if run('strace', '-f', '-o', '/dev/null', 'true')->{rc};
my $dir = scratch();
my $log = scratch() . '/trace';
my ($tail) = $dir =~ m{([^/]+/[^/]+)$}; # strace tells paths of descriptors without links, and in its own spelling
my $calls = 'openat,write,pwrite64,ftruncate,fallocate,fsync,fdatasync,rename,renameat2,unlink';

# [call, path, where a rename leads], in order: a write when it is over, all else when it begins.
sub events {
    my (@events, %begun);
    for (split /\n/, slurp($log)) {
        my ($pid, $call, $rest) = /^(\d+) +(?:<\.\.\. )?(\w+)(?:\(| resumed>)(.*)/ or next;
        my $over = $rest !~ /<unfinished \.\.\.>$/;
        my @path = /resumed>/ ? @{ delete $begun{$pid} // [] } : $call =~ /^(?:f|p?write)/ ? $rest =~ /^\d+<(.*?)>/ : $rest =~ /"(.*?)"/g;
        $begun{$pid} = \@path unless $over;
        my $written = $call =~ /^(?:p?write(?:64)?|ftruncate|fallocate)$/;
        next if $written ? !$over : /resumed>/;
        next if $call eq 'openat' && $rest !~ /O_CREAT/;
        push @events, [$written ? 'write' : $call =~ s/^renameat2$/rename/r, @path];
    }
    return @events;
}

# Names of files in $dir, short.
sub traced {
    my ($name, @options) = @_;
    my $r = run('strace', '-f', '-qq', '-y', '-s', '0', '-o', $log, '-e', "trace=$calls", $SLUICE, 'convert', $TINY, '-o', "$dir/x.gguf",
        qw(--recipe q4_k_m --task-size 1M --io pread --quiet), @options);
    is($r->{rc}, 0, $name) or diag($r->{err});
    return grep { defined $_->[1] } map { my ($call, @path) = @$_; [$call, map { m{/\Q$tail\E(?:/(.*))?$} ? $1 // '.' : () } @path] } events();
}

# Where the first or last event is that matches; -1: nowhere.
sub places { my ($e, $call, $path) = @_; return grep { $e->[$_][0] =~ $call && $e->[$_][1] =~ $path } 0 .. $#$e }
sub last_of { return (places(@_))[-1] // -1 }
sub first_of { return (places(@_))[0] // -1 }
sub synced_between {
    my ($e, $path, $from, $to) = @_;
    return $from >= 0 && $to > $from && grep { $_ > $from && $_ < $to } places($e, $path eq '.' ? qr/^fsync$/ : qr/^f(?:data)?sync$/, qr/^\Q$path\E$/);
}

sub check {
    my ($name, $parts, @e) = @_;
    my (@early, $n);
    for my $at (places(\@e, qr/^rename$/, qr/\.partial$/)) {
        my $path = $e[$at][1];
        my $write = (grep { $_ < $at } places(\@e, qr/^write$/, qr/^\Q$path\E$/))[-1] // -1;
        push @early, $path unless synced_between(\@e, $path, $write, $at);
        $n++;
    }
    is_deeply(\@early, [], "$name: what gets its final name is synced");
    is($n, 2 * $parts, 'every part and manifest');

    # A task counts when its bytes are synced: all of them are, before the pass that checks the files.
    my $seal = first_of(\@e, qr/^openat$/, qr/xxh64\.partial$/);
    my @part = grep { /gguf\.partial$/ } map { $e[$_][1] } places(\@e, qr/^openat$/, qr/gguf\.partial$/);
    is(scalar @part, $parts, 'the parts are made');
    for my $path (@part) {
        my $write = (grep { $_ < $seal } places(\@e, qr/^write$/, qr/^\Q$path\E$/))[-1] // -1;
        ok(synced_between(\@e, $path, $write, $seal), "$path: what tasks wrote is synced");
    }
    my $made = last_of(\@e, qr/^openat$/, qr/gguf\.partial$/);
    my ($used) = grep { $_ > $made } places(\@e, qr/^write$/, qr/sluice-journal/);
    ok(synced_between(\@e, '.', $made, $used // -1), 'their names are synced before the journal says that they are there');
    my ($named) = grep { $e[$_][2] =~ /gguf$/ } reverse places(\@e, qr/^rename$/, qr/\.partial$/);
    my ($first) = places(\@e, qr/^rename$/, qr/\.partial$/);
    ok(synced_between(\@e, '.', last_of(\@e, qr/^openat$/, qr/xxh64\.partial$/), $first), 'the names of the manifests are synced before the first final one');
    my $end = last_of(\@e, qr/^unlink$/, qr/sluice-journal$/);
    ok(synced_between(\@e, '.', $named, $end), 'the final names are synced before the journal goes');
    return ($named, $end);
}

my @e = traced('one file');
check('one file', 1, @e);
unlink glob "$dir/*";
check('a set', 3, my @set = traced('a set', qw(--split-max-size 5M)));
@e = traced('in the place of the set', '--force');
my ($named, $end) = check('in the place of the set', 1, @e);
my @gone = places(\@e, qr/^unlink$/, qr/-of-\d+\.gguf$/);
is(scalar @gone, 3, 'the former parts are removed');
ok(synced_between(\@e, '.', $named, $gone[0] // -1), 'once the new name is synced');
ok(synced_between(\@e, '.', $gone[-1] // -1, $end), 'which is synced, too, before the journal goes');

done_testing();
