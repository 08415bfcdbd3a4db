/* SPDX-License-Identifier: Apache-2.0 */
/* What the exact solvers have in common. */
#ifndef CIV_PCR_EXACT_H
#define CIV_PCR_EXACT_H

#include "pcr/common/working_set.h"
#include "pcr/common/newton.h"

/* Part of the tolerance to which the dual of a working set is solved. */
#define CIV_PCR_EFFORT 1e-2
/* A dual value beyond this, in its own units, is taken for infinity. */
#define CIV_PCR_INFEASIBLE 1e12

/*
 * Whether the multipliers of the half-spaces alone prove that no displacements meet
 * them: Q, the sum of mu r, costs nothing although b . mu > 0. Multipliers of
 * concepts, which cannot take part in a contradiction, are zeroed if so.
 */
civ_status civ_pcr_contradicts(const civ_exec *exec, const civ_pcr_space *space,
                               const civ_mat *multipliers, bool *proved);

/* Cost in the problem's units of a cost of 1 in those of the dual. */
CIV_INLINE double
civ_pcr_cost_unit(const civ_pcr_frame *frame)
{
    double unit = frame->space->unit;
    return unit * unit / frame->gram_unit;
}

/*
 * Both add to zeroed coefficients and multipliers, and set outcome, iterations and
 * history. Half-spaces alone are a quadratic program; concepts bring curvature.
 */
civ_status civ_pcr_halfspace_solve(const civ_exec *exec, const civ_pcr_space *space,
                                   const civ_pcr_options *options,
                                   const civ_pcr_result *result, civ_pcr_info *info);
civ_status civ_pcr_dual_solve(const civ_exec *exec, const civ_pcr_space *space,
                              const civ_pcr_options *options,
                              const civ_pcr_result *result, civ_pcr_info *info);

#endif
