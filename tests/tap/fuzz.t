# Some seconds of libFuzzer on what strangers can say to the daemon, from whole lives of
# jobs as seeds (make fuzz-wire for longer).
use strict;
use warnings;
use SluiceTest;
use Test::More;

plan(skip_all => 'sanitized run') if $SANITIZED;
delete @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS B CC CFLAGS SAN)};
my $dir = scratch();
spit("$dir/x.c", "#include <stddef.h>\n#include <stdint.h>\nint LLVMFuzzerTestOneInput(const uint8_t *d, size_t n) { (void)d; (void)n; return 0; }\n");
if (run('clang', '-fsanitize=fuzzer,address,undefined', '-o', "$dir/x", "$dir/x.c")->{rc}) {
    absent('no clang with libFuzzer (package libclang-rt-dev): the daemon is not fuzzed');
}
run_ok('the fuzzer builds', 'make', '-C', $TOP, '--no-print-directory', "B=$BUILD", "$BUILD/fuzz-wire");

my @run = ("$BUILD/fuzz-wire", '-timeout=20', '-max_len=20000', "-dict=$TOP/tests/fuzz/wire.dict", "-artifact_prefix=$dir/");
my @seeds = glob "$TOP/tests/fuzz/wire_seeds/*";
my $r = run_ok('the seeds', @run, @seeds);
mkdir "$dir/corpus";
$r = run(@run, '-max_total_time=' . ($QUICK ? 2 : 10), "$dir/corpus", "$TOP/tests/fuzz/wire_seeds");
my ($runs, $cover) = $r->{err} =~ /DONE +cov: (\d+).*^Done (\d+) runs/ms ? ($2, $1) : (0, 0);
is($r->{rc}, 0, "nothing found in $runs runs") or diag(substr($r->{err}, -4000), map { "\n$_:\n" . slurp($_) } glob "$dir/{crash,leak}-*");
cmp_ok($cover, '>', 800, "the seeds reach the daemon's insides: $cover edges");

# It does find things: a seed that says what is against a rule of the target's own.
$r = run(@run, '-runs=1', '-malloc_limit_mb=1', "$dir/corpus", @seeds);
isnt($r->{rc}, 0, 'a limit that nothing can keep is reported');
done_testing();
