"""Clip art, an SVG file each, with title, description, keywords, artist and licence in its RDF.

What an image shows is said by its title, its file's name or its keywords; the first phrase that names a thing counts.
Titles are often of a series ('Lemon SVG theme'), addresses, numbers, or in another language: then no phrase names a
thing, or only a keyword does. Keywords that are the names of its folders tell a kind, not the thing. The sentence is
the description or the title, if it names the thing with more words, all of them English.
"""

import html
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from data.svg import Things, document, draw
from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped

LARGEST = 2**21  # Bytes of a file.
# Folders of what shows no thing, or things only to be told apart by convention.
NO_THINGS = ('shapes/', 'special/', 'signs_and_symbols/', 'computer/icons/', 'computer/buttons/', 'buttons/', 'logos/')
NO_THINGS += ('unsorted/duplicates/', 'decorations/', 'transportation/roadsigns/', 'recreation/games/cards/')
NO_THINGS += ('geography/',)
ADDRESS = re.compile(r'@|://|www\.|\bhash\(|\.svg', re.IGNORECASE)
NUDE = re.compile(r'\b(nude|naked|sexy|erotic|bikini|lingerie)\b', re.IGNORECASE)
MOST_KEYWORDS = 8
LONGEST_PHRASE = 4  # Words.
# Keywords that tell a kind.
KINDS = frozenset(
    'mammal animal transport transportation vehicle office computer plant icon road food clothing'.split()
)


def read(path: str, name: str, images: Any, things: Things, english: frozenset[str]) -> Iterator[Document | Dropped]:
    """The drawing of a file if it shows one of the `things`, or the rule that dropped it.

    english: words that may stand in a sentence.
    """
    drop = _rule(path, name)
    if drop:
        yield Dropped(drop, 'image', name)
        return
    svg = pathlib.Path(path).read_text('utf-8', 'replace')
    title, description, artist = (_field(svg, tag) for tag in ('title', 'description', 'creator'))
    keywords = [_plain(word) for word in re.findall(r'<rdf:li>(.*?)</rdf:li>', svg, re.DOTALL)][:MOST_KEYWORDS]
    licence = re.search(r'<cc:license\s+rdf:resource="([^"]*)"', svg)
    licence = licence[1] if licence else ''
    if not licence.lower().rstrip('/').endswith('publicdomain'):
        yield Dropped('licence', 'image', name, excerpt=licence)
        return
    said = ' '.join([title, description, *keywords])
    if NUDE.search(said):
        yield Dropped('nude', 'image', name, excerpt=title)
        return
    if ADDRESS.search(title):
        yield Dropped('title_is_address', 'text', name, excerpt=title)
        title = ''
    folders = {word.rstrip('s') for word in re.findall('[a-z]+', name.lower().rpartition('/')[0])} | KINDS
    keywords = [word for word in keywords if not ADDRESS.search(word) and word.lower().rstrip('s') not in folders]
    stem = re.sub('[_-]', ' ', pathlib.PurePath(name).stem)
    phrase = next((found for text in (title, stem, *keywords) if (found := named(text, things))), None)
    if phrase is None:
        yield Dropped('title_of_no_thing', 'image', name, excerpt=said)
        return
    try:
        image = draw(svg, on_page=True)
    except ValueError as error:
        yield Dropped('image_damaged', 'image', name, excerpt=str(error))
        return
    thing = things[phrase]
    sentence = ''
    for text in (description, title.partition('|')[0].strip()):
        words = re.findall(r"[a-z']+", text.lower())
        more = len(words) > len(phrase.split()) and phrase in ' '.join(words)
        if more and all(word in english for word in words):
            sentence = text[0].upper() + text[1:] + ('' if text.endswith(('.', '!', '?')) else '.')
            break
        if text:
            yield Dropped('text_not_english', 'text', name, excerpt=text)
    about = dict(style='clip-art', artist=artist or 'unknown', licence='public domain')
    yield document(name, image, thing, about | dict(source='Debian openclipart-svg'), sentence=sentence)


def named(text: str, things: Things) -> str | None:
    """The last and longest phrase of a text's first part that names a thing: 'Big truck' is a truck."""
    words = re.findall(r'[a-z]+', re.split(r'[|,;:(]| - | of | with | in | on ', text.lower())[0])
    for end in range(len(words), 0, -1):
        for begin in range(max(0, end - LONGEST_PHRASE), end):
            if (phrase := ' '.join(words[begin:end])) in things:
                return phrase
    return None


def _rule(path: str, name: str) -> str:
    if any(f'/{folder}' in f'/{name}' for folder in NO_THINGS):
        return 'folder_of_no_things'
    return 'file_too_large' if pathlib.Path(path).stat().st_size > LARGEST else ''


def _field(svg: str, tag: str) -> str:
    found = re.search(rf'<dc:{tag}>(.*?)</dc:{tag}>', svg, re.DOTALL)
    return _plain(re.sub('<[^>]*>', ' ', found[1])) if found else ''


def _plain(text: str) -> str:
    return ' '.join(html.unescape(text).replace('_', ' ').split())
