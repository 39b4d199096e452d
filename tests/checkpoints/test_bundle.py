"""Bundles: what is saved is what is loaded, bit for bit; half a bundle never stands."""

import dataclasses
import json
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flamingo_jax
from flamingo_jax.checkpoints import bundle
from flamingo_jax.conversion.readers import read_weights
from flamingo_jax.conversion.vision_trunks import efficientnet_lite0_file, efficientnet_params
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.vision.nfnet import NFNetConfig
from flamingo_jax.parallel.mesh import make_mesh

pytestmark = [
    pytest.mark.usefixtures('quick_compilation'),
    # Orbax leaves what it was reading when one of several files is damaged.
    pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
]


@pytest.fixture(scope='module')
def path(pretrained, tmp_path_factory):
    path = tmp_path_factory.mktemp('bundle') / 'tiny'
    bundle.save(path, pretrained.config, pretrained.params, pretrained.tokenizer, 'text', '# Tiny\n')
    return path


def test_round_trip_is_bit_identical(path, pretrained, stills):
    loaded = flamingo_jax.load(path)
    assert loaded.config == pretrained.config
    jax.tree.map(np.testing.assert_array_equal, loaded.params, pretrained.params)
    prompt = [stills[0], ' Output:']
    assert loaded.generate(prompt, max_new_tokens=4) == pretrained.generate(prompt, max_new_tokens=4)
    assert bundle.read(path).checksums['lm'] == bundle.checksum(loaded.params['lm'])


def test_a_tree_that_is_written_in_pieces_is_the_same(pretrained, path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bundle, 'LARGE', 0)
    monkeypatch.setattr(bundle, 'PIECE', 3000)
    with bundle.on_disk(tmp_path / 'pieces') as empty:
        lm = jax.tree_util.tree_map_with_path(
            lambda keys, leaf: empty([key.key for key in keys], leaf.shape, leaf.dtype), pretrained.params['lm']
        )
        jax.tree.map(np.copyto, lm, pretrained.params['lm'])
        bundle.save(tmp_path / 'pieces', pretrained.config, {'lm': lm}, None, None, '', progress=True)
    bars = capsys.readouterr().err
    assert 'write:' in bars and 'checksums: 100%' in bars
    up = tmp_path / 'pieces/params/lm/state/blocks.ffw.up.kernel'
    assert sum(file.is_file() for file in up.rglob('*')) > 3
    assert [folder.name for folder in tmp_path.iterdir()] == ['pieces']
    assert not any(
        str(tmp_path).encode() in file.read_bytes() for file in (tmp_path / 'pieces').rglob('*') if file.is_file()
    )
    saved = bundle.read(tmp_path / 'pieces')
    assert saved.checksums['lm'] == bundle.read(path).checksums['lm']
    jax.tree.map(np.testing.assert_array_equal, saved.params('lm'), pretrained.params['lm'])


def test_the_weights_of_the_installed_trunk_may_be_left_out(tmp_path):
    vision, trunk = efficientnet_params(read_weights(efficientnet_lite0_file()))
    rng = np.random.default_rng(0)
    mean, std = (rng.normal(size=vision.width).astype(np.float32) for _ in range(2))
    whole = {'vision': {'trunk': trunk, 'mean': mean, 'std': std}}
    bundle.save(tmp_path / 'small', FlamingoConfig(vision=vision), whole, None, None, '', packaged_trunk=True)
    assert sum(file.stat().st_size for file in (tmp_path / 'small').rglob('*')) < 100_000
    small = bundle.read(tmp_path / 'small')
    jax.tree.map(np.testing.assert_array_equal, small.params('vision'), whole['vision'])
    assert small.checksums['vision'] == bundle.checksum(whole['vision'])
    read = small.params('vision', jnp.bfloat16, jax.tree.map(lambda _: whole_mesh(), whole['vision']))
    assert all(leaf.dtype == jnp.bfloat16 and len(leaf.devices()) == 8 for leaf in jax.tree.leaves(read))


def test_the_language_model_may_be_left_out(path, pretrained, tmp_path):
    """It is then another bundle, which must be the one that the rest was trained with."""
    parts = pretrained.config, pretrained.params, pretrained.tokenizer, 'text', '# Apart'
    bundle.save(tmp_path / 'apart', *parts, without_lm=True)
    alone = FlamingoConfig(lm=pretrained.config.lm)
    bundle.save(tmp_path / 'lm', alone, {'lm': pretrained.params['lm']}, pretrained.tokenizer, None, '')
    other = jax.tree.map(lambda x: x + 1, pretrained.params['lm'])
    bundle.save(tmp_path / 'other', alone, {'lm': other}, pretrained.tokenizer, None, '')
    loaded = flamingo_jax.load(tmp_path / 'apart', lm=tmp_path / 'lm')
    jax.tree.map(np.testing.assert_array_equal, loaded.params, pretrained.params)
    assert loaded.checksums == bundle.read(path).checksums
    with pytest.raises(FileNotFoundError, match='apart is not in the bundle. Its README.md says .* --lm=BUNDLE'):
        flamingo_jax.load(tmp_path / 'apart')
    with pytest.raises(ValueError, match='other is not the language model of .*apart'):
        flamingo_jax.load(tmp_path / 'apart', lm=tmp_path / 'other')


