/* Spoiled files through the whole path of claim, prepare and invoke: attributes, tensors, indices and counts are changed at
 * random, and nothing may crash or step out of its memory. Of what still runs, every byte stays within the sanitizer's view.
 *
 *     test_mutants [count] */
#include <string.h>

#include "checks.h"
#include "op_models.h"

static const int odd_numbers[] = {-1, 0, 1, 2, 3, 5, 7, 8, 16, 17, 255, 65536, 1 << 20, INT32_MAX, INT32_MIN};

static int odd_number(uint64_t *random) { return odd_numbers[random_below(random, sizeof(odd_numbers) / sizeof(odd_numbers[0]))]; }

static void mutate_attributes(OpModel *model, uint64_t *random) {
  uint8_t bytes[FLEX_CAPACITY] = {0};
  size_t size = model->attributes_size;
  memcpy(bytes, model->attributes, size);
  switch (random_below(random, 4)) {
    case 0:
      size = (size_t)random_below(random, (int)size + 8);
      break;
    case 1:
      for (int i = 0; i < 3 && size > 0; i++) bytes[random_below(random, (int)size)] = (uint8_t)random_bits(random);
      break;
    case 2: /* one value or type of the map's tail */
      if (size > 64) bytes[(int)size - 1 - random_below(random, 60)] = (uint8_t)random_below(random, 70);
      break;
    default:
      if (size > 0) bytes[random_below(random, (int)size)] ^= (uint8_t)(1 << random_below(random, 8));
  }
  set_attributes(model, bytes, size);
}

static KeTfLiteTensor *any_tensor(OpModel *model, uint64_t *random) {
  FakeSubgraph *graph = &model->runtime.subgraphs[random_below(random, model->runtime.subgraph_count)];
  return &graph->tensors[random_below(random, (int)graph->context.tensors_size)];
}

static void mutate_tensor(OpModel *model, uint64_t *random) {
  KeTfLiteTensor *tensor = any_tensor(model, random);
  switch (random_below(random, 8)) {
    case 0:
      tensor->type = random_below(random, 20);
      break;
    case 1:
    case 2:
      if (tensor->dims != NULL && tensor->dims->size > 0) tensor->dims->data[random_below(random, tensor->dims->size)] = odd_number(random);
      break;
    case 3: {
      int dims[12];
      for (int i = 0; i < 12; i++) dims[i] = 1 + random_below(random, 9);
      free(tensor->dims);
      tensor->dims = fake_int_array(random_below(random, 12), dims);
      break;
    }
    case 4:
      fake_set_bytes(tensor, (size_t)random_below(random, 2000));
      break;
    case 5:
      fake_set_bytes(tensor, 0);
      break;
    case 6:
      tensor->allocation_type = random_below(random, 8);
      break;
    default:
      free(tensor->dims);
      tensor->dims = NULL;
  }
}

static void mutate_node(OpModel *model, uint64_t *random) {
  KeTfLiteNode *node = &model->runtime.subgraphs[0].nodes[model->node].node;
  KeTfLiteIntArray **list = random_below(random, 3) == 0 ? &node->outputs : &node->inputs;
  switch (random_below(random, 4)) {
    case 0:
      (*list)->data[random_below(random, (*list)->size)] = odd_number(random);
      break;
    case 1:
      (*list)->data[random_below(random, (*list)->size)] = random_below(random, FAKE_TENSORS);
      break;
    case 2: {
      int indices[10] = {0, 1, 2, 3, 4, 5, 0, 1, 2, 3};
      free(*list);
      *list = fake_int_array(1 + random_below(random, 9), indices);
      break;
    }
    default:
      model->composite.subgraph_index = odd_number(random);
  }
}

/* Sometimes a shape changes after the claim, as when a user resizes an input. */
static void run(OpModel *model, KeTfLiteDelegate *delegate, uint64_t *random, int *claimed, int *ran) {
  FakeSubgraph *graph = &model->runtime.subgraphs[0];
  graph->context.recommended_num_threads = random_below(random, 16) == 0 ? 2 : 1;
  if (fake_apply(&model->runtime, delegate) != kKeTfLiteOk) return;
  *claimed += model->runtime.replaced > 0;
  for (int round = 0; round < 2; round++) {
    if (fake_allocate(graph) == kKeTfLiteOk) *ran += fake_invoke(graph) == kKeTfLiteOk;
    if (model->runtime.replaced == 0) return;
    mutate_tensor(model, random);
    if (random_below(random, 2) == 0) fake_invoke(graph);
  }
}

int main(int argc, char **argv) {
  int count = argc > 1 ? atoi(argv[1]) : 10000, claimed = 0, ran = 0;
  KeTfLiteDelegate *delegate = tflite_plugin_create_delegate(NULL, NULL, 0, NULL);
  for (int seed = 0; seed < count; seed++) {
    uint64_t random = (uint64_t)seed * 2654435761u + 1;
    for (int i = 0; i < 3; i++) random_bits(&random);
    OpModel model;
    void (*const makers[])(OpModel *, int) = {make_gated_conv_2d, make_multi_bit_dense, make_multi_bit_conv_2d};
    makers[seed % 3](&model, seed / 3 % 2);
    for (int change = random_below(&random, 3); change >= 0; change--) {
      switch (random_below(&random, 5)) {
        case 0:
        case 1:
          mutate_attributes(&model, &random);
          break;
        case 2:
        case 3:
          mutate_tensor(&model, &random);
          break;
        default:
          mutate_node(&model, &random);
      }
    }
    run(&model, delegate, &random, &claimed, &ran);
    destroy_model(&model);
  }
  tflite_plugin_destroy_delegate(delegate);
  printf("%d mutants: %d claimed, %d runs succeeded\n", count, claimed, ran);
  CHECK(claimed > count / 20 && claimed < count && ran > count / 20, "mutants that reach the kernels and mutants that do not");
  return finish("mutants");
}
