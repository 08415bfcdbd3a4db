/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel of every table against a plain loop over scalars. */
#include "kernels/dispatch.h"
#include "kernels/dtype.h"
#include "minunit.h"

#include <string.h>

/* More than one block of every kernel, and an incomplete vector at the end. */
enum { N = 1027 };

static double x[N], y[N], z[N], v[N], expected[N];
/* Of any storage type. */
static double x_stored[N], y_stored[N], z_stored[N], got[N];

static void
store(civ_dtype dtype, const double *from, void *to)
{
    for (int i = 0; i < N; i++) {
        switch (dtype) {
        case CIV_F32:
            ((float *)to)[i] = (float)from[i];
            break;
        case CIV_BF16:
            ((civ_bf16 *)to)[i] = civ_save_bf16((float)from[i]);
            break;
        case CIV_F16:
            ((civ_f16 *)to)[i] = civ_save_f16((float)from[i]);
            break;
        default:
            ((double *)to)[i] = from[i];
        }
    }
}

static void
load(civ_dtype dtype, const void *from, double *to)
{
    for (int i = 0; i < N; i++) {
        switch (dtype) {
        case CIV_F32:
            to[i] = ((const float *)from)[i];
            break;
        case CIV_BF16:
            to[i] = civ_load_bf16(((const civ_bf16 *)from)[i]);
            break;
        case CIV_F16:
            to[i] = civ_load_f16(((const civ_f16 *)from)[i]);
            break;
        default:
            to[i] = ((const double *)from)[i];
        }
    }
}

/* Two roundings of the type, relative to 1 or the value. */
static double
tolerance(civ_dtype dtype)
{
    return dtype == CIV_F64    ? 1e-14
           : dtype == CIV_F32  ? 4e-7
           : dtype == CIV_BF16 ? 0x1p-7
                               : 0x1p-10;
}

/* Largest difference between what a kernel wrote and what it should have. */
static double
worst(civ_dtype dtype, const void *written)
{
    static double values[N];
    double most = 0;
    load(dtype, written, values);
    for (int i = 0; i < N; i++) {
        double away = fabs(values[i] - expected[i]) / fmax(1, fabs(expected[i]));
        most = away <= most ? most : away;
    }
    return most / tolerance(dtype);
}

static void
fill(civ_dtype dtype)
{
    for (int i = 0; i < N; i++) {
        x[i] = 4 * sin(0.7 * i);
        y[i] = 3 * cos(1.3 * i);
        z[i] = sin(2.1 * i + 1);
        v[i] = cos(0.3 * i + 2);
    }
    store(dtype, x, x_stored);
    store(dtype, y, y_stored);
    store(dtype, z, z_stored);
    load(dtype, x_stored, x);
    load(dtype, y_stored, y);
    load(dtype, z_stored, z);
}

static void
check_conversions(const civ_kernels *kernels, civ_dtype dtype)
{
    float narrow[N];
    int bad = 0;
    kernels->to_f32[dtype](x_stored, N, narrow);
    for (int i = 0; i < N; i++) {
        bad += narrow[i] != (float)x[i];
    }
    kernels->to_f64[dtype](x_stored, N, got);
    bad += memcmp(got, x, sizeof x) != 0;
    memset(got, 0, sizeof got);
    double largest = kernels->widen[dtype](x_stored, N, got);
    bad += memcmp(got, x, sizeof x) != 0;
    kernels->difference[dtype](x_stored, y_stored, N, got);
    double top = 0;
    for (int i = 0; i < N; i++) {
        bad += got[i] != x[i] - y[i];
        top = fmax(top, fabs(x[i]));
    }
    CHECK(bad == 0);
    CHECK(largest == top);
    CHECK(kernels->largest_magnitude[dtype](x_stored, N) == top);
}

