/* The few lines that every test program here shares: a check that counts, and random numbers that repeat. */
#ifndef KE_TESTS_CHECKS_H_
#define KE_TESTS_CHECKS_H_

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static int failures = 0;

#define CHECK(condition, ...)                                   \
  do {                                                          \
    if (!(condition)) {                                         \
      failures++;                                               \
      fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      fprintf(stderr, __VA_ARGS__);                             \
      fputc('\n', stderr);                                      \
    }                                                           \
  } while (0)

static inline uint32_t random_bits(uint64_t *state) {
  *state = *state * 6364136223846793005ull + 1442695040888963407ull;
  return (uint32_t)(*state >> 33);
}

static inline int random_below(uint64_t *state, int bound) { return (int)(random_bits(state) % (uint32_t)bound); }

static inline float random_float(uint64_t *state) { return (float)((double)random_bits(state) / 1073741824.0 - 1.0); }

static inline int finish(const char *name) {
  printf("%s: %s\n", name, failures == 0 ? "ok" : "FAILED");
  return failures == 0 ? 0 : 1;
}

#endif
