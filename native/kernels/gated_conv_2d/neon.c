/* NEON, 64-bit and 32-bit ARM: vectors of 4 output channels.
 *
 * With 32 registers a tile is 3 vectors x 8 pixels: per step 24 multiply-adds for 3 loads of weights and 8 of x. x is
 * loaded as a scalar and multiplied by element, since a load that broadcasts knows no offsets. The 16 registers of a
 * 32-bit ARM hold 2 vectors x 5 pixels. Vectors are so short that PAIRS would serve two open channels at most: there is no
 * such kind.
 *
 * clang's loop for 3 x 8 has 43 instructions. LLVM's models give 24 cycles for a Cortex-A57 and 8 for an Exynos M5, bound by
 * the multiply-adds, and 31 for the in-order Cortex-A55, 77 % of its peak. Results were compared under an emulator; nothing
 * was timed on a processor. */
#include "cpu.h"

#if defined(KE_NEON_FILES)

#include <arm_neon.h>

#include "internal.h"
#include "tiled.h"

enum { LANES = 4 };
typedef float32x4_t vec;
typedef uint32x4_t vec_mask;

#if defined(__aarch64__)
typedef float vec_value;
/* Hidden from the compiler, which would otherwise broadcast while it loads. */
static inline vec_value vec_broadcast(const void *p) {
  float value = *(const float *)p;
  __asm__("" : "+w"(value));
  return value;
}
static inline vec vec_fma(vec_value x, vec w, vec sum) { return vfmaq_n_f32(sum, w, x); }
#else
typedef vec vec_value;
/* The compiler would load into a register of the integer unit, from where it is a long way. */
static inline vec_value vec_broadcast(const void *p) {
  vec_value value;
  __asm__("vld1.32 {%e0[], %f0[]}, [%1]" : "=w"(value) : "r"(p), "m"(*(const float *)p));
  return value;
}
static inline vec vec_fma(vec_value x, vec w, vec sum) { return vmlaq_f32(sum, w, x); }
#endif

static inline vec vec_load(const float *p) { return vld1q_f32(p); }
static inline void vec_store(float *p, vec v) { vst1q_f32(p, v); }
static inline vec vec_set(float value) { return vdupq_n_f32(value); }
static inline vec vec_multiply(vec a, vec b) { return vmulq_f32(a, b); }
/* Both return NaN where either is NaN. */
static inline vec vec_min(vec a, vec b) { return vminq_f32(a, b); }
static inline vec vec_max(vec a, vec b) { return vmaxq_f32(a, b); }
static inline vec vec_keep(vec_mask mask, vec v) {
  return vreinterpretq_f32_u32(vandq_u32(mask, vreinterpretq_u32_f32(v)));
}

/* All bits of a lane set where its bit is. */
static inline vec_mask vec_lanes(uint32_t bits) {
  static const uint32_t each[LANES] = {1, 2, 4, 8};
  return vtstq_u32(vdupq_n_u32(bits), vld1q_u32(each));
}

#define KE_NO_PAIRS
#include "tile_body.h"

#if defined(__aarch64__)
enum { SUMS_ONE = 12, SUMS_TWO = 12, SUMS_THREE = 8, VECTORS = 3 };
#define KE_ALL_TILES(M)                                                                                     \
  KE_TILES_12(M, 1, 1)                                                                                      \
  KE_TILES_6(M, 1, 2) KE_TILES_4(M, 1, 3) KE_TILES_3(M, 1, 4) KE_TILES_12(M, 2, 1) KE_TILES_6(M, 2, 2)      \
      KE_TILES_4(M, 2, 3) KE_TILES_3(M, 2, 4) KE_TILES_8(M, 3, 1) KE_TILES_4(M, 3, 2) KE_TILES_2(M, 3, 3)   \
          KE_TILES_2(M, 3, 4) KE_TILES_12(M, 5, 1) KE_TILES_6(M, 5, 2) KE_TILES_4(M, 5, 3) KE_TILES_3(M, 5, 4)
#else
enum { SUMS_ONE = 8, SUMS_TWO = 5, SUMS_THREE = 0, VECTORS = 2 };
#define KE_ALL_TILES(M)                                                                               \
  KE_TILES_8(M, 1, 1)                                                                                 \
  KE_TILES_4(M, 1, 2) KE_TILES_2(M, 1, 3) KE_TILES_2(M, 1, 4) KE_TILES_5(M, 2, 1) KE_TILES_2(M, 2, 2) \
      KE_TILES_1(M, 2, 3) KE_TILES_1(M, 2, 4) KE_TILES_8(M, 5, 1) KE_TILES_4(M, 5, 2) KE_TILES_2(M, 5, 3) KE_TILES_2(M, 5, 4)
#endif

KE_ALL_TILES(KE_DEFINE_TILE)

