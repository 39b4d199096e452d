"""What an editor and a type checker know of the package."""

import ast
import os
import pathlib
import re
import subprocess
import sys

USE = """
import pathlib

import flamingo_jax

flamingo = flamingo_jax.load('bundle')
image = pathlib.Path('a.png')
one: str = flamingo.generate([image, ' dax<EOC>', image], num_beams=3)
alone: str = flamingo.generate(' dax')
video: str = flamingo.generate([[image, image], ' What is it?'])
several: list[str] = flamingo.generate([[image, ' dax'], [image, ' wug']], seed=[1, 2])
step: int | None = flamingo.step
config: flamingo_jax.FlamingoConfig = flamingo.config
flamingo.generat([image])  # wrong: "Pretrained" has no attribute "generat"
flamingo.generate([image], max_tokens=3)  # wrong: "max_tokens"
list_of_one: list[str] = flamingo.generate([image, ' dax'])  # wrong: expression has type "str"
one_of_list: str = flamingo.generate([[image, ' dax'], [image, ' wug']])  # wrong: expression has type "list[str]"
flamingo_jax.lod('bundle')  # wrong: Module has no attribute "lod"
flamingo_jax.load('bundle', dtyp='int8')  # wrong: "dtyp"
"""
ROOT = pathlib.Path(__file__).parents[1]
# Beam reads their annotations as types of its own.
OF_BEAM = {'start_bundle', 'process', 'finish_bundle', 'expand'}


def test_a_type_checker_finds_what_is_wrong_and_nothing_else(tmp_path):
    (tmp_path / 'use.py').write_text(USE)
    line = [sys.executable, '-m', 'mypy', '--follow-imports=silent', f'--cache-dir={tmp_path}/cache', 'use.py']
    environment = os.environ | dict(MYPYPATH=str(ROOT))
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    said: dict[int, str] = {}
    for number, error in re.findall(r'^use.py:(\d+): error: (.*)$', done.stdout, re.MULTILINE):
        said[int(number)] = said.get(int(number), '') + error
    wrong = {i: line.split('# wrong: ')[1] for i, line in enumerate(USE.split('\n'), 1) if '# wrong: ' in line}
    assert said.keys() == wrong.keys(), done.stdout + done.stderr
    for number, error in wrong.items():
        assert error in said[number]
    assert (ROOT / 'flamingo_jax/py.typed').is_file() and "'py.typed'" in (ROOT / 'setup.py').read_text()


def public_functions(body: list[ast.stmt], inside: bool = False):
    """The functions of a module and the methods of its classes, without what is private: (function, its arguments)."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
            yield from public_functions(node.body, inside=True)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith('_'):
            of = node.args
            static = any(isinstance(mark, ast.Name) and mark.id == 'staticmethod' for mark in node.decorator_list)
            named = [*of.posonlyargs, *of.args][inside and not static :] + of.kwonlyargs
            yield node, [arg for arg in (*named, of.vararg, of.kwarg) if arg is not None]


def test_every_public_function_is_annotated():
    lacking, known = [], 0
    for file in (ROOT / 'flamingo_jax').rglob('*.py'):
        for function, arguments in public_functions(ast.parse(file.read_text()).body):
            known += 1
            if function.name not in OF_BEAM and (
                function.returns is None or any(argument.annotation is None for argument in arguments)
            ):
                lacking.append(f'{file.relative_to(ROOT)}:{function.lineno} {function.name}')
    assert known > 500 and not lacking, lacking


def test_public_names_are_there_for_a_type_checker_as_they_are_at_run_time():
    import flamingo_jax

    source = (ROOT / 'flamingo_jax/__init__.py').read_text()
    (block,) = (node for node in ast.parse(source).body if isinstance(node, ast.If))
    for line in block.body:
        assert isinstance(line, ast.ImportFrom) and line.module and line.names[0].name in flamingo_jax.__all__
        module = __import__(line.module, fromlist=[line.names[0].name])
        assert getattr(module, line.names[0].name) is getattr(flamingo_jax, line.names[0].name)
    assert {line.names[0].name for line in block.body} == {*flamingo_jax.__all__} - {'__version__'}
