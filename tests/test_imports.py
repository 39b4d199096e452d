"""Imports point down the rooms of the package, stay out of the laboratory, and name what exists."""

import ast
import functools
import importlib
import pathlib
import symtable
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[1]
PRODUCT = ('flamingo_jax', 'data', 'experiments', 'benchmarks', 'tests', 'examples')
ROOMS = (*PRODUCT, 'research')
# The folders of the package. Each imports those below it; those of one line do not import each other.
DOWN = (
    {'demo', 'lmms_eval'},
    {'planning', 'serving'},
    {'evaluation', 'training'},
    {'inference'},
    {'checkpoints'},
    {'conversion'},
    {'tasks'},
    {'building'},
    {'inputs'},
    {'model', 'parallel'},
)


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


def imported(file: pathlib.Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f'{node.module}.{name.name}' for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name for name in found if name.startswith('flamingo_jax.')}


def test_imports_point_down_the_rooms():
    place = {room: i for i, rooms in enumerate(DOWN) for room in rooms}
    folders = {path.name for path in (ROOT / 'flamingo_jax').iterdir() if (path / '__init__.py').is_file()}
    assert folders == place.keys()
    up = []
    for room, i in place.items():
        for file in (ROOT / 'flamingo_jax' / room).rglob('*.py'):
            rooms = {name.split('.')[1] for name in imported(file)} & place.keys() - {room}
            up += [f'{file.relative_to(ROOT)} imports {other}' for other in sorted(rooms) if place[other] <= i]
    assert not up
