/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at data without changing it. */
#include "kernels/dispatch.h"
#include "linalg/matrix.h"
#include "runtime/parallel.h"

typedef struct finite_job {
    const civ_mat *x;
    bool allow_minus_inf;
    civ_first_bad_fn kernel;
    int64_t *first_bad; /* one a row; -1 = none */
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
carve(civ_arena *arena, finite_job *job)
{
    job->first_bad = civ_arena_take(arena, job->x->n_rows, sizeof *job->first_bad);
}

/*
 * Workers stop at the first bad row of their share, and the first failure by row is
 * the one reported, so rows after it are not looked at in vain.
 */
civ_status
civ_find_nonfinite(const civ_exec *exec, const civ_mat *x, bool allow_minus_inf,
                   int64_t *row, int64_t *col)
{
    *row = *col = -1;
    finite_job job = {.x = x,
                      .allow_minus_inf = allow_minus_inf,
                      .kernel = civ_kernel_table()->first_bad[x->dtype]};
    civ_arena arena = {0};
    carve(&arena, &job);
    CIV_TRY(civ_arena_open(&arena));
    carve(&arena, &job);
    for (int64_t i = 0; i < x->n_rows; i++) {
        job.first_bad[i] = -1;
    }
    civ_status status = civ_parallel_for(exec, x->n_rows, x->n_cols, scan_row, &job);
    for (int64_t i = 0; i < x->n_rows && status == CIV_NONFINITE && *row < 0; i++) {
        *row = job.first_bad[i] < 0 ? -1 : i;
        *col = job.first_bad[i];
    }
    civ_arena_close(&arena);
    return status == CIV_NONFINITE ? CIV_OK : status;
}
