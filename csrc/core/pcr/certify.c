/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Judges a claimed solution of PCR (arXiv 2510.03567) by the optimality conditions,
 * from the vectors themselves. Nothing here is shared with the solvers.
 *
 * For multipliers mu >= 0 let nu_j be their sum over the concepts of prompt j, and
 * Q_j the sum of mu r over all its constraints. If T = I - N^1/2 G N^1/2 is positive
 * definite, no feasible displacements cost less than
 *
 *     b . mu - tr(Q^T G Q) - || T^-1/2 N^1/2 G Q ||^2.
 *
 * T is made safely definite by scaling the multipliers down a little.
 */
#include "kernels/dispatch.h"
#include "linalg/products.h"
#include "runtime/parallel.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* How much the multipliers are scaled down: tried in this order, */
static const double shrinks[] = {0.0,  1e-14, 1e-12, 1e-10, 1e-8, 1e-6,
                                 1e-4, 1e-3,  1e-2,  0.1,   0.3,  0.6};
/* until so many of them have given a bound, or one that leaves nothing to gain. */
#define ENOUGH 4
#define NOTHING 1e-13
/* Columns summed up at a time: a part of Q stays in the first-level cache. */
#define COLUMNS 1024

typedef struct judge {
    const civ_exec *exec;
    const civ_pcr_problem *problem;
    const civ_mat *coefficients;
    const civ_mat *multipliers;
    civ_pcr_certificate *out;
    int64_t rows;         /* prompts with a coefficient or multiplier: R */
    int64_t constraints;  /* with a multiplier: W */
    int64_t slices;       /* of the columns */
    int64_t *prompt;      /* (R) */
    int64_t *first;       /* constraints of r: point[first[r] .. first[r + 1]) */
    int64_t *point;       /* (W) */
    civ_mat parts;        /* what a slice says about a constraint (W, 2 slices) */
    double *nu;           /* (R) */
    bool curved;          /* whether nu is not zero throughout */
    civ_mat gram;         /* (R, R) */
    civ_mat pull;         /* Q (R, d) */
    civ_mat pulled;       /* G Q (R, d) */
    civ_mat solution;     /* A of these prompts (R, d) */
    civ_mat displacement; /* D of these prompts (R, d) */
    civ_mat system;       /* (R, R) */
    civ_mat half;         /* (R, d) */
    double linear;        /* b . mu */
    double quadratic;     /* tr(Q^T G Q) */
} judge;

/* Number of multipliers that are not zero; fails when one is not a number >= 0. */
static civ_status
count_constraints(const civ_mat *multipliers, int64_t *count)
{
    *count = 0;
    for (int64_t j = 0; j < multipliers->n_rows; j++) {
        for (int64_t l = 0; l < multipliers->n_cols; l++) {
            double mu = *civ_at(multipliers, j, l);
            CIV_FAIL_IF(!(mu >= 0.0), CIV_INVALID_ARGUMENT);
            *count += mu > 0.0;
        }
    }
    return CIV_OK;
}

static bool
is_used(const judge *s, int64_t j)
{
    return !civ_row_is_zero(s->multipliers, j) || !civ_row_is_zero(s->coefficients, j);
}

static void
carve(civ_arena *arena, void *arg)
{
    judge *s = arg;
    int64_t d = s->problem->outputs.n_cols;
    s->prompt = civ_arena_take(arena, s->rows, sizeof(int64_t));
    s->first = civ_arena_take(arena, s->rows + 1, sizeof(int64_t));
    s->point = civ_arena_take(arena, s->constraints, sizeof(int64_t));
    s->parts = civ_take_f64(arena, s->constraints, 2 * s->slices);
    s->nu = civ_arena_take(arena, s->rows, sizeof(double));
    s->gram = civ_take_f64(arena, s->rows, s->rows);
    s->pull = civ_take_f64(arena, s->rows, d);
    s->pulled = civ_take_f64(arena, s->rows, d);
    s->solution = civ_take_f64(arena, s->rows, d);
    s->displacement = civ_take_f64(arena, s->rows, d);
    s->system = civ_take_f64(arena, s->rows, s->rows);
    s->half = civ_take_f64(arena, s->rows, d);
}

/* Columns [first, first + count) of the Q of a prompt, and what these columns say about
 * its constraints. */
