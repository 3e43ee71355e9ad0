/* SPDX-License-Identifier: BSD-3-Clause */
/* Trainings that are written down, and go on elsewhere as if they had never ended. */
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file_edit.h"
#include "json_memory.h"
#include "run_suite.h"
#include "world.h"

enum { N_USERS = 40, NEVER = 0 };

static melu_error err;
static char folder[64], path[96];

static void make_folder(void) {
  snprintf(folder, sizeof folder, "/tmp/melu-checkpoint-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/training", folder);
}

static void remove_folder(void) {
  unlink(path);
  ck_assert_msg(rmdir(folder) == 0, "something was left in %s", folder);
}

/* Asks the training to stop at one of its reports, and keeps what it is told. */
struct host {
  size_t stop_at, n_reports;
  double loss, validation;
  char line[200];
};

static int hear(void *arg, const struct melu_progress *progress) {
  struct host *host = arg;
  host->loss = progress->loss;
  host->validation = progress->validation;
  return ++host->n_reports == host->stop_at;
}

static void take_line(void *arg, const char *line) {
  struct host *host = arg;
  snprintf(host->line, sizeof host->line, "%s", line);
}

enum kind { LAYERS, FACTORS, N_KINDS };

static const struct melu_model_options *model_options(enum kind kind) {
  static const size_t hidden[2] = {8, 6};
  static const struct melu_model_options options[N_KINDS] = {
      {.size = sizeof *options, .seed = 7, .hidden = hidden, .n_hidden = 2, .inner_steps = 2},
      {.size = sizeof *options, .seed = 7, .preset = "best", .hidden = hidden, .n_hidden = 1, .rank = 4}};
  return &options[kind];
}

/* 4 epochs of 5 updates; all that a training remembers is in use: validation, moments, priors taken late. */
static struct melu_fit_options fit_options(void) {
  static const struct melu_optimizer_options optimizer = {.size = sizeof optimizer, .lr = 0.01, .clip_norm = 0.5};
  return (struct melu_fit_options){.size = sizeof(struct melu_fit_options),
                                   .n_epochs = 4,
                                   .batch_tasks = 7,
                                   .n_query = 2,
                                   .min_ratings = 4,
                                   .seed = 3,
                                   .optimizer = &optimizer,
                                   .cosine = 1,
                                   .prior_vectors = 2,
                                   .prior_dense = 1,
                                   .validation = 0.2,
                                   .patience = 3};
}

static void open_kind(struct world *w, enum kind kind, size_t n_threads, struct host *host, const char *kernels) {
  const struct melu_context_options options = {.size = sizeof options,
                                               .n_threads = n_threads,
                                               .progress = hear,
                                               .progress_arg = host,
                                               .log = take_line,
                                               .log_arg = host,
                                               .kernels = kernels};
  world_open(w, &options, N_USERS);
  melu_model_free(w->model);
  WORLD_TRY(melu_model_new(&w->model, w->ctx, melu_dataset_schema(w->data), model_options(kind), &err));
}

/* A training of a new model in a new context; its weights, to be freed, where they are wanted. */
static melu_status train(enum kind kind, const struct melu_fit_options *fit, size_t n_threads, struct host *host,
                         float **weights, size_t *n) {
  struct world w;
  open_kind(&w, kind, n_threads, host, NULL);
  const melu_status status = melu_fit(w.model, w.data, fit, &err);
  if (weights) *weights = world_weights(w.model, n);
  world_close(&w);
  return status;
}

static struct melu_fit_options with_checkpoint(size_t updates, int resume) {
  struct melu_fit_options fit = fit_options();
  fit.checkpoint = path;
  fit.checkpoint_updates = updates;
  fit.resume = resume;
  return fit;
}

static int exists(const char *name) {
  struct stat info;
  return stat(name, &info) == 0;
}

