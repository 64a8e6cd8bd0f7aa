/* Every path of the int8 gated convolution against plain 64-bit loops, bit for bit, over awkward shapes and seeded random
 * ones.
 *
 * Shut inputs hold noise that must not show, the output stands between canaries, tensors are deliberately unaligned, the
 * MACs are counted by hand, and one plan sees several draws of the gates. Returns 0 when everything agrees. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checks.h"
#include "cpu.h"
#include "kernels/gated_conv_2d_int8/internal.h"
#include "thread_pool.h"

enum { CANARIES = 64, CANARY = 0x5a, RUNNERS = 3 * KE_MAX_ISAS, DRAWS = 3 };

static int cases = 0;
static KeThreadPool *pool;
static uint64_t state = 1;

typedef struct Case {
  int kernel_h, kernel_w, in_channels, out_channels;
  int stride_h, stride_w, dilation_h, dilation_w, padding, activation;
  int batch, height, width;
  double open_in, open_out; /* probability that a channel is open */
} Case;

typedef struct Tensors {
  int8_t *x, *kernel, *y, *expected;
  float *g_in, *g_out, *kernel_scale;
  int32_t *bias;
  int output_height, output_width;
  size_t y_count;
  uint64_t macs;
} Tensors;

typedef struct Runner {
  KeIsa isa;
  int threads;
  KeParallel parallel;
  KeGatedConv2DInt8Plan *plan;
} Runner;

static double uniform(void) { return (double)random_bits(&state) / 2147483648.0; }

static void *room(size_t bytes) {
  void *p = malloc(bytes == 0 ? 1 : bytes);
  if (p == NULL) exit(2);
  return p;
}

static int8_t random_int8(void) { return (int8_t)(random_below(&state, 256) - 128); }

static void draw_gates(float *gates, int count, double open) {
  const int as_mask = random_below(&state, 2);
  for (int i = 0; i < count; i++) {
    const float value = as_mask ? 1.0f : random_float(&state) * 1.5f;
    gates[i] = uniform() < open ? (value == 0.0f ? 1.0f : value) : 0.0f;
  }
}

static int padding_before(int size, int output, int kernel, int stride, int dilation) {
  const int total = (output - 1) * stride + (kernel - 1) * dilation + 1 - size;
  return total > 0 ? total / 2 : 0;
}

static int64_t accumulate(const Case *c, const KeGatedConv2DInt8Shape *shape, const Tensors *t, int b, int top, int left,
                          int o) {
  int64_t sum = t->bias[o];
  for (int r = 0; r < c->kernel_h; r++) {
    for (int s = 0; s < c->kernel_w; s++) {
      const int h = top + r * c->dilation_h, w = left + s * c->dilation_w;
      if (h < 0 || h >= c->height || w < 0 || w >= c->width) continue;
      for (int k = 0; k < c->in_channels; k++) {
        if (t->g_in[b * c->in_channels + k] == 0.0f) continue;
        const size_t at = (((size_t)b * (size_t)c->height + (size_t)h) * (size_t)c->width + (size_t)w) *
                              (size_t)c->in_channels + (size_t)k;
        sum += (t->x[at] - shape->input_zero_point) * t->kernel[((o * c->kernel_h + r) * c->kernel_w + s) * c->in_channels + k];
      }
    }
  }
  return sum;
}

static int8_t requantize(const Case *c, const KeGatedConv2DInt8Shape *shape, const Tensors *t, int64_t sum, int o,
                         float gate) {
  const float step = shape->input_scale * t->kernel_scale[o];
  if (c->activation >= 1 && sum < 0) sum = 0;
  if (c->activation == 2 && (double)sum > rint((double)(6.0f / step))) sum = (int64_t)rint((double)(6.0f / step));
  const float multiplier = step / shape->output_scale;
  const float scale = multiplier * gate;
  const float value = (float)sum * scale;
  const double rounded = rint((double)value) + shape->output_zero_point;
  return (int8_t)(rounded < -128 ? -128 : rounded > 127 ? 127 : rounded);
}

