/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Newton's method for a concave function of mu >= 0: the dual of the constraints in
 * a working set. Variables at zero whose gradient points outwards are held there; the
 * others take a Newton step, bent at the bounds, with a line search along the bend.
 */
#ifndef CIV_PCR_NEWTON_H
#define CIV_PCR_NEWTON_H

#include "linalg/matrix.h"

typedef struct civ_pcr_model {
    void *arg;
    int64_t n;      /* variables */
    double ceiling; /* a value beyond which there is no maximum */
    /*
     * Value and gradient at mu; false outside the domain. What it leaves behind in
     * arg is what `curvature` refers to.
     */
    bool (*value)(void *arg, const double *mu, double *value, double *gradient);
    /* out (n_free, n_free) = negative Hessian for the free variables, lower triangle.
     */
    void (*curvature)(void *arg, const int64_t *free, int64_t n_free,
                      const civ_mat *out);
} civ_pcr_model;

typedef struct civ_pcr_newton_work {
    double *gradient;       /* (n) at the last mu */
    double *trial;          /* (n) */
    double *trial_gradient; /* (n) */
    double *step;           /* (n) */
    int64_t *free;          /* (n) */
    double *right;          /* (n) gradient of the quadratic model */
    double *part_step;      /* (n) */
    int64_t *part;          /* (n) free variables not yet at a bound */
    double *matrix;         /* (n, n) */
    double *factor;         /* (n, n) */
} civ_pcr_newton_work;

void civ_pcr_newton_carve(civ_arena *arena, int64_t n, civ_pcr_newton_work *work);

typedef struct civ_pcr_newton_info {
    int64_t steps;   /* taken so far; counts on */
    double value;    /* at the last mu */
    double residual; /* largest gradient of a variable that may still move */
} civ_pcr_newton_info;

/*
 * Improves mu (n), first scaled into the domain, until the residual is at most `goal`,
 * no step helps any more, or `max_steps` were taken in all.
 */
civ_status civ_pcr_newton(const civ_exec *exec, const civ_pcr_model *model, double *mu,
                          double goal, int64_t max_steps, civ_pcr_newton_work *work,
                          civ_pcr_newton_info *info);

#endif
