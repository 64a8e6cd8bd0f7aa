/* Every path of the gated depthwise convolution against a plain double-precision loop, over awkward shapes and seeded
 * random ones. Inputs that only shut outputs read hold NaN, the output stands between canaries, tensors are unaligned, the
 * MACs are counted by hand. */
#include <math.h>
#include <string.h>

#include "checks.h"
#include "kernels/gated_depthwise_conv_2d/internal.h"
#include "thread_pool.h"

enum { CANARIES = 64 };
static const float canary = -12345.5f;
static uint64_t state = 1;

typedef struct Case {
  int kernel_h, kernel_w, channels, multiplier;
  int stride_h, stride_w, dilation, padding, activation;
  int batch, height, width;
  double open; /* probability that a channel is open */
} Case;

typedef struct Tensors {
  float *x, *g, *kernel, *bias, *y;
  double *expected;
  int output_height, output_width, outputs;
  size_t y_count;
  uint64_t macs;
} Tensors;

/* Unaligned on purpose: one float past what malloc gives. */
static float *floats(size_t count) {
  float *p = malloc((count + 1) * sizeof(float));
  if (p == NULL) exit(2);
  for (size_t i = 0; i <= count; i++) p[i] = random_float(&state);
  return p + 1;
}

static int before(int size, int output, int kernel, int stride, int dilation) {
  const int total = (output - 1) * stride + (kernel - 1) * dilation + 1 - size;
  return total > 0 ? total / 2 : 0;
}

static void draw_gates(const Case *c, Tensors *t) {
  for (int i = 0; i < c->batch * t->outputs; i++) {
    t->g[i] = random_bits(&state) / 2147483648.0 < c->open ? random_float(&state) + 1.5f : 0.0f;
  }
  for (int b = 0; b < c->batch; b++) {
    for (int k = 0; k < c->channels; k++) {
      int open = 0;
      for (int m = 0; m < c->multiplier; m++) open |= t->g[b * t->outputs + k * c->multiplier + m] != 0.0f;
      for (int p = 0; p < c->height * c->width; p++) {
        t->x[(b * c->height * c->width + p) * c->channels + k] = open ? random_float(&state) : NAN;
      }
    }
  }
}

static void reference(const Case *c, Tensors *t) {
  const int top = c->padding ? before(c->height, t->output_height, c->kernel_h, c->stride_h, c->dilation) : 0;
  const int left = c->padding ? before(c->width, t->output_width, c->kernel_w, c->stride_w, c->dilation) : 0;
  t->macs = 0;
  for (size_t i = 0; i < t->y_count; i++) {
    const int o = (int)(i % (size_t)t->outputs), k = o / c->multiplier;
    const int pixel = (int)(i / (size_t)t->outputs), column = pixel % t->output_width;
    const int row = pixel / t->output_width % t->output_height, b = pixel / t->output_width / t->output_height;
    const float gate = t->g[b * t->outputs + o];
    double sum = t->bias[o];
    for (int r = 0; r < c->kernel_h && gate != 0.0f; r++) {
      for (int s = 0; s < c->kernel_w; s++, t->macs++) {
        const int h = row * c->stride_h - top + r * c->dilation, w = column * c->stride_w - left + s * c->dilation;
        if (h < 0 || h >= c->height || w < 0 || w >= c->width) continue;
        const double x = t->x[((b * c->height + h) * c->width + w) * c->channels + k];
        sum += x * t->kernel[(r * c->kernel_w + s) * t->outputs + o];
      }
    }
    if (c->activation >= 1 && sum < 0) sum = 0;
    if (c->activation == 2 && sum > 6) sum = 6;
    t->expected[i] = gate == 0.0f ? 0.0 : gate * sum;
  }
}

