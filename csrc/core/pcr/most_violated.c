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
#include "linalg/inner.h"
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
/* Points that are multiplied with all others at once: reading these takes longer than
 * multiplying. */
#define AHEAD 8
/* Columns of A that are written at a time: what they are made of stays in the cache. */
#define WIDTH 256

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
    int64_t *place;       /* the row of pair that is z_i's, or -1 (p) */
    int64_t n_known;      /* rows of pair that are computed */
    double *worst;        /* largest violation by point (p) */
    const double **point; /* z (p) */
    civ_mat coefficients; /* A over the basis (m, q) */
    double largest;       /* of the coefficients of any push since the last settling */
    civ_mat increment;    /* what the coefficients add to A (m, d) */
    int64_t *used;        /* vectors of the basis with coefficients (q) */
    civ_mat weights;      /* their coefficients, packed (m, q) */
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
    s->place = civ_arena_take(arena, p, sizeof(int64_t));
    s->worst = civ_arena_take(arena, p, sizeof(double));
    s->point = civ_arena_take(arena, p, sizeof(double *));
    s->coefficients = civ_take_f64(arena, m, s->q);
    s->increment = civ_take_f64(arena, m, d);
    s->used = civ_arena_take(arena, s->q, sizeof(int64_t));
    s->weights = civ_take_f64(arena, m, s->q);
    s->push = civ_arena_take(arena, s->q, sizeof(double));
    s->along = civ_arena_take(arena, p, sizeof(double));
    s->across = civ_arena_take(arena, m, sizeof(double));
}

/* What A is made of: vectors of the basis, and how much of each. */
typedef struct mixture {
    const state *state;
    int64_t n_used;  /* vectors with coefficients that are not all zero: U */
    int64_t *used;   /* (q) */
    civ_mat weights; /* their coefficients (m, q), the first U columns */
    double *vectors; /* WIDTH columns of them (U, WIDTH) for each worker */
    const civ_mat *out;
} mixture;

/* Of the vectors that coefficients refer to few have been pushed along or from. */
static void
choose_vectors(mixture *self)
{
    const civ_mat *coefficients = &self->state->coefficients;
    int64_t m = coefficients->n_rows,
            n_vectors = civ_min(coefficients->n_cols, self->state->space.p + m);
    for (int64_t x = 0; x < n_vectors; x++) {
        bool any = false;
        for (int64_t j = 0; j < m; j++) {
            double weight = *civ_at(coefficients, j, x);
            *civ_at(&self->weights, j, self->n_used) = weight;
            any = any || weight != 0.0;
        }
        self->used[self->n_used] = x;
        self->n_used += any;
    }
    self->weights.n_cols = self->n_used;
}

/* WIDTH columns of A. */
static civ_status
write_columns(void *arg, int64_t tile, int worker)
{
    const mixture *self = arg;
    const civ_pcr_space *space = &self->state->space;
    int64_t first = tile * WIDTH, width = civ_min(WIDTH, space->d - first);
    double *vectors = self->vectors + worker * self->n_used * WIDTH;
    for (int64_t u = 0; u < self->n_used; u++) {
        int64_t x = self->used[u];
        const double *vector = x < space->p
                                   ? civ_at(&space->points, x, first)
                                   : civ_at(&space->outputs, x - space->p, first);
        memcpy(vectors + u * width, vector, (size_t)width * sizeof(double));
    }
    civ_mat right = civ_f64(vectors, self->n_used, width);
    civ_mat out = {civ_at(self->out, 0, first), space->m, width, self->out->row_stride,
                   CIV_F64};
    return civ_gemm_nn(1.0, &self->weights, &right, 0.0, &out);
}

