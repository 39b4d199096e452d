"""A benchmark from its own files: easy-VQA's, six images of them, in the format of the package."""

import itertools
import json
import shutil

import flax.linen as nn
import jax
import numpy as np
import PIL.Image
import pytest
from ml_collections import ConfigDict

from experiments.evaluate import easy_vqa
from flamingo_jax.checkpoints import bundle
from flamingo_jax.evaluation.datasets.easy_vqa import EasyVQA
from flamingo_jax.evaluation.episode_prompts import frames, prompt_of
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.rices import read_clip
from flamingo_jax.evaluation.run import evaluate, measure
from flamingo_jax.evaluation.setting import Setting
from flamingo_jax.evaluation.task import make, task
from flamingo_jax.inputs.images import ImageError, to_frames
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.model.vision.clip_embedding import ClipEmbeddingConfig
from flamingo_jax.model.vision.vit import ViTConfig
from flamingo_jax.tasks.names import Names
from tests.tiny_run import SAMPLE

pytestmark = pytest.mark.usefixtures('quick_compilation')

# As in the package: answers.txt, and the first questions of its images.
ANSWERS = 'circle green red gray yes teal black rectangle yellow triangle brown blue no'.split()
COLOURS = dict(red=(200, 20, 20), blue=(20, 20, 200), green=(20, 160, 20))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Six images to learn from, four to be asked about; two questions each."""
    folder = tmp_path_factory.mktemp('easy_vqa')
    (folder / 'answers.txt').write_text('\n'.join(ANSWERS))
    for split, number in (('train', 6), ('test', 4)):
        (folder / split / 'images').mkdir(parents=True)
        questions = []
        for i in range(number):
            colour = list(COLOURS)[i % 3]
            pixels = np.full((64, 64, 3), 250, np.uint8)
            pixels[8 + i : 40, 8:40] = COLOURS[colour]
            PIL.Image.fromarray(pixels).save(folder / split / 'images' / f'{i}.png')
            questions.append(['what color is the shape?', colour, i])
            questions.append(['is there a red shape?', 'yes' if colour == 'red' else 'no', i])
        (folder / split / 'questions.json').write_text(json.dumps(questions))
    return folder


def config(data, **fields) -> ConfigDict:
    c = easy_vqa.get_config()
    c.data = str(data)
    c.episodes, c.batch_size, c.max_new_tokens = 100, 3, 2
    c.tasks.easy_vqa.update(fields)
    return c


@pytest.fixture
def pools(pretrained, data):
    return Pools(pretrained, config(data))


@pytest.mark.parametrize('name', ['seeds', 'episodes', 'frames', 'batch_size', 'max_new_tokens', 'num_beams'])
def test_a_number_that_makes_no_sense_is_refused_at_once(data, tmp_path, name):
    c = config(data)
    c[name] = 0
    with pytest.raises(ValueError, match=f'config.{name} is 0. It must be 1 or more'):
        evaluate(c, 'no checkpoint', tmp_path)


@pytest.mark.parametrize('title', ['a b', 'a_b', 'a: b'])
def test_tasks_whose_files_would_have_one_name_are_refused_at_once(data, tmp_path, title):
    c = config(data, title='a b')
    c.tasks.other = task(EasyVQA, title=title)
    with pytest.raises(ValueError, match=f'titles .*a b.* and {title!r}, .* another title'):
        evaluate(c, 'no checkpoint', tmp_path)


def easy(pools, **fields):
    return make('easy_vqa', task(EasyVQA, **dict(shots=(0, 2)) | fields).to_dict(), pools)


def test_every_question_is_asked_once_with_examples_of_other_images(pools):
    for splits in (dict(), dict(support_split='test')):
        asked = easy(pools, **splits)
        episodes = list(asked.episodes(100, 2, 'random', 'ranked', 0))
        assert sorted(e.id for e in episodes) == sorted(map(str, range(8)))
        for e in episodes:
            (query,) = e.query
            assert query.text in (
                ' Question: what color is the shape? Answer:',
                ' Question: is there a red shape? Answer:',
            )
            assert e.candidates == tuple(ANSWERS) and e.references == (e.truth,) and e.clusters == (str(query.image),)
            assert len(e.support) == 2 and query.image not in [part.image for part in e.support]
            for part in e.support:
                assert part.text.rsplit(' ', 1)[1] in ANSWERS
    few = list(asked.episodes(3, 2, 'random', 'ranked', 0))
    assert few == episodes[:3]
    # The same examples for all queries: more begin with fewer, and one that shows a query's image is left out.
    for splits in (dict(), dict(support_split='test')):
        asked = easy(pools, support=('fixed',), **splits)
        two, three = (list(asked.episodes(100, shots, 'fixed', 'ranked', 0)) for shots in (2, 3))
        assert all(b.support[:2] == a.support for a, b in zip(two, three, strict=True))
        alike = {tuple(part.key for part in e.support) for e in two}
        assert len(alike) == 1 if not splits else 1 < len(alike) < 4
        assert all(e.query[0].image not in [part.image for part in e.support] for e in two)
        others = {e.support for e in asked.episodes(100, 2, 'fixed', 'ranked', 1)}
        assert others != {e.support for e in two}
    asked = easy(pools, support_split='test')
    other = list(asked.episodes(100, 2, 'random', 'ranked', 1))  # A seed draws examples, not queries.
    assert [e.id for e in other] == [e.id for e in episodes] and [e.support for e in other] != [
        e.support for e in episodes
    ]
    zero = list(asked.episodes(100, 0, 'random', 'ranked', 0))
    assert [e.query for e in zero] == [e.query for e in episodes]


def test_an_image_that_vanishes_changes_no_other_prompt(pretrained, data, tmp_path):
    """Videos vanish from YouTube. The prompts that did not show it stay, and so do the answers that are kept."""
    folder = tmp_path / 'set'
    shutil.copytree(data, folder)

    def asked():
        one = easy(Pools(pretrained, config(folder)), skip_missing=True, support=('random', 'fixed'), support_size=0)
        return {
            (support, e.id): [(part.image, part.text) for part in e.parts]
            for support in ('random', 'fixed')
            for e in one.episodes(100, 2, support, 'ranked', 0)
        }

    before = asked()
    (gone,) = {before['random', '0'][0][0]}
    gone.unlink()
    query = before['random', '0'][-1][0]
    after = asked()
    stay = {key for key, parts in before.items() if gone not in [image for image, _ in parts]}
    assert after.keys() == before.keys() and stay and all(after[key] == before[key] for key in stay)
    query.unlink()
    assert list(asked()) == [key for key in after if after[key][-1][0] != query]  # In the same order.


def test_a_damaged_image_is_left_out_or_named_with_a_remedy(pretrained, data, tmp_path, capsys):
    folder = tmp_path / 'set'
    shutil.copytree(data, folder)
    for name, content in (('0', b''), ('1', b'<html>404</html>')):
        (folder / f'test/images/{name}.png').write_bytes(content)
    asked = easy(Pools(pretrained, config(folder)), skip_missing=True)
    assert {e.query[0].image.name for e in asked.episodes(100, 2, 'random', 'ranked', 0)} == {'2.png', '3.png'}
    said = capsys.readouterr()
    assert "4 of 8 questions of the split 'test' are left out" in said.out + said.err
    asked = easy(Pools(pretrained, config(folder)))  # They are found when they are read.
    with pytest.raises(ImageError, match=r'.png is not an image .* replace it .* skip_missing=True'):
        measure(Setting.of(config(folder), asked, 0, 'random', 'ranked'), pretrained)


def test_a_folder_in_a_bucket_is_refused(pools):
    with pytest.raises(ValueError, match='gs://bucket/vqa is in a bucket. Copy the published files to this machine'):
        easy(pools, data='gs://bucket/vqa')


def test_pools_are_encoded_when_they_are_needed(pretrained, data, monkeypatch):
    """All tasks are checked first, which takes seconds; to encode the images of one may take hours."""
    encoded, encode = [], type(pretrained).encode
    monkeypatch.setattr(type(pretrained), 'encode', lambda *args: encoded.append(1) or encode(*args))
    pools = Pools(pretrained, config(data))
    one = make('names', task(Names, data=SAMPLE, support=('rices',), shots=(1,)).to_dict(), pools)
    assert not encoded
    first = list(one.episodes(2, 1, 'rices', 'ranked', 0))
    assert encoded and len({*pools.open('test', SAMPLE).rows}) == len(pools.open('test', SAMPLE).images.images)
    once = len(encoded)
    assert list(one.episodes(2, 1, 'rices', 'ranked', 0)) == first and len(encoded) == once


def test_frames_that_no_image_has_are_refused(pretrained, data):
    c = config(data)
    c.frames = 8
    with pytest.raises(ValueError, match="split 'test' of .* has no images of 8 frames. Set config.frames"):
        Pools(pretrained, c).open('test', SAMPLE)


def test_rices_shows_the_images_most_like_the_query(pretrained, data, pools):
    asked = easy(pools, support=('rices',))
    about = config(data)
    about.episodes = 3
    few = easy(Pools(pretrained, about), support=('rices',))
    assert list(few.episodes(3, 2, 'rices', 'ranked', 0)) == list(asked.episodes(3, 2, 'rices', 'ranked', 0))
    assert [len(rows) for rows in few._rows] == [3, len(asked._support)]  # Others are not encoded.
    for episode in asked.episodes(8, 2, 'rices', 'ranked', 0):
        rows = pools.pooled([part.image for part in (*episode.query, *episode.support)], asked._files)
        all_rows = pools.pooled([item.image for item in asked._support], asked._files)
        likeness = np.sort(all_rows @ rows[0])
        np.testing.assert_allclose(rows[1:] @ rows[0], likeness[-2:], atol=1e-5)


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    """The bundle of a tiny CLIP with random weights."""
    config = FlamingoConfig(vision=CLIP, image_size=28)
    params = nn.meta.unbox(jax.jit(Flamingo(config).init)(jax.random.key(0)))
    folder = tmp_path_factory.mktemp('clip') / 'bundle'
    bundle.save(folder, config, params, tokenizer=None, image_tag=None, card='')
    return folder


CLIP = ClipEmbeddingConfig(ViTConfig(width=32, depth=1, heads=2, ffw_width=32, resolution=28), 16)


def test_rices_by_clip_searches_the_whole_split(pretrained, data, clip, tmp_path):
    """Not those alone that random examples are drawn from; and the model's own trunk plays no part."""
    about = config(data)
    about.clip, about.pooled = str(clip), str(tmp_path / 'kept')
    fields = dict(support=('random', 'rices by clip'), shots=(0, 2), support_size=2, text_examples=2)
    asked = easy(Pools(pretrained, about), **fields, answers=('open-ended',))
    assert len(asked._support) == 2
    who, items = read_clip(clip), asked._read(asked._whole_support[0].file.parents[2], 'train')

    def vector(file):
        found = who.encode(to_frames(file, 28, 'crop')[None])[0, 0, 0]
        return found / np.linalg.norm(found)

    vectors = {item.file: vector(item.file) for item in items}
    found = set()
    for shots in (2, 0):
        for episode in asked.episodes(8, shots, 'rices by clip', 'open-ended', 0):
            likeness = {file: float(row @ vector(episode.query[0].image)) for file, row in vectors.items()}
            best = max(likeness, key=likeness.get)  # It has both examples, since it has two questions.
            texts = [f'{item.text} {item.answer}' for item in items if item.file == best]
            assert [part.text for part in episode.support] == texts[::-1]
            assert [part.image for part in episode.support] == ([best] * 2 if shots else [None] * 2)
            found.add(best)
    assert len(found) > 1 and not found <= {item.file for item in asked._support}
    # They are computed once.
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / 'kept').iterdir()}
    again = easy(Pools(pretrained, about), **fields, answers=('open-ended',))
    assert list(again.episodes(8, 2, 'rices by clip', 'open-ended', 0)) == list(
        asked.episodes(8, 2, 'rices by clip', 'open-ended', 0)
    )
    assert kept == {file: file.stat().st_mtime_ns for file in (tmp_path / 'kept').iterdir()}


