/* SPDX-License-Identifier: BSD-3-Clause */
#include "tensor/gemm.h"

#include <blis.h>

#ifdef MELU__DOUBLE
#define BLI_GEMM bli_dgemm_ex
#define TYPE BLIS_DOUBLE
#else
#define BLI_GEMM bli_sgemm_ex
#define TYPE BLIS_FLOAT
#endif

/* Where op(B) is much larger than a second-level cache, packing both operands, as BLIS does for every product, is
 * earned back. Below, the tiles are as fast or faster, and do without the memory and the locks that BLIS takes. */
enum { LARGE_SIDE = 512, LARGE_AREA = 1 << 19 };

void melu__blis_start(struct melu__blis_info *info) {
  bli_init();
  info->version = bli_info_get_version_str();
  info->arch = bli_arch_string(bli_arch_query_id());
}

int melu__blis_takes(size_t n, size_t k) {
  return n >= LARGE_SIDE && k >= LARGE_SIDE && n >= LARGE_AREA / k;
}

/* BLIS hands a micro-kernel no pointer of its caller's, so each set has one. */
#define MICRO(set)                                                                                                 \
  static void micro_##set(dim_t m, dim_t n, dim_t k, real *alpha, real *a, real *b, real *beta, real *c, inc_t rs, \
                          inc_t cs, auxinfo_t *info, cntx_t *cntx) {                                               \
    (void)info, (void)cntx;                                                                                        \
    melu__kernels_##set.micro((size_t)m, (size_t)n, (size_t)k, *alpha, a, b, *beta, c, rs, cs);                    \
  }
MICRO(base)
#ifdef MELU__HAVE_V3
MICRO(avx2)
#endif
#ifdef MELU__HAVE_V4
MICRO(avx512)
#endif

/* The set's micro-kernel as the object pointer that BLIS wants it as. */
static void_fp micro_of(const struct melu__kernels *kernels) {
  union {
    void (*function)(dim_t, dim_t, dim_t, real *, real *, real *, real *, real *, inc_t, inc_t, auxinfo_t *, cntx_t *);
    void_fp object;
  } micro = {micro_base};
#ifdef MELU__HAVE_V3
  if (kernels == &melu__kernels_avx2) micro.function = micro_avx2;
#endif
#ifdef MELU__HAVE_V4
  if (kernels == &melu__kernels_avx512) micro.function = micro_avx512;
#endif
  (void)kernels;
  return micro.object;
}

/* A context of our own: BLIS's, with our micro-kernel, the panels that it takes, and blocks of them for the usual
 * caches: A (256, 256) in the second level, B in the third. */
static void private_context(cntx_t *cntx, const struct melu__kernels *kernels) {
  const dim_t rows = (dim_t)kernels->micro_rows, cols = (dim_t)kernels->micro_cols;
  const dim_t blocks[][2] = {
      {BLIS_MR, rows}, {BLIS_NR, cols}, {BLIS_MC, 256 / rows * rows}, {BLIS_KC, 256}, {BLIS_NC, 3072 / cols * cols}};
  bli_init(); /* to ask before would abort if the environment names a family; nothing after the first time */
  *cntx = *bli_gks_query_nat_cntx();
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
    bli_cntx_set_blksz_def_dt(TYPE, (bszid_t)blocks[i][0], blocks[i][1], cntx);
    bli_cntx_set_blksz_max_dt(TYPE, (bszid_t)blocks[i][0], blocks[i][1], cntx);
  }
  bli_func_set_dt(micro_of(kernels), TYPE, &bli_cntx_l3_nat_ukrs_buf(cntx)[BLIS_GEMM_UKR]);
  bli_func_set_dt(micro_of(kernels), TYPE, &bli_cntx_l3_vir_ukrs_buf(cntx)[BLIS_GEMM_UKR]);
  bli_mbool_set_dt(1, TYPE, &bli_cntx_l3_nat_ukrs_prefs_buf(cntx)[BLIS_GEMM_UKR]);
}

void melu__blis_gemm(const struct melu__kernels *kernels, int trans_a, int trans_b, size_t m, size_t n, size_t k,
                     real alpha, struct melu__cmat a, struct melu__cmat b, int accumulate, struct melu__mat c) {
  /* An own runtime object rather than the process-wide one: the host may have told BLIS to use many threads, and its
   * kernels for small products would be chosen by the number of rows. */
  rntm_t rntm;
  cntx_t cntx;
  private_context(&cntx, kernels);
  bli_rntm_init(&rntm);
  bli_rntm_set_num_threads(1, &rntm);
  bli_rntm_disable_l3_sup(&rntm);
  real beta = accumulate ? 1 : 0;
  const inc_t lda = (inc_t)a.ld, ldb = (inc_t)b.ld;
  /* BLIS does not write to A and B, but does not say so either. */
  BLI_GEMM(trans_a ? BLIS_TRANSPOSE : BLIS_NO_TRANSPOSE, trans_b ? BLIS_TRANSPOSE : BLIS_NO_TRANSPOSE, (dim_t)m,
           (dim_t)n, (dim_t)k, &alpha, (real *)a.p, lda, 1, (real *)b.p, ldb, 1, &beta, c.p, (inc_t)c.ld, 1, &cntx,
           &rntm);
}
