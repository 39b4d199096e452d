"""The language model's tokenizer, and the few tokens that a Flamingo adds to its vocabulary.

It comes in one of two files: a SentencePiece model, or the tokenizer.json of Hugging Face's library `tokenizers`, to which
the ids that it does not tell apart are added:

    {"roles": {"bos": 1, "eos": [2, 7], "pad": 0}, "model": ..., ...}

The paper writes `<image>` as plain text, so that only `<EOC>` (end of chunk) is new and learnt; OpenFlamingo makes both new
tokens. Here the choice is `image_tag='text'` or `'token'`. New tokens have the ids after the language model's vocabulary,
and rows of their own in the parameter tree `extra_tokens`.

As a command this file trains a tokenizer on the text of a prepared data set:

    python -m flamingo_jax.inputs.tokenizer --data=DATA_DIR --vocab_size=4096 --out=tokenizer.model
"""

import io
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, SupportsInt

import sentencepiece
import tokenizers
from absl import flags
from tqdm import tqdm

from flamingo_jax import commands

EOC, IMAGE = '<EOC>', '<image>'
# What published models call the end of a chunk (OpenFlamingo, IDEFICS-instruct); padding; what stands around each picture.
ENDS_OF_CHUNK = (EOC, '<|endofchunk|>', '<end_of_utterance>')
PAD, AROUND = '<PAD>', '<fake_token_around_image>'


class _SentencePiece:
    """A SentencePiece model; its <BOS>, if it has one, stands before a text."""

    file = 'tokenizer.model'
    prefix_once = False

    def __init__(self, model: bytes):
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        # Protobuf merges what stands behind a message into it: here normalizer_spec.add_dummy_prefix = false.
        self._within = sentencepiece.SentencePieceProcessor(model_proto=model + b'\x1a\x02\x18\x00')
        self.size = self._pieces.vocab_size()
        bos, eos, self.pad = self._pieces.bos_id(), self._pieces.eos_id(), max(self._pieces.pad_id(), 0)
        self.begin, self.ends = (bos,) if bos >= 0 else (), (eos,)
        self.bos = bos if bos >= 0 else eos

    def encode(self, text: str, continues: bool = False) -> list[int]:
        return (self._within if continues else self._pieces).encode(text)

    def decode(self, ids: list[int]) -> str:
        return self._pieces.decode(ids)


class _Json:
    """A tokenizer.json with roles; what stands before a text is what its post-processor puts there."""

    file = 'tokenizer.json'

    def __init__(self, model: bytes):
        fields = json.loads(model)
        roles = fields.pop('roles')
        within = fields | {
            name: _without_prefix(fields[name]) for name in ('normalizer', 'pre_tokenizer') if name in fields
        }
        self._pieces = self._library(fields)
        self._within = self._pieces if within == fields else self._library(within)
        self.prefix_once = '"prepend_scheme": "first"' in json.dumps(fields.get('pre_tokenizer'))
        self.size = max(self._pieces.get_vocab().values()) + 1
        self.bos, self.ends, self.pad = roles['bos'], tuple(roles['eos']), roles['pad']
        alone, whole = self.encode('a'), self._pieces.encode('a').ids
        self.begin = tuple(whole[: whole.index(alone[0])] if alone else whole)

    @staticmethod
    def _library(fields: dict[str, Any]) -> tokenizers.Tokenizer:
        made = tokenizers.Tokenizer.from_str(json.dumps(fields))
        made.no_padding()
        made.no_truncation()
        return made

    def encode(self, text: str, continues: bool = False) -> list[int]:
        return (self._within if continues else self._pieces).encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self._pieces.decode(ids)


def _without_prefix(step: dict[str, Any] | None) -> dict[str, Any] | None:
    """A normalizer or pre-tokenizer of a tokenizer.json, but for the space that it puts before a text."""
    if step is None or step['type'] == 'Prepend':
        return None
    for several in {'normalizers', 'pretokenizers'} & step.keys():
        return step | {several: [one for one in map(_without_prefix, step[several]) if one]}
    without = dict(prepend_scheme='never', add_prefix_space=False)
    return step | {name: value for name, value in without.items() if name in step}


