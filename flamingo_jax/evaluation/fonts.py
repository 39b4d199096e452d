"""Fonts for charts whose texts may be in any script."""

import contextlib
import re
import warnings
from collections.abc import Iterator

from flamingo_jax.parallel import processes

# What DejaVu lacks of the large scripts. Matplotlib takes seconds to look through all 170 families.
SCRIPTS = (
    'CJK JP', 'Devanagari', 'Bengali', 'Gurmukhi', 'Gujarati', 'Tamil', 'Telugu', 'Kannada', 'Malayalam', 'Sinhala',
    'Thai', 'Khmer', 'Myanmar', 'Ethiopic',
)  # fmt: skip


def families(first: str = 'DejaVu Sans') -> list[str]:
    """Families for Matplotlib, which takes each character from the first of them that has it.

    They are `first`, which comes with Matplotlib, and those of Noto Sans that are installed, of `SCRIPTS`.
    """
    from matplotlib import font_manager  # Takes a second, so it is imported only for a chart.

    there = font_manager.fontManager.get_font_names()  # At each text, it warns of a family that is not.
    return [first, *(name for name in (f'Noto Sans {script}' for script in SCRIPTS) if name in there)]


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Says in one line which characters of `what`, a file that is drawn within, no font has.

    Matplotlib warns of each again and again, and commands silence the warnings of libraries.
    """
    with warnings.catch_warnings(record=True) as given:
        warnings.filterwarnings('always', 'Glyph')
        yield
    glyphs = (re.match(r'Glyph (\d+) ', str(one.message)) for one in given)
    if missing := sorted({chr(int(glyph[1])) for glyph in glyphs if glyph}):
        processes.say(
            f'{what}: no font here has {" ".join(missing)}. Empty boxes stand for them. Install more fonts: '
            'apt-get install fonts-noto-core fonts-noto-cjk'
        )
