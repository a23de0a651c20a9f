"""is_utf8: whether a text of the command line can be sent, and written to files.

Python decodes other bytes of arguments, such as Latin-1 file names, to surrogates: paths made of
them can be opened, but messages and files in UTF-8 cannot hold them.
"""

from __future__ import annotations


def is_utf8(text: str) -> bool:
    """Returns whether `text` has a form in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
