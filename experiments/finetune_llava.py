"""Fine-tunes a LLaVA on your own images and texts: its projector, and LoRA if wanted.

    python -m flamingo_jax.convert llava --source=FOLDER --out=bundles/llava
    python -m flamingo_jax.train --config=experiments/finetune_llava.py --workdir=runs/finetuned \
        --config.start=bundles/llava --config.datasets.own.path=FOLDER/own.jsonl [--config.lora.rank=128]
    python -m flamingo_jax.convert run --source=runs/finetuned --out=bundles/finetuned
    python -m flamingo_jax.convert to_llava --source=bundles/finetuned --out=finetuned

data/README.md says what own.jsonl holds. Each image takes 576 tokens of a document. The whole language model is
trained, as in LLaVA's second stage, by

    --config.trained="('resampler', 'lm')"
"""

from ml_collections import ConfigDict

from experiments import finetune_open_flamingo


def get_config() -> ConfigDict:
    """LLaVA 1.5's own learning rate of the second stage, and its 2,048 tokens."""
    c = finetune_open_flamingo.get_config()
    c.start, c.trained = 'bundles/llava', ('resampler',)
    c.datasets.own.update(length=2048, images=3)
    c.optimizer.learning_rate = 2e-5
    return c
