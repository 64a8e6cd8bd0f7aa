/* How the vector paths walk over one sample: bands of output for the threads, regions, panels of output vectors, tiles.
 */
#include <string.h>

#include "internal.h"
#include "tiled.h"

/* A band of fewer multiplications than this, or a gathering of fewer weights, is not worth waking another thread. */
enum { BAND_MACS = 1000 * 1000, SHARED_GATHER = 32 * 1024 };

typedef struct Job {
  KeGatedConv2DPlan *plan;
  const KeGatedConv2DCall *call;
  const KeGeometry *geometry;
  const uint16_t *out_bits;
  int32_t bands;
} Job;

/* What one thread works on. */
typedef struct Band {
  int32_t first_row, end_row, first_column, end_column; /* of the output */
  float *copy; /* of x, with the rows [copy_begin, copy_end) of the padded picture */
  int64_t copy_begin, copy_end;
  float *compact, *gathered;
} Band;

static void *piece(const KeGatedConv2DPlan *plan, size_t at) { return plan->scratch + at; }

static int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

/* A row of x by its place in the padded picture, or NULL for a row of zeros. */
static const float *input_row(const Job *job, int64_t padded) {
  const KeGatedConv2DPlan *plan = job->plan;
  const int64_t h = padded - plan->pad_top;
  if (h < 0 || h >= plan->height) return NULL;
  return job->call->x + h * plan->width * plan->shape.in_channels;
}

/* Copies the rows that output rows [row, end_row) read, as far as the copy does not hold them. */
static void copy_rows(const Job *job, Band *band, int32_t row, int32_t end_row) {
  const KeGatedConv2DPlan *plan = job->plan;
  const KeGatedConv2DShape *shape = &plan->shape;
  const KeGeometry *g = job->geometry;
  const int64_t begin = (int64_t)row * shape->stride_h;
  const int64_t end = (int64_t)(end_row - 1) * shape->stride_h + (int64_t)(shape->kernel_h - 1) * shape->dilation_h + 1;
  if (end - band->copy_begin > g->room) {
    const int64_t kept = band->copy_end > begin ? band->copy_end - begin : 0;
    if (kept > 0)
      memmove(band->copy, band->copy + (begin - band->copy_begin) * g->pitch,
              (size_t)(kept * g->pitch) * sizeof(float));
    band->copy_begin = begin;
    band->copy_end = begin + kept;
  }
  for (; band->copy_end < end; band->copy_end++) {
    float *to = band->copy + (band->copy_end - band->copy_begin) * g->pitch + g->left;
    const float *from = input_row(job, band->copy_end);
    if (g->values == 2) {
      const float *lower = input_row(job, band->copy_end + (int64_t)g->rows * shape->stride_h);
      plan->tiled.isa->interleave(from, lower, (size_t)g->middle / 2, to);
    } else if (from != NULL) {
      memcpy(to, from, (size_t)g->middle * sizeof(float));
    } else {
      memset(to, 0, (size_t)g->middle * sizeof(float));
    }
  }
}

/* What the window of the first output pixel of `row` begins with. */
static const float *row_start(const Job *job, const Band *band, int32_t row) {
  const KeGeometry *g = job->geometry;
  if (g->in_place) return job->call->x + row * g->x_row;
  return band->copy + ((int64_t)row * job->plan->shape.stride_h - band->copy_begin) * g->pitch;
}

/* The kernel rows that meet the picture for output rows [row, row + rows). */
static void meet(const Job *job, int32_t row, int32_t rows, int32_t *first, int32_t *end) {
  const KeGatedConv2DPlan *plan = job->plan;
  const KeGatedConv2DShape *shape = &plan->shape;
  *first = 0;
  *end = shape->kernel_h;
  if (job->geometry->in_place || job->geometry->values == 2) return;
  const int64_t top = (int64_t)row * shape->stride_h - plan->pad_top;
  const int64_t bottom = top + (int64_t)(rows - 1) * shape->stride_h;
  while (*first < *end && bottom + (int64_t)*first * shape->dilation_h < 0) ++*first;
  while (*end > *first && top + (int64_t)(*end - 1) * shape->dilation_h >= plan->height) --*end;
}

/* Compact results of `pixels` pixels beginning at (row, column) to their places in y. They may go on into the next rows
 * if the compact results do. */