static void check_run(const Case *c, const Tensors *t, KeGatedDepthwiseConv2DPlan *plan, KeIsa isa, int threads,
                      const KeParallel *parallel) {
  for (size_t i = 0; i < t->y_count + 2 * CANARIES; i++) t->y[i] = canary;
  uint64_t macs = 0;
  const int status = ke_gated_depthwise_conv_2d_run(plan, t->x, t->g, t->y + CANARIES, parallel, &macs);
  CHECK(status == KE_GATED_CONV_2D_OK, "status %d", status);
  CHECK(macs == t->macs, "%s: %llu MACs, expected %llu", ke_isa_name(isa), (unsigned long long)macs,
        (unsigned long long)t->macs);
  for (int i = 0; i < CANARIES; i++) {
    CHECK(t->y[i] == canary && t->y[CANARIES + t->y_count + (size_t)i] == canary, "wrote outside of y");
  }
  for (size_t i = 0; i < t->y_count; i++) {
    const double got = t->y[CANARIES + i], expected = t->expected[i];
    if (expected == 0.0 ? fabs(got) <= 1e-5 : fabs(got - expected) <= 1e-5 * (1 + fabs(expected))) continue;
    CHECK(0, "%s, %d threads: %.9g at %zu, expected %.9g (kernel %dx%d, %d x %d channels, stride %dx%d, dilation %d, padding "
          "%d, activation %d, batch %d, %dx%d, open %.2f)", ke_isa_name(isa), threads, got, i, expected, c->kernel_h,
          c->kernel_w, c->channels, c->multiplier, c->stride_h, c->stride_w, c->dilation, c->padding, c->activation,
          c->batch, c->height, c->width, c->open);
    return;
  }
}

static void run_case(const Case *c, KeThreadPool *pool) {
  KeGatedConv2DShape shape = {c->kernel_h, c->kernel_w, c->channels, c->channels * c->multiplier, c->stride_h, c->stride_w,
                              c->dilation, c->dilation, c->padding,  c->activation,               KE_ISA_SCALAR};
  Tensors t = {.outputs = c->channels * c->multiplier};
  if (ke_gated_conv_2d_output_size(&shape, c->height, c->width, &t.output_height, &t.output_width) != 0) {
    CHECK(0, "no output size");
    return;
  }
  t.y_count = (size_t)c->batch * (size_t)t.output_height * (size_t)t.output_width * (size_t)t.outputs;
  t.x = floats((size_t)c->batch * (size_t)c->height * (size_t)c->width * (size_t)c->channels);
  t.g = floats((size_t)c->batch * (size_t)t.outputs);
  t.kernel = floats((size_t)c->kernel_h * (size_t)c->kernel_w * (size_t)t.outputs);
  t.bias = floats((size_t)t.outputs);
  t.y = floats(t.y_count + 2 * CANARIES);
  t.expected = calloc(t.y_count + 1, sizeof(double));
  KeIsa isas[KE_MAX_ISAS];
  const int isa_count = ke_cpu_isas(isas);
  for (int i = 0; i < isa_count; i++) {
    if (i > 0 && ke_depthwise_path(isas[i]) == ke_depthwise_path(isas[i - 1])) continue;
    shape.isa = isas[i];
    for (int threads = 1; threads <= 2; threads++) {
      const char *error = NULL;
      KeGatedDepthwiseConv2DPlan *plan = ke_gated_depthwise_conv_2d_create(&shape, t.kernel, t.bias, &error);
      CHECK(plan != NULL && error == NULL, "%s", error);
      if (plan == NULL) continue;
      const int status = ke_gated_depthwise_conv_2d_resize(plan, c->batch, c->height, c->width, threads);
      CHECK(status == KE_GATED_CONV_2D_OK, "status %d", status);
      const KeParallel parallel = ke_thread_pool_parallel(threads == 1 ? NULL : pool);
      for (int repeat = 0; repeat < 2; repeat++) { /* what one call leaves behind must not show in the next */
        draw_gates(c, &t);
        reference(c, &t);
        check_run(c, &t, plan, isas[i], threads, threads == 1 && repeat == 0 ? NULL : &parallel);
      }
      ke_gated_depthwise_conv_2d_destroy(plan);
    }
  }
  float *all[] = {t.x, t.g, t.kernel, t.bias, t.y};
  for (int i = 0; i < 5; i++) free(all[i] - 1);
  free(t.expected);
}

static const Case table[] = {
    /* kernel, channels, stride, dilation, padding, activation, batch, size, open */
    {1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1},     {3, 3, 16, 1, 1, 1, 1, 1, 2, 2, 8, 8, 1},
    {3, 3, 96, 1, 1, 1, 1, 1, 2, 1, 12, 9, .5},  {3, 3, 96, 1, 2, 2, 1, 0, 2, 1, 13, 13, .5},
    {3, 3, 96, 1, 1, 1, 1, 1, 2, 2, 12, 9, .1},  {3, 3, 40, 1, 1, 1, 1, 1, 1, 1, 7, 7, 0},
    {5, 5, 19, 1, 1, 1, 1, 1, 0, 2, 3, 4, .6},   {3, 3, 17, 2, 2, 2, 1, 1, 1, 2, 9, 6, .7},
    {3, 3, 20, 3, 1, 1, 1, 1, 2, 1, 6, 6, .15},  {3, 3, 24, 1, 1, 1, 3, 1, 1, 1, 11, 10, .5},
    {2, 4, 33, 1, 3, 2, 1, 1, 1, 1, 10, 12, .8}, {3, 3, 8, 1, 1, 1, 1, 0, 1, 1, 2, 5, 1},
    {1, 7, 30, 1, 1, 1, 2, 0, 1, 1, 4, 20, .4},  {1, 1, 64, 1, 3, 3, 1, 0, 1, 1, 16, 16, .5},
};

