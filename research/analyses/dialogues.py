"""Measures whether a Flamingo that chats answers by what it sees: does its answer name the thing in the image?

    python -m research.analyses.dialogues --checkpoint=experiments/smollm_bridge --lm=LMS/smollm2 \
        --data=DATA/picture_dictionary/artists/1.0.0 [--images=100]

Prints the share of answers that have the thing's English name: of the Flamingo; of the same answers, if they were about
another image; and of the frozen language model that is told `This is an image of a spider.` An answer may be right
and not have the name, so that the last is what could be reached. Some instructions were in training, with drawings by
other artists, and some never were.
"""

import argparse
import re
from collections.abc import Sequence

import numpy as np

import flamingo_jax
from data.picture_texts.dialogues import QUESTIONS, says, told
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.prompts import Prompt, chat
from flamingo_jax.inputs.sources.image_set import ImageSet

BATCH, WORDS, TALKS = 25, 32, ('What is it like?', 'And what did I show you?')
INSTRUCTIONS = (
    *('What is in the picture?', 'Describe it.', 'Write a short story about it.'),
    *('What does the picture show?', 'Who would want it?', 'Write a letter about it.'),
)


def named(answers: Sequence[str], names: Sequence[str]) -> float:
    """The share of answers that have the name, also in the plural."""
    found = [
        re.search(rf'\b{re.escape(name)}(s|es)?\b', answer, re.IGNORECASE)
        for answer, name in zip(answers, names, strict=True)
    ]
    return float(np.mean([one is not None for one in found]))


def answered(model: Pretrained, prompts: Sequence[Prompt]) -> list[str]:
    """The answers of a model to prompts."""
    answers = []
    for begin in range(0, len(prompts), BATCH):
        answers += model.generate(prompts[begin : begin + BATCH], max_new_tokens=WORDS)
    return answers


def prompt(shown: np.ndarray | str, turns: Sequence[str]) -> Prompt:
    """The prompt of a dialogue over an image, or told in words what it shows. turns: a question, its answer, ..."""
    if isinstance(shown, str):
        return told(dict(says=shown, turns=list(zip(turns[::2], turns[1::2], strict=False))), turns[-1])
    return chat([shown, f' {turns[0]}'], *turns[1:])


def main() -> None:
    """Asks and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--checkpoint', required=True, help='bundle, or workdir of a run')
    parser.add_argument('--lm', required=True, help='bundle of its language model, which chats in ChatML')
    parser.add_argument('--data', required=True, help='the prepared picture dictionary')
    parser.add_argument('--style', default='fluent-3d', help='whose drawings are shown')
    parser.add_argument('--images', type=int, default=100, help='number of drawings')
    arguments = parser.parse_args()
    model, lm = flamingo_jax.load(arguments.checkpoint, lm=arguments.lm), flamingo_jax.load(arguments.lm)
    format = ImageFormat(model.config.image_size, model.config.fit)
    images = ImageSet(arguments.data, 'train', format, styles=(arguments.style,))
    rng = np.random.default_rng(0)
    chosen = [images.images[i] for i in rng.permutation(len(images.images))[: arguments.images]]
    frames, names = [images.frames(image)[0] for image in chosen], [image.names['en'] for image in chosen]
    words = [says(name) for name in names]

    def row(title: str, asks: Sequence[str], trained: bool) -> None:
        """The shares, of the answers to the last of what is asked."""
        shares = []
        for one, shown in ((model, frames), (lm, words)):
            dialogues: list[list[str]] = [[] for _ in shown]
            for ask in asks:
                for turns in dialogues:
                    turns.append(ask)
                said = answered(one, [prompt(of, turns) for of, turns in zip(shown, dialogues, strict=True)])
                for turns, answer in zip(dialogues, said, strict=True):
                    turns.append(answer)
            shares.append(named(said, names))
            if one is model:  # Each answer is held to be about another image.
                shares.append(named(said, names[1:] + names[:1]))
        print(
            f'{title:36} {"yes" if trained else "never":8}' + ''.join(f'{share:10.2f}' for share in shares), flush=True
        )

    print(f'{"":36} {"trained":8}' + ''.join(f'{title:>10}' for title in ('model', 'another', 'told')))
    for asks in INSTRUCTIONS:
        row(asks, [asks], asks in QUESTIONS)
    row(f'{TALKS[1]} (second)', TALKS, False)


if __name__ == '__main__':
    main()
