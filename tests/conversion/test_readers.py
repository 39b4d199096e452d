import os
import pathlib
import pickle
import re
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from flamingo_jax.conversion import readers
from flamingo_jax.conversion.readers import read_safetensors, read_torch_checkpoint

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
FILES = ['tiny_zip.pth', 'tiny_legacy.pth', 'tiny_training.pt']


@pytest.fixture(scope='module')
def expected():
    return dict(np.load(GOLDEN / 'tiny_checkpoint.npz'))


def assert_equal(state, expected):
    assert list(state) == list(expected)
    for name, value in expected.items():
        assert state[name].shape == value.shape
        np.testing.assert_array_equal(state[name].astype(value.dtype), value, err_msg=name)


@pytest.mark.parametrize('file', FILES)
def test_reads_what_torch_wrote(file, expected):
    state = read_torch_checkpoint(GOLDEN / file)
    assert_equal(state, expected)
    assert state['bfloat16'].dtype == ml_dtypes.bfloat16
    for name in set(expected) - {'bfloat16'}:
        assert state[name].dtype == expected[name].dtype


class Attack:
    """Pickles as a call of os.system."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f'touch {self.witness}',)


def write_zip(path, content: bytes):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', content)
        archive.writestr('archive/version', '3')
    return path


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('where', ['zip', 'legacy', 'bare'])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, protocol, where):
    witness = tmp_path / 'witness'
    attack = pickle.dumps({'weight': Attack(witness)}, protocol)
    path = tmp_path / 'attack.pth'
    if where == 'zip':
        write_zip(path, attack)
    else:
        # The legacy header ends where the fourth pickle, the state dict, begins.
        header = b''.join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}))
        path.write_bytes((header if where == 'legacy' else b'') + attack)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        read_torch_checkpoint(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    'content',
    [
        b'cos\nsystem\n.',
        b'cbuiltins\neval\n(S"1"\ntR.',
        b'(ios\nsystem\n.',  # INST
        b'ccollections\nOrderedDict\n)\x81.',  # NEWOBJ
        b'\x80\x04\x8c\x02os\x8c\x06system\x93.',  # STACK_GLOBAL
        b'cnumpy.core.multiarray\nscalar\n.',
        b'ctorch\nload\n.',
        b'c__main__\n__builtins__\n.',
    ],
)
def test_other_names_and_instructions_are_refused(tmp_path, content):
    with pytest.raises(ValueError, match='attack.pth'):
        read_torch_checkpoint(write_zip(tmp_path / 'attack.pth', content))


def test_refusal_names_the_code(tmp_path):
    with pytest.raises(ValueError, match=r'asks for os\.system.*Nothing was loaded'):
        read_torch_checkpoint(write_zip(tmp_path / 'attack.pth', b'cos\nsystem\n.'))


def test_faults_have_a_remedy(tmp_path):
    path = tmp_path / 'x.pth'
    for content, message in [
        (b'', 'is empty'),
        (b'<html>not found</html>', 'not a torch checkpoint'),
        ((GOLDEN / 'tiny_zip.pth').read_bytes()[:-100], 'truncated or damaged'),
        ((GOLDEN / 'tiny_legacy.pth').read_bytes()[:-10], 'Download'),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as error:
            read_torch_checkpoint(path)
        assert str(path) in str(error.value)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('readme.txt', 'not weights')
    with pytest.raises(ValueError, match='no data.pkl'):
        read_torch_checkpoint(path)
    with pytest.raises(ValueError, match='state dict'):
        read_torch_checkpoint(write_zip(path, pickle.dumps([1, 2], 2)))
    with pytest.raises(ValueError, match="not everything in it is a tensor.*'epoch'"):
        read_torch_checkpoint(write_zip(path, pickle.dumps({'epoch': 3}, 2)))
    with pytest.raises(FileNotFoundError):
        read_torch_checkpoint(tmp_path / 'none.pth')


def test_a_dict_in_a_million_places_is_read_once(tmp_path):
    tree = {}
    for _ in range(40):
        tree = {'a': tree, 'b': tree, 'c': [tree, tree]}
    content = pickle.dumps({'weights': tree}, 2)
    header = b''.join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}))
    (tmp_path / 'legacy.pth').write_bytes(header + content + pickle.dumps([], 2))
    write_zip(tmp_path / 'zip.pth', content)
    for name in ('legacy.pth', 'zip.pth'):
        with pytest.raises(ValueError, match='not everything in it is a tensor'):
            read_torch_checkpoint(tmp_path / name)


def test_a_storage_is_checked_once(monkeypatch):
    checked, member = [], readers._member
    monkeypatch.setattr(
        readers, '_member', lambda content, info: checked.append(info.filename) or member(content, info)
    )
    read_torch_checkpoint(GOLDEN / 'tiny_zip.pth')
    assert len(checked) == len(set(checked))


def damaged(content: bytes, rng, count: int):
    for number in range(count):
        if number % 4 == 0:
            yield content[: rng.integers(len(content))]
        else:
            changed = bytearray(content)
            for position in rng.integers(len(content), size=rng.integers(1, 4)):
                changed[position] ^= int(rng.integers(1, 256))
            yield bytes(changed)


@pytest.mark.parametrize('file', FILES)
def test_any_damage_is_a_value_error(tmp_path, file, expected):
    path, refused = tmp_path / file, 0
    for content in damaged((GOLDEN / file).read_bytes(), np.random.default_rng(0), 800):
        path.write_bytes(content)
        try:
            state = read_torch_checkpoint(path)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            if file == 'tiny_legacy.pth':  # No checksums: other numbers, names and shapes are possible.
                assert all(isinstance(value, np.ndarray) for value in state.values())
            else:
                assert_equal(state, expected)
    assert refused > 300


def test_safetensors(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        'float32': rng.normal(size=(3, 4)).astype(np.float32),
        'bfloat16': rng.normal(size=(2, 5)).astype(ml_dtypes.bfloat16),
        'float16': rng.normal(size=3).astype(np.float16),
        'int64': np.arange(4),
        'scalar': np.array(2.5, np.float32),
    }
    path = tmp_path / 'x.safetensors'
    safetensors.numpy.save_file(tensors, path)
    state = read_safetensors(path)
    assert set(state) == set(tensors)
    for name, value in tensors.items():
        assert state[name].dtype == value.dtype
        np.testing.assert_array_equal(state[name], value)

    for content in damaged(path.read_bytes(), rng, 1000):
        path.write_bytes(content)
        try:
            state = read_safetensors(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert all(isinstance(value, np.ndarray) for value in state.values())
    with pytest.raises(FileNotFoundError):
        read_safetensors(tmp_path / 'none.safetensors')


def test_a_dtype_that_is_not_read_is_named(tmp_path):
    path = tmp_path / 'x.safetensors'
    safetensors.numpy.save_file({'a': np.zeros(2, np.uint16)}, path)
    with pytest.raises(ValueError, match=r'x.safetensors: its tensor a is of U16\. Only F64, F32, .* are read'):
        read_safetensors(path)
