"""The tokenizer of the language model, with the few tokens that a Flamingo adds to its vocabulary.

Its file is a SentencePiece model, or the tokenizer.json of Hugging Face's library `tokenizers`. The latter does not
say which ids have a role, so they are added to it:

    {"roles": {"bos": 1, "eos": [2, 7], "pad": 0}, "model": ..., ...}

The roles of a model that chats may have its `chat_template`, too, which transformers fills in.

The paper writes `<image>` as plain text and learns one new token, `<EOC>` (end of chunk). OpenFlamingo learns a token
for both. `image_tag='text'` or `'token'` chooses. New tokens get the ids after the language model's vocabulary; their
rows are in the parameter tree `extra_tokens`. LLaVA's tag is a token that its language model has, once for each place.

As a command this file trains a tokenizer on the text of a prepared data set:

    python -m flamingo_jax.inputs.tokenizer --data=DATA_DIR --vocab_size=4096 --out=tokenizer.model
"""

import codecs
import functools
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, SupportsInt, cast

import sentencepiece
import tokenizers
from absl import flags
from sentencepiece import sentencepiece_model_pb2
from tqdm import tqdm

from flamingo_jax import commands
from flamingo_jax.errors import UserError
from flamingo_jax.files import Path, as_path

EOC, IMAGE = '<EOC>', '<image>'
LATER_IN_TAG = '<image '  # How the names of the later tokens begin, in a tag of several extra tokens.
# Names in published models: of the end of a chunk (OpenFlamingo, IDEFICS-instruct), of padding, of the token around
# images.
ENDS_OF_CHUNK = (EOC, '<|endofchunk|>', '<end_of_utterance>')
PAD, AROUND = '<PAD>', '<fake_token_around_image>'
QUOTE = '\ue000'  # Stands around text of a prompt that is read as its characters: a character of no text (private use).
_MARK = re.compile(r'<[^<>\s]*[_|｜][^<>\s]*>')  # Such as <|im_end|> and <start_of_image>.
_ADDED_MARK = re.compile(r'<[^<>\s]+>|\[/?[A-Z][A-Z_0-9]+\]')  # Such as <think> and [INST], of added tokens alone.
# Elements that vocabularies have as pieces, such as Gemma's. They are a page's text, and no marks.
_HTML = frozenset(
    'a b blockquote body br caption center code dd del div dl dt em footer h1 h2 h3 h4 h5 h6 head header hr html i img '
    'li mark ol p pre q s small span strong sub sup table tbody td tfoot th thead title tr u ul'.split()
)


def is_mark(name: str, added: bool) -> bool:
    """Whether a token that its file does not call special is a mark, which no text of a data set may become.

    Args:
      name: the token as it is written, such as `<think>`.
      added: whether it was added to the vocabulary by hand. Training on code finds pieces such as `<string>`.
    """
    if _MARK.fullmatch(name):
        return True
    return added and bool(_ADDED_MARK.fullmatch(name)) and name.strip('</>').lower() not in _HTML


def _byte(name: str) -> bytes:
    """The byte of a piece such as `<0xE1>`; b'' of any other."""
    found = re.fullmatch('<0x([0-9A-F]{2})>', name)
    return bytes.fromhex(found[1]) if found else b''


