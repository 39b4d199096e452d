"""Lists the commands: python -m flamingo_jax."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parent

if __name__ == '__main__':
    for file in sorted([*ROOT.glob('[a-z]*.py'), ROOT / 'demo/__main__.py']):
        said = ast.get_docstring(ast.parse(file.read_text(encoding='utf-8'))) or ''
        name = f'python -m flamingo_jax.{file.parent.name if file.stem == "__main__" else file.stem}'
        if name in said:
            print(f'{name:34}  {said.splitlines()[0]}')
    print('Each has --help.')
