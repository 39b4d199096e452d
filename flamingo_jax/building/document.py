"""What every builder yields: an interleaved document, as `inputs/sources/documents.py` reads it back."""

import dataclasses
from collections.abc import Sequence

from flamingo_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Document:
    """Texts and images in reading order.

    `texts`, `images` and `weights` are parallel. Each place holds a text, and b'' for its image; or an image, and ''
    for its text.
    """

    id: str  # Unique in the data set, and the same in every build: it decides the place of the document.
    texts: Sequence[str]
    images: Sequence[bytes]  # Encoded images and clips (`inputs/videos.py` reads animated WebP and video files).
    weights: Sequence[float]  # Loss weight of each text; unused where an image is.
    url: str = ''
    meta: str = '{}'  # JSON: the licence, the language, where each image came from.

    def __post_init__(self):
        """Raises ValueError if the lists are not parallel, or a place holds both or neither."""
        if not len(self.texts) == len(self.images) == len(self.weights):
            lengths = f'{len(self.texts)} texts, {len(self.images)} images and {len(self.weights)} weights'
            raise UserError(f'Document {self.id} has {lengths}. Give one of each at every place.')
        for place, (text, image) in enumerate(zip(self.texts, self.images, strict=True)):
            if bool(text) == bool(image):
                held = 'both a text and an image' if text else 'neither a text nor an image'
                raise UserError(f'Document {self.id} has {held} at place {place}. Give one of the two.')
