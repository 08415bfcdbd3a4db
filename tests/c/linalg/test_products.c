/* SPDX-License-Identifier: Apache-2.0 */
#include "cintervene.h"
#include "linalg/inner.h"
#include "minunit.h"
#include "linalg/products.h"

#include <string.h>

/* More than a tile each way, and an incomplete last one. */
enum { ROWS = 150, COLS = 140, DEPTH = 600 };

static double a[ROWS * DEPTH], b[COLS * DEPTH], out[ROWS * COLS];
static double moment[DEPTH * DEPTH], triangle[DEPTH * DEPTH];
static float narrow[COLS * DEPTH];

static void
fill(double *x, int count, double rate)
{
    for (int i = 0; i < count; i++) {
        x[i] = sin(rate * i + rate);
    }
}

static void
check_products(void)
{
    civ_mat left = {a, ROWS, DEPTH, DEPTH, CIV_F64};
    civ_mat wide = {b, COLS, DEPTH, DEPTH, CIV_F64};
    civ_mat single = {narrow, COLS, DEPTH, DEPTH, CIV_F32};
    civ_mat tall = {b, DEPTH, COLS, COLS, CIV_F64};
    civ_mat result = {out, ROWS, COLS, COLS, CIV_F64};
    const int probes[][2] = {{0, 0}, {127, 128}, {128, 127}, {ROWS - 1, COLS - 1}};
    for (int i = 0; i < COLS * DEPTH; i++) {
        narrow[i] = (float)b[i];
    }
    for (int kind = 0; kind < 3; kind++) {
        civ_status status = kind == 0   ? civ_product_nt(NULL, &left, &wide, &result)
                            : kind == 1 ? civ_product_nt(NULL, &left, &single, &result)
                                        : civ_product_nn(NULL, &left, &tall, &result);
        CHECK(status == CIV_OK);
        for (int p = 0; p < 4; p++) {
            int i = probes[p][0], j = probes[p][1];
            double sum = 0;
            for (int x = 0; x < DEPTH; x++) {
                double factor = kind == 2   ? b[x * COLS + j]
                                : kind == 1 ? narrow[j * DEPTH + x]
                                            : b[j * DEPTH + x];
                sum += a[i * DEPTH + x] * factor;
            }
            CHECK_NEAR(out[i * COLS + j], sum, 1e-11);
        }
    }
    CHECK(civ_product_nn(NULL, &left, &wide, &result) == CIV_SHAPE);
}

/* Rows from two places, backwards; the inner dimension is no multiple of a vector. */
static void
check_inner(void)
{
    enum { MORE = 45, FEW = 37, LENGTH = DEPTH - 3 };
    const double *rows[MORE];
    for (int i = 0; i < MORE; i++) {
        rows[i] = (i % 2 ? a : b) + (MORE - i) * DEPTH;
    }
    for (int kind = 0; kind < 4; kind++) {
        int symmetric = kind % 2, distances = kind / 2;
        civ_inner_block block = {rows,
                                 rows,
                                 FEW,
                                 MORE,
                                 LENGTH,
                                 distances != 0,
                                 symmetric != 0,
                                 {out, FEW, MORE, MORE, CIV_F64}};
        CHECK(civ_inner_products(NULL, &block) == CIV_OK);
        for (int i = 0; i < FEW; i++) {
            for (int k = 0; k < MORE; k++) {
                double sum = 0;
                for (int x = 0; x < LENGTH; x++) {
                    double away = rows[i][x] - rows[k][x];
                    sum += distances ? away * away : rows[i][x] * rows[k][x];
                }
                CHECK_NEAR(out[i * MORE + k], sum, 1e-11);
            }
        }
        double alone[MORE];
        civ_inner_block one = block;
        one.n_x = 1;
        one.out = civ_f64(alone, 1, MORE);
        CHECK(civ_inner_products(NULL, &one) == CIV_OK);
        CHECK(memcmp(alone, out, sizeof alone) == 0);
        block.out.n_cols = FEW;
        CHECK(civ_inner_products(NULL, &block) == CIV_SHAPE);
    }
}

/* Element (i, j) of a packed triangle of order DEPTH, j <= i. */
static double *
packed_at(int i, int j)
{
    int64_t block = i / 256, width = (block + 1) * 256;
    int64_t stride = width < DEPTH ? width : DEPTH;
    return triangle + 65536 * (block * (block + 1) / 2) + (i - 256 * block) * stride +
           j;
}

