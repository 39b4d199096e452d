"""Words, parts of speech and WordNet, by NLTK, for the metrics whose official code uses it (WUPS, OK-VQA's stems)."""

import functools
import types

# What NLTK's functions read, and the downloader's name for it.
DATA = {
    'corpora/wordnet': 'wordnet',
    'tokenizers/punkt_tab': 'punkt_tab',
    'taggers/averaged_perceptron_tagger_eng': 'averaged_perceptron_tagger_eng',
}


@functools.cache
def nltk() -> types.ModuleType:
    """NLTK with its data. Nothing is downloaded.

    Raises:
      ImportError: NLTK is not installed; the message names the extra.
      FileNotFoundError: its data are missing; the message says how to fetch them.
    """
    try:
        import nltk
    except ImportError as error:
        raise ImportError("This metric needs NLTK: pip install 'flamingo_jax[english]'.") from error
    for place, name in DATA.items():
        try:
            nltk.data.find(place)
        except LookupError:
            try:
                nltk.data.find(f'{place}.zip')
            except LookupError as error:
                raise FileNotFoundError(
                    f'This metric needs the NLTK data {name!r}. Fetch them once: python -m nltk.downloader '
                    f'{" ".join(DATA.values())}'
                ) from error
    return nltk
