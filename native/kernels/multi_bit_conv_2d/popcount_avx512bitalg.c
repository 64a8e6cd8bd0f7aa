/* Popcounts of 512 bits: a lane is an output, so nothing is ever added across lanes. For every record and pixel: xor with
 * the pixel's word, population counts of the halves, and the product with their scales, which adds up at once. */
#include <immintrin.h>

#include "levels.h"
#include "store_avx512.h"

enum { kPixels = 7 };

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

/* One plane, pixels and cells without gaps: the whole row at once. */
static void take_signs(const KeMultiBitConv2DPlan *plan, const int8_t *x, size_t count, uint8_t *cells) {
  const __m512i step = _mm512_set1_epi8((char)plan->levels.integer_step[0]);
  const uint64_t turn = plan->levels.minus[0] ? 0 : UINT64_MAX;
  for (size_t i = 0; i < count; i += 64) {
    const uint64_t plane = _mm512_cmplt_epi8_mask(_mm512_loadu_si512(x + i), step) ^ turn;
    memcpy(cells + i / 8, &plane, sizeof(plane));
  }
}

static void take_row(const KeMultiBitConv2DPlan *plan, const void *x, int32_t width, uint8_t *cells) {
  const int32_t channels = plan->shape.conv.in_channels;
  if (plan->shape.is_int8 && plan->planes == 1 && channels % 64 == 0 && plan->levels.integer_step[0] <= INT8_MAX) {
    take_signs(plan, x, (size_t)width * (size_t)channels, cells);
  } else if (plan->shape.is_int8) {
    ke_take_levels(plan, x, width, cells, 1, integers_below);
  } else {
    ke_take_levels(plan, x, width, cells, sizeof(float), floats_below);
  }
}

static inline __attribute__((always_inline)) void run(const KeMultiBitTile *tile, const int vectors, const int pixels) {
  __m512i sums[kPixels][4];
  const uint8_t *from[kPixels];
#pragma GCC unroll 7
  for (int k = 0; k < pixels; k++) {
    from[k] = tile->pixel[k];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sums[k][v] = _mm512_setzero_si512();
  }
  const uint32_t *record = tile->records;
  const int32_t *places = tile->places;
  for (int32_t i = 0; i < tile->count; i++, record += 2 * vectors * KE_LANES) {
    const int64_t place = places[i];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
      const __m512i bits = _mm512_load_si512(record + v * KE_LANES);
      const __m512i scales = _mm512_load_si512(record + (vectors + v) * KE_LANES);
#pragma GCC unroll 7
      for (int k = 0; k < pixels; k++) {
        __m512i differ;
        /* In assembly, or gcc copies accumulators and spills them. */
        __asm__("vpxord %2%{1to16%}, %1, %0" : "=v"(differ) : "v"(bits), "m"(*(const uint32_t *)(const void *)(from[k] + place)));
        __asm__("vpopcntw %0, %0" : "+v"(differ));
        __asm__("vpdpwssd %2, %1, %0" : "+v"(sums[k][v]) : "v"(differ), "v"(scales));
      }
    }
  }
  ke_store_tile(tile, pixels, vectors, (const __m512i(*)[4])sums);
}

#define CASE(vectors)                \
  case vectors:                      \
    if (tile->pixels == 1) {         \
      run(tile, vectors, 1);         \
    } else {                         \
      run(tile, vectors, kPixels);   \
    }                                \
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
