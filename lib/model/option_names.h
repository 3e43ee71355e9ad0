/* SPDX-License-Identifier: BSD-3-Clause */
/* What the values of options are called in a file, which is also which ones there are: those of an enum by their
 * numbers from 1 on, those of melu_model_options.adapt by their bits from 0 on. */
#ifndef MELU__OPTION_NAMES_H
#define MELU__OPTION_NAMES_H

static const char *const network_names[] = {"layers", "factors"};
static const char *const rule_names[] = {"steps", "closed_form"};
static const char *const adapt_names[] = {"head", "hidden", "user", "items"};
static const char *const rates_names[] = {"fixed", "per_tensor", "per_entry"};
static const char *const loss_names[] = {"squared", "absolute", "huber", "mixed", "logistic", "pairwise"};
#define MELU__N_NAMES(names) (int)(sizeof(names) / sizeof *(names))

#endif
