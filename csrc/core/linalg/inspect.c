/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at data without changing it. */
#include "kernels/dispatch.h"
#include "linalg/matrix.h"
#include "runtime/parallel.h"

typedef struct finite_job {
    const civ_mat *x;
    bool allow_minus_inf;
    civ_first_bad_fn kernel;
} finite_job;

static int64_t
first_bad(const finite_job *job, int64_t row)
{
    return job->kernel(civ_row(job->x, row), job->x->n_cols, job->allow_minus_inf);
}

static civ_status
scan_row(void *arg, int64_t row, int worker)
{
    (void)worker;
    return first_bad(arg, row) < 0 ? CIV_OK : CIV_NONFINITE;
}

/* Which row it was is found once more, one after the other: no memory is needed, so
 * looking cannot fail. */
civ_status
civ_find_nonfinite(const civ_exec *exec, const civ_mat *x, bool allow_minus_inf,
                   int64_t *row, int64_t *col)
{
    *row = *col = -1;
    if (x->n_cols == 0) {
        return CIV_OK; /* however many rows an empty matrix says it has */
    }
    finite_job job = {x, allow_minus_inf, civ_kernel_table()->first_bad[x->dtype]};
    civ_status status = civ_parallel_for(exec, x->n_rows, x->n_cols, scan_row, &job);
    if (status != CIV_NONFINITE) {
        return status;
    }
    for (int64_t i = 0; i < x->n_rows && *row < 0; i++) {
        *col = first_bad(&job, i);
        *row = *col < 0 ? -1 : i;
    }
    return CIV_OK;
}
