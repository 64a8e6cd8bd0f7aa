/* Every path of the gated convolution against a plain double-precision loop, over awkward shapes and seeded random
 * ones.
 *
 * Shut inputs hold NaN, the output stands between canaries, tensors are deliberately unaligned, and the MACs are
 * counted by hand. Returns 0 when everything agrees. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "kernels/gated_conv_2d/internal.h"
#include "thread_pool.h"

enum { CANARIES = 64 };
static const float canary = -12345.5f;
static int failures = 0;
static int cases = 0;
static KeThreadPool *pool;
static uint64_t random_state = 1;

static uint32_t random_bits(void) {
  random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
  return (uint32_t)(random_state >> 33);
}

static int random_below(int bound) { return (int)(random_bits() % (uint32_t)bound); }
static float random_float(void) { return (float)((double)random_bits() / 1073741824.0 - 1.0); }

typedef struct Case {
  int kernel_h, kernel_w, in_channels, out_channels;
  int stride_h, stride_w, dilation_h, dilation_w, padding, activation;
  int batch, height, width;
  double open_in, open_out; /* probability that a channel is open */
} Case;

/* Unaligned on purpose: one float past what malloc gives. */
static float *floats(size_t count) {
  float *p = malloc((count + 1) * sizeof(float));
  if (p == NULL) exit(2);
  return p + 1;
}

static void release(float *p) { free(p - 1); }

static void draw_gates(float *gates, int batch, int channels, double open, int as_mask) {
  for (int i = 0; i < batch * channels; i++) {
    const int is_open = (double)random_bits() / 2147483648.0 < open;
    const float value = as_mask ? 1.0f : random_float() * 1.5f;
    gates[i] = is_open ? (value == 0.0f ? 1.0f : value) : 0.0f;
  }
}

static double activate(double v, int activation) {
  if (activation >= 1 && v < 0) v = 0;
  if (activation == 2 && v > 6) v = 6;
  return v;
}

static int same_padding(int size, int output, int kernel, int stride, int dilation) {
  const int total = (output - 1) * stride + (kernel - 1) * dilation + 1 - size;
  return total > 0 ? total / 2 : 0;
}

static void fail(const Case *c, KeIsa isa, int threads, const char *what, double got, double expected) {
  failures++;
  if (failures > 20) return;
  fprintf(stderr,
          "%s threads %d: %s: got %.9g, expected %.9g (kernel %dx%d, %d->%d, stride %dx%d, dilation %dx%d, padding %d, "
          "activation %d, "
          "batch %d, %dx%d, open %.2f/%.2f)\n",
          ke_isa_name(isa), threads, what, got, expected, c->kernel_h, c->kernel_w, c->in_channels, c->out_channels,
          c->stride_h, c->stride_w, c->dilation_h, c->dilation_w, c->padding, c->activation, c->batch, c->height,
          c->width, c->open_in, c->open_out);
}

typedef struct Tensors {
  float *x, *g_in, *g_out, *kernel, *bias, *y;
  double *expected, *scale; /* scale: sum of the absolute values of the terms, for the tolerance */
  int output_height, output_width;
  size_t y_count;
  uint64_t macs;
} Tensors;

static void reference(const Case *c, Tensors *t) {
  const int pad_top =
      c->padding ? same_padding(c->height, t->output_height, c->kernel_h, c->stride_h, c->dilation_h) : 0;
  const int pad_left =
      c->padding ? same_padding(c->width, t->output_width, c->kernel_w, c->stride_w, c->dilation_w) : 0;
  t->macs = 0;
  for (size_t i = 0; i < t->y_count; i++) {
    const int o = (int)(i % (size_t)c->out_channels);
    const size_t pixel = i / (size_t)c->out_channels;
    const int column = (int)(pixel % (size_t)t->output_width);
    const int row = (int)(pixel / (size_t)t->output_width % (size_t)t->output_height);
    const int b = (int)(pixel / (size_t)t->output_width / (size_t)t->output_height);
    const float gate = t->g_out[b * c->out_channels + o];
    double sum = t->bias[o], scale = fabs(t->bias[o]);
    for (int r = 0; r < c->kernel_h; r++) {
      for (int s = 0; s < c->kernel_w; s++) {
        const int h = row * c->stride_h - pad_top + r * c->dilation_h;
        const int w = column * c->stride_w - pad_left + s * c->dilation_w;
        for (int k = 0; k < c->in_channels; k++) {
          if (t->g_in[b * c->in_channels + k] == 0.0f) continue;
          if (gate != 0.0f) t->macs++;
          if (h < 0 || h >= c->height || w < 0 || w >= c->width) continue;
          const double x = t->x[(((size_t)b * (size_t)c->height + (size_t)h) * (size_t)c->width + (size_t)w) *
                                    (size_t)c->in_channels +
                                (size_t)k];
          const double product = x * t->kernel[((o * c->kernel_h + r) * c->kernel_w + s) * c->in_channels + k];
          sum += product;
          scale += fabs(product);
        }
      }
    }
    t->expected[i] = gate == 0.0f ? 0.0 : gate * activate(sum, c->activation);
    t->scale[i] = 1.0 + scale;
  }
}

