/* The life of a plan: check and copy, size, run sample by sample, destroy. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "kernels/gated_conv_2d/checked.h"

/* Room for a * b * c values of `bytes`, on a cache line of its own; NULL also where that is more than can be addressed. */
static void *allocate(size_t a, size_t b, size_t c, size_t bytes) {
  if (!ke_multiply(&bytes, a) || !ke_multiply(&bytes, b) || !ke_multiply(&bytes, c) || bytes > PTRDIFF_MAX) return NULL;
  return aligned_alloc(64, bytes == 0 ? 64 : (bytes + 63) & ~(size_t)63);
}

static const char *check(const KeGatedConv2DShape *shape) {
  const char *error = ke_gated_conv_2d_check(shape);
  if (error == NULL && shape->out_channels % shape->in_channels != 0) {
    return "gated_depthwise_conv_2d: out_channels must be a multiple of in_channels.";
  }
  return error;
}

KeGatedDepthwiseConv2DPlan *ke_gated_depthwise_conv_2d_create(const KeGatedConv2DShape *shape, const float *kernel,
                                                              const float *bias, const char **error) {
  const char *unused;
  if (error == NULL) error = &unused;
  *error = check(shape);
  if (*error != NULL) return NULL;
  *error = "gated_depthwise_conv_2d: out of memory for the weights.";
  const int64_t taps = (int64_t)shape->kernel_h * shape->kernel_w;
  KeGatedDepthwiseConv2DPlan *plan = taps > INT32_MAX / 2 ? NULL : calloc(1, sizeof(*plan));
  if (plan == NULL) return NULL;
  plan->shape = *shape;
  plan->path = ke_depthwise_path(shape->isa);
  plan->low = shape->activation == 0 ? -INFINITY : 0.0f;
  plan->high = shape->activation == 2 ? 6.0f : INFINITY;
  plan->taps = (int32_t)taps;
  plan->multiplier = shape->out_channels / shape->in_channels;
  plan->padded = (shape->out_channels + KE_DEPTHWISE_LANES - 1) / KE_DEPTHWISE_LANES * KE_DEPTHWISE_LANES;
  const size_t channels = (size_t)shape->out_channels, padded = (size_t)plan->padded;
  plan->weights = allocate((size_t)taps, channels, 1, sizeof(float));
  plan->bias = allocate(channels, 1, 1, sizeof(float));
  plan->listed = allocate((size_t)taps, padded, 1, sizeof(float));
  plan->scales = allocate(2, padded, 1, sizeof(float));
  plan->channels = allocate(2, channels, 1, sizeof(int32_t));
  if (plan->weights == NULL || plan->bias == NULL || plan->listed == NULL || plan->scales == NULL ||
      plan->channels == NULL) {
    ke_gated_depthwise_conv_2d_destroy(plan);
    return NULL;
  }
  memcpy(plan->weights, kernel, (size_t)taps * channels * sizeof(float));
  for (size_t c = 0; c < channels; c++) plan->bias[c] = bias == NULL ? 0.0f : bias[c];
  *error = NULL;
  return plan;
}

static int size_ring(KeGatedDepthwiseConv2DPlan *plan) {
  const KeGatedConv2DShape *shape = &plan->shape;
  const int64_t window_h = ((int64_t)shape->kernel_h - 1) * shape->dilation_h + 1;
  const int64_t window_w = ((int64_t)shape->kernel_w - 1) * shape->dilation_w + 1;
  const int64_t columns = ((int64_t)plan->output_width - 1) * shape->stride_w + window_w;
  if (window_h > INT32_MAX || columns > INT32_MAX) return KE_GATED_CONV_2D_BAD_SIZE;
  plan->ring_rows = (int32_t)window_h;
  plan->ring_columns = (int32_t)columns;
  plan->ring_floats = (size_t)window_h;
  if (!ke_multiply(&plan->ring_floats, (size_t)columns) || !ke_multiply(&plan->ring_floats, (size_t)plan->padded)) {
    return KE_GATED_CONV_2D_BAD_SIZE;
  }
  plan->rings = allocate((size_t)plan->threads, plan->ring_floats, 1, sizeof(float));
  plan->pointers = allocate((size_t)plan->threads, 2, (size_t)plan->taps, sizeof(*plan->pointers));
  return plan->rings == NULL || plan->pointers == NULL ? KE_GATED_CONV_2D_NO_MEMORY : KE_GATED_CONV_2D_OK;
}

static void free_sizes(KeGatedDepthwiseConv2DPlan *plan) {
  free(plan->rings);
  free(plan->pointers);
  plan->rings = NULL;
  plan->pointers = NULL;
  plan->sized = 0;
}

