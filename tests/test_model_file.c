/* SPDX-License-Identifier: BSD-3-Clause */
/* Saving and loading: the same bits back, and nothing but a whole and unaltered file. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "data/schema.h"
#include "io/json_read.h"
#include "io/json_write.h"
#include "io/safetensors.h"
#include "model/model.h"
#include "file_edit.h"
#include "json_memory.h"
#include "run_suite.h"
#include "support.h"
#include "tensor/real.h"
#include "world.h"

/* ------------------------------------------------------------------------------------------ a system that fails */

/* The library calls these instead of the C library's. Call number `at` (1-based; 0: none) fails with `error`, or, if
 * that is 0, transfers nothing; no write takes more than `most` bytes (0: any number). */
static struct fault {
  int at, error, calls;
} failing_write, failing_read, failing_fsync, failing_rename, failing_open, failing_stat;
static size_t most;
static char folder[] = "/tmp/melu-test-XXXXXX", path[64];
static char opened[100]; /* the name that was last given to open */

static int fails(struct fault *fault) {
  if (++fault->calls != fault->at) return 0;
  errno = fault->error;
  return 1;
}

ssize_t write(int fd, const void *bytes, size_t n) {
  const struct iovec piece = {(void *)(uintptr_t)bytes, most && n > most ? most : n};
  if (fails(&failing_write)) return failing_write.error ? -1 : 0;
  return writev(fd, &piece, 1);
}

ssize_t read(int fd, void *bytes, size_t n) {
  const struct iovec piece = {bytes, n};
  if (fails(&failing_read)) return failing_read.error ? -1 : 0;
  return readv(fd, &piece, 1);
}

int fsync(int fd) {
  return fails(&failing_fsync) || fcntl(fd, F_GETFD) < 0 ? -1 : 0; /* no power is cut here, and forcing takes long */
}

/* Whatever is broken in the library: this program, which may be root's, replaces nothing outside its own folder. */
int rename(const char *from, const char *to) {
  if (strncmp(to, folder, strlen(folder)) != 0) ck_abort_msg("%s would have been replaced", to);
  return fails(&failing_rename) ? -1 : renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int open(const char *name, int flags, ...) {
  mode_t mode = 0;
  if (flags & O_CREAT) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, mode_t);
    va_end(arguments);
  }
  snprintf(opened, sizeof opened, "%s", name);
  return fails(&failing_open) ? -1 : openat(AT_FDCWD, name, flags, mode);
}

int stat(const char *name, struct stat *info) {
  return fails(&failing_stat) ? -1 : fstatat(AT_FDCWD, name, info, 0);
}

static void all_is_well(void) {
  failing_write = failing_read = failing_fsync = failing_rename = failing_open = failing_stat = (struct fault){0};
  most = 0;
}

/* ---------------------------------------------------------------------------------------------------- helpers */

static melu_error err;
static struct world w;

static void open_all(void) {
  strcpy(folder, "/tmp/melu-test-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/model.safetensors", folder);
  world_open(&w, NULL, 12);
}

/* Only the file that a test meant to leave may be there. */
static void close_all(void) {
  all_is_well();
  world_close(&w);
  unlink(path);
  ck_assert_msg(rmdir(folder) == 0, "%s: something was left behind", folder);
}

enum { LARGEST = 1 << 21 };

static unsigned char *read_file(size_t *n) {
  FILE *f = fopen(path, "rb");
  ck_assert_ptr_nonnull(f);
  unsigned char *bytes = malloc(LARGEST);
  ck_assert_ptr_nonnull(bytes);
  *n = fread(bytes, 1, LARGEST, f);
  ck_assert_uint_lt(*n, LARGEST);
  fclose(f);
  return bytes;
}

