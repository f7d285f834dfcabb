/* Preloaded into a real program: memory that it asks for itself (not what libraries do) is
 * refused. A place is a call with its three callers; places are counted in the order in which they
 * are first reached.
 *
 * ALLOC_FAULTS=N:   the first call from place N fails, and no other; 0: none; "threads": no
 *                   memory is refused, but every thread; "streams": the C library's own realloc;
 *                   "meeting": that for the first message that comes, and the first thread stands
 *                   inside zmq_connect until the sockets' other end is closed; "grant": all
 *                   memory of the thread that hears of a grant, from then on
 * ALLOC_COUNT=FILE: gets the number of places, when the program ends */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CALLERS 4
#define PLACES 4096

static struct {
    uintptr_t begin, end;        /* of the program's own code */
    uintptr_t place[PLACES][CALLERS];
    unsigned n, which;
    bool ready, streams, meeting, grant;
    _Atomic bool refused, closed; /* of a meeting */
    pthread_mutex_t lock;
} g = {.lock = PTHREAD_MUTEX_INITIALIZER};

#define OF_THREAD static __thread __attribute__((tls_model("initial-exec")))
OF_THREAD bool inside, heard, connecting;

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

/* The program is the first object that there is. */
static int take_program(struct dl_phdr_info *info, size_t size, void *user)
{
    (void)size, (void)user;
    for (unsigned i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD && (info->dlpi_phdr[i].p_flags & PF_X)) {
            g.begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            g.end = g.begin + info->dlpi_phdr[i].p_memsz;
        }
    return 1;
}

__attribute__((constructor)) static void begin(void)
{
    const char *which = getenv("ALLOC_FAULTS");
    void *callers[4];

    backtrace(callers, 4); /* loads what it needs */
    dl_iterate_phdr(take_program, NULL);
    g.streams = which && strcmp(which, "streams") == 0;
    g.meeting = which && strcmp(which, "meeting") == 0;
    g.grant = which && strcmp(which, "grant") == 0;
    g.which = which ? (unsigned)atoi(which) : 0;
}

/* What is linked into the program may have memory of its own to set up before: CUDA's runtime. */
static int (*real_main)(int, char **, char **);

static int main_with_faults(int n, char **words, char **env)
{
    g.ready = getenv("ALLOC_FAULTS") != NULL;
    return real_main(n, words, env);
}

typedef int (*start_fn)(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void), void (*)(void), void *);
int __libc_start_main(int (*run)(int, char **, char **), int n, char **words, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end);
int __libc_start_main(int (*run)(int, char **, char **), int n, char **words, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end)
{
    start_fn start = (start_fn)(uintptr_t)dlsym(RTLD_NEXT, "__libc_start_main");

    real_main = run;
    return start(main_with_faults, n, words, init, fini, rtld_fini, stack_end);
}

__attribute__((destructor)) static void end(void)
{
    const char *name = getenv("ALLOC_COUNT");
    char text[16];
    int fd = name && g.ready ? open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;

    g.ready = false;
    if (fd < 0)
        return;
    if (write(fd, text, (size_t)snprintf(text, sizeof text, "%u\n", g.n)) < 0)
        unlink(name);
    close(fd);
}

/* Whether this call fails: the caller of the library's function asks for the first time. */
static bool fails(const void *caller)
{
    uintptr_t key[CALLERS] = {0};
    void *frame[16];
    unsigned i, k = 0;
    bool now = false;
    int n;

    if (!g.ready || inside || (uintptr_t)caller < g.begin || (uintptr_t)caller >= g.end)
        return false;
    if (g.meeting)
        return heard && !atomic_exchange(&g.refused, true);
    if (g.grant)
        return heard;
    inside = true;
    n = backtrace(frame, 16);
    for (int f = 0; f < n && k < CALLERS; f++)
        if ((uintptr_t)frame[f] >= g.begin && (uintptr_t)frame[f] < g.end)
            key[k++] = (uintptr_t)frame[f];
    pthread_mutex_lock(&g.lock);
    for (i = 0; i < g.n && memcmp(g.place[i], key, sizeof key) != 0; i++)
        ;
    if (i == g.n && g.n < PLACES) {
        memcpy(g.place[g.n++], key, sizeof key);
        now = g.n == g.which;
    }
    pthread_mutex_unlock(&g.lock);
    inside = false;
    errno = now ? ENOMEM : errno;
    return now;
}

