"""A document in the making: what of it is kept, and what is dropped by which rule."""

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.media_files import image_rule, video_rule
from flamingo_jax.building.texts import MARKS

# Control characters, but for tab and newline, and halves of surrogate pairs.
CONTROL = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]')


class Draft:
    """Collects the parts of one document in reading order."""

    def __init__(self, where: str, url: str = '', **about: Any):
        """where: the document's place in the set, which is its identity. url: of its page or image, if known.

        about: what else is known of it, such as its language and its licence: the document's `meta`.
        """
        self._where, self._url, self._about = where, url, about
        self._texts: list[str] = []
        self._images: list[bytes] = []
        self._weights: list[float] = []
        self._dropped: list[Dropped] = []

    @property
    def is_empty(self) -> bool:
        """Whether it has no text yet."""
        return not any(self._texts)

    def text(self, text: Any, weight: float = 1.0, after_text: str = '') -> bool:
        """Adds a text; False if nothing of it is left once it is `cleaned`.

        Args:
          text: of a set, so of any type.
          weight: of the loss.
          after_text: what stands between it and a text before it; after an image, nothing does.

        Raises:
          TypeError: it is not a text.
        """
        text = self.cleaned(text)
        if not text.strip():
            return False
        self.say(f'{after_text}{text}' if self._texts and self._texts[-1] else text, weight)
        return True

    def cleaned(self, text: Any) -> str:
        """A text of a set as it may be learnt. What a model may read as a tag becomes other text: '< image>'.

        A letter with its accents is one character where it can be (NFC), as most texts have it.

        Raises:
          TypeError: it is not a text.
        """
        if not isinstance(text, str):
            raise TypeError(f'a text is of type {type(text).__name__}')
        text = CONTROL.sub('', unicodedata.normalize('NFC', text.replace('\r\n', '\n').replace('\r', '\n')))
        if mark := MARKS.search(text):
            self.drop('mark_in_text', 'text', mark[0])
            text = MARKS.sub(lambda match: f'{match[0][0]} {match[0][1:]}', text)
        return text

    def say(self, text: str, weight: float) -> None:
        """Adds a text as it is."""
        self._texts.append(text)
        self._images.append(b'')
        self._weights.append(weight)

    def image(self, data: bytes | None, called: Any = '') -> bool:
        """Adds an image; False if it is missing (None) or cannot be read. called: its name or URL."""
        return self._shown(data, called, video=False)

    def video(self, data: bytes | None, called: Any = '') -> bool:
        """Adds an encoded clip; False if it is missing (None) or cannot be read. called: its name or URL."""
        return self._shown(data, called, video=True)

    def can_show(self, data: bytes | None, called: Any = '', video: bool = False) -> bool:
        """Whether an image or clip is there and can be read, so that `add` may follow. If not, it notes that."""
        what, rule_of = ('video', video_rule) if video else ('image', image_rule)
        rule = f'{what}_missing' if data is None else rule_of(data)
        if rule:
            self.drop(rule, what, called)
        return not rule

    def add(self, image: bytes) -> None:
        """Adds an image or video that has been checked."""
        self._texts.append('')
        self._images.append(image)
        self._weights.append(0.0)

    def drop(self, rule: str, what: str, excerpt: Any = '', value: float | None = None) -> None:
        """Notes a part that is dropped."""
        self._dropped.append(Dropped(rule, what, self._where, len(self._texts), CONTROL.sub('', str(excerpt)), value))

    def finish(self, alone: bool = False) -> Iterator[Document | Dropped]:
        """What was dropped, and the document, if a text to learn and an image are left.

        alone: a document without an image is kept too.
        """
        if not any(self._images) and not alone:
            yield from self.give_up('document_without_image', ' '.join(self._texts))
        elif not any(weight and text for weight, text in zip(self._weights, self._texts, strict=True)):
            yield from self.give_up('document_without_text')
        else:
            where, url = (CONTROL.sub('', text) for text in (self._where, self._url))
            meta = json.dumps(self._about, ensure_ascii=False)
            yield Document(where, self._texts, self._images, self._weights, url, meta)
            yield from self._dropped

    def give_up(self, rule: str, excerpt: Any = '') -> Iterator[Dropped]:
        """What was dropped, and with it the whole document, by this rule."""
        self.drop(rule, 'document', excerpt)
        yield from self._dropped

    def _shown(self, data: bytes | None, called: Any, video: bool) -> bool:
        found = self.can_show(data, called, video)
        if found:
            self.add(data)
        return found
