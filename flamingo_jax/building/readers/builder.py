"""Files of a published set -> a data set, on Beam: one worker reads a file, with the reader for its ending."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import tensorflow_datasets as tfds

from flamingo_jax.building.document import Document
from flamingo_jax.building.duplicates import open_benchmarks
from flamingo_jax.building.image_checks import LookError, look_at
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import extension
from flamingo_jax.building.readers.folder import ImageFolder, make_index
from flamingo_jax.building.readers.media_files import READABLE
from flamingo_jax.building.runner import beam
from flamingo_jax.building.write import DocumentsBuilder, Sources
from flamingo_jax.errors import UserError
from flamingo_jax.files import beside, find, in_bucket

Reader = Callable[[str, str, ImageFolder], Iterator[Document | Dropped]]


class PublishedBuilder(DocumentsBuilder, skip_registration=True):
    """A TFDS builder of a published set. A subclass in `data/` gives READERS."""

    VERSION = tfds.core.Version('1.0.0')
    READERS: ClassVar[Mapping[str, Reader]] = {}  # By the ending of a file.

    def __init__(self, source: str = '', images: str = '', benchmarks: str = '', **rest):
        """Finds the files.

        Args:
          source: the files of the set: a path, which may have the signs * and **. In a bucket, each is copied to this
            machine while it is read.
          images: the folder (or file) with the images or videos that the set names, which must be on this machine;
            '' if it holds them itself.
          benchmarks: a file of `index_benchmarks`. Documents with an image of theirs are left out, as the paper did
            with its pairs (appendix A.3). '' is none.

        Raises:
          FileNotFoundError: there are no such files.
          ValueError: they are not all of one kind, or of one that is not read.
        """
        self._images, self._benchmarks = images, benchmarks
        if images and not os.path.exists(images):
            where = 'Copy it to this machine' if in_bucket(images) else 'Give --images the folder of the images'
            raise FileNotFoundError(f'There is no folder {images} on this machine. {where}.')
        self._files = _named(source, self.READERS) if source else []
        super().__init__(**rest)

    def sources(self, pipeline: beam.Pipeline, work: str) -> Sources:
        """The documents of all files."""
        index = None
        if self._images:
            index = f'{work}/index'
            make_index(self._images, index)
        images = ImageFolder(self._images or None, index)
        # Each file is an element of its own, so that a runner can spread them.
        files = pipeline | beam.Create(self._files) | beam.Reshuffle()
        read = _Read(dict(self.READERS), images, self._benchmarks)
        made = files | 'read' >> beam.ParDo(read).with_outputs('dropped', main='kept')
        return Sources({'train': made.kept}, [made.dropped])


class _Read(beam.DoFn):
    """(path, name) -> the documents of a file, and what was dropped."""

    def __init__(self, readers: Mapping[str, Reader], image_folder: ImageFolder, benchmarks: str):
        self._readers, self._images, self._benchmarks = readers, image_folder, benchmarks

    def process(self, file):
        """Reads a file."""
        path, name = file
        with beside(path) as here:  # A bucket that does not answer is no fault of the file, and ends the build.
            try:
                for one in self._readers[extension(path)](here, name, self._images):
                    one = self._unlike_benchmarks(one)
                    yield beam.pvalue.TaggedOutput('dropped', one) if isinstance(one, Dropped) else one
            except OSError as error:
                yield beam.pvalue.TaggedOutput('dropped', Dropped('file_unreadable', 'file', name, excerpt=str(error)))

    def _unlike_benchmarks(self, one: Document | Dropped) -> Document | Dropped:
        """The document, or a note that it is dropped: a benchmark has one of its images.

        Of an animation the first frame is compared, and of a video nothing.
        """
        if not self._benchmarks or isinstance(one, Dropped):
            return one
        for place, image in enumerate(one.images):
            try:
                seen = image and look_at(image, READABLE)
            except LookError:
                continue
            known = open_benchmarks(self._benchmarks)
            if seen and (name := known.image(seen.hash, READABLE.benchmark_distance)):
                return Dropped('benchmark_distance', 'document', one.id, place, excerpt=name)
        return one


def _named(source: str, readers: Mapping[str, Reader]) -> list[tuple[str, str]]:
    """The path of each file, and its name from the folder that all have in common."""
    paths = find(source)
    if not paths:
        raise FileNotFoundError(f'There is no file {source}. Give --source the files of the set, such as FOLDER/*.tar.')
    endings = sorted({extension(path) for path in paths})
    if len(endings) > 1 or endings[0] not in readers:
        raise UserError(
            f'{source} names files that end in {", ".join(map(repr, endings))}. This data set is read from files of '
            f'one kind, {" or ".join(sorted(readers))}. Narrow --source.'
        )
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [(path, os.path.relpath(path, root)) for path in paths]
