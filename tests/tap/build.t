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
    run_ok('clang, warnings are errors', @make, '-j2', 'B=build/clang', 'CC=clang', 'CFLAGS=-O1', 'WERROR=-Werror', 'NVCC=', 'all',
        map { m{([^/]+)\.c$} ? "build/clang/tools/$1.so" : () } glob "$TOP/tests/preload/*.c");
    run_ok('nor has it a warning for the unit tests', @make, '-j2', 'B=build/clang', 'CC=clang -fsyntax-only -Wno-unused-command-line-argument',
        'WERROR=-Werror', 'NVCC=', map { m{([^/]+)\.c$} ? "build/clang/tests/$1" : () } glob "$TOP/tests/unit/*_test.c");
    my $r = run_ok('what clang made runs', "$TOP/build/clang/sluice", '--version');
    my $dir = scratch();
    run_ok('and converts', "$TOP/build/clang/sluice", 'convert', $TINY, '-o', "$dir/x.gguf", '--recipe', 'q4_k_m', '--quiet');
    is_deeply(hashes("$dir/x.gguf"), golden("$TINY/golden/mla/Q4_K_M.xxh64"), 'clang\'s arithmetic gives the same bytes');
}
run_ok('gcc without optimization, warnings are errors, no CUDA', @make, '-j2', 'B=build/plain', 'CC=gcc', 'CFLAGS=-O1', 'WERROR=-Werror', 'NVCC=', 'all');
run_ok('and converts', "$TOP/build/plain/sluice", 'convert', $TINY, '-o', scratch() . '/x.gguf', '--recipe', 'q4_k_m', '--quiet');

# How long what looks for failures takes, as `make help` says.
for (['fuzz-kernels', '--seconds 60 '], ['fuzz-wire', '-max_total_time=60 '], ['fuzz-kernels', '--seconds 7 ', 'SECONDS=7'],
     ['soak', ' SECONDS=3600 '], ['soak', ' SECONDS=7 ', 'SECONDS=7']) {
    my ($target, $says, @with) = @$_;
    cmp_ok(index(run(@make, '-n', 'B=build/plain', 'NVCC=', $target, @with)->{out}, $says), '>', 0, "make $target @with");
}

