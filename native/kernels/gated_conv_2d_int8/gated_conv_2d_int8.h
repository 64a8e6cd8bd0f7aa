/* The gated convolution on int8: channels that a gate shuts are neither read nor computed, and count as the real number 0.
 *
 *   a[b, p, o] = bias[o] + sum over taps t and open inputs c of (x[b, p * stride + t * dilation, c] - input_zero_point) *
 *                W[o, t, c]
 *   y[b, p, o] = saturate(round((float)act(a) * (step[o] / output_scale * g_out[b, o])) + output_zero_point)
 *
 * with step[o] = input_scale * kernel_scale[o]. a has 32 bits and wraps; relu6 cuts it at round(6 / step[o]). All
 * arithmetic beyond a is float32 in the order written, round takes halves to even, and every path gives the same bytes.
 * x and y are NHWC, W is OHWI; no pointer needs to be aligned to more than its elements. The gates are those of the float
 * convolution; where g_out is 0 or shuts, y is output_zero_point. */
#ifndef KE_GATED_CONV_2D_INT8_H_
#define KE_GATED_CONV_2D_INT8_H_

#include <stdint.h>

#include "kernels/gated_conv_2d/gated_conv_2d.h"

typedef struct KeGatedConv2DInt8Shape {
  KeGatedConv2DShape conv;
  float input_scale, output_scale;              /* positive */
  int32_t input_zero_point, output_zero_point; /* -128 to 127 */
} KeGatedConv2DInt8Shape;

typedef struct KeGatedConv2DInt8Plan KeGatedConv2DInt8Plan;

/* kernel_ohwi [out, kernel_h, kernel_w, in] must stay where it is until the plan is destroyed; kernel_scale [out] and bias
 * [out] (or NULL for zeros) need not. Returns NULL on failure, with one sentence of static storage in *error (if error is
 * not NULL). */
KeGatedConv2DInt8Plan *ke_gated_conv_2d_int8_create(const KeGatedConv2DInt8Shape *shape, const int8_t *kernel_ohwi,
                                                    const float *kernel_scale, const int32_t *bias, const char **error);

/* The statuses, the size of the output and the counted MACs are those of the float convolution. */
int ke_gated_conv_2d_int8_resize(KeGatedConv2DInt8Plan *plan, int32_t batch, int32_t height, int32_t width,
                                 int32_t threads);
int ke_gated_conv_2d_int8_run(KeGatedConv2DInt8Plan *plan, const int8_t *x, const float *g_in, const float *g_out,
                              int8_t *y, const KeParallel *parallel, uint64_t *executed_macs);
void ke_gated_conv_2d_int8_destroy(KeGatedConv2DInt8Plan *plan);

#endif
