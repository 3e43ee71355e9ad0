#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Makes life hard for the service: a store that is locked, damaged or gone, models of other items, another model and
another while it answers, and no time to say goodbye. --full: as often as the documentation says.
Usage: check_service_life.py SERVICE QUICKSTART DATA_DIR [--full]"""
import http.client
import itertools
import json
import pathlib
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

from service_client import PATIENCE, Load, Service, is_healthy, put, wait_until

SERVICE, QUICKSTART, DATA = sys.argv[1:4]
FULL = '--full' in sys.argv[4:]
N_SWAPS, N_KILLS = (100, 100) if FULL else (20, 10)


# ------------------------------------------------------------------------------------------------- the store


def check_locked_store(folder):
    with Service(SERVICE, folder) as service:
        service.rate(40, 1, 5)
        db = sqlite3.connect(folder / 'store.db', isolation_level=None)
        db.execute('BEGIN EXCLUSIVE')
        headers = service.fails(503, 'store_locked', 'POST', '/ratings', {'user': 40, 'item': 2, 'rating': 3})[2]
        assert headers['Retry-After'] == '1'
        service.fails(503, 'store_locked', 'GET', '/healthz')
        assert len(service.get('/recommendations?user=40')['items']) == 10, 'readers need not wait'
        db.execute('ROLLBACK')
        assert service.rate(40, 3, 4) == 2, 'what was refused is there, or what was taken is not'
        db.close()
    db = sqlite3.connect(folder / 'store.db', isolation_level=None)
    db.execute('PRAGMA locking_mode = EXCLUSIVE')
    db.execute('BEGIN EXCLUSIVE')
    with Service(SERVICE, folder) as service:  # locked from the beginning, for readers too
        service.fails(503, 'store_locked', 'GET', '/ratings?user=40')
        service.fails(503, 'store_locked', 'POST', '/ratings', {'user': 40, 'item': 2, 'rating': 3})
        assert service.get('/scale')['n_items'] == 25
        db.close()
        assert [r['item'] for r in service.get('/ratings?user=40')['ratings']] == [1, 3]
        assert service.rate(40, 2, 3) == 3 and is_healthy(service)
    return 'locked store'


def check_damaged_store(folder):
    store = folder / 'store.db'
    whole = store.read_bytes()
    store.write_bytes(b'this is no database\n' * 1000)
    with Service(SERVICE, folder) as service:
        for method, path in (('GET', '/healthz'), ('GET', '/ratings?user=40'), ('GET', '/recommendations?user=40')):
            service.fails(503, 'store_damaged', method, path)
        service.fails(503, 'store_damaged', 'POST', '/ratings', {'user': 40, 'item': 4, 'rating': 3})
        assert store.read_bytes() == b'this is no database\n' * 1000, 'the evidence was destroyed'
        store.write_bytes(whole)
        assert service.rate(40, 4, 3) == 4 and is_healthy(service)
        # Pages in the middle, while it runs: each request works or is told why not.
        with sqlite3.connect(store) as db:
            db.execute('PRAGMA wal_checkpoint(TRUNCATE)')
        db.close()
        whole = store.read_bytes()
        with open(store, 'r+b') as f:
            f.seek(4096)
            f.write(random.Random(1).randbytes(len(whole) - 4096))
        seen = {service.ask('GET', f'/ratings?user={user}')[0] for user in range(40, 60)}
        seen |= {service.ask('POST', '/ratings', {'user': u, 'item': 1, 'rating': 1})[0] for u in range(60, 80)}
        assert seen <= {200, 503}, seen
        assert service.get('/scale')['n_items'] == 25
    store.write_bytes(whole)
    for journal in ('-wal', '-shm'):
        pathlib.Path(f'{store}{journal}').unlink(missing_ok=True)
    with Service(SERVICE, folder) as service:
        away = folder / 'away.db'
        store.rename(away)
        service.fails(503, 'store_failed', 'GET', '/ratings?user=40')
        service.fails(503, 'store_failed', 'POST', '/ratings', {'user': 40, 'item': 5, 'rating': 3})
        assert not store.exists(), 'an empty store in the place of the lost one'
        away.rename(store)
        assert service.rate(40, 5, 3) == 5
    return 'damaged and lost store'


def check_foreign_store(folder):
    for name, statements in (
            ('others.db', ['CREATE TABLE recipes (name TEXT)']), ('later.db', ['PRAGMA user_version = 2']),
            ('films.db', ['CREATE TABLE about (kind TEXT)', "INSERT INTO about VALUES ('movielens')",
                          'PRAGMA user_version = 1'])):
        with sqlite3.connect(folder / name) as db:
            for statement in statements:
                db.execute(statement)
        db.close()
        before = (folder / name).read_bytes()
        with Service(SERVICE, folder, '--store', folder / name) as service:
            service.fails(503, 'store_foreign', 'GET', '/healthz')
            service.fails(503, 'store_foreign', 'POST', '/ratings', {'user': 1, 'item': 1, 'rating': 1})
        assert (folder / name).read_bytes() == before, f'{name} was changed'
    return 'foreign stores'


# ------------------------------------------------------------------------------------------------- models


def save_model(file, data, seed):
    subprocess.run([QUICKSTART, '--epochs', '1', '--seed', str(seed), '--save', file, data], check=True,
                   capture_output=True)


def save_model_of_others(file, folder):
    """A model for other items: one of the statements has another text."""
    shutil.copytree(DATA, folder)
    table = folder / 'bfi_items.tsv'
    table.write_text(table.read_text().replace('Get angry easily.', 'Hardly ever get angry.'))
    save_model(file, folder, 1)


def check_models(folder):
    """Models that cannot be used are refused, and the one that is there goes on."""
    save_model_of_others(folder / 'others', folder / 'data')
    model = folder / 'model.safetensors'
    good = model.read_bytes()
    broken = bytearray(good)
    broken[len(good) // 2] ^= 1
    with Service(SERVICE, folder) as service:
        def answers():
            return service.get('/healthz')['model'], service.get('/recommendations?user=40&k=25')

        before = answers()
        for bytes_, words in (((folder / 'others').read_bytes(), 'ESCHEMA'), (bytes(broken), 'ECORRUPT'),
                              (good[:1000], 'EFORMAT|ECORRUPT'), (b'', 'EFORMAT'), (None, 'ENOTFOUND')):
            model.unlink(missing_ok=True)
            if bytes_ is not None:
                model.write_bytes(bytes_)
            message = service.fails(500, 'model', 'POST', '/reload')[1]['error']['message']
            assert re.search(words, message), (words, message)
            service.process.send_signal(signal.SIGHUP)
            assert answers() == before
        wait_until(lambda: service.metric('melu_reloads_refused_total') >= 6)  # signals may be taken together
        model.write_bytes(good)
        assert service.ask('POST', '/reload')[:2] == (200, {'model': before[0]})
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: service.metric('melu_reloads_total') == 2)
        assert answers() == before
    return 'models that cannot be used'


def check_swaps(folder):
    """Another model takes the place of the one that answers, again and again: one of them answers each request."""
    models = folder / 'first', folder / 'second'
    shutil.copy(folder / 'model.safetensors', models[0])
    save_model(models[1], DATA, 2)
    path = '/recommendations?user=40&k=25'
    seen, expected = set(), set()
    with Service(SERVICE, folder) as service:
        def work(number, connection):
            if number % 2:
                service.rate(1000 + number, random.randint(1, 25), random.randint(1, 6), connection)
            seen.add(json.dumps(service.get(path, connection)))
            service.get(f'/explain?user=40&item={random.randint(1, 25)}', connection)

        for model in models:
            put(model, folder / 'model.safetensors')
            service.ask('POST', '/reload')
            expected.add(json.dumps(service.get(path)))
        with Load(service, work) as load:
            for i in range(N_SWAPS):
                put(models[i % 2], folder / 'model.safetensors')
                before = service.metric('melu_reloads_total')
                if i % 4 < 2:
                    assert service.ask('POST', '/reload')[0] == 200
                else:
                    service.process.send_signal(signal.SIGHUP)
                    wait_until(lambda: service.metric('melu_reloads_total') > before)
        n = next(load.n_done)
        assert not load.failures, load.failures[:3]
        assert len(expected) == 2 and seen == expected, f'{len(seen)} different answers of two models'
        assert service.metric('melu_reloads_total') == N_SWAPS + 2
    return f'{N_SWAPS} models swapped during {3 * n} requests, none failed'


# ------------------------------------------------------------------------------------------------- the end


def check_kills(folder):
    """Every rating is given once, by a user of its own, so that what was acknowledged is known exactly."""
    numbers, acknowledged, n_unsure = itertools.count(1_000_000), {}, 0
    for _ in range(N_KILLS):
        asked = {}
        service = Service(SERVICE, folder)

        def work(number, connection):
            user = next(numbers)
            asked[user] = user % 25 + 1, user % 6 + 1
            service.rate(user, *asked[user], connection)
            acknowledged[user] = asked[user]

        with Load(service, work) as load:
            time.sleep(random.uniform(0.02, 0.4))
            service.process.send_signal(signal.SIGKILL)
        service.process.wait()
        service.process.stdout.close()
        service.log.close()
        assert all(isinstance(f, (ConnectionError, http.client.HTTPException)) for f in load.failures), load.failures
        with Service(SERVICE, folder) as service:
            for user in asked:
                found = [(r['item'], r['rating']) for r in service.get(f'/ratings?user={user}')['ratings']]
                assert found == [asked[user]] or (found == [] and user not in acknowledged), (user, found)
            n_unsure += len(asked.keys() - acknowledged.keys())
    with sqlite3.connect(folder / 'store.db') as db:
        found = {u: (i, r) for u, i, r in db.execute('SELECT user, item, rating FROM ratings WHERE user >= 1000000')}
        assert db.execute('PRAGMA integrity_check').fetchone()[0] == 'ok'
    db.close()
    assert acknowledged.items() <= found.items()
    assert len(acknowledged) > 10 * N_KILLS
    return f'killed {N_KILLS} times: {len(acknowledged)} acknowledged ratings, none lost ({n_unsure} were under way)'


def check_end(folder):
    """SIGTERM under load: what was begun is answered, what was acknowledged is there."""
    acknowledged, numbers = {}, itertools.count(2_000_000)
    service = Service(SERVICE, folder)

    def work(number, connection):
        user = next(numbers)
        service.rate(user, user % 25 + 1, 3, connection)
        acknowledged[user] = user % 25 + 1

    with service, Load(service, work) as load:
        time.sleep(0.5)
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(PATIENCE)
    assert all(isinstance(f, (ConnectionError, http.client.HTTPException)) for f in load.failures), load.failures
    with sqlite3.connect(folder / 'store.db') as db:
        found = dict(db.execute('SELECT user, item FROM ratings WHERE user >= 2000000'))
    db.close()
    assert acknowledged and acknowledged.items() <= found.items()
    return 'orderly end under load'


def main():
    with tempfile.TemporaryDirectory() as folder:
        for check in (check_locked_store, check_damaged_store, check_foreign_store, check_models, check_swaps,
                      check_kills, check_end):
            print(check(pathlib.Path(folder)), flush=True)


main()
