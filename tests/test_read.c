/* SPDX-License-Identifier: BSD-3-Clause */
/* The readers of tables, lib/io/table.c, and what they stand on, lib/io/text_file.c. */
#include <melu.h>

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/text_file.h"
#include "locales.h"
#include "run_suite.h"

/* ---------------------------------------------------------------------------------------------------- the scene */

/* So many of the next calls that open a file are interrupted by a signal. */
static int n_interruptions;

int open(const char *name, int flags, ...) {
  if (n_interruptions == 0) return openat(AT_FDCWD, name, flags); /* only to read */
  n_interruptions--;
  errno = EINTR;
  return -1;
}

/* A host that counts its blocks, fails an allocation, and follows or stops the reading. */
struct host {
  size_t live;
  size_t n_allocs, fail_at; /* fail_at: 1-based; 0: never */
  size_t n_calls, stop_at;
  int backwards;
  struct melu_progress last;
};

static struct host host;
static melu_context *ctx;
static melu_schema *schema;
static melu_dataset *data;
static char folder[64];
static char path[96];
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
  h->backwards |= progress->done < h->last.done;
  h->last = *progress;
  return ++h->n_calls == h->stop_at;
}

static void add_field(const char *name, melu_owner owner, melu_field_kind kind, size_t n_values, size_t width) {
  const struct melu_field field = {
      .size = sizeof field, .name = name, .owner = owner, .kind = kind, .n_values = n_values, .width = width};
  ck_assert_int_eq(melu_schema_add(schema, &field, &err), MELU_OK);
}

static void open_scene(size_t max_file_bytes) {
  host = (struct host){0};
  const struct melu_allocator allocator = {&host, host_alloc, host_free};
  const struct melu_context_options options = {.size = sizeof options,
                                               .allocator = &allocator,
                                               .progress = host_progress,
                                               .progress_arg = &host,
                                               .max_file_bytes = max_file_bytes};
  ck_assert_int_eq(melu_context_new(&ctx, &options, &err), MELU_OK);
  ck_assert_int_eq(melu_schema_new(&schema, ctx, &err), MELU_OK);
  add_field("gender", MELU_USER, MELU_ONE, 0, 4);
  add_field("tags", MELU_USER, MELU_MANY, 0, 4);
  add_field("age", MELU_USER, MELU_NUMERIC, 0, 1);
  add_field("place", MELU_USER, MELU_NUMERIC, 0, 2);
  add_field("genre", MELU_ITEM, MELU_MANY, 25, 4);
  add_field("rate", MELU_ITEM, MELU_ONE, 3, 4);
  ck_assert_int_eq(melu_dataset_new(&data, ctx, schema, &err), MELU_OK);
}

static void setup(void) {
  const char *temp = getenv("TMPDIR");
  snprintf(folder, sizeof folder, "%.40s/melu-read-XXXXXX", temp ? temp : "/tmp");
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/table.csv", folder);
  open_scene(0);
}

static void close_scene(void) {
  melu_dataset_free(data);
  melu_schema_free(schema);
  melu_context_free(ctx);
  ck_assert_uint_eq(host.live, 0);
}

static void teardown(void) {
  close_scene();
  unlink(path);
  ck_assert_int_eq(rmdir(folder), 0);
}

static void write_bytes(const char *bytes, size_t n) {
  FILE *f = fopen(path, "wb");
  ck_assert_ptr_nonnull(f);
  ck_assert_uint_eq(fwrite(bytes, 1, n, f), n);
  ck_assert_int_eq(fclose(f), 0);
}

enum table { USERS, ITEMS, RATINGS };

static melu_status read_file(enum table table, const struct melu_table_options *options) {
  memset(&err, 0, sizeof err);
  host.n_calls = 0;
  host.last.done = 0;
  if (table == USERS) return melu_dataset_read_users(data, path, options, &err);
  if (table == ITEMS) return melu_dataset_read_items(data, path, options, &err);
  return melu_dataset_read_ratings(data, path, options, &err);
}

static melu_status read_text(enum table table, const char *text, const struct melu_table_options *options) {
  write_bytes(text, strlen(text));
  return read_file(table, options);
}

#define READ(table, text) ck_assert_msg(read_text((table), (text), NULL) == MELU_OK, "%s", err.message)

/* Everything that can be seen of the data set, as a text: users, items, vocabularies. */
static void dump(char *to, size_t size) {
  size_t n = 0;
#define OUT(...) (n += (size_t)snprintf(to + n, n < size ? size - n : 0, __VA_ARGS__))
  const melu_schema *s = melu_dataset_schema(data);
  for (int owner = MELU_USER; owner <= MELU_ITEM; owner++) {
    const size_t n_entities = owner == MELU_USER ? melu_dataset_n_users(data) : melu_dataset_n_items(data);
    const size_t n_fields = melu_schema_n_fields(s, (melu_owner)owner);
    for (uint32_t i = 0; i < n_entities; i++) {
      struct melu_value v[4];
      OUT("%llu:",
          (unsigned long long)(owner == MELU_USER ? melu_dataset_user_id(data, i) : melu_dataset_item_id(data, i)));
      ck_assert_int_eq((owner == MELU_USER ? melu_dataset_user_values : melu_dataset_item_values)(v, data, i, &err), 0);
      for (size_t f = 0; f < n_fields; f++) {
        for (size_t k = 0; k < v[f].n_ids; k++) OUT(" %ld", v[f].ids[k] == MELU_UNKNOWN ? -1 : (long)v[f].ids[k]);
        for (size_t k = 0; k < v[f].n_numbers; k++) OUT(" %g", (double)v[f].numbers[k]);
        OUT(";");
      }
      OUT("\n");
    }
    for (size_t f = 0; f < n_fields; f++) {
      struct melu_field field = {.size = sizeof field};
      ck_assert_int_eq(melu_schema_field(&field, s, (melu_owner)owner, f, &err), MELU_OK);
      const char *text;
      for (uint32_t k = 0; (text = melu_schema_value_text(s, field.name, k)) != NULL; k++) OUT("%s|", text);
    }
    OUT("\n");
  }
  OUT("%zu", melu_dataset_n_ratings(data));
  ck_assert_uint_lt(n, size);
#undef OUT
}

