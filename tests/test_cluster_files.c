/* SPDX-License-Identifier: BSD-3-Clause */
/* What several ranks write together: models, tables of which are sharded, and checkpoints in parts, which any number of
 * ranks goes on from; files that somebody altered; and messages that are longer than one may be. */
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/context.h"
#include "cluster.h"
#include "file_edit.h"
#include "json_memory.h"
#include "meta/exchange.h"
#include "meta/manifest.h"
#include "run_suite.h"

enum { N_RANKS = 3, N_SLOTS = 6, N_USERS = 30, MOST_PARTS = 6 };

static melu_error err;
static char folder[64], path[96], home[512];

static void setup(void) {
  snprintf(folder, sizeof folder, "/tmp/melu-cluster-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/training", folder);
  ck_assert_ptr_nonnull(getcwd(home, sizeof home));
  ck_assert_int_eq(chdir(folder), 0);
}

static const struct melu_optimizer_options adam = {.size = sizeof adam, .lr = 0.01},
                                           sgd = {.size = sizeof sgd, .kind = MELU_SGD, .lr = 0.01};

/* Three epochs of updates. */
static struct cluster_job job_of(int is_factors, size_t shard_bytes) {
  const struct melu_model_options layers = {PEOPLE_LAYERS}, factors = {PEOPLE_FACTORS};
  return (struct cluster_job){.model = is_factors ? factors : layers,
                              .n_users = N_USERS,
                              .n_slots = N_SLOTS,
                              .shard_bytes = shard_bytes,
                              .fit = {.size = sizeof(struct melu_fit_options),
                                      .n_epochs = 3,
                                      .batch_tasks = 8,
                                      .n_query = 3,
                                      .min_ratings = 5,
                                      .max_ratings = MELU_NONE,
                                      .validation = 0.2,
                                      .seed = 11,
                                      .optimizer = &adam}};
}

static void remove_checkpoint(void) {
  const struct cluster_job job = job_of(0, 1);
  cluster_parts(&job, path, 1);
  unlink(path);
}

static void teardown(void) {
  remove_checkpoint();
  ck_assert_int_eq(chdir(home), 0);
  ck_assert_msg(rmdir(folder) == 0, "something was left in %s", folder);
}

static void expect_all(const struct cluster_job *job, size_t n_ranks, melu_status status, const char *words) {
  cluster_expect(job, n_ranks, status, words, 0);
}

/* --------------------------------------------------------------------------------------------------- models */

static void expect_elsewhere(melu_status status) {
  ck_assert_msg(status == MELU_ESTATE && strstr(err.message, "sharded"), "%s: %s", melu_status_name(status),
                err.message);
}

/* All that takes a whole model, on a rank that has a part of one. */
static void refuse_part_of_a_model(struct cluster_rank *rank) {
  const struct people *p = &rank->people;
  const struct melu_choose_options choose = {.size = sizeof choose};
  const struct melu_fit_options fit = {.size = sizeof fit};
  struct melu_metrics metrics;
  melu_gradient *gradient;
  melu_optimizer *optimizer;
  melu_workspace *ws;
  melu_user *user;
  melu_catalog *catalog;
  uint32_t items[2];
  double scores[2];
  float values[4];
  size_t n = 2;
  expect_elsewhere(melu_gradient_new(&gradient, p->model, &err));
  expect_elsewhere(melu_optimizer_new(&optimizer, p->model, NULL, &err));
  expect_elsewhere(melu_workspace_new(&ws, p->model, 5, &err));
  expect_elsewhere(melu_user_new(&user, p->model, &err));
  expect_elsewhere(melu_catalog_new(&catalog, p->model, p->data, NULL, 0, &err));
  expect_elsewhere(melu_evaluate(&metrics, p->model, p->data, NULL, &err));
  expect_elsewhere(melu_candidates(items, scores, &n, p->model, p->data, NULL, &err));
  expect_elsewhere(melu_model_import(p->model, path, &err));
  expect_elsewhere(melu_model_read(values, p->model, "E.self", 0, 1, &err));
  expect_elsewhere(melu_model_write(p->model, "E.self", 0, 1, values, &err));
  ck_assert_int_eq(melu_choose(&n, scores, p->ctx, p->data, &rank->job->model, &fit, 1, &choose, &err), MELU_ESTATE);
}

/* Writes the model where there is no folder, then where there is one; reads it again. */
static void save_and_load(struct cluster_rank *rank) {
  unsigned char digest[MELU_DIGEST_BYTES];
  melu_model *again;
  melu_error e;
  struct people *p = &rank->people;
  if (rank->gang->rank == 0) refuse_part_of_a_model(rank);
  ck_assert_int_eq(melu_model_save(p->model, "nowhere/model", NULL), MELU_EIO);
  ck_assert_int_eq(melu_model_save(p->model, "nowhere/model", &e), MELU_EIO);
  ck_assert_msg(strstr(e.message, "rank 0: ") && strstr(e.message, "nowhere/model"), "%s", e.message);
  WORLD_TRY(melu_model_save(p->model, path, &err));
  WORLD_TRY(melu_model_load(&again, p->ctx, path, &err));
  WORLD_TRY(melu_model_digest(digest, again, NULL));
  ck_assert_mem_eq(digest, rank->result.digest, sizeof digest);
  melu_model_free(again);
}

