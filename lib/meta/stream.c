/* SPDX-License-Identifier: BSD-3-Clause */
/* Users of the files of a shard folder: of each slot one file is in memory at a time. The files of a slot have an order
 * of their own in every epoch, and so have the users of a file. */
#include <string.h>

#include "base/error.h"
#include "base/rng.h"
#include "data/working.h"
#include "io/shards.h"
#include "meta/source.h"

/* The file of a slot that is open, and where it stands in the order. */
struct slot {
  enum melu__part part; /* which the order is of */
  uint32_t *files;      /* of the slot, in the order of the epoch */
  size_t at;            /* the index in it of the file that is next, or open */
  size_t before;        /* users of the part in those before it */
  melu_dataset *data;   /* that file; NULL: it is not open */
  uint32_t *users;      /* its users of the part, in their order */
};

struct stream {
  struct melu__source source;
  const melu_shards *shards;
  struct melu__eligible who;
  struct melu__slot_range range;
  uint32_t *n_of_file[MELU__N_PARTS]; /* (files): users of a part */
  uint32_t *first_of_file;            /* (files): how many users the slot has in files of lower numbers */
  struct slot *slots;                 /* of the range */
  struct melu__working working;
  uint32_t epoch; /* whose order it is */
};

static struct stream *stream_of(struct melu__source *source) {
  return (struct stream *)source;
}

static size_t files_of_slot(const struct stream *s) {
  return s->shards->list.n / s->range.n;
}

/* ------------------------------------------------------------------------------------------------- who is in it */

/* Left out is who draws a number below the share: whoever is in the folder beside her, and in which file. */
static int is_left_out(const struct melu__eligible *who, uint64_t user) {
  struct melu__rng rng = melu__rng(who->seed, MELU__RNG_LEFT_OUT, (uint32_t)(user >> 32), (uint32_t)user);
  return who->share > 0 && melu__rng_unit(&rng) < who->share;
}

/* Writes the positions of a file's users of that part; returns how many. */
static size_t list_users(uint32_t *users, const struct stream *s, const melu_dataset *data, enum melu__part part) {
  size_t n_listed = 0;
  for (uint32_t u = 0; u < melu_dataset_n_users(data); u++) {
    const size_t n = melu_dataset_ratings(data, u, NULL, NULL);
    if (n < s->who.min_ratings || n > s->who.max_ratings) continue;
    if (is_left_out(&s->who, melu_dataset_user_id(data, u)) == (part == MELU__LEFT_OUT)) users[n_listed++] = u;
  }
  return n_listed;
}

typedef melu_status (*look_at_file)(struct stream *s, size_t slot, size_t file, const melu_dataset *data, void *arg,
                                    melu_error *err);

/* Reads all files of the range, slot by slot. */
static melu_status each_file(struct stream *s, look_at_file look, void *arg, melu_error *err) {
  const size_t n = files_of_slot(s);
  struct melu_progress progress = {.phase = "read", .total = n * (s->range.end - s->range.first)};
  melu_status status = MELU_OK;
  for (size_t slot = s->range.first; slot < s->range.end; slot++)
    for (size_t i = 0; i < n && !status; i++) {
      melu_dataset *data;
      const size_t file = slot + i * s->range.n;
      if (i + 1 < n) melu__shard_expect(s->shards, file + s->range.n);
      status = melu_shards_read(&data, s->shards, file, err);
      if (!status) status = look(s, slot, file, data, arg, err);
      melu_dataset_free(data);
      progress.done++;
      if (!status) status = melu__progress(s->source.ctx, &progress, err);
    }
  return status;
}

static melu_status count_file(struct stream *s, size_t slot, size_t file, const melu_dataset *data, void *arg,
                              melu_error *err) {
  uint32_t *users = arg;
  (void)err;
  for (int part = 0; part < MELU__N_PARTS; part++) {
    const size_t n = list_users(users, s, data, (enum melu__part)part);
    s->n_of_file[part][file] = (uint32_t)n;
    s->source.n_users[part][slot] += n;
    for (size_t i = 0; i < n; i++) {
      const size_t n_ratings = melu_dataset_ratings(data, users[i], NULL, NULL);
      if (n_ratings > s->source.longest) s->source.longest = n_ratings;
      if (part == MELU__TRAINED) s->source.n_ratings += (double)n_ratings;
    }
  }
  return MELU_OK;
}

