/* What the files of this folder share. Nothing outside includes it, but tests.
 *
 * Outputs are computed in blocks of 64, a lane of 32 bits for each. The weights of a block are a list of records that go
 * with places in a padded image of what the inputs were made into, its cells: for popcounts the bits of all channels, plane
 * by plane; for tables 64 bytes for 16 channels. Records are in the order basis, plane, tap, channels; those in which no
 * output has a basis are left out, and `max_bits` ends the list early. */
#ifndef KE_MULTI_BIT_CONV_2D_INTERNAL_H_
#define KE_MULTI_BIT_CONV_2D_INTERNAL_H_

#include <math.h>
#include <string.h>

#include "multi_bit_conv_2d.h"

enum {
  KE_BLOCK = 64,
  KE_LANES = 16,
  KE_MOST_PIXELS = 8,
  KE_MOST_LEVELS = 8,
  KE_CHUNK = 16,
  KE_TABLE = 64,
  KE_PLANE = 32,       /* lanes */
  KE_NO_INPUTS = 0x80, /* a byte of a planar table */
  KE_EXACT_PIXELS = 4,
};

/* Some pixels of one block of outputs.
 *
 * A popcount record: 32 channels of one tap; u32 bits[lanes], then int16 scales[lanes][2] for the lower and upper half.
 *   acc[lane] += scales[lane][h] * popcount(half h of (bits[lane] ^ word at the place))
 * A table record: two chunks of 16 channels; u32 indices[lanes], then u8 scales[lanes][4] of the first chunk and, unless
 * they are `shared`, of the second one. Byte j of the indices holds one for the j-th four inputs of the first chunk in bits
 * 2 to 5; after a rotation to the right by 4 bits, the second chunk's are there.
 *   acc[lane] += scales[lane][j] * table_h[4 * index_h[lane][j] + j]
 * A planar table record, for vectors whose permutations stay within 16 bytes: one chunk; u8 indices[4][planes of 32 lanes], then
 * i32 scales[planes of 32]. The table of the j-th four inputs is at 16 * j, its bytes are 128 more than what they stand for.
 * Lanes within a plane are in the orders of ke_plane_byte and ke_plane_word.
 *   acc[lane] += scales[lane] * (table[16 * j + indices[j][lane]] - 128), for every j
 * Then y = min(high, max(low, base[lane] + multiplier[lane] * (float)acc)), rounded and int8 where `is_int8`. */
typedef struct KeMultiBitTile {
  const uint8_t *pixel[KE_MOST_PIXELS]; /* in the image */
  const float *base[KE_MOST_PIXELS];
  void *y[KE_MOST_PIXELS]; /* of the block's first output */
  const float *multiplier;
  const uint32_t *records;
  const int32_t *places; /* bytes from the pixel: one for each record, two where it holds two chunks */
  int32_t count;         /* of records */
  int32_t vectors;       /* lanes / 16: 1 to 4 */
  int32_t pixels;        /* that differ: 1, or as many as the path takes */
  int32_t outputs;       /* of the block that are real */
  int32_t shared;
  int32_t alike; /* so many records in a row, unless they hold two chunks, have the same scales: 1 to 31, divides `count` */
  int32_t is_int8;
  int32_t is_clamped; /* whether low and high are closer than what the type of y can hold */
  float low, high;
} KeMultiBitTile;

typedef enum KeMultiBitFamily { KE_MULTI_BIT_EXACT, KE_MULTI_BIT_POPCOUNT, KE_MULTI_BIT_TABLE } KeMultiBitFamily;

typedef struct KeMultiBitPath {
  KeIsa isa;
  KeMultiBitFamily family;
  int32_t pixels; /* that a tile has, at most */
  int32_t is_planar; /* tables and their records */
  /* Of the same family and records, one lane at a time; NULL for these themselves. */
  const struct KeMultiBitPath *twin;
  /* Makes cells of `width` pixels. */
  void (*take_row)(const KeMultiBitConv2DPlan *plan, const void *x, int32_t width, uint8_t *cells);
  void (*tile)(const KeMultiBitTile *tile);
  /* In their place in the exact family: adds the products of one tap to sums of KE_EXACT_PIXELS pixels, `lanes` of them, whole
   * vectors of 16. */
  void (*add_tap)(const float *const *x, int32_t channels, const float *weights, size_t pitch, int32_t lanes,
                  float (*sums)[KE_BLOCK]);
} KeMultiBitPath;

typedef struct KeMultiBitBlock {
  size_t data, places;                        /* where records and places begin */
  int32_t vectors;
  int32_t end[KE_MULTI_BIT_MAX_WIDTH + 1];    /* how many records have a basis below this */
} KeMultiBitBlock;

