/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/param_tensors.h"

#include <string.h>

#include "base/error.h"
#include "io/text_file.h"

struct melu__tensor melu__param_tensor(const struct melu__param *p, melu_rates rates) {
  struct melu__tensor t = {
      .name = p->name, .dtype = MELU__F32, .n_dims = 2, .dims = {p->rows, p->cols}, .data = p->data};
  const int is_rate = strncmp(p->name, "rate.", 5) == 0;
  if (p->name[is_rate ? 5 : 0] == 'b' || (is_rate && rates == MELU_RATE_PER_TENSOR)) {
    t.n_dims = 1;
    t.dims[0] = p->cols;
  }
  return t;
}

melu_status melu__check_param_tensors(const struct melu__safetensors *file, const struct melu__param *params, size_t n,
                                      melu_rates rates, melu_error *err) {
  melu_status status = MELU_OK;
  for (size_t i = 0; i < n && !status; i++) {
    const struct melu__tensor tensor = melu__param_tensor(&params[i], rates);
    status = melu__safetensors_expect(file, &tensor, err);
  }
  for (size_t t = 0; t < file->n_tensors && file->n_tensors > n && !status; t++) {
    const char *name = file->tensors[t].name;
    size_t i = 0;
    while (i < n && strcmp(params[i].name, name) != 0) i++;
    if (i == n)
      status = melu__fail(err, MELU_EFORMAT, "tensor \"%s\" is none of this model's",
                          melu__show((struct melu__slice){name, strlen(name)}).text);
  }
  return status;
}

melu_status melu_model_import(melu_model *model, const char *path, melu_error *err) {
  if (!model || !path) return melu__fail(err, MELU_EINVAL, "%s is NULL", model ? "path" : "model");
  struct melu__safetensors file;
  melu_status status = melu__safetensors_load(&file, model->ctx, path, 0, err);
  if (status) return status;
  status = melu__check_param_tensors(&file, model->params, model->n_params, model->options.rates, err);
  if (status) {
    melu__safetensors_name(err, path);
  } else {
    for (size_t i = 0; i < model->n_params; i++)
      melu__safetensors_copy(model->params[i].data, &file, model->params[i].name);
    model->version++;
    model->largest = (real)melu__model_largest(model);
  }
  melu__safetensors_free(&file);
  return status;
}