/* Stopped at each of its reports, and gone on with, on other numbers of threads. */
START_TEST(resumed_as_if_never_stopped) {
  make_folder();
  const struct melu_fit_options whole = fit_options(), stopped = with_checkpoint((size_t)_i / N_KINDS, 0),
                                resumed = with_checkpoint((size_t)_i / N_KINDS, 1);
  const enum kind kind = (enum kind)(_i % N_KINDS);
  struct host undisturbed = {.stop_at = NEVER};
  float *expected, *weights;
  size_t n, m;
  ck_assert_int_eq(train(kind, &whole, 1, &undisturbed, &expected, &n), MELU_OK);
  ck_assert_uint_ge(undisturbed.n_reports, 15);
  for (size_t stop = 1; stop <= undisturbed.n_reports; stop++) {
    struct host first = {.stop_at = stop}, second = {.stop_at = NEVER};
    ck_assert_int_eq(train(kind, &stopped, 1 + stop % 3, &first, NULL, NULL), MELU_ECANCELED);
    ck_assert_uint_eq(first.n_reports, stop);
    ck_assert(stop == undisturbed.n_reports || exists(path));
    const melu_status status = train(kind, &resumed, 1 + stop % 2, &second, &weights, &m);
    ck_assert_msg(status == MELU_OK, "after report %zu: %s", stop, err.message);
    ck_assert_uint_eq(n, m);
    ck_assert_msg(memcmp(expected, weights, n * sizeof *weights) == 0, "stopped after report %zu: other weights", stop);
    if (stop < undisturbed.n_reports) ck_assert_uint_eq(second.n_reports, undisturbed.n_reports - stop);
    ck_assert(memcmp(&second.loss, &undisturbed.loss, sizeof(double)) == 0);
    ck_assert(memcmp(&second.validation, &undisturbed.validation, sizeof(double)) == 0);
    free(weights);
  }
  free(expected);
  remove_folder();
}
END_TEST

/* How old the file of a training is that ended by itself: the number of reports that one who resumes it hears. */
static size_t reports_left(size_t updates) {
  const struct melu_fit_options first = with_checkpoint(updates, 0), second = with_checkpoint(updates, 1);
  struct host host = {.stop_at = NEVER}, again = {.stop_at = NEVER};
  unlink(path);
  ck_assert_int_eq(train(LAYERS, &first, 1, &host, NULL, NULL), MELU_OK);
  ck_assert_int_eq(train(LAYERS, &second, 1, &again, NULL, NULL), MELU_OK);
  return again.n_reports;
}

START_TEST(written_as_often_as_asked) {
  make_folder();
  ck_assert_uint_eq(reports_left(0), 5);   /* the last epoch */
  ck_assert_uint_eq(reports_left(1), 1);   /* the last of 20 */
  ck_assert_uint_eq(reports_left(7), 6);   /* after the 14th */
  ck_assert_uint_eq(reports_left(30), 20); /* never */
  ck_assert(!exists(path));
  remove_folder();
}
END_TEST

static void leave_checkpoint(enum kind kind) {
  const struct melu_fit_options fit = with_checkpoint(0, 0);
  struct host host = {.stop_at = 8};
  ck_assert_int_eq(train(kind, &fit, 1, &host, NULL, NULL), MELU_ECANCELED);
}

/* A resumption of what must be refused leaves the model as it is. */
static void refuse(struct world *w, const struct melu_fit_options *fit, melu_status expected, const char *why) {
  size_t n;
  float *before = world_weights(w->model, &n);
  const melu_status status = melu_fit(w->model, w->data, fit, &err);
  float *after = world_weights(w->model, &n);
  ck_assert_msg(status == expected && err.status == expected, "%s: %s", melu_status_name(status), err.message);
  ck_assert_msg(strstr(err.message, why), "\"%s\" does not say \"%s\"", err.message, why);
  ck_assert(memcmp(before, after, n * sizeof *after) == 0);
  free(before);
  free(after);
}

