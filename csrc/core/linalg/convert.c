/* SPDX-License-Identifier: Apache-2.0 */
/* Copies with a change of storage type, and tests of overlapping memory. */
#include "runtime/runtime.h"

#include <string.h>

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

/* First and one-past-last byte that a matrix may touch. */
static void
extent(const civ_mat *x, uintptr_t *begin, uintptr_t *end)
{
    uintptr_t first = (uintptr_t)civ_row(x, 0);
    uintptr_t last = (uintptr_t)civ_row(x, x->n_rows - 1);
    *begin = first < last ? first : last;
    *end =
        (first < last ? last : first) + (uintptr_t)x->n_cols * civ_dtype_size(x->dtype);
}

bool
civ_overlap(const civ_mat *x, const civ_mat *y)
{
    if (x->n_rows == 0 || x->n_cols == 0 || y->n_rows == 0 || y->n_cols == 0) {
        return false;
    }
    uintptr_t x_begin, x_end, y_begin, y_end;
    extent(x, &x_begin, &x_end);
    extent(y, &y_begin, &y_end);
    return x_begin < y_end && y_begin < x_end;
}

civ_status
civ_check_output(const civ_mat *x, const civ_mat *out)
{
    bool same =
        x->data == out->data && (x->row_stride == out->row_stride || x->n_rows <= 1);
    return same || !civ_overlap(x, out) ? CIV_OK : CIV_ALIAS;
}
