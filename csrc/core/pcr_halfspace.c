/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Half-spaces alone: the dual is the quadratic program
 *
 *     max b . mu - mu^T H mu / 2,  mu >= 0,  H_ww' = 2 G_jj' <u_l, u_l'>.
 */
#include "pcr_exact.h"
#include "pcr_quadratic.h"

#include <math.h>
#include <string.h>

/* Least number of constraints that may join at once, */
#define BATCH 64
/* how many for each one with a positive multiplier, and from a prompt. */
#define GROWTH 4
/* Candidates wanted at a time of a stiff program: those after a prompt's first are
 * often no longer violated once that one is dealt with. */
#define OFFERS 8

/* Least room for constraints, where there are as many: pages that stay untouched cost
 * nothing, but growing means computing the Hessian again. */
#define ROOM 8192

/* A positive multiplier: number of its prompt in J, its direction and size. */
typedef struct pull {
    int64_t place;
    int64_t point;
    double mu;
} pull;

typedef struct halfspace {
    const civ_exec *exec;
    civ_pcr_frame frame;
    civ_mat pair;      /* <u_l, u_l'> (p, p) */
    civ_mat weights;   /* G_jJ for the prompts J in use (m, |J|) */
    double *packed;    /* room for it */
    double *responses; /* <A_J, u_l> / gram_unit (p, |J|) */
    int64_t *place;    /* index of a prompt in J, or -1 (m) */
    int64_t *used;     /* J (m) */
    int64_t n_used;
    /* what grows with the working set */
    civ_arena growing;
    civ_pcr_active active;
    civ_mat hessian; /* (capacity, capacity) */
    int64_t n_known; /* rows of the Hessian that are computed */
    pull *pulls;     /* (capacity) */
    int64_t n_pulls;
    civ_pcr_quadratic program;
    bool stiff; /* the program is not for sweeps */
    civ_pcr_newton_work newton;
} halfspace;

static void
carve(civ_arena *arena, const civ_pcr_space *space, halfspace *s)
{
    int64_t m = space->m, p = space->p;
    int64_t most = civ_max(civ_pcr_share(space, OFFERS), GROWTH);
    civ_pcr_frame_carve(arena, space, most, &s->frame);
    s->pair = civ_f64(civ_arena_take(arena, p * p, sizeof(double)), p, p);
    s->packed = civ_arena_take(arena, m * m / 2, sizeof(double));
    s->responses = civ_arena_take(arena, p * m, sizeof(double));
    s->place = civ_arena_take(arena, m, sizeof(int64_t));
    s->used = civ_arena_take(arena, m, sizeof(int64_t));
}

static void
carve_growing(civ_arena *arena, int64_t capacity, halfspace *s)
{
    civ_pcr_active_carve(arena, capacity, &s->active);
    double *hessian = civ_arena_take(arena, capacity * capacity, sizeof(double));
    s->hessian = civ_f64(hessian, capacity, capacity);
    s->pulls = civ_arena_take(arena, capacity, sizeof(pull));
    civ_pcr_quadratic_carve(arena, capacity, &s->program);
    if (s->stiff) {
        civ_pcr_newton_carve(arena, capacity, &s->newton);
    }
}

/* Constraints that there are. */
static int64_t
count_listed(const halfspace *s)
{
    return s->frame.space->first[s->frame.space->m];
}

/* Makes room for `count` more constraints. */
static civ_status
make_room(int64_t count, halfspace *s)
{
    int64_t needed = s->active.n + count;
    if (needed <= s->active.capacity) {
        return CIV_OK;
    }
    int64_t capacity = civ_min(civ_max(2 * needed, ROOM), count_listed(s));
    halfspace larger = *s;
    larger.growing = (civ_arena){0};
    larger.program = (civ_pcr_quadratic){.steps = s->program.steps};
    carve_growing(&larger.growing, capacity, &larger);
    CIV_TRY(civ_arena_open(&larger.growing));
    carve_growing(&larger.growing, capacity, &larger);
    civ_pcr_active_copy(&s->active, &larger.active);
    larger.n_known = 0;
    civ_arena_close(&s->growing);
    *s = larger;
    return CIV_OK;
}

/* Fills in what is missing of a row of the Hessian. */
static civ_status
fill_row(void *arg, int64_t w, int worker)
{
    (void)worker;
    halfspace *s = arg;
    const civ_pcr_active *active = &s->active;
    const double *gram = civ_at(&s->frame.space->gram, active->prompt[w], 0);
    const double *pair = civ_at(&s->pair, active->point[w], 0);
    double scale = 2.0 / s->frame.gram_unit;
    double *row = civ_at(&s->hessian, w, 0);
    for (int64_t x = w < s->n_known ? s->n_known : 0; x < active->n; x++) {
        row[x] = scale * gram[active->prompt[x]] * pair[active->point[x]];
    }
    return CIV_OK;
}

