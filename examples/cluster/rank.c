/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../common/args.h"
#include "../common/counted.h"
#include "../common/synthetic.h"
#include "cluster.h"

struct rank {
  const struct choices *choices;
  struct counted counted;
  struct melu_collective collective;
  uint32_t rank, n_ranks;
  melu_context *ctx;
  melu_dataset *data;  /* the rank's users; or */
  melu_shards *shards; /* a folder of which it reads its files */
  melu_model *model;
  /* Of the training: updates heard of, when, and what had been sent. */
  uint64_t first_step, last_step, last_done, first_done, first_bytes, last_bytes, first_calls, last_calls;
  double began, ended, cpu_began, cpu_ended;
  melu_error err;
};

void rank_must(uint32_t rank, melu_status status, const melu_error *err) {
  if (status == MELU_OK) return;
  fprintf(stderr, "cluster, on rank %u: %s (%s)\n", (unsigned)rank, err->message, melu_status_name(status));
  fflush(stderr);
  /* Open MPI ends a process that has something on its way to one that has gone: the others shall say so first. */
  if (status == MELU_EPEER) nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
  _Exit(1);
}

static void need(struct rank *r, melu_status status) {
  rank_must(r->rank, status, &r->err);
}

/* ------------------------------------------------------------------------------------------------- progress */

