/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The most-violated rule (arXiv 2510.03567, PCR): repeat the closed form of one
 * constraint, a move by [radius - ||y_j - c_i||]_+ straight away from the concept, on
 * the pair that is violated most. A push of prompt j along v moves every output,
 * y_k += G_kj / G_jj v, and v is a combination of outputs and points. Therefore inner
 * products are all that a step needs, and the vectors appear only at the end.
 *
 * Coefficients refer to the basis (z_1 .. z_p, o_1 .. o_m, e), where e is the first
 * coordinate axis: the way out when an output sits on a concept. Without concepts
 * every push is along a direction, and the basis ends after z_p.
 */
#include "linalg/products.h"
#include "pcr/common/problem.h"
#include "pcr/common/space.h"
#include "pcr/finish.h"
#include "runtime/parallel.h"

#include <math.h>
#include <string.h>

/* A squared distance below this part of the squared norms is rounding, and so is the
 * direction away from the concept. */
#define ON_CONCEPT 1e-13
/* A violation that has grown to this many units will not come down again. */
#define DIVERGED 1e9
/* Pushes are carried out after so many steps, or when their coefficients have grown
 * to this size. */
#define SETTLE 1000
#define GROWN 1e3

typedef struct state {
    const civ_exec *exec;
    const civ_pcr_problem *problem;
    const civ_pcr_options *options;
    const civ_pcr_result *result;
    civ_pcr_info *info;
    civ_pcr_space space;
    int64_t q;            /* size of the basis */
    civ_mat value;        /* <y_j, z_l> (m, p) */
    civ_mat square;       /* <y_j, y_k> (m, m); no rows without concepts */
    double *axis;         /* <y_j, e> (m) */
    civ_mat pair;         /* <z_i, z_l> (p, p); rows are computed when first needed */
    bool *known;          /* which rows of pair are */
    civ_mat coefficients; /* A over the basis (m, q) */
    double largest;       /* of the coefficients of any push since the last settling */
    civ_mat increment;    /* what the coefficients add to A (m, d) */
    double *push;         /* v over the basis (q) */
    double *along;        /* <v, z_l> (p) */
    double *across;       /* <v, y_k> (m) */
} state;

/* One application of the closed form. */
typedef struct push {
    int64_t j;        /* prompt */
    int64_t l;        /* point */
    double violation; /* as a length */
    double square;    /* <v, v> */
    double axis;      /* <v, e> */
    double step;      /* y_j moves by step v */
    bool off_axis;    /* v is e, because y_j sits on the concept */
} push;

static void
carve(civ_arena *arena, void *arg)
{
    state *s = arg;
    civ_pcr_space_carve(arena, s->problem, &s->space);
    int64_t m = s->space.m, p = s->space.p, d = s->space.d;
    int64_t balls = s->space.n > 0 ? m : 0;
    s->q = s->space.n > 0 ? p + m + 1 : p;
    s->value = civ_take_f64(arena, m, p);
    s->square = civ_take_f64(arena, balls, m);
    s->axis = civ_arena_take(arena, m, sizeof(double));
    s->pair = civ_take_f64(arena, p, p);
    s->known = civ_arena_take(arena, p, sizeof(bool));
    s->coefficients = civ_take_f64(arena, m, s->q);
    s->increment = civ_take_f64(arena, m, d);
    s->push = civ_arena_take(arena, s->q, sizeof(double));
    s->along = civ_arena_take(arena, p, sizeof(double));
    s->across = civ_arena_take(arena, m, sizeof(double));
}

/* A = coefficients times basis. */
static civ_status
write_coefficients(const state *s, const civ_mat *out)
{
    const civ_pcr_space *space = &s->space;
    civ_mat part = s->coefficients;
    part.n_cols = space->p;
    CIV_TRY(civ_product_nn(s->exec, &part, &space->points, out));
    if (space->n == 0) {
        return CIV_OK;
    }
    part.data = civ_at(&s->coefficients, 0, space->p);
    part.n_cols = space->m;
    CIV_TRY(civ_gemm_nn(1.0, &part, &space->outputs, 1.0, out));
    for (int64_t j = 0; j < space->m; j++) {
        *civ_at(out, j, 0) += *civ_at(&s->coefficients, j, s->q - 1);
    }
    return CIV_OK;
}

