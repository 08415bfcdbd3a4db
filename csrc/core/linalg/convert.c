/* SPDX-License-Identifier: Apache-2.0 */
/* Copies with a change of storage type. */
#include "kernels/dispatch.h"
#include "linalg/matrix.h"
#include "runtime/parallel.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

typedef struct convert_job {
    const civ_mat *x;
    const civ_mat *out;
    /* The bits of the largest magnitude so far: their order is that of magnitudes. */
    atomic_uint_fast64_t largest;
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
    if (job->out->dtype == CIV_F64) {
        kernels->to_f64[from](x, job->x->n_cols, out);
    } else {
        kernels->to_f32[from](x, job->x->n_cols, out);
    }
    return CIV_OK;
}

static civ_status
widen_row(void *arg, int64_t row, int worker)
{
    (void)worker;
    convert_job *job = arg;
    double size = civ_kernel_table()->widen[job->x->dtype](
        civ_row(job->x, row), job->x->n_cols, civ_row(job->out, row));
    uint64_t bits;
    memcpy(&bits, &size, sizeof bits);
    uint_fast64_t known = atomic_load(&job->largest);
    while (bits > known && !atomic_compare_exchange_weak(&job->largest, &known, bits)) {
    }
    return isinf(size) ? CIV_NONFINITE : CIV_OK;
}

static civ_status
convert(const civ_exec *exec, convert_job *job, civ_tile_fn row)
{
    const civ_mat *x = job->x, *out = job->out;
    CIV_FAIL_IF(x->n_rows != out->n_rows || x->n_cols != out->n_cols, CIV_SHAPE);
    CIV_FAIL_IF(out->dtype != CIV_F32 && out->dtype != CIV_F64, CIV_DTYPE);
    CIV_FAIL_IF(civ_overlap(x, out), CIV_ALIAS);
    return civ_parallel_for(exec, x->n_rows, x->n_cols, row, job);
}

civ_status
civ_convert(const civ_exec *exec, const civ_mat *x, const civ_mat *out)
{
    return convert(exec, &(convert_job){.x = x, .out = out}, convert_row);
}

civ_status
civ_widen(const civ_exec *exec, const civ_mat *x, const civ_mat *out, double *largest)
{
    CIV_FAIL_IF(out->dtype != CIV_F64, CIV_DTYPE);
    convert_job job = {.x = x, .out = out};
    CIV_TRY(convert(exec, &job, widen_row));
    uint64_t bits = atomic_load(&job.largest);
    memcpy(largest, &bits, sizeof bits);
    return CIV_OK;
}
