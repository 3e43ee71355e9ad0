/* SPDX-License-Identifier: BSD-3-Clause */
#include "people.h"

#include <stdlib.h>

#include "args.h"
#include "bfi.h"
#include "states.h"

static melu_error err;

static void read_questionnaire(struct people *p, const char *dir) {
  size_t n;
  struct bfi_person *table = bfi_read(&n, dir);
  melu_schema *schema = bfi_new_schema(p->ctx);
  p->known = bfi_new_dataset(p->ctx, schema, dir, table, n, 0);
  p->strangers = bfi_new_dataset(p->ctx, melu_dataset_schema(p->known), dir, table, n, 1);
  p->rating_min = BFI_MIN;
  p->rating_max = BFI_MAX;
  melu_schema_free(schema);
  free(table);
}

static void read_movielens(struct people *p, const char *dir) {
  melu_schema *schema;
  must(melu_schema_new(&schema, p->ctx, &err), &err);
  must(melu_schema_add_melu_items(schema, dir, &err), &err);
  const struct source source = {.ctx = p->ctx, .schema = schema, .dir = dir};
  p->known = training_data(&source, TRAIN_COLD, 0);
  p->strangers = asked_data(&source, UC);
  p->rating_min = 1;
  p->rating_max = 5;
  melu_schema_free(schema);
}

void people_open(struct people *p, const struct people_choices *c) {
  *p = (struct people){0};
  const struct melu_context_options context = {
      .size = sizeof context, .n_threads = c->n_threads, .progress = show_progress};
  must(melu_context_new(&p->ctx, &context, &err), &err);
  if (c->movielens)
    read_movielens(p, c->movielens);
  else
    read_questionnaire(p, c->dir);
  const struct melu_model_options options = {.size = sizeof options,
                                             .preset = c->preset,
                                             .seed = c->seed,
                                             .rating_min = p->rating_min,
                                             .rating_max = p->rating_max};
  const struct melu_fit_options fit = {.size = sizeof fit, .n_epochs = c->n_epochs, .seed = c->seed};
  must(melu_model_new(&p->model, p->ctx, melu_dataset_schema(p->known), &options, &err), &err);
  must(melu_fit(p->model, p->known, &fit, &err), &err);
}

void people_close(struct people *p) {
  melu_model_free(p->model);
  melu_dataset_free(p->strangers);
  melu_dataset_free(p->known);
  melu_context_free(p->ctx);
}

int stranger_meet(struct stranger *s, const struct people *p, uint32_t user, size_t least, size_t most) {
  uint32_t order[STRANGER_MAX_RATINGS];
  const uint32_t *items;
  const float *ratings;
  s->n = melu_dataset_ratings(p->strangers, user, &items, &ratings);
  if (s->n < least || s->n > most || s->n > STRANGER_MAX_RATINGS) return 0;
  if (melu_schema_n_fields(melu_dataset_schema(p->strangers), MELU_USER) > STRANGER_MAX_FIELDS)
    give_up("more than %d fields of a user", STRANGER_MAX_FIELDS);
  must(melu_split_order(order, melu_dataset_user_id(p->strangers, user), 0, s->n, &err), &err);
  must(melu_dataset_user_values(s->profile, p->strangers, user, &err), &err);
  for (size_t i = 0; i < s->n; i++) {
    s->items[i] = items[order[i]];
    s->ratings[i] = ratings[order[i]];
  }
  return 1;
}
