/* A third-party plugin in full: `test.scale`, y = factor * x + offset, offset a weight with one value for each column. */
#include <stdlib.h>

#include "keras_efficient_plugin.h"

#ifndef PLUGIN_ABI_VERSION
#define PLUGIN_ABI_VERSION KE_PLUGIN_ABI_VERSION
#endif

typedef struct State {
  float factor;
  int32_t columns;
  const float *offset;
} State;

static void *init(const KeInit *init) {
  double factor;
  if (init->get_float(init, "factor", -100.0, 100.0, &factor) != 0) return NULL;
  State *state = malloc(sizeof(*state));
  if (state == NULL) return NULL;
  *state = (State){(float)factor, init->weights[0].dims[0], init->weights[0].data};
  return state;
}

static int prepare(void *pointer, const KePrepare *prepare) {
  const KeTensor *x = &prepare->inputs[0];
  if (x->dims[1] == ((State *)pointer)->columns) return prepare->set_output_shape(prepare, 0, 2, x->dims);
  prepare->report(prepare, "Expected %d columns. Received: %d.", ((State *)pointer)->columns, x->dims[1]);
  return -1;
}

static int invoke(void *pointer, const KeInvoke *invoke) {
  const State *state = pointer;
  const KeTensor *x = &invoke->inputs[0];
  const float *from = x->data;
  float *to = invoke->outputs[0].data;
  int32_t count = x->dims[0] * x->dims[1];
  for (int32_t i = 0; i < count; i++) to[i] = state->factor * from[i] + state->offset[i % state->columns];
  invoke->add_macs(invoke, (uint64_t)count);
  return 0;
}

static const KeArgument arguments[] = {{"x", KE_ARGUMENT_INPUT, KE_TYPE_FLOAT32, 2},
                                       {"offset", KE_ARGUMENT_WEIGHT, KE_TYPE_FLOAT32, 1}};
static const int32_t output_types[] = {KE_TYPE_FLOAT32};
static const KeOp scale = {"test.scale", 1, 2, arguments, 1, output_types, init, prepare, invoke, free};
static const KeOp *const ops[] = {&scale};
static const KePlugin plugin = {PLUGIN_ABI_VERSION, sizeof(KePlugin), "scale", 1, ops};

KE_PLUGIN_EXPORT const KePlugin *keras_efficient_plugin(void);
const KePlugin *keras_efficient_plugin(void) { return &plugin; }