static void write_file(const void *bytes, size_t n) {
  unlink(path); /* some file systems force to the disk what replaces a file that was cut */
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

static int files_in_folder(void) {
  int n = 0;
  DIR *dir = opendir(folder);
  ck_assert_ptr_nonnull(dir);
  for (const struct dirent *e; (e = readdir(dir)) != NULL;) n += e->d_name[0] != '.';
  closedir(dir);
  return n;
}

struct bytes {
  const char *at;
  size_t n;
};

/* A model of one item field, one number wide, with that vocabulary. */
static melu_model *model_of_texts_with(const struct bytes *texts, size_t n, const struct melu_model_options *o) {
  melu_schema *schema;
  melu_model *model;
  const struct melu_field field = {.size = sizeof field, .name = "word", .owner = MELU_ITEM, .width = 1};
  struct melu__vocab *vocab = melu__vocab_new(&w.ctx->allocator);
  for (size_t i = 0; i < n; i++) ck_assert_uint_eq(melu__vocab_add(vocab, texts[i].at, texts[i].n, NULL), i);
  WORLD_TRY(melu_schema_new(&schema, w.ctx, &err));
  WORLD_TRY(melu_schema_add(schema, &field, &err));
  WORLD_TRY(melu__schema_set_texts(schema, "word", vocab, &err));
  WORLD_TRY(melu_model_new(&model, w.ctx, schema, o, &err));
  melu__vocab_free(vocab);
  melu_schema_free(schema);
  return model;
}

static melu_model *model_of_texts(const struct bytes *texts, size_t n) {
  const size_t hidden[1] = {1};
  const struct melu_model_options o = {.size = sizeof o, .hidden = hidden, .n_hidden = 1};
  return model_of_texts_with(texts, n, &o);
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

/* A model of the world's items, of whose numbers none is zero, as those of a new one may be. */
static melu_model *model_with(const struct melu_model_options *o) {
  melu_model *model;
  uint64_t random = 5;
  WORLD_TRY(melu_model_new(&model, w.ctx, melu_dataset_schema(w.data), o, &err));
  for (size_t i = 0; i < melu_model_n_params(model); i++) {
    struct melu_param p;
    WORLD_TRY(melu_model_param(&p, model, i, &err));
    float *values = malloc(p.rows * p.cols * sizeof *values);
    ck_assert_ptr_nonnull(values);
    WORLD_TRY(melu_model_read(values, model, p.name, 0, p.rows, &err));
    for (size_t k = 0; k < p.rows * p.cols; k++) values[k] += 0.01f + 1e-11f * (float)world_random(&random);
    WORLD_TRY(melu_model_write(model, p.name, 0, p.rows, values, &err));
    free(values);
  }
  return model;
}

static void check_same_options(const melu_model *first, const melu_model *second) {
  struct melu_model_options a = {.size = sizeof a}, b = {.size = sizeof b};
  WORLD_TRY(melu_model_get_options(&a, first, &err));
  WORLD_TRY(melu_model_get_options(&b, second, &err));
  ck_assert_str_eq(a.preset, b.preset);
  ck_assert_uint_eq(a.n_hidden, b.n_hidden);
  if (a.n_hidden != MELU_NONE) ck_assert(memcmp(a.hidden, b.hidden, a.n_hidden * sizeof *a.hidden) == 0);
  ck_assert(a.seed == b.seed && a.inner_steps == b.inner_steps && a.inner_lr == b.inner_lr);
  ck_assert(a.first_order == b.first_order && a.rating_min == b.rating_min && a.rating_max == b.rating_max);
  ck_assert(a.network == b.network && a.rank == b.rank && a.rule == b.rule && a.adapt == b.adapt);
  ck_assert(a.rates == b.rates && a.loss == b.loss);
  ck_assert_int_eq(a.multi_step, b.multi_step);
  ck_assert_int_eq(a.history, b.history);
  ck_assert_int_eq(a.learn_precision, b.learn_precision);
}

static void check_same_params(const melu_model *first, const melu_model *second) {
  size_t n, m;
  ck_assert_uint_eq(melu_model_n_params(first), melu_model_n_params(second));
  for (size_t i = 0; i < melu_model_n_params(first); i++) {
    struct melu_param a, b;
    WORLD_TRY(melu_model_param(&a, first, i, &err));
    WORLD_TRY(melu_model_param(&b, second, i, &err));
    ck_assert_str_eq(a.name, b.name);
    ck_assert(a.rows == b.rows && a.cols == b.cols && a.is_table == b.is_table);
  }
  float *before = world_weights(first, &n), *after = world_weights(second, &m);
  ck_assert_uint_eq(n, m);
  ck_assert(memcmp(before, after, n * sizeof *before) == 0);
  free(before);
  free(after);
}

/* Saves the model and returns what is loaded, which is the same and is saved as the same bytes. */
static melu_model *there_and_back(const melu_model *model) {
  size_t n, m;
  melu_model *loaded;
  WORLD_TRY(melu_model_save(model, path, &err));
  WORLD_TRY(melu_model_load(&loaded, w.ctx, path, &err));
  check_same_options(model, loaded);
  check_same_params(model, loaded);
  ck_assert(loaded->largest > 0 && loaded->largest == (real)melu__model_largest(loaded));
  unsigned char *first = read_file(&n);
  WORLD_TRY(melu_model_save(loaded, path, &err));
  unsigned char *second = read_file(&m);
  ck_assert(n == m && memcmp(first, second, n) == 0);
  free(first);
  free(second);
  return loaded;
}

/* Numbers of options and fields, wherever the host lets its numbers be rounded to. */
START_TEST(a_file_is_rounded_in_no_way) {
  static const int modes[] = {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
  size_t n, n_again;
  melu_model_free(there_and_back(w.model));
  unsigned char *usual = read_file(&n);
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
    fesetround(modes[i]);
    melu_model *loaded = there_and_back(w.model);
    fesetround(FE_TONEAREST);
    unsigned char *again = read_file(&n_again);
    ck_assert(n_again == n && memcmp(again, usual, n) == 0);
    free(again);
    melu_model_free(loaded);
  }
  free(usual);
}
END_TEST

START_TEST(everything_comes_back) {
  melu_model *model = model_with_texts(), *loaded = there_and_back(w.model);
  melu_model_free(loaded);
  loaded = there_and_back(model);
  const melu_schema *schema = melu_model_schema(loaded);
  ck_assert_str_eq(melu_schema_value_text(schema, "tag", 0), "a \"quote\"");
  ck_assert_uint_eq(melu_schema_value_id(schema, "tag", "\xc3\xa9t\xc3\xa9"), 2);
  ck_assert_uint_eq(melu_schema_value_id(schema, "tag", "nothing"), MELU_UNKNOWN);
  melu_model_free(loaded);
  melu_model_free(model);
}
END_TEST

/* What the file says of the options, read by jansson. */
static json_t *saved_options(void) {
  size_t n;
  unsigned char *bytes = read_file(&n);
  const size_t length = header_length(bytes);
  json_t *header = json_loadb((char *)bytes + 8, length, JSON_REJECT_DUPLICATES, NULL);
  const json_t *meta = json_object_get(header, "__metadata__");
  json_t *options = json_loads(json_string_value(json_object_get(meta, "options")), JSON_REJECT_DUPLICATES, NULL);
  ck_assert_ptr_nonnull(options);
  json_decref(header);
  free(bytes);
  return options;
}

/* Every way to have the options, each with another value than its preset's, and what the file says of them. */
static const size_t five[1] = {5};
static const struct variant {
  struct melu_model_options o;
  const char *hidden, *network, *rule, *adapt, *rates, *loss;
} variants[] = {
    {{.size = sizeof variants->o, .preset = "best"}, "[96]", "factors", "closed_form", "[\"head\"]", "fixed", "mixed"},
    {{.size = sizeof variants->o,
      .preset = "best",
      .hidden = five,
      .n_hidden = 1,
      .inner_steps = 7,
      .inner_lr = 0.3,
      .first_order = 1,
      .rating_min = -1,
      .rating_max = 1,
      .rank = 3,
      .rule = MELU_STEPS,
      .rates = MELU_RATE_PER_ENTRY,
      .loss = MELU_SQUARED,
      .multi_step = 1,
      .history = -1,
      .learn_precision = 1},
     "[5]",
     "factors",
     "steps",
     "[\"head\"]",
     "per_entry",
     "squared"},
    {{.size = sizeof variants->o,
      .preset = "best",
      .n_hidden = MELU_NONE,
      .inner_steps = MELU_NONE,
      .rank = 1,
      .rule = MELU_STEPS,
      .rates = MELU_RATE_PER_TENSOR,
      .loss = MELU_LOGISTIC},
     "[]",
     "factors",
     "steps",
     "[\"head\"]",
     "per_tensor",
     "logistic"},
    {{.size = sizeof variants->o, .preset = "best", .rank = 255, .loss = MELU_PAIRWISE, .learn_precision = 1},
     "[96]",
     "factors",
     "closed_form",
     "[\"head\"]",
     "fixed",
     "pairwise"},
    {{.size = sizeof variants->o,
      .hidden = five,
      .n_hidden = 1,
      .network = MELU_FACTORS,
      .adapt = MELU_ADAPT_HEAD,
      .history = 1},
     "[5]",
     "factors",
     "steps",
     "[\"head\"]",
     "fixed",
     "squared"},
    {{.size = sizeof variants->o,
      .preset = "best",
      .network = MELU_LAYERS,
      .rank = 9,
      .history = -1,
      .learn_precision = 1},
     "[96]",
     "layers",
     "closed_form",
     "[\"head\"]",
     "fixed",
     "mixed"},
    {{.size = sizeof variants->o, .rates = MELU_RATE_PER_TENSOR, .loss = MELU_ABSOLUTE, .multi_step = 1},
     "[64,64]",
     "layers",
     "steps",
     "[\"head\",\"hidden\"]",
     "per_tensor",
     "absolute"},
    {{.size = sizeof variants->o, .adapt = 15, .rates = MELU_RATE_PER_ENTRY, .loss = MELU_HUBER},
     "[64,64]",
     "layers",
     "steps",
     "[\"head\",\"hidden\",\"user\",\"items\"]",
     "per_entry",
     "huber"},
    {{.size = sizeof variants->o, .adapt = MELU_ADAPT_HEAD | MELU_ADAPT_ITEMS, .loss = MELU_LOGISTIC},
     "[64,64]",
     "layers",
     "steps",
     "[\"head\",\"items\"]",
     "fixed",
     "logistic"},
    {{.size = sizeof variants->o, .adapt = MELU_ADAPT_USER, .loss = MELU_PAIRWISE},
     "[64,64]",
     "layers",
     "steps",
     "[\"user\"]",
     "fixed",
     "pairwise"}};

static void check_saved_options(const struct variant *v, const melu_model *model) {
  struct melu_model_options o = {.size = sizeof o};
  const char *preset, *seed, *network, *rule, *rates, *loss;
  json_t *hidden, *adapt, *saved = saved_options();
  json_int_t inner_steps, rank;
  double inner_lr, rating_min, rating_max;
  int first_order, multi_step, history, learn_precision;
  WORLD_TRY(melu_model_get_options(&o, model, &err));
  ck_assert_int_eq(
      json_unpack(saved, "{s:s, s:s, s:o, s:I, s:f, s:b, s:f, s:f, s:s, s:I, s:s, s:o, s:s, s:s, s:b, s:b, s:b!}",
                  "preset", &preset, "seed", &seed, "hidden", &hidden, "inner_steps", &inner_steps, "inner_lr",
                  &inner_lr, "first_order", &first_order, "rating_min", &rating_min, "rating_max", &rating_max,
                  "network", &network, "rank", &rank, "rule", &rule, "adapt", &adapt, "rates", &rates, "loss", &loss,
                  "multi_step", &multi_step, "history", &history, "learn_precision", &learn_precision),
      0);
  char *widths = json_dumps(hidden, JSON_COMPACT), *names = json_dumps(adapt, JSON_COMPACT);
  ck_assert_str_eq(preset, o.preset);
  ck_assert_str_eq(widths, v->hidden);
  ck_assert_uint_eq((size_t)inner_steps, o.inner_steps == MELU_NONE ? 0 : o.inner_steps);
  ck_assert(inner_lr == o.inner_lr && rating_min == o.rating_min && rating_max == o.rating_max);
  ck_assert_int_eq(first_order, o.first_order);
  ck_assert_str_eq(network, v->network);
  ck_assert_uint_eq((size_t)rank, o.rank);
  ck_assert_str_eq(rule, v->rule);
  ck_assert_str_eq(names, v->adapt);
  ck_assert_str_eq(rates, v->rates);
  ck_assert_str_eq(loss, v->loss);
  ck_assert_int_eq(multi_step, o.multi_step > 0);
  ck_assert_int_eq(history, o.history > 0);
  ck_assert_int_eq(learn_precision, o.learn_precision > 0);
  free(widths);
  free(names);
  json_decref(saved);
}

START_TEST(every_option_comes_back) {
  for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
    melu_model *model = model_with(&variants[i].o), *loaded = there_and_back(model);
    check_saved_options(&variants[i], loaded);
    check_saved_options(&variants[i], model);
    melu_model_free(model);
    melu_model_free(loaded);
  }
}
END_TEST

/* A vocabulary holds any bytes, those too that are no UTF-8 and that JSON cannot write. */
START_TEST(texts_of_any_bytes_come_back) {
#define BYTES(text) \
  { text, sizeof text - 1 }
  static const struct bytes texts[] = {BYTES(""),
                                       BYTES("a"),
                                       BYTES("\"\\/\b\f\n\r\t\x01\x1f\x7f"),
                                       BYTES("\0"),
                                       BYTES("a\0b"),
                                       BYTES("\xff"),
                                       BYTES("\xc3\xa9"),
                                       BYTES("\xc3"),
                                       BYTES("\xed\xa0\x80"),
                                       BYTES("\xc0\x80"),
                                       BYTES("\xf0\x9f\x98\x80"),
                                       BYTES("\xf4\x90\x80\x80"),
                                       BYTES("[\"61\"]"),
                                       BYTES("61"),
                                       BYTES("\\u0061"),
                                       BYTES("\xe2\x82"),
                                       BYTES("\xef\xbf\xbf"),
                                       BYTES("\xe0\x80\x80")};
  const size_t n_texts = sizeof texts / sizeof *texts;
  melu_model *model = model_of_texts(texts, n_texts), *loaded;
  WORLD_TRY(melu_model_save(model, path, &err));
  WORLD_TRY(melu_model_load(&loaded, w.ctx, path, &err));
  const struct melu__vocab *vocab = melu__schema_find(melu_model_schema(loaded), "word")->texts;
  ck_assert_uint_eq(melu__vocab_count(vocab), n_texts);
  for (uint32_t i = 0; i < n_texts; i++) {
    size_t n;
    const char *text = melu__vocab_key(vocab, i, &n);
    ck_assert_msg(n == texts[i].n && memcmp(text, texts[i].at, n) == 0, "text %u", i);
  }
  ck_assert(melu__schema_equal(melu_model_schema(model), melu_model_schema(loaded)));
  melu_model_free(model);
  melu_model_free(loaded);
  for (size_t n = 0; n < n_texts; n++) { /* wherever the header ends, the data begins on a multiple of 8 */
    model = model_of_texts(texts, n);
    WORLD_TRY(melu_model_save(model, path, &err));
    unsigned char *bytes = read_file(&(size_t){0});
    ck_assert_uint_eq(bytes[0] % 8, 0);
    free(bytes);
    ck_assert_int_eq(load(), MELU_OK);
    melu_model_free(model);
  }
}
END_TEST

/* The shape that PyTorch gives a parameter: a bias has one dimension, and so has what goes with it. */
static size_t n_dims_of(const char *name, int has_one_rate) {
  if (strncmp(name, "rate.", 5) == 0) return has_one_rate || name[5] == 'b' ? 1 : 2;
  return name[0] == 'b' ? 1 : 2;
}

/* Anybody can read the file who reads JSON and floats. Here jansson does, of which the library uses nothing to read. */
static void read_independently(const melu_model *model, int has_one_rate) {
  size_t n, at = 0;
  WORLD_TRY(melu_model_save(model, path, &err));
  unsigned char *bytes = read_file(&n);
  const size_t length = header_length(bytes);
  const unsigned char *data = bytes + 8 + length;
  ck_assert_uint_eq(length % 8, 0);
  json_t *header = json_loadb((char *)bytes + 8, length, JSON_REJECT_DUPLICATES, NULL);
  const json_t *meta = json_object_get(header, "__metadata__");
  ck_assert_uint_eq(json_object_size(header), melu_model_n_params(model) + 1);
  for (size_t i = 0; i < melu_model_n_params(model); i++) {
    struct melu_param p;
    json_int_t rows = 1, cols, begin, end;
    WORLD_TRY(melu_model_param(&p, model, i, &err));
    float *values = malloc(p.rows * p.cols * sizeof *values);
    ck_assert_ptr_nonnull(values);
    json_t *t = json_object_get(header, p.name);
    const char *dtype;
    ck_assert_int_eq(
        n_dims_of(p.name, has_one_rate) == 1
            ? json_unpack(t, "{s:s,s:[I!],s:[I,I!]!}", "dtype", &dtype, "shape", &cols, "data_offsets", &begin, &end)
            : json_unpack(t, "{s:s,s:[II!],s:[I,I!]!}", "dtype", &dtype, "shape", &rows, &cols, "data_offsets", &begin,
                          &end),
        0);
    ck_assert_str_eq(dtype, "F32");
    ck_assert((size_t)rows == p.rows && (size_t)cols == p.cols);
    ck_assert_uint_eq((size_t)begin, at);
    at += 4 * p.rows * p.cols;
    ck_assert_uint_eq((size_t)end, at);
    WORLD_TRY(melu_model_read(values, model, p.name, 0, p.rows, &err));
    for (size_t k = 0; k < p.rows * p.cols; k++) {
      unsigned char number[4];
      put_float(number, values[k]);
      ck_assert(memcmp(number, data + (size_t)begin + 4 * k, 4) == 0);
    }
    free(values);
  }
  ck_assert_uint_eq(8 + length + at, n);
  ck_assert_str_eq(json_string_value(json_object_get(meta, "format")), "melu-model");
  ck_assert_str_eq(json_string_value(json_object_get(meta, "format_version")), "1");
  ck_assert_str_eq(json_string_value(json_object_get(meta, "library")), melu_version());
  json_t *schema = json_loads(json_string_value(json_object_get(meta, "schema")), 0, NULL);
  const json_t *field = json_array_get(json_object_get(schema, "fields"), 2);
  ck_assert_str_eq(json_string_value(json_object_get(field, "name")), "age");
  ck_assert_int_eq(json_integer_value(json_object_get(field, "n_values")), 5);
  json_decref(schema);
  json_decref(header);
  free(bytes);
}

START_TEST(an_independent_reader_finds_the_same) {
  read_independently(w.model, 0);
  json_t *options = saved_options();
  ck_assert(json_real_value(json_object_get(options, "inner_lr")) == (double)0.05);
  json_decref(options);
  for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
    melu_model *model = model_with(&variants[i].o);
    read_independently(model, variants[i].o.rates == MELU_RATE_PER_TENSOR);
    melu_model_free(model);
  }
}
END_TEST