def whole_mesh():
    return jax.sharding.NamedSharding(make_mesh(data=8), jax.sharding.PartitionSpec())


def test_loads_straight_into_the_shards_of_a_mesh(path, pretrained, stills):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    loaded = flamingo_jax.load(path, mesh=mesh)
    kernel = loaded.params['lm']['blocks']['ffw']['up']['kernel']
    assert kernel.sharding.shard_shape(kernel.shape) == (3, 16, 32)
    prompt = [stills[0], ' Output:']
    scores = loaded.score(prompt, [' dax', ' wug'])
    np.testing.assert_allclose(scores, pretrained.score(prompt, [' dax', ' wug']), rtol=1e-4)


def test_dtype_spares_the_trunk(path):
    loaded = flamingo_jax.load(path, dtype=jnp.bfloat16)
    assert loaded.params['lm']['blocks']['ffw']['up']['kernel'].dtype == jnp.bfloat16
    assert loaded.params['vision']['mean'].dtype == jnp.float32


def test_dtype_is_that_of_an_nfnet(pretrained, tmp_path):
    """Which the paper keeps and computes in bfloat16."""
    vision = NFNetConfig(depths=(1, 2), widths=(32, 32), group_width=8, final_width=24)
    config = dataclasses.replace(pretrained.config, vision=vision)
    shapes = nn.meta.unbox(jax.eval_shape(flamingo_jax.Flamingo(config).init, jax.random.key(0)))['vision']
    params = pretrained.params | {'vision': jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)}
    bundle.save(tmp_path / 'nfnet', config, params, pretrained.tokenizer, 'text', '')
    loaded = flamingo_jax.load(tmp_path / 'nfnet', dtype=jnp.bfloat16)
    assert loaded.config == config
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded.params['vision'])} == {jnp.dtype(jnp.bfloat16)}


def test_errors_name_the_thing(path, pretrained, tmp_path):
    with pytest.raises(FileNotFoundError, match='neither a bundle'):
        flamingo_jax.load(tmp_path / 'nothing')
    with pytest.raises(FileExistsError, match='exists already'):
        bundle.save(path, pretrained.config, {}, None, None, '')
    trunk = tmp_path / 'trunk'
    config = flamingo_jax.FlamingoConfig(vision=pretrained.config.vision)
    bundle.save(trunk, config, {'vision': pretrained.params['vision']}, None, None, '')
    with pytest.raises(ValueError, match='no language model'):
        flamingo_jax.load(trunk)
    with pytest.raises(ValueError, match="has no tree 'lm'"):
        bundle.read(trunk).params('lm')
    lost = tmp_path / 'lost'
    bundle.save(lost, pretrained.config, pretrained.params, pretrained.tokenizer, 'text', '')
    (lost / 'tokenizer.model').unlink()
    with pytest.raises(FileNotFoundError, match='no tokenizer.model'):
        flamingo_jax.load(lost)
    fields = json.loads((lost / 'config.json').read_text())
    fields['model']['lm']['widht'] = 3
    (lost / 'config.json').write_text(json.dumps(fields))
    with pytest.raises(ValueError, match='lost/config.json: .*widht.*update flamingo_jax'):
        flamingo_jax.load(lost)


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path, monkeypatch):
    with bundle.on_disk(tmp_path / 'large') as empty:
        empty(['whole'], (3, 2**18), np.float32)
        (file,) = tmp_path.glob('.large.*/whole')
        assert file.stat().st_blocks * 512 >= 3 * 2**20  # Writing to it needs no more room.

        def full(*_):
            raise OSError(28, 'No space left on device')

        monkeypatch.setattr('os.posix_fallocate', full)
        with pytest.raises(OSError, match='No space left on device: 4,096 bytes are needed.*part'):
            empty(['part'], (1024,), np.float32)


NO_SUMS = b'{"model": {}, "image_tag": null, "checksums": null}'


@pytest.mark.parametrize('content', [b'', b'{"model": ', b'{"model_type": "llama"}', b'[]', b'\xff\xfe', NO_SUMS])
def test_a_config_that_is_not_of_a_bundle_is_named_with_the_remedy(tmp_path, content):
    (tmp_path / 'config.json').write_bytes(content)
    with pytest.raises(ValueError, match='config.json is not that of a bundle, or it is damaged .* of a Hugging Face'):
        bundle.read(tmp_path)


