/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State of the dual solver for concepts: see objective.c for the mathematics,
 * set.c for the working set, scan.c for all other constraints,
 * solve.c for the course.
 */
#ifndef CIV_PCR_DUAL_STATE_H
#define CIV_PCR_DUAL_STATE_H

#include "pcr/common/newton.h"
#include "pcr/common/working_set.h"

/* Most free directions, outside the span of the constraints. */
#define CIV_PCR_FREE_DIRECTIONS 8

/* Rows of the matrix of inner products between outputs and points, found as they are
 * needed. Vector x is output x for x < m, else point x - m. */
typedef struct civ_pcr_dual_known {
    int64_t n;
    int64_t *vector; /* whose row it is (n) */
    int64_t *place;  /* the row of a vector, or -1 (q) */
    civ_mat rows;    /* (n, q) in rows of q */
} civ_pcr_dual_known;

/* Sizes: R prompts in the working set, X = its constraints and free directions,
 * q = m + p outputs and points. Everything in units of 1. */
typedef struct civ_pcr_dual {
    const civ_exec *exec;
    civ_pcr_frame frame;
    double sigma;    /* weight of the barrier */
    double kappa;    /* weight of the pull to the anchor */
    double barrier;  /* the barrier's share of the last value */
    bool careful;    /* whether the table needs the constraints' own vectors */
    bool lean;       /* whether the table has columns of the working set alone */
    int64_t *place;  /* index of a prompt among the R, or -1 (m) */
    int64_t *listed; /* vectors at hand (q) */
    const double **pointers; /* where they are (q) */
    int64_t n_spare;
    civ_mat spare;       /* orthonormal (n_spare, d) */
    civ_mat spare_table; /* their inner products with outputs and points (n_spare, q) */
    civ_mat
        lean_factors;  /* for civ_pcr_dual_recover, no rows where never lean (m, m) */
    civ_mat lean_pull; /* (m, d) */
    civ_mat lean_solution; /* A (m, d) */
    civ_mat lean_outputs;  /* y (m, d) */
    civ_pcr_newton_info progress;
    /* what grows with the working set */
    civ_arena growing;
    civ_pcr_working_set set;
    int64_t n_rows; /* R */
    int64_t *local; /* index of a constraint's prompt among the R */
    int64_t *rows;  /* the prompts (R) */
    civ_pcr_dual_known known;
    civ_mat table;       /* <r_w, outputs and points> (n, q) */
    civ_mat pair;        /* inner products of the basis (X, X) */
    civ_mat gram;        /* G (R, R) */
    civ_mat weights;     /* G (m, R) */
    civ_mat anchor;      /* A of the last solution (R, X) */
    civ_mat anchor_pair; /* anchor times pair (R, X) */
    civ_mat solution;    /* A (R, X) */
    civ_mat target;      /* Q + kappa anchor (R, X) */
    civ_mat target_pair; /* target times pair (R, X) */
    civ_mat moved;       /* D (R, X) */
    civ_mat moved_pair;  /* D times pair (R, X) */
    civ_mat system;      /* factor of (1 + kappa) I - N^1/2 G N^1/2 (R, R) */
    civ_mat half;        /* its inverse times N^1/2 G (R, R) */
    civ_mat response;    /* B (R, R) */
    civ_mat squares;     /* <D_r, D_c> or <A_r, A_c> (R, R) */
    civ_mat products;    /* <A_r, outputs and points> (R, q) */
    civ_mat values;      /* <D_j, z_l> (m, p) */
    double *nu;          /* (R) */
    double *root;        /* sqrt(nu) (R) */
    double *scratch;     /* (R) */
    double *eigen_work;  /* for civ_symmetric_eigen of order R */
    civ_pcr_newton_work newton;
} civ_pcr_dual;

#endif
