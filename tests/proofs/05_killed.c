/* SPDX-License-Identifier: BSD-3-Clause */
/* Proof 5: a training that is killed with SIGKILL at any moment, as often as one likes, and resumed each time from what
 * it left, ends with the bits of one that nobody killed. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <signal.h>
#include <dirent.h>

#include "training.h"

enum { KILLS_SMALL = 100, KILLS_FULL = 1000, ENDED = 0 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void sleep_for(double seconds) {
  struct timespec t = {.tv_sec = (time_t)seconds, .tv_nsec = (long)(1e9 * (seconds - (double)(time_t)seconds))};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) continue;
}

/* The child: its exit status says whether the training came to its end, and `out` what it came to. */
_Noreturn static void train(const struct training *t, int out) {
  unsigned char digest[MELU_DIGEST_BYTES];
  melu_error err;
  const melu_status status = training_run(digest, t, &err);
  if (status) fprintf(stderr, "%s\n", err.message);
  _exit(status || write(out, digest, sizeof digest) != (ssize_t)sizeof digest);
}

/* Lets a training run for so long, then kills it. 1 if it had come to its end before; the digest is then in the pipe.
 */
static int run_for(const struct training *t, int out, double seconds) {
  int status;
  const pid_t child = fork();
  PROOF_NEEDS(child >= 0, "no process: %s", strerror(errno));
  if (child == 0) train(t, out);
  sleep_for(seconds);
  kill(child, SIGKILL);
  PROOF_NEEDS(waitpid(child, &status, 0) == child, "a child was lost");
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return 0;
  PROOF_NEEDS(WIFEXITED(status) && WEXITSTATUS(status) == ENDED, "a resumed training ended with status %d", status);
  return 1;
}

/* Who is killed while saving leaves a temporary file. Removes them, and says how many there were. */
static size_t remove_temporary(const struct scene *s) {
  size_t n = 0;
  DIR *folder = opendir(s->folder);
  PROOF_NEEDS(folder, "cannot look into %s", s->folder);
  for (const struct dirent *entry; (entry = readdir(folder));)
    if (strstr(entry->d_name, ".tmp-")) n += unlink(scene_path(s, entry->d_name)) == 0;
  closedir(folder);
  return n;
}

struct count {
  size_t n_kills, n_trainings, n_while_saving;
};

/* Kills one training until it comes to its end all the same. */
static void kill_often(struct count *count, const struct training *t, double whole, const unsigned char *undisturbed) {
  unsigned char digest[MELU_DIGEST_BYTES];
  int ends[2];
  PROOF_NEEDS(pipe(ends) == 0, "no pipe");
  unlink(t->checkpoint);
  struct training now_on = *t;
  for (size_t i = 0;; i++) {
    now_on.n_threads = 1 + i % 3;
    if (run_for(&now_on, ends[1], whole * 0.4 * rand() / RAND_MAX)) break;
    count->n_kills++;
  }
  PROOF_NEEDS(read(ends[0], digest, sizeof digest) == (ssize_t)sizeof digest, "a training did not say what it came to");
  PROOF_NEEDS(memcmp(digest, undisturbed, sizeof digest) == 0, "after %zu kills: other bits", count->n_kills);
  count->n_trainings++;
  count->n_while_saving += remove_temporary(t->scene);
  close(ends[0]);
  close(ends[1]);
}

static void kill_network(struct count *count, int setting, size_t n_kills) {
  unsigned char undisturbed[MELU_DIGEST_BYTES], saved[MELU_DIGEST_BYTES];
  char start[128], checkpoint[128];
  struct scene s;
  melu_error err;
  scene_open(&s, setting, NULL);
  snprintf(start, sizeof start, "%s", scene_path(&s, "start"));
  snprintf(checkpoint, sizeof checkpoint, "%s", scene_path(&s, "training"));
  PROOF_TRY(melu_model_save(s.model, start, &err));
  struct training t = {.scene = &s, .start = start, .n_threads = 1};
  PROOF_TRY(training_run(undisturbed, &t, &err));
  t.checkpoint = checkpoint;
  t.every = 3;
  const double begin = now();
  PROOF_TRY(training_run(saved, &t, &err));
  const double whole = now() - begin;
  PROOF_NEEDS(memcmp(saved, undisturbed, sizeof saved) == 0, "to save is not to leave alone");
  while (count->n_kills < n_kills) kill_often(count, &t, whole, undisturbed);
  unlink(start);
  unlink(checkpoint);
  scene_close(&s);
}

int main(int argc, char **argv) {
  const int full = proof_begin(5, argc, argv);
  const size_t n_kills = full ? KILLS_FULL : KILLS_SMALL;
  struct count count = {0};
  srand(1);
  kill_network(&count, SCENE_LAYERS, n_kills / 2);
  kill_network(&count, SCENE_FACTORS, n_kills);
  proof_held(
      "killed %zu times, %zu of them while a file was being written; %zu trainings came to their end, all bit-equal",
      count.n_kills, count.n_while_saving, count.n_trainings);
}
