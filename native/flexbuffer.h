/* Reads a flexbuffer map that comes from an untrusted file: every offset is checked before it is followed.
 * Format: https://flatbuffers.dev/flatbuffers_internals/#flexbuffers */
#ifndef KE_FLEXBUFFER_H_
#define KE_FLEXBUFFER_H_

#include <stddef.h>
#include <stdint.h>

typedef struct KeFlexMap {
  const uint8_t *bytes;
  size_t size;
  size_t values; /* position of the first value; the packed types follow the last one */
  size_t count;
  size_t width; /* bytes of one value */
  size_t keys;  /* position of the first key offset */
  size_t key_width;
} KeFlexMap;

typedef enum KeFlexResult {
  KE_FLEX_OK = 0,
  KE_FLEX_MISSING,    /* no such key */
  KE_FLEX_WRONG_TYPE, /* the value is of another type, or an integer beyond int64 */
  KE_FLEX_TOO_LONG,   /* the vector has more elements than fit */
  KE_FLEX_MALFORMED,  /* an offset or a size leads out of the buffer */
} KeFlexResult;

/* The buffer's root has to be a map. The bytes must outlive the map. */
KeFlexResult ke_flex_open_map(const uint8_t *bytes, size_t size, KeFlexMap *map);

/* Integers and booleans, signed or not, inline or indirect. */
KeFlexResult ke_flex_get_int(const KeFlexMap *map, const char *key, int64_t *value);

/* Floats, inline or indirect, and integers. */
KeFlexResult ke_flex_get_float(const KeFlexMap *map, const char *key, double *value);

/* Vectors of integers, typed or not; `count` receives how many there are, also when that is more than `capacity`. */
KeFlexResult ke_flex_get_ints(const KeFlexMap *map, const char *key, int64_t *values, size_t capacity, size_t *count);

#endif