/* A pool that runs tasks one after another, last first: any order must do. */
static void run_backwards(void *unused, int tasks, void (*task)(void *argument, int index), void *argument) {
  (void)unused;
  for (int i = tasks - 1; i >= 0; i--) task(argument, i);
}

static void compare(const Case *c, const Tensors *t, KeIsa isa, int threads, uint64_t macs) {
  for (int i = 0; i < CANARIES; i++) {
    if (t->y[i] != canary || t->y[CANARIES + t->y_count + (size_t)i] != canary) {
      fail(c, isa, threads, "wrote outside y", t->y[i], canary);
      return;
    }
  }
  if (macs != t->macs) fail(c, isa, threads, "executed MACs", (double)macs, (double)t->macs);
  for (size_t i = 0; i < t->y_count; i++) {
    const double got = t->y[CANARIES + i];
    const int shut =
        t->g_out[i / (t->y_count / (size_t)c->batch) * (size_t)c->out_channels + i % (size_t)c->out_channels] == 0.0f;
    if (shut ? got != 0.0 : !(fabs(got - t->expected[i]) <= 2e-6 * t->scale[i])) {
      fail(c, isa, threads, shut ? "shut output" : "value", got, t->expected[i]);
      return;
    }
  }
}

static void draw(const Case *c, Tensors *t) {
  const size_t pixels = (size_t)c->batch * (size_t)c->height * (size_t)c->width;
  draw_gates(t->g_in, c->batch, c->in_channels, c->open_in, 0);
  draw_gates(t->g_out, c->batch, c->out_channels, c->open_out, random_below(2));
  for (size_t i = 0; i < pixels * (size_t)c->in_channels; i++) {
    const size_t b = i / ((size_t)c->height * (size_t)c->width * (size_t)c->in_channels);
    t->x[i] = t->g_in[b * (size_t)c->in_channels + i % (size_t)c->in_channels] == 0.0f ? NAN : random_float();
  }
  reference(c, t);
}

/* One plan for every instruction set and for one, two and three threads. */
enum { RUNNERS = 3 * KE_MAX_ISAS };

typedef struct Runner {
  KeIsa isa;
  int threads;
  KeParallel parallel;
  KeGatedConv2DPlan *plan;
} Runner;

static int make_runners(const Case *c, KeGatedConv2DShape *shape, const Tensors *t, Runner *runners) {
  int count = 0;
  KeIsa isas[KE_MAX_ISAS];
  const int isa_count = ke_cpu_isas(isas);
  for (int i = 0; i < isa_count; i++) {
    if (i > 0 && ke_gated_conv_2d_path(isas[i]) == ke_gated_conv_2d_path(isas[i - 1])) continue;
    for (int threads = 1; threads <= 3; threads++) {
      shape->isa = isas[i];
      const char *error;
      Runner r = {shape->isa,
                  threads,
                  {NULL, threads, run_backwards},
                  ke_gated_conv_2d_create(shape, t->kernel, t->bias, &error)};
      if (threads == 2) r.parallel = ke_thread_pool_parallel(pool);
      if (r.plan == NULL) {
        fail(c, r.isa, threads, error, 1, 0);
      } else if (ke_gated_conv_2d_resize(r.plan, c->batch, c->height, c->width, threads) != KE_GATED_CONV_2D_OK) {
        fail(c, r.isa, threads, "resize", 1, 0);
        ke_gated_conv_2d_destroy(r.plan);
      } else {
        runners[count++] = r;
      }
    }
  }
  return count;
}

