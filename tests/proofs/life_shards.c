/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "life_parts.h"

enum { N_FILES = 2 };

static struct life_path file_of(const struct life_path *folder, const char *name) {
  return life_path(folder->text, name, ".safetensors");
}

static void live_writing(const struct life *l, const char *folder) {
  melu_error err;
  melu_shard_writer *writer;
  const struct melu_shard_options options = {.size = sizeof options, .n_files = N_FILES, .buffer_bytes = 1};
  LIVE_TRY(melu_shard_writer_new(&writer, l->ctx, folder, l->data, &options, &err));
  LIVE_TRY(melu_shard_writer_add_user(writer, 77, NULL, &err));
  LIVE_TRY(melu_shard_writer_add_rating(writer, 77, 101, 1, &err));
  LIVE_TRY(melu_shard_writer_finish(writer, &err));
  LIVE(melu_shard_writer_free(writer));
}

static void live_reading(const struct life *l, const melu_shards *shards) {
  melu_error err;
  struct melu_shards_info info = {.size = sizeof info};
  melu_dataset *data;
  LIVE_TRY(melu_shards_describe(&info, shards, &err));
  life_served(l, &info.rating_min, 1);
  life_served(l, &info.rating_max, 1);
  for (size_t f = 0; f < info.n_files; f++) {
    const uint32_t *items;
    const float *ratings;
    LIVE_TRY(melu_shards_read(&data, shards, f, &err));
    for (uint32_t u = 0; u < melu_dataset_n_users(data); u++) {
      const size_t n = melu_dataset_ratings(data, u, &items, &ratings);
      life_served(l, ratings, n);
    }
    LIVE(melu_dataset_free(data));
  }
}

static void live_fit(const struct life *l, const melu_shards *shards) {
  melu_error err;
  melu_model *model;
  struct melu_metrics metrics;
  const struct life_path path = life_saved(l);
  const struct melu_evaluate_options judge = {.size = sizeof judge, .n_query = 3, .min_ratings = 4};
  struct melu_fit_options fit = {.size = sizeof fit,
                                 .n_epochs = 2,
                                 .batch_tasks = 4,
                                 .n_query = 3,
                                 .min_ratings = 4,
                                 .validation = 0.25,
                                 .checkpoint = path.text};
  LIVE_TRY(melu_model_new(&model, l->ctx, melu_dataset_schema(melu_shards_items(shards)), l->options, &err));
  LIVE_TRY(melu_fit_shards(model, shards, &fit, &err));
  fit.resume = 1; /* from the second epoch, to the same end */
  LIVE_TRY(melu_fit_shards(model, shards, &fit, &err));
  unlink(path.text);
  LIVE_TRY(melu_evaluate(&metrics, model, l->data, &judge, &err));
  life_trained(l, &metrics.mae, 1);
  LIVE(melu_model_free(model));
}

void life_shard(const struct life *l) {
  melu_error err;
  melu_shards *shards;
  const struct life_path folder = life_path(l->plan->folder, "shards-", l->plan->tag);
  PROOF_NEEDS(mkdir(folder.text, 0777) == 0, "no folder %s", folder.text);
  live_writing(l, folder.text);
  LIVE_TRY(melu_shards_open(&shards, l->ctx, folder.text, &err));
  live_reading(l, shards);
  live_fit(l, shards);
  LIVE(melu_shards_free(shards));
  for (int f = 0; f < N_FILES; f++) unlink(file_of(&folder, f ? "users-00001" : "users-00000").text);
  unlink(file_of(&folder, "manifest").text);
  rmdir(folder.text);
}
