/* The life of a plan: check and pack, size, run sample by sample, destroy. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "kernels/gated_conv_2d/checked.h"

#define SAY(...) snprintf(error, error_bytes, __VA_ARGS__)

static void *allocate(size_t bytes) {
  if (bytes > PTRDIFF_MAX - 64) return NULL;
  return aligned_alloc(64, (bytes + 64) / 64 * 64);
}

static int check(const KeMultiBitConv2DShape *shape, const float *levels, const float *bias, char *error,
                 size_t error_bytes) {
  const char *wrong = ke_gated_conv_2d_check(&shape->conv);
  if (wrong != NULL) {
    SAY("%s", wrong);
    return -1;
  }
  for (int32_t j = 0; j <= shape->activation_bits; j++) {
    if (!(fabsf(levels[j]) < 1e18f)) {
      SAY("Invalid value in `levels`. Expected numbers below 1e18 in magnitude. Received: %g.", (double)levels[j]);
      return -1;
    }
  }
  for (int32_t o = 0; o < shape->conv.out_channels; o++) {
    if (!isfinite(bias[o])) {
      SAY("Invalid value in `bias`. Expected finite numbers. Received: %g.", (double)bias[o]);
      return -1;
    }
  }
  return 0;
}

static void sort_levels(KeMultiBitLevels *levels, const float *given, int32_t bits) {
  levels->count = 1 << bits;
  for (int32_t code = 0; code < levels->count; code++) {
    float value = 0.0f;
    uint32_t minus = 0;
    for (int32_t j = 0; j < bits; j++) {
      const int is_plus = code >> j & 1;
      value += is_plus ? given[1 + j] : -given[1 + j];
      minus |= is_plus ? 0u : 1u << j;
    }
    value += given[0];
    int32_t place = code;
    for (; place > 0 && levels->value[place - 1] > value; place--) {
      levels->value[place] = levels->value[place - 1];
      levels->minus[place] = levels->minus[place - 1];
    }
    levels->value[place] = value;
    levels->minus[place] = minus;
  }
}

static void find_level_steps(KeMultiBitConv2DPlan *plan) {
  KeMultiBitLevels *levels = &plan->levels;
  for (int32_t k = 0; k + 1 < levels->count; k++) {
    levels->step[k] = (levels->value[k] + levels->value[k + 1]) * 0.5f;
    int32_t q = -128;
    for (; q < 128; q++) {
      const float value = (float)(q - plan->shape.input_zero_point) * plan->shape.input_scale;
      if (value >= levels->step[k]) break;
    }
    levels->integer_step[k] = q;
  }
}

/* Integers of at most 31, so that four of them fit into a byte, that are nearest to the planes' proportions. */
static void find_integer_levels(KeMultiBitConv2DPlan *plan) {
  enum { kMost = 31 };
  KeMultiBitLevels *levels = &plan->levels;
  const int32_t bits = plan->shape.activation_bits;
  const float *gamma = plan->gamma + 1;
  float largest = 0.0f, best_error = INFINITY;
  int32_t best[3] = {0};
  for (int32_t j = 0; j < bits; j++) largest = fmaxf(largest, fabsf(gamma[j]));
  levels->integer_scale = 1.0f;
  for (int32_t steps = 1; steps <= kMost && largest > 0.0f; steps++) {
    const float scale = largest / (float)steps;
    float error = 0.0f;
    int32_t integers[3] = {0}, sum = 0;
    for (int32_t j = 0; j < bits; j++) {
      integers[j] = (int32_t)rintf(gamma[j] / scale);
      error += fabsf((float)integers[j] * scale - gamma[j]);
      sum += abs(integers[j]);
    }
    if (sum > kMost || error >= best_error) continue;
    best_error = error;
    levels->integer_scale = scale;
    memcpy(best, integers, sizeof(best));
  }
  for (int32_t code = 0; code < levels->count; code++) {
    int32_t level = 0;
    for (int32_t j = 0; j < bits; j++) level += levels->minus[code] >> j & 1 ? -best[j] : best[j];
    levels->integer[code] = (int8_t)level;
  }
}

