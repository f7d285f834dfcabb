# `sluice plan`: what it needs and what it shows; checkpoints of links, as
# Hugging Face tools leave them, for plan and convert alike.
use strict;
use warnings;
use JSON::PP;
use SluiceTest;
use Test::More;

my $dir = scratch();
my @plan = ($SLUICE, 'plan');
my @recipe = ('--recipe', 'q4_k_m');

sub json { return decode_json(run_ok("--json: @_", @plan, @_, @recipe, '--json')->{out}) }

# ---- from config.json alone: sizes to read and write, and what is not there yet
my $config = "$TOP/tests/data/deepseek-r1-config.json";
my $r = run_ok('config.json alone', @plan, $config, @recipe);
my $j = json($config);
cmp_ok($j->{source_bytes}, '>', 670e9, 'bytes to read');
like($r->{out}, qr/^Read +673\.2 GB, when the checkpoint is there$/m, 'are shown');
like($r->{out}, qr/^Write +\d+\.\d GB$/m, 'bytes to write');
like($r->{out}, qr/^Note +this is from config\.json alone; convert will need the \.safetensors files and the tokenizer/m,
    'what convert needs besides');
is_deeply($j->{missing}, ['.safetensors', 'tokenizer.json'], '--json tells it');

# ---- free space: where convert would write
sub free_bytes {
    my ($df) = run('df', '-B1', '--output=avail', $_[0])->{out} =~ /(\d+)/;
    return $df;
}
like($r->{out}, qr/^Space +\d+(?:\.\d)? \w?B free in the current folder, where convert writes without -o: /m, 'free space without -o');
$j = json($TINY);
is($j->{output}{folder}, '.', 'that of the current folder');
ok(!$j->{output}{given}, 'which was not given');
cmp_ok(abs($j->{output}{free_bytes} - free_bytes('.')), '<', 1e9, 'as df shows it');
is_deeply($j->{missing}, [], 'nothing is missing');
$r = run_ok('with -o', @plan, $TINY, @recipe, '-o', "$dir/x.gguf");
like($r->{out}, qr/^Space +\S+ \w?B free in \Q$dir\E: enough$/m, 'that of the folder given');
run_ok('with a folder to come', @plan, $TINY, @recipe, '-o', "$dir/new/");
ok(!-e "$dir/new", 'which is not made');
SKIP: {
    skip 'no small filesystem without root', 1 if $> != 0 || run('mountpoint', '-q', '/dev/shm')->{rc};
    my $need = json($config)->{file_bytes};
    skip '/dev/shm is large', 1 if free_bytes('/dev/shm') > $need;
    like(run(@plan, $config, @recipe, '-o', '/dev/shm/')->{out}, qr/^Space .* \d+\.\d GB short$/m, 'what is short');
}

# ---- a folder without a tokenizer: headers are enough for a plan
my $bare = copy_checkpoint($TINY, "$dir/bare");
unlink glob "$bare/tokenizer*";
$r = run_ok('no tokenizer', @plan, $bare, @recipe);
like($r->{out}, qr/^Note +\Q$bare\E has no tokenizer \(tokenizer\.json or tiktoken\.model\); convert will need it/m, 'is said in one line');
is_deeply(json($bare)->{missing}, ['tokenizer.json'], 'and by --json');
is(json($bare)->{tensor_bytes}, json($TINY)->{tensor_bytes}, 'the sizes are the same');
unlike(run_ok('plan', @plan, $TINY, @recipe)->{out}, qr/tokenizer/, 'with one, nothing is said');
like(run(@plan, $TINY, '-r', 'f16', '--tensor-type', 'blk\.0\.attn_k_b=q4_k')->{out}, qr/^Note +1 tensor has rows/m, 'one of one kind');
fails('convert needs it', 7, qr/tokenizer\.json is missing, and so is tiktoken\.model, .*; download the one that yours has/, $SLUICE, 'convert', $bare, @recipe, '-o', "$dir/x.gguf");
my $room = checkpoint("$dir/room", '--preset', 'small', '--vocab', 4352);
my $missing = qr/note: tokenizer_config\.json is missing .*, and there is no chat template; download it too$/m;
unlike(run_ok('with tokenizer_config.json', @plan, $room, @recipe)->{err}, $missing, 'nothing is said');
unlink "$room/tokenizer_config.json";
like(run_ok('without', @plan, $room, @recipe)->{err}, $missing, 'it is');
spit("$bare/tokenizer.json", '{');
fails('a damaged one is refused', 7, qr/tokenizer\.json/, @plan, $bare, @recipe);

