# Checkpoints in the form of ERNIE-4.5 with experts, whose tokenizer is SentencePiece's: with shared experts and without, in BF16 and in
# FP8. Metadata and tensors against an independent computation (which the real converter's files were held against, too) and
# llama-quantize, files loaded by a real llama.cpp; and what is refused.
use strict;
use warnings;
use JSON::PP ();
use ModelTest;
use SluiceTest;
use Test::More;

need_python();
my %source = map { $_ => "$dir/$_" } qw(small large fp8);
my $yarn = 'rope_scaling={"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":32768}';
my %options = (small => [], large => [map { ('--set', $_) } qw(moe_num_shared_experts=0 tie_word_embeddings=false moe_layer_start_index=2 moe_k=null head_dim=128), $yarn],
    fp8 => ['--fp8', map { ('--set', $_) } qw(rms_norm_eps=null moe_layer_end_index=-1 rope_theta=null)]);
my %keys = (small => 26, large => 30, fp8 => 26);
run_ok("made: $_", python('ernie.py', 'make', $source{$_}, @{ $options{$_} })) for sort keys %source;

sub same { return same_by('ernie.py', @_) }

# ---- metadata and tensors
for my $form (sort keys %source) {
    my @recipes = $form eq 'fp8' ? 'f32' : qw(f32 bf16);
    converted($source{$form}, "$form-$_", '--recipe', $_, '-q') for @recipes;
    same("$form: every bit of the tensors", 'compare', $source{$form}, map { "$dir/$form-$_.gguf" } @recipes);
    is(same('keys, tokens and their order', 'keys', $source{$form}, "$dir/$form-f32.gguf"), "equal $keys{$form} keys\n", 'how many');
}
run_ok('verify', $SLUICE, 'verify', "$dir/$_-f32.gguf", '--source', $source{$_}, '--sample', '20%') for qw(small fp8);
for my $recipe (qw(dq3_k_m q4_k_m)) { # a GGUF file gives what the checkpoint gives
    converted($source{fp8}, "fp8-$recipe", '--recipe', $recipe, '-q');
    run_ok('in two steps', $SLUICE, 'convert', "$dir/fp8-f32.gguf", '-o', "$dir/steps.gguf", '--recipe', $recipe, '--quiet', '--force');
    is_deeply(hashes("$dir/steps.gguf"), hashes("$dir/fp8-$recipe.gguf"), "$recipe: the same tensors");
}

# The comparisons can fail: another bias; another score of a piece; another token.
{
    my %at = map { $_->[0] => $_->[1] } where("$dir/small-f32.gguf");
    my $data = slurp("$dir/small-f32.gguf");
    substr($data, $at{'blk.2.exp_probs_b.bias'} + 4, 4) = pack 'f<', 7;
    spit("$dir/bad.gguf", $data);
    is(run(python('ernie.py', 'compare', $source{small}, "$dir/bad.gguf"))->{out}, "blk.2.exp_probs_b.bias: bytes differ (F32)\n", 'another value');
    like(run($SLUICE, 'verify', "$dir/bad.gguf", '--source', $source{small}, '--sample', '100%')->{out}, qr/blk\.2\.exp_probs_b\.bias/, 'verify sees it');
    my $pieces = slurp("$source{small}/tokenizer.model");
    spit("$source{small}/tokenizer.model", $pieces =~ s/(\x15....)\z|(?<=\x15)(..)(?=..\x0a)/$1 || "\x01\x02"/ser);
    like(run(python('ernie.py', 'keys', $source{small}, "$dir/small-f32.gguf"))->{out}, qr/tokenizer\.ggml\.scores/, 'another score');
    spit("$source{small}/tokenizer.model", $pieces);
    my $text = slurp("$source{small}/added_tokens.json");
    spit("$source{small}/added_tokens.json", $text =~ s/mask:7/mask:8/r);
    like(run(python('ernie.py', 'keys', $source{small}, "$dir/small-f32.gguf"))->{out}, qr/tokenizer\.ggml\.tokens/, 'another token');
    spit("$source{small}/added_tokens.json", $text);
}

# ---- plans
for my $form (qw(large fp8)) {
    my @plans = map { plan_of($_, '--ctx', 1024) } $source{$form}, "$source{$form}/config.json", "$dir/$form-f32.gguf";
    # The router's matrix is F32 in these checkpoints; what is not known of the published ones is planned as BF16.
    is($plans[1]{source_bytes} + ($form eq 'large' ? 1 : 2) * 2 * 8 * 256, $plans[0]{source_bytes}, "$form: config.json alone: the bytes that are there");
    is($_->{memory}[0]{cache_bytes}, 2 * 1024 * 3 * 2 * 2 * ($form eq 'large' ? 128 : 64), 'cache') for @plans;
}
# 300B-A47B, of which 601.0 GB are published, 2.0 of them for multi-token prediction; and 21B-A3B.
my %other = (hidden_size => 2560, num_hidden_layers => 28, num_attention_heads => 20, num_key_value_heads => 4, intermediate_size => 12288, moe_intermediate_size => 1536,
    moe_k => 6, moe_num_shared_experts => 2, moe_layer_start_index => 1, moe_layer_end_index => 27, tie_word_embeddings => JSON::PP::true());
