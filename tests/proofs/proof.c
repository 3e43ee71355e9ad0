/* SPDX-License-Identifier: BSD-3-Clause */
#include "proof.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int proof_number;

static void say(const char *verdict, const char *format, va_list arguments) {
  printf("proof %d: %s, ", proof_number, verdict);
  vprintf(format, arguments);
  printf("\n");
  fflush(stdout);
}

void proof_held(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say("held", format, arguments);
  va_end(arguments);
  exit(0);
}

void proof_broken(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say("broken", format, arguments);
  va_end(arguments);
  exit(1);
}

int proof_begin(int number, int argc, char **argv) {
  proof_number = number;
  const int full = argc == 2 && strcmp(argv[1], "--full") == 0;
  PROOF_NEEDS(argc == 1 || full, "usage: %s [--full]", argv[0]);
  return full;
}

int proof_notices(void (*run)(void *arg), void *arg) {
  int status;
  fflush(stdout);
  const pid_t child = fork();
  PROOF_NEEDS(child >= 0, "no second process");
  if (child == 0) {
    PROOF_NEEDS(freopen("/dev/null", "w", stdout), "no /dev/null");
    run(arg);
    _exit(0);
  }
  PROOF_NEEDS(waitpid(child, &status, 0) == child && WIFEXITED(status), "the second process was lost");
  return WEXITSTATUS(status) == 1;
}

/* FNV-1a (Fowler, Noll, Vo). */
uint64_t proof_digest(uint64_t before, const void *bytes, size_t n) {
  const unsigned char *at = bytes;
  uint64_t digest = before ? before : 0xcbf29ce484222325u;
  for (size_t i = 0; i < n; i++) digest = (digest ^ at[i]) * 0x100000001b3u;
  return digest;
}

uint64_t proof_model_digest(const melu_model *model) {
  melu_error err;
  unsigned char digest[MELU_DIGEST_BYTES];
  PROOF_TRY(melu_model_digest(digest, model, &err));
  return proof_digest(0, digest, sizeof digest);
}

uint64_t proof_gradient_digest(const melu_gradient *gradient, const melu_model *model) {
  melu_error err;
  uint64_t digest = 0;
  for (size_t i = 0; i < melu_model_n_params(model); i++) {
    struct melu_param p;
    PROOF_TRY(melu_model_param(&p, model, i, &err));
    float *values = malloc(p.rows * p.cols * sizeof *values);
    PROOF_NEEDS(values, "no memory");
    PROOF_TRY(melu_gradient_read(values, gradient, p.name, &err));
    digest = proof_digest(digest, values, p.rows * p.cols * sizeof *values);
    free(values);
  }
  return digest;
}

/* ----------------------------------------------------------------------------------------------------- bytes */

struct proof_bytes proof_copy(const void *bytes, size_t n) {
  const struct proof_bytes copy = {malloc(n ? n : 1), n};
  PROOF_NEEDS(copy.at, "no memory");
  if (n) memcpy(copy.at, bytes, n);
  return copy;
}

struct proof_bytes proof_read_file(const char *path) {
  FILE *file = fopen(path, "rb");
  PROOF_NEEDS(file && fseek(file, 0, SEEK_END) == 0, "cannot read %s", path);
  const long end = ftell(file);
  PROOF_NEEDS(end >= 0, "cannot read %s", path);
  rewind(file);
  const struct proof_bytes b = {malloc((size_t)end + 1), (size_t)end};
  PROOF_NEEDS(b.at && fread(b.at, 1, b.n, file) == b.n, "cannot read %s", path);
  fclose(file);
  return b;
}

void proof_write_file(const char *path, const void *bytes, size_t n) {
  unlink(path); /* some file systems force to the disk what replaces a file that was cut */
  FILE *file = fopen(path, "wb");
  PROOF_NEEDS(file && fwrite(bytes, 1, n, file) == n, "cannot write %s", path);
  PROOF_NEEDS(fclose(file) == 0, "cannot write %s", path);
}

struct proof_bytes scene_model_bytes(const struct scene *s) {
  melu_error err;
  const char *path = scene_path(s, "model");
  PROOF_TRY(melu_model_save(s->model, path, &err));
  const struct proof_bytes b = proof_read_file(path);
  unlink(path);
  return b;
}

struct proof_bytes proof_user_bytes(melu_workspace *ws, const melu_user *user, melu_user_form form) {
  melu_error err;
  struct proof_bytes b = {NULL, 0};
  PROOF_TRY(melu_user_save(NULL, &b.n, ws, user, form, &err));
  b.at = malloc(b.n);
  PROOF_NEEDS(b.at, "no memory");
  PROOF_TRY(melu_user_save(b.at, &b.n, ws, user, form, &err));
  return b;
}

struct proof_bytes scene_user_bytes(const struct scene *s, melu_user_form form) {
  return proof_user_bytes(s->ws, s->user, form);
}

/* ----------------------------------------------------------------------------------------------------- world */

const char *const scene_table_names[] = {"items.csv", "users.csv", "ratings.csv"};
const char *const scene_setting_names[] = {"layers", "factors", "melu", "best"};

static const size_t layers[2] = {4, 3}, encoder[1] = {4};
static const struct melu_model_options settings[SCENE_SETTINGS] = {
    {.size = sizeof *settings, .seed = 3, .hidden = layers, .n_hidden = 2},
    {.size = sizeof *settings, .seed = 3, .preset = "best", .hidden = encoder, .n_hidden = 1, .rank = 3},
    {.size = sizeof *settings, .seed = 3, .preset = "melu"},
    {.size = sizeof *settings, .seed = 3, .preset = "best"},
};

const char *scene_path(const struct scene *s, const char *name) {
  static char path[192];
  snprintf(path, sizeof path, "%s/%s", s->folder, name);
  return path;
}

