#!/usr/bin/env perl
# The client's verbs against a real daemon and a real worker.
use strict;
use warnings;
use Cwd qw(abs_path);
use SluiceTest;
use File::Temp ();
use IO::Socket::INET;
use JSON::PP ();
use Test::More;
use Time::HiRes qw(sleep time);

my $private = File::Temp::tempdir('/tmp/sl-XXXXXX', CLEANUP => 1);
my $dir = "$private/run"; # the service tells paths without their links: the tree's own may have spaces
my $out = "$dir/out";
mkdir $_ or die "$_: $!" for $dir, $out, "$dir/state";
$ENV{XDG_CONFIG_HOME} = "$dir/config";
$ENV{SLUICE_ENDPOINT} = "ipc://$private/d.sock";
my @roots = ('--root', $dir, '--root', "$TOP/tests");

# Fields of a list's JSON that are no column's.
sub not_columns {
    my ($verb) = @_;
    my %column = map { $_ => 1 } run($SLUICE, $verb, '-o', 'nope')->{err} =~ /there are: (.*)/ ? split /, /, $1 : ();
    return sort grep { !$column{$_} && !/^(?:message_type|schema|time|gpus)$/ } map { keys %$_ } json_lines(run($SLUICE, $verb, '--json')->{out});
}

sub text { return join "\n", @_, '' }

