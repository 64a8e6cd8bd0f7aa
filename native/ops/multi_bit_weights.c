#include "multi_bit_weights.h"

#include <stdlib.h>
#include <string.h>

int ke_multi_bit_read_weights(const KeInit *init, int32_t activation_bits, KeMultiBitTensors *tensors) {
  const KeTensor *weights = init->weights;
  const size_t rows = weights[2].bytes / sizeof(float);
  const int32_t levels = weights[3].dims[0], outputs = weights[4].dims[0];
  if (rows < 1 || outputs < 1) {
    init->report(init, "Invalid value for arguments `scales` and `bias`. Expected at least one number in each. Received: %zu and %d.",
                 rows, outputs);
    return -1;
  }
  if (levels != activation_bits + 1) {
    init->report(init, "Invalid value for argument `levels`. Expected %d numbers for inputs of %d bits. Received: %d.",
                 activation_bits + 1, activation_bits, levels);
    return -1;
  }
  enum { kWeights = 5 };
  static const int floats_first[kWeights] = {2, 3, 4, 0, 1};
  size_t bytes = 1;
  for (int i = 0; i < kWeights; i++) bytes += weights[i].bytes;
  uint8_t *memory = malloc(bytes), *copies[kWeights], *next = memory;
  if (memory == NULL) {
    init->report(init, "Out of memory for %zu bytes of weights.", bytes);
    return -1;
  }
  for (int i = 0; i < kWeights; i++) {
    const KeTensor *weight = &weights[floats_first[i]];
    copies[floats_first[i]] = next;
    if (weight->bytes > 0) memcpy(next, weight->data, weight->bytes);
    next += weight->bytes;
  }
  *tensors = (KeMultiBitTensors){.streams = {.widths = copies[0],
                                             .bits = copies[1],
                                             .scales = (const float *)(const void *)copies[2],
                                             .widths_bytes = weights[0].bytes,
                                             .bits_bytes = weights[1].bytes,
                                             .rows = rows},
                                 .levels = (const float *)(const void *)copies[3],
                                 .bias = (const float *)(const void *)copies[4],
                                 .outputs = outputs,
                                 .memory = memory};
  return 0;
}

void ke_multi_bit_free_weights(KeMultiBitTensors *tensors) {
  free(tensors->memory);
  tensors->memory = NULL;
}

int ke_multi_bit_check_max_bits(const KePrepare *prepare) {
  if (prepare->inputs[1].dims[0] >= 1) return 0;
  prepare->report(prepare, "Invalid value for argument `max_bits`. Expected at least one number. Received: none.");
  return -1;
}

int32_t ke_multi_bit_max_bits(const KeTensor *max_bits) {
  const int32_t *values = max_bits->data;
  int32_t smallest = INT32_MAX;
  for (int32_t i = 0; i < max_bits->dims[0]; i++) smallest = values[i] < smallest ? values[i] : smallest;
  return smallest;
}