class Tokenizer:
    """Text <-> token ids. Segments of a text are encoded one by one and their ids concatenated.

    Some language models (LLaMA) were trained with a space before each text. It belongs before what follows a picture or an
    <EOC>, as in the originals, but not between the segments of one text: what continues a text is encoded without it. Where
    `prefix_once` is set, as in newer files, it belongs before the first thing alone, and everything after that continues it.

    Attributes:
      size: tokens in the file.
      vocab_size: of the language model, which may be more; the extra tokens' ids begin there.
      extra_tokens: names of the extra tokens, in the order of their ids.
      begin: ids before a text: <BOS>, or nothing where the language model was trained so.
      bos, eos, pad, eoc: ids; eoc is None where no chunks are ended.
      ends: ids that end an answer: <EOS>, and what else the language model ends with.
      model, file: the tokenizer's file, as bytes, and its name in a bundle or run.
      image_tag: the ids of an image's tag, () in a tokenizer for text alone.
      around: id of the token before and after each picture (IDEFICS), None where there is none.
    """

    def __init__(
        self,
        model: bytes,
        image_tag: str | None = None,
        vocab_size: int | None = None,
        extra_tokens: Sequence[str] = (),
    ):
        """A tokenizer of either kind.

        Args:
          model: the bytes of a SentencePiece model file, or of a tokenizer.json with roles.
          image_tag: 'text', 'token', or None for text alone.
          vocab_size: of the language model, which may have more rows than there are tokens; None has as many.
          extra_tokens: names of the extra tokens of a published Flamingo; () are those of the image tag.
        """
        self._pieces = _Json(model) if model[:1] == b'{' else _SentencePiece(model)
        self.model, self.file = model, self._pieces.file
        self.size = self._pieces.size
        self.vocab_size = vocab_size or self.size
        if self._pieces.size > self.vocab_size:
            raise ValueError(f'The tokenizer has {self._pieces.size} tokens, its language model {self.vocab_size}.')
        self.bos, self.pad, self.begin, self.ends = (getattr(self._pieces, n) for n in ('bos', 'pad', 'begin', 'ends'))
        self.prefix_once = self._pieces.prefix_once
        self.eos = self.ends[0]
        self.extra_tokens, self.image_tag = (), ()
        if image_tag is not None:
            if image_tag not in ('text', 'token'):
                raise ValueError(f"image_tag must be 'text', 'token' or None, not {image_tag!r}.")
            self.extra_tokens = tuple(extra_tokens) or ((EOC,) if image_tag == 'text' else (EOC, IMAGE))
            self.image_tag = tuple(self._pieces.encode(IMAGE)) if image_tag == 'text' else (self._id(IMAGE),)
        ids = [self._id(name) for name in ENDS_OF_CHUNK if name in self.extra_tokens]
        self.eoc = ids[0] if ids else None
        self.around = self._id(AROUND) if AROUND in self.extra_tokens else None
        self.begin = self.begin if self.around is None else (self.bos,)  # As IDEFICS's own processor begins.
        self.pad = self._id(PAD) if PAD in self.extra_tokens else self.pad
        # <EOC> is understood whatever the model calls it.
        self._named = {name: self.eoc for name in (EOC, *self.extra_tokens) if name in ENDS_OF_CHUNK}

    def _id(self, name: str) -> int:
        return self.vocab_size + self.extra_tokens.index(name)

    @classmethod
    def read(
        cls,
        path: str | pathlib.Path,
        image_tag: str | None = None,
        vocab_size: int | None = None,
        extra_tokens: Sequence[str] = (),
    ) -> 'Tokenizer':
        """Reads the tokenizer of a folder, or a file; FileNotFoundError names it and the command that trains one."""
        path = pathlib.Path(path)
        if path.is_dir():
            path = path / _Json.file if (path / _Json.file).is_file() else path / _SentencePiece.file
        if not path.is_file():
            raise FileNotFoundError(
                f'No tokenizer at {path}. Train one: python -m flamingo_jax.inputs.tokenizer --data=... --out={path}'
            )
        return cls(path.read_bytes(), image_tag, vocab_size, extra_tokens)

    def encode(self, text: str, continues: bool = False, marks: bool = True) -> list[int]:
        """The ids of a text, without <BOS> or <EOS>.

        Args:
          continues: the text goes on where another ended, in the same chunk.
          marks: '<EOC>' in the text, or the model's own name of that, is the extra token; else it is text like any other.

        Raises:
          ValueError: a mark, where the language model has no such token.
        """
        if not marks:
            return self._pieces.encode(text, continues)
        ids = []
        for part in re.split('(' + '|'.join(map(re.escape, self._named)) + ')', text):
            if part in self._named and self.eoc is None:
                raise ValueError(f'{EOC} in a text for a language model without it: {text!r}.')
            ids += [self._named[part]] if part in self._named else self._pieces.encode(part, continues)
            continues = self.prefix_once
        return ids

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """The text of some ids; extra tokens by name, control tokens left out."""
        text, run = '', []
        for i in [int(i) for i in ids] + [None]:
            if i is not None and i < self.vocab_size:
                run.append(i)
                continue
            text, run = text + self._pieces.decode(run), []
            if i is not None:
                text += self.extra_tokens[i - self.vocab_size]
        return text


