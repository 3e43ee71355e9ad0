/* SPDX-License-Identifier: BSD-3-Clause */
/* Trainings on the files of a shard folder: who comes when, that it does not matter who reads which slots, and that
 * melu_fit_shards does what a plain loop over users in memory does. */
#include <math.h>

#include "base/mix.h"
#include "base/rng.h"
#include "gang.h"
#include "io/shards.h"
#include "meta/episode.h"
#include "meta/source.h"
#include "run_suite.h"
#include "shard_world.h"
#include "support.h"

enum { N_FILES = 8, N_SLOTS = 4, N_QUERY = 2, MIN_RATINGS = 4, MAX_RATINGS = 11, SEED = 5 };

static melu_error err;
static struct shard_world world;
static melu_shards *shards;

static void open_world(const struct melu_context_options *options) {
  shard_world_open(&world, options, 1);
  shard_write(&world, N_FILES);
  SHARD_TRY(melu_shards_open(&shards, world.ctx, world.folder, &err));
}

static void setup(void) {
  open_world(NULL);
}

static void teardown(void) {
  melu_shards_free(shards);
  shard_world_close(&world);
}

/* ---------------------------------------------------------------------------------------------------- the source */

static struct melu_fit_options source_options(double share) {
  return (struct melu_fit_options){.size = sizeof(struct melu_fit_options),
                                   .seed = SEED,
                                   .n_query = N_QUERY,
                                   .min_ratings = MIN_RATINGS,
                                   .max_ratings = MAX_RATINGS,
                                   .max_support = 100,
                                   .validation = share};
}

/* A source, with a batch of its own, of a context with so many slots, of which `rank` of so many has some. */
struct opened {
  melu_context *ctx;
  melu_group *group;
  melu_shards *shards;
  struct melu__source source;
  melu_batch *batch;
  size_t n_own;
};

static void open_source(struct opened *o, double share, size_t n_slots, size_t rank, size_t n_ranks) {
  const struct melu_fit_options options = source_options(share);
  const struct melu_group_options of_group = {.size = sizeof of_group};
  struct melu_collective collective = {.size = sizeof collective};
  const struct melu_context_options of_context = {
      .size = sizeof of_context, .n_slots = n_slots, .collective = &collective};
  SHARD_TRY(melu_group_new(&o->group, n_ranks, &of_group, &err));
  SHARD_TRY(melu_group_member(&collective, o->group, rank, &err));
  SHARD_TRY(melu_context_new(&o->ctx, &of_context, &err));
  SHARD_TRY(melu_shards_open(&o->shards, o->ctx, world.folder, &err));
  SHARD_TRY(melu__shard_source(&o->source, o->ctx, o->shards, &options, &err));
  const uint64_t no_matter[N_SLOTS] = {0};
  SHARD_TRY(o->source.leave_out(o->source.arg, no_matter, &err));
  SHARD_TRY(o->source.new_batch(o->source.arg, &o->batch, &err));
  o->n_own = o->source.own.hi - o->source.own.lo;
}

static void close_source(struct opened *o) {
  o->source.free_batch(o->source.arg, o->batch);
  melu__source_free(&o->source);
  melu_shards_free(o->shards);
  melu_context_free(o->ctx);
  melu_group_free(o->group);
}

/* The length of a slot's list, by the slot's number among its own. */
static size_t length_of(const struct opened *o, enum melu__list list, size_t own) {
  const struct melu__source_slot *slot = &o->source.slots[own];
  return (size_t)(list == MELU__LEFT_OUT ? slot->n_left_out : slot->n_users);
}

static size_t count(const struct opened *o, enum melu__list list) {
  size_t n = 0;
  for (size_t own = 0; own < o->n_own; own++) n += length_of(o, list, own);
  return n;
}

/* Episodes as somebody can remember them who has other data: by ids. */
struct episode {
  uint64_t user;
  uint32_t n_support, n_query, positions[MAX_RATINGS];
  uint32_t items[MAX_RATINGS];
  float ratings[MAX_RATINGS];
};

static void remember(struct episode *to, const melu_batch *batch, size_t i) {
  const struct melu__task *task = &batch->tasks[i];
  const uint32_t *items;
  const float *ratings;
  memset(to, 0, sizeof *to);
  to->user = melu_dataset_user_id(batch->data, task->user);
  to->n_support = task->n_support;
  to->n_query = task->n_query;
  melu_dataset_ratings(batch->data, task->user, &items, &ratings);
  for (size_t k = 0; k < task->n_support + task->n_query; k++) {
    to->positions[k] = batch->positions[task->start + k];
    to->items[k] = items[k];
    to->ratings[k] = ratings[k];
  }
}

