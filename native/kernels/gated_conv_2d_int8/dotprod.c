/* 64-bit ARM with the dot product: vectors of 4 output channels, four signed inputs to a unit, tiles of up to 24 sums. */
#if defined(__aarch64__)

#include <arm_neon.h>
#include <string.h>

#include "internal.h"

enum { LANES = 4, WEIGHT_BYTES = KE_UNIT_BYTES };
typedef int32x4_t vec;
typedef int8x16_t vec_unit;
typedef float32x4_t vec_float;

static inline vec vec_load(const int32_t *p) { return vld1q_s32(p); }
static inline vec vec_set(int32_t value) { return vdupq_n_s32(value); }
static inline vec_float vec_load_float(const float *p) { return vld1q_f32(p); }
static inline vec_unit vec_load_weights(const uint8_t *p) { return vreinterpretq_s8_u8(vld1q_u8(p)); }
static inline vec_unit vec_broadcast(const uint8_t *p) {
  int32_t unit;
  memcpy(&unit, p, sizeof(unit));
  return vreinterpretq_s8_s32(vdupq_n_s32(unit));
}

#define VEC_MULTIPLY_ADD(sum, x, w) sum = vdotq_s32(sum, x, w)

static inline void vec_store_bytes(int8_t *y, vec sum, vec low, vec cap, vec_float scale, vec zero_point) {
  const vec acted = vminq_s32(vmaxq_s32(sum, low), cap);
  const vec rounded = vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(acted), scale));
  const int16x4_t words = vqmovn_s32(vaddq_s32(rounded, zero_point));
  const int32_t bytes = vget_lane_s32(vreinterpret_s32_s8(vqmovn_s16(vcombine_s16(words, words))), 0);
  memcpy(y, &bytes, sizeof(bytes));
}

#include "tile_body.h"

#define KE_ALL_TILES(M)                                                                                     \
  KE_TILES_14(M, 1, 1)                                                                                      \
  KE_TILES_12(M, 1, 2) KE_TILES_7(M, 1, 3) KE_TILES_6(M, 1, 4) KE_TILES_12(M, 2, 1) KE_TILES_6(M, 2, 2)     \
      KE_TILES_4(M, 2, 3) KE_TILES_3(M, 2, 4) KE_TILES_7(M, 3, 1) KE_TILES_3(M, 3, 2) KE_TILES_2(M, 3, 3)   \
          KE_TILES_1(M, 3, 4)

KE_ALL_TILES(KE_DEFINE_TILE)

static const KeInt8Moves *moves(void) { return &ke_int8_portable_moves; }

static const KeInt8Isa isa = {
    .lanes = LANES,
    .inputs = KE_UNIT_BYTES,
    .weight_bytes = WEIGHT_BYTES,
    .max_vectors = 3,
    .slots = {24, 12, 7},
    .max_columns = {14, 12, 7},
    .kernels = {KE_ALL_TILES(KE_NAME_TILE)},
    .moves = moves,
};

const KeInt8Path ke_gated_conv_2d_int8_dotprod = {KE_ISA_NEON_DOTPROD, &isa, ke_int8_tiled_run};

#else
typedef int ke_no_dotprod;
#endif
