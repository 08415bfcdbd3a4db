/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The heap: blocks kept between calls. What a solver needs is a few megabytes, which
 * the system takes back when they are freed and hands out again page by page, each with
 * a fault; a call of some milliseconds notices. Sizes are powers of two and a cache
 * line, at whose beginning data may then lie, so that any block of a size serves any
 * request for it; small ones are left to malloc, large ones
 * are not worth holding. Several blocks a size, because the arenas and arrays of a call
 * overlap.
 *
 * Sanitizer builds keep nothing: there, every use after the end must be seen.
 */
#include "runtime/common.h"

#include <stdatomic.h>
#include <stdlib.h>

#define SMALLEST_BITS 16 /* 64 KiB */
#define LARGEST_BITS 23  /* 8 MiB */
#define EACH 3
#define SPARE 64

#ifdef __SANITIZE_ADDRESS__
#define KEEP false
#else
#define KEEP true
#endif

static _Atomic(void *) kept[LARGEST_BITS - SMALLEST_BITS + 1][EACH];

/* Bytes of the blocks in a row of `kept`. */
static size_t
block_size(int row)
{
    return ((size_t)1 << (SMALLEST_BITS + row)) + SPARE;
}

/* Row of `kept` for a size, or -1. */
static int
size_class(size_t size)
{
    if (!KEEP || size <= (size_t)1 << (SMALLEST_BITS - 1) ||
        size > block_size(LARGEST_BITS - SMALLEST_BITS)) {
        return -1;
    }
    int row = 0;
    while (size > block_size(row)) {
        row++;
    }
    return row;
}

void *
civ_block_take(size_t size)
{
    int row = size_class(size);
    if (row < 0) {
        return malloc(size);
    }
    for (int i = 0; i < EACH; i++) {
        void *block = atomic_exchange(&kept[row][i], NULL);
        if (block != NULL) {
            return block;
        }
    }
    return malloc(block_size(row));
}

void
civ_block_give(void *block, size_t size)
{
    int row = size_class(size);
    for (int i = 0; row >= 0 && i < EACH; i++) {
        void *empty = NULL;
        if (atomic_compare_exchange_strong(&kept[row][i], &empty, block)) {
            return;
        }
    }
    free(block);
}

void
civ_block_drop_kept(void)
{
    for (int row = 0; row <= LARGEST_BITS - SMALLEST_BITS; row++) {
        for (int i = 0; i < EACH; i++) {
            free(atomic_exchange(&kept[row][i], NULL));
        }
    }
}
