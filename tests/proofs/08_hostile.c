/* SPDX-License-Identifier: BSD-3-Clause */
/* Proof 8: files and bytes made by somebody who sets checksums right. Each is refused with its own status, takes at
 * most 8 times its size and a mebibyte of memory, from the host's allocator and from anywhere else, gives all of it
 * back, and less than 100 ms. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "hostile.h"
#include "repair.h"

static struct {
  size_t n, n_models;   /* hostile things, and how many of them were model files */
  double slowest, most; /* in milliseconds; in parts of the memory that was allowed */
} figures;

/* ------------------------------------------------------------------------------------------------- measuring */

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

void hostile_measure(melu_status (*load)(void *arg, melu_error *err), void *arg, size_t n_bytes, struct refusal want,
                     const char *what) {
  double best = INFINITY;
  for (int i = 0; i < 2 || (i < 5 && best >= 50); i++) {
    melu_error err = {.message = ""};
    const long long live = atomic_load(&proof_heap.live), allowed = 8 * (long long)n_bytes + (1 << 20);
    atomic_store(&proof_heap.peak, live);
    const double start = now_ms();
    const melu_status status = load(arg, &err);
    const double took = now_ms() - start;
    const long long peak = atomic_load(&proof_heap.peak) - live, left = atomic_load(&proof_heap.live) - live;
    PROOF_NEEDS(status == want.status && err.status == status, "%s: %s instead of %s: %s", what,
                melu_status_name(status), melu_status_name(want.status), err.message);
    PROOF_NEEDS(strstr(err.message, want.says), "%s: \"%s\" does not say \"%s\"", what, err.message, want.says);
    PROOF_NEEDS(peak <= allowed, "%s: %lld bytes of memory for %zu", what, peak, n_bytes);
    PROOF_NEEDS(i == 0 || left <= 0, "%s: %lld bytes of memory were kept", what, left);
    if ((double)peak / (double)allowed > figures.most) figures.most = (double)peak / (double)allowed;
    if (took < best) best = took;
  }
  PROOF_NEEDS(best < 100, "%s: %.0f ms", what, best);
  if (best > figures.slowest) figures.slowest = best;
  figures.n++;
}

/* ------------------------------------------------------------------------------------------------ model files */

static melu_status load_model(void *arg, melu_error *err) {
  const struct scene *s = arg;
  melu_model *model;
  const melu_status status = melu_model_load(&model, s->ctx, scene_path(s, "hostile"), err);
  melu_model_free(model);
  return status;
}

static void refuse_file(struct scene *s, struct proof_bytes b, struct refusal want, const char *what) {
  repair_file(b);
  proof_write_file(scene_path(s, "hostile"), b.at, b.n);
  hostile_measure(load_model, s, b.n, want, what);
  unlink(scene_path(s, "hostile"));
  figures.n_models++;
}

#define SUM "\"melu.checksum\":\"0000000000000000\""
#define OPEN "{\"__metadata__\":{" SUM
#define HEAD OPEN "}"
#define TENSOR(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define ONE(shape, offsets) HEAD ",\"a\":" TENSOR("F32", shape, offsets) "}"
#define TWO(a, b) HEAD ",\"a\":" a ",\"b\":" b "}"
#define FORMAT(version) ",\"format\":\"melu-model\",\"format_version\":\"" version "\""