/* Inner products of the outputs with themselves and the axis, where they are. */
static civ_status
measure_outputs(state *s)
{
    const civ_pcr_space *space = &s->space;
    for (int64_t j = 0; j < space->m; j++) {
        s->axis[j] = *civ_at(&space->outputs, j, 0);
    }
    return s->square.n_rows == 0
               ? CIV_OK
               : civ_gram(s->exec, &space->outputs, &space->outputs, &s->square);
}

/* All inner products of the outputs where they are. */
static civ_status
measure(state *s)
{
    const civ_pcr_space *space = &s->space;
    CIV_TRY(civ_product_nt(s->exec, &space->outputs, &space->points, &s->value));
    return measure_outputs(s);
}

/*
 * Carries out the pushes: the coefficients become part of A, and the moved outputs a
 * new start, so that neither rounding nor coefficients grow with the steps.
 */
static civ_status
settle(state *s)
{
    const civ_mat *total = &s->result->coefficients;
    const civ_pcr_space *space = &s->space;
    CIV_TRY(write_coefficients(s, &s->increment));
    CIV_TRY(civ_gemm_nn(1.0, &space->gram, &s->increment, 1.0, &space->outputs));
    for (int64_t j = 0; j < space->m; j++) {
        const double *increment = civ_at(&s->increment, j, 0);
        double *row = civ_at(total, j, 0);
        for (int64_t x = 0; x < space->d; x++) {
            row[x] += increment[x];
        }
    }
    memset(s->coefficients.data, 0, (size_t)(space->m * s->q) * sizeof(double));
    s->largest = 0.0;
    return CIV_OK;
}

static civ_status
start(state *s)
{
    const civ_pcr_space *space = &s->space;
    memset(s->known, 0, (size_t)space->p * sizeof(bool));
    memset(s->coefficients.data, 0, (size_t)(space->m * s->q) * sizeof(double));
    civ_set_zero(&s->result->coefficients);
    memcpy(s->value.data, space->cross.data,
           (size_t)(space->m * space->p) * sizeof(double));
    return measure_outputs(s);
}

static double
output_square(const state *s, int64_t j)
{
    return s->square.n_rows > 0 ? *civ_at(&s->square, j, j) : 0.0;
}

/* The most violated pair; ties go to the first. */
static push
most_violated(const state *s)
{
    const civ_pcr_space *space = &s->space;
    push worst = {.violation = -INFINITY};
    for (int64_t j = 0; j < space->m; j++) {
        const double *value = civ_at(&s->value, j, 0);
        double square = output_square(s, j);
        for (int64_t c = space->first[j]; c < space->first[j + 1]; c++) {
            int64_t l = space->list[c];
            double violation = civ_pcr_violation(space, j, l, value[l], square);
            if (violation > worst.violation) {
                worst = (push){.j = j, .l = l, .violation = violation};
            }
        }
    }
    return worst;
}

/* <z_i, z_l> for all l. */
static const double *
pair_row(state *s, int64_t i)
{
    double *row = civ_at(&s->pair, i, 0);
    if (!s->known[i]) {
        const civ_pcr_space *space = &s->space;
        civ_gemv(1.0, &space->points, civ_at(&space->points, i, 0), 0.0, row);
        s->known[i] = true;
    }
    return row;
}

/* v = -u */
static void
aim_at_direction(state *s, push *way)
{
    const double *pair = pair_row(s, way->l);
    for (int64_t l = 0; l < s->space.p; l++) {
        s->along[l] = -pair[l];
    }
    for (int64_t k = 0; k < s->square.n_rows; k++) {
        s->across[k] = -*civ_at(&s->value, k, way->l);
    }
    way->square = 1.0;
    way->axis = -*civ_at(&s->space.points, way->l, 0);
    way->step = way->violation;
    s->push[way->l] -= 1.0;
}

