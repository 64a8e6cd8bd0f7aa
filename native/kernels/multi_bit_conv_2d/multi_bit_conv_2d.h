/* Convolution with multi-bit weights (see kernels/multi_bit/packed.h) of float32 or int8 inputs.
 *
 *   y[b, p, o] = act(bias[o] + sum over taps t and inputs c of W[o, t, c] * x^[b, p * stride + t * dilation, c])
 *
 * x^ is x itself, or its nearest level where inputs have bits. Three ways to compute it, by what the weights allow:
 *
 * popcount  multi-bit inputs. A scale times a level becomes 15 bits and a sign, relative to the largest of its output;
 *           everything else is exact in integers.
 * table     inputs as they are, int8 or made int8 with the range of their sample: sums of four of them are kept in 8 bits,
 *           rounded to a quarter. Levels become integers of at most 31 in the nearest proportions, whose sums are exact.
 *           Scales have 8 bits, relative to the largest of their output.
 * exact     in float32: for groups that end within 16 channels of a tap, and on processors without the others. Kernelwise groups
 *           become whole chunks where that is faster (unfold.c).
 *
 * Within the first two all paths give the same bytes. int8 outputs are rounded from the float result, halves to even.
 * Padding counts as the real number 0. x and y are NHWC; no pointer needs to be aligned to more than its elements. */
#ifndef KE_MULTI_BIT_CONV_2D_H_
#define KE_MULTI_BIT_CONV_2D_H_

#include <stddef.h>
#include <stdint.h>

#include "ke_parallel.h"
#include "kernels/gated_conv_2d/gated_conv_2d.h"
#include "kernels/multi_bit/packed.h"

typedef struct KeMultiBitConv2DShape {
  KeGatedConv2DShape conv;
  int32_t order;           /* of one output's weights: 0 height, width, inputs; 1 inputs, height, width */
  int32_t group_size, bases;
  int32_t activation_bits; /* 0 to 3 */
  int32_t is_int8;         /* x and y; float32 otherwise, and what follows is not read */
  float input_scale, output_scale;
  int32_t input_zero_point, output_zero_point;
} KeMultiBitConv2DShape;

typedef struct KeMultiBitConv2DPlan KeMultiBitConv2DPlan;

/* The streams must stay valid as long as the plan; levels [1 + activation_bits] and bias [outputs] need not. NULL on
 * failure, with one sentence in `error`. */
KeMultiBitConv2DPlan *ke_multi_bit_conv_2d_create(const KeMultiBitConv2DShape *shape, const KePackedStreams *streams,
                                                  const float *levels, const float *bias, char *error,
                                                  size_t error_bytes);

/* The statuses are those of the gated convolution. */
int ke_multi_bit_conv_2d_resize(KeMultiBitConv2DPlan *plan, int32_t batch, int32_t height, int32_t width);
int ke_multi_bit_conv_2d_run(KeMultiBitConv2DPlan *plan, int32_t max_bits, const void *x, void *y,
                             const KeParallel *parallel);
void ke_multi_bit_conv_2d_destroy(KeMultiBitConv2DPlan *plan);

#endif
