/* A stand-in for TFLite's interpreter, as much of it as a delegate sees. All memory has exactly the size that it claims to
 * have, so that the sanitizer sees any step beyond; compiled with KE_PLANT_OVERFLOW it gives one element less than it claims,
 * which stands for a kernel that writes too far. */
#ifndef KE_TESTS_FAKE_RUNTIME_H_
#define KE_TESTS_FAKE_RUNTIME_H_

#include "ke_tflite_abi.h"

enum { FAKE_SUBGRAPHS = 4, FAKE_TENSORS = 16, FAKE_NODES = 8, FAKE_MESSAGE = 1024 };

typedef struct FakeRuntime FakeRuntime;

typedef struct FakeNode {
  KeTfLiteNode node;
  KeTfLiteRegistration registration;
} FakeNode;

typedef struct FakeSubgraph {
  KeTfLiteContext context; /* first: the context's address is the subgraph's */
  FakeRuntime *runtime;
  int index;
  int delegate_context; /* acquired, or being delegated */
  KeTfLiteTensor tensors[FAKE_TENSORS];
  FakeNode nodes[FAKE_NODES];
  int node_count;
  KeTfLiteIntArray *plan;
} FakeSubgraph;

struct FakeRuntime {
  FakeSubgraph subgraphs[FAKE_SUBGRAPHS];
  int subgraph_count;
  char message[FAKE_MESSAGE]; /* the last that was reported */
  int replaced;               /* nodes that delegates took */
};

void fake_runtime_init(FakeRuntime *runtime, int subgraphs);
void fake_runtime_destroy(FakeRuntime *runtime);

KeTfLiteIntArray *fake_int_array(int count, const int *values);

/* Both return the index. A tensor without a value has no data until fake_allocate. */
int fake_tensor(FakeSubgraph *subgraph, int type, int rank, const int *dims, const void *value);
int fake_node(FakeSubgraph *subgraph, int inputs, const int *input, int outputs, const int *output);

/* What ModifyGraphWithDelegate does, for all subgraphs. */
KeTfLiteStatus fake_apply(FakeRuntime *runtime, KeTfLiteDelegate *delegate);

/* What AllocateTensors does for one subgraph: prepares the plan's nodes, then gives every tensor that has no data its memory.
 * Dimensions whose product is beyond a megabyte get none. */
KeTfLiteStatus fake_allocate(FakeSubgraph *subgraph);
KeTfLiteStatus fake_invoke(FakeSubgraph *subgraph);

/* Replaces a tensor's memory by `bytes` bytes of 0x3F. */
void fake_set_bytes(KeTfLiteTensor *tensor, size_t bytes);

/* In native/delegate.c. */
KeTfLiteDelegate *tflite_plugin_create_delegate(const char *const *keys, const char *const *values, size_t count,
                                                void (*report_error)(const char *));
void tflite_plugin_destroy_delegate(KeTfLiteDelegate *delegate);

#endif