static void assert_dump(const char *expected) {
  char seen[4096];
  dump(seen, sizeof seen);
  ck_assert_str_eq(seen, expected);
}

#define GOOD_USERS "user,gender,tags,age,place\n1,F,a|b,20,1|2\nbob,M,,,\n"
#define GOOD_ITEMS "item\tgenre\trate\n10\t1|2\t0\nufo\t\tNA\n"
#define GOOD_RATINGS "user,item,rating\n1,10,4\nbob,ufo,3.5\nbob,10,1\n"
#define TEXT_ID(n) "922337203685477580" #n

static const char good_dump[] =
    "1: 0; 0 1; 20; 1 2;\n" TEXT_ID(8) ": 1;;;;\nF|M|a|b|\n"
    "10: 1 2; 0;\n" TEXT_ID(9) ":;;\n\n3";

/* -------------------------------------------------------------------------------------------------- what is read */

START_TEST(test_three_tables) {
  READ(USERS, GOOD_USERS);
  READ(ITEMS, GOOD_ITEMS);
  READ(RATINGS, GOOD_RATINGS);
  assert_dump(good_dump);
  ck_assert_int_eq(melu_dataset_freeze(data, &err), MELU_OK);
  const uint32_t *items;
  const float *ratings;
  ck_assert_uint_eq(melu_dataset_ratings(data, 1, &items, &ratings), 2);
  ck_assert(items[0] == 1 && ratings[0] == 3.5f && items[1] == 0 && ratings[1] == 1.0f);
}
END_TEST

/* One table in many spellings. */
static const char *const spellings[] = {
    "user,gender,tags,age,place\n1,F,a|b,20,1|2\nbob,M,,,\n",
    "user,gender,tags,age,place\r\n1,F,a|b,20,1|2\r\nbob,M,,,\r\n",
    "user,gender,tags,age,place\n1,F,a|b,20,1|2\nbob,M,,,",
    "user,gender,tags,age,place\n1,F,a|b,20,1|2\nbob,M,,,NA",
    "\xef\xbb\xbfuser,gender,tags,age,place\n1,F,a|b,20,1|2\nbob,M,,,\n",
    "\n\r\nuser,gender,tags,age,place\n\n1,F,a|b,20,1|2\r\n\r\nbob,M,NA,NA,\n\n",
    "age,place,tags,gender,user\n20,1|2,a|b,F,1\n,,,M,bob\n",
    "\"user\",gender,\"tags\",age,place\n\"1\",\"F\",\"a|b\",\"20\",\"1|2\"\n\"bob\",\"M\",\"\",\"NA\",\"\"",
    "user\tgender\ttags\tage\tplace\n001\tF\ta|b\t+2.0e1\t1.|20E-1\nbob\tM\t\t\t",
};

START_TEST(test_spellings) {
  READ(ITEMS, "item,genre,rate\n");
  READ(USERS, spellings[_i]);
  assert_dump("1: 0; 0 1; 20; 1 2;\n" TEXT_ID(8) ": 1;;;;\nF|M|a|b|\n\n0");
}
END_TEST

START_TEST(test_quotes) {
  READ(USERS,
       "user,gender,tags,age,place\n"
       "1,\"a,\"\"b\"\"\",\"x\r\ny|z\",,\n"
       "2,it\"s,\"\"\"\"\"\",,\n");
  assert_dump("1: 0; 0 1;;;\n2: 1; 2;;;\na,\"b\"|it\"s|x\r\ny|z|\"\"|\n\n0");
  /* Lines are counted through the cells that span them. */
  ck_assert_int_eq(read_text(USERS, "user,gender,tags,age,place\n3,\"a\nb\n\",,,\n4,a,,x,\n", NULL), MELU_EFORMAT);
  ck_assert_uint_eq(err.line, 5);
}
END_TEST

START_TEST(test_options) {
  const char *const skip[] = {"when", "why"};
  struct melu_table_options options = {
      .size = sizeof options, .id = "who", .separator = ';', .list_separator = ' ', .skip = skip, .n_skip = 2};
  ck_assert_int_eq(read_text(USERS, "when;who;gender;tags;why;age;place\n?;7;F,M;a b|c;?;1;2 3\n", &options), MELU_OK);
  options.id = NULL;
  ck_assert_int_eq(read_text(ITEMS, "item;genre;rate\n8;;\n", &options), MELU_OK);
  options.user = "rate", options.item = "genre", options.rating = "age";
  ck_assert_int_eq(read_text(RATINGS, "age;why;genre;rate\n2;?;8;7\n", &options), MELU_OK);
  assert_dump("7: 0; 0 1; 1; 2 3;\nF,M|a|b|c|\n8:;;\n\n1");
}
END_TEST

