"""The bytes of what is frozen: damage is told by the file's name before anything is computed, on any mesh."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import flamingo_jax
from flamingo_jax.checkpoints import bundle
from flamingo_jax.checkpoints.add_digests import add_digests
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.inputs.sources.features import Features
from flamingo_jax.parallel import digests
from flamingo_jax.parallel.mesh import make_mesh
from flamingo_jax.train import train
from flamingo_jax.training.assemble import assemble
from tests.tiny_run import SAMPLE, free_port, tiny_config

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture
def mine(parts, tmp_path):
    """A copy of the parts of the smallest run, to damage."""
    return shutil.copytree(parts, tmp_path / 'parts')


def change(tree, by=1e-3):
    """Other numbers in the files of a tree of a bundle, which Orbax reads without an error."""
    path = tree.parents[1]
    found, aside = bundle.read(path), path.with_name('other')
    params = {tree.name: jax.tree.map(lambda x: np.asarray(x) + np.asarray(by, x.dtype), found.params(tree.name))}
    tokenizer = None if found.config.lm is None else found.tokenizer()
    bundle.save(aside, found.config, params, tokenizer, found.image_tag, '')
    shutil.rmtree(tree)
    shutil.move(aside / 'params' / tree.name, tree)
    shutil.rmtree(aside)


def test_bytes_that_change_between_two_starts_end_the_second(parts, mine, run, tmp_path):
    """And the checkpoints are as they were. The first start was that of the fixture."""
    shutil.copytree(run, tmp_path / 'run')
    change(mine / 'lm/params/lm')
    config = tiny_config(mine)
    config.datasets.words.features = tiny_config(parts).datasets.words.features  # As the run's recipe says.
    config.steps = 10
    with pytest.raises(ValueError, match='lm/params/lm/.* (differs from its digest: it was damaged|is missing)'):
        train(config, tmp_path / 'run')
    assert {entry.name for entry in (tmp_path / 'run/checkpoints').iterdir()} == {'2', '4', '6'}


def test_every_tree_is_verified_on_a_mesh_and_on_one_device(mine, tmp_path):
    mesh = make_mesh(2, 2, 2)
    assemble(tiny_config(mine)).read_frozen(mesh)
    flamingo_jax.load(mine / 'lm', mesh=mesh)
    change(mine / 'trunk/params/vision')
    with pytest.raises(ValueError, match='trunk/params/vision/.* Copy or download the bundle again'):
        assemble(tiny_config(mine)).read_frozen(mesh)
    change(mine / 'lm/params/lm')
    for where in (mesh, None):
        with pytest.raises(ValueError, match='lm/params/lm/.* Copy or download the bundle again'):
            flamingo_jax.load(mine / 'lm', mesh=where)


def test_what_the_disk_cannot_give_is_not_called_damage(mine):
    """A read of /proc/self/mem at 0 fails with EIO, as on a broken disk."""
    file = max((file for file in (mine / 'lm/params/lm').rglob('*') if file.is_file()), key=os.path.getsize)
    file.unlink()
    file.symlink_to('/proc/self/mem')
    with pytest.raises(OSError, match='Input/output error'):
        flamingo_jax.load(mine / 'lm')


def cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def longer(file):
    file.write_bytes(file.read_bytes() + b'x')


def flip(file):
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)


def pointer(file):
    file.write_bytes(b'version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n')


@pytest.mark.parametrize(
    'damage, says',
    [
        (cut, 'x.bin differs from its digest'),
        (longer, 'x.bin differs from its digest'),
        (flip, 'x.bin differs from its digest'),
        (pointer, 'x.bin is not the file itself .* git lfs pull'),
        (pathlib.Path.unlink, 'x.bin is missing. Look.'),
    ],
)
@pytest.mark.parametrize('size', [10, 64, 200])
def test_each_part_of_a_file_has_a_digest(tmp_path, monkeypatch, damage, says, size):
    monkeypatch.setattr(digests, 'PART', 64)
    monkeypatch.setattr(digests, '_PIECE', 10)
    (tmp_path / 'x.bin').write_bytes(np.random.default_rng(0).bytes(size))
    (tmp_path / 'empty').touch()
    sums = digests.of_folder(tmp_path)
    assert len(sums['x.bin']['sha256']) == {10: 1, 64: 1, 200: 4}[size] and sums['empty']['bytes'] == 0
    digests.write(tmp_path / digests.FILE, sums)
    monkeypatch.setattr(digests, 'PART', 2**28)  # The file says how large its parts are.
    digests.verify(tmp_path / digests.FILE, 'Look.')
    damage(tmp_path / 'x.bin')
    digests.verify(tmp_path / digests.FILE, 'Look.', under='empty')
    with pytest.raises(ValueError, match=says):
        digests.verify(tmp_path / digests.FILE, 'Look.')


@pytest.mark.parametrize('content', [b'', b'[]', b'{"part": 1}', b'{"part": 1, "files": {"a": []}}'])
def test_digests_that_are_damaged_are_named(tmp_path, content):
    (tmp_path / digests.FILE).write_bytes(content)
    with pytest.raises(ValueError, match='digests.json is damaged .* Look.'):
        digests.verify(tmp_path / digests.FILE, 'Look.')


def test_a_folder_without_digests_is_read_and_gets_them(mine):
    said = (mine / 'lm/digests.json').read_bytes()
    (mine / 'lm/digests.json').unlink()
    flamingo_jax.load(mine / 'lm', mesh=make_mesh(8))
    add_digests(str(mine / 'lm'))
    assert json.loads((mine / 'lm/digests.json').read_bytes()) == json.loads(said)
    add_digests(str(mine / 'lm'))

    # What is damaged gets none.
    change(mine / 'lm/params/lm')
    with pytest.raises(ValueError, match='lm/params/lm'):
        add_digests(str(mine / 'lm'))
    (mine / 'lm/digests.json').unlink()
    with pytest.raises(ValueError, match='params/lm .*checksum in config.json'):
        add_digests(str(mine / 'lm'))
    assert not (mine / 'lm/digests.json').exists()

    said = (mine / 'features/train.digests.json').read_bytes()
    (mine / 'features/train.digests.json').unlink()
    add_digests(str(mine / 'features'))
    assert (mine / 'features/train.digests.json').read_bytes() == said
    flip(mine / 'features/test.npy')
    with pytest.raises(ValueError, match='test.npy differs'):
        add_digests(str(mine / 'features'))
    with pytest.raises(FileNotFoundError, match='not a bundle'):
        add_digests(str(mine))


def test_features_are_verified_when_they_are_opened(mine):
    trunk, records = bundle.read(mine / 'trunk'), open_split(SAMPLE, 'train')
    image_format = ImageFormat.of(trunk.config, trunk.checksums['vision'])

    def opened():
        return Features(str(mine / 'features'), 'train', records, image_format, frames=1)

    opened()
    flip(mine / 'features/train.npy')
    with pytest.raises(ValueError, match='train.npy differs from its digest.* Compute them again'):
        opened()


@pytest.mark.parametrize('name', ['lm_dictionary', 'lm_names', 'picture_dictionary', 'smollm_bridge'])
def test_the_committed_bundles_are_whole(name):
    folder = ROOT / 'experiments' / name
    said = json.loads((folder / digests.FILE).read_bytes())['files']
    assert set(said) == set(digests.of_folder(folder, 'params/'))
    digests.verify(folder / digests.FILE, '')


VERIFIES = """
import pathlib, sys
from flamingo_jax.parallel import digests, processes
folder, own, index, port = sys.argv[1:]
processes.join(f'localhost:{port}', 2, int(index))
read, sha256 = [], digests._sha256
digests._sha256 = lambda path, *rest: (read.append(path.name), sha256(path, *rest))[1]
def told(folder):
    read.clear()
    try:
        digests.verify(pathlib.Path(folder, digests.FILE), '', together=True)
    except (ValueError, OSError) as error:
        print(type(error).__name__, error)
    print(*sorted(read))
