/* What the vector paths need to know before they compute: sizes when the plan is sized, a schedule when the gates are
 * read. */
#include <math.h>
#include <string.h>

#include "internal.h"
#include "kernels/gated_conv_2d/checked.h"

/* Weights beyond this many bytes leave the second-level cache: then each vector passes over much of x at once. */
enum { FAR_WEIGHTS = 512 * 1024, NEAR_REGION = 16 * 1024, FAR_REGION = 1024 * 1024 };
/* Regions that a copy of x holds before rows are moved. */
enum { REGIONS_COPIED = 4 };
/* What a move may read or write beyond its end. */
enum { SLACK = KE_INT8_BLOCK };

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int32_t groups_of(int32_t size, int32_t count) { return count / size + (count % size != 0); }

int32_t ke_int8_zero(const KeGatedConv2DInt8Plan *plan) {
  const KeInt8Isa *isa = plan->path->tiled;
  return isa->inputs == KE_UNIT_BYTES ? plan->shape.input_zero_point + isa->shift : 0;
}

int ke_int8_tiled_packed_bytes(const KeGatedConv2DInt8Plan *plan, size_t *bytes) {
  *bytes = 0;
  if (plan->path->tiled == NULL) return KE_GATED_CONV_2D_OK;
  KeInt8Tiled *t = (KeInt8Tiled *)(uintptr_t)&plan->tiled;
  t->isa = plan->path->tiled;
  t->moves = t->isa->moves();
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  *bytes = t->moves->packed_block_bytes;
  const bool fits = ke_multiply(bytes, (size_t)groups_of(KE_INT8_BLOCK, shape->out_channels)) &&
                    ke_multiply(bytes, (size_t)shape->kernel_h) && ke_multiply(bytes, (size_t)shape->kernel_w) &&
                    ke_multiply(bytes, (size_t)shape->in_channels) && *bytes <= PTRDIFF_MAX;
  return fits ? KE_GATED_CONV_2D_OK : KE_GATED_CONV_2D_BAD_SIZE;
}

/* How x is copied and the output cut up, for every input open. False where it does not fit. */
static bool cut(KeGatedConv2DInt8Plan *plan, int64_t pixel_bytes, int64_t region_bytes) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  KeInt8Tiled *t = &plan->tiled;
  t->rows = plan->output_height;
  t->columns = plan->output_width;
  t->step_h = shape->kernel_h == 1 ? shape->stride_h : 1;
  t->step_w = shape->kernel_w == 1 ? shape->stride_w : 1;
  const int64_t need_rows = ((int64_t)t->rows - 1) * (shape->stride_h / t->step_h) +
                            ((int64_t)shape->kernel_h - 1) * shape->dilation_h + 1;
  const int64_t need_columns = ((int64_t)t->columns - 1) * (shape->stride_w / t->step_w) +
                               ((int64_t)shape->kernel_w - 1) * shape->dilation_w + 1;
  const int64_t pixels = (int64_t)t->rows * t->columns;
  t->flat = shape->kernel_h == 1 && shape->kernel_w == 1 && shape->stride_h == 1 && shape->stride_w == 1 &&
            pixels <= INT32_MAX;
  if (t->flat) {
    t->rows = 1;
    t->columns = (int32_t)pixels;
    const int64_t tiles = larger(2, region_bytes / pixel_bytes / KE_INT8_MAX_COLUMNS);
    t->region_rows = 1;
    t->region_columns = (int32_t)smaller(pixels, tiles * KE_INT8_MAX_COLUMNS);
    t->left = t->right = 0;
    t->middle = t->region_columns;
    t->room = 1;
    return true;
  }
  int64_t row_bytes;
  if (__builtin_mul_overflow(need_columns, pixel_bytes * shape->stride_h, &row_bytes)) return false;
  t->region_columns = t->columns;
  t->region_rows = (int32_t)smaller(t->rows, larger(1, region_bytes / row_bytes / KE_INT8_MAX_ROWS) * KE_INT8_MAX_ROWS);
  t->left = plan->pad_left;
  t->middle = smaller(((int64_t)plan->width + t->step_w - 1) / t->step_w, need_columns - t->left);
  t->right = need_columns - t->left - t->middle;
  const int64_t window = ((int64_t)shape->kernel_h - 1) * shape->dilation_h + 1;
  t->room = smaller(need_rows, ((int64_t)t->region_rows * REGIONS_COPIED - 1) * (shape->stride_h / t->step_h) + window);
  return (int64_t)t->region_rows * t->region_columns <= INT32_MAX;
}

