/* Four weights at a time by table of bytes. For four inputs there are 16 signed sums, kept in 8 bits relative to the largest
 * of their group; a permutation of bytes looks 64 of them up, and a product with ones adds four to a lane: 256
 * multiply-accumulates in two instructions.
 *
 * A lane is a row: an output that has this basis in this group. Rows of a segment of outputs that have none are left out, so
 * that they take no time: what the others give is spread over the outputs by masks. Weights are read in sequence:
 *
 *   [segment][group][basis][8 blocks of 16 rows][32 inputs][block][lane]   byte j of a lane: the index of the j-th four inputs
 *                                                                          in bits 2 to 5, after a rotation of the next 16
 *
 * Weights that stay in the second-level cache even so are `wide`: [32 inputs][block][2 halves][lane], each byte a whole index,
 * which spares the processor to take them apart; those of AMD take them apart faster than they load twice as much.
 *
 * The j-th four of 16 inputs are those at j, j + 4, j + 8 and j + 12: four loads bring them into place.
 *
 * The largest sums of a group's four inputs are its unit, so a sum is off by at most 1/254 of it. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "internal.h"

enum { kLanes = 16, kWord = 32, kTable = 64, kMostSegment = 512, kMostWide = 640 * 1024, kTogether = 8 };

/* The rows of one segment, group and basis. */
typedef struct Rows {
  size_t data, scales; /* where they begin: vectors of 64 bytes, floats */
  int32_t live;        /* how many outputs have one */
} Rows;

/* What `weights` begins with. */
typedef struct Layout {
  int32_t segment; /* outputs, a multiple of 16 */
  int32_t halves;  /* vectors for 32 inputs of a block: 2 where weights are wide, else 1 */
  size_t lists, data, scales, masks; /* bytes from `weights` on */
  size_t total;
} Layout;

static int32_t segment_of(int32_t outputs) {
  int32_t segments = (outputs - 1) / kMostSegment + 1;
  if (segments == 1 && outputs >= 256) segments = 2; /* something to share between threads */
  const int32_t each = (outputs - 1) / segments + 1;
  return (each + kLanes - 1) / kLanes * kLanes;
}

static int32_t lanes(const KeMultiBitDensePlan *plan) { return segment_of(plan->packed.outputs); }

static size_t words_of(const KePackedWeights *packed) { return ((size_t)packed->group_size + kWord - 1) / kWord; }

static size_t list_index(const KePackedWeights *packed, int32_t segment, int32_t p, int32_t basis) {
  return ((size_t)segment * (size_t)packed->groups + (size_t)p) * (size_t)packed->bases + (size_t)basis;
}

static int32_t outputs_of(const KePackedWeights *packed, int32_t segment, int32_t size) {
  const int32_t left = packed->outputs - segment * size;
  return left < size ? left : size;
}

static int has_basis(const KePackedWeights *packed, int32_t o, int32_t p, int32_t basis) {
  return basis < packed->widths[(size_t)o * (size_t)packed->groups + (size_t)p];
}

static int32_t count_live(const KePackedWeights *packed, int32_t segment, int32_t size, int32_t p, int32_t basis) {
  const int32_t first = segment * size, outputs = outputs_of(packed, segment, size);
  int32_t live = 0;
  for (int32_t o = first; o < first + outputs; o++) live += has_basis(packed, o, p, basis);
  return live;
}

static Layout lay_out(const KeMultiBitDensePlan *plan) {
  const KePackedWeights *packed = &plan->packed;
  Layout layout = {.segment = segment_of(packed->outputs)};
  const int32_t segments = (packed->outputs - 1) / layout.segment + 1;
  const size_t lists = (size_t)segments * (size_t)packed->groups * (size_t)packed->bases;
  size_t blocks = 0;
  for (int32_t s = 0; s < segments; s++) {
    for (int32_t p = 0; p < packed->groups; p++) {
      for (int32_t i = 0; i < packed->bases; i++) {
        blocks += (size_t)(count_live(packed, s, layout.segment, p, i) + kLanes - 1) / kLanes;
      }
    }
  }
  layout.lists = (sizeof(Layout) + 63) / 64 * 64;
  layout.data = layout.lists + (lists * sizeof(Rows) + 63) / 64 * 64;
  layout.halves = blocks * words_of(packed) * 2 * kTable <= kMostWide && !ke_cpu_is_amd() ? 2 : 1;
  layout.scales = layout.data + blocks * words_of(packed) * (size_t)layout.halves * kTable;
  layout.masks = layout.scales + blocks * kLanes * sizeof(float);
  layout.total = layout.masks + lists * (size_t)layout.segment / kLanes * sizeof(uint16_t);
  return layout;
}

