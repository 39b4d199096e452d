"""The paper's 18 benchmarks, read from small files in their official formats."""

import dataclasses
import hashlib
import importlib
import itertools
import json
import pathlib
import shutil

import numpy as np
import pytest

from flamingo_jax.checkpoints import bundle
from flamingo_jax.evaluation import benchmark, metrics, published
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.answers import orders, written
from flamingo_jax.evaluation.benchmark import DEV, Video
from flamingo_jax.evaluation.datasets.next_qa import NExTQA
from flamingo_jax.evaluation.datasets.rareact import sentence
from flamingo_jax.evaluation.datasets.star import STAR
from flamingo_jax.evaluation.datasets.vqav2 import VQAv2
from flamingo_jax.evaluation.episode_prompts import prompt_of
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.prompts import IDEFICS, OPEN_FLAMINGO, Prompts
from flamingo_jax.evaluation.run import evaluate, measure
from flamingo_jax.evaluation.setting import Setting
from flamingo_jax.evaluation.task import make, task
from flamingo_jax.inputs import videos
from flamingo_jax.inputs.images import ImageError, to_frames
from flamingo_jax.inputs.prompts import encode_prompt
from flamingo_jax.model.flamingo import Flamingo
from tests.evaluation import check_official_files
from tests.evaluation.official_files import CLASSES, SETS, image

pytestmark = pytest.mark.usefixtures('quick_compilation')

VIDEOS = {'kinetics700', 'vatex', 'youcook2', 'msvd_qa', 'msrvtt_qa', 'ivqa', 'rareact', 'next_qa', 'star'}
# DEV in the second version of the paper; the first adds ImageNet and Kinetics.
DEV_SETS = {'coco', 'vqav2', 'ok_vqa', 'msvd_qa', 'vatex', 'imagenet', 'kinetics700'}


@pytest.fixture(scope='session')
def pretrained(pretrained):
    """The tiny model, with room for a few examples of any set."""
    c = pretrained.config
    roomy = dataclasses.replace(c, lm=dataclasses.replace(c.lm, context=640))
    return dataclasses.replace(pretrained, model=Flamingo(roomy, pretrained.model.dtype))


@pytest.fixture(scope='session')
def sets(tmp_path_factory):
    """Name -> (folder, what must be read from it), each written when it is first asked for."""
    made = {}

    def get(name):
        if name not in made:
            if name in VIDEOS:
                pytest.importorskip('av')
            folder = tmp_path_factory.mktemp(name)
            made[name] = folder, SETS[name](folder)
        return made[name]

    return get


def config(folder, **changes):
    c = evaluation.base()
    c.data = str(folder)
    c.update(changes)
    return c


def opened(pretrained, folder, of, **fields):
    fields = dict(shots=(0,) if of.support_split == '' else (2,)) | fields
    return make('asked', task(of, **fields).to_dict(), Pools(pretrained, config(folder)))


def episodes(asked, shots=2, support='random'):
    return list(asked.episodes(100, shots, support, asked.answers[0], 0))


def test_a_version_of_vqa_accuracy_that_there_is_not_is_refused_before_files_are_read(pretrained):
    with pytest.raises(ValueError, match="no metric 'vqa_2020'.*'vqa_2016', 'vqa_2021'"):
        opened(pretrained, 'nowhere', VQAv2, accuracy='vqa_2020')


@pytest.mark.usefixtures('ascii_locale')  # Files are UTF-8, whatever the machine's locale.
@pytest.mark.parametrize('name', SETS)
def test_the_official_files_are_read(pretrained, sets, name):
    folder, expected = sets(name)
    asked = opened(pretrained, folder, expected.of)
    shots = asked.shots[0]
    assert asked.scored
    if asked.likelihoods:
        assert asked.metric is expected.metric
    else:  # The same scores, of answers of which some are right.
        given = {id: item.answer if i % 2 else 'a' for i, (id, item) in enumerate((q.id, q) for q in asked._queries)}
        assert asked.metric(given, expected.references) == expected.metric(given, expected.references)
    found = {episode.id: episode for episode in episodes(asked, shots)}
    assert {id: episode.references for id, episode in found.items()} == expected.references
    first = found[next(iter(expected.references))]
    (query,) = first.query
    assert query.text == expected.text
    for episode in found.values():
        (query,) = episode.query
        assert len(episode.support) == shots and query.key not in [part.key for part in episode.support]
        assert episode.clusters == (str(query.key),) and episode.candidates == expected.candidates
        if expected.written:
            spelled = tuple(episode.written.get(c, (c,))[0] for c in episode.candidates)
            assert spelled == expected.written
        else:
            assert not episode.written
    if expected.segment is None:
        assert isinstance(first.query[0].image, pathlib.Path)
    else:
        video = first.query[0].image
        assert isinstance(video, Video) and (video.begin, video.end) == expected.segment
    if shots:
        examples = [asked._example(item).text for item in asked._support]
        assert expected.example in examples
        assert {part.text for episode in found.values() for part in episode.support} <= set(examples)
        asked_about = {episode.query[0].key for episode in found.values()}
        assert not asked_about & {item.file for item in asked._support}


