"""The longest pause between two tokens of an answer while a prompt of many images arrives, in steps of the engine.

    python -m benchmarks.pauses [--checkpoint=BUNDLE] [--lm=BUNDLE] [--images=32] [--out=FILE.json]

One person has an answer written, and another when it ends, and so on. Beside it a prompt of `--images` images arrives
that were never seen: first of a size for which nothing is compiled, then of the same size. A step is the median time
between two tokens while nobody else asks. Nothing but the persistent cache of compiled programs may be warm: the
command keeps none.
"""

import argparse
import json
import pathlib
import statistics
import threading
import time
from typing import Any

import jax
import numpy as np

from flamingo_jax.inference.pretrained import load
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.inference.serving import Engine

ROOT = pathlib.Path(__file__).parents[1]
QUIET = 100  # Tokens while nobody else asks.


class Listener(threading.Thread):
    """Notes when each token of one answer after another came."""

    def __init__(self, engine: Engine, prompt: list[Any], new: int):
        """new: tokens of an answer."""
        super().__init__(daemon=True)
        self.engine, self.prompt, self.new = engine, prompt, new
        self.came: list[tuple[float, float]] = []  # When, and how long after the token before.
        self.over = False

    def run(self) -> None:
        """Asks until it is over."""
        while not self.over:
            before = None
            for _ in self.engine.ask(self.prompt, Sampling(self.new)):
                now = time.perf_counter()
                if before is not None:
                    self.came.append((now, now - before))
                before = now

    def pauses(self, begin: float, end: float) -> list[float]:
        """Those that ended between two times."""
        return [pause for when, pause in self.came if begin <= when <= end]


def main() -> None:
    """Measures, prints, and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--checkpoint', default=str(ROOT / 'experiments' / 'picture_dictionary'))
    parser.add_argument('--lm', default='')
    parser.add_argument('--images', type=int, default=32)
    parser.add_argument('--out', type=pathlib.Path, help='JSON file of all figures')
    a = parser.parse_args()
    jax.config.update('jax_enable_compilation_cache', False)
    flamingo = load(a.checkpoint, lm=a.lm)
    vars(flamingo)['ends'] = ()  # Answers are as long as they may be.
    rng = np.random.default_rng(0)
    side = flamingo.image_format.size
    new_image = lambda: rng.integers(0, 256, (side, side, 3), np.uint8)  # noqa: E731
    context = flamingo.config.lm.context
    short = [new_image()]
    new = context - len(flamingo.encoded(short, 1).tokens)
    with Engine(flamingo) as engine:
        listener = Listener(engine, short, new)
        engine.ask(short, Sampling(new)).text()  # Compiles what one person needs.
        listener.start()
        while len(listener.came) < QUIET:
            time.sleep(0.01)
        step = statistics.median(pause for _, pause in listener.came)
        figures: dict[str, Any] = dict(jax=jax.__version__, device=jax.devices()[0].device_kind, step=step)
        for name in ('compiled while it arrives', 'compiled before'):
            prompt = [item for _ in range(a.images - 1) for item in (new_image(), ' dax<EOC>')] + [new_image()]
            begin = time.perf_counter()
            answer = engine.ask(prompt, Sampling(8))
            next(answer)
            first = time.perf_counter()
            answer.text()
            pauses = listener.pauses(begin, time.perf_counter())
            figures[name] = dict(
                first_token=first - begin,
                tokens_beside=len(pauses),
                longest_pause_in_steps=max(pauses) / step,
                median_pause_in_steps=statistics.median(pauses) / step,
            )
        listener.over = True
        listener.join()
    print(json.dumps(figures, indent=1))
    if a.out:
        a.out.write_text(json.dumps(figures, indent=1))


if __name__ == '__main__':
    main()