/* The file is the same whoever wrote it, and a rank by itself has the model. */
START_TEST(models_of_ranks_are_files) {
  static const size_t ranks[] = {3, 2, 6};
  struct cluster_job job = job_of(_i, 1);
  struct edited first = {.n = 0};
  unsigned char digest[MELU_DIGEST_BYTES];
  job.fit.n_epochs = 1;
  for (size_t i = 0; i < 3; i++) {
    melu_context *ctx;
    melu_model *model;
    job.after = save_and_load;
    job.shard_bytes = i == 2 ? 1500 : 1;
    const struct cluster_result result = cluster_result_of(&job, ranks[i]);
    ck_assert_msg(result.status == MELU_OK, "%s", result.message);
    WORLD_TRY(melu_context_new(&ctx, NULL, &err));
    WORLD_TRY(melu_model_load(&model, ctx, path, &err));
    WORLD_TRY(melu_model_digest(digest, model, &err));
    ck_assert_mem_eq(digest, result.digest, sizeof digest);
    melu_model_free(model);
    melu_context_free(ctx);
    struct edited now = edit_begin(path);
    if (i) ck_assert(now.n == first.n && memcmp(now.bytes, first.bytes, now.n) == 0);
    if (i) free(now.bytes);
    if (!i) first = now;
  }
  free(first.bytes);
}
END_TEST

/* What is wrong with a file of a model that ranks read piece by piece. */
static void flip_a_byte(const char *file) {
  struct edited e = edit_begin(file);
  FILE *f = fopen(file, "r+b");
  ck_assert(f && fseek(f, (long)e.n - 5, SEEK_SET) == 0 && fputc(e.bytes[e.n - 5] ^ 1, f) != EOF && fclose(f) == 0);
  free(e.bytes);
}

static void cut(const char *file) {
  struct stat info;
  ck_assert(stat(file, &info) == 0 && truncate(file, info.st_size - 4) == 0);
}

static void put_nan_into_table(const char *file) {
  unsigned char bits[4];
  put_bits(bits, NAN_BITS);
  edit_tensor(file, "E.self", 4 * 4 * 7, bits, sizeof bits);
}

static void put_nan_into_layer(const char *file) {
  unsigned char bits[4];
  put_bits(bits, NAN_BITS);
  edit_tensor(file, "W1", 0, bits, sizeof bits);
}

static void rename_tensor(const char *file) {
  edit_header(file, "\"W1\"", "\"X1\"");
}

static const struct {
  void (*spoil)(const char *file);
  melu_status status;
  const char *message;
} spoilt[] = {{flip_a_byte, MELU_ECORRUPT, "checksum"},
              {cut, MELU_EFORMAT, "training: "},
              {put_nan_into_table, MELU_ERANGE, "tensor \"E.self\": a number from row 0 on is not finite"},
              {put_nan_into_layer, MELU_ERANGE, "tensor \"W1\": a number from row 0 on is not finite"},
              {rename_tensor, MELU_EFORMAT, "tensor \"W1\" is missing"}};
enum { N_SPOILT = sizeof spoilt / sizeof *spoilt };

static void refuse_spoilt(struct cluster_rank *rank) {
  melu_model *model = rank->people.model;
  melu_error e;
  const melu_status status = melu_model_load(&model, rank->people.ctx, path, &e);
  ck_assert_msg(
      status == spoilt[*(int *)rank->job->arg].status && strstr(e.message, spoilt[*(int *)rank->job->arg].message),
      "%s: %s", melu_status_name(status), e.message);
  ck_assert_ptr_null(model);
}

static void save_alone(struct cluster_rank *rank) {
  WORLD_TRY(melu_model_save(rank->people.model, path, &err));
}

START_TEST(spoilt_models_are_refused) {
  struct cluster_job job = job_of(0, 1);
  job.fit.n_epochs = 1;
  job.after = save_alone;
  ck_assert_int_eq(cluster_result_of(&job, 0).status, MELU_OK);
  spoilt[_i].spoil(path);
  job.after = refuse_spoilt;
  job.arg = &_i;
  cluster_run(&job, 2);
}
END_TEST

/* ---------------------------------------------------------------------------------------------- checkpoints */

static const struct resuming {
  size_t n_ranks, shard_bytes; /* 0 ranks: one without a group */
} resuming[] = {{1, 1}, {2, 1}, {4, 1}, {6, 1}, {3, MELU_NONE}, {2, 1500}, {0, 1}};

