/* SPDX-License-Identifier: BSD-3-Clause */
/* The machine on which the input is a program: handles, draws, and the judge of every call. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "api.h"

enum { MOST_CALLS = 64, LASTING = 128, LARGEST = 32 << 20, UNTOUCHED = 0x5a };

/* Nothing is forced to the disk: no power is cut here, and forcing takes long. */
int __wrap_fsync(int descriptor);
int __wrap_fsync(int descriptor) {
  (void)descriptor;
  return 0;
}

/* ------------------------------------------------------------------------------------------------------ draws */

size_t api_below(struct api *a, size_t n) {
  return fuzz_byte(&a->in) % n;
}

int api_seldom(struct api *a) {
  return fuzz_byte(&a->in) >= 240;
}

size_t api_choice(struct api *a, size_t n) {
  const uint8_t byte = fuzz_byte(&a->in);
  return byte < 128 ? 0 : byte % n;
}

double api_number(struct api *a) {
  static const double strange[] = {NAN, INFINITY, -INFINITY, 1e30, -1e30, 1e300, 1e-30, -0.0, 3.5e38, -1, 1e6, 5e-324};
  static const double usual[] = {1, 2, 3, 4, 5, 0, 0.5, 1.5};
  const uint8_t byte = fuzz_byte(&a->in);
  if (byte >= 240) return strange[(byte - 240) % (sizeof strange / sizeof *strange)];
  return usual[byte % (sizeof usual / sizeof *usual)];
}

uint64_t api_id(struct api *a) {
  const uint8_t byte = fuzz_byte(&a->in);
  return byte < 240 ? byte % 16 : (uint64_t)0 - byte % 3;
}

void *api_memory(struct api *a, size_t n, size_t size) {
  FUZZ_NEEDS(a->n_temporary < API_TEMPORARY, "an operation takes too many arrays");
  void *memory = calloc(n ? n : 1, size);
  FUZZ_NEEDS(memory, "no memory");
  a->temporary[a->n_temporary++] = memory;
  return memory;
}

uint32_t *api_ids(struct api *a, size_t n, uint32_t below) {
  static const uint32_t strange[] = {MELU_UNKNOWN, MELU_UNKNOWN - 1, 0x80000000, 100};
  const uint8_t how = fuzz_byte(&a->in);
  if (n == 0 || how >= 250) return NULL;
  uint32_t *ids = api_memory(a, n, sizeof *ids);
  for (size_t i = 0; i < n; i++) {
    const uint8_t byte = how < 200 ? (uint8_t)(how % below + i) : fuzz_byte(&a->in);
    ids[i] = how < 200 || byte < 240 ? byte % below : strange[byte % 4];
  }
  return ids;
}

float *api_floats(struct api *a, size_t n) {
  const uint8_t how = fuzz_byte(&a->in);
  if (n == 0 || how >= 250) return NULL;
  float *numbers = api_memory(a, n, sizeof *numbers);
  for (size_t i = 0; i < n; i++) {
    const double x = how < 200 ? (double)((how + i) % 5) + 1 : api_number(a);
    numbers[i] = fabs(x) < 3.4e38 || isnan(x) ? (float)x : x < 0 ? -INFINITY : INFINITY;
  }
  return numbers;
}

size_t api_size(struct api *a, size_t n) {
  return api_seldom(a) ? api_below(a, 2) * sizeof(size_t) : n;
}

