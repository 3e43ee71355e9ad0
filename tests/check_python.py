#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Holds examples/python/melu.py against melu.h as a C compiler sees it, shows that arrays are used where they are,
tries bad input and the life of objects, and compares the demo with the quickstart, which is C.
Usage: check_python.py SOURCE_DIR LIBMELU_SO QUICKSTART"""
import ctypes
import gc
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

SOURCE, LIBRARY, QUICKSTART = sys.argv[1:]
os.environ['MELU_LIBRARY'] = LIBRARY
os.environ['PYTHONDONTWRITEBYTECODE'] = '1'  # of the demo
sys.dont_write_bytecode = True
sys.path.insert(0, f'{SOURCE}/examples/python')
import melu  # noqa: E402

HEADER = re.sub(r'/\*.*?\*/', '', pathlib.Path(f'{SOURCE}/include/melu.h').read_text(), flags=re.S)
CONSTANTS = {'MELU_USER': melu.USER, 'MELU_ITEM': melu.ITEM, 'MELU_ONE': melu.ONE, 'MELU_MANY': melu.MANY,
             'MELU_NUMERIC': melu.NUMERIC, 'MELU_LAYERS': melu.LAYERS, 'MELU_FACTORS': melu.FACTORS,
             'MELU_USER_COMPACT': melu.COMPACT, 'MELU_USER_READY': melu.READY, 'MELU_UNKNOWN': melu.UNKNOWN,
             'MELU_NONE': melu.NONE}
U32, F32 = np.uint32, np.float32


def structs():
    """All that melu.py has of melu.h's."""
    for s in vars(melu).values():
        if isinstance(s, type) and issubclass(s, ctypes.Structure) and hasattr(s, 'c_name'):
            yield s


def check_structs(folder):
    """Sizes and offsets are those of the compiler, and no field is missing."""
    expected, code = {}, []
    for s in structs():
        expected[s.c_name] = ctypes.sizeof(s)
        code.append(f'printf("{s.c_name} %zu\\n", sizeof(struct {s.c_name}));')
        for name, _ in s._fields_:
            field = getattr(s, name)
            expected[f'{s.c_name}.{name}'] = field.offset * 1000 + field.size
            code.append(f'printf("{s.c_name}.{name} %zu\\n", offsetof(struct {s.c_name}, {name}) * 1000 + '
                        f'sizeof(((struct {s.c_name} *)0)->{name}));')
        body = re.search(rf'struct {s.c_name} {{(.*?)\n}};', HEADER, re.S).group(1)
        n_fields = sum(len(line.split(',')) for line in re.sub(r'\([^()]*\)', '', body).split(';')[:-1])
        assert n_fields == len(s._fields_), f'{s.c_name} has {n_fields} fields in melu.h, {len(s._fields_)} in melu.py'
    for name, value in CONSTANTS.items():
        expected[name] = value
        code.append(f'printf("{name} %zu\\n", (size_t){name});')
    source, program = folder / 'structs.c', folder / 'structs'
    source.write_text('#include <melu.h>\n#include <stdio.h>\nint main(void) {\n' + '\n'.join(code) + '\n}\n')
    subprocess.run([os.environ.get('CC', 'cc'), f'-I{SOURCE}/include', source, '-o', program], check=True)
    lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split('\n')[:-1]
    actual = {name: int(value) for name, value in (line.split() for line in lines)}
    assert actual == expected, {n: (actual[n], expected[n]) for n in actual if actual[n] != expected[n]}
    return f'{len(list(structs()))} structs, {len(expected)} sizes, offsets and constants'


def width(c_type):
    """Bytes of an argument or a result; None for void."""
    if '*' in c_type or '[' in c_type:
        return 8
    return {'void': None, 'size_t': 8, 'uint64_t': 8, 'double': 8}.get(c_type.split()[0], 4)


def check_prototypes():
    """As many arguments as in the header, all of them and the result as wide."""
    declared = {name: [result, *([] if arguments == 'void' else arguments.split(','))] for result, name, arguments in
                re.findall(r'MELU_API\s+([\w\s]+?[\s*])(\w+)\(([^;]*)\);', HEADER)}
    for name, (result, arguments) in melu.PROTOTYPES.items():
        # An array is passed as a pointer.
        ours = [t and (8 if hasattr(t, '_length_') else ctypes.sizeof(t)) for t in (result, *arguments)]
        assert ours == [width(t) for t in declared[name]], f'{name}: {ours} bytes for {declared[name]}'
    return f'{len(melu.PROTOTYPES)} prototypes'


