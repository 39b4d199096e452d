"""Few-shot prompts in Python: teach words, ask questions, rank answers, look at probabilities.

    python examples/few_shot.py [--checkpoint=experiments/picture_dictionary]

Cost: about a minute on two CPU cores, most of it to compile, and 0.7 GB of memory. The model comes with the repository.

Expect:

    two examples: zev gof
    in another language: Fliegenpilz
    a question: second
    a batch: ['dax', 'wug']
    log-likelihoods: dax -1.5, wug -21.7
    likeliest: a dax (1.00), a wug (0.00)

The last digits may differ from machine to machine.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('checkpoint', 'experiments/picture_dictionary', 'A bundle, or the workdir of a training run.')
    commands.start(__doc__)

import pathlib

import numpy as np

import flamingo_jax

IMAGES = pathlib.Path(__file__).parents[1] / 'docs/pictures'


def main(checkpoint: str) -> None:
    """Asks one model in six ways."""
    flamingo = flamingo_jax.load(checkpoint)
    # An image is a path (a pathlib.Path, since a string is text), a PIL image, an array or bytes. A list of frames is a
    # video.
    gorilla, mushroom, gorilla_3d, mushroom_3d = (
        IMAGES / f'{name}.png' for name in ('gorilla', 'mushroom', 'gorilla_3d', 'mushroom_3d')
    )

    # 1. A prompt is a list of images and texts in reading order. <EOC> ends the text of an image.
    examples = [gorilla, ' dax kuv<EOC>', mushroom, ' zev gof<EOC>']
    print('two examples:', flamingo.generate([*examples, mushroom_3d]))

    # 2. The examples say what to answer: here names, which only the prompt gives.
    german = [gorilla, ' Gorilla<EOC>', mushroom, ' Fliegenpilz<EOC>', mushroom_3d]
    print('in another language:', flamingo.generate(german))

    # 3. Text may follow the last image, too.
    which = ' second<EOC> Question: which is a plant? Answer:'
    print('a question:', flamingo.generate([gorilla, ' first<EOC>', mushroom_3d, which]))

    # 4. A list of prompts is a batch. Examples with which all of them begin are read once; `remember` keeps them for
    # later calls, too.
    words = [gorilla, ' dax<EOC>', mushroom, ' wug<EOC>']
    flamingo.remember(words)
    print('a batch:', flamingo.generate([[*words, gorilla_3d], [*words, mushroom_3d]]))

    # 5. `score` gives the log-likelihood of each continuation: close-ended questions, and ranking.
    one_example = [gorilla, ' Output: dax<EOC>', gorilla_3d, ' Output:']
    one, other = flamingo.score(one_example, [' dax<EOC>', ' wug<EOC>'])
    print(f'log-likelihoods: dax {one:.1f}, wug {other:.1f}')

    # 6. As probabilities among the candidates.
    scores = flamingo.score([*words, gorilla_3d], [' dax<EOC>', ' wug<EOC>'])
    shares = np.exp(scores - np.logaddexp.reduce(scores))
    print(f'likeliest: a dax ({shares[0]:.2f}), a wug ({shares[1]:.2f})')


if __name__ == '__main__':
    main(flags.FLAGS.checkpoint)
