"""Videos with texts, from webdataset tars, WebVid or ShareGPT4Video.

    python -m data.films.build --source="panda70m/*.tar" --out=DATA --name=panda70m
    python -m data.films.build --source=results_2M_train.csv --images=VIDEOS --out=DATA --name=webvid
    python -m data.films.build --source=sharegpt4video_40k.jsonl --images=VIDEOS --out=DATA --name=sharegpt4video

Videos stay encoded; training decodes frames of them (data set option `frames`). It needs the extra `videos`.
"""

from data import published

if __name__ == '__main__':
    published.start(__doc__)

from flamingo_jax.building.readers import sharegpt4video, webdataset, webvid
from flamingo_jax.building.readers.builder import PublishedBuilder
from flamingo_jax.building.readers.media_files import require_av


class Videos(PublishedBuilder):
    """Videos with texts."""

    READERS = {'.tar': webdataset.read, '.csv': webvid.read, '.jsonl': sharegpt4video.read}

    def __init__(self, **rest):
        """As for `PublishedBuilder`; ImportError if videos cannot be read."""
        require_av()
        super().__init__(**rest)


if __name__ == '__main__':
    published.build(Videos)
