/* The life of a plan: check and prepare the weights, size, run sample by sample, destroy. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "kernels/gated_conv_2d/checked.h"

/* relu6 cuts the accumulator here at the latest. */
static const float most_steps = 1073741824.0f;

/* aligned_alloc wants a multiple of the alignment. */
static void *allocate(size_t bytes) {
  if (bytes > SIZE_MAX - 64) return NULL;
  return aligned_alloc(64, bytes == 0 ? 64 : (bytes + 63) & ~(size_t)63);
}

static const char *check(const KeGatedConv2DInt8Shape *shape) {
  const char *error = ke_gated_conv_2d_check(&shape->conv);
  if (error != NULL) return error;
  if (!(shape->input_scale > 0 && shape->output_scale > 0)) return "gated_conv_2d_int8: the scales must be positive.";
  if (shape->input_zero_point < -128 || shape->input_zero_point > 127 || shape->output_zero_point < -128 ||
      shape->output_zero_point > 127) {
    return "gated_conv_2d_int8: the zero points must be -128 to 127.";
  }
  return NULL;
}

static int32_t cap_of(int32_t activation, float step) {
  if (activation != 2) return INT32_MAX;
  const float steps = rintf(6.0f / step);
  return steps < most_steps ? (int32_t)steps : (int32_t)most_steps;
}

/* What the sums of one channel cannot pass: 255 is the widest distance of x from its zero point. */
static float bound_of(const int8_t *weights, size_t count, int32_t bias) {
  double bound = fabs((double)bias);
  for (size_t i = 0; i < count; i++) bound += 255.0 * abs(weights[i]);
  return (float)bound;
}

static void describe_channels(KeGatedConv2DInt8Plan *plan, const float *kernel_scale, const int32_t *bias) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  const size_t count = (size_t)shape->kernel_h * (size_t)shape->kernel_w * (size_t)shape->in_channels;
  for (int32_t o = 0; o < shape->out_channels; o++) {
    const float step = plan->shape.input_scale * kernel_scale[o];
    plan->multiplier[o] = step / plan->shape.output_scale;
    plan->bias[o] = bias == NULL ? 0 : bias[o];
    plan->cap[o] = cap_of(shape->activation, step);
    plan->bound[o] = bound_of(plan->kernel + (size_t)o * count, count, plan->bias[o]);
  }
}

KeGatedConv2DInt8Plan *ke_gated_conv_2d_int8_create(const KeGatedConv2DInt8Shape *shape, const int8_t *kernel_ohwi,
                                                    const float *kernel_scale, const int32_t *bias, const char **error) {
  const char *unused;
  if (error == NULL) error = &unused;
  *error = check(shape);
  if (*error != NULL) return NULL;
  KeGatedConv2DInt8Plan *plan = calloc(1, sizeof(*plan));
  if (plan == NULL) {
    *error = "gated_conv_2d_int8: out of memory for the plan.";
    return NULL;
  }
  plan->shape = *shape;
  plan->kernel = kernel_ohwi;
  plan->path = ke_gated_conv_2d_int8_path(shape->conv.isa);
  plan->low = shape->conv.activation == 0 ? INT32_MIN : 0;
  const size_t channels = (size_t)shape->conv.out_channels;
  size_t all = channels, packed = 0;
  if (!ke_multiply(&all, (size_t)shape->conv.kernel_h) || !ke_multiply(&all, (size_t)shape->conv.kernel_w) ||
      !ke_multiply(&all, (size_t)shape->conv.in_channels) || all > PTRDIFF_MAX / 8 ||
      ke_int8_tiled_packed_bytes(plan, &packed) != KE_GATED_CONV_2D_OK) {
    *error = "gated_conv_2d_int8: the weights are larger than the address space.";
    ke_gated_conv_2d_int8_destroy(plan);
    return NULL;
  }
  plan->multiplier = malloc(channels * sizeof(float));
  plan->bound = malloc(channels * sizeof(float));
  plan->bias = malloc(channels * sizeof(int32_t));
  plan->cap = malloc(channels * sizeof(int32_t));
  plan->packed = packed == 0 ? NULL : allocate(packed);
  if (plan->multiplier == NULL || plan->bound == NULL || plan->bias == NULL || plan->cap == NULL ||
      (packed > 0 && plan->packed == NULL)) {
    *error = "gated_conv_2d_int8: out of memory for the packed weights.";
    ke_gated_conv_2d_int8_destroy(plan);
    return NULL;
  }
  describe_channels(plan, kernel_scale, bias);
  if (packed > 0) plan->tiled.moves->pack(plan);
  return plan;
}

