/* The multi-bit convolution: every path against its scalar twin, byte by byte, and against a plain double-precision loop
 * within the bound of its family, over random awkward shapes: groups that are no multiple of 64, three input channels,
 * strides, dilation, every mix of bit-widths, none at all.
 *
 *     test_multi_bit_conv_2d_kernel [cases] */
#include <math.h>

#include "kernels/multi_bit_conv_2d/internal.h"
#include "packed_weights.h"
#include "thread_pool.h"

static uint64_t state = 5;

static int below(int bound) { return random_below(&state, bound); }

typedef struct Case {
  KeMultiBitConv2DShape shape;
  int batch, height, width;
  float levels[4];
  TestWeights weights;
  float *bias;
  uint8_t *x; /* float32 or int8, as y */
  size_t x_elements;
  uint8_t *y_of[3]; /* by family, of the first instruction set that computed it so */
} Case;

static Case make_case(void) {
  static const int channel_choices[] = {1, 3, 16, 20, 32, 33, 64, 80, 96};
  Case c = {0};
  const int order = below(4) == 0, most_taps = order ? 5 : 3; /* kernelwise groups of up to 25 weights */
  const int taps_h = 1 + below(most_taps), taps_w = 1 + below(most_taps), channels = channel_choices[below(9)];
  const int outputs = 1 + below(below(3) == 0 ? 140 : 40), length = taps_h * taps_w * channels, dilated = below(2);
  const int groups[] = {length, channels, channels % 32 == 0 ? 32 : channels, 1 + below(length)};
  c.shape = (KeMultiBitConv2DShape){
      .conv = {.kernel_h = taps_h, .kernel_w = taps_w, .in_channels = channels, .out_channels = outputs,
               .stride_h = dilated ? 1 : 1 + below(2), .stride_w = dilated ? 1 : 1 + below(2),
               .dilation_h = dilated ? 1 + below(2) : 1, .dilation_w = dilated ? 1 + below(2) : 1,
               .padding = below(2), .activation = below(3)},
      .order = order, .group_size = order ? taps_h * taps_w : groups[below(4)], .bases = below(4), .activation_bits = below(4),
      .is_int8 = below(2), .input_scale = 0.02f, .output_scale = 0.05f, .input_zero_point = below(100) - 50,
      .output_zero_point = below(100) - 50};
  c.batch = 1 + below(2);
  c.height = 1 + below(9);
  c.width = 1 + below(9);
  for (int j = 0; j < 4; j++) c.levels[j] = j == 0 ? 0.2f * random_float(&state) : 0.2f * (float)(1 << j) + 0.05f * random_float(&state);
  c.weights = make_weights(&state, outputs, length, c.shape.group_size, c.shape.bases, below(3) == 0);
  c.bias = exactly((size_t)outputs * sizeof(float));
  for (int o = 0; o < outputs; o++) c.bias[o] = random_float(&state);
  c.x_elements = (size_t)(c.batch * c.height * c.width * channels);
  c.x = exactly(c.x_elements * (c.shape.is_int8 ? 1 : sizeof(float)));
  for (size_t i = 0; i < c.x_elements; i++) {
    if (c.shape.is_int8) {
      c.x[i] = (uint8_t)random_bits(&state);
    } else {
      ((float *)(void *)c.x)[i] = 2.0f * random_float(&state);
    }
  }
  return c;
}

static void free_case(Case *c) {
  free_weights(&c->weights);
  free(c->bias);
  free(c->x);
  for (int family = 0; family < 3; family++) free(c->y_of[family]);
}

static double real_input(const Case *c, size_t i) {
  if (!c->shape.is_int8) return ((const float *)(const void *)c->x)[i];
  return (double)c->shape.input_scale * ((int8_t)c->x[i] - c->shape.input_zero_point);
}

