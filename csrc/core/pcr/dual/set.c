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
    civ_pcr_dual_basis *basis = &s->basis;
    const civ_pcr_space *space = s->frame.space;
    int64_t offers = civ_max(OFFERS_EACH, civ_pcr_share(space, OFFERS));
    civ_pcr_frame_carve(arena, space, offers, &s->frame);
    basis->place = civ_arena_take(arena, space->m, sizeof(int64_t));
    basis->known.place = civ_arena_take(arena, space->m + space->p, sizeof(int64_t));
    s->work.listed = civ_arena_take(arena, space->m + space->p, sizeof(int64_t));
    s->work.pointers =
        civ_arena_take(arena, space->m + space->p, sizeof *s->work.pointers);
    basis->free = civ_take_f64(arena, CIV_PCR_FREE_DIRECTIONS, space->d);
    basis->free_table =
        civ_take_f64(arena, CIV_PCR_FREE_DIRECTIONS, space->m + space->p);
    int64_t few = may_be_lean(space) ? space->m : 0;
    s->lean.factors = civ_take_f64(arena, few, few);
    s->lean.pull = civ_take_f64(arena, few, space->d);
    s->lean.solution = civ_take_f64(arena, few, space->d);
    s->lean.outputs = civ_take_f64(arena, few, space->d);
}

static void
carve_growing(civ_arena *arena, int64_t capacity, civ_pcr_dual *s)
{
    civ_pcr_dual_basis *basis = &s->basis;
    civ_pcr_dual_response *response = &s->response;
    civ_pcr_dual_work *work = &s->work;
    int64_t m = s->frame.space->m, q = m + s->frame.space->p;
    int64_t rows = civ_min(m, capacity), columns = capacity + CIV_PCR_FREE_DIRECTIONS;
    civ_pcr_working_set_carve(arena, capacity, &s->set);
    basis->local = civ_arena_take(arena, capacity, sizeof(int64_t));
    basis->rows = civ_arena_take(arena, rows, sizeof(int64_t));
    basis->table = civ_take_f64(arena, capacity, q);
    civ_pcr_dual_known_carve(arena, civ_min(rows + capacity, q), q, &basis->known);
    basis->pair = civ_take_f64(arena, columns, columns);
    basis->gram = civ_take_f64(arena, rows, rows);
    response->anchor = civ_take_f64(arena, rows, columns);
    response->solution = civ_take_f64(arena, rows, columns);
    response->anchor_pair = civ_take_f64(arena, rows, columns);
    response->target = civ_take_f64(arena, rows, columns);
    response->target_pair = civ_take_f64(arena, rows, columns);
    response->moved = civ_take_f64(arena, rows, columns);
    response->moved_pair = civ_take_f64(arena, rows, columns);
    response->system = civ_take_f64(arena, rows, rows);
    response->half = civ_take_f64(arena, rows, rows);
    response->matrix = civ_take_f64(arena, rows, rows);
    work->squares = civ_take_f64(arena, rows, rows);
    basis->weights = civ_take_f64(arena, m, rows);
    work->products = civ_take_f64(arena, rows, q);
    work->values = civ_take_f64(arena, m, q - m);
    response->nu = civ_arena_take(arena, rows, sizeof(double));
    response->root = civ_arena_take(arena, rows, sizeof(double));
    work->scratch = civ_arena_take(arena, rows, sizeof(double));
    work->eigen = civ_arena_take(arena, civ_symmetric_eigen_work(rows), sizeof(double));
    civ_pcr_newton_carve(arena, capacity, &work->newton);
}

/* Views of the size in use, over memory of the size carved. */
static void
set_sizes(civ_pcr_dual *s)
{
    civ_pcr_dual_basis *basis = &s->basis;
    civ_pcr_dual_response *response = &s->response;
    civ_pcr_dual_work *work = &s->work;
    int64_t n = s->set.n, x = n + basis->n_free, r = basis->n_rows;
    basis->pair = civ_f64(basis->pair.data, x, x);
    basis->gram = civ_f64(basis->gram.data, r, r);
    response->anchor_pair = civ_f64(response->anchor_pair.data, r, x);
    response->target = civ_f64(response->target.data, r, x);
    response->target_pair = civ_f64(response->target_pair.data, r, x);
    response->moved = civ_f64(response->moved.data, r, x);
    response->moved_pair = civ_f64(response->moved_pair.data, r, x);
    response->system = civ_f64(response->system.data, r, r);
    response->half = civ_f64(response->half.data, r, r);
    response->matrix = civ_f64(response->matrix.data, r, r);
    work->squares = civ_f64(work->squares.data, r, r);
    basis->weights = civ_f64(basis->weights.data, s->frame.space->m, r);
    work->products = civ_f64(work->products.data, r, work->products.n_cols);
}

