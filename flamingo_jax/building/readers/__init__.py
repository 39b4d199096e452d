"""Published sets -> documents: what the sets in `data/` have in common.

Each set has a function `read(path, name, images)`, which yields a `Document` for each document of one file of the
set, and a `Dropped` for all that is missing or damaged. An error in the data never ends it. `containers.py` opens
files, `folder.py` finds images and videos, `images.py` checks them, `draft.py` collects a document, and `builder.py`
turns readers into a data set.
"""
