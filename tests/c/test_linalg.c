/* SPDX-License-Identifier: Apache-2.0 */
#include "linalg.h"
#include "minunit.h"

void
test_linalg(void)
{
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
