"""How a model answers: by generation, or by the likelihoods of candidates (paper, appendix A.2)."""

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.inputs.images import Unread
from flamingo_jax.inputs.prompts import Prompt, is_image, items
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.tasks.episode import Episode


@runtime_checkable
class Answering(Protocol):
    """A way to answer: a dataclass, whose fields tell it from others."""

    def __call__(self, model: Pretrained, prompts: Sequence[Prompt], episodes: Sequence[Episode]) -> list[Any]:
        """An answer to each prompt: a text, several, or the log-likelihoods of all candidates."""
        ...
        ...

    def room(self, model: Pretrained, prompt: Prompt, episode: Episode) -> int:
        """The number of tokens that an answer may take."""
        ...


@dataclasses.dataclass(frozen=True)
class Generated:
    """The text that the model generates after the prompt, up to the end of the chunk.

    Fields are as for `Sampling`.
    """

    max_new_tokens: int
    num_beams: int
    length_penalty: float = 0.0

    def __call__(self, model: Pretrained, prompts: Sequence[Prompt], episodes: Sequence[Episode]) -> list[str]:
        """One text per prompt."""
        return [written.text for written in model.answers(prompts, self.sampling(model.tokenizer))]

    def sampling(self, tokenizer: Tokenizer) -> Sampling:
        """The same for `Pretrained.answers`."""
        ends: dict[str, Any] = dict(stop=(tokenizer.chunk_end,), length_penalty=self.length_penalty)
        return Sampling(self.max_new_tokens, self.num_beams, **ends)

    def room(self, model: Pretrained, prompt: Prompt, episode: Episode) -> int:
        """The number of tokens that an answer may take."""
        return self.max_new_tokens


@dataclasses.dataclass(frozen=True)
class Ranked:
    """The candidate that is the likeliest continuation, or the log-likelihoods of all candidates.

    Attributes:
      by_length: whether to divide log-likelihoods by the number of tokens.
      likelihoods: whether to answer with {candidate: log-likelihood}, for metrics that need all of them.
      clip: frames per clip: a longer video is cut into clips, and their likelihoods are averaged; 0 shows it whole.
      orders: random orders of the examples over which log-likelihoods are averaged (paper, appendix A.2: 6); 1 keeps
        their order.
    """

    by_length: bool = False
    likelihoods: bool = False
    clip: int = 0
    orders: int = 1

    def __call__(
        self, model: Pretrained, prompts: Sequence[Prompt], episodes: Sequence[Episode]
    ) -> list[str] | list[dict[str, float]]:
        """For each prompt one candidate, or the likelihoods of all."""
        tokenizer = model.tokenizer
        texts = [[text for c in e.candidates for text in written(e, c, tokenizer)] for e in episodes]
        one_each = all(len(some) == len(e.candidates) for some, e in zip(texts, episodes, strict=True))
        if one_each and not (self.by_length or self.likelihoods or self.clip or self.orders > 1):
            chosen = model.choose(prompts, texts)
            return [episode.candidates[i] for episode, i in zip(episodes, chosen, strict=True)]
        if self.clip:  # Once, for all orders.
            prompts = [[item.read() if isinstance(item, Unread) else item for item in items(p)] for p in prompts]
        # A row is one clip of one episode, in one order of its examples, with all its candidates.
        ordered = [orders(p, len(e.support), self.orders) for p, e in zip(prompts, episodes, strict=True)]
        # Order by order, so that the rows of a batch can begin alike.
        rows = [
            (i, clip)
            for one_order in zip(*ordered, strict=True)
            for i, prompt in enumerate(one_order)
            for clip in clips(prompt, self.clip)
        ]
        most = max(map(len, texts))
        sums = np.zeros((len(episodes), most))
        for begin in range(0, len(rows), len(prompts)):
            some = rows[begin : begin + len(prompts)]
            # Rows have one length: those with fewer candidates repeat the first.
            asked = [texts[i] + texts[i][:1] * (most - len(texts[i])) for i, _ in some]
            scores = model.score([clip for _, clip in some], asked)
            for (i, clip), row, those in zip(some, scores, asked, strict=True):
                sums[i] += row / model.lengths(clip, those) if self.by_length else row
        numbers = np.bincount([i for i, _ in rows])
        answers = []
        for i, episode in enumerate(episodes):
            means = iter((sums[i] / numbers[i]).tolist())
            found = {
                c: float(np.mean([next(means) for _ in written(episode, c, tokenizer)])) for c in episode.candidates
            }
            answers.append(found if self.likelihoods else max(found, key=found.__getitem__))
        return answers

    def room(self, model: Pretrained, prompt: Prompt, episode: Episode) -> int:
        """The number of tokens of the longest candidate."""
        texts = [text for c in episode.candidates for text in written(episode, c, model.tokenizer)]
        return model.room(prompt, texts)


