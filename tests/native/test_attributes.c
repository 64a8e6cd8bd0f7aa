/* The reader of attributes: all widths, wrong types, ranges, and buffers that lie about themselves.
 *
 *     test_attributes                         the checks
 *     test_attributes FILE KEY int|float|ints one value of a buffer that another writer made */
#include "attributes.h"

#include <string.h>

#include "checks.h"
#include "flex_writer.h"
#include "ke_attributes.h"

/* A copy of exactly the buffer's size, so that a read past either end is seen. */
static uint8_t *exact(const uint8_t *bytes, size_t size) {
  uint8_t *copy = malloc(size == 0 ? 1 : size);
  if (copy == NULL) exit(2);
  if (size > 0) memcpy(copy, bytes, size);
  return copy;
}

static const int64_t weights[] = {3, 4, 120};
static const FlexEntry example[] = {
    {.key = "activation", .integer = 2}, {.key = "dilation_h", .integer = 1}, {.key = "dilation_w", .integer = 7},
    {.key = "padding", .integer = 1},    {.key = "stride_h", .integer = 64},  {.key = "stride_w", .integer = -2},
    {.key = "version", .integer = 1},    {.key = "weights", .vector = weights, .vector_length = 3},
};
enum { EXAMPLE_COUNT = sizeof(example) / sizeof(example[0]) };

static void read_everything(const uint8_t *bytes, size_t size) {
  KeFlexMap map;
  if (ke_flex_open_map(bytes, size, &map) != KE_FLEX_OK) return;
  for (int i = 0; i < EXAMPLE_COUNT; i++) {
    int64_t integers[4];
    double number;
    size_t count;
    ke_flex_get_int(&map, example[i].key, &integers[0]);
    ke_flex_get_float(&map, example[i].key, &number);
    ke_flex_get_ints(&map, example[i].key, integers, 4, &count);
  }
}

static void test_widths(void) {
  for (int width = 1; width <= 8; width *= 2) {
    uint8_t scratch[FLEX_CAPACITY];
    size_t size = flex_write(scratch, example, EXAMPLE_COUNT, width);
    uint8_t *bytes = exact(scratch, size);
    KeFlexMap map;
    CHECK(ke_flex_open_map(bytes, size, &map) == KE_FLEX_OK, "width %d", width);
    int64_t value = 0, values[3];
    double number = 0;
    size_t count = 0;
    CHECK(ke_flex_get_int(&map, "stride_h", &value) == KE_FLEX_OK && value == 64, "width %d", width);
    CHECK(ke_flex_get_int(&map, "stride_w", &value) == KE_FLEX_OK && value == -2, "width %d", width);
    CHECK(ke_flex_get_float(&map, "dilation_w", &number) == KE_FLEX_OK && number == 7.0, "width %d", width);
    CHECK(ke_flex_get_ints(&map, "weights", values, 3, &count) == KE_FLEX_OK && count == 3 && values[2] == 120, "%d", width);
    CHECK(ke_flex_get_ints(&map, "weights", values, 2, &count) == KE_FLEX_TOO_LONG && count == 3, "width %d", width);
    CHECK(ke_flex_get_int(&map, "weights", &value) == KE_FLEX_WRONG_TYPE, "width %d", width);
    CHECK(ke_flex_get_ints(&map, "padding", values, 3, &count) == KE_FLEX_WRONG_TYPE, "width %d", width);
    CHECK(ke_flex_get_int(&map, "strid", &value) == KE_FLEX_MISSING, "width %d", width);
    for (size_t length = 0; length < size; length++) { /* every way to cut it off, at either end */
      uint8_t *head = exact(bytes, length), *tail = exact(bytes + size - length, length);
      read_everything(head, length);
      read_everything(tail, length);
      free(head);
      free(tail);
    }
    free(bytes);
  }
  for (int width = 4; width <= 8; width += 4) {
    uint8_t bytes[FLEX_CAPACITY];
    FlexEntry entry = {.key = "rate", .number = 0.375, .is_float = 1};
    KeFlexMap map;
    double number = 0;
    CHECK(ke_flex_open_map(bytes, flex_write(bytes, &entry, 1, width), &map) == KE_FLEX_OK, "float %d", width);
    CHECK(ke_flex_get_float(&map, "rate", &number) == KE_FLEX_OK && number == 0.375, "float %d", width);
  }
}

