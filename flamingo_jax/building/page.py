"""HTML -> texts and images in reading order.

The page is walked once, in document order, without changing it. The rules of tags are those of OBELICS's simplification
of the DOM (Laurençon et al. 2023, appendix A.2; step 2 of its code). Six differ, since they lose what readers want:
list items stay; in a table, prose and images stay, while bare cells go; the header of an article stays; what HTML has
no element for stays; a date is one line, whose class has `date` as a word, not as a part of `update`; what follows a
link to more stays. Two are added: what is hidden goes, and what the page itself declares as a menu, a banner or a
search.
"""

import codecs
import dataclasses
import re
import urllib.parse
from collections.abc import Sequence

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import HTMLTree, NodeType

from flamingo_jax.building import formulas, image_sources, tables, texts
from flamingo_jax.building.ledger import EXCERPT, Dropped
from flamingo_jax.building.optouts import reserving_meta
from flamingo_jax.building.rules import DEFAULT, PageRules
from flamingo_jax.errors import UserError

HEADINGS = frozenset('h1 h2 h3 h4 h5 h6 hgroup legend'.split())
LEVELS = {f'h{level}': level for level in range(1, 7)}
APART = frozenset('blockquote dl ol p ul table'.split()) | HEADINGS  # An empty line is between these and other texts.
BLOCKS = APART | frozenset(
    'address article aside body caption center dd details div dt fieldset figcaption figure form header hr html legend '
    'li main marquee search section summary tbody td tfoot th thead title tr'.split()
)
HOLDERS = ', '.join(sorted({*BLOCKS, 'img'}))  # What has one of these is more than a line.
UNSEEN = frozenset('head link meta script style template rp rt'.split())  # Nobody reads these on the page.
PROSE = frozenset('blockquote caption dd figcaption figure li p'.split()) | HEADINGS  # May stand in a table.
FURNITURE = frozenset('footer header navigation nav navbar menu'.split())  # Exact id, class or title of a div.
ROLES = frozenset('banner contentinfo menu menubar navigation search'.split())
WIDE = ('utf-16-le', 'utf-16-be')  # Charsets in which a tag is not ASCII.
# What browsers read under these names (WHATWG's encodings). Python's codecs of the names lack some of their letters.
AS_BROWSERS = {'shift_jis': 'cp932', 'euc_kr': 'cp949', 'gbk': 'gb18030', 'big5': 'big5hkscs', 'iso8859-11': 'cp874'}
SPACES = re.compile(r'\s+')
PORTS = {'http': 80, 'https': 443}
# Left out where they stand within a line, but for the images that they show.
MUTED = frozenset(['aria_hidden', 'button', 'label'])
AS_IT_IS = ('code', 'formula', 'table')  # Kinds of texts that the rules of prose do not measure.
BACKGROUNDS = frozenset(image_sources.BACKGROUNDS)


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph, heading or caption."""

    place: int  # In the page, in reading order.
    text: str
    kind: str  # 'text', 'heading', 'caption', or one of AS_IT_IS.
    links: float  # Share of its characters inside links.
    apart: bool  # Whether an empty line stands before it.
    block: int  # The place of the block's beginning. Images within a sentence divide it into texts of one block.
    image: int = -1  # The place of the image whose alternative text it is.
    level: int = 0  # Of a heading: 1 is the highest, 7 is of none of h1 to h6; 0 is no heading.


@dataclasses.dataclass(frozen=True)
class Link:
    """An image, by its URL."""

    place: int
    url: str
    width: int | None = None  # As the page wants it shown, in pixels.
    height: int | None = None
    others: tuple[str, ...] = ()  # Of the same image, if the first is not to be had.

    @property
    def urls(self) -> tuple[str, ...]:
        """All candidates, the best first."""
        return self.url, *self.others


@dataclasses.dataclass(frozen=True)
class Page:
    """What a page shows."""

    url: str
    nodes: tuple[Text | Link, ...]
    dropped: tuple[Dropped, ...]


class PageError(UserError):
    """A page that cannot be read. Has the rule's name, and what was measured."""

    def __init__(self, rule: str, value: int | float | None = None, excerpt: str = ''):
        super().__init__(rule)
        self.rule, self.value, self.excerpt = rule, value, excerpt


