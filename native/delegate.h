/* The delegate's parts, as its files see each other.
 *
 *     delegate.c  what the runtime calls: create, look through a graph, destroy
 *     claim.c     from a node of the graph to a kernel of ours, or to one sentence why not
 *     kernel.c    a claimed node's life in the interpreter: init, prepare, invoke, free
 *
 * A delegate's own state, apart from what create fixed, is two lists behind a mutex. Everything else belongs to one node of
 * one context, so that several interpreters may share a delegate, each in a thread of its own. Kernels hold a reference to
 * their delegate: Python may destroy a delegate before the last interpreter that uses it. */
#ifndef KE_DELEGATE_H_
#define KE_DELEGATE_H_

#include <pthread.h>

#include "ke_tflite_abi.h"
#include "options.h"
#include "registry.h"
#include "report.h"
#include "thread_pool.h"

typedef struct KeKernel KeKernel;
typedef struct KeIdlePool KeIdlePool;

typedef struct KeDelegate {
  KeTfLiteDelegate base; /* first: the runtime's pointer is ours */
  KeRegistry registry;
  KeOptions options;
  int references; /* the owner's and one of each kernel; atomic */
  pthread_mutex_t mutex;
  KeKernel *claimed;     /* kernels on their way from claim to init */
  KeIdlePool *idle_pools; /* as many as ever ran at once */
} KeDelegate;

/* One claimed node. */
struct KeKernel {
  KeDelegate *delegate;
  const KeOp *op;
  void *state;
  KeReport refusal; /* of a custom op: prepare fails with it, since nobody else could run the node */
  int input_count, output_count;
  int inputs[KE_MAX_ARGUMENTS];
  int outputs[KE_MAX_OUTPUTS];
  const KeArgument *input_arguments[KE_MAX_ARGUMENTS];
  int threads;
  /* The input shapes that prepare saw last; invoke prepares again when a dynamic tensor comes with another. */
  int prepared; /* boolean */
  int prepared_ranks[KE_MAX_ARGUMENTS];
  int32_t prepared_dims[KE_MAX_ARGUMENTS][KE_MAX_RANK];
  size_t output_bytes[KE_MAX_OUTPUTS]; /* as prepare set them */
  /* Where the kernel belongs, until init takes it over. */
  const KeTfLiteContext *context;
  int node_index;
  KeKernel *next;
};

/* claim.c: NULL for nodes that are none of ours and for composites that stay on their decomposition (after a report to the
 * context). `subgraph_index` receives the decomposition's index, or -1 for custom ops. */
KeKernel *ke_claim_node(KeDelegate *delegate, KeTfLiteContext *context, int node_index, int *subgraph_index);

/* Takes the nodes of a decomposition whose every user was claimed, so that nobody prepares what will never run. */
void ke_claim_decomposition(KeDelegate *delegate, KeTfLiteContext *context, int subgraph_index);

/* kernel.c */
KeTfLiteRegistration ke_kernel_registration(void);
KeTfLiteRegistration ke_idle_registration(void); /* for nodes that are never to run */
bool ke_kernel_is_idle(const KeTfLiteRegistration *registration);
/* Lets the op look at the input shapes as far as the file knows them: 0, or -1 after a report. */
int ke_kernel_rehearse(KeKernel *kernel, KeTfLiteContext *context, KeReport *report);
void ke_kernel_destroy(KeKernel *kernel);

/* delegate.c */
void ke_delegate_retain(KeDelegate *delegate);
void ke_delegate_release(KeDelegate *delegate); /* the last one frees it */
KeKernel *ke_delegate_take_claimed(KeDelegate *delegate, const KeTfLiteContext *context, int node_index);
/* A pool of that many threads for the time of one invoke; NULL when no thread could be started. */
KeIdlePool *ke_delegate_borrow_pool(KeDelegate *delegate, int threads);
KeParallel ke_delegate_parallel(KeIdlePool *pool); /* NULL: the calling thread alone */
void ke_delegate_return_pool(KeDelegate *delegate, KeIdlePool *pool);

#endif
