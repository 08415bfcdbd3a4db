/* SPDX-License-Identifier: Apache-2.0 */
#include "pcr_active.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void
pcr_active_carve(civ_arena *arena, int64_t capacity, pcr_active *active)
{
    active->capacity = capacity;
    active->prompt = civ_arena_take(arena, capacity, sizeof(int64_t));
    active->point = civ_arena_take(arena, capacity, sizeof(int64_t));
    active->bound = civ_arena_take(arena, capacity, sizeof(double));
    active->mu = civ_arena_take(arena, capacity, sizeof(double));
}

void
pcr_active_copy(const pcr_active *from, pcr_active *to)
{
    size_t n = (size_t)from->n;
    to->n = from->n;
    if (n > 0) {
        memcpy(to->prompt, from->prompt, n * sizeof(int64_t));
        memcpy(to->point, from->point, n * sizeof(int64_t));
        memcpy(to->bound, from->bound, n * sizeof(double));
        memcpy(to->mu, from->mu, n * sizeof(double));
    }
}

void
pcr_frame_carve(civ_arena *arena, const pcr_space *space, pcr_frame *frame)
{
    frame->space = space;
    frame->member = civ_arena_take(arena, space->m * space->p, sizeof(bool));
    frame->candidates = civ_arena_take(arena, space->m, sizeof(pcr_candidate));
}

void
pcr_frame_start(pcr_frame *frame)
{
    const pcr_space *space = frame->space;
    memset(frame->member, 0, (size_t)(space->m * space->p) * sizeof(bool));
    frame->n_candidates = 0;
    frame->gram_unit = 0.0;
    for (int64_t j = 0; j < space->m; j++) {
        frame->gram_unit = fmax(frame->gram_unit, *civ_at(&space->gram, j, j));
    }
}

void
pcr_offer(pcr_frame *frame, int64_t prompt, int64_t point, double violation)
{
    frame->candidates[frame->n_candidates++] =
        (pcr_candidate){violation, prompt, point};
}

void
pcr_offer_initial(pcr_frame *frame)
{
    const pcr_space *space = frame->space;
    frame->n_candidates = 0;
    for (int64_t j = 0; j < space->m; j++) {
        pcr_candidate worst = {.violation = 0.0};
        for (int64_t c = space->first[j]; c < space->first[j + 1]; c++) {
            int64_t l = space->list[c];
            double violation = pcr_violation(space, j, l, *civ_at(&space->cross, j, l),
                                             space->output_square[j]);
            if (violation > worst.violation) {
                worst = (pcr_candidate){violation, j, l};
            }
        }
        if (worst.violation > 0.0) {
            pcr_offer(frame, j, worst.point, worst.violation / space->unit);
        }
    }
}

static int
by_violation(const void *left, const void *right)
{
    const pcr_candidate *a = left, *b = right;
    if (a->violation != b->violation) {
        return a->violation > b->violation ? -1 : 1;
    }
    return a->prompt < b->prompt ? -1 : a->prompt > b->prompt;
}

int64_t
pcr_rank_candidates(pcr_frame *frame, double goal, int64_t most)
{
    if (frame->n_candidates > 1) {
        qsort(frame->candidates, (size_t)frame->n_candidates, sizeof(pcr_candidate),
              by_violation);
    }
    int64_t count = 0;
    while (count < civ_min(frame->n_candidates, most) &&
           frame->candidates[count].violation > goal) {
        count++;
    }
    return count;
}

/* b in the units of the dual. */
static double
bound_of(const pcr_space *space, int64_t j, int64_t l)
{
    double limit = *civ_at(&space->limit, j, l) / space->unit;
    double cross = *civ_at(&space->cross, j, l);
    if (!pcr_is_ball(space, l)) {
        return 2.0 * (cross / space->unit - limit);
    }
    double square = space->output_square[j] - 2.0 * cross + space->point_square[l];
    return limit * limit - square / (space->unit * space->unit);
}

void
pcr_admit(pcr_frame *frame, int64_t count, pcr_active *active)
{
    const pcr_space *space = frame->space;
    assert(active->n + count <= active->capacity);
    for (int64_t c = 0; c < count; c++) {
        const pcr_candidate *candidate = &frame->candidates[c];
        int64_t w = active->n++;
        active->prompt[w] = candidate->prompt;
        active->point[w] = candidate->point;
        active->bound[w] = bound_of(space, candidate->prompt, candidate->point);
        active->mu[w] = 0.0;
        frame->member[candidate->prompt * space->p + candidate->point] = true;
    }
}
