/* SPDX-License-Identifier: BSD-3-Clause */
/* Every kernel set that this CPU can run, and random matrices to try them with, for tests of lib/tensor. */
#ifndef MELU_TESTS_KERNEL_SETS_H
#define MELU_TESTS_KERNEL_SETS_H

#include <check.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/kernels.h"

/* The widest tile, in whatever instructions the compiler is allowed: what AVX-512 computes, tested on every machine. */
extern const struct melu__kernels kernels_wide;

static const struct melu__kernels *sets[8];
static int n_sets;
static uint64_t random_state;

#define EACH_SET(k) for (int set_ = 0; set_ < n_sets && (k = sets[set_], 1); set_++)

/* Before each test. */
static inline void find_sets(void) {
  random_state = 20190804;
  n_sets = 0;
  for (int i = 0; melu__kernel_sets[i]; i++)
    if (melu__kernels_usable(melu__kernel_sets[i])) sets[n_sets++] = melu__kernel_sets[i];
  sets[n_sets++] = &kernels_wide;
}

static inline uint32_t random_below(uint32_t n) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)((random_state >> 33) % n);
}

static inline real random_real(void) {
  return (real)((int)random_below(2001) - 1000) / 1000;
}

/* Its gaps are full of this. */
#define GUARD ((real)-12345)

struct matrix {
  size_t rows, cols, ld;
  real *p;
};

static inline size_t length(struct matrix a) {
  return a.rows == 0 || a.cols == 0 ? 0 : (a.rows - 1) * a.ld + a.cols;
}

static inline void fill_matrix(struct matrix a) {
  for (size_t i = 0; i < length(a); i++) a.p[i] = i % a.ld < a.cols ? random_real() : GUARD;
}

static inline void check_guards(struct matrix a) {
  for (size_t i = 0; i < length(a); i++)
    if (i % a.ld >= a.cols && a.p[i] != GUARD) ck_abort_msg("the gap after row %zu was written", i / a.ld);
}

#endif
