# It builds with clang without a warning, and without CUDA; it installs where it
# is told to, works from there, and leaves nothing behind.
use strict;
use warnings;
use SluiceTest;
use Test::More;

plan(skip_all => 'sanitized run') if $SANITIZED;
delete @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS B CC CFLAGS SAN)};
my @make = ('make', '-C', $TOP, '--no-print-directory');

SKIP: {
    skip 'no clang', 1 if run('clang', '--version')->{rc} && !$IN_CI;
    run_ok('clang, warnings are errors', @make, '-j2', 'B=build/clang', 'CC=clang', 'CFLAGS=-O1', 'WERROR=-Werror', 'NVCC=', 'all');
    my $r = run_ok('what clang made runs', "$TOP/build/clang/sluice", '--version');
    my $dir = scratch();
    run_ok('and converts', "$TOP/build/clang/sluice", 'convert', $TINY, '-o', "$dir/x.gguf", '--recipe', 'q4_k_m', '--quiet');
    is_deeply(hashes("$dir/x.gguf"), golden("$TINY/golden/mla/Q4_K_M.xxh64"), 'clang\'s arithmetic gives the same bytes');
}
run_ok('gcc without optimization, warnings are errors, no CUDA', @make, '-j2', 'B=build/plain', 'CC=gcc', 'CFLAGS=-O1', 'WERROR=-Werror', 'NVCC=', 'all');
run_ok('and converts', "$TOP/build/plain/sluice", 'convert', $TINY, '-o', scratch() . '/x.gguf', '--recipe', 'q4_k_m', '--quiet');

my $dest = scratch();
my @where = ("B=$BUILD", "DESTDIR=$dest", 'PREFIX=/opt/sluice');
run_ok('make install', @make, @where, 'install');
my @found = sort map { s{^\Q$dest\E}{}r } grep { -f } split /\n/, run('find', $dest)->{out};
is_deeply([grep { m{/bin/} } @found], [map { "/opt/sluice/bin/$_" } qw(sluice sluice-worker sluiced)], 'programs');
my @recipes = grep { m{^/opt/sluice/share/sluice/recipes/[\w.]+\.recipe$} } @found;
cmp_ok(scalar @recipes, '>', 10, 'recipes');
my $r = run_ok('the installed program', 'sh', '-c', "cd / && $dest/opt/sluice/bin/sluice recipes");
like($r->{out}, qr/dq3_k_m/i, 'knows its recipes');
run_ok('make uninstall', @make, @where, 'uninstall');
is(run('find', $dest, '-type', 'f')->{out}, '', 'nothing is left');
run_ok('make help', @make, 'help');

done_testing();