static void run_case(const Case *c) {
  Tensors t;
  cases++;
  KeGatedConv2DShape shape = {c->kernel_h,   c->kernel_w,   c->in_channels, c->out_channels, c->stride_h,  c->stride_w,
                              c->dilation_h, c->dilation_w, c->padding,     c->activation,   KE_ISA_SCALAR};
  if (ke_gated_conv_2d_output_size(&shape, c->height, c->width, &t.output_height, &t.output_width) !=
      KE_GATED_CONV_2D_OK) {
    fail(c, KE_ISA_SCALAR, 1, "output size", 1, 0);
    return;
  }
  const size_t weights = (size_t)c->out_channels * (size_t)c->kernel_h * (size_t)c->kernel_w * (size_t)c->in_channels;
  t.y_count = (size_t)c->batch * (size_t)t.output_height * (size_t)t.output_width * (size_t)c->out_channels;
  t.x = floats((size_t)c->batch * (size_t)c->height * (size_t)c->width * (size_t)c->in_channels);
  t.g_in = floats((size_t)c->batch * (size_t)c->in_channels);
  t.g_out = floats((size_t)c->batch * (size_t)c->out_channels);
  t.kernel = floats(weights);
  t.bias = floats((size_t)c->out_channels);
  t.y = floats(t.y_count + 2 * CANARIES);
  t.expected = calloc(t.y_count + 1, sizeof(double));
  t.scale = calloc(t.y_count + 1, sizeof(double));
  for (size_t i = 0; i < weights; i++) t.kernel[i] = random_float();
  for (int i = 0; i < c->out_channels; i++) t.bias[i] = random_float();

  Runner runners[RUNNERS];
  const int count = make_runners(c, &shape, &t, runners);
  /* Several draws on one plan: what one call leaves behind must not show in the next. */
  for (int repeat = 0; repeat < 3; repeat++) {
    if (repeat != 1) draw(c, &t); /* the second call repeats the gates of the first */
    for (int i = 0; i < count; i++) {
      const Runner *r = &runners[i];
      for (size_t k = 0; k < t.y_count + 2 * CANARIES; k++) t.y[k] = canary;
      uint64_t macs = 0;
      if (ke_gated_conv_2d_run(r->plan, t.x, t.g_in, t.g_out, t.y + CANARIES, r->threads == 1 ? NULL : &r->parallel,
                               &macs) != KE_GATED_CONV_2D_OK) {
        fail(c, r->isa, r->threads, "run", 1, 0);
      }
      compare(c, &t, r->isa, r->threads, macs);
    }
  }
  for (int i = 0; i < count; i++) ke_gated_conv_2d_destroy(runners[i].plan);
  release(t.x);
  release(t.g_in);
  release(t.g_out);
  release(t.kernel);
  release(t.bias);
  release(t.y);
  free(t.expected);
  free(t.scale);
}

