# Short of everything: memory, disk, permissions. A conversion either works as
# well or says which limit it met, with nothing left behind.
use strict;
use warnings;
use File::Temp qw(tempdir);
use JSON::PP;
use KernelFaults;
use POSIX ();
use SluiceTest;
use Test::More;

sub rss { # peak resident memory of a command, MiB
    my ($report, @cmd) = @_;
    my $r = run(tool('confine'), '--report', $report, '--', @cmd);
    my ($kib) = slurp($report) =~ /^maxrss_kib (\d+)/m;
    return ($r, $kib / 1024);
}

# ---- memory: a small model takes little, however many threads there are
my $small = scratch();
for my $threads ('1', '64') {
    my ($r, $peak) = rss("$small/report", $SLUICE, 'convert', $TINY, '-o', "$small/f32.gguf", '-r', 'f32', '-q', '-f', '-t', $threads);
    is($r->{rc}, 0, "tiny-v3 with $threads threads") or diag($r->{err});
    SKIP: {
        skip 'a sanitizer needs memory of its own', 1 if $SANITIZED;
        cmp_ok($peak, '<', 64, 'resident memory stays below 64 MiB');
    }
    ($r, $peak) = rss("$small/report", $SLUICE, 'quantize', "$small/f32.gguf", "$small/q.gguf", 'Q4_K_M', $threads, '-q', '-f');
    is($r->{rc}, 0, "its F32 file (82 MB) with $threads threads") or diag($r->{err});
    SKIP: {
        skip 'a sanitizer needs memory of its own', 1 if $SANITIZED;
        cmp_ok($peak, '<', 64, 'resident memory stays below 64 MiB');
    }
}

# Threads' stacks count.
my @stacks = ($SLUICE, 'convert', $TINY, '-o', "$small/t.gguf", '-r', 'q4_k_m', '-q', '-t', 512);
my ($need) = fails('more threads than stacks have room', 2, qr/ and 512 threads: \d+ MiB are needed$/m, @stacks, '--mem', '64Mi')->{err} =~ /(\d+) MiB are needed/;
run_ok('with what they need', @stacks, '--mem', "${need}Mi");

# ---- memory: one tensor of 256 MiB in BF16 (512 MiB in F32), 64 MiB allowed
my $source = checkpoint(scratch(), '--arch', 'llama', '--preset', 'big-tensor');
my $dir = scratch();
my ($r, $peak) = rss("$dir/report", $SLUICE, 'convert', $source, '-o', "$dir/x.gguf", '--recipe', 'q4_k_m', '--mem', '64Mi');
is($r->{rc}, 0, 'a tensor larger than the memory allowed') or diag($r->{err});
diag(sprintf 'peak memory %.0f MiB', $peak);
SKIP: {
    skip 'a sanitizer needs memory of its own', 1 if $SANITIZED;
    cmp_ok($peak, '<', 64, '--mem 64Mi: resident memory stays below');
}
($r, $peak) = rss("$dir/report", $SLUICE, 'convert', $source, '-o', "$dir/y.gguf", '-q', '-r', 'iq2_xxs', '--imatrix', 'synthetic', '-t', 64,
    '--mem', '64M');
is($r->{rc}, 0, 'with 64 of the largest stacks') or diag($r->{err});
SKIP: {
    skip 'a sanitizer needs memory of its own', 1 if $SANITIZED;
    cmp_ok($peak * (1 << 20), '<', 64e6, '--mem 64M: resident memory stays below');
}
unlink "$dir/y.gguf", "$dir/y.gguf.xxh64";
my $sum = sha256("$dir/x.gguf");
run_ok('without that limit', $SLUICE, 'convert', $source, '-o', "$dir/y.gguf", '--recipe', 'q4_k_m');
is(sha256("$dir/y.gguf"), $sum, 'the same file');
unlink "$dir/y.gguf";

