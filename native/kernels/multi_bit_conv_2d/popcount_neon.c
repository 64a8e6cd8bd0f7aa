/* Popcounts of 128 bits: exclusive or, counts of bytes, an addition. Counts of records with the same scales are added up as
 * bytes; their sums over the halves of a word times the scales go to the sums of a tile.
 *
 * Results were compared under an emulator; nothing was timed on a processor. */
#include "cpu.h"

#if defined(KE_NEON_FILES)

#include <arm_neon.h>

#include "levels.h"

#if defined(__aarch64__)
enum { kPixels = 4 };
#else
enum { kPixels = 2 };
#endif
enum { kQuads = KE_LANES / 4 };

#if defined(__aarch64__)
static inline uint64_t floats_below(const KeMultiBitLevels *levels, const void *x, int32_t count, int32_t k) {
  static const uint32_t place[4] = {1, 2, 4, 8};
  const float32x4_t step = vdupq_n_f32(levels->step[k]);
  const uint32x4_t places = vld1q_u32(place);
  const float *values = x;
  uint64_t below = 0;
  int32_t i = 0;
  for (; i + 4 <= count; i += 4) {
    below |= (uint64_t)vaddvq_u32(vbicq_u32(places, vcgeq_f32(vld1q_f32(values + i), step))) << i;
  }
  return i < count ? below | ke_floats_below(levels, values + i, count - i, k) << i : below;
}
#else /* there vectors take the smallest numbers for 0 */
static inline uint64_t floats_below(const KeMultiBitLevels *levels, const void *x, int32_t count, int32_t k) {
  return ke_floats_below(levels, x, count, k);
}
#endif

static inline uint64_t integers_below(const KeMultiBitLevels *levels, const void *x, int32_t count, int32_t k) {
  static const uint8_t place[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  if (levels->integer_step[k] > INT8_MAX) return count == 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1;
  const int8x16_t step = vdupq_n_s8((int8_t)levels->integer_step[k]);
  const uint8x16_t places = vld1q_u8(place);
  const int8_t *values = x;
  uint64_t below = 0;
  int32_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const uint8x16_t bits = vandq_u8(places, vcltq_s8(vld1q_s8(values + i), step));
    uint8x8_t sums = vpadd_u8(vget_low_u8(bits), vget_high_u8(bits));
    sums = vpadd_u8(sums, sums);
    sums = vpadd_u8(sums, sums);
    below |= (uint64_t)vget_lane_u16(vreinterpret_u16_u8(sums), 0) << i;
  }
  return i < count ? below | ke_integers_below(levels, values + i, count - i, k) << i : below;
}

static void take_row(const KeMultiBitConv2DPlan *plan, const void *x, int32_t width, uint8_t *cells) {
  if (plan->shape.is_int8) {
    ke_take_levels(plan, x, width, cells, 1, integers_below);
  } else {
    ke_take_levels(plan, x, width, cells, sizeof(float), floats_below);
  }
}

/* What the counts of four lanes add to their sums. */
static inline int32x4_t weighed(uint8x16_t counts, int16x8_t scales) {
  const int16x8_t halves = vreinterpretq_s16_u16(vpaddlq_u8(counts));
  const int32x4_t low = vmull_s16(vget_low_s16(halves), vget_low_s16(scales));
  const int32x4_t high = vmull_s16(vget_high_s16(halves), vget_high_s16(scales));
  return vcombine_s32(vpadd_s32(vget_low_s32(low), vget_high_s32(low)), vpadd_s32(vget_low_s32(high), vget_high_s32(high)));
}

/* 16 lanes from `first` on; `pixels` is a constant after inlining. */
static inline __attribute__((always_inline)) void run(const KeMultiBitTile *tile, int32_t first, const int pixels) {
  const int32_t lanes = tile->vectors * KE_LANES, *places = tile->places;
  const uint32_t *record = tile->records + first;
  int32_t sums[kPixels][KE_LANES] = {{0}};
  for (int32_t i = 0; i < tile->count; i += tile->alike, places += tile->alike) {
    uint8x16_t counts[kPixels][kQuads];
    const uint32_t *scales = record + lanes;
#pragma GCC unroll 4
    for (int k = 0; k < pixels; k++) {
#pragma GCC unroll 4
      for (int q = 0; q < kQuads; q++) counts[k][q] = vdupq_n_u8(0);
    }
    for (int32_t r = 0; r < tile->alike; r++, record += 2 * lanes) {
      uint32x4_t bits[kQuads];
#pragma GCC unroll 4
      for (int q = 0; q < kQuads; q++) bits[q] = vld1q_u32(record + 4 * q);
#pragma GCC unroll 4
      for (int k = 0; k < pixels; k++) {
        uint32_t word;
        memcpy(&word, tile->pixel[k] + places[r], sizeof(word));
        const uint32x4_t words = vdupq_n_u32(word);
#pragma GCC unroll 4
        for (int q = 0; q < kQuads; q++) {
          counts[k][q] = vaddq_u8(counts[k][q], vcntq_u8(vreinterpretq_u8_u32(veorq_u32(bits[q], words))));
        }
      }
    }
#pragma GCC unroll 4
    for (int q = 0; q < kQuads; q++) {
      const int16x8_t four = vreinterpretq_s16_u32(vld1q_u32(scales + 4 * q));
#pragma GCC unroll 4
      for (int k = 0; k < pixels; k++) {
        vst1q_s32(sums[k] + 4 * q, vaddq_s32(vld1q_s32(sums[k] + 4 * q), weighed(counts[k][q], four)));
      }
    }
  }
  for (int k = 0; k < pixels; k++) ke_store_lanes(tile, k, first, sums[k]);
}

static void tile(const KeMultiBitTile *tile) {
  for (int32_t first = 0; first < tile->outputs; first += KE_LANES) {
    if (tile->pixels == 1) {
      run(tile, first, 1);
    } else {
      run(tile, first, kPixels);
    }
  }
}

const KeMultiBitPath ke_multi_bit_popcount_neon = {
    .isa = KE_ISA_NEON,
    .family = KE_MULTI_BIT_POPCOUNT,
    .pixels = kPixels,
    .twin = &ke_multi_bit_popcount_scalar,
    .take_row = take_row,
    .tile = tile,
};

#else
typedef int ke_no_popcount_neon;
#endif
