"""Web pages in WARC files -> interleaved documents, as the paper's M3W (section 2.4 and appendix A.3.1).

    files ── read ──┬── wishes of hosts ───────┬─────────────────────┐
                    ├── pages ─ latest of a URL ┴─ permitted ┬── links ┴─ permitted ┬─ judged ─┬─ whole ─┬─ documents
                    └── images (where they are) ──────────┼──────────────────────┘          │         │
                                                            └── keys of texts ── duplicates ──┴─ marks ─┘

Only short facts are grouped: where a page or an image is, its hashes, and what is wrong with it. They are grouped in
files (`spill.py`). In the end each page is read a second time from its place, and its images for the first time in
full. So memory holds one page. What shares a key, such as the pages with one logo, may be more than memory holds: it is
counted and gone through, never listed.
"""

import collections
import dataclasses
import hashlib
import json
import urllib.parse
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from flamingo_jax.building import duplicates, filters, image_checks, optouts, page, redirects, texts, warc
from flamingo_jax.building.division import divide
from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.page import Link, PageError, Text
from flamingo_jax.building.readers.folder import file_of_url
from flamingo_jax.building.rules import PageRules
from flamingo_jax.building.runner import beam
from flamingo_jax.building.spill import GroupOnDisk
from flamingo_jax.building.write import Sources

OPTED_OUT = 'refused/image_opt_out'
SAMPLED_BYTES = 100_000  # A dropped image of at most so many bytes may be shown in the ledger.


class Found(NamedTuple):
    """A page, or a part of it, that the rules of texts keep."""

    id: str
    url: str
    date: str
    place: warc.Place
    part: int  # Of the page, if it is divided.
    language: str
    links: tuple[tuple[int, tuple[str, ...]], ...]  # Place in the page and URLs of each image, the best first.
    lines: tuple[bytes, ...]  # Key of each text.
    keys: tuple[bytes, ...]  # Of all texts together, which pages of the same or nearly the same text share.


# Date, place and parts; None asks not to be trained on.
Capture = tuple[str, warc.Place, tuple[Found, ...] | None]


class Wish(NamedTuple):
    """A capture of a file in which a host says who may fetch what."""

    date: str
    place: warc.Place
    status: int
    file: str  # One of `optouts.FILES`.


class Wanted(NamedTuple):
    """A candidate of an image of a page."""

    page: str  # The id of the document,
    where: str  # and the URL.
    place: int
    rank: int  # Of the candidates of one image, 0 is the best.
    url: str
    is_one: bool  # Whether the image has no other.


class Lacking(NamedTuple):
    """A candidate of several that is not kept, and why."""

    place: int
    rank: int
    url: str
    rule: str
    value: int | float | None = None


class Shown(NamedTuple):
    """An image of a page that the rules of images keep."""

    place: int
    rank: int
    url: str
    look: bytes
    file: str  # Where it is,
    offset: int  # and the record's position; -1 is a file of its own.


class Whole(NamedTuple):
    """A page with its images."""

    found: Found
    shown: tuple[Shown, ...]


