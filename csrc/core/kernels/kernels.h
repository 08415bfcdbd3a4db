/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serial kernels, compiled once per instruction set from kernels.inc and reached
 * through a table. Arrays of kernels are indexed by storage type; `void *` then
 * points to n elements of that type, and "compute" means civ_dtype_compute of it.
 */
#ifndef CIV_KERNELS_H
#define CIV_KERNELS_H

#include "runtime/common.h"

/* Index of the first NaN or infinity (-inf may be allowed), or -1. */
typedef int64_t (*civ_first_bad_fn)(const void *x, int64_t n, bool allow_minus_inf);

typedef void (*civ_to_f32_fn)(const void *x, int64_t n, float *out);
typedef void (*civ_to_f64_fn)(const void *x, int64_t n, double *out);
/* The same; returns the largest magnitude, or infinity where one is not finite. */
typedef double (*civ_widen_fn)(const void *x, int64_t n, double *out);

/* out = x - base. */
typedef void (*civ_difference_fn)(const void *x, const void *base, int64_t n,
                                  double *out);

/*
 * -log of the probability that softmax(x) gives to the set, and its gradient when
 * grad (n, compute type) is not NULL. *bad is set on NaN, +inf or no finite value.
 */
typedef double (*civ_set_nll_fn)(const void *x, int64_t n, const int64_t *ids,
                                 int64_t n_ids, void *grad, bool *bad);

/* Sum of (scale * x)^2. */
typedef double (*civ_sum_squares_fn)(const void *x, int64_t n, double scale);
typedef double (*civ_largest_magnitude_fn)(const void *x, int64_t n);

/* out = round(x * first * second). */
typedef void (*civ_scale_fn)(const void *x, int64_t n, double first, double second,
                             void *out);

/* Largest value; *bad is set on NaN and +inf. */
typedef double (*civ_largest_fn)(const void *x, int64_t n, bool *bad);

/*
 * Stores x - top in kept for all x - top > bound, where bound < 0, and returns their
 * number. kept needs room for n.
 */
typedef int64_t (*civ_gather_above_fn)(const void *x, int64_t n, double top,
                                       double bound, double *kept);

/* out = max(x - top - threshold, 0) scale. */
typedef void (*civ_clip_shifted_fn)(const void *x, int64_t n, double top,
                                    double threshold, double scale, void *out);

/* out = others where x is top, first in the first such place, 0 elsewhere. */
typedef void (*civ_share_out_fn)(const void *x, int64_t n, double top, double first,
                                 double others, void *out);

/* packed[k * width + i] = x[i, k]; rows from n_rows to width are zero. */
typedef void (*civ_interleave_fn)(const void *x, int64_t row_stride, int64_t n_rows,
                                  int64_t depth, int64_t width, void *packed);

/*
 * A panel of the right operand of civ_apply_block for weights of one type: x (depth,
 * n_cols) of the compute type, columns from n_cols to gemm_cols being zero. The order
 * of the columns within a panel is the kernel's own.
 */
typedef void (*civ_pack_columns_fn)(const void *x, int64_t row_stride, int64_t depth,
                                    int64_t n_cols, void *packed);

/* sums (gemm_rows, gemm_cols) += left right, both packed over `depth`. */
typedef void (*civ_accumulate_fn)(int64_t depth, const void *left, const void *right,
                                  double *sums);

/* Largest rows each way, and lanes, of civ_dots_fn. */
#define CIV_DOT_ROWS 4
#define CIV_DOT_LANES 8

/*
 * sums (dot_rows, dot_rows, dot_lanes) += terms of the inner products of rows of x with
 * rows of y, or of their squared distances; adding up the lanes gives these.
 */
typedef void (*civ_dots_fn)(const double *const *x, const double *const *y,
                            int64_t depth, double *sums);

/* out += scale (x - base). */
typedef void (*civ_add_difference_fn)(const double *x, const double *base, int64_t n,
                                      double scale, double *out);

/*
 * With r = x - centre: pull += mu r; sums becomes ||r||^2 and what moving x by `moved`
 * adds to it.
 */
typedef void (*civ_judge_ball_fn)(const double *x, const double *centre,
                                  const double *moved, int64_t n, double mu,
                                  double *pull, double sums[2]);

