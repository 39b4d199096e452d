"""Answers with a model that was exported as StableHLO: without flamingo_jax, and without any code of the model.

    python examples/answer_exported.py --workdir=DIR [--steps=16]

Cost: half a minute, of which most is the export.
Expect the answer of `generate` to two prompts, as tokens and as text: zev gof, and what the model calls the mushroom.

DIR/model is what `python -m flamingo_jax.convert stablehlo` wrote, DIR/prompts.npz what the prompts become before the
model: `tokens` int32 and `valid` bool [b l], padded on the left, and `images` uint8 [b n height width 3]. `prepare`
makes both with flamingo_jax, unless they are there. All else needs jax, numpy and safetensors alone.
"""

import argparse
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax import export


class Exported:
    """The programs of a folder, with their parameters."""

    def __init__(self, folder: pathlib.Path):
        """folder: as `convert stablehlo` wrote it."""
        self.about = json.loads((folder / 'manifest.json').read_text())
        held = safetensors.numpy.load_file(folder / self.about['parameters'])
        self.calls, self.parameters = {}, {}
        for name, program in self.about['programs'].items():
            self.calls[name] = jax.jit(export.deserialize((folder / program['file']).read_bytes()).call)
            parts = [one['name'].partition('/') for one in program['inputs']]
            self.parameters[name] = {rest: jnp.asarray(held[rest]) for part, _, rest in parts if part == 'parameters'}

    def run(self, name: str, *arguments):
        """One program, whose results have names."""
        return self.calls[name](self.parameters[name], *arguments)

    def answers(self, images: np.ndarray, tokens: np.ndarray, valid: np.ndarray, steps: int) -> list[list[int]]:
        """The likeliest next token of each prompt, again and again, up to `steps` of them or to an end."""
        marks, (b, n) = self.about['tokens'], images.shape[:2]
        stills = images.reshape(b * n, 1, *images.shape[2:])  # An image is one frame, a video several.
        media = self.run('encode', stills)['media'].reshape(b, -1, self.about['image']['media_width'])
        room = np.zeros((b, tokens.shape[1] + steps), bool)
        read = self.run('prefill', media, tokens, valid, room)
        media, found, over = read['media'], [[] for _ in range(b)], np.zeros(b, bool)
        for step in range(steps):
            logits = np.array(read['logits'], np.float32)
            logits[:, marks['never']] = -np.inf
            chosen = logits.argmax(axis=-1).astype(np.int32)
            over |= np.isin(chosen, marks['ends'])
            for row in np.flatnonzero(~over):
                found[row].append(int(chosen[row]))
            if over.all() or step == steps - 1:
                break
            read = self.run('decode', media, read['text'], chosen[:, None])
        return found


def prepare(workdir: pathlib.Path) -> None:
    """Exports the model in the repository, and writes two prompts about images of it. This needs flamingo_jax."""
    import flamingo_jax
    from flamingo_jax.inference import exported

    exported.write('experiments/picture_dictionary', str(workdir / 'model'))
    flamingo = flamingo_jax.load('experiments/picture_dictionary')
    a, b, c = (pathlib.Path(f'docs/pictures/{name}.png') for name in ('gorilla', 'mushroom', 'mushroom_3d'))
    prompts = [[a, ' dax kuv<EOC>', b, ' zev gof<EOC>', c], [c]]
    np.savez(workdir / 'prompts.npz', **arrays(flamingo, prompts))


def arrays(flamingo, prompts) -> dict[str, np.ndarray]:
    """The arrays of prompts as `generate` takes them. A prompt with fewer images than another gets empty ones."""
    from flamingo_jax.inputs.prompts import as_frames, encode

    every = [encode(prompt, flamingo.tokenizer) for prompt in prompts]
    b, l, n = len(every), max(len(one.tokens) for one in every), max(1, *(len(one.images) for one in every))
    tokens, valid = np.full((b, l), flamingo.tokenizer.pad, np.int32), np.zeros((b, l), bool)
    images = np.zeros((b, n, *flamingo.image_format.blank(1).shape[1:]), np.uint8)
    for row, one in enumerate(every):
        tokens[row, l - len(one.tokens) :], valid[row, l - len(one.tokens) :] = one.tokens, True
        for i, image in enumerate(one.images):
            images[row, i] = as_frames(image, flamingo.image_format)[0]
    return dict(tokens=tokens, valid=valid, images=images)


def main() -> None:
    """Prints the answers."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--workdir', type=pathlib.Path, required=True)
    parser.add_argument('--steps', type=int, default=16)
    f = parser.parse_args()
    if not (f.workdir / 'model').exists():
        prepare(f.workdir)
    found = Exported(f.workdir / 'model').answers(**np.load(f.workdir / 'prompts.npz'), steps=f.steps)
    for tokens in found:
        print(json.dumps(tokens), text(f.workdir / 'model', tokens))


def text(folder: pathlib.Path, tokens: list[int]) -> str:
    """The text of an answer. The tokenizer is a SentencePiece model, or of Hugging Face's library `tokenizers`."""
    if (folder / 'tokenizer.model').exists():
        import sentencepiece

        return sentencepiece.SentencePieceProcessor(str(folder / 'tokenizer.model')).decode(tokens)
    import tokenizers

    fields = json.loads((folder / 'tokenizer.json').read_text())
    fields.pop('roles')  # Which tokens begin, end and pad a text: no part of the library's format.
    return tokenizers.Tokenizer.from_str(json.dumps(fields)).decode(tokens)


if __name__ == '__main__':
    main()