static void reference(const Case *c, const KeGatedConv2DInt8Shape *shape, Tensors *t) {
  const int pad_top = c->padding ? padding_before(c->height, t->output_height, c->kernel_h, c->stride_h, c->dilation_h) : 0;
  const int pad_left = c->padding ? padding_before(c->width, t->output_width, c->kernel_w, c->stride_w, c->dilation_w) : 0;
  t->macs = 0;
  for (int b = 0; b < c->batch; b++) {
    uint64_t in = 0, out = 0;
    for (int k = 0; k < c->in_channels; k++) in += t->g_in[b * c->in_channels + k] != 0.0f;
    for (int o = 0; o < c->out_channels; o++) out += t->g_out[b * c->out_channels + o] != 0.0f;
    t->macs += in * out * (uint64_t)(t->output_height * t->output_width * c->kernel_h * c->kernel_w);
  }
  for (size_t i = 0; i < t->y_count; i++) {
    const int o = (int)(i % (size_t)c->out_channels);
    const size_t pixel = i / (size_t)c->out_channels;
    const int column = (int)(pixel % (size_t)t->output_width);
    const int row = (int)(pixel / (size_t)t->output_width % (size_t)t->output_height);
    const int b = (int)(pixel / (size_t)t->output_width / (size_t)t->output_height);
    const float gate = t->g_out[b * c->out_channels + o];
    const int64_t sum =
        gate == 0.0f ? 0 : accumulate(c, shape, t, b, row * c->stride_h - pad_top, column * c->stride_w - pad_left, o);
    t->expected[i] = gate == 0.0f ? (int8_t)shape->output_zero_point : requantize(c, shape, t, sum, o, gate);
  }
}

/* A pool that runs tasks one after another, last first: any order must do. */
static void run_backwards(void *unused, int tasks, void (*task)(void *argument, int index), void *argument) {
  (void)unused;
  for (int i = tasks - 1; i >= 0; i--) task(argument, i);
}

static void compare(const Case *c, const Tensors *t, const Runner *r, uint64_t macs) {
  char where[256];
  snprintf(where, sizeof(where),
           "%s, %d threads: kernel %dx%d, %d->%d, stride %dx%d, dilation %dx%d, padding %d, activation %d, batch %d, "
           "%dx%d, open %.2f/%.2f",
           ke_isa_name(r->isa), r->threads, c->kernel_h, c->kernel_w, c->in_channels, c->out_channels, c->stride_h,
           c->stride_w, c->dilation_h, c->dilation_w, c->padding, c->activation, c->batch, c->height, c->width,
           c->open_in, c->open_out);
  size_t spoiled = 0, wrong = t->y_count;
  for (size_t i = 0; i < CANARIES; i++) spoiled += t->y[i] != CANARY || t->y[CANARIES + t->y_count + i] != CANARY;
  for (size_t i = t->y_count; i > 0; i--) wrong = t->y[CANARIES + i - 1] != t->expected[i - 1] ? i - 1 : wrong;
  CHECK(spoiled == 0, "%s", where);
  CHECK(macs == t->macs, "%llu, not %llu; %s", (unsigned long long)macs, (unsigned long long)t->macs, where);
  CHECK(wrong == t->y_count, "y[%zu] is %d, not %d; %s", wrong, t->y[CANARIES + wrong], t->expected[wrong], where);
}

static int make_runners(const Case *c, KeGatedConv2DInt8Shape shape, const Tensors *t, Runner *runners) {
  KeIsa isas[KE_MAX_ISAS];
  const int isa_count = ke_cpu_isas(isas);
  int count = 0;
  for (int i = 0; i < isa_count; i++) {
    if (i > 0 && ke_gated_conv_2d_int8_path(isas[i]) == ke_gated_conv_2d_int8_path(isas[i - 1])) continue;
    for (int threads = 1; threads <= 3; threads++) {
      shape.conv.isa = isas[i];
      const char *error = NULL;
      Runner r = {isas[i], threads, {NULL, threads, run_backwards}, NULL};
      if (threads == 2) r.parallel = ke_thread_pool_parallel(pool);
      r.plan = ke_gated_conv_2d_int8_create(&shape, t->kernel, t->kernel_scale, t->bias, &error);
      CHECK(r.plan != NULL && error == NULL, "%s", error == NULL ? "" : error);
      CHECK(ke_gated_conv_2d_int8_resize(r.plan, c->batch, c->height, c->width, threads) == KE_GATED_CONV_2D_OK, "resize");
      runners[count++] = r;
    }
  }
  return count;
}

