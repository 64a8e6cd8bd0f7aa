/* AVX2 and FMA: vectors of 8 output channels, tiles of up to 12 sums. */
#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#include "internal.h"
#include "tiled.h"

enum { LANES = 8 };
typedef __m256 vec;
typedef vec vec_value;
typedef __m256i vec_mask;

/* All bits of a lane set where its bit is. */
static inline vec_mask vec_lanes(uint32_t bits) {
  const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int32_t)bits), each), each);
}

static inline vec vec_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vec_store(float *p, vec v) { _mm256_storeu_ps(p, v); }
static inline vec vec_broadcast(const void *p) { return _mm256_broadcast_ss(p); }
static inline vec vec_set(float value) { return _mm256_set1_ps(value); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec vec_multiply(vec a, vec b) { return _mm256_mul_ps(a, b); }
/* Both return b where either is NaN. */
static inline vec vec_min(vec a, vec b) { return _mm256_min_ps(a, b); }
static inline vec vec_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec vec_keep(vec_mask mask, vec v) { return _mm256_and_ps(_mm256_castsi256_ps(mask), v); }

/* x of PAIRS is interleaved, so a vector's lanes are too: channel 0 of the upper pixel, of the lower one, channel 1,
 * ... */
static inline vec vec_broadcast_pair(const void *p) {
  double both;
  memcpy(&both, p, sizeof(both));
  return _mm256_castpd_ps(_mm256_set1_pd(both));
}

#include "tile_body.h"

#define KE_ALL_TILES(M)                                                                                    \
  KE_TILES_12(M, 1, 1)                                                                                     \
  KE_TILES_6(M, 1, 2) KE_TILES_4(M, 1, 3) KE_TILES_3(M, 1, 4) KE_TILES_6(M, 2, 1) KE_TILES_3(M, 2, 2)      \
      KE_TILES_2(M, 2, 3) KE_TILES_1(M, 2, 4) KE_TILES_12(M, 4, 1) KE_TILES_6(M, 4, 2) KE_TILES_4(M, 4, 3) \
          KE_TILES_3(M, 4, 4)

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

/* For each lane the number of open lanes before it, times `factor`: what a permutation needs to expand. */
static inline __m256i places(uint32_t bits, int32_t factor) {
  int32_t place[LANES];
  for (int32_t lane = 0, before = 0; lane < LANES; lane++) {
    place[lane] = before * factor;
    before += (int32_t)(bits >> lane & 1);
  }
  return _mm256_loadu_si256((const __m256i *)place);
}

static void spread(const float *compact, ptrdiff_t pitch, const uint16_t *bits, const int32_t *starts, int32_t channels,
                   float *y, int32_t pixels) {
  for (int32_t c = 0; c < channels; c += LANES) {
    const uint32_t open = bits[c / LANES];
    const __m256i from = places(open, 1);
    const vec_mask keep = vec_lanes(open),
                   inside = vec_lanes((1u << (channels - c < LANES ? channels - c : LANES)) - 1);
    const int whole = channels - c >= LANES;
    const float *in = compact + starts[c / LANES];
    float *out = y + c;
    for (int32_t p = 0; p < pixels; p++, in += pitch, out += channels) {
      const vec v = vec_keep(keep, _mm256_permutevar8x32_ps(_mm256_loadu_ps(in), from));
      if (whole) {
        _mm256_storeu_ps(out, v);
      } else {
        _mm256_maskstore_ps(out, inside, v);
      }
    }
  }
}

static void spread_pairs(const float *compact, const uint16_t *bits, const int32_t *starts, int32_t channels,
                         float *upper, float *lower, int32_t pixels) {
  for (int32_t c = 0; c < channels; c += LANES) {
    const uint32_t open = bits[c / LANES];
    const vec_mask keep = vec_lanes(open);
    const vec_mask inside = vec_lanes((1u << (channels - c < LANES ? channels - c : LANES)) - 1);
    const __m256i even = _mm256_add_epi32(places(open, 2), _mm256_set1_epi32(2 * starts[c / LANES]));
    const __m256i odd = _mm256_add_epi32(even, _mm256_set1_epi32(1));
    const float *in = compact;
    ptrdiff_t to = c;
    for (int32_t p = 0; p < pixels; p++, in += LANES, to += channels) {
      const vec v = _mm256_loadu_ps(in);
      _mm256_maskstore_ps(upper + to, inside, vec_keep(keep, _mm256_permutevar8x32_ps(v, even)));
      if (lower != NULL) _mm256_maskstore_ps(lower + to, inside, vec_keep(keep, _mm256_permutevar8x32_ps(v, odd)));
    }
  }
}

/* Where the lanes of one gathered vector come from: `count` blocks, each giving the lanes of its mask. */
typedef struct Pieces {
  const float *blocks[LANES];
  __m256i masks[LANES];
  int count;
} Pieces;

static Pieces find_pieces(const float *weights, size_t block_pitch, const int32_t *outputs) {
  Pieces pieces;
  uint32_t left = 0xff;
  pieces.count = 0;
  while (left != 0) {
    const int32_t block = outputs[__builtin_ctz(left)] / LANES;
    uint32_t bits = 0;
    for (int32_t lane = 0; lane < LANES; lane++) bits |= (uint32_t)(outputs[lane] / LANES == block) << lane;
    pieces.blocks[pieces.count] = weights + (size_t)block * block_pitch;
    pieces.masks[pieces.count++] = vec_lanes(bits);
    left &= ~bits;
  }
  return pieces;
}

static void gather(const float *weights, size_t block_pitch, size_t row_pitch, int32_t kernel_h, int32_t kernel_w,
                   const int32_t *open, int32_t open_count, const int32_t *outputs, float *gathered) {
  /* A permutation looks at the lowest three bits of an index only. */
  const __m256i lanes = _mm256_loadu_si256((const __m256i *)outputs);
  const Pieces pieces = find_pieces(weights, block_pitch, outputs);
  const float *const first = pieces.blocks[0];
  const float *const second = pieces.blocks[pieces.count > 1 ? 1 : 0];
  const __m256 from_second = _mm256_castsi256_ps(pieces.count > 1 ? pieces.masks[1] : _mm256_setzero_si256());
  const size_t input_pitch = (size_t)kernel_w * LANES;
  for (int32_t r = 0; r < kernel_h; r++) {
    for (int32_t k = 0; k < open_count; k++) {
      const size_t at = (size_t)r * row_pitch + (size_t)open[k] * input_pitch;
      for (size_t s = at; s < at + input_pitch; s += LANES, gathered += LANES) {
        vec v = _mm256_permutevar8x32_ps(_mm256_load_ps(first + s), lanes);
        v = _mm256_blendv_ps(v, _mm256_permutevar8x32_ps(_mm256_load_ps(second + s), lanes), from_second);
        for (int i = 2; i < pieces.count; i++) {
          const vec piece = _mm256_permutevar8x32_ps(_mm256_load_ps(pieces.blocks[i] + s), lanes);
          v = _mm256_blendv_ps(v, piece, _mm256_castsi256_ps(pieces.masks[i]));
        }
        _mm256_store_ps(gathered, v);
      }
    }
  }
}

static void interleave(const float *upper, const float *lower, size_t count, float *to) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    const vec a = upper == NULL ? _mm256_setzero_ps() : _mm256_loadu_ps(upper + i);
    const vec b = lower == NULL ? _mm256_setzero_ps() : _mm256_loadu_ps(lower + i);
    const vec low = _mm256_unpacklo_ps(a, b), high = _mm256_unpackhi_ps(a, b);
    _mm256_storeu_ps(to + 2 * i, _mm256_permute2f128_ps(low, high, 0x20));
    _mm256_storeu_ps(to + 2 * i + LANES, _mm256_permute2f128_ps(low, high, 0x31));
  }
  for (; i < count; i++) {
    to[2 * i] = upper == NULL ? 0.0f : upper[i];
    to[2 * i + 1] = lower == NULL ? 0.0f : lower[i];
  }
}

static const KeTiledIsa isa = {
    .lanes = LANES,
    .max_vectors = 2,
    .panel_vectors = 2,
    .slots = {12, 6, 0, 12, 0, 0},
    .max_columns = {12, 6, 0, 12, 0, 0},
    .kernels = {KE_ALL_TILES(KE_NAME_TILE)},
    .scan = scan,
    .compress = compress,
    .spread = spread,
    .spread_pairs = spread_pairs,
    .gather = gather,
    .interleave = interleave,
};

static int measure(KeGatedConv2DPlan *plan) { return ke_tiled_measure(plan, &isa); }

const KeGatedConv2DPath ke_gated_conv_2d_avx2 = {KE_ISA_AVX2, LANES, measure, ke_tiled_run};

#else
typedef int ke_no_avx2;
#endif