# No nvcc is no failure, not even under CI; nvcc and no kernels is one.
my @ptx = ('env', 'CI=true', "SLUICE_BUILD=$TOP/build/plain", $^X, "-I$TOP/tests/lib", "$TOP/tests/tap/ptx.t");
like(run_ok('no nvcc under CI', @ptx[0 .. 2], 'NVCC=', @ptx[3 .. $#ptx])->{out}, qr/^1\.\.0 # SKIP no CUDA.*NOT run$/m, 'is a skip that says so');
isnt(run(@ptx[0 .. 2], 'NVCC=nvcc', @ptx[3 .. $#ptx])->{rc}, 0, 'with nvcc it fails');

my $dest = scratch() . "/it's here"; # names that a shell would take apart
my @where = ("B=$BUILD", "DESTDIR=$dest", 'PREFIX=/opt/sluice & co');
run_ok('make install', @make, @where, 'install');
my @found = sort map { s{^\Q$dest\E}{}r } grep { -f } split /\n/, run('find', $dest)->{out};
is_deeply([grep { m{/bin/} } @found], [map { "/opt/sluice & co/bin/$_" } qw(sluice sluice-worker sluiced)], 'programs');
my @recipes = grep { m{^/opt/sluice & co/share/sluice/recipes/[\w.]+\.recipe$} } @found;
cmp_ok(scalar @recipes, '>', 10, 'recipes');
my $r = run_ok('the installed program', 'sh', '-c', 'cd / && "$0" recipes', "$dest/opt/sluice & co/bin/sluice");
like($r->{out}, qr/dq3_k_m/i, 'knows its recipes');
run_ok('make uninstall', @make, @where, 'uninstall');
is(run('find', $dest, '-type', 'f')->{out}, '', 'nothing is left');
# A tree of three files: what the Makefile does when one of them goes.
my $mini = scratch();
mkdir "$mini/$_" for qw(proto kernels tests);
spit("$mini/Makefile", slurp("$TOP/Makefile"));
spit("$mini/tests/check.mk", slurp("$TOP/tests/check.mk"));
spit("$mini/$_.c", "int " . (m{/(.*)})[0] . "(void);\nint " . (m{/(.*)})[0] . "(void) { return 1; }\n")
    for qw(proto/stays proto/goes kernels/wide_avx2);
my @mini = ('make', '-C', $mini, '--no-print-directory', 'B=b', 'NVCC=', 'b/libsluice.a');
run_ok('a library', @mini);
is(run('ar', 't', "$mini/b/libsluice.a")->{out}, "goes.o\nstays.o\nwide_avx2.o\n", 'of three objects');
my $made = (stat "$mini/b/libsluice.a")[9];
utime $made - 10, $made - 10, "$mini/b/libsluice.a", glob("$mini/b/*/*"), glob("$mini/*/*.c"), "$mini/Makefile";
run_ok('again', @mini);
is((stat "$mini/b/libsluice.a")[9], $made - 10, 'nothing to do');
unlink "$mini/proto/goes.c";
run_ok('a source file is gone', @mini);
is(run('ar', 't', "$mini/b/libsluice.a")->{out}, "stays.o\nwide_avx2.o\n", 'and so is its object');

# nvcc comes and goes: what is compiled with it in mind is compiled again.
spit("$mini/kernels/a.cu", '');
spit("$mini/proto/stays.c", "#ifdef SLUICE_CUDA\nint with(void);\nint with(void) { return 1; }\n#else\nint without(void);\nint without(void) { return 1; }\n#endif\n");
for my $round (1, 2) {
    for (['true', 'with'], ['', 'without']) {
        my ($nvcc, $function) = @$_;
        run_ok("NVCC=$nvcc", map { $_ eq 'NVCC=' ? "NVCC=$nvcc" : $_ } @mini);
        is_deeply([run('nm', "$mini/b/libsluice.a")->{out} =~ / T (with\w*)$/mg], [$function], "round $round: $function");
    }
}
like(run(@mini, '-n')->{out}, qr/is up to date/, 'and then there is nothing to do');

# What root made in build/: a user's make says so before it compiles.
SKIP: {
    my @as = $> ? () : qw(setpriv --clear-groups --regid 4242 --reuid 4242);
    my $theirs = File::Temp::tempdir('/tmp/sluice_XXXXXX', CLEANUP => 1);
    system('cp', '-r', "$mini/.", $theirs) == 0 or die;
    system('chmod', '-R', 'a+rwX', $theirs) == 0 or die;
    my @make = (@as, 'make', '-C', $theirs, '--no-print-directory', 'B=b', 'NVCC=');
    my $what = "b/proto/stays.d";
    chmod 0444, "$theirs/$what" or die $!;
    skip 'no other user here', 3 if !$> && run(@as, 'touch', "$theirs/b/x")->{rc};
    fails('files of root in build/', 2, qr{^Makefile:\d+: \*\*\* \Q$what\E is not writable by this user .*'sudo chown -R \$USER b'.*Stop\.\n\z}, @make, 'b/libsluice.a');
    chmod 0666, "$theirs/$what" or die $!;
    chmod 0555, "$theirs/b/gen" or die $!;
    fails('a folder of root', 2, qr{\*\*\* b/gen is not writable}, @make, 'b/libsluice.a');
    chmod 0777, "$theirs/b/gen" or die $!;
    run_ok('given back', @make, 'b/libsluice.a');
}
fails('a test that is not there', 2, qr{^make: T=none: there is no tests/tap/none\.t; T=convert is tests/tap/convert\.t$}m, @make, "B=$BUILD", 'NVCC=', 'tap', 'T=none');

# The targets are those that nvcc knows.
spit("$mini/nvcc-old", <<'END');
#!/bin/sh
case $* in
--help) echo "'sm_80', 'sm_90'" ;;
--version) echo 'Cuda compilation tools, release 11.8, V11.8.89' ;;
--dryrun*) echo '#$ LIBRARIES=  "-L/its own/lib"' >&2 ;;
'-ccbin g++-11 --dryrun'*) echo '#$ LIBRARIES=  "-L/by that/lib"' >&2 ;;
*) echo 'unsupported GNU version!' >&2; exit 1 ;;
esac
END
chmod 0755, "$mini/nvcc-old";
like(run('make', '-n', 'V=1', '-C', $mini, 'B=w', "NVCC=$mini/nvcc-old", 'w/kernels/a.cu.o')->{out},
    qr/-gencode 'arch=compute_80,code=\[compute_80,sm_80,sm_90\]'/, 'an nvcc that does not know the latest GPUs');
like(run('make', '-n', 'V=1', '-C', $TOP, "B=$mini/n", "NVCC=$mini/nvcc-old", "$mini/n/sluice")->{out},
    qr{ -o \S+/n/sluice .* "-L/its own/lib" -lcudart_static }, 'its runtime, not that of another toolkit');
like(run('make', '-n', 'V=1', '-C', $TOP, "B=$mini/n", "NVCC=$mini/nvcc-old", 'NVCC_CCBIN=g++-11', "$mini/n/sluice")->{out},
    qr{ "-L/by that/lib" -lcudart_static }, 'which it names only where it has a host compiler');
like(run('make', '-n', 'V=1', '-C', $mini, 'B=w', "NVCC=$mini/nvcc-old", 'NVCC_CCBIN=g++-11', 'w/kernels/a.cu.o')->{out},
    qr/nvcc-old -O3 .* -ccbin g\+\+-11 .* -c kernels\/a\.cu/, 'the host compiler that the user names');
$r = run('make', '-C', $mini, 'B=w', "NVCC=$mini/nvcc-old", 'w/kernels/a.cu.o');
ok($r->{rc} && $r->{err} =~ /^unsupported GNU version!\nmake: nvcc 11\.8\.89 cannot .*GPU\.md.*\nmake: .*make NVCC_CCBIN=.*make NVCC=$/m, 'one that takes no compiler here: what to do')
    or diag($r->{err});

# Flags of x86 are for compilers that write code for it.
spit("$mini/cc-arm", "#!/bin/sh\n[ \"\$1\" = -dumpmachine ] && echo aarch64-linux-gnu\n");
chmod 0755, "$mini/cc-arm";
my @wide = ('make', '-n', 'V=1', '-C', $mini, 'B=w', 'NVCC=', 'w/kernels/wide_avx2.o');
like(run(@wide, 'CC=cc')->{out}, qr/ -mavx2 -mf16c /, 'x86: -mavx2') if run('cc', '-dumpmachine')->{out} =~ /^x86_64/;
my $arm = run(@wide, "CC=$mini/cc-arm")->{out};
ok($arm =~ m{wide_avx2\.c} && $arm !~ / -m/, 'another processor: none') or diag($arm);
# A fresh machine: what is missing, and what to do.
spit("$mini/cc-fresh", "#!/bin/sh\ncase \"\$*\" in *-fsyntax-only*) echo 'zmq.h: No such file' >&2; exit 1 ;; esac\nexec cc \"\$@\"\n");
chmod 0755, "$mini/cc-fresh";
for my $target ('f/libsluice.a', 'unit') {
    my $fresh = run('make', '-C', $mini, 'B=f', 'NVCC=', "CC=$mini/cc-fresh", $target);
    ok($fresh->{rc} && $fresh->{err} =~ /^zmq\.h: No such file\nmake: .*'make deps'/, "make $target says what to type") or diag($fresh->{err});
}

# The demo leaves the tree alone when it is built elsewhere.
my ($tree, $away) = (scratch(), scratch());
system 'mkdir', '-p', "$tree/tests/tools", "$away/tools";
spit("$tree/tests/tools/demo.sh", slurp("$TOP/tests/tools/demo.sh"));
chmod 0755, "$tree/tests/tools/demo.sh";
symlink $TINY, "$tree/tests/tiny-v3" or die $!;
symlink "$BUILD/$_", "$away/$_" or die $! for qw(sluice tools/make_checkpoint);
$r = run_ok('make B=/elsewhere demo', 'env', "SLUICE_BUILD=$away", "$tree/tests/tools/demo.sh");
like($r->{out}, qr/^\$ sluice verify .*?^ok .*?^\$ sluice verify .*?^ok /ms, 'converts and verifies twice');
is_deeply([scalar(glob "$away/demo/*.gguf") ? 1 : 0, ls($tree), ls("$tree/tests")], [1, 'tests', 'tiny-v3', 'tools'], 'writes there and not into the tree');

# No namespaces is no failure either.
spit("$away/unshare", "#!/bin/sh\nexit 1\n");
chmod 0755, "$away/unshare";
like(run('env', 'CI=true', "PATH=$away:$ENV{PATH}", $^X, "-I$TOP/tests/lib", "$TOP/tests/tap/netns.t")->{out},
    qr/^1\.\.0 # SKIP no network namespaces.*nothing was run/m, 'no network namespaces under CI is a skip that says so');

# A tree may lie anywhere: the tests are told of its programs all the same.
mkdir "$mini/tests/lib";
spit("$mini/tests/lib/run_tests.pl", "#!/bin/sh\ncd \"\$SLUICE_BUILD\"\n");
chmod 0755, "$mini/tests/lib/run_tests.pl";
rename $mini, "$mini it's here";
run_ok('make unit below a name with a space and a quote', 'make', '-C', "$mini it's here", 'B=b', 'NVCC=', 'unit');
run_ok('make help', @make, 'help');

done_testing();
