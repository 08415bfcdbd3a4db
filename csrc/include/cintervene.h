/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cintervene: the smallest change of a weight matrix that makes a model safer.
 *
 * This is the whole public C interface. The core knows nothing of Python: it works
 * on borrowed memory described by `civ_mat`, never prints, never exits, and reports
 * failures as a negative `civ_status`. Results that are merely not what one hoped
 * for (an iteration limit, an infeasible problem) are outcomes, not failures, and
 * are reported in the info structure of the function concerned.
 *
 * Every function is a pure function of its arguments and may be called from several
 * threads at once. Given one kernel table, results are the same bits for any number
 * of threads.
 */
#ifndef CINTERVENE_H
#define CINTERVENE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- status ------------------------------------------------------------------ */

#define CIV_STATUS_LIST(X)                                     \
    X(OK, 0, "success")                                        \
    X(INVALID_ARGUMENT, -1, "invalid argument")                \
    X(SHAPE, -2, "shapes do not match")                        \
    X(DTYPE, -3, "unsupported storage type")                   \
    X(ALIAS, -4, "output overlaps an input")                   \
    X(NONFINITE, -5, "non-finite value in the input")          \
    X(SINGULAR, -6, "matrix is singular to working precision") \
    X(NO_MEMORY, -7, "out of memory")                          \
    X(INTERRUPTED, -8, "interrupted")                          \
    X(INTERNAL, -9, "internal error")

typedef enum civ_status {
#define X(name, value, text) CIV_##name = value,
    CIV_STATUS_LIST(X)
#undef X
} civ_status;

/* Static text for a status. */
const char *civ_status_text(civ_status status);

/* ---- matrices ---------------------------------------------------------------- */

#define CIV_DTYPE_LIST(X)     \
    X(F32, 0, 4, "float32")   \
    X(F64, 1, 8, "float64")   \
    X(BF16, 2, 2, "bfloat16") \
    X(F16, 3, 2, "float16")

typedef enum civ_dtype {
#define X(name, value, size, text) CIV_##name = value,
    CIV_DTYPE_LIST(X)
#undef X
        CIV_N_DTYPES
} civ_dtype;

size_t civ_dtype_size(civ_dtype dtype);
const char *civ_dtype_text(civ_dtype dtype);

/* Type of the arithmetic on a storage type: CIV_F64 for CIV_F64, else CIV_F32. */
civ_dtype civ_dtype_compute(civ_dtype dtype);

/* A borrowed row-major matrix whose columns are adjacent in memory. */
typedef struct civ_mat {
    void *data;         /* first element; may be NULL when the matrix is empty */
    int64_t n_rows;     /* >= 0 */
    int64_t n_cols;     /* >= 0 */
    int64_t row_stride; /* elements from one row to the next; negative allowed */
    civ_dtype dtype;    /* storage type */
} civ_mat;

/* ---- execution --------------------------------------------------------------- */

/* How a call runs. NULL stands for all defaults. */
typedef struct civ_exec {
    int n_threads;       /* upper limit; 0 = what OpenMP offers */
    int (*poll)(void *); /* non-zero return = stop; called by the calling thread
                            a few times per 100 ms; NULL = never */
    void *poll_arg;      /* handed to poll */
} civ_exec;

/*
 * Chooses the kernels and registers the fork handler; call before anything else.
 * INVALID_ARGUMENT when CINTERVENE_CPU names no kernel table of this processor.
 */
civ_status civ_init(void);

/*
 * Like malloc and free, but up to 50 MB of medium-sized blocks are kept for the next
 * request instead of going back to the system. The size given is the one taken; not
 * initialised; from any thread.
 */
void *civ_block_take(size_t size);
void civ_block_give(void *block, size_t size);
/* Gives the kept blocks back to the system. */
void civ_block_drop_kept(void);

/* Threads that a large call would use now. */
int civ_threads(const civ_exec *exec);

/*
 * Kernel table in use: "baseline", "avx2", "avx512" or "neon". The best one the
 * processor has is chosen at civ_init; CINTERVENE_CPU in the environment overrides.
 * Selecting is meant for tests and must not happen while another call runs.
 */
const char *civ_cpu_name(void);
civ_status civ_cpu_select(const char *name);

/* Text that identifies the linked LAPACK, "" when it offers none. */
const char *civ_lapack_text(void);