/* The column of the id may be a field as well. */
START_TEST(test_id_is_field) {
  const struct melu_table_options options = {.size = sizeof options, .id = "rate"};
  ck_assert_int_eq(read_text(ITEMS, "rate,genre\n2,\n0,7\n", &options), MELU_OK);
  assert_dump("\n2:; 2;\n0: 7; 0;\n\n0");
}
END_TEST

/* A second file goes on where the first ended; a closed vocabulary does not grow. */
START_TEST(test_more_files) {
  READ(USERS, GOOD_USERS);
  READ(USERS, "user,gender,tags,age,place\n2,X,b|c,,\n");
  melu_dataset *first = data;
  ck_assert_int_eq(melu_dataset_freeze(first, &err), MELU_OK);
  ck_assert_int_eq(melu_dataset_new(&data, ctx, melu_dataset_schema(first), &err), MELU_OK);
  melu_dataset_free(first);
  READ(USERS, "user,gender,tags,age,place\n2,Y,new|c,,\n");
  assert_dump("2: -1; -1 2;;;\nF|M|X|a|b|c|\n\n0");
}
END_TEST

/* ------------------------------------------------------------------------------------------------ what is refused */

#define U "user,gender,tags,age,place\n"
#define I "item,genre,rate\n"
#define R "user,item,rating\n"

