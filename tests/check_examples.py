#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs the examples and looks at what they print. The MovieLens part needs ml-1m-melu.tar.gz, which may not be
redistributed, in the folder $MELU_SHARED/data or ../shared/data; it says so when it is not there.
Usage: check_examples.py SOURCE_DIR QUICKSTART MOVIELENS OWN_LOOP LECTURERS"""
import csv
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree

SOURCE, QUICKSTART, MOVIELENS, OWN_LOOP, LECTURERS = sys.argv[1:]
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
        print(check_movielens(folder))


main()
