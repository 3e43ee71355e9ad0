#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Uses the page of the service as visitors do: by mouse and by keyboard, in headless Chromium, on a phone and on a
desktop, in light and in dark; with a service that is away, or asks for a token. page_checks.js looks for what keeps
people out. Usage: check_page.py MELU_SERVICE CHROMEDRIVER [FOLDER of screenshots]"""
import contextlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import urllib.request

sys.dont_write_bytecode = True  # nothing is written into the source
from browser import PATIENCE, Browser  # noqa: E402

SIZES = ((360, 740), (1280, 800))
SCHEMES = ('light', 'dark')
CHECKS = pathlib.Path(__file__).with_name('page_checks.js').read_text()
TOKEN = 'a token for this test'


class Service:
    """The service in a temporary folder. It keeps its port when it is started again."""

    def __init__(self, program, folder):
        self.program, self.folder, self.port, self.process = program, folder, 0, None

    def start(self, *options):
        self.process = subprocess.Popen([self.program, '--data', self.folder, '--port', str(self.port), *options],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = self.process.stdout.readline().strip()
        assert self.url, 'the service did not start'
        self.port = int(self.url.rstrip('/').rsplit(':', 1)[1])

    def stop(self):
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
            return json.load(answer)


class Visit:
    """What a visitor sees and does, and what the service knows of her."""

    def __init__(self, browser, service, pictures):
        self.browser, self.service, self.pictures = browser, service, pictures

    def open(self):
        self.browser.open(self.service.url)
        self.browser.wait('return document.querySelector("main").ariaBusy === "false"')
        self.settle()

    def settle(self):
        """Waits until the page shows all that the service said, and nothing moves any more."""
        self.browser.wait('return !document.body.matches(".waiting")')
        self.browser.run('document.getAnimations().forEach((a) => a.finish())')

    def text(self, selector):
        return self.browser.run('return document.querySelector(arguments[0])?.textContent', selector)

    def user(self):
        return self.browser.run('return JSON.parse(localStorage.getItem("melu-visitor")).user')

    def ratings(self):
        return {r['title']: r['rating'] for r in self.service.get(f'ratings?user={self.user()}')['ratings']}

    def predictions(self):
        """Title -> the number beside it, as shown."""
        return dict(self.browser.run('''return [...document.querySelectorAll('#items > li')].map((li) =>
            [li.querySelector('.title').textContent, Number(li.querySelector('.value').textContent)])'''))

    def half_width(self):
        """Of the intervals of what is not answered, computed from the service's own numbers."""
        items = self.service.get(f'recommendations?user={self.user()}&k=25')['items']
        return sum(max(p['high'] - p['score'], p['score'] - p['low']) for p in items) / len(items)

    def has_focus(self, selector):
        return self.browser.run('return document.activeElement.matches(arguments[0])', selector)

    def tab_to(self, selector):
        for _ in range(80):
            if self.has_focus(selector):
                return
            self.browser.press('tab')
        raise AssertionError(f'the tabulator does not lead to {selector}')

    def by_mouse(self, rating):
        self.browser.click(f'#options button:nth-child({rating})')
        self.settle()

    def by_key(self, key):
        self.browser.press(key)
        self.settle()

    def look(self, name):
        """Nothing may be amiss at any size and in any colours; takes a picture of each."""
        for width, height in SIZES:
            for scheme in SCHEMES:
                self.browser.emulate(width, height, scheme)
                self.settle()
                found = self.browser.run(CHECKS + 'return findings()')
                assert not found, f'{name}, {width} x {height}, {scheme}: ' + '; '.join(found)
                if self.pictures:
                    (self.pictures / f'{name}-{width}-{scheme}.png').write_bytes(self.browser.screenshot())

    def quiet(self, *expected):
        for line in self.browser.complaints():
            assert any(re.search(e, line) for e in expected), f'the console says: {line}'


