# SPDX-License-Identifier: BSD-3-Clause
"""Headless Chromium by the WebDriver protocol (https://www.w3.org/TR/webdriver/), as far as tests need it."""
import base64
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request

PATIENCE = 20.0
# Fixed by the standard: the key of an element's reference, and the letters of keys that have none.
ELEMENT = 'element-6066-11e4-a52e-4f735466cecf'
KEYS = {'tab': '\ue004', 'enter': '\ue007', 'escape': '\ue00c', 'down': '\ue015'}


class Browser:
    def __init__(self, driver):
        self.program = driver

    def __enter__(self):
        self.driver = subprocess.Popen([self.program, '--port=0'], stdout=subprocess.PIPE, text=True)
        for line in self.driver.stdout:
            if started := re.search(r'started successfully on port (\d+)', line):
                break
        self.base = f'http://127.0.0.1:{started.group(1)}/session'
        arguments = ['--headless=new', '--disable-dev-shm-usage', '--disable-gpu']
        if os.geteuid() == 0:
            arguments.append('--no-sandbox')  # Chromium as root refuses to start otherwise
        wanted = {'browserName': 'chrome', 'goog:loggingPrefs': {'browser': 'ALL'},
                  'goog:chromeOptions': {'args': arguments}}
        self.base += '/' + self.call('POST', '', {'capabilities': {'alwaysMatch': wanted}})['sessionId']
        return self

    def __exit__(self, *_):
        try:
            self.call('DELETE', '')
        finally:
            self.driver.terminate()
            self.driver.wait()

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {'Content-Type': 'application/json'}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)['value']
        except urllib.error.HTTPError as error:
            raise AssertionError(f'{method} {path}: {json.load(error)["value"]["message"]}') from None

    def open(self, url):
        self.call('POST', '/url', {'url': url})

    def run(self, script, *args):
        return self.call('POST', '/execute/sync', {'script': script, 'args': args})

    def wait(self, script, *args):
        end = time.monotonic() + PATIENCE
        while not (value := self.run(script, *args)):
            assert time.monotonic() < end, f'never came true: {script} {args}'
            time.sleep(0.02)
        return value

    def click(self, selector):
        found = self.call('POST', '/element', {'using': 'css selector', 'value': selector})
        self.call('POST', f'/element/{found[ELEMENT]}/click', {})

    def press(self, *keys):
        actions = [{'type': kind, 'value': KEYS.get(key, key)} for key in keys for kind in ('keyDown', 'keyUp')]
        self.call('POST', '/actions', {'actions': [{'type': 'key', 'id': 'keys', 'actions': actions}]})

    def devtools(self, command, **parameters):
        return self.call('POST', '/goog/cdp/execute', {'cmd': command, 'params': parameters})

    def emulate(self, width, height, scheme):
        self.devtools('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1,
                      mobile=False)
        self.devtools('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': scheme}])

    def screenshot(self):
        return base64.b64decode(self.devtools('Page.captureScreenshot', format='png')['data'])

    def complaints(self):
        """What the console has got since it was last asked."""
        return [entry['message'] for entry in self.call('POST', '/se/log', {'type': 'browser'})]