@pytest.mark.parametrize('name', SETS)
def test_its_config_is_a_few_lines(sets, name):
    module = importlib.import_module(f'experiments.evaluate.{name}')
    c = module.get_config()
    fields = c.tasks[name]
    assert issubclass(sets(name)[1].of, fields.asks)
    assert fields.prompts.to_dict() == vars(Prompts())
    assert module.get_config('open_flamingo').tasks[name].prompts.to_dict() == vars(OPEN_FLAMINGO)
    theirs, idefics = (module.get_config(suite).to_dict() for suite in ('open_flamingo', 'idefics'))
    assert vars(IDEFICS) == idefics['tasks'][name].pop('prompts') != theirs['tasks'][name].pop('prompts')
    assert idefics == theirs  # One suite asks both: it reads and scores their answers alike.
    with pytest.raises(ValueError, match="no part 'flamingo' after its colon. Its parts are :paper"):
        module.get_config('flamingo')
    assert ('DEV' in module.__doc__.splitlines()[0]) == (name in DEV_SETS) == (fields.dev_size > 0)
    assert c.num_beams == 3 and (name in VIDEOS) == (c.batch_size == 2)
    assert fields.frames == 30 and fields.a_second == 3.0


@pytest.mark.parametrize('name', sorted(DEV_SETS))
def test_what_may_be_tuned_on_is_training_data(pretrained, sets, name):
    folder, expected = sets(name)
    asked = opened(pretrained, folder, expected.of, query_split=DEV, dev_size=1)
    train = {item.id for item in asked.read(folder, 'train')}
    queries = {episode.id for episode in episodes(asked)}
    assert queries and queries < train
    assert not {item.file for item in asked._queries} & {item.file for item in asked._support}
    again = opened(pretrained, folder, expected.of, query_split=DEV, dev_size=1, support_seed=5)
    assert queries == {episode.id for episode in episodes(again)}


def test_nothing_is_tuned_on_a_held_out_set(pretrained, sets):
    folder, expected = sets('textvqa')
    with pytest.raises(ValueError, match='held out'):
        opened(pretrained, folder, expected.of, query_split=DEV)


def test_a_support_is_so_many_examples_or_so_many_of_each_class(pretrained, sets):
    folder, expected = sets('imagenet')
    asked = opened(pretrained, folder, expected.of, support_size=1)
    assert sorted(item.answer for item in asked._support) == sorted(expected.candidates)
    other = opened(pretrained, folder, expected.of, support_size=1, support_seed=1)
    assert [item.id for item in other._support] != [item.id for item in asked._support]
    folder, expected = sets('vqav2')
    assert len(opened(pretrained, folder, expected.of, support_size=5)._support) == 5


def test_open_flamingos_settings(pretrained, sets):
    """Its examples of ImageNet are of all classes together, and those of COCO without validation images."""
    asked = importlib.import_module('experiments.evaluate.imagenet').get_config('open_flamingo').tasks.imagenet
    assert (asked.shots, asked.support, asked.orders, asked.support_size) == ((0, 4, 8, 16, 32), ('random',), 1, 2048)
    folder, expected = sets('imagenet')
    drawn = opened(pretrained, folder, expected.of, support_size=4, of_each_class=False)
    assert len(drawn._support) == 4
    asked = importlib.import_module('experiments.evaluate.hateful_memes').get_config('open_flamingo').tasks
    assert asked.hateful_memes.query_split == 'dev_seen' and asked.hateful_memes.text_examples_ranked == 2
    folder, expected = sets('coco')
    asked = importlib.import_module('experiments.evaluate.coco').get_config('open_flamingo').tasks.coco
    items = {split: list(expected.of().read(folder, split)) for split in ('train', asked.support_split)}
    assert [item.id for item in items['train']] == ['1', '2', '3', '4', '5', '6']
    assert [item.id for item in items['train2014']] == ['1', '2', '3', '4', '5']


# Prompts.


def test_prompts_of_open_flamingo(pretrained, sets):
    """As its eval_models/open_flamingo.py writes them."""
    folder, expected = sets('vqav2')
    asked = opened(pretrained, folder, expected.of, prompts=OPEN_FLAMINGO)
    first = next(e for e in episodes(asked) if e.id == '210')
    prompt = [item for item in prompt_of(first, lambda part: part.key, pretrained.tokenizer) if isinstance(item, str)]
    # The first annotator's answer, and no spaces.
    assert prompt[-1] == 'Question:What is 0 in 21? Short answer:'
    assert all(text.endswith(' Short answer:perhaps<EOC>\n') for text in prompt[:-1])
    assert asked.read_answer('blue, white Question:') == 'blue' and asked.read_answer('a Short answer') == 'a'

    folder, expected = sets('coco')
    asked = opened(pretrained, folder, expected.of, prompts=OPEN_FLAMINGO)
    assert {part.text for e in episodes(asked) for part in e.query} == {'Output:'}
    assert asked.read_answer('A "red" bus. Output: A') == 'A red bus.'

    folder, expected = sets('hateful_memes')
    asked = opened(pretrained, folder, expected.of, prompts=OPEN_FLAMINGO)
    (first, *_) = [e for e in episodes(asked) if e.id == '2000']
    said = "is an image with: 'look at {this} 2000' written on it. Is it hateful? Answer:"
    assert first.query[0].text == said and first.between == ''
    assert written(first, 'yes', pretrained.tokenizer) == ['yes']


def test_answers_of_the_papers_prompts_end_at_the_next_keyword(pretrained, sets):
    folder, expected = sets('vqav2')
    asked = opened(pretrained, folder, expected.of)
    assert asked.read_answer('a red, old bus Question: what') == 'a red, old bus'
    assert asked.read_answer('') == ''
    folder, expected = sets('coco')
    assert opened(pretrained, folder, expected.of).read_answer('"A" bus. Output: A') == '"A" bus.'