/* v = y_j - c_i */
static void
aim_from_concept(state *s, push *way)
{
    const civ_pcr_space *space = &s->space;
    const double *pair = pair_row(s, way->l);
    const double *value = civ_at(&s->value, way->j, 0);
    double radius = *civ_at(&space->limit, way->j, way->l);
    double distance = radius - way->violation;
    for (int64_t l = 0; l < space->p; l++) {
        s->along[l] = value[l] - pair[l];
    }
    for (int64_t k = 0; k < space->m; k++) {
        s->across[k] = *civ_at(&s->square, way->j, k) - *civ_at(&s->value, k, way->l);
    }
    way->square = distance * distance;
    way->axis = s->axis[way->j] - *civ_at(&space->points, way->l, 0);
    way->step = way->violation / distance;
    for (int64_t k = 0; k < space->m; k++) {
        double weight = *civ_at(&space->gram, way->j, k);
        const double *row = civ_at(&s->coefficients, k, 0);
        for (int64_t x = 0; x < s->q; x++) {
            s->push[x] += weight * row[x];
        }
    }
    s->push[space->p + way->j] += 1.0;
    s->push[way->l] -= 1.0;
}

/* v = e */
static void
aim_off_axis(state *s, push *way)
{
    for (int64_t l = 0; l < s->space.p; l++) {
        s->along[l] = *civ_at(&s->space.points, l, 0);
    }
    memcpy(s->across, s->axis, (size_t)s->space.m * sizeof(double));
    way->off_axis = true;
    way->square = 1.0;
    way->axis = 1.0;
    way->step = *civ_at(&s->space.limit, way->j, way->l);
    s->push[s->q - 1] += 1.0;
}

static void
aim(state *s, push *way)
{
    memset(s->push, 0, (size_t)s->q * sizeof(double));
    if (!civ_pcr_is_ball(&s->space, way->l)) {
        aim_at_direction(s, way);
        return;
    }
    double distance = *civ_at(&s->space.limit, way->j, way->l) - way->violation;
    double norms = output_square(s, way->j) + s->space.point_square[way->l];
    if (distance * distance > ON_CONCEPT * norms) {
        aim_from_concept(s, way);
    } else {
        aim_off_axis(s, way);
    }
}

/* Moves output k by `move` times v. */
static void
move_output(state *s, const push *way, int64_t k, double move)
{
    const civ_pcr_space *space = &s->space;
    double *value = civ_at(&s->value, k, 0);
    if (space->n > 0) {
        for (int64_t l = 0; l < space->p; l++) {
            value[l] += move * s->along[l];
        }
    } else {
        for (int64_t c = space->first[k]; c < space->first[k + 1]; c++) {
            value[space->list[c]] += move * s->along[space->list[c]];
        }
    }
    s->axis[k] += move * way->axis;
}

static void
apply(state *s, const push *way)
{
    const civ_pcr_space *space = &s->space;
    const double *gram = civ_at(&space->gram, way->j, 0);
    double scale = way->step / gram[way->j];
    for (int64_t k = 0; k < s->square.n_rows; k++) {
        double move = scale * gram[k];
        double *row = civ_at(&s->square, k, 0);
        for (int64_t x = 0; x < space->m; x++) {
            double other = scale * gram[x];
            row[x] +=
                move * s->across[x] + other * s->across[k] + move * other * way->square;
        }
    }
    for (int64_t k = 0; k < space->m; k++) {
        move_output(s, way, k, scale * gram[k]);
    }
    double *row = civ_at(&s->coefficients, way->j, 0);
    for (int64_t x = 0; x < s->q; x++) {
        row[x] += scale * s->push[x];
        s->largest = fmax(s->largest, fabs(s->push[x]));
    }
}