/* Whole files: a header, the length that it claims to have (0: its own) and zeros. */
static const struct {
  const char *header;
  uint64_t claimed;
  size_t n_data;
  melu_status status;
  const char *says;
} headers[] = {
    {"{}", (uint64_t)1 << 30, 90, MELU_EFORMAT, "longer than the file"}, /* a header of 1 GiB in 100 bytes */
    {"{}", UINT64_MAX, 0, MELU_EFORMAT, "longer than the file"},         /* with 8 it is 7 */
    {"{}", UINT64_MAX - 7, 0, MELU_EFORMAT, "longer than the file"},
    {HEAD, 0, 0, MELU_EFORMAT, "not JSON"},
    {HEAD "}{}", 0, 0, MELU_EFORMAT, "follows the header"},
    {HEAD "}", 0, 4, MELU_EFORMAT, "data without a tensor"}, /* numbers of no tensor */
    {ONE("[268435456]", "[0,1073741824]"), 0, 8, MELU_EFORMAT, "outside the data"},
    {ONE("[0]", "[0,1073741824]"), 0, 8, MELU_EFORMAT, "outside the data"},
    {ONE("[4611686018427387904]", "[0,0]"), 0, 0, MELU_EFORMAT, "not of one size"}, /* times 4 it is 0 */
    {ONE("[4611686018427387904,4]", "[0,0]"), 0, 0, MELU_EFORMAT, "not of one size"},
    {ONE("[4294967296,4294967296]", "[0,0]"), 0, 0, MELU_EFORMAT, "not of one size"},
    {ONE("[4294967296,4294967297]", "[0,4]"), 0, 4, MELU_EFORMAT, "not of one size"},
    {ONE("[18446744073709551615,18446744073709551615]", "[0,4]"), 0, 4, MELU_EFORMAT, "not of one size"},
    {ONE("[18446744073709551616]", "[0,4]"), 0, 4, MELU_EFORMAT, "a shape is not"},
    {ONE("[-1]", "[0,4]"), 0, 4, MELU_EFORMAT, "a shape is not"},
    {ONE("[1]", "[4,0]"), 0, 4, MELU_EFORMAT, "outside the data"},
    {ONE("[1]", "[18446744073709551612,0]"), 0, 4, MELU_EFORMAT, "outside the data"}, /* their difference is 4 */
    {ONE("[1]", "[18446744073709551615,3]"), 0, 4, MELU_EFORMAT, "outside the data"},
    {ONE("[1]", "[0,18446744073709551620]"), 0, 4, MELU_EFORMAT, "an offset is not"}, /* it is 4 in 64 bits */
    {ONE("[1]", "[4,8]"), 0, 4, MELU_EFORMAT, "outside the data"},
    {ONE("[1]", "[4,8]"), 0, 8, MELU_EFORMAT, "a hole"},                 /* a hole at the beginning */
    {ONE("[1]", "[0,4]"), 0, 8, MELU_EFORMAT, "behind the last tensor"}, /* and at the end */
    {TWO(TENSOR("F32", "[1]", "[0,4]"), TENSOR("F32", "[1]", "[8,12]")), 0, 12, MELU_EFORMAT, "a hole"},
    {TWO(TENSOR("F32", "[1]", "[0,4]"), TENSOR("F32", "[1]", "[0,4]")), 0, 4, MELU_EFORMAT, "overlap"}, /* overlaps */
    {TWO(TENSOR("F32", "[2]", "[0,8]"), TENSOR("F32", "[1]", "[4,8]")), 0, 8, MELU_EFORMAT, "overlap"},
    {TWO(TENSOR("F32", "[3]", "[0,12]"), TENSOR("F32", "[1]", "[4,8]")), 0, 12, MELU_EFORMAT, "overlap"},
    {HEAD ",\"a\":" TENSOR("F32", "[1]", "[0,4]") ",\"a\":" TENSOR("F32", "[1]", "[4,8]") "}", 0, 8, MELU_EFORMAT,
     "one name"},
    {HEAD ",\"a\":" TENSOR("F32", "[1]", "[0,4]") ",\"\\u0061\":" TENSOR("F32", "[1]", "[4,8]") "}", 0, 8, MELU_EFORMAT,
     "one name"},
    {HEAD ",\"__metadata__\":{}}", 0, 0, MELU_EFORMAT, "metadata twice"},
    {OPEN "," SUM "}}", 0, 0, MELU_EFORMAT, "a name twice"},
    {OPEN ",\"x\":\"\",\"\\u0078\":\"\"}}", 0, 0, MELU_EFORMAT, "a name twice"},
    {HEAD ",\"a\":" TENSOR("F16", "[2]", "[0,4]") "}", 0, 4, MELU_EFORMAT, "dtype is unknown"},
    {HEAD ",\"a\":" TENSOR("F64", "[1]", "[0,4]") "}", 0, 4, MELU_EFORMAT, "not of one size"},
    {HEAD ",\"a\":{\"dtype\":[],\"shape\":[1],\"data_offsets\":[0,4]}}", 0, 4, MELU_EFORMAT, "dtype is unknown"},
    {HEAD ",\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"shape\":[1],\"data_offsets\":[0,4]}}", 0, 4, MELU_EFORMAT,
     "not dtype, shape"},
    {OPEN FORMAT("2") "}}", 0, 0, MELU_EVERSION, "version 2 is newer"},
    {OPEN FORMAT("18446744073709551615") "}}", 0, 0, MELU_EVERSION, "is newer"},
    {OPEN FORMAT("18446744073709551617") "}}", 0, 0, MELU_EFORMAT, "not a number"}, /* it is 1 in 64 bits */
    {OPEN FORMAT("-1") "}}", 0, 0, MELU_EFORMAT, "not a number"},
    {OPEN FORMAT("1") "}}", 0, 0, MELU_EFORMAT, "preset, seed and hidden"},
};