/* A = coefficients times basis. */
static civ_status
write_coefficients(const state *s, const civ_mat *out)
{
    const civ_pcr_space *space = &s->space;
    mixture job = {.state = s, .used = s->used, .weights = s->weights, .out = out};
    choose_vectors(&job);
    int64_t tiles = (space->d + WIDTH - 1) / WIDTH;
    int64_t cost = space->m * job.n_used * WIDTH / 32;
    int64_t size = civ_workers(s->exec, tiles, cost) * civ_max(job.n_used, 1) * WIDTH;
    civ_arena arena = {0};
    civ_arena_take(&arena, size, sizeof(double));
    CIV_TRY(civ_arena_open(&arena));
    job.vectors = civ_arena_take(&arena, size, sizeof(double));
    civ_status status = civ_parallel_for(s->exec, tiles, cost, write_columns, &job);
    civ_arena_close(&arena);
    for (int64_t j = 0; space->n > 0 && j < space->m; j++) {
        *civ_at(out, j, 0) += *civ_at(&s->coefficients, j, s->q - 1);
    }
    return status;
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

/* What the pushes come to becomes part of A. */
static civ_status
settle(state *s)
{
    const civ_mat *total = &s->result->coefficients;
    const civ_pcr_space *space = &s->space;
    CIV_TRY(write_coefficients(s, &s->increment));
    for (int64_t j = 0; j < space->m; j++) {
        const double *increment = civ_at(&s->increment, j, 0);
        double *row = civ_at(total, j, 0);
        for (int64_t x = 0; x < space->d; x++) {
            row[x] += increment[x];
        }
    }
    return CIV_OK;
}

/* The moved outputs become a new start, so that neither rounding nor coefficients grow
 * with the steps. */
static civ_status
restart(state *s)
{
    const civ_pcr_space *space = &s->space;
    CIV_TRY(civ_gemm_nn(1.0, &space->gram, &s->increment, 1.0, &space->outputs));
    memset(s->coefficients.data, 0, (size_t)(space->m * s->q) * sizeof(double));
    s->largest = 0.0;
    return measure(s);
}

static civ_status
start(state *s)
{
    const civ_pcr_space *space = &s->space;
    s->n_known = 0;
    for (int64_t l = 0; l < space->p; l++) {
        s->place[l] = -1;
        s->point[l] = civ_at(&space->points, l, 0);
    }
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

/* By how much each point is violated at most, of those without a row of pair. */
static void
rank_points(state *s)
{
    const civ_pcr_space *space = &s->space;
    for (int64_t l = 0; l < space->p; l++) {
        s->worst[l] = 0.0;
    }
    for (int64_t j = 0; j < space->m; j++) {
        const double *value = civ_at(&s->value, j, 0);
        double square = output_square(s, j);
        for (int64_t c = space->first[j]; c < space->first[j + 1]; c++) {
            int64_t l = space->list[c];
            if (s->place[l] < 0) {
                s->worst[l] =
                    fmax(s->worst[l], civ_pcr_violation(space, j, l, value[l], square));
            }
        }
    }
}

/* Rows of pair for z_i and the points that are violated most: these come next. */
static civ_status
measure_pairs(state *s, int64_t i)
{
    const double *rows[AHEAD];
    int64_t count = 0;
    rank_points(s);
    s->worst[i] = INFINITY;
    for (; count < AHEAD; count++) {
        int64_t next = 0;
        for (int64_t l = 1; l < s->space.p; l++) {
            next = s->worst[l] > s->worst[next] ? l : next;
        }
        if (!(s->worst[next] > 0.0)) {
            break;
        }
        s->worst[next] = 0.0;
        s->place[next] = s->n_known + count;
        rows[count] = s->point[next];
    }
    civ_mat out = s->pair;
    out.data = civ_at(&s->pair, s->n_known, 0);
    out.n_rows = count;
    s->n_known += count;
    return civ_inner_products(s->exec, &(civ_inner_block){.x = rows,
                                                          .y = s->point,
                                                          .n_x = count,
                                                          .n_y = s->space.p,
                                                          .depth = s->space.d,
                                                          .out = out});
}

/* <z_i, z_l> for all l. */
static civ_status
pair_row(state *s, int64_t i, const double **row)
{
    if (s->place[i] < 0) {
        CIV_TRY(measure_pairs(s, i));
    }
    *row = civ_at(&s->pair, s->place[i], 0);
    return CIV_OK;
}

/* v = -u */
static void
aim_at_direction(state *s, push *way, const double *pair)
{
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
aim_from_concept(state *s, push *way, const double *pair)
{
    const civ_pcr_space *space = &s->space;
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

static civ_status
aim(state *s, push *way)
{
    const double *pair;
    CIV_TRY(pair_row(s, way->l, &pair));
    memset(s->push, 0, (size_t)s->q * sizeof(double));
    if (!civ_pcr_is_ball(&s->space, way->l)) {
        aim_at_direction(s, way, pair);
        return CIV_OK;
    }
    double distance = *civ_at(&s->space.limit, way->j, way->l) - way->violation;
    double norms = output_square(s, way->j) + s->space.point_square[way->l];
    if (distance * distance > ON_CONCEPT * norms) {
        aim_from_concept(s, way, pair);
    } else {
        aim_off_axis(s, way);
    }
    return CIV_OK;
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
        CIV_TRY(aim(s, &way));
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
            CIV_TRY(restart(s));
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
