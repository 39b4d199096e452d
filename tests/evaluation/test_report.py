"""The report of an evaluation, written from made-up scores and real images."""

import base64
import dataclasses
import html.parser
import io
import json
import pathlib
import random
import re
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from flamingo_jax.evaluation import fonts
from flamingo_jax.evaluation.report import Example, Row, Score, table, write
from flamingo_jax.inputs.images import ImageError

SAMPLE = pathlib.Path(__file__).parents[2] / 'data/picture_dictionary/sample'
BASELINES = ('shuffled images', 'text only', 'nearest centroid', 'nearest neighbour', 'chance')


@pytest.fixture(scope='module')
def records() -> list[tuple[bytes, dict[str, str]]]:
    """An image, and its names by language."""
    source = tfds.builder_from_directory(SAMPLE).as_data_source('test')
    return [
        (
            record['frames'][0],
            {k.decode(): v.decode() for k, v in zip(record['languages'], record['names'], strict=True)},
        )
        for record in (source[i] for i in range(60))
    ]


def made_up_rows() -> list[Row]:
    rng = random.Random(0)
    rows = []
    for task, answers, chance, shots in (
        ('2-way new words', 'ranked', 0.5, (1, 2, 4, 8)),
        ('5-way new words', 'ranked', 0.2, (1, 2, 4, 8, 16)),
        ('5-way new words', 'open-ended', 0.0, (1, 2, 4, 8, 16)),
        ('names', 'ranked', 0.1, (0, 1, 2, 4, 8, 16)),
        ('names', 'open-ended', 0.0, (0, 1, 2, 4, 8, 16)),
    ):
        for support in ('random', 'rices') if task == 'names' else ('random',):
            for place, n in enumerate(shots):
                better = 0.08 if support == 'rices' and n else 0.0
                values = {
                    'model': chance + (0.93 - chance) * (1 - 0.62 ** (place + 1)) + better / 2,
                    'shuffled images': chance + rng.uniform(0.01, 0.04) + better,
                    'text only': chance + rng.uniform(0.0, 0.03) + better,
                }
                if task != 'names':
                    values['nearest centroid'] = chance + (0.8 - chance) * (1 - 0.7 ** (place + 1))
                    values['nearest neighbour'] = chance + (0.75 - chance) * (1 - 0.75 ** (place + 1))
                scores = {
                    name: Score(value, (value * (1 - value) / 300) ** 0.5 * 1.96) for name, value in values.items()
                }
                rows.append(Row(task, answers, support, n, 300, scores | {'chance': Score(chance, 0.0)}))
    return rows


def made_up_examples(records) -> list[Example]:
    rng = random.Random(1)
    examples = []
    for task, answers, support, shots in (
        ('5-way new words', 'ranked', 'random', 1),
        ('names', 'open-ended', 'rices', 4),
        ('names', 'ranked', 'random', 16),
    ):
        for i in range(12):
            chosen = rng.sample(records, 5 if shots == 1 else shots + 1)
            if task == 'names':
                language = ('en', 'de', 'ar', 'hi', 'ja', 'th', 'el', 'am', 'he', 'ko', 'ru', 'zh')[i]
                names = [names.get(language, names['en']) for _, names in chosen]
            else:
                names = ['dax', 'wug', 'blicket', 'fep', 'toma']
            support_chunks = tuple((image, f'Output: {name}') for (image, _), name in zip(chosen, names, strict=True))
            truth = names[-1]
            answer = truth if i % 3 else names[0]
            if task == 'names':
                support_chunks = support_chunks[:-1]
            query = (chosen[-1][0], 'Output:')
            examples.append(
                Example(task, answers, support, shots, (*support_chunks, query), answer, truth, answer == truth)
            )
    return examples


ABOUT = {'checkpoint': 'runs/tiny/900', 'seed': np.int32(3), 'seconds': 12.5, 'dtype': np.dtype('float32')}


