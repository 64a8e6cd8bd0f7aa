/* For every processor, and the twin that the vector path is tested against. */
#include "internal.h"

static void means(const float *x, ptrdiff_t pixels, ptrdiff_t channels, float *result) {
  for (ptrdiff_t c = 0; c < channels; c++) result[c] = 0.0f;
  for (ptrdiff_t p = 0; p < pixels; p++, x += channels) {
    for (ptrdiff_t c = 0; c < channels; c++) result[c] += x[c];
  }
  for (ptrdiff_t c = 0; c < channels; c++) result[c] /= (float)pixels;
}

static void means_int8(const int8_t *x, ptrdiff_t pixels, ptrdiff_t channels, int32_t zero_point, float *result) {
  for (ptrdiff_t c = 0; c < channels; c++) {
    int64_t sum = 0;
    for (ptrdiff_t p = 0; p < pixels; p++) sum += x[p * channels + c];
    result[c] = (float)sum / (float)pixels - (float)zero_point;
  }
}

static void multiply(const float *inputs, const float *kernel, const float *bias, ptrdiff_t channels, ptrdiff_t gates,
                     float *values) {
  for (ptrdiff_t n = 0; n < gates; n++, kernel += channels) {
    values[n] = bias[n];
    for (ptrdiff_t c = 0; c < channels; c++) values[n] += inputs[c] * kernel[c];
  }
}

const KeGateNetPath ke_gate_net_portable = {KE_ISA_SCALAR, means, means_int8, multiply};