/* The levels of multi-bit inputs: x is below `steps[k]` unless its level is higher than the k-th. */
typedef struct KeMultiBitLevels {
  int32_t count; /* 2^bits */
  int8_t integer[KE_MOST_LEVELS]; /* table: the level without its offset, in steps of `integer_scale` */
  float integer_scale;
  float value[KE_MOST_LEVELS];
  uint32_t minus[KE_MOST_LEVELS]; /* bit j: d_j is -1 */
  float step[KE_MOST_LEVELS];
  int32_t integer_step[KE_MOST_LEVELS]; /* for int8 inputs: -128 to 128 */
} KeMultiBitLevels;

typedef struct KeMultiBitUnfolded KeMultiBitUnfolded;

struct KeMultiBitConv2DPlan {
  KeMultiBitConv2DShape shape;
  KePackedWeights packed;
  const KeMultiBitPath *path;
  KeMultiBitLevels levels;
  float gamma[4]; /* offset, then one for each plane */
  int32_t taps, blocks, planes;
  int32_t inner;  /* words of a plane, or chunks */
  size_t cell;    /* bytes */
  float *bias;    /* [outputs] */

  KeMultiBitUnfolded *unfolded; /* computes it where there is one; `path` is that of its plan, for what follows nothing is made */

  /* popcount and table */
  KeMultiBitBlock *block; /* [blocks] */
  uint32_t *records;      /* 64-byte aligned */
  size_t place_count;
  int32_t *place_tap, *place_inner, *place; /* `place` once the size is known */
  int32_t shared, alike;
  float *step;       /* [padded outputs]: what one step of an accumulator is worth, negative for popcounts */
  double *inside;    /* [bases, taps, padded outputs]: what a tap inside the picture adds to the base */
  double *outside;   /* the same for a tap outside; popcount only */
  float *multiplier; /* [padded outputs] */

  /* exact */
  float *weights; /* [taps * channels, padded outputs] for `base_bits` */
  float *zeros;   /* [channels], in the same memory */

  int32_t sized;
  int32_t batch, height, width;
  int32_t output_height, output_width, pad_top, pad_left;
  int32_t image_height, image_width;
  int32_t row_classes, column_classes;
  int32_t *row_class, *column_class; /* of an output's row, column */
  int32_t *pixel_place, *pixel_base; /* of an output pixel: bytes in `image`, floats in `base` */
  int32_t *row_range, *column_range; /* of a class: first tap inside and one past the last */
  float *base;                       /* [row classes, column classes, padded outputs] */
  float *constant, *slope;           /* of the same sizes: base = constant - slope * input_scale * zero_point */
  int32_t base_bits;                 /* the max_bits that these were made for, or -1 */
  uint8_t *image;                    /* 64-byte aligned; what is outside the picture is never written again */
  size_t image_bytes, image_room;    /* of one; of all that `image` has */
  int32_t bands;                     /* that it is laid out for, each with rows of its own */
  void *integers;                    /* int8 or float32 of one sample, where x must be changed first */
};

extern const KeMultiBitPath ke_multi_bit_exact;
extern const KeMultiBitPath ke_multi_bit_popcount_scalar;
extern const KeMultiBitPath ke_multi_bit_table_scalar;
extern const KeMultiBitPath ke_multi_bit_table_planar; /* the twin of planar paths; never chosen */
#if defined(__x86_64__)
extern const KeMultiBitPath ke_multi_bit_popcount_avx512bitalg;
extern const KeMultiBitPath ke_multi_bit_table_avx512bitalg;
extern const KeMultiBitPath ke_multi_bit_popcount_avx2;
extern const KeMultiBitPath ke_multi_bit_table_avx2;
extern const KeMultiBitPath ke_multi_bit_exact_avx512;
extern const KeMultiBitPath ke_multi_bit_exact_avx2;
#elif defined(KE_NEON_FILES)
extern const KeMultiBitPath ke_multi_bit_popcount_neon;
#endif

/* The best path of that family that needs no more than `isa`. */
const KeMultiBitPath *ke_multi_bit_path(KeMultiBitFamily family, KeIsa isa);

/* Which family computes these weights best there. */
KeMultiBitFamily ke_multi_bit_family(const KeMultiBitConv2DShape *shape);

/* Whether groups end only where chunks of 16 channels of a tap do. */
int ke_multi_bit_chunked(const KeMultiBitConv2DShape *shape);

/* plan.c: an image for so many bands of outputs, two of which next to one another see `common` bytes of the same rows. 0, or -1
 * when out of memory, never for a single band; the image is as it was then. */
int ke_multi_bit_image(KeMultiBitConv2DPlan *plan, int32_t bands, size_t common);

/* weights.c: everything of the plan that depends on weights alone. -1 when out of memory. */
int ke_multi_bit_pack(KeMultiBitConv2DPlan *plan);

/* base.c: `base` and `multiplier` for max_bits and a sample's scale and zero point. */
void ke_multi_bit_make_base(KeMultiBitConv2DPlan *plan, int32_t max_bits, float input_scale, int32_t zero_point);

