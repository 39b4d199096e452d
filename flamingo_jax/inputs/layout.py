"""The one way in which pictures and texts become a sequence of tokens, in training and in a prompt alike.

    <BOS>Cute pics of my pets!<EOC><image>My puppy sitting in the grass.<EOC><image> My cat looking very dignified.<EOC>

A chunk is at most one picture and the text after it; an <EOC> ends it (paper, section 2.3 and appendix A.3). OpenFlamingo's
models are written in the same way. IDEFICS puts a token before and after each picture, which neighbouring pictures share.
"""

from flamingo_jax.inputs.tokenizer import ENDS_OF_CHUNK, Tokenizer


class Layout:
    """The tokens written so far.

    Attributes:
      tokens: ids.
      weights: of each token as a target of the loss.
      begins: where the tag of each picture begins.
    """

    def __init__(self, tokenizer: Tokenizer):
        """Begins with what stands before every text, if the language model has that."""
        self._tokenizer = tokenizer
        self.tokens: list[int] = list(tokenizer.begin)
        self.weights: list[float] = [0.0] * len(self.tokens)
        self.begins: list[int] = []
        self.continues = False  # Whether a text would go on with one before it.
        self._open = False  # Whether something stands after the last <EOC>.
        self._weight = 0.0  # Of the chunk's last text.

    def picture(self) -> None:
        """Writes a picture's tag; before it the <EOC> of what was not ended. IDEFICS ends nothing there."""
        t = self._tokenizer
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
          weight: of its tokens as targets.
          marks: '<EOC>' in the text is the token. False where the text is somebody's: then it is the five letters.
        """
        if not text:
            return
        self.tokens += self._tokenizer.encode(text, self.continues, marks)
        self._pad_weights(weight)
        ended = marks and text.endswith(ENDS_OF_CHUNK)
        self.continues = self._tokenizer.prefix_once or not ended
        self._open, self._weight = not ended, weight

    def end_chunk(self) -> None:
        """Writes <EOC>, which weighs what the chunk's last text does; nothing where the model has none."""
        if self._tokenizer.eoc is not None:
            self.tokens.append(self._tokenizer.eoc)
            self._pad_weights(self._weight)
            self.continues = self._tokenizer.prefix_once
        self._open, self._weight = False, 0.0

    def end(self) -> None:
        """Writes <EOS>, which weighs what stands before it does."""
        self.tokens.append(self._tokenizer.eos)
        self._pad_weights(self.weights[-1] if self.weights else 0.0)

    def _pad_weights(self, weight: float) -> None:
        self.weights += [float(weight)] * (len(self.tokens) - len(self.weights))
