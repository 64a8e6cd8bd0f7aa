/* What the gated convolutions of all types ask of their weights and inputs. */
#ifndef KE_GATED_CONV_2D_INPUTS_H_
#define KE_GATED_CONV_2D_INPUTS_H_

#include <stdbool.h>
#include <stdint.h>

#include "kernels/gated_conv_2d/gated_conv_2d.h"
#include "keras_efficient_plugin.h"

/* Whether all four dimensions are at least 1; 0, or -1 after a report. */
int ke_gated_conv_2d_check_kernel(const KeInit *init, const KeTensor *kernel);

/* Whether there is one value for each of the kernel's output channels; 0, or -1 after a report. */
int ke_gated_conv_2d_check_length(const KeInit *init, const char *name, const KeTensor *values, int64_t channels);

/* Checks the inputs x, g_in (where the op has one) and g_out, and sets the output's shape; 0, or -1 after a report. */
int ke_gated_conv_2d_check_inputs(const KePrepare *prepare, const KeGatedConv2DShape *shape, bool has_input_gate);

/* For a plan that could not be sized; -1. */
int ke_gated_conv_2d_no_memory(const KePrepare *prepare);

#endif