/* ---- inspection -------------------------------------------------------------- */

/*
 * Finds the first element, in row-major order, that is NaN or infinite.
 * -inf passes when `allow_minus_inf`. Sets *row = -1 when there is none.
 */
civ_status civ_find_nonfinite(const civ_exec *exec, const civ_mat *x,
                              bool allow_minus_inf, int64_t *row, int64_t *col);

/* out = x as CIV_F32 or CIV_F64, whichever out is; it may not overlap x. */
civ_status civ_convert(const civ_exec *exec, const civ_mat *x, const civ_mat *out);

/*
 * out = finite x as CIV_F64; *largest is the size of its largest element, 0 without
 * any. NONFINITE, and part of out written, when x is not finite.
 */
civ_status civ_widen(const civ_exec *exec, const civ_mat *x, const civ_mat *out,
                     double *largest);

/* ---- losses ------------------------------------------------------------------ */

/* Token sets in compressed rows: set i is ids[offsets[i] .. offsets[i + 1]). */
typedef struct civ_token_sets {
    const int64_t *ids;     /* each in [0, vocab); unique within a set */
    const int64_t *offsets; /* n_sets + 1, non-decreasing, offsets[0] = 0 */
    int64_t n_sets;         /* 1 = shared by all rows, else one set a row; none empty */
} civ_token_sets;

/*
 * loss[i] = -log sum_{k in K_i} softmax(logits[i])_k, and its gradient
 * grad[i, j] = softmax(logits[i])_j - [j in K_i] softmax(logits[i, K_i])_j.
 *
 * logits (rows, vocab), any dtype; -inf masks a token. loss: rows doubles.
 * grad (rows, vocab) of civ_dtype_compute(logits.dtype), or NULL; it may not overlap
 * logits. When every logit of a set is -inf the loss is +inf and the gradient is
 * softmax(logits). Fails with NONFINITE on NaN, +inf or a row of -inf throughout.
 */
civ_status civ_set_nll(const civ_exec *exec, const civ_mat *logits,
                       const civ_token_sets *sets, double *loss, const civ_mat *grad);

/* ---- projections ------------------------------------------------------------- */

/*
 * out[i] = x[i] min(1, radius_i / ||x[i]||), the nearest point of the ball.
 * radius: n_radius = 1 (shared) or one a row, each >= 0. out has the dtype of x and
 * may be x. Fails with NONFINITE on NaN or infinity; out is then undefined.
 */
civ_status civ_project_ball(const civ_exec *exec, const civ_mat *x,
                            const double *radius, int64_t n_radius, const civ_mat *out);

/*
 * out[i] = the point of the probability simplex nearest to x[i], among those of Gini
 * entropy 1 - sum p^2 <= entropy; 1 or more is no constraint, 0 leaves the vertices.
 * Where several are nearest, which takes entries that are all the largest, the first
 * of these entries is raised above the others. Expected cost O(n_cols) a row. out as
 * in civ_project_ball. Fails with NONFINITE on NaN, +inf, or a row of -inf throughout;
 * -inf elsewhere becomes 0.
 */
civ_status civ_project_simplex(const civ_exec *exec, const civ_mat *x, double entropy,
                               const civ_mat *out);

/* ---- low-rank updates -------------------------------------------------------- */

/*
 * out = round(w + left @ right), computed in the arithmetic type of w and rounded
 * once, to nearest even. w, out (rows, cols) of one dtype; out may be w. left
 * (rows, rank) and right (rank, cols) of the arithmetic type. INTERRUPTED leaves w as
 * it was, also in place, and an out of its own undefined.
 */
civ_status civ_lowrank_apply(const civ_exec *exec, const civ_mat *w,
                             const civ_mat *left, const civ_mat *right,
                             const civ_mat *out);

/*
 * displacement[j] = (changed - base) inputs[j]: what a rounded change does to the
 * outputs. base, changed (rows, cols) of one dtype; inputs (m, cols), displacement
 * (m, rows) of CIV_F64.
 */
civ_status civ_displacement(const civ_exec *exec, const civ_mat *base,
                            const civ_mat *changed, const civ_mat *inputs,
                            const civ_mat *displacement);

/* ---- point-constrained regions ----------------------------------------------- */

