"""What sets of questions about videos share."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from flamingo_jax.evaluation.benchmark import Benchmark, Item, Video
from flamingo_jax.evaluation.published import most_frequent, with_mark


@dataclasses.dataclass
class VideoQuestions(Benchmark):
    """Open-ended questions about videos."""

    def item(
        self,
        id: str,
        video: Video,
        question: str,
        *answers: str,
        references: Any = None,
        types: Mapping[str, str] = MappingProxyType({}),
    ) -> Item:
        """A question. references: None are the answers."""
        text = self.prompts.question.format(question=with_mark(question))
        shown = answers[0] if self.prompts.first else most_frequent(answers)
        return Item(id, video, text, shown, answers if references is None else references, types=types)
