/* SPDX-License-Identifier: BSD-3-Clause */
/* The folder of the MeLU reference code, model files and imported weights. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../flood.h"
#include "../tiny_folder.h"
#include "base/bytes.h"
#include "linear.h"

/* ------------------------------------------------------------------------------------------------ the folder */

/* The tiny folder, with another text for some of its files. */
static void write_folder(void) {
  for (size_t i = 0; i < N_TINY_FILES; i++)
    proof_write_file(linear_path(tiny_files[i].name), tiny_files[i].text, strlen(tiny_files[i].text));
}

static double read_folder(melu_status want) {
  melu_error err = {.message = ""};
  melu_schema *schema;
  melu_dataset *data = NULL;
  char path[128];
  snprintf(path, sizeof path, "%s", linear_path(""));
  PROOF_TRY(melu_schema_new(&schema, linear_ctx, &err));
  const double start = now_s();
  PROOF_TRY(melu_schema_add_melu_items(schema, path, &err));
  PROOF_TRY(melu_dataset_new(&data, linear_ctx, schema, &err));
  const melu_status status = melu_dataset_read_melu(data, path, "s", &err);
  const double took = now_s() - start;
  PROOF_NEEDS(status == want, "a folder: %s: %s", melu_status_name(status), err.message);
  melu_dataset_free(data);
  melu_schema_free(schema);
  for (size_t i = 0; i < N_TINY_FILES; i++) unlink(linear_path(tiny_files[i].name));
  return took;
}

static double read_vocabulary(size_t n) {
  struct growing text = {NULL, 0, 0};
  for (size_t i = 0; i < n; i++) grow_text(&text, "%s\n", hostile_text(i));
  write_folder();
  write_text(&text, "m_actor.txt");
  return read_folder(MELU_OK);
}

/* Appends to a file of the folder. */
static void write_more(const char *name, const char *before, const char *repeated, size_t n, const char *after) {
  struct growing text = {NULL, 0, 0};
  grow_by(&text, before, 1);
  grow_by(&text, repeated, n);
  grow_by(&text, after, 1);
  write_text(&text, name);
}

#define MOVIES "movies_extrainfos.dat"
#define REST "10::1::1::1::1::1::1::1::1::1::1\n20::1::1::1::1::1::1::1::1::1::1\n30::1::1::1::1::1::1::1::1::1::1\n"

static double read_movies(size_t n) {
  struct growing text = {NULL, 0, 0};
  grow_text(&text, REST);
  for (uint32_t i = 0, made = 0; made < n; i++) {
    const uint64_t id = flood_number(i);
    if (id >> 63) continue; /* ids end there */
    grow_text(&text, "%llu::1::1::1::1::1::1::1::1::1::1\n", (unsigned long long)id);
    made++;
  }
  write_folder();
  write_text(&text, MOVIES);
  return read_folder(MELU_OK);
}

static double read_actors(size_t n) {
  write_folder();
  write_more(MOVIES, REST "40::1::1::1::1::1::1::1::Eve", ", Eve", n, "::1::1\n");
  return read_folder(MELU_OK);
}

static double read_notes(size_t n) {
  write_folder();
  write_more(MOVIES, REST "40::1::1::1::1::1::", "((a)", n, "::1::1::1::1\n");
  return read_folder(MELU_OK);
}

static double read_parts(size_t n) {
  write_folder();
  write_more(MOVIES, REST "40", "::", n, "\n");
  return read_folder(MELU_EFORMAT);
}

static double read_lists(size_t n) {
  write_folder();
  write_more("s.json", "{\"9\":[\"30\"", ",\"10\"", n, "],\"7\":[],\"3\":[\"20\"]}");
  write_more("s_y.json", "{\"3\":[2],\"9\":[4", ",5", n, "],\"7\":[]}");
  return read_folder(MELU_OK);
}

static double read_people(size_t n) {
  struct growing users = {NULL, 0, 0}, lists = {NULL, 0, 0};
  for (size_t i = 0; i < n; i++) {
    grow_text(&users, "%zu::F::1::16::02139\n", i);
    grow_text(&lists, "%c\"%zu\":[]", i ? ',' : '{', n - 1 - i);
  }
  grow_text(&lists, "}");
  write_folder();
  write_text(&users, "users.dat");
  proof_write_file(linear_path("s.json"), lists.at, lists.n);
  write_text(&lists, "s_y.json");
  return read_folder(MELU_OK);
}

/* An object of so many members where a list should be; a text of so many escapes; so many blanks. */
static double read_object(size_t n) {
  struct growing text = {NULL, 0, 0};
  for (size_t i = 0; i < n; i++) grow_text(&text, "%s\"%zu\":0", i ? "," : "{\"9\":{", i);
  grow_text(&text, "}}");
  write_folder();
  write_text(&text, "s_y.json");
  return read_folder(MELU_EFORMAT);
}

static double read_escapes(size_t n) {
  write_folder();
  write_more("s_y.json", "{\"9\":[\"", "\\u00eb", n, "\"]}");
  return read_folder(MELU_EFORMAT);
}

static double read_blanks(size_t n) {
  write_folder();
  write_more("s_y.json", "{\"3\":[2.5],\"9\":[4,3,5],", "\r\n\t ", n, "\"7\":[]}");
  return read_folder(MELU_OK);
}

static double read_nested(size_t n) {
  write_folder();
  write_more("s_y.json", "{\"9\":", "[", n, "");
  return read_folder(MELU_EFORMAT);
}

