/* SPDX-License-Identifier: BSD-3-Clause */
/* BLIS's micro-kernels. Its products take memory from malloc and end the process if there is none; its micro-kernels
 * take none. The one file that includes blis.h. */
#include <blis.h>
#include <stdio.h>
#include <stdlib.h>

#include "tensor/blas.h"

#ifdef MELU__DOUBLE
#define TYPE BLIS_DOUBLE
typedef dgemm_ukr_ft micro_kernel;
#else
#define TYPE BLIS_FLOAT
typedef sgemm_ukr_ft micro_kernel;
#endif

void melu__blas_name(char *text, size_t n) {
  snprintf(text, n, "BLIS %s", bli_info_get_version_str());
}

const char *melu__blas_start(void) {
  /* BLIS keeps 71 KB. What malloc gives in one piece below its limits for mapping and trimming it has again for the
   * small pieces that BLIS asks for; only another thread could take it in between. */
  void *volatile enough = malloc((size_t)112 << 10);
  if (!enough) return NULL;
  free(enough);
  bli_init();
  return bli_arch_string(bli_arch_query_id());
}

static void run(const struct melu__tile *t, size_t k, real *a, real *b, real *c) {
  real one = 1, zero = 0;
  auxinfo_t info = {0};
  const micro_kernel kernel = (micro_kernel)t->kernel;
  kernel((dim_t)t->rows, (dim_t)t->cols, (dim_t)k, &one, a, b, &zero, c, (inc_t)t->row_stride, (inc_t)t->col_stride,
         &info, t->about);
}

struct melu__tile melu__blas_tile(void) {
  union {
    void_fp object; /* as BLIS keeps it */
    void (*function)(void);
  } micro;
  bli_init(); /* to ask before would abort if the environment names a family; nothing after the first time */
  cntx_t *cntx = bli_gks_query_nat_cntx();
  micro.object = bli_cntx_get_l3_nat_ukr_dt(TYPE, BLIS_GEMM_UKR, cntx);
  struct melu__tile t = {.run = run,
                         .kernel = micro.function,
                         .about = cntx,
                         .rows = (size_t)bli_cntx_get_blksz_def_dt(TYPE, BLIS_MR, cntx),
                         .cols = (size_t)bli_cntx_get_blksz_def_dt(TYPE, BLIS_NR, cntx),
                         .panel_rows = (size_t)bli_cntx_get_blksz_max_dt(TYPE, BLIS_MR, cntx),
                         .panel_cols = (size_t)bli_cntx_get_blksz_max_dt(TYPE, BLIS_NR, cntx)};
  const int by_rows = bli_cntx_l3_nat_ukr_prefers_rows_dt(TYPE, BLIS_GEMM_UKR, cntx);
  t.row_stride = by_rows ? t.cols : 1;
  t.col_stride = by_rows ? 1 : t.rows;
  return t;
}

int melu__blas_is_fast(const struct melu__tile *t) {
  return t->panel_rows <= MELU__TILE_SIDE && t->panel_cols <= MELU__TILE_SIDE &&
         bli_arch_query_id() != BLIS_ARCH_GENERIC;
}
