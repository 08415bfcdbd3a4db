/* SPDX-License-Identifier: Apache-2.0 */
#include "cintervene.h"
#include "minunit.h"

enum { ROWS = 3, VOCAB = 2051, PADDED = VOCAB + 13 };

static void
check_uniform(void)
{
    static float logits[ROWS * PADDED], gradient[ROWS * VOCAB];
    const int64_t ids[] = {0, 7, VOCAB - 1}, offsets[] = {0, 3};
    civ_token_sets sets = {ids, offsets, 1};
    civ_mat x = {logits, ROWS, VOCAB, PADDED, CIV_F32};
    civ_mat grad = {gradient, ROWS, VOCAB, VOCAB, CIV_F32};
    double loss[ROWS];
    CHECK(civ_set_nll(NULL, &x, &sets, loss, &grad) == CIV_OK);
    CHECK_NEAR(loss[ROWS - 1], log(VOCAB / 3.0), 1e-6);
    CHECK_NEAR(gradient[1], 1.0 / VOCAB, 1e-9);
    CHECK_NEAR(gradient[7], 1.0 / VOCAB - 1.0 / 3.0, 1e-7);
    CHECK(civ_set_nll(NULL, &x, &sets, loss, NULL) == CIV_OK);
    logits[PADDED + 5] = NAN;
    CHECK(civ_set_nll(NULL, &x, &sets, loss, &grad) == CIV_NONFINITE);
    int64_t row, col;
    CHECK(civ_find_nonfinite(NULL, &x, true, &row, &col) == CIV_OK);
    CHECK(row == 1 && col == 5);
    static double wide[ROWS * VOCAB];
    civ_mat copy = {wide, ROWS, VOCAB, VOCAB, CIV_F64};
    double largest = -1;
    CHECK(civ_widen(NULL, &x, &copy, &largest) == CIV_NONFINITE);
    CHECK(largest == -1);
    CHECK(civ_convert(NULL, &x, &copy) == CIV_OK);
    CHECK(isnan(wide[VOCAB + 5]));
    logits[PADDED + 5] = 0.5F;
    CHECK(civ_widen(NULL, &x, &copy, &largest) == CIV_OK);
    CHECK(wide[VOCAB + 5] == 0.5 && largest == 0.5);
    logits[PADDED + 5] = -3;
    CHECK(civ_widen(NULL, &x, &copy, &largest) == CIV_OK && largest == 3);
    logits[PADDED + 5] = 0;
}

static void
check_refusals(void)
{
    double logits[4] = {0}, loss[2], gradient[4];
    const int64_t ids[] = {0, 2}, offsets[] = {0, 1, 2}, empty[] = {0, 1, 1};
    civ_mat x = {logits, 2, 2, 2, CIV_F64};
    civ_token_sets outside = {ids, offsets, 2};
    CHECK(civ_set_nll(NULL, &x, &outside, loss, NULL) == CIV_INVALID_ARGUMENT);
    civ_token_sets hollow = {ids, empty, 2};
    CHECK(civ_set_nll(NULL, &x, &hollow, loss, NULL) == CIV_INVALID_ARGUMENT);
    civ_token_sets one = {ids, offsets, 1};
    civ_mat wrong_dtype = {gradient, 2, 2, 2, CIV_F32};
    CHECK(civ_set_nll(NULL, &x, &one, loss, &wrong_dtype) == CIV_DTYPE);
    civ_mat wrong_shape = {gradient, 1, 2, 2, CIV_F64};
    CHECK(civ_set_nll(NULL, &x, &one, loss, &wrong_shape) == CIV_SHAPE);
    CHECK(civ_set_nll(NULL, &x, &one, loss, &x) == CIV_ALIAS);
    civ_mat three = {logits, 3, 1, 1, CIV_F64};
    CHECK(civ_set_nll(NULL, &three, &outside, loss, NULL) == CIV_SHAPE);
    int64_t row, col;
    allocations_until_failure(0);
    CHECK(civ_find_nonfinite(NULL, &x, true, &row, &col) == CIV_OK && row == -1);
    logits[3] = NAN;
    CHECK(civ_find_nonfinite(NULL, &x, true, &row, &col) == CIV_OK && row == 1);
    CHECK(col == 1);
    allocations_until_failure(-1);
}

void
test_losses(void)
{
    WITH_EACH_TABLE(check_uniform());
    check_refusals();
}
