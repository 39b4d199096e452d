"""What an editor and a type checker know of the package."""

import os
import pathlib
import re
import subprocess
import sys

USE = """
import pathlib

import flamingo_jax

flamingo = flamingo_jax.load('bundle')
picture = pathlib.Path('a.png')
one: str = flamingo.generate([picture, ' dax<EOC>', picture], num_beams=3)
alone: str = flamingo.generate(' dax')
film: str = flamingo.generate([[picture, picture], ' What is it?'])
several: list[str] = flamingo.generate([[picture, ' dax'], [picture, ' wug']], seed=[1, 2])
step: int | None = flamingo.step
config: flamingo_jax.FlamingoConfig = flamingo.config
flamingo.generat([picture])  # wrong: "Pretrained" has no attribute "generat"
flamingo.generate([picture], max_tokens=3)  # wrong: "max_tokens"
list_of_one: list[str] = flamingo.generate([picture, ' dax'])  # wrong: expression has type "str"
one_of_list: str = flamingo.generate([[picture, ' dax'], [picture, ' wug']])  # wrong: expression has type "list[str]"
flamingo_jax.lod('bundle')  # wrong: Module has no attribute "lod"
flamingo_jax.load('bundle', dtyp='int8')  # wrong: "dtyp"
"""
ROOT = pathlib.Path(__file__).parents[1]


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
