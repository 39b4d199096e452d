"""A page of what a Flamingo says of images when it is only asked to go on: drawn by seed, and not chosen by hand.

    python -m research.analyses.dialogues_page --checkpoint=experiments/smollm_bridge --lm=LMS/smollm2 \
        --data=DATA/picture_dictionary/artists/1.0.0 --videos=DATA/picture_dictionary/clips/1.0.0 --out=dialogues.png \
        [--style=fluent-3d] [--seed=0]

As the examples in the paper's figures 1 and 8: single images, a dialogue over one image, in which each answer is
part of the next prompt, two images with text between them, and short videos. In training, ` name:` and ` kind:` had
answers. After ` is a kind of`, and where it is asked what is in the picture and for a fact, the bridge learned to go on
as its language model does. The rest is new to it, and so are videos.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('checkpoint', None, 'Bundle, or workdir of a run.', required=True)
    flags.DEFINE_string('lm', '', 'Bundle of the language model, if the checkpoint has none.')
    flags.DEFINE_string('data', None, 'Folder of the picture dictionary.', required=True)
    flags.DEFINE_string('videos', None, 'Folder of the clips of the picture dictionary.', required=True)
    flags.DEFINE_string('out', None, 'PNG to write.', required=True)
    flags.DEFINE_string('style', 'fluent-3d', 'Whose drawings are shown.')
    flags.DEFINE_integer('seed', 0, 'Draws the images.')
    commands.start(__doc__)

import pathlib
import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from data.picture_texts.dialogues import whole_sentences
from flamingo_jax import load
from flamingo_jax.evaluation import fonts
from flamingo_jax.inference.pretrained import Pretrained, tokenizer_of
from flamingo_jax.inputs.images import Frames, ImageFormat
from flamingo_jax.inputs.prompts import Prompt, chat, chats
from flamingo_jax.inputs.sources.image_set import ImageSet

COLUMNS, ROWS = 6, 2  # Images; a row of pairs and one of videos follow.
FRAMES = 8  # Of a video; every third is drawn.
ALONE = (' name:', ' kind:', ' is a kind of', ' is used for')
DIALOGUE = ('What is in the picture?', 'Tell me a fact about it.', 'Who would want it?')
PAIR = (' and', ' are both')
ENDS = ('\n', '.', ',', '<EOC>')


def asked(model: Pretrained, prompts: Sequence[Prompt]) -> list[str]:
    """What the model says to each prompt, up to the end of a clause."""
    return model.generate(prompts, max_new_tokens=14, stop=ENDS)


def answered(model: Pretrained, dialogues: Sequence[Sequence[Prompt | str]]) -> list[str]:
    """What it answers in each dialogue, up to the end of a sentence if there is one."""
    answers = model.generate([chat(*turns) for turns in dialogues], max_new_tokens=32)
    return [whole_sentences(answer) or answer for answer in answers]


def main() -> None:
    """Draws the page."""
    f = flags.FLAGS
    if not chats(tokenizer_of(f.checkpoint, f.lm)):
        commands.refuse(f'{f.checkpoint} does not chat: its tokenizer has no <|im_start|>. Give another model.')
    pathlib.Path(f.out).parent.mkdir(parents=True, exist_ok=True)
    model = load(f.checkpoint, lm=f.lm)
    how = ImageFormat(model.config.image_size, model.config.fit)
    rng = np.random.default_rng(f.seed)
    number = COLUMNS * ROWS

    def draw(images: ImageSet, some: int) -> tuple[list[Frames], list[str]]:
        chosen = [images.images[i] for i in rng.choice(len(images.images), some, replace=False)]
        return [images.frames(image) for image in chosen], [image.names['en'] for image in chosen]

    drawings, names = draw(ImageSet(f.data, 'train', how, styles=[f.style]), number)
    videos, video_names = draw(ImageSet(f.videos, 'train', how, frames=FRAMES), COLUMNS)
    frames = [drawing[0] for drawing in drawings]

    said: list[list[str]] = [[] for _ in frames]  # Of each image, what is written below it.
    for question in ALONE:
        for lines, answer in zip(said, asked(model, [[frame, question] for frame in frames]), strict=True):
            lines.append(f'{question.strip()} → {answer}')
    dialogues: list[list] = [[] for _ in frames]
    for i, question in enumerate(DIALOGUE):
        for turns, frame in zip(dialogues, frames, strict=True):
            turns.append(question if i else [frame, f' {question}'])
        for lines, turns, answer in zip(said, dialogues, answered(model, dialogues), strict=True):
            turns.append(answer)
            lines.append(f'{question} → {answer}'.replace('\n', ' '))
    pairs = [(i, i + 1) for i in range(0, number, 2)]
    together = asked(model, [[frames[i], PAIR[0], frames[j], PAIR[1]] for i, j in pairs])
    named = asked(model, [[list(video), ALONE[0]] for video in videos])
    told = answered(model, [[[list(video), f' {DIALOGUE[0]}']] for video in videos])

    plt.rcParams['font.family'] = fonts.families()
    heights = dict(height_ratios=[1] * ROWS + [0.5, 0.5])
    figure, axes = plt.subplots(ROWS + 2, COLUMNS, figsize=(18, 19), layout='constrained', gridspec_kw=heights)
    for axis, frame, name, lines in zip(axes[:ROWS].flat, frames, names, said, strict=True):
        show(axis, frame, [f'({name})', *lines])
    for axis, video, name, said_name, answer in zip(axes[ROWS + 1], videos, video_names, named, told, strict=True):
        lines = [f'(video: {name})', f'{ALONE[0].strip()} → {said_name}', f'{DIALOGUE[0]} → {answer}']
        show(axis, np.concatenate(list(video[::3]), 1), lines)
    for axis, (i, j), answer in zip(axes[ROWS], pairs, together, strict=True):
        show(axis, np.concatenate([frames[i], frames[j]], 1), [f'[1]{PAIR[0]} [2]{PAIR[1]} → {answer}'])
    figure.suptitle(f'{f.style}, drawn by seed {f.seed}; in brackets the name that the dictionary has', fontsize=11)
    with fonts.told(f.out):
        figure.savefig(f.out, dpi=80)


def show(axis: plt.Axes, frame: Frames, lines: Sequence[str]) -> None:
    """An image, with lines of text below it."""
    axis.imshow(frame)
    axis.set_xticks([]), axis.set_yticks([])
    text = '\n'.join(textwrap.fill(line, 42, subsequent_indent='   ') for line in lines)
    axis.set_xlabel(text.replace('$', r'\$'), fontsize=8, loc='left', family=fonts.families('DejaVu Sans Mono'))


if __name__ == '__main__':
    main()
