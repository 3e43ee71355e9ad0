#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Converts models of PyTorch with export_melu.py and `melu convert`, and compares what they predict after adaptation
with PyTorch's numbers (tests/oracle).
Usage: check_cli_convert.py SOURCE_DIR MELU [--torch]

With --torch the oracle's problems go through real checkpoints: written by torch.save, read by export_melu.py as a user
runs it. Without, and so in the tests, the same mapping is called with nested lists, because torch is large:

    apt-get install python3-torch
    /usr/bin/python3 tests/check_cli_convert.py . build-test/examples/cli/melu --torch"""
import importlib.util
import json
import pathlib
import sys

from cli_support import CLI, SOURCE, melu, refused, rows, run_checks, start, write

WITH_TORCH = sys.argv[3:] == ['--torch']
ORACLE = ('tiny_k1', 'multi_k2', 'full_k5', 'support1', 'dead_relu', 'all_dead', 'k0', 'one_hidden', 'three_hidden',
          'big_lr', 'repeat_rows', 'odd_sizes', 'paper_size')


def read_oracle(path):
    words = iter(path.read_text().split())

    def skip(word):
        assert next(words) == word

    def read_values(n_fields):
        return ['|'.join(next(words) for _ in range(int(next(words)))) for _ in range(n_fields)]

    skip('case')
    p = {'name': next(words), 'tasks': [], 'tensors': {}}
    skip('emb')
    next(words)
    skip('nhidden')
    p['n_layers'] = int(next(words)) + 1
    for _ in range(p['n_layers'] - 1):
        next(words)
    for name in ('K', 'lr'):
        skip(name)
        p[name] = next(words)
    skip('nfields')
    p['fields'] = [(next(words), int(next(words)), int(next(words)), int(next(words))) for _ in range(int(next(words)))]
    n_user = sum(f[1] for f in p['fields'])
    skip('ntasks')
    for _ in range(int(next(words))):
        skip('task')
        n_s, n_q = int(next(words)), int(next(words))
        user = read_values(n_user)
        items = [read_values(len(p['fields']) - n_user) for _ in range(n_s + n_q)]
        ratings = [next(words) for _ in range(n_s + n_q)]
        p['tasks'].append((n_s, user, items, ratings))
    while next(words) == 'tensor':
        name = next(words)
        shape = [int(next(words)) for _ in range(int(next(words)))]
        n = 1
        for d in shape:
            n *= d
        p['tensors'][name] = (shape, [float(next(words)) for _ in range(n)])
    return p


def nested(tensor):
    shape, numbers = tensor
    return [numbers[i:i + shape[1]] for i in range(0, len(numbers), shape[1])] if len(shape) == 2 else numbers


def make_checkpoint(p):
    """The problem's parameters as the reference code lays out and names them, and the fields as options say them."""
    state, fields = {}, ([], [])
    for name, is_user, is_many, _ in p['fields']:
        key = f"{'user' if is_user else 'item'}_emb.embedding_{name}.weight"
        table = nested(p['tensors'][f'p/E.{name}'])
        state['model.' + key] = [list(column) for column in zip(*table)] if is_many else table
        fields[is_user].append(f"{name}={'many' if is_many else 'one'}:{key}")
    layers = [f'fc{n}' for n in range(1, p['n_layers'])] + ['linear_out']
    for n, layer in enumerate(layers, 1):
        state[f'model.{layer}.weight'] = nested(p['tensors'][f'p/W{n}'])
        state[f'model.{layer}.bias'] = p['tensors'][f'p/b{n}'][1]
    return state, fields, layers


