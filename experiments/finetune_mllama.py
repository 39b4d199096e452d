"""Fine-tunes a Llama 3.2 Vision on your own images and texts: its gated blocks and projector, and LoRA if wanted.

    python -m flamingo_jax.convert mllama --source=FOLDER --out=bundles/mllama
    python -m flamingo_jax.train --config=experiments/finetune_mllama.py --workdir=runs/finetuned \
        --config.start=bundles/mllama --config.datasets.own.path=FOLDER/own.jsonl [--config.lora.rank=8]
    python -m flamingo_jax.convert run --source=runs/finetuned --out=bundles/finetuned
    python -m flamingo_jax.convert to_mllama --source=bundles/finetuned --out=finetuned

data/README.md says what own.jsonl holds. Documents may have several images. In training, an image is one tile of 560
pixels, and not a canvas of up to four. `--config.trained="()"` with a rank trains LoRA alone.

`finetune_mllama.py:11b` and `:90b` have the published shapes without a bundle, for `plan` (docs/scaling.md).
`tests/test_finetune_descendants.py` trains a tiny Llama 3.2 Vision of random weights. The values below were not tried
on published weights, which were not at hand.
"""

from ml_collections import ConfigDict

from experiments import finetune_open_flamingo
from flamingo_jax.conversion import mllama
from flamingo_jax.ranges import choose


def get_config(shape: str = '') -> ConfigDict:
    """As of an OpenFlamingo, at a fifth of the learning rate. The rows of the extra tokens stay as they are.

    shape: '' is that of the bundle; '11b' or '90b', for `plan`.
    """
    c = finetune_open_flamingo.get_config()
    c.start = 'bundles/mllama'
    c.trained = ('resampler', 'xattn')
    c.optimizer.learning_rate = 1e-5
    if shape:
        choose('', dict(shape=shape), shape=mllama.PUBLISHED)
        c.start, c.lm, c.vision, c.image_tag = '', 'bundles/lm', 'bundles/vision', 'token'
        c.model = ConfigDict(mllama.config_of(mllama.PUBLISHED[shape]).to_json())
        c.mesh = dict(data=1, fsdp=-1, tensor=1)
    return c
