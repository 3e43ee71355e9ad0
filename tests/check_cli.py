#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Drives `melu`, the program, through its commands, and compares what they print with each other and with plain
computations.
Usage: check_cli.py SOURCE_DIR MELU"""
import csv
import io
import json
import re
import signal
import struct
import subprocess
import time
import xml.etree.ElementTree

from cli_support import BFI, MELU, melu, predictions, refused, rows, run_checks, write

MASK = 2**64 - 1


def near(a, b, tolerance):
    return abs(a - b) <= tolerance


def check_train(w):
    for column, kind in (('item', 'one +25 values'), ('trait', 'one +5 values'), ('keying', 'numeric'),
                         ('statement', 'skip +no two the same'), ('user', 'skip +the id'), ('gender', 'one +2 values'),
                         ('age', 'numeric')):
        assert re.search(rf'^  {column} +{kind}', w.told, re.M), f'{column} is no {kind}:\n{w.told}'
    again = w.folder / 'again.melu'
    summary = json.loads(melu(*w.train, '--threads', '1', '--model', again, '--json'))
    assert again.read_bytes() == w.model.read_bytes(), 'another number of threads gives another model'
    assert summary['ratings'] == sum(1 for _ in open(w.folder / 'train.csv')) - 1
    assert (summary['rating_min'], summary['rating_max']) == (1, 6)
    columns = {c['column']: c for c in summary['user_columns']}
    with open(w.folder / 'train_users.csv', newline='') as f:
        ages = [float(r['age']) for r in csv.DictReader(f) if r['age'] != 'NA']
    mean = sum(ages) / len(ages)
    spread = (sum((a - mean)**2 for a in ages) / len(ages))**0.5
    assert near(columns['age']['shift'], mean, 1e-9) and near(columns['age']['scale'], 1 / spread, 1e-9), columns
    other = w.folder / 'other.melu'
    melu(*w.train, '--seed', '2', '--model', other)
    assert other.read_bytes() != w.model.read_bytes(), 'another seed gives the same model'
    return 'train: fields found, the same bits on any number of threads'


def check_shards(w):
    """Trained from a folder: the same numbers as from tables, the same bits on any number of threads, and
    a folder that is not whole is refused."""
    folder, out = w.folder / 'shards', w.folder / 'shards.melu'
    told = json.loads(melu('shard', *w.train[1:7], '--field', 'gender=one', '--files', '4', '--out', folder, '--json'))
    train = ['train', '--shards', folder, '--epochs', '3', '--model', out]
    summary = json.loads(melu(*train, '--threads', '1', '--json'))
    of_tables = json.loads(melu(*w.train, '--model', w.folder / 'tables.melu', '--json'))
    names = ('users', 'items', 'ratings', 'rating_min', 'rating_max')
    assert [summary[n] for n in names] == [of_tables[n] for n in names] == [told[n] for n in names], (summary, told)
    first = out.read_bytes()
    shown = melu(*train, '--threads', '2', '--checkpoint', w.folder / 'shards.training', '--resume')
    assert f"{summary['users']} users, from 1 to 6, in 4 files" in shown and out.read_bytes() == first, shown
    melu(*train, '--seed', '2')
    assert out.read_bytes() != first, 'another seed gives the same model'
    out.write_bytes(first)
    judged = [rows('evaluate', '--model', model, '--items', w.items, '--users', w.folder / 'test_users.csv', '--ratings',
                   w.folder / 'test.csv')[0]['mae'] for model in (out, w.model)]
    assert near(*judged, 0.02), f'{judged[0]} from shards, {judged[1]} from tables'
    refused(2, '--shards has its items', *train, '--items', w.items)
    refused(2, '--shards has its items', *train, '--field', 'age=skip')
    refused(2, 'missing: --model\n.*--shards', 'train', '--shards', folder)
    refused(3, 'manifest', 'train', '--shards', w.folder, '--model', out)
    refused(3, 'clicks are 1 or 0', *train, '--clicks')
    (folder / 'users-00002.safetensors').unlink()
    refused(3, 'users-00002', *train)
    assert out.read_bytes() == first
    return f'train --shards: an error of {judged[0]:.4f} by strangers, from tables {judged[1]:.4f}'


def check_forms(w):
    """The same tables with tabs, quotes, CRLF, a byte order mark and columns in another order: the same model."""
    def texts(path, separator):
        with open(path, newline='') as f:
            return list(csv.reader(f, delimiter=separator))
    ratings, users = texts(w.folder / 'train.csv', ','), texts(w.folder / 'train_users.csv', ',')
    quoted = '\r\n'.join('\t'.join(f'"{c}"' for c in reversed(r)) for r in ratings).replace('"rating"', '"stars"')
    (w.folder / 'forms.tsv').write_bytes(b'\xef\xbb\xbf' + quoted.encode())
    (w.folder / 'forms_users.csv').write_text('\n\n' + '\n\n'.join(','.join(r) for r in users) + '\n\n')
    out = w.folder / 'forms.melu'
    args = [*w.train, '--users', w.folder / 'forms_users.csv', '--ratings', w.folder / 'forms.tsv', '--rating-column',
            'stars', f'--model={out}']
    melu(*args)
    assert out.read_bytes() == w.model.read_bytes(), 'the same tables in another form give another model'
    return 'tables: tabs, quotes, CRLF, byte order mark, empty lines, names of columns'


def check_recommend(w):
    expected = {r['item']: r for r in predictions(w, '--ratings', w.mine)}
    assert len(expected) == 25
    best = rows('recommend', *w.on, '--ratings', w.mine, '-k', '25')
    assert [r['score'] for r in best] == sorted((r['score'] for r in best), reverse=True)
    for r in best:
        there = expected[r['item']]
        assert all(near(r[k], there[k], 1e-5) for k in ('score', 'low', 'high')), (r, there)
        assert r['low'] < r['score'] < r['high']
    assert len({r['item'] for r in best}) == 25
    unrated = rows('recommend', *w.on, '--ratings', w.mine, '-k', '30', '--exclude-rated')
    assert [r['item'] for r in unrated] == [r['item'] for r in best if r['item'] not in ('A1', 'E4', 'N1')]
    strangers = rows('recommend', *w.on, '-k', '25')
    assert {r['item']: r['score'] for r in strangers} != {r['item']: r['score'] for r in best}
    table = list(csv.DictReader(io.StringIO(melu('recommend', *w.on, '--ratings', w.mine, '--format', 'csv'))))
    assert [(r['item'], float(r['score'])) for r in table] == [(r['item'], r['score']) for r in best[:10]]
    tabs = melu('recommend', *w.on, '--ratings', w.mine, '--format=tsv').split('\n')
    assert tabs[0] == 'item\tscore\tlow\thigh' and len(tabs) == 12
    shown = melu('recommend', *w.on, '--ratings', w.mine).split('\n')
    assert [line.split()[0] for line in shown[1:11]] == [r['item'] for r in best[:10]]
    return 'recommend: the scores that adapt predicts, in order, in every format'


def check_explain(w):
    """A pull is what the score loses to first order without the rating: leaving it out must agree, roughly."""
    answers = [['A1', 1], ['A5', 6], ['E4', 6], ['N1', 5], ['N4', 4], ['O1', 5], ['C5', 2], ['E1', 1]]
    full = write(w.folder / 'eight.csv', ['item', 'rating'], answers)
    best = rows('recommend', *w.on, '--ratings', full, '-k', '25', '--explain')
    pulls, falls = [], []
    for left_out in range(len(answers)):
        rest = write(w.folder / 'seven.csv', ['item', 'rating'], answers[:left_out] + answers[left_out + 1:])
        without = {r['item']: r['score'] for r in predictions(w, '--ratings', rest)}
        for r in best:
            by_item = {p['item']: p['pull'] for p in r['pulls']}
            assert set(by_item) == {a[0] for a in answers}
            pulls.append(by_item[answers[left_out][0]])
            falls.append(r['score'] - without[r['item']])
    mean_p, mean_f = sum(pulls) / len(pulls), sum(falls) / len(falls)
    cov = sum((p - mean_p) * (f - mean_f) for p, f in zip(pulls, falls))
    r = cov / (sum((p - mean_p)**2 for p in pulls) * sum((f - mean_f)**2 for f in falls))**0.5
    assert r > 0.9, f'pulls and leaving out correlate by {r}'
    sizes = [abs(p['pull']) for p in best[0]['pulls']]
    assert sizes == sorted(sizes, reverse=True)
    shown = melu('recommend', *w.on, '--ratings', full, '-k', '1', '--explain')
    strongest = best[0]['pulls'][0]
    assert f"{strongest['item']} {strongest['pull']:+.2f}" in shown, shown
    return f'explain: correlates with leaving out by {r:.3f}'


def check_users(w):
    before = predictions(w, '--ratings', w.mine)
    files = {}
    for form in ([], ['--ready']):
        files[bool(form)] = path = w.folder / f'user{len(form)}.melu'
        told = rows('adapt', *w.on, '--ratings', w.mine, '--out', path, *form)
        assert told == [{'ratings': 3, 'bytes': path.stat().st_size, 'file': str(path)}], told
        assert predictions(w, '--user', path) == before, 'the user who was read is another one'
    assert files[False].stat().st_size < files[True].stat().st_size
    # Ids are words: the file remembers them in whatever order the items come.
    lines = w.items.read_text().strip().split('\n')
    turned = w.folder / 'turned.tsv'
    turned.write_text('\n'.join([lines[0], *reversed(lines[1:])]))
    after = rows('adapt', '--model', w.model, '--items', turned, '--user', files[False], '--predict')
    assert {r['item']: r['score'] for r in after} == {r['item']: r['score'] for r in before}
    assert [r['item'] for r in after] == [r['item'] for r in reversed(before)]
    # One rating more and one corrected are the same as all at once.
    more = write(w.folder / 'more.csv', ['item', 'rating'], [['C1', 4], ['E4', 1]])
    both = write(w.folder / 'both.csv', ['item', 'rating'], [['A1', 2], ['E4', 1], ['N1', 6], ['C1', 4]])
    assert predictions(w, '--user', files[False], '--ratings', more) == predictions(w, '--ratings', both)
    melu('adapt', *w.on, '--user', files[False], '--ratings', more, '--out', files[False])
    assert predictions(w, '--user', files[False]) == predictions(w, '--ratings', both)
    excluded = rows('recommend', *w.on, '--user', files[False], '--exclude-rated', '-k', '25')
    assert len(excluded) == 21
    return f'users: written and read, {files[True].stat().st_size} bytes ready'


def check_people(w):
    """Several people at once are each as if alone; profiles count; each gets a file of her own."""
    several = write(w.folder / 'several.csv', ['user', 'item', 'rating'],
                    [['anna', 'A1', 2], ['7', 'E4', 1], ['anna', 'E4', 5], ['anna', 'N1', 6]])
    found = predictions(w, '--ratings', several)
    assert {r['user'] for r in found} == {'anna', '7'} and len(found) == 50
    alone = {r['item']: r['score'] for r in predictions(w, '--ratings', w.mine)}
    assert {r['item']: r['score'] for r in found if r['user'] == 'anna'} == alone
    profile = write(w.folder / 'profile.csv', ['user', 'gender', 'education', 'age'], [['me', 2, 3, 61]])
    known = {r['item']: r['score'] for r in predictions(w, '--ratings', w.mine, '--users', profile)}
    assert known != alone and known.keys() == alone.keys()
    there = w.folder / 'people'
    there.mkdir()
    melu('adapt', *w.on, '--ratings', several, '--out', there)
    assert sorted(p.name for p in there.iterdir()) == ['7.melu', 'anna.melu']
    assert {r['item']: r['score'] for r in predictions(w, '--user', there / 'anna.melu')} == alone
    refused(3, 'is no folder, and there are 2 users', 'adapt', *w.on, '--ratings', several, '--out', there / 'one')
    evil = write(w.folder / 'evil.csv', ['user', 'item', 'rating'], [['../x', 'A1', 2]])
    refused(3, 'cannot be the name of a file', 'adapt', *w.on, '--ratings', evil, '--out', there)
    many = w.folder / 'test_users.csv'
    refused(3, 'whose ratings', 'adapt', *w.on, '--ratings', w.mine, '--users', many, '--predict')
    return 'people: several at once, profiles, a file each'


def mix64(x):
    x = x + 0x9e3779b97f4a7c15 & MASK
    x ^= x >> 30
    x = x * 0xbf58476d1ce4e5b9 & MASK
    x ^= x >> 27
    x = x * 0x94d049bb133111eb & MASK
    return x ^ x >> 31


def check_evaluate(w):
    curve = w.folder / 'curve.svg'
    on = ['evaluate', *w.on, '--ratings', w.folder / 'test.csv', '--users', w.folder / 'test_users.csv']
    found = rows(*on, '--curve', '0,1,3,5,10', '--svg', curve)
    errors = [r['mae'] for r in found]
    assert [r['support'] for r in found] == [0, 1, 3, 5, 10] and errors == sorted(errors, reverse=True), errors
    assert 0.8 < errors[-1] < 1.02 < 1.1 < errors[0] < 1.3, errors
    for r in found:
        assert r['mae'] < r['rmse'] < 1.6 and 0.75 < r['coverage'] < 0.9 and 0.8 < r['ndcg10'] < 1, r
    root = xml.etree.ElementTree.parse(curve).getroot()
    assert root.tag.endswith('svg') and 'RMSE' in ''.join(root.itertext())
    # By hand: the last ten of each user's order are predicted by the first five.
    with open(w.folder / 'test.csv', newline='') as f:
        answers = {}
        for r in csv.DictReader(f):
            answers.setdefault(int(r['user']), []).append((r['item'], float(r['rating'])))
    support, queries = [], {}
    for user, given in answers.items():
        if len(given) < 13:
            continue
        order = sorted(range(len(given)), key=lambda k: mix64(user << 16 ^ k))
        support += [[user, *given[k]] for k in order[:5]]
        queries[str(user)] = dict(given[k] for k in order[-10:])
    five = write(w.folder / 'five.csv', ['user', 'item', 'rating'], support)
    with open(w.folder / 'test_users.csv', newline='') as f:
        asked = [r for r in csv.reader(f) if r[0] == 'user' or r[0] in queries]
    error, n = 0, 0
    for r in predictions(w, '--ratings', five, '--users', write(w.folder / 'asked.csv', asked[0], asked[1:])):
        if r['item'] in queries[r['user']]:
            error += abs(min(max(r['score'], 1), 6) - queries[r['user']][r['item']])
            n += 1
    assert n == 10 * len(queries) == 10 * found[3]['users']
    assert near(error / n, found[3]['mae'], 1e-6), (error / n, found[3])
    both, second = rows(*on, '--support', '5', '--splits', '2')[0], rows(*on, '--support', '5', '--splits', '1')[0]
    assert near(second['mae'], found[3]['mae'], 1e-9) and not near(both['mae'], second['mae'], 1e-9)
    return f"evaluate: MAE {errors[0]:.4f} to {errors[-1]:.4f}, the same by hand"


def check_ask(w):
    questions = rows('ask', *w.on, '--ratings', w.mine, '-k', '25')
    assert len(questions) == 22 and not {'A1', 'E4', 'N1'} & {r['item'] for r in questions}
    gains = [r['gain'] for r in questions]
    assert gains == sorted(gains, reverse=True) and gains[-1] > 0
    # The gain is the mean over what may be asked of by how much variances fall, whatever is answered.
    def variances(path):
        return {r['item']: ((r['high'] - r['low']) / 2 / 1.2816)**2 for r in predictions(w, '--ratings', path)}
    asked = questions[0]['item']
    path = write(w.folder / 'asked_one.csv', ['item', 'rating'], [['A1', 2], ['E4', 5], ['N1', 6], [asked, 3]])
    before, after = variances(w.mine), variances(path)
    fall = sum(before[r['item']] - after[r['item']] for r in questions) / len(questions)
    assert near(fall, gains[0], 1e-4), (fall, gains[0])
    on = ['ask', *w.on, '--ratings', w.folder / 'test.csv', '--candidates', '-k', '3']
    found = rows(*on)
    errors = [r['error'] for r in found]
    assert len({r['item'] for r in found}) == 3 and errors == sorted(errors, reverse=True), found
    gradient = rows(*on, '--rule', 'gradient')
    assert len(gradient) == 3 and [r['score'] for r in gradient] == sorted((r['score'] for r in gradient), reverse=True)
    return f'ask: {asked} first, {found[0]["item"]} of strangers'


def read_safetensors(path):
    data = path.read_bytes()
    n = struct.unpack('<Q', data[:8])[0]
    tensors = {}
    for name, entry in json.loads(data[8:8 + n]).items():
        if name != '__metadata__':
            begin, end = entry['data_offsets']
            tensors[name] = (entry['shape'], struct.unpack(f'<{(end - begin) // 4}f', data[8 + n + begin:8 + n + end]))
    return tensors


def check_inspect(w):
    found = json.loads(melu('inspect', w.model, '--json'))
    tensors = read_safetensors(w.model)
    assert [p['name'] for p in found['parameters']] == list(tensors)
    for p in found['parameters']:
        assert p['rows'] * p['cols'] == len(tensors[p['name']][1]), p
    assert [f['name'] for f in found['fields']] == ['item', 'trait', 'keying', 'gender', 'education', 'age']
    assert found['fields'][0]['values'] == 25 and found['options']['network'] == 'factors'
    assert re.fullmatch('[0-9a-f]{32}', found['digest'])
    assert json.loads(melu('inspect', w.folder / 'again.melu', '--json'))['digest'] == found['digest']
    assert json.loads(melu('inspect', w.folder / 'other.melu', '--json'))['digest'] != found['digest']
    shown = melu('inspect', w.model)
    for text in (found['digest'], 'trait', 'pool_rated', 'closed_form'):
        assert text in shown, f'{text} is not in {shown}'
    return f"inspect: {len(found['parameters'])} parameters"


def check_embeddings(w):
    out = w.folder / 'trait.csv'
    melu('convert', '--model', w.model, '--embeddings', 'trait', '--out', out)
    shape, numbers = read_safetensors(w.model)['E.trait']
    with open(out, newline='') as f:
        table = list(csv.reader(f))
    assert table[0][:3] == ['id', 'text', 'e0'] and len(table) == 1 + shape[0] and len(table[1]) == 2 + shape[1]
    assert [r[:2] for r in table[1:]] == [[str(i), t] for i, t in enumerate('ACENO')] + [['unknown', '']]
    # Nine digits are enough for every float: those that are read are those that were written.
    read = tuple(struct.unpack('<f', struct.pack('<f', float(x)))[0] for r in table[1:] for x in r[2:])
    assert read == numbers
    assert melu('convert', '--model', w.model, '--embeddings', 'trait', '--out', '-') == out.read_text()
    assert not list(w.folder.glob('*.tmp-*'))
    return 'embeddings: the numbers of the file, with their texts'


def check_lists_and_clicks(w):
    """Films with lists of genres, by the paper's preset; clicks, whose scores are chances."""
    genres = ['Drama', 'Comedy|Crime', 'Crime', 'Drama|Romance', 'Comedy']
    items = write(w.folder / 'films.csv', ['film', 'genre', 'year', 'title', 'of'],
                  [[f'f{i}', genres[i % 5], 1990 + i % 7, f'Film, No. "{i}"', 'x'] for i in range(30)])
    ratings = [[f'u{u}', f'f{i}', (u * i + u + i) % 5 + 1] for u in range(40) for i in range(30) if (u + i) % 2]
    stars = write(w.folder / 'stars.csv', ['user', 'film', 'rating'], ratings)
    clicks = write(w.folder / 'clicks.csv', ['user', 'film', 'rating'], [[u, i, int(r > 3)] for u, i, r in ratings])
    on = ['--items', items, '--item-column', 'film']
    paper, clicked = w.folder / 'paper.melu', w.folder / 'clicked.melu'
    told = json.loads(melu('train', *on, '--ratings', stars, '--preset', 'melu', '--epochs', '2', '--hidden', '8,6',
                           '--inner-steps', '3', '--inner-lr', '0.02', '--field', 'genre=many:5', '--model', paper,
                           '--rating-max', '9', '--first-order', '--json'))
    kinds = {c['column']: c['kind'] for c in told['item_columns']}
    assert kinds == {'film': 'skip', 'genre': 'many', 'year': 'numeric', 'title': 'skip', 'of': 'skip'}, kinds
    found = json.loads(melu('inspect', paper, '--json'))
    tensors = {p['name']: (p['rows'], p['cols']) for p in found['parameters']}
    assert tensors['E.genre'] == (5, 5) and tensors['W1'] == (8, 6) and tensors['W2'] == (6, 8), tensors
    of = found['options']
    assert (of['inner_steps'], of['inner_lr'], of['first_order'], of['rating_max']) == (3, 0.02, True, 9), of
    mine = write(w.folder / 'films_mine.csv', ['film', 'rating'], [['f1', 5], ['f2', 1]])
    scores = rows('adapt', '--model', paper, *on, '--ratings', mine, '--predict')
    assert list(scores[0]) == ['item', 'score'] and len({round(r['score'], 6) for r in scores}) > 5
    melu('train', *on, '--ratings', clicks, '--epochs', '2', '--clicks', '--validation', '0.2', '--patience', '1',
         '--model', clicked)
    mine = write(w.folder / 'clicks_mine.csv', ['film', 'rating'], [['f1', 1], ['f2', 0]])
    scores = rows('adapt', '--model', clicked, *on, '--ratings', mine, '--predict')
    assert all(0 < r['low'] < r['score'] < r['high'] < 1 for r in scores), scores
    judged = rows('evaluate', '--model', clicked, *on, '--ratings', clicks, '--queries', '5', '--support', '3')[0]
    assert 0 < judged['log_loss'] < 1 and 0 <= judged['auc'] <= 1 and list(judged)[:2] == ['support', 'users']
    refused(3, 'clicks are 1 or 0', 'train', *on, '--ratings', stars, '--clicks', '--model', clicked)
    refused(3, 'clicks are 1 or 0', 'recommend', '--model', clicked, *on, '--ratings', stars)
    return 'films: lists, names of columns, the paper\'s preset; clicks'


