#include "op_models.h"

#include <stdlib.h>

static void fill(float *values, int count, float value) {
  for (int i = 0; i < count; i++) values[i] = value;
}

void set_attributes(OpModel *model, const uint8_t *bytes, size_t size) {
  free(model->attributes);
  model->attributes = malloc(size == 0 ? 1 : size);
  if (size > 0) memcpy(model->attributes, bytes, size);
  model->attributes_size = size;
  model->composite.attributes = model->attributes;
  model->composite.attributes_size = size;
  KeTfLiteNode *node = &model->runtime.subgraphs[0].nodes[model->node].node;
  node->custom_initial_data = model->attributes;
  node->custom_initial_data_size = (int)size;
}

/* The node, its attributes with the weights among them, and a decomposition of one node that nobody should ever run. */
static void finish_model(OpModel *model, const char *name, FlexEntry *entries, int count) {
  FakeSubgraph *main_graph = &model->runtime.subgraphs[0];
  int arguments[16], length = 0;
  for (int i = 0; i < model->input_count; i++) arguments[length++] = model->inputs[i];
  for (int i = 0; i < model->weight_count && !model->is_composite; i++) arguments[length++] = model->weights[i];
  model->node = fake_node(main_graph, length, arguments, 1, &model->output);
  FakeNode *node = &main_graph->nodes[model->node];
  int64_t weights[8];
  for (int i = 0; i < model->weight_count; i++) weights[i] = model->weights[i];
  if (model->is_composite) {
    entries[count++] = (FlexEntry){.key = "weights", .vector = weights, .vector_length = model->weight_count};
    node->registration.builtin_code = kKeTfLiteBuiltinComposite;
    node->node.builtin_data = &model->composite;
    model->composite.name = name;
    model->composite.subgraph_index = 1;
    const int scalar = 1;
    FakeSubgraph *decomposition = &model->runtime.subgraphs[1];
    int tensor = fake_tensor(decomposition, kKeTfLiteFloat32, 1, &scalar, NULL);
    fake_node(decomposition, 1, &tensor, 1, &tensor);
  } else {
    node->registration.builtin_code = kKeTfLiteBuiltinCustom;
    node->registration.custom_name = name;
  }
  uint8_t bytes[FLEX_CAPACITY];
  set_attributes(model, bytes, flex_write(bytes, entries, count, 4));
}

static void begin_model(OpModel *model, int is_composite) {
  memset(model, 0, sizeof(*model));
  model->is_composite = is_composite;
  fake_runtime_init(&model->runtime, is_composite ? 2 : 1);
}

static void add_weight(OpModel *model, int type, int rank, const int *dims, const void *value) {
  FakeSubgraph *home = &model->runtime.subgraphs[model->is_composite ? 1 : 0];
  model->weights[model->weight_count++] = fake_tensor(home, type, rank, dims, value);
}

void make_gated_conv_2d(OpModel *model, int is_composite) {
  begin_model(model, is_composite);
  FakeSubgraph *graph = &model->runtime.subgraphs[0];
  const int x[] = {1, 5, 4, 3}, g_in[] = {1, 3}, g_out[] = {1, 7}, kernel[] = {7, 3, 3, 3}, bias[] = {7}, y[] = {1, 5, 4, 7};
  model->inputs[model->input_count++] = fake_tensor(graph, kKeTfLiteFloat32, 4, x, NULL);
  model->inputs[model->input_count++] = fake_tensor(graph, kKeTfLiteFloat32, 2, g_in, NULL);
  model->inputs[model->input_count++] = fake_tensor(graph, kKeTfLiteFloat32, 2, g_out, NULL);
  float values[7 * 27];
  fill(values, 7 * 27, 0.25f);
  add_weight(model, kKeTfLiteFloat32, 4, kernel, values);
  fill(values, 7, 0.5f);
  add_weight(model, kKeTfLiteFloat32, 1, bias, values);
  model->output = fake_tensor(graph, kKeTfLiteFloat32, 4, y, NULL);
  FlexEntry entries[8] = {{.key = "activation", .integer = 1}, {.key = "dilation_h", .integer = 1},
                          {.key = "dilation_w", .integer = 1}, {.key = "padding", .integer = 1},
                          {.key = "stride_h", .integer = 1},   {.key = "stride_w", .integer = 1},
                          {.key = "version", .integer = 1}};
  finish_model(model, "ke.gated_conv_2d", entries, 7);
}

