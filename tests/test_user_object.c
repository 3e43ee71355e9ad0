/* SPDX-License-Identifier: BSD-3-Clause */
/* The adapted user as an object: what she becomes by ratings that come, change and go, and by being written down and
 * read again, against a user who was adapted at once to the test's own list of ratings, bit by bit. Bytes that are not
 * what was written; memory that is refused; what a model's digest depends on. */
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/bytes.h"
#include "data/schema.h"
#include "model/model.h"
#include "naive.h"
#include "run_suite.h"
#include "support.h"
#include "user_layout.h"

enum { N_SEQUENCES = 10000 };
enum { N_ITEMS = 80, N_TRAINED = 30, MOST = 70, N_PROFILES = 6, N_FIELDS = 4, ALL_ADAPT = 15 };

static melu_error err;

static int is_elsewhere; /* this is the other process of a test, not one of Check's */

/* ck_assert is a system call also when all is well. */
#define CHECK(condition, ...)                     \
  do {                                            \
    if (condition) break;                         \
    if (!is_elsewhere) ck_abort_msg(__VA_ARGS__); \
    fprintf(stderr, __VA_ARGS__);                 \
    exit(1);                                      \
  } while (0)
#define DO(call)                                                                            \
  do {                                                                                      \
    const melu_status status_ = (call);                                                     \
    CHECK(status_ == MELU_OK, "%s: %s: %s", #call, melu_status_name(status_), err.message); \
  } while (0)

/* ------------------------------------------------------------------------------------------------- settings */

static const size_t layers[2] = {8, 6}, encoder[1] = {10};

#define SMALL_LAYERS .size = sizeof(struct melu_model_options), .seed = 3, .hidden = layers, .n_hidden = 2
#define SMALL_FACTORS \
  .size = sizeof(struct melu_model_options), .seed = 3, .preset = "best", .hidden = encoder, .n_hidden = 1, .rank = 6

static const struct melu_model_options settings[] = {
    {SMALL_LAYERS},
    {SMALL_FACTORS},
    {SMALL_LAYERS, .adapt = ALL_ADAPT},
    {.size = sizeof(struct melu_model_options), .preset = "melu"},
    {.size = sizeof(struct melu_model_options), .preset = "best"},
    {SMALL_LAYERS, .adapt = MELU_ADAPT_HEAD},
    {SMALL_LAYERS, .adapt = MELU_ADAPT_HIDDEN | MELU_ADAPT_USER, .rates = MELU_RATE_PER_ENTRY, .loss = MELU_ABSOLUTE},
    {SMALL_LAYERS, .adapt = MELU_ADAPT_ITEMS, .loss = MELU_HUBER},
    {SMALL_LAYERS, .rule = MELU_CLOSED_FORM},
    {SMALL_LAYERS, .inner_steps = MELU_NONE},
    {SMALL_FACTORS, .history = -1},
    {SMALL_FACTORS, .rule = MELU_STEPS, .rates = MELU_RATE_PER_TENSOR},
    {SMALL_FACTORS, .loss = MELU_LOGISTIC},
    {SMALL_FACTORS, .rule = MELU_STEPS, .loss = MELU_LOGISTIC, .history = -1},
};

enum { N_SETTINGS = sizeof settings / sizeof *settings, LAYERS = 0, FACTORS = 1, ITEMS = 2, PAPER = 3, BEST = 4 };

/* ---------------------------------------------------------------------------------------------------- world */

struct world {
  struct test_heap heap;
  struct melu_allocator allocator;
  melu_context *ctx;
  melu_schema *schema;
  melu_dataset *data, *shuffled, *few; /* the same items, in two orders; the first half of them */
  melu_model *model;
  melu_workspace *ws;
  uint32_t shuffled_at[N_ITEMS];
  uint64_t random;
};

static struct world w;

/* Larger than 32 bits, and not in the order of the items. */
static uint64_t item_id(uint32_t item) {
  return ((uint64_t)(item * 29 % N_ITEMS) << 33) + 5;
}

static void add_fields(melu_schema *schema) {
  const struct melu_field fields[] = {
      {.size = sizeof *fields, .name = "self", .owner = MELU_ITEM, .kind = MELU_ONE, .n_values = N_ITEMS, .width = 3},
      {.size = sizeof *fields, .name = "job", .owner = MELU_USER, .kind = MELU_ONE, .n_values = 4, .width = 3},
      {.size = sizeof *fields, .name = "tags", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = 5, .width = 3},
      {.size = sizeof *fields, .name = "likes", .owner = MELU_USER, .kind = MELU_MANY, .n_values = 6, .width = 2},
      {.size = sizeof *fields, .name = "age", .owner = MELU_USER, .kind = MELU_NUMERIC, .shift = 30, .scale = 0.1},
      {.size = sizeof *fields, .name = "size", .owner = MELU_ITEM, .kind = MELU_NUMERIC, .width = 2},
      {.size = sizeof *fields, .name = "place", .owner = MELU_USER, .kind = MELU_NUMERIC, .width = 2},
  };
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) DO(melu_schema_add(schema, &fields[i], &err));
}

/* Item 0 is nothing at all; some lack a name, or have one that is unknown. */
static void add_item(melu_dataset *data, uint32_t i) {
  const uint32_t self = i % 9 == 4 ? MELU_UNKNOWN : i, tags[3] = {i % 5, i / 5 % 5, MELU_UNKNOWN};
  const float size[2] = {(float)(i % 8) / 8, (float)(i % 3) - 1};
  const struct melu_value values[3] = {{.ids = &self, .n_ids = i % 7 != 2},
                                       {.ids = tags, .n_ids = i % 4},
                                       {.numbers = size, .n_numbers = i % 5 == 3 ? 0 : 2}};
  DO(melu_dataset_add_item(data, item_id(i), i ? values : NULL, NULL, &err));
}

/* Somebody's profile; NULL for number 0. All kinds of fields, each of them missing somewhere. */
static const struct melu_value *profile(int number) {
  static const uint32_t known = 2, unknown = MELU_UNKNOWN, some[] = {1, 4, 4}, odd[] = {MELU_UNKNOWN, 0},
                        many[] = {0, 1, 2, 3, 4, 5, 5, 1, 2, 3, 3, 3, MELU_UNKNOWN, 0, 0, 0, 1, 2};
  static const float age = 41, place[2] = {0.5f, -1};
  static const struct melu_value all[N_PROFILES][N_FIELDS] = {
      [2] = {{.ids = &known, .n_ids = 1},
             {.ids = some, .n_ids = 3},
             {.numbers = &age, .n_numbers = 1},
             {.numbers = place, .n_numbers = 2}},
      [3] = {{.ids = &unknown, .n_ids = 1}, {.ids = odd, .n_ids = 2}, {0}, {.numbers = place, .n_numbers = 2}},
      [4] = {{0}, {.ids = many, .n_ids = sizeof many / sizeof *many}, {0}, {0}},
      [5] = {{0}, {0}, {.numbers = &age, .n_numbers = 1}, {0}},
  };
  return number ? all[number] : NULL;
}

static float random_rating(void) {
  const uint32_t k = random_below(&w.random, 9);
  return w.model->options.loss == MELU_LOGISTIC ? (float)(k % 2) : 1 + (float)k / 2;
}

static melu_dataset *new_data(uint32_t first, uint32_t step, uint32_t n) {
  melu_dataset *data;
  DO(melu_dataset_new(&data, w.ctx, w.schema, &err));
  for (uint32_t i = 0; i < n; i++) add_item(data, (first + i * step) % N_ITEMS);
  return data;
}

/* Every number of the model is something, but the rows of some items' names, which are new. */
static void vary(melu_model *model) {
  for (size_t i = 0; i < model->n_params; i++) {
    const struct melu__param *p = &model->params[i];
    float *values = test_memory(p->rows * p->cols, sizeof *values);
    DO(melu_model_read(values, model, p->name, 0, p->rows, &err));
    for (size_t k = 0; k < p->rows * p->cols; k++) values[k] += (float)random_number(&w.random) / 32;
    for (size_t row = 0; strcmp(p->name, "E.self") == 0 && row < p->rows; row += 11)
      memset(values + row * p->cols, 0, p->cols * sizeof *values);
    if (strcmp(p->name, "names") != 0) DO(melu_model_write(model, p->name, 0, p->rows, values, &err));
    free(values);
  }
}

static void train(melu_model *model, uint64_t seed) {
  const struct melu_fit_options fit = {
      .size = sizeof fit, .n_epochs = 1, .n_query = 2, .min_ratings = 4, .batch_tasks = 8, .seed = seed};
  DO(melu_fit(model, w.data, &fit, &err));
}

static melu_model *new_model(const struct melu_model_options *options) {
  melu_model *model;
  DO(melu_model_new(&model, w.ctx, melu_dataset_schema(w.data), options, &err));
  return model;
}

static void open_data(void) {
  w = (struct world){.random = 1};
  w.allocator = test_allocator(&w.heap);
  const struct melu_context_options options = {.size = sizeof options, .allocator = &w.allocator};
  DO(melu_context_new(&w.ctx, &options, &err));
  DO(melu_schema_new(&w.schema, w.ctx, &err));
  add_fields(w.schema);
  w.data = new_data(0, 1, N_ITEMS);
  w.shuffled = new_data(11, 37, N_ITEMS);
  w.few = new_data(0, 1, N_ITEMS / 2);
  for (uint32_t i = 0; i < N_ITEMS; i++) DO(melu_dataset_find_item(&w.shuffled_at[i], w.shuffled, item_id(i), &err));
  DO(melu_dataset_freeze(w.shuffled, &err));
  DO(melu_dataset_freeze(w.few, &err));
}

