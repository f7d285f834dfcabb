# arm64: what its compiler makes of the kernels has nothing fused or approximate in it, adds
# four lanes at a time, and gives this machine's bytes: the golden vectors, and scalar C's
# results on hostile numbers, both run by an emulated arm64 processor.
use strict;
use warnings;
use SluiceTest;
use Test::More;

my $CC = 'aarch64-linux-gnu-gcc';
my $qemu = (grep { !run($_, '--version')->{rc} } qw(qemu-aarch64 qemu-aarch64-static))[0];
plan(skip_all => 'sanitized run') if $SANITIZED;
plan(skip_all => 'this is arm64: the other tests are about it') if run('uname', '-m')->{out} =~ /^aarch64/;
absent("no $CC (gcc-aarch64-linux-gnu): nothing was compiled for arm64") if run($CC, '--version')->{rc};
delete @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS B CC CFLAGS SAN)};
$ENV{SLUICE_TESTS} = "$TOP/tests";

my $arm  = "$TOP/build/arm";
my $ours = "$BUILD/fuzz/kernels_differ";
run_ok('the kernels and their tests compile, warnings are errors', 'make', '-C', $TOP, '--no-print-directory', '-j2',
       'B=build/arm', "CC=$CC", 'WERROR=-Werror', 'NVCC=', 'bare-tests');
unlike(run_ok('nm', 'aarch64-linux-gnu-nm', glob "$arm/kernels/*.o")->{out}, qr/sl_ops_avx/, 'nothing refers to AVX');
my $fp = run('env', "CC=$CC", 'B=build/arm', 'NVCC=', 'sh', "$TOP/tests/tap/fp_check.t");
is(() = $fp->{out} =~ /^ok \d+ - (?:self-test: fused and approximate machine code is caught|9 objects in .* no fused)/mg, 2,
   'nothing fused or approximate in the machine code') or diag($fp->{out}, $fp->{err});
my $code = run('aarch64-linux-gnu-objdump', '-d', '--no-show-raw-insn', "$arm/kernels/quantize_portable.o")->{out};
my %adds = (four => scalar(() = $code =~ /\sf(?:add|mul)\tv\d+\.4s/g), one => scalar(() = $code =~ /\sf(?:add|mul)\ts\d/g));
cmp_ok($adds{four}, '>', 10 * $adds{one}, "the portable width works on four lanes ($adds{four} instructions, $adds{one} on one)");

SKIP: {
    if (!$qemu) {
        fail('CI must have qemu-user') if $IN_CI;
        diag('no qemu-aarch64 (qemu-user): nothing was RUN as on arm64');
        skip('no qemu-aarch64', 1);
    }
    for my $test (qw(golden_test grids_test kernels_dequantize_test kernels_load_test zero_blocks_test)) {
        my $r = run('sh', '-c', "cd $TOP && exec $qemu build/arm/bare/$test");
        my $passed = () = $r->{out} =~ /^ok \d+ - (?!.*# SKIP)/mg;
        # AVX2 and AVX-512 are what golden_test skips.
        my $skipped = () = $r->{out} =~ /# SKIP/g;
        ok($r->{rc} == 0 && $passed >= 2 && $r->{out} =~ /^1\.\.${\($passed + $skipped)}$/m && $skipped == ($test eq 'golden_test' ? 2 : 0),
           "$test: $passed passed") or diag($r->{out}, $r->{err});
    }
    my @sums = ('--sums', 4, '--seed', 11);
    my ($want, $got) = (run($ours, @sums), run($qemu, "$arm/bare/kernels_differ", @sums));
    cmp_ok(scalar(() = $want->{out} =~ /\n/g), '>=', 75, 'sums of every type, plain and with weights, every source, and back');
    ok($got->{rc} == 0 && $got->{out} eq $want->{out}, 'arm64 has the same sums') or diag($want->{out}, "arm64:\n", $got->{out}, $got->{err});

    # The same with one file compiled as an arm64 compiler would by itself.
    my @cc = ($CC, '-std=c11', '-D_GNU_SOURCE', "-I$TOP", qw(-O1 -fexpensive-optimizations));
    my $dir = scratch();
    run_ok('quantize_scalar.c fused', @cc, '-ffp-contract=fast', '-c', "$TOP/kernels/quantize_scalar.c", '-o', "$dir/quantize_scalar.o");
    run_ok('linked', @cc, '-ffp-contract=off', '-static', '-o', "$dir/fused", "$TOP/tests/fuzz/kernels_differ.c", "$dir/quantize_scalar.o",
           (grep { !m{/quantize_scalar\.o$} } glob "$arm/kernels/*.o"), glob("$arm/proto/*.o"), '-lm');
    my $fused = run($qemu, "$dir/fused", @sums, '--subject', 'q4_k', '--backend', 'scalar');
    my ($line) = $want->{out} =~ /^(q4_k .*\n)/m;
    ok($fused->{rc} == 0 && $fused->{out} =~ /^q4_k +[0-9a-f]{16}\n$/ && $fused->{out} ne $line, 'a fused multiplication is noticed')
        or diag($fused->{out}, $fused->{err}, $line);
}
done_testing();