static const struct {
  enum table table;
  const char *text;
  size_t n; /* 0: strlen */
  melu_status status;
  uint64_t line;
  const char *message; /* after the path and a colon */
} refused[] = {
    {USERS, "", 0, MELU_EFORMAT, 1, "1: the file is empty; its first line should name the columns"},
    {USERS, "\n\r\n", 0, MELU_EFORMAT, 1, "1: the file is empty; its first line should name the columns"},
    {USERS, "user,\"gender,tags,age,place\n", 0, MELU_EFORMAT, 1, "1: the quotation mark of a cell is never closed"},
    {USERS, "user,gender,tags,age,place,x\n", 0, MELU_EFORMAT, 1, "1: unknown column \"x\""},
    {USERS, "user,gender,tags,age,place,\n", 0, MELU_EFORMAT, 1, "1: unknown column \"\""},
    {USERS, "\nuser,gender,tags,age\n", 0, MELU_EFORMAT, 2, "2: there is no column \"place\""},
    {USERS, "gender,tags,age,place\n", 0, MELU_EFORMAT, 1, "1: there is no column \"user\""},
    {ITEMS, "item,genre,rate,genre\n", 0, MELU_EFORMAT, 1, "1: 2 columns are called \"genre\""},
    {RATINGS, "user,item,rating,user\n", 0, MELU_EFORMAT, 1, "1: 2 columns are called \"user\""},
    {USERS, U "2,F,,,\n3,F,,\n", 0, MELU_EFORMAT, 3, "3: 4 cells, but the first line names 5 columns"},
    {USERS, U "2,F,,,\n3,F,,,,\n", 0, MELU_EFORMAT, 3, "3: 6 cells, but the first line names 5 columns"},
    {USERS, U "2,F,,,\n,F,,,\n", 0, MELU_EFORMAT, 3, "3: the user has no id"},
    {ITEMS, I "NA,,", 0, MELU_EFORMAT, 2, "2: the item has no id"},
    {USERS, U "2,new,new,,\n1,F,,,\n", 0, MELU_ESTATE, 3, "3: user \"1\" is already there"},
    {USERS, U "2,new,new,,\nbob,F,,,\n", 0, MELU_ESTATE, 3, "3: user \"bob\" is already there"},
    {USERS, U "new,F,,,\nnew,F,,,\n", 0, MELU_ESTATE, 3, "3: user \"new\" is already there"},
    {USERS, U "2,,a||b,,\n", 0, MELU_EFORMAT, 2, "2: field \"tags\": an entry of the list is missing"},
    {USERS, U "2,,a|NA,,\n", 0, MELU_EFORMAT, 2, "2: field \"tags\": an entry of the list is missing"},
    {USERS, U "2,,,x,\n", 0, MELU_EFORMAT, 2, "2: field \"age\": \"x\" is not a number"},
    {USERS, U "2,,,1e39,\n", 0, MELU_ERANGE, 2, "2: field \"age\": \"1e39\" is not finite"},
    {USERS, U "2,,,1|2,\n", 0, MELU_EFORMAT, 2, "2: field \"age\": \"1|2\" is not a number"},
    {USERS, U "2,,,,1\n", 0, MELU_EFORMAT, 2, "2: field \"place\": 1 numbers, not 2"},
    {USERS, U "2,,,,1|2|3\n", 0, MELU_EFORMAT, 2, "2: field \"place\": more than 2 numbers"},
    {USERS, U "2,,,,1|\n", 0, MELU_EFORMAT, 2, "2: field \"place\": \"\" is not a number"},
    {ITEMS, I "2,25,\n", 0, MELU_ERANGE, 2, "2: field \"genre\": id 25 is not below 25"},
    {ITEMS, I "2,4294967297,\n", 0, MELU_ERANGE, 2, "2: field \"genre\": id 4294967297 is not below 25"},
    {ITEMS, I "2,,3\n", 0, MELU_ERANGE, 2, "2: field \"rate\": id 3 is not below 3"},
    {ITEMS, I "2,,1|2\n", 0, MELU_EFORMAT, 2, "2: field \"rate\": \"1|2\" is not an id"},
    {ITEMS, I "2,-1,\n", 0, MELU_EFORMAT, 2, "2: field \"genre\": \"-1\" is not an id"},
    {ITEMS, I "2,,1\nx", 0, MELU_EFORMAT, 3, "3: 1 cells, but the first line names 3 columns"},
    {RATINGS, R "1,10,5\n2,10,5\n", 0, MELU_ENOTFOUND, 3, "3: there is no user \"2\""},
    {RATINGS, R "1,10,5\nann,10,5\n", 0, MELU_ENOTFOUND, 3, "3: there is no user \"ann\""},
    {RATINGS, R "ufo,10,5\n", 0, MELU_ENOTFOUND, 2, "2: there is no user \"ufo\""},
    {RATINGS, R "1,10,5\n1,11,5\n", 0, MELU_ENOTFOUND, 3, "3: there is no item \"11\""},
    {RATINGS, R "1,10,5\n1,,5\n", 0, MELU_ENOTFOUND, 3, "3: there is no item \"\""},
    {RATINGS, R "1,10,5\n1,10,x\n", 0, MELU_EFORMAT, 3, "3: rating \"x\" is not a number"},
    {RATINGS, R "1,10,5\n1,10,0x10\n", 0, MELU_EFORMAT, 3, "3: rating \"0x10\" is not a number"},
    {RATINGS, R "1,10,5\n1,10, 5\n", 0, MELU_EFORMAT, 3, "3: rating \" 5\" is not a number"},
    {RATINGS, R "1,10,5\n1,10,\n", 0, MELU_EFORMAT, 3, "3: the rating is missing"},
    {RATINGS, R "1,10,5\n1,10,nan\n", 0, MELU_ERANGE, 3, "3: rating \"nan\" is not finite"},
    {RATINGS, R "1,10,5\n1,10,-INF\n", 0, MELU_ERANGE, 3, "3: rating \"-INF\" is not finite"},
    {RATINGS, R "1,10,5\n1,10,1e999999999999\n", 0, MELU_ERANGE, 3, "3: rating \"1e999999999999\" is not finite"},
    {RATINGS, R "1,10,5\n1,10,\"5\n", 0, MELU_EFORMAT, 3, "3: the quotation mark of a cell is never closed"},
    {RATINGS, R "1,10,5\n1,10,\"5\"6\n", 0, MELU_EFORMAT, 3, "3: text follows a closing quotation mark"},
    {RATINGS, R "1,10,5\n1,10\r,5\n", 0, MELU_EFORMAT, 3, "3: a carriage return that is not at the end of a line"},
    {RATINGS, R "1,10,\"5\"\r\n1,10,\"x\"\r\n", 0, MELU_EFORMAT, 3, "3: rating \"x\" is not a number"},
    {RATINGS, R "1,10,5\n1,10,5\r", 0, MELU_EFORMAT, 3, "3: a carriage return that is not at the end of a line"},
    {RATINGS, R "1,10,5\n1,10,5\0\n", sizeof R + 15, MELU_EFORMAT, 3, "3: a NUL byte, this is no text"},
    {RATINGS, R "1,10,5\n1,10,\xff\n", 0, MELU_EFORMAT, 3, "3: byte 0xff is not UTF-8"},
    {RATINGS, R "1,10,5\n1,10,\x1b[31m\n", 0, MELU_EFORMAT, 3, "3: rating \"?[31m\" is not a number"},
    {RATINGS, R "1,10,5\n1,10,a long text, but not a cell that a message could hold\n", 0, MELU_EFORMAT, 3,
     "3: 4 cells, but the first line names 3 columns"},
    {RATINGS, R "1,10,5\n1,10,123456789 123456789 123456789 123456789 \xc3\xa4\xc3\xa4\xc3\xa4\n", 0, MELU_EFORMAT, 3,
     "3: rating \"123456789 123456789 123456789 123456789 \xc3\xa4\xc3\xa4...\" is not a number"},
    {RATINGS, R "1,10,5\n1,10,123456789 123456789 123456789 123456789 x\xc3\xa4\xc3\xa4\xc3\xa4\n", 0, MELU_EFORMAT, 3,
     "3: rating \"123456789 123456789 123456789 123456789 x\xc3\xa4...\" is not a number"},
};

static const char *const good_text[] = {U "5,Z,z,1,2|3\n", I "5,3,1\n", R "bob,10,2\n"};

START_TEST(test_refused) {
  char before[4096], expected[256];
  READ(USERS, GOOD_USERS);
  READ(ITEMS, GOOD_ITEMS);
  READ(RATINGS, GOOD_RATINGS);
  dump(before, sizeof before);
  write_bytes(refused[_i].text, refused[_i].n ? refused[_i].n : strlen(refused[_i].text));
  ck_assert_int_eq(read_file(refused[_i].table, NULL), refused[_i].status);
  snprintf(expected, sizeof expected, "%s:%s", path, refused[_i].message);
  ck_assert_str_eq(err.message, expected);
  ck_assert_uint_eq(err.line, refused[_i].line);
  ck_assert_int_eq(err.status, refused[_i].status);
  assert_dump(before);
  /* The error is for those who want it. */
  if (refused[_i].table == USERS) {
    ck_assert_int_eq(melu_dataset_read_users(data, path, NULL, NULL), refused[_i].status);
  }
  READ(refused[_i].table, good_text[refused[_i].table]);
}
END_TEST

