/* The tile kernels, generic in the vector width. Whoever includes this defines `vec`, LANES, vec_load, vec_store, the type
 * `vec_value` of what vec_broadcast(p) and, unless KE_NO_PAIRS, vec_broadcast_pair(p) give (p[0] in the even lanes, p[1]
 * in the odd ones), vec_set(value), vec_fma(x, w, sum) = x * w + sum, where x is a vec_value, vec_min, vec_max, vec_multiply, `vec_mask`, vec_lanes(bits) and vec_keep(mask, v), which
 * zeroes the lanes outside the mask.
 *
 * Sums are named variables, not an array: compilers keep such arrays in memory. `rows`, `columns` and `vectors` are
 * constants of each kernel, so everything that does not apply folds away. The opaque pointer keeps the address arithmetic
 * at one addition per three pixels (base, base + column, base + 2 * column) instead of an offset in a register for each. */

#define KE_OPAQUE(pointer) __asm__ volatile("" : "+r"(pointer))

#define KE_EACH_SLOT(M)                                                                                                \
  M(0)                                                                                                                 \
  M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15) M(16) M(17) M(18) M(19) M(20) M(21) \
      M(22) M(23) M(24) M(25) M(26) M(27)

#define KE_DECLARE(i) vec a##i = bias0, b##i = bias1, c##i = bias2;

#define KE_STEP(i)                                       \
  if (i < rows * columns) {                              \
    if (i > 0 && i % columns == 0) {                     \
      row += tile->x_row;                                \
      at = row;                                          \
    } else if (i % columns % 3 == 0 && i > 0) {          \
      at += 3 * column;                                  \
      KE_OPAQUE(at);                                     \
    }                                                    \
    const vec_value x = KE_X(at + (i % columns % 3) * column); \
    a##i = vec_fma(x, w0, a##i);                         \
    if (vectors > 1) b##i = vec_fma(x, w1, b##i);        \
    if (vectors > 2) c##i = vec_fma(x, w2, c##i);        \
  }

/* Three kernel columns at once: the x of a pixel serves as its neighbours' too, so that a sum costs a third of the
 * loads. */
#define KE_THREE_STEPS(i)                                           \
  if (i < rows * columns) {                                         \
    if (i % columns == 0) {                                         \
      if (i > 0) row += tile->x_row;                                \
      at = row;                                                     \
      x0 = KE_X(at);                                                \
      x1 = KE_X(at + column);                                       \
    } else if (i % columns % 3 == 0) {                              \
      at += 3 * column;                                             \
      KE_OPAQUE(at);                                                \
    }                                                               \
    const vec_value x2 = KE_X(at + (i % columns % 3 + 2) * column);       \
    a##i = vec_fma(x2, w2, vec_fma(x1, w1, vec_fma(x0, w0, a##i))); \
    x0 = x1;                                                        \
    x1 = x2;                                                        \
  }

#if defined(KE_NO_PAIRS)
#define KE_X(p) ((void)pairs, vec_broadcast(p))
#else
#define KE_X(p) (pairs ? vec_broadcast_pair(p) : vec_broadcast(p))
#endif

#define KE_FINISH(y, sum, gate, keep, i)                          \
  vec_store(y + (i / columns) * y_row + (i % columns) * y_column, \
            vec_keep(keep, vec_multiply(vec_min(high, vec_max(low, sum)), gate)))