/* ---------------------------------------------------------------------------------------------------- models */

/* A model of a field with so many texts of one hash. */
static melu_model *model_of_texts(size_t n) {
  static const struct melu_field field = {.size = sizeof field, .name = "tags", .owner = MELU_ITEM, .width = 1};
  static const size_t hidden[1] = {1};
  const struct melu_model_options options = {.size = sizeof options, .hidden = hidden, .n_hidden = 1};
  melu_error err;
  melu_schema *schema;
  melu_dataset *data;
  melu_model *model;
  struct growing table = {NULL, 0, 0};
  grow_text(&table, "item,tags\n");
  for (size_t i = 0; i < n; i++) grow_text(&table, "%zu,%s\n", i, hostile_text(i));
  write_text(&table, "items.csv");
  PROOF_TRY(melu_schema_new(&schema, linear_ctx, &err));
  PROOF_TRY(melu_schema_add(schema, &field, &err));
  PROOF_TRY(melu_dataset_new(&data, linear_ctx, schema, &err));
  PROOF_TRY(melu_dataset_read_items(data, linear_path("items.csv"), NULL, &err));
  PROOF_TRY(melu_dataset_freeze(data, &err));
  PROOF_TRY(melu_model_new(&model, linear_ctx, melu_dataset_schema(data), &options, &err));
  melu_dataset_free(data);
  melu_schema_free(schema);
  unlink(linear_path("items.csv"));
  return model;
}

static double save_and_load(size_t n) {
  melu_error err;
  melu_model *model = model_of_texts(n), *loaded;
  double start = now_s(), took;
  PROOF_TRY(melu_model_save(model, linear_path("model"), &err));
  PROOF_TRY(melu_model_load(&loaded, linear_ctx, linear_path("model"), &err));
  took = now_s() - start;
  melu_model_free(loaded);
  melu_model_free(model);
  unlink(linear_path("model"));
  return took;
}

/* Imports a file of that header and no data, which is refused. */
static double import(struct growing *header) {
  melu_error err = {.message = ""};
  melu_model *model = model_of_texts(1);
  struct proof_bytes b = {malloc(8 + header->n), 8 + header->n};
  PROOF_NEEDS(b.at, "no memory");
  melu__put_bits(b.at, header->n, 8);
  memcpy(b.at + 8, header->at, header->n);
  proof_write_file(linear_path("weights"), b.at, b.n);
  const double start = now_s();
  const melu_status status = melu_model_import(model, linear_path("weights"), &err);
  const double took = now_s() - start;
  PROOF_NEEDS(status == MELU_EFORMAT, "weights: %s: %s", melu_status_name(status), err.message);
  melu_model_free(model);
  unlink(linear_path("weights"));
  free(b.at);
  free(header->at);
  return took;
}

#define NOTHING "{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}"

/* Tensors from the last name to the first, or of one name. */
static double import_tensors(size_t n) {
  struct growing header = {NULL, 0, 0};
  for (size_t i = n; i-- > 0;) grow_text(&header, "%c\"%08zu\":" NOTHING, header.n ? ',' : '{', i);
  grow_text(&header, "}");
  return import(&header);
}

static double import_equal_tensors(size_t n) {
  struct growing header = {NULL, 0, 0};
  grow_by(&header, "{\"a\":" NOTHING, 1);
  grow_by(&header, ",\"a\":" NOTHING, n - 1);
  grow_by(&header, "}", 1);
  return import(&header);
}

/* A name of so many characters, each an escape. */
static double import_long_name(size_t n) {
  struct growing header = {NULL, 0, 0};
  grow_text(&header, "{\"");
  grow_by(&header, "\\ud83d\\ude00", n);
  grow_text(&header, "\":" NOTHING "}");
  return import(&header);
}

static double import_blanks(size_t n) {
  struct growing header = {NULL, 0, 0};
  grow_text(&header, "{");
  grow_by(&header, " \n", n);
  grow_text(&header, "}");
  return import(&header);
}

enum { FOR_CACHES = 1 << 13, FOR_MEMORY = 1 << 21 }; /* as in linear_data.c */

const struct trap file_traps[] = {
    {"a vocabulary of texts of one hash", read_vocabulary, 1000, FOR_CACHES},
    {"movies with ids of one hash", read_movies, 1000, FOR_CACHES},
    {"actors of a movie", read_actors, 1000, FOR_MEMORY},
    {"parentheses in a name", read_notes, 1000, FOR_MEMORY},
    {"parts of a line", read_parts, 1000, FOR_MEMORY},
    {"ratings of a user", read_lists, 1000, FOR_MEMORY},
    {"users", read_people, 1000, FOR_CACHES},
    {"members of a JSON object", read_object, 1000, 1 << 18},
    {"escapes in a JSON text", read_escapes, 1000, FOR_MEMORY},
    {"blanks in JSON", read_blanks, 1000, FOR_MEMORY},
    {"nested JSON", read_nested, 1000, FOR_MEMORY},
    {"a model with texts of one hash", save_and_load, 1000, FOR_CACHES},
    {"tensors", import_tensors, 1000, 1 << 19},
    {"tensors of one name", import_equal_tensors, 1000, 1 << 19},
    {"escapes in a tensor's name", import_long_name, 1000, FOR_MEMORY},
    {"blanks in a header", import_blanks, 1000, FOR_MEMORY},
};
const size_t n_file_traps = sizeof file_traps / sizeof *file_traps;