static int32_t scan(const float *gates, int32_t channels, int32_t *open, uint16_t *bits) {
  int32_t count = 0;
  for (int32_t c = 0; c < channels; c += LANES, bits++) {
    uint32_t mask = 0;
    for (int32_t lane = 0; lane < LANES && c + lane < channels; lane++) {
      const uint32_t is_open = gates[c + lane] != 0.0f;
      open[count] = c + lane;
      count += (int32_t)is_open;
      mask |= is_open << lane;
    }
    *bits = (uint16_t)mask;
  }
  return count;
}

static void compress(const float *values, int32_t channels, const uint16_t *bits, float *compact) {
  for (int32_t c = 0; c < channels; c++) {
    *compact = values[c];
    compact += bits[c / LANES] >> (c % LANES) & 1;
  }
}

/* For each byte of a vector the byte of the compact lanes that belongs there; beyond the vector, which a table look-up
 * turns into 0, for the lanes that are shut. */
static inline uint8x16_t places(uint32_t bits) {
  uint8_t place[16];
  for (uint8_t lane = 0, before = 0; lane < LANES; lane++) {
    const int is_open = bits >> lane & 1;
    for (uint8_t byte = 0; byte < 4; byte++) place[lane * 4 + byte] = is_open ? (uint8_t)(before * 4 + byte) : 0xff;
    before = (uint8_t)(before + is_open);
  }
  return vld1q_u8(place);
}

static inline vec look_up(vec v, uint8x16_t at) {
  const uint8x16_t bytes = vreinterpretq_u8_f32(v);
#if defined(__aarch64__)
  return vreinterpretq_f32_u8(vqtbl1q_u8(bytes, at));
#else
  const uint8x8x2_t table = {{vget_low_u8(bytes), vget_high_u8(bytes)}};
  return vreinterpretq_f32_u8(vcombine_u8(vtbl2_u8(table, vget_low_u8(at)), vtbl2_u8(table, vget_high_u8(at))));
#endif
}

static void spread(const float *compact, ptrdiff_t pitch, const uint16_t *bits, const int32_t *starts, int32_t channels,
                   float *y, int32_t pixels) {
  for (int32_t c = 0; c < channels; c += LANES) {
    const uint8x16_t from = places(bits[c / LANES]);
    const float *in = compact + starts[c / LANES];
    float *out = y + c;
    const int32_t inside = channels - c;
    for (int32_t p = 0; p < pixels; p++, in += pitch, out += channels) {
      const vec v = look_up(vld1q_f32(in), from);
      if (inside >= LANES) {
        vst1q_f32(out, v);
        continue;
      }
      float lanes[LANES];
      vst1q_f32(lanes, v);
      for (int32_t lane = 0; lane < inside; lane++) out[lane] = lanes[lane];
    }
  }
}

static void gather(const float *weights, size_t block_pitch, size_t row_pitch, int32_t kernel_h, int32_t kernel_w,
                   const int32_t *open, int32_t open_count, const int32_t *outputs, float *gathered) {
  const float *lanes[LANES];
  for (int32_t lane = 0; lane < LANES; lane++) {
    lanes[lane] = weights + (size_t)(outputs[lane] / LANES) * block_pitch + outputs[lane] % LANES;
  }
  const size_t input_pitch = (size_t)kernel_w * LANES;
  for (int32_t r = 0; r < kernel_h; r++) {
    for (int32_t k = 0; k < open_count; k++) {
      const size_t at = (size_t)r * row_pitch + (size_t)open[k] * input_pitch;
      for (size_t s = at; s < at + input_pitch; s += LANES, gathered += LANES) {
        vec v = vld1q_dup_f32(lanes[0] + s);
        v = vld1q_lane_f32(lanes[1] + s, v, 1);
        v = vld1q_lane_f32(lanes[2] + s, v, 2);
        v = vld1q_lane_f32(lanes[3] + s, v, 3);
        vst1q_f32(gathered, v);
      }
    }
  }
}

static const KeTiledIsa isa = {
    .lanes = LANES,
    .max_vectors = VECTORS,
    .panel_vectors = VECTORS,
    .slots = {SUMS_ONE, SUMS_TWO, SUMS_THREE, 0, SUMS_ONE, 0},
    .max_columns = {SUMS_ONE, SUMS_TWO, SUMS_THREE, 0, SUMS_ONE, 0},
    .kernels = {KE_ALL_TILES(KE_NAME_TILE)},
    .scan = scan,
    .compress = compress,
    .spread = spread,
    .gather = gather,
};

static int measure(KeGatedConv2DPlan *plan) { return ke_tiled_measure(plan, &isa); }

const KeGatedConv2DPath ke_gated_conv_2d_neon = {KE_ISA_NEON, LANES, measure, ke_tiled_run};

#else
typedef int ke_no_neon;
#endif