/* ------------------------------------------------------------------------------------------------------ orders */

static void close_file(struct slot *slot) {
  melu_dataset_free(slot->data);
  slot->data = NULL;
}

/* Before the first file of a part. Those who are left out have the order of the files' numbers. */
static void restart(const struct stream *s, size_t number, enum melu__part part) {
  struct slot *slot = &s->slots[number - s->range.first];
  const size_t n = files_of_slot(s);
  close_file(slot);
  slot->part = part;
  slot->at = slot->before = 0;
  for (size_t i = 0; i < n; i++) slot->files[i] = (uint32_t)(number + i * s->range.n);
  if (part == MELU__LEFT_OUT) return;
  struct melu__rng rng = melu__rng(s->who.seed, MELU__RNG_ORDER, s->epoch, (uint32_t)number);
  melu__rng_shuffle(&rng, slot->files, n);
}

static void order(struct melu__source *source, uint32_t epoch) {
  struct stream *s = stream_of(source);
  s->epoch = epoch;
  for (size_t number = s->range.first; number < s->range.end; number++) restart(s, number, MELU__TRAINED);
}

static void begin(struct melu__source *source) {
  melu__working_clear(&stream_of(source)->working);
}

static melu_status open_file(const struct stream *s, struct slot *slot, melu_error *err) {
  const uint32_t file = slot->files[slot->at];
  const melu_status status = melu_shards_read(&slot->data, s->shards, file, err);
  if (status) return status;
  if (slot->at + 1 < files_of_slot(s)) melu__shard_expect(s->shards, slot->files[slot->at + 1]);
  const size_t n = list_users(slot->users, s, slot->data, slot->part);
  if (slot->part == MELU__LEFT_OUT) return MELU_OK;
  struct melu__rng rng = melu__rng(s->who.seed, MELU__RNG_FILE, s->epoch, file);
  melu__rng_shuffle(&rng, slot->users, n);
  return MELU_OK;
}

/* Opens the file that has user number `first` of the order. There is one. */
static melu_status seek(const struct stream *s, struct slot *slot, size_t first, melu_error *err) {
  const uint32_t *n_of_file = s->n_of_file[slot->part];
  while (first >= slot->before + n_of_file[slot->files[slot->at]]) {
    close_file(slot);
    slot->before += n_of_file[slot->files[slot->at++]];
  }
  return slot->data ? MELU_OK : open_file(s, slot, err);
}

static melu_status add(struct melu__source *source, melu_batch *batch, const struct melu__episodes *episodes,
                       enum melu__part part, size_t number, size_t first, size_t n, uint32_t epoch, melu_error *err) {
  struct stream *s = stream_of(source);
  struct slot *slot = &s->slots[number - s->range.first];
  melu_status status = MELU_OK;
  if (slot->part != part || first < slot->before) restart(s, number, part);
  for (size_t i = first; i < first + n && !status; i++) {
    status = seek(s, slot, i, err);
    if (status) break;
    const uint32_t user = slot->users[i - slot->before], file = slot->files[slot->at],
                   position = (uint32_t)melu_dataset_n_users(s->working.data);
    status = melu__working_add(&s->working, slot->data, user, err);
    if (!status) status = melu__episode_add(episodes, batch, position, s->first_of_file[file] + user, epoch, err);
  }
  return status;
}

/* ----------------------------------------------------------------------------------------------------- looking */

struct looking {
  melu__visit_fn look;
  void *arg;
  uint32_t *users;
};

static melu_status look_at_trained(struct stream *s, size_t slot, size_t file, const melu_dataset *data, void *arg,
                                   melu_error *err) {
  const struct looking *l = arg;
  const size_t n = list_users(l->users, s, data, MELU__TRAINED);
  (void)file;
  return l->look(l->arg, slot, data, l->users, n, err);
}

static melu_status visit(struct melu__source *source, melu__visit_fn look, void *arg, melu_error *err) {
  struct stream *s = stream_of(source);
  struct looking l = {look, arg, s->slots[0].users};
  return each_file(s, look_at_trained, &l, err);
}

