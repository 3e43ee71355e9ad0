/* SPDX-License-Identifier: BSD-3-Clause */
/* Saving and loading: the same bits back, and nothing but a whole and unaltered file. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "support.h"
#include "world.h"

static melu_error err;
static struct world w;
static char folder[] = "/tmp/melu-test-XXXXXX", path[64];

static void open_all(void) {
  strcpy(folder, "/tmp/melu-test-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/model.safetensors", folder);
  world_open(&w, NULL, 12);
}

/* Only the file that a test meant to leave may be there. */
static void close_all(void) {
  world_close(&w);
  unlink(path);
  ck_assert_msg(rmdir(folder) == 0, "%s: something was left behind", folder);
}

static unsigned char *read_file(size_t *n) {
  FILE *f = fopen(path, "rb");
  ck_assert_ptr_nonnull(f);
  unsigned char *bytes = malloc(1 << 20);
  ck_assert_ptr_nonnull(bytes);
  *n = fread(bytes, 1, 1 << 20, f);
  fclose(f);
  return bytes;
}

static void write_file(const void *bytes, size_t n) {
  FILE *f = fopen(path, "wb");
  ck_assert_ptr_nonnull(f);
  ck_assert_uint_eq(fwrite(bytes, 1, n, f), n);
  ck_assert_int_eq(fclose(f), 0);
}

static melu_status load(void) {
  melu_model *model = (melu_model *)&w;
  const melu_status status = melu_model_load(&model, w.ctx, path, &err);
  ck_assert((status == MELU_OK) == (model != NULL));
  melu_model_free(model);
  return status;
}

/* A small model whose vocabulary has texts that JSON must escape. */
static melu_model *model_with_texts(void) {
  melu_schema *schema;
  melu_dataset *data;
  melu_model *model;
  char csv[80];
  const struct melu_field fields[] = {
      {.size = sizeof *fields, .name = "tag", .owner = MELU_ITEM, .kind = MELU_MANY, .width = 2},
      {.size = sizeof *fields, .name = "x", .owner = MELU_USER, .kind = MELU_NUMERIC, .shift = 0.1, .scale = 1.0 / 3}};
  const size_t hidden[1] = {2};
  const struct melu_model_options o = {.size = sizeof o,
                                       .seed = UINT64_MAX,
                                       .hidden = hidden,
                                       .n_hidden = 1,
                                       .inner_steps = MELU_NONE,
                                       .inner_lr = 0.1,
                                       .first_order = 1,
                                       .rating_min = -0.5,
                                       .rating_max = 0.7};
  WORLD_TRY(melu_schema_new(&schema, w.ctx, &err));
  for (int i = 0; i < 2; i++) WORLD_TRY(melu_schema_add(schema, &fields[i], &err));
  WORLD_TRY(melu_dataset_new(&data, w.ctx, schema, &err));
  snprintf(csv, sizeof csv, "%s/items.csv", folder);
  FILE *f = fopen(csv, "w");
  ck_assert_ptr_nonnull(f);
  fputs("item,tag\n1,\"a \"\"quote\"\"|back\\slash|\xc3\xa9t\xc3\xa9|tab\there\"\n", f);
  fclose(f);
  WORLD_TRY(melu_dataset_read_items(data, csv, NULL, &err));
  unlink(csv);
  WORLD_TRY(melu_dataset_freeze(data, &err));
  WORLD_TRY(melu_model_new(&model, w.ctx, melu_dataset_schema(data), &o, &err));
  melu_dataset_free(data);
  melu_schema_free(schema);
  return model;
}

