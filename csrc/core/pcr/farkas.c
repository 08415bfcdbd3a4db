/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Farkas' lemma for half-spaces: weights mu >= 0 with b . mu > 0 whose Q costs nothing
 * contradict each other. In floating point: displacements that met them would cost at
 * least (b . mu)^2 / (4 tr(Q^T G Q)), and this is beyond all reason.
 */
#include "pcr/farkas.h"

#include "linalg/products.h"
#include "pcr/common/working_set.h"

#include <math.h>
#include <string.h>

typedef struct ray {
    const civ_exec *exec;
    const civ_pcr_space *space;
    const civ_mat *multipliers;
    double largest; /* of them */
    bool *proved;
    civ_mat pull;   /* Q (m, d) */
    civ_mat pulled; /* G Q (m, d) */
} ray;

static void
carve(civ_arena *arena, void *arg)
{
    ray *s = arg;
    s->pull = civ_take_f64(arena, s->space->m, s->space->d);
    s->pulled = civ_take_f64(arena, s->space->m, s->space->d);
}

/* Fills Q; returns b . mu. Both are for multipliers scaled so that the largest is 1. */
static double
gather(ray *s)
{
    const civ_pcr_space *space = s->space;
    double linear = 0.0;
    memset(s->pull.data, 0, (size_t)(space->m * space->d) * sizeof(double));
    for (int64_t j = 0; j < space->m; j++) {
        double *pull = civ_at(&s->pull, j, 0);
        for (int64_t l = space->n; l < space->p; l++) {
            double mu = *civ_at(s->multipliers, j, l) * space->length[l] / s->largest;
            if (mu > 0.0) {
                const double *u = civ_at(&space->points, l, 0);
                linear += 2.0 * mu *
                          (*civ_at(&space->cross, j, l) - *civ_at(&space->limit, j, l));
                for (int64_t x = 0; x < space->d; x++) {
                    pull[x] -= mu * u[x];
                }
            }
        }
    }
    return linear;
}

static double
largest_multiplier(const civ_pcr_space *space, const civ_mat *multipliers)
{
    double largest = 0.0;
    for (int64_t j = 0; j < space->m; j++) {
        for (int64_t l = space->n; l < space->p; l++) {
            largest = fmax(largest, *civ_at(multipliers, j, l) * space->length[l]);
        }
    }
    return largest;
}

static civ_status
examine(void *arg)
{
    ray *s = arg;
    const civ_pcr_space *space = s->space;
    double linear = gather(s);
    double quadratic = 0.0, gram_unit = 0.0;
    CIV_TRY(civ_product_nn(s->exec, &space->gram, &s->pull, &s->pulled));
    for (int64_t j = 0; j < space->m; j++) {
        gram_unit = fmax(gram_unit, *civ_at(&space->gram, j, j));
        quadratic +=
            civ_dot(space->d, civ_at(&s->pull, j, 0), civ_at(&s->pulled, j, 0));
    }
    double beyond = CIV_PCR_INFEASIBLE * space->unit * space->unit / gram_unit;
    *s->proved = linear > 0.0 && linear * linear > 4.0 * quadratic * beyond;
    return CIV_OK;
}

civ_status
civ_pcr_farkas(const civ_exec *exec, const civ_pcr_space *space,
               const civ_mat *multipliers, bool *proved)
{
    double largest = largest_multiplier(space, multipliers);
    *proved = false;
    if (largest == 0.0) {
        return CIV_OK;
    }
    ray s = {.exec = exec,
             .space = space,
             .multipliers = multipliers,
             .largest = largest,
             .proved = proved};
    CIV_TRY(civ_run_in_arena(carve, examine, &s));
    for (int64_t j = 0; j < space->m && *proved; j++) {
        memset(civ_at(multipliers, j, 0), 0, (size_t)space->n * sizeof(double));
    }
    return CIV_OK;
}
