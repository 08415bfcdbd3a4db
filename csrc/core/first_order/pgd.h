/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decisions of a projected gradient step with Nesterov's momentum. Everything follows
 * from six inner products of the gradient g, the point y where it was taken and the
 * iterate x: <g, y> stands for that of the coefficients of one with the displacements
 * of the other.
 */
#ifndef CIV_PGD_H
#define CIV_PGD_H

#include "kernels/kernels.h"
#include "linalg/matrix.h"

enum {
    CIV_GRAD_GRAD,
    CIV_GRAD_HERE,
    CIV_HERE_HERE,
    CIV_GRAD_TRAIL,
    CIV_HERE_TRAIL,
    CIV_TRAIL_TRAIL,
    CIV_PGD_SUMS
};

typedef struct civ_pgd_move {
    civ_advance advance; /* of coefficients along g, of displacements along G g */
    double age;          /* after the step */
} civ_pgd_move;

/* Factor that brings a point of this squared norm into the ball. */
double civ_pgd_shrinkage(double square, double radius);

/* The step of size t, projected onto the ball, without momentum. */
civ_pgd_move civ_pgd_plain_move(const double *sum, double t, double radius);

/* The vectors behind the inner products. */
typedef struct civ_pgd_vectors {
    const civ_mat *gradient; /* g */
    const civ_mat *response; /* G g */
    const civ_pgd_point *here;
    const civ_pgd_point *trail;
    double *row_sums; /* room for one a row */
} civ_pgd_vectors;

/*
 * Adds the momentum of the step from y to x' to a plain move, unless it leads uphill:
 * <y - x', x' - x> > 0 (O'Donoghue and Candes). `noise`: relative error of the inner
 * products. Where that of theirs is no more than their rounding, as late moves are
 * short, differences of the vectors decide, if there are any (NULL: none).
 */
civ_status civ_pgd_add_momentum(const civ_exec *exec, const double *sum, double noise,
                                const civ_pgd_vectors *vectors, double age,
                                double radius, civ_pgd_move *move);

#endif