/* Users [first, first + n) of one slot's list in batches of so many; returns how many. */
static size_t take(struct episode *to, struct opened *o, enum melu__list list, size_t own, size_t first, size_t n,
                   size_t of_batch, uint32_t draw) {
  size_t n_taken = 0, n_tasks[N_SLOTS];
  while (n_taken < n) {
    const size_t more = n - n_taken < of_batch ? n - n_taken : of_batch;
    uint64_t begin[N_SLOTS] = {0}, end[N_SLOTS] = {0};
    begin[own] = first + n_taken;
    end[own] = begin[own] + more;
    SHARD_TRY(o->source.fill(o->source.arg, o->batch, list, draw, begin, end, n_tasks, &err));
    ck_assert_uint_eq(melu_batch_n_tasks(o->batch), more);
    for (size_t slot = 0; slot < o->n_own; slot++) ck_assert_uint_eq(n_tasks[slot], slot < own ? 0 : more);
    for (size_t i = 0; i < more; i++) remember(&to[n_taken + i], o->batch, i);
    n_taken += more;
  }
  return n_taken;
}

/* Everybody of a list, slot by slot. */
static size_t take_all(struct episode *to, struct opened *o, enum melu__list list, size_t of_batch, uint32_t draw) {
  size_t n = 0;
  for (size_t own = 0; own < o->n_own; own++)
    n += take(to + n, o, list, own, 0, length_of(o, list, own), of_batch, draw);
  return n;
}

static void begin_epoch(struct opened *o, uint32_t epoch) {
  o->source.begin_epoch(o->source.arg, epoch);
}

static uint32_t user_of(uint64_t id) {
  uint32_t user = 0;
  while (shard_user_id(user) != id) ck_assert_uint_lt(++user, SHARD_USERS);
  return user;
}

static size_t count_eligible(void) {
  size_t n = 0;
  for (uint32_t u = 0; u < SHARD_USERS; u++) {
    const size_t n_ratings = shard_n_ratings(u);
    n += n_ratings >= MIN_RATINGS && n_ratings <= MAX_RATINGS;
  }
  return n;
}

/* Each eligible user once, with her ratings, in the slot that she belongs to. */
static void check_everybody(const struct episode *taken, size_t n, size_t n_slots, const struct opened *o) {
  int seen[SHARD_USERS] = {0};
  ck_assert_uint_eq(n, count_eligible());
  for (size_t i = 0, slot = 0, of_slot = 0; i < n; i++, of_slot++) {
    const uint32_t user = user_of(taken[i].user);
    while (of_slot == length_of(o, MELU__TRAINED, slot)) {
      slot++;
      of_slot = 0;
    }
    ck_assert_int_eq(seen[user]++, 0);
    ck_assert_uint_eq(melu_slot(taken[i].user, n_slots), slot);
    ck_assert_uint_eq(taken[i].n_support + taken[i].n_query, shard_n_ratings(user));
    for (size_t k = 0; k < shard_n_ratings(user); k++) {
      ck_assert_uint_eq(taken[i].items[k], shard_item(user, k));
      ck_assert(taken[i].ratings[k] == shard_rating(user, k));
    }
  }
}

START_TEST(everybody_once_an_epoch) {
  const size_t n_slots = _i ? N_SLOTS : 1;
  struct opened o;
  struct episode taken[2][SHARD_USERS];
  size_t n_same = 0, n = 0;
  open_source(&o, 0, n_slots, 0, 1);
  for (uint32_t epoch = 0; epoch < 2; epoch++) {
    begin_epoch(&o, epoch);
    n = take_all(taken[epoch], &o, MELU__TRAINED, 7, epoch);
    check_everybody(taken[epoch], n, n_slots, &o);
  }
  for (size_t i = 0; i < n; i++) n_same += taken[0][i].user == taken[1][i].user;
  ck_assert_uint_lt(n_same, n / 2);
  ck_assert_uint_eq(count(&o, MELU__TRAINED), n);
  ck_assert_uint_eq(count(&o, MELU__LEFT_OUT), 0);
  close_source(&o);
}
END_TEST

/* The order is one of files, which is shuffled, and in each of its users. */
START_TEST(order_by_files) {
  struct opened o;
  struct episode taken[SHARD_USERS];
  size_t order[N_FILES], n_files = 0, n_ascending = 0;
  open_source(&o, 0, 1, 0, 1);
  begin_epoch(&o, 3);
  const size_t n = take_all(taken, &o, MELU__TRAINED, 7, 3);
  for (size_t i = 0; i < n; i++) {
    const size_t file = melu__mix64(taken[i].user) % N_FILES;
    if (n_files && order[n_files - 1] == file) {
      n_ascending += taken[i].user > taken[i - 1].user;
      continue;
    }
    for (size_t k = 0; k < n_files; k++) ck_assert_uint_ne(order[k], file);
    order[n_files++] = file;
  }
  ck_assert_uint_eq(n_files, N_FILES);
  ck_assert_uint_gt(n_ascending, n / 4);
  ck_assert_uint_lt(n_ascending, n - n / 4);
  size_t n_of_files = 0;
  for (size_t k = 1; k < N_FILES; k++) n_of_files += order[k] > order[k - 1];
  ck_assert(n_of_files > 0 && n_of_files < N_FILES - 1);
  close_source(&o);
}
END_TEST

