/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A program of an earlier version's day. It is built with the header and the symbols in tests/abi/VERSION and runs with
 * the library of today: a whole life, in which every options struct comes as that header has it, as a still older
 * program would have had it (shorter), and as a newer one would (longer, the rest zero). All must lead to the same
 * bits; a longer one whose unknown part says something must be refused. Calls what version 1.0 has, and nothing else.
 */
#include <melu.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_USERS = 24, N_ITEMS = 18, N_RATINGS = 15, MOST = 512, LIKED = 5 };

static struct {
  melu_context *ctx;
  melu_schema *schema;
  melu_dataset *data;
  melu_model *model;
  melu_workspace *ws;
  melu_user *user;
} w;

static melu_error err;

static void need(int holds, const char *what) {
  if (holds) return;
  printf("%s: does not hold (%s)\n", what, err.message);
  exit(1);
}

#define TRY(call) need((call) == MELU_OK, #call)

static const uint32_t liked[LIKED] = {0, 2, 4, 6, 1};
static const float ratings[LIKED] = {5, 4, 5, 4, 1};

/* ------------------------------------------------------------------------------------------------ the world */

static void fields(void) {
  const struct melu_field of[] = {
      {.size = sizeof *of, .name = "genre", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = 3, .width = 4},
      {.size = sizeof *of, .name = "price", .owner = MELU_ITEM, .kind = MELU_NUMERIC, .width = 2},
      {.size = sizeof *of, .name = "age", .owner = MELU_USER, .kind = MELU_ONE, .n_values = 4, .width = 3}};
  for (size_t i = 0; i < sizeof of / sizeof *of; i++) TRY(melu_schema_add(w.schema, &of[i], &err));
}

static void fill(void) {
  for (uint32_t i = 0; i < N_ITEMS; i++) {
    const uint32_t genres[2] = {i % 3, (i + 1) % 3};
    const float price[2] = {(float)i / N_ITEMS, 1};
    const struct melu_value values[2] = {{.ids = genres, .n_ids = 1 + i % 2}, {.numbers = price, .n_numbers = 2}};
    TRY(melu_dataset_add_item(w.data, i, values, NULL, &err));
  }
  for (uint32_t u = 0; u < N_USERS; u++) {
    const uint32_t age = u % 4;
    const struct melu_value value = {.ids = &age, .n_ids = 1};
    TRY(melu_dataset_add_user(w.data, u, &value, NULL, &err));
    for (uint32_t i = 0; i < N_RATINGS; i++)
      TRY(melu_dataset_add_rating(w.data, u, (u + i) % N_ITEMS, (float)((u + i) % N_ITEMS * (u % 3 + 1) % 5 + 1),
                                  &err));
  }
  TRY(melu_dataset_freeze(w.data, &err));
}

static void open_world(void) {
  const struct melu_model_options best = {.size = sizeof best, .preset = "best", .seed = 3, .rank = 8};
  const struct melu_fit_options fit = {.size = sizeof fit, .n_epochs = 3, .batch_tasks = 8, .validation = 0.2};
  TRY(melu_context_new(&w.ctx, NULL, &err));
  TRY(melu_schema_new(&w.schema, w.ctx, &err));
  fields();
  TRY(melu_dataset_new(&w.data, w.ctx, w.schema, &err));
  fill();
  TRY(melu_model_new(&w.model, w.ctx, melu_dataset_schema(w.data), &best, &err));
  TRY(melu_fit(w.model, w.data, &fit, &err));
  TRY(melu_workspace_new(&w.ws, w.model, 20, &err));
  TRY(melu_user_new(&w.user, w.model, &err));
  TRY(melu_adapt(w.user, w.ws, w.model, w.data, NULL, liked, ratings, LIKED, &err));
}

static void close_world(void) {
  melu_user_free(w.user);
  melu_workspace_free(w.ws);
  melu_model_free(w.model);
  melu_dataset_free(w.data);
  melu_schema_free(w.schema);
  melu_context_free(w.ctx);
}

/* --------------------------------------------------------- calls with options, and up to MOST bytes that they made */

static melu_status context(unsigned char *made, const void *options) {
  melu_context *ctx;
  const melu_status status = melu_context_new(&ctx, options, &err);
  if (!status) strcpy((char *)made, melu_build_info(ctx));
  melu_context_free(ctx);
  return status;
}

static melu_status digest_of(unsigned char *made, melu_model *model) {
  const melu_status status = melu_model_digest(made, model, &err);
  melu_model_free(model);
  return status;
}