START_TEST(other_options_are_refused) {
  struct melu_optimizer_options optimizer = *fit_options().optimizer, other;
  struct world w;
  struct host host = {.stop_at = NEVER};
  make_folder();
  leave_checkpoint(LAYERS);
  open_kind(&w, LAYERS, 1, &host, NULL);
#define REFUSE(changed, name)                                 \
  do {                                                        \
    struct melu_fit_options fit = with_checkpoint(0, 1);      \
    other = optimizer;                                        \
    fit.optimizer = &other;                                   \
    changed;                                                  \
    refuse(&w, &fit, MELU_EINVAL, "training: " name " was "); \
  } while (0)
  REFUSE(fit.seed = 4, "seed");
  REFUSE(fit.n_epochs = 5, "n_epochs");
  REFUSE(fit.batch_tasks = 8, "batch_tasks");
  REFUSE(fit.n_query = 3, "n_query");
  REFUSE(fit.min_ratings = 3, "min_ratings");
  REFUSE(fit.max_ratings = 50, "max_ratings");
  REFUSE(fit.max_support = 5, "max_support");
  REFUSE(fit.random_support = 1, "random_support");
  REFUSE(fit.cosine = -1, "cosine");
  REFUSE(fit.patience = 2, "patience");
  REFUSE(fit.validation = 0.25, "validation");
  REFUSE(fit.prior_vectors = 3, "prior_vectors");
  REFUSE(fit.prior_offsets = 3, "prior_offsets");
  REFUSE(fit.prior_pooled = 3, "prior_pooled");
  REFUSE(fit.prior_dense = 3, "prior_dense");
  REFUSE(other.kind = MELU_ADAMW, "optimizer kind");
  REFUSE(other.dense = 1, "optimizer dense");
  REFUSE(other.lr = 0.02, "lr");
  REFUSE(other.beta1 = 0.8, "beta1");
  REFUSE(other.beta2 = 0.99, "beta2");
  REFUSE(other.epsilon = 1e-6, "epsilon");
  REFUSE(other.weight_decay = 0.1, "weight_decay");
  REFUSE(other.clip_value = -1, "clip_value");
  REFUSE(other.clip_norm = 1, "clip_norm");
  struct melu_fit_options same = with_checkpoint(3, 1);
  WORLD_TRY(melu_fit(w.model, w.data, &same, &err)); /* how often to write is no part of it */
  world_close(&w);
  remove_folder();
}
END_TEST

START_TEST(another_training_is_refused) {
  const uint32_t listed[3] = {1, 5, 9};
  struct melu_fit_options fit = with_checkpoint(0, 1);
  struct world w;
  struct host host = {.stop_at = NEVER};
  make_folder();
  leave_checkpoint(FACTORS);
  open_kind(&w, LAYERS, 1, &host, NULL);
  refuse(&w, &fit, MELU_ESCHEMA, "a model with other options");
  world_close(&w);

  leave_checkpoint(LAYERS);
  open_kind(&w, LAYERS, 1, &host, NULL);
  melu_dataset_free(w.data); /* one user less */
  WORLD_TRY(melu_dataset_new(&w.data, w.ctx, w.schema, &err));
  world_fill(w.data, N_USERS - 1);
  refuse(&w, &fit, MELU_EINVAL, "on other data");
  world_close(&w);

  open_kind(&w, LAYERS, 1, &host, NULL);
  fit.validation = 0;
  fit.validation_users = listed;
  fit.n_validation_users = 3;
  refuse(&w, &fit, MELU_EINVAL, "validation was 0.2");
  WORLD_TRY(melu_model_save(w.model, path, &err));
  refuse(&w, &fit, MELU_EFORMAT, "does not say that it is one");
  world_close(&w);
  remove_folder();
}
END_TEST

/* With the right checksum: tensors that are too few or too many, places where no update begins, numbers that no
 * training would have written. */
START_TEST(altered_checkpoints_are_refused) {
  static const struct {
    const char *tensor;
    size_t offset;
    uint64_t bits;
    size_t n_bytes;
    const char *why;
  } numbers[] = {
      {"training.cursor", 0, 0, 8, "no update begins after task 0"},
      {"training.cursor", 0, 1, 8, "no update begins after task 1"},
      {"training.cursor", 0, (uint64_t)1 << 40, 8, "no update begins"},
      {"training.cursor", 8, 4, 8, "epoch 4, said to be the best, is not over"},
      {"second_moment.W1", 4, 0xbf800000u, 4, "\"second_moment.W1\": number 1"},
      {"last_update.E.genre", 0, 0xffffffffu, 4, "\"last_update.E.genre\": number 0"},
  };
  const struct melu_fit_options fit = with_checkpoint(0, 1);
  struct world w;
  struct host host = {.stop_at = NEVER};
  make_folder();
  open_kind(&w, LAYERS, 1, &host, NULL);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    unsigned char bytes[8];
    for (size_t k = 0; k < 8; k++) bytes[k] = (unsigned char)(numbers[i].bits >> 8 * k);
    leave_checkpoint(LAYERS);
    edit_tensor(path, numbers[i].tensor, numbers[i].offset, bytes, numbers[i].n_bytes);
    refuse(&w, &fit, MELU_ERANGE, numbers[i].why);
  }
  leave_checkpoint(LAYERS);
  edit_header(path, "\"first_moment.W1\"", "\"first_moment.X1\"");
  refuse(&w, &fit, MELU_EFORMAT, "\"first_moment.W1\" is missing");
  leave_checkpoint(LAYERS);
  edit_header(path, "\"W1\":", "\"more\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},\"W1\":");
  refuse(&w, &fit, MELU_EFORMAT, "of this training");
  leave_checkpoint(LAYERS);
  edit_header(path, "\"schema\":", "\"scheme\":");
  refuse(&w, &fit, MELU_ESCHEMA, "another schema");
  leave_checkpoint(LAYERS);
  edit_header(path, "\"kernels\":", "\"colonels\":");
  WORLD_TRY(melu_fit(w.model, w.data, &fit, &err));
  ck_assert_msg(strstr(host.line, "kernels \"\" is resumed"), "%s", host.line);
  world_close(&w);
  remove_folder();
}
END_TEST

