"""From WARC files to documents, through the whole pipeline."""

import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest
from warcio.warcwriter import WARCWriter

from data.web_pages.fetch import links
from data.web_pages.web_pages_dataset_builder import Builder, Config
from flamingo_jax.building import duplicates
from flamingo_jax.building.ledger import LedgerError, check_sums
from flamingo_jax.building.rules import DEFAULT, PageRules
from flamingo_jax.building.write import build
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.inputs.sources.documents import Documents
from tests.building.test_image_checks import bomb
from tests.building.web import Crawl, encoded_image, story

CONFIG = Config(name='test', description='', rules=PageRules(page_max_nodes=5000))
ROOT = pathlib.Path(__file__).parents[2]


def text(seed: int) -> str:
    return f'<p>{story(seed)}</p>'


@pytest.fixture(scope='module')
def crawl(tmp_path_factory) -> list[str]:
    """A crawl of two sites with all that can be in one."""
    folder = tmp_path_factory.mktemp('crawl')
    pages, images = Crawl(folder / 'a.warc.gz'), Crawl(folder / 'b.warc', gzip=False)
    every = '<p>This is on all pages of the site, and it is of no use.</p>'
    for i in range(4):
        pages.page(f'http://one.org/{i}', f'{every}<h1>Number {i}</h1>{text(i)}<img src=/{i}.png>{text(100 + i)}')
        images.png(f'https://one.org/{i}.png', i)
    pages.page('http://one.org/0', f'{text(50)}<img src=/0.png>', date='2020-01-01T00:00:00Z')  # An older capture.
    pages.page('http://two.org/copy', f'{text(1)}{text(101)}<img src=/copy.png>')  # The same text as one.org/1.
    pages.page('http://two.org/same', f'{text(60)}<img src=http://one.org/2.png>')  # The same image as one.org/2.
    pages.page('http://two.org/none', text(61))
    pages.page('http://two.org/shared', f'{text(62)}<img src=/bench.png><img src=/new.png>')
    pages.page('http://two.org/question', f'{text(70)}<img src=/new.png>')
    pages.page('http://two.org/optout', f'{text(63)}<img src=/new.png>', X_Robots_Tag='noai')
    bad = 'missing small html bomb gone reserved cut'.split()
    pages.page(
        'http://two.org/bad', text(64) + ''.join(f'<img src=/{name}.png>' for name in bad) + '<img src=/good.png>'
    )
    pages.page('http://two.org/deep', '<div>' * 10_000 + text(65))
    pages.page('http://two.org/many', '<img src=a.png>' * 10_000 + text(66))
    pages.page('http://two.org/mark', f'<p>{story(67)} &lt;image&gt; {story(68)}</p>{text(69)}<img src=/mark.png>')
    pages.add('http://two.org/zeros', gzip.compress(bytes(60_000_000)), Content_Encoding='gzip')
    for name, seed in dict(new=20, bench=21, mark=22, good=26, copy=27).items():
        images.png(f'http://two.org/{name}.png', seed)
    images.png('http://two.org/small.png', 23, width=30)
    images.add('http://two.org/html.png', b'<html>Not found</html>', 'text/html')
    images.add('http://two.org/bomb.png', bomb(60_000), 'image/png')
    images.add('http://two.org/gone.png', b'', 'image/png', '404 Not Found')
    images.add('http://two.org/reserved.png', encoded_image(24), 'image/png', TDM_Reservation='1')
    images.add('http://two.org/cut.png', encoded_image(25)[:3000], 'image/png')
    damaged = Crawl(folder / 'c.warc.gz')
    damaged.page('http://three.org/', f'{text(80)}<img src=/a.png>').png('http://three.org/a.png', 30)
    (folder / 'c.warc.gz').write_bytes(damaged.content()[:-200])
    (folder / 'd.warc.gz').write_bytes(b'')
    return [pages.write(), images.write(), str(folder / 'c.warc.gz'), str(folder / 'd.warc.gz')]


