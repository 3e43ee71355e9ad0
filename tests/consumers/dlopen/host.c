/* SPDX-License-Identifier: BSD-3-Clause */
/* A host that runs without libmelu and recommends if it is there. Prints the library's digest of a model. Usage:
 * host MODEL */
#include <dlfcn.h>
#include <melu.h>
#include <stdio.h>
#include <string.h>

/* What it uses of the library: pointers of the types that the header declares. */
static struct {
  __typeof__(melu_context_new) *context_new;
  __typeof__(melu_context_free) *context_free;
  __typeof__(melu_build_info) *build_info;
  __typeof__(melu_model_load) *model_load;
  __typeof__(melu_model_digest) *model_digest;
  __typeof__(melu_model_free) *model_free;
} melu;

static int find(void *library, void *function, const char *name) {
  void *const symbol = dlsym(library, name);
  memcpy(function, &symbol, sizeof symbol); /* C has no conversion from objects to functions */
  return symbol != NULL;
}

static int load(void) {
  void *const library = dlopen("libmelu.so.1", RTLD_NOW | RTLD_LOCAL);
  return library && find(library, &melu.context_new, "melu_context_new") &&
         find(library, &melu.context_free, "melu_context_free") && find(library, &melu.build_info, "melu_build_info") &&
         find(library, &melu.model_load, "melu_model_load") && find(library, &melu.model_digest, "melu_model_digest") &&
         find(library, &melu.model_free, "melu_model_free");
}

static melu_status show(const char *path, melu_error *err) {
  unsigned char digest[MELU_DIGEST_BYTES];
  melu_context *ctx = NULL;
  melu_model *model = NULL;
  melu_status status = melu.context_new(&ctx, NULL, err);
  if (!status) status = melu.model_load(&model, ctx, path, err);
  if (!status) status = melu.model_digest(digest, model, err);
  if (!status) puts(melu.build_info(ctx));
  for (size_t i = 0; !status && i < sizeof digest; i++) printf("%02x", digest[i]);
  if (!status) puts("");
  if (model) melu.model_free(model);
  if (ctx) melu.context_free(ctx);
  return status;
}

int main(int argc, char **argv) {
  melu_error err;
  if (argc != 2) return fprintf(stderr, "usage: host MODEL\n"), 2;
  if (!load()) return printf("without libmelu: %s\n", dlerror()), 0;
  if (show(argv[1], &err)) return fprintf(stderr, "%s\n", err.message), 1;
  return 0;
}