def load_exporter():
    spec = importlib.util.spec_from_file_location('export_melu', CLI / 'export_melu.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def export_checkpoint(exporter, p, out):
    state, (items, users), layers = make_checkpoint(p)
    if not WITH_TORCH:
        exporter.write(out, *exporter.export(state, items, users, layers, int(p['K']), float(p['lr'])))
        return
    import torch
    torch.save({name: torch.tensor(value, dtype=torch.float64) for name, value in state.items()}, f'{out}.pkl')
    args = [sys.executable, CLI / 'export_melu.py', f'{out}.pkl', out, '--inner-steps', p['K'], '--inner-lr', p['lr'],
            '--item', *items, '--layers', *layers, '--user', *users]
    start(args, 0)


def check_oracle(w):
    """A converted model predicts after adaptation what PyTorch does, to 1e-5 of the largest prediction."""
    exporter, worst = load_exporter(), {}
    for name in ORACLE:
        p = read_oracle(SOURCE / 'tests' / 'oracle' / f'{name}.txt')
        exported, model = w.folder / f'{name}.safetensors', w.folder / f'{name}.melu'
        export_checkpoint(exporter, p, exported)
        melu('convert', '--from', exported, '--out', model)
        item_names = [f[0] for f in p['fields'] if not f[1]]
        user_names = [f[0] for f in p['fields'] if f[1]]
        items, users, support = [], [], []
        for t, (n_s, user, values, ratings) in enumerate(p['tasks']):
            users.append([t, *user])
            for i, value in enumerate(values):
                items.append([f't{t}.{i}', *value])
                if i < n_s:
                    support.append([t, f't{t}.{i}', ratings[i]])
        files = [write(w.folder / f'{name}_{what}.csv', *table) for what, *table in (
            ('items', ['item', *item_names], items), ('users', ['user', *user_names], users),
            ('support', ['user', 'item', 'rating'], support))]
        found = rows('adapt', '--model', model, '--items', files[0], '--users', files[1], '--ratings', files[2],
                     '--predict')
        scores = {(int(r['user']), r['item']): r['score'] for r in found}
        for t, (n_s, _, values, _) in enumerate(p['tasks']):
            truth = p['tensors'][f't{t}/pred'][1]
            ours = [scores[t, f't{t}.{i}'] for i in range(n_s, len(values))]
            error = max(abs(a - b) for a, b in zip(ours, truth, strict=True)) / max(map(abs, truth))
            worst[name] = max(worst.get(name, 0), error)
            moved = max(abs(a - b) for a, b in zip(truth, p['tensors'][f't{t}/pred0'][1]))
            assert p['K'] == '0' or moved > 1e-3, f'{name}: adaptation changes nothing, so this shows nothing'
        assert worst[name] <= 1e-5, f'{name}: relative error {worst[name]:.1e}'
    by_torch = 'torch checkpoints' if WITH_TORCH else 'the exporter'
    return f'PyTorch: {len(worst)} problems through {by_torch}, worst relative error {max(worst.values()):.1e}'


def check_exporter(w):
    """What the exporter refuses, and what of its files `melu convert` refuses."""
    exporter = load_exporter()
    p = read_oracle(SOURCE / 'tests' / 'oracle' / 'tiny_k1.txt')
    state, (items, users), layers = make_checkpoint(p)

    def complains(words, **changes):
        args = dict(dict(state=state, items=items, users=users, layers=layers), **changes)
        try:
            exporter.export(**args)
        except exporter.BadCheckpoint as why:
            assert words in str(why), why
        else:
            raise AssertionError(f'nothing is said of "{words}"')

    complains('no "model.item_emb.nothing"', items=['rate=one:item_emb.nothing'])
    complains('is not NAME=one', items=['rate:item_emb.embedding_rate.weight'])
    complains('what enters it has', users=[])
    complains('outputs, not one', layers=layers[:-1])
    complains('does not have 2 dimensions', state=dict(state, **{'model.fc1.weight': [1.0, 2.0]}))
    good, tensors = w.folder / 'good.safetensors', exporter.export(state, items, users, layers)
    out = w.folder / 'never.melu'
    exporter.write(good, *tensors)
    description = json.loads(pathlib.Path(f'{good}.json').read_text())
    for words, change in (('fields', {'fields': 3}), ('inner_lr', {'inner_lr': 0}), ('hidden', {'hidden': []}),
                          ('owns nothing', {'fields': [dict(description['fields'][0], owner='nobody')]}),
                          ('W1', {'hidden': [7, 3]})):
        other = w.folder / 'other.json'
        other.write_text(json.dumps(dict(description, **change)))
        refused(3, words, 'convert', '--from', good, '--description', other, '--out', out)
    refused(3, 'json', 'convert', '--from', w.folder / 'nowhere', '--out', out)
    (w.folder / 'cut.safetensors').write_bytes(good.read_bytes()[:-3])
    refused(3, 'cut', 'convert', '--from', w.folder / 'cut.safetensors', '--description', f'{good}.json', '--out', out)
    tensors[0]['b1'] = [float('nan')] * len(tensors[0]['b1'])
    exporter.write(good, *tensors)
    refused(3, 'b1', 'convert', '--from', good, '--out', out)
    assert not out.exists()
    return 'exporter: what is no MeLU is refused'


run_checks(check_oracle, check_exporter)
