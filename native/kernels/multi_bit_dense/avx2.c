/* Three weights at a time by table. For three inputs there are 8 signed sums; they fill one vector, and a permutation looks up
 * the right one for 8 outputs at once: three instructions for 24 multiply-accumulates, in plain float.
 *
 * Weights are stored so that a lane is an output: [block of 8 outputs][group][basis][word][lane], a lane's word being the signs
 * of 30 inputs, then [block][group][basis][lane] scales. A sample is stored as its tables, as many for each group as its
 * inputs need. */
#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#include "internal.h"

enum { kLanes = 8, kInputsPerTable = 3, kTablesPerWord = 10 };

static size_t tables_per_group(const KeMultiBitDensePlan *plan) {
  return ((size_t)plan->shape.group_size + kInputsPerTable - 1) / kInputsPerTable;
}

static size_t words_per_group(const KeMultiBitDensePlan *plan) {
  return (tables_per_group(plan) + kTablesPerWord - 1) / kTablesPerWord;
}

static size_t vectors_per_block(const KeMultiBitDensePlan *plan) {
  return (size_t)plan->shape.groups * (size_t)plan->shape.bases;
}

static size_t word_count(const KeMultiBitDensePlan *plan) {
  return (size_t)plan->blocks * vectors_per_block(plan) * words_per_group(plan) * kLanes;
}

static size_t weight_bytes(const KeMultiBitDensePlan *plan) {
  return word_count(plan) * sizeof(uint32_t) + (size_t)plan->blocks * vectors_per_block(plan) * kLanes * sizeof(float);
}

static size_t sample_bytes(const KeMultiBitDensePlan *plan) {
  return (size_t)plan->shape.groups * tables_per_group(plan) * kLanes * sizeof(float);
}

static void pack(KeMultiBitDensePlan *plan) {
  enum { kInputsPerWord = kInputsPerTable * kTablesPerWord };
  const size_t words = words_per_group(plan), vectors = vectors_per_block(plan);
  const size_t group_size = (size_t)plan->shape.group_size;
  uint32_t *bits = plan->weights;
  float *scales = (float *)(bits + word_count(plan));
  memset(plan->weights, 0, weight_bytes(plan));
  for (size_t o = 0; o < (size_t)plan->shape.outputs; o++) {
    for (size_t v = 0; v < vectors; v++) {
      const size_t to = (o / kLanes) * vectors + v, from = o * vectors + v;
      const uint8_t *row = plan->bits + from * (group_size / 8);
      scales[to * kLanes + o % kLanes] = plan->scales[from];
      for (size_t k = 0; k < group_size; k++) {
        const uint32_t bit = row[k / 8] >> (k % 8) & 1;
        bits[(to * words + k / kInputsPerWord) * kLanes + o % kLanes] |= bit << (k % kInputsPerWord);
      }
    }
  }
}

static void take_sample(KeMultiBitDensePlan *plan, int32_t inputs, const float *x) {
  const __m256 sign0 = _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1), sign1 = _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1),
               sign2 = _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1);
  const int64_t per_group = plan->shape.group_size, tables = (int64_t)tables_per_group(plan);
  float *table = plan->sample;
  for (int32_t p = 0; p < plan->shape.groups; p++) {
    const int64_t left = inputs - p * per_group, count = left < per_group ? left : per_group;
    const float *group = x + p * per_group;
    for (int64_t first = 0; first < tables * kInputsPerTable; first += kInputsPerTable, table += kLanes) {
      float three[kInputsPerTable] = {0.0f, 0.0f, 0.0f};
      for (int64_t k = 0; k < kInputsPerTable && first + k < count; k++) three[k] = group[first + k];
      __m256 sums = _mm256_mul_ps(_mm256_set1_ps(three[0]), sign0);
      sums = _mm256_fmadd_ps(_mm256_set1_ps(three[1]), sign1, sums);
      sums = _mm256_fmadd_ps(_mm256_set1_ps(three[2]), sign2, sums);
      _mm256_store_ps(table, sums);
    }
  }
}

