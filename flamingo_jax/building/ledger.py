"""What a build dropped, and the rule that dropped it.

Every source yields `Dropped` beside its documents. `write.py` stores them all as JSON lines, sorted by page, and counts
them by rule; `ledger_page.py` shows samples.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

EXCERPT = 200  # Most characters of an excerpt that are stored.


class LedgerError(RuntimeError):
    """Something was read that is neither kept nor dropped: a fault of the build."""


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A thing that is not in the data set."""

    rule: str  # Its name; that of the config's field if it has one, such as 'text_min_words'.
    what: str  # 'file', 'record', 'page', 'text', 'image', 'video' or 'document'.
    where: str  # The page's URL, or the file.
    place: int = -1  # In the page or file, in reading order; -1 is the whole.
    excerpt: str = ''  # The beginning of a text, the URL of an image, or what an error said.
    value: int | float | None = None  # What the rule measured.
    images: int = 0  # How many images of a page or a document go with it.
    image: bytes = dataclasses.field(default=b'', repr=False)  # To look at; not in the JSON lines.

    def line(self) -> str:
        """The line of JSON in the stored ledger."""
        fields = dict(where=self.where, place=self.place, what=self.what, rule=self.rule)
        if self.value is not None:
            fields['value'] = round(float(self.value), 4)
        if self.images:
            fields['images'] = self.images
        return json.dumps(fields | dict(excerpt=self.excerpt[:EXCERPT]), ensure_ascii=False)


def check_sums(counts: Mapping[str, Any]) -> None:
    """Checks that what was read is kept or dropped: every record, every document, and every image of every page.

    Args:
      counts: those of ledger.json. Without 'read', which sources of pages count, nothing is checked.

    Raises:
      LedgerError: a sum does not close.
    """
    if 'read' not in counts:
        return
    kept = counts['kept'].values()

    def dropped(*names: str) -> int:
        # A document whose id another one has is among the kept ones as well.
        rules = (of for rule, of in counts['dropped'].items() if rule != 'document_id')
        return sum(of.get(name, 0) for of in rules for name in names)

    sums = dict(
        record=sum(number for kind, number in counts['read']['record'].items() if kind != 'all') + dropped('record'),
        document=sum(split['documents'] for split in kept) + dropped('page', 'document'),
        image=sum(split['images'] for split in kept) + dropped('image'),
    )
    for what, found in sums.items():
        read = counts['read'].get(what, {}).get('all', 0)
        if read != found:
            raise LedgerError(
                f'{read:,} {what}s were read, but {found:,} are kept or dropped. This is a fault of the build: please '
                'report it, with the ledger.'
            )
