/* Popcounts, one lane at a time: the twin of the vector paths. */
#include "levels.h"

static void take_row(const KeMultiBitConv2DPlan *plan, const void *x, int32_t width, uint8_t *cells) {
  if (plan->shape.is_int8) {
    ke_take_levels(plan, x, width, cells, 1, ke_integers_below);
  } else {
    ke_take_levels(plan, x, width, cells, sizeof(float), ke_floats_below);
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
  for (int32_t first = 0; first < tile->outputs; first += KE_LANES) ke_store_lanes(tile, 0, first, sums + first);
}

const KeMultiBitPath ke_multi_bit_popcount_scalar = {
    .isa = KE_ISA_SCALAR,
    .family = KE_MULTI_BIT_POPCOUNT,
    .pixels = 1,
    .take_row = take_row,
    .tile = tile,
};