static const Case table[] = {
    /* kernel, channels, stride, dilation, padding, activation, batch, size, open */
    {1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1},         {3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {3, 3, 16, 16, 1, 1, 1, 1, 1, 1, 1, 8, 8, 1, 1},       {3, 3, 16, 16, 1, 1, 1, 1, 1, 1, 1, 8, 8, .5, .5},
    {3, 3, 16, 16, 1, 1, 1, 1, 1, 1, 2, 32, 32, .5, .4},   {3, 3, 32, 32, 1, 1, 1, 1, 1, 1, 1, 16, 16, .5, .5},
    {3, 3, 64, 64, 1, 1, 1, 1, 1, 1, 1, 8, 8, .5, .5},     {3, 3, 64, 64, 1, 1, 1, 1, 1, 1, 1, 8, 8, 1, 1},
    {3, 3, 64, 64, 1, 1, 1, 1, 1, 1, 1, 8, 8, 1, .1},      {3, 3, 64, 64, 1, 1, 1, 1, 1, 1, 1, 8, 8, .1, 1},
    {3, 3, 64, 64, 1, 1, 1, 1, 1, 1, 2, 8, 8, 0, .5},      {3, 3, 64, 64, 1, 1, 1, 1, 1, 1, 2, 8, 8, .5, 0},
    {3, 3, 24, 72, 1, 1, 1, 1, 1, 2, 1, 7, 7, .5, .6},     {3, 3, 5, 7, 1, 1, 1, 1, 1, 2, 3, 5, 6, .7, .7},
    {3, 3, 1, 16, 1, 1, 1, 1, 1, 1, 1, 8, 8, 1, .5},       {3, 3, 3, 10, 1, 1, 1, 1, 0, 1, 1, 28, 28, 1, .5},
    {1, 1, 64, 64, 1, 1, 1, 1, 0, 1, 1, 14, 14, .5, .5},   {1, 1, 17, 33, 1, 1, 1, 1, 1, 0, 2, 9, 5, .5, .5},
    {1, 1, 40, 20, 2, 2, 1, 1, 1, 1, 1, 9, 9, .5, .5},     {1, 1, 64, 10, 1, 1, 1, 1, 0, 0, 1, 1, 1, .5, 1},
    {3, 3, 16, 32, 2, 2, 1, 1, 1, 1, 1, 8, 8, .5, .5},     {3, 3, 16, 32, 2, 2, 1, 1, 1, 1, 1, 9, 7, .5, .5},
    {5, 5, 6, 16, 1, 1, 1, 1, 0, 1, 1, 12, 12, 1, 1},      {7, 7, 3, 64, 2, 2, 1, 1, 1, 1, 1, 32, 32, 1, .5},
    {3, 3, 16, 16, 1, 1, 2, 2, 1, 1, 1, 10, 11, .5, .5},   {3, 3, 16, 16, 1, 1, 2, 3, 0, 1, 1, 10, 11, .5, .5},
    {1, 7, 8, 12, 1, 1, 1, 1, 1, 1, 1, 6, 30, .6, .6},     {7, 1, 8, 12, 1, 3, 1, 1, 1, 1, 1, 30, 6, .6, .6},
    {2, 2, 9, 9, 3, 2, 1, 1, 1, 1, 1, 7, 8, .6, .6},       {4, 4, 9, 9, 5, 5, 1, 1, 1, 1, 1, 17, 18, .6, .6},
    {3, 3, 8, 8, 1, 1, 1, 1, 0, 1, 1, 3, 3, .6, .6},       {3, 3, 8, 8, 1, 1, 1, 1, 0, 1, 1, 2, 5, 1, 1},
    {9, 9, 4, 20, 1, 1, 1, 1, 1, 1, 1, 3, 4, 1, 1},        {3, 3, 16, 40, 1, 1, 4, 4, 1, 1, 1, 3, 3, 1, .6},
    {3, 3, 128, 128, 1, 1, 1, 1, 1, 1, 1, 14, 14, .5, .5}, {3, 3, 256, 256, 1, 1, 1, 1, 1, 1, 1, 5, 7, .5, .5},
    {3, 3, 256, 256, 1, 1, 1, 1, 1, 1, 1, 4, 4, 1, 1},     {3, 3, 256, 512, 1, 1, 1, 1, 1, 1, 1, 4, 3, .9, .1},
    {1, 1, 512, 300, 1, 1, 1, 1, 1, 1, 1, 4, 4, .9, .1},   {3, 3, 16, 8, 1, 1, 1, 1, 1, 1, 2, 1, 40, .5, .5},
    {3, 3, 32, 48, 1, 1, 1, 1, 1, 1, 1, 24, 24, .8, .8},   {3, 3, 64, 40, 1, 1, 1, 1, 1, 1, 2, 49, 40, .5, .15},
    {3, 3, 40, 40, 2, 2, 2, 1, 1, 1, 1, 50, 41, .9, .7},   {1, 1, 64, 96, 1, 1, 1, 1, 1, 2, 1, 40, 33, .9, .6},
    {5, 3, 48, 300, 1, 2, 1, 1, 1, 1, 1, 15, 30, .5, .4},  {3, 3, 16, 16, 3, 3, 1, 1, 0, 1, 1, 70, 70, .6, .4},
    {3, 3, 33, 100, 1, 1, 1, 1, 1, 1, 2, 40, 1, .5, .5},   {3, 3, 16, 200, 1, 1, 1, 1, 1, 1, 1, 6, 6, .5, .03},
};

static Case random_case(void) {
  Case c;
  const int square = random_below(3) != 0;
  c.kernel_h = 1 + random_below(5);
  c.kernel_w = square ? c.kernel_h : 1 + random_below(5);
  c.in_channels = 1 + random_below(random_below(4) == 0 ? 130 : 40);
  c.out_channels = 1 + random_below(random_below(4) == 0 ? 130 : 50);
  c.stride_h = random_below(2) ? 1 : 1 + random_below(3);
  c.stride_w = random_below(2) ? c.stride_h : 1 + random_below(3);
  c.dilation_h = random_below(3) ? 1 : 1 + random_below(3);
  c.dilation_w = random_below(2) ? c.dilation_h : 1 + random_below(3);
  c.padding = random_below(2);
  c.activation = random_below(3);
  c.batch = 1 + random_below(3);
  c.height = 1 + random_below(random_below(3) == 0 ? 33 : 12);
  c.width = 1 + random_below(random_below(3) == 0 ? 33 : 12);
  static const double shares[] = {0, .1, .3, .5, .5, .8, 1, 1};
  c.open_in = shares[random_below(8)];
  c.open_out = shares[random_below(8)];
  return c;
}

static void check_refusals(void) {
  KeGatedConv2DShape shape = {3, 3, 4, 4, 1, 1, 1, 1, 1, 1, ke_cpu_best_isa()};
  float kernel[144] = {0}, bias[4] = {0}, x[4] = {0}, y[4];
  const char *error = NULL;
  KeGatedConv2DShape bad = shape;
  bad.activation = 3;
  if (ke_gated_conv_2d_create(&bad, kernel, bias, &error) != NULL || error == NULL) failures++;
  bad = shape;
  bad.kernel_w = 0;
  if (ke_gated_conv_2d_create(&bad, kernel, bias, NULL) != NULL) failures++;
  bad = shape;
  bad.in_channels = bad.out_channels = INT32_MAX - 100;
  bad.kernel_h = bad.kernel_w = INT32_MAX;
  if (ke_gated_conv_2d_create(&bad, kernel, bias, &error) != NULL || error == NULL) failures++;
  KeGatedConv2DPlan *plan = ke_gated_conv_2d_create(&shape, kernel, NULL, &error);
  if (plan == NULL) {
    failures++;
    return;
  }
  if (ke_gated_conv_2d_run(plan, x, x, x, y, NULL, NULL) != KE_GATED_CONV_2D_NOT_SIZED) failures++;
  if (ke_gated_conv_2d_resize(plan, 1, -1, 1, 1) != KE_GATED_CONV_2D_BAD_SIZE) failures++;
  if (ke_gated_conv_2d_resize(plan, INT32_MAX, INT32_MAX, INT32_MAX, 1) != KE_GATED_CONV_2D_BAD_SIZE) failures++;
  if (ke_gated_conv_2d_run(plan, x, x, x, y, NULL, NULL) != KE_GATED_CONV_2D_NOT_SIZED) failures++;
  if (ke_gated_conv_2d_resize(plan, 0, 1, 1, 1) != KE_GATED_CONV_2D_OK) failures++;
  if (ke_gated_conv_2d_run(plan, x, x, x, y, NULL, NULL) != KE_GATED_CONV_2D_OK) failures++;
  ke_gated_conv_2d_destroy(plan);
  ke_gated_conv_2d_destroy(NULL);
}

int main(int argc, char **argv) {
  const int random_cases = argc > 1 ? atoi(argv[1]) : 400;
  pool = ke_thread_pool_create(2);
  check_refusals();
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) run_case(&table[i]);
  random_state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  for (int i = 0; i < random_cases; i++) {
    const Case c = random_case();
    run_case(&c);
  }
  ke_thread_pool_destroy(pool);
  printf("gated_conv_2d: %d cases, %d failures, best path %s\n", cases, failures, ke_isa_name(ke_cpu_best_isa()));
  return failures == 0 ? 0 : 1;
}