/* x^: the nearest level, or x. */
static double quantized(const Case *c, double x) {
  const int bits = c->shape.activation_bits;
  if (bits == 0) return x;
  double best = INFINITY;
  for (int code = 0; code < 1 << bits; code++) {
    double level = c->levels[0];
    for (int j = 0; j < bits; j++) level += code >> j & 1 ? (double)c->levels[1 + j] : -(double)c->levels[1 + j];
    if (fabs(x - level) < fabs(x - best)) best = level;
  }
  return best;
}

typedef struct Expected {
  double value, bound;
} Expected;

/* One output before rounding to int8, and how far its family may be off. */
static Expected expect(const Case *c, const KeMultiBitConv2DPlan *plan, int max_bits, int b, int row, int column, int o) {
  const KeGatedConv2DShape *conv = &c->shape.conv;
  double sum = c->bias[o], inputs = 0.0, product = 0.0, largest_scale = 0.0, rows = 0.0;
  for (int tap = 0; tap < conv->kernel_h * conv->kernel_w; tap++) {
    const int r = row * conv->stride_h - plan->pad_top + tap / conv->kernel_w * conv->dilation_h;
    const int s = column * conv->stride_w - plan->pad_left + tap % conv->kernel_w * conv->dilation_w;
    for (int i = 0; i < conv->in_channels; i++) {
      const int k = c->shape.order ? i * conv->kernel_h * conv->kernel_w + tap : tap * conv->in_channels + i;
      double magnitude;
      const double weight = weight_at(&c->weights, o, k, max_bits, &magnitude);
      largest_scale = fmax(largest_scale, magnitude);
      if (r < 0 || r >= c->height || s < 0 || s >= c->width) continue;
      const double x = quantized(c, real_input(c, (size_t)(((b * c->height + r) * c->width + s) * conv->in_channels + i)));
      sum += weight * x;
      inputs += fabs(x);
      product += magnitude * fabs(x);
      rows += magnitude;
    }
  }
  for (int p = 0; p < c->weights.groups; p++) {
    for (int i = 0; i < c->weights.bases; i++) {
      const size_t slot = ((size_t)o * (size_t)c->weights.groups + (size_t)p) * (size_t)c->weights.bases + (size_t)i;
      largest_scale = fmax(largest_scale, fabs((double)c->weights.scales[slot]));
    }
  }
  Expected expected = {sum, 1e-4 + 1e-5 * product};
  const double range = c->shape.is_int8 ? (double)c->shape.input_scale : 4.0 / 255;
  const int bases = c->weights.bases;
  if (plan->path->family == KE_MULTI_BIT_POPCOUNT) expected.bound += largest_scale * bases * 4e-5 * (inputs + rows + 50);
  if (plan->path->family == KE_MULTI_BIT_TABLE && plan->planes == 0) {
    /* scales within 1/510 of the largest; inputs within half a step, sums of four within two */
    expected.bound += largest_scale * bases * (inputs + 4 * range) / 500 + rows * range * 1.1 + largest_scale * range * 4 * bases;
  }
  if (plan->path->family == KE_MULTI_BIT_TABLE && plan->planes > 0) expected.bound += (largest_scale * bases * inputs / 500 + 0.06 * (rows + product)) * 1.1;
  const double low = conv->activation == 0 ? -INFINITY : 0.0, high = conv->activation == 2 ? 6.0 : INFINITY;
  expected.value = fmin(fmax(expected.value, low), high);
  return expected;
}