static void describe_cells(KeMultiBitConv2DPlan *plan) {
  const int32_t channels = plan->shape.conv.in_channels;
  if (plan->path->family == KE_MULTI_BIT_POPCOUNT) {
    plan->planes = plan->shape.activation_bits;
    plan->inner = (channels - 1) / 32 + 1;
    plan->cell = (size_t)plan->planes * (size_t)plan->inner * sizeof(uint32_t);
  } else if (plan->path->family == KE_MULTI_BIT_TABLE) {
    plan->planes = plan->shape.activation_bits;
    plan->inner = (channels - 1) / KE_CHUNK + 1;
    plan->cell = (size_t)plan->inner * KE_TABLE;
  }
}

KeMultiBitConv2DPlan *ke_multi_bit_conv_2d_create(const KeMultiBitConv2DShape *shape, const KePackedStreams *streams,
                                                  const float *levels, const float *bias, char *error,
                                                  size_t error_bytes) {
  if (check(shape, levels, bias, error, error_bytes) != 0) return NULL;
  const int64_t length = (int64_t)shape->conv.kernel_h * shape->conv.kernel_w * shape->conv.in_channels;
  if (length > INT32_MAX - 64) {
    SAY("Invalid shape. Expected fewer than 2^31 weights for an output. Received: %lld.", (long long)length);
    return NULL;
  }
  KeMultiBitConv2DPlan *plan = calloc(1, sizeof(*plan));
  if (plan == NULL) {
    SAY("Out of memory for the plan.");
    return NULL;
  }
  plan->shape = *shape;
  plan->base_bits = -1;
  if (ke_packed_open(&plan->packed, shape->conv.out_channels, (int32_t)length, shape->group_size, shape->bases, streams,
                     error, error_bytes) != 0) {
    free(plan);
    return NULL;
  }
  const size_t outputs = (size_t)shape->conv.out_channels;
  plan->taps = shape->conv.kernel_h * shape->conv.kernel_w;
  plan->path = ke_multi_bit_path(ke_multi_bit_family(shape), shape->conv.isa);
  memcpy(plan->gamma, levels, ((size_t)shape->activation_bits + 1) * sizeof(float));
  sort_levels(&plan->levels, levels, shape->activation_bits);
  find_level_steps(plan);
  find_integer_levels(plan);
  describe_cells(plan);
  plan->bias = malloc(outputs * sizeof(float));
  if (plan->bias != NULL) memcpy(plan->bias, bias, outputs * sizeof(float));
  int status = plan->bias == NULL ? -1 : 0;
  if (status == 0 && ke_multi_bit_unfolds(shape)) {
    plan->unfolded = ke_multi_bit_unfold(shape, &plan->packed, streams, levels, bias, error, error_bytes);
    status = plan->unfolded == NULL ? -1 : 0;
    if (status == 0) plan->path = ke_multi_bit_unfolded_path(plan->unfolded);
  } else if (status == 0 && plan->path->family == KE_MULTI_BIT_EXACT) {
    size_t weights = (size_t)length;
    if (!ke_multiply(&weights, ke_padded_outputs(plan)) || weights > PTRDIFF_MAX / sizeof(float) - (size_t)length) {
      status = -1;
    } else {
      plan->weights = calloc(weights + (size_t)shape->conv.in_channels, sizeof(float));
      plan->zeros = plan->weights == NULL ? NULL : plan->weights + weights;
      status = plan->weights == NULL ? -1 : 0;
    }
  } else if (status == 0) {
    status = ke_multi_bit_pack(plan);
  }
  if (status == 0) return plan;
  SAY("Out of memory for the packed weights.");
  ke_multi_bit_conv_2d_destroy(plan);
  return NULL;
}

static void drop_sizes(KeMultiBitConv2DPlan *plan) {
  plan->sized = 0;
  plan->base_bits = -1;
  plan->bands = 0;
  plan->image_room = 0;
  free(plan->row_class);
  free(plan->column_class);
  free(plan->pixel_place);
  free(plan->pixel_base);
  free(plan->row_range);
  free(plan->column_range);
  free(plan->base);
  free(plan->constant);
  free(plan->slope);
  free(plan->image);
  free(plan->integers);
  plan->row_class = plan->column_class = plan->row_range = plan->column_range = NULL;
  plan->pixel_place = plan->pixel_base = NULL;
  plan->base = plan->constant = plan->slope = NULL;
  plan->image = NULL;
  plan->integers = NULL;
}