START_TEST(test_refused_files) {
  melu_dataset *const whole = data;
  READ(USERS, U "1,,,,\n");
  for (int t = USERS; t <= RATINGS; t++) {
    data = NULL;
    ck_assert_int_eq(read_file((enum table)t, NULL), MELU_EINVAL);
    ck_assert_str_eq(err.message, "data is NULL");
    data = whole;
  }
  ck_assert_int_eq(melu_dataset_read_users(data, NULL, NULL, &err), MELU_EINVAL);
  ck_assert_str_eq(err.message, "path is NULL");
  ck_assert_int_eq(melu_dataset_read_users(data, folder, NULL, &err), MELU_EIO);
  ck_assert_int_ne(err.sys_errno, 0);
  ck_assert_ptr_nonnull(strstr(err.message, folder));
  unlink(path);
  ck_assert_int_eq(read_file(USERS, NULL), MELU_ENOTFOUND);
  ck_assert_int_ne(err.sys_errno, 0);
  ck_assert_ptr_nonnull(strstr(err.message, "table.csv: cannot be opened: "));
  ck_assert_uint_eq(melu_dataset_n_users(data), 1);
  /* Of a long path the name of the file is said, or as much as there is room for. */
  char long_path[160], expected[100];
  snprintf(long_path, sizeof long_path, "%s%050d/no-table.csv", path, 0);
  ck_assert_int_eq(melu_dataset_read_users(data, long_path, NULL, &err), MELU_ENOTFOUND);
  ck_assert_msg(strncmp(err.message, "no-table.csv: cannot be opened", 30) == 0, "%s", err.message);
  snprintf(long_path, sizeof long_path, "%0120d", 7);
  snprintf(expected, sizeof expected, "%080d: cannot be opened", 0);
  ck_assert_int_eq(melu_dataset_read_users(data, long_path, NULL, &err), MELU_ENOTFOUND);
  ck_assert_msg(strncmp(err.message, expected, strlen(expected)) == 0, "%s", err.message);
  READ(USERS, U "2,,,,\n");
  ck_assert_int_eq(melu_dataset_freeze(data, &err), MELU_OK);
  for (int t = USERS; t <= RATINGS; t++) {
    ck_assert_int_eq(read_file((enum table)t, NULL), MELU_ESTATE);
    ck_assert_str_eq(err.message, "the data set is frozen");
  }
}
END_TEST

