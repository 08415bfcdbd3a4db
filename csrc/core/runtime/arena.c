/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layout of an open arena; every block starts on a 64-byte boundary:
 *
 *     | block 0 | gap | block 1 | gap | ...
 *
 * The gap is there in sanitizer builds only, where it is poisoned so that running
 * over the end of a block is caught although the next block is valid memory.
 */
#include "runtime/arena.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define GAP 64
#define POISON(address, size) __asan_poison_memory_region(address, size)
#define UNPOISON(address, size) __asan_unpoison_memory_region(address, size)
#else
#define GAP 0
#define POISON(address, size) ((void)(address), (void)(size))
#define UNPOISON(address, size) ((void)(address), (void)(size))
#endif

#define ALIGNMENT 64

void *
civ_arena_take(civ_arena *arena, int64_t count, size_t item_size)
{
    size_t bytes, padded, end;
    if (count < 0 || __builtin_mul_overflow((size_t)count, item_size, &bytes) ||
        __builtin_add_overflow(bytes, ALIGNMENT - 1 + GAP, &padded) ||
        __builtin_add_overflow(arena->used, padded / ALIGNMENT * ALIGNMENT, &end)) {
        arena->overflow = true;
        return NULL;
    }
    size_t start = arena->used;
    arena->used = end;
    if (arena->base == NULL) {
        return NULL;
    }
    assert(end <= arena->capacity);
    UNPOISON(arena->base + start, bytes);
    return arena->base + start;
}

civ_status
civ_arena_open(civ_arena *arena)
{
    bool overflow = arena->overflow;
    overflow |= __builtin_add_overflow(arena->used, ALIGNMENT, &arena->size);
    CIV_FAIL_IF(overflow, CIV_NO_MEMORY);
    arena->block = civ_block_take(arena->size);
    CIV_FAIL_IF(arena->block == NULL, CIV_NO_MEMORY);
    uintptr_t address = (uintptr_t)arena->block;
    size_t shift = (ALIGNMENT - address % ALIGNMENT) % ALIGNMENT;
    arena->base = (unsigned char *)arena->block + shift;
    arena->capacity = arena->used;
    arena->used = 0;
    POISON(arena->base, arena->capacity);
    return CIV_OK;
}

void
civ_arena_close(civ_arena *arena)
{
    if (arena->base != NULL) {
        UNPOISON(arena->base, arena->capacity);
    }
    if (arena->block != NULL) {
        civ_block_give(arena->block, arena->size);
    }
    *arena = (civ_arena){0};
}

civ_status
civ_run_in_arena(civ_carve_fn carve, civ_run_fn run, void *job)
{
    civ_arena arena = {0};
    carve(&arena, job);
    CIV_TRY(civ_arena_open(&arena));
    carve(&arena, job);
    civ_status status = run(job);
    civ_arena_close(&arena);
    return status;
}
