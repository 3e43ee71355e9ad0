/* SPDX-License-Identifier: BSD-3-Clause
 *
 * melu-service - recommend over HTTP to people who were not there when the model was trained.
 *
 * Ratings go into an SQLite database. Who asks is adapted to hers at that moment, so there is nothing to retrain and
 * nothing to keep up to date. docs/service.md tells what can be asked.
 *
 *     world        the items, and the people to learn from: 25 statements, or films
 *     models       the model that answers, and how another one takes its place
 *     store        users, items and ratings; database: one connection to it
 *     answers      what is answered; predictions: of it what the model says; reply: with what it is written
 *     http         requests; guard: how long and how many; metrics: what is counted
 */
#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../common/args.h"
#include "answers.h"
#include "guard.h"
#include "http.h"

enum { MOST_PATH = 4096, LEAST_TOKEN = 16, MOST_TOKEN = 512 };
enum { RATE_OF_STRANGERS = 50 };

struct choices {
  const char *data, *store, *model, *bfi, *movielens, *address, *token_file;
  uint64_t port, n_threads, connections, seconds, rate;
};

static void read_choices(struct choices *c, int argc, char **argv) {
  *c = (struct choices){.data = ".",
                        .bfi = EXAMPLE_DATA_DIR,
                        .address = "127.0.0.1",
                        .port = 8080,
                        .n_threads = 2,
                        .connections = 256,
                        .seconds = 10};
  const struct option options[] = {
      {"--data", "DIR", "where the store and the model are", NULL, 0, 0, &c->data},
      {"--store", "FILE", "the SQLite database; made if it is not there; DIR/store.db", NULL, 0, 0, &c->store},
      {"--model", "FILE", "trained if it is not there; DIR/model.safetensors", NULL, 0, 0, &c->model},
      {"--bfi", "DIR", "25 statements about oneself", NULL, 0, 0, &c->bfi},
      {"--movielens", "DIR", "films instead, in the form of the MeLU reference code", NULL, 0, 0, &c->movielens},
      {"--bind", "ADDRESS", "the number of an address of this machine", NULL, 0, 0, &c->address},
      {"--port", "N", "0: any that is free", &c->port, 0, UINT16_MAX, NULL},
      {"--token-file", "FILE", "who changes anything has to send what is in it", NULL, 0, 0, &c->token_file},
      {"--threads", "N", "predictions that are computed at once", &c->n_threads, 1, 256, NULL},
      {"--connections", "N", "that are open at once", &c->connections, 1, 10000, NULL},
      {"--seconds", "N", "that a request may take to arrive, and again to be answered", &c->seconds, 1, 3600, NULL},
      {"--rate", "N", "requests a second from an address; 0: any on loopback, else 50", &c->rate, 0, 1000000, NULL},
  };
  const struct usage usage = {.program = "melu-service",
                              .about = "Recommends over HTTP to people who were not there when the model was trained.",
                              .options = options,
                              .n_options = sizeof options / sizeof options[0]};
  read_args(&usage, NULL, argc, argv);
}

/* DIR/NAME, unless there is another choice. */
static const char *path_of(char path[MOST_PATH], const char *choice, const char *dir, const char *name) {
  if (choice) return choice;
  if (snprintf(path, MOST_PATH, "%s/%s", dir, name) >= MOST_PATH) give_up("%s: the name is too long", dir);
  return path;
}

/* The first line of the file. */
static const char *read_token(char token[MOST_TOKEN], const char *path) {
  if (!path) return NULL;
  FILE *file = fopen(path, "r");
  if (!file) give_up("%s: %s", path, strerror(errno));
  if (!fgets(token, MOST_TOKEN, file)) token[0] = '\0';
  fclose(file);
  token[strcspn(token, "\r\n")] = '\0';
  if (strlen(token) < LEAST_TOKEN) give_up("%s: a token has at least %d letters", path, LEAST_TOKEN);
  return token;
}

static int is_loopback(const char *address) {
  return strncmp(address, "127.", 4) == 0 || strcmp(address, "::1") == 0;
}

/* Serves until it is told to end. Signals are waited for here, which is why all threads have them blocked. */
static void serve(struct service *service, struct http *http, const sigset_t *signals) {
  const struct timespec second = {.tv_sec = 1};
  char digest[DIGEST_TEXT];
  struct problem problem;
  for (;;) {
    const int signal = sigtimedwait(signals, NULL, &second);
    if (signal == SIGTERM || signal == SIGINT) return;
    if (signal == SIGHUP) service_reload(service, digest, &problem);
    http_sweep(http);
  }
}

static sigset_t block_signals(void) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals, NULL);
  signal(SIGPIPE, SIG_IGN); /* a client that goes is no reason to end */
  return signals;
}

static void start(struct service *service, const struct choices *c, struct world *world, const melu_context *ctx) {
  static char store_path[MOST_PATH], model_path[MOST_PATH];
  struct problem problem;
  if (c->movielens) {
    world_read_movielens(world, ctx, c->movielens);
  } else {
    world_read_bfi(world, ctx, c->bfi);
  }
  const char *model = path_of(model_path, c->model, c->data, "model.safetensors");
  const char *store = path_of(store_path, c->store, c->data, "store.db");
  *service = (struct service){.world = world, .started = guard_now()};
  service->models = models_open(world, ctx, model, c->n_threads, &problem);
  if (!service->models) give_up("%s", problem.message);
  service->store = store_open(store, world, c->n_threads, &problem);
  if (!service->store) give_up("%s", problem.message);
  if (store_check(service->store, &problem)) fprintf(stderr, "%s: %s\n", store, problem.message);
}

int main(int argc, char **argv) {
  static char token[MOST_TOKEN];
  static struct service service;
  struct choices c;
  melu_context *ctx;
  melu_error err;
  struct world world;
  struct problem problem;
  read_choices(&c, argc, argv);
  struct http_options options = {.address = c.address,
                                 .port = (uint16_t)c.port,
                                 .connections = (unsigned)c.connections,
                                 .step_seconds = c.seconds,
                                 .rate = c.rate,
                                 .token = read_token(token, c.token_file)};
  if (options.rate == 0 && !is_loopback(c.address)) options.rate = RATE_OF_STRANGERS;
  json_object_seed(0); /* before there are threads */
  const struct melu_context_options threads = {
      .size = sizeof threads, .n_threads = c.n_threads, .progress = show_progress};
  must(melu_context_new(&ctx, &threads, &err), &err);
  const sigset_t signals = block_signals();
  start(&service, &c, &world, ctx);
  struct http *http = http_start(&service, &options, &problem);
  if (!http) give_up("%s", problem.message);
  const int is_ipv6 = strchr(c.address, ':') != NULL;
  printf("http://%s%s%s:%u/\n", is_ipv6 ? "[" : "", c.address, is_ipv6 ? "]" : "", (unsigned)http_port(http));
  fflush(stdout);

  serve(&service, http, &signals);
  http_stop(http);
  store_close(service.store);
  models_close(service.models);
  world_free(&world);
  melu_context_free(ctx);
  return 0;
}
