/* How the vector paths walk over one sample: bands of output for the threads, regions, panels of output vectors, tiles. */
#include <string.h>

#include "internal.h"

/* A band of fewer multiplications than this, or a gathering of fewer weights, is not worth waking another thread. */
enum { BAND_MACS = 1500 * 1000, SHARED_GATHER = 64 * 1024 };

typedef struct Job {
  KeGatedConv2DInt8Plan *plan;
  const KeInt8Call *call;
  int32_t bands;
} Job;

/* What one thread works on. */
typedef struct Band {
  int32_t first_row, end_row, first_column, end_column; /* of the output */
  uint8_t *copy; /* of x, with the rows [copy_begin, copy_end) of the padded picture, or one region where it is flat */
  int64_t copy_begin, copy_end;
  int8_t *compact;
} Band;

static int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

/* One row of the padded picture; the zeros on its right repair what the copying wrote past its end. */
static void copy_row(const Job *job, int64_t padded, uint8_t *to) {
  const KeGatedConv2DInt8Plan *plan = job->plan;
  const KeInt8Tiled *t = &plan->tiled;
  const int64_t h = padded * t->step_h - plan->pad_top;
  const int zero = ke_int8_zero(plan);
  if (h < 0 || h >= plan->height) {
    memset(to, zero, (size_t)t->pitch);
    return;
  }
  const ptrdiff_t channels = plan->shape.conv.in_channels;
  memset(to, zero, (size_t)(t->left * t->column_bytes));
  to += t->left * t->column_bytes;
  t->moves->copy(plan, job->call->x + h * plan->width * channels, t->step_w * channels, t->middle, to);
  memset(to + t->middle * t->column_bytes, zero, (size_t)(t->right * t->column_bytes));
}

/* Copies the rows that output rows [row, end_row) read, as far as the copy does not hold them. */
static void copy_rows(const Job *job, Band *band, int32_t row, int32_t end_row) {
  const KeGatedConv2DShape *shape = &job->plan->shape.conv;
  const KeInt8Tiled *t = &job->plan->tiled;
  const int32_t stride = shape->stride_h / t->step_h;
  const int64_t begin = (int64_t)row * stride;
  const int64_t end = (int64_t)(end_row - 1) * stride + (int64_t)(shape->kernel_h - 1) * shape->dilation_h + 1;
  if (end - band->copy_begin > t->room) {
    const int64_t kept = band->copy_end > begin ? band->copy_end - begin : 0;
    if (kept > 0)
      memmove(band->copy, band->copy + (begin - band->copy_begin) * t->pitch, (size_t)(kept * t->pitch));
    band->copy_begin = begin;
    band->copy_end = begin + kept;
  }
  if (band->copy_end < begin) band->copy_end = begin; /* strides wider than the window pass rows by */
  for (; band->copy_end < end; band->copy_end++) {
    copy_row(job, band->copy_end, band->copy + (band->copy_end - band->copy_begin) * t->pitch);
  }
}

static void copy_region(const Job *job, Band *band, int32_t row, int32_t end_row, int32_t first_column,
                        int32_t end_column) {
  const KeInt8Tiled *t = &job->plan->tiled;
  if (!t->flat) {
    copy_rows(job, band, row, end_row);
    return;
  }
  const ptrdiff_t channels = job->plan->shape.conv.in_channels;
  t->moves->copy(job->plan, job->call->x + first_column * channels, channels, end_column - first_column, band->copy);
}

/* How a region is cut into tiles: the columns into `tiles` tiles, the first `wide` of them one column wider than
 * `narrow`. */
typedef struct Cut {
  int32_t rows, tiles, narrow, wide;
} Cut;

