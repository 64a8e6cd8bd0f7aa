/* Memory and numbers on Android. */
#ifndef KE_BIONIC_STDLIB_H_
#define KE_BIONIC_STDLIB_H_

#include <stddef.h>

void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *realloc(void *memory, size_t size);
void free(void *memory);
int posix_memalign(void **memory, size_t alignment, size_t size);
long strtol(const char *text, char **end, int base);
long long strtoll(const char *text, char **end, int base);
unsigned long strtoul(const char *text, char **end, int base);
unsigned long long strtoull(const char *text, char **end, int base);
float strtof(const char *text, char **end);
double strtod(const char *text, char **end);
int abs(int value);
long labs(long value);
long long llabs(long long value);
void abort(void) __attribute__((noreturn));

/* Android has had it since version 9 (API 28) only. */
static inline void *ke_aligned_alloc(size_t alignment, size_t size) {
  void *memory = NULL;
  return posix_memalign(&memory, alignment, size) == 0 ? memory : NULL;
}
#define aligned_alloc ke_aligned_alloc

#endif
