/* AVX-512 (F, BW, DQ, VL): vectors of 16 output channels, tiles of up to 28 sums. */
#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#include "internal.h"
#include "tiled.h"

enum { LANES = 16 };
typedef __m512 vec;
typedef vec vec_value;
typedef __mmask16 vec_mask;

static inline vec vec_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vec_store(float *p, vec v) { _mm512_storeu_ps(p, v); }
static inline vec vec_broadcast(const void *p) { return _mm512_set1_ps(*(const float *)p); }
static inline vec vec_set(float value) { return _mm512_set1_ps(value); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec vec_multiply(vec a, vec b) { return _mm512_mul_ps(a, b); }
/* Both return b where either is NaN. */
static inline vec vec_min(vec a, vec b) { return _mm512_min_ps(a, b); }
static inline vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec_mask vec_lanes(uint32_t bits) { return (vec_mask)bits; }
static inline vec vec_keep(vec_mask mask, vec v) { return _mm512_maskz_mov_ps(mask, v); }

/* x of PAIRS is interleaved, so a vector's lanes are too: channel 0 of the upper pixel, of the lower one, channel 1,
 * ... */
static inline vec vec_broadcast_pair(const void *p) {
  double both;
  memcpy(&both, p, sizeof(both));
  return _mm512_castpd_ps(_mm512_set1_pd(both));
}

#include "tile_body.h"

#define KE_ALL_TILES(M)                                                                                              \
  KE_TILES_14(M, 1, 1)                                                                                               \
  KE_TILES_14(M, 1, 2) KE_TILES_9(M, 1, 3) KE_TILES_7(M, 1, 4) KE_TILES_14(M, 2, 1) KE_TILES_7(M, 2, 2)              \
      KE_TILES_4(M, 2, 3) KE_TILES_3(M, 2, 4) KE_TILES_9(M, 3, 1) KE_TILES_4(M, 3, 2) KE_TILES_3(M, 3, 3)            \
          KE_TILES_2(M, 3, 4) KE_TILES_14(M, 4, 1) KE_TILES_14(M, 4, 2) KE_TILES_9(M, 4, 3) KE_TILES_7(M, 4, 4)      \
              KE_TILES_13(M, 5, 1) KE_TILES_13(M, 5, 2) KE_TILES_8(M, 5, 3) KE_TILES_6(M, 5, 4) KE_TILES_13(M, 6, 1) \
                  KE_TILES_13(M, 6, 2) KE_TILES_8(M, 6, 3) KE_TILES_6(M, 6, 4)

KE_ALL_TILES(KE_DEFINE_TILE)

static inline __mmask16 first_lanes(int32_t count) {
  return count >= LANES ? (__mmask16)0xffff : (__mmask16)((1u << count) - 1);
}

static int32_t scan(const float *gates, int32_t channels, int32_t *open, uint16_t *bits) {
  const __m512i iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  int32_t count = 0;
  for (int32_t c = 0; c < channels; c += LANES) {
    const __mmask16 inside = first_lanes(channels - c);
    const __mmask16 mask =
        _mm512_mask_cmp_ps_mask(inside, _mm512_maskz_loadu_ps(inside, gates + c), _mm512_setzero_ps(), _CMP_NEQ_UQ);
    _mm512_storeu_si512(open + count, _mm512_maskz_compress_epi32(mask, _mm512_add_epi32(iota, _mm512_set1_epi32(c))));
    bits[c / LANES] = (uint16_t)mask;
    count += __builtin_popcount(mask);
  }
  return count;
}

static void compress(const float *values, int32_t channels, const uint16_t *bits, float *compact) {
  for (int32_t c = 0; c < channels; c += LANES) {
    const __mmask16 mask = (__mmask16)bits[c / LANES];
    _mm512_storeu_ps(compact,
                     _mm512_maskz_compress_ps(mask, _mm512_maskz_loadu_ps(first_lanes(channels - c), values + c)));
    compact += __builtin_popcount(mask);
  }
}

static void spread(const float *compact, ptrdiff_t pitch, const uint16_t *bits, const int32_t *starts, int32_t channels,
                   float *y, int32_t pixels) {
  const int32_t whole = channels / LANES;
  const __mmask16 rest = first_lanes(channels % LANES);
  for (int32_t p = 0; p < pixels; p++, compact += pitch, y += channels) {
    for (int32_t block = 0; block < whole; block++) {
      _mm512_storeu_ps(y + block * LANES,
                       _mm512_maskz_expand_ps((__mmask16)bits[block], _mm512_loadu_ps(compact + starts[block])));
    }
    if (rest != 0) {
      _mm512_mask_storeu_ps(y + whole * LANES, rest,
                            _mm512_maskz_expand_ps((__mmask16)bits[whole], _mm512_loadu_ps(compact + starts[whole])));
    }
  }
}

static void spread_pairs(const float *compact, const uint16_t *bits, const int32_t *starts, int32_t channels,
                         float *upper, float *lower, int32_t pixels) {
  const __m512i twice = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i one = _mm512_set1_epi32(1);
  for (int32_t c = 0; c < channels; c += LANES) {
    const __mmask16 inside = first_lanes(channels - c);
    const __mmask16 mask = (__mmask16)bits[c / LANES];
    const __m512i even = _mm512_add_epi32(twice, _mm512_set1_epi32(2 * starts[c / LANES]));
    const __m512i odd = _mm512_add_epi32(even, one);
    const float *from = compact;
    ptrdiff_t to = c;
    for (int32_t p = 0; p < pixels; p++, from += LANES, to += channels) {
      const vec v = _mm512_load_ps(from);
      _mm512_mask_storeu_ps(upper + to, inside, _mm512_maskz_expand_ps(mask, _mm512_permutexvar_ps(even, v)));
      if (lower != NULL)
        _mm512_mask_storeu_ps(lower + to, inside, _mm512_maskz_expand_ps(mask, _mm512_permutexvar_ps(odd, v)));
    }
  }
}

/* Where the lanes of one gathered vector come from: `count` blocks, each giving the lanes of its mask. */
typedef struct Pieces {
  const float *blocks[LANES];
  __mmask16 masks[LANES];
  int count;
} Pieces;

static Pieces find_pieces(const float *weights, size_t block_pitch, __m512i outputs) {
  Pieces pieces;
  const __m512i blocks = _mm512_srli_epi32(outputs, 4);
  __mmask16 left = 0xffff;
  pieces.count = 0;
  while (left != 0) {
    int32_t block[LANES];
    _mm512_storeu_si512(block, blocks);
    const int32_t first = block[__builtin_ctz(left)];
    const __mmask16 mask = _mm512_mask_cmpeq_epi32_mask(left, blocks, _mm512_set1_epi32(first));
    pieces.blocks[pieces.count] = weights + (size_t)first * block_pitch;
    pieces.masks[pieces.count++] = mask;
    left = (__mmask16)(left & ~mask);
  }
  return pieces;
}

static void gather(const float *weights, size_t block_pitch, size_t row_pitch, int32_t kernel_h, int32_t kernel_w,
                   const int32_t *open, int32_t open_count, const int32_t *outputs, float *gathered) {
  const __m512i lanes = _mm512_loadu_si512(outputs);
  const Pieces pieces = find_pieces(weights, block_pitch, lanes);
  const float *const first = pieces.blocks[0];
  const float *const second = pieces.blocks[pieces.count > 1 ? 1 : 0];
  /* Bit 4 of an index chooses the second operand of the two-source permutation. */
  const __mmask16 from_second = pieces.count > 1 ? pieces.masks[1] : 0;
  const __m512i both =
      _mm512_mask_or_epi32(_mm512_and_si512(lanes, _mm512_set1_epi32(15)), from_second, lanes, _mm512_set1_epi32(16));
  const size_t input_pitch = (size_t)kernel_w * LANES;
  for (int32_t r = 0; r < kernel_h; r++) {
    for (int32_t k = 0; k < open_count; k++) {
      const float *const a = first + (size_t)r * row_pitch + (size_t)open[k] * input_pitch;
      const float *const b = second + (a - first);
      for (size_t s = 0; s < input_pitch; s += LANES) {
        _mm512_store_ps(gathered + s, _mm512_permutex2var_ps(_mm512_load_ps(a + s), both, _mm512_load_ps(b + s)));
      }
      for (int i = 2; i < pieces.count; i++) {
        const float *const c = pieces.blocks[i] + (a - first);
        for (size_t s = 0; s < input_pitch; s += LANES) {
          const vec v = _mm512_load_ps(gathered + s);
          _mm512_store_ps(gathered + s, _mm512_mask_permutexvar_ps(v, pieces.masks[i], lanes, _mm512_load_ps(c + s)));
        }
      }
      gathered += input_pitch;
    }
  }
}

static void interleave(const float *upper, const float *lower, size_t count, float *to) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  for (size_t i = 0; i < count; i += LANES) {
    const int32_t left = count - i < LANES ? (int32_t)(count - i) : LANES;
    const __mmask16 inside = first_lanes(left);
    const vec a = upper == NULL ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(inside, upper + i);
    const vec b = lower == NULL ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(inside, lower + i);
    _mm512_mask_storeu_ps(to + 2 * i, first_lanes(2 * left), _mm512_permutex2var_ps(a, low, b));
    if (left > 8)
      _mm512_mask_storeu_ps(to + 2 * i + LANES, first_lanes(2 * left - LANES), _mm512_permutex2var_ps(a, high, b));
  }
}

static const KeTiledIsa isa = {
    .lanes = LANES,
    .max_vectors = 3,
    .panel_vectors = 2,
    .slots = {28, 14, 9, 28, 26, 26},
    .max_columns = {14, 14, 9, 14, 13, 13},
    .kernels = {KE_ALL_TILES(KE_NAME_TILE)},
    .scan = scan,
    .compress = compress,
    .spread = spread,
    .spread_pairs = spread_pairs,
    .gather = gather,
    .interleave = interleave,
};

static int measure(KeGatedConv2DPlan *plan) { return ke_tiled_measure(plan, &isa); }

const KeGatedConv2DPath ke_gated_conv_2d_avx512 = {KE_ISA_AVX512, LANES, measure, ke_tiled_run};

#else
typedef int ke_no_avx512;
#endif
