/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/error.h"

#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

static const char *const status_names[] = {
    "MELU_OK",        "MELU_EINVAL",    "MELU_ENOMEM",  "MELU_EIO",       "MELU_EFORMAT", "MELU_ECORRUPT",
    "MELU_EVERSION",  "MELU_ESCHEMA",   "MELU_ERANGE",  "MELU_ENOTFOUND", "MELU_ESTATE",  "MELU_ELIMIT",
    "MELU_ECANCELED", "MELU_EDIVERGED", "MELU_ESYSTEM", "MELU_EPEER",
};

const char *melu_status_name(melu_status status) {
  const int n = (int)(sizeof status_names / sizeof *status_names);
  return status <= 0 && status > -n ? status_names[-(int)status] : "unknown status";
}

const char *melu_version(void) {
  return TEXT(MELU_VERSION_MAJOR) "." TEXT(MELU_VERSION_MINOR) "." TEXT(MELU_VERSION_PATCH);
}

static void fill(melu_error *err, melu_status status, const char *format, va_list args) {
  memset(err, 0, sizeof *err);
  err->status = status;
  vsnprintf(err->message, sizeof err->message, format, args);
}

/* The three public variants differ only in what they add to a filled struct. */
#define FILL(err, status, format)           \
  do {                                      \
    va_list args_;                          \
    va_start(args_, format);                \
    fill((err), (status), (format), args_); \
    va_end(args_);                          \
  } while (0)

melu_status melu__fail(melu_error *err, melu_status status, const char *format, ...) {
  if (err) FILL(err, status, format);
  return status;
}

melu_status melu__fail_at(melu_error *err, melu_status status, uint64_t index, const char *format, ...) {
  if (err) {
    FILL(err, status, format);
    err->index = index;
  }
  return status;
}

melu_status melu__fail_line(melu_error *err, melu_status status, uint64_t line, const char *format, ...) {
  if (err) {
    FILL(err, status, format);
    err->line = line;
  }
  return status;
}

melu_status melu__fail_errno(melu_error *err, melu_status status, int sys_errno, const char *format, ...) {
  if (err) {
    FILL(err, status, format);
    err->sys_errno = sys_errno;
    /* In English, whatever the host speaks. */
    const locale_t english = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (english != (locale_t)0) {
      const size_t used = strlen(err->message);
      snprintf(err->message + used, sizeof err->message - used, ": %s", strerror_l(sys_errno, english));
      freelocale(english);
    }
  }
  return status;
}

melu_status melu__fail_memory(melu_error *err) {
  return melu__fail(err, MELU_ENOMEM, "out of memory");
}
