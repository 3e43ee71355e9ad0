/* SPDX-License-Identifier: BSD-3-Clause */
/* Of proof 10: a model with its catalogue, as a host serves it to many threads, and replaces it while it is in use. */
#ifndef MELU_TESTS_SERVING_H
#define MELU_TESTS_SERVING_H

#include <pthread.h>

#include "proof.h"

enum { SERVICE_WEIGHTS = 2, SERVICE_KINDS = 4, SERVICE_PATH = 192 };

/* The kinds of models, small but for the last: a catalogue of wide items takes products so large that they are BLIS's.
 */
extern const struct service_kind {
  const char *name;
  struct melu_model_options options; /* but for the seed */
  int adapts_items, has_variances, is_wide;
} service_kinds[SERVICE_KINDS];

/* What is served, until all who hold it have given it back. */
struct version {
  const struct service *service;
  melu_context *ctx;
  size_t weights; /* number of the model's file */
  melu_model *model;
  melu_catalog *catalog; /* NULL if there is none of such a model */
  melu_user *regular;    /* whom all threads know */
  size_t n_holders;      /* guarded by the service's lock */
};

struct service {
  struct scene scene; /* its context has no threads */
  const struct service_kind *kind;
  melu_context *ctx; /* of all threads */
  const melu_dataset *data;
  melu_dataset *wide_data; /* NULL: the scene's */
  melu_batch *batch;
  pthread_mutex_t lock; /* guards what follows */
  struct version *current;
  size_t n_working, n_published;
};

void service_open(struct service *s, const struct service_kind *kind);
void service_close(struct service *s);

/* The name of file `number` of a kind in the service's folder. */
const char *service_path(char path[SERVICE_PATH], const struct service *s, const char *kind, size_t number);

/* A catalogue that has come and gone: all items, half of them put in later, some of them again. */
melu_catalog *service_catalog(const melu_model *model, const melu_dataset *data);

/* Loads a model and makes what is served of it, for one holder. */
struct version *version_new(const struct service *s, melu_context *ctx, size_t weights);
void version_free(struct version *v);

/* From here on this version is served, in place of another one, which goes when nobody holds it any more. */
void service_publish(struct service *s, struct version *v);
struct version *service_take(struct service *s);
void service_give_back(struct service *s, struct version *v);

#endif
