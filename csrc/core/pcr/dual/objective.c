/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The problem PCR of arXiv 2510.03567 for any number of constraints, where the paper
 * has a closed form for one: concepts, with or without half-spaces. Newton's method on
 * the dual of a working set, in Gram space. With N = diag(nu), nu_j = sum of mu over
 * the concepts of j, Q_j = sum of mu r over all constraints of j, and J the prompts in
 * the set,
 *
 *     B = (G^-1 - N)^-1 = G + G N^1/2 (I - N^1/2 G N^1/2)^-1 N^1/2 G
 *     D = B Q,   dual = b . mu - tr(Q^T B Q),   B positive definite.
 *
 * Two phases keep B bounded. The barrier sigma log det(I - N^1/2 G N^1/2) lets the
 * displacements have a part outside the span of the r, of second moment sigma B. When
 * sigma is small, that part either vanishes or is a displacement along a few free
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
    civ_pcr_dual_response *response = &s->response;
    int64_t rows = s->basis.n_rows;
    memset(response->nu, 0, (size_t)rows * sizeof(double));
    for (int64_t w = 0; w < s->set.n; w++) {
        if (civ_pcr_is_ball(s->frame.space, s->set.point[w])) {
            response->nu[s->basis.local[w]] += mu[w];
        }
    }
    for (int64_t r = 0; r < rows; r++) {
        response->root[r] = sqrt(response->nu[r]);
    }
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < rows; c++) {
            double gram = *civ_at(&s->basis.gram, r, c);
            *civ_at(&response->half, r, c) = response->root[r] * gram;
            *civ_at(&response->system, r, c) =
                -response->root[r] * gram * response->root[c];
            *civ_at(&response->matrix, r, c) = gram;
        }
        *civ_at(&response->system, r, r) += 1.0 + s->kappa;
    }
    if (civ_cholesky(rows, response->system.data, rows) != CIV_OK) {
        return false;
    }
    *log_determinant = 0.0;
    for (int64_t r = 0; r < rows; r++) {
        *log_determinant += 2.0 * log(*civ_at(&response->system, r, r));
    }
    double scale = 1.0 / (1.0 + s->kappa);
    return civ_lower_solve(&response->system, &response->half) == CIV_OK &&
           civ_gemm_tn(scale, &response->half, &response->half, scale,
                       &response->matrix) == CIV_OK;
}

/* Adds Q to the target, and its inner products with the basis. */
static void
add_pull(civ_pcr_dual *s, const double *mu)
{
    civ_pcr_dual_basis *basis = &s->basis;
    int64_t columns = basis->pair.n_cols;
    for (int64_t w = 0; w < s->set.n; w++) {
        if (mu[w] == 0.0) {
            continue;
        }
        *civ_at(&s->response.target, basis->local[w], w) += mu[w];
        double *row = civ_at(&s->response.target_pair, basis->local[w], 0);
        const double *pair = civ_at(&basis->pair, w, 0);
        for (int64_t x = 0; x < columns; x++) {
            row[x] += mu[w] * pair[x];
        }
    }
}

/* D = B Q where there is no anchor: Q has one element a column. */
static void
spread_pull(civ_pcr_dual *s, const double *mu)
{
    for (int64_t r = 0; r < s->basis.n_rows; r++) {
        const double *response = civ_at(&s->response.matrix, r, 0);
        double *moved = civ_at(&s->response.moved, r, 0);
        for (int64_t w = 0; w < s->set.n; w++) {
            moved[w] = mu[w] * response[s->basis.local[w]];
        }
    }
}

/* moved = D over the basis, and its inner products with the basis. */
static bool
move(civ_pcr_dual *s, const double *mu)
{
    civ_pcr_dual_response *response = &s->response;
    int64_t size = s->basis.n_rows * s->basis.pair.n_cols;
    double *target = response->target.data, *target_pair = response->target_pair.data;
    const double *anchor = response->anchor.data,
                 *anchor_pair = response->anchor_pair.data;
    for (int64_t i = 0; i < size; i++) {
        target[i] = s->kappa * anchor[i];
        target_pair[i] = s->kappa * anchor_pair[i];
    }
    add_pull(s, mu);
    if (s->kappa == 0.0) {
        spread_pull(s, mu);
    } else if (civ_gemm_nn(1.0, &response->matrix, &response->target, 0.0,
                           &response->moved) != CIV_OK) {
        return false;
    }
    return civ_gemm_nn(1.0, &response->matrix, &response->target_pair, 0.0,
                       &response->moved_pair) == CIV_OK;
}