/* Inputs of one sample: scale * (value - zero_point). */
typedef struct KeMultiBitIntegers {
  const int8_t *values;
  float scale;
  int32_t zero_point;
} KeMultiBitIntegers;

/* run.c: one sample of a plan with tables of inputs as they are. */
void ke_multi_bit_run_integers(KeMultiBitConv2DPlan *plan, int32_t max_bits, const KeMultiBitIntegers *x, uint8_t *y,
                               const KeParallel *parallel);

/* unfold.c: whether a convolution is computed by one over its patches; NULL when out of memory. */
int ke_multi_bit_unfolds(const KeMultiBitConv2DShape *shape);
KeMultiBitUnfolded *ke_multi_bit_unfold(const KeMultiBitConv2DShape *shape, const KePackedWeights *packed,
                                        const KePackedStreams *streams, const float *levels, const float *bias,
                                        char *error, size_t error_bytes);
const KeMultiBitPath *ke_multi_bit_unfolded_path(const KeMultiBitUnfolded *unfolded);
int ke_multi_bit_unfolded_resize(KeMultiBitUnfolded *unfolded, const KeMultiBitConv2DPlan *plan);
int ke_multi_bit_unfolded_run(KeMultiBitUnfolded *unfolded, const KeMultiBitConv2DPlan *plan, int32_t max_bits,
                              const KeMultiBitIntegers *x, uint8_t *y, const KeParallel *parallel);
void ke_multi_bit_unfolded_destroy(KeMultiBitUnfolded *unfolded);

/* exact.c */
void ke_multi_bit_exact_run(KeMultiBitConv2DPlan *plan, int32_t max_bits, const void *x, void *y,
                            const KeParallel *parallel);

/* The end of a tile: up to 16 lanes of its k-th pixel from `first` on. */
static inline void ke_store_lanes(const KeMultiBitTile *tile, int k, int32_t first, const int32_t *sums) {
  const int32_t left = tile->outputs - first, count = left < KE_LANES ? left : KE_LANES;
  const float *multiplier = tile->multiplier + first, *base = tile->base[k] + first;
  float values[KE_LANES];
  for (int32_t o = 0; o < KE_LANES; o++) { /* both are padded to whole vectors */
    const float scaled = (float)sums[o] * multiplier[o];
    float value = scaled + base[o];
    value = value > tile->low ? value : tile->low;
    values[o] = value < tile->high ? value : tile->high;
  }
  if (!tile->is_int8) {
    memcpy((uint8_t *)tile->y[k] + (size_t)first * sizeof(float), values, (size_t)count * sizeof(float));
    return;
  }
  int8_t integers[KE_LANES];
  for (int32_t o = 0; o < KE_LANES; o++) integers[o] = (int8_t)rintf(values[o]);
  memcpy((int8_t *)tile->y[k] + first, integers, (size_t)count);
}

/* Padded to whole vectors. */
static inline size_t ke_padded_outputs(const KeMultiBitConv2DPlan *plan) {
  return ((size_t)plan->shape.conv.out_channels + KE_LANES - 1) / KE_LANES * KE_LANES;
}

/* A table holds the sums of four times four inputs, every input with a sign: bit k of `signs` is 1 where the k-th is
 * subtracted. The sum of signs 8 to 15 is that of their opposites, negated. It stands at 4 * index + j for the j-th four. */
static inline uint32_t ke_table_index(uint32_t signs) {
  const uint32_t negated = signs >> 3, kept = negated ? 15u - signs : signs;
  return (kept & 3u) << 2 | negated << 1 | kept >> 2;
}

/* The same of planar tables: the order in which packing words and then bytes of 256-bit vectors puts them. */
static inline uint32_t ke_planar_index(uint32_t signs) {
  const uint32_t negated = signs >> 3, kept = negated ? 15u - signs : signs;
  return (kept & 3u) | negated << 2 | (kept >> 2) << 3;
}

/* Where the indices of a lane below 32 are: bytes of the lower and the upper 16 lanes alternate. */
static inline int32_t ke_plane_byte(int32_t lane) { return 2 * (lane % KE_LANES) + lane / KE_LANES; }

/* Where its scale and its sum are: unpacking words of 256-bit vectors leaves them in this order. */
static inline int32_t ke_plane_word(int32_t lane) {
  const int32_t half = lane % KE_LANES / 8, quad = lane % 8 / 4;
  return lane / KE_LANES * KE_LANES + 8 * quad + 4 * half + lane % 4;
}

/* Lanes in whole planes. */
static inline int32_t ke_plane_lanes(int32_t vectors) { return (vectors + 1) / 2 * KE_PLANE; }

static inline uint32_t ke_rotate_left(uint32_t word, int by) { return by == 0 ? word : word << by | word >> (32 - by); }

#endif
