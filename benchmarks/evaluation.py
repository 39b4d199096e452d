"""Queries a second of an evaluation, against OpenFlamingo's own loop on the same weights, in one run.

    python -m benchmarks.evaluation --out=FILE.json [--peers=open_flamingo,idefics] [--shots=4,32] [--queries=8]

Needs the extra `parity` and open-flamingo==2.0.1 (.ci/run). The task is VQAv2's: images of 640 x 480 pixels, answers
of 5 tokens by 3 beams. The models have random parameters: an LM of width 512 with 8 layers and 32,000 tokens, a gated
block before every second, a ViT/16 of width 384 with 6 layers at 224 pixels. As in a published OpenFlamingo, an image
costs more than the text after it.

Each side runs in processes of its own, which take turns. A process asks its queries twice: cold, which for us includes
all compilation, and warm. Ours remembers nothing of the cold run.

    random    other examples for each query, as in the paper. Ours is asked the very prompts of the other side; how many
              answers are the same is part of the figures.
    seen      the same, where the images of all examples were seen before: later in an evaluation, which draws from
              2,048 examples, ours has read them all.
    fixed     the same examples for all queries, which ours reads once. The other side reads all examples with each
              query, whichever they are, so its time is that of the random ones.

A ratio is theirs / ours, in seconds per query by the wall clock and of the processor. With --one_thread the latter mean
the same, and vary less on a machine that has other work. The IDEFICS of transformers 5 runs its resampler for each
token, which that of transformers 4.57 did not; the version is written beside the figures.
"""

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

