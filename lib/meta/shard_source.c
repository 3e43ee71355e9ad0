/* SPDX-License-Identifier: BSD-3-Clause */
/* Tasks of the files of a shard folder: of each slot one file is in memory at a time. The files of a slot have another
 * order in every epoch, and so have the users of a file. */
#include <string.h>

#include "base/error.h"
#include "base/rng.h"
#include "data/working.h"
#include "io/shards.h"
#include "meta/episode.h"
#include "meta/source.h"

enum { N_LISTS = MELU__LEFT_OUT + 1 };

/* One of a rank's slots: the file that is open, and where that stands in a list. */
struct cursor {
  enum melu__list list;
  uint32_t *files;    /* of the slot, in the order of the list */
  size_t at;          /* the index in it of the file that is next, or open */
  uint64_t before;    /* users of the list in those before it */
  melu_dataset *data; /* that file; NULL: it is not open */
  uint32_t *users;    /* its users of the list, in their order */
};

/* A batch, and the users that it is of. */
struct filled {
  struct filled *next;
  melu_batch *batch;
  struct melu__working working;
};

struct shard_source {
  const melu_context *ctx;
  const melu_shards *shards;
  uint64_t seed;
  size_t min_ratings, max_ratings;
  double share; /* of users who are left out */
  struct melu__slots own;
  size_t n_files; /* of each slot */
  struct melu__source_slot *slots;
  struct cursor *cursors;
  uint32_t *n_of_file[N_LISTS]; /* (files): users of a list */
  unsigned char *is_rated;      /* (items): by somebody who is trained on */
  struct filled *filled;
  struct melu__episodes episodes;
  uint32_t epoch; /* whose order it is */
};

static size_t n_own(const struct shard_source *s) {
  return s->own.hi - s->own.lo;
}

/* Number i of a slot's files. */
static size_t file_of(const struct shard_source *s, size_t own, size_t i) {
  return s->own.lo + own + i * s->ctx->n_slots;
}

/* ------------------------------------------------------------------------------------------------- who is in it */

/* Left out is who draws a number below the share, whoever is in the folder beside her, and in which file. */
static int is_left_out(const struct shard_source *s, uint64_t user) {
  struct melu__rng rng = melu__rng(s->seed, MELU__RNG_LEFT_OUT, (uint32_t)(user >> 32), (uint32_t)user);
  return s->share > 0 && melu__rng_unit(&rng) < s->share;
}

/* Writes the positions of a file's users of that list; returns how many. */
static size_t list_users(uint32_t *users, const struct shard_source *s, const melu_dataset *data,
                         enum melu__list list) {
  size_t n_listed = 0;
  for (uint32_t u = 0; u < melu_dataset_n_users(data); u++) {
    const size_t n = melu_dataset_ratings(data, u, NULL, NULL);
    if (n < s->min_ratings || n > s->max_ratings) continue;
    if (is_left_out(s, melu_dataset_user_id(data, u)) == (list == MELU__LEFT_OUT)) users[n_listed++] = u;
  }
  return n_listed;
}

typedef void (*look_at_file)(struct shard_source *s, size_t own, size_t file, const melu_dataset *data, void *arg);

/* Reads all files of this rank's slots, slot by slot. */
static melu_status each_file(struct shard_source *s, look_at_file look, void *arg, melu_error *err) {
  struct melu_progress progress = {.phase = "read", .total = s->n_files * n_own(s)};
  melu_status status = MELU_OK;
  for (size_t own = 0; own < n_own(s) && !status; own++)
    for (size_t i = 0; i < s->n_files && !status; i++) {
      melu_dataset *data;
      const size_t file = file_of(s, own, i);
      if (i + 1 < s->n_files) melu__shard_expect(s->shards, file_of(s, own, i + 1));
      status = melu_shards_read(&data, s->shards, file, err);
      if (status) break;
      look(s, own, file, data, arg);
      melu_dataset_free(data);
      progress.done++;
      status = melu__progress(s->ctx, &progress, err);
    }
  return status;
}

