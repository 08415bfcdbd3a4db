/* SPDX-License-Identifier: Apache-2.0 */
#include "lm_head/mixture.h"

#include "first_order/pgd.h"
#include "linalg/products.h"

#include <math.h>
#include <string.h>

#define MAX_STEPS 500
#define MAX_HALVINGS 60
#define LONGER 2.0
#define SHORTER 0.5

/* phi and all that goes into it; product (m) = inner w. */
static civ_mixture_info
evaluate(const civ_mixture *self, const double *w, double *product)
{
    int64_t m = self->inner.n_rows;
    double t = self->step, radius = self->radius;
    civ_gemv(1.0, &self->inner, w, 0.0, product);
    civ_mixture_info info = {0};
    for (int64_t j = 0; j < m; j++) {
        info.slope += w[j] * product[j];
        info.along += w[j] * self->along[j];
        info.loss += w[j] * self->losses[j];
    }
    info.slope = fmax(info.slope, 0.0);
    double reached = self->square + 2.0 * t * info.along + t * t * info.slope;
    info.scale = civ_pgd_shrinkage(reached, radius);
    /* With delta' - delta = (scale - 1) delta + scale t c. */
    double back = info.scale - 1.0, away = info.scale * t;
    double gain = back * info.along + away * info.slope;
    double distance = back * back * self->square + 2.0 * back * away * info.along +
                      away * away * info.slope;
    info.value = info.loss + gain - 0.5 * distance / t;
    return info;
}

/* Linearised losses at delta', which are the gradient of phi; returns their least. */
static double
linearise(const civ_mixture *self, const civ_mixture_info *info, const double *product,
          double *gradient)
{
    double least = INFINITY;
    for (int64_t j = 0; j < self->inner.n_rows; j++) {
        double moved = info->scale * (self->along[j] + self->step * product[j]);
        gradient[j] = self->losses[j] + moved - self->along[j];
        least = fmin(least, gradient[j]);
    }
    return least;
}

/*
 * The first candidate, of ever shorter steps, towards which the gradient changes no
 * faster than the step allows. Values of phi would not tell: near the optimum their
 * differences are rounding.
 */
static civ_status
search(const civ_mixture *self, const double *here, const double *gradient,
       double *step, double *candidate, double *product, double *changed)
{
    int64_t m = self->inner.n_rows;
    civ_mat row = civ_f64(candidate, 1, m);
    for (int i = 0; i < MAX_HALVINGS; i++) {
        for (int64_t j = 0; j < m; j++) {
            candidate[j] = here[j] - *step * gradient[j];
        }
        CIV_TRY(civ_project_simplex(NULL, &row, 1.0, &row));
        civ_mixture_info info = evaluate(self, candidate, product);
        linearise(self, &info, product, changed);
        double bend = 0.0, square = 0.0;
        for (int64_t j = 0; j < m; j++) {
            double moved = candidate[j] - here[j];
            bend += (changed[j] - gradient[j]) * moved;
            square += moved * moved;
        }
        if (*step * bend <= square) {
            break;
        }
        *step *= SHORTER;
    }
    return CIV_OK;
}

civ_status
civ_mixture_solve(const civ_mixture *self, double tolerance, double *weights,
                  civ_mixture_info *info)
{
    int64_t m = self->inner.n_rows;
    double *here = self->work, *product = here + m, *gradient = product + m;
    double *candidate = gradient + m, *changed = candidate + m;
    double step = 1.0, age = 1.0;
    memcpy(here, weights, (size_t)m * sizeof(double));
    for (int i = 0; i < MAX_STEPS; i++) {
        civ_mixture_info at = evaluate(self, here, product);
        double least = linearise(self, &at, product, gradient), mean = 0.0;
        for (int64_t j = 0; j < m; j++) {
            mean += here[j] * gradient[j];
        }
        if (mean - least <= tolerance) {
            memcpy(weights, here, (size_t)m * sizeof(double));
            break;
        }
        CIV_TRY(search(self, here, gradient, &step, candidate, product, changed));
        step *= LONGER;
        double uphill = 0.0;
        for (int64_t j = 0; j < m; j++) {
            uphill += (here[j] - candidate[j]) * (candidate[j] - weights[j]);
        }
        double older = 0.5 * (1.0 + sqrt(1.0 + 4.0 * age * age));
        double momentum = uphill > 0.0 ? 0.0 : (age - 1.0) / older;
        age = uphill > 0.0 ? 1.0 : older;
        for (int64_t j = 0; j < m; j++) {
            here[j] = candidate[j] + momentum * (candidate[j] - weights[j]);
            weights[j] = candidate[j];
        }
        civ_mat row = civ_f64(here, 1, m);
        CIV_TRY(civ_project_simplex(NULL, &row, 1.0, &row));
    }
    *info = evaluate(self, weights, product);
    return CIV_OK;
}
