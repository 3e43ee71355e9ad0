/* SPDX-License-Identifier: BSD-3-Clause */
#include "training.h"

struct host {
  size_t n_updates, stop_at;
};

static int hear(void *arg, const struct melu_progress *progress) {
  struct host *host = arg;
  (void)progress;
  return ++host->n_updates == host->stop_at;
}

melu_status training_run(unsigned char digest[MELU_DIGEST_BYTES], const struct training *t, melu_error *err) {
  struct host host = {.stop_at = t->stop_at};
  melu_context *ctx;
  melu_model *model;
  const struct melu_context_options options = {
      .size = sizeof options, .n_threads = t->n_threads, .progress = hear, .progress_arg = &host};
  /* Half of the scene's users are trained on: two batches an epoch. */
  const struct melu_fit_options fit = {.size = sizeof fit,
                                       .n_epochs = TRAINING_UPDATES / 2,
                                       .batch_tasks = 2,
                                       .n_query = 1,
                                       .min_ratings = 2,
                                       .seed = 5,
                                       .cosine = 1,
                                       .prior_vectors = 1,
                                       .validation = 0.5,
                                       .checkpoint = t->checkpoint,
                                       .checkpoint_updates = t->every,
                                       .resume = t->checkpoint != NULL};
  melu_status status = melu_context_new(&ctx, &options, err);
  if (status) return status;
  status = melu_model_load(&model, ctx, t->start, err);
  if (!status) {
    status = melu_fit(model, t->scene->data, &fit, err);
    if (!status || status == MELU_ECANCELED) melu_model_digest(digest, model, err);
    melu_model_free(model);
  }
  melu_context_free(ctx);
  return status;
}
