/* AVX-512 with VNNI: vectors of 16 output channels, four unsigned inputs to a unit, tiles of up to 28 sums. */
#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

#include "bytes.h"
#include "internal.h"

enum { LANES = 16, WEIGHT_BYTES = KE_UNIT_BYTES };
typedef __m512i vec;
typedef __m512i vec_unit;
typedef __m512 vec_float;

static inline vec vec_load(const int32_t *p) { return _mm512_loadu_si512(p); }
static inline vec vec_set(int32_t value) { return _mm512_set1_epi32(value); }
static inline vec_float vec_load_float(const float *p) { return _mm512_loadu_ps(p); }
static inline vec_unit vec_load_weights(const uint8_t *p) { return _mm512_load_si512(p); }
static inline vec_unit vec_broadcast(const uint8_t *p) {
  int32_t unit;
  memcpy(&unit, p, sizeof(unit));
  return _mm512_set1_epi32(unit);
}

/* With the intrinsic some compilers keep the sums in memory. */
#define VEC_MULTIPLY_ADD(sum, x, w) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w))

static inline void vec_store_bytes(int8_t *y, vec sum, vec low, vec cap, vec_float scale, vec zero_point) {
  const vec acted = _mm512_min_epi32(_mm512_max_epi32(sum, low), cap);
  const vec rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(acted), scale));
  _mm_storeu_si128((__m128i *)(void *)y, _mm512_cvtsepi32_epi8(_mm512_add_epi32(rounded, zero_point)));
}

#include "tile_body.h"

#define KE_ALL_TILES(M)                                                                                       \
  KE_TILES_14(M, 1, 1)                                                                                        \
  KE_TILES_14(M, 1, 2) KE_TILES_9(M, 1, 3) KE_TILES_7(M, 1, 4) KE_TILES_14(M, 2, 1) KE_TILES_7(M, 2, 2)       \
      KE_TILES_4(M, 2, 3) KE_TILES_3(M, 2, 4) KE_TILES_9(M, 3, 1) KE_TILES_4(M, 3, 2) KE_TILES_3(M, 3, 3)     \
          KE_TILES_2(M, 3, 4)

KE_ALL_TILES(KE_DEFINE_TILE)

/* Asks the processor itself: the compiler's own table of features needs a library that Android has not. */
static const KeInt8Moves *moves(void) {
  unsigned a, b, c, d;
  const int has_bytes = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & bit_AVX512VBMI) && (c & bit_AVX512VBMI2);
  return has_bytes ? &ke_int8_byte_moves : &ke_int8_portable_moves;
}

static const KeInt8Isa isa = {
    .lanes = LANES,
    .inputs = KE_UNIT_BYTES,
    .weight_bytes = WEIGHT_BYTES,
    .shift = 128,
    .max_vectors = 3,
    .slots = {28, 14, 9},
    .max_columns = {14, 14, 9},
    .kernels = {KE_ALL_TILES(KE_NAME_TILE)},
    .moves = moves,
};

const KeInt8Path ke_gated_conv_2d_int8_avx512vnni = {KE_ISA_AVX512VNNI, &isa, ke_int8_tiled_run};

#else
typedef int ke_no_avx512vnni;
#endif
