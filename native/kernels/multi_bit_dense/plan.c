/* The life of a plan: check and pack, run sample by sample, destroy. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define SAY(...) snprintf(error, error_bytes, __VA_ARGS__)

static void *allocate(size_t bytes) {
  if (bytes > SIZE_MAX / 2) return NULL;
  return aligned_alloc(64, (bytes + 64) / 64 * 64);
}

/* A convolution of one tap over a row whose pixels are the samples. */
static KeMultiBitConv2DPlan *as_convolution(const KeMultiBitDenseShape *shape, const KePackedStreams *streams,
                                            const float *levels, const float *bias, char *error, size_t error_bytes) {
  const KeMultiBitConv2DShape conv = {.conv = {.kernel_h = 1,
                                               .kernel_w = 1,
                                               .in_channels = shape->inputs,
                                               .out_channels = shape->outputs,
                                               .stride_h = 1,
                                               .stride_w = 1,
                                               .dilation_h = 1,
                                               .dilation_w = 1,
                                               .activation = shape->activation,
                                               .isa = shape->isa},
                                      .group_size = shape->group_size,
                                      .bases = shape->bases,
                                      .activation_bits = shape->activation_bits};
  return ke_multi_bit_conv_2d_create(&conv, streams, levels, bias, error, error_bytes);
}

/* Rows in the order of the packed form, each with whole bytes; bases from `max_bases` on get scale 0. */
static void expand(KeMultiBitDensePlan *plan, int32_t max_bases) {
  const KePackedWeights *packed = &plan->packed;
  const size_t groups = (size_t)packed->outputs * (size_t)packed->groups, bases = (size_t)plan->shape.bases;
  const size_t bytes = (size_t)plan->shape.group_size / 8;
  memset(plan->bits, 0, groups * bases * bytes);
  memset(plan->scales, 0, groups * bases * sizeof(float));
  for (size_t g = 0; g < groups; g++) {
    for (int32_t i = 0; i < packed->widths[g] && i < max_bases; i++) {
      const size_t row = packed->first[g] + (size_t)i, to = g * bases + (size_t)i;
      plan->scales[to] = packed->scales[row];
      for (size_t byte = 0; byte < bytes; byte++) {
        const int32_t first = 8 * (int32_t)byte, left = packed->group_size - first;
        plan->bits[to * bytes + byte] = (uint8_t)ke_packed_bits(packed, row, first, left < 8 ? left : 8);
      }
    }
  }
  plan->max_bases = max_bases;
}

/* A path allocates at most a few bytes for each padded weight, and 128 for each padded input. */
static int is_too_large(const KeMultiBitDensePlan *plan) {
  const size_t limit = SIZE_MAX / 256, padded_group = (size_t)plan->packed.group_size + 64;
  const size_t bases = plan->packed.bases > 0 ? (size_t)plan->packed.bases : 1;
  if ((size_t)plan->packed.groups > limit / padded_group) return 1;
  size_t row = (size_t)plan->packed.groups * padded_group;
  if (bases > limit / row) return 1;
  row *= bases;
  return (size_t)plan->packed.outputs > limit / row || plan->packed.outputs > INT32_MAX - 1024 ||
         plan->packed.group_size > INT32_MAX - 64;
}

static int pack(KeMultiBitDensePlan *plan) {
  const KePackedWeights *packed = &plan->packed;
  plan->shape = (KeExpandedShape){packed->outputs, packed->groups, packed->bases > 0 ? packed->bases : 1,
                                  (packed->group_size + 7) / 8 * 8};
  plan->max_bases = packed->bases;
  if (!plan->path->takes_packed) {
    const size_t rows = (size_t)packed->outputs * (size_t)packed->groups * (size_t)plan->shape.bases;
    plan->bits = malloc(rows * (size_t)plan->shape.group_size / 8);
    plan->scales = malloc(rows * sizeof(float));
    if (plan->bits == NULL || plan->scales == NULL) return -1;
    if (plan->shape.group_size != packed->group_size) {
      plan->spread = calloc((size_t)plan->shape.groups * (size_t)plan->shape.group_size, sizeof(float));
      if (plan->spread == NULL) return -1;
    }
    expand(plan, packed->bases);
  }
  const int32_t lanes = plan->path->lanes(plan);
  plan->blocks = (packed->outputs - 1) / lanes + 1;
  plan->weights = allocate(plan->path->weight_bytes(plan));
  plan->sample = allocate(plan->path->sample_bytes(plan));
  if (plan->weights == NULL || plan->sample == NULL) return -1;
  if (plan->path->pack != NULL) plan->path->pack(plan);
  return 0;
}