def _byte_letters() -> dict[str, bytes]:
    """The byte of each letter in which byte-level BPE (GPT-2) writes its vocabulary: itself if that can be seen."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    unseen = [i for i in range(256) if chr(i) not in letters]
    return {c: bytes([ord(c) if ord(c) < 256 else unseen[ord(c) - 256]]) for c in letters}


class _SentencePiece:
    """A SentencePiece model. A text begins with its <BOS>, if it has one."""

    file = 'tokenizer.model'
    prefix_once = False
    chat_template, begin_after_images = '', False

    def __init__(self, model: bytes):
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        # Protobuf merges bytes after a message into it. These set normalizer_spec.add_dummy_prefix to false.
        self._within = sentencepiece.SentencePieceProcessor(model_proto=model + b'\x1a\x02\x18\x00')
        self.size = self._pieces.vocab_size()
        bos, eos, self.pad = self._pieces.bos_id(), self._pieces.eos_id(), max(self._pieces.pad_id(), 0)
        if eos < 0:
            raise UserError('The SentencePiece model has no token that ends a text. Train one with `eos_id`.')
        self.begin, self.ends = (bos,) if bos >= 0 else (), (eos,)
        self.bos = bos if bos >= 0 else eos
        self.unk = self.name(self._pieces.unk_id())
        # No text becomes a control token. But a file may have marks as symbols of its user's, as Gemma's has
        # <start_of_image>.
        pieces = sentencepiece_model_pb2.ModelProto.FromString(model).pieces
        marks = (one.piece for one in pieces if is_mark(one.piece, added=one.type == one.USER_DEFINED))
        self.special = tuple(mark for mark in marks if len(self._within.encode(mark)) == 1)
        within = (f'(?<={re.escape(mark[0])})(?={re.escape(mark[1:])})' for mark in self.special)
        self._in_marks = re.compile('|'.join(within))

    def name(self, i: int) -> str:
        return self._pieces.id_to_piece(i)

    def bytes_of(self, i: int) -> bytes:
        return _byte(self.name(i)) or self.name(i).replace('\u2581', ' ').encode()

    def encode(self, text: str, continues: bool = False, marks: bool = True) -> list[int]:
        # Encoded apart, the first letter and the rest of a mark are ordinary pieces.
        parts = [text] if marks or not self.special else self._in_marks.split(text)
        ids = (self._within if continues else self._pieces).encode(parts[0])
        return ids + [i for part in parts[1:] for i in self._within.encode(part)]

    def decode(self, ids: list[int]) -> str:
        return self._pieces.decode(ids)

    def spelt(self, text: str) -> list[int]:
        """The ids of an ASCII text, byte by byte; [] if the vocabulary has no bytes."""
        ids = [self._pieces.piece_to_id(f'<0x{ord(c):02X}>') for c in text]
        return [] if any(map(self._pieces.is_unknown, ids)) else ids


class _Json:
    """A tokenizer.json with roles. A text begins with the tokens that its post-processor adds."""

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
        added = self._pieces.get_added_tokens_decoder().values()
        self.special = tuple(token.content for token in added if token.special or is_mark(token.content, added=True))
        self.bos, self.ends, self.pad = roles['bos'], tuple(roles['eos']), roles['pad']
        self.unk, self.chat_template = fields['model'].get('unk_token'), roles.get('chat_template', '')
        self.begin_after_images = roles.get('begin_after_images', False)
        self._letters = _byte_letters() if '"ByteLevel"' in json.dumps(fields.get('decoder')) else {}
        alone, whole = self.encode('a'), self._pieces.encode('a').ids
        self.begin = tuple(whole[: whole.index(alone[0])] if alone else whole)

    def name(self, i: int) -> str:
        return cast(str, self._pieces.id_to_token(i))

    def bytes_of(self, i: int) -> bytes:
        name = self.name(i) or ''  # Not every id has a token.
        return _byte(name) or b''.join(self._letters.get(c) or c.encode() for c in name.replace('\u2581', ' '))

    @functools.cached_property
    def _as_text(self) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer]:
        """The two that read `<|endoftext|>` in a text as its characters. Only training needs them."""
        both = []
        for pieces in (self._within, self._pieces):
            fields = json.loads(pieces.to_str())
            for token in fields['added_tokens']:  # A file may call `<think>` ordinary.
                token['special'] = token['content'] in self.special
            both.append(tokenizers.Tokenizer.from_str(json.dumps(fields)))
            both[-1].encode_special_tokens = True
        return tuple(both)

    @staticmethod
    def _library(fields: dict[str, Any]) -> tokenizers.Tokenizer:
        made = tokenizers.Tokenizer.from_str(json.dumps(fields))
        made.no_padding()
        made.no_truncation()
        return made

    def encode(self, text: str, continues: bool = False, marks: bool = True) -> list[int]:
        within, whole = (self._within, self._pieces) if marks else self._as_text
        return (within if continues else whole).encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self._pieces.decode(ids)

    def spelt(self, text: str) -> list[int]:
        """As that of `_SentencePiece`."""
        ids = [self._pieces.token_to_id(f'<0x{ord(c):02X}>') for c in text]
        return [] if None in ids else cast(list[int], ids)


def _without_prefix(step: dict[str, Any] | None) -> dict[str, Any] | None:
    """A normalizer or pre-tokenizer of a tokenizer.json, without the space that it puts before a text."""
    if step is None or step['type'] == 'Prepend':
        return None
    for several in {'normalizers', 'pretokenizers'} & step.keys():
        return step | {several: [one for one in map(_without_prefix, step[several]) if one]}
    without = dict(prepend_scheme='never', add_prefix_space=False)
    return step | {name: value for name, value in without.items() if name in step}


QUOTED = f'{QUOTE}[^{QUOTE}]*{QUOTE}'  # As a regular expression.


def _holds(ids: Sequence[int], tag: Sequence[int]) -> bool:
    """Whether `tag`, if it is not empty, is a part of `ids`."""
    return bool(tag) and any(tuple(ids[i : i + len(tag)]) == tuple(tag) for i in range(len(ids)))


class Tokenizer:
    """Text <-> token ids. Segments of a text are encoded one by one and their ids concatenated.

    Some language models (LLaMA) were trained with a space before each text. As in the original models, the space
    stands before a text that follows an image or an <EOC>, but not before a segment that continues a text. If
    `prefix_once` is set, as in newer files, it stands before the first segment only.

    Attributes:
      size: tokens in the file.
      vocab_size: of the language model, which may be larger; the ids of the extra tokens begin there.
      extra_tokens: names of the extra tokens, in the order of their ids.
      begin: ids before a text: <BOS>, or none if the language model was trained without it.
      bos, eos, pad, eoc: ids; eoc is None if the model has no <EOC>.
      ends: ids that end an answer: <EOS>, and any others of the language model.
      unk: name of the token for what the vocabulary lacks; None if it has none.
      chat_template: how the model was trained to chat, as its source says it; '' if it does not.
      begin_after_images: whether `begin` comes after the images with which a prompt begins (BLIP-2).
      model, file: the tokenizer's file, as bytes, and its name in a bundle or run.
      image_tag: the ids of an image's tag, () in a tokenizer for text alone.
      around: id of the token before and after each image (IDEFICS); None in other models.
    """

    def __init__(
        self,
        model: bytes,
        image_tag: str | Sequence[int] | None = None,
        vocab_size: int | None = None,
        extra_tokens: Sequence[str] = (),
    ):
        """A tokenizer of either kind.

        Args:
          model: the bytes of a SentencePiece model file, or of a tokenizer.json with roles.
          image_tag: 'text', 'token', the ids of a tag of the language model's own tokens, or None for text alone.
          vocab_size: of the language model, which may have more rows than the tokenizer has tokens; None: the same
            number.
          extra_tokens: names of the extra tokens of a published Flamingo; () follows from the image tag.
        """
        self._pieces = _Json(model) if model[:1] == b'{' else _SentencePiece(model)
        self.model, self.file = model, self._pieces.file
        self.size = self._pieces.size
        self.vocab_size = vocab_size or self.size
        if self._pieces.size > self.vocab_size:
            raise UserError(
                f'The tokenizer has {self._pieces.size} tokens, but the language model only {self.vocab_size}. Give '
                'the tokenizer of this language model.'
            )
        self.bos, self.pad, self.begin, self.ends = (getattr(self._pieces, n) for n in ('bos', 'pad', 'begin', 'ends'))
        self.prefix_once, self.unk = self._pieces.prefix_once, self._pieces.unk
        self.chat_template = self._pieces.chat_template
        self.begin_after_images = self._pieces.begin_after_images
        self.eos = self.ends[0]
        self.extra_tokens, self.image_tag = (), ()
        if isinstance(image_tag, list | tuple):
            self.image_tag = tuple(image_tag)
        elif image_tag is not None:
            if image_tag not in ('text', 'token'):
                raise UserError(f"image_tag must be 'text', 'token' or None, not {image_tag!r}.")
            self.extra_tokens = tuple(extra_tokens) or ((EOC,) if image_tag == 'text' else (EOC, IMAGE))
            tag = [self._id(name) for name in self.extra_tokens if name == IMAGE or name.startswith(LATER_IN_TAG)]
            self.image_tag = tuple(self._pieces.encode(IMAGE)) if image_tag == 'text' else tuple(tag)
        ids = [self._id(name) for name in ENDS_OF_CHUNK if name in self.extra_tokens]
        self.eoc = ids[0] if ids else None
        self.around = self._id(AROUND) if AROUND in self.extra_tokens else None
        self.begin = self.begin if self.around is None else (self.bos,)  # Like IDEFICS's own processor.
        self.pad = self._id(PAD) if PAD in self.extra_tokens else self.pad
        # The text '<EOC>' works whatever the model's name for the token.
        self._named = {name: self.eoc for name in (EOC, *self.extra_tokens) if name in ENDS_OF_CHUNK}

    def _id(self, name: str) -> int:
        return self.vocab_size + self.extra_tokens.index(name)

    @classmethod
    def read(
        cls,
        path: str | Path,
        image_tag: str | Sequence[int] | None = None,
        vocab_size: int | None = None,
        extra_tokens: Sequence[str] = (),
    ) -> 'Tokenizer':
        """Reads a tokenizer from a folder or a file. FileNotFoundError names the command that trains one."""
        path = as_path(path)
        if path.is_dir():
            path = path / _Json.file if (path / _Json.file).is_file() else path / _SentencePiece.file
        if not path.is_file():
            raise FileNotFoundError(
                f'There is no tokenizer at {path}. Train one: python -m flamingo_jax.inputs.tokenizer --data=... '
                f'--out={path}'
            )
        return cls(path.read_bytes(), image_tag, vocab_size, extra_tokens)

    @property
    def chunk_end(self) -> str:
        """The text that ends a chunk: '<EOC>', or a newline for a language model that has no such token."""
        return EOC if self.eoc is not None else '\n'

    def literal(self, text: str) -> str:
        """A text of a data set as part of a prompt: `encode` reads marks and tags in it as their characters.

        It is the text itself, or, if it has any, the text between two `QUOTE`s.
        """
        has = any(mark in text for mark in (*self._named, *self.extra_tokens, IMAGE, QUOTE, *self._pieces.special))
        # A tokenizer that normalises may read a mark in what is spelt otherwise.
        if has or self._pieces.encode(text) != self._pieces.encode(text, marks=False):
            return QUOTE + text.replace(QUOTE, '') + QUOTE
        return text

    def encode(self, text: str, continues: bool = False, marks: bool = True) -> list[int]:
        """The ids of a text, without <BOS> or <EOS>.

        Args:
          continues: the text continues another one in the same chunk.
          marks: True reads '<EOC>' in the text, or the model's own name for it, as the extra token, and `<|endoftext|>`
            and the like as the language model's, except between `QUOTE`s. False reads them as text, as they stand in a
            data set.

        Raises:
          ValueError: the text has a mark, but the model has no such token; or a tag between `QUOTE`s that this
            tokenizer cannot write as text.
        """
        if not marks:
            return self._pieces.encode(text, continues, marks=False)
        ids = []
        for part in re.split('(' + '|'.join([QUOTED, *map(re.escape, self._named)]) + ')', text):
            if part in self._named and self.eoc is None:
                raise UserError(
                    f'The text {text!r} contains {EOC}, but this language model has no such token. Remove it from the '
                    'text.'
                )
            if part in self._named:
                ids.append(self._named[part])
                continues = self.prefix_once
            elif part:
                encode = self._characters if part.startswith(QUOTE) else self._pieces.encode
                ids += encode(part.strip(QUOTE), continues)
                continues = True
        return ids

    def _characters(self, text: str, continues: bool) -> list[int]:
        """The ids of a text, of which no part is read as a mark or as an image's tag."""
        ids = self._pieces.encode(text, continues, marks=False)
        if not _holds(ids, self.image_tag):
            return ids
        # The tag is the tokens of plain text. Byte by byte, or letter by letter, it is the same text in other tokens.
        begin, *rest = text.split(IMAGE)
        tag = self._pieces.spelt(IMAGE) or [i for c in IMAGE for i in self._pieces.encode(c, True, marks=False)]
        ids = self._pieces.encode(begin, continues, marks=False)
        for part in rest:
            ids += [*tag, *self._pieces.encode(part, True, marks=False)]
        if _holds(ids, self.image_tag):
            raise UserError(f'This tokenizer cannot write {IMAGE} as text. Remove it from {text!r}.')
        return ids

    def name(self, i: int) -> str:
        """The name of a token, also of a control token such as `</s>`."""
        return self._pieces.name(i) if i < self.vocab_size else self.extra_tokens[i - self.vocab_size]

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """The text of some ids. Extra tokens are written by name; control tokens are left out."""
        text, run = '', []
        for i in [int(i) for i in ids] + [None]:
            if i is not None and i < self.vocab_size:
                run.append(i)
                continue
            text, run = text + self._pieces.decode(run), []
            if i is not None:
                text += self.extra_tokens[i - self.vocab_size]
        return text

    def written(self, ids: Sequence[int]) -> str:
        """The text of ids that a model wrote, without a letter at the end of which some bytes are still to come."""
        letters = codecs.getincrementaldecoder('utf-8')('replace')
        letters.decode(b''.join(map(self._bytes_of, ids[-3:])))  # A letter has at most four bytes.
        unfinished, _ = letters.getstate()
        return self.decode(ids).rstrip('\ufffd') if unfinished else self.decode(ids)

    def shown(self, i: int) -> str:
        """The text of one token. A byte that is only a part of a letter is written as `<0xE1>`."""
        if '\ufffd' not in (text := self.decode([i])):
            return text
        text = self._bytes_of(i).decode(errors='surrogateescape')
        return re.sub('[\udc80-\udcff]', lambda byte: f'<0x{ord(byte[0]) - 0xDC00:02X}>', text)

    def _bytes_of(self, i: int) -> bytes:
        return self._pieces.bytes_of(i) if i < self.vocab_size else self.extra_tokens[i - self.vocab_size].encode()


