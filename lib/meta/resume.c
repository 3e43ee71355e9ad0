/* SPDX-License-Identifier: BSD-3-Clause */
/* From the files of a training to the training: first all are read and checked, then, when nothing is wrong any more,
 * they are taken. One rank alone keeps the one file that it reads in memory in between. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "io/atomic_file.h"
#include "io/metadata.h"
#include "io/param_tensors.h"
#include "meta/checkpoint.h"
#include "meta/manifest.h"
#include "tensor/kernels.h"

struct resuming {
  struct melu__fit *f;
  struct melu__checkpoint c;     /* of the part that is being read */
  struct melu__safetensors file; /* the same, or the only one */
  uint64_t cursor[MELU__N_CURSOR];
  uint64_t counts[MELU__N_COUNTS];
  double numbers[MELU__N_NUMBERS], losses[MELU__N_LOSSES];
  uint32_t last_update; /* the largest number of all last updates, */
  char last_of[MELU__TENSOR_NAME];
  uint64_t last_index; /* and where it is */
  int is_kept;         /* the file is kept in memory */
  int is_of_others;    /* the training was on other data */
};

/* ------------------------------------------------------------------------------------------------ describing */

static int is_text(const struct melu__safetensors *file, const char *name, const char *text, size_t n) {
  size_t n_found;
  const char *found = melu__safetensors_text(file, name, &n_found);
  return found && n_found == n && memcmp(found, text, n) == 0;
}

/* The model is described in the very words in which this one would be. */
static melu_status check_model(const struct melu__fit *f, const struct melu__safetensors *file, melu_error *err) {
  static const char *const parts[] = {"schema", "options"};
  json_t *metadata = melu__metadata(f->model, MELU__CHECKPOINT_FORMAT);
  melu_status status = metadata ? MELU_OK : melu__fail_memory(err);
  for (size_t i = 0; i < sizeof parts / sizeof *parts && !status; i++) {
    const json_t *text = json_object_get(metadata, parts[i]);
    if (!is_text(file, parts[i], json_string_value(text), json_string_length(text)))
      status = melu__fail(err, MELU_ESCHEMA, "it is of a model with %s", i ? "other options" : "another schema");
  }
  json_decref(metadata);
  return status;
}

static melu_status check_shapes(const struct melu__checkpoint *c, const struct melu__safetensors *file,
                                melu_error *err) {
  for (size_t i = 0; i < c->n; i++) {
    const melu_status status = melu__safetensors_expect_shape(file, &c->tensors[i], err);
    if (status) return status;
  }
  if (file->n_tensors == c->n) return MELU_OK;
  return melu__fail(err, MELU_EFORMAT, "it has %zu tensors and not the %zu of this training", file->n_tensors, c->n);
}

static melu_status check_slots(const struct melu__checkpoint *c, const struct melu__safetensors *file,
                               melu_error *err) {
  char slots[48];
  const int n = snprintf(slots, sizeof slots, "%u %u %zu", (unsigned)c->share.own.lo, (unsigned)c->share.own.hi,
                         c->share.n_slots);
  const char *found = melu__safetensors_text(file, "slots", NULL);
  if (is_text(file, "slots", slots, (size_t)n)) return MELU_OK;
  return melu__fail(err, MELU_EINVAL, "it has slots \"%.40s\", and not \"%s\"", found ? found : "", slots);
}

static melu_status check_header(const struct resuming *r, const struct melu__part_file *part, melu_error *err) {
  const struct melu__safetensors *file = &r->file;
  char digits[sizeof file->stored];
  snprintf(digits, sizeof digits, "%016llx", (unsigned long long)part->saved.checksum);
  melu_status status = melu__check_format(file, MELU__CHECKPOINT_FORMAT, err);
  if (!status) status = check_model(r->f, file, err);
  if (!status) status = check_slots(&r->c, file, err);
  if (!status) status = check_shapes(&r->c, file, err);
  if (status || part->saved.n_bytes == 0) return status;
  if (file->n_bytes == part->saved.n_bytes && strcmp(file->stored, digits) == 0) return MELU_OK;
  return melu__fail(err, MELU_ECORRUPT, "it is not the file that the manifest names");
}

