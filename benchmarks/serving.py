"""Queries a second and the time to the first token with 1, 8 and 32 people at once, against one loop for each answer.

    python -m benchmarks.serving --out=FILE.json [--checkpoint=BUNDLE] [--lm=BUNDLE] [--users=1,8,32] [--new=16]
        [--examples=12] [--ask=:]

Each person asks, waits for the whole answer, and asks again. Prompts have 0 to `--examples` of docs/pictures and
a last image, in a random order of lengths, the same on both sides:

    apart     as the page did before there was an engine: one thread runs one step of one answer after another
    engine    `inference/serving.py`, which runs one step for all answers
    batches   as an evaluation: nobody waits, and `generate` answers 8 prompts at a time

All use one model, and take turns in one process. `new`: the last image of each query was never seen; `seen`: the
trunk has nothing to do. A turn in which a program was compiled is repeated. Answers end by <EOC>, or after `--new`
tokens. A ratio is another side's seconds a query / the engine's: the median, the lowest and the highest of all turns.
`processor` has the same of the processor's own time, for a machine that has other work (pin it to one core: taskset).
"""

import argparse
import concurrent.futures
import itertools
import json
import pathlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import PIL.Image
from tqdm import tqdm

from flamingo_jax.inference.pretrained import Pretrained, load
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.inference.serving import Engine

ROOT = pathlib.Path(__file__).parents[1]
WORDS = 'dax kuv', 'zev gof', 'mip', 'a lon vap', 'tuk ser', 'bim'
BATCH = 8
MOST, COMPILED = 9, 'backend_compile'  # A turn in which something was compiled is repeated, at most so many times.
IMAGES = sorted((ROOT / 'docs' / 'pictures').glob('*.png'))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=pathlib.Path, required=True, help='JSON file of all figures')
    parser.add_argument('--checkpoint', default=str(ROOT / 'experiments' / 'picture_dictionary'))
    parser.add_argument('--lm', default='')
    parser.add_argument('--users', type=lambda text: [int(part) for part in text.split(',')], default='1,8,32')
    parser.add_argument('--images', type=lambda text: text.split(','), default='new,seen', help='the last ones')
    parser.add_argument('--examples', type=int, default=12, help='most examples of a prompt')
    parser.add_argument('--new', type=int, default=16, help='most tokens of an answer')
    parser.add_argument(
        '--ask', default='', help='text after each image, as the model was trained: experiments/smollm_bridge has :'
    )
    parser.add_argument('--queries', type=int, default=64, help='of all people together; at least one of each')
    parser.add_argument('--repeats', type=int, default=3)
    return parser.parse_args()


def make_prompts(number: int, most: int, images: str, ask: str, turn: int) -> list[list[Any]]:
    """Prompts of 0 to `most` examples; `turn` makes each last image another, if it is to be `new`."""
    rng = np.random.default_rng(0)
    shown = [np.asarray(PIL.Image.open(path).convert('RGB').resize((256, 256))) for path in IMAGES[:6]]
    prompts = []
    for i in range(number):
        *examples, last = rng.integers(len(shown), size=1 + rng.integers(most + 1))
        examples = [[shown[j], f'{ask} {WORDS[j]}<EOC>'] for j in examples]
        last = shown[last].copy()
        if images == 'new':
            last[0, :2] = np.array([turn, i], '>u4').view(np.uint8).reshape(2, 4)[:, 1:]  # Two numbers of three bytes.
        prompts.append([item for example in examples for item in example] + [last] + [ask] * bool(ask))
    return prompts


class Found(NamedTuple):
    """One turn of one side."""

    seconds: float  # A query.
    processor: float  # Seconds of the processor's own time a query: other work on the machine changes it little.
    first: float  # Median seconds to a first token.
    answers: list[str]
    tokens: float = 0.0  # Mean of an answer.