# ---- Hugging Face's cache: snapshots/REVISION/NAME -> ../../blobs/HASH
my $hub = "$dir/hub/models--someone--tiny-v3";
my $revision = "$hub/snapshots/" . '0123456789abcdef' x 2 . '01234567';
mkdir $_ or die "$_: $!" for "$dir/hub", $hub, "$hub/blobs", "$hub/snapshots", $revision;
my %blob;
for my $path (glob("$TINY/*.json"), glob("$TINY/*.safetensors")) {
    my ($name) = $path =~ m{([^/]+)$};
    $blob{$name} = $name =~ /safetensors$/ ? sha256($path) : substr(sha256($path), 0, 40);
    spit("$hub/blobs/$blob{$name}", slurp($path));
    symlink "../../blobs/$blob{$name}", "$revision/$name" or die $!;
}
run_ok('plain', $SLUICE, 'convert', $TINY, @recipe, '-o', "$dir/plain.gguf", '--model-name', 'T');
my $want = hashes("$dir/plain.gguf");
run_ok('plan of a snapshot', @plan, $revision, @recipe);
run_ok('convert of a snapshot', $SLUICE, 'convert', $revision, @recipe, '-o', "$dir/snapshot.gguf", '--model-name', 'T');
is_deeply(hashes("$dir/snapshot.gguf"), $want, 'the same tensors');

like(run(@plan, $revision, @recipe)->{out}, qr/^File +tiny-8x12M-v3-Q4_K_M\.gguf$/m, 'it is called by its repository, not by its revision');
unlike(run_ok('inspect', $SLUICE, 'inspect', "$dir/snapshot.gguf")->{out}, qr/0123456789abcdef/, 'in the metadata, too');
fails('the folder above', 7, qr{give one of its revisions, \Q$hub\E/snapshots/REVISION}, @plan, $hub, @recipe);
fails('that of the revisions', 7, qr{snapshots: config\.json is missing, and there is one in \Q$revision\E: give that folder$}m,
    @plan, "$hub/snapshots", @recipe);
fails("the cache's own", 7, qr{hub: a Hugging Face cache; give .*\Q$dir\E/hub/models--NAME/snapshots/REVISION$}m, @plan, "$dir/hub", @recipe);
mkdir "$dir/gguf" or die $!;
spit("$dir/gguf/x.gguf", '');
fails('a folder of GGUF files', 7, qr{gguf: no \.safetensors file; to read a \.gguf file, give its own path$}m, @plan, "$dir/gguf", @recipe);
spit("$dir/other.json", '{}');
fails('another JSON file in place of config.json', 7, qr{: \Q$dir\E/other\.json: config\.json has no "architectures"}, @plan, "$dir/other.json", @recipe);

# ---- older "download --local-dir": a folder of links into the cache
my $local = "$dir/local";
mkdir $local or die $!;
symlink "$hub/blobs/$blob{$_}", "$local/$_" or die $! for keys %blob;
run_ok('plan of --local-dir', @plan, $local, @recipe);
run_ok('convert of --local-dir', $SLUICE, 'convert', $local, @recipe, '-o', "$dir/local.gguf", '--model-name', 'T');
is_deeply(hashes("$dir/local.gguf"), $want, 'the same tensors');
run_ok('and the result against it', $SLUICE, 'verify', "$dir/local.gguf", '--source', $local);