static civ_status
add_columns(void *arg, int64_t tile, int worker)
{
    (void)worker;
    judge *s = arg;
    const civ_pcr_problem *problem = s->problem;
    int64_t r = tile / s->slices, slice = tile % s->slices;
    int64_t j = s->prompt[r], n = problem->concepts.n_rows;
    int64_t first = slice * COLUMNS;
    int64_t count = civ_min(COLUMNS, problem->outputs.n_cols - first);
    const double *o = civ_at(&problem->outputs, j, first);
    const double *moved = civ_at(&s->displacement, r, first);
    double *pull = civ_at(&s->pull, r, first);
    memset(pull, 0, (size_t)count * sizeof(double));
    for (int64_t w = s->first[r]; w < s->first[r + 1]; w++) {
        int64_t l = s->point[w];
        double mu = *civ_at(s->multipliers, j, l);
        double *sums = civ_at(&s->parts, w, 2 * slice);
        if (l < n) {
            const double *c = civ_at(&problem->concepts, l, first);
            civ_kernel_table()->judge_ball(o, c, moved, count, mu, pull, sums);
        } else {
            const double *u = civ_at(&problem->directions, l - n, first);
            civ_axpy(count, -mu, u, pull);
            sums[0] = civ_dot(count, u, o);
            sums[1] = civ_dot(count, u, moved);
        }
    }
    return CIV_OK;
}

/* What a constraint adds to nu, b . mu and complementarity. */
static void
add_constraint(judge *s, int64_t r, int64_t w, double *complementarity)
{
    const civ_pcr_problem *problem = s->problem;
    int64_t j = s->prompt[r], l = s->point[w], n = problem->concepts.n_rows;
    double mu = *civ_at(s->multipliers, j, l);
    double start = 0.0, taken = 0.0, bound;
    for (int64_t slice = 0; slice < s->slices; slice++) {
        start += *civ_at(&s->parts, w, 2 * slice);
        taken += *civ_at(&s->parts, w, 2 * slice + 1);
    }
    if (l < n) {
        double radius = *civ_at(&problem->radius, j, l);
        bound = radius * radius - start;
        s->nu[r] += mu;
        s->curved = true;
    } else {
        taken *= -2.0;
        bound = 2.0 * (start - *civ_at(&problem->offsets, j, l - n));
    }
    s->linear += mu * bound;
    *complementarity += fabs(mu * (taken - bound));
}

/* Lists the prompts and their constraints, and picks their rows of A and G. */
static void
pick(judge *s)
{
    int64_t r = 0, w = 0;
    for (int64_t j = 0; j < s->multipliers->n_rows; j++) {
        if (!is_used(s, j)) {
            continue;
        }
        s->first[r] = w;
        s->prompt[r++] = j;
        for (int64_t l = 0; l < s->multipliers->n_cols; l++) {
            if (*civ_at(s->multipliers, j, l) != 0.0) {
                s->point[w++] = l;
            }
        }
    }
    s->first[r] = w;
    for (r = 0; r < s->rows; r++) {
        memcpy(civ_at(&s->solution, r, 0), civ_at(s->coefficients, s->prompt[r], 0),
               (size_t)s->solution.n_cols * sizeof(double));
        for (int64_t c = 0; c < s->rows; c++) {
            *civ_at(&s->gram, r, c) =
                *civ_at(&s->problem->gram, s->prompt[r], s->prompt[c]);
        }
    }
}

static civ_status
gather(judge *s, double *complementarity)
{
    pick(s);
    CIV_TRY(civ_product_nn(s->exec, &s->gram, &s->solution, &s->displacement));
    int64_t each = s->constraints / civ_max(s->rows, 1) + 1;
    CIV_TRY(
        civ_parallel_for(s->exec, s->rows * s->slices, each * COLUMNS, add_columns, s));
    for (int64_t r = 0; r < s->rows; r++) {
        s->nu[r] = 0.0;
        for (int64_t w = s->first[r]; w < s->first[r + 1]; w++) {
            add_constraint(s, r, w, complementarity);
        }
    }
    CIV_TRY(civ_product_nn(s->exec, &s->gram, &s->pull, &s->pulled));
    for (int64_t r = 0; r < s->rows; r++) {
        s->quadratic +=
            civ_dot(s->pull.n_cols, civ_at(&s->pull, r, 0), civ_at(&s->pulled, r, 0));
    }
    return CIV_OK;
}

/* || T^-1/2 N^1/2 G Q ||^2 for the multipliers times `scale`; false when T is not
 * safely definite. */