/* ------------------------------------------------------------------------------------------------- checking */

static int is_named(const struct melu__stored *tensor, const char *name) {
  return strcmp(tensor->name, name) == 0;
}

/* What is needed to know whether the rest is good. */
static void remember(struct resuming *r, const struct melu__stored *tensor, const unsigned char *bytes, size_t n) {
  void *to = is_named(tensor, "training.cursor")    ? (void *)r->cursor
             : is_named(tensor, "training.losses")  ? (void *)r->losses
             : is_named(tensor, "training.counts")  ? (void *)r->counts
             : is_named(tensor, "training.numbers") ? (void *)r->numbers
                                                    : NULL;
  if (to) melu__safetensors_decode(to, tensor->dtype, bytes, n);
}

/* Numbers that no training would have written: a square below zero, and, once it is known how many there were, an
 * update that is still to come. */
static melu_status check_numbers(void *arg, const struct melu__stored *tensor, size_t first, const unsigned char *bytes,
                                 size_t n, melu_error *err) {
  struct resuming *r = arg;
  const int is_update = tensor->dtype == MELU__U32,
            is_square = strncmp(tensor->name, MELU__SECOND, sizeof MELU__SECOND - 1) == 0;
  const size_t cols = tensor->n_dims == 2 ? (size_t)tensor->dims[1] : 1, size = melu__dtype_size(tensor->dtype);
  remember(r, tensor, bytes, n);
  if (!is_update && !is_square && melu__safetensors_finite(tensor->dtype, bytes, n)) return MELU_OK;
  for (size_t i = 0; i < n; i++) {
    const uint64_t bits = melu__get_bits(bytes + size * i, size);
    if (!melu__safetensors_finite(tensor->dtype, bytes + size * i, 1))
      return melu__fail_at(err, MELU_ERANGE, (first + i) / cols, "tensor \"%s\": row %zu is not finite", tensor->name,
                           (first + i) / cols);
    if (is_square && melu__bits_float(bits) < 0)
      return melu__fail_at(err, MELU_ERANGE, first + i, "\"%s\": number %zu is out of range", tensor->name, first + i);
    if (!is_update || bits <= r->last_update) continue;
    r->last_update = (uint32_t)bits;
    r->last_index = first + i;
    snprintf(r->last_of, sizeof r->last_of, "%s", tensor->name);
  }
  return MELU_OK;
}

static melu_status check_options(const struct resuming *r, melu_error *err) {
  struct melu__count counts[MELU__N_COUNTS];
  struct melu__number_option numbers[MELU__N_NUMBERS];
  melu__fit_list_options(counts, numbers, r->f);
  for (size_t i = 0; i < MELU__N_COUNTS; i++)
    if (r->counts[i] != counts[i].value)
      return melu__fail(err, MELU_EINVAL, "%s was %llu and is %llu now", counts[i].name,
                        (unsigned long long)r->counts[i], (unsigned long long)counts[i].value);
  for (size_t i = 0; i < MELU__N_NUMBERS; i++)
    if (r->numbers[i] != numbers[i].value)
      return melu__fail(err, MELU_EINVAL, "%s was %g and is %g now", numbers[i].name, r->numbers[i], numbers[i].value);
  return MELU_OK;
}

static uint64_t count_updates(const struct melu__fit *f, uint64_t n_done) {
  const uint64_t batch = f->options.batch_tasks, an_epoch = f->n_users / batch + (f->n_users % batch != 0);
  return n_done / f->n_users * an_epoch + n_done % f->n_users / batch;
}

