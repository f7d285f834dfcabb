# Some seconds of changed inputs for each reader of strangers' files, from what the tests make (make fuzz-readers for longer, and
# by coverage).
use strict;
use warnings;
use SluiceTest;
use Test::More;

my $dir = scratch();
run_ok('seeds', 'python3', "$TOP/tests/fuzz/seeds.py", '--quick', $BUILD, "$dir/seeds");
my $seed = $ENV{SEED} // time;
my @programs = sort glob "$BUILD/fuzz/*_replay";
ok(@programs > 7, 'targets');
for my $program (@programs) {
    my ($name) = $program =~ m{([^/]+)_replay$};
    my @seeds = glob "$dir/seeds/$name/*";
    my $r = run($program, $QUICK ? 1 : 2, $seed, "$dir/found", @seeds);
    my ($runs) = $r->{out} =~ /^(\d+) inputs$/;
    is($r->{rc}, 0, "$name: nothing found" . (defined $runs ? " in $runs inputs" : ''))
        or diag("SEED=$seed\n$r->{err}\n" . (-f "$dir/found" ? `od -c "$dir/found" | head -400` : ''));
    cmp_ok($runs // 0, '>=', @seeds || 1, "$name has first inputs");
    unlink "$dir/found";
}

# It does find things.
my $target = <<'END';
#include "tests/fuzz/fuzz_dir.h"
int LLVMFuzzerTestOneInput(const uint8_t *d, size_t n)
{
    FILE *f = fopen("FOLDER", "w");

    require(f && fprintf(f, "%s %d\n", fuzz_dir(), access(fuzz_dir(), W_OK)) > 0 && fclose(f) == 0);
    if (n > 2 && d[0] == 'a' && d[1] != 'b')
        __builtin_trap();
    for (volatile int i = 0; n > 0 && d[0] == 'z'; i++) {
    }
    return 0;
}
END
$target =~ s/FOLDER/$dir\/folder/;
spit("$dir/bad_fuzz.c", $target);
spit("$dir/first", 'abc');
run_ok('a target that fails', 'cc', '-std=c11', '-D_GNU_SOURCE', '-DSLOW=1', "-I$TOP", '-o', "$dir/bad", "$dir/bad_fuzz.c",
    "$TOP/tests/fuzz/replay.c", '-lcjson');
isnt(run("$dir/bad", 2, $seed, "$dir/found", "$dir/first")->{rc}, 0, 'its failure is seen');
like(slurp("$dir/found"), qr/^a[^b]/, 'and the input kept');
my ($files, $lacks) = split ' ', slurp("$dir/folder");
is($lacks, 0, 'it had a folder');
for (my $end = time + 20; -e $files && time < $end;) {
    select undef, undef, undef, 0.1;
}
ok(!-e $files, 'which is gone');
spit("$dir/first", 'z');
my $r = run('timeout', 60, "$dir/bad", 2, $seed, "$dir/found", "$dir/first");
ok($r->{rc} > 128 && $r->{err} eq "an input takes too long\n", 'one that never ends is seen, too') or diag("$r->{rc} $r->{err}");
is(slurp("$dir/found"), 'z', 'and kept');
done_testing();
