#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Plants one error after another in the gradient rules of lib/tape/ops.c and sees whether the tests of ops notice.
Nothing of the source tree is changed. Usage: plant_errors.py SOURCE_DIR BUILD_DIR (where libmelu_double.a was built);
prints the table of docs/planted-errors.md. Ends with 1 if an error survives."""
import pathlib
import re
import subprocess
import sys
import tempfile

SOURCE, BUILD = (pathlib.Path(arg).resolve() for arg in sys.argv[1:])
FLAGS = ['-std=c11', '-D_POSIX_C_SOURCE=200809L', '-DMELU_BUILD', '-DMELU__DOUBLE', '-O1',
         f'-I{SOURCE}/include', f'-I{SOURCE}/lib', f'-DORACLE_DIR="{SOURCE}/tests/oracle"']
LIBS = ['-lcheck', '-lsubunit', '-lrt', '-ljansson', '-lblis', '-lm', '-lpthread']

# rule, what is in it, what is planted, in words
PLANTS = [
    ('matmul', 'd[0] = ta ? melu__tape_matmul(t, B, g, tb, 1) : melu__tape_matmul(t, g, B, 0, !tb)',
     'd[0] = melu__tape_scale(t, ta ? melu__tape_matmul(t, B, g, tb, 1) : melu__tape_matmul(t, g, B, 0, !tb), -1)',
     'sign of dA'),
    ('matmul', 'd[0] = ta ? melu__tape_matmul(t, B, g, tb, 1) :', 'd[0] = 0 ? 0 :', "transpose of A forgotten in dA"),
    ('matmul', 'melu__tape_matmul(t, g, B, 0, !tb)', 'melu__tape_matmul(t, g, B, 0, tb)', "transpose of B swapped in dA"),
    ('matmul', 'd[1] = tb ? melu__tape_matmul(t, g, A, 1, ta) :', 'd[1] = 0 ? 0 :', 'transpose of B forgotten in dB'),
    ('matmul', 'melu__tape_matmul(t, A, g, !ta, 0)', 'melu__tape_scale(t, melu__tape_matmul(t, A, g, !ta, 0), 2)', 'dB twice'),
    ('add', 'd[0] = d[1] = g;', 'd[0] = g; d[1] = melu__tape_scale(t, g, -1);', 'sign of db'),
    ('add', 'd[0] = d[1] = g;', 'd[1] = g; d[0] = melu__tape_scale(t, g, 2);', 'da twice'),
    ('sub', 'melu__tape_scale(t, g, -1)', 'g', 'sign of db'),
    ('sub', 'd[0] = g;', 'd[0] = melu__tape_scale(t, g, -1);', 'sign of da'),
    ('mul', 'd[0] = melu__tape_mul(t, g, B)', 'd[0] = melu__tape_mul(t, g, A)', 'wrong factor in da'),
    ('mul', 'd[1] = melu__tape_mul(t, g, A)', 'd[1] = melu__tape_mul(t, g, B)', 'wrong factor in db'),
    ('mul', 'd[1] = melu__tape_mul(t, g, A)', 'd[1] = melu__tape_mul(t, g, melu__tape_detach(t, A))',
     'factor detached: only the second derivative is wrong'),
    ('scale', 't->nodes[y].s', '1', 'factor forgotten'),
    ('add_row', 'd[0] = g;', 'd[0] = melu__tape_scale(t, g, 2);', 'da twice'),
    ('add_row', 'melu__tape_sum_rows(t, g)', 'melu__tape_scale(t, melu__tape_sum_rows(t, g), -1)', 'sign of db'),
    ('sum_rows', 'melu__tape_rows(t, g, t->nodes[A].rows)',
     'melu__tape_scale(t, melu__tape_rows(t, g, t->nodes[A].rows), 1.0 / t->nodes[A].rows)', 'a mean for a sum'),
    ('rows', 'melu__tape_sum_rows(t, g)', 'melu__tape_scale(t, melu__tape_sum_rows(t, g), 0.5)', 'half'),
    ('sum_cols', 'melu__tape_cols(t, g, t->nodes[y].trans_a, t->nodes[A].cols)',
     'melu__tape_scale(t, melu__tape_cols(t, g, t->nodes[y].trans_a, t->nodes[A].cols), -1)', 'sign'),
    ('cols', 'melu__tape_sum_cols(t, g, t->nodes[y].trans_a)',
     'melu__tape_scale(t, melu__tape_sum_cols(t, g, t->nodes[y].trans_a), 2)', 'twice'),
    ('sum_all', 'melu__tape_fill(t, g, t->nodes[A].rows, t->nodes[A].cols)',
     'melu__tape_const(t, t->nodes[A].rows, t->nodes[A].cols, 1)', 'gradient of the result forgotten'),
    ('fill', 'melu__tape_sum_all(t, g)', 'melu__tape_scale(t, melu__tape_sum_all(t, g), -1)', 'sign'),
    ('relu', 'melu__tape_step(t, A)', 'melu__tape_relu(t, A)', 'relu for its step'),
    ('relu', 'melu__tape_mul(t, g, melu__tape_step(t, A))', 'g', 'step forgotten'),
    ('sigmoid', 'melu__tape_sub(t, y, melu__tape_mul(t, y, y))', 'melu__tape_mul(t, y, y)', "s s for s - s s"),
    ('sigmoid', 'melu__tape_sub(t, y, melu__tape_mul(t, y, y))',
     'melu__tape_detach(t, melu__tape_sub(t, y, melu__tape_mul(t, y, y)))', 'detached: only the second derivative is wrong'),
    ('log', 'melu__tape_recip(t, A)', 'melu__tape_recip(t, y)', '1 / log x for 1 / x'),
    ('recip', '-1)', '1)', 'sign'),
    ('recip', 'melu__tape_mul(t, y, y)', 'y', 'square forgotten'),
    ('sqrt', '0.5)', '-0.5)', 'sign'),
    ('sqrt', '0.5)', '1)', '1 / root for 1 / (2 root)'),
    ('sqrt', 'melu__tape_recip(t, y)', 'melu__tape_recip(t, A)', '1 / x for 1 / root'),
    ('sqrt', 'melu__tape_recip(t, y)', 'melu__tape_detach(t, melu__tape_recip(t, y))',
     'detached: only the second derivative is wrong'),
    ('transpose', 'melu__tape_transpose(t, g)', 'melu__tape_scale(t, melu__tape_transpose(t, g), -1)', 'sign'),
    ('concat', 'melu__tape_slice(t, g, 0, a_cols)', 'melu__tape_slice(t, g, b_cols, a_cols)', 'wrong columns for a'),
    ('concat', 'melu__tape_slice(t, g, a_cols, b_cols)', 'melu__tape_slice(t, g, 0, b_cols)', 'wrong columns for b'),
    ('slice', 'if (n.index) g = melu__tape_concat(t, melu__tape_const(t, n.rows, n.index, 0), g)',
     'if (n.index) g = melu__tape_concat(t, g, melu__tape_const(t, n.rows, n.index, 0))', 'zeros on the wrong side'),
    ('slice', 'melu__tape_const(t, n.rows, after, 0)', 'melu__tape_const(t, n.rows, after, 1)', 'ones for zeros'),
    ('diag', 'melu__tape_diagonal(t, g)', 'melu__tape_scale(t, melu__tape_diagonal(t, g), -1)', 'sign'),
    ('diag', 'melu__tape_diagonal(t, g)', 'melu__tape_sum_rows(t, g)', 'sums of columns for the diagonal'),
    ('diagonal', 'melu__tape_diag(t, g)', 'melu__tape_scale(t, melu__tape_diag(t, g), -1)', 'sign'),
    ('diagonal', 'melu__tape_diag(t, g)', 'melu__tape_rows(t, g, t->nodes[g].cols)', 'not zero beside the diagonal'),
    ('bag', 'melu__tape_bag_t(', 'melu__tape_scale(t, melu__tape_bag_t(', 'sign'),
    ('bag_t', 'melu__tape_bag(', 'melu__tape_scale(t, melu__tape_bag(', 'sign'),
    ('solve', '-0.5)', '0.5)', 'sign of dA'),
    ('solve', '-0.5)', '-1)', 'dA twice'),
    ('solve', 'melu__tape_matmul(t, y, db, 0, 1)', 'melu__tape_matmul(t, db, y, 0, 1)', 'dA not symmetric'),
    ('solve', 'd[1] = db;', 'd[1] = g;', 'dB not solved'),
]


def planted(text, rule, old, new):
    start = text.index(f'static void grad_{rule}(')
    end = text.index('\n}\n', start)
    body = text[start:end]
    assert body.count(old) >= 1, f'{rule}: "{old}" is not in the rule'
    changed = body.replace(old, new, 1)
    if rule in ('bag', 'bag_t'):  # the scale that was opened needs its end
        changed = re.sub(r'\.rows\);$', '.rows), -1);', changed, flags=re.M)
    return text[:start] + changed + text[end:]


def notices(folder, tests):
    """Which of the programs end with a failure."""
    subprocess.run(['cc', *FLAGS, '-c', folder / 'ops.c', '-o', folder / 'ops.o'], check=True)
    found = []
    for name in tests:
        # ops.o comes before the library, whose own copy is then not taken.
        subprocess.run(['cc', folder / f'{name}.o', folder / 'ops.o', BUILD / 'lib' / 'libmelu_double.a', *LIBS,
                        '-o', folder / name], check=True)
        run = subprocess.run([folder / name], capture_output=True, text=True, timeout=600)
        if run.returncode:
            found.append((name, re.search(r'Failures: (\d+), Errors: (\d+)', run.stdout)))
    return found


def main():
    text = (SOURCE / 'lib/tape/ops.c').read_text()
    rules = set(re.findall(r'static void grad_(\w+)\(', text))
    missing = rules - {p[0] for p in PLANTS}
    assert not missing, f'no error is planted in {missing}'
    survivors = 0
    tests = ('test_ops', 'test_oracle')
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name in tests:
            subprocess.run(['cc', *FLAGS, f'-I{SOURCE}/tests', '-c', SOURCE / 'tests' / f'{name}.c', '-o',
                            folder / f'{name}.o'], check=True)
        (folder / 'ops.c').write_text(text)
        assert not notices(folder, tests), 'the tests fail without any error'
        print('| rule | planted error | noticed by (failed checks) |\n|---|---|---|')
        for rule, old, new, words in PLANTS:
            (folder / 'ops.c').write_text(planted(text, rule, old, new))
            found = notices(folder, tests)
            survivors += not found
            who = ', '.join(f'`{n}` ({int(m.group(1)) + int(m.group(2)) if m else "crash"})' for n, m in found)
            print(f'| `{rule}` | {words} | {who or "**nobody**"} |', flush=True)
    print(f'\n{len(PLANTS)} errors in {len(rules)} rules, {len(PLANTS) - survivors} noticed.')
    return 1 if survivors else 0


sys.exit(main())
