/* SPDX-License-Identifier: BSD-3-Clause */
/* The next question. Its gain, where there are variances: by how much they fall when she is adapted again with one more
 * rating of that item, whatever it says; else: how the scores change with the answer, tried out by the test. And the
 * order, the lists, and what is refused. */
#include <math.h>

#include "people.h"
#include "run_suite.h"

enum { N = PEOPLE_ITEMS };

static melu_error err;
static struct people p;
static melu_user *changed; /* another one */

#define LAYERS PEOPLE_LAYERS
#define FACTORS PEOPLE_FACTORS
#define STEPS PEOPLE_FACTORS, .rule = MELU_STEPS

static const struct melu_model_options settings[] = {
    {FACTORS},
    {LAYERS},
    {STEPS},
    {FACTORS, .history = -1},
    {FACTORS, .loss = MELU_LOGISTIC},
    {PEOPLE_OPTIONS, .preset = "best"},
    {STEPS, .loss = MELU_LOGISTIC},
    {LAYERS, .loss = MELU_LOGISTIC},
    {LAYERS, .rule = MELU_CLOSED_FORM},
    {LAYERS, .adapt = 15, .loss = MELU_ABSOLUTE, .rating_min = -2, .rating_max = 7},
    {PEOPLE_OPTIONS, .preset = "melu"},
};

enum { N_SETTINGS = sizeof settings / sizeof *settings, CLOSED = 0, TRIED = 1, N_KINDS = 3 };

static void open_setting(size_t i, size_t max_support) {
  people_open(&p, NULL, &settings[i], 0, max_support);
  WORLD_TRY(melu_user_new(&changed, p.model, &err));
}

static void close_setting(void) {
  melu_user_free(changed);
  people_close(&p);
}

/* ---------------------------------------------------------------------------------------------- a naive answer */

static struct melu_model_options options_of(const melu_model *model) {
  struct melu_model_options o = {.size = sizeof o};
  WORLD_TRY(melu_model_get_options(&o, model, &err));
  return o;
}

static int has_variances(void) {
  const struct melu_model_options o = options_of(p.model);
  return o.network == MELU_FACTORS && o.rule == MELU_CLOSED_FORM;
}

static void answer(const struct told *t, uint32_t item, float rating) {
  struct told more = *t;
  more.items[more.n] = item;
  more.ratings[more.n++] = rating;
  people_adapt(&p, changed, &more);
}

static void predict(float *scores, const melu_user *user, const uint32_t *items, size_t n) {
  WORLD_TRY(melu_predict(scores, p.ws, p.model, user, p.data, items, n, &err));
}

static void vary_of(float *variances, const melu_user *user, const uint32_t *items, size_t n) {
  WORLD_TRY(melu_predict_variance(variances, p.ws, p.model, user, p.data, items, n, &err));
}

/* What is known of a new item is worth less than its rating suggests: 1 + q + new[2] for 1 + q. */
static double share_of(uint32_t item) {
  float own, scale[2], noise, of_new[3];
  if (people_click(p.model) || !people_is_new(item)) return 1;
  vary_of(&own, p.user, &item, 1);
  WORLD_TRY(melu_model_read(scale, p.model, "scale", 0, 1, &err));
  WORLD_TRY(melu_model_read(&noise, p.model, "noise", 0, 1, &err));
  WORLD_TRY(melu_model_read(of_new, p.model, "new", 0, 1, &err));
  const double all = (double)own / ((double)scale[1] * (double)scale[1] * (double)noise);
  return (all - (double)of_new[2]) / all;
}

