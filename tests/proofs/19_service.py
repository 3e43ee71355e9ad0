#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Proof 19: the service of examples/service stands malformed requests by the million, clients that are slow in every
way there is, and a disk that is full. It never answers with 5xx but where its store cannot write, does not grow, goes on
serving others meanwhile, and loses nothing that it acknowledged.
Usage: 19_service.py [--full]"""
import collections
import contextlib
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(SOURCE / 'tests'))
from service_client import Service, wait_until  # noqa: E402

BUILD = pathlib.Path(os.environ.get('MELU_BUILD', SOURCE / 'build-test')).resolve()
PROGRAM = BUILD / 'examples' / 'service' / 'melu-service'
FULL = '--full' in sys.argv[1:]
N_REQUESTS = 1_000_000 if FULL else 10_000
N_SLOW = 400 if FULL else 100
SAFE = 7_777_777  # a user whom no malformed request names

GOOD = [
    b'GET /scale HTTP/1.1\r\nHost: x\r\n\r\n',
    b'GET /recommendations?user=12&k=5&all=1 HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n',
    b'GET /explain?user=12&item=3 HTTP/1.1\r\nHost: x\r\n\r\n',
    b'GET /ask?user=12&k=3&skip=1,2,3 HTTP/1.1\r\nHost: x\r\n\r\n',
    b'DELETE /ratings?user=12&item=2 HTTP/1.1\r\nHost: x\r\n\r\n',
    b'POST /ratings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 34\r\n\r\n'
    b'{"user": 12, "item": 3, "rating":4}',
    b'POST /ratings HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n'
    b'1f\r\n[{"user":12,"item":1,"rating":2}]\r\n0\r\n\r\n',
]
SPICES = [b'\r\n', b'\0', b'\xff\xfe', b'%', b'%00', b'99999999999999999999', b'-1', b'1e999', b'{' * 50, b'[' * 3000, b'"',
          b'\\u0000', b'&', b'=', b'user=', b'Content-Length: 5\r\n', b'Transfer-Encoding: chunked\r\n', b' ', b'\t', b'a' * 9000,
          b'HTTP/1.0', b'?', b'#', b'/../', b'\xc3', b'NaN']


def spoil(rng):
    """A good request, spoilt in one to four places."""
    request = bytearray(rng.choice(GOOD))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(request) + 1)
        how = rng.randrange(5)
        if how == 0 and request:
            request[min(at, len(request) - 1)] = rng.randrange(256)
        elif how == 1:
            request[at:at] = rng.choice(SPICES)
        elif how == 2:
            del request[at:at + rng.randint(1, 30)]
        elif how == 3:
            request[at:at] = request[rng.randrange(len(request) + 1):][:rng.randint(1, 60)]
        else:
            request[at:] = rng.randbytes(rng.randint(0, 40))
    return bytes(request)


def status_of(port, request):
    """The status of what comes back, 0 for nothing. Nothing more will be sent, and the service is told so."""
    back = b''
    with socket.create_connection(('127.0.0.1', port), timeout=20) as s, contextlib.suppress(ConnectionError):
        s.sendall(request)
        s.shutdown(socket.SHUT_WR)
        while more := s.recv(65536):
            back += more
    found = re.match(rb'HTTP/1\.[01] (\d{3}) ', back)
    assert found or not back, f'{request!r} was answered by {back[:200]!r}'
    return int(found.group(1)) if found else 0


def resources(pid):
    """Resident kilobytes, and descriptors."""
    status = pathlib.Path(f'/proc/{pid}/status').read_text()
    return int(re.search(r'VmRSS:\s+(\d+)', status).group(1)), len(os.listdir(f'/proc/{pid}/fd'))


def send_spoilt(service, n, seed, n_threads=4):
    """How often each status came back."""
    counts, failures = collections.Counter(), []

    def work(number):
        rng = random.Random(seed * 1000 + number)
        try:
            for _ in range(n // n_threads):
                counts[status_of(service.port, spoil(rng))] += 1
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=[i]) for i in range(n_threads)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures, failures[0]
    return counts


def check_malformed(folder):
    with Service(PROGRAM, folder, '--rate', '0') as service:
        service.rate(SAFE, 1, 5)
        before = service.get(f'/recommendations?user={SAFE}&k=25')
        counts = send_spoilt(service, N_REQUESTS // 4, 1)
        warm = resources(service.process.pid)
        counts += send_spoilt(service, N_REQUESTS - N_REQUESTS // 4, 2)
        wait_until(lambda: service.metric('melu_connections') <= 1)
        rss, fds = resources(service.process.pid)
        assert service.get(f'/recommendations?user={SAFE}&k=25') == before, 'a user changed whom nobody named'
    bad = sum(n for status, n in counts.items() if status >= 500)
    assert bad == 0, f'answers: {dict(counts)}'
    n_refused = sum(n for status, n in counts.items() if 400 <= status < 500)
    assert n_refused > sum(counts.values()) / 4, f'hardly anything was malformed: {dict(counts)}'
    assert fds <= warm[1] + 2 and rss < 1.2 * warm[0] + 2048, f'{warm} became {(rss, fds)}'
    return f'{sum(counts.values())} malformed requests: {n_refused} refused, none answered with 5xx, {warm[0]} to {rss} KiB'


def check_slow(folder):
    """Connections that send nothing, or a byte now and then, or never read; others are served all the time."""
    parts = [b'', b'GET /sc', b'POST /ratings HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{"user"']
    with Service(PROGRAM, folder, '--seconds', '2') as service:
        fds = resources(service.process.pid)[1]
        slow = []
        for i in range(N_SLOW):
            s = socket.create_connection(('127.0.0.1', service.port), timeout=20)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            s.sendall(parts[i % 3] if i % 4 else b'GET / HTTP/1.1\r\nHost: x\r\n\r\n' * 20)
            slow.append(s)
        longest, end = 0, time.monotonic() + 4
        while time.monotonic() < end:
            begin = time.monotonic()
            service.get('/scale')
            longest = max(longest, time.monotonic() - begin)
            for s in slow[::7]:
                with contextlib.suppress(OSError):
                    s.send(b'x')
        for s in slow:
            s.close()
        wait_until(lambda: service.metric('melu_connections') <= 1)
        assert resources(service.process.pid)[1] <= fds + 2, 'descriptors are left'
    assert longest < 2, f'somebody else waited for {longest:.1f} s'
    return f'{N_SLOW} slow clients: others waited at most {1000 * longest:.0f} ms'


# The store may grow by some hundred KiB: since files may not be larger, and since the disk, in a namespace of the
# service's own, is not. What is on that disk is kept when the service has ended.
LIMITED = f'''#!/bin/bash
trap "" XFSZ
ulimit -f 400
exec {PROGRAM} "$@"
'''
SMALL_DISK = f'''#!/bin/bash
[ "${{1:-}}" == inside ] || exec unshare --user --map-root-user --mount "$0" inside "$@"
shift
folder=$2 # of --data
kept=$folder.kept
cp -a "$folder" "$kept" && mount -t tmpfs -o size=700k none "$folder" && cp -a "$kept/." "$folder" || exit 1
{PROGRAM} "$@" &
trap 'kill -TERM $!' TERM
wait $!
status=$?
if [ $status -gt 128 ]; then # it was told to end
  wait $!
  status=$?
fi
cp -a "$folder/." "$kept" && exit $status
'''


def can_mount():
    return subprocess.run(['unshare', '--user', '--map-root-user', '--mount', 'mount', '-t', 'tmpfs', 'none', '/mnt'],
                          capture_output=True).returncode == 0


def check_full_disk(folder):
    found = [fill(folder / 'limited', LIMITED)]
    if can_mount():
        found.append(fill(folder / 'small', SMALL_DISK))
    kinds = 'a limit of file sizes and a disk of 700 KiB' if len(found) == 2 else 'a limit of file sizes'
    return f'{kinds}: {sum(n for n, _ in found)} ratings refused, {sum(n for _, n in found)} acknowledged before, none lost'


def fill(folder, script):
    """How many ratings were refused and acknowledged."""
    folder.mkdir()
    with Service(PROGRAM, folder) as service:
        service.rate(SAFE, 2, 4)
    limited = folder.with_suffix('.sh')
    limited.write_text(script)
    limited.chmod(0o755)
    acknowledged, n_refused = {}, 0
    with Service(limited, folder) as service:
        for user in range(2_000_000, 2_030_000):
            status, found, _ = service.ask('POST', '/ratings', {'user': user, 'item': user % 25 + 1, 'rating': 3})
            if status == 200:
                acknowledged[user] = user % 25 + 1
                continue
            assert status in (503, 507) and len(found['error']['message']) > 10, (status, found)
            n_refused += 1
            assert service.get('/recommendations?user=1&k=5')['items'], 'who only asks is not served'
            if n_refused == 50:
                break
    assert n_refused == 50, f'the disk was never full: {len(acknowledged)} ratings'
    kept = folder.with_name(folder.name + '.kept')
    with Service(PROGRAM, kept if kept.exists() else folder) as service:
        for user in list(acknowledged)[-500:]:
            found = [r['item'] for r in service.get(f'/ratings?user={user}')['ratings']]
            assert found == [acknowledged[user]], (user, found)
        service.rate(SAFE, 3, 4)
    return n_refused, len(acknowledged)


def main():
    subprocess.run(['ninja', '-C', BUILD, 'examples/service/melu-service'], check=True, stdout=sys.stderr)
    found = []
    for check in (check_malformed, check_slow, check_full_disk):
        with tempfile.TemporaryDirectory() as folder:
            try:
                found.append(check(pathlib.Path(folder)))
            except Exception as failure:
                print(f'proof 19: broken, {check.__name__[6:]}: {type(failure).__name__} {str(failure)[:500]}')
                return 1
    print('proof 19: held, ' + '; '.join(found))
    return 0


sys.exit(main())