KeMultiBitDensePlan *ke_multi_bit_dense_create(const KeMultiBitDenseShape *shape, const KePackedStreams *streams,
                                               const float *levels, const float *bias, char *error, size_t error_bytes) {
  KeMultiBitDensePlan *plan = calloc(1, sizeof(*plan));
  if (plan == NULL) {
    SAY("Out of memory for the plan.");
    return NULL;
  }
  plan->given = *shape;
  plan->bias = bias;
  plan->low = shape->activation == 0 ? -INFINITY : 0.0f;
  plan->high = shape->activation == 2 ? 6.0f : INFINITY;
  plan->path = ke_multi_bit_dense_path(shape->isa);
  if (shape->activation_bits > 0) {
    plan->conv = as_convolution(shape, streams, levels, bias, error, error_bytes);
    if (plan->conv != NULL) return plan;
  } else if (ke_packed_open(&plan->packed, shape->outputs, shape->inputs, shape->group_size, shape->bases, streams, error,
                            error_bytes) == 0) {
    if (!is_too_large(plan) && pack(plan) == 0) return plan;
    SAY("Out of memory for the packed weights.");
  }
  ke_multi_bit_dense_destroy(plan);
  return NULL;
}

int ke_multi_bit_dense_resize(KeMultiBitDensePlan *plan, int32_t batch) {
  if (batch < 0) return -1;
  plan->batch = batch;
  if (plan->conv == NULL) return 0;
  return ke_multi_bit_conv_2d_resize(plan->conv, 1, 1, batch) == KE_GATED_CONV_2D_OK ? 0 : -1;
}

typedef struct Sample {
  const KeMultiBitDensePlan *plan;
  float *y;
  int32_t blocks_per_task;
} Sample;

static void run_task(void *argument, int index) {
  const Sample *sample = argument;
  int32_t first = index * sample->blocks_per_task;
  int32_t end = sample->plan->blocks - first < sample->blocks_per_task ? sample->plan->blocks : first + sample->blocks_per_task;
  sample->plan->path->run(sample->plan, first, end, sample->y);
}

/* Few large tasks: each one goes through the whole sample, and less than `task_macs` is not worth waking a thread for. */
static int32_t blocks_per_task(const KeMultiBitDensePlan *plan, int64_t block_macs, int threads) {
  if (threads == 1) return plan->blocks;
  int64_t shared = ((int64_t)plan->blocks + 2 * threads - 1) / (2 * threads), least = plan->path->task_macs / block_macs + 1;
  int64_t blocks = shared > least ? shared : least;
  return blocks < plan->blocks ? (int32_t)blocks : plan->blocks;
}

/* Every group in whole bytes; what lies between stays 0. */
static const float *spread(KeMultiBitDensePlan *plan, const float *x) {
  for (int32_t p = 0; p < plan->packed.groups; p++) {
    const size_t from = (size_t)p * (size_t)plan->packed.group_size, to = (size_t)p * (size_t)plan->shape.group_size;
    memcpy(plan->spread + to, x + from, (size_t)ke_packed_group_length(&plan->packed, p) * sizeof(float));
  }
  return plan->spread;
}

int ke_multi_bit_dense_run(KeMultiBitDensePlan *plan, int32_t max_bits, const float *x, float *y,
                           const KeParallel *parallel) {
  if (plan->conv != NULL) {
    return ke_multi_bit_conv_2d_run(plan->conv, max_bits, x, y, parallel) == KE_GATED_CONV_2D_OK ? 0 : -1;
  }
  const int32_t bases = max_bits < 0 ? 0 : max_bits < plan->packed.bases ? max_bits : plan->packed.bases;
  if (plan->path->takes_packed) {
    plan->max_bases = bases;
  } else if (plan->max_bases != bases) {
    expand(plan, bases);
    if (plan->path->pack != NULL) plan->path->pack(plan);
  }
  const int32_t inputs = plan->spread == NULL ? plan->given.inputs : plan->shape.groups * plan->shape.group_size;
  const int64_t block_macs = (int64_t)plan->given.inputs * plan->shape.bases * plan->path->lanes(plan);
  Sample sample = {plan, y, blocks_per_task(plan, block_macs, parallel->threads)};
  int tasks = (plan->blocks - 1) / sample.blocks_per_task + 1;
  for (int32_t b = 0; b < plan->batch; b++) {
    const float *from = x + (size_t)b * (size_t)plan->given.inputs;
    plan->path->take_sample(plan, inputs, plan->spread == NULL ? from : spread(plan, from));
    sample.y = y + (size_t)b * (size_t)plan->given.outputs;
    parallel->run(parallel->pool, tasks, run_task, &sample);
  }
  return 0;
}

void ke_multi_bit_dense_destroy(KeMultiBitDensePlan *plan) {
  if (plan == NULL) return;
  ke_multi_bit_conv_2d_destroy(plan->conv);
  ke_packed_close(&plan->packed);
  free(plan->bits);
  free(plan->scales);
  free(plan->spread);
  free(plan->weights);
  free(plan->sample);
  free(plan);
}