static size_t weight_bytes(const KeMultiBitDensePlan *plan) { return lay_out(plan).total; }

/* Tables, then a unit for each group. */
static size_t sample_bytes(const KeMultiBitDensePlan *plan) {
  const size_t groups = (size_t)plan->packed.groups;
  return groups * words_of(&plan->packed) * 2 * kTable + groups * sizeof(float);
}

static uint32_t index_of(uint32_t signs) {
  const uint32_t negated = signs >> 3, kept = negated ? 15u - signs : signs;
  return (kept & 3u) << 2 | negated << 1 | kept >> 2;
}

/* Four of 16 signs, each four places from the last. */
static uint32_t four_of(uint32_t signs) { return (signs & 1u) | (signs >> 3 & 2u) | (signs >> 6 & 4u) | (signs >> 9 & 8u); }

/* 32 signs of one row as two indices in each byte. */
static uint32_t indices_of(uint32_t signs) {
  uint32_t first = 0, second = 0;
  for (int j = 0; j < 4; j++) {
    first |= index_of(four_of(signs >> j)) << (8 * j + 2);
    second |= index_of(four_of(signs >> (16 + j))) << (8 * j + 2);
  }
  return first | second << 4 | second >> 28;
}

/* Of the `place`-th live row of `live`: where its word of inputs goes, in lanes. Eight blocks lie together, then what is left. */
static size_t lane_place(int32_t place, int32_t live, size_t words, size_t word) {
  const int32_t blocks = (live + kLanes - 1) / kLanes, block = place / kLanes, first = block / kTogether * kTogether;
  const int32_t together = blocks - first < kTogether ? blocks - first : kTogether;
  const size_t vector = (size_t)first * words + word * (size_t)together + (size_t)(block - first);
  return vector * kLanes + (size_t)(place % kLanes);
}

static void pack_row(const KePackedWeights *packed, size_t row, int32_t place, int32_t live, int32_t halves, uint32_t *data) {
  const uint32_t mask = 0x3C3C3C3C, fours = 0x03020100;
  const size_t words = words_of(packed);
  for (size_t word = 0; word < words; word++) {
    const int32_t k = kWord * (int32_t)word, left = packed->group_size - k;
    const uint32_t indices = indices_of(ke_packed_bits(packed, row, k, left < kWord ? left : kWord));
    if (halves == 1) {
      data[lane_place(place, live, words, word)] = indices;
    } else {
      uint32_t *both = data + 2 * (lane_place(place, live, words, word) / kLanes * kLanes) + place % kLanes;
      both[0] = (indices & mask) | fours;
      both[kLanes] = ((indices >> 4 | indices << 28) & mask) | fours;
    }
  }
}

static void pack(KeMultiBitDensePlan *plan) {
  const KePackedWeights *packed = &plan->packed;
  const Layout layout = lay_out(plan);
  uint8_t *memory = plan->weights;
  memset(memory, 0, layout.total);
  memcpy(memory, &layout, sizeof(layout));
  Rows *lists = (Rows *)(void *)(memory + layout.lists);
  uint32_t *data = (uint32_t *)(void *)(memory + layout.data);
  float *scales = (float *)(void *)(memory + layout.scales);
  uint16_t *masks = (uint16_t *)(void *)(memory + layout.masks);
  size_t blocks = 0;
  for (int32_t s = 0; s < plan->blocks; s++) {
    for (int32_t p = 0; p < packed->groups; p++) {
      for (int32_t i = 0; i < packed->bases; i++) {
        const size_t list = list_index(packed, s, p, i);
        const int32_t live = count_live(packed, s, layout.segment, p, i);
        Rows *rows = &lists[list];
        *rows = (Rows){blocks * words_of(packed) * (size_t)layout.halves, blocks * kLanes, live};
        int32_t place = 0;
        for (int32_t k = 0; k < outputs_of(packed, s, layout.segment); k++) {
          const int32_t o = s * layout.segment + k;
          if (!has_basis(packed, o, p, i)) continue;
          const size_t row = packed->first[(size_t)o * (size_t)packed->groups + (size_t)p] + (size_t)i;
          pack_row(packed, row, place, live, layout.halves, data + rows->data * kLanes);
          scales[rows->scales + (size_t)place++] = packed->scales[row];
          masks[list * (size_t)layout.segment / kLanes + (size_t)k / kLanes] |= (uint16_t)(1u << (k % kLanes));
        }
        blocks += (size_t)(live + kLanes - 1) / kLanes;
      }
    }
  }
}