/* The users of `data` are for training. */
static void open_world(size_t setting, size_t max_support) {
  open_data();
  w.model = new_model(&settings[setting]);
  for (uint32_t u = 0; u < N_TRAINED; u++) {
    DO(melu_dataset_add_user(w.data, u, profile((int)u % N_PROFILES), NULL, &err));
    for (uint32_t k = 0; k < 5; k++)
      DO(melu_dataset_add_rating(w.data, u, item_id((7 * k + u) % N_ITEMS), random_rating(), &err));
  }
  DO(melu_dataset_freeze(w.data, &err));
  train(w.model, 1);
  vary(w.model);
  DO(melu_workspace_new(&w.ws, w.model, max_support, &err));
}

static void close_world(void) {
  melu_workspace_free(w.ws);
  melu_model_free(w.model);
  melu_dataset_free(w.few);
  melu_dataset_free(w.shuffled);
  melu_dataset_free(w.data);
  melu_schema_free(w.schema);
  melu_context_free(w.ctx);
  CHECK(w.heap.live == 0, "%zu pieces of memory were lost", (size_t)w.heap.live);
}

/* --------------------------------------------------------------------------------------- what she told, naively */

struct told {
  uint32_t items[MOST];
  float ratings[MOST];
  size_t n;
  int profile;
};

static size_t last_of(const struct told *t, uint32_t item) {
  size_t i = t->n;
  while (i > 0 && t->items[i - 1] != item) i--;
  return i;
}

static void tell(struct told *t, uint32_t item, float rating) {
  size_t i = last_of(t, item);
  if (i == 0) {
    i = ++t->n;
    t->items[i - 1] = item;
  }
  t->ratings[i - 1] = rating;
}

static void untell(struct told *t, uint32_t item) {
  for (size_t i = last_of(t, item); i < t->n; i++) {
    t->items[i - 1] = t->items[i];
    t->ratings[i - 1] = t->ratings[i];
  }
  t->n--;
}

/* The same item may come twice. */
static struct told told_at_random(size_t n) {
  struct told t = {.n = n, .profile = (int)random_below(&w.random, N_PROFILES)};
  for (size_t i = 0; i < n; i++) {
    t.items[i] = random_below(&w.random, N_ITEMS);
    t.ratings[i] = random_rating();
  }
  return t;
}

/* Each item once. */
static struct told told_of(size_t n, int number) {
  struct told t = {.n = n, .profile = number};
  for (size_t i = 0; i < n; i++) {
    t.items[i] = (uint32_t)(i * 3 % N_ITEMS);
    t.ratings[i] = random_rating();
  }
  return t;
}

static melu_user *new_user(void) {
  melu_user *user;
  DO(melu_user_new(&user, w.model, &err));
  return user;
}

static melu_status adapt(melu_user *user, melu_workspace *ws, const struct told *t) {
  return melu_adapt(user, ws, w.model, w.data, profile(t->profile), t->items, t->ratings, t->n, &err);
}

static melu_user *user_of(const struct told *t) {
  melu_user *user = new_user();
  DO(adapt(user, w.ws, t));
  return user;
}

/* All that can be seen of a user. */
struct seen {
  float scores[N_ITEMS], variances[N_ITEMS];
  uint64_t items[MOST];
  float ratings[MOST];
  size_t n;
};

static struct seen see(const melu_user *user) {
  struct seen s;
  uint32_t all[N_ITEMS];
  const uint64_t *items;
  const float *ratings;
  memset(&s, 0, sizeof s);
  for (uint32_t i = 0; i < N_ITEMS; i++) all[i] = i;
  DO(melu_predict(s.scores, w.ws, w.model, user, w.data, all, N_ITEMS, &err));
  if (w.model->options.network == MELU_FACTORS && w.model->options.rule == MELU_CLOSED_FORM)
    DO(melu_predict_variance(s.variances, w.ws, w.model, user, w.data, all, N_ITEMS, &err));
  s.n = melu_user_ratings(user, &items, &ratings);
  CHECK(s.n <= MOST, "%zu ratings", s.n);
  if (s.n) memcpy(s.items, items, s.n * sizeof *items);
  if (s.n) memcpy(s.ratings, ratings, s.n * sizeof *ratings);
  return s;
}

static int looks(const melu_user *user, const struct seen *before) {
  const struct seen now = see(user);
  return memcmp(&now, before, sizeof now) == 0;
}

/* `twin` becomes a user who was adapted at once. */
static void check_adapted(const melu_user *user, melu_user *twin, const struct told *t, const char *after) {
  DO(adapt(twin, w.ws, t));
  const struct seen one = see(user), other = see(twin);
  CHECK(one.n == t->n, "after %s: %zu ratings, not %zu", after, one.n, t->n);
  for (size_t i = 0; i < t->n; i++)
    CHECK(one.items[i] == item_id(t->items[i]) && one.ratings[i] == t->ratings[i], "after %s: rating %zu", after, i);
  for (size_t i = 0; i < N_ITEMS; i++)
    CHECK(memcmp(&one.scores[i], &other.scores[i], sizeof(float)) == 0, "after %s, %zu ratings: item %zu: %.9g, %.9g",
          after, t->n, i, (double)one.scores[i], (double)other.scores[i]);
  CHECK(memcmp(one.variances, other.variances, sizeof one.variances) == 0, "after %s: a variance", after);
}

/* ------------------------------------------------------------------------------------------------- as bytes */

struct bytes {
  unsigned char *at; /* of just that size, so that a checker sees who reads beyond it */
  size_t n;
};

static struct bytes save(const melu_user *user, melu_user_form form) {
  struct bytes b = {.n = 0};
  DO(melu_user_save(NULL, &b.n, w.ws, user, form, &err));
  const size_t n = b.n;
  b.at = test_memory(n, 1);
  DO(melu_user_save(b.at, &b.n, w.ws, user, form, &err));
  CHECK(b.n == n, "%zu bytes were announced, %zu came", n, b.n);
  return b;
}

static melu_status load_from(melu_user *user, melu_workspace *ws, const melu_dataset *data, struct bytes b) {
  return melu_user_load(user, ws, w.model, data, b.at, b.n, &err);
}

static melu_status load(melu_user *user, struct bytes b) {
  return load_from(user, w.ws, w.data, b);
}

/* ------------------------------------------------------------------------------------------------- sequences */

/* One user, those who take turns at being her when she is loaded, and two threads' workspaces. */
struct cast {
  melu_user *user, *spare, *twin;
  melu_workspace *ws[2];
};

static void open_cast(struct cast *c) {
  c->user = new_user();
  c->spare = new_user();
  c->twin = new_user();
  for (size_t i = 0; i < 2; i++) DO(melu_workspace_new(&c->ws[i], w.model, MOST, &err));
}

static void close_cast(struct cast *c) {
  melu_user_free(c->user);
  melu_user_free(c->spare);
  melu_user_free(c->twin);
  for (size_t i = 0; i < 2; i++) melu_workspace_free(c->ws[i]);
}

static const char *there_and_back(struct cast *c, melu_user_form form, melu_workspace *ws, const melu_dataset *data) {
  const struct bytes b = save(c->user, form);
  melu_user *into = c->user;
  if (random_below(&w.random, 3)) {
    into = c->spare;
    c->spare = c->user;
    c->user = into;
  }
  DO(load_from(into, ws, data, b));
  free(b.at);
  return form == MELU_USER_READY ? "load (ready)" : "load (compact)";
}

/* Does something to the user and to the list; says what. */
static const char *act(struct cast *c, struct told *t) {
  melu_workspace *ws = c->ws[random_below(&w.random, 2)];
  const int is_shuffled = random_below(&w.random, 3) == 0;
  const melu_dataset *data = is_shuffled ? w.shuffled : w.data;
  const uint32_t kind = random_below(&w.random, 9),
                 known = t->n ? t->items[random_below(&w.random, (uint32_t)t->n)] : 0;
  const uint32_t item = kind > 3 && t->n ? known : random_below(&w.random, N_ITEMS);
  const uint32_t position = is_shuffled ? w.shuffled_at[item] : item;
  const size_t n = t->n;
  if (kind > 6) return there_and_back(c, kind == 7 ? MELU_USER_COMPACT : MELU_USER_READY, ws, data);
  if (kind == 6 && t->n) {
    untell(t, item);
    DO(melu_user_forget(c->user, ws, w.model, data, position, &err));
    return "forget";
  }
  const float rating = random_rating();
  tell(t, item, rating);
  DO(melu_user_rate(c->user, ws, w.model, data, position, rating, &err));
  return t->n > n ? "add" : "correct";
}

/* One user in eight has many ratings: more than a block of encoded items, and beyond the most that are kept. */
static void run_sequence(struct cast *c) {
  const size_t n_actions = 5 + random_below(&w.random, 8);
  struct told t = told_at_random(random_below(&w.random, random_below(&w.random, 8) ? 9 : MOST - 11));
  DO(adapt(c->user, c->ws[0], &t));
  for (size_t k = 0; k < n_actions; k++) check_adapted(c->user, c->twin, &t, act(c, &t));
}

