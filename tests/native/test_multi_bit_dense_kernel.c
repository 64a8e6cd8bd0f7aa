/* Every path of the multi-bit dense layer against a plain double-precision loop, over awkward shapes. Inputs and outputs have
 * exactly their size, so that the sanitizer sees any step beyond. */
#include <math.h>
#include <string.h>

#include "checks.h"
#include "kernels/multi_bit_dense/internal.h"
#include "thread_pool.h"

static uint64_t state = 3;

static void *exactly(size_t bytes) {
  void *memory = malloc(bytes);
  if (memory == NULL) exit(2);
  return memory;
}

static double expected(const KeMultiBitDenseShape *shape, int inputs, int o, const uint8_t *bits, const float *scales,
                       const float *bias, const float *x, double *magnitude) {
  double sum = bias[o];
  *magnitude = fabs(bias[o]);
  for (int p = 0; p < shape->groups; p++) {
    for (int i = 0; i < shape->bases; i++) {
      int vector = (o * shape->groups + p) * shape->bases + i;
      for (int k = 0; k < shape->group_size && p * shape->group_size + k < inputs; k++) {
        int bit = (bits[(size_t)vector * (size_t)(shape->group_size / 8) + (size_t)(k / 8)] >> (k % 8)) & 1;
        double term = (double)scales[vector] * x[p * shape->group_size + k];
        sum += bit ? -term : term;
        *magnitude += fabs(term);
      }
    }
  }
  if (shape->activation >= 1 && sum < 0) sum = 0;
  if (shape->activation == 2 && sum > 6) sum = 6;
  return sum;
}

static void check_shape(KeMultiBitDenseShape shape, int inputs, int batch, KeThreadPool *pool) {
  size_t vectors = (size_t)shape.outputs * (size_t)shape.groups * (size_t)shape.bases;
  size_t bit_bytes = vectors * (size_t)(shape.group_size / 8);
  uint8_t *bits = exactly(bit_bytes);
  float *scales = exactly(vectors * sizeof(float)), *bias = exactly((size_t)shape.outputs * sizeof(float));
  float *x = exactly((size_t)(batch * inputs) * sizeof(float)), *y = exactly((size_t)(batch * shape.outputs) * sizeof(float));
  for (size_t i = 0; i < bit_bytes; i++) bits[i] = (uint8_t)random_bits(&state);
  for (size_t i = 0; i < vectors; i++) scales[i] = random_float(&state);
  for (int i = 0; i < shape.outputs; i++) bias[i] = random_float(&state);
  /* Magnitudes over many decades, in every other shape. */
  for (int i = 0; i < batch * inputs; i++) x[i] = random_float(&state) * (inputs % 2 ? 1.0f : powf(10.0f, 8 * random_float(&state)));

  const char *error = NULL;
  KeMultiBitDensePlan *plan = ke_multi_bit_dense_create(&shape, bits, scales, bias, &error);
  CHECK(plan != NULL, "%s", error);
  KeParallel parallel = ke_thread_pool_parallel(pool);
  CHECK(ke_multi_bit_dense_run(plan, batch, inputs, x, y, &parallel) == 0, "run");
  for (int i = 0; i < batch * shape.outputs; i++) {
    double magnitude;
    double right = expected(&shape, inputs, i % shape.outputs, bits, scales, bias, x + i / shape.outputs * inputs, &magnitude);
    CHECK(fabs(y[i] - right) <= 1e-5 * magnitude, "isa %s, outputs %d, inputs %d: y[%d] = %g, expected %g", ke_isa_name(shape.isa),
          shape.outputs, inputs, i, (double)y[i], right);
  }
  /* A NaN reaches every output of its sample, and none of the next. */
  x[inputs / 2] = NAN;
  CHECK(ke_multi_bit_dense_run(plan, batch, inputs, x, y, &parallel) == 0, "run");
  for (int i = 0; i < batch * shape.outputs; i++) CHECK(isnan(y[i]) == (i < shape.outputs), "y[%d] = %g", i, (double)y[i]);
  CHECK(ke_multi_bit_dense_run(plan, 1, shape.groups * shape.group_size + 1, x, y, &parallel) == -1, "too many inputs");
  CHECK(ke_multi_bit_dense_run(plan, 1, (shape.groups - 1) * shape.group_size, x, y, &parallel) == -1, "too few inputs");
  ke_multi_bit_dense_destroy(plan);
  free(bits);
  free(scales);
  free(bias);
  free(x);
  free(y);
}

