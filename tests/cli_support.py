# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of `melu`, the program, share: running it, files, a model. The command line of each of them is
SOURCE_DIR MELU."""
import csv
import json
import pathlib
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
SOURCE, MELU = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
CLI = SOURCE / 'examples' / 'cli'
BFI = SOURCE / 'examples' / 'data'
COMMANDS = ('train', 'evaluate', 'adapt', 'recommend', 'ask', 'inspect', 'convert', 'shard')


def start(args, status, **how):
    args = [str(a) for a in args]
    done = subprocess.run(args, stderr=subprocess.PIPE, timeout=300, **how)
    errors = done.stderr.decode()
    assert done.returncode == status, f'{args} ended with {done.returncode}, not {status}:\n{errors}'
    assert bool(errors) == (status != 0), f'{args} ended with {status} and said {errors!r}'
    return done, errors


def melu(*args):
    """The output of a command that succeeds, and says nothing on stderr, which is no terminal."""
    return start([MELU, *args], 0, stdout=subprocess.PIPE)[0].stdout.decode()


def refused(status, words, *args):
    """A command that fails must say why in words, in one message, and write nothing to stdout."""
    done, errors = start([MELU, *args], status, stdout=subprocess.PIPE)
    assert not done.stdout, f'{args}: failed, and printed {done.stdout!r}'
    assert re.search(words, errors), f'{args}: {words!r} is not in {errors!r}'
    if status != 2:
        assert errors.startswith('error: ') and errors.count('\n') == 1, errors


def rows(*args):
    """The rows that a command prints as JSON."""
    return json.loads(melu(*args, '--json'))


def write(path, header, lines, separator=','):
    with open(path, 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f, delimiter=separator, lineterminator='\n')
        writer.writerow(header)
        writer.writerows(lines)
    return path


def make_bfi(folder):
    """The answers of examples/data in long form: four fifths to learn from, a fifth as strangers."""
    with open(BFI / 'bfi.csv', newline='') as f:
        people = list(enumerate(csv.DictReader(f), 1))
    items = list(people[0][1])[:25]
    for name, wanted in (('train', lambda n: n % 5), ('test', lambda n: n % 5 == 0)):
        chosen = [(n, p) for n, p in people if wanted(n)]
        write(folder / f'{name}_users.csv', ['user', 'gender', 'education', 'age'],
              [[n, p['gender'], p['education'], p['age']] for n, p in chosen])
        write(folder / f'{name}.csv', ['user', 'item', 'rating'],
              [[n, i, p[i]] for n, p in chosen for i in items if p[i] != 'NA'])


class World:
    """What the checks share: the files of bfi and a model trained on them for a few epochs."""

    def __init__(self, folder):
        self.folder = folder
        self.items = BFI / 'bfi_items.tsv'
        make_bfi(folder)
        self.model = folder / 'bfi.melu'
        self.train = ['train', '--items', self.items, '--users', folder / 'train_users.csv', '--ratings',
                      folder / 'train.csv', '--epochs', '3', '--field', 'gender=one']
        self.told = melu(*self.train, '--threads', '2', '--model', self.model)
        self.on = ['--model', self.model, '--items', self.items]
        self.mine = write(folder / 'mine.csv', ['item', 'rating'], [['A1', 2], ['E4', 5], ['N1', 6]])


def predictions(w, *args):
    return rows('adapt', *w.on, *args, '--predict')


def run_checks(*checks):
    with tempfile.TemporaryDirectory() as folder:
        w = World(pathlib.Path(folder))
        for check in checks:
            print(check(w), flush=True)