struct melu_value *api_values(struct api *a, const melu_schema *schema, melu_owner owner) {
  if (!schema || api_seldom(a)) return NULL;
  const size_t n = melu_schema_n_fields(schema, owner);
  struct melu_value *values = api_memory(a, n, sizeof *values);
  for (size_t i = 0; i < n; i++) {
    struct melu_field f = {.size = sizeof f};
    FUZZ_NEEDS(!melu_schema_field(&f, schema, owner, i, NULL), "no field %zu", i);
    const int numeric = (f.kind == MELU_NUMERIC) != api_seldom(a);
    const size_t most = f.kind == MELU_NUMERIC ? f.width : f.kind == MELU_ONE ? 1 : 4;
    const size_t n_numbers = api_seldom(a) ? api_below(a, 6) : most;
    if (numeric) {
      values[i].numbers = api_floats(a, n_numbers);
      values[i].n_numbers = values[i].numbers ? n_numbers : 0;
    } else {
      values[i].n_ids = f.kind == MELU_MANY ? api_below(a, 5) : n_numbers;
      values[i].ids = api_ids(a, values[i].n_ids, f.n_values && f.n_values < 200 ? (uint32_t)f.n_values : 200);
      if (!values[i].ids) values[i].n_ids = 0;
    }
  }
  return values;
}

/* ------------------------------------------------------------------------------------------------- the handles */

#define FREE(name, type)                  \
  static void free_##name(void *object) { \
    melu_##name##_free((type *)object);   \
  }
FREE(schema, melu_schema)
FREE(dataset, melu_dataset)
FREE(batch, melu_batch)
FREE(model, melu_model)
FREE(gradient, melu_gradient)
FREE(optimizer, melu_optimizer)
FREE(workspace, melu_workspace)
FREE(user, melu_user)
FREE(catalog, melu_catalog)

static void (*const free_object[API_KINDS])(void *) = {free_schema,    free_dataset,  free_batch,
                                                       free_model,     free_gradient, free_optimizer,
                                                       free_workspace, free_user,     free_catalog};

void api_free(struct api *a, enum api_kind kind, size_t slot) {
  const enum api_kind first = kind == API_DATA ? API_BATCH : kind == API_MODEL ? API_GRADIENT : API_KINDS;
  const enum api_kind end = kind == API_DATA ? API_MODEL : API_KINDS;
  for (enum api_kind k = first; k < end; k++)
    for (size_t i = 0; i < API_SLOTS; i++)
      if (a->slots[k][i].object && a->slots[k][i].owner == slot) api_free(a, k, i);
  free_object[kind](a->slots[kind][slot].object);
  a->slots[kind][slot].object = NULL;
}

void api_put(struct api *a, enum api_kind kind, size_t slot, void *object, size_t owner, melu_status status) {
  FUZZ_NEEDS((object == NULL) == (status != MELU_OK), "an object that was not made is there");
  if (status) return;
  api_free(a, kind, slot);
  a->slots[kind][slot].object = object;
  a->slots[kind][slot].owner = owner;
}

size_t api_pick(struct api *a, enum api_kind kind) {
  const uint8_t byte = fuzz_byte(&a->in);
  for (size_t i = 0; i < API_SLOTS && byte < 250; i++)
    if (a->slots[kind][(byte + i) % API_SLOTS].object) return (byte + i) % API_SLOTS;
  return byte % API_SLOTS;
}

size_t api_pick_of(struct api *a, enum api_kind kind, size_t owner) {
  const uint8_t byte = fuzz_byte(&a->in);
  for (size_t i = 0; i < API_SLOTS && byte < 250; i++) {
    const size_t slot = (byte + i) % API_SLOTS;
    if (a->slots[kind][slot].object && a->slots[kind][slot].owner == owner) return slot;
  }
  return byte % API_SLOTS;
}

/* -------------------------------------------------------------------------------------------------- the judge */

void api_watch(struct api *a, enum api_kind kind, size_t slot, unsigned except) {
  FUZZ_NEEDS(a->n_watched < API_WATCHED, "an operation watches too many objects");
  a->watched[a->n_watched].kind = kind;
  a->watched[a->n_watched].slot = slot;
  a->watched[a->n_watched].except = except;
  a->watched[a->n_watched++].before = api_digest(a, kind, slot);
}

void api_before(struct api *a) {
  memset(&a->err, UNTOUCHED, sizeof a->err);
  a->errp = api_seldom(a) ? NULL : &a->err;
  a->refused_before = a->n_refused;
  a->n_progress = 0;
  a->stopped = 0;
  a->heap.from_there_on = a->fault >= LASTING;
  a->heap.fail_at = a->fault % LASTING ? a->heap.made + a->fault % LASTING : 0;
}

