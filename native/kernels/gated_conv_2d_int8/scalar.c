/* The portable path: plain loops over the open channels, and the twin that every vector path is tested against. */
#include <math.h>
#include <string.h>

#include "internal.h"

/* The bytes that an accumulator becomes. */
static int8_t requantize(const KeGatedConv2DInt8Plan *plan, int32_t channel, int32_t sum, float g_out) {
  if (sum < plan->low) sum = plan->low;
  if (sum > plan->cap[channel]) sum = plan->cap[channel];
  const float zero_point = (float)plan->shape.output_zero_point;
  const float scale = plan->multiplier[channel] * g_out;
  float value = (float)sum * scale;
  value = rintf(value) + zero_point;
  if (!(value > -128.0f)) return -128;
  return value > 127.0f ? 127 : (int8_t)value;
}

/* Unsigned, since the sum wraps. */
static uint32_t add_tap(const KeGatedConv2DInt8Plan *plan, const int8_t *x, const int8_t *weights) {
  const int32_t zero_point = plan->shape.input_zero_point;
  uint32_t sum = 0;
  for (int32_t k = 0; k < plan->open.in_count; k++) {
    const int32_t c = plan->open.in[k];
    sum += (uint32_t)((x[c] - zero_point) * weights[c]);
  }
  return sum;
}

static int32_t accumulate(const KeGatedConv2DInt8Plan *plan, const int8_t *x, int32_t channel, int32_t row,
                          int32_t column) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  const size_t channels = (size_t)shape->in_channels;
  const int8_t *weights = plan->kernel + (size_t)channel * (size_t)shape->kernel_h * (size_t)shape->kernel_w * channels;
  uint32_t sum = (uint32_t)plan->bias[channel];
  for (int32_t r = 0; r < shape->kernel_h; r++) {
    const int64_t h = (int64_t)row * shape->stride_h - plan->pad_top + (int64_t)r * shape->dilation_h;
    for (int32_t s = 0; s < shape->kernel_w; s++, weights += channels) {
      const int64_t w = (int64_t)column * shape->stride_w - plan->pad_left + (int64_t)s * shape->dilation_w;
      if (h < 0 || h >= plan->height || w < 0 || w >= plan->width) continue;
      sum += add_tap(plan, x + (h * plan->width + w) * shape->in_channels, weights);
    }
  }
  return (int32_t)sum;
}

void ke_int8_scalar_run(KeGatedConv2DInt8Plan *plan, const KeInt8Call *call) {
  const size_t channels = (size_t)plan->shape.conv.out_channels;
  int8_t *y = call->y;
  memset(y, plan->shape.output_zero_point, (size_t)plan->output_height * (size_t)plan->output_width * channels);
  for (int32_t row = 0; row < plan->output_height; row++) {
    for (int32_t column = 0; column < plan->output_width; column++, y += channels) {
      for (int32_t k = 0; k < plan->open.out_count; k++) {
        const int32_t o = plan->open.out[k];
        y[o] = requantize(plan, o, accumulate(plan, call->x, o, row, column), call->g_out[o]);
      }
    }
  }
}

const KeInt8Path ke_gated_conv_2d_int8_scalar = {KE_ISA_SCALAR, NULL, ke_int8_scalar_run};
