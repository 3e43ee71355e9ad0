/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef MELU__EVALUATE_H
#define MELU__EVALUATE_H

#include <melu.h>

/* Fills in what is not given, and checks it. max_support becomes a number: SIZE_MAX for all, 0 for none. */
melu_status melu__evaluate_options(struct melu_evaluate_options *o, const struct melu_evaluate_options *given,
                                   melu_error *err);

#endif
