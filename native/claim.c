#include <stdlib.h>
#include <string.h>

#include "attributes.h"
#include "delegate.h"
#include "tensor.h"

/* A node that names one of our ops, whichever form it has. */
typedef struct Candidate {
  const KeOp *op;
  const KeTfLiteNode *node;
  const uint8_t *attributes;
  size_t attributes_bytes;
  bool is_composite;
  int subgraph_index; /* of the composite's decomposition */
} Candidate;

static bool recognise(const KeDelegate *delegate, const KeTfLiteNode *node, const KeTfLiteRegistration *registration,
                      Candidate *candidate) {
  candidate->node = node;
  candidate->is_composite = registration->builtin_code == kKeTfLiteBuiltinComposite;
  candidate->subgraph_index = -1;
  if (candidate->is_composite) {
    const KeTfLiteCompositeParams *params = node->builtin_data;
    if (params == NULL || params->name == NULL) return false;
    candidate->op = ke_registry_find(&delegate->registry, params->name);
    candidate->attributes = params->attributes;
    candidate->attributes_bytes = params->attributes_size;
    candidate->subgraph_index = params->subgraph_index;
  } else if (registration->builtin_code == kKeTfLiteBuiltinCustom && registration->custom_name != NULL) {
    candidate->op = ke_registry_find(&delegate->registry, registration->custom_name);
    candidate->attributes = node->custom_initial_data;
    candidate->attributes_bytes = node->custom_initial_data_size < 0 ? 0 : (size_t)node->custom_initial_data_size;
  } else {
    return false;
  }
  return candidate->op != NULL;
}

static int argument_count(const KeOp *op, KeArgumentKind kind) {
  int count = 0;
  for (int i = 0; i < op->argument_count; i++) count += op->arguments[i].kind == (int32_t)kind;
  return count;
}

static int expect_count(const char *what, int expected, const KeTfLiteIntArray *received, KeReport *report) {
  int count = received == NULL ? 0 : received->size;
  if (count == expected) return 0;
  ke_report(report, "Invalid node. Expected %d %s. Received: %d.", expected, what, count);
  return -1;
}

/* Activations and gates: which tensors they are, and whether type and rank fit as far as the file knows them. */
static int bind_inputs(const Candidate *candidate, const KeTfLiteContext *context, KeKernel *kernel, KeReport *report) {
  const KeOp *op = candidate->op;
  int expected = candidate->is_composite ? argument_count(op, KE_ARGUMENT_INPUT) : op->argument_count;
  if (expect_count("inputs", expected, candidate->node->inputs, report) != 0) return -1;
  for (int i = 0; i < op->argument_count; i++) {
    if (op->arguments[i].kind != KE_ARGUMENT_INPUT) continue;
    int place = kernel->input_count++;
    kernel->inputs[place] = candidate->node->inputs->data[candidate->is_composite ? place : i];
    kernel->input_arguments[place] = &op->arguments[i];
    const KeTfLiteTensor *tensor = ke_tensor_at(context, kernel->inputs[place]);
    if (tensor == NULL) {
      ke_report(report, "Invalid value for argument `%s`. Expected a tensor. Received: index %d, which is none.",
                op->arguments[i].name, kernel->inputs[place]);
      return -1;
    }
    KeArgument known = op->arguments[i];
    if (tensor->dims == NULL || tensor->dims->size == 0) known.rank = -1;
    if (ke_tensor_check(tensor, &known, report) != 0) return -1;
  }
  return 0;
}

static int bind_outputs(const Candidate *candidate, const KeTfLiteContext *context, KeKernel *kernel, KeReport *report) {
  const KeOp *op = candidate->op;
  if (expect_count("outputs", op->output_count, candidate->node->outputs, report) != 0) return -1;
  for (int i = 0; i < op->output_count; i++) {
    int index = candidate->node->outputs->data[i];
    const KeTfLiteTensor *tensor = ke_tensor_at(context, index);
    if (tensor == NULL || tensor->type != op->output_types[i] || tensor->allocation_type == kKeTfLiteMmapRo) {
      ke_report(report, "Invalid output %d. Expected a tensor of %s that can be written. Received: %s.", i,
                ke_type_name(op->output_types[i]), tensor == NULL ? "none" : ke_type_name(tensor->type));
      return -1;
    }
    bool shared = false;
    for (int k = 0; k < kernel->input_count; k++) shared = shared || kernel->inputs[k] == index;
    for (int k = 0; k < kernel->output_count; k++) shared = shared || kernel->outputs[k] == index;
    if (shared) {
      ke_report(report, "Invalid output %d. Expected a tensor of its own. Received: tensor %d, which is also another input or "
                "output.", i, index);
      return -1;
    }
    kernel->outputs[kernel->output_count++] = index;
  }
  return 0;
}

