/* Files of a checkpoint, and how the program ends when one cannot be written. */
#include "generator.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("make_checkpoint: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

FILE *open_out(const struct config *c, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", c->out, name);
    FILE *f = fopen(path, "wb");
    if (!f)
        die("%s: %s", path, strerror(errno));
    return f;
}

void close_out(FILE *f, const char *name)
{
    if (ferror(f) | fclose(f))
        die("%s: cannot be written: %s", name, strerror(errno));
}

void copy_file(const struct config *c, const char *path, const char *name)
{
    char buf[65536];
    size_t n;
    FILE *in = fopen(path, "rb");
    if (!in)
        die("%s: %s", path, strerror(errno));
    FILE *out = open_out(c, name);
    while ((n = fread(buf, 1, sizeof buf, in)) > 0)
        fwrite(buf, 1, n, out);
    fclose(in);
    close_out(out, name);
}
