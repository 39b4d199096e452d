"""VL-ICL Bench, from a few records in its form, and its scores."""

import json
import re

import numpy as np
import PIL.Image
import pytest

from experiments.evaluate import vl_icl
from flamingo_jax.evaluation import metrics
from flamingo_jax.evaluation.datasets.vl_icl import OF_IMAGES, PARTS, VLICL
from flamingo_jax.evaluation.episode_prompts import prompt_of
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.run import measure
from flamingo_jax.evaluation.setting import Setting
from flamingo_jax.evaluation.task import make, task

pytestmark = pytest.mark.usefixtures('quick_compilation')

CLASSES = {'blicket': 'b', 'dax': 'd', 'perpo': 'p'}


def one(part, where, number, answer, images=1, **more):
    paths = [f'{part}/{where}/{number}_{i}.png' for i in range(images)]
    return dict(id=f'{part}_{number}', image=paths, question=f'What of {number}?', answer=answer, **more)


def pair_of(part, where, number):
    same, diff = (one(part, where, f'{number}{kind}', answer, 2) for kind, answer in (('s', 'yes'), ('d', 'no')))
    return dict(same=same, diff=diff)


def written_form():
    """Part -> (queries, support)."""
    form = {}
    for part, images in (('operator_induction', 1), ('operator_induction_interleaved', 2)):
        queries = [one(part, 'query', i, n, images, operator=o) for i, (n, o) in enumerate(((9, '+'), (14, 'x')))]
        form[part] = queries, [one(part, 'support', i, [i + 2, i, 2 * i], images) for i in range(3)]
    form['textocr'] = [one('textocr', 'query', 0, 'Exit')], [one('textocr', 'support', i, f'w{i}') for i in range(3)]
    form['clevr'] = [one('clevr', 'query', 0, 3)], [one('clevr', 'support', i, i + 1) for i in range(3)]
    form['matching_mi'] = (
        [one('matching_mi', 'query', i, answer, 2) for i, answer in enumerate(('yes', 'no'))],
        [pair_of('matching_mi', 'support', i) for i in range(3)],
    )
    support = {
        name: dict(images=[f'open_mi/support/{letter}{i}.png' for i in range(3)], caption=f'This is a {name}')
        for name, letter in CLASSES.items()
    }
    form['open_mi'] = [one('open_mi', 'query', 0, 'dax', classes=[*CLASSES], support=support)], []
    return form


def put(folder, form):
    """Writes records, and an image wherever one is named."""
    rng = np.random.default_rng(0)
    for part, (queries, support) in form.items():
        for name, records in (('query', queries), ('support', support)):
            text = json.dumps(records)
            for path in sorted({*re.findall(r'[^" ]+\.png', text)}):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                PIL.Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(folder / path)
            (folder / part / f'{name}.json').write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path):
    return put(tmp_path, written_form())


def opened(pretrained, folder, part, **fields):
    c = vl_icl.get_config()
    c.data = str(folder)
    fields = dict(shots=(0, 1, 3)) | fields
    return make(part, task(VLICL, part=part, **fields).to_dict(), Pools(pretrained, c))


def prompt(asked, shots, tokenizer, i=0, seed=0):
    """The prompt as its code writes it, with <image> for each image."""
    *_, episode = list(asked.episodes(i + 1, shots, 'random', 'open-ended', seed))
    items = prompt_of(episode, lambda part: {'': part.image.name}, tokenizer)
    return ''.join(item if isinstance(item, str) else '<image>' for item in items), episode


def test_operators_tell_the_results_of_demonstrations(pretrained, folder, tokenizer):
    asked = opened(pretrained, folder, 'operator_induction', instruction='Find the operator.')
    shown = {}
    for i in range(2):
        text, episode = prompt(asked, 3, tokenizer, i)
        shown[episode.types['operator']] = {part.image.name: part.label for part in episode.support}
        assert episode.truth == {'+': '9', 'x': '14'}[episode.types['operator']]
        first, *_, last = text.split('<EOC>')
        number = re.findall(r'\d', episode.support[0].image.name)[0]
        assert first == f'Find the operator.\n<image>What of {number}?\nAnswer: {episode.support[0].label}'
        assert last == f'<image>What of {episode.id}?\nAnswer:'
    assert shown == {
        '+': {'0_0.png': '2', '1_0.png': '3', '2_0.png': '4'},
        'x': {'0_0.png': '0', '1_0.png': '2', '2_0.png': '4'},
    }
    assert prompt(asked, 0, tokenizer)[0].startswith('Find the operator.\n<image>What of')


