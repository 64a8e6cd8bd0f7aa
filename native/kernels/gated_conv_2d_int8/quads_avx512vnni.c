/* Four outputs of four pixels in a vector of 16 sums; see quads.h. Needs VBMI beside VNNI. */
#if defined(__x86_64__)
#include <string.h>

#include "internal.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512vbmi,avx512vbmi2"))), apply_to = function)
#else
#pragma GCC target("avx512vbmi,avx512vbmi2")
#endif
#include <immintrin.h>

enum { MOST_VECTORS = KE_INT8_QUADS_PANEL, MOST_GROUPS = 8, BLOCK = 64 };

static inline __mmask64 first_bytes(int64_t count) {
  return count >= BLOCK ? ~(__mmask64)0 : count <= 0 ? 0 : ((__mmask64)1 << count) - 1;
}

/* Each of four numbers in four lanes. */
static inline __m512i four_times(const void *four) {
  const __m512i index = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
  return _mm512_permutexvar_epi32(index, _mm512_castsi128_si512(_mm_loadu_si128(four)));
}

/* The open inputs of output `o` at one tap, side by side, zeros behind them. */
static inline __m256i inputs_of(const KeGatedConv2DInt8Plan *plan, int32_t k, int32_t tap, __m256i index, __mmask32 open) {
  if (k >= plan->open.out_count) return _mm256_setzero_si256();
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  const ptrdiff_t channels = shape->in_channels, taps = (ptrdiff_t)shape->kernel_h * shape->kernel_w;
  const int8_t *weights = plan->kernel + (plan->open.out[k] * taps + tap) * channels;
  const __m256i all = _mm256_maskz_loadu_epi8((__mmask32)first_bytes(channels), weights);
  return _mm256_maskz_permutexvar_epi8(open, index, all);
}

#define MULTIPLY_ADD(sum, x, w) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w))

static void gather(KeGatedConv2DInt8Plan *plan) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  KeInt8Tiled *t = &plan->tiled;
  const KeInt8Quads *q = &t->quads;
  uint8_t inputs[KE_INT8_QUADS_CHANNELS] = {0};
  for (int32_t k = 0; k < plan->open.in_count; k++) inputs[k] = (uint8_t)plan->open.in[k];
  const __m256i index = _mm256_loadu_si256((const void *)inputs);
  const __mmask32 open = (__mmask32)first_bytes(plan->open.in_count);
  const __m512i first_unit = _mm512_set_epi32(24, 24, 24, 24, 16, 16, 16, 16, 8, 8, 8, 8, 0, 0, 0, 0);
  const __m512i one = _mm512_set1_epi32(1), ones = _mm512_set1_epi8(1);
  const int32_t taps = shape->kernel_h * shape->kernel_w, zero = ke_int8_zero(plan);
  uint8_t *to = q->weights;
  for (int32_t v = 0; v < q->vectors; v++) {
    const int32_t k = v * KE_INT8_QUAD;
    __m512i sum = _mm512_setzero_si512();
    for (int32_t tap = 0; tap < taps; tap++) {
      const __m512i a = _mm512_inserti64x4(_mm512_castsi256_si512(inputs_of(plan, k, tap, index, open)),
                                           inputs_of(plan, k + 1, tap, index, open), 1);
      const __m512i b = _mm512_inserti64x4(_mm512_castsi256_si512(inputs_of(plan, k + 2, tap, index, open)),
                                           inputs_of(plan, k + 3, tap, index, open), 1);
      __m512i lanes = first_unit;
      for (int32_t u = 0; u < t->units; u++, to += BLOCK) {
        const __m512i weights = _mm512_permutex2var_epi32(a, lanes, b);
        _mm512_store_si512(to, weights);
        MULTIPLY_ADD(sum, ones, weights);
        lanes = _mm512_add_epi32(lanes, one);
      }
    }
    int32_t sums[16];
    _mm512_storeu_si512(sums, sum);
    for (int32_t o = 0; o < KE_INT8_QUAD; o++) {
      const int32_t bias = k + o < plan->open.out_count ? plan->bias[plan->open.out[k + o]] : 0;
      t->init[k + o] = (int32_t)((uint32_t)bias - (uint32_t)zero * (uint32_t)sums[4 * o]);
    }
  }
}