/* Stopped by some ranks, gone on with by others: as if it had never stopped. What they leave is one checkpoint. */
START_TEST(any_number_of_ranks_goes_on) {
  static const struct melu_optimizer_options *const optimizers[] = {&adam, &sgd};
  struct cluster_job job = job_of(_i % 2, _i % 3 ? MELU_NONE : 1);
  job.fit.optimizer = optimizers[_i / 2 % 2];
  const struct cluster_result expected = cluster_result_of(&job, 0);
  ck_assert_msg(expected.status == MELU_OK, "%s", expected.message);
  for (size_t i = 0; i < sizeof resuming / sizeof *resuming; i++) {
    struct cluster_job rest = job;
    rest.fit.checkpoint = i % 2 ? path : "training";
    struct cluster_job stopped = rest;
    stopped.stop_at = 1 + i % 4;
    stopped.fit.checkpoint_updates = i % 3;
    const size_t n_stopped = i % 2 ? N_RANKS : N_SLOTS; /* the latter: one has no row of a table */
    ck_assert_int_eq(cluster_result_of(&stopped, n_stopped).status, MELU_ECANCELED);
    ck_assert_uint_eq(cluster_parts(&job, path, 0), n_stopped);
    rest.fit.resume = 1;
    rest.shard_bytes = resuming[i].shard_bytes;
    const struct cluster_result ended = cluster_result_of(&rest, resuming[i].n_ranks);
    ck_assert_msg(ended.status == MELU_OK, "by %zu ranks: %s", resuming[i].n_ranks, ended.message);
    ck_assert_msg(memcmp(ended.digest, expected.digest, sizeof ended.digest) == 0, "by %zu ranks: other weights",
                  resuming[i].n_ranks);
    ck_assert_uint_eq(cluster_parts(&job, path, 0), resuming[i].n_ranks > 1 ? resuming[i].n_ranks : 0);
    remove_checkpoint();
  }
}
END_TEST

/* A checkpoint of two ranks; resume it as two. */
static struct cluster_job stopped_job(void) {
  struct cluster_job job = job_of(0, 1);
  job.fit.checkpoint = path;
  job.stop_at = 2;
  ck_assert_int_eq(cluster_result_of(&job, 2).status, MELU_ECANCELED);
  job.stop_at = 0;
  job.fit.resume = 1;
  return job;
}

static char part_name[2][64]; /* of the checkpoint's parts */

/* Finds the parts, and what the manifest says of them, between its quotation marks. */
static char *parts_text(char *text, size_t room) {
  static const char key[] = "\"parts\":\"";
  struct edited e = edit_begin(path);
  const char *begin = (const char *)edit_find(&e, key) + sizeof key - 1, *end = begin;
  while (*end != '"' || end[-1] == '\\') end++;
  ck_assert_uint_lt((size_t)(end - begin), room);
  snprintf(text, room, "%.*s", (int)(end - begin), begin);
  free(e.bytes);
  const char *first = strstr(text, "training."), *second = first ? strstr(first + 1, "training.") : NULL;
  if (!second) return text;
  snprintf(part_name[0], sizeof part_name[0], "%.*s", (int)strcspn(first, "\\"), first);
  snprintf(part_name[1], sizeof part_name[1], "%.*s", (int)strcspn(second, "\\"), second);
  return text;
}

/* Puts other text there; ' stands for a quotation mark. */
static void put_parts(const char *text) {
  char before[1024], after[1024];
  size_t n = 0;
  for (; *text && n + 2 < sizeof after; text++) {
    if (*text == '\'') after[n++] = '\\';
    after[n++] = *text == '\'' ? '"' : *text;
  }
  after[n] = 0;
  edit_header(path, parts_text(before, sizeof before), after);
}

/* What all ranks make of it; their models stay what they were. */
static void expect_refused(struct cluster_job job, melu_status status, const char *message) {
  struct cluster_job none = job;
  none.fit.n_query = 0;
  none.fit.batch_tasks = 0;
  cluster_run(&job, 2);
  expect_all(&job, 2, status, message);
  none.fit.checkpoint = "nowhere/training"; /* refused before anything is read */
  cluster_run(&none, 2);
  ck_assert_int_ne(none.results[0].status, MELU_OK);
  ck_assert_mem_eq(job.results[0].digest, none.results[0].digest, MELU_DIGEST_BYTES);
}

