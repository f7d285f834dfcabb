# A minute of inputs that nobody has seen: every backend against scalar C, and
# that against a packaged ggml where it is there. First: a bit planted in one case
# of sixteen is found, and the line that it prints finds it again.
use strict;
use warnings;
use SluiceTest;
use Test::More;

my $differ  = "$BUILD/fuzz/kernels_differ";
my $ggml    = "$TOP/build/npm/node_modules/\@node-llama-cpp/linux-x64/bins/linux-x64/libggml-base.so";
my @ggml    = -f $ggml ? ('--ggml', $ggml) : ();
my $cpu     = slurp('/proc/cpuinfo');
my %here    = (portable => 1, avx2 => scalar $cpu =~ /\bavx2\b/, avx512 => scalar $cpu =~ /\bavx512dq\b/);

sub reproduce {
    my ($out, @more) = @_;
    my ($line) = $out =~ /^ +again: (.+)$/m or return { rc => 'no line', out => $out };
    my @cmd = split / /, $line;
    splice @cmd, -2 if grep { $_ eq 'clean' } @more;
    return run(@cmd);
}

for my $plant (['q4_k', 'avx512', 4711], ['iq2_xs.weighted', 'avx2', 33], ['q6_k.weighted', 'portable', 12345],
               ['q8_0', 'avx512', 7], ['load.f8_e4m3', 'avx2', 0], ['load.bf16', 'portable', 31],
               ['source.f8_e4m3', 'auto', 5], ['straight.f8_e4m3', 'avx512', 9], ['straight.bf16', 'avx2', 77], @ggml ? ['dequantize.q3_k', 'scalar', 64] : ()) {
    my ($subject, $backend, $bit) = @$plant;
    SKIP: {
        skip "this processor cannot run $backend", 3 if exists $here{$backend} && !$here{$backend};
        my @lib = $subject =~ /^dequantize/ ? @ggml : ();
        my $r = run($differ, '--seconds', 60, '--seed', 5, '--subject', $subject, @lib, '--plant', "$subject:$backend:$bit");
        is($r->{rc}, 1, "one bit of $subject on $backend is noticed");
        my $again = reproduce($r->{out});
        is($again->{rc}, 1, 'its line finds it again') or diag($r->{out}, $again->{out});
        is(reproduce($r->{out}, 'clean')->{rc}, 0, 'which is only there when planted');
    }
}
is(run($differ, '--subject', 'q9_k')->{rc}, 2, 'an unknown subject');
is(run($differ, '--case', '1')->{rc}, 2, 'a case without a subject');
is(run($differ, '--plant', 'q4_k')->{rc}, 2, 'a plant without a place');

my $r = run($differ, '--seconds', $QUICK ? 3 : 60, '--counts', @ggml);
is($r->{rc}, 0, 'no difference') or diag($r->{out}, $r->{err});
my ($sum) = $r->{out} =~ /^(kernels_differ: seed .*)$/m;
diag($sum // 'no sum');
my @count = $r->{out} =~ /^\S+ +(\d+) cases/mg;
cmp_ok(scalar @count, '>=', 54, 'every type, plain and with weights, and every source');
is(scalar(grep { $_ == 0 } @count), 0, 'none of them without a case');
done_testing();