def extra_tokens_of_prefix(r: int) -> tuple[str, ...]:
    """The extra tokens of a model whose images are r soft words in the text: <EOC>, and a tag of r tokens."""
    return (EOC, IMAGE, *(f'{LATER_IN_TAG}{i}>' for i in range(2, r + 1)))


class MissingTokenizer(Tokenizer):
    """Replaces a tokenizer that is not here. It can write empty documents, which have the shapes of all others."""

    def __init__(self, vocab_size: int, image_tag: str | None, extra_tokens: Sequence[str] = ()):
        """Like a SentencePiece model with <BOS> in which the text '<image>' is three pieces."""
        self.vocab_size, self.begin, self.ends = vocab_size, (0,), (0,)
        self.bos = self.eos = self.pad = 0
        self.prefix_once, self.around, self.chat_template, self.begin_after_images = False, None, '', False
        self.extra_tokens = tuple(extra_tokens) or {None: (), 'text': (EOC,), 'token': (EOC, IMAGE)}[image_tag]
        tag = tuple(range(vocab_size + 1, vocab_size + len(self.extra_tokens)))
        self.image_tag = {None: (), 'text': (1, 2, 3), 'token': tag}[image_tag]
        self.eoc = self._id(EOC) if self.extra_tokens else None

    def encode(self, text: str, continues: bool = False, marks: bool = True) -> list[int]:
        """One token, whatever the text."""
        return [0]