def test_a_template_without_its_field_is_refused():
    with pytest.raises(ValueError, match=r'prompts.question is .* exactly one \{question\}'):
        Prompts(question='Question: {q}')
    with pytest.raises(ValueError, match='prompts.output is .* no fields'):
        Prompts(output='Output: {answer}')


def test_sentences_of_actions():
    assert [sentence(*pair) for pair in (('dry', 'egg'), ('play', 'tv'), ('polish', 'shoe'))] == [
        'a person dries an egg',
        'a person plays a tv',
        'a person polishes a shoe',
    ]


def test_examples_in_several_orders(pretrained, sets):
    """The likelihood is the mean over all orders, whether images are shown or not."""
    folder, expected = sets('hateful_memes')
    asked = opened(pretrained, folder, expected.of, shots=(3,), orders=3)
    (episode, *_) = asked.episodes(1, 3, 'random', 'ranked', 0)
    for step, shown in ((1, None), (2, lambda part: part.key)):
        prompt = prompt_of(episode, shown, pretrained.tokenizer)
        several = orders(prompt, 3, 3)
        parts = {tuple(prompt[i : i + step]) for i in range(0, 3 * step, step)}
        assert len({tuple(one) for one in several}) > 1
        for one in several:
            assert {tuple(one[i : i + step]) for i in range(0, 3 * step, step)} == parts
            assert one[3 * step :] == prompt[3 * step :]
    assert orders(prompt, 3, 1) == [prompt]
    (found,) = asked.answering('ranked', 1, 1)(pretrained, [prompt], [episode])
    scores = [pretrained.score([one], [[' yes<EOC>', ' no<EOC>']])[0] for one in several]
    np.testing.assert_allclose(list(found.values()), np.mean(scores, axis=0), rtol=1e-5)


# Videos.


def test_a_video_is_thirty_frames_of_its_part(pretrained, sets):
    """Of the frames, 40 lighter in each second."""
    folder, expected = sets('star')
    asked = opened(pretrained, folder, expected.of, frames=6)
    (part,) = next(iter(episodes(asked))).query
    frames = part.of.frames(part.image).read()
    size = pretrained.config.image_size
    assert frames.shape == (6, size, size, 3)
    # From 1.2 to 4.0 s: 2.8 s, of which six frames at 3 a second show the middle 2.
    seconds = 1.2 + 0.4 + (np.arange(6) + 0.5) / 3
    np.testing.assert_allclose(frames.mean((1, 2, 3)), 8 * np.floor(5 * seconds + 1e-6), atol=3)  # Frames differ by 8.
    assert part.of.encoded(part.image)[:4] == b'\x89PNG'
    thirty = opened(pretrained, folder, expected.of)
    (part,) = next(iter(episodes(thirty))).query
    assert len(part.of.frames(part.image).read()) == 30


def test_without_examples_a_set_needs_no_training_split(pretrained, sets, tmp_path):
    folder, expected = sets('imagenet')
    shutil.copytree(folder, tmp_path / 'set')
    (train,) = (tmp_path / 'set').rglob('train')
    shutil.rmtree(train)
    for support, answers in (('random', 'compared'), ('rices', 'ranked')):
        asked = opened(pretrained, tmp_path / 'set', expected.of, shots=(0,), support=(support,), answers=(answers,))
        assert all(not episode.support for episode in asked.episodes(5, 0, support, answers, 0))
    with pytest.raises(FileNotFoundError, match='train'):
        opened(pretrained, tmp_path / 'set', expected.of, shots=(2,))


def test_a_video_is_decoded_once(pretrained, sets, monkeypatch):
    """As a question and as an example of others, though each prompt is answered by itself."""
    folder, expected = sets('msvd_qa')
    asked = opened(pretrained, folder, expected.of, frames=2, controls=())
    read = []

    def to_video(file, *how, **where):
        read.append(file)
        return videos.to_video(file, *how, **where)

    monkeypatch.setattr(benchmark, 'to_video', to_video)
    c = evaluation.base()
    c.update(num_beams=1, max_new_tokens=1)
    setting = Setting.of(c, asked, 2, 'random', 'open-ended')
    measure(setting, dataclasses.replace(pretrained), batch_size=1, examples=0)
    shown = {part.image.file for episode in episodes(asked, 2) for part in episode.parts}
    assert sorted(read) == sorted(shown) and len(shown) < sum(len(e.parts) for e in episodes(asked, 2))


# Features for RICES.


def test_features_for_rices_are_kept_until_a_file_or_the_trunk_changes(pretrained, sets, tmp_path, monkeypatch):
    folder, expected = sets('vizwiz')
    shutil.copytree(folder, tmp_path / 'set')
    encoded = []
    encode = type(pretrained).encode

    def counted(self, batch):
        encoded.append(len(batch))
        return encode(self, batch)

    monkeypatch.setattr(type(pretrained), 'encode', counted)

    def shown(trunk):
        model = dataclasses.replace(pretrained, checksums={'vision': trunk} if trunk else {})
        pools = Pools(model, config(tmp_path / 'set', pooled=str(tmp_path / 'kept')))
        asked = make('asked', task(expected.of, shots=(2,), support=('rices',)).to_dict(), pools)
        assert not encoded  # They are computed when the first question is asked.
        found = [[p.key for p in e.parts] for e in episodes(asked, 2, 'rices')]
        encoded_now = len(encoded)
        encoded.clear()
        return encoded_now, found

    times, first = shown('a')
    assert times == 2 and len(list((tmp_path / 'kept').iterdir())) == 2
    assert shown('a') == (0, first)
    assert shown('b')[0] == 2
    assert shown('b') == (0, first)
    image(tmp_path / 'set/val/other.jpg')
    (tmp_path / 'set/val/other.jpg').replace(tmp_path / 'set/val/VizWiz_val_00000001.jpg')
    assert shown('a')[0] == 1  # The examples are the same.
    assert shown('')[0] == 2 and shown('')[0] == 2  # A trunk that may have been trained further.