int ke_int8_tiled_measure(KeGatedConv2DInt8Plan *plan, size_t *total, unsigned char *base) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  KeInt8Tiled *t = &plan->tiled;
  t->has_seen = 0;
  if (plan->output_height == 0 || plan->output_width == 0) return KE_GATED_CONV_2D_OK;
  const size_t units = (size_t)groups_of(t->isa->inputs, shape->in_channels);
  const size_t padded_out = (size_t)groups_of(KE_INT8_BLOCK, shape->out_channels) * KE_INT8_BLOCK;
  const size_t taps = (size_t)shape->kernel_h * (size_t)shape->kernel_w;
  size_t gathered = taps;
  if (!ke_multiply(&gathered, units * (size_t)t->isa->weight_bytes) || !ke_multiply(&gathered, padded_out) || gathered > PTRDIFF_MAX) {
    return KE_GATED_CONV_2D_BAD_SIZE;
  }
  const int64_t pixel_bytes = (int64_t)units * KE_UNIT_BYTES;
  if (!cut(plan, pixel_bytes, gathered > FAR_WEIGHTS ? FAR_REGION : NEAR_REGION)) return KE_GATED_CONV_2D_BAD_SIZE;
  t->bands = plan->threads;
  t->in_blocks = groups_of(KE_INT8_BLOCK, shape->in_channels);
  t->out_blocks = groups_of(KE_INT8_BLOCK, shape->out_channels);
  t->copy_bytes = (size_t)t->room;
  t->compact_bytes = (size_t)t->region_rows * (size_t)t->region_columns;
  if (!ke_multiply(&t->copy_bytes, (size_t)(t->left + t->middle + t->right)) ||
      !ke_multiply(&t->copy_bytes, (size_t)pixel_bytes) || !ke_multiply(&t->compact_bytes, padded_out) ||
      t->copy_bytes > PTRDIFF_MAX || t->compact_bytes > PTRDIFF_MAX) {
    return KE_GATED_CONV_2D_BAD_SIZE;
  }
  t->copy_bytes = (t->copy_bytes + SLACK + 63) & ~(size_t)63;
  t->compact_bytes = (t->compact_bytes + SLACK + 63) & ~(size_t)63;
  size_t copies = t->copy_bytes, compacts = t->compact_bytes;
  if (!ke_multiply(&copies, (size_t)t->bands) || !ke_multiply(&compacts, (size_t)t->bands)) {
    return KE_GATED_CONV_2D_BAD_SIZE;
  }
  enum { IN, OUT, SEEN, RUNS, INIT, CAP, SCALE, GATHERED, COPIES, COMPACTS, PIECES };
  const size_t bytes[PIECES] = {
      [IN] = (size_t)t->in_blocks * sizeof(KeInt8Block),
      [OUT] = (size_t)t->out_blocks * sizeof(KeInt8Block),
      [SEEN] = (size_t)(t->in_blocks + t->out_blocks) * sizeof(uint64_t),
      [RUNS] = taps * sizeof(KeInt8Run),
      [INIT] = padded_out * sizeof(int32_t),
      [CAP] = padded_out * sizeof(int32_t),
      [SCALE] = padded_out * sizeof(float),
      [GATHERED] = gathered,
      [COPIES] = copies,
      [COMPACTS] = compacts,
  };
  size_t at[PIECES];
  for (int i = 0; i < PIECES; i++) {
    if (!ke_reserve(total, bytes[i], &at[i])) return KE_GATED_CONV_2D_BAD_SIZE;
  }
  if (base == NULL) return ke_int8_quads_measure(plan, total, base);
  t->in = (KeInt8Block *)(void *)(base + at[IN]);
  t->out = (KeInt8Block *)(void *)(base + at[OUT]);
  t->seen = (uint64_t *)(void *)(base + at[SEEN]);
  t->runs = (KeInt8Run *)(void *)(base + at[RUNS]);
  t->init = (int32_t *)(void *)(base + at[INIT]);
  t->cap = (int32_t *)(void *)(base + at[CAP]);
  t->scale = (float *)(void *)(base + at[SCALE]);
  t->gathered = base + at[GATHERED];
  t->copies = base + at[COPIES];
  t->compacts = (int8_t *)(void *)(base + at[COMPACTS]);
  memset(t->compacts, 0, compacts); /* a spread reads beyond the last result */
  return ke_int8_quads_measure(plan, total, base);
}

