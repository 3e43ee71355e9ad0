/* SPDX-License-Identifier: BSD-3-Clause */
/* Says which model a file is, and of what. Usage: which_model MODEL */
#include <melu.h>
#include <stdio.h>

static void describe(const melu_schema *schema, melu_owner owner) {
  for (size_t i = 0; i < melu_schema_n_fields(schema, owner); i++) {
    struct melu_field field = {.size = sizeof field};
    if (!melu_schema_field(&field, schema, owner, i, NULL))
      printf("%s field %s, %zu values\n", owner == MELU_USER ? "user" : "item", field.name, field.n_values);
  }
}

int main(int argc, char **argv) {
  unsigned char digest[MELU_DIGEST_BYTES];
  melu_context *ctx = NULL;
  melu_model *model = NULL;
  melu_error err;
  melu_status status = argc == 2 ? melu_context_new(&ctx, NULL, &err) : MELU_EINVAL;
  if (argc != 2) snprintf(err.message, sizeof err.message, "usage: which_model MODEL");
  if (!status) status = melu_model_load(&model, ctx, argv[1], &err);
  if (!status) status = melu_model_digest(digest, model, &err);
  if (status) fprintf(stderr, "%s\n", err.message);
  for (int i = 0; !status && i < MELU_DIGEST_BYTES; i++) printf("%02x%s", digest[i], i == 15 ? "\n" : "");
  if (!status) describe(melu_model_schema(model), MELU_USER);
  if (!status) describe(melu_model_schema(model), MELU_ITEM);
  melu_model_free(model);
  melu_context_free(ctx);
  return status != MELU_OK;
}