static void refuse_header(struct scene *s, const char *header, uint64_t claimed, size_t n_data, struct refusal want) {
  const size_t n = strlen(header);
  const struct proof_bytes b = {calloc(8 + n + n_data, 1), 8 + n + n_data};
  PROOF_NEEDS(b.at, "no memory");
  melu__put_bits(b.at, claimed ? claimed : n, 8);
  memcpy(b.at + 8, header, n);
  refuse_file(s, b, want, n < 200 ? header : "a long header");
  free(b.at);
}

/* One text fifty thousand times, between two others: nesting, and lists that a reader would keep. */
static const struct {
  const char *before, *text, *after, *says;
} repeated[] = {
    {"", "[", "", "no object"},
    {"", "{\"a\":", "", "not dtype, shape"},
    {HEAD ",\"a\":", "[", "", "an entry is no object"},
    {HEAD ",\"a\":{\"shape\":", "[", "", "a shape is not"},
    {OPEN ",\"a\":", "{\"a\":", "", "not texts"},
    {OPEN FORMAT("1") ",\"options\":\"", "[", "\"}}", "preset, seed and hidden"},
    {OPEN FORMAT("1") ",\"schema\":\"", "{\\\"fields\\\":", "\"}}", "preset, seed and hidden"},
    {OPEN ",\"a\":\"", "\\u0041", "\"}", "not JSON"},
    {HEAD ",\"a\":{\"dtype\":\"F32\",\"shape\":[", "1,", "1],\"data_offsets\":[0,4]}}", "a shape is not"},
    {HEAD, ",\"\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}", "}", "one name"},
};

static void refuse_repeated(struct scene *s, const char *before, const char *text, const char *after,
                            const char *says) {
  enum { TIMES = 50000 };
  const size_t n = strlen(text);
  char *header = malloc(strlen(before) + n * TIMES + strlen(after) + 1), *at = header;
  PROOF_NEEDS(header, "no memory");
  at = stpcpy(at, before);
  for (int i = 0; i < TIMES; i++, at += n) memcpy(at, text, n);
  strcpy(at, after);
  refuse_header(s, header, 0, 0, (struct refusal){MELU_EFORMAT, says});
  free(header);
}

/* What is put in place of a text in a sound model's header. Q: a quotation mark in a text. */
#define Q "\\\""
struct change {
  const char *from, *to;
  melu_status status;
  const char *says;
};

