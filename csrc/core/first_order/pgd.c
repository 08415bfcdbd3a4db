/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Projected gradient for TSR and ARR (arXiv 2510.03567), in coefficients: steepest
 * descent in the norm of the change is A <- A - t grad, because delta = A^T K and the
 * gradient with respect to delta, measured in that norm, is grad^T K. No system is
 * solved, so G may be singular.
 */
#include "first_order/pgd.h"

#include "kernels/dispatch.h"
#include "runtime/parallel.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Rough operations for one element of a row. */
#define COST 8
/* Relative error of an inner product of two points. */
#define NOISE (16.0 * DBL_EPSILON)

typedef struct pgd_job {
    const civ_exec *exec;
    const civ_mat *gram;
    const civ_mat *given_gradient; /* of any storage type */
    const civ_mat *given_response; /* or NULL */
    const civ_pgd_options *options;
    civ_pgd *self;
    civ_pgd_info *info;
    civ_mat gradient; /* g */
    civ_mat response; /* h = G g */
    double *sums;     /* (m, CIV_PGD_SUMS) */
    double *squares;  /* <A, D> of the rows of y' (m) */
    civ_pgd_move move;
} pgd_job;

civ_pgd_options
civ_pgd_options_default(void)
{
    return (civ_pgd_options){.struct_size = sizeof(civ_pgd_options), .length = 0.5};
}

static civ_status
sum_row(void *arg, int64_t j, int worker)
{
    (void)worker;
    const pgd_job *job = arg;
    const civ_pgd *self = job->self;
    civ_dot_fn dot = civ_kernel_table()->dot[CIV_F64];
    int64_t d = job->gradient.n_cols;
    const double *g = civ_at(&job->gradient, j, 0);
    const double *here = civ_at(&self->here.displacements, j, 0);
    double *sums = job->sums + j * CIV_PGD_SUMS;
    memset(sums, 0, CIV_PGD_SUMS * sizeof(double));
    sums[CIV_GRAD_GRAD] = dot(g, civ_at(&job->response, j, 0), d);
    sums[CIV_GRAD_HERE] = dot(g, here, d);
    sums[CIV_HERE_HERE] = dot(civ_at(&self->here.coefficients, j, 0), here, d);
    if (self->momentum) {
        const double *trail = civ_at(&self->trail.coefficients, j, 0);
        const double *moved = civ_at(&self->trail.displacements, j, 0);
        sums[CIV_GRAD_TRAIL] = dot(g, moved, d);
        sums[CIV_HERE_TRAIL] = dot(trail, here, d);
        sums[CIV_TRAIL_TRAIL] = dot(trail, moved, d);
    }
    return CIV_OK;
}

static civ_status
move_point(void *arg, int64_t j, int worker)
{
    (void)worker;
    const pgd_job *job = arg;
    const civ_pgd *self = job->self;
    const civ_kernels *kernels = civ_kernel_table();
    const civ_advance *move = &job->move.advance;
    int64_t d = job->gradient.n_cols;
    double *a = civ_at(&self->here.coefficients, j, 0);
    double *b = civ_at(&self->here.displacements, j, 0);
    double *x = NULL, *y = NULL;
    if (self->momentum) {
        x = civ_at(&self->trail.coefficients, j, 0);
        y = civ_at(&self->trail.displacements, j, 0);
    }
    kernels->advance[CIV_F64](move, civ_at(&job->gradient, j, 0), d, a, x);
    kernels->advance[CIV_F64](move, civ_at(&job->response, j, 0), d, b, y);
    job->squares[j] = kernels->dot[CIV_F64](a, b, d);
    return CIV_OK;
}

double
civ_pgd_shrinkage(double square, double radius)
{
    double norm = sqrt(fmax(square, 0.0));
    return norm > radius ? radius / norm : 1.0;
}

civ_pgd_move
civ_pgd_plain_move(const double *sum, double t, double radius)
{
    double square =
        sum[CIV_HERE_HERE] - 2.0 * t * sum[CIV_GRAD_HERE] + t * t * sum[CIV_GRAD_GRAD];
    return (civ_pgd_move){{civ_pgd_shrinkage(square, radius), t, 1.0, 0.0}, 1.0};
}

/* Inner products of x' with y and x, and its squared norm. */
typedef struct stepped_sums {
    double here;
    double trail;
    double square;
} stepped_sums;

