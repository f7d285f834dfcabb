#include "client/completion_text.h"

#include "client/completion_values.h"

#include <string.h>

struct out {
    FILE *to;
    const struct cli_verb *verb;
};

/* Calls fn for each verb, in the order of the help. */
static void each_verb(void (*fn)(const struct cli_verb *verb, struct out *o), struct out *o)
{
    for (unsigned g = 0; cli_group(g); g++)
        for (const struct cli_verb *const *v = cli_group(g)->verbs; *v; v++) {
            o->verb = *v;
            fn(*v, o);
        }
}

/* text in single quotes for sh, bash and zsh. */
static void quote(FILE *to, const char *text)
{
    for (; *text; text++)
        if (*text == '\'')
            fputs("'\\''", to);
        else
            putc(*text, to);
}

/* ---- bash */

static void bash_word(void *user, const struct poptOption *t)
{
    struct out *o = user;

    fprintf(o->to, " --%s", t->longName);
    if (t->shortName)
        fprintf(o->to, " -%c", t->shortName);
}

static void bash_verb(const struct cli_verb *verb, struct out *o)
{
    fprintf(o->to, "        %s) words='", verb->name);
    cli_each_option(verb, bash_word, o);
    fputs("' ;;\n", o->to);
}

/* `words=` of a shell's case. */
static void bash_set(struct out *o, const struct completion_values *v)
{
    if (v->command)
        fprintf(o->to, "words=$(%s) ;;\n", v->command);
    else
        fprintf(o->to, "words='%s' ;;\n", v->words);
}

/* What comes after an option: words, or files. */
static void bash_value(void *user, const struct poptOption *t)
{
    struct out *o = user;
    char buf[COMPLETION_WORDS_MAX];
    struct completion_values v = completion_values(o->verb, t, buf);

    if (!t->argDescrip)
        return;
    fprintf(o->to, "        %s:--%s", o->verb->name, t->longName);
    if (t->shortName)
        fprintf(o->to, "|%s:-%c", o->verb->name, t->shortName);
    fputs(") ", o->to);
    if (v.words || v.command)
        bash_set(o, &v);
    else
        fputs("return ;;\n", o->to);
}

static void bash_values(const struct cli_verb *verb, struct out *o)
{
    cli_each_option(verb, bash_value, o);
}

static void bash_argument(const struct cli_verb *verb, struct out *o)
{
    char buf[COMPLETION_WORDS_MAX];
    struct completion_values v = completion_values(verb, NULL, buf);

    if (!v.words && !v.command)
        return;
    fprintf(o->to, "            %s) ", verb->name);
    bash_set(o, &v);
}

static void name_word(const struct cli_verb *verb, struct out *o)
{
    fprintf(o->to, " %s", verb->name);
}

static void bash(struct out *o)
{
    /* compgen -W would expand the words, and run what stands in a worker's name. */
    fputs("# bash completion for sluice; made by 'sluice completion bash'\n"
          "_sluice_offer() {\n"
          "    local word all\n"
          "    read -r -d '' -a all <<< \"$2\"\n"
          "    for word in \"${all[@]}\"; do\n"
          "        [[ $word == \"$1\"* ]] && printf -v word %q \"$word\" && COMPREPLY+=(\"$word\")\n"
          "    done\n"
          "}\n"
          "_sluice() {\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]} words=\n"
          "    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
          "        words='", o->to);
    each_verb(name_word, o);
    fputs(" help --help --version'\n"
          "        _sluice_offer \"$cur\" \"$words\"\n"
          "        return\n"
          "    fi\n"
          "    # --option=value comes as three words.\n"
          "    [[ $cur == = ]] && cur=\n"
          "    [[ $prev == = && $COMP_CWORD -gt 2 ]] && prev=${COMP_WORDS[COMP_CWORD-2]}\n"
          "    case \"$verb:$prev\" in\n", o->to);
    each_verb(bash_values, o);
    fputs("        *) [[ $cur == -* ]] || case $verb in\n", o->to);
    each_verb(bash_argument, o);
    fputs("        esac ;;\n"
          "    esac\n"
          "    if [ -n \"$words\" ]; then\n"
          "        _sluice_offer \"$cur\" \"$words\"\n"
          "        return\n"
          "    fi\n"
          "    [[ $cur == -* ]] || return\n"
          "    case $verb in\n", o->to);
    each_verb(bash_verb, o);
    fputs("    esac\n"
          "    _sluice_offer \"$cur\" \"$words\"\n"
          "}\n"
          "complete -o default -F _sluice sluice\n", o->to);
}

/* ---- zsh */

/* Brackets and colons mean something in _arguments. */
static void zsh_text(FILE *to, const char *text)
{
    for (; *text; text++) {
        if (*text == '[' || *text == ']' || *text == ':' || *text == '\\')
            putc('\\', to);
        if (*text == '\'')
            fputs("'\\''", to);
        else
            putc(*text, to);
    }
}

/* The action that offers them. */
static void zsh_action(FILE *to, const struct completion_values *v, bool files)
{
    if (v->command)
        fprintf(to, "{compadd -- $(%s)%s}", v->command, files ? "; _files" : "");
    else if (v->words)
        fprintf(to, "(%s)", v->words);
    else
        fputs(files ? "_files" : " ", to);
}

