/* SPDX-License-Identifier: Apache-2.0 */
#include "cintervene.h"
#include "linalg/inner.h"
#include "minunit.h"
#include "linalg/products.h"

#include <string.h>

/* More than a tile each way, and an incomplete last one. */
enum { ROWS = 150, COLS = 140, DEPTH = 600 };

static double a[ROWS * DEPTH], b[COLS * DEPTH], out[ROWS * COLS];
static double moment[DEPTH * DEPTH];
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

static void
check_moment(void)
{
    civ_mat rows = {a, ROWS, DEPTH, DEPTH, CIV_F64};
    civ_mat sum = {moment, DEPTH, DEPTH, DEPTH, CIV_F64};
    moment[3 * DEPTH + 200] = 1;
    moment[200 * DEPTH + 3] = 1;
    CHECK(civ_moment_add(NULL, &rows, &sum) == CIV_OK);
    double expected = 1;
    for (int i = 0; i < ROWS; i++) {
        expected += a[i * DEPTH + 3] * a[i * DEPTH + 200];
    }
    CHECK_NEAR(moment[3 * DEPTH + 200], expected, 1e-11);
    CHECK(moment[3 * DEPTH + 200] == moment[200 * DEPTH + 3]);
    CHECK(civ_spd_factor(NULL, &rows) == CIV_SHAPE);
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
    check_definite();
}
