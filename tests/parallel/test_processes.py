"""Several real processes on one machine: equal to one with the same devices, stopped together, ended by a death.

Each phase goes on from the checkpoint of the one before, so that few processes are started.
"""

import json
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from flamingo_jax.checkpoints.run_format import CHECKSUMS, read_latest
from flamingo_jax.files import below
from flamingo_jax.parallel.processes import POST_SECONDS, join
from flamingo_jax.train import train
from tests.tiny_run import free_port, losses, tiny_config

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures('quick_compilation')


def start(parts, workdir, processes, *mesh):
    """The tiny run for ever, over 8 devices; what each prints is in WORKDIR.INDEX."""
    command = [sys.executable, ROOT / 'tests/tiny_run.py', parts, workdir, 10_000, '--one_data_set', '--mesh', *mesh]
    command += ['--devices', 8 // processes, '--processes', processes, '--coordinator', f'localhost:{free_port()}']
    environment = os.environ | dict(PYTHONPATH=str(ROOT), JAX_DISABLE_MOST_OPTIMIZATIONS='1')
    running = []
    for i in range(processes):
        with open(f'{workdir}.{i}', 'w') as log:
            line = [str(part) for part in (*command, '--process_id', i)]
            running.append(subprocess.Popen(line, stdout=log, stderr=log, env=environment))
    return running


def wait_for_a_checkpoint_after(step, workdir, running):
    folder = workdir / 'checkpoints'
    while not folder.is_dir() or not any(e.name.isdecimal() and int(e.name) > step for e in folder.iterdir()):
        codes = [process.poll() for process in running]
        assert codes == [None] * len(running), [pathlib.Path(f'{workdir}.{i}').read_text() for i in range(len(running))]
        time.sleep(0.05)


@pytest.mark.long
def test_several_processes_are_one_run(parts, tmp_path):
    run, whole = tmp_path / 'run', tmp_path / 'whole'

    # Two, until SIGTERM to one: both stop after the same step, and it is saved.
    running = start(parts, run, 2, 8, 1, 1)
    wait_for_a_checkpoint_after(0, run, running)
    running[1].send_signal(signal.SIGTERM)
    assert [process.wait() for process in running] == [0, 0]
    logs = [pathlib.Path(f'{run}.{i}').read_text() for i in range(2)]
    step = read_latest(run)[2]
    assert f'Stopped by SIGTERM after step {step}, which is saved' in logs[0]
    assert 'Stopped' not in logs[1] and 'trained' not in logs[1] and 'steps/s' not in logs[1]
    assert {f'process_{i}' for i in range(2)} == {
        entry.name for entry in (run / f'checkpoints/{step}/state/array_metadatas').iterdir()
    }

    # Four go on from there on another mesh, until one is killed: the others stop, and say which it was.
    running = start(parts, run, 4, 2, 2, 2)
    wait_for_a_checkpoint_after(step, run, running)
    running[2].send_signal(signal.SIGKILL)
    config = tiny_config(parts)
    del config.datasets.names
    config.steps = read_latest(run)[2] + 1
    train(config, whole)  # What it is compared with below: the others take their time to notice.
    assert all(process.wait(600) for process in running)  # Else they hang.
    for i in (0, 1, 3):
        log = pathlib.Path(f'{run}.{i}').read_text()
        # One that waits is told; one whose collective breaks at once learns it as it leaves.
        assert re.search(r'tasks are unhealthy[^:]*:\n2\n|Task 2 heartbeat timeout', log), log[-3000:]
    assert f'Resumed from step {step}.' in pathlib.Path(f'{run}.0').read_text()

    # One goes on from there.
    config.steps = read_latest(run)[2] + 1
    train(config, run)
    train(config, whole)  # To the same step, if a checkpoint was still under way.
    expected, got = dict(losses(whole)), dict(losses(run))
    assert got.keys() >= {1, step, step + 1, config.steps}
    for number, loss in got.items():
        if number <= config.steps:  # The step after may have been logged before the kill.
            assert loss == pytest.approx(expected[number], rel=1e-5), number
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), read_latest(run)[1], read_latest(whole)[1]
    )


@pytest.mark.parametrize('arguments', [('host:1', None, 0), ('host:1', 2, 2), ('', 2, 0)])
def test_a_process_that_does_not_know_its_place_is_an_error(arguments):
    with pytest.raises(ValueError, match='--processes and --process_id'):
        join(*arguments)