@dataclasses.dataclass(frozen=True)
class PageSource:
    """Where pages and their images come from."""

    warcs: tuple[str, ...]
    rules: PageRules
    images: str = ''  # A folder of images at HOST/PATH, or named by the SHA-256 of their URL; '' is none.
    benchmarks: str = ''  # A file of `index_benchmarks`; '' is none.
    licence: str = ''

    def sources(self, pipeline: beam.Pipeline, work: str) -> Sources:
        """The documents, and what was dropped."""
        rules = self.rules
        read = (
            pipeline
            | 'files' >> beam.Create(self.warcs)
            | 'spread files' >> beam.Reshuffle()
            | 'read'
            >> beam.ParDo(_Read(self, work)).with_outputs('images', 'moved', 'wishes', 'read', 'dropped', main='pages')
        )
        latest = dict(captures=read.pages) | 'by url' >> GroupOnDisk(work) | 'latest' >> _split(_latest)
        pages = (
            dict(wishes=read.wishes, pages=latest.main | 'hosts' >> beam.Map(lambda found: (host(found.url), found)))
            | 'by host' >> GroupOnDisk(work)
            | 'pages permitted' >> _split(_permitted_pages)
        )
        links = (
            dict(wishes=read.wishes, links=pages.main | 'links' >> beam.FlatMap(_links))
            | 'links by host' >> GroupOnDisk(work)
            | 'links permitted' >> beam.FlatMap(_permitted_links).with_outputs('dropped', 'lacking', main='main')
        )
        moved = redirects.followed(read.moved, read.images, work)
        judged = (
            dict(links=links.main, images=read.images, moved=moved)
            | 'by image' >> GroupOnDisk(work)
            | 'judge' >> beam.ParDo(_Judge(self)).with_outputs('dropped', 'lacking', main='main')
        )
        keys = (
            dict(keys=pages.main | 'keys by id' >> beam.FlatMap(_keys_by_id), shown=judged.main)
            | 'keys by page' >> GroupOnDisk(work)
            | 'keys' >> beam.FlatMap(_text_keys, rules)
        )
        same = dict(names=keys) | 'by text' >> GroupOnDisk(work) | 'same text' >> beam.FlatMap(_same_text)
        whole = (
            dict(
                found=pages.main | 'by id' >> beam.Map(lambda found: (found.id, found)),
                shown=judged.main,
                forbidden=links.lacking,
                lacking=judged.lacking,
                same=same,
            )
            | 'by page' >> GroupOnDisk(work)
            | 'whole' >> _split(_whole, rules)
        )
        by_site = dict(pages=whole.main | 'sites' >> beam.Map(lambda one: (_site(one.found), one)))
        shared = by_site | 'by site' >> GroupOnDisk(work) | 'shared keys' >> beam.FlatMap(_shared_keys)
        marks = dict(pages=shared) | 'by key' >> GroupOnDisk(work) | 'marks' >> beam.FlatMap(_marks, rules)
        documents = (
            dict(whole=whole.main | 'whole by id' >> beam.Map(lambda one: (one.found.id, one)), marks=marks)
            | 'marks by page' >> GroupOnDisk(work)
            | 'documents' >> beam.ParDo(_Finish(self)).with_outputs('dropped', main='main')
        )
        dropped = [
            read.dropped,
            latest.dropped,
            pages.dropped,
            links.dropped,
            judged.dropped,
            whole.dropped,
            documents.dropped,
        ]
        return Sources({'train': documents.main}, dropped, read.read)


def _split(function, *arguments):
    """A FlatMap whose `Dropped` go to the output `dropped`."""
    return beam.FlatMap(_tag, function, *arguments).with_outputs('dropped', main='main')


def _tag(item, function, *arguments):
    for made in function(item, *arguments):
        yield beam.pvalue.TaggedOutput('dropped', made) if isinstance(made, Dropped) else made


class Part(NamedTuple):
    """What is kept of a page, or of a part of it."""

    texts: list[Text]
    links: list[Link]
    broken: filters.Broken | None  # The rule that the texts break together, if any.


class Read(NamedTuple):
    """What the rules of texts say of a page."""

    parts: list[Part]  # One, unless the page is long.
    language: str
    dropped: list[Dropped]


