/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of every constraint at the solution of the working set's dual. */
#include "pcr/dual/scan.h"

#include "linalg/inner.h"
#include "linalg/products.h"
#include "pcr/dual/objective.h"
#include "pcr/dual/recover.h"

#include <math.h>
#include <string.h>

/* Where the outputs are now: <y_j, z_l> less its start, and <y_j, y_j>, in units of 1.
 */
static civ_status
move_outputs(civ_pcr_dual *s)
{
    civ_pcr_dual_basis *basis = &s->basis;
    civ_pcr_dual_work *work = &s->work;
    const civ_pcr_space *space = s->frame.space;
    int64_t n = s->set.n;
    civ_mat table = basis->table, over_set = s->response.solution;
    table.n_rows = over_set.n_cols = n;
    CIV_TRY(civ_product_nn(s->exec, &over_set, &table, &work->products));
    if (basis->n_free > 0) {
        civ_mat free = basis->free_table, over_free = s->response.solution;
        free.n_rows = over_free.n_cols = basis->n_free;
        over_free.data = civ_at(&s->response.solution, 0, n);
        CIV_TRY(civ_gemm_nn(1.0, &over_free, &free, 1.0, &work->products));
    }
    civ_mat with_points = work->products;
    with_points.data = civ_at(&work->products, 0, space->m);
    with_points.n_cols = space->p;
    return civ_product_nn(s->exec, &basis->weights, &with_points, &work->values);
}

/* squares = A A^T, for ||D_j||^2 = G_jJ A A^T G_Jj; moved_pair becomes A's. */
static civ_status
square_solution(civ_pcr_dual *s)
{
    civ_pcr_dual_response *response = &s->response;
    civ_pcr_dual_combine(s, &response->moved_pair, &response->target_pair,
                         &response->moved_pair);
    return civ_product_nt(s->exec, &response->moved_pair, &response->solution,
                          &s->work.squares);
}

static double
moved_square(const civ_pcr_dual *s, int64_t j)
{
    const civ_pcr_dual_basis *basis = &s->basis;
    const double *weight = civ_at(&basis->weights, j, 0);
    double with_output = 0.0, square = 0.0;
    for (int64_t r = 0; r < basis->n_rows; r++) {
        with_output += weight[r] * *civ_at(&s->work.products, r, j);
        square +=
            weight[r] * civ_dot(basis->n_rows, civ_at(&s->work.squares, r, 0), weight);
    }
    if (s->sigma > 0.0 && basis->place[j] >= 0) {
        square +=
            s->sigma * *civ_at(&s->response.matrix, basis->place[j], basis->place[j]);
    }
    return 2.0 * with_output + square;
}

/* ---- by vectors ------------------------------------------------------------------ */

/* values = squared distances of the moved outputs from the points. */
static civ_status
measure_distances(civ_pcr_dual *s)
{
    civ_pcr_dual_basis *basis = &s->basis;
    civ_pcr_dual_work *work = &s->work;
    const civ_pcr_space *space = s->frame.space;
    civ_mat factors = civ_f64(s->lean.factors.data, basis->n_rows, basis->n_rows);
    civ_mat pull = civ_f64(s->lean.pull.data, basis->n_rows, space->d);
    civ_mat solution = civ_f64(s->lean.solution.data, basis->n_rows, space->d);
    CIV_TRY(civ_pcr_dual_recover(s, &factors, &pull, &solution));
    for (int64_t j = 0; j < space->m; j++) {
        memcpy(civ_at(&s->lean.outputs, j, 0), civ_at(&space->outputs, j, 0),
               (size_t)space->d * sizeof(double));
        work->pointers[j] = civ_at(&s->lean.outputs, j, 0);
    }
    for (int64_t l = 0; l < space->n; l++) {
        work->pointers[space->m + l] = civ_at(&space->points, l, 0);
    }
    CIV_TRY(civ_gemm_nn(s->frame.gram_unit, &basis->weights, &solution, 1.0,
                        &s->lean.outputs));
    civ_inner_block block = {.x = work->pointers, .y = work->pointers + space->m};
    block.n_x = space->m;
    block.n_y = space->n;
    block.depth = space->d;
    block.distances = true;
    block.out = work->values;
    return civ_inner_products(s->exec, &block);
}

/* ---- both ------------------------------------------------------------------------ */

/* Offers a constraint if it is violated, by a length over the unit. */
static void
offer(civ_pcr_dual *s, int64_t j, int64_t l, double violation)
{
    if (violation > 0.0 && !s->frame.member[j * s->frame.space->p + l]) {
        civ_pcr_offer(&s->frame, (civ_pcr_candidate){violation, j, l});
    }
}

static double
scan_distances(civ_pcr_dual *s, int64_t j)
{
    const civ_pcr_space *space = s->frame.space;
    double largest = 0.0;
    civ_pcr_open_offers(&s->frame);
    for (int64_t c = space->first[j]; c < space->first[j + 1]; c++) {
        int64_t l = space->list[c];
        double distance = sqrt(*civ_at(&s->work.values, j, l));
        double violation = (*civ_at(&space->limit, j, l) - distance) / space->unit;
        largest = fmax(largest, violation);
        offer(s, j, l, violation);
    }
    return largest;
}

/* Offers what is violated; returns the largest violation, as a length over the unit. */
static double
scan_prompt(civ_pcr_dual *s, int64_t j)
{
    const civ_pcr_space *space = s->frame.space;
    double unit = space->unit, largest = 0.0;
    double square = space->output_square[j] + unit * unit * moved_square(s, j);
    const double *moved = civ_at(&s->work.values, j, 0);
    civ_pcr_open_offers(&s->frame);
    for (int64_t c = space->first[j]; c < space->first[j + 1]; c++) {
        int64_t l = space->list[c];
        double scale = civ_pcr_is_ball(space, l) ? unit * unit : unit;
        double inner = *civ_at(&space->cross, j, l) + scale * moved[l];
        double violation = civ_pcr_violation(space, j, l, inner, square) / unit;
        largest = fmax(largest, violation);
        offer(s, j, l, violation);
    }
    return largest;
}

civ_status
civ_pcr_dual_scan(civ_pcr_dual *s, double *largest)
{
    CIV_TRY(s->lean.on ? measure_distances(s) : move_outputs(s));
    CIV_TRY(square_solution(s));
    civ_pcr_clear_offers(&s->frame);
    *largest = 0.0;
    for (int64_t j = 0; j < s->frame.space->m; j++) {
        double violation = s->lean.on ? scan_distances(s, j) : scan_prompt(s, j);
        *largest = fmax(*largest, violation);
    }
    return CIV_OK;
}
