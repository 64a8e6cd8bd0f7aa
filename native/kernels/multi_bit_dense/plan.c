/* The life of a plan: check and pack, run sample by sample, destroy. */
#include <math.h>
#include <stdlib.h>

#include "internal.h"

static void *allocate(size_t bytes) {
  if (bytes > SIZE_MAX / 2) return NULL;
  return aligned_alloc(64, (bytes + 64) / 64 * 64);
}

KeMultiBitDensePlan *ke_multi_bit_dense_create(const KeMultiBitDenseShape *shape, const uint8_t *bits, const float *scales,
                                               const float *bias, const char **error) {
  *error = "Expected positive sizes and a group size that is a multiple of 8.";
  if (shape->outputs < 1 || shape->groups < 1 || shape->bases < 1 || shape->group_size < 8 || shape->group_size % 8 != 0) {
    return NULL;
  }
  /* A path allocates at most a few bytes for each padded weight, and 128 for each padded input. */
  *error = "Expected weights that fit into memory.";
  size_t limit = SIZE_MAX / 256;
  size_t padded_group = (size_t)shape->group_size + 32;
  if ((size_t)shape->groups > limit / padded_group) return NULL;
  size_t row = (size_t)shape->groups * padded_group;
  if ((size_t)shape->bases > limit / row) return NULL;
  row *= (size_t)shape->bases;
  if ((size_t)shape->outputs > limit / row || shape->outputs > INT32_MAX - 64) return NULL;

  *error = "Out of memory.";
  KeMultiBitDensePlan *plan = calloc(1, sizeof(*plan));
  if (plan == NULL) return NULL;
  plan->shape = *shape;
  plan->path = ke_multi_bit_dense_path(shape->isa);
  plan->bits = bits;
  plan->scales = scales;
  plan->bias = bias;
  plan->low = shape->activation == 0 ? -INFINITY : 0.0f;
  plan->high = shape->activation == 2 ? 6.0f : INFINITY;
  plan->blocks = (shape->outputs - 1) / plan->path->lanes + 1;
  plan->weights = allocate(plan->path->weight_bytes(plan));
  plan->sample = allocate(plan->path->sample_bytes(plan));
  if (plan->weights == NULL || plan->sample == NULL) {
    ke_multi_bit_dense_destroy(plan);
    return NULL;
  }
  if (plan->path->pack != NULL) plan->path->pack(plan);
  *error = NULL;
  return plan;
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

int ke_multi_bit_dense_run(KeMultiBitDensePlan *plan, int32_t batch, int32_t inputs, const float *x, float *y,
                           const KeParallel *parallel) {
  const KeMultiBitDenseShape *shape = &plan->shape;
  int64_t capacity = (int64_t)shape->groups * shape->group_size;
  if (batch < 0 || inputs > capacity || inputs <= capacity - shape->group_size) return -1;
  int64_t block_macs = capacity * shape->bases * plan->path->lanes;
  Sample sample = {plan, y, blocks_per_task(plan, block_macs, parallel->threads)};
  int tasks = (plan->blocks - 1) / sample.blocks_per_task + 1;
  for (int32_t b = 0; b < batch; b++) {
    plan->path->take_sample(plan, inputs, x + (size_t)b * (size_t)inputs);
    sample.y = y + (size_t)b * (size_t)shape->outputs;
    parallel->run(parallel->pool, tasks, run_task, &sample);
  }
  return 0;
}

void ke_multi_bit_dense_destroy(KeMultiBitDensePlan *plan) {
  if (plan == NULL) return;
  free(plan->weights);
  free(plan->sample);
  free(plan);
}
