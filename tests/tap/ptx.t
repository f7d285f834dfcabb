# The compiled kernels: their PTX, as it lies in the program's objects, run on the CPU behind the
# real host code, each access and barrier looked at (tests/ptx). Every golden vector, random
# weights, the device's cases, a whole conversion; and that each planted fault is found and named.
# SLUICE_PTX_ALL: ten times the random weights, more conversions.
use strict;
use warnings;
use SluiceTest;
use Test::More;

my $bin = "$BUILD/ptx";
if (!-x "$bin/ptx_check") { # Debian has no nvcc: where there is none, even CI skips this
    my $why = 'no CUDA in this build (no nvcc): the compiled kernels were NOT run';
    $ENV{NVCC} ? absent($why) : plan(skip_all => $why);
}

# What is planted, and what must be said of it: kind, kernel, words. "" : nothing.
my %faults = (
    beyond             => qr/^ptx: memcheck: beyond, block 0, thread 3, .*"st\.global\.u32 .*: 4 bytes at offset 1024 of an allocation of 1024 bytes$/m,
    before             => qr/^ptx: memcheck: before, block 0, thread 0, .*at offset -4 of an allocation/m,
    freed              => qr/^ptx: memcheck: .*which is in no allocation/m,
    copy_beyond        => qr/^ptx: memcheck: a copy of 2048 bytes outside/m,
    shared_beyond      => qr/^ptx: memcheck: shared_beyond.* 4 bytes at 112 of shared memory, of which the block has 64/m,
    local_beyond       => qr/^ptx: memcheck: local_beyond.* of local memory/m,
    parameters_beyond  => qr/^ptx: memcheck: parameters_beyond.* 4 bytes at 400 of the parameters/m,
    by_zero            => qr/^ptx: memcheck: by_zero.* division by zero/m,
    misaligned         => qr/^ptx: memcheck \(misaligned\): misaligned, .*no multiple of 4/m,
    misaligned_pair    => qr/^ptx: memcheck \(misaligned\): misaligned_pair.*ld\.global\.v2.*no multiple of 8/m,
    misaligned_shared  => qr/^ptx: memcheck \(misaligned\): misaligned_shared.*ld\.shared/m,
    shared_unset       => qr/^ptx: initcheck: shared_unset, block 0, thread 120, .*byte 28 of shared memory/m,
    local_unset        => qr/^ptx: initcheck: local_unset.* byte 20 of local memory/m,
    register_unset     => qr/^ptx: initcheck: register_unset, block 0, thread 9, .*a register is read/m,
    global_unset       => qr/^ptx: initcheck: global_unset.* nothing wrote it/m,
    copy_unset         => qr/^ptx: initcheck: byte 4 .* copied to the host/m,
    race_warps         => qr/^ptx: racecheck: race_warps, .*thread 32, .*reads byte 0 .* thread 0 wrote/m,
    race_in_a_warp     => qr/^ptx: racecheck: race_in_a_warp, .*reads byte 4 .* thread 1 wrote/m,
    race_write_after_read => qr/^ptx: racecheck: race_write_after_read, .*writes byte 0 .* thread 1 read/m,
    race_both_write    => qr/^ptx: racecheck: race_both_write, .*thread 1, .*writes byte 0 .* thread 0 wrote/m,
    race_bytes         => qr/^ptx: racecheck: race_bytes, .*reads byte 1 .* thread 1 wrote/m,
    race_atomic        => qr/^ptx: racecheck: race_atomic, .*threads of warp 0 wrote/m,
    race_global        => qr/^ptx: racecheck: race_global, .*writes byte 0 of an allocation/m,
    race_global_blocks => qr/^ptx: racecheck: race_global_blocks, .*of the launch wrote/m,
    race_global_read   => qr/^ptx: racecheck: race_global_read, .*reads byte 4 of an allocation/m,
    race_read_only     => qr/^ptx: racecheck: race_read_only, .*not for ld\.global\.nc/m,
    barriers_differ    => qr/^ptx: synccheck: barriers_differ, .*waits here, while thread \d+ waits at the bar\.sync of line/m,
    barrier_for_some   => qr/^ptx: synccheck: barrier_for_some, /m,
    barrier_in_a_loop  => qr/^ptx: synccheck: barrier_in_a_loop, /m,
    shuffle_from_nobody => qr/^ptx: synccheck: shuffle_from_nobody, .*takes the value of lane 20/m,
    shuffle_without_all => qr/^ptx: synccheck: shuffle_without_all, .*lanes that do not come/m,
    too_many_threads   => qr/^launch: invalid configuration argument$/m,
    too_much_shared    => qr/^launch: invalid argument$/m,
    map { $_ => '' } qw(sound_atomics sound_exits sound_warp sound_flag sound_bytes sound_divergence),
);
my %there = map { $_ => 1 } split ' ', run("$bin/ptx_faults")->{out};
is_deeply([sort keys %there], [sort keys %faults], 'every planted fault is looked for');
for my $name (sort keys %faults) {
    my $r = run("$bin/ptx_faults", $name);
    my $said = "$r->{err}$r->{out}";
    if ($faults{$name}) {
        ok($r->{rc} == 3 && $said =~ $faults{$name}, "$name is found and named") or diag("exit $r->{rc}\n$said");
    } else {
        ok($r->{rc} == 0 && $said eq '', "$name: nothing is said") or diag("exit $r->{rc}\n$said");
    }
}