static void spread(const Job *job, const float *compact, int32_t row, int32_t column, int32_t pixels) {
  const KeGatedConv2DPlan *plan = job->plan;
  const KeTiled *t = &plan->tiled;
  const int32_t channels = plan->shape.out_channels, lanes = t->isa->lanes;
  const int32_t *starts = piece(plan, t->at_starts);
  const int64_t first = (int64_t)row * job->geometry->columns + column;
  float *y = job->call->y + first * channels;
  if (t->mode == KE_COMPACT) {
    t->isa->spread(compact, (ptrdiff_t)t->vector_count * lanes, job->out_bits, starts, channels, y, pixels);
    return;
  }
  /* The lower half of the picture has a row less where the number of rows is odd. */
  const int64_t half = (int64_t)job->geometry->rows * job->geometry->columns;
  int64_t both = (int64_t)plan->output_height * plan->output_width - half - first;
  both = both < 0 ? 0 : both < pixels ? both : pixels;
  t->isa->spread_pairs(compact, job->out_bits, starts, channels, y, y + half * channels, (int32_t)both);
  if (both < pixels) {
    t->isa->spread_pairs(compact + both * lanes, job->out_bits, starts, channels, y + both * channels, NULL,
                         pixels - (int32_t)both);
  }
}

/* How a region is cut into tiles: the columns into `tiles` tiles, the first `wide` of them one column wider than
 * `narrow`. */
typedef struct Cut {
  int32_t rows, tiles, narrow, wide;
} Cut;

static Cut cut(const KeTiledIsa *isa, int32_t kind, int32_t rows, int32_t columns) {
  const int32_t slots = isa->slots[kind], most = isa->max_columns[kind];
  Cut c;
  c.tiles = (columns + most - 1) / most;
  c.narrow = columns / c.tiles;
  c.wide = columns % c.tiles;
  c.rows = smaller(smaller(slots / (c.narrow + (c.wide != 0)), KE_MAX_TILE_ROWS), rows);
  const int32_t groups = (rows + c.rows - 1) / c.rows;
  c.rows = (rows + groups - 1) / groups;
  return c;
}

static int32_t kind_of_tile(const KeGatedConv2DPlan *plan, const KeGeometry *g, int32_t count) {
  const int pairs = plan->tiled.mode == KE_PAIRS;
  const int32_t three = pairs ? KE_KIND_THREE_PAIRS : KE_KIND_THREE;
  const int shared = count == 1 && plan->shape.kernel_w == 3 && g->x_column == g->tap_column;
  if (shared && plan->tiled.isa->slots[three] > 0) return three;
  return pairs ? KE_KIND_PAIRS : count - 1;
}

/* One panel of `count` vectors over one region. If these are all vectors there are, a tile's results are spread at
 * once, so that the writes overlap with the next tile's arithmetic; otherwise they are left in the compact buffer until
 * the region is done. */
static void run_panel(const Job *job, const Band *band, const KeVector *vectors, int32_t count, int32_t row,
                      int32_t end_row, int32_t first_column, int32_t end_column) {
  const KeGatedConv2DPlan *plan = job->plan;
  const KeTiled *t = &plan->tiled;
  const KeGeometry *g = job->geometry;
  const int32_t kind = kind_of_tile(plan, g, count);
  const Cut c = cut(t->isa, kind, end_row - row, end_column - first_column);
  const int32_t row_steps = t->open_in * plan->shape.kernel_w;
  const int at_once = t->mode != KE_DIRECT && count == t->vector_count;
  const KeStep *steps = piece(plan, t->at_steps);
  KeTile tile = {.vectors = vectors,
                 .x_column = g->x_column * (ptrdiff_t)sizeof(float),
                 .x_row = g->x_row * (ptrdiff_t)sizeof(float),
                 .y = band->compact,
                 .y_column = (ptrdiff_t)t->vector_count * t->isa->lanes,
                 .low = plan->low,
                 .high = plan->high};
  tile.y_row = (end_column - first_column) * tile.y_column;
  if (t->mode == KE_DIRECT) {
    tile.y_column = plan->shape.out_channels;
    tile.y_row = g->columns * tile.y_column;
    tile.y = job->call->y + row * tile.y_row + first_column * tile.y_column;
  }
  float *y = tile.y;
  for (int32_t rows; row < end_row; row += rows, y += rows * tile.y_row) {
    int32_t first, end;
    rows = smaller(c.rows, end_row - row);
    meet(job, row, rows, &first, &end);
    tile.steps = steps + first * row_steps;
    tile.step_count = (ptrdiff_t)(end - first) * row_steps;
    tile.x = row_start(job, band, row) + first_column * g->x_column;
    const KeTileKernel *kernels = t->isa->kernels[kind][rows - 1];
    int32_t column = first_column;
    if (!at_once) tile.y = y;
    for (int32_t i = 0; i < c.tiles; i++) {
      const int32_t columns = c.narrow + (i < c.wide);
      if (at_once) tile.y_row = columns * tile.y_column;
      kernels[columns - 1](&tile);
      if (!at_once) {
        tile.y += columns * tile.y_column;
      } else if (columns == g->columns) {
        spread(job, band->compact, row, 0, rows * columns);
      } else {
        for (int32_t r = 0; r < rows; r++) spread(job, band->compact + r * tile.y_row, row + r, column, columns);
      }
      tile.x += columns * g->x_column;
      column += columns;
    }
  }
}

