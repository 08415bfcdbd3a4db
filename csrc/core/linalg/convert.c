/* SPDX-License-Identifier: Apache-2.0 */
/* Copies with a change of storage type. */
#include "kernels/dispatch.h"
#include "linalg/matrix.h"
#include "runtime/parallel.h"

typedef struct convert_job {
    const civ_mat *x;
    const civ_mat *out;
    bool finite; /* whether x must be */
} convert_job;

static civ_status
convert_row(void *arg, int64_t row, int worker)
{
    (void)worker;
    const convert_job *job = arg;
    const civ_kernels *kernels = civ_kernel_table();
    civ_dtype from = job->x->dtype;
    const void *x = civ_row(job->x, row);
    void *out = civ_row(job->out, row);
    if (job->finite && kernels->first_bad[from](x, job->x->n_cols, false) >= 0) {
        return CIV_NONFINITE;
    }
    if (job->out->dtype == CIV_F64) {
        kernels->to_f64[from](x, job->x->n_cols, out);
    } else {
        kernels->to_f32[from](x, job->x->n_cols, out);
    }
    return CIV_OK;
}

static civ_status
convert(const civ_exec *exec, convert_job job)
{
    const civ_mat *x = job.x, *out = job.out;
    CIV_FAIL_IF(x->n_rows != out->n_rows || x->n_cols != out->n_cols, CIV_SHAPE);
    CIV_FAIL_IF(out->dtype != CIV_F32 && out->dtype != CIV_F64, CIV_DTYPE);
    CIV_FAIL_IF(civ_overlap(x, out), CIV_ALIAS);
    return civ_parallel_for(exec, x->n_rows, x->n_cols, convert_row, &job);
}

civ_status
civ_convert(const civ_exec *exec, const civ_mat *x, const civ_mat *out)
{
    return convert(exec, (convert_job){x, out, false});
}

civ_status
civ_convert_finite(const civ_exec *exec, const civ_mat *x, const civ_mat *out)
{
    return convert(exec, (convert_job){x, out, true});
}
