/* Kernelwise groups, all taps of one input channel, of inputs as they are: tables want groups that end where chunks of 16
 * channels do. So a patch's taps are laid side by side as channels, 16, 32, ... for each channel that there is, and a
 * convolution of one tap goes over the patches, some rows of outputs at a time. What fills up the taps stands for 0. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "kernels/gated_conv_2d/checked.h"

enum { kMostTables = 1 << 18, kCopied = 8, kFilled = KE_CHUNK };

struct KeMultiBitUnfolded {
  KeMultiBitConv2DPlan *flat;
  uint8_t *bits; /* of its weights */
  int32_t taps;  /* with what fills them up */
  int32_t rows;  /* of outputs at a time */
  size_t plane;  /* bytes of one channel of the padded picture */
  int8_t *planes, *patches;
};

/* One channel has a table for every tap otherwise. More channels are worth it with many taps and outputs only: a table and its
 * patch take as long as twenty products of vectors. */
int ke_multi_bit_unfolds(const KeMultiBitConv2DShape *shape) {
  enum { kLeastProducts = 64 };
  const int64_t taps = (int64_t)shape->conv.kernel_h * shape->conv.kernel_w, channels = shape->conv.in_channels;
  const int64_t vectors = ((int64_t)shape->conv.out_channels + KE_LANES - 1) / KE_LANES;
  const KeIsa isa = ke_multi_bit_path(KE_MULTI_BIT_TABLE, shape->conv.isa)->isa;
  if ((shape->order == 0 && channels > 1) || shape->group_size != taps || taps == 1) return 0;
  if (shape->activation_bits > 0 || isa == KE_ISA_SCALAR) return 0;
  return channels == 1 || (isa == KE_ISA_AVX512BITALG && taps * vectors >= kLeastProducts);
}

/* The signs of every row, with zeros behind them. */
static uint8_t *spread_bits(const KePackedWeights *packed, int32_t taps) {
  size_t bytes = packed->rows;
  if (!ke_multiply(&bytes, (size_t)taps / 8)) return NULL;
  uint8_t *bits = calloc(1, bytes);
  for (size_t r = 0; bits != NULL && r < packed->rows; r++) {
    for (int32_t k = 0; k < packed->group_size; k += 8) {
      const int32_t left = packed->group_size - k;
      bits[r * (size_t)taps / 8 + (size_t)k / 8] = (uint8_t)ke_packed_bits(packed, r, k, left < 8 ? left : 8);
    }
  }
  return bits;
}

KeMultiBitUnfolded *ke_multi_bit_unfold(const KeMultiBitConv2DShape *shape, const KePackedWeights *packed,
                                        const KePackedStreams *streams, const float *levels, const float *bias,
                                        char *error, size_t error_bytes) {
  KeMultiBitUnfolded *unfolded = calloc(1, sizeof(*unfolded));
  if (unfolded == NULL) return NULL;
  unfolded->taps = (packed->group_size + KE_CHUNK - 1) / KE_CHUNK * KE_CHUNK;
  unfolded->bits = spread_bits(packed, unfolded->taps);
  const int64_t channels = (int64_t)shape->conv.in_channels * unfolded->taps;
  if (unfolded->bits != NULL && channels <= INT32_MAX - 64) {
    KeMultiBitConv2DShape flat = *shape;
    flat.conv.kernel_h = flat.conv.kernel_w = 1;
    flat.conv.stride_h = flat.conv.stride_w = 1;
    flat.conv.dilation_h = flat.conv.dilation_w = 1;
    flat.conv.in_channels = (int32_t)channels;
    flat.order = 0;
    flat.group_size = unfolded->taps;
    KePackedStreams spread = *streams;
    spread.bits = unfolded->bits;
    spread.bits_bytes = streams->rows * (size_t)unfolded->taps / 8;
    unfolded->flat = ke_multi_bit_conv_2d_create(&flat, &spread, levels, bias, error, error_bytes);
  }
  if (unfolded->flat != NULL) return unfolded;
  ke_multi_bit_unfolded_destroy(unfolded);
  return NULL;
}

const KeMultiBitPath *ke_multi_bit_unfolded_path(const KeMultiBitUnfolded *unfolded) { return unfolded->flat->path; }

static void drop_sizes(KeMultiBitUnfolded *unfolded) {
  free(unfolded->planes);
  free(unfolded->patches);
  unfolded->planes = unfolded->patches = NULL;
}

void ke_multi_bit_unfolded_destroy(KeMultiBitUnfolded *unfolded) {
  if (unfolded == NULL) return;
  drop_sizes(unfolded);
  ke_multi_bit_conv_2d_destroy(unfolded->flat);
  free(unfolded->bits);
  free(unfolded);
}

/* How many rows or columns so many outputs see. */
static size_t seen(int32_t outputs, int32_t stride, int32_t kernel, int32_t dilation) {
  return (size_t)((int64_t)(outputs - 1) * stride + (int64_t)(kernel - 1) * dilation + 1);
}

