"""Measures whether a language model names things in the language of its context, in text alone.

    python -m research.analyses.names_in_text --lm=BUNDLE --data=DATA/picture_dictionary/full/1.0.0 \
        [--prompts=10] [--sign=:]

A prompt has four lines ` dog Hund` in one language, then a key: the English name of another thing, or an invented
word. The small models of this project were trained on such lines; for a real one, `--sign=:` makes them ` dog: Hund`.
Prints the share of answers that are a whole name of some thing in that language, and the share that is right,
over all languages. What the model cannot do in text it cannot do for images.
"""

import argparse

import numpy as np

import flamingo_jax
from experiments.picture_dictionary import LANGUAGES
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.sources.image_set import ImageSet
from flamingo_jax.tasks.nonce import nonces

SHOTS, BATCH, NEW = 4, 16, 24


def questions(
    named: dict[str, dict[str, str]], number: int, invented: bool, sign: str, rng: np.random.Generator
) -> list[tuple]:
    """`number` questions in each language: (prompt, all names in that language, the right one)."""
    asked = []
    for language in LANGUAGES:
        things = [names for _, names in sorted(named.items()) if language in names]
        every = {names[language] for names in things}
        for _ in range(number):
            *shown, query = (things[i] for i in rng.choice(len(things), SHOTS + 1, replace=False))
            key = nonces(rng, 1)[0] if invented else query['en']
            lines = [text for names in shown for text in (f' {names["en"]}{sign}', f' {names[language]}', '\n')]
            asked.append(([*lines, f' {key}{sign}'], every, query[language]))
    return asked


def main() -> None:
    """Asks and counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--lm', required=True, help='bundle of the language model, or the workdir of its run')
    parser.add_argument('--data', required=True, help='the prepared picture dictionary')
    parser.add_argument('--prompts', type=int, default=10, help='number of prompts for each language and kind of key')
    parser.add_argument('--sign', default='', help='what stands between a key and its name, before the space')
    arguments = parser.parse_args()
    lm, rng = flamingo_jax.load(arguments.lm), np.random.default_rng(0)
    named = {
        image.concept: image.names
        for image in ImageSet(arguments.data, 'train', ImageFormat(32), styles=('noto',)).images
    }
    for invented in (False, True):
        prompts, every, right = zip(*questions(named, arguments.prompts, invented, arguments.sign, rng), strict=True)
        answers = []
        for begin in range(0, len(prompts), BATCH):
            answers += lm.generate(prompts[begin : begin + BATCH], max_new_tokens=NEW, stop=('\n',))
        in_language = np.mean([answer in names for answer, names in zip(answers, every, strict=True)])
        print(f'{"invented" if invented else "known"} key: in the language {in_language:.3f}', end='')
        if not invented:
            print(
                f', right {np.mean([answer == name for answer, name in zip(answers, right, strict=True)]):.3f}', end=''
            )
        print(f'  ({len(prompts)} prompts)')


if __name__ == '__main__':
    main()
