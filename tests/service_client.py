# SPDX-License-Identifier: BSD-3-Clause
"""A running service and its clients, for the tests of it."""
import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

PATIENCE = 20


class Service:
    """A running service; --port 0 has it choose a port, which it prints."""

    def __init__(self, program, folder, *options):
        self.folder = folder
        self.log = open(folder / 'log', 'a+')
        self.process = subprocess.Popen([program, '--data', folder, '--port', '0', *map(str, options)],
                                        stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.port = int(re.search(r':(\d+)/$', self.process.stdout.readline()).group(1))

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE)
        self.process.stdout.close()
        self.log.close()
        assert kind or status == 0, f'the service ended with {status}: {(self.folder / "log").read_text()}'

    def connect(self):
        return http.client.HTTPConnection('127.0.0.1', self.port, timeout=PATIENCE)

    def ask(self, method, path, body=None, headers={}, connection=None):
        """Returns the status, the JSON of the answer (or its text), and its headers."""
        kept = connection or self.connect()
        kept.request(method, path, json.dumps(body) if isinstance(body, (dict, list)) else body, headers)
        answer = kept.getresponse()
        text = answer.read()
        if not connection:
            kept.close()
        is_json = answer.headers['Content-Type'] == 'application/json' and text
        return answer.status, json.loads(text) if is_json else text.decode(), answer.headers

    def get(self, path, connection=None):
        status, found, _ = self.ask('GET', path, connection=connection)
        assert status == 200, f'{path}: {status} {found}'
        return found

    def rate(self, user, item, rating, connection=None):
        status, found, _ = self.ask('POST', '/ratings', {'user': user, 'item': item, 'rating': rating},
                                    connection=connection)
        assert status == 200, f'{status} {found}'
        return found['ratings']

    def fails(self, status, code, method, path, body=None, headers={}):
        found = self.ask(method, path, body, headers)
        shown = f'{method} {path} {str(body)[:80]}: {str(found)[:300]}'
        assert found[0] == status and found[1]['error']['code'] == code, shown
        assert len(found[1]['error']['message']) > 10, shown
        return found

    def raw(self, *parts, pause=0.0):
        """What comes back for bytes that are no proper request, until the service ends the connection."""
        with socket.create_connection(('127.0.0.1', self.port), timeout=PATIENCE) as s:
            back = b''
            with contextlib.suppress(ConnectionError):
                for part in parts:
                    s.sendall(part)
                    time.sleep(pause)
            with contextlib.suppress(ConnectionError):
                while more := s.recv(65536):
                    back += more
            return back

    def metric(self, name):
        return sum(float(x) for x in re.findall(rf'^{re.escape(name)} (\S+)$', self.get('/metrics'), re.M))


def wait_until(is_true):
    end = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < end, 'it never came true'
        time.sleep(0.02)


def is_healthy(service):
    return service.ask('GET', '/healthz')[0] == 200


def put(source, target):
    """As a careful program replaces a file: no moment without a whole one."""
    shutil.copy(source, f'{target}.new')
    os.replace(f'{target}.new', target)


class Load:
    """Threads that ask and rate, each with its own connection, until they are told to stop."""

    def __init__(self, service, work, n=8):
        self.stopping, self.failures, self.n_done = False, [], itertools.count()
        self.threads = [threading.Thread(target=self.run, args=[service, work, i]) for i in range(n)]

    def run(self, service, work, number):
        connection = service.connect()
        try:
            while not self.stopping:
                work(number, connection)
                next(self.n_done)
        except Exception as failure:
            self.failures.append(failure)
        connection.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        for thread in self.threads:
            thread.join(PATIENCE)
