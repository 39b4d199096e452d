"""How images and texts become a sequence of tokens. Training and prompts both use this code.

    <BOS>Cute pics of my pets!<EOC><image>My puppy sitting in the grass.<EOC><image> My cat looking very dignified.<EOC>

A chunk is at most one image and the text after it; an <EOC> ends it (paper, section 2.3 and figure 7).
OpenFlamingo has the same layout. IDEFICS puts a token before and after each image; neighbouring images share it.
"""

from flamingo_jax.inputs.tokenizer import ENDS_OF_CHUNK, Tokenizer


class Layout:
    """The tokens written so far.

    Attributes:
      tokens: ids.
      weights: loss weight of each token as a target.
      begins: position of the first token of each image's tag.
    """

    def __init__(self, tokenizer: Tokenizer):
        """Begins with the tokens that the language model puts before every text, if any."""
        self._tokenizer = tokenizer
        self.tokens: list[int] = list(tokenizer.begin)
        self.weights: list[float] = [0.0] * len(self.tokens)
        self.begins: list[int] = []
        self.continues = False  # Whether the next text continues the text before it.
        self._open = False  # Whether there is anything after the last <EOC>.
        self._weight = 0.0  # Loss weight of the chunk's last text.

    def image(self) -> None:
        """Writes an image's tag, after the <EOC> of an open chunk. IDEFICS writes no <EOC> there.

        In a BLIP-2, images at the beginning come before the tokens that the language model puts before every text.
        """
        t = self._tokenizer
        if t.begin_after_images and len(self.tokens) == len(t.begin) + len(self.begins) * len(t.image_tag):
            at = len(self.tokens) - len(t.begin)
            self.begins.append(at)
            self.tokens[at:at] = t.image_tag
            self._pad_weights(0.0)
            return
        if self._open and t.around is None:
            self.end_chunk()
        around = [] if t.around is None else [t.around]
        self.tokens += [] if self.tokens[-1:] == around else around
        self.begins.append(len(self.tokens))
        self.tokens += [*t.image_tag, *around]
        self._pad_weights(0.0)
        self.continues, self._open, self._weight = t.prefix_once, True, 0.0

    def text(self, text: str, weight: float = 0.0, marks: bool = True) -> None:
        """Writes a text, or the next segment of one.

        Args:
          weight: loss weight of its tokens as targets.
          marks: True reads '<EOC>' in the text as the token. False, for text from a data set, reads it as five
            characters.
        """
        if not text:
            return
        self.tokens += self._tokenizer.encode(text, self.continues, marks)
        self._pad_weights(weight)
        self.continues = self._tokenizer.prefix_once or not (marks and text.endswith(ENDS_OF_CHUNK))
        # White space after an <EOC> opens no chunk: OpenFlamingo's prompts have a line break between examples.
        self._open, self._weight = not (marks and text.rstrip().endswith(ENDS_OF_CHUNK)), weight

    def end_chunk(self) -> None:
        """Writes <EOC> with the weight of the chunk's last text. Writes nothing if the model has no <EOC>."""
        if self._tokenizer.eoc is not None:
            self.tokens.append(self._tokenizer.eoc)
            self._pad_weights(self._weight)
            self.continues = self._tokenizer.prefix_once
        self._open, self._weight = False, 0.0

    def end(self) -> None:
        """Writes <EOS> with the weight of the token before it."""
        self.tokens.append(self._tokenizer.eos)
        self._pad_weights(self.weights[-1] if self.weights else 0.0)

    def _pad_weights(self, weight: float) -> None:
        self.weights += [float(weight)] * (len(self.tokens) - len(self.weights))
