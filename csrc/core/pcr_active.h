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
#ifndef CIV_PCR_ACTIVE_H
#define CIV_PCR_ACTIVE_H

#include "pcr.h"

typedef struct pcr_active {
    int64_t n;        /* constraints in the set */
    int64_t capacity; /* that the arrays have room for */
    int64_t *prompt;  /* j (capacity) */
    int64_t *point;   /* l (capacity) */
    double *bound;    /* b (capacity) */
    double *mu;       /* multiplier (capacity) */
} pcr_active;

/* A violated constraint outside the set; sorts by falling violation. */
typedef struct pcr_candidate {
    double violation; /* as a length over the unit */
    int64_t prompt;
    int64_t point;
} pcr_candidate;

/* What the exact solvers hold besides their working set. */
typedef struct pcr_frame {
    const pcr_space *space;
    double gram_unit;          /* largest diagonal element of G */
    bool *member;              /* which pairs (m, p) are in the set */
    pcr_candidate *candidates; /* one a prompt (m) */
    int64_t n_candidates;
} pcr_frame;

void pcr_active_carve(civ_arena *arena, int64_t capacity, pcr_active *active);
/* Copies the set into one of larger capacity. */
void pcr_active_copy(const pcr_active *from, pcr_active *to);

void pcr_frame_carve(civ_arena *arena, const pcr_space *space, pcr_frame *frame);
void pcr_frame_start(pcr_frame *frame);

/* Offers the most violated constraint of a prompt that is not in the set. */
void pcr_offer(pcr_frame *frame, int64_t prompt, int64_t point, double violation);

/* Starts over with the violations of the unmoved outputs. */
void pcr_offer_initial(pcr_frame *frame);

/* Number of candidates to admit: all violated beyond `goal`, but at most `most`. */
int64_t pcr_rank_candidates(pcr_frame *frame, double goal, int64_t most);

/* Puts the first `count` candidates into the set, with multipliers of zero. */
void pcr_admit(pcr_frame *frame, int64_t count, pcr_active *active);

#endif
