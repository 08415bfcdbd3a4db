/* SPDX-License-Identifier: Apache-2.0 */
#include "linalg/centre.h"

#include "linalg/products.h"
#include "runtime/parallel.h"

#include <string.h>

/* Columns at a time: read for the mean, the rows are still in the cache when it is
 * subtracted. */
#define COLUMNS 512

typedef struct centre_job {
    const civ_mat *x;
    double *mean;
    const civ_mat *out;
} centre_job;

static civ_status
centre_columns(void *arg, int64_t tile, int worker)
{
    (void)worker;
    const centre_job *job = arg;
    int64_t first = tile * COLUMNS;
    int64_t count = civ_min(COLUMNS, job->x->n_cols - first);
    double *mean = job->mean + first;
    memset(mean, 0, (size_t)count * sizeof(double));
    for (int64_t i = 0; i < job->x->n_rows; i++) {
        civ_axpy(count, 1.0, civ_at(job->x, i, first), mean);
    }
    for (int64_t k = 0; k < count && job->x->n_rows > 0; k++) {
        mean[k] /= (double)job->x->n_rows;
    }
    for (int64_t i = 0; i < job->x->n_rows; i++) {
        const double *source = civ_at(job->x, i, first);
        double *target = civ_at(job->out, i, first);
        for (int64_t k = 0; k < count; k++) {
            target[k] = source[k] - mean[k];
        }
    }
    return CIV_OK;
}

civ_status
civ_centre(const civ_exec *exec, const civ_mat *x, double *mean, const civ_mat *out)
{
    centre_job job = {x, mean, out};
    int64_t tiles = (x->n_cols + COLUMNS - 1) / COLUMNS;
    return civ_parallel_for(exec, tiles, x->n_rows * COLUMNS, centre_columns, &job);
}