/* Weights of a custom op are inputs of the node; those of a composite are constants of its decomposition, listed in the
 * attribute `weights`. */
static int view_weights(const Candidate *candidate, const KeTfLiteContext *home, const KeInit *init, KeTensor *weights,
                        KeReport *report) {
  const KeOp *op = candidate->op;
  int64_t indices[KE_MAX_ARGUMENTS];
  size_t count = 0;
  size_t expected = (size_t)argument_count(op, KE_ARGUMENT_WEIGHT);
  if (candidate->is_composite && expected > 0) {
    if (init->get_ints(init, "weights", 0, INT32_MAX, KE_MAX_ARGUMENTS, indices, &count) != 0) return -1;
    if (count != expected) {
      ke_report(report, "Invalid value for attribute `weights`. Expected %zu tensor indices. Received: %zu.", expected, count);
      return -1;
    }
  }
  int place = 0;
  for (int i = 0; i < op->argument_count; i++) {
    if (op->arguments[i].kind != KE_ARGUMENT_WEIGHT) continue;
    int index = candidate->is_composite ? (int)indices[place] : candidate->node->inputs->data[i];
    const KeTfLiteTensor *tensor = ke_tensor_at(home, index);
    if (tensor == NULL) {
      ke_report(report, "Invalid value for argument `%s`. Expected a tensor. Received: index %d, which is none.",
                op->arguments[i].name, index);
      return -1;
    }
    if (ke_tensor_view_weight(tensor, &op->arguments[i], &weights[place++], report) != 0) return -1;
  }
  return 0;
}

/* Makes the op's state from what the file says. `home` is where its weights live. */
static int init_op(const Candidate *candidate, const KeTfLiteContext *home, KeKernel *kernel, KeReport *report) {
  const KeOp *op = candidate->op;
  KeAttributeReader reader;
  KeInit init = {0};
  if (ke_attributes_open(&reader, candidate->attributes, candidate->attributes_bytes, report, &init) != 0) return -1;
  int64_t version = 0;
  if (init.get_int(&init, "version", 1, INT32_MAX, &version) != 0) return -1;
  if (version > op->version) {
    ke_report(report, "Invalid op version. Expected at most %d, the newest that this library understands. Received: %lld; a "
              "newer keras-efficient runs this file.", op->version, (long long)version);
    return -1;
  }
  KeTensor weights[KE_MAX_ARGUMENTS];
  if (view_weights(candidate, home, &init, weights, report) != 0) return -1;
  init.version = (int32_t)version;
  init.isa = ke_isa_name(kernel->delegate->options.isa);
  init.weight_count = argument_count(op, KE_ARGUMENT_WEIGHT);
  init.weights = weights;
  kernel->state = op->init(&init);
  if (kernel->state != NULL) return 0;
  ke_report(report, "Failed to initialize.");
  return -1;
}

static int init_from_decomposition(const Candidate *candidate, KeTfLiteContext *context, KeKernel *kernel,
                                   KeReport *report) {
  KeTfLiteContext *home = NULL;
  int index = candidate->subgraph_index;
  if (index <= 0 || context->AcquireSubgraphContext == NULL ||
      context->AcquireSubgraphContext(context, index, &home) != kKeTfLiteOk || home == NULL) {
    ke_report(report, "Invalid composite. Expected the index of its decomposition. Received: %d.", index);
    return -1;
  }
  if (home == context) { /* not released: this is the very context that the runtime lent us */
    ke_report(report, "Invalid composite. Expected a decomposition in a subgraph of its own. Received: the subgraph that "
              "holds the composite.");
    return -1;
  }
  int status = init_op(candidate, home, kernel, report);
  context->ReleaseSubgraphContext(context, index);
  return status;
}

KeKernel *ke_claim_node(KeDelegate *delegate, KeTfLiteContext *context, int node_index, int *subgraph_index) {
  KeTfLiteNode *node = NULL;
  KeTfLiteRegistration *registration = NULL;
  if (context->GetNodeAndRegistration(context, node_index, &node, &registration) != kKeTfLiteOk) return NULL;
  Candidate candidate;
  if (!recognise(delegate, node, registration, &candidate)) return NULL;
  *subgraph_index = candidate.subgraph_index;

  KeReport report = {{0}};
  KeKernel *kernel = calloc(1, sizeof(*kernel));
  if (kernel == NULL) return NULL;
  kernel->delegate = delegate;
  ke_delegate_retain(delegate);
  kernel->op = candidate.op;
  kernel->context = context;
  kernel->node_index = node_index;
  int status = bind_inputs(&candidate, context, kernel, &report);
  if (status == 0) status = bind_outputs(&candidate, context, kernel, &report);
  if (status == 0) {
    status = candidate.is_composite ? init_from_decomposition(&candidate, context, kernel, &report)
                                    : init_op(&candidate, context, kernel, &report);
  }
  if (status == 0) status = ke_kernel_rehearse(kernel, context, &report);
  if (status == 0) return kernel;

  if (!candidate.is_composite) {
    kernel->refusal = report;
    return kernel;
  }
  context->ReportError(context, "keras-efficient: %s stays on its builtin operators: %s", candidate.op->name, report.text);
  ke_kernel_destroy(kernel);
  return NULL;
}