def read_texts(response: warc.Response, rules: PageRules) -> Read:
    """Reads a page.

    Raises:
      PageError: the page is not to be read, or it or its server asks not to train on it.
    """
    if optouts.opted_out(response.robots, response.reservations):
        raise PageError('page_opt_out', None, ', '.join(response.robots) or 'TDM-Reservation: 1')
    read = page.read_page(response.data, response.url, response.charset, rules)
    nodes = [node for node in read.nodes if isinstance(node, Text)]
    kept, links, dropped, judged, seen = [], [], list(read.dropped), {}, set()
    blocks = blocks_of(nodes)
    language = filters.language_of_blocks(list(blocks.values()))
    for node in read.nodes:
        if isinstance(node, Text):
            if node.block not in judged:
                block = blocks[node.block]
                broken = judged[node.block] = filters.broken_by_text(block, language, rules)
                if broken:
                    dropped.append(Dropped(broken[0], 'text', read.url, node.place, block.text, broken[1]))
            if not judged[node.block]:
                kept.append(node)
        elif (
            rules.image_min_side
            and min(s for s in (node.width, node.height, 10**6) if s is not None) < rules.image_min_side
        ):
            least = min(s for s in (node.width, node.height) if s is not None)
            dropped.append(Dropped('image_min_side', 'image', read.url, node.place, node.url, least))
        elif node.url in seen:
            dropped.append(Dropped('image_repeated', 'image', read.url, node.place, node.url))  # OBELICS, step 14.
        else:
            seen.add(node.url)
            links.append(node)
    parts = []
    for nodes in divide(sorted([*kept, *links], key=lambda node: node.place), rules.document_max_words):
        some = [node for node in nodes if isinstance(node, Text)]
        shown = [node for node in nodes if isinstance(node, Link)]
        parts.append(Part(some, shown, filters.broken_by_document(some, language, rules)))
    return Read(parts, language.code, dropped)


def blocks_of(nodes: Sequence[Text]) -> dict[int, Text]:
    """Texts as they were before images within a sentence divided them."""
    blocks: dict[int, Text] = {}
    for node in nodes:
        begun = blocks.get(node.block)
        if begun:
            length, more = len(begun.text), len(node.text)
            links = (begun.links * length + node.links * more) / (length + more)
            node = dataclasses.replace(begun, text=f'{begun.text} {node.text}', links=links)
        blocks[node.block] = node
    return blocks


