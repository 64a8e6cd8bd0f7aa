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

void make_multi_bit_dense(OpModel *model, int is_composite) {
  begin_model(model, is_composite);
  FakeSubgraph *graph = &model->runtime.subgraphs[0];
  const int x[] = {1, 40}, bits[] = {19, 2, 2, 3}, scales[] = {19, 2, 2}, bias[] = {19}, y[] = {1, 19};
  model->inputs[model->input_count++] = fake_tensor(graph, kKeTfLiteFloat32, 2, x, NULL);
  uint8_t zeros[19 * 12] = {0};
  float values[19 * 4];
  add_weight(model, kKeTfLiteUInt8, 4, bits, zeros);
  fill(values, 19 * 4, 0.5f);
  add_weight(model, kKeTfLiteFloat32, 3, scales, values);
  fill(values, 19, 1.0f);
  add_weight(model, kKeTfLiteFloat32, 1, bias, values);
  model->output = fake_tensor(graph, kKeTfLiteFloat32, 2, y, NULL);
  FlexEntry entries[4] = {{.key = "activation"}, {.key = "group_size", .integer = 24}, {.key = "version", .integer = 1}};
  finish_model(model, "ke.multi_bit_dense", entries, 3);
}

void destroy_model(OpModel *model) {
  fake_runtime_destroy(&model->runtime);
  free(model->attributes);
}
