#include "packed.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAY(...) snprintf(error, error_bytes, __VA_ARGS__)

static int32_t width_bits(int32_t bases) {
  int32_t bits = 0;
  while (bases >> bits) bits++;
  return bits;
}

/* Bytes of a stream of so many bits, at least one. */
static size_t stream_bytes(size_t bits) { return bits == 0 ? 1 : (bits - 1) / 8 + 1; }

static uint32_t bit_at(const uint8_t *stream, size_t place) { return (uint32_t)(stream[place / 8] >> (place % 8)) & 1u; }

static int check_sizes(const KePackedWeights *packed, const KePackedStreams *streams, char *error, size_t error_bytes) {
  size_t all = (size_t)packed->outputs, row_bits;
  const size_t size = (size_t)width_bits(packed->bases);
  if (__builtin_mul_overflow(all, (size_t)packed->groups, &all) || all > SIZE_MAX / 64 ||
      __builtin_mul_overflow(streams->rows, (size_t)packed->group_size, &row_bits)) {
    SAY("Invalid packed weights. Expected sizes that fit into memory. Received: %d outputs of %d groups of %d.",
        packed->outputs, packed->groups, packed->group_size);
    return -1;
  }
  if (streams->widths_bytes != stream_bytes(all * size)) {
    SAY("Invalid size of `widths`. Expected %zu bytes for %d outputs of %d groups of at most %d bits. Received: %zu.",
        stream_bytes(all * size), packed->outputs, packed->groups, packed->bases, streams->widths_bytes);
    return -1;
  }
  if (streams->rows < 1 || streams->bits_bytes != stream_bytes(row_bits)) {
    SAY("Invalid size of `bits`. Expected %zu bytes for %zu scales of groups of %d. Received: %zu.",
        stream_bytes(row_bits), streams->rows, packed->group_size, streams->bits_bytes);
    return -1;
  }
  return 0;
}

static int read_widths(KePackedWeights *packed, const KePackedStreams *streams, char *error, size_t error_bytes) {
  const size_t all = (size_t)packed->outputs * (size_t)packed->groups, size = (size_t)width_bits(packed->bases);
  size_t row = 0;
  for (size_t g = 0; g < all; g++) {
    uint32_t width = 0;
    for (size_t i = 0; i < size; i++) width |= bit_at(streams->widths, g * size + i) << i;
    if (width > (uint32_t)packed->bases) {
      SAY("Invalid value in `widths`. Expected at most %d bits. Received: %u.", packed->bases, width);
      return -1;
    }
    packed->widths[g] = (uint8_t)width;
    packed->first[g] = row;
    row += width;
  }
  if (row != streams->rows && !(row == 0 && streams->rows == 1)) {
    SAY("Invalid size of `scales`. Expected %zu, the sum of all bit-widths. Received: %zu.", row, streams->rows);
    return -1;
  }
  for (size_t r = 0; r < streams->rows; r++) {
    if (!(fabsf(streams->scales[r]) < 1e18f)) {
      SAY("Invalid value in `scales`. Expected numbers below 1e18 in magnitude. Received: %g.", (double)streams->scales[r]);
      return -1;
    }
  }
  return 0;
}

int ke_packed_open(KePackedWeights *packed, int32_t outputs, int32_t length, int32_t group_size, int32_t bases,
                   const KePackedStreams *streams, char *error, size_t error_bytes) {
  memset(packed, 0, sizeof(*packed));
  if (outputs < 1 || length < 1 || group_size < 1 || bases < 0 || bases > KE_MULTI_BIT_MAX_WIDTH) {
    SAY("Invalid packed weights. Expected positive sizes. Received: %d outputs of %d weights in groups of %d.", outputs,
        length, group_size);
    return -1;
  }
  packed->outputs = outputs;
  packed->length = length;
  packed->group_size = group_size;
  packed->groups = (length - 1) / group_size + 1;
  packed->bases = bases;
  packed->rows = streams->rows;
  packed->bits = streams->bits;
  packed->bits_bytes = streams->bits_bytes;
  packed->scales = streams->scales;
  if (check_sizes(packed, streams, error, error_bytes) != 0) return -1;
  const size_t all = (size_t)outputs * (size_t)packed->groups;
  packed->widths = malloc(all);
  packed->first = malloc(all * sizeof(size_t));
  if (packed->widths == NULL || packed->first == NULL) {
    SAY("Out of memory for the bit-widths.");
  } else if (read_widths(packed, streams, error, error_bytes) == 0) {
    return 0;
  }
  ke_packed_close(packed);
  return -1;
}

void ke_packed_close(KePackedWeights *packed) {
  free(packed->widths);
  free(packed->first);
  packed->widths = NULL;
  packed->first = NULL;
}

uint32_t ke_packed_bits(const KePackedWeights *packed, size_t row, int32_t k, int32_t count) {
  const size_t place = row * (size_t)packed->group_size + (size_t)k, byte = place / 8;
  uint64_t word = 0;
  for (size_t i = 0; i < 5 && byte + i < packed->bits_bytes; i++) word |= (uint64_t)packed->bits[byte + i] << (8 * i);
  return (uint32_t)(word >> (place % 8)) & (count == 32 ? UINT32_MAX : (1u << count) - 1u);
}
