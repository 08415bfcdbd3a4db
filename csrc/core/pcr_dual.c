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
 * Vectors are coefficients over the basis (r_w of the working set, spare directions).
 */
#include "pcr_dual.h"

#include "linalg.h"

#include <math.h>
#include <string.h>

/* Candidates wanted at a time, and from each prompt. */
#define OFFERS 8
#define OFFERS_EACH 4

static civ_mat
take(civ_arena *arena, int64_t n_rows, int64_t n_cols)
{
    double *data = civ_arena_take(arena, n_rows * n_cols, sizeof(double));
    return civ_f64(data, n_rows, n_cols);
}

static void
carve(civ_arena *arena, const civ_pcr_space *space, civ_pcr_dual *s)
{
    int64_t offers = civ_max(OFFERS_EACH, civ_pcr_share(space, OFFERS));
    civ_pcr_frame_carve(arena, space, offers, &s->frame);
    s->place = civ_arena_take(arena, space->m, sizeof(int64_t));
    s->known.place = civ_arena_take(arena, space->m + space->p, sizeof(int64_t));
    s->listed = civ_arena_take(arena, space->m + space->p, sizeof(int64_t));
    s->pointers = civ_arena_take(arena, space->m + space->p, sizeof *s->pointers);
    s->spare = take(arena, CIV_PCR_SPARES, space->d);
    s->spare_table = take(arena, CIV_PCR_SPARES, space->m + space->p);
}

static void
carve_growing(civ_arena *arena, int64_t capacity, civ_pcr_dual *s)
{
    int64_t m = s->frame.space->m, q = m + s->frame.space->p;
    int64_t rows = civ_min(m, capacity), columns = capacity + CIV_PCR_SPARES;
    civ_pcr_active_carve(arena, capacity, &s->active);
    s->local = civ_arena_take(arena, capacity, sizeof(int64_t));
    s->rows = civ_arena_take(arena, rows, sizeof(int64_t));
    s->table = take(arena, capacity, q);
    civ_pcr_known_carve(arena, civ_min(rows + capacity, q), q, &s->known);
    s->pair = take(arena, columns, columns);
    s->gram = take(arena, rows, rows);
    s->anchor = take(arena, rows, columns);
    s->solution = take(arena, rows, columns);
    s->anchor_pair = take(arena, rows, columns);
    s->target = take(arena, rows, columns);
    s->target_pair = take(arena, rows, columns);
    s->moved = take(arena, rows, columns);
    s->moved_pair = take(arena, rows, columns);
    s->system = take(arena, rows, rows);
    s->half = take(arena, rows, rows);
    s->response = take(arena, rows, rows);
    s->squares = take(arena, rows, rows);
    s->weights = take(arena, m, rows);
    s->products = take(arena, rows, q);
    s->values = take(arena, m, q - m);
    s->nu = civ_arena_take(arena, rows, sizeof(double));
    s->root = civ_arena_take(arena, rows, sizeof(double));
    s->scratch = civ_arena_take(arena, rows, sizeof(double));
    s->eigen_work =
        civ_arena_take(arena, civ_symmetric_eigen_work(rows), sizeof(double));
    civ_pcr_newton_carve(arena, capacity, &s->newton);
}

/* Views of the size in use, over memory of the size carved. */
static void
set_sizes(civ_pcr_dual *s)
{
    int64_t n = s->active.n, x = n + s->n_spare, r = s->n_rows;
    s->pair = civ_f64(s->pair.data, x, x);
    s->gram = civ_f64(s->gram.data, r, r);
    s->anchor_pair = civ_f64(s->anchor_pair.data, r, x);
    s->target = civ_f64(s->target.data, r, x);
    s->target_pair = civ_f64(s->target_pair.data, r, x);
    s->moved = civ_f64(s->moved.data, r, x);
    s->moved_pair = civ_f64(s->moved_pair.data, r, x);
    s->system = civ_f64(s->system.data, r, r);
    s->half = civ_f64(s->half.data, r, r);
    s->response = civ_f64(s->response.data, r, r);
    s->squares = civ_f64(s->squares.data, r, r);
    s->weights = civ_f64(s->weights.data, s->frame.space->m, r);
    s->products = civ_f64(s->products.data, r, s->products.n_cols);
}

