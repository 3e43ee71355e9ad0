/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Files that a version wrote, which every later one reads, on every machine. Usage:
 *     golden make DIR     writes one of each kind and, to expected.txt, what they lead to
 *     golden check DIR    reads them, and compares
 * Both go the same way once the files are there, so what is not compared is not expected either. */
#include <math.h>
#include <melu.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_USERS = 24, N_ITEMS = 16, N_RATINGS = 14, N_TOLD = 4, N_BEST = 5, EPOCHS = 30, MOST_BYTES = 1 << 16 };

/* Relative to 1 and the number; tests/proofs/run 18 says why. */
static const double LOADED = 2e-6, TRAINED = 2e-5;

static struct {
  const char *folder;
  int making;
  FILE *expected;
  melu_context *ctx;
  melu_schema *schema;
  melu_dataset *data;
  uint64_t first_epoch; /* of the training that is under way */
  size_t n_values;
} g;

static melu_error err;

static void give_up(const char *what, const char *why) {
  fprintf(stderr, "golden: %s: %s\n", what, why);
  exit(1);
}

#define TRY(call)                                       \
  do {                                                  \
    if ((call) != MELU_OK) give_up(#call, err.message); \
  } while (0)

struct path {
  char text[512];
};

static struct path in_folder(const char *network, const char *name) {
  struct path path;
  snprintf(path.text, sizeof path.text, "%s/%s%s", g.folder, network, name);
  return path;
}

static FILE *open_file(const char *path, const char *mode) {
  FILE *file = fopen(path, mode);
  if (!file) give_up(path, "cannot be opened");
  return file;
}

static size_t read_bytes(const char *path, unsigned char *bytes) {
  FILE *file = open_file(path, "rb");
  const size_t n = fread(bytes, 1, MOST_BYTES, file);
  if (n == 0 || n == MOST_BYTES || fclose(file)) give_up(path, "cannot be read");
  return n;
}

static void write_bytes(const char *path, const unsigned char *bytes, size_t n) {
  FILE *file = open_file(path, "wb");
  if (fwrite(bytes, 1, n, file) != n || fclose(file)) give_up(path, "cannot be written");
}

/* ------------------------------------------------------------------------------------- what is expected */

/* Writes the next number, or compares it with the one that was written. */
static void expect(const char *network, const char *what, size_t index, double number, double tolerance) {
  char name[64], written[64];
  double wanted;
  snprintf(name, sizeof name, "%s.%s[%zu]", network, what, index);
  g.n_values++;
  if (g.making) {
    fprintf(g.expected, "%s %.9g\n", name, number);
    return;
  }
  if (fscanf(g.expected, "%63s %lf", written, &wanted) != 2) give_up(name, "expected.txt ends before it");
  if (strcmp(name, written) != 0) give_up(name, "expected.txt has another name there");
  if (fabs(number - wanted) <= tolerance * (1 + fabs(wanted))) return;
  fprintf(stderr, "golden: %s is %.9g, expected %.9g\n", name, number, wanted);
  exit(1);
}

/* --------------------------------------------------------------------------------------------- the data */

static unsigned random_below(uint64_t *state, unsigned n) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (unsigned)(*state >> 33) % n;
}

static void make_tables(void) {
  static const char *const genres[] = {"Drama", "M\xc3\xa4rchen", "\"Film, noir\"", "NA"};
  uint64_t random = 9;
  FILE *users = open_file(in_folder("", "users.csv").text, "w"),
       *items = open_file(in_folder("", "items.csv").text, "w"),
       *ratings = open_file(in_folder("", "ratings.csv").text, "w");
  fputs("user,age,visits\n", users);
  fputs("item,name,genre,price\n", items);
  fputs("user,item,rating\n", ratings);
  for (unsigned i = 0; i < N_ITEMS; i++) {
    const char *genre = genres[i % 4];
    fprintf(items, "sku-%u,name %u,%s%s,%u.5\n", i, i, genre, i % 4 == 0 ? "|Short" : "", random_below(&random, 9));
  }
  for (unsigned u = 0; u < N_USERS; u++) {
    const unsigned taste = random_below(&random, 4);
    fprintf(users, "%u,%s,%u\n", 1000 + u, u % 5 ? (u % 2 ? "young" : "old") : "", random_below(&random, 100));
    for (unsigned i = 0; i < N_RATINGS; i++) {
      const unsigned item = (u + i) % N_ITEMS;
      fprintf(ratings, "%u,sku-%u,%u\n", 1000 + u, item, (item % 4 == taste ? 4 : 2) + random_below(&random, 2));
    }
  }
  if (fclose(users) || fclose(items) || fclose(ratings)) give_up(g.folder, "the tables cannot be written");
}