int ke_multi_bit_unfolded_resize(KeMultiBitUnfolded *unfolded, const KeMultiBitConv2DPlan *plan) {
  drop_sizes(unfolded);
  const size_t row = (size_t)plan->output_width * unfolded->flat->cell, rows = row > kMostTables ? 1 : kMostTables / row;
  unfolded->rows = rows < (size_t)plan->output_height ? (int32_t)rows : plan->output_height;
  const int status = ke_multi_bit_conv_2d_resize(unfolded->flat, 1, unfolded->rows, plan->output_width);
  if (status != KE_GATED_CONV_2D_OK) return status; /* patches fit: they are smaller than what it has */
  const KeGatedConv2DShape *conv = &plan->shape.conv;
  size_t plane = seen(plan->output_height, conv->stride_h, conv->kernel_h, conv->dilation_h);
  if (!ke_multiply(&plane, seen(plan->output_width, conv->stride_w, conv->kernel_w, conv->dilation_w)) || plane > INT32_MAX) return KE_GATED_CONV_2D_BAD_SIZE;
  size_t planes = plane;
  if (!ke_multiply(&planes, (size_t)conv->in_channels) || planes > PTRDIFF_MAX - kCopied) return KE_GATED_CONV_2D_BAD_SIZE;
  unfolded->plane = plane;
  unfolded->planes = malloc(planes + kCopied);
  const size_t patches = (size_t)unfolded->rows * (size_t)plan->output_width;
  unfolded->patches = malloc(patches * (size_t)unfolded->flat->shape.conv.in_channels);
  return unfolded->planes == NULL || unfolded->patches == NULL ? KE_GATED_CONV_2D_NO_MEMORY : KE_GATED_CONV_2D_OK;
}

/* The picture channel by channel, with a border. */
static void make_planes(const KeMultiBitUnfolded *unfolded, const KeMultiBitConv2DPlan *plan, const int8_t *x,
                        int32_t zero_point) {
  const int32_t channels = plan->shape.conv.in_channels;
  const KeGatedConv2DShape *conv = &plan->shape.conv;
  const int64_t width = (int64_t)seen(plan->output_width, conv->stride_w, conv->kernel_w, conv->dilation_w);
  const int64_t height = (int64_t)unfolded->plane / width;
  memset(unfolded->planes, zero_point, unfolded->plane * (size_t)channels + kCopied);
  for (int64_t r = 0; r < plan->height && r + plan->pad_top < height; r++) {
    for (int64_t c = 0; c < plan->width && c + plan->pad_left < width; c++) {
      const int8_t *from = x + (r * plan->width + c) * channels;
      int8_t *to = unfolded->planes + (r + plan->pad_top) * width + c + plan->pad_left;
      for (int32_t i = 0; i < channels; i++) to[(size_t)i * unfolded->plane] = from[i];
    }
  }
}

typedef struct Patches {
  const KeMultiBitUnfolded *unfolded;
  const KeMultiBitConv2DPlan *plan;
  int32_t first, zero_point;
} Patches;

/* One row of outputs. A row of taps is copied eight bytes at a time, what fills up the taps 16: bytes behind them are
 * overwritten by what follows. */
static void make_patches(void *argument, int row) {
  const Patches *job = argument;
  const KeMultiBitConv2DPlan *plan = job->plan;
  const KeMultiBitUnfolded *unfolded = job->unfolded;
  const KeGatedConv2DShape *conv = &plan->shape.conv;
  const size_t width = seen(plan->output_width, conv->stride_w, conv->kernel_w, conv->dilation_w);
  const size_t top = (size_t)(job->first + row) * (size_t)conv->stride_h, taps = (size_t)unfolded->taps;
  const int is_short = conv->dilation_w == 1 && conv->kernel_w <= kCopied;
  const size_t kernel_w = (size_t)conv->kernel_w, pitch = (size_t)conv->dilation_h * width;
  const size_t real = (size_t)conv->kernel_h * kernel_w;
  int8_t zeros[kFilled];
  memset(zeros, job->zero_point, sizeof(zeros));
  int8_t *end = unfolded->patches + (size_t)(row + 1) * (size_t)plan->output_width * (size_t)conv->in_channels * taps;
  int8_t *to = end - (size_t)plan->output_width * (size_t)conv->in_channels * taps;
  for (int32_t c = 0; c < plan->output_width; c++) {
    const int8_t *from = unfolded->planes + top * width + (size_t)c * (size_t)conv->stride_w;
    for (int32_t i = 0; i < conv->in_channels; i++, from += unfolded->plane, to += taps) {
      for (size_t r = 0; r < (size_t)conv->kernel_h; r++) {
        int8_t *tap = to + r * kernel_w;
        if (is_short && tap + kCopied <= end) {
          memcpy(tap, from + r * pitch, kCopied);
        } else {
          for (size_t k = 0; k < kernel_w; k++) tap[k] = from[r * pitch + k * (size_t)conv->dilation_w];
        }
      }
      if (to + real + kFilled <= end) {
        memcpy(to + real, zeros, kFilled);
      } else {
        memset(to + real, job->zero_point, taps - real);
      }
    }
  }
}

int ke_multi_bit_unfolded_run(KeMultiBitUnfolded *unfolded, const KeMultiBitConv2DPlan *plan, int32_t max_bits,
                              const KeMultiBitIntegers *x, uint8_t *y, const KeParallel *parallel) {
  make_planes(unfolded, plan, x->values, x->zero_point);
  const size_t element = plan->shape.is_int8 ? 1 : sizeof(float);
  const size_t row_bytes = (size_t)plan->output_width * (size_t)plan->shape.conv.out_channels * element;
  for (int32_t first = 0; first < plan->output_height; first += unfolded->rows) {
    const int32_t last = plan->output_height - unfolded->rows; /* some rows at the end may be computed twice */
    Patches job = {unfolded, plan, first < last ? first : last, x->zero_point};
    parallel->run(parallel->pool, unfolded->rows, make_patches, &job);
    const KeMultiBitIntegers patches = {unfolded->patches, x->scale, x->zero_point};
    ke_multi_bit_run_integers(unfolded->flat, max_bits, &patches, y + (size_t)job.first * row_bytes, parallel);
  }
  return KE_GATED_CONV_2D_OK;
}
