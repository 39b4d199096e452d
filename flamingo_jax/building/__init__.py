"""Raw material -> stored documents, on Apache Beam. It is in the package so that Beam's workers can import it.

A source gives documents (`document.py`) and what it dropped (`ledger.py`); `write.py` is the one way out.
`pages.py` makes documents of web pages in WARC files.
"""
