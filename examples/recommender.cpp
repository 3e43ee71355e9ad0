/* SPDX-License-Identifier: BSD-3-Clause
 *
 * recommender - the whole life of a recommender in C++, by melu.hpp.
 *
 * 2,800 people said of 25 statements about themselves how accurate they are, from 1 to 6. A model is trained on four
 * fifths of them. Then somebody comes whom it has never seen: she says a few things, gets what fits her best, corrects
 * herself, is written down and found again, learns why, and is asked what would tell most about her.
 *
 *     c++ -std=c++17 -c recommender.cpp && cc -c common/args.c common/bfi.c
 *     c++ recommender.o args.o bfi.o $(pkg-config --cflags --libs melu)
 */
#include <melu.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" {
#include "common/bfi.h"
}

#ifndef EXAMPLE_DATA_DIR
#define EXAMPLE_DATA_DIR "data"
#endif

namespace {

/* --------------------------------------------------------------------------------------------------- data */

struct people {
  struct freeing {
    void operator()(bfi_person *array) const noexcept {
      std::free(array);
    }
  };
  std::size_t n = 0;
  std::unique_ptr<bfi_person[], freeing> all;

  explicit people(const std::string &dir) : all(bfi_read(&n, dir.c_str())) {}
};

/* What an item and a user are described by. The network sees nothing else of them. */
melu::schema make_schema(const melu::context &ctx) {
  melu::schema schema(ctx);
  schema.add({"statement", MELU_ITEM, MELU_ONE}); /* which ones there are is learnt from the file */
  schema.add({"gender", MELU_USER, MELU_ONE, 2});
  schema.add({"education", MELU_USER, MELU_ONE, 5});
  melu::field age("age", MELU_USER, MELU_NUMERIC);
  age.shift = 29; /* numbers should be of the order of one */
  age.scale = 0.1;
  schema.add(age);
  return schema;
}

/* The values of a person's fields, in the schema's order. A value that is left zero is missing. */
class profile {
 public:
  explicit profile(const bfi_person &person)
      : gender_(person.gender - 1), education_(person.education - 1), age_(static_cast<float>(person.age)) {
    if (person.gender) values_[0] = melu::ids({&gender_, 1});
    if (person.education) values_[1] = melu::ids({&education_, 1});
    if (person.age) values_[2] = melu::numbers({&age_, 1});
  }
  profile(const profile &) = delete; /* the values point into it */
  profile &operator=(const profile &) = delete;

  melu::span<const melu_value> values() const noexcept {
    return values_;
  }

 private:
  std::uint32_t gender_, education_;
  float age_;
  std::array<melu_value, 3> values_ = {};
};

/* The statements, and those people who are held out, or those who are not. */
melu::dataset make_dataset(const melu::context &ctx, melu::schema_view schema, const std::string &dir,
                           const people &people, bool held_out) {
  melu::dataset data(ctx, schema);
  const char *const skip[] = {"trait", "keying"};
  melu::table_options table;
  table.id = "item";
  table.skip = skip;
  table.n_skip = 2;
  data.read_items(dir + "/bfi_items.tsv", table);
  for (std::size_t p = 0; p < people.n; p++) {
    const std::uint64_t id = p + 1;
    if ((bfi_held_out(id) != 0) != held_out) continue;
    data.add_user(id, profile(people.all[p]).values());
    for (std::uint32_t i = 0; i < data.n_items(); i++) {
      const unsigned answer = people.all[p].answers[i];
      if (answer) data.add_rating(id, data.item_id(i), static_cast<float>(answer));
    }
  }
  data.freeze();
  return data;
}

/* ------------------------------------------------------------------------------------------------- the shop */

/* All that a host keeps for its visitors. Members are destroyed from the last to the first, as they must be. */
class shop {
 public:
  shop(const melu::context &ctx, const melu::dataset &data)
      : data_(data), model_(make_model(ctx, data)), catalog_(model_, data), ws_(model_, data.n_items()) {}

  const melu::model &model() const noexcept {
    return model_;
  }

  const char *text(std::uint32_t item) const {
    melu_value value;
    data_.item_values({&value, 1}, item);
    return data_.schema().value_text("statement", value.ids[0]);
  }

