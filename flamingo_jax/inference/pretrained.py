"""A model ready for use: parameters, tokenizer and config, with logits, generation and scores."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from flamingo_jax.checkpoints import bundle
from flamingo_jax.checkpoints.run_format import open_run
from flamingo_jax.errors import UserError
from flamingo_jax.files import Path, as_path
from flamingo_jax.hub import fetched
from flamingo_jax.inference import decode, search
from flamingo_jax.inference.dual_encoder import DualEncoder
from flamingo_jax.inference.prefill import Reader
from flamingo_jax.inference.sampling import GREEDY, Sampling
from flamingo_jax.inference.unrolled import unroll
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.prompts import (
    Encoded,
    Prompt,
    as_batch,
    composed,
    encode,
    is_continued,
    refuse_other_than_list,
)
from flamingo_jax.inputs.tokenizer import EOC, IMAGE, Tokenizer
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.model.quantised import DTYPES, Quantisation
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.parallel import rules

ArrayLike = Array | np.ndarray
_TOGETHER = 256  # Tokens of candidates that are scored at a time. More would make their attention to one another large.
_LIKELIEST = 96  # The same for `choose`, which scores the likeliest first and often needs few.


def load(
    path: str | Path,
    mesh: jax.sharding.Mesh | None = None,
    dtype: Any = None,
    lm: str | Path = '',
) -> 'Pretrained':
    """Loads a bundle, or the newest checkpoint of a training run, ready for use.

    Args:
      path: a bundle or a run's workdir.
      mesh: from `flamingo_jax.parallel.mesh.make_mesh`. Parameters are read directly into its shards. None is one
        device.
      dtype: of computation and parameters (an EfficientNet stays float32); None is bfloat16 on TPU and GPU, float32 on
        CPU. 'int8', 'int4' and 'fp8' are of the language model's matrices alone; all else is then as for None.
      lm: the bundle of the language model, for a bundle that was saved without its own, or for a run whose frozen one
        was moved; '' is none.

    Raises:
      FileNotFoundError: `path` is neither, or a part is missing; the message names it.
      ValueError: `lm` is another language model than the bundle's, `dtype` is not known, or parameters are damaged or
        do not fit the config.
    """
    dtype, quantised = _dtypes(dtype)
    found = _open(path, lm)
    model = Flamingo(found.config, dtype, quantised=quantised)
    shardings = dict.fromkeys(found.sources)
    if mesh is not None:
        boxed = jax.eval_shape(model.init, jax.random.key(0))
        shardings = {name: rules.shardings(boxed[name], mesh) for name in shardings}
    params = {name: bundle.as_kept(source, name, model, shardings[name]) for name, source in found.sources.items()}
    if missing := sorted(set(bundle.shapes_of(found.config)) - set(params)):
        raise UserError(f'{path} has no parameters for {missing}. Convert or export it again.')
    sums = {name: source.checksums[name] for name, source in found.bundles.items()}
    about = found.image_tag, found.step, sums, mesh, found.digest, found.temperature
    return Pretrained(model, params, found.tokenizer, *about)


def tokenizer_of(path: str | Path, lm: str | Path = '') -> Tokenizer:
    """The tokenizer of what `load` would load. No parameters are read; errors as for `load`."""
    return _open(path, lm).tokenizer


class _Opened(NamedTuple):
    """A bundle or a run whose parameters are not read."""

    config: FlamingoConfig
    image_tag: str | Sequence[int] | None
    tokenizer: Tokenizer
    step: int | None
    bundles: dict[str, bundle.Bundle]  # Of the trees that are read from bundles.
    sources: dict[str, Any]  # Of every tree: its bundle, or the run.
    digest: str = ''
    temperature: float = 1.0


def _open(path: str | Path, lm: str | Path) -> _Opened:
    given, path = path, as_path(fetched(path))
    if (path / 'run.json').is_file():
        run = open_run(path, lm)
        sources = run.frozen | dict.fromkeys(run.trained, run)
        return _Opened(run.config, run.image_tag, run.tokenizer, run.step, run.frozen, sources, run.digest)
    if not (path / 'config.json').is_file():
        raise FileNotFoundError(
            f'{given} is neither a bundle (config.json) nor the workdir of a training run (run.json).'
        )
    found = bundle.read(path, lm)
    if found.config.lm is None:
        raise UserError(f'The bundle {path} has no language model. It can only be used in a training config.')
    trees = dict.fromkeys(found.checksums, found)
    about = found.config, found.image_tag, found.tokenizer()
    return _Opened(*about, None, trees, trees, temperature=found.temperature)


def _dtypes(dtype: Any) -> tuple[jnp.dtype, Quantisation | None]:
    """The dtype of the computation, and how the language model's matrices are kept."""
    usual = meshes.usual_dtype()
    if isinstance(dtype, str) and dtype in DTYPES:
        return usual, Quantisation(dtype)
    try:
        of_all = jnp.dtype(dtype or usual)
    except TypeError:
        of_all = None
    if of_all is None or not jnp.issubdtype(of_all, jnp.floating):
        known = ', '.join(map(repr, ('float32', 'bfloat16', *DTYPES)))
        raise UserError(f'dtype is {dtype!r}. Give one of {known}; the last ones are of the language model alone.')
    return of_all, None


