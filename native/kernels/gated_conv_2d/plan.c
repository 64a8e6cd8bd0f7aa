/* The life of a plan: check and pack, size, run sample by sample, destroy. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "gated_conv_2d.h"
#include "internal.h"

/* aligned_alloc wants a multiple of the alignment. */
static void *allocate(size_t bytes) {
  if (bytes > SIZE_MAX - 64) return NULL;
  return aligned_alloc(64, bytes == 0 ? 64 : (bytes + 63) & ~(size_t)63);
}

const char *ke_gated_conv_2d_check(const KeGatedConv2DShape *shape) {
  if (shape->kernel_h < 1 || shape->kernel_w < 1) return "gated_conv_2d: kernel_h and kernel_w must be at least 1.";
  if (shape->in_channels < 1 || shape->out_channels < 1)
    return "gated_conv_2d: in_channels and out_channels must be at least 1.";
  if (shape->stride_h < 1 || shape->stride_w < 1) return "gated_conv_2d: stride_h and stride_w must be at least 1.";
  if (shape->dilation_h < 1 || shape->dilation_w < 1)
    return "gated_conv_2d: dilation_h and dilation_w must be at least 1.";
  if (shape->padding != 0 && shape->padding != 1) return "gated_conv_2d: padding must be 0 (valid) or 1 (same).";
  if (shape->activation < 0 || shape->activation > 2) {
    return "gated_conv_2d: activation must be 0 (linear), 1 (relu) or 2 (relu6).";
  }
  if (shape->out_channels > INT32_MAX - 64 || shape->in_channels > INT32_MAX - 64)
    return "gated_conv_2d: too many channels.";
  return NULL;
}

/* OHWI to [blocks][kernel_h][in][kernel_w][lanes]. */
static void pack(KeGatedConv2DPlan *plan, const float *kernel_ohwi, const float *bias) {
  const KeGatedConv2DShape *shape = &plan->shape;
  const int32_t lanes = plan->path->lanes;
  float *w = plan->weights;
  for (int32_t block = 0; block < plan->blocks; block++) {
    for (int32_t r = 0; r < shape->kernel_h; r++) {
      for (int32_t c = 0; c < shape->in_channels; c++) {
        for (int32_t s = 0; s < shape->kernel_w; s++) {
          for (int32_t lane = 0; lane < lanes; lane++) {
            const size_t o = (size_t)block * (size_t)lanes + (size_t)lane;
            const size_t tap = (o * (size_t)shape->kernel_h + (size_t)r) * (size_t)shape->kernel_w + (size_t)s;
            *w++ = o < (size_t)shape->out_channels ? kernel_ohwi[tap * (size_t)shape->in_channels + (size_t)c] : 0.0f;
          }
        }
      }
    }
  }
  for (int32_t o = 0; o < plan->blocks * lanes; o++) {
    plan->bias[o] = bias != NULL && o < shape->out_channels ? bias[o] : 0.0f;
  }
}

KeGatedConv2DPlan *ke_gated_conv_2d_create(const KeGatedConv2DShape *shape, const float *kernel_ohwi, const float *bias,
                                           const char **error) {
  const char *unused;
  if (error == NULL) error = &unused;
  *error = ke_gated_conv_2d_check(shape);
  if (*error != NULL) return NULL;
  KeGatedConv2DPlan *plan = calloc(1, sizeof(*plan));
  if (plan == NULL) {
    *error = "gated_conv_2d: out of memory for the plan.";
    return NULL;
  }
  plan->shape = *shape;
  plan->path = ke_gated_conv_2d_path(shape->isa);
  plan->low = shape->activation == 0 ? -INFINITY : 0.0f;
  plan->high = shape->activation == 2 ? 6.0f : INFINITY;
  plan->blocks = (shape->out_channels + plan->path->lanes - 1) / plan->path->lanes;
  size_t bias_bytes = (size_t)plan->blocks * (size_t)plan->path->lanes * sizeof(float);
  size_t weight_bytes = bias_bytes;
  if (!ke_multiply(&weight_bytes, (size_t)shape->kernel_h) || !ke_multiply(&weight_bytes, (size_t)shape->kernel_w) ||
      !ke_multiply(&weight_bytes, (size_t)shape->in_channels)) {
    *error = "gated_conv_2d: the weights are larger than the address space.";
    ke_gated_conv_2d_destroy(plan);
    return NULL;
  }
  plan->weights = allocate(weight_bytes);
  plan->bias = allocate(bias_bytes);
  if (plan->weights == NULL || plan->bias == NULL) {
    *error = "gated_conv_2d: out of memory for the packed weights.";
    ke_gated_conv_2d_destroy(plan);
    return NULL;
  }
  pack(plan, kernel_ohwi, bias);
  return plan;
}

