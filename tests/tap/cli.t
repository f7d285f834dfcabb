# The command line as people and scripts meet it.
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Path qw(make_path);
use SluiceTest;
use Test::More;

my $r = run($SLUICE);
is($r->{rc}, 2, 'no verb: usage');
is($r->{out}, '', 'on standard error');
$r = run_ok('--help', $SLUICE, '--help');
my @verbs = $r->{out} =~ /^  ([a-z]+) +\S/mg;
ok(@verbs >= 6, 'verbs are listed') or diag($r->{out});
$r = run_ok($_, $SLUICE, $_) for '-V', '--version';
like($r->{out}, qr/^sluice \d+\.\d+\.\d+/, 'a version');
fails('unknown verb', 2, qr/nonsense/, $SLUICE, 'nonsense');

for my $verb (@verbs) {
    $r = run_ok("$verb --help", $SLUICE, $verb, '--help');
    like($r->{out}, qr/$verb/, "$verb --help names it");
    unlike($r->{out}, qr/:\n(?:\n|\z)/, "$verb --help has no head without options");
    is($r->{err}, '', "$verb --help is no message");
    fails("$verb: unknown option", 2, qr/--no-such-option/, $SLUICE, $verb, '--no-such-option');
}

my $dir = scratch();
my @convert = ($SLUICE, 'convert', $TINY, '-o', "$dir/x.gguf");

