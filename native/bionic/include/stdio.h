/* Formatting on Android. Its FILE is not for us: nothing here writes to a stream. */
#ifndef KE_BIONIC_STDIO_H_
#define KE_BIONIC_STDIO_H_

#include <stdarg.h>
#include <stddef.h>

int snprintf(char *text, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
int vsnprintf(char *text, size_t size, const char *format, va_list arguments) __attribute__((format(printf, 3, 0)));
int sscanf(const char *text, const char *format, ...) __attribute__((format(scanf, 2, 3)));

#endif
