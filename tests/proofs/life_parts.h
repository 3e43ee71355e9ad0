/* SPDX-License-Identifier: BSD-3-Clause */
/* What whole_life.c, life_calls.c and life_shards.c share. */
#ifndef MELU_TESTS_LIFE_PARTS_H
#define MELU_TESTS_LIFE_PARTS_H

#include "whole_life.h"

struct life {
  const struct life_plan *plan;
  struct outcome *out;
  const struct melu_model_options *options;
  melu_context *ctx;
  melu_schema *schema;
  melu_dataset *data;
  melu_model *model; /* that of life_prepare */
  melu_workspace *ws;
  melu_user *user;
};

/* Calls whoever looks. */
void life_after(const struct life *l, const char *call);
void life_try(melu_status status, const char *call, const melu_error *err);

/* A call that cannot fail, and one that must not. */
#define LIVE(call) (call, life_after(l, #call))
#define LIVE_TRY(call) (life_try(call, #call, &err), life_after(l, #call))

/* What came out. */
void life_served(const struct life *l, const float *numbers, size_t n);
void life_trained(const struct life *l, const double *numbers, size_t n);
void life_wrote(const struct life *l, const void *bytes, size_t n);

struct life_path {
  char text[192];
};

struct life_path life_path(const char *folder, const char *name, const char *tag);
struct life_path life_model_file(const char *folder, int setting);
struct life_path life_saved(const struct life *l);

/* life_calls.c: the model as a file, a user, a catalogue, questions, a training. */
void life_keep(struct life *l);
void life_serve(struct life *l);
void life_rank(const struct life *l);
void life_ask(const struct life *l);
void life_train(const struct life *l);

/* life_shards.c: the data as a folder, and a training from it. */
void life_shard(const struct life *l);

#endif
