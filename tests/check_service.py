#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Uses the service as programs do, and as nobody should: every route, bad input, slow and rude clients, hostile text.
Usage: check_service.py SERVICE DATA_DIR"""
import json
import pathlib
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

from service_client import Service, is_healthy, wait_until

SERVICE, DATA = sys.argv[1:]


# ------------------------------------------------------------------------------------------------- what there is


def check_recommendations(service):
    cold = service.get('/recommendations?user=1')
    assert cold['ratings'] == 0 and len(cold['items']) == 10
    scores = [i['score'] for i in cold['items']]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) > 5
    assert all(1 <= i['low'] < i['score'] < i['high'] <= 6 for i in cold['items']), cold
    first = cold['items'][0]['item']
    assert service.rate(1, first, 1) == 1
    warm = service.get('/recommendations?user=1&k=1000')
    assert warm['ratings'] == 1 and len(warm['items']) == 24 and first not in [i['item'] for i in warm['items']]
    everything = service.get('/recommendations?user=1&k=1000&all=1')['items']
    assert len(everything) == 25 and first in [i['item'] for i in everything]
    assert {i['item']: i['score'] for i in warm['items']} != {i['item']: i['score'] for i in cold['items']}
    assert len(service.get('/recommendations?user=1&k=3')['items']) == 3


def check_ratings(service):
    """Corrections keep their places, and give what a user has who never said anything else."""
    for item, rating in ((3, 1), (7, 2), (5, 6), (3, 4)):
        service.rate(2, item, rating)
    status, found, _ = service.ask('POST', '/ratings', [{'user': 3, 'item': i, 'rating': r}
                                                        for i, r in ((3, 4), (7, 2), (5, 6.0))])
    assert (status, found) == (200, {'user': 3, 'ratings': 3})
    for user in (2, 3):
        given = service.get(f'/ratings?user={user}')
        assert [(r['item'], r['rating']) for r in given['ratings']] == [(3, 4), (7, 2), (5, 6)], given
        assert all(r['title'] for r in given['ratings'])
    path = '/recommendations?k=1000&user='
    assert service.get(path + '2')['items'] == service.get(path + '3')['items']
    assert service.ask('DELETE', '/ratings?user=2&item=7')[:2] == (200, {'user': 2, 'ratings': 2})
    service.fails(404, 'no_rating', 'DELETE', '/ratings?user=2&item=7')
    for user, items in (('4', (3, 5)), ('5', ())):
        for item in items:
            service.rate(int(user), item, {3: 4, 5: 6}[item])
    assert service.get(path + '2')['items'] == service.get(path + '4')['items']
    assert service.ask('DELETE', '/ratings?user=2')[:2] == (200, {'user': 2, 'ratings': 0})
    assert service.ask('DELETE', '/ratings?user=2')[:2] == (200, {'user': 2, 'ratings': 0})
    assert service.get(path + '2')['items'] == service.get(path + '5')['items']
    assert service.get('/ratings?user=2') == {'user': 2, 'ratings': []}


def mean_width(service, user):
    items = service.get(f'/recommendations?user={user}&k=1000&all=1')['items']
    return sum(i['high'] - i['low'] for i in items) / len(items)


def check_questions(service):
    """Questions are not repeated, and answers to them make predictions surer."""
    before, asked = mean_width(service, 10), []
    for rating in (2, 5, 3, 6):
        questions = service.get(f'/ask?user=10&k=3&skip={",".join(map(str, asked[:1]))}')['questions']
        gains = [q['gain'] for q in questions]
        assert len(questions) == 3 and gains == sorted(gains, reverse=True) and gains[-1] > 0, questions
        assert not {q['item'] for q in questions} & set(asked)
        asked.append(questions[0]['item'])
        service.rate(10, asked[-1], rating)
    assert mean_width(service, 10) < before - 0.1, (mean_width(service, 10), before)
    everything = ','.join(str(i) for i in range(1, 26))
    assert service.get(f'/ask?user=10&skip={everything}') == {'questions': []}


def check_explanations(service):
    """A pull has the sign and the order of what leaving the rating out does."""
    ratings = {1: 6, 4: 1, 6: 5, 11: 1, 13: 6, 16: 2, 20: 5, 22: 3}
    for item, rating in ratings.items():
        service.rate(20, item, rating)
    told = service.get('/explain?user=20&item=14')
    strengths = [abs(p['pull']) for p in told['pulls']]
    assert strengths == sorted(strengths, reverse=True) and {p['item']: p['rating'] for p in told['pulls']} == ratings
    everything = {i['item']: i for i in service.get('/recommendations?user=20&k=25&all=1')['items']}
    assert {k: v for k, v in told.items() if k != 'pulls'} == everything[14]
    left_out = {}
    for item, rating in ratings.items():
        service.ask('DELETE', f'/ratings?user=20&item={item}')
        left_out[item] = told['score'] - service.get('/explain?user=20&item=14')['score']
        service.rate(20, item, rating)
    pulls = {p['item']: p['pull'] for p in told['pulls']}
    strongest = [p['item'] for p in told['pulls'][:4]]
    assert all(pulls[i] * left_out[i] > 0 for i in strongest), (pulls, left_out)
    assert set(strongest[:2]) <= set(sorted(left_out, key=lambda i: -abs(left_out[i]))[:4]), (pulls, left_out)
    assert service.get('/explain?user=999&item=14')['pulls'] == []


def check_service_routes(service):
    assert service.get('/scale') == {
        'min': 1, 'max': 6, 'step': 1, 'kind': 'bfi', 'n_items': 25, 'people': 2204,
        'labels': ['very inaccurate', 'moderately inaccurate', 'slightly inaccurate', 'slightly accurate',
                   'moderately accurate', 'very accurate']}
    health = service.get('/healthz')
    assert health['status'] == 'ok' and re.fullmatch('[0-9a-f]{32}', health['model']) and health['uptime'] > 0
    status, page, headers = service.ask('GET', '/')
    assert status == 200 and page.lower().startswith('<!doctype html>')
    assert 'http' not in re.findall(r'src="(\w+)', page)
    assert headers['X-Content-Type-Options'] == 'nosniff' and "default-src 'self'" in headers['Content-Security-Policy']
    assert service.ask('HEAD', '/')[:2] == (200, '')
    name = 'melu_requests_total{path="/scale",code="200"}'
    before, took = service.metric(name), service.metric('melu_request_seconds_count{path="/scale"}')
    for _ in range(3):
        service.get('/scale')
    assert service.metric(name) == before + 3
    assert service.metric('melu_request_seconds_count{path="/scale"}') == took + 3
    assert service.metric('melu_in_flight') == 1
    with sqlite3.connect(service.folder / 'store.db') as db:
        count = db.execute('SELECT count(*) FROM ratings').fetchone()[0]
        assert db.execute('PRAGMA journal_mode').fetchone()[0] == 'wal'
        assert db.execute('SELECT count(*) FROM items').fetchone()[0] == 25
    assert count == service.metric('melu_ratings') == service.get('/healthz')['ratings'] > 0
    db.close()


def check_routes(folder):
    with Service(SERVICE, folder) as service:
        check_recommendations(service)
        check_ratings(service)
        check_questions(service)
        check_explanations(service)
        check_service_routes(service)
        kept = service.get('/ratings?user=20')
    assert not (folder / 'store.db-wal').exists(), 'SIGTERM leaves a journal'
    with Service(SERVICE, folder) as service:
        assert service.get('/ratings?user=20') == kept
    return 'routes'


# ------------------------------------------------------------------------------------------------- bad input

BAD_PARAMETERS = [
    '/recommendations', '/recommendations?user=', '/recommendations?user=x', '/recommendations?user=-1',
    '/recommendations?user=1.5', '/recommendations?user=9007199254740992', '/recommendations?user=1e3',
    '/recommendations?user=%00', '/recommendations?user=99999999999999999999999', '/recommendations?user=1&k=0',
    '/recommendations?user=1&k=1001', '/recommendations?user=1&k=ten', '/recommendations?user=1&all=2', '/ratings',
    '/ask?k=1', '/ask?user=1&k=1001', '/ask?user=1&skip=a', '/ask?user=1&skip=1,,2', '/ask?user=1&skip=' + '1' * 40,
    '/%00', '/ratings?user=1%00', '/explain?user=1', '/explain?item=1', '/explain?user=1&item=x']
BAD_BODIES = ['', '{', '1', 'null', 'user=1', '[' * 60000, '"\ud800"', '{"user":1}{"user":2}', b'\xff\xfe',
              '{"user":1,"user":1}', '{"user":99999999999999999999,"item":1,"rating":1}',
              '{"user":1,"item":1,"rating":1e999}']
BAD_RATINGS = [
    '[]', '[1]', '{}', '{"user":1,"item":1}', '{"user":"1","item":1,"rating":1}',
    '{"user":1,"item":1,"rating":"6"}', '{"user":1.5,"item":1,"rating":1}', '{"user":-1,"item":1,"rating":1}',
    '{"user":9007199254740992,"item":1,"rating":1}', '{"user":1,"item":1,"rating":0}',
    '{"user":1,"item":1,"rating":6.01}', '{"user":1,"item":1,"rating":1,"more":1}',
    '{"user":1,"item":1,"rating":1,"%s":1}' % ('é' * 200), '{"user":1,"item":1,"rating":1,"x%s":1}' % ('é' * 200),
    '[{"user":1,"item":1,"rating":1},{"user":2,"item":1,"rating":1}]', '[{"user":1,"item":1,"rating":1},7]']


def check_requests(service):
    before = service.get('/ratings?user=1')
    for path in BAD_PARAMETERS:
        service.fails(400, 'bad_parameter', 'GET', path)
    for body in BAD_BODIES:
        body = body if isinstance(body, bytes) else body.encode('utf-8', 'surrogatepass')
        service.fails(400, 'bad_json', 'POST', '/ratings', body)
    for body in BAD_RATINGS:
        service.fails(400, 'bad_rating', 'POST', '/ratings', body.encode())
    service.fails(404, 'unknown_item', 'POST', '/ratings', {'user': 1, 'item': 26, 'rating': 1})
    service.fails(404, 'unknown_item', 'POST', '/ratings', [{'user': 1, 'item': i, 'rating': 1} for i in (1, 0)])
    for path in ('/explain?user=1&item=0', '/explain?user=1&item=9007199254740991', '/ask?user=1&skip=1,99'):
        service.fails(404, 'unknown_item', 'GET', path)
    service.fails(404, 'unknown_item', 'DELETE', '/ratings?user=1&item=77')
    service.fails(400, 'bad_parameter', 'DELETE', '/ratings?item=1')
    for path in ('/nowhere', '/ratings/', '/../etc/passwd', '//', '/%2e%2e', '/%ff%fe'):
        service.fails(404, 'unknown_path', 'GET', path)
    for method, path, allowed in (('PUT', '/ratings', 'GET, HEAD, POST, DELETE'), ('POST', '/', 'GET, HEAD'),
                                  ('GET', '/reload', 'POST'), ('OPTIONS', '/ask', 'GET, HEAD'),
                                  ('BREW', '/', 'GET, HEAD')):
        headers = service.fails(405, 'bad_method', method, path)[2]
        assert headers['Allow'] == allowed, headers['Allow']
    assert service.get('/ratings?user=1') == before, 'something of the bad was kept'


def check_sizes(service):
    body = json.dumps([{'user': 6, 'item': 1, 'rating': 1}])
    status, found, _ = service.ask('POST', '/ratings', body + ' ' * (65536 - len(body)))
    assert status == 200, found
    service.fails(413, 'body_too_large', 'POST', '/ratings', body + ' ' * (65537 - len(body)))
    head = b'POST /ratings HTTP/1.1\r\nHost: x\r\n'
    assert b' 413 ' in service.raw(head + b'Content-Length: 99999999999\r\n\r\n')
    chunks = [b'2000\r\n' + b' ' * 0x2000 + b'\r\n'] * 9 + [b'0\r\n\r\n']
    assert b' 413 ' in service.raw(head + b'Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n', *chunks)
    service.raw(head + b'Transfer-Encoding: chunked\r\n\r\n', *[b'10000\r\n' + b' ' * 0x10000 + b'\r\n'] * 40)
    service.fails(431, 'headers_too_large', 'GET', '/scale', headers={'X': 'x' * 9000})
    service.fails(431, 'headers_too_large', 'GET', '/ask?user=1&skip=' + '1,' * 5000 + '1')
    assert service.raw(b'GET / HTTP/1.1\r\nHost: x\r\nX: ' + b'x' * 100000).startswith(b'HTTP/1.1 4')


def keep_asking(service):
    """A connection that is used lives longer than a request may take."""
    connection = service.connect()
    for _ in range(12):
        connection.request('GET', '/scale')
        assert connection.getresponse().read()
        time.sleep(0.2)
    connection.close()
    return b'done'


def check_rude_clients(service):
    """With --seconds 2. All at once, since it is the waiting that takes time."""
    head = b'POST /ratings HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n'
    before = service.metric('melu_timed_out_total')
    found = {}
    clients = {
        'silent': lambda: service.raw(),
        'half a line': lambda: service.raw(b'GET /sca'),
        'half a head': lambda: service.raw(head),
        'half a body': lambda: service.raw(head + b'\r\n', b'{"user":'),
        'drop by drop': lambda: service.raw(head, *[b'X: y\r\n'] * 20, pause=0.2),
        'drops of body': lambda: service.raw(head + b'\r\n', *[b' '] * 20, pause=0.2),
        'garbage': lambda: service.raw(bytes(range(256)) * 20 + b'\r\n\r\n'),
        'keeps asking': lambda: keep_asking(service),
        'TLS': lambda: service.raw(b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + b'\x00' * 500),
    }

    def run(name):
        started = time.monotonic()
        found[name] = clients[name](), time.monotonic() - started

    threads = [threading.Thread(target=run, args=[name]) for name in clients]
    for t in threads:
        t.start()
    assert service.get('/scale')['n_items'] == 25, 'nobody else is served meanwhile'
    for t in threads:
        t.join()
    for name in ('half a head', 'half a body', 'drop by drop', 'drops of body'):
        assert b' 408 ' in found[name][0] and b'"too_slow"' in found[name][0], (name, found[name])
    assert found['keeps asking'][0] == b'done'
    for name in ('silent', 'half a line'):
        assert found[name][0] == b'', (name, found[name])
    assert all(took < 10 for _, took in found.values()), found
    assert b' 200 ' not in found['garbage'][0] + found['TLS'][0]
    assert service.metric('melu_timed_out_total') >= before + 4
    for _ in range(50):  # clients that ask and do not wait
        with socket.create_connection(('127.0.0.1', service.port)) as s:
            s.sendall(b'GET /recommendations?user=1&k=25 HTTP/1.1\r\nHost: x\r\n\r\n')
    wait_until(lambda: service.metric('melu_in_flight') == 1)
    wait_until(lambda: service.metric('melu_connections') <= 2)


def check_bad_input(folder):
    with Service(SERVICE, folder, '--seconds', 2) as service:
        check_requests(service)
        check_sizes(service)
        check_rude_clients(service)
        assert is_healthy(service)
    return f'{len(BAD_PARAMETERS) + len(BAD_BODIES) + len(BAD_RATINGS)} bad inputs, sizes, rude clients'


def check_rights(folder):
    token = folder / 'token'
    token.write_text('correct horse battery\n')
    rating = {'user': 30, 'item': 1, 'rating': 1}
    with Service(SERVICE, folder, '--token-file', token) as service:
        for sent in ({}, {'Authorization': 'Bearer '}, {'Authorization': 'Bearer correct horse batterx'},
                     {'Authorization': 'Bearer correct horse batteryy'},
                     {'Authorization': 'Basic correct horse battery'},
                     {'Authorization': 'Bearer correct horse batter'}):
            headers = service.fails(401, 'unauthorized', 'POST', '/ratings', rating, sent)[2]
            assert headers['WWW-Authenticate'] == 'Bearer'
            service.fails(401, 'unauthorized', 'DELETE', '/ratings?user=30', None, sent)
            service.fails(401, 'unauthorized', 'POST', '/reload', None, sent)
        right = {'Authorization': 'Bearer correct horse battery'}
        assert service.ask('POST', '/ratings', rating, right)[0] == 200
        assert service.ask('POST', '/reload', None, right)[0] == 200
        foreign = {'Origin': 'http://elsewhere.example', **right}
        service.fails(403, 'foreign_origin', 'POST', '/ratings', rating, foreign)
        service.fails(403, 'foreign_origin', 'DELETE', '/ratings?user=30', None, {'Origin': 'null', **right})
        own = {'Origin': f'http://127.0.0.1:{service.port}', **right}
        assert service.ask('DELETE', '/ratings?user=30', None, own)[:2] == (200, {'user': 30, 'ratings': 0})
    token.write_text('short')
    assert subprocess.run([SERVICE, '--data', folder, '--token-file', token], capture_output=True).returncode == 1
    with Service(SERVICE, folder, '--rate', 1) as service:
        answers = [service.ask('GET', '/scale') for _ in range(30)]
        statuses = [a[0] for a in answers]
        assert statuses[:2] == [200, 200] and statuses.count(429) > 10, statuses
        refused = answers[statuses.index(429)]
        assert refused[1]['error']['code'] == 'too_many' and refused[2]['Retry-After'] == '1', refused
        wait_until(lambda: service.ask('GET', '/scale')[0] == 200)
    return 'token, origin, rate'


def check_hostile_titles(folder):
    """Text goes through as it is; what it is taken for is said by the content type."""
    hostile = ['</script><script>alert(1)</script>', '" onload="alert(1)', "'; DROP TABLE items; --",
               '\\u0000 \\" {{7*7}}', 'new\u2028line \u202eright to left', '\U0001f600 ‮ é', '%s%n%s', '&lt;b&gt;']
    data = folder / 'hostile'
    data.mkdir()
    shutil.copy(pathlib.Path(DATA) / 'bfi.csv', data)
    lines = (pathlib.Path(DATA) / 'bfi_items.tsv').read_text().splitlines()
    for i, text in enumerate(hostile, 1):
        quoted = '"' + text.replace('"', '""') + '"'
        lines[i] = '\t'.join([*lines[i].split('\t')[:3], quoted])
    (data / 'bfi_items.tsv').write_text('\n'.join(lines) + '\n')
    with Service(SERVICE, data, '--bfi', data) as service:
        for i, text in enumerate(hostile, 1):
            service.rate(1, i, 1 + i % 6)
        _, given, headers = service.ask('GET', '/ratings?user=1')
        assert [r['title'] for r in given['ratings']] == hostile, given
        assert headers['Content-Type'] == 'application/json' and headers['X-Content-Type-Options'] == 'nosniff'
        told = service.get('/explain?user=1&item=3')
        assert told['title'] == hostile[2] and {p['title'] for p in told['pulls']} == set(hostile)
        for found in (service.get('/recommendations?user=1&k=25&all=1')['items'],
                      service.get('/ask?user=2&k=25')['questions']):
            assert sum(i['title'] in hostile for i in found) == len(hostile)
    return 'hostile titles'


def main():
    with tempfile.TemporaryDirectory() as folder:
        for check in (check_routes, check_bad_input, check_rights, check_hostile_titles):
            print(check(pathlib.Path(folder)), flush=True)


main()
