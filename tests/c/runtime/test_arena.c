/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/arena.h"
#include "runtime/parallel.h"
#include "minunit.h"

#include <string.h>

static void
carve(civ_arena *arena, char *blocks[3])
{
    static const int64_t counts[3] = {1, 100, 7};
    for (int i = 0; i < 3; i++) {
        blocks[i] = civ_arena_take(arena, counts[i], 8);
    }
}

static void
check_blocks(void)
{
    civ_arena arena = {0};
    char *blocks[3];
    carve(&arena, blocks);
    CHECK(blocks[0] == NULL && blocks[2] == NULL);
    size_t measured = arena.used;
    CHECK(civ_arena_open(&arena) == CIV_OK);
    carve(&arena, blocks);
    CHECK(arena.used == measured && arena.capacity == measured);
    for (int i = 0; i < 3; i++) {
        CHECK((uintptr_t)blocks[i] % 64 == 0);
    }
    CHECK(blocks[1] - blocks[0] >= 8 && blocks[2] - blocks[1] >= 800);
    memset(blocks[1], 1, 800);
    civ_arena_close(&arena);
    CHECK(arena.base == NULL);
    civ_arena_close(&arena);
}

static void
check_failures(void)
{
    civ_arena arena = {0};
    civ_arena_take(&arena, INT64_MAX, 1024);
    CHECK(civ_arena_open(&arena) == CIV_NO_MEMORY);
    arena = (civ_arena){0};
    civ_arena_take(&arena, -1, 8);
    CHECK(civ_arena_open(&arena) == CIV_NO_MEMORY);
    arena = (civ_arena){0};
    civ_arena_take(&arena, 10, 8);
    allocations_until_failure(0);
    CHECK(civ_arena_open(&arena) == CIV_NO_MEMORY);
    allocations_until_failure(-1);
    civ_arena_close(&arena);
    CHECK(civ_check_table(3, 4) == CIV_OK);
    CHECK(civ_check_table(INT64_C(1) << 40, INT64_C(1) << 40) == CIV_NO_MEMORY);
    CHECK(civ_check_table(INT64_C(1) << 31, INT64_C(1) << 31) == CIV_NO_MEMORY);
    CHECK(civ_workers(NULL, INT64_MAX, INT64_MAX) >= 1);
}

void
test_arena(void)
{
    check_blocks();
    check_failures();
}
