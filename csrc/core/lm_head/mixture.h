/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The prompts' weights in one step away from the risk region. With losses l_j, their
 * gradients c_j, the change delta and a step size t,
 *
 *     max over delta' in the ball of min_j [l_j + <c_j, delta' - delta>]
 *                                    - ||delta' - delta||^2 / (2 t)
 *   = min over w on the simplex of phi(w),
 *
 * and delta' is the projection of delta + t sum_j w_j c_j. phi is convex and smooth,
 * and inner products are all that it needs.
 */
#ifndef CIV_MIXTURE_H
#define CIV_MIXTURE_H

#include "linalg/matrix.h"

typedef struct civ_mixture {
    civ_mat inner;  /* <c_i, c_j> (m, m) */
    double *losses; /* l (m) */
    double *along;  /* <c_j, delta> (m) */
    double square;  /* ||delta||^2 */
    double radius;
    double step;  /* t */
    double *work; /* 5 m */
} civ_mixture;

typedef struct civ_mixture_info {
    double value; /* phi(w) */
    double slope; /* ||sum_j w_j c_j||^2 */
    double along; /* <sum_j w_j c_j, delta> */
    double loss;  /* sum_j w_j l_j */
    double scale; /* delta' = scale (delta + t sum_j w_j c_j) */
} civ_mixture_info;

/*
 * Improves the weights (m), already on the simplex, by projected gradient with
 * momentum, until phi(w) is within `tolerance` of its minimum, or 500 times.
 */
civ_status civ_mixture_solve(const civ_mixture *self, double tolerance, double *weights,
                             civ_mixture_info *info);

#endif
