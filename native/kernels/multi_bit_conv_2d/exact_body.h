/* Unpacked weights in vectors: four pixels by kVectors vectors of kWidth outputs in registers. Included by files of one
 * instruction set each, after KeVector, ke_load, ke_store, ke_set, ke_fmadd, kWidth and kVectors. */
#ifndef KE_MULTI_BIT_EXACT_BODY_H_
#define KE_MULTI_BIT_EXACT_BODY_H_

#include "internal.h"

/* `vectors`, a constant after inlining, of them from `first` on: everything is padded to whole vectors of 16. */
static inline __attribute__((always_inline)) void add_lanes(const float *const *x, int32_t channels, const float *weights,
                                                            size_t pitch, const int vectors, int32_t first,
                                                            float (*sums)[KE_BLOCK]) {
  KeVector sum[KE_EXACT_PIXELS][kVectors];
#pragma GCC unroll 4
  for (int k = 0; k < KE_EXACT_PIXELS; k++) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sum[k][v] = ke_load(sums[k] + first + v * kWidth);
  }
  for (int32_t c = 0; c < channels; c++, weights += pitch) {
    KeVector weight[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) weight[v] = ke_load(weights + first + v * kWidth);
#pragma GCC unroll 4
    for (int k = 0; k < KE_EXACT_PIXELS; k++) {
      const KeVector value = ke_set(x[k][c]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; v++) sum[k][v] = ke_fmadd(value, weight[v], sum[k][v]);
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < KE_EXACT_PIXELS; k++) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) ke_store(sums[k] + first + v * kWidth, sum[k][v]);
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

#endif
