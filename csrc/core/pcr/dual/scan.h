/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of every constraint at the solution of the working set's dual. */
#ifndef CIV_PCR_DUAL_SCAN_H
#define CIV_PCR_DUAL_SCAN_H

#include "pcr/dual/state.h"

/* Checks every constraint at the solution; candidates are those violated. */
civ_status civ_pcr_dual_scan(civ_pcr_dual *s, double *largest);

#endif
