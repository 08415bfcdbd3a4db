/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inner products of the working set's constraints with all outputs and points. They
 * follow from those between outputs and points, of which each prompt and each point in
 * the set needs one row; or, where that would lose digits, come from vectors.
 */
#include "pcr/dual/table.h"

#include "linalg/inner.h"

#include <math.h>
#include <string.h>

/* Lengths of outputs and points, in units, beyond which differences lose digits: some
 * 1e-16 times its square is lost. */
#define LONG 30.0

bool
civ_pcr_cancels(const civ_pcr_space *space)
{
    return !(civ_pcr_longest(space) <= LONG * space->unit);
}

/* ---- from vectors -------------------------------------------------------------- */

civ_status
civ_pcr_dual_products(const civ_pcr_dual *s, const civ_mat *vectors, double *table)
{
    const civ_pcr_space *space = s->frame.space;
    int64_t q = space->m + space->p;
    double scale = 1.0 / space->unit;
    civ_mat with_outputs = {table, vectors->n_rows, space->m, q, CIV_F64};
    civ_mat with_points = {table + space->m, vectors->n_rows, space->p, q, CIV_F64};
    CIV_TRY(civ_product_nt(s->exec, vectors, &space->outputs, &with_outputs));
    CIV_TRY(civ_product_nt(s->exec, vectors, &space->points, &with_points));
    for (int64_t i = 0; i < vectors->n_rows; i++) {
        double *row = table + i * q;
        for (int64_t x = 0; x < space->m + space->n; x++) {
            row[x] *= scale;
        }
    }
    return CIV_OK;
}

static civ_status
from_vectors(civ_pcr_dual *s, int64_t first)
{
    const civ_pcr_space *space = s->frame.space;
    int64_t n_new = s->active.n - first;
    civ_arena arena = {0};
    civ_mat vectors = civ_f64(civ_arena_take(&arena, n_new * space->d, sizeof(double)),
                              n_new, space->d);
    CIV_TRY(civ_arena_open(&arena));
    vectors = civ_f64(civ_arena_take(&arena, n_new * space->d, sizeof(double)), n_new,
                      space->d);
    for (int64_t w = first; w < s->active.n; w++) {
        civ_pcr_constraint_vector(space, s->active.prompt[w], s->active.point[w],
                                  civ_at(&vectors, w - first, 0));
    }
    civ_status status = civ_pcr_dual_products(s, &vectors, civ_at(&s->table, first, 0));
    civ_arena_close(&arena);
    return status;
}

/* ---- from outputs and points --------------------------------------------------- */

void
civ_pcr_known_carve(civ_arena *arena, int64_t capacity, int64_t q, civ_pcr_known *known)
{
    known->vector = civ_arena_take(arena, capacity, sizeof(int64_t));
    double *rows = civ_arena_take(arena, capacity * q, sizeof(double));
    known->rows = civ_f64(rows, capacity, q);
}

void
civ_pcr_known_copy(const civ_pcr_known *from, civ_pcr_known *to)
{
    to->n = from->n;
    if (from->n > 0) {
        memcpy(to->vector, from->vector, (size_t)from->n * sizeof(int64_t));
        memcpy(to->rows.data, from->rows.data,
               (size_t)(from->n * from->rows.n_cols) * sizeof(double));
    }
}

/* Gives a vector a row, if it has none. */
static void
list_vector(int64_t x, civ_pcr_known *known)
{
    if (known->place[x] < 0) {
        known->place[x] = known->n;
        known->vector[known->n++] = x;
    }
}

typedef struct family {
    const civ_mat *vectors; /* outputs, or points */
    int64_t first;          /* the number of the first of them */
    int64_t count;
} family;

/*
 * Inner products of the rows from `first_row` on that belong to a family with all of
 * it: with those that have no row yet, or a new one, they are computed; the others'
 * rows have them. Lean: with all that have a row they are computed, for both.
 */
