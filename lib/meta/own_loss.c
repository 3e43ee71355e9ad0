/* SPDX-License-Identifier: BSD-3-Clause */
/* What is asked of the outer loop beside the gradient of the model's own loss. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "meta/outer.h"

/* ------------------------------------------------------------------------------------------ a host's own loss */

struct own_loss {
  melu_loss_fn call;
  void *arg;
  float *scores, *ratings, *slopes; /* as many as the largest query set has */
  double *losses;                   /* of all tasks */
};

static melu_status ask(struct melu__outer *o, size_t i, const struct own_loss *own, melu_error *err) {
  const struct melu__task *task = &o->l.batch->tasks[i];
  const size_t at = task->start + task->n_support;
  const float *ratings;
  melu_dataset_ratings(o->l.batch->data, task->user, NULL, &ratings);
  for (size_t k = 0; k < task->n_query; k++) {
    own->scores[k] = (float)o->l.scores[at + k];
    own->ratings[k] = ratings[o->l.batch->positions[at + k]];
    if (!isfinite(own->scores[k])) return melu__fail_at(err, MELU_EDIVERGED, i, "task %zu: a score is not finite", i);
  }
  if (own->call(own->arg, i, own->scores, own->ratings, task->n_query, &own->losses[i], own->slopes))
    return melu__fail_at(err, MELU_ECANCELED, i, "task %zu: the host's loss asked to stop", i);
  for (size_t k = 0; k < task->n_query; k++) {
    o->l.slopes[at + k] = own->slopes[k];
    if (!isfinite(own->slopes[k]) || !isfinite(own->losses[i]))
      return melu__fail_at(err, MELU_EDIVERGED, i, "task %zu: the host's loss is not finite", i);
  }
  return MELU_OK;
}

/* First the scores, which the host judges; then the gradient of the linear loss with its derivatives. */
static melu_status run_own(melu_gradient *g, const melu_model *model, const melu_batch *batch,
                           const struct own_loss *own, real *scores, real *slopes, melu_error *err) {
  struct melu__outer *o;
  melu_status status = melu__outer_begin(&o, MELU__PLAN_META_SCORES, g, model, batch, NULL, err);
  if (status) return status;
  o->l.scores = scores;
  o->l.slopes = slopes;
  melu__outer_forward(o);
  for (size_t i = 0; i < batch->n_tasks && !status; i++) status = ask(o, i, own, err);
  if (!status) status = melu__outer_begin(&o, MELU__PLAN_META_LINEAR, g, model, batch, NULL, err);
  if (status) return status;
  melu__outer_run(o);
  memcpy(g->losses, own->losses, batch->n_tasks * sizeof *g->losses);
  return melu__outer_complete(o, err);
}

melu_status melu_meta_gradient_of(melu_gradient *g, const melu_model *model, const melu_batch *batch, melu_loss_fn loss,
                                  void *arg, melu_error *err) {
  if (!model || !batch || !loss)
    return melu__fail(err, MELU_EINVAL, "%s is NULL", !model ? "model" : !batch ? "batch" : "loss");
  const struct melu_allocator *a = &model->ctx->allocator;
  size_t most = 0;
  for (size_t i = 0; i < batch->n_tasks; i++)
    if (batch->tasks[i].n_query > most) most = batch->tasks[i].n_query;
  real *scores = melu__calloc(a, melu__size_mul(batch->n_positions, 2), sizeof *scores);
  float *floats = melu__alloc(a, melu__size_mul(most, 3), sizeof *floats);
  double *losses = melu__calloc(a, batch->n_tasks, sizeof *losses);
  melu_status status = MELU_ENOMEM;
  if (scores && floats && losses) {
    const struct own_loss own = {loss, arg, floats, floats + most, floats + 2 * most, losses};
    status = run_own(g, model, batch, &own, scores, scores + batch->n_positions, err);
  } else {
    melu__fail_memory(err);
  }
  melu__free(a, losses);
  melu__free(a, floats);
  melu__free(a, scores);
  return status;
}

melu_status melu__noise(melu_gradient *g, const melu_model *model, const melu_batch *batch,
                        const struct melu__batch_parts *parts, melu_error *err) {
  struct melu__outer *o;
  melu_status status = melu__outer_begin(&o, MELU__PLAN_NOISE, g, model, batch, parts, err);
  if (status) return status;
  melu__outer_forward(o);
  status = melu__outer_check(g, batch->n_tasks, err);
  for (size_t p = 0; p < o->l.n_parts && !status; p++) {
    struct melu__part *part = &o->l.parts[p];
    part->loss = 0;
    for (size_t i = part->first_task; i < part->end_task; i++) part->loss += g->losses[i] / o->f.weight;
  }
  return status;
}