# Files for evaluation servers, and whole evaluations.


@pytest.fixture(scope='module')
def checkpoint(pretrained, tmp_path_factory):
    """A bundle of the tiny model."""
    path = tmp_path_factory.mktemp('model') / 'bundle'
    bundle.save(path, pretrained.config, pretrained.params, pretrained.tokenizer, pretrained.image_tag, '')
    return path


def run(checkpoint, sets, name, workdir, changes=(), **fields):
    folder, expected = sets(name)
    c = config(folder, **dict(batch_size=4, max_new_tokens=2, num_beams=1) | dict(changes))
    c.tasks[name] = evaluation.task(expected.of, **dict(shots=(1,)) | fields)
    rows = evaluate(c, checkpoint, workdir)
    return rows, {file.name: json.loads(file.read_text()) for file in sorted((workdir / 'results').glob('*'))}


SERVERS = [
    ('vqav2', 'test-dev', lambda found: found[0].keys() == {'question_id', 'answer'} and len(found) == 8),
    ('vizwiz', 'test', lambda found: found[0].keys() == {'image', 'answer'} and len(found) == 4),
    ('coco', 'test2014', lambda found: found[0].keys() == {'image_id', 'caption'} and found[0]['image_id'] == 77),
    ('vatex', 'private_test', lambda found: len(found) == 4 and found.keys() >= {'priv-_0_000000_000010'}),
]
SERVERS[1:] = [pytest.param(*one, marks=pytest.mark.long) for one in SERVERS[1:]]


@pytest.mark.parametrize('name, split, right', SERVERS)
def test_answers_that_only_a_server_can_score(checkpoint, sets, tmp_path, capsys, name, split, right):
    rows, files = run(checkpoint, sets, name, tmp_path, query_split=split)
    assert [row.scores for row in rows] == [{}]
    ((file, found),) = files.items()
    assert file == f'{name}_open-ended_random_1_shots_seed_0.json' and right(found)
    said = capsys.readouterr()
    assert 'not published, so there is no score' in said.out + said.err
    assert 'the right answers are not published' in (tmp_path / 'report.txt').read_text()
    if name == 'vqav2':  # Its server wants an answer to every question of test.
        folder, _ = sets(name)
        every = json.loads((folder / 'v2_OpenEnded_mscoco_test2015_questions.json').read_text())['questions']
        assert [one['question_id'] for one in found] == [one['question_id'] for one in every]
        assert {one['answer'] for one in found[3:]} == {''}


@pytest.mark.long
def test_an_evaluation_of_open_ended_answers(checkpoint, sets, tmp_path):
    changes = dict(write_prompts=True)
    rows, files = run(checkpoint, sets, 'vqav2', tmp_path, changes, shots=(0, 2), support=('rices',))
    assert [row.shots for row in rows] == [0, 2] and all(row.episodes == 8 for row in rows)
    for row in rows:
        assert {'model', 'shuffled images', 'text only'} == set(row.scores)
    # The file of the server holds what was scored.
    found = {str(one['question_id']): one['answer'] for one in files['vqav2_open-ended_rices_2_shots_seed_0.json']}
    value, _ = metrics.score('vqa', found, sets('vqav2')[1].references)
    assert rows[1].scores['model'].value == pytest.approx(value)
    # Every prompt as it was sent.
    lines = (tmp_path / 'prompts/vqav2_open-ended_rices_2_shots_seed_0.jsonl').read_text().splitlines()
    lines = [json.loads(line) for line in lines]
    assert len(lines) == 3 * 8 and all(isinstance(line['answer'], str) for line in lines)
    prompts, shuffled, alone = (
        {line['id']: line for line in lines if line['way'] == way} for way in ('model', 'shuffled images', 'text only')
    )
    assert {id: line['answer'] for id, line in prompts.items()} == found
    one = prompts['210']
    assert [type(item) for item in one['prompt']] == [dict, str] * 3 and one['truth'] == 'thing 210'
    assert one['prompt'][1].endswith('<EOC>') and one['prompt'][-1] == ' Question: What is 0 in 21? Answer:'
    assert pathlib.Path(one['prompt'][-2]['image']).name == 'COCO_val2014_000000000021.jpg'
    assert alone['210']['prompt'] == [item for item in one['prompt'] if isinstance(item, str)]
    assert any(shuffled[id]['prompt'] != prompts[id]['prompt'] for id in prompts)
    assert all(shuffled[id]['prompt'][1::2] == prompts[id]['prompt'][1::2] for id in prompts)