START_TEST(any_sequence_is_adapting_at_once) {
  struct cast c;
  open_world((size_t)_i, MOST);
  w.random = 100 + (uint64_t)_i;
  open_cast(&c);
  for (size_t k = 0; k < test_trials((N_SEQUENCES + N_SETTINGS - 1) / N_SETTINGS); k++) run_sequence(&c);
  close_cast(&c);
  close_world();
}
END_TEST

/* One rating after another, and back again: every number of ratings, with all borders between. */
START_TEST(up_and_down) {
  open_world((size_t)_i, MOST);
  struct told t = told_of(0, 2);
  melu_user *user = user_of(&t), *twin = new_user();
  for (uint32_t i = 0; i < MOST; i++) {
    const float rating = random_rating();
    tell(&t, i, rating);
    DO(melu_user_rate(user, w.ws, w.model, w.data, i, rating, &err));
    check_adapted(user, twin, &t, "add");
  }
  while (t.n) {
    const uint32_t item = t.items[random_below(&w.random, (uint32_t)t.n)];
    untell(&t, item);
    DO(melu_user_forget(user, w.ws, w.model, w.shuffled, w.shuffled_at[item], &err));
    check_adapted(user, twin, &t, "forget");
  }
  melu_user_free(user);
  melu_user_free(twin);
  close_world();
}
END_TEST

/* Nothing was told: she is who was adapted to nothing, to the last bit, and is written down as such. */
START_TEST(a_new_user) {
  open_world((size_t)_i, MOST);
  struct told t = told_of(0, 0);
  const struct told another = told_of(4, 2);
  melu_user *user = new_user(), *other = user_of(&another), *twin = new_user();
  check_adapted(user, twin, &t, "nothing");
  ck_assert_uint_eq(melu_user_ratings(user, NULL, NULL), 0);
  for (int form = MELU_USER_COMPACT; form <= MELU_USER_READY; form++) {
    const struct seen before = see(user);
    const struct bytes b = save(user, (melu_user_form)form);
    DO(load(other, b));
    ck_assert(looks(other, &before));
    free(b.at);
  }
  tell(&t, 7, 2);
  DO(melu_user_rate(user, w.ws, w.model, w.data, 7, 2, &err));
  check_adapted(user, twin, &t, "the first rating");
  melu_user_free(user);
  melu_user_free(other);
  melu_user_free(twin);
  close_world();
}
END_TEST

static void change_model(int how) {
  if (how == 0) train(w.model, 5);
  if (how == 1) vary(w.model);
}

/* After the model changed she is what the new one makes of all that she told. */
START_TEST(the_model_changes) {
  open_world((size_t)_i, MOST);
  struct told t = told_of(33, 3);
  melu_user *user = user_of(&t), *twin = new_user(), *other = new_user();
  for (int how = 0; how < 2; how++)
    for (int action = 0; action < 4; action++) {
      const struct bytes ready = save(user, MELU_USER_READY), compact = save(user, MELU_USER_COMPACT);
      size_t n = 0;
      change_model(how);
      ck_assert_int_eq(melu_user_save(NULL, &n, w.ws, user, MELU_USER_READY, &err), MELU_ESTATE);
      ck_assert_msg(strstr(err.message, "changed") != NULL, "%s", err.message);
      ck_assert_int_eq(load(other, ready), MELU_ESCHEMA);
      ck_assert_int_eq(load(other, compact), MELU_ESCHEMA);
      free(ready.at);
      free(compact.at);
      const struct bytes now = save(user, MELU_USER_COMPACT); /* what she told is as true as before */
      DO(load(other, now));
      check_adapted(other, twin, &t, "load with a new model");
      free(now.at);
      const uint32_t item = action == 0 ? 40 : t.items[action == 1 ? 0 : t.n - 1];
      if (action < 3) {
        tell(&t, item, 3);
        DO(melu_user_rate(user, w.ws, w.model, w.data, item, 3, &err));
      } else {
        untell(&t, item);
        DO(melu_user_forget(user, w.ws, w.model, w.data, item, &err));
      }
      check_adapted(user, twin, &t, "a rating with a new model");
    }
  melu_user_free(user);
  melu_user_free(twin);
  melu_user_free(other);
  close_world();
}
END_TEST

/* A data set that does not have all of her items. */
START_TEST(items_that_are_gone) {
  open_world((size_t)_i, MOST);
  struct told t = {.items = {3, 50, 7}, .ratings = {1, 0, 1}, .n = 3, .profile = 2};
  melu_user *user = user_of(&t), *other = new_user();
  const struct bytes forms[2] = {save(user, MELU_USER_COMPACT), save(user, MELU_USER_READY)};
  const struct seen before = see(user), nobody = see(other);
  char name[32];
  snprintf(name, sizeof name, "item %llu", (unsigned long long)item_id(50));
  for (int form = 0; form < 2; form++) {
    ck_assert_int_eq(load_from(other, w.ws, w.few, forms[form]), MELU_ENOTFOUND);
    ck_assert_uint_eq(err.index, 1);
    ck_assert_msg(strstr(err.message, name) != NULL, "%s", err.message);
    ck_assert(looks(other, &nobody));
  }
  ck_assert_int_eq(melu_user_forget(user, w.ws, w.model, w.few, 3, &err), MELU_ENOTFOUND);
  ck_assert_uint_eq(err.index, 0);
  ck_assert(looks(user, &before));
  DO(load(other, forms[1])); /* the ready form brings no encoded items */
  ck_assert_int_eq(melu_user_rate(other, w.ws, w.model, w.few, 9, 1, &err), MELU_ENOTFOUND);
  ck_assert_uint_eq(err.index, 1);
  ck_assert_int_eq(melu_user_rate(other, w.ws, w.model, w.few, 3, 0, &err), MELU_ENOTFOUND);
  ck_assert_uint_eq(err.index, 1);
  ck_assert(looks(other, &before));
  for (int form = 0; form < 2; form++) free(forms[form].at);
  melu_user_free(user);
  melu_user_free(other);
  close_world();
}
END_TEST

/* Her own ratings as arguments, and a list that is longer than what she has room for. */
START_TEST(her_own_ratings_as_arguments) {
  open_world((size_t)_i, MOST);
  struct told t = told_of(20, 4);
  melu_user *user = user_of(&t), *twin = new_user();
  const float *ratings;
  melu_user_ratings(user, NULL, &ratings);
  for (size_t i = 0; i + 3 < t.n; i++) t.ratings[i] = t.ratings[i + 3];
  t.n = 17;
  DO(melu_adapt(user, w.ws, w.model, w.data, profile(4), t.items, ratings + 3, 17, &err));
  check_adapted(user, twin, &t, "adapting to her own ratings");
  melu_user_free(user);
  melu_user_free(twin);
  close_world();
}
END_TEST

/* -------------------------------------------------------------------------------------------- bad bytes */

/* Where things are behind the header. */
enum {
  AT_JOB = AT_COUNTS + 4 * N_FIELDS, /* of profile 2: a job, three likes, an age, a place */
  AT_LIKES = AT_JOB + 4,
  AT_AGE = AT_LIKES + 12,
  AT_PLACE = AT_AGE + 4,
  AT_ITEMS = AT_PLACE + 8,
  N_CELLS = 7
};

static struct bytes copy_of(struct bytes b) {
  const struct bytes copy = {test_memory(b.n, 1), b.n};
  memcpy(copy.at, b.at, b.n);
  return copy;
}

static void set(struct bytes b, size_t at, uint64_t bits, size_t size) {
  melu__put_bits(b.at + at, bits, size);
}

static uint64_t get(struct bytes b, size_t at) {
  return melu__get_bits(b.at + at, 4);
}

static void set_checksum(struct bytes b) {
  set(b, b.n - 8, XXH3_64bits(b.at, b.n - 8), 8);
}

/* Adds n bytes before `at`, or takes -n away. */
static void resize(struct bytes *b, size_t at, int n) {
  const struct bytes other = {test_memory(b->n + (size_t)n, 1), b->n + (size_t)n};
  const size_t from = n < 0 ? at + (size_t)-n : at, to = n < 0 ? at : at + (size_t)n;
  memcpy(other.at, b->at, at);
  memcpy(other.at + to, b->at + from, b->n - from);
  free(b->at);
  *b = other;
}

/* Whom the bytes are of, and somebody else, who is to stay what she is whatever comes. */
struct reading {
  melu_user *user, *other;
  struct seen before;
  struct bytes b[2]; /* by form */
  struct told told;
};

static struct reading open_reading(size_t setting) {
  struct reading r;
  open_world(setting, 20);
  r.told = told_of(6, 2);
  const struct told else_told = told_of(9, 4);
  r.user = user_of(&r.told);
  r.other = user_of(&else_told);
  r.before = see(r.other);
  for (int form = 0; form < 2; form++) r.b[form] = save(r.user, (melu_user_form)form);
  return r;
}

static void close_reading(struct reading *r) {
  melu_user *twin = new_user();
  for (int form = 0; form < 2; form++) {
    DO(load(r->other, r->b[form])); /* so it was not for another reason that all else was refused */
    check_adapted(r->other, twin, &r->told, "load");
    free(r->b[form].at);
  }
  melu_user_free(twin);
  melu_user_free(r->user);
  melu_user_free(r->other);
  close_world();
}