static double naive_gain(const struct told *t, uint32_t item, const uint32_t *targets, size_t n) {
  const struct melu_model_options o = options_of(p.model);
  const double step = (o.rating_max - o.rating_min) / 4, middle = (o.rating_max + o.rating_min) / 2;
  float before[N], after[N], score;
  double sum = 0;
  if (has_variances()) {
    answer(t, item, n % 2 ? 5 : 1);
    vary_of(before, p.user, targets, n);
    vary_of(after, changed, targets, n);
    for (size_t i = 0; i < n; i++) sum += (double)before[i] - (double)after[i];
    return sum / (double)n * share_of(item);
  }
  predict(&score, p.user, &item, 1);
  const double y = o.loss == MELU_LOGISTIC ? 1 / (1 + exp(-(double)score)) : (double)score;
  answer(t, item, (float)(y > middle ? y - step : y + step));
  predict(before, p.user, targets, n);
  predict(after, changed, targets, n);
  for (size_t i = 0; i < n; i++) sum += pow(((double)after[i] - (double)before[i]) / step, 2);
  return sum / (double)n;
}

/* ------------------------------------------------------------------------------------------------------ lists */

struct lists {
  uint32_t items[N], targets[N];
  float chances[N];
  struct melu_ask_options options;
};

static void list_items(struct lists *l, uint32_t first, uint32_t step, size_t n) {
  for (size_t i = 0; i < n; i++) l->items[i] = (uint32_t)(first + i * step) % N;
  l->options.items = l->items;
  l->options.n_items = n;
}

/* Some come twice, and count so. */
static void list_targets(struct lists *l, uint32_t first, uint32_t step, size_t n) {
  for (size_t i = 0; i < n; i++) l->targets[i] = (uint32_t)(first + i / 2 * step) % N;
  l->options.targets = l->targets;
  l->options.n_targets = n;
}

/* Every fifth cannot be answered. */
static void list_chances(struct lists *l) {
  for (size_t i = 0; i < N; i++) l->chances[i] = (float)(i % 5) / 4;
  l->options.chances = l->chances;
}

static size_t ask(uint32_t *items, float *gains, size_t n, const struct melu_ask_options *o) {
  WORLD_TRY(melu_ask(items, gains, &n, p.ws, p.model, p.user, p.data, o, &err));
  return n;
}

static int is_told(const struct told *t, uint32_t item) {
  for (size_t i = 0; i < t->n; i++)
    if (t->items[i] == item) return 1;
  return 0;
}

/* What may be asked about, as numbers of the chances: those listed, or all that she did not rate. */
static size_t naive_items(uint32_t *items, float *chances, const struct told *t, const struct melu_ask_options *o) {
  size_t n = 0;
  for (uint32_t i = 0; i < (o->items ? o->n_items : N); i++) {
    if (!o->items && is_told(t, i)) continue;
    items[n] = o->items ? o->items[i] : i;
    chances[n++] = o->chances ? o->chances[i] : 1;
  }
  return n;
}

/* The ranking is of these gains, best first and equal ones by position, of each item that may be asked about once. */
static void check_order(const uint32_t *items, const float *gains, size_t n, const uint32_t *may) {
  for (size_t i = 0; i < n; i++) {
    size_t k = 0;
    while (k < n && items[k] != may[i]) k++;
    ck_assert_msg(k < n, "item %u is missing", (unsigned)may[i]);
    if (i) ck_assert(gains[i - 1] > gains[i] || (gains[i - 1] == gains[i] && items[i - 1] < items[i]));
  }
}

static void check_gains(const struct told *t, const struct melu_ask_options *o) {
  const double tolerance = has_variances() ? 1e-4 : 1e-6; /* differences of variances are those of floats */
  uint32_t may[N], items[N], fewer[N];
  float chances[N], gains[N];
  double want[N], largest = 0;
  const size_t n_may = naive_items(may, chances, t, o), n = ask(items, gains, N, o);
  ck_assert_uint_eq(n, n_may);
  check_order(items, gains, n, may);
  for (size_t i = 0; i < n; i++) {
    size_t k = 0;
    while (may[k] != items[i]) k++;
    want[i] =
        (double)chances[k] * naive_gain(t, items[i], o->targets ? o->targets : may, o->targets ? o->n_targets : n_may);
    largest = fmax(largest, want[i]);
  }
  for (size_t i = 0; i < n; i++)
    ck_assert_msg(fabs((double)gains[i] - want[i]) <= tolerance * largest,
                  "%zu told, item %u: gain %.9g, in truth %.9g", t->n, (unsigned)items[i], (double)gains[i], want[i]);
  for (size_t k = 0; k < n; k += 1 + k) {
    ck_assert_uint_eq(ask(fewer, NULL, k, o), k);
    if (k) ck_assert_mem_eq(fewer, items, k * sizeof *items);
  }
}

