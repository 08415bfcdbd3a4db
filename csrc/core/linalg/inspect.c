/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at data without changing it. */
#include "kernels/dispatch.h"
#include "linalg/matrix.h"
#include "runtime/parallel.h"

typedef struct finite_job {
    const civ_exec *exec;
    const civ_mat *x;
    bool allow_minus_inf;
    civ_first_bad_fn kernel;
    int64_t *first_bad; /* one a row; -1 = none */
    int64_t *row;       /* of the first one, and its column */
    int64_t *col;
} finite_job;

static civ_status
scan_row(void *arg, int64_t row, int worker)
{
    (void)worker;
    const finite_job *job = arg;
    int64_t col =
        job->kernel(civ_row(job->x, row), job->x->n_cols, job->allow_minus_inf);
    job->first_bad[row] = col;
    return col < 0 ? CIV_OK : CIV_NONFINITE;
}

static void
carve(civ_arena *arena, void *arg)
{
    finite_job *job = arg;
    job->first_bad = civ_arena_take(arena, job->x->n_rows, sizeof *job->first_bad);
}

/*
 * Workers stop at the first bad row of their share, and the first failure by row is
 * the one reported, so rows after it are not looked at in vain.
 */
static civ_status
run(void *arg)
{
    finite_job *job = arg;
    int64_t n_rows = job->x->n_rows;
    for (int64_t i = 0; i < n_rows; i++) {
        job->first_bad[i] = -1;
    }
    civ_status status =
        civ_parallel_for(job->exec, n_rows, job->x->n_cols, scan_row, job);
    for (int64_t i = 0; i < n_rows && status == CIV_NONFINITE && *job->row < 0; i++) {
        *job->row = job->first_bad[i] < 0 ? -1 : i;
        *job->col = job->first_bad[i];
    }
    return status == CIV_NONFINITE ? CIV_OK : status;
}

civ_status
civ_find_nonfinite(const civ_exec *exec, const civ_mat *x, bool allow_minus_inf,
                   int64_t *row, int64_t *col)
{
    *row = *col = -1;
    finite_job job = {.exec = exec,
                      .x = x,
                      .allow_minus_inf = allow_minus_inf,
                      .kernel = civ_kernel_table()->first_bad[x->dtype],
                      .row = row,
                      .col = col};
    return civ_run_in_arena(carve, run, &job);
}
