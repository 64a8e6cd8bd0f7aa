/* Copying, gathering and spreading with permutations of 64 bytes (VBMI and VBMI2), which most processors with VNNI have.
 *
 * Packed weights are [64 outputs][tap][input][64 outputs]: one vector holds what 64 outputs take from one input. */
#if defined(__x86_64__)
#include "bytes.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512vbmi,avx512vbmi2"))), apply_to = function)
#else
#pragma GCC target("avx512vbmi,avx512vbmi2")
#endif
#include <immintrin.h>

#include "internal.h"

enum { BLOCK = KE_INT8_BLOCK, LANES = 16, GROUP = 4 };

static inline __m512i iota(void) {
  static const uint8_t bytes[BLOCK] = {
      0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
      32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
  return _mm512_loadu_si512(bytes);
}

static inline __mmask64 first_bytes(int64_t count) {
  return count >= BLOCK ? ~(__mmask64)0 : ((__mmask64)1 << count) - 1;
}

/* Inputs are compressed, outputs expanded. */
static void index_blocks(KeGatedConv2DInt8Plan *plan) {
  const KeInt8Tiled *t = &plan->tiled;
  for (int32_t b = 0; b < t->in_blocks; b++)
    _mm512_storeu_si512(t->in[b].index, _mm512_maskz_compress_epi8(t->in[b].mask, iota()));
  for (int32_t b = 0; b < t->out_blocks; b++)
    _mm512_storeu_si512(t->out[b].index, _mm512_maskz_expand_epi8(t->out[b].mask, iota()));
}

static void copy(const KeGatedConv2DInt8Plan *plan, const int8_t *from, ptrdiff_t stride, int64_t count, uint8_t *to) {
  const KeInt8Tiled *t = &plan->tiled;
  const int32_t last = t->in_blocks - 1;
  const __m512i sign = _mm512_set1_epi8(-128);
  const __mmask64 inside = first_bytes(plan->shape.conv.in_channels - (int64_t)last * BLOCK);
  const __m512i last_index = _mm512_loadu_si512(t->in[last].index);
  const int64_t last_start = t->in[last].start, column_bytes = t->column_bytes;
  for (int64_t p = 0; p < count; p++, from += stride, to += column_bytes) {
    for (int32_t b = 0; b < last; b++) {
      const __m512i x = _mm512_xor_si512(_mm512_loadu_si512(from + b * BLOCK), sign);
      _mm512_storeu_si512(to + t->in[b].start, _mm512_permutexvar_epi8(_mm512_loadu_si512(t->in[b].index), x));
    }
    const __m512i x = _mm512_xor_si512(_mm512_maskz_loadu_epi8(inside, from + last * BLOCK), sign);
    _mm512_storeu_si512(to + last_start, _mm512_permutexvar_epi8(last_index, x));
  }
}

static void pack(KeGatedConv2DInt8Plan *plan) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  const size_t channels = (size_t)shape->in_channels, taps = (size_t)shape->kernel_h * (size_t)shape->kernel_w;
  int8_t *to = plan->packed;
  for (size_t first = 0; first < (size_t)shape->out_channels; first += BLOCK) {
    for (size_t at = 0; at < taps * channels; at++) {
      for (size_t o = first; o < first + BLOCK; o++) {
        *to++ = o < (size_t)shape->out_channels ? plan->kernel[o * taps * channels + at] : 0;
      }
    }
  }
}

/* Where 64 gathered outputs come from: `count` blocks, each giving the bytes of its mask. */
typedef struct Pieces {
  const int8_t *blocks[BLOCK];
  __mmask64 masks[BLOCK];
  int count;
} Pieces;

/* Byte 16 l + 4 j + i of the gathered bytes goes to lane 4 l + i of vector j, by the way that they are interleaved. Bytes
 * beyond the last output take it again. */