static void judge_error(const struct api *a, const char *call, melu_status status) {
  if (!a->errp) return;
  if (status) {
    FUZZ_NEEDS(a->err.status == status && a->err.message[0] && memchr(a->err.message, 0, sizeof a->err.message),
               "%s: %s, but the error does not say so", call, melu_status_name(status));
    return;
  }
  const unsigned char *bytes = (const unsigned char *)&a->err;
  for (size_t i = 0; i < sizeof a->err; i++)
    FUZZ_NEEDS(bytes[i] == UNTOUCHED, "%s: succeeds, and touches the error", call);
}

melu_status api_after(struct api *a, const char *call, melu_status status, unsigned allowed) {
  const int refused = a->n_refused > a->refused_before;
  a->heap.fail_at = 0;
  a->fault = 0;
  a->stop_at = 0;
  FUZZ_NEEDS(status <= 0 && status >= MELU_EPEER, "%s: status %d", call, (int)status);
  FUZZ_NEEDS(status != MELU_ENOMEM || refused, "%s: no memory, but all was given", call);
  FUZZ_NEEDS(status != MELU_ECANCELED || a->stopped, "%s: cancelled, but by nobody", call);
  FUZZ_NEEDS(!status || status == MELU_ENOMEM || status == MELU_ECANCELED || allowed & API_BIT(status), "%s: %s: %s",
             call, melu_status_name(status), a->errp ? a->err.message : "");
  judge_error(a, call, status);
  for (size_t i = 0; i < a->n_watched; i++) {
    if (!status || a->watched[i].except & API_BIT(status)) continue;
    FUZZ_NEEDS(api_digest(a, a->watched[i].kind, a->watched[i].slot) == a->watched[i].before,
               "%s: %s, but something changed", call, melu_status_name(status));
  }
  a->n_watched = 0;
  return status;
}

/* ---------------------------------------------------------------------------------------------------- the host */

static void *host_alloc(void *arg, size_t n_bytes) {
  struct api *a = arg;
  void *memory = n_bytes > LARGEST ? NULL : test_alloc(&a->heap, n_bytes);
  if (memory)
    memset(memory, UNTOUCHED, n_bytes);
  else
    a->n_refused++;
  return memory;
}

static void host_free(void *arg, void *memory) {
  struct api *a = arg;
  test_free(&a->heap, memory);
}

static int host_progress(void *arg, const struct melu_progress *progress) {
  struct api *a = arg;
  FUZZ_NEEDS(progress->phase && (!progress->total || progress->done <= progress->total), "a progress of more than all");
  if (++a->n_progress == a->stop_at) a->stopped = 1;
  return a->stopped;
}

static void host_log(void *arg, const char *line) {
  (void)arg;
  FUZZ_NEEDS(strlen(line) > 0, "an empty line is logged");
}

/* Two threads, which in truth are one that begins at the end. */
static void host_run(void *arg, void (*task)(void *task_arg, size_t index, size_t thread), void *task_arg,
                     size_t n_tasks) {
  (void)arg;
  for (size_t i = n_tasks; i-- > 0;) task(task_arg, i, i % 2);
}

/* The first byte says on what the program runs. */
static void open_contexts(struct api *a, uint8_t how) {
  static const struct melu_runner runner = {NULL, 2, host_run};
  const struct melu_allocator allocator = {a, host_alloc, host_free};
  for (int i = 0; i < API_CONTEXTS; i++) {
    const struct melu_context_options options = {.size = sizeof options,
                                                 .allocator = &allocator,
                                                 .progress = host_progress,
                                                 .progress_arg = a,
                                                 .log = i ? host_log : NULL,
                                                 .n_threads = i && how & 1 ? 2 : 1,
                                                 .runner = i && how & 2 ? &runner : NULL,
                                                 .kernels = how & 4 ? "base" : NULL,
                                                 .max_file_bytes = how & 8 ? 4096 : 0};
    FUZZ_NEEDS(!melu_context_new(&a->ctx[i], &options, NULL), "no context");
  }
}

