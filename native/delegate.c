/* The delegate behind TFLite's external-delegate interface: the two functions at the end are all that a runtime looks up. */
#include "delegate.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Whether the runtime's registrations are as long as ours, where that matters: its nodes lie one after the other, each
 * followed by its registration. A graph of one node cannot tell. */
static bool registrations_match(KeTfLiteContext *context, const KeTfLiteIntArray *plan) {
  if (sizeof(void *) == 8) return true;
  for (int i = 0; i + 1 < plan->size; i++) {
    KeTfLiteNode *node, *next_node;
    KeTfLiteRegistration *registration;
    if (plan->data[i + 1] != plan->data[i] + 1) continue;
    if (context->GetNodeAndRegistration(context, plan->data[i + 1], &next_node, &registration) != kKeTfLiteOk ||
        context->GetNodeAndRegistration(context, plan->data[i], &node, &registration) != kKeTfLiteOk) {
      return false;
    }
    return (uintptr_t)next_node - (uintptr_t)registration == sizeof(KeTfLiteRegistration);
  }
  return true;
}

/* The pools that no kernel is using now. Kernels of one interpreter run one after the other, so there are as many as
 * interpreters ever ran at once. */
struct KeIdlePool {
  KeThreadPool *pool;
  int threads; /* asked for; the pool may have got fewer */
  KeIdlePool *next;
};

KeIdlePool *ke_delegate_borrow_pool(KeDelegate *delegate, int threads) {
  KeIdlePool *found = NULL;
  pthread_mutex_lock(&delegate->mutex);
  for (KeIdlePool **place = &delegate->idle_pools; *place != NULL; place = &(*place)->next) {
    if ((*place)->threads == threads) {
      found = *place;
      *place = found->next;
      break;
    }
  }
  pthread_mutex_unlock(&delegate->mutex);
  if (found != NULL) return found;
  found = calloc(1, sizeof(*found));
  if (found == NULL) return NULL;
  found->threads = threads;
  found->pool = ke_thread_pool_create(threads);
  return found;
}

KeParallel ke_delegate_parallel(KeIdlePool *pool) { return ke_thread_pool_parallel(pool == NULL ? NULL : pool->pool); }

void ke_delegate_return_pool(KeDelegate *delegate, KeIdlePool *pool) {
  if (pool == NULL) return;
  pthread_mutex_lock(&delegate->mutex);
  pool->next = delegate->idle_pools;
  delegate->idle_pools = pool;
  pthread_mutex_unlock(&delegate->mutex);
}

static void hand_over(KeDelegate *delegate, KeKernel *kernel) {
  pthread_mutex_lock(&delegate->mutex);
  kernel->next = delegate->claimed;
  delegate->claimed = kernel;
  pthread_mutex_unlock(&delegate->mutex);
}

KeKernel *ke_delegate_take_claimed(KeDelegate *delegate, const KeTfLiteContext *context, int node_index) {
  KeKernel *found = NULL;
  pthread_mutex_lock(&delegate->mutex);
  for (KeKernel **place = &delegate->claimed; *place != NULL; place = &(*place)->next) {
    if ((*place)->context == context && (*place)->node_index == node_index) {
      found = *place;
      *place = found->next;
      found->next = NULL;
      break;
    }
  }
  pthread_mutex_unlock(&delegate->mutex);
  return found;
}

/* The runtime makes the kernel's node at once, and its init takes the kernel over. Nodes are replaced one by one, so that
 * no tensor between two of ours disappears from the runtime's memory plan. */
static KeTfLiteStatus replace_node(KeDelegate *delegate, KeTfLiteContext *context, KeKernel *kernel) {
  struct {
    int size;
    int data[1];
  } one = {1, {kernel->node_index}};
  KeTfLiteIntArray *nodes = malloc(sizeof(one));
  if (nodes == NULL) {
    ke_kernel_destroy(kernel);
    return kKeTfLiteError;
  }
  memcpy(nodes, &one, sizeof(one));
  hand_over(delegate, kernel);
  KeTfLiteStatus status =
      context->ReplaceNodeSubsetsWithDelegateKernels(context, ke_kernel_registration(), nodes, &delegate->base);
  ke_kernel_destroy(ke_delegate_take_claimed(delegate, context, one.data[0]));
  free(nodes);
  return status;
}

