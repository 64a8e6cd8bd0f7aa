/* What a plan makes of packed weights: steps of the accumulators, records for the tiles, and what every tap adds to the
 * base of an output. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "kernels/gated_conv_2d/checked.h"

/* A row of the packed form as one tap's chunk of 16 channels sees it. */
typedef struct Chunk {
  uint32_t bits;
  int32_t count; /* channels */
  float scale;
} Chunk;

static Chunk chunk_of(const KeMultiBitConv2DPlan *plan, int32_t output, int32_t basis, int32_t tap, int32_t channel) {
  const KePackedWeights *packed = &plan->packed;
  const int32_t channels = plan->shape.conv.in_channels;
  if (output >= packed->outputs || channel >= channels) return (Chunk){0};
  const int32_t flat = tap * channels + channel, p = flat / packed->group_size;
  const size_t group = (size_t)output * (size_t)packed->groups + (size_t)p;
  if (basis >= packed->widths[group]) return (Chunk){0};
  const size_t row = packed->first[group] + (size_t)basis;
  const int32_t count = channels - channel < KE_CHUNK ? channels - channel : KE_CHUNK;
  return (Chunk){ke_packed_bits(packed, row, flat - p * packed->group_size, count), count, packed->scales[row]};
}

static int32_t signed_sum(const Chunk *chunk) { return chunk->count - 2 * __builtin_popcount(chunk->bits); }

/* The largest magnitude of an output's scales. */
static float largest_scale(const KePackedWeights *packed, int32_t output) {
  const size_t group = (size_t)output * (size_t)packed->groups, last = group + (size_t)packed->groups - 1;
  float largest = 0.0f;
  for (size_t row = packed->first[group]; row < packed->first[last] + packed->widths[last]; row++) {
    largest = fmaxf(largest, fabsf(packed->scales[row]));
  }
  return largest;
}

static int32_t rounded(float value, float step) {
  if (!(step > 0.0f)) return 0;
  return (int32_t)lrintf(fminf(fmaxf(value / step, -INT16_MAX), INT16_MAX));
}

/* The largest integer for a scale with which no accumulator leaves 32 bits. */
static int32_t most_steps(const KeMultiBitConv2DPlan *plan) {
  const int64_t cells = (int64_t)plan->taps * plan->inner * (plan->packed.bases > 0 ? plan->packed.bases : 1);
  const int64_t each = plan->path->family == KE_MULTI_BIT_POPCOUNT ? 32 * (int64_t)plan->planes : KE_CHUNK / 4 * 128;
  const int64_t most = INT32_MAX / each / cells, wanted = plan->path->family == KE_MULTI_BIT_POPCOUNT ? INT16_MAX : 255;
  return (int32_t)(most < wanted ? most : wanted);
}

static int find_steps(KeMultiBitConv2DPlan *plan) {
  const int32_t most = most_steps(plan);
  float gamma = 1.0f;
  if (plan->path->family == KE_MULTI_BIT_POPCOUNT) {
    gamma = 0.0f;
    for (int32_t j = 0; j < plan->planes; j++) gamma = fmaxf(gamma, fabsf(plan->gamma[1 + j]));
  }
  if (most < 127) return -1; /* as many weights as nobody has: less exact than int8 */
  for (int32_t o = 0; o < plan->packed.outputs; o++) {
    plan->step[o] = largest_scale(&plan->packed, o) * gamma / (float)most;
  }
  return 0;
}

/* Whether any output of a block has a basis in this chunk. */
static int is_live(const KeMultiBitConv2DPlan *plan, int32_t block, int32_t basis, int32_t tap, int32_t channel) {
  for (int32_t o = block * KE_BLOCK; o < plan->packed.outputs && o < (block + 1) * KE_BLOCK; o++) {
    if (chunk_of(plan, o, basis, tap, channel).count > 0) return 1;
  }
  return 0;
}

typedef struct Writer {
  size_t data, places;
  int writes; /* or only measures */
} Writer;

