/* SPDX-License-Identifier: BSD-3-Clause */
#include "tensor/gemm.h"

#include <blis.h>

#ifdef MELU__DOUBLE
#define BLI_GEMM bli_dgemm_ex
#else
#define BLI_GEMM bli_sgemm_ex
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
  if (n < LARGE_SIDE || k < LARGE_SIDE || n < LARGE_AREA / k) return 0;
  bli_init(); /* to ask before would abort if the environment names a family; nothing after the first time */
  return bli_arch_query_id() != BLIS_ARCH_GENERIC;
}

void melu__blis_gemm(int trans_a, int trans_b, size_t m, size_t n, size_t k, real alpha, struct melu__cmat a,
                     struct melu__cmat b, int accumulate, struct melu__mat c) {
  /* An own runtime object rather than the process-wide one: the host may have told BLIS to use many threads, and its
   * kernels for small products would be chosen by the number of rows. */
  rntm_t rntm;
  bli_rntm_init(&rntm);
  bli_rntm_set_num_threads(1, &rntm);
  bli_rntm_disable_l3_sup(&rntm);
  real beta = accumulate ? 1 : 0;
  const inc_t lda = (inc_t)a.ld, ldb = (inc_t)b.ld;
  /* BLIS does not write to A and B, but does not say so either. */
  BLI_GEMM(trans_a ? BLIS_TRANSPOSE : BLIS_NO_TRANSPOSE, trans_b ? BLIS_TRANSPOSE : BLIS_NO_TRANSPOSE, (dim_t)m,
           (dim_t)n, (dim_t)k, &alpha, (real *)a.p, lda, 1, (real *)b.p, ldb, 1, &beta, c.p, (inc_t)c.ld, 1, NULL,
           &rntm);
}
