/* SPDX-License-Identifier: Apache-2.0 */
/* What every solver of point-constrained regions is given and leaves behind. */
#ifndef CIV_PCR_PROBLEM_H
#define CIV_PCR_PROBLEM_H

#include "runtime/common.h"

/* Refuses shapes, storage types and settings that no solver can work with. */
civ_status civ_pcr_check(const civ_pcr_problem *problem, const civ_pcr_options *options,
                         const civ_pcr_result *result);

/* Appends a row to the history while there is room. */
void civ_pcr_record(const civ_pcr_result *result, civ_pcr_info *info,
                    const double row[CIV_PCR_HISTORY]);

#endif
