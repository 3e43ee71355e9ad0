/* SPDX-License-Identifier: BSD-3-Clause */
/* Callbacks that throw. Nothing passes through C: the call is stopped, and melu.hpp throws what the callback threw.
 * Nothing is left locked, and the same call then has its usual result. */
#include "habits_exceptions.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <melu.hpp>
#include <string>
#include <vector>

namespace {

struct oops {
  int number;
};

/* Called by all callbacks; throws at one of its calls, 0: at none. */
struct thrower {
  int n = 0, at = 0;
  void operator()() {
    if (++n == at) throw oops{n};
  }
};

/* A training and what may be asked of it, as members, so that whoever leaves by an exception leaves nothing behind. */
class world {
 public:
  thrower meet;

  world(const std::string &folder, melu::schema_view like, std::size_t n_threads, const char *kernels)
      : checkpoint_(folder + "/thrown") {
    melu::context_options options;
    options.n_threads = n_threads;
    options.kernels = kernels;
    ctx_ = melu::context(options.on_progress(report_).on_log(line_));
    melu::schema schema(ctx_);
    for (melu_owner owner : {MELU_USER, MELU_ITEM})
      for (std::size_t i = 0; i < like.n_fields(owner); i++) schema.add(like.field(owner, i));
    data_ = melu::dataset(ctx_, schema);
    data_.read_items(folder + "/items.csv");
    data_.read_users(folder + "/users.csv");
    data_.read_ratings(folder + "/ratings.csv");
    data_.freeze();
    movies_ = folder;
    start_anew();
  }

  /* Each returns some numbers that say what came out. */
  std::vector<double> fit() {
    start_anew();
    melu::fit(model_, data_, options());
    return {judge()};
  }
  std::vector<double> evaluate() {
    return {judge()};
  }
  std::vector<double> ask() {
    std::uint32_t items[3];
    double gains[3];
    melu::candidates(items, gains, model_, data_);
    return {gains, gains + 3};
  }
  std::vector<double> read() {
    melu::schema schema(ctx_);
    schema.add_melu_items(movies_);
    return {static_cast<double>(schema.view().n_fields(MELU_ITEM))};
  }
  std::vector<double> rank() {
    melu::workspace ws(model_, 4);
    melu::user user(model_);
    const melu::catalog catalog(model_, data_);
    std::uint32_t items[5];
    float scores[5];
    const auto keep = [this](std::uint32_t) {
      meet();
      return true;
    };
    catalog.top(items, scores, ws, user, melu::top_options().keep_if(keep));
    return {scores, scores + 5};
  }
  std::vector<double> own_loss() {
    const std::uint32_t support[] = {0}, query[] = {1, 2};
    melu::batch batch(ctx_, data_);
    melu::gradient gradient(model_);
    for (std::uint32_t user = 0; user < 3; user++) batch.add(user, support, query);
    melu::meta_gradient_of(gradient, model_, batch, [this](std::size_t, auto scores, auto, auto slopes) {
      meet();
      std::fill(slopes.begin(), slopes.end(), 1.0f);
      return static_cast<double>(scores[0]);
    });
    return {gradient.loss()};
  }
  /* From a checkpoint that other kernels wrote, of which the log is told; it is overwritten. */
  std::vector<double> resume() {
    melu::fit_options after = options();
    after.checkpoint = checkpoint_.c_str();
    after.resume = 1;
    std::ofstream(checkpoint_, std::ios::binary) << found_;
    start_anew();
    melu::fit(model_, data_, after);
    return {judge()};
  }
  std::string make_checkpoint() {
    melu::fit_options before = options();
    before.checkpoint = checkpoint_.c_str();
    before.checkpoint_updates = 2;
    start_anew();
    melu::fit(model_, data_, before);
    std::ifstream file(checkpoint_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  void find_checkpoint(const std::string &bytes) {
    found_ = bytes;
  }
  /* Reports that are not to be counted, since another callback is what is tried. */
  void count_only_lines() {
    counts_reports_ = false;
  }
  const char *about() const {
    return melu::build_info(ctx_);
  }
  const std::string &checkpoint() const {
    return checkpoint_;
  }

 private:
  std::string checkpoint_, found_, movies_;
  bool counts_reports_ = true;
  std::function<void(const melu_progress &)> report_ = [this](const melu_progress &) {
    if (counts_reports_) meet();
  };
  std::function<void(const char *)> line_ = [this](const char *) { meet(); };
  melu::context ctx_;
  melu::dataset data_;
  melu::model model_;

  void start_anew() {
    melu::model_options small;
    static const std::size_t hidden[] = {4};
    small.hidden = hidden;
    small.n_hidden = 1;
    model_ = melu::model(ctx_, data_.schema(), small);
  }
  static melu::fit_options options() {
    melu::fit_options few;
    few.n_epochs = 2;
    few.batch_tasks = 2;
    few.n_query = 1;
    few.min_ratings = 2;
    return few;
  }
  double judge() {
    melu::evaluate_options options;
    options.n_query = 1;
    options.min_ratings = 2;
    return melu::evaluate(model_, data_, options).mae;
  }
};

/* Makes a call as it is, and then with an exception from its first, its middle and its last callback. */
int throw_from(world &w, std::vector<double> (world::*call)(), const char *name, void (*broken)(const char *why)) {
  w.meet = {0, 0};
  const std::vector<double> expected = (w.*call)();
  const int n = w.meet.n;
  if (n == 0) broken((std::string(name) + ": no callback was called").c_str());
  for (int at : {1, (n + 1) / 2, n}) {
    int caught = 0;
    w.meet = {0, at};
    try {
      (w.*call)();
    } catch (const oops &o) {
      caught = o.number;
    }
    if (caught != at || w.meet.n != at) broken((std::string(name) + ": what was thrown does not arrive").c_str());
    w.meet = {0, 0};
    if ((w.*call)() != expected) broken((std::string(name) + ": another result after an exception").c_str());
  }
  return 3;
}

}  // namespace

size_t throw_through_all(const char *folder, const melu_schema *schema, void (*broken)(const char *why)) {
  std::size_t n = 0;
  static const struct {
    std::vector<double> (world::*call)();
    const char *name;
  } calls[] = {{&world::fit, "training"}, {&world::evaluate, "evaluating"}, {&world::ask, "asking"},
               {&world::read, "reading"}, {&world::rank, "ranking"},        {&world::own_loss, "a loss"}};
  for (std::size_t n_threads = 1; n_threads <= 2; n_threads++) {
    world w(folder, schema, n_threads, nullptr), other(folder, schema, n_threads, "base");
    for (const auto &c : calls) n += static_cast<std::size_t>(throw_from(w, c.call, c.name, broken));
    if (std::strstr(w.about(), "kernels base")) continue; /* a CPU without others */
    other.find_checkpoint(w.make_checkpoint());
    other.count_only_lines();
    n += static_cast<std::size_t>(throw_from(other, &world::resume, "resuming", broken));
    std::remove(w.checkpoint().c_str());
  }
  return n;
}
