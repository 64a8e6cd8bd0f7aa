/* What the vector paths need to know before they compute: sizes when the plan is sized, a schedule when the gates are
 * read. */
#include <string.h>

#include "checked.h"
#include "internal.h"
#include "tiled.h"

/* Gathered weights beyond this many bytes would leave the second-level cache: they are gathered panel by panel instead.
 */
enum { GATHER_LIMIT = 512 * 1024 };
/* Regions that a copy of x holds before rows are moved. */
enum { REGIONS_COPIED = 4 };
/* How much of x one region covers: little while all weights stay close, much where they have to come from far. */
enum { NEAR_REGION = 32 * 1024, FAR_REGION = 1024 * 1024 };

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* `region_bytes` of x, in whole rows, or for a single row in whole tiles. */
static void cut_regions(KeGeometry *g, int64_t region_bytes) {
  const int64_t floats = region_bytes / (int64_t)sizeof(float);
  g->region_rows = (int32_t)smaller(g->rows, larger(1, floats / g->x_row / KE_MAX_TILE_ROWS) * KE_MAX_TILE_ROWS);
  g->region_columns = g->columns;
  if (g->rows > 1) return;
  const int64_t tiles = larger(2, floats / g->x_column / KE_MAX_TILE_COLUMNS);
  g->region_columns = (int32_t)smaller(g->columns, tiles * KE_MAX_TILE_COLUMNS);
}

/* False where an offset would not fit into a step. */
static bool lay_out(const KeGatedConv2DPlan *plan, KeGeometry *g, int32_t values, int64_t region_bytes) {
  const KeGatedConv2DShape *shape = &plan->shape;
  const int64_t channels = (int64_t)shape->in_channels * values;
  const int64_t need_rows =
      ((int64_t)plan->output_height - 1) * shape->stride_h + ((int64_t)shape->kernel_h - 1) * shape->dilation_h + 1;
  const int64_t need_columns =
      ((int64_t)plan->output_width - 1) * shape->stride_w + ((int64_t)shape->kernel_w - 1) * shape->dilation_w + 1;
  g->values = values;
  g->rows = values == 2 ? plan->output_height / 2 + plan->output_height % 2 : plan->output_height;
  g->columns = plan->output_width;
  g->in_place = values == 1 && plan->pad_top == 0 && plan->pad_left == 0 && need_rows <= plan->height &&
                need_columns <= plan->width;
  g->pitch = (g->in_place ? plan->width : need_columns) * channels;
  g->left = plan->pad_left * channels;
  g->middle = smaller(plan->width, need_columns - plan->pad_left) * channels;
  g->right = g->pitch - g->left - g->middle;
  g->x_row = shape->stride_h * g->pitch;
  g->x_column = shape->stride_w * channels;
  const int64_t tap_row = shape->dilation_h * g->pitch, tap_column = shape->dilation_w * channels;
  int64_t reach;
  if (g->x_row > INT32_MAX || __builtin_mul_overflow(tap_row, (int64_t)shape->kernel_h, &reach) || reach > INT32_MAX)
    return false;
  if (tap_column * (shape->kernel_w - 1) + channels > INT32_MAX - reach) return false;
  g->tap_row = (int32_t)tap_row;
  g->tap_column = (int32_t)tap_column;
  const int64_t pixels = (int64_t)g->rows * g->columns;
  if (g->in_place && g->x_row == g->columns * g->x_column && pixels <= INT32_MAX) {
    g->rows = 1;
    g->columns = (int32_t)pixels;
  }
  cut_regions(g, region_bytes);
  return (int64_t)g->region_rows * g->region_columns <= INT32_MAX;
}

