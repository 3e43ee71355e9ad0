/* SPDX-License-Identifier: BSD-3-Clause
 *
 * melu.hpp - melu.h for C++17: objects that free themselves, spans, exceptions or status as you like.
 *
 *     melu::context ctx;
 *     melu::schema schema(ctx);
 *     schema.add({"genre", MELU_ITEM, MELU_MANY});
 *     melu::dataset data(ctx, schema);
 *     data.read_items("items.csv");                       ... and users, and ratings
 *     data.freeze();
 *     melu::model model(ctx, data.schema());
 *     melu::fit(model, data);
 *     melu::workspace ws(model, 20);
 *     melu::user stranger(model);
 *     melu::adapt(stranger, ws, model, data, {}, items, ratings);
 *     melu::predict(scores, ws, model, stranger, data, candidates);
 *
 * Nothing is explained twice: what a call does, what it borrows, its errors and what threads may do is in melu.h.
 *
 *   Names.      melu_X_verb is the member `verb` of the class X, every other melu_verb the function melu::verb, with
 *               the arguments in the same order. A pointer and its length are one span; an empty span stands for NULL.
 *               Spans that belong together must have the lengths that melu.h gives them, else MELU_EINVAL. A single
 *               result is returned, also how many of several there are.
 *   Objects.    They own one C handle, or none, and can be moved but not copied. X(handle) takes a handle, get() shows
 *               it, release() gives it away, so that C and C++ may share a program. What an object borrows must outlive
 *               it: declare contexts first, and C++ destroys them last.
 *   Options.    melu::fit_options and so on are melu_fit_options with `size` set and every option at its default.
 *   Failures.   Every call that can fail takes an on_error last. Left out, a failure is thrown as melu::error. Given a
 *               melu_error, nothing is thrown for it: its `status` is MELU_OK after a success, a returned value is zero
 *               after a failure, and a new object is empty. Functions without a value return the melu_status.
 *   Callbacks.  What a callable throws that on_progress, on_log, keep_if or meta_gradient_of was given does not pass
 *               through C: the call is stopped, and throws it when it returns. The functions of a melu_allocator and of
 *               a melu_runner must not throw.
 *
 * Without exceptions (-fno-exceptions, or MELU_NO_EXCEPTIONS defined) on_error and the options before it cannot be left
 * out. Types and functions of the two kinds have different names to the linker.
 */
#ifndef MELU_HPP
#define MELU_HPP

#include <melu.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

/* Whether failures may be thrown. */
#if defined(__cpp_exceptions) && !defined(MELU_NO_EXCEPTIONS)
#define MELU_HPP_EXCEPTIONS 1
#define MELU_HPP_OPTIONAL = {} /* a default argument, if the on_error that ends the list may be left out */
#include <exception>
#include <stdexcept>
#else
#define MELU_HPP_EXCEPTIONS 0
#define MELU_HPP_OPTIONAL
#endif

