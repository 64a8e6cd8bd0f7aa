#include "options.h"

#include <stdlib.h>
#include <string.h>

static int parse_stats(const char *text, KeOptions *options, KeReport *report) {
  uint64_t address = 0;
  size_t digits = 0;
  for (; text[digits] >= '0' && text[digits] <= '9' && digits < 20; digits++) {
    uint64_t digit = (uint64_t)(text[digits] - '0');
    if (address > (UINT64_MAX - digit) / 10) break;
    address = address * 10 + digit;
  }
  if (digits == 0 || text[digits] != '\0' || address == 0 || address > UINTPTR_MAX || address % sizeof(uint64_t) != 0) {
    ke_report(report, "Invalid value for option `stats`. Expected the address of a structure of 64-bit integers, in decimal. "
              "Received: %.40s.", text);
    return -1;
  }
  KeStats *stats = (KeStats *)(uintptr_t)address;
  if (stats->size_bytes < sizeof(KeStats)) {
    ke_report(report, "Invalid value for option `stats`. Expected a structure whose `size_bytes` is at least %zu. "
              "Received: %llu.", sizeof(KeStats), (unsigned long long)stats->size_bytes);
    return -1;
  }
  options->stats = stats;
  return 0;
}

static int parse_isa(const char *text, KeOptions *options, KeReport *report) {
  KeIsa isas[KE_MAX_ISAS];
  const int count = ke_cpu_isas(isas);
  if (ke_isa_parse(text, &options->isa) == 0 && ke_cpu_runs(options->isa)) return 0;
  char names[128] = "";
  for (int i = 0; i < count; i++) {
    strcat(strcat(names, i == 0 ? "" : i < count - 1 ? ", " : " or "), ke_isa_name(isas[i])); /* at most 4 short ones */
  }
  ke_report(report, "Invalid value for option `isa`. Expected %s, which this processor runs. Received: %.40s.", names, text);
  return -1;
}

static int parse_plugins(const char *text, KeRegistry *registry, KeReport *report) {
  while (*text != '\0') {
    size_t length = strcspn(text, ":");
    if (length > 0) {
      char *path = malloc(length + 1);
      if (path == NULL) {
        ke_report(report, "Out of memory while loading plugins.");
        return -1;
      }
      memcpy(path, text, length);
      path[length] = '\0';
      int status = ke_registry_load_library(registry, path, report);
      free(path);
      if (status != 0) return -1;
    }
    text += length + (text[length] == ':');
  }
  return 0;
}

int ke_options_parse(const char *const *keys, const char *const *values, size_t count, KeOptions *options,
                     KeRegistry *registry, KeReport *report) {
  options->stats = NULL;
  options->isa = ke_cpu_best_isa();
  for (size_t i = 0; i < count; i++) {
    if (keys == NULL || values == NULL || keys[i] == NULL || values[i] == NULL) {
      ke_report(report, "Invalid options. Expected pairs of strings. Received: NULL.");
      return -1;
    }
    int status;
    if (strcmp(keys[i], "stats") == 0) {
      status = parse_stats(values[i], options, report);
    } else if (strcmp(keys[i], "isa") == 0) {
      status = parse_isa(values[i], options, report);
    } else if (strcmp(keys[i], "plugins") == 0) {
      status = parse_plugins(values[i], registry, report);
    } else {
      ke_report(report, "Invalid option. Expected stats, plugins or isa. Received: %.40s.", keys[i]);
      status = -1;
    }
    if (status != 0) return -1;
  }
  return 0;
}