def decode(data: bytes, declared: str = '') -> tuple[str, str]:
    """HTML as text, and what was wrong with its declared charset ('' if nothing).

    What is valid UTF-8 is UTF-8, unless ISO-2022-JP is declared, which has seven bits. Then the HTTP header, the page's
    own declaration, and a guess from its bytes are tried in this order.
    """
    for mark, charset in (
        (codecs.BOM_UTF8, 'utf-8'),
        (codecs.BOM_UTF16_LE, 'utf-16-le'),
        (codecs.BOM_UTF16_BE, 'utf-16-be'),
    ):
        if data.startswith(mark):
            return data[len(mark) :].decode(charset, 'replace'), ''
    meta = re.search(rb'(?:charset|encoding)\s*=\s*["\']?\s*([\w.:-]{2,40})', data[:4096])
    named = declared or (meta[1].decode('ascii', 'replace') if meta else '')
    charset = map_encoding_to_html5(named, fallback_utf8=False) if named else None
    charset = AS_BROWSERS.get(charset, charset) if charset else None
    if meta and charset in WIDE:
        charset = 'utf-8'  # As HTML says: what can be read as ASCII is not UTF-16.
    tried = [charset] if charset in WIDE else [charset, 'utf-8'] if charset == 'iso2022_jp' else ['utf-8', charset]
    for candidate in tried:
        if candidate:
            try:
                wrong = '' if not named or candidate == charset or data.isascii() else f'{named}, but is utf-8'
                return data.decode(candidate), wrong
            except (UnicodeDecodeError, LookupError):
                pass
    guessed = detect_encoding(data) or 'cp1252'
    guessed = AS_BROWSERS.get(guessed, guessed)
    try:
        text = data.decode(guessed, 'replace')
    except LookupError:
        guessed, text = 'utf-8', data.decode('utf-8', 'replace')
    return text, f'{named}, read as {guessed}' if named and guessed != charset else ''


def read_page(data: bytes, url: str, declared: str = '', rules: PageRules = DEFAULT) -> Page:
    """The texts and images of a page.

    Args:
      data: HTML.
      url: of the page, for its relative links.
      declared: the charset of the HTTP header.

    Raises:
      PageError: the page is not to be read; `rule` says why.
    """
    if rules.page_max_bytes and len(data) > rules.page_max_bytes:
        raise PageError('page_max_bytes', len(data))
    text, wrong = decode(data, declared)
    if text.count('\ufffd') > 0.01 * len(text):
        raise PageError('page_charset', text.count('\ufffd') / len(text), wrong)
    tree = HTMLTree.parse(text.replace('\0', ''))
    metas = [
        (meta.getattr('name') or meta.getattr('http-equiv') or '', meta.getattr('content') or '')
        for meta in tree.document.get_elements_by_tag_name('meta')
    ]
    if reserved := reserving_meta(metas):
        raise PageError('page_opt_out', None, reserved)
    body = tree.body
    if body is None:
        raise PageError('page_empty')
    base = tree.document.query_selector('base[href]')
    walk = _Walk(url, rules, (join(url, base.getattr('href')) if base is not None else '') or url)
    if wrong:
        walk.drop('charset_declared', 'declaration', wrong)
    walk.page(body)
    if rules.page_meta_image and not any(isinstance(node, Link) for node in walk.nodes):
        walk.image_of_metas(image_sources.of_metas(tree))
    if not walk.nodes:
        raise PageError('page_empty')
    return Page(url, tuple(walk.nodes), tuple(walk.dropped))


