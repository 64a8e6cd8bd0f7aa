/* How the vector paths walk over one sample: bands of output for the threads, regions, panels of output vectors, tiles. */
#include <string.h>

#include "internal.h"
#include "tiled.h"

/* A band of fewer multiplications than this is not worth another thread. */
enum { BAND_MACS = 400 * 1000 };

typedef struct Job {
  KeGatedConv2DPlan *plan;
  const KeGatedConv2DCall *call;
  const KeGeometry *geometry;
  const uint16_t *out_bits;
  int32_t bands;
  int32_t lay_halo; /* whether the zeros around the copy of x have to be written */
} Job;

/* What one thread works on. */
typedef struct Band {
  int32_t first_row, end_row, first_column, end_column; /* of the output */
  float *x;                                             /* the copy, beginning with what the first row needs */
  int64_t copied;                                       /* rows of it so far */
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

/* Copies rows until output rows up to `end_row` have all they read. */
static void copy_rows(const Job *job, Band *band, int32_t end_row) {
  const KeGatedConv2DPlan *plan = job->plan;
  const KeGatedConv2DShape *shape = &plan->shape;
  const KeGeometry *g = job->geometry;
  const int64_t begin = (int64_t)band->first_row * shape->stride_h;
  const int64_t need =
      (int64_t)(end_row - 1 - band->first_row) * shape->stride_h + (int64_t)(shape->kernel_h - 1) * shape->dilation_h + 1;
  for (; band->copied < need; band->copied++) {
    float *to = band->x + band->copied * g->pitch;
    const float *row = input_row(job, begin + band->copied);
    if (job->lay_halo) {
      memset(to, 0, (size_t)g->left * sizeof(float));
      memset(to + g->left + g->middle, 0, (size_t)g->right * sizeof(float));
      if (row == NULL) memset(to + g->left, 0, (size_t)g->middle * sizeof(float));
    }
    if (g->values == 2) {
      const float *lower = input_row(job, begin + band->copied + (int64_t)g->rows * shape->stride_h);
      plan->tiled.isa->interleave(row, lower, (size_t)g->middle / 2, to + g->left);
    } else if (row != NULL) {
      memcpy(to + g->left, row, (size_t)g->middle * sizeof(float));
    }
  }
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

/* One panel of vectors over one region. */
static void run_panel(const Job *job, const Band *band, const KeVector *vectors, int32_t count, int32_t row, int32_t end_row,
                      int32_t first_column, int32_t end_column) {
  const KeGatedConv2DPlan *plan = job->plan;
  const KeTiled *t = &plan->tiled;
  const KeGeometry *g = job->geometry;
  const int32_t kind = t->mode == KE_PAIRS ? KE_KIND_PAIRS : count - 1, width = end_column - first_column;
  const int32_t slots = t->isa->slots[kind], most = smaller(slots, t->isa->max_columns);
  const int32_t tiles = (width + most - 1) / most, narrow = width / tiles, wide_tiles = width % tiles;
  int32_t rows = smaller(smaller(slots / (narrow + (wide_tiles != 0)), KE_MAX_TILE_ROWS), end_row - row);
  const int32_t groups = (end_row - row + rows - 1) / rows;
  rows = (end_row - row + groups - 1) / groups;
  const int32_t row_steps = t->open_in * plan->shape.kernel_w;
  const KeStep *steps = piece(plan, t->at_steps);
  KeTile tile = {.vectors = vectors,
                 .x_column = g->x_column * (ptrdiff_t)sizeof(float),
                 .x_row = g->x_row * (ptrdiff_t)sizeof(float),
                 .low = plan->low,
                 .high = plan->high};
  if (t->mode == KE_DIRECT) {
    tile.y_column = plan->shape.out_channels;
    tile.y_row = (ptrdiff_t)g->columns * plan->shape.out_channels;
    tile.y = job->call->y + row * tile.y_row + first_column * tile.y_column;
  } else {
    tile.y_column = (ptrdiff_t)t->vector_count * t->isa->lanes;
    tile.y_row = width * tile.y_column;
    tile.y = band->compact;
  }
  const float *x = band->x + (row - band->first_row) * g->x_row + first_column * g->x_column;
  for (; row < end_row; row += rows, x += rows * g->x_row, tile.y += rows * tile.y_row) {
    rows = smaller(rows, end_row - row);
    int32_t first, end;
    meet(job, row, rows, &first, &end);
    tile.steps = steps + first * row_steps;
    tile.step_count = (ptrdiff_t)(end - first) * row_steps;
    const KeTileKernel *kernels = t->isa->kernels[kind][rows - 1] - 1;
    float *const y = tile.y;
    tile.x = x;
    for (int32_t i = 0; i < tiles; i++) {
      const int32_t columns = narrow + (i < wide_tiles);
      kernels[columns](&tile);
      tile.x += columns * g->x_column;
      tile.y += columns * tile.y_column;
    }
    tile.y = y;
  }
}

static void gather_vector(const Job *job, int32_t vector, float *to) {
  const KeGatedConv2DPlan *plan = job->plan;
  const KeTiled *t = &plan->tiled;
  const size_t row_pitch = (size_t)plan->shape.in_channels * (size_t)plan->shape.kernel_w * (size_t)t->isa->lanes;
  const int32_t *outputs = piece(plan, t->at_open_out);
  t->isa->gather(plan->weights, t->block_pitch, row_pitch, plan->shape.kernel_h, plan->shape.kernel_w, piece(plan, t->at_open_in),
                 t->open_in, outputs + vector * t->isa->lanes, to);
}

/* Results of a region to their places in y, and zeros where channels are shut. */
static void finish_region(const Job *job, const Band *band, int32_t row, int32_t end_row, int32_t first_column, int32_t end_column) {
  const KeGatedConv2DPlan *plan = job->plan;
  const KeTiled *t = &plan->tiled;
  const int32_t channels = plan->shape.out_channels, lanes = t->isa->lanes;
  const int32_t *starts = piece(plan, t->at_starts);
  const size_t pixels = (size_t)(end_row - row) * (size_t)(end_column - first_column);
  float *y = job->call->y + ((size_t)row * (size_t)job->geometry->columns + (size_t)first_column) * (size_t)channels;
  if (t->mode == KE_COMPACT) {
    t->isa->spread(band->compact, (ptrdiff_t)t->vector_count * lanes, job->out_bits, starts, channels, y, (int32_t)pixels);
  } else if (t->mode == KE_PAIRS) {
    const size_t half = (size_t)job->geometry->rows * (size_t)job->geometry->columns;
    const size_t lower = smaller(end_row, plan->output_height - job->geometry->rows) - row > 0
                             ? (size_t)(smaller(end_row, plan->output_height - job->geometry->rows) - row) * (size_t)job->geometry->columns
                             : 0;
    t->isa->spread_pairs(band->compact, job->out_bits, starts, channels, y, y + half * (size_t)channels, (int32_t)lower);
    if (lower < pixels) {
      t->isa->spread_pairs(band->compact + lower * (size_t)lanes, job->out_bits, starts, channels, y + lower * (size_t)channels, NULL,
                           (int32_t)(pixels - lower));
    }
  } else if (t->vector_count < plan->blocks) {
    for (int32_t block = 0; block < plan->blocks; block++) {
      if (job->out_bits[block] != 0) continue;
      for (size_t p = 0; p < pixels; p++) memset(y + p * (size_t)channels + block * lanes, 0, (size_t)lanes * sizeof(float));
    }
  }
}

static void run_region(const Job *job, Band *band, int32_t row, int32_t end_row, int32_t first_column, int32_t end_column) {
  const KeTiled *t = &job->plan->tiled;
  if (!job->geometry->in_place) copy_rows(job, band, end_row);
  const KeVector *vectors = piece(job->plan, t->at_vectors);
  const size_t vector_floats = (size_t)t->open_in * (size_t)(job->plan->shape.kernel_h * job->plan->shape.kernel_w) * (size_t)t->isa->lanes;
  for (int32_t done = 0; done < t->vector_count;) {
    const int32_t left = t->vector_count - done;
    const int32_t count = left == 3 && t->isa->max_vectors == 3 ? 3 : smaller(left, 2);
    KeVector own[KE_MAX_VECTORS];
    for (int32_t i = 0; t->lazy && i < count; i++) {
      own[i] = vectors[done + i];
      own[i].weights = band->gathered + (size_t)i * vector_floats;
      gather_vector(job, done + i, band->gathered + (size_t)i * vector_floats);
    }
    run_panel(job, band, t->lazy ? own : vectors + done, count, row, end_row, first_column, end_column);
    done += count;
  }
  finish_region(job, band, row, end_row, first_column, end_column);
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
  Band band = {0, g->rows, 0, g->columns, NULL, 0, NULL, NULL};
  if (g->rows > 1) {
    share(g->rows, job->bands, index, &band.first_row, &band.end_row);
  } else {
    share(g->columns, job->bands, index, &band.first_column, &band.end_column);
  }
  band.compact = (float *)piece(plan, t->at_compact) + (size_t)index * t->compact_floats;
  band.gathered = (float *)piece(plan, t->at_gathered) + (size_t)index * t->panel_floats;
  if (g->in_place) {
    band.x = (float *)(uintptr_t)job->call->x + band.first_row * g->x_row;
  } else {
    const int64_t halo = (int64_t)(plan->shape.kernel_h - 1) * plan->shape.dilation_h + 1;
    const int64_t before = (int64_t)band.first_row * plan->shape.stride_h + index * halo;
    band.x = (float *)piece(plan, t->at_x) + before * g->pitch;
  }
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

static int32_t count_bands(const KeGatedConv2DPlan *plan, const KeGatedConv2DCall *call, const KeGeometry *g, uint64_t macs) {
  if (call->parallel == NULL || g->in_place < 0) return 1;
  int64_t bands = smaller(call->parallel->threads, plan->tiled.bands);
  const int64_t worth = (int64_t)(macs / BAND_MACS), pieces = g->rows > 1 ? g->rows : g->columns;
  if (bands > worth) bands = worth;
  if (bands > pieces) bands = pieces;
  return bands < 1 ? 1 : (int32_t)bands;
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
  Job job = {plan, call, g, (const uint16_t *)piece(plan, t->at_bits) + in_blocks, 1, 0};
  job.bands = count_bands(plan, call, g, open * pixels * (uint64_t)(shape->kernel_h * shape->kernel_w));
  job.lay_halo = t->halo_values != g->values || t->halo_bands != job.bands;
  if (changed && t->mode != KE_DIRECT && !t->lazy) {
    if (job.bands > 1) {
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
  if (!g->in_place) {
    t->halo_values = g->values;
    t->halo_bands = job.bands;
  }
  return open;
}
