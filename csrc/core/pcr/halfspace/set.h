/* SPDX-License-Identifier: Apache-2.0 */
/* State of the solver for half-spaces alone: see solve.c. */
#ifndef CIV_PCR_HALFSPACE_H
#define CIV_PCR_HALFSPACE_H

#include "pcr/common/newton.h"
#include "pcr/common/working_set.h"
#include "pcr/halfspace/quadratic.h"

/* How many constraints may join for each one with a positive multiplier, and from a
 * prompt. */
#define CIV_PCR_GROWTH 4
/* Candidates wanted at a time of a stiff program: those after a prompt's first are
 * often no longer violated once that one is dealt with. */
#define CIV_PCR_STIFF_OFFERS 8

/* A positive multiplier: number of its prompt in J, its direction and size. */
typedef struct civ_pcr_multiplier {
    int64_t place;
    int64_t point;
    double mu;
} civ_pcr_multiplier;

typedef struct civ_pcr_halfspace {
    const civ_exec *exec;
    civ_pcr_frame frame;
    civ_mat pair;      /* <u_l, u_l'> (p, p) */
    civ_mat weights;   /* G_jJ for the prompts J in use (m, |J|) */
    double *packed;    /* room for it */
    double *responses; /* <A_J, u_l> / gram_unit (p, |J|) */
    int64_t *place;    /* index of a prompt in J, or -1 (m) */
    int64_t *used;     /* J (m) */
    int64_t n_used;
    /* what grows with the working set */
    civ_arena growing;
    civ_pcr_working_set set;
    civ_mat hessian;              /* (capacity, capacity) */
    int64_t n_known;              /* rows of the Hessian that are computed */
    civ_pcr_multiplier *positive; /* (capacity) */
    int64_t n_positive;
    civ_pcr_quadratic program;
    bool stiff; /* the program is not for sweeps */
    civ_pcr_newton_work newton;
} civ_pcr_halfspace;

/* Takes the memory that does not grow, for a state whose frame has its space. */
void civ_pcr_halfspace_carve(civ_arena *arena, civ_pcr_halfspace *s);

/* Empties the working set; the candidates are the constraints violated at the start. */
void civ_pcr_halfspace_start(civ_pcr_halfspace *s, int64_t per_prompt);

/* Constraints that there are. */
int64_t civ_pcr_halfspace_count(const civ_pcr_halfspace *s);

/* Lets `count` ranked candidates join. */
civ_status civ_pcr_halfspace_admit(civ_pcr_halfspace *s, int64_t count);

/* Checks every constraint; candidates are those violated outside the set. Returns the
 * largest violation, as a length over the unit. */
double civ_pcr_halfspace_scan(civ_pcr_halfspace *s);

#endif
