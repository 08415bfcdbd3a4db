/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passes over the logits of a linear head, shared by civ_tsr and civ_arr. Losses need
 * whole rows and G g needs whole columns, so a pass goes by rows or by tiles of columns
 * that stay in cache while they are used. Matrices are (m, vocab) of the lanes' type.
 */
#ifndef CIV_HEAD_H
#define CIV_HEAD_H

#include "first_order/pgd.h"

typedef struct civ_head {
    const civ_head_problem *problem;
    const civ_kernels *kernels;
    int64_t m;
    int64_t vocab;
    civ_dtype lanes;
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

civ_status civ_head_check(const civ_head_problem *problem,
                          const civ_head_options *options,
                          const civ_head_result *result);

/* Measures or hands out the work arrays; fills the sizes. */
void civ_head_carve(const civ_exec *exec, civ_arena *arena,
                    const civ_head_problem *problem, civ_head *self);

/* A matrix (m, vocab) of the lanes' type from the arena. */
civ_mat civ_head_matrix(civ_arena *arena, const civ_head *self);

/* Both matrices to zero. */
void civ_head_clear(const civ_pgd_point *point);

civ_status civ_head_fill(const civ_exec *exec, civ_head *self);

/* losses (m) of logits + scale (D - step h), and their gradients unless NULL. */
civ_status civ_head_evaluate(const civ_exec *exec, const civ_head *self,
                             const civ_mat *displacements, const civ_mat *response,
                             double scale, double step, double *losses,
                             const civ_mat *gradient);

/*
 * response = G diag(weights) gradient; weights NULL: ones. With `here`, sum receives
 * the inner products of pgd.h.
 */
civ_status civ_head_respond(const civ_exec *exec, civ_head *self, const double *weights,
                            const civ_mat *gradient, const civ_mat *response,
                            const civ_pgd_point *here, const civ_pgd_point *trail,
                            double *sum);

/*
 * inner (m, m) = G_ij <g_i, g_j>, along (m) = <g_j, D_j>, *square = <A, D>: the inner
 * products of the losses' gradients with respect to delta, and of delta itself.
 */
civ_status civ_head_align(const civ_exec *exec, civ_head *self, const civ_mat *gradient,
                          const civ_pgd_point *here, const civ_mat *inner,
                          double *along, double *square);

/*
 * Moves coefficients along diag(weights) gradient and displacements along response;
 * trail NULL: without momentum.
 */
civ_status civ_head_advance(const civ_exec *exec, const civ_head *self,
                            const civ_advance *move, const double *weights,
                            const civ_mat *gradient, const civ_mat *response,
                            const civ_pgd_point *here, const civ_pgd_point *trail);

/*
 * A bound on the eigenvalues of the Hessian of sum_j weights_j loss_j with respect to
 * delta, from above, or from below with the sign turned: a softmax has none above 1/2,
 * and the subtracted one of a single token is constant.
 */
double civ_head_curvature(const civ_head *self, const double *weights, bool below);

/* The most that <c, v> + curvature / 2 ||v||^2 can be for v = u - delta, u in the ball,
 * from ||c||^2, <c, delta> and ||delta||^2. */
double civ_head_reach(double radius, double curvature, double slope, double along,
                      double square);

/* Appends a row to the history while there is room. */
void civ_head_record(const civ_head_result *result, civ_head_info *info, double step);

#endif