class World:
    """20 people, 10 items, and a model that was trained a little."""

    def __init__(self):
        self.progress = None
        self.ctx = melu.Context(progress=lambda now: self.progress(now) if self.progress else None)
        schema = melu.Schema(self.ctx)
        schema.add('item', melu.ITEM, melu.ONE, n_values=10, width=4)
        schema.add('tags', melu.ITEM, melu.MANY, n_values=3, width=4)
        schema.add('age', melu.USER, melu.NUMERIC)
        self.data = melu.Dataset(self.ctx, schema)
        for i in range(10):
            self.data.add_item(100 + i, [i, np.array([i % 3, (i + 1) % 3], U32)])
        for u in range(20):
            self.data.add_user(u, [u / 20])
            rated = np.arange(6 + u % 4, dtype=np.uint64) + 100
            self.data.add_ratings(u, rated, ((rated * (u + 1)) % 5 + 1).astype(F32))
        self.data.freeze()
        self.model = melu.Model(self.ctx, self.data.schema, preset='best', seed=3)
        self.model.fit(self.data, n_epochs=2)
        self.workspace, self.user = melu.Workspace(self.model, 10), melu.User(self.model)
        self.items, self.ratings = np.array([0, 4, 7], U32), np.array([5, 1, 4], F32)
        self.adapt()

    def adapt(self):
        self.user.adapt(self.workspace, self.data, self.items, self.ratings, [0.5])


def raises(kind, call, *words):
    try:
        call()
    except kind as exception:
        for word in words:
            assert word in str(exception), f'{exception!r} does not say {word!r}'
        return exception
    raise AssertionError(f'no {kind.__name__}')


class Recorder:
    """Stands in for the library, and notes what it is asked."""

    def __init__(self):
        self.library, self.calls = melu._library, []

    def __enter__(self):
        melu._library = self
        return self

    def __exit__(self, *exception):
        melu._library = self.library

    def __getattr__(self, name):
        function = getattr(self.library, name)

        def call(*arguments):
            self.calls.append((name, arguments))
            return function(*arguments)
        return call

    def last(self, name):
        return [arguments for called, arguments in self.calls if called == name][-1]


def check_no_copies(w):
    """The library is given the addresses of the caller's own arrays, and writes into them."""
    memory = (ctypes.c_float * 10)()  # what is written is seen in memory that NumPy does not own
    scores, items = np.frombuffer(memory, F32), np.arange(10, dtype=U32)
    out = np.zeros(4, U32), np.zeros(4, F32)
    excluded = np.array([3], U32)
    with Recorder() as recorder:
        w.adapt()
        assert recorder.last('melu_adapt')[5:7] == (w.items.ctypes.data, w.ratings.ctypes.data)
        assert w.user.predict(w.workspace, w.data, items, out=scores) is scores
        given = recorder.last('melu_predict')
        assert given[0] == ctypes.addressof(memory) and given[5] == items.ctypes.data
        best, best_scores = melu.Catalog(w.model, w.data).top(w.workspace, w.user, out=out, exclude=excluded)
        given = recorder.last('melu_catalog_top')
        assert given[:2] == (out[0].ctypes.data, out[1].ctypes.data)
        assert given[6]._obj.exclude == excluded.ctypes.data
    assert np.shares_memory(best, out[0]) and np.shares_memory(best_scores, out[1])
    order = [i for i in np.argsort(-np.array(memory), kind='stable') if i != 3][:4]
    assert best.tolist() == order and np.allclose(best_scores, np.array(memory)[order])
    theirs, marks = w.data.ratings(5)
    assert theirs.ctypes.data == w.data.ratings(5)[0].ctypes.data and not marks.flags.writeable
    assert theirs.tolist() == list(range(7)) and marks[1] == 101 * 6 % 5 + 1
    return 'arrays are used where they are'


def check_refusals(w):
    predict = lambda items, out=None: w.user.predict(w.workspace, w.data, items, out)  # noqa: E731
    raises(TypeError, lambda: predict(np.arange(3)), 'items', 'uint32', 'int64')
    raises(TypeError, lambda: predict([1, 2]), 'items', 'list')
    raises(TypeError, lambda: predict(np.arange(8, dtype=U32)[::2]), 'items', 'gaps')
    raises(TypeError, lambda: predict(np.zeros((2, 2), U32)), 'items', 'dimension')
    raises(TypeError, lambda: predict(w.items.astype('>u4')), 'items', '>u4')
    raises(TypeError, lambda: predict(w.items, np.zeros(3)), 'out', 'float64')
    raises(ValueError, lambda: predict(w.items, np.zeros(2, F32)), 'out', '3')
    sealed = np.zeros(3, F32)
    sealed.flags.writeable = False
    raises(TypeError, lambda: predict(w.items, sealed), 'out', 'read-only')
    raises(ValueError, lambda: w.user.adapt(w.workspace, w.data, w.items, w.ratings[:2]), 'ratings')
    raises(ValueError, lambda: w.user.adapt(w.workspace, w.data, w.items, w.ratings, [1, 2]), 'values')
    raises(TypeError, lambda: w.model.fit(w.data, epochs=3), 'epochs')
    raises(TypeError, lambda: melu.Catalog(w.model, w.data).top(w.workspace, w.user, exclude=[1]), 'exclude')
    error = raises(melu.MeluError, lambda: predict(np.array([1, 77], U32)), 'MELU_ERANGE')
    assert error.name == 'MELU_ERANGE' and error.index == 1 and error.status < 0 and error.message
    assert raises(melu.MeluError, lambda: w.model.save('/nowhere/at/all')).sys_errno > 0
    raises(melu.MeluError, lambda: melu.Model.load(w.ctx, 'nowhere'), 'MELU_ENOTFOUND')
    raises(melu.MeluError, lambda: melu.Model(w.ctx, w.data.schema, preset='worst'), 'MELU_EINVAL')
    return 'bad input is refused'