static inline __mmask16 first_of(int32_t count) {
  return count >= kLanes ? 0xFFFF : count <= 0 ? 0 : (__mmask16)((1u << count) - 1u);
}

/* The largest sum of four magnitudes; NaN where an input is no finite number. */
static float largest_sum(const float *x, int32_t count) {
  __m512i largest = _mm512_setzero_si512(); /* magnitudes are in the same order as their bits, infinity and NaN the largest */
  for (int32_t k = 0; k < count; k += kLanes) {
    __m512 sum = _mm512_abs_ps(_mm512_maskz_loadu_ps(first_of(count - k), x + k));
    sum = _mm512_add_ps(sum, _mm512_shuffle_f32x4(sum, sum, 0x4E));
    sum = _mm512_add_ps(sum, _mm512_shuffle_f32x4(sum, sum, 0xB1));
    largest = _mm512_max_epi32(largest, _mm512_castps_si512(sum));
  }
  const __m128i four = _mm512_castsi512_si128(largest), two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4E));
  const float sum = _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xB1))));
  return sum - sum == 0.0f ? sum : NAN;
}

/* Signs of the first two of four inputs with the scale: a lane's are those of sums 4 * i + lane / 4. */
typedef struct Filler {
  __m512 first, second, scale;
} Filler;

static inline Filler make_filler(float scale) {
  const __m512 plus = _mm512_set1_ps(scale), minus = _mm512_set1_ps(-scale);
  return (Filler){_mm512_mask_blend_ps(0xF0F0, plus, minus), _mm512_mask_blend_ps(0xFF00, plus, minus), plus};
}

/* The table of 16 inputs. */
static inline void fill(const Filler *filler, const float *x, uint8_t *table) {
  const __m512 first = _mm512_broadcast_f32x4(_mm_loadu_ps(x)), second = _mm512_broadcast_f32x4(_mm_loadu_ps(x + 4));
  const __m512 third = _mm512_broadcast_f32x4(_mm_loadu_ps(x + 8)), fourth = _mm512_broadcast_f32x4(_mm_loadu_ps(x + 12));
  const __m512 two = _mm512_fmadd_ps(second, filler->second, _mm512_mul_ps(first, filler->first));
  const __m512 three = _mm512_fmadd_ps(fourth, filler->scale, two);
  const __m512i low = _mm512_cvtps_epi32(_mm512_fmadd_ps(third, filler->scale, three));
  const __m512i high = _mm512_cvtps_epi32(_mm512_fnmadd_ps(third, filler->scale, three));
  const __m512i sums = _mm512_packs_epi32(low, high);
  _mm512_store_si512(table, _mm512_packs_epi16(sums, _mm512_sub_epi16(_mm512_setzero_si512(), sums)));
}

static void fill_group(const float *x, int32_t count, int32_t chunks, float largest, uint8_t *table) {
  const Filler filler = make_filler(largest > 0.0f ? 127.0f / largest : 0.0f);
  const int32_t whole = count / kLanes;
  for (int32_t c = 0; c < whole; c++) fill(&filler, x + c * kLanes, table + c * kTable);
  if (whole == chunks) return;
  float last[kLanes] = {0};
  memcpy(last, x + whole * kLanes, (size_t)(count - whole * kLanes) * sizeof(float));
  fill(&filler, last, table + whole * kTable);
  memset(table + (whole + 1) * kTable, 0, (size_t)(chunks - whole - 1) * kTable);
}