namespace melu {
#if MELU_HPP_EXCEPTIONS
inline namespace with_exceptions {
#else
inline namespace without_exceptions {
#endif

/* -------------------------------------------------------------------------------------------------- spans */

/* A pointer and a length; borrows. Its members are those of std::span, which C++17 does not have. */
template <class T>
class span {
  template <class U>
  using same_but_for_const = std::enable_if_t<std::is_convertible_v<U (*)[], T (*)[]>>;

 public:
  constexpr span() noexcept = default;
  /* Of n elements. */
  constexpr span(T *first, std::size_t n) noexcept : data_(first), size_(n) {}
  /* Of an array. */
  template <class U, std::size_t N, class = same_but_for_const<U>>
  constexpr span(U (&array)[N]) noexcept : data_(array), size_(N) {}
  /* Of whatever has data() and size(). */
  template <class C, class = same_but_for_const<std::remove_pointer_t<decltype(std::declval<C &>().data())>>>
  constexpr span(C &&container) noexcept : data_(container.data()), size_(container.size()) {}

  /* The first element; NULL if there never was one. */
  constexpr T *data() const noexcept {
    return data_;
  }
  /* How many. */
  constexpr std::size_t size() const noexcept {
    return size_;
  }
  /* Whether there are none. */
  constexpr bool empty() const noexcept {
    return size_ == 0;
  }
  /* Element i, from 0; there is no check. */
  constexpr T &operator[](std::size_t i) const noexcept {
    return data_[i];
  }
  /* For loops over all: the first, */
  constexpr T *begin() const noexcept {
    return data_;
  }
  /* and behind the last. */
  constexpr T *end() const noexcept {
    return data_ + size_;
  }
  /* The first n. */
  constexpr span first(std::size_t n) const noexcept {
    return span(data_, n);
  }

 private:
  T *data_ = nullptr;
  std::size_t size_ = 0;
};

/* A name or a path: a C string, or a std::string; borrows. */
class text {
 public:
  /* Of a string that ends with 0. */
  text(const char *string) noexcept : string_(string) {}
  /* Of a string that stays as it is meanwhile. */
  text(const std::string &string) noexcept : string_(string.c_str()) {}
  /* What the C function is given. */
  const char *c_str() const noexcept {
    return string_;
  }

 private:
  const char *string_;
};

/* ------------------------------------------------------------------------------------------------- errors */

inline const char *status_name(melu_status status) noexcept {
  return melu_status_name(status);
}
inline const char *version() noexcept {
  return melu_version();
}

#if MELU_HPP_EXCEPTIONS
/* A failed call; what() is the message. */
class error : public std::runtime_error {
 public:
  /* Copies them. */
  explicit error(const melu_error &details) : std::runtime_error(details.message), details_(details) {}
  /* The status that the call came to; never MELU_OK. */
  melu_status status() const noexcept {
    return details_.status;
  }
  /* As of melu_error. */
  int sys_errno() const noexcept {
    return details_.sys_errno;
  }
  /* As of melu_error. */
  std::uint64_t index() const noexcept {
    return details_.index;
  }
  /* As of melu_error. */
  std::uint64_t line() const noexcept {
    return details_.line;
  }
  /* All of it. */
  const melu_error &details() const noexcept {
    return details_;
  }

 private:
  melu_error details_;
};
#endif

namespace detail {

#if MELU_HPP_EXCEPTIONS
/* What a callback threw in the call that this thread is in: callbacks are called by the thread that made the call. */
inline std::exception_ptr &thrown() noexcept {
  static thread_local std::exception_ptr pending;
  return pending;
}
#endif

/* Calls a callable for C code. Once one has thrown, none is called any more, and `stop` is the answer. */
template <class R, class F>
R guarded(R stop, F &&call) noexcept {
#if MELU_HPP_EXCEPTIONS
  if (thrown()) return stop;
  try {
    return call();
  } catch (...) {
    thrown() = std::current_exception();
    return stop;
  }
#else
  static_cast<void>(stop);
  return call();
#endif
}

}  // namespace detail

/* Where a failure goes: into a melu_error that is given, else it is thrown. Only made as an argument. */
class on_error {
 public:
#if MELU_HPP_EXCEPTIONS
  on_error() noexcept {
    detail::thrown() = nullptr;
  }
#endif
  /* Into that one. */
  on_error(melu_error &err) noexcept : given_(&err) {
    err.status = MELU_OK;
#if MELU_HPP_EXCEPTIONS
    detail::thrown() = nullptr;
#endif
  }

  /* What the C function is given. */
  operator melu_error *() noexcept {
    return given_ ? given_ : &own_;
  }

  /* Takes what it returned. */
  melu_status operator()(melu_status status) {
#if MELU_HPP_EXCEPTIONS
    if (detail::thrown()) std::rethrow_exception(std::exchange(detail::thrown(), nullptr));
    if (status != MELU_OK && !given_) throw error(own_);
#endif
    return status;
  }

  /* Fails if two spans do not go together: `a` should have as many elements as `b` asks for. */
  melu_status same(const char *a, std::size_t n_a, const char *b, std::size_t n_b) {
    if (n_a == n_b) return MELU_OK;
    melu_error *const err = *this;
    *err = melu_error();
    err->status = MELU_EINVAL;
    std::snprintf(err->message, sizeof err->message, "%s: %zu elements where %s ask for %zu", a, n_a, b, n_b);
    return (*this)(MELU_EINVAL);
  }

 private:
  melu_error *given_ = nullptr;
  melu_error own_; /* written by a failure, and not read before */
};

/* ------------------------------------------------------------------------------------------------ handles */

namespace detail {

template <class T, void (*Free)(T *)>
class handle {
 public:
  handle() noexcept = default;
  explicit handle(T *taken) noexcept : owned_(taken) {}
  explicit operator bool() const noexcept {
    return owned_ != nullptr;
  }
  T *get() noexcept {
    return owned_.get();
  }
  const T *get() const noexcept {
    return owned_.get();
  }
  T *release() noexcept {
    return owned_.release();
  }

 protected:
  /* For constructors: `make` is given where the new handle goes. */
  template <class F>
  void create(on_error &err, F &&make) {
    T *made = nullptr;
    const melu_status status = make(&made);
    owned_.reset(made);
    err(status);
  }

 private:
  struct freeing {
    void operator()(T *owned) const noexcept {
      Free(owned);
    }
  };
  std::unique_ptr<T, freeing> owned_;
};

/* A C struct of options with its size set. */
template <class S>
struct sized : S {
  sized() noexcept : S() {
    this->size = sizeof(S);
  }
};

}  // namespace detail

/* ------------------------------------------------------------------------------------------------ context */

/* melu_context_options, with callables for its callbacks. */
struct context_options : detail::sized<melu_context_options> {
  /* Borrows a callable: void or int (const melu_progress &); an int other than 0 ends the call. */
  template <class F>
  context_options &on_progress(F &callable) noexcept {
    progress_arg = const_cast<std::remove_const_t<F> *>(&callable);
    progress = [](void *arg, const melu_progress *now) noexcept {
      return detail::guarded(1, [=] {
        F &call = *static_cast<F *>(arg);
        if constexpr (std::is_void_v<decltype(call(*now))>) {
          call(*now);
          return 0;
        } else {
          return call(*now);
        }
      });
    };
    return *this;
  }

  /* Borrows a callable: void (const char *line). */
  template <class F>
  context_options &on_log(F &callable) noexcept {
    log_arg = const_cast<std::remove_const_t<F> *>(&callable);
    log = [](void *arg, const char *line) noexcept {
      detail::guarded(0, [=] {
        (*static_cast<F *>(arg))(line);
        return 0;
      });
    };
    return *this;
  }
};

class context : public detail::handle<melu_context, melu_context_free> {
 public:
  using handle::handle;
  explicit context(const context_options &options MELU_HPP_OPTIONAL, on_error err MELU_HPP_OPTIONAL) {
    create(err, [&](melu_context **out) { return melu_context_new(out, &options, err); });
  }
};

inline const char *build_info(const context &ctx) noexcept {
  return melu_build_info(ctx.get());
}

/* -------------------------------------------------------------------------------------------------- ranks */

inline std::size_t slot(std::uint64_t user_id, std::size_t n_slots) noexcept {
  return melu_slot(user_id, n_slots);
}

struct group_options : detail::sized<melu_group_options> {};

/* What member() describes borrows the group. */
class group : public detail::handle<melu_group, melu_group_free> {
 public:
  using handle::handle;
  explicit group(std::size_t n_ranks, const group_options &options MELU_HPP_OPTIONAL, on_error err MELU_HPP_OPTIONAL) {
    create(err, [&](melu_group **out) { return melu_group_new(out, n_ranks, &options, err); });
  }

  detail::sized<melu_collective> member(std::size_t rank, on_error err MELU_HPP_OPTIONAL) {
    detail::sized<melu_collective> collective;
    err(melu_group_member(&collective, get(), rank, err));
    return collective;
  }

  void leave(std::size_t rank) noexcept {
    melu_group_leave(get(), rank);
  }
};

/* ------------------------------------------------------------------------------------------------- schema */

/* melu_field, in one line. */
struct field : detail::sized<melu_field> {
  field() noexcept = default;
  /* What is not named here, shift and scale, keeps its default. */
  field(const char *its_name, melu_owner its_owner, melu_field_kind its_kind, std::size_t its_n_values = 0,
        std::size_t its_width = 0) noexcept {
    name = its_name;
    owner = its_owner;
    kind = its_kind;
    n_values = its_n_values;
    width = its_width;
  }
};

/* A schema that belongs to somebody: what it says can be read. */
class schema_view {
 public:
  /* Of a schema that outlives it. */
  schema_view(const melu_schema *borrowed) noexcept : borrowed_(borrowed) {}
  /* The C handle. */
  const melu_schema *get() const noexcept {
    return borrowed_;
  }
  std::size_t n_fields(melu_owner owner) const noexcept {
    return melu_schema_n_fields(borrowed_, owner);
  }
  melu::field field(melu_owner owner, std::size_t index, on_error err MELU_HPP_OPTIONAL) const {
    melu::field described;
    err(melu_schema_field(&described, borrowed_, owner, index, err));
    return described;
  }
  std::uint32_t value_id(text field, text value) const noexcept {
    return melu_schema_value_id(borrowed_, field.c_str(), value.c_str());
  }
  const char *value_text(text field, std::uint32_t id) const noexcept {
    return melu_schema_value_text(borrowed_, field.c_str(), id);
  }

 private:
  const melu_schema *borrowed_;
};

class schema : public detail::handle<melu_schema, melu_schema_free> {
 public:
  using handle::handle;
  explicit schema(const context &ctx, on_error err MELU_HPP_OPTIONAL) {
    create(err, [&](melu_schema **out) { return melu_schema_new(out, ctx.get(), err); });
  }
  /* The same as view(). */
  operator schema_view() const noexcept {
    return view();
  }
  /* What reads this schema. */
  schema_view view() const noexcept {
    return schema_view(get());
  }
  melu_status add(const field &added, on_error err MELU_HPP_OPTIONAL) {
    return err(melu_schema_add(get(), &added, err));
  }
  melu_status add_melu(text folder, on_error err MELU_HPP_OPTIONAL) {
    return err(melu_schema_add_melu(get(), folder.c_str(), err));
  }
  melu_status add_melu_items(text folder, on_error err MELU_HPP_OPTIONAL) {
    return err(melu_schema_add_melu_items(get(), folder.c_str(), err));
  }
};

/* ------------------------------------------------------------------------------------------------ dataset */

/* The value of one field; borrows. A melu_value of zeros is missing. */
inline melu_value ids(span<const std::uint32_t> of) noexcept {
  melu_value value = melu_value();
  value.ids = of.data();
  value.n_ids = of.size();
  return value;
}
inline melu_value numbers(span<const float> of) noexcept {
  melu_value value = melu_value();
  value.numbers = of.data();
  value.n_numbers = of.size();
  return value;
}

/* Somebody's ratings, in the order in which they were given. */
template <class Id>
struct rating_list {
  span<const Id> items;      /* what was rated */
  span<const float> ratings; /* and how, one of each */
};

using table_options = detail::sized<melu_table_options>;

class dataset : public detail::handle<melu_dataset, melu_dataset_free> {
 public:
  using handle::handle;
  dataset(const context &ctx, schema_view schema, on_error err MELU_HPP_OPTIONAL) {
    create(err, [&](melu_dataset **out) { return melu_dataset_new(out, ctx.get(), schema.get(), err); });
  }

  /* Return the position. */
  std::uint32_t add_user(std::uint64_t id, span<const melu_value> values MELU_HPP_OPTIONAL,
                         on_error err MELU_HPP_OPTIONAL) {
    std::uint32_t index = 0;
    if (fits(values, MELU_USER, err)) err(melu_dataset_add_user(get(), id, values.data(), &index, err));
    return index;
  }
  std::uint32_t add_item(std::uint64_t id, span<const melu_value> values MELU_HPP_OPTIONAL,
                         on_error err MELU_HPP_OPTIONAL) {
    std::uint32_t index = 0;
    if (fits(values, MELU_ITEM, err)) err(melu_dataset_add_item(get(), id, values.data(), &index, err));
    return index;
  }
  melu_status add_rating(std::uint64_t user_id, std::uint64_t item_id, float rating, on_error err MELU_HPP_OPTIONAL) {
    return err(melu_dataset_add_rating(get(), user_id, item_id, rating, err));
  }
  melu_status read_users(text path, const table_options &options MELU_HPP_OPTIONAL, on_error err MELU_HPP_OPTIONAL) {
    return err(melu_dataset_read_users(get(), path.c_str(), &options, err));
  }
  melu_status read_items(text path, const table_options &options MELU_HPP_OPTIONAL, on_error err MELU_HPP_OPTIONAL) {
    return err(melu_dataset_read_items(get(), path.c_str(), &options, err));
  }
  melu_status read_ratings(text path, const table_options &options MELU_HPP_OPTIONAL, on_error err MELU_HPP_OPTIONAL) {
    return err(melu_dataset_read_ratings(get(), path.c_str(), &options, err));
  }
  melu_status read_melu(text folder, text state, on_error err MELU_HPP_OPTIONAL) {
    return err(melu_dataset_read_melu(get(), folder.c_str(), state.c_str(), err));
  }
  melu_status freeze(on_error err MELU_HPP_OPTIONAL) {
    return err(melu_dataset_freeze(get(), err));
  }

  schema_view schema() const noexcept {
    return melu_dataset_schema(get());
  }
  std::size_t n_users() const noexcept {
    return melu_dataset_n_users(get());
  }
  std::size_t n_items() const noexcept {
    return melu_dataset_n_items(get());
  }
  std::size_t n_ratings() const noexcept {
    return melu_dataset_n_ratings(get());
  }
  std::uint64_t user_id(std::uint32_t user) const noexcept {
    return melu_dataset_user_id(get(), user);
  }
  std::uint64_t item_id(std::uint32_t item) const noexcept {
    return melu_dataset_item_id(get(), item);
  }
  std::uint32_t find_user(std::uint64_t id, on_error err MELU_HPP_OPTIONAL) const {
    std::uint32_t user = 0;
    err(melu_dataset_find_user(&user, get(), id, err));
    return user;
  }
  std::uint32_t find_item(std::uint64_t id, on_error err MELU_HPP_OPTIONAL) const {
    std::uint32_t item = 0;
    err(melu_dataset_find_item(&item, get(), id, err));
    return item;
  }
  rating_list<std::uint32_t> ratings(std::uint32_t user) const noexcept {
    const std::uint32_t *items = nullptr;
    const float *given = nullptr;
    const std::size_t n = melu_dataset_ratings(get(), user, &items, &given);
    return {{items, n}, {given, n}};
  }
  melu_status user_values(span<melu_value> values, std::uint32_t user, on_error err MELU_HPP_OPTIONAL) const {
    const melu_status status = err.same("values", values.size(), "user fields", schema().n_fields(MELU_USER));
    return status ? status : err(melu_dataset_user_values(values.data(), get(), user, err));
  }
  melu_status item_values(span<melu_value> values, std::uint32_t item, on_error err MELU_HPP_OPTIONAL) const {
    const melu_status status = err.same("values", values.size(), "item fields", schema().n_fields(MELU_ITEM));
    return status ? status : err(melu_dataset_item_values(values.data(), get(), item, err));
  }

 private:
  bool fits(span<const melu_value> values, melu_owner owner, on_error &err) const {
    return values.empty() || !err.same("values", values.size(), owner == MELU_USER ? "user fields" : "item fields",
                                       schema().n_fields(owner));
  }
};

/* ------------------------------------------------------------------------------------------------- shards */

using shard_options = detail::sized<melu_shard_options>;
using shards_info = detail::sized<melu_shards_info>;

class shard_writer : public detail::handle<melu_shard_writer, melu_shard_writer_free> {
 public:
  shard_writer() noexcept = default;
  /* Takes a writer of data with that schema. */
  shard_writer(melu_shard_writer *taken, schema_view schema) noexcept
      : handle(taken), n_fields_(schema.n_fields(MELU_USER)) {}
  shard_writer(const context &ctx, text folder, const dataset &data, const shard_options &options MELU_HPP_OPTIONAL,
               on_error err MELU_HPP_OPTIONAL)
      : n_fields_(data.schema().n_fields(MELU_USER)) {
    create(err, [&](melu_shard_writer **out) {
      return melu_shard_writer_new(out, ctx.get(), folder.c_str(), data.get(), &options, err);
    });
  }
  melu_status add_user(std::uint64_t id, span<const melu_value> values MELU_HPP_OPTIONAL,
                       on_error err MELU_HPP_OPTIONAL) {
    if (!values.empty() && err.same("values", values.size(), "user fields", n_fields_)) return MELU_EINVAL;
    return err(melu_shard_writer_add_user(get(), id, values.data(), err));
  }
  melu_status add_rating(std::uint64_t user_id, std::uint64_t item_id, float rating, on_error err MELU_HPP_OPTIONAL) {
    return err(melu_shard_writer_add_rating(get(), user_id, item_id, rating, err));
  }
  melu_status finish(on_error err MELU_HPP_OPTIONAL) {
    return err(melu_shard_writer_finish(get(), err));
  }

 private:
  std::size_t n_fields_ = 0;
};

class shards : public detail::handle<melu_shards, melu_shards_free> {
 public:
  shards() noexcept = default;
  /* Takes a handle. */
  explicit shards(melu_shards *taken) noexcept : handle(taken) {
    show_items();
  }
  shards(const context &ctx, text folder, on_error err MELU_HPP_OPTIONAL) {
    create(err, [&](melu_shards **out) { return melu_shards_open(out, ctx.get(), folder.c_str(), err); });
    show_items();
  }
  /* Leaves `other` empty. */
  shards(shards &&other) noexcept = default;
  /* Frees what it has. Leaves `other` empty. */
  shards &operator=(shards &&other) noexcept {
    items_.release();
    handle::operator=(std::move(other));
    items_ = std::move(other.items_);
    return *this;
  }
  ~shards() {
    items_.release();
  }
  shards_info describe(on_error err MELU_HPP_OPTIONAL) const {
    shards_info info;
    err(melu_shards_describe(&info, get(), err));
    return info;
  }
  /* Of the handle, and as long as it. */
  const dataset &items() const noexcept {
    return items_;
  }
  dataset read(std::size_t file, on_error err MELU_HPP_OPTIONAL) const {
    melu_dataset *made = nullptr;
    const melu_status status = melu_shards_read(&made, get(), file, err);
    dataset data(made);
    err(status);
    return data;
  }

 private:
  void show_items() noexcept {
    items_ = dataset(const_cast<melu_dataset *>(melu_shards_items(get()))); /* is shown as const, and not freed */
  }
  dataset items_;
};

/* -------------------------------------------------------------------------------------------------- batch */

class batch : public detail::handle<melu_batch, melu_batch_free> {
 public:
  using handle::handle;
  batch(const context &ctx, const dataset &data, on_error err MELU_HPP_OPTIONAL) {
    create(err, [&](melu_batch **out) { return melu_batch_new(out, ctx.get(), data.get(), err); });
  }
  void clear() noexcept {
    melu_batch_clear(get());
  }
  melu_status add(std::uint32_t user, span<const std::uint32_t> support, span<const std::uint32_t> query,
                  on_error err MELU_HPP_OPTIONAL) {
    return err(melu_batch_add(get(), user, support.data(), support.size(), query.data(), query.size(), err));
  }
  std::size_t n_tasks() const noexcept {
    return melu_batch_n_tasks(get());
  }
};

inline melu_status split_order(span<std::uint32_t> order, std::uint64_t user_id, std::uint64_t split,
                               on_error err MELU_HPP_OPTIONAL) {
  return err(melu_split_order(order.data(), user_id, split, order.size(), err));
}

/* -------------------------------------------------------------------------------------------------- model */

using model_options = detail::sized<melu_model_options>;
/* What melu_model_digest writes. */
using digest = std::array<unsigned char, MELU_DIGEST_BYTES>;

class model : public detail::handle<melu_model, melu_model_free> {
 public:
  using handle::handle;
  model(const context &ctx, schema_view schema, const model_options &options MELU_HPP_OPTIONAL,
        on_error err MELU_HPP_OPTIONAL) {
    create(err, [&](melu_model **out) { return melu_model_new(out, ctx.get(), schema.get(), &options, err); });
  }
  static model load(const context &ctx, text path, on_error err MELU_HPP_OPTIONAL) {
    model loaded;
    loaded.create(err, [&](melu_model **out) { return melu_model_load(out, ctx.get(), path.c_str(), err); });
    return loaded;
  }
  melu_status save(text path, on_error err MELU_HPP_OPTIONAL) const {
    return err(melu_model_save(get(), path.c_str(), err));
  }
  melu_status import(text path, on_error err MELU_HPP_OPTIONAL) {
    return err(melu_model_import(get(), path.c_str(), err));
  }
  schema_view schema() const noexcept {
    return melu_model_schema(get());
  }
  model_options get_options(on_error err MELU_HPP_OPTIONAL) const {
    model_options options;
    err(melu_model_get_options(&options, get(), err));
    return options;
  }
  melu::digest digest(on_error err MELU_HPP_OPTIONAL) const {
    melu::digest bytes = {};
    err(melu_model_digest(bytes.data(), get(), err));
    return bytes;
  }

  std::size_t n_params() const noexcept {
    return melu_model_n_params(get());
  }
  melu_param param(std::size_t index, on_error err MELU_HPP_OPTIONAL) const {
    melu_param described = melu_param();
    err(melu_model_param(&described, get(), index, err));
    return described;
  }
  /* As many whole rows as `values` has room for, of a parameter that `param` described. */
  melu_status read(span<float> values, const melu_param &of, std::size_t first_row MELU_HPP_OPTIONAL,
                   on_error err MELU_HPP_OPTIONAL) const {
    const std::size_t n_rows = rows(values.size(), of);
    const melu_status status = err.same("values", values.size(), "whole rows", n_rows * of.cols);
    return status ? status : err(melu_model_read(values.data(), get(), of.name, first_row, n_rows, err));
  }
  melu_status write(const melu_param &of, std::size_t first_row, span<const float> values,
                    on_error err MELU_HPP_OPTIONAL) {
    const std::size_t n_rows = rows(values.size(), of);
    const melu_status status = err.same("values", values.size(), "whole rows", n_rows * of.cols);
    return status ? status : err(melu_model_write(get(), of.name, first_row, n_rows, values.data(), err));
  }

 private:
  static std::size_t rows(std::size_t n_values, const melu_param &of) noexcept {
    return of.cols ? n_values / of.cols : 0;
  }
};

/* ----------------------------------------------------------------------------------------------- training */

class gradient : public detail::handle<melu_gradient, melu_gradient_free> {
 public:
  using handle::handle;
  explicit gradient(const model &of, on_error err MELU_HPP_OPTIONAL) {
    create(err, [&](melu_gradient **out) { return melu_gradient_new(out, of.get(), err); });
  }
  double loss() const noexcept {
    return melu_gradient_loss(get(), nullptr);
  }
  /* The loss of each task, as many as the batch had. */
  const double *losses() const noexcept {
    const double *each = nullptr;
    melu_gradient_loss(get(), &each);
    return each;
  }
  /* `of`: a parameter of the model, as model::param described it. */
  melu_status read(span<float> values, const melu_param &of, on_error err MELU_HPP_OPTIONAL) const {
    const melu_status status = err.same("values", values.size(), "rows and columns", of.rows * of.cols);
    return status ? status : err(melu_gradient_read(values.data(), get(), of.name, err));
  }
  std::size_t n_rows(const melu_param &of) const noexcept {
    return melu_gradient_n_rows(get(), of.name);
  }
  melu_status read_rows(span<std::uint32_t> rows, span<float> values, const melu_param &of,
                        on_error err MELU_HPP_OPTIONAL) const {
    const std::size_t n = n_rows(of);
    melu_status status = err.same("rows", rows.size(), "the gradient's rows", n);
    if (!status) status = err.same("values", values.size(), "rows and columns", n * of.cols);
    return status ? status : err(melu_gradient_read_rows(rows.data(), values.data(), get(), of.name, err));
  }
};

inline melu_status meta_gradient(gradient &out, const model &of, const batch &tasks, on_error err MELU_HPP_OPTIONAL) {
  return err(melu_meta_gradient(out.get(), of.get(), tasks.get(), err));
}

inline melu_status meta_gradient_of(gradient &out, const model &of, const batch &tasks, melu_loss_fn loss, void *arg,
                                    on_error err MELU_HPP_OPTIONAL) {
  return err(melu_meta_gradient_of(out.get(), of.get(), tasks.get(), loss, arg, err));
}

/* The same with a callable: double (size_t task, span<const float> scores, span<const float> ratings, span<float>
 * slopes) returns the loss. */
template <class F>
melu_status meta_gradient_of(gradient &out, const model &of, const batch &tasks, F &&loss,
                             on_error err MELU_HPP_OPTIONAL) {
  using callable = std::remove_reference_t<F>;
  const melu_loss_fn call = [](void *arg, std::size_t task, const float *scores, const float *ratings, std::size_t n,
                               double *value, float *slopes) noexcept {
    return detail::guarded(1, [=] {
      *value = (*static_cast<callable *>(arg))(task, span<const float>(scores, n), span<const float>(ratings, n),
                                               span<float>(slopes, n));
      return 0;
    });
  };
  void *const arg = const_cast<std::remove_const_t<callable> *>(&loss);
  return err(melu_meta_gradient_of(out.get(), of.get(), tasks.get(), call, arg, err));
}

using optimizer_options = detail::sized<melu_optimizer_options>;

class optimizer : public detail::handle<melu_optimizer, melu_optimizer_free> {
 public:
  using handle::handle;
  explicit optimizer(const model &of, const optimizer_options &options MELU_HPP_OPTIONAL,
                     on_error err MELU_HPP_OPTIONAL) {
    create(err, [&](melu_optimizer **out) { return melu_optimizer_new(out, of.get(), &options, err); });
  }
  melu_status step(model &changed, const gradient &by, on_error err MELU_HPP_OPTIONAL) {
    return err(melu_optimizer_step(get(), changed.get(), by.get(), err));
  }
  melu_status set_lr(double lr, on_error err MELU_HPP_OPTIONAL) {
    return err(melu_optimizer_set_lr(get(), lr, err));
  }
};

using fit_options = detail::sized<melu_fit_options>;

inline melu_status fit_shards(model &trained, const shards &data, const fit_options &options MELU_HPP_OPTIONAL,
                              on_error err MELU_HPP_OPTIONAL) {
  return err(melu_fit_shards(trained.get(), data.get(), &options, err));
}

inline melu_status fit(model &trained, const dataset &data, const fit_options &options MELU_HPP_OPTIONAL,
                       on_error err MELU_HPP_OPTIONAL) {
  return err(melu_fit(trained.get(), data.get(), &options, err));
}

/* ----------------------------------------------------------------------------------------------- adapting */

class workspace : public detail::handle<melu_workspace, melu_workspace_free> {
 public:
  using handle::handle;
  workspace(const model &of, std::size_t max_support, on_error err MELU_HPP_OPTIONAL) {
    create(err, [&](melu_workspace **out) { return melu_workspace_new(out, of.get(), max_support, err); });
  }
};

class user : public detail::handle<melu_user, melu_user_free> {
 public:
  using handle::handle;
  explicit user(const model &of, on_error err MELU_HPP_OPTIONAL) {
    create(err, [&](melu_user **out) { return melu_user_new(out, of.get(), err); });
  }
  /* The items by the host's ids. */
  rating_list<std::uint64_t> ratings() const noexcept {
    const std::uint64_t *items = nullptr;
    const float *given = nullptr;
    const std::size_t n = melu_user_ratings(get(), &items, &given);
    return {{items, n}, {given, n}};
  }
  melu_status rate(workspace &ws, const model &of, const dataset &data, std::uint32_t item, float rating,
                   on_error err MELU_HPP_OPTIONAL) {
    return err(melu_user_rate(get(), ws.get(), of.get(), data.get(), item, rating, err));
  }
  melu_status forget(workspace &ws, const model &of, const dataset &data, std::uint32_t item,
                     on_error err MELU_HPP_OPTIONAL) {
    return err(melu_user_forget(get(), ws.get(), of.get(), data.get(), item, err));
  }
  /* Writes into `bytes`, and returns how many there are, also if they were too many; of an empty span only that. */
  std::size_t save(span<unsigned char> bytes, workspace &ws, melu_user_form form,
                   on_error err MELU_HPP_OPTIONAL) const {
    std::size_t n = bytes.size();
    err(melu_user_save(bytes.data(), &n, ws.get(), get(), form, err));
    return n;
  }
  /* The same as a vector, which throws as vectors do where there is no memory. */
  std::vector<unsigned char> save(workspace &ws, melu_user_form form, on_error err MELU_HPP_OPTIONAL) const {
    std::size_t n = 0;
    std::vector<unsigned char> bytes;
    if (err(melu_user_save(nullptr, &n, ws.get(), get(), form, err))) return bytes;
    bytes.resize(n);
    if (err(melu_user_save(bytes.data(), &n, ws.get(), get(), form, err))) bytes.clear();
    return bytes;
  }
  melu_status load(workspace &ws, const model &of, const dataset &data, span<const unsigned char> bytes,
                   on_error err MELU_HPP_OPTIONAL) {
    return err(melu_user_load(get(), ws.get(), of.get(), data.get(), bytes.data(), bytes.size(), err));
  }
};

/* `profile`: one value per user field, or empty. */
inline melu_status adapt(user &adapted, workspace &ws, const model &of, const dataset &data,
                         span<const melu_value> profile, span<const std::uint32_t> items, span<const float> ratings,
                         on_error err MELU_HPP_OPTIONAL) {
  melu_status status = err.same("ratings", ratings.size(), "items", items.size());
  if (!status && !profile.empty()) {
    status = err.same("profile", profile.size(), "user fields", of.schema().n_fields(MELU_USER));
  }
  return status ? status
                : err(melu_adapt(adapted.get(), ws.get(), of.get(), data.get(), profile.data(), items.data(),
                                 ratings.data(), items.size(), err));
}

inline melu_status predict(span<float> scores, workspace &ws, const model &of, const user &by, const dataset &data,
                           span<const std::uint32_t> items, on_error err MELU_HPP_OPTIONAL) {
  const melu_status status = err.same("scores", scores.size(), "items", items.size());
  return status ? status
                : err(melu_predict(scores.data(), ws.get(), of.get(), by.get(), data.get(), items.data(), items.size(),
                                   err));
}

inline melu_status predict_variance(span<float> variances, workspace &ws, const model &of, const user &by,
                                    const dataset &data, span<const std::uint32_t> items,
                                    on_error err MELU_HPP_OPTIONAL) {
  const melu_status status = err.same("variances", variances.size(), "items", items.size());
  return status ? status
                : err(melu_predict_variance(variances.data(), ws.get(), of.get(), by.get(), data.get(), items.data(),
                                            items.size(), err));
}

inline melu_status explain(span<float> pulls, workspace &ws, const model &of, const user &by, const dataset &data,
                           std::uint32_t item, on_error err MELU_HPP_OPTIONAL) {
  const melu_status status = err.same("pulls", pulls.size(), "the user's ratings", by.ratings().items.size());
  return status ? status : err(melu_explain(pulls.data(), ws.get(), of.get(), by.get(), data.get(), item, err));
}

/* ------------------------------------------------------------------------------------------------ ranking */

/* melu_top_options, with its parts by name. */
struct top_options : detail::sized<melu_top_options> {
  /* Leaves out `numbers`, which it borrows. */
  top_options &without(span<const std::uint32_t> numbers) noexcept {
    exclude = numbers.data();
    n_exclude = numbers.size();
    return *this;
  }
  /* Lets in number i if bit i % 64 of element i / 64 is set; borrows the bitmap. */
  top_options &only(span<const std::uint64_t> bitmap) noexcept {
    allow = bitmap.data();
    n_allow = 64 * bitmap.size();
    return *this;
  }
  /* Borrows a callable: bool (uint32_t number). */
  template <class F>
  top_options &keep_if(F &callable) noexcept {
    keep_arg = const_cast<std::remove_const_t<F> *>(&callable);
    keep = [](void *arg, std::uint32_t number) noexcept {
      return detail::guarded(0, [=] { return (*static_cast<F *>(arg))(number) ? 1 : 0; });
    };
    return *this;
  }
};

class catalog : public detail::handle<melu_catalog, melu_catalog_free> {
 public:
  using handle::handle;
  /* All items of `data`, or some. */
  catalog(const model &of, const dataset &data, on_error err MELU_HPP_OPTIONAL) {
    create(err, [&](melu_catalog **out) {
      return melu_catalog_new(out, of.get(), data.get(), nullptr, data.n_items(), err);
    });
  }
  catalog(const model &of, const dataset &data, span<const std::uint32_t> items, on_error err MELU_HPP_OPTIONAL) {
    create(err, [&](melu_catalog **out) {
      return melu_catalog_new(out, of.get(), data.get(), items.data(), items.size(), err);
    });
  }
  std::size_t n_items() const noexcept {
    return melu_catalog_n_items(get());
  }
  span<const std::uint32_t> items() const noexcept {
    return {melu_catalog_items(get()), n_items()};
  }
  melu_status put(const dataset &data, span<const std::uint32_t> items,
                  span<const std::uint32_t> numbers MELU_HPP_OPTIONAL, on_error err MELU_HPP_OPTIONAL) {
    if (!numbers.empty()) {
      const melu_status status = err.same("numbers", numbers.size(), "items", items.size());
      if (status) return status;
    }
    return err(melu_catalog_put(get(), data.get(), items.data(), numbers.data(), items.size(), err));
  }
  melu_status remove(span<const std::uint32_t> numbers, on_error err MELU_HPP_OPTIONAL) {
    return err(melu_catalog_remove(get(), numbers.data(), numbers.size(), err));
  }

  melu_status score(span<float> scores, workspace &ws, const user &by, on_error err MELU_HPP_OPTIONAL) const {
    const melu_status status = err.same("scores", scores.size(), "items", n_items());
    return status ? status : err(melu_catalog_score(scores.data(), ws.get(), get(), by.get(), err));
  }
  melu_status score_list(span<float> scores, workspace &ws, const user &by, span<const std::uint32_t> numbers,
                         on_error err MELU_HPP_OPTIONAL) const {
    const melu_status status = err.same("scores", scores.size(), "numbers", numbers.size());
    return status ? status
                  : err(melu_catalog_score_list(scores.data(), ws.get(), get(), by.get(), numbers.data(),
                                                numbers.size(), err));
  }
  /* As many as the spans have room for; returns how many there are. */
  std::size_t top(span<std::uint32_t> items, span<float> scores, workspace &ws, const user &by,
                  const top_options &options MELU_HPP_OPTIONAL, on_error err MELU_HPP_OPTIONAL) const {
    std::size_t n = items.size();
    if (err.same("scores", scores.size(), "items", n)) return 0;
    return err(melu_catalog_top(items.data(), scores.data(), &n, ws.get(), get(), by.get(), &options, err)) ? 0 : n;
  }
  /* `n`, `users` and, if there are any, `options` are one for each user; `items` and `scores` k for each. */
  melu_status top_users(span<std::uint32_t> items, span<float> scores, span<std::size_t> n, std::size_t k,
                        workspace &ws, span<const melu_user *const> users,
                        span<const melu_top_options> options MELU_HPP_OPTIONAL, on_error err MELU_HPP_OPTIONAL) const {
    melu_status status = err.same("n", n.size(), "users", users.size());
    if (!status) status = err.same("items", items.size(), "k and users", k * users.size());
    if (!status) status = err.same("scores", scores.size(), "k and users", k * users.size());
    if (!status && !options.empty()) status = err.same("options", options.size(), "users", users.size());
    return status ? status
                  : err(melu_catalog_top_users(items.data(), scores.data(), n.data(), k, ws.get(), get(), users.data(),
                                               users.size(), options.data(), err));
  }
};

/* ------------------------------------------------------------------------------------------------- asking */

using candidate_options = detail::sized<melu_candidate_options>;
using ask_options = detail::sized<melu_ask_options>;

/* Return how many there are. `scores` and `gains` may be empty. */
inline std::size_t candidates(span<std::uint32_t> items, span<double> scores, const model &of, const dataset &data,
                              const candidate_options &options MELU_HPP_OPTIONAL, on_error err MELU_HPP_OPTIONAL) {
  std::size_t n = items.size();
  if (!scores.empty() && err.same("scores", scores.size(), "items", n)) return 0;
  return err(melu_candidates(items.data(), scores.data(), &n, of.get(), data.get(), &options, err)) ? 0 : n;
}

inline std::size_t ask(span<std::uint32_t> items, span<float> gains, workspace &ws, const model &of, const user &by,
                       const dataset &data, const ask_options &options MELU_HPP_OPTIONAL,
                       on_error err MELU_HPP_OPTIONAL) {
  std::size_t n = items.size();
  if (!gains.empty() && err.same("gains", gains.size(), "items", n)) return 0;
  return err(melu_ask(items.data(), gains.data(), &n, ws.get(), of.get(), by.get(), data.get(), &options, err)) ? 0 : n;
}

/* --------------------------------------------------------------------------------------------- evaluation */

/* melu_metrics, zeros at first. */
struct metrics : melu_metrics {
  metrics() noexcept : melu_metrics() {}
  melu_status add(span<const float> scores, span<const float> ratings, double rating_min, double rating_max,
                  on_error err MELU_HPP_OPTIONAL) {
    const melu_status status = err.same("ratings", ratings.size(), "scores", scores.size());
    return status
               ? status
               : err(melu_metrics_add(this, scores.data(), ratings.data(), scores.size(), rating_min, rating_max, err));
  }
  melu_status clicks(const context &ctx, span<const float> scores, span<const float> labels,
                     on_error err MELU_HPP_OPTIONAL) {
    const melu_status status = err.same("labels", labels.size(), "scores", scores.size());
    return status ? status
                  : err(melu_metrics_clicks(this, ctx.get(), scores.data(), labels.data(), scores.size(), err));
  }
};

using evaluate_options = detail::sized<melu_evaluate_options>;
using choose_options = detail::sized<melu_choose_options>;

inline metrics evaluate(const model &judged, const dataset &data, const evaluate_options &options MELU_HPP_OPTIONAL,
                        on_error err MELU_HPP_OPTIONAL) {
  metrics out;
  err(melu_evaluate(&out, judged.get(), data.get(), &options, err));
  return out;
}

/* Returns the index of the best. `errors` may be empty. */
inline std::size_t choose(span<double> errors, const context &ctx, const dataset &data,
                          span<const melu_model_options> models, span<const melu_fit_options> fits,
                          const choose_options &options MELU_HPP_OPTIONAL, on_error err MELU_HPP_OPTIONAL) {
  std::size_t best = 0;
  if (err.same("fits", fits.size(), "models", models.size())) return 0;
  if (!errors.empty() && err.same("errors", errors.size(), "models", models.size())) return 0;
  err(melu_choose(&best, errors.data(), ctx.get(), data.get(), models.data(), fits.data(), models.size(), &options,
                  err));
  return best;
}

}  // namespace with_exceptions, or without
}  // namespace melu

#undef MELU_HPP_OPTIONAL

#endif