static melu_status model(unsigned char *made, const void *options) {
  melu_model *new_one;
  const melu_status status = melu_model_new(&new_one, w.ctx, w.schema, options, &err);
  return status ? status : digest_of(made, new_one);
}

static melu_status fit(unsigned char *made, const void *options) {
  melu_model *new_one;
  TRY(melu_model_new(&new_one, w.ctx, w.schema, NULL, &err));
  const melu_status status = melu_fit(new_one, w.data, options, &err);
  if (!status) return digest_of(made, new_one);
  melu_model_free(new_one);
  return status;
}

static melu_status optimizer(unsigned char *made, const void *options) {
  melu_optimizer *adam;
  (void)made;
  const melu_status status = melu_optimizer_new(&adam, w.model, options, &err);
  melu_optimizer_free(adam);
  return status;
}

static melu_status table(unsigned char *made, const void *options) {
  melu_dataset *data;
  TRY(melu_dataset_new(&data, w.ctx, w.schema, &err));
  FILE *file = fopen("users.csv", "w");
  need(file != NULL && fputs("user,age\n1,2\n7,3\n", file) > 0 && fclose(file) == 0, "users.csv");
  const melu_status status = melu_dataset_read_users(data, "users.csv", options, &err);
  made[0] = (unsigned char)melu_dataset_n_users(data);
  melu_dataset_free(data);
  return status;
}

static melu_status top(unsigned char *made, const void *options) {
  melu_catalog *catalog;
  uint32_t items[4];
  float scores[4];
  size_t n = 4;
  TRY(melu_catalog_new(&catalog, w.model, w.data, NULL, 0, &err));
  const melu_status status = melu_catalog_top(items, scores, &n, w.ws, catalog, w.user, options, &err);
  if (!status) memcpy(made, items, sizeof items), memcpy(made + sizeof items, scores, sizeof scores);
  melu_catalog_free(catalog);
  return status;
}

static melu_status candidates(unsigned char *made, const void *options) {
  uint32_t items[3];
  size_t n = 3;
  const melu_status status = melu_candidates(items, NULL, &n, w.model, w.data, options, &err);
  if (!status) memcpy(made, items, sizeof items);
  return status;
}

static melu_status ask(unsigned char *made, const void *options) {
  uint32_t items[3];
  size_t n = 3;
  const melu_status status = melu_ask(items, NULL, &n, w.ws, w.model, w.user, w.data, options, &err);
  if (!status) memcpy(made, items, sizeof items);
  return status;
}

static melu_status evaluate(unsigned char *made, const void *options) {
  struct melu_metrics metrics;
  const melu_status status = melu_evaluate(&metrics, w.model, w.data, options, &err);
  if (!status) memcpy(made, &metrics, sizeof metrics);
  return status;
}

static melu_status choose(unsigned char *made, const void *options) {
  const struct melu_model_options models[2] = {{.size = sizeof *models, .rank = 0},
                                               {.size = sizeof *models, .seed = 1}};
  const struct melu_fit_options fits[2] = {{.size = sizeof *fits, .n_epochs = 1},
                                           {.size = sizeof *fits, .n_epochs = 2}};
  double errors[2];
  size_t best;
  const melu_status status = melu_choose(&best, errors, w.ctx, w.data, models, fits, 2, options, &err);
  if (!status) memcpy(made, errors, sizeof errors);
  return status;
}

/* How the chosen ones are judged, by options in options. */
static melu_status judge(unsigned char *made, const void *options) {
  const struct melu_choose_options how = {.size = sizeof how, .evaluate = options};
  return choose(made, &how);
}

/* --------------------------------------------------------------------------------------------- their sizes */

