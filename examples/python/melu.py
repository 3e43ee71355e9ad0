# SPDX-License-Identifier: BSD-3-Clause
"""libmelu from Python, by its C header alone: ctypes and NumPy, nothing to compile.

    with melu.Context(n_threads=2) as ctx:
        schema = melu.Schema(ctx)
        schema.add('genre', melu.ITEM, melu.MANY)
        data = melu.Dataset(ctx, schema)
        data.read_items('items.csv')                     # ... and users, and ratings
        data.freeze()
        model = melu.Model(ctx, data.schema, preset='best')
        model.fit(data)
        workspace, stranger = melu.Workspace(model, 20), melu.User(model)
        stranger.adapt(workspace, data, items, ratings)
        scores = stranger.predict(workspace, data, candidates)

What a call does, and its errors, is in melu.h; keyword arguments are the fields of its options.

Arrays go to the library as they are, and results into the array that was given: nothing is copied or converted on the
way. An array of another type, or with gaps between its elements, is therefore a TypeError, one of the wrong length a
ValueError. Items are uint32, ratings and scores float32.

A failed call raises MeluError. What a callback raises ends the call and is raised by it. Objects are freed by close(),
at the end of a `with`, or with the last reference, whatever comes first, but not before what was made with them.

The library is the file named by the environment variable MELU_LIBRARY, or what the linker finds as "melu"."""
import ctypes
import ctypes.util
import os
import threading
from ctypes import (POINTER, byref, c_char, c_char_p, c_double, c_float, c_int, c_size_t, c_uint, c_uint32, c_uint64,
                    c_void_p)

import numpy as np

USER, ITEM = 0, 1
ONE, MANY, NUMERIC = 0, 1, 2
LAYERS, FACTORS = 1, 2
COMPACT, READY = 0, 1
UNKNOWN = 0xffffffff
NONE = ctypes.c_size_t(-1).value

# --------------------------------------------------------------------------------------- the structs of melu.h


class Error(ctypes.Structure):
    c_name = 'melu_error'
    _fields_ = [('status', c_int), ('sys_errno', c_int), ('index', c_uint64), ('line', c_uint64),
                ('message', c_char * 232)]


class Progress(ctypes.Structure):
    c_name = 'melu_progress'
    _fields_ = [('phase', c_char_p), ('done', c_uint64), ('total', c_uint64), ('epoch', c_uint64),
                ('n_epochs', c_uint64), ('loss', c_double), ('validation', c_double)]


class Value(ctypes.Structure):
    c_name = 'melu_value'
    _fields_ = [('ids', c_void_p), ('n_ids', c_size_t), ('numbers', c_void_p), ('n_numbers', c_size_t)]


class Metrics(ctypes.Structure):
    c_name = 'melu_metrics'
    _fields_ = [('n_users', c_size_t), ('n_queries', c_size_t), ('mae', c_double), ('mse', c_double),
                ('rmse', c_double), ('rmse_pooled', c_double), ('rmse_user', c_double), ('ndcg_paper', c_double * 4),
                ('ndcg_linear', c_double * 4), ('log_loss', c_double), ('auc', c_double), ('coverage', c_double),
                ('reserved', c_double * 8)]


PROGRESS = ctypes.CFUNCTYPE(c_int, c_void_p, POINTER(Progress))
KEEP = ctypes.CFUNCTYPE(c_int, c_void_p, c_uint32)


class Options(ctypes.Structure):
    """Options whose size is set, from keyword arguments. `arrays` has the fields that point to an array of another
    type, each followed by a field with its length."""
    arrays = {}

    def __init__(self, **fields):
        known = [name for name, _ in self._fields_]
        super().__init__(size=ctypes.sizeof(self))
        self.kept = []  # what the pointers point to
        for name, value in fields.items():
            if name not in known or name == 'size':
                raise TypeError(f'{self.c_name} has no option {name!r}')
            if value is None:
                continue
            if name in self.arrays:
                value = array(name, value, self.arrays[name])
                setattr(self, known[known.index(name) + 1], len(value))
            self.kept.append(value)
            if isinstance(value, np.ndarray):
                value = value.ctypes.data
            elif isinstance(value, Options):
                value = ctypes.addressof(value)
            elif isinstance(value, str):
                value = os.fsencode(value)
            setattr(self, name, value)


