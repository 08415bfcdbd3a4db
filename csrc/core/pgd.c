/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Projected gradient in coefficients: steepest descent in the norm of the change is
 * A <- A - t grad, because delta = A^T K and the gradient with respect to delta,
 * measured in that norm, is grad^T K. No system is solved, so G may be singular.
 */
#include "products.h"

#include <math.h>
#include <string.h>

/* Rough operations for one element of a row. */
#define COST 8

/* Inner products over all rows; one row of partial sums each, added up in order. */
enum { GRAD_GRAD, GRAD_HERE, HERE_HERE, GRAD_TRAIL, HERE_TRAIL, TRAIL_TRAIL, N_SUMS };

/* What a step does: x' = scale (y - step g), y' = shrink ((1 + b) x' - b x). */
typedef struct pgd_move {
    double step;
    double scale;
    double momentum; /* b */
    double shrink;
    double age; /* after the step */
} pgd_move;

typedef struct pgd_job {
    civ_pgd *self;
    civ_mat gradient; /* g */
    civ_mat response; /* h = G g */
    double *sums;     /* (m, N_SUMS) */
    double *squares;  /* <A, D> of the rows of y' (m) */
    pgd_move move;
} pgd_job;

civ_pgd_options
civ_pgd_options_default(void)
{
    return (civ_pgd_options){.struct_size = sizeof(civ_pgd_options), .length = 0.5};
}

static double
dot(const double *x, const double *y, int64_t n)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        sum += x[i] * y[i];
    }
    return sum;
}

static civ_status
sum_row(void *arg, int64_t j, int worker)
{
    (void)worker;
    const pgd_job *job = arg;
    const civ_pgd *self = job->self;
    int64_t d = job->gradient.n_cols;
    const double *g = civ_at(&job->gradient, j, 0);
    const double *here = civ_at(&self->here.displacements, j, 0);
    double *sums = job->sums + j * N_SUMS;
    memset(sums, 0, N_SUMS * sizeof(double));
    sums[GRAD_GRAD] = dot(g, civ_at(&job->response, j, 0), d);
    sums[GRAD_HERE] = dot(g, here, d);
    sums[HERE_HERE] = dot(civ_at(&self->here.coefficients, j, 0), here, d);
    if (self->momentum) {
        const double *trail = civ_at(&self->trail.coefficients, j, 0);
        const double *moved = civ_at(&self->trail.displacements, j, 0);
        sums[GRAD_TRAIL] = dot(g, moved, d);
        sums[HERE_TRAIL] = dot(trail, here, d);
        sums[TRAIL_TRAIL] = dot(trail, moved, d);
    }
    return CIV_OK;
}

/* Moves one row of coefficients along g, or of displacements along G g. */
static void
move_row(const pgd_move *move, const double *g, int64_t d, double *y)
{
#pragma omp simd
    for (int64_t i = 0; i < d; i++) {
        y[i] = move->scale * (y[i] - move->step * g[i]);
    }
}

static void
move_with_momentum(const pgd_move *move, const double *g, int64_t d, double *y,
                   double *x)
{
    double ahead = move->shrink * (1.0 + move->momentum);
    double behind = move->shrink * move->momentum;
#pragma omp simd
    for (int64_t i = 0; i < d; i++) {
        double stepped = move->scale * (y[i] - move->step * g[i]);
        y[i] = ahead * stepped - behind * x[i];
        x[i] = stepped;
    }
}

static civ_status
move_point(void *arg, int64_t j, int worker)
{
    (void)worker;
    const pgd_job *job = arg;
    const civ_pgd *self = job->self;
    int64_t d = job->gradient.n_cols;
    const double *g = civ_at(&job->gradient, j, 0), *h = civ_at(&job->response, j, 0);
    double *a = civ_at(&self->here.coefficients, j, 0);
    double *b = civ_at(&self->here.displacements, j, 0);
    if (self->momentum) {
        move_with_momentum(&job->move, g, d, a,
                           civ_at(&self->trail.coefficients, j, 0));
        move_with_momentum(&job->move, h, d, b,
                           civ_at(&self->trail.displacements, j, 0));
    } else {
        move_row(&job->move, g, d, a);
        move_row(&job->move, h, d, b);
    }
    job->squares[j] = dot(a, b, d);
    return CIV_OK;
}

/* Factor that brings a point of this squared norm into the ball. */
static double
shrinkage(double square, double radius)
{
    double norm = sqrt(fmax(square, 0.0));
    return norm > radius ? radius / norm : 1.0;
}

/*
 * The momentum of the step from y to x', or none when it leads uphill, which is when
 * <y - x', x' - x> > 0 (O'Donoghue and Candes).
 */
static void
plan_momentum(const double *sum, double age, double radius, pgd_move *move)
{
    double s = move->scale, t = move->step;
    double stepped = s * s *
                     (sum[HERE_HERE] - 2.0 * t * sum[GRAD_HERE] +
                      t * t * sum[GRAD_GRAD]);                  /* <x', x'> */
    double along = s * (sum[HERE_TRAIL] - t * sum[GRAD_TRAIL]); /* <x', x> */
    double before = s * (sum[HERE_HERE] - t * sum[GRAD_HERE]);  /* <y, x'> */
    if (before - sum[HERE_TRAIL] - stepped + along > 0.0) {
        return;
    }
    move->age = 0.5 * (1.0 + sqrt(1.0 + 4.0 * age * age));
    double b = (age - 1.0) / move->age;
    move->momentum = b;
    move->shrink = shrinkage((1.0 + b) * (1.0 + b) * stepped -
                                 2.0 * b * (1.0 + b) * along + b * b * sum[TRAIL_TRAIL],
                             radius);
}