typedef int (*thread_fn)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*run)(void *), void *user)
{
    const char *which = getenv("ALLOC_FAULTS");
    uintptr_t caller = (uintptr_t)__builtin_return_address(0);

    if (which && strcmp(which, "threads") == 0 && caller >= g.begin && caller < g.end)
        return EAGAIN;
    return ((thread_fn)(uintptr_t)dlsym(RTLD_NEXT, "pthread_create"))(id, attr, run, user);
}

/* ---- a meeting and a grant: libzmq's functions, and a lock that it takes in connecting */

static bool is_grant(void *m, int n)
{
    void *(*data)(void *) = (void *(*)(void *))(uintptr_t)dlsym(RTLD_NEXT, "zmq_msg_data");

    return memmem(data(m), (size_t)n, "\"grant\"", 7) != NULL;
}

int zmq_msg_recv(void *m, void *socket, int flags);
int zmq_msg_recv(void *m, void *socket, int flags)
{
    int n = ((int (*)(void *, void *, int))(uintptr_t)dlsym(RTLD_NEXT, "zmq_msg_recv"))(m, socket, flags);

    heard = g.grant ? heard || (n >= 0 && is_grant(m, n)) : n >= 0;
    return n;
}

int zmq_connect(void *socket, const char *to);
int zmq_connect(void *socket, const char *to)
{
    int rc;

    connecting = g.meeting && getpid() == gettid();
    rc = ((int (*)(void *, const char *))(uintptr_t)dlsym(RTLD_NEXT, "zmq_connect"))(socket, to);
    connecting = false;
    return rc;
}

int zmq_close(void *socket);
int zmq_close(void *socket)
{
    int rc = ((int (*)(void *))(uintptr_t)dlsym(RTLD_NEXT, "zmq_close"))(socket);

    g.closed = true;
    return rc;
}

int pthread_mutex_lock(pthread_mutex_t *m)
{
    static int (*real)(pthread_mutex_t *);

    if (!real)
        real = (int (*)(pthread_mutex_t *))(uintptr_t)dlsym(RTLD_NEXT, "pthread_mutex_lock");
    if (connecting) {
        connecting = false;
        for (unsigned ms = 0; ms < 20000 && !g.closed; ms++)
            usleep(1000);
        usleep(100000); /* for what follows the closing */
    }
    return real(m);
}

#define CALLER __builtin_return_address(0)

void *malloc(size_t n) { return fails(CALLER) ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return fails(CALLER) ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n)
{
    Dl_info at;
    bool refused = g.ready && g.streams && dladdr(CALLER, &at) && strstr(at.dli_fname, "/libc.so");

    return refused || fails(CALLER) ? NULL : __libc_realloc(p, n);
}
void *aligned_alloc(size_t align, size_t n) { return fails(CALLER) ? NULL : __libc_memalign(align, n); }

char *strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = fails(CALLER) ? NULL : __libc_malloc(n);

    return copy ? memcpy(copy, s, n) : NULL;
}

char *strndup(const char *s, size_t most)
{
    size_t n = strnlen(s, most);
    char *copy = fails(CALLER) ? NULL : __libc_malloc(n + 1);

    if (copy) {
        memcpy(copy, s, n);
        copy[n] = '\0';
    }
    return copy;
}

/* What *to is after a failure is not said; this is no pointer to anything. */
__attribute__((format(printf, 3, 0))) static int print(char **to, bool failed, const char *format, va_list ap)
{
    va_list again;
    int n;

    *to = (char *)(uintptr_t)16;
    va_copy(again, ap);
    n = failed ? -1 : vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (n < 0 || !(*to = __libc_malloc((size_t)n + 1)))
        return -1;
    return vsnprintf(*to, (size_t)n + 1, format, ap);
}

int asprintf(char **to, const char *format, ...)
{
    bool failed = fails(CALLER);
    va_list ap;
    int n;

    va_start(ap, format);
    n = print(to, failed, format, ap);
    va_end(ap);
    return n;
}