# Offences, and what has to be said of each. Those whose finding nobody made would show that nothing is looked for.
OFFENCES = {
    'document.documentElement.lang = ""': 'no language',
    'document.title = ""': 'no title',
    'document.querySelector("main").append($("keys").cloneNode())': 'there twice',
    'document.querySelector("header").remove()': '0 of body > header',
    '$("status").removeAttribute("role")': 'no live region',
    '$("ask").outerHTML = "<h4 id=ask>?</h4>"': 'headings jump',
    '$("options").firstChild.ariaLabel = "one"': 'unlike its text',
    '$("skip").textContent = ""': 'id=skip.*no name',
    '$("curve").removeAttribute("aria-labelledby")': 'curve.*no name',
    '$("asking").setAttribute("aria-hidden", "true")': 'hidden from those',
    '$("items").setAttribute("role", "listing")': 'unexpected role',
    '$("options").setAttribute("aria-labelledby", "asked")': 'names asked, which is not there',
    'document.querySelector(".prediction").ariaExpanded = "open"': 'neither true nor false',
    '$("skip").tabIndex = 3': 'positive tabindex',
    '$("skip").style = "min-height: 0; height: 20px"': r'x 20',
    '$("statement").style.width = "2000px"': 'the page is [0-9]* wide',
    '$("statement").style.color = "#888"': 'id=statement.*has a contrast',
    '$("options").firstChild.style.borderColor = "#ddd"': 'the edge of',
}


def check_checks(visit):
    visit.browser.emulate(*SIZES[1], 'light')
    for offence, finding in OFFENCES.items():
        visit.open()
        found = visit.browser.run(CHECKS + f'{offence}; return findings()')
        assert any(re.search(finding, f) for f in found), f'{offence}: found only {found}'


def check_first_answers(visit):
    """By mouse, then by keyboard alone."""
    browser = visit.browser
    before, statement, width = visit.predictions(), visit.text('#statement'), visit.half_width()
    assert len(before) == 25 and not visit.ratings()
    visit.look('0-answers')
    visit.by_mouse(5)
    after = visit.predictions()
    assert visit.ratings() == {statement: 5}
    assert statement in before and statement not in after and len(after) == 24
    moved = [title for title in after if after[title] != before[title]]
    assert moved, 'an answer changes no prediction'
    assert f'It had expected {before[statement]:.1f}.' in visit.text('#noted')
    assert f'moved {len(moved)} of these 24' in visit.text('#summary')
    assert visit.text('#statement') != statement
    assert visit.text('#statement') in visit.text('#status'), 'the next question is not announced'

    statement = visit.text('#statement')
    visit.tab_to('#options button:nth-child(2)')
    visit.by_key('enter')
    assert visit.ratings()[statement] == 2
    assert visit.has_focus('#options button:nth-child(2)'), 'an answer takes the focus away'
    statement = visit.text('#statement')
    visit.by_key('6')
    assert visit.ratings()[statement] == 6 and visit.has_focus('#options button:nth-child(2)')
    visit.look('3-answers')

    visit.tab_to('#keys')
    visit.by_key(' ')
    visit.by_key('3')
    assert len(visit.ratings()) == 3, 'keys answer although they should not'
    visit.by_key(' ')
    visit.by_key('4')
    assert len(visit.ratings()) == 4
    assert visit.half_width() < width, 'intervals do not narrow'
    shown = [float(x) for x in re.findall(r'\d\.\d\d', visit.text('#sure-text'))]
    assert [round(x - y, 1) for x, y in zip(shown, (visit.half_width(), width))] == [0, 0], shown
    assert browser.run('return document.querySelectorAll("#curve .point").length') == 5


def check_explanation(visit):
    browser = visit.browser
    visit.tab_to('.prediction')
    visit.by_key('enter')
    lines = browser.wait('''const all = [...document.querySelectorAll('.pulls li')].map((li) => li.textContent);
                            return all.length && all''')
    title = visit.text('.prediction[aria-expanded=true] .title')
    items = visit.service.get(f'recommendations?user={visit.user()}&k=25')['items']
    item = next(p['item'] for p in items if p['title'] == title)
    pulls = visit.service.get(f'explain?user={visit.user()}&item={item}')['pulls']
    assert len(lines) == len(pulls) == 4
    for line, pull in zip(lines, pulls):
        size = f'{abs(pull["pull"]):.2f}'
        assert line.startswith(f'Your {pull["rating"]:.0f} on “{pull["title"].rstrip(".")}”'), line
        way = 'hardly' if size == '0.00' else f'{"up" if pull["pull"] > 0 else "down"} by {size}'
        assert way in line, f'{line}: {pull}'
    visit.by_key('1')
    assert browser.run('return document.querySelectorAll(".pulls li").length') == 5
    assert visit.text('.prediction:focus .title') == title, 'the focus is no longer where the row has gone'
    visit.look('explained')


