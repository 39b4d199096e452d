"""A model as StableHLO answers as `generate` does, in a process that has none of this package's code."""

import dataclasses
import json
import os
import pathlib
import runpy
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from flamingo_jax.checkpoints import bundle
from flamingo_jax.checkpoints.converted import write
from flamingo_jax.conversion import llava
from flamingo_jax.errors import UserError
from flamingo_jax.inference import decode, exported, pretrained
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.inputs.prompts import as_frames
from flamingo_jax.planning.topology import parse
from tests import peers

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLE = ROOT / 'examples/answer_exported.py'
# The example, where nothing of the package can be imported.
ALONE = f'import runpy, sys; sys.modules["flamingo_jax"] = None; runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")'
STEPS = 6

pytestmark = pytest.mark.usefixtures('quick_compilation')


def with_bridge(flamingo, seed=4, **changes):
    """The same model with another bridge, whose gates are open."""
    config = dataclasses.replace(flamingo.config, xattn=flamingo.config.xattn.as_kind(**changes))
    model = dataclasses.replace(flamingo.model, config=config)
    shapes = bundle.shapes_of(config)['xattn']
    rng = np.random.default_rng(seed)
    xattn = jax.tree.map(lambda one: jnp.asarray(0.3 * rng.standard_normal(one.shape), jnp.float32), shapes)
    return dataclasses.replace(flamingo, model=model, params=flamingo.params | dict(xattn=xattn))


OTHERS = ('all_images', 'at_tag', 'llava', 'bfloat16')


@pytest.fixture(scope='module', params=['last_image', *(pytest.param(one, marks=pytest.mark.long) for one in OTHERS)])
def folder(request, pretrained, tmp_path_factory):
    """A workdir of the example with the tiny model of a kind, and its bundle."""
    folder = tmp_path_factory.mktemp(request.param)
    kinds = dict(
        last_image=dict(kind='gated_xattn'),
        all_images=dict(kind='gated_xattn', only_last_image=False),
        at_tag=dict(kind='selective_xattn', only_at_tag=True, ffw_where_seen=True),
    )
    if request.param == 'llava':
        peers.write_golden(folder / 'source', 'llava')
        write(llava.convert, str(folder / 'source'), str(folder / 'bundle'))
    else:
        one = with_bridge(pretrained, **kinds.get(request.param, kinds['last_image']))
        bundle.save(folder / 'bundle', one.config, one.params, one.tokenizer, 'text', card='')
    dtype = request.param if request.param == 'bfloat16' else 'float32'
    # In a process of its own: symbols of sizes are no whole numbers, as annotations that are checked here say.
    done = command('convert', 'stablehlo', f'--source={folder}/bundle', f'--out={folder}/model', f'--dtype={dtype}')
    assert done.returncode == 0, done.stderr
    return folder, dtype


def command(name, *arguments):
    line = [sys.executable, '-m', f'flamingo_jax.{name}', *arguments]
    return subprocess.run(line, cwd=ROOT, env=os.environ, capture_output=True, text=True)


def test_a_process_without_this_package_answers_as_generate_does(folder, stills):
    folder, dtype = folder
    flamingo = pretrained.load(folder / 'bundle', dtype=dtype)
    a, b, c = stills[:3]
    said = (' w1 w2', ' w3') if 'llava' in folder.name else (' dax<EOC>', ' mi<EOC>')
    prompts = [[a, said[0], b, said[1], c], [b, said[1]], ['w4' if 'llava' in folder.name else ' lo']]
    np.savez(folder / 'prompts.npz', **runpy.run_path(str(EXAMPLE))['arrays'](flamingo, prompts))
    line = [sys.executable, '-c', ALONE, f'--workdir={folder}', f'--steps={STEPS}']
    done = subprocess.run(line, cwd=folder, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [json.JSONDecoder().raw_decode(line)[0] for line in done.stdout.splitlines()]
    assert len(set(map(str, found))) == len(prompts)  # Images and texts decide.
    assert found == [flamingo.answers([prompt], Sampling(STEPS))[0].tokens for prompt in prompts]


def test_its_manifest_describes_the_programs(folder):
    folder, dtype = folder
    about = json.loads((folder / 'model/manifest.json').read_text())
    assert about['platforms'] == ['cpu', 'tpu', 'cuda'] and (folder / 'model' / about['tokenizer']).is_file()
    for name, program in about['programs'].items():
        held = export.deserialize((folder / 'model' / program['file']).read_bytes())
        assert held.platforms == exported.PLATFORMS and held.calling_convention_version == program['calling_convention']
        for avals, told in ((held.in_avals, program['inputs']), (held.out_avals, program['outputs'])):
            assert [(str(one['shape']).replace("'", ''), one['dtype']) for one in told] == [
                (str(list(one.shape)), one.dtype.name) for one in avals
            ]
        kept = [one for one in program['inputs'] if one['name'].startswith('parameters/')]
        assert name == 'encode' or {one['dtype'] for one in kept} == {dtype}


@pytest.mark.long
def test_the_same_files_compile_for_a_tpu(folder):
    pytest.importorskip('libtpu')
    (device, *_) = parse('v5e:2x2').devices()
    about, sizes = json.loads((folder[0] / 'model/manifest.json').read_text()), dict(n=3, t=1, b=2, l=16, p=32)
    for program in about['programs'].values():
        held = export.deserialize((folder[0] / 'model' / program['file']).read_bytes())
        shapes = [[int(eval(str(size), dict(sizes))) for size in one['shape']] for one in program['inputs']]
        avals = [
            jax.ShapeDtypeStruct(shape, one['dtype'], sharding=jax.sharding.SingleDeviceSharding(device))
            for shape, one in zip(shapes, program['inputs'], strict=True)
        ]
        arguments, _ = jax.tree.unflatten(held.in_tree, avals)
        jax.jit(held.call).trace(*arguments).lower(lowering_platforms=('tpu',)).compile()


def test_the_frames_of_a_video_are_any_number(folder):
    folder, dtype = folder
    flamingo, rng = pretrained.load(folder / 'bundle', dtype=dtype), np.random.default_rng(0)
    if flamingo.config.resampler.frames == 0:
        pytest.skip('It takes no videos.')
    encode = export.deserialize((folder / 'model/encode.jax').read_bytes())
    params = exported.named({name: flamingo.params[name] for name in ('vision', 'resampler')})
    for frames in (2, 4):
        video = as_frames(list(rng.integers(0, 256, (frames, 16, 16, 3), np.uint8)), flamingo.image_format)
        (expected,) = decode.resample(flamingo.model, flamingo.params, [video])
        found = np.asarray(encode.call(params, video[None])['media'][0])
        np.testing.assert_allclose(*(x.astype(np.float32) for x in (found, expected)), atol=1e-5)


def test_what_cannot_be_exported_is_refused_before_anything_is_written(pretrained, tmp_path):
    one = pretrained.language_model
    bundle.save(tmp_path / 'lm', one.config, one.params, one.tokenizer, None, card='')
    with pytest.raises(UserError, match='does not write about images'):
        exported.write(str(tmp_path / 'lm'), str(tmp_path / 'out'))
    bundle.save(tmp_path / 'whole', pretrained.config, pretrained.params, pretrained.tokenizer, 'text', card='')
    with pytest.raises(UserError, match='quantised'):
        exported.write(str(tmp_path / 'whole'), str(tmp_path / 'out'), dtype='int8')
    assert not (tmp_path / 'out').exists()
