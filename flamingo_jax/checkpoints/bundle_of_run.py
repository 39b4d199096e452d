"""Makes a bundle of a training run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from flamingo_jax.checkpoints import bundle, model_card
from flamingo_jax.checkpoints.model_card import ModelCard
from flamingo_jax.checkpoints.run_format import Run, open_run
from flamingo_jax.conversion import vision_trunks
from flamingo_jax.errors import UserError
from flamingo_jax.files import as_path, refuse_existing
from flamingo_jax.model import lora


def write(
    source: str,
    out: str,
    card: str = '',
    packaged_trunk: bool = False,
    without_lm: bool = False,
    lm: str = '',
) -> None:
    """Writes the newest checkpoint of a run as a bundle, LoRA merged into its language model.

    `packaged_trunk` omits the weights of the installed EfficientNet-Lite0, `without_lm` the frozen language model (see
    `bundle.save`). `lm` is where the bundle of the frozen language model is now, if it was moved.

    Frozen trees are written in their stored dtypes, trained ones in that of the frozen language model (bfloat16 if it
    was trained too), or in float32 if they must stay that. A kernel into which LoRA is merged is float32 if its dtype
    would lose the change (`lora.merge`); this is said, also in the card.

    `card` is the beginning of the model card; '' says what the run tells.

    Raises:
      FileExistsError: `out` exists.
      FileNotFoundError: there is no run or no finished checkpoint, or the bundle of a frozen tree is missing.
      ValueError: the trunk is not the packaged one, or a language model to omit was trained.
    """
    refuse_existing(as_path(out), bundle.CONFIG)
    folder = as_path(source)
    if not (folder / 'run.json').is_file():
        raise FileNotFoundError(f'{folder} is not the workdir of a training run: it has no run.json.')
    found = open_run(folder, lm)
    config = found.config
    trained = {name: jax.tree.map(np.asarray, found.params(name)) for name in found.trained}
    if without_lm and {'lm', 'lora'} & set(trained):
        raise UserError(f'The language model of {folder} was trained, so the bundle needs it. Remove --without_lm.')
    params = {name: frozen.params(name) for name, frozen in found.frozen.items()}
    card = model_card.with_front_matter(card) if card else str(_card_of(found))
    if config.lora is not None:
        before, params['lm'] = params['lm'], lora.merge(config.lora, params['lm'], trained.pop('lora'))
        if kernels := lora.in_float32(before, params['lm']):
            note = (
                f'What LoRA changed in {", ".join(kernels)} is too little for bfloat16, which would lose more than '
                f'{1 - lora.KEPT:.0%} of it. They are written in float32. Load the bundle with dtype=float32 '
                '(--dtype=float32), or use the run itself, where LoRA is not merged.'
            )
            print(note)
            card += f'\n{note}\n'
        del before
    dtype = params['lm']['embedder']['tokens'].dtype if 'lm' in params else jnp.bfloat16
    # What must stay float32 does: an EfficientNet, and the temperature.
    kept = {'contrastive'} | ({'vision'} if config.vision is not None and config.vision.float32_only else set())
    params |= {
        name: jax.tree.map(lambda x, name=name: x.astype(np.float32 if name in kept else dtype), tree)
        for name, tree in trained.items()
    }
    if packaged_trunk:
        packaged = vision_trunks.packaged(config.vision.classes)
        if bundle.checksum(packaged) != bundle.checksum({name: params['vision'][name] for name in packaged}):
            raise UserError(f'The trunk of {folder} is not the installed EfficientNet-Lite0. Remove --packaged_trunk.')
    counts = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in params.items()}
    card += model_card.parameters(counts, found.step)
    trees = dict(lora='lm')  # Where LoRA that was trained before is merged.
    before = {name for tree, one in found.frozen.items() for name in one.trained if trees.get(name, name) == tree}
    config = dataclasses.replace(config, lora=None)
    trained = tuple(before | set(found.trained))
    bundle.save(
        out,
        config,
        params,
        tokenizer=found.tokenizer,
        image_tag=found.image_tag,
        card=card,
        trained=trained,
        packaged_trunk=packaged_trunk,
        without_lm=without_lm,
        progress=True,
    )


def _card_of(found: Run) -> ModelCard:
    """What a run tells of itself."""
    whole = found.config.xattn is not None
    frozen = ', '.join(f'{name} of `{one.path.name}`' for name, one in found.frozen.items())
    return ModelCard(
        'A model of flamingo_jax',
        'A Flamingo: it reads images and text in reading order, and writes text.' if whole else 'A part of a Flamingo.',
        tags=['image-text-to-text'] if whole else [],
        procedure=f'Trained: {", ".join(sorted(found.trained))}. Frozen: {frozen or "nothing"}.',
        how_to_use='    python -m flamingo_jax.generate --checkpoint=BUNDLE --image=IMAGE' if whole else '',
    )
