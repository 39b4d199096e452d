"""Queries a second and the time to the first token with 1, 8 and 32 people at once, against one loop for each answer.

    python benchmarks/serving.py --out=FILE.json [--checkpoint=BUNDLE] [--lm=BUNDLE] [--users=1,8,32] [--new=16]

Each person asks, waits for the whole answer, and asks again. Prompts have 0 to 4 examples of docs/pictures and a last
picture, in a random order of lengths, the same on both sides:

    apart     as the page did before there was an engine: one thread runs one step of one answer after another
    engine    `inference/serving.py`, which runs one step for all answers

Both use one model, and take turns in one process. `new`: the last picture of each query was never seen; `seen`: the
trunk has nothing to do. Everything is compiled before it is timed. Answers end by <EOC>, or after `--new` tokens. A
ratio is the queries a second of the engine / those of the loops apart; below it is its lowest and highest of all turns.

With --batch=8, the same queries are also answered as an evaluation does: 8 prompts at a time by `generate`.
"""

import argparse
import concurrent.futures
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
PICTURES = sorted((ROOT / 'docs' / 'pictures').glob('*.png'))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=pathlib.Path, required=True, help='JSON file of all figures')
    parser.add_argument('--checkpoint', default=str(ROOT / 'experiments' / 'picture_dictionary'))
    parser.add_argument('--lm', default='')
    parser.add_argument('--users', type=lambda text: [int(part) for part in text.split(',')], default='1,8,32')
    parser.add_argument('--new', type=int, default=16, help='most tokens of an answer')
    parser.add_argument('--queries', type=int, default=64, help='of all people together')
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--batch', type=int, default=0)
    return parser.parse_args()


def make_prompts(number: int, pictures: str, turn: int) -> list[list[Any]]:
    """Prompts of 0 to 4 examples; `turn` makes the last picture of each another, if it is to be `new`."""
    rng = np.random.default_rng(0)
    shown = [np.asarray(PIL.Image.open(path).convert('RGB').resize((256, 256))) for path in PICTURES[:6]]
    prompts = []
    for i in range(number):
        order = rng.permutation(len(shown))
        examples = [[shown[j], f' {WORDS[j]}<EOC>'] for j in order[: rng.integers(5)]]
        last = shown[order[-1]].copy()
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


def main() -> None:
    """Measures both sides, and prints and writes the figures."""
    a = parse()
    flamingo = load(a.checkpoint, lm=a.lm)
    figures = dict(jax=jax.__version__, device=jax.devices()[0].device_kind, new=a.new, queries=a.queries, cases={})
    turn, cases = 0, [(pictures, users) for pictures in ('new', 'seen') for users in a.users]
    with concurrent.futures.ThreadPoolExecutor(1) as device, Engine(flamingo) as engine:
        sides = {
            'apart': lambda prompt: apart(flamingo, device, a.new, prompt),
            'engine': lambda prompt: engine.ask(prompt, a.new),
        }
        for pictures, users in tqdm(cases, desc='cases'):
            found = {side: [] for side in sides}
            for repeat in range(a.repeats + 1):  # The first compiles.
                for side, write in sides.items():
                    turn += 1
                    one = measure(make_prompts(a.queries, pictures, turn), users, write)
                    found[side] += [one] if repeat else []
            rates = {side: [one[0] for one in runs] for side, runs in found.items()}
            ratios = sorted(x / y for x, y in zip(rates['engine'], rates['apart'], strict=True))
            expected, got = (found[side][0][2] for side in sides)
            same = sum(x == y for x, y in zip(expected, got, strict=True)) / len(got)
            case = dict(
                queries_per_second={side: statistics.median(some) for side, some in rates.items()},
                ratio=(statistics.median(ratios), ratios[0], ratios[-1]),
                first_token={side: statistics.median(one[1] for one in runs) for side, runs in found.items()},
                same_answers=same,
            )
            figures['cases'][f'{pictures}, {users} users'] = case
            tqdm.write(f'{pictures}, {users} users {case}')
            a.out.write_text(json.dumps(figures, indent=2) + '\n')
        if a.batch:
            runs = []
            for repeat in range(a.repeats + 1):
                prompts = make_prompts(a.queries, 'seen', 0)
                begin = time.perf_counter()
                for i in range(0, len(prompts), a.batch):
                    engine.call(flamingo.generate, prompts[i : i + a.batch], a.new).result()
                runs += [a.queries / (time.perf_counter() - begin)] if repeat else []
            figures['cases'][f'seen, batches of {a.batch}'] = dict(queries_per_second=statistics.median(runs))
            print(f'batches of {a.batch}', figures['cases'][f'seen, batches of {a.batch}'])
            a.out.write_text(json.dumps(figures, indent=2) + '\n')


if __name__ == '__main__':
    main()
