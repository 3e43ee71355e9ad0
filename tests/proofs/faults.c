/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE /* on_exit, memfd_create */
#include "faults.h"

#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault_call.h"
#include "fault_files.h"
#include "proof.h"

enum level { OFF, HOST, SYSTEM };
enum mode { ONCE, FROM_THERE_ON, MODES };
static const char *const mode_names[MODES] = {"once", "from there on"};

static enum level level;
static uint64_t every, of_ways; /* 0: none, and all */
static int takes_turns, may_fail;
static struct faults_report *report;
static struct proof_bytes expected; /* what the program prints; NULL: nobody looks */

static struct fault_call call; /* the public call that is running */
static int inside;             /* there is one */
static int busy;               /* in here: what is asked for is not refused */
static long long n_live;       /* blocks of the host's that are not given back */

/* Of the one of two processes that goes without. */
static struct {
  int is_one, refusing, may_differ;
  enum mode mode;
  melu_status reason; /* for which the call failed, if it was not want of memory */
  size_t printed;     /* before */
  char victim[200];
} child;
static int child_output, child_errors; /* the files that it has for them */

/* ------------------------------------------------------------------------------------------------- verdicts */

static _Noreturn void broken(const char *format, ...) __attribute__((format(printf, 1, 2)));

static _Noreturn void broken(const char *format, ...) {
  char reason[FAULTS_WHY - 300];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(reason, sizeof reason, format, arguments);
  va_end(arguments);
  if (!*report->why) snprintf(report->why, FAULTS_WHY, "%s: %s", child.victim, reason);
  _exit(1);
}

static struct proof_bytes all_of(int descriptor) {
  char path[40];
  snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
  return proof_read_file(path);
}

/* The end of a program that went without. */
static void at_end(int status, void *arg) {
  (void)arg;
  busy = 1;
  if (!child.is_one || status) return; /* the parent judges by the status */
  if (n_live) broken("%lld blocks are left at the end", n_live);
  if (!expected.at || child.may_differ) return;
  fflush(stdout);
  const struct proof_bytes printed = all_of(child_output);
  if (child.printed + printed.n != expected.n || memcmp(printed.at, expected.at + child.printed, printed.n))
    broken("the program prints something else: %.*s", 400, (const char *)printed.at);
}

int faults_is_child(void) {
  return child.is_one;
}

void faults_pause(int pause) {
  busy = pause;
}

int faults_may_differ(void) {
  return child.may_differ;
}

/* ------------------------------------------------------------------------------------------------- refusing */

/* Whether nobody came this way before: by the frames of the stack. */
static int is_new_path(void) {
  void *frames[48];
  const int n = backtrace(frames, 48);
  uint64_t hash = proof_digest(0, frames, (size_t)n * sizeof *frames) | 1;
  for (size_t at = hash % FAULTS_PATHS;; at = (at + 1) % FAULTS_PATHS) {
    if (report->paths[at] == hash) return 0;
    if (report->paths[at]) continue;
    if (report->n_paths == FAULTS_PATHS / 2) broken("there are too many ways");
    report->paths[at] = hash;
    report->n_paths++;
    return 1;
  }
}

/* One of Check's tests tells its runner how it fares through a file, which the child must not write to. */
static void leave_runner(void) {
  for (int descriptor = 3; descriptor < 64; descriptor++) {
    char link[40], path[200];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    const ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) continue;
    path[n] = '\0';
    const int nowhere = strstr(path, "/check_") ? open("/dev/null", O_RDWR) : -1;
    if (nowhere < 0) continue;
    dup2(nowhere, descriptor);
    close(nowhere);
  }
}

static void become_child(enum mode mode) {
  child.is_one = child.refusing = 1;
  child.mode = mode;
  if (ftruncate(child_output, 0) || ftruncate(child_errors, 0)) broken("cannot empty a file");
  lseek(child_output, 0, SEEK_SET);
  lseek(child_errors, 0, SEEK_SET);
  dup2(child_output, STDOUT_FILENO);
  dup2(child_errors, STDERR_FILENO);
  leave_runner();
  fault_files_forget();
}

