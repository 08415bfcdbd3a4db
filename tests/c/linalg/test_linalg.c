/* SPDX-License-Identifier: Apache-2.0 */
#include "cintervene.h"
#include "linalg/linalg.h"
#include "minunit.h"

/* More than two block columns, and an incomplete last one. */
enum { ORDER = 600 };

static double large[ORDER * ORDER];

static int
stop_at_zero(void *left)
{
    return (*(long *)left)-- == 0;
}

/* A = L L^T with L_ij = 1 / (1 + i - j) below the diagonal. */
static void
fill_large(void)
{
    for (int i = 0; i < ORDER; i++) {
        for (int j = 0; j < ORDER; j++) {
            double sum = 0;
            for (int k = 0; k <= (i < j ? i : j); k++) {
                sum += 1.0 / ((1 + i - k) * (1 + j - k));
            }
            large[i * ORDER + j] = sum;
        }
    }
}

static void
check_blocked_cholesky(void)
{
    civ_mat a = {large, ORDER, ORDER, ORDER, CIV_F64};
    fill_large();
    CHECK(civ_spd_factor(NULL, &a) == CIV_OK);
    double worst = 0;
    for (int i = 0; i < ORDER; i++) {
        for (int j = 0; j <= i; j++) {
            worst = fmax(worst, fabs(large[i * ORDER + j] - 1.0 / (1 + i - j)));
        }
    }
    CHECK_NEAR(worst, 0, 1e-12);

    fill_large();
    large[ORDER * ORDER - 1] -= 1.01;
    CHECK(civ_spd_factor(NULL, &a) == CIV_SINGULAR);

    long polls = 2;
    civ_exec exec = {.poll = stop_at_zero, .poll_arg = &polls};
    fill_large();
    CHECK(civ_spd_factor(&exec, &a) == CIV_INTERRUPTED);
}

static void
check_indefinite(void)
{
    double a[] = {0, 2, 2, 3}, x[] = {2, 1};
    CHECK(civ_symmetric_solve(2, a, x) == CIV_OK);
    CHECK_NEAR(x[0], -1, 1e-15);
    CHECK_NEAR(x[1], 1, 1e-15);
    double nothing[4] = {0};
    CHECK(civ_symmetric_solve(2, nothing, x) == CIV_SINGULAR);
    CHECK(civ_symmetric_solve(65, nothing, x) == CIV_INVALID_ARGUMENT);
}

void
test_linalg(void)
{
    check_blocked_cholesky();
    check_indefinite();
    double a[] = {4, 2, 2, 3};
    double b[] = {8, 7};
    CHECK(civ_cholesky(2, a, 2) == CIV_OK);
    CHECK(civ_cholesky_solve(2, 1, a, 2, b, 2) == CIV_OK);
    CHECK_NEAR(b[0], 1.25, 1e-15);
    CHECK_NEAR(b[1], 1.5, 1e-15);
    double indefinite[] = {1, 2, 2, 1};
    CHECK(civ_cholesky(2, indefinite, 2) == CIV_SINGULAR);
    CHECK(civ_cholesky(INT64_C(1) << 40, a, 2) == CIV_INVALID_ARGUMENT);

    double symmetric[] = {2, 1, 1, 2}, values[2], work[256];
    CHECK(civ_symmetric_eigen_work(2) <= 256);
    CHECK(civ_symmetric_eigen(2, symmetric, 2, values, work) == CIV_OK);
    CHECK_NEAR(values[0], 1, 1e-15);
    CHECK_NEAR(values[1], 3, 1e-15);
    CHECK(civ_symmetric_eigen_work(INT64_C(1) << 40) < 0);
}