# What is not understood is refused, and nothing skipped.
my $head = ".version 9.0\n.target sm_80\n.address_size 64\n";
my $kernel = sub { $head . ".visible .entry k(.param .u64 a)\n{\n.reg .pred %p<3>;\n.reg .f32 %f<4>;\n.reg .b32 %r<4>;\n.reg .b64 %rd<4>;\n$_[0]\nret;\n}\n" };
my $file = scratch() . '/text.ptx';
my $says = sub {
    spit($file, $_[0]);
    my $r = run("$bin/ptx_count", '-p', $file);
    return "$r->{rc} $r->{out}$r->{err}";
};
like($says->($kernel->('mov.u32 %r1, 5;')), qr/^0 understood/, 'a text that is understood');
for my $case (['ex2.approx.f32 %f1, %f2;', qr/text:10: ex2\.approx\.f32: .*not known/], ['add.rn.ftz.f32 %f1, %f2, %f3;', qr/add\.rn\.ftz\.f32: .*not known/],
              ['ld.global.volatile.u32 %r1, [%rd1];', qr/not known/], ['mul.f32 %f1, %f2, %f3;', qr/mul\.f32: does not say how it rounds/],
              ['add.s32 %r1, %rd1, %r2;', qr/operand 2 has another width/], ['add.s32 %r1, %r9, %r2;', qr/not known.*%r9/],
              ['bra $nowhere;', qr/label that is not there/], ['cvt.sat.u8.f32 %r1, %f1;', qr/not known/], ['.strange 5;', qr/instruction is missing/],
              ['setp.lt.nand.s32 %p1, %r1, %r2, %p2;', qr/not known/], ['call.uni other, ();', qr/not a function of this module/],
              ['st.param.u32 [a], %r1;', qr/cannot be written/], ['atom.global.add.f32 %f1, [%rd1], %f2;', qr/not known/],
              ['{ mov.u32 %r1, 5;', qr/ends inside a function/], ['mov.u32 %r1, 5 6;', qr/";" is missing/]) {
    my ($text, $words) = @$case;
    my $got = $says->($kernel->($text));
    ok($got =~ /^1 / && $got =~ $words, "refused: $text") or diag($got);
}

# Each instruction beside the value that a device gives.
my $r = run_ok('single instructions, and what spans several', "$bin/ptx_values");
like($r->{out}, qr/^\d{5} values, 0 wrong$/m, 'all values are right') or diag($r->{out});
my %known = map { $_ => 1 } slurp("$TOP/tests/ptx/ptx_values.cu") =~ /\b([a-z]+[\da-z]*(?:\.[a-z\d]+)+)\b/g;
my %used = map { $_ => 1 } map { slurp($_) =~ /^\s*(?:\@!?%p\d+\s+)?([a-z][a-z\d.]*)\s/mg } glob "$bin/text/*.ptx";
my ($names) = slurp("$TOP/tests/ptx/ptx_decode.c") =~ /^\} names\[\] = \{(.*?)^\};/ms;
ok(keys %used > 100, 'the kernels have many instructions');
is_deeply([grep { !$known{$_} && !/^(?:ld|st|atom|red|bar|barrier|bra|call|ret|mov|cvta|param\d)\b|^cvt(?:\.rn\.f32|\.[us]\d+)\.[us]\d+$|^setp\.\w\w\.[bsu]\d+$/ } sort keys %{{%used, map { $_ => 1 } $names =~ /"([a-z\d.]+)"/g}}], [],
          'each that computes, of the kernels and of those that are understood, has values');

