/* SPDX-License-Identifier: BSD-3-Clause */
/* What ranks tell each other in a training: parts of a gradient, to the rank that has the slot of the row or of the
 * dense number; a few numbers, to all; and what an update has made, to all again. */
#ifndef MELU__EXCHANGE_H
#define MELU__EXCHANGE_H

#include "base/mail.h"
#include "meta/outer.h"
#include "meta/draft.h"
#include "model/optimizer.h"
#include "model/undo.h"

struct melu__cursor; /* exchange_parts.h */
struct melu__sorted;
struct melu__term;
struct melu__asked;

struct melu__exchange {
  melu_model *model;
  struct melu__share share;
  struct melu__ranks *ranks;
  struct melu__mail mail;
  melu_gradient *own; /* the whole gradient of the table rows and the dense numbers of the share's slots */
  const melu_optimizer *optimizer;
  struct melu__undo *undo;
  struct melu__cursor *cursors; /* one per rank: how far its message got */

  /* With sharded tables: the batch whose gradient is exchanged, and the one that follows, whose rows are asked for then
   * and come with the weights; NULL if there is none. */
  const struct melu__draft *now;
  struct melu__draft *next;
  struct melu__asked *asked; /* (n_ranks, n_tables) */

  /* Of one exchange of gradients. */
  const melu_gradient *part; /* this rank's, NULL if it has failed */
  size_t n_tasks;
  void (*meanwhile)(void *arg);
  void *meanwhile_arg;
  struct melu__sorted *sorted; /* per table: the part's rows by the rank that they go to */
  struct melu__term *terms;    /* of the dense sums: the branches of all ranks, ascending */
  size_t n_terms;
  real *term_values;              /* (n_terms, dense numbers of the share) */
  size_t *term_list;              /* those that have come, */
  struct melu__slots *term_nodes; /* and their nodes */
  size_t n_come;
  real *largest; /* per table, and per chunk of the dense numbers */

  /* Of numbers: what each rank says, one after another. */
  double *words;
  size_t *word_counts;
};

/* Returns with the exchange to be freed in any case. Errors: MELU_ENOMEM. */
melu_status melu__exchange_init(struct melu__exchange *x, struct melu__ranks *ranks, melu_model *model,
                                const melu_optimizer *optimizer, struct melu__undo *undo, melu_error *err);
void melu__exchange_free(struct melu__exchange *x);

/* Collective. Sums up the gradient of all ranks' parts, of n_tasks tasks in all, into x->own. `meanwhile` is called
 * while messages are under way. A rank that has failed brings nothing, and may bring no gradient at all. */
melu_status melu__exchange_gradient(struct melu__exchange *x, const melu_gradient *part, size_t n_tasks,
                                    void (*meanwhile)(void *arg), void *arg, melu_error *err);

/* What all ranks are to know of all. */
struct melu__numbers {
  double largest; /* of its slots' gradient; of the whole gradient */
  double n_query; /* a count; its sum over all ranks */
  /* (n_slots): of its slots; of all. */
  double *losses, *squares;
  size_t *n_rows; /* by table: how many it updates; how many are updated */
};

/* Returns 0 if there is no memory; the numbers, all zeros, are then to be freed all the same. */
int melu__numbers_init(struct melu__numbers *numbers, const melu_model *model);
void melu__numbers_free(struct melu__numbers *numbers, const melu_model *model);
void melu__numbers_clear(struct melu__numbers *numbers, const melu_model *model);

/* Collective; each rank's failure becomes that of all. */
melu_status melu__exchange_numbers(struct melu__exchange *x, struct melu__numbers *numbers, melu_error *err);

/* Collective. Brings all weights that were updated elsewhere, and keeps what they were in x->undo. */
melu_status melu__exchange_weights(struct melu__exchange *x, melu_error *err);

/* Collective. Brings the rows of x->next alone. */
melu_status melu__exchange_rows(struct melu__exchange *x, melu_error *err);

#endif
