/* Unpacked weights with 512-bit vectors: four pixels by 64 outputs in registers. */
#include <immintrin.h>

#include "internal.h"

enum { kWidth = 16, kVectors = 4 };

/* 64 lanes, all of which there are: everything is padded to whole vectors of 16. */
static inline __attribute__((always_inline)) void add_lanes(const float *const *x, int32_t channels, const float *weights,
                                                            size_t pitch, const int vectors, int32_t first,
                                                            float (*sums)[KE_BLOCK]) {
  __m512 sum[KE_EXACT_PIXELS][kVectors];
#pragma GCC unroll 4
  for (int k = 0; k < KE_EXACT_PIXELS; k++) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sum[k][v] = _mm512_load_ps(sums[k] + first + v * kWidth);
  }
  for (int32_t c = 0; c < channels; c++, weights += pitch) {
    __m512 weight[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) weight[v] = _mm512_loadu_ps(weights + first + v * kWidth);
#pragma GCC unroll 4
    for (int k = 0; k < KE_EXACT_PIXELS; k++) {
      const __m512 value = _mm512_set1_ps(x[k][c]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; v++) sum[k][v] = _mm512_fmadd_ps(value, weight[v], sum[k][v]);
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < KE_EXACT_PIXELS; k++) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) _mm512_store_ps(sums[k] + first + v * kWidth, sum[k][v]);
  }
}

static void add_tap(const float *const *x, int32_t channels, const float *weights, size_t pitch, int32_t lanes,
                    float (*sums)[KE_BLOCK]) {
  int32_t first = 0;
  for (; first + kVectors * kWidth <= lanes; first += kVectors * kWidth) {
    add_lanes(x, channels, weights, pitch, kVectors, first, sums);
  }
  for (; first < lanes; first += kWidth) add_lanes(x, channels, weights, pitch, 1, first, sums);
}

const KeMultiBitPath ke_multi_bit_exact_avx512 = {.isa = KE_ISA_AVX512, .family = KE_MULTI_BIT_EXACT, .add_tap = add_tap};
