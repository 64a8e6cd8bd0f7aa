/* The end of a tile with 256-bit vectors. */
#ifndef KE_MULTI_BIT_STORE_AVX2_H_
#define KE_MULTI_BIT_STORE_AVX2_H_

#include <immintrin.h>

#include "internal.h"

enum { KE_HALF = KE_LANES / 2 };

static inline __attribute__((always_inline)) __m256 ke_outputs(const KeMultiBitTile *tile, int k, int32_t first, __m256i sums) {
  const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_loadu_ps(tile->multiplier + first));
  const __m256 value = _mm256_max_ps(_mm256_add_ps(scaled, _mm256_loadu_ps(tile->base[k] + first)), _mm256_set1_ps(tile->low));
  return _mm256_min_ps(value, _mm256_set1_ps(tile->high));
}

/* Up to 16 lanes of the k-th pixel from `first` on; `sums` is 32-byte aligned. */
static inline __attribute__((always_inline)) void ke_store_vector(const KeMultiBitTile *tile, int k, int32_t first,
                                                                  const int32_t *sums) {
  if (tile->outputs - first < KE_LANES) {
    ke_store_lanes(tile, k, first, sums);
    return;
  }
  const __m256i *both = (const __m256i *)(const void *)sums;
  const __m256 left = ke_outputs(tile, k, first, both[0]), right = ke_outputs(tile, k, first + KE_HALF, both[1]);
  if (!tile->is_int8) {
    float *y = (float *)tile->y[k] + first;
    _mm256_storeu_ps(y, left);
    _mm256_storeu_ps(y + KE_HALF, right);
    return;
  }
  const __m256i mixed = _mm256_packs_epi32(_mm256_cvtps_epi32(left), _mm256_cvtps_epi32(right));
  const __m256i integers = _mm256_permute4x64_epi64(mixed, 0xD8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(integers), _mm256_extracti128_si256(integers, 1));
  _mm_storeu_si128((__m128i *)(void *)((int8_t *)tile->y[k] + first), bytes);
}

#endif