#define CIV_OUTCOME_LIST(X)                          \
    X(CONVERGED, 0, "converged")                     \
    X(ITERATION_LIMIT, 1, "iteration limit reached") \
    X(STALLED, 2, "no further progress")             \
    X(INFEASIBLE, 3, "the constraints contradict each other")

/* How a solve ended; every outcome is a result, none is a failure. */
typedef enum civ_outcome {
#define X(name, value, text) CIV_##name = value,
    CIV_OUTCOME_LIST(X)
#undef X
} civ_outcome;

const char *civ_outcome_text(civ_outcome outcome);

/*
 * The problem PCR of arXiv 2510.03567, for any number of prompts and constraints.
 *
 * Find displacements D = G A of the outputs with the least cost tr(A^T G A) such that
 *
 *     ||o_j + D_j - c_i||   >= radius[j, i]     wherever radius[j, i] > 0
 *     <u_l, o_j + D_j>      <= offset[j, l]     wherever offset[j, l] is finite.
 *
 * All matrices are CIV_F64 and finite, but for offsets of +inf.
 */
typedef struct civ_pcr_problem {
    civ_mat gram;       /* G (m, m), symmetric, positive semidefinite, diagonal > 0 */
    civ_mat outputs;    /* o (m, d) */
    civ_mat concepts;   /* c (n, d); n may be 0 */
    civ_mat radius;     /* (m, n), >= 0; 0 = no constraint */
    civ_mat directions; /* u (k, d), rows not zero; k may be 0 */
    civ_mat offsets;    /* (m, k); +inf = no constraint */
} civ_pcr_problem;

typedef struct civ_pcr_options {
    size_t struct_size;     /* sizeof(civ_pcr_options) */
    double tolerance;       /* largest violation left, relative to the largest radius
                               or initial violation; default 1e-10 */
    int64_t max_iterations; /* pushes, or Newton steps; default 100000 */
} civ_pcr_options;

civ_pcr_options civ_pcr_options_default(void);

enum {
    CIV_PCR_VIOLATION = 0, /* largest violation, in units of length */
    CIV_PCR_COST = 1,      /* exact: cost so far; most violated: NaN */
    CIV_PCR_BOUND = 2,     /* exact: lower bound on the optimum; else NaN */
    CIV_PCR_PROMPT = 3,    /* most violated: the pair pushed; exact: NaN */
    CIV_PCR_CONSTRAINT = 4,
    CIV_PCR_HISTORY = 5 /* columns of the history */
};

/* Caller's memory for the result. Constraint columns: n concepts, k directions. */
typedef struct civ_pcr_result {
    civ_mat coefficients;  /* A (m, d), written */
    civ_mat multipliers;   /* (m, n + k), written; NaN throughout where undefined */
    civ_mat displacements; /* D = G A (m, d), written */
    civ_mat margins;       /* as of civ_pcr_margins (m, n + k), written */
    civ_mat history;       /* (any, CIV_PCR_HISTORY); the first iterations */
} civ_pcr_result;

typedef struct civ_pcr_info {
    civ_outcome outcome;
    int64_t iterations;
    int64_t history_rows; /* rows of the history in use */
    double unit;          /* the length that tolerances refer to; 0 = none violated */
    double violation;     /* largest one left, as a length, according to the margins */
} civ_pcr_info;

/*
 * The closed form for one constraint, repeated on the most violated pair until none
 * is violated. Cost of a step: O(m (m + n + k)). STALLED with zero coefficients when
 * the pushes drive the outputs ever farther away, as contradictions do.
 */
civ_status civ_pcr_most_violated(const civ_exec *exec, const civ_pcr_problem *problem,
                                 const civ_pcr_options *options,
                                 const civ_pcr_result *result, civ_pcr_info *info);

/*
 * The global optimum, by Newton's method on the dual of the active constraints.
 */
civ_status civ_pcr_exact(const civ_exec *exec, const civ_pcr_problem *problem,
                         const civ_pcr_options *options, const civ_pcr_result *result,
                         civ_pcr_info *info);

/*
 * out (m, n + k): distance to each concept minus its radius, then each offset minus
 * the product with its direction, for outputs (m, d) in place of the problem's own.
 * Computed apart from the solvers, to judge what they return.
 */
civ_status civ_pcr_margins(const civ_exec *exec, const civ_pcr_problem *problem,
                           const civ_mat *outputs, const civ_mat *out);

