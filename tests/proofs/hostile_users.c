/* SPDX-License-Identifier: BSD-3-Clause */
/* Proof 8: users written down by somebody who sets checksums right. */
#include "hostile.h"

#include <stdlib.h>
#include <string.h>

#include "../user_layout.h"
#include "repair.h"

/* Where things are in the bytes of the scene's user, behind the header. */
enum {
  AT_JOB = AT_COUNTS + 12,
  AT_LIKES = AT_JOB + 4,
  AT_AGE = AT_LIKES + 12,
  AT_ITEMS = AT_AGE + 4,
  AT_RATED = AT_ITEMS + 8 * SCENE_RATED
};

/* Four bytes at one place, or at two. */
static const struct user_change {
  size_t at;
  uint32_t bits;
  size_t also_at;
  uint32_t also;
  melu_status status;
  const char *says, *what;
} user_changes[] = {
    {0, 0x554c454e, 0, 0x554c454e, MELU_EFORMAT, "no adapted user", "another beginning"},
    {AT_VERSION, 0, AT_VERSION, 0, MELU_EVERSION, "format 0", "version 0"},
    {AT_VERSION, UINT32_MAX, AT_VERSION, UINT32_MAX, MELU_EVERSION, "format 4294967295", "version 4294967295"},
    {AT_FORM, 2, AT_FORM, 2, MELU_EFORMAT, "not as many as they say", "form 2"},
    {AT_FORM, 0x80000000, AT_FORM, 0x80000000, MELU_EFORMAT, "not as many as they say", "form 2^31"},
    {AT_DIGEST, 0, AT_DIGEST + 12, 0, MELU_ESCHEMA, "another model", "another model"},
    {AT_RATINGS, UINT32_MAX, AT_RATINGS, UINT32_MAX, MELU_EFORMAT, "not as many as they say", "2^32 - 1 ratings"},
    {AT_RATINGS, 89478485, AT_RATINGS, 89478485, MELU_EFORMAT, "not as many as they say", "1 GiB of ratings"},
    {AT_FIELDS, UINT32_MAX, AT_FIELDS, UINT32_MAX, MELU_EFORMAT, "not as many as they say", "2^32 - 1 fields"},
    {AT_FIELDS, UINT32_MAX, AT_CELLS, 9, MELU_EFORMAT, "not as many as they say",
     "fields and cells that in 32 bits are as many"},
    {AT_FIELDS, 2, AT_CELLS, 6, MELU_EFORMAT, "2 fields", "a field too few"},
    {AT_FIELDS, 8, AT_CELLS, 0, MELU_EFORMAT, "8 fields", "fields instead of cells"},
    {AT_FIELDS, 0, AT_CELLS, 8, MELU_EFORMAT, "0 fields", "cells instead of fields"},
    {AT_CELLS, UINT32_MAX, AT_CELLS, UINT32_MAX, MELU_EFORMAT, "not as many as they say", "2^32 - 1 cells"},
    {AT_NUMBERS, UINT32_MAX, AT_NUMBERS, UINT32_MAX, MELU_EFORMAT, "not as many as they say", "2^32 - 1 numbers"},
    {AT_NUMBERS, 0x40000000, AT_NUMBERS, 0x40000000, MELU_EFORMAT, "not as many as they say", "4 GiB of numbers"},
    {AT_RATINGS, SCENE_RATED - 1, AT_CELLS, 8, MELU_EFORMAT, "5 cells, not 8", "a rating that is cells"},
    {AT_COUNTS, 2, AT_COUNTS + 4, 2, MELU_EFORMAT, "\"job\"", "two jobs"},
    {AT_COUNTS + 4, 2, AT_COUNTS + 8, 2, MELU_EFORMAT, "\"age\"", "two ages"},
    {AT_COUNTS + 4, 4, AT_COUNTS + 4, 4, MELU_EFORMAT, "6 cells, not 5", "a cell too many"},
    {AT_COUNTS + 4, UINT32_MAX, AT_COUNTS + 4, UINT32_MAX, MELU_EFORMAT, "4294967297 cells", "2^32 - 1 likes"},
    {AT_JOB, 4, AT_JOB, 4, MELU_ERANGE, "\"job\"", "a job beyond the table"},
    {AT_JOB, MELU_UNKNOWN - 1, AT_JOB, MELU_UNKNOWN - 1, MELU_ERANGE, "\"job\"", "a job far beyond the table"},
    {AT_LIKES + 8, 6, AT_LIKES + 8, 6, MELU_ERANGE, "\"likes\"", "a like beyond the table"},
    {AT_AGE, 0x7fc00000, AT_AGE, 0x7fc00000, MELU_ERANGE, "\"age\"", "an age that is none"},
    {AT_AGE, 0xff800000, AT_AGE, 0xff800000, MELU_ERANGE, "\"age\"", "an infinite age"},
    {AT_ITEMS, 1, AT_ITEMS, 1, MELU_ENOTFOUND, "item 1,", "an item that is none"},
    {AT_ITEMS + 4, UINT32_MAX, AT_ITEMS + 40, UINT32_MAX, MELU_ENOTFOUND, "item 18446744069414584",
     "an item of a large number"},
    {AT_RATED, 0x7fc00000, AT_RATED, 0x7fc00000, MELU_ERANGE, "rating 0", "a rating that is none"},
    {AT_RATED + 20, 0x7f800000, AT_RATED + 20, 0x7f800000, MELU_ERANGE, "rating 5", "an infinite rating"},
};