static void check_predictions(const melu_model *model) {
  melu_model *loaded = there_and_back(model);
  struct melu_model_options o = {.size = sizeof o};
  float scores[2][WORLD_ITEMS], variances[2][WORLD_ITEMS] = {{0}};
  const uint32_t items[WORLD_ITEMS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, age = 2;
  const float ratings[3] = {1, 5, 3};
  const struct melu_value profile = {.ids = &age, .n_ids = 1};
  WORLD_TRY(melu_model_get_options(&o, model, &err));
  for (int i = 0; i < 2; i++) {
    const melu_model *m = i ? loaded : model;
    melu_workspace *ws;
    melu_user *user;
    WORLD_TRY(melu_workspace_new(&ws, m, 3, &err));
    WORLD_TRY(melu_user_new(&user, m, &err));
    WORLD_TRY(melu_adapt(user, ws, m, w.data, &profile, items, ratings, 3, &err));
    WORLD_TRY(melu_predict(scores[i], ws, m, user, w.data, items, WORLD_ITEMS, &err));
    if (o.network == MELU_FACTORS && o.rule == MELU_CLOSED_FORM)
      WORLD_TRY(melu_predict_variance(variances[i], ws, m, user, w.data, items, WORLD_ITEMS, &err));
    melu_user_free(user);
    melu_workspace_free(ws);
  }
  ck_assert(memcmp(scores[0], scores[1], sizeof *scores) == 0);
  ck_assert(memcmp(variances[0], variances[1], sizeof *variances) == 0);
  ck_assert(scores[0][0] != scores[0][1]);
  melu_model_free(loaded);
}

/* A loaded model's data set is the one that it was trained on. */
START_TEST(a_loaded_model_predicts_the_same) {
  check_predictions(w.model);
  for (size_t i = 0; i < 4; i++) { /* those of the preset "best" */
    ck_assert_str_eq(variants[i].o.preset, "best");
    melu_model *model = model_with(&variants[i].o);
    check_predictions(model);
    melu_model_free(model);
  }
}
END_TEST

/* The first training of a model sets its scale, and to zero what no rating leads to. A loaded model has had it. */
START_TEST(a_loaded_model_goes_on_training) {
  static const char *const names[] = {"scale", "names", "E.genre", "E.age"};
  const struct melu_optimizer_options optimizer = {.size = sizeof optimizer, .lr = 1e-12};
  const struct melu_fit_options fit = {.size = sizeof fit, .n_epochs = 1, .optimizer = &optimizer};
  const struct melu_model_options o = {.size = sizeof o, .preset = "best", .n_hidden = MELU_NONE, .rank = 2};
  melu_model *model = model_with(&o), *loaded = there_and_back(model), *other;
  WORLD_TRY(melu_fit(loaded, w.data, &fit, &err));
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    float before[64], after[64];
    const struct melu__param *p = melu__model_find(model, names[i]);
    WORLD_TRY(melu_model_read(before, model, names[i], 0, p->rows, &err));
    WORLD_TRY(melu_model_read(after, loaded, names[i], 0, p->rows, &err));
    for (size_t k = 0; k < p->rows * p->cols; k++)
      ck_assert_msg(fabsf(before[k] - after[k]) < 1e-6f, "%s: %zu: %g, %g", names[i], k, before[k], after[k]);
  }
  melu_model_free(loaded);

  /* So it is not because the data have the scale that a model begins with. */
  float first[2], trained[2];
  WORLD_TRY(melu_model_new(&other, w.ctx, melu_dataset_schema(w.data), &o, &err));
  WORLD_TRY(melu_model_read(first, other, "scale", 0, 1, &err));
  WORLD_TRY(melu_fit(other, w.data, &fit, &err));
  WORLD_TRY(melu_model_read(trained, other, "scale", 0, 1, &err));
  ck_assert(fabsf(first[0] - trained[0]) > 0.05f && fabsf(first[1] - trained[1]) > 0.05f);
  melu_model_free(model);
  melu_model_free(other);
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

/* Writes a file with that header and n zeros of data. Its checksum is set right. */
static void write_hostile(const char *header, uint64_t claimed, size_t n_data) {
  const size_t n = strlen(header);
  unsigned char *bytes = calloc(1, 8 + n + n_data + 1);
  ck_assert_ptr_nonnull(bytes);
  put_length(bytes, claimed ? claimed : n);
  memcpy(bytes + 8, header, n);
  set_checksum(bytes, 8 + n + n_data);
  write_file(bytes, 8 + n + n_data);
  free(bytes);
}

#define SUM "\"melu.checksum\":\"0000000000000000\""
#define T(offsets, shape) "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

#define M "{\"__metadata__\":{" SUM
#define H M "}"
#define F(version) ",\"format\":\"melu-model\",\"format_version\":\"" version "\""

#define SOUND \
  "\"b\" : " T("[ 12 , 20 ]", "[2]") " , \"__metadata__\" : { " SUM " , \"\" : \"\" } ," \
  "\"a\":" T("[0,4]", "[]") ",\"empty\":" T("[4,4]", "[0,7]") ","                        \
  "\"wide\":{\"shape\":[1],\"data_offsets\":[4,12],\"dtype\":\"U64\"}"

START_TEST(hostile_headers) {
  static const struct {
    const char *header;
    uint64_t claimed;
    size_t n_data;
    melu_status status;
    const char *says;
  } files[] = {
      {"", 0, 0, MELU_EFORMAT, "no object"},
      {"{}", 0, 0, MELU_EFORMAT, "no metadata"},
      {"{}", (uint64_t)1 << 30, 0, MELU_EFORMAT, "longer than the file"},
      {"{}", UINT64_MAX, 0, MELU_EFORMAT, "longer than the file"},
      {"{}", 3, 0, MELU_EFORMAT, "longer than the file"},
      {"[]", 0, 0, MELU_EFORMAT, "no object"},
      {H "}{}", 0, 0, MELU_EFORMAT, "follows the header"},
      {H ",}", 0, 0, MELU_EFORMAT, "not JSON"},
      {H ";\"a\":1}", 0, 0, MELU_EFORMAT, "not JSON"},
      {H ",a:1}", 0, 0, MELU_EFORMAT, "not JSON"},
      {H, 0, 0, MELU_EFORMAT, "not JSON"},
      {H "}", 0, 4, MELU_EFORMAT, "data without a tensor"},
      {H "}", 0, 0, MELU_EFORMAT, "does not say that it is one"},
      {"{\"__metadata__\":[]}", 0, 0, MELU_EFORMAT, "metadata is no object"},
      {"{\"__metadata__\":{\"a\":1}}", 0, 0, MELU_EFORMAT, "not texts"},
      {M ",\"a\":[]}}", 0, 0, MELU_EFORMAT, "not texts"},
      {M ",\"a\":null}}", 0, 0, MELU_EFORMAT, "not texts"},
      {M ",\"a\":\"\\u0000\"}}", 0, 0, MELU_EFORMAT, "not texts"},
      {M ",\"a\":\"\\ud800\"}}", 0, 0, MELU_EFORMAT, "not texts"},
      {M ",\"a\":\"\\udc00\\ud800\"}}", 0, 0, MELU_EFORMAT, "not texts"},
      {M ",\"a\":\"\xff\"}}", 0, 0, MELU_EFORMAT, "not texts"},
      {M ",\"a\":\"\n\"}}", 0, 0, MELU_EFORMAT, "not texts"},
      {M ",\"a\":\"\\x\"}}", 0, 0, MELU_EFORMAT, "not texts"},
      {M ",\"a\":\"\",\"\\u0061\":\"\"}}", 0, 0, MELU_EFORMAT, "a name twice"},
      {M "," SUM "}}", 0, 0, MELU_EFORMAT, "a name twice"},
      {H ",\"__metadata__\":{}}", 0, 0, MELU_EFORMAT, "metadata twice"},
      {"{\"__metadata__\":{}}", 0, 0, MELU_EFORMAT, "no checksum"},
      {"{\"__metadata__\":{\"melu.checksum\":\"00000000000000000\"}}", 0, 0, MELU_EFORMAT, "no checksum"},
      {"{\"__metadata__\":{\"melu.checksum\":\"\"}}               ", 0, 0, MELU_EFORMAT, "not texts"},
      {"{\"__metadata__\":{\"melu.checksum\" :\"0000000000000000\"}}", 0, 0, MELU_ECORRUPT, "checksum"},
      {"{\"__metadata__\":{\"a\":\"\\\"melu.checksum\\\":\\\"0000000000000000\"}}", 0, 0, MELU_EFORMAT, "no checksum"},
      {H ",\"a\":3}", 0, 0, MELU_EFORMAT, "an entry is no object"},
      {H ",\"a\":{}}", 0, 0, MELU_EFORMAT, "not dtype, shape and data_offsets"},
      {H ",\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 0, 4, MELU_EFORMAT, "not dtype, shape and data_offsets"},
      {H ",\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1]}}", 0, 4, MELU_EFORMAT,
       "not dtype, shape and data_offsets"},
      {H ",\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"shape\":[1],\"data_offsets\":[0,4]}}", 0, 4, MELU_EFORMAT,
       "not dtype, shape and data_offsets"},
      {H ",\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"data_offsets\":[0,4]}}", 0, 4, MELU_EFORMAT,
       "not dtype, shape and data_offsets"},
      {H ",\"a\":{\"dtype\":\"U32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 0, 4, MELU_EFORMAT,
       "not dtype, shape and data_offsets"},
      {H ",\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":0}}", 0, 4, MELU_EFORMAT,
       "not dtype, shape and data_offsets"},
      {H ",\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 0, 4, MELU_EFORMAT, "dtype is unknown"},
      {H ",\"a\":{\"dtype\":0,\"shape\":[1],\"data_offsets\":[0,4]}}", 0, 4, MELU_EFORMAT, "dtype is unknown"},
      {H ",\"a\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,4]}}", 0, 4, MELU_EFORMAT, "not of one size"},
      {H ",\"a\":" T("[0,8]", "[1]") "}", 0, 8, MELU_EFORMAT, "not of one size"},
      {H ",\"a\":" T("[0,4]", "[2]") "}", 0, 4, MELU_EFORMAT, "not of one size"},
      {H ",\"a\":" T("[0,0]", "[4611686018427387904,4]") "}", 0, 0, MELU_EFORMAT, "not of one size"},
      {H ",\"a\":" T("[0,0]", "[4611686018427387904]") "}", 0, 0, MELU_EFORMAT, "not of one size"},
      {H ",\"a\":" T("[0,4]", "[4294967296,4294967297]") "}", 0, 4, MELU_EFORMAT, "not of one size"},
      {H ",\"a\":" T("[0,4]", "[18446744073709551615,18446744073709551615]") "}", 0, 4, MELU_EFORMAT,
       "not of one size"},
      {H ",\"a\":" T("[0,4]", "[-1]") "}", 0, 4, MELU_EFORMAT, "a shape is not"},
      {H ",\"a\":" T("[0,4]", "[1.0]") "}", 0, 4, MELU_EFORMAT, "a shape is not"},
      {H ",\"a\":" T("[0,4]", "[01]") "}", 0, 4, MELU_EFORMAT, "a shape is not"},
      {H ",\"a\":" T("[0,4]", "[1,]") "}", 0, 4, MELU_EFORMAT, "a shape is not"},
      {H ",\"a\":" T("[0,4]", "{}") "}", 0, 4, MELU_EFORMAT, "a shape is not"},
      {H ",\"a\":" T("[0,4]", "[1,1,1]") "}", 0, 4, MELU_EFORMAT, "a shape is not"},
      {H ",\"a\":" T("[0,4]", "[18446744073709551616]") "}", 0, 4, MELU_EFORMAT, "a shape is not"},
      {H ",\"a\":" T("[4,0]", "[1]") "}", 0, 4, MELU_EFORMAT, "outside the data"},
      {H ",\"a\":" T("[4,8]", "[1]") "}", 0, 4, MELU_EFORMAT, "outside the data"},
      {H ",\"a\":" T("[0,9223372036854775807]", "[1]") "}", 0, 4, MELU_EFORMAT, "outside the data"},
      {H ",\"a\":" T("[-4,0]", "[1]") "}", 0, 4, MELU_EFORMAT, "an offset is not"},
      {H ",\"a\":" T("[0,18446744073709551616]", "[1]") "}", 0, 4, MELU_EFORMAT, "an offset is not"},
      {H ",\"a\":" T("[0,4,4]", "[1]") "}", 0, 4, MELU_EFORMAT, "an offset is not"},
      {H ",\"a\":" T("[0]", "[1]") "}", 0, 4, MELU_EFORMAT, "has not two offsets"},
      {H ",\"a\":" T("[0,4]", "[1]") ",\"a\":" T("[4,8]", "[1]") "}", 0, 8, MELU_EFORMAT, "one name"},
      {H ",\"a\":" T("[0,4]", "[1]") ",\"\\u0061\":" T("[4,8]", "[1]") "}", 0, 8, MELU_EFORMAT, "one name"},
      {H ",\"a\":" T("[0,4]", "[1]") ",\"b\":" T("[0,4]", "[1]") "}", 0, 4, MELU_EFORMAT, "overlap"},
      {H ",\"a\":" T("[0,8]", "[2]") ",\"b\":" T("[4,8]", "[1]") "}", 0, 8, MELU_EFORMAT, "overlap"},
      {H ",\"a\":" T("[0,4]", "[1]") ",\"b\":" T("[8,12]", "[1]") "}", 0, 12, MELU_EFORMAT, "a hole"},
      {H ",\"a\":" T("[4,8]", "[1]") "}", 0, 8, MELU_EFORMAT, "a hole"},
      {H ",\"a\":" T("[0,4]", "[1]") "}", 0, 8, MELU_EFORMAT, "behind the last tensor"},
      {M F("1") "}}", 0, 0, MELU_EFORMAT, "preset, seed and hidden"},
      {M ",\"format\":\"melu-model\"}}", 0, 0, MELU_EFORMAT, "does not say"},
      {M F("2") "}}", 0, 0, MELU_EVERSION, "format version 2 is newer"},
      {M F("18446744073709551615") "}}", 0, 0, MELU_EVERSION, "18446744073709551615"},
      {M F("0") "}}", 0, 0, MELU_EFORMAT, "version is not a number"},
      {M F("1x") "}}", 0, 0, MELU_EFORMAT, "version is not a number"},
      {M F("") "}}", 0, 0, MELU_EFORMAT, "version is not a number"},
      {M F("1") ",\"schema\":\"{}\",\"options\":\"{}\"}}", 0, 0, MELU_EFORMAT, "preset, seed and hidden"},
  };
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    write_hostile(files[i].header, files[i].claimed, files[i].n_data);
    const melu_status status = load();
    ck_assert_msg(status == files[i].status, "%s: %s, %s", files[i].header, melu_status_name(status), err.message);
    ck_assert_int_eq(err.status, status);
    ck_assert_msg(strstr(err.message, files[i].says) != NULL, "%s: %s", files[i].header, err.message);
    ck_assert_msg(strstr(err.message, path) != NULL, "%s", err.message);
  }
  /* What they are variations of is sound: tensors in any order, with blanks, of every type and no dimension. */
  struct melu__safetensors f;
  write_hostile(" { " SOUND " } ", 0, 20);
  WORLD_TRY(melu__safetensors_load(&f, w.ctx, path, 1, &err));
  ck_assert_uint_eq(f.n_tensors, 4);
  melu__safetensors_free(&f);
  /* None at all is sound too. */
  const struct melu__tensor wanted = {.name = "a", .dtype = MELU__F32, .n_dims = 0, .dims = {0, 0}, .data = NULL};
  write_hostile("\t" H "}\t", 0, 0);
  WORLD_TRY(melu__safetensors_load(&f, w.ctx, path, 1, &err));
  ck_assert_uint_eq(f.n_tensors, 0);
  ck_assert_int_eq(melu__safetensors_expect(&f, &wanted, &err), MELU_EFORMAT);
  melu__safetensors_free(&f);
  /* A header of more than 100 million bytes, in a file that has them: nobody reads it. */
  write_hostile("{}", 100000001, 0);
  ck_assert_int_eq(truncate(path, 100000100), 0);
  ck_assert_int_eq(load(), MELU_ELIMIT);
  /* A file that is larger than the context allows. */
  const struct melu_context_options o = {.size = sizeof o, .max_file_bytes = 1000};
  melu_context *strict;
  melu_model *model = w.model;
  WORLD_TRY(melu_context_new(&strict, &o, &err));
  ck_assert_int_eq(melu_model_load(&model, strict, path, &err), MELU_ELIMIT);
  ck_assert_ptr_null(model);
  melu_context_free(strict);
}
END_TEST

