/* SPDX-License-Identifier: BSD-3-Clause */
#include "tensor/gemm.h"

#include <blis.h>
#include <stdalign.h>
#include <stdlib.h>

#ifdef MELU__DOUBLE
#define TYPE BLIS_DOUBLE
typedef dgemm_ukr_ft micro_kernel;
#else
#define TYPE BLIS_FLOAT
typedef sgemm_ukr_ft micro_kernel;
#endif

/* Where op(B) is much larger than a second-level cache, packing both operands is earned back. */
enum { LARGE_SIDE = 512, LARGE_AREA = 1 << 19 };

/* What is packed lies on the stack, which may be small: rows of A, and the columns of one tile. */
enum {
  BLOCK_K = 128,
  BLOCK_ROWS = 64,
  MOST_SIDE = 32, /* rows or columns of a tile; those of BLIS have up to 32 */
  BEYOND = 64,    /* micro-kernels load the next vectors before they know that there are none */
  LINE = 64
};

/* C (rows, cols) := A B of packed A (k, panel_rows) and B (k, panel_cols). */
struct tile {
  micro_kernel run;
  cntx_t *cntx;
  size_t rows, cols, panel_rows, panel_cols;
  size_t row_stride, col_stride; /* of C, as the micro-kernel stores it fastest */
};

const char *melu__blis_version(void) {
  return bli_info_get_version_str();
}

const char *melu__blis_start(void) {
  /* BLIS keeps 71 KB. What malloc gives in one piece below its limits for mapping and trimming it has again for the
   * small pieces that BLIS asks for; only another thread could take it in between. */
  void *volatile enough = malloc((size_t)112 << 10);
  if (!enough) return NULL;
  free(enough);
  bli_init();
  return bli_arch_string(bli_arch_query_id());
}

/* BLIS's for this CPU. */
static struct tile find_tile(void) {
  union {
    void_fp object; /* as BLIS keeps it */
    micro_kernel function;
  } micro;
  bli_init(); /* to ask before would abort if the environment names a family; nothing after the first time */
  cntx_t *cntx = bli_gks_query_nat_cntx();
  micro.object = bli_cntx_get_l3_nat_ukr_dt(TYPE, BLIS_GEMM_UKR, cntx);
  struct tile t = {.run = micro.function,
                   .cntx = cntx,
                   .rows = (size_t)bli_cntx_get_blksz_def_dt(TYPE, BLIS_MR, cntx),
                   .cols = (size_t)bli_cntx_get_blksz_def_dt(TYPE, BLIS_NR, cntx),
                   .panel_rows = (size_t)bli_cntx_get_blksz_max_dt(TYPE, BLIS_MR, cntx),
                   .panel_cols = (size_t)bli_cntx_get_blksz_max_dt(TYPE, BLIS_NR, cntx)};
  const int by_rows = bli_cntx_l3_nat_ukr_prefers_rows_dt(TYPE, BLIS_GEMM_UKR, cntx);
  t.row_stride = by_rows ? t.cols : 1;
  t.col_stride = by_rows ? 1 : t.rows;
  return t;
}

int melu__blis_takes(size_t n, size_t k) {
  if (n < LARGE_SIDE || k < LARGE_SIDE || n < LARGE_AREA / k) return 0;
  const struct tile t = find_tile();
  return t.panel_rows <= MOST_SIDE && t.panel_cols <= MOST_SIDE && bli_arch_query_id() != BLIS_ARCH_GENERIC;
}

static size_t min_size(size_t a, size_t b) {
  return a < b ? a : b;
}

/* to (k, panel) := op(from) (k, n), zeros beyond n. */
static void pack(const struct melu__kernels *kernels, int transpose, size_t k, size_t n, struct melu__cmat from,
                 size_t panel, real *to) {
  if (transpose)
    kernels->transpose(n, k, from, (struct melu__mat){to, panel});
  else
    kernels->copy(k, n, from, (struct melu__mat){to, panel});
  kernels->fill(k, panel - n, 0, (struct melu__mat){to + n, panel});
}

/* C (rows, cols) := alpha A B of packed A, all its tiles, and B. A whole tile goes the way of those at the edges: a row
 * has the same bits everywhere. */
static void run_tiles(const struct tile *t, size_t rows, size_t cols, size_t k, real alpha, real *a, real *b,
                      int accumulate, real *c, size_t ld) {
  alignas(LINE) real aside[MOST_SIDE * MOST_SIDE];
  real one = 1, zero = 0;
  auxinfo_t info = {0};
  for (size_t first = 0; first < rows; first += t->rows, a += t->panel_rows * BLOCK_K) {
    t->run((dim_t)t->rows, (dim_t)t->cols, (dim_t)k, &one, a, b, &zero, aside, (inc_t)t->row_stride,
           (inc_t)t->col_stride, &info, t->cntx);
    for (size_t i = 0; i < min_size(t->rows, rows - first); i++, c += ld)
      for (size_t j = 0; j < cols; j++) {
        const real x = alpha * aside[i * t->row_stride + j * t->col_stride];
        c[j] = accumulate ? c[j] + x : x;
      }
  }
}

void melu__blis_gemm(const struct melu__kernels *kernels, int trans_a, int trans_b, size_t m, size_t n, size_t k,
                     real alpha, struct melu__cmat a, struct melu__cmat b, int accumulate, struct melu__mat c) {
  alignas(LINE) real pack_a[BLOCK_ROWS * BLOCK_K + BEYOND], pack_b[MOST_SIDE * BLOCK_K + BEYOND];
  const struct tile t = find_tile();
  const size_t block_rows = BLOCK_ROWS / t.panel_rows * t.rows;
  const size_t a_row = trans_a ? 1 : a.ld, a_k = trans_a ? a.ld : 1;
  const size_t b_col = trans_b ? b.ld : 1, b_k = trans_b ? 1 : b.ld;
  for (size_t steps, p = 0; p < k; p += steps) {
    steps = min_size(BLOCK_K, k - p);
    for (size_t rows, first = 0; first < m; first += rows) {
      rows = min_size(block_rows, m - first);
      for (size_t i = 0; i < rows; i += t.rows)
        pack(kernels, !trans_a, steps, min_size(t.rows, rows - i),
             (struct melu__cmat){a.p + (first + i) * a_row + p * a_k, a.ld}, t.panel_rows,
             pack_a + i / t.rows * t.panel_rows * BLOCK_K);
      for (size_t cols, j = 0; j < n; j += cols) {
        cols = min_size(t.cols, n - j);
        pack(kernels, trans_b, steps, cols, (struct melu__cmat){b.p + p * b_k + j * b_col, b.ld}, t.panel_cols, pack_b);
        run_tiles(&t, rows, cols, steps, alpha, pack_a, pack_b, accumulate, c.p + first * c.ld + j, c.ld);
      }
    }
    accumulate = 1;
  }
}