static Case random_case(void) {
  static const double shares[] = {0, .1, .2, .5, .8, 1};
  const int dilation = random_below(&state, 3) ? 1 : 1 + random_below(&state, 3);
  const int stride = random_below(&state, 2) ? 1 : 1 + random_below(&state, 3);
  return (Case){.kernel_h = 1 + random_below(&state, 5),
                .kernel_w = 1 + random_below(&state, 5),
                .channels = 1 + random_below(&state, 70),
                .multiplier = random_below(&state, 3) ? 1 : 1 + random_below(&state, 3),
                .stride_h = stride,
                .stride_w = random_below(&state, 2) ? stride : 1 + random_below(&state, 3),
                .dilation = dilation,
                .padding = random_below(&state, 2),
                .activation = random_below(&state, 3),
                .batch = 1 + random_below(&state, 2),
                .height = 1 + random_below(&state, 14),
                .width = 1 + random_below(&state, 14),
                .open = shares[random_below(&state, 6)]};
}

static void check_refusals(void) {
  const KeGatedConv2DShape shape = {3, 3, 4, 4, 1, 1, 1, 1, 1, 1, ke_cpu_best_isa()};
  float kernel[36] = {0}, x[4] = {0}, y[4];
  const char *error = NULL;
  KeGatedConv2DShape bad = shape;
  bad.out_channels = 6;
  CHECK(ke_gated_depthwise_conv_2d_create(&bad, kernel, NULL, &error) == NULL && error != NULL, "no multiple");
  bad = shape;
  bad.activation = 3;
  CHECK(ke_gated_depthwise_conv_2d_create(&bad, kernel, NULL, NULL) == NULL, "activation");
  bad = shape;
  bad.kernel_h = bad.kernel_w = INT32_MAX;
  CHECK(ke_gated_depthwise_conv_2d_create(&bad, kernel, NULL, &error) == NULL && error != NULL, "huge kernel");
  KeGatedDepthwiseConv2DPlan *plan = ke_gated_depthwise_conv_2d_create(&shape, kernel, NULL, &error);
  CHECK(plan != NULL, "%s", error);
  if (plan == NULL) return;
  CHECK(ke_gated_depthwise_conv_2d_run(plan, x, x, y, NULL, NULL) == KE_GATED_CONV_2D_NOT_SIZED, "ran without a size");
  CHECK(ke_gated_depthwise_conv_2d_resize(plan, 1, -1, 1, 1) == KE_GATED_CONV_2D_BAD_SIZE, "negative size");
  CHECK(ke_gated_depthwise_conv_2d_resize(plan, INT32_MAX, INT32_MAX, INT32_MAX, 1) == KE_GATED_CONV_2D_BAD_SIZE, "huge");
  CHECK(ke_gated_depthwise_conv_2d_resize(plan, 1, 1, INT32_MAX - 2, 1) != KE_GATED_CONV_2D_OK, "a ring of 100 GB");
  CHECK(ke_gated_depthwise_conv_2d_run(plan, x, x, y, NULL, NULL) == KE_GATED_CONV_2D_NOT_SIZED, "ran without a size");
  CHECK(ke_gated_depthwise_conv_2d_resize(plan, 0, 1, 1, 1) == KE_GATED_CONV_2D_OK, "empty batch");
  CHECK(ke_gated_depthwise_conv_2d_run(plan, x, x, y, NULL, NULL) == KE_GATED_CONV_2D_OK, "empty batch");
  ke_gated_depthwise_conv_2d_destroy(plan);
  ke_gated_depthwise_conv_2d_destroy(NULL);
}

int main(int argc, char **argv) {
  const int random_cases = argc > 1 ? atoi(argv[1]) : 400;
  KeThreadPool *pool = ke_thread_pool_create(2);
  check_refusals();
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) run_case(&table[i], pool);
  for (int i = 0; i < random_cases; i++) {
    const Case c = random_case();
    run_case(&c, pool);
  }
  ke_thread_pool_destroy(pool);
  return finish("gated_depthwise_conv_2d");
}