/* Nor is such a header written. */
START_TEST(a_header_may_be_too_long) {
  enum { N = MELU__MAX_HEADER / 6 }; /* each of these takes six bytes */
  char *long_text = malloc(N);
  ck_assert_ptr_nonnull(long_text);
  memset(long_text, '\1', N);
  json_t *metadata = json_pack("{s:s#}", "who", long_text, N);
  ck_assert_ptr_nonnull(metadata);
  free(long_text);
  ck_assert_int_eq(melu__safetensors_save(NULL, w.ctx, path, metadata, NULL, 0, &err), MELU_ELIMIT);
  ck_assert_msg(strstr(err.message, path) != NULL, "%s", err.message);
  ck_assert_int_eq(files_in_folder(), 0);
  json_decref(metadata);
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
      {"\\\"scale\\\":1.0", "\\\"scale\\\":.10"},
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
  unsigned char from[4];
  put_float(from, weights[0]);
  for (size_t i = 8; i + 4 <= n; i++)
    if (memcmp(bytes + i, from, 4) == 0) {
      put_bits(bytes + i, NAN_BITS);
      break;
    }
  set_checksum(bytes, n);
  write_file(bytes, n);
  free(bytes);
  ck_assert_int_eq(load(), MELU_ERANGE);
  ck_assert_msg(strstr(err.message, "b1") != NULL, "%s", err.message);
}
END_TEST

/* Loads the model with `to` for the n_from bytes at a place of its file's header. */
static melu_status load_with(const melu_model *model, size_t place, size_t n_from, const char *to) {
  WORLD_TRY(melu_model_save(model, path, &err));
  edit_replace(path, place, n_from, to);
  return load();
}

/* Replaces what is `from` in the header, wherever it is. */
static melu_status load_replaced(const melu_model *model, const char *from, const char *to) {
  WORLD_TRY(melu_model_save(model, path, &err));
  edit_header(path, from, to);
  return load();
}

/* In the texts of schema and options each name, each value and each mark has to be what it is. */
static void check_every_word(const melu_model *model) {
  size_t n_tried = 0;
  WORLD_TRY(melu_model_save(model, path, &err));
  struct edited e = edit_begin(path);
  const char *const parts[] = {"\"options\":\"", "\"schema\":\""};
  for (size_t p = 0; p < 2; p++)
    for (const unsigned char *at = edit_find(&e, parts[p]) + strlen(parts[p]); *at != '"'; at++) {
      const size_t place = (size_t)(at - e.bytes);
      const int is_name = memcmp(at, "\\\":", 3) == 0, is_mark = strchr("[]{},:", *at) != NULL;
      if (is_name) ck_assert_msg(load_with(model, place, 0, "x") == MELU_EFORMAT, "a name, at %zu", place);
      if (is_name) ck_assert_msg(load_with(model, place + 3, 0, "x") == MELU_EFORMAT, "a value, at %zu", place);
      if (is_mark) ck_assert_msg(load_with(model, place, 1, "") == MELU_EFORMAT, "%c, at %zu", *at, place);
      n_tried += (size_t)(is_name + is_mark);
      if (*at == '\\') at++;
    }
  ck_assert_uint_gt(n_tried, 40);
  free(e.bytes);
}

#if SIZE_MAX > UINT32_MAX
#define ALMOST_SIZE_MAX "18446744073709551614"
#else
#define ALMOST_SIZE_MAX "4294967294"
#endif

/* What is put in place of a text of the file, and what becomes of that. */
struct change {
  const char *from, *to;
  melu_status status;
  const char *says;
};

static void check_changes(const melu_model *model, const struct change *changes, size_t n) {
  for (size_t i = 0; i < n; i++) {
    err.message[0] = '\0';
    const melu_status status = load_replaced(model, changes[i].from, changes[i].to);
    ck_assert_msg(status == changes[i].status, "%s: %s, %s", changes[i].to, melu_status_name(status), err.message);
    ck_assert_msg(strstr(err.message, changes[i].says) != NULL, "%s: %s", changes[i].to, err.message);
    if (status) ck_assert_int_eq(err.status, status);
    if (status) ck_assert_msg(strstr(err.message, path) != NULL, "%s", err.message);
  }
}

START_TEST(schema_options_and_tensors_are_held_against_each_other) {
  static const struct change changes[] = {
      /* vocabularies */
      {"[\\\"ab\\\",\\\"c\\\",[\\\"ff\\\"]]", "[\\\"ab\\\",\\\"c\\\",[\\\"FF\\\"]]", MELU_EFORMAT, "vocabulary"},
      {"[\\\"ff\\\"]", "[\\\"fff\\\"]", MELU_EFORMAT, "vocabulary"},
      {"[\\\"ff\\\"]", "[\\\"f/\\\"]", MELU_EFORMAT, "vocabulary"},
      {"[\\\"ff\\\"]", "[\\\":f\\\"]", MELU_EFORMAT, "vocabulary"},
      {"[\\\"ff\\\"]", "[\\\"`f\\\"]", MELU_EFORMAT, "vocabulary"},
      {"[\\\"ff\\\"]", "[\\\"fg\\\"]", MELU_EFORMAT, "vocabulary"},
      {"[\\\"ff\\\"]", "[\\\"fe\\\",\\\"ff\\\"]", MELU_EFORMAT, "vocabulary"},
      {"[\\\"ff\\\"]", "[]", MELU_EFORMAT, "vocabulary"},
      {"[\\\"ff\\\"]", "1", MELU_EFORMAT, "vocabulary"},
      {"[\\\"ff\\\"]", "[\\\"63\\\"]", MELU_EFORMAT, "a text twice"},
      {"[\\\"ff\\\"]", "\\\"c\\\"", MELU_EFORMAT, "a text twice"},
      {"[\\\"ff\\\"]", "\\\"\\\"", MELU_OK, ""},
      {",[\\\"ff\\\"]", "", MELU_EFORMAT, "vocabulary"},
      {",[\\\"ff\\\"]", ",", MELU_EFORMAT, "vocabulary"},
      {"[\\\"ff\\\"]", "[\\\"ff\\\"],\\\"d\\\"", MELU_EFORMAT, "vocabulary"},
      {"\\\"n_values\\\":3", "\\\"n_values\\\":2", MELU_EFORMAT, "vocabulary"},
      {"\\\"n_values\\\":3", "\\\"n_values\\\":2147483647", MELU_EFORMAT, "vocabulary"},
      {"\\\"n_values\\\":3", "\\\"n_values\\\":" ALMOST_SIZE_MAX, MELU_ELIMIT, "2147483647"},
      {"\\\"n_values\\\":3", "\\\"n_values\\\":18446744073709551615", MELU_EFORMAT, "n_values"},
      {"3,\\\"texts\\\":[\\\"ab\\\",\\\"c\\\",[\\\"ff\\\"]]", "0", MELU_EFORMAT, "has no values"},
      /* fields */
      {",\\\"texts\\\"", ",\\\"tests\\\"", MELU_EFORMAT, "unknown"},
      {"[\\\"ff\\\"]]}", "[\\\"ff\\\"]],\\\"a\\\":1}", MELU_EFORMAT, "unknown"},
      {"\\\"word\\\"", "\\\"wo rd\\\"", MELU_EFORMAT, "character 2"},
      {"\\\"word\\\"", "\\\"\\\"", MELU_EFORMAT, "empty"},
      {"\\\"word\\\"", "\\\"swords\\\"", MELU_EFORMAT, "tensor \"E.swords\" is missing"},
      {"\\\"item\\\"", "\\\"Item\\\"", MELU_EFORMAT, "name, owner, kind"},
      {"\\\"one\\\"", "\\\"numeric\\\"", MELU_EFORMAT, "shift and scale"},
      {"\\\"one\\\"", "\\\"many\\\"", MELU_OK, ""},
      {"\\\"width\\\":1", "\\\"width\\\":0", MELU_EFORMAT, "name, owner, kind and width"},
      {"\\\"width\\\":1", "\\\"width\\\":2", MELU_EFORMAT, "tensor \"E.word\" is not of the type and shape"},
      {"\\\"width\\\":1", "\\\"width\\\":4097", MELU_ELIMIT, "4097"},
      {"{\\\"fields\\\":[{", "{\\\"fields\\\":[,{", MELU_EFORMAT, "field"},
      {"{\\\"fields\\\":[", "{\\\"fields\\\":[]}", MELU_EFORMAT, "follows"},
      {"\\\"fields\\\"", "\\\"field\\\"", MELU_EFORMAT, "list of fields"},
      /* options */
      {"\\\"preset\\\":\\\"melu\\\"", "\\\"preset\\\":\\\"mule\\\"", MELU_EFORMAT, "mule"},
      {"\\\"seed\\\":\\\"0\\\"", "\\\"seed\\\":\\\"18446744073709551616\\\"", MELU_EFORMAT, "seed"},
      {"\\\"seed\\\":\\\"0\\\"", "\\\"seed\\\":\\\"18446744073709551615\\\"", MELU_OK, ""},
      {"\\\"seed\\\":\\\"0\\\"", "\\\"seed\\\":0", MELU_EFORMAT, "seed"},
      {"\\\"hidden\\\":[1]", "\\\"hidden\\\":[]", MELU_EFORMAT, "n_hidden is 0"},
      {"\\\"hidden\\\":[1]", "\\\"hidden\\\":[65537]", MELU_EFORMAT, "65537"},
      {"\\\"hidden\\\":[1]", "\\\"hidden\\\":[1 1]", MELU_EFORMAT, "hidden widths"},
      {"\\\"hidden\\\":[1]", "\\\"hidden\\\":[1,1,1,1,1,1,1,1,1]", MELU_EFORMAT, "hidden widths"},
      {"\\\"hidden\\\":[1]", "\\\"hidden\\\":[1,1]", MELU_EFORMAT, "\"W3\" is missing"},
      {"\\\"inner_steps\\\":5", "\\\"inner_steps\\\":65", MELU_ELIMIT, "65"},
      {"\\\"inner_steps\\\":5", "\\\"inner_steps\\\":-1", MELU_EFORMAT, "an option"},
      {"\\\"inner_lr\\\":0.01", "\\\"inner_lr\\\":0.00", MELU_EFORMAT, "an option"},
      {"\\\"inner_lr\\\":0.01", "\\\"inner_lr\\\":-0.01", MELU_EFORMAT, "an option"},
      {"\\\"inner_lr\\\":0.01", "\\\"inner_lr\\\":1e999", MELU_EFORMAT, "an option"},
      {"\\\"inner_lr\\\":0.01", "\\\"inner_lr\\\":NaN", MELU_EFORMAT, "an option"},
      {"\\\"inner_lr\\\":0.01", "\\\"inner_lr\\\":1e-2", MELU_OK, ""},
      {"\\\"rating_min\\\":1.0", "\\\"rating_min\\\":5.0", MELU_EFORMAT, "an option"},
      {"\\\"rating_max\\\":5.0", "\\\"rating_max\\\":5.0,\\\"x\\\":0", MELU_EFORMAT, "an option"},
      {"\\\"rating_max\\\":5.0", "\\\"rating_max\\\":5.0}", MELU_EFORMAT, "an option"},
      /* tensors */
      {"\"E.word\"", "\"E.wort\"", MELU_EFORMAT, "tensor \"E.word\" is missing"},
      {"\"b2\"", "\"b\\u0032\"", MELU_OK, ""},
      {"\"shape\":[4,1]", "\"shape\":[1,4]", MELU_EFORMAT, "tensor \"E.word\" is not of the type and shape"},
      {"\"shape\":[4,1]", "\"shape\":[4]", MELU_EFORMAT, "tensor \"E.word\" is not of the type and shape"},
      {"{\"dtype\":\"F32\",\"shape\":[4,1]", "{\"dtype\":\"U32\",\"shape\":[4,1]", MELU_EFORMAT,
       "\"E.word\" is not of the type"},
      {",\"W1\":", ",\"W\\u001b\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},\"W1\":", MELU_EFORMAT,
       "tensor \"W?\" is none of"},
  };
  static const struct bytes texts[] = {BYTES("ab"), BYTES("c"), BYTES("\xff")};
  melu_model *model = model_of_texts(texts, 3);
  check_changes(model, changes, sizeof changes / sizeof *changes);
  /* Who does not want to know why is told that much. */
  melu_model *none = model;
  WORLD_TRY(melu_model_save(model, path, &err));
  edit_header(path, "\\\"rank\\\"", "\\\"link\\\"");
  ck_assert_int_eq(melu_model_load(&none, w.ctx, path, NULL), MELU_EFORMAT);
  ck_assert_ptr_null(none);
  melu_model_free(model);
}
END_TEST

