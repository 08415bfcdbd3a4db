/* SPDX-License-Identifier: Apache-2.0 */
/* What losses over logits are given. */
#ifndef CIV_LOSSES_H
#define CIV_LOSSES_H

#include "runtime/common.h"

/* Whether token sets make sense for logits (n_rows, vocab). */
civ_status civ_check_sets(const civ_token_sets *sets, int64_t n_rows, int64_t vocab);

#endif
