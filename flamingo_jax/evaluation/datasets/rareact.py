"""RareAct (Miech et al. 2020): unusual actions, such as to blend a phone. Held out, and asked without examples.

The folder has `rareact.csv` (id, video_id, start, end, class_id, verb, noun, annotation) and the videos as
`videos/VIDEO.mp4`. The likelihood of each action's sentence ranks the clips (mWAP).
"""

import dataclasses
import pathlib
from collections.abc import Iterator

from flamingo_jax.evaluation.benchmark import Benchmark, Item, Video
from flamingo_jax.evaluation.metrics import mwap
from flamingo_jax.evaluation.published import by_id, find, records, split_file, video_file
from flamingo_jax.tasks.episode import Episode

# Nouns as the set has them, and as they are written.
SPELLINGS = dict(clothe='clothes')
# Its nouns in the plural, and those of what cannot be counted. Its chocolate is drunk.
WITHOUT_ARTICLE = {'carrots', 'clothes', 'eggs', 'shoes', 'bacon', 'chocolate', 'corn', 'hair'}


@dataclasses.dataclass
class RareAct(Benchmark):
    """The split is test. There is no training set."""

    answers: tuple[str, ...] = ('ranked',)
    shots: tuple[int, ...] = (0,)
    text_examples: int = 0
    support_split: str = ''

    metric = staticmethod(mwap.score)
    likelihoods = True

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The clips; an id is the clip's, a candidate is VERB NOUN."""
        file = find(folder, split_file(split, dict(test='rareact.csv')))
        rows = records(file, 'id', 'video_id', 'start', 'end', 'class_id', 'verb', 'noun', 'annotation')
        written = {f'{r["verb"]} {r["noun"]}': (sentence(r['verb'], r['noun']),) for r in rows}
        for id, record in by_id(rows, 'id', file).items():
            action = f'{record["verb"]} {record["noun"]}'
            shown = Video(
                video_file(folder / 'videos', record['video_id']), float(record['start']), float(record['end'])
            )
            references = dict(
                video=record['video_id'],
                verb=record['verb'],
                noun=record['noun'],
                annotation=int(record['annotation']),
            )
            yield Item(id, shown, self.prompts.action, action, references, tuple(written), written)

    def chance(self, episode: Episode) -> None:
        """Not known: it depends on how many clips show an action."""
        return None


def sentence(verb: str, noun: str) -> str:
    """The action as the paper writes it: the verb in the third person, and an article before the noun if it takes one.

    >>> sentence('cut', 'apple'), sentence('fry', 'eggs')
    ('a person cuts an apple', 'a person fries eggs')
    """
    if verb.endswith(('s', 'sh', 'ch', 'x', 'z', 'o')):
        third = f'{verb}es'
    elif verb.endswith('y') and verb[-2] not in 'aeiou':
        third = f'{verb[:-1]}ies'
    else:
        third = f'{verb}s'
    noun = SPELLINGS.get(noun, noun)
    article = '' if noun in WITHOUT_ARTICLE else 'an ' if noun[0] in 'aeiou' else 'a '
    return f'a person {third} {article}{noun}'
