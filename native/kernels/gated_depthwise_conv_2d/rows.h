/* The loops over output rows, with `vec` of VEC floats and these operations from whoever includes this:
 *
 *   vec_load, vec_store   unaligned
 *   vec_multiply_add      a * b + c
 *   vec_clamp             min(high, max(low, v))
 *   vec_gate              g * v, 0 where g is 0 whatever v is
 *
 * Input rows are copied into a ring of as many as the kernel is high, the listed channels side by side, padded with zeros
 * to whole vectors and to the left and right of the image. */
#include <string.h>

#include "internal.h"

enum { VECS = KE_DEPTHWISE_LANES / VEC };

/* One input row into its place in the ring. */
static void take_row(const KeDepthwiseCall *call, int32_t row, float *to) {
  const KeGatedDepthwiseConv2DPlan *plan = call->plan;
  const int32_t channels = plan->shape.in_channels, *inputs = plan->channels;
  const int whole = call->count == channels && plan->multiplier == 1;
  const float *from = call->x + (size_t)row * (size_t)plan->width * (size_t)channels;
  const size_t rest = (size_t)(call->padded - call->count) * sizeof(float);
  for (int32_t q = 0; q < plan->ring_columns; q++, to += call->padded) {
    const int64_t column = (int64_t)q - plan->pad_left;
    if (column < 0 || column >= plan->width) {
      memset(to, 0, (size_t)call->padded * sizeof(float));
      continue;
    }
    const float *pixel = from + (size_t)column * (size_t)channels;
    if (whole) {
      memcpy(to, pixel, (size_t)channels * sizeof(float));
    } else {
      for (int32_t k = 0; k < call->count; k++) to[k] = pixel[inputs[k]];
    }
    if (rest > 0) memset(to + call->count, 0, rest);
  }
}

/* One output pixel. taps[t] points at the inputs of tap t for the row's first pixel, `step` floats before the next one's. */
static void run_pixel(const KeDepthwiseCall *call, const float *const *taps, const float *const *weights, int32_t count,
                      size_t step, float *y) {
  const KeGatedDepthwiseConv2DPlan *plan = call->plan;
  const int32_t *outputs = plan->channels + plan->shape.out_channels;
  const float *bias = plan->scales, *gates = plan->scales + plan->padded;
  const int whole = call->count == plan->shape.out_channels;
  for (int32_t k = 0; k < call->padded; k += KE_DEPTHWISE_LANES) {
    vec sums[VECS];
    for (int v = 0; v < VECS; v++) sums[v] = vec_load(bias + k + v * VEC);
    for (int32_t t = 0; t < count; t++) {
      const float *x = taps[t] + step + k, *w = weights[t] + k;
      for (int v = 0; v < VECS; v++) sums[v] = vec_multiply_add(vec_load(x + v * VEC), vec_load(w + v * VEC), sums[v]);
    }
    float result[KE_DEPTHWISE_LANES];
    const int32_t lanes = call->count - k < KE_DEPTHWISE_LANES ? call->count - k : KE_DEPTHWISE_LANES;
    float *to = whole && lanes == KE_DEPTHWISE_LANES ? y + k : result;
    for (int v = 0; v < VECS; v++) {
      vec_store(to + v * VEC, vec_gate(vec_clamp(sums[v], plan->low, plan->high), vec_load(gates + k + v * VEC)));
    }
    if (to != result) continue;
    for (int32_t lane = 0; lane < lanes; lane++) y[outputs[k + lane]] = result[lane];
  }
}

static void rows(const KeDepthwiseCall *call, int32_t first, int32_t end, int32_t task) {
  const KeGatedDepthwiseConv2DPlan *plan = call->plan;
  float *ring = plan->rings + (size_t)task * plan->ring_floats;
  const KeGatedConv2DShape *shape = &plan->shape;
  const size_t row_floats = (size_t)plan->ring_columns * (size_t)call->padded;
  const size_t output_row = (size_t)plan->output_width * (size_t)shape->out_channels;
  const float **taps = plan->pointers + 2 * (size_t)task * (size_t)plan->taps, **weights = taps + plan->taps;
  int64_t taken = 0; /* the first input row that is not in the ring yet */
  for (int32_t row = first; row < end; row++) {
    const int64_t top = (int64_t)row * shape->stride_h - plan->pad_top;
    const int64_t bottom = top + plan->ring_rows < plan->height ? top + plan->ring_rows : plan->height;
    if (taken < top) taken = top;
    for (; taken < bottom; taken++) {
      take_row(call, (int32_t)taken, ring + (size_t)(taken % plan->ring_rows) * row_floats);
    }
    int32_t count = 0;
    for (int32_t r = 0; r < shape->kernel_h; r++) {
      const int64_t h = top + (int64_t)r * shape->dilation_h;
      if (h < 0 || h >= plan->height) continue;
      for (int32_t s = 0; s < shape->kernel_w; s++, count++) {
        const size_t column = (size_t)s * (size_t)shape->dilation_w;
        taps[count] = ring + (size_t)(h % plan->ring_rows) * row_floats + column * (size_t)call->padded;
        weights[count] = plan->listed + ((size_t)r * (size_t)shape->kernel_w + (size_t)s) * (size_t)plan->padded;
      }
    }
    float *y = call->y + (size_t)row * output_row;
    if (call->count < shape->out_channels) memset(y, 0, output_row * sizeof(float));
    for (int32_t q = 0; q < plan->output_width; q++, y += shape->out_channels) {
      run_pixel(call, taps, weights, count, (size_t)q * (size_t)shape->stride_w * (size_t)call->padded, y);
    }
  }
}