def test_a_report_says_what_was_evaluated(checkpoint, sets, tmp_path):
    """Which weights, which annotation files, and how many videos had vanished."""
    folder, expected = sets('vatex')
    shutil.copytree(folder, tmp_path / 'set')
    (tmp_path / 'set/videos/test-_1_000001_000011.mp4').unlink()
    moved = dict(vatex=(tmp_path / 'set', expected)).__getitem__
    run(checkpoint, moved, 'vatex', tmp_path / 'out', skip_missing=True, shots=(0,), controls=())
    about = json.loads((tmp_path / 'out/report.json').read_text())['about']
    assert about['checksums'] == bundle.read(checkpoint).checksums and about['checksums']['lm']
    files = {pathlib.Path(file).name: file for file in about['annotations']['vatex']}
    assert {'vatex_training_v1.0.json', 'vatex_public_test_english_v1.1.json'} == files.keys()
    for file in files.values():
        assert about['annotations']['vatex'][file] == hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest()
    assert about['left_out'] == {'vatex': {'test': {'questions': 1, 'files': 1}}}
    said = "vatex: 1 questions of the split 'test' are left out, since 1 files are missing or damaged."
    assert said in (tmp_path / 'out/report.txt').read_text()


@pytest.mark.parametrize(
    'name, fields',
    [
        ('vqav2', dict(shots=(0, 1))),
        pytest.param('coco', {}, marks=pytest.mark.long),
        ('hateful_memes', dict(orders=2)),
        pytest.param('visdial', dict(shots=(0,)), marks=pytest.mark.long),
        pytest.param('star', {}, marks=pytest.mark.long),
        pytest.param('rareact', dict(shots=(0,)), marks=pytest.mark.long),
    ],
)
def test_an_evaluation_can_be_scored_again_from_its_queries_alone(checkpoint, sets, tmp_path, name, fields):
    rows, _ = run(checkpoint, sets, name, tmp_path, controls=(), **fields)
    lines = [json.loads(line) for line in (tmp_path / 'queries.jsonl').read_text().splitlines()]
    for row in rows:
        own = {line['id']: line for line in lines if line['shots'] == row.shots}
        assert len(own) == row.episodes and {line['metric'] for line in own.values()}
        (metric,) = {line['metric'] for line in own.values()}
        given = {id: line.get('likelihoods', line.get('found', line['answer'])) for id, line in own.items()}
        value, each = metrics.score(metric, given, {id: line['references'] for id, line in own.items()})
        assert value == pytest.approx(row.scores['model'].value)
        assert each == pytest.approx({id: line['score'] for id, line in own.items()})
        shown = row.shots or (2 if row.answers == 'open-ended' else 0)
        assert {len(line['examples']) for line in own.values()} == {shown}
        assert all(line['truth'] or name == 'rareact' for line in own.values())
    if shown:
        folder, expected = sets(name)
        ids = {item.id for item in expected.of().read(folder, 'train')}
        assert {id for line in own.values() for id in line['examples']} <= ids


def test_scores_by_type_are_printed_as_by_the_sets_own_scripts(checkpoint, sets, tmp_path, capsys):
    run(checkpoint, sets, 'vqav2', tmp_path, controls=(), shots=(0,))
    lines = [json.loads(line) for line in (tmp_path / 'queries.jsonl').read_text().splitlines()]
    assert {tuple(line['types'].items()) for line in lines} == {
        (('question type', 'what is'), ('answer type', 'other'))
    }
    of = f'{100 * np.mean([line["score"] for line in lines]):.2f}'
    said = f"""Overall Accuracy is: {of}

Per Question Type Accuracy is the following:
what is : {of}

Per Answer Type Accuracy is the following:
other : {of}
"""
    assert said in (tmp_path / 'report.txt').read_text() and said in capsys.readouterr().out
    two = [
        (dict(zip(('question type', 'answer type'), types, strict=True)), score)
        for types, score in ((('is', 'yes/no'), 1.0), (('how many', 'number'), 0.3), (('is', 'yes/no'), 0.0))
    ]
    assert VQAv2().by_type(two).splitlines() == [
        *('Overall Accuracy is: 43.33', '', 'Per Question Type Accuracy is the following:', 'how many : 30.00'),
        *('is : 50.00', '', 'Per Answer Type Accuracy is the following:', 'number : 30.00', 'yes/no : 50.00'),
    ]
    scores = dict(CW=1, CH=0, TN=0, TP=1, TC=1, DB=1, DC=0, DL=0.25)
    typed = [({'question type': name}, float(score)) for name, score in scores.items()]
    assert NExTQA().by_type(typed).split('\n') == [
        'CW\tCH\tWUPS_C\tTPN\tTC\tWUPS_T\tDB\tDC\tDL\tDO\tWUPS_D\tWUPS',
        '100.00\t0.00\t50.00\t50.00\t100.00\t66.67\t100.00\t0.00\t25.00\t-\t41.67\t53.12',
    ]
    scores = dict(Interaction=(1, 0), Sequence=(1,), Prediction=(0, 0, 0), Feasibility=(1,))
    typed = [({'question type': name}, float(score)) for name, some in scores.items() for score in some]
    assert STAR().by_type(typed) == (
        'Interaction\tSequence\tPrediction\tFeasibility\tMean\n50.00\t100.00\t0.00\t100.00\t62.50'
    )


