/* Gated depthwise convolution: output channels that a gate shuts are not computed.
 *
 *   y[b, p, c M + m] = g[b, c M + m] * act(bias[c M + m] + sum over taps t of x[b, p * stride + t * dilation, c] *
 * W[t, c M + m])
 *
 * x and y are NHWC, W is [kernel_h, kernel_w, C M], all float32; no pointer needs to be aligned.
 *   g [batch, C M]: 0 gives exactly 0, and what its input holds is not used (it may be NaN); anything else scales after the
 * activation. The gates may change with every call and differ between the samples of a batch.
 *
 * The shape is that of the gated convolution, with out_channels = C M a multiple of in_channels = C. */
#ifndef KE_GATED_DEPTHWISE_CONV_2D_H_
#define KE_GATED_DEPTHWISE_CONV_2D_H_

#include "kernels/gated_conv_2d/gated_conv_2d.h"

typedef struct KeGatedDepthwiseConv2DPlan KeGatedDepthwiseConv2DPlan;

/* The weights are copied. bias [C M] may be NULL for zeros. Returns NULL on failure, with one sentence of static storage in
 * *error (if error is not NULL). */
KeGatedDepthwiseConv2DPlan *ke_gated_depthwise_conv_2d_create(const KeGatedConv2DShape *shape, const float *kernel,
                                                              const float *bias, const char **error);

/* Allocates everything that a run with these sizes and at most `threads` threads needs. After a failure, and before the
 * first call, the plan cannot run. Returns a status of the gated convolution, as the run does. */
int ke_gated_depthwise_conv_2d_resize(KeGatedDepthwiseConv2DPlan *plan, int32_t batch, int32_t height, int32_t width,
                                      int32_t threads);

/* Computes y. Allocates nothing. `parallel` may be NULL for one thread. Adds the MACs of the open channels, halo included,
 * to *executed_macs (if it is not NULL). One plan runs in one thread at a time. */
int ke_gated_depthwise_conv_2d_run(KeGatedDepthwiseConv2DPlan *plan, const float *x, const float *g, float *y,
                                   const KeParallel *parallel, uint64_t *executed_macs);

/* Frees the plan; NULL is allowed. */
void ke_gated_depthwise_conv_2d_destroy(KeGatedDepthwiseConv2DPlan *plan);

#endif