START_TEST(every_word_matters) {
  static const struct bytes texts[] = {BYTES("ab"), BYTES("\xff")};
  const struct melu_model_options factors = {.size = sizeof factors, .preset = "best"};
  melu_model *with_texts = model_of_texts(texts, 2), *of_factors = model_with(&factors);
  check_every_word(w.model);
  check_every_word(with_texts);
  check_every_word(of_factors);
  melu_model_free(of_factors);
  melu_model_free(with_texts);
}
END_TEST

/* Each way in which what a file says of the network and of learning may be no model's. */
START_TEST(options_of_no_model) {
#define Q(text) "\\\"" text "\\\""
#define MISSING MELU_EFORMAT, "an option is missing, of the wrong type, or unknown"
  static const struct change of_layers[] = {
      /* names */
      {Q("network") ":" Q("layers"), Q("network") ":" Q("layer"), MISSING},
      {Q("network") ":" Q("layers"), Q("network") ":" Q(""), MISSING},
      {Q("network") ":" Q("layers"), Q("network") ":1", MISSING},
      {Q("network") ":" Q("layers"), Q("network") ":" Q("factors"), MELU_EFORMAT, "the head alone"},
      {Q("rule") ":" Q("steps"), Q("rule") ":" Q("Steps"), MISSING},
      {Q("rule") ":" Q("steps"), Q("rule") ":null", MISSING},
      {Q("rule") ":" Q("steps"), Q("rule") ":" Q("closed_form"), MELU_EFORMAT, "the head alone"},
      {Q("rates") ":" Q("fixed"), Q("rates") ":" Q("per_row"), MISSING},
      {Q("rates") ":" Q("fixed"), Q("rates") ":[]", MISSING},
      {Q("loss") ":" Q("squared"), Q("loss") ":" Q("square"), MISSING},
      {Q("loss") ":" Q("squared"), Q("loss") ":" Q("layers"), MISSING},
      {Q("loss") ":" Q("squared"), Q("loss") ":0", MISSING},
      {Q("loss") ":" Q("squared"), Q("loss") ":" Q("logistic"), MELU_OK, ""},
      {Q("loss") ":" Q("squared"), Q("loss") ":" Q("pairwise"), MELU_OK, ""},
      {Q("rates") ":" Q("fixed"), Q("rates") ":" Q("per_tensor"), MELU_EFORMAT, "tensor \"rate.W1\" is missing"},
      {Q("rule") ":" Q("steps") "," Q("adapt") ":[" Q("head") "," Q("hidden") "]",
       Q("rule") ":" Q("closed_form") "," Q("adapt") ":[" Q("head") "]", MELU_EFORMAT,
       "tensor \"precision\" is missing"},
      /* the rank */
      {Q("rank") ":48", Q("rank") ":0", MELU_EFORMAT, "an option is out of range"},
      {Q("rank") ":48", Q("rank") ":256", MELU_EFORMAT, "rank is 256"},
      {Q("rank") ":48", Q("rank") ":18446744073709551615", MISSING},
      {Q("rank") ":48", Q("rank") ":48.0", MISSING},
      {Q("rank") ":48", Q("rank") ":-48", MISSING},
      {Q("rank") ":48", Q("rank") ":" Q("48"), MISSING},
      {Q("rank") ":48", Q("rank") ":255", MELU_OK, ""},
      /* what is adapted */
      {"[" Q("head") "," Q("hidden") "]", "[]", MISSING},
      {"[" Q("head") "," Q("hidden") "]", "[" Q("hidden") "," Q("head") "]", MISSING},
      {"[" Q("head") "," Q("hidden") "]", "[" Q("head") "," Q("head") "]", MISSING},
      {"[" Q("head") "," Q("hidden") "]", "[" Q("head") "," Q("body") "]", MISSING},
      {"[" Q("head") "," Q("hidden") "]", "[" Q("head") "," Q("items") "," Q("user") "]", MISSING},
      {"[" Q("head") "," Q("hidden") "]", "[" Q("head") "," Q("hidden") ",]", MISSING},
      {"[" Q("head") "," Q("hidden") "]", "[" Q("head") " " Q("hidden") "]", MISSING},
      {"[" Q("head") "," Q("hidden") "]", "[" Q("head") "," Q("hidden") ",4]", MISSING},
      {"[" Q("head") "," Q("hidden") "]", "[" Q("head") "," Q("hidden"), MISSING},
      {"[" Q("head") "," Q("hidden") "]", Q("head"), MISSING},
      {"[" Q("head") "," Q("hidden") "]", "3", MISSING},
      {"[" Q("head") "," Q("hidden") "]", "[" Q("hidden") "," Q("items") "]", MELU_OK, ""},
      {"[" Q("head") "," Q("hidden") "]", "[" Q("hidden") "," Q("user") "]", MELU_EFORMAT, "no user field"},
      {"[" Q("head") "," Q("hidden") "]", "[" Q("head") "]", MELU_OK, ""},
      /* switches */
      {Q("multi_step") ":false", Q("multi_step") ":0", MISSING},
      {Q("multi_step") ":false", Q("multi_step") ":-1", MISSING},
      {Q("multi_step") ":false", Q("multi_step") ":True", MISSING},
      {Q("multi_step") ":false", Q("multi_step") ":" Q("false"), MISSING},
      {Q("multi_step") ":false", Q("multi_step") ":true", MELU_OK, ""},
      {Q("history") ":false", Q("history") ":null", MISSING},
      {Q("history") ":false", Q("history") ":true", MELU_EFORMAT, "history is for MELU_FACTORS"},
      {Q("learn_precision") ":false", Q("learn_precision") ":1", MISSING},
      {Q("learn_precision") ":false", Q("learn_precision") ":true", MELU_EFORMAT, "learn_precision is for"},
      /* each is there, in its place, once, and nothing else */
      {"," Q("network") ":" Q("layers"), "", MISSING},
      {"," Q("rank") ":48", "", MISSING},
      {"," Q("rule") ":" Q("steps"), "", MISSING},
      {"," Q("adapt") ":[" Q("head") "," Q("hidden") "]", "", MISSING},
      {"," Q("rates") ":" Q("fixed"), "", MISSING},
      {"," Q("loss") ":" Q("squared"), "", MISSING},
      {"," Q("multi_step") ":false", "", MISSING},
      {"," Q("history") ":false", "", MISSING},
      {"," Q("learn_precision") ":false", "", MISSING},
      {Q("rank") ":48", Q("ranks") ":48", MISSING},
      {Q("network") ":", Q("networks") ":", MISSING},
      {Q("rule") ":", Q("rules") ":", MISSING},
      {Q("adapt") ":", Q("adapts") ":", MISSING},
      {Q("rates") ":", Q("rate") ":", MISSING},
      {Q("loss") ":", Q("losses") ":", MISSING},
      {Q("multi_step") ":", Q("multi_steps") ":", MISSING},
      {Q("history") ":", Q("histories") ":", MISSING},
      {Q("learn_precision") ":", Q("learn_precisions") ":", MISSING},
      {Q("multi_step") ":false," Q("history") ":false", Q("history") ":false," Q("multi_step") ":false", MISSING},
      {Q("rank") ":48", Q("rank") ":48," Q("rank") ":48", MISSING},
      {Q("learn_precision") ":false", Q("learn_precision") ":false," Q("x") ":0", MISSING},
      {Q("learn_precision") ":false}", Q("learn_precision") ":false}}", MISSING},
      {Q("learn_precision") ":false}", Q("learn_precision") ":false", MISSING},
  };
  static const struct change of_factors[] = {
      {Q("hidden") ":[5]", Q("hidden") ":[5,5]", MELU_EFORMAT, "n_hidden is 2"},
      {Q("hidden") ":[5]", Q("hidden") ":[]", MELU_EFORMAT, "is none of this model's"},
      {Q("hidden") ":[5]", Q("hidden") ":[6]", MELU_EFORMAT, "tensor \"H1\" is not of the type and shape"},
      {Q("rank") ":2", Q("rank") ":3", MELU_EFORMAT, "tensor \"E.word\" is not of the type and shape"},
      {Q("rank") ":2", Q("rank") ":0", MELU_EFORMAT, "an option is out of range"},
      {Q("history") ":true", Q("history") ":false", MELU_EFORMAT, "is none of this model's"},
      {Q("learn_precision") ":false", Q("learn_precision") ":true", MELU_OK, ""},
      {Q("adapt") ":[" Q("head") "]", Q("adapt") ":[" Q("user") "]", MELU_EFORMAT, "the head alone"},
      {Q("adapt") ":[" Q("head") "]", Q("adapt") ":[" Q("head") "," Q("items") "]", MELU_EFORMAT, "the head alone"},
      {Q("rates") ":" Q("fixed"), Q("rates") ":" Q("per_entry"), MELU_EFORMAT, "no steps and no rates"},
      {Q("multi_step") ":false", Q("multi_step") ":true", MELU_EFORMAT, "no steps and no rates"},
      {Q("rule") ":" Q("closed_form"), Q("rule") ":" Q("steps"), MELU_OK, ""},
      {Q("rule") ":" Q("closed_form") "," Q("adapt") ":[" Q("head") "]," Q("rates") ":" Q("fixed"),
       Q("rule") ":" Q("steps") "," Q("adapt") ":[" Q("head") "]," Q("rates") ":" Q("per_tensor"), MELU_EFORMAT,
       "tensor \"rate\" is missing"},
      {Q("network") ":" Q("factors"), Q("network") ":" Q("layers"), MELU_EFORMAT, "history is for MELU_FACTORS"},
      {Q("loss") ":" Q("mixed"), Q("loss") ":" Q("logistic"), MELU_OK, ""},
      {"\"shape\":[1,2]", "\"shape\":[2]", MELU_EFORMAT, "is not of the type and shape"},
      {"\"precision\"", "\"precisiom\"", MELU_EFORMAT, "tensor \"precision\" is missing"},
  };
  static const struct bytes texts[] = {BYTES("ab"), BYTES("c")};
  const struct melu_model_options o = {.size = sizeof o, .preset = "best", .hidden = five, .n_hidden = 1, .rank = 2};
  melu_model *layers = model_of_texts(texts, 2), *factors = model_of_texts_with(texts, 2, &o);
  check_changes(layers, of_layers, sizeof of_layers / sizeof *of_layers);
  check_changes(factors, of_factors, sizeof of_factors / sizeof *of_factors);
  melu_model_free(layers);
  melu_model_free(factors);
}
END_TEST