# The kernels' widths, and the one that is taken unless --backend says so.
my $cpu = slurp('/proc/cpuinfo');
my $best = $cpu =~ /\bavx512dq\b/ ? 'avx512' : $cpu =~ /\bavx2\b/ ? 'avx2' : 'portable';
like(run($SLUICE, 'doctor')->{out}, qr/^\S+ +kernels +\Q$best\E is used \(--backend takes another\); scalar, portable/m, 'doctor: the kernels');
my ($core, $more) = slurp('/proc/self/status') =~ /^Cpus_allowed_list:\s*(\d+)(.*)/m;
like(run('taskset', '-c', $core, $SLUICE, 'doctor')->{out}, $more ? qr/, 1 processor \(taskset/ : qr/, 1 processor/, 'doctor: the processors that may be used');
fails('an empty name among devices', 2, qr/device ''/, @convert, '--recipe', 'q4_k_m', '--device', 'cpu,,');
fails('an unknown backend', 2, qr/--backend: 'mmx': expected auto, scalar, portable, avx2 or avx512$/, @convert, '--recipe', 'q4_k_m', '--backend', 'mmx');

# Wrong use: exit 2, one line, which option.
fails('no recipe', 2, qr/recipe/, @convert);
fails('unknown recipe', 2, qr/q4_k_x/i, @convert, '--recipe', 'q4_k_x');
fails("a name '$_'", 2, qr/or a name that 'sluice recipes' lists$/, @convert, '--recipe', $_) for 'nope', '';
fails("a name near another, $_->[0]", 2, qr/lists, such as: $_->[1]$/, @convert, '--recipe', $_->[0])
    for ['copi', 'copy'], ['dq3km', 'dq3_k_m'], ['5_k_m', 'q5_k_m'];
fails("the beginning of names, $_->[0]", 2, qr/lists, such as: $_->[1]$/, @convert, '--recipe', $_->[0])
    for ['Q4', 'q4_k_m, q4_0, q4_1, q4_k_s'], ['MXFP4', 'mxfp4_moe'], ['iq4', 'iq4_nl, iq4_xs'];
fails('no checkpoint', 2, qr/./, $SLUICE, 'convert', '--recipe', 'q4_k_m');
fails('--threads -1', 2, qr/--threads/, @convert, '--recipe', 'q4_k_m', '--threads', '-1');
fails('--threads x', 2, qr/--?t/, @convert, '--recipe', 'q4_k_m', '--threads', 'x');
fails('--mem 12Q', 2, qr/--mem/, @convert, '--recipe', 'q4_k_m', '--mem', '12Q');
fails("--mem 1K @$_", 2, qr/memory of 1\.0 kB is too little/, @convert, '--recipe', 'q4_k_m', '--mem', '1K', @$_) for [], ['--dry-run'];
fails('--io pigeon', 2, qr/--io/, @convert, '--recipe', 'q4_k_m', '--io', 'pigeon');
fails('--layout x', 2, qr/layout/, @convert, '--recipe', 'q4_k_m', '--layout', 'x');
fails('--tensor-type x', 2, qr/tensor-type/, @convert, '--recipe', 'q4_k_m', '--tensor-type', 'x');
fails("a type $_->[0]", 2, qr/: '$_->[0]' is no type; did you mean $_->[1]\? 'sluice types' lists them$/, @convert, '--recipe', 'q4_k_m', $_->[2])
    for ['Q4_K_M', 'q4_k', '--output-tensor-type=Q4_K_M'], ['q60_k', 'q6_k', '--tensor-type=attn_v=q60_k'];
fails('--tensor-type a(=q8_0', 2, qr/a\(/, @convert, '--recipe', 'q4_k_m', '--tensor-type', 'a(=q8_0');
fails('--device cpu,cpu', 2, qr/: device cpu is named twice$/, @convert, '--recipe', 'q4_k_m', '--device', 'cpu,cpu');
fails('--recipe /', 2, qr{^sluice convert: /: cannot read the recipe: Is a directory$}, @convert, '--recipe', '/');
fails('-o ""', 2, qr/: the output name is empty$/, $SLUICE, 'convert', $TINY, '-r', 'q4_k_m', '-o', '');
spit("$dir/long.recipe", '#' x 65_537);
fails('a recipe of more than 64 KiB', 2, qr/long\.recipe: no recipe; expected text of 64 KiB at most$/, @convert, '--recipe', "$dir/long.recipe");
fails('--format json', 2, qr/: --format: 'json': expected dat or gguf$/, $SLUICE, 'imatrix', "$TINY/imatrix.legacy-layout.dat", '--convert', "$dir/i", '--format', 'json');
fails('--override-kv x', 2, qr/override-kv/, @convert, '--recipe', 'q4_k_m', '--override-kv', 'x');
fails('output folder is not there', 2, qr/nowhere/, $SLUICE, 'convert', $TINY, '-o', "$dir/nowhere/x.gguf", '--recipe', 'q4_k_m');
my $deep = abs_path($dir);
my $over = 504 - length("$deep/o.sluice-journal");
$deep .= '/d' x int($over / 2) . 'd' x ($over % 2);
make_path($deep);
fails('a path too long for the journal', 2, qr/oo\.sluice-journal: the path has 505 bytes, and a database's may have 504; choose a folder with a shorter path$/,
    $SLUICE, 'convert', $TINY, '-o', "$deep/oo.gguf", '-r', 'q4_k_m', '-q');
is_deeply([ls($deep)], [], 'and nothing is left');
run_ok('the longest', $SLUICE, 'convert', $TINY, '-o', "$deep/o.gguf", '-r', 'q4_k_m', '-q');

fails('an output that is none', 2, qr/^sluice convert: -: the output is not written from its beginning/, $SLUICE, 'convert', $TINY, '-r', 'q4_k_m', '-o', '-');
fails('an empty argument', 2, qr/^sluice convert: argument 1 is empty;/, $SLUICE, 'convert', '', '-r', 'q4_k_m');
fails("llama-quantize's order", 2, qr/^sluice convert: too many arguments \('x\.gguf'\): usage: sluice convert CHECKPOINT -o OUT/, $SLUICE, 'convert', $TINY, 'x.gguf', 'Q4_K_M');
fails("what is too long keeps its end", 7, qr{^sluice plan: (?:a/){200}.*\.\.\..*: File name too long; expected a checkpoint's folder}, $SLUICE, 'plan', 'a/' x 3000, '-r', 'q4_k_m');
fails('a name on Hugging Face', 7, qr/a \.gguf file \('hf download' fetches one from Hugging Face\)$/, $SLUICE, 'plan', $_, '-r', 'q4_k_m')
    for 'deepseek-ai/DeepSeek-R1', 'https://huggingface.co/deepseek-ai/DeepSeek-R1';
fails("tasks of $_ bytes", 2, qr/--task-size: $_ is too small; at least 4096 bytes$/, $SLUICE, 'plan', $TINY, '-r', 'q4_k_m', '--task-size', $_) for 0, 4095;
fails('a device of 8 bytes', 2, qr/--devices: '8': expected COUNTxSIZE/, $SLUICE, 'plan', $TINY, '-r', 'q4_k_m', '--devices', '8');
is(run($SLUICE, '--help', 'plan')->{out}, run($SLUICE, 'plan', '--help')->{out}, '--help VERB');
is(run_ok('help help', $SLUICE, 'help', 'help')->{out}, run($SLUICE, '--help')->{out}, 'is the usage');

# A recipe's mistake is shown with file and line.
spit("$dir/bad.recipe", "# a recipe\n\nblk\\..*ffn_down = q9_k\n");
fails('mistake in a recipe', 2, qr/bad\.recipe:3/, @convert, '--recipe', "$dir/bad.recipe");
fails('no such recipe file', 2, qr/none\.recipe/, @convert, '--recipe', "$dir/none.recipe");

# Sources that are not there or not known.
fails('no such source', 7, qr/nowhere/, $SLUICE, 'convert', "$dir/nowhere", '-o', "$dir/x.gguf", '--recipe', 'q4_k_m');
my $odd = copy_checkpoint($TINY, "$dir/odd");
my $config = slurp("$odd/config.json");
(my $other = $config) =~ s/DeepseekV3ForCausalLM/MambaForCausalLM/;
spit("$odd/config.json", $other);
fails('unknown architecture', 6, qr/MambaForCausalLM/, $SLUICE, 'convert', $odd, '-o', "$dir/x.gguf", '--recipe', 'q4_k_m');
is_deeply([grep { /^x/ } ls($dir)], [], 'nothing of all this left a file');

# Results on standard output, messages on standard error, no control codes.
$r = run_ok('convert', @convert, '--recipe', 'q4_k_m');
is($r->{out}, "$dir/x.gguf\n", 'standard output is the file made');
unlike($r->{err}, qr/[\e\r]/, 'no control codes when it is no terminal');
my $made = sha256("$dir/x.gguf");
fails('the output exists', 13, qr/x\.gguf/, @convert, '--recipe', 'q2_k');
is(sha256("$dir/x.gguf"), $made, 'and stays as it was');
run_ok('--force replaces it', @convert, '--recipe', 'q2_k', '--force');
isnt(sha256("$dir/x.gguf"), $made, 'it is another one');

$r = run_ok('--quiet', @convert, '--recipe', 'q4_k_m', '--force', '--quiet');
is("$r->{out}$r->{err}", '', 'says nothing');
is(sha256("$dir/x.gguf"), $made, 'and does the same');

$r = run_ok('--json', @convert, '--recipe', 'q4_k_m', '--force', '--json');
my @lines = eval { json_lines($r->{out}) };
ok(@lines && !$@, 'JSON lines') or diag($r->{out});
is(scalar(grep { !$_->{message_type} || !$_->{time} || $_->{time} !~ /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/ } @lines), 0,
    'each with a type and a time');
my ($summary) = grep { $_->{message_type} eq 'summary' } @lines;
is_deeply($summary->{files}, ["$dir/x.gguf"], 'the summary names the file');
is($summary->{file_bytes}, -s "$dir/x.gguf", 'and its size');

unlink glob "$dir/x*";
$r = run_ok('--dry-run', @convert, '--recipe', 'q4_k_m', '--dry-run');
is_deeply([grep { /^x/ } ls($dir)], [], 'writes nothing');
like($r->{out}, qr/^token_embd\.weight +q4_k /m, 'and shows the types');

$r = run_ok('--sha256', @convert, '--recipe', 'q8_0', '--sha256');
like(slurp("$dir/x.gguf.xxh64"), qr/^sha256    [0-9a-f]{64}  x\.gguf:output\.weight$/m, 'SHA-256 in the manifest');
my ($sums) = slurp("$dir/x.gguf.xxh64") =~ /^(xxh64 .*  x\.gguf\nsha256 .*  x\.gguf\n)/m;
like(run_ok('verify --sha256', $SLUICE, 'verify', "$dir/x.gguf", '--sha256')->{out}, qr/^\Q$sums\E\z/m, 'prints what the manifest has of the whole');
my ($verified) = grep { $_->{message_type} eq 'verify' } json_lines(run($SLUICE, 'verify', "$dir/x.gguf", '--sha256', '--json')->{out});
like($sums, qr/^sha256 +\Q$verified->{files}[0]{sha256}\E /m, 'and so as JSON');
$r = run_ok('--dry-run of what exists', @convert, '--recipe', 'q8_0', '--dry-run');
like($r->{err}, qr{^sluice: note: this cannot be made there: \S*x\.gguf exists already; --force replaces it$}m, 'says so');
is(run_ok('with --force', @convert, '--recipe', 'q8_0', '--dry-run', '--force')->{err}, '', 'there is nothing to say');
run_ok('plan of a folder', $SLUICE, 'plan', $TINY, '--recipe', 'dq3_k_m');
run_ok('plan of a config alone', $SLUICE, 'plan', "$TINY/config.json", '--recipe', 'dq3_k_m');
$r = run_ok('inspect', $SLUICE, 'inspect', "$dir/x.gguf");
like($r->{out}, qr/blk\.3\.ffn_down_exps\.weight/, 'inspect names the tensors');
like($r->{out}, qr/deepseek2\.expert_count/, 'and the keys');
fails('a source that is not there', 7, qr{^sluice plan: /no/such: No such file or directory; expected a checkpoint's folder, a \.safetensors or a \.gguf file$}, $SLUICE, 'plan', '/no/such', '-r', 'q4_k_m');
fails('nor a model', 7, qr{^sluice verify: /no/such: No such file or directory; expected a \.gguf file, or the folder of a model$}, $SLUICE, 'verify', '/no/such');
fails('nor an imatrix', 7, qr{--imatrix /no/such: No such file or directory; expected }, $SLUICE, 'plan', $TINY, '-r', 'q4_k_m', '--imatrix', '/no/such');
like(run($SLUICE, 'types', '--help')->{out}, qr/^Usage: sluice types$/m, 'usage of a verb without arguments');
run_ok('inspect a checkpoint', $SLUICE, 'inspect', $TINY);
run_ok('recipes', $SLUICE, 'recipes');
run_ok('types', $SLUICE, 'types');

like(run('sh', '-c', "$SLUICE convert $TINY -o $dir/order.gguf -r q4_k_m 2>&1")->{out}, qr{\A\Q$dir\E/order\.gguf\nsluice: },
    'one place for both outputs: the files, then what is said of them');

# On a terminal there is a bar; it is taken away at the end. Help is as wide as the terminal.
SKIP: {
    my $has = run('script', '--version');
    skip 'no script(1)', 24 if $has->{rc};
    my $log = scratch() . '/tty';
    local $ENV{TERM} = 'xterm';
    my @wide = map { run('script', '-qec', "stty cols 80; $_ --help", $log); grep { !/^Script/ && length > 80 } split /\r?\n/, slurp($log) }
        $SLUICE, "$BUILD/sluiced", "$BUILD/sluice-worker", map { /^(\S+)/ ? "$SLUICE $1" : () } run($SLUICE, 'completion', 'list')->{out} =~ /^(\S+\t--help\t)/mg;
    is_deeply(\@wide, [], 'help fits a terminal of 80 columns');
    for my $of ('recipes', 'types', "plan $TINY -r q4_k_m", "plan $TOP/tests/data/deepseek-v3.2-exp-config.json -r dq3_k_m",
        "plan $TOP/tests/data/deepseek-r1-config.json -r dq3_k_m --devices 10x36G", "doctor $dir") {
        local $ENV{NO_COLOR} = 1;
        run('script', '-qec', "stty cols 80; $SLUICE $of", $log);
        my @lines = grep { !/^Script/ } split /\r?\n/, slurp($log);
        is_deeply([grep { length > 80 } @lines], [], "$of fits 80 columns");
        my @whole = split /\n/, run($SLUICE, split / /, $of)->{out};
        cmp_ok(scalar(grep { length > 80 } @whole), '>', 0, 'which for programs is not folded');
        # Free space may be another a moment later; a command too long goes on after a backslash.
        my $words = sub { join ' ', grep { !/^(?:[\d.]*|\\)$/ } split / +/, join ' ', @_ };
        is($words->(@lines), $words->(@whole), 'and nothing is cut');
    }
    spit("$dir/tab.recipe", "# mine\tcaf\xc3\xa9\r\ndefault q4_k\r\n");
    run('script', '-qec', "$SLUICE recipes $dir/tab.recipe", $log);
    like(slurp($log), qr/^# mine\tcaf\xc3\xa9\r+\ndefault q4_k\r+\n/m, 'a recipe on a terminal');
    is(run($SLUICE, 'recipes', "$dir/tab.recipe")->{out}, slurp("$dir/tab.recipe"), 'in a file as it is');
    spit("$dir/esc.recipe", "# \xc2\x9b0;mine\ndefault q4_k\n");
    run('script', '-qec', "$SLUICE recipes $dir/esc.recipe", $log);
    like(slurp($log), qr/esc\.recipe:1: a control character in '# \?\?0;mine'; expected plain text/, 'none with what a terminal would obey');
    my $source = checkpoint(scratch(), '--preset', 'demo');
    run('script', '-qec', "$SLUICE convert $source -o $dir/t.gguf --recipe q2_k --force", $log);
    my $seen = slurp($log);
    like($seen, qr/\r.*%/s, 'a bar on a terminal');
    for my $term ('dumb', '') {
        $ENV{TERM} = $term;
        run('script', '-qec', "$SLUICE convert $source -o $dir/t.gguf --recipe q2_k --force", $log);
        unlike(slurp($log), qr/\e/, "none where TERM is '$term'");
    }
}

# Standard output that cannot be written is an error.
my @printing = ((map { "$SLUICE $_" } qw(types --help --version recipes doctor), 'completion bash', 'config show', 'types --json', 'plan --help',
    "plan $TINY -r q4_k_m", "inspect $TINY --json", "diff -q $TINY $TINY"), map { ("$BUILD/$_ --help", "$BUILD/$_ --version") } qw(sluiced sluice-worker));
my $lost = qr/^sluice[\w -]*: standard output cannot be written/;
fails("$_ with a closed standard output", 1, qr/$lost: it is closed\n\z/, 'sh', '-c', "$_ >&-") for @printing;
is(run('sh', '-c', "$SLUICE plan $TINY -r q4_k_m -q >&- 0<&- 2>&-")->{rc}, 1, 'nor with all of them closed');
SKIP: {
    skip 'no /dev/full', scalar @printing unless -c '/dev/full';
    fails("$_: a full standard output is noticed", 1, qr/$lost(?:: No space left on device)?\n\z/, 'sh', '-c', "$_ >/dev/full") for @printing;
}
fails('two models that differ', 1, qr/$lost: it is closed\n\z/, 'sh', '-c', "$SLUICE diff $dir/x.gguf $TINY >&-");

done_testing();
