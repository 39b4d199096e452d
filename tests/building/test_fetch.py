"""The fetcher, against a server on the loopback."""

import contextlib
import http.server
import json
import threading
import time

import pytest

from flamingo_jax.building import warc
from flamingo_jax.building.fetch import Host, Politeness, Refused, fetch, is_public
from tests.building.web import encoded_image

ROBOTS = b'User-agent: flamingo_jax\nDisallow: /private/\n\nUser-agent: *\nDisallow: /\n'


class Server(http.server.BaseHTTPRequestHandler):
    """Answers by the path; remembers what it was asked, by whom and when."""

    asked: list[tuple[str, str, float]] = []
    robots = ROBOTS
    robots_status = 200
    reservations = b'[{"location": "/reserved/*", "tdm-reservation": 1}]'
    busy = 0  # The status while it cannot answer.

    def do_GET(self):
        self.asked.append((self.path, self.headers['User-Agent'], time.monotonic()))
        name = self.path.split('?')[0]
        if name == '/robots.txt':
            return self.answer(self.robots_status, self.robots, 'text/plain')
        if name == '/.well-known/tdmrep.json':
            return self.answer(200, self.reservations, 'application/json')
        if name == '/busy.png' and self.busy:
            return self.answer(self.busy, b'')
        if name == '/half.png':
            return self.answer(200, bytes(500), Content_Length='1000')
        if name == '/loop.png':
            return self.answer(302, b'', location='/loop2.png')
        if name == '/loop2.png':
            return self.answer(302, b'', location='/loop.png')
        if name == '/moved.png':
            return self.answer(301, b'', location='/a.png')
        if name == '/inside.png':
            return self.answer(302, b'', location='file:///etc/passwd')
        if name == '/bracket.png':
            return self.answer(302, b'', location='http://[x/')
        if name.startswith('/far'):
            return self.answer(302, b'', location=f'/far{name}')
        if name == '/never.png':
            return time.sleep(9)
        if name == '/noai.png':
            return self.answer(200, encoded_image(1), **{'X-Robots-Tag': 'otherbot: noindex, noai'})
        if name == '/tdm.png':
            return self.answer(200, encoded_image(1), **{'TDM-Reservation': '1'})
        if name == '/gone.png':
            return self.answer(404, b'no')
        if name == '/drip.png':
            self.send_response(200)
            self.end_headers()
            for _ in range(300):
                self.wfile.write(b'x')
                self.wfile.flush()
                time.sleep(0.1)
            return None
        if name == '/large.png':
            return self.answer(200, b'x' * 300_000)
        return self.answer(200, encoded_image(2))

    def answer(self, status, data, kind='image/png', **headers):
        self.send_response(status)
        for name, value in {'Content_Type': kind, 'Content_Length': str(len(data)), **headers}.items():
            self.send_header(name.replace('_', '-'), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    Server.asked, Server.robots = [], ROBOTS
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_address[1]}'
    server.shutdown()
    server.server_close()


def how(**rest) -> Politeness:
    fast = dict(apart=0.01, timeout=60.0, deadline=60.0, most_bytes=200_000, private_networks=True)
    return Politeness('https://example.org/crawler', **fast | rest)


def test_each_attempt_is_a_record_with_its_reason(site, tmp_path):
    reasons = {
        'a': 200,
        'moved': 200,
        'gone': 404,
        'loop': 'image_redirects',
        'far': 'image_redirects',
        'inside': 'image_url',
        'bracket': 'image_url',
        'never': 'image_timeout',
        'drip': 'image_timeout',
        'noai': 'image_opt_out',
        'tdm': 'image_opt_out',
        'large': 'image_max_bytes',
        'half': 'image_unreachable',
        'private/a': 'image_robots',
        'reserved/a': 'image_opt_out',
    }
    assert fetch([f'{site}/{name}.png' for name in reasons], tmp_path, how(timeout=3.0, deadline=6.0)) == 3
    [file] = tmp_path.iterdir()
    found = {r.url.removeprefix(f'{site}/').removesuffix('.png'): r for r in warc.read_warc(str(file))}
    assert {name: r.status or r.type.removeprefix('refused/') for name, r in found.items()} == reasons
    assert found['moved'].data == found['a'].data == encoded_image(2)
    assert not [path for path, _, _ in Server.asked if 'private' in path or 'reserved' in path]
    assert {agent for _, agent, _ in Server.asked} == {'flamingo_jax/0.1 (training data; https://example.org/crawler)'}


def test_it_goes_on_where_it_was_stopped(site, tmp_path):
    urls, left = [f'{site}/{i}.png' for i in range(6)], iter([False, False, True])
    assert fetch(urls, tmp_path, how(), stop=lambda: next(left)) == 2
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-100])  # Killed while it wrote.
    Server.asked = []
    assert fetch(urls, tmp_path, how()) == 5
    assert sorted(path for path, _, _ in Server.asked if path.endswith('png')) == [f'/{i}.png' for i in range(1, 6)]
    assert fetch(urls, tmp_path, how()) == 0


def test_a_file_that_was_moved_away_does_not_stop_it(site, tmp_path):
    for number in range(2):
        fetch([f'{site}/{number}.png'], tmp_path, how())
    (tmp_path / 'fetched-00000.warc.gz').unlink()
    assert fetch([f'{site}/{i}.png' for i in range(3)], tmp_path, how()) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ['fetched-00001.warc.gz', 'fetched-00002.warc.gz']