static FILE *open_table(const struct scene *s, enum scene_table table) {
  FILE *file = fopen(scene_path(s, scene_table_names[table]), "w");
  PROOF_NEEDS(file, "cannot write in %s", s->folder);
  return file;
}

static void write_tables(const struct scene *s) {
  static const char *const tags[] = {"red", "\"a \"\"quote\"\"\"", "caf\xc3\xa9", "red|back\\slash|blue", "NA"};
  static const char *const likes[] = {"0", "1|4|4", ""};
  FILE *file = open_table(s, SCENE_TABLE_ITEMS);
  fputs("item,self,tags,sizes\n", file);
  for (int i = 0; i < SCENE_ITEMS; i++) fprintf(file, "%d,%d,%s,%d.5|%d\n", 100 + i, i, tags[i % 5], i % 8, i % 3 - 1);
  fclose(file);
  file = open_table(s, SCENE_TABLE_USERS);
  fputs("user,job,likes,age\n", file);
  for (int u = 0; u < SCENE_USERS; u++) fprintf(file, "%d,%d,%s,%d\n", u, u % 4, likes[u % 3], 20 + u);
  fclose(file);
  file = open_table(s, SCENE_TABLE_RATINGS);
  fputs("user,item,rating\n", file);
  for (int r = 0; r < 3 * SCENE_USERS; r++)
    fprintf(file, "%d,%d,%d\n", r % SCENE_USERS, 100 + r * 7 % SCENE_ITEMS, 1 + r * 3 % 5);
  fclose(file);
}

melu_status scene_read(melu_dataset *data, enum scene_table table, const char *path, melu_error *err) {
  static melu_status (*const readers[])(melu_dataset *, const char *, const struct melu_table_options *,
                                        melu_error *) = {melu_dataset_read_items, melu_dataset_read_users,
                                                         melu_dataset_read_ratings};
  return readers[table](data, path, NULL, err);
}

static void make_data(struct scene *s) {
  melu_error err;
  const struct melu_field fields[] = {
      {.size = sizeof *fields, .name = "self", .owner = MELU_ITEM, .n_values = SCENE_ITEMS, .width = 3},
      {.size = sizeof *fields, .name = "tags", .owner = MELU_ITEM, .kind = MELU_MANY, .width = 2},
      {.size = sizeof *fields, .name = "sizes", .owner = MELU_ITEM, .kind = MELU_NUMERIC, .width = 2},
      {.size = sizeof *fields, .name = "job", .owner = MELU_USER, .n_values = 4, .width = 2},
      {.size = sizeof *fields, .name = "likes", .owner = MELU_USER, .kind = MELU_MANY, .n_values = 6, .width = 2},
      {.size = sizeof *fields, .name = "age", .owner = MELU_USER, .kind = MELU_NUMERIC, .shift = 30, .scale = 0.1}};
  PROOF_TRY(melu_schema_new(&s->schema, s->ctx, &err));
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) PROOF_TRY(melu_schema_add(s->schema, &fields[i], &err));
  PROOF_TRY(melu_dataset_new(&s->data, s->ctx, s->schema, &err));
  for (int t = 0; t < SCENE_TABLES; t++)
    PROOF_TRY(scene_read(s->data, (enum scene_table)t, scene_path(s, scene_table_names[t]), &err));
  PROOF_TRY(melu_dataset_freeze(s->data, &err));
}

/* A profile with all kinds of fields, and a rating for each of the first items. */
static void make_user(struct scene *s) {
  melu_error err;
  static const uint32_t job = 2, likes[3] = {1, 4, 4};
  static const float age = 41;
  const struct melu_value profile[3] = {
      {.ids = &job, .n_ids = 1}, {.ids = likes, .n_ids = 3}, {.numbers = &age, .n_numbers = 1}};
  uint32_t items[SCENE_RATED];
  float ratings[SCENE_RATED];
  for (uint32_t i = 0; i < SCENE_RATED; i++) {
    items[i] = i;
    ratings[i] = (float)(1 + i % 5);
  }
  PROOF_TRY(melu_user_new(&s->user, s->model, &err));
  PROOF_TRY(melu_adapt(s->user, s->ws, s->model, s->data, profile, items, ratings, SCENE_RATED, &err));
}

void scene_open(struct scene *s, int setting, const struct melu_allocator *allocator) {
  melu_error err;
  const struct melu_context_options options = {.size = sizeof options, .allocator = allocator};
  const struct melu_fit_options fit = {.size = sizeof fit, .n_epochs = 1, .n_query = 1, .min_ratings = 2};
  const char *parent = getenv("TMPDIR");
  *s = (struct scene){.ctx = NULL};
  snprintf(s->folder, sizeof s->folder, "%.100s/melu-proof-XXXXXX", parent ? parent : "/tmp");
  PROOF_NEEDS(mkdtemp(s->folder), "cannot make %s", s->folder);
  write_tables(s);
  PROOF_TRY(melu_context_new(&s->ctx, &options, &err));
  make_data(s);
  PROOF_TRY(melu_model_new(&s->model, s->ctx, melu_dataset_schema(s->data), &settings[setting], &err));
  PROOF_TRY(melu_fit(s->model, s->data, &fit, &err));
  PROOF_TRY(melu_workspace_new(&s->ws, s->model, SCENE_MOST, &err));
  make_user(s);
}

void scene_close(struct scene *s) {
  for (int t = 0; t < SCENE_TABLES; t++) unlink(scene_path(s, scene_table_names[t]));
  rmdir(s->folder);
  melu_user_free(s->user);
  melu_workspace_free(s->ws);
  melu_model_free(s->model);
  melu_dataset_free(s->data);
  melu_schema_free(s->schema);
  melu_context_free(s->ctx);
}