/* Where a column of the padded row is, in bytes. */
static inline ptrdiff_t place(const KeInt8Quads *q, int64_t column) {
  return (q->stride == 1 ? column : (column & 1) * q->columns + (column >> 1)) * KE_UNIT_BYTES;
}

/* The columns beside the picture, [first, end) of the padded row. */
static void fill(const KeGatedConv2DInt8Plan *plan, uint8_t *row, int64_t first, int64_t end, int32_t zero) {
  const KeInt8Quads *q = &plan->tiled.quads;
  for (int64_t c = first; c < end; c++) {
    uint8_t *to = row + place(q, c);
    for (int32_t u = 0; u < plan->tiled.units; u++, to += q->unit_bytes) memcpy(to, &zero, sizeof(zero));
  }
}

static inline __m512i load(const int8_t *from, int64_t left) {
  return left >= BLOCK ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi8(first_bytes(left), from);
}

/* What has become of four pixels: 16 bytes to each unit's part of the row. With stride 2 the first eight are pixels 0 and 2. */
#define STORE_UNIT(four, u)                                                               \
  if (4 * part + u < units) {                                                             \
    const __m128i unit = _mm512_extracti32x4_epi32(four, u);                              \
    if (stride == 1) {                                                                    \
      _mm_storeu_si128((void *)(even + (4 * part + u) * unit_bytes), unit);               \
    } else {                                                                              \
      _mm_storel_epi64((void *)(even + (4 * part + u) * unit_bytes), unit);               \
      _mm_storel_epi64((void *)(odd + (4 * part + u) * unit_bytes), _mm_unpackhi_epi64(unit, unit)); \
    }                                                                                     \
  }
#define STORE_UNITS(four) STORE_UNIT(four, 0) STORE_UNIT(four, 1) STORE_UNIT(four, 2) STORE_UNIT(four, 3)

/* A row, its first pixels to `even` (the pixels 0, 4, ...) and, with stride 2, `odd` (1, 5, ...). `wide`: whether four
 * pixels of x are more than 64 bytes. */
static inline __attribute__((always_inline)) void copy_groups(const KeGatedConv2DInt8Plan *plan, const int8_t *from,
                                                              uint8_t *even, uint8_t *odd, const int units, const int wide,
                                                              const int stride) {
  const KeInt8Tiled *t = &plan->tiled;
  const KeInt8Quads *q = &t->quads;
  const ptrdiff_t channels = plan->shape.conv.in_channels, group_bytes = KE_INT8_QUAD * channels, unit_bytes = q->unit_bytes;
  const ptrdiff_t step = KE_INT8_QUAD / stride * KE_UNIT_BYTES;
  const __m512i sign = _mm512_set1_epi8(-128);
  const __m512i index0 = _mm512_loadu_si512(q->gathered), index1 = _mm512_loadu_si512(q->gathered + BLOCK);
  for (int64_t left = t->middle * channels; left > 0; left -= group_bytes, from += group_bytes, even += step, odd += step) {
    const __m512i x0 = _mm512_xor_si512(load(from, left), sign);
    if (wide) {
      const __m512i x1 = left > BLOCK ? _mm512_xor_si512(load(from + BLOCK, left - BLOCK), sign) : sign;
      const __m512i four0 = _mm512_permutex2var_epi8(x0, index0, x1);
      enum { part = 0 };
      STORE_UNITS(four0)
      if (units > 4) {
        const __m512i four1 = _mm512_permutex2var_epi8(x0, index1, x1);
        enum { part = 1 };
        STORE_UNITS(four1)
      }
    } else {
      const __m512i four0 = _mm512_permutexvar_epi8(index0, x0);
      enum { part = 0 };
      STORE_UNITS(four0)
    }
  }
}

