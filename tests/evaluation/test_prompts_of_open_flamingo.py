"""Each prompt is the one that OpenFlamingo's own evaluation sends, from the same files: open_flamingo 2.0.1.

Its loop, data sets and assembly run as they are. The model is a recorder, which answers nothing.
"""

import dataclasses

import pytest

from experiments.evaluate import coco, hateful_memes, vqav2
from flamingo_jax.evaluation.episode_prompts import prompt_of
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.task import make
from flamingo_jax.inputs.tokenizer import EOC

pytestmark = [pytest.mark.parity]
QUERIES, SUPPORT = 30, 20
CONFIGS = dict(vqav2=vqav2, coco=coco, hateful_memes=hateful_memes)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """The files of all three."""
    from tests.evaluation import open_flamingo_suite as suite

    folder = tmp_path_factory.mktemp('data')
    suite.write_vqav2(folder, QUERIES, SUPPORT)
    suite.write_coco(folder)
    suite.write_memes(folder, QUERIES, SUPPORT)
    return folder


@pytest.mark.parametrize('shots', [0, 4])
@pytest.mark.parametrize('kind', CONFIGS)
def test_every_prompt_is_that_of_the_original(pretrained, data, kind, shots):
    from tests.evaluation import open_flamingo_suite as suite

    recorder = suite.Recorder()
    drawn = suite.prompts_sent(recorder, data, kind, shots, SUPPORT)
    c = CONFIGS[kind].get_config('open_flamingo')
    c.data = str(data)
    fields = c.tasks[kind].to_dict() | dict(support=('random',), support_size=0, shots=(shots,))
    asked = make(kind, fields, Pools(pretrained, c))
    place = {item.id: i for i, item in enumerate(asked._support)}
    (answers,) = asked.answers
    ours = {}
    for episode in asked.episodes(c.episodes, shots, 'random', answers, seed=0):
        # The same number of examples as there, in their place those that it drew, with or without their images.
        assert len(episode.support) == len(drawn[episode.id]) == (shots or 2)
        examples = [asked._examples[place[id]] for id in drawn[episode.id]]
        if not shots:
            assert all(part.image is None for part in episode.support)
            examples = [dataclasses.replace(part, image=None) for part in examples]
        chosen = dataclasses.replace(episode, support=tuple(examples))
        items = prompt_of(chosen, lambda part: part.key, pretrained.tokenizer)
        texts = [item if isinstance(item, str) else '<image>' for item in items]
        ours[episode.id] = ''.join(texts).replace(EOC, '<|endofchunk|>')
    assert len(ours) == QUERIES and len(set(ours.values())) > QUERIES / 2
    assert ours == recorder.prompts
