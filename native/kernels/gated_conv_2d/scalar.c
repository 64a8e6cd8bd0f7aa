/* The portable path: plain loops over the open channels, and the twin that every vector path is tested against. */
#include <string.h>

#include "checked.h"
#include "internal.h"

enum { LANES = 8 };

static int measure(KeGatedConv2DPlan *plan) {
  /* The open inputs, then one row of sums. */
  size_t offset;
  plan->scratch_bytes = 0;
  if (!ke_reserve(&plan->scratch_bytes, (size_t)plan->shape.in_channels * sizeof(int32_t), &offset) ||
      !ke_reserve(&plan->scratch_bytes, (size_t)plan->blocks * LANES * sizeof(float), &offset)) {
    return KE_GATED_CONV_2D_BAD_SIZE;
  }
  return KE_GATED_CONV_2D_OK;
}

/* sums += x * W for one tap; `weights` points at the tap's first weight. */
static void add_tap(const KeGatedConv2DPlan *plan, const float *x, const int32_t *open, int32_t open_count,
                    const float *g_out, const float *weights, float *sums) {
  const KeGatedConv2DShape *shape = &plan->shape;
  const size_t input_pitch = (size_t)shape->kernel_w * LANES;
  const size_t block_pitch = (size_t)shape->kernel_h * (size_t)shape->in_channels * input_pitch;
  for (int32_t first = 0; first < shape->out_channels; first += LANES, weights += block_pitch) {
    int any = 0;
    for (int32_t o = first; o < shape->out_channels && o < first + LANES; o++) any |= g_out[o] != 0.0f;
    if (!any) continue;
    float block[LANES];
    memcpy(block, sums + first, sizeof(block));
    for (int32_t k = 0; k < open_count; k++) {
      const float value = x[open[k]];
      const float *w = weights + (size_t)open[k] * input_pitch;
      for (int32_t lane = 0; lane < LANES; lane++) block[lane] += value * w[lane];
    }
    memcpy(sums + first, block, sizeof(block));
  }
}

static void run_pixel(const KeGatedConv2DPlan *plan, const KeGatedConv2DCall *call, const int32_t *open,
                      int32_t open_count, int32_t row, int32_t column, float *sums, float *y) {
  const KeGatedConv2DShape *shape = &plan->shape;
  memcpy(sums, plan->bias, (size_t)plan->blocks * LANES * sizeof(float));
  for (int32_t r = 0; r < shape->kernel_h; r++) {
    const int64_t h = (int64_t)row * shape->stride_h - plan->pad_top + (int64_t)r * shape->dilation_h;
    if (h < 0 || h >= plan->height) continue;
    for (int32_t s = 0; s < shape->kernel_w; s++) {
      const int64_t w = (int64_t)column * shape->stride_w - plan->pad_left + (int64_t)s * shape->dilation_w;
      if (w < 0 || w >= plan->width) continue;
      const float *x = call->x + (h * plan->width + w) * shape->in_channels;
      const float *weights = plan->weights + ((size_t)r * shape->in_channels * shape->kernel_w + (size_t)s) * LANES;
      add_tap(plan, x, open, open_count, call->g_out, weights, sums);
    }
  }
  for (int32_t o = 0; o < shape->out_channels; o++) {
    float value = sums[o];
    if (value < plan->low) value = plan->low;
    if (value > plan->high) value = plan->high;
    y[o] = call->g_out[o] == 0.0f ? 0.0f : call->g_out[o] * value;
  }
}

static uint64_t run(KeGatedConv2DPlan *plan, const KeGatedConv2DCall *call) {
  const KeGatedConv2DShape *shape = &plan->shape;
  int32_t *open = (int32_t *)(void *)plan->scratch;
  float *sums = (float *)(void *)(plan->scratch + (((size_t)shape->in_channels * sizeof(int32_t) + 63) & ~(size_t)63));
  int32_t open_in = 0, open_out = 0;
  for (int32_t c = 0; c < shape->in_channels; c++) {
    if (call->g_in[c] != 0.0f) open[open_in++] = c;
  }
  for (int32_t o = 0; o < shape->out_channels; o++) open_out += call->g_out[o] != 0.0f;
  float *y = call->y;
  for (int32_t row = 0; row < plan->output_height; row++) {
    for (int32_t column = 0; column < plan->output_width; column++, y += shape->out_channels) {
      run_pixel(plan, call, open, open_in, row, column, sums, y);
    }
  }
  return (uint64_t)open_in * (uint64_t)open_out;
}

const KeGatedConv2DPath ke_gated_conv_2d_scalar = {KE_ISA_SCALAR, LANES, measure, run};