class ContextOptions(Options):
    c_name = 'melu_context_options'
    _fields_ = [('size', c_size_t), ('n_threads', c_size_t), ('allocator', c_void_p), ('runner', c_void_p),
                ('log', c_void_p), ('log_arg', c_void_p), ('progress', PROGRESS), ('progress_arg', c_void_p),
                ('kernels', c_char_p), ('max_file_bytes', c_size_t), ('collective', c_void_p), ('n_slots', c_size_t),
                ('shard_bytes', c_size_t)]


class Field(Options):
    c_name = 'melu_field'
    _fields_ = [('size', c_size_t), ('name', c_char_p), ('owner', c_int), ('kind', c_int), ('n_values', c_size_t),
                ('width', c_size_t), ('shift', c_double), ('scale', c_double)]


class TableOptions(Options):
    c_name = 'melu_table_options'
    _fields_ = [('size', c_size_t), ('separator', c_char), ('list_separator', c_char), ('id', c_char_p),
                ('user', c_char_p), ('item', c_char_p), ('rating', c_char_p), ('skip', POINTER(c_char_p)),
                ('n_skip', c_size_t)]


class ModelOptions(Options):
    c_name = 'melu_model_options'
    arrays = {'hidden': np.uintp}
    _fields_ = [('size', c_size_t), ('preset', c_char_p), ('seed', c_uint64), ('hidden', c_void_p),
                ('n_hidden', c_size_t), ('inner_steps', c_size_t), ('inner_lr', c_double), ('first_order', c_int),
                ('rating_min', c_double), ('rating_max', c_double), ('network', c_int), ('rank', c_size_t),
                ('rule', c_int), ('adapt', c_uint), ('rates', c_int), ('loss', c_int), ('multi_step', c_int),
                ('history', c_int), ('learn_precision', c_int)]


class OptimizerOptions(Options):
    c_name = 'melu_optimizer_options'
    _fields_ = [('size', c_size_t), ('kind', c_int), ('lr', c_double), ('beta1', c_double), ('beta2', c_double),
                ('epsilon', c_double), ('weight_decay', c_double), ('clip_value', c_double), ('clip_norm', c_double),
                ('dense', c_int)]


class FitOptions(Options):
    c_name = 'melu_fit_options'
    arrays = {'validation_users': np.uint32}
    _fields_ = [('size', c_size_t), ('n_epochs', c_size_t), ('batch_tasks', c_size_t), ('n_query', c_size_t),
                ('min_ratings', c_size_t), ('max_ratings', c_size_t), ('max_support', c_size_t), ('seed', c_uint64),
                ('optimizer', c_void_p), ('random_support', c_int), ('cosine', c_int), ('prior_vectors', c_double),
                ('prior_offsets', c_double), ('prior_pooled', c_double), ('prior_dense', c_double),
                ('validation', c_double), ('patience', c_size_t), ('validation_users', c_void_p),
                ('n_validation_users', c_size_t), ('checkpoint', c_char_p), ('checkpoint_updates', c_size_t),
                ('resume', c_int)]


class EvaluateOptions(Options):
    c_name = 'melu_evaluate_options'
    arrays = {'users': np.uint32}
    _fields_ = [('size', c_size_t), ('users', c_void_p), ('n_users', c_size_t), ('split', c_uint64),
                ('n_query', c_size_t), ('min_ratings', c_size_t), ('max_ratings', c_size_t), ('max_support', c_size_t),
                ('history', c_void_p), ('intervals', c_int), ('max_history', c_size_t)]


