/* SPDX-License-Identifier: Apache-2.0 */
#include "pcr/common/working_set.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void
civ_pcr_working_set_carve(civ_arena *arena, int64_t capacity, civ_pcr_working_set *set)
{
    set->capacity = capacity;
    set->prompt = civ_arena_take(arena, capacity, sizeof(int64_t));
    set->point = civ_arena_take(arena, capacity, sizeof(int64_t));
    set->bound = civ_arena_take(arena, capacity, sizeof(double));
    set->mu = civ_arena_take(arena, capacity, sizeof(double));
}

void
civ_pcr_working_set_copy(const civ_pcr_working_set *from, civ_pcr_working_set *to)
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
civ_pcr_frame_carve(civ_arena *arena, const civ_pcr_space *space, int64_t most,
                    civ_pcr_frame *frame)
{
    frame->space = space;
    frame->member = civ_arena_take(arena, space->m * space->p, sizeof(bool));
    frame->per_prompt = most;
    frame->candidates =
        civ_arena_take(arena, space->m * frame->per_prompt, sizeof(civ_pcr_candidate));
}

void
civ_pcr_frame_start(civ_pcr_frame *frame)
{
    const civ_pcr_space *space = frame->space;
    memset(frame->member, 0, (size_t)(space->m * space->p) * sizeof(bool));
    civ_pcr_clear_offers(frame);
    frame->gram_unit = 0.0;
    for (int64_t j = 0; j < space->m; j++) {
        frame->gram_unit = fmax(frame->gram_unit, *civ_at(&space->gram, j, j));
    }
}

void
civ_pcr_clear_offers(civ_pcr_frame *frame)
{
    frame->n_candidates = 0;
    frame->n_offered = 0;
}

void
civ_pcr_open_offers(civ_pcr_frame *frame)
{
    frame->n_offered = 0;
}

/* Keeps the prompt's candidates sorted, and no more of them than it may offer. */
void
civ_pcr_offer(civ_pcr_frame *frame, civ_pcr_candidate candidate)
{
    civ_pcr_candidate *offered =
        frame->candidates + frame->n_candidates - frame->n_offered;
    int64_t place = frame->n_offered;
    while (place > 0 && offered[place - 1].violation < candidate.violation) {
        place--;
    }
    if (place == frame->per_prompt) {
        return;
    }
    if (frame->n_offered < frame->per_prompt) {
        frame->n_offered++;
        frame->n_candidates++;
    }
    for (int64_t i = frame->n_offered - 1; i > place; i--) {
        offered[i] = offered[i - 1];
    }
    offered[place] = candidate;
}

void
civ_pcr_offer_initial(civ_pcr_frame *frame)
{
    const civ_pcr_space *space = frame->space;
    civ_pcr_clear_offers(frame);
    for (int64_t j = 0; j < space->m; j++) {
        civ_pcr_open_offers(frame);
        for (int64_t c = space->first[j]; c < space->first[j + 1]; c++) {
            int64_t l = space->list[c];
            double violation = civ_pcr_violation(
                space, j, l, *civ_at(&space->cross, j, l), space->output_square[j]);
            if (violation > 0.0) {
                civ_pcr_offer(frame,
                              (civ_pcr_candidate){violation / space->unit, j, l});
            }
        }
    }
}

static int
by_violation(const void *left, const void *right)
{
    const civ_pcr_candidate *a = left, *b = right;
    if (a->violation != b->violation) {
        return a->violation > b->violation ? -1 : 1;
    }
    if (a->prompt != b->prompt) {
        return a->prompt < b->prompt ? -1 : 1;
    }
    return a->point < b->point ? -1 : a->point > b->point;
}

int64_t
civ_pcr_rank_candidates(civ_pcr_frame *frame, double goal, int64_t most)
{
    if (frame->n_candidates > 1) {
        qsort(frame->candidates, (size_t)frame->n_candidates, sizeof(civ_pcr_candidate),
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
bound_of(const civ_pcr_space *space, int64_t j, int64_t l)
{
    double limit = *civ_at(&space->limit, j, l) / space->unit;
    double cross = *civ_at(&space->cross, j, l);
    if (!civ_pcr_is_ball(space, l)) {
        return 2.0 * (cross / space->unit - limit);
    }
    double square = space->output_square[j] - 2.0 * cross + space->point_square[l];
    return limit * limit - square / (space->unit * space->unit);
}

void
civ_pcr_admit(civ_pcr_frame *frame, int64_t count, civ_pcr_working_set *set)
{
    const civ_pcr_space *space = frame->space;
    assert(set->n + count <= set->capacity);
    for (int64_t c = 0; c < count; c++) {
        const civ_pcr_candidate *candidate = &frame->candidates[c];
        int64_t w = set->n++;
        set->prompt[w] = candidate->prompt;
        set->point[w] = candidate->point;
        set->bound[w] = bound_of(space, candidate->prompt, candidate->point);
        set->mu[w] = 0.0;
        frame->member[candidate->prompt * space->p + candidate->point] = true;
    }
}