/* Outputs of one dimension whose taps fall outside in the same way are one class. Returns how many, or -1. */
static int32_t classify(int32_t size, int32_t output_size, int32_t kernel, int32_t stride, int32_t dilation, int32_t pad,
                        int32_t **class_of, int32_t **range) {
  *class_of = malloc(((size_t)output_size + 1) * sizeof(int32_t));
  *range = malloc(2 * ((size_t)output_size + 1) * sizeof(int32_t));
  if (*class_of == NULL || *range == NULL) return -1;
  int32_t count = 0;
  for (int32_t i = 0; i < output_size; i++) {
    const int64_t first = (int64_t)i * stride - pad;
    int32_t begin = 0, end = kernel;
    while (begin < kernel && first + (int64_t)begin * dilation < 0) begin++;
    while (end > begin && first + (int64_t)(end - 1) * dilation >= size) end--;
    if (count == 0 || (*range)[2 * count - 2] != begin || (*range)[2 * count - 1] != end) {
      (*range)[2 * count] = begin; /* ranges move on monotonously: equal ones are neighbours */
      (*range)[2 * count + 1] = end;
      count++;
    }
    (*class_of)[i] = count - 1;
  }
  return count;
}

static int find_classes(KeMultiBitConv2DPlan *plan) {
  const KeGatedConv2DShape *conv = &plan->shape.conv;
  plan->row_classes = classify(plan->height, plan->output_height, conv->kernel_h, conv->stride_h, conv->dilation_h,
                               plan->pad_top, &plan->row_class, &plan->row_range);
  plan->column_classes = classify(plan->width, plan->output_width, conv->kernel_w, conv->stride_w, conv->dilation_w,
                                  plan->pad_left, &plan->column_class, &plan->column_range);
  if (plan->row_classes < 0 || plan->column_classes < 0) return KE_GATED_CONV_2D_NO_MEMORY;
  size_t bytes = sizeof(float);
  if (!ke_multiply(&bytes, (size_t)plan->row_classes) || !ke_multiply(&bytes, (size_t)plan->column_classes) ||
      !ke_multiply(&bytes, ke_padded_outputs(plan)) || bytes > INT32_MAX) {
    return KE_GATED_CONV_2D_BAD_SIZE;
  }
  plan->base = calloc(1, bytes + 1);
  plan->constant = calloc(1, bytes + 1);
  plan->slope = calloc(1, bytes + 1);
  return plan->base == NULL || plan->constant == NULL || plan->slope == NULL ? KE_GATED_CONV_2D_NO_MEMORY
                                                                            : KE_GATED_CONV_2D_OK;
}

int ke_multi_bit_image(KeMultiBitConv2DPlan *plan, int32_t bands, size_t common) {
  if (plan->bands == bands) return 0;
  if (!ke_multiply(&common, (size_t)bands - 1) || common > PTRDIFF_MAX - plan->image_bytes) return -1;
  const size_t bytes = plan->image_bytes + common;
  if (bytes > plan->image_room) {
    uint8_t *image = allocate(bytes);
    if (image == NULL) return -1;
    free(plan->image);
    plan->image = image;
    plan->image_room = bytes;
  }
  memset(plan->image, plan->path->is_planar ? KE_NO_INPUTS : 0, bytes);
  plan->bands = bands;
  return 0;
}

static int make_image(KeMultiBitConv2DPlan *plan) {
  const KeGatedConv2DShape *conv = &plan->shape.conv;
  const int64_t rows = (int64_t)(plan->output_height - 1) * conv->stride_h + (int64_t)(conv->kernel_h - 1) * conv->dilation_h + 1;
  const int64_t columns =
      (int64_t)(plan->output_width - 1) * conv->stride_w + (int64_t)(conv->kernel_w - 1) * conv->dilation_w + 1;
  size_t bytes = plan->cell;
  if (rows > INT32_MAX || columns > INT32_MAX || !ke_multiply(&bytes, (size_t)rows) ||
      !ke_multiply(&bytes, (size_t)columns) || bytes > INT32_MAX) { /* places are 32 bits */
    return KE_GATED_CONV_2D_BAD_SIZE;
  }
  plan->image_height = (int32_t)rows;
  plan->image_width = (int32_t)columns;
  plan->image_bytes = bytes;
  if (ke_multi_bit_image(plan, 1, 0) != 0) return KE_GATED_CONV_2D_NO_MEMORY;
  for (size_t i = 0; i < plan->place_count; i++) {
    const int64_t r = plan->place_tap[i] / conv->kernel_w * conv->dilation_h;
    const int64_t c = plan->place_tap[i] % conv->kernel_w * conv->dilation_w;
    plan->place[i] = (int32_t)((r * columns + c) * (int64_t)plan->cell) + plan->place_inner[i];
  }
  return KE_GATED_CONV_2D_OK;
}

