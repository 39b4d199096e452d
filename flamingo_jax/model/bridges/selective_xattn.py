"""Gated cross-attention that leaves text without images alone: what bundles of this project need beside the paper's.

With `only_at_tag` and `ffw_where_seen`, no token but an image's tag is changed, and text alone is the language model's
bit for bit, whatever was trained.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flamingo_jax.errors import UserError
from flamingo_jax.model.attention import Mask, as_array
from flamingo_jax.model.bridges.bridge import Parts
from flamingo_jax.model.bridges.gated_xattn import GatedXattnConfig, GatedXattnDense
from flamingo_jax.model.language_model import LanguageModelConfig, text_norm
from flamingo_jax.model.layers import Norm

if TYPE_CHECKING:
    from flamingo_jax.model.config import FlamingoConfig

# Our norms, by those of the language model's block whose values they begin with.
NORMS_OF_LM = dict(norm_text='norm_attention', norm_ffw='norm_ffw', norm_attended='norm_attended', norm_fed='norm_fed')


@dataclasses.dataclass(frozen=True)
class SelectiveXattnConfig(GatedXattnConfig):
    """What the paper's block does not have."""

    kind = 'selective_xattn'
    # True: only the tokens of its tag see an image; the text after it sees the tag through self-attention.
    only_at_tag: bool = False
    ffw_where_seen: bool = False  # True: the gated feed-forward acts only on tokens that may see an image.
    # True: the norms are of the language model's kind, and a new gated block begins with those of the block behind it.
    # If that one norms what its branches add (Gemma 2 and 3), so does the gated one. Gemma's states are up to a hundred
    # times as large as what a gated block adds without.
    norms_of_lm: bool = False

    @property
    def at_tag(self) -> bool:
        """See `BridgeConfig`."""
        return self.only_at_tag

    @property
    def acts_on_text(self) -> bool:
        """See `BridgeConfig`."""
        return not self.ffw_where_seen

    def check(self, model: 'FlamingoConfig') -> None:
        """See `BridgeConfig.check`."""
        super().check(model)
        if self.only_at_tag and not model.image_tag:
            raise UserError('xattn.only_at_tag needs an image_tag. Without one, no token would see an image.')

    def module(
        self, lm: LanguageModelConfig, media_width: int, dtype: DTypeLike = jnp.float32, kernel: str = 'plain'
    ) -> 'SelectiveXattnDense':
        """See `BridgeConfig.module`."""
        return SelectiveXattnDense(self, lm, media_width, dtype, kernel)

    def begin(self, xattn: dict[str, Any], blocks: dict[str, Any]) -> dict[str, Any]:
        """See `BridgeConfig.begin`: with `norms_of_lm` the norms of the blocks behind."""

        def begin(new, norm):
            return jax.device_put(norm[self.first :: self.every].astype(new.dtype), new.sharding)

        names = {ours: theirs for ours, theirs in NORMS_OF_LM.items() if self.norms_of_lm and ours in xattn}
        return xattn | {ours: jax.tree.map(begin, xattn[ours], blocks[theirs]) for ours, theirs in names.items()}


class SelectiveXattnDense(GatedXattnDense):
    """The paper's block, with the choices of the config."""

    config: SelectiveXattnConfig

    def setup(self) -> None:
        """Creates the parameters."""
        super().setup()
        self.norms_branches = self.config.norms_of_lm and self.lm.norm_place == 'around'
        if self.norms_branches:
            self.norm_attended, self.norm_fed = self.norm(), self.norm()

    def norm(self) -> Norm:
        """A norm of the text."""
        return text_norm(self.lm, self.dtype) if self.config.norms_of_lm else super().norm()

    def attended(self, y: Float[Array, 'b l d'], keys_values: Parts, mask: Mask) -> Float[Array, 'b l d']:
        """What the cross-attention adds, without its gate."""
        attended = super().attended(y, keys_values, mask)
        return self.norm_attended(attended) if self.norms_branches else attended

    def fed(self, y: Float[Array, 'b l d'], keys_values: Parts, mask: Mask) -> Float[Array, 'b l d']:
        """What the feed-forward adds, without its gate."""
        fed = super().fed(y, keys_values, mask)
        fed = self.norm_fed(fed) if self.norms_branches else fed
        if not self.config.ffw_where_seen:
            return fed
        m = sum(key.shape[2] for key, _ in keys_values)
        return jnp.where(as_array(mask, y.shape[1], m).any(axis=-1, keepdims=True), fed, 0)