class Clock:
    """A clock that stands still but for those who sleep by it."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_it_waits_between_requests(site, tmp_path, monkeypatch):
    clock = Clock()
    for module in ('flamingo_jax.building.fetch', __name__):
        monkeypatch.setattr(f'{module}.time', clock)
    fetch([f'{site}/{i}.png' for i in range(3)], tmp_path, how(apart=2.0, deadline=9.0))
    assert [at for _, _, at in Server.asked] == [2.0 * i for i in range(5)]  # After robots.txt and tdmrep.json.


def test_it_waits_as_long_as_robots_asks(site, tmp_path, monkeypatch):
    clock = Clock()
    for module in ('flamingo_jax.building.fetch', __name__):
        monkeypatch.setattr(f'{module}.time', clock)
    monkeypatch.setattr(Server, 'robots', b'User-agent: *\nCrawl-delay: 5\n')
    fetch([f'{site}/{i}.png' for i in range(3)], tmp_path, how(apart=2.0, deadline=99.0))
    assert [at for _, _, at in Server.asked] == [0.0, 2.0, 7.0, 12.0, 17.0]


def test_what_failed_for_a_moment_is_asked_for_again(site, tmp_path, monkeypatch):
    urls = [f'{site}/{name}.png' for name in ('busy', 'gone', 'half', 'private/a')]
    for status in (503, 429):
        monkeypatch.setattr(Server, 'busy', status)
        fetch(urls, tmp_path, how())
    monkeypatch.setattr(Server, 'busy', 0)
    Server.asked = []
    assert fetch(urls, tmp_path, how()) == 1
    assert [path for path, _, _ in Server.asked if path.endswith('png')] == ['/busy.png', '/half.png']
    assert fetch(urls[:1], tmp_path, how()) == 0


def test_a_host_whose_robots_cannot_be_had_is_asked_once_in_a_visit(site, tmp_path, monkeypatch):
    monkeypatch.setattr(Server, 'robots_status', 503)
    urls = [f'{site}/{i}.png' for i in range(5)]
    assert fetch(urls, tmp_path, how()) == 0
    assert [path for path, _, _ in Server.asked] == ['/robots.txt']
    monkeypatch.setattr(Server, 'robots_status', 404)
    assert fetch(urls, tmp_path, how()) == 5


@pytest.mark.parametrize(
    'robots, allowed',
    [
        (b'User-agent: *\nAllow: /\nDisallow: /a', False),  # The longest rule counts, not the first.
        (b'User-agent: *\nDisallow: /\nAllow: /a.png', True),
        (b'User-agent: *\nDisallow: /*.png$', False),
        (b'User-agent: *\nDisallow: /*.gif$', True),
        (b'User-agent: *\nCrawl-delay: 0\n\nDisallow: /', False),  # An empty line ends nothing.
        (b'\xef\xbb\xbfUser-agent: *\nDisallow: /', False),
        (b'User-agent: *\nDisallow: //[x\n', True),
        # What is no number of seconds is passed over, and the other lines count.
        ('User-agent: *\nCrawl-delay: ²\n'.encode(), True),
        ('User-agent: *\nCrawl-delay: ²\nDisallow: /a'.encode(), False),
        (b'User-agent: *\nCrawl-delay: ' + b'9' * 400 + b'\nDisallow: /a', False),
    ],
)
def test_robots_is_read_as_its_standard_says(robots, allowed, site, monkeypatch):
    monkeypatch.setattr(Server, 'robots', robots)
    with contextlib.nullcontext() if allowed else pytest.raises(Refused, match='image_robots$'):
        assert Host(how()).get(f'{site}/a.png').status == 200


def test_a_host_that_asks_for_long_delays_is_left_alone(site, monkeypatch):
    monkeypatch.setattr(Server, 'robots', b'User-agent: *\nCrawl-delay: 100\n')
    with pytest.raises(Refused, match='image_robots_delay'):
        Host(how()).get(f'{site}/a.png')


def test_a_url_with_a_bracket_in_it_is_judged(site):
    with pytest.raises(Refused, match='image_robots$'):
        Host(how()).get(site.replace('://', '://%5B@') + '/private/a.png')


@pytest.mark.parametrize('pattern, reserved', [('/*a*.png$', True), ('/a', True), ('/*b', False), ('/a$', False)])
def test_reservations_are_patterns_that_cannot_stop_it(pattern, reserved, site, monkeypatch):
    slow = dict(location='/' + 'a*' * 50 + 'b')
    listed = [slow, {'location': pattern, 'tdm-reservation': 1}, {'location': '/', 'tdm-reservation': 0}]
    monkeypatch.setattr(Server, 'reservations', json.dumps(listed).encode())
    with pytest.raises(Refused, match='image_opt_out') if reserved else contextlib.nullcontext():
        assert Host(how()).get(f'{site}/{"a" * 200}.png').status == 200


@pytest.mark.parametrize(
    'url', ['http://127.0.0.1/', 'http://localhost/a.png', 'http://[::1]/', 'http://10.0.0.1/', 'http://169.254.169.254/',
            'http://2130706433/', 'http://0x7f.1/', 'http://[::ffff:127.0.0.1]/', 'http://0.0.0.0/']
)  # fmt: skip
def test_private_networks_are_refused(url):
    with pytest.raises(Refused, match='image_private_network|image_unreachable'):
        Host(how(private_networks=False)).get(url)


def test_public_addresses():
    assert is_public('93.184.215.14') and is_public('2606:2800:21f:cb07:6820:80da:af6b:8b2c')
    private = '127.0.0.1 10.1.2.3 192.168.0.1 172.16.0.1 169.254.1.1 100.64.0.1 224.0.0.1 0.0.0.0 ::1 fe80::1 fc00::1'
    around = '::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1::'
    assert not [one for one in (private + ' ' + around).split() if is_public(one)]


def test_nobody_asks_without_a_name():
    with pytest.raises(ValueError, match='neither a URL nor an e-mail address'):
        Politeness('me')