/* One push that leaves nothing violated is the optimum, and mu_ji its multiplier. */
static void
write_multipliers(const state *s, const push *only)
{
    const civ_mat *multipliers = &s->result->multipliers;
    int64_t pushes = s->info->iterations;
    for (int64_t j = 0; j < multipliers->n_rows; j++) {
        for (int64_t l = 0; l < multipliers->n_cols; l++) {
            *civ_at(multipliers, j, l) = pushes > 1 ? NAN : 0.0;
        }
    }
    if (pushes == 1) {
        double gram = *civ_at(&s->space.gram, only->j, only->j);
        double grown = civ_pcr_is_ball(&s->space, only->l)
                           ? (only->off_axis ? 1.0 : 1.0 + 1.0 / only->step)
                           : s->space.length[only->l] / only->step;
        *civ_at(multipliers, only->j, only->l) = 1.0 / (gram * grown);
    }
}

/* Pushes until nothing is violated, as far as the running inner products tell. */
static civ_status
push_all(state *s, push *last)
{
    civ_pcr_info *info = s->info;
    double goal = s->options->tolerance * s->space.unit;
    info->outcome = CIV_CONVERGED;
    for (int64_t steps = 0; steps < SETTLE && s->largest < GROWN; steps++) {
        push way = most_violated(s);
        if (!(way.violation > goal)) {
            return CIV_OK;
        }
        if (info->iterations == s->options->max_iterations) {
            break;
        }
        if (!(way.violation < DIVERGED * s->space.unit)) {
            info->outcome = CIV_STALLED;
            return CIV_OK;
        }
        CIV_TRY(civ_poll(s->exec));
        aim(s, &way);
        apply(s, &way);
        *last = way;
        info->iterations++;
        civ_pcr_record(
            s->result, info,
            (double[]){way.violation, NAN, NAN, (double)way.j, (double)way.l});
    }
    info->outcome = CIV_ITERATION_LIMIT;
    return CIV_OK;
}

/* The outcome by the vectors themselves; *met tells whether nothing is left to do. */
static civ_status
judge(state *s, bool *met)
{
    civ_pcr_info *info = s->info;
    civ_outcome outcome = info->outcome;
    CIV_TRY(civ_pcr_finish(s->exec, s->problem, s->options, s->result, info));
    *met = outcome == CIV_CONVERGED &&
           info->violation <= s->options->tolerance * s->space.unit;
    if (!*met) {
        info->outcome = outcome;
    }
    return CIV_OK;
}

/* Pushes and carries out, until the outputs themselves meet every constraint or no
 * push does anything. */
static civ_status
iterate(state *s, push *last, bool *met)
{
    civ_pcr_info *info = s->info;
    int64_t before = -1;
    while (s->space.unit > 0.0 && info->iterations > before) {
        before = info->iterations;
        CIV_TRY(push_all(s, last));
        if (info->outcome == CIV_STALLED) {
            return start(s);
        }
        if (info->iterations > before) {
            CIV_TRY(settle(s));
            if (info->outcome == CIV_CONVERGED) {
                CIV_TRY(judge(s, met));
            }
            if (*met) {
                return CIV_OK;
            }
            CIV_TRY(measure(s));
        }
    }
    return CIV_OK;
}

static civ_status
run(void *arg)
{
    state *s = arg;
    push last = {0};
    bool met = false;
    CIV_TRY(civ_pcr_space_fill(s->exec, s->problem, &s->space));
    CIV_TRY(start(s));
    s->info->unit = s->space.unit;
    CIV_TRY(iterate(s, &last, &met));
    write_multipliers(s, &last);
    return met ? CIV_OK
               : civ_pcr_finish(s->exec, s->problem, s->options, s->result, s->info);
}

civ_status
civ_pcr_most_violated(const civ_exec *exec, const civ_pcr_problem *problem,
                      const civ_pcr_options *options, const civ_pcr_result *result,
                      civ_pcr_info *info)
{
    CIV_TRY(civ_pcr_check(problem, options, result));
    *info = (civ_pcr_info){.outcome = CIV_CONVERGED};
    state s = {.exec = exec,
               .problem = problem,
               .options = options,
               .result = result,
               .info = info};
    return civ_run_in_arena(carve, run, &s);
}
