/* SPDX-License-Identifier: Apache-2.0 */
/* The arena: all work memory of the core. */
#ifndef CIV_ARENA_H
#define CIV_ARENA_H

#include "runtime/common.h"

/*
 * One block from which a function takes all its work arrays. The same carving code
 * runs twice: on a zeroed arena it measures, after civ_arena_open it hands out
 * memory. Blocks are 64-byte aligned; sanitizer builds keep red zones between them.
 */
typedef struct civ_arena {
    unsigned char *base; /* NULL while measuring */
    void *block;         /* what civ_block_take returned */
    size_t size;         /* of block */
    size_t used;
    size_t capacity;
    bool overflow; /* a size did not fit size_t */
} civ_arena;

/* count items of item_size bytes each; NULL while measuring. Not initialised. */
void *civ_arena_take(civ_arena *arena, int64_t count, size_t item_size);
civ_status civ_arena_open(civ_arena *arena);
void civ_arena_close(civ_arena *arena);

/* The usual life of an arena: measures what `carve` takes for the job, opens, carves,
 * runs the job, and gives all memory back. */
typedef void (*civ_carve_fn)(civ_arena *arena, void *job);
typedef civ_status (*civ_run_fn)(void *job);
civ_status civ_run_in_arena(civ_carve_fn carve, civ_run_fn run, void *job);

#endif
