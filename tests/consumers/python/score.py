#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Scores of a stranger who likes item 0, with nothing but Python and libmelu.so.1; a whole module on the C interface, with
NumPy, is examples/python/melu.py. Usage: score.py MODEL ITEMS.csv"""
import ctypes
import sys


class Error(ctypes.Structure):
    _fields_ = [('status', ctypes.c_int), ('sys_errno', ctypes.c_int), ('index', ctypes.c_uint64),
                ('line', ctypes.c_uint64), ('message', ctypes.c_char * 232)]


library = ctypes.CDLL('libmelu.so.1')
library.melu_model_schema.restype = ctypes.c_void_p
library.melu_dataset_n_items.restype = ctypes.c_size_t
library.melu_status_name.restype = ctypes.c_char_p


def call(name, *arguments):
    """A function that can fail. Handles are c_void_p, so that they keep all their bits."""
    error = Error()
    status = getattr(library, name)(*arguments, ctypes.byref(error))
    if status:
        sys.exit(f'{library.melu_status_name(status).decode()}: {error.message.decode()}')


def new(name, *arguments):
    handle = ctypes.c_void_p()
    call(name, ctypes.byref(handle), *arguments)
    return handle


def main(model_path, items_path):
    context = new('melu_context_new', None)
    model = new('melu_model_load', context, model_path.encode())
    data = new('melu_dataset_new', context, ctypes.c_void_p(library.melu_model_schema(model)))
    call('melu_dataset_read_items', data, items_path.encode(), None)
    call('melu_dataset_freeze', data)
    scratch = new('melu_workspace_new', model, ctypes.c_size_t(20))
    stranger = new('melu_user_new', model)
    liked, ratings = (ctypes.c_uint32 * 1)(0), (ctypes.c_float * 1)(5)
    call('melu_adapt', stranger, scratch, model, data, None, liked, ratings, ctypes.c_size_t(1))
    n = library.melu_dataset_n_items(data)
    items, scores = (ctypes.c_uint32 * n)(*range(n)), (ctypes.c_float * n)()
    call('melu_predict', scores, scratch, model, stranger, data, items, ctypes.c_size_t(n))
    for item, score in zip(items, scores):
        print(f'item {item}: {score:.2f}')
    for name, handle in (('user', stranger), ('workspace', scratch), ('dataset', data), ('model', model),
                         ('context', context)):
        getattr(library, f'melu_{name}_free')(handle)


main(*sys.argv[1:])