static void put_place(KeMultiBitConv2DPlan *plan, Writer *writer, int32_t tap, size_t inner) {
  if (writer->writes) {
    plan->place_tap[writer->places] = tap;
    plan->place_inner[writer->places] = (int32_t)inner;
  }
  writer->places++;
}

static void put_popcount(KeMultiBitConv2DPlan *plan, Writer *writer, int32_t block, int32_t basis, int32_t plane,
                         int32_t tap, int32_t word) {
  const int32_t lanes = plan->block[block].vectors * KE_LANES;
  const size_t inner = ((size_t)plane * (size_t)plan->inner + (size_t)word) * sizeof(uint32_t);
  put_place(plan, writer, tap, inner);
  if (writer->writes) {
    uint32_t *bits = plan->records + writer->data, *scales = bits + lanes;
    for (int32_t lane = 0; lane < lanes; lane++) {
      const int32_t o = block * KE_BLOCK + lane;
      for (int32_t half = 0; half < 2; half++) {
        const Chunk chunk = chunk_of(plan, o, basis, tap, 32 * word + KE_CHUNK * half);
        const int32_t scale = chunk.count > 0 ? rounded(chunk.scale * plan->gamma[1 + plane], plan->step[o]) : 0;
        bits[lane] = (half ? bits[lane] : 0) | chunk.bits << (KE_CHUNK * half);
        scales[lane] = (half ? scales[lane] : 0) | ((uint32_t)scale & 0xFFFFu) << (KE_CHUNK * half);
      }
    }
  }
  writer->data += 2 * (size_t)lanes;
}

static void put_popcounts(KeMultiBitConv2DPlan *plan, Writer *writer, int32_t block, int32_t basis, int32_t *count) {
  for (int32_t plane = 0; plane < plan->planes; plane++) {
    for (int32_t tap = 0; tap < plan->taps; tap++) {
      for (int32_t word = 0; word < plan->inner; word++) {
        if (!is_live(plan, block, basis, tap, 32 * word) && !is_live(plan, block, basis, tap, 32 * word + KE_CHUNK)) continue;
        put_popcount(plan, writer, block, basis, plane, tap, word);
        ++*count;
      }
    }
  }
}

/* One half of a table record; `tap` -1: nothing, at the place of the first half. */
static void put_half(KeMultiBitConv2DPlan *plan, uint32_t *record, int32_t block, int32_t basis, int32_t half, int32_t tap,
                     int32_t chunk_index) {
  const int32_t lanes = plan->block[block].vectors * KE_LANES;
  uint32_t *indices = record, *scales = record + lanes * (1 + (plan->shared ? 0 : half));
  for (int32_t lane = 0; lane < lanes; lane++) {
    const int32_t o = block * KE_BLOCK + lane;
    const Chunk chunk = tap < 0 ? (Chunk){0} : chunk_of(plan, o, basis, tap, KE_CHUNK * chunk_index);
    const uint32_t bits = chunk.scale < 0.0f ? ~chunk.bits : chunk.bits; /* a negative scale turns the signs */
    uint32_t index = 0;
    for (int32_t j = 0; j < 4; j++) index |= ke_table_index(bits >> (4 * j) & 15u) << (8 * j + 2);
    if (half) index = ke_rotate_left(index, 4);
    const int32_t scale = chunk.count > 0 ? rounded(fabsf(chunk.scale), plan->step[o]) : 0;
    indices[lane] = (half ? indices[lane] : 0) | index;
    if (half == 0 || !plan->shared) scales[lane] = (uint32_t)scale * 0x01010101u;
  }
}

static void put_tables(KeMultiBitConv2DPlan *plan, Writer *writer, int32_t block, int32_t basis, int32_t *count) {
  const size_t lanes = (size_t)plan->block[block].vectors * KE_LANES, size = lanes * (plan->shared ? 2 : 3);
  int32_t half = 0, tap = 0, chunk = 0;
  for (tap = 0; tap < plan->taps; tap++) {
    for (chunk = 0; chunk < plan->inner; chunk++) {
      if (!is_live(plan, block, basis, tap, KE_CHUNK * chunk)) continue;
      put_place(plan, writer, tap, (size_t)chunk * KE_TABLE);
      if (writer->writes) put_half(plan, plan->records + writer->data, block, basis, half, tap, chunk);
      writer->data += half ? size : 0;
      *count += half == 0;
      half ^= 1;
    }
  }
  if (half == 0) return;
  put_place(plan, writer, 0, 0);
  if (writer->writes) put_half(plan, plan->records + writer->data, block, basis, 1, -1, 0);
  writer->data += size;
}

