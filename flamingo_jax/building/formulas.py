"""Formulas of a page as LaTeX: what MathML, MathJax, KaTeX and Wikipedia's images of formulas say."""

import re
from typing import Any

FORMULA = re.compile(r'\$\$.+?\$\$|\$[^$\n]+\$', re.DOTALL)
# What shows a formula a second time, for eyes or for ears.
SHOWN_AGAIN = frozenset('katex-html mathjax mathjax_preview mathjax_display mathjax_svg mjx_assistive_mathml'.split())
IMAGES = frozenset('latex math mwe-math-fallback-image-display mwe-math-fallback-image-inline tex'.split())
NAMES = (
    '≤le ≥ge ≠ne ×times ·cdot ⋅cdot ±pm →to ∞infty ∈in ∑sum ∏prod ∫int ∂partial ∇nabla ≈approx αalpha βbeta γgamma '
    'δdelta εepsilon θtheta λlambda μmu πpi ρrho σsigma φphi ωomega ΔDelta ΣSigma ΩOmega'
)
SIGNS = {one[0]: rf'\{one[1:]} ' for one in NAMES.split()}
# Invisible signs, such as that of multiplication, have none in LaTeX.
SIGNS |= {'−': '-', '{': r'\{', '}': r'\}', '%': r'\%', '&': r'\&', '\u2061': '', '\u2062': '', '\u2063': ''}
DEEPEST = 100  # Elements within each other; what is deeper is read as text.


def formula(node: Any, tag: str, names: str) -> str | None:
    """The formula that an element is, between dollars; '' if it shows one a second time; None if it is none.

    names: the classes of the element, in lower case.
    """
    if tag == 'math':
        return _dollars(_latex(node), (node.getattr('display') or '') == 'block')
    if tag == 'script':
        kind = (node.getattr('type') or '').lower()
        return _dollars(node.text or '', 'display' in kind) if kind.startswith('math/tex') else None
    if tag == 'img':
        known = IMAGES.intersection(names.split())
        return _dollars(node.getattr('alt') or '', any('display' in one for one in known)) if known else None
    return '' if SHOWN_AGAIN.intersection(names.split()) else None


def without_formulas(text: str) -> str:
    """A text without what stands between dollars."""
    return FORMULA.sub('', text)


def _dollars(latex: str, display: bool) -> str:
    latex = ' '.join(latex.split())
    if (found := re.fullmatch(r'\{\\(?:display|text)style (.*)\}', latex)) is not None:
        latex = found[1].strip()  # As Wikipedia writes it.
    latex = latex.replace('$', r'\$') if r'\$' not in latex else latex
    return '' if not latex else f'$${latex}$$' if display else f'${latex}$'


def _latex(math) -> str:
    """The LaTeX that a <math> carries; otherwise what its elements say."""
    for note in math.get_elements_by_tag_name('annotation'):
        if 'tex' in (note.getattr('encoding') or '').lower():
            return note.text or ''
    return math.getattr('alttext') or _element(math, 0)


def _element(node, depth: int) -> str:
    if depth > DEEPEST:
        return node.text or ''
    tag = node.tag
    if tag.startswith('annotation'):
        return ''
    if tag in ('mi', 'mn', 'mo', 'ms'):
        text = (node.text or '').strip()
        written = ''.join(SIGNS.get(letter, letter) for letter in text)
        return rf'\mathrm{{{written}}}' if tag == 'mi' and len(text) > 1 else written
    if tag == 'mtext':
        return rf'\text{{{(node.text or "").strip()}}}'
    parts = [_element(child, depth + 1) for child in node.children]
    if tag in FORMS and len(parts) == FORMS[tag].count('%s'):
        return FORMS[tag] % tuple(parts)
    if tag == 'mroot' and len(parts) == 2:
        return rf'\sqrt[{parts[1]}]{{{parts[0]}}}'
    if tag == 'msqrt':
        return rf'\sqrt{{{"".join(parts)}}}'
    if tag == 'mtable':
        rows = r' \\ '.join(parts)
        return rf'\begin{{matrix}}{rows}\end{{matrix}}'
    return (' & ' if tag in ('mtr', 'mlabeledtr') else '').join(parts)


FORMS = {
    'mfrac': r'\frac{%s}{%s}',
    'msup': '{%s}^{%s}',
    'msub': '{%s}_{%s}',
    'msubsup': '{%s}_{%s}^{%s}',
    'munder': '{%s}_{%s}',
    'mover': '{%s}^{%s}',
    'munderover': '{%s}_{%s}^{%s}',
}