static civ_status
make_room(int64_t count, civ_pcr_dual *s)
{
    int64_t needed = s->active.n + count;
    if (needed <= s->active.capacity) {
        return CIV_OK;
    }
    civ_pcr_dual larger = *s;
    larger.growing = (civ_arena){0};
    carve_growing(&larger.growing, 2 * needed, &larger);
    CIV_TRY(civ_arena_open(&larger.growing));
    carve_growing(&larger.growing, 2 * needed, &larger);
    civ_pcr_active_copy(&s->active, &larger.active);
    civ_pcr_known_copy(&s->known, &larger.known);
    size_t columns = (size_t)s->table.n_cols * sizeof(double);
    for (int64_t w = 0; w < s->active.n; w++) {
        larger.local[w] = s->local[w];
        memcpy(civ_at(&larger.table, w, 0), civ_at(&s->table, w, 0), columns);
    }
    larger.solution = civ_f64(larger.solution.data, s->n_rows, s->solution.n_cols);
    for (int64_t r = 0; r < s->n_rows; r++) {
        larger.rows[r] = s->rows[r];
        memcpy(civ_at(&larger.solution, r, 0), civ_at(&s->solution, r, 0),
               (size_t)s->solution.n_cols * sizeof(double));
    }
    civ_arena_close(&s->growing);
    *s = larger;
    return CIV_OK;
}

/* ---- the basis ----------------------------------------------------------------- */

/* <row of a table, r_w> */
static double
with_constraint(const civ_pcr_dual *s, const double *row, int64_t w)
{
    const civ_pcr_space *space = s->frame.space;
    int64_t l = s->active.point[w];
    double with_point = row[space->m + l];
    return civ_pcr_is_ball(space, l) ? row[s->active.prompt[w]] - with_point
                                     : -with_point;
}

static void
fill_pair(civ_pcr_dual *s)
{
    int64_t n = s->active.n;
    for (int64_t x = 0; x < s->pair.n_rows; x++) {
        const double *row =
            x < n ? civ_at(&s->table, x, 0) : civ_at(&s->spare_table, x - n, 0);
        for (int64_t w = 0; w < civ_min(x + 1, n); w++) {
            double value = with_constraint(s, row, w);
            *civ_at(&s->pair, x, w) = value;
            *civ_at(&s->pair, w, x) = value;
        }
        for (int64_t e = n; e <= x; e++) {
            *civ_at(&s->pair, x, e) = *civ_at(&s->pair, e, x) = e == x ? 1.0 : 0.0;
        }
    }
}

static void
fill_gram(civ_pcr_dual *s)
{
    const civ_pcr_space *space = s->frame.space;
    for (int64_t j = 0; j < space->m; j++) {
        const double *gram = civ_at(&space->gram, j, 0);
        for (int64_t r = 0; r < s->n_rows; r++) {
            *civ_at(&s->weights, j, r) = gram[s->rows[r]] / s->frame.gram_unit;
        }
    }
    for (int64_t r = 0; r < s->n_rows; r++) {
        memcpy(civ_at(&s->gram, r, 0), civ_at(&s->weights, s->rows[r], 0),
               (size_t)s->n_rows * sizeof(double));
    }
}

/* The last solution as coefficients over the basis that has grown since, with its inner
 * products where it is pulled at. */
static civ_status
move_anchor(civ_pcr_dual *s)
{
    int64_t n = s->active.n, columns = n + s->n_spare;
    int64_t old_rows = s->solution.n_rows, old_columns = s->solution.n_cols;
    int64_t old_n = old_columns - s->n_spare;
    s->anchor = civ_f64(s->anchor.data, s->n_rows, columns);
    memset(s->anchor.data, 0, (size_t)(s->n_rows * columns) * sizeof(double));
    for (int64_t r = 0; r < old_rows; r++) {
        const double *from = civ_at(&s->solution, r, 0);
        double *to = civ_at(&s->anchor, r, 0);
        memcpy(to, from, (size_t)old_n * sizeof(double));
        memcpy(to + n, from + old_n, (size_t)s->n_spare * sizeof(double));
    }
    if (s->kappa == 0.0) {
        memset(s->anchor_pair.data, 0, (size_t)(s->n_rows * columns) * sizeof(double));
        return CIV_OK;
    }
    return civ_gemm_nn(1.0, &s->anchor, &s->pair, 0.0, &s->anchor_pair);
}

