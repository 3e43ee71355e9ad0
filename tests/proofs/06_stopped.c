/* SPDX-License-Identifier: BSD-3-Clause */
/* Proof 6: a training that is stopped after any of its 200 updates, and resumed by somebody else, with another number
 * of threads, ends with the bits of one that nobody stopped. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "training.h"

enum { INTERVALS = 3 };

static void save_start(const struct scene *s, const char *path) {
  melu_error err;
  PROOF_TRY(melu_model_save(s->model, path, &err));
}

/* How many of the 200 were the same; all, or the proof is broken. */
static size_t stop_everywhere(const struct training *whole, const char *checkpoint, const char *network) {
  static const size_t intervals[INTERVALS] = {1000, 50, 16}; /* the first: only when it is stopped */
  unsigned char undisturbed[MELU_DIGEST_BYTES], stopped[MELU_DIGEST_BYTES], resumed[MELU_DIGEST_BYTES];
  melu_error err;
  size_t n_same = 0, n_other = 0;
  PROOF_TRY(training_run(undisturbed, whole, &err));
  for (size_t stop = 1; stop <= TRAINING_UPDATES; stop++) {
    struct training t = *whole;
    t.checkpoint = checkpoint;
    t.every = intervals[stop % INTERVALS];
    t.n_threads = 1 + stop % 4;
    t.stop_at = stop;
    unlink(checkpoint);
    PROOF_NEEDS(training_run(stopped, &t, &err) == MELU_ECANCELED, "%s, stopped after %zu: %s", network, stop,
                err.message);
    n_other += memcmp(stopped, undisturbed, sizeof stopped) != 0;
    t.n_threads = 1 + stop % 3;
    t.stop_at = 0;
    PROOF_TRY(training_run(resumed, &t, &err));
    PROOF_NEEDS(memcmp(resumed, undisturbed, sizeof resumed) == 0, "%s, stopped after %zu: other bits", network, stop);
    n_same++;
  }
  PROOF_NEEDS(n_other >= TRAINING_UPDATES - 1, "%s: a training that was stopped has the weights of a whole one",
              network);
  return n_same;
}

int main(int argc, char **argv) {
  char start[128], checkpoint[128];
  size_t n_same = 0;
  proof_begin(6, argc, argv);
  for (int setting = SCENE_LAYERS; setting <= SCENE_FACTORS; setting++) {
    struct scene s;
    scene_open(&s, setting, NULL);
    snprintf(start, sizeof start, "%s", scene_path(&s, "start"));
    snprintf(checkpoint, sizeof checkpoint, "%s", scene_path(&s, "training"));
    save_start(&s, start);
    const struct training whole = {.scene = &s, .start = start, .n_threads = 1};
    n_same += stop_everywhere(&whole, checkpoint, scene_setting_names[setting]);
    unlink(start);
    unlink(checkpoint);
    scene_close(&s);
  }
  proof_held("two networks, stopped after each of %d updates and resumed: %zu of %d bit-equal", TRAINING_UPDATES,
             n_same, 2 * TRAINING_UPDATES);
}