/* Ranks that have some of the slots each see what one sees that has them all, and ask for it in other batches. */
START_TEST(any_rank_and_any_batch) {
  struct opened all, some;
  struct episode expected[SHARD_USERS], taken[SHARD_USERS];
  open_source(&all, 0.2, N_SLOTS, 0, 1);
  for (uint32_t epoch = 0; epoch < 3; epoch += 2)
    for (int list = 0; list <= MELU__LEFT_OUT; list++)
      for (size_t rank = 0; rank < 2; rank++) {
        open_source(&some, 0.2, N_SLOTS, rank, 2);
        ck_assert(some.n_own == N_SLOTS / 2 && some.source.own.lo == rank * N_SLOTS / 2);
        begin_epoch(&some, epoch);
        begin_epoch(&all, epoch);
        for (size_t own = 0; own < some.n_own; own++) {
          const size_t slot = some.source.own.lo + own, n = length_of(&all, (enum melu__list)list, slot);
          ck_assert_uint_eq(length_of(&some, (enum melu__list)list, own), n);
          ck_assert(memcmp(&some.source.slots[own], &all.source.slots[slot], sizeof some.source.slots[own]) == 0);
          take(expected, &all, (enum melu__list)list, slot, 0, n, 3, epoch);
          take(taken, &some, (enum melu__list)list, own, 0, n, 100, epoch);
          ck_assert(memcmp(expected, taken, n * sizeof *taken) == 0);
        }
        close_source(&some);
      }
  close_source(&all);
}
END_TEST

/* Who goes on in the midst of an epoch, or asks for something else in between, gets the same. */
START_TEST(from_anywhere) {
  struct opened o, other;
  struct episode expected[SHARD_USERS], taken[SHARD_USERS];
  open_source(&o, 0.3, 1, 0, 1);
  open_source(&other, 0.3, 1, 0, 1);
  begin_epoch(&o, 1);
  const size_t n = take_all(expected, &o, MELU__TRAINED, 5, 1);
  for (size_t first = 0; first < n; first += 9) {
    begin_epoch(&other, 1);
    const size_t left = n - first < 20 ? n - first : 20;
    take(taken, &other, MELU__TRAINED, 0, first, left, 6, 1);
    ck_assert(memcmp(expected + first, taken, left * sizeof *taken) == 0);
    take(taken, &other, MELU__LEFT_OUT, 0, 0, length_of(&other, MELU__LEFT_OUT, 0), 4, UINT32_MAX);
    take(taken, &other, MELU__TRAINED, 0, 0, left, 6, 1); /* back to the beginning */
    ck_assert(memcmp(expected, taken, left * sizeof *taken) == 0);
  }
  close_source(&o);
  close_source(&other);
}
END_TEST

/* A batch stays as it is while another one is filled. */
START_TEST(several_batches) {
  struct opened o;
  struct episode first[9], again[9];
  melu_batch *other, *third;
  uint64_t begin[1] = {0}, end[1] = {9};
  size_t n_tasks[1];
  open_source(&o, 0, 1, 0, 1);
  SHARD_TRY(o.source.new_batch(o.source.arg, &other, &err));
  SHARD_TRY(o.source.new_batch(o.source.arg, &third, &err));
  begin_epoch(&o, 0);
  SHARD_TRY(o.source.fill(o.source.arg, o.batch, MELU__TRAINED, 0, begin, end, n_tasks, &err));
  for (size_t i = 0; i < 9; i++) remember(&first[i], o.batch, i);
  for (begin[0] = 9, end[0] = 30; end[0] < 50; begin[0] += 10, end[0] += 10) {
    melu_batch *const filled = end[0] == 40 ? third : other;
    SHARD_TRY(o.source.fill(o.source.arg, filled, MELU__TRAINED, 0, begin, end, n_tasks, &err));
    ck_assert_ptr_ne(filled->data, o.batch->data);
  }
  for (size_t i = 0; i < 9; i++) remember(&again[i], o.batch, i);
  ck_assert(memcmp(first, again, sizeof first) == 0);
  o.source.free_batch(o.source.arg, other);
  o.source.free_batch(o.source.arg, third);
  close_source(&o);
}
END_TEST

/* A share of them, for good, whatever the folder is like. */
START_TEST(left_out) {
  struct opened o;
  struct episode trained[SHARD_USERS], left[SHARD_USERS];
  int is_left[SHARD_USERS] = {0};
  open_source(&o, 0.3, 1, 0, 1);
  begin_epoch(&o, 0);
  const size_t n = take_all(trained, &o, MELU__TRAINED, 7, 0), m = take_all(left, &o, MELU__LEFT_OUT, 7, 0);
  ck_assert_uint_eq(n + m, count_eligible());
  ck_assert_msg(m > n / 8 && m < n, "%zu of %zu are left out", m, n + m);
  for (size_t i = 0; i < m; i++) {
    is_left[user_of(left[i].user)] = 1;
    ck_assert(i == 0 || melu__mix64(left[i].user) % N_FILES >= melu__mix64(left[i - 1].user) % N_FILES);
  }
  for (size_t i = 0; i < n; i++) ck_assert(!is_left[user_of(trained[i].user)]);
  close_source(&o);

  struct episode again[SHARD_USERS];
  folder_files(world.folder, 1);
  shard_write(&world, 3);
  open_source(&o, 0.3, 1, 0, 1);
  ck_assert_uint_eq(take_all(again, &o, MELU__LEFT_OUT, 7, 0), m);
  for (size_t i = 0; i < m; i++) ck_assert(is_left[user_of(again[i].user)]);
  close_source(&o);
}
END_TEST