static double seconds_of(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double now(void) {
  return seconds_of(CLOCK_MONOTONIC);
}

/* One line, on a terminal: how far it is, and how long the rest will take at the speed so far. */
static void tell(const struct rank *r, const char *what, uint64_t done, uint64_t before, uint64_t total, double loss) {
  if (r->rank != 0 || !isatty(STDERR_FILENO) || done <= before) return;
  const double left = (now() - r->began) * (double)(total - done) / (double)(done - before);
  fprintf(stderr, "\r%s %llu of %llu, %.0f min %02.0f s left", what, (unsigned long long)done,
          (unsigned long long)total, (double)(long)(left / 60), left - 60 * (double)(long)(left / 60));
  if (loss > 0) fprintf(stderr, "  loss %.4f", loss);
  fputs(done == total ? "\r\033[K" : "\033[K", stderr);
  fflush(stderr);
}

static uint64_t steps_of(const struct rank *r, uint64_t n_tasks, uint64_t n_users) {
  const uint64_t batch = r->choices->batch, an_epoch = (n_users + batch - 1) / batch;
  return n_tasks / n_users * an_epoch + (n_tasks % n_users + batch - 1) / batch;
}

/* Says no when there were enough steps, unless the training ends then by itself. */
static int on_progress(void *arg, const struct melu_progress *progress) {
  struct rank *r = arg;
  const struct choices *c = r->choices;
  if (strcmp(progress->phase, "fit") != 0) return 0;
  const uint64_t step = steps_of(r, progress->done, progress->total / progress->n_epochs);
  r->ended = now();
  r->cpu_ended = seconds_of(CLOCK_THREAD_CPUTIME_ID);
  r->last_step = step;
  r->last_done = progress->done;
  r->last_bytes = r->counted.n_bytes;
  r->last_calls = r->counted.n_calls;
  if (!r->first_step || step <= c->skip) {
    r->began = r->ended;
    r->cpu_began = r->cpu_ended;
    r->first_step = step;
    r->first_done = progress->done;
    r->first_bytes = r->last_bytes;
    r->first_calls = r->last_calls;
  }
  tell(r, "step", step, r->first_step, c->n_steps, progress->loss);
  return (step >= c->n_steps && progress->done < progress->total) || (c->pause && step >= c->pause);
}

/* ----------------------------------------------------------------------------------------------------- data */

static void open_context(struct rank *r, const struct melu_collective *collective) {
  const struct choices *c = r->choices;
  const struct melu_allocator allocator = counted_allocator(&r->counted);
  if (collective) r->collective = counted_collective(&r->counted, collective);
  const struct melu_context_options options = {.size = sizeof options,
                                               .n_threads = (size_t)c->n_threads,
                                               .allocator = &allocator,
                                               .progress = on_progress,
                                               .progress_arg = r,
                                               .collective = collective ? &r->collective : NULL,
                                               .n_slots = (size_t)c->n_slots,
                                               .shard_bytes = c->sharded      ? 1
                                                              : c->replicated ? MELU_NONE
                                                                              : 0};
  need(r, melu_context_new(&r->ctx, &options, &r->err));
}

static int is_own(const struct rank *r, uint64_t user) {
  const uint64_t n = r->choices->n_slots, slot = melu_slot(user, (size_t)n);
  return slot >= n * r->rank / r->n_ranks && slot < n * (r->rank + 1) / r->n_ranks;
}

static void make_user(struct rank *r, const struct synthetic *world, uint64_t user) {
  uint32_t items[SYNTHETIC_MOST];
  float ratings[SYNTHETIC_MOST];
  const uint32_t group = synthetic_group(world, user);
  const struct melu_value value = {.ids = &group, .n_ids = 1};
  const size_t n = synthetic_ratings(items, ratings, world, user);
  need(r, melu_dataset_add_user(r->data, user, &value, NULL, &r->err));
  for (size_t i = 0; i < n; i++) need(r, melu_dataset_add_rating(r->data, user, items[i], ratings[i], &r->err));
}

/* The users of this rank's slots, and no others. */
static void make_data(struct rank *r) {
  const struct choices *c = r->choices;
  const struct synthetic world = {.seed = c->world,
                                  .n_items = (uint32_t)c->n_items,
                                  .mean_ratings = (uint32_t)c->n_ratings,
                                  .n_rows = (uint32_t)c->n_rows};
  melu_schema *schema;
  need(r, melu_schema_new(&schema, r->ctx, &r->err));
  synthetic_fields(&world, schema);
  need(r, melu_dataset_new(&r->data, r->ctx, schema, &r->err));
  melu_schema_free(schema);
  synthetic_items(&world, r->data);
  r->began = now();
  for (uint64_t user = 0; user < c->n_users; user++) {
    if (is_own(r, user)) make_user(r, &world, user);
    if (user % 1000 == 999) tell(r, "making user", user + 1, 0, c->n_users, 0);
  }
  need(r, melu_dataset_freeze(r->data, &r->err));
}

/* Returns how many users all ranks have. */
static uint64_t get_data(struct rank *r) {
  struct melu_shards_info info = {.size = sizeof info};
  if (!r->choices->folder) {
    make_data(r);
    return r->choices->n_users;
  }
  need(r, melu_shards_open(&r->shards, r->ctx, r->choices->folder, &r->err));
  need(r, melu_shards_describe(&info, r->shards, &r->err));
  return info.n_users;
}

/* ------------------------------------------------------------------------------------------------- training */

static void make_model(struct rank *r) {
  const struct choices *c = r->choices;
  const melu_schema *schema = melu_dataset_schema(r->shards ? melu_shards_items(r->shards) : r->data);
  struct melu_model_options options = {.size = sizeof options, .preset = c->preset, .seed = c->seed};
  if (strcmp(c->preset, "best") == 0) options.rank = (size_t)c->rank;
  if (!c->folder) {
    options.rating_min = -2;
    options.rating_max = 9;
  }
  need(r, melu_model_new(&r->model, r->ctx, schema, &options, &r->err));
}

/* As many epochs as have the steps; if that is just so many, the training ends by itself. */
static struct melu_fit_options fit_options(const struct rank *r, uint64_t n_users) {
  const struct choices *c = r->choices;
  const uint64_t an_epoch = (n_users + c->batch - 1) / c->batch;
  const int is_best = strcmp(c->preset, "best") == 0;
  return (struct melu_fit_options){.size = sizeof(struct melu_fit_options),
                                   .n_epochs = (size_t)((c->n_steps + an_epoch - 1) / an_epoch),
                                   .batch_tasks = (size_t)c->batch,
                                   .n_query = is_best ? 0 : 5,
                                   .max_ratings = MELU_NONE,
                                   .seed = c->seed,
                                   .checkpoint = c->checkpoint,
                                   .checkpoint_updates = (size_t)c->every,
                                   .resume = c->resume != 0};
}

static void train(struct rank *r) {
  const struct choices *c = r->choices;
  const uint64_t n_users = get_data(r);
  if (n_users == 0) give_up("there are no users");
  const struct melu_fit_options options = fit_options(r, n_users);
  make_model(r);
  const melu_status status = r->shards ? melu_fit_shards(r->model, r->shards, &options, &r->err)
                                       : melu_fit(r->model, r->data, &options, &r->err);
  /* Saying no is how a rank of several ends, too, and rank 0's word is all ranks'. */
  if (status != MELU_ECANCELED) need(r, status);
  const uint64_t wanted = c->pause && c->pause < c->n_steps ? c->pause : c->n_steps;
  if (r->last_step != wanted)
    give_up("%llu steps were made, and not %llu: the checkpoint was of more, or some users have too few ratings",
            (unsigned long long)r->last_step, (unsigned long long)wanted);
}

/* ---------------------------------------------------------------------------------------------------- telling */

/* Of all ranks. */
struct measured {
  double n_bytes, most_bytes, most_memory, most_cpu;
};

static void fold(void *into, const void *from) {
  struct measured a, b;
  memcpy(&a, into, sizeof a);
  memcpy(&b, from, sizeof b);
  a.n_bytes += b.n_bytes;
  if (b.most_bytes > a.most_bytes) a.most_bytes = b.most_bytes;
  if (b.most_memory > a.most_memory) a.most_memory = b.most_memory;
  if (b.most_cpu > a.most_cpu) a.most_cpu = b.most_cpu;
  memcpy(into, &a, sizeof a);
}

static void print_measured(struct rank *r) {
  const double n_steps = (double)(r->last_step - r->first_step), bytes = (double)(r->last_bytes - r->first_bytes);
  struct measured all = {bytes, bytes, (double)atomic_load(&r->counted.most), r->cpu_ended - r->cpu_began};
  if (r->n_ranks > 1) need(r, r->counted.inner.reduce(r->counted.inner.arg, &all, sizeof all, fold, &r->err));
  if (r->rank != 0 || n_steps == 0) return;
  printf(
      "{\"ranks\": %u, \"steps\": %.0f, \"tasks_per_s\": %.1f, \"step_ms\": %.3f, \"cpu_of_a_rank_ms\": %.3f, "
      "\"bytes_per_step\": %.0f, "
      "\"most_bytes_of_a_rank\": %.0f, \"calls_per_step\": %.2f, \"memory_of_a_rank_mib\": %.1f}\n",
      (unsigned)r->n_ranks, n_steps, (double)(r->last_done - r->first_done) / (r->ended - r->began),
      1e3 * (r->ended - r->began) / n_steps, 1e3 * all.most_cpu / n_steps, all.n_bytes / n_steps,
      all.most_bytes / n_steps, (double)(r->last_calls - r->first_calls) / n_steps, all.most_memory / 1048576);
}

static void print_digest(struct rank *r) {
  unsigned char digest[MELU_DIGEST_BYTES];
  need(r, melu_model_digest(digest, r->model, &r->err));
  if (r->rank != 0) return;
  printf("digest ");
  for (size_t i = 0; i < sizeof digest; i++) printf("%02x", (unsigned)digest[i]);
  printf("\n");
}

static int is_sharded(struct rank *r) {
  struct melu_param param;
  for (size_t i = 0; i < melu_model_n_params(r->model); i++) {
    need(r, melu_model_param(&param, r->model, i, &r->err));
    if (param.is_sharded) return 1;
  }
  return 0;
}

void run_rank(const struct choices *choices, const struct melu_collective *collective) {
  struct rank *r = calloc(1, sizeof *r);
  if (!r) give_up("out of memory");
  r->choices = choices;
  r->rank = collective ? collective->rank : 0;
  r->n_ranks = collective ? collective->n_ranks : 1;
  open_context(r, collective);
  train(r);
  if (choices->measure) print_measured(r);
  if (choices->digest) print_digest(r);
  /* Where no table is sharded all have the same model, and one is enough to write it. */
  if (choices->save && (r->rank == 0 || is_sharded(r))) need(r, melu_model_save(r->model, choices->save, &r->err));
  melu_model_free(r->model);
  melu_dataset_free(r->data);
  melu_shards_free(r->shards);
  melu_context_free(r->ctx);
  if (r->rank == 0) finish_output();
  free(r);
}
