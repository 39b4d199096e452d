"""Writes dialogues about the things of a picture set: a language model that chats answers, told what is in the picture.

    python -m data.picture_texts.dialogues --images=DATA/picture_dictionary/artists/1.0.0 \
        --styles=noto,twemoji,openmoji-color,fluent-flat --lm=LMS/smollm2 --out=FILE.jsonl

The answers are the language model's own, greedy, cut at the end of a sentence. LLaVA's instructions were made in this
way by another language model (Liu et al. 2023, section 3). Here the frozen language model makes its own, and the
Flamingo learns to answer when it sees the thing as it does when it is told (`training/objectives/told.py`). Every
other dialogue begins with a question that the name answers, as people begin. No question is one of data/picture_facts.
Things of the validation and test splits are left out.

The turns are marked as in ChatML, which SmolLM2 and Qwen were trained on.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('pictures', None, 'Folder of a prepared picture set.', required=True)
    flags.DEFINE_list('styles', [], 'Write about what these styles show; all by default.')
    flags.DEFINE_string('lm', None, 'Bundle of a language model that chats in ChatML.', required=True)
    flags.DEFINE_string('out', None, 'File to write.', required=True)
    flags.DEFINE_integer('dialogues', 4, 'Dialogues about each thing.')
    flags.DEFINE_integer('turns', 2, 'Questions in each.')
    flags.DEFINE_integer('max_new_tokens', 32, 'Most tokens of an answer.')
    flags.DEFINE_integer('seed', 0, 'Draws the questions.')
    commands.start(__doc__)

from typing import Any

import numpy as np
from tqdm import tqdm

from data.picture_texts.build import names, write
from flamingo_jax import load
from flamingo_jax.inputs.prompts import chat
from flamingo_jax.tasks.kinds import with_article

# What SmolLM2 answers with the name.
NAMING = (
    'What is in the picture?',
    'What do you see?',
    'What is this?',
    'What am I looking at?',
    'What is shown here?',
)
QUESTIONS = (
    *NAMING,
    'What is it like?',
    'Describe it.',
    'Tell me about it.',
    'Explain what it is.',
    'Tell me a fact about it.',
    'What should I know about it?',
    'What do you think of it?',
    'Why do people like it?',
    'Write a short story about it.',
    'Write a poem about it.',
)
BATCH = 64


ENDS = '.!?。！？।॥۔؟።։'  # Of sentences: Latin, Chinese and Japanese, Indic, Urdu and Arabic, Ethiopic, Armenian.


def whole_sentences(answer: str) -> str:
    """An answer up to the end of its last sentence, in any of these scripts; '' if none ends."""
    return answer[: max(answer.rfind(end) for end in ENDS) + 1]


def says(name: str) -> str:
    """What the language model is told in place of a picture."""
    return f'This is a picture of {with_article(name)}.'


def told(dialogue: dict[str, Any], asks: str) -> list[str]:
    """The prompt of a dialogue so far, with words in place of the picture. The new line is in place of <EOC>."""
    first, *more = [*(text for turn in dialogue['turns'] for text in turn), asks]
    begin, _, *rest = chat([None, f' {first}'], *more)
    return [begin, '\n', dialogue['says'], *rest]


def drawn(rng: np.random.Generator, turns: int, naming: bool) -> list[str]:
    """Different questions of a dialogue, the first of them one of `NAMING` if so."""
    first = [rng.choice(NAMING)] if naming else []
    return (first + [question for question in rng.permutation(QUESTIONS) if question not in first])[:turns]


def main() -> None:
    """Writes the dialogues."""
    f = flags.FLAGS
    model, rng = load(f.lm), np.random.default_rng(f.seed)
    every = names(f.pictures, ['train'], f.styles)
    dialogues = [dict(name=name, says=says(name), turns=[]) for name in every for _ in range(f.dialogues)]
    asked = [drawn(rng, f.turns, naming=bool(i % 2)) for i in range(len(dialogues))]
    bar = tqdm(total=len(dialogues) * f.turns, unit=' answers')
    for turn in range(f.turns):
        going_on = [i for i, one in enumerate(dialogues) if len(one['turns']) == turn]
        for begin in range(0, len(going_on), BATCH):
            batch = going_on[begin : begin + BATCH]
            prompts = [told(dialogues[i], asked[i][turn]) for i in batch]
            answers = model.generate(prompts, f.max_new_tokens, stop=('<|',))
            for i, answer in zip(batch, map(whole_sentences, answers), strict=True):
                dialogues[i]['turns'] += [(str(asked[i][turn]), answer)] if answer else []
            bar.update(len(batch))
    lines = [one for one in dialogues if one['turns']]
    write(f.out, lines)
    print(f'{f.out}: {len(lines)} dialogues about {len(every)} things')


if __name__ == '__main__':
    main()
