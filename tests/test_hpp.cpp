/* SPDX-License-Identifier: BSD-3-Clause */
/* melu.hpp: both forms of failing, ownership, spans, and exceptions of callbacks. Built a second time without
 * exceptions and run-time types, where only the form with a status exists. */
#include <melu.hpp>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "run_suite.h"
#include "world.hpp"

namespace {

/* ------------------------------------------------------------------------------------------ status and values */

START_TEST(a_status_says_what_happened) {
  world w;
  melu_error err;
  ck_assert_int_eq(w.data.freeze(err), MELU_ESTATE);
  ck_assert_int_eq(err.status, MELU_ESTATE);
  ck_assert_uint_gt(std::strlen(err.message), 0);
  ck_assert_uint_eq(w.data.find_item(103, err), 3);
  ck_assert_int_eq(err.status, MELU_OK); /* not that of before */
  ck_assert_uint_eq(w.data.find_item(7, err), 0);
  ck_assert_int_eq(err.status, MELU_ENOTFOUND);
  melu::model_options wrong;
  wrong.preset = "worst";
  const melu::model none(w.ctx, w.data.schema(), wrong, err);
  ck_assert_int_eq(err.status, MELU_EINVAL);
  ck_assert(!none && !none.get());
  ck_assert(!melu::model::load(w.ctx, std::string("nowhere/at.all"), err));
  ck_assert_int_eq(err.status, MELU_ENOTFOUND);
  melu::user nobody; /* as if it had been moved away */
  ck_assert_int_eq(nobody.rate(*std::make_unique<melu::workspace>(), w.model, w.data, 0, 1, err), MELU_EINVAL);
}
END_TEST

/* -------------------------------------------------------------------------------------- ownership and spans */

template <class T>
constexpr bool moves_only = std::is_nothrow_move_constructible_v<T> &&std::is_nothrow_move_assignable_v<T> &&
                            !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T>;
static_assert(moves_only<melu::context> && moves_only<melu::schema> && moves_only<melu::dataset>);
static_assert(moves_only<melu::batch> && moves_only<melu::model> && moves_only<melu::gradient>);
static_assert(moves_only<melu::optimizer> && moves_only<melu::workspace> && moves_only<melu::user>);
static_assert(moves_only<melu::catalog> && sizeof(melu::user) == sizeof(melu_user *));

/* Const may be added, and nothing else changed. */
template <class From, class To>
constexpr bool converts = std::is_convertible_v<From, To>;
static_assert(converts<std::vector<float> &, melu::span<float>> && converts<float (&)[3], melu::span<const float>>);
static_assert(converts<const std::array<float, 2> &, melu::span<const float>>);
static_assert(converts<melu::span<float>, melu::span<const float>>);
static_assert(!converts<melu::span<const float>, melu::span<float>>);
static_assert(!converts<const std::vector<float> &, melu::span<float>>);
static_assert(!converts<std::vector<double> &, melu::span<const float>>);
static_assert(!converts<std::vector<melu::top_options> &, melu::span<const melu_top_options>>);
static_assert(std::is_same_v<decltype(std::declval<const melu::model &>().get()), const melu_model *>);

START_TEST(handles_have_one_owner) {
  heap memory;
  melu_error err;
  melu::context_options options;
  options.allocator = &memory.allocator;
  {
    melu::context ctx(options, err);
    const long alone = memory.live;
    melu::schema a(ctx, err), b(ctx, err);
    melu_schema *const first = a.get();
    b = std::move(a);
    ck_assert(!a && b.get() == first);
    melu::schema &itself = b;
    b = std::move(itself);
    ck_assert_ptr_eq(b.get(), first);
    melu::schema c(std::move(b));
    melu_schema *const given = c.release();
    ck_assert(!b && !c && given == first);
    const melu::schema taken(given);
    ck_assert_int_gt(memory.live, alone);
    { const melu::schema last = melu::schema(melu::schema(ctx, err)); }
    a = melu::schema(ctx, err);
    a = melu::schema();
    melu_schema *by_c = nullptr;
    melu_schema_new(&by_c, ctx.get(), nullptr);
    a = melu::schema(by_c);
  }
  ck_assert_int_eq(memory.live, 0);
}
END_TEST

START_TEST(spans_must_agree) {
  world w;
  melu_error err;
  melu::workspace ws(w.model, 20, err);
  melu::user user(w.model, err);
  melu::catalog catalog(w.model, w.data, err);
  std::vector<float> three(3, -1);
  const melu_value two_values[2] = {};
  std::vector<std::uint32_t> four(4);
  ck_assert_int_eq(melu::adapt(user, ws, w.model, w.data, {}, asked, given, err), MELU_EINVAL);
  ck_assert_str_eq(err.message, "ratings: 3 elements where items ask for 4");
  ck_assert_int_eq(melu::adapt(user, ws, w.model, w.data, two_values, rated, given, err), MELU_EINVAL);
  ck_assert_int_eq(melu::predict(three, ws, w.model, user, w.data, asked, err), MELU_EINVAL);
  ck_assert_int_eq(melu::predict_variance(three, ws, w.model, user, w.data, asked, err), MELU_EINVAL);
  ck_assert_int_eq(melu::explain(three, ws, w.model, user, w.data, 0, err), MELU_EINVAL);
  ck_assert_int_eq(catalog.score(three, ws, user, err), MELU_EINVAL);
  ck_assert_int_eq(catalog.score_list(three, ws, user, asked, err), MELU_EINVAL);
  ck_assert_int_eq(catalog.put(w.data, asked, rated, err), MELU_EINVAL);
  ck_assert_uint_eq(catalog.top(four, three, ws, user, {}, err), 0);
  ck_assert_int_eq(err.status, MELU_EINVAL);
  ck_assert(three == std::vector<float>(3, -1));
  melu::metrics sum;
  ck_assert_int_eq(sum.add(three, std::vector<float>(2), 1, 5, err), MELU_EINVAL);
  ck_assert_int_eq(sum.clicks(w.ctx, three, std::vector<float>(2), err), MELU_EINVAL);
  melu_value values[3];
  ck_assert_int_eq(w.data.user_values(values, 0, err), MELU_EINVAL);
  ck_assert_int_eq(w.data.item_values(values, 0, err), MELU_EINVAL);
  melu::dataset open(w.ctx, w.data.schema(), err);
  open.add_user(1, two_values, err);
  ck_assert_int_eq(err.status, MELU_EINVAL);
  open.add_item(1, melu::span<const melu_value>(two_values, 1), err);
  ck_assert_int_eq(err.status, MELU_EINVAL);
  ck_assert_uint_eq(open.n_users() + open.n_items(), 0);
  const std::vector<melu_model_options> models(2);
  melu::choose({}, w.ctx, w.data, models, std::vector<melu_fit_options>(1), {}, err);
  ck_assert_int_eq(err.status, MELU_EINVAL);
  std::vector<double> one(1);
  melu::choose(one, w.ctx, w.data, models, std::vector<melu_fit_options>(2), {}, err);
  ck_assert_int_eq(err.status, MELU_EINVAL);
}
END_TEST

START_TEST(a_callback_ends_a_call) {
  world w;
  melu_error err;
  w.on_progress = [](const melu_progress &now) { return now.epoch == 2 ? 1 : 0; };
  ck_assert_int_eq(melu::fit(w.model, w.data, w.two_epochs(), err), MELU_ECANCELED);
  w.on_progress = nullptr;
  ck_assert_int_eq(melu::fit(w.model, w.data, w.two_epochs(), err), MELU_OK);
}
END_TEST

/* ---------------------------------------------------------------------------------------------- exceptions */

#if MELU_HPP_EXCEPTIONS
struct oops {
  int value;
};

/* What `call` throws; 0 if it does not. */
template <class F>
int caught(F &&call) {
  try {
    call();
  } catch (const oops &o) {
    return o.value;
  } catch (const melu::error &e) {
    return e.status();
  }
  return 0;
}

START_TEST(a_failure_is_thrown) {
  world w;
  ck_assert_int_eq(caught([&] { w.data.freeze(); }), MELU_ESTATE);
  ck_assert_uint_eq(w.data.find_item(103), 3);
  ck_assert_int_eq(caught([&] { w.data.find_item(7); }), MELU_ENOTFOUND);
  melu::workspace ws(w.model, 20);
  melu::user user(w.model);
  const std::vector<std::uint32_t> wrong = {0, 99};
  try {
    melu::adapt(user, ws, w.model, w.data, {}, wrong, std::vector<float>{1, 2});
    ck_abort_msg("an item that is none was taken");
  } catch (const melu::error &e) {
    ck_assert_int_eq(e.status(), MELU_ERANGE);
    ck_assert_uint_eq(e.index(), 1);
    ck_assert_uint_eq(e.line(), 0);
    ck_assert_int_eq(e.sys_errno(), 0);
    ck_assert_str_eq(e.what(), e.details().message);
  }
  ck_assert_int_eq(caught([&] { melu::predict({}, ws, w.model, user, w.data, wrong); }), MELU_EINVAL);
  try {
    w.model.save("/nowhere/at/all");
    ck_abort_msg("saved into a folder that is not there");
  } catch (const std::runtime_error &e) {
    ck_assert_int_ne(dynamic_cast<const melu::error &>(e).sys_errno(), 0);
  }
}
END_TEST

/* Whichever allocation fails, it is thrown from the constructor and nothing stays. */
START_TEST(constructors_that_throw_leave_nothing) {
  world w;
  long n = 0;
  for (int status = MELU_ENOMEM; status; n++) {
    const long before = w.memory.live;
    w.memory.left = n + 1;
    status = caught([&] { melu::model another(w.ctx, w.data.schema()); });
    w.memory.left = -1;
    ck_assert(status == 0 || status == MELU_ENOMEM);
    ck_assert_int_eq(w.memory.live, before);
  }
  ck_assert_int_gt(n, 3);
}
END_TEST

/* In either form, from any call that reports progress; model and context are as after any call that was cancelled. */
START_TEST(progress_may_throw) {
  world w;
  melu_error err;
  w.on_progress = [](const melu_progress &now) -> int { throw oops{static_cast<int>(100 + now.epoch)}; };
  ck_assert_int_gt(caught([&] { melu::fit(w.model, w.data, w.two_epochs()); }), 100);
  ck_assert_int_gt(caught([&] { melu::fit(w.model, w.data, w.two_epochs(), err); }), 100);
  melu::evaluate_options judging;
  judging.n_query = 3;
  ck_assert_int_eq(caught([&] { melu::evaluate(w.model, w.data, judging); }), 100);
  std::uint32_t items[2];
  ck_assert_int_eq(caught([&] { melu::candidates(items, {}, w.model, w.data); }), 100);
  w.on_progress = nullptr;
  ck_assert_int_eq(caught([&] { melu::fit(w.model, w.data, w.two_epochs()); }), 0);
  ck_assert_double_gt(melu::evaluate(w.model, w.data, judging).mae, 0);
}
END_TEST

/* A call in C cannot throw what its callback threw, and the next call in C++ had no part in it. */
START_TEST(nothing_is_thrown_by_another_call) {
  world w;
  w.on_progress = [](const melu_progress &) -> int { throw oops{1}; };
  ck_assert_int_eq(melu_fit(w.model.get(), w.data.get(), nullptr, nullptr), MELU_ECANCELED);
  ck_assert_int_eq(caught([&] { w.data.find_item(103); }), 0);
  ck_assert_int_eq(caught([&] { w.data.freeze(); }), MELU_ESTATE);
}
END_TEST

START_TEST(a_filter_may_throw) {
  world w;
  melu::workspace ws(w.model, 20);
  melu::user user(w.model);
  const melu::catalog catalog(w.model, w.data);
  std::vector<std::uint32_t> items(5), same(5);
  std::vector<float> scores(5);
  int n_called = 0;
  const auto keep = [&](std::uint32_t number) -> bool {
    if (++n_called == 3) throw oops{static_cast<int>(number) + 1};
    return true;
  };
  melu::top_options options;
  options.keep_if(keep);
  ck_assert_int_gt(caught([&] { catalog.top(items, scores, ws, user, options); }), 0);
  ck_assert_int_eq(n_called, 3); /* none after it */
  ck_assert_uint_eq(catalog.top(items, scores, ws, user, options), 5);
  ck_assert_uint_eq(catalog.top(same, scores, ws, user), 5);
  ck_assert(items == same);
}
END_TEST

START_TEST(a_loss_may_throw_and_make_calls) {
  world w("melu");
  melu::batch batch(w.ctx, w.data);
  const std::uint32_t support[] = {0, 1}, query[] = {2, 3};
  for (std::uint32_t u = 0; u < 3; u++) batch.add(u, support, query);
  melu::gradient gradient(w.model);
  std::size_t n_called = 0;
  const auto loss = [&](std::size_t task, auto, auto, melu::span<float> slopes) {
    n_called++;
    ck_assert_int_eq(caught([&] { w.data.find_user(5); }), MELU_ENOTFOUND); /* thrown and caught in here */
    if (task == 1) throw oops{int(slopes.size())};
    std::fill(slopes.begin(), slopes.end(), 0.0f);
    return 0.0;
  };
  ck_assert_int_eq(caught([&] { melu::meta_gradient_of(gradient, w.model, batch, loss); }), 2);
  ck_assert_uint_eq(n_called, 2);
  melu::optimizer optimizer(w.model);
  ck_assert_int_eq(caught([&] { optimizer.step(w.model, gradient); }), MELU_ESTATE); /* it is empty */
  melu::meta_gradient(gradient, w.model, batch);
  ck_assert_int_eq(caught([&] { optimizer.step(w.model, gradient); }), 0);
}
END_TEST
#endif

Suite *suite() {
  Suite *s = suite_create(MELU_HPP_EXCEPTIONS ? "hpp" : "hpp_status");
  TCase *t = tcase_create("forms");
  tcase_set_timeout(t, 60);
  tcase_add_test(t, a_status_says_what_happened);
  tcase_add_test(t, handles_have_one_owner);
  tcase_add_test(t, spans_must_agree);
  tcase_add_test(t, a_callback_ends_a_call);
#if MELU_HPP_EXCEPTIONS
  tcase_add_test(t, a_failure_is_thrown);
  tcase_add_test(t, constructors_that_throw_leave_nothing);
  tcase_add_test(t, progress_may_throw);
  tcase_add_test(t, nothing_is_thrown_by_another_call);
  tcase_add_test(t, a_filter_may_throw);
  tcase_add_test(t, a_loss_may_throw_and_make_calls);
#endif
  suite_add_tcase(s, t);
  suite_add_tcase(s, hpp_calls());
  return s;
}

}  // namespace

int main() {
  return run_suite(suite());
}
