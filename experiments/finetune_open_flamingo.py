"""Fine-tunes an OpenFlamingo on your own images and texts: the parts that it trained itself, and LoRA if wanted.

    python -m flamingo_jax.convert open_flamingo --source=checkpoint.pt --lm=FOLDER --clip=FILE \
        --out=bundles/open_flamingo
    python -m flamingo_jax.train --config=experiments/finetune_open_flamingo.py --workdir=runs/finetuned \
        --config.start=bundles/open_flamingo --config.datasets.own.path=FOLDER/own.jsonl [--config.lora.rank=8]
    python -m flamingo_jax.convert run --source=runs/finetuned --out=bundles/finetuned
    python -m flamingo_jax.convert to_open_flamingo --source=bundles/finetuned --out=finetuned.pt

data/README.md says what own.jsonl holds. LoRA is merged into the language model of the bundle. OpenFlamingo's files
hold no language model, so the last command then refuses.

Expect the first loss to be that of the model before training. Only a tiny OpenFlamingo was measured
(`research/analyses/finetune.py`: random weights, 32 images, learning rate 1e-3). Its loss went from 4.53 to 0.85 in 100
steps, and with LoRA of rank 8 from 4.51 to 0.84 (means of ten steps; 45 s each on one shared core). The values below
were not tried on published weights, which were not at hand.
"""

from ml_collections import ConfigDict

from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.training import config as training


def get_config() -> ConfigDict:
    """Half of OpenFlamingo's own learning rate, over a cosine; blocks are recomputed, for the memory."""
    c = training.base()
    c.steps = 1000
    c.start = 'bundles/open_flamingo'
    # Of a long document the beginning: an answer without its image teaches to guess.
    c.datasets.own = training.dataset(Documents, path='own.jsonl', length=256, images=5, from_start=True, batch_size=16)
    c.optimizer.update(learning_rate=5e-5, warmup_steps=50, final_fraction=0.1)
    c.remat = 'full'  # Activations are not kept for the backward pass.
    c.checkpoint_every = 200
    return c