def test_images_of_another_size_than_in_training(pretrained):
    larger = pretrained.at(24)
    assert larger.image_format.size == 24 and larger.config.vision == pretrained.config.vision
    frames = np.random.default_rng(0).integers(0, 256, (1, 24, 24, 3), np.uint8)
    assert larger.features(frames).shape[1] == larger.image_format.spatial > pretrained.image_format.spatial
    with pytest.raises(ValueError, match='image_size is -3'):
        pretrained.at(-3)


@pytest.mark.long
@pytest.mark.parametrize('name, fields', [('vatex', {}), ('visdial', dict(orders=2)), ('rareact', dict(shots=(0,)))])
def test_the_batch_size_changes_no_report(checkpoint, sets, tmp_path, name, fields):
    """Videos, likelihoods of many candidates, and other numbers of them in a batch."""
    both = [run(checkpoint, sets, name, tmp_path / str(n), dict(batch_size=n), **fields) for n in (1, 16)]
    (alone,), (together,) = both[0][0], both[1][0]
    assert {id: q['answer'] for id, q in alone.queries.items()} == {i: q['answer'] for i, q in together.queries.items()}
    assert alone.scores.keys() == together.scores.keys() and both[0][1] == both[1][1]
    for kind, score in alone.scores.items():
        assert score.value == pytest.approx(together.scores[kind].value, abs=1e-6)


@pytest.mark.long
def test_an_evaluation_with_larger_images(checkpoint, sets, tmp_path):
    rows, _ = run(checkpoint, sets, 'coco', tmp_path, dict(image_size=24))
    assert rows[0].episodes == 2


# What bad input gets.


def test_too_many_shots_are_told_before_with_the_number_that_fits(checkpoint, pretrained, sets, tmp_path):
    with pytest.raises(ValueError, match='exceed the context of 640 tokens') as raised:
        run(checkpoint, sets, 'vqav2', tmp_path, dict(max_new_tokens=400), shots=(8,))
    (said,) = [word for word in str(raised.value).split('At most ')[1:]]
    fits = int(said.split()[0])
    folder, expected = sets('vqav2')

    def longest(shots):
        asked = opened(pretrained, folder, expected.of, shots=(shots,))
        prompts = [prompt_of(e, lambda part: part.key, pretrained.tokenizer) for e in episodes(asked, shots)]
        return max(len(encode_prompt(p, pretrained.tokenizer, pretrained.image_format)[0]) for p in prompts)

    assert 0 < fits < 8 and longest(fits) + 400 <= 640 < longest(fits + 1) + 400
    assert not (tmp_path / 'unfinished.jsonl').exists()


def keep_lines(file, text):
    """Those with this text."""
    file.write_text('\n'.join(line for line in file.read_text().splitlines() if text in line))


def changed_json(path, change):
    value = json.loads(path.read_text())
    path.write_text(json.dumps(change(value) or value))


def repeat(key):
    return lambda value: (value[key] if key else value).append((value[key] if key else value)[0])


BAD = [
    # Missing or renamed annotation files.
    (
        'coco',
        lambda f: (f / 'dataset_coco.json').rename(f / 'dataset_coco_2014.json'),
        'There is no .*dataset_coco.json.* Perhaps it is there as dataset_coco_2014.json',
    ),
    ('vizwiz', lambda f: shutil.rmtree(f / 'Annotations'), 'There is no .*train.json, nor Annotations/train.json'),
    ('vqav2', lambda f: (f / 'v2_mscoco_val2014_annotations.json').unlink(), 'no .*v2_mscoco_val2014_annotations'),
    ('rareact', shutil.rmtree, 'There is no folder'),
    # A file of another format.
    ('textvqa', lambda f: (f / 'TextVQA_0.5.1_val.json').write_text('{"data": 3'), 'cannot be read: .*Download'),
    ('textvqa', lambda f: (f / 'TextVQA_0.5.1_val.json').write_text('[]'), "has no 'data'"),
    ('hateful_memes', lambda f: (f / 'train.jsonl').write_text('{"id": 1}\n'), "record 0 has no 'img'; it has"),
    ('next_qa', lambda f: (f / 'test.csv').write_text('video,qid\n1,2\n'), "record 0 has no 'question'"),
    (
        'hateful_memes',
        lambda f: keep_lines(f / 'test_seen.jsonl', '"label": 1'),
        "have the label 'yes', and ROC AUC needs both labels",
    ),
    # An image that is not there.
    (
        'vizwiz',
        lambda f: (f / 'val/VizWiz_val_00000002.jpg').unlink(),
        'VizWiz_val_00000002.jpg of question .* is missing. Put it there',
    ),
    ('vatex', lambda f: (f / 'videos/test-_1_000001_000011.mp4').unlink(), 'set skip_missing=True'),
    # Two answers for one id, or none.
    (
        'vqav2',
        lambda f: changed_json(f / 'v2_mscoco_val2014_annotations.json', repeat('annotations')),
        'two records with the question_id 241',
    ),
    ('vizwiz', lambda f: changed_json(f / 'Annotations/val.json', repeat('')), 'two records with the image VizWiz'),
    (
        'ok_vqa',
        lambda f: changed_json(f / 'mscoco_val2014_annotations.json', lambda v: v['annotations'].pop() and None),
        'must have the same questions, but 1 are in only one',
    ),
    (
        'star',
        lambda f: changed_json(f / 'STAR_val.json', lambda v: v[0].pop('answer') and None),
        '1 of 3 questions of the split .val. have no answer, Interaction_T1_4',
    ),
    (
        'star',
        lambda f: changed_json(f / 'STAR_val.json', lambda v: v[0].update(answer='The sofa.')),
        "'The sofa.', which is none of the choices",
    ),
    # Classes of another order, without their ids.
    (
        'imagenet',
        lambda f: (f / 'LOC_synset_mapping.txt').write_text('tench\ncrane\n'),
        "line 1 is 'tench'. .* could be of another order",
    ),
    (
        'imagenet',
        lambda f: (f / 'LOC_synset_mapping.txt').write_text(CLASSES.replace('n03126707', 'n03126708')),
        "class 'n03126707', which the list of classes does not name",
    ),
    (
        'visdial',
        lambda f: changed_json(f / 'visdial_1.0_val_dense_annotations.json', lambda v: v[0].update(gt_relevance=[1.0])),
        'the image 11 must have a relevance for each of 5 answers',
    ),
    (
        'visdial',
        lambda f: changed_json(f / 'visdial_1.0_val.json', lambda v: v['data']['dialogs'][0].pop('caption') and None),
        "not as the set publishes them: KeyError, 'caption'",
    ),
    (
        'vqav2',
        lambda f: changed_json(
            f / 'v2_OpenEnded_mscoco_val2014_questions.json', lambda v: v['questions'][0].update(image_id='one')
        ),
        "the split 'val' in .* not as the set publishes them: ValueError, invalid literal .* 'one'",
    ),
    # Examples that show what is asked.
    (
        'textvqa',
        lambda f: shutil.copy(f / 'TextVQA_0.5.1_train.json', f / 'TextVQA_0.5.1_val.json'),
        r"'val' \(asked\) and 'train' \(examples\) share 4 images",
    ),
    (
        'vqav2',  # The images of its splits are in other folders.
        lambda f: [
            shutil.copy(f / f'v2_{name.format("val")}.json', f / f'v2_{name.format("train")}.json')
            for name in ('OpenEnded_mscoco_{}2014_questions', 'mscoco_{}2014_annotations')
        ],
        r"'val' \(asked\) and 'train' \(examples\) share . questions, such as",
    ),
]