class TopOptions(Options):
    c_name = 'melu_top_options'
    arrays = {'exclude': np.uint32}
    _fields_ = [('size', c_size_t), ('exclude', c_void_p), ('n_exclude', c_size_t), ('keep', KEEP),
                ('keep_arg', c_void_p), ('allow', c_void_p), ('n_allow', c_size_t)]


# ------------------------------------------------------------------------------------------------- the library

def _open():
    name = os.environ.get('MELU_LIBRARY') or ctypes.util.find_library('melu')
    if not name:
        raise ImportError('libmelu was not found: install it, or set MELU_LIBRARY to the file')
    library = ctypes.CDLL(name)
    for function, (result, arguments) in PROTOTYPES.items():
        getattr(library, function).restype = result
        getattr(library, function).argtypes = arguments
    return library


# H: a handle or an array. Every call that can fail ends in the struct that receives the failure.
H, E = c_void_p, POINTER(Error)
PROTOTYPES = {
    'melu_status_name': (c_char_p, [c_int]),
    'melu_version': (c_char_p, []),
    'melu_build_info': (c_char_p, [H]),
    'melu_context_new': (c_int, [POINTER(H), POINTER(ContextOptions), E]),
    'melu_schema_new': (c_int, [POINTER(H), H, E]),
    'melu_schema_add': (c_int, [H, POINTER(Field), E]),
    'melu_schema_n_fields': (c_size_t, [H, c_int]),
    'melu_schema_value_id': (c_uint32, [H, c_char_p, c_char_p]),
    'melu_schema_value_text': (c_char_p, [H, c_char_p, c_uint32]),
    'melu_dataset_new': (c_int, [POINTER(H), H, H, E]),
    'melu_dataset_add_user': (c_int, [H, c_uint64, H, POINTER(c_uint32), E]),
    'melu_dataset_add_item': (c_int, [H, c_uint64, H, POINTER(c_uint32), E]),
    'melu_dataset_add_rating': (c_int, [H, c_uint64, c_uint64, c_float, E]),
    'melu_dataset_read_users': (c_int, [H, c_char_p, POINTER(TableOptions), E]),
    'melu_dataset_read_items': (c_int, [H, c_char_p, POINTER(TableOptions), E]),
    'melu_dataset_read_ratings': (c_int, [H, c_char_p, POINTER(TableOptions), E]),
    'melu_dataset_freeze': (c_int, [H, E]),
    'melu_dataset_schema': (H, [H]),
    'melu_dataset_n_users': (c_size_t, [H]),
    'melu_dataset_n_items': (c_size_t, [H]),
    'melu_dataset_n_ratings': (c_size_t, [H]),
    'melu_dataset_item_id': (c_uint64, [H, c_uint32]),
    'melu_dataset_find_item': (c_int, [POINTER(c_uint32), H, c_uint64, E]),
    'melu_dataset_item_values': (c_int, [POINTER(Value), H, c_uint32, E]),
    'melu_dataset_ratings': (c_size_t, [H, c_uint32, POINTER(H), POINTER(H)]),
    'melu_split_order': (c_int, [H, c_uint64, c_uint64, c_size_t, E]),
    'melu_model_new': (c_int, [POINTER(H), H, H, POINTER(ModelOptions), E]),
    'melu_model_load': (c_int, [POINTER(H), H, c_char_p, E]),
    'melu_model_save': (c_int, [H, c_char_p, E]),
    'melu_model_schema': (H, [H]),
    'melu_model_digest': (c_int, [c_char * 16, H, E]),
    'melu_fit': (c_int, [H, H, POINTER(FitOptions), E]),
    'melu_evaluate': (c_int, [POINTER(Metrics), H, H, POINTER(EvaluateOptions), E]),
    'melu_workspace_new': (c_int, [POINTER(H), H, c_size_t, E]),
    'melu_user_new': (c_int, [POINTER(H), H, E]),
    'melu_user_ratings': (c_size_t, [H, POINTER(H), POINTER(H)]),
    'melu_adapt': (c_int, [H, H, H, H, H, H, H, c_size_t, E]),
    'melu_predict': (c_int, [H, H, H, H, H, H, c_size_t, E]),
    'melu_user_rate': (c_int, [H, H, H, H, c_uint32, c_float, E]),
    'melu_user_forget': (c_int, [H, H, H, H, c_uint32, E]),
    'melu_user_save': (c_int, [H, POINTER(c_size_t), H, H, c_int, E]),
    'melu_user_load': (c_int, [H, H, H, H, c_char_p, c_size_t, E]),
    'melu_explain': (c_int, [H, H, H, H, H, c_uint32, E]),
    'melu_ask': (c_int, [H, H, POINTER(c_size_t), H, H, H, H, H, E]),
    'melu_catalog_new': (c_int, [POINTER(H), H, H, H, c_size_t, E]),
    'melu_catalog_n_items': (c_size_t, [H]),
    'melu_catalog_score': (c_int, [H, H, H, H, E]),
    'melu_catalog_top': (c_int, [H, H, POINTER(c_size_t), H, H, H, POINTER(TopOptions), E]),
    **{f'melu_{kind}_free': (None, [H])
       for kind in ('context', 'schema', 'dataset', 'model', 'workspace', 'user', 'catalog')},
}
_library = _open()
_raised = threading.local()  # what a callback raised in the call that this thread is in