/* Of both networks. */
static const struct change changes[] = {
    {Q "seed" Q ":" Q "3" Q, Q "seed" Q ":" Q "18446744073709551616" Q, MELU_EFORMAT, "preset, seed and hidden"},
    {Q "seed" Q ":" Q "3" Q, Q "seed" Q ":" Q "-1" Q, MELU_EFORMAT, "preset, seed and hidden"},
    {Q "inner_steps" Q ":", Q "inner_steps" Q ":65,", MELU_EFORMAT, "an option is missing"},
    {Q "inner_steps" Q ":", Q "inner_steps" Q ":99", MELU_ELIMIT, "above 64"},
    {Q "inner_steps" Q ":", Q "inner_steps" Q ":9223372036854775807", MELU_EFORMAT, "an option is missing"},
    {Q "inner_steps" Q ":", Q "inner_steps" Q ":-", MELU_EFORMAT, "an option is missing"},
    {Q "inner_lr" Q ":", Q "inner_lr" Q ":-", MELU_EFORMAT, "an option is out of range"},
    {Q "inner_lr" Q ":0", Q "inner_lr" Q ":1e9999", MELU_EFORMAT, "an option is missing"},
    {Q "inner_lr" Q ":0", Q "inner_lr" Q ":NaN", MELU_EFORMAT, "an option is missing"},
    {Q "rating_min" Q ":1.0", Q "rating_min" Q ":9.0", MELU_EFORMAT, "an option is out of range"},
    {Q "rank" Q ":", Q "rank" Q ":-", MELU_EFORMAT, "an option is missing"},
    {Q "rank" Q ":", Q "rank" Q ":42949672", MELU_EFORMAT, "not in 1 .. 255"},
    {Q "hidden" Q ":[4", Q "hidden" Q ":[65537", MELU_EFORMAT, "65537, not in"},
    {Q "hidden" Q ":[4", Q "hidden" Q ":[18446744073709551615", MELU_EFORMAT, "hidden widths"},
    {Q "hidden" Q ":[4", Q "hidden" Q ":[0", MELU_EFORMAT, "0, not in"},
    {Q "hidden" Q ":[4", Q "hidden" Q ":[65536", MELU_EFORMAT,
     "not of the type and shape"}, /* allowed, but then tensors are others */
    {Q "hidden" Q ":[4", Q "hidden" Q ":[4,4,4,4,4,4,4,4,4", MELU_EFORMAT, "hidden widths"},
    {Q "width" Q ":3", Q "width" Q ":4097", MELU_ELIMIT, "more than 4096"},
    {Q "width" Q ":3", Q "width" Q ":-3", MELU_EFORMAT, "a field has not"},
    {Q "width" Q ":3", Q "width" Q ":6148914691236517205", MELU_ELIMIT, "more than 4096"},
    {Q "width" Q ":3", Q "width" Q ":0", MELU_EFORMAT, "a field has not"},
    {Q "n_values" Q ":5", Q "n_values" Q ":2147483646", MELU_EFORMAT, "not a list of n_values texts"},
    {Q "n_values" Q ":5", Q "n_values" Q ":6", MELU_EFORMAT, "not a list of n_values texts"},
    {Q "n_values" Q ":40", Q "n_values" Q ":41", MELU_EFORMAT, "not of the type and shape"},
    {Q "n_values" Q ":40", Q "n_values" Q ":2147483646", MELU_EFORMAT, "not of the type and shape"},
    {Q "n_values" Q ":40", Q "n_values" Q ":4294967296", MELU_ELIMIT, "values are more than"},
    {Q "n_values" Q ":40", Q "n_values" Q ":18446744073709551615", MELU_EFORMAT, "has not n_values"},
    {Q "n_values" Q ":40", Q "n_values" Q ":0", MELU_EFORMAT, "no values"},
    {Q "name" Q ":" Q "self" Q, Q "name" Q ":" Q "tags" Q, MELU_EFORMAT, "the name is taken"},
    {Q "kind" Q ":" Q "many" Q, Q "kind" Q ":" Q "numeric" Q, MELU_EFORMAT, "not shift and scale"},
    {Q "scale" Q ":1.0", Q "scale" Q ":0.0", MELU_EFORMAT, "not shift and scale"},
    {Q "scale" Q ":1.0", Q "scale" Q ":1e999", MELU_EFORMAT, "not shift and scale"},
    {Q "texts" Q ":[" Q "red" Q, Q "texts" Q ":[" Q "blue" Q, MELU_EFORMAT, "a text twice"},
    {Q "texts" Q ":[" Q "red" Q ",", Q "texts" Q ":[", MELU_EFORMAT, "not a list of n_values texts"},
    {"\"dtype\":\"F32\"", "\"dtype\":\"U32\"", MELU_EFORMAT, "not of the type and shape"},
    {"\"dtype\":\"F32\"", "\"dtype\":\"F64\"", MELU_EFORMAT, "not of one size"},
    {"\"E.self\"", "\"E.sell\"", MELU_EFORMAT, "\"E.self\" is missing"},
    {"\"E.self\"", "\"E.tags\"", MELU_EFORMAT, "one name"},
    {"\"shape\":[41,", "\"shape\":[42,", MELU_EFORMAT, "not of one size"},
};

