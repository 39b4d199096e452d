"""What is kept of web pages. Each rule is a field; what a rule drops is in the ledger under the field's name.

M3W is the paper's own set (section 2.4, appendix A.3). OBELICS (Laurençon et al. 2023, appendix A.2) is the
public recipe with values; its numbers are those of its published code, by the step of its pipeline. 'Ours' says why.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class PageRules:
    """Values of all rules. A limit of 0 switches a rule off."""

    # A page, before it is read.
    page_max_bytes: int = 10_000_000  # Ours: beyond it, a page is generated or an attack.
    page_max_nodes: int = 100_000  # Ours: likewise; elements and texts.
    page_max_images: int = 1_000  # Ours: links to images; a gallery, no document.
    page_meta_image: bool = True  # Ours: a page that shows none begins with the image that its head names.

    # Texts. A text is what stands between two ends of a block: a paragraph, a heading, a caption.
    text_min_words: int = 4  # OBELICS, step 5.
    heading_min_words: int = 1  # Ours: headings and captions are short, and say most about the images beside them.
    text_max_words: int = 1000  # OBELICS, step 5.
    text_character_repetition: float = 0.2  # Of sequences of 10 characters. OBELICS, step 5: 0.1, see below.
    text_word_repetition: float = 0.2  # Of sequences of 5 words. OBELICS, step 5: 0.1.
    text_special_characters: float = 0.3  # OBELICS, step 5.
    heading_special_characters: float = 0.5  # Ours: 'Figure 16.227. The mask' has 0.32.
    text_stop_words: float = 0.15  # In English, of texts of 12 words or more. OBELICS, step 5: 0.3, of all.
    text_stop_words_elsewhere: float = 0.05  # Ours, in `texts.FREQUENT`: many have endings where English has words.
    text_punctuation: float = 0.001  # OBELICS, step 5: punctuation marks a word, of texts of 12 words or more.
    text_links: float = 0.5  # Ours: the share of characters inside links, from which a text is a menu.
    text_spam_words: float = 0.12  # OBELICS, step 14: the share of words such as 'subscribe', if there are two.

    # What else a page says. OBELICS has none of it.
    cell_min_words: int = 12  # Ours: of a table's cell that is no paragraph; many pages are laid out by tables.
    text_formulas: bool = False  # Formulas, as LaTeX between dollars.
    text_code: bool = False  # What stands in <pre>, between fences.
    text_tables: bool = False  # Tables of data, as Markdown.
    image_alt: bool = False  # The text that stands for an image where it is not seen, as its caption.

    # Characters. Ours: in a shorter text, a phrase that stands twice breaks any limit of repetition. There only what is
    # one phrase again and again is dropped.
    repetition_from: int = 200

    # Images.
    image_min_side: int = 64  # M3W. OBELICS has 150.
    image_max_side: int = 20_000  # OBELICS, step 5.
    image_max_pixels: int = 100_000_000  # Ours: more is an attack on the decoder.
    image_max_bytes: int = 20_000_000  # Ours.
    image_aspect: float = 3.0  # M3W, either way. OBELICS has 2.
    image_one_colour: float = 3.0  # M3W drops images of a single colour: all grey levels within so many of 255.
    # By content, not by name. OBELICS, step 5, has the first three. JXL is read where Pillow has a plug-in for it. Of a
    # GIF, the first frame is kept.
    image_formats: tuple[str, ...] = ('JPEG', 'PNG', 'WEBP', 'AVIF', 'JXL')

    # Documents.
    document_min_images: int = 1  # M3W and OBELICS, step 6.
    document_max_images: int = 30  # OBELICS, step 6.
    document_min_words: int = 10  # OBELICS, step 6.
    document_max_words: int = 2000  # OBELICS, step 6. A longer page is divided at its headings (ours).
    document_character_repetition: float = 0.2  # OBELICS, step 6: 0.1.
    document_word_repetition: float = 0.2  # OBELICS, step 6.
    document_special_characters: float = 0.275  # OBELICS, step 6.
    document_stop_words: float = 0.2  # In English. OBELICS, step 6: 0.35.
    document_stop_words_elsewhere: float = 0.08  # Ours: as for texts.
    document_punctuation: float = 0.03  # OBELICS, step 6.
    document_mixed_languages: float = 0.25  # Ours: the share of long texts not in the document's language.
    document_languages: tuple[str, ...] = ()  # ISO 639-1 codes to keep; () keeps every language.

    # Duplicates.
    # A text that is on so many pages of a site in one language is dropped from all (OBELICS, step 10: 2 pages).
    text_on_site: int = 3
    text_on_site_share: float = 0.02  # Ours: and on such a share of them. Else it is a quotation.
    document_seen_texts: float = 0.5  # Ours: the share of a document's text that documents before it on its site have.
    document_same_text: bool = True  # Exactly the same texts.
    document_near_text: bool = True  # MinHash, as in FineWeb: 14 bands of 8 hashes of 5 words, about .75 alike.
    document_same_images: bool = True  # OBELICS, step 12: the same set of images' URLs.
    image_url_repeats: int = 10  # OBELICS, step 7: most documents in which an image's URL occurs.
    image_look_repeats: int = 50  # Ours: the same for images of one look, in documents of one language.
    benchmark_distance: int = 12  # Ours: most bits of 256 in which the hash of a benchmark's image differs.
    benchmark_words: int = 13  # GPT-3's: a run of so many words that a benchmark's text has too.


# Where these differ from OBELICS, its values lost what a reader would keep: looked at in GIMP's manual, captions,
# headings, short sentences, and every document that repeats a term often (data/debian_pages/README.md has the numbers).
DEFAULT = PageRules()

# OBELICS as published, where it has a value; its limits for images are stricter than the paper's.
OBELICS = PageRules(
    page_meta_image=False,
    image_formats=('JPEG', 'PNG', 'WEBP'),
    heading_min_words=4,
    text_character_repetition=0.1,
    text_word_repetition=0.1,
    repetition_from=0,
    heading_special_characters=0.3,
    text_stop_words=0.3,
    image_min_side=150,
    image_aspect=2.0,
    document_character_repetition=0.1,
    document_stop_words=0.35,
    document_mixed_languages=0.0,
    text_on_site=2,
    text_on_site_share=0.0,
    document_seen_texts=0.0,
    text_links=0.0,
    image_look_repeats=0,
)


def differing(rules: PageRules) -> dict[str, Any]:
    """The rules whose values are not the default's."""
    return {name: value for name, value in dataclasses.asdict(rules).items() if value != getattr(DEFAULT, name)}