/* out = round(w + left right) for some rows; left and right packed, compute type. */
typedef struct civ_apply_block {
    const void *w;
    void *out;
    int64_t w_stride; /* elements */
    int64_t out_stride;
    int64_t n_rows;
    int64_t n_cols;
    int64_t rank;
    const void *left;  /* panels of gemm_rows rows */
    const void *right; /* panels of gemm_cols columns */
} civ_apply_block;

typedef void (*civ_apply_block_fn)(const civ_apply_block *block);

/* The rest works on n elements of CIV_F32 or CIV_F64 each. */
typedef double (*civ_dot_fn)(const void *x, const void *y, int64_t n);

/* out = base + scale (point - step direction). */
typedef void (*civ_displace_fn)(const void *base, const void *point,
                                const void *direction, double scale, double step,
                                int64_t n, void *out);

/* x' = scale (y - step direction), y' = ahead x' - behind x; without x: y' = x'. */
typedef struct civ_advance {
    double scale;
    double step;
    double ahead;
    double behind;
} civ_advance;

typedef void (*civ_advance_fn)(const civ_advance *move, const void *direction,
                               int64_t n, void *here, void *trail);

/* Row of the vectors behind an inner product of moves: coefficients of the first of
 * them, displacements of the second. */
typedef struct civ_turn {
    const void *here; /* y, in coefficients */
    const void *direction;
    const void *here_moved; /* in displacements */
    const void *direction_moved;
    const void *trail_moved; /* x */
} civ_turn;

/* <y - x', x' - x> for x' = scale (y - step direction). */
typedef double (*civ_turn_fn)(const civ_advance *move, const civ_turn *row, int64_t n);

typedef struct civ_kernels {
    const char *name;
    civ_first_bad_fn first_bad[CIV_N_DTYPES];
    civ_to_f32_fn to_f32[CIV_N_DTYPES];
    civ_to_f64_fn to_f64[CIV_N_DTYPES];
    civ_widen_fn widen[CIV_N_DTYPES];
    civ_difference_fn difference[CIV_N_DTYPES];
    civ_set_nll_fn set_nll[CIV_N_DTYPES];
    civ_sum_squares_fn sum_squares[CIV_N_DTYPES];
    civ_largest_magnitude_fn largest_magnitude[CIV_N_DTYPES];
    civ_scale_fn scale[CIV_N_DTYPES];
    civ_largest_fn largest[CIV_N_DTYPES];
    civ_gather_above_fn gather_above[CIV_N_DTYPES];
    civ_clip_shifted_fn clip_shifted[CIV_N_DTYPES];
    civ_share_out_fn share_out[CIV_N_DTYPES];
    int gemm_rows; /* rows and columns of the register block of a product */
    int gemm_cols[CIV_N_DTYPES];
    civ_interleave_fn interleave[CIV_N_DTYPES]; /* these of CIV_F32 and CIV_F64 only */
    civ_accumulate_fn accumulate[CIV_N_DTYPES];
    civ_pack_columns_fn pack_columns[CIV_N_DTYPES];
    int dot_rows; /* rows of inner products taken at a time, each way */
    int dot_lanes;
    civ_dots_fn dots;
    civ_dots_fn distances;
    civ_dots_fn row_dots; /* the same for one row of x: sums (1, dot_rows, dot_lanes) */
    civ_dots_fn row_distances;
    civ_add_difference_fn add_difference;
    civ_judge_ball_fn judge_ball;
    civ_apply_block_fn apply_block[CIV_N_DTYPES];
    civ_dot_fn dot[CIV_N_DTYPES];
    civ_displace_fn displace[CIV_N_DTYPES];
    civ_advance_fn advance[CIV_N_DTYPES];
    civ_turn_fn turn[CIV_N_DTYPES];
} civ_kernels;

extern const civ_kernels civ_kernels_baseline;
#if CIV_X86
extern const civ_kernels civ_kernels_avx2;
extern const civ_kernels civ_kernels_avx512;
#endif
#if CIV_ARM64
extern const civ_kernels civ_kernels_neon;
#endif

#endif