class MeluError(Exception):
    """A failed call: the fields of melu_error, and the name of the status."""

    def __init__(self, error):
        self.status, self.sys_errno, self.index, self.line = error.status, error.sys_errno, error.index, error.line
        self.message = error.message.decode(errors='replace')
        self.name = _library.melu_status_name(error.status).decode()
        super().__init__(f'{self.message} ({self.name})')


def _call(function, *arguments):
    error = Error()
    _raised.exception = None
    status = getattr(_library, function)(*arguments, byref(error))
    exception, _raised.exception = _raised.exception, None
    if exception is not None:
        raise exception
    if status:
        raise MeluError(error)


def _guarded(prototype, stop, function):
    """A callback that answers `stop` once it has raised something."""
    def call(*arguments):
        if _raised.exception is not None:
            return stop
        try:
            return function(*arguments)
        except BaseException as exception:  # an interrupt too ends the call, and is raised when it returns
            _raised.exception = exception
            return stop
    return prototype(call)


def array(name, given, dtype, n=None, writeable=False):
    """`given`, if the library can use it where it is."""
    if not isinstance(given, np.ndarray):
        raise TypeError(f'{name}: a NumPy array is needed, not {type(given).__name__}')
    if given.dtype != dtype:
        raise TypeError(f'{name}: an array of {np.dtype(dtype)} is needed, not {given.dtype}')
    if given.ndim != 1 or not given.flags.c_contiguous or not given.flags.aligned:
        raise TypeError(f'{name}: an array of one dimension without gaps is needed')
    if writeable and not given.flags.writeable:
        raise TypeError(f'{name}: the array is read-only')
    if n is not None and len(given) != n:
        raise ValueError(f'{name}: {n} elements are needed, not {len(given)}')
    return given


def _pointer(given):
    return None if given is None else given.ctypes.data


# ------------------------------------------------------------------------------------------------------ handles

class _Cell:
    """A C handle with a count of those who need it: its object, what was made with it, and views of its arrays."""

    def __init__(self, pointer, free, parents):
        self.pointer, self.free, self.parents, self.n_users = pointer, free, parents, 1
        for parent in parents:
            parent.n_users += 1

    def drop(self):
        self.n_users -= 1
        if self.n_users == 0:
            self.free(self.pointer)
            for parent in self.parents:
                parent.drop()


