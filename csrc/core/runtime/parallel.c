/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads. The policy: never change a setting that other libraries of the process
 * see, use no more threads than the work is worth, and run serially in a forked
 * child, where libgomp would hang on the pool that did not survive the fork.
 */
#include "runtime/parallel.h"
#include "runtime/forks.h"

#include <stdatomic.h>

#ifdef _OPENMP
#include <omp.h>
#endif

/* Operations worth waking one more thread for. */
#define GRAIN (INT64_C(1) << 16)
/* Operations a thread may do between two polls: 3 to 10 ms. */
#define ROUND (INT64_C(1) << 25)
/* Operations to take on at a time, so that small tiles are not handed out singly. */
#define CHUNK (INT64_C(1) << 14)
/* Rounds of a thread that pass for brief. */
#define BRIEF 32

int
civ_threads(const civ_exec *exec)
{
    int available = 1;
#ifdef _OPENMP
    if (!civ_is_forked() && !omp_in_parallel()) {
        available = omp_get_max_threads();
    }
#endif
    bool limited = exec != NULL && exec->n_threads > 0;
    return limited ? (int)civ_min(exec->n_threads, available) : available;
}

int
civ_workers(const civ_exec *exec, int64_t n_tiles, int64_t tile_cost)
{
    int64_t worth = n_tiles * civ_max(tile_cost, 1) / GRAIN;
    int64_t most = civ_min(civ_threads(exec), n_tiles);
    return (int)civ_max(1, civ_min(most, worth));
}

bool
civ_is_brief(const civ_exec *exec, int64_t n_tiles, int64_t tile_cost)
{
    return n_tiles * tile_cost <= BRIEF * ROUND * civ_workers(exec, n_tiles, tile_cost);
}

civ_status
civ_poll(const civ_exec *exec)
{
    bool stop = exec != NULL && exec->poll != NULL && exec->poll(exec->poll_arg) != 0;
    return stop ? CIV_INTERRUPTED : CIV_OK;
}

/* Tiles [begin, end) of a job, handed out in order, `chunk` at a time. */
typedef struct tile_round {
    civ_tile_fn fn;
    void *job;
    int64_t end;
    int64_t chunk;
    atomic_int_fast64_t next;
} tile_round;

/* Takes chunks until none is left or a tile fails; that tile is stored in *failed. */
static civ_status
work(tile_round *self, int worker, int64_t *failed)
{
    for (;;) {
        int64_t first = atomic_fetch_add(&self->next, self->chunk);
        int64_t last = civ_min(first + self->chunk, self->end);
        if (first >= self->end) {
            return CIV_OK;
        }
        for (int64_t tile = first; tile < last; tile++) {
            civ_status status = self->fn(self->job, tile, worker);
            if (status != CIV_OK) {
                *failed = tile;
                return status;
            }
        }
    }
}

/*
 * Every tile before one that fails has been handed out earlier, and so is done or has
 * failed too: the first failure does not depend on who did what. A single worker stays
 * clear of OpenMP, whose lock a forked child may have inherited locked.
 */
static civ_status
run_round(tile_round *self, int workers)
{
    civ_status result = CIV_OK;
    int64_t first_failed = INT64_MAX;
    if (workers == 1) {
        return work(self, 0, &first_failed);
    }
#ifdef _OPENMP
#pragma omp parallel for schedule(static) num_threads(workers)
#endif
    for (int worker = 0; worker < workers; worker++) {
        int64_t failed = INT64_MAX;
        civ_status status = work(self, worker, &failed);
#ifdef _OPENMP
#pragma omp critical(civ_round)
#endif
        {
            result = failed < first_failed ? status : result;
            first_failed = civ_min(failed, first_failed);
        }
    }
    return result;
}

civ_status
civ_parallel_for(const civ_exec *exec, int64_t n_tiles, int64_t tile_cost,
                 civ_tile_fn fn, void *job)
{
    int workers = civ_workers(exec, n_tiles, tile_cost);
    int64_t share = civ_max(1, ROUND / civ_max(tile_cost, 1));
    int64_t step = share * workers;
    int64_t chunk = civ_max(1, CHUNK / civ_max(tile_cost, 1));
    for (int64_t begin = 0; begin < n_tiles; begin += step) {
        if (begin > 0) {
            CIV_TRY(civ_poll(exec));
        }
        int64_t end = civ_min(begin + step, n_tiles);
        tile_round round = {fn, job, end, chunk, begin};
        CIV_TRY(run_round(&round, workers));
    }
    return CIV_OK;
}
