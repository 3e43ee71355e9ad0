/* SPDX-License-Identifier: BSD-3-Clause */
#include "http.h"

#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "guard.h"

enum { MOST_BODY = 64 * 1024, MOST_SKIPPED = 1024 * 1024, MOST_HEADERS = 8 * 1024, CONNECTION_MEMORY = 32 * 1024 };
enum { STACK_BYTES = 1024 * 1024, SECONDS_TO_FINISH = 5 };

/* What there is. POST and DELETE change something: they need the token. */
static const struct path {
  const char *name;
  answer_fn *get, *post, *delete;
} paths[] = {
    {.name = "/", .get = answer_page},
    {.name = "/ratings", .get = answer_ratings, .post = answer_rate, .delete = answer_forget},
    {.name = "/recommendations", .get = answer_recommendations},
    {.name = "/ask", .get = answer_ask},
    {.name = "/explain", .get = answer_explain},
    {.name = "/scale", .get = answer_scale},
    {.name = "/healthz", .get = answer_health},
    {.name = "/metrics", .get = answer_metrics},
    {.name = "/reload", .post = answer_reload},
    {.name = "other"}, /* all that is not there, for the metrics */
};
enum { N_PATHS = sizeof paths / sizeof paths[0], OTHER = N_PATHS - 1 };

/* The one page has its script and its style in it, and talks to nobody else. */
static const char *const headers[][2] = {
    {"Content-Security-Policy",
     "default-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
     "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"},
    {"X-Content-Type-Options", "nosniff"},
    {"Referrer-Policy", "no-referrer"},
    {"Cache-Control", "no-store"},
};

struct http {
  struct service *service;
  struct http_options options;
  struct guard *guard;
  struct MHD_Daemon *daemon;
};

/* A request while it is read and answered. */
struct call {
  uint64_t started;
  size_t path;
  unsigned code; /* of the answer; 0: there was none */
  int has_nul;   /* in what was asked for, which C would take for its end */
  int has_headers;
  char *body;
  size_t n_body, n_skipped; /* of a body that is too large, what is not kept */
};

/* ---------------------------------------------------------------------------------------------- answering */

static struct visit *visit_of(struct MHD_Connection *connection) {
  return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static const char *header(struct MHD_Connection *connection, const char *name) {
  return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

/* Sends a reply; frees its text. MHD_NO ends the connection. */
static enum MHD_Result send_reply(struct MHD_Connection *connection, struct call *call, unsigned code,
                                  struct reply *reply, const char *extra_name, const char *extra) {
  struct MHD_Response *response = MHD_create_response_from_buffer(reply->n, reply->text, MHD_RESPMEM_MUST_FREE);
  if (!response) {
    free(reply->text);
    return MHD_NO;
  }
  for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
    MHD_add_response_header(response, headers[i][0], headers[i][1]);
  }
  MHD_add_response_header(response, "Content-Type", reply->type);
  if (extra) MHD_add_response_header(response, extra_name, extra);
  call->code = code;
  const enum MHD_Result result = MHD_queue_response(connection, code, response);
  MHD_destroy_response(response);
  return result;
}

static void allowed_methods(char text[32], const struct path *path) {
  snprintf(text, 32, "%s%s%s%s%s", path->get ? "GET, HEAD" : "", path->get && path->post ? ", " : "",
           path->post ? "POST" : "", path->delete ? ", " : "", path->delete ? "DELETE" : "");
}

static enum MHD_Result send_problem(struct MHD_Connection *connection, struct call *call,
                                    const struct problem *problem) {
  struct reply reply;
  char allowed[32];
  const char *name = NULL, *value = NULL;
  if (problem->http == 405) {
    allowed_methods(allowed, &paths[call->path]);
    name = "Allow", value = allowed;
  } else if (problem->http == 401) {
    name = "WWW-Authenticate", value = "Bearer";
  } else if (problem->http == 429 || problem->http == 503) {
    name = "Retry-After", value = "1";
  }
  if (problem->http == 500) fprintf(stderr, "%s: %s\n", paths[call->path].name, problem->message);
  if (reply_problem(&reply, problem)) return MHD_NO;
  return send_reply(connection, call, problem->http, &reply, name, value);
}

/* ---------------------------------------------------------------------------------------------- checking */

static enum MHD_Result add_size(void *arg, enum MHD_ValueKind kind, const char *name, const char *value) {
  (void)kind;
  *(size_t *)arg += strlen(name) + (value ? strlen(value) : 0) + sizeof ": \r\n";
  return MHD_YES;
}

/* A page of another site can have a browser send us what it likes, but not without saying where from. */
static int is_of_another_site(struct MHD_Connection *connection) {
  const char *origin = header(connection, "Origin"), *host = header(connection, "Host");
  const char *site = origin ? strstr(origin, "://") : NULL;
  return origin && (!site || !host || strcmp(site + 3, host) != 0);
}

static int check_token(struct MHD_Connection *connection, const char *token, struct problem *problem) {
  static const char scheme[] = "Bearer ";
  const char *sent = header(connection, "Authorization");
  if (!token) return 0;
  const int has_scheme = sent && strncasecmp(sent, scheme, sizeof scheme - 1) == 0;
  if (has_scheme && guard_is_token(sent + sizeof scheme - 1, token)) return 0;
  return problem_set(problem, 401, "unauthorized", "changes need the token, as \"Authorization: Bearer TOKEN\"");
}

/* What can be said against a request before its body is there. */
static int check_headers(struct http *http, struct MHD_Connection *connection, const struct call *call,
                         struct problem *problem) {
  const struct sockaddr *address = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;
  const char *length = header(connection, "Content-Length");
  size_t size = 0;
  MHD_get_connection_values(connection, MHD_HEADER_KIND, add_size, &size);
  MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, add_size, &size);
  if (!guard_let_in(http->guard, address)) {
    return problem_set(problem, 429, "too_many", "more requests than %llu a second",
                       (unsigned long long)http->options.rate);
  }
  if (call->has_nul) return problem_set(problem, 400, "bad_parameter", "there is a NUL in what is asked for");
  if (size > MOST_HEADERS) {
    return problem_set(problem, 431, "headers_too_large", "headers take at most %d bytes", MOST_HEADERS);
  }
  if (length && strtoull(length, NULL, 10) > MOST_BODY) {
    return problem_set(problem, 413, "body_too_large", "a body has at most %d bytes", MOST_BODY);
  }
  return 0;
}