static void
check_moment(void)
{
    civ_mat rows = {a, ROWS, DEPTH, DEPTH, CIV_F64};
    civ_packed sum = {triangle, DEPTH};
    CHECK(civ_packed_size(DEPTH) == 65536 * 3 + 88 * DEPTH);
    memset(triangle, 0, sizeof triangle);
    *packed_at(200, 3) = 1;
    CHECK(civ_moment_add(NULL, &rows, &sum) == CIV_OK);
    const int probes[][2] = {{200, 3}, {255, 255}, {256, 0}, {599, 599}, {599, 255}};
    for (int p = 0; p < 5; p++) {
        double expected = p == 0;
        for (int i = 0; i < ROWS; i++) {
            expected += a[i * DEPTH + probes[p][0]] * a[i * DEPTH + probes[p][1]];
        }
        CHECK_NEAR(*packed_at(probes[p][0], probes[p][1]), expected, 1e-11);
    }
    sum.n--;
    CHECK(civ_moment_add(NULL, &rows, &sum) == CIV_SHAPE);
    CHECK(civ_spd_factor(NULL, &rows) == CIV_SHAPE);
}

/* The factor of the square matrix, bit for bit, and what solves its system. */
static void
check_packed(void)
{
    civ_packed packed = {triangle, DEPTH};
    civ_mat square = {moment, DEPTH, DEPTH, DEPTH, CIV_F64};
    for (int i = 0; i < DEPTH; i++) {
        *packed_at(i, i) += DEPTH; /* Else its condition is 22,500. */
        for (int j = 0; j <= i; j++) {
            moment[i * DEPTH + j] = *packed_at(i, j);
            moment[j * DEPTH + i] = *packed_at(i, j);
        }
    }
    civ_mat right = {b, COLS, DEPTH, DEPTH, CIV_F64},
            product = {a, COLS, DEPTH, DEPTH, CIV_F64};
    CHECK(civ_product_nn(NULL, &right, &square, &product) == CIV_OK);
    CHECK(civ_spd_factor(NULL, &square) == CIV_OK);
    CHECK(civ_packed_factor(NULL, &packed) == CIV_OK);
    for (int i = 0; i < DEPTH; i++) {
        for (int j = 0; j <= i; j++) {
            CHECK(moment[i * DEPTH + j] == *packed_at(i, j));
        }
    }
    CHECK(civ_packed_solve(NULL, &packed, &product) == CIV_OK);
    double worst = 0;
    for (int i = 0; i < COLS * DEPTH; i++) {
        worst = fmax(worst, fabs(a[i] - b[i]));
    }
    CHECK_NEAR(worst, 0, 1e-12);
    product.n_cols--;
    CHECK(civ_packed_solve(NULL, &packed, &product) == CIV_SHAPE);
    *packed_at(DEPTH - 1, DEPTH - 1) = -1;
    CHECK(civ_packed_factor(NULL, &packed) == CIV_SINGULAR);
}

static void
check_packed_sizes(void)
{
    for (int64_t n = 0; n < 1000; n += 37) {
        CHECK(civ_packed_order(civ_packed_size(n)) == n);
    }
    CHECK(civ_packed_order(civ_packed_size(14336)) == 14336);
    CHECK(civ_packed_order(2) == -1);
    CHECK(civ_packed_order(256 * 256 + 1) == -1);
}

static void
check_definite(void)
{
    double matrix[] = {4, 2, 2, 3}, right[] = {8, 7, 4, 2};
    civ_mat system = {matrix, 2, 2, 2, CIV_F64}, rows = {right, 2, 2, 2, CIV_F64};
    CHECK(civ_spd_factor(NULL, &system) == CIV_OK);
    CHECK(civ_spd_solve(NULL, &system, &rows) == CIV_OK);
    CHECK_NEAR(right[0], 1.25, 1e-15);
    CHECK_NEAR(right[1], 1.5, 1e-15);
    CHECK_NEAR(right[2], 1, 1e-15);
    CHECK_NEAR(right[3], 0, 1e-15);
}

void
test_products(void)
{
    fill(a, ROWS * DEPTH, 0.7);
    fill(b, COLS * DEPTH, 1.3);
    check_products();
    WITH_EACH_TABLE(check_inner());
    check_moment();
    check_packed();
    check_packed_sizes();
    check_definite();
}