/* Decides the step from the inner products, before anything is written. */
static civ_status
plan(const pgd_job *job, const civ_pgd_options *options, pgd_move *move,
     civ_pgd_info *info)
{
    double sum[N_SUMS] = {0}, radius = options->radius;
    for (int64_t j = 0; j < job->gradient.n_rows; j++) {
        for (int i = 0; i < N_SUMS; i++) {
            sum[i] += job->sums[j * N_SUMS + i];
        }
    }
    CIV_FAIL_IF(!isfinite(sum[GRAD_GRAD]), CIV_NONFINITE);
    double slope = sqrt(fmax(sum[GRAD_GRAD], 0.0));
    double length = slope > 0.0 ? options->length * radius / slope : 0.0;
    double t = options->step > 0.0 ? options->step : length;
    double square = sum[HERE_HERE] - 2.0 * t * sum[GRAD_HERE] + t * t * sum[GRAD_GRAD];
    *move = (pgd_move){t, shrinkage(square, radius), 0.0, 1.0, 1.0};
    if (job->self->momentum) {
        plan_momentum(sum, job->self->age, radius, move);
    }
    *info = (civ_pgd_info){.step = t,
                           .gradient_norm = slope,
                           .gap = sum[GRAD_HERE] + radius * slope,
                           .restarted = job->self->momentum && move->age == 1.0};
    return CIV_OK;
}

static civ_status
check_point(const civ_pgd_point *point, const civ_mat *gradient)
{
    const civ_mat *parts[] = {&point->coefficients, &point->displacements};
    for (int i = 0; i < 2; i++) {
        CIV_FAIL_IF(parts[i]->dtype != CIV_F64, CIV_DTYPE);
        CIV_FAIL_IF(parts[i]->n_rows != gradient->n_rows, CIV_SHAPE);
        CIV_FAIL_IF(parts[i]->n_cols != gradient->n_cols, CIV_SHAPE);
    }
    return CIV_OK;
}

static civ_status
check(const civ_mat *gram, const civ_mat *gradient, const civ_pgd_options *options,
      const civ_pgd *self)
{
    CIV_FAIL_IF(options->struct_size != sizeof *options, CIV_INVALID_ARGUMENT);
    CIV_FAIL_IF(!(options->radius >= 0.0 && options->radius <= 0x1p1000),
                CIV_INVALID_ARGUMENT);
    CIV_FAIL_IF(!(options->step > 0.0 || options->length > 0.0), CIV_INVALID_ARGUMENT);
    CIV_FAIL_IF(gram->dtype != CIV_F64, CIV_DTYPE);
    CIV_FAIL_IF(gram->n_rows != gram->n_cols, CIV_SHAPE);
    CIV_FAIL_IF(gram->n_rows != gradient->n_rows, CIV_SHAPE);
    CIV_FAIL_IF(self->momentum && !(self->age >= 1.0), CIV_INVALID_ARGUMENT);
    CIV_TRY(check_point(&self->here, gradient));
    return self->momentum ? check_point(&self->trail, gradient) : CIV_OK;
}

static civ_status
run(const civ_exec *exec, const civ_mat *gram, const civ_mat *gradient,
    const civ_pgd_options *options, pgd_job *job, civ_pgd_info *info)
{
    int64_t m = gradient->n_rows, cost = COST * gradient->n_cols;
    CIV_TRY(civ_poll(exec));
    CIV_TRY(civ_convert(exec, gradient, &job->gradient));
    CIV_TRY(civ_product_nn(exec, gram, &job->gradient, &job->response));
    CIV_TRY(civ_parallel_for(exec, m, cost, sum_row, job));
    CIV_TRY(plan(job, options, &job->move, info));
    /* From here on the state changes: a step is made as a whole or not at all. */
    civ_exec whole = {.n_threads = exec == NULL ? 0 : exec->n_threads};
    CIV_TRY(civ_parallel_for(&whole, m, cost, move_point, job));
    double square = 0.0;
    for (int64_t j = 0; j < m; j++) {
        square += job->squares[j];
    }
    info->norm = sqrt(fmax(square, 0.0));
    job->self->age = job->move.age;
    return CIV_OK;
}

static void
carve(civ_arena *arena, int64_t m, int64_t d, pgd_job *job)
{
    job->gradient = civ_f64(civ_arena_take(arena, m * d, sizeof(double)), m, d);
    job->response = civ_f64(civ_arena_take(arena, m * d, sizeof(double)), m, d);
    job->sums = civ_arena_take(arena, m * N_SUMS, sizeof(double));
    job->squares = civ_arena_take(arena, m, sizeof(double));
}

civ_status
civ_pgd_step(const civ_exec *exec, const civ_mat *gram, const civ_mat *gradient,
             const civ_pgd_options *options, civ_pgd *self, civ_pgd_info *info)
{
    CIV_TRY(check(gram, gradient, options, self));
    pgd_job job = {.self = self};
    civ_arena arena = {0};
    carve(&arena, gradient->n_rows, gradient->n_cols, &job);
    CIV_TRY(civ_arena_open(&arena));
    carve(&arena, gradient->n_rows, gradient->n_cols, &job);
    civ_status status = run(exec, gram, gradient, options, &job, info);
    civ_arena_close(&arena);
    return status;
}