class _Read(beam.DoFn):
    """A file -> its pages that the rules of texts keep, where its images are, and keys of the texts."""

    def __init__(self, source: PageSource, work: str):
        self._source, self._work = source, work

    def process(self, path: str) -> Iterator:
        """Reads all of a file."""
        readable, problem = warc.seekable(path, self._work)
        if problem:
            yield _drop(problem)
        read: collections.Counter[tuple[str, str]] = collections.Counter()
        for found in warc.read_warc(readable):
            read['record', 'all'] += 1
            if isinstance(found, warc.Damage):
                yield _drop(Dropped(found.rule, 'record', path, found.offset, found.said))
            elif isinstance(found, warc.Other):
                read['record', found.kind] += 1
            else:
                kind = yield from self._response(found, read)
                if kind:
                    read['record', kind] += 1
                else:
                    said = f'{found.status} {found.type} {found.url}'
                    yield _drop(Dropped('record_type', 'record', path, found.place.offset, said))
        yield from (beam.pvalue.TaggedOutput('read', one) for one in read.items())

    def _response(self, found: warc.Response, read: collections.Counter) -> Generator[Any, None, str]:
        """What a response is: 'page', 'image', 'redirect' or 'host'; '' if nothing of these. Counts what it reads."""
        kind = ''
        if (file := optouts.file_of_wishes(found.url)) and (found.status == 200 or 400 <= found.status < 500):
            wish = Wish(found.date, found.place, found.status, file)
            yield beam.pvalue.TaggedOutput('wishes', (host(found.url), wish))
            kind = 'host'
        if found.moved:
            yield beam.pvalue.TaggedOutput('moved', (join_key(found.moved), join_key(found.url)))
            kind = kind or 'redirect'
        if told := may_be_image(found):
            capture = found.date, found.place, found.status or found.type
            yield beam.pvalue.TaggedOutput('images', (join_key(found.url), capture))
            kind = kind or ('image' if told == 'image' else '')
        if warc.is_page(found):
            yield from self._page(found, read)
            kind = 'page'
        elif not kind and found.type in warc.HTML:
            yield _drop(Dropped('page_status', 'page', found.url, -1, '', found.status))
            read['document', 'all'] += 1
            kind = 'page'
        return kind

    def _page(self, response: warc.Response, counted: collections.Counter) -> Iterator:
        rules, where = self._source.rules, response.url
        try:
            read = read_texts(response, rules)
        except PageError as error:
            counted['document', 'all'] += 1
            yield _drop(Dropped(error.rule, 'page', where, -1, error.excerpt, error.value))
            if error.rule == 'page_opt_out':
                yield where, (response.date, response.place, None)  # Older captures are asked for as well.
            return
        counted['document', 'all'] += len(read.parts)
        counted['image', 'all'] += sum(one.what == 'image' for one in read.dropped)
        counted['image', 'all'] += sum(len(part.links) for part in read.parts)
        yield from map(_drop, read.dropped)
        made = [self._part(response, read, number) for number in range(len(read.parts))]
        yield from (_drop(one) for one in made if isinstance(one, Dropped))
        if found := tuple(one for one in made if isinstance(one, Found)):
            yield where, (response.date, response.place, found)

    def _part(self, response: warc.Response, read: Read, number: int) -> Found | Dropped:
        rules, where = self._source.rules, response.url
        kept, links, broken = read.parts[number]
        whole = '\n'.join(node.text for node in kept)
        if not broken and len(links) < rules.document_min_images:
            broken = 'document_min_images', len(links)
        if not broken and duplicates.open_benchmarks(self._source.benchmarks).text(whole, rules.benchmark_words):
            broken = 'benchmark_words', None
        if broken:
            return Dropped(broken[0], 'document', where, -1, whole, broken[1], images=len(links))
        same = [b'=' + duplicates.text_key(whole)] if rules.document_same_text else []
        name = hashlib.sha256(where.encode('utf-8', 'replace')).hexdigest()[:24]
        return Found(
            f'{name}.{number}' if number else name,
            where,
            response.date,
            response.place,
            number,
            read.language,
            tuple((link.place, link.urls) for link in links),
            tuple({duplicates.text_key(block.text) for block in blocks_of(kept).values() if block.kind == 'text'}),
            (*same, *(duplicates.near_keys(whole) if rules.document_near_text else [])),
        )


def _drop(dropped: Dropped):
    return beam.pvalue.TaggedOutput('dropped', dropped)


def named_as_image(url: str) -> bool:
    """Whether a URL says that it is an image, whatever its server says."""
    return urllib.parse.urlsplit(url).path.lower().endswith(duplicates.IMAGES)


def may_be_image(found: warc.Response) -> str:
    """'image' if a response is one, or says why one is not there; 'status' if it may say so; '' if not."""
    told = found.type.startswith(('image/', 'refused/')) or named_as_image(found.url)
    return 'image' if told or image_checks.format_of(found.data) else 'status' if found.status != 200 else ''


def join_key(url: str) -> str:
    """By what a link finds its image: http and https are one."""
    return url.split('#')[0].removeprefix('https:').removeprefix('http:')


def _latest(group: tuple[str, Mapping[str, Iterable[Capture]]]) -> Iterator[Found | Dropped]:
    """The latest capture of a URL (OBELICS, step 9); none if that one asks not to be trained on."""
    url, parts = group
    _, latest, _ = max(parts['captures'], key=lambda capture: capture[:2])
    for date, place, found in parts['captures']:
        for one in found or ():
            older = Dropped('page_url', 'page', url, -1, f'{date} {place.path} {place.offset}', images=len(one.links))
            yield one if place == latest else older


def _keys_by_id(found: Found) -> Iterator[tuple[str, bytes]]:
    yield from ((found.id, key) for key in found.keys)