class _View:
    """Keeps a cell for an array that belongs to it."""

    def __init__(self, cell):
        self.cell = cell
        cell.n_users += 1

    def __del__(self):
        self.cell.drop()

    def array(self, address, n, dtype):
        """A read-only NumPy array over the library's own memory."""
        if n == 0:
            return np.empty(0, dtype)
        memory = (c_char * (n * np.dtype(dtype).itemsize)).from_address(address)
        memory.view = self
        view = np.frombuffer(memory, dtype)
        view.flags.writeable = False
        return view


class _Object:
    _cell = None

    def _own(self, kind, parents, function, *arguments):
        pointer = c_void_p()
        _call(function, byref(pointer), *arguments)
        self._cell = _Cell(pointer.value, getattr(_library, f'melu_{kind}_free'), [p._cell for p in parents])

    @property
    def _h(self):
        if self._cell is None:
            raise ValueError(f'this {type(self).__name__} is closed')
        return self._cell.pointer

    def close(self):
        cell, self._cell = self._cell, None
        if cell is not None:
            cell.drop()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __del__(self):
        self.close()


class Context(_Object):
    """`progress`: a function of a Progress; what it returns, if not None or 0, ends the call."""

    def __init__(self, progress=None, **options):
        if progress is not None:
            options['progress'] = _guarded(PROGRESS, 1, lambda _, now: int(progress(now.contents) or 0))
        options = ContextOptions(**options)
        self._own('context', [], 'melu_context_new', byref(options))
        self._cell.kept = options  # and the callback in it

    @property
    def build_info(self):
        return _library.melu_build_info(self._h).decode()


class _SchemaReader:
    """What can be read of a schema, whoever has it."""

    def __init__(self, address):
        self._address = address  # a function: who has the schema may be closed

    def n_fields(self, owner):
        return _library.melu_schema_n_fields(self._address(), owner)

    def value_id(self, field, text):
        return _library.melu_schema_value_id(self._address(), field.encode(), text.encode())

    def value_text(self, field, value):
        text = _library.melu_schema_value_text(self._address(), field.encode(), value)
        return None if text is None else text.decode()


class Schema(_Object, _SchemaReader):
    def __init__(self, ctx):
        self._own('schema', [ctx], 'melu_schema_new', ctx._h)

    def _address(self):
        return self._h

    def add(self, name, owner, kind, **options):
        _call('melu_schema_add', self._h, byref(Field(name=name, owner=owner, kind=kind, **options)))


def _values(schema, owner, given):
    """melu_value's of a list: None is missing, an int an id, a float a number, an array is used where it is. Returns
    them and what they point to."""
    if given is None:
        return None, None
    if len(given) != schema.n_fields(owner):
        raise ValueError(f'values: {schema.n_fields(owner)} fields need a value or None, not {len(given)}')
    values, kept = (Value * len(given))(), []
    for value, one in zip(values, given):
        if one is None:
            continue
        if isinstance(one, (int, np.integer)):
            one = np.array([one], np.uint32)
        elif isinstance(one, float):
            one = np.array([one], np.float32)
        kept.append(one)
        if isinstance(one, np.ndarray) and one.dtype == np.float32:
            value.numbers, value.n_numbers = array('numbers', one, np.float32).ctypes.data, len(one)
        else:
            value.ids, value.n_ids = array('ids', one, np.uint32).ctypes.data, len(one)
    return values, kept


