/* The delegate against the fake runtime: results, refusals and their sentences, shapes that change, several threads. */
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "checks.h"
#include "op_models.h"
#include "options.h"

static char created_error[1024];

static void keep_error(const char *message) { snprintf(created_error, sizeof(created_error), "%s", message); }

static KeTfLiteDelegate *create(void) {
  KeTfLiteDelegate *delegate = tflite_plugin_create_delegate(NULL, NULL, 0, keep_error);
  CHECK(delegate != NULL, "%s", created_error);
  return delegate;
}

static float *values_of(OpModel *model, int tensor) { return model->runtime.subgraphs[0].tensors[tensor].data; }

static void fill_input(OpModel *model, int input, float value) {
  const KeTfLiteTensor *tensor = &model->runtime.subgraphs[0].tensors[model->inputs[input]];
  for (size_t i = 0; i < tensor->bytes / sizeof(float); i++) ((float *)tensor->data)[i] = value;
}

static void set_batch(OpModel *model, int batch) {
  for (int i = 0; i < model->input_count; i++) {
    KeTfLiteTensor *tensor = &model->runtime.subgraphs[0].tensors[model->inputs[i]];
    tensor->dims->data[0] = batch;
    size_t per_sample = sizeof(float);
    for (int k = 1; k < tensor->dims->size; k++) per_sample *= (size_t)tensor->dims->data[k];
    fake_set_bytes(tensor, per_sample * (size_t)batch);
  }
}

static void check_gated_conv_2d(OpModel *model, int batch) {
  const KeTfLiteTensor *y = &model->runtime.subgraphs[0].tensors[model->output];
  fill_input(model, 0, 1.0f);
  fill_input(model, 1, 1.0f);
  fill_input(model, 2, 0.0f);
  values_of(model, model->inputs[1])[1] = 0.0f; /* sample 0: two inputs, one output */
  values_of(model, model->inputs[2])[3] = -2.0f;
  CHECK(fake_invoke(&model->runtime.subgraphs[0]) == kKeTfLiteOk, "%s", model->runtime.message);
  CHECK(y->dims->size == 4 && y->dims->data[0] == batch && y->dims->data[3] == 7 &&
        y->bytes == (size_t)batch * 5 * 4 * 7 * sizeof(float), "output of %d samples", batch);
  const float *values = y->data;
  float corner = -2.0f * (0.5f + 0.25f * 2 * 4), middle = -2.0f * (0.5f + 0.25f * 2 * 9);
  CHECK(values[3] == corner && values[(1 * 4 + 1) * 7 + 3] == middle && values[0] == 0.0f, "%g and %g", (double)values[3],
        (double)values[(1 * 4 + 1) * 7 + 3]);
}

static void fill_max_bits(OpModel *model) {
  const KeTfLiteTensor *tensor = &model->runtime.subgraphs[0].tensors[model->inputs[1]];
  for (size_t i = 0; i < tensor->bytes / sizeof(int32_t); i++) ((int32_t *)tensor->data)[i] = 8;
}

static void check_multi_bit_dense(OpModel *model, int batch) {
  fill_input(model, 0, 0.25f);
  fill_max_bits(model);
  CHECK(fake_invoke(&model->runtime.subgraphs[0]) == kKeTfLiteOk, "%s", model->runtime.message);
  const float *y = model->runtime.subgraphs[0].tensors[model->output].data;
  for (int i = 0; i < batch * 19; i++) CHECK(fabsf(y[i] - (1.0f + 2 * 0.5f * 0.25f * 40)) < 1e-4f, "y[%d] = %g", i, (double)y[i]);
}

