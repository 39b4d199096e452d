"""Processes that hold the same rows or parameters: a difference ends all of them, before it is saved."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from flamingo_jax.parallel import copies
from flamingo_jax.parallel.mesh import batch_sharding, make_mesh
from tests.tiny_run import free_port

ROOT = pathlib.Path(__file__).parents[2]

TRAINS = """
import sys
from flamingo_jax import commands
from flamingo_jax.parallel import processes
sys.excepthook = commands._end
parts, data, workdir, index, port = sys.argv[1:]
processes.join(f'localhost:{port}', 2, int(index))
from flamingo_jax.files import as_path
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.train import train
from flamingo_jax.training import config as training
from tests.tiny_run import tiny_config
config = tiny_config(as_path(parts))
del config.datasets.words, config.datasets.names
config.datasets.pages = training.dataset(Documents, path=data, length=32, images=1, batch_size=4)
config.mesh = dict(data=1, fsdp=1, tensor=2)
config.steps, config.checkpoint_every = 40, 20
train(config, workdir)
"""


def pages(folder, unreadable=()):
    """A .jsonl file of 16 documents with an image each."""
    import PIL.Image

    folder.mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), np.uint8)
    lines = []
    for i, pixels in enumerate(colours):
        file = folder / f'{i}.png'
        PIL.Image.fromarray(pixels).save(file)
        if i in unreadable:
            file.write_bytes(file.read_bytes()[:40])
        lines.append(json.dumps([dict(image=f'{i}.png'), ' Output: a dog']))
    (folder / 'pages.jsonl').write_text('\n'.join(lines))
    return folder / 'pages.jsonl'


@pytest.mark.long
def test_a_row_that_two_processes_read_differently_ends_both_before_it_is_saved(parts, tmp_path):
    """Two images of one process's copy of the data are cut short; the other's are whole."""
    data, port, logs = [pages(tmp_path / '0'), pages(tmp_path / '1', unreadable=(3, 11))], free_port(), []
    environment = os.environ | dict(PYTHONPATH=str(ROOT), JAX_PLATFORMS='cpu', JAX_DISABLE_MOST_OPTIMIZATIONS='1')
    running = []
    for i in range(2):
        command = [sys.executable, '-c', TRAINS, parts, data[i], tmp_path / 'run', i, port]
        with open(tmp_path / f'log.{i}', 'w') as log:
            running.append(subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, env=environment))
    codes = [process.wait() for process in running]
    logs = [(tmp_path / f'log.{i}').read_text() for i in range(2)]
    assert all(codes), logs
    for i, log in enumerate(logs):
        assert f'[process {i}] The processes have parted: data set pages: row ' in log, log[-3000:]
        assert 'is not the same in process 0 and process 1. ' in log
    assert not list((tmp_path / 'run/checkpoints').glob('[0-9]*'))


COMPARES = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from flamingo_jax.parallel import copies, mesh, processes, rules
index, port = sys.argv[1:]
jax.config.update('jax_num_cpu_devices', 2)
processes.join(f'localhost:{port}', 2, int(index))
devices = mesh.make_mesh(data=2, fsdp=1, tensor=2)
def laid(values, *spec, sharding=None):
    sharding = sharding or NamedSharding(devices, P(*spec))
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])
kernel = np.random.default_rng(0).standard_normal((6, 8), np.float32)
mine = kernel + int(index)
zero = rules.over_data(NamedSharding(devices, P(None, 'tensor')), (6, 8))
equal = dict(
    rows=laid(mine, ('data', 'fsdp')), kernel=laid(kernel, None, 'tensor'), moments=laid(mine, sharding=zero),
    half=laid(kernel.astype(jnp.bfloat16)), whole=laid(kernel.astype(np.int8)), step=laid(np.int32(5)),
    nan=laid(np.full(3, np.nan, np.float32)), yes=laid(np.ones(3, bool)),
    key=jax.random.wrap_key_data(laid(np.arange(2, dtype=np.uint32))),
)
copies.check(equal)
def told(**other):
    try:
        copies.check(equal | other)
    except copies.PartedError as error:
        return str(error)
    return 'nothing'
swapped = kernel[[1, 0, 2, 3, 4, 5]] if index == '1' else kernel
bit = kernel.copy()
bit.view(np.uint32)[5, 7] ^= int(index)
print(told(kernel=laid(mine, None, 'tensor')))
print(told(half=laid(swapped.astype(jnp.bfloat16))))
print(told(yes=laid(np.arange(3) == int(index))))
print(told(kernel=laid(bit, None, 'tensor')))
print(told())
shared = copies.Rows(dict(a=4, b=2), NamedSharding(devices, P('fsdp')))
rows = dict(tokens=np.arange(8).reshape(4, 2), features=np.ones((4, 3), np.float16))
for step in (1, 2, 3):
    shared.check(step, dict(a=rows, b=dict(tokens=rows['tokens'][:2])))
rows['features'][2, int(index)] = 2
shared.check(4, dict(b=dict(tokens=rows['tokens'][:2])))
try:
    shared.check(5, dict(a=rows))
except copies.PartedError as error:
    print(error)
own = copies.Rows(dict(a=4), mesh.batch_sharding(devices))  # Each has rows of its own.
own.check(1, dict(a=dict(tokens=rows['tokens'][:2] + int(index))))
"""


def test_copies_of_arrays_and_rows_are_compared_bit_for_bit():
    """Of real processes. What each holds alone may differ, and a NaN is equal to itself."""
    environment, port = os.environ | dict(PYTHONPATH=str(ROOT), JAX_PLATFORMS='cpu'), str(free_port())
    command = [sys.executable, '-c', COMPARES]
    running = [
        subprocess.Popen([*command, str(i), port], env=environment, stdout=subprocess.PIPE, text=True) for i in range(2)
    ]
    said = [process.communicate()[0].splitlines() for process in running]
    said = [[line for line in lines if 'parted' in line or line == 'nothing'] for lines in said]
    assert [process.returncode for process in running] == [0, 0]
    assert said[0] == said[1]
    parts = ['kernel', 'half', 'yes', 'kernel', None, 'data set a: row 2 of the batch of step 5']
    for line, part in zip(said[0], parts, strict=True):
        if part is None:
            assert line == 'nothing'
        else:
            assert line.startswith(f'The processes have parted: {part} is not the same in process 0 and process 1. ')


def test_the_processes_are_named_by_what_they_hold():
    groups = copies._groups([(3, 'a'), (0, 'b'), (1, 'b'), (2, 'c')])
    assert groups == [[0, 1], [2], [3]]
    error = copies._parted('xattn/alpha', groups, 'Look.')
    says = 'xattn/alpha is not the same in processes 0, 1 and process 2 and process 3. Look.'
    assert str(error) == f'The processes have parted: {says}'
    assert copies._listed(list(range(20))) == '0, 1, 2, 3, 4, 5, 6, 7 and 12 more'


def test_who_holds_which_rows():
    """In one process, all of them, on any mesh; nothing is said then."""
    for shape in ((8, 1, 1), (2, 2, 2), (1, 1, 8)):
        assert copies.holders(8, batch_sharding(make_mesh(*shape))) == {0: set(range(8))}
    rows = copies.Rows(dict(a=8), batch_sharding(make_mesh(1, 1, 8)))
    rows.check(1, dict(a=dict(tokens=np.zeros((8, 2)))))
    copies.check(dict(x=jax.device_put(np.zeros(8), NamedSharding(make_mesh(8, 1, 1), PartitionSpec()))))
