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
civ_pcr_dual_cancels(const civ_pcr_space *space)
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

typedef struct vectors_job {
    civ_pcr_dual *s;
    int64_t first;
    civ_mat vectors; /* r of the constraints from `first` on (.., d) */
} vectors_job;

static void
carve_vectors(civ_arena *arena, void *arg)
{
    vectors_job *job = arg;
    int64_t n_new = job->s->set.n - job->first;
    job->vectors = civ_take_f64(arena, n_new, job->s->frame.space->d);
}

static civ_status
from_vectors(void *arg)
{
    const vectors_job *job = arg;
    civ_pcr_dual *s = job->s;
    for (int64_t w = job->first; w < s->set.n; w++) {
        civ_pcr_constraint_vector(s->frame.space, s->set.prompt[w], s->set.point[w],
                                  civ_at(&job->vectors, w - job->first, 0));
    }
    return civ_pcr_dual_products(s, &job->vectors,
                                 civ_at(&s->basis.table, job->first, 0));
}

/* ---- from outputs and points --------------------------------------------------- */

void
civ_pcr_dual_known_carve(civ_arena *arena, int64_t capacity, int64_t q,
                         civ_pcr_dual_known *known)
{
    known->vector = civ_arena_take(arena, capacity, sizeof(int64_t));
    double *rows = civ_arena_take(arena, capacity * q, sizeof(double));
    known->rows = civ_f64(rows, capacity, q);
}

void
civ_pcr_dual_known_copy(const civ_pcr_dual_known *from, civ_pcr_dual_known *to)
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
list_vector(int64_t x, civ_pcr_dual_known *known)
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

/* Rows from `first_row` on that belong to a family, to be multiplied with all of it. */
typedef struct family_job {
    civ_pcr_dual *s;
    const family *all;
    int64_t first_row;
    int64_t n_new;    /* such rows; s->work.listed begins with their vectors */
    int64_t n_listed; /* vectors with which their inner products are computed */
    civ_mat values;   /* these inner products (n_new, n_listed) */
} family_job;

/* Number within the family of the vector that row r is of, or -1. */
static int64_t
member_of_row(const family_job *job, int64_t r)
{
    int64_t x = job->s->basis.known.vector[r] - job->all->first;
    return x >= 0 && x < job->all->count ? x : -1;
}

/* The row of the table of known products for a listed vector. */
static double *
row_of(const family_job *job, int64_t i)
{
    const civ_pcr_dual_known *known = &job->s->basis.known;
    int64_t row = known->place[job->all->first + job->s->work.listed[i]];
    return civ_at(&known->rows, row, job->all->first);
}

/*
 * The new rows of the family, and what their inner products are computed with: all
 * that have no row yet, as rows that are there already hold the others; lean: all that
 * have one, as rows then have no other columns.
 */
static void
list_family(family_job *job)
{
    civ_pcr_dual *s = job->s;
    for (int64_t r = job->first_row; r < s->basis.known.n; r++) {
        int64_t x = member_of_row(job, r);
        if (x >= 0) {
            s->work.listed[job->n_new++] = x;
        }
    }
    job->n_listed = job->n_new;
    for (int64_t x = 0; x < job->all->count && job->n_new > 0; x++) {
        int64_t place = s->basis.known.place[job->all->first + x];
        if (s->lean.on ? place >= 0 && place < job->first_row : place < 0) {
            s->work.listed[job->n_listed++] = x;
        }
    }
}

static void
carve_values(civ_arena *arena, void *arg)
{
    family_job *job = arg;
    job->values = civ_take_f64(arena, job->n_new, job->n_listed);
}

static civ_status
multiply_listed(const family_job *job)
{
    civ_pcr_dual *s = job->s;
    civ_pcr_dual_work *work = &s->work;
    for (int64_t i = 0; i < job->n_listed; i++) {
        work->pointers[i] = civ_at(job->all->vectors, work->listed[i], 0);
    }
    return civ_inner_products(s->exec, &(civ_inner_block){.x = work->pointers,
                                                          .y = work->pointers,
                                                          .n_x = job->n_new,
                                                          .n_y = job->n_listed,
                                                          .depth = s->frame.space->d,
                                                          .symmetric = true,
                                                          .out = job->values});
}

