/* Popcounts of 512 bits: a lane is an output, so nothing is ever added across lanes. For every record and pixel: xor with
 * the pixel's word, population counts of the halves, and the product with their scales, which adds up at once. Counts of two
 * records of the same scales are added before: some processors count and multiply in the same units. */
#include <immintrin.h>

#include "levels.h"
#include "store_avx512.h"

enum { kPixels = 6 };

static inline __attribute__((always_inline)) uint64_t floats_below(const KeMultiBitLevels *levels, const void *x,
                                                                   int32_t count, int32_t k) {
  const __m512 step = _mm512_set1_ps(levels->step[k]);
  const float *values = x;
  uint64_t below = 0;
  for (int32_t i = 0; i < count; i += KE_LANES) {
    const int32_t left = count - i;
    const __mmask16 real = left >= KE_LANES ? 0xFFFF : (__mmask16)((1u << left) - 1u);
    const __m512 some = _mm512_maskz_loadu_ps(real, values + i);
    below |= (uint64_t)_mm512_mask_cmp_ps_mask(real, some, step, _CMP_NGE_UQ) << i;
  }
  return below;
}

static inline __attribute__((always_inline)) uint64_t integers_below(const KeMultiBitLevels *levels, const void *x,
                                                                     int32_t count, int32_t k) {
  const uint64_t real = count == 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1;
  if (levels->integer_step[k] > INT8_MAX) return real;
  const __m512i step = _mm512_set1_epi8((char)levels->integer_step[k]);
  return _mm512_mask_cmplt_epi8_mask(real, _mm512_maskz_loadu_epi8(real, x), step);
}

/* Whole words without gaps: a pixel's planes follow one another. `planes` is a constant after inlining. */
static inline __attribute__((always_inline)) void take_words(const KeMultiBitConv2DPlan *plan, const int planes,
                                                             const int8_t *x, int32_t width, uint8_t *cells) {
  const KeMultiBitLevels *levels = &plan->levels;
  const int steps = (1 << planes) - 1;
  const int32_t words = plan->shape.conv.in_channels / 64;
  __m512i step[3];
  uint64_t start[2], change[2][3];
#pragma GCC unroll 2
  for (int j = 0; j < planes; j++) start[j] = levels->minus[steps] >> j & 1 ? UINT64_MAX : 0;
#pragma GCC unroll 3
  for (int k = 0; k < steps; k++) {
    step[k] = _mm512_set1_epi8((char)levels->integer_step[k]);
#pragma GCC unroll 2
    for (int j = 0; j < planes; j++) change[j][k] = (levels->minus[k] ^ levels->minus[k + 1]) >> j & 1 ? UINT64_MAX : 0;
  }
  for (int32_t pixel = 0; pixel < width; pixel++, cells += plan->cell) {
    for (int32_t word = 0; word < words; word++, x += 64) {
      const __m512i some = _mm512_loadu_si512(x);
      uint64_t bits[2] = {start[0], planes == 2 ? start[1] : 0};
#pragma GCC unroll 3
      for (int k = 0; k < steps; k++) {
        const uint64_t below = _mm512_cmplt_epi8_mask(some, step[k]);
#pragma GCC unroll 2
        for (int j = 0; j < planes; j++) bits[j] ^= below & change[j][k];
      }
#pragma GCC unroll 2
      for (int j = 0; j < planes; j++) memcpy(cells + 8 * (j * words + word), &bits[j], sizeof(bits[j]));
    }
  }
}

/* Whether integers can be compared with all steps: the last one may be beyond them. */
static int are_bytes(const KeMultiBitLevels *levels) { return levels->integer_step[levels->count - 2] <= INT8_MAX; }

static void take_row(const KeMultiBitConv2DPlan *plan, const void *x, int32_t width, uint8_t *cells) {
  const int32_t channels = plan->shape.conv.in_channels;
  const int is_plain = plan->shape.is_int8 && channels % 64 == 0 && are_bytes(&plan->levels);
  if (is_plain && plan->planes == 1) {
    take_words(plan, 1, x, width, cells);
  } else if (is_plain && plan->planes == 2) {
    take_words(plan, 2, x, width, cells);
  } else if (plan->shape.is_int8) {
    ke_take_levels(plan, x, width, cells, 1, integers_below);
  } else {
    ke_take_levels(plan, x, width, cells, sizeof(float), floats_below);
  }
}

/* Differences of a vector of weights and a pixel's word, counted. In assembly, or gcc copies accumulators and spills them. */
static inline __attribute__((always_inline)) __m512i count_differences(__m512i bits, const uint8_t *word) {
  __m512i differ;
  __asm__("vpxord %2%{1to16%}, %1, %0" : "=v"(differ) : "v"(bits), "m"(*(const uint32_t *)(const void *)word));
  __asm__("vpopcntw %0, %0" : "+v"(differ));
  return differ;
}

static inline __attribute__((always_inline)) void run(const KeMultiBitTile *tile, const int vectors, const int together,
                                                      const int pixels) {
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
  for (int32_t i = 0; i < tile->count; i += together, record += 2 * together * vectors * KE_LANES) {
    const int64_t place = places[i], next = places[i + together - 1];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
      const __m512i bits = _mm512_load_si512(record + v * KE_LANES);
      const __m512i scales = _mm512_load_si512(record + (vectors + v) * KE_LANES);
      const __m512i more = _mm512_load_si512(record + (2 * (together - 1) * vectors + v) * KE_LANES);
#pragma GCC unroll 6
      for (int k = 0; k < pixels; k++) {
        __m512i counts = count_differences(bits, from[k] + place);
        if (together == 2) {
          __asm__("vpaddw %1, %0, %0" : "+v"(counts) : "v"(count_differences(more, from[k] + next)));
        }
        __asm__("vpdpwssd %2, %1, %0" : "+v"(sums[k][v]) : "v"(counts), "v"(scales));
      }
    }
  }
  ke_store_tile(tile, pixels, vectors, (const __m512i(*)[4])sums);
}

#define CASE(vectors)                        \
  case vectors:                              \
    if (tile->pixels == 1) {                 \
      run(tile, vectors, 1, 1);              \
    } else if (tile->alike % 2 == 0) {       \
      run(tile, vectors, 2, kPixels);        \
    } else {                                 \
      run(tile, vectors, 1, kPixels);        \
    }                                        \
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

const KeMultiBitPath ke_multi_bit_popcount_avx512bitalg = {
    .isa = KE_ISA_AVX512BITALG,
    .family = KE_MULTI_BIT_POPCOUNT,
    .pixels = kPixels,
    .twin = &ke_multi_bit_popcount_scalar,
    .take_row = take_row,
    .tile = tile,
};