START_TEST(test_refused_options) {
  const char *const no_name[] = {"x", NULL}, *const needed[] = {"tags"};
  const struct {
    struct melu_table_options options;
    const char *message;
  } bad[] = {
      {{.size = sizeof bad[0].options, .separator = '"'}, "separator is no printable ASCII character"},
      {{.size = sizeof bad[0].options, .separator = '\x7f'}, "separator is no printable ASCII character"},
      {{.size = sizeof bad[0].options, .separator = '\n'}, "separator is no printable ASCII character"},
      {{.size = sizeof bad[0].options, .list_separator = '\r'}, "list_separator is no printable ASCII character"},
      {{.size = sizeof bad[0].options, .n_skip = 1}, "skip is NULL"},
      {{.size = sizeof bad[0].options, .skip = no_name, .n_skip = 2}, "skip[1] is NULL"},
      {{.size = sizeof bad[0].options, .skip = needed, .n_skip = 1}, "skip names the column \"tags\", which is needed"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    ck_assert_int_eq(read_text(USERS, U "1,,,,\n", &bad[i].options), MELU_EINVAL);
    ck_assert_str_eq(err.message, bad[i].message);
  }
  const struct melu_table_options no_size = {.size = 0}, tabs = {.size = sizeof tabs, .separator = '\t'};
  ck_assert_int_eq(read_text(USERS, U "1,,,,\n", &no_size), MELU_EINVAL);
  ck_assert_int_eq(read_text(USERS, "user\tgender\ttags\tage\tplace\n2\t\t\t\t\n", &tabs), MELU_OK);
  READ(USERS, U "1,,,,\n");
}
END_TEST

START_TEST(test_limits) {
  close_scene();
  open_scene(sizeof U + 10);
  ck_assert_int_eq(read_text(USERS, U "1234,,,,   \n", NULL), MELU_ELIMIT);
  ck_assert_ptr_nonnull(strstr(err.message, "table.csv: the file is larger than 38 bytes"));
  READ(USERS, U "1234,,a,,\n\n");
  /* No size tells that this one is too large. */
  ck_assert_int_eq(melu_dataset_read_users(data, "/dev/zero", NULL, &err), MELU_ELIMIT);
  ck_assert_int_eq(melu_dataset_read_users(data, "/dev/null", NULL, &err), MELU_EFORMAT);
  close_scene();
  open_scene(0);
  const size_t n = 70000;
  char *text = malloc(n);
  memset(text, ',', n - 1);
  text[n - 1] = '\0';
  ck_assert_int_eq(read_text(USERS, text, NULL), MELU_ELIMIT);
  ck_assert_uint_eq(err.line, 1);
  free(text);
}
END_TEST

/* As many fields as a schema can have, all of users, in a table from right to left. */
START_TEST(test_many_fields) {
  close_scene();
  open_scene(0);
  melu_dataset_free(data);
  melu_schema_free(schema);
  ck_assert_int_eq(melu_schema_new(&schema, ctx, &err), MELU_OK);
  char name[16], text[256 * 16], *p = text;
  for (int i = 0; i < 256; i++) {
    sprintf(name, "f%d", i);
    add_field(name, MELU_USER, MELU_NUMERIC, 0, 1);
  }
  ck_assert_int_eq(melu_dataset_new(&data, ctx, schema, &err), MELU_OK);
  for (int i = 255; i >= 0; i--) p += sprintf(p, "f%d,", i);
  p += sprintf(p, "user\n");
  for (int i = 255; i >= 0; i--) p += sprintf(p, "%d,", i);
  sprintf(p, "9\n");
  READ(USERS, text);
  struct melu_value values[256];
  ck_assert_int_eq(melu_dataset_user_values(values, data, 0, &err), MELU_OK);
  for (int i = 0; i < 256; i++) ck_assert(values[i].n_numbers == 1 && values[i].numbers[0] == (float)i);
}
END_TEST

/* A line of two megabytes, in one cell and in many. */
START_TEST(test_long_line) {
  const size_t n = (size_t)1 << 20;
  char *text = malloc(2 * n + 100), *p = text;
  p += sprintf(p, U "1,");
  memset(p, 'x', n);
  p += n;
  p += sprintf(p, ",a");
  for (size_t i = 1; i < n / 2; i++) p += sprintf(p, "|a");
  sprintf(p, ",");
  ck_assert_int_eq(read_text(USERS, text, NULL), MELU_EFORMAT);
  ck_assert_str_eq(strrchr(err.message, ':'), ": 4 cells, but the first line names 5 columns");
  strcat(p, ",\n");
  READ(USERS, text);
  struct melu_value values[4];
  ck_assert_int_eq(melu_dataset_user_values(values, data, 0, &err), MELU_OK);
  ck_assert_uint_eq(values[1].n_ids, n / 2);
  ck_assert_uint_eq(strlen(melu_schema_value_text(melu_dataset_schema(data), "gender", 0)), n);
  free(text);
}
END_TEST

START_TEST(test_interrupted) {
  write_bytes(GOOD_USERS, strlen(GOOD_USERS));
  n_interruptions = 3;
  ck_assert_int_eq(read_file(USERS, NULL), MELU_OK);
  ck_assert_int_eq(n_interruptions, 0);
}
END_TEST

/* ---------------------------------------------------------------------------------------- memory, progress, cancel */

START_TEST(test_memory) {
  static const char *const texts[] = {GOOD_USERS, GOOD_ITEMS, GOOD_RATINGS};
  char before[4096];
  for (int t = USERS; t <= RATINGS; t++) {
    dump(before, sizeof before);
    write_bytes(texts[t], strlen(texts[t]));
    size_t n_failed = 0;
    for (melu_status status = MELU_ENOMEM; status != MELU_OK; n_failed++) {
      host.n_allocs = 0;
      host.fail_at = n_failed + 1;
      status = read_file((enum table)t, NULL);
      const size_t reached = host.n_allocs;
      host.fail_at = 0;
      if (reached <= n_failed) {
        ck_assert_int_eq(status, MELU_OK);
        break;
      }
      ck_assert_int_eq(status, MELU_ENOMEM);
      ck_assert_int_eq(err.status, MELU_ENOMEM);
      assert_dump(before);
    }
    ck_assert_uint_ge(n_failed, 2);
  }
  assert_dump(good_dump);
}
END_TEST

START_TEST(test_progress) {
  const size_t n_lines = 120000;
  char *text = malloc(sizeof R + n_lines * 7), *p = text;
  READ(USERS, U "1,,,,\n");
  READ(ITEMS, I "10,,\n");
  ck_assert_uint_ge(host.n_calls, 2);
  ck_assert_str_eq(host.last.phase, "read");
  ck_assert_uint_eq(host.last.total, strlen(I "10,,\n"));
  p += sprintf(p, R);
  for (size_t i = 0; i < n_lines; i++) p += sprintf(p, "1,10,4\n");
  READ(RATINGS, text);
  const size_t n_calls = host.n_calls;
  ck_assert_uint_ge(n_calls, 5);
  ck_assert(!host.backwards && host.last.done == host.last.total && host.last.total == strlen(text));
  for (size_t stop = 1; stop <= n_calls; stop++) {
    host.stop_at = stop;
    ck_assert_int_eq(read_file(RATINGS, NULL), MELU_ECANCELED);
    ck_assert_uint_eq(host.n_calls, stop);
    ck_assert_uint_eq(melu_dataset_n_ratings(data), n_lines);
  }
  host.stop_at = 0;
  ck_assert_int_eq(read_file(RATINGS, NULL), MELU_OK);
  ck_assert_uint_eq(melu_dataset_n_ratings(data), 2 * n_lines);
  free(text);
}
END_TEST

/* ------------------------------------------------------------------------------------------------ by comparison */

static uint32_t random_state;

static uint32_t random_below(uint32_t n) {
  random_state = random_state * 1664525u + 1013904223u;
  return (random_state >> 8) % n;
}

/* A random text, missing one time in four, and the same as a cell, quoted where it must be and sometimes elsewhere. */
static void random_cell(char *text, char *cell) {
  static const char *const letters[] = {"a", "b", ",", "\"", "\n", "\r\n", " ", "\xc3\xa9", "|"};
  const uint32_t n = random_below(4) ? 1 + random_below(6) : 0;
  text[0] = '\0';
  for (uint32_t i = 0; i < n; i++) strcat(text, letters[random_below(i > 0 && i + 1 < n ? 9 : 8)]);
  /* An entry of a list may not be missing. */
  for (char *twice; (twice = strstr(text, "||")) != NULL;) *twice = 'x';
  if (strpbrk(text, ",\"\r\n") == NULL && random_below(3)) {
    strcpy(cell, text);
    return;
  }
  *cell++ = '"';
  for (const char *p = text; *p; p++) {
    if (*p == '"') *cell++ = '"';
    *cell++ = *p;
  }
  strcpy(cell, "\"");
}

START_TEST(test_random_tables) {
  enum { N = 40 };
  static char texts[N][2][64], file[N * 200 + 100];
  char cells[2][140], list[64];
  random_state = (uint32_t)_i + 1;
  const char *const eol = random_below(2) ? "\n" : "\r\n";
  char *p = file + sprintf(file, "age,tags,place,gender,user%s", eol);
  float ages[N];
  for (size_t i = 0; i < N; i++) {
    random_cell(texts[i][0], cells[0]);
    random_cell(texts[i][1], cells[1]);
    ages[i] = (float)random_below(1000) / 8;
    p += sprintf(p, "%.3f,%s,,%s,%zu%s", (double)ages[i], cells[1], cells[0], i + 1,
                 i + 1 == N && random_below(2) ? "" : eol);
  }
  READ(USERS, file);
  const melu_schema *s = melu_dataset_schema(data);
  ck_assert_uint_eq(melu_dataset_n_users(data), N);
  for (uint32_t i = 0; i < N; i++) {
    struct melu_value v[4];
    ck_assert_uint_eq(melu_dataset_user_id(data, i), i + 1);
    ck_assert_int_eq(melu_dataset_user_values(v, data, i, &err), MELU_OK);
    ck_assert(v[0].n_ids == (texts[i][0][0] != '\0') && v[2].n_numbers == 1 && v[2].numbers[0] == ages[i]);
    if (v[0].n_ids) ck_assert_str_eq(melu_schema_value_text(s, "gender", v[0].ids[0]), texts[i][0]);
    list[0] = '\0';
    for (size_t k = 0; k < v[1].n_ids; k++) {
      sprintf(list + strlen(list), "%s%s", k ? "|" : "", melu_schema_value_text(s, "tags", v[1].ids[k]));
    }
    ck_assert_str_eq(list, texts[i][1]);
  }
}
END_TEST

static struct melu__slice slice(const char *text) {
  return (struct melu__slice){text, strlen(text)};
}

/* The same bits as strtof, which rounds correctly. */
static void check_float(const char *text) {
  float seen;
  const float expected = strtof(text, NULL);
  const melu_status status = melu__parse_float(&seen, slice(text));
  ck_assert_msg(status == (isfinite(expected) ? MELU_OK : MELU_ERANGE), "%s: status %d", text, (int)status);
  if (status == MELU_OK) ck_assert_msg(memcmp(&seen, &expected, sizeof seen) == 0, "%s: %a", text, (double)seen);
}

START_TEST(test_floats) {
  static const char *const good[] = {
      "0",
      "-0",
      "+1",
      "3.",
      ".5",
      "-.5e1",
      "1e10",
      "1e-10",
      "9999999e10",
      "9999999e-10",
      "16777217",
      "16777217.0000001",
      "3.4028235e38",
      "3.4028236e38",
      "1e38",
      "1e39",
      "1.4e-45",
      "7.1e-46",
      "7.0e-46",
      "1e-60",
      "0e999999999999999999",
      "1e-999999999999999999999",
      "1e99999999999999999999",
      "000000000000000000000000000000000000000000000000000000001",
      "0.00000000000000000000000000000000000000000000000000000000000001e62",
      "1.17549429e-38",
      "8388608.5",
      "8388609.5",
      "1234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012"
      "34567890123456789e-110",
      "0.1",
      "1.000000059604644775390625",
      "1.00000005960464477539062500000000000000000000000000000000000000000000000000"
      "00000000000000000000000000000000000000000000000000000000000000000000000000000000001",
      "0."
      "000000000000000000000000000000000000011754943508222875079687365372222456778186655567720875215087517062784172594"
      "5471728284912109375000000000000000000000000000000000000000000"};
  static const char *const bad[] = {"",    "+",       "-",    ".",   "e5", "1e", "1e+", "1.2.3", "1,5",
                                    "0x1", "1e5.",    "1e5:", "--1", "1 ", " 1", "1f",  "1_000", "\xe2\x88\x92.5",
                                    "na",  "infinit", "nano", "+-1"};
  static const char *const not_finite[] = {"nan", "NaN", "-nan", "inf", "Infinity", "-INF", "+inf"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) check_float(good[i]);
  float unused;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    ck_assert_msg(melu__parse_float(&unused, slice(bad[i])) == MELU_EFORMAT, "%s", bad[i]);
  }
  for (size_t i = 0; i < sizeof not_finite / sizeof *not_finite; i++) {
    ck_assert_msg(melu__parse_float(&unused, slice(not_finite[i])) == MELU_ERANGE, "%s", not_finite[i]);
  }
  random_state = 5;
  for (int i = 0; i < 200000; i++) {
    char text[200];
    const uint32_t n_digits = 1 + random_below(i % 10 ? 10 : 150), point = random_below(n_digits + 1);
    size_t n = 0;
    if (random_below(2)) text[n++] = '-';
    for (uint32_t k = 0; k < n_digits; k++) {
      if (k == point) text[n++] = '.';
      text[n++] = (char)('0' + random_below(10));
    }
    text[n] = '\0';
    if (random_below(2)) sprintf(text + n, "%c%d", random_below(2) ? 'e' : 'E', (int)random_below(90) - 45);
    check_float(text);
  }
}
END_TEST