def test_images_of_one_demonstration_stand_together(pretrained, folder, tokenizer):
    text, episode = prompt(opened(pretrained, folder, 'operator_induction_interleaved'), 1, tokenizer)
    demonstration = episode.support[1]
    question = f'What of {demonstration.image.name[0]}?'
    assert text == (
        f'\n<image><image>{question}\nAnswer: {demonstration.label}<EOC><image><image>What of {episode.id}?\nAnswer:'
    )
    assert [part.image.name[0] for part in episode.support] == [demonstration.image.name[0]] * 2


def test_a_shot_of_matching_is_a_pair_that_does_and_one_that_does_not(pretrained, folder, tokenizer):
    text, episode = prompt(opened(pretrained, folder, 'matching_mi'), 3, tokenizer)
    assert [part.label for part in episode.support[1::2]] == ['yes', 'no'] * 3
    assert text.count('<image>') == 14 and text.count('<EOC>') == 6
    assert len({part.image for part in episode.support}) == 12


def test_a_query_of_open_mi_has_its_own_classes(pretrained, folder, tokenizer):
    asked = opened(pretrained, folder, 'open_mi', shots=(0, 3))
    orders, others = set(), set()
    for seed in range(12):
        text, episode = prompt(asked, 3, tokenizer, seed=seed)
        a, b = (part.label for part in episode.support[:2])
        assert [part.label for part in episode.support] == [a, b] * 3 and 'dax' in (a, b) and a != b
        letters = CLASSES[a], CLASSES[b]
        # The images of a class in the order of the file.
        assert [part.image.stem for part in episode.support] == [f'{x}{i}' for i in range(3) for x in letters]
        assert text.startswith(f'\n<image>This is a\nAnswer: {a}<EOC>')
        orders.add(a == 'dax')
        others |= {a, b}
    assert orders == {True, False} and others == {*CLASSES}
    (episode,) = asked.episodes(1, 3, 'random', 'ranked', 0)
    assert len(episode.candidates) == 2 and asked.chance(episode) == 0.5


def test_more_shots_begin_with_fewer_and_queries_differ(pretrained, folder):
    asked = opened(pretrained, folder, 'clevr')
    few, many = (next(iter(asked.episodes(1, shots, 'random', 'open-ended', 5))) for shots in (1, 3))
    assert many.support[:1] == few.support and len({part.image for part in many.support}) == 3
    assert asked.baselines(many) == {'last label': many.support[-1].label, 'majority answer': '1'}


def test_no_demonstration_shows_an_image_of_the_query(pretrained, folder):
    form = written_form()
    form['clevr'][1][1]['image'] = form['clevr'][0][0]['image']
    put(folder, form)
    asked = opened(pretrained, folder, 'clevr', shots=(2,))
    for seed in range(8):
        (episode,) = asked.episodes(1, 2, 'random', 'open-ended', seed)
        assert {part.label for part in episode.support} == {'1', '3'}
    with pytest.raises(ValueError, match='record 0: 3 shots need 3 demonstrations .* there are only 2'):
        opened(pretrained, folder, 'clevr', shots=(3,))


@pytest.mark.parametrize(
    'part, damage, named',
    [
        ('operator_induction', lambda q, s: s[1].update(answer=4), 'the answer about 1_0.png must be a list of'),
        ('operator_induction', lambda q, s: q[1].update(operator='/'), "query.json, record 1 .* operator '/'"),
        ('operator_induction', lambda q, s: q[1].pop('operator'), 'query.json, record 1 has no operator'),
        ('clevr', lambda q, s: s[2].pop('answer'), "support.json, record 2 has no 'answer'"),
        ('clevr', lambda q, s: s[2].update(image=[]), 'support.json, record 2 is not as the set publishes it'),
        ('clevr', lambda q, s: q.clear(), 'query.json has no questions'),
        ('clevr', lambda q, s: s[0].update(answer=[1, 2, 3]), '0_0.png must be one text or number'),
        ('matching_mi', lambda q, s: s[0].pop('diff'), "support.json, record 0 has no 'diff'"),
        ('open_mi', lambda q, s: q[0]['support'].pop('dax'), "query.json, record 0 is not .* KeyError\\('dax'\\)"),
        ('open_mi', lambda q, s: q[0].update(answer='wug'), "query.json, record 0 .* answer 'wug'"),
    ],
)
def test_damaged_records_are_refused_by_name(pretrained, folder, part, damage, named):
    form = written_form()
    damage(*form[part])
    put(folder, {part: form[part]})
    with pytest.raises(ValueError, match=named):
        opened(pretrained, folder, part)