START_TEST(everything_comes_back) {
  melu_model *models[2] = {w.model, model_with_texts()}, *loaded;
  for (int i = 0; i < 2; i++) {
    size_t n, m;
    struct melu_model_options a = {.size = sizeof a}, b = {.size = sizeof b};
    WORLD_TRY(melu_model_save(models[i], path, &err));
    WORLD_TRY(melu_model_load(&loaded, w.ctx, path, &err));
    float *before = world_weights(models[i], &n), *after = world_weights(loaded, &m);
    ck_assert_uint_eq(n, m);
    ck_assert(memcmp(before, after, n * sizeof *before) == 0);
    WORLD_TRY(melu_model_get_options(&a, models[i], &err));
    WORLD_TRY(melu_model_get_options(&b, loaded, &err));
    ck_assert_uint_eq(a.n_hidden, b.n_hidden);
    ck_assert(memcmp(a.hidden, b.hidden, a.n_hidden * sizeof *a.hidden) == 0);
    ck_assert(a.seed == b.seed && a.inner_steps == b.inner_steps && a.inner_lr == b.inner_lr);
    ck_assert(a.first_order == b.first_order && a.rating_min == b.rating_min && a.rating_max == b.rating_max);
    ck_assert_str_eq(a.preset, b.preset);

    /* The same model gives the same bytes, and the loaded one is the same model. */
    unsigned char *first = read_file(&n), *second;
    WORLD_TRY(melu_model_save(loaded, path, &err));
    second = read_file(&m);
    ck_assert(n == m && memcmp(first, second, n) == 0);
    free(first);
    free(second);
    free(before);
    free(after);
    melu_model_free(loaded);
  }
  WORLD_TRY(melu_model_load(&loaded, w.ctx, path, &err));
  const melu_schema *schema = melu_model_schema(loaded);
  ck_assert_str_eq(melu_schema_value_text(schema, "tag", 0), "a \"quote\"");
  ck_assert_uint_eq(melu_schema_value_id(schema, "tag", "\xc3\xa9t\xc3\xa9"), 2);
  ck_assert_uint_eq(melu_schema_value_id(schema, "tag", "nothing"), MELU_UNKNOWN);
  melu_model_free(loaded);
  melu_model_free(models[1]);
}
END_TEST

/* A loaded model's data set is the one that it was trained on. */
START_TEST(a_loaded_model_predicts_the_same) {
  melu_model *loaded;
  float scores[2][3];
  const uint32_t items[3] = {0, 1, 2};
  const float ratings[3] = {1, 5, 3};
  WORLD_TRY(melu_model_save(w.model, path, &err));
  WORLD_TRY(melu_model_load(&loaded, w.ctx, path, &err));
  for (int i = 0; i < 2; i++) {
    const melu_model *model = i ? loaded : w.model;
    melu_workspace *ws;
    melu_user *user;
    WORLD_TRY(melu_workspace_new(&ws, model, 3, &err));
    WORLD_TRY(melu_user_new(&user, model, &err));
    WORLD_TRY(melu_adapt(user, ws, model, w.data, NULL, items, ratings, 3, &err));
    WORLD_TRY(melu_predict(scores[i], ws, model, user, w.data, items, 3, &err));
    melu_user_free(user);
    melu_workspace_free(ws);
  }
  ck_assert(memcmp(scores[0], scores[1], sizeof scores[0]) == 0);
  melu_model_free(loaded);
}
END_TEST

START_TEST(truncated_at_every_byte) {
  size_t n;
  melu_model *small = model_with_texts();
  WORLD_TRY(melu_model_save(small, path, &err));
  unsigned char *bytes = read_file(&n);
  for (size_t k = 0; k < n; k++) {
    write_file(bytes, k);
    const melu_status status = load();
    ck_assert_msg(status == MELU_EFORMAT || status == MELU_ECORRUPT, "%zu of %zu bytes: %s", k, n,
                  melu_status_name(status));
  }
  bytes[n] = 0;
  write_file(bytes, n + 1);
  ck_assert_int_eq(load(), MELU_EFORMAT);
  write_file(bytes, n);
  ck_assert_int_eq(load(), MELU_OK);
  free(bytes);
  melu_model_free(small);
}
END_TEST

START_TEST(every_bit_flipped) {
  size_t n;
  melu_model *small = model_with_texts();
  WORLD_TRY(melu_model_save(small, path, &err));
  unsigned char *bytes = read_file(&n);
  for (size_t bit = 0; bit < 8 * n; bit++) {
    bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    write_file(bytes, n);
    const melu_status status = load();
    ck_assert_msg(status != MELU_OK, "bit %zu of byte %zu was not noticed", bit % 8, bit / 8);
    bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
  }
  free(bytes);
  melu_model_free(small);
}
END_TEST

/* ----------------------------------------------------------------------------------------- hostile headers */

/* Sets the checksum of a file right, if it has one. */
static void set_checksum(unsigned char *bytes, size_t n) {
  char digits[17];
  for (size_t i = 8; i + 33 <= n; i++) {
    if (memcmp(bytes + i, "\"melu.checksum\":\"", 17) != 0) continue;
    memcpy(bytes + i + 17, "0000000000000000", 16);
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)XXH3_64bits(bytes + 8, n - 8));
    memcpy(bytes + i + 17, digits, 16);
    return;
  }
}