typedef struct civ_pcr_certificate {
    double cost;            /* tr(A^T G A) */
    double lower_bound;     /* no feasible displacements cost less */
    double stationarity;    /* ||A - N D - Q|| / ||A|| */
    double complementarity; /* sum |mu (distance from activity)| / cost */
    double shrink;          /* part by which mu was scaled down for the bound */
} civ_pcr_certificate;

/*
 * Judges coefficients A (m, d) and multipliers (m, n + k) by the conditions of global
 * optimality, apart from the solvers. Feasibility is civ_pcr_margins' business. The
 * bound is valid for any multipliers >= 0; others are an INVALID_ARGUMENT.
 */
civ_status civ_pcr_certify(const civ_exec *exec, const civ_pcr_problem *problem,
                           const civ_mat *coefficients, const civ_mat *multipliers,
                           civ_pcr_certificate *out);

/* ---- projected gradient -------------------------------------------------------- */

/*
 * A change delta = A^T K of a weight: its coefficients A, and D = G A, what it does to
 * the outputs. Its squared norm is <A, D>. Both (m, d) of CIV_F64.
 */
typedef struct civ_pgd_point {
    civ_mat coefficients;
    civ_mat displacements;
} civ_pgd_point;

/*
 * Projected gradient over the ball ||delta|| <= radius: x' = P(y - t grad), where the
 * gradient is that at y, and with Nesterov's momentum y' = P(x' + b (x' - x)), P being
 * the projection onto the ball. Caller's memory, zero at the start. Without momentum x
 * and y are one, and only y is read and written.
 */
typedef struct civ_pgd {
    civ_pgd_point here;  /* y */
    civ_pgd_point trail; /* x */
    bool momentum;
    double age; /* grows with the momentum; 1 at the start and after a restart */
} civ_pgd;

typedef struct civ_pgd_options {
    size_t struct_size; /* sizeof(civ_pgd_options) */
    double radius;      /* of the ball, >= 0 and finite */
    double step;        /* delta <- delta - step grad; <= 0: see length */
    double length;      /* the length of a step, in units of the radius; default 0.5 */
} civ_pgd_options;

civ_pgd_options civ_pgd_options_default(void);

typedef struct civ_pgd_info {
    double step;          /* taken */
    double gradient_norm; /* dual norm of the gradient with respect to delta */
    double gap;           /* <grad, delta - v> at its largest over v in the ball: by so
                             much at most a convex loss exceeds its least value */
    double norm;          /* of the new point y */
    bool restarted;       /* the momentum led uphill and was dropped */
} civ_pgd_info;

/*
 * One step from y along -gradient (m, d; any storage type), the derivative of the loss
 * with respect to the outputs: A <- A - t gradient, D <- D - t G gradient, scaled back
 * into the ball. gram: G (m, m), CIV_F64, symmetric, positive semidefinite; it may be
 * singular. response: G gradient (m, d), CIV_F64, from whoever has computed it already;
 * NULL: it is computed here, which is most of the cost. A failure leaves the state as
 * it was; NONFINITE when gradient or response is not finite or too large to square.
 */
civ_status civ_pgd_step(const civ_exec *exec, const civ_mat *gram,
                        const civ_mat *gradient, const civ_mat *response,
                        const civ_pgd_options *options, civ_pgd *self,
                        civ_pgd_info *info);

/* ---- safe regions of a linear head --------------------------------------------- */

/*
 * Set losses of a head's logits when its weight changes by delta, ||delta|| <= radius:
 * row j of the logits moves to logits[j] + D[j], D = G A, and ||delta||^2 = <A, D>.
 * Lanes are of civ_dtype_compute(logits.dtype), sums in double.
 */
typedef struct civ_head_problem {
    civ_mat gram;        /* G (m, m), CIV_F64, symmetric, positive semidefinite */
    civ_mat logits;      /* (m, vocab), any storage type; -inf masks a token */
    civ_token_sets sets; /* of the losses */
} civ_head_problem;

typedef struct civ_head_options {
    size_t struct_size;     /* sizeof(civ_head_options) */
    double radius;          /* of the ball, >= 0 and finite */
    double tolerance;       /* stationarity to stop at, in units of max(1, loss);
                               default 1e-6 */
    int64_t max_iterations; /* default 1000 */
} civ_head_options;

civ_head_options civ_head_options_default(void);

