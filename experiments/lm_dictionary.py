"""Pretrains the quickstart's language model on text alone, so that it copies in context before it sees an image.

    data/dictionary_text/fetch.sh RAW
    python -m data.dictionary_text.build --raw=RAW --out=DATA --config=small
    python -m data.dictionary_text.build --raw=RAW --out=DATA --config=copying
    python -m flamingo_jax.inputs.tokenizer --data=DATA/dictionary_text/small/1.8.0 --records=30000 --out=lm.model
    python -m flamingo_jax.train --config=experiments/lm_dictionary.py --workdir=lm --config.tokenizer=lm.model \
        --config.datasets.text.path=DATA/dictionary_text/copying/1.8.0 \
        --config.steps=1800 --config.noise.text=0 --config.noise.vocabulary=0
    python -m flamingo_jax.train --config=experiments/lm_dictionary.py --workdir=lm --config.tokenizer=lm.model \
        --config.datasets.text.path=DATA/dictionary_text/copying/1.8.0
    python -m flamingo_jax.convert run --source=lm --card=experiments/lm_dictionary.md --out=experiments/lm_dictionary

This takes 23 minutes on one core: 13:22 for the first 1,800 steps, 9:24 for those with noise. Copying comes suddenly:
8 % of the labels are right at step 950, 58 % at step 1,800. Then half of the rows get noise. This teaches it to copy
from keys that are only alike, since an image is never the same key twice: 76 % at step 3,000, noisy rows included.
"""

from ml_collections import ConfigDict

from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.model.config import TINY
from flamingo_jax.training import config as training


def get_config() -> ConfigDict:
    """A decoder of 2.6M parameters: 4 layers, width 192, 4,096 pieces."""
    c = training.base()
    c.steps = 3000
    c.model.lm = ConfigDict(vars(TINY['lm']))
    c.trained = ('lm',)
    c.datasets.text = training.dataset(Documents, split='train', images=0, length=64, batch_size=32)
    c.optimizer.update(learning_rate=2e-3, warmup_steps=150, weight_decay=0.05, b2=0.98)
    c.noise.text, c.noise.vocabulary = 0.3, 1.0
    c.checkpoint_every = 300
    return c
