#include "flexbuffer.h"

#include <stdbool.h>
#include <string.h>

enum {
  kInt = 1,
  kUInt = 2,
  kFloat = 3,
  kIndirectInt = 6,
  kIndirectUInt = 7,
  kIndirectFloat = 8,
  kMap = 9,
  kVector = 10,
  kVectorInt = 11,
  kVectorUInt = 12,
  kVectorInt2 = 16,
  kVectorUInt2 = 17,
  kVectorInt3 = 19,
  kVectorUInt3 = 20,
  kVectorInt4 = 22,
  kVectorUInt4 = 23,
  kBool = 26,
  kVectorBool = 36,
};

/* A value in the buffer: `width` bytes at `position` hold it, or the distance back to where it lies. */
typedef struct Reference {
  size_t position;
  size_t width;
  unsigned type;
  size_t child_width;
} Reference;

static bool within(const KeFlexMap *map, size_t position, size_t length) {
  return position <= map->size && length <= map->size - position;
}

static bool read_unsigned(const KeFlexMap *map, size_t position, size_t width, uint64_t *value) {
  if (!within(map, position, width)) return false;
  *value = 0;
  for (size_t i = 0; i < width; i++) *value |= (uint64_t)map->bytes[position + i] << (8 * i);
  return true;
}

static bool read_signed(const KeFlexMap *map, size_t position, size_t width, int64_t *value) {
  uint64_t raw;
  if (!read_unsigned(map, position, width, &raw)) return false;
  if (width < 8 && (raw >> (8 * width - 1)) != 0) raw |= ~(uint64_t)0 << (8 * width);
  memcpy(value, &raw, sizeof(raw));
  return true;
}

/* Where an offset stored at `position` leads to: offsets point backwards. */
static bool follow(const KeFlexMap *map, size_t position, size_t width, size_t *target) {
  uint64_t distance;
  if (!read_unsigned(map, position, width, &distance) || distance > position) return false;
  *target = position - (size_t)distance;
  return true;
}

static Reference unpack(size_t position, size_t width, uint8_t packed) {
  Reference reference = {position, width, packed >> 2, (size_t)1 << (packed & 3)};
  return reference;
}

KeFlexResult ke_flex_open_map(const uint8_t *bytes, size_t size, KeFlexMap *map) {
  memset(map, 0, sizeof(*map));
  if (bytes == NULL || size < 3) return KE_FLEX_MALFORMED;
  map->bytes = bytes;
  map->size = size;
  size_t root_width = bytes[size - 1];
  if (root_width != 1 && root_width != 2 && root_width != 4 && root_width != 8) return KE_FLEX_MALFORMED;
  if (size < root_width + 2) return KE_FLEX_MALFORMED;
  Reference root = unpack(size - 2 - root_width, root_width, bytes[size - 2]);
  if (root.type != kMap) return KE_FLEX_WRONG_TYPE;

  /* In front of a map's values: distance to the keys, width of a key offset, number of entries. */
  map->width = root.child_width;
  if (!follow(map, root.position, root.width, &map->values) || map->values < 3 * map->width) return KE_FLEX_MALFORMED;
  uint64_t key_width, count, key_count;
  if (!follow(map, map->values - 3 * map->width, map->width, &map->keys) ||
      !read_unsigned(map, map->values - 2 * map->width, map->width, &key_width) ||
      !read_unsigned(map, map->values - map->width, map->width, &count)) {
    return KE_FLEX_MALFORMED;
  }
  if (key_width != 1 && key_width != 2 && key_width != 4 && key_width != 8) return KE_FLEX_MALFORMED;
  map->key_width = (size_t)key_width;
  if (count > size / map->width || !within(map, map->values, (size_t)count * (map->width + 1))) return KE_FLEX_MALFORMED;
  map->count = (size_t)count;
  if (map->keys < map->key_width || !read_unsigned(map, map->keys - map->key_width, map->key_width, &key_count) ||
      key_count != count || map->count > size / map->key_width ||
      !within(map, map->keys, map->count * map->key_width)) {
    return KE_FLEX_MALFORMED;
  }
  return KE_FLEX_OK;
}

static KeFlexResult find(const KeFlexMap *map, const char *key, Reference *reference) {
  size_t length = strlen(key) + 1;
  for (size_t i = 0; i < map->count; i++) {
    size_t name;
    if (!follow(map, map->keys + i * map->key_width, map->key_width, &name)) return KE_FLEX_MALFORMED;
    if (!within(map, name, length) || memcmp(map->bytes + name, key, length) != 0) continue;
    uint8_t packed = map->bytes[map->values + map->count * map->width + i];
    *reference = unpack(map->values + i * map->width, map->width, packed);
    return KE_FLEX_OK;
  }
  return KE_FLEX_MISSING;
}

