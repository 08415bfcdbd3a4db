/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Storage types and their exact conversions. The 16-bit types are structures so that
 * nobody adds two of them by accident. Everything is branch-free, so loops over these
 * functions vectorise. Narrowing rounds to nearest, ties to even; NaN stays NaN.
 */
#ifndef CIV_DTYPE_H
#define CIV_DTYPE_H

#include "runtime/common.h"

#include <string.h>

typedef struct civ_bf16 {
    uint16_t bits;
} civ_bf16;

typedef struct civ_f16 {
    uint16_t bits;
} civ_f16;

CIV_INLINE uint32_t
civ_f32_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

CIV_INLINE float
civ_f32_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

CIV_INLINE uint64_t
civ_f64_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

CIV_INLINE double
civ_f64_from_bits(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

CIV_INLINE float
civ_load_f32(float x)
{
    return x;
}

CIV_INLINE float
civ_save_f32(float x)
{
    return x;
}

CIV_INLINE double
civ_load_f64(double x)
{
    return x;
}

CIV_INLINE double
civ_save_f64(double x)
{
    return x;
}

CIV_INLINE float
civ_load_bf16(civ_bf16 x)
{
    return civ_f32_from_bits((uint32_t)x.bits << 16);
}

/* Bits of x, of which the upper half is x rounded to bfloat16. */
CIV_INLINE uint32_t
civ_round_bf16(float x)
{
    uint32_t bits = civ_f32_bits(x);
    uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    uint32_t nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return nan ? bits | 0x400000u : rounded;
}

CIV_INLINE civ_bf16
civ_save_bf16(float x)
{
    return (civ_bf16){(uint16_t)(civ_round_bf16(x) >> 16)};
}

/*
 * Shifting the 15 magnitude bits into a float's place leaves the exponent 112 too
 * small; multiplying by 2^112 corrects it and normalises subnormals on the way.
 */
CIV_INLINE float
civ_load_f16(civ_f16 x)
{
    uint32_t sign = (uint32_t)(x.bits & 0x8000u) << 16;
    uint32_t magnitude = (uint32_t)(x.bits & 0x7fffu) << 13;
    float scaled = civ_f32_from_bits(magnitude) * 0x1p112f;
    uint32_t special = civ_f32_bits(scaled) | 0x7f800000u;
    uint32_t bits = magnitude >= 0x0f800000u ? special : civ_f32_bits(scaled);
    return civ_f32_from_bits(bits | sign);
}

/*
 * Normal results: round the significand in integer arithmetic. Subnormal results:
 * adding 0.5 aligns the last kept bit with the end of the float's significand, so
 * that the addition itself rounds.
 */
CIV_INLINE civ_f16
civ_save_f16(float x)
{
    uint32_t bits = civ_f32_bits(x);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t normal =
        (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    float shifted = civ_f32_from_bits(magnitude) + 0.5f;
    uint32_t subnormal = civ_f32_bits(shifted) - 0x3f000000u;
    uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    uint32_t clipped = magnitude >= 0x47800000u ? 0x7c00u : finite;
    uint32_t kept = magnitude > 0x7f800000u ? 0x7e00u : clipped;
    return (civ_f16){(uint16_t)(kept | sign)};
}

#endif
