/* SPDX-License-Identifier: BSD-3-Clause */
/* Trainings as files: docs/file-format.md, "Checkpoints". Random numbers are counted, so a training is a function of
 * model, data, options and of how far it got. The file holds what changes, and of what does not enough to be sure that
 * it is the same. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "io/metadata.h"
#include "io/param_tensors.h"
#include "meta/fit.h"
#include "tensor/kernels.h"

#define FORMAT "melu-checkpoint"
#define SECOND "second_moment."

enum { N_CURSOR = 2, N_LOSSES = 3, ARRAYS = 5, LISTS = 4, NAME_ROOM = 96 };

/* A training as tensors, which lie in the training's own memory, or here. */
struct checkpoint {
  const struct melu__fit *f;
  struct melu__tensor *tensors;
  char (*names)[NAME_ROOM]; /* of the tensors */
  size_t n;
  uint64_t counts[MELU__N_COUNTS]; /* the values of the options */
  double numbers[MELU__N_NUMBERS];
  uint64_t cursor[N_CURSOR]; /* tasks done; the best epoch */
  double losses[N_LOSSES];   /* sum of the epoch so far; of the validation, the last and the best */
};

/* ------------------------------------------------------------------------------------------------- what it is */

/* Of all slots, whoever has them. */
melu_status melu__fit_identify(struct melu__fit *f, melu_error *err) {
  unsigned char digest[MELU_DIGEST_BYTES];
  struct melu__digest d;
  melu_status status = MELU_OK;
  melu__digest_begin(&d);
  melu__digest_bits(&d, f->share.n_slots);
  for (size_t s = 0; s < f->share.n_slots && !status; s++) status = f->source.digest(f->source.arg, &d, s, err);
  melu__digest_end(digest, &d);
  for (size_t i = 0; i < sizeof digest; i++) snprintf(f->identity + 2 * i, 3, "%02x", (unsigned)digest[i]);
  return status;
}

/* Appends an array of that shape; nothing if there is none. */
static void add(struct checkpoint *c, const char *prefix, struct melu__tensor shape, const void *data) {
  struct melu__tensor *t = &c->tensors[c->n];
  if (!data) return;
  snprintf(c->names[c->n], NAME_ROOM, "%s%s", prefix, shape.name);
  *t = shape;
  t->name = c->names[c->n++];
  t->data = data;
}

static void add_list(struct checkpoint *c, const char *prefix, const char *name, enum melu__dtype dtype, size_t n,
                     const void *data) {
  add(c, prefix, (struct melu__tensor){.name = name, .dtype = dtype, .n_dims = 1, .dims = {n}}, data);
}

static void add_all(struct checkpoint *c) {
  const struct melu__fit *f = c->f;
  const melu_model *model = f->model;
  const real *best = f->best;
  for (size_t i = 0; i < model->n_params; i++) {
    const struct melu__param *p = &model->params[i];
    const struct melu__tensor tensor = melu__param_tensor(p, model->options.rates);
    add(c, "", tensor, p->data);
    add(c, "first_moment.", tensor, f->optimizer->m[i]);
    add(c, SECOND, tensor, f->optimizer->v[i]);
    add(c, "best.", tensor, best);
    if (best) best += p->rows * p->cols;
    if (p->is_table) add_list(c, "last_update.", p->name, MELU__U32, p->rows, f->prior.last[i]);
  }
  add_list(c, "training.", "cursor", MELU__U64, N_CURSOR, c->cursor);
  add_list(c, "training.", "losses", MELU__F64, N_LOSSES, c->losses);
  add_list(c, "training.", "counts", MELU__U64, MELU__N_COUNTS, c->counts);
  add_list(c, "training.", "numbers", MELU__F64, MELU__N_NUMBERS, c->numbers);
}

static void release(struct checkpoint *c) {
  const struct melu_allocator *a = &c->f->ctx->allocator;
  melu__free(a, c->tensors);
  melu__free(a, c->names);
}