told(folder)
told(f'{own}.{index}')  # A copy of its own: each verifies all.
processes.wait_for_all('read')
file = pathlib.Path(folder, '1')  # Which the second process verifies.
if index == '0':
    file.write_bytes(b'x')
processes.wait_for_all('damaged')
told(folder)
processes.wait_for_all('read again')
if index == '0':
    file.unlink()
    file.symlink_to('/proc/self/mem')
processes.wait_for_all('broken')
told(folder)
if index == '1':  # Only one of them has digests, or they are damaged.
    pathlib.Path(f'{own}.1', digests.FILE).unlink()
told(f'{own}.{index}')
"""


def test_processes_share_the_work_and_the_result(tmp_path):
    shared = tmp_path / 'shared'
    shared.mkdir()
    for i in range(4):
        (shared / str(i)).write_bytes(bytes(1000 + i))
    digests.write(shared / digests.FILE, digests.of_folder(shared))
    for i in range(2):
        shutil.copytree(shared, tmp_path / f'own.{i}')
    environment, port = os.environ | dict(PYTHONPATH=str(ROOT), JAX_PLATFORMS='cpu'), str(free_port())
    command = [sys.executable, '-c', VERIFIES, str(shared), str(tmp_path / 'own')]
    running = [
        subprocess.Popen([*command, str(i), port], env=environment, stdout=subprocess.PIPE, text=True) for i in range(2)
    ]
    said = [process.communicate()[0].splitlines() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    said = [
        [line for line in lines if not line.startswith('[Gloo]') and ' processes with ' not in line] for lines in said
    ]
    for i, lines in enumerate(said):
        share = f'{i} {i + 2}'
        damaged = f'UserError {shared}/1 differs from its digest: it was damaged, or changed after it was written. '
        broken = [
            'OSError Process 1 cannot read what it verifies: [Errno 5] Input/output error',
            'OSError [Errno 5] Input/output error',
        ][i]
        assert lines.pop(5) in ([share] if i == 0 else [share, '1'])  # What fails need not begin its second part.
        assert lines == [share, '0 1 2 3', damaged, share, broken, ['0 1 2 3', ''][i]]
