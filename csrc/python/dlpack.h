/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of the DLPack binary interface (v1) that a CPU consumer reads. Field order
 * and values are fixed by the DLPack specification.
 */
#ifndef CIV_DLPACK_H
#define CIV_DLPACK_H

#include <stdint.h>

enum { DLPACK_MAJOR = 1 };
enum { DLPACK_CPU = 1, DLPACK_CUDA_HOST = 3, DLPACK_ROCM_HOST = 11 };
enum { DLPACK_FLOAT = 2, DLPACK_BFLOAT = 4 };
enum { DLPACK_FLAG_READ_ONLY = 1, DLPACK_FLAG_IS_COPIED = 2 };

typedef struct dlpack_tensor {
    void *data;
    int32_t device_type;
    int32_t device_id;
    int32_t ndim;
    uint8_t type_code;
    uint8_t type_bits;
    uint16_t type_lanes;
    int64_t *shape;
    int64_t *strides; /* in elements; NULL = row-major */
    uint64_t byte_offset;
} dlpack_tensor;

/* Content of a capsule named "dltensor". */
typedef struct dlpack_legacy {
    dlpack_tensor tensor;
    void *manager;
    void (*deleter)(struct dlpack_legacy *self);
} dlpack_legacy;

/* Content of a capsule named "dltensor_versioned". */
typedef struct dlpack_versioned {
    uint32_t major;
    uint32_t minor;
    void *manager;
    void (*deleter)(struct dlpack_versioned *self);
    uint64_t flags;
    dlpack_tensor tensor;
} dlpack_versioned;

#endif
