/* SPDX-License-Identifier: BSD-3-Clause */
/* The fused operation that plans are made of: a sum of products and matrices, finished on its way to memory. */
#ifndef MELU__SUM_H
#define MELU__SUM_H

#include "tensor/kernels.h"

/*     s   := sum_i scale_i op(A_i) B_i  +  sum_j scale_j M_j  +  row_scale 1 row  +  number_scale number
 *     pre := s, where it is wanted
 *     out := act(s) + post_scale post       act(s): s; max(s, 0); or s where mask > 0, and 0 elsewhere
 *
 * All are (rows, cols). op(A) is (rows, k): element (i, p) at a.p[i * a.ld + p], or a.p[p * a.ld + i] if trans_a; a.p
 * NULL stands for ones. B is (k, cols). Pointers that are not used are NULL. out and pre may be the same matrix as a
 * term, post or mask, element for element; they do not overlap A, B, row or number. */
struct melu__sum {
  size_t rows, cols;
  size_t n_products, n_terms; /* up to 2 of each */
  struct {
    struct melu__cmat a, b;
    size_t k;
    int trans_a;
    real scale;
  } product[2];
  struct {
    struct melu__cmat m;
    real scale;
  } term[2];
  const real *row, *number;
  real row_scale, number_scale;
  int relu;
  struct melu__cmat mask, post;
  real post_scale;
  struct melu__mat out, pre;
};

#endif
