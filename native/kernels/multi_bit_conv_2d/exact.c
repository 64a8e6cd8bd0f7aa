/* The formula in float32 with unpacked weights: for weights that the tiles cannot take, and the twin that they are
 * compared with. */
#include <math.h>
#include <string.h>

#include "internal.h"

/* weights [taps * channels, padded outputs] */
static void unpack(KeMultiBitConv2DPlan *plan, int32_t bases) {
  const KePackedWeights *packed = &plan->packed;
  const size_t outputs = (size_t)packed->outputs, taps = (size_t)plan->taps, pitch = ke_padded_outputs(plan);
  const size_t channels = (size_t)plan->shape.conv.in_channels;
  memset(plan->weights, 0, (size_t)packed->length * pitch * sizeof(float));
  for (size_t o = 0; o < outputs; o++) {
    for (int32_t p = 0; p < packed->groups; p++) {
      const size_t group = o * (size_t)packed->groups + (size_t)p;
      const int32_t count = ke_packed_group_length(packed, p);
      for (int32_t i = 0; i < packed->widths[group] && i < bases; i++) {
        const size_t row = packed->first[group] + (size_t)i;
        const float scale = packed->scales[row];
        for (int32_t k = 0; k < count; k++) {
          const size_t flat = (size_t)p * (size_t)packed->group_size + (size_t)k;
          const size_t place = plan->shape.order == 0 ? flat : flat % taps * channels + flat / taps;
          plan->weights[place * pitch + o] += ke_packed_bits(packed, row, k, 1) ? -scale : scale;
        }
      }
    }
  }
  plan->base_bits = bases;
}

static float nearest_level(const KeMultiBitLevels *levels, float x) {
  float value = levels->value[0];
  for (int32_t k = 0; k + 1 < levels->count; k++) value = x >= levels->step[k] ? levels->value[k + 1] : value;
  return value;
}

/* One sample as real numbers. */
static void take_sample(const KeMultiBitConv2DPlan *plan, const void *x, float *real) {
  const KeMultiBitConv2DShape *shape = &plan->shape;
  const size_t count = (size_t)plan->height * (size_t)plan->width * (size_t)shape->conv.in_channels;
  if (!shape->is_int8) {
    memcpy(real, x, count * sizeof(float));
  } else {
    const int8_t *integers = x;
    for (size_t i = 0; i < count; i++) real[i] = (float)(integers[i] - shape->input_zero_point) * shape->input_scale;
  }
  if (shape->activation_bits == 0) return;
  for (size_t i = 0; i < count; i++) real[i] = nearest_level(&plan->levels, real[i]);
}

typedef struct Sample {
  const KeMultiBitConv2DPlan *plan;
  const float *x;
  uint8_t *y;
} Sample;

static void add_tap(const float *const *x, int32_t channels, const float *weights, size_t pitch, int32_t lanes,
                    float (*sums)[KE_BLOCK]) {
  for (int32_t c = 0; c < channels; c++, weights += pitch) {
    for (int k = 0; k < KE_EXACT_PIXELS; k++) {
      const float value = x[k][c];
      if (lanes == KE_BLOCK) {
        for (int32_t o = 0; o < KE_BLOCK; o++) sums[k][o] += value * weights[o];
      } else {
        for (int32_t o = 0; o < lanes; o++) sums[k][o] += value * weights[o];
      }
    }
  }
}

static void put_outputs(const KeMultiBitConv2DPlan *plan, const float *sums, int32_t count, uint8_t *y) {
  const KeMultiBitConv2DShape *shape = &plan->shape;
  const int32_t activation = shape->conv.activation;
  for (int32_t o = 0; o < count; o++) {
    float value = sums[o];
    if (activation != 0 && !(value > 0.0f)) value = 0.0f;
    if (activation == 2 && value > 6.0f) value = 6.0f;
    if (!shape->is_int8) {
      memcpy(y + (size_t)o * sizeof(float), &value, sizeof(float));
      continue;
    }
    value = rintf(value / shape->output_scale) + (float)shape->output_zero_point;
    value = value > -128.0f ? value : -128.0f;
    y[o] = (uint8_t)(int8_t)(value < 127.0f ? value : 127.0f);
  }
}

