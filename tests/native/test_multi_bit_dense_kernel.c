/* Every path of the multi-bit dense layer against a plain double-precision loop, over awkward shapes and mixed bit-widths.
 * Inputs, outputs and streams have exactly their size, so that the sanitizer sees any step beyond. */
#include <math.h>

#include "kernels/multi_bit_dense/internal.h"
#include "packed_weights.h"
#include "thread_pool.h"

static uint64_t state = 3;

static double activated(double sum, int activation) {
  if (activation >= 1 && sum < 0) sum = 0;
  return activation == 2 && sum > 6 ? 6 : sum;
}

/* What a path may be off by: as sums of floats, or half a step in each look-up. */
static double bound_of(const TestWeights *w, const KeMultiBitDensePath *path, int o, int max_bits, const float *x) {
  double bound = 0.0;
  for (int p = 0; p < w->groups; p++) {
    const int first = p * w->group_size, count = w->length - first < w->group_size ? w->length - first : w->group_size;
    const int tables = (w->group_size + 5) / 6; /* look-ups take six inputs that lie so far apart */
    double sum = 0.0, largest = 0.0, magnitude;
    for (int t = 0; t < tables; t++) {
      double six = 0.0;
      for (int k = t; k < count; k += tables) six += fabs((double)x[first + k]);
      largest = fmax(largest, six);
      sum += six;
    }
    weight_at(w, o, first, max_bits, &magnitude);
    bound += magnitude * (path->takes_packed ? 0.502 * tables * largest / 127 : 1e-5 * sum);
  }
  return bound + 1e-5;
}

static void check_plan(KeMultiBitDensePlan *plan, const TestWeights *w, const KeMultiBitDenseShape *shape, const float *bias,
                       const float *x, float *y, int batch, int max_bits, KeThreadPool *pool) {
  KeParallel parallel = ke_thread_pool_parallel(pool);
  CHECK(ke_multi_bit_dense_run(plan, max_bits, x, y, &parallel) == 0, "run");
  for (int i = 0; i < batch * w->outputs; i++) {
    const int o = i % w->outputs;
    const float *sample = x + i / w->outputs * w->length;
    double sum = bias[o], magnitude;
    for (int k = 0; k < w->length; k++) sum += weight_at(w, o, k, max_bits, &magnitude) * (double)sample[k];
    const double right = activated(sum, shape->activation), bound = bound_of(w, plan->path, o, max_bits, sample);
    CHECK(fabs(y[i] - right) <= bound, "isa %s, outputs %d, inputs %d, groups of %d, max_bits %d: y[%d] = %g, expected %g +- %g",
          ke_isa_name(shape->isa), w->outputs, w->length, w->group_size, max_bits, i, (double)y[i], right, bound);
  }
}

static void check_shape(KeMultiBitDenseShape shape, int full, int batch, KeThreadPool *pool) {
  TestWeights w = make_weights(&state, shape.outputs, shape.inputs, shape.group_size, shape.bases, full);
  float *bias = exactly((size_t)shape.outputs * sizeof(float)), levels[1] = {0.0f};
  float *x = exactly((size_t)(batch * shape.inputs) * sizeof(float)), *y = exactly((size_t)(batch * shape.outputs) * sizeof(float));
  for (int i = 0; i < shape.outputs; i++) bias[i] = random_float(&state);
  for (int i = 0; i < batch * shape.inputs; i++) x[i] = random_float(&state);
  char message[256] = "";
  KeMultiBitDensePlan *plan = ke_multi_bit_dense_create(&shape, &w.streams, levels, bias, message, sizeof(message));
  CHECK(plan != NULL && ke_multi_bit_dense_resize(plan, batch) == 0, "%s", message);
  if (plan == NULL) exit(1);
  check_plan(plan, &w, &shape, bias, x, y, batch, 8, pool);
  check_plan(plan, &w, &shape, bias, x, y, batch, 1, pool);
  check_plan(plan, &w, &shape, bias, x, y, batch, 8, pool);
  if (full && shape.bases > 0) { /* A NaN reaches every output of its sample, and none of the next. */
    x[shape.inputs / 2] = NAN;
    KeParallel parallel = ke_thread_pool_parallel(pool);
    CHECK(ke_multi_bit_dense_run(plan, 8, x, y, &parallel) == 0, "run");
    for (int i = 0; i < batch * shape.outputs; i++) CHECK(isnan(y[i]) == (i < shape.outputs), "y[%d] = %g", i, (double)y[i]);
  }
  ke_multi_bit_dense_destroy(plan);
  free_weights(&w);
  free(bias);
  free(x);
  free(y);
}

