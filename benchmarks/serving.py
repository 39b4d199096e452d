"""Queries a second and the time to the first token with 1, 8 and 32 people at once, against one loop for each answer.

    python benchmarks/serving.py --out=FILE.json [--checkpoint=BUNDLE] [--lm=BUNDLE] [--users=1,8,32] [--new=16]

Each person asks, waits for the whole answer, and asks again. Prompts have 0 to 12 examples of docs/pictures and a last
picture, in a random order of lengths, the same on both sides:

    apart     as the page did before there was an engine: one thread runs one step of one answer after another
    engine    `inference/serving.py`, which runs one step for all answers
    batches   as an evaluation: nobody waits, and `generate` answers 8 prompts at a time

All use one model, and take turns in one process. `new`: the last picture of each query was never seen; `seen`: the
trunk has nothing to do. Everything is compiled before it is timed. Answers end by <EOC>, or after `--new` tokens. A
ratio is queries a second, engine / another side: the median, the lowest and the highest of all turns.
"""

import argparse
import concurrent.futures
import itertools
import json
import pathlib
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import numpy as np  # noqa: E402
import PIL.Image  # noqa: E402
from tqdm import tqdm  # noqa: E402

from flamingo_jax.inference.pretrained import Pretrained, load  # noqa: E402
from flamingo_jax.inference.serving import Engine  # noqa: E402

WORDS = 'dax kuv', 'zev gof', 'mip', 'a lon vap', 'tuk ser', 'bim'
BATCH = 8
PICTURES = sorted((ROOT / 'docs' / 'pictures').glob('*.png'))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=pathlib.Path, required=True, help='JSON file of all figures')
    parser.add_argument('--checkpoint', default=str(ROOT / 'experiments' / 'picture_dictionary'))
    parser.add_argument('--lm', default='')
    parser.add_argument('--users', type=lambda text: [int(part) for part in text.split(',')], default='1,8,32')
    parser.add_argument('--pictures', type=lambda text: text.split(','), default='new,seen', help='the last ones')
    parser.add_argument('--new', type=int, default=16, help='most tokens of an answer')
    parser.add_argument('--queries', type=int, default=64, help='of all people together; at least one of each')
    parser.add_argument('--repeats', type=int, default=3)
    return parser.parse_args()


def make_prompts(number: int, pictures: str, turn: int) -> list[list[Any]]:
    """Prompts of 0 to 12 examples; `turn` makes the last picture of each another, if it is to be `new`."""
    rng = np.random.default_rng(0)
    shown = [np.asarray(PIL.Image.open(path).convert('RGB').resize((256, 256))) for path in PICTURES[:6]]
    prompts = []
    for i in range(number):
        *examples, last = rng.integers(len(shown), size=1 + rng.integers(13))
        examples = [[shown[j], f' {WORDS[j]}<EOC>'] for j in examples]
        last = shown[last].copy()
        if pictures == 'new':
            last[0, 0] = turn, i // 256, i % 256
        prompts.append([item for example in examples for item in example] + [last])
    return prompts


def measure(
    prompts: list[list[Any]], users: int, write: Callable[[list[Any]], Iterator[Any]]
) -> tuple[float, float, list[str]]:
    """Queries a second, the median seconds to a first token, and the answers."""
    firsts, answers, lock = [0.0] * len(prompts), [''] * len(prompts), threading.Lock()
    left = iter(range(len(prompts)))

    def person(_: int) -> None:
        while True:
            with lock:
                i = next(left, None)
            if i is None:
                return
            begin = time.perf_counter()
            for written in write(prompts[i]):
                firsts[i] = firsts[i] or time.perf_counter() - begin
                answers[i] = written.text

    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(users) as people:
        list(people.map(person, range(users)))
    return len(prompts) / (time.perf_counter() - begin), statistics.median(firsts), answers


def apart(flamingo: Pretrained, device: concurrent.futures.Executor, new: int, prompt: list[Any]) -> Iterator[Any]:
    """An answer by a loop of its own, whose steps share one thread with those of the others."""
    steps = flamingo.write(prompt, new)
    while (written := device.submit(next, steps, None).result()) is not None:
        yield written


def together(flamingo: Pretrained, new: int, prompts: list[list[Any]]) -> tuple[float, float, list[str]]:
    """The same of prompts that are there from the start, answered in batches by `generate`."""
    begin, answers = time.perf_counter(), []
    for i in range(0, len(prompts), BATCH):
        answers += flamingo.generate(prompts[i : i + BATCH], new)
    seconds = time.perf_counter() - begin
    return len(prompts) / seconds, seconds, answers


def main() -> None:
    """Measures all sides, and prints and writes the figures."""
    a = parse()
    flamingo = load(a.checkpoint, lm=a.lm)
    figures = dict(jax=jax.__version__, device=jax.devices()[0].device_kind, new=a.new, queries=a.queries, cases={})
    turn = 0
    with concurrent.futures.ThreadPoolExecutor(1) as device, Engine(flamingo) as engine:
        sides = {
            'apart': lambda prompts, users: measure(prompts, users, lambda one: apart(flamingo, device, a.new, one)),
            'engine': lambda prompts, users: measure(prompts, users, lambda one: engine.ask(one, a.new)),
            'batches': lambda prompts, users: together(flamingo, a.new, prompts),
        }
        for pictures, users in tqdm(list(itertools.product(a.pictures, a.users)), desc='cases'):
            found = {side: [] for side in sides}
            for repeat in range(a.repeats + 1):  # The first compiles.
                for side, run in sides.items():
                    turn += 1
                    one = run(make_prompts(max(a.queries, users), pictures, turn), users)
                    found[side] += [one] if repeat else []
            rates = {side: [one[0] for one in runs] for side, runs in found.items()}
            case = dict(
                queries_per_second={side: statistics.median(some) for side, some in rates.items()},
                ratios={side: ratio(rates['engine'], rates[side]) for side in ('apart', 'batches')},
                first_token={side: statistics.median(one[1] for one in runs) for side, runs in found.items()},
                answers_as_apart={side: same(found['apart'][0][2], found[side][0][2]) for side in sides},
            )
            figures['cases'][f'{pictures}, {users} users'] = case
            tqdm.write(f'{pictures}, {users} users {case}')
            a.out.write_text(json.dumps(figures, indent=2) + '\n')


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Median, lowest and highest of all turns."""
    found = sorted(x / y for x, y in zip(ours, theirs, strict=True))
    return statistics.median(found), found[0], found[-1]


def same(one: list[str], other: list[str]) -> float:
    """The share of equal answers."""
    return sum(x == y for x, y in zip(one, other, strict=True)) / len(one)


if __name__ == '__main__':
    main()
