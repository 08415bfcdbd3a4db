/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Half-spaces alone: the dual is the quadratic program
 *
 *     max b . mu - mu^T H mu / 2,  mu >= 0,  H_ww' = 2 G_jj' <u_l, u_l'>.
 */
#include "pcr_exact.h"

#include <math.h>
#include <string.h>

/* Least number of constraints that may join at once. */
#define BATCH 64

typedef struct halfspace {
    const civ_exec *exec;
    civ_pcr_frame frame;
    civ_mat pair;      /* <u_l, u_l'> (p, p) */
    double *weights;   /* G_jJ / gram_unit for the prompts J in use (m, |J|) */
    double *responses; /* <A_J, u_l> (p, |J|) */
    int64_t *place;    /* index of a prompt in J, or -1 (m) */
    /* what grows with the working set */
    civ_arena growing;
    civ_pcr_active active;
    civ_mat hessian; /* (capacity, capacity) */
    int64_t n_known; /* rows of the Hessian that are computed */
    double *product; /* H mu (capacity) */
    civ_pcr_newton_work newton;
} halfspace;

static void
carve(civ_arena *arena, const civ_pcr_space *space, halfspace *s)
{
    int64_t m = space->m, p = space->p;
    civ_pcr_frame_carve(arena, space, &s->frame);
    s->pair = civ_f64(civ_arena_take(arena, p * p, sizeof(double)), p, p);
    s->weights = civ_arena_take(arena, m * m, sizeof(double));
    s->responses = civ_arena_take(arena, p * m, sizeof(double));
    s->place = civ_arena_take(arena, m, sizeof(int64_t));
}

static void
carve_growing(civ_arena *arena, int64_t capacity, halfspace *s)
{
    civ_pcr_active_carve(arena, capacity, &s->active);
    double *hessian = civ_arena_take(arena, capacity * capacity, sizeof(double));
    s->hessian = civ_f64(hessian, capacity, capacity);
    s->product = civ_arena_take(arena, capacity, sizeof(double));
    civ_pcr_newton_carve(arena, capacity, &s->newton);
}

/* Makes room for `count` more constraints. */
static civ_status
make_room(int64_t count, halfspace *s)
{
    int64_t needed = s->active.n + count;
    if (needed <= s->active.capacity) {
        return CIV_OK;
    }
    halfspace larger = *s;
    larger.growing = (civ_arena){0};
    carve_growing(&larger.growing, 2 * needed, &larger);
    CIV_TRY(civ_arena_open(&larger.growing));
    carve_growing(&larger.growing, 2 * needed, &larger);
    civ_pcr_active_copy(&s->active, &larger.active);
    larger.n_known = 0;
    civ_arena_close(&s->growing);
    *s = larger;
    return CIV_OK;
}

static void
extend_hessian(halfspace *s)
{
    const civ_pcr_space *space = s->frame.space;
    const civ_pcr_active *active = &s->active;
    double scale = 2.0 / s->frame.gram_unit;
    for (int64_t w = s->n_known; w < active->n; w++) {
        const double *gram = civ_at(&space->gram, active->prompt[w], 0);
        const double *pair = civ_at(&s->pair, active->point[w], 0);
        for (int64_t x = 0; x <= w; x++) {
            double value = scale * gram[active->prompt[x]] * pair[active->point[x]];
            *civ_at(&s->hessian, w, x) = value;
            *civ_at(&s->hessian, x, w) = value;
        }
    }
    s->n_known = active->n;
}

static bool
value(void *arg, const double *mu, double *value, double *gradient)
{
    halfspace *s = arg;
    int64_t n = s->active.n;
    civ_mat hessian = s->hessian;
    hessian.n_rows = hessian.n_cols = n;
    civ_gemv(1.0, &hessian, mu, 0.0, s->product);
    *value = 0.0;
    for (int64_t w = 0; w < n; w++) {
        gradient[w] = s->active.bound[w] - s->product[w];
        *value += mu[w] * (s->active.bound[w] - 0.5 * s->product[w]);
    }
    return true;
}

static void
curvature(void *arg, const int64_t *free, int64_t n_free, const civ_mat *out)
{
    const halfspace *s = arg;
    for (int64_t i = 0; i < n_free; i++) {
        const double *row = civ_at(&s->hessian, free[i], 0);
        for (int64_t k = 0; k <= i; k++) {
            *civ_at(out, i, k) = row[free[k]];
        }
    }
}

/* Numbers the prompts with a positive multiplier; returns how many there are. */
static int64_t
number_prompts(halfspace *s)
{
    int64_t count = 0;
    for (int64_t j = 0; j < s->frame.space->m; j++) {
        s->place[j] = -1;
    }
    for (int64_t w = 0; w < s->active.n; w++) {
        int64_t j = s->active.prompt[w];
        if (s->active.mu[w] > 0.0 && s->place[j] < 0) {
            s->place[j] = count++;
        }
    }
    return count;
}

