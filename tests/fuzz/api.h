/* SPDX-License-Identifier: BSD-3-Clause */
/* fuzz_api: the input is a program of calls, over a few handles of each kind. The program keeps to what hosts promise
 * (lengths are true, handles are alive, callbacks behave) and to nothing else. */
#ifndef MELU_TESTS_FUZZ_API_H
#define MELU_TESTS_FUZZ_API_H

#include <melu.h>

#include "../proofs/proof.h"
#include "../support.h"
#include "fuzz.h"

enum api_kind {
  API_SCHEMA,
  API_DATA,
  API_BATCH, /* from here on what others are made for: the owner is a data set */
  API_MODEL,
  API_GRADIENT, /* from here on the owner is a model */
  API_OPTIMIZER,
  API_WORKSPACE,
  API_USER,
  API_CATALOG,
  API_KINDS
};

/* What a world has. */
enum { API_WORLD_ITEMS = 9, API_WORLD_USERS = 6, API_WORLD_RATINGS = 3 };

enum { API_SLOTS = 3, API_CONTEXTS = 2, API_WATCHED = 4, API_TEMPORARY = 256, API_PATH = 96, API_BYTES = 4096 };

struct api {
  struct fuzz_input in;
  struct test_heap heap;
  size_t n_refused; /* requests that the allocator refused, for whatever reason */
  uint8_t fault;    /* of the next call: 0 or the number of the request that fails; API_LASTING: and all after it */
  size_t stop_at;   /* of the next call: the progress callback ends it then; 0: never */
  size_t n_progress;
  int stopped;   /* by a callback */
  size_t budget; /* of what takes long */

  melu_context *ctx[API_CONTEXTS];
  struct {
    void *object;
    size_t owner; /* the slot of what it borrows */
  } slots[API_KINDS][API_SLOTS];

  melu_error err, *errp; /* NULL where a call is not asked why */
  struct {
    enum api_kind kind;
    size_t slot;
    unsigned except; /* statuses after which it may have changed */
    uint64_t before;
  } watched[API_WATCHED];
  size_t n_watched, refused_before;

  void *temporary[API_TEMPORARY];
  size_t n_temporary;
  unsigned char bytes[API_BYTES]; /* the last user that was written down */
  size_t n_bytes;
  char model_path[API_PATH], checkpoint_path[API_PATH];
};

#define API_BIT(status) (1u << -(status))
enum {
  EINVAL_ = API_BIT(MELU_EINVAL),
  EIO_ = API_BIT(MELU_EIO),
  EFORMAT_ = API_BIT(MELU_EFORMAT),
  ECORRUPT_ = API_BIT(MELU_ECORRUPT),
  EVERSION_ = API_BIT(MELU_EVERSION),
  ESCHEMA_ = API_BIT(MELU_ESCHEMA),
  ERANGE_ = API_BIT(MELU_ERANGE),
  ENOTFOUND_ = API_BIT(MELU_ENOTFOUND),
  ESTATE_ = API_BIT(MELU_ESTATE),
  ELIMIT_ = API_BIT(MELU_ELIMIT),
  ECANCELED_ = API_BIT(MELU_ECANCELED),
  EDIVERGED_ = API_BIT(MELU_EDIVERGED)
};

/* Makes a call, whose last argument is a->errp, and judges its status: it succeeds; or it is one of `allowed`, or out
 * of memory and memory was refused; the error says the same; what is watched is as before. Returns the status. */
#define API_CALL(a, allowed, call) (api_before(a), api_after(a, #call, call, allowed))
void api_before(struct api *a);
melu_status api_after(struct api *a, const char *call, melu_status status, unsigned allowed);

/* What is in that slot must not change if the next call fails, but with a status of `except`. */
void api_watch(struct api *a, enum api_kind kind, size_t slot, unsigned except);

/* Of all that the host can see of it; 0 of nothing. */
uint64_t api_digest(const struct api *a, enum api_kind kind, size_t slot);

/* Puts into a slot what a call has made, or sees that it made nothing when it failed. What was there goes. */
void api_put(struct api *a, enum api_kind kind, size_t slot, void *object, size_t owner, melu_status status);
void api_free(struct api *a, enum api_kind kind, size_t slot);

/* A slot, one that is in use if there is any, or, seldom, any; and what is in it. */
size_t api_pick(struct api *a, enum api_kind kind);
#define API_OBJECT(a, type, kind, slot) ((type *)(a)->slots[kind][slot].object)

/* A slot of that kind whose owner is this one, if there is any; else any. */
size_t api_pick_of(struct api *a, enum api_kind kind, size_t owner);

/* Memory of just that size until the end of the operation, zeros. */
void *api_memory(struct api *a, size_t n, size_t size);

/* Draws from the input. */
size_t api_below(struct api *a, size_t n);
int api_seldom(struct api *a);                              /* one time in 16 */
double api_number(struct api *a);                           /* seldom one that is out of every range */
uint64_t api_id(struct api *a);                             /* the host's, of a user or an item */
uint32_t *api_ids(struct api *a, size_t n, uint32_t below); /* mostly different ones; NULL seldom, and if n is 0 */
float *api_floats(struct api *a, size_t n);                 /* likewise; of 1 to 5 mostly */
size_t api_size(struct api *a, size_t n);                   /* of options of n bytes: seldom what is none */

/* One of the numbers of a list; the first half of the time. */
#define API_ONE_OF(a, type, ...) \
  (((type const[]){__VA_ARGS__})[api_choice(a, sizeof((type const[]){__VA_ARGS__}) / sizeof(type))])
size_t api_choice(struct api *a, size_t n);

/* A profile of a user or values of an item, as many as the schema's owner has fields; NULL seldom. */
struct melu_value *api_values(struct api *a, const melu_schema *schema, melu_owner owner);

/* Options, of small sizes and wrong. */
struct melu_model_options api_model_options(struct api *a);
struct melu_optimizer_options api_optimizer_options(struct api *a);
struct melu_fit_options api_fit_options(struct api *a);

/* The operations. */
typedef void (*api_op)(struct api *a);
enum { API_DATA_OPS = 12, API_TRAIN_OPS = 13, API_SERVE_OPS = 14, API_JUDGE_OPS = 6 };
extern const api_op api_data_ops[API_DATA_OPS], api_train_ops[API_TRAIN_OPS], api_serve_ops[API_SERVE_OPS],
    api_judge_ops[API_JUDGE_OPS];

/* A frozen data set of a few users and items, of a kind that the input chooses, and a batch; without faults. */
void api_world(struct api *a, size_t slot);

/* A small model of it, of a kind that the input chooses, and all that is made for one; without faults. */
void api_small_model(struct api *a, size_t slot, size_t data);

#endif
