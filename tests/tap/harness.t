# The checkers can fail: the runner, the reader of cmocka's results, the lint,
# the hasher, and the installation.
use strict;
use warnings;
use SluiceTest;
use Test::More;
use Time::HiRes qw(sleep);

my $dir = scratch();
my $lib = "$TOP/tests/lib";

# ---- a program that speaks as cmocka does
sub fake {
    my ($name, $text, $rc) = @_;
    spit("$dir/$name", "#!/bin/sh\ncat <<'E'\n$text\nE\nexit $rc\n");
    chmod 0755, "$dir/$name";
    return "$dir/$name";
}
my $good = fake('good', "[==========] Running 2 test(s).\n[ RUN      ] a\n[       OK ] a\n[ RUN      ] b\nno b here\n[  SKIPPED ] b\n"
    . "[==========] 2 test(s) run.\n[  PASSED  ] 1 test(s).\n[  SKIPPED ] 1 test(s), listed below:\n[  SKIPPED ] b", 0);
my $poor = fake('poor', "[==========] Running 2 test(s).\n[ RUN      ] a\n[       OK ] a\n[ RUN      ] b\nboom\n[  FAILED  ] b\n"
    . "[==========] 2 test(s) run.\n[  FAILED  ] 1 test(s), listed below:\n[  FAILED  ] b", 1);
my $dead = fake('dead', "[==========] Running 2 test(s).\n[ RUN      ] a\n[       OK ] a\n[ RUN      ] b", 139);
my $none = fake('none', '', 0);
my $tap  = "$dir/x.t";
spit($tap, "print qq(1..3\\nok 1\\nok 2 # SKIP no\\nnot ok 3\\n# why\\n); exit 1;\n");
my $short = "$dir/short.t";
spit($short, "print qq(1..3\\nok 1\\n);\n");
my $whole = "$dir/whole.t";
spit($whole, "print qq(1..0 # SKIP not here\\n);\n");

