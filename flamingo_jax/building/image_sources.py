"""Where the images of a page come from: every way in which today's web says so.

    <img src srcset data-src ...>  <picture><source>  <amp-img>  <object data>  <embed src>  <video poster>
    <input type=image>  <svg><image href>  <div role=img style="background-image: url(...)">  <meta property=og:image>

What a script puts in place of a placeholder comes before the placeholder, and the largest candidate of a set before the
others. A crawl may hold any of them, so several are given.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

MOST = 4  # Candidates of an image.
TAGS = frozenset('amp-anim amp-img img picture'.split())
HOLDERS = frozenset('embed input object svg video'.split())  # May show an image, and are left out otherwise.
ANY = 'img, amp-img, amp-anim, source[srcset], object[data], video[poster], image'  # For a query of what holds some.
# Attributes of lazily loaded images (OBELICS, step 3), and of those that its list lacks.
LAZY = (
    'data-src data-src-fg data-scroll-image data-lateloadsrc data-img-src data-original data-gt-lazy-src data-lazy '
    'data-lazy-src src2 data-echo data-ll-src data-cfsrc data-ezsrc data-image data-url data-hi-res-src data-full-src '
    'data-large_image data-flickity-lazyload lazy-src'.split()
)
LAZY_SETS = 'data-srcset data-lazy-srcset data-original-set data-flickity-lazyload-srcset lazy-srcset'.split()
SUFFIX = re.compile(r'\.(?:avif|bmp|gif|jpe?g|jxl|png|webp)(?:[?#]|$)', re.IGNORECASE)
VECTORS = ('image/svg+xml',)
BACKGROUNDS = ('data-bg', 'data-background', 'data-background-image', 'data-bg-src', 'background')
_CANDIDATE = re.compile(r'([^\s,]\S*?)(?:,+(?=\s|$)|\s+([^,]*)(?:,|$)|$)')
_BACKGROUND = re.compile(r'background(?:-image)?\s*:[^;]*?url\(\s*[\'"]?([^\'")]+)', re.IGNORECASE)


class Sources(NamedTuple):
    """The candidates of an image, the best first, as they are written."""

    urls: list[str]
    inline: str = ''  # A data: URL, which is a placeholder if there are others.
    lazy: bool = False  # Whether a script loads it, so that a <noscript> may say the same.


def sources(node: Any) -> Sources:
    """The candidates of an element of `TAGS` or `HOLDERS`; none if it shows no image."""
    tag = node.tag
    if tag == 'picture':
        return _of_picture_element(node)
    if tag in TAGS:
        return _of_image(node)
    if tag == 'svg':
        images = node.get_elements_by_tag_name('image')
        return _told([one.getattr('href') or one.getattr('xlink:href') for one in images])
    if tag == 'video':
        return _told([node.getattr('poster') or node.getattr('data-poster')])
    if tag == 'input':
        return _told([node.getattr('src')] if (node.getattr('type') or '').lower() == 'image' else [])
    url, kind = node.getattr('data' if tag == 'object' else 'src') or '', (node.getattr('type') or '').lower()
    fallback = [one for image in node.get_elements_by_tag_name('img') for one in _of_image(image).urls]
    return _told([*([url] if kind.startswith('image/') or SUFFIX.search(url) else []), *fallback])


def backgrounds(node: Any, names: Sequence[str], style: str) -> str:
    """The URL of an element's own background; '' if it has none. names: of its attributes. style: one of them."""
    if 'url(' in style and (found := _BACKGROUND.search(style)) and not found[1].strip().startswith('data:'):
        return found[1].strip()
    for name in BACKGROUNDS:
        if name in names and (value := (node.getattr(name) or '').strip()):
            found = re.search(r'url\(\s*[\'"]?([^\'")]+)', value)
            value = found[1] if found else value
            if SUFFIX.search(value):
                return value
    return ''


def of_metas(tree: Any) -> list[str]:
    """The images that the head of a page names for those who link to it."""
    if tree.head is None:
        return []
    found = []
    for meta in tree.head.get_elements_by_tag_name('meta'):
        name = (meta.getattr('property') or meta.getattr('name') or meta.getattr('itemprop') or '').lower()
        if name in ('og:image', 'og:image:url', 'og:image:secure_url', 'twitter:image', 'twitter:image:src', 'image'):
            found.append(meta.getattr('content') or '')
    for link in tree.head.get_elements_by_tag_name('link'):
        if (link.getattr('rel') or '').lower() == 'image_src':
            found.append(link.getattr('href') or '')
    return _told(found).urls


def candidates(srcset: str) -> list[str]:
    """The URLs of a srcset, the largest first."""
    found = [(_size(one[2] or ''), one[1]) for one in _CANDIDATE.finditer(srcset)]
    return [url for _, url in sorted(found, key=lambda one: -one[0])]


def _size(descriptor: str) -> float:
    """The width ('640w') or the density ('2x') of a candidate; 1 if it says none."""
    found = re.search(r'(\d+(?:\.\d+)?)[wx]', descriptor)
    return float(found[1]) if found else 1.0


def _of_picture_element(node) -> Sources:
    sets = [
        one.getattr(name) or ''
        for one in node.get_elements_by_tag_name('source')
        if (one.getattr('type') or '').lower() not in VECTORS
        for name in ('srcset', *LAZY_SETS, 'src', 'data-src')
    ]
    urls = candidates(', '.join(one for one in sets if one and not one.startswith('data:')))
    images = [_of_image(one) for one in _images(node)]
    every = [*urls, *(url for one in images for url in one.urls)]
    return _told(every, ''.join(one.inline for one in images), any(one.lazy for one in images))


def _images(node) -> Iterator:
    for tag in ('img', 'amp-img'):
        yield from node.get_elements_by_tag_name(tag)


def _of_image(node) -> Sources:
    names = node.attrs
    read = {name: (node.getattr(name) or '').strip() for name in names if name not in ('alt', 'style', 'id')}
    sets = [candidates(read[name]) for name in LAZY_SETS if name in read]
    lazy = [read[name] for name in LAZY if name in read]
    # Scripts have other names for the same; a URL of an image tells.
    lazy += [value for name, value in read.items() if name.startswith('data-') and name not in LAZY and _is_url(value)]
    shown = [*candidates(read.get('srcset', '')), read.get('src', '')]
    by_script = [url for one in sets for url in one] + lazy
    waits = bool(by_script) or 'lazy' in read.get('class', '').lower()
    return _told([*by_script, *shown], lazy=waits)


def _is_url(value: str) -> bool:
    return len(value) < 2000 and not set(' \t\n,{}<>"') & set(value) and SUFFIX.search(value) is not None


def _told(urls: Sequence[str | None], inline: str = '', lazy: bool = False) -> Sources:
    """The first candidates and the last, which every browser can show, without those that are none."""
    told = dict.fromkeys(url.strip() for url in urls if url and url.strip())
    inline = inline or next((url for url in told if url.startswith('data:')), '')
    some = [url for url in told if not url.startswith(('data:', 'about:', '#', 'blob:')) and '{{' not in url]
    return Sources(some if len(some) <= MOST else [*some[: MOST - 1], some[-1]], inline, lazy)
