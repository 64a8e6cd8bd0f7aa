/* One sentence to the user, kept until it is known whom to tell. */
#ifndef KE_REPORT_H_
#define KE_REPORT_H_

#include <stdarg.h>

enum { KE_REPORT_BYTES = 640 };

/* Holds the first sentence that was written into it: what came first is the cause. */
typedef struct KeReport {
  char text[KE_REPORT_BYTES];
} KeReport;

void ke_report(KeReport *report, const char *format, ...) __attribute__((format(printf, 2, 3)));
void ke_report_arguments(KeReport *report, const char *format, va_list arguments);

#endif
