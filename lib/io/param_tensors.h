/* SPDX-License-Identifier: BSD-3-Clause */
/* A model's parameters as tensors of a file. */
#ifndef MELU__PARAM_TENSORS_H
#define MELU__PARAM_TENSORS_H

#include "io/safetensors.h"
#include "model/model.h"

/* A bias, (1, n) in the model, has one dimension in the file, as in PyTorch; so have the rates of a bias, and the one
 * rate of a whole tensor. */
struct melu__tensor melu__param_tensor(const struct melu__param *p, melu_rates rates);

/* Demands that the file has these tensors and no other. Of a file that was opened the numbers are not looked at.
 * Errors: MELU_EFORMAT, MELU_ERANGE. */
melu_status melu__check_param_tensors(const struct melu__safetensors *file, const struct melu__param *params, size_t n,
                                      melu_rates rates, melu_error *err);

/* Takes numbers [first, first + n) of an array of `cols` columns whose rows are those of the slots `from`, in the order
 * of all rows, as a file has them: those whose rows the share has go to where they are stored, in `to` of as many
 * columns at `to_share`'s row numbers, or at those of all rows if it is NULL. */
void melu__take_rows(void *to, const struct melu__share *to_share, const struct melu__share *from,
                     const struct melu__stored *tensor, size_t cols, size_t first, const unsigned char *bytes,
                     size_t n);

#endif