#define GOOD "'0123456789abcdef'"
static const char *const no_parts[] = {
    "",
    "7",
    "[]",
    "[7]",
    "[['a',0,6,9," GOOD "]",
    "[['a',0,6,9," GOOD "]]]",
    "[['a',0,6,9," GOOD "]",
    "[['a',0,6,9," GOOD ",0]]",
    "[[0,0,6,9," GOOD "]]",
    "[['',0,6,9," GOOD "]]",
    "[['a' 0,6,9," GOOD "]]",
    "[['a','0',6,9," GOOD "]]",
    "[['a',0 6,9," GOOD "]]",
    "[['a',0,-6,9," GOOD "]]",
    "[['a',0,6 9," GOOD "]]",
    "[['a',0,6,'9'," GOOD "]]",
    "[['a',0,6,9 " GOOD "]]",
    "[['a',0,6,9,7]]",
    "[['a',0,6,9,'0123456789abcde']]",
    "[['a',0,6,9,'0123456789abcdeF']]",
    "[['../a',0,6,9," GOOD "]]",
    "[['.',0,6,9," GOOD "]]",
    "[['..',0,6,9," GOOD "]]",
    "[['a',0,0,9," GOOD "]]",
    "[['a',0,65536,9," GOOD "]]",
    "[['a',1,6,9," GOOD "]]",
    "[['a',0,3,9," GOOD "],['b',2,6,9," GOOD "]]",
    "[['a',0,3,9," GOOD "],['b',4,6,9," GOOD "]]",
};

START_TEST(manifests_that_are_none) {
  const struct cluster_job job = stopped_job();
  char text[1024];
  parts_text(text, sizeof text);
  put_parts(no_parts[_i]);
  expect_refused(job, MELU_EFORMAT, "training: not a sound manifest: its parts are not a list of files");
}
END_TEST

/* As in put_parts, but for the name: of so many letters. */
static void put_long_name(size_t n) {
  char text[400] = "[['";
  memset(text + 3, 'a', n);
  snprintf(text + 3 + n, sizeof text - 3 - n, "',0,6,9,%s]]", GOOD);
  put_parts(text);
}

static void add_tensor(void) {
  edit_header(path, "}}", "},\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}");
  struct edited e = edit_begin(path);
  e.n += 4;
  edit_end(&e, path);
}

/* And leaves the checksum as it was. */
static void alter_header(const char *from, const char *to) {
  struct edited e = edit_begin(path);
  const long at = (long)(edit_find(&e, from) - e.bytes);
  FILE *file = fopen(path, "r+b");
  ck_assert(file && fseek(file, at, SEEK_SET) == 0 && fputs(to, file) >= 0 && fclose(file) == 0);
  free(e.bytes);
}

START_TEST(manifests_of_something_else) {
  const struct cluster_job job = stopped_job();
  put_parts("[['a',0,5,9," GOOD "]]");
  expect_refused(job, MELU_EINVAL, "training: n_slots was 5 and is 6 now");
  put_long_name(255);
  expect_refused(job, MELU_ENOTFOUND, "cannot open");
  put_long_name(256);
  expect_refused(job, MELU_EFORMAT, "training: not a sound manifest");
  edit_header(path, "\"format_version\":\"1\"", "\"format_version\":\"2\"");
  expect_refused(job, MELU_EVERSION, "training: ");
  edit_header(path, "\"format_version\":\"2\"", "\"format_version\":\"1\"");
  put_parts("[['a',0,6,8," GOOD "]]");
  alter_header("0,6,8", "0,6,9");
  expect_refused(job, MELU_ECORRUPT, "training: ");
  put_parts("[]");
  edit_header(path, "\"parts\"", "\"party\"");
  expect_refused(job, MELU_EFORMAT, "training: not a sound manifest");
  edit_header(path, "\"party\"", "\"parts\"");
  put_parts("[['a',0,6,9," GOOD "]]");
  add_tensor();
  expect_refused(job, MELU_EFORMAT, "training: not a sound manifest");
}
END_TEST

static void put_checksum(const char *part) {
  char before[1024], after[1024], checksum[17];
  struct edited e = edit_begin(part);
  snprintf(checksum, sizeof checksum, "%.16s", (const char *)edit_find(&e, "\"melu.checksum\":\"") + 17);
  free(e.bytes);
  parts_text(before, sizeof before);
  strcpy(after, before);
  char *last = strstr(after, part);
  memcpy(strstr(last, "\\\"]") - 16, checksum, 16);
  edit_header(path, before, after);
}

static char said_then[1024], said_now[1024]; /* of the parts */

/* Says that the last part has one digit more of bytes. */
static void put_length_of_part(void) {
  char *at = said_now;
  parts_text(said_then, sizeof said_then);
  strcpy(said_now, said_then);
  for (char *comma = said_now; (comma = strstr(comma, ",\\\"")) != NULL; comma++) at = comma;
  memmove(at + 1, at, strlen(at) + 1);
  *at = '0';
  edit_header(path, said_then, said_now);
}