SUPPORT, WORDS, DEPTH, EVERY = 128, 31_996, 8, 2
SIZES = dict(hidden_size=512, num_attention_heads=8, intermediate_size=1376, max_position_embeddings=2048)
PASSES = ('cold', 'warm')


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def several(kind: type, text: str) -> dict[str, Any]:
        return dict(type=lambda value: [kind(part) for part in value.split(',')], default=text)

    parser.add_argument('--out', type=pathlib.Path, required=True, help='JSON file of all figures')
    parser.add_argument('--peers', **several(str, 'open_flamingo'))
    parser.add_argument('--shots', **several(int, '4,32'))
    parser.add_argument('--queries', type=int, default=8, help='that each side is asked, twice')
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--one_thread', action='store_true', help='for both sides, on a machine that has other work')
    parser.add_argument('--side', default='', help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=pathlib.Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def make(peer: str, folder: pathlib.Path, queries: int) -> Any:
    """Writes the data and our bundle; returns the original as its suite asks it. Always the same."""
    from flamingo_jax.checkpoints.converted import write
    from flamingo_jax.conversion import idefics, open_flamingo
    from tests import peers
    from tests.evaluation import open_flamingo_suite as suite

    data = folder / 'data'
    if not data.is_dir():
        texts = suite.write_vqav2(data, queries, SUPPORT, size=(640, 480))
        (folder / 'texts.json').write_text(json.dumps(texts))
    texts = json.loads((folder / 'texts.json').read_text())
    if peer == 'open_flamingo':
        vision = dict(image_size=224, layers=6, width=384, head_width=64, patch_size=16)
        sizes = SIZES | dict(num_key_value_heads=8)
        model, _ = peers.open_flamingo(folder, 'llama', EVERY, DEPTH, 0, words=WORDS, sizes=sizes, vision=vision)
        suite.write_tokenizer(folder / 'lm' / 'tokenizer.json', WORDS + 4, texts)
        if not (folder / 'bundle').is_dir():
            files = (str(folder / name) for name in ('checkpoint.pt', 'bundle', 'lm', 'clip.pt'))
            write(open_flamingo.convert, *files, heads=6)
        return suite.OpenFlamingo(model, folder / 'lm', 224)
    vision = dict(embed_dim=384, image_size=224, intermediate_size=1536, patch_size=16, num_hidden_layers=6)
    perceiver = dict(resampler_n_latents=64, resampler_depth=6, resampler_n_heads=16, resampler_head_dim=96)
    vision |= dict(num_attention_heads=6)
    how = dict(every=EVERY, depth=DEPTH, words=WORDS, sizes=SIZES, vision=vision, perceiver=perceiver)
    model = peers.idefics(folder / 'source', **how)
    suite.write_tokenizer(folder / 'source' / 'tokenizer.json', WORDS + 4, texts, suite.AROUND)
    if not (folder / 'bundle').is_dir():
        write(idefics.convert, str(folder / 'source'), str(folder / 'bundle'))
    return suite.Idefics(model, folder / 'source', 224)


def clock() -> dict[str, float]:
    """Both clocks, in seconds."""
    return dict(wall=time.perf_counter(), processor=time.process_time())


def since(begin: dict[str, float]) -> dict[str, float]:
    """Seconds by both clocks."""
    return {name: now - begin[name] for name, now in clock().items()}


def theirs(peer: str, folder: pathlib.Path, shots: int, queries: int, batch: int) -> dict[str, Any]:
    """Seconds of its loop, its answers and its examples, cold and warm."""
    from tests.evaluation import open_flamingo_suite as suite

    original, out = make(peer, folder, queries), []
    outputs = original.get_outputs
    for _ in PASSES:
        begins = []

        def timed(*args, begins=begins, **kwargs):  # The loop alone, without the data sets' opening.
            begins.append(clock())
            return outputs(*args, **kwargs)

        original.get_outputs = timed
        answers, drawn = suite.run(original, folder / 'data', 'vqav2', shots, batch, SUPPORT)
        out.append(dict(seconds=since(begins[0]), answers=answers, drawn=drawn))
    return dict(passes=out)


def ours(peer: str, folder: pathlib.Path, shots: int, queries: int, batch: int, support: str) -> dict[str, Any]:
    """Seconds of the same queries by `measure`, and the answers."""
    from experiments.evaluate import vqav2
    from flamingo_jax import memory
    from flamingo_jax.evaluation.datasets.vqav2 import VQAv2
    from flamingo_jax.evaluation.pools import Pools
    from flamingo_jax.evaluation.run import measure
    from flamingo_jax.evaluation.setting import Setting
    from flamingo_jax.evaluation.task import make as make_task
    from flamingo_jax.inference import pretrained
    from flamingo_jax.inputs.prompts import encode
    from tests.evaluation.test_peers_suite import DRAWN, DrawnVQAv2

    memory.keep_freed()
    passes = json.loads((folder / f'theirs_{shots}.json').read_text())['passes']
    model = pretrained.load(folder / 'bundle')
    c = vqav2.get_config(peer)
    c.data, c.batch_size = str(folder / 'data'), batch
    task = c.tasks.vqav2
    task.shots, task.support, task.support_size, task.controls = (shots,), ('random',), 0, ()
    task.asks = DrawnVQAv2
    if support == 'fixed':
        task.asks, task.support = VQAv2, ('fixed',)
    asked = make_task('vqav2', task.to_dict(), Pools(model, c))
    DRAWN.update(passes[0]['drawn'])
    drawn, out = set(itertools.chain(*DRAWN.values())), []
    shown = [item.image for item in asked._support if item.id in drawn]
    for _ in PASSES:
        fresh = dataclasses.replace(model)  # It has the same compiled programs, and has seen nothing.
        if support == 'seen':
            fresh.reader.images.of([encode(shown, model.tokenizer)])
        begin = clock()
        row, _ = measure(Setting.of(c, asked, shots, task.support[0], 'open-ended'), fresh, batch)
        answers = {id: query['answer'] for id, query in row.queries.items()}
        out.append(dict(seconds=since(begin), answers=answers))
    return dict(passes=out)


def main() -> None:
    """Runs both sides, and prints and writes the figures."""
    a = parse()
    if a.side:
        peer, shots = a.peers[0], a.shots[0] if a.shots else 0
        common = peer, a.folder, shots, a.queries, a.batch
        made = theirs(*common) if a.side == 'theirs' else ours(*common, a.side)
        a.out.write_text(json.dumps(made))
        return

    import jax
    import torch
    import transformers

    figures = dict(
        threads=1 if a.one_thread else os.cpu_count(),
        queries=a.queries,
        batch=a.batch,
        jax=jax.__version__,
        torch=torch.__version__,
        cases={},
    )
    figures['transformers'] = transformers.__version__
    for peer in a.peers:
        with tempfile.TemporaryDirectory() as folder:
            for shots in a.shots:
                found = {}
                for side in ('theirs', 'random', 'seen', 'fixed'):
                    file = pathlib.Path(folder, f'{side}_{shots}.json')
                    line = [sys.executable, '-m', 'benchmarks.evaluation', f'--side={side}', f'--folder={folder}']
                    line += [f'--out={file}', f'--peers={peer}', f'--shots={shots}']
                    line += [f'--queries={a.queries}', f'--batch={a.batch}']
                    threads = dict(OMP_WAIT_POLICY='passive')
                    if a.one_thread:
                        threads |= dict(OMP_NUM_THREADS='1', XLA_FLAGS='--xla_cpu_multi_thread_eigen=false')
                    subprocess.run(line, check=True, env=os.environ | threads)
                    found[side] = json.loads(file.read_text())['passes']
                for number, name in enumerate(PASSES):
                    spent = {side: passes[number]['seconds'] for side, passes in found.items()}
                    seconds = {c: {side: spent[side][c] / a.queries for side in spent} for c in spent['theirs']}
                    expected, got = (found[side][number]['answers'] for side in ('theirs', 'random'))
                    same = sum(got[id] == answer.strip() for id, answer in expected.items()) / a.queries
                    ratios = {
                        c: {side: of['theirs'] / of[side] for side in ('random', 'seen', 'fixed')}
                        for c, of in seconds.items()
                    }
                    case = f'{peer}, {shots} shots, {name}'
                    figures['cases'][case] = dict(seconds=seconds, same_answers=same, ratios=ratios)
                    print(case, figures['cases'][case], flush=True)
                    a.out.write_text(json.dumps(figures, indent=2) + '\n')


if __name__ == '__main__':
    main()