struct seen {
  size_t n;
  double n_ratings, sum, squares;
  int users[SHARD_USERS], items[SHARD_ITEMS], rated[SHARD_ITEMS];
};

static void look_at_user(void *arg, const melu_dataset *data, uint32_t entity) {
  struct seen *seen = arg;
  struct melu_value values[SHARD_FIELDS];
  SHARD_TRY(melu_dataset_user_values(values, data, entity, &err));
  const uint32_t user = user_of(melu_dataset_user_id(data, entity));
  ck_assert_uint_eq(values[1].n_ids, user % 3 ? user % 10 : 0);
  ck_assert_int_eq(seen->users[user]++, 0);
  seen->n++;
  for (size_t i = 0; i < shard_n_ratings(user); i++) {
    const double rating = (double)shard_rating(user, i);
    seen->n_ratings++;
    seen->sum += rating;
    seen->squares += rating * rating;
    seen->rated[shard_item(user, i)] = 1;
  }
}

static void look_at_item(void *arg, const melu_dataset *data, uint32_t entity) {
  struct seen *seen = arg;
  ck_assert_uint_eq(melu_dataset_item_id(data, entity), shard_item_id(entity));
  ck_assert_int_eq(seen->items[entity]++, 0);
}

START_TEST(all_are_shown) {
  struct opened o;
  struct seen seen = {0};
  double n_ratings = 0, sum = 0, squares = 0;
  open_source(&o, 0.2, N_SLOTS, 0, 1);
  SHARD_TRY(o.source.visit(o.source.arg, MELU_USER, look_at_user, &seen, &err));
  SHARD_TRY(o.source.visit(o.source.arg, MELU_ITEM, look_at_item, &seen, &err));
  ck_assert_uint_eq(seen.n, count(&o, MELU__TRAINED));
  ck_assert(memcmp(seen.items, seen.rated, sizeof seen.items) == 0);
  for (size_t own = 0; own < o.n_own; own++) {
    n_ratings += o.source.slots[own].n_ratings;
    sum += o.source.slots[own].sum;
    squares += o.source.slots[own].squares;
  }
  ck_assert(n_ratings == seen.n_ratings && sum == seen.sum && squares == seen.squares); /* quarters are exact */
  close_source(&o);
}
END_TEST

/* -------------------------------------------------------------------------------------------------- trainings */

enum kind { LAYERS, FACTORS, N_KINDS };

static const struct melu_model_options *model_options(enum kind kind) {
  static const size_t hidden[2] = {6, 5};
  static const struct melu_model_options options[N_KINDS] = {
      {.size = sizeof *options, .seed = 7, .hidden = hidden, .n_hidden = 2, .inner_steps = 2},
      {.size = sizeof *options, .seed = 7, .preset = "best", .hidden = hidden, .n_hidden = 1, .rank = 3}};
  return &options[kind];
}

static melu_model *new_model(const melu_dataset *items, enum kind kind) {
  melu_model *model;
  SHARD_TRY(melu_model_new(&model, world.ctx, melu_dataset_schema(items), model_options(kind), &err));
  return model;
}

static struct melu_fit_options fit_options(void) {
  static const struct melu_optimizer_options optimizer = {.size = sizeof optimizer, .lr = 0.01};
  return (struct melu_fit_options){.size = sizeof(struct melu_fit_options),
                                   .n_epochs = 2,
                                   .batch_tasks = 7,
                                   .n_query = N_QUERY,
                                   .min_ratings = MIN_RATINGS,
                                   .max_ratings = MAX_RATINGS,
                                   .seed = SEED,
                                   .optimizer = &optimizer};
}

static void digest_of(unsigned char digest[MELU_DIGEST_BYTES], const melu_model *model) {
  SHARD_TRY(melu_model_digest(digest, model, &err));
}

/* A file's users in the order of an epoch. */
static size_t list_file(uint64_t *ids, size_t file, uint32_t epoch) {
  melu_dataset *data;
  uint32_t users[SHARD_USERS];
  size_t n = 0;
  SHARD_TRY(melu_shards_read(&data, shards, file, &err));
  for (uint32_t u = 0; u < melu_dataset_n_users(data); u++) {
    const size_t n_ratings = melu_dataset_ratings(data, u, NULL, NULL);
    if (n_ratings >= MIN_RATINGS && n_ratings <= MAX_RATINGS) users[n++] = u;
  }
  struct melu__rng rng = melu__rng(SEED, MELU__RNG_FILE, epoch, (uint32_t)file);
  melu__rng_shuffle(&rng, users, n);
  for (size_t i = 0; i < n; i++) ids[i] = melu_dataset_user_id(data, users[i]);
  melu_dataset_free(data);
  return n;
}

