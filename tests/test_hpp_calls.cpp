/* SPDX-License-Identifier: BSD-3-Clause */
/* What the calls of melu.hpp compute, against melu.h. */
#include <melu.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <unistd.h>

#include "world.hpp"

namespace {

/* The test removes it. */
std::string new_folder() {
  const char *temporary = std::getenv("TMPDIR");
  std::string folder = std::string(temporary ? temporary : "/tmp") + "/melu-hpp-XXXXXX";
  ck_assert_ptr_nonnull(mkdtemp(folder.data()));
  return folder;
}

START_TEST(descriptions_are_those_of_the_header) {
  world w;
  melu_error err;
  ck_assert_str_eq(melu::version(), melu_version());
  ck_assert_str_eq(melu::build_info(w.ctx), melu_build_info(w.ctx.get()));
  ck_assert_uint_eq(w.data.n_users(), n_users);
  ck_assert_uint_eq(w.data.n_items(), n_items);
  ck_assert_uint_eq(w.data.n_ratings(), melu_dataset_n_ratings(w.data.get()));
  ck_assert_uint_eq(w.data.user_id(3), 1003);
  ck_assert_uint_eq(w.data.item_id(3), 103);
  ck_assert_uint_eq(w.data.find_user(1004, err), 4);
  ck_assert_uint_eq(w.data.ratings(7).items.size(), 7);
  ck_assert_uint_eq(w.data.ratings(7).items[1], 8);
  ck_assert_float_eq(w.data.ratings(7).ratings[1], 1 + 8 % 5);
  melu_value values[2], age;
  w.data.item_values(values, 6, err);
  ck_assert_uint_eq(values[0].ids[0], 6);
  ck_assert_float_eq(values[1].numbers[0], 0.5f);
  w.data.user_values({&age, 1}, 8, err);
  ck_assert_uint_eq(age.ids[0], 3);
  ck_assert_uint_eq(w.model.schema().n_fields(MELU_ITEM), 2);
  ck_assert_str_eq(w.data.schema().field(MELU_ITEM, 1, err).name, "price");
  ck_assert_uint_eq(w.data.schema().value_id("item", "x"), melu_schema_value_id(w.data.schema().get(), "item", "x"));
  ck_assert_ptr_null(w.data.schema().value_text(std::string("item"), 3));
  ck_assert_int_eq(w.model.get_options(err).network, MELU_FACTORS);
  std::vector<std::uint32_t> order(9), same(9);
  melu::split_order(order, 1000, 2, err);
  melu_split_order(same.data(), 1000, 2, 9, nullptr);
  ck_assert(order == same);
  ok(err);
}
END_TEST

START_TEST(ranks_of_a_group_find_each_other) {
  melu_error err;
  ck_assert_uint_eq(melu::slot(1003, 16), melu_slot(1003, 16));
  melu::group group(2, {}, err);
  const melu_collective second = group.member(1, err);
  ok(err);
  ck_assert_uint_eq(second.size, sizeof second);
  ck_assert_uint_eq(second.rank, 1);
  ck_assert_uint_eq(second.n_ranks, 2);
  group.leave(0);
  ck_assert_int_eq(second.barrier(second.arg, &err), MELU_EPEER);
  ck_assert_int_eq((group.member(2, err), err.status), MELU_EINVAL);
}
END_TEST

/* Written in two ways, from what is in memory and one by one, read file by file, trained on. */
START_TEST(shards_are_written_and_read) {
  world w;
  melu_error err;
  const std::string dir = new_folder();
  melu::shard_options options;
  options.n_files = 2;
  {
    melu::shard_writer writer(w.ctx, dir, w.data, options, err);
    ok(err);
    const std::uint32_t age = 2;
    melu_value values[2] = {};
    values[0].ids = &age;
    values[0].n_ids = 1;
    ck_assert_int_eq(writer.add_user(5, {values, 2}, err), MELU_EINVAL);
    ck_assert_int_eq(writer.add_user(5, {values, 1}, err), MELU_OK);
    ck_assert_int_eq(writer.add_user(6, {}, err), MELU_OK);
    ck_assert_int_eq(writer.add_rating(5, 101, 3, err), MELU_OK);
    ck_assert_int_eq(writer.add_rating(5, 1, 3, err), MELU_ENOTFOUND);
    ck_assert_int_eq(writer.finish(err), MELU_OK);
    melu::shard_writer again(writer.release(), w.data.schema());
    ck_assert_int_eq(again.finish(err), MELU_ESTATE);
  }
  melu::shards shards(w.ctx, dir, err);
  ok(err);
  ck_assert_uint_eq(shards.describe(err).n_users, n_users + 2);
  ck_assert_uint_eq(shards.describe(err).n_ratings, w.data.n_ratings() + 1);
  ck_assert_uint_eq(shards.items().n_items(), n_items);
  melu::shards moved(std::move(shards)), empty;
  ck_assert(!shards && !shards.items() && !empty.items());
  shards = std::move(moved);
  ck_assert_uint_eq(shards.items().item_id(3), 103);
  const melu::dataset first = shards.read(0, err), second = shards.read(1, err);
  ok(err);
  ck_assert_uint_eq(first.n_users() + second.n_users(), n_users + 2);
  shards.read(2, err);
  ck_assert_int_eq(err.status, MELU_ERANGE);
  melu::model model(w.ctx, shards.items().schema(), {}, err);
  melu::fit_options fit;
  fit.n_epochs = 1;
  fit.n_query = 2;
  fit.min_ratings = 4;
  ck_assert_int_eq(melu::fit_shards(model, shards, fit, err), MELU_OK);
  melu::shards taken(shards.release());
  ck_assert_uint_eq(taken.items().n_items(), n_items);
  for (const char *name : {"/manifest.safetensors", "/users-00000.safetensors", "/users-00001.safetensors"})
    ck_assert_int_eq(unlink((dir + name).c_str()), 0);
  ck_assert_int_eq(rmdir(dir.c_str()), 0);
}
END_TEST

/* A table of vocabulary and one of ratings, read as they are. */
START_TEST(tables_are_read) {
  world w;
  melu_error err;
  const std::string dir = new_folder();
  std::ofstream(dir + "/items") << "item,genre\n7,Drama\n8,Crime\n";
  std::ofstream(dir + "/users") << "user\n1\n2\n";
  std::ofstream(dir + "/ratings") << "user,item,stars\n1,7,5\n2,9,4\n";
  melu::schema schema(w.ctx, err);
  schema.add({"genre", MELU_ITEM, MELU_ONE}, err);
  melu::dataset data(w.ctx, schema, err);
  data.read_items(dir + "/items", {}, err);
  data.read_users(dir + "/users", {}, err);
  ok(err);
  melu::table_options table;
  table.rating = "stars";
  ck_assert_int_eq(data.read_ratings(dir + "/ratings", table, err), MELU_ENOTFOUND);
  ck_assert_uint_eq(err.line, 3);
  std::ofstream(dir + "/ratings") << "user,item,stars\n1,7,5\n2,8,4\n";
  data.read_ratings(dir + "/ratings", table, err);
  data.freeze(err);
  ok(err);
  ck_assert_uint_eq(data.n_ratings(), 2);
  ck_assert_str_eq(data.schema().value_text("genre", data.schema().value_id("genre", "Crime")), "Crime");
  ck_assert_int_ne(schema.add_melu(dir, err), MELU_OK);
  ck_assert_int_ne(schema.add_melu_items(dir, err), MELU_OK);
  ck_assert_int_ne(data.read_melu(dir, "warm_state", err), MELU_OK);

  const std::string path = dir + "/model";
  w.model.save(path, err);
  const melu::model loaded = melu::model::load(w.ctx, path, err);
  ok(err);
  ck_assert(loaded.digest(err) == w.model.digest(err));
  melu::model_options options;
  options.preset = "best";
  options.seed = 8;
  melu::model other(w.ctx, w.data.schema(), options, err);
  ck_assert(other.digest(err) != w.model.digest(err));
  for (const char *name : {"/items", "/users", "/ratings", "/model"}) std::remove((dir + name).c_str());
  std::remove(dir.c_str());
}
END_TEST

START_TEST(an_own_loop_trains) {
  world w("melu");
  melu_error err;
  melu::batch batch(w.ctx, w.data, err);
  const std::vector<std::uint32_t> support = {0, 1, 2}, query = {3, 4};
  for (std::uint32_t u = 0; u < 4; u++) batch.add(u, support, query, err);
  ck_assert_uint_eq(batch.n_tasks(), 4);
  melu::gradient gradient(w.model, err), own(w.model, err);
  melu::meta_gradient(gradient, w.model, batch, err);
  ok(err);
  ck_assert_double_eq_tol(gradient.loss(), std::accumulate(gradient.losses(), gradient.losses() + 4, 0.0) / 4, 1e-6);

  /* The squared error as a loss of one's own, as a callable and as a C function. */
  const auto squared = [](std::size_t, melu::span<const float> scores, melu::span<const float> truth,
                          melu::span<float> slopes) {
    double sum = 0;
    for (std::size_t i = 0; i < scores.size(); i++) {
      const float e = scores[i] - truth[i], n = static_cast<float>(scores.size());
      sum += static_cast<double>(e * e / n);
      slopes[i] = 2 * e / n;
    }
    return sum;
  };
  melu::meta_gradient_of(own, w.model, batch, squared, err);
  ok(err);
  ck_assert_double_eq_tol(own.loss(), gradient.loss(), 1e-5);
  const melu_loss_fn refuse = [](void *arg, std::size_t, const float *, const float *, std::size_t, double *, float *) {
    return ++*static_cast<int *>(arg);
  };
  int n_called = 0;
  ck_assert_int_eq(melu::meta_gradient_of(own, w.model, batch, refuse, &n_called, err), MELU_ECANCELED);
  ck_assert_int_eq(n_called, 1);

  for (std::size_t p = 0; p < w.model.n_params(); p++) {
    const melu_param param = w.model.param(p, err);
    std::vector<float> all(param.rows * param.cols), some(gradient.n_rows(param) * param.cols);
    std::vector<std::uint32_t> rows(gradient.n_rows(param));
    gradient.read(all, param, err);
    gradient.read_rows(rows, some, param, err);
    ok(err);
    for (std::size_t r = 0; r < rows.size(); r++) {
      ck_assert_mem_eq(&some[r * param.cols], &all[rows[r] * param.cols], param.cols * sizeof(float));
    }
    ck_assert_int_eq(gradient.read(melu::span<float>(all).first(all.size() - 1), param, err), MELU_EINVAL);
  }
  melu::optimizer optimizer(w.model, {}, err);
  optimizer.set_lr(0.01, err);
  for (int step = 0; step < 30; step++) {
    melu::meta_gradient(own, w.model, batch, err);
    optimizer.step(w.model, own, err);
    ok(err);
  }
  ck_assert_double_lt(own.loss(), gradient.loss() / 2);
  batch.clear();
  ck_assert_uint_eq(batch.n_tasks(), 0);
}
END_TEST

START_TEST(parameters_go_in_and_out) {
  world w;
  melu_error err;
  const melu_param table = w.model.param(0, err);
  std::vector<float> two(2 * table.cols), again(2 * table.cols);
  w.model.read(two, table, 1, err);
  two[table.cols] = 42;
  w.model.write(table, 1, two, err);
  ok(err);
  melu_model_read(again.data(), w.model.get(), table.name, 1, 2, nullptr);
  ck_assert(again == two);
  two.pop_back();
  ck_assert_int_eq(w.model.write(table, 1, two, err), MELU_EINVAL);
  ck_assert_int_eq(w.model.read(two, table, 1, err), MELU_EINVAL);
}
END_TEST

/* ----------------------------------------------------------------------------------------- users and ranking */

START_TEST(a_user_is_what_the_header_says) {
  world w;
  melu_error err;
  melu::fit(w.model, w.data, w.two_epochs(), err);
  melu::workspace ws(w.model, 20, err);
  melu::user user(w.model, err), again(w.model, err);
  const std::uint32_t age = 2;
  const melu_value profile = melu::ids({&age, 1});
  float scores[4], same[4], variances[4];
  melu::adapt(user, ws, w.model, w.data, {&profile, 1}, rated, given, err);
  melu::predict(scores, ws, w.model, user, w.data, asked, err);
  melu::predict_variance(variances, ws, w.model, user, w.data, asked, err);
  ok(err);
  melu_adapt(again.get(), ws.get(), w.model.get(), w.data.get(), &profile, rated.data(), given.data(), 3, nullptr);
  melu_predict(same, ws.get(), w.model.get(), again.get(), w.data.get(), asked.data(), 4, nullptr);
  ck_assert_mem_eq(scores, same, sizeof scores);
  melu_predict_variance(same, ws.get(), w.model.get(), again.get(), w.data.get(), asked.data(), 4, nullptr);
  ck_assert_mem_eq(variances, same, sizeof variances);

  user.rate(ws, w.model, w.data, 8, 2, err);
  ck_assert_uint_eq(user.ratings().items.size(), 4);
  ck_assert_uint_eq(user.ratings().items[3], 108);
  ck_assert_float_eq(user.ratings().ratings[3], 2);
  float pulls[4];
  melu::explain(pulls, ws, w.model, user, w.data, 1, err);
  ok(err);
  ck_assert(std::all_of(pulls, pulls + 4, [](float pull) { return std::isfinite(pull); }));
  user.forget(ws, w.model, w.data, 8, err);
  melu::predict(same, ws, w.model, user, w.data, asked, err);
  ck_assert_mem_eq(scores, same, sizeof scores);

  for (const melu_user_form form : {MELU_USER_COMPACT, MELU_USER_READY}) {
    const std::vector<unsigned char> bytes = user.save(ws, form, err);
    ok(err);
    ck_assert_uint_eq(user.save({}, ws, form, err), bytes.size());
    std::vector<unsigned char> into(bytes.size());
    ck_assert_uint_eq(user.save(into, ws, form, err), bytes.size());
    ck_assert(into == bytes);
    ck_assert_uint_eq(user.save(melu::span<unsigned char>(into).first(9), ws, form, err), bytes.size());
    ck_assert_int_eq(err.status, MELU_ELIMIT);
    melu::user loaded(w.model, err);
    loaded.load(ws, w.model, w.data, bytes, err);
    melu::predict(same, ws, w.model, loaded, w.data, asked, err);
    ok(err);
    ck_assert_mem_eq(scores, same, sizeof scores);
    into[20] ^= 1;
    ck_assert_int_ne(loaded.load(ws, w.model, w.data, into, err), MELU_OK);
  }
}
END_TEST

START_TEST(a_catalogue_ranks) {
  world w;
  melu_error err;
  melu::workspace ws(w.model, 20, err);
  melu::user user(w.model, err);
  melu::adapt(user, ws, w.model, w.data, {}, rated, given, err);
  melu::catalog catalog(w.model, w.data, err), some(w.model, w.data, asked, err);
  ck_assert_uint_eq(catalog.n_items(), n_items);
  ck_assert_uint_eq(some.items().size(), 4);
  ck_assert_uint_eq(some.items()[2], 8);
  std::vector<float> all(n_items), few(3), best(5);
  std::vector<std::uint32_t> items(5);
  catalog.score(all, ws, user, err);
  catalog.score_list(few, ws, user, rated, err);
  ok(err);
  for (std::size_t i = 0; i < 3; i++) ck_assert_float_eq(few[i], all[rated[i]]);

  /* Even numbers below 10 that were not rated. */
  const std::uint64_t below_10 = 0x3ff;
  const auto even = [](std::uint32_t number) { return number % 2 == 0; };
  melu::top_options options;
  options.without(rated).only({&below_10, 1}).keep_if(even);
  ck_assert_uint_eq(catalog.top(items, best, ws, user, options, err), 4);
  ok(err);
  std::sort(items.begin(), items.begin() + 4);
  ck_assert(std::vector<std::uint32_t>(items.begin(), items.begin() + 4) == (std::vector<std::uint32_t>{2, 4, 6, 8}));

  const melu_user *const both[] = {user.get(), user.get()};
  const melu_top_options each[] = {options, melu::top_options()};
  std::vector<std::uint32_t> many(10);
  std::vector<float> scores(10);
  std::vector<std::size_t> n(2);
  catalog.top_users(many, scores, n, 5, ws, both, each, err);
  ok(err);
  ck_assert_uint_eq(n[0], 4);
  ck_assert_uint_eq(n[1], 5);
  ck_assert_float_eq(scores[5], *std::max_element(all.begin(), all.end()));
  many.pop_back();
  ck_assert_int_eq(catalog.top_users(many, scores, n, 5, ws, both, each, err), MELU_EINVAL);

  some.remove(melu::span<const std::uint32_t>(asked).first(1), err);
  ck_assert_uint_eq(some.n_items(), 3);
  some.put(w.data, rated, {}, err);
  const std::uint32_t item = 4, number = 77;
  some.put(w.data, {&item, 1}, {&number, 1}, err);
  ok(err);
  ck_assert_uint_eq(some.n_items(), 7);
  ck_assert_uint_eq(some.items()[6], 77);
}
END_TEST

START_TEST(questions_and_judgements) {
  world w;
  melu_error err;
  melu::fit(w.model, w.data, w.two_epochs(), err);
  melu::workspace ws(w.model, 20, err);
  melu::user user(w.model, err);
  melu::adapt(user, ws, w.model, w.data, {}, rated, given, err);
  std::vector<std::uint32_t> items(4), same(4);
  std::vector<float> gains(4);
  std::vector<double> product(4);
  std::size_t n = 4;
  ck_assert_uint_eq(melu::ask(items, gains, ws, w.model, user, w.data, {}, err), 4);
  melu_ask(same.data(), nullptr, &n, ws.get(), w.model.get(), user.get(), w.data.get(), nullptr, nullptr);
  ck_assert(items == same);
  ck_assert_int_eq(
      (melu::ask(items, melu::span<float>(gains).first(3), ws, w.model, user, w.data, {}, err), err.status),
      MELU_EINVAL);
  melu::candidate_options rule;
  rule.rule = MELU_GRADIENT_NORM;
  ck_assert_uint_eq(melu::candidates(items, product, w.model, w.data, rule, err), 4);
  ok(err);
  ck_assert(product[0] >= product[1] && product[2] >= product[3]);

  melu::evaluate_options judging;
  judging.n_query = 3;
  melu_metrics expected;
  const melu::metrics judged = melu::evaluate(w.model, w.data, judging, err);
  melu_evaluate(&expected, w.model.get(), w.data.get(), &judging, nullptr);
  ck_assert_double_eq(judged.mae, expected.mae);
  ck_assert_uint_gt(judged.n_users, 0);
  melu::metrics sum;
  sum.add(std::vector<float>{2, 4}, std::vector<float>{3, 4}, 1, 5, err);
  ck_assert_double_eq_tol(sum.mae, 0.5, 1e-9);
  sum.clicks(w.ctx, std::vector<float>{-1, 2}, std::vector<float>{0, 1}, err);
  ck_assert_double_eq_tol(sum.auc, 1, 1e-9);

  const std::vector<melu_model_options> models = {w.model.get_options(err), w.model.get_options(err)};
  std::vector<melu_fit_options> fits(2, w.two_epochs());
  fits[0].n_epochs = 1;
  melu::choose_options how;
  how.evaluate = &judging;
  std::vector<double> errors(2);
  const std::size_t winner = melu::choose(errors, w.ctx, w.data, models, fits, how, err);
  ok(err);
  ck_assert_uint_eq(winner, errors[1] < errors[0]);
}
END_TEST

}  // namespace

TCase *hpp_calls() {
  TCase *t = tcase_create("calls");
  tcase_set_timeout(t, 60);
  tcase_add_test(t, descriptions_are_those_of_the_header);
  tcase_add_test(t, ranks_of_a_group_find_each_other);
  tcase_add_test(t, shards_are_written_and_read);
  tcase_add_test(t, tables_are_read);
  tcase_add_test(t, an_own_loop_trains);
  tcase_add_test(t, parameters_go_in_and_out);
  tcase_add_test(t, a_user_is_what_the_header_says);
  tcase_add_test(t, a_catalogue_ranks);
  tcase_add_test(t, questions_and_judgements);
  return t;
}
