/* SPDX-License-Identifier: Apache-2.0 */
#include "cintervene.h"
#include "minunit.h"

#include <string.h>

enum { M = 5, N = 7, K = 2, D = 24, ROWS = 40 };

typedef civ_status (*solve_fn)(const civ_exec *, const civ_pcr_problem *,
                               const civ_pcr_options *, const civ_pcr_result *,
                               civ_pcr_info *);

static double inputs[M * 9], gram[M * M], outputs[M * D], concepts[N * D];
static double radius[M * N], directions[K * D], offsets[M * K], moved[M * D];
static double coefficients[M * D], multipliers[M * (N + K)], margins[M * (N + K)];
static double displacements[M * D], own_margins[M * (N + K)];
static double history[ROWS * CIV_PCR_HISTORY];

static civ_mat
mat(double *data, int64_t n_rows, int64_t n_cols)
{
    return (civ_mat){data, n_rows, n_cols, n_cols, CIV_F64};
}

static void
fill(double *x, int count, double rate)
{
    for (int i = 0; i < count; i++) {
        x[i] = sin(rate * i * i + rate * i + 0.3);
    }
}

/* balls: the radius of all pairs; level: the offset of the half-spaces in use. */
static civ_pcr_problem
make_problem(double balls, double level)
{
    fill(inputs, M * 9, 1.1);
    fill(outputs, M * D, 0.7);
    fill(concepts, N * D, 1.9);
    fill(directions, K * D, 2.3);
    civ_mat h = mat(inputs, M, 9), g = mat(gram, M, M);
    CHECK(civ_gram(NULL, &h, &h, &g) == CIV_OK);
    for (int j = 0; j < M; j++) {
        for (int i = 0; i < N; i++) {
            radius[j * N + i] = balls;
        }
        for (int l = 0; l < K; l++) {
            offsets[j * K + l] = l == j % K ? level : INFINITY;
        }
    }
    return (civ_pcr_problem){g,
                             mat(outputs, M, D),
                             mat(concepts, balls > 0 ? N : 0, D),
                             mat(radius, M, balls > 0 ? N : 0),
                             mat(directions, K, D),
                             mat(offsets, M, K)};
}

static civ_pcr_result
result_for(const civ_pcr_problem *problem)
{
    int64_t p = problem->concepts.n_rows + problem->directions.n_rows;
    return (civ_pcr_result){mat(coefficients, M, D), mat(multipliers, M, p),
                            mat(displacements, M, D), mat(own_margins, M, p),
                            mat(history, ROWS, CIV_PCR_HISTORY)};
}

/* Largest violation of what the coefficients do. */
static double
violation(const civ_pcr_problem *problem)
{
    int64_t p = problem->concepts.n_rows + problem->directions.n_rows;
    memcpy(moved, outputs, sizeof moved);
    for (int j = 0; j < M; j++) {
        for (int k = 0; k < M; k++) {
            for (int x = 0; x < D; x++) {
                moved[j * D + x] += gram[j * M + k] * coefficients[k * D + x];
            }
        }
    }
    civ_mat y = mat(moved, M, D), out = mat(margins, M, p);
    CHECK(civ_pcr_margins(NULL, problem, &y, &out) == CIV_OK);
    double worst = 0;
    for (int i = 0; i < M * p; i++) {
        worst = fmax(worst, -margins[i]);
    }
    return worst;
}

static double
solve(solve_fn fn, const civ_pcr_problem *problem, civ_pcr_certificate *proof)
{
    civ_pcr_options options = civ_pcr_options_default();
    civ_pcr_result result = result_for(problem);
    civ_pcr_info info;
    CHECK(fn(NULL, problem, &options, &result, &info) == CIV_OK);
    CHECK(info.outcome == CIV_CONVERGED);
    CHECK(info.iterations > 0 && info.history_rows > 0);
    CHECK(violation(problem) < 1e-9);
    CHECK(info.violation < 1e-9);
    for (int i = 0; i < M * (int)result.margins.n_cols; i++) {
        CHECK(margins[i] == own_margins[i] || fabs(margins[i] - own_margins[i]) < 1e-9);
    }
    civ_mat none = result.multipliers;
    static double zero[M * (N + K)];
    if (fn == civ_pcr_most_violated) {
        none.data = zero;
    }
    CHECK(civ_pcr_certify(NULL, problem, &result.coefficients, &none, proof) == CIV_OK);
    return proof->cost;
}

