"""What a bridge costs its language model where there is no image: bits a character of English text.

    python -m research.analyses.text_alone --lm=BUNDLE RUN_OR_BUNDLE ... [--pieces=64]

The text is Python's own reference, which every Python has (`pydoc_data.topics`), in pieces of 256 tokens. Prints the
bits a character of the language model alone, and of each Flamingo on it.
"""

import argparse
import math
import pydoc_data.topics

import numpy as np

import flamingo_jax
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inputs.tokenizer import Tokenizer

PIECE, BATCH = 256, 8


def pieces_of(tokenizer: Tokenizer, number: int) -> list[tuple[str, str]]:
    """Each piece in two: where it begins, which is given, and the rest."""
    ids = tokenizer.encode('\n\n'.join(text for _, text in sorted(pydoc_data.topics.topics.items())))
    pieces = [ids[i : i + PIECE] for i in range(0, len(ids), PIECE)][:number]
    return [(tokenizer.decode(piece[:8]), tokenizer.decode(piece[8:])) for piece in pieces]


def bits_a_character(model: Pretrained, pieces: list[tuple[str, str]]) -> float:
    """Of the rest of each piece, after where it begins."""
    nats = 0.0
    for i in range(0, len(pieces), BATCH):
        batch = pieces[i : i + BATCH]
        prompts = [[model.tokenizer.literal(begin)] for begin, _ in batch]
        nats -= float(np.sum(model.score(prompts, [[model.tokenizer.literal(rest)] for _, rest in batch])))
    return nats / math.log(2) / sum(len(rest) for _, rest in pieces)


def main() -> None:
    """Prints a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--lm', required=True, help='bundle of the language model')
    parser.add_argument('flamingos', nargs='*', help='bundles without it, or workdirs of runs')
    parser.add_argument('--pieces', type=int, default=64, help='pieces of 256 tokens')
    arguments = parser.parse_args()
    alone = flamingo_jax.load(arguments.lm)
    pieces = pieces_of(alone.tokenizer, arguments.pieces)
    bare = bits_a_character(alone, pieces)
    print(f'{"the language model alone":40} {bare:.4f}', flush=True)
    for path in arguments.flamingos:
        bits = bits_a_character(flamingo_jax.load(path, lm=arguments.lm), pieces)
        print(f'{path:40} {bits:.4f} {bits / bare - 1:+.2%}', flush=True)


if __name__ == '__main__':
    main()
