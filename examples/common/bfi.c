/* SPDX-License-Identifier: BSD-3-Clause */
#include "bfi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "mix.h"

/* Reads the cell that ends at `end` and steps over it; "NA" is 0. Returns 0 if it is neither. */
static int read_cell(unsigned *value, char **text, char end) {
  char *after = *text;
  if (strncmp(after, "NA", 2) == 0) {
    *value = 0;
    after += 2;
  } else {
    const unsigned long number = strtoul(*text, &after, 10);
    if (after == *text || number > 150) return 0;
    *value = (unsigned)number;
  }
  if (*after != end && !(end == '\n' && (*after == '\r' || *after == '\0'))) return 0;
  *text = after + 1;
  return 1;
}

static int read_person(struct bfi_person *person, char *line) {
  for (size_t i = 0; i < BFI_STATEMENTS; i++) {
    if (!read_cell(&person->answers[i], &line, ',') || person->answers[i] > 6) return 0;
  }
  return read_cell(&person->gender, &line, ',') && person->gender <= 2 && read_cell(&person->education, &line, ',') &&
         person->education <= 5 && read_cell(&person->age, &line, '\n');
}

struct bfi_person *bfi_read(size_t *n_people, const char *dir) {
  char path[4096], line[256];
  if ((size_t)snprintf(path, sizeof path, "%s/bfi.csv", dir) >= sizeof path) give_up("%s: the name is too long", dir);
  FILE *file = fopen(path, "r");
  if (!file) give_up("%s: %s", path, strerror(errno));
  struct bfi_person *people = NULL;
  size_t n = 0, room = 0;
  if (!fgets(line, sizeof line, file) || strncmp(line, "A1,", 3) != 0) give_up("%s: line 1 is not the header", path);
  while (fgets(line, sizeof line, file)) {
    if (n == room) {
      room = room ? 2 * room : 1024;
      people = realloc(people, room * sizeof *people);
      if (!people) give_up("out of memory");
    }
    if (!read_person(&people[n], line)) give_up("%s: line %zu is not a person's", path, n + 2);
    n++;
  }
  if (ferror(file)) give_up("%s: %s", path, strerror(errno));
  fclose(file);
  if (n == 0) give_up("%s: there is nobody in it", path);
  *n_people = n;
  return people;
}

int bfi_held_out(uint64_t number) {
  return mix64(number) % 5 == 0;
}

melu_schema *bfi_new_schema(const melu_context *ctx) {
  melu_error err;
  melu_schema *schema;
  must(melu_schema_new(&schema, ctx, &err), &err);
  const struct melu_field fields[] = {
      /* A row of parameters for each statement; which ones there are is learnt from the file. */
      {.size = sizeof fields[0], .name = "statement", .owner = MELU_ITEM, .kind = MELU_ONE},
      {.size = sizeof fields[0], .name = "gender", .owner = MELU_USER, .kind = MELU_ONE, .n_values = 2},
      {.size = sizeof fields[0], .name = "education", .owner = MELU_USER, .kind = MELU_ONE, .n_values = 5},
      /* Numbers should be of the order of one. */
      {.size = sizeof fields[0], .name = "age", .owner = MELU_USER, .kind = MELU_NUMERIC, .shift = 29, .scale = 0.1},
  };
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) must(melu_schema_add(schema, &fields[i], &err), &err);
  return schema;
}

void bfi_set_profile(struct bfi_profile *profile, const struct bfi_person *person) {
  *profile = (struct bfi_profile){.gender = person->gender - 1,
                                  .education = person->education - 1, /* ids start at 0 */
                                  .age = (float)person->age};
  if (person->gender) profile->values[0] = (struct melu_value){.ids = &profile->gender, .n_ids = 1};
  if (person->education) profile->values[1] = (struct melu_value){.ids = &profile->education, .n_ids = 1};
  if (person->age) profile->values[2] = (struct melu_value){.numbers = &profile->age, .n_numbers = 1};
}

melu_dataset *bfi_new_dataset(const melu_context *ctx, const melu_schema *schema, const char *dir,
                              const struct bfi_person *people, size_t n_people, int held_out) {
  melu_error err;
  melu_dataset *data;
  must(melu_dataset_new(&data, ctx, schema, &err), &err);

  /* A table with a column for the id and one for every field can be read as it is. */
  char path[4096];
  const char *const skip[] = {"trait", "keying"};
  const struct melu_table_options table = {.size = sizeof table, .id = "item", .skip = skip, .n_skip = 2};
  snprintf(path, sizeof path, "%s/bfi_items.tsv", dir);
  must(melu_dataset_read_items(data, path, &table, &err), &err);
  if (melu_dataset_n_items(data) != BFI_STATEMENTS) give_up("%s: there should be %d items", path, BFI_STATEMENTS);

  /* Anything else is added piece by piece. */
  for (size_t p = 0; p < n_people; p++) {
    const uint64_t id = p + 1;
    if (bfi_held_out(id) != held_out) continue;
    struct bfi_profile profile;
    bfi_set_profile(&profile, &people[p]);
    must(melu_dataset_add_user(data, id, profile.values, NULL, &err), &err);
    for (uint32_t i = 0; i < BFI_STATEMENTS; i++) {
      const unsigned answer = people[p].answers[i];
      if (answer) must(melu_dataset_add_rating(data, id, melu_dataset_item_id(data, i), (float)answer, &err), &err);
    }
  }
  must(melu_dataset_freeze(data, &err), &err);
  return data;
}

const char *bfi_statement(const melu_dataset *data, uint32_t item) {
  melu_error err;
  struct melu_value value;
  must(melu_dataset_item_values(&value, data, item, &err), &err);
  return melu_schema_value_text(melu_dataset_schema(data), "statement", value.ids[0]);
}
