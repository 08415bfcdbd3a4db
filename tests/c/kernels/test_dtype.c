/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/dtype.h"
#include "minunit.h"

#include <string.h>

/* Every 16-bit value survives widening and narrowing, NaN as a NaN. */
static void
check_round_trips(void)
{
    int bad = 0;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        civ_f16 half = {(uint16_t)bits};
        civ_bf16 brain = {(uint16_t)bits};
        float x = civ_load_f16(half);
        float y = civ_load_bf16(brain);
        bad += isnan(x) ? !isnan(civ_load_f16(civ_save_f16(x)))
                        : civ_save_f16(x).bits != bits;
        bad += isnan(y) ? !isnan(civ_load_bf16(civ_save_bf16(y)))
                        : civ_save_bf16(y).bits != bits;
    }
    CHECK(bad == 0);
}

static void
check_rounding(void)
{
    CHECK(civ_load_f16((civ_f16){0x3c00}) == 1.0f);
    CHECK(civ_load_f16((civ_f16){0x0001}) == 0x1p-24f);
    CHECK(isinf(civ_load_f16((civ_f16){0x7c00})));
    CHECK(civ_save_f16(65520.0f).bits == 0x7c00); /* ties away from the finite */
    CHECK(civ_save_f16(65519.0f).bits == 0x7bff);
    CHECK(civ_save_f16(0x1p-25f).bits == 0);   /* tie to even */
    CHECK(civ_save_f16(0x1.8p-24f).bits == 2); /* tie to even */
    CHECK(civ_save_f16(1.0f + 0x1p-11f).bits == 0x3c00);
    CHECK(civ_save_f16(1.0f + 0x1.8p-10f).bits == 0x3c02);
    CHECK(civ_save_bf16(1.0f + 0x1p-8f).bits == 0x3f80);
    CHECK(civ_save_bf16(1.0f + 0x1.8p-7f).bits == 0x3f82);
    CHECK(civ_save_bf16(3.4e38f).bits == 0x7f80);
    CHECK(civ_save_bf16(-0.0f).bits == 0x8000);
}

static void
check_names(void)
{
    CHECK(civ_dtype_size(CIV_F64) == 8 && civ_dtype_size(CIV_BF16) == 2);
    CHECK(strcmp(civ_dtype_text(CIV_BF16), "bfloat16") == 0);
    CHECK(civ_dtype_compute(CIV_F16) == CIV_F32);
    CHECK(civ_dtype_compute(CIV_F64) == CIV_F64);
    CHECK(strcmp(civ_status_text(CIV_OK), "success") == 0);
    CHECK(strcmp(civ_status_text((civ_status)-99), "unknown status") == 0);
    CHECK(civ_cpu_select("none") == CIV_INVALID_ARGUMENT);
}

void
test_dtype(void)
{
    check_round_trips();
    check_rounding();
    check_names();
}
