/* SPDX-License-Identifier: Apache-2.0 */
/* From coefficients to what they do, with the vectors themselves. */
#ifndef CIV_PCR_FINISH_H
#define CIV_PCR_FINISH_H

#include "runtime/common.h"

/*
 * Displacements and margins from the coefficients, and what they say about the
 * outcome: a solver that believes it has converged may be wrong.
 */
civ_status civ_pcr_finish(const civ_exec *exec, const civ_pcr_problem *problem,
                          const civ_pcr_options *options, const civ_pcr_result *result,
                          civ_pcr_info *info);

#endif