# What the real host code makes of the runtime's numbers and names.
for my $case (['count=100', qr/no GPU here/], ['count=35', qr/no NVIDIA driver here, or one older than this build's CUDA \d+\.\d+ needs \([45]\d\d or later\)/],
              ['count=804', qr/: forward compatibility was attempted/], ['count=802', qr/not yet initialized; does nvidia-fabricmanager run/], ['count=999', qr/CUDA does not start here: .*nvidia-uvm/],
              ['part=0', qr/\(GPU-736c7569-/], ['part=1', qr/\(MIG-736c7569-/]) {
    local $ENV{SLUICE_PTX} = $case->[0];
    like(run("$bin/ptx_sluice", 'doctor')->{out}, qr/ cuda .*$case->[1]/, "$case->[0]: what is said");
}

# The kernels: golden vectors, random weights, every case that the device's text has.
$r = run_ok('golden vectors and random weights', "$bin/ptx_check", $ENV{SLUICE_PTX_ALL} ? ('-n', 200000) : '-s', '-g', "$TOP/tests/golden");
like($r->{out}, qr/golden vectors: 3[5-9]\d compared/, 'every golden vector');
is(scalar(() = $r->{out} =~ /^\S+ +(?:plain|weighted) .* equal, /mg), 37, 'every kind of weights: equal bytes');
is($r->{err}, '', 'and nothing was found');
{
    local $ENV{SLUICE_DEVICE_TEST} = 1;
    $r = run_ok('ragged ends, dtypes, scales, orders, slices, what is not finite', "$bin/ptx_device_test");
    unlike($r->{err}, qr/^ptx:|SKIPPED/m, 'and nothing was found');
}

# A whole conversion.
for my $case ($ENV{SLUICE_PTX_ALL} ? (['q4_k_m'], ['iq3_xxs'], ['q4_1', 1], ['iq1_m', 1]) : (['q4_k_m', 1])) {
    my ($recipe, $weights) = @$case;
    my $dir = scratch();
    my @how = ('--recipe', $recipe, '--layout', 'legacy', $weights ? ('--imatrix', "$TINY/imatrix.legacy-layout.dat") : ());
    run_ok("$recipe on the processor", $SLUICE, 'convert', $TINY, '-o', "$dir/cpu.gguf", @how, '--device', 'cpu');
    $r = run_ok("$recipe on the compiled kernels", "$bin/ptx_sluice", 'convert', $TINY, '-o', "$dir/ptx.gguf", @how, '--device', 'cuda:0', '--stats');
    is(sha256("$dir/ptx.gguf"), sha256("$dir/cpu.gguf"), "$recipe: the same file");
    like($r->{err}, qr/GPUs made [1-9]\d* slabs/, 'by the device');
    unlike($r->{err}, qr/^ptx:/m, 'and nothing was found');
}

# Counting.
$r = run_ok('counting', "$bin/ptx_count", '-t', 'q8_0', '-n', 8192, '-b', 2);
like($r->{out}, qr/^\| q8_0 \| \d+ \| \d+ \| 3[12]\.\d \|/m, 'a row for the type');
like($r->{out}, qr/^\| \d+ to \d+ \| [\d.]+ \| \d+ \| /m, 'and what costs most') or diag($r->{out});
SKIP: {
    # An older toolkit's nvdisasm leaves out instructions that its own ptxas makes.
    local $ENV{PATH} = join ':', glob("$TOP/build/venv/lib/python3*/site-packages/nvidia/cu*/bin"), ($ENV{NVCC} // '') =~ m{(.*)/} ? $1 : (), $ENV{PATH}, '/usr/local/cuda/bin';
    skip 'no nvdisasm: machine instructions were NOT counted', 2 if run('nvdisasm', '--version')->{rc};
    $r = run_ok('machine instructions', $^X, "$TOP/tests/gpu/gpu_sass.pl", "$bin/ptx_count", 'sm_90', '-t', 'q4_k', '-n', 8192);
    is(scalar(() = $r->{out} =~ /^\| q4_k(?:, weighted)? \| \d+ \| \d{3} \| 1\.[01]\d \| 100 % \|/mg), 2, 'each float of the PTX once') or diag($r->{out});
}

done_testing();
