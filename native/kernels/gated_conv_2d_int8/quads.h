/* Few channels, up to 32 on either side: four outputs of four pixels in a vector.
 *
 * Vectors of 16 outputs are mostly empty there. Here lane 4 o + p of a vector is output o of pixel p. The copy of x is
 * planar: [row][unit][column], a column being the four inputs of the unit; where the stride is 2, even columns and odd ones
 * each follow each other. So 16 bytes of it are one unit of four output pixels, broadcast to all four outputs; weights are
 * [vector][tap][unit][output][4 times the same unit]. Results of a row are left as [four pixels][panel][output][vector][pixel]
 * and then permuted into y. Single-threaded, and for copies that stay in the first caches. */
#ifndef KE_GATED_CONV_2D_INT8_QUADS_H_
#define KE_GATED_CONV_2D_INT8_QUADS_H_

#include <stddef.h>
#include <stdint.h>

enum {
  KE_INT8_QUADS_CHANNELS = 32,
  KE_INT8_QUAD = 4,
  KE_INT8_QUADS_PANEL = 4, /* vectors that a tile takes at most */
  KE_INT8_QUADS_TABLE = KE_INT8_QUADS_CHANNELS * KE_INT8_QUAD, /* bytes of four pixels */
};

struct KeGatedConv2DInt8Plan;
struct KeInt8Call;

typedef struct KeInt8Quads {
  int32_t used;    /* whether the plan's shape is for this */
  int32_t stride;  /* of columns, 1 or 2 */
  int64_t columns; /* of the copy, in each of `stride` parts */
  int64_t rows;    /* of the copy */
  int32_t groups;  /* of four output pixels in a row */

  /* In the scratch memory. */
  uint8_t *weights, *copy;
  int8_t *compact;
  ptrdiff_t *taps; /* bytes from a pixel's copy to what the tap reads */

  /* What the last gates led to. */
  int32_t vectors, panels;
  ptrdiff_t unit_bytes, row_bytes, vector_bytes; /* of the copy twice, of the weights */
  uint8_t gathered[KE_INT8_QUADS_TABLE]; /* where the bytes of four copied pixels come from: [unit][pixel][input] */
  uint8_t spread[KE_INT8_QUADS_TABLE];   /* where the bytes of four pixels of y come from */
  uint64_t open[KE_INT8_QUADS_TABLE / 64]; /* which of these are not shut */
} KeInt8Quads;

/* The first vector of a panel. */
static inline int32_t ke_int8_quads_first(const KeInt8Quads *q, int32_t panel) { return q->vectors * panel / q->panels; }

/* What an instruction set brings. */
typedef struct KeInt8QuadMoves {
  void (*gather)(struct KeGatedConv2DInt8Plan *plan);
  void (*run)(struct KeGatedConv2DInt8Plan *plan, const struct KeInt8Call *call);
} KeInt8QuadMoves;

/* Decides, and reserves what is needed behind `total` bytes; a status. */
int ke_int8_quads_measure(struct KeGatedConv2DInt8Plan *plan, size_t *total, unsigned char *base);
/* Reads which channels are open. */
void ke_int8_quads_choose(struct KeGatedConv2DInt8Plan *plan);

extern const KeInt8QuadMoves ke_int8_quad_moves;

#endif