static void read_tables(void) {
  const struct melu_field fields[] = {
      {.size = sizeof *fields, .name = "name", .owner = MELU_ITEM, .kind = MELU_ONE, .width = 3},
      {.size = sizeof *fields, .name = "genre", .owner = MELU_ITEM, .kind = MELU_MANY, .width = 4},
      {.size = sizeof *fields, .name = "price", .owner = MELU_ITEM, .kind = MELU_NUMERIC, .shift = 4, .scale = 0.25},
      {.size = sizeof *fields, .name = "age", .owner = MELU_USER, .kind = MELU_ONE, .width = 3},
      {.size = sizeof *fields, .name = "visits", .owner = MELU_USER, .kind = MELU_NUMERIC, .scale = 0.01}};
  TRY(melu_schema_new(&g.schema, g.ctx, &err));
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) TRY(melu_schema_add(g.schema, &fields[i], &err));
  TRY(melu_dataset_new(&g.data, g.ctx, g.schema, &err));
  TRY(melu_dataset_read_users(g.data, in_folder("", "users.csv").text, NULL, &err));
  TRY(melu_dataset_read_items(g.data, in_folder("", "items.csv").text, NULL, &err));
  TRY(melu_dataset_read_ratings(g.data, in_folder("", "ratings.csv").text, NULL, &err));
  TRY(melu_dataset_freeze(g.data, &err));
}

/* --------------------------------------------------------------------------------------------- the files */

static melu_model *new_model(const char *network) {
  const size_t hidden[2] = {6, 5};
  melu_model *model;
  const struct melu_model_options layers = {.size = sizeof layers, .seed = 1, .hidden = hidden, .n_hidden = 2};
  const struct melu_model_options factors = {
      .size = sizeof factors, .preset = "best", .seed = 2, .hidden = hidden, .n_hidden = 1, .rank = 4};
  const struct melu_model_options *options = strcmp(network, "layers") == 0 ? &layers : &factors;
  TRY(melu_model_new(&model, g.ctx, melu_dataset_schema(g.data), options, &err));
  return model;
}

static void train(melu_model *model, const char *checkpoint, int resume) {
  const struct melu_optimizer_options adam = {.size = sizeof adam, .lr = 1e-2};
  const struct melu_fit_options fit = {.size = sizeof fit,
                                       .n_epochs = EPOCHS,
                                       .batch_tasks = 8,
                                       .n_query = 5,
                                       .min_ratings = 6,
                                       .optimizer = &adam,
                                       .prior_vectors = 2,
                                       .prior_offsets = 1,
                                       .prior_dense = 1,
                                       .validation = 0.2,
                                       .checkpoint = checkpoint,
                                       .resume = resume};
  g.first_epoch = 0;
  TRY(melu_fit(model, g.data, &fit, &err));
}

static int progress(void *arg, const struct melu_progress *progress) {
  (void)arg;
  if (strcmp(progress->phase, "fit") == 0 && g.first_epoch == 0) g.first_epoch = progress->epoch;
  return 0;
}

static const uint32_t told[N_TOLD] = {0, 3, 4, 9};
static const float ratings[N_TOLD] = {5, 2, 4, 1};

static void make_user(const char *network, melu_workspace *ws, const melu_model *model, melu_user *user) {
  const float visits = 30;
  const uint32_t age = melu_schema_value_id(melu_dataset_schema(g.data), "age", "young");
  const struct melu_value profile[2] = {{.ids = &age, .n_ids = 1}, {.numbers = &visits, .n_numbers = 1}};
  unsigned char bytes[MOST_BYTES];
  TRY(melu_adapt(user, ws, model, g.data, profile, told, ratings, N_TOLD, &err));
  for (int form = MELU_USER_COMPACT; form <= MELU_USER_READY; form++) {
    size_t n = sizeof bytes;
    TRY(melu_user_save(bytes, &n, ws, user, (melu_user_form)form, &err));
    write_bytes(in_folder(network, form ? ".ready.user" : ".compact.user").text, bytes, n);
  }
}

static void make(const char *network) {
  melu_model *model = new_model(network);
  melu_workspace *ws;
  melu_user *user;
  train(model, in_folder(network, ".checkpoint").text, 0);
  TRY(melu_model_save(model, in_folder(network, ".model").text, &err));
  TRY(melu_workspace_new(&ws, model, N_TOLD, &err));
  TRY(melu_user_new(&user, model, &err));
  make_user(network, ws, model, user);
  melu_user_free(user);
  melu_workspace_free(ws);
  melu_model_free(model);
}

/* --------------------------------------------------------------------------------- what they lead to */