static void put_planar(KeMultiBitConv2DPlan *plan, Writer *writer, int32_t block, int32_t basis, int32_t tap, int32_t chunk_index) {
  const int32_t lanes = ke_plane_lanes(plan->block[block].vectors);
  put_place(plan, writer, tap, (size_t)chunk_index * KE_TABLE);
  if (writer->writes) {
    uint8_t *indices = (uint8_t *)(plan->records + writer->data);
    int32_t *scales = (int32_t *)(void *)(indices + 4 * lanes);
    for (int32_t lane = 0; lane < lanes; lane++) {
      const int32_t o = block * KE_BLOCK + lane, plane = lane / KE_PLANE * KE_PLANE;
      const Chunk chunk = chunk_of(plan, o, basis, tap, KE_CHUNK * chunk_index);
      const uint32_t bits = chunk.scale < 0.0f ? ~chunk.bits : chunk.bits;
      for (int32_t j = 0; j < 4; j++) {
        indices[j * lanes + plane + ke_plane_byte(lane - plane)] = (uint8_t)ke_planar_index(bits >> (4 * j) & 15u);
      }
      scales[plane + ke_plane_word(lane - plane)] = chunk.count > 0 ? rounded(fabsf(chunk.scale), plan->step[o]) : 0;
    }
  }
  writer->data += 2 * (size_t)lanes;
}

static void put_planars(KeMultiBitConv2DPlan *plan, Writer *writer, int32_t block, int32_t basis, int32_t *count) {
  for (int32_t tap = 0; tap < plan->taps; tap++) {
    for (int32_t chunk = 0; chunk < plan->inner; chunk++) {
      if (!is_live(plan, block, basis, tap, KE_CHUNK * chunk)) continue;
      put_planar(plan, writer, block, basis, tap, chunk);
      ++*count;
    }
  }
}

static void put_all(KeMultiBitConv2DPlan *plan, Writer *writer) {
  for (int32_t b = 0; b < plan->blocks; b++) {
    KeMultiBitBlock *block = &plan->block[b];
    const int32_t left = plan->packed.outputs - b * KE_BLOCK;
    *block = (KeMultiBitBlock){.data = writer->data, .places = writer->places};
    block->vectors = ((left < KE_BLOCK ? left : KE_BLOCK) + KE_LANES - 1) / KE_LANES;
    int32_t count = 0;
    for (int32_t basis = 0; basis < plan->packed.bases; basis++) {
      if (plan->path->family == KE_MULTI_BIT_POPCOUNT) {
        put_popcounts(plan, writer, b, basis, &count);
      } else if (plan->path->is_planar) {
        put_planars(plan, writer, b, basis, &count);
      } else {
        put_tables(plan, writer, b, basis, &count);
      }
      block->end[basis + 1] = count;
    }
  }
}

/* Whether both chunks of every table record have the same scales: they are of one tap and one group, or there is but one
 * group, and never a chunk alone. */
static int scales_are_shared(const KeMultiBitConv2DPlan *plan) {
  const int32_t channels = plan->shape.conv.in_channels, pair = 2 * KE_CHUNK;
  return channels % pair == 0 && (plan->packed.groups == 1 || plan->packed.group_size % pair == 0);
}

/* How many records in a row have the same scales: those of a tap, where no group ends within one. Counts of 31 words fit into a
 * byte, sums of 31 chunks into 16 bits. */
