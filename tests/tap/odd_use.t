# Odd but possible use: devices and folders as outputs, closed streams, narrow
# terminals, the same source spelled in another way.
use strict;
use warnings;
use SluiceTest;
use Test::More;

my $dir = scratch();
my @convert = ($SLUICE, 'convert', $TINY, '--recipe', 'q4_k_m', '-o');

# What cannot be an output, or cannot be set.
fails('a device as output', 2, qr{/dev/null}, @convert, '/dev/null');
ok(!-e '/dev/null.gguf', 'no file beside it');
for my $kv ('general.alignment=int:64', 'split.count=int:3', 'sluice.recipe=str:x') {
    fails("--override-kv $kv", 2, qr/cannot be set/, @convert, "$dir/x", '--override-kv', $kv);
}
# llama-quantize makes 3, 0, 0, 5 and infinity of these.
for my $kv ('a=int:-3', 'a=int:0x10', 'a=int:4294967296', 'a=int:5.7', 'a=float:1e39', 'a=float:1e999', 'a=float:', 'a=bool:1', '=int:1',
    'a=str:' . 'x' x 128) {
    fails("--override-kv $kv", 2, qr/expected (?:int:N|KEY=TYPE)/, @convert, "$dir/x", '--override-kv', $kv);
}
fails('--override-kv: a key of 128 bytes', 2, qr/the key has 128 bytes; 127 at most/, @convert, "$dir/x", '--override-kv', 'x' x 128 . '=int:1');
run_ok('of 127', @convert, "$dir/x", '--dry-run', '--override-kv', 'x' x 127 . '=int:1');
fails('another architecture', 2, qr/this model's is deepseek2, .* deepseek2\.block_count/, @convert, "$dir/x", '--override-kv', 'general.architecture=str:llama');
# A name that asks for another kind of file; versions and types in a name are no such.
for my $name (qw(x.bin x.safetensors x.GGUF)) {
    fails("-o $name", 2, qr/\Q$name\E: the output is a GGUF file; name it x\.gguf/, @convert, "$dir/$name");
    fails("plan -o $name", 2, qr/name it x\.gguf/, $SLUICE, 'plan', $TINY, '-r', 'q4_k_m', '-o', "$dir/$name");
}
fails("-o $_: what stands beside an output", 2, qr/\Q$_\E: the output is a GGUF file; name it x\.gguf$/, @convert, "$dir/$_")
    for qw(x.gguf.partial x.partial x.gguf.xxh64 x.sluice-journal x.gguf.bak);
fails('-o $NAME.gguf without a NAME', 2, qr/^sluice convert: \.gguf: the output's name is missing before \.gguf$/m, @convert, "$dir/.gguf");
run_ok('a hidden name', @convert, "$dir/.hidden", '--dry-run');
is_deeply([grep { /^x/ } ls($dir)], [], 'nothing is left');
for my $name (qw(R1-v1.0 x.Q4_K_M m.gguf)) {
    (my $file = $name) =~ s/\.gguf$//;
    run_ok("-o $name", @convert, "$dir/$name", '--quiet');
    ok(-s "$dir/$file.gguf", "makes $file.gguf");
}
unlink glob "$dir/*.gguf*";

# Files of the year 2381: its nanoseconds are more than 63 bits count.
my @shards = grep { /\.safetensors$/ } ls($TINY);
my $late = copy_checkpoint($TINY, "$dir/late", @shards);
utime((13e9) x 2, map { "$late/$_" } @shards) == @shards or die;
run_ok('times that are far off', $SLUICE, 'convert', $late, '--recipe', 'q4_k_m', '-o', "$dir/late.gguf", '--quiet');
unlink glob "$dir/late.gguf*";

# A folder to come: one level, and it is said.
my $new = run_ok('-o FOLDER/ that is not there', @convert, "$dir/new/");
like($new->{err}, qr{^sluice: made the folder \Q$dir\E/new$}m, 'it is said');
like($new->{out}, qr{^\Q$dir\E/new/\S+-Q4_K_M\.gguf$}m, 'the file is in it');
fails('a slash after the name of a file', 2, qr{x\.gguf/: the slash asks for a folder of that name; leave it out for a file$}, @convert, "$dir/x.gguf/");
fails('two levels', 2, qr{\Q$dir\E/a/b: no such folder; create it first}, @convert, "$dir/a/b/");
fails('a file in a folder that is not there', 2, qr{\Q$dir\E/b: no such folder; create it first}, @convert, "$dir/b/x.gguf");
fails('a folder with the name of a file', 2, qr{\.gguf: a file, and a folder is expected}, @convert, "$dir/new/" . (ls("$dir/new"))[0] . '/');
symlink 'gone', "$dir/dangling" or die $!;
fails('a link that leads nowhere', 2, qr/dangling: no such folder/, @convert, "$dir/dangling/");
symlink 'loop', "$dir/loop" or die $!;
fails('a folder that cannot be looked at', 2, qr/loop: Too many levels of symbolic links/, @convert, "$dir/loop/");
run_ok('--dry-run', @convert, "$dir/dry/", '--dry-run');
ok(!-e "$dir/dry", 'makes no folder');
SKIP: {
    skip 'root may write everywhere', 3 if $> == 0;
    mkdir "$dir/locked", 0555 or die $!;
    fails('a folder without permission', 1, qr/locked.*Permission denied/, @convert, "$dir/locked/x");
    mkdir "$dir/closed", 0 or die $!;
    fails('nor to look into it', 2, qr/closed.x: Permission denied/, @convert, "$dir/closed/x/");
    fails('a source without permission', 7, qr/closed.*Permission denied/, $SLUICE, 'plan', "$dir/closed", '-r', 'q4_k_m');
}
is_deeply([grep { /^x/ } ls($dir)], [], 'nothing is left');

# Standard streams that are closed or full.
my $r = run('sh', '-c', "@convert $dir/x 0<&- 1>&- 2>&-");
is($r->{rc}, 1, 'no standard output for what was made');
run_ok('closed streams: the file is whole', $SLUICE, 'verify', "$dir/x.gguf");
$r = run('sh', '-c', "@convert $dir/x --force --json >/dev/full");
isnt($r->{rc}, 0, '--json to a full device is noticed');
unlink glob "$dir/x*";

# A line's end in a path is no line's end in a message.
{
    my $odd = "$dir/two\nlines";
    mkdir $odd or die $!;
    symlink $TINY, "$odd/src" or die $!;
    my @plan = ("$odd/src", '--recipe', 'q4_k_m', '-o', "$odd/out/");
    for my $c (['plan', @plan], ['convert', @plan, '--dry-run'], ['convert', @plan], ['keys', "$odd/key"], ['doctor', $odd],
        ['plan', "$odd/src", '--target-bpw', '4'], ['verify', "$odd/out/Src-8x12M-Q4_K_M.gguf", '--source', "$odd/src"]) {
        my $r = run($SLUICE, @$c);
        like($r->{err} . $r->{out}, qr/two\?lines/, "$c->[0] names it") if "@$c" !~ /bpw/;
        my $said = $c->[0] eq 'convert' && @$c == 6 ? $r->{err} : $r->{err} . $r->{out}; # its result is the path itself
        unlike($said, qr/^lines/m, 'in one line');
    }
}

# --mem in powers of 1000.
$r = run_ok('--mem 64M', @convert, "$dir/x", '--mem', '64M');
fails('--mem 63M', 2, qr/63\.0 MB.*64\.0 MB/, @convert, "$dir/x", '--mem', '63M', '--force');
unlink glob "$dir/x*";

# A recipe as some editors write it.
spit("$dir/bom.recipe", "\xef\xbb\xbfdefault q4_k\r\n*.attn_output.weight = q6_k\r\n");
run_ok('a recipe with a byte order mark and CR LF', $SLUICE, 'plan', $TINY, '-r', "$dir/bom.recipe");

# A path that is no UTF-8: JSON is, all the same.
for my $cmd (['convert', $TINY, '--recipe', 'q2_k', '--force', '--json', '-o', "$dir/\xff.gguf"], ['doctor', '--json', "$dir/\xff"],
    ['plan', "$dir/\xff.gguf", '--recipe', 'copy', '--json', '-o', "$dir/\xff/"]) {
    my @lines = eval { json_lines(run($SLUICE, @$cmd)->{out}) };
    ok(scalar @lines, "$cmd->[0]: valid JSON") or diag($@);
}

# And so are a file's strings; gguf-py reads no others.
SKIP: {
    skip 'no Python with gguf (make test-tools)', 5 unless -e "$TOP/build/venv/.ready";
    system('cp', '-r', $TINY, "$dir/caf\xe9") == 0 or die;
    system('cp', "$TINY/imatrix.legacy-layout.dat", "$dir/im\xe9.dat") == 0 or die;
    spit("$dir/r\xe9.recipe", "encoding X\ndefault q4_k\n");
    run_ok('source, recipe and imatrix with Latin-1 names', $SLUICE, 'convert', "$dir/caf\xe9", '-r', "$dir/r\xe9.recipe", '--layout', 'legacy',
        '--imatrix', "$dir/im\xe9.dat", '-o', "$dir/latin.gguf", '-q');
    my $r = run("$TOP/build/venv/bin/python", '-X', 'utf8', '-c', 'import gguf, sys; r = gguf.GGUFReader(sys.argv[1]); '
        . '[print(k, f.contents()) for k, f in r.fields.items() if not k.startswith("tokenizer") and "\ufffd" in str(f.contents())]', "$dir/latin.gguf");
    is(join(' ', $r->{out} =~ /^(\S+) /mg), 'general.name quantize.imatrix.file sluice.source',
        'U+FFFD in each') or diag($r->{err});
    spit("$dir/r.recipe", "default q4_k\n# caf\xe9\n");
    fails('a recipe in Latin-1', 2, qr/r\.recipe:2: this is no UTF-8: '# caf\?'; expected/, @convert[0 .. 2], '-r', "$dir/r.recipe", '-o', "$dir/x");
    spit("$dir/r.recipe", "default q4_k\n# a\e[2Jb\n");
    fails('a recipe that a terminal would obey', 2, qr/r\.recipe:2: a control character in '# a\?\[2Jb'; expected/, @convert[0 .. 2], '-r', "$dir/r.recipe", '-o', "$dir/x");
    fails('--override-kv in Latin-1', 2, qr/expected UTF-8/, @convert, "$dir/x", '--override-kv', "a=str:caf\xe9");
}

# The same folder by another path: the work goes on.
my $source = checkpoint("$dir/source", '--preset', 'demo');
symlink 'source', "$dir/link" or die $!;
my @big = ('--recipe', 'q2_k', '-o', "$dir/y", '--model-name', 'y', '--task-size', '1M');
my $p = start($SLUICE, 'convert', $source, @big, '--threads', '1', '--backend', 'scalar');
for (1 .. 2000) {
    last if -e "$dir/y.sluice-journal" || -e "$dir/y.gguf";
    select undef, undef, undef, 0.01;
}
select undef, undef, undef, 0.3;
kill 'INT', $p->{pid};
$r = finish($p);
is($r->{rc}, 75, 'interrupted') or diag($r->{err});
(my $man = slurp("$TOP/client/sluice.1")) =~ s/\\-/-/g;
for my $left (grep { /^y\./ } ls($dir)) {
    like($man, qr/NAME\Q@{[substr $left, 1]}\E(,|$)/m, "the manual tells of $left");
}
ok($r->{secs} < 60, 'and soon') or diag($r->{secs});
run_ok('and goes on with the folder named through a link', $SLUICE, 'convert', "$dir/link/", @big);

# A narrow terminal: no line of progress is wider than it.
SKIP: {
    my $has = run('script', '--version');
    skip 'no script(1)', 4 if $has->{rc};
    local $ENV{TERM} = 'xterm';
    run('script', '-qec', "stty cols 40; $SLUICE convert $source -o $dir/y --recipe q2_k --force", "$dir/tty");
    my @drawn = slurp("$dir/tty") =~ /\r(convert \[[^\r\e]*)\e\[K/g;
    ok(@drawn && !grep({ length($_) > 39 } @drawn), 'the bar fits 40 columns') or diag("@drawn");

    # Ctrl-C ends a task or two first: the bar says so.
    spit("$dir/stop", "echo \$\$ >$dir/pid; exec $SLUICE convert $source -o $dir/z --recipe q2_k --threads 1 --backend scalar\n");
    my $p = start('script', '-qefc', "sh $dir/stop", "$dir/tty2");
    for (1 .. 3000) {
        last if -e "$dir/tty2" && slurp("$dir/tty2") =~ /convert \[/;
        select undef, undef, undef, 0.01;
    }
    fails('the same command beside it', 13, qr{z\.sluice-journal: another process is at work with it; wait for that}, $SLUICE, 'convert', $source, '-o', "$dir/z", '-r', 'q2_k');
    kill 'INT', slurp("$dir/pid") + 0;
    is(finish($p)->{rc}, 75, 'interrupted');
    like(slurp("$dir/tty2"), qr/\rstopping \(again: at once\) .*stopped at a safe point; the same command goes on/s, 'the bar tells what it does');
}

done_testing();