/* NULL if the text is not there. */
static struct proof_bytes replaced(struct proof_bytes b, const struct change *c) {
  const size_t length = (size_t)melu__get_bits(b.at, 8), n_from = strlen(c->from), n_to = strlen(c->to);
  size_t at = 8;
  while (at + n_from <= 8 + length && memcmp(b.at + at, c->from, n_from) != 0) at++;
  if (at + n_from > 8 + length) return (struct proof_bytes){NULL, 0};
  const struct proof_bytes other = {malloc(b.n + n_to - n_from), b.n + n_to - n_from};
  PROOF_NEEDS(other.at, "no memory");
  memcpy(other.at, b.at, at);
  memcpy(other.at + at, c->to, n_to);
  memcpy(other.at + at + n_to, b.at + at + n_from, b.n - at - n_from);
  melu__put_bits(other.at, length + n_to - n_from, 8);
  return other;
}

/* Numbers that are none, as the first and the last of all weights. */
static void refuse_weights(struct scene *s, struct proof_bytes sound) {
  static const uint32_t bits[] = {0x7fc00000, 0xffc00000, 0x7f800001, 0x7f800000, 0xff800000};
  const size_t first = 8 + (size_t)melu__get_bits(sound.at, 8);
  for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
    for (int last = 0; last < 2; last++) {
      const struct proof_bytes b = proof_copy(sound.at, sound.n);
      melu__put_bits(b.at + (last ? b.n - 4 : first), bits[i], 4);
      refuse_file(s, b, (struct refusal){MELU_ERANGE, "row 0 is not finite"}, "a weight that is not finite");
      free(b.at);
    }
}

static void refuse_models(struct scene *s) {
  const struct proof_bytes sound = scene_model_bytes(s);
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
    const struct proof_bytes b = replaced(sound, &changes[i]);
    PROOF_NEEDS(b.at, "%s is not in a model's file", changes[i].from);
    refuse_file(s, b, (struct refusal){changes[i].status, changes[i].says}, changes[i].to);
    free(b.at);
  }
  refuse_weights(s, sound);
  repair_file(sound); /* so the checksums are right */
  proof_write_file(scene_path(s, "hostile"), sound.at, sound.n);
  melu_error err;
  PROOF_TRY(load_model(s, &err));
  unlink(scene_path(s, "hostile"));
  free(sound.at);
}

static size_t measure_shards(struct scene *s) {
  const size_t before = figures.n;
  hostile_shards(s);
  return figures.n - before;
}

int main(int argc, char **argv) {
  size_t n_shards = 0;
  (void)proof_begin(8, argc, argv); /* as large in CI as in full */
  struct scene s;
  for (int setting = 0; setting < SCENE_MELU; setting++) {
    scene_open(&s, setting, NULL);
    for (size_t i = 0; i < sizeof headers / sizeof *headers && setting == SCENE_LAYERS; i++)
      refuse_header(&s, headers[i].header, headers[i].claimed, headers[i].n_data,
                    (struct refusal){headers[i].status, headers[i].says});
    for (size_t i = 0; i < sizeof repeated / sizeof *repeated && setting == SCENE_LAYERS; i++)
      refuse_repeated(&s, repeated[i].before, repeated[i].text, repeated[i].after, repeated[i].says);
    refuse_models(&s);
    hostile_users(&s);
    if (setting == SCENE_LAYERS) n_shards = measure_shards(&s);
    scene_close(&s);
  }
  proof_held(
      "%zu hostile model files, %zu shard folders and %zu users, each its status; at most %.0f %% of the memory "
      "allowed "
      "and %.1f ms",
      figures.n_models, n_shards, figures.n - figures.n_models - n_shards, 100 * figures.most, figures.slowest);
}