/* Room for the copies of x of all bands: what one region reads, and a few regions more before rows have to be moved. */
static bool reserve_copies(const KeGatedConv2DPlan *plan, KeGeometry *g, size_t *total) {
  const KeGatedConv2DShape *shape = &plan->shape;
  const int64_t halo = (int64_t)(shape->kernel_h - 1) * shape->dilation_h + 1;
  const int64_t all = (int64_t)(g->rows - 1) * shape->stride_h + halo;
  g->room = g->in_place ? 0 : smaller(all, ((int64_t)g->region_rows * REGIONS_COPIED - 1) * shape->stride_h + halo);
  size_t bytes = (size_t)g->room;
  return ke_multiply(&bytes, (size_t)g->pitch) && ke_multiply(&bytes, (size_t)plan->tiled.bands * sizeof(float)) &&
         ke_reserve(total, bytes, &g->at_copy);
}

int ke_tiled_measure(KeGatedConv2DPlan *plan, const KeTiledIsa *isa) {
  const KeGatedConv2DShape *shape = &plan->shape;
  KeTiled *t = &plan->tiled;
  memset(t, 0, sizeof(*t));
  plan->scratch_bytes = 0;
  if (plan->output_height == 0 || plan->output_width == 0) return KE_GATED_CONV_2D_OK;
  t->isa = isa;
  const size_t lanes = (size_t)isa->lanes, padded_out = (size_t)plan->blocks * lanes,
               padded_in = (size_t)shape->in_channels + lanes;
  size_t steps = (size_t)shape->kernel_h;
  if (!ke_multiply(&steps, (size_t)shape->kernel_w) || !ke_multiply(&steps, (size_t)shape->in_channels))
    return KE_GATED_CONV_2D_BAD_SIZE;
  if (steps > INT32_MAX / lanes) return KE_GATED_CONV_2D_BAD_SIZE;
  t->block_pitch = steps * lanes;
  t->panel_floats = t->block_pitch * (size_t)isa->max_vectors;
  size_t all_weights = t->block_pitch;
  if (!ke_multiply(&all_weights, (size_t)plan->blocks * sizeof(float))) return KE_GATED_CONV_2D_BAD_SIZE;
  const bool far = all_weights > GATHER_LIMIT;
  const int32_t geometries = isa->slots[KE_KIND_PAIRS] > 0 ? 2 : 1;
  for (int32_t i = 0; i < geometries; i++) {
    if (!lay_out(plan, &t->geometry[i], i + 1, far ? FAR_REGION : NEAR_REGION)) return KE_GATED_CONV_2D_BAD_SIZE;
  }
  t->bands = plan->threads;
  t->gather_floats = all_weights / sizeof(float);
  if (far)
    t->gather_floats = (size_t)larger(GATHER_LIMIT / (int64_t)sizeof(float), (int64_t)t->panel_floats * t->bands);

  size_t compact[2] = {0, 0}, total = 0;
  for (int32_t i = 0; i < geometries; i++) {
    const KeGeometry *g = &t->geometry[i];
    compact[i] = i == 0 ? padded_out : lanes;
    if (!ke_multiply(&compact[i], (size_t)g->region_rows * (size_t)g->region_columns)) return KE_GATED_CONV_2D_BAD_SIZE;
  }
  /* A spread reads one vector beyond the last result. */
  t->compact_floats = (compact[0] > compact[1] ? compact[0] : compact[1]) + lanes;
  size_t compact_bytes = t->compact_floats;
  if (!ke_multiply(&compact_bytes, (size_t)t->bands * sizeof(float))) return KE_GATED_CONV_2D_BAD_SIZE;
  const size_t bits = (padded_in / lanes + 1 + (size_t)plan->blocks) * sizeof(uint16_t);
  const bool fits = ke_reserve(&total, padded_in * sizeof(int32_t), &t->at_open_in) &&
                    ke_reserve(&total, (padded_out + lanes) * sizeof(int32_t), &t->at_open_out) &&
                    ke_reserve(&total, bits, &t->at_bits) && ke_reserve(&total, bits, &t->at_seen_bits) &&
                    ke_reserve(&total, (size_t)plan->blocks * sizeof(int32_t), &t->at_starts) &&
                    ke_reserve(&total, (size_t)plan->blocks * sizeof(KeVector), &t->at_vectors) &&
                    ke_reserve(&total, (padded_out + lanes) * sizeof(float), &t->at_gate) &&
                    ke_reserve(&total, (padded_out + lanes) * sizeof(float), &t->at_bias) &&
                    ke_reserve(&total, steps * sizeof(KeStep), &t->at_steps) &&
                    ke_reserve(&total, t->gather_floats * sizeof(float), &t->at_gathered) &&
                    ke_reserve(&total, compact_bytes, &t->at_compact) &&
                    reserve_copies(plan, &t->geometry[0], &total) && reserve_copies(plan, &t->geometry[1], &total);
  plan->scratch_bytes = total;
  return fits ? KE_GATED_CONV_2D_OK : KE_GATED_CONV_2D_BAD_SIZE;
}