static void gather_vector(const Job *job, int32_t vector, float *to) {
  const KeGatedConv2DPlan *plan = job->plan;
  const KeTiled *t = &plan->tiled;
  const size_t row_pitch = (size_t)plan->shape.in_channels * (size_t)plan->shape.kernel_w * (size_t)t->isa->lanes;
  const int32_t *outputs = piece(plan, t->at_open_out);
  t->isa->gather(plan->weights, t->block_pitch, row_pitch, plan->shape.kernel_h, plan->shape.kernel_w,
                 piece(plan, t->at_open_in), t->open_in, outputs + vector * t->isa->lanes, to);
}

/* Zeros for the blocks of outputs that no vector covers. */
static void clear_shut_blocks(const Job *job, int32_t row, int32_t column, int32_t pixels) {
  const KeGatedConv2DPlan *plan = job->plan;
  const int32_t channels = plan->shape.out_channels, lanes = plan->tiled.isa->lanes;
  float *y = job->call->y + ((int64_t)row * job->geometry->columns + column) * channels;
  for (int32_t block = 0; block < plan->blocks; block++) {
    if (job->out_bits[block] != 0) continue;
    for (int64_t p = 0; p < pixels; p++) memset(y + p * channels + block * lanes, 0, (size_t)lanes * sizeof(float));
  }
}

static void run_region(const Job *job, Band *band, int32_t row, int32_t end_row, int32_t first_column,
                       int32_t end_column) {
  const KeTiled *t = &job->plan->tiled;
  if (!job->geometry->in_place) copy_rows(job, band, row, end_row);
  const KeVector *vectors = piece(job->plan, t->at_vectors);
  const size_t vector_floats =
      (size_t)t->open_in * (size_t)(job->plan->shape.kernel_h * job->plan->shape.kernel_w) * (size_t)t->isa->lanes;
  int several = 0;
  for (int32_t done = 0; done < t->vector_count;) {
    const int32_t left = t->vector_count - done;
    /* Never a single vector at the end if two panels can share the work. */
    const int32_t panel = left == t->isa->panel_vectors + 1 ? 2 : t->isa->panel_vectors;
    const int32_t count = left <= t->isa->max_vectors ? left : panel;
    KeVector own[KE_MAX_VECTORS];
    for (int32_t i = 0; t->lazy && i < count; i++) {
      own[i] = vectors[done + i];
      own[i].weights = band->gathered + (size_t)i * vector_floats;
      gather_vector(job, done + i, band->gathered + (size_t)i * vector_floats);
    }
    run_panel(job, band, t->lazy ? own : vectors + done, count, row, end_row, first_column, end_column);
    done += count;
    several = done < t->vector_count || several;
  }
  const int32_t pixels = (end_row - row) * (end_column - first_column);
  if (t->mode == KE_DIRECT) {
    if (t->vector_count < job->plan->blocks) clear_shut_blocks(job, row, first_column, pixels);
  } else if (several) {
    spread(job, band->compact, row, first_column, pixels);
  }
}

/* The part of [0, size) that belongs to band `index`. */
static void share(int32_t size, int32_t bands, int32_t index, int32_t *first, int32_t *end) {
  *first = (int32_t)((int64_t)size * index / bands);
  *end = (int32_t)((int64_t)size * (index + 1) / bands);
}

