#include "builtin.h"

#include "registry.h"

static const KeOp *const ops[] = {&ke_op_gated_conv_2d, &ke_op_gated_conv_2d_int8, &ke_op_multi_bit_dense,
                            &ke_op_multi_bit_conv_2d, &ke_op_multi_bit_conv_2d_int8, &ke_op_gated_depthwise_conv_2d,
                            &ke_op_multi_bit_dense_int8, &ke_op_gate_net, &ke_op_gate_net_int8};

const KePlugin ke_builtin_plugin = {
    KE_PLUGIN_ABI_VERSION, sizeof(KePlugin), "keras-efficient", sizeof(ops) / sizeof(ops[0]), ops,
};
