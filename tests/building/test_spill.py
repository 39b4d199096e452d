"""Grouping in files, against a dictionary; and that the memory of a build does not grow with what is built."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from apache_beam.testing.util import assert_that

from flamingo_jax.building import spill
from flamingo_jax.building.runner import beam, pipeline_options
from tests.building.web import Crawl, story

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize('same_sort_key', [False, True])
def test_groups_are_those_of_a_dictionary(tmp_path, monkeypatch, same_sort_key):
    monkeypatch.setattr(spill, 'MOST_RECORDS', 10)  # Many files,
    monkeypatch.setattr(spill, 'PART_RECORDS', 3)  # and many parts.
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
        for i in range(1000 * part, 1000 * part + 1000):
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
    assert peaks[1] - peaks[0] < 3000 * 4000