/* Somewhere between two updates, neither before the first nor behind the last. */
static melu_status check_cursor(const struct resuming *r, melu_error *err) {
  const struct melu__fit *f = r->f;
  const uint64_t done = r->cursor[0], epoch = done / f->n_users;
  if (done == 0 || epoch >= f->options.n_epochs || done % f->n_users % f->options.batch_tasks != 0)
    return melu__fail(err, MELU_ERANGE, "no update begins after task %llu", (unsigned long long)done);
  if (r->cursor[1] > 0 && r->cursor[1] >= epoch)
    return melu__fail(err, MELU_ERANGE, "epoch %llu, said to be the best, is not over",
                      (unsigned long long)r->cursor[1]);
  if (r->last_update <= count_updates(f, done)) return MELU_OK;
  return melu__fail_at(err, MELU_ERANGE, r->last_index, "\"%s\": number %llu is out of range", r->last_of,
                       (unsigned long long)r->last_index);
}

/* ------------------------------------------------------------------------------------------------ all files */

/* Whether this rank has anything of the part: where all ranks have all rows, it has. */
static int is_needed(const struct melu__fit *f, const struct melu__part_file *part) {
  for (size_t t = 0; t < f->model->n_tables; t++)
    if (!f->model->params[t].is_sharded) return 1;
  return part->slots.lo == 0 || (part->slots.lo < f->share.own.hi && f->share.own.lo < part->slots.hi);
}

static melu_status read_part(struct resuming *r, const struct melu__part_file *part, melu__visit_numbers_fn visit,
                             const char *path, melu_error *err) {
  melu_status status = MELU_OK;
  if (!r->file.ctx)
    status = r->is_kept ? melu__safetensors_load(&r->file, r->f->ctx, path, 1, err)
                        : melu__safetensors_open(&r->file, r->f->ctx, path, err);
  if (status) return status;
  status = melu__checkpoint_describe(&r->c, r->f, part->slots, err);
  if (status) return status;
  if (visit == check_numbers) status = check_header(r, part, err);
  if (!status && r->is_kept) status = melu__safetensors_each(&r->file, visit, r, err);
  if (!status && !r->is_kept) status = melu__safetensors_scan(&r->file, path, visit, r, err);
  if (r->c.share.own.lo == 0) r->is_of_others = !is_text(&r->file, "data", r->f->identity, strlen(r->f->identity));
  melu__checkpoint_release(&r->c);
  if (status) melu__safetensors_name(err, path);
  return status;
}

