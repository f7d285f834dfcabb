# The set-up by its two scripts, `make deps` and `make test-tools`, on machines that are none: dpkg, apt-get, Python
# and npm are programs of ours that note what they are asked. On a real fresh Debian: by hand.
use strict;
use warnings;
use SluiceTest;
use Test::More;

my $bin = scratch();
my $tree = scratch();
my $log = "$tree/log";
system 'mkdir', '-p', "$tree/tests/tools", "$tree/dpkg";
for my $script (qw(deps.sh setup.sh requirements.txt)) {
    spit("$tree/tests/tools/$script", slurp("$TOP/tests/tools/$script"));
    chmod 0755, "$tree/tests/tools/$script";
}
sub program {
    my ($name, $text) = @_;
    spit("$bin/$name", "#!/bin/sh\necho \"$name \$*\" >>$log\n$text\n");
    chmod 0755, "$bin/$name";
}

# What the machine is asked, and what the script says.
sub machine {
    my (@cmd) = @_;
    spit($log, '');
    local $ENV{PATH} = "$bin:$ENV{PATH}";
    my $r = run('sh', '-c', 'cd "$0" && exec "$@"', $tree, @cmd);
    $r->{asked} = [grep { /^(?:sudo|apt-get (?!-q download)|dpkg --configure|python pip|npm)/ } split /\n/, slurp($log)];
    return $r;
}

# ---- packages. States are dpkg's own words: status and architecture, a line for each that is known.
program('dpkg-query', "for n; do :; done; cat $tree/dpkg/\$n 2>/dev/null");
program('dpkg', '[ "$1" = --print-architecture ] && echo amd64; exit 0');
program('id', 'echo 0');
program('apt-get', 'exit 0');
program('sleep', 'exit 0');
my @packages = slurp("$TOP/tests/tools/deps.sh") =~ /^build="([^"]*)"/m ? split(' ', $1) : ();
cmp_ok(scalar @packages, '>', 10, 'packages of the build');
my $deps = sub { return machine('tests/tools/deps.sh', 'build') };
my $state = sub { my ($name, @lines) = @_; spit("$tree/dpkg/$name", join '', map { "$_\n" } @lines) };
$state->($_, 'installed amd64') for @packages;
$state->($packages[0], 'installed all');
my $r = $deps->();
is_deeply([$r->{rc}, "$r->{out}$r->{err}", @{ $r->{asked} }], [0, ''], 'all is there: nothing is asked for');
$state->('libzstd-dev', 'installed i386', 'installed amd64');
is_deeply($deps->()->{asked}, [], 'for two architectures, too');

my $install = qr/^apt-get .* install --no-install-recommends (.*)$/;
for my $lack (['another architecture alone', 'installed i386'], ['removed', 'config-files amd64'], ['unpacked', 'half-configured amd64'], ['not known']) {
    my ($name, @lines) = @$lack;
    $state->('libzstd-dev', @lines);
    is(join('', map { /$install/ ? $1 : '' } @{ $deps->()->{asked} }), 'libzstd-dev', "$name: it alone is installed");
}

# One that was interrupted: apt-get refuses until dpkg has done the rest.
program('apt-get', "case \$* in *\\ install\\ *) [ -e $tree/configured ] || { echo 'E: dpkg was interrupted' >&2; exit 100; } ;; esac; exit 0");
program('dpkg', "case \$1 in --print-architecture) echo amd64 ;; --configure) touch $tree/configured; exit 1 ;; esac; exit 0");
$r = $deps->();
is($r->{rc}, 0, 'after an interrupted installation: goes on') or diag($r->{err});
like(join("\n", @{ $r->{asked} }), qr/ install .*\ndpkg --configure -a\napt-get .* install -f --no-install-recommends libzstd-dev$/, 'with what was left');
program('apt-get', 'case $* in *\ install\ *) exit 100 ;; esac; exit 0');
is($deps->()->{rc}, 100, 'what cannot be installed is an error');

# Another apt-get at work; a user who may not install.
program('apt-get', "case \$* in *update) [ -e $tree/free ] || { touch $tree/free; echo 'E: Could not get lock' >&2; exit 100; } ;; esac; exit 0");
$r = $deps->();
ok($r->{rc} == 0 && $r->{out} =~ /another apt-get is at work/, 'another apt-get: waits') or diag($r->{out}, $r->{err});
program('id', 'echo 1000');
program('sudo', 'shift; exec env -i PATH="$PATH" "$@"');
program('apt-get', "echo \"apt-get by \$http_proxy\" >>$log; exit 0");
{
    local $ENV{http_proxy} = 'http://proxy:3128';
    like(join("\n", @{ $deps->()->{asked} }), qr{^apt-get by http://proxy:3128$}m, 'by sudo, which drops variables: the proxy is told');
}
program('sudo', 'exit 1');
$r = $deps->();
ok($r->{rc} == 1 && $r->{err} =~ /^make deps: sudo refuses; run as root: apt-get install libzstd-dev$/m, 'a user without rights: what to say to root') or diag($r->{err});
is_deeply($r->{asked}, ['sudo -n true'], 'and nothing is asked where nobody sits');

# ---- what PyPI and npm have
program('uname', 'echo x86_64');
program('npm', "[ \"\$1 \$2\" = 'install --prefix' ]");
program('promtool', '');
my $python = "#!/bin/sh\ncase \$* in\n*'pip install'*) echo \"python pip \${PIP_USER-}\" >>$log ;;\n'-c import gguf') [ ! -e $tree/upgraded ] ;;\nesac\n";
spit("$tree/python", $python);
chmod 0755, "$tree/python";
program('python3', "rm -f $tree/upgraded; mkdir -p build/venv/bin && cp $tree/python build/venv/bin/python");
$ENV{PIP_USER} = 1;
my $setup = sub { return machine('tests/tools/setup.sh') };
$r = $setup->();
is_deeply([map { s/ install .*//r } @{ $r->{asked} }], ['python pip 0', 'npm'], "numpy into the folder, whatever the user's pip is told") or diag($r->{err});
is_deeply($setup->()->{asked}, [], 'once more: nothing to do');
spit("$tree/upgraded", '');
is_deeply($setup->()->{asked}, ['python pip 0'], 'another Python: made anew');
spit("$tree/build/venv/.ready", slurp("$tree/build/venv/.ready") . 'x');
is_deeply($setup->()->{asked}, ['python pip 0'], 'of other versions, too');
{
    local $ENV{HOME} = '/nonexistent';
    program('npm', "[ -d \"\${npm_config_cache%/*}\" ]");
    unlink "$tree/build/npm/.ready";
    is($setup->()->{err}, '', 'a user without a home: npm keeps its files beside what it installs');
}
program('npm', 'exit 1');
unlink "$tree/build/npm/.ready";
for my $ci (['', 0], ['true', 1]) {
    local $ENV{CI} = $ci->[0];
    $r = $setup->();
    ok($r->{rc} == $ci->[1] && $r->{err} =~ m{^test-tools: no llama\.cpp: the tests that need it are skipped \(see build/npm\.log\)$}m, "CI=$ci->[0]: what cannot be had is said") or diag($r->{err});
}

done_testing();