static int tensor_fits(int32_t batch, int32_t height, int32_t width, int32_t channels) {
  size_t bytes = sizeof(float);
  return ke_multiply(&bytes, (size_t)batch) && ke_multiply(&bytes, (size_t)height) &&
         ke_multiply(&bytes, (size_t)width) && ke_multiply(&bytes, (size_t)channels) && bytes <= PTRDIFF_MAX;
}

int ke_gated_depthwise_conv_2d_resize(KeGatedDepthwiseConv2DPlan *plan, int32_t batch, int32_t height, int32_t width,
                                      int32_t threads) {
  free_sizes(plan);
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
  if (plan->output_height > 0 && plan->output_width > 0) status = size_ring(plan);
  if (status == KE_GATED_CONV_2D_OK) plan->sized = 1;
  return status;
}

/* The open channels, or all where leaving out the shut ones does not pay: vectors of channels that lie side by side are
 * loaded and stored whole, those of a list one by one. Returns how many are open. */
static int32_t list_channels(KeGatedDepthwiseConv2DPlan *plan, const float *g, KeDepthwiseCall *call) {
  const int32_t channels = plan->shape.out_channels;
  int32_t open = 0;
  for (int32_t c = 0; c < channels; c++) open += g[c] != 0.0f;
  const int all = open > channels / 4;
  if (all && plan->padded == channels && plan->multiplier == 1) { /* as they are */
    call->count = call->padded = channels;
    call->weights = plan->weights;
    call->bias = plan->bias;
    call->gates = g;
    return open;
  }
  int32_t *inputs = plan->channels, *outputs = plan->channels + channels;
  float *bias = plan->scales, *gates = plan->scales + plan->padded;
  int32_t count = 0;
  for (int32_t c = 0; c < channels; c++) {
    if (!all && g[c] == 0.0f) continue;
    inputs[count] = plan->multiplier == 1 ? c : c / plan->multiplier;
    outputs[count] = c;
    bias[count] = plan->bias[c];
    gates[count] = g[c];
    count++;
  }
  const int32_t padded = (count + KE_DEPTHWISE_LANES - 1) / KE_DEPTHWISE_LANES * KE_DEPTHWISE_LANES;
  for (int32_t k = count; k < padded; k++) bias[k] = gates[k] = 0.0f;
  for (int32_t t = 0; t < plan->taps; t++) {
    float *to = plan->listed + (size_t)t * (size_t)padded;
    const float *from = plan->weights + (size_t)t * (size_t)channels;
    for (int32_t k = 0; k < count; k++) to[k] = from[outputs[k]];
    for (int32_t k = count; k < padded; k++) to[k] = 0.0f;
  }
  call->count = count;
  call->padded = padded;
  call->weights = plan->listed;
  call->bias = bias;
  call->gates = gates;
  return open;
}

static void run_task(void *argument, int index) {
  const KeDepthwiseCall *call = argument;
  const int64_t rows = call->plan->output_height;
  const int32_t first = (int32_t)(rows * index / call->tasks), end = (int32_t)(rows * (index + 1) / call->tasks);
  call->plan->path->rows(call, first, end, index);
}

int ke_gated_depthwise_conv_2d_run(KeGatedDepthwiseConv2DPlan *plan, const float *x, const float *g, float *y,
                                   const KeParallel *parallel, uint64_t *executed_macs) {
  if (!plan->sized) return KE_GATED_CONV_2D_NOT_SIZED;
  const KeGatedConv2DShape *shape = &plan->shape;
  const size_t x_floats = (size_t)plan->height * (size_t)plan->width * (size_t)shape->in_channels;
  const size_t positions = (size_t)plan->output_height * (size_t)plan->output_width;
  if (positions == 0) return KE_GATED_CONV_2D_OK;
  const int32_t threads = parallel == NULL ? 1 : parallel->threads < plan->threads ? parallel->threads : plan->threads;
  KeDepthwiseCall call = {.plan = plan, .tasks = threads < plan->output_height ? threads : plan->output_height};
  for (int32_t b = 0; b < plan->batch; b++, g += shape->out_channels) {
    call.x = x + (size_t)b * x_floats;
    call.y = y + (size_t)b * positions * (size_t)shape->out_channels;
    const int32_t open = list_channels(plan, g, &call);
    if (call.tasks == 1) {
      run_task(&call, 0);
    } else {
      parallel->run(parallel->pool, call.tasks, run_task, &call);
    }
    if (executed_macs != NULL) *executed_macs += (uint64_t)open * (uint64_t)positions * (uint64_t)plan->taps;
  }
  return KE_GATED_CONV_2D_OK;
}

void ke_gated_depthwise_conv_2d_destroy(KeGatedDepthwiseConv2DPlan *plan) {
  if (plan == NULL) return;
  free_sizes(plan);
  free(plan->weights);
  free(plan->bias);
  free(plan->listed);
  free(plan->scales);
  free(plan->channels);
  free(plan);
}
