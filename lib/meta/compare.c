/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/compare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/mix.h"
#include "base/number.h"
#include "io/metadata.h"
#include "tensor/kernels.h"

/* ------------------------------------------------------------------------------------------------- versions */

struct version {
  char text[64], other[64];
  uint32_t rank, other_rank;
  uint32_t differs;
};

static void fold_versions(void *into, const void *from) {
  struct version *a = into;
  const struct version *b = from;
  if (a->differs) return;
  if (strcmp(a->text, b->text) != 0) {
    a->differs = 1;
    a->other_rank = b->rank;
    memcpy(a->other, b->text, sizeof a->other);
  } else if (b->differs) {
    a->differs = 1;
    a->other_rank = b->other_rank;
    memcpy(a->other, b->other, sizeof a->other);
  }
}

melu_status melu__compare_versions(struct melu__ranks *ranks, melu_error *err) {
  struct version v;
  memset(&v, 0, sizeof v);
  snprintf(v.text, sizeof v.text, "%s", melu_version());
  v.rank = ranks->collective->rank;
  const melu_status status = melu__ranks_reduce(ranks, &v, sizeof v, fold_versions, err);
  if (status || !v.differs) return status;
  return melu__fail(err, MELU_EVERSION, "rank %u runs libmelu %.63s, and rank %u %.63s", (unsigned)v.other_rank,
                    v.other, (unsigned)v.rank, v.text);
}

/* ------------------------------------------------------------------------------------------------- trainings */

/* What is compared, in this order; then the options that a training is known by. */
enum { SLOTS, SCHEMA, MODEL_OPTIONS, SHARDED, WEIGHTS, IS_NEW, HAS_CHECKPOINT, CHECKPOINT_UPDATES, RESUME, N_FIRST };
enum { FIRST_NUMBER = N_FIRST + MELU__N_COUNTS, KERNELS = FIRST_NUMBER + MELU__N_NUMBERS, N_WORDS };
static const char *const names[N_FIRST] = {"n_slots",   "schema",     "model options",      "sharded tables", "weights",
                                           "new model", "checkpoint", "checkpoint_updates", "resume"};

struct difference {
  uint32_t word, rank;
  uint64_t is;
};

/* What a rank is about to do, word by word; and where, behind it, ranks are first to differ. */
struct training {
  uint64_t words[N_WORDS];
  uint32_t rank, unused;
  struct difference first;
};

static void take_earlier(struct difference *a, struct difference b) {
  if (b.word < a->word) *a = b;
}

static void fold_trainings(void *into, const void *from) {
  struct training *a = into;
  const struct training *b = from;
  uint32_t i = 0;
  while (i < N_WORDS && a->words[i] == b->words[i]) i++;
  if (i < N_WORDS) take_earlier(&a->first, (struct difference){i, b->rank, b->words[i]});
  take_earlier(&a->first, b->first);
}

