#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The model of scale of docs/scale.md: from the time of a task and the bytes of a step to tasks a second by 1 to 1,000 ranks.
Prints a table, or writes the picture. Usage: scale_model.py [--svg FILE] [--check FILE] [--NAME VALUE ...]"""
import argparse
import pathlib
import sys

HEAD, SECTION, CHUNK = 16, 16, 2048
RANKS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1000]
PARAMETERS = {'task-us': (160, 'microseconds of a core for a task'),
              'tasks': (64, 'tasks a step and rank; with --batch, of all ranks together'),
              'cores': (16, 'cores of a rank'),
              'ratings': (100, 'ratings of a task, each of another item'),
              'rows': (10_000_000, 'rows of the table of items'),
              'cols': (32, 'numbers in a row'),
              'dense': (10_000, 'numbers outside tables'),
              'slots': (1000, 'slots'),
              'latency-us': (10, 'microseconds until a message is there'),
              'overhead-us': (1, 'microseconds of a rank for each message that it sends'),
              'gbit': (25, 'gigabits a second, each way, of a rank')}


def distinct(rows, draws):
    """How many rows so many draws touch, where a share x of the items has x^(1/3) of the ratings: by 400 groups of rows."""
    edges = [(k / 400) ** 3 for k in range(401)]
    sizes = [max(rows * (b - a), 1e-9) for a, b in zip(edges, edges[1:])]
    return sum(n * (1 - (1 - min(1, 1 / 400 / max(n, 1))) ** draws) for n in sizes)


def bytes_of_rank(p, n_ranks, is_sharded):
    """That a rank sends in a step, to all others together: docs/scale.md, "Bytes"."""
    if n_ranks == 1:
        return 0
    others, row = n_ranks - 1, 4 * p.cols
    own = distinct(p.rows, p.ratings * p.tasks_of_rank)  # rows that its tasks touch
    all_rows = distinct(p.rows, p.ratings * p.tasks_of_rank * n_ranks)
    away = others / n_ranks  # the share of rows whose owner is another rank
    sections = 3 * SECTION * others
    gradient = own * away * (4 + row) + sections
    dense = 4 * p.dense * away + others * SECTION * (1 + p.dense // n_ranks // CHUNK)
    numbers = 8 * (3 + 3 + 2 * p.slots / n_ranks) * others
    weights = 4 * p.dense * away
    if is_sharded:
        tables = own * away * 4 + own * away * row + 2 * sections  # what it asks for, and what it answers
    else:
        tables = all_rows / n_ranks * others * (4 + row) + sections
    return gradient + dense + numbers + weights + tables + 3 * HEAD * others


def step(p, n_ranks, is_sharded):
    compute = p.task_us * 1e-6 * -(-p.tasks_of_rank // p.cores)
    if n_ranks == 1:
        return compute
    messages = 4 * (p.latency_us + p.overhead_us * (n_ranks - 1)) * 1e-6
    return compute + messages + 8 * bytes_of_rank(p, n_ranks, is_sharded) / (p.gbit * 1e9)


def throughput(p, n_ranks, is_sharded, batch=0):
    p.tasks_of_rank = max(1, batch // n_ranks) if batch else p.tasks
    return n_ranks * p.tasks_of_rank / step(p, n_ranks, is_sharded)


def lines(p):
    """The curves: name, colour, dashes, tasks a second by the number of ranks."""
    one = p.tasks / (p.task_us * 1e-6 * -(-p.tasks // p.cores))
    yield 'no communication', '#8a8a8a', '4 4', [n * one for n in RANKS]
    yield 'sharded', '#0b5fa5', '', [throughput(p, n, True) for n in RANKS]
    yield 'replicated', '#d55e00', '', [throughput(p, n, False) for n in RANKS]
    yield f'sharded, a batch of {p.batch} for all', '#0b5fa5', '2 3', [throughput(p, n, True, p.batch) for n in RANKS]
    yield f'replicated, a batch of {p.batch} for all', '#d55e00', '2 3', [throughput(p, n, False, p.batch) for n in RANKS]


def picture(p):
    """Both axes by powers of ten."""
    import math
    all_lines = list(lines(p))
    low = math.floor(math.log10(min(min(y) for *_, y in all_lines)))
    high = math.ceil(math.log10(max(max(y) for *_, y in all_lines)))
    at_x = lambda n: 80 + 440 * math.log10(n) / 3  # noqa: E731
    at_y = lambda y: 350 - 310 * (math.log10(y) - low) / (high - low)  # noqa: E731
    parts = ["<svg xmlns='http://www.w3.org/2000/svg' width='760' height='410' viewBox='0 0 760 410' "
             "font-family='Helvetica, Arial, sans-serif' font-size='13' fill='#222222'>",
             "<rect width='760' height='410' fill='#ffffff'/>",
             "<text x='80' y='24' font-size='15'>Tasks a second, by the model</text>",
             "<text x='300' y='396' text-anchor='middle'>ranks</text>"]
    for e in range(low, high + 1):
        y = at_y(10 ** e)
        parts.append(f"<line x1='80' x2='520' y1='{y:.1f}' y2='{y:.1f}' stroke='#dddddd'/>"
                     f"<text x='72' y='{y + 4:.1f}' text-anchor='end'>{10 ** e:,}</text>")
    for n in (1, 10, 100, 1000):
        parts.append(f"<line x1='{at_x(n):.1f}' x2='{at_x(n):.1f}' y1='40' y2='350' stroke='#dddddd'/>"
                     f"<text x='{at_x(n):.1f}' y='370' text-anchor='middle'>{n:,}</text>")
    for i, (name, colour, dashes, y) in enumerate(all_lines):
        points = ' '.join(f'{at_x(n):.1f},{at_y(v):.1f}' for n, v in zip(RANKS, y))
        style = f"stroke='{colour}' stroke-width='2' stroke-dasharray='{dashes or 'none'}'"
        parts.append(f"<polyline points='{points}' fill='none' {style}/>"
                     f"<line x1='535' x2='560' y1='{60 + 24 * i}' y2='{60 + 24 * i}' {style}/>"
                     f"<text x='566' y='{64 + 24 * i}'>{name}</text>")
    return '\n'.join(parts + ['</svg>', ''])


def table(p):
    yield f'{"ranks":>6}{"replicated":>14}{"of ideal":>10}{"KB a rank":>12}{"sharded":>14}{"of ideal":>10}{"KB a rank":>12}'
    one = throughput(p, 1, True)
    for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000):
        row = f'{n:6}'
        for is_sharded in (False, True):
            y = throughput(p, n, is_sharded)
            row += f'{y:14,.0f}{y / n / one:10.2f}{bytes_of_rank(p, n, is_sharded) / 1000:12,.0f}'
        yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name, (default, what) in PARAMETERS.items():
        parser.add_argument('--' + name, type=type(default), default=default, help=f'{what} ({default:,})')
    parser.add_argument('--batch', type=int, default=16384, help='of the dotted lines (16,384)')
    parser.add_argument('--svg', help='write the picture there')
    parser.add_argument('--check', help='compare it with what is there')
    p = parser.parse_args()
    if p.svg:
        pathlib.Path(p.svg).write_text(picture(p), encoding='utf-8')
    if p.check:
        assert pathlib.Path(p.check).read_text(encoding='utf-8') == picture(p), f'{p.check} is not what the model draws'
    print('\n'.join(table(p)))


if __name__ == '__main__':
    sys.exit(main())
