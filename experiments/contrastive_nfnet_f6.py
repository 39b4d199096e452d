"""Contrastive pretraining of the trunk by the paper's recipe (appendix B.1.3). Nobody has run it with this code.

    python -m flamingo_jax.plan --config=experiments/contrastive_nfnet_f6.py --topology=v4:8x8x8
    python -m flamingo_jax.train --config=experiments/contrastive_nfnet_f6.py --workdir=runs/nfnet_f6 \
        --config.tokenizer=TOKENIZER
    python -m flamingo_jax.convert run --source=runs/nfnet_f6 --out=bundles/nfnet_f6

The last command's bundle is what experiments/flamingo_3b.py reads as its trunk, there with images of 320 pixels. The
data sets are pairs that data/pairs builds (data/README.md): the paper's ALIGN and LTIP are not public.

The paper gives neither the size of its BERT nor the weights of the data sets, nor the initial temperature. Here they
are BERT-base, 1 and 1, and CLIP's. An update has one gradient of each data set, each of a batch of 16,384 pairs.
"""

from ml_collections import ConfigDict

from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.model.config import ContrastiveConfig, FlamingoConfig, LanguageModelConfig
from flamingo_jax.model.vision.nfnet import NFNET_F6
from flamingo_jax.training import config as training
from flamingo_jax.training.objectives.contrastive import Paired

# Devlin et al. 2019; without their embedding of segments, and with norms before the layers, not behind.
BERT_BASE = LanguageModelConfig(
    width=768,
    depth=12,
    heads=12,
    kv_heads=12,
    head_dim=64,
    ffw_width=3072,
    context=64,
    norm='layer',
    norm_eps=1e-12,
    norm_embeddings=True,
    activation='gelu',
    bias=True,
    positions='learned',
    scale_embeddings=False,
)


def get_config() -> ConfigDict:
    """435M parameters of the trunk, 110M of the text tower."""
    c = training.base()
    c.steps = 1_200_000
    model = FlamingoConfig(lm=BERT_BASE, vision=NFNET_F6, image_size=288, contrastive=ContrastiveConfig())
    c.model = ConfigDict(model.to_json())
    c.trained = ('vision', 'lm', 'contrastive')
    for name in ('align', 'ltip'):
        c.datasets[name] = training.dataset(
            Documents,
            row=Paired,
            path=f'DATA/pairs/{name}/1.0.0',
            length=64,
            images=1,
            batch_size=16_384,
            space=1.0,  # As the texts of the evaluations begin.
            flip=True,
            recolour=True,
            workers=16,
        )
    c.optimizer.update(learning_rate=1e-3, warmup_steps=0, decay='linear', final_fraction=0.0, weight_decay=0.0)
    c.optimizer.update(clip=10.0, clip_trunk=0.01)
    c.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))
    # 16 pairs of a chip at a time, whatever the number of chips.
    for chips, shape in ((8, '2x2x2'), (64, '4x4x4'), (512, '8x8x8'), (1024, '8x8x16')):
        c.machines[f'v4:{shape}'] = training.machine(
            data=chips, fsdp=1, tensor=1, micro_batches=1024 // chips, remat='full'
        )
    return c
