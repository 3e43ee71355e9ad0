/* SPDX-License-Identifier: BSD-3-Clause */
/* The reader of the MeLU reference code's folder: on a tiny folder of our own, and on MovieLens-1M where it is at hand.
 * That data may not be passed on, so nothing of it is here but counts and checksums. */
#include <melu.h>

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "run_suite.h"
#include "tiny_folder.h"

/* ---------------------------------------------------------------------------------------------------- the scene */

struct host {
  size_t live;
  size_t n_allocs, fail_at; /* fail_at: 1-based; 0: never */
  size_t n_calls, stop_at;
};

static struct host host;
static melu_context *ctx;
static melu_schema *schema;
static melu_dataset *data;
static melu_status (*add_melu)(melu_schema *, const char *, melu_error *); /* one of the two, and what it makes */
static size_t n_item_fields;
static char folder[64];
static melu_error err;

static void *host_alloc(void *arg, size_t n_bytes) {
  struct host *h = arg;
  if (++h->n_allocs == h->fail_at) return NULL;
  void *p = malloc(n_bytes);
  h->live += p != NULL;
  return p;
}

static void host_free(void *arg, void *memory) {
  struct host *h = arg;
  h->live--;
  free(memory);
}

static int host_progress(void *arg, const struct melu_progress *progress) {
  struct host *h = arg;
  ck_assert_str_eq(progress->phase, "read");
  return ++h->n_calls == h->stop_at;
}

