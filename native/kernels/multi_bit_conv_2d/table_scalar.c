/* Tables, one lane at a time: the twin of the vector paths. */
#include "internal.h"

/* Sums of int8 inputs are kept as quarters, halves rounded up, and down where they are negated. Those of levels are small
 * enough as they are. */
static void fill_table(const int8_t *x, int32_t count, int is_quarter, int8_t *table) {
  for (int32_t j = 0; j < 4; j++) {
    for (uint32_t signs = 0; signs < 8; signs++) {
      int32_t sum = 0;
      for (int32_t k = 4 * j; k < 4 * j + 4 && k < count; k++) sum += signs >> (k % 4) & 1 ? -x[k] : x[k];
      if (is_quarter) sum = (sum + 2 + 1024) / 4 - 256; /* rounds down */
      table[4 * ke_table_index(signs) + (uint32_t)j] = (int8_t)(sum > 127 ? 127 : sum);
      table[4 * ke_table_index(15 - signs) + (uint32_t)j] = (int8_t)(sum < -127 ? 127 : -sum);
    }
  }
}

static void to_levels(const KeMultiBitLevels *levels, const int8_t *x, int32_t count, int8_t *integers) {
  for (int32_t i = 0; i < count; i++) {
    int32_t code = 0;
    while (code + 1 < levels->count && x[i] >= levels->integer_step[code]) code++;
    integers[i] = levels->integer[code];
  }
}

static void floats_to_levels(const KeMultiBitLevels *levels, const float *x, int32_t count, int8_t *integers) {
  for (int32_t i = 0; i < count; i++) {
    int32_t code = 0;
    while (code + 1 < levels->count && x[i] >= levels->step[code]) code++;
    integers[i] = levels->integer[code];
  }
}

static void take_row(const KeMultiBitConv2DPlan *plan, const void *x, int32_t width, uint8_t *cells) {
  const int32_t channels = plan->shape.conv.in_channels, is_quarter = plan->shape.activation_bits == 0;
  for (int32_t pixel = 0; pixel < width; pixel++) {
    for (int32_t c = 0; c < channels; c += KE_CHUNK, cells += KE_TABLE) {
      const int32_t count = channels - c < KE_CHUNK ? channels - c : KE_CHUNK;
      const size_t place = (size_t)pixel * (size_t)channels + (size_t)c;
      int8_t integers[KE_CHUNK];
      if (is_quarter) {
        memcpy(integers, (const int8_t *)x + place, (size_t)count);
      } else if (plan->shape.is_int8) {
        to_levels(&plan->levels, (const int8_t *)x + place, count, integers);
      } else {
        floats_to_levels(&plan->levels, (const float *)x + place, count, integers);
      }
      fill_table(integers, count, is_quarter, (int8_t *)cells);
    }
  }
}

static int32_t look_up(const uint8_t *table, uint32_t indices, uint32_t scales) {
  int32_t sum = 0;
  for (uint32_t j = 0; j < 4; j++) {
    const uint32_t index = (indices >> (8 * j) & 0x3Cu) | j;
    sum += (int32_t)(scales >> (8 * j) & 0xFFu) * (int8_t)table[index];
  }
  return sum;
}

static void tile(const KeMultiBitTile *tile) {
  const int32_t lanes = tile->vectors * KE_LANES, size = lanes * (tile->shared ? 2 : 3);
  int32_t sums[KE_BLOCK] = {0};
  const uint32_t *record = tile->records;
  for (int32_t i = 0; i < tile->count; i++, record += size) {
    for (int32_t half = 0; half < 2; half++) {
      const uint8_t *table = tile->pixel[0] + tile->places[2 * i + half];
      const uint32_t *scales = record + lanes * (1 + (tile->shared ? 0 : half));
      for (int32_t lane = 0; lane < lanes; lane++) sums[lane] += look_up(table, ke_rotate_left(record[lane], half ? 28 : 0), scales[lane]);
    }
  }
  ke_store_scalar(tile, sums);
}

const KeMultiBitPath ke_multi_bit_table_scalar = {KE_ISA_SCALAR, KE_MULTI_BIT_TABLE, 1, take_row, tile};
