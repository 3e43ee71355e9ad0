/* SPDX-License-Identifier: BSD-3-Clause */
/* Importing: safetensors files as other programs write them, made here byte by byte. What does not fit leaves the model
 * as it was. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "model/model.h"
#include "naive.h"
#include "run_suite.h"
#include "support.h"
#include "world.h"

enum { MOST_PARAMS = 24, MOST_HEADER = 8192 };

static melu_error err;
static struct world w;
static struct test_heap heap;
static char folder[32], path[64];

/* ------------------------------------------------------------------------------------------------- models */

static const size_t layers[2] = {8, 6}, encoder[1] = {5};

#define LAYERS .size = sizeof(struct melu_model_options), .hidden = layers, .n_hidden = 2
#define FACTORS .size = sizeof(struct melu_model_options), .preset = "best", .hidden = encoder, .n_hidden = 1, .rank = 3

static const struct melu_model_options settings[] = {
    {LAYERS},
    {LAYERS, .rates = MELU_RATE_PER_TENSOR, .adapt = 15},
    {LAYERS, .rates = MELU_RATE_PER_ENTRY, .adapt = 15},
    {LAYERS, .rule = MELU_CLOSED_FORM},
    {FACTORS},
    {FACTORS, .rule = MELU_STEPS, .rates = MELU_RATE_PER_ENTRY},
};

enum { N_SETTINGS = sizeof settings / sizeof *settings };

static void open_all(size_t setting) {
  static struct melu_allocator allocator;
  heap = (struct test_heap){.fail_at = 0};
  allocator = test_allocator(&heap);
  const struct melu_context_options options = {.size = sizeof options, .allocator = &allocator};
  strcpy(folder, "/tmp/melu-test-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/foreign.safetensors", folder);
  world_open(&w, &options, 10);
  melu_model_free(w.model);
  WORLD_TRY(melu_model_new(&w.model, w.ctx, melu_dataset_schema(w.data), &settings[setting], &err));
}

static void close_all(void) {
  world_close(&w);
  ck_assert_uint_eq(heap.live, 0);
  remove(path);
  ck_assert_int_eq(rmdir(folder), 0);
}

/* -------------------------------------------------------------------------------------------- another program */

/* A tensor as that program has it. */
struct foreign {
  char name[80], shape[48];
  const char *dtype;
  float *values;
  size_t n, size; /* numbers, and bytes of each */
};

struct file {
  struct foreign tensors[MOST_PARAMS];
  size_t n;
  const char *metadata; /* NULL: none */
};

/* One dimension for biases, their rates, and the rate of a whole tensor; else two. */
static void set_shape(struct foreign *t, const struct melu__param *p, melu_rates rates) {
  const int is_rate = strncmp(p->name, "rate.", 5) == 0;
  if (p->name[is_rate ? 5 : 0] == 'b' || (is_rate && rates == MELU_RATE_PER_TENSOR))
    snprintf(t->shape, sizeof t->shape, "[%zu]", p->cols);
  else
    snprintf(t->shape, sizeof t->shape, "[%zu, %zu]", p->rows, p->cols);
}

/* All parameters, with new values. */
static struct file new_file(uint64_t seed) {
  struct file f = {.n = w.model->n_params};
  ck_assert_uint_le(f.n, MOST_PARAMS);
  for (size_t i = 0; i < f.n; i++) {
    const struct melu__param *p = &w.model->params[i];
    struct foreign *t = &f.tensors[i];
    snprintf(t->name, sizeof t->name, "%s", p->name);
    set_shape(t, p, w.model->options.rates);
    t->dtype = "F32";
    t->size = 4;
    t->n = p->rows * p->cols;
    t->values = test_memory(t->n, sizeof *t->values);
    for (size_t k = 0; k < t->n; k++) t->values[k] = (float)random_number(&seed) / 8;
    if (strcmp(p->name, "scale") == 0) t->values[1] = 1.5f;
  }
  return f;
}

static void free_file(struct file *f) {
  for (size_t i = 0; i < f->n; i++) free(f->tensors[i].values);
}