#define OPTIONS(struct_name, call) \
  { #call, sizeof(struct struct_name), call }

static const struct {
  const char *name;
  size_t size;
  melu_status (*call)(unsigned char *made, const void *options);
} calls[] = {
    OPTIONS(melu_context_options, context),
    OPTIONS(melu_model_options, model),
    OPTIONS(melu_fit_options, fit),
    OPTIONS(melu_optimizer_options, optimizer),
    OPTIONS(melu_table_options, table),
    OPTIONS(melu_top_options, top),
    OPTIONS(melu_candidate_options, candidates),
    OPTIONS(melu_ask_options, ask),
    OPTIONS(melu_evaluate_options, evaluate),
    OPTIONS(melu_choose_options, choose),
    OPTIONS(melu_evaluate_options, judge),
};

/* Options of `size` bytes, all zeros behind the size, but for the last one. Memory of exactly that size, for tools that
 * see who reads beyond it. */
static melu_status with(unsigned char *made, size_t i, size_t size, unsigned char last) {
  unsigned char *options = calloc(size, 1);
  need(options != NULL, "memory");
  memset(made, 0, MOST);
  options[size - 1] = last;
  memcpy(options, &size, sizeof size);
  const melu_status status = calls[i].call(made, options);
  free(options);
  return status;
}

static void sizes(size_t i) {
  unsigned char plain[MOST] = {0}, made[MOST];
  need(calls[i].call(plain, NULL) == MELU_OK, calls[i].name);
  for (size_t size = sizeof size; size <= calls[i].size + 64; size += 8) {
    need(with(made, i, size, 0) == MELU_OK, calls[i].name);
    need(memcmp(plain, made, MOST) == 0, calls[i].name);
  }
  need(with(made, i, 1000, 1) == MELU_EINVAL, calls[i].name);
  printf("%s: options of 8 to %zu bytes\n", calls[i].name, calls[i].size + 64);
}

/* Options that come back: as much of them as there is room for, zeros where this version knows nothing. */
static void sizes_that_come_back(void) {
  struct {
    struct melu_model_options known;
    unsigned char beyond[64];
  } options, whole;
  struct {
    struct melu_field known;
    unsigned char beyond[64];
  } field;
  memset(&whole, 0, sizeof whole);
  whole.known.size = sizeof whole;
  TRY(melu_model_get_options(&whole.known, w.model, &err));
  need(whole.known.rank == 8 && whole.beyond[63] == 0, "what comes back");
  for (size_t size = sizeof size; size <= sizeof options; size += 8) {
    memset(&options, 0x55, sizeof options);
    options.known.size = size;
    TRY(melu_model_get_options(&options.known, w.model, &err));
    need(options.known.size == size, "the size that came back");
    need(memcmp((char *)&options + sizeof size, (char *)&whole + sizeof size, size - sizeof size) == 0,
         "what came back");
    for (size_t i = size; i < sizeof options; i++) need(((unsigned char *)&options)[i] == 0x55, "what lies behind it");
  }
  memset(&field, 0x55, sizeof field);
  field.known.size = sizeof field;
  TRY(melu_schema_field(&field.known, w.schema, MELU_ITEM, 1, &err));
  need(strcmp(field.known.name, "price") == 0 && field.known.width == 2 && field.beyond[63] == 0, "a field");
  field.known.size = sizeof field.known;
  TRY(melu_schema_add(w.schema, &(struct melu_field){.size = offsetof(struct melu_field, n_values), .name = "old"},
                      &err));
}

/* A file and bytes go round; a handle is freed as it always was. */
static void files(void) {
  melu_model *again;
  unsigned char bytes[4096], digests[2][MELU_DIGEST_BYTES];
  float scores[2][N_ITEMS];
  uint32_t items[N_ITEMS];
  size_t n = sizeof bytes;
  for (uint32_t i = 0; i < N_ITEMS; i++) items[i] = i;
  TRY(melu_model_save(w.model, "model.melu", &err));
  TRY(melu_model_load(&again, w.ctx, "model.melu", &err));
  TRY(melu_model_digest(digests[0], w.model, &err));
  TRY(melu_model_digest(digests[1], again, &err));
  need(memcmp(digests[0], digests[1], MELU_DIGEST_BYTES) == 0, "the digest of a model that was saved");
  melu_model_free(again);
  TRY(melu_predict(scores[0], w.ws, w.model, w.user, w.data, items, N_ITEMS, &err));
  TRY(melu_user_save(bytes, &n, w.ws, w.user, MELU_USER_READY, &err));
  TRY(melu_user_load(w.user, w.ws, w.model, w.data, bytes, n, &err));
  TRY(melu_predict(scores[1], w.ws, w.model, w.user, w.data, items, N_ITEMS, &err));
  need(memcmp(scores[0], scores[1], sizeof scores[0]) == 0, "predictions of a user who was saved");
}

int main(void) {
  open_world();
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) sizes(i);
  files();
  sizes_that_come_back();
  close_world();
  printf("built for %d.%d, ran with %s\n", MELU_VERSION_MAJOR, MELU_VERSION_MINOR, melu_version());
  return 0;
}