START_TEST(gains_are_what_an_answer_changes) {
  static const size_t counts[] = {0, 1, 9, 40};
  open_setting((size_t)_i, PEOPLE_MOST);
  for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
    const struct told t = people_told(&p, counts[k], k % 2);
    struct lists some = {.options = {.size = sizeof some.options}}, chosen = some;
    people_adapt(&p, p.user, &t);
    check_gains(&t, &some.options);
    list_chances(&some);
    list_targets(&some, 80, 3, 41);
    check_gains(&t, &some.options);
    list_items(&chosen, 3, 7, 50); /* rated ones too */
    list_chances(&chosen);
    check_gains(&t, &chosen.options);
  }
  close_setting();
}
END_TEST

/* A gain is the same bits wherever the item stands in the list. */
START_TEST(the_order_of_the_list_says_nothing) {
  enum { MANY = 71 };
  uint32_t items[MANY], again[MANY];
  float gains[MANY], gains_again[MANY];
  open_setting((size_t)_i, PEOPLE_MOST);
  const struct told t = people_told(&p, 5, 1);
  struct lists forward = {.options = {.size = sizeof forward.options}}, backward = forward;
  people_adapt(&p, p.user, &t);
  list_items(&forward, 2, 1, MANY);
  list_targets(&forward, 0, 1, N);
  ck_assert_uint_eq(ask(items, gains, MANY, &forward.options), MANY);
  for (size_t turn = 1; turn < MANY; turn += 9) {
    list_items(&backward, 0, 0, MANY);
    for (size_t i = 0; i < MANY; i++) backward.items[i] = forward.items[(MANY - 1 - i + turn) % MANY];
    list_targets(&backward, 0, 1, N);
    ck_assert_uint_eq(ask(again, gains_again, MANY, &backward.options), MANY);
    ck_assert_mem_eq(again, items, sizeof items);
    ck_assert_mem_eq(gains_again, gains, sizeof gains);
  }
  close_setting();
}
END_TEST

/* Two items that do not differ have the same gain, and what cannot be answered has none. */
START_TEST(equal_ones_are_by_position) {
  uint32_t items[N];
  float gains[N];
  open_setting((size_t)_i, PEOPLE_MOST);
  const struct told t = people_told(&p, 5, 1);
  struct lists l = {.options = {.size = sizeof l.options}};
  people_adapt(&p, p.user, &t);
  size_t n = ask(items, gains, N, NULL), k = 0;
  while (items[k] != N - 2) k++;
  ck_assert(k + 1 < n && items[k + 1] == N - 1 && gains[k] == gains[k + 1]);
  list_items(&l, N - 1, N - 1, N); /* the last one first */
  l.options.chances = l.chances;
  l.chances[N - 7 - 1] = 0.5f; /* of item 7 alone */
  n = ask(items, gains, N, &l.options);
  ck_assert(n == N && items[0] == 7 && gains[0] > 0);
  for (uint32_t i = 1; i < N; i++) ck_assert(gains[i] == 0 && items[i] == i - (i <= 7));
  close_setting();
}
END_TEST