def test_rices_by_clip_never_shows_the_query(pretrained, data, clip):
    about = config(data)
    about.clip = str(clip)
    asked = easy(Pools(pretrained, about), support=('rices by clip',), support_split='test', shots=(5,))
    for episode in asked.episodes(8, 5, 'rices by clip', 'ranked', 0):
        shown = [part.image for part in episode.support]
        assert len(shown) == 5 and episode.query[0].image not in shown


def test_rices_by_clip_without_one_says_how_to_make_it(pools):
    with pytest.raises(ValueError, match=r"'rices by clip' needs a CLIP: --config.clip=BUNDLE, made"):
        easy(pools, support=('random', 'rices by clip'))


def test_each_kind_of_support_is_a_row_of_its_own(pretrained, data, clip, tmp_path):
    """At 0 shots too: the text examples of OpenFlamingo's RICES are its own."""
    c = config(data, support=('random', 'rices', 'rices by clip'), shots=(0, 1), answers=('open-ended',))
    c.tasks.easy_vqa.text_examples, c.tasks.easy_vqa.controls, c.clip = 1, (), str(clip)
    c.write_prompts, c.episodes, c.num_beams, c.max_new_tokens = True, 3, 1, 1
    pretrained_bundle = tmp_path / 'bundle'
    params = jax.tree.map(np.asarray, pretrained.params)
    bundle.save(pretrained_bundle, pretrained.config, params, pretrained.tokenizer, pretrained.image_tag, card='')
    rows = evaluate(c, pretrained_bundle, tmp_path / 'out')
    assert [(row.support, row.shots) for row in rows] == list(itertools.product(c.tasks.easy_vqa.support, (0, 1)))
    text = (tmp_path / 'out/report.txt').read_text()
    assert [line.split('  ')[1] for line in text.splitlines() if line.startswith('  r')].count('rices by clip') == 2
    random, by_clip = (
        (tmp_path / f'out/prompts/easy_vqa_open-ended_{support}_0_shots_seed_0.jsonl').read_text()
        for support in ('random', 'rices_by_clip')
    )
    assert random != by_clip
    assert list((tmp_path / 'out/pooled').iterdir())