static void check_multi_bit_conv_2d(OpModel *model, int batch) {
  fill_input(model, 0, 0.3f);
  fill_max_bits(model);
  CHECK(fake_invoke(&model->runtime.subgraphs[0]) == kKeTfLiteOk, "%s", model->runtime.message);
  const float *y = model->runtime.subgraphs[0].tensors[model->output].data;
  for (int b = 0; b < batch; b++) {
    const float corner = y[b * 5 * 4 * 7], middle = y[(b * 5 * 4 + 5) * 7 + 3];
    CHECK(fabsf(corner - (1.0f + 0.5f * 0.5f * 3 * 4)) < 1e-3f && fabsf(middle - (1.0f + 0.5f * 0.5f * 3 * 9)) < 1e-3f, "%g and %g",
          (double)corner, (double)middle);
  }
}

typedef struct Kind {
  const char *name;
  void (*make)(OpModel *model, int is_composite);
  void (*check)(OpModel *model, int batch);
} Kind;

static const Kind kinds[] = {{"ke.gated_conv_2d", make_gated_conv_2d, check_gated_conv_2d},
                             {"ke.multi_bit_dense", make_multi_bit_dense, check_multi_bit_dense},
                             {"ke.multi_bit_conv_2d", make_multi_bit_conv_2d, check_multi_bit_conv_2d}};

static void test_results(const Kind *kind, int is_composite, int threads) {
  KeStats stats = {.size_bytes = sizeof(stats)};
  char address[32];
  snprintf(address, sizeof(address), "%llu", (unsigned long long)(uintptr_t)&stats);
  const char *keys[] = {"stats"}, *values[] = {address};
  KeTfLiteDelegate *delegate = tflite_plugin_create_delegate(keys, values, 1, keep_error);
  OpModel model;
  kind->make(&model, is_composite);
  FakeSubgraph *graph = &model.runtime.subgraphs[0];
  graph->context.recommended_num_threads = threads;
  CHECK(fake_apply(&model.runtime, delegate) == kKeTfLiteOk, "%s", model.runtime.message);
  CHECK(model.runtime.replaced == (is_composite ? 2 : 1), "%s: the node and its decomposition: %s", kind->name, model.runtime.message);
  for (int batch = 1; batch <= 3; batch += 2) {
    set_batch(&model, batch);
    CHECK(fake_allocate(graph) == kKeTfLiteOk, "%s", model.runtime.message);
    kind->check(&model, batch);
  }
  CHECK(stats.kernel_calls == 2, "%llu calls", (unsigned long long)stats.kernel_calls);
  CHECK(stats.claimed_ops == 1, "%llu claimed", (unsigned long long)stats.claimed_ops);
  const uint64_t wanted[] = {2 * 5 * 4 * 9 * 2, (1 + 3) * 40 * 19, (1 + 3) * 5 * 4 * 9 * 3 * 7};
  uint64_t macs = wanted[kind - kinds]; /* the gated convolution's other samples are shut */
  CHECK(stats.executed_macs == macs, "%llu MACs", (unsigned long long)stats.executed_macs);
  if (is_composite) {
    CHECK(fake_allocate(&model.runtime.subgraphs[1]) == kKeTfLiteOk, "%s", model.runtime.message);
    CHECK(fake_invoke(&model.runtime.subgraphs[1]) == kKeTfLiteError, "the decomposition was run");
  }
  destroy_model(&model);
  tflite_plugin_destroy_delegate(delegate);
}

/* A shape that is only known when the model runs. */
static void test_dynamic(const Kind *kind) {
  KeTfLiteDelegate *delegate = create();
  OpModel model;
  kind->make(&model, 0);
  FakeSubgraph *graph = &model.runtime.subgraphs[0];
  graph->tensors[model.inputs[0]].allocation_type = kKeTfLiteDynamic;
  CHECK(fake_apply(&model.runtime, delegate) == kKeTfLiteOk && fake_allocate(graph) == kKeTfLiteOk, "%s", model.runtime.message);
  CHECK(graph->tensors[model.output].allocation_type == kKeTfLiteDynamic, "output of %s", kind->name);
  for (int batch = 3; batch >= 1; batch--) {
    set_batch(&model, batch);
    kind->check(&model, batch);
  }
  destroy_model(&model);
  tflite_plugin_destroy_delegate(delegate);
}