static Cut cut(const KeInt8Isa *isa, int32_t vectors, int32_t rows, int32_t columns) {
  const int32_t slots = isa->slots[vectors - 1], most = isa->max_columns[vectors - 1];
  Cut c;
  c.tiles = (columns + most - 1) / most;
  c.narrow = columns / c.tiles;
  c.wide = columns % c.tiles;
  c.rows = smaller(smaller(slots / (c.narrow + (c.wide != 0)), KE_INT8_MAX_ROWS), rows);
  const int32_t groups = (rows + c.rows - 1) / c.rows;
  c.rows = (rows + groups - 1) / groups;
  return c;
}

/* Results of `pixels` pixels side by side to their places in y. */
static void spread(const Job *job, const int8_t *compact, int32_t row, int32_t column, int64_t pixels) {
  const KeGatedConv2DInt8Plan *plan = job->plan;
  const KeInt8Tiled *t = &plan->tiled;
  int8_t *y = job->call->y + ((int64_t)row * t->columns + column) * plan->shape.conv.out_channels;
  t->moves->spread(plan, compact, (ptrdiff_t)t->vector_count * t->isa->lanes, y, pixels);
}

/* One panel of `count` vectors over one region. If these are all vectors there are, a tile's results are spread at once;
 * otherwise they are left side by side until the region is done. */
static void run_panel(const Job *job, const Band *band, int32_t first, int32_t count, int32_t row, int32_t end_row,
                      int32_t first_column, int32_t end_column) {
  const KeGatedConv2DInt8Plan *plan = job->plan;
  const KeInt8Tiled *t = &plan->tiled;
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  const Cut c = cut(t->isa, count, end_row - row, end_column - first_column);
  const int32_t first_lane = first * t->isa->lanes;
  const int at_once = !t->direct && count == t->vector_count;
  KeInt8Tile tile = {.x_column = (shape->stride_w / t->step_w) * t->column_bytes,
                     .x_row = (shape->stride_h / t->step_h) * t->pitch,
                     .runs = t->runs,
                     .run_count = t->run_count,
                     .weights = t->gathered + first * t->vector_bytes,
                     .vector_bytes = t->vector_bytes,
                     .init = t->init + first_lane,
                     .cap = t->cap + first_lane,
                     .scale = t->scale + first_lane,
                     .low = plan->low,
                     .zero_point = plan->shape.output_zero_point,
                     .y_column = (ptrdiff_t)t->vector_count * t->isa->lanes};
  int8_t *y = band->compact + first_lane;
  tile.y_row = (end_column - first_column) * tile.y_column;
  if (t->direct) {
    tile.y_row = t->columns * tile.y_column;
    y = job->call->y + row * tile.y_row + first_column * tile.y_column + first_lane;
  }
  for (int32_t rows; row < end_row; row += rows, y += at_once ? 0 : rows * tile.y_row) {
    rows = smaller(c.rows, end_row - row);
    const int64_t padded = t->flat ? 0 : (int64_t)row * (shape->stride_h / t->step_h) - band->copy_begin;
    tile.x = band->copy + padded * t->pitch;
    tile.y = y;
    int32_t column = first_column;
    for (int32_t i = 0; i < c.tiles; i++) {
      const int32_t columns = c.narrow + (i < c.wide);
      if (at_once) tile.y_row = columns * tile.y_column;
      t->isa->kernels[count - 1][rows - 1][columns - 1](&tile);
      if (!at_once) {
        tile.y += columns * tile.y_column;
      } else if (columns == t->columns) {
        spread(job, band->compact, row, 0, (int64_t)rows * columns);
      } else {
        for (int32_t r = 0; r < rows; r++) spread(job, band->compact + r * tile.y_row, row + r, column, columns);
      }
      tile.x += columns * tile.x_column;
      column += columns;
    }
  }
}

static void run_region(const Job *job, Band *band, int32_t row, int32_t end_row, int32_t first_column,
                       int32_t end_column) {
  const KeInt8Tiled *t = &job->plan->tiled;
  copy_region(job, band, row, end_row, first_column, end_column);
  for (int32_t done = 0, count; done < t->vector_count; done += count) {
    const int32_t left = t->vector_count - done;
    count = left == 3 && t->isa->max_vectors == 3 ? 3 : smaller(left, 2);
    run_panel(job, band, done, count, row, end_row, first_column, end_column);
    if (!t->direct && count < t->vector_count && count == left) {
      spread(job, band->compact, row, first_column, (int64_t)(end_row - row) * (end_column - first_column));
    }
  }
}

