/* The tile kernels, generic in the vector width. Whoever includes this defines `vec` (32-bit sums), `vec_float`,
 * `vec_unit`, LANES, vec_load(const int32_t *), vec_set(int32_t), vec_load_float, vec_load_weights(const uint8_t *),
 * vec_broadcast(const uint8_t *), VEC_MULTIPLY_ADD(sum, x, weights), and vec_store_bytes(y, sum, low, cap, scale,
 * zero_point), which requantises a vector.
 *
 * Where several vectors are requantised together, KE_STORE_TILE does that from the sums a0, b0, a1, ...
 *
 * Sums are named variables, not an array: compilers keep such arrays in memory. `rows`, `columns` and `vectors` are
 * constants of each kernel, so everything that does not apply folds away. The opaque pointer keeps the address arithmetic
 * at one addition per three pixels (base, base + column, base + 2 * column) instead of an offset in a register for each. */

#define KE_OPAQUE(pointer) __asm__ volatile("" : "+r"(pointer))

#define KE_EACH_SLOT(M)                                                                                                \
  M(0)                                                                                                                 \
  M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15) M(16) M(17) M(18) M(19) M(20) M(21) \
      M(22) M(23) M(24) M(25) M(26) M(27)

#define KE_DECLARE(i) vec a##i = init0, b##i = init1, c##i = init2;

#define KE_STEP(i)                                                           \
  if (i < rows * columns) {                                                  \
    if (i > 0 && i % columns == 0) {                                         \
      row += x_row;                                                          \
      at = row;                                                              \
    } else if (i % columns % 3 == 0 && i > 0) {                              \
      at += 3 * column;                                                      \
      KE_OPAQUE(at);                                                         \
    }                                                                        \
    const vec_unit x = vec_broadcast(at + (i % columns % 3) * column);       \
    VEC_MULTIPLY_ADD(a##i, x, w0);                                           \
    if (vectors > 1) VEC_MULTIPLY_ADD(b##i, x, w1);                          \
    if (vectors > 2) VEC_MULTIPLY_ADD(c##i, x, w2);                          \
  }

#define KE_STORE(i)                                                                                          \
  if (i < rows * columns) {                                                                                  \
    int8_t *const at = y + (i / columns) * y_row + (i % columns) * y_column;                                 \
    vec_store_bytes(at, a##i, low, cap0, scale0, zero_point);                                                \
    if (vectors > 1) vec_store_bytes(at + LANES, b##i, low, cap1, scale1, zero_point);                       \
    if (vectors > 2) vec_store_bytes(at + 2 * LANES, c##i, low, cap2, scale2, zero_point);                   \
  }

#ifndef KE_STORE_TILE
#define KE_STORE_TILE KE_EACH_SLOT(KE_STORE)
#endif

static inline __attribute__((always_inline)) void run_tile(const KeInt8Tile *tile, const int vectors, const int rows,
                                                           const int columns) {
  const int second = vectors > 1 ? LANES : 0, third = vectors > 2 ? 2 * LANES : 0;
  const vec init0 = vec_load(tile->init), init1 = vec_load(tile->init + second), init2 = vec_load(tile->init + third);
  KE_EACH_SLOT(KE_DECLARE)
  const ptrdiff_t column = tile->x_column, x_row = tile->x_row, vector_bytes = tile->vector_bytes;
  const uint8_t *weights = tile->weights;
  const KeInt8Run *const end = tile->runs + tile->run_count;
  for (const KeInt8Run *run = tile->runs; run != end; run++) {
    const uint8_t *x0 = tile->x + run->x;
    for (ptrdiff_t unit = run->units; unit > 0; unit--) {
      const vec_unit w0 = vec_load_weights(weights);
      const vec_unit w1 = vectors > 1 ? vec_load_weights(weights + vector_bytes) : w0;
      const vec_unit w2 = vectors > 2 ? vec_load_weights(weights + 2 * vector_bytes) : w0;
      const uint8_t *row = x0;
      const uint8_t *at = row;
      KE_EACH_SLOT(KE_STEP)
      x0 += KE_UNIT_BYTES;
      weights += LANES * WEIGHT_BYTES;
    }
  }
  /* Everything is read before the first store, which the compiler must suppose to change it. */
  const vec low = vec_set(tile->low), zero_point = vec_set(tile->zero_point);
  const vec cap0 = vec_load(tile->cap), cap1 = vec_load(tile->cap + second), cap2 = vec_load(tile->cap + third);
  const vec_float scale0 = vec_load_float(tile->scale), scale1 = vec_load_float(tile->scale + second),
                  scale2 = vec_load_float(tile->scale + third);
  int8_t *const y = tile->y;
  const ptrdiff_t y_row = tile->y_row, y_column = tile->y_column;
  KE_STORE_TILE
}

/* KE_TILES_<n>(M, vectors, rows): M(vectors, rows, 1) ... M(vectors, rows, n). */
#define KE_TILES_1(M, v, r) M(v, r, 1)
#define KE_TILES_2(M, v, r) KE_TILES_1(M, v, r) M(v, r, 2)
#define KE_TILES_3(M, v, r) KE_TILES_2(M, v, r) M(v, r, 3)
#define KE_TILES_4(M, v, r) KE_TILES_3(M, v, r) M(v, r, 4)
#define KE_TILES_6(M, v, r) KE_TILES_4(M, v, r) M(v, r, 5) M(v, r, 6)
#define KE_TILES_7(M, v, r) KE_TILES_6(M, v, r) M(v, r, 7)
#define KE_TILES_9(M, v, r) KE_TILES_7(M, v, r) M(v, r, 8) M(v, r, 9)
#define KE_TILES_12(M, v, r) KE_TILES_9(M, v, r) M(v, r, 10) M(v, r, 11) M(v, r, 12)
#define KE_TILES_14(M, v, r) KE_TILES_12(M, v, r) M(v, r, 13) M(v, r, 14)

#define KE_DEFINE_TILE(vectors, rows, columns)                                    \
  static void tile_##vectors##_##rows##_##columns(const KeInt8Tile *tile) {       \
    run_tile(tile, vectors, rows, columns);                                       \
  }

#define KE_NAME_TILE(vectors, rows, columns) \
  [(vectors) - 1][(rows) - 1][(columns) - 1] = tile_##vectors##_##rows##_##columns,
