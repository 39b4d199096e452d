"""Benchmarks, experiments, builders of data and the laboratory, most of which no test runs, import what exists."""

import ast
import functools
import importlib
import pathlib
import symtable
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[1]
PRODUCT = ('flamingo_jax', 'data', 'experiments', 'benchmarks', 'tests', 'examples')
ROOMS = (*PRODUCT, 'research')


@functools.cache
def names_of(module: str) -> set[str]:
    """The names that can be imported from a module of the project: what it binds, or a folder's files."""
    file = ROOT / f'{module.replace(".", "/")}.py'
    if not file.is_file():
        return {inside.stem for inside in file.with_suffix('').iterdir()} | set(dir(importlib.import_module(module)))
    symbols = symtable.symtable(file.read_text(), str(file), 'exec').get_symbols()
    return {symbol.get_name() for symbol in symbols if symbol.is_local()}


def imports_of(*rooms: str) -> Iterator[tuple[str, str, list[str]]]:
    """What the files of these folders import of the project: (file, module, names; none for `import MODULE`)."""
    for file in (file for room in rooms for file in sorted((ROOT / room).rglob('*.py'))):
        for node in ast.walk(ast.parse(file.read_text())):
            found = []
            if isinstance(node, ast.ImportFrom):
                found = [(node.module or '', [name.name for name in node.names])]
            elif isinstance(node, ast.Import):
                found = [(name.name, []) for name in node.names]
            for module, names in found:
                if module.partition('.')[0] in ROOMS:
                    yield str(file.relative_to(ROOT)), module, names


def test_every_imported_name_exists():
    missing = [
        f'{file}: {name} of {module}'
        for file, module, names in imports_of('benchmarks', 'experiments', 'data', 'research')
        for name in set(names) - {'*'} - names_of(module)
    ]
    assert not missing


def test_the_product_does_not_import_the_laboratory():
    found = list(imports_of(*PRODUCT))
    assert len(found) > 1000  # Fewer: these are not the folders.
    assert [(file, module) for file, module, _ in found if module.partition('.')[0] == 'research'] == []
