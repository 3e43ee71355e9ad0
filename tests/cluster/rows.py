#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A step of 4 ranks with a sharded table of 10 million rows beside one of 100 thousand, with Adam: its time and its bytes must
be the same within 1.2; and a rank's memory below a third of what one rank takes that has all rows. Runs come in pairs, one
of each right after the other, so that what else the machine does is in both; medians count. Ranks are threads, which compute
on however many processors there are: time is that of the busiest rank's processor, and, printed beside it, that of the clock.
The first epoch, in which the system gives the pages of rows, is not counted. By default the preset is melu, whose table has
32 columns; best has 33 with --rank 15, and a fifth of the computing.
Usage: rows.py EXAMPLES [PAIRS (5)] [OPTION OF CLUSTER ...]"""
import statistics
import sys

import runs

FEW, MANY, N_RANKS, LIMIT, SHARE = 100_000, 10_000_000, 4, 1.2, 1 / 3
OPTIONS = ['--items', 20000, '--users', 4000, '--ratings', 100, '--batch', 64, '--skip', 63, '--steps', 189,
           '--measure']


def measure(threads, n_ranks, n_rows, *more):
    sharded = ['--sharded'] if n_ranks > 1 else []
    return runs.measured(runs.run(threads(n_ranks), *OPTIONS, *sharded, '--rows', n_rows, *more))


def main():
    numbers = [int(x) for x in sys.argv[2:3] if x.isdigit()]
    more = sys.argv[2 + len(numbers):] or ['--preset', 'melu']
    threads, n_pairs = runs.launchers(sys.argv[1])['threads'], numbers[0] if numbers else 5
    found = {FEW: [], MANY: []}
    for pair in range(n_pairs):
        for n_rows in (FEW, MANY) if pair % 2 == 0 else (MANY, FEW):
            found[n_rows].append(measure(threads, N_RANKS, n_rows, *more))
        few, many = found[FEW][-1], found[MANY][-1]
        print(f'{pair + 1}: {many["cpu_of_a_rank_ms"]:.2f} ms of a processor beside {few["cpu_of_a_rank_ms"]:.2f}, '
              f'{many["step_ms"]:.1f} ms of the clock beside {few["step_ms"]:.1f}', flush=True)
    ratios = {what: statistics.median(m[what] / f[what] for m, f in zip(found[MANY], found[FEW]))
              for what in ('cpu_of_a_rank_ms', 'step_ms', 'bytes_per_step')}
    whole = measure(threads, 1, MANY, *more)['memory_of_a_rank_mib']
    own = max(m['memory_of_a_rank_mib'] for m in found[MANY])
    print(f'medians of {n_pairs} pairs, {MANY:,} rows beside {FEW:,}: processor {ratios["cpu_of_a_rank_ms"]:.2f}, clock '
          f'{ratios["step_ms"]:.2f}, bytes {ratios["bytes_per_step"]:.3f}; a rank has {own:.0f} of {whole:.0f} MiB: '
          f'{own / whole:.2f}')
    assert ratios['cpu_of_a_rank_ms'] < LIMIT and 1 / LIMIT < ratios['bytes_per_step'] < LIMIT and own < SHARE * whole


if __name__ == '__main__':
    sys.exit(main())