/* `order`: of the data, and of the header's entries backwards, because nobody says that they are the same. Returns the
 * number of bytes. */
static size_t write_bytes(unsigned char *bytes, const struct file *f, const size_t *order) {
  static char header[MOST_HEADER];
  size_t offsets[MOST_PARAMS], n_data = 0, n = 0;
  for (size_t i = 0; i < f->n; i++) {
    offsets[order[i]] = n_data;
    n_data += f->tensors[order[i]].n * f->tensors[order[i]].size;
  }
  n += (size_t)snprintf(header, sizeof header, "{");
  if (f->metadata) n += (size_t)snprintf(header + n, sizeof header - n, "\"__metadata__\": {%s}, ", f->metadata);
  for (size_t i = f->n; i-- > 0;) {
    const struct foreign *t = &f->tensors[order[i]];
    n += (size_t)snprintf(header + n, sizeof header - n,
                          "\"%s\": {\"shape\": %s, \"data_offsets\": [%zu, %zu], \"dtype\": \"%s\"}%s", t->name,
                          t->shape, offsets[order[i]], offsets[order[i]] + t->n * t->size, t->dtype, i ? ", " : "}");
  }
  ck_assert_uint_lt(n, sizeof header);
  if (!bytes) return 8 + n + n_data;
  melu__put_bits(bytes, n, 8);
  memcpy(bytes + 8, header, n);
  for (size_t i = 0; i < f->n; i++)
    for (size_t k = 0; k < f->tensors[i].n; k++)
      melu__put_bits(bytes + 8 + n + offsets[i] + k * f->tensors[i].size, melu__float_bits(f->tensors[i].values[k]),
                     f->tensors[i].size);
  return 8 + n + n_data;
}

static void write_part(const unsigned char *bytes, size_t n) {
  FILE *out = fopen(path, "wb");
  ck_assert(out && fwrite(bytes, 1, n, out) == n && fclose(out) == 0);
}

/* Tensors in an order that `step` makes. */
static void write_file(const struct file *f, size_t step) {
  size_t order[MOST_PARAMS];
  for (size_t i = 0; i < f->n; i++) order[i] = (i * step + step) % f->n;
  const size_t n = write_bytes(NULL, f, order);
  unsigned char *bytes = test_memory(n, 1);
  write_bytes(bytes, f, order);
  write_part(bytes, n);
  free(bytes);
}

/* ------------------------------------------------------------------------------------------------- importing */

static void check_has(const melu_model *model, const struct file *f) {
  for (size_t i = 0; i < model->n_params; i++) {
    const struct melu__param *p = &model->params[i];
    float *values = test_memory(p->rows * p->cols, sizeof *values);
    WORLD_TRY(melu_model_read(values, model, p->name, 0, p->rows, &err));
    ck_assert_msg(memcmp(values, f->tensors[i].values, p->rows * p->cols * sizeof *values) == 0, "%s", p->name);
    free(values);
  }
}

START_TEST(any_order_and_metadata) {
  static const char *const metadata[] = {NULL,
                                         "",
                                         "\"format\": \"pt\"",
                                         "\"melu.checksum\": \"none\"",
                                         "\"format\":\"other\",\"format_version\":\"77\",\"schema\":\"x\"",
                                         "\"melu.checksum\":\"0123456789abcdef\"",
                                         "\"melu.checksum\":\"none\""};
  open_all((size_t)_i);
  for (size_t k = 0; k < sizeof metadata / sizeof *metadata; k++) {
    struct file f = new_file(k);
    f.metadata = metadata[k];
    f.tensors[0].values[0] = 100;
    write_file(&f, f.n % 5 ? 5 : 7);
    WORLD_TRY(melu_model_import(w.model, path, &err));
    check_has(w.model, &f);
    ck_assert(w.model->largest >= 100); /* by which training knows what it may do */
    write_file(&f, 1);
    WORLD_TRY(melu_model_import(w.model, path, &err));
    check_has(w.model, &f);
    free_file(&f);
  }
  close_all();
}
END_TEST