  melu::user arrive(const profile &who, melu::span<const std::uint32_t> items, melu::span<const float> ratings) {
    melu::user user(model_);
    melu::adapt(user, ws_, model_, data_, who.values(), items, ratings);
    return user;
  }

  void rate(melu::user &user, std::uint32_t item, float rating) {
    user.rate(ws_, model_, data_, item, rating);
  }

  float predict(const melu::user &user, std::uint32_t item) {
    float score;
    melu::predict({&score, 1}, ws_, model_, user, data_, {&item, 1});
    return score;
  }

  /* The best k that the user has not rated yet. */
  void show_best(const melu::user &user, std::size_t k) {
    std::vector<std::uint32_t> rated, items(k);
    std::vector<float> scores(k);
    for (const std::uint64_t id : user.ratings().items) rated.push_back(data_.find_item(id));
    melu::top_options options;
    options.without(rated);
    const std::size_t n = catalog_.top(items, scores, ws_, user, options);
    for (std::size_t i = 0; i < n; i++) std::printf("  %4.2f  %s\n", static_cast<double>(scores[i]), text(items[i]));
  }

  /* By how much each of her ratings pulls one prediction, the strongest first. */
  void show_why(const melu::user &user, std::uint32_t item) {
    const auto given = user.ratings();
    std::vector<float> pulls(given.items.size());
    std::vector<std::size_t> order(pulls.size());
    melu::explain(pulls, ws_, model_, user, data_, item);
    for (std::size_t i = 0; i < order.size(); i++) order[i] = i;
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return std::fabs(pulls[a]) > std::fabs(pulls[b]); });
    for (const std::size_t i : order) {
      std::printf("  %+5.2f  because of her %.0f for: %s\n", static_cast<double>(pulls[i]),
                  static_cast<double>(given.ratings[i]), text(data_.find_item(given.items[i])));
    }
  }

  std::uint32_t next_question(const melu::user &user) {
    std::uint32_t item;
    if (melu::ask({&item, 1}, {}, ws_, model_, user, data_) != 1) throw std::runtime_error("there is nothing to ask");
    return item;
  }

  std::vector<unsigned char> save(const melu::user &user, melu_user_form form) {
    return user.save(ws_, form);
  }

  /* Bytes may come from anywhere: here a failure is an answer and no exception. */
  bool load(melu::user &user, melu::span<const unsigned char> bytes, melu_error &err) {
    return user.load(ws_, model_, data_, bytes, err) == MELU_OK;
  }

 private:
  static melu::model make_model(const melu::context &ctx, const melu::dataset &data) {
    melu::model_options options;
    options.preset = "best";
    options.seed = 1;
    options.rating_min = 1;
    options.rating_max = 6;
    melu::model model(ctx, data.schema(), options);
    melu::fit_options training;
    training.seed = 1;
    melu::fit(model, data, training);
    return model;
  }

  const melu::dataset &data_;
  melu::model model_;
  melu::catalog catalog_;
  melu::workspace ws_; /* one thread's; a server has one for each */
};

/* --------------------------------------------------------------------------------------------------- a visit */

/* The first woman who is held out and answered everything. */
std::size_t find_stranger(const people &people) {
  for (std::size_t p = 0; p < people.n; p++) {
    const auto &answers = people.all[p].answers;
    const bool complete = std::find(std::begin(answers), std::end(answers), 0u) == std::end(answers);
    if (bfi_held_out(p + 1) && people.all[p].gender == 2 && complete) return p;
  }
  throw std::runtime_error("nobody held out has answered all statements");
}

/* She is written down, compact and ready to predict, and found again; altered bytes are refused. */
void show_storage(shop &shop, const melu::user &user, std::uint32_t item) {
  melu_error err;
  melu::user again(shop.model());
  std::vector<unsigned char> compact = shop.save(user, MELU_USER_COMPACT), ready = shop.save(user, MELU_USER_READY);
  if (!shop.load(again, compact, err)) throw melu::error(err);
  const bool same = shop.predict(again, item) == shop.predict(user, item);
  std::printf("\nwritten down: %zu bytes, or %zu ready to predict; found again: %s\n", compact.size(), ready.size(),
              same ? "the same predictions" : "OTHER PREDICTIONS");
  compact[compact.size() / 2] ^= 1;
  std::printf("one bit altered: %s\n", shop.load(again, compact, err) ? "TAKEN" : err.message);
}

