/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments, curvature and records of civ_tsr and civ_arr. */
#ifndef CIV_HEAD_BOUNDS_H
#define CIV_HEAD_BOUNDS_H

#include "lm_head/head.h"

civ_status civ_head_check(const civ_head_problem *problem,
                          const civ_head_options *options,
                          const civ_head_result *result);

/*
 * A bound on the eigenvalues of the Hessian of sum_j weights_j loss_j with respect to
 * delta, from above, or from below with the sign turned: a softmax has none above 1/2,
 * and the subtracted one of a single token is constant.
 */
double civ_head_curvature(const civ_head *self, const double *weights, bool below);

/* The most that <c, v> + curvature / 2 ||v||^2 can be for v = u - delta, u in the ball,
 * from ||c||^2, <c, delta> and ||delta||^2. */
double civ_head_reach(double radius, double curvature, double slope, double along,
                      double square);

/* Appends a row to the history while there is room. */
void civ_head_record(const civ_head_result *result, civ_head_info *info, double step);

#endif
