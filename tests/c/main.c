/* SPDX-License-Identifier: Apache-2.0 */
#include "cintervene.h"
#include "minunit.h"

#include <stdlib.h>

int checks_made;
int checks_failed;

static long allocations_left = -1;

void
allocations_until_failure(long count)
{
    civ_block_drop_kept();
    allocations_left = count;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

/* The linker sends the library's calls of malloc here. */
void *
__wrap_malloc(size_t size)
{
    if (allocations_left == 0) {
        return NULL;
    }
    allocations_left -= allocations_left > 0;
    return __real_malloc(size);
}

void test_arena(void);
void test_parallel(void);
void test_dtype(void);
void test_tables(void);
void test_linalg(void);
void test_losses(void);
void test_projections(void);
void test_lowrank(void);
void test_products(void);
void test_pcr(void);
void test_pgd(void);
void test_head(void);

int
main(void)
{
    CHECK(civ_init() == CIV_OK);
    test_arena();
    test_parallel();
    test_dtype();
    test_tables();
    test_linalg();
    test_losses();
    test_projections();
    test_lowrank();
    test_products();
    test_pcr();
    test_pgd();
    test_head();
    printf("%d checks, %d failed\n", checks_made, checks_failed);
    return checks_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
