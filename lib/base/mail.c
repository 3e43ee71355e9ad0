/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/mail.h"

#include <string.h>

/* At the beginning of every message. */
struct head {
  uint32_t has_failed, has_more, tells, unused;
};

int melu__mail_init(struct melu__mail *m, struct melu__ranks *ranks, const struct melu_allocator *a, size_t room) {
  const size_t n = ranks->collective->n_ranks, whole = melu__size_add(room, sizeof(struct head));
  *m = (struct melu__mail){.ranks = ranks, .a = a, .room = room};
  m->memory = melu__alloc(a, melu__size_mul(n, 2), whole);
  m->out = melu__alloc(a, n, sizeof *m->out);
  m->in = melu__alloc(a, n, sizeof *m->in);
  if (!m->memory || !m->out || !m->in) return 0;
  for (size_t r = 0; r < n; r++) {
    m->out[r].bytes = m->memory + 2 * r * whole;
    m->in[r].bytes = m->memory + (2 * r + 1) * whole;
  }
  return 1;
}

void melu__mail_free(struct melu__mail *m) {
  if (!m->a) return;
  melu__free(m->a, m->memory);
  melu__free(m->a, m->out);
  melu__free(m->a, m->in);
}

void melu__mail_fail(struct melu__mail *m, melu_status status, const melu_error *err) {
  if (m->failure.status) return;
  m->failure = *err;
  m->failure.status = status;
}

melu_status melu__mail_agree(struct melu__mail *m, melu_error *err) {
  *err = m->failure;
  return melu__ranks_agree(m->ranks, m->failure.status, err);
}

static void pack_round(struct melu__mail *m, const struct melu__letters *l) {
  const size_t n_ranks = m->ranks->collective->n_ranks;
  int more = 0;
  for (size_t r = 0; r < n_ranks; r++) {
    char *bytes = (char *)m->out[r].bytes + sizeof(struct head);
    m->out[r].n = sizeof(struct head);
    if (!m->failure.status) m->out[r].n += l->pack(l->arg, r, bytes, m->room, &more);
  }
  const struct head head = {m->failure.status != MELU_OK, (uint32_t)more, (uint32_t)m->tells, 0};
  for (size_t r = 0; r < n_ranks; r++) {
    memcpy(m->out[r].bytes, &head, sizeof head);
    m->in[r].n = m->room + sizeof head;
  }
}

/* Reads all heads, and unless somebody has failed, the rest. */
static struct head unpack_round(struct melu__mail *m, const struct melu__letters *l) {
  const size_t n_ranks = m->ranks->collective->n_ranks;
  struct head all = {0, 0, 0, 0};
  m->in[m->ranks->collective->rank] = m->out[m->ranks->collective->rank];
  for (size_t r = 0; r < n_ranks; r++) {
    struct head head;
    memcpy(&head, m->in[r].bytes, sizeof head);
    all.has_failed |= head.has_failed;
    all.has_more |= head.has_more;
    all.tells |= head.tells;
  }
  for (size_t r = 0; r < n_ranks && !all.has_failed; r++)
    l->unpack(l->arg, r, (const char *)m->in[r].bytes + sizeof all, m->in[r].n - sizeof all);
  return all;
}

melu_status melu__mail_exchange(struct melu__mail *m, const struct melu__letters *l, melu_error *err) {
  void (*meanwhile)(void *arg) = l->meanwhile;
  struct head heard;
  do {
    pack_round(m, l);
    melu_status status = melu__ranks_send(m->ranks, m->out, m->in, err);
    if (status) return status;
    if (meanwhile) meanwhile(l->arg);
    meanwhile = NULL;
    status = melu__ranks_receive(m->ranks, err);
    if (status) return status;
    heard = unpack_round(m, l);
    m->hears = (int)heard.tells;
  } while (heard.has_more && !heard.has_failed);
  return heard.has_failed ? melu__mail_agree(m, err) : MELU_OK;
}
