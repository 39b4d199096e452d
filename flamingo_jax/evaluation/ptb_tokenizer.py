"""Words of captions by the conventions of the Penn Treebank, as the COCO caption evaluation counts them, without Java.

The official evaluation calls a Java program, with which this module shares no code: it follows the Treebank's public
conventions and what the program answers for given texts. docs/metrics.md says how often the two agree.
"""

import re
from collections.abc import Sequence

from flamingo_jax.errors import UserError

# Words that keep their full stop.
_ABBREVIATIONS = """
    mr mrs ms dr prof rev hon st jr sr gen col maj capt lt sgt cpl gov sen rep pres messrs esq bros
    ave blvd rd mt ft dept univ inc co corp ltd vs etc al cf est ca fig pp calif conn fla mich minn wis
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri
""".split()
# Words that start a sentence, after the full stop of an initial.
_STARTS = 'The A An He She It We They You This That These There But So If As At In When While What One Some'.split()
_CHARACTERS = {'(': '-lrb-', ')': '-rrb-', '[': '-lsb-', ']': '-rsb-', '{': '-lcb-', '}': '-rcb-'}
_CHARACTERS |= {'¼': '1/4', '½': '1/2', '¾': '3/4', '¢': 'cents', '£': '#', '€': '$'}

_L = r'[^\W\d_²³¹¼½¾]'  # A letter.
_A = r'[^\W_²³¹¼½¾]'  # A letter or digit.
_END = rf'(?!{_A})'
_Q = "['’]"
_PART = rf'(?:(?:[cdjlo]|qu){_Q}{_L}{_L}+|{_A}+)'  # Of a word with hyphens or slashes, such as 12-o'clock.
_PATH = r'[^\s"<>()]*[^\s"<>()[\].,?]'  # The rest of an address.

# The first alternative that fits is the next word.
_WORD = re.compile(
    rf"""
    # A plain word; it is by far the most common, so it comes first.
    (?!(?:cannot|gonna|wanna|gotta|gimme|lemme){_END}) [a-z]+ (?=[\s,]|\??$)
    # Tags, addresses, and names as social networks write them.
    | </?[a-z!][^\s/<>]*(?:\s[^<>]*|/)?>
    | (?:https?://|www\.){_PATH}
    | {_A}+(?:\.{_A}+)*\.(?:com|org|net|edu|gov){_END}(?:\.{_A}+)*(?:/{_PATH})?
    | (?:mailto:)?[\w.+-]+@\w(?:[^\s"<>()]*[^\s"<>().])? | @[a-z_]\w* | \#{_L}+
    # Telephone numbers and smileys.
    | \(\d\d\d\)\s?\d\d\d-\d\d\d\d
    | [:;=][-o']?[()dp]{_END}
    # Contractions: do n't, dog 's, can not, gon na, 't is, '90s, 'em, o'clock, y' all, ma'am.
    | {_A}*{_L}(?=n{_Q}t{_END}) | n{_Q}t{_END}
    | {_Q}(?:s|m|d|ll|re|ve){_END}
    | can(?=not{_END}) | (?:gon|wan)(?=na{_END}) | got(?=ta{_END}) | (?:gim|lem)(?=me{_END}) | 't(?=(?:is|was){_END})
    | y{_Q}(?={_L}) | [djl]{_Q}{_END}
    | {_Q}\d\ds{_END} | {_Q}\d\d(?=\s|$) | {_Q}n{_Q} | {_Q}(?:n|em|cause|til){_END}
    | {_L}*[aeiou]{_Q}[aeiou]{_L}*
    # Abbreviations keep their full stop: Ph.D., U.S.-based, etc., and "no." before a number.
    | {_L}?(?:{_L}\.)+{_L}(?:\.(?:-{_A}+)*|(?!\.)){_END}
    | (?:{'|'.join(_ABBREVIATIONS)})\.(?!{_L}) | no\.(?=\s?\d) | {_A}+\.(?=,)
    # So does an initial, unless the next word shows that a new sentence starts.
    | {_L}\.(?!{_L}|\s+(?-i:{'|'.join(_STARTS)})\s)
    # AT&T, c#, dog.A, 9.txt.
    | (?-i:[A-Z]+&[A-Z]+) | &(?:lt|gt|\#\d+); | [cf]\#{_END} | c\+\+
    | {_L}{_A}*(?:[.?!]{_L}{_A}*)+(?:-{_A}+)* | {_A}+\.(?:txt|jpe?g|png|gif){_END}
    # Words with hyphens and slashes, and numbers.
    | -[lr]rb-
    | \d+(?:[.,]\d+)+(?:-{_A}+)+ | {_A}+(?:_{_A}+)+ | {_PART}(?:[-/]{_PART})+
    | --+ | \.\.+ | [-+]?\d*(?:[.,:]\d+)+ | [-+]\d+
    | {_PART}
    # Marks.
    | [?!]+ | \*+ | _+ | \#\#+ | << | >> | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)

# Punctuation of the official list, quotation marks of other kinds, which are in it once they are spelled as in the
# Treebank, and characters beyond 16 bits, such as emoji. The list has -LRB-, but words are in lower case by then: so
# brackets are words.
_REMOVED = re.compile(r'[\'`"‘’“”«»‹›.?!,:;–—…-]|\.\.+|--+|[\U00010000-\U0010ffff]')

# What cannot be split into words: Han and kana without spaces, and the scripts and spellings whose signs look like ends
# of words (accents in NFD; the scripts of India, Thai, Lao, Tibetan, Burmese, Khmer).
_NO_WORDS = re.compile('[\u3040-\u30ff\u3400-\u9fff]{8}|[\u0300-\u036f\u0900-\u109f\u1780-\u17ff]')


def refuse_without_words(captions: Sequence[str]) -> None:
    """ValueError if `tokenize` cannot find the words of most captions, because of their script."""
    without = [caption for caption in captions if _NO_WORDS.search(caption)]
    if 2 * len(without) > len(captions):
        raise UserError(
            f'The words of {len(without)} of {len(captions)} captions cannot be found, such as of {without[0]!r}. Put '
            'spaces between words of Chinese and Japanese, and compose accents (NFC); CIDEr has no words of Thai and '
            'Indic scripts.'
        )


def tokenize(captions: Sequence[str]) -> list[list[str]]:
    """The words of each caption in lower case, without punctuation.

    Each caption is tokenized by itself. The official evaluation puts all captions into one text, where the first word
    of the next caption decides whether the full stop of a last initial ("vitamin C.") ends a sentence. The captions of
    a set tend to start alike, so the caption's own first word decides here.
    """
    found = []
    for caption in captions:
        caption = caption.replace('&amp;', '&').replace('&quot;', '"').replace('&nbsp;', ' ')
        caption = re.sub(r'’(?=(?:[smdt]|ll|re|ve)\b)', "'", caption, flags=re.IGNORECASE)
        words = _WORD.findall(caption)
        if words and re.fullmatch(rf'{_L}\.', words[-1]) and caption.split()[0] in _STARTS:
            words[-1] = words[-1][0]
        words = ' '.join(word.lower() for word in words if not _REMOVED.fullmatch(word))
        words = words.replace('&lt;', '<').replace('&gt;', '>').translate(str.maketrans(_CHARACTERS))
        found.append(words.split())
    return found