enum {
    CIV_HEAD_LOSS = 0,         /* where the gradient was taken */
    CIV_HEAD_STATIONARITY = 1, /* there */
    CIV_HEAD_BOUND = 2,        /* so far */
    CIV_HEAD_STEP = 3,   /* size of the step then taken; NaN when there was none */
    CIV_HEAD_HISTORY = 4 /* columns of the history */
};

/* Caller's memory for the result. */
typedef struct civ_head_result {
    civ_mat coefficients;  /* A (m, vocab) of the lanes' type, written */
    civ_mat displacements; /* D (m, vocab) of the lanes' type, written */
    double *losses;        /* (m) there, written */
    double *weights;       /* (m) civ_arr: of the prompts, on the simplex, written */
    civ_mat history;       /* (any, CIV_HEAD_HISTORY); the first iterations */
} civ_head_result;

typedef struct civ_head_info {
    civ_outcome outcome;
    int64_t iterations;
    int64_t history_rows;
    double loss;         /* civ_tsr: the mean; civ_arr: the least */
    double stationarity; /* what a linear model of the losses still promises; 0 at a
                            stationary point only */
    double bound;        /* of what any change in the ball can reach: a lower one of
                            the mean loss, or an upper one of the least loss */
    double norm;         /* of the change */
} civ_head_info;

/*
 * Towards the safe region (TSR, arXiv 2510.03567): the least mean loss over the ball,
 * by projected gradient with momentum, line search and restart. The problem is convex
 * where every set is a single token; the bound is then loss - stationarity, else it
 * allows for the curvature of the sets. NONFINITE also when a loss is infinite.
 */
civ_status civ_tsr(const civ_exec *exec, const civ_head_problem *problem,
                   const civ_head_options *options, const civ_head_result *result,
                   civ_head_info *info);

/*
 * Away from the risk region (ARR, arXiv 2510.03567): the largest least loss over the
 * ball. Each step solves max over the ball of the least linearised loss, in weights on
 * the simplex, exactly; single-token losses are convex, so each such step raises the
 * least loss.
 */
civ_status civ_arr(const civ_exec *exec, const civ_head_problem *problem,
                   const civ_head_options *options, const civ_head_result *result,
                   civ_head_info *info);

/* ---- products and positive definite systems ------------------------------------ */

/* out (rows of a, rows of b) = a b^T; any storage type in, CIV_F64 out. */
civ_status civ_product_nt(const civ_exec *exec, const civ_mat *a, const civ_mat *b,
                          const civ_mat *out);

/* The same for a product that is symmetric: only its lower half is computed. */
civ_status civ_gram(const civ_exec *exec, const civ_mat *a, const civ_mat *b,
                    const civ_mat *out);

/* out (rows of a, columns of b) = a b; any storage type in, CIV_F64 out. */
civ_status civ_product_nn(const civ_exec *exec, const civ_mat *a, const civ_mat *b,
                          const civ_mat *out);

/* Lower Cholesky factor in place of a CIV_F64 matrix; SINGULAR when there is none. */
civ_status civ_spd_factor(const civ_exec *exec, const civ_mat *a);

/* b (m, n) <- b A^-1 for symmetric A (n, n), from the factor of civ_spd_factor. */
civ_status civ_spd_solve(const civ_exec *exec, const civ_mat *factor, const civ_mat *b);

/*
 * The lower triangle of a symmetric matrix of order n, in half of its memory: 256 rows
 * at a time as a matrix of their own, which ends with their diagonal block; one after
 * the other, civ_packed_size(n) doubles. What is above the diagonal in the diagonal
 * blocks is not defined.
 */
typedef struct civ_packed {
    double *data;
    int64_t n;
} civ_packed;

int64_t civ_packed_size(int64_t n);

/* The order of which there are so many doubles; -1 where there is none. */
int64_t civ_packed_order(int64_t size);

/* out (columns of x, columns of x) += x^T x; any storage type in. */
civ_status civ_moment_add(const civ_exec *exec, const civ_mat *x,
                          const civ_packed *out);

/* As civ_spd_factor and civ_spd_solve. */
civ_status civ_packed_factor(const civ_exec *exec, const civ_packed *a);
civ_status civ_packed_solve(const civ_exec *exec, const civ_packed *factor,
                            const civ_mat *b);

#endif