def _links(found: Found) -> Iterator[tuple[str, Wanted]]:
    for place, urls in found.links:
        for rank, url in enumerate(urls):
            yield host(url), Wanted(found.id, found.url, place, rank, url, len(urls) == 1)


def host(url: str) -> str:
    """The host of a URL, with its port if it is not the usual one."""
    return urllib.parse.urlsplit(url).netloc.rpartition('@')[2].lower()


def _permitted_pages(group: tuple[str, Mapping[str, Iterable]]) -> Iterator[Found | Dropped]:
    """The pages of a host that it lets be trained on."""
    _, parts = group
    asked = _asked(parts['wishes'])
    for found in parts['pages']:
        why = asked.forbidden(found.url)
        yield Dropped(f'page_{why}', 'page', found.url, images=len(found.links)) if why else found


def _permitted_links(group: tuple[str, Mapping[str, Iterable]]) -> Iterator:
    """The links to images of a host that it lets be trained on, by what joins them with the images."""
    _, parts = group
    asked = _asked(parts['wishes'])
    for link in parts['links']:
        why = asked.forbidden(link.url)
        yield _lacking(link, f'image_{why}') if why else (join_key(link.url), link)


def _lacking(link: Wanted, rule: str, value: int | float | None = None, said: str = '', data: bytes = b''):
    """What is not kept: the image, or one of its candidates, of which another may be."""
    if link.is_one:
        return _drop(Dropped(rule, 'image', link.where, link.place, f'{link.url}{said}', value, image=data))
    lacks = Lacking(link.place, link.rank, f'{link.url}{said}', rule, value)
    return beam.pvalue.TaggedOutput('lacking', (link.page, lacks))


def _asked(wishes: Iterable[Wish]) -> optouts.Wishes:
    """What a host asks in the latest capture of each file."""
    latest: dict[str, Wish] = {}
    for wish in wishes:
        latest[wish.file] = max(wish, latest.get(wish.file, wish))
    return optouts.wishes([(file, warc.read_at(one.place).data) for file, one in latest.items() if one.status == 200])


class _Judge(beam.DoFn):
    """An image with all links to it -> whether it is kept, for each page that shows it."""

    def __init__(self, source: PageSource):
        self._source = source

    def process(self, item) -> Iterator:
        """Reads the image once."""
        _, groups = item
        url_of_one = min((link.url for link in groups['links']), default=None)
        if url_of_one is None:
            return
        rules, data, seen, file = self._source.rules, b'', None, None
        try:
            data, file = self._read([*groups['images'], *groups['moved']], url_of_one)
            seen = image_checks.look_at(data, rules)
            name = duplicates.open_benchmarks(self._source.benchmarks).image(seen.hash, rules.benchmark_distance)
            if name:
                raise image_checks.LookError('benchmark_distance', None, name)
        except image_checks.LookError as error:
            said = f' {error.excerpt}' if error.excerpt else ''
            shown = data if len(data) <= SAMPLED_BYTES else b''
            for link in groups['links']:
                yield _lacking(link, error.rule, error.value, said, shown)
            return
        for link in groups['links']:
            yield link.page, Shown(link.place, link.rank, link.url, seen.hash, *file)

    def _read(self, captures, url: str) -> tuple[bytes, tuple[str, int]]:
        latest = max((capture for capture in captures if capture[2] in (200, OPTED_OUT)), default=None)
        if latest and latest[2] == 200:
            _, place, _ = latest
            response = warc.read_at(place)
            if optouts.opted_out(response.robots, response.reservations):
                raise image_checks.LookError('image_opt_out', None, ', '.join(response.robots))
            return response.data, (place.path, place.offset)
        if not latest and (path := file_of_url(self._source.images, url)):
            most = self._source.rules.image_max_bytes
            with open(path, 'rb') as file:
                return file.read(most + 1 if most else -1), (path, -1)
        _, _, status = latest or max(captures, default=(None, None, None))
        if isinstance(status, str):
            raise image_checks.LookError(status.removeprefix('refused/'))
        raise image_checks.LookError('image_status' if status else 'image_missing', status)


