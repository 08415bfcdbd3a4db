/* SPDX-License-Identifier: Apache-2.0 */
/* The mean of the rows of a matrix, and the rows about it. */
#ifndef CIV_CENTRE_H
#define CIV_CENTRE_H

#include "runtime/common.h"

/* mean (n_cols) of the rows of x, and out = x - mean; float64. The mean of no rows is
 * zero. */
civ_status civ_centre(const civ_exec *exec, const civ_mat *x, double *mean,
                      const civ_mat *out);

#endif
