/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Concepts, with or without half-spaces: Newton's method on the dual of a working
 * set, in Gram space. With N = diag(nu), nu_j = sum of mu over the concepts of j,
 * Q_j = sum of mu r over all constraints of j, and J the prompts in the set,
 *
 *     B = (G^-1 - N)^-1 = G + G N^1/2 (I - N^1/2 G N^1/2)^-1 N^1/2 G
 *     D = B Q,   dual = b . mu - tr(Q^T B Q),   B positive definite.
 *
 * Two phases keep B bounded. The barrier sigma log det(I - N^1/2 G N^1/2) lets the
 * displacements have a part outside the span of the r, of second moment sigma B. When
 * sigma is small, that part either vanishes or is a displacement along a few spare
 * directions, which become vectors like the r. Then proximal steps towards the last
 * solution, (1 + kappa) G^-1 in place of G^-1 and kappa A beside Q, take the rest of
 * the error away and with it sigma.
 *
 * Vectors are coefficients over the basis (r_w of the working set, free directions).
 */
#include "pcr/dual/objective.h"

#include "linalg/linalg.h"
#include "linalg/products.h"

#include <math.h>
#include <string.h>

/* response = B, in the state mu; false when it is not positive definite. */
static bool
respond(civ_pcr_dual *s, const double *mu, double *log_determinant)
{
    int64_t rows = s->n_rows;
    memset(s->nu, 0, (size_t)rows * sizeof(double));
    for (int64_t w = 0; w < s->set.n; w++) {
        if (civ_pcr_is_ball(s->frame.space, s->set.point[w])) {
            s->nu[s->local[w]] += mu[w];
        }
    }
    for (int64_t r = 0; r < rows; r++) {
        s->root[r] = sqrt(s->nu[r]);
    }
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < rows; c++) {
            double gram = *civ_at(&s->gram, r, c);
            *civ_at(&s->half, r, c) = s->root[r] * gram;
            *civ_at(&s->system, r, c) = -s->root[r] * gram * s->root[c];
            *civ_at(&s->response, r, c) = gram;
        }
        *civ_at(&s->system, r, r) += 1.0 + s->kappa;
    }
    if (civ_cholesky(rows, s->system.data, rows) != CIV_OK) {
        return false;
    }
    *log_determinant = 0.0;
    for (int64_t r = 0; r < rows; r++) {
        *log_determinant += 2.0 * log(*civ_at(&s->system, r, r));
    }
    double scale = 1.0 / (1.0 + s->kappa);
    return civ_lower_solve(&s->system, &s->half) == CIV_OK &&
           civ_gemm_tn(scale, &s->half, &s->half, scale, &s->response) == CIV_OK;
}

/* Adds Q to the target, and its inner products with the basis. */
static void
add_pull(civ_pcr_dual *s, const double *mu)
{
    int64_t columns = s->pair.n_cols;
    for (int64_t w = 0; w < s->set.n; w++) {
        if (mu[w] == 0.0) {
            continue;
        }
        *civ_at(&s->target, s->local[w], w) += mu[w];
        double *row = civ_at(&s->target_pair, s->local[w], 0);
        const double *pair = civ_at(&s->pair, w, 0);
        for (int64_t x = 0; x < columns; x++) {
            row[x] += mu[w] * pair[x];
        }
    }
}

/* D = B Q where there is no anchor: Q has one element a column. */
static void
spread_pull(civ_pcr_dual *s, const double *mu)
{
    for (int64_t r = 0; r < s->n_rows; r++) {
        const double *response = civ_at(&s->response, r, 0);
        double *moved = civ_at(&s->moved, r, 0);
        for (int64_t w = 0; w < s->set.n; w++) {
            moved[w] = mu[w] * response[s->local[w]];
        }
    }
}

/* moved = D over the basis, and its inner products with the basis. */
static bool
move(civ_pcr_dual *s, const double *mu)
{
    int64_t size = s->n_rows * s->pair.n_cols;
    double *target = s->target.data, *target_pair = s->target_pair.data;
    const double *anchor = s->anchor.data, *anchor_pair = s->anchor_pair.data;
    for (int64_t i = 0; i < size; i++) {
        target[i] = s->kappa * anchor[i];
        target_pair[i] = s->kappa * anchor_pair[i];
    }
    add_pull(s, mu);
    if (s->kappa == 0.0) {
        spread_pull(s, mu);
    } else if (civ_gemm_nn(1.0, &s->response, &s->target, 0.0, &s->moved) != CIV_OK) {
        return false;
    }
    return civ_gemm_nn(1.0, &s->response, &s->target_pair, 0.0, &s->moved_pair) ==
           CIV_OK;
}