static melu_status describe(struct checkpoint *c, const struct melu__fit *f, melu_error *err) {
  const size_t most = ARRAYS * f->model->n_params + LISTS;
  struct melu__count counts[MELU__N_COUNTS];
  struct melu__number_option numbers[MELU__N_NUMBERS];
  *c = (struct checkpoint){.f = f};
  c->tensors = melu__alloc(&f->ctx->allocator, most, sizeof *c->tensors);
  c->names = melu__alloc(&f->ctx->allocator, most, sizeof *c->names);
  if (!c->tensors || !c->names) {
    release(c);
    return melu__fail_memory(err);
  }
  melu__fit_list_options(counts, numbers, f);
  for (size_t i = 0; i < MELU__N_COUNTS; i++) c->counts[i] = counts[i].value;
  for (size_t i = 0; i < MELU__N_NUMBERS; i++) c->numbers[i] = numbers[i].value;
  add_all(c);
  return MELU_OK;
}

/* -------------------------------------------------------------------------------------------------- to a file */

melu_status melu__fit_save(const struct melu__fit *f, melu_error *err) {
  struct checkpoint c;
  melu_status status = describe(&c, f, err);
  if (status) return status;
  c.cursor[0] = f->n_done;
  c.cursor[1] = f->best_epoch;
  c.losses[0] = f->loss_sum;
  c.losses[1] = f->validation;
  c.losses[2] = f->best_validation;
  json_t *metadata = melu__metadata(f->model, FORMAT);
  if (metadata && !json_object_set_new(metadata, "data", json_string(f->identity)) &&
      !json_object_set_new(metadata, "kernels", json_string(f->ctx->kernels->name)))
    status = melu__safetensors_save(f->ctx, f->options.checkpoint, metadata, c.tensors, c.n, NULL, err);
  else
    status = melu__fail_memory(err);
  json_decref(metadata);
  release(&c);
  return status;
}

/* ------------------------------------------------------------------------------------------------ from a file */

static int is_text(const struct melu__safetensors *file, const char *name, const char *text, size_t n) {
  size_t n_found;
  const char *found = melu__safetensors_text(file, name, &n_found);
  return found && n_found == n && memcmp(found, text, n) == 0;
}

/* The model is described in the very words in which this one would be. */
static melu_status check_model(const struct melu__fit *f, const struct melu__safetensors *file, melu_error *err) {
  static const char *const parts[] = {"schema", "options"};
  json_t *metadata = melu__metadata(f->model, FORMAT);
  melu_status status = metadata ? MELU_OK : melu__fail_memory(err);
  for (size_t i = 0; i < sizeof parts / sizeof *parts && !status; i++) {
    const json_t *text = json_object_get(metadata, parts[i]);
    if (!is_text(file, parts[i], json_string_value(text), json_string_length(text)))
      status = melu__fail(err, MELU_ESCHEMA, "it is of a model with %s", i ? "other options" : "another schema");
  }
  json_decref(metadata);
  return status;
}

static melu_status check_tensors(const struct checkpoint *c, const struct melu__safetensors *file, melu_error *err) {
  for (size_t i = 0; i < c->n; i++) {
    const melu_status status = melu__safetensors_expect(file, &c->tensors[i], err);
    if (status) return status;
  }
  if (file->n_tensors == c->n) return MELU_OK;
  return melu__fail(err, MELU_EFORMAT, "it has %zu tensors and not the %zu of this training", file->n_tensors, c->n);
}

static melu_status check_options(const struct melu__fit *f, const struct melu__safetensors *file, melu_error *err) {
  struct melu__count counts[MELU__N_COUNTS];
  struct melu__number_option numbers[MELU__N_NUMBERS];
  uint64_t count[MELU__N_COUNTS];
  double number[MELU__N_NUMBERS];
  melu__fit_list_options(counts, numbers, f);
  melu__safetensors_copy(count, file, "training.counts");
  melu__safetensors_copy(number, file, "training.numbers");
  for (size_t i = 0; i < MELU__N_COUNTS; i++)
    if (count[i] != counts[i].value)
      return melu__fail(err, MELU_EINVAL, "%s was %llu and is %llu now", counts[i].name, (unsigned long long)count[i],
                        (unsigned long long)counts[i].value);
  for (size_t i = 0; i < MELU__N_NUMBERS; i++)
    if (number[i] != numbers[i].value)
      return melu__fail(err, MELU_EINVAL, "%s was %g and is %g now", numbers[i].name, number[i], numbers[i].value);
  if (!is_text(file, "data", f->identity, strlen(f->identity)))
    return melu__fail(err, MELU_EINVAL, "it is a training on other data, or on other users");
  return MELU_OK;
}

static uint64_t count_updates(const struct melu__fit *f, uint64_t n_done) {
  const uint64_t batch = f->options.batch_tasks, an_epoch = f->n_users / batch + (f->n_users % batch != 0);
  return n_done / f->n_users * an_epoch + n_done % f->n_users / batch;
}

