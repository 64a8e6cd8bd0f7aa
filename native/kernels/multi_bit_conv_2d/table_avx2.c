/* Look-ups in tables of 16 bytes, one for four inputs: a permutation finds 32 sums at once. Those of records with the same
 * scales are added up in 16 bits, even and odd bytes apart, before they are multiplied. */
#include <immintrin.h>

#include "store_avx2.h"

enum { kPixels = 4 };

/* Signs of four inputs for sums with signs 0 to 7. */
static __m256i lane_signs(void) {
  int8_t signs[32];
  for (unsigned i = 0; i < 32; i++) signs[i] = (i / 4) >> (i % 4) & 1 ? -1 : 1;
  return _mm256_loadu_si256((const __m256i *)(const void *)signs);
}

/* Products want unsigned inputs: they are 128 more, and what that adds up to is taken off. */
static __m256i lane_offsets(int32_t rounding) {
  int32_t offsets[8];
  for (unsigned i = 0; i < 8; i++) offsets[i] = rounding - 128 * (4 - 2 * __builtin_popcount(i));
  return _mm256_loadu_si256((const __m256i *)(const void *)offsets);
}

typedef struct Filler {
  __m256i signs, offsets;
} Filler;

/* The eight sums of four inputs, each 128 more than it is. */
static inline __attribute__((always_inline)) __m256i sums_of(const Filler *filler, const uint8_t *inputs, int is_quarter) {
  int32_t four;
  memcpy(&four, inputs, sizeof(four));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi32(four), filler->signs);
  const __m256i sums = _mm256_add_epi32(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)), filler->offsets);
  return is_quarter ? _mm256_srai_epi32(sums, 2) : sums;
}

/* The table of 16 inputs. */
static inline __attribute__((always_inline)) void fill(const Filler *filler, const uint8_t *inputs, int is_quarter, uint8_t *cell) {
  const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7), flip = _mm256_set1_epi8(-128);
#pragma GCC unroll 2
  for (int half = 0; half < 2; half++, inputs += 8, cell += KE_TABLE / 2) {
    const __m256i two = _mm256_packs_epi32(sums_of(filler, inputs, is_quarter), sums_of(filler, inputs + 4, is_quarter));
    const __m256i bytes = _mm256_packs_epi16(two, _mm256_sub_epi16(_mm256_setzero_si256(), two));
    const __m256i tables = _mm256_xor_si256(_mm256_permutevar8x32_epi32(bytes, order), flip);
    _mm256_storeu_si256((__m256i *)(void *)cell, tables);
  }
}

/* How many steps each input has reached; no integer reaches one of 128. */
static inline __m128i codes_of_integers(const KeMultiBitLevels *levels, const int8_t *x) {
  const __m128i some = _mm_loadu_si128((const __m128i *)(const void *)x);
  __m128i codes = _mm_setzero_si128();
  for (int k = 0; k + 1 < levels->count && levels->integer_step[k] <= INT8_MAX; k++) {
    const __m128i below = _mm_cmpgt_epi8(_mm_set1_epi8((char)levels->integer_step[k]), some);
    codes = _mm_add_epi8(codes, _mm_add_epi8(below, _mm_set1_epi8(1)));
  }
  return codes;
}

static inline __m128i codes_of_floats(const KeMultiBitLevels *levels, const float *x) {
  const __m256 left = _mm256_loadu_ps(x), right = _mm256_loadu_ps(x + 8);
  __m256i left_codes = _mm256_setzero_si256(), right_codes = _mm256_setzero_si256();
  for (int k = 0; k + 1 < levels->count; k++) {
    const __m256 step = _mm256_set1_ps(levels->step[k]);
    left_codes = _mm256_sub_epi32(left_codes, _mm256_castps_si256(_mm256_cmp_ps(left, step, _CMP_GE_OQ)));
    right_codes = _mm256_sub_epi32(right_codes, _mm256_castps_si256(_mm256_cmp_ps(right, step, _CMP_GE_OQ)));
  }
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(left_codes, right_codes), 0xD8);
  return _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

/* 16 inputs, each 128 more than it is: themselves, or their levels. */
static inline __attribute__((always_inline)) void take_chunk(const KeMultiBitConv2DPlan *plan, const void *x, uint8_t *inputs) {
  const KeMultiBitLevels *levels = &plan->levels;
  __m128i bytes;
  if (plan->shape.activation_bits == 0) {
    bytes = _mm_loadu_si128(x);
  } else {
    const __m128i codes = plan->shape.is_int8 ? codes_of_integers(levels, x) : codes_of_floats(levels, x);
    bytes = _mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)(const void *)levels->integer), codes);
  }
  _mm_storeu_si128((__m128i *)(void *)inputs, _mm_xor_si128(bytes, _mm_set1_epi8(-128)));
}

