"""Words, parts of speech and WordNet, by NLTK, for the metrics whose official code uses it (WUPS, OK-VQA's stems)."""

import functools
import types

from flamingo_jax.errors import MissingPackageError

# What NLTK's functions read, and the downloader's name for it.
DATA = {
    'corpora/wordnet': 'wordnet',
    'tokenizers/punkt_tab': 'punkt_tab',
    'taggers/averaged_perceptron_tagger_eng': 'averaged_perceptron_tagger_eng',
}


# What to do if any of it is missing: all at once, so that a user does it once.
REMEDY = "pip install 'flamingo_jax[english]' && python -m nltk.downloader " + ' '.join(DATA.values())


@functools.cache
def nltk() -> types.ModuleType:
    """NLTK with its data. Nothing is downloaded.

    Raises:
      ImportError: NLTK is not installed.
      FileNotFoundError: its data are missing. Both messages say how to get all that is needed.
    """
    try:
        import nltk  # pyright: ignore[reportMissingImports]  # An extra.
    except ImportError as error:
        raise MissingPackageError(f'This metric needs NLTK and its data. Fetch them once: {REMEDY}') from error
    for place, name in DATA.items():
        try:
            nltk.data.find(place)
        except LookupError:
            try:
                nltk.data.find(f'{place}.zip')
            except LookupError as error:
                raise FileNotFoundError(
                    f'This metric needs the NLTK data {name!r}. Fetch them once: {REMEDY}'
                ) from error
    return nltk