/* widths, bits, scales, levels and bias: every group has `bases` bases, all bits 0, scales 0.5, bias 1. */
static void add_packed(OpModel *model, int groups, int group_size, int bases, int width_bits, int activation_bits, int outputs) {
  uint8_t bytes[1024] = {0};
  float values[256];
  const int rows = groups * bases, widths[] = {(groups * width_bits + 7) / 8}, bits[] = {(rows * group_size + 7) / 8};
  const int scales[] = {rows}, levels[] = {1 + activation_bits}, bias[] = {outputs};
  add_weight(model, kKeTfLiteUInt8, 1, bits, bytes);
  const int zeros = model->weights[--model->weight_count]; /* of the other stream first, which is all zeros */
  for (int g = 0; g < groups; g++) {
    for (int i = 0; i < width_bits; i++) bytes[(g * width_bits + i) / 8] |= (uint8_t)((bases >> i & 1) << ((g * width_bits + i) % 8));
  }
  add_weight(model, kKeTfLiteUInt8, 1, widths, bytes);
  model->weights[model->weight_count++] = zeros;
  fill(values, rows, 0.5f);
  add_weight(model, kKeTfLiteFloat32, 1, scales, values);
  fill(values, 4, 0.25f);
  add_weight(model, kKeTfLiteFloat32, 1, levels, values);
  fill(values, outputs, 1.0f);
  add_weight(model, kKeTfLiteFloat32, 1, bias, values);
}

void make_multi_bit_dense(OpModel *model, int is_composite) {
  begin_model(model, is_composite);
  FakeSubgraph *graph = &model->runtime.subgraphs[0];
  const int x[] = {1, 40}, max_bits[] = {1}, y[] = {1, 19};
  model->inputs[model->input_count++] = fake_tensor(graph, kKeTfLiteFloat32, 2, x, NULL);
  model->inputs[model->input_count++] = fake_tensor(graph, kKeTfLiteInt32, 1, max_bits, NULL);
  add_packed(model, 19 * 2, 24, 2, 2, 0, 19);
  model->output = fake_tensor(graph, kKeTfLiteFloat32, 2, y, NULL);
  FlexEntry entries[8] = {{.key = "activation"}, {.key = "activation_bits"}, {.key = "bases", .integer = 2},
                          {.key = "group_size", .integer = 24}, {.key = "version", .integer = 2}};
  finish_model(model, "ke.multi_bit_dense", entries, 5);
}

void make_multi_bit_conv_2d(OpModel *model, int is_composite) {
  begin_model(model, is_composite);
  FakeSubgraph *graph = &model->runtime.subgraphs[0];
  const int x[] = {1, 5, 4, 3}, max_bits[] = {1}, y[] = {1, 5, 4, 7};
  model->inputs[model->input_count++] = fake_tensor(graph, kKeTfLiteFloat32, 4, x, NULL);
  model->inputs[model->input_count++] = fake_tensor(graph, kKeTfLiteInt32, 1, max_bits, NULL);
  add_packed(model, 7 * 9, 3, 1, 1, 1, 7);
  model->output = fake_tensor(graph, kKeTfLiteFloat32, 4, y, NULL);
  FlexEntry entries[16] = {{.key = "activation"}, {.key = "activation_bits", .integer = 1}, {.key = "bases", .integer = 1},
                           {.key = "dilation_h", .integer = 1}, {.key = "dilation_w", .integer = 1},
                           {.key = "group_size", .integer = 3}, {.key = "kernel_h", .integer = 3},
                           {.key = "kernel_w", .integer = 3}, {.key = "order"}, {.key = "padding", .integer = 1},
                           {.key = "stride_h", .integer = 1}, {.key = "stride_w", .integer = 1},
                           {.key = "version", .integer = 1}};
  finish_model(model, "ke.multi_bit_conv_2d", entries, 13);
}

void destroy_model(OpModel *model) {
  fake_runtime_destroy(&model->runtime);
  free(model->attributes);
}