static void add_ratings(struct shard_source *s, struct melu__source_slot *slot, const melu_dataset *data,
                        uint32_t user) {
  const uint32_t *items;
  const float *ratings;
  const size_t n = melu_dataset_ratings(data, user, &items, &ratings);
  for (size_t k = 0; k < n; k++) s->is_rated[items[k]] = 1;
  melu__source_slot_add(slot, ratings, n);
}

static void count_file(struct shard_source *s, size_t own, size_t file, const melu_dataset *data, void *arg) {
  struct melu__source_slot *slot = &s->slots[own];
  uint32_t *users = s->cursors[own].users;
  (void)arg;
  s->n_of_file[MELU__LEFT_OUT][file] = (uint32_t)list_users(users, s, data, MELU__LEFT_OUT);
  const size_t n = list_users(users, s, data, MELU__TRAINED);
  s->n_of_file[MELU__TRAINED][file] = (uint32_t)n;
  slot->n_left_out += s->n_of_file[MELU__LEFT_OUT][file];
  slot->n_users += n;
  for (size_t i = 0; i < n; i++) add_ratings(s, slot, data, users[i]);
}

/* Who it is was decided when users were counted, each for herself: of a slot about as many as are asked for. */
static melu_status leave_out(void *arg, const uint64_t *n, melu_error *err) {
  (void)arg;
  (void)n;
  (void)err;
  return MELU_OK;
}

/* ------------------------------------------------------------------------------------------------------ orders */

static void close_file(struct cursor *c) {
  melu_dataset_free(c->data);
  c->data = NULL;
}

/* Before the first file of a list. Those who are left out have the order of the files' numbers. */
static void restart(const struct shard_source *s, size_t own, enum melu__list list) {
  struct cursor *c = &s->cursors[own];
  close_file(c);
  c->list = list;
  c->at = 0;
  c->before = 0;
  for (size_t i = 0; i < s->n_files; i++) c->files[i] = (uint32_t)file_of(s, own, i);
  if (list == MELU__LEFT_OUT) return;
  struct melu__rng rng = melu__rng(s->seed, MELU__RNG_ORDER, s->epoch, 2 * (s->own.lo + (uint32_t)own));
  melu__rng_shuffle(&rng, c->files, s->n_files);
}

static void begin_epoch(void *arg, uint32_t epoch) {
  struct shard_source *s = arg;
  s->epoch = epoch;
  for (size_t own = 0; own < n_own(s); own++) restart(s, own, MELU__TRAINED);
}

static melu_status open_file(const struct shard_source *s, struct cursor *c, melu_error *err) {
  const uint32_t file = c->files[c->at];
  const melu_status status = melu_shards_read(&c->data, s->shards, file, err);
  if (status) return status;
  if (c->at + 1 < s->n_files) melu__shard_expect(s->shards, c->files[c->at + 1]);
  const size_t n = list_users(c->users, s, c->data, c->list);
  if (c->list == MELU__LEFT_OUT) return MELU_OK;
  struct melu__rng rng = melu__rng(s->seed, MELU__RNG_FILE, s->epoch, file);
  melu__rng_shuffle(&rng, c->users, n);
  return MELU_OK;
}

/* Opens the file that has user number `first` of the list. There is one. */
static melu_status seek(const struct shard_source *s, struct cursor *c, uint64_t first, melu_error *err) {
  const uint32_t *n_of_file = s->n_of_file[c->list];
  while (first >= c->before + n_of_file[c->files[c->at]]) {
    close_file(c);
    c->before += n_of_file[c->files[c->at++]];
  }
  return c->data ? MELU_OK : open_file(s, c, err);
}

/* ------------------------------------------------------------------------------------------------------ batches */