/* With any options; it goes at once. */
static void try_context(struct api *a) {
  const struct melu_allocator allocator = {a, host_alloc, host_free}, no_allocator = {a, NULL, host_free};
  const struct melu_runner idle = {NULL, 0, host_run}, none = {NULL, 2, NULL};
  melu_context *ctx = a->ctx[0];
  struct melu_context_options options = {.allocator = &allocator};
  options.size = api_size(a, sizeof options);
  options.n_threads = API_ONE_OF(a, size_t, 1, 0, 2, 1025, SIZE_MAX);
  options.kernels = API_ONE_OF(a, const char *, NULL, "base", "avx2", "avx512", "", "none");
  options.runner = API_ONE_OF(a, const struct melu_runner *, NULL, &idle, &none);
  if (api_seldom(a)) options.allocator = &no_allocator;
  const melu_status status = API_CALL(a, EINVAL_ | ELIMIT_, melu_context_new(&ctx, &options, a->errp));
  FUZZ_NEEDS((ctx == NULL) == (status != MELU_OK), "a context that was not made is there");
  if (ctx) FUZZ_NEEDS(strlen(melu_build_info(ctx)) > 0, "a context of nothing");
  melu_context_free(ctx);
}

/* ------------------------------------------------------------------------------------------------- the program */

static void set_fault(struct api *a) {
  a->fault = fuzz_byte(&a->in);
}

static void set_stop(struct api *a) {
  a->stop_at = 1 + api_below(a, 8);
}

static void free_any(struct api *a) {
  const enum api_kind kind = (enum api_kind)api_below(a, API_KINDS);
  api_free(a, kind, api_below(a, API_SLOTS));
}

static const api_op own_ops[] = {set_fault, set_stop, free_any, try_context, set_fault};

static void free_temporary(struct api *a) {
  for (size_t i = 0; i < a->n_temporary; i++) free(a->temporary[i]);
  a->n_temporary = 0;
}

/* One operation, whose group and number are bytes. */
static void step(struct api *a) {
  static const struct {
    const api_op *ops;
    size_t n;
  } groups[] = {{own_ops, sizeof own_ops / sizeof *own_ops},
                {api_data_ops, API_DATA_OPS},
                {api_train_ops, API_TRAIN_OPS},
                {api_serve_ops, API_SERVE_OPS},
                {api_serve_ops, API_SERVE_OPS},
                {api_judge_ops, API_JUDGE_OPS}};
  const size_t group = api_below(a, sizeof groups / sizeof *groups);
  groups[group].ops[api_below(a, groups[group].n)](a);
  free_temporary(a);
}

static void close_all(struct api *a) {
  free_temporary(a);
  for (enum api_kind kind = 0; kind < API_KINDS; kind++)
    for (size_t i = 0; i < API_SLOTS; i++) api_free(a, kind, i);
  for (int i = 0; i < API_CONTEXTS; i++) melu_context_free(a->ctx[i]);
  FUZZ_NEEDS(a->heap.live == 0, "%zu blocks are lost", (size_t)a->heap.live);
  unlink(a->model_path);
  unlink(a->checkpoint_path);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
  const char *folder = getenv("TMPDIR");
  struct api *a = calloc(1, sizeof *a);
  FUZZ_NEEDS(a, "no memory");
  a->in = (struct fuzz_input){bytes, n};
  a->budget = 16;
  snprintf(a->model_path, API_PATH, "%.40s/melu-fuzz-%ld.melu", folder ? folder : "/tmp", (long)getpid());
  snprintf(a->checkpoint_path, API_PATH, "%.40s/melu-fuzz-%ld.checkpoint", folder ? folder : "/tmp", (long)getpid());
  open_contexts(a, fuzz_byte(&a->in));
  api_world(a, 0);
  api_small_model(a, 0, 0);
  for (size_t i = 0; i < MOST_CALLS && a->in.n > 0; i++) step(a);
  close_all(a);
  free(a);
  return 0;
}
