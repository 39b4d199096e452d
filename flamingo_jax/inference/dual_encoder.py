"""A model of two towers, trained contrastively: it compares images with texts, and writes nothing."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.prompts import as_frames
from flamingo_jax.inputs.rows import encode_paired
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.contrastive import paired
from flamingo_jax.model.flamingo import Flamingo, Params

_IMAGES, _TEXTS = 32, 256  # That `image_vectors` and `text_vectors` encode at a time.


class DualEncoder:
    """What a `Pretrained` does if it is two towers."""

    model: Flamingo
    params: Params
    tokenizer: Tokenizer
    config: FlamingoConfig
    image_format: ImageFormat
    encode: Callable[..., np.ndarray]
    mesh: Mesh | None

    def image_vectors(self, images: Sequence[Any]) -> Float[np.ndarray, 'n width']:
        """The vectors of images in the space that they share with texts, of length 1; [0 width] without images.

        An image is as in a prompt: a path, a PIL image, an array, bytes, or features.

        Raises:
          ValueError: the model is not two towers, trained contrastively.
        """
        self._require_towers()
        rows = [np.zeros((0, self.config.contrastive.width), np.float32)]
        # The trunk takes a video's frames as so many images. Each device has at least one video.
        devices = 1 if self.mesh is None else self.mesh.size
        together = max(_IMAGES // len(as_frames(images[0], self.image_format)), devices) if len(images) else 1
        for begin in range(0, len(images), together):
            some = [as_frames(image, self.image_format) for image in images[begin : begin + together]]
            if some[0].dtype == np.uint8:  # Pixels; the last batch is filled up, so that one program serves all.
                filled = np.stack([*some, *some[:1] * (together - len(some))])
                features = self.encode(filled)[: len(some)]
            else:
                features = np.stack(some).astype(np.float32)
            rows.append(np.asarray(_paired(self.model, self.params, jnp.asarray(features)[:, None], None, None)[0]))
        return np.concatenate(rows)

    def text_vectors(self, texts: Sequence[str]) -> Float[np.ndarray, 'n width']:
        """The vectors of texts in the space that they share with images, of length 1; [0 width] without texts.

        Long texts are cut.

        Raises:
          ValueError: the model is not two towers, trained contrastively.
        """
        self._require_towers()
        rows = [np.zeros((0, self.config.contrastive.width), np.float32)]
        length = self.config.lm.context
        for begin in range(0, len(texts), _TEXTS):
            some = [encode_paired(text, self.tokenizer, length) for text in texts[begin : begin + _TEXTS]]
            some += some[:1] * (_TEXTS - len(some))
            tokens, used = (np.stack(part) for part in zip(*some, strict=True))
            found = np.asarray(_paired(self.model, self.params, None, tokens, used)[1])
            rows.append(found[: len(texts) - begin])
        return np.concatenate(rows)

    @functools.cached_property
    def inverse_temperature(self) -> float:
        """beta, by which the products of vectors are multiplied before a softmax."""
        self._require_towers()
        return float(_paired(self.model, self.params, None, None, None)[2])

    def _require_towers(self) -> None:
        if self.config.contrastive is None:
            raise UserError(
                'This model has no space that images share with texts. Give one that was trained contrastively '
                '(docs/contrastive.md).'
            )
        if self.config.contrastive.loss == 'classes':
            raise UserError(
                "This model was trained to tell classes apart (contrastive.loss is 'classes'), and has no vectors of "
                'texts. Train it with another loss.'
            )


_paired = jax.jit(paired, static_argnums=0)