/* One table for `count` blocks; the permutation looks at the lowest three bits only. */
#define KE_LOOK_UP(table)                                                         \
  do {                                                                            \
    const __m256 sums = _mm256_load_ps(table);                                    \
    _Pragma("GCC unroll 4") for (int b = 0; b < count; b++) {                     \
      sum[b] = _mm256_add_ps(sum[b], _mm256_permutevar8x32_ps(sums, signs[b]));   \
      signs[b] = _mm256_srli_epi32(signs[b], kInputsPerTable);                    \
      __asm__ volatile("" : "+x"(sum[b])); /* or gcc permutes far ahead and spills */ \
    }                                                                             \
  } while (0)

static inline __m256i first_lanes(size_t count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count < kLanes ? (int)count : kLanes), lane);
}

/* `count` blocks from `block` on; a constant after inlining, so that sums and bits stay in registers. */
static inline __attribute__((always_inline)) void run_blocks(const KeMultiBitDensePlan *plan, size_t block, const int count,
                                                             float *y) {
  const size_t words = words_per_group(plan), vectors = vectors_per_block(plan), bases = (size_t)plan->shape.bases;
  const size_t tables = tables_per_group(plan), outputs = (size_t)plan->shape.outputs;
  const uint32_t *bits = (const uint32_t *)plan->weights + block * vectors * words * kLanes;
  const float *scales = (const float *)((const uint32_t *)plan->weights + word_count(plan)) + block * vectors * kLanes;
  const size_t bits_pitch = vectors * words * kLanes, scales_pitch = vectors * kLanes;

  __m256 total[4];
#pragma GCC unroll 4
  for (int b = 0; b < count; b++) {
    const size_t first = (block + (size_t)b) * kLanes;
    total[b] = _mm256_maskload_ps(plan->bias + first, first_lanes(outputs - first));
  }
  for (size_t v = 0; v < vectors; v++) {
    const float *table = (const float *)plan->sample + (v / bases) * tables * kLanes;
    __m256 sum[4];
#pragma GCC unroll 4
    for (int b = 0; b < count; b++) sum[b] = _mm256_setzero_ps();
    for (size_t left = tables; left > 0; bits += kLanes) {
      __m256i signs[4];
#pragma GCC unroll 4
      for (int b = 0; b < count; b++) {
        signs[b] = _mm256_load_si256((const __m256i *)(const void *)(bits + (size_t)b * bits_pitch));
      }
      if (left >= kTablesPerWord) {
#pragma GCC unroll 10
        for (int t = 0; t < kTablesPerWord; t++) KE_LOOK_UP(table + t * kLanes);
        table += kTablesPerWord * kLanes;
        left -= kTablesPerWord;
      } else {
        for (; left > 0; left--, table += kLanes) KE_LOOK_UP(table);
      }
    }
#pragma GCC unroll 4
    for (int b = 0; b < count; b++) {
      total[b] = _mm256_fmadd_ps(_mm256_load_ps(scales + (size_t)b * scales_pitch), sum[b], total[b]);
    }
    scales += kLanes;
  }
#pragma GCC unroll 4
  for (int b = 0; b < count; b++) {
    const size_t first = (block + (size_t)b) * kLanes;
    const __m256 activated =
        _mm256_min_ps(_mm256_set1_ps(plan->high), _mm256_max_ps(_mm256_set1_ps(plan->low), total[b]));
    _mm256_maskstore_ps(y + first, first_lanes(outputs - first), activated);
  }
}

static void run(const KeMultiBitDensePlan *plan, int32_t first, int32_t end, float *y) {
  int32_t block = first;
  for (; end - block >= 4; block += 4) run_blocks(plan, (size_t)block, 4, y);
  for (; block < end; block++) run_blocks(plan, (size_t)block, 1, y);
}

static int32_t lanes(const KeMultiBitDensePlan *plan) {
  (void)plan;
  return kLanes;
}

const KeMultiBitDensePath ke_multi_bit_dense_avx2 = {
    .isa = KE_ISA_AVX2,
    .lanes = lanes,
    .task_macs = 1000000,
    .weight_bytes = weight_bytes,
    .sample_bytes = sample_bytes,
    .pack = pack,
    .take_sample = take_sample,
    .run = run,
};

#else
typedef int ke_no_avx2;
#endif
