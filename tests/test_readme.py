"""The README's examples answer what it says that they answer, right or wrong."""

import ast
import pathlib
import re
import shlex

import numpy as np
import pytest

import flamingo_jax
from flamingo_jax.generate import ordered_prompt

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
SMOLLM2 = 'LMS/smollm2'  # What data/language_models/fetch.sh leaves.
MODELS = dict(picture_dictionary='', smollm_bridge=SMOLLM2)


def asked() -> list[tuple[str, list[str], str]]:
    """(bundle, arguments, answer) of each line `ask ...  # answer` of a shell block, below its `ask()`."""
    found = []
    for block in re.findall('^```\n(.*?)^```', README, re.MULTILINE | re.DOTALL):
        bundle = re.search('^ask.*--checkpoint=experiments/([a-z_]+)', block, re.MULTILINE)
        for line in block.replace('\\\n', ' ').splitlines():
            if line.startswith('ask --'):
                command, answer = line.rsplit('  # ', 1)
                found.append((bundle[1], shlex.split(command)[1:], answer))
    return found


def load(bundle: str):
    """The README's model; skips the test where its language model was not fetched."""
    if MODELS[bundle] and not (ROOT / MODELS[bundle]).is_dir():
        pytest.skip(f'{MODELS[bundle]} was not fetched')
    return flamingo_jax.load(ROOT / 'experiments' / bundle, lm=MODELS[bundle] and ROOT / MODELS[bundle])


@pytest.mark.parametrize('bundle', MODELS)
def test_shell_blocks_answer_what_they_say(bundle, monkeypatch):
    monkeypatch.chdir(ROOT)
    examples = [(arguments, answer) for of, arguments, answer in asked() if of == bundle]
    assert len(examples) >= 3
    model = load(bundle)
    for arguments, answer in examples:
        assert model.generate(ordered_prompt(arguments)) == answer, arguments


@pytest.mark.parametrize('bundle', MODELS)
def test_the_python_block_answers_what_it_says(bundle, monkeypatch):
    """Each paragraph that uses the model runs; an expression gives what the comment after it says."""
    monkeypatch.chdir(ROOT)
    (code,) = re.findall('^```python\n(.*?)^```', README, re.MULTILINE | re.DOTALL)
    load(bundle)  # Or skips.
    lines, names, compared = code.splitlines(), {}, 0
    for statement in ast.parse(code).body:
        source = ast.unparse(statement)
        if bundle == 'picture_dictionary' and re.search('bridge|scene', source):
            continue
        if not isinstance(statement, ast.Expr):
            exec(source, names)
            continue
        value, said = eval(source, names), lines[statement.end_lineno - 1].partition('  # ')[2]
        compared += bool(said)
        if isinstance(value, np.ndarray):
            told = [float(number) for number in re.findall('-[0-9.]+', said)]
            np.testing.assert_allclose(value, told, atol=0.1)
        else:
            assert not said or value.startswith(said.removesuffix(' …'))
    assert compared >= 2
