#include "client/term.h"

#include "proto/utf8.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define FOLD_LEAST 16 /* columns; in fewer the terminal breaks lines better */

int term_width(int fd)
{
    struct winsize ws = {0};

    if (!isatty(fd))
        return 0;
    return ioctl(fd, TIOCGWINSZ, &ws) == 0 && ws.ws_col ? ws.ws_col : 80;
}

bool term_can_draw(int fd)
{
    const char *term = getenv("TERM");

    return isatty(fd) && term && *term && strcmp(term, "dumb") != 0;
}

/* A variable that is set to something other than "0" and "". */
static bool is_set(const char *name)
{
    const char *v = getenv(name);

    return v && *v && strcmp(v, "0") != 0;
}

bool term_can_colour(void)
{
    const char *no = getenv("NO_COLOR");

    if (no && *no)
        return false;
    return is_set("CLICOLOR_FORCE") || term_can_draw(STDOUT_FILENO);
}

bool term_reader_gone(void)
{
    struct pollfd p = {.fd = STDOUT_FILENO};

    return poll(&p, 1, 0) == 1 && (p.revents & POLLERR);
}

/* Bytes after the first of a UTF-8 character begin with the bits 10. */
static bool begins_character(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

int term_columns(const char *text, size_t n)
{
    int columns = 0;

    for (size_t i = 0; i < n; i++)
        columns += begins_character(text[i]);
    return columns;
}

size_t term_fit(const char *text, int columns)
{
    size_t n = 0;

    for (; text[n]; n++)
        if (begins_character(text[n]) && columns-- <= 0)
            break;
    return n;
}

void term_fold(FILE *to, const char *text, int column, int width)
{
    int room = width - column;

    for (;;) {
        size_t n = strlen(text);

        if (room >= FOLD_LEAST && term_columns(text, n) > room) {
            n = term_fit(text, room);
            while (n > 0 && text[n] != ' ')
                n--;
            n = n ? n : strcspn(text, " ");
        }
        fprintf(to, "%.*s\n", (int)n, text);
        text += n;
        if (!*text)
            return;
        text += strspn(text, " ");
        fprintf(to, "%*s", column, "");
    }
}

void term_print(const char *text)
{
    bool raw = !isatty(STDOUT_FILENO);

    if (raw)
        fputs(text, stdout);
    for (size_t left = raw ? 0 : strlen(text), n; left; text += n, left -= n) {
        n = sl_utf8_shown(text, left);
        if (n || *text == '\n' || *text == '\t' || strncmp(text, "\r\n", 2) == 0)
            fwrite(text, 1, n + (n == 0), stdout);
        else
            putchar('?');
        n += n == 0;
    }
}