def train(texts: Iterator[str], vocab_size: int, symbols: Iterable[str] = ('\n',)) -> bytes:
    """Trains a BPE SentencePiece model with byte fallback and returns the bytes of its file.

    Like Chinchilla's, it has no NFKC normalisation. It keeps white space and adds no space before a text, so that
    segments encoded one by one give the tokens of the whole text.

    Args:
      texts: what to train on.
      vocab_size: number of pieces, with 256 bytes and 4 control tokens among them.
      symbols: texts that become one piece each, however rare, such as a newline or a keyword of prompts.

    Raises:
      ValueError: there is too little text for the vocabulary; the message says which size is possible.
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
            max_sentence_length=2**30,  # By default, a text of more than 4 kB is left out.
            minloglevel=1,
        )
    except RuntimeError as error:
        raise UserError(f'SentencePiece could not train a vocabulary of {vocab_size}: {error}') from error
    return model.getvalue()


def main() -> None:
    """Trains a tokenizer on the texts (or, in an image set, the names) of a data set's train split."""
    from flamingo_jax.inputs.sources.array_record import open_split  # Only this command reads data.

    records = open_split(flags.FLAGS.data, 'train')

    def texts():
        for i in tqdm(range(min(len(records), flags.FLAGS.records)), unit=' records', desc='reading'):
            record = records[i]
            if 'texts' in record:
                yield b''.join(record['texts']).decode()
            else:
                yield from (' ' + name.decode() for name in record['names'])

    out = as_path(flags.FLAGS.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    model = train(texts(), flags.FLAGS.vocab_size, ['\n', *flags.FLAGS.symbols])
    out.write_bytes(model)
    print(f'{out}: {flags.FLAGS.vocab_size} pieces, {len(model) / 1e3:.0f} kB')


if __name__ == '__main__':
    flags.DEFINE_string('data', None, 'Folder of a prepared data set.', required=True)
    flags.DEFINE_string('out', None, 'The model file to write.', required=True)
    flags.DEFINE_integer('vocab_size', 4096, 'Number of pieces, with 256 bytes and 4 control tokens among them.')
    flags.DEFINE_list('symbols', [' Output:', ' Question:', ' Answer:'], 'Texts that become one piece each.')
    flags.DEFINE_integer('records', 100_000, 'Most records to read.')
    commands.start(__doc__)
    main()