static void take_sample(KeMultiBitDensePlan *plan, int32_t inputs, const float *x) {
  const KePackedWeights *packed = &plan->packed;
  const size_t words = words_of(packed), group_size = (size_t)packed->group_size;
  uint8_t *table = plan->sample;
  float *units = (float *)(void *)(table + (size_t)packed->groups * words * 2 * kTable);
  (void)inputs;
  for (int32_t p = 0; p < packed->groups; p++) units[p] = largest_sum(x + (size_t)p * group_size, ke_packed_group_length(packed, p));
  for (int32_t p = 0; p < packed->groups; p++, table += words * 2 * kTable) {
    fill_group(x + (size_t)p * group_size, ke_packed_group_length(packed, p), 2 * (int32_t)words, units[p], table);
    units[p] /= 127.0f;
  }
}

/* Adds what four indices of each lane find. In assembly, or gcc copies the sums. */
static inline __attribute__((always_inline)) void add_found(__m512i *sums, __m512i indices, __m512i table, __m512i ones) {
  __m512i found;
  __asm__("vpermb %2, %1, %0" : "=v"(found) : "v"(indices), "v"(table));
  __asm__("vpdpbusd %2, %1, %0" : "+v"(*sums) : "v"(ones), "v"(found));
}

/* Sums of `count` blocks, a constant after inlining. */
static inline __attribute__((always_inline)) void look_up(const uint8_t *table, const __m512i *data, size_t words,
                                                          const int halves, const int count, __m512i *sums) {
  const __m512i mask = _mm512_set1_epi8(0x3C), fours = _mm512_set1_epi32(0x03020100), ones = _mm512_set1_epi8(1);
#pragma GCC unroll 8
  for (int b = 0; b < count; b++) sums[b] = _mm512_setzero_si512();
  for (size_t w = 0; w < words; w++, table += 2 * kTable, data += halves * count) {
    const __m512i first = _mm512_load_si512(table), second = _mm512_load_si512(table + kTable);
    if (halves == 2) {
#pragma GCC unroll 8
      for (int b = 0; b < count; b++) {
        add_found(&sums[b], _mm512_load_si512(data + 2 * b), first, ones);
        add_found(&sums[b], _mm512_load_si512(data + 2 * b + 1), second, ones);
      }
      continue;
    }
#pragma GCC unroll 8
    for (int b = 0; b < count; b++) {
      const __m512i indices = _mm512_load_si512(data + b);
      const __m512i now = _mm512_ternarylogic_epi32(indices, mask, fours, 0xEA); /* (indices & mask) | fours */
      const __m512i then = _mm512_ternarylogic_epi32(_mm512_ror_epi32(indices, 4), mask, fours, 0xEA);
      add_found(&sums[b], now, first, ones);
      add_found(&sums[b], then, second, ones);
    }
  }
}

/* What `count` blocks of a list of rows give, added to `before`. */
typedef struct Target {
  const float *before;
  float *to;
  const float *scales;
  __m512 unit;
} Target;

static inline __attribute__((always_inline)) void add_blocks(const uint8_t *table, const __m512i *data, size_t words,
                                                             const int halves, const int count, const Target *at) {
  __m512i sums[kTogether];
  look_up(table, data, words, halves, count, sums);
#pragma GCC unroll 8
  for (int b = 0; b < count; b++) {
    const __m512 scale = _mm512_mul_ps(_mm512_load_ps(at->scales + b * kLanes), at->unit);
    const __m512 before = _mm512_load_ps(at->before + b * kLanes);
    _mm512_store_ps(at->to + b * kLanes, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[b]), scale, before));
  }
}

static inline __attribute__((always_inline)) void add_rows(const uint8_t *table, const __m512i *data, size_t words,
                                                           const int halves, int32_t live, Target at) {
  int32_t blocks = (live + kLanes - 1) / kLanes;
  for (; blocks >= kTogether; blocks -= kTogether, data += kTogether * words * (size_t)halves) {
    add_blocks(table, data, words, halves, kTogether, &at);
    at = (Target){at.before + kTogether * kLanes, at.to + kTogether * kLanes, at.scales + kTogether * kLanes, at.unit};
  }
#define KE_LEFT(count)                                    \
  case count:                                             \
    add_blocks(table, data, words, halves, count, &at);   \
    break
  switch (blocks) {
    KE_LEFT(7);
    KE_LEFT(6);
    KE_LEFT(5);
    KE_LEFT(4);
    KE_LEFT(3);
    KE_LEFT(2);
    KE_LEFT(1);
    default:
      break;
  }
}

