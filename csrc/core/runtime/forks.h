/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a fork leaves to the child. Threads do not survive it, and the locks that they
 * held stay locked: the thread pool of libgomp, and what BLAS allocates its buffers
 * under.
 */
#ifndef CIV_FORKS_H
#define CIV_FORKS_H

#include "runtime/common.h"

/* Registers the handlers, once a process; part of civ_init. */
civ_status civ_forks_init(void);

/* Whether this process is a child that was forked after civ_init. */
bool civ_is_forked(void);

/*
 * Bracket around a call of BLAS or LAPACK that may take a lock. A fork waits until
 * all threads are outside; they wait while it happens.
 */
void civ_blas_enter(void);
void civ_blas_leave(void);

#endif