def _text_keys(group: tuple[str, Mapping[str, Iterable]], rules: PageRules) -> Iterator[tuple[bytes, tuple[bool, str]]]:
    """The keys of a page's texts, with whether it lacks images."""
    name, parts = group
    lacks = len({one.place for one in parts['shown']}) < rules.document_min_images
    for key in parts['keys']:
        yield key, (lacks, name)


def _same_text(group: tuple[bytes, Mapping[str, Iterable[tuple[bool, str]]]]) -> Iterator[tuple[str, tuple[str, str]]]:
    """All pages but one that share a key, with that one: of a page and its mirror, one that has its images."""
    key, parts = group
    _, first = min(parts['names'])
    rule = 'document_same_text' if key.startswith(b'=') else 'document_near_text'
    for _, name in parts['names']:
        if name != first:
            yield name, (rule, first)


def _whole(group, rules: PageRules) -> Iterator[Whole | Dropped]:
    """A page with its images, unless another page is the same or too few or too many images are left."""
    _, parts = group
    for found in parts['found']:
        same = min(parts['same'], key=lambda one: (one[0] != 'document_same_text', one), default=None)
        best = {one.place: one for one in sorted(parts['shown'], reverse=True)}  # Of the lowest rank.
        shown = tuple(best[place] for place in sorted(best))
        lacking = [one for name in ('forbidden', 'lacking') for one in parts[name] if one.place not in best]
        for one in {one.place: one for one in sorted(lacking, key=lambda one: one[:2], reverse=True)}.values():
            yield Dropped(one.rule, 'image', found.url, one.place, one.url, one.value)
        if same:
            said = f'The same as the document {same[1]}.'
            yield Dropped(same[0], 'document', found.url, -1, said, images=len(shown))
        elif len(shown) < rules.document_min_images:
            yield Dropped('document_min_images', 'document', found.url, -1, '', len(shown), len(shown))
        elif rules.document_max_images and len(shown) > rules.document_max_images:
            yield Dropped('document_max_images', 'document', found.url, -1, '', len(shown), len(shown))
        else:
            yield Whole(found, shown)


def _site(found: Found) -> tuple[str, str]:
    """A site's pages in one language."""
    return urllib.parse.urlsplit(found.url).netloc.lower(), found.language


def _shared_keys(group: tuple[tuple[str, str], Mapping[str, Iterable[Whole]]]) -> Iterator:
    """What the pages of a site may share: texts with those of their site, images with all."""
    site, parts = group
    of_site = sum(1 for _ in parts['pages'])
    for found, shown in parts['pages']:
        one = (found.date, found.id, of_site)
        for key in found.lines:
            yield ('text_on_site', *site, key), one
        for url in {image.url for image in shown}:
            yield ('image_url_repeats', '', '', url.encode()), one
        for seen in {image.look for image in shown}:
            yield ('image_look_repeats', '', found.language, seen), one
        together = '\n'.join(sorted({image.url for image in shown}))
        key = hashlib.blake2b(together.encode(), digest_size=16).digest()
        yield ('document_same_images', '', '', key), one


def _marks(
    group: tuple[tuple[str, str, str, bytes], Mapping[str, Iterable[tuple[str, str, int]]]], rules: PageRules
) -> Iterator[tuple[str, tuple[str, bytes]]]:
    """What is to be dropped from a page, since others have it."""
    (rule, _, _, key), parts = group
    limit, stays = getattr(rules, rule), None
    if not limit and rule != 'text_on_site':
        return
    if rule == 'document_same_images':
        stays = max(parts['pages'])  # The latest.
    else:
        number = sum(1 for _ in parts['pages'])
        if rule == 'text_on_site':
            first = min(parts['pages'])
            _, _, of_site = first
            if not limit or number < max(limit, rules.text_on_site_share * of_site):
                rule, stays = 'document_seen_texts', first  # The first page has it, and the others have seen it.
        elif number <= limit:
            return
    for one in parts['pages']:
        if one != stays:
            _, name, _ = one
            yield name, (rule, key)


