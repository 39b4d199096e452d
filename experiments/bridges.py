"""Bridges side by side: the same language model, trunk, data and steps, and another way from pictures to text.

    python -m flamingo_jax.train --config=experiments/bridges.py:llava,meanings --workdir=runs/llava_meanings \
        --config.lm=LMS/smollm2 --config.vision=runs/trunk \
        --config.datasets.names.path=DATA/picture_dictionary/artists/1.0.0
    python -m flamingo_jax.convert run --source=runs/llava_meanings --out=runs/llava_meanings_bundle
    python -m flamingo_jax.train --config=experiments/bridges.py:llava --workdir=runs/llava \
        --config.start=runs/llava_meanings_bundle \
        --config.datasets.captions.path=DATA/picture_dictionary/artists/1.0.0 \
        --config.datasets.games.path=DATA/picture_dictionary/artists/1.0.0

Before the comma stands the bridge; its tokens are what a picture costs in the text of the language model:

    paper     gated cross-attention of all text after a picture, as in smollm_pictures.py       1 token
    tag       gated cross-attention of a picture's tag alone                                    1 token
    llava     a prefix: each place of the trunk's output, projected by two linear maps         25 tokens
    resampler a prefix of the resampler's latents                                               8 tokens
    blip2     a prefix of a Q-Former's queries                                                  8 tokens

experiments/smollm_pictures.py has the preparation, and what is learned in the two stages.
"""

from ml_collections import ConfigDict

from experiments import smollm_pictures

PREFIX = dict(prefix=True, only_at_tag=True, every=1000)  # Before the first block alone.
BRIDGES = dict(
    paper=({}, {}),
    tag=({}, dict(only_at_tag=True)),
    llava=(dict(kind='mlp', ffw_multiplier=16), PREFIX),
    resampler=({}, PREFIX),
    blip2=(dict(kind='qformer'), PREFIX),
)


def get_config(which: str = 'paper,meanings') -> ConfigDict:
    """`which` is BRIDGE,meanings or BRIDGE."""
    bridge, _, stage = which.partition(',')
    if bridge not in BRIDGES:
        raise ValueError(f'The bridges are {", ".join(BRIDGES)}, and not {bridge!r}.')
    c = smollm_pictures.get_config(stage)
    if stage == 'meanings':
        resampler, xattn = BRIDGES[bridge]
        c.model.resampler.update(resampler)
        c.model.xattn.update(xattn)
    c.steps = 400
    return c