/* Who answers; NULL with the problem. */
static answer_fn *find_answer(const struct http *http, struct MHD_Connection *connection, const struct call *call,
                              const char *method, struct problem *problem) {
  const struct path *path = &paths[call->path];
  answer_fn *answer = NULL;
  if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0) answer = path->get;
  if (strcmp(method, "POST") == 0) answer = path->post;
  if (strcmp(method, "DELETE") == 0) answer = path->delete;
  if (call->path == OTHER) {
    problem_set(problem, 404, "unknown_path", "there is nothing under this path");
  } else if (!answer) {
    problem_set(problem, 405, "bad_method", "%s does not take this method", path->name);
  } else if (answer == path->get) {
    return answer;
  } else if (is_of_another_site(connection)) {
    problem_set(problem, 403, "foreign_origin", "pages of other sites may not change anything");
  } else if (check_token(connection, http->options.token, problem) == 0) {
    return answer;
  }
  return NULL;
}

/* ---------------------------------------------------------------------------------------------- a request */

static enum MHD_Result answer_call(struct http *http, struct MHD_Connection *connection, struct call *call,
                                   const char *method) {
  struct reply reply;
  struct problem problem;
  const struct question question = {.user = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "user"),
                                    .item = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "item"),
                                    .k = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "k"),
                                    .all = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "all"),
                                    .skip = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "skip"),
                                    .body = call->body ? call->body : "",
                                    .n_body = call->n_body};
  answer_fn *answer = find_answer(http, connection, call, method, &problem);
  if (!answer || answer(&reply, http->service, &question, &problem)) return send_problem(connection, call, &problem);
  return send_reply(connection, call, 200, &reply, NULL, NULL);
}

/* Keeps what is sent, up to the limit; what is more is skipped so that the answer can be read, but not for ever. */
static enum MHD_Result keep_body(struct call *call, const char *bytes, size_t n) {
  if (call->n_body + n > MOST_BODY) {
    call->n_skipped += n;
    return call->n_skipped <= MOST_SKIPPED ? MHD_YES : MHD_NO;
  }
  if (!call->body) call->body = malloc(MOST_BODY);
  if (!call->body) return MHD_NO;
  memcpy(call->body + call->n_body, bytes, n);
  call->n_body += n;
  return MHD_YES;
}