struct reading {
  struct scene *scene;
  melu_user *user;
  struct proof_bytes bytes;
};

static melu_status load_user(void *arg, melu_error *err) {
  const struct reading *r = arg;
  const struct scene *s = r->scene;
  return melu_user_load(r->user, s->ws, s->model, s->data, r->bytes.at, r->bytes.n, err);
}

static void refuse_bytes(struct reading *r, struct proof_bytes b, struct refusal want, const char *what) {
  r->bytes = b;
  repair_user(b);
  hostile_measure(load_user, r, b.n, want, what);
}

/* A header alone, that claims what no memory has. */
static void refuse_claims(struct reading *r, struct proof_bytes sound) {
  static const size_t claims[] = {AT_RATINGS, AT_FIELDS, AT_CELLS, AT_NUMBERS};
  for (size_t i = 0; i < 4; i++) {
    const struct proof_bytes b = proof_copy(sound.at, 100);
    melu__put_bits(b.at + claims[i], i ? 268435456 : 89478485, 4);
    refuse_bytes(r, b, (struct refusal){MELU_EFORMAT, "not as many as they say"}, "1 GiB in 100 bytes");
    free(b.at);
  }
}

/* More ratings than the workspace is for: all of one item. */
static void refuse_many_ratings(struct reading *r, struct proof_bytes compact) {
  enum { MANY = 100000, MORE = 12 * (MANY - SCENE_RATED) };
  const struct proof_bytes b = {calloc(compact.n + MORE, 1), compact.n + MORE};
  PROOF_NEEDS(b.at, "no memory");
  memcpy(b.at, compact.at, AT_ITEMS);
  melu__put_bits(b.at + AT_RATINGS, MANY, 4);
  refuse_bytes(r, b, (struct refusal){MELU_ELIMIT, "100000 ratings"}, "more ratings than the workspace is for");
  free(b.at);
}

static void refuse_numbers(struct reading *r, struct proof_bytes ready) {
  static const uint32_t bits[] = {0x7fc00000, 0x7f800000, 0xff800000};
  const size_t first = ready.n - 8 - 4 * (size_t)melu__get_bits(ready.at + AT_NUMBERS, 4);
  for (size_t i = 0; i < 2 * (sizeof bits / sizeof *bits); i++) {
    const struct proof_bytes b = proof_copy(ready.at, ready.n);
    melu__put_bits(b.at + (i % 2 ? b.n - 12 : first), bits[i / 2], 4);
    refuse_bytes(r, b, (struct refusal){MELU_ERANGE, "an adapted number"}, "an adapted number that is not finite");
    free(b.at);
  }
}

void hostile_users(struct scene *s) {
  melu_error err;
  struct reading r = {.scene = s};
  struct proof_bytes sound[2];
  PROOF_TRY(melu_user_new(&r.user, s->model, &err));
  for (int form = 0; form < 2; form++) {
    sound[form] = scene_user_bytes(s, (melu_user_form)form);
    r.bytes = sound[form];
    PROOF_TRY(load_user(&r, &err)); /* so they are sound; and there is memory for what they hold */
    for (size_t i = 0; i < sizeof user_changes / sizeof *user_changes; i++) {
      const struct user_change *c = &user_changes[i];
      const struct proof_bytes b = proof_copy(sound[form].at, sound[form].n);
      melu__put_bits(b.at + c->at, c->bits, 4);
      melu__put_bits(b.at + c->also_at, c->also, 4);
      refuse_bytes(&r, b, (struct refusal){c->status, c->says}, c->what);
      free(b.at);
    }
    refuse_claims(&r, sound[form]);
  }
  refuse_numbers(&r, sound[MELU_USER_READY]);
  refuse_many_ratings(&r, sound[MELU_USER_COMPACT]);
  for (int form = 0; form < 2; form++) free(sound[form].at);
  melu_user_free(r.user);
}
