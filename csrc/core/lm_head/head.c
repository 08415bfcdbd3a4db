/* SPDX-License-Identifier: Apache-2.0 */
#include "lm_head/head.h"

#include "kernels/dispatch.h"
#include "runtime/parallel.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Rough operations for one element of a row: of a loss, and of a move. */
#define LOSS_COST 16
#define MOVE_COST 4
/* Elements of a tile, and what its columns are at most. */
#define TILE_SIZE (INT64_C(1) << 15)
#define TILE_PANELS 32
/* Doubles that the partial sums of an alignment may take. */
#define STRIP_SIZE (INT64_C(1) << 22)
#define MAX_STRIPS 32

static int64_t
round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* ---- memory ------------------------------------------------------------------ */

static void
measure(const civ_head_problem *problem, civ_head *self)
{
    const civ_kernels *kernels = civ_kernel_table();
    int64_t m = problem->logits.n_rows, vocab = problem->logits.n_cols;
    civ_dtype lanes = civ_dtype_compute(problem->logits.dtype);
    int64_t panel = kernels->gemm_cols[lanes];
    int64_t panels = civ_min(TILE_PANELS, TILE_SIZE / civ_max(1, m * panel));
    *self = (civ_head){.problem = problem, .kernels = kernels, .m = m, .vocab = vocab};
    self->lanes = lanes;
    self->noise = lanes == CIV_F64 ? 16.0 * DBL_EPSILON : 4.0 * (double)FLT_EPSILON;
    self->tile = panel * civ_max(1, panels);
    self->n_tiles = (vocab + self->tile - 1) / self->tile;
    self->padded_rows = round_up(m, kernels->gemm_rows);
    self->padded_cols = round_up(m, panel);
    int64_t sums = self->padded_rows * self->padded_cols + 2 * m;
    int64_t strips = civ_min(MAX_STRIPS, STRIP_SIZE / civ_max(1, sums));
    self->n_strips = civ_max(1, civ_min(self->n_tiles, strips));
    int64_t packed = (self->padded_rows + self->padded_cols) * self->tile;
    int64_t item = (int64_t)civ_dtype_size(lanes);
    self->worker_bytes = round_up(civ_max(vocab, packed) * item, 64);
}

void
civ_head_carve(const civ_exec *exec, civ_arena *arena, const civ_head_problem *problem,
               civ_head *self)
{
    measure(problem, self);
    int64_t m = self->m, workers = civ_threads(exec);
    size_t item = civ_dtype_size(self->lanes);
    int64_t strip = self->padded_rows * self->padded_cols + 2 * m;
    int64_t sums =
        civ_max(self->n_tiles * CIV_PGD_SUMS, civ_max(1, self->n_strips) * strip);
    self->scratch = civ_arena_take(arena, workers, (size_t)self->worker_bytes);
    self->rows = civ_arena_take(arena, m * m, item);
    self->left = civ_arena_take(arena, self->padded_rows * m, item);
    self->zeros = civ_arena_take(arena, self->tile, item);
    self->sums = civ_arena_take(arena, sums, sizeof(double));
    self->losses = civ_arena_take(arena, m, sizeof(double));
    self->logits = problem->logits;
    if (problem->logits.dtype != self->lanes) {
        self->logits = civ_head_matrix(arena, self);
    }
}

civ_mat
civ_head_matrix(civ_arena *arena, const civ_head *self)
{
    void *data =
        civ_arena_take(arena, self->m * self->vocab, civ_dtype_size(self->lanes));
    return (civ_mat){data, self->m, self->vocab, self->vocab, self->lanes};
}

void
civ_head_clear(const civ_pgd_point *point)
{
    civ_set_zero(&point->coefficients);
    civ_set_zero(&point->displacements);
}

civ_status
civ_head_start(const civ_exec *exec, civ_head *self, const civ_pgd_point *here)
{
    civ_head_clear(here);
    memset(self->zeros, 0, (size_t)self->tile * civ_dtype_size(self->lanes));
    return self->logits.data == self->problem->logits.data
               ? CIV_OK
               : civ_convert(exec, &self->problem->logits, &self->logits);
}

/* ---- rows: losses ------------------------------------------------------------ */

typedef struct loss_job {
    const civ_head *head;
    const civ_mat *displacements;
    const civ_mat *response;
    double scale;
    double step;
    double *losses;
    const civ_mat *gradient;
} loss_job;

static civ_status
loss_row(void *arg, int64_t j, int worker)
{
    const loss_job *job = arg;
    const civ_head *head = job->head;
    const civ_token_sets *sets = &head->problem->sets;
    int64_t set = sets->n_sets == 1 ? 0 : j;
    void *moved = head->scratch + worker * head->worker_bytes;
    void *gradient = job->gradient == NULL ? NULL : civ_row(job->gradient, j);
    bool bad = false;
    head->kernels->displace[head->lanes](
        civ_row(&head->logits, j), civ_row(job->displacements, j),
        civ_row(job->response, j), job->scale, job->step, head->vocab, moved);
    job->losses[j] = head->kernels->set_nll[head->lanes](
        moved, head->vocab, sets->ids + sets->offsets[set],
        sets->offsets[set + 1] - sets->offsets[set], gradient, &bad);
    return bad || !isfinite(job->losses[j]) ? CIV_NONFINITE : CIV_OK;
}

civ_status
civ_head_evaluate(const civ_exec *exec, const civ_head *self,
                  const civ_mat *displacements, const civ_mat *response, double scale,
                  double step, double *losses, const civ_mat *gradient)
{
    loss_job job = {self, displacements, response, scale, step, losses, gradient};
    return civ_parallel_for(exec, self->m, LOSS_COST * self->vocab, loss_row, &job);
}

/* ---- rows: moves --------------------------------------------------------------- */

typedef struct advance_job {
    const civ_head *head;
    const civ_advance *move;
    const double *weights;
    const civ_mat *gradient;
    const civ_mat *response;
    const civ_pgd_point *here;
    const civ_pgd_point *trail;
} advance_job;

static civ_status
advance_row(void *arg, int64_t j, int worker)
{
    (void)worker;
    const advance_job *job = arg;
    const civ_head *head = job->head;
    civ_advance_fn advance = head->kernels->advance[head->lanes];
    const civ_pgd_point *trail = job->trail;
    civ_advance weighted = *job->move;
    weighted.step *= job->weights == NULL ? 1.0 : job->weights[j];
    advance(&weighted, civ_row(job->gradient, j), head->vocab,
            civ_row(&job->here->coefficients, j),
            trail == NULL ? NULL : civ_row(&trail->coefficients, j));
    advance(job->move, civ_row(job->response, j), head->vocab,
            civ_row(&job->here->displacements, j),
            trail == NULL ? NULL : civ_row(&trail->displacements, j));
    return CIV_OK;
}

civ_status
civ_head_advance(const civ_exec *exec, const civ_head *self, const civ_advance *move,
                 const double *weights, const civ_mat *gradient,
                 const civ_mat *response, const civ_pgd_point *here,
                 const civ_pgd_point *trail)
{
    advance_job job = {self, move, weights, gradient, response, here, trail};
    return civ_parallel_for(exec, self->m, 4 * MOVE_COST * self->vocab, advance_row,
                            &job);
}
