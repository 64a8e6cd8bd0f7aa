/* The vector paths: how one call is laid out.
 *
 * An output vector is `lanes` output channels of one pixel. A tile keeps a few pixels times one to three output vectors
 * in registers and walks over the steps, one per (kernel row, open input, kernel column): load the weight vectors,
 * broadcast x of each pixel, multiply and add. Which output channels share a vector is decided by the gates of each
 * call: DIRECT   the blocks of the packed weights as they are (compacting would not give fewer vectors); written
 * straight into y; COMPACT  the open channels side by side, their weights gathered; results go through a buffer and are
 * spread over y; PAIRS    at most lanes / 2 channels are open: even lanes belong to a pixel of the upper half of the
 * picture, odd lanes to the pixel as far down in the lower half; x is copied with the two rows interleaved. x is used
 * where it lies unless the window leaves the picture (or PAIRS); then its rows are copied between zeros. */
#ifndef KE_GATED_CONV_2D_TILED_H_
#define KE_GATED_CONV_2D_TILED_H_

#include <stddef.h>
#include <stdint.h>

enum { KE_MAX_VECTORS = 3, KE_MAX_TILE_ROWS = 4, KE_MAX_TILE_COLUMNS = 14, KE_MAX_LANES = 16 };

/* Kinds of tiles: vectors - 1, or one vector of pairs, or either one vector with three kernel columns in one step. */
enum { KE_KIND_PAIRS = KE_MAX_VECTORS, KE_KIND_THREE, KE_KIND_THREE_PAIRS, KE_MAX_KINDS };

typedef enum KeMode { KE_DIRECT, KE_COMPACT, KE_PAIRS } KeMode;

/* Offsets in floats, from the tile's first x and from each vector's weights. */
typedef struct KeStep {
  int32_t x, w;
} KeStep;

typedef struct KeVector {
  const float *weights, *bias, *gate;
  int32_t y;     /* where it is written, in floats from the pixel's first output */
  uint32_t open; /* one bit per lane; the others are written as 0 */
} KeVector;

typedef struct KeTile {
  const float *x;
  ptrdiff_t x_column, x_row; /* bytes from one output pixel to the next */
  const KeStep *steps;
  ptrdiff_t step_count;
  const KeVector *vectors;
  float *y;
  ptrdiff_t y_column, y_row; /* floats */
  float low, high;
} KeTile;

typedef void (*KeTileKernel)(const KeTile *tile);

/* What one instruction set brings. */
typedef struct KeTiledIsa {
  int32_t lanes;
  int32_t max_vectors;         /* of one tile */
  int32_t panel_vectors;       /* of a tile while more are left than fit into one */
  int32_t slots[KE_MAX_KINDS]; /* pixels of one tile; 0 where there is no such kind (without PAIRS, no such mode) */
  int32_t max_columns[KE_MAX_KINDS];
  /* [kind][rows - 1][columns - 1]; NULL where rows * columns is more than the slots. */
  KeTileKernel kernels[KE_MAX_KINDS][KE_MAX_TILE_ROWS][KE_MAX_TILE_COLUMNS];
  /* Lists the channels whose gate is not 0, and one bit each in blocks of `lanes`; returns how many. May write `lanes`
   * entries more. */
  int32_t (*scan)(const float *gates, int32_t channels, int32_t *open, uint16_t *bits);
  /* Puts the open ones of `channels` values side by side; may write `lanes` values more. */
  void (*compress)(const float *values, int32_t channels, const uint16_t *bits, float *compact);
  /* One compact row of `pixels` pixels, `pitch` floats apart, to y: block i takes its open lanes from starts[i] on, and
   * 0 elsewhere. */
  void (*spread)(const float *compact, ptrdiff_t pitch, const uint16_t *bits, const int32_t *starts, int32_t channels,
                 float *y, int32_t pixels);
  /* The same for PAIRS, one vector per pixel; `lower` may be NULL. This and `interleave` are NULL without PAIRS. */
  void (*spread_pairs)(const float *compact, const uint16_t *bits, const int32_t *starts, int32_t channels,
                       float *upper, float *lower, int32_t pixels);
  /* One vector of weights per (kernel row, open input, kernel column): lane i from output channel outputs[i]. */
  void (*gather)(const float *weights, size_t block_pitch, size_t row_pitch, int32_t kernel_h, int32_t kernel_w,
                 const int32_t *open, int32_t open_count, const int32_t *outputs, float *gathered);
  /* to[2 i] = upper[i], to[2 i + 1] = lower[i]; a NULL stands for zeros. */
  void (*interleave)(const float *upper, const float *lower, size_t count, float *to);
} KeTiledIsa;

/* How x is addressed and the output cut up; one for DIRECT and COMPACT, one for PAIRS. */
typedef struct KeGeometry {
  int32_t values;        /* x values side by side: 1, PAIRS 2 */
  int32_t rows, columns; /* of output pixels; a 1x1 convolution in place is one long row, PAIRS has half the rows */
  int32_t region_rows, region_columns; /* all panels of output vectors pass over one region before the next begins */
  int32_t in_place;
  int64_t pitch;               /* floats from one row of x, or of its copy, to the next */
  int64_t left, middle, right; /* a row of the copy: floats of zeros, floats taken from x, floats of zeros */
  int64_t x_row, x_column;     /* floats from one output pixel to the next */
  int64_t room;   /* rows that a band's copy of x has room for; later rows take the place of earlier ones */
  size_t at_copy; /* the copies in the scratch memory */
  int32_t tap_row, tap_column; /* floats from one tap to the next */
} KeGeometry;

typedef struct KeTiled {
  const KeTiledIsa *isa;
  KeGeometry geometry[2];
  int32_t bands;        /* how many threads can work */
  size_t block_pitch;   /* floats from one block of packed weights to the next */
  size_t gather_floats; /* the room for gathered weights, and of one panel's, which each band has where not all fit */
  size_t panel_floats;
  size_t compact_floats; /* of one band's buffer for results */

  /* Pieces of the scratch memory, in bytes from its beginning. */
  size_t at_open_in, at_open_out, at_bits, at_seen_bits, at_starts, at_vectors, at_gate, at_bias, at_steps, at_gathered,
      at_compact;

  /* What the last gates led to. */
  int32_t seen; /* whether the schedule belongs to the bits at_seen_bits */
  KeMode mode;
  int32_t open_in, open_out, vector_count;
  int32_t lazy; /* weights are gathered panel by panel, just before use */

  int32_t has_halo; /* whether the zeros beside the copies of x, which no call touches, have been written */
} KeTiled;

struct KeGatedConv2DPlan;
struct KeGatedConv2DCall;

/* Sizes the scratch memory; a status. */
int ke_tiled_measure(struct KeGatedConv2DPlan *plan, const KeTiledIsa *isa);
/* Reads the gates of one sample and lays out its vectors and steps. Returns whether other channels are open than in the
 * last call, so that weights have to be gathered anew. */
int ke_tiled_schedule(struct KeGatedConv2DPlan *plan, const struct KeGatedConv2DCall *call);
/* One sample. */
uint64_t ke_tiled_run(struct KeGatedConv2DPlan *plan, const struct KeGatedConv2DCall *call);

#endif