/* Trains by the same tasks, of a data set that has all users in the order in which they were added. */
static void train_plainly(melu_model *model, const melu_dataset *data) {
  uint32_t positions[32];
  const struct melu__episodes episodes = {.seed = SEED, .n_query = N_QUERY, .max_support = 100, .positions = positions};
  const struct melu_fit_options fit = fit_options();
  melu_batch *batch;
  melu_gradient *gradient;
  melu_optimizer *optimizer;
  SHARD_TRY(melu_batch_new(&batch, world.ctx, data, &err));
  SHARD_TRY(melu_gradient_new(&gradient, model, &err));
  SHARD_TRY(melu_optimizer_new(&optimizer, model, fit.optimizer, &err));
  for (uint32_t epoch = 0; epoch < fit.n_epochs; epoch++) {
    uint32_t files[N_FILES], user;
    uint64_t ids[SHARD_USERS];
    size_t n = 0;
    struct melu__rng rng = melu__rng(SEED, MELU__RNG_ORDER, epoch, 0);
    for (uint32_t f = 0; f < N_FILES; f++) files[f] = f;
    melu__rng_shuffle(&rng, files, N_FILES);
    for (size_t f = 0; f < N_FILES; f++) n += list_file(ids + n, files[f], epoch);
    for (size_t i = 0; i < n;) {
      melu_batch_clear(batch);
      for (size_t k = 0; k < fit.batch_tasks && i < n; k++, i++) {
        SHARD_TRY(melu_dataset_find_user(&user, data, ids[i], &err));
        SHARD_TRY(melu__episode_add(&episodes, batch, user, ids[i], epoch, &err));
      }
      SHARD_TRY(melu_meta_gradient(gradient, model, batch, &err));
      SHARD_TRY(melu_optimizer_step(optimizer, model, gradient, &err));
    }
  }
  melu_optimizer_free(optimizer);
  melu_gradient_free(gradient);
  melu_batch_free(batch);
}

START_TEST(as_a_plain_loop) {
  unsigned char digest[MELU_DIGEST_BYTES], expected[MELU_DIGEST_BYTES];
  const struct melu_fit_options fit = fit_options();
  SHARD_TRY(melu_dataset_freeze(world.data, &err));
  melu_model *model = new_model(melu_shards_items(shards), LAYERS), *other = new_model(world.data, LAYERS);
  SHARD_TRY(melu_fit_shards(model, shards, &fit, &err));
  train_plainly(other, world.data);
  digest_of(digest, model);
  digest_of(expected, other);
  ck_assert(memcmp(digest, expected, sizeof digest) == 0);
  melu_model_free(model);
  melu_model_free(other);
}
END_TEST

/* What a new model of factors takes from the data is what it takes from them in memory. */
START_TEST(starts_as_in_memory) {
  struct melu_fit_options fit = fit_options();
  struct melu_optimizer_options still = {.size = sizeof still, .kind = MELU_SGD, .lr = 1e-30};
  fit.optimizer = &still;
  fit.n_epochs = 1;
  SHARD_TRY(melu_dataset_freeze(world.data, &err));
  melu_model *model = new_model(melu_shards_items(shards), FACTORS), *other = new_model(world.data, FACTORS);
  SHARD_TRY(melu_fit_shards(model, shards, &fit, &err));
  SHARD_TRY(melu_fit(other, world.data, &fit, &err));
  for (size_t i = 0; i < melu_model_n_params(model); i++) {
    struct melu_param p;
    SHARD_TRY(melu_model_param(&p, model, i, &err));
    float *a = malloc(p.rows * p.cols * sizeof *a), *b = malloc(p.rows * p.cols * sizeof *b);
    ck_assert(a && b);
    SHARD_TRY(melu_model_read(a, model, p.name, 0, p.rows, &err));
    SHARD_TRY(melu_model_read(b, other, p.name, 0, p.rows, &err));
    for (size_t k = 0; k < p.rows * p.cols && strcmp(p.name, "noise") != 0; k++)
      ck_assert_msg(fabsf(a[k] - b[k]) <= 1e-6F * fabsf(b[k]) + 1e-20F, "%s: number %zu: %g, %g", p.name, k,
                    (double)a[k], (double)b[k]);
    free(a);
    free(b);
  }
  melu_model_free(model);
  melu_model_free(other);
}
END_TEST

/* Asks the training to stop at one of its reports, and counts them. */
struct host {
  size_t stop_at, n_read, n_fit;
  uint64_t last, total;
};

static int hear(void *arg, const struct melu_progress *progress) {
  struct host *host = arg;
  if (strcmp(progress->phase, "write") == 0) return 0;
  host->n_read += strcmp(progress->phase, "read") == 0;
  host->n_fit += strcmp(progress->phase, "fit") == 0;
  host->last = progress->done;
  host->total = progress->total;
  return host->n_read + host->n_fit == host->stop_at;
}