/* -------------------------------------------------------------------------------------- memory of a refused file */

/* An allocator that counts bytes. */
struct meter {
  size_t now, peak;
};

static void *meter_alloc(void *arg, size_t n) {
  struct meter *m = arg;
  size_t *memory = malloc(n + 64);
  if (!memory) return NULL;
  *memory = n;
  m->now += n;
  if (m->now > m->peak) m->peak = m->now;
  return memory + 8;
}

static void meter_free(void *arg, void *memory) {
  struct meter *m = arg;
  size_t *start = (size_t *)memory - 8;
  m->now -= *start;
  free(start);
}

/* Loads what is at `path`, and holds the memory that it took against the promise. */
static melu_status load_metered(void) {
  struct meter meter = {0, 0};
  const struct melu_allocator allocator = {&meter, meter_alloc, meter_free};
  const struct melu_context_options o = {.size = sizeof o, .allocator = &allocator};
  struct stat info;
  melu_context *ctx;
  melu_model *model;
  ck_assert_int_eq(stat(path, &info), 0);
  WORLD_TRY(melu_context_new(&ctx, &o, &err));
  const size_t before = meter.peak = meter.now;
  const melu_status status = melu_model_load(&model, ctx, path, &err);
  ck_assert_uint_eq(status ? meter.now : before, before);
  if (status)
    ck_assert_msg(meter.peak - before <= 8 * (size_t)info.st_size + (1 << 20), "%zu bytes for a file of %zu: %s",
                  meter.peak - before, (size_t)info.st_size, err.message);
  melu_model_free(model);
  melu_context_free(ctx);
  return status;
}

/* `n` times the text, which may have a %x, between two others. */
static void write_repeated(const char *before, const char *text, const char *after, unsigned n) {
  char *header = malloc(strlen(before) + (strlen(text) + 8) * n + strlen(after) + 1), *at = header;
  ck_assert_ptr_nonnull(header);
  at = stpcpy(at, before);
  const char *x = strstr(text, "%x");
  for (unsigned i = 0; i < n; i++)
    at += x ? sprintf(at, "%.*s%x%s", (int)(x - text), text, i, x + 2) : sprintf(at, "%s", text);
  strcpy(at, after);
  write_hostile(header, 0, 0);
  free(header);
}

START_TEST(a_refused_file_takes_little_memory) {
  static const struct {
    const char *before, *text, *after;
  } repeated[] = {
      {"{\"a\":[", "[],", "[]]}"},
      {"{\"a\":[", "{},", "{}]}"},
      {"{\"a\":[", "1,", "1]}"},
      {"", "[", ""},
      {"", "{\"a\":", ""},
      {"{\"a\":\"", "x", "\"}"},
      {"{\"__metadata__\":{", "\"%x\":\"\",", "\"\":\"\"}}"},
      {"{", "\"%x\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},", "\"__metadata__\":{}}"},
      {M F("1") ",\"options\":\"\",\"schema\":\"", "{},", "\"}}"},
  };
  for (size_t i = 0; i < sizeof repeated / sizeof *repeated; i++) {
    write_repeated(repeated[i].before, repeated[i].text, repeated[i].after, 50000);
    ck_assert_int_eq(load_metered(), MELU_EFORMAT);
  }
}
END_TEST

/* A vocabulary that a small file only claims. */
START_TEST(a_claimed_vocabulary_takes_little_memory) {
  static const struct bytes texts[] = {BYTES("a")};
  static const char *const claims[] = {"\\\"n_values\\\":100000", "\\\"n_values\\\":2147483647"};
  melu_model *model = model_of_texts(texts, 1);
  for (size_t i = 0; i < 2; i++) {
    ck_assert_int_eq(load_replaced(model, "\\\"n_values\\\":1", claims[i]), MELU_EFORMAT);
    ck_assert_int_eq(load_metered(), MELU_EFORMAT);
  }
  melu_model_free(model);
}
END_TEST

/* A large vocabulary of short texts, found wrong as late as possible. */
START_TEST(a_refused_vocabulary_takes_little_memory) {
  enum { N = 40000 };
  static char names[N][4];
  static struct bytes texts[N];
  size_t n;
  for (int i = 0; i < N; i++) {
    for (int k = 0, x = i; k < 3; k++, x /= 64) names[i][k] = (char)('0' + x % 64 + (x % 64 >= 44));
    texts[i] = (struct bytes){names[i], 3};
  }
  melu_model *model = model_of_texts(texts, N);
  WORLD_TRY(melu_model_save(model, path, &err));
  ck_assert_int_eq(load_metered(), MELU_OK);
  unsigned char *bytes = read_file(&n);
  unsigned char kept[4];
  memcpy(kept, bytes + n - 4, 4); /* b2, the last number of all */
  put_bits(bytes + n - 4, NAN_BITS);
  set_checksum(bytes, n);
  write_file(bytes, n);
  ck_assert_int_eq(load_metered(), MELU_ERANGE);
  memcpy(bytes + n - 4, kept, 4);
  for (size_t i = 0; i + 8 < n; i++)
    if (memcmp(bytes + i, names[N - 1], 3) == 0 && bytes[i + 3] == '\\') memcpy(bytes + i, names[0], 3);
  set_checksum(bytes, n);
  write_file(bytes, n);
  ck_assert_int_eq(load_metered(), MELU_EFORMAT);
  ck_assert_msg(strstr(err.message, "a text twice") != NULL, "%s", err.message);
  free(bytes);
  melu_model_free(model);
}
END_TEST

/* -------------------------------------------------------------------------------------------- the rooms below */

START_TEST(tensors_of_every_type) {
  const real reals[6] = {0, -1.5f, 3.25f, 1e30f, -1e-30f, 7};
  const double doubles[2] = {0.1, -1e300};
  const uint32_t u32[3] = {0, 1, UINT32_MAX};
  const uint64_t u64[1] = {UINT64_MAX - 1};
  const int64_t i64[2] = {INT64_MIN, -2};
  const struct melu__tensor tensors[] = {
      {.name = "reals", .dtype = MELU__F32, .n_dims = 2, .dims = {2, 3}, .data = reals},
      {.name = "doubles", .dtype = MELU__F64, .n_dims = 1, .dims = {2, 0}, .data = doubles},
      {.name = "u32", .dtype = MELU__U32, .n_dims = 1, .dims = {3, 0}, .data = u32},
      {.name = "one", .dtype = MELU__U64, .n_dims = 0, .dims = {0, 0}, .data = u64},
      {.name = "i64", .dtype = MELU__I64, .n_dims = 2, .dims = {2, 1}, .data = i64},
      {.name = "none", .dtype = MELU__F64, .n_dims = 2, .dims = {0, 5}, .data = NULL}};
  const size_t n = sizeof tensors / sizeof *tensors, sizes[] = {sizeof reals, 16, 12, 8, 16, 0};
  struct melu__safetensors f;
  json_t *metadata = json_pack("{s:s}", "who", "a test");
  struct melu__saved saved;
  WORLD_TRY(melu__safetensors_save(&saved, w.ctx, path, metadata, tensors, n, &err));
  json_decref(metadata);
  WORLD_TRY(melu__safetensors_load(&f, w.ctx, path, 1, &err));
  ck_assert_uint_eq(f.checksum, saved.checksum);
  ck_assert_uint_eq(f.n_tensors, n);
  ck_assert_uint_eq(f.n_data, 24 + 16 + 12 + 8 + 16);
  ck_assert_str_eq(melu__safetensors_text(&f, "who", NULL), "a test");
  ck_assert_ptr_null(melu__safetensors_text(&f, "what", NULL));
  for (size_t i = 0; i < n; i++) {
    uint64_t back[8];
    WORLD_TRY(melu__safetensors_expect(&f, &tensors[i], &err));
    melu__safetensors_copy(back, &f, tensors[i].name);
    ck_assert_msg(!sizes[i] || memcmp(back, tensors[i].data, sizes[i]) == 0, "%s", tensors[i].name);
    struct melu__tensor other = tensors[i];
    other.dtype = other.dtype == MELU__U32 ? MELU__F32 : MELU__U32;
    ck_assert_int_eq(melu__safetensors_expect(&f, &other, &err), MELU_EFORMAT);
  }
  float floats[6];
  const struct melu__tensor as_floats = {
      .name = "reals", .dtype = MELU__FLOAT, .n_dims = 2, .dims = {2, 3}, .data = NULL};
  WORLD_TRY(melu__safetensors_expect(&f, &as_floats, &err));
  melu__safetensors_copy_floats(floats, &f, "reals");
  for (size_t i = 0; i < 6; i++) ck_assert(floats[i] == (float)reals[i]);
  melu__safetensors_free(&f);
  melu__safetensors_free(&f); /* nothing is left to free */

  const real not_finite[6] = {0, 0, 0, 0, (real)NAN, 0};
  const double infinite[2] = {0, -INFINITY};
  const struct melu__tensor bad[] = {
      {.name = "reals", .dtype = MELU__F32, .n_dims = 2, .dims = {3, 2}, .data = not_finite},
      {.name = "doubles", .dtype = MELU__F64, .n_dims = 1, .dims = {2, 0}, .data = infinite}};
  metadata = json_object();
  WORLD_TRY(melu__safetensors_save(NULL, w.ctx, path, metadata, bad, 2, &err));
  json_decref(metadata);
  WORLD_TRY(melu__safetensors_load(&f, w.ctx, path, 1, &err));
  ck_assert_int_eq(melu__safetensors_expect(&f, &bad[0], &err), MELU_ERANGE);
  ck_assert_uint_eq(err.index, 2);
  ck_assert_msg(strstr(err.message, "\"reals\": row 2") != NULL, "%s", err.message);
  ck_assert_int_eq(melu__safetensors_expect(&f, &bad[1], &err), MELU_ERANGE);
  ck_assert_uint_eq(err.index, 1);
  melu__safetensors_free(&f);
}
END_TEST