static void run_case(const Case *c, int wild) {
  KeGatedConv2DInt8Shape shape = {
      .conv = {c->kernel_h, c->kernel_w, c->in_channels, c->out_channels, c->stride_h, c->stride_w, c->dilation_h,
               c->dilation_w, c->padding, c->activation, KE_ISA_SCALAR},
      .input_scale = 0.01f + 0.05f * (float)uniform(),
      .output_scale = 0.01f + 0.05f * (float)uniform(),
      .input_zero_point = random_int8(),
      .output_zero_point = random_int8(),
  };
  if (ke_gated_conv_2d_check(&shape.conv) != NULL) return;
  Tensors t;
  if (ke_gated_conv_2d_output_size(&shape.conv, c->height, c->width, &t.output_height, &t.output_width) != 0) return;
  cases++;
  const size_t x_count = (size_t)c->batch * (size_t)c->height * (size_t)c->width * (size_t)c->in_channels;
  const size_t weights = (size_t)c->out_channels * (size_t)c->kernel_h * (size_t)c->kernel_w * (size_t)c->in_channels;
  t.y_count = (size_t)c->batch * (size_t)t.output_height * (size_t)t.output_width * (size_t)c->out_channels;
  int8_t *x_room = room(x_count + 1);
  t.x = x_room + 1; /* unaligned */
  t.kernel = room(weights);
  t.kernel_scale = room((size_t)c->out_channels * sizeof(float));
  t.bias = room((size_t)c->out_channels * sizeof(int32_t));
  t.g_in = room((size_t)(c->batch * c->in_channels) * sizeof(float));
  t.g_out = room((size_t)(c->batch * c->out_channels) * sizeof(float));
  t.y = room(t.y_count + 2 * CANARIES);
  t.expected = room(t.y_count + 1);
  for (size_t i = 0; i < weights; i++) t.kernel[i] = random_int8();
  for (int o = 0; o < c->out_channels; o++) {
    t.kernel_scale[o] = (wild ? 1e9f : 0.02f) * (0.1f + (float)uniform()) / (float)(c->kernel_h * c->kernel_w);
    t.bias[o] = random_below(&state, 20000) - 10000;
  }
  Runner runners[RUNNERS];
  const int count = make_runners(c, shape, &t, runners);
  for (int draw = 0; draw < DRAWS; draw++) {
    if (draw != 1) { /* the second draw finds the same channels open, but not the same gates */
      draw_gates(t.g_in, c->batch * c->in_channels, c->open_in);
      draw_gates(t.g_out, c->batch * c->out_channels, c->open_out);
    } else {
      for (int i = 0; i < c->batch * c->out_channels; i++) t.g_out[i] *= 0.75f;
    }
    for (size_t i = 0; i < x_count; i++) t.x[i] = random_int8();
    reference(c, &shape, &t);
    for (int i = 0; i < count; i++) {
      uint64_t macs = 0;
      memset(t.y, CANARY, t.y_count + 2 * CANARIES);
      CHECK(ke_gated_conv_2d_int8_run(runners[i].plan, t.x, t.g_in, t.g_out, t.y + CANARIES, &runners[i].parallel,
                                      &macs) == KE_GATED_CONV_2D_OK, "run");
      compare(c, &t, &runners[i], macs);
    }
  }
  for (int i = 0; i < count; i++) ke_gated_conv_2d_int8_destroy(runners[i].plan);
  free(x_room);
  free(t.kernel);
  free(t.kernel_scale);
  free(t.bias);
  free(t.g_in);
  free(t.g_out);
  free(t.y);
  free(t.expected);
}