/* Masks of blocks of 64 channels from the list of open ones; returns whether they differ from those seen last. */
static int mark(KeInt8Block *blocks, int32_t block_count, const int32_t *open, int32_t open_count, uint64_t *seen) {
  int changed = 0;
  int32_t k = 0;
  for (int32_t b = 0; b < block_count; b++) {
    const int32_t end = (b + 1) * KE_INT8_BLOCK;
    uint64_t mask = 0;
    blocks[b].start = k;
    for (; k < open_count && open[k] < end; k++) mask |= (uint64_t)1 << (open[k] % KE_INT8_BLOCK);
    blocks[b].mask = mask;
    changed |= mask != seen[b];
    seen[b] = mask;
  }
  return changed;
}

/* Runs of units: a kernel row is one where its columns follow each other, else each tap is. */
static void list_runs(KeGatedConv2DInt8Plan *plan) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  KeInt8Tiled *t = &plan->tiled;
  const int whole_rows = shape->dilation_w == 1 || shape->kernel_w == 1;
  KeInt8Run *run = t->runs;
  for (int32_t r = 0; r < shape->kernel_h; r++) {
    const ptrdiff_t row = (ptrdiff_t)r * shape->dilation_h * t->pitch;
    for (int32_t s = 0; s < (whole_rows ? 1 : shape->kernel_w); s++) {
      const ptrdiff_t units = (ptrdiff_t)t->units * (whole_rows ? shape->kernel_w : 1);
      *run++ = (KeInt8Run){row + (ptrdiff_t)s * shape->dilation_w * t->column_bytes, units};
    }
  }
  t->run_count = run - t->runs;
}

/* Everything that follows from which channels are open. */
static void choose(KeGatedConv2DInt8Plan *plan) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  KeInt8Tiled *t = &plan->tiled;
  const int32_t lanes = t->isa->lanes, open_out = plan->open.out_count;
  t->units = groups_of(t->isa->inputs, plan->open.in_count);
  t->vector_count = groups_of(lanes, open_out);
  t->column_bytes = (int64_t)t->units * KE_UNIT_BYTES;
  t->pitch = (t->left + t->middle + t->right) * t->column_bytes;
  t->vector_bytes = (ptrdiff_t)shape->kernel_h * shape->kernel_w * t->units * t->isa->weight_bytes * lanes;
  t->direct = open_out == shape->out_channels && open_out % lanes == 0;
  list_runs(plan);
  const int32_t padded = groups_of(KE_INT8_BLOCK, open_out) * KE_INT8_BLOCK;
  for (int32_t k = 0; k < open_out; k++) t->cap[k] = plan->cap[plan->open.out[k]];
  for (int32_t k = open_out; k < padded; k++) {
    t->cap[k] = 0;
    t->scale[k] = 0;
  }
  if (t->quads.used) {
    ke_int8_quads_choose(plan);
  } else {
    t->moves->index(plan);
  }
}

int ke_int8_tiled_schedule(KeGatedConv2DInt8Plan *plan, const float *g_out) {
  KeInt8Tiled *t = &plan->tiled;
  const KeInt8Open *open = &plan->open;
  const float most = 1073741824.0f;
  int wild = 0;
  for (int32_t k = 0; k < open->out_count; k++) {
    const int32_t o = open->out[k];
    const float scale = plan->multiplier[o] * g_out[o];
    t->scale[k] = scale;
    wild |= !(fabsf(scale) * plan->bound[o] < most) | !(plan->bound[o] < most);
  }
  if (wild) return -1;
  int changed = mark(t->in, t->in_blocks, open->in, open->in_count, t->seen);
  changed |= mark(t->out, t->out_blocks, open->out, open->out_count, t->seen + t->in_blocks);
  changed |= !t->has_seen;
  if (changed) choose(plan);
  t->has_seen = 1;
  return changed;
}
