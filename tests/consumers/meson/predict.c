/* SPDX-License-Identifier: BSD-3-Clause */
/* Everything in memory: items of three kinds, people who like one kind each, a stranger who likes item 0. */
#include <math.h>
#include <melu.h>
#include <stdio.h>

enum { N_ITEMS = 30, N_USERS = 60, N_KINDS = 3 };

static melu_error err;

static melu_status fill(melu_dataset *data) {
  melu_status status = MELU_OK;
  for (uint32_t i = 0; i < N_ITEMS && !status; i++) {
    const uint32_t kind = i % N_KINDS;
    const struct melu_value values[] = {{.ids = &kind, .n_ids = 1}};
    status = melu_dataset_add_item(data, 100 + i, values, NULL, &err);
  }
  for (uint32_t u = 0; u < N_USERS && !status; u++) {
    status = melu_dataset_add_user(data, u, NULL, NULL, &err);
    for (uint32_t i = 0; i < N_ITEMS && !status; i += 1 + u % 2)
      status = melu_dataset_add_rating(data, u, 100 + i, i % N_KINDS == u % N_KINDS ? 5 : 2, &err);
  }
  return status ? status : melu_dataset_freeze(data, &err);
}

static melu_status predict(const melu_model *model, const melu_dataset *data) {
  const uint32_t liked[] = {0}, asked[] = {3, 4};
  const float rating[] = {5};
  float scores[2], variances[2];
  melu_workspace *scratch = NULL;
  melu_user *stranger = NULL;
  melu_status status = melu_workspace_new(&scratch, model, 20, &err);
  if (!status) status = melu_user_new(&stranger, model, &err);
  if (!status) status = melu_adapt(stranger, scratch, model, data, NULL, liked, rating, 1, &err);
  if (!status) status = melu_predict(scores, scratch, model, stranger, data, asked, 2, &err);
  if (!status) status = melu_predict_variance(variances, scratch, model, stranger, data, asked, 2, &err);
  for (int i = 0; i < 2 && !status; i++)
    printf("item %u: %.2f, in 80 of 100 cases within %.2f\n", (unsigned)(100 + asked[i]), (double)scores[i],
           1.2816 * sqrt((double)variances[i]));
  melu_user_free(stranger);
  melu_workspace_free(scratch);
  return status;
}

int main(void) {
  const struct melu_field kind = {
      .size = sizeof kind, .name = "kind", .owner = MELU_ITEM, .kind = MELU_ONE, .n_values = N_KINDS};
  const struct melu_model_options best = {.size = sizeof best, .preset = "best"};
  melu_context *ctx = NULL;
  melu_schema *schema = NULL;
  melu_dataset *data = NULL;
  melu_model *model = NULL;
  melu_status status = melu_context_new(&ctx, NULL, &err);
  if (!status) status = melu_schema_new(&schema, ctx, &err);
  if (!status) status = melu_schema_add(schema, &kind, &err);
  if (!status) status = melu_dataset_new(&data, ctx, schema, &err);
  if (!status) status = fill(data);
  if (!status) status = melu_model_new(&model, ctx, melu_dataset_schema(data), &best, &err);
  if (!status) status = melu_fit(model, data, NULL, &err);
  if (!status) status = predict(model, data);
  if (status) fprintf(stderr, "%s\n", err.message);
  melu_model_free(model);
  melu_dataset_free(data);
  melu_schema_free(schema);
  melu_context_free(ctx);
  return status != MELU_OK;
}
