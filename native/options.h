/* The delegate's options, which arrive as strings. */
#ifndef KE_OPTIONS_H_
#define KE_OPTIONS_H_

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "registry.h"
#include "report.h"

/* Lives with the caller, who passes its address in decimal as the option `stats` and sets `size_bytes` to sizeof(KeStats).
 * Every call of a kernel adds to it, from whichever thread, until the delegate is destroyed. */
typedef struct KeStats {
  uint64_t size_bytes;
  uint64_t executed_macs;
  uint64_t kernel_calls;
  uint64_t claimed_ops; /* nodes that a kernel was made for */
} KeStats;

typedef struct KeOptions {
  KeStats *stats; /* or NULL */
  KeIsa isa;
} KeOptions;

/* stats: see above. plugins: paths of shared libraries with `:` between them, loaded into the registry. isa: a name
 * of cpu.h that this processor runs, the best that kernels may use. Any other key, and any value that does not make sense, is refused: -1 after a
 * report, else 0. */
int ke_options_parse(const char *const *keys, const char *const *values, size_t count, KeOptions *options,
                     KeRegistry *registry, KeReport *report);

#endif
