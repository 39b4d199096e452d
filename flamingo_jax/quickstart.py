"""Runs the quickstart, experiments/quickstart.py of the clone or of the installed package, from any folder.

    python -m flamingo_jax.quickstart [--workdir=runs/quickstart] [--steps=500] [--episodes=400]
    python -m flamingo_jax.quickstart --where

--where prints the folder with the experiments and the sample. The published models are in the clone alone.
"""

import pathlib
import runpy
import sys

PACKAGE = pathlib.Path(__file__).parent
ROOT = PACKAGE / 'embedded' if (PACKAGE / 'embedded').is_dir() else PACKAGE.parent

if __name__ == '__main__':
    if sys.argv[1:] == ['--where']:
        print(ROOT)
    else:
        runpy.run_path(str(ROOT / 'experiments' / 'quickstart.py'), run_name='__main__')