/* Our reader and jansson take the same texts, and make the same of them. */
static int compare_string(const char *text, size_t n) {
  char copy[64], *found;
  size_t length = 0;
  memcpy(copy, text, n);
  struct melu__json j = {copy, copy + n};
  json_t *theirs = json_loadb(text, n, JSON_DECODE_ANY, NULL);
  const int ours = melu__json_string(&j, &found, &length) && melu__json_end(&j);
  ck_assert_msg(ours == json_is_string(theirs), "%.*s", (int)n, text);
  if (ours) {
    ck_assert(length == json_string_length(theirs) && strcmp(found, json_string_value(theirs)) == 0);
    ck_assert(melu__is_text(found, length));
  }
  json_decref(theirs);
  return ours;
}

static int compare_number(const char *text, size_t n) {
  char copy[64];
  double value = 0;
  memcpy(copy, text, n);
  struct melu__json j = {copy, copy + n};
  json_t *theirs = json_loadb(text, n, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
  const int ours = melu__json_real(&j, &value) && melu__json_end(&j);
  if (ours != json_is_real(theirs)) { /* the one difference: an exponent of more than four digits is nothing to us */
    const char *e = memchr(text, 'e', n) ? memchr(text, 'e', n) : memchr(text, 'E', n);
    ck_assert_msg(!ours && e && text + n - e > 4, "%.*s", (int)n, text);
  }
  if (ours) ck_assert_msg(value == json_real_value(theirs), "%.*s", (int)n, text);
  json_decref(theirs);
  return ours;
}

START_TEST(json_is_read_as_jansson_reads_it) {
  static const char *const string_bytes =
      "\\\\\\u0dD8cCbnrt/\"\"ax \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xed\xa0\x01\x7f";
  static const char *const number_bytes = "00123456789..--+eE ";
  static const char *const strings[] = {"\"\\ud83d\\ude00\"",
                                        "\"\\uD83D\\uDE00\"",
                                        "\"\\ud800\\udc00\"",
                                        "\"\\udbff\\udfff\"",
                                        "\"\\ud83d\\ud83d\"",
                                        "\"\\ud83d\\u0041\"",
                                        "\"\\ud83d\\ue000\"",
                                        "\"\\ud83d\\udbff\"",
                                        "\"\\ud83dude00\"",
                                        "\"\\ud83d\"",
                                        "\"\\ud83d\\ude0\"",
                                        "\"\\ud83d\\ude0g\"",
                                        "\"\\ud83d\\n\"",
                                        "\"\\udc00\\ud83d\"",
                                        "\"\\ud7ff\\ue000\"",
                                        "\"\\uffff\"",
                                        "\"\\u0000\"",
                                        "\"\\u007f\\u0080\"",
                                        "\"\\u07ff\\u0800\"",
                                        "\"\\u00g0\"",
                                        "\"\\u00/0\"",
                                        "\"\\u00:0\"",
                                        "\"\\u00@0\"",
                                        "\"\\u00",
                                        "\"\\u0041",
                                        "\"\\",
                                        "\"\\\"",
                                        "\"\\'\"",
                                        "\"\\x\"",
                                        "\"",
                                        "",
                                        " \"\" ",
                                        "\t\r\n\"\"\n\r\t",
                                        "\"\" x",
                                        "x\"\"",
                                        "\"\xf4\x8f\xbf\xbf\"",
                                        "\"\xf4\x90\x80\x80\"",
                                        "\"\xe0\xa0\x80\"",
                                        "\"\xe0\x9f\xbf\"",
                                        "\"\xed\x9f\xbf\"",
                                        "\"\xed\xa0\x80\"",
                                        "\"\xc2\x80\"",
                                        "\"\xc1\xbf\"",
                                        "\"\xf0\x90\x80\x80\"",
                                        "\"\xf0\x8f\xbf\xbf\"",
                                        "\"\xf5\x80\x80\x80\"",
                                        "\"\xc3\"",
                                        "\"\x80\""};
  uint64_t random = 1;
  int n_strings = 0, n_numbers = 0;
  for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) compare_string(strings[i], strlen(strings[i]));
  for (int round = 0; round < 200000; round++) {
    char text[24];
    const char *from = round % 2 ? number_bytes : string_bytes;
    const size_t n = 1 + world_random(&random) % 20;
    for (size_t i = 0; i < n; i++) text[i] = from[world_random(&random) % strlen(from)];
    if (from == number_bytes) {
      n_numbers += compare_number(text, n);
    } else {
      text[0] = text[n - 1] = '"';
      n_strings += compare_string(text, n);
    }
  }
  ck_assert_int_gt(n_strings, 1000);
  ck_assert_int_gt(n_numbers, 1000);
}
END_TEST

/* Doubles that were written with 17 digits are the same ones when read. */
START_TEST(json_numbers_come_back) {
  uint64_t random = 7, whole;
  for (int i = 0; i < 20000; i++) {
    const uint64_t bits =
        (uint64_t)world_random(&random) << 33 ^ (uint64_t)world_random(&random) << 11 ^ world_random(&random);
    double value, back;
    char text[40];
    memcpy(&value, &bits, sizeof value);
    if (!isfinite(value)) continue;
    const int n = snprintf(text, sizeof text, "%.17g", value);
    struct melu__json j = {text, text + n};
    ck_assert_msg(melu__json_real(&j, &back) && melu__json_end(&j), "%.17g", value);
    ck_assert_msg(memcmp(&back, &value, sizeof value) == 0, "%.17g", value);
  }
  static const struct {
    const char *text;
    int is_whole;
    uint64_t value;
  } wholes[] = {{"0", 1, 0},
                {" 18446744073709551615 ", 1, UINT64_MAX},
                {"18446744073709551616", 0, 0},
                {"99999999999999999999", 0, 0},
                {"00", 0, 0},
                {"01", 0, 0},
                {"-0", 0, 0},
                {"1.0", 0, 0},
                {"1e1", 0, 0},
                {"", 0, 0}};
  /* Of more than 40 characters before an exponent none is written. */
  static const struct { const char *sign, *point; } forms[] = {{"", ""}, {"-", ""}, {"", "0."}, {"-", "0."}};
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
    for (int n = 38; n < 43; n++) {
      char text[64];
      double back;
      const int length = snprintf(text, sizeof text, "%s%s%.*se1", forms[i].sign, forms[i].point, n,
                                  "1234567890123456789012345678901234567890123");
      struct melu__json j = {text, text + length};
      const int n_kept = n + (int)strlen(forms[i].sign) + (*forms[i].point != 0);
      ck_assert_msg(melu__json_real(&j, &back) == (n_kept <= 40), "%s", text);
      if (n_kept <= 40) ck_assert(back == strtod(text, NULL));
    }
  for (size_t i = 0; i < sizeof wholes / sizeof *wholes; i++) {
    char text[32];
    strcpy(text, wholes[i].text);
    struct melu__json j = {text, text + strlen(text)};
    ck_assert_msg((melu__json_whole(&j, &whole) && melu__json_end(&j)) == wholes[i].is_whole, "%s", wholes[i].text);
    if (wholes[i].is_whole) ck_assert(whole == wholes[i].value);
  }
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
  model = w.model;
  ck_assert_int_eq(melu_model_load(&model, w.ctx, NULL, &err), MELU_EINVAL);
  ck_assert_ptr_null(model);
  ck_assert_int_eq(melu_model_load(&model, w.ctx, path, &err), MELU_ENOTFOUND);
  ck_assert_int_eq(err.sys_errno, ENOENT);
  ck_assert_msg(strstr(err.message, path) != NULL, "%s", err.message);
  ck_assert_int_eq(melu_model_load(&model, w.ctx, folder, &err), MELU_EIO);
  snprintf(missing, sizeof missing, "%s/nowhere/model", folder);
  ck_assert_int_eq(melu_model_save(w.model, missing, &err), MELU_EIO);
  ck_assert_int_eq(err.sys_errno, ENOENT);
  ck_assert_int_eq(melu_model_save(w.model, folder, &err), MELU_EIO); /* a folder is in the way */
  write_file("nothing of the kind", 19);
  ck_assert_int_eq(melu_model_load(&model, w.ctx, path, &err), MELU_EFORMAT);
  ck_assert_msg(strstr(err.message, path) != NULL, "%s", err.message);
}
END_TEST

/* The old file as it was, no other beside it. */
static void check_old_file(const unsigned char *old, size_t n) {
  size_t m;
  unsigned char *now = read_file(&m);
  ck_assert(n == m && memcmp(now, old, n) == 0);
  ck_assert_int_eq(files_in_folder(), 1);
  free(now);
}

START_TEST(a_failed_save_leaves_the_old_file) {
  static const int errors[] = {ENOSPC, EIO, EDQUOT};
  struct fault *const faults[] = {&failing_write, &failing_fsync, &failing_rename};
  static const char *const steps[] = {"write", "force to the disk", "put in place"};
  size_t n;
  melu_model *newer = model_with_texts();
  WORLD_TRY(melu_model_save(w.model, path, &err));
  unsigned char *old = read_file(&n);
  for (size_t f = 0; f < 3; f++) {
    for (size_t e = 0; e < 3; e++) {
      melu_status status = MELU_EIO;
      int at = 0;
      while (status) {
        *faults[f] = (struct fault){.at = ++at, .error = errors[e]};
        status = melu_model_save(newer, path, &err);
        all_is_well();
        if (!status) break;
        ck_assert_int_eq(status, MELU_EIO);
        ck_assert_int_eq(err.sys_errno, errors[e]);
        ck_assert_msg(strstr(err.message, path) && strstr(err.message, steps[f]), "%s", err.message);
        if (f == 1 && at == 2) WORLD_TRY(melu_model_save(w.model, path, &err)); /* only the folder was not forced */
        check_old_file(old, n);
      }
      ck_assert_int_gt(at, f == 1 ? 2 : 1); /* there are the file and the folder to force */
      ck_assert_int_eq(files_in_folder(), 1);
      ck_assert_int_eq(load(), MELU_OK);
      WORLD_TRY(melu_model_save(w.model, path, &err)); /* the cause is gone */
      check_old_file(old, n);
    }
  }
  free(old);
  melu_model_free(newer);
}
END_TEST

/* A system that takes nothing and does not say why, one that has no way to force a folder to the disk, and a file that
 * becomes shorter while it is read. */
START_TEST(strange_systems) {
  size_t n;
  WORLD_TRY(melu_model_save(w.model, path, &err));
  unsigned char *old = read_file(&n);
  failing_write = (struct fault){.at = 2};
  ck_assert_int_eq(melu_model_save(w.model, path, &err), MELU_EIO);
  ck_assert_int_eq(err.sys_errno, EIO);
  all_is_well();
  check_old_file(old, n);
  failing_fsync = (struct fault){.at = 2, .error = EINVAL};
  WORLD_TRY(melu_model_save(w.model, path, &err));
  ck_assert_int_eq(failing_fsync.calls, 2);
  all_is_well();
  check_old_file(old, n);
  failing_read = (struct fault){.at = 1};
  ck_assert_int_eq(load(), MELU_ECORRUPT);
  ck_assert_msg(strstr(err.message, "became shorter") != NULL, "%s", err.message);
  all_is_well();
  free(old);
}
END_TEST

/* The folder of a path is what stands before its last slash, or the one that the process is in. */
START_TEST(the_folder_of_a_path) {
  static const char *const paths[][2] = {{"nothing-there", "."}, {"/nothing-there", "/"}, {"../nothing", ".."}};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    failing_open = (struct fault){.at = 1, .error = EMFILE};
    ck_assert_int_eq(melu_model_save(w.model, paths[i][0], &err), MELU_EIO);
    ck_assert_msg(strstr(err.message, "open the folder") != NULL, "%s", err.message);
    ck_assert_str_eq(opened, paths[i][1]);
    all_is_well();
  }
}
END_TEST

/* What a signal of the host's interrupts is done all the same. */
START_TEST(what_is_interrupted_goes_on) {
  struct fault *const faults[] = {&failing_open, &failing_fsync, &failing_rename, &failing_stat};
  static const int n_calls[] = {2, 2, 1, 1};
  size_t n;
  WORLD_TRY(melu_model_save(w.model, path, &err));
  unsigned char *old = read_file(&n);
  for (size_t f = 0; f < 4; f++)
    for (int at = 1; at <= n_calls[f]; at++) {
      unlink(path);
      *faults[f] = (struct fault){.at = at, .error = EINTR};
      WORLD_TRY(melu_model_save(w.model, path, &err));
      ck_assert_int_gt(faults[f]->calls, n_calls[f]); /* it was hit, and called again */
      all_is_well();
      check_old_file(old, n);
    }
  failing_open = (struct fault){.at = 1, .error = EINTR};
  ck_assert_int_eq(load(), MELU_OK);
  all_is_well();
  free(old);
}
END_TEST