def changed(path, to, part, **fields):
    """A copy of a bundle whose config.json says something else of a part of the model."""
    shutil.copytree(path, to)
    about = json.loads((to / 'config.json').read_text())
    about['model'][part] |= fields
    (to / 'config.json').write_text(json.dumps(about))
    return to


@pytest.mark.parametrize(
    'part, fields, says',
    [
        ('lm', dict(depth=4), r"tree 'lm' of .* blocks.* is \(3, .*\), not \(4, "),
        ('lm', dict(width=40), r"tree 'extra_tokens' of .* input is \(1, 32\), not \(1, 40\)"),
        ('resampler', dict(latents=9), r"tree 'resampler' of .*latents is \(3, 16\), not \(9, 16\)"),
        ('lm', dict(bias=True), r"tree 'lm' of .*bias is absent, not \("),
    ],
)
def test_parameters_that_do_not_fit_the_config_are_refused(path, tmp_path, part, fields, says):
    with pytest.raises(ValueError, match=f'{says}.* download the whole bundle again'):
        flamingo_jax.load(changed(path, tmp_path / 'other', part, **fields))


def older(path, to):
    """A copy of a bundle as it was before there were digests; what they tell is in tests/parallel/test_digests.py."""
    shutil.copytree(path, to)
    (to / 'digests.json').unlink()


def test_a_tree_in_the_place_of_another_is_refused(path, tmp_path):
    older(path, tmp_path / 'swapped')
    shutil.rmtree(tmp_path / 'swapped/params/resampler')
    shutil.copytree(path / 'params/xattn', tmp_path / 'swapped/params/resampler')
    with pytest.raises(ValueError, match="The tree 'resampler' of .*swapped does not fit its config.json"):
        bundle.read(tmp_path / 'swapped').params('resampler')


POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n'


@pytest.mark.parametrize('file', ['state/_METADATA', 'state/manifest.ocdbt', 'state/d/*', 'state/ocdbt.process_0/d/*'])
@pytest.mark.parametrize('damage', [None, lambda content: content[: len(content) // 2], lambda _: POINTER])
def test_damaged_parameters_are_named_with_the_remedy(path, tmp_path, file, damage):
    older(path, tmp_path / 'damaged')
    for found in (tmp_path / 'damaged/params/resampler').glob(file):
        found.write_bytes(damage(found.read_bytes())) if damage else found.unlink()
    pointer = damage is not None and damage(b'') == POINTER
    says = 'is a pointer of Git LFS .*git lfs pull' if pointer else 'params/resampler is damaged .*Copy or download'
    with pytest.raises(ValueError, match=says) as error:
        bundle.read(tmp_path / 'damaged').params('resampler')
    said = str(error.value)
    assert 'params/resampler' in said and len(said) < 500 and ('lfs' in said) == pointer and '<bound' not in said


def test_a_tree_without_a_folder_is_missing(path, tmp_path):
    older(path, tmp_path / 'lost')
    shutil.rmtree(tmp_path / 'lost/params/xattn')
    with pytest.raises(ValueError, match='params/xattn is missing'):
        flamingo_jax.load(tmp_path / 'lost')


@pytest.mark.parametrize('dtype', [None, 'bfloat16'])
def test_another_number_differs_from_its_checksum(path, pretrained, tmp_path, dtype):
    """As after a flipped bit, which the compression of the files does not notice."""
    resampler = pretrained.params['resampler'] | dict(latents=pretrained.params['resampler']['latents'] + 1)
    other = tmp_path / 'other'
    bundle.save(other, pretrained.config, pretrained.params | dict(resampler=resampler), None, 'text', '')
    shutil.copy(path / 'config.json', other)
    with pytest.raises(ValueError, match='params/resampler is .* differs from its checksum in config.json'):
        bundle.read(other).params('resampler', dtype)
    read = bundle.read(path).params('resampler', dtype)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(a.dtype)), read, pretrained.params['resampler'])


def test_a_failed_save_leaves_nothing(pretrained, tmp_path, monkeypatch):
    def checksum(tree, done):
        assert [path.name for path in tmp_path.glob('*/params/*')]  # Parameters are on disk by then.
        raise OSError('the disk is full')

    monkeypatch.setattr(bundle, 'checksum', checksum)
    with pytest.raises(OSError, match='the disk is full'):
        bundle.save(tmp_path / 'half', pretrained.config, pretrained.params, pretrained.tokenizer, 'text', '')
    assert list(tmp_path.iterdir()) == []
