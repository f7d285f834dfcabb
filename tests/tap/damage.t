# Damaged and hostile checkpoints: exit 7 (or 6 for what is not known), one line
# that names the file or tensor, no output, no crash.
use strict;
use warnings;
use JSON::PP;
use SluiceTest;
use Test::More;

my $json = JSON::PP->new->canonical;
my @shard = map { sprintf 'model-%05d-of-00003.safetensors', $_ } 1 .. 3;

# Changes a shard's header; its data stays.
sub edit_header {
    my ($path, $change) = @_;
    my $text = slurp($path);
    my $n = unpack 'Q<', $text;
    my $header = $json->decode(substr $text, 8, $n);
    $change->($header);
    my $new = $json->encode($header);
    spit($path, pack('Q<', length $new) . $new . substr $text, 8 + $n);
}

my $n = 0;
sub case {
    my ($name, $rc, $pattern, $break) = @_;
    my $dir = scratch();
    my $ck = copy_checkpoint($TINY, "$dir/ck", @shard);
    $break->($ck);
    my $r = run('timeout', '60', $SLUICE, 'convert', $ck, '-o', "$dir/x.gguf", '--recipe', 'q4_k_m');
    my @lines = split /\n/, $r->{err};
    ok($r->{rc} == $rc && $r->{err} =~ $pattern, "$name: exit $rc") or diag("exit $r->{rc}\n$r->{err}");
    ok(!-e "$dir/x.gguf", "$name: no output");
    ok($r->{err} !~ /[^\x20-\x7e\n\x80-\xff]/, "$name: no control characters in the message");
    system 'rm', '-rf', $dir;
}

my $expert = 'model.layers.1.mlp.experts.3.up_proj.weight';
sub shard_of {
    my ($ck, $tensor) = @_;
    return "$ck/" . $json->decode(slurp("$ck/model.safetensors.index.json"))->{weight_map}{$tensor};
}

# ---- files
case('a missing shard', 7, qr/model-00002-of-00003/, sub { unlink "$_[0]/$shard[1]" });
for (0 .. 2) { # the second one's last scale is in the third
    my $r = run($SLUICE, 'convert', "$TINY/$shard[$_]", '-o', scratch() . '/x.gguf', '--recipe', 'q4_k_m');
    ok($r->{rc} == 7 && $r->{err} =~ m{/\Q$shard[$_]\E is one shard of a checkpoint, and .* in (others|another); give the folder, \Q$TINY\E$}m,
        'one shard in place of the folder') or diag($r->{err});
}
case('an empty shard', 7, qr/model-00002-of-00003/, sub { spit("$_[0]/$shard[1]", '') });
case('a shard cut short', 7, qr/model-00003-of-00003/, sub { truncate "$_[0]/$shard[2]", (-s "$_[0]/$shard[2]") - 1 });
case('bytes after the last tensor', 7, qr/model-00003-of-00003/, sub {
    open my $f, '>>:raw', "$_[0]/$shard[2]" or die; print $f 'x' });