/* Also where it is the folder that cannot be opened, or the file not be looked at: nothing is put in place then. */
START_TEST(a_save_that_cannot_begin_changes_nothing) {
  struct fault *const faults[] = {&failing_open, &failing_open, &failing_stat};
  static const char *const steps[] = {"open the folder", "temporary file", "look at"};
  size_t n;
  melu_model *newer = model_with_texts();
  WORLD_TRY(melu_model_save(w.model, path, &err));
  unsigned char *old = read_file(&n);
  for (int f = 0; f < 3; f++) {
    *faults[f] = (struct fault){.at = f == 1 ? 2 : 1, .error = EMFILE};
    ck_assert_int_eq(melu_model_save(newer, path, &err), MELU_EIO);
    all_is_well();
    ck_assert_int_eq(err.sys_errno, EMFILE);
    ck_assert_msg(strstr(err.message, steps[f]) != NULL, "%s", err.message);
    check_old_file(old, n);
  }
  free(old);
  melu_model_free(newer);
}
END_TEST

START_TEST(interrupted_and_short_writes_go_on) {
  size_t n;
  WORLD_TRY(melu_model_save(w.model, path, &err));
  unsigned char *old = read_file(&n);
  unlink(path);
  for (int at = 1; at <= 5; at++) {
    failing_write = (struct fault){.at = at, .error = EINTR};
    WORLD_TRY(melu_model_save(w.model, path, &err));
    all_is_well();
    check_old_file(old, n);
  }
  for (most = 1; most < 20; most += 6) {
    WORLD_TRY(melu_model_save(w.model, path, &err));
    check_old_file(old, n);
  }
  free(old);
}
END_TEST

/* A folder that nobody may write to; root may, so it goes as somebody else. */
START_TEST(a_folder_without_permission) {
  WORLD_TRY(melu_model_save(w.model, path, &err));
  ck_assert_int_eq(chmod(folder, 0555), 0);
  const int is_root = geteuid() == 0;
  if (is_root) ck_assert_int_eq(seteuid(65534), 0);
  const melu_status saved = melu_model_save(w.model, path, &err), loaded = load();
  const int number = err.sys_errno;
  if (is_root) ck_assert_int_eq(seteuid(0), 0);
  ck_assert_int_eq(chmod(folder, 0700), 0);
  ck_assert_int_eq(saved, MELU_EIO);
  ck_assert_int_eq(number, EACCES);
  ck_assert_msg(strstr(err.message, path) != NULL, "%s", err.message);
  ck_assert_int_eq(loaded, MELU_OK);
  ck_assert_int_eq(files_in_folder(), 1);
  ck_assert_int_eq(chmod(path, 0), 0);
  if (is_root) ck_assert_int_eq(seteuid(65534), 0);
  const melu_status closed = load();
  if (is_root) ck_assert_int_eq(seteuid(0), 0);
  ck_assert_int_eq(closed, MELU_EIO);
  ck_assert_int_eq(err.sys_errno, EACCES);
}
END_TEST

/* What is no regular file is neither replaced nor waited for. The devices stand behind links, so that what is at stake
 * if they were replaced is a link. */
START_TEST(devices_and_pipes) {
  static const char *const devices[] = {"/dev/full", "/dev/null"};
  struct stat info;
  for (size_t i = 0; i < 2; i++) {
    ck_assert_int_eq(symlink(devices[i], path), 0);
    ck_assert_int_eq(melu_model_save(w.model, path, &err), MELU_EIO);
    ck_assert_msg(strstr(err.message, path) != NULL, "%s", err.message);
    ck_assert_int_eq(lstat(path, &info), 0);
    ck_assert_msg(S_ISLNK(info.st_mode), "%s would have been replaced", devices[i]);
    ck_assert_int_eq(load(), MELU_EIO);
    ck_assert_int_eq(unlink(path), 0);
  }
  ck_assert_int_eq(mkfifo(path, 0600), 0);
  ck_assert_int_eq(load(), MELU_EIO);
  ck_assert_int_eq(melu_model_save(w.model, path, &err), MELU_EIO);
  ck_assert_int_eq(stat(path, &info), 0);
  ck_assert(S_ISFIFO(info.st_mode));
}
END_TEST

/* A name that somebody left behind is passed over, and not touched. */
START_TEST(a_temporary_name_is_taken) {
  char taken[96];
  snprintf(taken, sizeof taken, "%s.tmp-%ld-0", path, (long)getpid());
  FILE *f = fopen(taken, "w");
  ck_assert_ptr_nonnull(f);
  fputs("somebody's", f);
  fclose(f);
  WORLD_TRY(melu_model_save(w.model, path, &err));
  ck_assert_int_eq(load(), MELU_OK);
  ck_assert_int_eq(files_in_folder(), 2);
  struct stat info;
  ck_assert_int_eq(stat(taken, &info), 0);
  ck_assert_int_eq(info.st_size, 10);
  unlink(taken);
}
END_TEST

/* And if all of them are, the save says so. */
START_TEST(all_temporary_names_are_taken) {
  enum { NAMES = 1000 };
  char taken[96];
  for (int i = 0; i < NAMES; i++) {
    snprintf(taken, sizeof taken, "%s.tmp-%ld-%d", path, (long)getpid(), i);
    ck_assert_int_eq(symlink("nowhere", taken), 0);
  }
  ck_assert_int_eq(melu_model_save(w.model, path, &err), MELU_EIO);
  ck_assert_int_eq(err.sys_errno, EEXIST);
  ck_assert_int_eq(files_in_folder(), NAMES);
  for (int i = 0; i < NAMES; i++) {
    snprintf(taken, sizeof taken, "%s.tmp-%ld-%d", path, (long)getpid(), i);
    unlink(taken);
  }
}
END_TEST

/* The end of a long path says more than its beginning. */
START_TEST(long_paths_are_named_by_their_ends) {
  char long_path[256];
  melu_model *model;
  snprintf(long_path, sizeof long_path, "%s/%s%s", folder,
           "a-name-that-is-so-long-that-no-message-could-have-all-of-it-and-its-folder-and-the-reason-too",
           "-of-this-model");
  WORLD_TRY(melu_model_save(w.model, long_path, &err));
  edit_header(long_path, "\\\"rank\\\"", "\\\"link\\\"");
  const melu_status status = melu_model_load(&model, w.ctx, long_path, &err);
  unlink(long_path);
  ck_assert_int_eq(status, MELU_EFORMAT);
  ck_assert_msg(strncmp(err.message, long_path + strlen(long_path) - 100, 100) == 0, "%s", err.message);
  ck_assert_msg(strstr(err.message, "an option is missing") != NULL, "%s", err.message);
}
END_TEST

/* The JSON is written by jansson, whose memory is malloc's: what it cannot have is reported like our own. */
START_TEST(every_allocation_of_jansson_fails_once) {
  melu_model *models[2] = {model_with_texts(), model_of_texts((const struct bytes[]){{"\xff", 1}, {"a", 1}}, 2)};
  for (int i = 0; i < 2; i++) {
    size_t n;
    WORLD_TRY(melu_model_save(models[i], path, &err));
    unsigned char *old = read_file(&n);
    melu_status status = MELU_ENOMEM;
    size_t at = 0;
    while (status == MELU_ENOMEM) {
      json_refuse(++at);
      status = melu_model_save(models[i], path, &err);
      ck_assert_uint_eq(json_live, 0);
      check_old_file(old, n);
    }
    json_refuse(0);
    ck_assert_int_eq(load(), MELU_OK);
    ck_assert_uint_eq(json_made, 0); /* nothing is read with jansson, which cannot stand that */
    json_refuse_none();
    ck_assert_int_eq(status, MELU_OK);
    ck_assert_uint_gt(at, 50);
    free(old);
    melu_model_free(models[i]);
  }
}
END_TEST

/* However long the names are, so that memory runs out at any mark. */
START_TEST(json_without_memory) {
  for (int length = 0; length < 70; length++) {
    char name[80], expected[200];
    size_t n, n_failures = 0;
    snprintf(name, sizeof name, "%.*s", length,
             "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqr");
    snprintf(expected, sizeof expected, "{\"%s\":[1.0,-0.25],\"b\":{\"c\":1e+30}}", name);
    json_t *json = json_pack("{s:[f,f],s:{s:f}}", name, 1.0, -0.25, "b", "c", 1e30);
    for (int has_failed = 1; has_failed; n_failures += (size_t)has_failed) {
      struct test_heap heap = {.fail_at = n_failures + 1};
      const struct melu_allocator a = test_allocator(&heap);
      char *text = melu__json_dump(&n, json, &a);
      has_failed = text == NULL;
      if (text) ck_assert(n == strlen(expected) && strcmp(text, expected) == 0);
      melu__free(&a, text);
      ck_assert_uint_eq(heap.live, 0);
    }
    ck_assert_uint_gt(n_failures, 0);
    json_decref(json);
  }
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
  static const struct bytes texts[] = {BYTES("a"), BYTES("\xff")};
  size_t n_before, n_after;
  melu_model *model = _i ? model_of_texts(texts, 2) : w.model;
  WORLD_TRY(melu_model_save(model, path, &err));
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
  if (_i) melu_model_free(model);
}
END_TEST

int main(void) {
  Suite *s = suite_create("model_file");
  TCase *t = tcase_create("files");
  tcase_set_timeout(t, 120);
  tcase_add_checked_fixture(t, open_all, close_all);
  tcase_add_test(t, everything_comes_back);
  tcase_add_test(t, a_file_is_rounded_in_no_way);
  tcase_add_test(t, every_option_comes_back);
  tcase_add_test(t, texts_of_any_bytes_come_back);
  tcase_add_test(t, an_independent_reader_finds_the_same);
  tcase_add_test(t, a_loaded_model_predicts_the_same);
  tcase_add_test(t, a_loaded_model_goes_on_training);
  tcase_add_test(t, truncated_at_every_byte);
  tcase_add_test(t, every_bit_flipped);
  tcase_add_test(t, hostile_headers);
  tcase_add_test(t, a_header_may_be_too_long);
  tcase_add_test(t, a_right_checksum_is_not_enough);
  tcase_add_test(t, schema_options_and_tensors_are_held_against_each_other);
  tcase_add_test(t, every_word_matters);
  tcase_add_test(t, options_of_no_model);
  tcase_add_test(t, a_refused_file_takes_little_memory);
  tcase_add_test(t, a_claimed_vocabulary_takes_little_memory);
  tcase_add_test(t, a_refused_vocabulary_takes_little_memory);
  tcase_add_test(t, tensors_of_every_type);
  tcase_add_test(t, json_is_read_as_jansson_reads_it);
  tcase_add_test(t, json_numbers_come_back);
  tcase_add_test(t, bad_arguments_and_paths);
  tcase_add_test(t, a_failed_save_leaves_the_old_file);
  tcase_add_test(t, strange_systems);
  tcase_add_test(t, the_folder_of_a_path);
  tcase_add_test(t, what_is_interrupted_goes_on);
  tcase_add_test(t, a_save_that_cannot_begin_changes_nothing);
  tcase_add_test(t, interrupted_and_short_writes_go_on);
  tcase_add_test(t, a_folder_without_permission);
  tcase_add_test(t, devices_and_pipes);
  tcase_add_test(t, a_temporary_name_is_taken);
  tcase_add_test(t, all_temporary_names_are_taken);
  tcase_add_test(t, long_paths_are_named_by_their_ends);
  tcase_add_test(t, every_allocation_of_jansson_fails_once);
  tcase_add_test(t, json_without_memory);
  tcase_add_loop_test(t, every_allocation_fails_once, 0, 2);
  suite_add_tcase(s, t);
  return run_suite(s);
}
