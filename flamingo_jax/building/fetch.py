"""Fetches the images of pages, politely, into WARC files that `pages.py` reads like any others.

It says who it is, obeys robots.txt (RFC 9309) and what servers reserve (X-Robots-Tag, TDMRep), and waits between two
requests to a host. It connects to public addresses only: a page may name any URL, and must not reach this machine's
own network through it. Every attempt leaves a record, so that a second run goes on where the first one ended, and asks
again for what failed for a moment, and so that the ledger can say why an image is missing.
"""

import concurrent.futures
import contextlib
import dataclasses
import http.client
import io
import pathlib
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Sequence

from protego import Protego
from tqdm import tqdm
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from flamingo_jax.addresses import PinnedConnection, addresses_of, is_public
from flamingo_jax.building import warc
from flamingo_jax.building.optouts import AGENT, FILE_BYTES, opted_out, read_reservations, read_robots, reserved
from flamingo_jax.building.page import join
from flamingo_jax.errors import UserError
from flamingo_jax.locks import alone_in

REFUSED = 'flamingo-refused'  # Field of the metadata record of an image that was not fetched.
# What may be otherwise in an hour.
PASSING = ('refused/image_unreachable', 'refused/image_timeout', 'refused/image_robots_unknown')
WARC_BYTES = 10**9  # About the size of a WARC file.


class Refused(Exception):
    """An image that is not fetched. The message is the rule's name."""


@dataclasses.dataclass(frozen=True)
class Politeness:
    """How to fetch."""

    contact: str  # URL or e-mail address of who runs it, for those whose servers it asks.
    apart: float = 1.0  # Seconds between two requests to a host; robots.txt can ask for more.
    longest_delay: float = 30.0  # A host that asks for a longer delay is left alone.
    hosts: int = 16  # That are asked at once.
    timeout: float = 10.0  # Seconds without an answer,
    deadline: float = 60.0  # and in all, for one image.
    most_bytes: int = 20_000_000
    redirects: int = 5
    private_networks: bool = False  # For tests, whose server is on the loopback.

    def __post_init__(self):
        """Raises ValueError if nobody could be asked about the requests."""
        if not re.search(r'@|https?://', self.contact):
            raise UserError(
                f'The contact {self.contact!r} is neither a URL nor an e-mail address. Whose images are fetched has '
                'to be able to reach you.'
            )

    @property
    def agent(self) -> str:
        """The header User-Agent."""
        return f'{AGENT}/0.1 (training data; {self.contact})'


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a server sent."""

    status: int
    headers: list[tuple[str, str]]
    data: bytes

    def get(self, name: str) -> str:
        """A header; '' if there is none."""
        return ', '.join(self.every(name))

    def every(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for key, value in self.headers if key.lower() == name]


@alone_in('out')
def fetch(urls: Iterable[str], out: pathlib.Path, how: Politeness, stop: Callable[[], bool] = lambda: False) -> int:
    """Fetches images into `out`/fetched-NNNNN.warc.gz, and returns how many are new there.

    Args:
      urls: of the images. Those of which `out` has a record that `is_final` are left out.
      stop: is asked before each request; True ends the run, which can go on later.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(out.glob('fetched-*.warc.gz'))
    done = {
        found.url
        for file in files
        for found in warc.read_warc(str(file))
        if isinstance(found, warc.Response) and is_final(found)
    }
    by_host: dict[str, list[str]] = {}
    for url in dict.fromkeys(urls):
        if url not in done:
            by_host.setdefault(urllib.parse.urlsplit(url).netloc, []).append(url)
    total = sum(map(len, by_host.values()))
    bar = tqdm(total=total, desc='fetching', unit=' images', delay=1)
    numbers = [int(found[1]) for file in files if (found := re.fullmatch(r'fetched-(\d+)\.warc\.gz', file.name))]
    with contextlib.closing(_Writer(out, max(numbers, default=-1) + 1)) as writer, bar:

        def visit(host_urls: Sequence[str]) -> int:
            host, got = Host(how), 0
            for url in host_urls:
                if stop():
                    break
                try:
                    writer.response(url, host.get(url))
                    got += 1
                except Refused as error:
                    writer.refused(url, str(error))
                bar.update()
            return got

        with concurrent.futures.ThreadPoolExecutor(how.hosts) as pool:
            return sum(pool.map(visit, by_host.values()))


def is_final(found: warc.Response) -> bool:
    """Whether it is no use to ask again: the server answered, and not that it is busy or broken."""
    return found.type not in PASSING and not _is_busy(found.status)


def _is_busy(status: int) -> bool:
    return status == 429 or status >= 500


