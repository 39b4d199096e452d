"""What a prompt costs through each bridge, on SmolLM2: places of text, memory and time.

    python -m research.analyses.bridges --lm=LMS/smollm2 --vision=experiments/smollm_bridge [--shots=1,4,16]

The bridges are those of research/experiments/bridges.py. A shot is an image and ` name: NAME<EOC>`; a last image and
` name:` follow. The time is that of reading the prompt from features of the trunk, which all bridges share, up to the
first answer's logits: the fastest of 5, the bridges in turns. Memory is what the compiled program holds beside
parameters and features. The bridges have random parameters, and the sizes of experiments/smollm_pictures.py. With
`5 tiles`, five images stand in the place of each, its four quarters and its whole, as in LLaVA 1.6.
"""

import argparse
import time

import flax.linen as nn
import jax
import numpy as np

from experiments import smollm_pictures
from flamingo_jax.inputs.prompts import encode
from flamingo_jax.training.assemble import assemble
from research.experiments import bridges


def main() -> None:
    """A table for each number of shots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--lm', required=True, help='bundle of the language model')
    parser.add_argument('--vision', required=True, help='bundle of the trunk')
    parser.add_argument('--shots', default='1,4,16')
    a = parser.parse_args()
    print('| shots | bridge | places of text | memory, MB | s | s / that of the paper |\n|---|---|---|---|---|---|')
    made, rng = {}, np.random.default_rng(0)
    for name, tiles in [*((name, 1) for name in bridges.BRIDGES), ('paper', 5), ('llava', 5)]:
        _, connector, fields = bridges.BRIDGES[name]
        config = smollm_pictures.base()
        smollm_pictures.new_bridge(config)
        config.resampler = ''
        config.trained = ('resampler', *config.trained)
        bridges.put(config, connector, **fields)
        config.lm, config.vision = a.lm, a.vision
        parts = assemble(config)
        frozen = {tree: source.params(tree, np.float32) for tree, source in parts.frozen.items()}
        shapes = nn.meta.unbox(jax.eval_shape(parts.model.init, jax.random.key(0)))
        new = {tree: shapes[tree] for tree in parts.trained}
        made[name if tiles == 1 else f'{name}, {tiles} tiles'] = (
            tiles,
            parts,
            frozen | jax.tree.map(lambda x: rng.normal(scale=0.02, size=x.shape).astype(np.float32), new),
        )
    shape = None
    for shots in map(int, a.shots.split(',')):
        programs = {}
        for name, (tiles, parts, params) in made.items():
            if shape is None:
                size = parts.model.config.image_size
                pixels = jax.ShapeDtypeStruct((1, 1, 1, size, size, 3), np.uint8)
                shape = jax.eval_shape(parts.model.features, params, pixels).shape[3:]
            images = rng.normal(size=((shots + 1) * tiles, 1, *shape)).astype(np.float32)
            shown = np.split(images, shots + 1)  # The tiles of each.
            prompt = [item for tiled in shown[:-1] for item in (*tiled, ' name: full moon<EOC>')]
            tokens = np.array([encode([*prompt, *shown[-1], ' name:'], parts.tokenizer).tokens])

            def first(params, images, tokens, model=parts.model):
                return model.unembed(params, model.hidden(params, images, tokens)[:, -1:])

            arguments = params, images[None], tokens
            program = jax.jit(first).lower(*arguments).compile()
            programs[name] = program, arguments, tokens.shape[1]
        seconds = {name: [] for name in programs}
        for _ in range(6):
            for name, (program, arguments, _) in programs.items():
                begin = time.perf_counter()
                jax.block_until_ready(program(*arguments))
                seconds[name].append(time.perf_counter() - begin)
        best = {name: min(some[1:]) for name, some in seconds.items()}
        for name, (program, _, length) in programs.items():
            memory = program.memory_analysis().temp_size_in_bytes / 1e6
            ratio = best[name] / best['paper']
            print(f'| {shots} | `{name}` | {length} | {memory:.0f} | {best[name]:.2f} | {ratio:.2f} |', flush=True)


if __name__ == '__main__':
    main()
