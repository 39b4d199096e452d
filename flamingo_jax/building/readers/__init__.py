"""Published sets -> documents, one file a format.

Each file has a function `read(path, name, pictures)`, which yields a `Document` for each document of one file of the
set, and a `Dropped` for all that is missing or damaged. An error in the data never ends it. `containers.py` opens
files, `pictures.py` finds and checks pictures and films, `draft.py` collects a document, and `builder.py` turns a
reader into a data set.
"""
