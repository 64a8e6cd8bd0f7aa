/* The end of a tile with 512-bit vectors. */
#ifndef KE_MULTI_BIT_STORE_AVX512_H_
#define KE_MULTI_BIT_STORE_AVX512_H_

#include <immintrin.h>

#include "internal.h"

static inline __attribute__((always_inline)) __m512 ke_outputs(const KeMultiBitTile *tile, int k, int v, __m512i sums) {
  const __m512 multiplier = _mm512_loadu_ps(tile->multiplier + v * KE_LANES);
  const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), multiplier);
  const __m512 value = _mm512_add_ps(scaled, _mm512_loadu_ps(tile->base[k] + v * KE_LANES));
  if (!tile->is_clamped) return value; /* conversions saturate */
  return _mm512_min_ps(_mm512_max_ps(value, _mm512_set1_ps(tile->low)), _mm512_set1_ps(tile->high));
}

/* A whole block of one pixel as int8. Bounds are integers there, so they may wait until the end. */
static inline __attribute__((always_inline)) void ke_store_block(const float *multiplier, const float *base, __m512i low,
                                                                 __m512i high, const __m512i *sums, void *y) {
  __m512i integers[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; v++) {
    const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[v]), _mm512_loadu_ps(multiplier + v * KE_LANES));
    integers[v] = _mm512_cvtps_epi32(_mm512_add_ps(scaled, _mm512_loadu_ps(base + v * KE_LANES)));
  }
  const __m512i packed = _mm512_packs_epi16(_mm512_packs_epi32(integers[0], integers[1]),
                                            _mm512_packs_epi32(integers[2], integers[3]));
  const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  const __m512i bounded = _mm512_min_epi8(_mm512_max_epi8(packed, low), high);
  _mm512_storeu_si512(y, _mm512_permutexvar_epi32(order, bounded));
}

static inline __attribute__((always_inline)) void ke_store_vector(const KeMultiBitTile *tile, int k, int v, __m512i sums) {
  const int32_t left = tile->outputs - v * KE_LANES;
  const __mmask16 real = left >= KE_LANES ? 0xFFFF : (__mmask16)((1u << left) - 1u);
  const __m512 value = ke_outputs(tile, k, v, sums);
  if (tile->is_int8) {
    _mm512_mask_cvtsepi32_storeu_epi8((int8_t *)tile->y[k] + v * KE_LANES, real, _mm512_cvtps_epi32(value));
  } else {
    _mm512_mask_storeu_ps((float *)tile->y[k] + v * KE_LANES, real, value);
  }
}

/* All of a tile; `sums` holds four vectors for each pixel. */
static inline __attribute__((always_inline)) void ke_store_tile(const KeMultiBitTile *tile, int pixels, int vectors,
                                                                const __m512i (*sums)[4]) {
  if (vectors == 4 && tile->is_int8 && tile->outputs == KE_BLOCK) {
    const __m512i low = _mm512_set1_epi8((char)tile->low), high = _mm512_set1_epi8((char)tile->high);
    const float *multiplier = tile->multiplier;
#pragma GCC unroll 8
    for (int k = 0; k < pixels; k++) ke_store_block(multiplier, tile->base[k], low, high, sums[k], tile->y[k]);
    return;
  }
#pragma GCC unroll 8
  for (int k = 0; k < pixels; k++) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) ke_store_vector(tile, k, v, sums[k][v]);
  }
}

#endif