static void judge(pid_t pid, uint64_t n_cut) {
  int status;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) broken("the child was lost");
  if (*report->why) _exit(1);
  const int failed = WIFEXITED(status) && WEXITSTATUS(status) && report->n_cut == n_cut && !may_fail;
  if (!failed && !WIFSIGNALED(status)) return;
  const struct proof_bytes errors = all_of(child_errors), output = all_of(child_output);
  const int n = output.n < 400 ? (int)output.n : 400, n_errors = errors.n < 400 ? (int)errors.n : 400;
  const char *last = (const char *)output.at + output.n - (size_t)n;
  if (failed)
    broken("the program ends with %d: %.*s %.*s", WEXITSTATUS(status), n, last, n_errors, (const char *)errors.at);
  broken("the program ends by signal %d: %.*s %.*s", WTERMSIG(status), n, last, n_errors, (const char *)errors.at);
}

/* Lets children live without this request. 1 in them. */
static int refuse_in_child(void) {
  fflush(NULL); /* nobody prints twice */
  const off_t printed = lseek(STDOUT_FILENO, 0, SEEK_CUR);
  child.printed = printed > 0 ? (size_t)printed : 0;
  const int first = takes_turns && report->n_refused % 2 ? FROM_THERE_ON : ONCE;
  for (int mode = first; mode < (takes_turns ? first + 1 : MODES); mode++) {
    snprintf(child.victim, sizeof child.victim, "request %llu, in %s, refused %s",
             (unsigned long long)report->n_requests, call.name, mode_names[mode]);
    fault_files_keep();
    const uint64_t n_cut = report->n_cut;
    const pid_t pid = fork();
    if (pid < 0) broken("no second process");
    if (pid == 0) {
      become_child((enum mode)mode);
      return 1;
    }
    judge(pid, n_cut);
    fault_files_restore();
    report->n_refused++;
  }
  return 0;
}

static int is_main_thread(void) {
  return gettid() == getpid();
}

static int is_refused(void) {
  if (busy || !inside || !is_main_thread()) return 0;
  if (child.is_one) return child.refusing && child.mode == FROM_THERE_ON;
  busy = 1;
  if (call.never_asks) {
    snprintf(child.victim, sizeof child.victim, "request %llu", (unsigned long long)report->n_requests + 1);
    broken("%s asks for memory", call.name);
  }
  const int is_new = is_new_path() && (!of_ways || report->n_paths % of_ways == 0),
            is_due = every && report->n_requests % every == 0;
  report->n_requests++;
  const int refused = (is_new || is_due) && refuse_in_child();
  busy = 0;
  return refused;
}

/* -------------------------------------------------------------------------------------------- public calls */

int faults_enter(const char *name) {
  if (!level || busy || inside || !is_main_thread()) return 0;
  inside = 1;
  fault_call_begin(&call, name);
  return 1;
}

void faults_new(void *object) {
  call.object = object;
}

void faults_never(void) {
  call.never_asks = 1;
}

void faults_resumes(void) {
  call.resumes = 1;
}

void faults_written(void *at, size_t n, size_t size) {
  busy = 1;
  if (n <= 4096) fault_call_written(&call, at, n * size); /* more is a test of what is refused */
  busy = 0;
}

void faults_changed(enum faults_kind kind, const void *object) {
  busy = 1;
  if (object) fault_call_changed(&call, kind, object);
  busy = 0;
}

void faults_served(melu_workspace *ws, const melu_model *model, const melu_user *user, const melu_dataset *data) {
  const struct fault_served served = {.ws = ws, .model = model, .user = user, .data = data};
  busy = 1;
  if (ws && model && user && data) fault_call_served(&call, &served);
  busy = 0;
}

/* Whether a call may fail so for want of memory: the system's functions tell it in their own way. */
static int is_honest(melu_status status, const melu_error *err) {
  if (err && (err->status != status || !*err->message)) return 0;
  if (status == MELU_ENOMEM) return 1;
  if (level == HOST || !err) return 0;
  return (status == MELU_EIO || status == MELU_ESYSTEM) && (err->sys_errno == ENOMEM || err->sys_errno == EAGAIN);
}

int faults_again(melu_status status, const melu_error *err) {
  if (!child.refusing) {
    /* A call that had another reason to fail has it again. */
    if (child.reason && child.reason != status) broken("%s, and then not", melu_status_name(child.reason));
    child.reason = MELU_OK;
    fault_call_end(&call);
    inside = 0;
    return 0;
  }
  child.refusing = 0;
  busy = 1;
  if (status == MELU_OK) {
    report->n_endured++;
    fault_call_end(&call);
    inside = busy = 0;
    return 0;
  }
  if (!is_honest(status, err)) child.reason = status;
  const char *harm = fault_call_harm(&call, &child.may_differ);
  if (harm) broken("%s", harm);
  report->n_cut += (uint64_t)child.may_differ;
  busy = 0;
  return 1;
}