static void check_outputs(const Case *c, const KeMultiBitConv2DPlan *plan, int max_bits, const uint8_t *y) {
  const int outputs = c->shape.conv.out_channels;
  size_t place = 0;
  for (int b = 0; b < c->batch; b++) {
    for (int r = 0; r < plan->output_height; r++) {
      for (int s = 0; s < plan->output_width; s++) {
        for (int o = 0; o < outputs; o++, place++) {
          const Expected right = expect(c, plan, max_bits, b, r, s, o);
          double value, bound = right.bound, wanted = right.value;
          if (c->shape.is_int8) {
            value = (int8_t)y[place];
            bound = bound / (double)c->shape.output_scale + 0.51;
            wanted = fmin(fmax(wanted / (double)c->shape.output_scale + c->shape.output_zero_point, -128), 127);
          } else {
            value = ((const float *)(const void *)y)[place];
          }
          CHECK(fabs(value - wanted) <= bound,
                "isa %s, family %d, int8 %d, %dx%dx%d to %d, kernel %dx%d, groups of %d, order %d, %d bases, %d input bits, max %d: "
                "y[%zu] = %g, expected %g +- %g", ke_isa_name(plan->path->isa), plan->path->family, c->shape.is_int8, c->height,
                c->width, c->shape.conv.in_channels, outputs, c->shape.conv.kernel_h, c->shape.conv.kernel_w, c->shape.group_size,
                c->shape.order, c->shape.bases, c->shape.activation_bits, max_bits, place, value, wanted, bound);
        }
      }
    }
  }
}

/* The plan's own path, then its twin on the same records. */
static void check_path(Case *c, KeIsa isa, KeThreadPool *pool) {
  KeMultiBitConv2DShape shape = c->shape;
  shape.conv.isa = isa;
  char message[256] = "";
  KeMultiBitConv2DPlan *plan = ke_multi_bit_conv_2d_create(&shape, &c->weights.streams, c->levels, c->bias, message, sizeof(message));
  CHECK(plan != NULL, "%s", message);
  if (plan == NULL) return;
  CHECK(ke_multi_bit_conv_2d_resize(plan, c->batch, c->height, c->width) == KE_GATED_CONV_2D_OK, "resize");
  const size_t bytes = (size_t)(c->batch * plan->output_height * plan->output_width * shape.conv.out_channels) *
                       (shape.is_int8 ? 1 : sizeof(float));
  uint8_t *y = exactly(bytes), *twin = exactly(bytes);
  const KeParallel parallel = ke_thread_pool_parallel(pool);
  const int bits[] = {8, below(4) - 1, 8};
  for (int i = 0; i < 3; i++) {
    CHECK(ke_multi_bit_conv_2d_run(plan, bits[i], c->x, y, &parallel) == KE_GATED_CONV_2D_OK, "run");
    check_outputs(c, plan, bits[i] < 0 ? 0 : bits[i], y);
  }
  uint8_t **known = &c->y_of[plan->path->family];
  if (*known == NULL) {
    *known = exactly(bytes);
    memcpy(*known, y, bytes);
  }
  if (plan->path->family != KE_MULTI_BIT_EXACT) { /* which adds up floats, fused or not */
    CHECK(memcmp(y, *known, bytes) == 0, "isa %s, family %d, %d input bits: not the bytes of the other instruction sets",
          ke_isa_name(isa), plan->path->family, shape.activation_bits);
  }
  const KeMultiBitPath *scalar = plan->path->twin;
  if (scalar != NULL) {
    plan->path = scalar;
    CHECK(ke_multi_bit_conv_2d_run(plan, 8, c->x, twin, NULL) == KE_GATED_CONV_2D_OK, "run");
    CHECK(memcmp(y, twin, bytes) == 0, "isa %s, family %d, %d input bits: not the bytes of the scalar path", ke_isa_name(isa),
          scalar->family, shape.activation_bits);
  }
  free(y);
  free(twin);
  ke_multi_bit_conv_2d_destroy(plan);
}