# What only looks like it is not followed: whoever packed the folder could read anything.
my $hash = 'ab' x 20;
for my $bad ("$dir/elsewhere/$hash", "$dir/blobs/$hash", "$hub/blobs/notes", "$hub/other/$hash", "$dir/hub/x/blobs/$hash") {
    my ($up) = $bad =~ m{^(.*)/};
    system 'mkdir', '-p', $up;
    spit($bad, slurp("$TINY/generation_config.json"));
    unlink "$local/config.json";
    symlink $bad, "$local/config.json" or die $!;
    fails("a link to $bad", 7, qr/config\.json: is a symbolic link to .*outside the checkpoint's folder and no Hugging Face cache/,
        @plan, $local, @recipe);
}

# ---- a dry run tells programs what it tells people
for my $cmd (['convert', $TINY, '-o', "$dir/n.gguf", @recipe], ['quantize', "$dir/plain.gguf", "$dir/n.gguf", 'COPY']) {
    my ($dry) = json_lines(run_ok("$cmd->[0] --dry-run --json", $SLUICE, @$cmd, '--dry-run', '--json')->{out});
    is_deeply([@$dry{qw(message_type)}, scalar @{ $dry->{tensors} }, map { $_->{path} } @{ $dry->{files} }], ['dry_run', 70, "$dir/n.gguf"],
        'one line');
}
my ($dry) = json_lines(run($SLUICE, 'submit', $TINY, @recipe, '-o', "$dir/n.gguf", '--dry-run', '--json')->{out});
is("$dry->{message_type} $dry->{prefix} $dry->{file_bytes}", "dry_run n " . json($TINY, '-o', "$dir/n.gguf")->{file_bytes}, 'submit, too');
fails('a context of nothing', 2, qr/^sluice plan: --ctx: expected 1 token or more$/, @plan, $TINY, @recipe, '--ctx', 0);
fails('--measure beside a target', 2, qr/^sluice plan: --target-size measures anyway; --measure is for --recipe$/, @plan, $TINY, '--target-size', '9M', '--measure');
fails('threads with nothing to measure', 2, qr/^sluice plan: --threads is for measuring/m, @plan, $TINY, @recipe, '--threads', 2);

# ---- how many tensors has a name of its own in JSON: tensors is a list elsewhere
sub counts {
    my ($j) = @_;
    return map { counts($_) } @$j if ref $j eq 'ARRAY';
    return () if ref $j ne 'HASH';
    my @own = exists $j->{tensors} && ref $j->{tensors} ne 'ARRAY' || exists $j->{n_tensors} ? "$j->{tensors} $j->{n_tensors}" : ();
    return (@own, map { counts($j->{$_}) } sort keys %$j);
}
for (['plan', $TINY, @recipe, '--measure'], ['convert', $TINY, @recipe, '-o', "$dir/n.gguf", '--dry-run'], ['inspect', $TINY], ['inspect', "$dir/plain.gguf"],
    ['verify', "$dir/plain.gguf", '--source', $TINY]) {
    my @counts = counts(json_lines(run($SLUICE, @$_, '--json')->{out}));
    ok(@counts && !(grep { !/^(\d+) \1$/ } @counts), "$_->[0]: tensors and n_tensors") or diag(explain(\@counts));
}

# ---- rules that decide nothing are named: mostly a name mistyped
spit("$dir/typo.recipe", "*.ffn_down_exp.weight = q6_k\noutput.weight = q6_k\ndefault q4_k\n");
my $typo = qr/recipe \Q$dir\E\/typo\.recipe, line 1: '\*\.ffn_down_exp\.weight' matches no tensor of this model; 'sluice convert --dry-run' lists/;
my @typo = ('--recipe', "$dir/typo.recipe");
like(run(@plan, $TINY, @typo)->{err}, qr/^sluice: warning: $typo their names\n\z/m, 'plan');
my $warnings = decode_json(run(@plan, $TINY, @typo, '--json')->{out})->{warnings};
is(@$warnings, 1, 'one in --json');
like($warnings->[0], qr/^$typo/, 'the same words');
is_deeply(json($TINY)->{warnings}, [], 'none without');
$r = run($SLUICE, 'convert', $TINY, @typo, '-o', "$dir/typo.gguf", '--json');
like($r->{err}, qr/^sluice: warning: $typo/m, 'convert');
is_deeply([map { $_->{text} } grep { $_->{message_type} eq 'warning' } json_lines($r->{out})], $warnings, 'with a JSON line');
like(run($SLUICE, 'submit', $TINY, @typo, '-o', "$dir/typo2.gguf", '--dry-run')->{err}, qr/^sluice: warning: $typo/m, 'submit');
like(run(@plan, $TINY, @recipe, '--tensor-type', 'Attn_X=q6_k')->{err}, qr/^sluice: warning: --tensor-type: 'attn_x' matches no tensor/m,
    'an option, too');

