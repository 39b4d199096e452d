"""Filters of GIMP's manual, from a few pages in its form."""

import collections

import numpy as np
import PIL.Image
import pytest

from experiments.evaluate import gimp_filters
from flamingo_jax.evaluation.datasets.gimp_filters import GimpFilters
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.run import measure
from flamingo_jax.evaluation.setting import Setting
from flamingo_jax.evaluation.task import make, task

pytestmark = pytest.mark.usefixtures('quick_compilation')

MANUAL = 'x/gimp-help-en/usr/share/gimp/3.0/help/en'
PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<html xmlns="http://www.w3.org/1999/xhtml"><head><title>{title}</title><link rel="up" href="{up}.html" /></head><body>
<div class="navheader"><img src="images/prev.png" alt="Prev" /></div><h3 class="title">{title}</h3>
<div class="figure"><p class="title">Example for the filter</p><div class="figure-contents">{figures}</div></div>
<p>This filter makes the image look like an oil painting.</p></body></html>"""
FIGURE = """<div class="mediaobject"><img src="{}" alt="Example for the filter" />
<div class="caption"><p>{}</p></div></div>"""
E = 'images/filters/examples/'
ORIGINAL = (f'{E}taj_orig.jpg', 'Original image')
PAGES = {
    'gimp-filter-oilify': (
        '11.6.\xa0Oilify',
        'filters-artistic',
        [
            ORIGINAL,
            (f'{E}oilify.jpg', 'Filter <span class="quote">“Oilify”</span> applied'),
            (f'{E}oilify-8.png', 'Exponent = 8'),
            (f'{E}oilify-map.png', 'The exponent map'),
            (f'{E}oilify-both.png', 'Left: original. Right: filter applied.'),
            ('images/filters/artistic/oilify-dialog.png', 'Options'),
        ],
    ),
    'gimp-filter-ripple': (
        '5.9. Ripple',
        'filters-distort',
        [ORIGINAL, (f'{E}ripple.jpg', '“Ripple” applied'), (f'{E}ripple-25.png', 'Amplitude = 25')],
    ),
    'gimp-filter-whirl-pinch': (
        '5.1. Whirl and Pinch',
        'filters-distort',
        [(f'{E}whirl.png', 'Whirled'), (f'{E}pinch.png', 'Pinched'), (f'{E}both.png', 'Filter applied')],
    ),
    # A single image; images that an older filter of the same name shares; and a page of another menu.
    'gimp-filter-maze': ('14.1. Maze', 'filters-render', [(f'{E}maze.jpg', 'Filter “Maze” applied')]),
    'gimp-filter-grid': ('14.2. Grid', 'filters-render', [(f'{E}grid.png', 'Applied'), (f'{E}grid-2.png', 'Wide')]),
    'plug-in-grid': ('14.3. Grid (legacy)', 'filters-render', [(f'{E}grid.png', 'Applied'), (f'{E}g.png', 'Narrow')]),
    'gimp-edit-undo': ('3.1. Undo', 'gimp-edit-menu', [(f'{E}undo.png', 'One'), (f'{E}undo-2.png', 'Two')]),
}
FILTERS = {
    'Oilify': {'oilify.jpg', 'oilify-8.png'},
    'Ripple': {'ripple.jpg', 'ripple-25.png'},
    'Whirl and Pinch': {'whirl.png', 'pinch.png', 'both.png'},
}


@pytest.fixture
def raw(tmp_path):
    """What fetch.sh leaves."""
    rng = np.random.default_rng(0)
    for page, (title, up, figures) in PAGES.items():
        for path, _ in figures:
            file = tmp_path / MANUAL / path
            file.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(file)
        html = PAGE.format(title=title, up=up, figures=''.join(FIGURE.format(*figure) for figure in figures))
        (tmp_path / MANUAL / f'{page}.html').write_text(html, encoding='utf-8')
    return tmp_path


def config(raw):
    c = gimp_filters.get_config()
    c.data, c.batch_size = str(raw), 4
    return c


def filters(pretrained, raw, **fields):
    return make('gimp_filters', task(GimpFilters, **fields).to_dict(), Pools(pretrained, config(raw)))


def test_the_results_of_each_filter_are_read_and_nothing_else(raw):
    found = collections.defaultdict(set)
    for item in GimpFilters().read(raw, 'en'):
        assert item.file.is_file() and set(item.candidates) == set(FILTERS)
        found[item.answer].add(item.id)
    assert found == FILTERS


def test_every_result_is_asked_once_after_another_of_its_filter_and_one_of_another(pretrained, raw):
    of = {id: name for name, ids in FILTERS.items() for id in ids}
    asked = filters(pretrained, raw)
    first = set()
    for seed in range(8):
        episodes = list(asked.episodes(100, 1, 'random', 'ranked', seed))
        assert sorted(e.id for e in episodes) == sorted(of)
        assert episodes == list(asked.episodes(100, 1, 'random', 'ranked', seed))
        for e in episodes:
            assert e.query[0].text == ' Output:' and e.truth == of[e.id] and asked.chance(e) == 0.5
            names = [of[part.image.name] for part in e.support]
            assert [part.text for part in e.support] == [f' Output: {name}' for name in names]
            assert len(names) == 2 and sorted(names) == list(e.candidates) and e.truth in names
            first.add(names[0] == e.truth)
    assert first == {True, False}


def test_more_ways_and_shots_ask_about_the_filters_that_have_enough_images(pretrained, raw):
    (episode, *_) = filters(pretrained, raw, ways=3).episodes(1, 1, 'random', 'ranked', 0)
    assert episode.candidates == tuple(FILTERS)
    with pytest.raises(ValueError, match='2 filters that have 2 images besides the query, but there are only 1'):
        filters(pretrained, raw, shots=(2,))


@pytest.mark.long
def test_it_is_measured_beside_its_controls(pretrained, raw):
    asked = filters(pretrained, raw)
    row, _ = measure(Setting.of(config(raw), asked, 1, 'random', 'ranked'), pretrained)
    assert row.episodes == 7 and row.scores['chance'].value == 0.5
    assert {'model', 'shuffled images', 'text only', 'nearest neighbour'} <= set(row.scores)


def test_the_nearest_neighbour_is_right_if_a_filters_images_are_alike(pretrained, raw):
    folder = raw / MANUAL / E
    for ids, colour in zip(FILTERS.values(), ((250, 20, 20), (20, 250, 20), (20, 20, 250)), strict=True):
        for id in ids:
            PIL.Image.new('RGB', (24, 20), colour).save(folder / id)
    asked = filters(pretrained, raw)
    for e in asked.episodes(100, 1, 'random', 'ranked', 0):
        assert asked.baselines(e)['nearest neighbour'] == e.truth


def test_a_folder_without_the_manual_is_refused(pretrained, tmp_path, raw):
    with pytest.raises(FileNotFoundError, match='no manual in the language fr. Run data/debian_pages/fetch.sh'):
        filters(pretrained, raw, query_split='fr', support_split='fr')
    (raw / MANUAL / E / 'ripple.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='ripple.jpg of question ripple.jpg is missing'):
        filters(pretrained, raw)
