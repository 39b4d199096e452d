"""Which of five images a description is of, by its likelihood after each; and its bits a character.

    python -m research.analyses.descriptions --lm=BUNDLE --data=DATA/icons/pairs/1.0.0 RUN_OR_BUNDLE ... [--number=200]

The data are held-out documents of an image and a text (`--split`). The text is scored after its own image, after
each of four others, and after none. The same text stands after each image, so that only what is seen tells them
apart: chance is .2.
"""

import argparse
import math

import numpy as np
import tqdm

import flamingo_jax
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inputs.images import Frames, ImageFormat
from flamingo_jax.inputs.sources.documents import Documents

IMAGES = 5


def read(data: str, split: str, number: int, image_format: ImageFormat) -> list[tuple[Frames, str]]:
    """Images with their texts, drawn by chance."""
    opened = Documents(path=data, split=split, length=512, images=1, batch_size=1).open(image_format)
    rng, found = np.random.default_rng(0), []
    for i in rng.permutation(len(opened))[:number]:
        chunk = next(chunk for chunk in opened.document(int(i), rng) if chunk.image)
        found.append((chunk.image(), ''.join(chunk.texts)))
    return found


def nats(model: Pretrained, documents: list[tuple[Frames, str]]) -> np.ndarray:
    """The negative log-likelihood of each text [n 6]: after its image, after four others, after none."""
    rng, out = np.random.default_rng(1), []
    for i, (image, text) in enumerate(tqdm.tqdm(documents, leave=False)):
        others = rng.choice([j for j in range(len(documents)) if j != i], IMAGES - 1, replace=False)
        prompts = [[image], *([documents[j][0]] for j in others), ['\n']]
        out.append(-model.score(prompts, [[model.tokenizer.literal(text)]] * len(prompts))[:, 0])
    return np.array(out)


def main() -> None:
    """Prints a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--lm', required=True, help='bundle of the language model')
    parser.add_argument('--data', required=True, help='folder of documents')
    parser.add_argument('--split', default='test')
    parser.add_argument('--number', type=int, default=200, help='documents')
    parser.add_argument('flamingos', nargs='+', help='bundles without the language model, or workdirs of runs')
    arguments = parser.parse_args()
    print('found: its image is the likeliest of five. Bits a character: after its image, another, none.')
    for path in arguments.flamingos:
        model = flamingo_jax.load(path, lm=arguments.lm)
        documents = read(arguments.data, arguments.split, arguments.number, model.image_format)
        lost = nats(model, documents)
        right = lost[:, 0] < lost[:, 1:IMAGES].min(axis=1)
        bits = lost.sum(axis=0) / math.log(2) / sum(len(text) for _, text in documents)
        half = 1.96 * math.sqrt(max(right.mean() * (1 - right.mean()), 1 / len(right)) / len(right))
        print(
            f'{path:40} found {right.mean():.3f} ±{half:.3f}   {bits[0]:.3f} {bits[1]:.3f} {bits[-1]:.3f}', flush=True
        )


if __name__ == '__main__':
    main()
