/* SPDX-License-Identifier: Apache-2.0 */
#include "cintervene.h"
#include "minunit.h"

#include <string.h>

enum { M = 5, D = 7, D_IN = 3 };

static double gram[M * M], gradient[M * D], points[4][M * D];

static civ_mat
matrix(double *data, int64_t rows, int64_t cols)
{
    return (civ_mat){data, rows, cols, cols, CIV_F64};
}

/* A Gram matrix of rank D_IN < M, and a state at zero. */
static civ_pgd
start(bool momentum)
{
    double inputs[M * D_IN];
    for (int i = 0; i < M * D_IN; i++) {
        inputs[i] = sin(12.9898 * (i + 1));
    }
    for (int i = 0; i < M * D; i++) {
        gradient[i] = cos(78.233 * (i + 1));
    }
    for (int j = 0; j < M; j++) {
        for (int k = 0; k < M; k++) {
            gram[j * M + k] = 0;
            for (int x = 0; x < D_IN; x++) {
                gram[j * M + k] += inputs[j * D_IN + x] * inputs[k * D_IN + x];
            }
        }
    }
    memset(points, 0, sizeof points);
    return (civ_pgd){
        .here = {matrix(points[0], M, D), matrix(points[1], M, D)},
        .trail = {matrix(points[2], M, D), matrix(points[3], M, D)},
        .momentum = momentum,
        .age = 1,
    };
}

static civ_status
step(const civ_exec *exec, civ_pgd *self, civ_pgd_info *info)
{
    civ_pgd_options options = civ_pgd_options_default();
    civ_mat g = matrix(gram, M, M), along = matrix(gradient, M, D);
    options.radius = 2;
    return civ_pgd_step(exec, &g, &along, NULL, &options, self, info);
}

/* D stays G A, and the norm stays in the ball, however long one pulls. */
static void
check_steps(bool momentum)
{
    civ_pgd self = start(momentum);
    civ_pgd_info info;
    for (int i = 0; i < 9; i++) {
        CHECK(step(NULL, &self, &info) == CIV_OK);
        CHECK(info.norm <= 2 * (1 + 1e-12));
    }
    CHECK_NEAR(info.norm, 2, 1e-12);
    CHECK_NEAR(info.gap, 0, 1e-12);
    double moved = 0;
    for (int k = 0; k < M; k++) {
        moved += gram[2 * M + k] * points[0][k * D + 4];
    }
    CHECK_NEAR(points[1][2 * D + 4], moved, 1e-12);
}

static int
stop_at_zero(void *left)
{
    return (*(long *)left)-- == 0;
}

/* Whatever fails, the state is as it was. */
static void
check_failures(bool momentum)
{
    civ_pgd self = start(momentum);
    civ_pgd_info info;
    CHECK(step(NULL, &self, &info) == CIV_OK);
    double before[4][M * D];
    memcpy(before, points, sizeof points);
    long failures = 0;
    civ_status status = CIV_NO_MEMORY;
    while (status == CIV_NO_MEMORY) {
        CHECK(memcmp(before, points, sizeof points) == 0);
        allocations_until_failure(failures++);
        status = step(NULL, &self, &info);
        allocations_until_failure(-1);
    }
    CHECK(status == CIV_OK);
    CHECK(failures == 3);
    CHECK(memcmp(before, points, sizeof points) != 0);
    gradient[3] = NAN;
    memcpy(before, points, sizeof points);
    CHECK(step(NULL, &self, &info) == CIV_NONFINITE);
    CHECK(memcmp(before, points, sizeof points) == 0);
}

static void
check_interruption(void)
{
    civ_pgd self = start(false);
    civ_pgd_info info;
    long polls = 0;
    civ_status status = CIV_INTERRUPTED;
    while (status == CIV_INTERRUPTED) {
        CHECK(points[0][0] == 0 && points[1][0] == 0);
        long left = polls++;
        civ_exec exec = {.poll = stop_at_zero, .poll_arg = &left};
        status = step(&exec, &self, &info);
    }
    CHECK(status == CIV_OK);
    CHECK(polls > 1);
    CHECK(points[0][0] != 0 && points[1][0] != 0);
}

static void
check_refusals(void)
{
    civ_pgd self = start(true);
    civ_pgd_options options = civ_pgd_options_default();
    civ_mat g = matrix(gram, M, M), along = matrix(gradient, M, D);
    civ_mat narrow = matrix(gradient, M, D - 1), single = along;
    single.dtype = CIV_F32;
    civ_pgd_info info;
    options.radius = -1;
    CHECK(civ_pgd_step(NULL, &g, &along, NULL, &options, &self, &info) ==
          CIV_INVALID_ARGUMENT);
    options.radius = 1;
    CHECK(civ_pgd_step(NULL, &g, &narrow, NULL, &options, &self, &info) == CIV_SHAPE);
    CHECK(civ_pgd_step(NULL, &along, &along, NULL, &options, &self, &info) ==
          CIV_SHAPE);
    CHECK(civ_pgd_step(NULL, &single, &along, NULL, &options, &self, &info) ==
          CIV_DTYPE);
    CHECK(civ_pgd_step(NULL, &g, &along, &narrow, &options, &self, &info) == CIV_SHAPE);
    CHECK(civ_pgd_step(NULL, &g, &along, &single, &options, &self, &info) == CIV_DTYPE);
    options.length = 0;
    CHECK(civ_pgd_step(NULL, &g, &along, NULL, &options, &self, &info) ==
          CIV_INVALID_ARGUMENT);
    options.length = 1;
    self.age = 0.5;
    CHECK(civ_pgd_step(NULL, &g, &along, NULL, &options, &self, &info) ==
          CIV_INVALID_ARGUMENT);
}

void
test_pgd(void)
{
    for (int momentum = 0; momentum < 2; momentum++) {
        check_steps(momentum);
        check_failures(momentum);
    }
    check_interruption();
    check_refusals();
}
