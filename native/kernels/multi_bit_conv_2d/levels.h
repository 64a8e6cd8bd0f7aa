/* Bits of multi-bit inputs from comparisons. Included by files of one instruction set each, so everything is static. */
#ifndef KE_MULTI_BIT_LEVELS_H_
#define KE_MULTI_BIT_LEVELS_H_

#include <string.h>

#include "internal.h"

/* Which of up to 64 inputs are below the k-th step, the first in the lowest place. */
typedef uint64_t (*KeBelow)(const KeMultiBitLevels *levels, const void *x, int32_t count, int32_t k);

static inline uint64_t ke_floats_below(const KeMultiBitLevels *levels, const void *x, int32_t count, int32_t k) {
  const float step = levels->step[k], *values = x;
  uint64_t below = 0;
  for (int32_t i = 0; i < count; i++) below |= (uint64_t)!(values[i] >= step) << i;
  return below;
}

static inline uint64_t ke_integers_below(const KeMultiBitLevels *levels, const void *x, int32_t count, int32_t k) {
  const int32_t step = levels->integer_step[k];
  const int8_t *values = x;
  uint64_t below = 0;
  for (int32_t i = 0; i < count; i++) below |= (uint64_t)(values[i] < step) << i;
  return below;
}

/* Cells of a row: a plane's bit is 1 where d is -1. What is below one step is below all higher ones, so a plane changes its
 * value at every step between levels that differ in it. */
static inline __attribute__((always_inline)) void ke_take_levels(const KeMultiBitConv2DPlan *plan, const void *x,
                                                                 int32_t width, uint8_t *cells, size_t element,
                                                                 KeBelow below) {
  const KeMultiBitLevels *levels = &plan->levels;
  const int32_t channels = plan->shape.conv.in_channels, last = levels->count - 1;
  const uint8_t *from = x;
  for (int32_t pixel = 0; pixel < width; pixel++, cells += plan->cell, from += (size_t)channels * element) {
    for (int32_t c = 0; c < channels; c += 64) {
      const int32_t count = channels - c < 64 ? channels - c : 64;
      const uint64_t real = count == 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1;
      uint64_t planes[3];
      for (int32_t j = 0; j < plan->planes; j++) planes[j] = levels->minus[last] >> j & 1 ? real : 0;
      for (int32_t k = 0; k < last; k++) {
        const uint64_t is_below = below(levels, from + (size_t)c * element, count, k);
        const uint32_t changes = levels->minus[k] ^ levels->minus[k + 1];
        for (int32_t j = 0; j < plan->planes; j++) planes[j] ^= changes >> j & 1 ? is_below : 0;
      }
      const size_t bytes = count > 32 ? 8 : 4;
      for (int32_t j = 0; j < plan->planes; j++) {
        const size_t word = (size_t)j * (size_t)plan->inner + (size_t)c / 32;
        memcpy(cells + word * sizeof(uint32_t), &planes[j], bytes); /* the lower half comes first */
      }
    }
  }
}

#endif