/* A user of whom everything was asked, and lists of nothing. */
START_TEST(there_may_be_nothing_to_ask) {
  enum { FEW = 4 };
  const uint32_t all[FEW] = {0, 1, 2, 3};
  const float ratings[FEW] = {0, 1, 1, 0};
  uint32_t items[FEW] = {77, 77, 77, 77};
  float gains[FEW] = {77, 77, 77, 77};
  struct melu_ask_options o = {.size = sizeof o};
  open_setting((size_t)_i, PEOPLE_MOST);
  melu_dataset *data = people_new_data(&p, 0, FEW);
  size_t n = FEW;
  WORLD_TRY(melu_adapt(p.user, p.ws, p.model, data, NULL, all, ratings, FEW, &err));
  WORLD_TRY(melu_ask(items, gains, &n, p.ws, p.model, p.user, data, NULL, &err));
  ck_assert_uint_eq(n, 0);
  WORLD_TRY(melu_adapt(p.user, p.ws, p.model, data, NULL, all, ratings, 1, &err));
  o.items = all; /* but none of them */
  ck_assert_uint_eq(ask(items, gains, FEW, &o), 0);
  o = (struct melu_ask_options){.size = sizeof o, .targets = all};
  ck_assert_uint_eq(ask(items, gains, FEW, &o), 0);
  ck_assert_uint_eq(ask(NULL, NULL, 0, NULL), 0);
  for (size_t i = 0; i < FEW; i++) ck_assert(items[i] == 77 && gains[i] == 77);
  melu_dataset_free(data);
  close_setting();
}
END_TEST

START_TEST(asking_changes_nothing) {
  uint32_t all[N], items[N];
  float before[N], after[N];
  for (uint32_t i = 0; i < N; i++) all[i] = i;
  open_setting((size_t)_i, 6);
  const struct told t = people_told(&p, 5, 1);
  people_adapt(&p, p.user, &t);
  predict(before, p.user, all, N);
  ask(items, NULL, N, NULL);
  ck_assert_uint_eq(melu_user_ratings(p.user, NULL, NULL), 5);
  predict(after, p.user, all, N);
  ck_assert_mem_eq(before, after, sizeof before);
  people_adapt(&p, p.user, &t);
  predict(after, p.user, all, N);
  ck_assert_mem_eq(before, after, sizeof before);
  close_setting();
}
END_TEST

/* ------------------------------------------------------------------------------------------------- bad input */

static uint32_t untouched[2];
static float untouched_gains[2];

static void check_refusal(melu_status want, const melu_user *user, melu_workspace *ws, const melu_dataset *data,
                          const struct melu_ask_options *o) {
  for (int i = 0; i < 2; i++) {
    size_t n = 2;
    untouched[i] = 77;
    untouched_gains[i] = 77;
    err.index = 0;
    ck_assert_int_eq(melu_ask(untouched, untouched_gains, &n, ws, p.model, user, data, o, i ? &err : NULL), want);
    ck_assert_uint_eq(n, 2);
  }
  ck_assert_int_eq(err.status, want);
  for (int i = 0; i < 2; i++) ck_assert(untouched[i] == 77 && untouched_gains[i] == 77);
}

static void check_bad_options(const struct melu_ask_options *o, melu_status want, size_t index) {
  check_refusal(want, p.user, p.ws, p.data, o);
  ck_assert_uint_eq(err.index, index);
}

START_TEST(bad_options_are_refused) {
  const uint32_t far[3] = {0, 1, N};
  float chances[N];
  struct melu_ask_options o = {.size = 3};
  open_setting((size_t)_i, PEOPLE_MOST);
  check_bad_options(&o, MELU_EINVAL, 0);
  o = (struct melu_ask_options){.size = sizeof o, .n_items = 1};
  check_bad_options(&o, MELU_EINVAL, 0);
  o = (struct melu_ask_options){.size = sizeof o, .n_targets = 1};
  check_bad_options(&o, MELU_EINVAL, 0);
  o = (struct melu_ask_options){.size = sizeof o, .items = far, .n_items = 3};
  check_bad_options(&o, MELU_ERANGE, 2);
  o = (struct melu_ask_options){.size = sizeof o, .targets = far, .n_targets = 3};
  check_bad_options(&o, MELU_ERANGE, 2);
  static const float bad[] = {-1e-6f, 1.000001f, NAN, INFINITY, -INFINITY};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    for (size_t k = 0; k < N; k++) chances[k] = k == 1 + i ? bad[i] : (float)(k % 2);
    o = (struct melu_ask_options){.size = sizeof o, .chances = chances};
    check_bad_options(&o, MELU_ERANGE, 1 + i);
    o = (struct melu_ask_options){.size = sizeof o, .items = far, .n_items = 2, .chances = chances + i};
    check_bad_options(&o, MELU_ERANGE, 1);
  }
  close_setting();
}
END_TEST