/* Without a host who listens; and nobody asks for the reason either. */
START_TEST(refused_without_a_word) {
  const struct melu_fit_options fit = with_checkpoint(0, 1);
  struct world w;
  make_folder();
  FILE *file = fopen(path, "w");
  ck_assert_ptr_nonnull(file);
  fclose(file);
  world_open(&w, NULL, N_USERS);
  ck_assert_int_eq(melu_fit(w.model, w.data, &fit, NULL), MELU_EFORMAT);
  ck_assert_int_eq(melu_fit(w.model, w.data, &fit, &err), MELU_EFORMAT);
  ck_assert_int_eq(err.status, MELU_EFORMAT);
  world_close(&w);
  remove_folder();
}
END_TEST

START_TEST(other_users_left_out_are_refused) {
  const uint32_t listed[3] = {1, 5, 9}, others[3] = {1, 5, 8};
  struct melu_fit_options fit = with_checkpoint(0, 0);
  struct world w;
  struct host host = {.stop_at = 8};
  make_folder();
  open_kind(&w, LAYERS, 1, &host, NULL);
  fit.validation = 0;
  fit.validation_users = listed;
  fit.n_validation_users = 3;
  ck_assert_int_eq(melu_fit(w.model, w.data, &fit, &err), MELU_ECANCELED);
  fit.resume = 1;
  fit.validation_users = others;
  refuse(&w, &fit, MELU_EINVAL, "on other users");
  world_close(&w);
  remove_folder();
}
END_TEST

/* Another vocabulary, whatever its size. */
START_TEST(another_schema_is_refused) {
  const struct melu_field more = {.size = sizeof more, .name = "more", .owner = MELU_USER, .n_values = 2, .width = 1};
  const struct melu_fit_options fit = with_checkpoint(0, 1);
  struct world w;
  struct host host = {.stop_at = NEVER};
  make_folder();
  leave_checkpoint(LAYERS);
  open_kind(&w, LAYERS, 1, &host, NULL);
  melu_model_free(w.model);
  melu_dataset_free(w.data);
  WORLD_TRY(melu_schema_add(w.schema, &more, &err));
  WORLD_TRY(melu_dataset_new(&w.data, w.ctx, w.schema, &err));
  for (uint64_t id = 0; id < 10; id++) WORLD_TRY(melu_dataset_add_item(w.data, id, NULL, NULL, &err));
  for (uint64_t id = 0; id < 50; id++) {
    if (id % 10 == 0) WORLD_TRY(melu_dataset_add_user(w.data, id / 10, NULL, NULL, &err));
    WORLD_TRY(melu_dataset_add_rating(w.data, id / 10, id % 10, 1, &err));
  }
  WORLD_TRY(melu_dataset_freeze(w.data, &err));
  WORLD_TRY(melu_model_new(&w.model, w.ctx, melu_dataset_schema(w.data), model_options(LAYERS), &err));
  refuse(&w, &fit, MELU_ESCHEMA, "another schema");
  world_close(&w);
  remove_folder();
}
END_TEST

/* Where no file can be made, that is said before the training, not after its first epoch. */
START_TEST(nowhere_to_write) {
  struct melu_fit_options fit = with_checkpoint(0, 0);
  struct world w;
  struct host host = {.stop_at = NEVER};
  make_folder();
  open_kind(&w, LAYERS, 1, &host, NULL);
  fit.checkpoint = "/no/such/folder/training";
  refuse(&w, &fit, MELU_EIO, "/no/such/folder/training");
  fit.checkpoint = "/dev/null";
  refuse(&w, &fit, MELU_EIO, "no regular file");
  fit.checkpoint = NULL;
  fit.resume = 1;
  refuse(&w, &fit, MELU_EINVAL, "there is no checkpoint");
  ck_assert_uint_eq(host.n_reports, 0);
  world_close(&w);
  remove_folder();
}
END_TEST

