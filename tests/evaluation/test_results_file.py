"""OpenFlamingo's table: its eight sets by one config, its results file, and published figures beside the scores."""

import dataclasses
import json
import pathlib

import pytest

from experiments.evaluate import idefics, open_flamingo
from flamingo_jax import compare
from flamingo_jax.checkpoints import bundle
from flamingo_jax.errors import UserError
from flamingo_jax.evaluation import results_file
from flamingo_jax.evaluation.report import Row, Score
from flamingo_jax.evaluation.run import evaluate
from flamingo_jax.model.flamingo import Flamingo
from tests.evaluation.official_files import SETS

pytestmark = pytest.mark.usefixtures('quick_compilation')
PUBLISHED = pathlib.Path(open_flamingo.__file__).parent / 'published'


def row(task, shots, score, seed=0, support='random') -> Row:
    return Row(task, 'open-ended', support, shots, 8, {'model': Score(score, 0.1)}, seed)


def test_a_seed_is_a_trial_and_each_set_has_its_scale(tmp_path):
    rows = [row('coco', 4, 0.5), row('coco', 4, 0.7, seed=1), row('coco', 0, 0.2), row('hateful_memes', 4, 0.6)]
    rows += [row('flickr30k', 8, 0.25, support='rices by clip'), row('counting', 4, 0.9)]
    files = results_file.write(tmp_path, rows)
    assert [file.name for file in files] == ['open_flamingo_random.json', 'open_flamingo_rices_by_clip.json']
    found = json.loads(files[0].read_text())
    assert found['coco'][0] == dict(shots=0, trials=[20], mean=20, stddev=0)
    assert found['coco'][1] == dict(shots=4, trials=[50, 70], mean=60, stddev=pytest.approx(10))
    assert found.keys() == {'coco', 'hateful_memes'} and found['hateful_memes'][0]['mean'] == 0.6
    assert json.loads(files[1].read_text())['flickr30'][0]['mean'] == 25
    assert results_file.read(files[0]) == {('coco', 0): 0.2, ('coco', 4): 0.6, ('hateful_memes', 4): 0.6}
    assert results_file.write(tmp_path, [row('counting', 4, 0.9)]) == []


@pytest.mark.parametrize('file', sorted(PUBLISHED.glob('*.json')), ids=lambda file: file.stem)
def test_published_figures_are_scores_of_seven_sets(file):
    scores = results_file.read(file)
    assert {task for task, _ in scores} == results_file.SETS.keys() - {'imagenet'}
    assert {shots for _, shots in scores} == {0, 4, 8, 16, 32} and len(scores) == 35
    assert all(0.14 <= score <= 1.17 for score in scores.values())


def test_the_figures_that_the_papers_are_known_by():
    of, idefics_80b = (results_file.read(PUBLISHED / f'{name}.json') for name in ('OpenFlamingo-9B', 'IDEFICS-80B'))
    assert (of['coco', 4], of['vqav2', 4], idefics_80b['vqav2', 32]) == pytest.approx((0.89, 0.548, 0.659))


@pytest.fixture(scope='module')
def checkpoint(pretrained, tmp_path_factory):
    """A bundle of the tiny model, with room for an example of any set."""
    path, c = tmp_path_factory.mktemp('model') / 'bundle', pretrained.config
    roomy = dataclasses.replace(c, lm=dataclasses.replace(c.lm, context=640))
    model = dataclasses.replace(pretrained, model=Flamingo(roomy, pretrained.model.dtype))
    bundle.save(path, model.config, model.params, model.tokenizer, model.image_tag, '')
    return path


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """The folders of all sets."""
    folder = tmp_path_factory.mktemp('data')
    for name in open_flamingo.CONFIGS:
        (folder / name).mkdir()
        SETS[name](folder / name)
    (folder / 'hateful_memes/dev_seen.jsonl').rename(folder / 'hateful_memes/dev.json')  # As for OpenFlamingo.
    return folder


def test_the_table_in_one_command(checkpoint, data, tmp_path, capsys):
    c = open_flamingo.get_config()
    c.data, c.seeds, c.num_beams = str(data), 2, 1
    for name in c.tasks:
        c.tasks[name].shots, c.tasks[name].max_new_tokens = (0,), 2
    c.tasks.vqav2.shots = (0, 4)
    c.tasks.ok_vqa.accuracy = 'vqa'  # The stems of the other need NLTK's data.
    rows = evaluate(c, checkpoint, tmp_path)
    said = capsys.readouterr().out
    assert {row.task for row in rows} == results_file.SETS.keys() and len(rows) == 2 * 9
    kept = json.loads((tmp_path / 'open_flamingo_random.json').read_text())
    assert kept.keys() == {theirs for theirs, _ in results_file.SETS.values()}
    of_vqav2 = [row.scores['model'].value for row in rows if (row.task, row.shots) == ('vqav2', 4)]
    assert kept['vqav2'][1]['trials'] == pytest.approx([100 * score for score in of_vqav2])
    # Beside the paper's; there is none for ImageNet.
    table = (tmp_path / 'report.txt').read_text().partition('OpenFlamingo-9B')[2]
    lines = {line.split(',')[0].strip(): line.split() for line in table.splitlines() if ' shots ' in line}
    assert lines.keys() == results_file.SETS.keys() - {'imagenet'} and table in said
    assert lines['coco'][-2] == '.795' and lines['hateful_memes'][-2] == '.516'
    # `compare` has the same, from files.
    again = compare.compare(str(tmp_path), str(PUBLISHED / 'OpenFlamingo-9B.json'))
    lines = {line.split(',')[0].strip(): line.split() for line in again.splitlines() if ' 0 shots ' in line}
    assert lines['coco'][-2] == '.795'
    theirs = results_file.read(tmp_path / 'open_flamingo_random.json')
    assert float(lines['textvqa'][-3]) == pytest.approx(theirs['textvqa', 0], abs=6e-4)
    own = compare.compare(str(tmp_path), str(tmp_path / 'open_flamingo_random.json'))
    assert all(abs(float(line.split()[-1])) <= 1e-3 for line in own.splitlines() if ' shots ' in line)


def test_some_sets_alone_and_the_prompts_of_an_idefics():
    c = idefics.get_config('vizwiz,coco')
    c.data = '/sets'
    assert list(c.tasks) == ['coco', 'vizwiz'] and c.tasks.vizwiz.data == '/sets/vizwiz'
    assert c.tasks.coco.prompts != open_flamingo.get_config('coco').tasks.coco.prompts
    assert c.published.endswith('IDEFICS-9B.json')
    with pytest.raises(ValueError, match="no part 'vqa' after its colon. Its parts are :coco, :flickr30k"):
        open_flamingo.get_config('coco,vqa')


def test_another_file_is_refused_before_anything_is_asked(tmp_path, checkpoint, data):
    c = open_flamingo.get_config('coco')
    c.data, c.published = str(data), str(tmp_path / 'none.json')
    with pytest.raises(FileNotFoundError, match=r'no .*none.json. Give the file of a --results_file'):
        evaluate(c, checkpoint, tmp_path / 'run')
    for wrong in ('[]', '{', '{"coco": [{"shots": 4}]}', '{"coco": 3}', '{"coco": [{"shots": 4, "mean": "x"}]}'):
        (tmp_path / 'wrong.json').write_text(wrong)
        with pytest.raises(UserError, match='is not a results file of OpenFlamingo'):
            results_file.read(tmp_path / 'wrong.json')
