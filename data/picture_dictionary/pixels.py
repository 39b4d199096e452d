"""Images as the data set stores them: square, on white, encoded as WebP."""

import io

from PIL import Image

FRAMES = 8  # The paper's number of frames of a training clip.


def on_white(image: Image.Image, size: int, enlarge: bool) -> Image.Image:
    """The image in the middle of a white square, as RGB.

    Its longer side becomes `size` px. A smaller image keeps its own size unless `enlarge`: enlarging adds no detail.
    """
    image = image.convert('RGBA')
    longer = max(image.size)
    if longer > size or enlarge:
        scaled = [max(1, round(side * size / longer)) for side in image.size]
        image = image.resize(scaled, Image.Resampling.LANCZOS)
    side = max(image.size)
    square = Image.new('RGBA', (side, side), 'white')
    square.alpha_composite(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.convert('RGB')


def webp(image: Image.Image, quality: int) -> bytes:
    """The image encoded as lossy WebP, by the slowest and smallest method."""
    buffer = io.BytesIO()
    image.save(buffer, 'WEBP', quality=quality, method=6)
    return buffer.getvalue()


def clip_frames(clip: Image.Image) -> list[Image.Image]:
    """FRAMES frames of an animation, evenly spaced over the loop, whose end is its beginning."""
    frames = []
    for i in range(FRAMES):
        clip.seek(i * clip.n_frames // FRAMES)
        frames.append(clip.convert('RGBA'))
    return frames