def test_the_four_files(tmp_path, records):
    rows, examples = made_up_rows(), made_up_examples(records)
    folder = tmp_path / 'new' / 'report'
    for _ in range(2):  # The second replaces the first.
        written = write(folder, rows, examples, ABOUT)
    assert set(folder.iterdir()) == set(written)
    assert written.text.read_text(encoding='utf-8') == table(rows)
    report = json.loads(written.json.read_text(encoding='utf-8'))
    assert report['about'] == {'checkpoint': 'runs/tiny/900', 'seed': 3, 'seconds': 12.5, 'dtype': 'float32'}
    assert [
        Row(**row | {'scores': {k: Score(**v) for k, v in row['scores'].items()}}) for row in report['rows']
    ] == rows
    image = PIL.Image.open(written.chart)
    assert image.format == 'PNG' and 800 < image.width < 1500


def test_without_matplotlib_there_is_all_but_the_chart(tmp_path, monkeypatch, capsys):
    row = Row('captions', 'open-ended', 'random', 4, 100, {'model': Score(0.5, 0.05)})
    (tmp_path / 'report.png').write_bytes(b'of an earlier evaluation')
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    written = write(tmp_path, [row], [], {})
    assert written.chart is None and not (tmp_path / 'report.png').exists() and written.text.is_file()
    assert "pip install 'flamingo_jax[plots]'" in capsys.readouterr().out


def test_a_character_that_no_font_has_is_named_once(tmp_path, capsys):
    """Of private use: no font here has it, whatever is installed."""
    rows = [dataclasses.replace(row, task=f'{row.task} \ue123 \ue456 猫') for row in made_up_rows()]
    written = write(tmp_path, rows, [], ABOUT)
    (line,) = capsys.readouterr().out.splitlines()
    assert re.match('report.png: no font here has .*\ue123 \ue456. Empty boxes stand for them. Install', line)
    assert ('猫' in line) == (fonts.families() == ['DejaVu Sans']) and written.chart.is_file()
    write(tmp_path, made_up_rows(), [], ABOUT)
    assert not capsys.readouterr().out


def test_the_table_fits_and_has_every_row():
    rows = made_up_rows()
    lines = table(rows).splitlines()
    assert max(map(len, lines)) <= 120
    assert sum(bool(re.match(r'  (random|rices) +\d', line)) for line in lines) == len(rows)
    row = next(row for row in rows if row.task == 'names' and row.shots == 16 and row.support == 'rices')
    assert f'{row.scores["model"].value:.3f}'.lstrip('0') + ' ±' in table([row])


@pytest.mark.parametrize(
    ('model', 'shuffled', 'chance', 'marked'),
    [
        ((0.5, 0.1), (0.3, 0.05), (0.2, 0.0), True),
        ((0.5, 0.1), (0.3, 0.15), (0.2, 0.0), False),  # The intervals overlap.
        ((0.5, 0.1), (0.1, 0.05), (0.4, 0.0), False),  # Touches chance.
        ((0.5, 0.1), None, (0.2, 0.0), False),  # Not known to be above what was not measured.
        ((0.5, 0.1), (0.3, 0.05), None, False),
    ],
)
def test_the_mark(model, shuffled, chance, marked):
    scores = {'model': model, 'shuffled images': shuffled, 'chance': chance}
    row = Row('names', 'ranked', 'random', 1, 9, {k: Score(*v) for k, v in scores.items() if v})
    assert row.above == marked
    assert ('.500 ±.100*' in table([row])) == marked


def test_what_is_no_score_is_refused():
    with pytest.raises(ValueError, match='nan'):
        Score(float('nan'), 0.0)
    with pytest.raises(ValueError, match='-0.1'):
        Score(0.5, -0.1)


def test_a_score_may_exceed_1(tmp_path):
    """CIDEr does."""
    row = Row('captions', 'open-ended', 'random', 4, 100, {'model': Score(1.104, 0.05), 'text only': Score(0.2, 0.02)})
    assert '1.104 ±.050' in table([row])
    assert PIL.Image.open(write(tmp_path, [row], [], {}).chart).format == 'PNG'


