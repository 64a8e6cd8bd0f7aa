/* Popcounts of 256 bits, a nibble at a time by table: the processor has no instruction for them. Counts of records with the
 * same scales are added up as bytes; their sums over the halves of a word times the scales go to the sums of a tile. */
#include <immintrin.h>

#include "levels.h"
#include "store_avx2.h"

enum { kPixels = 4 };

static inline __attribute__((always_inline)) uint64_t floats_below(const KeMultiBitLevels *levels, const void *x,
                                                                   int32_t count, int32_t k) {
  const __m256 step = _mm256_set1_ps(levels->step[k]);
  const float *values = x;
  uint64_t below = 0;
  int32_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 are_below = _mm256_cmp_ps(_mm256_loadu_ps(values + i), step, _CMP_NGE_UQ);
    below |= (uint64_t)(uint32_t)_mm256_movemask_ps(are_below) << i;
  }
  return i < count ? below | ke_floats_below(levels, values + i, count - i, k) << i : below;
}

static inline __attribute__((always_inline)) uint64_t integers_below(const KeMultiBitLevels *levels, const void *x,
                                                                     int32_t count, int32_t k) {
  if (levels->integer_step[k] > INT8_MAX) return count == 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1;
  const __m256i step = _mm256_set1_epi8((char)levels->integer_step[k]);
  const int8_t *values = x;
  uint64_t below = 0;
  int32_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const __m256i are_below = _mm256_cmpgt_epi8(step, _mm256_loadu_si256((const __m256i *)(const void *)(values + i)));
    below |= (uint64_t)(uint32_t)_mm256_movemask_epi8(are_below) << i;
  }
  return i < count ? below | ke_integers_below(levels, values + i, count - i, k) << i : below;
}

/* One plane, pixels and cells without gaps: the whole row at once. */
static void take_signs(const KeMultiBitConv2DPlan *plan, const int8_t *x, size_t count, uint8_t *cells) {
  const __m256i step = _mm256_set1_epi8((char)plan->levels.integer_step[0]);
  const uint32_t turn = plan->levels.minus[0] ? 0 : UINT32_MAX;
  for (size_t i = 0; i < count; i += 32) {
    const __m256i are_below = _mm256_cmpgt_epi8(step, _mm256_loadu_si256((const __m256i *)(const void *)(x + i)));
    const uint32_t plane = (uint32_t)_mm256_movemask_epi8(are_below) ^ turn;
    memcpy(cells + i / 8, &plane, sizeof(plane));
  }
}

static void take_row(const KeMultiBitConv2DPlan *plan, const void *x, int32_t width, uint8_t *cells) {
  const int32_t channels = plan->shape.conv.in_channels;
  if (plan->shape.is_int8 && plan->planes == 1 && channels % 32 == 0 && plan->levels.integer_step[0] <= INT8_MAX) {
    take_signs(plan, x, (size_t)width * (size_t)channels, cells);
  } else if (plan->shape.is_int8) {
    ke_take_levels(plan, x, width, cells, 1, integers_below);
  } else {
    ke_take_levels(plan, x, width, cells, sizeof(float), floats_below);
  }
}

/* Of every byte. */
static inline __attribute__((always_inline)) __m256i count_bits(__m256i bytes) {
  const __m256i counts = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3,
                                          2, 3, 3, 4);
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i low = _mm256_shuffle_epi8(counts, _mm256_and_si256(bytes, nibble));
  const __m256i high = _mm256_shuffle_epi8(counts, _mm256_and_si256(_mm256_srli_epi32(bytes, 4), nibble));
  return _mm256_add_epi8(low, high);
}

static inline __attribute__((always_inline)) __m256i load(const void *p) { return _mm256_loadu_si256(p); }

/* 16 lanes from `first` on; `pixels` is a constant after inlining. */
static inline __attribute__((always_inline)) void run(const KeMultiBitTile *tile, int32_t first, const int pixels) {
  const int32_t lanes = tile->vectors * KE_LANES, *places = tile->places;
  const uint32_t *record = tile->records + first;
  _Alignas(32) int32_t sums[kPixels][KE_LANES] = {{0}};
  for (int32_t i = 0; i < tile->count; i += tile->alike, places += tile->alike) {
    __m256i counts[kPixels][2];
    const uint32_t *scales = record + lanes;
#pragma GCC unroll 4
    for (int k = 0; k < pixels; k++) counts[k][0] = counts[k][1] = _mm256_setzero_si256();
    for (int32_t r = 0; r < tile->alike; r++, record += 2 * lanes) {
      const __m256i left = load(record), right = load(record + KE_HALF);
#pragma GCC unroll 4
      for (int k = 0; k < pixels; k++) {
        int32_t word;
        memcpy(&word, tile->pixel[k] + places[r], sizeof(word));
        const __m256i words = _mm256_set1_epi32(word);
        counts[k][0] = _mm256_add_epi8(counts[k][0], count_bits(_mm256_xor_si256(left, words)));
        counts[k][1] = _mm256_add_epi8(counts[k][1], count_bits(_mm256_xor_si256(right, words)));
      }
    }
    const __m256i left = load(scales), right = load(scales + KE_HALF), ones = _mm256_set1_epi8(1);
#pragma GCC unroll 4
    for (int k = 0; k < pixels; k++) {
      __m256i *sum = (__m256i *)(void *)sums[k];
      sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(_mm256_maddubs_epi16(counts[k][0], ones), left));
      sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(_mm256_maddubs_epi16(counts[k][1], ones), right));
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < pixels; k++) ke_store_vector(tile, k, first, sums[k]);
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

const KeMultiBitPath ke_multi_bit_popcount_avx2 = {
    .isa = KE_ISA_AVX2,
    .family = KE_MULTI_BIT_POPCOUNT,
    .pixels = kPixels,
    .twin = &ke_multi_bit_popcount_scalar,
    .take_row = take_row,
    .tile = tile,
};
