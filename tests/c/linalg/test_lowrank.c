/* SPDX-License-Identifier: Apache-2.0 */
#include "cintervene.h"
#include "minunit.h"

/* Odd sizes, so that every kernel meets an incomplete block. */
enum { D_OUT = 101, D_IN = 67, RANK = 5, INPUTS = 3 };

static double left[D_OUT * RANK], right[RANK * D_IN];
static double weights[D_OUT * D_IN], changed[D_OUT * D_IN];
static double inputs[INPUTS * D_IN], moved[INPUTS * D_OUT];

static const civ_mat left_mat = {left, D_OUT, RANK, RANK, CIV_F64};
static const civ_mat right_mat = {right, RANK, D_IN, D_IN, CIV_F64};
static const civ_mat weights_mat = {weights, D_OUT, D_IN, D_IN, CIV_F64};
static const civ_mat changed_mat = {changed, D_OUT, D_IN, D_IN, CIV_F64};
static const civ_mat inputs_mat = {inputs, INPUTS, D_IN, D_IN, CIV_F64};
static const civ_mat moved_mat = {moved, INPUTS, D_OUT, D_OUT, CIV_F64};

static void
fill(double *x, int count, double rate)
{
    for (int i = 0; i < count; i++) {
        x[i] = sin(rate * i + rate);
    }
}

static double
entry(int i, int j)
{
    double sum = 0;
    for (int k = 0; k < RANK; k++) {
        sum += left[i * RANK + k] * right[k * D_IN + j];
    }
    return sum;
}

static void
check_apply(void)
{
    CHECK(civ_lowrank_apply(NULL, &weights_mat, &left_mat, &right_mat, &changed_mat) ==
          CIV_OK);
    double worst = 0;
    for (int i = 0; i < D_OUT * D_IN; i++) {
        double expected = weights[i] + entry(i / D_IN, i % D_IN);
        worst = fmax(worst, fabs(changed[i] - expected));
    }
    CHECK(worst < 1e-14);
}

static void
check_displacement(void)
{
    CHECK(civ_displacement(NULL, &weights_mat, &changed_mat, &inputs_mat, &moved_mat) ==
          CIV_OK);
    double worst = 0;
    for (int j = 0; j < INPUTS; j++) {
        for (int i = 0; i < D_OUT; i++) {
            double expected = 0;
            for (int k = 0; k < D_IN; k++) {
                expected += inputs[j * D_IN + k] * entry(i, k);
            }
            worst = fmax(worst, fabs(moved[j * D_OUT + i] - expected));
        }
    }
    CHECK(worst < 1e-12);
}

static void
check_refusals(void)
{
    civ_mat narrow = {left, D_OUT, RANK, RANK, CIV_F32};
    civ_mat shorter = {left, D_OUT - 1, RANK, RANK, CIV_F64};
    civ_mat inside = {left, D_OUT - 1, D_IN, D_IN, CIV_F64};
    CHECK(civ_lowrank_apply(NULL, &weights_mat, &narrow, &right_mat, &changed_mat) ==
          CIV_DTYPE);
    CHECK(civ_lowrank_apply(NULL, &weights_mat, &shorter, &right_mat, &changed_mat) ==
          CIV_SHAPE);
    CHECK(civ_lowrank_apply(NULL, &weights_mat, &left_mat, &right_mat, &inside) ==
          CIV_SHAPE);
    CHECK(civ_displacement(NULL, &weights_mat, &inside, &inputs_mat, &moved_mat) ==
          CIV_SHAPE);
    allocations_until_failure(0);
    CHECK(civ_lowrank_apply(NULL, &weights_mat, &left_mat, &right_mat, &changed_mat) ==
          CIV_NO_MEMORY);
    CHECK(civ_displacement(NULL, &weights_mat, &changed_mat, &inputs_mat, &moved_mat) ==
          CIV_NO_MEMORY);
    allocations_until_failure(-1);
}

void
test_lowrank(void)
{
    fill(left, D_OUT * RANK, 0.7);
    fill(right, RANK * D_IN, 1.3);
    fill(weights, D_OUT * D_IN, 2.1);
    fill(inputs, INPUTS * D_IN, 0.3);
    WITH_EACH_TABLE(check_apply());
    WITH_EACH_TABLE(check_displacement());
    check_refusals();
}
