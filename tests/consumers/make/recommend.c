/* SPDX-License-Identifier: BSD-3-Clause */
/* The best items for a stranger who has told us of two. Usage: recommend MODEL ITEMS.csv */
#include <melu.h>
#include <stdio.h>
#include <stdlib.h>

static melu_error err;

static void check(melu_status status) {
  if (!status) return;
  fprintf(stderr, "%s: %s\n", melu_status_name(status), err.message);
  exit(1);
}

int main(int argc, char **argv) {
  const uint32_t told[] = {0, 3};
  const float ratings[] = {5, 1};
  const struct melu_top_options others = {.size = sizeof others, .exclude = told, .n_exclude = 2};
  melu_context *ctx;
  melu_model *model;
  melu_dataset *items;
  melu_catalog *catalog;
  melu_workspace *scratch;
  melu_user *stranger;
  uint32_t best[3];
  float scores[3];
  size_t n = 3;
  if (argc != 3) return fprintf(stderr, "usage: recommend MODEL ITEMS.csv\n"), 2;

  check(melu_context_new(&ctx, NULL, &err));
  check(melu_model_load(&model, ctx, argv[1], &err));
  check(melu_dataset_new(&items, ctx, melu_model_schema(model), &err));
  check(melu_dataset_read_items(items, argv[2], NULL, &err));
  check(melu_dataset_freeze(items, &err));
  check(melu_catalog_new(&catalog, model, items, NULL, 0, &err));
  check(melu_workspace_new(&scratch, model, 20, &err));
  check(melu_user_new(&stranger, model, &err));
  check(melu_adapt(stranger, scratch, model, items, NULL, told, ratings, 2, &err));
  check(melu_catalog_top(best, scores, &n, scratch, catalog, stranger, &others, &err));
  for (size_t i = 0; i < n; i++) printf("item %u: %.2f\n", (unsigned)best[i], (double)scores[i]);

  melu_user_free(stranger);
  melu_workspace_free(scratch);
  melu_catalog_free(catalog);
  melu_dataset_free(items);
  melu_model_free(model);
  melu_context_free(ctx);
  return 0;
}
