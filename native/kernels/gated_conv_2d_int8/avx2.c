/* AVX2: vectors of 8 output channels, two inputs of 16 bits to a unit (products of bytes would saturate), tiles of up to
 * 12 sums. */
#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#include "internal.h"

enum { LANES = 8 };
typedef __m256i vec;
typedef __m256i vec_unit;
typedef __m256 vec_float;

static inline vec vec_load(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
static inline vec vec_set(int32_t value) { return _mm256_set1_epi32(value); }
static inline vec_float vec_load_float(const float *p) { return _mm256_loadu_ps(p); }
static inline vec_unit vec_load_weights(const uint8_t *p) { return _mm256_load_si256((const __m256i *)(const void *)p); }
static inline vec_unit vec_broadcast(const uint8_t *p) {
  int32_t unit;
  memcpy(&unit, p, sizeof(unit));
  return _mm256_set1_epi32(unit);
}

#define VEC_MULTIPLY_ADD(sum, x, w) sum = _mm256_add_epi32(sum, _mm256_madd_epi16(x, w))

static inline void vec_store_bytes(int8_t *y, vec sum, vec low, vec cap, vec_float scale, vec zero_point) {
  const vec acted = _mm256_min_epi32(_mm256_max_epi32(sum, low), cap);
  const vec rounded = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(acted), scale));
  const vec moved = _mm256_add_epi32(rounded, zero_point);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(moved), _mm256_extracti128_si256(moved, 1));
  _mm_storel_epi64((__m128i *)(void *)y, _mm_packs_epi16(words, words));
}

#include "tile_body.h"

#define KE_ALL_TILES(M)                                                                                   \
  KE_TILES_12(M, 1, 1)                                                                                    \
  KE_TILES_6(M, 1, 2) KE_TILES_4(M, 1, 3) KE_TILES_3(M, 1, 4) KE_TILES_6(M, 2, 1) KE_TILES_3(M, 2, 2)     \
      KE_TILES_2(M, 2, 3) KE_TILES_1(M, 2, 4)

KE_ALL_TILES(KE_DEFINE_TILE)

static const KeInt8Moves *moves(void) { return &ke_int8_portable_moves; }

static const KeInt8Isa isa = {
    .lanes = LANES,
    .inputs = 2,
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
