/* SPDX-License-Identifier: Apache-2.0 */
/* From multipliers to vectors, where nothing but the working set pulls. */
#include "pcr/dual/recover.h"

#include "kernels/dispatch.h"
#include "linalg/products.h"
#include "runtime/parallel.h"

#include <string.h>

/* Columns of the solution put together at a time. */
#define PULL_COLUMNS 1024

typedef struct pull_job {
    const civ_pcr_dual *s;
    const civ_mat *pull; /* Q (R, d) */
} pull_job;

/* Columns of Q, in the problem's units, to which every constraint adds. */
static civ_status
pull_columns(void *arg, int64_t tile, int worker)
{
    (void)worker;
    const pull_job *job = arg;
    const civ_pcr_dual *s = job->s;
    const civ_pcr_space *space = s->frame.space;
    double unit = space->unit / s->frame.gram_unit;
    int64_t first = tile * PULL_COLUMNS,
            count = civ_min(PULL_COLUMNS, space->d - first);
    for (int64_t r = 0; r < s->n_rows; r++) {
        memset(civ_at(job->pull, r, first), 0, (size_t)count * sizeof(double));
    }
    for (int64_t w = 0; w < s->set.n; w++) {
        int64_t l = s->set.point[w];
        double weight = unit * s->set.mu[w];
        const double *z = civ_at(&space->points, l, first);
        double *pull = civ_at(job->pull, s->local[w], first);
        if (weight > 0.0 && civ_pcr_is_ball(space, l)) {
            const double *o = civ_at(&space->outputs, s->set.prompt[w], first);
            weight /= space->unit;
            civ_kernel_table()->add_difference(o, z, count, weight, pull);
        } else if (weight > 0.0) {
            civ_axpy(count, -weight, z, pull);
        }
    }
    return CIV_OK;
}

civ_status
civ_pcr_dual_recover(const civ_pcr_dual *s, const civ_mat *factors, const civ_mat *pull,
                     const civ_mat *rows)
{
    int64_t tiles = (s->frame.space->d + PULL_COLUMNS - 1) / PULL_COLUMNS;
    pull_job job = {s, pull};
    CIV_TRY(
        civ_parallel_for(s->exec, tiles, s->set.n * PULL_COLUMNS, pull_columns, &job));
    for (int64_t r = 0; r < s->n_rows; r++) {
        for (int64_t c = 0; c < s->n_rows; c++) {
            *civ_at(factors, r, c) = s->nu[r] * *civ_at(&s->response, r, c) + (r == c);
        }
    }
    return civ_product_nn(s->exec, factors, pull, rows);
}