/* Each of two ranks has the part of the other; one of them is not what the manifest says. */
START_TEST(parts_of_something_else) {
  unsigned char bits[4];
  char said[1024];
  struct cluster_job job = stopped_job();
  parts_text(said, sizeof said);
  struct edited sound = edit_begin(part_name[1]);
  put_bits(bits, NAN_BITS);
  edit_tensor(part_name[1], "E.self", 4 * 4, bits, sizeof bits);
  expect_refused(job, MELU_ECORRUPT, ": it is not the file that the manifest names");
  put_checksum(part_name[1]);
  put_length_of_part();
  expect_refused(job, MELU_ECORRUPT, ": it is not the file that the manifest names");
  edit_header(path, said_now, said_then);
  expect_refused(job, MELU_ERANGE, ": tensor \"E.self\": row 1 is not finite");
  edit_header(part_name[1], "\"slots\":\"3 6 6\"", "\"slots\":\"3 5 6\"");
  expect_refused(job, MELU_EINVAL, ": it has slots \"3 5 6\", and not \"3 6 6\"");
  edit_header(part_name[1], "\"slots\":\"3 5 6\"", "\"plots\":\"3 5 6\"");
  expect_refused(job, MELU_EINVAL, ": it has slots \"\", and not \"3 6 6\"");
  cut(part_name[1]);
  expect_refused(job, MELU_EFORMAT, part_name[1]);
  unlink(part_name[1]);
  expect_refused(job, MELU_ENOTFOUND, part_name[1]);
  edit_end(&sound, part_name[1]);
  put_checksum(part_name[1]);
  cluster_run(&job, 2);
  expect_all(&job, 2, MELU_OK, "");
}
END_TEST

static void put_elsewhere(struct cluster_rank *rank, struct melu_fit_options *fit) {
  if (rank->gang->rank == 1) fit->checkpoint = "elsewhere";
}

START_TEST(a_checkpoint_is_there_for_all) {
  struct cluster_job job = stopped_job();
  job.before = put_elsewhere;
  expect_refused(job, MELU_EIO, "\" is there for some ranks, and not for others");
}
END_TEST

/* The library calls this instead of the C library's; so many calls are served, and then none is; 0: all are. */
static atomic_size_t n_reads;
static size_t most_reads;

ssize_t read(int fd, void *bytes, size_t n) {
  const struct iovec piece = {bytes, n};
  if (most_reads && atomic_fetch_add(&n_reads, 1) >= most_reads) {
    errno = EIO;
    return -1;
  }
  return readv(fd, &piece, 1);
}

START_TEST(a_disk_that_cannot_be_read) {
  struct cluster_job job = stopped_job();
  job.fit.checkpoint_updates = 1000; /* what is there stays */
  size_t n_failed = 0;
  do {
    n_reads = 0;
    most_reads = n_failed + 1;
    cluster_run(&job, 2);
    if (job.results[0].status) {
      expect_all(&job, 2, MELU_EIO, "cannot read");
      n_failed++;
    }
  } while (job.results[0].status);
  most_reads = 0;
  ck_assert_uint_gt(n_failed, 20);
}
END_TEST

/* Files that a manifest names, but by no name of a part, stay when it is replaced. */
START_TEST(only_parts_are_removed) {
  static const char *const names[N_SLOTS] = {"other.9.9",  "training9.9", "training.x.9",
                                             "training.9", "training.9.", "training.9.x"};
  struct cluster_job job = stopped_job();
  char text[512] = "";
  for (size_t i = 0, n = 0; i < N_SLOTS; i++) {
    FILE *file = fopen(names[i], "w");
    ck_assert(file && fclose(file) == 0);
    n += (size_t)snprintf(text + n, sizeof text - n, "%c['%s',%zu,%zu,9,%s]", i ? ',' : '[', names[i], i, i + 1, GOOD);
  }
  strcat(text, "]");
  put_parts(text);
  job.fit.resume = 0;
  cluster_run(&job, 2);
  expect_all(&job, 2, MELU_OK, "");
  for (size_t i = 0; i < N_SLOTS; i++) ck_assert_int_eq(unlink(names[i]), 0);
}
END_TEST

/* Each request of jansson's refused. */
START_TEST(no_memory_for_a_manifest) {
  struct melu__part_file parts[2] = {{.name = "one", .slots = {0, 4}, .saved = {7, 8}},
                                     {.name = "two", .slots = {4, 6}, .saved = {9, 10}}};
  const struct melu__manifest manifest = {parts, 2};
  struct melu__manifest found;
  melu_context *ctx;
  const struct melu_context_options options = {.size = sizeof options, .n_slots = N_SLOTS};
  WORLD_TRY(melu_context_new(&ctx, &options, &err));
  size_t n = 1;
  for (melu_status status = MELU_ENOMEM; status; n++) {
    json_refuse(n);
    status = melu__manifest_save(ctx, path, &manifest, &err);
    const int is_refused = json_made >= n;
    ck_assert_int_eq(status, is_refused ? MELU_ENOMEM : MELU_OK);
    ck_assert_int_eq(access(path, F_OK) == 0, !is_refused);
  }
  json_refuse_none();
  ck_assert_uint_gt(n, 10);
  WORLD_TRY(melu__manifest_load(&found, ctx, path, &err));
  ck_assert(found.n == 2 && strcmp(found.parts[1].name, "two") == 0 && found.parts[1].slots.lo == 4 &&
            found.parts[1].saved.checksum == parts[1].saved.checksum);
  melu__manifest_free(&found, &ctx->allocator);
  melu_context_free(ctx);
}
END_TEST

