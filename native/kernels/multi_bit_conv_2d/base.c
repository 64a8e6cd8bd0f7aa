/* The part of an output that does not depend on the picture: one for every way in which taps fall outside of it. */
#include "internal.h"

typedef struct Sums {
  double inside, outside; /* what the taps inside and outside the picture add */
} Sums;

static Sums sum_taps(const KeMultiBitConv2DPlan *plan, int32_t bases, const int32_t *rows, const int32_t *columns,
                     int32_t o) {
  const size_t padded = ke_padded_outputs(plan);
  const int32_t width = plan->shape.conv.kernel_w;
  Sums sums = {0.0, 0.0};
  for (int32_t basis = 0; basis < bases; basis++) {
    for (int32_t tap = 0; tap < plan->taps; tap++) {
      const int32_t r = tap / width, c = tap % width;
      const size_t place = ((size_t)basis * (size_t)plan->taps + (size_t)tap) * padded + (size_t)o;
      if (r >= rows[0] && r < rows[1] && c >= columns[0] && c < columns[1]) {
        sums.inside += plan->inside[place];
      } else {
        sums.outside += plan->outside[place];
      }
    }
  }
  return sums;
}

static void make_constants(KeMultiBitConv2DPlan *plan, int32_t bases) {
  const KeMultiBitConv2DShape *shape = &plan->shape;
  const int moves = plan->path->family == KE_MULTI_BIT_TABLE && plan->planes == 0; /* with the zero point */
  const double output = shape->is_int8 ? 1.0 / (double)shape->output_scale : 1.0;
  const double zero_point = shape->is_int8 ? shape->output_zero_point : 0.0;
  size_t place = 0;
  for (int32_t r = 0; r < plan->row_classes; r++) {
    for (int32_t c = 0; c < plan->column_classes; c++, place += ke_padded_outputs(plan)) {
      for (int32_t o = 0; o < plan->packed.outputs; o++) {
        const Sums sums = sum_taps(plan, bases, plan->row_range + 2 * r, plan->column_range + 2 * c, o);
        const double known = plan->bias[o] + (moves ? 0.0 : sums.inside + sums.outside);
        plan->constant[place + (size_t)o] = (float)(known * output + zero_point);
        plan->slope[place + (size_t)o] = moves ? (float)(sums.inside * output) : 0.0f;
      }
    }
  }
  plan->base_bits = bases;
}

void ke_multi_bit_make_base(KeMultiBitConv2DPlan *plan, int32_t max_bits, float input_scale, int32_t zero_point) {
  const KeMultiBitConv2DShape *shape = &plan->shape;
  const int32_t bases = max_bits < 0 ? 0 : max_bits < plan->packed.bases ? max_bits : plan->packed.bases;
  const int moves = plan->path->family == KE_MULTI_BIT_TABLE && plan->planes == 0; /* with the zero point */
  const double in_steps = moves ? 4.0 * (double)input_scale
                          : plan->path->family == KE_MULTI_BIT_TABLE ? (double)plan->levels.integer_scale
                                                                     : -2.0;
  const double unit = in_steps / (shape->is_int8 ? (double)shape->output_scale : 1.0);
  const size_t padded = ke_padded_outputs(plan);
  const size_t count = (size_t)plan->row_classes * (size_t)plan->column_classes * padded;
  const int is_new = bases != plan->base_bits;
  if (is_new) make_constants(plan, bases);
  if (!is_new && (!moves || shape->is_int8)) return;
  const float zero = moves ? input_scale * (float)zero_point : 0.0f;
  for (size_t o = 0; o < padded; o++) plan->multiplier[o] = (float)(unit * plan->step[o]);
  for (size_t i = 0; i < count; i++) {
    const float moved = plan->slope[i] * zero;
    plan->base[i] = plan->constant[i] - moved;
  }
}
