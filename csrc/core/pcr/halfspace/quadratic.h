/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The quadratic program max b . mu - mu^T H mu / 2, mu >= 0, with H in memory.
 *
 * Sweeps over the variables, each set to its best value in turn, tell at little cost
 * which ones end at zero. Newton steps on the others finish. They share one factor:
 * variables that leave or enter afterwards border its system.
 */
#ifndef CIV_PCR_QUADRATIC_H
#define CIV_PCR_QUADRATIC_H

#include "linalg/matrix.h"

/* Most variables that may have left or entered before the factor is renewed. */
#define CIV_PCR_BORDER 32

typedef struct civ_pcr_quadratic {
    int64_t n;           /* variables; those at the end may join later */
    civ_mat hessian;     /* H, row-major (n, n) in rows of its capacity */
    const double *bound; /* b (n) */
    double *mu;          /* (n) */
    double *slope;       /* b - H mu (n) */
    double value;        /* at mu, when it was last evaluated */
    int64_t steps;       /* sweeps and Newton steps so far */
    /* work */
    double *trial;       /* (n) */
    double *trial_slope; /* (n) */
    int64_t *factored;   /* variables that the factor is of (n_factored) */
    int64_t n_factored;  /* 0: there is no factor */
    int64_t *place;      /* of a variable among them, or -1 (n) */
    double *factor;      /* (n_factored, n_factored) */
    double *border;      /* (CIV_PCR_BORDER + 1, n_factored) */
} civ_pcr_quadratic;

/* Memory for `capacity` variables; hessian, bound and mu are the caller's. */
void civ_pcr_quadratic_carve(civ_arena *arena, int64_t capacity, civ_pcr_quadratic *q);

/* Value and slope (n) at mu. */
void civ_pcr_quadratic_evaluate(const civ_pcr_quadratic *q, const double *mu,
                                double *value, double *slope);

/* Lets variables up to the n-th join. */
void civ_pcr_quadratic_extend(int64_t n, civ_pcr_quadratic *q);

/* Sweeps until hardly a variable leaves zero or comes to it; *settled tells whether it
 * came to that. */
civ_status civ_pcr_quadratic_sweep(const civ_exec *exec, int64_t max_steps,
                                   civ_pcr_quadratic *q, bool *settled);

/*
 * Newton steps from where the sweeps have led, until no slope that matters is beyond
 * `goal`, or for as long as they help: *solved tells which.
 */
civ_status civ_pcr_quadratic_finish(const civ_exec *exec, double goal,
                                    int64_t max_steps, civ_pcr_quadratic *q,
                                    bool *solved);

#endif
