/* SPDX-License-Identifier: Apache-2.0 */
/* Inner products of the working set's constraints with all outputs and points. */
#ifndef CIV_PCR_DUAL_TABLE_H
#define CIV_PCR_DUAL_TABLE_H

#include "pcr/dual/state.h"

/* Whether outputs and points are so much longer than the constraints' r that inner
 * products of the r would lose digits if they came from those of outputs and points. */
bool civ_pcr_dual_cancels(const civ_pcr_space *space);

void civ_pcr_dual_known_carve(civ_arena *arena, int64_t capacity, int64_t q,
                              civ_pcr_dual_known *known);
/* Copies the rows; the places are shared. */
void civ_pcr_dual_known_copy(const civ_pcr_dual_known *from, civ_pcr_dual_known *to);

/* Fills the table for the constraints from `first` on. */
civ_status civ_pcr_dual_extend_table(civ_pcr_dual *s, int64_t first);

/* table (rows, q) = inner products of vectors with all outputs and points. */
civ_status civ_pcr_dual_products(const civ_pcr_dual *s, const civ_mat *vectors,
                                 double *table);

#endif
