/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nearest points of the ball, which bounds the change in TSR and ARR, and of the
 * probability simplex, on which prompts lie in the continuous relaxation (both
 * arXiv 2510.03567), row by row.
 */
#include "kernels/dispatch.h"
#include "linalg/matrix.h"
#include "runtime/parallel.h"

#include <float.h>
#include <math.h>

/* Rough operations for one element of a row; of the simplex, when all are positive. */
#define BALL_COST 4
#define SIMPLEX_COST 32
/* Differences of a row's entries are measured in units of at least this. */
#define TINY 1e-290
/* Elements of a row between two chances to raise the threshold. */
#define SEGMENT 256

typedef struct projection_job {
    const civ_mat *x;
    const civ_mat *out;
    const double *radius;
    int64_t n_radius;
    double least;    /* of the squared norm; simplex only, as is scratch */
    double *scratch; /* n_cols a worker */
    const civ_kernels *kernels;
} projection_job;

static civ_status
check_pair(const civ_mat *x, const civ_mat *out)
{
    CIV_FAIL_IF(x->n_rows != out->n_rows || x->n_cols != out->n_cols, CIV_SHAPE);
    CIV_FAIL_IF(x->dtype != out->dtype, CIV_DTYPE);
    return civ_check_output(x, out);
}

/*
 * norm = result / *scale. Squares that would leave the range of double are avoided by
 * a scale that is a power of two, hence exact; it is 1 for all ordinary rows.
 */
static civ_status
scaled_norm(const projection_job *job, const void *x, double *scale, double *norm)
{
    const civ_kernels *kernels = job->kernels;
    civ_dtype dtype = job->x->dtype;
    int64_t n = job->x->n_cols;
    *scale = 1.0;
    double sum = kernels->sum_squares[dtype](x, n, 1.0);
    if (!(sum > 0x1p-900 && sum <= DBL_MAX)) {
        double top = kernels->largest_magnitude[dtype](x, n);
        CIV_FAIL_IF(isnan(sum) || !(top <= DBL_MAX), CIV_NONFINITE);
        int exponent;
        frexp(top, &exponent);
        *scale = ldexp(1.0, (int)civ_min(-exponent, 1000));
        sum = kernels->sum_squares[dtype](x, n, *scale);
    }
    *norm = sqrt(sum);
    return CIV_OK;
}

static civ_status
ball_row(void *arg, int64_t row, int worker)
{
    (void)worker;
    const projection_job *job = arg;
    const void *x = civ_row(job->x, row);
    double radius = job->radius[job->n_radius == 1 ? 0 : row];
    double scale, norm;
    CIV_TRY(scaled_norm(job, x, &scale, &norm));
    double factor = 1.0;
    if (norm > radius * scale) {
        factor = radius / norm;
    } else {
        scale = 1.0;
    }
    job->kernels->scale[job->x->dtype](x, job->x->n_cols, scale, factor,
                                       civ_row(job->out, row));
    return CIV_OK;
}

civ_status
civ_project_ball(const civ_exec *exec, const civ_mat *x, const double *radius,
                 int64_t n_radius, const civ_mat *out)
{
    CIV_TRY(check_pair(x, out));
    CIV_FAIL_IF(n_radius != 1 && n_radius != x->n_rows, CIV_SHAPE);
    for (int64_t i = 0; i < n_radius; i++) {
        CIV_FAIL_IF(!(radius[i] >= 0.0), CIV_INVALID_ARGUMENT);
    }
    projection_job job = {.x = x, .out = out, .radius = radius, .n_radius = n_radius};
    job.kernels = civ_kernel_table();
    return civ_parallel_for(exec, x->n_rows, BALL_COST * x->n_cols, ball_row, &job);
}

/*
 * The t with sum max(v - t, 0) = 1; leaves in values, and counts, those above t.
 * Starting from all values, t is what they would give if all were positive; those
 * that are not drop out, until none does. The t of any part of the values is a lower
 * bound on the t of all, so a value that drops out never comes back.
 */
static double
simplex_threshold(double *values, int64_t *count)
{
    for (;;) {
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < *count; i++) {
            sum += values[i];
        }
        double threshold = (sum - 1.0) / (double)*count;
        int64_t kept = 0;
        for (int64_t i = 0; i < *count; i++) {
            values[kept] = values[i];
            kept += values[i] > threshold;
        }
        if (kept == *count || kept == 0) {
            return threshold;
        }
        *count = kept;
    }
}

/*
 * Leaves in values, and counts, those above the threshold t of the nearest point of
 * the simplex, and returns t. All is done in values less the top, where t >= -1. The
 * threshold of what has been seen so far keeps most of the rest out; finding it anew
 * whenever the number of values has doubled costs no more than a pass over them.
 */