static stepped_sums
sums_of_stepped(const double *sum, const civ_pgd_move *move)
{
    double s = move->advance.scale, t = move->advance.step;
    double gradient = sum[CIV_GRAD_HERE] - t * sum[CIV_GRAD_GRAD];   /* <g, x'> / s */
    double here = s * (sum[CIV_HERE_HERE] - t * sum[CIV_GRAD_HERE]); /* <y, x'> */
    return (stepped_sums){
        .here = here,
        .trail = s * (sum[CIV_HERE_TRAIL] - t * sum[CIV_GRAD_TRAIL]),
        .square = s * (here - s * t * gradient),
    };
}

/* <y - x', x' - x> from the inner products; *doubtful: it may be their rounding. */
static double
turn_of_sums(const double *sum, const civ_pgd_move *move, double noise, bool *doubtful)
{
    stepped_sums x = sums_of_stepped(sum, move);
    double turn = x.here - sum[CIV_HERE_TRAIL] - x.square + x.trail;
    double away = move->advance.scale * move->advance.step;
    double terms =
        sum[CIV_HERE_HERE] + sum[CIV_TRAIL_TRAIL] + away * away * sum[CIV_GRAD_GRAD];
    *doubtful = fabs(turn) <= noise * terms;
    return turn;
}

typedef struct turn_job {
    const civ_pgd_vectors *vectors;
    const civ_advance *move;
    double *sums;
} turn_job;

static civ_status
turn_row(void *arg, int64_t j, int worker)
{
    (void)worker;
    const turn_job *job = arg;
    const civ_pgd_vectors *v = job->vectors;
    civ_turn row = {
        .here = civ_row(&v->here->coefficients, j),
        .direction = civ_row(v->gradient, j),
        .here_moved = civ_row(&v->here->displacements, j),
        .direction_moved = civ_row(v->response, j),
        .trail_moved = civ_row(&v->trail->displacements, j),
    };
    civ_turn_fn turn = civ_kernel_table()->turn[v->gradient->dtype];
    job->sums[j] = turn(job->move, &row, v->gradient->n_cols);
    return CIV_OK;
}

/* The same from differences of the vectors. */
static civ_status
turn_of_vectors(const civ_exec *exec, const civ_pgd_vectors *vectors,
                const civ_pgd_move *move, double *turn)
{
    turn_job job = {vectors, &move->advance, vectors->row_sums};
    int64_t m = vectors->gradient->n_rows;
    CIV_TRY(
        civ_parallel_for(exec, m, COST * vectors->gradient->n_cols, turn_row, &job));
    *turn = 0.0;
    for (int64_t j = 0; j < m; j++) {
        *turn += vectors->row_sums[j];
    }
    return CIV_OK;
}

static void
go_on(const double *sum, double age, double radius, civ_pgd_move *move)
{
    stepped_sums x = sums_of_stepped(sum, move);
    move->age = 0.5 * (1.0 + sqrt(1.0 + 4.0 * age * age));
    double b = (age - 1.0) / move->age;
    double square = (1.0 + b) * (1.0 + b) * x.square - 2.0 * b * (1.0 + b) * x.trail +
                    b * b * sum[CIV_TRAIL_TRAIL];
    double shrink = civ_pgd_shrinkage(square, radius);
    move->advance.ahead = shrink * (1.0 + b);
    move->advance.behind = shrink * b;
}

civ_status
civ_pgd_add_momentum(const civ_exec *exec, const double *sum, double noise,
                     const civ_pgd_vectors *vectors, double age, double radius,
                     civ_pgd_move *move)
{
    bool doubtful;
    double turn = turn_of_sums(sum, move, noise, &doubtful);
    if (doubtful && vectors != NULL) {
        CIV_TRY(turn_of_vectors(exec, vectors, move, &turn));
    }
    if (turn <= 0.0) {
        go_on(sum, age, radius, move);
    }
    return CIV_OK;
}

/* Decides the step from the inner products, before anything is written. */
static civ_status
plan(pgd_job *job)
{
    const civ_pgd_options *options = job->options;
    civ_pgd_move *move = &job->move;
    double sum[CIV_PGD_SUMS] = {0}, radius = options->radius;
    for (int64_t j = 0; j < job->gradient.n_rows; j++) {
        for (int i = 0; i < CIV_PGD_SUMS; i++) {
            sum[i] += job->sums[j * CIV_PGD_SUMS + i];
        }
    }
    CIV_FAIL_IF(!isfinite(sum[CIV_GRAD_GRAD]), CIV_NONFINITE);
    double slope = sqrt(fmax(sum[CIV_GRAD_GRAD], 0.0));
    double length = slope > 0.0 ? options->length * radius / slope : 0.0;
    double t = options->step > 0.0 ? options->step : length;
    *move = civ_pgd_plain_move(sum, t, radius);
    if (job->self->momentum) {
        const civ_pgd *self = job->self;
        civ_pgd_vectors vectors = {&job->gradient, &job->response, &self->here,
                                   &self->trail, job->squares};
        CIV_TRY(civ_pgd_add_momentum(job->exec, sum, NOISE, &vectors, self->age, radius,
                                     move));
    }
    *job->info = (civ_pgd_info){.step = t,
                                .gradient_norm = slope,
                                .gap = sum[CIV_GRAD_HERE] + radius * slope,
                                .restarted = job->self->momentum && move->age == 1.0};
    return CIV_OK;
}

