"""Draws docs/model.png, the image of the model in the README: python docs/model.py"""

import pathlib

import matplotlib.image
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

HERE = pathlib.Path(__file__).parent
FROZEN, TRAINED, LINE = '#d6e4f5', '#ffd9a8', '#444444'


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, color: str) -> None:
    """A rounded box with its text; x and y are its lower left corner, in inches."""
    shape = FancyBboxPatch((x, y), width, height, boxstyle='round,pad=0,rounding_size=0.08', fc=color, ec=LINE, lw=1)
    axes.add_patch(shape)
    axes.text(x + width / 2, y + height / 2, text, ha='center', va='center', fontsize=11)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow between two points, in inches."""
    axes.annotate('', end, start, arrowprops=dict(arrowstyle='-|>', color=LINE, lw=1.3, shrinkA=0, shrinkB=0))


def image(axes: Axes, x: float, y: float, name: str) -> None:
    """One of docs/pictures, 0.8 inches wide."""
    axes.imshow(matplotlib.image.imread(HERE / 'images' / f'{name}.png'), extent=(x, x + 0.8, y, y + 0.8))


def draw(axes: Axes) -> None:
    """Images from below on the left, text from below on the right; the answer on top."""
    for x, name in ((0.7, 'gorilla'), (1.7, 'mushroom'), (2.7, 'mushroom_3d')):
        image(axes, x, 0.5, name)
        arrow(axes, (x + 0.4, 1.35), (x + 0.4, 1.75))
    box(axes, 0.5, 1.75, 3.2, 0.7, 'Vision encoder, once per image', FROZEN)
    arrow(axes, (2.1, 2.45), (2.1, 2.85))
    box(axes, 0.5, 2.85, 3.2, 0.7, 'Perceiver Resampler', TRAINED)
    axes.text(4.8, 3.28, 'media tokens', ha='center', fontsize=10)
    axes.text(4.8, 3.12, 'a text token sees those of\nthe last image before it', ha='center', va='top', fontsize=9)

    axes.text(
        8.0, 0.85, '<image> dax kuv<EOC><image> zev gof<EOC><image>', ha='center', fontsize=11, family='monospace'
    )
    arrow(axes, (8.0, 1.1), (8.0, 1.75))
    box(axes, 6.2, 1.75, 3.6, 0.7, 'Token embedding', FROZEN)
    axes.add_patch(
        FancyBboxPatch((5.9, 2.7), 4.2, 2.1, boxstyle='round,pad=0,rounding_size=0.1', fc='none', ec=LINE, ls='--')
    )
    arrow(axes, (8.0, 2.45), (8.0, 2.85))
    box(axes, 6.2, 2.85, 3.6, 0.7, 'Gated cross-attention block', TRAINED)
    arrow(axes, (8.0, 3.55), (8.0, 3.95))
    box(axes, 6.2, 3.95, 3.6, 0.7, 'k language-model blocks', FROZEN)
    axes.text(10.2, 3.75, '× depth / k', va='center', fontsize=11)
    arrow(axes, (8.0, 4.65), (8.0, 5.1))
    axes.text(8.0, 5.2, 'zev gof', ha='center', fontsize=11, family='monospace', weight='bold')
    arrow(axes, (3.7, 3.2), (6.2, 3.2))

    box(axes, 0.5, 4.75, 0.4, 0.3, '', FROZEN)
    axes.text(1.0, 4.9, 'pretrained, frozen', va='center', fontsize=11)
    box(axes, 0.5, 4.3, 0.4, 0.3, '', TRAINED)
    axes.text(1.0, 4.45, 'trained', va='center', fontsize=11)
    axes.set(xlim=(0.2, 11.3), ylim=(0.4, 5.5), aspect='equal')
    axes.axis('off')


if __name__ == '__main__':
    figure = plt.figure(figsize=(11.1, 5.1))
    draw(figure.add_axes((0, 0, 1, 1)))
    figure.savefig(HERE / 'model.png', dpi=110, facecolor='white', metadata={'Software': None})