def check_callbacks(w):
    class Oops(Exception):
        pass

    def oops(*_):
        raise Oops

    w.progress = oops
    raises(Oops, lambda: w.model.evaluate(w.data, n_query=3))
    w.progress = lambda now: 1
    raises(melu.MeluError, lambda: w.model.evaluate(w.data, n_query=3), 'MELU_ECANCELED')
    w.progress = None
    assert w.model.evaluate(w.data, n_query=3).mae > 0
    catalog = melu.Catalog(w.model, w.data)
    raises(Oops, lambda: catalog.top(w.workspace, w.user, 3, keep=oops))
    even = catalog.top(w.workspace, w.user, 10, keep=lambda number: number % 2 == 0, allow=np.array([0x7f], np.uint64))
    assert sorted(even[0].tolist()) == [0, 2, 4, 6]
    return 'what a callback raises arrives'


def check_users(w):
    before = w.user.predict(w.workspace, w.data, np.arange(10, dtype=U32))
    for form in melu.COMPACT, melu.READY:
        again = melu.User(w.model)
        again.load(w.workspace, w.data, w.user.save(w.workspace, form))
        assert np.array_equal(again.predict(w.workspace, w.data, np.arange(10, dtype=U32)), before)
    again.rate(w.workspace, w.data, 4, 5)
    again.rate(w.workspace, w.data, 8, 2)
    assert again.ratings[0].tolist() == [100, 104, 107, 108] and again.ratings[1].tolist() == [5, 5, 4, 2]
    fresh = melu.User(w.model)
    fresh.adapt(w.workspace, w.data, np.array([0, 4, 7, 8], U32), np.array([5, 5, 4, 2], F32), [0.5])
    catalog = melu.Catalog(w.model, w.data)
    assert np.array_equal(catalog.score(w.workspace, again), catalog.score(w.workspace, fresh))
    again.forget(w.workspace, w.data, 8)
    assert len(again.explain(w.workspace, w.data, 1)) == len(again.ratings[0]) == 3
    items, gains = again.ask(w.workspace, w.data, 9)
    assert sorted(items.tolist()) == [1, 2, 3, 5, 6, 8, 9] and (np.diff(gains) <= 0).all()
    broken = bytearray(again.save(w.workspace))
    broken[30] ^= 1
    raises(melu.MeluError, lambda: again.load(w.workspace, w.data, bytes(broken)))
    return 'users are saved, loaded, corrected, explained and asked'


def check_lives():
    """Whatever is closed first, nothing is freed before those who need it, and everything once."""
    with Recorder() as recorder:
        w = World()
        items, marks = w.data.ratings(4)
        catalog = melu.Catalog(w.model, w.data)

        def freed():
            gc.collect()
            names = [name[5:-5] for name, _ in recorder.calls if name.endswith('_free')]
            recorder.calls.clear()
            return names

        freed()
        for closed in w.ctx, w.data, w.model, w.model:
            closed.close()
        assert freed() == []
        raises(ValueError, w.model.digest, 'closed')
        for last in catalog, w.workspace, w.user:
            last.close()
        assert freed() == ['catalog', 'workspace', 'user', 'model']
        assert items.tolist() == list(range(6)) and len(marks) == 6  # the data set is still there
        del items, marks
        assert freed() == ['dataset', 'context']
        del w
        assert freed() == []
        with melu.Context() as ctx:
            schema = melu.Schema(ctx)
        assert freed() == []
        del schema
        assert freed() == ['schema', 'context']
    return 'objects are freed in order'


def table(text):
    """Numbers of the lines that the quickstart and the demo share: errors by count, and the stranger's."""
    errors = re.search(r'^  melu best\s+(.*)$', text, re.M).group(1).split()
    lines = re.search(r'^  \(nothing\).*?^  what she says herself[^\n]*', text, re.M | re.S).group(0).split('\n')
    return errors, [line.split() for line in lines]


def check_demo():
    run = lambda *command: subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: E731
    demo = run(sys.executable, f'{SOURCE}/examples/python/demo.py')
    assert not demo.stderr, demo.stderr
    ours, theirs = table(demo.stdout), table(run(QUICKSTART).stdout)
    assert ours == theirs, f'{ours}\n{theirs}'
    assert 'the same predictions' in demo.stdout and 'MELU_ECORRUPT' in demo.stdout, demo.stdout
    return f'the demo has the figures of the quickstart: {" ".join(ours[0])}'


def main():
    with tempfile.TemporaryDirectory() as folder:
        print(check_structs(pathlib.Path(folder)))
    print(check_prototypes())
    w = World()
    for check in check_no_copies, check_refusals, check_callbacks, check_users:
        print(check(w))
    print(check_lives())
    print(check_demo())


main()
