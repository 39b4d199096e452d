"""What asks not to be trained on: headers, meta elements, robots.txt, ai.txt and tdmrep.json.

    X-Robots-Tag, <meta name=robots>   noai or noimageai; any `no...` that names a crawler of training data
    TDM-Reservation, <meta>            1 (W3C TDMRep)
    /.well-known/tdmrep.json           the same, by locations of the host
    /robots.txt, /ai.txt               what they forbid to a crawler of training data, by its name or to all

All values count, of a header that is sent twice as well.
"""

import json
import urllib.parse
from collections.abc import Sequence
from typing import NamedTuple

from protego import Protego

AGENT = 'flamingo_jax'  # The name that robots.txt may forbid.
# Names under which crawlers collect training data, or by which sites forbid to train, as their makers publish them.
CRAWLERS = frozenset(
    'ai2bot amazonbot anthropic-ai applebot-extended bytespider ccbot claudebot cohere-ai cohere-training-data-crawler '
    'diffbot facebookbot google-extended gptbot img2dataset meta-externalagent omgili omgilibot webzio-extended'.split()
) | {AGENT}
NEVER = frozenset(['noai', 'noimageai'])
FILES = ('/robots.txt', '/ai.txt', '/.well-known/tdmrep.json')
FILE_BYTES = 500_000  # That are read of such a file (RFC 9309, section 2.5).


def opted_out(robots: Sequence[str], reservations: Sequence[str] = ()) -> bool:
    """Whether headers or meta elements ask not to train on what they come with.

    Args:
      robots: every value of X-Robots-Tag, or the content of a meta element, with its name before it: 'ccbot: nofollow'.
      reservations: every value of TDM-Reservation.
    """
    if any('1' in value.replace(',', ' ').split() for value in reservations):
        return True
    for value in robots:
        agent = ''  # An agent's directives are those after its name, until another one is named.
        for directive in value.lower().replace(';', ',').split(','):
            before, colon, after = directive.partition(':')
            if colon:
                agent, directive = before.strip(), after
            asked = directive.split()
            if NEVER.intersection(asked) or (agent in CRAWLERS and any(one.startswith('no') for one in asked)):
                return True
    return False


def reserving_meta(metas: Sequence[tuple[str, str]]) -> str:
    """The first (name, content) of meta elements that opts out, as a text; '' if none does."""
    for name, content in metas:
        name, content = name.strip().lower(), content.strip()
        named = content if name in ('robots', 'x-robots-tag') else f'{name}: {content}' if name in CRAWLERS else ''
        if opted_out([named], [content] if name == 'tdm-reservation' else []):
            return f'{name}: {content}'
    return ''


class Wishes(NamedTuple):
    """What the files of a host ask. `forbidden` says it of a URL."""

    robots: tuple[tuple[Protego, tuple[str, ...]], ...] = ()  # Rules of robots.txt and ai.txt, for these crawlers.
    reservations: tuple[tuple[Protego, bool], ...] = ()  # (location, reserved) of tdmrep.json, in order.

    def forbidden(self, url: str) -> str:
        """'robots' or 'opt_out' if the host asks not to train on what is at a URL, else ''."""
        if any(not rules.can_fetch(url, agent) for rules, agents in self.robots for agent in agents):
            return 'robots'
        return 'opt_out' if reserved(url, self.reservations) else ''


def wishes(files: Sequence[tuple[str, bytes]]) -> Wishes:
    """What the (path, content) of a host's files ask. What cannot be read asks nothing."""
    robots: list[tuple[Protego, tuple[str, ...]]] = []
    reservations: list[tuple[Protego, bool]] = []
    for path, data in files:
        data = data[:FILE_BYTES]
        if path == FILES[-1]:
            reservations += read_reservations(data)
        elif data.lstrip()[:1] != b'<':  # Not a page that says that there is none.
            text = data.decode('utf-8', 'replace').lower()
            named = [agent for agent in sorted(CRAWLERS) if agent in text and agent != AGENT]
            robots.append((read_robots(data), (AGENT, *named)))  # What is not named is as AGENT is.
    return Wishes(tuple(robots), tuple(reservations))


def read_robots(data: bytes) -> Protego:
    """The rules of a robots.txt."""
    return Protego.parse(data.decode('utf-8-sig', 'replace'))


def read_reservations(data: bytes) -> list[tuple[Protego, bool]]:
    """(location, reserved) of a tdmrep.json (W3C TDMRep, section 6), whose locations are as in robots.txt."""
    try:
        return [
            (Protego.parse(f'User-agent: *\nDisallow: {one["location"]}'), str(one.get('tdm-reservation')) == '1')
            for one in json.loads(data)
            if 'location' in one
        ]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return []


def reserved(url: str, reservations: Sequence[tuple[Protego, bool]]) -> bool:
    """Whether the first location that a URL is in is reserved."""
    return next((whether for location, whether in reservations if not location.can_fetch(url, AGENT)), False)


def file_of_wishes(url: str) -> str:
    """Which of `FILES` a URL names; '' if none."""
    path = urllib.parse.urlsplit(url).path
    return path if path in FILES else ''
