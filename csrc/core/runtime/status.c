/* SPDX-License-Identifier: Apache-2.0 */
/* Names of the enumerations in cintervene.h, generated from the same lists. */
#include "runtime/common.h"

const char *
civ_status_text(civ_status status)
{
    switch (status) {
#define X(name, value, text) \
    case CIV_##name:         \
        return text;
        CIV_STATUS_LIST(X)
#undef X
    }
    return "unknown status";
}

size_t
civ_dtype_size(civ_dtype dtype)
{
    static const size_t sizes[] = {
#define X(name, value, size, text) [value] = size,
        CIV_DTYPE_LIST(X)
#undef X
    };
    return sizes[dtype];
}

const char *
civ_dtype_text(civ_dtype dtype)
{
    static const char *const texts[] = {
#define X(name, value, size, text) [value] = text,
        CIV_DTYPE_LIST(X)
#undef X
    };
    return texts[dtype];
}

civ_dtype
civ_dtype_compute(civ_dtype dtype)
{
    return dtype == CIV_F64 ? CIV_F64 : CIV_F32;
}

const char *
civ_outcome_text(civ_outcome outcome)
{
    switch (outcome) {
#define X(name, value, text) \
    case CIV_##name:         \
        return text;
        CIV_OUTCOME_LIST(X)
#undef X
    }
    return "unknown outcome";
}