# ---- an --override-kv that says other shapes than the tensors have, or stands under another architecture's name
for (['deepseek2.block_count=int:40', 'the tensors written are those of 4, so llama.cpp may refuse the file'], ['deepseek2.block_count=int:4'],
     ['deepseek2.nextn_predict_layers=int:1', 'the tensors written are those of 0, so llama.cpp may refuse the file'],
     ['deepseek2.nextn_predict_layers=int:0'], ['deepseek2.expert_count=str:8', 'the tensors written are those of 8, so llama.cpp may refuse the file'],
     ['deepseek2.interleave_moe_layer_step=int:2', 'the tensors written are those of 0, so llama.cpp may refuse the file'],
     ['deepseek2.context_length=int:77'], ['deepseek2.new=int:1'], ['llama.new=int:1'], ['general.name=str:x'],
     ['deepseek.block_count=int:4', 'no program will read this of the model, whose key is deepseek2.block_count'],
     ['qwen2.context_length=int:1', 'no program will read this of the model, whose key is deepseek2.context_length']) {
    my ($kv, $said) = @$_;
    (my $key = $kv) =~ s/=.*//;
    is_deeply(json($TINY, '--override-kv', $kv)->{warnings}, [$said ? "--override-kv $key: $said" : ()], $kv);
}

# ---- a plan that takes its time says so, on a terminal only
SKIP: {
    skip 'no script(1)', 2 if run('script', '--version')->{rc};
    local $ENV{TERM} = 'xterm';
    my $slow = "$dir/slow.recipe";
    system('mkfifo', $slow) == 0 or die;
    my $feed = "echo default q4_k >&3) & $SLUICE plan $TINY -r $slow";
    run('script', '-qefc', "(exec 3>$slow; timeout 60 sh -c 'until grep -q plannin[g] $dir/tty; do sleep 0.1; done'; $feed >$dir/out", "$dir/tty");
    like(slurp("$dir/tty"), qr/\rplanning \Q$TINY\E \.\.\. \d+ s\e\[K(?:\rplanning [^\r]*)*\r\e\[K/, 'a line, and then none');
    is(run('sh', '-c', "(exec 3>$slow; sleep 1.5; $feed")->{err}, '', 'elsewhere nothing');
}

# ---- a stranger's names do nothing to the terminal
spit("$dir/evil.recipe", "advice clear\ndefault q8_0\n");
run_ok('a GGUF source', $SLUICE, 'convert', $TINY, '-o', "$dir/evil.gguf", '-r', 'q8_0', '--model-name', "\e]0;x\a", '-q');
spit("$dir/evil.gguf", slurp("$dir/evil.gguf") =~ s/attn_kv_a_norm/attn\e[2Ja_norm/gr);
$r = run_ok('and its plan', @plan, "$dir/evil.gguf", '-r', "$dir/evil.recipe");
unlike($r->{out}, qr/[\0-\x09\x0b-\x1f\x7f]/, 'no control characters');
like($r->{out}, qr/^\?]0;x\?: deepseek2.*^Recipe evil: clear\n.*^attn\?\[2Ja_norm /ms, 'the rest is shown');
spit("$dir/evil.gguf", slurp("$dir/evil.gguf") =~ s/ffn_down\.weight/ffn_\e[2J.weight/gr);
$r = run_ok('and what is said of it', $SLUICE, 'quantize', '--dry-run', "$dir/evil.gguf", 'q4_k_m', '--allow-requantize', '--imatrix',
    "$TINY/imatrix.legacy-layout.dat");
like($r->{err}, qr/note: .* have no data in the imatrix .*blk\.0\.ffn_\?\[2J\.weight/, 'no control characters in notes');

done_testing();
