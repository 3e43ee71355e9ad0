/* SPDX-License-Identifier: BSD-3-Clause */
/* What a vocabulary costs: the time of one epoch of training when one item field has 10,000 to 1,000,000 values (with
 * --all 10,000,000, which takes 4 GB), while users, items and ratings stay the same. An epoch is 256 users with 20
 * support and 10 query ratings of 4,000 items, in batches of 32 tasks, with the library's defaults, on one thread.
 *
 *     bench_vocab [--all] [--json]
 *
 * All worlds live side by side and their rounds take turns. Times are medians of the rounds; a ratio is the median of
 * the rounds' own ratios to the smallest vocabulary. */
#include "world.h"

enum { N_USERS = 256, N_ITEMS = 4000, N_SUPPORT = 20, N_QUERY = 10, N_TASKS = 32, N_ROUNDS = 9, N_EPOCHS = 4 };
enum { TAG = 3 }; /* the item field that grows */

static const size_t vocabularies[] = {10000, 100000, 1000000, 10000000};
enum { N_VOCABULARIES = sizeof vocabularies / sizeof *vocabularies, SMALLEST = 0, LARGER_100X = 2 };

struct side {
  struct world w;
  melu_batch *batch;
  melu_gradient *gradient;
  melu_optimizer *optimizer;
  double times[N_ROUNDS], ratios[N_ROUNDS]; /* ascending once the medians are taken */
  double time, ratio;
};

/* The ids of the items lie evenly in the whole vocabulary: as many rows are touched, further apart. All else is drawn
 * from the same random numbers in all worlds. */
static void open_side(struct side *s, size_t vocabulary) {
  const struct melu_context_options options = {.size = sizeof options, .n_threads = 1};
  struct melu_value values[4];
  uint32_t ids[4][8];
  uint64_t random = 1;
  memcpy(s->w.fields, fields, sizeof fields);
  s->w.fields[TAG] =
      (struct melu_field){.name = "tag", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = vocabulary, .width = 32};
  world_begin(&s->w, &options);
  for (uint64_t i = 0; i < N_ITEMS; i++) {
    draw_values(values, ids, s->w.fields, MELU_ITEM, &random);
    values[TAG].n_ids = 1;
    ids[TAG][0] = (uint32_t)(i * vocabulary / N_ITEMS);
    TRY(melu_dataset_add_item(s->w.data, i, values, NULL, &err));
  }
  world_finish(&s->w, N_USERS, N_SUPPORT + N_QUERY, &random);
  TRY(melu_batch_new(&s->batch, s->w.ctx, s->w.data, &err));
  TRY(melu_gradient_new(&s->gradient, s->w.model, &err));
  TRY(melu_optimizer_new(&s->optimizer, s->w.model, NULL, &err));
}

static void close_side(struct side *s) {
  melu_optimizer_free(s->optimizer);
  melu_gradient_free(s->gradient);
  melu_batch_free(s->batch);
  world_close(&s->w);
}

static void epoch(struct side *s) {
  uint32_t positions[N_SUPPORT + N_QUERY];
  for (uint32_t i = 0; i < N_SUPPORT + N_QUERY; i++) positions[i] = i;
  for (uint32_t user = 0; user < N_USERS;) {
    melu_batch_clear(s->batch);
    for (uint32_t end = user + N_TASKS; user < end; user++)
      TRY(melu_batch_add(s->batch, user, positions, N_SUPPORT, positions + N_SUPPORT, N_QUERY, &err));
    TRY(melu_meta_gradient(s->gradient, s->w.model, s->batch, &err));
    TRY(melu_optimizer_step(s->optimizer, s->w.model, s->gradient, &err));
  }
}

static void measure(struct side *sides, size_t n) {
  for (size_t i = 0; i < n; i++) epoch(&sides[i]); /* makes the plan, and the system gives the memory */
  for (size_t round = 0; round < N_ROUNDS; round++) {
    for (size_t i = 0; i < n; i++) {
      const double start = now();
      for (int k = 0; k < N_EPOCHS; k++) epoch(&sides[i]);
      sides[i].times[round] = (now() - start) / N_EPOCHS;
      sides[i].ratios[round] = sides[i].times[round] / sides[SMALLEST].times[round];
    }
  }
  for (size_t i = 0; i < n; i++) {
    sides[i].time = quantile(sides[i].times, N_ROUNDS, 0.5);
    sides[i].ratio = quantile(sides[i].ratios, N_ROUNDS, 0.5);
  }
}

static void print_json(const struct side *sides, size_t n) {
  printf("{\"users\": %d, \"items\": %d, \"vocabularies\": [", N_USERS, N_ITEMS);
  for (size_t i = 0; i < n; i++)
    printf("%s\n {\"vocabulary\": %zu, \"epoch_ms\": %.3f, \"ratio\": %.4f}", i ? "," : "", vocabularies[i],
           1e3 * sides[i].time, sides[i].ratio);
  printf("],\n \"ratio_100x\": {\"value\": %.4f}, \"build\": \"%s\"}\n", sides[LARGER_100X].ratio,
         melu_build_info(sides[SMALLEST].w.ctx));
}

static void print_table(const struct side *sides, size_t n) {
  printf("%s\n%12s%14s%10s\n", melu_build_info(sides[SMALLEST].w.ctx), "vocabulary", "ms an epoch", "ratio");
  for (size_t i = 0; i < n; i++) printf("%12zu%14.2f%10.3f\n", vocabularies[i], 1e3 * sides[i].time, sides[i].ratio);
}

int main(int argc, char **argv) {
  static struct side sides[N_VOCABULARIES];
  size_t n = LARGER_100X + 1;
  int json = 0;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--json"))
      json = 1;
    else if (!strcmp(argv[i], "--all"))
      n = N_VOCABULARIES;
    else
      return fprintf(stderr, "usage: bench_vocab [--all] [--json]\n"), 2;
  }
  for (size_t i = 0; i < n; i++) open_side(&sides[i], vocabularies[i]);
  measure(sides, n);
  if (json)
    print_json(sides, n);
  else
    print_table(sides, n);
  for (size_t i = 0; i < n; i++) close_side(&sides[i]);
  return 0;
}