/* Something is wrong with the model: a composite stays unclaimed, a custom op fails to prepare; both say `sentence`. */
static void expect_refusal(const Kind *kind, void (*spoil)(OpModel *model), const char *sentence) {
  for (int is_composite = 0; is_composite < 2; is_composite++) {
    KeTfLiteDelegate *delegate = create();
    OpModel model;
    kind->make(&model, is_composite);
    spoil(&model);
    CHECK(fake_apply(&model.runtime, delegate) == kKeTfLiteOk, "apply");
    if (is_composite) {
      CHECK(model.runtime.replaced == 0, "claimed although: %s", sentence);
    } else {
      CHECK(fake_allocate(&model.runtime.subgraphs[0]) == kKeTfLiteError, "prepared although: %s", sentence);
    }
    CHECK(strstr(model.runtime.message, kind->name) != NULL && strstr(model.runtime.message, sentence) != NULL,
          "expected: %s; received: %s", sentence, model.runtime.message);
    destroy_model(&model);
    tflite_plugin_destroy_delegate(delegate);
  }
}

static KeTfLiteTensor *weight(OpModel *model, int index) {
  return &model->runtime.subgraphs[model->is_composite].tensors[model->weights[index]];
}
static KeTfLiteTensor *input(OpModel *model, int index) { return &model->runtime.subgraphs[0].tensors[model->inputs[index]]; }
static void no_attributes(OpModel *model) { set_attributes(model, NULL, 0); }
static void wrong_input_type(OpModel *model) { input(model, 0)->type = kKeTfLiteInt8; }
static void wrong_input_rank(OpModel *model) { input(model, 0)->dims->size = 1; }
static void wrong_weight_type(OpModel *model) { weight(model, 0)->type = kKeTfLiteInt64; }
static void weight_is_no_constant(OpModel *model) { weight(model, 0)->allocation_type = 2; }
static void weight_is_sparse(OpModel *model) { weight(model, 0)->sparsity = model; }
static int last_dimension(const KeTfLiteTensor *tensor) { return tensor->dims->size - 1; }
static void weight_lies(OpModel *model) { weight(model, 0)->dims->data[last_dimension(weight(model, 0))] = 1000; }
static void weight_is_huge(OpModel *model) {
  for (int i = 0; i <= last_dimension(weight(model, 0)); i++) weight(model, 0)->dims->data[i] = INT32_MAX;
}
static void negative_dimension(OpModel *model) { weight(model, 0)->dims->data[last_dimension(weight(model, 0))] = -1; }
static void wrong_bias(OpModel *model) {
  KeTfLiteTensor *bias = weight(model, model->weight_count - 1);
  bias->dims->data[0] -= 1;
  bias->bytes -= sizeof(float);
}
static void wrong_features(OpModel *model) { input(model, 0)->dims->data[input(model, 0)->dims->size - 1] = 1000; }
static void bits_are_short(OpModel *model) {
  KeTfLiteTensor *bits = weight(model, 1);
  bits->dims->data[0] -= 1;
  bits->bytes -= 1;
}
static void levels_are_long(OpModel *model) {
  KeTfLiteTensor *levels = weight(model, 3);
  fake_set_bytes(levels, 5 * sizeof(float));
  levels->dims->data[0] = 5;
}
static void no_max_bits(OpModel *model) {
  input(model, 1)->dims->data[0] = 0;
  fake_set_bytes(input(model, 1), 0);
}
static void wrong_gate(OpModel *model) { input(model, 2)->dims->data[1] = 6; }
static void wrong_output_type(OpModel *model) { model->runtime.subgraphs[0].tensors[model->output].type = kKeTfLiteInt32; }
static void too_few_inputs(OpModel *model) { model->runtime.subgraphs[0].nodes[model->node].node.inputs->size = 0; }
static void newer_version(OpModel *model) {
  uint8_t bytes[FLEX_CAPACITY];
  const FlexEntry entry = {.key = "version", .integer = 3};
  set_attributes(model, bytes, flex_write(bytes, &entry, 1, 4));
}

