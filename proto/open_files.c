#include "proto/open_files.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define ZMQ_THREADS 2
#define DEFAULT_STACK (2u << 20) /* glibc's, where there is no limit */
#define BESIDE_STACKS (4u << 20)

void sl_open_files_allow(void)
{
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        (void)!setrlimit(RLIMIT_NOFILE, &l);
    }
}

int sl_open_files_room(unsigned n, struct sl_error *e)
{
    struct rlimit l;
    unsigned room = 0;
    uint64_t advice = 1024;

    if (getrlimit(RLIMIT_NOFILE, &l) != 0)
        return 0;
    for (rlim_t fd = 0; fd < l.rlim_cur && room < n; fd++)
        room += fcntl((int)fd, F_GETFD) < 0;
    while (room < n && advice < l.rlim_cur + n)
        advice *= 2;
    return room == n ? 0
                     : sl_fail(e, SL_EFAIL, "no more than %llu files may be open, which is too few; allow more: "
                               "ulimit -n %llu, or LimitNOFILE=", (unsigned long long)l.rlim_cur,
                               (unsigned long long)advice);
}

int sl_address_room(size_t bytes, struct sl_error *e)
{
    void *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return sl_fail(e, SL_EFAIL, "out of memory: %zu MiB of address space for threads are needed; raise the limit "
                       "(ulimit -v)", bytes >> 20);
    munmap(p, bytes);
    return 0;
}

static int stack_room(struct sl_error *e)
{
    struct rlimit l;
    bool told = getrlimit(RLIMIT_STACK, &l) == 0 && l.rlim_cur != RLIM_INFINITY;

    return sl_address_room(ZMQ_THREADS * (told ? (size_t)l.rlim_cur : DEFAULT_STACK) + BESIDE_STACKS, e);
}

/* Its threads set the scheduling that they have. */
static int scheduling_room(struct sl_error *e)
{
    struct sched_param p;
    int policy = sched_getscheduler(0);

    if (policy < 0 || sched_getparam(0, &p) != 0 || sched_setscheduler(0, policy, &p) < 0)
        return sl_fail(e, SL_EFAIL, "threads may not set their scheduling: %s; allow sched_getscheduler, sched_getparam and "
                       "sched_setscheduler here (seccomp, SystemCallFilter=)", strerror(errno));
    return 0;
}

/* A process that has ended counts as much as a thread does, until it is waited for. */
int sl_zmq_room(struct sl_error *e)
{
    pid_t child[ZMQ_THREADS] = {0};
    int err = 0;

    SL_TRY(sl_open_files_room(SL_ZMQ_FILES, e));
    SL_TRY(stack_room(e));
    SL_TRY(scheduling_room(e));
    for (unsigned i = 0; i < ZMQ_THREADS && !err; i++) {
        child[i] = vfork();
        if (child[i] == 0)
            _exit(0);
        err = child[i] < 0 ? errno : 0;
    }
    for (unsigned i = 0; i < ZMQ_THREADS; i++)
        while (child[i] > 0 && waitpid(child[i], NULL, 0) < 0 && errno == EINTR)
            ;
    return err == EAGAIN || err == ENOMEM ? sl_fail_thread(e, err) : 0;
}
