"""Measures whether a language model knows, and writes, the last label of documents of each kind.

    python -m research.analyses.labels_in_text --lm=BUNDLE --data=DATA_DIR/dictionary_text/full/1.8.0 [--documents=100]

Known: the label is likelier than the document's other labels. These are words for the first four kinds; yes, no and
words for kinds for `questions`; names of other things in the same language for `names`. Written: greedy decoding gives
exactly this label. It uses validation documents and prints both shares, the chance level of the first, and the number
of documents.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('lm', None, 'Bundle of the language model, or the workdir of its run.', required=True)
    flags.DEFINE_string('data', None, 'Folder of the prepared data set.', required=True)
    flags.DEFINE_integer('documents', 100, 'Number of documents of each kind.')
    commands.start(__doc__)

import collections

import numpy as np
from tqdm import tqdm

import flamingo_jax
from data.dictionary_text.documents import TOLD
from flamingo_jax.inputs.sources.array_record import open_split

BATCH, NEW = 16, 24  # Documents at a time; tokens of an answer.


def main() -> None:
    """Scores the documents and prints the shares."""
    lm = flamingo_jax.load(flags.FLAGS.lm)
    chosen: dict[str, list[tuple[list[str], list[str]]]] = collections.defaultdict(list)
    for record in open_split(flags.FLAGS.data, 'validation'):
        texts = [text.decode() for text in record['texts']]
        told = [i for i, weight in enumerate(record['weights']) if weight == TOLD]
        of_kind = chosen[record['kind'].decode()]
        if told and len(of_kind) < flags.FLAGS.documents:
            labels = dict.fromkeys([texts[told[-1]], *(texts[i] for i in told)])  # The right one first.
            if len(labels) > 1:
                of_kind.append((texts[: told[-1]], list(labels)))
    for kind, documents in sorted(chosen.items()):
        known, written = [], []
        for begin in tqdm(range(0, len(documents), BATCH), desc=kind, leave=False):
            prompts, candidates = zip(*documents[begin : begin + BATCH], strict=True)
            places = lm.choose(prompts, [[f'{c}\n' for c in row] for row in candidates])
            known += [place == 0 for place in places]
            answers = lm.generate(prompts, max_new_tokens=NEW, stop=('\n',))
            written += [answer == row[0].strip() for answer, row in zip(answers, candidates, strict=True)]
        chance = np.mean([1 / len(labels) for _, labels in documents])
        print(
            f'{kind:14} known {np.mean(known):.3f} (chance {chance:.3f})  written {np.mean(written):.3f}  '
            f'{len(known)} documents'
        )


if __name__ == '__main__':
    main()