/* Rows with all columns: those of vectors that had a row before come from there. */
static civ_status
fill_within_full(void *arg)
{
    const family_job *job = arg;
    const civ_pcr_dual *s = job->s;
    CIV_TRY(multiply_listed(job));
    for (int64_t i = 0; i < job->n_new; i++) {
        double *row = row_of(job, i);
        for (int64_t r = 0; r < job->first_row; r++) {
            int64_t x = member_of_row(job, r);
            if (x >= 0) {
                row[x] = *civ_at(&s->basis.known.rows, r,
                                 job->all->first + s->work.listed[i]);
            }
        }
        for (int64_t k = 0; k < job->n_listed; k++) {
            row[s->work.listed[k]] = *civ_at(&job->values, i, k);
        }
    }
    return CIV_OK;
}

/* Columns of vectors that have a row alone, in the new rows and in those before. */
static civ_status
fill_within_lean(void *arg)
{
    const family_job *job = arg;
    const civ_pcr_dual *s = job->s;
    CIV_TRY(multiply_listed(job));
    for (int64_t i = 0; i < job->n_new; i++) {
        double *row = row_of(job, i);
        for (int64_t k = 0; k < job->n_listed; k++) {
            double value = *civ_at(&job->values, i, k);
            row[s->work.listed[k]] = value;
            row_of(job, k)[s->work.listed[i]] = value;
        }
    }
    return CIV_OK;
}

static civ_status
fill_within(civ_pcr_dual *s, const family *all, int64_t first_row)
{
    family_job job = {.s = s, .all = all, .first_row = first_row};
    list_family(&job);
    if (job.n_new == 0) {
        return CIV_OK;
    }
    return civ_run_in_arena(carve_values,
                            s->lean.on ? fill_within_lean : fill_within_full, &job);
}

/* Inner products between outputs and points are there already. */
static void
fill_between(civ_pcr_dual *s, int64_t first_row)
{
    const civ_pcr_space *space = s->frame.space;
    for (int64_t r = first_row; r < s->basis.known.n; r++) {
        int64_t x = s->basis.known.vector[r];
        double *row = civ_at(&s->basis.known.rows, r, 0);
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
    const civ_pcr_dual_basis *basis = &s->basis;
    const civ_pcr_space *space = s->frame.space;
    int64_t l = s->set.point[w], q = space->m + space->p;
    bool ball = civ_pcr_is_ball(space, l);
    double unit = space->unit, scale = ball ? 1.0 / unit : 1.0;
    int64_t row = basis->known.place[s->set.prompt[w]];
    const double *output = ball ? civ_at(&basis->known.rows, row, 0) : NULL;
    const double *point =
        civ_at(&basis->known.rows, basis->known.place[space->m + l], 0);
    double *out = civ_at(&basis->table, w, 0);
    for (int64_t x = 0; x < q; x++) {
        out[x] = scale * ((ball ? output[x] : 0.0) - point[x]);
        out[x] *= x < space->m + space->n ? 1.0 / unit : 1.0;
    }
}

static civ_status
from_outputs_and_points(civ_pcr_dual *s, int64_t first)
{
    const civ_pcr_space *space = s->frame.space;
    int64_t first_row = s->basis.known.n;
    for (int64_t w = first; w < s->set.n; w++) {
        if (civ_pcr_is_ball(space, s->set.point[w])) {
            list_vector(s->set.prompt[w], &s->basis.known);
        }
        list_vector(space->m + s->set.point[w], &s->basis.known);
    }
    CIV_TRY(fill_within(s, &(family){&space->outputs, 0, space->m}, first_row));
    CIV_TRY(fill_within(s, &(family){&space->points, space->m, space->p}, first_row));
    fill_between(s, first_row);
    for (int64_t w = first; w < s->set.n; w++) {
        subtract(s, w);
    }
    return CIV_OK;
}

civ_status
civ_pcr_dual_extend_table(civ_pcr_dual *s, int64_t first)
{
    if (!s->careful) {
        return from_outputs_and_points(s, first);
    }
    vectors_job job = {.s = s, .first = first};
    return civ_run_in_arena(carve_vectors, from_vectors, &job);
}