static void check_scores(const char *network, const char *what, melu_workspace *ws, const melu_model *model,
                         const melu_user *user, double tolerance) {
  uint32_t items[N_ITEMS];
  float scores[N_ITEMS];
  for (uint32_t i = 0; i < N_ITEMS; i++) items[i] = i;
  TRY(melu_predict(scores, ws, model, user, g.data, items, N_ITEMS, &err));
  for (size_t i = 0; i < N_ITEMS; i++) expect(network, what, i, (double)scores[i], tolerance);
}

static void check_best(const char *network, melu_workspace *ws, const melu_model *model, const melu_user *user) {
  melu_catalog *catalog;
  uint32_t items[N_BEST];
  float scores[N_BEST];
  size_t n = N_BEST;
  TRY(melu_catalog_new(&catalog, model, g.data, NULL, 0, &err));
  TRY(melu_catalog_top(items, scores, &n, ws, catalog, user, NULL, &err));
  for (size_t i = 0; i < n; i++) expect(network, "best", i, items[i], 0);
  melu_catalog_free(catalog);
}

static void check_users(const char *network, melu_workspace *ws, const melu_model *model) {
  static const char *const forms[2] = {"compact", "ready"};
  unsigned char bytes[MOST_BYTES];
  char name[32];
  melu_user *user;
  TRY(melu_user_new(&user, model, &err));
  check_scores(network, "stranger", ws, model, user, LOADED);
  for (int form = 0; form < 2; form++) {
    snprintf(name, sizeof name, ".%s.user", forms[form]);
    const size_t n = read_bytes(in_folder(network, name).text, bytes);
    TRY(melu_user_load(user, ws, model, g.data, bytes, n, &err));
    check_scores(network, forms[form], ws, model, user, LOADED);
  }
  check_best(network, ws, model, user);
  melu_user_free(user);
}

static void check_model(const char *network, melu_model *model) {
  unsigned char digest[MELU_DIGEST_BYTES];
  melu_workspace *ws;
  TRY(melu_model_digest(digest, model, &err));
  for (size_t i = 0; i < sizeof digest; i++) expect(network, "digest", i, digest[i], 0);
  TRY(melu_workspace_new(&ws, model, N_TOLD, &err));
  check_users(network, ws, model);
  melu_workspace_free(ws);
}

/* The last epoch of the training that the checkpoint interrupted. It goes on in a copy, because it writes its own. */
static void check_checkpoint(const char *network) {
  unsigned char bytes[MOST_BYTES];
  melu_model *model = new_model(network);
  melu_workspace *ws;
  melu_user *user;
  write_bytes("golden.checkpoint", bytes, read_bytes(in_folder(network, ".checkpoint").text, bytes));
  train(model, "golden.checkpoint", 1);
  if (g.first_epoch != EPOCHS) give_up(network, "the training did not go on where its checkpoint is");
  if (remove("golden.checkpoint")) give_up("golden.checkpoint", "cannot be removed");
  TRY(melu_workspace_new(&ws, model, N_TOLD, &err));
  TRY(melu_user_new(&user, model, &err));
  TRY(melu_adapt(user, ws, model, g.data, NULL, told, ratings, N_TOLD, &err));
  check_scores(network, "resumed", ws, model, user, TRAINED);
  melu_user_free(user);
  melu_workspace_free(ws);
  melu_model_free(model);
}

static void check(const char *network) {
  melu_model *model;
  TRY(melu_model_load(&model, g.ctx, in_folder(network, ".model").text, &err));
  check_model(network, model);
  melu_model_free(model);
  check_checkpoint(network);
}

/* All of it, with these kernels. */
static void run(const char *kernels) {
  const struct melu_context_options options = {.size = sizeof options, .progress = progress, .kernels = kernels};
  static const char *const networks[] = {"layers", "factors"};
  TRY(melu_context_new(&g.ctx, &options, &err));
  if (g.making) make_tables();
  read_tables();
  g.n_values = 0;
  g.expected = open_file(in_folder("", "expected.txt").text, g.making ? "w" : "r");
  for (size_t i = 0; i < 2; i++) {
    if (g.making) make(networks[i]);
    check(networks[i]);
  }
  if (fclose(g.expected)) give_up("expected.txt", "cannot be written");
  printf("%s: %zu numbers %s; %s\n", g.folder, g.n_values, g.making ? "written" : "as expected",
         melu_build_info(g.ctx));
  melu_dataset_free(g.data);
  melu_schema_free(g.schema);
  melu_context_free(g.ctx);
}

int main(int argc, char **argv) {
  if (argc != 3 || (strcmp(argv[1], "make") != 0 && strcmp(argv[1], "check") != 0)) {
    fputs("usage: golden make|check DIR\n", stderr);
    return 2;
  }
  g.making = strcmp(argv[1], "make") == 0;
  g.folder = argv[2];
  run(NULL);
  if (!g.making) run("base");
  return 0;
}
