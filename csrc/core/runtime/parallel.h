/* SPDX-License-Identifier: Apache-2.0 */
/* Threads: the only user of OpenMP. */
#ifndef CIV_PARALLEL_H
#define CIV_PARALLEL_H

#include "runtime/common.h"

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

/*
 * Whether civ_parallel_for will take so little time, some tenths of a second, that
 * nobody who wants to stop it has to be heard.
 */
bool civ_is_brief(const civ_exec *exec, int64_t n_tiles, int64_t tile_cost);

/* INTERRUPTED when the caller asks to stop. Never call from inside a tile. */
civ_status civ_poll(const civ_exec *exec);

#endif
