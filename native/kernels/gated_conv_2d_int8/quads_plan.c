/* Sizes and tables of the path for few channels. */
#include <string.h>

#include "internal.h"
#include "kernels/gated_conv_2d/checked.h"

/* A copy beyond this many bytes leaves the first-level cache for good; so many taps are a window of 7 x 7. */
enum { MOST_BYTES = 64 * 1024, MOST_TAPS = 64, SLACK = 64 };
/* With fewer sums side by side each waits for the one before. */
enum { LEAST_COLUMNS = 2 * KE_INT8_QUAD };

static int32_t groups_of(int32_t size, int32_t count) { return count / size + (count % size != 0); }

static int64_t row_bytes_of(const KeInt8Quads *q, int64_t units) { return units * q->stride * q->columns * KE_UNIT_BYTES; }

static int fits(const KeGatedConv2DInt8Plan *plan) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  const KeInt8Tiled *t = &plan->tiled;
  const int few = shape->in_channels <= KE_INT8_QUADS_CHANNELS && shape->out_channels <= KE_INT8_QUADS_CHANNELS &&
                  (int64_t)shape->kernel_h * shape->kernel_w <= MOST_TAPS && t->columns >= LEAST_COLUMNS;
  if (t->moves->quads == NULL || !few || t->flat || t->step_h != 1 || t->step_w != 1 || shape->stride_w > 2) return 0;
  if (t->left + t->middle + t->right > MOST_BYTES || plan->output_height > MOST_BYTES) return 0;
  return plan->threads == 1 || !ke_int8_worth_threads(plan, shape->in_channels, shape->out_channels);
}

int ke_int8_quads_measure(KeGatedConv2DInt8Plan *plan, size_t *total, unsigned char *base) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  const KeInt8Tiled *t = &plan->tiled;
  KeInt8Quads *q = &plan->tiled.quads;
  q->used = fits(plan);
  if (!q->used) return KE_GATED_CONV_2D_OK;
  const int32_t units = groups_of(KE_UNIT_BYTES, shape->in_channels), vectors = groups_of(KE_INT8_QUAD, shape->out_channels);
  const int32_t taps = shape->kernel_h * shape->kernel_w;
  q->stride = shape->stride_w;
  q->groups = groups_of(KE_INT8_QUAD, t->columns);
  /* Groups of four reach beyond the last column, of x and of y. */
  q->columns = (t->left + t->middle + t->right) / q->stride + 2 * KE_INT8_QUAD;
  q->rows = (int64_t)(t->rows - 1) * shape->stride_h + (int64_t)(shape->kernel_h - 1) * shape->dilation_h + 1;
  if (q->rows > MOST_BYTES || q->rows * row_bytes_of(q, units) > MOST_BYTES) {
    q->used = 0;
    return KE_GATED_CONV_2D_OK;
  }
  enum { WEIGHTS, COPY, COMPACT, TAPS, PIECES };
  const size_t bytes[PIECES] = {
      [WEIGHTS] = (size_t)vectors * (size_t)taps * (size_t)units * 64,
      [COPY] = (size_t)(q->rows * row_bytes_of(q, units)) + SLACK,
      [COMPACT] = (size_t)q->groups * (size_t)groups_of(KE_INT8_QUADS_PANEL, vectors) * 64,
      [TAPS] = (size_t)taps * sizeof(ptrdiff_t),
  };
  size_t at[PIECES];
  for (int i = 0; i < PIECES; i++) {
    if (!ke_reserve(total, bytes[i], &at[i])) return KE_GATED_CONV_2D_BAD_SIZE;
  }
  if (base == NULL) return KE_GATED_CONV_2D_OK;
  q->weights = base + at[WEIGHTS];
  q->copy = base + at[COPY];
  q->compact = (int8_t *)(void *)(base + at[COMPACT]);
  q->taps = (ptrdiff_t *)(void *)(base + at[TAPS]);
  memset(q->copy, 0, bytes[COPY]); /* what lies beyond the last column is read, and its results are dropped */
  memset(q->compact, 0, bytes[COMPACT]);
  return KE_GATED_CONV_2D_OK;
}

static void list_taps(KeGatedConv2DInt8Plan *plan) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  KeInt8Quads *q = &plan->tiled.quads;
  ptrdiff_t *tap = q->taps;
  for (int32_t r = 0; r < shape->kernel_h; r++) {
    for (int32_t s = 0; s < shape->kernel_w; s++) {
      const ptrdiff_t column = (ptrdiff_t)s * shape->dilation_w;
      const ptrdiff_t place = column % q->stride * q->columns + column / q->stride;
      *tap++ = (ptrdiff_t)r * shape->dilation_h * q->row_bytes + place * KE_UNIT_BYTES;
    }
  }
}

/* Four pixels of x [pixel][channel] to [unit][place][input]; with stride 2 even pixels come first. */
static void index_copy(KeGatedConv2DInt8Plan *plan) {
  KeInt8Quads *q = &plan->tiled.quads;
  const KeInt8Open *open = &plan->open;
  const int32_t channels = plan->shape.conv.in_channels;
  memset(q->gathered, 0, sizeof(q->gathered));
  for (int32_t k = 0; k < open->in_count; k++) {
    for (int32_t place = 0; place < KE_INT8_QUAD; place++) {
      const int32_t pixel = q->stride == 1 ? place : place % 2 * 2 + place / 2;
      q->gathered[k / KE_UNIT_BYTES * 16 + place * KE_UNIT_BYTES + k % KE_UNIT_BYTES] =
          (uint8_t)(pixel * channels + open->in[k]);
    }
  }
}

/* Where the four pixels of an output's results are: [panel][output][vector][pixel]. */
static int32_t place_of(const KeInt8Quads *q, int32_t k) {
  const int32_t vector = k / KE_INT8_QUAD, panel = vector >= ke_int8_quads_first(q, q->panels - 1) ? q->panels - 1 : 0;
  return panel * 64 + k % KE_INT8_QUAD * 16 + (vector - ke_int8_quads_first(q, panel)) * KE_INT8_QUAD;
}

/* Four pixels of results to y's [pixel][channel]. */
static void index_spread(KeGatedConv2DInt8Plan *plan) {
  KeInt8Quads *q = &plan->tiled.quads;
  const KeInt8Open *open = &plan->open;
  const int32_t channels = plan->shape.conv.out_channels;
  memset(q->spread, 0, sizeof(q->spread));
  memset(q->open, 0, sizeof(q->open));
  for (int32_t k = 0; k < open->out_count; k++) {
    for (int32_t pixel = 0; pixel < KE_INT8_QUAD; pixel++) {
      const int32_t byte = pixel * channels + open->out[k];
      q->spread[byte] = (uint8_t)(place_of(q, k) + pixel);
      q->open[byte / 64] |= (uint64_t)1 << (byte % 64);
    }
  }
}

void ke_int8_quads_choose(KeGatedConv2DInt8Plan *plan) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  KeInt8Tiled *t = &plan->tiled;
  KeInt8Quads *q = &t->quads;
  q->vectors = groups_of(KE_INT8_QUAD, plan->open.out_count);
  q->panels = groups_of(KE_INT8_QUADS_PANEL, q->vectors); /* 1 or 2 */
  q->unit_bytes = q->stride * q->columns * KE_UNIT_BYTES;
  q->row_bytes = t->units * q->unit_bytes;
  q->vector_bytes = (ptrdiff_t)shape->kernel_h * shape->kernel_w * t->units * 64;
  list_taps(plan);
  index_copy(plan);
  index_spread(plan);
}