#define KE_STORE(i)                                        \
  if (i < rows * columns) {                                \
    KE_FINISH(y0, a##i, gate0, keep0, i);                  \
    if (vectors > 1) KE_FINISH(y1, b##i, gate1, keep1, i); \
    if (vectors > 2) KE_FINISH(y2, c##i, gate2, keep2, i); \
  }

static inline __attribute__((always_inline)) void run_tile(const KeTile *tile, const int pairs, const int three,
                                                           const int vectors, const int rows, const int columns) {
  const int second = vectors > 1 ? 1 : 0, third = vectors > 2 ? 2 : 0;
  const vec bias0 = vec_load(tile->vectors[0].bias);
  const vec bias1 = vec_load(tile->vectors[second].bias);
  const vec bias2 = vec_load(tile->vectors[third].bias);
  KE_EACH_SLOT(KE_DECLARE)
  const ptrdiff_t column = tile->x_column;
  const float *weights0 = tile->vectors[0].weights;
  const float *weights1 = tile->vectors[second].weights;
  const float *weights2 = tile->vectors[third].weights;
  const KeStep *const end = tile->steps + tile->step_count;
  for (const KeStep *step = tile->steps; step != end; step += three ? 3 : 1) {
    const char *row = (const char *)(tile->x + step->x);
    const char *at = row;
    if (three) {
      const vec w0 = vec_load(weights0 + step->w), w1 = vec_load(weights0 + step->w + LANES),
                w2 = vec_load(weights0 + step->w + 2 * LANES);
      vec_value x0 = {0}, x1 = {0};
      KE_EACH_SLOT(KE_THREE_STEPS)
      continue;
    }
    const vec w0 = vec_load(weights0 + step->w);
    const vec w1 = vectors > 1 ? vec_load(weights1 + step->w) : w0;
    const vec w2 = vectors > 2 ? vec_load(weights2 + step->w) : w0;
    KE_EACH_SLOT(KE_STEP)
  }
  /* Everything is read before the first store, which the compiler must suppose to change it. */
  const vec low = vec_set(tile->low), high = vec_set(tile->high);
  const KeVector *const v0 = &tile->vectors[0], *const v1 = &tile->vectors[second], *const v2 = &tile->vectors[third];
  const vec gate0 = vec_load(v0->gate), gate1 = vec_load(v1->gate), gate2 = vec_load(v2->gate);
  const vec_mask keep0 = vec_lanes(v0->open), keep1 = vec_lanes(v1->open), keep2 = vec_lanes(v2->open);
  float *const y0 = tile->y + v0->y, *const y1 = tile->y + v1->y, *const y2 = tile->y + v2->y;
  const ptrdiff_t y_row = tile->y_row, y_column = tile->y_column;
  KE_EACH_SLOT(KE_STORE)
}

/* KE_TILES_<n>(M, kind, rows): M(kind, rows, 1) ... M(kind, rows, n). */
#define KE_TILES_1(M, k, r) M(k, r, 1)
#define KE_TILES_2(M, k, r) KE_TILES_1(M, k, r) M(k, r, 2)
#define KE_TILES_3(M, k, r) KE_TILES_2(M, k, r) M(k, r, 3)
#define KE_TILES_4(M, k, r) KE_TILES_3(M, k, r) M(k, r, 4)
#define KE_TILES_5(M, k, r) KE_TILES_4(M, k, r) M(k, r, 5)
#define KE_TILES_6(M, k, r) KE_TILES_5(M, k, r) M(k, r, 6)
#define KE_TILES_7(M, k, r) KE_TILES_6(M, k, r) M(k, r, 7)
#define KE_TILES_8(M, k, r) KE_TILES_7(M, k, r) M(k, r, 8)
#define KE_TILES_9(M, k, r) KE_TILES_7(M, k, r) M(k, r, 8) M(k, r, 9)
#define KE_TILES_12(M, k, r) KE_TILES_9(M, k, r) M(k, r, 10) M(k, r, 11) M(k, r, 12)
#define KE_TILES_13(M, k, r) KE_TILES_12(M, k, r) M(k, r, 13)
#define KE_TILES_14(M, k, r) KE_TILES_12(M, k, r) M(k, r, 13) M(k, r, 14)

/* Kind 1, 2, 3: so many vectors; 4: one vector of pairs; 5, 6: as 1 and 4, three kernel columns at once. */
#define KE_DEFINE_TILE(kind, rows, columns)                                                                        \
  static void tile_##kind##_##rows##_##columns(const KeTile *tile) {                                               \
    run_tile(tile, (kind) == 4 || (kind) == 6, (kind) >= 5, (kind) <= KE_MAX_VECTORS ? (kind) : 1, rows, columns); \
  }

#define KE_NAME_TILE(kind, rows, columns) [(kind) - 1][(rows) - 1][(columns) - 1] = tile_##kind##_##rows##_##columns,