/* One axis: how many outputs, and how much padding before the first input. */
static int output_axis(int32_t size, int32_t kernel, int32_t stride, int32_t dilation, int32_t padding, int32_t *output,
                       int32_t *pad_before) {
  const int64_t window = ((int64_t)kernel - 1) * dilation + 1;
  if (size < 0 || window > INT32_MAX) return KE_GATED_CONV_2D_BAD_SIZE;
  *pad_before = 0;
  if (padding == 0) {
    *output = size < window ? 0 : (int32_t)((size - window) / stride + 1);
    return KE_GATED_CONV_2D_OK;
  }
  *output = (int32_t)(((int64_t)size + stride - 1) / stride);
  const int64_t total = ((int64_t)*output - 1) * stride + window - size;
  if (*output > 0 && total > 0) *pad_before = (int32_t)(total / 2);
  return KE_GATED_CONV_2D_OK;
}

int ke_gated_conv_2d_geometry(const KeGatedConv2DShape *shape, int32_t height, int32_t width, int32_t *output_height,
                              int32_t *output_width, int32_t *pad_top, int32_t *pad_left) {
  const int status =
      output_axis(height, shape->kernel_h, shape->stride_h, shape->dilation_h, shape->padding, output_height, pad_top);
  if (status != KE_GATED_CONV_2D_OK) return status;
  return output_axis(width, shape->kernel_w, shape->stride_w, shape->dilation_w, shape->padding, output_width,
                     pad_left);
}

int ke_gated_conv_2d_output_size(const KeGatedConv2DShape *shape, int32_t height, int32_t width, int32_t *output_height,
                                 int32_t *output_width) {
  int32_t pad_top, pad_left;
  return ke_gated_conv_2d_geometry(shape, height, width, output_height, output_width, &pad_top, &pad_left);
}

/* False where a tensor of these sizes would be larger than what an address can reach. */
static bool tensor_fits(int32_t batch, int32_t height, int32_t width, int32_t channels) {
  size_t bytes = sizeof(float);
  return ke_multiply(&bytes, (size_t)batch) && ke_multiply(&bytes, (size_t)height) &&
         ke_multiply(&bytes, (size_t)width) && ke_multiply(&bytes, (size_t)channels) && bytes <= PTRDIFF_MAX;
}

int ke_gated_conv_2d_resize(KeGatedConv2DPlan *plan, int32_t batch, int32_t height, int32_t width, int32_t threads) {
  plan->sized = 0;
  free(plan->scratch);
  plan->scratch = NULL;
  if (batch < 0 || threads < 1) return KE_GATED_CONV_2D_BAD_SIZE;
  int status = ke_gated_conv_2d_geometry(&plan->shape, height, width, &plan->output_height, &plan->output_width,
                                         &plan->pad_top, &plan->pad_left);
  if (status != KE_GATED_CONV_2D_OK) return status;
  if (!tensor_fits(batch, height, width, plan->shape.in_channels) ||
      !tensor_fits(batch, plan->output_height, plan->output_width, plan->shape.out_channels)) {
    return KE_GATED_CONV_2D_BAD_SIZE;
  }
  plan->batch = batch;
  plan->height = height;
  plan->width = width;
  plan->threads = threads;
  status = plan->path->measure(plan);
  if (status != KE_GATED_CONV_2D_OK) return status;
  plan->scratch = allocate(plan->scratch_bytes);
  if (plan->scratch == NULL) return KE_GATED_CONV_2D_NO_MEMORY;
  plan->sized = 1;
  return KE_GATED_CONV_2D_OK;
}

int ke_gated_conv_2d_run(KeGatedConv2DPlan *plan, const float *x, const float *g_in, const float *g_out, float *y,
                         const KeParallel *parallel, uint64_t *executed_macs) {
  if (!plan->sized) return KE_GATED_CONV_2D_NOT_SIZED;
  const KeGatedConv2DShape *shape = &plan->shape;
  const size_t pixels = (size_t)plan->output_height * (size_t)plan->output_width;
  if (pixels == 0) return KE_GATED_CONV_2D_OK;
  KeGatedConv2DCall call = {x, g_in, g_out, y, parallel};
  uint64_t open_pairs = 0;
  for (int32_t b = 0; b < plan->batch; b++) {
    open_pairs += plan->path->run(plan, &call);
    call.x += (size_t)plan->height * (size_t)plan->width * (size_t)shape->in_channels;
    call.g_in += shape->in_channels;
    call.g_out += shape->out_channels;
    call.y += pixels * (size_t)shape->out_channels;
  }
  if (executed_macs != NULL)
    *executed_macs += open_pairs * pixels * (uint64_t)shape->kernel_h * (uint64_t)shape->kernel_w;
  return KE_GATED_CONV_2D_OK;
}

void ke_gated_conv_2d_destroy(KeGatedConv2DPlan *plan) {
  if (plan == NULL) return;
  free(plan->weights);
  free(plan->bias);
  free(plan->scratch);
  free(plan);
}