static double
gather_support(const projection_job *job, const char *x, double top, double *kept,
               int64_t *count)
{
    civ_dtype dtype = job->x->dtype;
    size_t item = civ_dtype_size(dtype);
    int64_t n = job->x->n_cols, enough = SEGMENT;
    double threshold = -1.0;
    *count = 0;
    for (int64_t start = 0; start < n; start += SEGMENT) {
        int64_t size = civ_min(SEGMENT, n - start);
        *count += job->kernels->gather_above[dtype](x + (size_t)start * item, size, top,
                                                    threshold, kept + *count);
        if (*count >= enough) {
            threshold = simplex_threshold(kept, count);
            enough = 2 * *count + SEGMENT;
        }
    }
    return simplex_threshold(kept, count);
}

static double
squared_norm(const double *values, int64_t count, double threshold)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) {
        sum += (values[i] - threshold) * (values[i] - threshold);
    }
    return sum;
}

static int64_t
count_top(const double *values, int64_t count)
{
    int64_t tied = 0;
    for (int64_t i = 0; i < count; i++) {
        tied += values[i] == 0.0;
    }
    return tied;
}

/* Divides by the largest magnitude, so that squares stay in range; returns it. */
static double
normalise(double *values, int64_t count)
{
    double spread = TINY;
    for (int64_t i = 0; i < count; i++) {
        spread = fmax(spread, -values[i]);
    }
    for (int64_t i = 0; i < count; i++) {
        values[i] /= spread;
    }
    return spread;
}

/*
 * The t and *scale with p = scale max(v - t, 0), sum p = 1 and sum p^2 = least, where
 * fewer than 1 / least values are the largest. For k values of mean a and variance s,
 * all above t, that is (a - t)^2 = s / (k least - 1). The t of too many values is
 * again a lower bound, so those below drop out, until none does.
 */
static double
concentrate(double *values, int64_t count, double least, double *scale)
{
    double spread = normalise(values, count);
    for (;;) {
        double sum = 0.0, k = (double)count;
        for (int64_t i = 0; i < count; i++) {
            sum += values[i];
        }
        double mean = sum / k;
        double variance = squared_norm(values, count, mean) / k;
        double above = sqrt(variance / (k * least - 1.0));
        int64_t kept = 0;
        for (int64_t i = 0; i < count; i++) {
            values[kept] = values[i];
            kept += values[i] > mean - above;
        }
        if (kept == count || (double)kept * least <= 1.0) {
            *scale = 1.0 / (k * above * spread);
            return (mean - above) * spread;
        }
        count = kept;
    }
}

/* Shares among `tied` equal entries, the first apart, whose squares sum to least. */
static void
share_out(const projection_job *job, const void *x, double top, int64_t tied, void *out)
{
    double k = (double)tied;
    double apart = tied > 1 ? sqrt((k * job->least - 1.0) / (k - 1.0)) : 1.0;
    job->kernels->share_out[job->x->dtype](
        x, job->x->n_cols, top, (1.0 + (k - 1.0) * apart) / k, (1.0 - apart) / k, out);
}

/*
 * A nearest point that the entropy excludes gives way to one on the sphere of squared
 * norm `least`, where being near means a large inner product with x.
 */
static civ_status
simplex_row(void *arg, int64_t row, int worker)
{
    const projection_job *job = arg;
    civ_dtype dtype = job->x->dtype;
    const void *x = civ_row(job->x, row);
    void *out = civ_row(job->out, row);
    int64_t n = job->x->n_cols, count;
    double *kept = job->scratch + worker * n, scale = 1.0;
    bool bad = false;
    double top = job->kernels->largest[dtype](x, n, &bad);
    CIV_FAIL_IF(bad || isinf(top), CIV_NONFINITE);
    double threshold = gather_support(job, x, top, kept, &count);
    /* No p on so few entries is excluded when each may have its even share. */
    bool crowded = (double)count * job->least > 1.0;
    if (crowded && squared_norm(kept, count, threshold) < job->least) {
        int64_t tied = count_top(kept, count);
        if ((double)tied * job->least >= 1.0) {
            share_out(job, x, top, tied, out);
            return CIV_OK;
        }
        threshold = concentrate(kept, count, job->least, &scale);
    }
    job->kernels->clip_shifted[dtype](x, n, top, threshold, scale, out);
    return CIV_OK;
}

civ_status
civ_project_simplex(const civ_exec *exec, const civ_mat *x, double entropy,
                    const civ_mat *out)
{
    CIV_TRY(check_pair(x, out));
    CIV_FAIL_IF(!(entropy >= 0.0), CIV_INVALID_ARGUMENT);
    if (x->n_rows == 0) {
        return CIV_OK;
    }
    CIV_FAIL_IF(x->n_cols == 0, CIV_SHAPE);
    int workers = civ_workers(exec, x->n_rows, SIMPLEX_COST * x->n_cols);
    projection_job job = {.x = x, .out = out, .least = 1.0 - entropy};
    job.kernels = civ_kernel_table();
    civ_arena arena = {0};
    civ_arena_take(&arena, workers * x->n_cols, sizeof *job.scratch);
    CIV_TRY(civ_arena_open(&arena));
    job.scratch = civ_arena_take(&arena, workers * x->n_cols, sizeof *job.scratch);
    civ_status status =
        civ_parallel_for(exec, x->n_rows, SIMPLEX_COST * x->n_cols, simplex_row, &job);
    civ_arena_close(&arena);
    return status;
}