def test_what_is_missing_is_named(pretrained, folder):
    (folder / 'textocr/support/1_0.png').unlink()
    with pytest.raises(FileNotFoundError, match='no image .*textocr/support/1_0.png'):
        opened(pretrained, folder, 'textocr')
    (folder / 'clevr/support.json').unlink()
    with pytest.raises(FileNotFoundError, match='clevr/support.json'):
        opened(pretrained, folder, 'clevr')
    for part in OF_IMAGES:
        with pytest.raises(ValueError, match='a Flamingo writes text alone'):
            opened(pretrained, folder, part)


@pytest.mark.parametrize('part', PARTS)
def test_it_is_evaluated(pretrained, folder, part):
    c = vl_icl.get_config()
    c.update(episodes=2, num_beams=1, max_new_tokens=2)
    for answers in ('open-ended', 'ranked'):
        asked = opened(pretrained, folder, part, shots=(1,), controls=('gain',), max_new_tokens=2)
        row, _ = measure(Setting.of(c, asked, 1, 'random', answers), pretrained)
        assert row.episodes == len(written_form()[part][0])
        assert {'model', 'no demonstrations', 'demonstrations shuffled', 'last label'} <= {*row.scores}


def test_the_config_asks_every_part():
    published, drawn = vl_icl.get_config(), vl_icl.get_config('drawn')
    assert {*published.tasks} == {*PARTS} and {*drawn.tasks} - {*PARTS} == {'operator_induction_clock'}
    assert published.tasks.open_mi.shots == (0, 1, 2, 4, 5) and published.tasks.clevr.shots == (0, 1, 2, 4, 8)


# An answer, the truth, and whether the rules of evals/eval.py call it right; worked out by hand from them.
SCORED = dict(
    vl_icl=[
        ('Exit', 'exit', 1),
        ('  exit \n', 'EXIT', 1),
        ('exit\nand more', 'exit', 1),
        ('exit. And more', 'exit', 1),
        ('exit \nand more', 'exit', 0),  # What is cut off is not stripped again.
        ('exit, and', 'exit', 0),
        ('a.b\nc', 'a.b', 1),  # Where there is a line's end, full stops stay.
        ('.com', '.com', 1),
        ('.com.', '.com.', 1),  # Only the first full stop is looked at, and nothing is before it.
        ('3', '3', 1),
        ('03', '3', 0),
        ('', 'exit', 0),
    ],
    vl_icl_number=[
        ('The result is 14', '14', 1),
        ('14.5', '14', 1),
        ('It is so.\n14', '14', 0),
        ('2 x 7 = 14', '14', 0),
        ('-3', '3', 1),
        ('fourteen', '14', 0),
        ('014', '14', 0),
    ],
    vl_icl_yes=[
        ('Yes', 'yes', 1),
        ('I say yes.', 'Yes', 1),
        ('no', 'yes', 0),
        ('no', 'no', 1),
        ('', 'no', 1),
        ('eyes', 'no', 0),
        ('no\nyes', 'no', 1),
    ],
)


@pytest.mark.parametrize('name', SCORED)
def test_scores_follow_the_rules_of_the_official_code(name):
    predictions = {str(i): answer for i, (answer, _, _) in enumerate(SCORED[name])}
    references = {str(i): (truth,) for i, (_, truth, _) in enumerate(SCORED[name])}
    value, each = metrics.score(name, predictions, references)
    assert {id: (predictions[id], score) for id, score in each.items()} == {
        str(i): (answer, right) for i, (answer, _, right) in enumerate(SCORED[name])
    }
    assert value == pytest.approx(np.mean([right for *_, right in SCORED[name]]))


def test_each_part_is_scored_by_its_rule():
    named = {part: VLICL(part=part).metric_name for part in PARTS}
    assert named == dict(
        open_mi='vl_icl',
        operator_induction='vl_icl_number',
        operator_induction_interleaved='vl_icl_number',
        textocr='vl_icl',
        clevr='vl_icl',
        matching_mi='vl_icl_yes',
    )