static void check_other_handles(void) {
  const struct melu_model_options o = options_of(p.model);
  melu_model *other;
  melu_user *stranger;
  melu_workspace *ws;
  WORLD_TRY(melu_model_new(&other, p.ctx, p.schema, &o, &err));
  WORLD_TRY(melu_user_new(&stranger, other, &err));
  WORLD_TRY(melu_workspace_new(&ws, other, 4, &err));
  check_refusal(MELU_EINVAL, stranger, p.ws, p.data, NULL);
  check_refusal(MELU_EINVAL, p.user, ws, p.data, NULL);
  melu_workspace_free(ws);
  melu_user_free(stranger);
  melu_model_free(other);
}

static void check_other_data(void) {
  melu_schema *schema;
  melu_dataset *open, *foreign;
  WORLD_TRY(melu_dataset_new(&open, p.ctx, p.schema, &err));
  check_refusal(MELU_ESTATE, p.user, p.ws, open, NULL);
  WORLD_TRY(melu_schema_new(&schema, p.ctx, &err));
  world_fields(schema);
  WORLD_TRY(melu_dataset_new(&foreign, p.ctx, schema, &err));
  world_fill(foreign, 1);
  check_refusal(MELU_ESCHEMA, p.user, p.ws, foreign, NULL);
  melu_dataset_free(foreign);
  melu_schema_free(schema);
  melu_dataset_free(open);
}