class _Finish(beam.DoFn):
    """A page with its images and marks -> the document."""

    def __init__(self, source: PageSource):
        self._source = source

    def process(self, item) -> Iterator:
        """Reads the page again, and its images in full."""
        _, parts = item
        rules, marked = self._source.rules, set(parts['marks'])
        for found, shown in parts['whole']:
            where = found.url
            if any(rule == 'document_same_images' for rule, _ in marked):
                yield _drop(Dropped('document_same_images', 'document', where, images=len(shown)))
                continue
            response = warc.read_at(found.place)
            read = read_texts(response, rules)
            kept = read.parts[found.part].texts
            images_left, everywhere, seen, every = [], set(), 0, 0
            for block in blocks_of(kept).values():
                every += len(block.text)
                seen += len(block.text) * (('document_seen_texts', duplicates.text_key(block.text)) in marked)
                if block.kind == 'text' and ('text_on_site', duplicates.text_key(block.text)) in marked:
                    everywhere.add(block.block)
                    yield _drop(Dropped('text_on_site', 'text', where, block.place, block.text))
            texts_left = [node for node in kept if node.block not in everywhere]
            for one in shown:
                repeats = [
                    rule
                    for rule, key in (
                        ('image_url_repeats', one.url.encode()),
                        ('image_look_repeats', one.look),
                    )
                    if (rule, key) in marked
                ]
                if repeats:
                    yield _drop(Dropped(repeats[0], 'image', where, one.place, one.url, image=self._sample(one)))
                else:
                    images_left.append(one)
            left = len(images_left)
            places = {-1, *(one.place for one in images_left)}
            texts_left = [node for node in texts_left if node.image in places]
            words = texts.number_of_words('\n'.join(node.text for node in texts_left))
            if rules.document_seen_texts and seen > rules.document_seen_texts * every:
                yield _drop(Dropped('document_seen_texts', 'document', where, -1, '', seen / every, left))
            elif words < rules.document_min_words:
                yield _drop(Dropped('document_min_words', 'document', where, -1, '', words, left))
            elif left < rules.document_min_images:
                yield _drop(Dropped('document_min_images', 'document', where, -1, '', left, left))
            else:
                yield self._document(found, texts_left, images_left, read.language)

    def _document(self, found: Found, nodes: Sequence[Text], shown: Sequence[Shown], language: str) -> Document:
        places, images, block = [], [], 0
        for node in sorted([*nodes, *shown], key=lambda one: one.place):
            if isinstance(node, Shown):
                places.append('')
                images.append(_bytes(node))
                continue
            if places and not images[-1]:
                places[-1] += (' ' if node.block == block else '\n\n' if node.apart else '\n') + node.text
            else:
                places.append(node.text)
                images.append(b'')
            block = node.block
        meta = dict(language=language, date=found.date, images=[one.url for one in shown])
        if found.part:
            meta['part'] = found.part
        if self._source.licence:
            meta['licence'] = self._source.licence
        weights = [1.0 if text else 0.0 for text in places]
        return Document(found.id, places, images, weights, found.url, json.dumps(meta, ensure_ascii=False))

    def _sample(self, one: Shown) -> bytes:
        data = _bytes(one)
        return data if len(data) <= SAMPLED_BYTES else b''


def _bytes(one: Shown) -> bytes:
    if one.offset < 0:
        with open(one.file, 'rb') as file:
            return image_checks.first_frame(file.read())
    return image_checks.first_frame(warc.read_at(warc.Place(one.file, one.offset)).data)
