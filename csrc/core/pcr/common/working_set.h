/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The working set of the exact solvers: the constraints that may be active. All else
 * is only checked now and then, and joins when it is violated.
 *
 * The dual is solved in units in which the largest length and the largest diagonal
 * element of G are 1. A constraint reads a ||D_j||^2 + 2 r . D_j >= b, where for a
 * concept a = 1, r = o_j - c_i, b = radius^2 - ||r||^2, and for a direction a = 0,
 * r = -u, b = 2 (u . o_j - offset).
 */
#ifndef CIV_PCR_WORKING_SET_H
#define CIV_PCR_WORKING_SET_H

#include "pcr/common/space.h"

/* Part of the tolerance to which the dual of a working set is solved. */
#define CIV_PCR_EFFORT 1e-2
/* A dual value beyond this, in its own units, is taken for infinity. */
#define CIV_PCR_INFEASIBLE 1e12

typedef struct civ_pcr_working_set {
    int64_t n;        /* constraints in the set */
    int64_t capacity; /* that the arrays have room for */
    int64_t *prompt;  /* j (capacity) */
    int64_t *point;   /* l (capacity) */
    double *bound;    /* b (capacity) */
    double *mu;       /* multiplier (capacity) */
} civ_pcr_working_set;

/* A violated constraint outside the set; sorts by falling violation. */
typedef struct civ_pcr_candidate {
    double violation; /* as a length over the unit */
    int64_t prompt;
    int64_t point;
} civ_pcr_candidate;

/* What the exact solvers hold besides their working set. */
typedef struct civ_pcr_frame {
    const civ_pcr_space *space;
    double gram_unit;              /* largest diagonal element of G */
    bool *member;                  /* which pairs (m, p) are in the set */
    civ_pcr_candidate *candidates; /* (m, as many as a prompt may offer) */
    int64_t n_candidates;
    int64_t per_prompt; /* how many a prompt may offer */
    int64_t n_offered;  /* by the prompt at hand; the last ones of the candidates */
} civ_pcr_frame;

/* Cost in the problem's units of a cost of 1 in those of the dual. */
CIV_INLINE double
civ_pcr_cost_unit(const civ_pcr_frame *frame)
{
    double unit = frame->space->unit;
    return unit * unit / frame->gram_unit;
}

void civ_pcr_working_set_carve(civ_arena *arena, int64_t capacity,
                               civ_pcr_working_set *set);
/* Copies the set into one of larger capacity. */
void civ_pcr_working_set_copy(const civ_pcr_working_set *from, civ_pcr_working_set *to);

/* Candidates that a prompt may offer when `wanted` are wanted of all: at least one. */
CIV_INLINE int64_t
civ_pcr_share(const civ_pcr_space *space, int64_t wanted)
{
    return civ_max(1, wanted / civ_max(space->m, 1));
}

/* most: how many a prompt may ever offer, and may at first. */
void civ_pcr_frame_carve(civ_arena *arena, const civ_pcr_space *space, int64_t most,
                         civ_pcr_frame *frame);
void civ_pcr_frame_start(civ_pcr_frame *frame);

/* Forgets all candidates. */
void civ_pcr_clear_offers(civ_pcr_frame *frame);

/* Begins with a prompt, whose most violated constraints will become candidates. */
void civ_pcr_open_offers(civ_pcr_frame *frame);

/* Offers a violated constraint that is not in the set. */
void civ_pcr_offer(civ_pcr_frame *frame, civ_pcr_candidate candidate);

/* Starts over with the violations of the unmoved outputs. */
void civ_pcr_offer_initial(civ_pcr_frame *frame);

/* Number of candidates to admit: all violated beyond `goal`, but at most `most`. */
int64_t civ_pcr_rank_candidates(civ_pcr_frame *frame, double goal, int64_t most);

/* Puts the first `count` candidates into the set, with multipliers of zero. */
void civ_pcr_admit(civ_pcr_frame *frame, int64_t count, civ_pcr_working_set *set);

#endif