static bool tensor_fits(int32_t batch, int32_t height, int32_t width, int32_t channels) {
  size_t bytes = (size_t)batch;
  return ke_multiply(&bytes, (size_t)height) && ke_multiply(&bytes, (size_t)width) &&
         ke_multiply(&bytes, (size_t)channels) && bytes <= PTRDIFF_MAX;
}

/* The lists of open channels, then what the path wants. With `base` NULL only the size is found out. */
static int lay_out(KeGatedConv2DInt8Plan *plan, unsigned char *base) {
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  size_t total = 0, in, out;
  if (!ke_reserve(&total, (size_t)shape->in_channels * sizeof(int32_t), &in) ||
      !ke_reserve(&total, (size_t)shape->out_channels * sizeof(int32_t), &out)) {
    return KE_GATED_CONV_2D_BAD_SIZE;
  }
  if (base != NULL) {
    plan->open.in = (int32_t *)(void *)(base + in);
    plan->open.out = (int32_t *)(void *)(base + out);
  }
  int status = KE_GATED_CONV_2D_OK;
  if (plan->path->tiled != NULL) status = ke_int8_tiled_measure(plan, &total, base);
  plan->scratch_bytes = total;
  return status;
}

int ke_gated_conv_2d_int8_resize(KeGatedConv2DInt8Plan *plan, int32_t batch, int32_t height, int32_t width,
                                 int32_t threads) {
  plan->sized = 0;
  free(plan->scratch);
  plan->scratch = NULL;
  if (batch < 0 || threads < 1) return KE_GATED_CONV_2D_BAD_SIZE;
  int status = ke_gated_conv_2d_geometry(&plan->shape.conv, height, width, &plan->output_height, &plan->output_width,
                                         &plan->pad_top, &plan->pad_left);
  if (status != KE_GATED_CONV_2D_OK) return status;
  if (!tensor_fits(batch, height, width, plan->shape.conv.in_channels) ||
      !tensor_fits(batch, plan->output_height, plan->output_width, plan->shape.conv.out_channels)) {
    return KE_GATED_CONV_2D_BAD_SIZE;
  }
  plan->batch = batch;
  plan->height = height;
  plan->width = width;
  plan->threads = threads;
  status = lay_out(plan, NULL);
  if (status != KE_GATED_CONV_2D_OK) return status;
  plan->scratch = allocate(plan->scratch_bytes);
  if (plan->scratch == NULL) return KE_GATED_CONV_2D_NO_MEMORY;
  lay_out(plan, plan->scratch);
  plan->sized = 1;
  return KE_GATED_CONV_2D_OK;
}

static int32_t list_open(const float *gates, int32_t channels, int32_t *open) {
  int32_t count = 0;
  for (int32_t c = 0; c < channels; c++) {
    open[count] = c; /* count <= c */
    count += gates[c] != 0.0f;
  }
  return count;
}

int ke_gated_conv_2d_int8_run(KeGatedConv2DInt8Plan *plan, const int8_t *x, const float *g_in, const float *g_out,
                              int8_t *y, const KeParallel *parallel, uint64_t *executed_macs) {
  if (!plan->sized) return KE_GATED_CONV_2D_NOT_SIZED;
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  const size_t pixels = (size_t)plan->output_height * (size_t)plan->output_width;
  if (pixels == 0) return KE_GATED_CONV_2D_OK;
  KeInt8Call call = {x, g_in, g_out, y, parallel};
  KeInt8Open *open = &plan->open;
  uint64_t open_pairs = 0;
  for (int32_t b = 0; b < plan->batch; b++) {
    open->in_count = list_open(call.g_in, shape->in_channels, open->in);
    open->out_count = list_open(call.g_out, shape->out_channels, open->out);
    open_pairs += (uint64_t)open->in_count * (uint64_t)open->out_count;
    if (open->out_count == 0) {
      memset(call.y, plan->shape.output_zero_point, pixels * (size_t)shape->out_channels);
    } else {
      plan->path->run(plan, &call);
    }
    call.x += (size_t)plan->height * (size_t)plan->width * (size_t)shape->in_channels;
    call.g_in += shape->in_channels;
    call.g_out += shape->out_channels;
    call.y += pixels * (size_t)shape->out_channels;
  }
  if (executed_macs != NULL)
    *executed_macs += open_pairs * pixels * (uint64_t)shape->kernel_h * (uint64_t)shape->kernel_w;
  return KE_GATED_CONV_2D_OK;
}

void ke_gated_conv_2d_int8_destroy(KeGatedConv2DInt8Plan *plan) {
  if (plan == NULL) return;
  free(plan->multiplier);
  free(plan->bound);
  free(plan->bias);
  free(plan->cap);
  free(plan->packed);
  free(plan->scratch);
  free(plan);
}