case('no index, and a shard is missing', 7, qr{/ck: $shard[0] is missing \(1 of 3 shards are\)}, sub { unlink "$_[0]/model.safetensors.index.json"; unlink "$_[0]/$shard[0]" });
case('no config', 7, qr{/ck: config\.json is missing; a checkpoint's folder holds}, sub { mkdir "$_[0]/x"; rename "$_[0]/config.json", "$_[0]/x/config.json" });
case("another model's config", 7, qr{/ck: scale .* weight_block_size; is it of this model\?\)$}m, sub {
    spit("$_[0]/config.json", slurp("$TOP/tests/data/deepseek-v2-lite-config.json")) });
case('a config that is cut off', 7, qr{/ck: config\.json: not valid JSON at byte 18: expected a value, found its end$}m, sub { spit("$_[0]/config.json", '{"architectures":[') });
my $page = "<!DOCTYPE html>\n<title>401 Unauthorized</title>\n";
case('a page in place of a shard', 7, qr{/ck: $shard[1]: not a safetensors file: .* begins with '<!DOCTYPE html>'; download it again$}m,
    sub { spit("$_[0]/$shard[1]", $page) });
case('a page in place of the config', 7, qr{/ck: config\.json: .* at byte 0: expected a value, found '<!DOCTYPE html>'$}m,
    sub { spit("$_[0]/config.json", $page) });
case("Git LFS's pointer in place of a shard", 7, qr{/ck: $shard[1]: is a Git LFS pointer, .*git lfs pull}, sub {
    spit("$_[0]/$shard[1]", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4302\n") });
case('or of the tokenizer', 7, qr{/ck: tokenizer\.json: is a Git LFS pointer, .*git lfs pull}, sub {
    spit("$_[0]/tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 127344\n") });
for my $file ($shard[1], 'tokenizer.json') { # of its whole size from the beginning on
    case("aria2 is not done with $file", 7, qr{/ck/\Q$file\E: its download has not ended, for \Q$file\E\.aria2 is there}, sub { spit("$_[0]/$file.aria2", 'x') });
}
# Some programs leave no such file: their shard has holes until it is whole.
SKIP: {
    my $ck = copy_checkpoint($TINY, scratch() . '/ck', @shard);
    my @plan = ($SLUICE, 'plan', $ck, '-r', 'q4_k_m');
    unlike(run(@plan)->{err}, qr/a hole of/, 'a whole checkpoint has no hole');
    for (1, 2) {
        my $text = slurp("$ck/$shard[$_]");
        open my $f, '>:raw', "$ck/$shard[$_]" or die $!;
        print $f substr $text, 0, 2_000_000;
        seek $f, 5_000_000, 0 or die $!;
        print $f substr $text, 5_000_000;
        close $f or die $!;
    }
    skip 'no holes in files here', 2 if (stat "$ck/$shard[1]")[12] * 512 > 7_000_000;
    my $hole = qr{/ck/\Q$shard[1]\E: a hole of [23]\.\d MB from byte 20\d{5} on, which reads as zeros, and likewise in 1 other; is the download complete\?$}m;
    like(run(@plan)->{err}, qr/^sluice: warning: .*$hole/m, 'a shard with a hole: a warning');
    my ($said) = json_lines(run(@plan, '--json')->{out});
    like("@{ $said->{warnings} }", $hole, 'in JSON, too');
}
case('a copy of a shard in place of another', 7, qr{ is in two files, $shard[0] and $shard[1]; is one a copy}, sub {
    spit("$_[0]/$shard[1]", slurp("$_[0]/$shard[0]")) });
case('one shard under the name of the whole', 7, qr{/ck: \d+ tensors missing .*; is the download complete, and config\.json of the same model\?$}m,
    sub { unlink map { "$_[0]/$_" } @shard[1, 2], 'model.safetensors.index.json'; rename "$_[0]/$shard[0]", "$_[0]/model.safetensors" });
case('no tokenizer', 7, qr/tokenizer/, sub { unlink "$_[0]/tokenizer.json" });
case('a folder in place of a shard', 7, qr/model-00001/, sub { unlink "$_[0]/$shard[0]"; mkdir "$_[0]/$shard[0]" });

# ---- safetensors headers
case('header length zero', 7, qr{/ck: model-00001\S*: .* 0 is less than 2; is the download complete}, sub {
    my $t = slurp("$_[0]/$shard[0]"); substr($t, 0, 8) = pack 'Q<', 0; spit("$_[0]/$shard[0]", $t) });
case('header length past the end', 7, qr/model-00001/, sub {
    my $t = slurp("$_[0]/$shard[0]"); substr($t, 0, 8) = pack 'Q<', 1 << 40; spit("$_[0]/$shard[0]", $t) });
case('header length that wraps', 7, qr/model-00001/, sub {
    my $t = slurp("$_[0]/$shard[0]"); substr($t, 0, 8) = "\xff" x 8; spit("$_[0]/$shard[0]", $t) });
case('a header that is no JSON', 7, qr/model-00001/, sub { flip_byte("$_[0]/$shard[0]", 8, 0x55) });
case('a header nested deeply', 7, qr/model-00001/, sub {
    my $deep = '{"a":' . '[' x 200000; spit("$_[0]/$shard[0]", pack('Q<', length $deep) . $deep) });
case('offsets past the end', 7, qr/\Q$expert\E/, sub {
    edit_header(shard_of($_[0], $expert), sub { $_[0]{$expert}{data_offsets}[1] = 1 << 50 }) });
case('offsets reversed', 7, qr/\Q$expert\E/, sub {
    edit_header(shard_of($_[0], $expert), sub { @{ $_[0]{$expert}{data_offsets} } = reverse @{ $_[0]{$expert}{data_offsets} } }) });
case('tensors that overlap', 7, qr/./, sub {
    edit_header(shard_of($_[0], $expert), sub { $_ -= 64 for @{ $_[0]{$expert}{data_offsets} } }) });
case('a shape that does not fit its bytes', 7, qr/\Q$expert\E/, sub {
    edit_header(shard_of($_[0], $expert), sub { $_[0]{$expert}{shape}[0] *= 2 }) });
case('a shape whose product wraps', 7, qr/\Q$expert\E/, sub {
    edit_header(shard_of($_[0], $expert), sub { $_[0]{$expert}{shape} = [4294967296, 4294967296] }) });
case('a negative dimension', 7, qr/\Q$expert\E/, sub {
    edit_header(shard_of($_[0], $expert), sub { $_[0]{$expert}{shape}[0] = -256 }) });
case('a dimension that is text', 7, qr/\Q$expert\E/, sub {
    edit_header(shard_of($_[0], $expert), sub { $_[0]{$expert}{shape}[0] = 'many' }) });
case('nine dimensions', 6, qr/\Q$expert\E/, sub {
    edit_header(shard_of($_[0], $expert), sub { $_[0]{$expert}{shape} = [256, 512, (1) x 7] }) });
case('a dtype that nobody knows', 6, qr/\Q$expert\E/, sub {
    edit_header(shard_of($_[0], $expert), sub { $_[0]{$expert}{dtype} = 'F3_E1M1' }) });
case('control characters in a name', 7, qr/./, sub {
    edit_header("$_[0]/$shard[0]", sub { $_[0]{"evil\e[2J\nname"} = delete $_[0]{(grep { /embed|lm_head/ } keys %{ $_[0] })[0]} }) });

# ---- index
case('a tensor that the index does not know', 7, qr/./, sub {
    edit_json("$_[0]/model.safetensors.index.json", sub { delete $_[0]{weight_map}{$expert} }) });
case('a tensor that no shard has', 7, qr/extra\.weight/, sub {
    edit_json("$_[0]/model.safetensors.index.json", sub { $_[0]{weight_map}{'model.layers.0.extra.weight'} = $shard[0] }) });
case('an index that leaves the folder', 7, qr/index|\.\./, sub {
    my ($ck) = @_;
    rename "$ck/$shard[0]", "$ck/../$shard[0]";
    edit_json("$ck/model.safetensors.index.json", sub { $_ eq $shard[0] and $_ = "../$shard[0]" for values %{ $_[0]{weight_map} } }) });
case('an absolute path in the index', 7, qr/./, sub {
    my ($ck) = @_;
    edit_json("$ck/model.safetensors.index.json", sub { $_ eq $shard[0] and $_ = "$ck/$shard[0]" for values %{ $_[0]{weight_map} } }) });
case('an index without a map', 7, qr/index/, sub { spit("$_[0]/model.safetensors.index.json", '{"metadata":{}}') });

# ---- scales and weights
case('no scale', 7, qr/experts\.3\.up_proj/, sub {
    my ($ck) = @_;
    my $scale = "${expert}_scale_inv";
    # Renamed to a tensor that conversions drop, so that the file stays whole.
    edit_header(shard_of($ck, $scale), sub { $_[0]{'model.layers.0.self_attn.rotary_emb.inv_freq'} = delete $_[0]{$scale} });
    edit_json("$ck/model.safetensors.index.json", sub {
        my $m = $_[0]{weight_map}; $m->{'model.layers.0.self_attn.rotary_emb.inv_freq'} = delete $m->{$scale} }) });
case('a scale of the wrong shape', 7, qr/experts\.3\.up_proj/, sub {
    edit_header(shard_of($_[0], "${expert}_scale_inv"), sub { $_[0]{"${expert}_scale_inv"}{shape} = [1, 8] }) });
case('a missing expert', 7, qr/experts\.3\.up_proj/, sub {
    my ($ck) = @_;
    for my $t ($expert, "${expert}_scale_inv") {
        edit_header(shard_of($ck, $t), sub { $_[0]{"model.layers.0.x$t.attention.bias"} = delete $_[0]{$t} });
        edit_json("$ck/model.safetensors.index.json", sub {
            my $m = $_[0]{weight_map}; $m->{"model.layers.0.x$t.attention.bias"} = delete $m->{$t} });
    } });
case('a tensor that two are made of, listed once', 7,
    qr/: 1 tensor missing from the checkpoint: model\.layers\.1\.self_attn\.kv_b_proj\.weight; is the download/m, sub {
    my ($ck) = @_;
    my $kv_b = 'model.layers.1.self_attn.kv_b_proj.weight';
    # Renamed to a tensor that conversions drop, its scale with it.
    for my $suffix ('', '_scale_inv') {
        my ($t, $as) = ("$kv_b$suffix", "model.layers.0.xkv_b.attention.bias$suffix");
        edit_header(shard_of($ck, $t), sub { $_[0]{$as} = delete $_[0]{$t} });
        edit_json("$ck/model.safetensors.index.json", sub { my $m = $_[0]{weight_map}; $m->{$as} = delete $m->{$t} });
    } });

case('no head, and no word of tied embeddings', 7, qr{/ck: 1 tensor missing .*: lm_head\.weight; .* "tie_word_embeddings": true$}m, sub {
    my ($ck) = @_;
    my ($t, $as) = ('lm_head.weight', 'model.layers.1.xlm_head.attention.bias');
    edit_header(shard_of($ck, $t), sub { $_[0]{$as} = delete $_[0]{$t} });
    edit_json("$ck/model.safetensors.index.json", sub { my $m = $_[0]{weight_map}; $m->{$as} = delete $m->{$t} });
});

# The source is well, the type is not for it: exit 6, and the advice helps.
sub enlarge {
    my $t = 'model.embed_tokens.weight';
    my $path = shard_of($_[0], $t);
    my $text = slurp($path);
    my $len = unpack 'Q<', $text;
    my $h = $json->decode(substr $text, 8, $len)->{$t};
    die $h->{dtype} if $h->{dtype} ne 'BF16';
    substr($text, 8 + $len + $h->{data_offsets}[0] + 2 * 1000, 2) = pack 'v', 0x7f00;
    spit($path, $text);
}
case('weights too large for the type', 6,
    qr/token_embd\.weight.*embed_tokens.*model-0000\d-of-00003.*too large for q4_k.*--tensor-type token_embd\.weight=bf16/, \&enlarge);
{
    my $d = scratch();
    enlarge(copy_checkpoint($TINY, "$d/ck", @shard));
    run_ok('the advice is good', $SLUICE, 'convert', "$d/ck", '-o', "$d/x.gguf", '--recipe', 'q4_k_m', '--tensor-type', 'token_embd.weight=bf16');
}
for my $code (0x7f, 0xff) {
    case(sprintf('an FP8 NaN (0x%02x) in the weights', $code), 7, qr/experts\.3\.up_proj/, sub {
        my $path = shard_of($_[0], $expert);
        my $text = slurp($path);
        my $len = unpack 'Q<', $text;
        my $at = 8 + $len + $json->decode(substr $text, 8, $len)->{$expert}{data_offsets}[0] + 777;
        substr($text, $at, 1) = chr $code;
        spit($path, $text) });
}
for my $bits ([nan => 0x7fc00000], [infinity => 0x7f800000]) {
    case("a scale that is $bits->[0]", 7, qr/experts\.3\.up_proj/, sub {
        my $path = shard_of($_[0], "${expert}_scale_inv");
        my $text = slurp($path);
        my $len = unpack 'Q<', $text;
        my $at = 8 + $len + $json->decode(substr $text, 8, $len)->{"${expert}_scale_inv"}{data_offsets}[0];
        substr($text, $at, 4) = pack 'V', $bits->[1];
        spit($path, $text) });
}

# ---- config
case('an unknown model', 6, qr/BambooForCausalLM/, sub {
    edit_json("$_[0]/config.json", sub { $_[0]{architectures} = ['BambooForCausalLM'] }) });
case('more layers than there are', 7, qr/layers\.4\./, sub { edit_json("$_[0]/config.json", sub { $_[0]{num_hidden_layers} = 5 }) });
case('2^40 experts', 7, qr/./, sub { edit_json("$_[0]/config.json", sub { $_[0]{n_routed_experts} = 1 << 40 }) });
case('no heads', 7, qr/./, sub { edit_json("$_[0]/config.json", sub { $_[0]{num_attention_heads} = 0 }) });
case('heads that do not divide', 7, qr/./, sub { edit_json("$_[0]/config.json", sub { $_[0]{num_key_value_heads} = 7; $_[0]{num_attention_heads} = 7 }) });
case('a block size of zero', 7, qr/./, sub {
    edit_json("$_[0]/config.json", sub { $_[0]{quantization_config}{weight_block_size} = [0, 0] }) });
case('another FP8 format', 6, qr/./, sub { edit_json("$_[0]/config.json", sub { $_[0]{quantization_config}{quant_method} = 'gptq' }) });
case('a tokenizer as large as none is', 7, qr{/ck: tokenizer\.json has 134217729 bytes: expected at most 134217728$}m, sub { truncate "$_[0]/tokenizer.json", (128 << 20) + 1 });
case('a tokenizer that is no JSON', 7, qr/tokenizer/, sub { spit("$_[0]/tokenizer.json", '{') });
case('a token id past the vocabulary', 7, qr/token/, sub {
    edit_json("$_[0]/tokenizer.json", sub { $_[0]{model}{vocab}{"!"} = 4000000000 }) });

# ---- a GGUF file as source
my $dir = scratch();
run_ok('a GGUF source', $SLUICE, 'convert', $TINY, '-o', "$dir/f.gguf", '--recipe', 'f32');
my $whole = slurp("$dir/f.gguf");
my %gguf = (
    'cut short'             => substr($whole, 0, -4096),
    'only a magic'          => 'GGUF',
    'version 1'             => 'GGUF' . pack('V', 1) . substr($whole, 8),
    '2^60 tensors'          => substr($whole, 0, 8) . pack('Q<', 1 << 60) . substr($whole, 16),
    '2^60 keys'             => substr($whole, 0, 16) . pack('Q<', 1 << 60) . substr($whole, 24),
    'a key of 2^63 bytes'   => substr($whole, 0, 24) . pack('Q<', 1 << 63) . substr($whole, 32),
    'zeros'                 => "\0" x 4096,
);
for my $name (sort keys %gguf) {
    spit("$dir/bad.gguf", $gguf{$name});
    my $r = run($SLUICE, 'quantize', "$dir/bad.gguf", "$dir/out.gguf", 'Q4_K_M');
    my $want = $name =~ /version/ ? 6 : 7;
    ok($r->{rc} == $want && $r->{err} =~ /bad\.gguf/, "GGUF, $name: exit $want") or diag("exit $r->{rc} $r->{err}");
    ok(!-e "$dir/out.gguf", "GGUF, $name: no output");
}

done_testing();