@pytest.mark.parametrize('name, spoil, message', BAD)
def test_files_that_are_not_as_the_set_has_them(pretrained, sets, tmp_path, name, spoil, message):
    folder, expected = sets(name)
    shutil.copytree(folder, tmp_path / 'set')
    spoil(tmp_path / 'set')
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        opened(pretrained, tmp_path / 'set', expected.of)


def test_a_list_of_classes_in_another_order_is_the_same(pretrained, sets, tmp_path):
    folder, expected = sets('imagenet')
    shutil.copytree(folder, tmp_path / 'set')
    lines = CLASSES.splitlines(keepends=True)
    for order in itertools.permutations(lines):
        (tmp_path / 'set/LOC_synset_mapping.txt').write_text(''.join(order))
        asked = opened(pretrained, tmp_path / 'set', expected.of)
        assert {e.id: (e.references, e.candidates) for e in episodes(asked)} == {
            id: (references, expected.candidates) for id, references in expected.references.items()
        }


def test_classes_in_folders_and_in_several_words(pretrained, sets, tmp_path):
    """The layout of most copies of ImageNet, with a list of names of one's own."""
    folder, expected = sets('imagenet')
    root = folder / 'ILSVRC/Data/CLS-LOC/train'
    for i, path in enumerate(sorted(root.rglob('*.JPEG'))):
        to = tmp_path / ('val' if i % 4 == 0 else 'train') / path.parent.name
        to.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    names = {'n01440764': 'fish', 'n02012849': 'bird', 'n03126707': 'machine'}
    (tmp_path / 'classes.txt').write_text(''.join(f'{key} {name}\n' for key, name in names.items()))
    asked = opened(pretrained, tmp_path, expected.of, class_prompts=('{}', 'a photo of a {}.'))
    found = {e.id: e for e in episodes(asked)}
    assert {id: e.references for id, e in found.items()} == {f'{key}_0': (name,) for key, name in names.items()}
    (episode, *_) = found.values()
    assert written(episode, 'bird', pretrained.tokenizer) == [' bird<EOC>', ' a photo of a bird.<EOC>']
    assert {part.text for part in episode.support} <= {f' Output: {name}' for name in names.values()}


def test_a_set_of_many_images_holds_its_classes_once(pretrained, sets):
    """A training split has a million images of a thousand classes."""
    folder, expected = sets('imagenet')
    first, *others = opened(pretrained, folder, expected.of)._queries
    assert others and all(item.candidates is first.candidates and item.written is first.written for item in others)


@pytest.mark.parametrize('suffix', ['csv', 'jsonl'])
@pytest.mark.parametrize('mark', ['\u2028', '\x85', '\x0b'])
def test_a_text_may_have_any_mark_that_python_takes_for_the_end_of_a_line(tmp_path, suffix, mark):
    text, file = f'a dog{mark}a cat', tmp_path / f'a.{suffix}'
    line = json.dumps(dict(id='1', text=text), ensure_ascii=False) if suffix == 'jsonl' else f'id,text\n1,{text}'
    file.write_text(line + '\n', encoding='utf-8')
    assert published.read(file) == [dict(id='1', text=text)]