class MissingTokenizer(Tokenizer):
    """Stands for a tokenizer that is not here: it writes empty documents, which have the shapes of all others."""

    def __init__(self, vocab_size: int, image_tag: str | None):
        """As a SentencePiece model with <BOS>, where '<image>' in plain text is three pieces."""
        self.vocab_size, self.begin, self.ends = vocab_size, (0,), (0,)
        self.bos = self.eos = self.pad = 0
        self.prefix_once, self.around = False, None
        self.extra_tokens = {None: (), 'text': (EOC,), 'token': (EOC, IMAGE)}[image_tag]
        self.image_tag = {None: (), 'text': (1, 2, 3), 'token': (vocab_size + 1,)}[image_tag]
        self.eoc = self._id(EOC) if self.extra_tokens else None


def train(texts: Iterator[str], vocab_size: int, symbols: Iterable[str] = ('\n',)) -> bytes:
    """Trains a BPE SentencePiece model with byte fallback, and returns the bytes of its file.

    Like Chinchilla's it has no NFKC normalisation. White space is kept as it is and no space is put before a text, so that
    segments encoded one by one are the tokens of the whole text.

    Args:
      texts: what to train on.
      vocab_size: pieces, among them 256 bytes and 4 control tokens.
      symbols: texts that become one piece each whatever their frequency, such as a newline or a prompt's keyword.

    Raises:
      ValueError: the text is too little for the vocabulary; the message says which size is possible.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=texts,
            model_writer=model,
            vocab_size=vocab_size,
            model_type='bpe',
            byte_fallback=True,
            character_coverage=0.9995,
            normalization_rule_name='identity',
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            user_defined_symbols=[symbol.replace(' ', '\u2581') for symbol in symbols],
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            num_threads=2,
            input_sentence_size=200_000,
            minloglevel=1,
        )
    except RuntimeError as error:
        raise ValueError(f'SentencePiece could not train a vocabulary of {vocab_size}: {error}') from error
    return model.getvalue()


def main() -> None:
    """Trains a tokenizer on the texts (or, in a picture set, the names) of a data set's train split."""
    from flamingo_jax.inputs.sources.array_record import open_split  # Only the command reads data.

    records = open_split(flags.FLAGS.data, 'train')

    def texts():
        for i in tqdm(range(min(len(records), flags.FLAGS.records)), unit=' records', desc='reading'):
            record = records[i]
            if 'texts' in record:
                yield b''.join(record['texts']).decode()
            else:
                yield from (' ' + name.decode() for name in record['names'])

    out = pathlib.Path(flags.FLAGS.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(train(texts(), flags.FLAGS.vocab_size, ['\n', *flags.FLAGS.symbols]))
    print(f'{out}: {flags.FLAGS.vocab_size} pieces, {out.stat().st_size / 1e3:.0f} kB')


if __name__ == '__main__':
    flags.DEFINE_string('data', None, 'Folder of a prepared data set.', required=True)
    flags.DEFINE_string('out', None, 'The model file to write.', required=True)
    flags.DEFINE_integer('vocab_size', 4096, 'Pieces, among them 256 bytes and 4 control tokens.')
    flags.DEFINE_list('symbols', [' Output:', ' Question:', ' Answer:'], 'Texts that become one piece each.')
    flags.DEFINE_integer('records', 100_000, 'At most so many records are read.')
    commands.start(__doc__)
    main()