/* Loads them, which must fail that way, and be said so. */
static void refuse(struct reading *r, struct bytes b, melu_status want, const char *message) {
  memset(&err, 0, sizeof err);
  const melu_status status = load(r->other, b);
  CHECK(status == want && err.status == want, "%s instead of %s: %s", melu_status_name(status), melu_status_name(want),
        err.message);
  CHECK(strstr(err.message, message) != NULL, "\"%s\" has no \"%s\"", err.message, message);
  CHECK(looks(r->other, &r->before), "refused (%s), but somebody else", err.message);
}

START_TEST(truncated_at_every_byte) {
  struct reading r = open_reading((size_t)_i);
  for (int form = 0; form < 2; form++) {
    for (size_t n = 0; n < r.b[form].n; n++) {
      struct bytes b = copy_of((struct bytes){r.b[form].at, n});
      refuse(&r, b, MELU_EFORMAT, "bytes");
      if (n >= 8) set_checksum(b);
      refuse(&r, b, MELU_EFORMAT, "bytes");
      free(b.at);
    }
    struct bytes b = copy_of(r.b[form]);
    resize(&b, b.n, 1);
    refuse(&r, b, MELU_EFORMAT, "bytes");
    set_checksum(b);
    refuse(&r, b, MELU_EFORMAT, "bytes");
    free(b.at);
  }
  close_reading(&r);
}
END_TEST

static melu_status refusal_of_byte(size_t at) {
  if (at < AT_VERSION) return MELU_EFORMAT;
  if (at < AT_FORM) return MELU_EVERSION;
  if (at < AT_DIGEST) return MELU_EFORMAT;
  if (at >= AT_RATINGS && at < AT_COUNTS) return MELU_EFORMAT;
  return MELU_ECORRUPT;
}

