/* SPDX-License-Identifier: BSD-3-Clause */
/* What owners and options are called in a file: for the two that write and read them. */
#ifndef MELU__MODEL_NAMES_H
#define MELU__MODEL_NAMES_H

static const char *const owner_names[] = {"user", "item"};

/* Of options: those of an enum by their numbers from 1 on, those of melu_model_options.adapt by their bits from 0 on.
 */
static const char *const network_names[] = {"layers", "factors"};
static const char *const rule_names[] = {"steps", "closed_form"};
static const char *const adapt_names[] = {"head", "hidden", "user", "items"};
static const char *const rates_names[] = {"fixed", "per_tensor", "per_entry"};
static const char *const loss_names[] = {"squared", "absolute", "huber", "mixed", "logistic", "pairwise"};
#define MELU__N_NAMES(names) (int)(sizeof(names) / sizeof *(names))

#endif