static void copy_row(const KeGatedConv2DInt8Plan *plan, const int8_t *from, uint8_t *row) {
  const KeInt8Tiled *t = &plan->tiled;
  const KeInt8Quads *q = &t->quads;
  uint8_t *even = row + place(q, t->left), *odd = row + place(q, t->left + 1);
#define COPY(units, wide)                                                \
  case units:                                                            \
    if (q->stride == 1) copy_groups(plan, from, even, odd, units, wide, 1); \
    else copy_groups(plan, from, even, odd, units, wide, 2);             \
    break;
  if (KE_INT8_QUAD * plan->shape.conv.in_channels > BLOCK) {
    switch (t->units) { COPY(1, 1) COPY(2, 1) COPY(3, 1) COPY(4, 1) COPY(5, 1) COPY(6, 1) COPY(7, 1) COPY(8, 1) }
  } else {
    switch (t->units) { COPY(1, 0) COPY(2, 0) COPY(3, 0) COPY(4, 0) }
  }
}

static void copy(const KeGatedConv2DInt8Plan *plan, const int8_t *x) {
  const KeInt8Tiled *t = &plan->tiled;
  const KeInt8Quads *q = &t->quads;
  const int32_t zero = 0x01010101 * (ke_int8_zero(plan) & 0xff);
  uint8_t *row = q->copy;
  for (int64_t h = -(int64_t)plan->pad_top; h < q->rows - plan->pad_top; h++, row += q->row_bytes) {
    if (h < 0 || h >= plan->height) {
      memset(row, ke_int8_zero(plan), (size_t)q->row_bytes);
      continue;
    }
    copy_row(plan, x + h * plan->width * plan->shape.conv.in_channels, row);
    fill(plan, row, 0, t->left, zero);
    fill(plan, row, t->left + t->middle, t->left + t->middle + t->right, zero);
  }
}

#define EACH_GROUP(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)

#define DECLARE(g) __m512i a##g = init0, b##g = init1, c##g = init2, d##g = init3;

