/* SPDX-License-Identifier: Apache-2.0 */
/* Enough of a test framework: checks that count, and one main for all suites. */
#ifndef MINUNIT_H
#define MINUNIT_H

#include <math.h>
#include <stdio.h>

extern int checks_made;
extern int checks_failed;

#define CHECK(condition)                                                    \
    do {                                                                    \
        checks_made++;                                                      \
        if (!(condition)) {                                                 \
            checks_failed++;                                                \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
        }                                                                   \
    } while (0)

#define CHECK_NEAR(got, expected, tolerance) \
    CHECK(fabs((double)(got) - (double)(expected)) <= (tolerance))

/* Runs the statement with every kernel table that this processor has. */
#define WITH_EACH_TABLE(statement)                                                  \
    do {                                                                            \
        static const char *const tables[] = {"baseline", "avx2", "avx512", "neon"}; \
        const char *before = civ_cpu_name();                                        \
        for (int table = 0; table < 4; table++) {                                   \
            if (civ_cpu_select(tables[table]) == CIV_OK) {                          \
                statement;                                                          \
            }                                                                       \
        }                                                                           \
        civ_cpu_select(before);                                                     \
    } while (0)

/* Lets that many allocations of the library succeed, then fails; < 0: all succeed. */
void allocations_until_failure(long count);

#endif