sub result {
    my $r = run($^X, "$lib/run_tests.pl", "$dir/log", @_);
    my ($line) = $r->{out} =~ /^(\d+ passed, \d+ failed, \d+ skipped)$/m;
    return ($r->{rc}, $line // $r->{out} . $r->{err}, $r->{out});
}
is_deeply([(result($good))[0, 1]], [0, '1 passed, 0 failed, 1 skipped'], 'a good program');
my ($rc, $line, $out) = result($good, $poor);
is_deeply([$rc, $line], [1, '2 passed, 1 failed, 1 skipped'], 'a failed test');
like($out, qr/boom/, 'its output is shown');
is_deeply([(result($dead))[0, 1]], [1, '1 passed, 1 failed, 0 skipped'], 'a program that dies');
is_deeply([(result($none))[0, 1]], [1, '0 passed, 1 failed, 0 skipped'], 'a program that tests nothing');
spit("$dir/shell.t", "#!/bin/sh\necho 1..2\necho ok 1\necho not ok 2\nexit 0\n");
is_deeply([(result("$dir/shell.t"))[0, 1]], [1, '1 passed, 1 failed, 0 skipped'], 'TAP from a shell script');
is_deeply([(result($tap))[0, 1]], [1, '1 passed, 1 failed, 1 skipped'], 'TAP');
is((result($short))[0], 1, 'fewer tests than planned');
is_deeply([(result($good, $whole))[0, 1]], [0, '1 passed, 0 failed, 2 skipped'], 'a file skipped whole counts');
is_deeply([(result($whole))[0, 1]], [0, '0 passed, 0 failed, 1 skipped'], 'alone too');
like((result($good, $tap, $whole))[2], qr{^skipped: \S+/whole.t: not here\nskipped: \S+/good: 1 of its tests: no b here\nskipped: \S+/x.t: 1 of its tests: no$}m,
    'what is skipped is said with its reason');
is((result("$dir/absent.t"))[0], 1, 'a test that is not there');
spit("$dir/slow.t", "print qq(1..1\\nok 1\\n); sleep 600;\n");
{
    local $ENV{SLUICE_TEST_SECONDS} = 1;
    my ($rc, undef, $out) = result("$dir/slow.t", $tap);
    ok($rc == 1 && $out =~ m{^---- \S+/slow\.t: exit status 124: it ran for more than 1 s; SLUICE_TEST_SECONDS=4 gives it longer$}m
        && $out =~ m{^---- \S+/x\.t: exit status 1$}m, 'a test that runs too long is told from one that fails') or diag($out);
}

# Ctrl-C ends the runner; a test's programs end with it.
spit("$dir/long.t", "use SluiceTest; my \$p = start('sleep', 600); spit('$dir/pids', \"\$\$ \$p->{pid}\"); sleep 600;\n");
my $runner = start($^X, "$lib/run_tests.pl", "$dir/log", "$dir/long.t");
for (1 .. 1000) {
    last if -s "$dir/pids";
    sleep 0.02;
}
my @pids = split ' ', slurp("$dir/pids");
kill 'INT', $runner->{pid};
isnt(finish($runner)->{rc}, 0, 'Ctrl-C ends the runner');
my $alive = sub { return grep { (eval { slurp("/proc/$_/stat") } // ') Z') !~ /\) Z/ } @pids };
for (1 .. 1000) {
    last unless $alive->();
    sleep 0.02;
}
is_deeply([$alive->()], [], 'and the test, and what that started');

# ---- a tree whose path a shell would take apart
system 'mkdir', '-p', "$dir/it's a tree/tests/lib";
spit("$dir/it's a tree/tests/lib/SluiceTest.pm", slurp("$lib/SluiceTest.pm"));
my $there = run('env', '-u', 'SLUICE_BUILD', $^X, "-I$dir/it's a tree/tests/lib", '-MSluiceTest', '-e', 'print -e "$BUILD/check" ? "$BUILD\n" : "not there\n"');
like($there->{out}, qr{^[\w./+-]+/build/release\n$}, 'has another name for the tests') or diag($there->{err});

# ---- lint
sub lint {
    my (%files) = @_;
    my $root = scratch();
    for my $path (keys %files) {
        my ($d) = $path =~ m{^(.*)/};
        system 'mkdir', '-p', "$root/$d";
        spit("$root/$path", $files{$path});
    }
    my $r = run($^X, "$TOP/tests/tools/lint.pl", $root);
    return $r->{rc} ? $r->{out} : '';
}
is(lint('proto/a.c' => "#include \"proto/a.h\"\n", 'proto/a.h' => ''), '', 'lint: a good tree');
like(lint('proto/a.c' => "#include \"worker/b.h\"\n"), qr/proto must not include worker/, 'lint: direction');
like(lint('kernels/a.c' => "#include \"client/b.h\"\n"), qr/kernels must not include client/, 'lint: direction of kernels');
like(lint('daemon/a.c' => "#include \"worker/b.h\"\n"), qr/daemon must not include worker/, 'lint: direction of daemon');
like(lint('proto/a.c' => "#include \"a.h\"\n"), qr/from the root/, 'lint: include from the root');
like(lint('proto/a.c' => "#include <sqlite3.h>\n", 'daemon/b.c' => "#include <sqlite3.h>\n"), qr/more than one file/, 'lint: one user of a library');
like(lint('proto/a.c' => '', 'worker/a.c' => ''), qr/used twice/, 'lint: names');
like(lint('proto/a.c' => "x\n" x 601), qr/601 lines/, 'lint: length');
my $declares = "/* twice() */\nint twice(int a,\n          int b) SL_MUST_USE;\n";
my $includes = "#include \"proto/a.h\"\n";
like(lint('proto/a.h' => $declares, 'proto/a.c' => "${includes}int twice(int a, int b)\n"), qr/a\.h: twice: only proto.a\.c says/, 'lint: a function for nobody');
like(lint('proto/a.h' => $declares, 'proto/a.c' => "$includes/* twice() */\n", 'proto/b.c' => "say(\"twice\");\n"), qr/twice: only this header/, 'lint: a function that is not there');
is(lint('proto/a.h' => $declares, 'proto/a.c' => "${includes}int twice(int a, int b)\n", 'tests/unit/b.c' => "    twice(1, 2);\n"), '', 'lint: a function that a test calls');
like(lint('proto/a.h' => "int twice(int a);\n\n/* Half. */\nint half(int a);\n", 'proto/a.c' => $includes), qr/a\.h: twice: a function of a header says/, 'lint: a function without a contract');
like(lint('proto/a.h' => ''), qr/no file includes it/, 'lint: a header for nobody');
my $long = 'tests/tools/lint_long.txt';
is(lint('proto/a.c' => "x\n" x 601, $long => "proto/a.c  one table\n"), '', 'lint: length with a reason');
like(lint('proto/a.c' => "x\n" x 600, $long => "proto/a.c  one table\n"), qr/not over 600/, 'lint: a reason without the length');
like(lint('tests/bench/a.c' => "x\n" x 601), qr{tests/bench/a.c: 601 lines}, 'lint: length of a test');
like(lint('tests/check.pl' => "x\n" x 601), qr/601 lines/, 'lint: length of what stands in tests itself');
sub function { return "int g(int a,\n      int b)\n{\n" . "    x++;\n" x ($_[0] - 4) . "}\n" }
my $decoys = "int h(void);\nstruct s {\n" . "    int m;\n" x 90 . "};\nstatic const int t[] = {\n" . "    1,\n" x 90 . "};\n";
is(lint('proto/a.c' => $decoys . function(80) . function(80)), '', 'lint: functions of 80 lines');
like(lint('proto/a.c' => $decoys . function(81)), qr{proto/a.c:g: 81 lines}, 'lint: a function of 81');
like(lint('tests/unit/a.h' => function(81), 'tests/unit/a.c' => "#include \"a.h\"\n"), qr{tests/unit/a.h:g: 81 lines}, 'lint: a function of a test');
is(lint('proto/a.c' => function(81), $long => "proto/a.c:g  one table\n"), '', 'lint: a long function with a reason');
like(lint('proto/a.c' => function(80), $long => "proto/a.c:g  one table\n"), qr/not over 80/, 'lint: a reason for a short function');
like(lint('proto/a.c' => "f(); \n"), qr/white space/, 'lint: white space');
like(lint('proto/a.c' => "/* TO" . "DO */\n"), qr/unfinished/, 'lint: unfinished work');
like(lint('proto/a.c' => "    exit(1);\n"), qr/outside a main/, 'lint: exit');
is(lint('worker/worker_main.c' => "    exit(1);\n"), '', 'lint: exit in a main');
like(lint('worker/a.c' => "    assert(x);\n"), qr/outside a main/, 'lint: assert');
like(lint('tests/tap/a.t' => 'BAIL' . "_OUT('no daemon');\n"), qr/ends the tests of other files/, 'lint: a test that ends the others');

my $c = scratch();
mkdir "$c/proto";
spit("$c/state.c", "int counter = 7; static int hidden; int f(void) { return ++hidden; } const int fine = 3;\n");
is(run('sh', '-c', "cd $c && cc -c -o state.o state.c && ar rcs lib.a state.o")->{rc}, 0, 'a library with state');
my $r = run($^X, "$TOP/tests/tools/lint.pl", $c, "$c/lib.a");
ok($r->{rc} == 1 && $r->{out} =~ /: counter/ && $r->{out} =~ /: hidden/ && $r->{out} !~ /fine/, 'lint: writable data at file scope')
    or diag($r->{out}, $r->{err});
$r = run($^X, "$TOP/tests/tools/lint.pl", $TOP, $SANITIZED ? () : "$BUILD/libsluice.a");
is($r->{out}, '', 'lint: this tree');
is($r->{rc}, 0, 'lint: exit 0');

# ---- the hasher is a strict reader
spit("$dir/not.gguf", 'no GGUF at all, not even nearly');
isnt(run(tool('gguf_hash'), "$dir/not.gguf")->{rc}, 0, 'gguf_hash: not GGUF');

# ---- the generator gives the same bytes for the same options
my @ck = map { checkpoint(scratch(), '--seed', $_) } 5, 5, 6;
my @sums = map { sha256("$_/model-00002-of-00002.safetensors") } @ck;
is($sums[0], $sums[1], 'make_checkpoint: the same seed');
isnt($sums[0], $sums[2], 'make_checkpoint: another seed');

done_testing();