static void test_mutants(void) {
  uint64_t random = 7;
  for (int round = 0; round < 40000; round++) {
    uint8_t scratch[FLEX_CAPACITY];
    size_t size = flex_write(scratch, example, EXAMPLE_COUNT, 1 << random_below(&random, 4));
    for (int change = random_below(&random, 6); change >= 0; change--) {
      scratch[random_below(&random, (int)size)] = (uint8_t)random_bits(&random);
    }
    uint8_t *bytes = exact(scratch, size);
    read_everything(bytes, size);
    free(bytes);
  }
}

static int decode(const FlexEntry *entries, int count, KeGatedConv2DAttributes *attributes, KeReport *report) {
  uint8_t bytes[FLEX_CAPACITY];
  size_t size = flex_write(bytes, entries, count, 4);
  KeAttributeReader reader;
  KeInit init = {0};
  memset(report, 0, sizeof(*report));
  if (ke_attributes_open(&reader, bytes, size, report, &init) != 0) return -1;
  return ke_attributes_decode(&init, ke_gated_conv_2d_fields,
                              sizeof(ke_gated_conv_2d_fields) / sizeof(ke_gated_conv_2d_fields[0]), attributes);
}

static void test_decode(void) {
  KeGatedConv2DAttributes attributes;
  KeReport report;
  FlexEntry entries[EXAMPLE_COUNT];
  memcpy(entries, example, sizeof(entries));
  CHECK(decode(entries, EXAMPLE_COUNT, &attributes, &report) == -1, "stride_w is -2");
  CHECK(strcmp(report.text, "Invalid value for attribute `stride_w`. Expected an integer from 1 to 64. Received: -2.") == 0, "%s",
        report.text);
  entries[5].integer = 3;
  CHECK(decode(entries, EXAMPLE_COUNT, &attributes, &report) == 0, "%s", report.text);
  CHECK(attributes.stride_h == 64 && attributes.stride_w == 3 && attributes.dilation_w == 7 && attributes.padding == 1 &&
            attributes.activation == 2, "decoded");
  CHECK(decode(entries + 1, EXAMPLE_COUNT - 1, &attributes, &report) == -1 && strstr(report.text, "Missing attribute `activation`"),
        "%s", report.text);
  CHECK(decode(entries, 0, &attributes, &report) == -1, "empty map");
}

static int print_value(const char *path, const char *key, const char *kind) {
  uint8_t bytes[FLEX_CAPACITY];
  FILE *file = fopen(path, "rb");
  if (file == NULL) return 2;
  size_t size = fread(bytes, 1, sizeof(bytes), file);
  fclose(file);
  KeFlexMap map;
  KeFlexResult result = ke_flex_open_map(bytes, size, &map);
  int64_t integers[64];
  double number = 0;
  size_t count = 1;
  if (result != KE_FLEX_OK) return 3;
  if (strcmp(kind, "float") == 0) {
    result = ke_flex_get_float(&map, key, &number);
    if (result == KE_FLEX_OK) printf("%.17g\n", number);
  } else {
    result = strcmp(kind, "int") == 0 ? ke_flex_get_int(&map, key, integers) : ke_flex_get_ints(&map, key, integers, 64, &count);
    for (size_t i = 0; result == KE_FLEX_OK && i < count; i++) printf("%lld\n", (long long)integers[i]);
  }
  return result == KE_FLEX_OK ? 0 : 10 + (int)result;
}

int main(int argc, char **argv) {
  if (argc == 4) return print_value(argv[1], argv[2], argv[3]);
  test_widths();
  test_mutants();
  test_decode();
  return finish("attributes");
}