# ---- without a daemon
for my $verb (['queue'], ['show', 1], ['watch', 1], ['logs'], ['wait', 1], ['cancel', 1], ['hold', 1],
              ['release', 1], ['resume', 1], ['retry', 1], ['set', 1, '-p', 3], ['stitch', 1], ['history'],
              ['forget', 1], ['workers'], ['drain', 'x'], ['verify', '--job', 1],
              ['submit', $TINY, '-o', $out, '-r', 'q4_k_m']) {
    fails("$verb->[0]: no daemon", 4, qr{^sluice $verb->[0]: no daemon at ipc://\Q$private\E/d.sock: .*'sluiced --root FOLDER'},
          $SLUICE, @$verb);
}
my $t0 = time;
fails('--timeout waits', 4, qr/no answer in 1\.0 s/, $SLUICE, 'queue', '--timeout', 1);
cmp_ok(time - $t0, '>=', 1, 'so long');
my @nobody = ('--connect', 'tcp://127.0.0.1:9', '--plain-tcp', '--timeout', 1);
fails('nobody without keys', 4, qr/; is it running there, with --plain-tcp too\? --connect/, $SLUICE, 'queue', @nobody);
fails('a source of another machine without -o', 7, qr{^sluice submit: /no/model: not here; for another machine give absolute paths, .* -o FOLDER/NAME$}, $SLUICE, 'submit', '/no/model', '-r', 'q4_k', @nobody);
fails('tcp without keys', 2, qr/--key/, $SLUICE, 'queue', '--connect', 'tcp://127.0.0.1:9');
fails('no endpoint', 2, qr/expected ipc:/, $SLUICE, 'queue', '--connect', 'nowhere');

# ---- usage, before anything is sent
fails('no such field', 2, qr/'nope' is no field; there are: id, state/, $SLUICE, 'queue', '-o', 'nope');
fails('no such field of workers', 2, qr/there are: name, host/, $SLUICE, 'workers', '-o', 'id');
fails("a state that is $_->[0]", 2, qr/^sluice history: --state: '\Q$_->[0]\E' is no state of a job; $_->[1]there are: queued, held, .*, interrupted$/, $SLUICE, 'history', '-s', $_->[1] ? "failed,$_->[0]" : $_->[0])
    for ['nonsense', ''], ['', ''], ['Succeded', 'did you mean succeeded\? '];
fails('no number', 2, qr/'x' is no job/, $SLUICE, 'show', 'x');
fails('nothing to set', 2, qr/nothing to set/, $SLUICE, 'set', 1);
fails('priority', 2, qr/0 to 100/, $SLUICE, 'set', 1, '-p', 101);
fails("--priority $_->[0]", 2, $_->[1], $SLUICE, 'set', 1, '--priority', $_->[0])
    for ['', qr/--priority: a number is expected, and there is none/], [-1, qr/0 to 100/];
fails('an empty number of a letter', 2, qr/-p: a number is expected/, $SLUICE, 'set', 1, '-p', '');
fails('--attempts 0', 2, qr/1 to 100/, $SLUICE, $_, 1, '--attempts', 0) for qw(set submit);
fails("--timeout $_", 2, qr/--timeout $_: expected 1 to 86400/, $SLUICE, 'queue', '--timeout', $_) for 0, -1;
fails("@$_[1 .. $#$_]", 2, $_->[0], $SLUICE, @$_[1 .. $#$_])
    for [qr/: --limit: expected 0 or more$/, qw(queue --limit -1)], [qr/: --since: expected 0 or more$/, qw(logs 1 --since -1)],
    [qr/: one job, or none for all$/, qw(logs 1,2)], [qr/: one job at a time$/, qw(stitch 1,2)], [qr/: --job 1-3: one job at a time$/, qw(verify --job 1-3)],
    [qr/: more than 1000 jobs$/, qw(hold 1-1001)], [qr/: 'nonsense': expected show or files$/, qw(config nonsense)],
    [qr/: -o: more than 48 fields$/, 'queue', '-o', join ',', ('id') x 49], map { [qr/: expected names of workers .*, or --all$/, @$_] } ['drain'], [qw(drain --all w)];
fails('a lease that is too short', 2, qr{^sluiced: daemon\.lease = 9999ms \(--lease\) must be at least twice daemon\.heartbeat = 5s \(--heartbeat\)}, "$BUILD/sluiced", '--root', scratch(), '--heartbeat', '5s', '--lease', '9999ms');
fails("--interval $_", 2, qr/--interval $_: expected 1 to 3600/, $SLUICE, 'watch', '--interval', $_) for 0, -1, 3601;
fails('what is nearly an option', 2, qr/--jsom: unknown option; did you mean --json\?/, $SLUICE, 'queue', '--jsom');
fails("$_->[0] of convert_hf_to_gguf.py", 2, qr/$_->[0]: unknown option; did you mean $_->[1]\?/, $SLUICE, 'convert', $TINY, $_->[0], 'x')
    for ['--outfile', '--output'], ['--outtype', '--recipe'], ['--no-nextn', '--no-mtp'];
fails("$_->[1] of another tool", 2, qr/^sluice $_->[0]: $_->[1]: no option of 'sluice $_->[0]': .*\Q$_->[2]\E/, $SLUICE, @$_[0, 1], 'x')
    for [convert => '--mmproj', '--mmproj makes'], [plan => '--remote', "'hf download'"], [submit => '--metadata', '--override-kv KEY=str:TEXT'],
        [quantize => '-o', 'the output stands second'], [quantize => '--outfile', 'the output stands second'], [imatrix => '-m', 'llama-imatrix collects one'], [imatrix => '--output-format', 'use --format'];
fails("'$_->[0]', a tool of another's", 2, qr/^sluice: '$_->[0]' is no verb: \Q$_->[1]\E/, $SLUICE, $_->[0], 'x')
    for ['llama-gguf-split', "'sluice quantize FIRST.gguf OUT.gguf COPY'"], [merge => "'sluice quantize FIRST"], [dump => "'sluice inspect"];
fails("verify @$_[0, 1]", 2, $_->[2], $SLUICE, 'verify', @$_[0, 1], '--seed', 2)
    for ['--job', 1, qr/--job goes with no file and no other option/], ["$TINY/config.json", '-q', qr/--seed needs --source/];
fails('a ~ that no shell expands', 2, qr{^sluice plan: --output=~/x: shells leave ~ as it is there; write --output ~/x$}, $SLUICE, 'plan', $TINY, '-r', 'q4_k', '--output=~/x');
fails('nearly an option of sluiced', 2, qr/--metrcis: unknown option; did you mean --metrics\?/, "$BUILD/sluiced", '--metrcis', 'x');
fails('nearly an option of sluice-worker', 2, qr/--thread: unknown option; did you mean --threads\?/, "$BUILD/sluice-worker", '--thread');
fails('what is nearly a verb', 2, qr/did you mean 'submit'\?/, $SLUICE, 'sumbit');
unlike(run($SLUICE, 'queue', '--zzzzzz')->{err}, qr/did you mean/, 'what is near nothing');
fails('--recipe --json', 2, qr/goes without --json/, $SLUICE, 'show', 1, '--recipe', '--json');
fails('options before the verb', 2, qr/^sluice: --json: a verb stands first/, $SLUICE, '--json', 'queue');
fails('help of no verb', 2, qr/'queu' is no verb; did you mean 'queue'\?/, $SLUICE, 'help', 'queu');
is(run($SLUICE, 'help', 'queue')->{out}, run($SLUICE, 'queue', '--help')->{out}, 'help VERB');
fails('json and -o', 2, qr/--json has every field/, $SLUICE, 'queue', '--json', '-o', 'id');
fails('two recipes, one name', 2, qr/both write/, $SLUICE, 'submit', $TINY, '-o', "$out/x.gguf", '-r', 'q4_0,q8_0');
fails('a bad recipe', 2, qr/unknown recipe/, $SLUICE, 'submit', $TINY, '-o', $out, '-r', 'q99');
fails('no source', 7, qr/nowhere/, $SLUICE, 'submit', "$dir/nowhere", '-o', $out, '-r', 'q4_0');
fails('a held job does not end', 2, qr/does not end/, $SLUICE, 'submit', $TINY, '-o', $out, '-r', 'q4_0', '--hold', '--wait');
fails('no shell', 2, qr/expected bash/, $SLUICE, 'completion', 'tcsh');
my $r = run_ok('dry run', $SLUICE, 'submit', $TINY, '-o', $out, '-r', 'q4_0,q8_0', '--dry-run');
is(scalar(() = $r->{out} =~ /to write/g), 2, 'shows both');

# ---- configuration
my $none = delete $ENV{SLUICE_CONFIG};
mkdir "$dir/config";
mkdir "$dir/config/sluice";
spit("$dir/config/sluice/sluice.conf", "[sluice]\nlog = json\n[daemon]\nlease = 2min\n");
my %setting = map { ("$_->{section}.$_->{name}" => $_) } json_lines(run($SLUICE, 'config', 'show', '--json')->{out});
is($setting{'sluice.endpoint'}{origin}, 'SLUICE_ENDPOINT', 'environment over file');
like($setting{'daemon.lease'}{origin}, qr{\Q$dir\E/config/sluice/sluice\.conf:4}, 'user file with its line');
like(run($SLUICE, 'config', 'show', '--origin', '--config', $none)->{out}, qr/, from built-in\nattempts = 5$/m, 'built-in');
like(run($SLUICE, 'config', 'show', '--origin')->{out}, qr/from SLUICE_ENDPOINT\nendpoint = ipc:/, 'as text');
{
    spit("$dir/f.conf", "[daemon]\nheartbeat = 31s\n");
    my $words = qr{daemon\.lease = 60s \(built-in\) must be at least twice daemon\.heartbeat = 31s \(\Q$dir\E/f\.conf:2\)};
    my $shown = fails('a lease below two heartbeats', 2, $words, $SLUICE, 'config', 'show', '--config', "$dir/f.conf");
    like($shown->{out}, qr/^heartbeat = 31s$/m, 'is shown all the same');
    fails('sluiced says the same', 2, $words, "$BUILD/sluiced", '--config', "$dir/f.conf", '--root', $dir);
}
for (["[daemon]\nx = 1\n", qr/f\.conf:2: no such key: daemon\.x;/], ["[nowhere]\nx = 1\n", qr/f\.conf:1: no such section: nowhere;/]) {
    my ($text, $words) = @$_;
    spit("$dir/f.conf", $text);
    fails('unknown setting', 2, $words, $SLUICE, 'config', 'show', '--config', "$dir/f.conf");
}
is((json_lines(run($SLUICE, 'config', 'files', '--json')->{out}))[1]{read}, JSON::PP::true, 'config files --json');
fails('a key that is not there', 2, qr{f\.conf:2: sluice\.key: /nowhere: No such file}, $SLUICE, 'queue', '--connect', 'tcp://127.0.0.1:9', '--config',
      do { spit("$dir/f.conf", "[sluice]\nkey = /nowhere\nserver_key = /nowhere\n"); "$dir/f.conf" });
unlink "$dir/config/sluice/sluice.conf";
$ENV{SLUICE_CONFIG} = $none;

# ---- keys
like(run('sh', '-c', "$SLUICE keys $dir/first --name n 2>&1")->{out}, qr/\Asubmitter key \S+ n\nsluice keys: .*; the line above is for/, 'keys: the line, then what is said of it');
$r = run_ok('keys', $SLUICE, 'keys', "$dir/k", '--role', 'worker', '--name', 'w1');
like($r->{out}, qr/^worker key \S{40} w1$/, 'a line for the allow-list');
is((stat "$dir/k")[2] & 0777, 0600, 'the secret is closed to others');
SKIP: {
    my $mine = run(qw(mktemp -d /tmp/sluice_key_XXXXXX))->{out} =~ s/\n//r;
    my @as = qw(setpriv --clear-groups --regid 4242 --reuid 4242);
    run('sh', '-c', "cp $dir/k $dir/k.pub $mine; chmod 711 $mine");
    my $r = $> ? { rc => 1 } : run(@as, $SLUICE, 'queue', '--connect', 'tcp://127.0.0.1:9', '--key', "$mine/k", '--server-key', "$mine/k.pub");
    spit("$mine/allow", "submitter uid 4242 a\n");
    run('sh', '-c', "chmod 600 $mine/allow $mine/k.pub; chown 4242 $mine/k; mkdir -m 700 $mine/q; chown 4242 $mine/q");
    my @open = $> ? () : (run(@as, $SLUICE, 'queue', '--connect', 'tcp://127.0.0.1:9', '--key', "$mine/k", '--server-key', "$mine/k.pub"),
        run(@as, "${SLUICE}d", '--listen', "ipc://$mine/q/s", '--state', "$mine/q", '--root', '/tmp', '--allow', "$mine/allow"));
    run('rm', '-r', $mine);
    skip 'not root, or no other user gets to the program', 3 if $r->{rc} != 2;
    like($r->{err}, qr{^sluice queue: $mine/k: Permission denied \(user id 4242\): chown it to that user, or name another: 'sluice keys' makes a key$},
        'a key of another user');
    like($open[0]{err}, qr{^sluice queue: $mine/k\.pub: Permission denied \(user id 4242\)$}, "the daemon's key, which is not this user's to own");
    like($open[1]{err}, qr{: $mine/allow: Permission denied \(user id 4242\)$}m, 'nor is the allow-list, which is no key');
}
my ($public) = slurp("$dir/k.pub") =~ /^public (\S+)/m;
my ($secret) = slurp("$dir/k") =~ /^secret (\S+)/m;
is(length $secret, 40, 'a secret in the file');
like($r->{out}, qr/ \Q$public\E /, 'the public part is the same');
unlike($r->{out} . slurp("$dir/k.pub"), qr/\Q$secret\E/, 'the secret part stays');
is(run($SLUICE, 'keys', "$dir/$_", '--show')->{out}, $r->{out}, "$_ --show: the line that it was made with") for qw(k k.pub);
like(run($SLUICE, 'keys', "$dir/k", '--show', '--role', 'admin', '--name', 'w2')->{out}, qr/^admin key \Q$public\E w2$/, 'another is asked for');
spit("$dir/old.pub", "# allow-list: admin key " . 'x' x 40 . " other\npublic $public\n");
like(run($SLUICE, 'keys', "$dir/old.pub", '--show')->{out}, qr/^submitter key \Q$public\E (?!other)\S+$/, 'a key without one');
is((json_lines(run($SLUICE, 'keys', "$dir/k\xff", '--json')->{out}))[0]{path}, "$dir/k\x{fffd}", 'a path that is no UTF-8');
fails('never over a key', 13, qr/k\.pub: is there already; choose another name/, $SLUICE, 'keys', "$dir/k");
fails('nor over a folder', 13, qr/\Q$dir\E: is there already; choose/, $SLUICE, 'keys', $dir);
fails('nor in a folder that is not there', 2, qr{none/k: cannot be made: No such file}, $SLUICE, 'keys', "$dir/none/k");
fails('no such role', 2, qr/submitter or admin/, $SLUICE, 'keys', "$dir/k2", '--role', 'root');
fails("a name that the allow-list would refuse", 2, qr/expected a name in UTF-8/, $SLUICE, 'keys', "$dir/k2", '--name', "M\xfcller");

# ---- completion
for my $shell (qw(bash zsh fish)) {
    $r = run_ok("completion $shell", $SLUICE, 'completion', $shell);
    spit("$dir/c.$shell", $r->{out});
    SKIP: {
        skip "no $shell", 1 if run($shell, '-c', 'true')->{rc};
        run_ok("$shell reads it", $shell, '-n', "$dir/c.$shell");
    }
}
$r = run('bash', '-c', "source $dir/c.bash; COMP_WORDS=(sluice wat); COMP_CWORD=1; _sluice; echo \${COMPREPLY[@]};"
         . 'COMP_WORDS=(sluice submit --pri); COMP_CWORD=2; _sluice; echo ${COMPREPLY[@]};'
         . 'COMP_WORDS=(sluice convert --io u); COMP_CWORD=3; _sluice; echo ${COMPREPLY[@]};'
         . 'COMP_WORDS=(sluice convert --io = p); COMP_CWORD=4; _sluice; echo ${COMPREPLY[@]};'
         . 'COMP_WORDS=(sluice workers -o te); COMP_CWORD=3; _sluice; echo ${COMPREPLY[@]};'
         . 'COMP_WORDS=(sluice imatrix --format g); COMP_CWORD=3; _sluice; echo ${COMPREPLY[@]};'
         . 'COMP_WORDS=(sluice queue -s i); COMP_CWORD=3; _sluice; echo ${COMPREPLY[@]}');
is($r->{out}, text('watch', '--priority', 'uring', 'pread', 'tensor', 'gguf', 'interrupted'), 'bash completes verbs, options, values, fields');
# A worker chooses its name.
mkdir "$dir/named";
spit("$dir/named/sluice", "#!/bin/sh\necho 'w1'; echo 'w\$(touch\${IFS}$dir/named/ran)'\n");
chmod 0755, "$dir/named/sluice";
$r = run('bash', '-c', "PATH=$dir/named:\$PATH; source $dir/c.bash; COMP_WORDS=(sluice drain w); COMP_CWORD=2; _sluice; printf '%s\\n' \"\${COMPREPLY[@]}\"");
is($r->{out}, text('w1', 'w\$\(touch\$\{IFS\}' . "$dir/named/ran" . '\)'), 'bash completes any names, quoted');
ok(!-e "$dir/named/ran", 'and runs nothing that stands in one');

SKIP: {
    if (run('fish', '-c', 'true')->{rc}) {
        diag('fish is not here: its completions are not tried (package fish)');
        skip 'no fish', 1;
    }
    $r = run('fish', '-c', "source $dir/c.fish; complete -C 'sluice wat'; complete -C 'sluice submit --prior'; complete -C 'sluice convert --io u'; complete -C 'sluice config --ori'; complete -C 'sluice queue -o pri'");
    like($r->{out}, qr/\Awatch\t.*\n--priority\t.*\nuring\t.*\n--origin\t.*\npriority\t.*\n\z/, 'fish completes verbs, options, values');
}
# zsh completes on a terminal alone: one of its own, where TAB is pressed.
SKIP: {
    if (run('zsh', '-c', 'zmodload zsh/zpty')->{rc}) {
        diag('zsh is not here: its completions are not tried (package zsh)');
        skip 'no zsh', 1;
    }
    spit("$dir/drive.zsh", <<'END');
zmodload zsh/zpty
for line in 'sluice wat' 'sluice submit --prior' 'sluice convert --io u'; do
  zpty z zsh -f -i
  zpty -w z 'PS1=; autoload -Uz compinit; compinit -u -D; source '$1'; sluice() { print -r -- "<got"":$*>" }; print re""ady'
  r=; for i in {1..200}; do zpty -r -t z l && r+=$l || sleep 0.05; [[ $r == *ready* ]] && break; done
  sleep 0.3
  zpty -w -n z "$line"$'\t'
  sleep $2
  zpty -w -n z $'\r'
  r=; for i in {1..100}; do zpty -r -t z l && r+=$l || sleep 0.05; [[ $r == *'<got:'*'>'* ]] && break; done
  print -r -- "${${r##*<got:}%%>*}"
  zpty -d z
done
END
    for my $patience (1, 5) {
        $r = run('zsh', "$dir/drive.zsh", "$dir/c.zsh", $patience);
        last if $r->{out} =~ /uring/;
    }
    is($r->{out}, text('watch', 'submit --priority', 'convert --io uring'), 'zsh completes verbs, options, values');
}

# ---- with a daemon
my $probe = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', Proto => 'tcp') or die "$!";
my $tcp = 'tcp://127.0.0.1:' . $probe->sockport;
close $probe;
sub daemon {
    my $p = start("$BUILD/sluiced", '--listen', $ENV{SLUICE_ENDPOINT}, '--listen', $tcp, '--plain-tcp', '--state', "$dir/state", @roots, @_);
    run($SLUICE, 'queue', '--timeout', 20);
    return $p;
}
sub worker { return start("$BUILD/sluice-worker", '--connect', $ENV{SLUICE_ENDPOINT}, @roots, '--threads', 1, '--name', 'w1') }
sub stop { my ($p, $signal) = @_; kill $signal // 'TERM', $p->{pid}; return finish($p) }

my $daemon = daemon();
is(run_ok('drain --all of none', $SLUICE, 'drain', '--all')->{err}, "sluice drain: no worker is connected\n", 'is said');
fails("$_: no such job", 5, qr/no job 99|99/, $SLUICE, $_, 99) for qw(show wait watch cancel retry stitch forget resume);
fails('after a job that there is not', 5, qr/^sluice submit: after: no job 99$/m, $SLUICE, 'submit', $TINY, '-o', $out, '-r', 'q8_0', '--after', 99);
fails('no such worker', 5, qr/nobody/, $SLUICE, 'drain', 'nobody');
my @far = ($SLUICE, 'submit', '/far/R1', '-r', 'q4_k_m', '--connect', $tcp, '--plain-tcp', '-o');
fails('what is far away is for the daemon to judge', 2, qr{submit: /far/R1: lies outside the folders allowed here \(--root of sluiced and its workers: /[^ ,]+(?:, /[^ ,]+)*\)$}m, @far, '/far/out/x');
fails('its name is not known here', 2, qr/give -o FOLDER/, @far, '/far/out/');
fails('nor what a relative path means', 2, qr{far/out: for another machine give the absolute path}, @far, 'far/out');
fails('a folder that is not there', 2, qr{\Q$dir\E/none: no such folder; create it first}, $SLUICE, 'submit', $TINY, '-r', 'q4_k_m', '-o', "$dir/none/");
is(run($SLUICE, 'queue', '--parsable')->{out}, '', 'an empty queue');
like(run($SLUICE, 'queue')->{out}, qr/^ID +STATE .*REASON$/, 'has a head');
like(run($SLUICE, 'doctor', $dir)->{out}, qr/^ok +daemon .*: 0 workers, 0 jobs not ended, you are admin$/m, 'doctor finds the daemon');

$r = run_ok('a sweep', $SLUICE, 'submit', $TINY, '-o', $out, '-r', 'q4_k_m,dq3_k_m', '--hold', '--parsable', '--label', 'a');
is($r->{out}, "1\n2\n", 'prints numbers alone');
$r = run($SLUICE, 'queue', '--parsable', '-o', 'id,state,recipe,labels,reason');
my $held = qr/held by uid:$> since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC/;
like($r->{out}, qr/^1\|held\|q4_k_m\|a\|$held\n2\|held\|dq3_k_m\|a\|$held\n\z/, 'both wait, and why: by whom, since when');
my $me = getpwuid($>) // "uid:$>";
like(run($SLUICE, 'queue', '-o', 'id,user')->{out}, qr/^ 1  \Q$me\E$/m, 'people see whose it is');
is(run($SLUICE, 'queue', '--parsable', '-o', 'id,user')->{out}, "1|uid:$>\n2|uid:$>\n", 'programs see the number');
like(run($SLUICE, 'show', 1)->{out}, qr/^user +\Q$me\E$/m, 'show too');
my @json = json_lines(run($SLUICE, 'queue', '--json')->{out});
is_deeply([map { [@$_{qw(id message_type schema)}] } @json], [[1, 'job', 1], [2, 'job', 1]], 'JSON lines');
is_deeply([not_columns('queue')], [], 'a field of JSON has the column\'s name');
ok(exists $json[0]{source_bytes} && exists $json[0]{file_bytes}, 'which is what other verbs call it');
like($json[0]{submitted}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, 'with times of RFC 3339');
like(run($SLUICE, 'queue', '-o', 'id,reason')->{out}, qr/^ *1 +held by .*; 'sluice release 1' lets it go on$/m, 'people see what to do');
like(run($SLUICE, 'show', 2)->{out}, qr/^reason +held by .*; 'sluice release 2' lets it go on$/m, 'show too');
$r = run('bash', '-c', "timeout 60 $SLUICE watch 1 2 | head -n 1");
like($r->{out}, qr/^job 1: held \(held by \Q$me\E since /m, 'watch names the user');
fails('a label that a terminal would obey', 2, qr/label 'a\?b': expected 1 to 63 bytes of UTF-8/, $SLUICE, @$_, "a\eb")
    for ['set', 2, '-l'], ['queue', '-l'], ['submit', $TINY, '-o', $out, '-r', 'q8_0', '--label'];
run_ok('set', $SLUICE, 'set', 2, '-p', 80, '-l', 'big', '--remove-label', 'a', '--attempts', 4);
is(run($SLUICE, 'queue', '--parsable', '-o', 'id,priority', '--label', 'big')->{out}, "2|80\n", 'found by its label');
like(run($SLUICE, 'logs', 2)->{out}, qr/set: by \Q$me\E priority 80 attempts 4 -label a \+label big$/m, 'logs name who changed what');
fails('logs of no job', 5, qr/no job 99$/, 'timeout', 20, $SLUICE, 'logs', 99, '-f');
like(run($SLUICE, 'logs', 2)->{out}, qr/submitted: \Q$me\E: /m, 'and who submitted it');
like(run($SLUICE, 'logs', 2, '--parsable')->{out}, qr/submitted\|uid:$>: .*by uid:$> priority 80 .*big$/ms, 'with its number for programs');
$r = run_ok('a sweep with a rule that decides nothing', $SLUICE, 'submit', $TINY, '-o', "$out/", '-r', 'q4_k_m,q6_k,q8_0', '--tensor-type', 'attn_x=q6_k', '-n');
is(scalar(() = $r->{err} =~ /matches no tensor/g), 1, 'is told once');
$r = run_ok('once', $SLUICE, 'submit', $TINY, '-o', $out, '-r', 'q8_0', '--once', 'k1', '--after', '1', '--parsable');
is($r->{out}, "3\n", 'a third');
$r = run_ok('once more', $SLUICE, 'submit', $TINY, '-o', $out, '-r', 'q8_0', '--once', 'k1', '--after', '1', '--parsable');
is($r->{out}, "3\n", 'is the same job');
is(run($SLUICE, 'submit', $TINY, '-o', $out, '-r', 'q8_0', '--once', 'k1', '-p', 80)->{out}, "known already: job 3: q8_0, with the settings of its first submit; 'sluice set 3' changes priority, labels and attempts, another --once makes a new job\n", 'as it was submitted first, and says what to do');
fails('once, another recipe', 2, qr/the key 'k1' was used for another request, which made job 3; take another \(--once\) for this one$/m, $SLUICE, 'submit', $TINY, '-o', $out, '-r', 'q4_k_m', '--once', 'k1');
fails('a name that a terminal would obey', 2, qr/--model-name 'a\?b': expected at most 255 bytes/, $SLUICE, 'submit', $TINY, '-o', $out, '-r', 'q8_0', '--model-name', "a\eb");
like(run($SLUICE, 'queue', '--parsable', '-o', 'id,reason')->{out}, qr/^3\|.*1/m, 'which waits for the first');
# What the shells offer comes from the daemon.
{
    local $ENV{PATH} = "$BUILD:$ENV{PATH}";
    $r = run('bash', '-c', "source $dir/c.bash; COMP_WORDS=(sluice hold ''); COMP_CWORD=2; _sluice; echo \${COMPREPLY[@]}");
    is($r->{out}, "1 2 3\n", 'bash completes jobs');
    SKIP: {
        skip 'no fish', 1 if run('fish', '-c', 'true')->{rc};
        is(run('fish', '-c', "source $dir/c.fish; complete -C 'sluice show '")->{out}, "1\n2\n3\n", 'fish completes jobs');
    }
}
for my $idle (['retry', 'job 3 has not ended: nothing to retry'], ['release', 'job 3 is not held: nothing to release']) {
    is(run_ok("$idle->[0] of a queued job", $SLUICE, $idle->[0], 3)->{out}, "$idle->[1]\n", 'says that nothing was to do');
}
is(run_ok('hold of two', $SLUICE, 'hold', 1, 3)->{out}, "job 1 was held before\nheld job 3\n", 'says which it held');
is(run_ok('release', $SLUICE, 'release', 3)->{out}, "released job 3\n", 'is said');
run_ok('cancel', $SLUICE, 'cancel', 2);
isnt(run($SLUICE, 'wait', 2)->{rc}, 0, 'a cancelled job is no success');
chomp(my $third = run($SLUICE, 'submit', $TINY, '-o', "$out/c.gguf", '-r', 'q8_0', '--hold', '--parsable')->{out});
my $watcher = start($SLUICE, 'watch', $third);
for (1 .. 1000) {
    last if slurp("$watcher->{log}.out") =~ /held/;
    sleep 0.02;
}
run_ok('cancel what is watched', $SLUICE, 'cancel', $third);
$r = finish($watcher);
is("$r->{rc} " . ($r->{out} =~ s/^job.*\n|^\S+  //mgr) . $r->{err}, "1 job $third: cancelled\nsluice watch: job $third cancelled: cancelled by $me\n", 'watch tells it once, and by whom');
like(run($SLUICE, 'history', '-o', 'id,reason')->{out}, qr/^ *$third +cancelled by \Q$me\E$/m, 'so does history');
like(run($SLUICE, 'logs', $third)->{out}, qr/state: cancelled: cancelled by \Q$me\E$/m, 'and logs');
run_ok('forget', $SLUICE, 'forget', $third);
like(run($SLUICE, 'show', 1)->{out}, qr/^prefix +tiny-8x12M-v3-Q4_K_M$/m, 'show');
like(run($SLUICE, 'show', 1, '--recipe')->{out}, qr/^mixture|^default/m, 'show --recipe');

# Logs that are followed go on after a restart.
{
    my $log = start($SLUICE, 'logs', '-f');
    my $told = sub { my ($to, $what) = @_; for (1 .. 200) { return 1 if slurp("$log->{log}.$to") =~ $what; sleep 0.1 } return 0 };
    ok($told->('out', qr/job 3 /), 'logs -f');
    stop($daemon);
    ok($told->('err', qr/^sluice logs: the daemon at \S+ is away; waiting for it$/m), 'says that it waits');
    $daemon = daemon();
    run_ok('something happens', $SLUICE, 'set', 3, '-p', 51);
    ok($told->('out', qr/job 3 .*priority 51$/m), 'and is told');
    is(stop($log, 'INT')->{rc}, 0, 'until Ctrl-C');
}

for my $time ('0.3s', '300ms') {
    $r = fails("wait --timeout $time", 124, qr/^sluice wait: job 1 and 1 more have not ended in that time; they go on$/m,
        $SLUICE, 'wait', 1, 3, '--timeout', $time);
    cmp_ok($r->{secs}, '>=', 0.3, 'not before');
}
fails('a number alone is seconds', 124, qr/^sluice wait: job 1 has not ended/m, $SLUICE, 'wait', 1, '--timeout', 1);
fails("--timeout $_", 2, qr/--timeout '\Q$_\E': expected a time/, $SLUICE, 'wait', 1, '--timeout', $_) for '0', '5x', '30m', '-1s', '';
is(run($SLUICE, 'wait', 2, '--timeout', '1h')->{rc}, run($SLUICE, 'wait', 2)->{rc}, 'an ended job needs no time');

# A client that waits lives through the daemon's death.
my $waiting = start($SLUICE, 'wait', 1, 3);
for (1 .. 1000) { # its connection, beside the socket that listens
    last if 2 <= grep { m{ \Q$private\E/d\.sock$} } split /\n/, slurp('/proc/net/unix');
    sleep 0.02;
}
stop($daemon, 'KILL');
$daemon = daemon();
run_ok('resume', $SLUICE, 'resume', '1-2');
my $worker = worker();
$r = finish($waiting);
is($r->{rc}, 0, 'wait sees the end after a restart') or diag($r->{err});
run_ok('wait for a retried job', $SLUICE, 'wait', 2);
ok(-f "$out/tiny-8x12M-v3-DQ3_K_M.gguf", 'its file is there');
run_ok('which is right', $SLUICE, 'verify', "$out/tiny-8x12M-v3-DQ3_K_M.gguf", '--source', $TINY);
run_ok('verify --job', $SLUICE, 'verify', '--job', 1);
fails('stitch once more', 2, qr/job 2 has succeeded; it is stitched already/, $SLUICE, 'stitch', 2);
like(run($SLUICE, 'resume', 2)->{err}, qr/job 2 has succeeded: nothing to resume/, 'resume too');
like(run($SLUICE, 'logs', 1)->{out}, qr/submitted: .*planned: .*succeeded/s, 'logs');
my ($detail, @more) = json_lines(run_ok('show --json', $SLUICE, 'show', 1, '--json')->{out});
is_deeply([@$detail{qw(message_type schema)}, $detail->{job}{state}, length $detail->{map}, scalar @more], ['job_detail', 1, 'succeeded', $detail->{job}{tasks}, 0],
    'one line, with its plan and tasks');
like(run($SLUICE, 'show', 1, '--tasks')->{out}, qr/^fingerprint +\Q$detail->{fingerprint}\E\n.*^tasks \(.*\):\n +0  \Q$detail->{map}\E\n\z/ms, 'show --tasks');
is(run($SLUICE, 'history', '--parsable', '-s', 'failed,succeeded,', '-o', 'id,state,code')->{out}, "3|succeeded|0\n2|succeeded|0\n1|succeeded|0\n", 'history');
is((run($SLUICE, 'history', '--parsable', '-o', 'id,files')->{out} =~ /^2\|(.*)/m)[0], "$out/tiny-8x12M-v3-DQ3_K_M.gguf", 'with its files');
is(run($SLUICE, 'workers', '--parsable', '-o', 'name,device')->{out}, "w1|cpu\n", 'workers');
is_deeply([not_columns('workers')], [], 'JSON too, by the same names');

$r = fails('an output that exists', 13, qr/exists already/, $SLUICE, 'submit', $TINY, '-o', $out, '-r', 'q8_0', '--wait');
is(scalar(() = $r->{err} =~ /exists already/g), 1, 'is told once') or diag($r->{err});
like(run($SLUICE, 'show', $r->{out} =~ /job (\d+)/)->{out}, qr/^  \S+  task prepare on w1, code 13: \S+ exists already/m, 'show names the task');
my ($failed) = $r->{out} =~ /job (\d+)/;
run_ok('retry', $SLUICE, 'retry', $failed);
$r = fails('watch', 13, qr/^sluice watch: job $failed failed: \S+ exists already; --force replaces it$/m, $SLUICE, 'watch', $failed);
is(scalar(() = "$r->{out}$r->{err}" =~ /exists already/g), 1, 'tells it once too') or diag("$r->{out}$r->{err}");
$r = fails('a sweep of which both fail', 13, qr/^sluice submit: job \d+ failed: (?:see above|\S+ exists already; --force replaces it); 1 more did not end well$/m,
    $SLUICE, 'submit', $TINY, '-o', $out, '-r', 'q4_k_m,dq3_k_m', '--wait');
is(scalar(() = $r->{err} =~ /exists already/g), 2, 'tells each once') or diag($r->{err});
fails('wait for both', 13, qr/^sluice wait: job $failed failed: .*; 1 more did not end well$/m, $SLUICE, 'wait', $failed, $failed + 1);
# Two jobs whose tasks fail by turns, each time in the same way, watched while other things happen.
run_ok('a copy', 'cp', '-r', $TINY, "$dir/src");
my @turns = split ' ', run_ok('two jobs', $SLUICE, 'submit', "$dir/src", '-o', $out, '-r', 'q4_0,q5_0', '--attempts', 3, '--hold', '--parsable')->{out};
unlink glob "$dir/src/*.safetensors";
my $by_turns = start($SLUICE, 'watch', @turns);
for (1 .. 600) {
    last if slurp("$by_turns->{log}.out") =~ /job $turns[1]: held/; # it is there to hear of them
    sleep 0.1;
}
run_ok('release', $SLUICE, 'release', @turns);
flip_byte("$out/tiny-8x12M-v3-Q4_K_M.gguf", (-s "$out/tiny-8x12M-v3-Q4_K_M.gguf") - 5000);
$r = fails('verify --job of a damaged file', 8, qr/^sluice verify: job 1 failed: (?:[2-9] failures; the first: )?\S+ tensor \S+ checksum \w+, must be \w+ \('sluice submit --force' makes it anew\)$/m,
    $SLUICE, 'verify', '--job', 1);
is(scalar(() = $r->{err} =~ /checksum/g), 1, 'tells it once') or diag($r->{err});
unlike($r->{err}, qr/ made /, 'nothing was made');
flip_byte("$out/tiny-8x12M-v3-Q4_K_M.gguf", (-s "$out/tiny-8x12M-v3-Q4_K_M.gguf") - 5000);
fails('once more', 2, qr/job 1 has failed; 'sluice retry' tries again what failed, a verification too$/m, $SLUICE, 'verify', '--job', 1);
run_ok('retry', $SLUICE, 'retry', 1);
run_ok('which is right again', $SLUICE, 'wait', 1);
$r = run_ok('submit --wait', $SLUICE, 'submit', $TINY, '-o', $out, '-r', 'q8_0', '--wait', '--force', '--verify', '--json');
my @lines = json_lines($r->{out});
is($lines[0]{message_type}, 'submitted', 'JSON: submitted');
is($lines[-1]{message_type}, 'job_ended', 'JSON: ended');
is($lines[-1]{state}, 'succeeded', 'well');
unlike($r->{err}, qr/\e/, 'nothing drawn without a terminal');

# A name that only begins as a part's does.
$r = run_ok('submit --wait of a name nearly of a set', $SLUICE, 'submit', $TINY, '-o', "$out/m-00001-of-0012a.gguf", '-r', 'q8_0', '--wait');
like($r->{err}, qr{ made \S+/m-00001-of-0012a\.gguf, \d}, 'one file') or diag($r->{err});
$r = run_ok('stitch by hand', $SLUICE, 'submit', $TINY, '-o', $out, '-r', 'q6_k', '--manual-stitch', '--parsable');
chomp(my $by_hand = $r->{out});
for (1 .. 600) {
    last if run($SLUICE, 'queue', '--parsable', '-o', 'done')->{out} eq "20\n";
    sleep 0.1;
}
ok(!-e "$out/tiny-8x12M-v3-Q6_K.gguf", 'waits for it');
run_ok('stitch', $SLUICE, 'stitch', $by_hand);
run_ok('then ends', $SLUICE, 'wait', $by_hand);
ok(-f "$out/tiny-8x12M-v3-Q6_K.gguf", 'with the file');

$r = finish($by_turns);
for my $job (@turns) {
    my @told = $r->{out} =~ /job $job: (.*safetensors.*|failed again.*)/g;
    ok(@told >= 2 && $told[1] eq 'failed again in the same way', "job $job: the same failure is told in full once, though another's came between") or diag($r->{out}, $r->{err});
}

# A reader that goes away ends what goes on for ever, without a word.
for my $forever ('logs -f', 'watch --json') {
    $r = run('timeout', 20, 'bash', '-c', "$SLUICE $forever -- | head -n 1; exit \${PIPESTATUS[0]}");
    is("$r->{rc} $r->{err}", '141 ', "$forever | head");
}
like(run($SLUICE, 'watch', 1)->{out}, qr{^job 1 made \Q${\abs_path($out)}\E/tiny-8x12M-v3-Q4_K_M\.gguf, \d+\.\d MB$}m, 'watch says what was made');

# Ctrl-C detaches.
my $watching = start($SLUICE, 'watch');
for my $try (1 .. 20) { # until it is there to hear of it
    local $ENV{SLUICE_KEY} = "$dir/daemon.key"; # as on a machine whose sluice.conf has its daemon's key for tcp
    my $second = start("$BUILD/sluice-worker", '--connect', $ENV{SLUICE_ENDPOINT}, @roots, '--name', 'w2');
    delete $ENV{SLUICE_KEY};
    for (1 .. 600) {
        last if run($SLUICE, 'workers', '--parsable', '-o', 'name,pid')->{out} =~ /^w2\|$second->{pid}$/m;
        sleep 0.1;
    }
    like(run($SLUICE, 'doctor', $dir)->{out}, qr/: (?:1 worker|[2-9] workers), /, 'doctor counts them');
    run_ok('drain --json', $SLUICE, 'drain', 'w2', '--json');
    finish($second);
    last if slurp("$watching->{log}.out") =~ /w2: worker_joined/;
}
$r = stop($watching, 'INT');
like($r->{out}, qr/^\d\d:\d\d:\d\d  w2: worker_joined: cpu on /m, 'an event without a job says whose it is');
is($r->{rc}, 0, 'Ctrl-C detaches');
like($r->{err}, qr/detached; the jobs go on/, 'and says so');

SKIP: {
    skip 'no script(1)', 10 if run('script', '--version')->{rc};
    local $ENV{TERM} = 'xterm';
    my $log = scratch() . '/tty';
    # A small job may be over before anything is drawn: the next one, then.
    for my $recipe (qw(f16 f32 q3_k q5_k_s q4_k_s q3_k_l q5_0 q4_1 q5_1 iq4_nl)) {
        run('script', '-qec', "$SLUICE submit $TINY -o $out -r $recipe --wait", $log);
        last if slurp($log) =~ /total \[/;
    }
    like(slurp($log), qr/total \[/, 'a bar on a terminal');
    local $ENV{NO_COLOR} = 1;
    run('script', '-qec', "$SLUICE history", $log);
    unlike(slurp($log), qr/\e/, 'NO_COLOR');
    for my $case (map { my $v = $_; map { [$v, $_] } 60, 40 } qw(history workers)) {
        my ($verb, $columns) = @$case;
        run('script', '-qec', "stty cols $columns; $SLUICE $verb", $log);
        my @lines = grep { !/^Script/ } split /\r?\n/, slurp($log);
        is_deeply([grep { length > $columns } @lines], [], "$verb fits $columns columns");
        like($lines[0], $verb eq 'history' ? qr/^ID .*REASON$/ : qr/^NAME .*TENSOR$/, 'with its last column');
    }
}

run_ok('drain', $SLUICE, 'drain', 'w1');
is(finish($worker)->{rc}, 0, 'the worker ends well');
run_ok('forget', $SLUICE, 'forget', '1-3');
fails('forgotten', 5, qr/no job 1/, $SLUICE, 'show', 1);

# A name that no message can hold.
mkdir "$out/\xe9" or die $!;
fails('an output in Latin-1', 2, qr{out/\?: the service takes names in UTF-8 alone; rename it}, $SLUICE, 'submit', $TINY, '-o', "$out/\xe9/", '-r', 'q8_0');

# A name that a terminal would obey: CSI as one character, line ends.
my $evil = copy_checkpoint($TINY, "$dir/a\n\xc2\x9b2Jb\r");
run_ok('is taken', $SLUICE, 'submit', $evil, '-o', $out, '-r', 'q2_k_l', '--hold');
my ($job) = run($SLUICE, 'queue', '--parsable', '-o', 'id')->{out} =~ /^(\d+)$/;
for my $verb (['queue', '-o', 'all'], ['show', $job], ['logs', $job]) {
    $r = run($SLUICE, @$verb);
    like($r->{out}, qr/\?\?2Jb/, "$verb->[0] has it");
    unlike($r->{out}, qr/[\r\x9b]/, 'without what a terminal would obey');
}
is(scalar(grep { ($_->{source} // '') eq $evil =~ s/\xc2\x9b/\x{9b}/r } json_lines(run($SLUICE, 'queue', '--json')->{out})), 1, 'JSON has it whole');

# A file in a Hugging Face cache is a link to a name that says nothing: the other parts are found by the link's.
{
    mkdir "$dir/$_" or die "$_: $!" for qw(made hub hub/blobs hub/snapshots hub/snapshots/1);
    run_ok('a set', $SLUICE, 'convert', $TINY, '-o', "$dir/made/set", '-r', 'q8_0', '--split-max-size', '8M', '--quiet');
    my @files = (glob("$TINY/*.json"), glob("$TINY/*.safetensors"), glob("$dir/made/*.gguf"));
    for my $i (0 .. $#files) {
        my ($name) = $files[$i] =~ m{([^/]+)$};
        link $files[$i], "$dir/hub/blobs/$i" or spit("$dir/hub/blobs/$i", slurp($files[$i]));
        symlink "../../blobs/$i", "$dir/hub/snapshots/1/$name" or die "$name: $!";
    }
    my $w = worker();
    my @submit = ($SLUICE, 'submit', '--wait', '-o');
    run_ok('the index of a checkpoint there', @submit, "$out/by-index", '-r', 'q8_0', "$dir/hub/snapshots/1/model.safetensors.index.json");
    my ($first) = glob "$dir/hub/snapshots/1/*-00001-of-*.gguf";
    run_ok('a set there', @submit, "$out/by-set", '-r', 'copy', $first);
    run_ok('both are right', $SLUICE, 'diff', "$out/by-index.gguf", "$out/by-set.gguf", '--tensors-only');
    is(stop($w)->{rc}, 0, 'the worker ends');
}
is(stop($daemon)->{rc}, 0, 'the daemon stops');

# Programs of a release in which a stock recipe has another text: the request of before is known.
my @once = ('submit', $TINY, '-o', $out, '--hold', '--once');
my $next = scratch();
for my $program ('sluice', 'sluiced') {
    (my $bytes = slurp("$BUILD/$program")) =~ s/Q8_0, for every architecture/Q8_0, for each architecture /g;
    spit("$next/$program", $bytes);
    chmod 0755, "$next/$program";
}
$daemon = daemon();
spit("$dir/types", join '', map { "^blk.$_.attn_q_b.weight\$=q8_0\n" } 0 .. 2999);
run_ok('as many types as a large model has tensors', $SLUICE, 'submit', $TINY, '-o', "$out/", '-r', 'q5_1', '--tensor-type-file', "$dir/types", '--hold');
spit("$dir/q8_0.recipe", slurp("$TOP/proto/recipes/q8_0.recipe") . "# mine\n");
run_ok("a recipe of one's own", $SLUICE, @once, 'mine', '-r', "$dir/q8_0.recipe");
my @kept = ($SLUICE, 'submit', $TINY, '-o', "$out/kept", '--hold', '--once', 'kept', '-r', 'q8_0', '--parsable');
my $kept = run_ok('a stock recipe', @kept)->{out};
stop($daemon);
$daemon = start("$next/sluiced", '--listen', $ENV{SLUICE_ENDPOINT}, '--state', "$dir/state", @roots);
run($SLUICE, 'queue', '--timeout', 20);
like(run("$next/sluice", 'recipes', 'q8_0')->{out}, qr/for each architecture/, 'another text');
$r = run_ok('once more, after an upgrade', "$next/sluice", @once, 'k1', '-r', 'q8_0', '--parsable');
is($r->{out}, "3\n", 'is the same job');
is(run_ok('once more, by a client that was not upgraded', @kept)->{out}, $kept, 'that job too');
fails('another option by it', 2, qr/the key 'kept' was used for another request/, @kept, '--pure');
run_ok("a recipe of one's own again", "$next/sluice", @once, 'mine', '-r', "$dir/q8_0.recipe");
spit("$dir/q8_0.recipe", slurp("$dir/q8_0.recipe") . "# changed\n");
fails('which its owner changed', 2, qr/the key 'mine' was used for another request/, "$next/sluice", @once, 'mine', '-r', "$dir/q8_0.recipe");
fails('or which is the stock one now', 2, qr/the key 'mine' was used for another request/, "$next/sluice", @once, 'mine', '-r', 'q8_0');
stop($daemon);

done_testing();
