"""A document in the making: what of it is kept, and what is dropped by which rule."""

import json
import re
from collections.abc import Iterator
from typing import Any

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.pictures import film_rule, picture_rule
from flamingo_jax.inputs.tokenizer import AROUND, ENDS_OF_CHUNK, IMAGE, PAD

# Control characters, but for tab and newline, and halves of surrogate pairs.
CONTROL = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]')
MARK = re.compile('|'.join(map(re.escape, (IMAGE, *ENDS_OF_CHUNK, AROUND, PAD))), re.IGNORECASE)


class Draft:
    """Collects the parts of one document in reading order."""

    def __init__(self, where: str, url: str = '', **meta: Any):
        """where: the document's place in the set, which is its identity. meta: what else is known, for the record."""
        self._where, self._url, self._meta = where, url, meta
        self._texts: list[str] = []
        self._images: list[bytes] = []
        self._weights: list[float] = []
        self._dropped: list[Dropped] = []

    def text(self, text: str, weight: float = 1.0) -> bool:
        """Adds a text; False if nothing of it is left. A tag's name in it becomes other text: '< image>'.

        Raises:
          TypeError: it is not a text.
        """
        if not isinstance(text, str):
            raise TypeError(f'a text is of type {type(text).__name__}')
        text = CONTROL.sub('', text.replace('\r\n', '\n').replace('\r', '\n'))
        if mark := MARK.search(text):
            self.drop('tag_in_text', 'tag', mark[0])
            text = MARK.sub(lambda match: f'< {match[0][1:]}', text)
        if not text.strip():
            return False
        self._texts.append(text)
        self._images.append(b'')
        self._weights.append(weight)
        return True

    def picture(self, data: bytes | None, called: str = '') -> bool:
        """Adds a picture; False if it is missing (None) or cannot be read. called: its name or URL."""
        return self._shown(data, called, 'picture', picture_rule)

    def film(self, data: bytes | None, called: str = '') -> bool:
        """Adds an encoded clip; False if it is missing (None) or cannot be read. called: its name or URL."""
        return self._shown(data, called, 'film', film_rule)

    def drop(self, rule: str, what: str, excerpt: str = '', value: float | None = None) -> None:
        """Notes a part that is dropped."""
        self._dropped.append(Dropped(rule, what, self._where, CONTROL.sub('', excerpt), value))

    def finish(self, alone: bool = False) -> Iterator[Document | Dropped]:
        """What was dropped, and the document, if a text to learn and a picture are left.

        alone: a document without a picture is kept too.
        """
        if not any(self._images) and not alone:
            self.drop('document_without_picture', 'document', ' '.join(self._texts))
        elif not any(weight and text for weight, text in zip(self._weights, self._texts, strict=True)):
            self.drop('document_without_text', 'document')
        else:
            meta = json.dumps(self._meta, ensure_ascii=False, default=str)
            meta, url = (CONTROL.sub('', text) for text in (meta, self._url))
            yield Document(self._where, self._texts, self._images, self._weights, url, meta)
        yield from self._dropped

    def _shown(self, data, called, what, rule_of) -> bool:
        rule = f'{what}_missing' if data is None else rule_of(data)
        if rule:
            self.drop(rule, what, called)
            return False
        self._texts.append('')
        self._images.append(data)
        self._weights.append(0.0)
        return True