/* So many tasks that the number makes a name too long for a file. */
START_TEST(names_of_parts_may_be_too_long) {
  char name[256], temporary[64];
  struct cluster_job job = job_of(0, 1);
  const int n = 255 - snprintf(temporary, sizeof temporary, ".tmp-%ld-0", (long)getpid());
  snprintf(name, sizeof name, "%0*d", n, 7);
  job.fit.checkpoint = name;
  job.fit.n_epochs = UINT32_MAX - 1;
  job.fit.validation = 0;
  cluster_run(&job, 2);
  expect_all(&job, 2, MELU_ELIMIT, "rank 0: the name of a part of \"0000000000");
}
END_TEST

/* ------------------------------------------------------------------------------------------------- messages */

enum { WIDE = 4096 };

/* Items with long rows and, if the test says so, long lists, none of which is another's. */
static void take_long(struct cluster_rank *rank, struct melu_fit_options *fit) {
  const size_t n_tags = rank->job->arg ? *(const size_t *)rank->job->arg : 1, n_values = PEOPLE_ITEMS * n_tags;
  const struct melu_field fields[] = {
      {.size = sizeof *fields, .name = "self", .owner = MELU_ITEM, .n_values = PEOPLE_ITEMS, .width = WIDE},
      {.size = sizeof *fields, .name = "tags", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = n_values, .width = 1},
      {.size = sizeof *fields, .name = "job", .owner = MELU_USER, .n_values = 4, .width = 1},
      {.size = sizeof *fields, .name = "age", .owner = MELU_USER, .kind = MELU_NUMERIC}};
  struct people *p = &rank->people;
  uint32_t *tags = malloc(n_tags * sizeof *tags);
  (void)fit;
  cluster_replace(rank, fields, sizeof fields / sizeof *fields);
  for (uint32_t i = 0; i < PEOPLE_ITEMS; i++) {
    for (uint32_t k = 0; k < n_tags; k++) tags[k] = (uint32_t)(i * n_tags + k);
    const struct melu_value values[2] = {{.ids = &i, .n_ids = 1}, {.ids = tags, .n_ids = n_tags}};
    WORLD_TRY(melu_dataset_add_item(p->data, people_item_id(i), values, NULL, &err));
  }
  free(tags);
  cluster_add_users(rank);
  cluster_replaced(rank);
}

static void run_on_full_disk(struct cluster_job *job) {
  const struct rlimit small = {.rlim_cur = 100000, .rlim_max = RLIM_INFINITY}, all = {RLIM_INFINITY, RLIM_INFINITY};
  signal(SIGXFSZ, SIG_IGN);
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
  cluster_run(job, 2);
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &all), 0);
}