@pytest.fixture(scope='module')
def benchmarks(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp('benchmark')
    (folder / 'q.txt').write_text(story(70))
    (folder / 'p.jpg').write_bytes(encoded_image(21, format='JPEG'))
    return duplicates.index_benchmarks([str(folder)], DEFAULT, str(folder / 'index.npz'))


@pytest.fixture(scope='module')
def built(crawl, benchmarks, tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp('out')
    return build(Builder, str(out), CONFIG, warcs=tuple(crawl), benchmarks=benchmarks, licence='CC0')


@pytest.fixture(scope='module')
def documents(built) -> dict[str, dict]:
    records = open_split(built, 'train')
    return {records[i]['url'].decode(): records[i] for i in range(len(records))}


@pytest.fixture(scope='module')
def dropped(built) -> list[dict]:
    return [json.loads(line) for file in sorted(built.glob('dropped-*')) for line in gzip.open(file, 'rt')]


def test_which_pages_are_kept(documents):
    # Of two pages with the same text, or with the same image and no other, one stays.
    for pair in ({'http://one.org/1', 'http://two.org/copy'}, {'http://one.org/2', 'http://two.org/same'}):
        assert len(pair & documents.keys()) == 1
    others = {url for url in documents if url[-1] not in '12' and not url.endswith(('copy', 'same'))}
    assert others == {f'http://one.org/{i}' for i in (0, 3)} | {
        f'http://two.org/{n}' for n in ('shared', 'bad', 'mark')
    }


def test_a_document_holds_its_texts_and_images_in_reading_order(documents):
    record = documents['http://one.org/3']
    assert [one.decode() for one in record['texts']] == [f'Number 3\n\n{story(3)}', '', story(103)]
    assert record['images'] == [b'', encoded_image(3), b'']
    assert list(record['weights']) == [1, 0, 1]
    meta = json.loads(record['meta'])
    assert meta['images'] == ['http://one.org/3.png'] and meta['licence'] == 'CC0' and meta['date'][:4] == '2026'


def test_training_reads_it(built):
    opened = Documents(path=str(built)).open(ImageFormat(16))
    for i in range(len(opened)):
        chunks = opened.document(i, np.random.default_rng(0))
        assert any(chunk.image for chunk in chunks)
        assert all(chunk.image().shape == (1, 16, 16, 3) for chunk in chunks if chunk.image)


@pytest.mark.parametrize(
    'where, rule, what',
    [
        ('http://one.org/0', 'page_url', 'page'),
        ('http://one.org/0', 'text_on_site', 'text'),
        ('http://two.org/none', 'document_min_images', 'document'),
        ('http://two.org/shared', 'benchmark_distance', 'image'),
        ('http://two.org/question', 'benchmark_words', 'document'),
        ('http://two.org/optout', 'page_opt_out', 'page'),
        ('http://two.org/bad', 'image_missing', 'image'),
        ('http://two.org/bad', 'image_min_side', 'image'),
        ('http://two.org/bad', 'image_is_html', 'image'),
        ('http://two.org/bad', 'image_max_pixels', 'image'),
        ('http://two.org/bad', 'image_status', 'image'),
        ('http://two.org/bad', 'image_opt_out', 'image'),
        ('http://two.org/bad', 'image_damaged', 'image'),
        ('http://two.org/deep', 'page_max_nodes', 'page'),
        ('http://two.org/many', 'page_max_images', 'page'),
        ('http://two.org/mark', 'text_marks', 'text'),
        ('a.warc.gz', 'payload_bomb', 'record'),
        ('c.warc.gz', 'warc_corrupt|payload_truncated', 'record'),
        ('d.warc.gz', 'warc_empty', 'record'),
    ],
)
def test_the_ledger_has_each_thing_under_its_rule(dropped, where, rule, what):
    found = [one for one in dropped if one['where'].endswith(where)]
    assert [one for one in found if one['rule'] in rule.split('|') and one['what'] == what], found


def test_counts_agree_with_the_list(built, dropped):
    counts = json.loads((built / 'ledger.json').read_text())['dropped']
    with_images = len(dropped) + sum(one.get('images', 0) for one in dropped)
    assert sum(sum(number.values()) for number in counts.values()) == with_images
    page = (built / 'ledger.html').read_text()
    assert all(f'id="{rule}"' in page for rule in counts)


def test_a_folder_of_images(tmp_path):
    crawl = Crawl(tmp_path / 'a.warc.gz')
    crawl.page(
        'http://a.b/', f'{text(1)}<img src=x/1.png><img src=/2.png?v=3><img src=/../../secret.png><img src=4.png>'
    )
    folder = tmp_path / 'images'
    (folder / 'a.b' / 'x').mkdir(parents=True)
    (folder / 'a.b' / 'x' / '1.png').write_bytes(encoded_image(1))
    (folder / (hashlib.sha256(b'http://a.b/2.png?v=3').hexdigest() + '.png')).write_bytes(encoded_image(2))
    (tmp_path / 'secret.png').write_bytes(encoded_image(3))
    built = build(Builder, str(tmp_path / 'out'), 'all', warcs=(crawl.write(),), images=str(folder))
    assert open_split(built, 'train')[0]['images'][1:] == [encoded_image(1), encoded_image(2)]
    assert json.loads((built / 'ledger.json').read_text())['dropped']['image_missing'] == {'image': 2}


def test_a_limit_of_0_switches_a_rule_off_and_no_other(tmp_path, benchmarks):
    crawl = Crawl(tmp_path / 'a.warc.gz')
    crawl.page('http://a.b/question', f'{text(70)}<img src=/21.png>')  # A benchmark's text and image.
    for i in range(4):  # The first page has most of what the others say.
        crawl.page(f'http://a.b/{i}', f'{text(1)}{text(2)}<p>{story(10 + i, 20)}</p><img src=/{i}.png>')
    (tmp_path / 'images' / 'a.b').mkdir(parents=True)
    for seed in (0, 1, 2, 3, 21):
        (tmp_path / 'images' / 'a.b' / f'{seed}.png').write_bytes(encoded_image(seed))
    off = dict(benchmark_words=0, benchmark_distance=0, image_max_bytes=0, text_on_site=0)
    rules = PageRules(**off, document_near_text=False)
    config = Config(name='off', description='', rules=rules)
    source = dict(warcs=(crawl.write(),), images=str(tmp_path / 'images'), benchmarks=benchmarks)
    built = build(Builder, str(tmp_path / 'out'), config, **source)
    records = open_split(built, 'train')
    assert encoded_image(21) in [image for record in records for image in record['images']]
    assert json.loads((built / 'ledger.json').read_text())['dropped'] == {
        'document_seen_texts': {'document': 3, 'image': 3}
    }


def test_of_a_page_and_its_mirror_the_one_with_images_stays(tmp_path):
    """Whether it is the first or the second of the two."""
    crawl = Crawl(tmp_path / 'a.warc.gz')
    for seed, with_image in enumerate(('a', 'b')):
        for site in ('a', 'b'):
            crawl.page(f'http://{site}.org/{seed}', f'{text(seed)}<img src=/{seed}.png>{text(10 + seed)}')
        crawl.png(f'http://{with_image}.org/{seed}.png', seed)
    records = open_split(build(Builder, str(tmp_path / 'out'), CONFIG, warcs=(crawl.write(),)), 'train')
    assert {record['url'].decode() for record in records} == {'http://a.org/0', 'http://b.org/1'}


def test_only_the_latest_capture_of_a_page_makes_others_its_copies(tmp_path):
    crawl = Crawl(tmp_path / 'a.warc.gz')
    for i in range(5):  # Each site showed in January what the one before it shows since February.
        crawl.page(f'http://{i}.org/', f'{text(i)}<img src=/a.png>', date='2026-01-01T00:00:00Z')
        crawl.page(f'http://{i}.org/', f'{text(i + 1)}<img src=/a.png>', date='2026-02-01T00:00:00Z')
        crawl.png(f'http://{i}.org/a.png', i)
    records = open_split(build(Builder, str(tmp_path / 'out'), CONFIG, warcs=(crawl.write(),)), 'train')
    assert {record['texts'][0].decode() for record in records} == {story(i + 1) for i in range(5)}


def test_what_a_fetcher_would_fetch(crawl):
    assert list(links(crawl)) == ['http://two.org/missing.png', 'http://three.org/a.png']


def test_what_failed_for_a_moment_is_fetched_again(tmp_path):
    crawl = Crawl(tmp_path / 'a.warc.gz')
    shown = ''.join(f'<img src=/{name}.png>' for name in ('busy', 'broken', 'gone', 'late', 'new'))
    crawl.page('http://a.b/File:Foo.jpg', f'{text(1)}{shown}')  # A page, though it is named as an image.
    crawl.add('http://a.b/busy.png', b'', 'image/png', '429 Too Many Requests')
    crawl.add('http://a.b/broken.png', b'', 'text/html', '503 Service Unavailable')
    crawl.add('http://a.b/late.png', b'', 'text/html', '503 Service Unavailable').png('http://a.b/late.png', 1)
    crawl.add('http://a.b/gone.png', b'', 'text/html', '404 Not Found')
    assert list(links([crawl.write()])) == [f'http://a.b/{name}.png' for name in ('busy', 'broken', 'new')]


def test_the_latest_word_of_a_server_counts(tmp_path):
    crawl = Crawl(tmp_path / 'a.warc.gz')
    old, new = dict(date='2026-01-01T00:00:00Z'), dict(date='2026-02-01T00:00:00Z')
    for url, first, second in (('http://no.org/', old, new), ('http://yes.org/', new, old)):
        crawl.page(url, f'{text(1)}<img src=/a.png><img src=/b.png>', **first)
        crawl.page(url, f'{text(1)}<img src=/a.png>', X_Robots_Tag='noai', **second)
        crawl.png(f'{url}a.png', 1)
    crawl.page('http://wiki.org/File:Foo.jpg', ''.join([text(2), *(f'<img src=/{i}.png>' for i in range(3))]))
    for i, (image_first, refused_first) in enumerate(((old, new), (new, old))):
        crawl.add(f'http://wiki.org/{i}.png', encoded_image(i + 2), 'image/png', **image_first)
        crawl.refused(f'http://wiki.org/{i}.png', 'image_opt_out', **refused_first)
    crawl.refused('http://wiki.org/2.png', 'image_timeout', **old)
    crawl.refused('http://wiki.org/2.png', 'image_robots', **new)
    path = crawl.write()
    assert list(links([path])) == ['http://yes.org/b.png']
    built = build(Builder, str(tmp_path / 'out'), CONFIG, warcs=(path,))
    records = {record['url'].decode(): record for record in open_split(built, 'train')}
    assert records.keys() == {'http://yes.org/', 'http://wiki.org/File:Foo.jpg'}
    assert [image for image in records['http://wiki.org/File:Foo.jpg']['images'] if image] == [encoded_image(3)]
    counts = json.loads((built / 'ledger.json').read_text())['dropped']
    assert counts['page_opt_out'] == {'page': 2} and counts['page_url'] == {'page': 1, 'image': 2}
    assert counts['image_opt_out'] == counts['image_robots'] == {'image': 1}


HEADERS = [
    (dict(X_Robots_Tag=['noindex', 'noai']), False),
    (dict(X_Robots_Tag=['noindex', 'ccbot: nofollow']), False),
    (dict(X_Robots_Tag=['CCBot: all', 'noindex, nofollow'], TDM_Reservation='0'), True),
    (dict(X_Robots_Tag='googlebot: noindex, max-snippet: 5'), True),
    (dict(TDM_Reservation=['0', '1']), False),
]


def test_every_value_of_a_header_counts(tmp_path):
    """On each host the page / and the image 3.png have the headers, and the page /other has not."""
    crawl, expected = Crawl(tmp_path / 'a.warc.gz'), {}
    for host, (headers, kept) in enumerate(HEADERS):
        site, seed = f'http://{host}.org', 10 * host
        crawl.png(f'{site}/1.png', seed + 1).png(f'{site}/2.png', seed + 2)
        crawl.page(f'{site}/', f'{text(seed + 1)}<img src=/1.png>', **headers)
        crawl.page(f'{site}/other', f'{text(seed + 2)}<img src=/2.png><img src=/3.png>')
        crawl.add(f'{site}/3.png', encoded_image(seed + 3), 'image/png', **headers)
        expected |= {f'{site}/': 1, f'{site}/other': 2} if kept else {f'{site}/other': 1}
    records = open_split(build(Builder, str(tmp_path / 'out'), CONFIG, warcs=(crawl.write(),)), 'train')
    assert {record['url'].decode(): sum(len(i) > 0 for i in record['images']) for record in records} == expected


def test_the_files_in_which_a_host_asks_not_to_be_trained_on_are_read_where_the_crawl_has_them(tmp_path):
    crawl, later = Crawl(tmp_path / 'a.warc.gz'), '2026-02-01T00:00:00Z'
    hosts = dict(
        robots='User-agent: GPTBot\nDisallow: /no\n\nUser-agent: *\nAllow: /', all='User-agent: *\nDisallow: /no'
    )
    hosts |= dict(free='User-agent: AhrefsBot\nDisallow: /', old='User-agent: *\nDisallow: /', none='<html>Not found')
    for name, robots in hosts.items():
        crawl.add(f'http://{name}.org/robots.txt', robots.encode(), 'text/plain')
    crawl.add('http://old.org/robots.txt', b'', 'text/html', '404 Not Found', date=later)
    crawl.add('http://ai.org/ai.txt', b'User-Agent: *\nDisallow: *.png\nAllow: /', 'text/plain')
    reserved = b'[{"location": "/no/free", "tdm-reservation": 0}, {"location": "/no", "tdm-reservation": 1}]'
    crawl.add('https://tdm.org/.well-known/tdmrep.json', reserved, 'application/json')
    for seed, name in enumerate([*hosts, 'ai', 'tdm']):
        for number, path in enumerate(('no', 'no/free', 'yes')):
            seeds = 10 * seed + number
            crawl.page(f'http://{name}.org/{path}', f'{text(seeds)}<img src=/{path}/1.png><img src=/yes/{path}.jpg>')
            crawl.png(f'http://{name}.org/{path}/1.png', seeds).png(f'http://{name}.org/yes/{path}.jpg', 100 + seeds)
    built = build(Builder, str(tmp_path / 'out'), CONFIG, warcs=(crawl.write(),))
    kept = {
        record['url'].decode().removeprefix('http://'): sum(len(image) > 0 for image in record['images'])
        for record in open_split(built, 'train')
    }
    whole = {f'{name}.org/{path}': 2 for name in ('free', 'old', 'none') for path in ('no', 'no/free', 'yes')}
    named = {'robots.org/yes': 2, 'all.org/yes': 2, 'tdm.org/yes': 2, 'tdm.org/no/free': 2}
    assert kept == whole | named | {f'ai.org/{path}': 1 for path in ('no', 'no/free', 'yes')}
    dropped = json.loads((built / 'ledger.json').read_text())['dropped']
    assert dropped['page_robots'] == {'page': 4, 'image': 8} and dropped['page_opt_out'] == {'page': 1, 'image': 2}
    assert dropped['image_robots'] == {'image': 3}


SHOWN = """<img src=/1.png> <img srcset="/small.png 100w, /2.png 800w">
<img src="data:image/gif;base64,R0" data-src=/3.png>
<img src=/blank.gif data-srcset="/4.png 2x"> <picture><source srcset="/5.png 1x"><img></picture>
<picture><source type="image/avif" srcset="/6.png"><img src=/gone.jpg></picture> <noscript><img src=/7.png></noscript>
<img class=lazy><noscript><img src=/8.png></noscript> <amp-img src=/9.png width=200 height=150></amp-img>
<object data=/10.png type="image/png">no</object> <embed src=/11.png> <video poster=/12.png src=a.mp4></video>
<input type=image src=/13.png> <svg><image href="/14.png"/></svg> <svg><image xlink:href="/15.png"/></svg>
<div role=img aria-label=x style="background-image: url('/16.png')"></div>
<button><img src=/17.png> Enlarge</button> <img data-original=/18.png src=/spacer.gif> <img data-lazy-src=/19.png>
<figure><a href=/big.html><img src=/20.png></a></figure> <img src=/blank.gif data-unheard-of=/21.png>
<img srcset="/22.png"> <table><tr><td><img src=/23.png></table> <img src=/gone2.png srcset="/24.png 2x, /gone3.png 1x">
<img srcset="/not-crawled.png 2000w, /nor-this.png 1000w" src=/25.png> <img src=/moved.png> <img src=/octet?id=27>
<img src=/28.avif>"""


def test_every_image_that_a_browser_shows_is_kept_and_decoration_is_told(tmp_path):
    crawl = Crawl(tmp_path / 'a.warc.gz')
    decoration = '<div style="background: url(/decoration.png)"></div><svg><path d="M0 0"/></svg><img src=/drawn.svg>'
    crawl.page('http://a.b/', f'{text(1)}{SHOWN}{decoration}{text(2)}')
    for i in range(1, 26):
        crawl.png(f'http://a.b/{i}.png', i)
    crawl.add('http://a.b/moved.png', b'', 'text/html', '301 Moved', Location='https://cdn.b/once')
    crawl.add('https://cdn.b/once', b'', 'text/html', '302 Found', Location='/twice')
    crawl.add('https://cdn.b/twice', b'', 'text/html', '307 Found', Location='http://cdn.b/there.webp')
    crawl.add('http://cdn.b/there.webp', encoded_image(26, format='WEBP'), 'image/jpeg')
    crawl.add('http://a.b/octet?id=27', encoded_image(27, format='JPEG'), 'application/octet-stream')
    crawl.add('http://a.b/28.avif', encoded_image(28, format='AVIF'), 'text/html')
    crawl.png('http://a.b/decoration.png', 90)
    crawl.add('http://a.b/drawn.svg', b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', 'image/svg+xml')
    crawl.page('http://head.b/', f'<meta property=og:image content=/30.png>{text(3)}').png('http://head.b/30.png', 30)
    crawl.add(
        'http://head.b/',
        f'<meta property=og:image content=/30.png><body>{text(3)}'.encode(),
        date='2026-03-01T00:00:00Z',
    )
    built = build(Builder, str(tmp_path / 'out'), CONFIG, warcs=(crawl.write(),))
    records = {record['url'].decode(): record for record in open_split(built, 'train')}
    formats = {26: 'WEBP', 27: 'JPEG', 28: 'AVIF'}
    kept = [image for image in records['http://a.b/']['images'] if image]
    assert kept == [encoded_image(i, format=formats.get(i, 'PNG')) for i in range(1, 29)]
    assert [image for image in records['http://head.b/']['images'] if image] == [encoded_image(30)]
    dropped = json.loads((built / 'ledger.json').read_text())['dropped']
    assert {rule: of['image'] for rule, of in dropped.items() if 'image' in of} == {
        'image_background': 1, 'image_svg': 2,
    }  # fmt: skip


def test_of_a_gif_the_first_frame_is_kept_by_choice(tmp_path):
    frames = [PIL.Image.open(io.BytesIO(encoded_image(i))).convert('P') for i in range(3)]
    made = io.BytesIO()
    frames[0].save(made, 'GIF', save_all=True, append_images=frames[1:])
    crawl = Crawl(tmp_path / 'a.warc.gz').page('http://a.b/', f'{text(1)}<img src=/a.gif>')
    path = crawl.add('http://a.b/a.gif', made.getvalue(), 'image/gif').write()
    config = Config(name='gif', description='', rules=PageRules(image_formats=('GIF',)))
    [kept] = [
        one for one in open_split(build(Builder, str(tmp_path), config, warcs=(path,)), 'train')[0]['images'] if one
    ]
    still = PIL.Image.open(io.BytesIO(kept))
    assert still.format == 'PNG' and getattr(still, 'n_frames', 1) == 1
    assert still.convert('RGB').tobytes() == frames[0].convert('RGB').tobytes()


def chapters(first: int, sections: int, level: int) -> str:
    """Sections of 120 words with an image each."""
    numbers = range(first, first + sections)
    return ''.join(f'<h{level}>Part {i}</h{level}>{text(2 * i)}<img src=/{i}.png>{text(2 * i + 1)}' for i in numbers)


def test_a_long_page_is_divided_at_its_headings_and_keeps_every_text_and_image(tmp_path):
    crawl = Crawl(tmp_path / 'a.warc.gz')
    crawl.page(
        'http://a.b/', f'<h1>Book</h1>{chapters(0, 1, 2)}{chapters(1, 3, 3)}{chapters(4, 1, 2)}{chapters(5, 2, 3)}'
    )
    plain = ''.join(f'{text(50 + i)}<img src=/{20 + i}.png>' for i in range(8))
    crawl.page('http://plain.b/', plain)  # It has no headings.
    for i in range(8):
        crawl.png(f'http://a.b/{i}.png', i).png(f'http://plain.b/{20 + i}.png', 20 + i)
    path = crawl.write()
    command = [sys.executable, '-m', 'data.web_pages.build', f'--warc={path}', f'--out={tmp_path}']
    subprocess.run([*command, '--rule.document_max_words=400', '--rule.image_formats=PNG'], cwd=ROOT, check=True)
    folder = tmp_path / 'web_pages' / 'all' / '1.0.0'
    parts: dict[str, dict] = {}
    for record in open_split(folder, 'train'):
        url, part = record['url'].decode(), json.loads(record['meta']).get('part', 0)
        parts.setdefault(url, {})[part] = record
    counted = json.loads((folder / 'ledger.json').read_text())
    assert counted['rules'] == {'document_max_words': 400, 'image_formats': ['PNG']}
    assert not any(rule.startswith('document') for rule in counted['dropped'])
    by_part = [parts['http://a.b/'][part] for part in range(3)]
    firsts = [record['texts'][0].decode().split('\n\n')[:2] for record in by_part]
    assert [first[0] for first in firsts] == ['Book', 'Part 3', 'Part 4']
    whole = '\n\n'.join(text.decode() for record in by_part for text in record['texts'] if text)
    assert [int(number) for number in re.findall(r'Part (\d)', whole)] == list(range(7))
    assert all(story(i) in whole for i in range(14))
    assert [image for record in by_part for image in record['images'] if image] == [encoded_image(i) for i in range(7)]
    lone = [parts['http://plain.b/'][part] for part in range(len(parts['http://plain.b/']))]
    assert [image for record in lone for image in record['images'] if image] == [
        encoded_image(20 + i) for i in range(8)
    ]
    assert len(lone) == 2
    for record in [*by_part, *lone]:
        assert len(' '.join(text.decode() for text in record['texts']).split()) <= 400


def test_every_record_page_and_image_is_kept_or_has_a_rule(tmp_path):
    crawl = Crawl(tmp_path / 'a.warc.gz')
    crawl.page(
        'http://a.b/', f'{text(1)}<nav><img src=/nav.png></nav><img src=/1.png><img src=/1.png><img src=/gone.png>'
    )
    crawl.page('http://a.b/few', '<p>Too few words.</p><img src=/1.png><img src=/2.png>')
    crawl.page('http://a.b/', f'{text(2)}<img src=/2.png>', date='2020-01-01T00:00:00Z')
    crawl.page('http://a.b/gone', '<p>Not here.</p><img src=/2.png>', status='404 Not Found')
    crawl.add('http://a.b/no-type', f'<!doctype html><body>{text(3)}<img src=/3.png>'.encode(), '')
    crawl.add('http://a.b/a.css', b'p {}', 'text/css').add('http://a.b/moved', b'', status='301 Moved', Location='/few')
    crawl.add('http://a.b/robots.txt', b'', 'text/plain')
    for i in range(1, 4):
        crawl.png(f'http://a.b/{i}.png', i)
    path = crawl.write()
    with open(path, 'ab') as file:
        writer = WARCWriter(file, gzip=True)
        writer.write_record(writer.create_warcinfo_record('a', {}))
        writer.write_record(
            writer.create_warc_record('http://a.b/', 'request', payload=io.BytesIO(b'GET / HTTP/1.1\r\n\r\n'))
        )
    counts = json.loads((build(Builder, str(tmp_path / 'out'), CONFIG, warcs=(path,)) / 'ledger.json').read_text())
    assert counts['read']['record'] == {
        'all': 13, 'host': 1, 'page': 5, 'image': 3, 'redirect': 1, 'request': 1, 'warcinfo': 1,
    }  # fmt: skip
    assert counts['read']['document']['all'] == 5 and counts['read']['image']['all'] == 8
    rules = {rule: of for rule, of in counts['dropped'].items() if not rule.startswith('text_')}
    assert rules == {
        'document_min_words': {'document': 1, 'image': 2}, 'page_status': {'page': 1},
        'page_url': {'page': 1, 'image': 1},
        'image_missing': {'image': 1}, 'image_repeated': {'image': 1}, 'record_type': {'record': 1},
        'tag_nav': {'image': 1},
    }  # fmt: skip
    for what in ('record', 'document', 'image'):
        lost = counts | dict(read=counts['read'] | {what: counts['read'][what] | {'all': 99}})
        with pytest.raises(LedgerError, match=f'99 {what}s were read'):
            check_sums(lost)


def digests(folder: pathlib.Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


@pytest.mark.long
def test_the_same_bytes_from_several_workers(built, crawl, benchmarks, tmp_path):
    other = build(Builder, str(tmp_path), CONFIG, 3, warcs=tuple(reversed(crawl)), benchmarks=benchmarks, licence='CC0')
    assert digests(built) == digests(other)


@pytest.mark.long
def test_a_killed_build_leaves_nothing_that_opens_and_starts_over(tmp_path):
    crawl = Crawl(tmp_path / 'a.warc.gz')
    for i in range(40):
        crawl.page(f'http://one.org/{i}', f'{text(i)}<img src=/{i}.png>').png(f'http://one.org/{i}.png', i)
    crawl.write()

    def command(out: str) -> subprocess.Popen:
        arguments = [f'--warc={crawl.path}', f'--out={tmp_path / out}']
        with open(os.devnull, 'w') as nothing:
            return subprocess.Popen(
                [sys.executable, '-m', 'data.web_pages.build', *arguments], cwd=ROOT, stdout=nothing, stderr=nothing
            )

    begin = time.monotonic()
    assert command('whole').wait() == 0
    seconds = time.monotonic() - begin
    folder = pathlib.Path('web_pages', 'all', '1.0.0')
    for share in (0.5, 0.8):
        run = command('killed')
        time.sleep(share * seconds)
        run.send_signal(signal.SIGKILL)
        run.wait()
        if (tmp_path / 'killed' / folder).exists():  # It was whole already.
            assert digests(tmp_path / 'killed' / folder) == digests(tmp_path / 'whole' / folder)
        else:
            with pytest.raises(FileNotFoundError):
                open_split(tmp_path / 'killed' / folder, 'train')
    assert command('killed').wait() == 0
    assert digests(tmp_path / 'killed' / folder) == digests(tmp_path / 'whole' / folder)
    assert [path.name for path in (tmp_path / 'killed' / folder).parent.iterdir()] == ['1.0.0']