static civ_status
make_room(int64_t count, civ_pcr_dual *s)
{
    civ_pcr_dual_basis *basis = &s->basis;
    int64_t needed = s->set.n + count;
    if (needed <= s->set.capacity) {
        return CIV_OK;
    }
    civ_pcr_dual larger = *s;
    larger.work.growing = (civ_arena){0};
    carve_growing(&larger.work.growing, 2 * needed, &larger);
    CIV_TRY(civ_arena_open(&larger.work.growing));
    carve_growing(&larger.work.growing, 2 * needed, &larger);
    civ_pcr_working_set_copy(&s->set, &larger.set);
    civ_pcr_dual_known_copy(&basis->known, &larger.basis.known);
    size_t columns = (size_t)basis->table.n_cols * sizeof(double);
    for (int64_t w = 0; w < s->set.n; w++) {
        larger.basis.local[w] = basis->local[w];
        memcpy(civ_at(&larger.basis.table, w, 0), civ_at(&basis->table, w, 0), columns);
    }
    larger.response.solution = civ_f64(larger.response.solution.data, basis->n_rows,
                                       s->response.solution.n_cols);
    for (int64_t r = 0; r < basis->n_rows; r++) {
        larger.basis.rows[r] = basis->rows[r];
        memcpy(civ_at(&larger.response.solution, r, 0),
               civ_at(&s->response.solution, r, 0),
               (size_t)s->response.solution.n_cols * sizeof(double));
    }
    civ_arena_close(&s->work.growing);
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
    civ_pcr_dual_basis *basis = &s->basis;
    int64_t n = s->set.n;
    for (int64_t x = 0; x < basis->pair.n_rows; x++) {
        const double *row =
            x < n ? civ_at(&basis->table, x, 0) : civ_at(&basis->free_table, x - n, 0);
        for (int64_t w = 0; w < civ_min(x + 1, n); w++) {
            double value = with_constraint(s, row, w);
            *civ_at(&basis->pair, x, w) = value;
            *civ_at(&basis->pair, w, x) = value;
        }
        for (int64_t e = n; e <= x; e++) {
            *civ_at(&basis->pair, x, e) = *civ_at(&basis->pair, e, x) =
                e == x ? 1.0 : 0.0;
        }
    }
}

static void
fill_gram(civ_pcr_dual *s)
{
    civ_pcr_dual_basis *basis = &s->basis;
    const civ_pcr_space *space = s->frame.space;
    for (int64_t j = 0; j < space->m; j++) {
        const double *gram = civ_at(&space->gram, j, 0);
        for (int64_t r = 0; r < basis->n_rows; r++) {
            *civ_at(&basis->weights, j, r) = gram[basis->rows[r]] / s->frame.gram_unit;
        }
    }
    for (int64_t r = 0; r < basis->n_rows; r++) {
        memcpy(civ_at(&basis->gram, r, 0), civ_at(&basis->weights, basis->rows[r], 0),
               (size_t)basis->n_rows * sizeof(double));
    }
}

/* The last solution as coefficients over the basis that has grown since, with its inner
 * products where it is pulled at. */
static civ_status
move_anchor(civ_pcr_dual *s)
{
    civ_pcr_dual_basis *basis = &s->basis;
    civ_pcr_dual_response *response = &s->response;
    int64_t n = s->set.n, columns = n + basis->n_free;
    int64_t old_rows = response->solution.n_rows,
            old_columns = response->solution.n_cols;
    int64_t old_n = old_columns - basis->n_free;
    response->anchor = civ_f64(response->anchor.data, basis->n_rows, columns);
    memset(response->anchor.data, 0,
           (size_t)(basis->n_rows * columns) * sizeof(double));
    for (int64_t r = 0; r < old_rows; r++) {
        const double *from = civ_at(&response->solution, r, 0);
        double *to = civ_at(&response->anchor, r, 0);
        memcpy(to, from, (size_t)old_n * sizeof(double));
        memcpy(to + n, from + old_n, (size_t)basis->n_free * sizeof(double));
    }
    if (s->kappa == 0.0) {
        memset(response->anchor_pair.data, 0,
               (size_t)(basis->n_rows * columns) * sizeof(double));
        return CIV_OK;
    }
    return civ_gemm_nn(1.0, &response->anchor, &basis->pair, 0.0,
                       &response->anchor_pair);
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
    civ_pcr_dual_basis *basis = &s->basis;
    int64_t first = s->set.n;
    CIV_TRY(make_room(count, s));
    civ_pcr_admit(&s->frame, count, &s->set);
    for (int64_t w = first; w < s->set.n; w++) {
        int64_t j = s->set.prompt[w];
        if (basis->place[j] < 0) {
            basis->place[j] = basis->n_rows;
            basis->rows[basis->n_rows++] = j;
        }
        basis->local[w] = basis->place[j];
    }
    CIV_TRY(civ_pcr_dual_extend_table(s, first));
    return civ_pcr_dual_prepare(s);
}

void
civ_pcr_dual_start(bool careful, civ_pcr_dual *s)
{
    civ_pcr_dual_basis *basis = &s->basis;
    const civ_pcr_space *space = s->frame.space;
    s->careful = careful || civ_pcr_dual_cancels(space);
    civ_pcr_frame_start(&s->frame);
    basis->known.n = 0;
    for (int64_t x = 0; x < space->m + space->p; x++) {
        basis->known.place[x] = -1;
    }
    for (int64_t j = 0; j < space->m; j++) {
        basis->place[j] = -1;
    }
    s->set.n = basis->n_rows = 0;
    s->response.solution.n_rows = s->response.solution.n_cols = 0;
    civ_pcr_offer_initial(&s->frame);
    s->lean.on =
        !s->careful && may_be_lean(space) && s->frame.n_candidates >= LEAN_LEAST;
}
