/* SPDX-License-Identifier: BSD-3-Clause */
/* A small world for the tests of melu.hpp, made by the form with a status, which both builds have. */
#ifndef MELU_TESTS_WORLD_HPP
#define MELU_TESTS_WORLD_HPP

#include <check.h>
#include <melu.hpp>

#include <atomic>
#include <cstdlib>
#include <functional>

inline constexpr std::uint32_t n_items = 12, n_users = 30;

/* Counts what is alive, and refuses the call that makes `left` zero. */
struct heap {
  std::atomic<long> live{0}, left{-1};
  melu_allocator allocator;

  heap() {
    allocator.arg = this;
    allocator.alloc = [](void *arg, std::size_t n) -> void * {
      heap &h = *static_cast<heap *>(arg);
      if (h.left > 0 && --h.left == 0) return nullptr;
      h.live++;
      return std::malloc(n);
    };
    allocator.free = [](void *arg, void *memory) {
      static_cast<heap *>(arg)->live--;
      std::free(memory);
    };
  }
};

inline void ok(const melu_error &err) {
  ck_assert_msg(err.status == MELU_OK, "%s: %s", melu::status_name(err.status), err.message);
}

/* Everything as members, so that each test frees what it made. The progress callback asks `on_progress`. */
struct world {
  heap memory;
  int (*on_progress)(const melu_progress &) = nullptr;
  melu_error err;
  melu::context ctx;
  melu::dataset data;
  melu::model model;

  explicit world(const char *preset = "best") {
    ask_ = [this](const melu_progress &now) { return on_progress ? on_progress(now) : 0; };
    melu::context_options options;
    options.allocator = &memory.allocator;
    options.n_threads = 2;
    options.on_progress(ask_);
    ctx = melu::context(options, err);
    ok(err);
    melu::schema schema(ctx, err);
    schema.add({"item", MELU_ITEM, MELU_ONE, n_items, 4}, err);
    schema.add({"price", MELU_ITEM, MELU_NUMERIC, 0, 1}, err);
    schema.add({"age", MELU_USER, MELU_ONE, 5, 3}, err);
    ok(err);
    data = melu::dataset(ctx, schema, err);
    fill();
    melu::model_options network;
    network.preset = preset;
    network.seed = 7;
    model = melu::model(ctx, data.schema(), network, err);
    ok(err);
  }
  melu::fit_options two_epochs() const {
    melu::fit_options options;
    options.n_epochs = 2;
    return options;
  }

 private:
  std::function<int(const melu_progress &)> ask_;

  void fill() {
    for (std::uint32_t i = 0; i < n_items; i++) {
      const float price = static_cast<float>(i) / n_items;
      const melu_value values[] = {melu::ids({&i, 1}), melu::numbers({&price, 1})};
      ck_assert_uint_eq(data.add_item(100 + i, values, err), i);
      ok(err);
    }
    for (std::uint32_t u = 0; u < n_users; u++) {
      const std::uint32_t age = u % 5;
      const melu_value value = melu::ids({&age, 1});
      ck_assert_uint_eq(data.add_user(1000 + u, {&value, 1}, err), u);
      for (std::uint32_t i = 0; i < 6 + u % 6; i++) {
        data.add_rating(1000 + u, 100 + (u + i) % n_items, static_cast<float>(1 + (u * i + i) % 5), err);
        ok(err);
      }
    }
    data.freeze(err);
    ok(err);
  }
};

inline const std::vector<std::uint32_t> rated = {0, 3, 5}, asked = {1, 2, 8, 9};
inline const std::vector<float> given = {5, 1, 4};

/* The tests of test_hpp_calls.cpp. */
TCase *hpp_calls();

#endif
