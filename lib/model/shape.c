/* SPDX-License-Identifier: BSD-3-Clause */
#include "model/shape.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"

#if SIZE_MAX > UINT32_MAX
#define MAX_NUMBERS ((size_t)1 << 40)
#define MAX_NUMBERS_TEXT "2^40"
#else /* where sums of sizes end */
#define MAX_NUMBERS SIZE_MAX
#define MAX_NUMBERS_TEXT "2^32 - 1"
#endif

size_t melu__schema_numbers(const melu_schema *schema, melu_owner owner) {
  size_t n = 0;
  for (size_t i = 0; i < schema->n_fields; i++)
    if (schema->fields[i].owner == owner && melu__has_numbers(&schema->fields[i])) n += schema->fields[i].width;
  return n;
}

const struct melu__field *melu__table_field(const melu_schema *schema, size_t table) {
  static const melu_owner owners[] = {MELU_ITEM, MELU_USER};
  for (size_t o = 0; o < 2; o++) {
    for (size_t i = 0; i < schema->n_fields; i++) {
      const struct melu__field *field = &schema->fields[i];
      if (field->owner == owners[o] && !melu__has_numbers(field) && table-- == 0) return field;
    }
  }
  return NULL;
}

size_t melu__n_item_tables(const melu_schema *schema) {
  const struct melu__field *field;
  size_t n = 0;
  while ((field = melu__table_field(schema, n)) != NULL && field->owner == MELU_ITEM) n++;
  return n;
}

/* A list of parameters in the making; `at` is NULL where they are only counted. */
struct list {
  struct melu__param *at;
  size_t n, n_numbers;
};

static void add(struct list *l, const char *name, const char *suffix, size_t rows, size_t cols, int is_table) {
  if (l->at) {
    struct melu__param *p = &l->at[l->n];
    *p = (struct melu__param){.rows = rows, .cols = cols, .is_table = is_table, .all_rows = rows};
    snprintf(p->name, sizeof p->name, "%s%s", name, suffix);
  }
  l->n++;
  l->n_numbers = melu__size_add(l->n_numbers, melu__size_mul(rows, cols));
}

static void add_tables(struct list *l, const melu_schema *schema, const struct melu_model_options *o) {
  const struct melu__field *field;
  for (size_t t = 0; (field = melu__table_field(schema, t)) != NULL; t++) {
    size_t cols = field->width;
    if (o->network == MELU_FACTORS) cols = field->owner == MELU_ITEM ? melu__item_cols(o) : melu__user_cols(o);
    add(l, "E.", field->name, field->n_values + 1, cols, 1);
  }
}

/* --------------------------------------------------------------------------------------------- MELU_LAYERS */

static size_t layer_inputs(const melu_schema *schema, const struct melu_model_options *o, size_t layer) {
  if (layer > 0) return o->hidden[layer - 1];
  return melu__schema_width(schema, MELU_ITEM) + melu__schema_width(schema, MELU_USER);
}

static size_t layer_outputs(const struct melu_model_options *o, size_t layer) {
  return layer < o->n_hidden ? o->hidden[layer] : 1;
}

/* What the inner loop learns beside: rates of what it adapts, or a precision. */
static void add_learnt(struct list *l, const melu_schema *schema, const struct melu_model_options *o) {
  const int is_entry = o->rates == MELU_RATE_PER_ENTRY;
  char number[24];
  if (o->rule == MELU_CLOSED_FORM) add(l, "precision", "", 1, layer_inputs(schema, o, o->n_hidden) + 1, 0);
  if (o->rates == MELU_RATE_FIXED) return;
  for (size_t layer = 0; layer <= o->n_hidden; layer++) {
    const size_t outputs = layer_outputs(o, layer), inputs = layer_inputs(schema, o, layer);
    if (!(o->adapt & (layer < o->n_hidden ? MELU_ADAPT_HIDDEN : MELU_ADAPT_HEAD))) continue;
    snprintf(number, sizeof number, "%zu", layer + 1);
    add(l, "rate.W", number, is_entry ? outputs : 1, is_entry ? inputs : 1, 0);
    add(l, "rate.b", number, 1, is_entry ? outputs : 1, 0);
  }
  if (o->adapt & MELU_ADAPT_USER) add(l, "rate.user", "", 1, is_entry ? melu__schema_width(schema, MELU_USER) : 1, 0);
  if (o->adapt & MELU_ADAPT_ITEMS) add(l, "rate.items", "", 1, is_entry ? melu__schema_width(schema, MELU_ITEM) : 1, 0);
}

static void add_layers(struct list *l, const melu_schema *schema, const struct melu_model_options *o) {
  char number[24];
  for (size_t layer = 0; layer <= o->n_hidden; layer++) {
    snprintf(number, sizeof number, "%zu", layer + 1);
    add(l, "W", number, layer_outputs(o, layer), layer_inputs(schema, o, layer), 0);
    add(l, "b", number, 1, layer_outputs(o, layer), 0);
  }
  add_learnt(l, schema, o);
}