class Dataset(_Object):
    def __init__(self, ctx, schema):
        self._own('dataset', [ctx], 'melu_dataset_new', ctx._h, schema._address())

    @property
    def schema(self):
        return _SchemaReader(lambda: _library.melu_dataset_schema(self._h))

    def _add(self, function, owner, id, values):
        values, kept = _values(self.schema, owner, values)
        index = c_uint32()
        _call(function, self._h, id, values, byref(index))
        return index.value

    def add_user(self, id, values=None):
        return self._add('melu_dataset_add_user', USER, id, values)

    def add_item(self, id, values=None):
        return self._add('melu_dataset_add_item', ITEM, id, values)

    def add_rating(self, user_id, item_id, rating):
        _call('melu_dataset_add_rating', self._h, user_id, item_id, rating)

    def add_ratings(self, user_id, item_ids, ratings):
        """One user's; the data set copies them."""
        array('item_ids', item_ids, np.uint64)
        array('ratings', ratings, np.float32, len(item_ids))
        for item_id, rating in zip(item_ids.tolist(), ratings.tolist()):
            self.add_rating(user_id, item_id, rating)

    def _read(self, function, path, skip=None, **options):
        if skip is not None:
            options['n_skip'] = len(skip)
            options['skip'] = (c_char_p * len(skip))(*[name.encode() for name in skip])
        _call(function, self._h, os.fsencode(path), byref(TableOptions(**options)))

    def read_users(self, path, **options):
        self._read('melu_dataset_read_users', path, **options)

    def read_items(self, path, **options):
        self._read('melu_dataset_read_items', path, **options)

    def read_ratings(self, path, **options):
        self._read('melu_dataset_read_ratings', path, **options)

    def freeze(self):
        _call('melu_dataset_freeze', self._h)

    @property
    def n_users(self):
        return _library.melu_dataset_n_users(self._h)

    @property
    def n_items(self):
        return _library.melu_dataset_n_items(self._h)

    @property
    def n_ratings(self):
        return _library.melu_dataset_n_ratings(self._h)

    def item_id(self, item):
        return _library.melu_dataset_item_id(self._h, item)

    def find_item(self, id):
        item = c_uint32()
        _call('melu_dataset_find_item', byref(item), self._h, id)
        return item.value

    def item_ids_of(self, item, field_index):
        """The ids of a field of an item: a view."""
        values = (Value * self.schema.n_fields(ITEM))()
        _call('melu_dataset_item_values', values, self._h, item)
        return _View(self._cell).array(values[field_index].ids, values[field_index].n_ids, np.uint32)

    def ratings(self, user):
        """Items and ratings of a user: two views of the data set's own arrays."""
        items, ratings = c_void_p(), c_void_p()
        n = _library.melu_dataset_ratings(self._h, user, byref(items), byref(ratings))
        view = _View(self._cell)
        return view.array(items.value, n, np.uint32), view.array(ratings.value, n, np.float32)


def split_order(order, user_id, split=0):
    _call('melu_split_order', _pointer(array('order', order, np.uint32, writeable=True)), user_id, split, len(order))
    return order


class Model(_Object):
    def __init__(self, ctx, schema, **options):
        self._own('model', [ctx], 'melu_model_new', ctx._h, schema._address(), byref(ModelOptions(**options)))

    @classmethod
    def load(cls, ctx, path):
        model = cls.__new__(cls)
        model._own('model', [ctx], 'melu_model_load', ctx._h, os.fsencode(path))
        return model

    def save(self, path):
        _call('melu_model_save', self._h, os.fsencode(path))

    @property
    def schema(self):
        return _SchemaReader(lambda: _library.melu_model_schema(self._h))

    def digest(self):
        digest = (c_char * 16)()
        _call('melu_model_digest', digest, self._h)
        return digest.raw

    def fit(self, data, **options):
        """`optimizer`: an OptimizerOptions."""
        _call('melu_fit', self._h, data._h, byref(FitOptions(**options)))

    def evaluate(self, data, history=None, **options):
        metrics = Metrics()
        options = EvaluateOptions(history=None if history is None else history._h, **options)
        _call('melu_evaluate', byref(metrics), self._h, data._h, byref(options))
        return metrics


class Workspace(_Object):
    """One thread's."""

    def __init__(self, model, max_support):
        self._own('workspace', [model], 'melu_workspace_new', model._h, max_support)