/* What the library saved is such a file too. */
START_TEST(own_files_are_read) {
  open_all((size_t)_i);
  melu_model *other;
  struct file f = new_file(3);
  write_file(&f, 1);
  WORLD_TRY(melu_model_import(w.model, path, &err));
  WORLD_TRY(melu_model_save(w.model, path, &err));
  WORLD_TRY(melu_model_new(&other, w.ctx, melu_dataset_schema(w.data), &settings[_i], &err));
  WORLD_TRY(melu_model_import(other, path, &err));
  check_has(other, &f);
  free_file(&f);
  melu_model_free(other);
  close_all();
}
END_TEST

static void serve(float scores[WORLD_ITEMS], melu_user *user, melu_workspace *ws, const melu_model *model) {
  static const uint32_t items[] = {3, 1, 7, 9};
  static const float ratings[] = {4, 2, 5, 3};
  uint32_t all[WORLD_ITEMS];
  for (uint32_t i = 0; i < WORLD_ITEMS; i++) all[i] = i;
  WORLD_TRY(melu_adapt(user, ws, model, w.data, NULL, items, ratings, 4, &err));
  WORLD_TRY(melu_predict(scores, ws, model, user, w.data, all, WORLD_ITEMS, &err));
}

/* A workspace that knew the old parameters does not use them any more, and the model goes on training. */
START_TEST(an_imported_model_serves_and_trains) {
  open_all((size_t)_i);
  float before[WORLD_ITEMS], after[WORLD_ITEMS], fresh[WORLD_ITEMS];
  melu_user *user, *other_user;
  melu_workspace *ws, *other_ws;
  melu_model *other;
  struct file f = new_file(5);
  WORLD_TRY(melu_model_new(&other, w.ctx, melu_dataset_schema(w.data), &settings[_i], &err));
  WORLD_TRY(melu_user_new(&user, w.model, &err));
  WORLD_TRY(melu_workspace_new(&ws, w.model, 4, &err));
  serve(before, user, ws, w.model);
  write_file(&f, 1);
  WORLD_TRY(melu_model_import(w.model, path, &err));
  serve(after, user, ws, w.model);
  for (size_t i = 0; i < f.n; i++)
    WORLD_TRY(melu_model_write(other, f.tensors[i].name, 0, other->params[i].rows, f.tensors[i].values, &err));
  WORLD_TRY(melu_user_new(&other_user, other, &err));
  WORLD_TRY(melu_workspace_new(&other_ws, other, 4, &err));
  serve(fresh, other_user, other_ws, other);
  ck_assert(memcmp(after, before, sizeof after) != 0);
  ck_assert(memcmp(after, fresh, sizeof after) == 0);
  const struct melu_fit_options once = {.size = sizeof once, .n_epochs = 1, .n_query = 2, .min_ratings = 4};
  WORLD_TRY(melu_fit(w.model, w.data, &once, &err));
  WORLD_TRY(melu_fit(other, w.data, &once, &err)); /* the same numbers, whichever way they came */
  serve(after, user, ws, w.model);
  serve(fresh, other_user, other_ws, other);
  ck_assert(memcmp(after, fresh, sizeof after) == 0);
  melu_user_free(user);
  melu_user_free(other_user);
  melu_workspace_free(ws);
  melu_workspace_free(other_ws);
  melu_model_free(other);
  free_file(&f);
  close_all();
}
END_TEST

/* ------------------------------------------------------------------------------------------------- refusals */

/* The model is what was imported from `whole`, and remains it. */
static void refuse_now(const struct file *whole, melu_status want, const char *message) {
  memset(&err, 0, sizeof err);
  const uint64_t version = w.model->version;
  const melu_status status = melu_model_import(w.model, path, &err);
  ck_assert_msg(status == want && err.status == want, "%s instead of %s: %s", melu_status_name(status),
                melu_status_name(want), err.message);
  ck_assert_msg(strstr(err.message, message) != NULL, "\"%s\" has no \"%s\"", err.message, message);
  ck_assert_msg(strstr(err.message, "foreign.safetensors") != NULL, "\"%s\" names no file", err.message);
  ck_assert_uint_eq(w.model->version, version);
  check_has(w.model, whole);
}