for (['299484163264 591', 599.0, 180.2, 134.9, {}], ['21825437888 389', 43.7, 13.2, 10.3, \%other]) {
    my ($weights, $read, $q4, $dq3, $set) = @$_;
    spit("$dir/config.json", slurp("$TOP/tests/data/ernie-4.5-300b-a47b-config.json"));
    edit_json("$dir/config.json", sub { @{ $_[0] }{ keys %$set } = values %$set });
    my $p = plan_of("$dir/config.json");
    is("$p->{model}{weights} $p->{model}{tensors}", $weights, 'weights and tensors');
    like(run($SLUICE, 'plan', "$dir/config.json", '--recipe', $_->[0])->{out}, qr/^Size +\Q$_->[1]\E GB .*^Read +\Q$read\E/ms, "$_->[0]: $_->[1] GB")
        for ['q4_k_m', sprintf '%.1f', $q4], ['dq3_k_m', sprintf '%.1f', $dq3];
}

like(run($SLUICE, 'plan', "$dir/config.json", '--recipe', 'q8_0')->{out}, qr/will need the \.safetensors files and the tokenizer \(tokenizer\.model\) beside it$/m, 'its tokenizer');

{ # Another model's tokenizer is none.
    my $bare = copy_checkpoint($source{small}, "$dir/no tokenizer");
    unlink "$bare/tokenizer.model";
    spit("$bare/tokenizer.json", '{}');
    my $plan = run($SLUICE, 'plan', $bare, '--recipe', 'q8_0');
    like($plan->{out}, qr/has no tokenizer \(tokenizer\.model\); convert will need it/, 'a plan without a tokenizer') or diag($plan->{err});
    is_deeply(plan_of($bare)->{missing}, ['tokenizer.model'], 'what is missing');
}

# ---- a real llama.cpp
SKIP: {
    skip_without_llama(13);
    for my $case (['small', 'Q4_K_M'], ['large', 'IQ4_XS'], ['fp8', 'Q3_K_M']) {
        my ($form, $mixture) = @$case;
        converted($source{$form}, "$form-$mixture", '--recipe', $mixture, '-q');
        as_llama_quantize("$dir/$form-$mixture.gguf", "$dir/$form-f32.gguf", $mixture);
    }
    iq2_xs($source{small}, "$dir/small-f32.gguf");
    make_text(map { "$dir/$_.gguf" } qw(small-f32 large-f32 fp8-f32 small-Q4_K_M fp8-dq3_k_m iq2_xs));
}

# ---- refused in one line
sub entry {
    my (%to) = @_;
    return config_edit(sub { @{ $_[0] }{ keys %to } = values %to });
}

sub pieces_edit {
    my ($change) = @_;
    return sub {
        local $_ = slurp("$_[0]/tokenizer.model");
        $change->();
        spit("$_[0]/tokenizer.model", $_);
    };
}
my $small = $source{small};
refused($small, 'dense layers between', 6, qr/"moe_layer_interval" tells of dense layers behind those with experts, which llama\.cpp's ernie4_5-moe cannot have$/, entry(moe_layer_interval => 2));
refused($small, 'dense layers at the end', 6, qr/"moe_layer_end_index" tells of dense layers behind/, entry(moe_layer_end_index => 1));
refused($small, 'biases', 6, qr/"use_bias" is true, and llama\.cpp's ernie4_5-moe has no biases$/, entry(use_bias => JSON::PP::true()));
refused($small, 'sigmoid', 6, qr/"moe_gate_act" is 'sigmoid'; supported for Ernie4_5_MoeForCausalLM: softmax$/, entry(moe_gate_act => 'sigmoid'));
refused($small, 'shared experts of another width', 6, qr/shared experts have 384 rows, and for llama\.cpp's ernie4_5-moe the converter takes .*, 256$/, entry(moe_num_shared_experts => 3));
refused($small, 'no experts', 7, qr/config\.json has no "moe_num_experts", which Ernie4_5_MoeForCausalLM needs$/, entry(moe_num_experts => undef));
refused($small, 'no tokenizer', 7, qr/tokenizer\.model is missing; download the one that the model has beside config\.json$/, sub { unlink "$_[0]/tokenizer.model" }, 'convert');
refused($small, 'a pointer', 7, qr/tokenizer\.model is a Git LFS pointer, not the file itself/,
    sub { spit("$_[0]/tokenizer.model", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n") }, 'convert');
refused($small, 'a part', 7, qr/tokenizer\.model is damaged, or no SentencePiece model; is the download complete\?$/, pieces_edit(sub { $_ = substr $_, 0, 5000 }), 'convert');
refused($small, 'none for what is unknown', 7, qr/tokenizer\.model is damaged, or no SentencePiece model/, pieces_edit(sub { s/<unk>(.....)\x18\x02/<unk>$1\x18\x03/s or die }), 'convert');
refused($small, 'an unknown kind', 7, qr/tokenizer\.model: piece 1 is empty, no text, or of an unknown kind$/, pieces_edit(sub { s/<s>(.....)\x18\x03/<s>$1\x18\x09/s or die }), 'convert');
refused($small, 'a text twice', 7, qr/tokenizer\.model: piece 7 has the text of piece 6$/, pieces_edit(sub { s/<0x02>/<0x01>/ or die }), 'convert');
refused($small, 'no UTF-8', 7, qr/tokenizer\.model: piece 4 is no UTF-8$/, pieces_edit(sub { s/\xe2\x96\x81\xe2\x96\x81/\xe2\x96\x81\xe2\x96\xff/ or die }), 'convert');
refused($small, 'a token without an id', 7, qr/added_tokens\.json, entry '<mask:1>': expected a token and its id$/,
    sub { spit("$_[0]/added_tokens.json", '{"<mask:1>": -1}') }, 'convert');
refused($small, 'an id that is none', 7, qr/tokenizer_config\.json: added_tokens_decoder, entry '1x': expected a token and its id$/,
    sub { edit_json("$_[0]/tokenizer_config.json", sub { $_[0]{added_tokens_decoder} = { '1x' => { content => 'a' } } }) }, 'convert');

done_testing();
