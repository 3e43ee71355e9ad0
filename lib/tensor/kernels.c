/* SPDX-License-Identifier: BSD-3-Clause */
#include "tensor/kernels.h"

#include <melu.h>

#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "tensor/blas.h"

/* The build defines MELU__HAVE_V4 and MELU__HAVE_V3 where it compiles those sets. */
const struct melu__kernels *const melu__kernel_sets[] = {
#ifdef MELU__HAVE_V4
    &melu__kernels_avx512,
#endif
#ifdef MELU__HAVE_V3
    &melu__kernels_avx2,
#endif
    &melu__kernels_base,
    NULL,
};

int melu__kernels_usable(const struct melu__kernels *kernels) {
#ifdef MELU__HAVE_V4
  if (kernels == &melu__kernels_avx512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("bmi2");
#endif
#ifdef MELU__HAVE_V3
  if (kernels == &melu__kernels_avx2)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#endif
  return kernels == &melu__kernels_base;
}

/* The first set of that name, or the first usable one. */
static const struct melu__kernels *find(const char *name) {
  for (size_t i = 0; melu__kernel_sets[i]; i++)
    if (name ? !strcmp(melu__kernel_sets[i]->name, name) : melu__kernels_usable(melu__kernel_sets[i]))
      return melu__kernel_sets[i];
  return NULL;
}

melu_status melu__context_choose_kernels(melu_context *ctx, const char *name, melu_error *err) {
  const struct melu__kernels *kernels = find(name);
  if (!kernels) return melu__fail(err, MELU_EINVAL, "this build has no kernels \"%.32s\"", name);
  if (!melu__kernels_usable(kernels))
    return melu__fail(err, MELU_EINVAL, "this CPU cannot run the kernels \"%s\"", kernels->name);
  const char *family = "not used";
  if (kernels->uses_blas && !(family = melu__blas_start())) return melu__fail_memory(err);
  ctx->kernels = kernels;
  char blas[40];
  melu__blas_name(blas, sizeof blas);
  snprintf(ctx->build_info, sizeof ctx->build_info, "libmelu %d.%d.%d, kernels %s, %s (%.32s)", MELU_VERSION_MAJOR,
           MELU_VERSION_MINOR, MELU_VERSION_PATCH, kernels->name, blas, family);
  return MELU_OK;
}
