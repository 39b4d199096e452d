"""Fetches the images that the pages in WARC files show, into WARC files of their own:

    python -m data.web_pages.fetch --warc='CRAWL/*.warc.gz' --out=CRAWL --contact=https://example.org/crawler

It asks one host once a second, obeys robots.txt and opt-outs, and goes on where it was stopped. Then build from all:
`--warc='CRAWL/*.warc.gz'`.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('warc', None, 'Glob of WARC files with pages.', required=True)
    flags.DEFINE_string('out', None, 'Folder for the WARC files of images.', required=True)
    flags.DEFINE_string('contact', None, 'Your URL or e-mail address, which every server is told.', required=True)
    flags.DEFINE_float('apart', 1.0, 'Seconds between two requests to a host.', lower_bound=0.1)
    commands.start(__doc__)

import glob
import pathlib
from collections.abc import Iterator

from flamingo_jax.building import warc
from flamingo_jax.building.fetch import Politeness, fetch, is_final
from flamingo_jax.building.page import PageError
from flamingo_jax.building.pages import join_key, named_as_image, read_texts
from flamingo_jax.building.rules import DEFAULT


def links(paths: list[str]) -> Iterator[str]:
    """The URLs of the images that pages show, without those that the files hold, or know to be gone.

    Of a page's captures the latest counts that a data set would keep, and none if a later one opts out.
    """
    held = set()
    latest: dict[str, tuple[tuple[str, warc.Place], list[tuple[str, ...]]]] = {}
    for path in paths:
        for found in warc.read_warc(path):
            if not isinstance(found, warc.Response):
                continue
            if (not warc.is_page(found) or named_as_image(found.url)) and is_final(found):
                held.add(join_key(found.url))
            if warc.is_page(found):
                when, shown = (found.date, found.place), _shown(found)
                if shown is not None and (found.url not in latest or latest[found.url][0] < when):
                    latest[found.url] = when, shown
    wanted = dict.fromkeys(urls for _, shown in latest.values() for urls in shown)
    lacking = [urls[0] for urls in wanted if not any(join_key(url) in held for url in urls)]
    yield from dict.fromkeys(lacking)


def _shown(found: warc.Response) -> list[tuple[str, ...]] | None:
    """The candidates of each image of a page; none of one that opts out. None if a data set would not keep it."""
    try:
        read = read_texts(found, DEFAULT)
    except PageError as error:
        return [] if error.rule == 'page_opt_out' else None
    parts = [part for part in read.parts if not part.broken and len(part.links) >= DEFAULT.document_min_images]
    return [link.urls for part in parts for link in part.links] if parts else None


def main() -> None:
    """Fetches what the flags name."""
    f = flags.FLAGS
    paths = sorted(glob.glob(f.warc, recursive=True))
    if not paths:
        raise FileNotFoundError(f'There is no file {f.warc}. Give a glob in quotes, such as --warc="CRAWL/*.warc.gz".')
    how = Politeness(f.contact, apart=f.apart)
    print(f'{fetch(links(paths), pathlib.Path(f.out), how)} images are new in {f.out}.')


if __name__ == '__main__':
    main()
