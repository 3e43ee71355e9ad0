/* SPDX-License-Identifier: BSD-3-Clause */
#include "world.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/args.h"
#include "../common/bfi.h"
#include "../common/states.h"

enum { MOST_PATH = 4096 };

/* These run once, before anything is served; see must(). */
static void make_room(struct world *world) {
  world->n_items = melu_dataset_n_items(world->data);
  world->ids = calloc(world->n_items, sizeof *world->ids);
  world->titles = calloc(world->n_items, sizeof *world->titles);
  world->chances = calloc(world->n_items, sizeof *world->chances);
  if (!world->ids || !world->titles || !world->chances) give_up("out of memory");
}

static void set_title(struct world *world, uint32_t item, const char *title) {
  /* jansson refuses other text, and an answer cannot. */
  json_t *text = json_string(title);
  if (!text) give_up("the title of item %llu is not UTF-8", (unsigned long long)world->ids[item]);
  json_decref(text);
  free(world->titles[item]);
  world->titles[item] = strdup(title);
  if (!world->titles[item]) give_up("out of memory");
}

static void count_chances(struct world *world) {
  const size_t n_users = melu_dataset_n_users(world->data);
  for (uint32_t u = 0; u < n_users; u++) {
    const uint32_t *items;
    const size_t n = melu_dataset_ratings(world->data, u, &items, NULL);
    for (size_t i = 0; i < n; i++) world->chances[items[i]] += 1;
  }
  for (size_t i = 0; i < world->n_items; i++) world->chances[i] /= (float)n_users;
}

/* -------------------------------------------------------------------------------------- the 25 statements */

static const char *const bfi_labels[] = {"very inaccurate",   "moderately inaccurate", "slightly inaccurate",
                                         "slightly accurate", "moderately accurate",   "very accurate"};

/* Visitors are people without a profile. */
void world_read_bfi(struct world *world, const melu_context *ctx, const char *dir) {
  *world = (struct world){
      .kind = "bfi", .rating_min = BFI_MIN, .rating_max = BFI_MAX, .rating_step = 1, .labels = bfi_labels};
  size_t n_people;
  struct bfi_person *people = bfi_read(&n_people, dir);
  melu_schema *schema = bfi_new_schema(ctx);
  world->data = bfi_new_dataset(ctx, schema, dir, people, n_people, 0);
  melu_schema_free(schema);
  free(people);

  make_room(world);
  for (uint32_t i = 0; i < world->n_items; i++) {
    world->ids[i] = i + 1;
    set_title(world, i, bfi_statement(world->data, i));
  }
  count_chances(world);
}

/* ---------------------------------------------------------------------------------------------- MovieLens */

/* The part of "id::title::year::..." that `text` points to, cut out; `text` moves on to the next one. */
static char *next_part(char **text) {
  char *part = *text, *end = strstr(part, "::");
  if (!end) return NULL;
  *end = '\0';
  *text = end + 2;
  return part;
}

static void read_titles(struct world *world, const char *dir) {
  char path[MOST_PATH], line[8192], title[512];
  snprintf(path, sizeof path, "%s/movies_extrainfos.dat", dir);
  FILE *file = fopen(path, "r");
  if (!file) give_up("%s: %s", path, strerror(errno));
  while (fgets(line, sizeof line, file)) {
    char *rest = line, *id = next_part(&rest), *name = id ? next_part(&rest) : NULL;
    const char *year = name ? next_part(&rest) : NULL;
    if (!year) continue; /* the library has read the file before, and refused what is not of its form */
    const uint32_t item = world_find(world, strtoull(id, NULL, 10));
    if (item == world->n_items) continue;
    const int has_year = year[0] != '\0' && year[strspn(year, "0123456789")] == '\0';
    snprintf(title, sizeof title, has_year ? "%s (%s)" : "%s", name, year);
    set_title(world, item, title);
  }
  if (ferror(file)) give_up("%s: %s", path, strerror(errno));
  fclose(file);
  for (size_t i = 0; i < world->n_items; i++) {
    if (!world->titles[i]) give_up("%s: film %llu has no title", path, (unsigned long long)world->ids[i]);
  }
}

void world_read_movielens(struct world *world, const melu_context *ctx, const char *dir) {
  melu_error err;
  melu_schema *schema;
  *world = (struct world){.kind = "movielens", .rating_min = 1, .rating_max = 5, .rating_step = 1};
  must(melu_schema_new(&schema, ctx, &err), &err);
  must(melu_schema_add_melu_items(schema, dir, &err), &err);
  /* A visitor has no profile, so that what is learnt is to do without. */
  const struct source source = {.ctx = ctx, .schema = schema, .dir = dir, .without = "gender,age,occupation,zip"};
  world->data = training_data(&source, TRAIN_COLD, 0);
  melu_schema_free(schema);

  make_room(world);
  for (uint32_t i = 0; i < world->n_items; i++) {
    world->ids[i] = melu_dataset_item_id(world->data, i);
    if (world->ids[i] == 0 || world->ids[i] > MAX_ID || (i > 0 && world->ids[i] <= world->ids[i - 1])) {
      give_up("%s: the films' ids should ascend from 1", dir);
    }
  }
  read_titles(world, dir);
  count_chances(world);
}

/* ---------------------------------------------------------------------------------------------- of both */

void world_free(struct world *world) {
  for (size_t i = 0; i < world->n_items; i++) free(world->titles[i]);
  free(world->titles);
  free(world->ids);
  free(world->chances);
  melu_dataset_free(world->data);
}

static int compare_ids(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

uint32_t world_find(const struct world *world, uint64_t id) {
  const uint64_t *found = bsearch(&id, world->ids, world->n_items, sizeof id, compare_ids);
  return found ? (uint32_t)(found - world->ids) : (uint32_t)world->n_items;
}

melu_model *world_train(const struct world *world, const melu_context *ctx, melu_error *err) {
  melu_model *model;
  const struct melu_model_options options = {.size = sizeof options,
                                             .preset = "best",
                                             .seed = 1,
                                             .rating_min = world->rating_min,
                                             .rating_max = world->rating_max};
  if (melu_model_new(&model, ctx, melu_dataset_schema(world->data), &options, err) != MELU_OK) return NULL;
  if (melu_fit(model, world->data, NULL, err) == MELU_OK) return model;
  melu_model_free(model);
  return NULL;
}
