#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""MovieLens-1M, as MeLU divides it, as a shard folder of 16 files for examples/cluster: all ratings of all four states, films
by their genres. Usage: movielens.py MELU DATA SHARDS, DATA having users.dat, movies.dat and *_state.json."""
import csv
import json
import pathlib
import subprocess
import sys
import tempfile

USERS = ['user', 'gender', 'age', 'occupation', 'zip']


def write(path, header, rows):
    with open(path, 'w', newline='') as file:
        csv.writer(file).writerows([header, *rows])


def main():
    melu, data, shards = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    lines = {name: [line.split('::') for line in (data / f'{name}.dat').read_text(encoding='latin1').splitlines()]
             for name in ('users', 'movies')}
    ratings = {}
    for state in sorted(data.glob('*_state.json')):
        values = json.loads(state.with_name(state.name.replace('state', 'state_y')).read_text())
        for user, items in json.loads(state.read_text()).items():
            ratings.update({(user, item): value for item, value in zip(items, values[user])})
    rated = {item for _, item in ratings}
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        known = {m[0]: m[2] for m in lines['movies']}
        write(work / 'items.csv', ['item', 'genre'], [[i, known.get(i, '')] for i in sorted(known.keys() | rated)])
        write(work / 'users.csv', USERS[:4], [u[:4] for u in lines['users']])
        write(work / 'ratings.csv', ['user', 'item', 'rating'], [[*key, value] for key, value in sorted(ratings.items())])
        subprocess.run([melu, 'shard', '--items', work / 'items.csv', '--users', work / 'users.csv', '--ratings',
                        work / 'ratings.csv', '--files', '16', '--out', shards], check=True)


if __name__ == '__main__':
    main()