static void
check_solvers(double balls, double level)
{
    civ_pcr_problem problem = make_problem(balls, level);
    civ_pcr_certificate rule, exact;
    CHECK(solve(civ_pcr_most_violated, &problem, &rule) > 0);
    CHECK(solve(civ_pcr_exact, &problem, &exact) > 0);
    CHECK(exact.cost <= rule.cost * (1 + 1e-9));
    CHECK_NEAR(exact.lower_bound / exact.cost, 1, 1e-9);
    CHECK(exact.stationarity < 1e-9 && exact.complementarity < 1e-9);
}

static void
check_allocation_failures(solve_fn fn, const civ_pcr_problem *problem)
{
    civ_pcr_options options = civ_pcr_options_default();
    civ_pcr_result result = result_for(problem);
    civ_pcr_info info;
    civ_status status = CIV_NO_MEMORY;
    long failures = 0;
    while (status == CIV_NO_MEMORY && failures < 10000) {
        allocations_until_failure(failures);
        status = fn(NULL, problem, &options, &result, &info);
        allocations_until_failure(-1);
        failures += status == CIV_NO_MEMORY;
    }
    CHECK(status == CIV_OK);
    CHECK(failures > 2);
}

static int
stop_at_zero(void *left)
{
    return (*(long *)left)-- == 0;
}

static void
check_interruptions(solve_fn fn, const civ_pcr_problem *problem)
{
    civ_pcr_options options = civ_pcr_options_default();
    civ_pcr_result result = result_for(problem);
    civ_pcr_info info;
    civ_status status = CIV_INTERRUPTED;
    long polls = 0;
    while (status == CIV_INTERRUPTED && polls < 10000) {
        long left = polls;
        civ_exec exec = {.poll = stop_at_zero, .poll_arg = &left};
        status = fn(&exec, problem, &options, &result, &info);
        polls += status == CIV_INTERRUPTED;
    }
    CHECK(status == CIV_OK);
    CHECK(polls > 0);
}

static void
check_contradiction(void)
{
    civ_pcr_problem problem = make_problem(0, 0);
    for (int x = 0; x < D; x++) {
        directions[D + x] = -directions[x];
    }
    offsets[0] = offsets[1] = -1;
    civ_pcr_options options = civ_pcr_options_default();
    civ_pcr_result result = result_for(&problem);
    civ_pcr_info info;
    CHECK(civ_pcr_exact(NULL, &problem, &options, &result, &info) == CIV_OK);
    CHECK(info.outcome == CIV_INFEASIBLE);
    CHECK(multipliers[0] > 0 && multipliers[1] > 0);
    CHECK_NEAR(coefficients[0], 0, 0);
}

static void
check_refusals(void)
{
    civ_pcr_problem problem = make_problem(5, -1);
    civ_pcr_options options = civ_pcr_options_default();
    civ_pcr_result result = result_for(&problem);
    civ_pcr_info info;
    civ_pcr_problem narrow = problem;
    narrow.concepts.n_cols = D - 1;
    CHECK(civ_pcr_exact(NULL, &narrow, &options, &result, &info) == CIV_SHAPE);
    civ_pcr_problem single = problem;
    single.gram.dtype = CIV_F32;
    CHECK(civ_pcr_exact(NULL, &single, &options, &result, &info) == CIV_DTYPE);
    options.tolerance = NAN;
    CHECK(civ_pcr_most_violated(NULL, &problem, &options, &result, &info) ==
          CIV_INVALID_ARGUMENT);
    options = civ_pcr_options_default();
    options.struct_size--;
    CHECK(civ_pcr_exact(NULL, &problem, &options, &result, &info) ==
          CIV_INVALID_ARGUMENT);
    gram[0] = 0;
    options = civ_pcr_options_default();
    CHECK(civ_pcr_exact(NULL, &problem, &options, &result, &info) ==
          CIV_INVALID_ARGUMENT);
    multipliers[0] = -1;
    civ_pcr_certificate proof;
    CHECK(civ_pcr_certify(NULL, &problem, &result.coefficients, &result.multipliers,
                          &proof) == CIV_INVALID_ARGUMENT);
}

void
test_pcr(void)
{
    check_solvers(5, INFINITY);
    check_solvers(5, -3);
    check_solvers(0, -3);
    for (int balls = 0; balls <= 5; balls += 5) {
        civ_pcr_problem problem = make_problem(balls, -3);
        check_allocation_failures(civ_pcr_exact, &problem);
        check_allocation_failures(civ_pcr_most_violated, &problem);
        check_interruptions(civ_pcr_exact, &problem);
        check_interruptions(civ_pcr_most_violated, &problem);
    }
    check_contradiction();
    check_refusals();
    CHECK(strcmp(civ_outcome_text(CIV_INFEASIBLE), "unknown outcome") != 0);
}
