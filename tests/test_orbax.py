"""Private names of libraries that the package uses, and the versions with which that was tried.

A new version that moves one fails here, with both versions in the message, and not in a run on a pod.
"""

import importlib
import importlib.metadata
import inspect
import pathlib
import re

import pytest

TRIED = {'orbax-checkpoint': '0.12.8', 'jax': '0.10.2 and 0.12.0.1'}
PRIVATE = {  # What is patched or called, by `files._let_orbax_use_s3`, `locks` and `parallel/processes`.
    'orbax.checkpoint._src.path.gcs_utils': ('_GCS_PATH_PREFIX', 'get_kvstore_for_gcs'),
    'orbax.checkpoint._src.serialization.tensorstore_utils': ('_use_gcs_driver', '_normalize_path'),
    'orbax.checkpoint._src.multihost.multihost': ('_DEFAULT_BARRIER_TIMEOUT',),
    'orbax.checkpoint.experimental.v1._src.synchronization.multihost': ('_DEFAULT_BARRIER_TIMEOUT',),
    'jax._src.distributed': ('global_state',),
}
ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize('module', PRIVATE)
def test_a_private_name_is_where_it_was(module):
    package = 'jax' if module.startswith('jax') else 'orbax-checkpoint'
    about = f'{package} {importlib.metadata.version(package)} moved it; tried with {TRIED[package]}'
    found = importlib.import_module(module)
    for name in PRIVATE[module]:
        assert hasattr(found, name), f'{module}.{name}: {about}'


def test_orbax_asks_these_functions_where_a_bucket_is():
    """Both that make TensorStore's spec call them by their module, so that a patch is seen."""
    from orbax.checkpoint._src.serialization import tensorstore_utils

    about = f'orbax-checkpoint {importlib.metadata.version("orbax-checkpoint")}; tried with {TRIED["orbax-checkpoint"]}'
    source = inspect.getsource(tensorstore_utils)
    for call in ('_use_gcs_driver(directory)', '_normalize_path(directory)', 'gcs_utils.get_kvstore_for_gcs('):
        assert source.count(call) >= 2, f'{call}: {about}'


def test_no_private_name_is_used_but_these():
    used = set()
    for file in (ROOT / 'flamingo_jax').rglob('*.py'):
        for module, names in re.findall(r'from ((?:orbax|jax)\.[\w.]*_src[\w.]*) import (\w+)', file.read_text()):
            used.add(f'{module}.{names}')
    assert used <= PRIVATE.keys()


def test_orbax_stays_below_1():
    """There its v1 API moves to the top level."""
    assert re.search(r"'orbax-checkpoint>=[\d.]+,<1'", (ROOT / 'setup.py').read_text())
