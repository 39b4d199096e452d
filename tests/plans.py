"""Compares what a plan compiles with what a run compiles, for any config and without its bundles."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
from ml_collections import ConfigDict

from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.vision.efficientnet import EfficientNetConfig
from flamingo_jax.parallel.mesh import make_mesh
from flamingo_jax.planning import programs
from flamingo_jax.training.assemble import assemble

ROOT = pathlib.Path(__file__).parents[1]
TOKENIZER = ROOT / 'experiments/lm_names/tokenizer.model'


def stub(folder: pathlib.Path, config: FlamingoConfig, tag: str | None = None) -> str:
    """A bundle without parameters: what is assembled reads none."""
    folder.mkdir(parents=True)
    trees = [name for name in ('lm', 'vision', 'resampler', 'xattn') if getattr(config, name) is not None]
    trees += ['extra_tokens'] if config.extra_tokens else []
    fields = dict(model=config.to_json(), image_tag=tag, checksums=dict.fromkeys(trees, 'x'))
    (folder / 'config.json').write_text(json.dumps(fields))
    if config.lm:
        (folder / 'tokenizer.model').write_bytes(TOKENIZER.read_bytes())
    return str(folder)


def compare_with_run(config: ConfigDict, tmp_path: pathlib.Path) -> None:
    """Asserts that a plan of the config has the model, the trees, the rows and the types of its run.

    The trunk has another size than the config's, as converted ones have: the bundle's is what runs.
    """
    published = json.loads((ROOT / 'experiments/picture_dictionary/config.json').read_text())['model']
    whole = FlamingoConfig.from_json(published)
    whole = dataclasses.replace(whole, lm=dataclasses.replace(whole.lm, context=2048))  # For the longest documents.
    if config.start or not (config.lm or config.model.lm):  # Given on the command line.
        config.start = stub(tmp_path / 'start', dataclasses.replace(whole, image_size=160), 'token')
        if config.lora:  # The stub's blocks have no gate.
            config.lora.targets = tuple(name for name in config.lora.targets if name != 'gate')
    if config.resampler:
        fields = dict(lm=whole.lm, vision=whole.vision, image_size=160)
        fields |= dict(resampler=FlamingoConfig.from_json(config.model.to_dict() | dict(xattn=None)).resampler)
        config.resampler = config.start or stub(tmp_path / 'resampler', FlamingoConfig(**fields))
    if config.lm:
        lm = config.model.lm and FlamingoConfig.from_json(dict(lm=config.model.lm.to_dict())).lm or whole.lm
        depth = max(lm.depth, config.model.xattn.first + 1 if config.model.xattn else 0)
        config.lm = stub(tmp_path / 'lm', FlamingoConfig(lm=dataclasses.replace(lm, vocab_size=8192, depth=depth)))
    if config.vision:
        vision = config.model.vision and FlamingoConfig.from_json(dict(vision=config.model.vision.to_dict())).vision
        config.vision = stub(tmp_path / 'vision', FlamingoConfig(vision=vision or EfficientNetConfig(), image_size=96))
    if config.model.lm and not config.lm:
        config.tokenizer, config.model.lm.vocab_size = str(TOKENIZER), 8192
    mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    config.dtype = 'bfloat16'
    run = assemble(config)
    config.round_robin = False  # Then there is a program a data set; their shapes are the same.
    planned = programs.prepare(config, mesh)
    assert planned.model == run.model and planned.parts.trained == run.trained
    assert planned.parts.batch_shapes(mesh) == run.batch_shapes(mesh)
    frozen = planned.frozen()
    assert set(frozen) == set(run.frozen)
    for name, tree in frozen.items():
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {np.dtype(run.model.dtype_of(name))}
    if config.vision:  # The config says how large images are, or else the trunk's bundle.
        assert run.model.config.image_size == (config.image_size or 96)
