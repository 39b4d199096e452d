"""From the folder of an unpacked package to documents."""

import json
import pathlib
import subprocess
import sys

import pytest

from data.debian_pages import crawl
from flamingo_jax.building import warc
from flamingo_jax.inputs.sources.array_record import open_split
from tests.building.web import encoded_image, story

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def raw(tmp_path) -> pathlib.Path:
    """Two languages, of three pages each."""
    for number, language in enumerate(('en', 'de')):
        folder = tmp_path / 'x' / f'gimp-help-{language}' / 'usr' / 'share' / 'gimp' / '3.0' / 'help' / language
        (folder / 'images').mkdir(parents=True)
        for i in range(3):
            seed = 10 * number + i
            body = f'<p>{story(seed)}</p><img src="images/{i}.png"/><img src="images/missing.png"/>'
            (folder / f'{i}.html').write_text(f'<html><body>{body}</body></html>')
            (folder / 'images' / f'{i}.png').write_bytes(encoded_image(seed))
    return tmp_path


def test_archives_are_those_of_a_crawler_and_the_same_each_time(raw, tmp_path):
    out = tmp_path / 'warc'
    out.mkdir()
    manual = crawl.MANUALS['gimp']
    found = crawl.folders(raw, manual)
    assert sorted(found) == ['de', 'en']
    paths = crawl.write_warcs(manual, found['de'], 'de', out=out)
    written = [one for path in paths for one in warc.read_warc(path)]
    assert {(one.url, one.type) for one in written} == {
        (f'https://docs.gimp.org/3.0/de/{name}', kind)
        for i in range(3)
        for name, kind in ((f'{i}.html', 'text/html'), (f'images/{i}.png', 'image/png'))
    }
    before = [pathlib.Path(path).read_bytes() for path in paths]
    again = crawl.write_warcs(manual, found['de'], 'de', out=out)
    assert [pathlib.Path(path).read_bytes() for path in again] == before


def test_other_manuals_are_in_one_package_for_all_languages(tmp_path):
    handbook, learn = crawl.MANUALS['debian-handbook'], crawl.MANUALS['scikit-learn']
    for folder in ('debian-handbook/usr/share/doc/debian-handbook/html/de-DE', 'python-sklearn-doc'):
        (tmp_path / 'x' / folder).mkdir(parents=True)
    (tmp_path / 'x/python-sklearn-doc/usr/share/doc/python-sklearn-doc/html').mkdir(parents=True)
    assert list(crawl.folders(tmp_path, handbook)) == ['de-DE'] and list(crawl.folders(tmp_path, learn)) == ['en']
    assert crawl.folders(tmp_path, crawl.MANUALS['kicad']) == {}


def test_pages_that_tell_their_language_by_their_names(tmp_path):
    manual = crawl.MANUALS['stellarium']
    for culture, licence in (('norse', 'CC BY-SA 4.0'), ('tupi', 'CC BY-NC-ND 4.0'), ('inuit', 'CC BY-ND 4.0')):
        folder = tmp_path / 'x' / manual.packages / manual.folders / culture
        folder.mkdir(parents=True)
        (folder / 'info.ini').write_text(f'[info]\nlicense = {licence}\n')
        (folder / 'a map.png').write_bytes(b'x')
        for language in ('de', 'pt_BR'):
            (folder / f'description.{language}.utf8').write_text('<p>x')
    found = crawl.folders(tmp_path, manual)
    assert list(found) == ['de', 'pt_BR']
    paths = crawl.write_warcs(manual, found['pt_BR'], 'pt_BR', out=tmp_path)
    assert [(one.url, one.type) for path in paths for one in warc.read_warc(path)] == [
        ('https://stellarium.org/24.3/pt_BR/norse/description.pt_BR.utf8', 'text/html'),
        ('https://stellarium.org/24.3/pt_BR/norse/a%20map.png', 'image/png'),
    ]


@pytest.mark.long
def test_one_command_builds_and_one_reports(raw, tmp_path):
    command = [sys.executable, '-m', 'data.debian_pages.build', f'--raw={raw}', f'--out={tmp_path}']
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    folder = tmp_path / 'debian_pages' / 'all' / '1.0.0'
    records = open_split(folder, 'train')
    assert len(records) == 6
    assert 'GFDL' in json.loads(records[0]['meta'])['licence']
    report = [sys.executable, '-m', 'data.debian_pages.report', f'--data={folder}']
    said = subprocess.run(report, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert '| pages | 3 | 3 |' in said and '| image | `image_missing` | 3 | 3 |' in said


@pytest.mark.long
def test_a_mistake_is_one_line(tmp_path):
    command = [sys.executable, '-m', 'data.debian_pages.build', f'--raw={tmp_path}', f'--out={tmp_path}']
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        f'error: {tmp_path} has no manual. Run data/debian_pages/fetch.sh {tmp_path} en de.'
    ]