static const Case table[] = {
    /* kernel, channels, stride, dilation, padding, activation, batch, size, open */
    {1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1},         {3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {3, 3, 16, 16, 1, 1, 1, 1, 1, 1, 1, 8, 8, 1, 1},       {3, 3, 16, 16, 1, 1, 1, 1, 1, 2, 2, 32, 32, .5, .4},
    {3, 3, 32, 32, 1, 1, 1, 1, 1, 1, 1, 16, 16, .5, .5},   {3, 3, 64, 64, 1, 1, 1, 1, 1, 1, 1, 8, 8, .5, .5},
    {3, 3, 64, 64, 1, 1, 1, 1, 1, 1, 1, 8, 8, 1, 1},       {3, 3, 64, 64, 1, 1, 1, 1, 1, 0, 2, 8, 8, 0, .5},
    {3, 3, 64, 64, 1, 1, 1, 1, 1, 1, 2, 8, 8, .5, 0},      {3, 3, 24, 72, 1, 1, 1, 1, 1, 2, 1, 7, 7, .5, .6},
    {3, 3, 3, 10, 1, 1, 1, 1, 0, 1, 1, 28, 28, 1, .5},     {1, 1, 64, 64, 1, 1, 1, 1, 0, 1, 1, 14, 14, .5, .5},
    {1, 1, 17, 33, 1, 1, 1, 1, 1, 0, 2, 9, 5, .5, .5},     {1, 1, 40, 20, 2, 2, 1, 1, 1, 1, 1, 9, 9, .5, .5},
    {1, 1, 40, 20, 2, 3, 1, 1, 0, 1, 1, 10, 9, .5, .5},    {3, 3, 16, 32, 2, 2, 1, 1, 1, 1, 1, 9, 7, .5, .5},
    {7, 7, 3, 64, 2, 2, 1, 1, 1, 1, 1, 32, 32, 1, .5},     {3, 3, 16, 16, 1, 1, 2, 2, 1, 1, 1, 10, 11, .5, .5},
    {3, 3, 16, 16, 1, 1, 2, 3, 0, 1, 1, 10, 11, .5, .5},   {1, 7, 8, 12, 1, 1, 1, 1, 1, 1, 1, 6, 30, .6, .6},
    {7, 1, 8, 12, 1, 3, 1, 1, 1, 1, 1, 30, 6, .6, .6},     {2, 2, 9, 9, 3, 2, 1, 1, 1, 1, 1, 7, 8, .6, .6},
    {9, 9, 4, 20, 1, 1, 1, 1, 1, 1, 1, 3, 4, 1, 1},        {3, 3, 16, 40, 1, 1, 4, 4, 1, 1, 1, 3, 3, 1, .6},
    {3, 3, 128, 128, 1, 1, 1, 1, 1, 1, 1, 14, 14, .5, .5}, {3, 3, 256, 256, 1, 1, 1, 1, 1, 1, 1, 5, 7, .5, .5},
    {3, 3, 256, 300, 1, 1, 1, 1, 1, 1, 1, 4, 3, .9, .9},   {1, 1, 512, 300, 1, 1, 1, 1, 1, 1, 1, 4, 4, .9, .1},
    {3, 3, 64, 40, 1, 1, 1, 1, 1, 1, 1, 49, 20, .5, .15},  {1, 1, 64, 96, 1, 1, 1, 1, 1, 2, 1, 40, 33, .9, .6},
    {3, 3, 16, 16, 3, 3, 1, 1, 0, 1, 1, 70, 70, .6, .4},   {3, 3, 130, 130, 1, 1, 1, 1, 1, 1, 2, 6, 6, .9, .9},
    /* Few channels on both sides. */
    {3, 3, 32, 32, 1, 1, 1, 1, 1, 2, 1, 9, 17, .9, .9},    {3, 3, 17, 29, 2, 2, 1, 1, 1, 1, 2, 12, 19, .7, .7},
    {3, 3, 32, 31, 2, 2, 1, 1, 0, 0, 1, 33, 32, 1, 1},     {5, 5, 16, 16, 2, 2, 1, 1, 1, 1, 1, 15, 16, .6, .8},
    {3, 5, 20, 24, 1, 1, 2, 3, 1, 2, 1, 11, 14, .6, .8},   {3, 3, 31, 1, 1, 2, 1, 1, 1, 1, 1, 6, 21, .9, 1},
    {8, 8, 32, 32, 1, 1, 1, 1, 1, 1, 1, 10, 10, .9, .9},   {3, 3, 32, 33, 1, 1, 1, 1, 1, 1, 1, 6, 6, 1, 1},
    {1, 3, 5, 32, 1, 2, 1, 1, 1, 1, 1, 3, 70, 1, 1},       {3, 3, 32, 32, 1, 1, 1, 1, 1, 1, 1, 2, 300, 1, 1},
    {3, 3, 64, 64, 1, 1, 1, 1, 1, 1, 1, 22, 20, .9, .9},   {3, 3, 64, 64, 1, 1, 1, 1, 1, 1, 1, 24, 56, .5, .4},
};

static Case random_case(void) {
  Case c;
  const int square = random_below(&state, 3) != 0;
  c.kernel_h = 1 + random_below(&state, 5);
  c.kernel_w = square ? c.kernel_h : 1 + random_below(&state, 5);
  c.in_channels = 1 + random_below(&state, random_below(&state, 4) == 0 ? 150 : 40);
  c.out_channels = 1 + random_below(&state, random_below(&state, 4) == 0 ? 150 : 50);
  c.stride_h = random_below(&state, 2) ? 1 : 1 + random_below(&state, 3);
  c.stride_w = random_below(&state, 2) ? c.stride_h : 1 + random_below(&state, 3);
  c.dilation_h = random_below(&state, 3) ? 1 : 1 + random_below(&state, 3);
  c.dilation_w = random_below(&state, 2) ? c.dilation_h : 1 + random_below(&state, 3);
  c.padding = random_below(&state, 2);
  c.activation = random_below(&state, 3);
  c.batch = 1 + random_below(&state, 3);
  c.height = 1 + random_below(&state, random_below(&state, 3) == 0 ? 33 : 12);
  c.width = 1 + random_below(&state, random_below(&state, 3) == 0 ? 33 : 12);
  static const double shares[] = {0, .1, .3, .5, .5, .8, 1, 1};
  c.open_in = shares[random_below(&state, 8)];
  c.open_out = shares[random_below(&state, 8)];
  return c;
}

static void check_refusals(void) {
  KeGatedConv2DInt8Shape shape = {
      .conv = {3, 3, 4, 4, 1, 1, 1, 1, 1, 1, ke_cpu_best_isa()}, .input_scale = 1, .output_scale = 1};
  int8_t kernel[144] = {0}, x[4] = {0}, y[4];
  float scale[4] = {1, 1, 1, 1}, gates[4] = {0};
  const char *error = NULL;
  KeGatedConv2DInt8Shape bad = shape;
  bad.conv.activation = 3;
  CHECK(ke_gated_conv_2d_int8_create(&bad, kernel, scale, NULL, &error) == NULL && error != NULL, "activation");
  bad = shape;
  bad.output_scale = NAN;
  CHECK(ke_gated_conv_2d_int8_create(&bad, kernel, scale, NULL, NULL) == NULL, "output_scale");
  bad = shape;
  bad.input_zero_point = 128;
  CHECK(ke_gated_conv_2d_int8_create(&bad, kernel, scale, NULL, NULL) == NULL, "input_zero_point");
  bad = shape;
  bad.conv.in_channels = bad.conv.out_channels = INT32_MAX - 100;
  bad.conv.kernel_h = bad.conv.kernel_w = INT32_MAX;
  CHECK(ke_gated_conv_2d_int8_create(&bad, kernel, scale, NULL, &error) == NULL && error != NULL, "sizes");
  KeGatedConv2DInt8Plan *plan = ke_gated_conv_2d_int8_create(&shape, kernel, scale, NULL, &error);
  CHECK(plan != NULL, "%s", error);
  if (plan == NULL) return;
  CHECK(ke_gated_conv_2d_int8_run(plan, x, gates, gates, y, NULL, NULL) == KE_GATED_CONV_2D_NOT_SIZED, "not sized");
  CHECK(ke_gated_conv_2d_int8_resize(plan, 1, -1, 1, 1) == KE_GATED_CONV_2D_BAD_SIZE, "height");
  CHECK(ke_gated_conv_2d_int8_resize(plan, INT32_MAX, INT32_MAX, INT32_MAX, 1) == KE_GATED_CONV_2D_BAD_SIZE, "sizes");
  CHECK(ke_gated_conv_2d_int8_run(plan, x, gates, gates, y, NULL, NULL) == KE_GATED_CONV_2D_NOT_SIZED, "not sized");
  CHECK(ke_gated_conv_2d_int8_resize(plan, 0, 1, 1, 1) == KE_GATED_CONV_2D_OK, "no batch");
  CHECK(ke_gated_conv_2d_int8_run(plan, x, gates, gates, y, NULL, NULL) == KE_GATED_CONV_2D_OK, "no batch");
  ke_gated_conv_2d_int8_destroy(plan);
  ke_gated_conv_2d_int8_destroy(NULL);
}

int main(int argc, char **argv) {
  const int random_cases = argc > 1 ? atoi(argv[1]) : 300;
  pool = ke_thread_pool_create(2);
  check_refusals();
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) run_case(&table[i], 0);
  state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  for (int i = 0; i < random_cases; i++) {
    const Case c = random_case();
    run_case(&c, i % 16 == 15);
  }
  ke_thread_pool_destroy(pool);
  printf("%d cases, best path %s\n", cases, ke_isa_name(ke_cpu_best_isa()));
  return finish("gated_conv_2d_int8");
}