/* Lets `count` ranked candidates join. */
static civ_status
admit(int64_t count, halfspace *s)
{
    CIV_TRY(make_room(count, s));
    civ_pcr_admit(&s->frame, count, &s->active);
    int64_t n = s->active.n;
    CIV_TRY(civ_parallel_for(s->exec, n, n, fill_row, s));
    s->n_known = n;
    s->program.hessian = s->hessian;
    s->program.bound = s->active.bound;
    s->program.mu = s->active.mu;
    civ_pcr_quadratic_extend(n, &s->program);
    return CIV_OK;
}

static bool
value(void *arg, const double *mu, double *value, double *gradient)
{
    halfspace *s = arg;
    civ_pcr_quadratic_evaluate(&s->program, mu, value, gradient);
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

/* Lists the positive multipliers, and numbers their prompts, or all when they are most:
 * G then serves as it is. */
static void
list_pulls(halfspace *s)
{
    const civ_pcr_active *active = &s->active;
    s->n_pulls = s->n_used = 0;
    for (int64_t j = 0; j < s->frame.space->m; j++) {
        s->place[j] = -1;
    }
    for (int64_t w = 0; w < active->n; w++) {
        int64_t j = active->prompt[w];
        if (active->mu[w] > 0.0) {
            if (s->place[j] < 0) {
                s->used[s->n_used] = j;
                s->place[j] = s->n_used++;
            }
            double mu = active->mu[w] / s->frame.gram_unit;
            s->pulls[s->n_pulls++] = (pull){j, active->point[w], mu};
        }
    }
    s->weights = s->frame.space->gram;
    if (2 * s->n_used < s->weights.n_rows) {
        s->weights = civ_f64(s->packed, s->weights.n_rows, s->n_used);
        for (int64_t i = 0; i < s->n_pulls; i++) {
            s->pulls[i].place = s->place[s->pulls[i].place];
        }
    }
}

/* Packs G where it pays, and the inner products <A_J, u_l> / gram_unit for the prompts
 * in use. */
static void
pack_responses(halfspace *s)
{
    const civ_pcr_space *space = s->frame.space;
    list_pulls(s);
    int64_t count = s->weights.n_cols;
    memset(s->responses, 0, (size_t)(space->p * count) * sizeof(double));
    for (int64_t l = 0; l < space->p; l++) {
        const double *pair = civ_at(&s->pair, l, 0);
        double *response = s->responses + l * count;
        for (int64_t i = 0; i < s->n_pulls; i++) {
            response[s->pulls[i].place] -= s->pulls[i].mu * pair[s->pulls[i].point];
        }
    }
    for (int64_t j = 0; j < space->m && s->weights.data == s->packed; j++) {
        const double *gram = civ_at(&space->gram, j, 0);
        for (int64_t r = 0; r < count; r++) {
            s->packed[j * count + r] = gram[s->used[r]];
        }
    }
}

/* Checks the constraints outside the set; candidates are those violated. Returns the
 * largest violation. */
static double
scan_others(halfspace *s)
{
    const civ_pcr_space *space = s->frame.space;
    double largest = 0.0;
    pack_responses(s);
    int64_t count = s->weights.n_cols;
    for (int64_t j = 0; j < space->m; j++) {
        civ_pcr_open_offers(&s->frame);
        for (int64_t c = space->first[j]; c < space->first[j + 1]; c++) {
            int64_t l = space->list[c];
            if (s->frame.member[j * space->p + l]) {
                continue;
            }
            double start = *civ_at(&space->cross, j, l) - *civ_at(&space->limit, j, l);
            double moved =
                civ_dot(count, civ_at(&s->weights, j, 0), s->responses + l * count);
            double violation = start / space->unit + moved;
            largest = fmax(largest, violation);
            if (violation > 0.0) {
                civ_pcr_offer(&s->frame, (civ_pcr_candidate){violation, j, l});
            }
        }
    }
    return largest;
}

/* Checks every constraint. The slope of one in the set is twice its violation. */
static double
scan(halfspace *s)
{
    double largest = 0.0;
    civ_pcr_clear_offers(&s->frame);
    for (int64_t w = 0; w < s->active.n; w++) {
        largest = fmax(largest, 0.5 * s->program.slope[w]);
    }
    bool others = s->active.n < count_listed(s);
    return others ? fmax(largest, scan_others(s)) : largest;
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

/* Sweeps, and to finish Newton steps with one factor: enough for most programs. */
static civ_status
solve_quickly(const civ_pcr_options *options, double goal, bool finish, halfspace *s)
{
    bool settled, solved = true;
    CIV_TRY(civ_pcr_quadratic_sweep(s->exec, options->max_iterations, &s->program,
                                    &settled));
    if (settled && finish) {
        CIV_TRY(civ_pcr_quadratic_finish(s->exec, goal, options->max_iterations,
                                         &s->program, &solved));
    }
    s->stiff = !settled || !solved;
    return CIV_OK;
}

/* Newton's method for all others. */
static civ_status
solve_slowly(const civ_pcr_options *options, double goal, halfspace *s)
{
    civ_pcr_model model = {s, s->active.n, CIV_PCR_INFEASIBLE, value, curvature};
    civ_pcr_newton_info newton = {.steps = s->program.steps};
    CIV_TRY(civ_pcr_newton(s->exec, &model, s->active.mu, goal, options->max_iterations,
                           &s->newton, &newton));
    s->program.steps = newton.steps;
    s->program.value = newton.value;
    memcpy(s->program.slope, s->newton.gradient, (size_t)s->active.n * sizeof(double));
    return CIV_OK;
}

static void
record(double largest, const halfspace *s, const civ_pcr_result *result,
       civ_pcr_info *info)
{
    double unit = civ_pcr_cost_unit(&s->frame), bound = s->program.value;
    double cost = civ_dot(s->active.n, s->active.mu, s->active.bound) - bound;
    civ_pcr_record(result, info,
                   (double[]){largest * s->frame.space->unit, unit * cost, unit * bound,
                              NAN, NAN});
}

/* Whether the dual has gone where there is no solution, or steps ran out. */
static bool
ended(const civ_pcr_options *options, const halfspace *s, civ_pcr_info *info)
{
    if (s->program.value > CIV_PCR_INFEASIBLE) {
        info->outcome = CIV_INFEASIBLE;
    } else if (s->program.steps >= options->max_iterations) {
        info->outcome = CIV_ITERATION_LIMIT;
    } else {
        return false;
    }
    return true;
}

/* Most constraints to let join: many where many have turned out to matter. */
static int64_t
most_joining(const halfspace *s)
{
    int64_t positive = 0;
    for (int64_t w = 0; w < s->active.n; w++) {
        positive += s->active.mu[w] > 0.0;
    }
    return civ_max(BATCH, s->stiff ? s->active.n : GROWTH * positive);
}

/*
 * Lets violated constraints join until there is none. Among many new ones, sweeps
 * settle which of them matter; the program is solved to the last digits when few come.
 * Ends early when it proves stiff, unless that is known.
 */
static civ_status
iterate(const civ_pcr_options *options, halfspace *s, const civ_pcr_result *result,
        civ_pcr_info *info)
{
    bool known = s->stiff;
    double goal = options->tolerance, effort = CIV_PCR_EFFORT * goal;
    int64_t count = civ_pcr_rank_candidates(&s->frame, goal, BATCH);
    bool finished = count == 0;
    info->outcome = CIV_CONVERGED;
    while (count > 0 || !finished) {
        CIV_TRY(admit(count, s));
        bool few = count <= CIV_PCR_BORDER || s->active.n == count_listed(s);
        finished = known || few;
        CIV_TRY(known ? solve_slowly(options, effort, s)
                      : solve_quickly(options, effort, finished, s));
        double largest = scan(s);
        record(largest, s, result, info);
        info->iterations = s->program.steps;
        if (ended(options, s, info) || s->stiff != known) {
            return CIV_OK;
        }
        count = civ_pcr_rank_candidates(&s->frame, goal, most_joining(s));
    }
    return CIV_OK;
}

/* Begins with the violations of the unmoved outputs. */
static void
start(int64_t per_prompt, halfspace *s)
{
    civ_arena_close(&s->growing);
    s->active = (civ_pcr_active){0};
    s->n_known = 0;
    s->frame.per_prompt = per_prompt;
    civ_pcr_frame_start(&s->frame);
    civ_pcr_offer_initial(&s->frame);
}

static civ_status
run(const civ_pcr_options *options, halfspace *s, const civ_pcr_result *result,
    civ_pcr_info *info)
{
    const civ_pcr_space *space = s->frame.space;
    CIV_TRY(civ_gram(s->exec, &space->points, &space->points, &s->pair));
    start(s->frame.per_prompt, s);
    CIV_TRY(iterate(options, s, result, info));
    if (s->stiff && info->outcome != CIV_ITERATION_LIMIT) {
        start(civ_pcr_share(space, OFFERS), s);
        CIV_TRY(iterate(options, s, result, info));
    }
    write_solution(s, result);
    return CIV_OK;
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
    civ_status status = run(options, &s, result, info);
    civ_arena_close(&s.growing);
    civ_arena_close(&arena);
    return status;
}
