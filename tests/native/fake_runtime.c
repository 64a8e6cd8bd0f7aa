#include "fake_runtime.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static FakeSubgraph *subgraph_of(KeTfLiteContext *context) { return (FakeSubgraph *)context; }

KeTfLiteIntArray *fake_int_array(int count, const int *values) {
  KeTfLiteIntArray *array = malloc(sizeof(*array) + (size_t)(count < 0 ? 0 : count) * sizeof(int));
  if (array == NULL) exit(2);
  array->size = count;
  if (count > 0) memcpy(array->data, values, (size_t)count * sizeof(int));
  return array;
}

static size_t element_bytes(int type) {
  return type == kKeTfLiteInt64 ? 8 : type == kKeTfLiteFloat32 || type == kKeTfLiteInt32 ? 4 : type == kKeTfLiteInt16 ? 2 : 1;
}

/* 0 for what no test needs. */
static size_t claimed_bytes(const KeTfLiteTensor *tensor) {
  size_t bytes = element_bytes(tensor->type);
  for (int i = 0; tensor->dims != NULL && i < tensor->dims->size; i++) {
    if (tensor->dims->data[i] < 0 || (size_t)tensor->dims->data[i] > ((size_t)1 << 20)) return 0;
    bytes *= (size_t)tensor->dims->data[i];
    if (bytes > (size_t)1 << 20) return 0;
  }
  return bytes;
}

void fake_set_bytes(KeTfLiteTensor *tensor, size_t bytes) {
  free(tensor->data);
  size_t real = bytes;
#ifdef KE_PLANT_OVERFLOW
  real = bytes < 4 ? 0 : bytes - 4;
#endif
  tensor->data = bytes == 0 ? NULL : malloc(real);
  if (tensor->data != NULL) memset(tensor->data, 0x3F, real);
  tensor->bytes = bytes;
}

int fake_tensor(FakeSubgraph *subgraph, int type, int rank, const int *dims, const void *value) {
  int index = (int)subgraph->context.tensors_size++;
  KeTfLiteTensor *tensor = &subgraph->tensors[index];
  tensor->type = type;
  tensor->dims = fake_int_array(rank, dims);
  tensor->buffer_handle = kKeTfLiteNullBufferHandle;
  tensor->allocation_type = value == NULL ? 2 : kKeTfLiteMmapRo;
  tensor->bytes = claimed_bytes(tensor);
  if (value != NULL) {
    tensor->data = malloc(tensor->bytes);
    memcpy(tensor->data, value, tensor->bytes);
  }
  return index;
}

int fake_node(FakeSubgraph *subgraph, int inputs, const int *input, int outputs, const int *output) {
  int index = subgraph->node_count++;
  subgraph->nodes[index].node.inputs = fake_int_array(inputs, input);
  subgraph->nodes[index].node.outputs = fake_int_array(outputs, output);
  int *plan = malloc(((size_t)subgraph->plan->size + 1) * sizeof(int));
  memcpy(plan, subgraph->plan->data, (size_t)subgraph->plan->size * sizeof(int));
  plan[subgraph->plan->size] = index;
  KeTfLiteIntArray *longer = fake_int_array(subgraph->plan->size + 1, plan);
  free(plan);
  free(subgraph->plan);
  subgraph->plan = longer;
  return index;
}

static KeTfLiteStatus get_plan(KeTfLiteContext *context, KeTfLiteIntArray **plan) {
  *plan = subgraph_of(context)->plan;
  return subgraph_of(context)->delegate_context ? kKeTfLiteOk : kKeTfLiteError;
}

static KeTfLiteStatus get_node(KeTfLiteContext *context, int index, KeTfLiteNode **node, KeTfLiteRegistration **registration) {
  FakeSubgraph *subgraph = subgraph_of(context);
  if (!subgraph->delegate_context || index < 0 || index >= subgraph->node_count) return kKeTfLiteError;
  *node = &subgraph->nodes[index].node;
  *registration = &subgraph->nodes[index].registration;
  return kKeTfLiteOk;
}

static KeTfLiteStatus resize(KeTfLiteContext *context, KeTfLiteTensor *tensor, KeTfLiteIntArray *dims) {
  (void)context;
  free(tensor->dims);
  tensor->dims = dims;
  fake_set_bytes(tensor, claimed_bytes(tensor));
  return kKeTfLiteOk;
}

static void report_error(KeTfLiteContext *context, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(subgraph_of(context)->runtime->message, FAKE_MESSAGE, format, arguments);
  va_end(arguments);
}

