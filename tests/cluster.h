/* SPDX-License-Identifier: BSD-3-Clause */
/* Trainings by several ranks: the same world on each of them, with the users of its slots alone. */
#ifndef MELU_TESTS_CLUSTER_H
#define MELU_TESTS_CLUSTER_H

#include <stdio.h>
#include <unistd.h>

#include "gang.h"
#include "people.h"

enum { CLUSTER_USERS = 60, CLUSTER_MESSAGE = 232 };

/* What a rank came to. */
struct cluster_result {
  melu_status status;
  char message[CLUSTER_MESSAGE];
  unsigned char digest[MELU_DIGEST_BYTES];
  double loss, validation;
  uint64_t n_reports;
};

struct cluster_job;
struct cluster_rank {
  const struct cluster_job *job;
  const struct gang_rank *gang; /* NULL where there is one rank without a group */
  struct people people;
  struct cluster_result result;
};

/* What all ranks do. Functions may be NULL. */
struct cluster_job {
  struct melu_model_options model;
  struct melu_fit_options fit;
  size_t n_slots, shard_bytes, n_threads, n_users;
  uint64_t stop_at; /* of its reports rank `stops` says no to; 0: none */
  size_t stops;
  int is_undigested; /* there is none for the others to help with */
  size_t n_listed;   /* of users 20, 21, ... left out */
  void (*before)(struct cluster_rank *rank, struct melu_fit_options *fit); /* may change anything of a rank's own */
  void (*collect)(struct cluster_rank *rank, struct melu_collective *c);   /* puts something in between */
  void (*after)(struct cluster_rank *rank);
  void *arg; /* of the test's */
  struct cluster_result results[GANG_MOST];
};

static inline int cluster_hear(void *arg, const struct melu_progress *progress) {
  struct cluster_rank *rank = arg;
  rank->result.loss = progress->loss;
  rank->result.validation = progress->validation;
  rank->result.n_reports++;
  const size_t r = rank->gang ? rank->gang->rank : rank->job->stops;
  return rank->job->stop_at && rank->result.n_reports == rank->job->stop_at && r == rank->job->stops;
}

static inline uint64_t cluster_user_id(uint32_t user) {
  return 70 + user;
}

/* Users come in another order on each rank, and draw what they rate whether they are the rank's or not. */
static inline void cluster_add_users(struct cluster_rank *rank) {
  struct people *p = &rank->people;
  const struct cluster_job *job = rank->job;
  const size_t n_ranks = rank->gang ? rank->gang->n_ranks : 1, r = rank->gang ? rank->gang->rank : 0;
  const int is_click = job->model.loss == MELU_LOGISTIC;
  for (uint32_t k = 0; k < job->n_users; k++) {
    const uint32_t u = r % 2 ? (uint32_t)job->n_users - 1 - k : k;
    const size_t slot = melu_slot(cluster_user_id(u), job->n_slots);
    p->random = 1000 + u;
    if (slot >= job->n_slots * r / n_ranks && slot < job->n_slots * (r + 1) / n_ranks)
      people_add_user(p, p->data, u, is_click);
  }
}

static inline void cluster_fill(struct cluster_rank *rank) {
  melu_error err;
  for (uint32_t i = 0; i < PEOPLE_ITEMS; i++) people_add_item(rank->people.data, i);
  cluster_add_users(rank);
  WORLD_TRY(melu_dataset_freeze(rank->people.data, &err));
}

static inline size_t cluster_list(struct cluster_rank *rank, uint32_t *listed) {
  size_t n = 0;
  for (uint32_t k = 0; k < rank->job->n_listed; k++)
    if (melu_dataset_find_user(&listed[n], rank->people.data, cluster_user_id(20 + k), NULL) == MELU_OK) n++;
  return n;
}

static inline void cluster_open(struct cluster_rank *rank) {
  struct people *p = &rank->people;
  const struct cluster_job *job = rank->job;
  struct melu_collective collective = {.size = sizeof collective};
  melu_error err;
  if (rank->gang) collective = rank->gang->collective;
  if (job->collect) job->collect(rank, &collective);
  p->allocator = test_allocator(&p->heap);
  const struct melu_context_options options = {.size = sizeof options,
                                               .allocator = &p->allocator,
                                               .n_threads = job->n_threads,
                                               .n_slots = job->n_slots,
                                               .shard_bytes = job->shard_bytes,
                                               .collective = rank->gang ? &collective : NULL,
                                               .progress = cluster_hear,
                                               .progress_arg = rank};
  WORLD_TRY(melu_context_new(&p->ctx, &options, &err));
  WORLD_TRY(melu_schema_new(&p->schema, p->ctx, &err));
  people_fields(p->schema);
  WORLD_TRY(melu_dataset_new(&p->data, p->ctx, p->schema, &err));
  cluster_fill(rank);
  WORLD_TRY(melu_model_new(&p->model, p->ctx, melu_dataset_schema(p->data), &job->model, &err));
}

