/* SPDX-License-Identifier: BSD-3-Clause */
#include "states.h"

#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "mix.h"

const char *const state_names[N_STATES] = {"W",  "UC",   "IC",    "UIC",    "IC+H",   "UIC+H",
                                           "V1", "V2IC", "V2UIC", "V2IC+H", "V2UIC+H"};
const enum training state_training[N_STATES] = {TRAIN_WARM, TRAIN_COLD, TRAIN_COLD, TRAIN_COLD, TRAIN_COLD, TRAIN_COLD,
                                                TRAIN_V1,   TRAIN_V2,   TRAIN_V2,   TRAIN_V2,   TRAIN_V2};

static const char *const asked_files[N_STATES] = {[W] = "warm_state",        [UC] = "user_cold_state",
                                                  [IC] = "item_cold_state",  [UIC] = "user_and_item_cold_state",
                                                  [ICH] = "item_cold_state", [UICH] = "user_and_item_cold_state"};
static const char *const history_files[N_STATES] = {[ICH] = "warm_state", [UICH] = "user_cold_state"};

static melu_error err;

static melu_dataset *read_file(const struct source *source, const char *state) {
  melu_dataset *data;
  must(melu_dataset_new(&data, source->ctx, source->schema, &err), &err);
  must(melu_dataset_read_melu(data, source->dir, state, &err), &err);
  must(melu_dataset_freeze(data, &err), &err);
  return data;
}

/* -------------------------------------------------------------------------------------------- parts of data */

/* Which ratings a part of a data set has: the k-th of user u, of this item. */
struct part {
  const melu_dataset *data;
  int (*has)(struct part *part, uint32_t user, size_t k, uint32_t item);
  uint64_t split;
  int capped;
  int asked[MAX_RATINGS]; /* of the user who was looked at last */
  uint32_t asked_user;
};

enum { MOST_FIELDS = 16 };

/* Whether a comma-separated list has a name. */
static int is_listed(const char *list, const char *name) {
  const size_t length = strlen(name);
  for (const char *at = list; at && *at;) {
    const size_t n = strcspn(at, ",");
    if (n == length && strncmp(at, name, n) == 0) return 1;
    at += n + (at[n] == ',');
  }
  return 0;
}

/* Copies values without those of fields that are left out. */
static void keep_values(struct melu_value *values, const melu_schema *schema, melu_owner owner, const char *without) {
  size_t n = 0;
  for (size_t i = 0; i < melu_schema_n_fields(schema, owner); i++) {
    struct melu_field field = {.size = sizeof field};
    must(melu_schema_field(&field, schema, owner, i, &err), &err);
    if (!is_listed(without, field.name)) values[n++] = values[i];
  }
}

/* The same fields but some. Ids keep their numbers; texts are of no use any more. */
static melu_schema *schema_without(const melu_context *ctx, const melu_schema *schema, const char *without) {
  static const melu_owner owners[] = {MELU_ITEM, MELU_USER};
  melu_schema *rest;
  must(melu_schema_new(&rest, ctx, &err), &err);
  for (size_t o = 0; o < 2; o++) {
    for (size_t i = 0; i < melu_schema_n_fields(schema, owners[o]); i++) {
      struct melu_field field = {.size = sizeof field};
      must(melu_schema_field(&field, schema, owners[o], i, &err), &err);
      if (!is_listed(without, field.name)) must(melu_schema_add(rest, &field, &err), &err);
    }
  }
  return rest;
}

/* The items and users of a set with their values, under their old ids and in the same order. */
static void copy_entities(melu_dataset *copy, const melu_dataset *data, const char *without) {
  const melu_schema *schema = melu_dataset_schema(data);
  struct melu_value values[MOST_FIELDS];
  for (uint32_t i = 0; i < melu_dataset_n_items(data); i++) {
    must(melu_dataset_item_values(values, data, i, &err), &err);
    keep_values(values, schema, MELU_ITEM, without);
    must(melu_dataset_add_item(copy, melu_dataset_item_id(data, i), values, NULL, &err), &err);
  }
  for (uint32_t u = 0; u < melu_dataset_n_users(data); u++) {
    must(melu_dataset_user_values(values, data, u, &err), &err);
    keep_values(values, schema, MELU_USER, without);
    must(melu_dataset_add_user(copy, melu_dataset_user_id(data, u), values, NULL, &err), &err);
  }
}

static int has_all(struct part *part, uint32_t user, size_t k, uint32_t item) {
  (void)part, (void)user, (void)k, (void)item;
  return 1;
}

/* Returns a new data set with the same users and items and that part of the ratings. */
static melu_dataset *take_part(const struct source *source, struct part *part) {
  const melu_dataset *data = part->data;
  melu_schema *schema = schema_without(source->ctx, melu_dataset_schema(data), source->without);
  melu_dataset *rest;
  must(melu_dataset_new(&rest, source->ctx, source->without ? schema : melu_dataset_schema(data), &err), &err);
  melu_schema_free(schema);
  copy_entities(rest, data, source->without);
  part->asked_user = UINT32_MAX;
  for (uint32_t u = 0; u < melu_dataset_n_users(data); u++) {
    const uint32_t *items;
    const float *ratings;
    const size_t n = melu_dataset_ratings(data, u, &items, &ratings);
    for (size_t k = 0; k < n; k++) {
      if (!part->has(part, u, k, items[k])) continue;
      const float rating = source->clicks ? ratings[k] >= 4 : ratings[k];
      must(melu_dataset_add_rating(rest, melu_dataset_user_id(data, u), melu_dataset_item_id(data, items[k]), rating,
                                   &err),
           &err);
    }
  }
  must(melu_dataset_freeze(rest, &err), &err);
  return rest;
}