static __m512i find_pieces(const KeGatedConv2DInt8Plan *plan, int32_t first, Pieces *pieces) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  const size_t block_bytes =
      (size_t)shape->kernel_h * (size_t)shape->kernel_w * (size_t)shape->in_channels * (size_t)BLOCK;
  uint8_t index[BLOCK];
  int32_t block = -1;
  pieces->count = 0;
  for (int32_t k = 0; k < BLOCK; k++) {
    const int32_t place = 16 * (k % LANES / 4) + 4 * (k / LANES) + k % 4;
    const int32_t at = first + k < plan->open.out_count ? first + k : plan->open.out_count - 1;
    const int32_t channel = plan->open.out[at];
    if (channel / BLOCK != block) {
      block = channel / BLOCK;
      pieces->blocks[pieces->count] = plan->packed + (size_t)block * block_bytes;
      pieces->masks[pieces->count++] = 0;
    }
    pieces->masks[pieces->count - 1] |= (__mmask64)1 << place;
    index[place] = (uint8_t)(channel % BLOCK);
  }
  return _mm512_loadu_si512(index);
}

/* What the gathered outputs take from the input that begins `offset` bytes into each block. */
static inline __m512i take(const Pieces *pieces, const int count, __m512i index, size_t offset) {
  __m512i bytes = _mm512_permutexvar_epi8(index, _mm512_load_si512(pieces->blocks[0] + offset));
  if (count > 1) {
    const __m512i second = _mm512_load_si512(pieces->blocks[1] + offset);
    bytes = _mm512_mask_permutexvar_epi8(bytes, pieces->masks[1], index, second);
  }
  if (count > 2) {
    for (int i = 2; i < pieces->count; i++) {
      const __m512i more = _mm512_load_si512(pieces->blocks[i] + offset);
      bytes = _mm512_mask_permutexvar_epi8(bytes, pieces->masks[i], index, more);
    }
  }
  return bytes;
}

#define SUM(sum, weights) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(ones), "v"(weights))

/* `count` is how many blocks there are, 3 for more than 2; `vectors` how many vectors of the group are wanted. */
static inline __attribute__((always_inline)) void gather_group(KeGatedConv2DInt8Plan *plan, int32_t first_vector,
                                                               const Pieces *pieces, __m512i index, const int count,
                                                               const int vectors) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  KeInt8Tiled *t = &plan->tiled;
  const int32_t *open = plan->open.in;
  const int32_t open_count = plan->open.in_count, taps = shape->kernel_h * shape->kernel_w;
  const size_t tap_bytes = (size_t)shape->in_channels * BLOCK;
  const ptrdiff_t pitch = t->vector_bytes;
  const __m512i ones = _mm512_set1_epi8(1), nothing = _mm512_setzero_si512();
  __m512i sum0 = nothing, sum1 = nothing, sum2 = nothing, sum3 = nothing;
  uint8_t *to = t->gathered + first_vector * pitch;
  for (int32_t tap = 0; tap < taps; tap++) {
    const size_t at = (size_t)tap * tap_bytes;
    for (int32_t k = 0; k < open_count; k += KE_UNIT_BYTES, to += BLOCK) {
      const int32_t left = open_count - k;
      const __m512i a = take(pieces, count, index, at + (size_t)open[k] * BLOCK);
      const __m512i b = left > 1 ? take(pieces, count, index, at + (size_t)open[k + 1] * BLOCK) : nothing;
      const __m512i c = left > 2 ? take(pieces, count, index, at + (size_t)open[k + 2] * BLOCK) : nothing;
      const __m512i d = left > 3 ? take(pieces, count, index, at + (size_t)open[k + 3] * BLOCK) : nothing;
      const __m512i ab = _mm512_unpacklo_epi8(a, b), cd = _mm512_unpacklo_epi8(c, d);
      const __m512i v0 = _mm512_unpacklo_epi16(ab, cd);
      _mm512_store_si512(to, v0);
      SUM(sum0, v0);
      if (vectors > 1) {
        const __m512i v1 = _mm512_unpackhi_epi16(ab, cd);
        _mm512_store_si512(to + pitch, v1);
        SUM(sum1, v1);
      }
      if (vectors > 2) {
        const __m512i ab2 = _mm512_unpackhi_epi8(a, b), cd2 = _mm512_unpackhi_epi8(c, d);
        const __m512i v2 = _mm512_unpacklo_epi16(ab2, cd2);
        _mm512_store_si512(to + 2 * pitch, v2);
        SUM(sum2, v2);
        if (vectors > 3) {
          const __m512i v3 = _mm512_unpackhi_epi16(ab2, cd2);
          _mm512_store_si512(to + 3 * pitch, v3);
          SUM(sum3, v3);
        }
      }
    }
  }
  const __m512i zero = _mm512_set1_epi32(ke_int8_zero(plan));
  const __m512i sums[GROUP] = {sum0, sum1, sum2, sum3};
  int32_t *init = t->init + first_vector * LANES;
  for (int v = 0; v < vectors; v++) {
    int32_t bias[LANES];
    for (int32_t lane = 0; lane < LANES; lane++) {
      const int32_t k = (first_vector + v) * LANES + lane;
      bias[lane] = k < plan->open.out_count ? plan->bias[plan->open.out[k]] : 0;
    }
    const __m512i correction = _mm512_mullo_epi32(zero, sums[v]);
    _mm512_storeu_si512(init + v * LANES, _mm512_sub_epi32(_mm512_loadu_si512(bias), correction));
  }
}

