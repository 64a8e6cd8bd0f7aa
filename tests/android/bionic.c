/* What a library for Android x86-64 asks of its system and glibc does not have, or has under another number. Everything else
 * it finds in glibc: calls, and the layouts of mutexes, conditions and stat, are the same on this machine. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int __xpg_strerror_r(int error, char *buffer, size_t size);

char __sF[3 * 152]; /* three FILEs, as old programs address stdin, stdout and stderr; for the linker only */

int *__errno(void) { return &errno; }

size_t __strlen_chk(const char *text, size_t size) {
  (void)size;
  return strlen(text);
}

int __system_property_get(const char *name, char *value) {
  (void)name;
  value[0] = '\0';
  return 0;
}

void android_set_abort_message(const char *message) { fprintf(stderr, "%s\n", message); }

int __android_log_vprint(int priority, const char *tag, const char *format, va_list arguments) {
  (void)priority;
  fprintf(stderr, "%s: ", tag);
  int written = vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  return written;
}

/* The two that mean something else in glibc; android_runtime.py renames the calls. */
int strerror_A(int error, char *buffer, size_t size) { return __xpg_strerror_r(error, buffer, size); }

long sysconA(int name) {
  enum { PAGE_SIZE = 39, PAGESIZE = 40, PROCESSORS = 96, PROCESSORS_ONLINE = 97, PHYSICAL_PAGES = 98 };
  switch (name) {
    case PAGE_SIZE:
    case PAGESIZE:
      return sysconf(_SC_PAGESIZE);
    case PROCESSORS:
      return sysconf(_SC_NPROCESSORS_CONF);
    case PROCESSORS_ONLINE:
      return sysconf(_SC_NPROCESSORS_ONLN);
    case PHYSICAL_PAGES:
      return sysconf(_SC_PHYS_PAGES);
    default:
      errno = EINVAL;
      return -1;
  }
}
