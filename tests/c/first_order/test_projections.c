/* SPDX-License-Identifier: Apache-2.0 */
#include "cintervene.h"
#include "minunit.h"

#include <string.h>

enum { COLS = 1500 };

static void
check_simplex(void)
{
    static double values[2 * COLS], result[2 * COLS];
    for (int i = 0; i < 2 * COLS; i++) {
        values[i] = sin(12.9898 * i);
    }
    civ_mat x = {values, 2, COLS, COLS, CIV_F64};
    civ_mat out = {result, 2, COLS, COLS, CIV_F64};
    CHECK(civ_project_simplex(NULL, &x, 1, &out) == CIV_OK);
    double sum = 0, least = 1;
    for (int i = 0; i < COLS; i++) {
        sum += result[COLS + i];
        least = fmin(least, result[COLS + i]);
    }
    CHECK_NEAR(sum, 1.0, 1e-12);
    CHECK(least == 0.0);
    memcpy(values, result, sizeof values);
    CHECK(civ_project_simplex(NULL, &x, 1, &out) == CIV_OK);
    for (int i = 0; i < COLS; i++) {
        CHECK_NEAR(result[i], values[i], 1e-12);
    }
}

/* The sphere of squared norm 1 - entropy, whichever way it is reached. */
static void
check_entropy(void)
{
    static double values[2 * COLS], result[2 * COLS];
    for (int i = 0; i < COLS; i++) {
        values[i] = 1e-3 * sin(12.9898 * i);
        values[COLS + i] = i % 500 == 7;
    }
    civ_mat x = {values, 2, COLS, COLS, CIV_F64};
    civ_mat out = {result, 2, COLS, COLS, CIV_F64};
    CHECK(civ_project_simplex(NULL, &x, 0.6, &out) == CIV_OK);
    for (int row = 0; row < 2; row++) {
        double sum = 0, squares = 0;
        for (int i = 0; i < COLS; i++) {
            double p = result[row * COLS + i];
            CHECK(p >= 0);
            sum += p;
            squares += p * p;
        }
        CHECK_NEAR(sum, 1, 1e-12);
        CHECK_NEAR(squares, 0.4, 1e-12);
    }
    CHECK(result[COLS + 7] > result[COLS + 507]);
    CHECK(result[COLS + 507] == result[COLS + 1007]);
    CHECK(civ_project_simplex(NULL, &x, -1, &out) == CIV_INVALID_ARGUMENT);
    CHECK(civ_project_simplex(NULL, &x, NAN, &out) == CIV_INVALID_ARGUMENT);
}

static void
check_ball(void)
{
    double values[] = {3, 4, 0.3, 0.4};
    const double radius[] = {1, 1};
    civ_mat x = {values, 2, 2, 2, CIV_F64};
    CHECK(civ_project_ball(NULL, &x, radius, 2, &x) == CIV_OK);
    CHECK_NEAR(values[0], 0.6, 1e-15);
    CHECK(values[2] == 0.3 && values[3] == 0.4);
}

static void
check_refusals(void)
{
    double values[6] = {0};
    const double negative[] = {-1};
    civ_mat x = {values, 2, 2, 2, CIV_F64};
    civ_mat shifted = {values + 1, 2, 2, 2, CIV_F64};
    civ_mat row = {values, 1, 2, 2, CIV_F64};
    civ_mat single = {values, 2, 2, 2, CIV_F32};
    civ_mat empty = {values, 2, 0, 0, CIV_F64};
    CHECK(civ_project_ball(NULL, &x, negative, 1, &x) == CIV_INVALID_ARGUMENT);
    CHECK(civ_project_ball(NULL, &x, negative, 3, &x) == CIV_SHAPE);
    CHECK(civ_project_simplex(NULL, &x, 1, &shifted) == CIV_ALIAS);
    CHECK(civ_project_simplex(NULL, &x, 1, &row) == CIV_SHAPE);
    CHECK(civ_project_simplex(NULL, &x, 1, &single) == CIV_DTYPE);
    CHECK(civ_project_simplex(NULL, &empty, 1, &empty) == CIV_SHAPE);
    values[3] = NAN;
    CHECK(civ_project_simplex(NULL, &x, 1, &x) == CIV_NONFINITE);
    allocations_until_failure(0);
    CHECK(civ_project_simplex(NULL, &x, 1, &x) == CIV_NO_MEMORY);
    allocations_until_failure(-1);
}

void
test_projections(void)
{
    WITH_EACH_TABLE(check_simplex());
    WITH_EACH_TABLE(check_entropy());
    WITH_EACH_TABLE(check_ball());
    check_refusals();
}
