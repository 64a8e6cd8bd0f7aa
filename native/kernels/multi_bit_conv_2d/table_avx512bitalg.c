/* Look-ups in tables of 64 bytes, and products with unsigned scales that add four of them up: 256 multiply-accumulates in
 * two instructions, for outputs in lanes. */
#include <immintrin.h>

#include "store_avx512.h"

enum { kPixels = 6 };

/* Signs of the four inputs of lane 4 * s + j, for sums with signs `first` + s. */
static __m512i lane_signs(unsigned first) {
  int8_t signs[64];
  for (unsigned i = 0; i < 64; i++) signs[i] = (first + i / 16) >> (i % 4) & 1 ? -1 : 1;
  return _mm512_loadu_si512(signs);
}

/* vpdpbusd wants unsigned inputs: they are 128 more here, and what that adds up to is taken off. */
static __m512i lane_offsets(unsigned first, int32_t rounding) {
  int32_t offsets[16];
  for (unsigned i = 0; i < 16; i++) offsets[i] = rounding - 128 * (4 - 2 * __builtin_popcount(first + i / 4));
  return _mm512_loadu_si512(offsets);
}

typedef struct Filler {
  __m512i low_signs, high_signs, low_offsets, high_offsets;
} Filler;

static inline Filler make_filler(int32_t rounding) {
  return (Filler){lane_signs(0), lane_signs(4), lane_offsets(0, rounding), lane_offsets(4, rounding)};
}

/* A table of 16 inputs, each 128 more than it is. */
static inline __attribute__((always_inline)) void fill(const Filler *filler, __m512i inputs, int is_quarter, uint8_t *cell) {
  const __m512i low = _mm512_dpbusd_epi32(filler->low_offsets, inputs, filler->low_signs);
  const __m512i high = _mm512_dpbusd_epi32(filler->high_offsets, inputs, filler->high_signs);
  __m512i sums = _mm512_packs_epi32(low, high);
  if (is_quarter) sums = _mm512_srai_epi16(sums, 2);
  _mm512_store_si512(cell, _mm512_packs_epi16(sums, _mm512_sub_epi16(_mm512_setzero_si512(), sums)));
}

static inline __mmask16 first_of(int32_t count) { return count >= KE_CHUNK ? 0xFFFF : (__mmask16)((1u << count) - 1u); }

static void take_integers(const KeMultiBitConv2DPlan *plan, const int8_t *x, int32_t width, uint8_t *cells) {
  const int32_t channels = plan->shape.conv.in_channels;
  const Filler filler = make_filler(2);
  const __m512i flip = _mm512_set1_epi8(-128);
  for (int32_t pixel = 0; pixel < width; pixel++, x += channels) {
    int32_t c = 0;
    for (; c + KE_CHUNK <= channels; c += KE_CHUNK, cells += KE_TABLE) {
      const __m512i inputs = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(x + c)));
      fill(&filler, _mm512_xor_si512(inputs, flip), 1, cells);
    }
    if (c == channels) continue;
    const __m512i inputs = _mm512_broadcast_i32x4(_mm_maskz_loadu_epi8(first_of(channels - c), x + c));
    fill(&filler, _mm512_xor_si512(inputs, flip), 1, cells);
    cells += KE_TABLE;
  }
}

/* The rest: levels of 16 inputs, each 128 more than it is; those that are none are 0. */
static inline __attribute__((always_inline)) __m128i levels_of_floats(const KeMultiBitLevels *levels, int count,
                                                                     const float *x, __mmask16 real) {
  const __m512 some = _mm512_maskz_loadu_ps(real, x);
  __m128i integers = _mm_set1_epi8(levels->integer[0]);
#pragma GCC unroll 7
  for (int k = 0; k + 1 < count; k++) {
    const __mmask16 above = _mm512_cmp_ps_mask(some, _mm512_set1_ps(levels->step[k]), _CMP_GE_OQ);
    integers = _mm_mask_blend_epi8(above, integers, _mm_set1_epi8(levels->integer[k + 1]));
  }
  return _mm_xor_si128(_mm_maskz_mov_epi8(real, integers), _mm_set1_epi8(-128));
}

/* The same of 64 integers. No integer reaches a step of 128. */
static inline __attribute__((always_inline)) __m512i levels_of_integers(const KeMultiBitLevels *levels, int count,
                                                                        const int8_t *x, __mmask64 real) {
  const __m512i some = _mm512_maskz_loadu_epi8(real, x);
  __m512i integers = _mm512_set1_epi8(levels->integer[0]);
#pragma GCC unroll 7
  for (int k = 0; k + 1 < count; k++) {
    const int reached = levels->integer_step[k] <= INT8_MAX;
    const __mmask64 above = _mm512_cmpge_epi8_mask(some, _mm512_set1_epi8((char)levels->integer_step[k]));
    integers = _mm512_mask_blend_epi8(reached ? above : 0, integers, _mm512_set1_epi8(levels->integer[k + 1]));
  }
  return _mm512_xor_si512(_mm512_maskz_mov_epi8(real, integers), _mm512_set1_epi8(-128));
}

/* The rest of a row's or a pixel's inputs, at most 64. */
static inline __attribute__((always_inline)) __m512i levels_of(const KeMultiBitConv2DPlan *plan, int count, const void *x,
                                                              size_t first, size_t left) {
  const KeMultiBitLevels *levels = &plan->levels;
  if (plan->shape.is_int8) {
    const __mmask64 real = left >= 64 ? UINT64_MAX : (UINT64_C(1) << left) - 1;
    return levels_of_integers(levels, count, (const int8_t *)x + first, real);
  }
  _Alignas(64) uint8_t inputs[64] = {0};
  for (size_t c = 0; c < 64 && c < left; c += KE_CHUNK) {
    const __m128i some = levels_of_floats(levels, count, (const float *)x + first + c, first_of(left - c < 16 ? (int32_t)(left - c) : 16));
    _mm_store_si128((__m128i *)(void *)(inputs + c), some);
  }
  return _mm512_load_si512(inputs);
}