static melu_status train(const struct melu_fit_options *fit, enum kind kind, size_t n_threads, struct host *host,
                         unsigned char digest[MELU_DIGEST_BYTES]) {
  const struct melu_context_options options = {
      .size = sizeof options, .n_threads = n_threads, .progress = hear, .progress_arg = host};
  open_world(&options);
  melu_model *model = new_model(melu_shards_items(shards), kind);
  const melu_status status = melu_fit_shards(model, shards, fit, &err);
  digest_of(digest, model);
  melu_model_free(model);
  teardown();
  return status;
}

/* Stopped at each of its reports, and gone on with on other numbers of threads, from another folder like this one. */
START_TEST(resumed_as_if_never_stopped) {
  const enum kind kind = (enum kind)(_i % N_KINDS);
  char path[64] = "/tmp/melu-stream-XXXXXX";
  unsigned char expected[MELU_DIGEST_BYTES], digest[MELU_DIGEST_BYTES];
  struct host undisturbed = {.stop_at = 0};
  struct melu_fit_options fit = fit_options();
  ck_assert_ptr_nonnull(mkdtemp(path));
  strcat(path, "/training");
  fit.validation = 0.2;
  fit.patience = 2;
  ck_assert_int_eq(train(&fit, kind, 1, &undisturbed, expected), MELU_OK);
  ck_assert_uint_eq(undisturbed.n_read, kind == FACTORS ? 2 * N_FILES : N_FILES);
  ck_assert_uint_eq(undisturbed.last, undisturbed.total);
  fit.checkpoint = path;
  fit.checkpoint_updates = (size_t)_i / N_KINDS;
  for (size_t stop = undisturbed.n_read + 1; stop <= undisturbed.n_read + undisturbed.n_fit; stop++) {
    struct host first = {.stop_at = stop}, second = {.stop_at = 0};
    fit.resume = 0;
    ck_assert_int_eq(train(&fit, kind, 1 + stop % 3, &first, digest), MELU_ECANCELED);
    fit.resume = 1;
    ck_assert_int_eq(train(&fit, kind, 1 + stop % 2, &second, digest), MELU_OK);
    ck_assert_msg(memcmp(digest, expected, sizeof digest) == 0, "stopped after report %zu: other weights", stop);
    ck_assert(stop == undisturbed.n_read + undisturbed.n_fit || second.n_fit < undisturbed.n_fit);
  }
  unlink(path);
  *strrchr(path, '/') = '\0';
  ck_assert_int_eq(rmdir(path), 0);
}
END_TEST

START_TEST(stopped_while_it_reads) {
  const struct melu_fit_options fit = fit_options();
  unsigned char digest[MELU_DIGEST_BYTES], fresh[MELU_DIGEST_BYTES];
  for (size_t stop = 1; stop <= 2 * N_FILES; stop += 5) {
    struct host host = {.stop_at = stop};
    ck_assert_int_eq(train(&fit, FACTORS, 1, &host, digest), MELU_ECANCELED);
    ck_assert_uint_eq(host.n_fit, 0);
    setup();
    melu_model *model = new_model(melu_shards_items(shards), FACTORS);
    digest_of(fresh, model);
    ck_assert(memcmp(digest, fresh, sizeof fresh) == 0);
    melu_model_free(model);
    teardown();
  }
}
END_TEST

/* ----------------------------------------------------------------------------------------------- several ranks */

struct outcome {
  enum kind kind;
  unsigned char digests[N_SLOTS][MELU_DIGEST_BYTES]; /* of each rank's model */
  melu_status statuses[N_SLOTS];
};

static void train_rank(const struct gang_rank *self) {
  struct outcome *all = self->arg;
  melu_error mine;
  melu_context *ctx = NULL;
  melu_shards *own = NULL;
  melu_model *model = NULL;
  struct melu_fit_options fit = fit_options();
  const struct melu_context_options options = {
      .size = sizeof options, .n_slots = N_SLOTS, .collective = &self->collective};
  fit.validation = 0.2;
  melu_status status = melu_context_new(&ctx, &options, &mine);
  if (!status) status = melu_shards_open(&own, ctx, world.folder, &mine);
  if (!status)
    status = melu_model_new(&model, ctx, melu_dataset_schema(melu_shards_items(own)), model_options(all->kind), &mine);
  if (!status) status = melu_fit_shards(model, own, &fit, &mine);
  if (!status) status = melu_model_digest(all->digests[self->rank], model, &mine);
  all->statuses[self->rank] = status;
  melu_model_free(model);
  melu_shards_free(own);
  melu_context_free(ctx);
}

START_TEST(any_number_of_ranks) {
  struct outcome one = {.kind = (enum kind)_i}, some = {.kind = (enum kind)_i};
  gang_run(1, 0, train_rank, &one);
  ck_assert_int_eq(one.statuses[0], MELU_OK);
  for (size_t n_ranks = 2; n_ranks <= N_SLOTS; n_ranks++) {
    gang_run(n_ranks, 0, train_rank, &some);
    for (size_t r = 0; r < n_ranks; r++) {
      ck_assert_int_eq(some.statuses[r], MELU_OK);
      ck_assert(memcmp(some.digests[r], one.digests[0], MELU_DIGEST_BYTES) == 0);
    }
  }
}
END_TEST

