/* Gated two-dimensional convolution: channels that a gate shuts are neither read nor computed.
 *
 *   y[b, p, o] = g_out[b, o] * act(bias[o] + sum over taps t and open inputs c of x[b, p * stride + t * dilation, c] *
 * W[o, t, c])
 *
 * x and y are NHWC, W is OHWI, all float32; no pointer needs to be aligned.
 *   g_in  [batch, in_channels]: 0 shuts the channel, its values are not used (they may be NaN); anything else opens it
 * and never scales it. g_out [batch, out_channels]: 0 gives exactly 0 and nothing is computed; anything else scales
 * after the activation. The gates may change with every call and differ between the samples of a batch.
 */
#ifndef KE_GATED_CONV_2D_H_
#define KE_GATED_CONV_2D_H_

#include <stdint.h>

#include "cpu.h"
#include "ke_parallel.h"

typedef struct KeGatedConv2DShape {
  int32_t kernel_h, kernel_w; /* all sizes, strides and dilations: at least 1 */
  int32_t in_channels, out_channels;
  int32_t stride_h, stride_w;
  int32_t dilation_h, dilation_w;
  int32_t padding;    /* 0 valid; 1 same, as TensorFlow pads */
  int32_t activation; /* 0 linear, 1 relu, 2 relu6 */
  KeIsa isa;          /* the best path that may be used; the caller answers for the processor having it */
} KeGatedConv2DShape;

typedef struct KeGatedConv2DPlan KeGatedConv2DPlan;

enum {
  KE_GATED_CONV_2D_OK = 0,
  KE_GATED_CONV_2D_BAD_SIZE = 1, /* a negative size, or more memory than can be addressed */
  KE_GATED_CONV_2D_NO_MEMORY = 2,
  KE_GATED_CONV_2D_NOT_SIZED = 3, /* run without a successful resize */
};

/* Packs the weights, so kernel_ohwi [out, kernel_h, kernel_w, in] and bias [out] (or NULL for zeros) may be freed
 * afterwards. Returns NULL on failure, with one sentence of static storage in *error (if error is not NULL). */
KeGatedConv2DPlan *ke_gated_conv_2d_create(const KeGatedConv2DShape *shape, const float *kernel_ohwi, const float *bias,
                                           const char **error);

/* NULL, or one sentence of static storage on what is wrong with the shape. */
const char *ke_gated_conv_2d_check(const KeGatedConv2DShape *shape);

/* As below, and how many rows and columns of padding come before the first ones. */
int ke_gated_conv_2d_geometry(const KeGatedConv2DShape *shape, int32_t height, int32_t width, int32_t *output_height,
                              int32_t *output_width, int32_t *pad_top, int32_t *pad_left);

/* The size of the output for an input of height x width; 0 where the window does not fit. Returns OK or BAD_SIZE. */
int ke_gated_conv_2d_output_size(const KeGatedConv2DShape *shape, int32_t height, int32_t width, int32_t *output_height,
                                 int32_t *output_width);

/* Allocates everything that a run with these sizes and at most `threads` threads needs. After a failure, and before the
 * first call, the plan cannot run. */
int ke_gated_conv_2d_resize(KeGatedConv2DPlan *plan, int32_t batch, int32_t height, int32_t width, int32_t threads);

/* Computes y. Allocates nothing. `parallel` may be NULL for one thread. Adds the MACs that the open channels cost, halo
 * included, to *executed_macs (if it is not NULL): sum over the batch of Ho * Wo * kh * kw * open inputs * open
 * outputs. One plan runs in one thread at a time. Returns OK or NOT_SIZED. */
int ke_gated_conv_2d_run(KeGatedConv2DPlan *plan, const float *x, const float *g_in, const float *g_out, float *y,
                         const KeParallel *parallel, uint64_t *executed_macs);

/* Frees the plan; NULL is allowed. */
void ke_gated_conv_2d_destroy(KeGatedConv2DPlan *plan);

#endif