static void zsh_one(struct out *o, const struct poptOption *t, const char *dashes, bool letter)
{
    char buf[COMPLETION_WORDS_MAX];
    struct completion_values v = completion_values(o->verb, t, buf);

    fputs("                '*", o->to);
    if (letter)
        fprintf(o->to, "%s%c", dashes, t->shortName);
    else
        fprintf(o->to, "%s%s%s", dashes, t->longName, t->argDescrip ? "=" : "");
    fputs("[", o->to);
    zsh_text(o->to, t->descrip);
    putc(']', o->to);
    if (t->argDescrip) {
        putc(':', o->to);
        zsh_text(o->to, t->argDescrip);
        putc(':', o->to);
        zsh_action(o->to, &v, strstr(t->argDescrip, "FILE") || strstr(t->argDescrip, "PATH"));
    }
    fputs("' \\\n", o->to);
}

static void zsh_option(void *user, const struct poptOption *t)
{
    zsh_one(user, t, "--", false);
    if (t->shortName)
        zsh_one(user, t, "-", true);
}

static void zsh_verb(const struct cli_verb *verb, struct out *o)
{
    char buf[COMPLETION_WORDS_MAX];
    struct completion_values v = completion_values(verb, NULL, buf);

    fprintf(o->to, "        %s)\n            _arguments -S \\\n", verb->name);
    cli_each_option(verb, zsh_option, o);
    fputs("                '*:argument:", o->to);
    zsh_action(o->to, &v, !v.words && !v.command);
    fputs("' ;;\n", o->to);
}

static void zsh_name(const struct cli_verb *verb, struct out *o)
{
    fprintf(o->to, "        '%s:", verb->name);
    quote(o->to, verb->summary);
    fputs("'\n", o->to);
}

static void zsh(struct out *o)
{
    fputs("#compdef sluice\n"
          "# zsh completion for sluice; made by 'sluice completion zsh'\n"
          "_sluice() {\n"
          "    local -a verbs\n"
          "    verbs=(\n", o->to);
    each_verb(zsh_name, o);
    fputs("    )\n"
          "    if (( CURRENT == 2 )); then\n"
          "        _describe verb verbs\n"
          "        return\n"
          "    fi\n"
          "    local verb=${words[2]}\n"
          "    shift words\n"
          "    (( CURRENT-- ))\n"
          "    case $verb in\n", o->to);
    each_verb(zsh_verb, o);
    fputs("    esac\n"
          "}\n"
          "if [ \"$funcstack[1]\" = _sluice ]; then\n"
          "    _sluice \"$@\"\n"
          "else\n"
          "    compdef _sluice sluice\n"
          "fi\n", o->to);
}

/* ---- fish */

static void fish_quote(FILE *to, const char *text)
{
    for (; *text; text++) {
        if (*text == '\'' || *text == '\\')
            putc('\\', to);
        putc(*text, to);
    }
}

static void fish_values(FILE *to, const struct completion_values *v)
{
    fputs(" -a '", to);
    if (v->command)
        fprintf(to, "(%s)", v->command);
    else
        fish_quote(to, v->words);
    putc('\'', to);
}

static void fish_option(void *user, const struct poptOption *t)
{
    struct out *o = user;
    char buf[COMPLETION_WORDS_MAX];
    struct completion_values v = completion_values(o->verb, t, buf);

    fprintf(o->to, "complete -c sluice -n '__sluice_verb %s' -l %s", o->verb->name, t->longName);
    if (t->shortName)
        fprintf(o->to, " -s %c", t->shortName);
    if (t->argDescrip)
        fputs(" -r", o->to);
    if (t->argDescrip && (v.words || v.command)) {
        if (!strstr(t->argDescrip, "FILE"))
            fputs(" -f", o->to);
        fish_values(o->to, &v);
    }
    fputs(" -d '", o->to);
    fish_quote(o->to, t->descrip);
    fputs("'\n", o->to);
}

static void fish_verb(const struct cli_verb *verb, struct out *o)
{
    char buf[COMPLETION_WORDS_MAX];
    struct completion_values v = completion_values(verb, NULL, buf);

    fprintf(o->to, "complete -c sluice -n __sluice_no_verb -f -a %s -d '", verb->name);
    fish_quote(o->to, verb->summary);
    fputs("'\n", o->to);
    if (v.words || v.command) {
        fprintf(o->to, "complete -c sluice -n '__sluice_verb %s' -f", verb->name);
        fish_values(o->to, &v);
        fputs("\n", o->to);
    }
    cli_each_option(verb, fish_option, o);
}

static void fish(struct out *o)
{
    fputs("# fish completion for sluice; made by 'sluice completion fish'\n"
          "function __sluice_no_verb\n"
          "    test (count (commandline -opc)) -lt 2\n"
          "end\n"
          "function __sluice_verb\n"
          "    set -l words (commandline -opc)\n"
          "    test (count $words) -ge 2; and test $words[2] = $argv[1]\n"
          "end\n", o->to);
    each_verb(fish_verb, o);
}

int completion_text(FILE *to, const char *shell, struct sl_error *e)
{
    static const struct {
        const char *name;
        void (*print)(struct out *o);
    } shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    struct out o = {.to = to};

    for (size_t i = 0; i < sizeof shells / sizeof shells[0]; i++)
        if (strcmp(shells[i].name, shell) == 0) {
            shells[i].print(&o);
            return 0;
        }
    return sl_fail(e, SL_EUSAGE, "'%s': expected bash, zsh, fish or list", shell);
}

/* ---- the list */

static void list_option(void *user, const struct poptOption *t)
{
    struct out *o = user;
    char letter[3] = {t->shortName ? '-' : 0, t->shortName, 0};

    fprintf(o->to, "%s\t--%s\t%s\t%s\t%s\n", o->verb->name, t->longName, letter,
            t->argDescrip ? t->argDescrip : "", t->descrip);
}

static void list_verb(const struct cli_verb *verb, struct out *o)
{
    cli_each_option(verb, list_option, o);
}

void completion_list(FILE *to)
{
    struct out o = {.to = to};

    each_verb(list_verb, &o);
}