static melu_status read_parts(struct resuming *r, melu__visit_numbers_fn visit, melu_error *err) {
  const struct melu__manifest *m = &r->f->parts.found;
  const struct melu_allocator *a = &r->f->ctx->allocator;
  melu_status status = MELU_OK;
  for (size_t i = 0; i < m->n && !status; i++) {
    if (!is_needed(r->f, &m->parts[i])) continue;
    char *path = melu__part_path(r->f->options.checkpoint, &m->parts[i], a);
    status = path ? read_part(r, &m->parts[i], visit, path, err) : melu__fail_memory(err);
    melu__free(a, path);
    if (!r->is_kept) melu__safetensors_free(&r->file);
  }
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

static melu_status take_numbers(void *arg, const struct melu__stored *tensor, size_t first, const unsigned char *bytes,
                                size_t n, melu_error *err) {
  const struct resuming *r = arg;
  const struct melu__share all = {1, {0, 1}};
  size_t i = 0;
  (void)err;
  while (strcmp(r->c.tensors[i].name, tensor->name) != 0) i++;
  const struct melu__place *p = &r->c.places[i];
  melu__take_rows(p->data, p->is_sharded ? &r->f->share : NULL, p->is_table ? &r->c.share : &all, tensor, p->cols,
                  first, bytes, n);
  if (i == 0 && first == 0 && r->c.share.own.lo == 0) tell_kernels(r->f, &r->file);
  return MELU_OK;
}

static void take_cursor(struct resuming *r) {
  struct melu__fit *f = r->f;
  f->n_done = f->n_resumed = r->cursor[0];
  f->best_epoch = (uint32_t)r->cursor[1];
  f->loss_sum = r->losses[0];
  f->validation = r->losses[1];
  f->best_validation = r->losses[2];
  f->optimizer->n_steps = f->prior.step = count_updates(f, f->n_done);
  f->model->version++;
  f->model->largest = (real)melu__model_largest(f->model);
}

/* Whether there is something to go on from, which all ranks must see. */
static melu_status find(struct melu__fit *f, int *is_there, melu_error *err) {
  melu_error missing;
  melu_status status = melu__manifest_load(&f->parts.found, f->ctx, f->options.checkpoint, &missing);
  double is = status != MELU_ENOTFOUND, is_not = 1 - is;
  if (status == MELU_ENOTFOUND) status = MELU_OK;
  if (status) *err = missing;
  status = melu__ranks_agree(&f->ranks, status, err);
  if (!status) status = melu__ranks_largest(&f->ranks, &is, err);
  if (!status) status = melu__ranks_largest(&f->ranks, &is_not, err);
  *is_there = is > 0;
  if (status || is + is_not < 2) return status;
  return melu__fail(err, MELU_EIO, "\"%.100s\" is there for some ranks, and not for others", f->options.checkpoint);
}

static melu_status resume(struct melu__fit *f, melu_error *err) {
  struct resuming r = {.f = f};
  int is_there;
  melu_status status = find(f, &is_there, err);
  if (status || !is_there) return status;
  r.is_kept = f->parts.found.n == 1 && !f->is_apart;
  status = read_parts(&r, check_numbers, err);
  if (!status) {
    status = check_options(&r, err);
    if (!status && r.is_of_others)
      status = melu__fail(err, MELU_EINVAL, "it is a training on other data, or on other users");
    if (!status) status = check_cursor(&r, err);
    if (status) melu__safetensors_name(err, f->options.checkpoint);
  }
  status = melu__ranks_agree(&f->ranks, status, err);
  if (!status) {
    status = melu__ranks_agree(&f->ranks, read_parts(&r, take_numbers, err), err);
    if (!status)
      take_cursor(&r);
    else if (!r.is_kept) /* of a file in memory nothing was taken */
      melu__model_initialise(f->model);
  }
  melu__safetensors_free(&r.file);
  return status;
}

/* ------------------------------------------------------------------------------------------------- beginning */

/* Whether a file could be written there: better known now than after the first epoch. */
static melu_status try_file(const struct melu__fit *f, const char *path, melu_error *err) {
  struct melu__atomic_file file;
  const melu_status status = melu__atomic_open(&file, f->ctx, path, err);
  if (!status) melu__atomic_abandon(&file);
  return status;
}

static melu_status try_checkpoint(const struct melu__fit *f, melu_error *err) {
  struct melu__part_file part = {.slots = f->share.own};
  melu_status status = try_file(f, f->options.checkpoint, err);
  if (status || !f->is_apart) return status;
  status = melu__part_name(&part, f->options.checkpoint, f->n_users * f->options.n_epochs, err);
  if (status) return status;
  char *path = melu__part_path(f->options.checkpoint, &part, &f->ctx->allocator);
  status = path ? try_file(f, path, err) : melu__fail_memory(err);
  melu__free(&f->ctx->allocator, path);
  return status;
}

melu_status melu__fit_open_checkpoint(struct melu__fit *f, melu_error *err) {
  melu_status status = melu__fit_identify(f, err);
  if (!status) status = melu__ranks_agree(&f->ranks, try_checkpoint(f, err), err);
  if (status) return status;
  if (f->options.resume) return resume(f, err);
  /* Anything may be there, or nothing, but it is read: its parts go when it is replaced. */
  melu_error found;
  status = melu__manifest_load(&f->parts.found, f->ctx, f->options.checkpoint, &found);
  if (status != MELU_EIO && status != MELU_ENOMEM) status = MELU_OK;
  if (status) *err = found;
  return melu__ranks_agree(&f->ranks, status, err);
}