def test_nothing_and_little(tmp_path):
    written = write(tmp_path, [], [], {})
    assert 'Nothing' in written.text.read_text(encoding='utf-8')
    assert 'No examples' in written.contact_sheet.read_text(encoding='utf-8')
    bare = Row('names', 'ranked', 'rices', 0, 1, {})
    linear = dataclasses.replace(bare, support='random', scores={'linear probe': Score(1.0, 0.0)})
    empty = Example('names', 'ranked', 'rices', 0, (), '', '', False)
    written = write(tmp_path, [bare, linear], [empty], {})
    assert 'linear' in written.text.read_text(encoding='utf-8')


class Reader(html.parser.HTMLParser):
    """The text of a page and the classes of its images, in reading order."""

    def __init__(self, page: str):
        super().__init__()
        self.seen = []
        self.feed(page.split('</style>')[1])

    def handle_starttag(self, tag, attrs):
        assert tag not in ('script', 'img', 'link')
        if tag == 'i':
            self.seen.append(dict(attrs)['class'])

    def handle_data(self, data):
        if data.strip():
            self.seen.append(data.strip())


def test_the_contact_sheet_reads_as_the_prompt(tmp_path, records):
    (dog, _), (cat, _) = records[:2]
    large = io.BytesIO()
    PIL.Image.new('RGB', (640, 480), 'teal').save(large, 'PNG')
    chunks = ((None, 'Be <script>brief</script> & kind.'), (dog, 'Output: dax'), (cat, 'Output: كلب'), (dog, 'Output:'))
    examples = [
        Example('names', 'open-ended', 'random', 2, chunks, 'dax <1>', 'dax', False),
        Example('names', 'open-ended', 'random', 0, ((large.getvalue(), 'Output:'),), 'wug', 'wug', True),
    ]
    page = write(tmp_path, [], examples, {}).contact_sheet.read_text(encoding='utf-8')
    embedded = dict(re.findall(r'\.(p\w+)\{background-image:url\(data:image/\w+;base64,([^)]*)\)\}', page))
    assert len(embedded) == 3 and 'http' not in page
    sizes = {name: PIL.Image.open(io.BytesIO(base64.b64decode(data))).size for name, data in embedded.items()}
    assert sorted(sizes.values()) == [(72, 54), (72, 72), (72, 72)]

    seen = Reader(page).seen
    wrong = seen[seen.index('wrong') :]
    first = wrong.index('Be <script>brief</script> & kind.')
    one, two = wrong[first + 1], wrong[first + 3]
    assert base64.b64decode(embedded[one]) == dog and base64.b64decode(embedded[two]) == cat
    assert wrong[first + 1 :] == [
        *(one, 'Output: dax', two, 'Output: كلب', one, 'Output:'),
        *('model', 'dax <1>', 'truth', 'dax'),
    ]
    assert seen.index('right') < seen.index('wug') < seen.index('wrong')


def test_every_setting_has_its_turn(tmp_path):
    examples = [
        Example('names', 'ranked', 'random', shots, ((None, f'{shots}.{i}'),), 'x', 'x', True)
        for shots in (0, 4, 16)
        for i in range(3)
    ]
    seen = Reader(write(tmp_path, [], examples, {}).contact_sheet.read_text(encoding='utf-8')).seen
    assert [text for text in seen if '.' in text[:3]] == [f'{shots}.{i}' for i in range(3) for shots in (0, 4, 16)]
    assert seen.index('16.0') < seen.index('6 more') < seen.index('0.1')


def test_a_broken_image_loses_no_scores(tmp_path):
    broken = Example('names', 'ranked', 'random', 0, ((b'not an image', 'Output:'),), 'a', 'b', False)
    with pytest.raises(ImageError):
        write(tmp_path, made_up_rows(), [broken], ABOUT)
    assert {path.name for path in tmp_path.iterdir()} == {'report.json', 'report.txt', 'report.png'}
