"""Goes on training an OpenFlamingo on one's own pictures and texts: what it trained itself, and if wanted LoRA on its LM.

    python -m flamingo_jax.convert open_flamingo --source=checkpoint.pt --lm=FOLDER --clip=FILE --out=bundles/open_flamingo
    python -m flamingo_jax.train --config=experiments/finetune_open_flamingo.py --workdir=runs/finetuned \
        --config.start=bundles/open_flamingo --config.datasets.own.path=FOLDER/own.jsonl [--config.lora.rank=8]
    python -m flamingo_jax.convert run --source=runs/finetuned --out=bundles/finetuned
    python -m flamingo_jax.convert to_open_flamingo --source=bundles/finetuned --out=finetuned.pt

own.jsonl: data/README.md. LoRA is merged into the bundle, and as OpenFlamingo's files hold no LM the last command then refuses.

Expect the first loss to be that of the model as it was. Measured on a tiny OpenFlamingo alone (`benchmarks/finetune.py`: random
weights, 32 pictures, learning rate 1e-3): loss 4.53 -> 0.85 in 100 steps, with LoRA of rank 8 4.51 -> 0.84 (means of ten steps;
45 s each on one shared core). The values below were not tried on published weights, which were not at hand.
"""

from ml_collections import ConfigDict

from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.training import config as training
from flamingo_jax.training.optimizer import OptimizerConfig


def get_config() -> ConfigDict:
    """Half of OpenFlamingo's own learning rate, over a cosine; blocks are recomputed, for the memory."""
    c = training.base()
    c.steps = 1000
    c.start = 'bundles/open_flamingo'
    c.datasets.own = training.dataset(Documents, path='own.jsonl', length=256, images=5, batch_size=16)
    c.optimizer = ConfigDict(vars(OptimizerConfig(learning_rate=5e-5, warmup_steps=50, final_fraction=0.1)))
    c.remat = 'full'  # Activations are not kept for the backward pass.
    c.checkpoint_every = 200
    return c
