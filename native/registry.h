/* The ops a delegate knows: the built-in ones, then those of its plugins. */
#ifndef KE_REGISTRY_H_
#define KE_REGISTRY_H_

#include "keras_efficient_plugin.h"
#include "report.h"

enum { KE_MAX_ARGUMENTS = 16, KE_MAX_OUTPUTS = 8 };

typedef struct KeRegistry {
  const KeOp **ops;
  int op_count;
  void **libraries; /* of plugins, closed with the registry */
  int library_count;
} KeRegistry;

/* Both return 0, or -1 after a report. A registry of zeros is empty. */
int ke_registry_add_plugin(KeRegistry *registry, const KePlugin *plugin, KeReport *report);
int ke_registry_load_library(KeRegistry *registry, const char *path, KeReport *report);

/* NULL when no such op is known. */
const KeOp *ke_registry_find(const KeRegistry *registry, const char *name);

void ke_registry_destroy(KeRegistry *registry);

/* In native/ops/builtin.c. */
extern const KePlugin ke_builtin_plugin;

#endif