START_TEST(every_bit_flipped) {
  struct reading r = open_reading((size_t)_i);
  for (int form = 0; form < 2; form++)
    for (size_t bit = 0; bit < 8 * r.b[form].n; bit++) {
      const int is_form = bit == 8 * AT_FORM; /* either form is one */
      const melu_status want = is_form ? MELU_ECORRUPT : refusal_of_byte(bit / 8);
      r.b[form].at[bit / 8] ^= (unsigned char)(1 << bit % 8);
      refuse(&r, r.b[form], want, want == MELU_EVERSION ? "format" : "bytes");
      r.b[form].at[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
  close_reading(&r);
}
END_TEST

/* Two pieces of eight bytes change places. */
START_TEST(pieces_swapped) {
  struct reading r = open_reading((size_t)_i);
  for (int form = 0; form < 2; form++)
    for (int k = 0; k < 500; k++) {
      struct bytes b = copy_of(r.b[form]);
      const uint32_t n_pieces = (uint32_t)(b.n - AT_COUNTS) / 8;
      const size_t i = AT_COUNTS + 8 * random_below(&w.random, n_pieces),
                   j = AT_COUNTS + 8 * random_below(&w.random, n_pieces);
      const uint64_t x = melu__get_bits(b.at + i, 8), y = melu__get_bits(b.at + j, 8);
      set(b, i, y, 8);
      set(b, j, x, 8);
      if (x != y) refuse(&r, b, MELU_ECORRUPT, "checksum");
      free(b.at);
    }
  close_reading(&r);
}
END_TEST

/* Writes `bits` over four bytes and sets the checksum right. */
static void refuse_changed(struct reading *r, int form, size_t at, uint64_t bits, melu_status want,
                           const char *message) {
  struct bytes b = copy_of(r->b[form]);
  set(b, at, bits, 4);
  set_checksum(b);
  refuse(r, b, want, message);
  free(b.at);
}

/* With the right checksum: the header. */
START_TEST(hostile_headers) {
  static const size_t counts[] = {AT_RATINGS, AT_FIELDS, AT_CELLS, AT_NUMBERS};
  struct reading r = open_reading((size_t)_i);
  for (int form = 0; form < 2; form++) {
    refuse_changed(&r, form, 0, 0x554c454e, MELU_EFORMAT, "no adapted user");
    refuse_changed(&r, form, AT_VERSION, 2, MELU_EVERSION, "format 2");
    refuse_changed(&r, form, AT_VERSION, 0, MELU_EVERSION, "format 0");
    refuse_changed(&r, form, AT_FORM, 2, MELU_EFORMAT, "bytes");
    refuse_changed(&r, form, AT_FORM, 0x80000000, MELU_EFORMAT, "bytes");
    refuse_changed(&r, form, AT_DIGEST, ~get(r.b[form], AT_DIGEST), MELU_ESCHEMA, "another model");
    refuse_changed(&r, form, AT_DIGEST + 12, ~get(r.b[form], AT_DIGEST + 12), MELU_ESCHEMA, "another model");
    for (size_t i = 0; i < 4; i++) {
      const uint64_t n = get(r.b[form], counts[i]);
      refuse_changed(&r, form, counts[i], n + 1, MELU_EFORMAT, "bytes");
      refuse_changed(&r, form, counts[i], 0xffffffff, MELU_EFORMAT, "bytes");
      refuse_changed(&r, form, counts[i], n + 0x40000000, MELU_EFORMAT, "bytes"); /* four times that is nothing */
    }
    /* Of the same length in all. */
    struct bytes b = copy_of(r.b[form]);
    set(b, AT_FIELDS, N_FIELDS - 1, 4);
    set(b, AT_CELLS, N_CELLS + 1, 4);
    set_checksum(b);
    refuse(&r, b, MELU_EFORMAT, "3 fields");
    set(b, AT_FIELDS, N_FIELDS + 1, 4);
    set(b, AT_CELLS, N_CELLS - 1, 4);
    set_checksum(b);
    refuse(&r, b, MELU_EFORMAT, "5 fields");
    set(b, AT_FIELDS, 0, 4);
    set(b, AT_CELLS, N_CELLS + N_FIELDS, 4);
    set_checksum(b);
    refuse(&r, b, MELU_EFORMAT, "0 fields");
    free(b.at);
  }
  close_reading(&r);
}
END_TEST

static uint64_t bits_of(float value) {
  return melu__float_bits(value);
}

/* With the right checksum: what she told. */
START_TEST(hostile_profiles_and_ratings) {
  struct reading r = open_reading((size_t)_i);
  for (int form = 0; form < 2; form++) {
    ck_assert_uint_eq(get(r.b[form], AT_CELLS), N_CELLS);
    const size_t at_ratings = AT_ITEMS + 8 * r.told.n;
    /* Cells that do not add up, in number and in each field. */
    refuse_changed(&r, form, AT_COUNTS + 4, 4, MELU_EFORMAT, "8 cells, not 7");
    refuse_changed(&r, form, AT_COUNTS + 4, 2, MELU_EFORMAT, "6 cells, not 7");
    refuse_changed(&r, form, AT_COUNTS + 4, 0xffffffff, MELU_EFORMAT, " cells, not 7");
    struct bytes b = copy_of(r.b[form]);
    set(b, AT_COUNTS, 2, 4);
    set(b, AT_COUNTS + 4, 2, 4);
    set_checksum(b);
    refuse(&r, b, MELU_EFORMAT, "\"job\"");
    set(b, AT_COUNTS, 1, 4);
    set(b, AT_COUNTS + 12, 3, 4);
    set_checksum(b);
    refuse(&r, b, MELU_EFORMAT, "\"place\"");
    set(b, AT_COUNTS + 4, 4, 4);
    set(b, AT_COUNTS + 12, 1, 4);
    set_checksum(b);
    refuse(&r, b, MELU_EFORMAT, "\"place\"");
    free(b.at);
    refuse_changed(&r, form, AT_JOB, 4, MELU_ERANGE, "\"job\"");
    refuse_changed(&r, form, AT_JOB, MELU_UNKNOWN - 1, MELU_ERANGE, "\"job\"");
    refuse_changed(&r, form, AT_LIKES + 8, 6, MELU_ERANGE, "\"likes\"");
    refuse_changed(&r, form, AT_AGE, bits_of((float)NAN), MELU_ERANGE, "\"age\"");
    refuse_changed(&r, form, AT_PLACE + 4, bits_of(-(float)INFINITY), MELU_ERANGE, "\"place\"");
    refuse_changed(&r, form, AT_ITEMS + 8 * 4, 1, MELU_ENOTFOUND, "which the user rated");
    ck_assert_uint_eq(err.index, 4);
    refuse_changed(&r, form, at_ratings + 4 * 5, bits_of((float)NAN), MELU_ERANGE, "rating 5");
    ck_assert_uint_eq(err.index, 5);
    refuse_changed(&r, form, at_ratings, bits_of((float)INFINITY), MELU_ERANGE, "rating 0");
    /* An unknown id and another rating are fine: who sets checksums right may write users. */
    b = copy_of(r.b[form]);
    melu_user *user = new_user();
    set(b, AT_JOB, MELU_UNKNOWN, 4);
    set(b, at_ratings, bits_of(0), 4);
    set_checksum(b);
    DO(load(user, b));
    melu_user_free(user);
    free(b.at);
  }
  close_reading(&r);
}
END_TEST

/* With the right checksum: the adapted numbers. */
START_TEST(hostile_numbers) {
  struct reading r = open_reading((size_t)_i);
  const size_t n = (size_t)get(r.b[1], AT_NUMBERS), first = r.b[1].n - 8 - n * sizeof(real);
  ck_assert_uint_gt(n, 0);
  ck_assert_uint_eq(get(r.b[0], AT_NUMBERS), 0);
  for (size_t k = 0; k < n; k++) {
    struct bytes b = copy_of(r.b[1]);
    memset(b.at + first + k * sizeof(real), 0xff, sizeof(real)); /* not a number, whichever byte is the first */
    set_checksum(b);
    refuse(&r, b, MELU_ERANGE, "not finite");
    free(b.at);
  }
  for (int more = -1; more <= 1; more += 2) { /* numbers that nobody needs, or too few */
    struct bytes b = copy_of(r.b[1]);
    resize(&b, first, more * (int)sizeof(real));
    set(b, AT_NUMBERS, n + (size_t)more, 4);
    set_checksum(b);
    refuse(&r, b, MELU_EFORMAT, "adapted numbers, not");
    free(b.at);
  }
  struct bytes b = copy_of(r.b[0]);
  resize(&b, b.n - 8, sizeof(real));
  set(b, AT_NUMBERS, 1, 4);
  set_checksum(b);
  refuse(&r, b, MELU_EFORMAT, "compact");
  free(b.at);
  refuse_changed(&r, 0, AT_FORM, MELU_USER_READY, MELU_EFORMAT, "0 adapted numbers");
  refuse_changed(&r, 1, AT_FORM, MELU_USER_COMPACT, MELU_EFORMAT, "compact");
  close_reading(&r);
}
END_TEST

/* The inner loop of what the bytes say diverges. */
START_TEST(bytes_that_diverge) {
  struct reading r = open_reading(LAYERS);
  refuse_changed(&r, MELU_USER_COMPACT, AT_ITEMS + 8 * r.told.n, bits_of(3e38f), MELU_EDIVERGED, "diverged");
  close_reading(&r);
}
END_TEST

START_TEST(bytes_for_a_larger_workspace) {
  struct reading r = open_reading((size_t)_i);
  melu_workspace *small, *just;
  DO(melu_workspace_new(&small, w.model, r.told.n - 1, &err));
  DO(melu_workspace_new(&just, w.model, r.told.n, &err));
  for (int form = 0; form < 2; form++) {
    ck_assert_int_eq(load_from(r.other, small, w.data, r.b[form]), MELU_ELIMIT);
    ck_assert_msg(strstr(err.message, "6 ratings, the workspace was made for 5") != NULL, "%s", err.message);
    ck_assert(looks(r.other, &r.before));
    DO(load_from(r.other, just, w.data, r.b[form]));
    DO(adapt(r.other, w.ws, &r.told));
    r.before = see(r.other);
  }
  melu_workspace_free(small);
  melu_workspace_free(just);
  close_reading(&r);
}
END_TEST

/* ----------------------------------------------------------------------------------------- of which model */

/* Makes a model the world's for a moment, and gives its refusal of bytes of another one. */
static void refuse_elsewhere(const struct reading *r, melu_model *model, melu_dataset *data) {
  melu_workspace *ws;
  melu_user *user;
  DO(melu_workspace_new(&ws, model, 20, &err));
  DO(melu_user_new(&user, model, &err));
  for (int form = 0; form < 2; form++) {
    const melu_status status = melu_user_load(user, ws, model, data, r->b[form].at, r->b[form].n, &err);
    ck_assert_msg(status == MELU_ESCHEMA && strstr(err.message, "another model"), "%s", err.message);
  }
  ck_assert_uint_eq(melu_user_ratings(user, NULL, NULL), 0);
  melu_user_free(user);
  melu_workspace_free(ws);
}

static void copy_params(melu_model *to, const melu_model *from) {
  for (size_t i = 0; i < from->n_params; i++) {
    const struct melu__param *p = &from->params[i];
    float *values = test_memory(p->rows * p->cols, sizeof *values);
    DO(melu_model_read(values, from, p->name, 0, p->rows, &err));
    DO(melu_model_write(to, p->name, 0, p->rows, values, &err));
    free(values);
  }
}

START_TEST(bytes_of_another_model) {
  struct reading r = open_reading((size_t)_i);
  struct melu_model_options options = settings[_i];
  melu_model *model = new_model(&options); /* other weights */
  refuse_elsewhere(&r, model, w.data);
  melu_model_free(model);
  options.inner_lr = 0.123; /* another option, the same weights */
  model = new_model(&options);
  copy_params(model, w.model);
  refuse_elsewhere(&r, model, w.data);
  melu_model_free(model);
  /* Another schema, of the same shapes. */
  melu_dataset *data;
  melu_schema *schema;
  struct melu_field field = {.size = sizeof field};
  DO(melu_schema_new(&schema, w.ctx, &err));
  for (int owner = MELU_USER; owner <= MELU_ITEM; owner++)
    for (size_t i = 0; i < melu_schema_n_fields(w.schema, (melu_owner)owner); i++) {
      DO(melu_schema_field(&field, w.schema, (melu_owner)owner, i, &err));
      if (strcmp(field.name, "age") == 0) field.shift++;
      DO(melu_schema_add(schema, &field, &err));
    }
  DO(melu_dataset_new(&data, w.ctx, schema, &err));
  DO(melu_dataset_freeze(data, &err));
  DO(melu_model_new(&model, w.ctx, schema, &settings[_i], &err));
  copy_params(model, w.model);
  refuse_elsewhere(&r, model, data);
  melu_model_free(model);
  melu_dataset_free(data);
  melu_schema_free(schema);
  close_reading(&r);
}
END_TEST

/* ------------------------------------------------------------------------------------------- another process */

static const char *program;

static void file_name(char name[64], const char *folder, const char *what) {
  snprintf(name, 64, "%.40s/%s", folder, what);
}

static void write_file(const char *folder, const char *what, const void *bytes, size_t n) {
  char name[64];
  file_name(name, folder, what);
  FILE *f = fopen(name, "wb");
  CHECK(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0, "cannot write %s", name);
}

static struct bytes read_file(const char *folder, const char *what) {
  char name[64];
  struct stat info;
  file_name(name, folder, what);
  FILE *f = fopen(name, "rb");
  CHECK(f && fstat(fileno(f), &info) == 0, "cannot open %s", name);
  const struct bytes b = {test_memory((size_t)info.st_size, 1), (size_t)info.st_size};
  CHECK(fread(b.at, 1, b.n, f) == b.n, "cannot read %s", name);
  fclose(f);
  return b;
}

static const char *const user_files[2] = {"compact", "ready"}, *const seen_files[2] = {"seen-compact", "seen-ready"};

/* What this program does when it is given a folder: the model and the users in it come to life. */
static int serve_elsewhere(const char *folder) {
  char name[64];
  open_data();
  DO(melu_dataset_freeze(w.data, &err));
  file_name(name, folder, "model");
  DO(melu_model_load(&w.model, w.ctx, name, &err));
  DO(melu_workspace_new(&w.ws, w.model, MOST, &err));
  melu_user *user = new_user();
  for (int form = 0; form < 2; form++) {
    const struct bytes b = read_file(folder, user_files[form]);
    DO(load(user, b));
    const struct seen s = see(user);
    write_file(folder, seen_files[form], &s, sizeof s);
    free(b.at);
  }
  melu_user_free(user);
  close_world();
  return 0;
}

START_TEST(another_process_sees_the_same) {
  char folder[] = "/tmp/melu-test-XXXXXX", name[64];
  int result;
  ck_assert_ptr_nonnull(mkdtemp(folder));
  open_world((size_t)_i, MOST);
  const struct told t = told_of(19, 2);
  melu_user *user = user_of(&t);
  const struct seen before = see(user);
  for (int form = 0; form < 2; form++) {
    const struct bytes b = save(user, (melu_user_form)form);
    write_file(folder, user_files[form], b.at, b.n);
    free(b.at);
  }
  file_name(name, folder, "model");
  DO(melu_model_save(w.model, name, &err));
  const char *emulator = getenv("MESON_EXE_WRAPPER"); /* what runs this program, if it is for another machine */
  const pid_t child = fork();
  if (child == 0) {
    if (emulator)
      execl(emulator, emulator, program, folder, (char *)NULL);
    else
      execl(program, program, folder, (char *)NULL);
    _exit(127);
  }
  ck_assert(child > 0 && waitpid(child, &result, 0) == child);
  ck_assert_msg(WIFEXITED(result) && WEXITSTATUS(result) == 0, "the other process ended with %d", result);
  for (int form = 0; form < 2; form++) {
    const struct bytes b = read_file(folder, seen_files[form]);
    ck_assert(b.n == sizeof before && memcmp(b.at, &before, b.n) == 0);
    free(b.at);
    file_name(name, folder, seen_files[form]);
    ck_assert_int_eq(remove(name), 0);
    file_name(name, folder, user_files[form]);
    ck_assert_int_eq(remove(name), 0);
  }
  file_name(name, folder, "model");
  ck_assert_int_eq(remove(name), 0);
  ck_assert_int_eq(rmdir(folder), 0);
  melu_user_free(user);
  close_world();
}
END_TEST

/* ---------------------------------------------------------------------------------------------------- sizes */

/* MeLU at the paper's size: 4 fields of 32 columns on either side. */
static void add_paper_fields(melu_schema *schema) {
  char name[16];
  for (int i = 0; i < 8; i++) {
    snprintf(name, sizeof name, "field%d", i);
    const struct melu_field field = {.size = sizeof field,
                                     .name = name,
                                     .owner = i % 2 ? MELU_ITEM : MELU_USER,
                                     .kind = i < 2 ? MELU_MANY : MELU_ONE,
                                     .n_values = N_ITEMS};
    DO(melu_schema_add(schema, &field, &err));
  }
}

/* A user of 20 ratings and a full profile. */
START_TEST(sizes_are_as_promised) {
  static const char *const presets[] = {"melu", "best"};
  const struct melu_model_options options = {.size = sizeof options, .preset = presets[_i]};
  const size_t n_numbers = _i ? 50 + 50 * 51 / 2 : 64 + (64 * 64 + 64) + (64 + 1) + 20 * 64;
  w = (struct world){.random = 1};
  w.allocator = test_allocator(&w.heap);
  const struct melu_context_options context = {.size = sizeof context, .allocator = &w.allocator};
  const uint32_t ids[4] = {1, 2, 3, 4};
  const struct melu_value values[4] = {
      {.ids = ids, .n_ids = 4}, {.ids = ids, .n_ids = 1}, {.ids = ids, .n_ids = 1}, {.ids = ids, .n_ids = 1}};
  DO(melu_context_new(&w.ctx, &context, &err));
  DO(melu_schema_new(&w.schema, w.ctx, &err));
  add_paper_fields(w.schema);
  DO(melu_dataset_new(&w.data, w.ctx, w.schema, &err));
  for (uint32_t i = 0; i < N_ITEMS; i++) DO(melu_dataset_add_item(w.data, item_id(i), values, NULL, &err));
  DO(melu_dataset_freeze(w.data, &err));
  w.model = new_model(&options);
  DO(melu_workspace_new(&w.ws, w.model, 20, &err));
  const struct told t = told_of(20, 0);
  melu_user *user = new_user();
  DO(melu_adapt(user, w.ws, w.model, w.data, values, t.items, t.ratings, t.n, &err));
  const struct bytes compact = save(user, MELU_USER_COMPACT), ready = save(user, MELU_USER_READY);
  ck_assert_uint_eq(compact.n, 56 + 12 * 20 + 4 * 4 + 4 * 7);
  ck_assert_uint_le(compact.n, 1024);
  ck_assert_uint_eq(ready.n, compact.n + n_numbers * sizeof(real));
  ck_assert_uint_le(ready.n, 32768 / sizeof(float) * sizeof(real));
  free(compact.at);
  free(ready.at);
  melu_user_free(user);
  close_world();
}
END_TEST

/* --------------------------------------------------------------------------------------------------- memory */

/* A user who was just loaded, with 16 ratings, and what happens to her. */
struct attempt {
  melu_user *user;
  melu_workspace *ws;
  struct told told;
  struct bytes other[2]; /* of somebody else */
  struct told other_told;
};

static melu_status try_add(struct attempt *a) {
  return melu_user_rate(a->user, a->ws, w.model, w.data, 79, 1, &err);
}
static melu_status try_correct(struct attempt *a) {
  return melu_user_rate(a->user, a->ws, w.model, w.data, a->told.items[4], 1, &err);
}
static melu_status try_forget(struct attempt *a) {
  return melu_user_forget(a->user, a->ws, w.model, w.data, a->told.items[4], &err);
}
static melu_status try_compact(struct attempt *a) {
  return load_from(a->user, a->ws, w.data, a->other[0]);
}
static melu_status try_ready(struct attempt *a) {
  return load_from(a->user, a->ws, w.data, a->other[1]);
}
static melu_status try_adapt(struct attempt *a) {
  return adapt(a->user, a->ws, &a->other_told);
}

static const struct {
  melu_status (*call)(struct attempt *a);
  int asks; /* whatever the model is */
} attempts[] = {{try_add, 1}, {try_correct, 0}, {try_forget, 0}, {try_compact, 1}, {try_ready, 1}, {try_adapt, 1}};

enum { N_ATTEMPTS = sizeof attempts / sizeof *attempts };

/* What she told after attempt number `call`. */
static struct told after(const struct attempt *a, size_t call) {
  struct told t = call < 3 ? a->told : a->other_told;
  if (call < 2) tell(&t, call == 0 ? 79 : t.items[4], 1);
  if (call == 2) untell(&t, t.items[4]);
  return t;
}

/* Refuses request number n of a call; returns whether there was one. Who was refused goes on as if it had not been
 * asked. */
static int attempt_once(const struct attempt *given, size_t call, struct bytes ready, size_t n) {
  struct attempt a = *given;
  melu_user *twin = new_user();
  a.user = new_user();
  DO(melu_workspace_new(&a.ws, w.model, 30, &err));
  DO(load_from(a.user, a.ws, w.data, ready));
  const struct seen before = see(a.user);
  w.heap.fail_at = w.heap.made + n;
  const melu_status status = attempts[call].call(&a);
  const int refused = w.heap.made >= w.heap.fail_at;
  w.heap.fail_at = 0;
  ck_assert_int_eq(status, refused ? MELU_ENOMEM : MELU_OK);
  if (refused) {
    ck_assert(looks(a.user, &before));
    DO(try_correct(&a));
    tell(&a.told, a.told.items[4], 1);
    check_adapted(a.user, twin, &a.told, "a correction after a refusal");
    DO(attempts[call].call(&a));
  }
  const struct told t = after(&a, call);
  check_adapted(a.user, twin, &t, "a call that was refused memory");
  melu_user_free(a.user);
  melu_user_free(twin);
  melu_workspace_free(a.ws);
  return refused;
}

START_TEST(every_allocation_refused) {
  open_world((size_t)_i, 30);
  struct attempt a = {.told = told_of(16, 2), .other_told = told_of(25, 4)};
  melu_user *user = user_of(&a.told), *other = user_of(&a.other_told);
  const struct bytes ready = save(user, MELU_USER_READY);
  for (int form = 0; form < 2; form++) a.other[form] = save(other, (melu_user_form)form);
  for (size_t call = 0; call < N_ATTEMPTS; call++) {
    size_t n = 1;
    while (attempt_once(&a, call, ready, n)) n++;
    ck_assert_uint_gt(n, (size_t)attempts[call].asks);
  }
  for (int form = 0; form < 2; form++) free(a.other[form].at);
  free(ready.at);
  melu_user_free(user);
  melu_user_free(other);
  close_world();
}
END_TEST

static melu_status again(melu_user *user, const struct told *t, size_t i) {
  const uint32_t item = t->items[i];
  if (melu_user_rate(user, w.ws, w.model, w.data, item, t->ratings[i], &err)) return err.status;
  if (melu_user_forget(user, w.ws, w.model, w.data, item, &err)) return err.status;
  return melu_user_rate(user, w.ws, w.model, w.data, item, t->ratings[i], &err);
}

/* Who had as many ratings before asks for nothing any more. */
START_TEST(no_memory_is_asked_for_twice) {
  open_world((size_t)_i, MOST);
  const struct told t = told_of(MOST, 4);
  melu_user *user = user_of(&t);
  DO(again(user, &t, 0)); /* MELU_ADAPT_ITEMS: user and workspace take turns */
  const size_t made = w.heap.made;
  w.heap.fail_at = made + 1;
  w.heap.from_there_on = 1;
  for (size_t i = 0; i < t.n; i++) DO(again(user, &t, i));
  const struct told few = told_of(5, 4);
  DO(adapt(user, w.ws, &few));
  const size_t n = w.heap.made - made;
  w.heap = (struct test_heap){.made = w.heap.made, .live = w.heap.live};
  ck_assert_uint_eq(n, 0);
  melu_user_free(user);
  close_world();
}
END_TEST

/* --------------------------------------------------------------------------------------------------- digest */

struct digest {
  unsigned char at[MELU_DIGEST_BYTES];
};

static struct digest digest_of(const melu_model *model) {
  struct digest d = {{0}};
  DO(melu_model_digest(d.at, model, &err));
  return d;
}

static int same(struct digest a, struct digest b) {
  return memcmp(&a, &b, sizeof a) == 0;
}

/* A schema with every kind of field, one of them with texts. */
struct form {
  struct melu_field fields[5];
  const char *texts[2]; /* of the last one; NULL: it has none */
  struct melu_model_options options;
};

static const struct form layers_form = {
    .fields = {{.name = "one", .owner = MELU_ITEM, .kind = MELU_ONE, .n_values = 4, .width = 2},
               {.name = "many", .owner = MELU_USER, .kind = MELU_MANY, .n_values = 3, .width = 2},
               {.name = "numbers", .owner = MELU_USER, .kind = MELU_NUMERIC, .width = 2, .shift = 1, .scale = 2},
               {.name = "text", .owner = MELU_ITEM, .kind = MELU_ONE, .n_values = 2, .width = 2}},
    .texts = {"x", "yz"},
    .options = {SMALL_LAYERS, .preset = "melu"}};

/* Its digest, all parameters being what they are by their place alone. */
static struct digest digest_of_form(const struct form *form) {
  melu_schema *schema;
  melu_model *model;
  DO(melu_schema_new(&schema, w.ctx, &err));
  for (size_t i = 0; i < 5 && form->fields[i].name; i++) {
    struct melu_field field = form->fields[i];
    field.size = sizeof field;
    DO(melu_schema_add(schema, &field, &err));
    if (strcmp(field.name, "text") != 0 || !form->texts[0]) continue;
    struct melu__vocab *texts = melu__vocab_new(&w.ctx->allocator);
    for (size_t k = 0; k < 2; k++)
      CHECK(melu__vocab_add(texts, form->texts[k], strlen(form->texts[k]), NULL) == k, "a text");
    DO(melu__schema_set_texts(schema, field.name, texts, &err));
    melu__vocab_free(texts);
  }
  DO(melu_model_new(&model, w.ctx, schema, &form->options, &err));
  for (size_t i = 0; i < model->n_params; i++) {
    const struct melu__param *p = &model->params[i];
    float *values = test_memory(p->rows * p->cols, sizeof *values);
    for (size_t k = 0; k < p->rows * p->cols; k++) values[k] = (float)(k % 7) / 8;
    DO(melu_model_write(model, p->name, 0, p->rows, values, &err));
    free(values);
  }
  const struct digest d = digest_of(model);
  melu_model_free(model);
  melu_schema_free(schema);
  return d;
}

/* All digests so far, which are different ones. */
struct digests {
  struct digest at[64];
  size_t n;
};

static void add_digest(struct digests *all, const struct form *form, const char *what) {
  const struct digest d = digest_of_form(form);
  for (size_t i = 0; i < all->n; i++) CHECK(!same(d, all->at[i]), "%s: the digest of form %zu", what, i);
  all->at[all->n++] = d;
}

#define CHANGED(what, ...)      \
  do {                          \
    struct form f = base;       \
    __VA_ARGS__;                \
    add_digest(&all, &f, what); \
  } while (0)

static void check_fields(struct digests *so_far) {
  const struct form base = layers_form;
  struct digests all = *so_far;
  CHANGED("nothing", (void)0);
  CHANGED("name", f.fields[0].name = "eins");
  CHANGED("kind", f.fields[0].kind = MELU_MANY);
  CHANGED("owner", f.fields[1].owner = MELU_ITEM);
  CHANGED("n_values", f.fields[0].n_values = 5);
  CHANGED("width", f.fields[0].width = 3);
  CHANGED("shift", f.fields[2].shift = nextafter(1, 2));
  CHANGED("scale", f.fields[2].scale = nextafter(2, 3));
  CHANGED("width of numbers", f.fields[2].width = 3);
  /* Numbers, of which no parameter tells. */
  CHANGED("name of numbers", f.fields[2].name = "zahlen");
  CHANGED("owner of numbers", f.fields[2].owner = MELU_ITEM);
  CHANGED("two fields of numbers", f.fields[4] = base.fields[2]; f.fields[4].name = "more"; f.fields[4].width = 1);
  CHANGED("the other width", f.fields[4] = base.fields[2]; f.fields[4].name = "more"; f.fields[2].width = 1);
  CHANGED("order", f.fields[1] = base.fields[2]; f.fields[2] = base.fields[1]);
  CHANGED("a field more", f.fields[4] = base.fields[0]; f.fields[4].name = "other");
  CHANGED("a field less", f.fields[3].name = NULL);
  CHANGED("no texts", f.texts[0] = NULL);
  CHANGED("a text", f.texts[0] = "w");
  CHANGED("texts in another order", f.texts[0] = "yz"; f.texts[1] = "x");
  CHANGED("texts cut elsewhere", f.texts[0] = "xy"; f.texts[1] = "z");
  *so_far = all;
}

static void check_layers_options(struct digests *so_far) {
  static const size_t wide[] = {8, 6, 6}, tall[] = {6, 8};
  const struct form base = layers_form;
  struct digests all = *so_far;
  CHANGED("hidden", f.options.hidden = tall);
  CHANGED("n_hidden", f.options.hidden = wide; f.options.n_hidden = 3);
  CHANGED("inner_steps", f.options.inner_steps = 4);
  CHANGED("inner_lr", f.options.inner_lr = nextafter(0.01, 1));
  CHANGED("rating_min", f.options.rating_min = 0; f.options.rating_max = 5);
  CHANGED("rating_max", f.options.rating_min = 1; f.options.rating_max = 6);
  CHANGED("rule", f.options.rule = MELU_CLOSED_FORM);
  CHANGED("rates", f.options.rates = MELU_RATE_PER_TENSOR);
  CHANGED("rates", f.options.rates = MELU_RATE_PER_ENTRY);
  for (unsigned adapts = 1; adapts <= ALL_ADAPT; adapts++)
    if (adapts != (MELU_ADAPT_HEAD | MELU_ADAPT_HIDDEN)) CHANGED("adapt", f.options.adapt = adapts);
  for (int loss = MELU_ABSOLUTE; loss <= MELU_PAIRWISE; loss++)
    CHANGED("loss", f.options.loss = (melu_loss)loss; f.options.rating_min = 1; f.options.rating_max = 5);
  *so_far = all;
}

static void check_factors_options(struct digests *so_far) {
  struct form base = layers_form;
  struct digests all = *so_far;
  base.options = (struct melu_model_options){SMALL_FACTORS};
  CHANGED("network", (void)0);
  CHANGED("rank", f.options.rank = 7);
  CHANGED("no hidden layer", f.options.n_hidden = MELU_NONE);
  CHANGED("history", f.options.history = -1);
  CHANGED("rule", f.options.rule = MELU_STEPS);
  CHANGED("rates", f.options.rule = MELU_STEPS; f.options.rates = MELU_RATE_PER_ENTRY);
  CHANGED("loss", f.options.loss = MELU_SQUARED);
  *so_far = all;
}

START_TEST(digests_change_with_what_matters) {
  struct digests all = {.n = 0};
  open_data();
  DO(melu_dataset_freeze(w.data, &err));
  check_fields(&all);
  check_layers_options(&all);
  check_factors_options(&all);
  /* What does not matter once a model is trained. */
  struct form f = layers_form;
  f.options.seed = 99;
  f.options.first_order = 1;
  f.options.multi_step = 1;
  ck_assert(same(digest_of_form(&f), all.at[0]));
  close_world();
}
END_TEST

START_TEST(digests_change_with_every_number) {
  open_world((size_t)_i, 5);
  const struct digest before = digest_of(w.model);
  for (size_t i = 0; i < w.model->n_params; i++) {
    const struct melu__param *p = &w.model->params[i];
    for (size_t row = 0; row < p->rows; row++) {
      float *values = test_memory(p->cols, sizeof *values);
      DO(melu_model_read(values, w.model, p->name, row, 1, &err));
      for (size_t k = 0; k < p->cols; k++) {
        const float value = values[k];
        values[k] = nextafterf(value, 100);
        DO(melu_model_write(w.model, p->name, row, 1, values, &err));
        ck_assert_msg(!same(digest_of(w.model), before), "%s, row %zu, number %zu", p->name, row, k);
        values[k] = value;
      }
      DO(melu_model_write(w.model, p->name, row, 1, values, &err));
      free(values);
    }
  }
  ck_assert(same(digest_of(w.model), before));
  close_world();
}
END_TEST

START_TEST(a_saved_model_keeps_its_digest) {
  char folder[] = "/tmp/melu-test-XXXXXX", name[64];
  ck_assert_ptr_nonnull(mkdtemp(folder));
  file_name(name, folder, "model");
  open_world((size_t)_i, 5);
  melu_model *loaded;
  DO(melu_model_save(w.model, name, &err));
  DO(melu_model_load(&loaded, w.ctx, name, &err));
  ck_assert(same(digest_of(loaded), digest_of(w.model)));
  train(loaded, 2);
  ck_assert(!same(digest_of(loaded), digest_of(w.model)));
  melu_model_free(loaded);
  ck_assert_int_eq(remove(name), 0);
  ck_assert_int_eq(rmdir(folder), 0);
  close_world();
}
END_TEST

/* ------------------------------------------------------------------------------------------------ arguments */

#define REFUSED(status, ...) ck_assert_int_eq(__VA_ARGS__, status)

START_TEST(bad_arguments) {
  open_world((size_t)_i, 20);
  const struct told t = told_of(20, 2);
  melu_user *user = user_of(&t), *strange_user;
  melu_model *strange = new_model(&settings[_i]);
  melu_workspace *strange_ws, *ws = w.ws;
  melu_dataset *open;
  const melu_model *m = w.model;
  const melu_dataset *d = w.data;
  DO(melu_user_new(&strange_user, strange, &err));
  DO(melu_workspace_new(&strange_ws, strange, 20, &err));
  DO(melu_dataset_new(&open, w.ctx, w.schema, &err));
  add_item(open, 0);
  const struct seen before = see(user);
  const uint32_t old = t.items[3], new = 79;

  REFUSED(MELU_EINVAL, melu_user_rate(NULL, ws, m, d, old, 1, &err));
  REFUSED(MELU_EINVAL, melu_user_rate(user, NULL, m, d, old, 1, &err));
  REFUSED(MELU_EINVAL, melu_user_rate(user, ws, NULL, d, old, 1, &err));
  REFUSED(MELU_EINVAL, melu_user_rate(user, ws, m, NULL, old, 1, NULL));
  REFUSED(MELU_EINVAL, melu_user_rate(strange_user, ws, m, d, old, 1, &err));
  REFUSED(MELU_EINVAL, melu_user_rate(user, strange_ws, m, d, old, 1, &err));
  REFUSED(MELU_EINVAL, melu_user_rate(user, ws, strange, d, old, 1, &err));
  REFUSED(MELU_ESTATE, melu_user_rate(user, ws, m, open, 0, 1, &err));
  REFUSED(MELU_ERANGE, melu_user_rate(user, ws, m, d, N_ITEMS, 1, &err));
  REFUSED(MELU_ERANGE, melu_user_rate(user, ws, m, d, old, (float)NAN, &err));
  REFUSED(MELU_ERANGE, melu_user_rate(user, ws, m, d, new, -(float)INFINITY, &err));
  REFUSED(MELU_ELIMIT, melu_user_rate(user, ws, m, d, new, 1, &err));
  ck_assert_msg(strstr(err.message, "21") && strstr(err.message, "20"), "%s", err.message);

  REFUSED(MELU_EINVAL, melu_user_forget(NULL, ws, m, d, old, &err));
  REFUSED(MELU_EINVAL, melu_user_forget(user, NULL, m, d, old, &err));
  REFUSED(MELU_EINVAL, melu_user_forget(user, ws, NULL, d, old, NULL));
  REFUSED(MELU_EINVAL, melu_user_forget(user, ws, m, NULL, old, &err));
  REFUSED(MELU_EINVAL, melu_user_forget(user, strange_ws, m, d, old, &err));
  REFUSED(MELU_ESTATE, melu_user_forget(user, ws, m, open, 0, &err));
  REFUSED(MELU_ERANGE, melu_user_forget(user, ws, m, d, N_ITEMS, &err));
  REFUSED(MELU_ENOTFOUND, melu_user_forget(user, ws, m, d, new, &err));
  ck_assert_msg(strstr(err.message, "79") != NULL, "%s", err.message);

  unsigned char bytes[8000];
  size_t n = sizeof bytes, compact = 0, ready = 0;
  REFUSED(MELU_EINVAL, melu_user_save(bytes, NULL, ws, user, MELU_USER_COMPACT, &err));
  REFUSED(MELU_EINVAL, melu_user_save(bytes, &n, NULL, user, MELU_USER_COMPACT, &err));
  REFUSED(MELU_EINVAL, melu_user_save(bytes, &n, ws, NULL, MELU_USER_COMPACT, NULL));
  REFUSED(MELU_EINVAL, melu_user_save(bytes, &n, strange_ws, user, MELU_USER_COMPACT, &err));
  REFUSED(MELU_EINVAL, melu_user_save(bytes, &n, ws, user, (melu_user_form)2, &err));
  ck_assert_uint_eq(n, sizeof bytes);
  DO(melu_user_save(NULL, &compact, ws, user, MELU_USER_COMPACT, &err));
  DO(melu_user_save(NULL, &ready, ws, user, MELU_USER_READY, &err));
  ck_assert_uint_lt(compact, ready);
  memset(bytes, 0x5a, sizeof bytes);
  n = compact - 1;
  REFUSED(MELU_ELIMIT, melu_user_save(bytes, &n, ws, user, MELU_USER_COMPACT, &err));
  ck_assert_uint_eq(n, compact);
  n = 0;
  REFUSED(MELU_ELIMIT, melu_user_save(bytes, &n, ws, user, MELU_USER_READY, NULL));
  ck_assert_uint_eq(n, ready);
  for (size_t i = 0; i < sizeof bytes; i++) ck_assert(bytes[i] == 0x5a);
  n = sizeof bytes;
  DO(melu_user_save(bytes, &n, ws, user, MELU_USER_COMPACT, &err));
  ck_assert_uint_eq(n, compact);
  for (size_t i = n; i < sizeof bytes; i++) ck_assert(bytes[i] == 0x5a);

  REFUSED(MELU_EINVAL, melu_user_load(NULL, ws, m, d, bytes, n, &err));
  REFUSED(MELU_EINVAL, melu_user_load(user, NULL, m, d, bytes, n, &err));
  REFUSED(MELU_EINVAL, melu_user_load(user, ws, NULL, d, bytes, n, &err));
  REFUSED(MELU_EINVAL, melu_user_load(user, ws, m, NULL, bytes, n, &err));
  REFUSED(MELU_EINVAL, melu_user_load(user, ws, m, d, NULL, n, NULL));
  REFUSED(MELU_EINVAL, melu_user_load(user, strange_ws, m, d, bytes, n, &err));
  REFUSED(MELU_EINVAL, melu_user_load(strange_user, ws, m, d, bytes, n, &err));
  REFUSED(MELU_ESTATE, melu_user_load(user, ws, m, open, bytes, n, &err));
  REFUSED(MELU_EFORMAT, melu_user_load(user, ws, m, d, bytes, 0, &err));

  unsigned char digest[MELU_DIGEST_BYTES];
  REFUSED(MELU_EINVAL, melu_model_digest(NULL, m, &err));
  REFUSED(MELU_EINVAL, melu_model_digest(digest, NULL, NULL));

  const uint64_t *items = (const uint64_t *)&n;
  const float *ratings = (const float *)bytes;
  ck_assert_uint_eq(melu_user_ratings(NULL, &items, &ratings), 0);
  ck_assert(items == NULL && ratings == NULL);
  ck_assert(looks(user, &before));
  melu_dataset_free(open);
  melu_user_free(strange_user);
  melu_workspace_free(strange_ws);
  melu_model_free(strange);
  melu_user_free(user);
  close_world();
}
END_TEST

/* A user with more ratings than another workspace is for can be made smaller by one that is large enough. */
START_TEST(a_smaller_workspace) {
  open_world((size_t)_i, 20);
  struct told t = told_of(6, 2);
  melu_user *user = user_of(&t), *twin = new_user();
  melu_workspace *small;
  DO(melu_workspace_new(&small, w.model, 5, &err));
  const struct seen before = see(user);
  REFUSED(MELU_ELIMIT, melu_user_rate(user, small, w.model, w.data, t.items[0], 1, &err));
  ck_assert(looks(user, &before));
  melu_workspace *smaller;
  DO(melu_workspace_new(&smaller, w.model, 4, &err));
  REFUSED(MELU_ELIMIT, melu_user_forget(user, smaller, w.model, w.data, t.items[0], &err));
  ck_assert(looks(user, &before));
  melu_workspace_free(smaller);
  untell(&t, t.items[2]);
  DO(melu_user_forget(user, small, w.model, w.data, told_of(6, 2).items[2], &err));
  check_adapted(user, twin, &t, "forget with five ratings");
  melu_user_free(user);
  melu_user_free(twin);
  melu_workspace_free(small);
  close_world();
}
END_TEST

static void add_tests(Suite *suite) {
  TCase *t = tcase_create("ratings");
  tcase_set_timeout(t, 250);
  tcase_add_loop_test(t, any_sequence_is_adapting_at_once, 0, N_SETTINGS);
  tcase_add_loop_test(t, up_and_down, 0, N_SETTINGS);
  tcase_add_loop_test(t, a_new_user, 0, N_SETTINGS);
  tcase_add_loop_test(t, the_model_changes, 0, N_SETTINGS);
  tcase_add_loop_test(t, items_that_are_gone, 0, N_SETTINGS);
  tcase_add_loop_test(t, her_own_ratings_as_arguments, 0, N_SETTINGS);
  tcase_add_loop_test(t, a_smaller_workspace, 0, N_SETTINGS);
  suite_add_tcase(suite, t);
}

static void add_byte_tests(Suite *suite) {
  TCase *t = tcase_create("bytes");
  tcase_set_timeout(t, 250);
  tcase_add_loop_test(t, truncated_at_every_byte, 0, ITEMS + 1);
  tcase_add_loop_test(t, every_bit_flipped, 0, ITEMS + 1);
  tcase_add_loop_test(t, pieces_swapped, 0, ITEMS + 1);
  tcase_add_loop_test(t, hostile_headers, 0, N_SETTINGS);
  tcase_add_loop_test(t, hostile_profiles_and_ratings, 0, N_SETTINGS);
  tcase_add_loop_test(t, hostile_numbers, 0, ITEMS + 1);
  tcase_add_test(t, bytes_that_diverge);
  tcase_add_loop_test(t, bytes_for_a_larger_workspace, 0, N_SETTINGS);
  tcase_add_loop_test(t, bytes_of_another_model, 0, N_SETTINGS);
  tcase_add_loop_test(t, another_process_sees_the_same, 0, N_SETTINGS);
  tcase_add_loop_test(t, sizes_are_as_promised, 0, 2);
  suite_add_tcase(suite, t);
}

static void add_other_tests(Suite *suite) {
  TCase *t = tcase_create("memory, digest, arguments");
  tcase_set_timeout(t, 250);
  tcase_add_loop_test(t, every_allocation_refused, 0, N_SETTINGS);
  tcase_add_loop_test(t, no_memory_is_asked_for_twice, 0, N_SETTINGS);
  tcase_add_test(t, digests_change_with_what_matters);
  tcase_add_loop_test(t, digests_change_with_every_number, 0, ITEMS + 1);
  tcase_add_loop_test(t, a_saved_model_keeps_its_digest, 0, N_SETTINGS);
  tcase_add_loop_test(t, bad_arguments, 0, ITEMS + 1);
  suite_add_tcase(suite, t);
}

int main(int argc, char **argv) {
  is_elsewhere = argc == 2;
  if (is_elsewhere) return serve_elsewhere(argv[1]);
  Suite *suite = suite_create("user_object");
  program = argv[0];
  add_tests(suite);
  add_byte_tests(suite);
  add_other_tests(suite);
  return run_suite(suite);
}
