/* The packed form of multi-bit weights, as files hold it: ragged, without any gaps.
 *
 * The `length` weights of one output are cut into groups of `group_size`, the last of which may be shorter. Group p of
 * output o is the sum of widths[o, p] rows, its bases; row r is scales[r] times a vector of signs, group_size bits of the
 * stream: 1 is -1, the least significant bit of a byte comes first. Rows are in the order output, group, basis. The
 * widths are a stream, too, of as few bits each as hold `bases`, the largest of them. */
#ifndef KE_MULTI_BIT_PACKED_H_
#define KE_MULTI_BIT_PACKED_H_

#include <stddef.h>
#include <stdint.h>

enum { KE_MULTI_BIT_MAX_WIDTH = 8 };

typedef struct KePackedWeights {
  int32_t outputs, length, group_size, groups; /* groups: of one output */
  int32_t bases;
  size_t rows;
  const uint8_t *bits; /* the caller's */
  size_t bits_bytes;
  const float *scales; /* the caller's */
  uint8_t *widths;     /* [outputs, groups] */
  size_t *first;       /* [outputs, groups]: the group's first row */
} KePackedWeights;

typedef struct KePackedStreams {
  const uint8_t *widths, *bits;
  const float *scales;
  size_t widths_bytes, bits_bytes, rows;
} KePackedStreams;

/* Reads widths and finds the rows. 0, or -1 with one sentence in `error` when sizes or values do not fit; there is
 * nothing to close then. The streams must stay valid. */
int ke_packed_open(KePackedWeights *packed, int32_t outputs, int32_t length, int32_t group_size, int32_t bases,
                   const KePackedStreams *streams, char *error, size_t error_bytes);

void ke_packed_close(KePackedWeights *packed);

/* `count` bits, at most 32, of a row from its k-th on, the first in the lowest place. */
uint32_t ke_packed_bits(const KePackedWeights *packed, size_t row, int32_t k, int32_t count);

/* How many weights group p has: group_size, or fewer in the last one. */
static inline int32_t ke_packed_group_length(const KePackedWeights *packed, int32_t p) {
  const int32_t left = packed->length - p * packed->group_size;
  return left < packed->group_size ? left : packed->group_size;
}

#endif