static melu_status new_batch(void *arg, melu_batch **out, melu_error *err) {
  struct shard_source *s = arg;
  struct filled *f = melu__calloc(&s->ctx->allocator, 1, sizeof *f);
  *out = NULL;
  if (!f) return melu__fail_memory(err);
  f->next = s->filled;
  s->filled = f;
  if (!melu__working_init(&f->working, s->shards->items)) return melu__fail_memory(err);
  const melu_status status = melu_batch_new(&f->batch, s->ctx, f->working.data, err);
  *out = f->batch;
  return status;
}

/* It goes with the source. */
static void free_batch(void *arg, melu_batch *batch) {
  (void)arg;
  (void)batch;
}

static void free_filled(const struct shard_source *s, struct filled *f) {
  melu_batch_free(f->batch);
  melu__working_free(&f->working);
  melu__free(&s->ctx->allocator, f);
}

/* User number i of a slot's list. */
static melu_status add_user(const struct shard_source *s, struct filled *f, size_t own, uint64_t i, uint32_t draw,
                            melu_error *err) {
  struct cursor *c = &s->cursors[own];
  melu_status status = seek(s, c, i, err);
  if (status) return status;
  const uint32_t user = c->users[i - c->before], position = (uint32_t)melu_dataset_n_users(f->working.data);
  status = melu__working_add(&f->working, c->data, user, err);
  if (status) return status;
  return melu__episode_add(&s->episodes, f->batch, position, melu_dataset_user_id(c->data, user), draw, err);
}

static melu_status fill(void *arg, melu_batch *batch, enum melu__list list, uint32_t draw, const uint64_t *first,
                        const uint64_t *end, size_t *n_tasks, melu_error *err) {
  const struct shard_source *s = arg;
  struct filled *f = s->filled;
  melu_status status = MELU_OK;
  while (f->batch != batch) f = f->next;
  melu_batch_clear(batch);
  melu__working_clear(&f->working);
  for (size_t own = 0; own < n_own(s) && !status; own++) {
    const struct cursor *c = &s->cursors[own];
    if (first[own] < end[own] && (c->list != list || first[own] < c->before)) restart(s, own, list);
    for (uint64_t i = first[own]; i < end[own] && !status; i++) status = add_user(s, f, own, i, draw, err);
    n_tasks[own] = melu_batch_n_tasks(batch);
  }
  return status;
}

/* ----------------------------------------------------------------------------------------------- for the start */

struct visitor {
  melu__visit_fn visit;
  void *arg;
};

static void visit_users(struct shard_source *s, size_t own, size_t file, const melu_dataset *data, void *arg) {
  const struct visitor *v = arg;
  uint32_t *users = s->cursors[own].users;
  const size_t n = list_users(users, s, data, MELU__TRAINED);
  (void)file;
  for (size_t i = 0; i < n; i++) v->visit(v->arg, data, users[i]);
}

static melu_status visit_all(void *arg, melu_owner owner, melu__visit_fn visit, void *visit_arg, melu_error *err) {
  struct shard_source *s = arg;
  struct visitor v = {visit, visit_arg};
  if (owner == MELU_USER) return each_file(s, visit_users, &v, err);
  for (uint32_t i = 0; i < melu_dataset_n_items(s->shards->items); i++)
    if (s->is_rated[i]) visit(visit_arg, s->shards->items, i);
  return MELU_OK;
}

/* What is in the files their checksums say, and who is in the lists the options. */
static melu_status digest(void *arg, struct melu__digest *d, size_t slot, melu_error *err) {
  const struct shard_source *s = arg;
  (void)err;
  melu__dataset_digest(d, s->shards->items);
  for (size_t i = 0; i < s->n_files; i++) {
    const uint64_t checksum = s->shards->list.checksums[file_of(s, slot, i)];
    const uint32_t words[2] = {(uint32_t)checksum, (uint32_t)(checksum >> 32)};
    melu__digest_words(d, words, 2);
  }
  return MELU_OK;
}

/* ------------------------------------------------------------------------------------------------------ making */