/* Writes a file with that header and n zeros of data. Its checksum is set right. */
static void write_hostile(const char *header, uint64_t claimed, size_t n_data) {
  const size_t n = strlen(header);
  unsigned char *bytes = calloc(1, 8 + n + n_data + 1);
  ck_assert_ptr_nonnull(bytes);
  for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)((claimed ? claimed : n) >> 8 * i);
  memcpy(bytes + 8, header, n);
  set_checksum(bytes, 8 + n + n_data);
  write_file(bytes, 8 + n + n_data);
  free(bytes);
}

#define META "\"__metadata__\":{\"melu.checksum\":\"0000000000000000\"}"
#define T(offsets, shape) "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

START_TEST(hostile_headers) {
  static const struct {
    const char *header;
    uint64_t claimed;
    size_t n_data;
    melu_status status;
  } files[] = {
      {"", 0, 0, MELU_EFORMAT},
      {"{}", 0, 0, MELU_EFORMAT},
      {"{}", (uint64_t)1 << 30, 0, MELU_EFORMAT},
      {"{}", UINT64_MAX, 0, MELU_EFORMAT},
      {"[]", 0, 0, MELU_EFORMAT},
      {"{\"__metadata__\":{\"a\":1}}", 0, 0, MELU_EFORMAT},
      {"{\"__metadata__\":{}}", 0, 0, MELU_EFORMAT},
      {"{" META "}", 0, 0, MELU_EFORMAT},
      {"{" META "}", 0, 4, MELU_EFORMAT},
      {"{" META ",\"a\":3}", 0, 0, MELU_EFORMAT},
      {"{" META ",\"a\":{}}", 0, 0, MELU_EFORMAT},
      {"{" META ",\"a\":" T("[0,4]", "[1]") ",\"a\":" T("[4,8]", "[1]") "}", 0, 8, MELU_EFORMAT},
      {"{" META ",\"a\":" T("[0,4]", "[1]") ",\"b\":" T("[0,4]", "[1]") "}", 0, 4, MELU_EFORMAT},
      {"{" META ",\"a\":" T("[0,4]", "[1]") ",\"b\":" T("[8,12]", "[1]") "}", 0, 12, MELU_EFORMAT},
      {"{" META ",\"a\":" T("[0,8]", "[1]") "}", 0, 8, MELU_EFORMAT},
      {"{" META ",\"a\":" T("[4,0]", "[1]") "}", 0, 4, MELU_EFORMAT},
      {"{" META ",\"a\":" T("[-4,0]", "[1]") "}", 0, 4, MELU_EFORMAT},
      {"{" META ",\"a\":" T("[0,4]", "[-1]") "}", 0, 4, MELU_EFORMAT},
      {"{" META ",\"a\":" T("[0,4]", "[1.0]") "}", 0, 4, MELU_EFORMAT},
      {"{" META ",\"a\":" T("[0,4]", "[1,1,1]") "}", 0, 4, MELU_EFORMAT},
      {"{" META ",\"a\":" T("[0,0]", "[4611686018427387904,4]") "}", 0, 0, MELU_EFORMAT},
      {"{" META ",\"a\":" T("[0,4]", "[9223372036854775807,9223372036854775807]") "}", 0, 4, MELU_EFORMAT},
      {"{" META ",\"a\":" T("[0,9223372036854775807]", "[1]") "}", 0, 4, MELU_EFORMAT},
      {"{" META ",\"a\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 0, 8, MELU_EFORMAT},
      {"{" META ",\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":0}}", 0, 4, MELU_EFORMAT},
      {"{\"__metadata__\":{\"melu.checksum\":\"0000000000000000\",\"format\":\"melu-model\","
       "\"format_version\":\"2\"}}",
       0, 0, MELU_EVERSION},
      {"{\"__metadata__\":{\"melu.checksum\":\"0000000000000000\",\"format\":\"melu-model\","
       "\"format_version\":\"1\",\"schema\":\"{}\",\"options\":\"{}\"}}",
       0, 0, MELU_EFORMAT},
  };
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    write_hostile(files[i].header, files[i].claimed, files[i].n_data);
    const melu_status status = load();
    ck_assert_msg(status == files[i].status, "%s: %s, %s", files[i].header, melu_status_name(status), err.message);
    ck_assert(strlen(err.message) > 0);
  }
}
END_TEST

