#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs the examples and looks at what they print. The MovieLens part needs ml-1m-melu.tar.gz, which may not be
redistributed, in the folder $MELU_SHARED/data or ../shared/data; it says so when it is not there.
Usage: check_examples.py SOURCE_DIR QUICKSTART MOVIELENS OWN_LOOP LECTURERS ASKING EXPLAINING"""
import csv
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree

SOURCE, QUICKSTART, MOVIELENS, OWN_LOOP, LECTURERS, ASKING, EXPLAINING = sys.argv[1:]
# The plain bias model by an independent program, mean MAE and RMSE: 20 splits of UC, 5 of W, variant A.
BIAS = {'UC': (0.7372, 0.9358), 'W': (0.7358, 0.9360)}


def run(*args, status=0):
    done = subprocess.run(args, capture_output=True, text=True, timeout=900)
    assert done.returncode == status, f'{args} ended with {done.returncode}:\n{done.stdout}{done.stderr}'
    return done


def numbers(line):
    return [float(x) for x in re.findall(r'-?\d+\.\d+', line)]


def rows(text):
    """The lines of a table, by the name they begin with."""
    return {m.group(1).strip().lower(): numbers(line) for line in text.split('\n')
            if (m := re.match(r'\s*([A-Za-z][A-Za-z ,()-]*?)\s{2,}', line)) and len(numbers(line)) >= 5}


def check_quickstart(folder):
    model, picture = folder / 'model.safetensors', folder / 'curve.svg'
    trained = run(QUICKSTART, '--epochs', '3', '--threads', '2', '--save', model, '--svg', picture)
    table = rows(trained.stdout)
    assert len(table) >= 4, f'no table of methods:\n{trained.stdout}'
    for name, errors in table.items():
        assert all(0 < e < 6 for e in errors), f'{name}: {errors}'
    assert not trained.stderr, f'progress, though stderr is no terminal: {trained.stderr!r}'
    again = run(QUICKSTART, '--epochs', '3', '--threads', '1')
    assert rows(again.stdout) == table, 'one thread gives another table than two'
    loaded = run(QUICKSTART, '--load', model)
    assert rows(loaded.stdout) == table, 'the loaded model gives another table than the one that was saved'
    root = xml.etree.ElementTree.parse(picture).getroot()
    assert root.tag.endswith('svg'), root.tag
    help_text = run(QUICKSTART, '--help').stdout
    for option in ('--seed', '--epochs', '--threads', '--save', '--load', '--svg'):
        assert option in help_text, f'--help does not tell of {option}'
    assert 'epoch' in run(QUICKSTART, '--epochs', 'many', status=2).stderr
    assert run(QUICKSTART, '--colour', status=2).stderr
    assert 'nowhere' in run(QUICKSTART, '--load', folder / 'nowhere', status=1).stderr
    return f'quickstart: {len(table)} methods; saved, loaded, drawn'


def check_own_loop():
    losses = [float(x) for x in re.findall(r'loss\s+([0-9.]+)', run(OWN_LOOP).stdout)]
    half = len(losses) // 2
    for part in (losses[:half], losses[half:]):
        assert part[-1] < part[0] / 2, f'the loss does not fall: {part}'
    return 'own_loop: both losses fall'


def check_lecturers():
    """In data in which there is nothing to find, finding nothing."""
    table = run(LECTURERS, '--splits', '2').stdout.split('\n')[2:9]
    for line in table:
        best, bias, difference, inside = numbers(line)
        assert abs(best - bias - difference) < 1e-3, line
        assert difference <= 0.005, f'worse than the bias model: {line}'
        assert 0.75 <= inside <= 0.85, f'the 80 % interval is none: {line}'
    return f'lecturers: {len(table)} counts'


def check_manners(program, *own_options):
    help_text = run(program, '--help').stdout
    for option in ('--seed', '--movielens', *own_options):
        assert option in help_text, f'--help of {program} does not tell of {option}'
    for option in own_options:
        assert run(program, option, 'many', status=2).stderr
    assert 'nowhere' in run(program, '/nowhere', status=1).stderr


def check_asking(folder):
    """After five answers: the interview before both lists, by more than chance, and these before no list at all."""
    picture = folder / 'asking.svg'
    text = run(ASKING, '--questions', '5', '--svg', picture).stdout
    table = rows(text)
    assert {len(errors) for errors in table.values()} == {6} and len({errors[0] for errors in table.values()}) == 1, text
    less = {(m[1], m[2]): (float(m[3]), float(m[4]))
            for m in re.finditer(r'^ +(\S.*?) +less (\S.*?) +([+-][0-9.]+) \+- ([0-9.]+)$', text, re.MULTILINE)}
    for (one, other), (mean, _) in less.items():
        assert abs(table[one][5] - table[other][5] - mean) < 2e-4, f'{one} less {other} is not in the table:\n{text}'
    for other in ('anything', 'gradient norm'):
        mean, error = less['interview', other]
        assert mean < -2 * error < 0, f'the interview is not better than {other}:\n{text}'
    assert less['expected error', 'anything'][0] < 0, text
    assert xml.etree.ElementTree.parse(picture).getroot().tag.endswith('svg')
    check_manners(ASKING, '--questions')
    return 'asking: the interview at {:.4f}, anything at {:.4f}'.format(table['interview'][5], table['anything'][5])


def check_explaining():
    text = run(EXPLAINING).stdout
    mean, n_strangers = re.search(r'rank correlation: ([0-9.]+) in the mean.* of ([0-9]+) strangers', text).groups()
    assert float(mean) >= 0.9 and int(n_strangers) == 200, text
    # A line a rating: how much she agreed, the pull, and the score without it.
    shown = [(float(m[1]), float(m[2])) for m in re.finditer(r' [1-6] +([+-][0-9.]+) +([0-9.]+)$', text, re.MULTILINE)]
    score = float(re.search(r': expected ([0-9.]+), in truth [1-6]$', text, re.MULTILINE)[1])
    assert len(shown) >= 5, text
    for pull, without in shown:
        assert abs(score - without - pull) < 0.1, f'a pull of {pull} to {score}, without it {without}'
    check_manners(EXPLAINING, '--strangers')
    return f'explaining: rank correlation {mean}'


def check_best(data, folder):
    """A few epochs of the preset already beat the bias model, with intervals that are right; so for clicks."""
    out, splits = folder / 'best.csv', folder / 'splits.csv'
    run(MOVIELENS, data, '--states', 'UC', '--splits', '2', '--epochs', '4', '--curves', '0', '--csv', out,
        '--per-split', splits)
    with open(out, newline='') as f:
        table = {(r['method'], r['metric']): float(r['value']) for r in csv.DictReader(f) if r['state'] == 'UC'}
    assert table['best', 'mae'] < table['bias', 'mae'] - 0.03, table
    assert 0.75 <= table['best', 'coverage'] <= 0.85, table
    with open(splits, newline='') as f:
        rows = list(csv.DictReader(f))
    assert [r['split'] for r in rows] == ['0', '1']
    assert abs(sum(float(r['mae']) for r in rows) / 2 - table['best', 'mae']) < 2e-6
    run(MOVIELENS, data, '--states', 'UC', '--splits', '1', '--epochs', '4', '--curves', '0', '--clicks', '1', '--csv', out)
    with open(out, newline='') as f:
        table = {(r['method'], r['metric']): float(r['value']) for r in csv.DictReader(f) if r['state'] == 'UC'}
    assert table['best', 'log_loss'] < table['bias', 'log_loss'], table
    assert table['best', 'auc'] > table['bias', 'auc'] > 0.6, table


def check_movielens(folder):
    run(MOVIELENS, status=2)
    assert run(MOVIELENS, folder / 'nowhere', status=1).stderr
    shared = pathlib.Path(os.environ.get('MELU_SHARED', pathlib.Path(SOURCE).parent / 'shared'))
    archive = shared / 'data' / 'ml-1m-melu.tar.gz'
    if not archive.is_file():
        return f'movielens: {archive} is not there, only its bad input was tried'
    with tarfile.open(archive) as tar:
        tar.extractall(folder / 'ml')
    data = next((folder / 'ml').rglob('users.dat')).parent
    found = []
    check_best(data, folder)
    for state, splits in (('UC', 20), ('W', 5)):
        out = folder / f'{state}.csv'
        run(MOVIELENS, data, '--preset', 'melu', '--states', state, '--splits', str(splits), '--epochs', '1', '--threads', '2', '--csv', out)
        with open(out, newline='') as f:
            assert f.readline().strip() == 'method,state,metric,value,sd,splits'
            f.seek(0)
            table = {(r['method'], r['state'], r['metric']): r for r in csv.DictReader(f)}
        for metric in ('mae', 'rmse', 'ndcg1', 'ndcg3', 'ndcg5', 'ndcg10'):
            for method in ('melu', 'bias'):
                assert table[method, state, metric]['splits'] == str(splits)
        for k in ('0', '1', '3', '5', '10', '20', 'all'):
            assert ('melu', f'{state}@{k}', 'mae') in table, f'no curve point {state}@{k}'
        for metric, floor in zip(('mae', 'rmse'), BIAS[state]):
            value = float(table['bias', state, metric]['value'])
            assert abs(value - floor) <= 0.002, f'bias {state} {metric} is {value}, not {floor}'
            found.append(f'{state} {metric} {value:.4f} ({floor})')
    return 'movielens: bias ' + ', '.join(found)


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        print(check_own_loop())
        print(check_quickstart(folder))
        print(check_lecturers())
        print(check_explaining())
        print(check_asking(folder))
        print(check_movielens(folder))


main()
