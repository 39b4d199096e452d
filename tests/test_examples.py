"""Every example runs as its docstring says, in a process of its own and at its smallest."""

import ast
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / 'examples').glob('*.py'))
# Script -> its flags at the smallest size, and what the last lines must say.
SMALLEST = dict(
    add_data_set=(['--workdir={}', '--steps=2'], r"row: <image> Question: which colour\? Answer: \w+<EOC>[^$]*red: '"),
    answer_exported=(['--workdir={}'], r'^\[\d+, \d+\]  zev gof\n\[\d.*\]  \w+'),
    evaluate=(['--workdir={}', '--episodes=4'], r'words, 2 shots: \d\.\d\d ±.*nearest centroid'),
    few_shot=([], r"two examples: zev gof\n.*: Fliegenpilz\n.*: second\n.*\['dax', 'wug'\]"),
    finetune_lora=(['--workdir={}', '--steps=2'], r"sailboat_3d: '.*' -> '"),
    serve=(['--people=3'], r'refused: [^$]*as one by one: 3 of 3 the same'),
    train_gpu=(['--workdir={}', '--steps=2'], r'half: loss [^$]*Resumed from step 1[^$]*whole: loss '),
    train_tpu=(
        ['--workdir={}', '--cpu_devices=8', '--steps=2'],
        r'On 8 x cpu[^$]*trained: ([\d,]+) parameters, of which a device holds ([\d,]+)\n.*answer after 2 steps',
    ),
)


@pytest.mark.parametrize('script', EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_its_command_cost_and_result(script):
    said, table = ast.get_docstring(ast.parse(script.read_text())), (ROOT / 'examples/README.md').read_text()
    assert f'python examples/{script.name}' in said and 'Cost: ' in said and '\nExpect' in said
    assert f'[{script.name}]({script.name})' in table and len(script.read_text().splitlines()) <= 130


@pytest.mark.long
@pytest.mark.parametrize('script', EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(script, tmp_path):
    flags, says = SMALLEST[script.stem]
    done = subprocess.run(
        [sys.executable, script, *(flag.format(tmp_path / 'made') for flag in flags)],
        cwd=ROOT,
        env=os.environ | dict(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(says, done.stdout)
    assert found, done.stdout + done.stderr
    if script.stem == 'train_tpu':  # Cut by fsdp and tensor, so that less than half is on each device.
        whole, held = (int(number.replace(',', '')) for number in found.groups())
        assert 2 * held < whole
