/* SPDX-License-Identifier: BSD-3-Clause */
/* The best items for a stranger who has told us of two. Usage: recommend MODEL ITEMS.csv */
#include <array>
#include <cstdint>
#include <cstdio>
#include <melu.hpp>

static void recommend(const char *model_path, const char *items_path) {
  const std::array<std::uint32_t, 2> told = {0, 3};
  const std::array<float, 2> ratings = {5, 1};
  const melu::context ctx;
  const melu::model model = melu::model::load(ctx, model_path);
  melu::dataset items(ctx, model.schema());
  items.read_items(items_path);
  items.freeze();

  melu::workspace scratch(model, 20);
  melu::user stranger(model);
  melu::adapt(stranger, scratch, model, items, {}, told, ratings);

  const melu::catalog catalog(model, items);
  melu::top_options others;
  others.exclude = told.data();
  others.n_exclude = told.size();
  std::array<std::uint32_t, 3> best;
  std::array<float, 3> scores;
  const std::size_t n = catalog.top(best, scores, scratch, stranger, others);
  for (std::size_t i = 0; i < n; i++) std::printf("item %u: %.2f\n", best[i], static_cast<double>(scores[i]));
}

int main(int argc, char **argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: recommend MODEL ITEMS.csv\n"), 2;
  try {
    recommend(argv[1], argv[2]);
  } catch (const melu::error &e) {
    return std::fprintf(stderr, "%s: %s\n", melu_status_name(e.status()), e.what()), 1;
  }
  return 0;
}