#define STEP(g)                                                                                    \
  if (g < groups) {                                                                                \
    const __m512i four = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)(at + 16 * g)));     \
    MULTIPLY_ADD(a##g, four, w0);                                                                  \
    if (vectors > 1) MULTIPLY_ADD(b##g, four, w1);                                                 \
    if (vectors > 2) MULTIPLY_ADD(c##g, four, w2);                                                 \
    if (vectors > 3) MULTIPLY_ADD(d##g, four, w3);                                                 \
  }

/* The sums of one group of pixels, 64 bytes [output][vector][pixel]; what is beyond the vectors is not used. */
#define STORE(g)                                                                                          \
  if (g < groups) {                                                                                       \
    const __m512i one = requantize(a##g, scale0);                                                         \
    const __m512i two = vectors > 1 ? requantize(b##g, scale1) : one;                                     \
    const __m512i three = vectors > 2 ? requantize(c##g, scale2) : one;                                   \
    const __m512i four = vectors > 3 ? requantize(d##g, scale3) : three;                                  \
    const __m512i first_two = _mm512_adds_epi16(_mm512_packs_epi32(one, two), zero_point);                \
    const __m512i last_two = _mm512_adds_epi16(_mm512_packs_epi32(three, four), zero_point);              \
    _mm512_store_si512(compact + g * group_bytes, _mm512_packs_epi16(first_two, last_two));               \
  }

static inline __m512i requantize(__m512i acted, __m512 scale) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(acted), scale));
}

#define RECTIFY(g)                                                   \
  if (g < groups) {                                                  \
    a##g = _mm512_max_epi32(a##g, nothing);                          \
    if (vectors > 1) b##g = _mm512_max_epi32(b##g, nothing);         \
    if (vectors > 2) c##g = _mm512_max_epi32(c##g, nothing);         \
    if (vectors > 3) d##g = _mm512_max_epi32(d##g, nothing);         \
  }

#define CAP(g)                                                       \
  if (g < groups) {                                                  \
    a##g = _mm512_min_epi32(a##g, cap0);                             \
    if (vectors > 1) b##g = _mm512_min_epi32(b##g, cap1);            \
    if (vectors > 2) c##g = _mm512_min_epi32(c##g, cap2);            \
    if (vectors > 3) d##g = _mm512_min_epi32(d##g, cap3);            \
  }

/* `vectors` vectors from `first` on, of `groups` groups of pixels from the copy at `x` on. */
static inline __attribute__((always_inline)) void run_tile(const KeGatedConv2DInt8Plan *plan, const uint8_t *x, int32_t first,
                                                           int8_t *compact, const int vectors, const int groups) {
  const KeInt8Tiled *t = &plan->tiled;
  const KeInt8Quads *q = &t->quads;
  const int32_t k = first * KE_INT8_QUAD;
  const int32_t k1 = k + (vectors > 1 ? 4 : 0), k2 = k + (vectors > 2 ? 8 : 0), k3 = k + (vectors > 3 ? 12 : 0);
  const __m512i init0 = four_times(t->init + k), init1 = four_times(t->init + k1), init2 = four_times(t->init + k2),
                init3 = four_times(t->init + k3);
  EACH_GROUP(DECLARE)
  const uint8_t *weights = q->weights + first * q->vector_bytes;
  const ptrdiff_t pitch = q->vector_bytes, unit_bytes = q->unit_bytes;
  const ptrdiff_t *const end = q->taps + plan->shape.conv.kernel_h * plan->shape.conv.kernel_w;
  for (const ptrdiff_t *tap = q->taps; tap != end; tap++) {
    const uint8_t *at = x + *tap;
    for (int32_t u = t->units; u > 0; u--, at += unit_bytes, weights += BLOCK) {
      const __m512i w0 = _mm512_load_si512(weights);
      const __m512i w1 = vectors > 1 ? _mm512_load_si512(weights + pitch) : w0;
      const __m512i w2 = vectors > 2 ? _mm512_load_si512(weights + 2 * pitch) : w0;
      const __m512i w3 = vectors > 3 ? _mm512_load_si512(weights + 3 * pitch) : w0;
      EACH_GROUP(STEP)
    }
  }
  if (plan->low == 0) {
    const __m512i nothing = _mm512_setzero_si512();
    EACH_GROUP(RECTIFY)
  }
  if (plan->shape.conv.activation == 2) {
    const __m512i cap0 = four_times(t->cap + k), cap1 = four_times(t->cap + k1), cap2 = four_times(t->cap + k2),
                  cap3 = four_times(t->cap + k3);
    EACH_GROUP(CAP)
  }
  const __m512i zero_point = _mm512_set1_epi16((int16_t)plan->shape.output_zero_point);
  const __m512 scale0 = _mm512_castsi512_ps(four_times(t->scale + k)), scale1 = _mm512_castsi512_ps(four_times(t->scale + k1)),
               scale2 = _mm512_castsi512_ps(four_times(t->scale + k2)), scale3 = _mm512_castsi512_ps(four_times(t->scale + k3));
  const ptrdiff_t group_bytes = q->panels * BLOCK;
  EACH_GROUP(STORE)
}

typedef void (*Tile)(const KeGatedConv2DInt8Plan *plan, const uint8_t *x, int32_t first, int8_t *compact);

#define TILES(M) EACH_TILE_OF(M, 1) EACH_TILE_OF(M, 2) EACH_TILE_OF(M, 3) M(4, 1) M(4, 2) M(4, 3) M(4, 4) M(4, 5) M(4, 6)
#define EACH_TILE_OF(M, v) M(v, 1) M(v, 2) M(v, 3) M(v, 4) M(v, 5) M(v, 6) M(v, 7) M(v, 8)

#define DEFINE(v, g)                                                                                              \
  static void tile_##v##_##g(const KeGatedConv2DInt8Plan *plan, const uint8_t *x, int32_t first, int8_t *compact) { \
    run_tile(plan, x, first, compact, v, g);                                                                      \
  }
TILES(DEFINE)

#define NAME(v, g) [v - 1][g - 1] = tile_##v##_##g,
static const Tile tiles[MOST_VECTORS][MOST_GROUPS] = {TILES(NAME)};
static const int32_t most_groups[MOST_VECTORS] = {8, 8, 8, 6};

/* How the groups of a row are cut into tiles: `wide` ones of one group more, then the narrow ones. */
typedef struct Panel {
  int32_t first, pieces, wide, narrow_groups;
  Tile narrow_tile, wide_tile;
} Panel;

static Panel cut(const KeInt8Quads *q, int32_t panel) {
  Panel p = {.first = ke_int8_quads_first(q, panel)};
  const int32_t vectors = ke_int8_quads_first(q, panel + 1) - p.first;
  p.pieces = (q->groups + most_groups[vectors - 1] - 1) / most_groups[vectors - 1];
  p.narrow_groups = q->groups / p.pieces;
  p.wide = q->groups % p.pieces;
  p.narrow_tile = tiles[vectors - 1][p.narrow_groups - 1];
  if (p.wide > 0) p.wide_tile = tiles[vectors - 1][p.narrow_groups];
  return p;
}

static inline void run_row(const KeGatedConv2DInt8Plan *plan, const Panel *p, const uint8_t *x, int8_t *compact) {
  const ptrdiff_t group_bytes = plan->tiled.quads.panels * BLOCK;
  for (int32_t piece = 0; piece < p->pieces; piece++) {
    const int32_t groups = p->narrow_groups + (piece < p->wide);
    (piece < p->wide ? p->wide_tile : p->narrow_tile)(plan, x, p->first, compact);
    x += 16 * groups;
    compact += groups * group_bytes;
  }
}

static inline void store(int8_t *to, int64_t left, __m512i bytes) {
  if (left >= BLOCK) {
    _mm512_storeu_si512(to, bytes);
  } else {
    _mm512_mask_storeu_epi8(to, first_bytes(left), bytes);
  }
}

static void spread_row(const KeGatedConv2DInt8Plan *plan, int8_t *y) {
  const KeInt8Tiled *t = &plan->tiled;
  const KeInt8Quads *q = &t->quads;
  const ptrdiff_t channels = plan->shape.conv.out_channels, group_bytes = KE_INT8_QUAD * channels;
  const __m512i shut = _mm512_set1_epi8((char)plan->shape.output_zero_point);
  const __m512i index0 = _mm512_loadu_si512(q->spread), index1 = _mm512_loadu_si512(q->spread + BLOCK);
  const __mmask64 open0 = q->open[0], open1 = q->open[1];
  const int8_t *from = q->compact;
  /* A full store may reach into the next group, which comes later; stores with a mask are slow. */
  for (int64_t left = t->columns * channels; left > 0; left -= group_bytes, from += q->panels * BLOCK, y += group_bytes) {
    const __m512i a = _mm512_load_si512(from), b = q->panels > 1 ? _mm512_load_si512(from + BLOCK) : a;
    store(y, left, _mm512_mask_blend_epi8(open0, shut, _mm512_permutex2var_epi8(a, index0, b)));
    if (group_bytes > BLOCK && left > BLOCK) {
      store(y + BLOCK, left - BLOCK, _mm512_mask_blend_epi8(open1, shut, _mm512_permutex2var_epi8(a, index1, b)));
    }
  }
}

static void run(KeGatedConv2DInt8Plan *plan, const KeInt8Call *call) {
  const KeInt8Tiled *t = &plan->tiled;
  const KeInt8Quads *q = &t->quads;
  copy(plan, call->x);
  const Panel panels[2] = {cut(q, 0), cut(q, q->panels - 1)};
  for (int32_t row = 0; row < t->rows; row++) {
    const uint8_t *x = q->copy + (int64_t)row * plan->shape.conv.stride_h * q->row_bytes;
    for (int32_t p = 0; p < q->panels; p++) run_row(plan, &panels[p], x, q->compact + p * BLOCK);
    spread_row(plan, call->y + (int64_t)row * t->columns * plan->shape.conv.out_channels);
  }
}

const KeInt8QuadMoves ke_int8_quad_moves = {gather, run};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int ke_no_quads_avx512vnni;
#endif