/* ||D_j||^2 and the second moment outside the span. */
static double
square_of(const civ_pcr_dual *s, int64_t row)
{
    return civ_dot(s->pair.n_cols, civ_at(&s->moved, row, 0),
                   civ_at(&s->moved_pair, row, 0)) +
           s->sigma * *civ_at(&s->response, row, row);
}

static bool
value(void *arg, const double *mu, double *value, double *gradient)
{
    civ_pcr_dual *s = arg;
    double log_determinant;
    if (!respond(s, mu, &log_determinant) || !move(s, mu)) {
        return false;
    }
    s->barrier = s->sigma * log_determinant;
    *value = s->barrier;
    for (int64_t r = 0; r < s->n_rows; r++) {
        s->scratch[r] = square_of(s, r);
        *value -= civ_dot(s->pair.n_cols, civ_at(&s->target, r, 0),
                          civ_at(&s->moved_pair, r, 0));
    }
    for (int64_t w = 0; w < s->set.n; w++) {
        int64_t r = s->local[w];
        gradient[w] = s->set.bound[w] - 2.0 * *civ_at(&s->moved_pair, r, w);
        if (civ_pcr_is_ball(s->frame.space, s->set.point[w])) {
            gradient[w] -= s->scratch[r];
        }
        *value += s->set.bound[w] * mu[w];
    }
    return true;
}

static void
curvature(void *arg, const int64_t *free, int64_t n_free, const civ_mat *out)
{
    civ_pcr_dual *s = arg;
    civ_gemm_nt(1.0, &s->moved_pair, &s->moved, 0.0, &s->squares);
    for (int64_t i = 0; i < n_free; i++) {
        int64_t w = free[i], r = s->local[w];
        bool w_ball = civ_pcr_is_ball(s->frame.space, s->set.point[w]);
        const double *pair = civ_at(&s->pair, w, 0);
        const double *moved = civ_at(&s->moved_pair, r, 0);
        const double *squares = civ_at(&s->squares, r, 0);
        const double *response = civ_at(&s->response, r, 0);
        for (int64_t k = 0; k <= i; k++) {
            int64_t x = free[k], c = s->local[x];
            bool x_ball = civ_pcr_is_ball(s->frame.space, s->set.point[x]);
            double inner = pair[x];
            inner += w_ball ? moved[x] : 0.0;
            inner += x_ball ? *civ_at(&s->moved_pair, c, w) : 0.0;
            inner += w_ball && x_ball ? squares[c] : 0.0;
            double outside = w_ball && x_ball ? s->sigma * response[c] : 0.0;
            *civ_at(out, i, k) = response[c] * (2.0 * inner + outside);
        }
    }
}

void
civ_pcr_dual_combine(const civ_pcr_dual *s, const civ_mat *moved, const civ_mat *target,
                     const civ_mat *out)
{
    double scale = 1.0 / (1.0 + s->kappa);
    for (int64_t r = 0; r < s->n_rows; r++) {
        for (int64_t x = 0; x < s->pair.n_cols; x++) {
            *civ_at(out, r, x) =
                scale * (s->nu[r] * *civ_at(moved, r, x) + *civ_at(target, r, x));
        }
    }
}

civ_status
civ_pcr_dual_maximise(civ_pcr_dual *s, double goal, int64_t max_steps)
{
    civ_pcr_model model = {s, s->set.n, CIV_PCR_INFEASIBLE, value, curvature};
    CIV_TRY(civ_pcr_newton(s->exec, &model, s->set.mu, goal, max_steps, &s->newton,
                           &s->progress));
    s->solution = civ_f64(s->solution.data, s->n_rows, s->pair.n_cols);
    civ_pcr_dual_combine(s, &s->moved, &s->target, &s->solution);
    return CIV_OK;
}

double
civ_pcr_dual_depth(const civ_pcr_dual *s)
{
    double depth = 1.0;
    for (int64_t r = 0; r < s->n_rows; r++) {
        double pivot = *civ_at(&s->system, r, r);
        depth = fmin(depth, pivot * pivot);
    }
    return depth;
}
