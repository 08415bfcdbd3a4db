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

/*
 * Sizes: R prompts in the working set, X = its n constraints and the free directions,
 * q = m + p outputs and points. Everything in units of 1.
 */

/* What the vectors are made of, and all inner products: follows from the working set.
 */
typedef struct civ_pcr_dual_basis {
    int64_t n_rows;     /* R */
    int64_t *rows;      /* the prompts (R) */
    int64_t *place;     /* index of a prompt among them, or -1 (m) */
    int64_t *local;     /* index of a constraint's prompt among them (n) */
    int64_t n_free;     /* free directions */
    civ_mat free;       /* they, orthonormal (n_free, d) */
    civ_mat free_table; /* <free, outputs and points> (n_free, q) */
    civ_pcr_dual_known known;
    civ_mat table;   /* <r_w, outputs and points> (n, q) */
    civ_mat pair;    /* inner products of the basis (X, X) */
    civ_mat gram;    /* G among the prompts (R, R) */
    civ_mat weights; /* G between all prompts and these (m, R) */
} civ_pcr_dual_basis;

/* What the multipliers do: follows from mu. Vectors are coefficients over the basis. */
typedef struct civ_pcr_dual_response {
    double *nu;          /* sum of mu over the concepts of a prompt (R) */
    double *root;        /* sqrt(nu) (R) */
    civ_mat system;      /* factor of (1 + kappa) I - N^1/2 G N^1/2 (R, R) */
    civ_mat half;        /* its inverse times N^1/2 G (R, R) */
    civ_mat matrix;      /* B (R, R) */
    civ_mat anchor;      /* A of the last solution (R, X) */
    civ_mat anchor_pair; /* anchor times pair (R, X) */
    civ_mat target;      /* Q + kappa anchor (R, X) */
    civ_mat target_pair; /* target times pair (R, X) */
    civ_mat moved;       /* D (R, X) */
    civ_mat moved_pair;  /* D times pair (R, X) */
    civ_mat solution;    /* A (R, X) */
    double barrier;      /* the barrier's share of the last value */
} civ_pcr_dual_response;

/* Checks by vectors, in place of a table of inner products; no rows where never on. */
typedef struct civ_pcr_dual_lean {
    bool on;          /* the table has columns of the working set alone */
    civ_mat factors;  /* for civ_pcr_dual_recover (m, m) */
    civ_mat pull;     /* for it, Q (m, d) */
    civ_mat solution; /* A (m, d) */
    civ_mat outputs;  /* y (m, d) */
} civ_pcr_dual_lean;

/* Memory that holds nothing from one call to the next, and the arena that grows. */
typedef struct civ_pcr_dual_work {
    civ_arena growing;       /* all that grows with the working set */
    int64_t *listed;         /* vectors at hand (q) */
    const double **pointers; /* where they are (q) */
    civ_mat squares;         /* <D_r, D_c> or <A_r, A_c> (R, R) */
    civ_mat products;        /* <A_r, outputs and points> (R, q) */
    civ_mat values;          /* <D_j, z_l>, or squared distances when lean (m, p) */
    double *scratch;         /* (R) */
    double *eigen;           /* for civ_symmetric_eigen of order R */
    civ_pcr_newton_work newton;
} civ_pcr_dual_work;

typedef struct civ_pcr_dual {
    const civ_exec *exec;
    civ_pcr_frame frame;
    civ_pcr_working_set set;
    double sigma; /* weight of the barrier */
    double kappa; /* weight of the pull to the anchor */
    bool careful; /* inner products of constraints come from their own vectors */
    civ_pcr_newton_info progress;
    civ_pcr_dual_basis basis;
    civ_pcr_dual_response response;
    civ_pcr_dual_lean lean;
    civ_pcr_dual_work work;
} civ_pcr_dual;

#endif