static const char *path_of(const char *name) {
  static char path[160];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static void write_bytes(const char *name, const char *bytes, size_t n) {
  FILE *f = fopen(path_of(name), "wb");
  ck_assert_ptr_nonnull(f);
  ck_assert_uint_eq(fwrite(bytes, 1, n, f), n);
  ck_assert_int_eq(fclose(f), 0);
}

static void write_all(void) {
  for (size_t i = 0; i < N_TINY_FILES; i++)
    write_bytes(tiny_files[i].name, tiny_files[i].text, strlen(tiny_files[i].text));
}

static void make_folder(void) {
  const char *temp = getenv("TMPDIR");
  snprintf(folder, sizeof folder, "%.40s/melu-files-XXXXXX", temp ? temp : "/tmp");
  ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void open_context(size_t max_file_bytes) {
  host = (struct host){0};
  const struct melu_allocator allocator = {&host, host_alloc, host_free};
  const struct melu_context_options options = {.size = sizeof options,
                                               .allocator = &allocator,
                                               .progress = host_progress,
                                               .progress_arg = &host,
                                               .max_file_bytes = max_file_bytes};
  ck_assert_int_eq(melu_context_new(&ctx, &options, &err), MELU_OK);
  ck_assert_int_eq(melu_schema_new(&schema, ctx, &err), MELU_OK);
}

static void close_context(void) {
  melu_dataset_free(data);
  melu_schema_free(schema);
  melu_context_free(ctx);
  data = NULL;
  ck_assert_uint_eq(host.live, 0);
}

static void setup(void) {
  make_folder();
  write_all();
  open_context(0);
  ck_assert_msg(add_melu(schema, folder, &err) == MELU_OK, "%s", err.message);
  ck_assert_int_eq(melu_dataset_new(&data, ctx, schema, &err), MELU_OK);
}

static void setup_paper(void) {
  add_melu = melu_schema_add_melu;
  n_item_fields = 4;
  setup();
}

static void setup_items(void) {
  add_melu = melu_schema_add_melu_items;
  n_item_fields = 6;
  setup();
}

static void teardown(void) {
  close_context();
  for (size_t i = 0; i < N_TINY_FILES; i++) unlink(path_of(tiny_files[i].name));
  ck_assert_int_eq(rmdir(folder), 0);
}

/* ------------------------------------------------------------------------------------------------ the tiny folder */

static void assert_value(melu_owner owner, uint32_t index, size_t field, const char *expected) {
  struct melu_value v[6];
  struct melu_field f = {.size = sizeof f};
  char seen[100] = "";
  ck_assert_int_eq((owner == MELU_USER ? melu_dataset_user_values : melu_dataset_item_values)(v, data, index, &err), 0);
  ck_assert_int_eq(melu_schema_field(&f, melu_dataset_schema(data), owner, field, &err), MELU_OK);
  for (size_t i = 0; i < v[field].n_ids; i++) {
    const char *text = melu_schema_value_text(melu_dataset_schema(data), f.name, v[field].ids[i]);
    sprintf(seen + strlen(seen), "%s%s", i ? "|" : "", text ? text : "?");
  }
  if (v[field].n_numbers > 0) sprintf(seen + strlen(seen), "%g", (double)v[field].numbers[0]);
  ck_assert_str_eq(seen, expected);
}

START_TEST(test_schema) {
  static const struct {
    const char *name;
    melu_owner owner;
    melu_field_kind kind;
    size_t index, n_values;
  } expected[] = {
      {"rate", MELU_ITEM, MELU_ONE, 0, 2},       {"genre", MELU_ITEM, MELU_MANY, 1, 3},
      {"director", MELU_ITEM, MELU_MANY, 2, 4},  {"actor", MELU_ITEM, MELU_MANY, 3, 3},
      {"movie", MELU_ITEM, MELU_ONE, 4, 3},      {"year", MELU_ITEM, MELU_NUMERIC, 5, 0},
      {"gender", MELU_USER, MELU_ONE, 0, 2},     {"age", MELU_USER, MELU_ONE, 1, 2},
      {"occupation", MELU_USER, MELU_ONE, 2, 2}, {"zip", MELU_USER, MELU_ONE, 3, 2},
  };
  ck_assert_uint_eq(melu_schema_n_fields(schema, MELU_ITEM), n_item_fields);
  ck_assert_uint_eq(melu_schema_n_fields(schema, MELU_USER), 4);
  for (size_t i = 0; i < 10; i++) {
    struct melu_field f = {.size = sizeof f};
    const int numeric = expected[i].kind == MELU_NUMERIC;
    if (expected[i].owner == MELU_ITEM && expected[i].index >= n_item_fields) continue;
    ck_assert_int_eq(melu_schema_field(&f, schema, expected[i].owner, expected[i].index, &err), MELU_OK);
    ck_assert_str_eq(f.name, expected[i].name);
    ck_assert(f.kind == expected[i].kind && f.n_values == expected[i].n_values);
    ck_assert(f.width == (numeric ? 1 : 32) && f.shift == (numeric ? 1990 : 0) && f.scale == (numeric ? 0.1 : 1));
  }
  ck_assert_uint_eq(melu_schema_value_id(schema, "genre", "War"), 2);
  ck_assert_uint_eq(melu_schema_value_id(schema, "gender", "F"), 1);
  ck_assert_uint_eq(melu_schema_value_id(schema, "actor", "Zo\xc3\xab"), 2);
  ck_assert_uint_eq(melu_schema_value_id(schema, "movie", "30"), n_item_fields == 6 ? 2 : MELU_UNKNOWN);
}
END_TEST

START_TEST(test_tiny) {
  ck_assert_msg(melu_dataset_read_melu(data, folder, "s", &err) == MELU_OK, "%s", err.message);
  ck_assert_uint_eq(melu_dataset_n_users(data), 3);
  ck_assert_uint_eq(melu_dataset_n_items(data), 3);
  ck_assert_uint_eq(melu_dataset_user_id(data, 1), 3);
  ck_assert_uint_eq(melu_dataset_item_id(data, 2), 30);
  assert_value(MELU_ITEM, 0, 0, "G");
  assert_value(MELU_ITEM, 0, 1, "Drama|War");
  /* Only the innermost pair goes, then the commas separate: "Bob Roe (a", ")". */
  assert_value(MELU_ITEM, 0, 2, "Ann Lee|?|?");
  assert_value(MELU_ITEM, 0, 3, "Zo\xc3\xab|Eve");
  assert_value(MELU_ITEM, 1, 0, "");
  for (size_t f = 1; f <= 3; f++) assert_value(MELU_ITEM, 1, f, "nan");
  assert_value(MELU_ITEM, 2, 0, "?");
  assert_value(MELU_ITEM, 2, 1, "?");
  assert_value(MELU_ITEM, 2, 2, "Cy (Jr");
  assert_value(MELU_ITEM, 2, 3, "nan");
  assert_value(MELU_USER, 0, 0, "F");
  assert_value(MELU_USER, 1, 1, "56");
  assert_value(MELU_USER, 0, 2, "16");
  assert_value(MELU_USER, 1, 3, "55113");
  assert_value(MELU_USER, 2, 3, "?");
  ck_assert_int_eq(melu_dataset_freeze(data, &err), MELU_OK);
  const uint32_t *items;
  const float *ratings;
  ck_assert_uint_eq(melu_dataset_ratings(data, 0, &items, &ratings), 0);
  ck_assert_uint_eq(melu_dataset_ratings(data, 1, &items, &ratings), 1);
  ck_assert(items[0] == 1 && ratings[0] == 2.5f);
  ck_assert_uint_eq(melu_dataset_ratings(data, 2, &items, &ratings), 3);
  ck_assert(items[0] == 2 && items[1] == 0 && items[2] == 2);
  ck_assert(ratings[0] == 4.0f && ratings[1] == 3.0f && ratings[2] == 5.0f);
}
END_TEST

/* The schema does not know movie 15, which the folder got later. */
START_TEST(test_movie_and_year) {
  static const char *const movies[] = {"10", "20", "30", "?", "?", "?", "?"};
  static const char *const years[] = {"", "", "", "1927", "1", "9999", ""};
  static const char text[] =
      "10::One::N/A::G::x::Drama::Ann Lee::w::Eve::p::q\n20::Two::::G::x::Drama::Ann Lee::w::Eve::p::q\n"
      "30::Three::0::G::x::Drama::Ann Lee::w::Eve::p::q\n15::Four:: 1927 ::G::x::Drama::Ann Lee::w::Eve::p::q\n"
      "40::Five::1::G::x::Drama::Ann Lee::w::Eve::p::q\n50::Six::9999::G::x::Drama::Ann Lee::w::Eve::p::q\n"
      "60::Seven::0000::G::x::Drama::Ann Lee::w::Eve::p::q\n";
  melu_dataset *usual;
  ck_assert_int_eq(melu_dataset_new(&usual, ctx, schema, &err), MELU_OK);
  write_bytes("movies_extrainfos.dat", text, sizeof text - 1);
  ck_assert_msg(melu_dataset_read_melu(data, folder, "s", &err) == MELU_OK, "%s", err.message);
  for (uint32_t i = 0; i < 7; i++) {
    assert_value(MELU_ITEM, i, 3, "Eve");
    assert_value(MELU_ITEM, i, 4, movies[i]);
    assert_value(MELU_ITEM, i, 5, years[i]);
  }
  melu_dataset_free(data);
  data = usual;
  write_all();
  ck_assert_msg(melu_dataset_read_melu(data, folder, "s", &err) == MELU_OK, "%s", err.message);
  assert_value(MELU_ITEM, 0, 4, "10");
  assert_value(MELU_ITEM, 0, 5, "2000");
  assert_value(MELU_ITEM, 2, 4, "30");
  assert_value(MELU_ITEM, 2, 5, "2002");
}
END_TEST

/* ------------------------------------------------------------------------------------------------ what is refused */

/* NULL as text: the file is not there. */
static const struct {
  const char *file, *text;
  melu_status status;
  uint64_t line;
  const char *message; /* after the folder and a slash */
} refused[] = {
    {"users.dat", NULL, MELU_ENOTFOUND, 0, "users.dat: cannot be opened: No such file or directory"},
    {"users.dat", "", MELU_EFORMAT, 0, "users.dat: the file is empty"},
    {"users.dat", "7::F::1::16::02139\n3::M::56::0\n", MELU_EFORMAT, 2, "users.dat:2: 4 fields, not 5"},
    {"users.dat", "7::F::1::16::02139\n3::M::56::0::1::2\n", MELU_EFORMAT, 2, "users.dat:2: 6 fields, not 5"},
    {"users.dat", "7::F::1::16::02139\n\n", MELU_EFORMAT, 2, "users.dat:2: 1 fields, not 5"},
    {"users.dat", "x::F::1::16::02139\n", MELU_EFORMAT, 1, "users.dat:1: \"x\" is not an id"},
    {"users.dat", "9223372036854775808::F::1::16::02139\n", MELU_EFORMAT, 1,
     "users.dat:1: \"9223372036854775808\" is not an id"},
    {"users.dat", "7::F::1::16::02139\n7::F::1::16::02139\n", MELU_ESTATE, 2, "users.dat:2: user 7"},
    {"users.dat", "7::F::1::16::\xff\n", MELU_EFORMAT, 1, "users.dat:1: byte 0xff is not UTF-8"},
    {"users.dat", "3::F::1::16::02139\n", MELU_ENOTFOUND, 0, "s_y.json: user \"9\" is not in users.dat"},
    {"movies_extrainfos.dat", NULL, MELU_ENOTFOUND, 0, "movies_extrainfos.dat: cannot be opened: No such file"},
    {"movies_extrainfos.dat", "", MELU_EFORMAT, 0, "movies_extrainfos.dat: the file is empty"},
    {"movies_extrainfos.dat", "10::One::2000::G::x::Drama::Ann Lee::w::Eve::p\n", MELU_EFORMAT, 1,
     "movies_extrainfos.dat:1: 10 fields, not 11"},
    {"movies_extrainfos.dat", "30::One::2000::G::x::Drama::Ann Lee::w::Eve::p::q\n", MELU_ENOTFOUND, 0,
     "s.json: user 9: movie 10 is not in movies_extrainfos.dat"},
    {"s.json", NULL, MELU_ENOTFOUND, 0, "s.json: cannot be opened: No such file or directory"},
    {"s_y.json", NULL, MELU_ENOTFOUND, 0, "s_y.json: cannot be opened: No such file or directory"},
    {"s.json", "", MELU_EFORMAT, 1, "s.json:1: '{' expected"},
    {"s.json", "[]", MELU_EFORMAT, 1, "s.json:1: '{' expected"},
    {"s.json", "{\"9\":\n[\"30\",\n}", MELU_EFORMAT, 3, "s.json:3: a text or a number expected"},
    {"s.json", "{\"9\": [\"30\", \"10\"", MELU_EFORMAT, 1, "s.json:1: ']' expected"},
    {"s.json", "{\n\"9\": [\"30\", \"10\", \"30\"]\n\"7\": []}", MELU_EFORMAT, 3, "s.json:3: '}' expected"},
    {"s.json", "{\n\"9\": [\"30\", \"10\", \"30\"],\n\n}", MELU_EFORMAT, 4,
     "s.json:4: a key in quotation marks expected"},
    {"s.json", "{\n\"9\": [\"30\", \"10\", \"30\"]", MELU_EFORMAT, 2, "s.json:2: '}' expected"},
    {"s.json", "{\n\"9\" [\"30\", \"10\", \"30\"]", MELU_EFORMAT, 2, "s.json:2: ':' expected"},
    {"s.json", "{\n9: [\"30\", \"10\", \"30\"]", MELU_EFORMAT, 2, "s.json:2: a key in quotation marks expected"},
    {"s.json", "{\"9\": [\"30\", \"10\", \"30\"],\n\"9\": []}", MELU_EFORMAT, 0, "s.json: user 9 is there twice"},
    {"s.json", "{\"9\": [\"30\", \"10\", \"30\"], \"7\": [], \"3\": [\"20\"]}\n{", MELU_EFORMAT, 2,
     "s.json:2: text follows the object"},
    {"s.json", "{\"9\": 1}", MELU_EFORMAT, 1, "s.json:1: \"9\": a list expected"},
    {"s.json", "{\"x\": []}", MELU_ENOTFOUND, 0, "s.json: user \"x\" is not in users.dat"},
    {"s.json", "{\"8\": []}", MELU_ENOTFOUND, 0, "s.json: user \"8\" is not in users.dat"},
    {"s.json", "{\"9\": [\"30\", \"11\", \"30\"]}", MELU_ENOTFOUND, 0,
     "s.json: user 9: movie 11 is not in movies_extrainfos.dat"},
    {"s.json", "{\"9\": [\"30\", 10, \"30\"]}", MELU_EFORMAT, 0,
     "s.json: user 9: movie 1 is not an id in quotation marks"},
    {"s.json", "{\"9\": [\"30\", \"ten\", \"30\"]}", MELU_EFORMAT, 0, "s.json: user 9: movie 1 is not an id"},
    {"s.json", "{\"9\": [\"30\"]}", MELU_EFORMAT, 0, "s.json: user 9: 1 movies, but 3 ratings"},
    {"s.json", "{\"9\": [\"30\", \"10\", \"30\"], \"3\": [\"20\"]}", MELU_EFORMAT, 0,
     "s.json: user 7 has ratings, but no list of movies"},
    {"s.json", "{}", MELU_EFORMAT, 0, "s.json: user 7 has ratings, but no list of movies"},
    {"s_y.json", "{ }", MELU_EFORMAT, 0, "s.json: user 9 has no list of ratings"},
    {"s_y.json", "{\"9\": [4, 3]}", MELU_EFORMAT, 0, "s.json: user 9: 3 movies, but 2 ratings"},
    {"s_y.json", "{\"9\": [4, 3, 5], \"3\": [1]}", MELU_EFORMAT, 0, "s.json: user 7 has no list of ratings"},
    {"s_y.json", "{\"9\": [4, 3, 5],\n\"9\": []}", MELU_EFORMAT, 0, "s_y.json: user 9 is there twice"},
    {"s_y.json", "{\"9\": [4,\n3, 5] \"7\": []}", MELU_EFORMAT, 2, "s_y.json:2: '}' expected"},
    {"s_y.json", "{\"9\": {}}", MELU_EFORMAT, 1, "s_y.json:1: \"9\": a list expected"},
    {"s_y.json", "{\"9\": [4, \"3\", 5]}", MELU_EFORMAT, 0, "s_y.json: user 9: rating 1 is not a number"},
    {"s_y.json", "{\"9\": [4, true, 5]}", MELU_EFORMAT, 0, "s_y.json: user 9: rating 1 is not a number"},
    {"s_y.json", "{\"9\": [4, false, 5]}", MELU_EFORMAT, 0, "s_y.json: user 9: rating 1 is not a number"},
    {"s_y.json", "{\"9\": [4, fals, 5]}", MELU_EFORMAT, 1, "s_y.json:1: a text or a number expected"},
    {"s_y.json", "{\"9\": [4, null, 5]}", MELU_EFORMAT, 0, "s_y.json: user 9: rating 1 is not a number"},
    {"s_y.json", "{\"9\": [4, 3, 1e39]}", MELU_ERANGE, 0, "s_y.json: user 9: rating 2 is not finite"},
    {"s_y.json", "{\n\"9\": [4, 3,\n1e999]}", MELU_ERANGE, 0, "s_y.json: user 9: rating 2 is not finite"},
    {"s_y.json", "{\"9\": [4, 3, NaN]}", MELU_EFORMAT, 1, "s_y.json:1: a text or a number expected"},
};

START_TEST(test_refused) {
  char expected[256];
  if (refused[_i].text) {
    write_bytes(refused[_i].file, refused[_i].text, strlen(refused[_i].text));
  } else {
    ck_assert_int_eq(unlink(path_of(refused[_i].file)), 0);
  }
  memset(&err, 0, sizeof err);
  ck_assert_int_eq(melu_dataset_read_melu(data, folder, "s", &err), refused[_i].status);
  ck_assert_int_eq(melu_dataset_read_melu(data, folder, "s", NULL), refused[_i].status);
  snprintf(expected, sizeof expected, "%s", path_of(refused[_i].message));
  ck_assert_msg(strncmp(err.message, expected, strlen(expected)) == 0, "%s, not %s", err.message, expected);
  ck_assert_uint_eq(err.line, refused[_i].line);
  ck_assert_uint_eq(melu_dataset_n_users(data), 0);
  ck_assert_uint_eq(melu_dataset_n_items(data), 0);
  ck_assert_uint_eq(melu_dataset_n_ratings(data), 0);
  write_all();
  ck_assert_msg(melu_dataset_read_melu(data, folder, "s", &err) == MELU_OK, "%s", err.message);
  ck_assert_uint_eq(melu_dataset_n_ratings(data), 4);
}
END_TEST

static const char *const bad_years[] = {"x", "-1", "10000", "1995.5", "19 95", "1995\xe2\x80\x93", "nan", "n/a"};

/* The paper's schema has no year, and reads past what is there. */
START_TEST(test_refused_year) {
  char text[200], expected[200];
  melu_schema *paper;
  melu_dataset *other;
  sprintf(text,
          "10::One::1995::G::x::Drama::Ann Lee::w::Eve::p::q\n20::Two::%s::G::x::Drama::Ann Lee::w::Eve::p::q\n"
          "30::Three::1995::G::x::Drama::Ann Lee::w::Eve::p::q\n",
          bad_years[_i]);
  write_bytes("movies_extrainfos.dat", text, strlen(text));
  ck_assert_int_eq(melu_dataset_read_melu(data, folder, "s", &err), MELU_EFORMAT);
  snprintf(expected, sizeof expected, "%s:2: \"%s\" is not a year from 1 to 9999", path_of("movies_extrainfos.dat"),
           bad_years[_i]);
  ck_assert_str_eq(err.message, expected);
  ck_assert_uint_eq(err.line, 2);
  ck_assert_uint_eq(melu_dataset_n_users(data) + melu_dataset_n_items(data) + melu_dataset_n_ratings(data), 0);
  ck_assert_int_eq(melu_schema_new(&paper, ctx, &err), MELU_OK);
  ck_assert_int_eq(melu_schema_add_melu(paper, folder, &err), MELU_OK);
  ck_assert_int_eq(melu_dataset_new(&other, ctx, paper, &err), MELU_OK);
  ck_assert_msg(melu_dataset_read_melu(other, folder, "s", &err) == MELU_OK, "%s", err.message);
  melu_dataset_free(other);
  melu_schema_free(paper);
}
END_TEST

/* Brackets a million deep are an error and no crash. */
START_TEST(test_deep) {
  const size_t n = (size_t)1 << 20;
  char *text = malloc(n);
  memset(text, '[', n);
  memcpy(text, "{\"9\": ", 6);
  write_bytes("s.json", text, n);
  free(text);
  ck_assert_int_eq(melu_dataset_read_melu(data, folder, "s", &err), MELU_EFORMAT);
  ck_assert_ptr_nonnull(strstr(err.message, "s.json:1: a text or a number expected"));
}
END_TEST

START_TEST(test_refused_arguments) {
  ck_assert_int_eq(melu_dataset_read_melu(NULL, folder, "s", &err), MELU_EINVAL);
  ck_assert_int_eq(melu_dataset_read_melu(data, NULL, "s", &err), MELU_EINVAL);
  ck_assert_int_eq(melu_dataset_read_melu(data, folder, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_dataset_read_melu(data, folder, "", &err), MELU_EINVAL);
  ck_assert_int_eq(melu_dataset_read_melu(data, folder, "../s", &err), MELU_EINVAL);
  ck_assert_str_eq(err.message, "state \"../s\" is no plain name");
  ck_assert_int_eq(melu_dataset_read_melu(data, "/no such folder", "s", &err), MELU_ENOTFOUND);
  ck_assert_int_eq(melu_dataset_read_melu(data, folder, "t", &err), MELU_ENOTFOUND);
  ck_assert_int_eq(add_melu(NULL, folder, &err), MELU_EINVAL);
  ck_assert_int_eq(add_melu(schema, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(add_melu(schema, folder, &err), MELU_ESTATE);
  ck_assert_str_eq(err.message, "the schema is not empty");

  melu_dataset *started;
  ck_assert_int_eq(melu_dataset_new(&started, ctx, schema, &err), MELU_OK);
  ck_assert_int_eq(melu_dataset_add_item(started, 1, NULL, NULL, &err), MELU_OK);
  ck_assert_int_eq(melu_dataset_read_melu(started, folder, "s", &err), MELU_ESTATE);
  ck_assert_str_eq(err.message, "the data set is not empty");
  melu_dataset_free(started);
  ck_assert_int_eq(melu_dataset_read_melu(data, folder, "s", &err), MELU_OK);
  ck_assert_int_eq(melu_dataset_read_melu(data, folder, "s", &err), MELU_ESTATE);
  ck_assert_str_eq(err.message, "the data set is not empty");
  ck_assert_int_eq(melu_dataset_freeze(data, &err), MELU_OK);
  ck_assert_int_eq(melu_dataset_read_melu(data, folder, "s", &err), MELU_ESTATE);
  ck_assert_str_eq(err.message, "the data set is frozen");
}
END_TEST

START_TEST(test_refused_schema) {
  melu_schema *other;
  melu_dataset *strange;
  char expected[100];
  ck_assert_int_eq(melu_schema_new(&other, ctx, &err), MELU_OK);
  ck_assert_int_eq(melu_dataset_new(&strange, ctx, other, &err), MELU_OK);
  ck_assert_int_eq(melu_dataset_read_melu(strange, folder, "s", &err), MELU_ESCHEMA);
  ck_assert_str_eq(err.message, "field \"gender\" is not as melu_schema_add_melu makes it");
  melu_dataset_free(strange);
  melu_schema_free(other);
  const struct melu_field odd[] = {{.size = sizeof *odd, .name = "sex", .n_values = 2},
                                   {.size = sizeof *odd, .name = "gender", .kind = MELU_NUMERIC}};
  for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
    ck_assert_int_eq(melu_schema_new(&other, ctx, &err), MELU_OK);
    ck_assert_int_eq(melu_schema_add(other, &odd[i], &err), MELU_OK);
    ck_assert_int_eq(melu_dataset_new(&strange, ctx, other, &err), MELU_OK);
    ck_assert_int_eq(melu_dataset_read_melu(strange, folder, "s", &err), MELU_ESCHEMA);
    ck_assert_str_eq(err.message, "field \"gender\" is not as melu_schema_add_melu makes it");
    melu_dataset_free(strange);
    melu_schema_free(other);
  }

  ck_assert_int_eq(melu_schema_new(&other, ctx, &err), MELU_OK);
  unlink(path_of("m_zipcode.txt"));
  ck_assert_int_eq(add_melu(other, folder, &err), MELU_ENOTFOUND);
  ck_assert_ptr_nonnull(strstr(err.message, "m_zipcode.txt: cannot be opened"));
  write_bytes("m_zipcode.txt", "\n \n", 3);
  ck_assert_int_eq(add_melu(other, folder, &err), MELU_EFORMAT);
  ck_assert_ptr_nonnull(strstr(err.message, "m_zipcode.txt: the file is empty"));
  ck_assert_uint_eq(melu_schema_n_fields(other, MELU_ITEM) + melu_schema_n_fields(other, MELU_USER), 0);
  write_all();
  ck_assert_int_eq(add_melu(other, folder, &err), MELU_OK);
  const struct melu_field more = {.size = sizeof more, .name = "length", .owner = MELU_ITEM, .kind = MELU_NUMERIC};
  ck_assert_int_eq(melu_schema_add(other, &more, &err), MELU_OK);
  ck_assert_int_eq(melu_dataset_new(&strange, ctx, other, &err), MELU_OK);
  ck_assert_int_eq(melu_dataset_read_melu(strange, folder, "s", &err), MELU_ESCHEMA);
  snprintf(expected, sizeof expected, "the schema has %zu fields, not the 8 of melu_schema_add_melu or the 10 of",
           5 + n_item_fields);
  ck_assert_msg(strncmp(err.message, expected, strlen(expected)) == 0, "%s", err.message);
  melu_dataset_free(strange);
  melu_schema_free(other);
}
END_TEST

/* As many fields as there should be, but a movie without texts, one that still learns, and a year of two numbers. */
START_TEST(test_refused_items) {
  static const struct {
    size_t n_values;
    int closed;
    size_t width;
    melu_status status;
    const char *message;
  } odd[] = {{3, 1, 1, MELU_ESCHEMA, "field \"movie\" is not as melu_schema_add_melu_items makes it"},
             {0, 0, 1, MELU_ESCHEMA, "field \"movie\" is not as melu_schema_add_melu_items makes it"},
             {0, 1, 2, MELU_ESCHEMA, "field \"year\" is not as melu_schema_add_melu_items makes it"},
             {0, 1, 1, MELU_OK, ""}};
  for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
    const struct melu_field movie = {
        .size = sizeof movie, .name = "movie", .owner = MELU_ITEM, .kind = MELU_ONE, .n_values = odd[i].n_values};
    const struct melu_field year = {
        .size = sizeof year, .name = "year", .owner = MELU_ITEM, .kind = MELU_NUMERIC, .width = odd[i].width};
    melu_schema *other;
    melu_dataset *first, *strange;
    ck_assert_int_eq(melu_schema_new(&other, ctx, &err), MELU_OK);
    ck_assert_int_eq(melu_schema_add_melu(other, folder, &err), MELU_OK);
    ck_assert_int_eq(melu_schema_add(other, &movie, &err), MELU_OK);
    ck_assert_int_eq(melu_schema_add(other, &year, &err), MELU_OK);
    ck_assert_int_eq(melu_dataset_new(&first, ctx, other, &err), MELU_OK);
    if (odd[i].closed) ck_assert_int_eq(melu_dataset_freeze(first, &err), MELU_OK);
    ck_assert_int_eq(melu_dataset_new(&strange, ctx, melu_dataset_schema(first), &err), MELU_OK);
    memset(&err, 0, sizeof err);
    ck_assert_int_eq(melu_dataset_read_melu(strange, folder, "s", &err), odd[i].status);
    ck_assert_str_eq(err.message, odd[i].message);
    melu_dataset_free(strange);
    melu_dataset_free(first);
    melu_schema_free(other);
  }
}
END_TEST

/* The movies are read as a vocabulary, too. */
START_TEST(test_refused_movies) {
  static const struct {
    const char *text;
    melu_status status;
    uint64_t line;
    const char *message;
  } bad[] = {{"", MELU_EFORMAT, 0, "movies_extrainfos.dat: the file is empty"},
             {"10::One\n\n", MELU_EFORMAT, 2, "movies_extrainfos.dat:2: \"\" is not an id"},
             {"10::One\n20::Two\nx::Three\n", MELU_EFORMAT, 3, "movies_extrainfos.dat:3: \"x\" is not an id"},
             {NULL, MELU_ENOTFOUND, 0, "movies_extrainfos.dat: cannot be opened: No such file or directory"}};
  melu_schema *other;
  ck_assert_int_eq(melu_schema_new(&other, ctx, &err), MELU_OK);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    if (bad[i].text) {
      write_bytes("movies_extrainfos.dat", bad[i].text, strlen(bad[i].text));
    } else {
      ck_assert_int_eq(unlink(path_of("movies_extrainfos.dat")), 0);
    }
    memset(&err, 0, sizeof err);
    ck_assert_int_eq(melu_schema_add_melu_items(other, folder, &err), bad[i].status);
    ck_assert_int_eq(melu_schema_add_melu_items(other, folder, NULL), bad[i].status);
    ck_assert_str_eq(err.message, path_of(bad[i].message));
    ck_assert_uint_eq(err.line, bad[i].line);
    ck_assert_uint_eq(melu_schema_n_fields(other, MELU_ITEM) + melu_schema_n_fields(other, MELU_USER), 0);
  }
  ck_assert_int_eq(melu_schema_add_melu(other, folder, &err), MELU_OK);
  melu_schema_free(other);
}
END_TEST

/* ---------------------------------------------------------------------------------------- memory, cancel, limits */

START_TEST(test_memory) {
  melu_schema *other;
  ck_assert_int_eq(melu_schema_new(&other, ctx, &err), MELU_OK);
  for (int step = 0; step < 2; step++) {
    size_t n_failed = 0;
    for (;; n_failed++) {
      host.n_allocs = 0;
      host.fail_at = n_failed + 1;
      const melu_status status =
          step == 0 ? add_melu(other, folder, &err) : melu_dataset_read_melu(data, folder, "s", &err);
      const size_t reached = host.n_allocs;
      host.fail_at = 0;
      if (reached <= n_failed) {
        ck_assert_int_eq(status, MELU_OK);
        break;
      }
      ck_assert_int_eq(status, MELU_ENOMEM);
      ck_assert_uint_eq(melu_dataset_n_users(data) + melu_dataset_n_items(data) + melu_dataset_n_ratings(data), 0);
      ck_assert_uint_eq(melu_schema_n_fields(other, MELU_ITEM), step == 0 ? 0 : n_item_fields);
    }
    ck_assert_uint_ge(n_failed, 8);
  }
  ck_assert_uint_eq(melu_dataset_n_ratings(data), 4);
  melu_schema_free(other);
}
END_TEST

START_TEST(test_cancel) {
  size_t n = 0;
  for (melu_status status = MELU_ECANCELED; status != MELU_OK; n++) {
    host.n_calls = 0;
    host.stop_at = n + 1;
    status = melu_dataset_read_melu(data, folder, "s", &err);
    if (status == MELU_OK) break;
    ck_assert_int_eq(status, MELU_ECANCELED);
    ck_assert_uint_eq(melu_dataset_n_users(data) + melu_dataset_n_items(data) + melu_dataset_n_ratings(data), 0);
  }
  ck_assert_uint_ge(n, 4);
  ck_assert_uint_eq(melu_dataset_n_ratings(data), 4);
}
END_TEST

START_TEST(test_limit) {
  close_context();
  open_context(40);
  ck_assert_int_eq(melu_schema_add_melu_items(schema, folder, &err), MELU_ELIMIT);
  ck_assert_int_eq(melu_schema_add_melu(schema, folder, &err), MELU_OK);
  ck_assert_int_eq(melu_dataset_new(&data, ctx, schema, &err), MELU_OK);
  ck_assert_int_eq(melu_dataset_read_melu(data, folder, "s", &err), MELU_ELIMIT);
  ck_assert_ptr_nonnull(strstr(err.message, "movies_extrainfos.dat: the file is larger than 40 bytes"));
}
END_TEST

/* The limit of JSON files is no less the context's, where that is the lower one. */
START_TEST(test_limit_of_lists) {
  char text[1100];
  close_context();
  open_context(1000);
  ck_assert_int_eq(add_melu(schema, folder, &err), MELU_OK);
  ck_assert_int_eq(melu_dataset_new(&data, ctx, schema, &err), MELU_OK);
  memset(text, ' ', sizeof text);
  write_bytes("s.json", text, sizeof text);
  ck_assert_int_eq(melu_dataset_read_melu(data, folder, "s", &err), MELU_ELIMIT);
  ck_assert_ptr_nonnull(strstr(err.message, "s.json: the file is larger than 1000 bytes"));
  write_all();
  ck_assert_int_eq(melu_dataset_read_melu(data, folder, "s", &err), MELU_OK);
}
END_TEST

/* ------------------------------------------------------------------------------------------------- MovieLens-1M */

static const struct {
  const char *name;
  size_t n_lists, n_evaluated, n_evaluated_ratings;
  double sum[2]; /* of query ratings, splits 0 and 1 */
  const char *sha[3];
} states[] = {
    {"warm_state", 4832, 2653, 121811, {101286, 101192}, {"5e9936467461b563", "e1792e1eaade9b95", "d23df0f75f70b1a4"}},
    {"user_cold_state", 1208, 668, 30478, {25587, 25643}, {"bbe70917f7f7de74", "85c77813ad0c1f71", "4eef6033c53f3fec"}},
    {"item_cold_state",
     4769,
     2863,
     106814,
     {101381, 101613},
     {"a8d03595b9131eb2", "787168e956b0fbe5", "0d9b444f34436b36"}},
    {"user_and_item_cold_state",
     1197,
     723,
     26790,
     {25825, 25866},
     {"16b963266d22676c", "9efe51a32b26523b", "cf9532d3a06973aa"}},
};
static const uint64_t splits[] = {0, 1, 19};
#define N_QUERY 10

/* The data may be where the environment says, or lie beside the repository, in whose build folder tests run. */
static int find_movielens(char *archive, size_t size) {
  const char *const places[] = {getenv("MELU_SHARED"), "../shared", "../../shared"};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    if (!places[i]) continue;
    snprintf(archive, size, "%s/data/ml-1m-melu.tar.gz", places[i]);
    if (access(archive, R_OK) == 0) return 1;
  }
  return 0;
}

static melu_dataset *real;

/* Ascending by id, as users.dat happens to be. */
static uint64_t evaluated(uint32_t user, size_t *n) {
  const uint32_t *items;
  const float *ratings;
  *n = melu_dataset_ratings(real, user, &items, &ratings);
  return *n >= N_QUERY + 3 && *n <= 100;
}

/* The first 16 digits of the SHA-256 of a file in the folder. */
static void sha256(char digits[17], const char *name) {
  char command[200];
  snprintf(command, sizeof command, "sha256sum < '%s'", path_of(name));
  FILE *pipe = popen(command, "r");
  ck_assert_ptr_nonnull(pipe);
  ck_assert_uint_eq(fread(digits, 1, 16, pipe), 16);
  digits[16] = '\0';
  pclose(pipe);
}

static void check_split(size_t state, size_t split) {
  char digits[17];
  FILE *text = fopen(path_of("split.txt"), "w");
  ck_assert_ptr_nonnull(text);
  size_t n;
  double sum = 0.0;
  uint64_t last = 0;
  for (uint32_t u = 0; u < melu_dataset_n_users(real); u++) {
    const uint64_t id = melu_dataset_user_id(real, u);
    uint32_t order[100];
    const uint32_t *items;
    const float *ratings;
    ck_assert(id > last);
    last = id;
    if (!evaluated(u, &n)) continue;
    melu_dataset_ratings(real, u, &items, &ratings);
    ck_assert_int_eq(melu_split_order(order, id, splits[split], n, &err), MELU_OK);
    fprintf(text, "%" PRIu64 ":", id);
    for (size_t i = n - N_QUERY; i < n; i++) {
      fprintf(text, "%" PRIu32 "%s", order[i], i + 1 < n ? "," : "\n");
      sum += (double)ratings[order[i]];
    }
  }
  ck_assert_int_eq(fclose(text), 0);
  sha256(digits, "split.txt");
  ck_assert_str_eq(digits, states[state].sha[split]);
  if (split < 2) ck_assert_double_eq(sum, states[state].sum[split]);
}

/* Every text is in its vocabulary, and only movies without a director and the like have fewer values than fields. */
static void check_values(void) {
  for (int owner = MELU_USER; owner <= MELU_ITEM; owner++) {
    const size_t n = owner == MELU_USER ? melu_dataset_n_users(real) : melu_dataset_n_items(real);
    for (uint32_t i = 0; i < n; i++) {
      struct melu_value v[4];
      ck_assert_int_eq((owner == MELU_USER ? melu_dataset_user_values : melu_dataset_item_values)(v, real, i, &err), 0);
      for (size_t f = 0; f < 4; f++) {
        ck_assert_uint_ge(v[f].n_ids, 1);
        for (size_t k = 0; k < v[f].n_ids; k++) ck_assert_uint_ne(v[f].ids[k], MELU_UNKNOWN);
      }
    }
  }
}

static void check_state(const char *where, size_t state) {
  ck_assert_int_eq(melu_dataset_new(&real, ctx, schema, &err), MELU_OK);
  ck_assert_msg(melu_dataset_read_melu(real, where, states[state].name, &err) == MELU_OK, "%s", err.message);
  ck_assert_int_eq(melu_dataset_freeze(real, &err), MELU_OK);
  ck_assert_uint_eq(melu_dataset_n_users(real), 6040);
  ck_assert_uint_eq(melu_dataset_n_items(real), 3881);
  if (state == 0) check_values();
  size_t n_lists = 0, n_evaluated = 0, n_ratings = 0, n;
  for (uint32_t u = 0; u < 6040; u++) {
    const int counts = evaluated(u, &n) != 0;
    n_lists += n > 0;
    n_evaluated += (size_t)counts;
    n_ratings += counts ? n : 0;
  }
  ck_assert_uint_eq(n_lists, states[state].n_lists);
  ck_assert_uint_eq(n_evaluated, states[state].n_evaluated);
  ck_assert_uint_eq(n_ratings, states[state].n_evaluated_ratings);
  for (size_t split = 0; split < 3; split++) check_split(state, split);
  melu_dataset_free(real);
}

/* The paper's fields are as without the two more: `values` are those of one item, in either schema's set. */
static void check_item(struct melu_value values[2][6], uint64_t id) {
  char name[24];
  sprintf(name, "%" PRIu64, id);
  for (size_t f = 0; f < 4; f++) {
    ck_assert_uint_eq(values[1][f].n_ids, values[0][f].n_ids);
    ck_assert_mem_eq(values[1][f].ids, values[0][f].ids, values[0][f].n_ids * sizeof *values[0][f].ids);
  }
  ck_assert_uint_eq(values[1][4].n_ids, 1);
  ck_assert_str_eq(melu_schema_value_text(melu_dataset_schema(data), "movie", values[1][4].ids[0]), name);
  ck_assert_uint_eq(values[1][5].n_numbers, 1);
}

static void check_items(const char *where) {
  melu_schema *items;
  struct melu_field movie = {.size = sizeof movie};
  ck_assert_int_eq(melu_schema_new(&items, ctx, &err), MELU_OK);
  ck_assert_msg(melu_schema_add_melu_items(items, where, &err) == MELU_OK, "%s", err.message);
  ck_assert_int_eq(melu_schema_field(&movie, items, MELU_ITEM, 4, &err), MELU_OK);
  ck_assert_uint_eq(movie.n_values, 3881);
  ck_assert_int_eq(melu_dataset_new(&real, ctx, schema, &err), MELU_OK);
  ck_assert_int_eq(melu_dataset_new(&data, ctx, items, &err), MELU_OK);
  ck_assert_int_eq(melu_dataset_read_melu(real, where, "item_cold_state", &err), MELU_OK);
  ck_assert_msg(melu_dataset_read_melu(data, where, "item_cold_state", &err) == MELU_OK, "%s", err.message);
  ck_assert_uint_eq(melu_dataset_n_items(data), 3881);
  ck_assert_uint_eq(melu_dataset_n_ratings(data), melu_dataset_n_ratings(real));
  double sum = 0.0, lowest = 9999.0, highest = 0.0;
  for (uint32_t i = 0; i < 3881; i++) {
    struct melu_value values[2][6];
    ck_assert_int_eq(melu_dataset_item_values(values[0], real, i, &err), MELU_OK);
    ck_assert_int_eq(melu_dataset_item_values(values[1], data, i, &err), MELU_OK);
    check_item(values, melu_dataset_item_id(data, i));
    const double year = (double)values[1][5].numbers[0];
    sum += year;
    lowest = year < lowest ? year : lowest;
    highest = year > highest ? year : highest;
  }
  ck_assert_double_eq(sum, 7707908);
  ck_assert_double_eq(lowest, 1919);
  ck_assert_double_eq(highest, 2000);
  melu_dataset_free(real);
  melu_schema_free(items);
}

START_TEST(test_movielens) {
  char archive[512], command[1200], where[128];
  struct stat info;
  if (!find_movielens(archive, sizeof archive)) {
    puts("test_melu_files: data/ml-1m-melu.tar.gz is not there, MovieLens-1M was not checked");
    return;
  }
  make_folder();
  snprintf(command, sizeof command, "tar -xzf '%s' -C '%s'", archive, folder);
  ck_assert_int_eq(system(command), 0);
  /* The archive may or may not have a folder of its own. */
  snprintf(where, sizeof where, "%s/ml-1m-melu", folder);
  if (stat(where, &info) != 0) snprintf(where, sizeof where, "%s", folder);
  open_context(0);
  ck_assert_msg(melu_schema_add_melu(schema, where, &err) == MELU_OK, "%s", err.message);
  for (size_t state = 0; state < 4; state++) check_state(where, state);
  check_items(where);
  close_context();
  snprintf(command, sizeof command, "rm -r '%s'", folder);
  ck_assert_int_eq(system(command), 0);
  puts("test_melu_files: MovieLens-1M is as it should be, in all four states");
}
END_TEST

int main(void) {
  Suite *suite = suite_create("melu_files");
  for (int items = 0; items < 2; items++) {
    TCase *tiny = tcase_create(items ? "items" : "tiny");
    tcase_add_checked_fixture(tiny, items ? setup_items : setup_paper, teardown);
    tcase_add_test(tiny, test_schema);
    tcase_add_test(tiny, test_tiny);
    tcase_add_loop_test(tiny, test_refused, 0, (int)(sizeof refused / sizeof *refused));
    tcase_add_test(tiny, test_deep);
    tcase_add_test(tiny, test_refused_arguments);
    tcase_add_test(tiny, test_refused_schema);
    tcase_add_test(tiny, test_memory);
    tcase_add_test(tiny, test_cancel);
    if (items) {
      tcase_add_test(tiny, test_movie_and_year);
      tcase_add_loop_test(tiny, test_refused_year, 0, (int)(sizeof bad_years / sizeof *bad_years));
      tcase_add_test(tiny, test_refused_items);
      tcase_add_test(tiny, test_refused_movies);
    } else {
      tcase_add_test(tiny, test_limit);
      tcase_add_test(tiny, test_limit_of_lists);
    }
    tcase_set_timeout(tiny, 60);
    suite_add_tcase(suite, tiny);
  }
  TCase *movielens = tcase_create("movielens");
  tcase_add_test(movielens, test_movielens);
  tcase_set_timeout(movielens, 300);
  suite_add_tcase(suite, movielens);
  return run_suite(suite);
}