class _Walk:
    """The state of a walk through a page."""

    def __init__(self, url: str, rules: PageRules, base: str):
        self.url, self.rules, self.base = url, rules, base  # `base` is what relative links start from.
        self.nodes: list[Text | Link] = []
        self.dropped: list[Dropped] = []
        self.place, self.images = 0, 0
        self._pieces: list[str] = []
        self._in_link, self._linked = 0, 0
        self._open: dict[
            str, int
        ] = {}  # Kinds of open elements: 'heading', 'caption', 'table', 'prose', 'article', 'a'.
        self._apart, self._block = True, 0
        self._waiting = False  # Whether the last image is loaded by a script, and nothing came after it.

    def drop(self, rule: str, what: str, excerpt: str = '', value: int | float | None = None) -> None:
        """Notes what is not kept, at its place."""
        self.place += 1
        self.dropped.append(Dropped(rule, what, self.url, self.place, excerpt[:EXCERPT], value))

    def page(self, body) -> None:
        """Walks through all below `body`. A loop, since pages are nested as deeply as their makers like."""
        visited, node, above = 0, body.first_child, []
        while node is not None:
            visited += 1
            if self.rules.page_max_nodes and visited > self.rules.page_max_nodes:
                raise PageError('page_max_nodes', visited)
            child = None
            if node.type == NodeType.TEXT:
                self._text(node.value or '')
            elif node.type == NodeType.ELEMENT:
                kinds = self._enter(node)
                if kinds is not None:
                    child = node.first_child
                    if child is None:
                        self._leave(node.tag, kinds)
                    else:
                        above.append((node, kinds))
            following = child
            while following is None:
                following = node.next_sibling
                if following is None:
                    if not above:
                        break
                    node, kinds = above.pop()
                    self._leave(node.tag, kinds)
            node = following
        self._flush()

    def _enter(self, node) -> tuple[str, ...] | None:
        """Begins an element. Gives the kinds that it opens; None if it is left out with all that is in it."""
        tag = node.tag
        if self.rules.text_formulas:
            written = formulas.formula(node, tag, (node.class_name or '').lower())
            if written is not None:
                self._pieces.append(written)
                return None
        if tag in UNSEEN:
            return None
        if tag == 'br':
            self._pieces.append('\n')
            return None
        if tag in image_sources.TAGS:
            self._image(node, image_sources.sources(node))
            return None
        if tag == 'noscript':  # Its text is for others, its images are those that a script would load.
            self._open[tag] = self._open.get(tag, 0) + 1
            self._open['mute'] = self._open.get('mute', 0) + 1
            return tag, 'mute'
        names, attributes = (node.class_name or '').lower(), node.attrs
        style = (node.getattr('style') or '') if 'style' in attributes else ''
        if rule := self._left_out(node, tag, names, attributes, style):
            return self._leave_out(node, rule)
        self._background(node, attributes, style)
        if tag == 'table' and self.rules.text_tables and (table := tables.markdown(node)):
            for caption in node.get_elements_by_tag_name('caption'):
                self._as_it_is('caption', texts.clean(caption.text or '')[0])
            self._as_it_is('table', table)
            return None
        kinds = []
        if tag in HEADINGS or tag == 'dt' or 'title' in names.split():
            kinds.append('heading')
        if tag in LEVELS:
            kinds.append(tag)
        if tag in ('figcaption', 'caption') or 'caption' in names:
            kinds.append('caption')
        if tag == 'table' and (node.getattr('role') or '').lower() not in ('presentation', 'none'):
            kinds.append('table')
        if tag in PROSE and self._open.get('table'):
            kinds.append('prose')
        if tag in ('article', 'main'):
            kinds.append('article')
        if tag == 'a':
            kinds.append('a')
        if tag in BLOCKS:
            self._flush()
            self._apart |= tag in APART
        for kind in kinds:
            self._open[kind] = self._open.get(kind, 0) + 1
        return tuple(kinds)

    def _leave(self, tag: str, kinds: tuple[str, ...]) -> None:
        if tag in BLOCKS:
            self._flush()
            self._apart |= tag in APART
        for kind in kinds:
            self._open[kind] -= 1

    def _left_out(self, node, tag: str, names: str, attributes: Sequence[str], style: str) -> str:
        """The rule by which an element is left out; '' if it stays."""
        tokens = names.split()
        if 'footer' in tokens or 'site-info' in tokens:
            return 'tag_footer'
        if 'more-link' in tokens:
            return 'tag_more_link'
        if tag == 'div' and FURNITURE & {names.strip(), *((node.getattr(a) or '').lower() for a in ('id', 'title'))}:
            return 'tag_furniture'
        if 'role' in attributes and (node.getattr('role') or '').lower() in ROLES:
            return 'tag_role'
        drawn = style.replace(' ', '').lower()
        if 'hidden' in attributes or 'display:none' in drawn or 'visibility:hidden' in drawn:
            return 'tag_hidden'
        if 'aria-hidden' in attributes and tag != 'svg' and (node.getattr('aria-hidden') or '').lower() == 'true':
            return 'tag_aria_hidden'
        if tag == 'div' and 'date' in re.findall('[a-z]+', names) and node.query_selector(HOLDERS) is None:
            return 'tag_date'
        if tag == 'header' and self._open.get('article'):
            return ''
        return f'tag_{tag}' if tag in LEFT_OUT else ''

    def _leave_out(self, node, rule: str) -> tuple[str, ...] | None:
        """Notes an element that is left out, and its images, but for those that it shows within the text."""
        if rule == 'tag_pre' and self.rules.text_code and (code := tables.code(node)):
            self._as_it_is('code', code)
            return None
        if node.tag not in INLINE:  # What stands within a line does not end it.
            self._flush()
        text = ' '.join((node.text or '')[: 20 * EXCERPT].split())
        if text:
            self.drop(rule, 'text', text)
        if rule.removeprefix('tag_') in MUTED and node.query_selector(image_sources.ANY) is not None:
            self._open['mute'] = self._open.get('mute', 0) + 1
            return ('mute',)
        shown = image_sources.sources(node) if node.tag in image_sources.HOLDERS and rule == f'tag_{node.tag}' else None
        if shown and shown.urls:
            self._image(node, shown)
            if node.tag != 'video':
                return None
        elif node.tag == 'svg':
            self.drop('image_svg', 'image', text)
        for tag in ('img', 'amp-img'):
            for image in node.get_elements_by_tag_name(tag):
                found = image_sources.sources(image)
                self._count_image()
                self.drop(rule, 'image', next((join(self.base, url) or url for url in found.urls), found.inline))
        return None

    def _background(self, node, attributes: Sequence[str], style: str) -> None:
        """The background of an element: an image if the page says that it is one, else decoration."""
        if 'url(' not in style and not BACKGROUNDS.intersection(attributes):
            return
        url = image_sources.backgrounds(node, attributes, style)
        if not url:
            return
        if (node.getattr('role') or '').lower() == 'img' or 'aria-label' in attributes:
            self._image(node, image_sources.Sources([url]))
        else:
            self._count_image()
            self.drop('image_background', 'image', join(self.base, url) or url)

    def _text(self, text: str) -> None:
        if self._open.get('mute'):
            return
        self._pieces.append(SPACES.sub(' ', text))
        if self._open.get('a'):
            self._linked += len(text.strip())

    def _flush(self, block_ends: bool = True) -> None:
        """Ends a text."""
        self._end_text()
        if block_ends:
            self._block = 0

    def _end_text(self) -> None:
        if not self._pieces:
            return
        text, controls = texts.clean(''.join(self._pieces))
        linked, self._pieces, self._linked = self._linked, [], 0
        if controls:
            self.drop('control_characters', 'characters', repr(text[:EXCERPT]), len(controls))
        least = self.rules.cell_min_words
        if text and self._is_cell() and least and texts.number_of_words(text) < least:
            self.drop('cell_min_words', 'text', text)
        elif text:
            self._waiting = False
            kind = 'caption' if self._open.get('caption') else 'heading' if self._open.get('heading') else 'text'
            if self.rules.text_formulas and not formulas.without_formulas(text).strip(' .,;'):
                kind = 'formula'
            self.place += 1
            self._block = self._block or self.place
            level = (
                min((LEVELS[name] for name in LEVELS if self._open.get(name)), default=7) if kind == 'heading' else 0
            )
            links = min(linked / len(text), 1.0)
            self.nodes.append(Text(self.place, text, kind, links, self._apart, self._block, level=level))
            self._apart = False

    def _is_cell(self) -> bool:
        """Whether a text stands in a table by itself: a number or a name, unless it is long."""
        return bool(self._open.get('table')) and not self._open.get('prose') and not self._open.get('caption')

    def _as_it_is(self, kind: str, text: str) -> None:
        """Adds a text that is a block."""
        self._flush()
        if text:
            self.place += 1
            self.nodes.append(Text(self.place, text, kind, 0.0, True, self.place))
            self._apart = True

    def _image(self, node, found: image_sources.Sources) -> None:
        self._flush(block_ends=False)
        urls = [url for url in (join(self.base, one) for one in found.urls) if url]
        if self._waiting and self._open.get('noscript'):
            return self._fall_back(urls)
        self._count_image()
        self._waiting = found.lazy or not urls
        if not urls and found.urls:
            self.drop('image_url', 'image', found.urls[0])
        elif not urls and found.inline:
            self.drop('image_inline', 'image', found.inline[:60])
        elif not urls:
            self.drop('image_without_source', 'image', node.getattr('alt') or '')
        else:
            size = _pixels(node.getattr('width')), _pixels(node.getattr('height'))
            self.place += 1
            self.nodes.append(Link(self.place, urls[0], *size, others=tuple(dict.fromkeys(urls[1:]))))
            if self.rules.image_alt and (alt := texts.clean(node.getattr('alt') or '')[0]):
                shown = self.place
                self.place += 1
                self.nodes.append(Text(self.place, alt, 'caption', 0.0, False, self.place, shown))

    def _fall_back(self, urls: Sequence[str]) -> None:
        """What a <noscript> shows for the image before it, which a script would load."""
        self._waiting = False
        last = self.nodes[-1] if self.nodes else None
        if isinstance(last, Link) and last.place == self.place:
            others = dict.fromkeys([*last.others, *(url for url in urls if url != last.url)])
            self.nodes[-1] = dataclasses.replace(last, others=tuple(others)[: image_sources.MOST - 1])
        elif urls:  # The image before has no URL of its own.
            self.dropped.pop()
            self.nodes.append(Link(self.place, urls[0], others=tuple(urls[1:])))

    def image_of_metas(self, found: Sequence[str]) -> None:
        """Begins a page without images by the one that its head names."""
        urls = [url for url in (join(self.base, one) for one in found) if url]
        if urls:
            self._count_image()
            self.nodes.insert(0, Link(0, urls[0], others=tuple(dict.fromkeys(urls[1:]))))

    def _count_image(self) -> None:
        self.images += 1
        if self.rules.page_max_images and self.images > self.rules.page_max_images:
            raise PageError('page_max_images', self.images)


