/* SPDX-License-Identifier: Apache-2.0 */
/* The working set of the half-space solver: its memory, its Hessian, and the check of
 * all constraints, in Gram space. */
#include "pcr/halfspace/set.h"

#include "linalg/products.h"
#include "runtime/parallel.h"

#include <math.h>
#include <string.h>

/* Least room for constraints, where there are as many: pages that stay untouched cost
 * nothing, but growing means computing the Hessian again. */
#define ROOM 8192

void
civ_pcr_halfspace_carve(civ_arena *arena, civ_pcr_halfspace *s)
{
    const civ_pcr_space *space = s->frame.space;
    int64_t m = space->m, p = space->p;
    int64_t most = civ_max(civ_pcr_share(space, CIV_PCR_STIFF_OFFERS), CIV_PCR_GROWTH);
    civ_pcr_frame_carve(arena, space, most, &s->frame);
    s->pair = civ_take_f64(arena, p, p);
    s->packed = civ_arena_take(arena, m * m / 2, sizeof(double));
    s->responses = civ_arena_take(arena, p * m, sizeof(double));
    s->place = civ_arena_take(arena, m, sizeof(int64_t));
    s->used = civ_arena_take(arena, m, sizeof(int64_t));
}

static void
carve_growing(civ_arena *arena, int64_t capacity, civ_pcr_halfspace *s)
{
    civ_pcr_working_set_carve(arena, capacity, &s->set);
    s->hessian = civ_take_f64(arena, capacity, capacity);
    s->positive = civ_arena_take(arena, capacity, sizeof(civ_pcr_multiplier));
    civ_pcr_quadratic_carve(arena, capacity, &s->program);
    if (s->stiff) {
        civ_pcr_newton_carve(arena, capacity, &s->newton);
    }
}

int64_t
civ_pcr_halfspace_count(const civ_pcr_halfspace *s)
{
    return s->frame.space->first[s->frame.space->m];
}

/* Makes room for `count` more constraints. */
static civ_status
make_room(int64_t count, civ_pcr_halfspace *s)
{
    int64_t needed = s->set.n + count;
    if (needed <= s->set.capacity) {
        return CIV_OK;
    }
    int64_t capacity = civ_min(civ_max(2 * needed, ROOM), civ_pcr_halfspace_count(s));
    civ_pcr_halfspace larger = *s;
    larger.growing = (civ_arena){0};
    larger.program = (civ_pcr_quadratic){.steps = s->program.steps};
    carve_growing(&larger.growing, capacity, &larger);
    CIV_TRY(civ_arena_open(&larger.growing));
    carve_growing(&larger.growing, capacity, &larger);
    civ_pcr_working_set_copy(&s->set, &larger.set);
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
    civ_pcr_halfspace *s = arg;
    const civ_pcr_working_set *set = &s->set;
    const double *gram = civ_at(&s->frame.space->gram, set->prompt[w], 0);
    const double *pair = civ_at(&s->pair, set->point[w], 0);
    double scale = 2.0 / s->frame.gram_unit;
    double *row = civ_at(&s->hessian, w, 0);
    for (int64_t x = w < s->n_known ? s->n_known : 0; x < set->n; x++) {
        row[x] = scale * gram[set->prompt[x]] * pair[set->point[x]];
    }
    return CIV_OK;
}

civ_status
civ_pcr_halfspace_admit(civ_pcr_halfspace *s, int64_t count)
{
    CIV_TRY(make_room(count, s));
    civ_pcr_admit(&s->frame, count, &s->set);
    int64_t n = s->set.n;
    CIV_TRY(civ_parallel_for(s->exec, n, n, fill_row, s));
    s->n_known = n;
    s->program.hessian = s->hessian;
    s->program.bound = s->set.bound;
    s->program.mu = s->set.mu;
    civ_pcr_quadratic_extend(n, &s->program);
    return CIV_OK;
}

void
civ_pcr_halfspace_start(civ_pcr_halfspace *s, int64_t per_prompt)
{
    civ_arena_close(&s->growing);
    s->set = (civ_pcr_working_set){0};
    s->n_known = 0;
    s->frame.per_prompt = per_prompt;
    civ_pcr_frame_start(&s->frame);
    civ_pcr_offer_initial(&s->frame);
}

/* ---- all constraints ----------------------------------------------------------- */

/* Lists the positive multipliers, and numbers their prompts, or all when they are most:
 * G then serves as it is. */
static void
list_positive(civ_pcr_halfspace *s)
{
    const civ_pcr_working_set *set = &s->set;
    s->n_positive = s->n_used = 0;
    for (int64_t j = 0; j < s->frame.space->m; j++) {
        s->place[j] = -1;
    }
    for (int64_t w = 0; w < set->n; w++) {
        int64_t j = set->prompt[w];
        if (set->mu[w] > 0.0) {
            if (s->place[j] < 0) {
                s->used[s->n_used] = j;
                s->place[j] = s->n_used++;
            }
            double mu = set->mu[w] / s->frame.gram_unit;
            s->positive[s->n_positive++] = (civ_pcr_multiplier){j, set->point[w], mu};
        }
    }
    s->weights = s->frame.space->gram;
    if (2 * s->n_used < s->weights.n_rows) {
        s->weights = civ_f64(s->packed, s->weights.n_rows, s->n_used);
        for (int64_t i = 0; i < s->n_positive; i++) {
            s->positive[i].place = s->place[s->positive[i].place];
        }
    }
}

/* Packs G where it pays, and the inner products <A_J, u_l> / gram_unit for the prompts
 * in use. */
static void
pack_responses(civ_pcr_halfspace *s)
{
    const civ_pcr_space *space = s->frame.space;
    list_positive(s);
    int64_t count = s->weights.n_cols;
    memset(s->responses, 0, (size_t)(space->p * count) * sizeof(double));
    for (int64_t l = 0; l < space->p; l++) {
        const double *pair = civ_at(&s->pair, l, 0);
        double *response = s->responses + l * count;
        for (int64_t i = 0; i < s->n_positive; i++) {
            response[s->positive[i].place] -=
                s->positive[i].mu * pair[s->positive[i].point];
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
scan_others(civ_pcr_halfspace *s)
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

/* The slope of a constraint in the set is twice its violation. */
double
civ_pcr_halfspace_scan(civ_pcr_halfspace *s)
{
    double largest = 0.0;
    civ_pcr_clear_offers(&s->frame);
    for (int64_t w = 0; w < s->set.n; w++) {
        largest = fmax(largest, 0.5 * s->program.slope[w]);
    }
    bool others = s->set.n < civ_pcr_halfspace_count(s);
    return others ? fmax(largest, scan_others(s)) : largest;
}