/* On numbers one can do by hand: a 1x1 convolution of two channels, bits 01, scale 3, inputs of one bit at 1 +- 2. */
static void check_by_hand(KeIsa isa) {
  const uint8_t widths[1] = {1}, bits[1] = {2};
  const float scales[1] = {3.0f}, bias[1] = {0.5f}, levels[2] = {1.0f, 2.0f}, x[4] = {0.9f, 1.1f, 1.0f, -9.0f};
  const KePackedStreams streams = {widths, bits, scales, 1, 1, 1};
  const KeMultiBitConv2DShape shape = {.conv = {1, 1, 2, 1, 1, 1, 1, 1, 0, 0, isa}, .group_size = 2, .bases = 1, .activation_bits = 1};
  char message[256] = "";
  float y[2];
  KeMultiBitConv2DPlan *plan = ke_multi_bit_conv_2d_create(&shape, &streams, levels, bias, message, sizeof(message));
  CHECK(plan != NULL && ke_multi_bit_conv_2d_resize(plan, 1, 1, 2) == KE_GATED_CONV_2D_OK, "%s", message);
  CHECK(ke_multi_bit_conv_2d_run(plan, 1, x, y, NULL) == KE_GATED_CONV_2D_OK, "run");
  /* levels -1 and 3: (-1, 3) and (3, -1) */
  CHECK(fabsf(y[0] - (0.5f + 3 * (-1 - 3))) < 1e-3f && fabsf(y[1] - (0.5f + 3 * (3 + 1))) < 1e-3f, "received %g, %g", (double)y[0],
        (double)y[1]);
  ke_multi_bit_conv_2d_destroy(plan);
}

static void expect_refusal(KePackedStreams streams, float level, const char *sentence) {
  const KeMultiBitConv2DShape shape = {.conv = {3, 3, 5, 2, 1, 1, 1, 1, 0, 0, KE_ISA_SCALAR}, .group_size = 5, .bases = 2,
                                       .activation_bits = 1};
  const float levels[2] = {0.0f, level}, bias[2] = {0.0f, 0.0f};
  char message[256] = "";
  KeMultiBitConv2DPlan *plan = ke_multi_bit_conv_2d_create(&shape, &streams, levels, bias, message, sizeof(message));
  CHECK(plan == NULL && strstr(message, sentence) != NULL, "expected: %s; received: %s", sentence, message);
  ke_multi_bit_conv_2d_destroy(plan);
}

static void check_refusals(void) {
  TestWeights w = make_weights(&state, 2, 45, 5, 2, 1); /* 36 rows of 5 bits, 18 widths of 2 bits */
  KePackedStreams streams = w.streams;
  streams.bits_bytes--;
  expect_refusal(streams, 1.0f, "Invalid size of `bits`. Expected 23 bytes for 36 scales of groups of 5. Received: 22.");
  streams = w.streams;
  streams.widths_bytes++;
  expect_refusal(streams, 1.0f, "Invalid size of `widths`. Expected 5 bytes");
  expect_refusal(w.streams, NAN, "Invalid value in `levels`");
  w.width_stream[0] = 0xFF;
  expect_refusal(w.streams, 1.0f, "Invalid value in `widths`. Expected at most 2 bits. Received: 3.");
  w.width_stream[0] = 0;
  expect_refusal(w.streams, 1.0f, "Invalid size of `scales`. Expected 28, the sum of all bit-widths. Received: 36.");
  w.width_stream[0] = 0xAA;
  w.scale_stream[3] = INFINITY;
  expect_refusal(w.streams, 1.0f, "Invalid value in `scales`");
  free_weights(&w);
}

int main(int argc, char **argv) {
  const int cases = argc > 1 ? atoi(argv[1]) : 100;
  KeThreadPool *pool = ke_thread_pool_create(3);
  KeIsa isas[KE_MAX_ISAS];
  const int isa_count = ke_cpu_isas(isas);
  for (int k = 0; k < isa_count; k++) check_by_hand(isas[k]);
  for (int i = 0; i < cases; i++) {
    Case c = make_case();
    for (int k = 0; k < isa_count; k++) check_path(&c, isas[k], i % 2 ? pool : NULL);
    free_case(&c);
  }
  check_refusals();
  ke_thread_pool_destroy(pool);
  return finish("multi-bit convolution");
}
