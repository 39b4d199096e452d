"""SMMILE, from a few rows in its form."""

import io

import numpy as np
import PIL.Image
import pytest

from experiments.evaluate import smmile
from flamingo_jax.evaluation import metrics
from flamingo_jax.evaluation.datasets.smmile import SMMILE
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.run import measure
from flamingo_jax.evaluation.setting import Setting
from flamingo_jax.evaluation.task import make, task

pyarrow = pytest.importorskip('pyarrow')
parquet = pytest.importorskip('pyarrow.parquet')
pytestmark = pytest.mark.usefixtures('quick_compilation')


def image(seed):
    file = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)).save(file, 'PNG')
    return dict(bytes=file.getvalue(), path=None)


def row(problem, order, answer, shown):
    return dict(
        problem_id=problem, order=order, image=shown, question=f'What is {order}?', answer=answer, specialty='x'
    )


# The rows of a problem are not in their order. The third lacks an image; in the second a demonstration shows the query.
ROWS = [
    *(row('p', 3, 'cyst', image(3)), row('p', 1, 'Nevus', image(1)), row('p', 2, 'cyst', image(2))),
    *(row('q', 1, 'no', image(4)), row('q', 2, 'yes', image(5)), row('q', 3, 'yes', image(4))),
    *(row('r', 1, 'no', None), row('r', 2, 'yes', image(6))),
]


def put(folder, rows):
    (folder / 'data').mkdir(exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / 'data/train-00000-of-00001.parquet')
    return folder


def opened(pretrained, folder, **fields):
    c = smmile.get_config()
    c.data = str(folder)
    return make('smmile', task(SMMILE, **fields).to_dict(), Pools(pretrained, c))


def test_a_problem_is_asked_after_its_own_demonstrations_in_their_order(pretrained, tmp_path):
    asked = opened(pretrained, put(tmp_path, ROWS))
    episodes = {e.id: e for e in asked.episodes(10, 32, 'random', 'ranked', 0)}
    assert {*episodes} == {'p', 'q'}
    p, q = episodes['p'], episodes['q']
    assert [part.text for part in p.parts] == [
        ' Question: What is 1? Answer: Nevus',
        ' Question: What is 2? Answer: cyst',
        ' Question: What is 3? Answer:',
    ]
    assert p.truth == 'cyst' and p.candidates == ('Nevus', 'cyst')
    assert [part.image for part in p.parts] == [image(i)['bytes'] for i in (1, 2, 3)]
    assert [part.label for part in q.support] == ['yes'] and q.candidates == ('no', 'yes')
    (p,) = (e for e in asked.episodes(10, 1, 'random', 'open-ended', 0) if e.id == 'p')
    assert [part.label for part in p.support] == ['cyst'] and p.candidates == ()
    assert all(not e.support for e in asked.episodes(10, 0, 'random', 'open-ended', 0))


@pytest.mark.parametrize(
    'rows, named',
    [
        ([{**ROWS[0], 'answer': None}], 'row 0 cannot be read, or lacks one of'),
        ([{k: v for k, v in ROWS[0].items() if k != 'order'}], 'row 0 cannot be read, or lacks one of'),
        (ROWS[6:], 'none of the 1 problems in .* has all of its images'),
    ],
)
def test_damaged_rows_are_refused_by_name(pretrained, tmp_path, rows, named):
    with pytest.raises(ValueError, match=named):
        opened(pretrained, put(tmp_path, rows))


def test_damaged_and_missing_files_are_named(pretrained, tmp_path):
    with pytest.raises(FileNotFoundError, match='train-00000-of-00001.parquet'):
        opened(pretrained, tmp_path)
    file = put(tmp_path, ROWS) / 'data/train-00000-of-00001.parquet'
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match='train-00000-of-00001.parquet, row 0 cannot be read'):
        opened(pretrained, tmp_path)


@pytest.mark.parametrize('answers', ['open-ended', 'ranked'])
def test_it_is_evaluated(pretrained, tmp_path, answers):
    c = smmile.get_config()
    c.update(episodes=2, num_beams=1)
    short = [{**one, 'question': '?'} for one in ROWS]  # The model's context is small.
    asked = opened(pretrained, put(tmp_path, short), prompt=' {question}', max_new_tokens=2)
    result, _ = measure(Setting.of(c, asked, 32, 'random', answers), pretrained)
    assert result.episodes == 2 and result.scores['last label'].value == 1.0


@pytest.mark.parametrize(
    'answer, truth, right',
    [
        ('Nevus.', 'nevus', 1),
        (' basal-cell  carcinoma ', 'Basalcell carcinoma', 1),
        ('basal cell', 'basal-cell', 0),
        ('stage (II)', 'Stage II', 1),
        ('a nevus', 'nevus', 0),
        ('', '?!', 1),
    ],
)
def test_words_are_compared_without_punctuation(answer, truth, right):
    assert metrics.score('smmile', {'a': answer}, {'a': (truth,)}) == (right, {'a': right})