/* The disk is full: a part that cannot be written leaves nothing behind, and the checkpoint before stays. */
START_TEST(parts_that_cannot_be_written) {
  struct cluster_job job = job_of(0, _i ? MELU_NONE : 1);
  job.n_users = 8;
  job.before = take_long;
  job.fit.checkpoint = path;
  const struct cluster_result expected = cluster_result_of(&job, 2);
  ck_assert_int_eq(expected.status, MELU_OK);
  remove_checkpoint();
  run_on_full_disk(&job);
  expect_all(&job, 2, MELU_EIO, "cannot write");
  ck_assert_uint_eq(cluster_parts(&job, path, 0), 0);
  ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

static void save_to_full_disk(struct cluster_rank *rank) {
  melu_error e;
  ck_assert_int_eq(melu_model_save(rank->people.model, path, &e), MELU_EIO);
  ck_assert_msg(strstr(e.message, "rank 0: cannot write"), "%s", e.message);
}

START_TEST(models_that_cannot_be_written) {
  struct cluster_job job = job_of(0, 1);
  job.n_users = 8;
  job.before = take_long;
  job.after = save_to_full_disk;
  job.fit.n_query = MELU_NONE; /* no training */
  run_on_full_disk(&job);
  ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

/* Of rows, of dense numbers, of what is asked for and answered, of what is known of each row: more than one message has
 * room for. */
START_TEST(messages_have_any_length) {
  static const size_t hidden[1] = {140};
  size_t n_tags = _i ? 1600 : 6200;
  struct cluster_job job = job_of(_i > 0, MELU_NONE);
  job.model.hidden = hidden;
  job.model.n_hidden = 1;
  job.model.inner_steps = 1;
  job.n_users = 8;
  job.before = take_long;
  job.arg = &n_tags;
  job.fit.batch_tasks = 2;
  job.fit.n_epochs = 1;
  job.fit.checkpoint_updates = 1;
  job.fit.validation = 0;
  const struct cluster_result alone = cluster_result_of(&job, 0);
  ck_assert_msg(alone.status == MELU_OK, "%s", alone.message);
  job.shard_bytes = _i == 1 ? MELU_NONE : 1;
  for (int is_kept = _i > 0; is_kept < 2; is_kept++) { /* while the other rank has more to say */
    job.fit.checkpoint = is_kept ? path : NULL;
    job.stop_at = is_kept ? 1 : 2;
    ck_assert_int_eq(cluster_result_of(&job, 2).status, MELU_ECANCELED);
  }
  job.stop_at = 0;
  job.fit.resume = 1;
  if (_i == 0) { /* all that there is in the first batch */
    struct cluster_job whole = job;
    whole.fit.batch_tasks = 8;
    whole.fit.checkpoint = NULL;
    whole.fit.checkpoint_updates = 0;
    whole.fit.resume = 0;
    ck_assert_int_eq(cluster_result_of(&whole, 2).status, MELU_OK);
  }
  const struct cluster_result two = cluster_result_of(&job, 2);
  ck_assert_msg(two.status == MELU_OK, "%s", two.message);
  ck_assert_mem_eq(two.digest, alone.digest, sizeof two.digest);
}
END_TEST

/* The last thing that a batch takes memory for: long lists are sorted. */
static size_t n_asked, n_to_refuse;

static void refuse_late(struct cluster_rank *rank, struct melu_fit_options *fit) {
  struct test_heap *heap = &rank->people.heap;
  take_long(rank, fit);
  if (rank->gang->rank != 1) return;
  n_asked = heap->made;
  if (n_to_refuse) heap->fail_at = heap->made + n_to_refuse;
}

static void count_requests(struct cluster_rank *rank) {
  if (rank->gang->rank == 1) n_asked = rank->people.heap.made - n_asked;
}

START_TEST(no_memory_for_long_lists) {
  struct cluster_job job = job_of(0, 1);
  size_t n_tags = 80, n_refused = 0;
  job.n_users = 8;
  job.before = refuse_late;
  job.after = count_requests;
  job.arg = &n_tags;
  job.fit.n_epochs = 1;
  n_to_refuse = 0;
  ck_assert_int_eq(cluster_result_of(&job, 2).status, MELU_OK);
  const size_t n_all = n_asked;
  for (size_t i = 0; i < 30; i++) {
    n_to_refuse = n_all - i;
    cluster_run(&job, 2);
    if (job.results[0].status) expect_all(&job, 2, MELU_ENOMEM, "rank 1: ");
    n_refused += job.results[0].status != MELU_OK;
  }
  ck_assert_uint_gt(n_refused, 3);
}
END_TEST

/* With rows of 16 KiB a message has room for 63. A rank has just as many of one table, so that nothing of the next one
 * goes with them. Everybody rates everything, and one item of an unknown name. */
enum { BRIM_ITEMS = 126, BRIM_USERS = 6 };

static void take_brim(struct cluster_rank *rank, struct melu_fit_options *fit) {
  static const struct melu_field fields[] = {
      {.size = sizeof *fields, .name = "self", .owner = MELU_ITEM, .n_values = BRIM_ITEMS - 1, .width = WIDE},
      {.size = sizeof *fields, .name = "twin", .owner = MELU_ITEM, .n_values = BRIM_ITEMS - 1, .width = WIDE}};
  struct people *p = &rank->people;
  (void)fit;
  cluster_replace(rank, fields, sizeof fields / sizeof *fields);
  for (uint32_t i = 0; i < BRIM_ITEMS; i++) {
    const uint32_t name = i + 1 < BRIM_ITEMS ? i : MELU_UNKNOWN;
    const struct melu_value values[2] = {{.ids = &name, .n_ids = 1}, {.ids = &name, .n_ids = 1}};
    WORLD_TRY(melu_dataset_add_item(p->data, i, values, NULL, &err));
  }
  for (uint64_t u = 0; u < BRIM_USERS; u++) {
    if (rank->gang && melu_slot(u, 2) != rank->gang->rank) continue;
    WORLD_TRY(melu_dataset_add_user(p->data, u, NULL, NULL, &err));
    for (uint64_t i = 0; i < BRIM_ITEMS; i++)
      WORLD_TRY(melu_dataset_add_rating(p->data, u, i, (float)((u + i) % 5), &err));
  }
  cluster_replaced(rank);
}

START_TEST(messages_are_full_to_the_brim) {
  static const size_t hidden[1] = {2};
  static const struct melu_optimizer_options dense = {.size = sizeof dense, .lr = 0.01, .dense = 1};
  struct cluster_job job = job_of(0, _i ? MELU_NONE : 1);
  job.model.hidden = hidden;
  job.model.n_hidden = 1;
  job.model.inner_steps = 1;
  job.n_users = 0;
  job.n_slots = 2;
  job.before = take_brim;
  job.fit.n_epochs = 1;
  job.fit.batch_tasks = 2;
  job.fit.n_query = BRIM_ITEMS - 3;
  job.fit.min_ratings = BRIM_ITEMS;
  job.fit.validation = 0;
  job.fit.optimizer = &dense;
  const struct cluster_result alone = cluster_result_of(&job, 0), two = cluster_result_of(&job, 2);
  ck_assert_msg(alone.status == MELU_OK && two.status == MELU_OK, "%s, %s", alone.message, two.message);
  ck_assert_mem_eq(two.digest, alone.digest, sizeof two.digest);
}
END_TEST

enum { MANY_USERS = 140, MANY_RATINGS = 1000 };

/* More items are rated on rank 0 than one message tells of. One of them is another one on rank 1. */
static void take_many(struct cluster_rank *rank, struct melu_fit_options *fit) {
  const size_t r = rank->gang->rank;
  struct people *p = &rank->people;
  const struct melu_field field = {.size = sizeof field, .name = "kind", .owner = MELU_ITEM, .n_values = 3};
  uint64_t user = 0;
  (void)fit;
  cluster_replace(rank, &field, 1);
  for (size_t u = 0; u < (r ? 1 : MANY_USERS); u++, user++) {
    while (melu_slot(user, N_SLOTS) / (N_SLOTS / 2) != r) user++;
    WORLD_TRY(melu_dataset_add_user(p->data, user, NULL, NULL, &err));
    for (size_t i = 0; i < MANY_RATINGS; i++) {
      const uint64_t item = (MANY_USERS - 1 - u) * MANY_RATINGS + i;
      const uint32_t kind = (uint32_t)((item + (item == MANY_USERS * MANY_RATINGS - 1 && r)) % 3);
      const struct melu_value value = {.ids = &kind, .n_ids = 1};
      WORLD_TRY(melu_dataset_add_item(p->data, item, &value, NULL, &err));
      WORLD_TRY(melu_dataset_add_rating(p->data, user, item, (float)(i % 5), &err));
    }
  }
  cluster_replaced(rank);
}

START_TEST(any_number_of_items_is_compared) {
  struct cluster_job job = job_of(0, MELU_NONE);
  job.n_users = 0;
  job.before = take_many;
  job.fit.n_epochs = 1;
  job.fit.validation = 0;
  job.fit.max_support = 3;
  cluster_run(&job, 2);
  expect_all(&job, 2, MELU_EINVAL, "item 139999 is described otherwise on rank 1 than on rank 0");
}
END_TEST

/* All messages of a rank together have 16 MiB, each at most 1 MiB and at least 64 KiB. The collective is never called.
 */
START_TEST(room_of_messages) {
  static const struct {
    size_t n_ranks, room;
  } rooms[] = {{2, 1 << 20}, {16, 1 << 20}, {32, 1 << 19}, {256, 1 << 16}, {300, 1 << 16}};
  for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) {
    const struct cluster_job job = job_of(0, MELU_NONE);
    struct cluster_rank rank = {.job = &job};
    struct melu__exchange x = {.model = NULL};
    cluster_open(&rank);
    melu_context ctx = *rank.people.ctx;
    ctx.collective.n_ranks = (uint32_t)rooms[i].n_ranks;
    struct melu__ranks ranks = melu__ranks_begin(&ctx);
    ck_assert_int_eq(melu__exchange_init(&x, &ranks, rank.people.model, NULL, NULL, &err), MELU_OK);
    ck_assert_uint_eq(x.mail.room, rooms[i].room);
    melu__exchange_free(&x);
    cluster_close(&rank);
  }
}
END_TEST

int main(void) {
  Suite *s = suite_create("cluster files");
  TCase *t = tcase_create("cluster files");
  tcase_add_checked_fixture(t, setup, teardown);
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, models_of_ranks_are_files, 0, 2);
  tcase_add_loop_test(t, spoilt_models_are_refused, 0, N_SPOILT);
  tcase_add_loop_test(t, any_number_of_ranks_goes_on, 0, 4);
  tcase_add_loop_test(t, manifests_that_are_none, 0, (int)(sizeof no_parts / sizeof *no_parts));
  tcase_add_test(t, manifests_of_something_else);
  tcase_add_test(t, parts_of_something_else);
  tcase_add_test(t, a_checkpoint_is_there_for_all);
  tcase_add_test(t, a_disk_that_cannot_be_read);
  tcase_add_test(t, only_parts_are_removed);
  tcase_add_test(t, no_memory_for_a_manifest);
  tcase_add_test(t, names_of_parts_may_be_too_long);
  tcase_add_loop_test(t, parts_that_cannot_be_written, 0, 2);
  tcase_add_test(t, models_that_cannot_be_written);
  tcase_add_loop_test(t, messages_have_any_length, 0, 3);
  tcase_add_test(t, no_memory_for_long_lists);
  tcase_add_loop_test(t, messages_are_full_to_the_brim, 0, 2);
  tcase_add_test(t, any_number_of_items_is_compared);
  tcase_add_test(t, room_of_messages);
  suite_add_tcase(s, t);
  return run_suite(s);
}