static uint64_t number_bits(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static uint64_t text_hash(const char *text) {
  return XXH3_64bits(text, strlen(text));
}

static uint64_t count_sharded(const melu_model *model) {
  uint64_t n = 0;
  for (size_t t = 0; t < model->n_tables; t++) n += model->params[t].is_sharded != 0;
  return n;
}

static melu_status describe(struct training *t, const struct melu__fit *f, melu_error *err) {
  struct melu__count counts[MELU__N_COUNTS];
  struct melu__number_option numbers[MELU__N_NUMBERS];
  json_t *metadata = melu__metadata(f->model, "");
  if (!metadata) return melu__fail_memory(err);
  melu__fit_list_options(counts, numbers, f);
  const uint64_t words[N_FIRST] = {f->share.n_slots,
                                   text_hash(json_string_value(json_object_get(metadata, "schema"))),
                                   text_hash(json_string_value(json_object_get(metadata, "options"))),
                                   count_sharded(f->model),
                                   melu__model_hash(f->model),
                                   f->model->version == 1,
                                   f->options.checkpoint != NULL,
                                   f->options.checkpoint_updates,
                                   (uint64_t)(f->options.resume != 0)};
  json_decref(metadata);
  memset(t, 0, sizeof *t);
  memcpy(t->words, words, sizeof words);
  for (size_t i = 0; i < MELU__N_COUNTS; i++) t->words[N_FIRST + i] = counts[i].value;
  for (size_t i = 0; i < MELU__N_NUMBERS; i++) t->words[FIRST_NUMBER + i] = number_bits(numbers[i].value);
  t->words[KERNELS] = text_hash(f->ctx->kernels->name);
  t->rank = f->ctx->collective.rank;
  t->first.word = N_WORDS;
  return MELU_OK;
}

static void tell_kernels(const struct melu__fit *f, const struct training *t) {
  char line[160];
  if (!f->ctx->log) return;
  snprintf(line, sizeof line, "ranks %u and %u compute with different kernels: the bits depend on the ranks",
           (unsigned)t->rank, (unsigned)t->first.rank);
  f->ctx->log(f->ctx->log_arg, line);
}

static melu_status refuse(const struct melu__fit *f, const struct training *t, melu_error *err) {
  struct melu__count counts[MELU__N_COUNTS];
  struct melu__number_option numbers[MELU__N_NUMBERS];
  const uint32_t word = t->first.word;
  const unsigned rank = (unsigned)t->rank, other = (unsigned)t->first.rank;
  melu__fit_list_options(counts, numbers, f);
  if (word == SCHEMA || word == MODEL_OPTIONS || word == WEIGHTS)
    return melu__fail(err, word == SCHEMA ? MELU_ESCHEMA : MELU_EINVAL, "ranks %u and %u have models of different %s",
                      rank, other,
                      word == SCHEMA    ? "schemas"
                      : word == WEIGHTS ? "weights"
                                        : "options");
  if (word >= FIRST_NUMBER) {
    double x, y;
    memcpy(&x, &t->words[word], sizeof x);
    memcpy(&y, &t->first.is, sizeof y);
    return melu__fail(err, MELU_EINVAL, "%s is %s on rank %u and %s on rank %u", numbers[word - FIRST_NUMBER].name,
                      melu__number_show(x, 17).text, rank, melu__number_show(y, 17).text, other);
  }
  return melu__fail(err, MELU_EINVAL, "%s is %llu on rank %u and %llu on rank %u",
                    word < N_FIRST ? names[word] : counts[word - N_FIRST].name, (unsigned long long)t->words[word],
                    rank, (unsigned long long)t->first.is, other);
}

melu_status melu__compare_trainings(struct melu__fit *f, melu_error *err) {
  struct training t;
  if (!f->is_apart) return MELU_OK;
  melu_status status = melu__ranks_agree(&f->ranks, describe(&t, f, err), err);
  if (!status) status = melu__ranks_reduce(&f->ranks, &t, sizeof t, fold_trainings, err);
  if (status || t.first.word == N_WORDS) return status;
  if (t.first.word < KERNELS) return refuse(f, &t, err);
  tell_kernels(f, &t);
  return MELU_OK;
}

/* ------------------------------------------------------------------------------------------------------ items */

struct item {
  uint64_t id, hash;
  size_t rank; /* to which it is told; who told it */
};

/* The items that are rated here, by the rank that looks after their ids; and of the ids that this rank looks after, who
 * was the first to tell what. */
struct items {
  const struct melu__fit *f;
  struct melu__mail *mail;
  struct item *all, *heard;
  size_t n, all_capacity, heard_capacity;
  size_t *next; /* (n_ranks): which one is to be told next to each rank */
  struct melu__vocab *ids;
  int no_memory;
};

static void list_item(void *arg, const melu_dataset *data, uint32_t item) {
  struct items *s = arg;
  const uint64_t id = melu_dataset_item_id(data, item);
  if (s->no_memory) return;
  if (melu__grow(&s->f->ctx->allocator, &s->all, &s->all_capacity, s->n, s->n + 1, sizeof *s->all))
    s->all[s->n++] = (struct item){id, melu__entity_hash(data, MELU_ITEM, item),
                                   (size_t)(melu__mix64(id) % s->f->ctx->collective.n_ranks)};
  else
    s->no_memory = 1;
}

static int by_rank(const void *a, const void *b) {
  const struct item *x = a, *y = b;
  return (x->rank > y->rank) - (x->rank < y->rank);
}

static melu_status list_items(struct items *s, melu_error *err) {
  const struct melu__source *source = &s->f->source;
  const struct melu_allocator *a = &s->f->ctx->allocator;
  s->next = melu__calloc(a, s->f->ctx->collective.n_ranks, sizeof *s->next);
  s->ids = melu__vocab_new(a);
  s->no_memory = !s->next || !s->ids;
  const melu_status status = source->visit(source->arg, MELU_ITEM, list_item, s, err);
  if (status || s->no_memory) return status ? status : melu__fail_memory(err);
  if (s->n) qsort(s->all, s->n, sizeof *s->all, by_rank);
  for (size_t i = s->n; i-- > 0;) s->next[s->all[i].rank] = i;
  return MELU_OK;
}

enum { RECORD = 2 * sizeof(uint64_t) };

static size_t pack_items(void *arg, size_t to, char *bytes, size_t room, int *more) {
  const struct items *s = arg;
  size_t n = 0;
  for (; s->next[to] < s->n && s->all[s->next[to]].rank == to; s->next[to]++, n += RECORD) {
    if (room - n < RECORD) {
      *more = 1;
      break;
    }
    memcpy(bytes + n, &s->all[s->next[to]], RECORD);
  }
  return n;
}

static melu_status hear_item(struct items *s, const struct item *item, melu_error *err) {
  int is_new;
  const uint32_t number = melu__vocab_add(s->ids, &item->id, sizeof item->id, &is_new);
  if (number == MELU__NO_INDEX ||
      !melu__grow(&s->f->ctx->allocator, &s->heard, &s->heard_capacity, number, (size_t)number + 1, sizeof *s->heard))
    return melu__fail_memory(err);
  const struct item *before = &s->heard[number];
  if (is_new) s->heard[number] = *item;
  if (before->hash == item->hash) return MELU_OK;
  return melu__fail(err, MELU_EINVAL, "item %llu is described otherwise on rank %zu than on rank %zu",
                    (unsigned long long)item->id, item->rank, before->rank);
}

static void unpack_items(void *arg, size_t from, const char *bytes, size_t n) {
  struct items *s = arg;
  struct item item = {.rank = from};
  melu_error err;
  /* After a failure an id may have a number, and no place among what was heard. */
  for (size_t at = 0; at < n && !s->mail->failure.status; at += RECORD) {
    memcpy(&item, bytes + at, RECORD);
    const melu_status status = hear_item(s, &item, &err);
    if (status) melu__mail_fail(s->mail, status, &err);
  }
}

melu_status melu__compare_items(struct melu__fit *f, melu_error *err) {
  struct items s = {.f = f, .mail = &f->exchange.mail};
  const struct melu__letters letters = {&s, pack_items, unpack_items, NULL};
  const struct melu_allocator *a = &f->ctx->allocator;
  if (!f->is_apart) return MELU_OK;
  melu_status status = list_items(&s, err);
  if (status) melu__mail_fail(s.mail, status, err);
  status = melu__mail_exchange(s.mail, &letters, err);
  if (!status) status = melu__mail_agree(s.mail, err);
  melu__vocab_free(s.ids);
  void *const all[] = {s.all, s.heard, s.next};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) melu__free(a, all[i]);
  return status;
}