@pytest.mark.long
def test_a_benchmark_is_measured_as_any_task(pretrained, data, pools):
    asked = easy(pools, answers=('ranked', 'ranked by length', 'open-ended'), shots=(1,))
    for answers in asked.answers:
        row, examples = measure(Setting.of(config(data), asked, 1, 'random', answers), pretrained, batch_size=3)
        assert row.episodes == 8 and {'model', 'shuffled images', 'text only', 'majority answer'} <= set(row.scores)
        assert row.scores['chance'].value == pytest.approx(1 / 13)
        assert 0 <= row.scores['model'].value <= 1 and row.scores['majority answer'].value >= 0.5
        assert all(example.chunks[-1][0][:4] == b'\x89PNG' for example in examples)


def test_the_length_penalty_of_beams_is_a_key(pretrained, data, pools):
    """It reaches `generate`: a large one prefers long answers."""
    asked = easy(pools, shots=(1,), answers=('open-ended',), text_examples=1)
    answers = {}
    for penalty in (0.0, 5.0):
        c = config(data, controls=())
        c.episodes, c.max_new_tokens, c.length_penalty = 3, 6, penalty
        row, _ = measure(Setting.of(c, asked, 1, 'random', 'open-ended'), pretrained)
        answers[penalty] = [query['answer'] for query in row.queries.values()]
        prompts = [prompt_of(e, frames, pretrained.tokenizer) for e in asked.episodes(3, 1, 'random', 'open-ended', 0)]
        expected = pretrained.generate(prompts, 6, 3, length_penalty=penalty)
        assert answers[penalty] == [asked.read_answer(text) for text in expected]
    c.length_penalty = float('nan')
    with pytest.raises(ValueError, match='config.length_penalty is nan. It must be a finite number'):
        evaluate(c, 'no checkpoint', 'nowhere')