/* -------------------------------------------------------------------------------------------- MELU_FACTORS */

static void add_factors(struct list *l, const melu_schema *schema, const struct melu_model_options *o) {
  const size_t w = melu__user_cols(o), hidden = o->n_hidden ? o->hidden[0] : 0;
  const size_t item_numbers = melu__schema_numbers(schema, MELU_ITEM),
               user_numbers = melu__schema_numbers(schema, MELU_USER);
  add(l, "scale", "", 1, 2, 0);
  add(l, "noise", "", 1, 1, 0);
  add(l, "names", "", 1, melu__n_item_tables(schema), 0);
  add(l, "new", "", 1, 3, 0);
  add(l, "prior", "", 1, w, 0);
  if (o->history) {
    add(l, "pool", "", w + 1, w, 0);
    add(l, "pool_rated", "", w + 1, w, 0);
    add(l, "shrink", "", 1, 1, 0);
  }
  add(l, "precision", "", 1, w, 0);
  if (o->rates != MELU_RATE_FIXED) add(l, "rate", "", 1, o->rates == MELU_RATE_PER_ENTRY ? w : 1, 0);
  if (hidden) {
    add(l, "H1", "", hidden, o->rank, 0);
    add(l, "h1", "", 1, hidden, 0);
    add(l, "H2", "", o->rank, hidden, 0);
  }
  if (item_numbers) add(l, "N.item", "", item_numbers, melu__item_cols(o), 0);
  if (user_numbers) add(l, "N.user", "", user_numbers, w, 0);
}

/* ----------------------------------------------------------------------------------------------------- both */

static void list_all(struct list *l, const melu_schema *schema, const struct melu_model_options *o) {
  add_tables(l, schema, o);
  if (o->network == MELU_FACTORS)
    add_factors(l, schema, o);
  else
    add_layers(l, schema, o);
}

/* A schema with what the inner loop is to adapt. */
static melu_status check_adapted(const melu_schema *schema, const struct melu_model_options *o, melu_error *err) {
  const size_t n = melu__n_item_tables(schema);
  if (o->adapt & MELU_ADAPT_USER && melu__schema_width(schema, MELU_USER) == 0)
    return melu__fail(err, MELU_EINVAL, "the schema has no user field, which MELU_ADAPT_USER needs");
  if (o->adapt & MELU_ADAPT_ITEMS && n == 0)
    return melu__fail(err, MELU_EINVAL, "the schema has no item field of ids, which MELU_ADAPT_ITEMS needs");
  if (o->adapt & MELU_ADAPT_ITEMS && n > MELU__MAX_ADAPTED_FIELDS)
    return melu__fail(err, MELU_ELIMIT, "the schema has %zu item fields of ids, above the %d of MELU_ADAPT_ITEMS", n,
                      MELU__MAX_ADAPTED_FIELDS);
  return MELU_OK;
}

/* A schema that a model can be made for. */
static melu_status check(const melu_schema *schema, const struct melu_model_options *o, melu_error *err) {
  if (!melu__schema_complete(schema))
    return melu__fail(err, MELU_ESTATE, "a vocabulary of the schema is still open: freeze the data set that learns it");
  if (layer_inputs(schema, o, 0) == 0) return melu__fail(err, MELU_EINVAL, "the schema has no field");
  if (o->network == MELU_FACTORS && melu__n_item_tables(schema) == 0)
    return melu__fail(err, MELU_EINVAL, "the schema has no item field of ids, which MELU_FACTORS needs");
  return check_adapted(schema, o, err);
}

melu_status melu__model_measure(size_t *n_params, size_t *n_numbers, const melu_schema *schema,
                                const struct melu_model_options *options, melu_error *err) {
  struct melu_model_options o;
  size_t hidden[MELU__MAX_HIDDEN];
  struct list l = {0};
  melu_status status = melu__model_options(&o, hidden, options, err);
  if (!status) status = check(schema, &o, err);
  if (status) return status;
  list_all(&l, schema, &o);
  *n_params = l.n;
  *n_numbers = l.n_numbers;
  if (l.n_numbers >= MAX_NUMBERS)
    return melu__fail(err, MELU_ELIMIT, "the model has " MAX_NUMBERS_TEXT " numbers or more");
  return MELU_OK;
}

void melu__model_describe(struct melu__param *params, const melu_schema *schema,
                          const struct melu_model_options *options) {
  struct melu_model_options o;
  size_t hidden[MELU__MAX_HIDDEN];
  struct list l = {.at = params};
  (void)melu__model_options(&o, hidden, options, NULL); /* they were measured: melu__model_measure */
  list_all(&l, schema, &o);
}