/* A diverging training leaves a file from which it diverges again, at the same update and with the same weights: what
 * had to be taken back is not in it. */
START_TEST(no_checkpoint_of_what_diverged) {
  struct melu_optimizer_options wild = {.size = sizeof wild, .kind = MELU_SGD, .lr = 30, .clip_value = -1};
  struct melu_fit_options fit = with_checkpoint(1, 0);
  float *weights[2];
  size_t n;
  make_folder();
  fit.optimizer = &wild;
  for (int resume = 0; resume < 2; resume++) {
    struct host host = {.stop_at = NEVER};
    fit.resume = resume;
    ck_assert_int_eq(train(LAYERS, &fit, 1, &host, &weights[resume], &n), MELU_EDIVERGED);
    ck_assert_uint_ge(host.n_reports, !resume);
    ck_assert_uint_le(host.n_reports, resume ? 1 : 12);
  }
  ck_assert(exists(path));
  ck_assert(memcmp(weights[0], weights[1], n * sizeof **weights) == 0);
  free(weights[0]);
  free(weights[1]);
  remove_folder();
}
END_TEST

/* What a checkpoint says of itself has no memory: the training ends at the update that it would have told of, and
 * the same may be asked again. */
START_TEST(a_checkpoint_without_memory) {
  struct melu_fit_options fit = with_checkpoint(1, 0);
  melu_status status = MELU_ENOMEM;
  size_t n_failures = 0;
  make_folder();
  fit.n_epochs = 1;
  for (; status; n_failures++) {
    struct host host = {.stop_at = NEVER};
    json_refuse(n_failures + 1);
    fit.resume = n_failures % 2 && exists(path);
    status = train(LAYERS, &fit, 1, &host, NULL, NULL);
    if (!status) break;
    ck_assert_int_eq(status, MELU_ENOMEM);
    ck_assert_int_eq(err.status, MELU_ENOMEM);
  }
  json_refuse_none();
  ck_assert_uint_gt(n_failures, 50);
  remove_folder();
}
END_TEST

START_TEST(other_kernels_are_told) {
  const struct melu_fit_options fit = with_checkpoint(0, 1);
  const char *kernels[2] = {NULL, "base"};
  struct world best;
  struct host nobody = {.stop_at = NEVER};
  make_folder();
  leave_checkpoint(LAYERS);
  open_kind(&best, LAYERS, 1, &nobody, NULL);
  const int has_others = strstr(melu_build_info(best.ctx), "base") == NULL;
  world_close(&best);
  for (int i = 0; i < 2; i++) {
    struct world w;
    struct host host = {.stop_at = NEVER};
    open_kind(&w, LAYERS, 1, &host, kernels[i]);
    WORLD_TRY(melu_fit(w.model, w.data, &fit, &err));
    ck_assert_msg((i == 1 && has_others) == (host.line[0] != 0), "kernels %s: \"%s\"",
                  kernels[i] ? kernels[i] : "by default", host.line);
    world_close(&w);
    unlink(path);
    leave_checkpoint(LAYERS);
  }
  remove_folder();
}
END_TEST

int main(void) {
  Suite *s = suite_create("checkpoint");
  TCase *t = tcase_create("checkpoint");
  tcase_set_timeout(t, 60);
  tcase_add_loop_test(t, resumed_as_if_never_stopped, 0, 3 * N_KINDS);
  tcase_add_test(t, written_as_often_as_asked);
  tcase_add_test(t, other_options_are_refused);
  tcase_add_test(t, another_training_is_refused);
  tcase_add_test(t, altered_checkpoints_are_refused);
  tcase_add_test(t, refused_without_a_word);
  tcase_add_test(t, other_users_left_out_are_refused);
  tcase_add_test(t, another_schema_is_refused);
  tcase_add_test(t, nowhere_to_write);
  tcase_add_test(t, no_checkpoint_of_what_diverged);
  tcase_add_test(t, a_checkpoint_without_memory);
  tcase_add_test(t, other_kernels_are_told);
  suite_add_tcase(s, t);
  return run_suite(s);
}