static KeFlexResult to_int(const KeFlexMap *map, Reference reference, int64_t *value) {
  bool is_signed = reference.type == kInt || reference.type == kIndirectInt;
  if (reference.type == kIndirectInt || reference.type == kIndirectUInt) {
    size_t target;
    if (!follow(map, reference.position, reference.width, &target)) return KE_FLEX_MALFORMED;
    reference.position = target;
    reference.width = reference.child_width;
  } else if (!is_signed && reference.type != kUInt && reference.type != kBool) {
    return KE_FLEX_WRONG_TYPE;
  }
  if (is_signed) return read_signed(map, reference.position, reference.width, value) ? KE_FLEX_OK : KE_FLEX_MALFORMED;
  uint64_t raw;
  if (!read_unsigned(map, reference.position, reference.width, &raw)) return KE_FLEX_MALFORMED;
  if (raw > INT64_MAX) return KE_FLEX_WRONG_TYPE;
  *value = (int64_t)raw;
  return KE_FLEX_OK;
}

KeFlexResult ke_flex_get_int(const KeFlexMap *map, const char *key, int64_t *value) {
  Reference reference;
  KeFlexResult result = find(map, key, &reference);
  return result == KE_FLEX_OK ? to_int(map, reference, value) : result;
}

KeFlexResult ke_flex_get_float(const KeFlexMap *map, const char *key, double *value) {
  Reference reference;
  KeFlexResult result = find(map, key, &reference);
  if (result != KE_FLEX_OK) return result;
  if (reference.type == kIndirectFloat) {
    size_t target;
    if (!follow(map, reference.position, reference.width, &target)) return KE_FLEX_MALFORMED;
    reference.position = target;
    reference.width = reference.child_width;
  } else if (reference.type != kFloat) {
    int64_t integer = 0;
    result = to_int(map, reference, &integer);
    *value = (double)integer;
    return result;
  }
  uint64_t raw;
  if (!read_unsigned(map, reference.position, reference.width, &raw)) return KE_FLEX_MALFORMED;
  if (reference.width == 4) {
    uint32_t low = (uint32_t)raw;
    float single;
    memcpy(&single, &low, sizeof(single));
    *value = single;
    return KE_FLEX_OK;
  }
  if (reference.width != 8) return KE_FLEX_WRONG_TYPE;
  memcpy(value, &raw, sizeof(*value));
  return KE_FLEX_OK;
}

/* A tuple's length is part of its type; 0 for the other vectors, whose length stands in front of them. */
static bool element_type_of(unsigned vector, unsigned *element, size_t *fixed_length) {
  *fixed_length = 0;
  switch (vector) {
    case kVectorInt:
      *element = kInt;
      return true;
    case kVectorUInt:
      *element = kUInt;
      return true;
    case kVectorBool:
      *element = kBool;
      return true;
    case kVectorInt2:
    case kVectorInt3:
    case kVectorInt4:
      *element = kInt;
      *fixed_length = (vector - kVectorInt2) / 3 + 2;
      return true;
    case kVectorUInt2:
    case kVectorUInt3:
    case kVectorUInt4:
      *element = kUInt;
      *fixed_length = (vector - kVectorUInt2) / 3 + 2;
      return true;
    default:
      return false;
  }
}

KeFlexResult ke_flex_get_ints(const KeFlexMap *map, const char *key, int64_t *values, size_t capacity, size_t *count) {
  *count = 0;
  Reference vector;
  KeFlexResult result = find(map, key, &vector);
  if (result != KE_FLEX_OK) return result;
  unsigned element = 0;
  size_t length;
  bool typed = element_type_of(vector.type, &element, &length);
  if (!typed && vector.type != kVector) return KE_FLEX_WRONG_TYPE;

  size_t first, width = vector.child_width;
  if (!follow(map, vector.position, vector.width, &first)) return KE_FLEX_MALFORMED;
  if (length == 0) {
    uint64_t stored;
    if (first < width || !read_unsigned(map, first - width, width, &stored)) return KE_FLEX_MALFORMED;
    if (stored > map->size) return KE_FLEX_MALFORMED;
    length = (size_t)stored;
  }
  if (length > map->size / width || !within(map, first, length * (typed ? width : width + 1))) return KE_FLEX_MALFORMED;
  *count = length;
  if (length > capacity) return KE_FLEX_TOO_LONG;
  for (size_t i = 0; i < length; i++) {
    Reference item = {first + i * width, width, element, width};
    if (!typed) item = unpack(first + i * width, width, map->bytes[first + length * width + i]);
    result = to_int(map, item, &values[i]);
    if (result != KE_FLEX_OK) return result;
  }
  return KE_FLEX_OK;
}
