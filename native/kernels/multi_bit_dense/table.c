/* Eight weights at a time by table, on any processor. For eight inputs there are 256 signed sums; a byte of the bits is the
 * index of the right one, so that a look-up and an addition do eight multiply-accumulates. The bits are used as they lie in
 * the file. Groups go outermost: the tables of one stay in the first-level cache for all outputs. */
#include "internal.h"

enum { kEntries = 256, kInputsPerTable = 8 };

static size_t tables_per_group(const KeMultiBitDensePlan *plan) { return (size_t)plan->shape.group_size / kInputsPerTable; }

static size_t weight_bytes(const KeMultiBitDensePlan *plan) {
  (void)plan;
  return 0;
}

static size_t sample_bytes(const KeMultiBitDensePlan *plan) {
  return (size_t)plan->shape.groups * tables_per_group(plan) * kEntries * sizeof(float);
}

/* Every further input doubles the entries: the new half has its sign turned. */
static void fill_table(const float *x, int64_t count, float *table) {
  float sum = 0.0f;
  for (int64_t k = 0; k < count; k++) sum += x[k];
  table[0] = sum;
  for (int k = 0; k < kInputsPerTable; k++) {
    const float twice = k < count ? 2.0f * x[k] : 0.0f;
    for (int entry = 0; entry < 1 << k; entry++) table[(1 << k) + entry] = table[entry] - twice;
  }
}

static void take_sample(KeMultiBitDensePlan *plan, int32_t inputs, const float *x) {
  const int64_t tables = (int64_t)plan->shape.groups * (int64_t)tables_per_group(plan);
  for (int64_t t = 0; t < tables; t++) {
    const int64_t first = t * kInputsPerTable, left = inputs - first;
    fill_table(left > 0 ? x + first : x, left < 0 ? 0 : left < kInputsPerTable ? left : kInputsPerTable,
               (float *)plan->sample + t * kEntries);
  }
}

/* Four sums, so that an addition need not wait for the one before. */
static float look_up(const uint8_t *bits, const float *table, size_t count) {
  float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  size_t t = 0;
  for (; count - t >= 4; t += 4) {
    for (size_t k = 0; k < 4; k++) sum[k] += table[(t + k) * kEntries + bits[t + k]];
  }
  for (; t < count; t++) sum[0] += table[t * kEntries + bits[t]];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static void run(const KeMultiBitDensePlan *plan, int32_t first, int32_t end, float *y) {
  const size_t groups = (size_t)plan->shape.groups, bases = (size_t)plan->shape.bases, tables = tables_per_group(plan);
  for (int32_t o = first; o < end; o++) y[o] = plan->bias[o];
  for (size_t p = 0; p < groups; p++) {
    const float *table = (const float *)plan->sample + p * tables * kEntries;
    for (int32_t o = first; o < end; o++) {
      const size_t vector = ((size_t)o * groups + p) * bases;
      float sum = y[o];
      for (size_t v = vector; v < vector + bases; v++) {
        sum += plan->scales[v] * look_up(plan->bits + v * tables, table, tables);
      }
      y[o] = sum;
    }
  }
  for (int32_t o = first; o < end; o++) {
    const float value = y[o] < plan->low ? plan->low : y[o];
    y[o] = value > plan->high ? plan->high : value;
  }
}

static int32_t lanes(const KeMultiBitDensePlan *plan) {
  (void)plan;
  return 1;
}

const KeMultiBitDensePath ke_multi_bit_dense_table = {
    .isa = KE_ISA_SCALAR,
    .lanes = lanes,
    .task_macs = 400000,
    .weight_bytes = weight_bytes,
    .sample_bytes = sample_bytes,
    .take_sample = take_sample,
    .run = run,
};