static civ_status
curved_part(judge *s, double scale, bool *found, double *square)
{
    int64_t rows = s->rows, d = s->pull.n_cols;
    double safety = 8.0 * DBL_EPSILON * (double)(rows + 1);
    for (int64_t r = 0; r < rows; r++) {
        double root = sqrt(scale * s->nu[r]);
        for (int64_t c = 0; c < rows; c++) {
            *civ_at(&s->system, r, c) =
                -root * *civ_at(&s->gram, r, c) * sqrt(scale * s->nu[c]);
        }
        *civ_at(&s->system, r, r) += 1.0 - safety;
        for (int64_t x = 0; x < d; x++) {
            *civ_at(&s->half, r, x) = scale * root * *civ_at(&s->pulled, r, x);
        }
    }
    civ_status status = civ_spd_factor(s->exec, &s->system);
    *found = status == CIV_OK;
    if (status != CIV_OK) {
        return status == CIV_SINGULAR ? CIV_OK : status;
    }
    CIV_TRY(civ_lower_solve(&s->system, &s->half));
    for (int64_t r = 0; r < rows; r++) {
        const double *half = civ_at(&s->half, r, 0);
        *square += civ_dot(d, half, half);
    }
    return CIV_OK;
}

/* Lower bound from the multipliers times `scale`. Half-spaces alone have T = I. */
static civ_status
bound_at(judge *s, double scale, bool *found, double *bound)
{
    double square = 0.0;
    *found = true;
    if (s->curved) {
        CIV_TRY(curved_part(s, scale, found, &square));
    }
    *bound = scale * s->linear - scale * scale * s->quadratic - square;
    return CIV_OK;
}

static civ_status
best_bound(judge *s)
{
    civ_pcr_certificate *out = s->out;
    size_t n_shrinks = s->rows > 0 ? sizeof shrinks / sizeof *shrinks : 0;
    int successes = 0;
    for (size_t i = 0; i < n_shrinks && successes < ENOUGH; i++) {
        bool found;
        double bound;
        CIV_TRY(civ_poll(s->exec));
        CIV_TRY(bound_at(s, 1.0 - shrinks[i], &found, &bound));
        if (found && bound > out->lower_bound) {
            out->lower_bound = bound;
            out->shrink = shrinks[i];
        }
        successes += found;
        if (out->cost - out->lower_bound <= NOTHING * out->cost) {
            break;
        }
    }
    return CIV_OK;
}

/* ||A - N D - Q|| / ||A||, and the cost. */
static void
judge_stationarity(const judge *s)
{
    civ_pcr_certificate *out = s->out;
    int64_t d = s->solution.n_cols;
    double residual = 0.0, size = 0.0;
    for (int64_t r = 0; r < s->rows; r++) {
        const double *solution = civ_at(&s->solution, r, 0);
        const double *moved = civ_at(&s->displacement, r, 0);
        const double *pull = civ_at(&s->pull, r, 0);
        double *rest = civ_at(&s->half, r, 0);
        for (int64_t x = 0; x < d; x++) {
            rest[x] = solution[x] - s->nu[r] * moved[x] - pull[x];
        }
        residual += civ_dot(d, rest, rest);
        size += civ_dot(d, solution, solution);
        out->cost += civ_dot(d, solution, moved);
    }
    out->stationarity = sqrt(residual) / (size > 0.0 ? sqrt(size) : 1.0);
}

static civ_status
examine(void *arg)
{
    judge *s = arg;
    double complementarity = 0.0;
    CIV_TRY(gather(s, &complementarity));
    judge_stationarity(s);
    s->out->complementarity =
        complementarity / (s->out->cost > 0.0 ? s->out->cost : 1.0);
    return best_bound(s);
}

civ_status
civ_pcr_certify(const civ_exec *exec, const civ_pcr_problem *problem,
                const civ_mat *coefficients, const civ_mat *multipliers,
                civ_pcr_certificate *out)
{
    int64_t m = problem->outputs.n_rows, d = problem->outputs.n_cols;
    int64_t p = problem->concepts.n_rows + problem->directions.n_rows;
    CIV_FAIL_IF(coefficients->n_rows != m || coefficients->n_cols != d, CIV_SHAPE);
    CIV_FAIL_IF(multipliers->n_rows != m || multipliers->n_cols != p, CIV_SHAPE);
    CIV_FAIL_IF(coefficients->dtype != CIV_F64, CIV_DTYPE);
    CIV_FAIL_IF(multipliers->dtype != CIV_F64, CIV_DTYPE);
    *out = (civ_pcr_certificate){0};
    judge s = {.exec = exec, .problem = problem, .out = out};
    s.coefficients = coefficients;
    s.multipliers = multipliers;
    s.slices = (d + COLUMNS - 1) / COLUMNS;
    CIV_TRY(count_constraints(multipliers, &s.constraints));
    for (int64_t j = 0; j < m; j++) {
        s.rows += is_used(&s, j);
    }
    return civ_run_in_arena(carve, examine, &s);
}
