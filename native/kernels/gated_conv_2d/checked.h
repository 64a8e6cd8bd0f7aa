/* Arithmetic on sizes that says when it overflows. */
#ifndef KE_GATED_CONV_2D_CHECKED_H_
#define KE_GATED_CONV_2D_CHECKED_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* *total *= factor; false on overflow. */
static inline bool ke_multiply(size_t *total, size_t factor) { return !__builtin_mul_overflow(*total, factor, total); }

/* Appends `bytes` to an arena that is *total bytes long so far: *offset is where they begin, a multiple of 64. False on
 * overflow. */
static inline bool ke_reserve(size_t *total, size_t bytes, size_t *offset) {
  size_t rounded;
  *offset = *total;
  if (__builtin_add_overflow(bytes, (size_t)63, &rounded)) return false;
  return !__builtin_add_overflow(*total, rounded & ~(size_t)63, total);
}

#endif