/* Somewhere between two updates, neither before the first nor behind the last. */
static melu_status check_cursor(const struct melu__fit *f, const uint64_t cursor[N_CURSOR], melu_error *err) {
  const uint64_t done = cursor[0], epoch = done / f->n_users;
  if (done == 0 || epoch >= f->options.n_epochs || done % f->n_users % f->options.batch_tasks != 0)
    return melu__fail(err, MELU_ERANGE, "no update begins after task %llu", (unsigned long long)done);
  if (cursor[1] > 0 && cursor[1] >= epoch)
    return melu__fail(err, MELU_ERANGE, "epoch %llu, said to be the best, is not over", (unsigned long long)cursor[1]);
  return MELU_OK;
}

/* Numbers that no training would have written: a square below zero, an update that is still to come. */
static melu_status check_state(const struct checkpoint *c, const struct melu__safetensors *file, uint64_t n_updates,
                               melu_error *err) {
  for (size_t t = 0; t < c->n; t++) {
    const char *name = c->tensors[t].name;
    const int is_update = c->tensors[t].dtype == MELU__U32;
    if (!is_update && strncmp(name, SECOND, sizeof SECOND - 1) != 0) continue;
    size_t n;
    const unsigned char *words = melu__safetensors_data(&n, file, name);
    for (size_t i = 0; i < n / 4; i++) {
      const uint64_t bits = melu__get_bits(words + 4 * i, 4);
      if (is_update ? bits > n_updates : melu__bits_float(bits) < 0)
        return melu__fail_at(err, MELU_ERANGE, i, "\"%s\": number %zu is out of range", name, i);
    }
  }
  return MELU_OK;
}

static melu_status check(const struct checkpoint *c, const struct melu__safetensors *file, melu_error *err) {
  uint64_t cursor[N_CURSOR];
  melu_status status = melu__check_format(file, FORMAT, err);
  if (!status) status = check_model(c->f, file, err);
  if (!status) status = check_tensors(c, file, err);
  if (!status) status = check_options(c->f, file, err);
  if (status) return status;
  melu__safetensors_copy(cursor, file, "training.cursor");
  status = check_cursor(c->f, cursor, err);
  if (!status) status = check_state(c, file, count_updates(c->f, cursor[0]), err);
  return status;
}

static void tell_kernels(const struct melu__fit *f, const struct melu__safetensors *file) {
  char line[160];
  const char *name = melu__safetensors_text(file, "kernels", NULL);
  if (!f->ctx->log || (name && strcmp(name, f->ctx->kernels->name) == 0)) return;
  snprintf(line, sizeof line, "a training with the kernels \"%.32s\" is resumed with \"%s\": its bits may differ",
           name ? name : "", f->ctx->kernels->name);
  f->ctx->log(f->ctx->log_arg, line);
}

/* Nothing can fail any more. */
static void take(struct melu__fit *f, const struct checkpoint *c, const struct melu__safetensors *file) {
  /* The tensors' memory is the training's, or the checkpoint's. */
  for (size_t t = 0; t < c->n; t++) melu__safetensors_copy((void *)c->tensors[t].data, file, c->tensors[t].name);
  f->n_done = f->n_resumed = c->cursor[0];
  f->best_epoch = (uint32_t)c->cursor[1];
  f->loss_sum = c->losses[0];
  f->validation = c->losses[1];
  f->best_validation = c->losses[2];
  f->optimizer->n_steps = f->prior.step = count_updates(f, f->n_done);
  f->model->version++;
  f->model->largest = (real)melu__model_largest(f->model);
}

melu_status melu__fit_resume(struct melu__fit *f, melu_error *err) {
  struct melu__safetensors file;
  struct checkpoint c;
  melu_error missing;
  melu_status status = describe(&c, f, err);
  if (status) return status;
  status = melu__safetensors_load(&file, f->ctx, f->options.checkpoint, 1, &missing);
  if (status) {
    release(&c);
    if (status == MELU_ENOTFOUND) return MELU_OK;
    if (err) *err = missing;
    return status;
  }
  status = check(&c, &file, err);
  if (status) {
    melu__safetensors_name(err, f->options.checkpoint);
  } else {
    tell_kernels(f, &file);
    take(f, &c, &file);
  }
  melu__safetensors_free(&file);
  release(&c);
  return status;
}
