/* One run: a sample's cells row by row, then its outputs tile by tile. */
#include <math.h>
#include <string.h>

#include "internal.h"

typedef struct Sample {
  KeMultiBitConv2DPlan *plan;
  const uint8_t *x; /* rows as `take_row` wants them */
  size_t row_bytes; /* of x */
  uint8_t *y;
  int32_t bases;
  int32_t bands, rows_per_band; /* rows of outputs; 0 where the tasks below share one image */
  int64_t pixels_per_task;
  int32_t parts; /* of the pixels: a task takes one of them for one block */
  int32_t rows_per_task;
} Sample;

/* Makes cells of the rows of x from `first` on, for an image that begins at `image`. */
static void take_rows_of(const Sample *sample, int64_t first, int64_t end, uint8_t *image) {
  const KeMultiBitConv2DPlan *plan = sample->plan;
  const int32_t seen = plan->image_width - plan->pad_left, width = seen < plan->width ? seen : plan->width;
  if (width <= 0) return;
  const int64_t most = plan->image_height - plan->pad_top < plan->height ? plan->image_height - plan->pad_top : plan->height;
  for (int64_t r = first > 0 ? first : 0; r < end && r < most; r++) {
    const size_t row = (size_t)(r + plan->pad_top) * (size_t)plan->image_width + (size_t)plan->pad_left;
    plan->path->take_row(plan, sample->x + (size_t)r * sample->row_bytes, width, image + row * plan->cell);
  }
}

static void take_rows(void *argument, int index) {
  const Sample *sample = argument;
  const int64_t first = (int64_t)index * sample->rows_per_task;
  take_rows_of(sample, first, first + sample->rows_per_task, sample->plan->image);
}

typedef struct Aim {
  const uint8_t *image;
  const float *base;
  const int32_t *places, *bases;
  uint8_t *y;
  size_t pitch;
} Aim;

/* Points a tile at output pixels from `first` on; beyond the last one it is pointed at that one again. */
static inline void aim(const Aim *at, int64_t first, int64_t end, int32_t pixels, KeMultiBitTile *tile) {
  const Aim from = *at;
  for (int32_t k = 0; k < pixels; k++) {
    const int64_t pixel = first + k < end ? first + k : end - 1;
    tile->pixel[k] = from.image + from.places[pixel];
    tile->base[k] = from.base + from.bases[pixel];
    tile->y[k] = from.y + (size_t)pixel * from.pitch;
  }
}

static void set_range(const KeMultiBitConv2DShape *shape, float *low, float *high) {
  const int32_t activation = shape->conv.activation;
  *low = activation == 0 ? -INFINITY : 0.0f;
  *high = activation == 2 ? 6.0f : INFINITY;
  if (!shape->is_int8) return;
  const float zero = (float)shape->output_zero_point;
  *low = activation == 0 ? -128.0f : zero;
  *high = activation == 2 ? fminf(127.0f, rintf(6.0f / shape->output_scale) + zero) : 127.0f;
}

/* One block of the outputs of pixels from `begin` to `end`. */
static void run_block(const Sample *sample, int32_t b, int64_t begin, int64_t end, const uint8_t *image) {
  const KeMultiBitConv2DPlan *plan = sample->plan;
  KeMultiBitTile tile = {.shared = plan->shared, .alike = plan->alike, .is_int8 = plan->shape.is_int8};
  tile.is_clamped = plan->shape.conv.activation != 0;
  set_range(&plan->shape, &tile.low, &tile.high);
  const size_t element = plan->shape.is_int8 ? 1 : sizeof(float);
  Aim at = {.image = image, .places = plan->pixel_place, .bases = plan->pixel_base,
            .pitch = (size_t)plan->packed.outputs * element};
  const KeMultiBitBlock *block = &plan->block[b];
  const int32_t left = plan->packed.outputs - b * KE_BLOCK;
  tile.outputs = left < KE_BLOCK ? left : KE_BLOCK;
  tile.vectors = block->vectors;
  tile.records = plan->records + block->data;
  tile.places = plan->place + block->places;
  tile.count = block->end[sample->bases];
  tile.multiplier = plan->multiplier + b * KE_BLOCK;
  at.base = plan->base + (size_t)b * KE_BLOCK;
  at.y = sample->y + (size_t)b * KE_BLOCK * element;
  for (int64_t first = begin; first < end; first += plan->path->pixels) {
    tile.pixels = first + 1 == end ? 1 : plan->path->pixels;
    aim(&at, first, end, tile.pixels, &tile);
    plan->path->tile(&tile);
  }
}

