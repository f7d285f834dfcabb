#include "worker/slab.h"

#include "proto/size_text.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define SLAB_USUAL (4 * SL_MIB)
#define SLAB_WIDE (16 * SL_MIB)
#define SLAB_SMALL (SL_MIB / 2)
#define SLABS_FEWEST 3u  /* one read, one converted, one written */
#define READS_AHEAD 16u
#define JOB_SHARE 4u

/* Buffers for a job of a few seconds need not be those of a day: registered ones
 * are resident, used or not. */
static uint64_t enough_for(uint64_t job_bytes, uint64_t least, uint64_t budget)
{
    uint64_t few = (SLABS_FEWEST + 1) * (least > SLAB_SMALL ? least : SLAB_SMALL) + SLABS_FEWEST * 4096;
    uint64_t share = job_bytes / JOB_SHARE;

    share = share > few ? share : few;
    return share < budget ? share : budget;
}

int sl_slabs_enough(uint64_t mem_bytes, struct sl_error *e)
{
    char a[32], b[32];

    if (mem_bytes >= SL_MEM_MIN)
        return 0;
    return sl_fail(e, SL_EUSAGE, "memory of %s is too little: at least %s are needed", sl_size_text(a, mem_bytes),
                   sl_size_text(b, SL_MEM_MIN));
}

int sl_slabs_choose(uint64_t mem_bytes, unsigned threads, uint64_t scratch, uint64_t least, bool wide,
                    uint64_t beside, uint64_t forced, uint64_t job_bytes, struct sl_slabs *out, struct sl_error *e)
{
    uint64_t rest = mem_bytes / 5 < 160 * SL_MIB ? mem_bytes / 5 : 160 * SL_MIB;
    uint64_t wanted = 2 * (uint64_t)threads + READS_AHEAD, size = wide ? SLAB_WIDE : SLAB_USUAL, budget, need;

    SL_TRY(sl_slabs_enough(mem_bytes, e));
    rest = rest > beside ? rest : beside;
    budget = mem_bytes > rest && mem_bytes - rest > scratch ? mem_bytes - rest - scratch : 0;
    if (job_bytes && !forced)
        budget = enough_for(job_bytes, least, budget);
    while (size > SLAB_SMALL && budget / size < wanted)
        size /= 2;
    if (forced)
        size = forced < SL_SLAB_MIN ? SL_SLAB_MIN : forced;
    if (size < least)
        size = least;
    size = (size + 4095) / 4096 * 4096;
    if (size > INT32_MAX || budget / size < SLABS_FEWEST) {
        need = (size * SLABS_FEWEST + scratch) / 4 * 5 + SL_MIB;
        if (need < size * SLABS_FEWEST + scratch + beside)
            need = size * SLABS_FEWEST + scratch + beside;
        return sl_fail(e, SL_EUSAGE,
                       "memory of %llu MiB is too little for this model (its plan and its "
                       "longest rows) and %u threads: %llu MiB are needed", (unsigned long long)(mem_bytes / SL_MIB), threads,
                       (unsigned long long)(need / SL_MIB + 1));
    }
    out->base = NULL;
    out->slab_bytes = size;
    out->n = (unsigned)(budget / size < wanted ? budget / size : wanted);
    return 0;
}

int sl_slabs_open(struct sl_slabs *s, struct sl_error *e)
{
    uint64_t bytes = s->n * s->slab_bytes;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return sl_fail(e, SL_EFAIL, "cannot map %llu MiB of buffers: %s",
                       (unsigned long long)(bytes / SL_MIB), strerror(errno));
    madvise(p, bytes, MADV_HUGEPAGE);
    s->base = p;
    return 0;
}

void sl_slabs_close(struct sl_slabs *s)
{
    if (s->base)
        munmap(s->base, s->n * s->slab_bytes);
    s->base = NULL;
}