static void test_refusals(const Kind *kind) {
  expect_refusal(kind, no_attributes, "Expected a flexbuffer map. Received: 0 bytes");
  expect_refusal(kind, newer_version, kind == &kinds[1] ? "Expected at most 2, the newest that this library understands. Received: 3"
                                                        : "Expected at most 1, the newest that this library understands. Received: 3");
  expect_refusal(kind, wrong_input_type, "argument `x`. Expected a tensor of float32");
  expect_refusal(kind, wrong_input_rank, "and rank 1.");
  expect_refusal(kind, wrong_weight_type, kind == &kinds[0] ? "Received: int64 and rank 4." : "Received: int64 and rank 1.");
  expect_refusal(kind, weight_is_no_constant, "Expected a dense constant of the file.");
  expect_refusal(kind, weight_is_sparse, "Expected a dense constant of the file. Received: a tensor that is sparse.");
  expect_refusal(kind, weight_lies, "bytes, as its dimensions say.");
  expect_refusal(kind, weight_is_huge, kind == &kinds[0] ? "that fit into memory" : "bytes, as its dimensions say.");
  expect_refusal(kind, negative_dimension, "none negative");
  expect_refusal(kind, wrong_bias, kind == &kinds[0] ? "argument `bias`. Expected" : "Invalid size of `");
  expect_refusal(kind, wrong_features, kind == &kinds[0] ? "argument `x`. Expected" : "Invalid size of `widths`. Expected");
  expect_refusal(kind, wrong_output_type, "Expected a tensor of float32 that can be written. Received: int32.");
  expect_refusal(kind, too_few_inputs, "Invalid node. Expected");
  if (kind == &kinds[0]) {
    expect_refusal(kind, wrong_gate, "argument `g_out`. Expected shape [1, 7]. Received: [1, 6].");
    return;
  }
  expect_refusal(kind, bits_are_short, "Invalid size of `bits`. Expected");
  expect_refusal(kind, levels_are_long, "argument `levels`. Expected");
  expect_refusal(kind, no_max_bits, "argument `max_bits`. Expected at least one number.");
}

/* Composites whose decomposition is not what it should be. */
static void test_subgraph_indices(void) {
  static const int wrong[] = {-1, 0, 2, INT32_MAX};
  for (int i = 0; i < 4; i++) {
    KeTfLiteDelegate *delegate = create();
    OpModel model;
    make_gated_conv_2d(&model, 1);
    model.composite.subgraph_index = wrong[i];
    CHECK(fake_apply(&model.runtime, delegate) == kKeTfLiteOk && model.runtime.replaced == 0, "index %d", wrong[i]);
    CHECK(strstr(model.runtime.message, "Expected the index of its decomposition.") != NULL, "%s", model.runtime.message);
    destroy_model(&model);
    tflite_plugin_destroy_delegate(delegate);
  }
}

/* A second composite names the same decomposition. When it is refused, the decomposition has to stay. */
static void test_shared_decomposition(int refuse_second) {
  KeTfLiteDelegate *delegate = create();
  OpModel model;
  make_gated_conv_2d(&model, 1);
  FakeSubgraph *graph = &model.runtime.subgraphs[0];
  int output = fake_tensor(graph, refuse_second ? kKeTfLiteInt32 : kKeTfLiteFloat32, 4, (const int[]){1, 5, 4, 7}, NULL);
  int second = fake_node(graph, 3, model.inputs, 1, &output);
  graph->nodes[second].registration.builtin_code = kKeTfLiteBuiltinComposite;
  graph->nodes[second].node.builtin_data = &model.composite;
  CHECK(fake_apply(&model.runtime, delegate) == kKeTfLiteOk, "%s", model.runtime.message);
  CHECK(model.runtime.replaced == (refuse_second ? 1 : 3), "%d nodes replaced", model.runtime.replaced);
  destroy_model(&model);
  tflite_plugin_destroy_delegate(delegate);
}

