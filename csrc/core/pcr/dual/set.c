/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The working set of the dual solver: its memory, the basis of its vectors and all
 * inner products that follow from it.
 */
#include "pcr/dual/set.h"

#include "linalg/linalg.h"
#include "linalg/products.h"
#include "pcr/dual/table.h"

#include <string.h>

/* Candidates wanted at a time, and from each prompt. */
#define OFFERS 48
#define OFFERS_EACH 4
/* Most prompts for which constraints may be checked by vectors, and how many must be
 * violated at the start. */
#define LEAN_PROMPTS 4
#define LEAN_LEAST 16

/*
 * A check of all constraints needs a row of the table for each of the set, or one pass
 * over the points for each prompt: that is less when few prompts have many constraints.
 */
static bool
may_be_lean(const civ_pcr_space *space)
{
    return space->m <= LEAN_PROMPTS && space->n == space->p;
}

void
civ_pcr_dual_carve(civ_arena *arena, civ_pcr_dual *s)
{
    const civ_pcr_space *space = s->frame.space;
    int64_t offers = civ_max(OFFERS_EACH, civ_pcr_share(space, OFFERS));
    civ_pcr_frame_carve(arena, space, offers, &s->frame);
    s->place = civ_arena_take(arena, space->m, sizeof(int64_t));
    s->known.place = civ_arena_take(arena, space->m + space->p, sizeof(int64_t));
    s->listed = civ_arena_take(arena, space->m + space->p, sizeof(int64_t));
    s->pointers = civ_arena_take(arena, space->m + space->p, sizeof *s->pointers);
    s->spare = civ_take_f64(arena, CIV_PCR_FREE_DIRECTIONS, space->d);
    s->spare_table = civ_take_f64(arena, CIV_PCR_FREE_DIRECTIONS, space->m + space->p);
    int64_t few = may_be_lean(space) ? space->m : 0;
    s->lean_factors = civ_take_f64(arena, few, few);
    s->lean_pull = civ_take_f64(arena, few, space->d);
    s->lean_solution = civ_take_f64(arena, few, space->d);
    s->lean_outputs = civ_take_f64(arena, few, space->d);
}

static void
carve_growing(civ_arena *arena, int64_t capacity, civ_pcr_dual *s)
{
    int64_t m = s->frame.space->m, q = m + s->frame.space->p;
    int64_t rows = civ_min(m, capacity), columns = capacity + CIV_PCR_FREE_DIRECTIONS;
    civ_pcr_working_set_carve(arena, capacity, &s->set);
    s->local = civ_arena_take(arena, capacity, sizeof(int64_t));
    s->rows = civ_arena_take(arena, rows, sizeof(int64_t));
    s->table = civ_take_f64(arena, capacity, q);
    civ_pcr_dual_known_carve(arena, civ_min(rows + capacity, q), q, &s->known);
    s->pair = civ_take_f64(arena, columns, columns);
    s->gram = civ_take_f64(arena, rows, rows);
    s->anchor = civ_take_f64(arena, rows, columns);
    s->solution = civ_take_f64(arena, rows, columns);
    s->anchor_pair = civ_take_f64(arena, rows, columns);
    s->target = civ_take_f64(arena, rows, columns);
    s->target_pair = civ_take_f64(arena, rows, columns);
    s->moved = civ_take_f64(arena, rows, columns);
    s->moved_pair = civ_take_f64(arena, rows, columns);
    s->system = civ_take_f64(arena, rows, rows);
    s->half = civ_take_f64(arena, rows, rows);
    s->response = civ_take_f64(arena, rows, rows);
    s->squares = civ_take_f64(arena, rows, rows);
    s->weights = civ_take_f64(arena, m, rows);
    s->products = civ_take_f64(arena, rows, q);
    s->values = civ_take_f64(arena, m, q - m);
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
    int64_t n = s->set.n, x = n + s->n_spare, r = s->n_rows;
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
    int64_t needed = s->set.n + count;
    if (needed <= s->set.capacity) {
        return CIV_OK;
    }
    civ_pcr_dual larger = *s;
    larger.growing = (civ_arena){0};
    carve_growing(&larger.growing, 2 * needed, &larger);
    CIV_TRY(civ_arena_open(&larger.growing));
    carve_growing(&larger.growing, 2 * needed, &larger);
    civ_pcr_working_set_copy(&s->set, &larger.set);
    civ_pcr_dual_known_copy(&s->known, &larger.known);
    size_t columns = (size_t)s->table.n_cols * sizeof(double);
    for (int64_t w = 0; w < s->set.n; w++) {
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
    int64_t l = s->set.point[w];
    double with_point = row[space->m + l];
    return civ_pcr_is_ball(space, l) ? row[s->set.prompt[w]] - with_point : -with_point;
}

static void
fill_pair(civ_pcr_dual *s)
{
    int64_t n = s->set.n;
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
    int64_t n = s->set.n, columns = n + s->n_spare;
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

civ_status
civ_pcr_dual_prepare(civ_pcr_dual *s)
{
    set_sizes(s);
    fill_pair(s);
    fill_gram(s);
    return move_anchor(s);
}

civ_status
civ_pcr_dual_admit(civ_pcr_dual *s, int64_t count)
{
    int64_t first = s->set.n;
    CIV_TRY(make_room(count, s));
    civ_pcr_admit(&s->frame, count, &s->set);
    for (int64_t w = first; w < s->set.n; w++) {
        int64_t j = s->set.prompt[w];
        if (s->place[j] < 0) {
            s->place[j] = s->n_rows;
            s->rows[s->n_rows++] = j;
        }
        s->local[w] = s->place[j];
    }
    CIV_TRY(civ_pcr_dual_extend_table(s, first));
    return civ_pcr_dual_prepare(s);
}

void
civ_pcr_dual_start(bool careful, civ_pcr_dual *s)
{
    const civ_pcr_space *space = s->frame.space;
    s->careful = careful || civ_pcr_dual_cancels(space);
    civ_pcr_frame_start(&s->frame);
    s->known.n = 0;
    for (int64_t x = 0; x < space->m + space->p; x++) {
        s->known.place[x] = -1;
    }
    for (int64_t j = 0; j < space->m; j++) {
        s->place[j] = -1;
    }
    s->set.n = s->n_rows = 0;
    s->solution.n_rows = s->solution.n_cols = 0;
    civ_pcr_offer_initial(&s->frame);
    s->lean = !s->careful && may_be_lean(space) && s->frame.n_candidates >= LEAN_LEAST;
}
