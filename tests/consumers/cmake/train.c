/* SPDX-License-Identifier: BSD-3-Clause */
/* Trains a model on three tables and saves it. Usage: train USERS.csv ITEMS.csv RATINGS.csv MODEL
 * The fields are those of tests/golden; name your own. */
#include <melu.h>
#include <stdio.h>

#define TRY(call) \
  if ((call) != MELU_OK) return fprintf(stderr, "%s\n", err.message), 1

#define FIELD(whose, what, is) \
  { .size = sizeof(struct melu_field), .name = what, .owner = whose, .kind = is }

static int show(void *arg, const struct melu_progress *at) {
  (void)arg;
  fprintf(stderr, "\r%s %3.0f %%", at->phase, at->total ? 100.0 * (double)at->done / (double)at->total : 0);
  return 0;
}

int main(int argc, char **argv) {
  static const struct melu_field fields[] = {FIELD(MELU_ITEM, "name", MELU_ONE), FIELD(MELU_ITEM, "genre", MELU_MANY),
                                             FIELD(MELU_ITEM, "price", MELU_NUMERIC), FIELD(MELU_USER, "age", MELU_ONE),
                                             FIELD(MELU_USER, "visits", MELU_NUMERIC)};
  const struct melu_context_options how = {.size = sizeof how, .n_threads = 2, .progress = show};
  const struct melu_model_options best = {.size = sizeof best, .preset = "best"};
  melu_error err;
  melu_context *ctx;
  melu_schema *schema;
  melu_dataset *data;
  melu_model *model;
  if (argc != 5) return fprintf(stderr, "usage: train USERS.csv ITEMS.csv RATINGS.csv MODEL\n"), 2;

  TRY(melu_context_new(&ctx, &how, &err));
  TRY(melu_schema_new(&schema, ctx, &err));
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) TRY(melu_schema_add(schema, &fields[i], &err));
  TRY(melu_dataset_new(&data, ctx, schema, &err));
  TRY(melu_dataset_read_users(data, argv[1], NULL, &err));
  TRY(melu_dataset_read_items(data, argv[2], NULL, &err));
  TRY(melu_dataset_read_ratings(data, argv[3], NULL, &err));
  TRY(melu_dataset_freeze(data, &err));
  TRY(melu_model_new(&model, ctx, melu_dataset_schema(data), &best, &err));
  TRY(melu_fit(model, data, NULL, &err));
  TRY(melu_model_save(model, argv[4], &err));
  printf("%s: a model of %zu ratings\n", argv[4], melu_dataset_n_ratings(data));

  melu_model_free(model);
  melu_dataset_free(data);
  melu_schema_free(schema);
  melu_context_free(ctx);
  return 0;
}
