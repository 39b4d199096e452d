"""What a plan of a laboratory's config compiles is what its run compiles; its evaluations have tasks to name."""

import importlib
import pathlib

import pytest

from research.experiments.ablations import ABLATIONS
from tests.plans import ROOT, compare_with_run

FOLDER = pathlib.Path(__file__).parents[1] / 'experiments'
CONFIGS = [path.stem for path in sorted(FOLDER.glob('[!_]*.py'))]
CONFIGS += [f'ablations:{name}' for name in ABLATIONS if name != 'base']
EVALUATIONS = [path.stem for path in sorted((FOLDER / 'evaluate').glob('[!_]*.py'))]
pytestmark = pytest.mark.usefixtures('quick_compilation')


def config_of(name):
    """Of research/experiments/NAME.py, or NAME:PART as --config takes it."""
    file, *part = name.split(':')
    return importlib.import_module(f'research.experiments.{file}').get_config(*part)


@pytest.mark.parametrize('name', CONFIGS)
def test_a_plan_has_the_shapes_of_the_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    compare_with_run(config_of(name), tmp_path)


@pytest.mark.parametrize('name', EVALUATIONS)
def test_every_task_of_every_evaluation_can_be_overridden(name):
    tasks = importlib.import_module(f'research.experiments.evaluate.{name}').get_config().tasks
    assert len(tasks) and all(name.isidentifier() for name in tasks)
    titles = [fields.title or name for name, fields in tasks.items()]
    assert len(set(titles)) == len(titles)
