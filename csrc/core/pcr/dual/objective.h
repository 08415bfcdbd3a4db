/* SPDX-License-Identifier: Apache-2.0 */
/* The dual of the working set, and its maximum. */
#ifndef CIV_PCR_DUAL_OBJECTIVE_H
#define CIV_PCR_DUAL_OBJECTIVE_H

#include "pcr/dual/state.h"

/* Solves the dual of the working set, once it is prepared: mu, and A over the basis. */
civ_status civ_pcr_dual_maximise(civ_pcr_dual *s, double goal, int64_t max_steps);

/* Least squared pivot of I - N^1/2 G N^1/2 at the last mu: an upper bound on its least
 * eigenvalue, and how far inside the domain mu lies. */
double civ_pcr_dual_depth(const civ_pcr_dual *s);

/* out = A = (N D + Q + kappa anchor) / (1 + kappa) at the last mu, from D and what it
 * was made of, or from the inner products of both. */
void civ_pcr_dual_combine(const civ_pcr_dual *s, const civ_mat *moved,
                          const civ_mat *target, const civ_mat *out);

#endif