def measure(prompts: list[list[Any]], users: int, write: Callable[[list[Any]], Iterator[Any]]) -> Found:
    """Prompts that so many people ask."""
    firsts, answers, tokens, lock = [0.0] * len(prompts), [''] * len(prompts), [0] * len(prompts), threading.Lock()
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
                answers[i], tokens[i] = written.text, len(written.tokens)

    begin, own = time.perf_counter(), time.process_time()
    with concurrent.futures.ThreadPoolExecutor(users) as people:
        list(people.map(person, range(users)))
    seconds, own = time.perf_counter() - begin, time.process_time() - own
    return Found(
        seconds / len(prompts), own / len(prompts), statistics.median(firsts), answers, statistics.mean(tokens)
    )


def apart(
    flamingo: Pretrained, device: concurrent.futures.Executor, how: dict[str, Any], prompt: list[Any]
) -> Iterator[Any]:
    """An answer by a loop of its own, whose steps share one thread with those of the others."""
    steps = flamingo.write(prompt, Sampling(**how))
    while (written := device.submit(next, steps, None).result()) is not None:
        yield written


def together(flamingo: Pretrained, how: dict[str, Any], prompts: list[list[Any]]) -> Found:
    """The same of prompts that are there from the start, answered in batches by `generate`."""
    begin, own, answers = time.perf_counter(), time.process_time(), []
    for i in range(0, len(prompts), BATCH):
        answers += flamingo.generate(prompts[i : i + BATCH], **how)
    seconds, own = time.perf_counter() - begin, time.process_time() - own
    return Found(seconds / len(prompts), own / len(prompts), seconds, answers)


def main() -> None:
    """Measures all sides, and prints and writes the figures."""
    a = parse()
    flamingo = load(a.checkpoint, lm=a.lm)
    figures = dict(jax=jax.__version__, device=jax.devices()[0].device_kind, cases={})
    figures |= dict(new=a.new, ask=a.ask, queries=a.queries, examples=a.examples)
    how = dict(max_new_tokens=a.new)
    turn, compiled = 0, []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if COMPILED in name else None
    )
    with concurrent.futures.ThreadPoolExecutor(1) as device, Engine(flamingo) as engine:
        sides = {
            'apart': lambda prompts, users: measure(prompts, users, lambda one: apart(flamingo, device, how, one)),
            'engine': lambda prompts, users: measure(prompts, users, lambda one: engine.ask(one, Sampling(**how))),
            'batches': lambda prompts, users: together(flamingo, how, prompts),
        }
        for images, users in tqdm(list(itertools.product(a.images, a.users)), desc='cases'):
            found = {side: [] for side in sides}
            for repeat in range(a.repeats + 1):  # The first is not counted: it may load what was compiled before.
                for side, run in sides.items():
                    for _ in range(MOST):
                        before = len(compiled)
                        one = run(
                            make_prompts(max(a.queries, users), a.examples, images, a.ask, turn := turn + 1), users
                        )
                        if len(compiled) == before:
                            break
                    found[side] += [one] if repeat else []
            case = dict(
                seconds={side: statistics.median(x.seconds for x in runs) for side, runs in found.items()},
                tokens=found['engine'][0].tokens,
                first_token={side: statistics.median(x.first for x in runs) for side, runs in found.items()},
                ratios={side: ratios(found[side], found['engine'], 'seconds') for side in ('apart', 'batches')},
                processor={side: ratios(found[side], found['engine'], 'processor') for side in ('apart', 'batches')},
                same={side: same(found[side][0].answers, found['engine'][0].answers) for side in ('apart', 'batches')},
            )
            figures['cases'][f'{images}, {users} users'] = case
            tqdm.write(f'{images}, {users} users {case}')
            a.out.write_text(json.dumps(figures, indent=2) + '\n')


def ratios(others: list[Found], ours: list[Found], of: str) -> tuple[float, float, float]:
    """Theirs / ours, turn by turn: the median, the lowest and the highest."""
    found = sorted(getattr(x, of) / getattr(y, of) for x, y in zip(others, ours, strict=True))
    return statistics.median(found), found[0], found[-1]


def same(one: list[str], other: list[str]) -> float:
    """The share of equal answers."""
    return sum(x == y for x, y in zip(one, other, strict=True)) / len(one)


if __name__ == '__main__':
    main()
