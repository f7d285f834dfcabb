/* What was probably meant by a word that is not known. */
#ifndef SLUICE_PROTO_SUGGEST_H
#define SLUICE_PROTO_SUGGEST_H

struct suggestion {
    const char *word;    /* what was typed */
    const char *best;    /* NULL while nothing is near enough */
    unsigned distance;   /* of best */
};

/* Returns how many letters are wrong, missing, too many or swapped between two words; UINT_MAX when one
 * has more than 40. */
unsigned suggest_distance(const char *a, const char *b);

/* Effect: takes a candidate when it is nearer than s->best: at most one letter in three wrong, missing, too
 * many or swapped; or it begins with the word. It is borrowed. */
void suggest_try(struct suggestion *s, const char *candidate);

#endif
