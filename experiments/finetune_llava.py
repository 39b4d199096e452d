"""Fine-tunes a LLaVA 1.5 on your own images and texts, by the two stages of its recipe: projector, then instructions.

    python -m flamingo_jax.convert llava --source=FOLDER --out=bundles/llava
    python -m flamingo_jax.train --config=experiments/finetune_llava.py:projector --workdir=runs/projector \
        --config.start=bundles/llava --config.datasets.own.path=DATA/captions
    python -m flamingo_jax.convert run --source=runs/projector --out=bundles/projector
    python -m flamingo_jax.train --config=experiments/finetune_llava.py --workdir=runs/finetuned \
        --config.start=bundles/projector --config.datasets.own.path=DATA/instructions
    python -m flamingo_jax.convert run --source=runs/finetuned --out=bundles/finetuned
    python -m flamingo_jax.convert to_llava --source=bundles/finetuned --out=finetuned

A LLaVA that answers already needs the second stage alone. The data are a `.jsonl` file (data/README.md says what it
holds), or what `data.instructions.build` makes of LLaVA-Instruct-150K or the mix of LLaVA 1.5. Their turns are
`Question: ... Answer: ...`, and not Vicuna's.

`tests/test_finetune_descendants.py` runs both stages with a tiny LLaVA of random weights. The values below were not
tried on published weights, which were not at hand.
"""

from ml_collections import ConfigDict

from flamingo_jax.conversion import llava
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.training import config as training

# What matters of the config.json of llava-hf/llava-1.5-7b-hf.
PUBLISHED_7B = dict(
    model_type='llava',
    text_config=dict(model_type='llama', max_position_embeddings=4096, vocab_size=32_064),
    vision_config=dict(model_type='clip_vision_model', hidden_size=1024, intermediate_size=4096, image_size=336)
    | dict(patch_size=14, num_attention_heads=16, num_hidden_layers=24),
)
LINEAR = ('query', 'key', 'value', 'out', 'up', 'gate', 'down')


def get_config(stage: str = 'instructions') -> ConfigDict:
    """LLaVA 1.5's own learning rates and ranks (its scripts pretrain.sh and finetune_lora.sh).

    stage: 'projector', or 'instructions', which trains LoRA and the projector; or '7b', for `plan`: the second stage of
      the published shape, without a bundle.
    """
    if stage not in ('projector', 'instructions', '7b'):
        raise UserError(f"The stage is {stage!r}. Give finetune_llava.py:projector, or no stage for 'instructions'.")
    c = training.base()
    c.steps = 1000
    c.start = 'bundles/llava'
    c.trained = ('resampler',)  # The projector. The bridge has no parameters.
    # An image of 336 pixels is 576 of the tokens.
    c.datasets.own = training.dataset(Documents, path='own.jsonl', length=1024, images=1, from_start=True)
    c.optimizer.update(weight_decay=0.0, warmup_steps=30, final_fraction=0.0)
    if stage == 'projector':
        c.datasets.own.batch_size = 256
        c.optimizer.learning_rate = 1e-3
    else:
        c.datasets.own.batch_size = 128
        c.lora.update(rank=128, alpha=256.0, targets=LINEAR)
        c.optimizer.learning_rate = 2e-4
        c.optimizer.tree_factors.resampler = 0.1
    if stage == '7b':
        c.start, c.lm, c.vision = '', 'bundles/lm', 'bundles/vision'
        c.model = ConfigDict(llava.config_of(PUBLISHED_7B, {}).to_json())
        c.mesh = dict(data=1, fsdp=-1, tensor=1)
    c.remat = 'full'  # Activations are not kept for the backward pass.
    c.checkpoint_every = 200
    return c
