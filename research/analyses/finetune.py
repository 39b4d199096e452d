"""Fine-tunes a tiny OpenFlamingo on 32 images of the sample, each with its own word, with LoRA and without.

    python -m research.analyses.finetune --folder=DIR

The model is that of tests/golden/peers.npz, with 1.1M random parameters. Training takes 100 steps, two minutes in all.
Prints the mean loss of the first and of the last ten steps, and the share of right targets at the end: names, and the
ends of chunk and text.
"""

import argparse
import json
import pathlib

from experiments import finetune_open_flamingo
from flamingo_jax.checkpoints.converted import write
from flamingo_jax.conversion import open_flamingo
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.train import train
from tests import peers
from tests.tiny_run import losses

ROOT = pathlib.Path(__file__).parents[2]
IMAGES = 32


def write_documents(folder: pathlib.Path) -> pathlib.Path:
    """The first image of each concept, and the file that names them."""
    records = open_split(ROOT / 'data/picture_dictionary/sample', 'train')
    first = {records[i]['concept']: records[i]['frames'][0] for i in reversed(range(len(records)))}
    lines = []
    for i, (_, image) in zip(range(IMAGES), sorted(first.items()), strict=False):
        (folder / f'{i}.png').write_bytes(image)
        lines.append([{'image': f'{i}.png'}, {'text': 'w80 w81', 'weight': 0}, f'w{i}'])
    path = folder / 'own.jsonl'
    path.write_text('\n'.join(map(json.dumps, lines)))
    return path


def main() -> None:
    """Converts, trains twice, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--folder', type=pathlib.Path, required=True, help='for everything; must not exist')
    folder = parser.parse_args().folder
    folder.mkdir(parents=True)
    peers.write_golden(folder, 'open_flamingo')
    paths = [str(folder / name) for name in ('checkpoint.pt', 'bundle', 'lm', 'clip.safetensors')]
    write(open_flamingo.convert, *paths, heads=3)
    own = write_documents(folder)
    for rank in (0, 8):
        c = finetune_open_flamingo.get_config()
        c.start, c.datasets.own.path, c.lora.rank = paths[1], str(own), rank
        c.datasets.own.update(length=16, images=1)
        c.optimizer.update(learning_rate=1e-3, warmup_steps=5)
        c.steps = 100
        workdir = folder / f'rank{rank}'
        last = train(c, workdir)
        (_, begin), *_, (_, end) = losses(workdir)
        print(f'LoRA of rank {rank}: loss {begin:.2f} -> {end:.2f}, right {last["own/accuracy"]:.2f}', flush=True)


if __name__ == '__main__':
    main()