def check_changes(visit):
    """Answers corrected, taken back, skipped; all of it there after a reload."""
    browser, before = visit.browser, visit.predictions()
    given = visit.text('.given > span')
    old = visit.ratings()[given]
    visit.tab_to('.given select')
    visit.by_key('down')
    assert visit.ratings() == {**visit.ratings(), given: old + 1} and len(visit.ratings()) == 5
    assert visit.predictions() != before, 'a correction changes no prediction'
    assert f'Your {old + 1:.0f} on “{given.rstrip(".")}”' in visit.text('.pulls')
    assert visit.has_focus('.given select')
    browser.click('.given button')
    visit.settle()
    assert given not in visit.ratings() and len(visit.ratings()) == 4
    assert given in visit.predictions() and visit.has_focus('.given button')

    skipped = visit.text('#statement')
    browser.click('#skip')
    visit.settle()
    assert visit.text('#statement') != skipped and len(visit.ratings()) == 4
    seen = [visit.text(s) for s in ('#statement', '#given', '#curve', '#number')], visit.user(), visit.predictions()
    visit.open()
    again = [visit.text(s) for s in ('#statement', '#given', '#curve', '#number')], visit.user(), visit.predictions()
    assert seen == again, f'{seen} became {again} by a reload'


def check_tab_stops(visit):
    """Every control is reached, in the order of the page, and can be seen when it has the focus."""
    for width, height in SIZES:
        visit.browser.emulate(width, height, 'light')
        n = visit.browser.run(CHECKS + 'document.activeElement.blur(); scrollTo(0, 0); return shown(CONTROLS).length')
        visit.tab_to('#options button:first-child')
        stops = []
        for _ in range(n):
            stops.append(visit.browser.run(CHECKS + 'return focus()'))
            visit.browser.press('tab')
            if len(stops) > 1 and stops[-1]['place'] < 0:
                break
        places = [s['place'] for s in stops if s['place'] >= 0]
        assert places == list(range(n)), f'{places} of {n}'
        for stop in stops[:n]:
            assert stop['place'] < 0 or (stop['isMarked'] and stop['isInView']), f'the focus on {stop} cannot be seen'


def check_away(visit):
    """A service that is away loses nothing: neither while the page is open nor by a reload."""
    browser, service = visit.browser, visit.service
    for is_reloaded in (False, True):
        statement, shown = visit.text('#statement'), visit.predictions()
        service.stop()
        visit.by_key('5')
        for _ in range(2):
            browser.wait('return document.querySelector("#notice button")')
            assert 'does not answer' in visit.text('#notice') and 'nothing is lost' in visit.text('#notice')
            assert visit.predictions() == shown
            assert visit.text('#options .chosen') == '5'
            browser.click('#notice button')
            visit.settle()
            assert visit.has_focus('#notice button')
        if not is_reloaded:
            visit.look('away')
        service.start()
        if is_reloaded:
            visit.open()
        else:
            browser.click('#notice button')
            visit.settle()
        assert visit.ratings()[statement] == 5 and not visit.text('#notice')
        assert not browser.run('return document.querySelector("#options .chosen")')
    visit.quiet('ERR_CONNECTION_REFUSED')


def check_token(visit):
    browser, service = visit.browser, visit.service
    path = pathlib.Path(service.folder, 'token')
    path.write_text(TOKEN + '\n')
    service.stop()
    service.start('--token-file', path)
    statement = visit.text('#statement')
    visit.by_mouse(2)
    for token, words in (('not the token, for sure', 'asks for'), (TOKEN, 'does not accept')):
        browser.wait('return document.querySelector("#token")')
        assert words in visit.text('#notice')
        visit.look('token')
        browser.click('#token')
        browser.press(*token, 'enter')
        visit.settle()
    assert visit.ratings()[statement] == 2 and not visit.text('#notice')
    visit.by_mouse(4)
    assert not visit.text('#notice'), 'the token is forgotten'
    visit.quiet('401')


