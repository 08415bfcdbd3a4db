/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decisions of a projected gradient step with Nesterov's momentum. Everything follows
 * from six inner products of the gradient g, the point y where it was taken and the
 * iterate x: <g, y> stands for that of the coefficients of one with the displacements
 * of the other.
 */
#ifndef CIV_PGD_H
#define CIV_PGD_H

#include "products.h"

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
} civ_pgd_vectors;

/*
 * <y - x', x' - x> of a plain move: momentum leads uphill where it is positive
 * (O'Donoghue and Candes). *doubtful: it is no more than the rounding of the inner
 * products that it comes from, of relative error `noise`; late moves are that short.
 */
double civ_pgd_turn(const double *sum, const civ_pgd_move *move, double noise,
                    bool *doubtful);

/* The same from differences of the vectors. row_sums: room for one a row. */
civ_status civ_pgd_turn_of(const civ_exec *exec, const civ_pgd_vectors *vectors,
                           const civ_pgd_move *move, double *row_sums, double *turn);

/* Adds the momentum of the step from y to x', which does not lead uphill. */
void civ_pgd_add_momentum(const double *sum, double age, double radius,
                          civ_pgd_move *move);

#endif