static void refuse(const struct file *f, const struct file *whole, melu_status want, const char *message) {
  write_file(f, 1);
  refuse_now(whole, want, message);
}

/* Imports a file of other values, which what is to be refused begins with. */
static struct file import_whole(void) {
  struct file whole = new_file(8);
  write_file(&whole, 1);
  WORLD_TRY(melu_model_import(w.model, path, &err));
  return whole;
}

START_TEST(tensors_that_do_not_fit) {
  open_all((size_t)_i);
  struct file whole = import_whole(), f = new_file(9);
  char message[96];
  for (size_t i = 0; i < f.n; i++) {
    struct file changed = f;
    struct foreign *t = &changed.tensors[i];
    snprintf(message, sizeof message, "\"%s\"", t->name);
    changed.tensors[i] = changed.tensors[--changed.n]; /* missing */
    refuse(&changed, &whole, MELU_EFORMAT, message);
    changed = f;
    snprintf(t->shape, sizeof t->shape, "[%zu, 1, 1]", t->n); /* three dimensions are none of any model's */
    refuse(&changed, &whole, MELU_EFORMAT, "shape");
    changed = f;
    snprintf(t->shape, sizeof t->shape, "[1, 1, %zu]", t->n);
    refuse(&changed, &whole, MELU_EFORMAT, "shape");
    changed = f;
    const int has_two = strchr(t->shape, ',') != NULL;
    snprintf(t->shape, sizeof t->shape, has_two ? "[%zu]" : "[1, %zu]", t->n); /* a dimension less or more */
    refuse(&changed, &whole, MELU_EFORMAT, message);
    changed = f;
    const size_t rows = w.model->params[i].rows, cols = w.model->params[i].cols;
    snprintf(t->shape, sizeof t->shape, "[%zu, %zu]", cols, rows); /* turned */
    if (has_two && rows != cols) refuse(&changed, &whole, MELU_EFORMAT, message);
    changed = f;
    t->dtype = "F64";
    t->size = 8;
    refuse(&changed, &whole, MELU_EFORMAT, message);
    changed = f;
    t->dtype = "U32";
    refuse(&changed, &whole, MELU_EFORMAT, message);
    changed = f;
    t->dtype = "F16";
    t->size = 2;
    refuse(&changed, &whole, MELU_EFORMAT, "dtype");
    changed = f;
    strcat(t->name, "x");
    refuse(&changed, &whole, MELU_EFORMAT, message);
  }
  free_file(&f);
  free_file(&whole);
  close_all();
}
END_TEST

START_TEST(a_tensor_too_many) {
  open_all((size_t)_i);
  struct file whole = import_whole(), f = new_file(9);
  static float values[2] = {1, 2};
  struct foreign *more = &f.tensors[f.n++];
  *more =
      (struct foreign){.name = "optimizer.step", .shape = "[2]", .dtype = "F32", .values = values, .n = 2, .size = 4};
  refuse(&f, &whole, MELU_EFORMAT, "\"optimizer.step\"");
  strcpy(more->name, "W1"); /* twice, or none of MELU_FACTORS */
  refuse(&f, &whole, MELU_EFORMAT, w.model->options.network == MELU_FACTORS ? "\"W1\"" : "name");
  f.n--;
  free_file(&f);
  free_file(&whole);
  close_all();
}
END_TEST

START_TEST(numbers_that_are_none) {
  open_all((size_t)_i);
  struct file whole = import_whole(), f = new_file(9);
  const float bad[] = {(float)NAN, (float)INFINITY, -(float)INFINITY};
  for (size_t i = 0; i < f.n; i++) {
    struct foreign *t = &f.tensors[i];
    const size_t at = t->n - 1, cols = w.model->params[i].cols;
    const float value = t->values[at];
    char message[96];
    snprintf(message, sizeof message, "\"%s\": row %zu", t->name, strchr(t->shape, ',') ? at / cols : at);
    t->values[at] = bad[i % 3];
    refuse(&f, &whole, MELU_ERANGE, message);
    t->values[at] = value;
  }
  free_file(&f);
  free_file(&whole);
  close_all();
}
END_TEST

