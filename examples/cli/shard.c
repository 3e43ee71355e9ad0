/* SPDX-License-Identifier: BSD-3-Clause */
/* melu shard: tables of which the ratings may be larger than memory, as a folder to train from. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "infer.h"
#include "output.h"

enum { PRESET_BEST = 0, BYTES_OF_RATING = 12, RATINGS_OF_FILE = 400000, FEWEST_FILES = 16, MOST_FILES = 65536 };
static const char *const presets[] = {"best", "melu"};
static melu_error err;

struct choices {
  struct files files;
  struct overrides overrides;
  const char *out, *preset;
  uint64_t n_files, json;
};

static void read_choices(struct choices *c, struct usage *usage, int argc, char **argv) {
  static struct option_list list;
  *c = (struct choices){.preset = presets[PRESET_BEST]};
  add_file_options(&list, &c->files, "table of ratings: user, item, rating; read once, so a pipe will do",
                   "table of the users; without it nothing is known of them but ratings");
  const struct option options[] = {
      {"--out", "DIR", "write the files there; it is made, or has no data set yet", NULL, 0, 0, &c->out},
      {"--preset", "NAME", "for which preset of train: best, where the item's id is a field, or melu", NULL, 0, 0,
       &c->preset},
      {"--field", "NAME=KIND[:WIDTH]", "a column is one, many, numeric or skip; may be repeated", NULL, 0,
       MAX_OVERRIDES, c->overrides.texts},
      {"--files", "N", "so many files; 0: by the size of the ratings", &c->n_files, 0, MOST_FILES, NULL},
      {"--json", NULL, "print the summary as JSON", &c->json, 0, 0, NULL},
  };
  add_options(&list, options, sizeof options / sizeof options[0]);
  read_options(usage, "melu shard",
               "Sorts ratings by user into a folder of files, which train --shards reads one after the other: neither\n"
               "needs memory for all ratings. Items and users must fit. What a column is, is found out as by train.",
               &list, argc, argv);
  c->overrides.usage = usage;
  const struct needed needed[] = {{"--items", c->files.items, "items.csv"},
                                  {"--ratings", c->files.ratings, "ratings.csv"},
                                  {"--out", c->out, "shards"}};
  need_options(usage, needed, sizeof needed / sizeof needed[0]);
}

/* ------------------------------------------------------------------------------------------------ the folder */

/* What goes if the program ends before all is written. */
static struct {
  melu_shard_writer *writer;
  const char *folder; /* NULL: it was there before */
} unfinished;

static void remove_unfinished(void) {
  melu_shard_writer_free(unfinished.writer);
  if (unfinished.folder) rmdir(unfinished.folder);
}

static void make_folder(const char *path) {
  struct stat info;
  if (mkdir(path, 0777) == 0) {
    unfinished.folder = path;
  } else if (errno != EEXIST || stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) {
    give_up("%s: %s", path, strerror(errno));
  }
}

/* A power of two, so that it has many divisors: as many slots there can be. */
static size_t choose_files(uint64_t n_bytes) {
  size_t n = FEWEST_FILES;
  while (n < MOST_FILES && n_bytes / BYTES_OF_RATING / n > RATINGS_OF_FILE) n *= 2;
  return n;
}

/* ----------------------------------------------------------------------------------------------- the ratings */

static void add_ratings(melu_shard_writer *writer, const struct data *data, const struct files *files,
                        uint64_t n_bytes) {
  struct rating_rows rows;
  struct rating_row row;
  uint64_t shown = 0;
  rating_rows_open(&rows, files, data->set, 1);
  while (rating_rows_next(&row, &rows)) {
    check(melu_shard_writer_add_rating(writer, row.user_id, row.item_id, row.rating, &err), &err);
    if (rows.table.n_read == shown) continue;
    shown = rows.table.n_read;
    const struct melu_progress progress = {.phase = "read", .done = shown, .total = n_bytes};
    show_progress(NULL, &progress);
  }
  rating_rows_free(&rows);
}

static void print_summary(const struct choices *c, const struct field_plan plans[2], const melu_shards *shards) {
  struct melu_shards_info info = {.size = sizeof info};
  const melu_schema *schema = melu_dataset_schema(melu_shards_items(shards));
  json_t *items = plan_json(&plans[MELU_ITEM], schema), *users = plan_json(&plans[MELU_USER], schema);
  check(melu_shards_describe(&info, shards, &err), &err);
  if (c->json) {
    print_json(json_pack("{s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:o, s:o}", "shards", c->out, "files",
                         (json_int_t)info.n_files, "users", (json_int_t)info.n_users, "items", (json_int_t)info.n_items,
                         "ratings", (json_int_t)info.n_ratings, "rating_min", (double)info.rating_min, "rating_max",
                         (double)info.rating_max, "item_columns", items, "user_columns", users));
    return;
  }
  print_columns(items, c->files.items);
  if (c->files.users) print_columns(users, c->files.users);
  print_ratings(c->out, &info, (double)info.rating_min, (double)info.rating_max);
  json_decref(items);
  json_decref(users);
}

static void write_shards(const melu_context *ctx, const struct choices *c, const struct data *data) {
  struct stat info;
  const uint64_t n_bytes =
      stat(c->files.ratings, &info) == 0 && S_ISREG(info.st_mode) ? (uint64_t)info.st_size : 0; /* 0: not known */
  const struct melu_shard_options options = {.size = sizeof options,
                                             .n_files = c->n_files ? (size_t)c->n_files : choose_files(n_bytes),
                                             .users_from_ratings = !c->files.users};
  atexit(remove_unfinished);
  make_folder(c->out);
  const melu_status status = melu_shard_writer_new(&unfinished.writer, ctx, c->out, data->set, &options, &err);
  if (status == MELU_ESTATE) bad_data("%s: there is a data set already", c->out);
  check(status, &err);
  add_ratings(unfinished.writer, data, &c->files, n_bytes);
  check(melu_shard_writer_finish(unfinished.writer, &err), &err);
  melu_shard_writer_free(unfinished.writer);
  unfinished.writer = NULL;
  unfinished.folder = NULL;
}

int cmd_shard(int argc, char **argv) {
  struct choices c;
  struct usage usage;
  struct field_plan plans[2] = {{0}};
  melu_shards *shards;
  struct data data;
  read_choices(&c, &usage, argc, argv);
  const size_t preset = choice_option(&usage, "--preset", c.preset, presets, sizeof presets / sizeof presets[0]);
  melu_context *ctx = new_context(1, show_progress);
  melu_schema *schema = infer_schema(plans, ctx, &c.files, preset == PRESET_BEST, &c.overrides);
  data_open_entities(&data, ctx, schema, &c.files);
  write_shards(ctx, &c, &data);
  check(melu_shards_open(&shards, ctx, c.out, &err), &err);
  print_summary(&c, plans, shards);
  melu_shards_free(shards);
  data_free(&data);
  melu_schema_free(schema);
  field_plan_free(&plans[MELU_ITEM]);
  field_plan_free(&plans[MELU_USER]);
  melu_context_free(ctx);
  return 0;
}