/* -------------------------------------------------------------------------------------------------- contexts */

/* Stands between a context and what the program gave it. */
struct host {
  struct melu_allocator allocator;
  melu_progress_fn progress;
  void *progress_arg;
};

static void *host_alloc(void *arg, size_t n_bytes) {
  const struct melu_allocator *a = &((struct host *)arg)->allocator;
  if (is_refused()) return NULL;
  void *memory = a->alloc ? a->alloc(a->arg, n_bytes) : malloc(n_bytes);
  n_live += memory != NULL;
  return memory;
}

static void host_free(void *arg, void *memory) {
  const struct melu_allocator *a = &((struct host *)arg)->allocator;
  n_live--;
  if (a->free)
    a->free(a->arg, memory);
  else
    free(memory);
}

/* Hears of the updates of trainings before the program does. */
static int on_progress(void *arg, const struct melu_progress *progress) {
  const struct host *host = arg;
  if (inside && strncmp(call.name, "melu_fit", 8) == 0 && strcmp(progress->phase, "fit") == 0) {
    busy = 1;
    fault_call_update(&call);
    busy = 0;
  }
  return host->progress ? host->progress(host->progress_arg, progress) : 0;
}

melu_status __real_melu_context_new(melu_context **out, const struct melu_context_options *options, melu_error *err);
melu_status __wrap_melu_context_new(melu_context **out, const struct melu_context_options *options, melu_error *err);
melu_status __wrap_melu_context_new(melu_context **out, const struct melu_context_options *options, melu_error *err) {
  static struct host hosts[4096];
  static size_t n_hosts;
  struct melu_context_options o = {.size = sizeof o};
  if (options && options->size == sizeof o) o = *options;
  const int is_strange = (options && options->size != sizeof o) || o.runner || o.n_threads > 16 ||
                         (o.allocator && !(o.allocator->alloc && o.allocator->free));
  if (is_strange || n_hosts == sizeof hosts / sizeof *hosts || !faults_enter("melu_context_new"))
    return __real_melu_context_new(out, options, err);
  struct host *host = &hosts[n_hosts++];
  const struct melu_allocator allocator = {host, host_alloc, host_free};
  host->progress = o.progress;
  host->progress_arg = o.progress_arg;
  if (o.allocator) host->allocator = *o.allocator;
  o.progress = on_progress;
  o.progress_arg = host;
  o.n_threads = 1;
  if (level == HOST) o.allocator = &allocator;
  melu_status status;
  faults_new(out);
  do status = __real_melu_context_new(out, &o, err);
  while (faults_again(status, err));
  return status;
}

/* ---------------------------------------------------------------------------------------------------- setting up */

static struct faults_report *map_report(const char *path) {
  const int file = path ? open(path, O_RDWR) : -1;
  PROOF_NEEDS(file >= 0, "MELU_FAULTS_REPORT is no file");
  void *memory = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  PROOF_NEEDS(memory != MAP_FAILED, "cannot share %s", path);
  close(file);
  return memory;
}

static uint64_t number_of(const char *name) {
  const char *text = getenv(name);
  return text ? strtoull(text, NULL, 10) : 0;
}

__attribute__((constructor)) static void set_up(void) {
  const char *what = getenv("MELU_FAULTS"), *path = getenv("MELU_FAULTS_EXPECTED");
  void *frame;
  if (!what) return;
  report = map_report(getenv("MELU_FAULTS_REPORT"));
  if (path) expected = proof_read_file(path);
  every = number_of("MELU_FAULTS_EVERY");
  of_ways = number_of("MELU_FAULTS_WAYS");
  may_fail = number_of("MELU_FAULTS_MAY_FAIL") != 0;
  takes_turns = number_of("MELU_FAULTS_TURNS") != 0;
  child_output = memfd_create("output", MFD_CLOEXEC);
  child_errors = memfd_create("errors", MFD_CLOEXEC);
  PROOF_NEEDS(child_output >= 0 && child_errors >= 0, "no file in memory");
  backtrace(&frame, 1); /* the first one asks for memory */
  on_exit(at_end, NULL);
  level = strcmp(what, "host") == 0 ? HOST : SYSTEM;
  if (level == SYSTEM) proof_heap.refuses = is_refused;
}
