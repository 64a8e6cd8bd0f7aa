#include <stdlib.h>
#include <string.h>

#include "delegate.h"
#include "tensor.h"

/* What KePrepare.host and KeInvoke.host point to. */
typedef struct Call {
  KeKernel *kernel;
  KeTfLiteContext *context;
  KeReport *report;
  int shaped[KE_MAX_OUTPUTS]; /* outputs that prepare has set */
  bool rehearsal;             /* outputs are not touched */
  bool running;               /* called from invoke: only dynamic outputs may change their shape */
  uint64_t macs;
} Call;

static void report_prepare(const KePrepare *prepare, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  ke_report_arguments(((Call *)prepare->host)->report, format, arguments);
  va_end(arguments);
}

static void report_invoke(const KeInvoke *invoke, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  ke_report_arguments(((Call *)invoke->host)->report, format, arguments);
  va_end(arguments);
}

static void add_macs(const KeInvoke *invoke, uint64_t macs) { ((Call *)invoke->host)->macs += macs; }

static bool same_shape(const KeTfLiteTensor *tensor, int rank, const int32_t *dims) {
  return tensor->dims != NULL && tensor->dims->size == rank &&
         (rank == 0 || memcmp(tensor->dims->data, dims, (size_t)rank * sizeof(*dims)) == 0);
}

static KeTfLiteStatus resize(KeTfLiteContext *context, KeTfLiteTensor *tensor, int rank, const int32_t *dims) {
  KeTfLiteIntArray *copy = malloc(sizeof(*copy) + (size_t)rank * sizeof(*dims)); /* the runtime frees it */
  if (copy == NULL) return kKeTfLiteError;
  copy->size = rank;
  if (rank > 0) memcpy(copy->data, dims, (size_t)rank * sizeof(*dims));
  return context->ResizeTensor(context, tensor, copy);
}

static int set_output_shape(const KePrepare *prepare, int output, int rank, const int32_t *dims) {
  Call *call = prepare->host;
  KeKernel *kernel = call->kernel;
  size_t bytes;
  if (output < 0 || output >= kernel->output_count || rank < 0 || rank > KE_MAX_RANK ||
      !ke_tensor_bytes(kernel->op->output_types[output], rank, dims, &bytes)) {
    ke_report(call->report, "Invalid output shape. Expected one of %d outputs and dimensions that fit into memory. Received: "
              "output %d of rank %d.", kernel->output_count, output, rank);
    return -1;
  }
  call->shaped[output] = 1;
  kernel->output_bytes[output] = bytes;
  if (call->rehearsal) return 0;
  KeTfLiteTensor *tensor = ke_tensor_at(call->context, kernel->outputs[output]);
  if (tensor == NULL) return -1;
  if (same_shape(tensor, rank, dims) && (tensor->data != NULL || tensor->allocation_type != kKeTfLiteDynamic)) return 0;
  if (call->running && tensor->allocation_type != kKeTfLiteDynamic) {
    ke_report(call->report, "Invalid output %d. Expected a dynamic tensor, since an input changed its shape while the model "
              "runs. Received: a tensor of fixed size.", output);
    return -1;
  }
  if (resize(call->context, tensor, rank, dims) == kKeTfLiteOk) return 0;
  ke_report(call->report, "Output %d cannot be resized to %zu bytes.", output, bytes);
  return -1;
}

static int view_inputs(KeKernel *kernel, const KeTfLiteContext *context, bool with_data, KeTensor *views, KeReport *report) {
  for (int i = 0; i < kernel->input_count; i++) {
    const KeTfLiteTensor *tensor = ke_tensor_at(context, kernel->inputs[i]);
    if (tensor == NULL || ke_tensor_check(tensor, kernel->input_arguments[i], report) != 0 ||
        ke_tensor_view(tensor, kernel->input_arguments[i]->name, with_data, &views[i], report) != 0) {
      return -1;
    }
  }
  return 0;
}

static int prepare_op(Call *call, const KeTensor *inputs) {
  KeKernel *kernel = call->kernel;
  KePrepare prepare = {call, kernel->input_count, inputs, kernel->output_count, kernel->threads, set_output_shape,
                       report_prepare};
  kernel->prepared = 0;
  if (kernel->op->prepare(kernel->state, &prepare) != 0) {
    ke_report(call->report, "Failed to prepare.");
    return -1;
  }
  for (int i = 0; i < kernel->output_count; i++) {
    if (!call->shaped[i]) {
      ke_report(call->report, "Failed to prepare. Expected a shape for each output. Received: none for output %d.", i);
      return -1;
    }
  }
  for (int i = 0; i < kernel->input_count; i++) {
    kernel->prepared_ranks[i] = inputs[i].rank;
    if (inputs[i].rank > 0) {
      memcpy(kernel->prepared_dims[i], inputs[i].dims, (size_t)inputs[i].rank * sizeof(int32_t));
    }
  }
  kernel->prepared = 1;
  return 0;
}

