"""What a build dropped, and the rule that dropped it.

Every source yields `Dropped` beside its documents. `write.py` stores them all as JSON lines, sorted by page, and counts
them by rule; `ledger_page.py` shows samples.
"""

import dataclasses
import json

EXCERPT = 200  # Most characters of an excerpt that are stored.


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A thing that is not in the data set."""

    rule: str  # Its name; that of the config's field if it has one, such as 'text_min_words'.
    what: str  # 'file', 'record', 'page', 'text', 'picture', 'film' or 'document'.
    where: str  # The page's URL, or the file.
    place: int = -1  # In the page or file, in reading order; -1 is the whole.
    excerpt: str = ''  # The beginning of a text, the URL of a picture, or what an error said.
    value: int | float | None = None  # What the rule measured.
    picture: bytes = dataclasses.field(default=b'', repr=False)  # To look at; not in the JSON lines.

    def line(self) -> str:
        """The line of JSON in the stored ledger."""
        fields = dict(where=self.where, place=self.place, what=self.what, rule=self.rule)
        if self.value is not None:
            fields['value'] = round(float(self.value), 4)
        return json.dumps(fields | dict(excerpt=self.excerpt[:EXCERPT]), ensure_ascii=False)