/* `length` inputs that lie together and begin a chunk: a pixel's, or a row's where pixels are whole chunks. */
static inline __attribute__((always_inline)) void take_together(const KeMultiBitConv2DPlan *plan, const Filler *filler,
                                                               int count, const void *x, size_t first, size_t length,
                                                               uint8_t *cells) {
  size_t i = 0;
  for (; i + 64 <= length; i += 64, cells += 4 * KE_TABLE) {
    const __m512i inputs = levels_of(plan, count, x, first + i, 64);
    fill(filler, _mm512_shuffle_i32x4(inputs, inputs, 0x00), 0, cells);
    fill(filler, _mm512_shuffle_i32x4(inputs, inputs, 0x55), 0, cells + KE_TABLE);
    fill(filler, _mm512_shuffle_i32x4(inputs, inputs, 0xAA), 0, cells + 2 * KE_TABLE);
    fill(filler, _mm512_shuffle_i32x4(inputs, inputs, 0xFF), 0, cells + 3 * KE_TABLE);
  }
  if (i == length) return;
  _Alignas(64) uint8_t inputs[64];
  _mm512_store_si512(inputs, levels_of(plan, count, x, first + i, length - i));
  for (size_t c = 0; c < length - i; c += KE_CHUNK, cells += KE_TABLE) {
    fill(filler, _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(const void *)(inputs + c))), 0, cells);
  }
}

static inline __attribute__((always_inline)) void take_levels(const KeMultiBitConv2DPlan *plan, int count, const void *x,
                                                             int32_t width, uint8_t *cells) {
  const size_t channels = (size_t)plan->shape.conv.in_channels, pixels = (size_t)width;
  const Filler filler = make_filler(0);
  if (channels % KE_CHUNK == 0) {
    take_together(plan, &filler, count, x, 0, pixels * channels, cells);
    return;
  }
  for (size_t pixel = 0; pixel < pixels; pixel++, cells += plan->cell) {
    take_together(plan, &filler, count, x, pixel * channels, channels, cells);
  }
}

static void take_row(const KeMultiBitConv2DPlan *plan, const void *x, int32_t width, uint8_t *cells) {
  switch (plan->shape.activation_bits) {
    case 0:
      take_integers(plan, x, width, cells);
      break;
    case 1:
      take_levels(plan, 2, x, width, cells);
      break;
    case 2:
      take_levels(plan, 4, x, width, cells);
      break;
    default:
      take_levels(plan, 8, x, width, cells);
  }
}

static inline __attribute__((always_inline)) void run(const KeMultiBitTile *tile, const int vectors, const int shared,
                                                      const int pixels) {
  const __m512i mask = _mm512_set1_epi8(0x3C), fours = _mm512_set1_epi32(0x03020100);
  __m512i sums[kPixels][4];
  const uint8_t *from[kPixels];
#pragma GCC unroll 6
  for (int k = 0; k < pixels; k++) {
    from[k] = tile->pixel[k];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sums[k][v] = _mm512_setzero_si512();
  }
  const uint32_t *record = tile->records;
  const int32_t *places = tile->places;
  for (int32_t i = 0; i < tile->count; i++, record += (shared ? 2 : 3) * vectors * KE_LANES) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      const int64_t place = places[2 * i + half];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; v++) {
        __m512i indices = _mm512_load_si512(record + v * KE_LANES);
        if (half) indices = _mm512_ror_epi32(indices, 4);
        indices = _mm512_ternarylogic_epi32(indices, mask, fours, 0xEA); /* (indices & mask) | fours */
        const __m512i scales = _mm512_load_si512(record + (vectors * (1 + (shared ? 0 : half)) + v) * KE_LANES);
#pragma GCC unroll 6
        for (int k = 0; k < pixels; k++) {
          __m512i found;
          /* In assembly, or gcc copies accumulators and spills them. */
          __asm__("vpermb %2, %1, %0" : "=v"(found) : "v"(indices), "m"(*(const __m512i *)(const void *)(from[k] + place)));
          __asm__("vpdpbusd %2, %1, %0" : "+v"(sums[k][v]) : "v"(scales), "v"(found));
        }
      }
    }
  }
  ke_store_tile(tile, pixels, vectors, (const __m512i(*)[4])sums);
}

#define CASE(vectors)                                \
  case vectors:                                      \
    if (tile->pixels == 1 && tile->shared) {         \
      run(tile, vectors, 1, 1);                      \
    } else if (tile->pixels == 1) {                  \
      run(tile, vectors, 0, 1);                      \
    } else if (tile->shared) {                       \
      run(tile, vectors, 1, kPixels);                \
    } else {                                         \
      run(tile, vectors, 0, kPixels);                \
    }                                                \
    break

static void tile(const KeMultiBitTile *tile) {
  switch (tile->vectors) {
    CASE(1);
    CASE(2);
    CASE(3);
    CASE(4);
    default:
      break;
  }
}

const KeMultiBitPath ke_multi_bit_table_avx512bitalg = {
    .isa = KE_ISA_AVX512BITALG,
    .family = KE_MULTI_BIT_TABLE,
    .pixels = kPixels,
    .twin = &ke_multi_bit_table_scalar,
    .take_row = take_row,
    .tile = tile,
};