enum { kFoundPitch = kMostSegment + kLanes };

/* Adds to each output what its rows gave: those of list i lie together from found + i * kFoundPitch on. */
static void spread(const float *found, const uint16_t *const *masks, int32_t lists, int32_t vectors, float *y) {
  const float *from[KE_MULTI_BIT_MAX_WIDTH];
  for (int32_t i = 0; i < lists; i++) from[i] = found + i * kFoundPitch;
  for (int32_t v = 0; v < vectors; v++) {
    __m512 sum = _mm512_load_ps(y + v * kLanes);
    for (int32_t i = 0; i < lists; i++) {
      sum = _mm512_add_ps(sum, _mm512_maskz_expandloadu_ps(masks[i][v], from[i]));
      from[i] += __builtin_popcount(masks[i][v]);
    }
    _mm512_store_ps(y + v * kLanes, sum);
  }
}

static void run_segment(const KeMultiBitDensePlan *plan, const Layout *layout, int32_t segment, float *y) {
  static const _Alignas(64) float nothing[kFoundPitch];
  const KePackedWeights *packed = &plan->packed;
  const size_t words = words_of(packed);
  const uint8_t *memory = plan->weights, *tables = plan->sample;
  const Rows *lists = (const Rows *)(const void *)(memory + layout->lists);
  const __m512i *data = (const __m512i *)(const void *)(memory + layout->data);
  const float *scales = (const float *)(const void *)(memory + layout->scales);
  const uint16_t *masks = (const uint16_t *)(const void *)(memory + layout->masks);
  const float *units = (const float *)(const void *)(tables + (size_t)packed->groups * words * 2 * kTable);
  const int32_t outputs = outputs_of(packed, segment, layout->segment), vectors = (outputs + kLanes - 1) / kLanes;
  _Alignas(64) float sums[kMostSegment], found[KE_MULTI_BIT_MAX_WIDTH * kFoundPitch];
  memset(sums + (vectors - 1) * kLanes, 0, kLanes * sizeof(float));
  memcpy(sums, plan->bias + segment * layout->segment, (size_t)outputs * sizeof(float));
  for (int32_t p = 0; p < packed->groups; p++, tables += words * 2 * kTable) {
    const uint16_t *some[KE_MULTI_BIT_MAX_WIDTH];
    int32_t count = 0;
    for (int32_t i = 0; i < plan->max_bases; i++) {
      const size_t list = list_index(packed, segment, p, i);
      const Rows *rows = &lists[list];
      if (rows->live == 0) break; /* nor has any output a further basis */
      Target at = {sums, sums, scales + rows->scales, _mm512_set1_ps(units[p])};
      if (rows->live < outputs) {
        at.before = nothing;
        at.to = found + count * kFoundPitch;
        some[count++] = masks + list * (size_t)layout->segment / kLanes;
      }
      if (layout->halves == 2) {
        add_rows(tables, data + rows->data, words, 2, rows->live, at);
      } else {
        add_rows(tables, data + rows->data, words, 1, rows->live, at);
      }
    }
    if (count > 0) spread(found, some, count, vectors, sums);
  }
  const __m512 low = _mm512_set1_ps(plan->low), high = _mm512_set1_ps(plan->high);
  for (int32_t v = 0; v < vectors; v++) {
    const __m512 sum = _mm512_load_ps(sums + v * kLanes);
    const __m512 activated = _mm512_min_ps(high, _mm512_max_ps(low, sum)); /* a NaN stays one */
    _mm512_mask_storeu_ps(y + segment * layout->segment + v * kLanes, first_of(outputs - v * kLanes), activated);
  }
}

static void run(const KeMultiBitDensePlan *plan, int32_t first, int32_t end, float *y) {
  const Layout *layout = plan->weights;
  for (int32_t s = first; s < end; s++) run_segment(plan, layout, s, y);
}

const KeMultiBitDensePath ke_multi_bit_dense_avx512bitalg = {
    .isa = KE_ISA_AVX512BITALG,
    .takes_packed = 1,
    .task_macs = 4000000,
    .lanes = lanes,
    .weight_bytes = weight_bytes,
    .sample_bytes = sample_bytes,
    .pack = pack,
    .take_sample = take_sample,
    .run = run,
};
