/* SPDX-License-Identifier: BSD-3-Clause */
/* Training the preset "best" on all warm users of MovieLens-1M by melu_fit, as a user would.
 *
 *     bench_fit DIR [--epochs N] [--threads T] [--json]
 *
 * DIR is a folder in the form of the MeLU reference code. Figures: seconds and CPU-seconds of an epoch (median), users
 * a CPU-second, what the preset's 40 epochs would take, and the most memory that the process had. */
#include "args.h"
#include "world.h"

enum { MAX_EPOCHS = 1000 };

struct watch {
  uint64_t epoch;
  size_t n_epochs;
  double began, began_cpu;
  double wall[MAX_EPOCHS], cpu[MAX_EPOCHS];
};

/* The first call of an epoch comes after its first update: an epoch is from one such call to the next. */
static int on_progress(void *arg, const struct melu_progress *progress) {
  struct watch *w = arg;
  if (strcmp(progress->phase, "fit") != 0 || progress->epoch == w->epoch) return 0;
  const double wall = now(), cpu = cpu_now();
  if (w->epoch > 0 && w->n_epochs < MAX_EPOCHS) {
    w->wall[w->n_epochs] = wall - w->began;
    w->cpu[w->n_epochs++] = cpu - w->began_cpu;
  }
  w->epoch = progress->epoch;
  w->began = wall;
  w->began_cpu = cpu;
  return 0;
}

struct choices {
  const char *dir;
  size_t n_epochs, n_threads;
  int json;
};

static int read_choices(struct choices *c, int argc, char **argv) {
  *c = (struct choices){.n_epochs = 6, .n_threads = 1};
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--json"))
      c->json = 1;
    else if (!strcmp(argv[i], "--threads") && read_size(&c->n_threads, argv[i + 1], 1, 1024))
      i++;
    else if (!strcmp(argv[i], "--epochs") && read_size(&c->n_epochs, argv[i + 1], 2, MAX_EPOCHS))
      i++;
    else if (*argv[i] != '-' && !c->dir)
      c->dir = argv[i];
    else
      return 0;
  }
  return c->dir != NULL;
}

static void print_figures(const struct choices *c, struct watch *w, size_t n_users, double whole) {
  const double wall = quantile(w->wall, w->n_epochs, 0.5), cpu = quantile(w->cpu, w->n_epochs, 0.5);
  if (c->json)
    printf(
        "{\"threads\": %zu, \"users\": %zu, \"epoch_s\": %.4f, \"epoch_cpu_s\": %.4f, \"users_per_cpu_s\": %.1f,\n"
        " \"preset_s\": %.2f, \"peak_mib\": %.1f}\n",
        c->n_threads, n_users, wall, cpu, (double)n_users / cpu, 40 * wall, peak_mib());
  else
    printf(
        "%zu thread(s), %zu users, %zu epochs in %.1f s\nan epoch               %8.3f s, %.3f CPU-seconds\n"
        "users per CPU-second   %8.0f\n40 epochs              %8.1f s\npeak memory            %8.1f MiB\n",
        c->n_threads, n_users, c->n_epochs, whole, wall, cpu, (double)n_users / cpu, 40 * wall, peak_mib());
}

int main(int argc, char **argv) {
  static struct watch watch;
  struct choices c;
  melu_context *ctx;
  melu_schema *schema;
  melu_dataset *data;
  melu_model *model;
  if (!read_choices(&c, argc, argv)) {
    fprintf(stderr, "usage: bench_fit DIR [--epochs N] [--threads T] [--json]\n");
    return 2;
  }
  const struct melu_context_options options = {
      .size = sizeof options, .n_threads = c.n_threads, .progress = on_progress, .progress_arg = &watch};
  const struct melu_model_options shape = {.size = sizeof shape, .preset = "best"};
  const struct melu_fit_options fit = {.size = sizeof fit, .n_epochs = c.n_epochs};
  TRY(melu_context_new(&ctx, &options, &err));
  TRY(melu_schema_new(&schema, ctx, &err));
  TRY(melu_schema_add_melu_items(schema, c.dir, &err));
  TRY(melu_dataset_new(&data, ctx, schema, &err));
  TRY(melu_dataset_read_melu(data, c.dir, "warm_state", &err));
  TRY(melu_dataset_freeze(data, &err));
  TRY(melu_model_new(&model, ctx, melu_dataset_schema(data), &shape, &err));
  const double start = now();
  TRY(melu_fit(model, data, &fit, &err));
  size_t n_users = 0;
  for (uint32_t u = 0; u < melu_dataset_n_users(data); u++) n_users += melu_dataset_ratings(data, u, NULL, NULL) >= 2;
  print_figures(&c, &watch, n_users, now() - start);
  melu_model_free(model);
  melu_dataset_free(data);
  melu_schema_free(schema);
  melu_context_free(ctx);
  return 0;
}