/* Takes a saved model's file apart, changes its text, and gives it a right checksum. */
static melu_status load_changed(const char *from, const char *to) {
  size_t n;
  WORLD_TRY(melu_model_save(w.model, path, &err));
  unsigned char *bytes = read_file(&n);
  ck_assert_uint_eq(strlen(from), strlen(to));
  char *at = NULL;
  for (size_t i = 8; i + strlen(from) <= n && !at; i++)
    if (memcmp(bytes + i, from, strlen(from)) == 0) at = (char *)bytes + i;
  ck_assert_msg(at != NULL, "%s is not in the file", from);
  memcpy(at, to, strlen(to));
  set_checksum(bytes, n);
  write_file(bytes, n);
  free(bytes);
  return load();
}

START_TEST(a_right_checksum_is_not_enough) {
  static const char *const changes[][2] = {
      {"\"E.genre\"", "\"E.gemre\""},
      {"\\\"width\\\":4", "\\\"width\\\":5"},
      {"\\\"n_values\\\":3", "\\\"n_values\\\":4"},
      {"\\\"item\\\"", "\\\"itch\\\""},
      {"\\\"one\\\"", "\\\"won\\\""},
      {"\\\"scale\\\":1.0", "\\\"scale\\\":0.0"},
      {"\\\"scale\\\":1.0", "\\\"scale\\\":1  "},
      {"\\\"hidden\\\":[8,6]", "\\\"hidden\\\":[8,7]"},
      {"\\\"hidden\\\":[8,6]", "\\\"hidden\\\":[8,0]"},
      {"\\\"inner_steps\\\":3", "\\\"inner_steps\\\":x"},
      {"\\\"inner_steps\\\":3", "\\\"inner_stebs\\\":3"},
      {"\"shape\":[8]", "\"shape\":[9]"},
      {"\\\"first_order\\\":false", "\\\"first_order\\\":12345"},
      {"\"melu-model\"", "\"melu-motel\""},
      {"\\\"seed\\\":\\\"7\\\"", "\\\"seed\\\":\\\"x\\\""},
  };
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
    const melu_status status = load_changed(changes[i][0], changes[i][1]);
    ck_assert_msg(status != MELU_OK, "%s for %s was believed", changes[i][1], changes[i][0]);
    ck_assert_msg(status != MELU_ECORRUPT, "%s: the checksum of the test is wrong", changes[i][1]);
  }
  ck_assert_int_eq(load_changed("\"format_version\":\"1\"", "\"format_version\":\"9\""), MELU_EVERSION);
  ck_assert_int_eq(load_changed("\"melu-model\"", "\"melu-model\""), MELU_OK);

  size_t n;
  float weights[8];
  WORLD_TRY(melu_model_read(weights, w.model, "b1", 0, 1, &err));
  WORLD_TRY(melu_model_save(w.model, path, &err));
  unsigned char *bytes = read_file(&n);
  ck_assert_ptr_nonnull(bytes);
  const uint32_t nan_bits = 0x7fc00000u;
  char from[4], to[4];
  memcpy(from, weights, 4);
  memcpy(to, &nan_bits, 4);
  for (size_t i = 8; i + 4 <= n; i++)
    if (memcmp(bytes + i, from, 4) == 0) {
      memcpy(bytes + i, to, 4);
      break;
    }
  set_checksum(bytes, n);
  write_file(bytes, n);
  free(bytes);
  ck_assert_int_eq(load(), MELU_ERANGE);
  ck_assert_msg(strstr(err.message, "b1") != NULL, "%s", err.message);
}
END_TEST

/* ------------------------------------------------------------------------------------------ failing systems */

