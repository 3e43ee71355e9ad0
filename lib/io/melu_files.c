/* SPDX-License-Identifier: BSD-3-Clause */
/* The folder of the MeLU reference code. Its .dat files have no header and separate fields by "::"; its .json files map
 * a user to the list of movies that she rated, and to the list of those ratings. */
#include <melu.h>

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "data/dataset.h"
#include "io/json_lists.h"
#include "io/text_file.h"

#define MAX_ID (((uint64_t)1 << 63) - 1)
/* A parsed list takes many times its bytes, and from malloc. The files of MovieLens-1M have up to 5 MB. */
#define MAX_JSON_BYTES ((size_t)1 << 28)

#define N_OWN 4  /* the paper's fields of a user, and of an item */
#define N_ITEM 6 /* an item's with those of melu_schema_add_melu_items */
#define MOVIES "movies_extrainfos.dat"
#define N_MOVIE                                                                                        \
  11 /* parts of a line: id, title, year, rate, released, genre, director, writer, actor, plot, poster \
      */
#define MAX_YEAR 9999
#define USERS "users.dat"
#define N_USER 5 /* id, gender, age, occupation, zip code */
#define N_ZIP 5  /* bytes of a zip code that count */

static const struct own_field {
  const char *name, *file; /* the file has the vocabulary */
  melu_field_kind kind;
  int part; /* of a line of the owner's .dat file; for 0, the id, that is the vocabulary's file, too */
  double shift, scale;
} own_fields[2][N_ITEM] = {
    [MELU_USER] = {{"gender", "m_gender.txt", MELU_ONE, 1, 0, 1},
                   {"age", "m_age.txt", MELU_ONE, 2, 0, 1},
                   {"occupation", "m_occupation.txt", MELU_ONE, 3, 0, 1},
                   {"zip", "m_zipcode.txt", MELU_ONE, 4, 0, 1}},
    [MELU_ITEM] = {{"rate", "m_rate.txt", MELU_ONE, 3, 0, 1},
                   {"genre", "m_genre.txt", MELU_MANY, 5, 0, 1},
                   {"director", "m_director.txt", MELU_MANY, 6, 0, 1},
                   {"actor", "m_actor.txt", MELU_MANY, 8, 0, 1},
                   {"movie", MOVIES, MELU_ONE, 0, 0, 1},
                   {"year", NULL, MELU_NUMERIC, 2, 1990, 0.1}},
};

/* ------------------------------------------------------------------------------------------------ files, in pieces */

struct file {
  const melu_context *ctx;
  char *path;
  struct melu__text text;
};

static melu_status file_read(struct file *file, const melu_context *ctx, const char *folder, const char *name,
                             const char *suffix, size_t limit, uint64_t done, melu_error *err) {
  const struct melu_progress progress = {.phase = "read", .done = done};
  const size_t n = strlen(folder) + strlen(name) + strlen(suffix) + sizeof "/";
  *file = (struct file){.ctx = ctx, .path = melu__alloc(&ctx->allocator, n, 1)};
  if (!file->path) return melu__fail_memory(err);
  snprintf(file->path, n, "%s/%s%s", folder, name, suffix);
  return melu__text_read(&file->text, ctx, file->path, limit, &progress, err);
}

static void file_free(struct file *file) {
  melu__text_free(&file->text);
  melu__free(&file->ctx->allocator, file->path);
}

