/* What the multi-bit ops share: the streams of their weights, and `max_bits`. */
#ifndef KE_OPS_MULTI_BIT_WEIGHTS_H_
#define KE_OPS_MULTI_BIT_WEIGHTS_H_

#include "kernels/multi_bit/packed.h"
#include "keras_efficient_plugin.h"

enum { KE_MULTI_BIT_MESSAGE = 256 };

/* max_bits, then the weights widths, bits, scales, levels, bias: all of KeOp.arguments after x. Decompositions may need the
 * scales as a column, and then hold them as one. */
#define KE_MULTI_BIT_ARGUMENTS                                                                                \
  {"max_bits", KE_ARGUMENT_INPUT, KE_TYPE_INT32, 1}, {"widths", KE_ARGUMENT_WEIGHT, KE_TYPE_UINT8, 1},        \
      {"bits", KE_ARGUMENT_WEIGHT, KE_TYPE_UINT8, 1}, {"scales", KE_ARGUMENT_WEIGHT, KE_TYPE_FLOAT32, -1},    \
      {"levels", KE_ARGUMENT_WEIGHT, KE_TYPE_FLOAT32, 1}, {"bias", KE_ARGUMENT_WEIGHT, KE_TYPE_FLOAT32, 1}

/* A copy of the weights: plans are made when the inputs are known, and again when these change. */
typedef struct KeMultiBitTensors {
  KePackedStreams streams;
  const float *levels, *bias;
  int32_t outputs;
  void *memory;
} KeMultiBitTensors;

/* 0, or -1 after a report. Whether the streams fit the inputs is known only when these are. */
int ke_multi_bit_read_weights(const KeInit *init, int32_t activation_bits, KeMultiBitTensors *tensors);
void ke_multi_bit_free_weights(KeMultiBitTensors *tensors);

/* 0, or -1 after a report. */
int ke_multi_bit_check_max_bits(const KePrepare *prepare);

/* The smallest. */
int32_t ke_multi_bit_max_bits(const KeTensor *max_bits);

#endif