/* Called when the headers are there, then for each part of the body, then once more. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *n_upload, void **state) {
  struct http *http = arg;
  struct call *call = *state;
  struct problem problem;
  (void)version;
  int failed = 0;
  if (!call) return MHD_NO;
  if (!call->has_headers) {
    call->has_headers = 1;
    call->path = 0;
    while (call->path < OTHER && strcmp(url, paths[call->path].name) != 0) call->path++;
    failed = check_headers(http, connection, call, &problem);
    if (!failed) return MHD_YES;
  } else if (*n_upload > 0) {
    const size_t n = *n_upload;
    *n_upload = 0;
    return keep_body(call, upload, n);
  } else if (call->n_skipped > 0) {
    failed = problem_set(&problem, 413, "body_too_large", "a body has at most %d bytes", MOST_BODY);
  }
  if (!guard_step(http->guard, visit_of(connection), STEP_ANSWERING)) return MHD_NO;
  return failed ? send_problem(connection, call, &problem) : answer_call(http, connection, call, method);
}

/* Called when the request line is there; what it returns is the state of the request. */
static void *on_request_line(void *arg, const char *uri, struct MHD_Connection *connection) {
  struct http *http = arg;
  struct call *call = calloc(1, sizeof *call);
  if (!call) return NULL;
  call->has_nul = strstr(uri, "%00") != NULL;
  call->started = guard_now();
  call->path = OTHER;
  http->service->metrics.in_flight++;
  guard_step(http->guard, visit_of(connection), STEP_READING);
  return call;
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode why) {
  struct http *http = arg;
  struct call *call = *state;
  (void)why;
  guard_step(http->guard, visit_of(connection), STEP_IDLE);
  if (!call) return;
  struct metrics *metrics = &http->service->metrics;
  if (call->code) metrics_add(metrics, call->path, call->code, guard_now() - call->started);
  metrics->in_flight--;
  free(call->body);
  free(call);
  *state = NULL;
}

static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode what) {
  struct http *http = arg;
  if (what == MHD_CONNECTION_NOTIFY_STARTED) {
    *context =
        guard_enter(http->guard, MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd);
  } else {
    guard_leave(http->guard, *context);
    *context = NULL;
  }
}

/* -------------------------------------------------------------------------------------------- the server */

static int start_daemon(struct http *http, struct problem *problem) {
  const struct http_options *o = &http->options;
  const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
  struct addrinfo *address;
  char port[8];
  snprintf(port, sizeof port, "%u", (unsigned)o->port);
  if (getaddrinfo(o->address, port, &hints, &address) != 0) {
    return problem_set(problem, 500, "address", "%s is not the number of an address", o->address);
  }
  const unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL | MHD_USE_ITC |
                         (address->ai_family == AF_INET6 ? (unsigned)MHD_USE_IPv6 : 0u);
  http->daemon = MHD_start_daemon(flags, o->port, NULL, NULL, on_request, http,                  /* */
                                  MHD_OPTION_SOCK_ADDR, address->ai_addr,                        /* */
                                  MHD_OPTION_URI_LOG_CALLBACK, on_request_line, http,            /* */
                                  MHD_OPTION_NOTIFY_COMPLETED, on_completed, http,               /* */
                                  MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,             /* */
                                  MHD_OPTION_CONNECTION_LIMIT, o->connections,                   /* */
                                  MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, /* */
                                  MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES, MHD_OPTION_END);
  freeaddrinfo(address);
  if (http->daemon) return 0;
  return problem_set(problem, 500, "address", "port %u of %s cannot be used", (unsigned)o->port, o->address);
}

struct http *http_start(struct service *service, const struct http_options *options, struct problem *problem) {
  struct http *http = calloc(1, sizeof *http);
  struct guard *guard = guard_new(&service->metrics, options->step_seconds * 1000000000u, options->rate);
  if (!http || !guard) {
    problem_set(problem, 500, "memory", "out of memory");
  } else {
    for (size_t i = 0; i < N_PATHS; i++) service->metrics.paths[i].name = paths[i].name;
    *http = (struct http){.service = service, .options = *options, .guard = guard};
    if (start_daemon(http, problem) == 0) return http;
  }
  guard_free(guard);
  free(http);
  return NULL;
}

uint16_t http_port(const struct http *http) {
  return MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
}

void http_sweep(struct http *http) {
  guard_sweep(http->guard);
}

void http_stop(struct http *http) {
  const struct timespec pause = {.tv_nsec = 10000000};
  const int socket = MHD_quiesce_daemon(http->daemon);
  for (int i = 0; i < 100 * SECONDS_TO_FINISH && http->service->metrics.in_flight > 0; i++) nanosleep(&pause, NULL);
  MHD_stop_daemon(http->daemon);
  if (socket != MHD_INVALID_SOCKET) close(socket);
  guard_free(http->guard);
  free(http);
}