/* The manifest says what is in the files; who is left out, and who has too few ratings, the options say. */
static void identify(const struct melu__source *source, struct melu__digest *d) {
  const struct stream *s = (const struct stream *)source;
  melu__dataset_digest(d, source->items);
  for (size_t f = 0; f < s->shards->list.n; f++) {
    const uint64_t checksum = s->shards->list.checksums[f];
    const uint32_t words[2] = {(uint32_t)checksum, (uint32_t)(checksum >> 32)};
    melu__digest_words(d, words, 2);
  }
}

/* ------------------------------------------------------------------------------------------------------ making */

static void free_stream(struct melu__source *source) {
  struct stream *s = stream_of(source);
  if (!s) return;
  const struct melu_allocator *a = &source->ctx->allocator;
  for (size_t i = 0; s->slots && i < s->range.end - s->range.first; i++) {
    close_file(&s->slots[i]);
    melu__free(a, s->slots[i].files);
    melu__free(a, s->slots[i].users);
  }
  for (int part = 0; part < MELU__N_PARTS; part++) {
    melu__free(a, s->n_of_file[part]);
    melu__free(a, source->n_users[part]);
  }
  melu__free(a, s->first_of_file);
  melu__free(a, s->slots);
  melu__working_free(&s->working);
  melu__free(a, s);
}

static const struct melu__source_kind stream = {order, begin, add, visit, identify, free_stream};

static size_t most_users(const struct melu__shard_list *list) {
  size_t most = 0;
  for (size_t f = 0; f < list->n; f++)
    if (list->users[f] > most) most = (size_t)list->users[f];
  return most;
}

static int allocate(struct stream *s) {
  const struct melu_allocator *a = &s->source.ctx->allocator;
  const struct melu__shard_list *list = &s->shards->list;
  const size_t n_own = s->range.end - s->range.first, most = most_users(list);
  for (int part = 0; part < MELU__N_PARTS; part++) {
    s->n_of_file[part] = melu__calloc(a, list->n, sizeof **s->n_of_file);
    s->source.n_users[part] = melu__calloc(a, s->range.n, sizeof **s->source.n_users);
    if (!s->n_of_file[part] || !s->source.n_users[part]) return 0;
  }
  s->first_of_file = melu__calloc(a, list->n, sizeof *s->first_of_file);
  s->slots = melu__calloc(a, n_own, sizeof *s->slots);
  if (!s->first_of_file || !s->slots) return 0;
  for (size_t i = 0; i < n_own; i++) {
    s->slots[i].files = melu__alloc(a, files_of_slot(s), sizeof *s->slots[i].files);
    s->slots[i].users = melu__alloc(a, most, sizeof *s->slots[i].users);
    if (!s->slots[i].files || !s->slots[i].users) return 0;
  }
  return melu__working_init(&s->working, s->shards->items);
}

melu_status melu__source_of_shards(struct melu__source **out, const melu_context *ctx, const melu_shards *shards,
                                   const struct melu__eligible *eligible, struct melu__slot_range range,
                                   melu_error *err) {
  *out = NULL;
  if (shards->list.n % range.n)
    return melu__fail(err, MELU_EINVAL, "there are %zu files, no multiple of the %zu slots", shards->list.n, range.n);
  struct stream *s = melu__calloc(&ctx->allocator, 1, sizeof *s);
  if (!s) return melu__fail_memory(err);
  s->source = (struct melu__source){.kind = &stream, .ctx = ctx, .items = shards->items, .n_slots = range.n};
  s->shards = shards;
  s->who = *eligible;
  s->range = range;
  melu_status status = allocate(s) ? MELU_OK : melu__fail_memory(err);
  if (!status) {
    s->source.users = s->working.data;
    for (size_t f = range.n; f < shards->list.n; f++)
      s->first_of_file[f] = s->first_of_file[f - range.n] + (uint32_t)shards->list.users[f - range.n];
    status = each_file(s, count_file, s->slots[0].users, err);
  }
  if (status)
    free_stream(&s->source);
  else
    *out = &s->source;
  return status;
}