/* The formula itself, on numbers one can do by hand: bits 10000000 first to last, scales 2 and 0.5. */
static void check_by_hand(const KeMultiBitDensePath *path) {
  const uint8_t bits[2] = {0x01, 0xFE};
  const float scales[2] = {2.0f, 0.5f}, bias[1] = {10.0f}, x[3] = {1.0f, 2.0f, 4.0f};
  KeMultiBitDenseShape shape = {.outputs = 1, .groups = 1, .bases = 2, .group_size = 8, .isa = path->isa};
  const char *error = NULL;
  KeMultiBitDensePlan *plan = ke_multi_bit_dense_create(&shape, bits, scales, bias, &error);
  KeParallel alone = ke_thread_pool_parallel(NULL);
  float y = 0;
  ke_multi_bit_dense_run(plan, 1, 3, x, &y, &alone);
  CHECK(y == 10.0f + 2.0f * (-1 + 2 + 4) + 0.5f * (1 - 2 - 4), "received %g", (double)y);
  ke_multi_bit_dense_destroy(plan);
}

int main(void) {
  static const struct {
    int inputs, outputs, group_size, bases;
  } shapes[] = {{1, 1, 8, 1},    {8, 16, 8, 1},   {7, 17, 8, 3},    {24, 15, 24, 2}, {25, 64, 24, 1},  {100, 65, 32, 2}, {256, 63, 64, 1},
                {130, 129, 128, 2}, {40, 48, 40, 4}, {513, 33, 256, 2}, {72, 200, 72, 1}, {600, 1700, 128, 2},
                {2500, 20, 2048, 1}, {1300, 9, 1304, 2}, {4096, 33, 4096, 1}};
  KeThreadPool *pool = ke_thread_pool_create(3);
  KeIsa isas[KE_MAX_ISAS];
  const int isa_count = ke_cpu_isas(isas);
  for (int k = 0; k < isa_count; k++) {
    const KeIsa isa = isas[k];
    check_by_hand(ke_multi_bit_dense_path(isa));
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
      KeMultiBitDenseShape shape = {.outputs = shapes[i].outputs,
                                    .groups = (shapes[i].inputs + shapes[i].group_size - 1) / shapes[i].group_size,
                                    .bases = shapes[i].bases,
                                    .group_size = shapes[i].group_size,
                                    .activation = (int)(i % 3),
                                    .isa = isa};
      check_shape(shape, shapes[i].inputs, 1 + (int)(i % 3), i % 2 ? pool : NULL);
    }
  }
  ke_thread_pool_destroy(pool);

  /* The reference is never chosen, so run it by hand through a plan of the table path's sizes. */
  const uint8_t bits[2] = {0x01, 0xFE};
  const float scales[2] = {2.0f, 0.5f}, bias[1] = {10.0f}, x[3] = {1.0f, 2.0f, 4.0f};
  float sample[8], y = 0;
  KeMultiBitDensePlan plan = {.shape = {.outputs = 1, .groups = 1, .bases = 2, .group_size = 8},
                              .bits = bits, .scales = scales, .bias = bias, .low = -INFINITY, .high = INFINITY, .sample = sample};
  CHECK(ke_multi_bit_dense_reference.sample_bytes(&plan) == sizeof(sample), "size of a padded sample");
  ke_multi_bit_dense_reference.take_sample(&plan, 3, x);
  ke_multi_bit_dense_reference.run(&plan, 0, 1, &y);
  CHECK(y == 17.5f, "received %g", (double)y);
  return finish("multi-bit dense");
}