/* Everything that follows from the working set and the spare directions. */
static civ_status
prepare(civ_pcr_dual *s)
{
    set_sizes(s);
    fill_pair(s);
    fill_gram(s);
    return move_anchor(s);
}

static civ_status
admit(int64_t count, civ_pcr_dual *s)
{
    int64_t first = s->active.n;
    CIV_TRY(make_room(count, s));
    civ_pcr_admit(&s->frame, count, &s->active);
    for (int64_t w = first; w < s->active.n; w++) {
        int64_t j = s->active.prompt[w];
        if (s->place[j] < 0) {
            s->place[j] = s->n_rows;
            s->rows[s->n_rows++] = j;
        }
        s->local[w] = s->place[j];
    }
    CIV_TRY(civ_pcr_extend_table(s, first));
    return prepare(s);
}

/* ---- the dual function --------------------------------------------------------- */

/* response = B, in the state mu; false when it is not positive definite. */
static bool
respond(civ_pcr_dual *s, const double *mu, double *log_determinant)
{
    int64_t rows = s->n_rows;
    memset(s->nu, 0, (size_t)rows * sizeof(double));
    for (int64_t w = 0; w < s->active.n; w++) {
        if (civ_pcr_is_ball(s->frame.space, s->active.point[w])) {
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
    for (int64_t w = 0; w < s->active.n; w++) {
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
        for (int64_t w = 0; w < s->active.n; w++) {
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
    for (int64_t w = 0; w < s->active.n; w++) {
        int64_t r = s->local[w];
        gradient[w] = s->active.bound[w] - 2.0 * *civ_at(&s->moved_pair, r, w);
        if (civ_pcr_is_ball(s->frame.space, s->active.point[w])) {
            gradient[w] -= s->scratch[r];
        }
        *value += s->active.bound[w] * mu[w];
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
        bool w_ball = civ_pcr_is_ball(s->frame.space, s->active.point[w]);
        const double *pair = civ_at(&s->pair, w, 0);
        const double *moved = civ_at(&s->moved_pair, r, 0);
        const double *squares = civ_at(&s->squares, r, 0);
        const double *response = civ_at(&s->response, r, 0);
        for (int64_t k = 0; k <= i; k++) {
            int64_t x = free[k], c = s->local[x];
            bool x_ball = civ_pcr_is_ball(s->frame.space, s->active.point[x]);
            double inner = pair[x];
            inner += w_ball ? moved[x] : 0.0;
            inner += x_ball ? *civ_at(&s->moved_pair, c, w) : 0.0;
            inner += w_ball && x_ball ? squares[c] : 0.0;
            double outside = w_ball && x_ball ? s->sigma * response[c] : 0.0;
            *civ_at(out, i, k) = response[c] * (2.0 * inner + outside);
        }
    }
}

/* out = A = (N D + Q + kappa anchor) / (1 + kappa) at the last mu, from D and what it
 * was made of, or from the inner products of both. */
static void
combine(const civ_pcr_dual *s, const civ_mat *moved, const civ_mat *target,
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

/* ---- all constraints ----------------------------------------------------------- */

/* Where the outputs are now: <y_j, z_l> less its start, and <y_j, y_j>, in units of 1.
 */
static civ_status
move_outputs(civ_pcr_dual *s)
{
    const civ_pcr_space *space = s->frame.space;
    int64_t n = s->active.n;
    civ_mat table = s->table, own = s->solution;
    table.n_rows = own.n_cols = n;
    CIV_TRY(civ_product_nn(s->exec, &own, &table, &s->products));
    if (s->n_spare > 0) {
        civ_mat spare = s->spare_table, rest = s->solution;
        spare.n_rows = rest.n_cols = s->n_spare;
        rest.data = civ_at(&s->solution, 0, n);
        CIV_TRY(civ_gemm_nn(1.0, &rest, &spare, 1.0, &s->products));
    }
    civ_mat with_points = s->products;
    with_points.data = civ_at(&s->products, 0, space->m);
    with_points.n_cols = space->p;
    return civ_product_nn(s->exec, &s->weights, &with_points, &s->values);
}

/* squares = A A^T, for ||D_j||^2 = G_jJ A A^T G_Jj; moved_pair becomes A's. */
static civ_status
square_solution(civ_pcr_dual *s)
{
    combine(s, &s->moved_pair, &s->target_pair, &s->moved_pair);
    return civ_product_nt(s->exec, &s->moved_pair, &s->solution, &s->squares);
}

static double
moved_square(const civ_pcr_dual *s, int64_t j)
{
    const double *weight = civ_at(&s->weights, j, 0);
    double with_output = 0.0, square = 0.0;
    for (int64_t r = 0; r < s->n_rows; r++) {
        with_output += weight[r] * *civ_at(&s->products, r, j);
        square += weight[r] * civ_dot(s->n_rows, civ_at(&s->squares, r, 0), weight);
    }
    if (s->sigma > 0.0 && s->place[j] >= 0) {
        square += s->sigma * *civ_at(&s->response, s->place[j], s->place[j]);
    }
    return 2.0 * with_output + square;
}

/* Offers what is violated; returns the largest violation, as a length over the unit. */
static double
scan_prompt(civ_pcr_dual *s, int64_t j)
{
    const civ_pcr_space *space = s->frame.space;
    double unit = space->unit, largest = 0.0;
    double square = space->output_square[j] + unit * unit * moved_square(s, j);
    const double *moved = civ_at(&s->values, j, 0);
    civ_pcr_open_offers(&s->frame);
    for (int64_t c = space->first[j]; c < space->first[j + 1]; c++) {
        int64_t l = space->list[c];
        double scale = civ_pcr_is_ball(space, l) ? unit * unit : unit;
        double inner = *civ_at(&space->cross, j, l) + scale * moved[l];
        double violation = civ_pcr_violation(space, j, l, inner, square) / unit;
        largest = fmax(largest, violation);
        if (violation > 0.0 && !s->frame.member[j * space->p + l]) {
            civ_pcr_offer(&s->frame, (civ_pcr_candidate){violation, j, l});
        }
    }
    return largest;
}

civ_status
civ_pcr_dual_scan(civ_pcr_dual *s, double *largest)
{
    CIV_TRY(move_outputs(s));
    CIV_TRY(square_solution(s));
    civ_pcr_clear_offers(&s->frame);
    *largest = 0.0;
    for (int64_t j = 0; j < s->frame.space->m; j++) {
        *largest = fmax(*largest, scan_prompt(s, j));
    }
    return CIV_OK;
}

/* ---- for the phases ------------------------------------------------------------ */

civ_status
civ_pcr_dual_open(const civ_exec *exec, const civ_pcr_space *space, civ_arena *arena,
                  civ_pcr_dual *s)
{
    *s = (civ_pcr_dual){.exec = exec};
    carve(arena, space, s);
    CIV_TRY(civ_arena_open(arena));
    carve(arena, space, s);
    civ_pcr_dual_start(false, s);
    return CIV_OK;
}

void
civ_pcr_dual_start(bool careful, civ_pcr_dual *s)
{
    const civ_pcr_space *space = s->frame.space;
    s->careful = careful || civ_pcr_cancels(space);
    civ_pcr_frame_start(&s->frame);
    s->known.n = 0;
    for (int64_t x = 0; x < space->m + space->p; x++) {
        s->known.place[x] = -1;
    }
    for (int64_t j = 0; j < space->m; j++) {
        s->place[j] = -1;
    }
    s->active.n = s->n_rows = 0;
    s->solution.n_rows = s->solution.n_cols = 0;
    civ_pcr_offer_initial(&s->frame);
}

civ_status
civ_pcr_dual_improve(civ_pcr_dual *s, int64_t count, double goal, int64_t max_steps)
{
    CIV_TRY(count > 0 ? admit(count, s) : prepare(s));
    civ_pcr_model model = {s, s->active.n, CIV_PCR_INFEASIBLE, value, curvature};
    CIV_TRY(civ_pcr_newton(s->exec, &model, s->active.mu, goal, max_steps, &s->newton,
                           &s->progress));
    s->solution = civ_f64(s->solution.data, s->n_rows, s->pair.n_cols);
    combine(s, &s->moved, &s->target, &s->solution);
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
