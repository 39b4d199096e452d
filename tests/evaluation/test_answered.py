"""Which answers an evaluation finds again, and which unfinished one it refuses to mix with."""

import dataclasses

import pytest

from flamingo_jax.evaluation.answered import FILE, Answered, begin
from flamingo_jax.evaluation.answers import Generated, Ranked
from flamingo_jax.tasks.episode import Episode

CHECKPOINT = ['0.1.0', {'lm': 'abc'}, None, {}]
EPISODE = Episode((), (), 'dog', ('dog', 'cat'))
ASKED = (['lm', 'xattn'], Ranked(), [{'image': ['a.png', 1, 2]}, ' Output:'], EPISODE)


def test_answers_are_found_again_by_all_that_they_depend_on(tmp_path):
    kept = Answered(CHECKPOINT, tmp_path)
    asked = kept.digest(*ASKED)
    assert kept.get(asked) is None
    kept.add({asked: 'dog', 'another': dict(dog=-1.5, cat=-2.0)})
    again = Answered(CHECKPOINT, tmp_path)
    assert again.get(again.digest(*ASKED)) == 'dog' and again.get('another') == dict(dog=-1.5, cat=-2.0)

    trees, how, prompt, episode = ASKED
    others = [
        Answered([*CHECKPOINT[:2], 'step 2', {}]).digest(*ASKED),
        again.digest(trees[:1], how, prompt, episode),
        again.digest(trees, Ranked(by_length=True), prompt, episode),
        again.digest(trees, Generated(5, 3), prompt, episode),
        again.digest(trees, Generated(5, 1), prompt, episode),
        again.digest(trees, how, [{'image': ['a.png', 1, 3]}, ' Output:'], episode),
        again.digest(trees, how, [*prompt[:1], ' Output: '], episode),
        again.digest(trees, how, prompt, dataclasses.replace(episode, candidates=('dog', 'cow'))),
        again.digest(trees, how, prompt, dataclasses.replace(episode, ends=False)),
    ]
    assert len({asked, *others}) == len(others) + 1


def test_a_line_that_was_cut_short_is_no_answer(tmp_path):
    kept = Answered(CHECKPOINT, tmp_path)
    kept.add(dict(one='dog'))
    kept.add(dict(two='cat'))
    (file,) = (tmp_path / 'answers').iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    again = Answered(CHECKPOINT, tmp_path)
    assert (again.get('one'), again.get('two')) == ('dog', None)
    again.add(dict(two='cow'))
    again = Answered(CHECKPOINT, tmp_path)
    assert (again.get('one'), again.get('two')) == ('dog', 'cow')


def test_a_damaged_line_is_no_answer(tmp_path):
    Answered(CHECKPOINT, tmp_path).add(dict(one='dog'))
    (file,) = (tmp_path / 'answers').iterdir()
    file.write_bytes(b'{"asked": "two"}\n3\n{"asked": "three", "answer": "\xff"}\n' + file.read_bytes())
    again = Answered(CHECKPOINT, tmp_path)
    assert len(again) == 1 and again.get('one') == 'dog'


def test_another_unfinished_evaluation_is_refused(tmp_path):
    tasks = dict(words=dict(ways=2), names=dict(shots=(0, 4)))
    about = dict(checkpoint='a', step=3, config=dict(episodes=9, tasks=tasks))
    begin(tmp_path, about)
    with pytest.raises(ValueError, match=r'differs in step \(there 3, here 4\)'):
        begin(tmp_path, about | dict(step=4))
    with pytest.raises(ValueError, match=r'differs in config.episodes \(there 9, here 8\)'):
        begin(tmp_path, about | dict(config=dict(episodes=8, tasks=tasks)))
    changed = dict(tasks, words=dict(ways=3))
    with pytest.raises(ValueError, match='config.tasks.words.ways'):
        begin(tmp_path, about | dict(config=dict(episodes=9, tasks=changed)))
    # Other tasks, or in another order, are no other evaluation.
    fewer = dict(more=dict(ways=5), words=dict(ways=2))
    finish = begin(tmp_path, about | dict(config=dict(episodes=9, tasks=fewer)))
    finish()
    assert not (tmp_path / FILE).exists()
