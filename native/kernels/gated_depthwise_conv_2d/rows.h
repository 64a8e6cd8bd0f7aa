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

enum { GROUP = 4 }; /* vectors that are summed side by side */

/* One input row into its place in the ring. */
static void take_row(const KeDepthwiseCall *call, int32_t row, float *to) {
  const KeGatedDepthwiseConv2DPlan *plan = call->plan;
  const int32_t channels = plan->shape.in_channels, *inputs = plan->channels;
  const int whole = call->count == channels && plan->multiplier == 1;
  const float *from = call->x + (size_t)row * (size_t)plan->width * (size_t)channels;
  const size_t rest = (size_t)(call->padded - call->count) * sizeof(float);
  if (whole && rest == 0) {
    const int64_t end = (int64_t)plan->width + plan->pad_left < plan->ring_columns ? plan->width + plan->pad_left : plan->ring_columns;
    const size_t left = (size_t)plan->pad_left * (size_t)channels, middle = (size_t)(end - plan->pad_left) * (size_t)channels;
    memset(to, 0, left * sizeof(float));
    memcpy(to + left, from, middle * sizeof(float));
    memset(to + left + middle, 0, ((size_t)plan->ring_columns * (size_t)channels - left - middle) * sizeof(float));
    return;
  }
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

/* The pixels and weights of the taps inside the image: inputs[t] belongs to the row's first output. */
typedef struct Taps {
  const float *const *inputs, *const *weights;
  int32_t count;
} Taps;

/* `vectors` vectors of listed channels from k on, of the output whose inputs lie `step` floats behind the first one's. */
static inline __attribute__((always_inline)) void run_vectors(const KeDepthwiseCall *call, const Taps *taps, int32_t count,
                                                              size_t step, int32_t k, int vectors, float *y) {
  const KeGatedDepthwiseConv2DPlan *plan = call->plan;
  vec sums[GROUP];
  for (int v = 0; v < vectors; v++) sums[v] = vec_load(call->bias + k + v * VEC);
  for (int32_t t = 0; t < count; t++) {
    const float *x = taps->inputs[t] + step + k, *w = taps->weights[t] + k;
    for (int v = 0; v < vectors; v++) sums[v] = vec_multiply_add(vec_load(x + v * VEC), vec_load(w + v * VEC), sums[v]);
  }
  float result[GROUP * VEC];
  const int32_t lanes = call->count - k < vectors * VEC ? call->count - k : vectors * VEC;
  float *to = call->count == plan->shape.out_channels && lanes == vectors * VEC ? y + k : result;
  for (int v = 0; v < vectors; v++) {
    vec_store(to + v * VEC, vec_gate(vec_clamp(sums[v], plan->low, plan->high), vec_load(call->gates + k + v * VEC)));
  }
  if (to != result) return;
  const int32_t *outputs = plan->channels + plan->shape.out_channels + k;
  for (int32_t lane = 0; lane < lanes; lane++) y[outputs[lane]] = result[lane];
}

/* One output pixel; `count` is known to the compiler for the kernels that are met most. */
static inline __attribute__((always_inline)) void run_pixel(const KeDepthwiseCall *call, const Taps *taps, int32_t count,
                                                            size_t step, float *y) {
  int32_t k = 0;
  for (; k + GROUP * VEC <= call->padded; k += GROUP * VEC) run_vectors(call, taps, count, step, k, GROUP, y);
  for (; k < call->padded; k += VEC) run_vectors(call, taps, count, step, k, 1, y);
}

static void run_row(const KeDepthwiseCall *call, const Taps *taps, float *y) {
  const KeGatedDepthwiseConv2DPlan *plan = call->plan;
  const size_t pitch = (size_t)plan->shape.stride_w * (size_t)call->padded, channels = (size_t)plan->shape.out_channels;
  for (int32_t q = 0; q < plan->output_width; q++, y += channels) {
    if (taps->count == 9) {
      run_pixel(call, taps, 9, (size_t)q * pitch, y);
    } else {
      run_pixel(call, taps, taps->count, (size_t)q * pitch, y);
    }
  }
}

static void rows(const KeDepthwiseCall *call, int32_t first, int32_t end, int32_t task) {
  const KeGatedDepthwiseConv2DPlan *plan = call->plan;
  float *ring = plan->rings + (size_t)task * plan->ring_floats;
  const KeGatedConv2DShape *shape = &plan->shape;
  const size_t row_floats = (size_t)plan->ring_columns * (size_t)call->padded;
  const size_t output_row = (size_t)plan->output_width * (size_t)shape->out_channels;
  const float **inputs = plan->pointers + 2 * (size_t)task * (size_t)plan->taps, **weights = inputs + plan->taps;
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
        inputs[count] = ring + (size_t)(h % plan->ring_rows) * row_floats + column * (size_t)call->padded;
        weights[count] = call->weights + ((size_t)r * (size_t)shape->kernel_w + (size_t)s) * (size_t)call->padded;
      }
    }
    float *y = call->y + (size_t)row * output_row;
    if (call->count < shape->out_channels) memset(y, 0, output_row * sizeof(float));
    const Taps taps = {inputs, weights, count};
    run_row(call, &taps, y);
  }
}
