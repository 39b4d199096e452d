"""Compares the words that CIDEr counts with those of the official Java tokenizer, on texts of your own.

    python -m tests.caption_words FILE [FILE ...]

It needs Java and the extra `parity`. A FILE is a text with a caption a line, or JSON, of which every `caption`,
`question` and `answer` is taken. It prints how many texts have the same words, the seconds of each side, and the first
texts that differ.
"""

import json
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from flamingo_jax.evaluation.ptb_tokenizer import tokenize
from tests import metric_originals

SHOWN = 10


def texts_of(value: Any) -> Iterator[str]:
    """All captions, questions and answers of a JSON value."""
    if isinstance(value, dict):
        for key, one in value.items():
            if key in ('caption', 'question', 'answer') and isinstance(one, str):
                yield one
            else:
                yield from texts_of(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts_of(one)


def main() -> None:
    """Prints the comparison of each file on the command line."""
    for name in sys.argv[1:]:
        content = pathlib.Path(name).read_text(encoding='utf-8')
        texts = list(texts_of(json.loads(content))) if name.endswith('.json') else content.splitlines()
        texts = [' '.join(text.split()) for text in texts if text.strip()]
        start = time.perf_counter()
        ours = tokenize(texts)
        middle = time.perf_counter()
        theirs = metric_originals.ptb(texts)
        seconds = middle - start, time.perf_counter() - middle
        different = [i for i, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other]
        print(
            f'{name}: {len(texts) - len(different)} of {len(texts)} equal; {seconds[0]:.1f} s, Java {seconds[1]:.1f} s'
        )
        for i in different[:SHOWN]:
            print(f'  {texts[i]!r}\n    here {" ".join(ours[i])}\n    Java {" ".join(theirs[i])}')


if __name__ == '__main__':
    main()