@pytest.mark.parametrize('hosts, gpus', [('1', ['0', '1']), ('2', ['all', 'all'])])
def test_processes_find_each_other_where_the_scheduler_says_who_they_are(hosts, gpus, tmp_path):
    """--coordinator=auto in what SLURM gives its tasks; a TPU pod needs TPUs. A task has a GPU, or its host's."""
    line = 'from flamingo_jax.parallel.processes import join; join("auto", None, None)'
    line += '; import jax; print(jax.process_index(), "of", jax.process_count())'
    line += '; from jax._src import xla_bridge; print("GPUs:", xla_bridge.CUDA_VISIBLE_DEVICES.value)'
    line += '; from flamingo_jax.parallel.processes import post, posted; post("said", dict(by=jax.process_index()))'
    line += '; print(posted("said", 1 - jax.process_index()))'
    line += '; from flamingo_jax.parallel.processes import tell, told, wait_for_all'
    line += '; [tell("wait", [of, jax.process_index()]) for of in range(2)]; wait_for_all("a"); wait_for_all("a")'
    line += '; print(sorted(told("wait").items()), told("nothing"))'
    # What each host keeps for itself the others would not find, and Orbax waits as long as all else.
    line += '; print("programs:", jax.config.jax_compilation_cache_dir)'
    line += '; import orbax.checkpoint; from orbax.checkpoint._src.multihost import multihost as older'
    line += '; from orbax.checkpoint.experimental.v1._src.synchronization import multihost'
    line += '; print(older.coordination_timeout(), multihost.coordination_timeout())'
    slurm = dict(SLURM_JOB_ID=str(free_port()), SLURM_STEP_NODELIST='localhost', SLURM_NTASKS='2', JAX_PLATFORMS='cpu')
    slurm |= dict(SLURM_STEP_NUM_TASKS='2', SLURM_STEP_NUM_NODES=hosts, PYTHONPATH=str(ROOT))
    slurm |= dict(XDG_CACHE_HOME=str(tmp_path), JAX_COMPILATION_CACHE_DIR=f'{tmp_path}/flamingo_jax/{platform.node()}')
    tasks = [
        subprocess.Popen(
            [sys.executable, '-c', line],
            env=os.environ | slurm | dict(SLURM_PROCID=str(i), SLURM_LOCALID=str(i if hosts == '1' else 0)),
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    said = [task.communicate()[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0]
    common = f'[(0, [1, 0]), (1, [1, 1])] {{}}\nprograms: None\n{POST_SECONDS} {POST_SECONDS}\n'
    assert said[0].endswith(f"0 of 2\nGPUs: {gpus[0]}\n{{'by': 1}}\n{common}")
    assert said[1] == f"1 of 2\nGPUs: {gpus[1]}\n{{'by': 0}}\n{common}"


@pytest.mark.parametrize('name', ['SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE'])
def test_one_of_several_that_were_started_alike_is_not_taken_for_the_whole_run(name, monkeypatch):
    monkeypatch.setenv(name, '1')
    join('', None, None)
    monkeypatch.setenv(name, '4')
    with pytest.raises(ValueError, match=f'{name} says that this is one of 4 processes.* Add --coordinator=auto'):
        join('', None, None)


WRITES = """
import hashlib, json, pathlib, sys
import jax, jax.numpy as jnp
from flamingo_jax.parallel import mesh, processes
folder, index, port = sys.argv[1:]
processes.join(f'localhost:{port}', 2, int(index))
from flamingo_jax.training.checkpoint import Checkpoints
from flamingo_jax.training.progress import Skipped
from flamingo_jax.training.state import TrainState
from flamingo_jax.model.config import FlamingoConfig
about = dict(model=FlamingoConfig().to_json(), trained=[])
hashed, of = [], hashlib.file_digest
hashlib.file_digest = lambda file, name: (hashed.append(file.name), of(file, name))[1]
devices = mesh.make_mesh()
rows, whole = mesh.batch_sharding(devices), mesh.replicated(devices)
make = lambda: TrainState(jnp.int32(5), dict(xattn=jnp.arange(4000.0)), dict(mu=jnp.zeros(4000)), jax.random.key(0))
where = TrainState(whole, dict(xattn=rows), dict(mu=rows), whole)
state = jax.jit(make, out_shardings=where)()
checkpoints = Checkpoints(folder, 3, about, {})
checkpoints.save(state, {}, Skipped())
checkpoints.close()
pathlib.Path(f'{folder}.{index}').write_text('\\n'.join(hashed))
hashed.clear()
again = Checkpoints(folder, 3, about, {})
shapes = jax.tree.map(lambda x, w: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=w), jax.eval_shape(make), where)
assert again.restore(shapes)[0].step == 5
pathlib.Path(f'{folder}.{index}.read').write_text('\\n'.join(hashed))
processes.wait_for_all('read')
if index == '1':  # Damages what the other process checks.
    first = min(json.loads(pathlib.Path(f'{folder}/checkpoints/5/checksums.json').read_text()))
    pathlib.Path(f'{folder}/checkpoints/5', first).write_bytes(b'x')
processes.wait_for_all('damaged')
try:
    Checkpoints(folder, 3, about, {})
except OSError as error:
    pathlib.Path(f'{folder}.{index}.error').write_text(str(error))
"""


@pytest.mark.long
def test_each_process_hashes_what_it_wrote_and_checks_its_share(tmp_path):
    run, port = tmp_path / 'run', str(free_port())
    environment = os.environ | dict(PYTHONPATH=str(ROOT), JAX_PLATFORMS='cpu')
    running = [
        subprocess.Popen([sys.executable, '-c', WRITES, str(run), str(i), port], env=environment) for i in range(2)
    ]
    assert [process.wait() for process in running] == [0, 0]
    there = {name for name in below(run / 'checkpoints/5') if name != CHECKSUMS}
    assert json.loads((run / 'checkpoints/5' / CHECKSUMS).read_bytes()).keys() == there
    hashed = [
        {line.partition('writing-5/')[2] for line in pathlib.Path(f'{run}.{i}').read_text().split('\n')}
        for i in range(2)
    ]
    assert not hashed[0] & hashed[1] and hashed[0] | hashed[1] == there
    assert hashed[1] and all('ocdbt.process_1/' in name for name in hashed[1])
    read = [
        {line.partition('checkpoints/5/')[2] for line in pathlib.Path(f'{run}.{i}.read').read_text().split('\n')}
        for i in range(2)
    ]
    assert read[0] and read[1] and not read[0] & read[1] and read[0] | read[1] == there
    errors = [pathlib.Path(f'{run}.{i}.error').read_text() for i in range(2)]
    assert errors[0] == errors[1] and 'All checkpoints' in errors[0]
