#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Takes a MeLU that was trained with PyTorch out of its checkpoint, for `melu convert --from`.

Writes OUT, a safetensors file with libmelu's names for the parameters, and OUT.json, which says what the model is. Only
reading the checkpoint needs torch. The names expected are those of the MeLU reference code; options tell of others:

    export_melu.py models.pkl melu.safetensors --inner-steps 1 --inner-lr 5e-6
    melu convert --from melu.safetensors --out model.melu

A field is NAME=KIND:KEY, where KEY is the table's name in the checkpoint and KIND one of

    one    an Embedding, (values, width); an item or a user has at most one value
    bag    an Embedding or EmbeddingBag, (values, width), of which the mean over a list of values is taken
    many   a Linear without a bias, (width, values), times a row of zeros and ones, over their count: the same mean

The order of fields is that of the network's input: all of the item, then all of the user. The values are numbers, those
of the rows; so cells of the tables that the converted model reads are numbers from 0 on. A row for unknown values is
added, of zeros."""
import argparse
import json
import struct
import sys

ITEM = ['rate=one:item_emb.embedding_rate.weight', 'genre=many:item_emb.embedding_genre.weight',
        'director=many:item_emb.embedding_director.weight', 'actor=many:item_emb.embedding_actor.weight']
USER = ['gender=one:user_emb.embedding_gender.weight', 'age=one:user_emb.embedding_age.weight',
        'occupation=one:user_emb.embedding_occupation.weight', 'area=one:user_emb.embedding_area.weight']
LAYERS = ['fc1', 'fc2', 'linear_out']


class BadCheckpoint(Exception):
    pass


def parse_field(text, owner):
    name, _, rest = text.partition('=')
    kind, _, key = rest.partition(':')
    if not name or not key or kind not in ('one', 'bag', 'many'):
        raise BadCheckpoint(f'field "{text}" is not NAME=one:KEY, NAME=bag:KEY or NAME=many:KEY')
    return {'name': name, 'owner': owner, 'kind': kind, 'key': key}


def find_prefix(state, key):
    """The reference code's network is the member `model` of what it saves; other code has other names for it."""
    for found in state:
        if found == key or found.endswith('.' + key):
            return found[:len(found) - len(key)]
    raise BadCheckpoint(f'there is no "{key}" in the checkpoint; it has ' + ', '.join(sorted(state)))


def take(state, key, n_dims, used):
    """A tensor as nested lists, of that many dimensions."""
    if key not in state:
        raise BadCheckpoint(f'there is no "{key}" in the checkpoint; it has ' + ', '.join(sorted(state)))
    used.add(key)
    rows = state[key]
    is_matrix = bool(rows) and isinstance(rows[0], (list, tuple))
    if not rows or is_matrix != (n_dims == 2) or (is_matrix and len({len(row) for row in rows}) != 1):
        raise BadCheckpoint(f'"{key}" does not have {n_dims} dimensions')
    return rows


def export(state, items=ITEM, users=USER, layers=LAYERS, inner_steps=1, inner_lr=0.01, rating_min=1, rating_max=5):
    """The mapping itself: `state` has nested lists of numbers by name. Returns the tensors under libmelu's names, in
    its order, and the description."""
    fields = [parse_field(t, 'item') for t in items] + [parse_field(t, 'user') for t in users]
    prefix = find_prefix(state, layers[0] + '.weight')
    tensors, described, used = {}, [], set()
    for field in fields:
        table = take(state, prefix + field['key'], 2, used)
        if field['kind'] == 'many':
            table = [list(row) for row in zip(*table)]
        width = len(table[0])
        tensors['E.' + field['name']] = table + [[0.0] * width]
        described.append({'name': field['name'], 'owner': field['owner'],
                          'kind': 'one' if field['kind'] == 'one' else 'many', 'n_values': len(table), 'width': width})
    inputs = sum(field['width'] for field in described)
    for number, layer in enumerate(layers, 1):
        weight = take(state, f'{prefix}{layer}.weight', 2, used)
        bias = take(state, f'{prefix}{layer}.bias', 1, used)
        if len(weight[0]) != inputs or len(bias) != len(weight):
            raise BadCheckpoint(f'"{prefix}{layer}" is {len(weight)} x {len(weight[0])} with {len(bias)} biases, and '
                                f'what enters it has {inputs} numbers')
        tensors[f'W{number}'], tensors[f'b{number}'] = weight, bias
        inputs = len(weight)
    if inputs != 1:
        raise BadCheckpoint(f'the last layer, "{layers[-1]}", has {inputs} outputs, not one')
    unused = sorted(set(state) - used)
    if unused:
        print('left out:', ', '.join(unused), file=sys.stderr)
    return tensors, {'fields': described, 'hidden': [len(tensors[f'b{n}']) for n in range(1, len(layers))],
                     'inner_steps': inner_steps, 'inner_lr': inner_lr, 'rating_min': rating_min,
                     'rating_max': rating_max}


def write(path, tensors, description):
    """Writes a safetensors file and, beside it, the description, which is in the file's metadata, too."""
    header, parts, at = {'__metadata__': {'melu.description': json.dumps(description)}}, [], 0
    for name, rows in tensors.items():
        is_matrix = isinstance(rows[0], (list, tuple))
        shape = [len(rows), len(rows[0])] if is_matrix else [len(rows)]
        numbers = [x for row in rows for x in row] if is_matrix else rows
        parts.append(struct.pack(f'<{len(numbers)}f', *numbers))
        header[name] = {'dtype': 'F32', 'shape': shape, 'data_offsets': [at, at + len(parts[-1])]}
        at += len(parts[-1])
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as file:
        file.write(struct.pack('<Q', len(text)) + text + b''.join(parts))
    with open(f'{path}.json', 'w', encoding='utf-8') as file:
        json.dump(description, file, indent=2)
        file.write('\n')


def load(path):
    """The checkpoint's tensors as nested lists. Nothing but tensors is unpickled."""
    import torch
    state = torch.load(path, map_location='cpu', weights_only=True)
    state = state.get('state_dict', state)
    return {name: tensor.double().tolist() for name, tensor in state.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help='a state_dict, as torch.save writes it')
    parser.add_argument('out', help='the safetensors file')
    parser.add_argument('--item', nargs='+', default=ITEM, metavar='FIELD', help="the item's fields")
    parser.add_argument('--user', nargs='*', default=USER, metavar='FIELD', help="the user's fields")
    parser.add_argument('--layers', nargs='+', default=LAYERS, metavar='NAME', help='the decision layers')
    parser.add_argument('--inner-steps', type=int, required=True, help='inner steps of the training')
    parser.add_argument('--inner-lr', type=float, required=True, help='inner learning rate of the training')
    parser.add_argument('--rating-min', type=float, default=1, help='smallest rating (1)')
    parser.add_argument('--rating-max', type=float, default=5, help='largest rating (5)')
    a = parser.parse_args()
    try:
        write(a.out, *export(load(a.checkpoint), a.item, a.user, a.layers, a.inner_steps, a.inner_lr, a.rating_min,
                             a.rating_max))
    except BadCheckpoint as why:
        sys.exit(f'error: {a.checkpoint}: {why}')


if __name__ == '__main__':
    main()