static inline __attribute__((always_inline)) void take_chunks(const KeMultiBitConv2DPlan *plan, const uint8_t *x, int32_t width,
                                                              uint8_t *cells, int is_quarter) {
  const int32_t channels = plan->shape.conv.in_channels;
  const size_t element = is_quarter || plan->shape.is_int8 ? 1 : sizeof(float);
  const Filler filler = {lane_signs(), lane_offsets(is_quarter ? 2 : 0)};
  uint8_t inputs[KE_CHUNK];
  for (int32_t pixel = 0; pixel < width; pixel++) {
    for (int32_t c = 0; c < channels; c += KE_CHUNK, cells += KE_TABLE) {
      const int32_t count = channels - c < KE_CHUNK ? channels - c : KE_CHUNK;
      if (count == KE_CHUNK) {
        take_chunk(plan, x, inputs);
      } else {
        uint8_t some[KE_CHUNK * sizeof(float)] = {0};
        memcpy(some, x, (size_t)count * element);
        take_chunk(plan, some, inputs);
        memset(inputs + count, KE_NO_INPUTS, (size_t)(KE_CHUNK - count));
      }
      fill(&filler, inputs, is_quarter, cells);
      x += (size_t)count * element;
    }
  }
}

static void take_row(const KeMultiBitConv2DPlan *plan, const void *x, int32_t width, uint8_t *cells) {
  if (plan->shape.activation_bits == 0) {
    take_chunks(plan, x, width, cells, 1);
  } else {
    take_chunks(plan, x, width, cells, 0);
  }
}

static inline __attribute__((always_inline)) void add(int32_t *sums, __m256i products) {
  __m256i *to = (__m256i *)(void *)sums;
  *to = _mm256_add_epi32(*to, products);
}

/* Words times the scales of 16 lanes. */
static inline __attribute__((always_inline)) void weigh(__m256i words, const int32_t *scales, int32_t *sums) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i first = _mm256_loadu_si256((const __m256i *)(const void *)scales);
  const __m256i second = _mm256_loadu_si256((const __m256i *)(const void *)(scales + KE_HALF));
  add(sums, _mm256_madd_epi16(_mm256_unpacklo_epi16(words, zero), first));
  add(sums + KE_HALF, _mm256_madd_epi16(_mm256_unpackhi_epi16(words, zero), second));
}

/* Sums as `weigh` leaves them, in the order of lanes. */
static inline __attribute__((always_inline)) void put_in_order(int32_t *sums) {
  __m256i *both = (__m256i *)(void *)sums;
  const __m256i first = both[0], second = both[1];
  both[0] = _mm256_permute2x128_si256(first, second, 0x20);
  both[1] = _mm256_permute2x128_si256(first, second, 0x31);
}

/* The plane of 32 lanes from `first` on; `pixels` is a constant after inlining. */
static inline __attribute__((always_inline)) void run(const KeMultiBitTile *tile, int32_t first, const int pixels) {
  const int32_t lanes = ke_plane_lanes(tile->vectors), *places = tile->places;
  const __m256i excess = _mm256_set1_epi16((short)(4 * KE_NO_INPUTS * tile->alike));
  const uint32_t *record = tile->records;
  _Alignas(32) int32_t sums[kPixels][KE_PLANE] = {{0}};
  for (int32_t i = 0; i < tile->count; i += tile->alike, places += tile->alike) {
    const int32_t *scales = (const int32_t *)(const void *)(record + lanes) + first;
    __m256i all[kPixels], odd[kPixels]; /* even bytes and 256 times the odd ones; the odd ones */
#pragma GCC unroll 4
    for (int k = 0; k < pixels; k++) all[k] = odd[k] = _mm256_setzero_si256();
    for (int32_t r = 0; r < tile->alike; r++, record += 2 * lanes) {
      const uint8_t *indices = (const uint8_t *)record + first;
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) {
        const __m256i at = _mm256_loadu_si256((const __m256i *)(const void *)(indices + j * lanes));
#pragma GCC unroll 4
        for (int k = 0; k < pixels; k++) {
          const __m128i *table = (const __m128i *)(const void *)(tile->pixel[k] + places[r] + 16 * j);
          const __m256i found = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table)), at);
          all[k] = _mm256_add_epi16(all[k], found);
          odd[k] = _mm256_add_epi16(odd[k], _mm256_srli_epi16(found, 8));
        }
      }
    }
#pragma GCC unroll 4
    for (int k = 0; k < pixels; k++) {
      const __m256i even = _mm256_sub_epi16(all[k], _mm256_slli_epi16(odd[k], 8));
      weigh(_mm256_sub_epi16(even, excess), scales, sums[k]);
      weigh(_mm256_sub_epi16(odd[k], excess), scales + KE_LANES, sums[k] + KE_LANES);
    }
  }
  for (int k = 0; k < pixels; k++) {
    for (int32_t half = 0; half < KE_PLANE && first + half < tile->outputs; half += KE_LANES) {
      put_in_order(sums[k] + half);
      ke_store_vector(tile, k, first + half, sums[k] + half);
    }
  }
}

static void tile(const KeMultiBitTile *tile) {
  for (int32_t first = 0; first < tile->outputs; first += KE_PLANE) {
    if (tile->pixels == 1) {
      run(tile, first, 1);
    } else {
      run(tile, first, kPixels);
    }
  }
}

const KeMultiBitPath ke_multi_bit_table_avx2 = {
    .isa = KE_ISA_AVX2,
    .family = KE_MULTI_BIT_TABLE,
    .pixels = kPixels,
    .is_planar = 1,
    .twin = &ke_multi_bit_table_planar,
    .take_row = take_row,
    .tile = tile,
};
