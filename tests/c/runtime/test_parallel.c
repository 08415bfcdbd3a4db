/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/parallel.h"
#include "minunit.h"

#include <string.h>

enum { TILES = 1000 };

typedef struct job {
    int visits[TILES];
    int64_t fail_from; /* tiles from here on fail */
    int workers;
} job;

static civ_status
visit(void *arg, int64_t tile, int worker)
{
    job *self = arg;
    self->visits[tile]++;
    if (worker < 0 || worker >= self->workers) {
        return CIV_INTERNAL;
    }
    return tile < self->fail_from ? CIV_OK : CIV_NONFINITE;
}

static int
count_polls(void *arg)
{
    int *left = arg;
    return (*left)-- <= 0;
}

static void
check_each_tile_once(int n_threads, int64_t cost)
{
    static job self;
    civ_exec exec = {.n_threads = n_threads};
    memset(&self, 0, sizeof self);
    self.fail_from = TILES;
    self.workers = civ_workers(&exec, TILES, cost);
    CHECK(civ_parallel_for(&exec, TILES, cost, visit, &self) == CIV_OK);
    int once = 0;
    for (int i = 0; i < TILES; i++) {
        once += self.visits[i] == 1;
    }
    CHECK(once == TILES);
    CHECK(self.workers <= civ_threads(&exec));
}

static void
check_failure_and_interrupt(void)
{
    static job self;
    memset(&self, 0, sizeof self);
    self.fail_from = 500;
    self.workers = civ_workers(NULL, TILES, INT64_C(1) << 20);
    CHECK(civ_parallel_for(NULL, TILES, INT64_C(1) << 20, visit, &self) ==
          CIV_NONFINITE);
    self.fail_from = TILES;
    int left = 2;
    civ_exec exec = {.poll = count_polls, .poll_arg = &left};
    CHECK(civ_parallel_for(&exec, TILES, INT64_C(1) << 24, visit, &self) ==
          CIV_INTERRUPTED);
    CHECK(self.visits[TILES - 1] == 0);
    CHECK(civ_poll(NULL) == CIV_OK);
}

void
test_parallel(void)
{
    check_each_tile_once(1, 1);
    check_each_tile_once(0, 1);
    check_each_tile_once(0, INT64_C(1) << 20);
    check_each_tile_once(3, INT64_C(1) << 30);
    check_failure_and_interrupt();
    CHECK(civ_workers(NULL, 0, 1) == 1);
}
