"""is_utf8, to_utf8: whether a text of the command line can be sent, and written to files.

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


def to_utf8(text: str) -> str:
    """Returns `text` with a question mark for each byte that has no form in UTF-8."""
    return text.encode(errors="replace").decode()