/* ||D_j||^2 and the second moment outside the span. */
static double
square_of(const civ_pcr_dual *s, int64_t row)
{
    return civ_dot(s->basis.pair.n_cols, civ_at(&s->response.moved, row, 0),
                   civ_at(&s->response.moved_pair, row, 0)) +
           s->sigma * *civ_at(&s->response.matrix, row, row);
}

static bool
value(void *arg, const double *mu, double *value, double *gradient)
{
    civ_pcr_dual *s = arg;
    civ_pcr_dual_response *response = &s->response;
    double log_determinant;
    if (!respond(s, mu, &log_determinant) || !move(s, mu)) {
        return false;
    }
    response->barrier = s->sigma * log_determinant;
    *value = response->barrier;
    for (int64_t r = 0; r < s->basis.n_rows; r++) {
        s->work.scratch[r] = square_of(s, r);
        *value -= civ_dot(s->basis.pair.n_cols, civ_at(&response->target, r, 0),
                          civ_at(&response->moved_pair, r, 0));
    }
    for (int64_t w = 0; w < s->set.n; w++) {
        int64_t r = s->basis.local[w];
        gradient[w] = s->set.bound[w] - 2.0 * *civ_at(&response->moved_pair, r, w);
        if (civ_pcr_is_ball(s->frame.space, s->set.point[w])) {
            gradient[w] -= s->work.scratch[r];
        }
        *value += s->set.bound[w] * mu[w];
    }
    return true;
}

static void
curvature(void *arg, const int64_t *free, int64_t n_free, const civ_mat *out)
{
    civ_pcr_dual *s = arg;
    civ_pcr_dual_response *response = &s->response;
    civ_gemm_nt(1.0, &response->moved_pair, &response->moved, 0.0, &s->work.squares);
    for (int64_t i = 0; i < n_free; i++) {
        int64_t w = free[i], r = s->basis.local[w];
        bool w_ball = civ_pcr_is_ball(s->frame.space, s->set.point[w]);
        const double *pair = civ_at(&s->basis.pair, w, 0);
        const double *moved = civ_at(&response->moved_pair, r, 0);
        const double *squares = civ_at(&s->work.squares, r, 0);
        const double *b = civ_at(&response->matrix, r, 0);
        for (int64_t k = 0; k <= i; k++) {
            int64_t x = free[k], c = s->basis.local[x];
            bool x_ball = civ_pcr_is_ball(s->frame.space, s->set.point[x]);
            double inner = pair[x];
            inner += w_ball ? moved[x] : 0.0;
            inner += x_ball ? *civ_at(&response->moved_pair, c, w) : 0.0;
            inner += w_ball && x_ball ? squares[c] : 0.0;
            double outside = w_ball && x_ball ? s->sigma * b[c] : 0.0;
            *civ_at(out, i, k) = b[c] * (2.0 * inner + outside);
        }
    }
}

void
civ_pcr_dual_combine(const civ_pcr_dual *s, const civ_mat *moved, const civ_mat *target,
                     const civ_mat *out)
{
    double scale = 1.0 / (1.0 + s->kappa);
    for (int64_t r = 0; r < s->basis.n_rows; r++) {
        for (int64_t x = 0; x < s->basis.pair.n_cols; x++) {
            *civ_at(out, r, x) = scale * (s->response.nu[r] * *civ_at(moved, r, x) +
                                          *civ_at(target, r, x));
        }
    }
}

civ_status
civ_pcr_dual_maximise(civ_pcr_dual *s, double goal, int64_t max_steps)
{
    civ_pcr_dual_response *response = &s->response;
    civ_pcr_model model = {s, s->set.n, CIV_PCR_INFEASIBLE, value, curvature};
    CIV_TRY(civ_pcr_newton(s->exec, &model, s->set.mu, goal, max_steps, &s->work.newton,
                           &s->progress));
    response->solution =
        civ_f64(response->solution.data, s->basis.n_rows, s->basis.pair.n_cols);
    civ_pcr_dual_combine(s, &response->moved, &response->target, &response->solution);
    return CIV_OK;
}

double
civ_pcr_dual_depth(const civ_pcr_dual *s)
{
    double depth = 1.0;
    for (int64_t r = 0; r < s->basis.n_rows; r++) {
        double pivot = *civ_at(&s->response.system, r, r);
        depth = fmin(depth, pivot * pivot);
    }
    return depth;
}
