"""The mean of bundles, such as a model before and after further training (WiSE-FT, Wortsman et al. 2021)."""

import functools
import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from flamingo_jax.checkpoints import bundle
from flamingo_jax.errors import UserError
from flamingo_jax.files import as_path, refuse_existing


def write(sources: Sequence[str], weights: Sequence[float], out: str, lm: str = '') -> None:
    """Writes the mean of the weights of bundles, with the card and the tokenizer of the first.

    Args:
      sources: bundles that differ in trees that were trained, and in nothing else.
      weights: of each; their sum is 1.
      lm: the bundle of the language model that all of them lack; '' if they have it.

    Raises:
      FileExistsError: `out` exists.
      FileNotFoundError: one is no bundle, or has no language model, and none was given.
      ValueError: fewer than two bundles, other weights, other configs, or another frozen tree. The message names it.
    """
    refuse_existing(as_path(out), bundle.CONFIG)
    if not 2 <= len(sources) == len(weights) or not math.isclose(sum(weights), 1, abs_tol=1e-6):
        raise UserError(f'Give two bundles or more, each with a weight, which add up to 1, not {list(weights)}.')
    first, *others = found = [bundle.read(source, lm) for source in sources]
    for other in others:
        if other.config != first.config:
            raise UserError(f'{other.path} has another config than {first.path}, so that they have no mean.')
    differ = {name for name in first.checksums if len({each.checksums.get(name) for each in found}) > 1}
    trained = tuple(sorted({name for each in found for name in each.trained}))  # Not every bundle says so.
    may_differ = {*trained, *(['lm'] if 'lora' in trained else [])}
    if frozen := sorted(differ - may_differ):
        raise UserError(f'The bundles differ in {frozen}, which was not trained. Give bundles of one model.')

    def averaged(*leaves):
        in_float32 = (w * leaf.astype(jnp.float32) for w, leaf in zip(weights, leaves, strict=True))
        return functools.reduce(operator.add, in_float32).astype(leaves[0].dtype)

    params = {name: first.params(name) for name in first.checksums}
    for name in differ:
        params[name] = jax.tree.map(averaged, params[name], *(other.params(name) for other in others))
    bundle.save(
        out,
        first.config,
        params,
        tokenizer=first.tokenizer(),
        image_tag=first.image_tag,
        card=(first.path / 'README.md').read_text(encoding='utf-8'),
        trained=trained,
        packaged_trunk=first.packaged_trunk,
        without_lm=bool(lm),
        progress=True,
    )
