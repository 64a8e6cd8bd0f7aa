/* Random multi-bit weights for tests: unpacked, and packed bit by bit as the format says. */
#ifndef KE_TESTS_PACKED_WEIGHTS_H_
#define KE_TESTS_PACKED_WEIGHTS_H_

#include <string.h>

#include "checks.h"
#include "kernels/multi_bit/packed.h"

typedef struct TestWeights {
  int outputs, length, group_size, groups, bases;
  int *widths;     /* [outputs, groups] */
  float *scales;   /* [outputs, groups, bases] */
  uint8_t *minus;  /* [outputs, groups, bases, group_size] */
  uint8_t *width_stream, *bit_stream;
  float *scale_stream;
  KePackedStreams streams;
} TestWeights;

static inline void *exactly(size_t bytes) {
  void *memory = malloc(bytes == 0 ? 1 : bytes);
  if (memory == NULL) exit(2);
  return memory;
}

static inline void put_bit(uint8_t *stream, size_t place, int bit) {
  stream[place / 8] |= (uint8_t)(bit << (place % 8));
}

/* Widths from 0 to bases, or all `bases` where `full`. */
static inline TestWeights make_weights(uint64_t *random, int outputs, int length, int group_size, int bases, int full) {
  TestWeights w = {.outputs = outputs, .length = length, .group_size = group_size, .bases = bases};
  w.groups = (length + group_size - 1) / group_size;
  const size_t groups = (size_t)outputs * (size_t)w.groups, slots = groups * (size_t)(bases > 0 ? bases : 1);
  size_t rows = 0, width_bits = 0;
  while (bases >> width_bits) width_bits++;
  w.widths = exactly(groups * sizeof(int));
  w.scales = exactly(slots * sizeof(float));
  w.minus = exactly(slots * (size_t)group_size);
  for (size_t g = 0; g < groups; g++) rows += (size_t)(w.widths[g] = full ? bases : random_below(random, bases + 1));
  for (size_t i = 0; i < slots; i++) w.scales[i] = random_float(random);
  for (size_t i = 0; i < slots * (size_t)group_size; i++) w.minus[i] = (uint8_t)random_below(random, 2);
  const size_t stored = rows > 0 ? rows : 1, width_bytes = groups * width_bits > 0 ? (groups * width_bits + 7) / 8 : 1;
  const size_t bit_bytes = (stored * (size_t)group_size + 7) / 8;
  w.width_stream = memset(exactly(width_bytes), 0, width_bytes);
  w.bit_stream = memset(exactly(bit_bytes), 0, bit_bytes);
  w.scale_stream = memset(exactly(stored * sizeof(float)), 0, stored * sizeof(float));
  size_t row = 0;
  for (size_t g = 0; g < groups; g++) {
    for (size_t i = 0; i < width_bits; i++) put_bit(w.width_stream, g * width_bits + i, w.widths[g] >> i & 1);
    for (int i = 0; i < w.widths[g]; i++, row++) {
      const size_t slot = g * (size_t)bases + (size_t)i;
      w.scale_stream[row] = w.scales[slot];
      for (size_t k = 0; k < (size_t)group_size; k++) {
        put_bit(w.bit_stream, row * (size_t)group_size + k, w.minus[slot * (size_t)group_size + k]);
      }
    }
  }
  w.streams = (KePackedStreams){w.width_stream, w.bit_stream, w.scale_stream, width_bytes, bit_bytes, stored};
  return w;
}

/* Weight k of an output, from its first `max_bits` bases; *magnitude receives the sum of their scales' magnitudes. */
static inline double weight_at(const TestWeights *w, int o, int k, int max_bits, double *magnitude) {
  const size_t g = (size_t)o * (size_t)w->groups + (size_t)(k / w->group_size);
  double sum = 0.0;
  *magnitude = 0.0;
  for (int i = 0; i < w->widths[g] && i < max_bits; i++) {
    const size_t slot = g * (size_t)w->bases + (size_t)i;
    const double scale = w->scales[slot];
    sum += w->minus[slot * (size_t)w->group_size + (size_t)(k % w->group_size)] ? -scale : scale;
    *magnitude += scale < 0 ? -scale : scale;
  }
  return sum;
}

static inline void free_weights(TestWeights *w) {
  free(w->widths);
  free(w->scales);
  free(w->minus);
  free(w->width_stream);
  free(w->bit_stream);
  free(w->scale_stream);
}

#endif