class Written(NamedTuple):
    """An answer, or what is written of it."""

    text: str
    tokens: list[int]  # Without the token that ends it.


@dataclasses.dataclass(frozen=True, repr=False)
class Pretrained(DualEncoder):
    """A model with its parameters and tokenizer."""

    model: Flamingo
    params: Params
    tokenizer: Tokenizer
    image_tag: str | Sequence[int] | None
    step: int | None  # Step of the training run; None for a bundle.
    checksums: dict[str, str]  # Of the trees that were read from bundles, as stored.
    mesh: jax.sharding.Mesh | None = None  # The mesh of the parameters. Rows of a batch are sharded over data and fsdp.
    digest: str = ''  # Of what a training run trained.
    temperature: float = 1.0  # By which `probabilities` divides logits.

    def __repr__(self) -> str:
        """In one line, what a notebook shows of it."""
        leaves = jax.tree.leaves(self.params)
        trees, size = ', '.join(self.params), sum(leaf.size for leaf in leaves)
        step = '' if self.step is None else f', step {self.step}'
        mesh = '' if self.mesh is None else f', mesh {dict(self.mesh.shape)}'
        quantised = '' if self.model.quantised is None else f', lm in {self.model.quantised.dtype}'
        dtype = jnp.dtype(self.model.dtype).name
        return f'<Pretrained: {size:,} parameters ({trees}), {dtype}{quantised}{step}{mesh}>'

    @property
    def config(self) -> FlamingoConfig:
        """The model's config."""
        return self.model.config

    @property
    def image_format(self) -> ImageFormat:
        """How the model takes its images."""
        return ImageFormat.of(self.config, self.checksums.get('vision', ''))

    def at(self, image_size: int) -> 'Pretrained':
        """The same model for images of another height and width in pixels (paper: 320, fine-tuned 480).

        A ViT's position embeddings are interpolated; convolutions and the resampler take any size. ValueError for a
        size that is too small.
        """
        if self.config.vision is None:
            raise UserError('This bundle is a language model without vision: it has no images to resize.')
        return dataclasses.replace(self, model=dataclasses.replace(self.model, config=self.config.at(image_size)))

    @functools.cached_property
    def by_token(self) -> tuple[Flamingo, Params]:
        """The model and its parameters in the form that decodes fastest."""
        devices = jax.tree.leaves(self.params)[0].devices()
        on_one_cpu = len(devices) == 1 and next(iter(devices)).platform == 'cpu'
        return unroll(self.model, self.params) if on_one_cpu else (self.model, self.params)

    @functools.cached_property
    def language_model(self) -> 'Pretrained':
        """The frozen language model alone, with the tokenizer that it came with."""
        tokenizer = Tokenizer(self.tokenizer.model, vocab_size=self.tokenizer.vocab_size)
        model = dataclasses.replace(self.model, config=FlamingoConfig(lm=self.config.lm))
        return dataclasses.replace(
            self, model=model, params={'lm': self.params['lm']}, tokenizer=tokenizer, image_tag=None
        )

    def features(self, frames: UInt8[np.ndarray, 't height width 3']) -> Float[np.ndarray, 't s d_v']:
        """The frozen trunk's standardised features of one image or video."""
        return self.encode(frames[None])[0]

    def encode(self, frames: UInt8[np.ndarray, 'b t height width 3']) -> Float[np.ndarray, 'b t s d_v']:
        """The features of several images, or of videos of one length."""
        (rows,), cut = meshes.in_rows(self.mesh, frames)
        with rules.activations(self.mesh):
            return np.asarray(_features(self.model, self.params, rows[:, None]))[:cut, 0]

    def _refuse_towers(self) -> None:
        if self.config.contrastive is not None:
            raise UserError(
                'This model is two towers, which compare images with texts and write nothing. Use image_vectors '
                "and text_vectors, or answers=('compared',) in an evaluation."
            )

    def logits(
        self,
        images: UInt8[ArrayLike, 'b n t height width 3'] | Float[ArrayLike, '...'] | None,
        tokens: Int[ArrayLike, 'b l'],
    ) -> Float[Array, 'b l v']:
        """Teacher-forced float32 logits.

        Args:
          images: pixels uint8 or float in 0..255, or features [b n t s d_v]; None for text alone.
          tokens: text with <BOS> and the tags of the images, padded at the end.

        Raises:
          ValueError: a row has more <image> tags than there are images, or no row has as many.
        """
        self._refuse_towers()
        tokens = jnp.asarray(tokens)
        tags, n = int(self.model.phi(tokens).max()), 0 if images is None else images.shape[1]
        if tags != n:
            most = 'A text has' if tags > n else 'No text has more than'
            raise UserError(
                f'{most} {tags} {IMAGE} tags, but there are {n} images per row. Give a tag for each image, and a '
                'image for each tag.'
            )
        if tokens.shape[1] > self.config.lm.context:
            raise UserError(
                f'{tokens.shape[1]} tokens exceed the context of {self.config.lm.context}. Shorten the text.'
            )
        (tokens, *shown), cut = meshes.in_rows(self.mesh, tokens, *([] if images is None else [images]))
        with rules.activations(self.mesh):
            return _logits(self.model, self.params, jnp.asarray(shown[0]) if shown else None, tokens)[:cut]

    @overload
    def generate(  # type: ignore[overload-overlap]  # A list of lists is a batch, any other sequence one prompt.
        self,
        prompt: Sequence[list[Any] | tuple[Any, ...]],
        max_new_tokens: int = ...,
        num_beams: int = ...,
        temperature: float = ...,
        top_k: int = ...,
        top_p: float = ...,
        stop: Sequence[str] = ...,
        length_penalty: float = ...,
        seed: int | Sequence[int] = ...,
    ) -> list[str]: ...

    @overload
    def generate(
        self,
        prompt: Prompt,
        max_new_tokens: int = ...,
        num_beams: int = ...,
        temperature: float = ...,
        top_k: int = ...,
        top_p: float = ...,
        stop: Sequence[str] = ...,
        length_penalty: float = ...,
        seed: int | Sequence[int] = ...,
    ) -> str: ...

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        max_new_tokens: int = 32,
        num_beams: int = 1,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        stop: Sequence[str] = (EOC,),
        length_penalty: float = 0.0,
        seed: int | Sequence[int] = 0,
    ) -> str | list[str]:
        """Continues a prompt, or each prompt of a batch. The default is greedy decoding.

        Args:
          prompt: strings and images in reading order (see `inputs/prompts.py`), or a list of such lists.
          max_new_tokens: most tokens to generate.
          num_beams: beam search if above 1 (paper: 3); not together with a temperature.
          temperature, top_k, top_p: sampling.
          stop: texts before which the answer ends. <EOC> and <EOS> always end it.
          length_penalty: beams are compared by log-probability / length ** length_penalty.
          seed: seed of sampling for all prompts, or a list with one for each. A prompt's answer depends on its own seed
            and not on its neighbours; so the same prompt twice, with one seed, is answered twice the same.

        Returns:
          The continuation without surrounding white space; a list of them for a list of prompts. A letter of several
          bytes that `max_new_tokens` cuts is left out.

        Raises:
          ValueError: the prompt or a number is not valid, or the prompt with the new tokens exceeds the context.
        """
        numbers = max_new_tokens, num_beams, temperature, top_k, top_p
        return self.answer(prompt, Sampling(*numbers, stop, length_penalty, seed))

    def answer(self, prompt: Prompt | Sequence[Prompt], sampling: Sampling) -> str | list[str]:
        """`generate`, with its settings in one."""
        prompts, several = as_batch(prompt)
        texts = [written.text for written in self.answers(prompts, sampling)]
        return texts if several else texts[0]

    def answers(self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY) -> list[Written]:
        """`generate` for a list of prompts, with the tokens of each answer, which `probabilities` takes."""
        number = len(prompts)
        keys = sampling.keys(number)[jnp.array(meshes.fill(self.mesh, range(number)))]
        read = self.read(meshes.fill(self.mesh, prompts), sampling.max_new_tokens)
        with rules.activations(self.mesh):
            tokens = search.answer(*self.by_token, read, keys, sampling, self.marks)
        return [self._written(row, sampling.stop) for row in np.asarray(tokens)[:number]]

    def probabilities(
        self, prompts: Sequence[Prompt], answers: Sequence[Written], temperatures: Sequence[float] = ()
    ) -> Float[np.ndarray, 't b']:
        """How probable each answer is: the product over the tokens of its text, and <EOC> if the model has one.

        At the bundle's `temperature`, which `python -m flamingo_jax.calibrate` fits, about so many answers are right as
        this says. That holds for questions like those of the fit, not for long texts: each token makes a text less
        probable.

        Args:
          prompts: as for `generate`, a list of them.
          answers: one for each prompt, of `answers` or the last of `write`.
          temperatures: logits are divided by each of these; () is the bundle's own alone.

        Raises:
          ValueError: the numbers of prompts and answers differ, a prompt is not valid, or it exceeds the context with
            its answer.
        """
        number = len(prompts)
        if len(answers) != number or not number:
            raise UserError(f'There are {number} prompts and {len(answers)} answers. Give one for each.')
        prompts, answers = meshes.fill(self.mesh, prompts), meshes.fill(self.mesh, answers)
        end = [] if self.tokenizer.eoc is None else [self.tokenizer.eoc]
        rows = [[[*self._tokens_of_text(written), *end]] for written in answers]
        longest = max(1, *(len(ids) for (ids,) in rows))
        read = self.read(prompts, longest - 1)  # The last one is not read.
        asked = np.array(temperatures or [self.temperature], np.float32)
        return np.exp(self._score(read, rows, _room(longest), asked)[:, :number, 0])

    def _tokens_of_text(self, written: Written) -> list[int]:
        """The tokens of an answer's text: there may be more behind a text that ended it."""
        beginnings = (written.tokens[:n] for n in range(len(written.tokens) + 1))
        return next(ids for ids in beginnings if self.tokenizer.written(ids).strip().startswith(written.text))

    def write(self, prompt: Prompt, sampling: Sampling = GREEDY) -> Iterator[Written]:
        """`generate` while it writes: the whole answer so far after each token. The last text is what `generate` gives.

        Beams may replace what they wrote before. Close the generator to stop. Errors as for `generate`, for one prompt.
        """
        read = self.read(meshes.fill(self.mesh, [prompt]), sampling.max_new_tokens)
        steps = search.write(*self.by_token, read, sampling.keys(1), sampling, self.marks)
        while True:
            # Only while it computes: between two tokens the caller may use another mesh.
            with rules.activations(self.mesh):
                tokens = next(steps, None)
            if tokens is None:
                return
            yield self._written(tokens[0], sampling.stop)

    @functools.cached_property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return (*self.tokenizer.ends, *([] if self.tokenizer.eoc is None else [self.tokenizer.eoc]))

    @functools.cached_property
    def banned(self) -> tuple[int, ...]:
        """The tokens that are never written."""
        c = self.config
        # A generated <image> tag would have no image.
        extra = tuple(c.lm.vocab_size + i for i in range(len(c.extra_tokens)))
        places = c.image_tag if c.xattn is not None and c.xattn.takes_places else ()
        # In some vocabularies one token is <BOS>, <EOS> and padding.
        spare = range(self.tokenizer.size, c.lm.vocab_size)  # Rows that no token has.
        return tuple(sorted({*extra, *places, *spare, self.tokenizer.pad, self.tokenizer.bos} - set(self.ends)))

    @property
    def marks(self) -> search.Marks:
        """The tokens with a meaning for an answer."""
        return search.Marks(self.ends, self.banned)

    @functools.cached_property
    def reader(self) -> Reader:
        """What reads its prompts."""
        return Reader(self.model, self.params, self.tokenizer, self.image_format, self.mesh)

    def remember(self, beginning: Prompt) -> None:
        """Reads what many prompts begin with, such as examples. It is then not read again with each of them.

        Nothing else changes: a prompt is still given whole. The last few beginnings are kept. Prompts of one batch that
        begin alike need no call of this.
        """
        self.reader.beginnings.add(encode(beginning, self.tokenizer))

    def read(self, prompts: Sequence[Prompt], room: int) -> decode.Prompts:
        """Reads prompts: their media, their text, and the logits after each.

        ValueError if a prompt and `room` more tokens exceed the context.
        """
        return self.reader.read([self.encoded(prompt, room) for prompt in prompts])

    def encoded(self, prompt: Prompt, room: int) -> Encoded:
        """A prompt as tokens and images. ValueError as for `read`."""
        self._refuse_towers()
        found, context = encode(prompt, self.tokenizer), self.config.lm.context
        if (free := context - len(found.tokens)) < room:
            raise UserError(
                f'A prompt of {len(found.tokens)} tokens and {room} new ones exceeds the context of {context} tokens. '
                f'Use {f"at most {free} new tokens, or " if free > 0 else ""}fewer examples.'
            )
        return found

    def score(
        self, prompt: Prompt | Sequence[Prompt], candidates: Sequence[str] | Sequence[Sequence[str]]
    ) -> Float[np.ndarray, 'c'] | Float[np.ndarray, 'b c']:
        """Log-likelihood of each candidate continuation, as written. End it with '<EOC>' to score the end too.

        Args:
          prompt: as for `generate`.
          candidates: one list for all prompts, or a list for each prompt, all of one length. White space counts; like
            a prompt, they are read in Unicode's composed form (NFC).

        Returns:
          Natural logarithms: [c] for one prompt, [b c] for a list of prompts.

        Raises:
          ValueError: a prompt or the candidates are not valid, or both together exceed the context.
        """
        prompts, several = as_batch(prompt)
        refuse_other_than_list(candidates, 'The candidates are', 'a list of at least one text')
        one_list = not len(candidates) or isinstance(candidates[0], str)
        rows = [candidates] * len(prompts) if one_list else candidates
        for row in rows:
            refuse_other_than_list(row, 'The candidates are', 'a list of at least one text')
        if len(rows) != len(prompts) or len({len(row) for row in rows}) != 1:
            raise UserError(
                f'{len(prompts)} prompts need {len(prompts)} lists of candidates, all of one length. For '
                'other lengths, use `choose`.'
            )
        number = len(prompts)
        prompts, rows = meshes.fill(self.mesh, prompts), meshes.fill(self.mesh, rows)
        encoded = [self._encode_candidates(prompt, row) for prompt, row in zip(prompts, rows, strict=True)]
        longest = _room(max(len(ids) for row in encoded for ids in row))
        read = self.read(prompts, longest)
        part = max(1, _TOGETHER // longest)
        scores = [
            self._score(read, [row[begin : begin + part] for row in encoded], longest)[0]
            for begin in range(0, len(rows[0]), part)
        ]
        scores = np.concatenate(scores, axis=1)[:number]
        return scores if several else scores[0]

    def likelihoods(self, prompt: Prompt, answer: Sequence[int], k: int = 1) -> search.Likelihoods:
        """The log-probability of each token of an answer, and the k likeliest ones at its place, as NumPy arrays.

        Args:
          prompt: as for `generate`, one.
          answer: tokens, at least one, such as those of `write`.

        ValueError: the prompt is not valid, or both together exceed the context.
        """
        if not len(answer):
            raise UserError('The answer has no tokens. Give at least one.')
        read = self.read(meshes.fill(self.mesh, [prompt]), len(answer))
        tokens = np.zeros(_room(len(answer)), np.int32)
        tokens[: len(answer)] = answer
        with rules.activations(self.mesh):
            found = search.likelihoods(self.model, self.params, read, tokens, k)
        return search.Likelihoods(*(np.asarray(x)[: len(answer)] for x in found))

    def choose(self, prompts: Sequence[Prompt], candidates: Sequence[Sequence[str]]) -> list[int]:
        """The index of the candidate with the highest `score` for each prompt, found without scoring all.

        A candidate is at most as likely as its first token. Candidates are scored in the order of this bound, short
        ones first, until no other can beat the best. Of a thousand names, usually a few dozen are scored.

        Args:
          prompts: as for `generate`.
          candidates: a list for each prompt, of any length.

        ValueError as for `score`.
        """
        refuse_other_than_list(prompts, 'The prompts are', 'a list of prompts')
        refuse_other_than_list(candidates, 'The candidates are', 'a list of texts for each prompt')
        number = len(prompts)
        if len(candidates) != number or not number:
            raise UserError(f'There are {number} prompts and {len(candidates)} lists of candidates. Give one for each.')
        prompts, candidates = meshes.fill(self.mesh, prompts), meshes.fill(self.mesh, candidates)
        encoded = [self._encode_candidates(prompt, row) for prompt, row in zip(prompts, candidates, strict=True)]
        rooms = [np.array([_room(len(ids)) for ids in row]) for row in encoded]
        every = np.unique(np.concatenate(rooms)).tolist()
        read = self.read(prompts, every[-1])
        logp = np.asarray(jax.nn.log_softmax(read.logits))
        bounds = [logp[i, [ids[0] for ids in row]] for i, row in enumerate(encoded)]
        best, chosen = np.full(len(prompts), -np.inf), [0] * len(prompts)
        for room in every:
            order = [np.flatnonzero(row == room) for row in rooms]
            order = [
                places[np.argsort(-bound[places], kind='stable')] for places, bound in zip(order, bounds, strict=True)
            ]
            most = max(map(len, order))
            part = max(1, min(_LIKELIEST // room, 1 << (most - 1).bit_length()))  # Few sizes, to compile rarely.
            for begin in range(0, most, part):
                some = [places[begin : begin + part] for places in order]
                left = [len(places) > 0 and bounds[i][places[0]] > best[i] for i, places in enumerate(some)]
                if not any(left):
                    break
                # All rows have one shape: a row with fewer candidates repeats them; one with none left scores any.
                some = [np.resize(places if len(places) else [0], part) for places in some]
                (scores,) = self._score(
                    read, [[encoded[i][j][:room] for j in places] for i, places in enumerate(some)], room
                )
                for i, places in enumerate(some):
                    if left[i] and scores[i].max() > best[i]:
                        best[i], chosen[i] = scores[i].max(), int(places[scores[i].argmax()])
        return chosen[:number]

    @functools.cached_property
    def _candidate_ids(self) -> Callable[[str, bool], list[int]]:
        """Encodes a candidate. The last ones are kept: an evaluation asks for the same ones after every prompt."""

        @functools.lru_cache(2**16)
        def ids_of(candidate: str, continues: bool) -> list[int]:
            return self.tokenizer.encode(composed(candidate, 'The candidate'), continues)

        return ids_of

    def _encode_candidates(self, prompt: Prompt, candidates: Sequence[str]) -> list[list[int]]:
        refuse_other_than_list(candidates, 'The candidates are', 'a list of at least one text')
        if not len(candidates):
            raise UserError('There are no candidates. Give a list of at least one text.')
        if wrong := [candidate for candidate in candidates if not isinstance(candidate, str)]:
            raise UserError(f'A candidate is of type {type(wrong[0]).__name__}. Give texts.')
        continues = is_continued(prompt, self.tokenizer)
        encoded = [self._candidate_ids(candidate, continues) for candidate in candidates]
        if empty := [c for c, ids in zip(candidates, encoded, strict=True) if not ids]:
            raise UserError(f'The candidate {empty[0]!r} is empty. Give at least one token.')
        return encoded

    def _score(
        self, read, candidates: Sequence[Sequence[list[int]]], longest: int, temperatures=search.AS_IT_IS
    ) -> Float[np.ndarray, 't b c']:
        tokens = np.zeros((len(candidates), len(candidates[0]), longest), np.int32)
        valid = np.zeros(tokens.shape, bool)
        for i, row in enumerate(candidates):
            for j, ids in enumerate(row):
                tokens[i, j, : len(ids)], valid[i, j, : len(ids)] = ids, True
        (tokens, valid), _ = meshes.in_rows(self.mesh, tokens, valid)
        with rules.activations(self.mesh):
            return np.asarray(search.score(self.model, self.params, read, tokens, valid, temperatures))

    def room(self, prompt: Prompt, candidates: Iterable[str]) -> int:
        """The number of tokens that `score` needs after a prompt."""
        continues = is_continued(prompt, self.tokenizer)
        return _room(max(len(self._candidate_ids(candidate, continues)) for candidate in candidates))

    def lengths(self, prompt: Prompt, candidates: Sequence[str]) -> Int[np.ndarray, 'c']:
        """The number of tokens of each candidate after a prompt, over which `score` sums."""
        return np.array([len(ids) for ids in self._encode_candidates(prompt, candidates)])

    def _written(self, tokens: Int[np.ndarray, 'l'], stop: Sequence[str]) -> Written:
        tokens = tokens[tokens >= 0].tolist()
        return Written(up_to(self.tokenizer.written(tokens), stop).strip(), tokens)


def up_to(text: str, marks: Sequence[str]) -> str:
    """A text before the first of these marks."""
    for mark in marks:
        text = text.split(mark)[0]
    return text


def _room(longest: int) -> int:
    return -(-longest // 4) * 4  # Few lengths, to compile rarely.


_features = jax.jit(Flamingo.features, static_argnums=0)
_logits = jax.jit(Flamingo.logits, static_argnums=0)
