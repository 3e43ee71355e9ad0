/* SPDX-License-Identifier: BSD-3-Clause */
/* The planner's first pass: a shorter recording of the same values. */
#ifndef MELU__SIMPLIFY_H
#define MELU__SIMPLIFY_H

#include "tape/tape.h"

/* Records into `to`, a fresh tape, what the nodes `keep` of `from` need, equal nodes once, constants folded, detached
 * nodes as themselves. keep[i] is changed to the number in `to`. `transposed`: by input slot, the slot that holds its
 * transpose, or 0; may be NULL. The result is in to->status. */
void melu__simplify(struct melu__tape *to, const struct melu__tape *from, const uint32_t *transposed, melu__ref *keep,
                    size_t n_keep);

/* live[i] := whether the nodes `keep` need node i, themselves included. */
void melu__mark_live(const struct melu__tape *t, const melu__ref *keep, size_t n_keep, unsigned char *live);

#endif