#define GATHER(vectors)                                                          \
  case vectors:                                                                  \
    if (pieces.count == 1) gather_group(plan, first, &pieces, index, 1, vectors);      \
    else if (pieces.count == 2) gather_group(plan, first, &pieces, index, 2, vectors); \
    else gather_group(plan, first, &pieces, index, 3, vectors);                  \
    break;

static void gather(KeGatedConv2DInt8Plan *plan, int32_t first) {
  const int32_t left = plan->tiled.vector_count - first;
  Pieces pieces;
  const __m512i index = find_pieces(plan, first * LANES, &pieces);
  switch (left < GROUP ? left : GROUP) {
    GATHER(1)
    GATHER(2)
    GATHER(3)
    GATHER(4)
  }
}

static void spread(const KeGatedConv2DInt8Plan *plan, const int8_t *compact, ptrdiff_t pitch, int8_t *y,
                   int64_t pixels) {
  const KeInt8Tiled *t = &plan->tiled;
  const ptrdiff_t channels = plan->shape.conv.out_channels;
  const int32_t last = t->out_blocks - 1;
  const __m512i shut = _mm512_set1_epi8((char)plan->shape.output_zero_point);
  const __mmask64 inside = first_bytes(channels - (int64_t)last * BLOCK);
  const KeInt8Block *const end = &t->out[last];
  const __m512i last_index = _mm512_loadu_si512(end->index);
  const __mmask64 last_mask = end->mask;
  const int64_t last_start = end->start;
  for (int64_t p = 0; p < pixels; p++, compact += pitch, y += channels) {
    for (int32_t b = 0; b < last; b++) {
      const __m512i bytes = _mm512_loadu_si512(compact + t->out[b].start);
      const __m512i index = _mm512_loadu_si512(t->out[b].index);
      _mm512_storeu_si512(y + b * BLOCK, _mm512_mask_permutexvar_epi8(shut, t->out[b].mask, index, bytes));
    }
    const __m512i bytes = _mm512_loadu_si512(compact + last_start);
    _mm512_mask_storeu_epi8(y + last * BLOCK, inside,
                            _mm512_mask_permutexvar_epi8(shut, last_mask, last_index, bytes));
  }
}

const KeInt8Moves ke_int8_byte_moves = {
    .packed_block_bytes = BLOCK,
    .group = GROUP,
    .pack = pack,
    .index = index_blocks,
    .copy = copy,
    .gather = gather,
    .spread = spread,
    .quads = &ke_int8_quad_moves,
};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int ke_no_bytes_avx512vnni;
#endif
