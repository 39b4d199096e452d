"""The formula against the compiler's own count, where that counts all: depth 1, so that no loop runs twice."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.model.bridges.gated_xattn import GatedXattnConfig
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.connectors.perceiver import PerceiverConfig
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.model.language_model import LanguageModelConfig
from flamingo_jax.model.vision.efficientnet import EfficientNetConfig
from flamingo_jax.model.vision.nfnet import NFNET_F0, NFNET_F6, NFNetConfig
from flamingo_jax.model.vision.vit import ViTConfig
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.planning import flops, programs
from flamingo_jax.training import config as training
from flamingo_jax.training.objectives.aligned import Aligned
from tests.operations import operations

pytestmark = pytest.mark.usefixtures('quick_compilation')
# The compiler also counts norms, activations and softmaxes; at these widths they are less than so much.
TOLERANCE = 0.08


def wide(positions: str, gated: bool) -> FlamingoConfig:
    lm = LanguageModelConfig(
        vocab_size=512, width=256, depth=1, heads=4, kv_heads=2, head_dim=64, ffw_width=1024, context=128
    )
    return FlamingoConfig(
        lm=dataclasses.replace(lm, positions=positions, gated_ffw=gated),
        vision=NFNetConfig(depths=(1, 1), widths=(256, 256), final_width=256),
        resampler=PerceiverConfig(latents=16, width=256, depth=1, heads=4, head_dim=64),
        xattn=GatedXattnConfig(every=1, heads=4, head_dim=64),
        image_size=32,
    )


@pytest.mark.parametrize(
    'remat, positions, gated, rank, trunk',
    [
        ('', 'rotary', True, 64, ()),
        ('full', 'relative', False, 0, ()),
        pytest.param('', 'rotary', False, 0, ('vision',), marks=pytest.mark.long),
    ],
)
def test_a_train_step_has_the_operations_that_the_compiler_counts(tiny, remat, positions, gated, rank, trunk):
    config = wide(positions, gated)
    tiny.model, tiny.remat = ConfigDict(config.to_json()), remat
    tiny.model.lm.context = 256
    tiny.trained = (*tiny.trained, *trunk)
    tiny.lora.update(rank=rank, targets=('query', 'key', 'out', 'up', 'gate', 'down'))
    tiny.datasets.pages.length, tiny.datasets.videos.length = 129, 65
    tiny.datasets.pairs = training.dataset(Documents, length=64, images=1, batch_size=8, row=Aligned)
    mesh = meshes.make_mesh(1, 1, 1, devices=jax.devices()[:1])
    run = programs.prepare(tiny, mesh)
    lowered, _ = programs.train_step(run)
    counted = flops.train_step(run.model.config, run.trained, run.sources, remat)
    parts = sum(counted[name] for name in ('vision', 'resampler', 'xattn', 'lm', *(['lora'] if rank else [])))
    assert counted['total'] == parts and (counted['recomputed'] > 0) == bool(remat)
    compiler = lowered.compile().cost_analysis()['flops']
    assert counted['total'] + counted['recomputed'] == pytest.approx(compiler, rel=TOLERANCE)


def test_a_decode_step_has_the_operations_that_the_compiler_counts(tiny):
    tiny.model = ConfigDict(wide('rotary', False).to_json())
    run = programs.prepare(tiny, meshes.make_mesh(4, 1, 1, devices=jax.devices()[:4]))
    found = programs.answering(run, 3, new=16)
    assert found.prompts == 4 and found.length == 112 and found.visible == 1  # The last image.
    counted = flops.decode_step(run.model.config, 4, 128, 1)
    assert counted / 4 == pytest.approx(found.step.compile().cost_analysis()['flops'], rel=TOLERANCE)
    counted = flops.reading(run.model.config, 4, 112, 3)
    media = flops.xattn_keys_values(run.model.config, 3 * run.model.config.media_tokens).forward  # Computed before.
    assert counted / 4 - media == pytest.approx(found.read.compile().cost_analysis()['flops'], rel=TOLERANCE)


def test_useful_operations_are_those_of_what_is_no_padding():
    """Half of the places filled: half of the products with weights, and a quarter of the attention among tokens."""
    config, trained = wide('rotary', True), ('resampler', 'xattn')
    data = Documents(length=64, images=2, lines=2, documents=4, batch_size=8)
    whole = flops.operations(config, trained, data, flops.computed(config, data))
    full = dict(tokens=8 * 2 * 64, documents=8 * 2, images=8 * 2, targets=8 * 2 * 64)
    half = {name: count / 2 for name, count in full.items()} | dict(documents=full['documents'])
    every, some = (
        flops.operations(config, trained, data, flops.useful(config, data, counts)) for counts in (full, half)
    )
    for name in ('vision', 'resampler', 'lm'):
        assert every[name] == pytest.approx(whole[name]), name
    of_media = 3 * 2 * 2 * 8 * 2 * 64 * config.media_tokens * 4 * 64  # The other image of a row is masked.
    assert whole['xattn'] - every['xattn'] == pytest.approx(of_media)
    assert some['vision'] == whole['vision'] / 2 and some['resampler'] == whole['resampler'] / 2
    among = 3 * 2 * 2 * 8 * 2 * 64 * 64 * 4 * 64
    assert some['lm'] == pytest.approx((whole['lm'] - among) / 2 + among / 4)


def test_blocks_below_the_first_gated_one_and_tokens_beside_the_tag():
    """Nothing flows back below the first gated block; with `only_at_tag`, its tokens alone are of use."""
    config = wide('rotary', False)
    deep = dataclasses.replace(config, lm=dataclasses.replace(config.lm, depth=4))
    late = dataclasses.replace(deep, xattn=dataclasses.replace(deep.xattn, first=3))
    data = Documents(length=64, images=1, batch_size=8)
    forward = flops.lm_blocks(deep, 64, 64).forward * 8

    def lm(config, trained):
        return flops.train_step(config, trained, dict(x=data))['lm']

    assert lm(deep, ('xattn',)) - lm(late, ('xattn',)) == pytest.approx(
        (flops.lm_blocks(deep, 64, 64).total(False) * 8 - forward) * 3 / 4
    )
    assert lm(deep, ('xattn', 'extra_tokens')) == lm(late, ('xattn', 'extra_tokens'))
    tagged = dataclasses.replace(
        config, image_tag=(7, 8, 9), xattn=config.xattn.as_kind('selective_xattn', only_at_tag=True)
    )
    counts = dict(tokens=512, documents=8, images=8, targets=512)
    all_tokens, at_tags = (
        flops.operations(c, ('xattn',), data, flops.useful(c, data, counts))['xattn'] for c in (config, tagged)
    )
    keys = flops.xattn_keys_values(config, config.media_tokens).total(True) * 8
    assert at_tags - keys == pytest.approx((all_tokens - keys) * 3 / 64)


VIT = ViTConfig(width=64, depth=2, heads=4, ffw_width=256, resolution=56, class_feature=True)


@pytest.mark.parametrize('kind', ['perceiver', 'mlp', 'pooling', 'qformer'])
def test_a_resampler_has_the_operations_that_the_compiler_counts(kind):
    config = wide('rotary', False)
    config = dataclasses.replace(config, resampler=config.resampler.as_kind(kind))
    module, features = config.resampler.module(256), jnp.zeros((1, 1, 2, config.vision.spatial(32), 256))
    params = jax.eval_shape(module.init, jax.random.key(0), features)
    compiled = jax.jit(module.apply).lower(nn.meta.unbox(params), features).compile()
    counted = flops.resampler(config, 2, config.vision.spatial(32)).forward
    assert counted == pytest.approx(compiled.cost_analysis()['flops'], rel=TOLERANCE)


@pytest.mark.parametrize('config, size', [(NFNET_F0, 64), (EfficientNetConfig(), 224), (VIT, 60)])
def test_a_trunk_has_the_operations_of_its_products(config, size):
    """Against a count over the traced program, whose loops are multiplied by their rounds."""
    model = Flamingo(FlamingoConfig(vision=config, image_size=size))
    params = jax.eval_shape(model.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((1, 1, 1, size, size, 3), jnp.uint8)
    params = nn.meta.unbox(params)
    assert config.operations(size) == pytest.approx(operations(model.features, params, images), rel=1e-3)
    assert config.spatial(size) == jax.eval_shape(model.features, params, images).shape[3]


def test_the_papers_trunk_at_the_papers_resolution():
    """F6 has 377e9 multiply-adds at 576 pixels (Brock et al. 2021, table 3); grids are rounded up to whole places."""
    assert NFNET_F6.spatial(320) == 100
    assert NFNET_F6.operations(576) / 2 == pytest.approx(377.28e9, rel=0.01)
    assert NFNET_F6.operations(320) == pytest.approx(2 * 377.28e9 * (320 / 576) ** 2, rel=0.02)