/* One delegate, several interpreters, each in a thread of its own. */
static void *use_delegate(void *delegate) {
  for (int round = 0; round < 60; round++) {
    OpModel model;
    const Kind *kind = &kinds[round % 3];
    kind->make(&model, round / 3 % 2);
    model.runtime.subgraphs[0].context.recommended_num_threads = 1 + round % 3;
    int status = fake_apply(&model.runtime, delegate) == kKeTfLiteOk && fake_allocate(&model.runtime.subgraphs[0]) == kKeTfLiteOk;
    if (status) {
      fill_input(&model, 0, 0.5f);
      if (kind != &kinds[0]) fill_max_bits(&model);
      for (int i = 0; status && i < 3; i++) status = fake_invoke(&model.runtime.subgraphs[0]) == kKeTfLiteOk;
    }
    status = status && (kind != &kinds[1] || fabsf(values_of(&model, model.output)[18] - (1.0f + 2 * 0.5f * 0.5f * 40)) < 1e-4f);
    destroy_model(&model);
    if (!status) return delegate;
  }
  return NULL;
}

static void test_shared_delegate(void) {
  KeStats stats = {.size_bytes = sizeof(stats)};
  char address[32];
  snprintf(address, sizeof(address), "%llu", (unsigned long long)(uintptr_t)&stats);
  const char *keys[] = {"stats"}, *values[] = {address};
  KeTfLiteDelegate *delegate = tflite_plugin_create_delegate(keys, values, 1, keep_error);
  pthread_t threads[6];
  for (int i = 0; i < 6; i++) pthread_create(&threads[i], NULL, use_delegate, delegate);
  for (int i = 0; i < 6; i++) {
    void *failed = NULL;
    pthread_join(threads[i], &failed);
    CHECK(failed == NULL, "thread %d", i);
  }
  CHECK(stats.kernel_calls == 6 * 60 * 3 && stats.claimed_ops == 6 * 60, "%llu calls", (unsigned long long)stats.kernel_calls);
  tflite_plugin_destroy_delegate(delegate);
}

static void expect_option_error(const char *key, const char *value, const char *sentence) {
  const char *keys[] = {key}, *values[] = {value};
  created_error[0] = '\0';
  CHECK(tflite_plugin_create_delegate(keys, values, 1, keep_error) == NULL, "accepted %s=%s", key, value);
  CHECK(strstr(created_error, sentence) != NULL, "expected: %s; received: %s", sentence, created_error);
}

static void test_options(void) {
  static const KeStats small = {.size_bytes = 8};
  char address[32];
  snprintf(address, sizeof(address), "%llu", (unsigned long long)(uintptr_t)&small);
  expect_option_error("threads", "4", "Expected stats, plugins or isa. Received: threads.");
  expect_option_error("isa", "fastest", "Expected scalar");
  expect_option_error("stats", "0", "Expected the address");
  expect_option_error("stats", "0x1000", "Expected the address");
  expect_option_error("stats", "99999999999999999999999", "Expected the address");
  expect_option_error("stats", address, "`size_bytes` is at least 32. Received: 8.");
  expect_option_error("plugins", "/nonexistent/plugin.so", "Expected paths of shared libraries. Received: /nonexistent/plugin.so");
  expect_option_error(NULL, "x", "Expected pairs of strings.");
}

int main(void) {
  for (int k = 0; k < 2; k++) {
    for (int is_composite = 0; is_composite < 2; is_composite++) {
      for (int threads = 1; threads <= 4; threads++) test_results(&kinds[k], is_composite, threads);
    }
    test_dynamic(&kinds[k]);
    test_refusals(&kinds[k]);
  }
  test_subgraph_indices();
  test_shared_decomposition(0);
  test_shared_decomposition(1);
  test_shared_delegate();
  test_options();
  return finish("delegate");
}