/* The part of [0, size) that belongs to band `index`. */
static void share(int32_t size, int32_t bands, int32_t index, int32_t *first, int32_t *end) {
  *first = (int32_t)((int64_t)size * index / bands);
  *end = (int32_t)((int64_t)size * (index + 1) / bands);
}

static void run_band(void *argument, int index) {
  const Job *job = argument;
  const KeInt8Tiled *t = &job->plan->tiled;
  Band band = {.end_row = t->rows, .end_column = t->columns};
  if (t->flat) {
    share(t->columns, job->bands, index, &band.first_column, &band.end_column);
  } else {
    share(t->rows, job->bands, index, &band.first_row, &band.end_row);
  }
  band.compact = t->compacts + (size_t)index * t->compact_bytes;
  band.copy = t->copies + (size_t)index * t->copy_bytes;
  const int32_t stride = job->plan->shape.conv.stride_h / t->step_h;
  band.copy_begin = band.copy_end = (int64_t)band.first_row * stride;
  for (int32_t row = band.first_row; row < band.end_row; row += t->region_rows) {
    const int32_t end_row = smaller(row + t->region_rows, band.end_row);
    for (int32_t column = band.first_column; column < band.end_column; column += t->region_columns) {
      run_region(job, &band, row, end_row, column, smaller(column + t->region_columns, band.end_column));
    }
  }
}

static void gather_task(void *argument, int index) {
  const Job *job = argument;
  const KeInt8Moves *moves = job->plan->tiled.moves;
  moves->gather(job->plan, index * moves->group);
}

/* How many threads would have enough to do. */
static int64_t worth(const KeGatedConv2DInt8Plan *plan, int32_t open_in, int32_t open_out) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  return (int64_t)open_in * open_out * plan->output_height * plan->output_width * shape->kernel_h * shape->kernel_w /
         BAND_MACS;
}

int ke_int8_worth_threads(const KeGatedConv2DInt8Plan *plan, int32_t open_in, int32_t open_out) {
  return worth(plan, open_in, open_out) > 1;
}

static int32_t count_bands(const KeGatedConv2DInt8Plan *plan, const KeInt8Call *call) {
  if (call->parallel == NULL) return 1;
  const KeInt8Tiled *t = &plan->tiled;
  int64_t bands = smaller(call->parallel->threads, t->bands);
  const int64_t most = worth(plan, plan->open.in_count, plan->open.out_count), pieces = t->flat ? t->columns : t->rows;
  if (bands > most) bands = most;
  if (bands > pieces) bands = pieces;
  return bands < 1 ? 1 : (int32_t)bands;
}

void ke_int8_tiled_run(KeGatedConv2DInt8Plan *plan, const KeInt8Call *call) {
  KeInt8Tiled *t = &plan->tiled;
  const int gather = ke_int8_tiled_schedule(plan, call->g_out);
  if (gather < 0) {
    ke_int8_scalar_run(plan, call);
    return;
  }
  if (t->quads.used) {
    if (gather) t->moves->quads->gather(plan);
    t->moves->quads->run(plan, call);
    return;
  }
  Job job = {plan, call, count_bands(plan, call)};
  if (gather) {
    const int32_t groups = (t->vector_count + t->moves->group - 1) / t->moves->group;
    if (job.bands > 1 && t->vector_bytes * t->vector_count > SHARED_GATHER) {
      call->parallel->run(call->parallel->pool, groups, gather_task, &job);
    } else {
      for (int32_t i = 0; i < groups; i++) gather_task(&job, i);
    }
  }
  if (job.bands > 1) {
    call->parallel->run(call->parallel->pool, job.bands, run_band, &job);
  } else {
    run_band(&job, 0);
  }
}
