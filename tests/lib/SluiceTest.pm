# What the tests that drive the whole program share: running commands, scratch
# folders, tools, golden hashes. Each test file is one process with one scratch
# folder, removed at its end.
package SluiceTest;
use strict;
use warnings;
use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(dirname);
use File::Path qw(make_path);
use File::Temp qw(tempdir);
use POSIX qw(:sys_wait_h);
use Test::More;
use Time::HiRes qw(time);

our @EXPORT = qw($TOP $BUILD $SLUICE $TINY $IN_CI $SANITIZED $QUICK scratch run run_ok fails start finish
    tool python need_python need_llama skip_without_llama promtool_or_skip absent slurp spit hashes golden whole_hash where json_lines
    checkpoint copy_checkpoint edit_json config_edit ls place flip_byte sha256 own_mounts);

our $TOP = abs_path(dirname(__FILE__) . '/../..');
if ($TOP =~ m{[^\w./+-]}) { # by a name that no shell, pattern or LD_PRELOAD takes apart
    my $link = tempdir('/tmp/sluice_XXXXXX', CLEANUP => 1) . '/tree';
    symlink $TOP, $link or die "$link: $!";
    $TOP = $link;
}
our $BUILD = $ENV{SLUICE_BUILD} || "$TOP/build/release";
$BUILD = "$TOP/$BUILD" unless $BUILD =~ m{^/};
our $SLUICE = "$BUILD/sluice";
our $TINY   = "$TOP/tests/tiny-v3";
our $IN_CI  = ($ENV{CI} // '') eq 'true';
our $SANITIZED = $ENV{SLUICE_SAN} // '';
our $QUICK     = $ENV{SLUICE_QUICK} // '';

# Nothing of the user's: colours, language, settings of Sluice, and files of settings.
delete @ENV{qw(NO_COLOR CLICOLOR_FORCE FORCE_COLOR LANGUAGE),
    grep { /^SLUICE_/ && !/^SLUICE_(?:BUILD|SAN|QUICK|NETNS|PERPLEXITY|PTX_ALL)$/ } keys %ENV};
$ENV{LC_ALL} = 'C.UTF-8';
$ENV{PATH} .= ':/usr/sbin:/sbin'; # su leaves root a user's
$ENV{SLUICE_CONFIG} = '/dev/null';
make_path("$BUILD/check/tmp");
my $scratch = tempdir('XXXXXX', DIR => "$BUILD/check/tmp", CLEANUP => 1);
my $count = 0;
my $parent = $$;
my %running;

# However the test ends, what it started ends with it.
$SIG{$_} = sub { exit 1 } for qw(HUP INT PIPE TERM);
END {
    my $status = $?;
    if ($$ == $parent) {
        kill 'KILL', map { -$_ } keys %running;
    }
    $? = $status;
}

# A new empty folder.
sub scratch {
    my $d = "$scratch/" . ++$count;
    mkdir $d or die "$d: $!";
    return $d;
}

sub slurp {
    my ($path) = @_;
    open my $f, '<:raw', $path or die "$path: $!";
    local $/;
    my $text = <$f>;
    return $text // '';
}

sub spit {
    my ($path, $text) = @_;
    open my $f, '>:raw', $path or die "$path: $!";
    print $f $text;
    close $f or die "$path: $!";
}

# Starts a command in a process group of its own; output goes to files. Group and
# files are there when this returns: a kill may come before the command began.
sub start {
    my @cmd = @_;
    my $log = "$scratch/log" . ++$count;
    open my $out, '>', "$log.out" or die "$log.out: $!";
    open my $err, '>', "$log.err" or die "$log.err: $!";
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        $SIG{$_} = 'DEFAULT' for qw(HUP INT PIPE TERM);
        # Nobody traces what is traced already: no search for leaks then.
        $ENV{ASAN_OPTIONS} = ($ENV{ASAN_OPTIONS} // '') . ':detect_leaks=0' if $cmd[0] eq 'strace';
        setpgrp(0, 0);
        open STDIN,  '<', '/dev/null';
        open STDOUT, '>&', $out;
        open STDERR, '>&', $err;
        exec { $cmd[0] } @cmd or POSIX::_exit(127);
    }
    setpgrp($pid, $pid);
    $running{$pid} = 1;
    return { pid => $pid, log => $log, t0 => time, cmd => "@cmd" };
}

# Waits for it; fields: rc (exit status, 128 + signal), out, err, secs.
sub finish {
    my ($p) = @_;
    waitpid $p->{pid}, 0;
    delete $running{ $p->{pid} };
    $p->{rc} = WIFSIGNALED($?) ? 128 + WTERMSIG($?) : WEXITSTATUS($?);
    $p->{secs} = time - $p->{t0};
    $p->{out} = slurp("$p->{log}.out");
    $p->{err} = slurp("$p->{log}.err");
    unlink "$p->{log}.out", "$p->{log}.err";
    return $p;
}

sub run { return finish(start(@_)) }

# One test: the command ends with 0.
sub run_ok {
    my ($name, @cmd) = @_;
    my $r = run(@cmd);
    local $Test::Builder::Level = $Test::Builder::Level + 1; # the caller's line is told
    ok($r->{rc} == 0, $name) or diag("$r->{cmd}\nexit $r->{rc}\n$r->{out}$r->{err}");
    return $r;
}

# One test: the command ends with this status and says what the pattern wants
# in one line on standard error, with nothing on standard output.
sub fails {
    my ($name, $rc, $pattern, @cmd) = @_;
    my $r = run(@cmd);
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    ok($r->{rc} == $rc && $r->{err} =~ $pattern, $name)
        or diag("$r->{cmd}\nexit $r->{rc}, expected $rc; expected /$pattern/ in\n$r->{err}");
    return $r;
}

# Something that this machine lacks: a failure under CI, a loud skip elsewhere.
sub absent {
    my ($why) = @_;
    plan(skip_all => $why) unless $IN_CI;
    plan(tests => 1) unless Test::More->builder->has_plan;
    fail("CI must have it: $why");
    exit 1;
}

# The words before a command that give it mounts of its own, or none where it cannot mount at $at.
# A chroot's root may be no mount, which unshare cannot make private: what is mounted must not come out.
sub own_mounts {
    my ($at) = @_;
    for my $how ($> ? ['-rm'] : (['-m'], ['-m', '--propagation', 'unchanged'])) {
        my @own = ('unshare', @$how);
        return @own if run(@own, 'mount', '-t', 'tmpfs', 'none', $at)->{rc} == 0 && run('umount', $at)->{rc};
    }
    return;
}

# A helper program built from tests/tools.
sub tool {
    my ($name) = @_;
    my $path = "$BUILD/tools/$name";
    $path = "$TOP/build/release/tools/$name" unless -x $path;
    die "$path is not built (make check does it)\n" unless -x $path;
    return $path;
}

sub python {
    my ($script, @args) = @_;
    return ("$TOP/build/venv/bin/python", "$TOP/tests/tools/$script", @args);
}

sub need_python {
    my $r = -x "$TOP/build/venv/bin/python"
        ? run("$TOP/build/venv/bin/python", '-c', 'import numpy, gguf') : { rc => 1 };
    absent('numpy and gguf are not in build/venv (make test-tools)') if $r->{rc};
}

sub need_llama {
    need_python();
    my $r = run(python('llama.py', 'version'));
    absent("llama.cpp is not here: $r->{err}") if $r->{rc};
}

# In a SKIP block: so many tests are passed over.
sub skip_without_llama {
    my ($tests) = @_;
    skip('llama.cpp is not here', $tests) if run(python('llama.py', 'version'))->{rc} && !$IN_CI;
}

# Prometheus' checker. Where it is not here, so many tests of a SKIP block are passed over, and what is not checked is said.
sub promtool_or_skip {
    my ($tests, $what) = @_;
    my $promtool = (grep { -x } '/usr/bin/promtool', "$TOP/build/prometheus/usr/bin/promtool")[0];
    return $promtool if $promtool;
    fail('CI must have promtool') if $IN_CI;
    diag("promtool is not here: $what (make test-tools)");
    skip('no promtool', $tests);
}

# name => XXH64 of a GGUF file's (or several parts') tensors, read independently.
sub hashes {
    my $r = run(tool('gguf_hash'), @_);
    return { error => "@_: exit $r->{rc}: $r->{err}" } if $r->{rc}; # which no other file has
    return { map { /^xxh64 +([0-9a-f]+)  .*:(.*)$/ ? ($2 => $1) : () } split /\n/, $r->{out} };
}

# [name, offset in the file, bytes, type id] of each tensor.
sub where {
    my $r = run(tool('gguf_hash'), '--where', $_[0]);
    die $r->{err} if $r->{rc};
    return map { [split / /] } split /\n/, $r->{out};
}

# The same from llama-gguf-hash's own lines, and the hash of the whole.
sub golden {
    my ($path) = @_;
    return { map { /^xxh64 +([0-9a-f]+)  MODEL:(.*)$/ ? ($2 => $1) : () } split /\n/, slurp($path) };
}

sub whole_hash {
    my ($path) = @_;
    my ($h) = slurp($path) =~ /^xxh64 +([0-9a-f]+)  [^:\n]*$/m;
    return $h;
}

# What each line of JSON holds.
sub json_lines {
    require JSON::PP;
    return map { JSON::PP::decode_json($_) } grep { /\S/ } split /\n/, $_[0];
}

# Changes what a JSON file holds; config_edit gives a sub that does so with a folder's config.json.
sub edit_json {
    my ($file, $change) = @_;
    require JSON::PP;
    my $json = JSON::PP->new->utf8->canonical;
    my $c = $json->decode(slurp($file));
    $change->($c);
    spit($file, $json->encode($c));
}

sub config_edit {
    my ($change) = @_;
    return sub { edit_json("$_[0]/config.json", $change) };
}

# Makes a checkpoint with tests/tools/make_checkpoint.c.
sub checkpoint {
    my ($dir, @options) = @_;
    my $r = run(tool('make_checkpoint'), @options, '--tokenizer', $TINY, '--out', $dir);
    die $r->{err} if $r->{rc};
    return $dir;
}

# A copy whose files can be changed: small ones copied, shards hard-linked
# unless named in @own.
sub copy_checkpoint {
    my ($from, $to, @own) = @_;
    mkdir $to or die "$to: $!";
    for my $path (glob("$from/*.json"), glob("$from/*.safetensors")) {
        my ($name) = $path =~ m{([^/]+)$};
        next if $path =~ /safetensors$/ && !grep({ $_ eq $name } @own) && link $path, "$to/$name";
        spit("$to/$name", slurp($path));
    }
    return $to;
}

sub ls {
    my ($dir) = @_;
    opendir my $d, $dir or die "$dir: $!";
    return sort grep { !/^\.\.?$/ } readdir $d;
}

# [file, where its data begin, bytes] of a tensor of a folder of safetensors.
sub place {
    my ($folder, $name) = @_;
    require JSON::PP;
    for my $file (glob "$folder/*.safetensors") {
        open my $f, '<:raw', $file or die "$file: $!";
        read $f, my $n, 8;
        read $f, my $header, unpack 'Q<', $n;
        my $t = JSON::PP::decode_json($header)->{$name} or next;
        my ($from, $to) = @{ $t->{data_offsets} };
        return ($file, 8 + unpack('Q<', $n) + $from, $to - $from);
    }
    die "no $name in $folder";
}

# Flips one bit pattern in place; the same call undoes it.
sub flip_byte {
    my ($path, $at, $mask) = @_;
    open my $f, '+<:raw', $path or die "$path: $!";
    seek $f, $at, 0;
    read $f, my $byte, 1 or die "$path: nothing at $at";
    seek $f, $at, 0;
    print $f chr(ord($byte) ^ ($mask // 0xff));
    close $f or die "$path: $!";
}

sub sha256 {
    require Digest::SHA;
    return Digest::SHA->new(256)->addfile($_[0], 'b')->hexdigest;
}

1;
