/* SPDX-License-Identifier: Apache-2.0 */
/* Passes over tiles of columns of the matrices of a linear head. */
#ifndef CIV_HEAD_TILES_H
#define CIV_HEAD_TILES_H

#include "lm_head/head.h"

/*
 * response = G diag(weights) gradient; weights NULL: ones. With `here`, sum receives
 * the inner products of first_order/pgd.h.
 */
civ_status civ_head_respond(const civ_exec *exec, civ_head *self, const double *weights,
                            const civ_mat *gradient, const civ_mat *response,
                            const civ_pgd_point *here, const civ_pgd_point *trail,
                            double *sum);

/*
 * inner (m, m) = G_ij <g_i, g_j>, along (m) = <g_j, D_j>, *square = <A, D>: the inner
 * products of the losses' gradients with respect to delta, and of delta itself.
 */
civ_status civ_head_align(const civ_exec *exec, civ_head *self, const civ_mat *gradient,
                          const civ_pgd_point *here, const civ_mat *inner,
                          double *along, double *square);

#endif
