/* SPDX-License-Identifier: BSD-3-Clause */
/* What objects are to the host, as one number: what a call that fails must not change. */
#include <string.h>

#include "api.h"

static uint64_t digest_schema(const melu_schema *schema) {
  uint64_t digest = 0;
  for (int owner = 0; owner < 2; owner++)
    for (size_t i = 0; i < melu_schema_n_fields(schema, (melu_owner)owner); i++) {
      struct melu_field f = {.size = sizeof f};
      FUZZ_NEEDS(!melu_schema_field(&f, schema, (melu_owner)owner, i, NULL), "no field %zu", i);
      digest = proof_digest(digest, f.name, strlen(f.name));
      digest = proof_digest(digest, &f.owner, sizeof f - offsetof(struct melu_field, owner));
    }
  return digest;
}

static uint64_t digest_values(uint64_t digest, const melu_dataset *data, melu_owner owner, uint32_t n) {
  struct melu_value values[256];
  const size_t n_fields = melu_schema_n_fields(melu_dataset_schema(data), owner);
  for (uint32_t i = 0; i < n; i++) {
    const uint64_t id = owner == MELU_USER ? melu_dataset_user_id(data, i) : melu_dataset_item_id(data, i);
    digest = proof_digest(digest, &id, sizeof id);
    FUZZ_NEEDS(!(owner == MELU_USER ? melu_dataset_user_values : melu_dataset_item_values)(values, data, i, NULL),
               "no values of %u", (unsigned)i);
    for (size_t f = 0; f < n_fields; f++) {
      if (values[f].n_ids) digest = proof_digest(digest, values[f].ids, 4 * values[f].n_ids);
      if (values[f].n_numbers) digest = proof_digest(digest, values[f].numbers, 4 * values[f].n_numbers);
    }
  }
  return digest;
}

static uint64_t digest_data(const melu_dataset *data) {
  const size_t n_ratings = melu_dataset_n_ratings(data);
  const uint32_t n_users = (uint32_t)melu_dataset_n_users(data);
  uint64_t digest = proof_digest(digest_schema(melu_dataset_schema(data)), &n_ratings, sizeof n_ratings);
  digest = digest_values(digest, data, MELU_USER, n_users);
  digest = digest_values(digest, data, MELU_ITEM, (uint32_t)melu_dataset_n_items(data));
  for (uint32_t u = 0; u < n_users; u++) {
    const uint32_t *items;
    const float *ratings;
    const size_t n = melu_dataset_ratings(data, u, &items, &ratings);
    if (!n) continue;
    digest = proof_digest(digest, items, n * sizeof *items);
    digest = proof_digest(digest, ratings, n * sizeof *ratings);
  }
  return digest;
}

/* What she told and, with a workspace and unless the model has moved on, what came of it. */
static uint64_t digest_user(const struct api *a, size_t slot) {
  const melu_user *user = a->slots[API_USER][slot].object;
  const uint64_t *items;
  const float *ratings;
  const size_t n_ratings = melu_user_ratings(user, &items, &ratings);
  uint64_t digest = proof_digest(0, &n_ratings, sizeof n_ratings);
  if (n_ratings) digest = proof_digest(digest, items, n_ratings * sizeof *items);
  if (n_ratings) digest = proof_digest(digest, ratings, n_ratings * sizeof *ratings);
  for (size_t i = 0; i < API_SLOTS; i++) {
    melu_workspace *ws = a->slots[API_WORKSPACE][i].object;
    size_t n = 0;
    if (!ws || a->slots[API_WORKSPACE][i].owner != a->slots[API_USER][slot].owner) continue;
    if (melu_user_save(NULL, &n, ws, user, MELU_USER_READY, NULL)) return digest;
    const struct proof_bytes b = proof_user_bytes(ws, user, MELU_USER_READY);
    digest = proof_digest(digest, b.at, b.n);
    free(b.at);
    return digest;
  }
  return digest;
}

uint64_t api_digest(const struct api *a, enum api_kind kind, size_t slot) {
  const void *object = a->slots[kind][slot].object;
  unsigned char of_model[MELU_DIGEST_BYTES];
  size_t n;
  if (!object) return 0;
  switch (kind) {
    case API_SCHEMA:
      return digest_schema(object);
    case API_DATA:
      return digest_data(object);
    case API_BATCH:
      return melu_batch_n_tasks(object);
    case API_MODEL:
      FUZZ_NEEDS(!melu_model_digest(of_model, object, NULL), "a model without a digest");
      return proof_digest(0, of_model, sizeof of_model);
    case API_USER:
      return digest_user(a, slot);
    case API_CATALOG:
      n = melu_catalog_n_items(object);
      return proof_digest(n, melu_catalog_items(object), n * sizeof(uint32_t));
    default:
      return 0;
  }
}