/* Packs G and the inner products <A_J, u_l> for the prompts in use. */
static int64_t
pack_responses(halfspace *s)
{
    const civ_pcr_space *space = s->frame.space;
    int64_t count = number_prompts(s);
    memset(s->responses, 0, (size_t)(space->p * count) * sizeof(double));
    for (int64_t w = 0; w < s->active.n; w++) {
        double mu = s->active.mu[w];
        if (mu > 0.0) {
            int64_t place = s->place[s->active.prompt[w]];
            const double *pair = civ_at(&s->pair, s->active.point[w], 0);
            for (int64_t l = 0; l < space->p; l++) {
                s->responses[l * count + place] -= mu * pair[l];
            }
        }
    }
    for (int64_t j = 0; j < space->m; j++) {
        const double *gram = civ_at(&space->gram, j, 0);
        for (int64_t k = 0; k < space->m; k++) {
            if (s->place[k] >= 0) {
                s->weights[j * count + s->place[k]] = gram[k] / s->frame.gram_unit;
            }
        }
    }
    return count;
}

/* Checks every constraint; candidates are those violated. Returns the largest. */
static double
scan(halfspace *s)
{
    const civ_pcr_space *space = s->frame.space;
    int64_t count = pack_responses(s);
    double largest = 0.0;
    civ_pcr_clear_offers(&s->frame);
    for (int64_t j = 0; j < space->m; j++) {
        civ_pcr_open_offers(&s->frame);
        for (int64_t c = space->first[j]; c < space->first[j + 1]; c++) {
            int64_t l = space->list[c];
            double start = *civ_at(&space->cross, j, l) - *civ_at(&space->limit, j, l);
            double moved =
                civ_dot(count, s->weights + j * count, s->responses + l * count);
            double violation = start / space->unit + moved;
            largest = fmax(largest, violation);
            if (violation > 0.0 && !s->frame.member[j * space->p + l]) {
                civ_pcr_offer(&s->frame, (civ_pcr_candidate){violation, j, l});
            }
        }
    }
    return largest;
}

/* A_j = -sum of mu u over the constraints of j. */
static void
write_solution(const halfspace *s, const civ_pcr_result *result)
{
    const civ_pcr_space *space = s->frame.space;
    double unit = space->unit / s->frame.gram_unit;
    for (int64_t w = 0; w < s->active.n; w++) {
        int64_t j = s->active.prompt[w], l = s->active.point[w];
        double mu = unit * s->active.mu[w];
        double *row = civ_at(&result->coefficients, j, 0);
        const double *u = civ_at(&space->points, l, 0);
        *civ_at(&result->multipliers, j, l) = mu / space->length[l];
        for (int64_t x = 0; x < space->d && mu > 0.0; x++) {
            row[x] -= mu * u[x];
        }
    }
}

/* Solves the working set, and lets violated constraints join, until none is. */
static civ_status
iterate(const civ_pcr_options *options, halfspace *s, const civ_pcr_result *result,
        civ_pcr_info *info)
{
    double goal = options->tolerance, largest = 0.0;
    civ_pcr_newton_info newton = {0};
    for (;;) {
        int64_t most = civ_max(BATCH, s->active.n);
        int64_t count = civ_pcr_rank_candidates(&s->frame, goal, most);
        if (count == 0) {
            info->outcome =
                largest <= CIV_PCR_BELIEVED * goal ? CIV_CONVERGED : CIV_STALLED;
            return CIV_OK;
        }
        CIV_TRY(make_room(count, s));
        civ_pcr_admit(&s->frame, count, &s->active);
        extend_hessian(s);
        civ_pcr_model model = {s, s->active.n, CIV_PCR_INFEASIBLE, value, curvature};
        CIV_TRY(civ_pcr_newton(s->exec, &model, s->active.mu, CIV_PCR_EFFORT * goal,
                               options->max_iterations, &s->newton, &newton));
        info->iterations = newton.steps;
        largest = scan(s);
        double cost = civ_pcr_cost_unit(&s->frame) * newton.value;
        civ_pcr_record(
            result, info,
            (double[]){largest * s->frame.space->unit, cost, cost, NAN, NAN});
        if (newton.value > CIV_PCR_INFEASIBLE) {
            info->outcome = CIV_INFEASIBLE;
            return CIV_OK;
        }
        if (newton.steps >= options->max_iterations) {
            info->outcome = CIV_ITERATION_LIMIT;
            return CIV_OK;
        }
    }
}

civ_status
civ_pcr_halfspace_solve(const civ_exec *exec, const civ_pcr_space *space,
                        const civ_pcr_options *options, const civ_pcr_result *result,
                        civ_pcr_info *info)
{
    halfspace s = {.exec = exec};
    civ_arena arena = {0};
    carve(&arena, space, &s);
    CIV_TRY(civ_arena_open(&arena));
    carve(&arena, space, &s);
    civ_pcr_frame_start(&s.frame);
    civ_pcr_offer_initial(&s.frame);
    civ_status status = civ_product_nt(exec, &space->points, &space->points, &s.pair);
    if (status == CIV_OK) {
        status = iterate(options, &s, result, info);
    }
    if (status == CIV_OK) {
        write_solution(&s, result);
    }
    civ_arena_close(&s.growing);
    civ_arena_close(&arena);
    return status;
}
