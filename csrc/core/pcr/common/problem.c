/* SPDX-License-Identifier: Apache-2.0 */
#include "pcr/common/problem.h"

#include "linalg/matrix.h"

#include <string.h>

civ_pcr_options
civ_pcr_options_default(void)
{
    return (civ_pcr_options){.struct_size = sizeof(civ_pcr_options),
                             .tolerance = 1e-10,
                             .max_iterations = 100000};
}

static civ_status
check_matrix(const civ_mat *x, int64_t n_rows, int64_t n_cols)
{
    CIV_FAIL_IF(x->n_rows != n_rows || x->n_cols != n_cols, CIV_SHAPE);
    CIV_FAIL_IF(x->dtype != CIV_F64, CIV_DTYPE);
    CIV_FAIL_IF(x->row_stride < n_cols, CIV_INVALID_ARGUMENT);
    return CIV_OK;
}

civ_status
civ_pcr_check(const civ_pcr_problem *problem, const civ_pcr_options *options,
              const civ_pcr_result *result)
{
    int64_t m = problem->outputs.n_rows, d = problem->outputs.n_cols;
    int64_t n = problem->concepts.n_rows, k = problem->directions.n_rows;
    CIV_FAIL_IF(options->struct_size != sizeof(civ_pcr_options), CIV_INVALID_ARGUMENT);
    CIV_FAIL_IF(!(options->tolerance > 0.0), CIV_INVALID_ARGUMENT);
    CIV_FAIL_IF(options->max_iterations < 0 || d < 1, CIV_INVALID_ARGUMENT);
    CIV_TRY(civ_check_table(m + n + k, m + n + k + d));
    CIV_TRY(check_matrix(&problem->gram, m, m));
    CIV_TRY(check_matrix(&problem->outputs, m, d));
    CIV_TRY(check_matrix(&problem->concepts, n, d));
    CIV_TRY(check_matrix(&problem->radius, m, n));
    CIV_TRY(check_matrix(&problem->directions, k, d));
    CIV_TRY(check_matrix(&problem->offsets, m, k));
    CIV_TRY(check_matrix(&result->coefficients, m, d));
    CIV_TRY(check_matrix(&result->multipliers, m, n + k));
    CIV_TRY(check_matrix(&result->displacements, m, d));
    CIV_TRY(check_matrix(&result->margins, m, n + k));
    CIV_TRY(check_matrix(&result->history, result->history.n_rows, CIV_PCR_HISTORY));
    for (int64_t j = 0; j < m; j++) {
        CIV_FAIL_IF(!(*civ_at(&problem->gram, j, j) > 0.0), CIV_INVALID_ARGUMENT);
    }
    return CIV_OK;
}

void
civ_pcr_record(const civ_pcr_result *result, civ_pcr_info *info,
               const double row[CIV_PCR_HISTORY])
{
    if (info->history_rows < result->history.n_rows) {
        memcpy(civ_at(&result->history, info->history_rows, 0), row,
               CIV_PCR_HISTORY * sizeof(double));
        info->history_rows++;
    }
}