def test_answers_by_length_are_those_of_the_likelihood_of_a_token(pretrained, pools):
    asked = easy(pools, shots=(1,), answers=('ranked by length',))
    episodes = list(asked.episodes(3, 1, 'random', 'ranked by length', 0))
    prompts = [[e.support[0].image, f'{e.support[0].text}<EOC>', e.query[0].image, e.query[0].text] for e in episodes]
    found = asked.answering('ranked by length', 5, 3)(pretrained, prompts, episodes)
    for prompt, answer in zip(prompts, found, strict=True):
        texts = [f' {candidate}<EOC>' for candidate in ANSWERS]
        lengths = [len(pretrained.tokenizer.encode(text, True)) for text in texts]
        assert answer == ANSWERS[int(np.argmax(pretrained.score(prompt, texts) / lengths))]


def test_files_are_utf_8_whatever_the_locale(pretrained, data, tmp_path, ascii_locale):
    shutil.copytree(data, tmp_path / 'set')
    (tmp_path / 'set/answers.txt').write_bytes('да нет'.encode())
    for split in ('train', 'test'):
        asked = json.dumps([['это круг?', 'да', 0]], ensure_ascii=False)
        (tmp_path / f'set/{split}/questions.json').write_bytes(asked.encode())
    [item] = easy(Pools(pretrained, config(tmp_path / 'set')), shots=(0,))._queries
    assert 'это круг?' in item.text and item.candidates == ('да', 'нет')


@pytest.mark.parametrize(
    'spoil, message',
    [
        (lambda f: (f / 'answers.txt').unlink(), 'pip download'),
        (lambda f: (f / 'test/images/2.png').unlink(), '2.png of question 4 is missing'),
        (lambda f: (f / 'test/questions.json').write_text('[["is it?", "maybe", 0]]'), "question 0 is .*'maybe'"),
        (lambda f: (f / 'test/questions.json').write_text('[]'), 'has no questions'),
        (lambda f: (f / 'train/questions.json').write_text('[["is it?", "no", 0]]'), '2 shots need 2 examples'),
    ],
)
def test_files_that_are_not_as_the_set_has_them_are_refused(pretrained, data, tmp_path, spoil, message):
    for file in data.rglob('*'):
        if file.is_file():
            (tmp_path / file.relative_to(data)).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file.relative_to(data)).write_bytes(file.read_bytes())
    spoil(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        easy(Pools(pretrained, config(tmp_path)))