@dataclasses.dataclass(frozen=True)
class Compared:
    """The candidate whose text is nearest to the image, by two towers (zero-shot; paper, appendix B.1.3).

    A candidate with several spellings is the mean of their vectors, made of length 1: CLIP's prompt ensembling.

    likelihoods: answers with all candidates' log-probabilities, for metrics that need them.
    """

    likelihoods: bool = False

    def __post_init__(self):
        object.__setattr__(self, '_known', {})  # The candidates' vectors: most episodes have the same.
        object.__setattr__(self, '_last', (None,) * 5)

    def __call__(
        self, model: Pretrained, prompts: Sequence[Prompt], episodes: Sequence[Episode]
    ) -> list[str] | list[dict[str, float]]:
        """For each prompt one candidate, or the log-probabilities of all. Only the prompt's image counts."""
        images = model.image_vectors([next(item for item in items(prompt) if is_image(item)) for prompt in prompts])
        answers = []
        for image, episode in zip(images, episodes, strict=True):
            cosines = self._vectors(model, episode) @ image
            if self.likelihoods:
                logits = model.inverse_temperature * cosines
                logits -= np.logaddexp.reduce(logits)
                answers.append(dict(zip(episode.candidates, logits.tolist(), strict=True)))
            else:
                answers.append(episode.candidates[int(cosines.argmax())])
        return answers

    def _vectors(self, model: Pretrained, episode: Episode) -> np.ndarray:
        known, (*last, vectors) = self.__dict__['_known'], self.__dict__['_last']
        asked = model, episode.candidates, episode.written, episode.form
        # To write a thousand classes in eighty ways takes longer than to encode an image.
        if not all(map(operator.is_, last, asked)):
            texts = tuple(tuple(spellings(episode, candidate)) for candidate in episode.candidates)
            if (id(model), texts) not in known:
                known[id(model), texts] = _classes(model, texts)
            vectors = known[id(model), texts]
            object.__setattr__(self, '_last', (*asked, vectors))
        return vectors

    def room(self, model: Pretrained, prompt: Prompt, episode: Episode) -> int:
        """No tokens: nothing is written after a prompt."""
        return 0


def _classes(model: Pretrained, texts: Sequence[Sequence[str]]) -> np.ndarray:
    """The vector of each candidate, given its spellings."""
    vectors = model.text_vectors([text for some in texts for text in some])
    means = np.stack([part.mean(axis=0) for part in np.split(vectors, np.cumsum([len(some) for some in texts])[:-1])])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def written(episode: Episode, candidate: str, tokenizer: Tokenizer) -> list[str]:
    """The spellings of a candidate, each as the continuation of a prompt. A mark in a spelling is its characters."""
    end = tokenizer.chunk_end if episode.ends else ''
    return [tokenizer.literal(text) + end for text in spellings(episode, candidate)]


def spellings(episode: Episode, candidate: str) -> list[str]:
    """The spellings of a candidate, in the form in which the episode's answers are written."""
    return [episode.form.format(answer=spelling) for spelling in episode.written.get(candidate, (candidate,))]


def orders(prompt: Sequence[Any], shots: int, number: int) -> list[list[Any]]:
    """The prompt with its examples in so many random orders, the same for every prompt of these shots; 1 keeps theirs.

    An example is its text with the image before it, if it has one.
    """
    if number == 1 or shots < 2:
        return [list(prompt)]
    ends = [place + 1 for place, item in enumerate(prompt) if isinstance(item, str)][:shots]
    examples = [list(prompt[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)]
    rng = np.random.default_rng(shots)
    return [
        [item for i in rng.permutation(shots) for item in examples[i]] + list(prompt[ends[-1] :]) for _ in range(number)
    ]


def clips(prompt: Sequence[Any], frames: int) -> list[list[Any]]:
    """Cuts the last video into clips: one prompt per clip. The last has the remaining frames. 0 leaves it whole."""
    videos = [
        i for i, item in enumerate(prompt) if is_image(item) and not isinstance(item, bytes) and _length(item) > 1
    ]
    if not frames or not videos:
        return [list(prompt)]
    place = videos[-1]
    video = prompt[place]
    return [
        [*prompt[:place], video[begin : begin + frames], *prompt[place + 1 :]]
        for begin in range(0, _length(video), frames)
    ]


def _length(item: Any) -> int:
    """The number of frames; 1 for an image."""
    if isinstance(item, np.ndarray):
        is_features = item.ndim == 3 and item.dtype in (np.float16, np.float32)
        return len(item) if item.ndim == 4 or is_features else 1
    return len(item) if isinstance(item, list | tuple) else 1