/* Without the ratings that the split asks for. In variant A the users who are outside 13 to 100 ratings, queries
 * included, have none. */
static int is_not_asked(struct part *part, uint32_t user, size_t k, uint32_t item) {
  const size_t n = melu_dataset_ratings(part->data, user, NULL, NULL);
  (void)item;
  if (n < MIN_RATINGS || n > MAX_RATINGS) return !part->capped;
  if (part->asked_user != user) {
    uint32_t order[MAX_RATINGS];
    memset(part->asked, 0, sizeof part->asked);
    must(melu_split_order(order, melu_dataset_user_id(part->data, user), part->split, n, &err), &err);
    for (size_t i = n - N_QUERY; i < n; i++) part->asked[order[i]] = 1;
    part->asked_user = user;
  }
  return !part->asked[k];
}

static int is_within(struct part *part, uint32_t user, size_t k, uint32_t item) {
  const size_t n = melu_dataset_ratings(part->data, user, NULL, NULL);
  (void)k, (void)item;
  return !part->capped || (n >= MIN_RATINGS && n <= MAX_RATINGS);
}

static int acts_new(const struct part *part, uint32_t user) {
  return mix64(melu_dataset_user_id(part->data, user) ^ (uint64_t)0x5641 << 48) % 5 == 0;
}

static int is_recent(const struct part *part, uint32_t item) {
  const melu_schema *schema = melu_dataset_schema(part->data);
  struct melu_value values[MOST_FIELDS];
  struct melu_field field = {.size = sizeof field};
  must(melu_dataset_item_values(values, part->data, item, &err), &err);
  for (size_t i = 0; i < melu_schema_n_fields(schema, MELU_ITEM); i++) {
    must(melu_schema_field(&field, schema, MELU_ITEM, i, &err), &err);
    if (strcmp(field.name, "year") == 0) return values[i].n_numbers && values[i].numbers[0] >= 1996;
  }
  give_up("V2 needs the films' years, which the schema of this preset has not");
}

static int is_new_user(struct part *part, uint32_t user, size_t k, uint32_t item) {
  (void)k, (void)item;
  return acts_new(part, user);
}

static int is_old_user(struct part *part, uint32_t user, size_t k, uint32_t item) {
  return !is_new_user(part, user, k, item);
}

static int is_old_of_old(struct part *part, uint32_t user, size_t k, uint32_t item) {
  (void)k;
  return !acts_new(part, user) && !is_recent(part, item);
}

static int is_new_of_old(struct part *part, uint32_t user, size_t k, uint32_t item) {
  (void)k;
  return !acts_new(part, user) && is_recent(part, item);
}

static int is_new_of_new(struct part *part, uint32_t user, size_t k, uint32_t item) {
  (void)k;
  return acts_new(part, user) && is_recent(part, item);
}

static int is_old_of_new(struct part *part, uint32_t user, size_t k, uint32_t item) {
  (void)k;
  return acts_new(part, user) && !is_recent(part, item);
}

typedef int has_fn(struct part *part, uint32_t user, size_t k, uint32_t item);

static melu_dataset *read_part(const struct source *source, const char *file, has_fn *has, uint64_t split) {
  melu_dataset *all = read_file(source, file);
  struct part part = {.data = all, .has = has, .split = split, .capped = source->capped};
  melu_dataset *data = take_part(source, &part);
  melu_dataset_free(all);
  return data;
}

/* ------------------------------------------------------------------------------------------------- states */

melu_dataset *training_data(const struct source *source, enum training training, uint64_t split) {
  static has_fn *const parts[N_TRAININGS] = {is_not_asked, is_within, is_old_user, is_old_of_old};
  return read_part(source, "warm_state", parts[training], split);
}

melu_dataset *asked_data(const struct source *source, enum state state) {
  static has_fn *const parts[N_STATES] = {[V1] = is_new_user,
                                          [V2IC] = is_new_of_old,
                                          [V2UIC] = is_new_of_new,
                                          [V2ICH] = is_new_of_old,
                                          [V2UICH] = is_new_of_new};
  if (parts[state]) return read_part(source, "warm_state", parts[state], 0);
  return read_part(source, asked_files[state], has_all, 0);
}

melu_dataset *history_data(const struct source *source, enum state state) {
  if (history_files[state]) return read_part(source, history_files[state], has_all, 0);
  if (state == V2ICH) return read_part(source, "warm_state", is_old_of_old, 0);
  if (state == V2UICH) return read_part(source, "warm_state", is_old_of_new, 0);
  return NULL;
}