static void
check_scans(const civ_kernels *kernels, civ_dtype dtype)
{
    double squares = 0, top = -INFINITY;
    int64_t above = 0;
    bool bad = false;
    for (int i = 0; i < N; i++) {
        squares += 0.25 * x[i] * x[i];
        top = fmax(top, x[i]);
    }
    CHECK_NEAR(kernels->sum_squares[dtype](x_stored, N, 0.5), squares, 1e-10);
    CHECK(kernels->largest[dtype](x_stored, N, &bad) == top && !bad);
    for (int i = 0; i < N; i++) {
        if (x[i] - top > -1.5) {
            expected[above++] = x[i] - top;
        }
    }
    CHECK(kernels->gather_above[dtype](x_stored, N, top, -1.5, got) == above);
    CHECK(memcmp(got, expected, (size_t)above * sizeof *got) == 0);
    CHECK(kernels->first_bad[dtype](x_stored, N, false) == -1);
    double kept = x[N - 1];
    x[N - 1] = -INFINITY;
    store(dtype, x, got);
    CHECK(kernels->first_bad[dtype](got, N, true) == -1);
    CHECK(kernels->first_bad[dtype](got, N, false) == N - 1);
    CHECK(isinf(kernels->widen[dtype](got, N, expected)));
    x[N - 1] = NAN;
    store(dtype, x, got);
    CHECK(kernels->first_bad[dtype](got, N, true) == N - 1);
    kernels->largest[dtype](got, N, &bad);
    CHECK(bad);
    x[N - 1] = kept;
}

static void
check_row_maps(const civ_kernels *kernels, civ_dtype dtype)
{
    for (int i = 0; i < N; i++) {
        expected[i] = x[i] * 0.3 * 1.7;
    }
    kernels->scale[dtype](x_stored, N, 0.3, 1.7, got);
    CHECK(worst(dtype, got) <= 1);
    for (int i = 0; i < N; i++) {
        expected[i] = fmax(x[i] - 4 + 2.5, 0) * 0.7;
    }
    kernels->clip_shifted[dtype](x_stored, N, 4, -2.5, 0.7, got);
    CHECK(worst(dtype, got) <= 1);
    bool seen = false;
    for (int i = 0; i < N; i++) {
        bool tied = x[i] == x[7] || i == N - 1;
        expected[i] = tied ? (seen ? 0.25 : 0.5) : 0;
        seen |= tied;
    }
    double kept = x[N - 1];
    x[N - 1] = x[7];
    store(dtype, x, y_stored);
    x[N - 1] = kept;
    kernels->share_out[dtype](y_stored, N, x[7], 0.5, 0.25, got);
    CHECK(worst(dtype, got) == 0);
}

static void
check_loss(const civ_kernels *kernels, civ_dtype dtype)
{
    civ_dtype compute = civ_dtype_compute(dtype);
    const int64_t ids[] = {0, 7, N - 1};
    double all = 0, some = 0;
    bool bad = false;
    for (int i = 0; i < N; i++) {
        all += exp(x[i]);
    }
    for (int i = 0; i < 3; i++) {
        some += exp(x[ids[i]]);
    }
    for (int i = 0; i < N; i++) {
        bool within = i == 0 || i == 7 || i == N - 1;
        expected[i] = exp(x[i]) / all - (within ? exp(x[i]) / some : 0);
    }
    double loss = kernels->set_nll[dtype](x_stored, N, ids, 3, got, &bad);
    CHECK(!bad);
    CHECK_NEAR(loss, log(all / some), compute == CIV_F64 ? 1e-13 : 1e-6);
    CHECK(worst(compute, got) <= 1);
    CHECK(kernels->set_nll[dtype](x_stored, N, ids, 3, NULL, &bad) == loss);
}

