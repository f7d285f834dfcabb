#!/usr/bin/env perl
# --sparse: zeros of the output are holes, and the bytes are the same; large files past
# the page cache; what --stats says.
use strict;
use warnings;
use SluiceTest;
use Test::More;

my $dir = scratch();
my $source = checkpoint("$dir/source", qw(--layers 3 --experts 16 --holes));

sub on_disk { return 512 * (stat $_[0])[12] }

my $r = run_ok('dense', $SLUICE, 'convert', $source, '-o', "$dir/dense.gguf", qw(--recipe q4_k_m --quiet));
$r = run_ok('sparse', $SLUICE, 'convert', $source, '-o', "$dir/sparse.gguf", qw(--recipe q4_k_m --quiet --sparse --stats));
is(sha256("$dir/sparse.gguf"), sha256("$dir/dense.gguf"), 'the same bytes');
cmp_ok(-s "$dir/dense.gguf", '>', 5_000_000, 'there is something to leave out');
SKIP: {
    open my $f, '>', "$dir/probe" or die;
    truncate $f, 1 << 22;
    skip 'this filesystem has no holes', 1 if on_disk("$dir/probe") > 1 << 20;
    cmp_ok(on_disk("$dir/sparse.gguf"), '<', on_disk("$dir/dense.gguf") / 2, 'and it is left out');
}
like($r->{err}, qr/left 0\.\d\d GB as holes/, '--stats tells of the holes');
like($r->{err}, qr/% of their time with work.*being read.*bound by (?:the processor|reading|writing)$/ms, 'and what binds');
run_ok('verify', $SLUICE, 'verify', "$dir/sparse.gguf", '--source', $source, '--quiet');

# A hole that should not be one is found, like any other wrong byte.
my $where;
for (split /\n/, run(tool('gguf_hash'), '--where', "$dir/sparse.gguf")->{out}) {
    my (undef, $at, $bytes) = split ' ';
    $where = { at => $at, bytes => $bytes } if substr(slurp("$dir/sparse.gguf"), $at, $bytes) =~ /[^\0]/;
}
ok($where, 'a tensor with data');
open my $file, '+<:raw', "$dir/sparse.gguf" or die;
seek $file, $where->{at}, 0;
print $file "\0" x $where->{bytes};
close $file;
isnt(run($SLUICE, 'verify', "$dir/sparse.gguf", '--quiet')->{rc}, 0, 'zeros where there was data are noticed');

# O_DIRECT for every segment, in and out, by both ways of reading and writing.
for my $io (qw(auto pread)) {
    run_ok("direct, $io", $SLUICE, 'convert', $source, '-o', "$dir/direct-$io.gguf", qw(--recipe q4_k_m --quiet --direct on --io), $io);
    is(sha256("$dir/direct-$io.gguf"), sha256("$dir/dense.gguf"), "the same bytes past the page cache ($io)");
}
run_ok('bf16', $SLUICE, 'convert', $source, '-o', "$dir/a.gguf", qw(--recipe bf16 --quiet --direct on));
run_ok('bf16, cached', $SLUICE, 'convert', $source, '-o', "$dir/b.gguf", qw(--recipe bf16 --quiet --direct off));
is(sha256("$dir/a.gguf"), sha256("$dir/b.gguf"), 'copies too');

# With pages of 64 KiB no page is written both directly and through the cache: the kernel
# then could not drop it, and would say EIO at the next sync.
my $traces = scratch();
my $traced = run('strace', '-f', '-o', '/dev/null', 'true')->{rc} == 0;
run_ok('large pages', $traced ? ('strace', '-ff', '-ttt', '-y', '-o', "$traces/t", '-e', 'trace=openat,pwrite64') : (),
       'env', 'LD_PRELOAD=' . tool('page_size.so'), $SLUICE, 'convert', $source, '-o', "$dir/pages.gguf", qw(--recipe bf16 --quiet --direct on --io pread));
is(sha256("$dir/pages.gguf"), sha256("$dir/b.gguf"), 'the same bytes');
SKIP: {
    skip('strace cannot trace here', 2) unless $traced;
    my (%is_direct, %direct, %buffered);
    for (sort map { split /\n/, slurp("$traces/$_") } ls($traces)) {
        next unless /pages\.gguf/;
        my ($how, $as) = /openat\(.*?, (O_\S+?)(?:, \d+)?\) = (\d+)</;
        $is_direct{$as} = $how =~ /O_DIRECT/ if defined $as;
        my ($fd, $len, $at) = /pwrite64\((\d+)<.*, (\d+), (\d+)\) += \d+$/ or next;
        ($is_direct{$fd} ? \%direct : \%buffered)->{$_} = 1 for int($at / 65536) .. int(($at + $len - 1) / 65536);
    }
    ok(%direct && %buffered, 'some pages directly, some not (' . keys(%direct) . ', ' . keys(%buffered) . ')');
    is_deeply([grep { $buffered{$_} } sort { $a <=> $b } keys %direct], [], 'none both ways');
}

done_testing();
