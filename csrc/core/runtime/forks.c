/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* read-write locks, which ISO C does not have */
#include "runtime/forks.h"

#include <pthread.h>
#include <stdatomic.h>

/* A fork must not wait for ever because some thread is always inside. */
#ifdef PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP
#define UNLOCKED PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP
#else
#define UNLOCKED PTHREAD_RWLOCK_INITIALIZER
#endif

static atomic_bool forked;
/* Read by threads that are inside BLAS, written by one that forks. */
static pthread_rwlock_t inside = UNLOCKED;

static void
before_fork(void)
{
    pthread_rwlock_wrlock(&inside);
}

static void
after_fork_in_parent(void)
{
    pthread_rwlock_unlock(&inside);
}

static void
after_fork_in_child(void)
{
    inside = (pthread_rwlock_t)UNLOCKED;
    atomic_store(&forked, true);
}

civ_status
civ_forks_init(void)
{
    static atomic_flag registered = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&registered)) {
        return CIV_OK;
    }
    int failed = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    return failed == 0 ? CIV_OK : CIV_NO_MEMORY;
}

bool
civ_is_forked(void)
{
    return atomic_load(&forked);
}

void
civ_blas_enter(void)
{
    pthread_rwlock_rdlock(&inside);
}

void
civ_blas_leave(void)
{
    pthread_rwlock_unlock(&inside);
}
