# Importance matrices through the whole program: every tensor's hash against
# llama-quantize's, the formats against each other, what is refused and how.
use strict;
use warnings;
use SluiceTest;
use Test::More;

my $IMATRIX = "$TINY/imatrix.legacy-layout.dat";
my @PLAN = ('--layout', 'legacy', '--rules', '2025');
my $dir = scratch();

sub convert {
    my ($name, $out, @options) = @_;
    return run_ok($name, $SLUICE, 'convert', $TINY, '-o', $out, @options);
}

sub differing {
    my ($got, $want) = @_;
    return ["no tensors"] if !%$want;
    return [grep { ($got->{$_} // '') ne ($want->{$_} // '') } sort keys %{ { %$got, %$want } }];
}

# llama-quantize's bytes under every mixture.
my @golden = map { m{([^/]+)\.xxh64$} ? $1 : () } sort glob "$TINY/golden/imatrix/*.xxh64";
ok(@golden == 15, 'golden hashes of 15 mixtures');
for my $m (@golden) {
    convert($m, "$dir/$m.gguf", '--recipe', lc $m, @PLAN, '--imatrix', $IMATRIX);
    is_deeply(differing(hashes("$dir/$m.gguf"), golden("$TINY/golden/imatrix/$m.xxh64")), [],
        "$m: every tensor is llama-quantize's");
}

# The weights do something, and the comparison can fail.
convert('Q4_K_M without imatrix', "$dir/plain.gguf", '--recipe', 'q4_k_m', @PLAN);
my $plain = hashes("$dir/plain.gguf");
ok(@{ differing($plain, golden("$TINY/golden/imatrix/Q4_K_M.xxh64")) } > 30, 'without the imatrix most tensors are others');

# llama-quantize's metadata.
sub kv {
    my ($file, $key) = @_;
    my $r = run($SLUICE, 'inspect', '--kv', $key, $file);
    chomp $r->{out};
    return $r->{rc} ? undef : $r->{out};
}
is(kv("$dir/Q4_K_M.gguf", 'quantize.imatrix.file'), $IMATRIX, 'quantize.imatrix.file');
is(kv("$dir/Q4_K_M.gguf", 'quantize.imatrix.dataset'), 'calib.txt', 'quantize.imatrix.dataset');
is(kv("$dir/Q4_K_M.gguf", 'quantize.imatrix.entries_count'), 44, 'quantize.imatrix.entries_count');
is(kv("$dir/Q4_K_M.gguf", 'quantize.imatrix.chunks_count'), 160, 'quantize.imatrix.chunks_count');
like(kv("$dir/Q4_K_M.gguf", 'sluice.imatrix'), qr/^[0-9a-f]{32}$/, 'the hash of the imatrix');
is(kv("$dir/plain.gguf", 'quantize.imatrix.file'), undef, 'none of it without one');
my $long = "$dir/" . 'x' x 140 . '.dat';
spit($long, slurp($IMATRIX));
convert('a long path', "$dir/long.gguf", '--recipe', 'q4_k_m', @PLAN, '--imatrix', $long);
is(kv("$dir/long.gguf", 'quantize.imatrix.file'), substr($long, 0, 127), 'its name is cut at 127 bytes, as there');

# Both formats give the same bytes, there and back.
is((json_lines(run_ok('to GGUF', $SLUICE, 'imatrix', $IMATRIX, '--convert', "$dir/im.gguf", '--json')->{out}))[0]{path}, $IMATRIX, 'and shown');
run_ok('and back', $SLUICE, 'imatrix', "$dir/im.gguf", '--convert', "$dir/im.dat");
run_ok('GGUF again', $SLUICE, 'imatrix', "$dir/im.dat", '--convert', "$dir/im2.gguf", '--format', 'gguf');
for my $im ("$dir/im.gguf", "$dir/im.dat", "$dir/im2.gguf") {
    convert("Q2_K with $im", "$dir/again.gguf", '--recipe', 'q2_k', @PLAN, '--imatrix', $im, '--force', '--threads', '3');
    is_deeply(differing(hashes("$dir/again.gguf"), golden("$TINY/golden/imatrix/Q2_K.xxh64")), [], 'the same bytes');
}
run_ok("a name that says which format: $_->[1]", $SLUICE, 'imatrix', "$dir/$_->[0]", '--convert', "$dir/$_->[1]") for ['im.gguf', 'copy.gguf'], ['im.dat', 'copy.dat'];
is(substr(slurp("$dir/copy.$_"), 0, 4) eq 'GGUF', $_ eq 'gguf', "the name's format: $_") for qw(gguf dat);
fails('a folder that is not there', 2, qr{/none/im\.gguf\.partial: cannot be made: No such file}, $SLUICE, 'imatrix', $IMATRIX, '--convert', "$dir/none/im.gguf");
fails('an existing file is not replaced', 13, qr/im\.dat exists already; choose another name/, $SLUICE, 'imatrix', "$dir/im.gguf", '--convert', "$dir/im.dat");
my ($a) = json_lines(run_ok('as JSON', $SLUICE, 'imatrix', $IMATRIX, '--json')->{out});
my ($b) = json_lines(run_ok('as JSON', $SLUICE, 'imatrix', "$dir/im.gguf", '--json')->{out});
is_deeply([@$a{qw(format chunks values)}, scalar @{ $a->{entries} }, @{ $a->{datasets} }], ['dat', 160, 46336, 44, 'calib.txt'], 'what is in it');
is_deeply([@$b{qw(format chunks values)}, scalar @{ $b->{entries} }, @{ $b->{datasets} }], ['gguf', 160, 46336, 44, 'calib.txt'], 'the same in GGUF');
my %mean = map { $_->{name} => $_->{mean} } @{ $a->{entries} };
is_deeply([grep { $mean{ $_->{name} } != $_->{mean} } @{ $b->{entries} }], [], 'the same means');
like(run_ok('as text', $SLUICE, 'imatrix', "$dir/im.gguf", '--entries')->{out}, qr/44 entries.*blk\.0\.attn_output\.weight/s, 'entries listed');

# Llama's GGUF reader of another house reads it.
SKIP: {
    my $r = -x "$TOP/build/venv/bin/python" ? run("$TOP/build/venv/bin/python", '-c', <<'PY', "$dir/im.gguf") : { rc => 1 };
import sys, gguf
r = gguf.GGUFReader(sys.argv[1])
assert r.fields["general.type"].contents() == "imatrix"
assert r.fields["imatrix.chunk_count"].contents() == 160
t = {x.name: x for x in r.tensors}
assert len(t) == 88
a, b = t["blk.1.ffn_up_exps.weight.in_sum2"], t["blk.1.ffn_up_exps.weight.counts"]
print(float(a.data.sum()) / float(b.data.flat[0]) / a.data.size)
PY
    skip('no gguf-py', 1) if $r->{rc};
    ok(abs($r->{out} / $mean{'blk.1.ffn_up_exps.weight'} - 1) < 1e-4, 'gguf-py finds the same mean');
}

# --include-weights, --exclude-weights: tensor by tensor.
convert('only some', "$dir/inc.gguf", '--recipe', 'q4_k_m', @PLAN, '--imatrix', $IMATRIX, '--include-weights', 'ffn_down', '--include-weights', 'attn_output');
my $some = hashes("$dir/inc.gguf");
my $full = golden("$TINY/golden/imatrix/Q4_K_M.xxh64");
my @weighed = grep { $plain->{$_} ne $full->{$_} } sort keys %$full;
is_deeply([grep { $some->{$_} ne (/ffn_down|attn_output/ ? $full : $plain)->{$_} } @weighed], [], 'the named ones with weights, the others without');
is(kv("$dir/inc.gguf", 'quantize.imatrix.entries_count'), 11, 'entries that are left');
convert('all but some', "$dir/exc.gguf", '--recipe', 'q4_k_m', @PLAN, '--imatrix', $IMATRIX, '--exclude-weights', 'ffn_', '--exclude-weights', 'attn_q');
$some = hashes("$dir/exc.gguf");
is_deeply([grep { $some->{$_} ne (/ffn_|attn_q/ ? $plain : $full)->{$_} } @weighed], [], 'the named ones without');
fails('not both', 2, qr/cannot be used together/, $SLUICE, 'convert', $TINY, '-o', "$dir/x.gguf", '--recipe', 'q4_k_m', '--imatrix', $IMATRIX, '--include-weights', 'a', '--exclude-weights', 'b');
fails('not without imatrix', 2, qr/need --imatrix/, $SLUICE, 'convert', $TINY, '-o', "$dir/x.gguf", '--recipe', 'q4_k_m', '--include-weights', 'a');
like(convert('nothing left is no imatrix', "$dir/none.gguf", '--recipe', 'iq4_xs', @PLAN, '--imatrix', $IMATRIX, '--include-weights', 'nowhere')->{err},
    qr/note: --include-weights or --exclude-weights leave nothing of the imatrix; quantized without one\n/, 'and that is told');
fails('nor for a recipe that needs one', 2, qr/recipe q2_k_s needs an importance matrix; .* leave nothing of the one given: /,
    $SLUICE, 'convert', $TINY, '-o', "$dir/x.gguf", '--recipe', 'q2_k_s', @PLAN, '--imatrix', $IMATRIX, '--exclude-weights', 'blk.');
convert('IQ4_XS without', "$dir/none2.gguf", '--recipe', 'iq4_xs', @PLAN);
is_deeply(differing(hashes("$dir/none.gguf"), hashes("$dir/none2.gguf")), [], 'as without one');

# From a GGUF source; units of other sizes.
convert('F32', "$dir/f32.gguf", '--recipe', 'f32', @PLAN);
run_ok('quantize', $SLUICE, 'quantize', "$dir/f32.gguf", "$dir/q.gguf", 'Q3_K_M', '--rules', '2025', '--imatrix', $IMATRIX);
is_deeply(differing(hashes("$dir/q.gguf"), golden("$TINY/golden/imatrix/Q3_K_M.xxh64")), [], 'sluice quantize: the same bytes');
convert('small tasks', "$dir/small.gguf", '--recipe', 'q3_k_m', @PLAN, '--imatrix', $IMATRIX, '--task-size', '65536', '--threads', '2', '--backend', 'portable');
is_deeply(differing(hashes("$dir/small.gguf"), golden("$TINY/golden/imatrix/Q3_K_M.xxh64")), [], 'small tasks, another backend: the same bytes');

# Today's layout: attn_k_b and attn_v_b are not in this imatrix.
my $mla = convert('MLA layout', "$dir/mla.gguf", '--recipe', 'q4_k_m', '--imatrix', $IMATRIX);
like($mla->{err}, qr/8 of 47 quantized tensors have no data in the imatrix and are quantized without: blk\.0\.attn_k_b\.weight, .*\.\.\.\n/, 'tensors without data are told');
like($mla->{err}, qr/made with a model in the legacy layout; --layout legacy uses all of it/, 'and why');
my $q = run($SLUICE, 'convert', $TINY, '-o', "$dir/mla2.gguf", '--recipe', 'q4_k_m', '--imatrix', $IMATRIX, '--quiet');
unlike(run_ok('convert', $SLUICE, 'convert', $TINY, '-o', "$dir/mla3.gguf", '--recipe', 'q4_k_m', @PLAN, '--imatrix', $IMATRIX)->{err}, qr/note/, 'nothing to note in the layout it was made with');
is($q->{err}, '', 'not with --quiet');
run_ok('F32 in today\'s layout', $SLUICE, 'convert', $TINY, '-o', "$dir/mla-f32.gguf", '--recipe', 'f32', '-q');
like(run_ok('a GGUF source', $SLUICE, 'quantize', "$dir/mla-f32.gguf", "$dir/mla4.gguf", 'q4_k_m', '--imatrix', $IMATRIX)->{err},
    qr/made with a model in the legacy layout$/m, 'has its own layout');
fails('and cannot have another', 2, qr/; it was made in the legacy layout$/, $SLUICE, 'quantize', "$dir/mla-f32.gguf", "$dir/no.gguf", 'iq2_xs', '--imatrix', $IMATRIX);

# Types that need data, refused before anything is made.
my $r = fails('Q2_K_S without imatrix', 2, qr/recipe q2_k_s needs an importance matrix; give one with --imatrix FILE, or --imatrix synthetic where there is none: \d+ tensors/,
    $SLUICE, 'convert', $TINY, '-o', "$dir/no.gguf", '--recipe', 'q2_k_s', @PLAN);
my ($count) = $r->{err} =~ /(\d+) tensors/;
my $named = 0;
for ($r->{err} =~ /\bblk\.([0-9,-]+)\.\w+\.weight \(q2_k\)/g) {
    $named += /(\d+)-(\d+)/ ? $2 - $1 + 1 : 1 for split /,/;
}
ok($named == $count && $count > 20, "all $named tensors are named, those of several blocks together");
unlike($r->{err}, qr/more$/, 'none is left out');
fails('Q2_K_S with a part', 2, qr/has no data for 3 tensors whose types need.*: blk\.1-3\.ffn_up_exps\.weight \(q2_k\)$/,
    $SLUICE, 'convert', $TINY, '-o', "$dir/no.gguf", '--recipe', 'q2_k_s', @PLAN, '--imatrix', $IMATRIX, '--exclude-weights', 'ffn_up_exps');
fails('IQ2_XS in today\'s layout', 2, qr/4 tensors .*attn_v_b\.weight \(iq2_xs\).*; it was made in the legacy layout: use --layout legacy$/,
    $SLUICE, 'convert', $TINY, '-o', "$dir/no.gguf", '--recipe', 'iq2_xs', '--imatrix', $IMATRIX);
fails('blocks that are not neighbours', 2, qr/ 22 tensors .*: blk\.1,3\.attn_kv_a_mqa\.weight \(q2_k\), .*, blk\.1,3\.ffn_up_shexp\.weight \(q2_k\)$/,
    $SLUICE, 'convert', $TINY, '-o', "$dir/no.gguf", '--recipe', 'q2_k_s', @PLAN, '--imatrix', $IMATRIX, map { ('--exclude-weights', "blk.$_.") } 1, 3);
fails('plan of weights from words that leave some out', 2, qr/leave 3 tensors without importance weights.*: blk\.1-3\.ffn_up_exps\.weight \(q2_k\)$/,
    $SLUICE, 'plan', $TINY, '--recipe', 'q2_k_s', @PLAN, '--imatrix', 'synthetic', '--exclude-weights', 'ffn_up_exps');
fails('sluice plan, too', 2, qr/has no data for 3 tensors/,
    $SLUICE, 'plan', $TINY, '--recipe', 'q2_k_s', @PLAN, '--imatrix', $IMATRIX, '--exclude-weights', 'ffn_up_exps');
ok(!-e "$dir/no.gguf" && !glob("$dir/*no.gguf*"), 'nothing was made');
like(run_ok('plan without', $SLUICE, 'plan', $TINY, '--recipe', 'q2_k_s', @PLAN)->{out}, qr/others need an importance matrix/, 'plan shows sizes all the same');
unlike(run_ok('plan with', $SLUICE, 'plan', $TINY, '--recipe', 'q2_k_s', @PLAN, '--imatrix', $IMATRIX)->{out}, qr/others need an importance matrix/, 'plan with one says nothing');

# A DAT file put together by hand. entry: [name, ncall, values].
sub dat {
    my ($path, $entries, $tail) = @_;
    my $text = pack 'l<', scalar @$entries;
    $text .= pack('l</a l< l<', @$_[0, 1], scalar @{ $_->[2] }) . pack('f<*', @{ $_->[2] }) for @$entries;
    spit($path, $text . ($tail // ''));
    return $path;
}
my @fake = ([ 'blk.0.ffn_up.weight', 4, [ (1) x 512 ] ]);
my @go = ($SLUICE, 'convert', $TINY, '-o', "$dir/no.gguf", '--recipe', 'q4_k_m', @PLAN, '--imatrix');
fails('another size', 2, qr/tensor 'blk\.0\.ffn_up\.weight' has 300 values there, 512 are expected/, @go,
    dat("$dir/size.dat", [ [ 'blk.0.ffn_up.weight', 4, [ (1) x 300 ] ] ]));
fails('attn_k_b of spring 2025', 2, qr/attn_k_b\.weight' has 64 values there, 512 are expected; llama\.cpp collected this tensor wrongly/,
    $SLUICE, 'convert', $TINY, '-o', "$dir/no.gguf", '--recipe', 'q4_k_m', '--imatrix',
    dat("$dir/kb.dat", [ @fake, [ 'blk.0.attn_k_b.weight', 4, [ (1) x 64 ] ] ]));
like(run_ok('token_embd of another size goes without', @go[0 .. 4], '--recipe', 'q4_k_m', @PLAN, '--imatrix',
    dat("$dir/embd.dat", [ @fake, [ 'token_embd.weight', 4, [ (1) x 7 ] ] ]))->{err}, qr/token_embd\.weight has 7 values in the imatrix, 512 are expected; it is quantized without/, 'and that is told');
unlink "$dir/no.gguf", "$dir/no.gguf.xxh64";
fails('another model', 2, qr/has data for none of the \d+ tensors/, @go, dat("$dir/other.dat", [ [ 'blk.77.x.weight', 1, [1] ] ]));
run_ok('its model, but nothing of what is quantized', $SLUICE, 'convert', $TINY, '-o', "$dir/edge.gguf", '-q', '--recipe', 'f16', '--token-embedding-type', 'q8_0',
    @PLAN, '--imatrix', $IMATRIX);
run_ok('and proved', $SLUICE, 'verify', "$dir/edge.gguf", '--source', $TINY, '--imatrix', $IMATRIX);
fails('NaN', 7, qr/entry 'blk\.0\.ffn_up\.weight': value 3 and 0 others are negative, NaN or infinite/, @go,
    dat("$dir/nan.dat", [ [ 'blk.0.ffn_up.weight', 4, [ 1, 1, 1, 'nan', (1) x 508 ] ] ]));
fails('a negative value', 7, qr/value 0 and 1 others/, @go, dat("$dir/neg.dat", [ [ 'blk.0.ffn_up.weight', 4, [ -1, 'inf', (1) x 510 ] ] ]));
like(run_ok('sluice imatrix shows it', $SLUICE, 'imatrix', "$dir/neg.dat")->{out}, qr/Not usable: 2 values in 1 entries/, 'and says so');
like(run_ok('with entries', $SLUICE, 'imatrix', "$dir/neg.dat", '--entries')->{out}, qr/ 4 +- +- +-  blk\.0\.ffn_up\.weight  \(2 bad values\)/, 'without a spread of bad values');
fails('but does not convert it', 7, qr/negative, NaN or infinite/, $SLUICE, 'imatrix', "$dir/neg.dat", '--convert', "$dir/neg.gguf");
fails('no such file', 7, qr/nowhere\.dat/, @go, "$dir/nowhere.dat");
fails('a model is no imatrix', 7, qr/is a GGUF file, but no imatrix/, @go, "$dir/Q2_K.gguf");
fails('text is no imatrix', 7, qr/damaged, or no imatrix/, @go, "$TINY/config.json");
fails("Git LFS's pointer", 7, qr/lfs\.dat: is a Git LFS pointer/, @go, do { spit("$dir/lfs.dat", "version https://git-lfs.github.com/spec/v1\n"); "$dir/lfs.dat" });
fails('an empty file', 7, qr/cut off, or no imatrix/, @go, do { spit("$dir/empty", ''); "$dir/empty" });
ok(!-e "$dir/no.gguf", 'nothing was made of any of them');

# verify makes the blocks again with the same weights.
for my $m (qw(Q2_K IQ4_NL IQ1_M IQ3_XXS)) {
    my $v = run_ok("$m: verify --source --imatrix", $SLUICE, 'verify', "$dir/$m.gguf", '--source', $TINY, '--imatrix', $IMATRIX, '--sample', '5%');
    like($v->{out}, qr/blocks of 66 tensors made again/, 'all tensors');
}
my $v = fails('without the imatrix', 3, qr/not all was checked/, $SLUICE, 'verify', "$dir/Q3_K_M.gguf", '--source', $TINY);
like($v->{out}, qr/^PART .*43 tensors were quantized with an importance matrix and were not made again; give it with --imatrix/m, 'says what it did not look at');
like($v->{out}, qr/blocks of 23 tensors made again/, 'looks at the others');
$v = fails('--json', 3, qr/not all/, $SLUICE, 'verify', "$dir/Q3_K_M.gguf", '--source', $TINY, '--json');
like($v->{out}, qr/43 tensors.*"message_type":"verify_unchecked".*"ok":false,"failures":0,"complete":false/s, 'says it too');
run_ok('an imatrix of the source\'s making is none of the output\'s', $SLUICE, 'quantize', "$dir/Q3_K_M.gguf", "$dir/requant.gguf", 'Q4_K_S', '--allow-requantize', '-q');
like(run_ok('all of it is checked', $SLUICE, 'verify', "$dir/requant.gguf", '--source', "$dir/Q3_K_M.gguf")->{out}, qr/blocks of 66 tensors/, 'all tensors');
run_ok('a part of the imatrix: the words are in the file', $SLUICE, 'verify', "$dir/exc.gguf", '--source', $TINY, '--imatrix', $IMATRIX);
run_ok('and the others', $SLUICE, 'verify', "$dir/inc.gguf", '--source', $TINY, '--imatrix', $IMATRIX);
run_ok('from GGUF', $SLUICE, 'verify', "$dir/q.gguf", '--source', "$dir/f32.gguf", '--imatrix', $IMATRIX);
fails('another imatrix', 2, qr/was made with another importance matrix/, $SLUICE, 'verify', "$dir/Q2_K.gguf", '--source', $TINY, '--imatrix', "$dir/im.gguf");
fails('none was used', 2, qr/was made without an importance matrix/, $SLUICE, 'verify', "$dir/plain.gguf", '--source', $TINY, '--imatrix', $IMATRIX);
my ($where) = grep { $_->[0] eq 'blk.2.ffn_gate_exps.weight' } where("$dir/Q3_K_M.gguf");
flip_byte("$dir/Q3_K_M.gguf", $where->[1] + 40, 1);
$r = run($SLUICE, 'verify', "$dir/Q3_K_M.gguf", '--source', $TINY, '--imatrix', $IMATRIX);
ok($r->{rc} == 8 && $r->{out} =~ /blk\.2\.ffn_gate_exps\.weight: block 0 .* is not what the source gives/, 'one wrong bit is noticed');
flip_byte("$dir/Q3_K_M.gguf", $where->[1] + 40, 1);

# diff: by weighted error the imatrix helps, by plain error it may not.
my ($with) = grep { $_->{message_type} eq 'diff' } json_lines(run($SLUICE, 'diff', "$dir/f32.gguf", "$dir/Q2_K.gguf", '--tensors-only', '--json', '--imatrix', $IMATRIX)->{out});
convert('Q2_K without', "$dir/q2.gguf", '--recipe', 'q2_k', @PLAN);
my ($without) = grep { $_->{message_type} eq 'diff' } json_lines(run($SLUICE, 'diff', "$dir/f32.gguf", "$dir/q2.gguf", '--tensors-only', '--json', '--imatrix', $IMATRIX)->{out});
ok($with->{weighted} > 0.1 && $with->{weighted} < 0.9 * $without->{weighted}, "weighted error of Q2_K: $with->{weighted} with the imatrix, $without->{weighted} without");
like(run($SLUICE, 'diff', $TINY, "$dir/q2.gguf", '--tensors-only', '--imatrix', "$dir/im.gguf", '--tensor', 'blk.2.ffn_up_exps.weight')->{out},
    qr/relative [0-9.]+  max [0-9.]+  cosine [0-9.]+  weighted 0\.\d+/, 'as text, against a checkpoint');

# A run that stopped goes on with the same imatrix only.
my $two = slurp($IMATRIX);
substr($two, 44, 1) = chr(ord(substr $two, 44, 1) ^ 1);
spit("$dir/two.dat", $two);
my ($x, $y) = map { my ($j) = json_lines(run($SLUICE, 'plan', $TINY, '--recipe', 'q4_k_m', @PLAN, '--imatrix', $_, '--json')->{out}); $j->{fingerprint} } $IMATRIX, "$dir/two.dat";
ok($x && $y && $x ne $y, 'the fingerprint depends on the imatrix\'s content');

done_testing();
