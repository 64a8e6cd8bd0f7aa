/* AVX2: vectors of 8 output channels, two inputs of 16 bits to a unit (sums of two products of bytes would saturate), weights
 * widened as they are loaded, tiles of up to 12 sums. */
#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#include "internal.h"
#include "words.h"

enum { LANES = 8, WEIGHT_BYTES = 2 };
typedef __m256i vec;
typedef __m256i vec_unit;
typedef __m256 vec_float;

static inline vec vec_load(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
static inline vec vec_set(int32_t value) { return _mm256_set1_epi32(value); }
static inline vec_float vec_load_float(const float *p) { return _mm256_loadu_ps(p); }
static inline vec_unit vec_load_weights(const uint8_t *p) {
  return _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(const void *)p));
}
static inline vec_unit vec_broadcast(const uint8_t *p) {
  int32_t unit;
  memcpy(&unit, p, sizeof(unit));
  return _mm256_set1_epi32(unit);
}

#define VEC_MULTIPLY_ADD(sum, x, w) sum = _mm256_add_epi32(sum, _mm256_madd_epi16(x, w))

static inline vec requantize(vec sum, vec low, vec cap, vec_float scale) {
  const vec acted = _mm256_min_epi32(_mm256_max_epi32(sum, low), cap);
  return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(acted), scale));
}

/* Of four vectors the lower halves side by side, then the upper ones. What is beyond 16 bits is beyond 8 with the zero point
 * as well. */
static inline __m256i narrow(vec a, vec b, vec c, vec d, __m256i zero_point) {
  const __m256i first = _mm256_adds_epi16(_mm256_packs_epi32(a, b), zero_point);
  const __m256i last = _mm256_adds_epi16(_mm256_packs_epi32(c, d), zero_point);
  return _mm256_packs_epi16(first, last);
}

/* One vector of each of four pixels, `count` of them wanted. */
static inline void store_pixels(int8_t *y0, int8_t *y1, int8_t *y2, int8_t *y3, const int count, __m256i bytes) {
  const __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
  const __m128i two = _mm_unpacklo_epi32(low, high), more = _mm_unpackhi_epi32(low, high);
  _mm_storel_epi64((__m128i *)(void *)y0, two);
  if (count > 1) _mm_storeh_pd((double *)(void *)y1, _mm_castsi128_pd(two));
  if (count > 2) _mm_storel_epi64((__m128i *)(void *)y2, more);
  if (count > 3) _mm_storeh_pd((double *)(void *)y3, _mm_castsi128_pd(more));
}

/* Two vectors of each of two pixels. */
static inline void store_pairs(int8_t *y0, int8_t *y1, const int count, __m256i bytes) {
  const __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
  _mm_storeu_si128((__m128i *)(void *)y0, _mm_unpacklo_epi32(low, high));
  if (count > 1) _mm_storeu_si128((__m128i *)(void *)y1, _mm_unpackhi_epi32(low, high));
}

#define PLACE(i) (y + (i) / columns * y_row + (i) % columns * y_column)
#define FIRST(i) requantize(a##i, low, cap0, scale0)
#define SECOND(i) requantize(b##i, low, cap1, scale1)

#define STORE_FOUR(i, j, k, l)                                                                              \
  if (vectors == 1 && i < rows * columns) {                                                                 \
    const vec r##i = FIRST(i), r##j = j < rows * columns ? FIRST(j) : r##i;                                 \
    const vec r##k = k < rows * columns ? FIRST(k) : r##i, r##l = l < rows * columns ? FIRST(l) : r##i;     \
    store_pixels(PLACE(i), PLACE(j), PLACE(k), PLACE(l), rows * columns - i, narrow(r##i, r##j, r##k, r##l, words)); \
  }
#define STORE_TWO(i, j)                                                                              \
  if (vectors == 2 && i < rows * columns) {                                                          \
    const vec r##i = FIRST(i), s##i = SECOND(i);                                                     \
    const vec r##j = j < rows * columns ? FIRST(j) : r##i, s##j = j < rows * columns ? SECOND(j) : s##i; \
    store_pairs(PLACE(i), PLACE(j), rows * columns - i, narrow(r##i, s##i, r##j, s##j, words)); \
  }

#define KE_STORE_TILE                                                    \
  const __m256i words = _mm256_packs_epi32(zero_point, zero_point);      \
  (void)cap2, (void)scale2;                                              \
  STORE_FOUR(0, 1, 2, 3) STORE_FOUR(4, 5, 6, 7) STORE_FOUR(8, 9, 10, 11) \
  STORE_TWO(0, 1) STORE_TWO(2, 3) STORE_TWO(4, 5)

#include "tile_body.h"

#define KE_ALL_TILES(M)                                                                                   \
  KE_TILES_12(M, 1, 1)                                                                                    \
  KE_TILES_6(M, 1, 2) KE_TILES_4(M, 1, 3) KE_TILES_3(M, 1, 4) KE_TILES_6(M, 2, 1) KE_TILES_3(M, 2, 2)     \
      KE_TILES_2(M, 2, 3) KE_TILES_1(M, 2, 4)

KE_ALL_TILES(KE_DEFINE_TILE)

static const KeInt8Moves *moves(void) { return &ke_int8_word_moves; }

static const KeInt8Isa isa = {
    .lanes = LANES,
    .inputs = 2,
    .weight_bytes = WEIGHT_BYTES,
    .max_vectors = 2,
    .slots = {12, 6, 0},
    .max_columns = {12, 6, 0},
    .kernels = {KE_ALL_TILES(KE_NAME_TILE)},
    .moves = moves,
};

const KeInt8Path ke_gated_conv_2d_int8_avx2 = {KE_ISA_AVX2, &isa, ke_int8_tiled_run};

#else
typedef int ke_no_avx2;
#endif