/* A file that one of them cannot read ends the training of all. */
START_TEST(file_of_one_rank) {
  struct outcome all = {.kind = LAYERS};
  char path[96];
  snprintf(path, sizeof path, "%s/users-00003.safetensors", world.folder);
  ck_assert_int_eq(truncate(path, 200), 0);
  gang_run(3, 0, train_rank, &all);
  for (size_t r = 0; r < 3; r++) ck_assert_int_eq(all.statuses[r], MELU_EFORMAT);
}
END_TEST

#define REFUSED(call, expected, text)                                                                        \
  do {                                                                                                       \
    const melu_status status_ = (call);                                                                      \
    ck_assert_msg(status_ == (expected) && strstr(err.message, (text)), "%s: %s", melu_status_name(status_), \
                  err.message);                                                                              \
  } while (0)

START_TEST(refused) {
  const uint32_t listed[1] = {0};
  struct melu_fit_options fit = fit_options();
  melu_model *model = new_model(melu_shards_items(shards), LAYERS);
  REFUSED(melu_fit_shards(NULL, shards, &fit, &err), MELU_EINVAL, "model is NULL");
  REFUSED(melu_fit_shards(model, NULL, &fit, &err), MELU_EINVAL, "shards are NULL");
  fit.min_ratings = fit.max_ratings = 100;
  REFUSED(melu_fit_shards(model, shards, &fit, &err), MELU_ENOTFOUND, "no user to train on");
  fit.n_query = 1000000;
  REFUSED(melu_fit_shards(model, shards, &fit, &err), MELU_ELIMIT, "n_query");
  fit = fit_options();
  fit.validation_users = listed;
  fit.n_validation_users = 1;
  REFUSED(melu_fit_shards(model, shards, &fit, &err), MELU_EINVAL, "of shards a share is left out");
  melu_model_free(model);
  melu_schema *schema;
  SHARD_TRY(melu_schema_new(&schema, world.ctx, &err));
  const struct melu_field field = {.size = sizeof field, .name = "odd", .owner = MELU_ITEM, .n_values = 3};
  SHARD_TRY(melu_schema_add(schema, &field, &err));
  SHARD_TRY(melu_model_new(&model, world.ctx, schema, NULL, &err));
  fit = fit_options();
  REFUSED(melu_fit_shards(model, shards, &fit, &err), MELU_ESCHEMA, "another schema");
  melu_schema_free(schema);
  melu_model_free(model);

  melu_context *ctx;
  melu_shards *other;
  const struct melu_context_options of_three = {.size = sizeof of_three, .n_slots = 3};
  SHARD_TRY(melu_context_new(&ctx, &of_three, &err));
  SHARD_TRY(melu_shards_open(&other, ctx, world.folder, &err));
  SHARD_TRY(melu_model_new(&model, ctx, melu_dataset_schema(melu_shards_items(other)), NULL, &err));
  REFUSED(melu_fit_shards(model, other, &fit, &err), MELU_EINVAL, "there are 8 files, no multiple of the 3 slots");
  melu_model_free(model);
  melu_shards_free(other);
  melu_context_free(ctx);
}
END_TEST

/* A file that is there no more, or is another one, ends the training where it stands. */
START_TEST(files_that_go) {
  const struct melu_fit_options fit = fit_options();
  char path[96];
  melu_model *model = new_model(melu_shards_items(shards), LAYERS);
  unsigned char before[MELU_DIGEST_BYTES], after[MELU_DIGEST_BYTES];
  digest_of(before, model);
  snprintf(path, sizeof path, "%s/users-00005.safetensors", world.folder);
  ck_assert_int_eq(truncate(path, 100), 0);
  REFUSED(melu_fit_shards(model, shards, &fit, &err), MELU_EFORMAT, "users-00005.safetensors");
  unlink(path);
  REFUSED(melu_fit_shards(model, shards, &fit, &err), MELU_ENOTFOUND, "users-00005.safetensors");
  digest_of(after, model);
  ck_assert(memcmp(before, after, sizeof after) == 0);
  melu_model_free(model);
}
END_TEST

struct thief {
  char path[96];
  size_t n_fit;
};

static int steal(void *arg, const struct melu_progress *progress) {
  struct thief *thief = arg;
  if (strcmp(progress->phase, "fit") == 0 && ++thief->n_fit == 1) unlink(thief->path);
  return 0;
}

