"""Benchmarks, experiments and builders of data, most of which no test runs, import only names that exist."""

import ast
import functools
import importlib
import pathlib
import symtable

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = ('flamingo_jax', 'data', 'experiments', 'benchmarks', 'tests')


@functools.cache
def names_of(module: str) -> set[str]:
    """The names that can be imported from a module of the project: what it binds, or a folder's files."""
    file = ROOT / f'{module.replace(".", "/")}.py'
    if not file.is_file():
        return {inside.stem for inside in file.with_suffix('').iterdir()} | set(dir(importlib.import_module(module)))
    symbols = symtable.symtable(file.read_text(), str(file), 'exec').get_symbols()
    return {symbol.get_name() for symbol in symbols if symbol.is_local()}


def test_every_imported_name_exists():
    missing = []
    for file in (file for room in ('benchmarks', 'experiments', 'data') for file in (ROOT / room).rglob('*.py')):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.partition('.')[0] in ROOMS:
                gone = {name.name for name in node.names} - names_of(node.module)
                missing += [f'{file.relative_to(ROOT)}: {name} of {node.module}' for name in gone]
    assert not missing
