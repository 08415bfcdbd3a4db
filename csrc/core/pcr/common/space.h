/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the solvers of point-constrained regions (PCR, arXiv 2510.03567) share. They see
 * every constraint as a point z_l: l < n is the concept c_l, l >= n the unit direction
 * u_(l - n).
 */
#ifndef CIV_PCR_SPACE_H
#define CIV_PCR_SPACE_H

#include "linalg/matrix.h"

/* A problem with its origin moved to the mean concept and its directions normalised. */
typedef struct civ_pcr_space {
    int64_t m;             /* prompts */
    int64_t n;             /* concepts */
    int64_t p;             /* concepts and directions */
    int64_t d;             /* outputs' dimension */
    civ_mat gram;          /* G (m, m) */
    civ_mat outputs;       /* o (m, d) */
    civ_mat points;        /* z (p, d); the concepts themselves while origin is 0 */
    civ_mat cross;         /* <o_j, z_l> (m, p) */
    civ_mat limit;         /* radius or offset (m, p) */
    double *output_square; /* <o_j, o_j> (m) */
    double *point_square;  /* <z_l, z_l> (p) */
    double *origin;        /* the mean concept, or 0 (d) */
    double *shift;         /* <origin, z_l> for a direction, 0 for a concept (p) */
    double *length;        /* norm of the direction behind z_l; 1 for a concept (p) */
    int64_t *first;        /* constraints of prompt j: list[first[j] .. first[j + 1]) */
    int64_t *list;         /* their points l */
    double unit; /* the length that tolerances refer to; 0 = nothing is violated */
} civ_pcr_space;

/* out (d) = r of a constraint, in units of 1: (o_j - c_l) / unit, or -u_l. */
void civ_pcr_constraint_vector(const civ_pcr_space *space, int64_t j, int64_t l,
                               double *out);

/* Takes the memory of a space from the arena; fills it when the arena is open. */
void civ_pcr_space_carve(civ_arena *arena, const civ_pcr_problem *problem,
                         civ_pcr_space *space);
civ_status civ_pcr_space_fill(const civ_exec *exec, const civ_pcr_problem *problem,
                              civ_pcr_space *space);

/* Largest norm of outputs and concepts. */
double civ_pcr_longest(const civ_pcr_space *space);

CIV_INLINE bool
civ_pcr_is_ball(const civ_pcr_space *space, int64_t l)
{
    return l < space->n;
}

/*
 * By how much y = o_j + D_j violates constraint l, as a length; <= 0 when it holds.
 * value: <y, z_l>; square: <y, y> (not read for a direction).
 */
double civ_pcr_violation(const civ_pcr_space *space, int64_t j, int64_t l, double value,
                         double square);

#endif