static void *piece(const KeGatedConv2DPlan *plan, size_t at) { return plan->scratch + at; }

/* The first kernel row's steps are written one by one, the others follow from them by adding a constant. */
static void list_steps(KeGatedConv2DPlan *plan, const KeGeometry *g) {
  const KeGatedConv2DShape *shape = &plan->shape;
  const KeTiled *t = &plan->tiled;
  const int32_t *open = piece(plan, t->at_open_in);
  KeStep *steps = piece(plan, t->at_steps);
  const int32_t lanes = t->isa->lanes, kernel_w = shape->kernel_w, count = t->open_in * kernel_w;
  const bool as_packed = t->mode == KE_DIRECT;
  KeStep *step = steps;
  for (int32_t k = 0; k < t->open_in; k++) {
    const int32_t x = open[k] * g->values, w = (as_packed ? open[k] : k) * kernel_w * lanes;
    for (int32_t s = 0; s < kernel_w; s++, step++) {
      step->x = x + s * g->tap_column;
      step->w = w + s * lanes;
    }
  }
  const int32_t w_row = (as_packed ? shape->in_channels : t->open_in) * kernel_w * lanes;
  for (int32_t r = 1; r < shape->kernel_h; r++, step += count) {
    for (int32_t i = 0; i < count; i++) {
      step[i].x = steps[i].x + r * g->tap_row;
      step[i].w = steps[i].w + r * w_row;
    }
  }
}

/* Starts of the blocks in the compact row, and the number of blocks with an open channel. */
static int32_t count_blocks(KeGatedConv2DPlan *plan, const uint16_t *bits) {
  int32_t *starts = piece(plan, plan->tiled.at_starts);
  int32_t open_blocks = 0, start = 0;
  for (int32_t block = 0; block < plan->blocks; block++) {
    starts[block] = start;
    start += __builtin_popcount(bits[block]);
    open_blocks += bits[block] != 0;
  }
  return open_blocks;
}

/* Weights, destinations and masks of the vectors; biases and gates come with every call. */
static void list_vectors(KeGatedConv2DPlan *plan, const uint16_t *bits) {
  KeTiled *t = &plan->tiled;
  const int32_t lanes = t->isa->lanes;
  KeVector *vectors = piece(plan, t->at_vectors);
  if (t->mode == KE_DIRECT) {
    int32_t count = 0;
    for (int32_t block = 0; block < plan->blocks; block++) {
      if (bits[block] == 0) continue;
      const float *weights = plan->weights + (size_t)block * t->block_pitch;
      vectors[count++] = (KeVector){weights, plan->bias + block * lanes, NULL, block * lanes, bits[block]};
    }
    return;
  }
  const float *bias = piece(plan, t->at_bias), *gate = piece(plan, t->at_gate), *gathered = piece(plan, t->at_gathered);
  const size_t pitch = (size_t)t->open_in * (size_t)plan->shape.kernel_h * (size_t)plan->shape.kernel_w * (size_t)lanes;
  for (int32_t v = 0; v < t->vector_count; v++) {
    vectors[v] = (KeVector){gathered + (size_t)v * pitch, bias + v * lanes, gate + v * lanes, v * lanes, 0xffff};
  }
  t->lazy = (size_t)t->vector_count * pitch > t->gather_floats;
}