def check_motion(visit):
    """What moves, and that nothing does for those who do not want it."""
    browser = visit.browser
    browser.run('''window.moves = 0;
      for (const event of ['transitionrun', 'animationstart']) addEventListener(event, () => moves++);
      const animate = Element.prototype.animate;
      Element.prototype.animate = function (...how) { moves++; return animate.apply(this, how); };''')
    visit.by_mouse(6)
    browser.wait('return moves > 0')
    browser.devtools('Emulation.setEmulatedMedia', features=[{'name': 'prefers-reduced-motion', 'value': 'reduce'}])
    browser.run('moves = 0')
    visit.by_mouse(1)
    browser.run('return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))')
    assert browser.run('return moves') == 0, 'things move although they should not'


def check_start_over(visit, anybody):
    browser, user = visit.browser, visit.user()
    n = len(visit.ratings())
    browser.click('#over')
    visit.look('start-over')
    assert f'{n} answers' in visit.text('#forget-text')
    browser.press('escape')
    assert len(visit.ratings()) == n
    visit.tab_to('#over')
    browser.press('enter')
    browser.wait('return document.querySelector("#sure-to-forget").open')
    browser.press('enter')
    browser.wait('return document.querySelector(".answers").hidden')
    visit.settle()
    assert not visit.service.get(f'ratings?user={user}')['ratings'] and visit.user() != user
    assert visit.predictions() == anybody


def check_to_the_end(visit):
    browser = visit.browser
    browser.click('#skip')
    visit.settle()
    for i in range(24):
        browser.wait('return document.querySelectorAll(".given").length === arguments[0]', i)
        visit.by_key(str(i % 6 + 1))
        if i == 9:
            visit.look('10-answers')
    browser.wait('return document.querySelector("#asking").hidden')
    assert len(visit.ratings()) == 24 and 'nothing left' in visit.text('#ask')
    visit.look('nothing-left')
    browser.click('#skipped-again')
    visit.settle()
    visit.by_mouse(3)
    browser.wait('return document.querySelectorAll(".given").length === 25')
    assert not visit.predictions() and 'thank you' in visit.text('#ask')


def check_films(visit):
    """The same service as if it had many films to offer, whose titles are markup."""
    browser = visit.browser
    script = browser.devtools('Page.addScriptToEvaluateOnNewDocument', source='''
      const real = window.fetch;
      window.fetch = async (path, options) => {
        let text = (await (await real(path, options)).text());
        text = text.replaceAll('"title":"', '"title":"<img src=x onerror=hacked=1>');
        if (path.startsWith('scale')) {
          text = JSON.stringify({...JSON.parse(text), max: 5, labels: null, kind: 'movielens', n_items: 3881});
        }
        return new Response(text, {headers: {'Content-Type': 'application/json'}});
      };''')
    browser.run('localStorage.clear()')
    visit.open()
    assert visit.text('#skip') == 'Haven’t seen it' and len(visit.predictions()) == 20
    assert visit.text('#options') == '1 ★2 ★3 ★4 ★5 ★'
    visit.by_mouse(5)
    browser.click('.prediction')
    browser.wait('return document.querySelector(".pulls li")')
    visit.settle()
    for place in ('#statement', '.prediction .title', '.pulls li', '.given span', '#noted'):
        assert '<img src=x' in visit.text(place), f'{place}: {visit.text(place)}'
    assert browser.run('return document.images.length === 0 && typeof hacked === "undefined"')
    visit.look('films')
    browser.devtools('Page.removeScriptToEvaluateOnNewDocument', identifier=script['identifier'])


def main():
    program, driver, *folders = sys.argv[1:]
    pictures = pathlib.Path(folders[0]) if folders else None
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        service = Service(program, folder)
        service.start()
        stack.callback(lambda: service.process.kill())
        visit = Visit(stack.enter_context(Browser(driver)), service, pictures)
        visit.browser.emulate(*SIZES[1], 'light')
        visit.open()
        anybody = visit.predictions()
        check_first_answers(visit)
        check_explanation(visit)
        check_changes(visit)
        check_tab_stops(visit)
        visit.quiet()
        check_away(visit)
        check_token(visit)
        check_motion(visit)
        check_start_over(visit, anybody)
        check_to_the_end(visit)
        check_films(visit)
        visit.quiet()
        check_checks(visit)
    print(f'page: used by mouse and keyboard, {len(OFFENCES)} planted offences were found')


if __name__ == '__main__':
    main()
