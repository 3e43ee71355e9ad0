/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/param_tensors.h"

#include <string.h>

#include "base/error.h"
#include "io/text_file.h"

struct melu__tensor melu__param_tensor(const struct melu__param *p, melu_rates rates) {
  struct melu__tensor t = {
      .name = p->name, .dtype = MELU__F32, .n_dims = 2, .dims = {p->all_rows, p->cols}, .data = p->data};
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
    status =
        file->data ? melu__safetensors_expect(file, &tensor, err) : melu__safetensors_expect_shape(file, &tensor, err);
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

void melu__take_rows(void *to, const struct melu__share *to_share, const struct melu__share *from,
                     const struct melu__stored *tensor, size_t cols, size_t first, const unsigned char *bytes,
                     size_t n) {
  const size_t in_file = melu__dtype_size(tensor->dtype),
               in_memory = tensor->dtype == MELU__F32 ? sizeof(real) : in_file;
  for (size_t at = 0, piece; at < n; at += piece) {
    const size_t row = melu__share_row(from, (first + at) / cols), col = (first + at) % cols;
    const size_t slot = row % from->n_slots;
    piece = cols - col < n - at ? cols - col : n - at;
    if (to_share && (slot < to_share->own.lo || slot >= to_share->own.hi)) continue;
    const size_t number = to_share ? melu__share_number(to_share, row) : row;
    melu__safetensors_decode((char *)to + (number * cols + col) * in_memory, tensor->dtype, bytes + at * in_file,
                             piece);
  }
}

melu_status melu_model_import(melu_model *model, const char *path, melu_error *err) {
  if (!model || !path) return melu__fail(err, MELU_EINVAL, "%s is NULL", model ? "path" : "model");
  struct melu__safetensors file;
  melu_status status = melu__check_whole(model, err);
  if (!status) status = melu__safetensors_load(&file, model->ctx, path, 0, err);
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