static int aim_pixels(KeMultiBitConv2DPlan *plan) {
  const KeGatedConv2DShape *conv = &plan->shape.conv;
  const size_t pixels = (size_t)plan->output_height * (size_t)plan->output_width, padded = ke_padded_outputs(plan);
  plan->pixel_place = malloc(pixels * sizeof(int32_t));
  plan->pixel_base = malloc(pixels * sizeof(int32_t));
  if (plan->pixel_place == NULL || plan->pixel_base == NULL) return KE_GATED_CONV_2D_NO_MEMORY;
  size_t pixel = 0;
  for (int32_t r = 0; r < plan->output_height; r++) {
    for (int32_t c = 0; c < plan->output_width; c++, pixel++) {
      const size_t place = (size_t)r * (size_t)conv->stride_h * (size_t)plan->image_width + (size_t)c * (size_t)conv->stride_w;
      const size_t base = (size_t)plan->row_class[r] * (size_t)plan->column_classes + (size_t)plan->column_class[c];
      plan->pixel_place[pixel] = (int32_t)(place * plan->cell);
      plan->pixel_base[pixel] = (int32_t)(base * padded);
    }
  }
  return KE_GATED_CONV_2D_OK;
}

int ke_multi_bit_conv_2d_resize(KeMultiBitConv2DPlan *plan, int32_t batch, int32_t height, int32_t width) {
  drop_sizes(plan);
  if (batch < 0) return KE_GATED_CONV_2D_BAD_SIZE;
  const KeGatedConv2DShape *conv = &plan->shape.conv;
  int status = ke_gated_conv_2d_geometry(conv, height, width, &plan->output_height, &plan->output_width, &plan->pad_top,
                                         &plan->pad_left);
  if (status != KE_GATED_CONV_2D_OK) return status;
  size_t sample = sizeof(float), output = sizeof(float) * (size_t)batch;
  if (!ke_multiply(&sample, (size_t)height) || !ke_multiply(&sample, (size_t)width) ||
      !ke_multiply(&sample, (size_t)conv->in_channels) || sample > PTRDIFF_MAX / 4 ||
      !ke_multiply(&output, (size_t)plan->output_height) || !ke_multiply(&output, (size_t)plan->output_width) ||
      !ke_multiply(&output, (size_t)conv->out_channels) || output > PTRDIFF_MAX / 4) {
    return KE_GATED_CONV_2D_BAD_SIZE;
  }
  plan->batch = batch;
  plan->height = height;
  plan->width = width;
  if (plan->output_height > 0 && plan->output_width > 0) {
    if (plan->unfolded != NULL) {
      status = ke_multi_bit_unfolded_resize(plan->unfolded, plan);
    } else if (plan->path->family != KE_MULTI_BIT_EXACT) {
      status = find_classes(plan);
      if (status == KE_GATED_CONV_2D_OK) status = make_image(plan);
      if (status == KE_GATED_CONV_2D_OK) status = aim_pixels(plan);
    }
    if (plan->path->family != KE_MULTI_BIT_POPCOUNT) plan->integers = allocate(sample);
    if (status == KE_GATED_CONV_2D_OK && plan->path->family != KE_MULTI_BIT_POPCOUNT && plan->integers == NULL) {
      status = KE_GATED_CONV_2D_NO_MEMORY;
    }
    if (status != KE_GATED_CONV_2D_OK) return status;
  }
  plan->sized = 1;
  return KE_GATED_CONV_2D_OK;
}

void ke_multi_bit_conv_2d_destroy(KeMultiBitConv2DPlan *plan) {
  if (plan == NULL) return;
  drop_sizes(plan);
  ke_multi_bit_unfolded_destroy(plan->unfolded);
  ke_packed_close(&plan->packed);
  free(plan->bias);
  free(plan->block);
  free(plan->records);
  free(plan->place_tap);
  free(plan->place_inner);
  free(plan->place);
  free(plan->step);
  free(plan->inside);
  free(plan->outside);
  free(plan->multiplier);
  free(plan->weights);
  free(plan);
}