def test_one_id_of_two_questions_becomes_two_ids(pretrained, sets, tmp_path):
    """NExT-OE's train.csv has three such ids. A question that is there twice stays a mistake."""
    folder, expected = sets('next_qa')
    shutil.copytree(folder, tmp_path / 'set')
    file = tmp_path / 'set/train.csv'
    text = file.read_text()
    last = text.splitlines()[-1]
    file.write_text(text + last.replace('why did the dog 4 run', 'is the dog old') + '\n')
    asked = opened(pretrained, tmp_path / 'set', expected.of)
    texts = {item.id: item.text for item in asked._support}
    first, second = texts['4082401494_0'], texts['4082401494_0_2']
    assert 'why did the dog 4 run?' in first and 'is the dog old?' in second and len(texts) == 5
    file.write_text(text + last + '\n')
    with pytest.raises(ValueError, match="has the question '4082401494_0' twice"):
        opened(pretrained, tmp_path / 'set', expected.of)


def test_next_qa_needs_no_more_answers_than_the_set_publishes(pretrained, sets, tmp_path):
    """There is an add_reference_answer_test.json, and none of val."""
    folder, expected = sets('next_qa')
    shutil.copytree(folder, tmp_path / 'set')
    (tmp_path / 'set/test.csv').rename(tmp_path / 'set/val.csv')
    asked = opened(pretrained, tmp_path / 'set', expected.of, query_split='val')
    assert [item.references.keys() for item in asked._queries] == [{'answer', 'type'}] * 4


VERBS = """
    blend:blends close:closes cut:cuts deseed:deseeds drill:drills drink:drinks drop:drops fry:fries hammer:hammers
    measure:measures microwave:microwaves move:moves open:opens peel:peels roll:rolls shake:shakes spray:sprays
    throw:throws unplug:unplugs wash:washes weigh:weighs
""".split()
# The nouns of all 149 actions, with their articles; those without any are written as they stand, but for clothes.
NOUNS = """
    a banana, a bicycle, a blender, a book, a bottle, a car, a carrot, a chair, a coconut, a cookie, a cucumber, a cup,
    a door, a flower, a fridge, a keyboard, a laptop, a lemon, a microwave, a pepper, a phone, a pizza, a potato,
    a pumpkin, a rock, a shirt, a spoon, a table, a tomato, a towel, a tree, a watermelon, a window, an apple, an egg,
    an orange, an oven, bacon, carrots, chocolate, clothes, corn, eggs, hair, shoes
"""


def test_the_actions_of_rareact_are_sentences():
    nouns = [noun.strip() for noun in NOUNS.split(',')]
    assert len(nouns) == 45 and len(VERBS) == 21
    for verb, third in (pair.split(':') for pair in VERBS):
        for noun in nouns:
            bare = noun.split()[-1]
            assert sentence(verb, 'clothe' if bare == 'clothes' else bare) == f'a person {third} {noun}'


def test_videos_that_have_vanished_can_be_left_out(pretrained, sets, tmp_path, capsys):
    folder, expected = sets('vatex')
    shutil.copytree(folder, tmp_path / 'set')
    (tmp_path / 'set/videos/test-_1_000001_000011.mp4').unlink()
    (tmp_path / 'set/videos/trai-_0_000000_000010.mp4').unlink()
    asked = opened(pretrained, tmp_path / 'set', expected.of, skip_missing=True)
    assert len(episodes(asked)) == 3 and len(asked._support) == 3
    said = capsys.readouterr()
    assert "1 of 4 questions of the split 'test' are left out" in said.out + said.err


def test_one_split_for_both_shows_other_images_only(pretrained, sets):
    folder, expected = sets('vqav2')
    asked = opened(pretrained, folder, expected.of, support_split='val')
    for episode in episodes(asked):
        assert episode.query[0].key not in [part.key for part in episode.support]


def test_a_segment_beyond_the_video_is_named(pretrained, sets, tmp_path):
    folder, expected = sets('ivqa')
    shutil.copytree(folder, tmp_path / 'set')
    text = (tmp_path / 'set/test.csv').read_text().replace(',1,4,', ',60,70,')
    (tmp_path / 'set/test.csv').write_text(text)
    (part,) = episodes(opened(pretrained, tmp_path / 'set', expected.of))[0].query
    with pytest.raises(ImageError, match=r'vid\d.mp4 has 6.0 seconds: there is nothing from 60.0 to 70.0 s'):
        to_frames(part.of.frames(part.image), 16)


def test_the_check_of_official_files_reads_all_of_them_and_tells_what_is_refused(sets, tmp_path, capsys):
    """Without a video or an image: as a developer has the annotations."""
    for name in ('next_qa', 'vqav2', 'star', 'msvd_qa', 'rareact'):
        folder, _ = sets(name)
        suffixes = ('.csv', '.json', '.jsonl', '.txt')
        (tmp_path / name).mkdir()
        for file in folder.iterdir():
            if file.suffix in suffixes:
                shutil.copy(file, tmp_path / name)
    assert check_official_files.main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert 'next_qa test: 4 questions about 4 images or videos, 4 with answers' in said
    assert 'next_qa val: not read. There is no val.csv' in said
    assert 'vqav2 test-dev: 3 questions about 2 images or videos, 0 with answers' in said
    assert 'rareact test: 4 questions about 2 images or videos, 4 with answers' in said
    file = tmp_path / 'next_qa/test.csv'
    file.write_text(file.read_text() + file.read_text().splitlines()[-1] + '\n')
    assert check_official_files.main([str(tmp_path)]) == 1
    assert "next_qa test: REFUSED. the split 'test' of" in capsys.readouterr().out
