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
 * NULL stands for ones. B is (k, cols). Pointers that are not used are NULL. out may be the same matrix as a term, post
 * or mask, and pre as a term, element for element; otherwise neither overlaps anything. */
struct melu__sum {
  size_t rows, cols;
  int symmetric; /* the caller knows that s is: one square product, nothing added but a number, no pre and no mask */
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

/* The same, prepared once and run with other matrices of the same layout: all but their addresses is decided. */
enum melu__operand {
  MELU__A_0,
  MELU__B_0,
  MELU__A_1,
  MELU__B_1,
  MELU__TERM_0,
  MELU__TERM_1,
  MELU__ROW,
  MELU__NUMBER,
  MELU__MASK,
  MELU__POST,
  MELU__OUT,
  MELU__PRE,
  MELU__N_OPERANDS
};

/* A product as the tiles take it: element (i, p) of A is at a[i * a_row + p * a_k]; the rows of B are contiguous. */
struct melu__factors {
  uint8_t a, b; /* which operands */
  uint8_t ones;
  uint32_t a_row, a_k, ldb, k;
};

/* What the tiles work on:
 *
 *     sum := scale (init + ratio A_0 B_0 + A_1 B_1) + the terms + ...
 *
 * and then what struct melu__sum says. As small as can be: a plan has a hundred of them, read once a run. */
struct melu__sum_job {
  uint32_t rows, cols;
  struct melu__factors product[2];
  struct {
    uint32_t operand, ld;
    real scale;
  } term[2];
  uint32_t mask_ld, post_ld, out_ld, pre_ld; /* 0 where there is none */
  real ratio, scale, row_scale, number_scale, post_scale;
  uint8_t n_products, n_terms;
  uint8_t unit;                        /* whether the scale of the first term is 1 */
  uint8_t full;                        /* whether there is more than products and a unit term */
  uint8_t row, number, one_row, relu;  /* one_row: the row is one number */
  uint8_t wide, dots, flat, symmetric; /* which way to go: sum.inc */
  uint8_t init;                        /* whether products were computed aside, for this */
};

#endif