# What is left out with all that is in it. An element of another name is shown as a browser shows it, within its line.
LEFT_OUT = frozenset(
    'applet aside audio button canvas dialog dir embed footer frame frameset header iframe input label map math menu '
    'meter nav noembed noframes object optgroup option output pre progress select svg textarea video'.split()
)
# What stands within a line, and does not end it when it is left out.
INLINE = LEFT_OUT - frozenset('aside dialog dir footer frame frameset header menu nav noframes pre'.split())
INLINE |= frozenset('a abbr b bdi bdo cite code em font i ins kbd mark q s samp small span strong sub sup u'.split())


def join(base: str, url: str) -> str:
    """An absolute URL of http or https without its fragment, written as crawlers write it; '' if it is none."""
    try:
        parts = urllib.parse.urlsplit(urllib.parse.urldefrag(urllib.parse.urljoin(base, url.strip())).url)
        host, port = parts.hostname or '', parts.port
        if not host.isascii():
            host = host.encode('idna').decode()
        if parts.scheme not in PORTS or not host:
            return ''
        user, at, _ = parts.netloc.rpartition('@')
        place = f'[{host}]' if ':' in host else host
        place += '' if port in (None, PORTS[parts.scheme]) else f':{port}'
        written = urllib.parse.urlunsplit(parts._replace(netloc=user + at + place))
        return urllib.parse.quote(written, safe="%/:=&?~#+!$,;'@()*[]|") if len(written) <= 2000 else ''
    except ValueError:  # Of brackets, ports, letters that no host has, and halves of a letter.
        return ''


def _pixels(value: str | None) -> int | None:
    """A width or height; None if it is not in pixels."""
    found = re.fullmatch(r'\s*(\d{1,6})(?:\.\d*)?\s*(?:px)?\s*', value or '', re.ASCII)
    return int(found[1]) if found else None