static int threads_of(const KeTfLiteContext *context) {
  int threads = context->recommended_num_threads;
  return threads < 1 ? 1 : threads > KE_MAX_THREADS ? KE_MAX_THREADS : threads;
}

int ke_kernel_rehearse(KeKernel *kernel, KeTfLiteContext *context, KeReport *report) {
  for (int i = 0; i < kernel->input_count; i++) {
    const KeTfLiteTensor *tensor = ke_tensor_at(context, kernel->inputs[i]);
    bool unknown = tensor->dims == NULL || (tensor->dims->size == 0 && kernel->input_arguments[i]->rank != 0);
    if (unknown) return 0; /* the real prepare will see */
  }
  KeTensor views[KE_MAX_ARGUMENTS];
  if (view_inputs(kernel, context, false, views, report) != 0) return -1;
  kernel->threads = threads_of(context);
  Call call = {.kernel = kernel, .context = context, .report = report, .rehearsal = true};
  return prepare_op(&call, views);
}

void ke_kernel_destroy(KeKernel *kernel) {
  if (kernel == NULL) return;
  if (kernel->state != NULL && kernel->op->destroy != NULL) kernel->op->destroy(kernel->state);
  ke_delegate_release(kernel->delegate);
  free(kernel);
}

static KeTfLiteStatus fail(KeTfLiteContext *context, const KeKernel *kernel, const KeReport *report) {
  context->ReportError(context, "keras-efficient: %s: %s", kernel->op->name, report->text);
  return kKeTfLiteError;
}

static void *init(KeTfLiteContext *context, const char *buffer, size_t length) {
  (void)length;
  const KeTfLiteDelegateParams *params = (const KeTfLiteDelegateParams *)(const void *)buffer;
  if (params == NULL || params->nodes_to_replace == NULL || params->nodes_to_replace->size != 1) return NULL;
  KeDelegate *delegate = (KeDelegate *)params->delegate;
  KeKernel *kernel = ke_delegate_take_claimed(delegate, context, params->nodes_to_replace->data[0]);
  KeStats *stats = __atomic_load_n(&delegate->options.stats, __ATOMIC_ACQUIRE);
  if (stats != NULL && kernel != NULL && kernel->refusal.text[0] == '\0') {
    __atomic_fetch_add(&stats->claimed_ops, 1, __ATOMIC_RELAXED);
  }
  return kernel;
}

static void destroy(KeTfLiteContext *context, void *kernel) {
  (void)context;
  ke_kernel_destroy(kernel);
}

static KeTfLiteStatus prepare(KeTfLiteContext *context, KeTfLiteNode *node) {
  KeKernel *kernel = node->user_data;
  if (kernel == NULL) {
    context->ReportError(context, "keras-efficient: a node was prepared that the delegate never claimed.");
    return kKeTfLiteError;
  }
  if (kernel->refusal.text[0] != '\0') return fail(context, kernel, &kernel->refusal);

  kernel->threads = threads_of(context);
  kernel->prepared = 0;
  bool dynamic = false;
  for (int i = 0; i < kernel->input_count; i++) {
    const KeTfLiteTensor *tensor = ke_tensor_at(context, kernel->inputs[i]);
    dynamic = dynamic || (tensor != NULL && tensor->allocation_type == kKeTfLiteDynamic);
  }
  if (dynamic) { /* shapes come with the values: invoke prepares */
    for (int i = 0; i < kernel->output_count; i++) {
      KeTfLiteTensor *tensor = ke_tensor_at(context, kernel->outputs[i]);
      if (tensor == NULL || tensor->allocation_type == kKeTfLiteDynamic) continue;
      tensor->allocation_type = kKeTfLiteDynamic;
      tensor->data = NULL;
    }
    return kKeTfLiteOk;
  }
  KeReport report = {{0}};
  KeTensor views[KE_MAX_ARGUMENTS];
  Call call = {.kernel = kernel, .context = context, .report = &report};
  if (view_inputs(kernel, context, false, views, &report) != 0 || prepare_op(&call, views) != 0) {
    return fail(context, kernel, &report);
  }
  return kKeTfLiteOk;
}

