/* Dense layer whose weights are sums of scaled sign vectors.
 *
 *   y[b, o] = act(bias[o] + sum over groups p and bases i of scales[o, p, i] * sum over k of beta[o, p, i, k] * x[b, p * group_size + k])
 *
 * beta is -1 where the bit is 1 and +1 where it is 0; the first weight of a group is the least significant bit of its first
 * byte. x [batch, inputs] is float32; all paths are as exact as sums of floats (NEON computes in fixed point: a group's
 * inputs have 21 bits and a sign, relative to the largest of them). The last group may reach past
 * the inputs; what it finds there is 0. */
#ifndef KE_MULTI_BIT_DENSE_H_
#define KE_MULTI_BIT_DENSE_H_

#include <stdint.h>

#include "cpu.h"
#include "ke_parallel.h"

typedef struct KeMultiBitDenseShape {
  int32_t outputs, groups, bases; /* at least 1 */
  int32_t group_size;             /* a multiple of 8 */
  int32_t activation;             /* 0 linear, 1 relu, 2 relu6 */
  KeIsa isa;                      /* the best path that may be used */
} KeMultiBitDenseShape;

typedef struct KeMultiBitDensePlan KeMultiBitDensePlan;

/* bits [outputs, groups, bases, group_size / 8], scales [outputs, groups, bases] and bias [outputs] must stay valid as long as
 * the plan. NULL on failure, with one sentence of static storage in *error. */
KeMultiBitDensePlan *ke_multi_bit_dense_create(const KeMultiBitDenseShape *shape, const uint8_t *bits, const float *scales,
                                               const float *bias, const char **error);

/* x [batch, inputs], y [batch, outputs], with groups * group_size - group_size < inputs <= groups * group_size: checked, -1 if not
 * so. One plan runs in one thread at a time. */
int ke_multi_bit_dense_run(KeMultiBitDensePlan *plan, int32_t batch, int32_t inputs, const float *x, float *y,
                           const KeParallel *parallel);

/* NULL is allowed. */
void ke_multi_bit_dense_destroy(KeMultiBitDensePlan *plan);

#endif
