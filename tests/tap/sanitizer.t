# The sanitized runs find what they are for: a race, a leak, a wrong access, an
# overflow, under the very options that the other tests run under.
use strict;
use warnings;
use SluiceTest;
use Test::More;

plan(skip_all => 'not a sanitized run') unless $SANITIZED;
my $dir = scratch();
my %faults = (
    thread    => ['race', "#include <pthread.h>\nstatic int n;\nstatic void *f(void *x) { n++; return x; }\n"
        . "int main(void) { pthread_t t; pthread_create(&t, 0, f, 0); n++; pthread_join(t, 0); return 0; }\n"],
    address   => ['access', "#include <stdlib.h>\nint main(int n, char **v) { char *p = malloc(4); p[3 + n] = 1; return v == 0 || p[0]; }\n"],
    undefined => ['overflow', "int main(int n, char **v) { int big = 2147483647; return big + n == 0 || v == 0; }\n"],
);
for my $kind (split /,/, $SANITIZED) {
    my ($what, $text) = @{ $faults{$kind} or next };
    spit("$dir/$what.c", $text);
    run_ok("$kind: a program with a fault", 'cc', '-O0', '-g', "-fsanitize=$SANITIZED", '-fno-sanitize-recover=all', '-pthread', "$dir/$what.c", '-o', "$dir/$what");
    isnt(run("$dir/$what")->{rc}, 0, "$kind: it is found");
}
done_testing();
