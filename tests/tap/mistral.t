# Checkpoints in Mistral's own format, in Mistral-Large-3's form (params.json, tekken.json, consolidated shards): in FP8 in blocks as
# it was published, with a scale for each tensor, and not quantized. Metadata and tokenizer against an independent computation,
# tensors against numpy and llama-quantize, files loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use JSON::PP ();
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my @small = qw(--layers 3 --dense 1 --hidden 256 --inter 512 --moe-inter 256 --experts 8 --used 2 --groups 1 --groups-used 1 --heads 4 --kv-heads 4
    --q-lora 128 --kv-lora 128 --nope 32 --rope 16 --v-dim 32 --vocab 640);
my %source = (
    block  => checkpoint("$dir/block", @small, qw(--scale-suffix weight_scale)),
    tensor => checkpoint("$dir/tensor", @small, qw(--scales tensor)),
    bf16   => checkpoint("$dir/bf16", @small, qw(--scales none --shards 1)),
);
run_ok("$_: made", python('mistral.py', 'make', $source{$_})) for sort keys %source;
spit("$source{block}/chat_template.jinja", "{% for m in messages %}{{ m.content }}{% endfor %}\n");

# ---- metadata and tensors
my %f32 = map { $_ => "$dir/$_-f32.gguf" } keys %source;
for my $form (sort keys %source) {
    run_ok('the names of DeepSeek', python('mistral.py', 'back', $source{$form}, "$dir/$form-back"));
    for my $recipe (qw(f32 bf16)) {
        my $r = run_ok("$form: $recipe", $SLUICE, 'convert', $source{$form}, '-o', "$dir/$form-$recipe.gguf", '--recipe', $recipe);
        like($r->{err}, qr/^sluice: note: the vision part \(5 tensors\) is left out/m, 'its vision is left out');
        is($r->{err} =~ /no chat template.*that of Mistral/ ? 1 : 0, $form eq 'block' ? 0 : 1, 'whether it has a chat template');
        is(run(python('reference.py', 'compare', "$dir/$form-back", "$dir/$form-$recipe.gguf"))->{out}, "equal\n", 'every bit of the tensors');
    }
    my $r = run(python('mistral.py', 'compare', $source{$form}, $f32{$form}));
    is($r->{out}, 'equal ' . ($form eq 'block' ? 47 : 46) . " keys\n", 'keys, tokens, merges and their order') or diag($r->{out}, $r->{err});
    run_ok('verify', $SLUICE, 'verify', $f32{$form}, '--source', $source{$form}, '--sample', '5%');
    my ($alone, $there) = map { plan_of($_, '--ctx', 1000) } "$source{$form}/params.json", $source{$form};
    is($alone->{source_bytes}, $there->{source_bytes}, 'params.json alone: the bytes that are there');
    is_deeply([map { $_->{cache_bytes} } grep { $_->{cache} eq 'compressed' } @{ $there->{memory} }], [(3 * 2 * (128 + 16) * 1000) x 2], 'cache');
}
# Beside a config.json its shards tell what is read; entries that are not there; the comparison can fail.
{
    my $both = copy_checkpoint($source{bf16}, "$dir/both");
    spit("$both/config.json", '{}');
    edit_json("$both/params.json", sub { delete @{ $_[0] }{qw(head_dim llama_4_scaling)}; $_[0]{tied_embeddings} = JSON::PP::true() });
    run_ok('both', $SLUICE, 'convert', $both, '-o', "$dir/both.gguf", '--recipe', 'f32', '--quiet');
    is(run(python('mistral.py', 'compare', $both, "$dir/both.gguf"))->{out}, "equal 45 keys\n", 'keys');
    is_deeply(hashes("$dir/both.gguf"), hashes($f32{bf16}), 'the same tensors: the head is kept');
    # The usual shards are read with their config.json, an index or not.
    my $usual = checkpoint("$dir/usual", qw(--arch qwen3 --layers 1));
    my $others = copy_checkpoint($source{bf16}, "$dir/others");
    rename "$usual/$_", "$others/$_" or die for grep { $_ ne 'model.safetensors.index.json' } ls($usual);
    is(plan_of($others)->{model}{architecture}, 'qwen3', 'with the shards of a config.json');
    my $r = run(python('mistral.py', 'compare', $source{bf16}, "$dir/both.gguf"));
    ok($r->{rc} == 1 && $r->{out} =~ /^keys /, 'a key fewer is noticed') or diag($r->{out});
}

# ---- the model's own sizes, as MODELS.md says; 716 GB of q8_0 is what its converter's author told
for (['q4_k_m', 405.7], ['dq3_k_m', 302.3], ['q8_0', 715.7]) {
    my ($recipe, $size) = @$_;
    my $p = plan_of("$TOP/tests/data/mistral-large-3-params.json", '--recipe', $recipe);
    is_deeply([sprintf('%.1f', $p->{tensor_bytes} / 1e9), $p->{source_bytes}, $p->{model}{weights}], [$size, 676_441_539_584, 673_421_089_792], "$recipe: $size GB");
}