/* The formula itself, on numbers one can do by hand: bits 100 and 011, scales 2 and 0.5. */
static void check_by_hand(KeIsa isa) {
  const uint8_t widths[1] = {0x02}, bits[1] = {0x31};
  const float scales[2] = {2.0f, 0.5f}, bias[1] = {10.0f}, levels[1] = {0.0f}, x[3] = {1.0f, 2.0f, 4.0f};
  const KePackedStreams streams = {widths, bits, scales, 1, 1, 2};
  const KeMultiBitDenseShape shape = {.inputs = 3, .outputs = 1, .group_size = 3, .bases = 2, .isa = isa};
  char message[256] = "";
  KeMultiBitDensePlan *plan = ke_multi_bit_dense_create(&shape, &streams, levels, bias, message, sizeof(message));
  CHECK(plan != NULL && ke_multi_bit_dense_resize(plan, 1) == 0, "%s", message);
  KeParallel alone = ke_thread_pool_parallel(NULL);
  float y = 0;
  ke_multi_bit_dense_run(plan, 2, x, &y, &alone);
  CHECK(fabsf(y - (10.0f + 2.0f * (-1 + 2 + 4) + 0.5f * (1 - 2 - 4))) < 0.05f, "received %g", (double)y);
  ke_multi_bit_dense_run(plan, 1, x, &y, &alone);
  CHECK(fabsf(y - (10.0f + 2.0f * (-1 + 2 + 4))) < 0.05f, "received %g", (double)y);
  ke_multi_bit_dense_destroy(plan);
}

int main(void) {
  static const struct {
    int inputs, outputs, group_size, bases;
  } shapes[] = {{1, 1, 8, 1},       {8, 16, 8, 1},   {7, 17, 8, 3},    {24, 15, 24, 2}, {25, 64, 25, 1}, {100, 65, 32, 2},
                {256, 63, 64, 1},   {130, 129, 65, 2}, {40, 48, 40, 4}, {513, 33, 171, 2}, {72, 200, 72, 1}, {300, 700, 30, 2},
                {2500, 20, 2048, 1}, {1300, 9, 1300, 2}, {33, 300, 11, 8}, {64, 20, 64, 0}};
  KeThreadPool *pool = ke_thread_pool_create(3);
  KeIsa isas[KE_MAX_ISAS];
  const int isa_count = ke_cpu_isas(isas);
  for (int k = 0; k < isa_count; k++) {
    check_by_hand(isas[k]);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
      const KeMultiBitDenseShape shape = {.inputs = shapes[i].inputs,
                                          .outputs = shapes[i].outputs,
                                          .bases = shapes[i].bases,
                                          .group_size = shapes[i].group_size,
                                          .activation = (int)(i % 3),
                                          .isa = isas[k]};
      check_shape(shape, i % 2 == 0, 1 + (int)(i % 3), i % 2 ? pool : NULL);
    }
  }
  ke_thread_pool_destroy(pool);

  /* The reference is never chosen, so run it by hand: bits 10000000 first to last. */
  uint8_t bits[2] = {0x01, 0xFE};
  float scales[2] = {2.0f, 0.5f}, sample[8], y = 0;
  const float bias[1] = {10.0f}, x[3] = {1.0f, 2.0f, 4.0f};
  KeMultiBitDensePlan plan = {.shape = {.outputs = 1, .groups = 1, .bases = 2, .group_size = 8},
                              .bits = bits, .scales = scales, .bias = bias, .low = -INFINITY, .high = INFINITY, .sample = sample};
  CHECK(ke_multi_bit_dense_reference.sample_bytes(&plan) == sizeof(sample), "size of a padded sample");
  ke_multi_bit_dense_reference.take_sample(&plan, 3, x);
  ke_multi_bit_dense_reference.run(&plan, 0, 1, &y);
  CHECK(y == 17.5f, "received %g", (double)y);
  return finish("multi-bit dense");
}
