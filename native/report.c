#include "report.h"

#include <stdio.h>

void ke_report_arguments(KeReport *report, const char *format, va_list arguments) {
  if (report->text[0] == '\0') vsnprintf(report->text, sizeof(report->text), format, arguments);
}

void ke_report(KeReport *report, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  ke_report_arguments(report, format, arguments);
  va_end(arguments);
}
