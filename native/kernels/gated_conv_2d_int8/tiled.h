/* The vector paths: how one call is laid out.
 *
 * An output vector is `lanes` output channels of one pixel, a unit is 4 bytes that hold as many inputs as one instruction
 * multiplies and adds in a lane. For each call the open inputs of x are copied side by side into units, with the real zero
 * around the picture, and the weights of the open inputs and outputs are gathered into [vector][tap][unit][lane], one byte
 * each; weights of inputs that fill the last unit are 0. A tile keeps a few pixels times one to three vectors in registers.
 * Its sums begin at the bias, less what the zero point of the copied x adds. Results are written side by side and then
 * spread over y, or, when every output is open, straight into y. As long as the same channels stay open the gathered
 * weights stay. */
#ifndef KE_GATED_CONV_2D_INT8_TILED_H_
#define KE_GATED_CONV_2D_INT8_TILED_H_

#include <stddef.h>
#include <stdint.h>

#include "quads.h"

enum { KE_INT8_MAX_VECTORS = 3, KE_INT8_MAX_ROWS = 4, KE_INT8_MAX_COLUMNS = 14 };
enum { KE_INT8_BLOCK = 64, KE_INT8_PIECE = 16, KE_UNIT_BYTES = 4 };

/* Units that follow each other in the copy of x and in the weights. */
typedef struct KeInt8Run {
  ptrdiff_t x; /* bytes from the tile's first x */
  ptrdiff_t units;
} KeInt8Run;

typedef struct KeInt8Tile {
  const uint8_t *x;
  ptrdiff_t x_column, x_row; /* bytes from one output pixel to the next */
  const KeInt8Run *runs;
  ptrdiff_t run_count;
  const uint8_t *weights; /* of the first vector */
  ptrdiff_t vector_bytes;
  const int32_t *init, *cap; /* one for each lane of the vectors, as `scale` */
  const float *scale;
  int32_t low, zero_point;
  int8_t *y;
  ptrdiff_t y_column, y_row;
} KeInt8Tile;

typedef void (*KeInt8TileKernel)(const KeInt8Tile *tile);

struct KeGatedConv2DInt8Plan;

/* 16 channels, for instruction sets that permute so many bytes: where the bytes of an open piece come from or go to, and what
 * stands around that; how many channels are open before and in it. */
typedef struct KeInt8Piece {
  uint8_t before[KE_INT8_PIECE], index[KE_INT8_PIECE], after[KE_INT8_PIECE];
  int32_t start, count;
} KeInt8Piece;

/* 64 channels: which are open, and how many are open before them. */
typedef struct KeInt8Block {
  union { /* belongs to the instruction set */
    uint8_t index[KE_INT8_BLOCK];
    KeInt8Piece pieces[KE_INT8_BLOCK / KE_INT8_PIECE];
  };
  uint64_t mask;
  int64_t start;
} KeInt8Block;

/* How x is moved, weights are gathered and results spread. */
typedef struct KeInt8Moves {
  size_t packed_block_bytes; /* of packed weights by input, tap and block of 64 outputs; 0 where there are none */
  int32_t group;             /* vectors that are gathered together */
  void (*pack)(struct KeGatedConv2DInt8Plan *plan);
  /* Fills in the blocks' indices. */
  void (*index)(struct KeGatedConv2DInt8Plan *plan);
  /* The open inputs of `count` pixels, `stride` bytes apart; may write 64 bytes more. */
  void (*copy)(const struct KeGatedConv2DInt8Plan *plan, const int8_t *from, ptrdiff_t stride, int64_t count, uint8_t *to);
  /* Weights and first sums of the group's vectors. */
  void (*gather)(struct KeGatedConv2DInt8Plan *plan, int32_t first_vector);
  /* Rows of results side by side, `pitch` bytes apart, to pixels of y; may read 64 bytes more. */
  void (*spread)(const struct KeGatedConv2DInt8Plan *plan, const int8_t *compact, ptrdiff_t pitch, int8_t *y, int64_t pixels);
  const KeInt8QuadMoves *quads; /* of the path for few channels, NULL where there is none */
} KeInt8Moves;

/* What one instruction set brings. */
typedef struct KeInt8Isa {
  int32_t lanes, inputs; /* inputs in one unit: 4 bytes, or 2 of 16 bits */
  int32_t weight_bytes;  /* of one unit and one output */
  int32_t shift;         /* copied x is x + shift; 16 bits: x - input_zero_point */
  int32_t max_vectors;
  int32_t slots[KE_INT8_MAX_VECTORS]; /* pixels of one tile, by the number of vectors */
  int32_t max_columns[KE_INT8_MAX_VECTORS];
  /* [vectors - 1][rows - 1][columns - 1]; NULL where rows * columns is more than the slots. */
  KeInt8TileKernel kernels[KE_INT8_MAX_VECTORS][KE_INT8_MAX_ROWS][KE_INT8_MAX_COLUMNS];
  const KeInt8Moves *(*moves)(void); /* those for this processor */
} KeInt8Isa;

typedef struct KeInt8Tiled {
  const KeInt8Isa *isa;
  const KeInt8Moves *moves;
  int32_t flat;          /* a 1x1 convolution of stride 1: the picture is one row */
  int32_t rows, columns; /* of output pixels */
  int32_t region_rows, region_columns; /* all vectors pass over one region before the next begins */
  int32_t step_h, step_w;              /* every so many rows and columns of x are copied */
  int64_t left, middle, right;         /* pixels of a row of the copy: zero, from x, zero */
  int64_t room;                        /* rows that a band's copy has room for */
  int32_t bands;                       /* how many threads can work */
  size_t copy_bytes, compact_bytes;    /* of one band */
  int32_t in_blocks, out_blocks;

  /* In the scratch memory. */
  KeInt8Block *in, *out;
  uint64_t *seen; /* the masks of the last call */
  KeInt8Run *runs;
  int32_t *init, *cap;
  float *scale;
  uint8_t *gathered, *copies;
  int8_t *compacts;

  /* What the last gates led to. */
  int32_t has_seen, direct;
  int32_t units, vector_count;
  int64_t column_bytes, pitch; /* of the copy: one pixel, one row */
  ptrdiff_t vector_bytes, run_count;

  KeInt8Quads quads;
} KeInt8Tiled;

struct KeInt8Call;

/* The packed weights' size, or 0; false on overflow. */
int ke_int8_tiled_packed_bytes(const struct KeGatedConv2DInt8Plan *plan, size_t *bytes);
/* Lays the scratch memory out from `base`, NULL to learn its size; a status. */
int ke_int8_tiled_measure(struct KeGatedConv2DInt8Plan *plan, size_t *total, unsigned char *base);
/* Reads the gates: what follows from them but the gathered weights. Returns 1 where those have to be gathered, 0 where they
 * are there, -1 where the multipliers need the scalar path. */
int ke_int8_tiled_schedule(struct KeGatedConv2DInt8Plan *plan, const float *g_out);

/* Whether a sample with so many open channels is worth a second thread. */
int ke_int8_worth_threads(const struct KeGatedConv2DInt8Plan *plan, int32_t open_in, int32_t open_out);

/* What x is at the real zero, as the copies hold it, and the byte that fills it in. */
int32_t ke_int8_zero(const struct KeGatedConv2DInt8Plan *plan);

/* Moves in plain C, for units of 4 bytes. */
extern const KeInt8Moves ke_int8_portable_moves;

#endif
