/* Four weights at a time by table. For four inputs there are only 16 signed sums; they fill one vector, and a permutation
 * looks up the right one for 16 outputs at once: three instructions for 64 multiply-accumulates, in plain float.
 *
 * Weights are stored so that a lane is an output: [block of 16 outputs][group][basis][32 inputs][lane], a lane's 32 bits being
 * the signs of 32 inputs, then [block][group][basis][lane] scales. A sample is stored as its tables, eight for 32 inputs. */
#include <immintrin.h>
#include <string.h>

#include "internal.h"

enum { kLanes = 16, kInputsPerWord = 32, kTablesPerWord = 8 };

static size_t words_per_group(const KeMultiBitDensePlan *plan) {
  return ((size_t)plan->shape.group_size + kInputsPerWord - 1) / kInputsPerWord;
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
  return (size_t)plan->shape.groups * words_per_group(plan) * kTablesPerWord * kLanes * sizeof(float);
}

static void pack(KeMultiBitDensePlan *plan) {
  const KeExpandedShape *shape = &plan->shape;
  const size_t words = words_per_group(plan), vectors = vectors_per_block(plan), group_bytes = (size_t)shape->group_size / 8;
  uint32_t *bits = plan->weights;
  float *scales = (float *)(bits + word_count(plan));
  memset(plan->weights, 0, weight_bytes(plan));
  for (size_t o = 0; o < (size_t)shape->outputs; o++) {
    for (size_t v = 0; v < vectors; v++) {
      const size_t to = (o / kLanes) * vectors + v, from = o * vectors + v;
      scales[to * kLanes + o % kLanes] = plan->scales[from];
      for (size_t byte = 0; byte < group_bytes; byte++) {
        bits[(to * words + byte / 4) * kLanes + o % kLanes] |= (uint32_t)plan->bits[from * group_bytes + byte]
                                                               << (8 * (byte % 4));
      }
    }
  }
}

static void take_sample(KeMultiBitDensePlan *plan, int32_t inputs, const float *x) {
  const __m512i entry = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512 plus = _mm512_set1_ps(1.0f), minus = _mm512_set1_ps(-1.0f);
  __m512 sign[4];
  for (int k = 0; k < 4; k++) {
    sign[k] = _mm512_mask_blend_ps(_mm512_test_epi32_mask(entry, _mm512_set1_epi32(1 << k)), plus, minus);
  }
  const int64_t per_group = plan->shape.group_size, tables_per_group = (int64_t)words_per_group(plan) * kTablesPerWord;
  float *table = plan->sample;
  for (int32_t p = 0; p < plan->shape.groups; p++) {
    for (int64_t t = 0; t < tables_per_group; t++, table += kLanes) {
      const int64_t first = p * per_group + 4 * t;
      float four[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      for (int k = 0; k < 4 && 4 * t < per_group && first + k < inputs; k++) four[k] = x[first + k];
      __m512 sums = _mm512_mul_ps(_mm512_set1_ps(four[0]), sign[0]);
      sums = _mm512_fmadd_ps(_mm512_set1_ps(four[1]), sign[1], sums);
      sums = _mm512_fmadd_ps(_mm512_set1_ps(four[2]), sign[2], sums);
      sums = _mm512_fmadd_ps(_mm512_set1_ps(four[3]), sign[3], sums);
      _mm512_store_ps(table, sums);
    }
  }
}

/* `count` blocks from `block` on; a constant after inlining, so that sums and bits stay in registers. */
static inline __attribute__((always_inline)) void run_blocks(const KeMultiBitDensePlan *plan, size_t block, const int count,
                                                             float *y) {
  const size_t words = words_per_group(plan), vectors = vectors_per_block(plan), bases = (size_t)plan->shape.bases;
  const uint32_t *bits = (const uint32_t *)plan->weights + block * vectors * words * kLanes;
  const float *scales = (const float *)((const uint32_t *)plan->weights + word_count(plan)) + block * vectors * kLanes;
  const size_t bits_pitch = vectors * words * kLanes, scales_pitch = vectors * kLanes;

  __mmask16 inside[4];
  __m512 total[4];
#pragma GCC unroll 4
  for (int b = 0; b < count; b++) {
    const size_t first = (block + (size_t)b) * kLanes, left = (size_t)plan->shape.outputs - first;
    inside[b] = left >= kLanes ? 0xFFFF : (__mmask16)((1u << left) - 1);
    total[b] = _mm512_maskz_loadu_ps(inside[b], plan->bias + first);
  }
  for (size_t v = 0; v < vectors; v++) {
    const float *table = (const float *)plan->sample + (v / bases) * words * kTablesPerWord * kLanes;
    __m512 sum[4];
#pragma GCC unroll 4
    for (int b = 0; b < count; b++) sum[b] = _mm512_setzero_ps();
    for (size_t w = 0; w < words; w++) {
      __m512i signs[4];
#pragma GCC unroll 4
      for (int b = 0; b < count; b++) signs[b] = _mm512_load_si512(bits + (size_t)b * bits_pitch + w * kLanes);
#pragma GCC unroll 8
      for (int t = 0; t < kTablesPerWord; t++) {
        const __m512 sums = _mm512_load_ps(table + (w * kTablesPerWord + (size_t)t) * kLanes);
#pragma GCC unroll 4
        for (int b = 0; b < count; b++) {
          /* The permutation looks at the lowest four bits only. */
          sum[b] = _mm512_add_ps(sum[b], _mm512_permutexvar_ps(signs[b], sums));
          signs[b] = _mm512_srli_epi32(signs[b], 4);
          __asm__ volatile("" : "+v"(sum[b])); /* or gcc permutes far ahead and spills */
        }
      }
    }
#pragma GCC unroll 4
    for (int b = 0; b < count; b++) {
      total[b] = _mm512_fmadd_ps(_mm512_load_ps(scales + (size_t)b * scales_pitch), sum[b], total[b]);
    }
    bits += words * kLanes;
    scales += kLanes;
  }
#pragma GCC unroll 4
  for (int b = 0; b < count; b++) {
    const __m512 activated =
        _mm512_min_ps(_mm512_set1_ps(plan->high), _mm512_max_ps(_mm512_set1_ps(plan->low), total[b]));
    _mm512_mask_storeu_ps(y + (block + (size_t)b) * kLanes, inside[b], activated);
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

const KeMultiBitDensePath ke_multi_bit_dense_avx512 = {
    .isa = KE_ISA_AVX512,
    .lanes = lanes,
    .task_macs = 2000000,
    .weight_bytes = weight_bytes,
    .sample_bytes = sample_bytes,
    .pack = pack,
    .take_sample = take_sample,
    .run = run,
};
