/* SPDX-License-Identifier: Apache-2.0 */
/* Displacements of the dual solver outside the span of the constraints. */
#ifndef CIV_PCR_DUAL_FREE_DIRECTIONS_H
#define CIV_PCR_DUAL_FREE_DIRECTIONS_H

#include "pcr/dual/state.h"

/* Turns what the barrier holds outside the span into displacements along directions of
 * their own. */
civ_status civ_pcr_dual_open_free_directions(civ_pcr_dual *s);

#endif