static void run_tiles(void *argument, int index) {
  const Sample *sample = argument;
  const int64_t all = (int64_t)sample->plan->output_height * sample->plan->output_width;
  const int64_t begin = index % sample->parts * sample->pixels_per_task;
  const int64_t end = all - begin < sample->pixels_per_task ? all : begin + sample->pixels_per_task;
  run_block(sample, index / sample->parts, begin, end, sample->plan->image);
}

/* Rows of an image that two bands of outputs next to one another both see. */
static size_t common_bytes(const KeMultiBitConv2DPlan *plan) {
  const KeGatedConv2DShape *conv = &plan->shape.conv;
  const int64_t rows = (int64_t)(conv->kernel_h - 1) * conv->dilation_h + 1 - conv->stride_h;
  return rows > 0 ? (size_t)rows * (size_t)plan->image_width * plan->cell : 0;
}

/* Some rows of outputs and what they see, in an image of the band's own: no thread reads what another one has written. */
static void run_band(void *argument, int index) {
  const Sample *sample = argument;
  const KeMultiBitConv2DPlan *plan = sample->plan;
  const KeGatedConv2DShape *conv = &plan->shape.conv;
  const int64_t first = (int64_t)index * sample->rows_per_band, rest = plan->output_height - first;
  const int64_t end = rest < sample->rows_per_band ? plan->output_height : first + sample->rows_per_band;
  uint8_t *image = plan->image + (size_t)index * common_bytes(plan);
  const int64_t top = first * conv->stride_h - plan->pad_top;
  const int64_t bottom = (end - 1) * conv->stride_h - plan->pad_top + (int64_t)(conv->kernel_h - 1) * conv->dilation_h + 1;
  take_rows_of(sample, top, bottom, image);
  for (int32_t b = 0; b < plan->blocks; b++) run_block(sample, b, first * plan->output_width, end * plan->output_width, image);
}

/* Scale and zero point that hold all values of a sample and 0 exactly. */
static void find_range(const float *x, size_t count, float *scale, int32_t *zero_point) {
  float low[8] = {0}, high[8] = {0};
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int k = 0; k < 8; k++) {
      low[k] = x[i + (size_t)k] < low[k] ? x[i + (size_t)k] : low[k];
      high[k] = x[i + (size_t)k] > high[k] ? x[i + (size_t)k] : high[k];
    }
  }
  for (; i < count; i++) {
    low[0] = x[i] < low[0] ? x[i] : low[0];
    high[0] = x[i] > high[0] ? x[i] : high[0];
  }
  for (int k = 1; k < 8; k++) {
    low[0] = low[k] < low[0] ? low[k] : low[0];
    high[0] = high[k] > high[0] ? high[k] : high[0];
  }
  const float range = fminf(high[0], 1e30f) - fmaxf(low[0], -1e30f);
  *scale = range > 1e-30f ? range / 255.0f : 1.0f;
  *zero_point = (int32_t)rintf(fminf(fmaxf(-128.0f - fmaxf(low[0], -1e30f) / *scale, -128.0f), 127.0f));
}

typedef struct Rounding {
  const float *x;
  int8_t *integers;
  size_t count, per_task;
  float inverse, zero_point;
} Rounding;

static void round_some(void *argument, int index) {
  const Rounding *rounding = argument;
  const size_t first = (size_t)index * rounding->per_task;
  const size_t end = rounding->count - first < rounding->per_task ? rounding->count : first + rounding->per_task;
  for (size_t i = first; i < end; i++) {
    const float scaled = rounding->x[i] * rounding->inverse;
    float value = scaled + rounding->zero_point;
    value = value > -128.0f ? value : -128.0f;
    value = value < 127.0f ? value : 127.0f;
    const float shifted = value + 12582912.0f; /* 1.5 * 2^23: rounds to an integer, halves to even */
    int32_t bits;
    memcpy(&bits, &shifted, sizeof(bits));
    rounding->integers[i] = (int8_t)bits;
  }
}

static void round_sample(KeMultiBitConv2DPlan *plan, const float *x, float *scale, int32_t *zero_point,
                         const KeParallel *parallel) {
  const size_t count = (size_t)plan->height * (size_t)plan->width * (size_t)plan->shape.conv.in_channels;
  find_range(x, count, scale, zero_point);
  Rounding rounding = {x, plan->integers, count, count, 1.0f / *scale, (float)*zero_point};
  int tasks = 1;
  if (parallel->threads > 1 && count > 1 << 15) {
    tasks = parallel->threads;
    rounding.per_task = (count + (size_t)tasks - 1) / (size_t)tasks;
  }
  parallel->run(parallel->pool, tasks, round_some, &rounding);
}

/* A band for each thread where they are high enough; else about four tasks for each of them, each with one block, whose records
 * stay in the cache of one. */