# ---- a real llama.cpp
SKIP: {
    skip_without_llama(14);
    for (['block', 'Q4_K_M'], ['tensor', 'Q2_K'], ['bf16', 'IQ4_XS']) {
        my ($form, $mixture) = @$_;
        run_ok("$form: $mixture", $SLUICE, 'convert', $source{$form}, '-o', "$dir/$form-$mixture.gguf", '--recipe', $mixture, '--quiet');
        as_llama_quantize("$dir/$form-$mixture.gguf", $f32{$form}, $mixture);
    }
    iq2_xs($source{bf16}, $f32{bf16});
    run_ok('dq3_k_m', $SLUICE, 'convert', $source{block}, '-o', "$dir/block-dq3.gguf", '--recipe', 'dq3_k_m', '--quiet');
    make_text(map { "$dir/$_.gguf" } qw(block-f32 block-Q4_K_M block-dq3 tensor-Q2_K bf16-IQ4_XS iq2_xs both));
}

# ---- refused in one line
sub params { my ($change) = @_; return sub { edit_json("$_[0]/params.json", $change) } }
sub tekken { my ($change) = @_; return sub { edit_json("$_[0]/tekken.json", $change) } }
my $only = qr/of models in Mistral's own format those of Mistral-Large-3's form are supported$/;
refused($source{bf16}, 'no size', 6, qr/params\.json: no "dim": $only/, params(sub { delete $_[0]{dim} }));
refused($source{bf16}, 'a dense model', 6, qr/params\.json: no "moe\.num_experts": $only/, params(sub { delete $_[0]{moe} }));
refused($source{bf16}, 'plain heads', 6, qr/params\.json: no "q_lora_rank": $only/, params(sub { delete $_[0]{q_lora_rank} }));
refused($source{bf16}, 'a scaled rope', 6, qr/params\.json: "yarn" without "apply_scale": false is not supported$/, params(sub { $_[0]{yarn}{apply_scale} = JSON::PP::true() }));
refused($source{bf16}, 'a temperature that is none', 7, qr/has no "beta", which MistralLarge3ForCausalLM needs$/, params(sub { $_[0]{llama_4_scaling} = 'x' }));
refused($source{tensor}, 'another FP8', 6, qr/quantization\.qformat_weight is 'fp8_e5m2'; supported: fp8_e4m3$/, params(sub { $_[0]{quantization}{qformat_weight} = 'fp8_e5m2' }));
refused($source{bf16}, 'an expert fewer', 7, qr/tensor 'model\.layers\.1\.mlp\.gate\.weight': expected shape \[7, 256\] by config\.json, found \[8, 256\]$/, params(sub { $_[0]{moe}{num_experts} = 7 }));
refused($source{bf16}, 'no tokenizer', 7, qr/tekken\.json is missing, the tokenizer; download it beside params\.json$/, sub { unlink "$_[0]/tekken.json" }, 'convert');
refused($source{bf16}, 'other rules', 6, qr/tekken\.json splits texts by other rules than those that llama\.cpp has for it: '\\p\{N\}'$/, tekken(sub { $_[0]{config}{pattern} = '\p{N}' }));
refused($source{bf16}, 'another vocabulary', 7, qr/tekken\.json: "default_vocab_size" is not params\.json's "vocab_size", 640$/, tekken(sub { $_[0]{config}{default_vocab_size} = 641 }));
refused($source{bf16}, 'too few tokens', 7, qr/tekken\.json: vocab has 590 tokens; expected at least 600$/, tekken(sub { splice @{ $_[0]{vocab} }, 590 }));
refused($source{bf16}, 'a token out of place', 7, qr/tekken\.json: vocab, entry 300: expected "token_bytes" of that rank$/, tekken(sub { $_[0]{vocab}[300]{rank} = 5 }));
refused($source{bf16}, 'bytes in another order', 7, qr/tekken\.json: vocab, entry 65: expected the byte 0x41$/,
    tekken(sub { @{ $_[0]{vocab} }[65, 66] = map { { %{ $_[0]{vocab}[$_] }, rank => 131 - $_ } } 66, 65 }));
refused($source{bf16}, 'a token of no others', 7, qr/tekken\.json: no two tokens make the one of rank 599$/, tekken(sub { $_[0]{vocab}[599]{token_bytes} = 'AQIDBAU=' }));
refused($source{bf16}, 'special tokens out of place', 7, qr/tekken\.json: special_tokens, entry 3: expected a "token_str" of that rank/, tekken(sub { $_[0]{special_tokens}[3]{rank} = 9 }));
refused($source{bf16}, 'a NUL in a special token', 7, qr/tekken\.json: special_tokens, entry 3: expected a "token_str"/, tekken(sub { $_[0]{special_tokens}[3]{token_str} = "a\0" }));
refused($source{bf16}, 'none', 6, qr/tekken\.json has no "special_tokens", as before Mistral's version 11$/, tekken(sub { delete $_[0]{special_tokens} }));
refused($source{bf16}, 'no token to begin with', 7, qr/tekken\.json has no special token '<s>'$/, tekken(sub { $_[0]{special_tokens}[1]{token_str} = '<t>' }));

done_testing();