static void say_nothing(KeTfLiteContext *context, const char *format, ...) {
  (void)context;
  (void)format;
}

/* The runtime has no count of its subgraphs and reports an index beyond the last one as an error: hush it. */
static bool acquire_quietly(KeTfLiteContext *context, int index, KeTfLiteContext **acquired) {
  void (*report_error)(KeTfLiteContext *, const char *, ...) = context->ReportError;
  *acquired = NULL;
  context->ReportError = say_nothing;
  KeTfLiteStatus status = context->AcquireSubgraphContext(context, index, acquired);
  context->ReportError = report_error;
  return status == kKeTfLiteOk && *acquired != NULL;
}

/* Composites and control flow name subgraphs by index. */
static bool node_names(KeTfLiteContext *context, int node_index, int subgraph_index) {
  enum { kIf = 118, kWhile = 119, kCallOnce = 129 };
  KeTfLiteNode *node = NULL;
  KeTfLiteRegistration *registration = NULL;
  if (context->GetNodeAndRegistration(context, node_index, &node, &registration) != kKeTfLiteOk) return true;
  const int *indices = node->builtin_data;
  if (indices == NULL) return false;
  switch (registration->builtin_code) {
    case kKeTfLiteBuiltinComposite:
      return ((const KeTfLiteCompositeParams *)node->builtin_data)->subgraph_index == subgraph_index;
    case kIf:
    case kWhile:
      return indices[0] == subgraph_index || indices[1] == subgraph_index;
    case kCallOnce:
      return indices[0] == subgraph_index;
    default:
      return false;
  }
}

static KeTfLiteIntArray *copy_plan(KeTfLiteContext *context) {
  KeTfLiteIntArray *plan = NULL;
  if (context->GetExecutionPlan(context, &plan) != kKeTfLiteOk || plan == NULL) return NULL;
  size_t bytes = sizeof(*plan) + (size_t)plan->size * sizeof(plan->data[0]);
  KeTfLiteIntArray *copy = malloc(bytes);
  if (copy != NULL) memcpy(copy, plan, bytes);
  return copy;
}

/* Whether any node that is still in an execution plan names the subgraph: claimed ones have left the plans. */
static bool still_used(KeTfLiteContext *context, int subgraph_index) {
  KeTfLiteContext *other;
  bool used = false;
  for (int i = 0; !used && acquire_quietly(context, i, &other); i++) {
    KeTfLiteIntArray *plan = copy_plan(other);
    used = plan == NULL;
    for (int j = 0; !used && j < plan->size; j++) used = node_names(other, plan->data[j], subgraph_index);
    free(plan);
    if (other != context) context->ReleaseSubgraphContext(context, i);
  }
  return used;
}

static void drop_idle_nodes(KeTfLiteContext *context, KeTfLiteIntArray *plan) {
  int kept = 0;
  for (int i = 0; i < plan->size; i++) {
    KeTfLiteNode *node = NULL;
    KeTfLiteRegistration *registration = NULL;
    if (context->GetNodeAndRegistration(context, plan->data[i], &node, &registration) != kKeTfLiteOk) continue;
    if (!ke_kernel_is_idle(registration)) plan->data[kept++] = plan->data[i];
  }
  plan->size = kept;
}

void ke_claim_decomposition(KeDelegate *delegate, KeTfLiteContext *context, int subgraph_index) {
  if (still_used(context, subgraph_index)) return;
  KeTfLiteContext *decomposition;
  if (!acquire_quietly(context, subgraph_index, &decomposition)) return;
  if (decomposition == context) return;
  KeTfLiteIntArray *plan = copy_plan(decomposition);
  if (plan != NULL) drop_idle_nodes(decomposition, plan);
  if (plan != NULL && plan->size > 0) {
    decomposition->ReplaceNodeSubsetsWithDelegateKernels(decomposition, ke_idle_registration(), plan, &delegate->base);
  }
  free(plan);
  context->ReleaseSubgraphContext(context, subgraph_index);
}