static civ_status
fill_within(civ_pcr_dual *s, const family *all, int64_t first_row)
{
    civ_pcr_known *known = &s->known;
    civ_inner_block block = {.depth = s->frame.space->d, .symmetric = true};
    int64_t *listed = s->listed;
    for (int64_t r = first_row; r < known->n; r++) {
        int64_t x = known->vector[r] - all->first;
        if (x >= 0 && x < all->count) {
            listed[block.n_x++] = x;
        }
    }
    block.n_y = block.n_x;
    for (int64_t x = 0; x < all->count && block.n_x > 0; x++) {
        int64_t place = known->place[all->first + x];
        if (s->lean ? place >= 0 && place < first_row : place < 0) {
            listed[block.n_y++] = x;
        }
    }
    for (int64_t i = 0; i < block.n_y; i++) {
        s->pointers[i] = civ_at(all->vectors, listed[i], 0);
    }
    block.x = block.y = s->pointers;
    civ_arena arena = {0};
    civ_arena_take(&arena, block.n_x * block.n_y, sizeof(double));
    CIV_TRY(civ_arena_open(&arena));
    double *values = civ_arena_take(&arena, block.n_x * block.n_y, sizeof(double));
    block.out = civ_f64(values, block.n_x, block.n_y);
    civ_status status = civ_inner_products(s->exec, &block);
    for (int64_t i = 0; i < block.n_x; i++) {
        double *row =
            civ_at(&known->rows, known->place[all->first + listed[i]], all->first);
        for (int64_t r = 0; r < first_row; r++) {
            int64_t x = known->vector[r] - all->first;
            if (!s->lean && x >= 0 && x < all->count) {
                row[x] = *civ_at(&known->rows, r, all->first + listed[i]);
            }
        }
        for (int64_t k = 0; k < block.n_y; k++) {
            double value = values[i * block.n_y + k];
            row[listed[k]] = value;
            if (s->lean) {
                int64_t other = known->place[all->first + listed[k]];
                *civ_at(&known->rows, other, all->first + listed[i]) = value;
            }
        }
    }
    civ_arena_close(&arena);
    return status;
}

/* Inner products between outputs and points are there already. */
static void
fill_between(civ_pcr_dual *s, int64_t first_row)
{
    const civ_pcr_space *space = s->frame.space;
    for (int64_t r = first_row; r < s->known.n; r++) {
        int64_t x = s->known.vector[r];
        double *row = civ_at(&s->known.rows, r, 0);
        if (x < space->m) {
            memcpy(row + space->m, civ_at(&space->cross, x, 0),
                   (size_t)space->p * sizeof(double));
            continue;
        }
        for (int64_t j = 0; j < space->m; j++) {
            row[j] = *civ_at(&space->cross, j, x - space->m);
        }
    }
}

static void
subtract(const civ_pcr_dual *s, int64_t w)
{
    const civ_pcr_space *space = s->frame.space;
    int64_t l = s->active.point[w], q = space->m + space->p;
    bool ball = civ_pcr_is_ball(space, l);
    double unit = space->unit, scale = ball ? 1.0 / unit : 1.0;
    int64_t row = s->known.place[s->active.prompt[w]];
    const double *output = ball ? civ_at(&s->known.rows, row, 0) : NULL;
    const double *point = civ_at(&s->known.rows, s->known.place[space->m + l], 0);
    double *out = civ_at(&s->table, w, 0);
    for (int64_t x = 0; x < q; x++) {
        out[x] = scale * ((ball ? output[x] : 0.0) - point[x]);
        out[x] *= x < space->m + space->n ? 1.0 / unit : 1.0;
    }
}

static civ_status
from_outputs_and_points(civ_pcr_dual *s, int64_t first)
{
    const civ_pcr_space *space = s->frame.space;
    int64_t first_row = s->known.n;
    for (int64_t w = first; w < s->active.n; w++) {
        if (civ_pcr_is_ball(space, s->active.point[w])) {
            list_vector(s->active.prompt[w], &s->known);
        }
        list_vector(space->m + s->active.point[w], &s->known);
    }
    CIV_TRY(fill_within(s, &(family){&space->outputs, 0, space->m}, first_row));
    CIV_TRY(fill_within(s, &(family){&space->points, space->m, space->p}, first_row));
    fill_between(s, first_row);
    for (int64_t w = first; w < s->active.n; w++) {
        subtract(s, w);
    }
    return CIV_OK;
}

civ_status
civ_pcr_extend_table(civ_pcr_dual *s, int64_t first)
{
    return s->careful ? from_vectors(s, first) : from_outputs_and_points(s, first);
}
