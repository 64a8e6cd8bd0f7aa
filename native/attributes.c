#include "attributes.h"

#include <string.h>

static KeAttributeReader *reader_of(const KeInit *init) { return (KeAttributeReader *)init->host; }

/* Says why a key could not be read; 0 when it could. */
static int explain(const KeInit *init, KeFlexResult result, const char *key, const char *expected) {
  switch (result) {
    case KE_FLEX_OK:
      return 0;
    case KE_FLEX_MISSING:
      init->report(init, "Missing attribute `%s`. Expected %s.", key, expected);
      return -1;
    case KE_FLEX_MALFORMED:
      init->report(init, "Invalid attributes. Expected an intact flexbuffer map. Received: %zu bytes that lead out of "
                   "themselves at `%s`.", init->attributes_bytes, key);
      return -1;
    default:
      init->report(init, "Invalid value for attribute `%s`. Expected %s. Received: a value of another type or length.",
                   key, expected);
      return -1;
  }
}

static int get_int(const KeInit *init, const char *key, int64_t minimum, int64_t maximum, int64_t *value) {
  int64_t number = 0;
  if (explain(init, ke_flex_get_int(&reader_of(init)->map, key, &number), key, "an integer") != 0) return -1;
  if (number < minimum || number > maximum) {
    init->report(init, "Invalid value for attribute `%s`. Expected an integer from %lld to %lld. Received: %lld.", key,
                 (long long)minimum, (long long)maximum, (long long)number);
    return -1;
  }
  *value = number;
  return 0;
}

static int get_float(const KeInit *init, const char *key, double minimum, double maximum, double *value) {
  double number = 0;
  if (explain(init, ke_flex_get_float(&reader_of(init)->map, key, &number), key, "a number") != 0) return -1;
  if (!(number >= minimum && number <= maximum)) {
    init->report(init, "Invalid value for attribute `%s`. Expected a number from %g to %g. Received: %g.", key, minimum,
                 maximum, number);
    return -1;
  }
  *value = number;
  return 0;
}

static int get_ints(const KeInit *init, const char *key, int64_t minimum, int64_t maximum, size_t capacity, int64_t *values,
                    size_t *count) {
  KeFlexResult result = ke_flex_get_ints(&reader_of(init)->map, key, values, capacity, count);
  if (result == KE_FLEX_TOO_LONG) {
    init->report(init, "Invalid value for attribute `%s`. Expected at most %zu integers. Received: %zu.", key, capacity,
                 *count);
    return -1;
  }
  if (explain(init, result, key, "a vector of integers") != 0) return -1;
  for (size_t i = 0; i < *count; i++) {
    if (values[i] < minimum || values[i] > maximum) {
      init->report(init, "Invalid value for attribute `%s`. Expected integers from %lld to %lld. Received: %lld.", key,
                   (long long)minimum, (long long)maximum, (long long)values[i]);
      return -1;
    }
  }
  return 0;
}

static void report(const KeInit *init, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  ke_report_arguments(reader_of(init)->report, format, arguments);
  va_end(arguments);
}

int ke_attributes_open(KeAttributeReader *reader, const uint8_t *bytes, size_t size, KeReport *sink, KeInit *init) {
  reader->report = sink;
  init->host = reader;
  init->attributes = bytes;
  init->attributes_bytes = size;
  init->get_int = get_int;
  init->get_float = get_float;
  init->get_ints = get_ints;
  init->report = report;
  if (ke_flex_open_map(bytes, size, &reader->map) == KE_FLEX_OK) return 0;
  ke_report(sink, "Invalid attributes. Expected a flexbuffer map. Received: %zu bytes that are none.", size);
  return -1;
}

int ke_attributes_decode(const KeInit *init, const KeAttributeField *fields, size_t count, void *attributes) {
  for (size_t i = 0; i < count; i++) {
    const KeAttributeField *field = &fields[i];
    char *place = (char *)attributes + field->offset;
    if (field->kind == KE_INT32) {
      int64_t wide;
      if (init->get_int(init, field->name, (int64_t)field->minimum, (int64_t)field->maximum, &wide) != 0) return -1;
      int32_t number = (int32_t)wide;
      memcpy(place, &number, sizeof(number));
    } else {
      double wide;
      if (init->get_float(init, field->name, field->minimum, field->maximum, &wide) != 0) return -1;
      float number = (float)wide;
      memcpy(place, &number, sizeof(number));
    }
  }
  return 0;
}