START_TEST(bad_input_is_refused) {
  size_t n = 1;
  uint32_t item;
  open_setting((size_t)_i, PEOPLE_MOST);
  const struct told t = people_told(&p, 2, 1);
  people_adapt(&p, p.user, &t);
  check_refusal(MELU_EINVAL, NULL, p.ws, p.data, NULL);
  check_refusal(MELU_EINVAL, p.user, NULL, p.data, NULL);
  check_refusal(MELU_EINVAL, p.user, p.ws, NULL, NULL);
  ck_assert_int_eq(melu_ask(&item, NULL, &n, p.ws, NULL, p.user, p.data, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_ask(NULL, NULL, &n, p.ws, p.model, p.user, p.data, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_ask(&item, NULL, NULL, p.ws, p.model, p.user, p.data, NULL, &err), MELU_EINVAL);
  check_other_handles();
  check_other_data();
  ck_assert_uint_eq(ask(&item, NULL, 1, NULL), 1);
  close_setting();
}
END_TEST

/* Where answers are tried out, there must be room for one, and what she rated must be there. */
START_TEST(answers_need_room) {
  open_setting(TRIED, 4);
  struct told t = people_told(&p, 4, 1);
  t.items[3] = 7; /* and not one that is there already */
  people_adapt(&p, p.user, &t);
  check_refusal(MELU_ELIMIT, p.user, p.ws, p.data, NULL);
  t.n = 3;
  people_adapt(&p, p.user, &t);
  uint32_t item;
  ck_assert_uint_eq(ask(&item, NULL, 1, NULL), 1);
  melu_dataset *lacking = people_new_data(&p, t.items[1] + 1, N / 2);
  check_refusal(MELU_ENOTFOUND, p.user, p.ws, lacking, NULL);
  melu_dataset_free(lacking);
  close_setting();
}
END_TEST

START_TEST(what_is_not_finite_is_refused) {
  const float scale[2] = {3, 1e30f};
  float huge[8];
  for (size_t i = 0; i < 8; i++) huge[i] = 3e38f;
  open_setting(CLOSED, PEOPLE_MOST);
  WORLD_TRY(melu_model_write(p.model, "scale", 0, 1, scale, &err));
  check_refusal(MELU_EDIVERGED, p.user, p.ws, p.data, NULL);
  close_setting();
  open_setting(TRIED, PEOPLE_MOST);
  WORLD_TRY(melu_model_write(p.model, "W3", 0, 1, huge, &err));
  check_refusal(MELU_EDIVERGED, p.user, p.ws, p.data, NULL);
  close_setting();
  /* Only of what is asked about, and not of what is to be predicted. */
  const uint32_t about = 8, target = 6;
  float large[13];
  for (size_t i = 0; i < 13; i++) large[i] = 1000;
  const struct melu_ask_options one = {
      .size = sizeof one, .items = &about, .n_items = 1, .targets = &target, .n_targets = 1};
  open_setting(TRIED, PEOPLE_MOST);
  WORLD_TRY(melu_model_write(p.model, "E.self", about, 1, huge, &err));
  WORLD_TRY(melu_model_write(p.model, "W1", 0, 1, large, &err));
  check_refusal(MELU_EDIVERGED, p.user, p.ws, p.data, &one);
  close_setting();
  /* Only when the first answer is tried out. */
  struct melu_model_options steep = settings[TRIED];
  steep.inner_lr = 1e38;
  uint32_t item;
  size_t n = 1;
  people_open(&p, NULL, &steep, 0, PEOPLE_MOST);
  ck_assert_int_eq(melu_ask(&item, NULL, &n, p.ws, p.model, p.user, p.data, NULL, &err), MELU_EDIVERGED);
  ck_assert_uint_eq(n, 1);
  people_close(&p);
}
END_TEST

/* Each request in turn is refused, in a world where no plan was made before. */
START_TEST(no_memory_leaves_all_as_it_was) {
  size_t n_refused = 0;
  for (int failed = 1; failed; n_refused += (size_t)failed) {
    float before, after;
    const uint32_t item = 5;
    size_t n = 2;
    open_setting((size_t)_i, 3);
    const struct told t = people_told(&p, 2, 1);
    people_adapt(&p, p.user, &t);
    predict(&before, p.user, &item, 1);
    untouched[0] = untouched[1] = 77;
    p.heap.fail_at = p.heap.made + n_refused + 1;
    const melu_status status = melu_ask(untouched, NULL, &n, p.ws, p.model, p.user, p.data, NULL, &err);
    failed = p.heap.made >= p.heap.fail_at;
    p.heap.fail_at = 0;
    ck_assert_int_eq(status, failed ? MELU_ENOMEM : MELU_OK);
    ck_assert_uint_eq(n, 2);
    for (size_t i = 0; i < 2; i++) ck_assert((untouched[i] == 77) == failed);
    predict(&after, p.user, &item, 1);
    ck_assert(before == after);
    ck_assert_uint_eq(ask(untouched, NULL, 2, NULL), 2);
    close_setting();
  }
  ck_assert_uint_gt(n_refused, 5);
}
END_TEST

int main(void) {
  Suite *s = suite_create("ask");
  TCase *t = tcase_create("ask");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, gains_are_what_an_answer_changes, 0, N_SETTINGS);
  tcase_add_loop_test(t, the_order_of_the_list_says_nothing, 0, N_SETTINGS);
  tcase_add_loop_test(t, equal_ones_are_by_position, 0, N_SETTINGS);
  tcase_add_loop_test(t, there_may_be_nothing_to_ask, 0, N_SETTINGS);
  tcase_add_loop_test(t, asking_changes_nothing, 0, N_SETTINGS);
  tcase_add_loop_test(t, bad_options_are_refused, 0, N_KINDS);
  tcase_add_loop_test(t, bad_input_is_refused, 0, N_KINDS);
  tcase_add_test(t, answers_need_room);
  tcase_add_test(t, what_is_not_finite_is_refused);
  tcase_add_loop_test(t, no_memory_leaves_all_as_it_was, 0, N_KINDS);
  suite_add_tcase(s, t);
  return run_suite(s);
}
