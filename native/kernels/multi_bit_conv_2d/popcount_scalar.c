/* Popcounts, one lane at a time: the twin of the vector paths. */
#include <math.h>

#include "levels.h"

static uint64_t floats_below(const KeMultiBitLevels *levels, const void *x, int32_t count, int32_t k) {
  const float step = levels->step[k], *values = x;
  uint64_t below = 0;
  for (int32_t i = 0; i < count; i++) below |= (uint64_t)!(values[i] >= step) << i;
  return below;
}

static uint64_t integers_below(const KeMultiBitLevels *levels, const void *x, int32_t count, int32_t k) {
  const int32_t step = levels->integer_step[k];
  const int8_t *values = x;
  uint64_t below = 0;
  for (int32_t i = 0; i < count; i++) below |= (uint64_t)(values[i] < step) << i;
  return below;
}

static void take_row(const KeMultiBitConv2DPlan *plan, const void *x, int32_t width, uint8_t *cells) {
  if (plan->shape.is_int8) {
    ke_take_levels(plan, x, width, cells, 1, integers_below);
  } else {
    ke_take_levels(plan, x, width, cells, sizeof(float), floats_below);
  }
}

static void tile(const KeMultiBitTile *tile) {
  const int32_t lanes = tile->vectors * KE_LANES;
  int32_t sums[KE_BLOCK] = {0};
  const uint32_t *record = tile->records;
  for (int32_t i = 0; i < tile->count; i++, record += 2 * lanes) {
    uint32_t word;
    memcpy(&word, tile->pixel[0] + tile->places[i], sizeof(word));
    for (int32_t lane = 0; lane < lanes; lane++) {
      const uint32_t differ = record[lane] ^ word, scales = record[lanes + lane];
      sums[lane] += (int16_t)(scales & 0xFFFFu) * __builtin_popcount(differ & 0xFFFFu);
      sums[lane] += (int16_t)(scales >> 16) * __builtin_popcount(differ >> 16);
    }
  }
  ke_store_scalar(tile, sums);
}

const KeMultiBitPath ke_multi_bit_popcount_scalar = {KE_ISA_SCALAR, KE_MULTI_BIT_POPCOUNT, 1, take_row, tile};