/* Where the decimal point is a comma, files are read as everywhere. */
START_TEST(test_locale) {
  float value;
  ck_assert(locale_go_to("de_DE"));
  ck_assert_str_eq(localeconv()->decimal_point, ",");
  ck_assert_int_eq(melu__parse_float(&value, slice("3.14159265358979")), MELU_OK);
  ck_assert_float_eq(value, 0x1.921fb6p+1f);
  ck_assert_int_eq(melu__parse_float(&value, slice("3,5")), MELU_EFORMAT);
  setlocale(LC_ALL, "C");
}
END_TEST

/* What has no beginning of a character is shown as nothing but that there was something. */
START_TEST(test_shown) {
  char bytes[100];
  memset(bytes, 0x80, sizeof bytes);
  ck_assert_str_eq(melu__show((struct melu__slice){bytes, sizeof bytes}).text, "...");
  ck_assert_str_eq(melu__show((struct melu__slice){"a\n\x7f", 3}).text, "a??");
}
END_TEST

START_TEST(test_whole_numbers) {
  static const struct {
    const char *text;
    uint64_t max, value;
    int ok;
  } cases[] = {
      {"0", 0, 0, 1},
      {"1", 0, 0, 0},
      {"007", 9, 7, 1},
      {"", 9, 0, 0},
      {"+1", 9, 0, 0},
      {"1 ", 9, 0, 0},
      {"9223372036854775807", INT64_MAX, INT64_MAX, 1},
      {"9223372036854775808", INT64_MAX, 0, 0},
      {"18446744073709551615", UINT64_MAX, UINT64_MAX, 1},
      {"18446744073709551616", UINT64_MAX, 0, 0},
      {"99999999999999999999999999", UINT64_MAX, 0, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    uint64_t value;
    ck_assert_int_eq(melu__parse_whole(&value, slice(cases[i].text), cases[i].max), cases[i].ok);
    if (cases[i].ok) ck_assert_uint_eq(value, cases[i].value);
  }
}
END_TEST

/* One byte more or less than what UTF-8 allows. */
START_TEST(test_utf8) {
  static const char *const good[] = {"\xc2\x80",     "\xdf\xbf",     "\xe0\xa0\x80",     "\xed\x9f\xbf",
                                     "\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"};
  static const char *const bad[] = {
      "\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
      "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xff",         "\xe2\x82x",        "\xf0\x9f\x98x"};
  char text[100];
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    sprintf(text, U "%zu,%s,,,\n", i, good[i]);
    READ(USERS, text);
    ck_assert_str_eq(melu_schema_value_text(melu_dataset_schema(data), "gender", (uint32_t)i), good[i]);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    sprintf(text, U "%zu,%s,,,", 100 + i, bad[i]);
    ck_assert_int_eq(read_text(USERS, text, NULL), MELU_EFORMAT);
    ck_assert_msg(strstr(err.message, "is not UTF-8") != NULL, "%zu: %s", i, err.message);
    ck_assert_uint_eq(err.line, 2);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("read");
  TCase *tables = tcase_create("tables");
  tcase_add_checked_fixture(tables, setup, teardown);
  tcase_add_test(tables, test_three_tables);
  tcase_add_loop_test(tables, test_spellings, 0, (int)(sizeof spellings / sizeof *spellings));
  tcase_add_test(tables, test_quotes);
  tcase_add_test(tables, test_options);
  tcase_add_test(tables, test_id_is_field);
  tcase_add_test(tables, test_more_files);
  tcase_add_loop_test(tables, test_refused, 0, (int)(sizeof refused / sizeof *refused));
  tcase_add_test(tables, test_refused_files);
  tcase_add_test(tables, test_refused_options);
  tcase_add_test(tables, test_limits);
  tcase_add_test(tables, test_many_fields);
  tcase_add_test(tables, test_long_line);
  tcase_add_test(tables, test_interrupted);
  tcase_add_test(tables, test_memory);
  tcase_add_test(tables, test_progress);
  tcase_add_loop_test(tables, test_random_tables, 0, 100);
  tcase_add_test(tables, test_utf8);
  TCase *numbers = tcase_create("numbers");
  tcase_add_test(numbers, test_floats);
  tcase_add_test(numbers, test_locale);
  tcase_add_test(numbers, test_shown);
  tcase_add_test(numbers, test_whole_numbers);
  tcase_set_timeout(tables, 60);
  tcase_set_timeout(numbers, 60);
  suite_add_tcase(suite, tables);
  suite_add_tcase(suite, numbers);
  return run_suite(suite);
}
