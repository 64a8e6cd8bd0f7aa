/* Dense layer with multi-bit weights (see kernels/multi_bit/packed.h).
 *
 *   y[b, o] = act(bias[o] + sum over k of W[o, k] * x^[b, k])
 *
 * x^ is x itself, or its nearest level where inputs have bits: then this is the convolution of kernels/multi_bit_conv_2d
 * over a row of samples. Inputs as they are take one of these paths:
 *
 * with VBMI and VNNI  sums of six inputs are kept in 8 bits, relative to the largest of their group; the rest is as exact
 *                     as sums of floats. The op leaves small layers to the path below.
 * NEON                fixed point: a group's inputs have 21 bits and a sign, relative to the largest of them.
 * all others          floats. */
#ifndef KE_MULTI_BIT_DENSE_H_
#define KE_MULTI_BIT_DENSE_H_

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "ke_parallel.h"
#include "kernels/multi_bit/packed.h"

typedef struct KeMultiBitDenseShape {
  int32_t inputs, outputs, group_size; /* at least 1 */
  int32_t bases;                       /* 0 to 8 */
  int32_t activation_bits;             /* 0 to 3 */
  int32_t activation;                  /* 0 linear, 1 relu, 2 relu6 */
  KeIsa isa;                           /* the best path that may be used */
} KeMultiBitDenseShape;

typedef struct KeMultiBitDensePlan KeMultiBitDensePlan;

/* The streams and bias [outputs] must stay valid as long as the plan; levels [1 + activation_bits] need not. NULL on failure,
 * with one sentence in `error`. */
KeMultiBitDensePlan *ke_multi_bit_dense_create(const KeMultiBitDenseShape *shape, const KePackedStreams *streams,
                                               const float *levels, const float *bias, char *error, size_t error_bytes);

/* Makes room for batches of this size. 0, or -1 when there is none. */
int ke_multi_bit_dense_resize(KeMultiBitDensePlan *plan, int32_t batch);

/* x [batch, inputs], y [batch, outputs], of the batch that there is room for. One plan runs in one thread at a time. */
int ke_multi_bit_dense_run(KeMultiBitDensePlan *plan, int32_t max_bits, const float *x, float *y,
                           const KeParallel *parallel);

/* NULL is allowed. */
void ke_multi_bit_dense_destroy(KeMultiBitDensePlan *plan);

#endif