static void run_band(void *argument, int index) {
  const Job *job = argument;
  const KeGatedConv2DPlan *plan = job->plan;
  const KeTiled *t = &plan->tiled;
  const KeGeometry *g = job->geometry;
  Band band = {0, g->rows, 0, g->columns, NULL, 0, 0, NULL, NULL};
  if (g->rows > 1) {
    share(g->rows, job->bands, index, &band.first_row, &band.end_row);
  } else {
    share(g->columns, job->bands, index, &band.first_column, &band.end_column);
  }
  band.compact = (float *)piece(plan, t->at_compact) + (size_t)index * t->compact_floats;
  band.gathered = (float *)piece(plan, t->at_gathered) + (size_t)index * t->panel_floats;
  band.copy = (float *)piece(plan, g->at_copy) + (size_t)index * (size_t)(g->room * g->pitch);
  band.copy_begin = band.copy_end = (int64_t)band.first_row * plan->shape.stride_h;
  for (int32_t row = band.first_row; row < band.end_row; row += g->region_rows) {
    const int32_t end_row = smaller(row + g->region_rows, band.end_row);
    for (int32_t column = band.first_column; column < band.end_column; column += g->region_columns) {
      run_region(job, &band, row, end_row, column, smaller(column + g->region_columns, band.end_column));
    }
  }
}

static void gather_task(void *argument, int index) {
  const Job *job = argument;
  const KeTiled *t = &job->plan->tiled;
  const KeVector *vectors = piece(job->plan, t->at_vectors);
  gather_vector(job, index, (float *)(uintptr_t)vectors[index].weights);
}

static int32_t count_bands(const KeGatedConv2DPlan *plan, const KeGatedConv2DCall *call, const KeGeometry *g,
                           uint64_t macs) {
  if (call->parallel == NULL) return 1;
  int64_t bands = smaller(call->parallel->threads, plan->tiled.bands);
  const int64_t worth = (int64_t)(macs / BAND_MACS), pieces = g->rows > 1 ? g->rows : g->columns;
  if (bands > worth) bands = worth;
  if (bands > pieces) bands = pieces;
  return bands < 1 ? 1 : (int32_t)bands;
}

/* Zeros beside the rows of the copies; calls only write between them. */
static void lay_halo(KeGatedConv2DPlan *plan) {
  KeTiled *t = &plan->tiled;
  for (int32_t i = 0; i < 2 && !t->has_halo; i++) {
    const KeGeometry *g = &t->geometry[i];
    memset(piece(plan, g->at_copy), 0, (size_t)(g->room * g->pitch) * (size_t)t->bands * sizeof(float));
  }
  t->has_halo = 1;
}

uint64_t ke_tiled_run(KeGatedConv2DPlan *plan, const KeGatedConv2DCall *call) {
  KeTiled *t = &plan->tiled;
  const KeGatedConv2DShape *shape = &plan->shape;
  const size_t pixels = (size_t)plan->output_height * (size_t)plan->output_width;
  const int changed = ke_tiled_schedule(plan, call);
  if (t->open_out == 0) {
    memset(call->y, 0, pixels * (size_t)shape->out_channels * sizeof(float));
    return 0;
  }
  const uint64_t open = (uint64_t)t->open_in * (uint64_t)t->open_out;
  const KeGeometry *g = &t->geometry[t->mode == KE_PAIRS];
  const int32_t in_blocks = (shape->in_channels + t->isa->lanes - 1) / t->isa->lanes;
  Job job = {plan, call, g, (const uint16_t *)piece(plan, t->at_bits) + in_blocks, 1};
  job.bands = count_bands(plan, call, g, open * pixels * (uint64_t)(shape->kernel_h * shape->kernel_w));
  lay_halo(plan);
  if (changed && t->mode != KE_DIRECT && !t->lazy) {
    if (job.bands > 1 && t->block_pitch * (size_t)t->vector_count > SHARED_GATHER) {
      call->parallel->run(call->parallel->pool, t->vector_count, gather_task, &job);
    } else {
      for (int32_t v = 0; v < t->vector_count; v++) gather_task(&job, v);
    }
  }
  if (job.bands > 1) {
    call->parallel->run(call->parallel->pool, job.bands, run_band, &job);
  } else {
    run_band(&job, 0);
  }
  return open;
}
