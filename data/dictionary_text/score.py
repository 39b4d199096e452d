"""What a language model has learned of each kind of document: is the last label of a document likelier than its others?

    python -m data.dictionary_text.score --lm=BUNDLE --data=DATA_DIR/dictionary_text/full/1.8.0 [--documents=100]

The candidates are the different labels of the document: words for the kinds that bind, yes, no and kinds for the questions, names
of other things in the same language for `names`. Validation documents; prints the share right, the chance, and how many.
"""

import collections

import numpy as np
import tensorflow_datasets as tfds
from absl import app, flags
from tqdm import tqdm

import flamingo_jax
from data.dictionary_text.documents import TOLD

_LM = flags.DEFINE_string('lm', None, 'Bundle of the language model, or the workdir of its run.', required=True)
_DATA = flags.DEFINE_string('data', None, 'Folder of the prepared data set.', required=True)
_DOCUMENTS = flags.DEFINE_integer('documents', 100, 'Of each kind.')
BATCH = 16


def main(argv):
    """Reads the documents and scores them."""
    if len(argv) > 1:
        raise app.UsageError(f'unknown arguments {argv[1:]}')
    lm = flamingo_jax.load(_LM.value)
    chosen: dict[str, list[tuple[str, list[str]]]] = collections.defaultdict(list)
    for record in tfds.builder_from_directory(_DATA.value).as_data_source('validation'):
        texts = [text.decode() for text in record['texts']]
        told = [i for i, weight in enumerate(record['weights']) if weight == TOLD]
        of_kind = chosen[record['kind'].decode()]
        if told and len(of_kind) < _DOCUMENTS.value:
            labels = dict.fromkeys([texts[told[-1]], *(texts[i] for i in told)])  # The right one first.
            if len(labels) > 1:
                of_kind.append((''.join(texts[: told[-1]]), list(labels)))
    for kind, documents in sorted(chosen.items()):
        right: list[bool] = []
        for begin in tqdm(range(0, len(documents), BATCH), desc=kind, leave=False):
            prompts, candidates = zip(*documents[begin : begin + BATCH], strict=True)
            places = lm.choose([[prompt] for prompt in prompts], [[f'{c}\n' for c in row] for row in candidates])
            right += [place == 0 for place in places]
        chance = np.mean([1 / len(labels) for _, labels in documents])
        print(f'{kind:14} {np.mean(right):.3f}  chance {chance:.3f}  {len(right)} documents')


if __name__ == '__main__':
    app.run(main)
