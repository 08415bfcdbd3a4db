/* SPDX-License-Identifier: Apache-2.0 */
#include "cintervene.h"
#include "minunit.h"

#include <string.h>

enum { M = 5, V = 3000, D_IN = 3, HISTORY = 100 };

typedef civ_status (*region_fn)(const civ_exec *, const civ_head_problem *,
                                const civ_head_options *, const civ_head_result *,
                                civ_head_info *);

static double gram[M * M], wide[M * V], losses[M], weights[M];
static double history[HISTORY * CIV_HEAD_HISTORY];
static float single[M * V];
static double coefficients[M * V], displacements[M * V]; /* of either type */

static const int64_t ids[] = {7, 20, 7, 50, 7, 2999};
static const int64_t single_tokens[] = {0, 1, 2, 3, 4, 5};
static const int64_t one_pair[] = {0, 1, 2, 3, 4, 6};

static civ_head_problem
make_problem(civ_dtype dtype, const int64_t *offsets)
{
    double inputs[M * D_IN];
    for (int i = 0; i < M * D_IN; i++) {
        inputs[i] = sin(12.9898 * (i + 1));
    }
    for (int j = 0; j < M; j++) {
        for (int k = 0; k < M; k++) {
            gram[j * M + k] = 0;
            for (int x = 0; x < D_IN; x++) {
                gram[j * M + k] += inputs[j * D_IN + x] * inputs[k * D_IN + x];
            }
        }
    }
    for (int i = 0; i < M * V; i++) {
        wide[i] = 3 * cos(78.233 * (i + 1));
        single[i] = (float)wide[i];
    }
    void *data = dtype == CIV_F64 ? (void *)wide : (void *)single;
    return (civ_head_problem){
        .gram = {gram, M, M, M, CIV_F64},
        .logits = {data, M, V, V, dtype},
        .sets = {ids, offsets, M},
    };
}

static civ_head_result
result_for(const civ_head_problem *problem)
{
    civ_dtype lanes = civ_dtype_compute(problem->logits.dtype);
    return (civ_head_result){
        .coefficients = {coefficients, M, V, V, lanes},
        .displacements = {displacements, M, V, V, lanes},
        .losses = losses,
        .weights = weights,
        .history = {history, HISTORY, CIV_HEAD_HISTORY, CIV_HEAD_HISTORY, CIV_F64},
    };
}

static civ_status
solve(const civ_exec *exec, region_fn fn, const civ_head_problem *problem,
      civ_head_info *info)
{
    civ_head_options options = civ_head_options_default();
    civ_head_result result = result_for(problem);
    options.radius = 0.8;
    return fn(exec, problem, &options, &result, info);
}

/* Single tokens: the bound of civ_tsr meets the loss. */
static void
check_solutions(civ_dtype dtype)
{
    civ_head_problem problem = make_problem(dtype, single_tokens);
    civ_head_info info;
    double before[M], mean = 0, least = INFINITY;
    CHECK(civ_set_nll(NULL, &problem.logits, &problem.sets, before, NULL) == CIV_OK);
    for (int j = 0; j < M; j++) {
        mean += before[j] / M;
        least = fmin(least, before[j]);
    }
    CHECK(solve(NULL, civ_tsr, &problem, &info) == CIV_OK);
    CHECK(info.outcome == CIV_CONVERGED);
    CHECK(info.loss < mean - 0.01);
    CHECK_NEAR(info.bound, info.loss, 2e-5);
    CHECK_NEAR(info.norm, 0.8, 1e-5);
    CHECK(info.history_rows == info.iterations + 1);
    CHECK(solve(NULL, civ_arr, &problem, &info) == CIV_OK);
    CHECK(info.outcome == CIV_CONVERGED);
    CHECK(info.loss > least + 0.1);
    CHECK(info.bound >= info.loss - 1e-5);
    double sum = 0;
    for (int j = 0; j < M; j++) {
        CHECK(weights[j] >= 0);
        CHECK(losses[j] >= info.loss);
        sum += weights[j];
    }
    CHECK_NEAR(sum, 1, 1e-12);
}

/* A set of two tokens has a concave part, for which the bound allows. */
static void
check_pairs(void)
{
    civ_head_problem problem = make_problem(CIV_F64, one_pair);
    civ_head_info info;
    CHECK(solve(NULL, civ_tsr, &problem, &info) == CIV_OK);
    CHECK(info.bound < info.loss - info.stationarity);
    CHECK(solve(NULL, civ_arr, &problem, &info) == CIV_OK);
    CHECK(info.outcome == CIV_CONVERGED);
}

static void
check_allocation_failures(region_fn fn)
{
    civ_head_problem problem = make_problem(CIV_BF16, single_tokens);
    civ_head_info info;
    civ_status status = CIV_NO_MEMORY;
    long failures = 0;
    memset(single, 0, sizeof single);
    while (status == CIV_NO_MEMORY && failures < 10000) {
        allocations_until_failure(failures);
        status = solve(NULL, fn, &problem, &info);
        allocations_until_failure(-1);
        failures += status == CIV_NO_MEMORY;
    }
    CHECK(status == CIV_OK);
    CHECK(failures > 0);
}

static int
stop_at_zero(void *left)
{
    return (*(long *)left)-- == 0;
}

static void
check_interruptions(region_fn fn)
{
    civ_head_problem problem = make_problem(CIV_F32, one_pair);
    civ_head_info info;
    civ_status status = CIV_INTERRUPTED;
    long polls = 0;
    while (status == CIV_INTERRUPTED && polls < 10000) {
        long left = polls;
        civ_exec exec = {.poll = stop_at_zero, .poll_arg = &left};
        status = solve(&exec, fn, &problem, &info);
        polls += status == CIV_INTERRUPTED;
    }
    CHECK(status == CIV_OK);
    CHECK(polls > 1);
}

static void
check_refusals(region_fn fn)
{
    civ_head_problem problem = make_problem(CIV_F64, single_tokens);
    civ_head_options options = civ_head_options_default();
    civ_head_result result = result_for(&problem);
    civ_head_info info;
    CHECK(fn(NULL, &problem, &options, &result, &info) == CIV_OK);
    CHECK(info.norm == 0);
    options.radius = NAN;
    CHECK(fn(NULL, &problem, &options, &result, &info) == CIV_INVALID_ARGUMENT);
    options = civ_head_options_default();
    options.struct_size--;
    CHECK(fn(NULL, &problem, &options, &result, &info) == CIV_INVALID_ARGUMENT);
    options = civ_head_options_default();
    result.coefficients.dtype = CIV_F32;
    CHECK(fn(NULL, &problem, &options, &result, &info) == CIV_DTYPE);
    result = result_for(&problem);
    result.displacements.n_cols--;
    CHECK(fn(NULL, &problem, &options, &result, &info) == CIV_SHAPE);
    result = result_for(&problem);
    problem.gram.n_rows--;
    CHECK(fn(NULL, &problem, &options, &result, &info) == CIV_SHAPE);
    problem.gram.n_rows++;
    wide[V + 20] = -INFINITY;
    CHECK(fn(NULL, &problem, &options, &result, &info) == CIV_NONFINITE);
}

void
test_head(void)
{
    WITH_EACH_TABLE(check_solutions(CIV_F64));
    WITH_EACH_TABLE(check_solutions(CIV_F32));
    check_pairs();
    static const region_fn solvers[] = {civ_tsr, civ_arr};
    for (int i = 0; i < 2; i++) {
        check_allocation_failures(solvers[i]);
        check_interruptions(solvers[i]);
        check_refusals(solvers[i]);
    }
}