/* Five questions, each chosen after the last answer. */
void show_interview(shop &shop, melu::user &user, const bfi_person &person) {
  for (int i = 0; i < 5; i++) {
    const std::uint32_t item = shop.next_question(user);
    const float guess = shop.predict(user, item);
    shop.rate(user, item, static_cast<float>(person.answers[item]));
    std::printf("  %-58.58s expected %4.2f, she says %u\n", shop.text(item), static_cast<double>(guess),
                person.answers[item]);
  }
}

void visit(shop &shop, const bfi_person &person, std::size_t number) {
  const std::uint32_t said[] = {1, 11, 20};
  std::array<float, 3> ratings;
  for (std::size_t i = 0; i < ratings.size(); i++) ratings[i] = static_cast<float>(person.answers[said[i]]);

  std::printf("\na stranger, person %zu, a woman of %u, says of herself, from 1 \"very inaccurate\" to 6:\n", number,
              person.age);
  for (std::size_t i = 0; i < ratings.size(); i++) {
    std::printf("  %4.0f  %s\n", static_cast<double>(ratings[i]), shop.text(said[i]));
  }
  const profile who(person);
  melu::user user = shop.arrive(who, said, ratings);
  std::printf("\nwhat would she find accurate?\n");
  shop.show_best(user, 3);

  std::printf("\nshe corrects her first answer to 1\n");
  shop.rate(user, said[0], 1);
  shop.show_best(user, 3);
  shop.rate(user, said[0], ratings[0]);

  const std::uint32_t statement = 2;
  std::printf("\nwhy does she get %.2f for: %s\n", static_cast<double>(shop.predict(user, statement)),
              shop.text(statement));
  shop.show_why(user, statement);
  show_storage(shop, user, statement);

  std::printf("\nwhat to ask her next?\n");
  show_interview(shop, user, person);
}

void run(const std::string &dir) {
  const people people(dir);
  double first_loss = 0, last_loss = 0;
  const auto watch = [&](const melu_progress &now) {
    if (now.epoch == 1) first_loss = now.loss;
    if (now.epoch) last_loss = now.loss;
  };
  melu::context_options options;
  options.n_threads = 2;
  options.on_progress(watch);
  const melu::context ctx(options);
  std::printf("%s\n", melu::build_info(ctx));

  const melu::dataset data = make_dataset(ctx, make_schema(ctx), dir, people, false);
  const melu::dataset strangers = make_dataset(ctx, data.schema(), dir, people, true);
  shop shop(ctx, data);
  std::printf("learnt from %zu people; squared error %.3f at first, %.3f at last\n", data.n_users(), first_loss,
              last_loss);
  melu::evaluate_options judging;
  for (const std::size_t n : {std::size_t{3}, std::size_t{10}}) {
    judging.max_support = n;
    const melu::metrics metrics = melu::evaluate(shop.model(), strangers, judging);
    std::printf("%zu strangers, %zu answers known: mean absolute error %.3f\n", metrics.n_users, n, metrics.mae);
  }
  const std::size_t stranger = find_stranger(people);
  visit(shop, people.all[stranger], stranger + 1);
}

}  // namespace

int main(int argc, char **argv) {
  if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
    const bool asked = argv[1] == std::string("--help");
    std::fprintf(asked ? stdout : stderr,
                 "usage: recommender [DIR]\n\nDIR has bfi.csv and bfi_items.tsv (default %s).\n", EXAMPLE_DATA_DIR);
    return asked ? 0 : 2;
  }
  try {
    run(argc > 1 ? argv[1] : EXAMPLE_DATA_DIR);
  } catch (const melu::error &e) {
    std::fprintf(stderr, "error: %s (%s)\n", e.what(), melu::status_name(e.status()));
    return 1;
  } catch (const std::exception &e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
  return 0;
}