/* The inputs of a tap at some pixels; zeros where it falls outside, or the pixel is none. How many are inside. */
static int aim(const Sample *sample, int32_t row, int32_t column, int32_t tap, const float **x) {
  const KeMultiBitConv2DPlan *plan = sample->plan;
  const KeGatedConv2DShape *conv = &plan->shape.conv;
  const int64_t r = (int64_t)row * conv->stride_h - plan->pad_top + (int64_t)(tap / conv->kernel_w) * conv->dilation_h;
  int inside = 0;
  for (int k = 0; k < KE_EXACT_PIXELS; k++) {
    const int64_t c = (int64_t)(column + k) * conv->stride_w - plan->pad_left + (int64_t)(tap % conv->kernel_w) * conv->dilation_w;
    const int is_inside = column + k < plan->output_width && r >= 0 && r < plan->height && c >= 0 && c < plan->width;
    x[k] = is_inside ? sample->x + (size_t)(r * plan->width + c) * (size_t)conv->in_channels : plan->zeros;
    inside += is_inside;
  }
  return inside;
}

static void run_row(void *argument, int row) {
  const Sample *sample = argument;
  const KeMultiBitConv2DPlan *plan = sample->plan;
  const size_t outputs = (size_t)plan->packed.outputs, channels = (size_t)plan->shape.conv.in_channels;
  const size_t element = plan->shape.is_int8 ? 1 : sizeof(float), pitch = ke_padded_outputs(plan);
  for (int32_t column = 0; column < plan->output_width; column += KE_EXACT_PIXELS) {
    for (size_t first = 0; first < outputs; first += KE_BLOCK) {
      const int32_t count = outputs - first < KE_BLOCK ? (int32_t)(outputs - first) : KE_BLOCK;
      const int32_t lanes = (count + KE_LANES - 1) / KE_LANES * KE_LANES;
      _Alignas(64) float sums[KE_EXACT_PIXELS][KE_BLOCK];
      for (int k = 0; k < KE_EXACT_PIXELS; k++) {
        memset(sums[k], 0, sizeof(sums[k]));
        memcpy(sums[k], plan->bias + first, (size_t)count * sizeof(float));
      }
      for (int32_t tap = 0; tap < plan->taps; tap++) {
        const float *x[KE_EXACT_PIXELS];
        if (aim(sample, row, column, tap, x) == 0) continue;
        plan->path->add_tap(x, (int32_t)channels, plan->weights + (size_t)tap * channels * pitch + first, pitch, lanes, sums);
      }
      for (int32_t k = 0; k < KE_EXACT_PIXELS && column + k < plan->output_width; k++) {
        const size_t pixel = (size_t)row * (size_t)plan->output_width + (size_t)(column + k);
        put_outputs(plan, sums[k], count, sample->y + (pixel * outputs + first) * element);
      }
    }
  }
}

void ke_multi_bit_exact_run(KeMultiBitConv2DPlan *plan, int32_t max_bits, const void *x, void *y,
                            const KeParallel *parallel) {
  const int32_t bases = max_bits < 0 ? 0 : max_bits < plan->packed.bases ? max_bits : plan->packed.bases;
  if (bases != plan->base_bits) unpack(plan, bases);
  take_sample(plan, x, plan->integers);
  Sample sample = {plan, plan->integers, y};
  parallel->run(parallel->pool, plan->output_height, run_row, &sample);
}

const KeMultiBitPath ke_multi_bit_exact = {.isa = KE_ISA_SCALAR, .family = KE_MULTI_BIT_EXACT, .add_tap = add_tap};
