"""Writes the training questions of a benchmark as documents to fine-tune on, in the words in which it is evaluated.

    python -m data.benchmarks.build --config=experiments/evaluate/vqav2.py --config.data=FOLDER --out=FOLDER/train.jsonl

A document is an image, the text before the answer, which is read and not learnt, and the answer. An image with
several captions gives as many documents. What shows the images of the split 'dev' is left out, so that one can tune
on it; `--config.tasks.NAME.dev_size=0` leaves out nothing. The file belongs into the folder of the images or one
above it, because documents name images from there. docs/benchmarks.md has the command that trains on it.
"""

from absl import flags

from flamingo_jax import commands
from flamingo_jax.errors import UserError

if __name__ == '__main__':
    flags.DEFINE_string('out', None, 'File to write.', required=True)
    commands.start(__doc__, config=True)

import json
import pathlib

from ml_collections import ConfigDict
from tqdm import tqdm

from flamingo_jax.evaluation.benchmark import Benchmark, Video
from flamingo_jax.files import write_whole


def build(config: ConfigDict, out: pathlib.Path) -> int:
    """Writes the documents of the support split of the config's task, without its split 'dev'. Returns their number.

    Raises:
      FileNotFoundError, ValueError: as for `Benchmark.read` and `Benchmark.present`; or the config has several tasks or
        none of a benchmark, an image is not below the folder of `out`, or a question is about a part of a video.
    """
    if len(config.tasks) != 1:
        raise UserError(f'The config has {len(config.tasks)} tasks. Give one with a single benchmark.')
    ((name, fields),) = config.tasks.to_dict().items()
    asks = fields.pop('asks')
    if not issubclass(asks, Benchmark) or not fields['support_split']:
        raise UserError(f'Task {name} has no training questions.')
    benchmark, lines = asks(**fields), []
    folder = pathlib.Path(fields['support_data'] or fields['data'] or config.data).expanduser()
    root = out.expanduser().absolute().parent
    benchmark.name = name
    items = list(benchmark.read(folder, benchmark.support_split))
    items = benchmark.divided(items)[1] if benchmark.dev_size else items
    if not items:
        raise UserError(
            f'Task {name} tunes on {benchmark.dev_size} questions, and the split {benchmark.support_split!r} of '
            f'{folder} has no others. Set --config.tasks.{name}.dev_size=0 to train on all.'
        )
    for item in tqdm(benchmark.present(items, benchmark.support_split), unit=' questions'):
        if isinstance(item.image, Video) and (item.image.begin or item.image.end is not None):
            raise UserError(
                f'The question {item.id} is about a part of {item.file}, but a document shows whole videos. Cut the '
                'parts out first.'
            )
        file = item.file.absolute()
        if not file.is_relative_to(root):
            raise UserError(f'{file} is not below {root}. Write --out into {folder.absolute()}.')
        shown = {'video' if isinstance(item.image, Video) else 'image': str(file.relative_to(root))}
        for answer in benchmark.learnt(item):
            text = dict(text=item.text, weight=0)
            lines.append(json.dumps([shown, text, benchmark.prompts.answer.format(answer=answer)], ensure_ascii=False))
    write_whole(out.expanduser(), ''.join(line + '\n' for line in lines).encode())
    return len(lines)


if __name__ == '__main__':
    print(f'{build(flags.FLAGS.config, pathlib.Path(flags.FLAGS.out))} documents in {flags.FLAGS.out}')
