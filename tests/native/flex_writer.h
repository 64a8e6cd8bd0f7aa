/* Writes a flexbuffer map of integers, floats and vectors of integers, enough to test the reader with. */
#ifndef KE_TESTS_FLEX_WRITER_H_
#define KE_TESTS_FLEX_WRITER_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct FlexEntry {
  const char *key;
  int64_t integer;
  const int64_t *vector; /* instead of the integer */
  int vector_length;
  double number; /* when is_float */
  int is_float;
} FlexEntry;

enum { FLEX_CAPACITY = 4096 };

static inline void flex_put(uint8_t *at, uint64_t value, int width) {
  for (int i = 0; i < width; i++) at[i] = (uint8_t)(value >> (8 * i));
}

/* Everything is `width` bytes wide: 1, 2, 4 or 8. Keys have to come in alphabetical order. Returns the length. */
static inline size_t flex_write(uint8_t *buffer, const FlexEntry *entries, int count, int width) {
  size_t key_at[64], vector_at[64], at = 0;
  int log_width = width == 1 ? 0 : width == 2 ? 1 : width == 4 ? 2 : 3;
  for (int i = 0; i < count; i++) {
    key_at[i] = at;
    at += strlen(entries[i].key) + 1;
    memcpy(buffer + key_at[i], entries[i].key, strlen(entries[i].key) + 1);
  }
  for (int i = 0; i < count; i++) {
    if (entries[i].vector == NULL) continue;
    flex_put(buffer + at, (uint64_t)entries[i].vector_length, width);
    at += (size_t)width;
    vector_at[i] = at;
    for (int k = 0; k < entries[i].vector_length; k++, at += (size_t)width) {
      flex_put(buffer + at, (uint64_t)entries[i].vector[k], width);
    }
  }
  flex_put(buffer + at, (uint64_t)count, width);
  at += (size_t)width;
  size_t keys = at;
  for (int i = 0; i < count; i++, at += (size_t)width) flex_put(buffer + at, at - key_at[i], width);
  flex_put(buffer + at, at - keys, width);
  flex_put(buffer + at + width, (uint64_t)width, width);
  flex_put(buffer + at + 2 * width, (uint64_t)count, width);
  at += 3 * (size_t)width;
  size_t values = at;
  for (int i = 0; i < count; i++, at += (size_t)width) {
    if (entries[i].vector != NULL) {
      flex_put(buffer + at, at - vector_at[i], width);
    } else if (entries[i].is_float && width == 4) {
      float number = (float)entries[i].number;
      memcpy(buffer + at, &number, 4);
    } else if (entries[i].is_float) {
      memcpy(buffer + at, &entries[i].number, 8);
    } else {
      flex_put(buffer + at, (uint64_t)entries[i].integer, width);
    }
  }
  for (int i = 0; i < count; i++, at++) {
    int type = entries[i].vector != NULL ? 11 : entries[i].is_float ? 3 : 1; /* vector of ints, float, int */
    buffer[at] = (uint8_t)(type << 2 | log_width);
  }
  flex_put(buffer + at, at - values, width);
  at += (size_t)width;
  buffer[at++] = (uint8_t)(9 << 2 | log_width); /* map */
  buffer[at++] = (uint8_t)width;
  return at;
}

#endif