static KeTfLiteStatus replace(KeTfLiteContext *context, KeTfLiteRegistration registration, const KeTfLiteIntArray *nodes,
                              KeTfLiteDelegate *delegate) {
  FakeSubgraph *subgraph = subgraph_of(context);
  if (!subgraph->delegate_context || subgraph->node_count == FAKE_NODES) return kKeTfLiteError;
  KeTfLiteNode *first = &subgraph->nodes[nodes->data[0]].node;
  KeTfLiteDelegateParams params = {delegate, fake_int_array(nodes->size, nodes->data),
                                   fake_int_array(first->inputs->size, first->inputs->data),
                                   fake_int_array(first->outputs->size, first->outputs->data)};
  int plan[FAKE_NODES], length = 0, made = subgraph->node_count;
  for (int i = 0; i < subgraph->plan->size; i++) {
    int taken = 0;
    for (int k = 0; k < nodes->size; k++) taken |= subgraph->plan->data[i] == nodes->data[k];
    if (!taken) plan[length++] = subgraph->plan->data[i];
  }
  fake_node(subgraph, params.input_tensors->size, params.input_tensors->data, params.output_tensors->size,
            params.output_tensors->data);
  plan[length++] = made;
  free(subgraph->plan);
  subgraph->plan = fake_int_array(length, plan);
  subgraph->runtime->replaced += nodes->size;
  FakeNode *node = &subgraph->nodes[made];
  node->registration = registration;
  if (registration.init != NULL) node->node.user_data = registration.init(context, (const char *)&params, 0);
  free(params.nodes_to_replace);
  free(params.input_tensors);
  free(params.output_tensors);
  return kKeTfLiteOk;
}

static KeTfLiteStatus acquire(KeTfLiteContext *context, int index, KeTfLiteContext **acquired) {
  FakeRuntime *runtime = subgraph_of(context)->runtime;
  if (index < 0 || index >= runtime->subgraph_count) {
    context->ReportError(context, "no subgraph %d", index);
    return kKeTfLiteError;
  }
  runtime->subgraphs[index].delegate_context = 1;
  *acquired = &runtime->subgraphs[index].context;
  return kKeTfLiteOk;
}

static KeTfLiteStatus release(KeTfLiteContext *context, int index) {
  subgraph_of(context)->runtime->subgraphs[index].delegate_context = 0;
  return kKeTfLiteOk;
}

void fake_runtime_init(FakeRuntime *runtime, int subgraphs) {
  memset(runtime, 0, sizeof(*runtime));
  runtime->subgraph_count = subgraphs;
  for (int i = 0; i < subgraphs; i++) {
    FakeSubgraph *subgraph = &runtime->subgraphs[i];
    subgraph->runtime = runtime;
    subgraph->index = i;
    subgraph->plan = fake_int_array(0, NULL);
    KeTfLiteContext *context = &subgraph->context;
    context->tensors = subgraph->tensors;
    context->recommended_num_threads = -1;
    context->GetExecutionPlan = get_plan;
    context->GetNodeAndRegistration = get_node;
    context->ResizeTensor = resize;
    context->ReportError = report_error;
    context->ReplaceNodeSubsetsWithDelegateKernels = replace;
    context->AcquireSubgraphContext = acquire;
    context->ReleaseSubgraphContext = release;
  }
}

void fake_runtime_destroy(FakeRuntime *runtime) {
  for (int i = 0; i < runtime->subgraph_count; i++) {
    FakeSubgraph *subgraph = &runtime->subgraphs[i];
    for (int k = 0; k < subgraph->node_count; k++) {
      FakeNode *node = &subgraph->nodes[k];
      if (node->registration.free != NULL) node->registration.free(&subgraph->context, node->node.user_data);
      free(node->node.inputs);
      free(node->node.outputs);
    }
    for (int k = 0; k < FAKE_TENSORS; k++) {
      free(subgraph->tensors[k].dims);
      free(subgraph->tensors[k].data);
    }
    free(subgraph->plan);
  }
}

KeTfLiteStatus fake_apply(FakeRuntime *runtime, KeTfLiteDelegate *delegate) {
  for (int i = 0; i < runtime->subgraph_count; i++) {
    runtime->subgraphs[i].delegate_context = 1;
    KeTfLiteStatus status = delegate->Prepare(&runtime->subgraphs[i].context, delegate);
    if (!runtime->subgraphs[i].delegate_context) return kKeTfLiteError; /* released what it did not acquire */
    runtime->subgraphs[i].delegate_context = 0;
    if (status != kKeTfLiteOk) return status;
  }
  return kKeTfLiteOk;
}

KeTfLiteStatus fake_allocate(FakeSubgraph *subgraph) {
  for (int i = 0; i < FAKE_TENSORS; i++) { /* nothing in the arena outlives its plan */
    KeTfLiteTensor *tensor = &subgraph->tensors[i];
    if (tensor->allocation_type != kKeTfLiteMmapRo && tensor->allocation_type != kKeTfLiteDynamic) fake_set_bytes(tensor, 0);
  }
  for (int i = 0; i < subgraph->plan->size; i++) {
    FakeNode *node = &subgraph->nodes[subgraph->plan->data[i]];
    if (node->registration.prepare == NULL) return kKeTfLiteError;
    if (node->registration.prepare(&subgraph->context, &node->node) != kKeTfLiteOk) return kKeTfLiteError;
  }
  for (size_t i = 0; i < subgraph->context.tensors_size && i < FAKE_TENSORS; i++) {
    KeTfLiteTensor *tensor = &subgraph->tensors[i];
    if (tensor->data == NULL && tensor->allocation_type == 2) fake_set_bytes(tensor, claimed_bytes(tensor));
  }
  return kKeTfLiteOk;
}

KeTfLiteStatus fake_invoke(FakeSubgraph *subgraph) {
  for (int i = 0; i < subgraph->plan->size; i++) {
    FakeNode *node = &subgraph->nodes[subgraph->plan->data[i]];
    if (node->registration.invoke(&subgraph->context, &node->node) != kKeTfLiteOk) return kKeTfLiteError;
  }
  return kKeTfLiteOk;
}
