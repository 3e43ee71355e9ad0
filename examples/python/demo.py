#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The quickstart in Python: from a table of answers to predictions for somebody who was never seen.

2,800 people said of 25 statements about themselves how accurate they are, from 1 to 6. A fifth of the people are held
out. The model is meta-trained on the others, and predicts ten answers of each stranger after none, one, three, ... of
the remaining ones; then one stranger is shown by herself. The figures are those of quickstart.c.

    MELU_LIBRARY=build/lib/libmelu.so python3 demo.py [DIR]"""
import csv
import pathlib
import sys
import tempfile

import numpy as np

import melu

RATING_MIN, RATING_MAX = 1, 6
N_ASKED, N_KNOWN = 5, 10


def mix64(x):
    """The finalizer of SplitMix64, on which melu_split_order is built."""
    mask = 0xffffffffffffffff
    z = (x + 0x9E3779B97F4A7C15) & mask
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
    return z ^ (z >> 31)


def held_out(number):
    return mix64(number) % 5 == 0


def read_people(folder):
    """(people, 28): 25 answers, gender, education, age; 0 where nothing was said."""
    with open(folder / 'bfi.csv', newline='') as f:
        rows = list(csv.reader(f))[1:]
    return np.array([[0 if cell == 'NA' else int(cell) for cell in row] for row in rows])


def profile(person):
    """The values of a person's fields, in the schema's order: ids start at 0, None is missing."""
    gender, education, age = (int(x) for x in person[25:])
    return [gender - 1 if gender else None, education - 1 if education else None, float(age) if age else None]


def make_schema(ctx):
    schema = melu.Schema(ctx)
    schema.add('statement', melu.ITEM, melu.ONE)
    schema.add('gender', melu.USER, melu.ONE, n_values=2)
    schema.add('education', melu.USER, melu.ONE, n_values=5)
    schema.add('age', melu.USER, melu.NUMERIC, shift=29, scale=0.1)
    return schema


def make_dataset(ctx, schema, folder, people, strangers):
    """The statements, and those people who are held out, or those who are not."""
    data = melu.Dataset(ctx, schema)
    data.read_items(folder / 'bfi_items.tsv', id='item', skip=['trait', 'keying'])
    item_ids = np.array([data.item_id(i) for i in range(data.n_items)], np.uint64)
    for number, person in enumerate(people, 1):
        if held_out(number) != strangers:
            continue
        said = np.flatnonzero(person[:25])
        data.add_user(number, profile(person))
        data.add_ratings(number, item_ids[said], person[said].astype(np.float32))
    data.freeze()
    return data


def text(data, item):
    return data.schema.value_text('statement', data.item_ids_of(item, 0)[0])


def show_errors(model, strangers):
    counts = [0, 1, 3, 5, 10, 15]
    metrics = [model.evaluate(strangers, max_support=n or melu.NONE) for n in counts]
    print(f'mean absolute error on 10 answers of each of {metrics[0].n_users} strangers')
    print('  answers seen before    ' + ''.join(f'{n:8}' for n in counts))
    print('  melu best              ' + ''.join(f'{m.mae:8.4f}' for m in metrics))


def show_stranger(model, data, people):
    """The first woman who is held out and answered everything, learnt answer by answer."""
    number = next(n for n, p in enumerate(people, 1) if held_out(n) and p[25] == 2 and p[:25].all())
    person = people[number - 1]
    order = melu.split_order(np.empty(25, np.uint32), number)
    answers = person[order].astype(np.float32)
    asked, truth = order[-N_ASKED:], answers[-N_ASKED:]
    print(f'\na stranger: person {number}, a woman of {person[27]}')
    workspace, user = melu.Workspace(model, 25), melu.User(model)
    scores = np.empty(N_ASKED, np.float32)  # every prediction is written in here
    for n in range(N_KNOWN + 1):
        user.adapt(workspace, data, order[:n], answers[:n], profile(person))
        user.predict(workspace, data, asked, out=scores)
        guesses = scores.clip(RATING_MIN, RATING_MAX)
        said = f'{text(data, order[n - 1]):42.42} {answers[n - 1]:3.0f}' if n else f'{"(nothing)":46}'
        print(f'  {said}  ' + ''.join(f'{g:6.1f}' for g in guesses) + f'{abs(guesses - truth).mean():8.2f}')
    print(f'  {"what she says herself":46}  ' + ''.join(f'{t:6.0f}' for t in truth))
    return workspace, user, person


def show_serving(model, data, workspace, user, person):
    catalog = melu.Catalog(model, data)
    rated = np.array([data.find_item(int(i)) for i in user.ratings[0]], np.uint32)
    print('\nwhat else would she find accurate?')
    for item, score in zip(*catalog.top(workspace, user, 3, exclude=rated)):
        print(f'  {score:4.2f}  {text(data, item)}')

    (item,), _ = user.ask(workspace, data)
    before = user.predict(workspace, data, np.array([item], np.uint32))[0]
    user.rate(workspace, data, item, float(person[item]))
    print(f'\nasked next: {text(data, item)} Expected {before:.2f}, she says {person[item]}.')

    pulls = user.explain(workspace, data, item)
    print(f'the strongest pull on that prediction: {pulls[abs(pulls).argmax()]:+.2f}')

    compact, ready = user.save(workspace), user.save(workspace, melu.READY)
    again = melu.User(model)
    again.load(workspace, data, compact)
    same = np.array_equal(catalog.score(workspace, again), catalog.score(workspace, user))
    print(f'\nwritten down: {len(compact)} bytes, or {len(ready)} ready to predict; found again: '
          + ('the same predictions' if same else 'OTHER PREDICTIONS'))
    try:
        again.load(workspace, data, compact[:-1] + bytes([compact[-1] ^ 1]))
    except melu.MeluError as error:
        print(f'one bit altered: {error}')


def show_progress(now):
    if sys.stderr.isatty() and now.total:
        print(f'\r{now.phase.decode()} {100 * now.done // now.total} %\033[K', end='', file=sys.stderr)


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent / 'data'
    people = read_people(folder)
    with melu.Context(n_threads=2, progress=show_progress) as ctx:
        print(ctx.build_info)
        data = make_dataset(ctx, make_schema(ctx), folder, people, False)
        strangers = make_dataset(ctx, data.schema, folder, people, True)
        print(f'{data.n_users} people with {data.n_ratings} answers to learn from, {strangers.n_users} strangers\n')
        model = melu.Model(ctx, data.schema, preset='best', seed=1, rating_min=RATING_MIN, rating_max=RATING_MAX)
        model.fit(data, seed=1)
        with tempfile.TemporaryDirectory() as scratch:  # as a server would get it
            path = pathlib.Path(scratch) / 'model.safetensors'
            model.save(path)
            model = melu.Model.load(ctx, path)
        show_errors(model, strangers)
        workspace, user, person = show_stranger(model, strangers, people)
        show_serving(model, strangers, workspace, user, person)


if __name__ == '__main__':
    main()
