/* SPDX-License-Identifier: BSD-3-Clause */
/* Whether all ranks are about to do the same. All are collective, and end with the same status everywhere. */
#ifndef MELU__COMPARE_H
#define MELU__COMPARE_H

#include "meta/fit.h"

/* Before anything else is told. Errors: MELU_EVERSION. */
melu_status melu__compare_versions(struct melu__ranks *ranks, melu_error *err);

/* Slots, schema, options and weights; other kernels are told to the log. Errors: MELU_ESCHEMA, MELU_EINVAL,
 * MELU_ENOMEM. */
melu_status melu__compare_trainings(struct melu__fit *f, melu_error *err);

/* The items that are rated on several ranks. Errors: MELU_EINVAL, MELU_ENOMEM, the source's. */
melu_status melu__compare_items(struct melu__fit *f, melu_error *err);

#endif
