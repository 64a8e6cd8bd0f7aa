/* Copying, gathering and spreading in plain C, for instruction sets that multiply bytes and cannot permute them at will. */
#include <string.h>

#include "internal.h"

static void index_nothing(KeGatedConv2DInt8Plan *plan) { (void)plan; }

static void copy(const KeGatedConv2DInt8Plan *plan, const int8_t *from, ptrdiff_t stride, int64_t count, uint8_t *to) {
  const KeInt8Tiled *t = &plan->tiled;
  const int32_t shift = t->isa->shift, open_count = plan->open.in_count;
  const int32_t *open = plan->open.in;
  for (int64_t p = 0; p < count; p++, from += stride, to += t->column_bytes) {
    for (int32_t k = 0; k < open_count; k++) to[k] = (uint8_t)(from[open[k]] + shift);
    for (int32_t k = open_count; k < t->column_bytes; k++) to[k] = 0;
  }
}

/* One lane of a vector: the weights of output `channel`, each unit `step` bytes after the one before. Returns their sum. */
static int32_t gather_lane(const KeGatedConv2DInt8Plan *plan, int32_t channel, uint8_t *to, ptrdiff_t step) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  const int32_t *open = plan->open.in;
  const int32_t open_count = plan->open.in_count;
  const ptrdiff_t taps = (ptrdiff_t)shape->kernel_h * shape->kernel_w;
  const int8_t *weights = plan->kernel + channel * taps * shape->in_channels;
  int32_t sum = 0;
  for (ptrdiff_t tap = 0; tap < taps; tap++, weights += shape->in_channels) {
    for (int32_t k = 0; k < open_count; k += KE_UNIT_BYTES, to += step) {
      int8_t unit[KE_UNIT_BYTES] = {0};
      for (int32_t i = 0; i < KE_UNIT_BYTES && k + i < open_count; i++) unit[i] = weights[open[k + i]];
      for (int32_t i = 0; i < KE_UNIT_BYTES; i++) sum += unit[i];
      memcpy(to, unit, KE_UNIT_BYTES);
    }
  }
  return sum;
}

static void gather(KeGatedConv2DInt8Plan *plan, int32_t vector) {
  KeInt8Tiled *t = &plan->tiled;
  const int32_t lanes = t->isa->lanes, zero = ke_int8_zero(plan);
  uint8_t *to = t->gathered + vector * t->vector_bytes;
  for (int32_t lane = 0; lane < lanes; lane++) {
    const int32_t k = vector * lanes + lane;
    const int32_t channel = plan->open.out[k < plan->open.out_count ? k : plan->open.out_count - 1];
    const int32_t sum = gather_lane(plan, channel, to + lane * KE_UNIT_BYTES, lanes * KE_UNIT_BYTES);
    t->init[k] = (int32_t)((uint32_t)plan->bias[channel] - (uint32_t)zero * (uint32_t)sum);
  }
}

static void spread(const KeGatedConv2DInt8Plan *plan, const int8_t *compact, ptrdiff_t pitch, int8_t *y,
                   int64_t pixels) {
  const int32_t *open = plan->open.out;
  const int32_t open_count = plan->open.out_count;
  const ptrdiff_t channels = plan->shape.conv.out_channels;
  for (int64_t p = 0; p < pixels; p++, compact += pitch, y += channels) {
    if (open_count < channels) memset(y, plan->shape.output_zero_point, (size_t)channels);
    for (int32_t k = 0; k < open_count; k++) y[open[k]] = compact[k];
  }
}

const KeInt8Moves ke_int8_portable_moves = {
    .group = 1, .index = index_nothing, .copy = copy, .gather = gather, .spread = spread};
