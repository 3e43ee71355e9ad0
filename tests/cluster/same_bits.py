#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The weights after N steps by 1 to 4 ranks, which are threads or processes of each MPI, with tables replicated and sharded,
are the same bits; and so are those of a training that 4 ranks began and 2 or 3 ended.
Usage: same_bits.py EXAMPLES [--steps N] [--shards DIR] [OPTION OF CLUSTER ...], EXAMPLES being the folder of the built
program; DIR was made by melu shard --files 16 (tests/cluster/movielens.py makes one of ML-1M)."""
import argparse
import pathlib
import sys
import tempfile

import runs


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('examples')
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--shards')
    given, others = parser.parse_known_args()
    common = [*([given.shards] if given.shards else []), '--steps', given.steps, '--digest', *others]
    launchers, found = runs.launchers(given.examples), {}
    for tables in ('--replicated', '--sharded'):
        for name, command in launchers.items():
            for n in (1, 2, 3, 4):
                found[f'{tables} {name} {n}'] = runs.digest_of(runs.run(command(n), *common, tables))
                print(found[f'{tables} {name} {n}'], tables[2:], name, n, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for tables in ('--replicated', '--sharded'):
            for name, command in launchers.items():
                for n in (2, 3):
                    file = pathlib.Path(folder) / 'training'
                    options = [*common, tables, '--checkpoint', file, '--every', max(1, given.steps // 7)]
                    paused = runs.run(command(4), *options, '--pause', given.steps // 2)
                    ended = f'{tables} {name} 4, then {n}'
                    found[ended] = runs.digest_of(runs.run(command(n), *options, '--resume'))
                    print(found[ended], tables[2:], name, f'4, then {n}', flush=True)
                    assert runs.digest_of(paused) != found[ended], 'it was over when it was paused'
                    for part in file.parent.iterdir():
                        part.unlink()
    assert len(set(found.values())) == 1, 'they differ'
    print(f'{len(found)} trainings of {given.steps} steps: the same bits')


if __name__ == '__main__':
    sys.exit(main())