/* Called by the runtime for every subgraph of an interpreter. */
static KeTfLiteStatus look_through(KeTfLiteContext *context, KeTfLiteDelegate *base) {
  KeDelegate *delegate = (KeDelegate *)base;
  KeTfLiteIntArray *plan = NULL;
  if (context->GetExecutionPlan(context, &plan) != kKeTfLiteOk || plan == NULL) return kKeTfLiteError;
  if (!registrations_match(context, plan)) {
    context->ReportError(context, "keras-efficient: expected the registrations of a runtime from 2.14 on. Received: others.");
    return kKeTfLiteError;
  }
  size_t count = (size_t)plan->size;
  int *nodes = malloc((count + 1) * sizeof(int));
  int *decompositions = malloc((count + 1) * sizeof(int));
  KeTfLiteStatus status = nodes != NULL && decompositions != NULL ? kKeTfLiteOk : kKeTfLiteError;
  if (status == kKeTfLiteOk && count > 0) memcpy(nodes, plan->data, count * sizeof(int));

  size_t found = 0;
  for (size_t i = 0; status == kKeTfLiteOk && i < count; i++) {
    int subgraph_index = -1;
    KeKernel *kernel = ke_claim_node(delegate, context, nodes[i], &subgraph_index);
    if (kernel == NULL) continue;
    status = replace_node(delegate, context, kernel);
    if (subgraph_index > 0) decompositions[found++] = subgraph_index;
  }
  for (size_t i = 0; status == kKeTfLiteOk && i < found; i++) {
    ke_claim_decomposition(delegate, context, decompositions[i]);
  }
  free(decompositions);
  free(nodes);
  return status;
}

static void destroy(KeDelegate *delegate) {
  while (delegate->idle_pools != NULL) {
    KeIdlePool *pool = delegate->idle_pools;
    delegate->idle_pools = pool->next;
    ke_thread_pool_destroy(pool->pool);
    free(pool);
  }
  pthread_mutex_destroy(&delegate->mutex);
  ke_registry_destroy(&delegate->registry);
  free(delegate);
}

void ke_delegate_retain(KeDelegate *delegate) { __atomic_fetch_add(&delegate->references, 1, __ATOMIC_RELAXED); }

void ke_delegate_release(KeDelegate *delegate) {
  if (__atomic_sub_fetch(&delegate->references, 1, __ATOMIC_ACQ_REL) == 0) destroy(delegate);
}

KE_PLUGIN_EXPORT KeTfLiteDelegate *tflite_plugin_create_delegate(const char *const *keys, const char *const *values,
                                                                 size_t count, void (*report_error)(const char *));
KE_PLUGIN_EXPORT void tflite_plugin_destroy_delegate(KeTfLiteDelegate *delegate);

KeTfLiteDelegate *tflite_plugin_create_delegate(const char *const *keys, const char *const *values, size_t count,
                                                void (*report_error)(const char *)) {
  KeReport report = {{0}};
  KeDelegate *delegate = calloc(1, sizeof(*delegate));
  if (delegate == NULL) {
    if (report_error != NULL) report_error("keras-efficient: out of memory.");
    return NULL;
  }
  delegate->references = 1;
  pthread_mutex_init(&delegate->mutex, NULL);
  delegate->base.data_ = delegate;
  delegate->base.Prepare = look_through;
  delegate->base.flags = kKeTfLiteDelegateAllowsDynamicTensors;
  if (ke_registry_add_plugin(&delegate->registry, &ke_builtin_plugin, &report) == 0 &&
      ke_options_parse(keys, values, count, &delegate->options, &delegate->registry, &report) == 0) {
    return &delegate->base;
  }
  if (report_error != NULL) {
    char sentence[KE_REPORT_BYTES + 20] = "keras-efficient: ";
    strncat(sentence, report.text, sizeof(sentence) - strlen(sentence) - 1);
    report_error(sentence);
  }
  ke_delegate_release(delegate);
  return NULL;
}

void tflite_plugin_destroy_delegate(KeTfLiteDelegate *base) {
  KeDelegate *delegate = (KeDelegate *)base;
  if (delegate == NULL) return;
  __atomic_store_n(&delegate->options.stats, NULL, __ATOMIC_RELEASE); /* belongs to the owner, who may free it now */
  ke_delegate_release(delegate);
}
