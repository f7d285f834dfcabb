# What the tests of one family of models share: questions about a file or a plan, the same by llama.cpp, and
# checkpoints that are refused.
package ModelTest;
use strict;
use warnings;
use Exporter 'import';
use File::Basename qw(basename);
use SluiceTest;
use Test::More;

our @EXPORT = qw($dir converted same_by kv_of plan_of as_llama_quantize iq2_xs make_text refused header_edit tensor_edit);

our $dir = scratch(); # where a test's files are

# One test: a checkpoint is converted, to $dir/NAME.gguf.
sub converted {
    my ($from, $name, @options) = @_;
    return run_ok($name, $SLUICE, 'convert', $from, '-o', "$dir/$name.gguf", @options);
}

# One test: a file has the tensors, or the keys, that a script computes; what it says.
sub same_by {
    my ($script, $name, @args) = @_;
    my $r = run(python($script, @args));
    like($r->{out}, qr/^equal( \d+ keys)?\n\z/, $name) or diag($r->{out}, $r->{err});
    return $r->{out};
}

# A metadata value of a GGUF file, and a line's end.
sub kv_of {
    my ($file, $key) = @_;
    return run($SLUICE, 'inspect', $file, '--kv', $key)->{out};
}

# What `sluice plan` says with these arguments; by q4_k_m where they name no recipe.
sub plan_of {
    my @recipe = grep({ $_ eq '--recipe' } @_) ? () : qw(--recipe q4_k_m);
    return (json_lines(run($SLUICE, 'plan', @_, @recipe, '--json')->{out}))[0];
}

# Two tests: llama-quantize makes this mixture of a file, and its tensors are those of ours.
sub as_llama_quantize {
    my ($ours, $from, $mixture, @options) = @_;
    my $theirs = scratch() . '/theirs.gguf';
    run_ok("llama-quantize: $mixture", python('llama.py', 'quantize', $from, $theirs, $mixture, @options));
    is_deeply(hashes($ours), hashes($theirs), 'the same tensors');
    unlink $theirs;
}

# Four tests: $dir/iq2_xs.gguf, by an importance matrix that llama.cpp makes of the model's own file in F32, has llama-quantize's
# tensors.
sub iq2_xs {
    my ($from, $f32, @options) = @_;
    my @imatrix = ('--imatrix', "$dir/imatrix.gguf");
    run_ok('imatrix', python('llama.py', 'imatrix', $f32, $imatrix[1], '--chunks', 1));
    converted($from, 'iq2_xs', '--recipe', 'iq2_xs', '--quiet', @imatrix, @options);
    as_llama_quantize("$dir/iq2_xs.gguf", $f32, 'IQ2_XS', @imatrix);
}

# One test: llama.cpp makes eight tokens with each file.
sub make_text {
    my $r = run(python('llama.py', 'load', @_));
    is(scalar grep({ @{ $_->{tokens} // [] } == 8 } eval { json_lines($r->{out}) }), scalar @_, join(', ', map { basename($_) } @_) . ': text')
        or diag($r->{out}, $r->{err});
}

# Tests: a changed copy of a checkpoint is refused in one line, by plan or by the verb that is named; convert makes no
# file of the output's name.
sub refused {
    my ($source, $name, $rc, $pattern, $change, @verb) = @_;
    my $bad = scratch() . '/m';
    copy_checkpoint($source, $bad, grep { /\.safetensors$/ } ls($source));
    spit("$bad/$_", slurp("$source/$_")) for grep { /tiktoken|\.py$|^tokenizer\.model$/ } ls($source);
    $change->($bad);
    my ($verb, @options) = @verb ? @verb : 'plan';
    push @options, '-o', "$bad/x.gguf", '--quiet' if $verb eq 'convert';
    my $f = fails($name, $rc, $pattern, $SLUICE, $verb, $bad, '--recipe', 'q8_0', @options);
    is($f->{err} =~ tr/\n//, 1, 'one line');
    ok(!-e "$bad/x.gguf", 'no file') if $verb eq 'convert';
}

# Subs that change a folder, for `refused` (and config_edit): the text of a shard's header, $_, without an index that says
# otherwise; ...
sub header_edit {
    my ($change) = @_;
    return sub {
        my ($folder) = @_;
        my ($file) = glob "$folder/*.safetensors";
        my $data = slurp($file);
        my $n = unpack 'Q<', $data;
        local $_ = substr $data, 8, $n;
        $change->();
        spit($file, pack('Q<', length) . $_ . substr $data, 8 + $n);
        unlink "$folder/model.safetensors.index.json";
    };
}

# ... the bytes of a tensor from a place on.
sub tensor_edit {
    my ($name, $from, $bytes) = @_;
    return sub {
        my ($file, $at) = place($_[0], $name);
        open my $f, '+<:raw', $file or die "$file: $!";
        seek $f, $at + $from, 0;
        print $f $bytes;
        close $f or die "$file: $!";
    };
}

1;
