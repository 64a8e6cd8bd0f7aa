/* y[b, n] = gate[b, n] * min(x[b, n] * scale[n] + shift[n], ceiling); a feature whose gate is 0 is not computed. */
#include <stdlib.h>

#include "keras_efficient_plugin.h"

typedef struct {
  const float *scale;
  const float *shift;
  int32_t features;
  float ceiling;
} State;

static void *init(const KeInit *context) {
  double ceiling = 0.0;
  if (context->get_float(context, "ceiling", 0.0, 1e6, &ceiling) != 0) return NULL;
  const KeTensor *scale = &context->weights[0];
  const KeTensor *shift = &context->weights[1];
  if (scale->dims[0] != shift->dims[0]) {
    context->report(context, "Invalid weights. Expected `scale` and `shift` of one length. Received: %d and %d.",
                    (int)scale->dims[0], (int)shift->dims[0]);
    return NULL;
  }
  State *state = malloc(sizeof(*state));
  if (state == NULL) {
    context->report(context, "Out of memory.");
    return NULL;
  }
  *state = (State){scale->data, shift->data, scale->dims[0], (float)ceiling};
  return state;
}

static int prepare(void *opaque, const KePrepare *context) {
  const State *state = opaque;
  const int32_t *x = context->inputs[0].dims;
  const int32_t *gate = context->inputs[1].dims;
  if (x[1] != state->features || gate[0] != x[0] || gate[1] != x[1]) {
    context->report(context, "Invalid shapes. Expected `x` and `gate` of %d features. Received: [%d, %d] and [%d, %d].",
                    (int)state->features, (int)x[0], (int)x[1], (int)gate[0], (int)gate[1]);
    return -1;
  }
  return context->set_output_shape(context, 0, 2, x);
}

static int invoke(void *opaque, const KeInvoke *context) {
  const State *state = opaque;
  const float *x = context->inputs[0].data;
  const float *gate = context->inputs[1].data;
  float *y = context->outputs[0].data;
  uint64_t macs = 0;
  for (int32_t b = 0; b < context->inputs[0].dims[0]; b++) {
    for (int32_t n = 0; n < state->features; n++, x++, gate++, y++) {
      *y = 0.0f;
      if (*gate == 0.0f) continue;
      float value = *x * state->scale[n] + state->shift[n];
      *y = *gate * (value < state->ceiling ? value : state->ceiling);
      macs++;
    }
  }
  context->add_macs(context, macs);
  return 0;
}

static void destroy(void *state) { free(state); }

static const KeArgument arguments[] = {
    {"x", KE_ARGUMENT_INPUT, KE_TYPE_FLOAT32, 2},
    {"gate", KE_ARGUMENT_INPUT, KE_TYPE_FLOAT32, 2},
    {"scale", KE_ARGUMENT_WEIGHT, KE_TYPE_FLOAT32, 1},
    {"shift", KE_ARGUMENT_WEIGHT, KE_TYPE_FLOAT32, 1},
};
static const int32_t output_types[] = {KE_TYPE_FLOAT32};
static const KeOp gated_scale = {
    "tiny.gated_scale", 1, 4, arguments, 1, output_types, init, prepare, invoke, destroy,
};
static const KeOp *const ops[] = {&gated_scale};
static const KePlugin plugin = {KE_PLUGIN_ABI_VERSION, sizeof(KePlugin), "tiny", 1, ops};

KE_PLUGIN_EXPORT const KePlugin *keras_efficient_plugin(void);
const KePlugin *keras_efficient_plugin(void) { return &plugin; }