/* N is no multiple of the columns, which thus end in an incomplete panel. */
static void
check_apply(civ_dtype dtype)
{
    enum { ROWS = 13, COLS = N / ROWS, RANK = 5 };
    civ_dtype compute = civ_dtype_compute(dtype);
    double left[N], right[N];
    store(compute, y, left);
    store(compute, z, right);
    load(compute, left, y);
    load(compute, right, z);
    memset(expected, 0, sizeof expected);
    for (int i = 0; i < ROWS * COLS; i++) {
        expected[i] = x[i];
        for (int k = 0; k < RANK; k++) {
            expected[i] += y[i / COLS * RANK + k] * z[k * COLS + i % COLS];
        }
    }
    memset(got, 0, sizeof got);
    civ_mat weights = {x_stored, ROWS, COLS, COLS, dtype};
    civ_mat out = {got, ROWS, COLS, COLS, dtype};
    civ_mat first = {left, ROWS, RANK, RANK, compute};
    civ_mat second = {right, RANK, COLS, COLS, compute};
    CHECK(civ_lowrank_apply(NULL, &weights, &first, &second, &out) == CIV_OK);
    CHECK(worst(dtype, got) <= 1);
}

/* x' = scale (y - step d), y' = ahead x' - behind x. */
static void
check_moves(const civ_kernels *kernels, civ_dtype dtype)
{
    const civ_advance move = {.scale = 0.9, .step = 0.3, .ahead = 1.6, .behind = 0.6};
    double dot = 0, turn = 0;
    for (int i = 0; i < N; i++) {
        double stepped = 0.9 * (y[i] - 0.3 * z[i]);
        dot += x[i] * y[i];
        turn += (y[i] - stepped) * (stepped - x[i]);
    }
    CHECK_NEAR(kernels->dot[dtype](x_stored, y_stored, N), dot, 1e-10);
    const civ_turn row = {y_stored, z_stored, y_stored, z_stored, x_stored};
    CHECK_NEAR(kernels->turn[dtype](&move, &row, N), turn,
               dtype == CIV_F64 ? 1e-10 : 1e-3);
    for (int i = 0; i < N; i++) {
        expected[i] = x[i] + 0.9 * (y[i] - 0.3 * z[i]);
    }
    kernels->displace[dtype](x_stored, y_stored, z_stored, 0.9, 0.3, N, got);
    CHECK(worst(dtype, got) <= 2);
    store(dtype, y, got);
    for (int i = 0; i < N; i++) {
        expected[i] = 0.9 * (y[i] - 0.3 * z[i]);
    }
    kernels->advance[dtype](&move, z_stored, N, got, NULL);
    CHECK(worst(dtype, got) <= 2);
    kernels->advance[dtype](&move, z_stored, N, y_stored, x_stored);
    CHECK(worst(dtype, x_stored) <= 2);
    for (int i = 0; i < N; i++) {
        expected[i] = 1.6 * expected[i] - 0.6 * x[i];
    }
    CHECK(worst(dtype, y_stored) <= 4);
}

static void
check_constraints(const civ_kernels *kernels)
{
    double sums[2], square = 0, taken = 0;
    memcpy(got, v, sizeof got);
    for (int i = 0; i < N; i++) {
        double away = x[i] - y[i];
        expected[i] = v[i] + 0.4 * away;
        square += away * away;
        taken += z[i] * (z[i] + 2 * away);
    }
    kernels->add_difference(x, y, N, 0.4, got);
    CHECK(worst(CIV_F64, got) <= 1);
    memcpy(got, v, sizeof got);
    kernels->judge_ball(x, y, z, N, 0.4, got, sums);
    CHECK(worst(CIV_F64, got) <= 1);
    CHECK_NEAR(sums[0], square, 1e-10);
    CHECK_NEAR(sums[1], taken, 1e-10);
}

static void
check_table(void)
{
    const civ_kernels *kernels = civ_kernel_table();
    for (int dtype = 0; dtype < CIV_N_DTYPES; dtype++) {
        fill((civ_dtype)dtype);
        check_conversions(kernels, (civ_dtype)dtype);
        check_scans(kernels, (civ_dtype)dtype);
        check_row_maps(kernels, (civ_dtype)dtype);
        check_loss(kernels, (civ_dtype)dtype);
        check_apply((civ_dtype)dtype);
    }
    fill(CIV_F32);
    check_moves(kernels, CIV_F32);
    fill(CIV_F64);
    check_moves(kernels, CIV_F64);
    check_constraints(kernels);
}

void
test_tables(void)
{
    WITH_EACH_TABLE(check_table());
}