static void free_source(void *arg) {
  struct shard_source *s = arg;
  const struct melu_allocator *a = &s->ctx->allocator;
  for (size_t own = 0; s->cursors && own < n_own(s); own++) {
    close_file(&s->cursors[own]);
    melu__free(a, s->cursors[own].files);
    melu__free(a, s->cursors[own].users);
  }
  while (s->filled) {
    struct filled *f = s->filled;
    s->filled = f->next;
    free_filled(s, f);
  }
  void *const all[] = {s->n_of_file[MELU__TRAINED],
                       s->n_of_file[MELU__LEFT_OUT],
                       s->is_rated,
                       s->slots,
                       s->cursors,
                       s->episodes.positions,
                       s};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) melu__free(a, all[i]);
}

static uint64_t largest(const uint64_t *numbers, size_t n) {
  uint64_t most = 0;
  for (size_t i = 0; i < n; i++)
    if (numbers[i] > most) most = numbers[i];
  return most;
}

static int allocate(struct shard_source *s) {
  const struct melu_allocator *a = &s->ctx->allocator;
  const struct melu__shard_list *list = &s->shards->list;
  const size_t most_users = (size_t)largest(list->users, list->n), longest = (size_t)largest(list->most, list->n);
  s->slots = melu__calloc(a, n_own(s), sizeof *s->slots);
  s->cursors = melu__calloc(a, n_own(s), sizeof *s->cursors);
  s->is_rated = melu__calloc(a, melu_dataset_n_items(s->shards->items), 1);
  s->episodes.positions = melu__alloc(a, longest, sizeof *s->episodes.positions);
  if (!s->slots || !s->cursors || !s->is_rated || !s->episodes.positions) return 0;
  for (int l = 0; l < N_LISTS; l++) {
    s->n_of_file[l] = melu__calloc(a, list->n, sizeof **s->n_of_file);
    if (!s->n_of_file[l]) return 0;
  }
  for (size_t own = 0; own < n_own(s); own++) {
    s->cursors[own].files = melu__alloc(a, s->n_files, sizeof *s->cursors[own].files);
    s->cursors[own].users = melu__alloc(a, most_users, sizeof *s->cursors[own].users);
    if (!s->cursors[own].files || !s->cursors[own].users) return 0;
  }
  return 1;
}

melu_status melu__shard_source(struct melu__source *out, const melu_context *ctx, const melu_shards *shards,
                               const struct melu_fit_options *o, melu_error *err) {
  *out = (struct melu__source){.arg = NULL};
  if (o->n_validation_users)
    return melu__fail(err, MELU_EINVAL, "validation_users are positions in a data set; of shards a share is left out");
  if (shards->list.n % ctx->n_slots)
    return melu__fail(err, MELU_EINVAL, "there are %zu files, no multiple of the %zu slots", shards->list.n,
                      ctx->n_slots);
  struct shard_source *s = melu__calloc(&ctx->allocator, 1, sizeof *s);
  if (!s) return melu__fail_memory(err);
  *s = (struct shard_source){
      .ctx = ctx,
      .shards = shards,
      .seed = o->seed,
      .min_ratings = o->min_ratings,
      .max_ratings = o->max_ratings,
      .share = o->validation,
      .own = melu__own_slots(ctx),
      .n_files = shards->list.n / ctx->n_slots,
      .episodes = {
          .seed = o->seed, .n_query = o->n_query, .max_support = o->max_support, .random_support = o->random_support}};
  melu_status status = allocate(s) ? MELU_OK : melu__fail_memory(err);
  if (!status) status = each_file(s, count_file, NULL, err);
  if (status) {
    free_source(s);
    return status;
  }
  *out = (struct melu__source){.arg = s,
                               .own = s->own,
                               .slots = s->slots,
                               .leave_out = leave_out,
                               .new_batch = new_batch,
                               .free_batch = free_batch,
                               .begin_epoch = begin_epoch,
                               .fill = fill,
                               .visit = visit_all,
                               .digest = digest,
                               .free = free_source};
  return MELU_OK;
}
