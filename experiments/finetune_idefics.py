"""Fine-tunes an IDEFICS on your own images and texts: the parts that it trained itself, and LoRA if wanted.

    python -m flamingo_jax.convert idefics --source=FOLDER --out=bundles/idefics
    python -m flamingo_jax.train --config=experiments/finetune_idefics.py --workdir=runs/finetuned \
        --config.start=bundles/idefics --config.datasets.own.path=FOLDER/own.jsonl [--config.lora.rank=8]
    python -m flamingo_jax.convert run --source=runs/finetuned --out=bundles/finetuned
    python -m flamingo_jax.convert to_idefics --source=bundles/finetuned --out=finetuned

data/README.md says what own.jsonl holds. An IDEFICS without a resampler needs this too:

    --config.trained="('xattn', 'extra_tokens')"
"""

from ml_collections import ConfigDict

from experiments import finetune_open_flamingo


def get_config() -> ConfigDict:
    """As of an OpenFlamingo, at two fifths of the learning rate: IDEFICS's own was half of OpenFlamingo's."""
    c = finetune_open_flamingo.get_config()
    c.start = 'bundles/idefics'
    c.optimizer.learning_rate = 2e-5
    return c