static int is_blank(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

static struct melu__slice trim(struct melu__slice s) {
  while (s.n > 0 && is_blank(s.at[s.n - 1])) s.n--;
  while (s.n > 0 && is_blank(s.at[0])) s.at++, s.n--;
  return s;
}

/* ------------------------------------------------------------------------------------------------------- schema */

/* Cuts a line down to its first part, which is an id. */
static melu_status read_id(uint64_t *id, struct melu__slice *line, const struct file *file, uint64_t number,
                           melu_error *err) {
  int more;
  struct melu__slice rest = *line;
  melu__text_part(line, &rest, "::", 2, &more);
  if (melu__parse_whole(id, *line, MAX_ID)) return MELU_OK;
  return melu__text_fail(err, MELU_EFORMAT, &file->text, number, "\"%s\" is not an id", melu__show(*line).text);
}

static melu_status add_vocabulary(struct melu__vocab *texts, const melu_context *ctx, const char *folder,
                                  const struct own_field *own, melu_error *err) {
  struct file file;
  melu_status status = file_read(&file, ctx, folder, own->file, "", 0, 0, err);
  struct melu__slice line, rest = {file.text.bytes, file.text.n};
  for (uint64_t id, number = 1; status == MELU_OK && melu__text_line(&line, &rest); number++) {
    if (own->part == 0) {
      status = read_id(&id, &line, &file, number, err);
    } else {
      line = trim(line);
    }
    if (status != MELU_OK || line.n == 0) continue;
    if (melu__vocab_add(texts, line.at, line.n, NULL) == MELU__NO_INDEX) status = melu__fail_memory(err);
  }
  if (status == MELU_OK && melu__vocab_count(texts) == 0) {
    status = melu__text_fail(err, MELU_EFORMAT, &file.text, 0, "the file is empty");
  }
  file_free(&file);
  return status;
}

static melu_status add_field(melu_schema *schema, const char *folder, melu_owner owner, size_t index, melu_error *err) {
  const struct own_field *own = &own_fields[owner][index];
  const struct melu_field field = {.size = sizeof field,
                                   .name = own->name,
                                   .owner = owner,
                                   .kind = own->kind,
                                   .width = own->kind == MELU_NUMERIC ? 1 : 32,
                                   .shift = own->shift,
                                   .scale = own->scale};
  const melu_status status = melu_schema_add(schema, &field, err);
  if (status != MELU_OK || !own->file) return status;
  return add_vocabulary(melu__schema_find(schema, own->name)->texts, schema->ctx, folder, own, err);
}

static melu_status add_fields(melu_schema *schema, const char *folder, size_t n_item, melu_error *err) {
  if (!schema) return melu__fail(err, MELU_EINVAL, "schema is NULL");
  if (!folder) return melu__fail(err, MELU_EINVAL, "folder is NULL");
  if (schema->n_fields > 0) return melu__fail(err, MELU_ESTATE, "the schema is not empty");
  melu_schema *full;
  melu_status status = melu_schema_new(&full, schema->ctx, err);
  if (status != MELU_OK) return status;
  for (size_t i = 0; status == MELU_OK && i < n_item; i++) status = add_field(full, folder, MELU_ITEM, i, err);
  for (size_t i = 0; status == MELU_OK && i < N_OWN; i++) status = add_field(full, folder, MELU_USER, i, err);
  if (status == MELU_OK) {
    melu__schema_close(full);
    const melu_schema empty = *schema;
    *schema = *full;
    *full = empty;
  }
  melu_schema_free(full);
  return status;
}

melu_status melu_schema_add_melu(melu_schema *schema, const char *folder, melu_error *err) {
  return add_fields(schema, folder, N_OWN, err);
}

melu_status melu_schema_add_melu_items(melu_schema *schema, const char *folder, melu_error *err) {
  return add_fields(schema, folder, N_ITEM, err);
}

/* ---------------------------------------------------------------------------------------------- users and movies */

/* What is known of a user's two lists, the ratings and then the movies. */
struct lists {
  enum { NO_LIST, RATINGS_READ, BOTH_READ } state;
  size_t start, n; /* the ratings: loader.ratings[start] ... */
};

struct loader {
  melu_dataset *data;
  const struct melu_allocator *allocator;
  const struct melu__field *fields[2][N_ITEM]; /* of the data set's schema */
  size_t n_fields[2];
  const char *folder, *state;
  uint64_t done;                 /* bytes read */
  const struct melu__text *text; /* of the JSON file that is read */
  uint32_t *ids;                 /* of one user or movie */
  size_t n_ids, ids_capacity;
  char *scratch;
  size_t scratch_capacity;
  struct lists *lists; /* one per user */
  float *ratings;
  size_t n_ratings, ratings_capacity;
};

/* Deletes every pair of parentheses that holds no parenthesis, with what it holds: *s then points to `scratch`. */
static melu_status delete_notes(struct melu__slice *s, struct loader *l, melu_error *err) {
  if (!melu__grow(l->allocator, &l->scratch, &l->scratch_capacity, 0, s->n, 1)) {
    return melu__fail_memory(err);
  }
  size_t n = 0, open = 0; /* where the last '(' of what is kept was put, if is_open */
  int is_open = 0;
  for (size_t i = 0; i < s->n; i++) {
    if (s->at[i] == '(') {
      open = n;
      is_open = 1;
    } else if (s->at[i] == ')' && is_open) {
      n = open;
      is_open = 0;
      continue;
    }
    l->scratch[n++] = s->at[i];
  }
  *s = (struct melu__slice){l->scratch, n};
  return MELU_OK;
}

/* "N/A" and nothing at all are the vocabulary's "nan", and missing where it has none. */
static melu_status add_text(struct loader *l, const struct melu__vocab *texts, struct melu__slice text,
                            melu_error *err) {
  const int missing = text.n == 0 || melu__text_is(text, "N/A");
  const uint32_t id = missing ? melu__vocab_find(texts, "nan", 3) : melu__vocab_find(texts, text.at, text.n);
  if (missing && id == MELU__NO_INDEX) return MELU_OK;
  if (!melu__grow(l->allocator, &l->ids, &l->ids_capacity, l->n_ids, l->n_ids + 1, sizeof *l->ids)) {
    return melu__fail_memory(err);
  }
  l->ids[l->n_ids++] = id == MELU__NO_INDEX ? MELU_UNKNOWN : id;
  return MELU_OK;
}

/* The ids of one field, from its part of a line. */
static melu_status add_texts(struct loader *l, const struct melu__field *field, struct melu__slice part,
                             melu_error *err) {
  if (strcmp(field->name, "zip") == 0 && part.n > N_ZIP) part.n = N_ZIP;
  if (strcmp(field->name, "director") == 0) {
    const melu_status status = delete_notes(&part, l, err);
    if (status != MELU_OK) return status;
  }
  for (int more = 1; more;) {
    struct melu__slice text = part;
    if (field->kind == MELU_MANY) {
      melu__text_part(&text, &part, ", ", 2, &more);
    } else {
      more = 0;
    }
    const melu_status status = add_text(l, field->texts, trim(text), err);
    if (status != MELU_OK) return status;
  }
  return MELU_OK;
}

/* The year of a movie, 0 if it is missing. */
static melu_status read_year(float *year, struct melu__slice part, melu_error *err) {
  uint64_t whole = 0;
  const int missing = part.n == 0 || melu__text_is(part, "N/A");
  if (!missing && !melu__parse_whole(&whole, part, MAX_YEAR)) {
    return melu__fail(err, MELU_EFORMAT, "\"%s\" is not a year from 1 to %d", melu__show(part).text, MAX_YEAR);
  }
  *year = (float)whole;
  return MELU_OK;
}

/* Adds the user or movie of one line, cut into its parts. */
static melu_status add_entity(struct loader *l, melu_owner owner, uint64_t id, const struct melu__slice *parts,
                              melu_error *err) {
  struct melu_value values[N_ITEM] = {{0}};
  size_t first[N_ITEM];
  float year = 0;
  l->n_ids = 0;
  for (size_t f = 0; f < l->n_fields[owner]; f++) {
    const struct melu__field *field = l->fields[owner][f];
    const struct melu__slice part = parts[own_fields[owner][f].part];
    const int numeric = field->kind == MELU_NUMERIC;
    first[f] = l->n_ids;
    const melu_status status = numeric ? read_year(&year, trim(part), err) : add_texts(l, field, part, err);
    if (status != MELU_OK) return status;
    values[f].n_ids = l->n_ids - first[f];
    if (numeric && year > 0) values[f].numbers = &year, values[f].n_numbers = 1;
  }
  for (size_t f = 0; f < l->n_fields[owner]; f++) {
    if (values[f].n_ids > 0) values[f].ids = l->ids + first[f];
  }
  return owner == MELU_USER ? melu_dataset_add_user(l->data, id, values, NULL, err)
                            : melu_dataset_add_item(l->data, id, values, NULL, err);
}

static melu_status add_line(struct loader *l, melu_owner owner, struct melu__slice line, const struct file *file,
                            uint64_t number, melu_error *err) {
  struct melu__slice parts[N_MOVIE], part;
  const size_t n_wanted = owner == MELU_USER ? N_USER : N_MOVIE;
  size_t n = 0;
  for (int more = 1; more; n++) {
    melu__text_part(&part, &line, "::", 2, &more);
    if (n < n_wanted) parts[n] = part;
  }
  if (n != n_wanted) {
    return melu__text_fail(err, MELU_EFORMAT, &file->text, number, "%zu fields, not %zu", n, n_wanted);
  }
  uint64_t id;
  melu_status status = read_id(&id, &parts[0], file, number, err);
  if (status != MELU_OK) return status;
  melu_error why;
  status = add_entity(l, owner, id, parts, &why);
  return status == MELU_OK ? MELU_OK : melu__text_fail(err, status, &file->text, number, "%s", why.message);
}

static melu_status load_entities(struct loader *l, melu_owner owner, melu_error *err) {
  struct file file;
  const char *name = owner == MELU_USER ? USERS : MOVIES;
  melu_status status = file_read(&file, l->data->ctx, l->folder, name, "", 0, l->done, err);
  if (status == MELU_OK && file.text.n == 0) {
    status = melu__text_fail(err, MELU_EFORMAT, &file.text, 0, "the file is empty");
  }
  struct melu__slice line, rest = {file.text.bytes, file.text.n};
  for (uint64_t number = 1; status == MELU_OK && melu__text_line(&line, &rest); number++) {
    status = add_line(l, owner, line, &file, number, err);
  }
  l->done += file.text.n;
  file_free(&file);
  return status;
}

/* ------------------------------------------------------------------------------------------------------ ratings */

/* Finds the user of a member. */
static melu_status find_user(uint32_t *out, const struct loader *l, struct melu__slice key, melu_error *err) {
  uint64_t id;
  *out = melu__parse_whole(&id, key, MAX_ID) ? melu__table_find(&l->data->tables[MELU_USER], id) : MELU__NO_INDEX;
  if (*out != MELU__NO_INDEX) return MELU_OK;
  return melu__text_fail(err, MELU_ENOTFOUND, l->text, 0, "user \"%s\" is not in " USERS, melu__show(key).text);
}

static melu_status add_ratings(void *arg, struct melu__slice key, const struct melu__json_item *items, size_t n,
                               melu_error *err) {
  struct loader *l = arg;
  uint32_t user;
  const melu_status status = find_user(&user, l, key, err);
  if (status != MELU_OK) return status;
  const uint64_t id = melu__table_id(&l->data->tables[MELU_USER], user);
  if (l->lists[user].state != NO_LIST) {
    return melu__text_fail(err, MELU_EFORMAT, l->text, 0, "user %" PRIu64 " is there twice", id);
  }
  if (!melu__grow(l->allocator, &l->ratings, &l->ratings_capacity, l->n_ratings, melu__size_add(l->n_ratings, n),
                  sizeof *l->ratings)) {
    return melu__fail_memory(err);
  }
  for (size_t j = 0; j < n; j++) {
    if (items[j].kind != MELU__JSON_NUMBER) {
      return melu__text_fail(err, MELU_EFORMAT, l->text, 0, "user %" PRIu64 ": rating %zu is not a number", id, j);
    }
    if (!(fabs(items[j].number) <= (double)FLT_MAX)) {
      return melu__text_fail(err, MELU_ERANGE, l->text, 0, "user %" PRIu64 ": rating %zu is not finite", id, j);
    }
    l->ratings[l->n_ratings + j] = (float)items[j].number;
  }
  l->lists[user] = (struct lists){RATINGS_READ, l->n_ratings, n};
  l->n_ratings += n;
  return MELU_OK;
}

static melu_status add_movies(void *arg, struct melu__slice key, const struct melu__json_item *items, size_t n,
                              melu_error *err) {
  struct loader *l = arg;
  uint32_t user;
  melu_status status = find_user(&user, l, key, err);
  if (status != MELU_OK) return status;
  const uint64_t id = melu__table_id(&l->data->tables[MELU_USER], user);
  struct lists *lists = &l->lists[user];
  if (lists->state != RATINGS_READ) {
    return melu__text_fail(err, MELU_EFORMAT, l->text, 0, "user %" PRIu64 " %s", id,
                           lists->state == NO_LIST ? "has no list of ratings" : "is there twice");
  }
  if (lists->n != n) {
    return melu__text_fail(err, MELU_EFORMAT, l->text, 0, "user %" PRIu64 ": %zu movies, but %zu ratings", id, n,
                           lists->n);
  }
  for (size_t j = 0; j < n; j++) {
    uint64_t item;
    if (items[j].kind != MELU__JSON_TEXT || !melu__parse_whole(&item, items[j].text, MAX_ID)) {
      return melu__text_fail(err, MELU_EFORMAT, l->text, 0,
                             "user %" PRIu64 ": movie %zu is not an id in quotation marks", id, j);
    }
    status = melu_dataset_add_rating(l->data, id, item, l->ratings[lists->start + j], err);
    if (status == MELU_ENOTFOUND) {
      return melu__text_fail(err, status, l->text, 0, "user %" PRIu64 ": movie %" PRIu64 " is not in " MOVIES, id,
                             item);
    }
    if (status != MELU_OK) return status;
  }
  lists->state = BOTH_READ;
  return MELU_OK;
}

static melu_status load_lists(struct loader *l, const char *suffix, melu__json_list_fn *add, melu_error *err) {
  struct file file;
  melu_status status = file_read(&file, l->data->ctx, l->folder, l->state, suffix, MAX_JSON_BYTES, l->done, err);
  l->text = &file.text;
  if (status == MELU_OK) status = melu__json_lists(&file.text, l->done, add, l, err);
  l->done += file.text.n;
  file_free(&file);
  return status;
}

static melu_status load_ratings(struct loader *l, melu_error *err) {
  const struct melu__table *users = &l->data->tables[MELU_USER];
  l->lists = melu__calloc(l->allocator, users->n, sizeof *l->lists);
  if (!l->lists) return melu__fail_memory(err);
  melu_status status = load_lists(l, "_y.json", add_ratings, err);
  if (status == MELU_OK) status = load_lists(l, ".json", add_movies, err);
  for (uint32_t u = 0; status == MELU_OK && u < users->n; u++) {
    if (l->lists[u].state == RATINGS_READ) {
      status = melu__fail(err, MELU_EFORMAT, "%.80s/%.40s.json: user %" PRIu64 " has ratings, but no list of movies",
                          l->folder, l->state, melu__table_id(users, u));
    }
  }
  return status;
}

/* --------------------------------------------------------------------------------------------------- everything */

static int is_own(const struct melu__field *field, const struct own_field *own) {
  if (!field || strcmp(field->name, own->name) != 0 || field->kind != own->kind) return 0;
  return own->kind == MELU_NUMERIC ? field->width == 1 : field->texts && !field->learns;
}

static melu_status check_fields(struct loader *l, melu_error *err) {
  const melu_schema *schema = l->data->schema;
  l->n_fields[MELU_USER] = N_OWN;
  l->n_fields[MELU_ITEM] = schema->n_fields == N_OWN + N_ITEM ? N_ITEM : N_OWN;
  for (int owner = MELU_USER; owner <= MELU_ITEM; owner++) {
    for (size_t f = 0; f < l->n_fields[owner]; f++) {
      l->fields[owner][f] = melu__schema_owner_field(schema, (melu_owner)owner, f);
      if (!is_own(l->fields[owner][f], &own_fields[owner][f])) {
        return melu__fail(err, MELU_ESCHEMA, "field \"%s\" is not as melu_schema_add_melu%s makes it",
                          own_fields[owner][f].name, f < N_OWN ? "" : "_items");
      }
    }
  }
  if (schema->n_fields == l->n_fields[MELU_USER] + l->n_fields[MELU_ITEM]) return MELU_OK;
  return melu__fail(err, MELU_ESCHEMA,
                    "the schema has %zu fields, not the %d of melu_schema_add_melu or the %d of "
                    "melu_schema_add_melu_items",
                    schema->n_fields, N_OWN + N_OWN, N_OWN + N_ITEM);
}

melu_status melu_dataset_read_melu(melu_dataset *data, const char *folder, const char *state, melu_error *err) {
  if (!data) return melu__fail(err, MELU_EINVAL, "data is NULL");
  if (!folder) return melu__fail(err, MELU_EINVAL, "folder is NULL");
  if (!state) return melu__fail(err, MELU_EINVAL, "state is NULL");
  if (state[0] == '\0' || strchr(state, '/')) {
    return melu__fail(err, MELU_EINVAL, "state \"%.64s\" is no plain name", state);
  }
  if (data->frozen) return melu__fail(err, MELU_ESTATE, "the data set is frozen");
  if (data->tables[MELU_USER].n > 0 || data->tables[MELU_ITEM].n > 0) {
    return melu__fail(err, MELU_ESTATE, "the data set is not empty");
  }
  struct loader loader = {.data = data, .allocator = &data->ctx->allocator, .folder = folder, .state = state};
  melu_status status = check_fields(&loader, err);
  if (status != MELU_OK) return status;
  struct melu__mark mark;
  melu__dataset_mark(data, &mark);
  status = load_entities(&loader, MELU_ITEM, err);
  if (status == MELU_OK) status = load_entities(&loader, MELU_USER, err);
  if (status == MELU_OK) status = load_ratings(&loader, err);
  if (status != MELU_OK) melu__dataset_rewind(data, &mark);
  melu__free(loader.allocator, loader.ids);
  melu__free(loader.allocator, loader.scratch);
  melu__free(loader.allocator, loader.lists);
  melu__free(loader.allocator, loader.ratings);
  return status;
}