static void split(Sample *sample, int threads) {
  KeMultiBitConv2DPlan *plan = sample->plan;
  const int64_t common = (int64_t)(plan->shape.conv.kernel_h - 1) * plan->shape.conv.dilation_h;
  sample->rows_per_band = (plan->output_height - 1) / threads + 1;
  sample->bands = (plan->output_height - 1) / sample->rows_per_band + 1;
  const int are_high = sample->rows_per_band >= 2 && (int64_t)sample->rows_per_band * plan->shape.conv.stride_h >= common;
  if ((threads == 1 || are_high) && ke_multi_bit_image(plan, sample->bands, common_bytes(plan)) == 0) return;
  ke_multi_bit_image(plan, 1, 0);
  sample->bands = 0;
  const int64_t all = (int64_t)plan->output_height * plan->output_width, pixels = plan->path->pixels;
  const int64_t tiles = (all + pixels - 1) / pixels;
  const int64_t parts = (4 * threads - 1) / plan->blocks + 1;
  sample->pixels_per_task = (tiles + parts - 1) / parts * pixels;
  sample->parts = (int32_t)((all - 1) / sample->pixels_per_task + 1);
  sample->rows_per_task = (plan->height - 1) / (8 * threads) + 1;
}

static void run_alone(void *pool, int tasks, void (*task)(void *argument, int index), void *argument) {
  (void)pool;
  for (int i = 0; i < tasks; i++) task(argument, i);
}

/* One sample whose rows `x` has as `take_row` wants them. */
static void run_sample(KeMultiBitConv2DPlan *plan, int32_t max_bits, const KeMultiBitIntegers *as, const void *x,
                       size_t element, uint8_t *y, const KeParallel *parallel) {
  const size_t row_bytes = (size_t)plan->width * (size_t)plan->shape.conv.in_channels * element;
  ke_multi_bit_make_base(plan, max_bits, as->scale, as->zero_point);
  Sample sample = {.plan = plan, .x = x, .row_bytes = row_bytes, .y = y, .bases = plan->base_bits};
  split(&sample, parallel->threads);
  if (sample.bands > 0) {
    parallel->run(parallel->pool, sample.bands, run_band, &sample);
  } else {
    parallel->run(parallel->pool, (plan->height - 1) / sample.rows_per_task + 1, take_rows, &sample);
    parallel->run(parallel->pool, plan->blocks * sample.parts, run_tiles, &sample);
  }
}

void ke_multi_bit_run_integers(KeMultiBitConv2DPlan *plan, int32_t max_bits, const KeMultiBitIntegers *x, uint8_t *y,
                               const KeParallel *parallel) {
  run_sample(plan, max_bits, x, x->values, 1, y, parallel);
}

int ke_multi_bit_conv_2d_run(KeMultiBitConv2DPlan *plan, int32_t max_bits, const void *x, void *y,
                             const KeParallel *given) {
  const KeParallel alone = {NULL, 1, run_alone}, *parallel = given == NULL ? &alone : given;
  if (!plan->sized) return KE_GATED_CONV_2D_NOT_SIZED;
  const int64_t pixels = (int64_t)plan->output_height * plan->output_width;
  if (pixels == 0 || plan->batch == 0) return KE_GATED_CONV_2D_OK;
  const KeMultiBitConv2DShape *shape = &plan->shape;
  const size_t element = shape->is_int8 ? 1 : sizeof(float), channels = (size_t)shape->conv.in_channels;
  const size_t x_bytes = (size_t)plan->height * (size_t)plan->width * channels * element;
  const size_t y_bytes = (size_t)pixels * (size_t)shape->conv.out_channels * element;
  const int takes_integers = plan->path->family == KE_MULTI_BIT_TABLE && plan->planes == 0;
  for (int32_t b = 0; b < plan->batch; b++) {
    const uint8_t *from = (const uint8_t *)x + (size_t)b * x_bytes;
    uint8_t *to = (uint8_t *)y + (size_t)b * y_bytes;
    if (plan->path->family == KE_MULTI_BIT_EXACT) {
      ke_multi_bit_exact_run(plan, max_bits, from, to, parallel);
      continue;
    }
    KeMultiBitIntegers integers = {(const int8_t *)from, shape->input_scale, shape->input_zero_point};
    if (takes_integers && !shape->is_int8) {
      round_sample(plan, (const float *)(const void *)from, &integers.scale, &integers.zero_point, parallel);
      integers.values = plan->integers;
    }
    if (plan->unfolded != NULL) {
      ke_multi_bit_unfolded_run(plan->unfolded, plan, max_bits, &integers, to, parallel);
    } else if (takes_integers) {
      ke_multi_bit_run_integers(plan, max_bits, &integers, to, parallel);
    } else {
      run_sample(plan, max_bits, &integers, from, element, to, parallel);
    }
  }
  return KE_GATED_CONV_2D_OK;
}
