/* Tables, one lane at a time: the twins of the vector paths, planar or not. */
#include "internal.h"

/* Where the sum of the j-th four inputs with these signs is. */
static uint32_t place_of(uint32_t j, uint32_t signs, int is_planar) {
  return is_planar ? 16 * j + ke_planar_index(signs) : 4 * ke_table_index(signs) + j;
}

/* Sums of int8 inputs are kept as quarters, halves rounded up, and down where they are negated. Those of levels are small
 * enough as they are. */
static void fill_table(const int8_t *x, int32_t count, int is_quarter, int is_planar, uint8_t *table) {
  const int32_t more = is_planar ? KE_NO_INPUTS : 0;
  for (int32_t j = 0; j < 4; j++) {
    for (uint32_t signs = 0; signs < 8; signs++) {
      int32_t sum = 0;
      for (int32_t k = 4 * j; k < 4 * j + 4 && k < count; k++) sum += signs >> (k % 4) & 1 ? -x[k] : x[k];
      if (is_quarter) sum = (sum + 2 + 1024) / 4 - 256; /* rounds down */
      table[place_of((uint32_t)j, signs, is_planar)] = (uint8_t)((sum > 127 ? 127 : sum) + more);
      table[place_of((uint32_t)j, 15 - signs, is_planar)] = (uint8_t)((sum < -127 ? 127 : -sum) + more);
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
      fill_table(integers, count, is_quarter, plan->path->is_planar, cells);
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
  for (int32_t first = 0; first < tile->outputs; first += KE_LANES) ke_store_lanes(tile, 0, first, sums + first);
}

const KeMultiBitPath ke_multi_bit_table_scalar = {
    .isa = KE_ISA_SCALAR,
    .family = KE_MULTI_BIT_TABLE,
    .pixels = 1,
    .take_row = take_row,
    .tile = tile,
};

static void tile_of_planes(const KeMultiBitTile *tile) {
  const int32_t lanes = ke_plane_lanes(tile->vectors);
  int32_t sums[KE_BLOCK] = {0};
  const uint32_t *record = tile->records;
  for (int32_t i = 0; i < tile->count; i++, record += 2 * lanes) {
    const uint8_t *table = tile->pixel[0] + tile->places[i], *indices = (const uint8_t *)record;
    for (int32_t lane = 0; lane < lanes; lane++) {
      const int32_t plane = lane / KE_PLANE * KE_PLANE, at = plane + ke_plane_byte(lane - plane);
      int32_t sum = 0;
      for (int32_t j = 0; j < 4; j++) sum += table[16 * j + indices[j * lanes + at]] - KE_NO_INPUTS;
      sums[lane] += (int32_t)record[lanes + plane + ke_plane_word(lane - plane)] * sum;
    }
  }
  for (int32_t first = 0; first < tile->outputs; first += KE_LANES) ke_store_lanes(tile, 0, first, sums + first);
}

const KeMultiBitPath ke_multi_bit_table_planar = {
    .isa = KE_ISA_SCALAR,
    .family = KE_MULTI_BIT_TABLE,
    .pixels = 1,
    .is_planar = 1,
    .take_row = take_row,
    .tile = tile_of_planes,
};
