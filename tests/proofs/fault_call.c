/* SPDX-License-Identifier: BSD-3-Clause */
#include "fault_call.h"

#include <stdlib.h>
#include <string.h>

#include "proof.h"

void fault_call_begin(struct fault_call *c, const char *name) {
  memset(c, 0, sizeof *c);
  c->name = name;
}

void fault_call_end(struct fault_call *c) {
  for (size_t i = 0; i < c->n_written; i++) free(c->written[i].before);
  c->n_written = 0;
}

/* -------------------------------------------------------------------------------------------------- digests */

static uint64_t of_schema(const melu_schema *schema) {
  uint64_t digest = 0;
  for (int owner = MELU_USER; owner <= MELU_ITEM; owner++) {
    const size_t n = melu_schema_n_fields(schema, (melu_owner)owner);
    digest = proof_digest(digest, &n, sizeof n);
  }
  return digest;
}

static uint64_t of_dataset(const melu_dataset *data) {
  const size_t n[] = {melu_dataset_n_users(data), melu_dataset_n_items(data), melu_dataset_n_ratings(data)};
  return proof_digest(of_schema(melu_dataset_schema(data)), n, sizeof n);
}

static uint64_t of_model(const melu_model *model) {
  uint64_t digest = 1;
  for (size_t i = 0; i < melu_model_n_params(model); i++) {
    struct melu_param p;
    if (melu_model_param(&p, model, i, NULL)) return 0;
    float *values = malloc(p.rows * p.cols * sizeof *values);
    PROOF_NEEDS(values && melu_model_read(values, model, p.name, 0, p.rows, NULL) == MELU_OK, "cannot read %s", p.name);
    digest = proof_digest(digest, values, p.rows * p.cols * sizeof *values);
    free(values);
  }
  return digest;
}

static uint64_t of_user(const melu_user *user) {
  const uint64_t *items;
  const float *ratings;
  const size_t n = melu_user_ratings(user, &items, &ratings);
  uint64_t digest = proof_digest(0, &n, sizeof n);
  if (n) digest = proof_digest(digest, items, n * sizeof *items);
  if (n) digest = proof_digest(digest, ratings, n * sizeof *ratings);
  return digest;
}

static uint64_t of_catalog(const melu_catalog *catalog) {
  const size_t n = melu_catalog_n_items(catalog);
  return n ? proof_digest(n, melu_catalog_items(catalog), n * sizeof(uint32_t)) : 0;
}

static uint64_t digest_of(enum faults_kind kind, const void *object) {
  size_t n;
  switch (kind) {
    case FAULTS_SCHEMA:
      return of_schema(object);
    case FAULTS_DATASET:
      return of_dataset(object);
    case FAULTS_MODEL:
      return of_model(object);
    case FAULTS_USER:
      return of_user(object);
    case FAULTS_CATALOG:
      return of_catalog(object);
    case FAULTS_BATCH:
      break;
  }
  n = melu_batch_n_tasks(object);
  return proof_digest(0, &n, sizeof n);
}

/* Of what the user is predicted for some items, or why she is not. */
static uint64_t of_service(const struct fault_served *s) {
  enum { MOST = 5 };
  uint32_t items[MOST];
  float scores[MOST] = {0};
  const size_t n_items = melu_dataset_n_items(s->data), n = n_items < MOST ? n_items : MOST;
  for (uint32_t i = 0; i < MOST; i++) items[i] = i;
  const melu_status status = melu_predict(scores, s->ws, s->model, s->user, s->data, items, n, NULL);
  return proof_digest(proof_digest(0, &status, sizeof status), scores, sizeof scores);
}

/* ---------------------------------------------------------------------------------------------- what is noted */

void fault_call_written(struct fault_call *c, void *at, size_t n_bytes) {
  PROOF_NEEDS(c->n_written < FAULT_CALL_MOST, "%s writes too much", c->name);
  c->written[c->n_written++] = (struct fault_written){at, proof_copy(at, n_bytes).at, n_bytes};
}

void fault_call_changed(struct fault_call *c, enum faults_kind kind, const void *object) {
  PROOF_NEEDS(c->n_changed < FAULT_CALL_MOST, "%s changes too much", c->name);
  c->changed[c->n_changed++] = (struct fault_changed){kind, object, digest_of(kind, object)};
}

void fault_call_served(struct fault_call *c, const struct fault_served *served) {
  c->served = *served;
  c->served.before = of_service(served);
}

void fault_call_update(struct fault_call *c) {
  for (size_t i = 0; i < c->n_changed; i++)
    if (c->changed[i].kind == FAULTS_MODEL) c->updated = of_model(c->changed[i].object);
}

const char *fault_call_harm(const struct fault_call *c, int *is_cut) {
  *is_cut = 0;
  void *object = NULL;
  if (c->object) memcpy(&object, c->object, sizeof object);
  if (object) return "what was to be a new object is not NULL";
  for (size_t i = 0; i < c->n_written; i++)
    if (memcmp(c->written[i].at, c->written[i].before, c->written[i].n_bytes)) return "an output was written to";
  for (size_t i = 0; i < c->n_changed; i++) {
    const uint64_t now = digest_of(c->changed[i].kind, c->changed[i].object);
    if (now == c->changed[i].before || c->resumes) continue;
    if (!c->updated || now != c->updated) return "an object is not as it was";
    *is_cut = 1;
  }
  if (c->served.ws && of_service(&c->served) != c->served.before) return "the user is not as she was";
  return NULL;
}
