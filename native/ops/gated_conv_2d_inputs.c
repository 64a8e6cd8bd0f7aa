#include "gated_conv_2d_inputs.h"

int ke_gated_conv_2d_check_kernel(const KeInit *init, const KeTensor *kernel) {
  for (int i = 0; i < 4; i++) {
    if (kernel->dims[i] >= 1) continue;
    init->report(init, "Invalid value for argument `kernel`. Expected dimensions of at least 1. Received: %d for dimension %d.",
                 kernel->dims[i], i);
    return -1;
  }
  return 0;
}

int ke_gated_conv_2d_check_length(const KeInit *init, const char *name, const KeTensor *values, int64_t channels) {
  if (values->dims[0] == channels) return 0;
  init->report(init, "Invalid value for argument `%s`. Expected %lld values, one for each output channel of the kernel. "
               "Received: %d.", name, (long long)channels, values->dims[0]);
  return -1;
}

static int check_gate(const KePrepare *prepare, const char *name, const KeTensor *gate, int32_t batch, int32_t channels) {
  if (gate->dims[0] == batch && gate->dims[1] == channels) return 0;
  prepare->report(prepare, "Invalid value for argument `%s`. Expected shape [%d, %d]. Received: [%d, %d].", name, batch,
                  channels, gate->dims[0], gate->dims[1]);
  return -1;
}

int ke_gated_conv_2d_check_inputs(const KePrepare *prepare, const KeGatedConv2DShape *shape, bool has_input_gate) {
  const KeTensor *x = &prepare->inputs[0];
  const int32_t batch = x->dims[0];
  if (x->dims[3] != shape->in_channels) {
    prepare->report(prepare, "Invalid value for argument `x`. Expected %d channels, as the kernel has. Received: %d.",
                    shape->in_channels, x->dims[3]);
    return -1;
  }
  const KeTensor *gates = &prepare->inputs[1];
  if (has_input_gate && check_gate(prepare, "g_in", gates++, batch, shape->in_channels) != 0) return -1;
  if (check_gate(prepare, "g_out", gates, batch, shape->out_channels) != 0) return -1;
  int32_t dims[4] = {batch, 0, 0, shape->out_channels};
  if (ke_gated_conv_2d_output_size(shape, x->dims[1], x->dims[2], &dims[1], &dims[2]) == KE_GATED_CONV_2D_OK &&
      prepare->set_output_shape(prepare, 0, 4, dims) == 0) {
    return 0;
  }
  prepare->report(prepare, "Invalid value for argument `x`. Expected a size whose output fits into memory. Received: "
                  "[%d, %d, %d, %d].", batch, x->dims[1], x->dims[2], x->dims[3]);
  return -1;
}

int ke_gated_conv_2d_no_memory(const KePrepare *prepare) {
  const int32_t *dims = prepare->inputs[0].dims;
  prepare->report(prepare, "Not enough memory for an input of [%d, %d, %d, %d].", dims[0], dims[1], dims[2], dims[3]);
  return -1;
}