START_TEST(bad_arguments_and_paths) {
  melu_model *model = w.model;
  char missing[96];
  ck_assert_int_eq(melu_model_save(NULL, path, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_model_save(w.model, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_model_load(NULL, w.ctx, path, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_model_load(&model, NULL, path, &err), MELU_EINVAL);
  ck_assert_ptr_null(model);
  ck_assert_int_eq(melu_model_load(&model, w.ctx, path, &err), MELU_ENOTFOUND);
  ck_assert_int_eq(err.sys_errno, ENOENT);
  ck_assert_msg(strstr(err.message, path) != NULL, "%s", err.message);
  ck_assert_int_eq(melu_model_load(&model, w.ctx, folder, &err), MELU_EIO);
  snprintf(missing, sizeof missing, "%s/nowhere/model", folder);
  ck_assert_int_eq(melu_model_save(w.model, missing, &err), MELU_EIO);
  ck_assert_int_eq(err.sys_errno, ENOENT);
  ck_assert_int_eq(melu_model_save(w.model, folder, &err), MELU_EIO);      /* a folder is in the way */
  ck_assert_int_eq(melu_model_save(w.model, "/dev/null", &err), MELU_EIO); /* a device would be gone */
  write_file("nothing of the kind", 19);
  ck_assert_int_eq(melu_model_load(&model, w.ctx, path, &err), MELU_EFORMAT);
  ck_assert_msg(strstr(err.message, path) != NULL, "%s", err.message);
}
END_TEST

/* No room on the disk, here played by a limit on the size of files: the old file stays, and no other. */
START_TEST(a_failed_save_leaves_the_old_file) {
  size_t n, m;
  WORLD_TRY(melu_model_save(w.model, path, &err));
  unsigned char *before = read_file(&n);
  struct rlimit old, small;
  ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
  small = old;
  small.rlim_cur = 1000;
  signal(SIGXFSZ, SIG_IGN);
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
  const melu_status status = melu_model_save(w.model, path, &err);
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
  signal(SIGXFSZ, SIG_DFL);
  ck_assert_int_eq(status, MELU_EIO);
  ck_assert_int_eq(err.sys_errno, EFBIG);
  unsigned char *after = read_file(&m);
  ck_assert(n == m && memcmp(before, after, n) == 0);
  free(before);
  free(after);
  WORLD_TRY(melu_model_save(w.model, path, &err)); /* the cause is gone */
}
END_TEST

/* Saving and loading with each allocation refused: a status, nothing leaked, and the old file as it was. */
static melu_status save_and_load(struct test_heap *heap, size_t fail_at, int from_there_on) {
  const struct melu_allocator allocator = test_allocator(heap);
  const struct melu_context_options o = {.size = sizeof o, .allocator = &allocator};
  melu_context *ctx;
  melu_model *model = NULL;
  WORLD_TRY(melu_context_new(&ctx, &o, &err));
  WORLD_TRY(melu_model_load(&model, ctx, path, &err));
  heap->fail_at = heap->made + fail_at;
  heap->from_there_on = from_there_on;
  melu_status status = melu_model_save(model, path, &err);
  melu_model_free(model);
  if (!status) {
    status = melu_model_load(&model, ctx, path, &err);
    ck_assert((status == MELU_OK) == (model != NULL));
    melu_model_free(model);
  }
  melu_context_free(ctx);
  ck_assert_uint_eq(heap->live, 0);
  return status;
}

START_TEST(every_allocation_fails_once) {
  size_t n_before, n_after;
  WORLD_TRY(melu_model_save(w.model, path, &err));
  unsigned char *before = read_file(&n_before);
  for (int from_there_on = 0; from_there_on < 2; from_there_on++) {
    melu_status status = MELU_ENOMEM;
    for (size_t n = 1; status == MELU_ENOMEM; n++) {
      struct test_heap heap = {0};
      status = save_and_load(&heap, n, from_there_on);
      unsigned char *after = read_file(&n_after);
      ck_assert(n_before == n_after && memcmp(before, after, n_before) == 0);
      free(after);
    }
    ck_assert_int_eq(status, MELU_OK);
  }
  free(before);
}
END_TEST

int main(void) {
  Suite *s = suite_create("model_file");
  TCase *t = tcase_create("files");
  tcase_set_timeout(t, 120);
  tcase_add_checked_fixture(t, open_all, close_all);
  tcase_add_test(t, everything_comes_back);
  tcase_add_test(t, a_loaded_model_predicts_the_same);
  tcase_add_test(t, truncated_at_every_byte);
  tcase_add_test(t, every_bit_flipped);
  tcase_add_test(t, hostile_headers);
  tcase_add_test(t, a_right_checksum_is_not_enough);
  tcase_add_test(t, bad_arguments_and_paths);
  tcase_add_test(t, a_failed_save_leaves_the_old_file);
  tcase_add_test(t, every_allocation_fails_once);
  suite_add_tcase(s, t);
  SRunner *r = srunner_create(s);
  srunner_run_all(r, CK_ENV);
  const int failed = srunner_ntests_failed(r);
  srunner_free(r);
  return failed == 0 ? 0 : 1;
}
