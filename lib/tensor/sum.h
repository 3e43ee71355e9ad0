/* SPDX-License-Identifier: BSD-3-Clause */
/* The fused operation that plans are made of: a sum of products and matrices, finished on its way to memory. */
#ifndef MELU__SUM_H
#define MELU__SUM_H

#include "tensor/kernels.h"

/*     p   := sum_i scale_i op(A_i) B_i
 *     s   := by_scale by (p)  +  sum_j scale_j by_j (M_j)  +  row_scale 1 row  +  number_scale number
 *     raw := p, pre := s, where they are wanted
 *     out := act(s) + post_scale post       act(s): s; max(s, 0); 1 where s > 0; or s where mask > 0; 0 elsewhere
 *
 * All are (rows, cols). op(A) is (rows, k): element (i, p) at a.p[i * a.ld + p], or a.p[p * a.ld + i] if trans_a; a.p
 * NULL stands for ones. B is (k, cols). by multiplies row i by by[i], NULL: by 1. Pointers that are not used are NULL.
 * out may be the same matrix as a term, post or mask, and pre as a term, element for element; otherwise neither
 * overlaps anything.
 *
 * A product may be the diagonal of A B' instead, a column or a row, with A and B (rows, k) and b.p NULL for ones. What
 * other products there are beside it have no trans_a, no ones, and b.ld 1. Beside those that are a row there are none,
 * no row and no vectors.
 *
 * Where `sums` are wanted, sums[i] := sum_k scale_k (row i of A_k) (row i of B_k)': A_0 is p, and its pointer NULL.
 * Where they are, or raw is, there is one product, of scale 1, and nothing but terms. */
enum { MELU__SUM_TERMS = 3 };
struct melu__sum {
  size_t rows, cols;
  int symmetric; /* the caller knows that s is: one square product, nothing added but a number, no pre and no mask */
  size_t n_products, n_terms, n_pairs; /* up to 2, MELU__SUM_TERMS and 2 */
  struct {
    struct melu__cmat a, b;
    size_t k;
    int trans_a, diagonal;
    real scale;
  } product[2];
  struct {
    struct melu__cmat m;
    const real *by;
    int whole; /* by is a row itself, and multiplies M element by element: for one row, without products */
    real scale;
  } term[MELU__SUM_TERMS];
  struct {
    struct melu__cmat a, b;
    real scale;
  } pair[2];
  const real *by, *row, *number;
  real by_scale, row_scale, number_scale;
  int relu, step;
  struct melu__cmat mask, post;
  real post_scale;
  struct melu__mat out, pre, raw;
  real *sums;
};

/* The same, prepared once and run with other matrices of the same layout: all but their addresses is decided. */
enum melu__operand {
  MELU__A_0,
  MELU__B_0,
  MELU__A_1,
  MELU__B_1,
  MELU__TERM_0,
  MELU__TERM_1,
  MELU__TERM_2,
  MELU__BY, /* of the products */
  MELU__BY_0,
  MELU__BY_1,
  MELU__BY_2,
  MELU__ROW,
  MELU__NUMBER,
  MELU__MASK,
  MELU__POST,
  MELU__PAIR_A_0,
  MELU__PAIR_B_0,
  MELU__PAIR_A_1,
  MELU__PAIR_B_1,
  MELU__OUT,
  MELU__PRE,
  MELU__RAW,
  MELU__SUMS,
  MELU__N_OPERANDS
};

/* A product as the tiles take it: element (i, p) of A is at a[i * a_row + p * a_k]; the rows of B are contiguous. */
struct melu__factors {
  uint8_t a, b; /* which operands */
  uint8_t ones, diagonal;
  uint32_t a_row, a_k, ldb, k;
};

/* What the tiles work on:
 *
 *     p := scale (init + ratio A_0 B_0 + A_1 B_1),  sum := by_scale by (p) + the terms + ...
 *
 * and then what struct melu__sum says. As small as can be: a plan has a hundred of them, read once a run. */
struct melu__sum_job {
  uint32_t rows, cols;
  struct melu__factors product[2];
  struct {
    uint32_t ld;
    real scale;
    uint8_t operand, by, whole;
  } term[MELU__SUM_TERMS];
  struct {
    uint32_t lda, ldb; /* lda 0: p */
    real scale;
  } pair[2];
  uint32_t mask_ld, post_ld, out_ld, pre_ld, raw_ld; /* 0 where there is none */
  uint32_t n_tiles, n_larger;                        /* of tile_rows rows, and of one row more */
  real ratio, scale, by_scale, row_scale, number_scale, post_scale;
  uint8_t n_products, n_terms, n_pairs;
  uint8_t unit;                     /* whether the first term is added as it is */
  uint8_t full;                     /* whether there is more than products and a unit term */
  uint8_t more;                     /* whether the products are wanted for more than the sum */
  uint8_t goes_on;                  /* whether anything comes after the terms */
  uint8_t by, row, number, one_row; /* one_row: the row is one number */
  uint8_t relu, step;
  uint8_t tile_rows, by_rows;
  uint8_t wide, dots, flat, symmetric; /* which way to go: sum.inc */
  uint8_t init;                        /* whether products were computed aside, for this */
};

#endif