class Host:
    """Asks one host, one request at a time."""

    def __init__(self, how: Politeness):
        self._how, self._last, self._next = how, 0.0, 0.0  # When it was asked last, and may be asked next.
        self._rules: dict[str, tuple[Protego, list[tuple[Protego, bool]]] | Refused] = {}

    def get(self, url: str) -> Answer:
        """Fetches one image, through redirects.

        Raises:
          Refused: it is not to be fetched, or cannot be.
        """
        ends = time.monotonic() + self._how.deadline

        def ask(url: str) -> Answer:
            self._check(url, ends)
            answer = self._ask(url, ends, self._how.most_bytes)
            if opted_out(answer.every('x-robots-tag'), answer.every('tdm-reservation')):
                raise Refused('image_opt_out')
            return answer

        answer = self._follow(url, ask)
        if answer.status in warc.REDIRECTS:
            raise Refused('image_redirects')
        return answer

    def _follow(self, url: str, ask: Callable[[str], Answer]) -> Answer:
        """The answer to a URL after its redirects; the last redirect if they lead in a circle or are too many."""
        seen = set()
        for _ in range(self._how.redirects + 1):
            seen.add(url)
            answer = ask(url)
            if answer.status not in warc.REDIRECTS:
                break
            url = join(url, answer.get('location'))
            if not url:
                raise Refused('image_url')
            if url in seen:
                break
        return answer

    def _check(self, url: str, ends: float) -> None:
        """Raises if the host forbids the URL."""
        parts = urllib.parse.urlsplit(url)
        root = f'{parts.scheme}://{parts.netloc}'
        if root not in self._rules:
            try:
                self._rules[root] = self._robots(root, ends), self._reservations(root, ends)
            except Refused as error:
                self._rules[root] = error  # Of this visit: a dead host is not asked for each of its images.
        rules = self._rules[root]
        if isinstance(rules, Refused):
            raise Refused(str(rules))
        robots, reservations = rules
        if not robots.can_fetch(url, AGENT):
            raise Refused('image_robots')
        delay = robots.crawl_delay(AGENT) or 0
        if delay > self._how.longest_delay:
            raise Refused('image_robots_delay')
        self._next = max(self._next, self._last + delay)
        if reserved(url, reservations):
            raise Refused('image_opt_out')

    def _robots(self, root: str, ends: float) -> Protego:
        answer = self._follow(f'{root}/robots.txt', lambda url: self._ask(url, ends, FILE_BYTES))
        if _is_busy(answer.status):
            raise Refused('image_robots_unknown')  # RFC 9309: as if it forbade everything.
        # RFC 9309: without one everything is allowed, and after redirects without end as well.
        return read_robots(answer.data if answer.status == 200 else b'')

    def _reservations(self, root: str, ends: float) -> list[tuple[Protego, bool]]:
        """(location, reserved) of /.well-known/tdmrep.json."""
        try:
            answer = self._follow(f'{root}/.well-known/tdmrep.json', lambda url: self._ask(url, ends, FILE_BYTES))
        except Refused:
            return []
        return read_reservations(answer.data) if answer.status == 200 else []

    def _ask(self, url: str, ends: float, most: int) -> Answer:
        """One request, to an address that was checked."""
        parts = urllib.parse.urlsplit(url)
        try:
            port = parts.port or (443 if parts.scheme == 'https' else 80)
        except ValueError:
            raise Refused('image_url') from None
        if parts.scheme not in ('http', 'https') or not parts.hostname:
            raise Refused('image_url')
        address = self._address(parts.hostname, port)
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._last = time.monotonic()
        self._next = self._last + self._how.apart
        connection = PinnedConnection(
            parts.hostname, port, address, secure=parts.scheme == 'https', timeout=self._how.timeout
        )
        try:
            path = urllib.parse.urlunsplit(('', '', parts.path or '/', parts.query, ''))
            accepted = {'User-Agent': self._how.agent, 'Accept': 'image/*,*/*;q=0.5', 'Accept-Encoding': 'identity'}
            connection.request('GET', path, headers=accepted | {'Host': parts.netloc.rpartition('@')[2]})
            response = connection.getresponse()
            blocks, size = [], 0
            while block := response.read1(65536):
                blocks.append(block)
                size += len(block)
                if size > most:
                    raise Refused('image_max_bytes')
                if time.monotonic() > ends:
                    raise Refused('image_timeout')
            if response.length:  # Of a body that ended early; `read1` does not tell.
                raise Refused('image_unreachable')
            return Answer(response.status, response.getheaders(), b''.join(blocks))
        except TimeoutError as error:
            raise Refused('image_timeout') from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Refused('image_unreachable') from error
        finally:
            connection.close()

    def _address(self, host: str, port: int) -> str:
        """An address of a host, of which all are public."""
        try:
            found = addresses_of(host, port)
        except (OSError, UnicodeError) as error:
            raise Refused('image_unreachable') from error
        if not self._how.private_networks and not all(map(is_public, found)):
            raise Refused('image_private_network')
        return found[0]


class _Writer:
    """WARC files of about a gigabyte. Threads may write at once."""

    def __init__(self, out: pathlib.Path, number: int):
        self._out, self._number, self._file, self._lock = out, number, None, threading.Lock()

    def response(self, url: str, answer: Answer) -> None:
        reason = http.client.responses.get(answer.status, '')
        headers = StatusAndHeaders(f'{answer.status} {reason}', answer.headers, protocol='HTTP/1.1')
        self._write(url, 'response', answer.data, http_headers=headers)

    def refused(self, url: str, rule: str) -> None:
        data = f'{REFUSED}: {rule}\r\n'.encode()
        self._write(url, 'metadata', data, warc_content_type='application/warc-fields')

    def _write(self, url: str, kind: str, data: bytes, **rest) -> None:
        with self._lock:
            if self._file is None or self._file.tell() > WARC_BYTES:
                self.close()
                self._file = open(self._out / f'fetched-{self._number:05d}.warc.gz', 'xb')
                self._number += 1
            writer = WARCWriter(self._file, gzip=True)
            writer.write_record(writer.create_warc_record(url, kind, payload=io.BytesIO(data), **rest))
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
