"""Grouping in files, against a dictionary; and that the memory of a build does not grow with what is built."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from apache_beam.testing.util import assert_that

from data.web_pages.web_pages_dataset_builder import Builder
from flamingo_jax.building import spill
from flamingo_jax.building.runner import beam, pipeline_options
from flamingo_jax.building.write import build
from tests.building.web import Crawl, story

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize('same_sort_key', [False, True])
@pytest.mark.parametrize('together', [2, 10_000])
def test_groups_are_those_of_a_dictionary(tmp_path, monkeypatch, same_sort_key, together):
    monkeypatch.setattr(spill, 'MOST_RECORDS', 40)  # Several files,
    monkeypatch.setattr(spill, 'PART_RECORDS', 10)  # and parts.
    monkeypatch.setattr(spill, 'TOGETHER', together)
    if same_sort_key:
        monkeypatch.setattr(spill, 'sort_key', lambda name: b'0123456789abcdef')
    rng, expected = np.random.default_rng(0), {}
    inputs = {name: [((b'k', int(rng.integers(60))), f'{name}{i}') for i in range(150)] for name in ('one', 'other')}
    for name, pairs in inputs.items():
        for key, value in pairs:
            expected.setdefault(key, {'one': [], 'other': []})[name].append(value)

    def equal(groups: list) -> None:
        assert len(groups) == len(expected)
        found = {key: {name: sorted(values) for name, values in parts.items()} for key, parts in groups}
        assert found == {
            key: {name: sorted(values) for name, values in parts.items()} for key, parts in expected.items()
        }

    with beam.Pipeline(options=pipeline_options()) as pipeline:
        made = {name: pipeline | name >> beam.Create(pairs) for name, pairs in inputs.items()}
        assert_that(made | spill.GroupOnDisk(str(tmp_path)), equal)


@pytest.mark.long
def test_pages_that_share_more_than_memory_holds_give_the_same_bytes(tmp_path, monkeypatch):
    crawl = Crawl(tmp_path / 'a.warc.gz')
    for i in range(40):  # On two sites, with a logo, a footer, copies, and older captures.
        for date in ('2020-01-01T00:00:00Z', '2021-01-01T00:00:00Z')[: 1 + i % 2]:
            body = f'<p>{story(i // 3, 30)}</p><p>{story(i, 20)}</p><p>All rights are reserved by this company.</p>'
            crawl.page(f'http://s{i % 2}.org/{i}', f'<img src=/logo.png>{body}<img src=/{i % 7}.png>', date=date)
    for number, url in enumerate([*range(7), 'logo']):
        for site in range(2):
            crawl.png(f'http://s{site}.org/{url}.png', number)
    path, made = crawl.write(), []
    for together, part in ((10_000, 100_000), (1, 20)):
        monkeypatch.setattr(spill, 'TOGETHER', together)
        monkeypatch.setattr(spill, 'PART_RECORDS', part)
        folder = build(Builder, str(tmp_path / str(together)), 'all', warcs=(path,))
        made.append({file.name: file.read_bytes() for file in sorted(folder.iterdir())})
    assert made[0] == made[1]
    dropped = json.loads(made[0]['ledger.json'])['dropped']
    assert {'page_url', 'text_on_site', 'document_near_text', 'image_url_repeats'} <= dropped.keys()


HOT = """
import sys, tracemalloc
from flamingo_jax.building import spill
from flamingo_jax.building.pages import _marks
from flamingo_jax.building.rules import DEFAULT
spill.MOST_RECORDS, spill.PART_RECORDS, spill.TOGETHER = 500, 500, 100
number, writer, files = int(sys.argv[2]), spill.Spill(sys.argv[1]), []
writer.start_bundle()
for i in range(number):
    files += writer.process(spill._packed(('logo', ('2020-01-01', f'{i:024d}', number)), 'pages'))
files += [last.value for last in writer.finish_bundle()]
tracemalloc.start()
marked = 0
for part in range(8):
    for _, values in spill._groups((part, 8), files, ['pages']):
        marked += sum(1 for _ in _marks((('image_url_repeats', '', '', b'logo'), values), DEFAULT))
print(marked, tracemalloc.get_traced_memory()[1])
"""


@pytest.mark.long
def test_memory_does_not_grow_with_what_shares_a_key(tmp_path):
    """Thirty times as many records of one key, which a list of them would show: it has 300 bytes a record."""
    peaks = []
    for number in (300, 10_000):
        command = [sys.executable, '-c', HOT, str(tmp_path), str(number)]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
        assert int(done[0]) == number
        peaks.append(int(done[1]))
    assert peaks[1] - peaks[0] < 2**20


BUILD = """
import sys, tracemalloc
from data.web_pages.web_pages_dataset_builder import Builder
from flamingo_jax.building.write import build
tracemalloc.start()
build(Builder, sys.argv[1], 'all', warcs=tuple(sys.argv[2:]))
print(tracemalloc.get_traced_memory()[1])
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """Beam's own groups would take 10,000 bytes a page. What is in memory until a file is full takes some.

    The process's own peak would also tell, but differs by 20 MB from run to run.
    """
    paths, peaks = [], []
    for part in range(4):
        crawl = Crawl(tmp_path / f'{part}.warc.gz')
        for i in range(250 * part, 250 * part + 250):
            body = ''.join(f'<p>{story(10 * i + j, 20)}</p>' for j in range(6))
            crawl.page(f'http://site{i % 97}.org/{i}', f'{body}<img src=/{i}.png>').png(
                f'http://site{i % 97}.org/{i}.png', i, width=70, height=70
            )
        paths.append(crawl.write())
    for some in (paths[:1], paths):
        command = [sys.executable, '-c', BUILD, str(tmp_path / str(len(some))), *some]
        peaks.append(
            int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()[-1])
        )
    assert peaks[1] - peaks[0] < 750 * 4000
