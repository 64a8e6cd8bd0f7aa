#include "registry.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

static int check_op(const KePlugin *plugin, const KeOp *op, KeReport *report) {
  const char *plugin_name = plugin->name == NULL ? "(unnamed)" : plugin->name;
  if (op == NULL || op->name == NULL || op->name[0] == '\0') {
    ke_report(report, "Invalid plugin `%s`. Expected a name for every op. Received: an op without one.", plugin_name);
    return -1;
  }
  int inputs = 0;
  int in_range = op->argument_count >= 1 && op->argument_count <= KE_MAX_ARGUMENTS && op->arguments != NULL &&
                 op->output_count >= 1 && op->output_count <= KE_MAX_OUTPUTS && op->output_types != NULL && op->version >= 1;
  for (int i = 0; in_range && i < op->argument_count; i++) {
    const KeArgument *argument = &op->arguments[i];
    inputs += argument->kind == KE_ARGUMENT_INPUT;
    in_range = argument->name != NULL && argument->rank >= -1 && argument->rank <= KE_MAX_RANK;
  }
  if (!in_range || inputs == 0) {
    ke_report(report, "Invalid op `%s` of plugin `%s`. Expected 1 to %d named arguments, one of them no weight, and 1 to %d "
              "outputs. Received: %d arguments and %d outputs.", op->name, plugin_name, KE_MAX_ARGUMENTS, KE_MAX_OUTPUTS,
              op->argument_count, op->output_count);
    return -1;
  }
  if (op->init == NULL || op->prepare == NULL || op->invoke == NULL) {
    ke_report(report, "Invalid op `%s` of plugin `%s`. Expected the functions init, prepare and invoke. Received: NULL.",
              op->name, plugin_name);
    return -1;
  }
  return 0;
}

int ke_registry_add_plugin(KeRegistry *registry, const KePlugin *plugin, KeReport *report) {
  if (plugin->abi_version != KE_PLUGIN_ABI_VERSION || plugin->struct_size < sizeof(KePlugin)) {
    ke_report(report, "Invalid plugin. Expected plugin ABI version %d. Received: version %u with a structure of %u bytes.",
              KE_PLUGIN_ABI_VERSION, plugin->abi_version, plugin->struct_size);
    return -1;
  }
  if (plugin->op_count < 0 || plugin->op_count > 4096 || (plugin->op_count > 0 && plugin->ops == NULL)) {
    ke_report(report, "Invalid plugin `%s`. Expected 0 to 4096 ops. Received: %d.",
              plugin->name == NULL ? "(unnamed)" : plugin->name, plugin->op_count);
    return -1;
  }
  size_t count = (size_t)registry->op_count + (size_t)plugin->op_count;
  const KeOp **ops = realloc(registry->ops, (count + 1) * sizeof(*ops));
  if (ops == NULL) {
    ke_report(report, "Out of memory while registering ops.");
    return -1;
  }
  registry->ops = ops;
  for (int i = 0; i < plugin->op_count; i++) {
    const KeOp *op = plugin->ops[i];
    if (check_op(plugin, op, report) != 0) return -1;
    if (ke_registry_find(registry, op->name) != NULL) {
      ke_report(report, "Invalid plugin `%s`. Expected new op names. Received: `%s`, which exists already.",
                plugin->name == NULL ? "(unnamed)" : plugin->name, op->name);
      return -1;
    }
    registry->ops[registry->op_count++] = op;
  }
  return 0;
}

int ke_registry_load_library(KeRegistry *registry, const char *path, KeReport *report) {
  void **libraries = realloc(registry->libraries, ((size_t)registry->library_count + 1) * sizeof(*libraries));
  if (libraries == NULL) {
    ke_report(report, "Out of memory while loading plugins.");
    return -1;
  }
  registry->libraries = libraries;
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    const char *reason = dlerror();
    ke_report(report, "Invalid value for option `plugins`. Expected paths of shared libraries. Received: %s (%s).", path,
              reason == NULL ? "unknown reason" : reason);
    return -1;
  }
  registry->libraries[registry->library_count++] = library;
  void *symbol = dlsym(library, KE_PLUGIN_SYMBOL);
  const KePlugin *plugin = NULL;
  if (symbol != NULL) {
    KePluginFunction function;
    memcpy(&function, &symbol, sizeof(function));
    plugin = function();
  }
  if (plugin == NULL) {
    ke_report(report, "Invalid plugin %s. Expected a function `%s` that returns the plugin. Received: %s.", path,
              KE_PLUGIN_SYMBOL, symbol == NULL ? "a library without it" : "NULL from it");
    return -1;
  }
  return ke_registry_add_plugin(registry, plugin, report);
}

const KeOp *ke_registry_find(const KeRegistry *registry, const char *name) {
  for (int i = 0; i < registry->op_count; i++) {
    if (strcmp(registry->ops[i]->name, name) == 0) return registry->ops[i];
  }
  return NULL;
}

void ke_registry_destroy(KeRegistry *registry) {
  for (int i = registry->library_count - 1; i >= 0; i--) dlclose(registry->libraries[i]);
  free(registry->libraries);
  free(registry->ops);
  memset(registry, 0, sizeof(*registry));
}
