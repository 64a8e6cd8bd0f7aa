/* The formula, one weight at a time: the oracle of the other paths, which no dispatch ever picks. */
#include <string.h>

#include "internal.h"

static size_t padded_inputs(const KeMultiBitDensePlan *plan) {
  return (size_t)plan->shape.groups * (size_t)plan->shape.group_size;
}

static size_t weight_bytes(const KeMultiBitDensePlan *plan) {
  (void)plan;
  return 0;
}

static size_t sample_bytes(const KeMultiBitDensePlan *plan) { return padded_inputs(plan) * sizeof(float); }

static void take_sample(KeMultiBitDensePlan *plan, int32_t inputs, const float *x) {
  float *padded = plan->sample;
  memcpy(padded, x, (size_t)inputs * sizeof(float));
  memset(padded + inputs, 0, (padded_inputs(plan) - (size_t)inputs) * sizeof(float));
}

static float signed_sum(const uint8_t *bits, const float *x, int32_t count) {
  static const float sign[2] = {1.0f, -1.0f};
  float sum = 0.0f;
  for (int32_t k = 0; k < count; k++) sum += sign[(bits[k / 8] >> (k % 8)) & 1] * x[k];
  return sum;
}

static void run(const KeMultiBitDensePlan *plan, int32_t first, int32_t end, float *y) {
  const KeExpandedShape *shape = &plan->shape;
  const size_t group_bytes = (size_t)shape->group_size / 8;
  for (int32_t o = first; o < end; o++) {
    float sum = plan->bias[o];
    for (int32_t p = 0; p < shape->groups; p++) {
      const float *x = (const float *)plan->sample + (size_t)p * (size_t)shape->group_size;
      for (int32_t i = 0; i < shape->bases; i++) {
        size_t vector = ((size_t)o * (size_t)shape->groups + (size_t)p) * (size_t)shape->bases + (size_t)i;
        sum += plan->scales[vector] * signed_sum(plan->bits + vector * group_bytes, x, shape->group_size);
      }
    }
    sum = sum < plan->low ? plan->low : sum;
    y[o] = sum > plan->high ? plan->high : sum;
  }
}

static int32_t lanes(const KeMultiBitDensePlan *plan) {
  (void)plan;
  return 1;
}

const KeMultiBitDensePath ke_multi_bit_dense_reference = {
    .isa = KE_ISA_SCALAR,
    .lanes = lanes,
    .task_macs = 20000,
    .weight_bytes = weight_bytes,
    .sample_bytes = sample_bytes,
    .take_sample = take_sample,
    .run = run,
};