/* values[i] to values[2 i] and values[2 i + 1]. */
static void duplicate(float *values, int32_t count) {
  for (int32_t i = count - 1; i >= 0; i--) values[2 * i] = values[2 * i + 1] = values[i];
}

/* How the open outputs share vectors, and everything that follows from which channels are open. */
static void choose(KeGatedConv2DPlan *plan, const uint16_t *out_bits) {
  KeTiled *t = &plan->tiled;
  const int32_t lanes = t->isa->lanes, open_blocks = count_blocks(plan, out_bits);
  t->vector_count = (t->open_out + lanes - 1) / lanes;
  t->lazy = 0;
  t->mode = KE_COMPACT;
  if (open_blocks == t->vector_count && plan->shape.out_channels % lanes == 0) t->mode = KE_DIRECT;
  if (t->open_out <= lanes / 2 && plan->output_height > 1 && t->isa->slots[KE_KIND_PAIRS] > 0) t->mode = KE_PAIRS;
  list_vectors(plan, out_bits);
  list_steps(plan, &t->geometry[t->mode == KE_PAIRS]);
  if (t->mode == KE_DIRECT) return;
  float *bias = piece(plan, t->at_bias);
  t->isa->compress(plan->bias, plan->shape.out_channels, out_bits, bias);
  if (t->mode == KE_PAIRS) duplicate(bias, t->open_out);
}

/* What the gates' values change, not only whether they are 0. */
static void take_gates(KeGatedConv2DPlan *plan, const float *g_out, const uint16_t *out_bits) {
  KeTiled *t = &plan->tiled;
  if (t->mode == KE_DIRECT) {
    KeVector *vectors = piece(plan, t->at_vectors);
    for (int32_t v = 0; v < t->vector_count; v++) vectors[v].gate = g_out + vectors[v].y;
    return;
  }
  float *gate = piece(plan, t->at_gate);
  t->isa->compress(g_out, plan->shape.out_channels, out_bits, gate);
  if (t->mode == KE_PAIRS) duplicate(gate, t->open_out);
}

/* The list of outputs as the lanes of the vectors want it; lanes to spare compute the last channel again. */
static void fill_lanes(KeGatedConv2DPlan *plan) {
  const KeTiled *t = &plan->tiled;
  int32_t *outputs = piece(plan, t->at_open_out), count = t->open_out;
  if (t->mode == KE_PAIRS) {
    for (int32_t i = count - 1; i >= 0; i--) outputs[2 * i] = outputs[2 * i + 1] = outputs[i];
    count *= 2;
  }
  for (int32_t i = count; i < t->vector_count * t->isa->lanes; i++) outputs[i] = outputs[count - 1];
}

int ke_tiled_schedule(KeGatedConv2DPlan *plan, const KeGatedConv2DCall *call) {
  KeTiled *t = &plan->tiled;
  const KeGatedConv2DShape *shape = &plan->shape;
  const int32_t in_blocks = (shape->in_channels + t->isa->lanes - 1) / t->isa->lanes;
  uint16_t *bits = piece(plan, t->at_bits), *seen = piece(plan, t->at_seen_bits), *out_bits = bits + in_blocks;
  const size_t bytes = (size_t)(in_blocks + plan->blocks) * sizeof(*bits);
  t->open_in = t->isa->scan(call->g_in, shape->in_channels, piece(plan, t->at_open_in), bits);
  t->open_out = t->isa->scan(call->g_out, shape->out_channels, piece(plan, t->at_open_out), out_bits);
  const int changed = !t->seen || memcmp(bits, seen, bytes) != 0;
  if (changed) {
    memcpy(seen, bits, bytes);
    t->seen = 1;
    choose(plan, out_bits);
  }
  fill_lanes(plan);
  take_gates(plan, call->g_out, out_bits);
  return changed;
}