static inline void cluster_close(struct cluster_rank *rank) {
  melu_model_free(rank->people.model);
  melu_dataset_free(rank->people.data);
  melu_schema_free(rank->people.schema);
  melu_context_free(rank->people.ctx);
  ck_assert_uint_eq(rank->people.heap.live, 0);
}

static inline void cluster_train(struct cluster_rank *rank) {
  struct cluster_result *result = &rank->result;
  struct melu_fit_options fit = rank->job->fit;
  uint32_t listed[CLUSTER_USERS];
  melu_error err = {.status = MELU_OK};
  cluster_open(rank);
  if (rank->job->n_listed) {
    fit.n_validation_users = cluster_list(rank, listed);
    fit.validation_users = listed;
  }
  if (rank->job->before) rank->job->before(rank, &fit);
  result->status = melu_fit(rank->people.model, rank->people.data, &fit, &err);
  snprintf(result->message, sizeof result->message, "%s", result->status ? err.message : "");
  ck_assert_int_eq(result->status, err.status);
  /* After some failures there is nobody left to ask for rows. */
  if (rank->job->is_undigested || melu_model_digest(result->digest, rank->people.model, &err))
    memset(result->digest, 0, sizeof result->digest);
  if (rank->job->after) rank->job->after(rank);
  cluster_close(rank);
}

static inline void cluster_run_rank(const struct gang_rank *self) {
  struct cluster_job *job = self->arg;
  struct cluster_rank rank = {.job = job, .gang = self};
  cluster_train(&rank);
  job->results[self->rank] = rank.result;
}

/* Trains by n_ranks ranks; 0: by one, without a group. */
static inline void cluster_run(struct cluster_job *job, size_t n_ranks) {
  struct cluster_rank rank = {.job = job};
  if (n_ranks) {
    gang_run(n_ranks, 20, cluster_run_rank, job);
    return;
  }
  cluster_train(&rank);
  job->results[0] = rank.result;
}

/* All ranks must have come to the same: that of rank 0. */
static inline struct cluster_result cluster_same(const struct cluster_job *job, size_t n_ranks) {
  for (size_t r = 1; r < n_ranks; r++) {
    const struct cluster_result *a = &job->results[0], *b = &job->results[r];
    ck_assert_msg(a->status == b->status && strcmp(a->message, b->message) == 0, "rank 0: %s: %s; rank %zu: %s: %s",
                  melu_status_name(a->status), a->message, r, melu_status_name(b->status), b->message);
    ck_assert_msg(memcmp(a->digest, b->digest, sizeof a->digest) == 0, "rank %zu of %zu has other weights", r, n_ranks);
  }
  return job->results[0];
}

static inline struct cluster_result cluster_result_of(struct cluster_job *job, size_t n_ranks) {
  cluster_run(job, n_ranks);
  return cluster_same(job, n_ranks ? n_ranks : 1);
}

/* All ranks must have come to that status, and a message that has those words. `number`: which attempt it was. */
static inline void cluster_expect(const struct cluster_job *job, size_t n_ranks, melu_status status, const char *words,
                                  size_t number) {
  for (size_t r = 0; r < n_ranks; r++) {
    const struct cluster_result *result = &job->results[r];
    ck_assert_msg(result->status == status && strstr(result->message, words), "%zu: rank %zu: %s: \"%s\", not \"%s\"",
                  number, r, melu_status_name(result->status), result->message, words);
  }
}

/* How many parts there are of a job's checkpoint, which are named after the tasks so far and their first slot; removes
 * them if asked to. */
static inline size_t cluster_parts(const struct cluster_job *job, const char *checkpoint, int remove) {
  char part[128];
  size_t n = 0;
  for (size_t done = 0; done <= job->fit.n_epochs * job->n_users; done++)
    for (size_t slot = 0; slot < job->n_slots; slot++) {
      snprintf(part, sizeof part, "%s.%zu.%zu", checkpoint, done, slot);
      n += (remove ? unlink(part) : access(part, F_OK)) == 0;
    }
  return n;
}

/* In place of what the rank has: a data set of other fields, without items and users, and no model. */
static inline void cluster_replace(struct cluster_rank *rank, const struct melu_field *fields, size_t n) {
  struct people *p = &rank->people;
  melu_error err;
  melu_model_free(p->model);
  melu_dataset_free(p->data);
  melu_schema_free(p->schema);
  WORLD_TRY(melu_schema_new(&p->schema, p->ctx, &err));
  for (size_t i = 0; i < n; i++) WORLD_TRY(melu_schema_add(p->schema, &fields[i], &err));
  WORLD_TRY(melu_dataset_new(&p->data, p->ctx, p->schema, &err));
}

/* When all is in it: a model as the job says. */
static inline void cluster_replaced(struct cluster_rank *rank) {
  struct people *p = &rank->people;
  melu_error err;
  WORLD_TRY(melu_dataset_freeze(p->data, &err));
  WORLD_TRY(melu_model_new(&p->model, p->ctx, p->schema, &rank->job->model, &err));
}

#endif