# The same under a limit of the kernel's, page cache included.
my ($cg, $knob);
if ($> == 0) {
    if (-d '/sys/fs/cgroup/memory' && mkdir "/sys/fs/cgroup/memory/sluice-test-$$") {
        ($cg, $knob) = ("/sys/fs/cgroup/memory/sluice-test-$$", 'memory.limit_in_bytes');
    } elsif (-e '/sys/fs/cgroup/cgroup.subtree_control' && mkdir "/sys/fs/cgroup/sluice-test-$$") {
        ($cg, $knob) = ("/sys/fs/cgroup/sluice-test-$$", 'memory.max');
    }
}
SKIP: {
    my $set = $cg && -e "$cg/$knob" && eval { spit("$cg/$knob", 192 << 20); 1 };
    skip 'no memory cgroup can be made here (not root?)', 2 if !$set || $SANITIZED;
    $r = run('sh', '-c', "echo \$\$ > $cg/cgroup.procs && exec \"\$@\"", 'sh', $SLUICE, 'convert', $source,
        '-o', "$dir/z.gguf", '--recipe', 'q4_k_m', '--mem', '64Mi');
    is($r->{rc}, 0, 'under 192 MiB for process and page cache') or diag($r->{err});
    is(-f "$dir/z.gguf" ? sha256("$dir/z.gguf") : 'none', $sum, 'the same file');
    unlink "$dir/z.gguf";
}
rmdir $cg if $cg;

# No address space at all: an error, no crash, nothing left.
SKIP: {
    skip 'a sanitizer needs address space of its own', 2 if $SANITIZED;
    $r = run(tool('confine'), '--as', 60 << 20, '--', $SLUICE, 'convert', $source, '-o', "$dir/w.gguf",
        '--recipe', 'q4_k_m', '--mem', '1Gi');
    ok($r->{rc} == 1 && $r->{err} =~ /memory/i, 'memory that cannot be had') or diag("exit $r->{rc} $r->{err}");
    is_deeply([grep { /^w/ } ls($dir)], [], 'nothing is left');
}
unlink glob "$dir/*";

# ---- rows of 16 million weights: memory that goes with a row's length
my $text = sub { pack 'Q</a', $_[0] };
my @kv = ((map { $text->($_->[0]) . pack('L<', 8) . $text->($_->[1]) } ['general.architecture', 'llama'], ['tokenizer.ggml.model', 'gpt2'],
        ['tokenizer.ggml.pre', 'llama-bpe']),
    (map { $text->("llama.$_->[0]") . pack('L<L<', 4, $_->[1]) } ['block_count', 1], ['context_length', 128], ['embedding_length', 256],
        ['feed_forward_length', 256], ['attention.head_count', 4], ['vocab_size', 32]),
    $text->('llama.attention.layer_norm_rms_epsilon') . pack('L<f<', 6, 1e-5),
    $text->('tokenizer.ggml.tokens') . pack('L<L<Q<', 9, 8, 32) . join('', map { $text->("t$_") } 1 .. 32));
my $head = 'GGUF' . pack('L<Q<Q<', 3, 1, scalar @kv) . join('', @kv) . $text->('blk.0.ffn_up.weight')
    . pack('L<Q<Q<L<Q<', 2, 1 << 24, 2, 1, 0);
$head .= "\0" x (-length($head) % 32);
spit("$dir/wide.gguf", $head);
truncate "$dir/wide.gguf", length($head) + (4 << 24);
($r, $peak) = rss("$dir/report", $SLUICE, 'quantize', "$dir/wide.gguf", "$dir/x.gguf", 'Q4_K_M', '--mem', '64Mi');
ok($r->{rc} == 0 && ($SANITIZED || $peak < 96), 'rows of 16 million weights within 96 MiB') or diag("$peak MiB; $r->{err}");
$r = run($SLUICE, 'quantize', "$dir/wide.gguf", "$dir/y.gguf", 'Q4_K_M', '--imatrix', 'synthetic');
ok($r->{rc} == 2 && $r->{err} =~ /too little for this model.* MiB are needed\n\z/, 'with synthetic weights, which keep whole rows')
    or diag("exit $r->{rc} $r->{err}");