static bool shapes_changed(const KeKernel *kernel, const KeTensor *inputs) {
  if (!kernel->prepared) return true;
  for (int i = 0; i < kernel->input_count; i++) {
    if (inputs[i].rank != kernel->prepared_ranks[i]) return true;
    if (inputs[i].rank > 0 &&
        memcmp(inputs[i].dims, kernel->prepared_dims[i], (size_t)inputs[i].rank * sizeof(int32_t)) != 0) {
      return true;
    }
  }
  return false;
}

static void count(const KeDelegate *delegate, uint64_t macs) {
  KeStats *stats = __atomic_load_n(&delegate->options.stats, __ATOMIC_ACQUIRE);
  if (stats == NULL) return;
  __atomic_fetch_add(&stats->executed_macs, macs, __ATOMIC_RELAXED);
  __atomic_fetch_add(&stats->kernel_calls, 1, __ATOMIC_RELAXED);
}

static int invoke_op(Call *call) {
  KeKernel *kernel = call->kernel;
  KeTensor inputs[KE_MAX_ARGUMENTS], outputs[KE_MAX_OUTPUTS];
  if (view_inputs(kernel, call->context, true, inputs, call->report) != 0) return -1;
  if (shapes_changed(kernel, inputs) && prepare_op(call, inputs) != 0) return -1;
  for (int i = 0; i < kernel->output_count; i++) {
    const KeTfLiteTensor *tensor = ke_tensor_at(call->context, kernel->outputs[i]);
    if (tensor == NULL || ke_tensor_view(tensor, "output", true, &outputs[i], call->report) != 0) return -1;
    if (outputs[i].bytes != kernel->output_bytes[i] || outputs[i].type != kernel->op->output_types[i]) {
      ke_report(call->report, "Invalid output %d. Expected %zu bytes of %s. Received: %zu bytes of %s.", i,
                kernel->output_bytes[i], ke_type_name(kernel->op->output_types[i]), outputs[i].bytes,
                ke_type_name(outputs[i].type));
      return -1;
    }
  }

  KeIdlePool *pool = kernel->threads > 1 ? ke_delegate_borrow_pool(kernel->delegate, kernel->threads) : NULL;
  KeParallel parallel = ke_delegate_parallel(pool);
  KeInvoke invoke = {call, kernel->input_count, inputs, kernel->output_count, outputs, &parallel, add_macs, report_invoke};
  int status = kernel->op->invoke(kernel->state, &invoke);
  ke_delegate_return_pool(kernel->delegate, pool);
  if (status != 0) ke_report(call->report, "Failed to run.");
  return status;
}

static KeTfLiteStatus invoke(KeTfLiteContext *context, KeTfLiteNode *node) {
  KeKernel *kernel = node->user_data;
  if (kernel == NULL || kernel->state == NULL) {
    context->ReportError(context, "keras-efficient: a node was run that was never prepared.");
    return kKeTfLiteError;
  }
  KeReport report = {{0}};
  Call call = {.kernel = kernel, .context = context, .report = &report, .running = true};
  if (invoke_op(&call) != 0) return fail(context, kernel, &report);
  count(kernel->delegate, call.macs);
  return kKeTfLiteOk;
}

KeTfLiteRegistration ke_kernel_registration(void) {
  KeTfLiteRegistration registration = {.init = init,
                                       .free = destroy,
                                       .prepare = prepare,
                                       .invoke = invoke,
                                       .builtin_code = kKeTfLiteBuiltinDelegate,
                                       .custom_name = "KerasEfficient",
                                       .version = 1};
  return registration;
}

static KeTfLiteStatus prepare_idle(KeTfLiteContext *context, KeTfLiteNode *node) {
  (void)context;
  (void)node;
  return kKeTfLiteOk;
}

static KeTfLiteStatus invoke_idle(KeTfLiteContext *context, KeTfLiteNode *node) {
  (void)node;
  context->ReportError(context, "keras-efficient: the subgraph that stands in for a claimed op was run; the delegate took its "
                       "nodes, since every composite that names it was claimed.");
  return kKeTfLiteError;
}

KeTfLiteRegistration ke_idle_registration(void) {
  KeTfLiteRegistration registration = {.prepare = prepare_idle,
                                       .invoke = invoke_idle,
                                       .builtin_code = kKeTfLiteBuiltinDelegate,
                                       .custom_name = "KerasEfficientIdle",
                                       .version = 1};
  return registration;
}

bool ke_kernel_is_idle(const KeTfLiteRegistration *registration) { return registration->invoke == invoke_idle; }
