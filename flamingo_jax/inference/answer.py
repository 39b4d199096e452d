"""The answer to one prompt, while the engine (`serving.py`) writes it."""

import queue
from collections.abc import Iterator

from flamingo_jax.inference.pretrained import Written
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.inputs.prompts import Encoded


class Answer(Iterator[Written]):
    """The answer to one prompt while it is written: after each token, the whole so far. Made by `Engine.ask`."""

    def __init__(self, prompt: Encoded, sampling: Sampling, beams: Iterator[Written] | None):
        """Not yet asked. beams: the search that writes it; None: it is one of the rows."""
        self.prompt, self.sampling, self.beams = prompt, sampling, beams
        self.key = sampling.keys(1)[0]
        self.tokens: list[int] = []
        self.over, self._last = False, Written('', [])  # What was read last.
        self._written: queue.SimpleQueue[Written | Exception | None] = queue.SimpleQueue()

    def __next__(self) -> Written:
        """Waits for the next token. What ended the answer before its end is raised here."""
        found = self._written.get()
        if isinstance(found, Written):
            self._last = found
            return found
        self._written.put(None)  # Whoever asks again.
        raise StopIteration if found is None else found

    def cancel(self) -> None:
        """Ends the answer with what is written. Its row is free at the next step."""
        self.end(None)

    def text(self) -> str:
        """Waits for the whole answer, of which a part may have been read."""
        for _ in self:
            pass
        return self._last.text

    def end(self, why: Exception | None) -> None:
        """Nothing is written after this. why: the error that ends it."""
        if not self.over:
            self.over = True
            self._written.put(why)

    def add(self, written: Written) -> None:
        """One more token is written."""
        if not self.over:
            self._written.put(written)

    def search(self) -> None:
        """Takes one step of its beam search."""
        try:
            written = next(self.beams or iter(()), None)
        except Exception as error:
            return self.end(error)
        if written is None:
            return self.end(None)
        self.add(written)