START_TEST(truncated_at_every_byte) {
  open_all((size_t)_i);
  struct file whole = import_whole(), f = new_file(9);
  size_t order[MOST_PARAMS];
  for (size_t i = 0; i < f.n; i++) order[i] = i;
  const size_t n = write_bytes(NULL, &f, order);
  unsigned char *bytes = test_memory(n + 1, 1);
  write_bytes(bytes, &f, order);
  for (size_t k = 0; k < n; k++) {
    write_part(bytes, k);
    refuse_now(&whole, MELU_EFORMAT, "safetensors");
  }
  write_part(bytes, n + 1);
  refuse_now(&whole, MELU_EFORMAT, "safetensors");
  write_part(bytes, n);
  WORLD_TRY(melu_model_import(w.model, path, &err));
  check_has(w.model, &f);
  free(bytes);
  free_file(&f);
  free_file(&whole);
  close_all();
}
END_TEST

/* A model of one network, a file of another. */
START_TEST(a_file_of_another_model) {
  open_all(0);
  struct file f = new_file(1);
  write_file(&f, 1);
  for (size_t i = 1; i < N_SETTINGS; i++) {
    melu_model *other;
    WORLD_TRY(melu_model_new(&other, w.ctx, melu_dataset_schema(w.data), &settings[i], &err));
    ck_assert_int_eq(melu_model_import(other, path, &err), MELU_EFORMAT);
    melu_model_free(other);
  }
  free_file(&f);
  close_all();
}
END_TEST

START_TEST(bad_arguments) {
  open_all(0);
  struct file whole = import_whole();
  ck_assert_int_eq(melu_model_import(NULL, path, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_model_import(w.model, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(remove(path), 0);
  refuse_now(&whole, MELU_ENOTFOUND, "cannot open");
  ck_assert_int_eq(melu_model_import(w.model, path, NULL), MELU_ENOTFOUND);
  ck_assert_int_eq(melu_model_import(w.model, folder, &err), MELU_EIO);
  check_has(w.model, &whole);
  free_file(&whole);
  close_all();
}
END_TEST

START_TEST(every_allocation_refused) {
  open_all((size_t)_i);
  struct file whole = import_whole(), f = new_file(9);
  write_file(&f, 1);
  size_t n = 0;
  for (melu_status status = MELU_ENOMEM; status;) {
    heap.fail_at = heap.made + ++n;
    status = melu_model_import(w.model, path, &err);
    heap.fail_at = 0;
    ck_assert(status == MELU_OK || status == MELU_ENOMEM);
    check_has(w.model, status ? &whole : &f);
  }
  ck_assert_uint_gt(n, 1);
  free_file(&f);
  free_file(&whole);
  close_all();
}
END_TEST

int main(void) {
  Suite *suite = suite_create("import");
  TCase *t = tcase_create("import");
  tcase_set_timeout(t, 60);
  tcase_add_loop_test(t, any_order_and_metadata, 0, N_SETTINGS);
  tcase_add_loop_test(t, own_files_are_read, 0, N_SETTINGS);
  tcase_add_loop_test(t, an_imported_model_serves_and_trains, 0, N_SETTINGS);
  tcase_add_loop_test(t, tensors_that_do_not_fit, 0, N_SETTINGS);
  tcase_add_loop_test(t, a_tensor_too_many, 0, N_SETTINGS);
  tcase_add_loop_test(t, numbers_that_are_none, 0, N_SETTINGS);
  tcase_add_loop_test(t, truncated_at_every_byte, 0, N_SETTINGS);
  tcase_add_test(t, a_file_of_another_model);
  tcase_add_test(t, bad_arguments);
  tcase_add_loop_test(t, every_allocation_refused, 0, N_SETTINGS);
  suite_add_tcase(suite, t);
  return run_suite(suite);
}
