/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passes over the logits of a linear head, shared by civ_tsr and civ_arr. Losses need
 * whole rows and G g needs whole columns, so a pass goes by rows or by tiles of columns
 * that stay in cache while they are used. Matrices are (m, vocab) of the lanes' type.
 */
#ifndef CIV_HEAD_H
#define CIV_HEAD_H

#include "first_order/pgd.h"
#include "kernels/kernels.h"

typedef struct civ_head {
    const civ_head_problem *problem;
    const civ_kernels *kernels;
    int64_t m;
    int64_t vocab;
    civ_dtype lanes;
    double noise;   /* relative error of a loss */
    civ_mat logits; /* of the lanes' type; the caller's own if possible */
    int64_t tile;   /* columns */
    int64_t n_tiles;
    int64_t n_strips;     /* runs of tiles with sums of their own in an alignment */
    int64_t padded_rows;  /* m, up to a multiple of gemm_rows */
    int64_t padded_cols;  /* m, up to a multiple of the lanes' gemm_cols */
    int64_t worker_bytes; /* of scratch */
    char *scratch;        /* for each worker: a row of logits, or two packed tiles */
    void *rows;           /* G, columns weighted, of the lanes' type (m, m) */
    void *left;           /* the same, packed (padded_rows, m) */
    void *zeros;          /* (tile) */
    double *sums;         /* of each tile, or of each strip */
    double *losses;       /* of a trial (m) */
} civ_head;

/* Measures or hands out the work arrays; fills the sizes. */
void civ_head_carve(const civ_exec *exec, civ_arena *arena,
                    const civ_head_problem *problem, civ_head *self);

/* A matrix (m, vocab) of the lanes' type from the arena. */
civ_mat civ_head_matrix(civ_arena *arena, const civ_head *self);

/* Both matrices to zero. */
void civ_head_clear(const civ_pgd_point *point);

/* Fills what was carved; the change that is sought begins at zero. */
civ_status civ_head_start(const civ_exec *exec, civ_head *self,
                          const civ_pgd_point *here);

/* losses (m) of logits + scale (D - step h), and their gradients unless NULL. */
civ_status civ_head_evaluate(const civ_exec *exec, const civ_head *self,
                             const civ_mat *displacements, const civ_mat *response,
                             double scale, double step, double *losses,
                             const civ_mat *gradient);

/*
 * Moves coefficients along diag(weights) gradient and displacements along response;
 * trail NULL: without momentum.
 */
civ_status civ_head_advance(const civ_exec *exec, const civ_head *self,
                            const civ_advance *move, const double *weights,
                            const civ_mat *gradient, const civ_mat *response,
                            const civ_pgd_point *here, const civ_pgd_point *trail);

#endif
