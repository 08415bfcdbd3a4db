/* SPDX-License-Identifier: Apache-2.0 */
/* The losses of TSR and ARR (arXiv 2510.03567) over logits. One tile is one row, so the
 * partition cannot change a bit. */
#include "first_order/losses.h"

#include "kernels/dispatch.h"
#include "linalg/matrix.h"
#include "runtime/parallel.h"

/* Rough operations for one element of a row. */
#define COST 8

typedef struct set_nll_job {
    const civ_mat *logits;
    const civ_token_sets *sets;
    double *loss;
    const civ_mat *grad;
    civ_set_nll_fn kernel;
} set_nll_job;

static civ_status
set_nll_row(void *arg, int64_t row, int worker)
{
    (void)worker;
    const set_nll_job *job = arg;
    int64_t set = job->sets->n_sets == 1 ? 0 : row;
    const int64_t *offsets = job->sets->offsets;
    void *grad = job->grad == NULL ? NULL : civ_row(job->grad, row);
    bool bad = false;
    job->loss[row] = job->kernel(civ_row(job->logits, row), job->logits->n_cols,
                                 job->sets->ids + offsets[set],
                                 offsets[set + 1] - offsets[set], grad, &bad);
    return bad ? CIV_NONFINITE : CIV_OK;
}

civ_status
civ_check_sets(const civ_token_sets *sets, int64_t n_rows, int64_t vocab)
{
    CIV_FAIL_IF(sets->n_sets != 1 && sets->n_sets != n_rows, CIV_SHAPE);
    CIV_FAIL_IF(sets->offsets[0] != 0, CIV_INVALID_ARGUMENT);
    for (int64_t i = 0; i < sets->n_sets; i++) {
        CIV_FAIL_IF(sets->offsets[i + 1] <= sets->offsets[i], CIV_INVALID_ARGUMENT);
    }
    for (int64_t i = 0; i < sets->offsets[sets->n_sets]; i++) {
        CIV_FAIL_IF(sets->ids[i] < 0 || sets->ids[i] >= vocab, CIV_INVALID_ARGUMENT);
    }
    return CIV_OK;
}

civ_status
civ_set_nll(const civ_exec *exec, const civ_mat *logits, const civ_token_sets *sets,
            double *loss, const civ_mat *grad)
{
    CIV_TRY(civ_check_sets(sets, logits->n_rows, logits->n_cols));
    if (grad != NULL) {
        CIV_FAIL_IF(grad->dtype != civ_dtype_compute(logits->dtype), CIV_DTYPE);
        CIV_FAIL_IF(grad->n_rows != logits->n_rows, CIV_SHAPE);
        CIV_FAIL_IF(grad->n_cols != logits->n_cols, CIV_SHAPE);
        CIV_FAIL_IF(civ_overlap(logits, grad), CIV_ALIAS);
    }
    set_nll_job job = {logits, sets, loss, grad,
                       civ_kernel_table()->set_nll[logits->dtype]};
    return civ_parallel_for(exec, logits->n_rows, COST * logits->n_cols, set_nll_row,
                            &job);
}