def check_checkpoint(w):
    """A training that was interrupted gives the same file."""
    whole, resumed, state = w.folder / 'whole.melu', w.folder / 'resumed.melu', w.folder / 'training'
    on = [*w.train, '--threads', '1', '--epochs']
    melu(*on, '60', '--model', whole)
    stopped = subprocess.Popen([str(a) for a in [MELU, *on, '60', '--model', resumed, '--checkpoint', state]],
                               stderr=subprocess.PIPE)
    while not state.exists() and stopped.poll() is None:
        time.sleep(0.001)
    stopped.send_signal(signal.SIGINT)
    said = stopped.communicate(timeout=300)[1].decode()
    assert stopped.returncode == 1 and 'interrupted' in said and '--resume' in said, said
    assert not resumed.exists()
    go_on = ['--model', resumed, '--checkpoint', state, '--resume']
    refused(3, 'n_epochs was 60 and is 50 now', *on, '50', *go_on)
    melu(*on, '60', *go_on)
    assert whole.read_bytes() == resumed.read_bytes()
    refused(2, '--resume needs --checkpoint', *on, '60', '--model', resumed, '--resume')
    return 'checkpoints: interrupted, resumed, the same bytes'


run_checks(check_train, check_shards, check_forms, check_recommend, check_explain, check_users, check_people,
           check_evaluate, check_ask, check_inspect, check_embeddings, check_lists_and_clicks, check_checkpoint)