class User(_Object):
    def __init__(self, model):
        self.model = model
        self._own('user', [model], 'melu_user_new', model._h)

    def adapt(self, workspace, data, items, ratings, profile=None):
        array('items', items, np.uint32)
        array('ratings', ratings, np.float32, len(items))
        values, kept = _values(self.model.schema, USER, profile)
        _call('melu_adapt', self._h, workspace._h, self.model._h, data._h, values, _pointer(items), _pointer(ratings),
              len(items))

    def predict(self, workspace, data, items, out=None):
        """Returns `out`, or a new array."""
        array('items', items, np.uint32)
        out = np.empty(len(items), np.float32) if out is None else out
        array('out', out, np.float32, len(items), writeable=True)
        _call('melu_predict', _pointer(out), workspace._h, self.model._h, self._h, data._h, _pointer(items), len(items))
        return out

    @property
    def ratings(self):
        """The host's ids of her items, and her ratings. Copies, since the arrays move when she rates."""
        items, ratings = c_void_p(), c_void_p()
        n = _library.melu_user_ratings(self._h, byref(items), byref(ratings))
        view = _View(self._cell)
        return view.array(items.value, n, np.uint64).copy(), view.array(ratings.value, n, np.float32).copy()

    def rate(self, workspace, data, item, rating):
        _call('melu_user_rate', self._h, workspace._h, self.model._h, data._h, item, rating)

    def forget(self, workspace, data, item):
        _call('melu_user_forget', self._h, workspace._h, self.model._h, data._h, item)

    def save(self, workspace, form=COMPACT):
        n = c_size_t()
        _call('melu_user_save', None, byref(n), workspace._h, self._h, form)
        written = ctypes.create_string_buffer(n.value)
        _call('melu_user_save', written, byref(n), workspace._h, self._h, form)
        return written.raw

    def load(self, workspace, data, written):
        _call('melu_user_load', self._h, workspace._h, self.model._h, data._h, written, len(written))

    def explain(self, workspace, data, item, out=None):
        """The pull of each of her ratings on her prediction of the item."""
        n = _library.melu_user_ratings(self._h, None, None)
        out = np.empty(n, np.float32) if out is None else out
        array('out', out, np.float32, n, writeable=True)
        _call('melu_explain', _pointer(out), workspace._h, self.model._h, self._h, data._h, item)
        return out

    def ask(self, workspace, data, n=1):
        """The n best next questions, and what each would tell."""
        items, gains, found = np.empty(n, np.uint32), np.empty(n, np.float32), c_size_t(n)
        _call('melu_ask', _pointer(items), _pointer(gains), byref(found), workspace._h, self.model._h, self._h, data._h,
              None)
        return items[:found.value], gains[:found.value]


class Catalog(_Object):
    def __init__(self, model, data, items=None):
        n = data.n_items if items is None else len(array('items', items, np.uint32))
        self._own('catalog', [model], 'melu_catalog_new', model._h, data._h, _pointer(items), n)

    @property
    def n_items(self):
        return _library.melu_catalog_n_items(self._h)

    def score(self, workspace, user, out=None):
        out = np.empty(self.n_items, np.float32) if out is None else out
        array('out', out, np.float32, self.n_items, writeable=True)
        _call('melu_catalog_score', _pointer(out), workspace._h, self._h, user._h)
        return out

    def top(self, workspace, user, k=10, out=None, keep=None, allow=None, **options):
        """Items and scores of the best, best first. `out`: a pair of arrays to write into, of which the beginning is
        returned. `exclude`: numbers that are left out; `keep`: a function of a number; `allow`: a bitmap of uint64."""
        items, scores = (np.empty(k, np.uint32), np.empty(k, np.float32)) if out is None else out
        array('items', items, np.uint32, writeable=True)
        array('scores', scores, np.float32, len(items), writeable=True)
        if keep is not None:
            options['keep'] = _guarded(KEEP, 0, lambda _, number: bool(keep(number)))
        if allow is not None:
            options.update(allow=array('allow', allow, np.uint64), n_allow=64 * len(allow))
        n, options = c_size_t(len(items)), TopOptions(**options)
        _call('melu_catalog_top', _pointer(items), _pointer(scores), byref(n), workspace._h, self._h, user._h,
              byref(options))
        return items[:n.value], scores[:n.value]
