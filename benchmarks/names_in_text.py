"""Does a language model name things in the language of its context? What it cannot do in text it cannot do for pictures.

    python benchmarks/names_in_text.py --lm=BUNDLE --data=DATA/picture_dictionary/full/1.0.0 [--prompts=10]

Four lines ` dog Hund` in each language, then a key: the English name of another thing, or an invented word. Prints the share of
answers that are a whole name of some thing in that language, and of those that are right, over all languages.
"""

import argparse
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import flamingo_jax  # noqa: E402
from experiments.picture_dictionary import LANGUAGES  # noqa: E402
from flamingo_jax.inputs.nonce import nonces  # noqa: E402
from flamingo_jax.inputs.picture_set import PictureSet  # noqa: E402

SHOTS, BATCH, NEW = 4, 16, 24


def main() -> None:
    """Asks and counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--lm', required=True, help='bundle of the language model, or the workdir of its run')
    parser.add_argument('--data', required=True, help='the prepared picture dictionary')
    parser.add_argument('--prompts', type=int, default=10, help='of each language and kind of key')
    arguments = parser.parse_args()
    lm, rng = flamingo_jax.load(arguments.lm), np.random.default_rng(0)
    named = {picture.concept: picture.names for picture in PictureSet(arguments.data, 'train', ('noto',)).pictures}
    for kind in ('known', 'invented'):
        asked = []
        for language in LANGUAGES:
            things = [names for _, names in sorted(named.items()) if language in names]
            every = {names[language] for names in things}
            for _ in range(arguments.prompts):
                *shown, query = (things[i] for i in rng.choice(len(things), SHOTS + 1, replace=False))
                key = query['en'] if kind == 'known' else nonces(rng, 1)[0]
                lines = [text for names in shown for text in (f' {names["en"]}', f' {names[language]}', '\n')]
                asked.append(([*lines, f' {key}'], every, query[language]))
        written, right = [], []
        for begin in range(0, len(asked), BATCH):
            some = asked[begin : begin + BATCH]
            answers = lm.generate([prompt for prompt, _, _ in some], max_new_tokens=NEW, stop=('\n',))
            written += [answer in every for answer, (_, every, _) in zip(answers, some, strict=True)]
            right += [answer == truth for answer, (_, _, truth) in zip(answers, some, strict=True)]
        of = f', right {np.mean(right):.3f}' if kind == 'known' else ''
        print(f'{kind:8} key: in the language {np.mean(written):.3f}{of}  ({len(asked)} prompts)')


if __name__ == '__main__':
    main()