/* Whether x is of float64 and has the shape of the gradient. */
static civ_status
check_beside(const civ_mat *x, const civ_mat *gradient)
{
    CIV_FAIL_IF(x->dtype != CIV_F64, CIV_DTYPE);
    CIV_FAIL_IF(x->n_rows != gradient->n_rows, CIV_SHAPE);
    CIV_FAIL_IF(x->n_cols != gradient->n_cols, CIV_SHAPE);
    return CIV_OK;
}

static civ_status
check_point(const civ_pgd_point *point, const civ_mat *gradient)
{
    CIV_TRY(check_beside(&point->coefficients, gradient));
    return check_beside(&point->displacements, gradient);
}

static civ_status
check(const civ_mat *gram, const civ_mat *gradient, const civ_mat *response,
      const civ_pgd_options *options, const civ_pgd *self)
{
    CIV_FAIL_IF(options->struct_size != sizeof *options, CIV_INVALID_ARGUMENT);
    CIV_FAIL_IF(!(options->radius >= 0.0 && options->radius <= 0x1p1000),
                CIV_INVALID_ARGUMENT);
    CIV_FAIL_IF(!(options->step > 0.0 || options->length > 0.0), CIV_INVALID_ARGUMENT);
    CIV_FAIL_IF(gram->dtype != CIV_F64, CIV_DTYPE);
    CIV_FAIL_IF(gram->n_rows != gram->n_cols, CIV_SHAPE);
    CIV_FAIL_IF(gram->n_rows != gradient->n_rows, CIV_SHAPE);
    if (response != NULL) {
        CIV_TRY(check_beside(response, gradient));
    }
    CIV_FAIL_IF(self->momentum && !(self->age >= 1.0), CIV_INVALID_ARGUMENT);
    CIV_TRY(check_point(&self->here, gradient));
    return self->momentum ? check_point(&self->trail, gradient) : CIV_OK;
}

static civ_status
run(void *arg)
{
    pgd_job *job = arg;
    const civ_exec *exec = job->exec;
    int64_t m = job->gradient.n_rows, cost = COST * job->gradient.n_cols;
    CIV_TRY(civ_poll(exec));
    CIV_TRY(civ_convert(exec, job->given_gradient, &job->gradient));
    if (job->given_response == NULL) {
        CIV_TRY(civ_product_nn(exec, job->gram, &job->gradient, &job->response));
    } else {
        job->response = *job->given_response;
    }
    CIV_TRY(civ_parallel_for(exec, m, cost, sum_row, job));
    CIV_TRY(plan(job));
    /* From here on the state changes: a step is made as a whole or not at all. */
    civ_exec whole = {.n_threads = exec == NULL ? 0 : exec->n_threads};
    CIV_TRY(civ_parallel_for(&whole, m, cost, move_point, job));
    double square = 0.0;
    for (int64_t j = 0; j < m; j++) {
        square += job->squares[j];
    }
    job->info->norm = sqrt(fmax(square, 0.0));
    job->self->age = job->move.age;
    return CIV_OK;
}

static void
carve(civ_arena *arena, void *arg)
{
    pgd_job *job = arg;
    int64_t m = job->given_gradient->n_rows, d = job->given_gradient->n_cols;
    job->gradient = civ_take_f64(arena, m, d);
    job->response = civ_take_f64(arena, m, d);
    job->sums = civ_arena_take(arena, m * CIV_PGD_SUMS, sizeof(double));
    job->squares = civ_arena_take(arena, m, sizeof(double));
}

civ_status
civ_pgd_step(const civ_exec *exec, const civ_mat *gram, const civ_mat *gradient,
             const civ_mat *response, const civ_pgd_options *options, civ_pgd *self,
             civ_pgd_info *info)
{
    CIV_TRY(check(gram, gradient, response, options, self));
    pgd_job job = {.exec = exec,
                   .gram = gram,
                   .given_gradient = gradient,
                   .given_response = response,
                   .options = options,
                   .self = self,
                   .info = info};
    return civ_run_in_arena(carve, run, &job);
}
