"""The examples of the README and of docs/dialogues.md answer what the pages say that they answer, right or wrong."""

import ast
import pathlib
import re
import shlex

import numpy as np
import pytest

import flamingo_jax
from flamingo_jax.generate import ordered_prompt

ROOT = pathlib.Path(__file__).parents[1]
README, DIALOGUES = ((ROOT / page).read_text() for page in ('README.md', 'docs/dialogues.md'))
SMOLLM2 = 'LMS/smollm2'  # What data/language_models/fetch.sh leaves.
MODELS = dict(picture_dictionary='', smollm_bridge=SMOLLM2)


def blocks(page: str, language: str = '') -> list[str]:
    """The page's blocks of code in a language; of the shell, which is not named, without one."""
    found = re.findall(r'^```(\w*)\n(.*?)^```', page, re.MULTILINE | re.DOTALL)
    return [block for of, block in found if of == language]


def asked() -> list[tuple[str, list[str], str]]:
    """(bundle, arguments, answer) of each line `ask ...  # answer` of a shell block, below its `ask()`."""
    found = []
    for block in blocks(DIALOGUES):
        bundle = re.search('^ask.*--checkpoint=experiments/([a-z_]+)', block, re.MULTILINE)
        for line in block.replace('\\\n', ' ').splitlines():
            if line.startswith('ask --'):
                command, answer = line.rsplit('  # ', 1)
                found.append((bundle[1], shlex.split(command)[1:], answer))
    return found


def load(bundle: str):
    """The pages' model; skips the test where its language model was not fetched."""
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


def test_the_first_command_answers_what_the_readme_says(monkeypatch):
    monkeypatch.chdir(ROOT)
    install, command = blocks(README)[0].replace('\\\n', ' ').splitlines()
    assert install == "python3 -m venv .venv && .venv/bin/pip install -q -e '.[quickstart]' && . .venv/bin/activate"
    arguments = shlex.split(command)
    assert arguments[:4] == ['python', '-m', 'flamingo_jax.generate', '--checkpoint=experiments/picture_dictionary']
    (answer,) = re.findall('^It answers `(.*?)`', README, re.MULTILINE)
    assert load('picture_dictionary').generate(ordered_prompt(arguments[4:])) == answer


@pytest.mark.parametrize(
    'page, bundle', [(README, 'picture_dictionary'), (DIALOGUES, 'smollm_bridge')], ids=list(MODELS)
)
def test_the_python_block_answers_what_it_says(page, bundle, monkeypatch):
    """It runs from top to bottom; an expression or an assignment gives what the comment after it says of an answer."""
    monkeypatch.chdir(ROOT)
    (code,) = blocks(page, 'python')
    load(bundle)  # Or skips.
    lines, names, compared = code.splitlines(), {}, 0
    for statement in ast.parse(code).body:
        source, said = ast.unparse(statement), lines[statement.end_lineno - 1].partition('  # ')[2]
        if isinstance(statement, ast.Expr):
            value = eval(source, names)
        else:
            exec(source, names)
            if not source.startswith('answer = '):
                continue
            value = names['answer']
        compared += bool(said)
        if isinstance(value, np.ndarray):
            told = [float(number) for number in re.findall('-[0-9.]+', said)]
            np.testing.assert_allclose(value, told, atol=0.1)
        else:
            assert not said or value.startswith(said.partition(' …')[0])
    assert compared >= 2
