/* SPDX-License-Identifier: Apache-2.0 */
/* Private services of the core: memory, threads, kernel choice. */
#ifndef CIV_INTERNAL_H
#define CIV_INTERNAL_H

#include "runtime/common.h"
#include "kernels/kernels.h"

/* ---- arena: all work memory of the core --------------------------------------- */

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

/* ---- parallel: the only user of OpenMP --------------------------------------- */

/* Work on one tile. `worker` is in [0, civ_workers()) and selects scratch memory. */
typedef civ_status (*civ_tile_fn)(void *job, int64_t tile, int worker);

/* Number of workers that civ_parallel_for will use for this much work. */
int civ_workers(const civ_exec *exec, int64_t n_tiles, int64_t tile_cost);

/*
 * Runs fn on tiles 0 .. n_tiles - 1, in rounds short enough to poll between them.
 * tile_cost: rough number of arithmetic operations in a tile. Tiles must not depend
 * on each other; the first failure by tile number is returned.
 */
civ_status civ_parallel_for(const civ_exec *exec, int64_t n_tiles, int64_t tile_cost,
                            civ_tile_fn fn, void *job);

/* Registers the fork handler; part of civ_init. */
civ_status civ_parallel_init(void);

/* INTERRUPTED when the caller asks to stop. Never call from inside a tile. */
civ_status civ_poll(const civ_exec *exec);

/* ---- memory of matrices ------------------------------------------------------ */

/* Whether the address ranges of two matrices meet. */
bool civ_overlap(const civ_mat *x, const civ_mat *y);

/* ALIAS unless out is x itself or lies apart from it. */
civ_status civ_check_output(const civ_mat *x, const civ_mat *out);

/* ---- losses ------------------------------------------------------------------ */

/* Whether token sets make sense for logits (n_rows, vocab). */
civ_status civ_check_sets(const civ_token_sets *sets, int64_t n_rows, int64_t vocab);

/* ---- cpu --------------------------------------------------------------------- */

const civ_kernels *civ_kernel_table(void);

#endif