START_TEST(files_that_go_in_the_midst) {
  const struct melu_fit_options fit = fit_options();
  struct thief thief = {.n_fit = 0};
  unsigned char before[MELU_DIGEST_BYTES], after[MELU_DIGEST_BYTES];
  const struct melu_context_options options = {.size = sizeof options, .progress = steal, .progress_arg = &thief};
  open_world(&options);
  /* that of the epoch's last file */
  uint32_t files[N_FILES];
  struct melu__rng rng = melu__rng(SEED, MELU__RNG_ORDER, 0, 0);
  for (uint32_t f = 0; f < N_FILES; f++) files[f] = f;
  melu__rng_shuffle(&rng, files, N_FILES);
  snprintf(thief.path, sizeof thief.path, "%s/users-%05u.safetensors", world.folder, (unsigned)files[N_FILES - 1]);
  melu_model *model = new_model(melu_shards_items(shards), LAYERS);
  digest_of(before, model);
  REFUSED(melu_fit_shards(model, shards, &fit, &err), MELU_ENOTFOUND, "safetensors");
  ck_assert_uint_gt(thief.n_fit, 3);
  digest_of(after, model);
  ck_assert(memcmp(before, after, sizeof after) != 0);
  melu_model_free(model);
  teardown();
}
END_TEST

/* A resumption from another folder is refused. */
START_TEST(other_data) {
  char path[96];
  struct melu_fit_options fit = fit_options();
  struct host host = {.stop_at = 2 * N_FILES + 3};
  const struct melu_context_options options = {.size = sizeof options, .progress = hear, .progress_arg = &host};
  open_world(&options);
  snprintf(path, sizeof path, "%s/training", world.folder);
  fit.checkpoint = path;
  melu_model *model = new_model(melu_shards_items(shards), FACTORS);
  ck_assert_int_eq(melu_fit_shards(model, shards, &fit, &err), MELU_ECANCELED);
  melu_shards_free(shards);
  unlink(strcat(strcpy((char[96]){0}, world.folder), "/manifest.safetensors"));
  melu_shard_writer *writer;
  const struct melu_shard_options of_files = {.size = sizeof of_files, .n_files = N_FILES};
  SHARD_TRY(melu_shard_writer_new(&writer, world.ctx, world.folder, world.data, &of_files, &err));
  SHARD_TRY(melu_shard_writer_add_rating(writer, shard_user_id(3), shard_item_id(3), 2, &err));
  SHARD_TRY(melu_shard_writer_finish(writer, &err));
  melu_shard_writer_free(writer);
  SHARD_TRY(melu_shards_open(&shards, world.ctx, world.folder, &err));
  fit.resume = 1;
  REFUSED(melu_fit_shards(model, shards, &fit, &err), MELU_EINVAL, "on other data");
  melu_model_free(model);
  teardown();
}
END_TEST

/* ------------------------------------------------------------------------------------------------------ memory */

static struct test_heap heap;

START_TEST(no_memory) {
  const struct melu_allocator allocator = test_allocator(&heap);
  const struct melu_context_options options = {.size = sizeof options, .allocator = &allocator, .n_slots = 2};
  struct melu_fit_options fit = fit_options();
  fit.n_epochs = 1;
  fit.batch_tasks = 100;
  fit.validation = 0.2;
  memset(&heap, 0, sizeof heap);
  open_world(&options);
  int is_refused = 1;
  for (size_t n = 1; is_refused; n++) {
    melu_model *model = new_model(melu_shards_items(shards), (enum kind)_i);
    const size_t live = atomic_load(&heap.live);
    heap.fail_at = atomic_load(&heap.made) + n;
    const melu_status status = melu_fit_shards(model, shards, &fit, &err); /* it does without reading ahead */
    is_refused = heap.made >= heap.fail_at;
    heap.fail_at = 0;
    ck_assert_msg(!status || status == MELU_ENOMEM, "request %zu: %s", n, err.message);
    ck_assert_msg(atomic_load(&heap.live) >= live, "request %zu: memory is given back twice", n);
    melu_model_free(model);
  }
  teardown();
  ck_assert_uint_eq(atomic_load(&heap.live), 0);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("stream");
  TCase *source = tcase_create("source"), *fits = tcase_create("trainings"), *resumed = tcase_create("resumed");
  tcase_add_checked_fixture(source, setup, teardown);
  tcase_add_loop_test(source, everybody_once_an_epoch, 0, 2);
  tcase_add_test(source, order_by_files);
  tcase_add_test(source, any_rank_and_any_batch);
  tcase_add_test(source, from_anywhere);
  tcase_add_test(source, several_batches);
  tcase_add_test(source, left_out);
  tcase_add_test(source, all_are_shown);
  tcase_add_test(source, as_a_plain_loop);
  tcase_add_test(source, starts_as_in_memory);
  tcase_add_loop_test(source, any_number_of_ranks, 0, N_KINDS);
  tcase_add_test(source, file_of_one_rank);
  tcase_add_test(source, refused);
  tcase_add_test(source, files_that_go);
  tcase_add_test(fits, stopped_while_it_reads);
  tcase_add_test(fits, files_that_go_in_the_midst);
  tcase_add_test(fits, other_data);
  tcase_add_loop_test(fits, no_memory, 0, N_KINDS);
  tcase_add_loop_test(resumed, resumed_as_if_never_stopped, 0, 2 * N_KINDS);
  tcase_set_timeout(source, 60);
  tcase_set_timeout(fits, 60);
  tcase_set_timeout(resumed, 120);
  suite_add_tcase(suite, source);
  suite_add_tcase(suite, fits);
  suite_add_tcase(suite, resumed);
  return run_suite(suite);
}
