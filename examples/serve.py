"""Answer the prompts of many people together, with the engine that a server is built on.

    python examples/serve.py [--people=8] [--checkpoint=experiments/picture_dictionary]

Each thread here stands for a person who asks and reads the answer while it is written. The engine decodes all answers
together, one token of each at a step; a prompt joins while others are being answered. docs/serving.md has what this
gains. The page that uses it: `pip install -e '.[demo]' && python -m flamingo_jax.demo`.

Cost: about a minute on two CPU cores for 8 people, most of it to compile for each size of batch; 1 GB of memory.

Expect one line for each person, in the order in which the answers end, and last the comparison:

    person 3: 'wug' in 1 part
    ...
    as one by one: 8 of 8 the same
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('checkpoint', 'experiments/picture_dictionary', 'A bundle, or the workdir of a training run.')
    flags.DEFINE_integer('people', 8, 'Who ask at the same time.', lower_bound=1)
    commands.start(__doc__)

import pathlib
from concurrent.futures import ThreadPoolExecutor, as_completed

import flamingo_jax
from flamingo_jax.errors import UserError
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.inference.serving import Engine
from flamingo_jax.inputs.prompts import Prompt

IMAGES = pathlib.Path(__file__).parents[1] / 'docs/pictures'
EXAMPLES = [IMAGES / 'gorilla.png', ' dax<EOC>', IMAGES / 'mushroom.png', ' wug<EOC>']


def prompt_of(person: int) -> Prompt:
    """What a person asks: prompts of different lengths and numbers of images, as they come to a server."""
    name = ('gorilla_3d', 'mushroom_3d', 'rooster_3d', 'spider_3d')[person % 4]
    query = IMAGES / f'{name}.png'
    return [*EXAMPLES, query] if person % 2 else [query, ' Question: is it an animal? Answer:']


def ask(engine: Engine, person: int) -> tuple[int, str, int]:
    """Reads one answer while it is written. A web server would send each part on.

    Returns:
      The person, the whole answer, and the number of its parts.
    """
    answer, parts = '', 0
    for written in engine.ask(prompt_of(person), Sampling(max_new_tokens=8)):
        answer, parts = written.text, parts + 1  # After each token the whole answer so far.
    return person, answer, parts


def main(checkpoint: str, people: int) -> None:
    """Starts the engine, asks, and compares with the same prompts one by one."""
    flamingo, answers = flamingo_jax.load(checkpoint), {}
    flamingo.remember(EXAMPLES)  # Read once, for all prompts that begin with them.
    with Engine(flamingo, slots=16) as engine, ThreadPoolExecutor(people) as threads:
        asked = [threads.submit(ask, engine, person) for person in range(people)]
        for future in as_completed(asked):
            person, answers[person], parts = future.result()
            print(f'person {person}: {answers[person]!r} in {parts} parts', flush=True)

        # A prompt that is wrong is refused at once, and ends nobody else's answer.
        try:
            engine.ask([*EXAMPLES, IMAGES / 'gorilla_3d.png'], Sampling(max_new_tokens=10_000))
        except UserError as error:
            print('refused:', error)

        # What else needs the model runs between two steps of the answers, on the engine's thread.
        scores = engine.call(flamingo.score, prompt_of(1), [' dax<EOC>', ' wug<EOC>']).result()
        print(f'between two steps: log-likelihoods {scores.round(1).tolist()}')

    alone = [flamingo.generate(prompt_of(person), max_new_tokens=8) for person in range(people)]
    same = sum(answers[person] == answer for person, answer in enumerate(alone))
    print(f'as one by one: {same} of {people} the same')


if __name__ == '__main__':
    main(flags.FLAGS.checkpoint, flags.FLAGS.people)
