/* Workers on whose machine the folder or the files of a job are not (a disk that is not mounted, a root
 * too few), or that may take too little memory for it. While another worker may have them, such a one gets
 * nothing of the job; nor for a lease after one has left that had them, which may be started anew. */
#include "daemon/coord_priv.h"

#define LACKS_MS 600000u

static const struct lack *find_lack(const struct sl_coord *c, const struct worker *w, const struct job *j)
{
    for (uint32_t i = 0; i < w->n_lacks; i++)
        if (w->lacks[i].job == j->id && w->lacks[i].until_ms > c->now.run_ms)
            return &w->lacks[i];
    return NULL;
}

static bool another_may(const struct sl_coord *c, const struct worker *w, const struct job *j)
{
    if (j->left_ms && c->now.run_ms < j->left_ms + c->o.lease_ms)
        return true;
    for (uint32_t i = 0; i < c->n_workers; i++) {
        const struct worker *o = c->workers[i];

        if (o != w && o->peer && !o->draining && !find_lack(c, o, j))
            return true;
    }
    return false;
}

/* Takes out this job's, and what is over. */
static void tidy(const struct sl_coord *c, struct worker *w, uint64_t job)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < w->n_lacks; i++)
        if (w->lacks[i].job != job && w->lacks[i].until_ms > c->now.run_ms)
            w->lacks[n++] = w->lacks[i];
    w->n_lacks = n;
}

int coord_note_lack(struct sl_coord *c, struct worker *w, const struct job *j, enum lacking what, bool *another,
                    struct sl_error *e)
{
    tidy(c, w, j->id);
    SL_TRY(coord_grow(&w->lacks, w->n_lacks, &w->cap_lacks, sizeof *w->lacks, e));
    w->lacks[w->n_lacks++] = (struct lack){j->id, c->now.run_ms + LACKS_MS, what};
    *another = another_may(c, w, j);
    return 0;
}

void coord_note_left(struct sl_coord *c, const struct worker *w)
{
    for (uint32_t i = 0; i < c->n_jobs; i++)
        if (coord_has_spec(w, c->jobs[i]->id) && !find_lack(c, w, c->jobs[i]))
            c->jobs[i]->left_ms = c->now.run_ms;
}

bool coord_lacks_what(const struct sl_coord *c, const struct worker *w, const struct job *j, enum lacking what)
{
    const struct lack *l = find_lack(c, w, j);

    return l && l->what == what;
}

bool coord_saw_none(const struct sl_coord *c, const struct job *j)
{
    for (uint32_t i = 0; i < c->n_workers; i++)
        if (c->workers[i]->peer && coord_lacks_what(c, c->workers[i], j, LACKS_FILES))
            return true;
    return false;
}

void coord_forget_lacks(struct sl_coord *c, const struct job *j)
{
    for (uint32_t i = 0; i < c->n_workers; i++)
        tidy(c, c->workers[i], j->id);
}

bool coord_lacks(const struct sl_coord *c, const struct worker *w, const struct job *j)
{
    return w->n_lacks && find_lack(c, w, j) && another_may(c, w, j);
}