$r = run($SLUICE, 'plan', "$dir/wide.gguf", '--target-size', '20M');
ok($r->{rc} == 6 && $r->{err} =~ /ffn_up\.weight': rows of 16777216 weights are too long/, 'measuring errors on it')
    or diag("exit $r->{rc} $r->{err}");
unlink glob "$dir/*";

# ---- threads that measure, each with windows onto columns of GPTQ's matrices: 17 MiB of each, of 1.1 GiB; the weights are a hole
{
    my ($n, $layers, $at, %head) = (4096, 10, 0);
    my %bytes = (F16 => 2, F32 => 4, I32 => 4);
    my $tensor = sub {
        my ($name, $dtype, @shape) = @_;
        my $from = $at;
        my $size = $bytes{$dtype};
        $size *= $_ for @shape;
        $head{$name} = { dtype => $dtype, shape => \@shape, data_offsets => [$from, $at += $size] };
    };
    $tensor->('model.embed_tokens.weight', 'F16', 4096, $n);
    $tensor->('model.norm.weight', 'F16', $n);
    for my $layer (map { "model.layers.$_" } 0 .. $layers - 1) {
        $tensor->("$layer.${_}_layernorm.weight", 'F16', $n) for qw(input post_attention);
        for my $m (map { "$layer.$_" } map({ "self_attn.${_}_proj" } qw(q k v o)), map { "mlp.${_}_proj" } qw(gate up down)) {
            $tensor->("$m.qweight", 'I32', $n / 8, $n);
            $tensor->("$m.scales", 'F32', $n / 8, $n);
            $tensor->("$m.qzeros", 'I32', $n / 8, $n / 8);
            $tensor->("$m.g_idx", 'I32', $n);
        }
    }
    my $json = encode_json(\%head);
    my $gptq = scratch();
    $json .= ' ' x (-length($json) % 8);
    spit("$gptq/model.safetensors", pack('Q<', length $json) . $json);
    truncate "$gptq/model.safetensors", 8 + length($json) + $at;
    spit("$gptq/$_", slurp("$TINY/$_")) for qw(tokenizer.json tokenizer_config.json);
    spit("$gptq/config.json", encode_json({ architectures => ['LlamaForCausalLM'], model_type => 'llama', hidden_size => $n, intermediate_size => $n,
        num_hidden_layers => $layers, num_attention_heads => 32, vocab_size => 4096, max_position_embeddings => 4096, rms_norm_eps => 1e-5,
        tie_word_embeddings => JSON::PP::true(), torch_dtype => 'float16', quantization_config => { quant_method => 'gptq', bits => 4, group_size => 8 } }));
    ($r, $peak) = rss("$dir/report", $SLUICE, 'plan', $gptq, qw(--target-size 700M --types q4_k,q2_k -t 64 -q));
    is($r->{rc}, 0, 'a recipe by size, measured by 64 threads') or diag($r->{err});
    diag(sprintf 'peak memory %.0f MiB', $peak);
    SKIP: {
        skip 'a sanitizer needs memory of its own', 1 if $SANITIZED;
        cmp_ok($peak, '<', 560, 'as many of them as have room in 512 MiB');
    }
}

# ---- io_uring forbidden, as in containers
$r = run(tool('confine'), '--no-uring', '--', $SLUICE, 'convert', $TINY, '-o', "$dir/x.gguf", '--recipe', 'q4_k_m');
is($r->{rc}, 0, 'io_uring forbidden: works all the same') or diag($r->{err});
is_deeply(hashes("$dir/x.gguf"), golden("$TINY/golden/mla/Q4_K_M.xxh64"), 'with the same bytes');
$r = run(tool('confine'), '--no-uring', '--', $SLUICE, 'convert', $TINY, '-o', "$dir/u.gguf", '--recipe', 'q4_k_m', '--io', 'uring');
ok($r->{rc} == 6 && $r->{err} =~ /io_uring/, '--io uring then says so') or diag("exit $r->{rc} $r->{err}");
is_deeply([grep { /^u/ } ls($dir)], [], 'and leaves nothing');
$r = run('timeout', 10, tool('confine'), '--no-uring', '--', "$BUILD/sluice-worker", '--connect', 'ipc:///nowhere/s', '--root', $dir, '--io', 'uring');
ok($r->{rc} == 6 && $r->{err} =~ /^sluice-worker: io_uring is refused/, 'nor does a worker begin, whose tasks would fail') or diag("exit $r->{rc} $r->{err}");

# ---- one processor
$r = run(tool('confine'), '--cpus', '1', '--', $SLUICE, 'convert', $TINY, '-o', "$dir/c.gguf", '--recipe', 'q4_k_m');
is($r->{rc}, 0, 'one processor') or diag($r->{err});
is(sha256("$dir/c.gguf"), sha256("$dir/x.gguf"), 'the same file');
unlink glob "$dir/*";

# ---- no space: a small filesystem in a mount namespace of its own
SKIP: {
    my @own = own_mounts($dir) or skip 'no filesystem can be mounted here', 8;
    $r = run(@own, 'sh', '-c', 'd=$1; shift; mount -t tmpfs -o size=8m none "$d" || exit 99
        "$@"; rc=$?; ls -A "$d" | sed "s/^/left: /"; exit $rc', 'sh', $dir, $SLUICE, 'convert', $TINY, '-o',
        "$dir/x.gguf", '--recipe', 'q8_0');
    is($r->{rc}, 9, 'too little space: exit 9') or diag($r->{err});
    unlike($r->{out}, qr/left:/, 'nothing was written');
    like($r->{err}, qr/22\.9 MB needed, 8\.\d+ MB free/, 'both figures are told');

    # Nothing was reserved: the journal has no room either.
    $r = run(@own, 'sh', '-c', 'd=$1; shift; mount -t tmpfs -o size=8m none "$d" || exit 99; exec "$@"', 'sh', $dir,
        $SLUICE, 'convert', $TINY, '-o', "$dir/x.gguf", '--recipe', 'q8_0', '--sparse', '-q');
    is($r->{rc}, 9, '--sparse on a disk that fills up: exit 9');
    like($r->{err}, qr/x\.(?:sluice-journal: .* full \(free some room there\)|gguf\.partial: .*No space)/, 'and what is full');

    # Room for bytes, none for another file.
    $r = run(@own, 'sh', '-c', 'd=$1; shift; mount -t tmpfs -o nr_inodes=1 none "$d" || exit 99; exec "$@"', 'sh', $dir,
        $SLUICE, 'imatrix', "$TINY/imatrix.legacy-layout.dat", '--convert', "$dir/m.gguf");
    is($r->{rc}, 9, 'no inode for an imatrix: exit 9') or diag($r->{err});

    # Space that goes away in the middle: another writer takes it.
    $r = run(@own, 'sh', '-c', 'd=$1; shift; mount -t tmpfs -o size=30m none "$d" || exit 99
        "$@" & p=$!
        i=0; while [ ! -e "$d/x.gguf.partial" ] && [ $i -lt 200 ]; do sleep 0.01; i=$((i + 1)); done
        head -c 40000000 /dev/zero > "$d/hog" 2>/dev/null
        wait $p; rc=$?; rm -f "$d/hog"
        [ $rc = 0 ] || "$@"; rc=$?
        [ $rc = 0 ] && cp "$d/x.gguf" "$d/../taken.gguf"; exit $rc', 'sh', $dir, $SLUICE, 'convert', $TINY, '-o',
        "$dir/x.gguf", '--recipe', 'q8_0', '--task-size', '1M');
    is($r->{rc}, 0, 'space taken by others: reserved before, or made up for later') or diag($r->{err});
    is_deeply(hashes("$dir/../taken.gguf"), golden("$TINY/golden/mla/Q8_0.xxh64"), 'the right bytes');
    unlink "$dir/../taken.gguf";
}

# ---- no file of this size: a quota, FAT
fails('a file larger than any may be', 9, qr/too large; make smaller files with --split-max-size/,
    'sh', '-c', 'ulimit -f 12288; exec "$@"', 'sh', $SLUICE, 'convert', $TINY, '-o', "$dir/f.gguf", '-r', 'q4_k_m');
my $matrix = "$TINY/imatrix.legacy-layout.dat";
for my $c (['an imatrix', 'm.gguf', 20, 'imatrix', $matrix, '--convert'], ['a recipe', 'm.recipe', 1, 'plan', $TINY, '--target-bpw', '4', '--write-recipe']) {
    my ($what, $name, $blocks, @command) = @$c;
    fails("$what past the limit", 1, qr/\Q$name\E: .*: File too large/, 'sh', '-c', "ulimit -f $blocks; exec \"\$@\"", 'sh', $SLUICE, @command, "$dir/$name");
    is_deeply([glob "$dir/m.*"], [], 'nothing of it is left');
}
# libzmq would abort.
my @bad;
sub with_files { # as many as that, whatever this test has from its caller
    my ($n, @cmd) = @_;
    return run('sh', '-c', "exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-; ulimit -n $n; exec \"\$@\"", 'sh', @cmd);
}
for my $n (5 .. 16) {
    for my $c ([$SLUICE, 'queue', '--connect', "ipc://$dir/none"], [$SLUICE, 'convert', $TINY, '-o', "$dir/n.gguf", '-r', 'q4_k_m', '-q'],
        ["$BUILD/sluiced", '--listen', "ipc://$dir/sock", '--state', "$dir/state", '--root', $dir],
        ["$BUILD/sluice-worker", '--connect', "ipc://$dir/none", '--root', $dir]) {
        my $r = with_files($n, @$c);
        push @bad, "$n: $r->{rc} $r->{cmd}: $r->{err}" if $r->{rc} != 1 || $r->{err} !~ /file/;
    }
}
for my $n (17 .. 30) { # as many as libzmq has need of, but not the rest
    my $r = with_files($n, $SLUICE, 'convert', $TINY, '-o', "$dir/n.gguf", '-r', 'q4_k_m', '-q');
    push @bad, "$n: $r->{rc}: $r->{err}" if $r->{rc} != 1 || $r->{err} !~ /no more than $n files.*ulimit -n 1024/;
}
is_deeply(\@bad, [], 'a few open files: refused in a line');
ok(!-e "$dir/n.gguf", 'nothing is made');
# Nor without address space for its threads' stacks.
SKIP: {
    skip 'a sanitizer needs address space of its own', 1 if $SANITIZED;
    for my $mib (map { 30 + 2 * $_ } 0 .. 20) {
        my $r = run('prlimit', '--as=' . ($mib << 20), $SLUICE, 'queue', '--connect', "ipc://$dir/none");
        push @bad, "$mib: $r->{rc} $r->{err}" unless $r->{rc} == 4 || ($r->{rc} == 1 && $r->{err} =~ /memory/) || $r->{err} =~ /shared libraries/;
    }
    is_deeply(\@bad, [], 'little address space: enough, or refused in a line');
}

# Nor without its threads: as few as a user may have, which root has without limit.
SKIP: {
    my @user = $> ? () : qw(env HOME=/nonexistent setpriv --reuid 54321 --regid 54321 --clear-groups);
    my $own = tempdir(TMPDIR => 1, CLEANUP => 1);
    chmod 0777, $own;
    skip 'no other user can run this', 1 if run(@user, 'prlimit', '--nproc=1', $SLUICE, 'inspect', $TINY)->{rc};
    for my $n (2 .. 10) {
        for my $c ([$SLUICE, 'queue', '--connect', "ipc://$own/none"], [$SLUICE, 'convert', $TINY, '-o', "$own/n.gguf", '-r', 'q4_k_m', '-q'],
            $n > 3 ? () : (["$BUILD/sluiced", '--listen', "ipc://$own/sock/s", '--state', "$own/state", '--root', $own],
            ["$BUILD/sluice-worker", '--connect', "ipc://$own/none", '--root', $own])) {
            my $r = run('timeout', '-k1', 20, @user, 'prlimit', "--nproc=$n", @$c);
            push @bad, "$n: $r->{rc} $r->{cmd}: $r->{err}" unless $r->{rc} == 0 || $r->{rc} == 4 || ($r->{rc} == 1 && $r->{err} =~ /cannot start a thread: /);
            unlink glob "$own/n.*";
        }
    }
    is_deeply(\@bad, [], 'a few threads: enough, or refused in a line');
}
# 70 parts, each open once more for O_DIRECT where that is used: before all else it is known whether that can be.
sub parts_with {
    my ($n, @direct) = @_;
    return run('sh', '-c', "ulimit -n $n; exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exec \"\$@\"", 'sh', $SLUICE, 'convert', $TINY,
        '-o', "$dir/n.gguf", '-r', 'q4_k_m', '-q', '-f', '--split-max-tensors', 1, @direct);
}
is_deeply([map { my $r = parts_with($_, '--direct', 'on'); $r->{rc} == 0 || ($r->{rc} == 1 && $r->{err} =~ /no more than $_ files/) ? () : $r->{err} }
    120, 150, 165, 170], [], 'parts that are open twice: all, or nothing');
is(parts_with(105, '--direct', 'off')->{rc}, 0, 'and no more are asked for than there is need of');
# Those 70 as a source, and as a side: a few are open at a time.
my $part = "$dir/n-00001-of-00070.gguf";
run_ok('made of many files', $SLUICE, 'convert', $part, '-o', "$dir/one.gguf", '-r', 'copy', '-q');
like(with_files(64, $SLUICE, @$_)->{out}, qr/^(70 tensors equal, 0 different|ok .* blocks of 70 tensors made again)/m,
    "$_->[0]: more files than may be open") for ['verify', "$dir/one.gguf", '--source', $part], ['diff', $part, "$dir/one.gguf"];
run_ok('smaller ones', 'sh', '-c', 'ulimit -f 12288; exec "$@"', 'sh', $SLUICE, 'convert', $TINY, '-o', "$dir/f.gguf", '-r', 'q4_k_m', '-q', '--split-max-size', '5M');
unlink glob "$dir/*";

# ---- a folder that cannot be written
SKIP: {
    skip 'root may write everywhere', 1 if $> == 0;
    my $locked = scratch();
    chmod 0555, $locked;
    $r = run($SLUICE, 'convert', $TINY, '-o', "$locked/x.gguf", '--recipe', 'q8_0');
    ok($r->{rc} == 1 && $r->{err} =~ /\Q$locked\E/, 'a folder that cannot be written') or diag("exit $r->{rc} $r->{err}");
    chmod 0755, $locked;
}

# ---- a source that shrinks while it is read
my $gone = scratch();
my $copy = copy_checkpoint($TINY, "$gone/c", 'model-00003-of-00003.safetensors');
faults_at("$gone/faults");
fault(hold => 1, path => 'model-00003', from => 100_000);
my $p = do {
    local %ENV = (%ENV, %{ faults_env() });
    start($SLUICE, 'convert', $copy, '-o', "$gone/x.gguf", '--recipe', 'q8_0', '--io', 'pread', '--threads', '1', '--task-size', '500K');
};
ok(await_held(sub { waitpid($p->{pid}, POSIX::WNOHANG()) }), 'a read of the last shard is on its way');
truncate "$copy/model-00003-of-00003.safetensors", 100_000;
no_fault();
finish($p);
ok($p->{rc} == 7 && $p->{err} =~ /model-00003/, 'a shard cut short while it is read') or diag("exit $p->{rc} $p->{err}");
ok(!-e "$gone/x.gguf", 'no output');

done_testing();
