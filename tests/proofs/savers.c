/* SPDX-License-Identifier: BSD-3-Clause */
#include "savers.h"

#include <string.h>

/* The states differ in the first row of the first parameter. */
static void set_state(melu_model *model, int state) {
  melu_error err;
  struct melu_param param;
  PROOF_TRY(melu_model_param(&param, model, 0, &err));
  float *row = calloc(param.cols, sizeof *row);
  PROOF_NEEDS(row, "no memory");
  for (size_t i = 0; i < param.cols; i++) row[i] = state ? 0.25F : 0.5F;
  PROOF_TRY(melu_model_write(model, param.name, 0, 1, row, &err));
  free(row);
}

melu_model *saver_model(const struct scene *s, int state) {
  melu_error err;
  melu_model *model;
  struct melu_model_options options = {.size = sizeof options};
  PROOF_TRY(melu_model_get_options(&options, s->model, &err));
  PROOF_TRY(melu_model_new(&model, s->ctx, melu_model_schema(s->model), &options, &err));
  set_state(model, state);
  return model;
}

static melu_status save_model(const struct scene *s, int state, const char *path, melu_error *err) {
  set_state(s->model, state);
  return melu_model_save(s->model, path, err);
}

static melu_status load_model(unsigned char digest[MELU_DIGEST_BYTES], const struct scene *s, const char *path,
                              melu_error *err) {
  melu_model *model;
  melu_status status = melu_model_load(&model, s->ctx, path, err);
  if (!status) status = melu_model_digest(digest, model, err);
  melu_model_free(model);
  return status;
}

melu_status saver_train(melu_model *model, const struct scene *s, const char *path, int resume, melu_error *err) {
  const struct melu_fit_options fit = {.size = sizeof fit,
                                       .n_epochs = 2,
                                       .batch_tasks = SCENE_USERS,
                                       .n_query = 1,
                                       .min_ratings = 2,
                                       .checkpoint = path,
                                       .resume = resume};
  return melu_fit(model, s->data, &fit, err);
}

static melu_status save_checkpoint(const struct scene *s, int state, const char *path, melu_error *err) {
  melu_model *model = saver_model(s, state);
  const melu_status status = saver_train(model, s, path, 0, err);
  melu_model_free(model);
  return status;
}

static melu_status load_checkpoint(unsigned char digest[MELU_DIGEST_BYTES], const struct scene *s, const char *path,
                                   melu_error *err) {
  melu_model *model = saver_model(s, 0);
  melu_status status = saver_train(model, s, path, 1, err);
  if (!status) status = melu_model_digest(digest, model, err);
  melu_model_free(model);
  return status;
}

const struct saver savers[N_SAVERS] = {{"melu_model_save", save_model, load_model},
                                       {"the checkpoint of melu_fit", save_checkpoint, load_checkpoint}};
