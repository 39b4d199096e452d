"""Writes peers.npz: answers of a tiny OpenFlamingo, IDEFICS and LLaVA, so that plain tests need none installed.

Run where the extra `parity` is installed: python tests/golden/make_peers.py. Weights are made from their names
(`tests/peers.py`) and are not stored; the shapes and the answers are.
"""

import json
import pathlib
import sys
import tempfile
from typing import Any

import numpy as np

SEQUENCES = [[1, 94, 95, 94, 5, 6, 94, 95, 94, 7, 8, 9], [1, 4, 94, 95, 94, 15, 16, 17, 18, 19, 20, 21]]
# In LLaVA 94 is <image>, once for each of the 9 features of an image.
LLAVA_SEQUENCES = [[1, *[94] * 18, 5, 6, 7, 8, 9], [1, 4, *[94] * 9, *range(15, 28)]]
AROUND, IMG = 94, 95  # In IDEFICS; in OpenFlamingo these are <|endofchunk|> and <image>.


def pixels() -> np.ndarray:
    """uint8 [2 2 1 42 42 3]; the second row has one image."""
    images = np.random.default_rng(3).integers(0, 256, (2, 2, 1, 42, 42, 3)).astype(np.uint8)
    images[1, 1] = 0
    return images


def main():
    import torch
    import transformers

    sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
    from flamingo_jax.model.vision.vit import ViTConfig
    from tests import peers

    golden = {}
    x = peers.standardised(pixels(), ViTConfig())
    ids = torch.tensor(SEQUENCES)
    mask = torch.ones_like(ids)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        folder = pathlib.Path(folder)
        model, state = peers.open_flamingo(folder, 'llama', 2, 4)
        shapes = dict(checkpoint={name: value.shape for name, value in state.items()})
        shapes['clip'] = {name: tuple(p.shape) for name, p in model.vision_encoder.named_parameters(prefix='visual')}
        lm = transformers.AutoModelForCausalLM.from_pretrained(folder / 'lm')
        shapes['lm'] = {name: tuple(p.shape) for name, p in lm.named_parameters()}
        golden['open_flamingo'] = json.dumps(shapes)
        golden['open_flamingo_lm'] = (folder / 'lm' / 'config.json').read_text()
        inputs = dict(vision_x=x, lang_x=ids, attention_mask=mask)
        golden['open_flamingo_logits'] = model(**inputs).logits.numpy()
        golden['open_flamingo_greedy'] = _generate(model, inputs, 1, [94], range(95, 97))
        golden['open_flamingo_beams'] = _generate(model, inputs, 3, [94], range(95, 97))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        folder = pathlib.Path(folder)
        model = peers.idefics(folder)
        golden['idefics'] = json.dumps({name: tuple(p.shape) for name, p in model.named_parameters()})
        golden['idefics_config'] = (folder / 'config.json').read_text()
        which = torch.arange(1, 3)
        seen = ((ids == IMG).cumsum(1)[..., None] == which).long()
        inputs = dict(input_ids=ids, attention_mask=mask, pixel_values=x[:, :, 0], image_attention_mask=seen)
        golden['idefics_logits'] = model(**inputs).logits.numpy()
        golden['idefics_greedy'] = _generate(model, inputs, 1, [], (94, 95))
        golden['idefics_beams'] = _generate(model, inputs, 3, [], (94, 95))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        golden |= _llava(pathlib.Path(folder), x[[0, 0, 1], [0, 1, 0], 0])
    np.savez_compressed(pathlib.Path(__file__).with_name('peers.npz'), **golden)


def _llava(folder: pathlib.Path, pixels) -> dict[str, Any]:
    import torch

    from tests import peers

    model, ids = peers.llava(folder), torch.tensor(LLAVA_SEQUENCES)
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels)
    golden: dict[str, Any] = {'llava': json.dumps({name: tuple(p.shape) for name, p in model.named_parameters()})}
    golden['llava_config'] = (folder / 'config.json').read_text()
    golden['llava_logits'] = model(**inputs).logits.numpy()
    for name, beams in (('greedy', 1), ('beams', 3)):
        golden[f'llava_{name}'] = _generate(model, inputs, beams, [], (94,))
    return golden


def _generate(model, inputs, beams: int, stops: list[int], banned) -> np.ndarray:
    """[2 10] new tokens; -1 from the first stop on."""
    stops = [2, *stops]
    length = next(inputs[name].shape[1] for name in ('input_ids', 'lang_x') if name in inputs)
    how = dict(num_beams=beams, length_penalty=0.0, eos_token_id=stops, suppress_tokens=[0, 1, *banned], pad_token_id=0)
    new = model.generate(**inputs, max_new_tokens=10, do_sample=False, **how)[:, length:].numpy()
    out = np.full((len(new), 10), -1)
    for row, tokens in enumerate(new.tolist()):
        end = min([tokens.index(stop) for stop in stops if stop in tokens], default=len(tokens))
        out[row, :end] = tokens[:end]
    return out


if __name__ == '__main__':
    main()