static int32_t alike_records(const KeMultiBitConv2DPlan *plan) {
  if (plan->packed.groups > 1 && plan->packed.group_size % plan->shape.conv.in_channels != 0) return 1;
  int32_t alike = plan->inner < 31 ? plan->inner : 31;
  while (plan->inner % alike != 0) alike--;
  return alike;
}

static void add_constants(KeMultiBitConv2DPlan *plan, int32_t basis, int32_t tap, int32_t o) {
  const size_t place = ((size_t)basis * (size_t)plan->taps + (size_t)tap) * ke_padded_outputs(plan) + (size_t)o;
  const double step = plan->step[o];
  for (int32_t channel = 0; channel < plan->shape.conv.in_channels; channel += KE_CHUNK) {
    const Chunk chunk = chunk_of(plan, o, basis, tap, channel);
    if (chunk.count == 0) continue;
    if (plan->path->family == KE_MULTI_BIT_TABLE && plan->planes == 0) {
      const int32_t scale = rounded(fabsf(chunk.scale), plan->step[o]);
      plan->inside[place] += (chunk.scale < 0.0f ? -step : step) * scale * signed_sum(&chunk);
      continue;
    }
    plan->inside[place] += (double)plan->gamma[0] * chunk.scale * signed_sum(&chunk);
    if (plan->path->family == KE_MULTI_BIT_TABLE) continue;
    for (int32_t plane = 0; plane < plan->planes; plane++) {
      const double scale = step * rounded(chunk.scale * plan->gamma[1 + plane], plan->step[o]);
      plan->inside[place] += scale * chunk.count;
      plan->outside[place] += 2.0 * scale * __builtin_popcount(chunk.bits);
    }
  }
}

static int allocate_arrays(KeMultiBitConv2DPlan *plan, const Writer *writer) {
  size_t record_bytes = writer->data, place_bytes = writer->places + 1;
  if (!ke_multiply(&record_bytes, sizeof(uint32_t)) || !ke_multiply(&place_bytes, sizeof(int32_t)) ||
      record_bytes > PTRDIFF_MAX - 64) {
    return -1;
  }
  plan->records = aligned_alloc(64, (record_bytes + 64) / 64 * 64);
  plan->place_count = writer->places;
  plan->place_tap = malloc(place_bytes);
  plan->place_inner = malloc(place_bytes);
  plan->place = malloc(place_bytes);
  return plan->records == NULL || plan->place_tap == NULL || plan->place_inner == NULL || plan->place == NULL ? -1 : 0;
}

int ke_multi_bit_pack(KeMultiBitConv2DPlan *plan) {
  const size_t padded = ke_padded_outputs(plan), bases = (size_t)plan->packed.bases;
  size_t constants = padded;
  if (!ke_multiply(&constants, (size_t)plan->taps) || !ke_multiply(&constants, bases > 0 ? bases : 1) ||
      constants > PTRDIFF_MAX / sizeof(double)) {
    return -1;
  }
  plan->blocks = (int32_t)((padded + KE_BLOCK - 1) / KE_BLOCK);
  plan->block = calloc((size_t)plan->blocks, sizeof(*plan->block));
  plan->step = calloc(padded, sizeof(float));
  plan->multiplier = calloc(padded, sizeof(float));
  plan->inside = calloc(constants, sizeof(double));
  plan->outside = calloc(constants, sizeof(double));
  if (plan->block == NULL || plan->step == NULL || plan->multiplier == NULL || plan->inside == NULL ||
      plan->outside == NULL || find_steps(plan) != 0) {
    return -1;
  }
  plan->shared = plan->path->family == KE_MULTI_BIT_TABLE && scales_are_shared(plan);
  plan->alike = alike_records(plan);
  Writer writer = {0};
  put_all(plan, &writer);
  if (allocate_arrays(plan, &writer) != 0) return -1;
  writer = (Writer){.writes = 1};
  put_all(plan, &writer);
  for (int32_t basis = 0; basis < plan->packed.bases; basis++) {
    for (int32_t tap = 0; tap < plan->taps; tap++) {
      for (int32_t o = 0; o < plan->packed.outputs; o++) add_constants(plan, basis, tap, o);
    }
  }
  return 0;
}
