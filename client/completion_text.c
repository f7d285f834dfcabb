#include "client/completion_text.h"

#include "client/cli.h"

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

/* What an option or a verb takes, where a shell can say more than file names. */
static const char *values_of(const char *arg)
{
    /* "auto|uring|pread" is its own list; NAME|FILE and the like are not. */
    if (!arg || !strchr(arg, '|') || strpbrk(arg, "ABCDEFGHIJKLMNOPQRSTUVWXYZ%"))
        return NULL;
    return arg;
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

static void bash_value(void *user, const struct poptOption *t)
{
    struct out *o = user;
    const char *values = values_of(t->argDescrip);

    if (!values)
        return;
    fprintf(o->to, "        %s:--%s) words='", o->verb->name, t->longName);
    for (; *values; values++)
        putc(*values == '|' ? ' ' : *values, o->to);
    fputs("' ;;\n", o->to);
}

static void bash_values(const struct cli_verb *verb, struct out *o)
{
    cli_each_option(verb, bash_value, o);
}

static void name_word(const struct cli_verb *verb, struct out *o)
{
    fprintf(o->to, " %s", verb->name);
}

static void bash(struct out *o)
{
    fputs("# bash completion for sluice; made by 'sluice completion bash'\n"
          "_sluice() {\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]} words=\n"
          "    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
          "        words='", o->to);
    each_verb(name_word, o);
    fputs(" --help --version'\n"
          "        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
          "        return\n"
          "    fi\n"
          "    case \"$verb:$prev\" in\n", o->to);
    each_verb(bash_values, o);
    fputs("        completion:completion) words='bash zsh fish' ;;\n"
          "        config:config) words='show files' ;;\n"
          "        *:--recipe|*:-r) words=$(sluice recipes 2>/dev/null | cut -d' ' -f1) ;;\n"
          "        show:*|watch:*|wait:*|cancel:*|hold:*|release:*|resume:*|retry:*|set:*|stitch:*|logs:*)\n"
          "            [[ $cur == -* ]] || words=$(sluice queue --parsable -o id 2>/dev/null) ;;\n"
          "    esac\n"
          "    if [ -n \"$words\" ]; then\n"
          "        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
          "        return\n"
          "    fi\n"
          "    [[ $cur == -* ]] || return\n"
          "    case $verb in\n", o->to);
    each_verb(bash_verb, o);
    fputs("    esac\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
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

static void zsh_one(struct out *o, const struct poptOption *t, const char *dashes, bool letter)
{
    const char *values = values_of(t->argDescrip);

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
        if (values) {
            putc('(', o->to);
            for (; *values; values++)
                putc(*values == '|' ? ' ' : *values, o->to);
            putc(')', o->to);
        } else {
            fputs(strstr(t->argDescrip, "FILE") || strstr(t->argDescrip, "PATH") ? "_files" : " ",
                  o->to);
        }
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
    fprintf(o->to, "        %s)\n            _arguments -S \\\n", verb->name);
    cli_each_option(verb, zsh_option, o);
    fputs("                '*:argument:_files' ;;\n", o->to);
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

static void fish_option(void *user, const struct poptOption *t)
{
    struct out *o = user;
    const char *values = values_of(t->argDescrip);

    fprintf(o->to, "complete -c sluice -n '__fish_seen_subcommand_from %s' -l %s", o->verb->name,
            t->longName);
    if (t->shortName)
        fprintf(o->to, " -s %c", t->shortName);
    if (t->argDescrip)
        fputs(" -r", o->to);
    if (values) {
        fputs(" -f -a '", o->to);
        for (; *values; values++)
            putc(*values == '|' ? ' ' : *values, o->to);
        putc('\'', o->to);
    }
    fputs(" -d '", o->to);
    fish_quote(o->to, t->descrip);
    fputs("'\n", o->to);
}

static void fish_verb(const struct cli_verb *verb, struct out *o)
{
    fprintf(o->to, "complete -c sluice -n __fish_use_subcommand -f -a %s -d '", verb->name);
    fish_quote(o->to, verb->summary);
    fputs("'\n", o->to);
    cli_each_option(verb, fish_option, o);
}

static void fish(struct out *o)
{
    fputs("# fish completion for sluice; made by 'sluice completion fish'\n", o->to);
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
