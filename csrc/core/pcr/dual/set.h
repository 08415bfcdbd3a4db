/* SPDX-License-Identifier: Apache-2.0 */
/* The working set of the dual solver: its memory, and how it grows. */
#ifndef CIV_PCR_DUAL_SET_H
#define CIV_PCR_DUAL_SET_H

#include "pcr/dual/state.h"

/* Takes the memory that does not grow, for a state whose frame has its space. */
void civ_pcr_dual_carve(civ_arena *arena, civ_pcr_dual *s);

/* Empties the working set; the candidates are the constraints violated at the start.
 * careful: inner products of constraints come from their vectors, always. */
void civ_pcr_dual_start(bool careful, civ_pcr_dual *s);

/* Lets `count` ranked candidates join. */
civ_status civ_pcr_dual_admit(civ_pcr_dual *s, int64_t count);

/* Everything that follows from the working set and the free directions. */
civ_status civ_pcr_dual_prepare(civ_pcr_dual *s);

#endif
